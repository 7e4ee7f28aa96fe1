"""Write `docs/config.md` from the schema: `python -m ms_medqa.config.document docs/config.md`."""

from __future__ import annotations

import json
import sys
import types
import typing
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ms_medqa.config.files import atomic_write
from ms_medqa.config.loader import section_type
from ms_medqa.config.schema import Config

_HEAD = """# Config keys

This page is generated from `ms_medqa/config/schema.py`: `python -m ms_medqa.config.document docs/config.md`.

A config is a YAML file with the sections below. What it leaves out has the default; `section.key=value` arguments on
the command line win over the file:

```
ms-medqa train configs/lora_medqa_tiny.yaml train.learning_rate=1e-4 train.epochs=5 output_dir=output/trial
```

An unknown key is an error that names the nearest known one; a value that does not fit is an error that says what is
allowed. `output_dir/config.yaml` holds the resolved config of a run, every key written out, and can be used as it is.
"""
_NAMES = {str: "text", int: "integer", float: "number", bool: "`true` or `false`"}
_BOUNDS = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))


def config_reference() -> str:
    """The page as Markdown: one table for each section, in the order of the schema."""
    return "\n".join([_HEAD, *_sections(Config, "")])


def _sections(model: type[BaseModel], prefix: str) -> list[str]:
    plain = {name: field for name, field in model.model_fields.items() if section_type(field.annotation) is None}
    lines = [f"## `{prefix.rstrip('.')}`" if prefix else "## Top level", ""]
    if prefix and model.__doc__:
        lines += [model.__doc__.strip(), ""]
    lines += ["| key | value | default | meaning |", "|---|---|---|---|"]
    lines += [
        f"| `{prefix}{name}` | {_value(field)} | {_default(field)} | {field.description} |"
        for name, field in plain.items()
    ]
    lines.append("")
    for name, field in model.model_fields.items():
        section = section_type(field.annotation)
        if section is not None:
            lines += _sections(section, f"{prefix}{name}.")
    return lines


def _value(field: FieldInfo) -> str:
    return ", ".join([_type(field.annotation), *_limits(field)])


def _limits(field: FieldInfo) -> list[str]:
    return [f"{sign} {getattr(item, name)}" for item in field.metadata for name, sign in _BOUNDS if hasattr(item, name)]


def _type(annotation: Any) -> str:
    if annotation is type(None):
        return "`null`"
    if annotation in _NAMES:
        return _NAMES[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return ", ".join([_type(arguments[0]), *(limit for field in arguments[1:] for limit in _limits(field))])
    if origin is typing.Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(map(_type, arguments))
    if origin is list:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"mapping to {_type(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"{{{', '.join(annotation.model_fields)}}}"
    assert origin is tuple, annotation
    return f"list of {len(arguments)} {_type(arguments[0])}s"


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value in (None, [], {}):
        return "empty"
    if isinstance(value, float):
        return f"`{value:.12g}`"
    return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value)}`"


if __name__ == "__main__":
    with atomic_write(sys.argv[1]) as page:
        page.write(config_reference())
