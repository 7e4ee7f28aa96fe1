"""The config keys of the rules that judge and clean single records."""

from __future__ import annotations

import types
import typing
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from ms_medqa.config.section import Section


class RulesSection(Section):
    """Rules on single records. Shares lie between 0 and 1; `false` or `null` turns a rule off."""

    empty: bool = Field(True, description="Reject a record without question, answer or text.")
    html: Literal["strip", "reject", "keep"] = Field(
        "strip",
        description="Markup: `strip` takes it out and rejects what is mostly markup, `reject` rejects every record "
        "that has some, `keep` leaves it.",
    )
    html_share: float = Field(
        0.8, gt=0, le=1, description="Under `strip`, a text of which at least this share is markup is rejected."
    )
    mojibake: float | None = Field(
        0.05, gt=0, le=1, description="Reject a text in which at least this share of the characters is mis-decoded."
    )
    languages: list[Literal["zh", "en"]] = Field(
        default_factory=list, description="Languages that records may be written in; empty: any."
    )
    language_share: float = Field(
        0.6, gt=0, le=1, description="Share of the words and characters that must be in one of `languages`."
    )
    url: float | None = Field(0.5, gt=0, le=1, description="Reject an answer of which at least this share is URLs.")
    boilerplate: bool = Field(True, description="Reject answers that say nothing, such as `无` or `请咨询医生` alone.")
    boilerplate_lists: list[str] = Field(
        default_factory=list, description="YAML files that extend the shipped list of such answers."
    )
    copied: float | None = Field(
        0.9,
        gt=0,
        le=1,
        description="Reject an answer that begins with its question, where the question is at least this share of it.",
    )
    wrong_claim: bool = Field(True, description="Reject an answer that makes a wrong medical claim.")
    duplicate: bool = Field(True, description="Reject a record that came before.")

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_flag(cls, value: Any, info: ValidationInfo) -> Any:
        assert info.field_name is not None
        annotation = cls.model_fields[info.field_name].annotation
        if value is False and types.NoneType in typing.get_args(annotation):
            return None
        if value is False and info.field_name == "html":
            return "keep"
        if isinstance(value, bool) and annotation is not bool:
            raise ValueError("input should not be true or false")
        return value
