"""The rules on texts, in their order: first those that change a record, then those that speak against it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

from ms_medqa.config.schema import DataSection
from ms_medqa.data.claims import ClaimList
from ms_medqa.data.example import Example, PlainText, Record
from ms_medqa.data.rules import markup
from ms_medqa.data.rules.boilerplate import BoilerplateList
from ms_medqa.data.rules.copied import copied_share, url_share
from ms_medqa.data.rules.language import foreign_share
from ms_medqa.data.rules.mojibake import mojibake_share
from ms_medqa.data.rules.redact import PLACEHOLDERS, redact
from ms_medqa.data.rules.verdict import Note, Rejected

# A short text in one or two long tags is worth keeping, so this many characters of markup are needed to reject it.
_MUCH_MARKUP = 200


class TextRules:
    """Judges a record by its text alone.

    Args:
        settings: `rules`, `redact` and `wrong_claims` of the data section.

    Raises:
        UserError: a list of the user cannot be read.
    """

    def __init__(self, settings: DataSection) -> None:
        self._rules = settings.rules
        self._redact = settings.redact
        self._claims = ClaimList(settings.wrong_claims) if self._rules.wrong_claim else None
        self._boilerplate = BoilerplateList(self._rules.boilerplate_lists) if self._rules.boilerplate else None

    def apply(self, record: Record) -> tuple[Record, tuple[Note, ...]] | Rejected:
        """The record with its markup and personal data taken out, and notes of that; or the reason against it."""
        notes: list[Note] = []
        # Most records hold neither of these, and are neither looked through nor built anew.
        if self._rules.html != "keep" and any("<" in text or "&" in text for text in texts_of(record)):
            cleaned = self._clean_html(record, notes)
            if isinstance(cleaned, Rejected):
                return cleaned
            record = cleaned
        if self._redact:
            counts: Counter[str] = Counter()
            record = map_texts(record, lambda text: redact(text, counts))
            notes += [Note(name, f"{PLACEHOLDERS[name]} × {count}", count) for name, count in sorted(counts.items())]
        rejected = self._against(record)
        return (record, tuple(notes)) if rejected is None else rejected

    def _clean_html(self, record: Record, notes: list[Note]) -> Record | Rejected:
        places = 0
        worst = 0.0

        def clean(text: str) -> str:
            nonlocal places, worst
            stripped = markup.strip(text)
            places += stripped.places
            if stripped.size >= _MUCH_MARKUP:
                worst = max(worst, stripped.size / len(text))
            return stripped.text

        cleaned = map_texts(record, clean)
        if not places:
            return record
        if self._rules.html == "reject":
            return Rejected("html", f"{places} tags or entities")
        if worst >= self._rules.html_share:
            return Rejected("html", f"{worst:.0%} of a text is markup")
        notes.append(Note("cleaned_html", f"{places} tags or entities", places))
        return cleaned

    def _against(self, record: Record) -> Rejected | None:
        if self._rules.empty:
            if isinstance(record, PlainText):
                if not record.text:
                    return Rejected("empty", "no text")
            else:
                rounds = (*record.history, (record.question, record.answer))
                if not all(q and a for q, a in rounds):
                    return Rejected("empty", "no question" if not all(q for q, _ in rounds) else "no answer")
                # Of a picture nothing is left when markup is taken out.
                if not all(record.choices or ()):
                    return Rejected("empty", "an option without text")
        if (limit := self._rules.mojibake) is not None:
            share = max(map(mojibake_share, texts_of(record)), default=0.0)
            if share >= limit:
                return Rejected("mojibake", f"{share:.0%} of a text is mis-decoded, less than {limit:.0%} is allowed")
        if languages := self._rules.languages:
            texts = (record.text,) if isinstance(record, PlainText) else (record.question, record.answer)
            share = foreign_share(texts, languages)
            if share < self._rules.language_share:
                return Rejected("language", f"{share:.0%} of a text is in {' or '.join(languages)}")
        return None if isinstance(record, PlainText) else self._against_answer(record)

    def _against_answer(self, record: Example) -> Rejected | None:
        if (limit := self._rules.url) is not None and (share := url_share(record.answer)) >= limit:
            return Rejected("url", f"{share:.0%} of the answer is URLs, less than {limit:.0%} is allowed")
        # The right option of an exam question may well be `none`.
        if self._boilerplate is not None and not record.choices and record.label is None:
            entry = self._boilerplate.find(record.answer)
            if entry is not None:
                return Rejected("boilerplate", entry)
        if (limit := self._rules.copied) is not None:
            share = copied_share(record.question, record.answer)
            if share >= limit:
                return Rejected("copied", f"{share:.0%} of the answer is the question")
        if self._claims is not None:
            claim = self._claims.find((*(answer for _, answer in record.history), record.answer))
            if claim is not None:
                return Rejected("wrong_claim", claim)
        return None


def texts_of(record: Record) -> Iterator[str]:
    """All texts that the record is rendered from."""
    if isinstance(record, PlainText):
        yield record.text
        return
    if record.system:
        yield record.system
    if record.context:
        yield record.context
    for turn in record.history:
        yield from turn
    yield record.question
    yield record.answer


def map_texts(record: Record, change: Callable[[str], str]) -> Record:
    """The record with every text, also choices and key, replaced by `change` of it; itself where nothing changes."""
    if isinstance(record, PlainText):
        text = change(record.text)
        return record if text == record.text else replace(record, text=text)
    changed = replace(
        record,
        question=change(record.question),
        answer=change(record.answer),
        context=None if record.context is None else change(record.context),
        system=None if record.system is None else change(record.system),
        history=tuple((change(question), change(answer)) for question, answer in record.history),
        choices=None if record.choices is None else tuple(map(change, record.choices)),
        key=None if record.key is None else change(record.key),
    )
    return record if changed == record else changed
