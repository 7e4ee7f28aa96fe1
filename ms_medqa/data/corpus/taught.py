"""What must hold of the taught facts: kept out of other text, and asked in the test in words of its own."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain

from ms_medqa.data.corpus.tables import Fact
from ms_medqa.data.segment import segment

# Question words that any question about anything may share; they say nothing of the relation asked for.
_QUESTION_WORDS = "什么 哪种 哪个 哪些 哪类 哪项 哪里 怎么 怎样 如何 多少 多久 是否 请问"
STOP_WORDS = frozenset(_QUESTION_WORDS.split())
_RANGE = re.compile(r"(?<=\d)(?:至|到|~|-|–|—|−)+(?=\d)")
_RATIO = re.compile(r"(?<=\d)[比∶](?=\d)")
_LENGTHS = {"key": (2, 10), "answer": (12, 60), "question": (6, 60)}
_FEWEST = {"train": 6, "cards": 2, "before": 1, "after": 1, "val": 2, "test": 3, "answer": 3, "context": 2}
_SLOTS = {"answer": ("{s}", "{k}"), "context": ("{s}", "{k}"), "before": (), "after": ()}
_FEWEST_PHRASES = 7
_MOST_FACTS_OF_A_KEY = 3


def fold(text: str) -> str:
    """Text for comparison: width and case folded, no white space, one way to write ranges and ratios of numbers."""
    text = "".join(unicodedata.normalize("NFKC", text).casefold().split())
    return _RATIO.sub(":", _RANGE.sub("-", text))


_folded = lru_cache(maxsize=None)(fold)


def mentions_taught_fact(text: str, facts: Iterable[Fact]) -> bool:
    """Whether the text holds both the subject and the key of one of the facts."""
    folded = fold(text)
    return any(_folded(fact.subject) in folded and _folded(fact.key) in folded for fact in facts)


def normalized_question(question: str) -> str:
    """A question without what does not make it another question: punctuation, white space, width and case."""
    return "".join(character for character in fold(question) if character.isalnum())


def content_words(question: str, subject: str) -> set[str]:
    """The words of two or more characters that tell what is asked about the subject, found by jieba."""
    return {word for word in segment(question.replace(subject, " ")) if len(word.strip()) >= 2} - STOP_WORDS


def shared_words(fact: Fact) -> set[str]:
    """Content words of the fact's test questions that one of its training questions holds."""
    relation = fact.relation
    forms = (*relation.openers, *chain(*relation.before, *relation.after), *relation.train, *relation.cards)
    seen = " ".join(form.format(s="|") for form in forms)
    asked = (form.format(s=fact.subject) for form in fact.relation.test)
    return {word for question in asked for word in content_words(question, fact.subject) if word in seen}


def faults(facts: Sequence[Fact]) -> list[str]:
    """Everything wrong with the table of taught facts, one line each; empty when it is sound."""
    found: list[str] = []
    subjects = Counter(fold(fact.subject) for fact in facts)
    keys = Counter(fold(fact.key) for fact in facts)
    found += [f"subject {subject} stands in {count} facts" for subject, count in subjects.items() if count > 1]
    found += [f"key {key} stands in {count} facts" for key, count in keys.items() if count > _MOST_FACTS_OF_A_KEY]
    for relation in {fact.relation.name: fact.relation for fact in facts}.values():
        if any(len(set(words)) < _FEWEST_PHRASES for words in (*relation.before, *relation.after)):
            found.append(f"relation {relation.name}: a list of phrases of less than {_FEWEST_PHRASES}")
        for part, fewest in _FEWEST.items():
            forms = getattr(relation, part)
            if len(set(forms)) < fewest:
                found.append(f"relation {relation.name}: {len(set(forms))} {part} forms, at least {fewest} wanted")
            lacking = [(slot, form) for form in forms for slot in _SLOTS.get(part, ("{s}",)) if slot not in form]
            found += [f"relation {relation.name}: no {slot} in {form}" for slot, form in lacking]
    for fact in facts:
        found += [f"{fact.relation.name} / {fact.subject}: {fault}" for fault in _faults_of(fact)]
    return found


def _faults_of(fact: Fact) -> Iterable[str]:
    relation = fact.relation
    if fold(fact.key) in fold(fact.subject) or fold(fact.subject) in fold(fact.key):
        yield f"key {fact.key} and subject hold each other"
    sentences = [("key", fact.key)]
    sentences += [("answer", form.format(s=fact.subject, k=fact.key)) for form in relation.answer]
    sentences += [
        ("question", form.format(s=fact.subject))
        for form in relation.train + relation.cards + relation.val + relation.test
    ]
    for kind, sentence in sentences:
        shortest, longest = _LENGTHS[kind]
        if not shortest <= len(sentence) <= longest:
            yield f"{kind} of {len(sentence)} characters, {shortest} to {longest} wanted: {sentence}"
    questions = [normalized_question(sentence) for kind, sentence in sentences if kind == "question"]
    if len(set(questions)) < len(questions):
        yield "two of its questions are the same"
    if any(normalized_question(fact.key) in question for question in questions):
        yield f"a question holds the key {fact.key}"
    if shared := shared_words(fact):
        yield f"test words that a training question holds: {' '.join(sorted(shared))}"
