"""All texts of one general table: every form filled from every record that has its fields."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ms_medqa.data.corpus import forms_en
from ms_medqa.data.corpus.forms_zh import CLOSINGS, DIALOGUES, LINKS, TOPICS, Topic
from ms_medqa.data.corpus.phrases import fillable, slots

Record = Mapping[str, Any]

# Texts of one record. Fixed numbers and not all combinations: the common forms would drown the rare ones.
_STATEMENTS_OF_A_FIELD = 2
_DIALOGUES_OF_A_FIELD = 3
_PARAGRAPHS = 5
_PARAGRAPH_FIELDS = (3, 6)
_PAIRS = 3
_NAMES_OF_A_GROUP = (2, 5)


def form_count() -> int:
    """How many sentence forms there are, Chinese and English."""
    english = len(forms_en.NOTES) + len(forms_en.DIALOGUES) + len(forms_en.EXTENDED)
    return sum(len(topic.forms) for topic in TOPICS) + len(DIALOGUES) + english


def chinese_texts(topic: Topic, records: Sequence[Record], rng: random.Random) -> Iterator[str]:
    """The texts of one Chinese table; repeats are possible."""
    for record in records:
        fields = slots(record, rng)
        yield from _statements(topic, fields, rng)
        yield from _dialogues(topic, fields, rng)
        for _ in range(_PARAGRAPHS):
            yield _paragraph(topic, fields, rng)
        for form in fillable(topic.forms.texts, fields):
            yield form.format(**fields)
    yield from _pairs(topic, records, rng)
    yield from _groups(topic, records, rng)


def english_texts(records: Sequence[Record], rng: random.Random) -> Iterator[str]:
    """The texts of the English table; repeats are possible."""
    for record in records:
        topic, sentences = record["topic"], record.get("sentences") or []
        if sentences:
            for form in forms_en.NOTES:
                yield form.format(topic=topic, sentences=" ".join(_some(sentences, rng, 2)))
        for pair in record.get("qa") or []:
            for form in rng.sample(forms_en.DIALOGUES, 5):
                yield form.format(topic=topic, **pair)
            if sentences:
                yield rng.choice(forms_en.EXTENDED).format(**pair, others=" ".join(_some(sentences, rng, 1)))


def _statements(topic: Topic, fields: Mapping[str, Any], rng: random.Random) -> Iterator[str]:
    for field, forms in topic.forms.statements.items():
        if field in fields:
            for form in _some(fillable(forms, fields), rng, _STATEMENTS_OF_A_FIELD, _STATEMENTS_OF_A_FIELD):
                yield form.format(**fields)


def _dialogues(topic: Topic, fields: Mapping[str, Any], rng: random.Random) -> Iterator[str]:
    for field, forms in topic.forms.questions.items():
        if field not in fields:
            continue
        questions = fillable(forms, fields)
        for frame in rng.sample(DIALOGUES, _DIALOGUES_OF_A_FIELD):
            question = rng.choice(questions).format(**fields)
            answer = rng.choice(fillable(topic.forms.statements[field], fields)).format(**fields)
            yield frame.format(question=question, answer=answer)


def _paragraph(topic: Topic, fields: Mapping[str, Any], rng: random.Random) -> str:
    known = [field for field in topic.forms.statements if field in fields]
    chosen = _some(known, rng, *_PARAGRAPH_FIELDS)
    if rng.random() < 0.3:
        rng.shuffle(chosen)
    sentences = []
    for place, field in enumerate(chosen):
        form = rng.choice(fillable(topic.forms.statements[field], fields))
        if place == 0:
            sentences.append(form.format(**fields))
        else:
            name = rng.choice(topic.pronouns) if rng.random() < 0.6 else fields[topic.name]
            sentences.append(rng.choice(LINKS) + form.format(**fields | {topic.name: name}))
    return "".join(sentences) + rng.choice(CLOSINGS)


def _pairs(topic: Topic, records: Sequence[Record], rng: random.Random) -> Iterator[str]:
    alike: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        alike[str(record.get(topic.alike)) if topic.alike else ""].append(record)
    for family in alike.values():
        if len(family) < 2:
            continue
        for first in family:
            for form in rng.sample(topic.forms.pairs, min(_PAIRS, len(topic.forms.pairs))):
                second = rng.choice([record for record in family if record is not first])
                fields = {f"a_{field}": value for field, value in slots(first, rng).items()}
                fields |= {f"b_{field}": value for field, value in slots(second, rng).items()}
                if fillable([form], fields):
                    yield form.format(**fields)


def _groups(topic: Topic, records: Sequence[Record], rng: random.Random) -> Iterator[str]:
    for field, forms in topic.forms.groups.items():
        sharing: dict[str, list[str]] = defaultdict(list)
        for record in records:
            values = record.get(field) or []
            for value in values if isinstance(values, list) else [values]:
                sharing[value].append(record[topic.name])
        for value, names in sharing.items():
            if len(names) < 2:
                continue
            for form in forms:
                chosen = rng.sample(names, min(len(names), rng.randint(*_NAMES_OF_A_GROUP)))
                yield form.format(value=value, names="、".join(chosen))


def _some(items: Sequence[str], rng: random.Random, fewest: int, most: int | None = None) -> list[str]:
    """Some of the items, in their order."""
    count = min(len(items), rng.randint(min(fewest, len(items)), most or len(items)))
    return [items[place] for place in sorted(rng.sample(range(len(items)), count))]
