"""What the small JSON files of a model folder say about its tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ms_medqa.config.errors import UserError

# The dialogue format of Qwen chat models, whose first generation comes without a chat template.
CHATML_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")
# The first line of a chat_template.jinja that is no tokenizer's: a prompt, made for other programs.
PROMPT_TEMPLATE_MARK = "{#- Made of prompt.json for other programs. ms_medqa reads prompt.json. #}"

_GIT_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def read_settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json over special_tokens_map.json; null entries of the first do not hide the second."""
    settings = read_json(folder / "special_tokens_map.json")
    settings.update((k, v) for k, v in read_json(folder / "tokenizer_config.json").items() if v is not None)
    return settings


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, empty when there is no such file.

    Raises:
        UserError: not JSON, or not an object.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: a JSON object is needed")
    return content


def read_vocabulary(path: Path) -> bytes:
    """The content of a vocabulary file.

    Raises:
        UserError: the file is empty or a mere pointer, as a clone without Git LFS leaves it.
    """
    content = path.read_bytes()
    if not content.strip():
        raise UserError(f"{path}: empty", "copy or download the file anew")
    if content.startswith(_GIT_LFS_POINTER):
        raise UserError(f"{path}: a Git LFS pointer in place of the file", "run git lfs pull in the model folder")
    return content


def token_content(token: Any) -> str | None:
    """A special token as the configs write it: a string, or an object with `content`."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) and token else None


def added_token_ids(folder: Path, settings: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """The file that adds tokens to the vocabulary, and the id (as a string) that it gives to each of them."""
    listed = settings.get("added_tokens_decoder")
    if isinstance(listed, dict):
        ids = {content: i for i, token in listed.items() if (content := token_content(token)) is not None}
        return "tokenizer_config.json", ids
    source = "added_tokens.json"
    return source, {content: str(i) for content, i in read_json(folder / source).items()}


def start_token_setting(settings: dict[str, Any]) -> bool | None:
    """Whether a text begins with the start token, where the folder says so and its tokenizer class heeds it.

    These classes do so whatever a tokenizer.json says (DeepSeek's relies on it); the others do as tokenizer.json says.
    """
    value = settings.get("add_bos_token")
    heeded = str(settings.get("tokenizer_class")).startswith(("Llama", "CodeLlama"))
    return value if heeded and isinstance(value, bool) else None


def named_end_ids(folder: Path) -> tuple[str, list[int]]:
    """The file of the model that names the ids ending an answer, and those ids; empty where none does."""
    for name in ("generation_config.json", "config.json"):
        ids = read_json(folder / name).get("eos_token_id")
        ids = ids if isinstance(ids, list) else [ids]
        if ids := [i for i in ids if isinstance(i, int) and 0 <= i < 2**31]:
            return name, ids
    return "", []


def chat_template(folder: Path, settings: dict[str, Any]) -> str | None:
    """The tokenizer's chat template: chat_template.jinja, else that of the settings; None where there is none."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        try:
            template = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not UTF-8 ({error})") from None
        if not template.startswith(PROMPT_TEMPLATE_MARK):
            return template
    return settings_template(settings)


def settings_template(settings: Mapping[str, Any]) -> str | None:
    """The chat template that the settings hold, None where they hold none."""
    template = settings.get("chat_template")
    if isinstance(template, list):
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
        template = named.get("default")
    return template if isinstance(template, str) and template else None


def talks_chatml(folder: Path, settings: dict[str, Any]) -> bool:
    """Whether the folder says, in a way older than chat templates, that its model talks ChatML."""
    if settings.get("tokenizer_class") == "QWenTokenizer":
        return True
    return read_json(folder / "generation_config.json").get("chat_format") == "chatml"
