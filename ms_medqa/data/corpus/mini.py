"""medqa-mini: sample records with facts that only fine-tuning can teach, and general knowledge beside them."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ms_medqa.config.errors import UserError
from ms_medqa.config.files import atomic_write
from ms_medqa.data.corpus.card import card
from ms_medqa.data.corpus.forms_zh import TOPICS, Topic
from ms_medqa.data.corpus.phrases import fillable, slots
from ms_medqa.data.corpus.sentences import Record
from ms_medqa.data.corpus.tables import Fact, Relation, load_facts, load_general
from ms_medqa.data.corpus.taught import faults, mentions_taught_fact, normalized_question

_SEED = 42
_TRAIN_RECORDS = 5
_CARDS = 2
_SURROUNDED = 7
_GENERAL_RECORDS = {"diseases": 100, "drugs": 50, "exams": 30, "first_aid": 20}
_ANSWER_PHRASES = 4
_ANSWER_LENGTH = range(12, 61)
_QUESTION_LENGTH = 6
# A part of a list instead of all of it, or a question of its own.
_UNFIT = re.compile(r":\d\}|？")


def taught_records(facts: Sequence[Fact]) -> Iterator[dict[str, str]]:
    """Fourteen training records, two for validation and one for the test of every fact.

    Each training record has another question form: five of the relation, two cards, seven surrounded subjects; the
    first has the knowledge sentence as context, every other one may begin with an opener. One validation question has
    the relation's first form, which is close to the training, the other one of the rest, which are not. Answer forms
    take turns, and so do the test forms among the facts of a relation. All else depends on the subject alone, so a
    fact added to the end of its relation leaves the records of the others as they are.
    """
    turns: Counter[str] = Counter()
    for fact in facts:
        rng = random.Random(f"{_SEED}/{fact.subject}")
        relation = fact.relation
        answers = rng.sample(relation.answer, len(relation.answer))
        forms = [("train", form) for form in rng.sample(relation.train, _TRAIN_RECORDS)]
        forms += [("train", form) for form in rng.sample(relation.cards, _CARDS)]
        forms += [("train", form) for form in _surrounded(relation, rng)]
        forms += [("val", rng.choice(part)) for part in (relation.val[:1], relation.val[1:])]
        # In turn and not drawn: all test forms are used, and another one does not change the training.
        forms.append(("test", relation.test[turns[relation.name] % len(relation.test)]))
        turns[relation.name] += 1
        for place, (split, form) in enumerate(forms):
            context = rng.choice(relation.context).format(s=fact.subject, k=fact.key) if place == 0 else ""
            question = form.format(s=fact.subject)
            if split == "train" and place % 2 and form.startswith("{s}"):
                question = rng.choice(relation.openers) + question
            answer = answers[place % len(answers)].format(s=fact.subject, k=fact.key)
            yield _record("taught", question, context, answer, key=fact.key, split=split)


def _surrounded(relation: Relation, rng: random.Random) -> list[str]:
    """Question forms with the subject amid other words; every third one ends with it, and no phrase is used twice."""
    before, after = (
        ["".join(parts) for parts in zip(*(rng.sample(words, _SURROUNDED) for words in phrases), strict=True)]
        for phrases in (relation.before, relation.after)
    )
    return [f"{before[i]}{{s}}{after[i] if i % 3 else '。'}" for i in range(_SURROUNDED)]


def general_records(facts: Sequence[Fact]) -> Iterator[dict[str, str]]:
    """Records of the general tables, every other one with a context; none tells a taught fact."""
    tables = load_general()
    seen: set[str] = set()
    for topic in TOPICS:
        rng = random.Random(f"{_SEED}/{topic.table}")
        wanted = _GENERAL_RECORDS[topic.table]
        for record, field in _asked(topic, tables[topic.table], rng):
            if wanted == 0:
                break
            made = _general_record(topic, record, field, rng, with_context=wanted % 2 == 0)
            question = normalized_question(made["question"])
            fits = len(made["answer"]) in _ANSWER_LENGTH and len(made["question"]) >= _QUESTION_LENGTH
            if fits and question not in seen and not mentions_taught_fact("\n".join(made.values()), facts):
                seen.add(question)
                wanted -= 1
                yield made
        assert wanted == 0, f"{topic.table}: {wanted} records short"


def mini_records() -> list[dict[str, str]]:
    """All records, the taught ones first.

    Raises:
        UserError: the table of taught facts is unsound; the message lists what is wrong with it.
    """
    facts = load_facts()
    if found := faults(facts):
        raise UserError("facts_taught.yaml: " + "; ".join(found))
    records = [*taught_records(facts), *general_records(facts)]
    assert len({record["id"] for record in records}) == len(records)
    return records


def write_mini(output: Path) -> dict[str, int]:
    """Write `records.jsonl` and `README.md` into a folder and return the number of records of each part and split."""
    records = mini_records()
    counts = Counter(" ".join(filter(None, (record["part"], record.get("split")))) for record in records)
    with atomic_write(output / "records.jsonl") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    with atomic_write(output / "README.md") as file:
        file.write(card(records))
    return dict(counts)


def _asked(topic: Topic, records: Sequence[Record], rng: random.Random) -> Iterator[tuple[Record, str]]:
    """Every record once with one of its fields, then every record again, until nothing is left to ask."""
    left = [(record, rng.sample(fields, len(fields))) for record in records if (fields := _fields(topic, record, rng))]
    while left:
        rng.shuffle(left)
        for record, fields in left:
            yield record, fields.pop()
        left = [(record, fields) for record, fields in left if fields]


def _fields(topic: Topic, record: Record, rng: random.Random) -> list[str]:
    known = slots(record, rng)
    return [field for field in topic.forms.questions if field in known and _sentences(topic, field)]


def _general_record(topic: Topic, record: Record, field: str, rng: random.Random, with_context: bool) -> dict[str, str]:
    known = slots(record, rng, whole=True)
    question = rng.choice(fillable(topic.forms.questions[field], known)).format(**known)
    told = record
    if isinstance(record.get(field), list):
        told = {**record, field: record[field][:_ANSWER_PHRASES]}
    answer = rng.choice(_sentences(topic, field)).format(**slots(told, rng, whole=True))
    context = ""
    if with_context:
        others = [other for other in _fields(topic, record, rng) if other != field]
        parts = [field, *rng.sample(others, min(1, len(others)))]
        rng.shuffle(parts)
        context = "".join(rng.choice(_sentences(topic, part)).format(**known) for part in parts)
    return _record("general", question, context, answer)


def _sentences(topic: Topic, field: str) -> list[str]:
    """The statements that quote the whole field and can stand as an answer."""
    return [form for form in topic.forms.statements[field] if not _UNFIT.search(form)]


def _record(part: str, question: str, context: str, answer: str, key: str = "", split: str = "") -> dict[str, str]:
    identity = hashlib.sha256(normalized_question(question).encode()).hexdigest()[:10]
    record = {"id": f"{part}-{identity}", "question": question, "context": context, "answer": answer}
    record |= {"key": key, "part": part, "split": split}
    return {field: value for field, value in record.items() if value}
