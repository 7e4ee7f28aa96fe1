"""English text forms: what wraps the sentences and the question–answer pairs of the English table."""

from __future__ import annotations

NOTES: tuple[str, ...] = (
    "{sentences}",
    "{topic}\n{sentences}",
    "Topic: {topic}. {sentences}",
    "About {topic}: {sentences}",
    "Health note on {topic}. {sentences}",
    "Key points ({topic}): {sentences}",
    "Here is some basic information about {topic}. {sentences}",
    "Teacher: Today we talk about {topic}. {sentences}",
    "Lecture summary, {topic}. {sentences}",
)

DIALOGUES: tuple[str, ...] = (
    "Q: {q}\nA: {a}",
    "Question: {q}\nAnswer: {a}",
    "{q} {a}",
    "{q}\n{a}",
    "Patient: {q}\nDoctor: {a}",
    "Student: {q}\nTeacher: {a}",
    "A patient asked: {q} The doctor answered: {a}",
    "A question about {topic}: {q} {a}",
    "Review question ({topic}): {q}\nKey point: {a}",
    'Someone asked, "{q}" The nurse explained, "{a}"',
)

# `{others}` are further sentences of the same topic.
EXTENDED: tuple[str, ...] = (
    "{q} {a} {others}",
    "Patient: {q}\nDoctor: {a} {others}",
    "{others}\nQ: {q}\nA: {a}",
)
