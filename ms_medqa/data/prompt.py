"""How an example becomes text and tokens, the same for training and for answering."""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ms_medqa.config.errors import UserError
from ms_medqa.config.files import write_json
from ms_medqa.data.chat_template import ChatTemplate
from ms_medqa.data.example import Example
from ms_medqa.data.prompt_encoding import (
    Encoded,
    Segment,
    TokenBatch,
    encode_runs,
    encode_segments,
    last_part,
    split_runs,
)
from ms_medqa.data.tokenizer import Tokenizer

# 2: text between two control tokens is tokenised as one.
FORMAT_VERSION = 2
FILE_NAME = "prompt.json"

# `question` is used where the example has no context (and for all earlier rounds of a dialogue: the context belongs to
# the last question). Rounds follow each other directly; the end token after an answer separates them.
PATTERNS: dict[str, dict[str, str]] = {
    "medqa": {
        "system": "{system}\n",
        "question": "回答医学问题:{question}\n回答:",
        "question_with_context": "基于以下医学知识回答问题:\n知识:{context}\n问题:{question}\n回答:",
    },
    # Inside the tokenizer's own chat template: what stands in the user's message, and the system message as it is.
    "chat": {
        "system": "{system}",
        "question": "{question}",
        "question_with_context": "基于以下医学知识回答问题:\n知识:{context}\n问题:{question}",
    },
    # The section headings of the Alpaca data set without its preamble, which costs 30 tokens and teaches nothing.
    "alpaca": {
        "system": "{system}\n\n",
        "question": "### Instruction:\n{question}\n\n### Response:\n",
        "question_with_context": "### Instruction:\n{question}\n\n### Input:\n{context}\n\n### Response:\n",
    },
    "plain": {
        "system": "{system}\n",
        "question": "{question}\n",
        "question_with_context": "{context}\n{question}\n",
    },
}

_SLOT = re.compile(r"\{(\w+)\}")
_SLOTS = {"system": {"system"}, "question": {"question"}, "question_with_context": {"question", "context"}}


