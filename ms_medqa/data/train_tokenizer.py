"""Train a byte-level BPE tokenizer on one's own text.

    python -m ms_medqa.data.train_tokenizer INPUT.jsonl … --vocab-size 8000 --output DIR

The inputs are files that `ms-medqa convert` reads: plain text (`{"text": …}`) or records with question and answer.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Regex, decoders, pre_tokenizers
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE
from tokenizers.normalizers import NFC
from tokenizers.trainers import BpeTrainer

from ms_medqa.config.console import progress, say
from ms_medqa.config.errors import RunError, UserError, fail
from ms_medqa.config.files import atomic_write, write_json
from ms_medqa.config.schema import DataSection
from ms_medqa.data.byte_level import OWN
from ms_medqa.data.example import Example, Record
from ms_medqa.data.readers import read_records
from ms_medqa.data.segment import segment

END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CONTROL_TOKENS = (END_OF_TEXT, IM_START, IM_END)

_CHINESE = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]{2,}")

CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int, output: str | Path) -> Path:
    """Train and write `tokenizer.json` and `tokenizer_config.json`, which transformers' AutoTokenizer loads too.

    The same texts in the same order give the same files. Merges are learnt inside jieba's words: in a corpus with
    recurring sentences whole clauses would become tokens otherwise, and a word's tokens would depend on the words
    beside it. Encoding knows nothing of words, so a merge may still join the ends of two of them, but rarely.

    Ids 0, 1, 2 are `<|endoftext|>` (end and padding), `<|im_start|>` and `<|im_end|>`; every byte has a token, so that
    no text is out of vocabulary.

    Args:
        texts: the training text.
        vocab_size: most tokens, control tokens included; a small corpus may give fewer.
        output: folder, made when absent.

    Raises:
        UserError: a vocabulary below the control tokens and the 256 bytes.
    """
    least = len(CONTROL_TOKENS) + len(pre_tokenizers.ByteLevel.alphabet())
    if vocab_size < least:
        raise UserError(f"vocabulary of {vocab_size} tokens", f"at least {least}: the bytes and the control tokens")
    backend = Backend(BPE())
    backend.normalizer = NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(OWN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=list(CONTROL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(_words(texts), trainer)
    output = Path(output)
    with atomic_write(output / "tokenizer.json") as file:
        file.write(backend.to_str(pretty=False))
    write_json(output / "tokenizer_config.json", _settings(backend))
    return output


def _words(texts: Iterable[str]) -> Iterator[str]:
    """The texts, every run of Chinese characters cut into words."""
    for text in texts:
        end = 0
        for run in _CHINESE.finditer(text):
            yield text[end : run.start()]
            yield from segment(run.group())
            end = run.end()
        yield text[end:]


def _settings(backend: Backend) -> dict[str, Any]:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {str(backend.token_to_id(t)): {"content": t, **flags} for t in CONTROL_TOKENS},
        "additional_special_tokens": [IM_START, IM_END],
        "bos_token": None,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": END_OF_TEXT,
        "model_max_length": 1_000_000,
        "pad_token": END_OF_TEXT,
        # Not Qwen2Tokenizer: transformers would then put its own regular expression in the place of this one.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": None,
    }


def read_texts(paths: Sequence[Path]) -> Iterator[str]:
    """All texts of the records in the files.

    Raises:
        UserError: a file or a record that cannot be read.
    """
    for path in paths:
        for reading in read_records(path, DataSection(), source=path.name)[1]:
            if reading.record is None:
                assert reading.error is not None
                raise UserError(f"{path} line {reading.raw.line}: {reading.error[1]}", "mend or remove it")
            yield from _texts(reading.record)


def _texts(record: Record) -> Iterator[str]:
    if not isinstance(record, Example):
        yield record.text
        return
    for question, answer in record.history:
        yield from (question, answer)
    yield from filter(None, (record.system, record.context, record.question, record.answer))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m ms_medqa.data.train_tokenizer", description=__doc__.split("\n")[0])
    parser.add_argument("input", nargs="+", type=Path, help="JSON, JSON Lines or CSV files")
    parser.add_argument("--vocab-size", type=int, default=8000, help="most tokens (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="folder of the tokenizer")
    options = parser.parse_args(arguments)
    try:
        texts = progress(read_texts(options.input), desc="reading", unit="text")
        train_tokenizer(texts, options.vocab_size, options.output)
    except (UserError, RunError, OSError) as error:
        return fail("train_tokenizer", error)
    say(f"tokenizer: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
