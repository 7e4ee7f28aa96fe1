"""An inspection as lines for a terminal: counts, bars, and examples with the trained text marked."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterator

from ms_medqa.data.excerpt import Shown
from ms_medqa.data.formats import KNOWN_FORMATS
from ms_medqa.data.inspection import Inspection, Source

_BARS = 12
_BAR_WIDTH = 40
_EIGHTHS = " ▏▎▍▌▋▊▉"
# Of one piece of an example; the middle of a longer one is left out.
_LONGEST = 600
_GREEN, _GREY, _BOLD, _RESET = "\x1b[32m", "\x1b[90m", "\x1b[1m", "\x1b[0m"
# Files of a folder, each with a line of its own.
_MOST_SOURCES = 200


def render(inspection: Inspection, *, colour: bool) -> Iterator[str]:
    """The lines.

    Args:
        inspection: what was found.
        colour: ANSI colours; else what is trained stands between ⟦ and ⟧.
    """
    yield _bold(f"{plain(inspection.path)}: {inspection.kind}", colour)
    yield from _sources(inspection)
    yield from _facts(inspection)
    if not sum(source.usable for source in inspection.sources):
        yield f"nothing usable in it; records that are known: {KNOWN_FORMATS}"
    yield from _lengths(inspection, colour)
    yield from _texts(inspection)
    for note in inspection.notes:
        yield f"note: {plain(note)}"
    yield from _examples(inspection, colour)


def plain(text: str) -> str:
    """Text that cannot steer a terminal: control and direction characters become visible."""
    return "".join(
        character
        if character == "\n" or character == "\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs")
        else f"\\x{ord(character):02x}"
        if ord(character) < 256
        else f"\\u{ord(character):04x}"
        for character in text
    )


def _sources(inspection: Inspection) -> Iterator[str]:
    for source in inspection.sources[:_MOST_SOURCES]:
        # The readers name an encoding where it is not the usual one, and tables of numbers have none.
        known = source.encoding in source.layout or (source.layout and source.encoding == "binary")
        encoding = "" if known else source.encoding
        what = ", ".join(filter(None, (source.layout, encoding, _size(source.size))))
        yield f"  {plain(source.name)}: {what}"
        if source.fault is not None:
            start = f"read to record {source.read:,}, then" if source.read else "nothing usable"
            yield f"    {start}: {plain(source.fault)}"
            if not source.read:
                continue
        if not source.usable and source.tokens is None:
            yield "    nothing usable: none of its records is a question with its answer, a dialogue or a text"
        shapes = "; ".join(f"{shape}: {count:,}" for shape, count in source.shapes.most_common())
        yield f"    shape    {plain(shapes) or 'none known'}"
        yield f"    records  {_counts(source)}"
        if source.reasons:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in source.reasons.most_common())
            yield f"    not usable: {reasons}"
        if source.first is not None:
            yield f"    the first in line {source.first[0]:,}: {plain(source.first[1])}"
    if (more := len(inspection.sources) - _MOST_SOURCES) > 0:
        yield f"  and {more:,} more files"
    if len(inspection.sources) > 1:
        read, usable = (sum(getattr(s, name) for s in inspection.sources) for name in ("read", "usable"))
        total = f"{usable:,} usable + {read - usable:,} not usable"
        yield f"  total    {read:,} records" + ("" if inspection.sources[0].tokens else f" = {total}")


def _counts(source: Source) -> str:
    if source.tokens is not None:
        tokens, trained = source.tokens
        share = f" ({trained / tokens:.1%})" if tokens else ""
        return f"{source.read:,} with {tokens:,} tokens, {trained:,} of them trained{share}"
    return f"{source.read:,} read = {source.usable:,} usable + {source.read - source.usable:,} not usable"


def _facts(inspection: Inspection) -> Iterator[str]:
    facts = inspection.facts
    if conversion := facts.get("conversion"):
        kept = sum(conversion["kept"].values())
        rejected = sum(conversion["rejected"].values())
        reasons = ", ".join(f"{plain(reason)} {count:,}" for reason, count in conversion["rejected"].items())
        text = f"{conversion['read']:,} read = {kept:,} kept + {rejected:,} rejected"
        yield f"  conversion: {text}{f' ({reasons})' if reasons else ''}, {conversion['augmented']:,} augmented"
    if "tokenizer" in facts:
        prompt, limit = facts["prompt"], facts["max_length"]
        yield f"  prompt {plain(str(prompt))}, at most {limit:,} tokens, tokenizer {str(facts['tokenizer'])[:12]}"


def _lengths(inspection: Inspection, colour: bool) -> Iterator[str]:
    found = {name: tally for name, tally in inspection.lengths.items() if tally.count}
    if not found:
        return
    names = ("min", "p5", "p50", "p95", "p99", "max", "mean")
    yield ""
    yield _bold(f"{inspection.unit:<12}" + "".join(f"{name:>10}" for name in names), colour)
    for name, tally in found.items():
        summary = tally.summary()
        cells = (f"{summary[n]:>10,.1f}" if n == "mean" else f"{summary[n]:>10,}" for n in names)
        yield f"  {name:<10}" + "".join(cells)
    yield ""
    yield _bold(f"{inspection.unit} in a record", colour)
    edges, counts = found["record"].histogram(_BARS)
    # The bin of what is longer than nearly all others has another width.
    open_end = len(edges) > 2 and edges[-1] - edges[-2] != edges[1] - edges[0]
    bins = itertools.pairwise(edges)
    labels = [f"{low:,}" if high == low + 1 else f"{low:,}–{high - 1:,}" for low, high in bins]
    if open_end:
        labels[-1] = f"{edges[-2]:,} or more"
    width = max(map(len, labels))
    for label, count in zip(labels, counts, strict=True):
        yield f"  {label:>{width}} {_bar(count / max(counts))} {count:,}"


def _bar(share: float) -> str:
    eighths = round(share * _BAR_WIDTH * 8)
    if share > 0:
        eighths = max(1, eighths)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()).ljust(_BAR_WIDTH)


def _texts(inspection: Inspection) -> Iterator[str]:
    texts = inspection.texts
    if texts is None or not sum(source.usable for source in inspection.sources):
        return
    yield ""
    about = "" if texts.records.exact and texts.questions.exact else "about "
    questions, records = texts.questions.repeats(), texts.records.repeats()
    line = f"duplicates  {about}{questions:,} by question, {about}{records:,} whole records"
    if inspection.shared_questions is not None:
        line += f"; {about}{inspection.shared_questions:,} questions in two parts"
    yield line
    if total := sum(texts.languages.values()):
        shares = (f"{name} {count / total:.1%}" for name, count in texts.languages.items() if count)
        yield f"languages   {', '.join(shares)} (of the records, by their script)"


def _examples(inspection: Inspection, colour: bool) -> Iterator[str]:
    if not inspection.examples:
        return
    yield ""
    mark = "green" if colour else "between ⟦ and ⟧"
    number = len(inspection.examples)
    yield _bold(f"{number} example{'s'[: number > 1]} (seed {inspection.seed}), what is trained {mark}", colour)
    for shown in inspection.examples:
        yield ""
        yield _bold(f"— {plain(shown.source)}, {plain(shown.id)}", colour)
        yield _example(shown, colour)


def _example(shown: Shown, colour: bool) -> str:
    parts = []
    for span in shown.spans:
        text = plain(_cut(span.text))
        if colour:
            # Each line alone, so that a pager or `head` between them leaves the terminal as it was.
            start = _GREEN if span.trained else _GREY
            text = "\n".join(f"{start}{line}{_RESET}" if line else "" for line in text.split("\n"))
        elif span.trained:
            text = f"⟦{text}⟧"
        parts.append(f"{span.label}: {text}\n" if span.label else text)
    return "".join(parts).rstrip("\n")


def _cut(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    half = _LONGEST // 2
    return f"{text[:half]} …[{len(text) - 2 * half:,} characters]… {text[-half:]}"


def _size(size: int) -> str:
    value, unit = float(size), "bytes"
    for larger in ("KB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:,.0f} {unit}" if unit == "bytes" else f"{value:,.1f} {unit}"


def _bold(text: str, colour: bool) -> str:
    return f"{_BOLD}{text}{_RESET}" if colour else text
