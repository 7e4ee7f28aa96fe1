"""What byte-level vocabularies have in common: names of bytes, and the ways a text falls into words before BPE."""

from __future__ import annotations

# Qwen-1 and all later ones: contractions; letters with one mark before them; one digit; marks; line ends; spaces, of
# which the last stays with the word after it.
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# LLaMA 3: up to three digits together.
LLAMA3 = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
# The project's own: letters and the marks on them; one digit, so that doses and lab values are spelt out; other signs;
# line ends; spaces. Unlike with Qwen, a punctuation mark is never joined to the word after it: a question has the same
# tokens after "问题:" as at the start of a line.
OWN = r" ?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+"


def _byte_names() -> dict[int, str]:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [value for value in range(256) if value not in printable]
    return {value: chr(value) for value in printable} | {value: chr(256 + i) for i, value in enumerate(others)}


# The printable character that stands for each byte (the mapping of GPT-2).
BYTE_NAMES = _byte_names()