class Prompt:
    """Renders examples. Build one with `Prompt.named`, or with `Prompt.load` from the folder of an adapter.

    What stands between two control tokens is tokenised as one text, as transformers does with a rendered template; only
    prompt and final answer are tokenised apart, so that the tokens of a prompt do not depend on the answer: `encode` is
    `encode_prompt`, then the answer, then the end token, always. Trained are every answer of the dialogue and the end
    token after it, nothing else; a token that holds the end of a question and the start of its answer counts as answer.

    Attributes:
        name: `medqa`, `chat`, `alpaca` or `plain`.
        end_token, end_token_id: what ends an answer (for `chat`: what the template puts there, such as `<|im_end|>`).
        stop_token_ids: ids at which an answer is over: that end token and the tokenizer's own.
    """

    def __init__(
        self,
        name: str,
        tokenizer: Tokenizer,
        patterns: Mapping[str, str],
        chat_template: str | None = None,
        end_token: str | None = None,
    ) -> None:
        self.name = name
        self.tokenizer = tokenizer
        self.patterns = dict(patterns)
        self._pieces = {key: _parse(self.patterns, key) for key in _SLOTS}
        self._chat = None if chat_template is None else ChatTemplate(chat_template, tokenizer)
        self.end_token = self._chat.end_token if self._chat else end_token or tokenizer.eos_token
        ids = tokenizer.encode(self.end_token, special=True)
        if self._chat is None and len(ids) != 1:
            raise UserError(
                f"prompt {name!r}: the tokenizer in {tokenizer.folder} has no token {end_token!r}",
                "use the tokenizer that was saved beside the prompt",
            )
        self.end_token_id: int = ids[-1]
        self.stop_token_ids = tuple(dict.fromkeys((self.end_token_id, tokenizer.eos_token_id)))
        # A chat template writes its start token itself.
        self._start = () if self._chat else tokenizer.prefix_ids

    @classmethod
    def named(cls, name: str, tokenizer: Tokenizer) -> Prompt:
        """A built-in prompt.

        Raises:
            UserError: an unknown name, or `chat` with a tokenizer that has no chat template.
        """
        if name not in PATTERNS:
            raise UserError(f"unknown prompt {name!r}", f"one of {', '.join(PATTERNS)}")
        if name != "chat":
            return cls(name, tokenizer, PATTERNS[name])
        if tokenizer.chat_template is None:
            raise UserError(
                f"{tokenizer.folder}: the tokenizer has no chat template", "choose another prompt, such as medqa"
            )
        return cls(name, tokenizer, PATTERNS[name], chat_template=tokenizer.chat_template)

    @property
    def start(self) -> str:
        """Text of the tokens before everything else, often empty."""
        return "".join(self.tokenizer.id_to_token(i) or "" for i in self._start)

    def segments(self, example: Example, *, generate: bool = False) -> list[Segment]:
        """The pieces of the text in order; with `generate` they stop where the final answer begins."""
        segments = [Segment(self.start, True, False), *self._prompt_segments(example)]
        if not generate:
            segments += self._answer_segments(example)
        return [segment for segment in segments if segment.text]

    def encode(self, example: Example, *, end: bool = True) -> Encoded:
        """Tokens of prompt, answer and end token, and which of them are trained.

        Args:
            example: the example.
            end: False leaves out the final end token and what follows it, for an answer that was cut.
        """
        return self.encode_batch([example], end=end)[0].as_lists()

    def encode_batch(
        self, examples: Sequence[Example], batch: TokenBatch | None = None, *, end: bool = True
    ) -> list[Encoded]:
        """`encode` of each example, with all texts tokenised together, in an array and a bytearray.

        Args:
            examples: the examples.
            batch: texts that are tokenised with them; by default none.
            end: as in `encode`.
        """
        batch = batch or TokenBatch(self.tokenizer)
        plans = []
        for example in examples:
            prompt = list(split_runs(self.tokenizer, self._prompt_segments(example)))
            answer = list(split_runs(self.tokenizer, self._answer_segments(example, end)))
            last = last_part(prompt)
            batch.add_runs(prompt)
            batch.add_runs(answer, last)
            plans.append((prompt, answer, last))
        result = []
        for prompt, answer, last in plans:
            encoded = Encoded(array("i", self._start), bytearray(len(self._start)))
            encode_runs(batch.encode_part, prompt, None, encoded)
            result.append(encode_runs(batch.encode_part, answer, last, encoded))
        return result

    def encode_prompt(self, example: Example) -> list[int]:
        """Tokens up to where the final answer begins; `example.answer` is not looked at."""
        return [*self._start, *encode_segments(self.tokenizer, self._prompt_segments(example))[0].input_ids]

    def text(self, example: Example, *, generate: bool = False) -> str:
        """The text as people read it."""
        return "".join(segment.text for segment in self.segments(example, generate=generate))

    def to_dict(self) -> dict[str, Any]:
        """All that is needed to build the same prompt again beside the same tokenizer, as plain JSON values."""
        result: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "patterns": dict(self.patterns),
            "end_token": self.end_token,
        }
        if self._chat:
            result |= {"chat_template_sha256": self._chat.sha256, "chat_template": self._chat.source}
        return result

    @classmethod
    def from_dict(cls, definition: Mapping[str, Any], tokenizer: Tokenizer) -> Prompt:
        """The inverse of `to_dict`.

        Raises:
            UserError: another format version, an unknown name, a missing pattern, an altered chat template.
        """
        if definition.get("format_version") != FORMAT_VERSION:
            raise UserError(
                f"prompt definition of format {definition.get('format_version')!r}",
                f"this version reads format {FORMAT_VERSION}",
            )
        name, patterns = definition.get("name"), definition.get("patterns")
        if not isinstance(name, str) or name not in PATTERNS:
            raise UserError(f"prompt definition: unknown name {name!r}", f"one of {', '.join(PATTERNS)}")
        if not isinstance(patterns, dict) or not all(isinstance(patterns.get(key), str) for key in _SLOTS):
            raise UserError("prompt definition: incomplete patterns", f"needed are {', '.join(_SLOTS)}")
        patterns = {key: patterns[key] for key in _SLOTS}
        end_token = definition.get("end_token")
        if not isinstance(end_token, str) or not end_token:
            raise UserError("prompt definition: no end_token")
        if name != "chat":
            return cls(name, tokenizer, patterns, end_token=end_token)
        source = definition.get("chat_template")
        if not isinstance(source, str):
            raise UserError("prompt definition: no chat_template")
        prompt = cls(name, tokenizer, patterns, chat_template=source)
        if definition.get("chat_template_sha256") != prompt.to_dict()["chat_template_sha256"]:
            raise UserError("prompt definition: the chat template was altered", "its sha256 differs; restore the file")
        return prompt

    def save(self, folder: str | Path) -> Path:
        """Write `prompt.json` into `folder`."""
        path = Path(folder) / FILE_NAME
        write_json(path, self.to_dict())
        return path

    @classmethod
    def load(cls, folder: str | Path, tokenizer: Tokenizer) -> Prompt:
        """Read `prompt.json` of `folder`.

        Raises:
            UserError: no such file, or it does not define a prompt.
        """
        path = Path(folder) / FILE_NAME
        try:
            definition = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{path}: no such file") from None
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: not readable as JSON ({error})") from None
        if not isinstance(definition, dict):
            raise UserError(f"{path}: a JSON object is needed")
        try:
            return cls.from_dict(definition, tokenizer)
        except UserError as error:
            raise UserError(f"{path}: {error.message}", error.hint) from None

    def _prompt_segments(self, example: Example) -> Iterator[Segment]:
        """The pieces of the text up to where the final answer begins."""
        if self._chat:
            yield from self._chat_segments(self._chat, example)
            return
        if example.system:
            yield from self._fill("system", {"system": example.system})
        for question, answer in example.history:
            yield from self._fill("question", {"question": question})
            yield Segment(answer, False, True)
            yield Segment(self.end_token, True, True)
        yield from self._fill(*_question(example))

    def _answer_segments(self, example: Example, end: bool = True) -> Iterator[Segment]:
        """The final answer and, with `end`, what ends it."""
        if self._chat is None:
            yield Segment(example.answer, False, True)
            if end:
                yield Segment(self.end_token, True, True)
            return
        layout = self._chat.layout(bool(example.system), len(example.history))
        yield Segment(layout.before + layout.answer.strip(example.answer), False, True)
        if end:
            yield Segment(self.end_token, True, True)
            yield Segment(layout.after, True, False)

    def _fill(self, key: str, values: Mapping[str, str]) -> Iterable[Segment]:
        for segment, slot in self._pieces[key]:
            yield segment
            if slot:
                yield Segment(values[slot], False, False)

    def _chat_segments(self, chat: ChatTemplate, example: Example) -> Iterator[Segment]:
        # A message is one piece, as in every other implementation of chat templates.
        contents = (
            [] if not example.system else ["".join(s.text for s in self._fill("system", {"system": example.system}))]
        )
        for question, answer in example.history:
            contents += ["".join(s.text for s in self._fill("question", {"question": question})), answer]
        contents.append("".join(s.text for s in self._fill(*_question(example))))
        for piece in chat.layout(bool(example.system), len(example.history)).prompt:
            if isinstance(piece, str):
                yield Segment(piece, True, False)
            elif piece.end:
                yield Segment(self.end_token, True, True)
            else:
                yield Segment(piece.strip(contents[piece.message]), False, piece.answer)


def _question(example: Example) -> tuple[str, dict[str, str]]:
    if example.context:
        return "question_with_context", {"question": example.question, "context": example.context}
    return "question", {"question": example.question}


def _parse(patterns: Mapping[str, str], key: str) -> list[tuple[Segment, str | None]]:
    """(template text, slot after it) pairs. Not `str.format`: braces in a user's text mean nothing."""
    parts = _SLOT.split(patterns[key])
    if set(parts[1::2]) != _SLOTS[key]:
        raise UserError(
            f"prompt pattern {key!r} must hold " + " and ".join(f"{{{slot}}}" for slot in sorted(_SLOTS[key]))
        )
    slots = [*parts[1::2], None]
    return [(Segment(text, True, False), slot) for text, slot in zip(parts[::2], slots, strict=True)]
