"""The config keys of the data: from raw records to MindRecord."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, field_validator

from ms_medqa.config.rules import RulesSection
from ms_medqa.config.section import Section, with_home

_SHARES = "three shares of at least 0 whose sum is 1, such as [0.8, 0.1, 0.1]"


class Columns(Section):
    """Which input columns hold what. Empty: found by themselves."""

    question: str | None = Field(None, description="Column of the question.")
    answer: str | None = Field(None, description="Column of the answer.")
    context: str | None = Field(None, description="Column of the context.")
    id: str | None = Field(None, description="Column of the record id.")
    key: str | None = Field(None, description="Column of the key fact, which a right answer must contain.")
    options: str | None = Field(None, description="Column of an exam question's options.")
    explanation: str | None = Field(None, description="Column that explains the right option.")
    label: str | None = Field(None, description="Column of a class such as yes or no.")
    system: str | None = Field(None, description="Column of the system text.")
    turns: str | None = Field(None, description="Column of a dialogue's turns.")
    text: str | None = Field(None, description="Column of plain text for pre-training.")
    split: str | None = Field(None, description="Column that fixes a record's part (`train`, `val` or `test`).")


class MixSource(Section):
    """Other data that is mixed into the training part."""

    path: str = Field(..., description="A file, folder or pattern.")
    weight: float = Field(..., ge=0, le=100, description="How much of it for each record (token) of the training part.")


class DataSection(Section):
    """From raw records to MindRecord."""

    _home = with_home("path")

    path: str | None = Field(None, description="A folder written by `ms-medqa convert`.")
    max_length: int = Field(512, ge=16, le=1_048_576, description="Tokens in one row (prompt, answer and end token).")
    prompt: Literal["medqa", "chat", "alpaca", "plain"] = Field(
        "medqa", description="How a record becomes text: see `docs/data.md`."
    )
    packing: bool = Field(
        True,
        description="Several records share a row of `max_length`, each seeing only itself; `false`: one record a row.",
    )
    columns: Columns = Field(
        default_factory=Columns, description="Column names, where they are not found by themselves."
    )
    min_question_tokens: int = Field(5, ge=0, description="A shorter question is rejected.")
    min_answer_tokens: int = Field(3, ge=0, description="A shorter answer is rejected.")
    length_margin: int = Field(
        20,
        ge=0,
        description="Question + answer longer than `max_length` minus this are too long (not under "
        "`length_policy=truncate`).",
    )
    length_policy: Literal["drop", "truncate", "raise"] = Field(
        "drop",
        description="What happens to a record that is too long: `drop` rejects it; `truncate` cuts its context, then "
        "leaves out its oldest rounds, then cuts its answer; `raise` stops.",
    )
    shape: Literal["auto", "qa", "alpaca", "dialogue", "exam", "text"] = Field(
        "auto",
        description="What all records are: question and answer, alpaca, dialogue, exam question, plain text. `auto`: "
        "found by the columns of each.",
    )
    nfkc: bool = Field(
        False, description="Bring texts to Unicode NFKC. It changes doses: 2½ becomes 21⁄2, 10² becomes 102."
    )
    near_duplicates: float | None = Field(
        0.95,
        ge=0.5,
        le=1,
        description="Reject a record whose question and answer are at least this similar to an earlier record's "
        "(estimated share of common token 3-grams); empty: keep them.",
    )
    cluster_similarity: float = Field(
        0.8,
        ge=0.5,
        le=1,
        description="Questions that are at least this similar go to the same part of the split.",
    )
    split: tuple[float, float, float] = Field((0.8, 0.1, 0.1), description="Shares of train, validation and test.")
    seed: int = Field(42, ge=0, description="Seed of the split, the variants and the mix.")
    wrong_claims: list[str] = Field(
        default_factory=list, description="YAML files that extend the shipped list of wrong medical claims."
    )
    rules: RulesSection = Field(default_factory=RulesSection, description="Rules on single records.")
    redact: bool = Field(
        False,
        description="Put placeholders such as `[电话]` in the place of phone numbers, Chinese identity numbers, e-mail "
        "addresses and record numbers.",
    )
    lexicon: list[str] = Field(
        default_factory=list,
        description="Files of medical names (text, CSV, TSV); the report says how many records name one.",
    )
    aug_rate: float = Field(
        0.3,
        ge=0,
        le=1,
        description="Share of the training records that are tried for one variant: a true synonym, the same question "
        "in other words, a lead-in before the context.",
    )
    synonyms: list[str] = Field(
        default_factory=list, description="YAML files that extend the shipped list of medical synonyms."
    )
    mix: list[MixSource] = Field(
        default_factory=list,
        description="Other data mixed into the training part: a list of `{path: FILE, weight: 0.1}`.",
    )
    mix_by: Literal["record", "token"] = Field("record", description="What the weights of `mix` count.")
    benchmark: list[str] = Field(
        default_factory=list,
        description="Evaluation files; training records that overlap them are rejected (n-grams, near duplicates).",
    )
    benchmark_ngram: int = Field(
        13,
        ge=9,
        le=100,
        description="A training record overlaps where it shares so many tokens in a row with a record of `benchmark`; "
        "set phrases of exams are often longer than 13.",
    )
    shard_megabytes: int = Field(
        64,
        ge=1,
        description="MindRecord files are aimed to be at most so large. Each is written by one process; several files "
        "of a part are written at a time.",
    )
    fill_context: bool = Field(
        False,
        description="Fill a missing context with the start of the answer. It leaks the answer into the prompt; only "
        "for comparison.",
    )

    @field_validator("split", mode="wrap")
    @classmethod
    def _check_split(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> tuple[float, float, float]:
        try:
            shares: tuple[float, float, float] = handler(value)
        except ValidationError:
            raise ValueError(_SHARES) from None
        if min(shares) < 0 or abs(sum(shares) - 1.0) > 1e-6:
            raise ValueError(_SHARES)
        return shares
