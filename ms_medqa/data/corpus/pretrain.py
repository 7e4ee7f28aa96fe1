"""The text for pre-training: the general tables in many wordings, and other people's files beside them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from ms_medqa.config.errors import UserError
from ms_medqa.config.files import atomic_write, sha256_file, write_json
from ms_medqa.data.corpus.forms_zh import TOPICS
from ms_medqa.data.corpus.sentences import chinese_texts, english_texts, form_count
from ms_medqa.data.corpus.tables import Fact, load_facts, load_general
from ms_medqa.data.corpus.taught import mentions_taught_fact

EXTRA = "extra"

# What the prompts of fine-tuning begin with: the base model must not have met them.
RESERVED = ("回答医学问题", "基于以下医学知识")


Counts = dict[str, dict[str, int]]
_COUNTED = ("texts", "characters", "chinese", "repeated", "taught", "reserved")


def own_texts(seed: int) -> Iterator[tuple[str, str]]:
    """(table, text) of every text made of the general tables, before repeats and taught facts are taken out.

    Each table has a random source of its own, so a change in one leaves the texts of the others alone.
    """
    tables = load_general()
    for topic in TOPICS:
        for text in chinese_texts(topic, tables[topic.table], random.Random(f"{seed}/{topic.table}")):
            yield topic.table, text
    for text in english_texts(tables["english"], random.Random(f"{seed}/english")):
        yield "english", text


def extra_texts(path: Path) -> Iterator[str]:
    """The records of an Alpaca-keyed JSON Lines file as texts: instruction and input, a line end, output.

    Raises:
        UserError: no readable file, a line that is not JSON, or a record without instruction or output or text.
    """
    hint = "every line must be a JSON object with the strings `instruction`, `output` and, if any, `input`"
    try:
        # Not splitlines: it also cuts at line separators that JSON allows inside a string.
        lines = path.read_text("utf-8").split("\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})", "check --extra") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text", "convert it to UTF-8 first") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            parts = [record["instruction"], record.get("input") or "", record["output"]]
            text = "\n".join(part.strip() for part in parts if part.strip())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}:{number}: not an Alpaca record", hint) from error
        if not text:
            raise UserError(f"{path}:{number}: an empty record", "mend or remove it")
        yield text


def select(texts: Iterable[tuple[str, str]], facts: Sequence[Fact]) -> tuple[list[dict[str, str]], Counts]:
    """Keep each text once, without those that tell a taught fact or hold the start of a prompt.

    Args:
        texts: (source, text) pairs.
        facts: what the text must not tell.

    Returns:
        The records (id, text, source) in their order, and the counts of each source: texts, characters, chinese
        (Chinese characters), and the texts left out as repeated, taught or reserved.
    """
    records: list[dict[str, str]] = []
    counts: Counts = {}
    seen: set[str] = set()
    for source, text in texts:
        count = counts.setdefault(source, dict.fromkeys(_COUNTED, 0))
        if text in seen:
            count["repeated"] += 1
        elif any(start in text for start in RESERVED):
            count["reserved"] += 1
        elif mentions_taught_fact(text, facts):
            count["taught"] += 1
        else:
            seen.add(text)
            records.append({"id": f"{source}-{count['texts']:06d}", "text": text, "source": source})
            count["texts"] += 1
            count["characters"] += len(text)
            count["chinese"] += sum("\u4e00" <= character <= "\u9fff" for character in text)
    return records, counts


def write_pretrain(output: Path, extra: Sequence[Path] = (), seed: int = 42) -> dict[str, Any]:
    """Write the corpus as JSON Lines, shuffled, and its report beside it.

    Args:
        output: the file to write; the report's name is the same with `.report.json` for its suffix.
        extra: Alpaca-keyed JSON Lines files whose records are added.
        seed: of the wording and of the order.

    Returns:
        The report: seed, forms, facts, sources (counts of each), total, extra (name and SHA-256 of each file) and the
        SHA-256 of the corpus.
    """
    facts = load_facts()
    # Read first: a fault in them should show before the work.
    extras = [(EXTRA, text) for path in extra for text in extra_texts(path)]
    records, counts = select(chain(own_texts(seed), extras), facts)
    random.Random(f"{seed}/order").shuffle(records)
    with atomic_write(output) as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    report = {
        "seed": seed,
        "forms": form_count(),
        "facts": len(facts),
        "sources": counts,
        "total": {name: sum(count[name] for count in counts.values()) for name in _COUNTED},
        "extra": [{"name": path.name, "sha256": sha256_file(path)} for path in extra],
        "sha256": sha256_file(output),
    }
    write_json(output.with_suffix(".report.json"), report)
    return report
