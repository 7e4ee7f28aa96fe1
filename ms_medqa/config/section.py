"""The base of all sections of a config."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from ms_medqa.config.files import user_path


def with_home(*names: str) -> Any:
    """A validator of fields that hold paths: a shell leaves the `~` of `output_dir=~/run` alone."""

    def expand(value: str | None) -> str | None:
        return str(user_path(value)) if value is not None and value.startswith("~") else value

    return field_validator(*names)(expand)


class Section(BaseModel):
    """Base of all sections: an unknown key is an error, and assignments are checked like input."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_flag(cls, value: Any, info: ValidationInfo) -> Any:
        # Pydantic would take `true` for the number 1.
        assert info.field_name is not None
        annotation = cls.model_fields[info.field_name].annotation
        if isinstance(value, bool) and annotation is not bool and bool not in get_args(annotation):
            raise ValueError("input should not be true or false")
        return value
