"""Writes a model folder with random weights, for measuring and for trying a family out without its real weights.

    python benchmarks/make_checkpoint.py --shape qwen2.5-0.5b --dtype bfloat16 --output DIR
        [--tokenizer DIR] [--max-shard-size 500MB] [--seed 0]

`--shape` is a name below or the path of any `config.json` of a supported family. Weights are drawn from a normal
distribution of width `initializer_range`, norms are 1, biases 0. The same seed gives the same numbers whatever the
shard size. Tensors are drawn and written one at a time, so memory does not grow with the model.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ms_medqa.config.errors import UserError
from ms_medqa.config.files import atomic_write, write_json
from ms_medqa.data.tokenizer import TOKENIZER_FILES
from ms_medqa.models.config import ModelConfig
from ms_medqa.models.loading import naming_of
from ms_medqa.models.safetensors_writer import encode, write_safetensors

_QWEN = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151643,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_position_embeddings": 32768,
    "model_type": "qwen2",
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": True,
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
SHAPES: dict[str, dict[str, Any]] = {
    # 494,032,768 parameters: the released model's.
    "qwen2.5-0.5b": _QWEN
    | {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "max_window_layers": 24,
        "num_attention_heads": 14,
        "num_hidden_layers": 24,
        "num_key_value_heads": 2,
        "sliding_window": 32768,
    },
    # The shape above with 4 layers and a vocabulary of 32,000: 88 million, for steps of many rows.
    "qwen2.5-4x896": _QWEN
    | {
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_attention_heads": 14,
        "num_hidden_layers": 4,
        "num_key_value_heads": 2,
        "vocab_size": 32000,
    },
    # 120 million: no released model, but quick to work with, and it takes the same tokenizer.
    "qwen2.5-120m": _QWEN
    | {
        "hidden_size": 512,
        "intermediate_size": 1536,
        "num_attention_heads": 8,
        "num_hidden_layers": 14,
        "num_key_value_heads": 2,
    },
}
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}
_ITEMSIZE = {"float32": 4, "float16": 2, "bfloat16": 2}
# Numbers drawn with one key: few enough to stay in a core's cache.
_BLOCK = 2**18

Shapes = dict[str, tuple[int, ...]]


def read_shape(shape: str) -> dict[str, Any]:
    """A `config.json` by the name of a shape or by its path."""
    if shape in SHAPES:
        return SHAPES[shape]
    path = Path(shape)
    if not path.is_file():
        raise UserError(f"--shape {shape}: no such file", f"names: {', '.join(SHAPES)}, or give a config.json")
    return json.loads(path.read_text(encoding="utf-8"))


def tensor_shapes(raw: dict[str, Any]) -> tuple[ModelConfig, Shapes]:
    """The decoder's shape, and that of each tensor of its family's checkpoints."""
    from ms_medqa.models import CausalLM
    from ms_medqa.models.families import read_config

    config = read_config(raw, "config.json")
    naming = naming_of(CausalLM(config))
    return config, {name: naming.shape(name) for name in naming.contents}


def numbers(name: str, shape: tuple[int, ...], key: tuple[int, int], scale: float, dtype: str) -> np.ndarray:
    """A tensor's encoded numbers, drawn by two threads."""
    if len(shape) == 1:
        return encode(np.full(shape, 0.0 if name.endswith("bias") else 1.0, np.float32), dtype)
    out = np.empty(math.prod(shape), encode(np.zeros(0, np.float32), dtype).dtype)

    def draw(start: int) -> None:
        part = out[start : start + _BLOCK]
        generator = np.random.Generator(np.random.Philox([*key, start]))
        part[:] = encode(generator.standard_normal(part.size, np.float32) * np.float32(scale), dtype)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(draw, range(0, out.size, _BLOCK)))
    return out


def split(shapes: Shapes, itemsize: int, limit: int | None) -> list[list[str]]:
    """Tensor names by shard: a new one starts where the next tensor would pass the limit."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, shape in shapes.items():
        size = math.prod(shape) * itemsize
        if limit is not None and shards[-1] and filled + size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def write_checkpoint(
    output: Path, raw: dict[str, Any], dtype: str, tokenizer: Path | None, limit: int | None, seed: int
) -> int:
    """Write the folder; returns the bytes of its weights."""
    config, shapes = tensor_shapes(raw)
    shards = split(shapes, _ITEMSIZE[dtype], limit)
    places = {name: index for index, name in enumerate(shapes)}
    files = {}
    for index, names in enumerate(shards):
        file = f"model-{index + 1:05d}-of-{len(shards):05d}.safetensors" if len(shards) > 1 else "model.safetensors"
        files |= dict.fromkeys(names, file)

        tensors = (
            (name, numbers(name, shapes[name], (seed, places[name]), config.initializer_range, dtype)) for name in names
        )
        with atomic_write(output / file, "wb") as stream:
            write_safetensors(stream, {name: (dtype, shapes[name]) for name in names}, tensors)
    total = sum(map(math.prod, shapes.values())) * _ITEMSIZE[dtype]
    if len(shards) > 1:
        index_file = {"metadata": {"total_size": total}, "weight_map": files}
        write_json(output / "model.safetensors.index.json", index_file)
    for name in TOKENIZER_FILES:
        if tokenizer is not None and (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, output / name)
    write_json(output / "config.json", raw | {"torch_dtype": dtype})
    return total


def parse_size(text: str) -> int:
    """Bytes of a size such as `500MB`."""
    number, unit = text[:-2], text[-2:].upper()
    if unit not in _UNITS or not number.replace(".", "", 1).isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 500MB")
    return int(float(number) * _UNITS[unit])


def main() -> None:
    """Write a folder and say how long it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", required=True, help=f"{', '.join(SHAPES)}, or a config.json")
    parser.add_argument("--dtype", choices=list(_ITEMSIZE), default="bfloat16")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, help="folder whose tokenizer is copied")
    parser.add_argument("--max-shard-size", type=parse_size, help="such as 500MB; default: one file")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = time.perf_counter()
    try:
        raw = read_shape(options.shape)
        size = write_checkpoint(
            options.output, raw, options.dtype, options.tokenizer, options.max_shard_size, options.seed
        )
    except UserError as error:
        parser.error(str(error))
    seconds = time.perf_counter() - began
    print(f"{options.output}: {size / 1e9:.2f} GB in {seconds:.1f} s ({seconds / size * 1e9:.1f} s/GB)")


if __name__ == "__main__":
    main()
