"""A tokenizer's chat template, rendered once per shape of dialogue and cut into template text and messages."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ms_medqa.config.errors import UserError
from ms_medqa.data.tokenizer import Tokenizer

# Messages are rendered as marks, never as what users wrote: so no text can be mistaken for a control token, and the
# template runs once per shape of dialogue. The code points are Unicode noncharacters, which no text contains.
_MARK = re.compile("\ufdd0([0-9]+)\ufdd1")


@dataclass(frozen=True, slots=True)
class Slot:
    """Where message number `message` stands, or with `end` the end token after an answer."""

    message: int
    answer: bool = False
    end: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """A dialogue's text up to the final answer (template text and slots), and what the template adds after its end."""

    prompt: tuple[str | Slot, ...]
    after: str


class ChatTemplate:
    """A Jinja chat template in the sandbox and with the helpers that Hugging Face templates expect.

    The prompt is what the template renders with `add_generation_prompt`. The end token is what it puts after the last
    answer, up to and with the first control token there; a template that puts none gets the tokenizer's end token.

    Attributes:
        source: the template.
        sha256: of the source, hex.
        end_token: text of the end token.

    Raises:
        UserError: the template does not parse, fails, or leaves a message out.
    """

    def __init__(self, source: str, tokenizer: Tokenizer) -> None:
        self.source = source
        self.sha256 = hashlib.sha256(source.encode()).hexdigest()
        self._folder = tokenizer.folder
        self._variables = dict(tokenizer.special_tokens)
        self._layouts: dict[tuple[bool, int], Layout] = {}
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationTag]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise UserError(f"{self._folder}: the chat template is not valid Jinja ({error})") from None
        suffix = self._suffix(has_system=False, rounds=0)
        self.end_token = (tokenizer.first_control_token(suffix) or (tokenizer.eos_token, 0))[0]
        self.layout(has_system=False, rounds=0)

    def layout(self, has_system: bool, rounds: int) -> Layout:
        """The layout with or without a system message, after `rounds` answered questions.

        Messages are numbered from 0: the system message if there is one, then question and answer in turn.
        """
        layout = self._layouts.get((has_system, rounds))
        if layout is None:
            layout = self._layouts[has_system, rounds] = self._make_layout(has_system, rounds)
        return layout

    def _make_layout(self, has_system: bool, rounds: int) -> Layout:
        roles = _roles(has_system, rounds)
        pieces: list[str | Slot] = []
        parts = _MARK.split(self._render(roles, add_generation_prompt=True))
        if sorted(set(map(int, parts[1::2]))) != list(range(len(roles))):
            raise UserError(f"{self._folder}: the chat template leaves out a message", "choose another prompt")
        for i, part in enumerate(parts):
            if i % 2:
                pieces.append(Slot(int(part), answer=roles[int(part)] == "assistant"))
                continue
            previous = pieces[-1] if pieces else None
            if isinstance(previous, Slot) and previous.answer and part.startswith(self.end_token):
                pieces.append(Slot(previous.message, answer=True, end=True))
                part = part.removeprefix(self.end_token)
            pieces.append(part)
        after = self._suffix(has_system, rounds)
        return Layout(tuple(pieces), after.removeprefix(self.end_token) if after.startswith(self.end_token) else "")

    def _suffix(self, has_system: bool, rounds: int) -> str:
        """What stands after the final answer."""
        roles = [*_roles(has_system, rounds), "assistant"]
        parts = _MARK.split(self._render(roles, add_generation_prompt=False))
        if len(parts) < 3 or int(parts[-2]) != len(roles) - 1:
            raise UserError(f"{self._folder}: the chat template leaves out the answer", "choose another prompt")
        return parts[-1]

    def _render(self, roles: list[str], add_generation_prompt: bool) -> str:
        messages = [{"role": role, "content": f"\ufdd0{i}\ufdd1"} for i, role in enumerate(roles)]
        try:
            return self._template.render(
                messages=messages,
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._variables,
            )
        except Exception as error:  # a template may fail in any way
            raise UserError(
                f"{self._folder}: the chat template fails for the messages {', '.join(roles)} ({error})",
                "choose another prompt, such as medqa",
            ) from None


class _GenerationTag(Extension):
    """`{% generation %} … {% endgeneration %}` marks the answer in some templates; here it renders its body."""

    tags = frozenset({"generation"})

    def parse(self, parser: Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _roles(has_system: bool, rounds: int) -> list[str]:
    return ["system"] * has_system + ["user", "assistant"] * rounds + ["user"]


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    # Jinja's own filter escapes for HTML.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
