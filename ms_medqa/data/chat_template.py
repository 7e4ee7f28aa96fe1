"""A tokenizer's chat template, rendered once per shape of dialogue and cut into template text and messages."""

from __future__ import annotations

import hashlib
import itertools
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
    """Where message number `message` stands, or with `end` the end token after an answer.

    `left` and `right` are the characters that the template strips from the message, None for all white space.
    """

    message: int
    answer: bool = False
    end: bool = False
    left: str | None = ""
    right: str | None = ""

    def strip(self, text: str) -> str:
        """What the template makes of a message."""
        return text.lstrip(self.left).rstrip(self.right)


@dataclass(frozen=True, slots=True)
class Layout:
    """The text of a dialogue.

    Attributes:
        prompt: template text and slots up to where generation begins.
        before: white space that the template puts there before the final answer.
        answer: the final answer's slot.
        after: what the template adds after the end token.
    """

    prompt: tuple[str | Slot, ...]
    before: str
    answer: Slot
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
        except (jinja2.TemplateError, RecursionError) as error:
            raise UserError(f"{self._folder}: the chat template is not valid Jinja ({error})") from None
        parts, _ = self._answered(has_system=False, rounds=0)
        self.end_token = (tokenizer.first_control_token(parts[-1]) or (tokenizer.eos_token, 0))[0]
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
        parts, slots = self._parts(roles, add_generation_prompt=True)
        if {slot.message for slot in slots} != set(range(len(roles))):
            raise UserError(f"{self._folder}: the chat template leaves out a message", "choose another prompt")
        for part, slot in itertools.zip_longest(parts, slots):
            previous = pieces[-1] if pieces else None
            if isinstance(previous, Slot) and previous.answer and part.startswith(self.end_token):
                pieces.append(Slot(previous.message, answer=True, end=True))
                part = part.removeprefix(self.end_token)
            pieces += [part] if slot is None else [part, slot]
        all_parts, all_slots = self._answered(has_system, rounds)
        goes_on = all_parts[:-2] == parts[:-1] and all_parts[-2].startswith(parts[-1])
        before = all_parts[-2].removeprefix(parts[-1]) if goes_on else ""
        after = all_parts[-1]
        return Layout(
            tuple(pieces),
            # Generation is not prompted with anything else, such as an empty <think> block.
            before if before.isspace() else "",
            all_slots[-1],
            after.removeprefix(self.end_token) if after.startswith(self.end_token) else "",
        )

    def _answered(self, has_system: bool, rounds: int) -> tuple[list[str], list[Slot]]:
        """`_parts` of the dialogue with its final answer."""
        roles = [*_roles(has_system, rounds), "assistant"]
        parts, slots = self._parts(roles, add_generation_prompt=False)
        if not slots or slots[-1].message != len(roles) - 1:
            raise UserError(f"{self._folder}: the chat template leaves out the answer", "choose another prompt")
        return parts, slots

    def _parts(self, roles: list[str], add_generation_prompt: bool) -> tuple[list[str], list[Slot]]:
        """The template's own text, and the slots between its parts."""
        parts, messages = self._split(roles, add_generation_prompt)
        strips: list[list[str | None]] = []
        for side in (0, 1):
            # A blank beside a mark is missing in the result where the template strips messages.
            missing = [""] * len(messages)
            for blank in " \n":
                padded, _ = self._split(roles, add_generation_prompt, (blank * (not side), blank * side))
                for i in range(len(messages)):
                    if padded[i + side : i + side + 1] == [parts[i + side]]:
                        missing[i] += blank
            strips.append([None if blanks == " \n" else blanks for blanks in missing])
        slots = [
            Slot(message, roles[message : message + 1] == ["assistant"], left=left, right=right)
            for message, left, right in zip(messages, *strips, strict=True)
        ]
        return parts, slots

    def _split(
        self, roles: list[str], add_generation_prompt: bool, beside: tuple[str, str] = ("", "")
    ) -> tuple[list[str], list[int]]:
        """The template's own text, and the numbers of the messages between its parts."""
        left, right = beside
        messages = [{"role": role, "content": f"{left}\ufdd0{i}\ufdd1{right}"} for i, role in enumerate(roles)]
        try:
            text = self._template.render(
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
        parts = _MARK.split(text)
        return parts[::2], [int(number) for number in parts[1::2]]


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
