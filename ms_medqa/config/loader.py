"""Read a YAML config, apply `key=value` overrides, and say plainly what does not fit."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ms_medqa.config.errors import UserError
from ms_medqa.config.files import user_path
from ms_medqa.config.schema import Config


def load_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Build a config: defaults < file < overrides.

    Args:
        path: YAML file, or None for the defaults alone.
        overrides: `section.key=value` strings; the value is read as YAML.

    Raises:
        UserError: the file cannot be read, a key is unknown (the nearest known one is named), a value does not fit.
    """
    raw = {} if path is None else _read_yaml(user_path(path))
    source = "config" if path is None else str(path)
    for override in overrides:
        _apply_override(raw, override)
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise UserError(_explain(error, source)) from None


def dump_config(config: Config) -> str:
    """The resolved config as YAML, every key written out, in the order of the schema."""
    return yaml.safe_dump(config.model_dump(mode="json"), allow_unicode=True, sort_keys=False)


def known_keys(model: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """All dotted keys, sections included."""
    keys: list[str] = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        section = section_type(field.annotation)
        if section is not None:
            keys += known_keys(section, f"{prefix}{name}.")
    return keys


def section_type(annotation: Any) -> type[BaseModel] | None:
    """The section behind a field's annotation (`X` or `X | None`), or None for a plain value."""
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    return next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)


def split_overrides(arguments: Iterable[str]) -> tuple[list[str], list[str]]:
    """Separate `a.b=c` overrides from other positional arguments (an existing path is never an override)."""
    overrides, others = [], []
    for argument in arguments:
        key = argument.split("=", 1)[0]
        is_override = "=" in argument and "/" not in key and not Path(argument).exists()
        (overrides if is_override else others).append(argument)
    return overrides, others


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"config {path}: no such file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"config {path}: not UTF-8 text (byte {error.start})", "save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"config {path}: {error.strerror}") from None
    try:
        raw = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" line {mark.line + 1}" if mark else ""
        raise UserError(f"config {path}{where}: not valid YAML ({error.problem})") from None
    except yaml.YAMLError as error:
        raise UserError(f"config {path}: not valid YAML ({str(error).splitlines()[0]})") from None
    except ValueError as error:
        # A date that is none, such as 2024-13-45.
        raise UserError(f"config {path}: not valid YAML ({error})", "put a text in quotes") from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise UserError(f"config {path}: the file must be a mapping of sections", f"sections: {_sections()}")
    return raw


def _apply_override(raw: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UserError(f"override {override!r} is not of the form key=value", "such as train.learning_rate=1e-4")
    if key not in known_keys():
        raise UserError(f"override {override!r}: unknown key {key!r}{_nearest(key)}")
    node = raw
    *parents, leaf = key.split(".")
    for parent in parents:
        # A section that the file sets to null, or leaves out, comes to life with an override below it.
        if node.get(parent) is None:
            node[parent] = {}
        node = node[parent]
        if not isinstance(node, dict):
            return  # the file's own fault, which the validation tells
    node[leaf] = _override_value(key, text)


def _override_value(key: str, text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return text
    # To YAML 2024-11-22 is a date and `no` is false; as a folder or a column they are what was typed.
    if value is not None and not isinstance(value, str) and _takes_text(key):
        return text
    return value


def _takes_text(key: str) -> bool:
    model: type[BaseModel] = Config
    *parents, leaf = key.split(".")
    for parent in parents:
        section = section_type(model.model_fields[parent].annotation)
        assert section is not None, key
        model = section
    return model.model_fields[leaf].annotation in (str, str | None)


def _explain(error: ValidationError, source: str) -> str:
    lines = []
    for item in error.errors():
        parts = [str(part) for part in item["loc"]]
        key = ".".join(parts)
        if item["type"] == "extra_forbidden":
            lines.append(f"unknown key {key!r}{_nearest(key)}")
        elif item["type"] == "model_type":
            lines.append(f"{key} = {item['input']!r}: a section of keys; leave it out to have its defaults")
        else:
            allowed = item["msg"].removeprefix("Value error, ")
            lines.append(f"{key} = {item['input']!r}: {allowed[0].lower()}{allowed[1:]}")
    return f"{source}: " + "; ".join(lines)


def _nearest(key: str) -> str:
    keys = known_keys()
    # A right name in the wrong section is the commonest slip after a typo, so leaves are compared as well.
    leaf = key.rsplit(".", 1)[-1]
    by_leaf = {known.rsplit(".", 1)[-1]: known for known in keys}
    match = difflib.get_close_matches(key, keys, n=1, cutoff=0.75)
    near = match[0] if match else None
    if near is None:
        match = difflib.get_close_matches(leaf, by_leaf, n=1, cutoff=0.7)
        near = by_leaf[match[0]] if match else None
    return f" (did you mean {near!r}?)" if near else f" (sections: {_sections()})"


def _sections() -> str:
    return ", ".join(Config.model_fields)
