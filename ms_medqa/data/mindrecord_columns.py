"""Rows of tokens as MindRecord stores them: many at a time, by NumPy.

The format is that of MindSpore's `mindrecord/meta/shard_column.cc` and `mindrecord/io/shard_writer.cc`.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from ms_medqa.data.records import TokenRecords, ends_of

# Tokens are 32-bit because MindRecord has no unsigned 16-bit integers; the mask is bytes, a quarter of the space.
SCHEMA: dict[str, dict[str, Any]] = {
    "id": {"type": "string"},
    "input_ids": {"shape": [-1], "type": "int32"},
    "loss_mask": {"type": "bytes"},
}
# Those that are stored as bytes.
BLOB_COLUMNS = ("input_ids", "loss_mask")
# What leads a row: its bytes, those of its first column, and the number of integers in it.
_HEAD = np.dtype([("row", "<u8"), ("column", ">u8"), ("integers", ">u4")])


def blobs_of(records: TokenRecords) -> tuple[list[bytes], int]:
    """The columns that are arrays or bytes, tokens and loss mask, of n records.

    A row is led by its length in 8 bytes (little-endian), each of its columns by 8 bytes more (big-endian).

    Returns:
        The bytes of each row; by how many bytes they are fewer than if integers were stored whole.
    """
    lengths = records.lengths
    kinds, kinds_ends, integers, integers_ends = _shorten(records.tokens, records.offsets)
    columns = 4 + np.diff(kinds_ends) + np.diff(integers_ends)
    heads = np.empty(len(records), _HEAD)
    heads["row"], heads["column"], heads["integers"] = 8 + columns + 8 + lengths, columns, lengths
    marks = lengths.astype(">u8").tobytes()
    led, masks = heads.tobytes(), records.loss_mask.tobytes()
    rows = []
    kind = integer = mask = 0
    for row, (kind_end, integer_end, mask_end) in enumerate(
        zip(kinds_ends[1:].tolist(), integers_ends[1:].tolist(), records.offsets[1:].tolist(), strict=True)
    ):
        rows.append(
            led[_HEAD.itemsize * row : _HEAD.itemsize * (row + 1)]
            + kinds[kind:kind_end]
            + integers[integer:integer_end]
            + marks[8 * row : 8 * (row + 1)]
            + masks[mask:mask_end]
        )
        kind, integer, mask = kind_end, integer_end, mask_end
    return rows, int((4 * lengths - columns).sum())


def raw_of(name: str) -> bytes:
    """The column that is neither array nor bytes, the id: MessagePack, led by its length in 8 bytes (little-endian)."""
    text = name.encode()
    size = len(text)
    if size < 32:
        lead = struct.pack("B", 0xA0 | size)
    elif size < 1 << 8:
        lead = struct.pack(">BB", 0xD9, size)
    elif size < 1 << 16:
        lead = struct.pack(">BH", 0xDA, size)
    else:
        lead = struct.pack(">BI", 0xDB, size)
    message = b"\x81\xa2id" + lead + text
    return struct.pack("<Q", len(message)) + message


def _shorten(tokens: np.ndarray, offsets: np.ndarray) -> tuple[bytes, np.ndarray, bytes, np.ndarray]:
    """Integers in the fewest bytes that hold them with their sign.

    Args:
        tokens: int32 (total,).
        offsets: int64 (n + 1,), where the arrays begin and end.

    Returns:
        The kinds, two bits for each integer: 0, 1 and 2 are one, two and four bytes. Each array begins a byte; the
        first of four integers has its highest bits. int64 (n + 1,): where the arrays begin and end in these bytes.
        Then the integers themselves (little-endian) and the same of them.
    """
    kind = (tokens != tokens.astype(np.int8)).view(np.uint8) + (tokens != tokens.astype(np.int16)).view(np.uint8)
    lengths = np.diff(offsets)
    quads = ends_of((lengths + 3) // 4)
    spread = np.zeros(4 * int(quads[-1]), np.uint8)
    spread[np.arange(len(tokens)) + np.repeat(4 * quads[:-1] - offsets[:-1], lengths)] = kind
    spread = spread.reshape(-1, 4) << np.array([6, 4, 2, 0], np.uint8)
    used = np.empty((len(tokens), 4), bool)
    used[:, 0] = True
    used[:, 1] = kind > 0
    used[:, 2:] = (kind > 1)[:, None]
    integers = np.ascontiguousarray(tokens, "<i4").view(np.uint8).reshape(-1, 4)[used]
    return (
        np.bitwise_or.reduce(spread, axis=1).tobytes(),
        quads,
        integers.tobytes(),
        ends_of(np.left_shift(1, kind, dtype=np.int64))[offsets],
    )
