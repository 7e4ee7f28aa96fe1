"""Typed configuration: schema, YAML loader, overrides, error messages. Knows nothing of MindSpore."""

from ms_medqa.config.errors import RunError, UserError
from ms_medqa.config.loader import dump_config, load_config, split_overrides
from ms_medqa.config.schema import Config

__all__ = ["Config", "RunError", "UserError", "dump_config", "load_config", "split_overrides"]
