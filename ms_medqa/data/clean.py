"""The cleaning of records: which are kept, what is done to them, and for each other one the reason."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ms_medqa.config.schema import DataSection
from ms_medqa.data.example import Example, PlainText, Record
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.prompt_encoding import Encoded, TokenBatch
from ms_medqa.data.rules.lengths import Lengths
from ms_medqa.data.rules.lexicon import Lexicon
from ms_medqa.data.rules.texts import TextRules, texts_of
from ms_medqa.data.rules.verdict import Kept as Kept
from ms_medqa.data.rules.verdict import Note as Note
from ms_medqa.data.rules.verdict import Rejected as Rejected
from ms_medqa.data.tokenizer import Tokenizer
from ms_medqa.data.tokenizer_backend import as_array

# Characters of the answer that stand in for a missing context under `data.fill_context`.
EXCERPT_LENGTH = 100


class Cleaner:
    """Applies the rules in this order; the first that a record fails gives the reason.

    Two rules change texts before all others, and only note it: `cleaned_html` takes markup out, `redacted_…` (with
    `data.redact`) personal data.

    - `html`: mostly markup. `empty`: no question or no answer (in any round of a dialogue), no text.
    - `mojibake`, `language`: texts that are mis-decoded or in another language.
    - `url`, `boilerplate`, `copied`: an answer that is mainly a URL, says nothing or repeats the question.
    - `wrong_claim`: an answer makes a claim of the list.
    - `too_short`: question or answer below `data.min_question_tokens`, `data.min_answer_tokens`.
    - `too_long`: question + answer above `data.max_length` - `data.length_margin`, or the whole record above
      `data.max_length` tokens, unless `data.length_policy` says otherwise.

    Question and answer are counted alone, without prompt and end token; in a dialogue those of the last round. Plain
    text has no answer and is cut into rows by the training, so only the rules on text as such apply to it. Duplicates
    are found by `digest_of`, where all records are known.

    Args:
        settings: the data section.
        tokenizer: of the model.
        prompt: what renders a record.

    Attributes:
        lexicon: the user's medical names, None where there are none.

    Raises:
        UserError: a list of the user cannot be read.
    """

    def __init__(self, settings: DataSection, tokenizer: Tokenizer, prompt: Prompt) -> None:
        self._settings = settings
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._rules = TextRules(settings)
        self._lengths = Lengths(settings, prompt)
        self.lexicon = Lexicon(settings.lexicon) if settings.lexicon else None

    def judge(self, records: Sequence[Record]) -> list[Kept | Rejected]:
        """The verdict on each record, in order, by itself.

        Raises:
            UserError: a record is too long under `data.length_policy=raise`.
        """
        verdicts: list[Kept | Rejected | None] = [None] * len(records)
        passed: list[tuple[int, Record, tuple[Note, ...]]] = []
        batch = TokenBatch(self._tokenizer)
        for i, record in enumerate(records):
            result = self._rules.apply(record)
            if isinstance(result, Rejected):
                verdicts[i] = result
                continue
            record, notes = result
            if isinstance(record, PlainText):
                batch.add(record.text)
            else:
                if self._settings.fill_context and record.context is None:
                    record = replace(record, context=record.answer[:EXCERPT_LENGTH])
                batch.add(record.question)
                batch.add(record.answer)
            passed.append((i, record, notes))
        encoded = iter(self._prompt.encode_batch([r for _, r, _ in passed if isinstance(r, Example)], batch))
        for i, record, notes in passed:
            if isinstance(record, PlainText):
                tokens = batch.encode_part(record.text, None)
                ids = [*self._tokenizer.prefix_ids, *tokens, self._tokenizer.eos_token_id]
                verdicts[i] = self._kept(record, Encoded(ids, [1] * len(ids)), 0, 0, notes)
                continue
            question = len(batch.encode_part(record.question, None))
            answer = len(batch.encode_part(record.answer, None))
            fitting = self._lengths.fit(record, next(encoded), question, answer)
            if isinstance(fitting, Rejected):
                verdicts[i] = fitting
                continue
            example, tokens_of, cut = fitting
            if example.answer != record.answer:
                answer = len(self._tokenizer.encode(example.answer))
            verdicts[i] = self._kept(example, tokens_of, question, answer, notes + cut)
        return [verdict for verdict in verdicts if verdict is not None]

    def _kept(self, record: Record, encoded: Encoded, question: int, answer: int, notes: tuple[Note, ...]) -> Kept:
        assert len(encoded.input_ids) == len(encoded.loss_mask) > 0
        return Kept(
            record,
            np.frombuffer(as_array(encoded.input_ids), np.int32),
            np.frombuffer(bytes(encoded.loss_mask), np.uint8),
            question,
            answer,
            notes,
            self.lexicon.find(texts_of(record)) if self.lexicon else (),
        )


def digest_of(record: Record) -> bytes:
    """16 bytes that are equal for records with the same texts; id, source and the like do not count.

    Composed characters and spaces that only look different make no other record.
    """
    if isinstance(record, PlainText):
        parts = [record.text]
    else:
        turns = (text for turn in record.history for text in turn)
        parts = [record.system or "", record.context or "", *turns, record.question, record.answer]
    texts = [" ".join(unicodedata.normalize("NFC", part).split()).encode() for part in parts]
    content = b"".join(len(text).to_bytes(8, "little") + text for text in texts)
    return hashlib.blake2b(content, digest_size=16).digest()
