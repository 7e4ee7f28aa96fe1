"""What `export` tells a user: what was written, what is left to do, how to use it."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

from ms_medqa.models.export import CHECKPOINT_FILE
from ms_medqa.models.families import REGISTRY
from ms_medqa.models.output import written

if TYPE_CHECKING:
    from ms_medqa.peft.export import Exported


def summary(result: Exported) -> list[str]:
    """Lines for people: what was written, what is left to do, and the commands that use it."""
    converted = result.total - result.copied - result.changed
    counts = f"{result.total} tensors: {result.changed} changed by the adapter, {result.copied} unchanged"
    counts += f", {converted} converted" if converted > 0 else ""
    amount = written(result.size, result.files)
    lines = [f"{counts}; {amount}, {result.seconds:.0f} s: {result.folder}"]
    if result.left_out:
        lines.append(f"left out, as it follows from other tensors: {', '.join(_some(result.left_out))}")
    if not result.companions.has_tokenizer:
        lines.append("no tokenizer: neither the base nor the adapter has one, and whoever asks this model needs it")
    lines += [f"note: {note}" for note in result.notes]
    lines += result.comparison.lines() if result.comparison is not None else []
    return lines + _code_lines(result) + _next_lines(result)


def _code_lines(result: Exported) -> list[str]:
    texts = result.companions
    if texts.code:
        source, target = shlex.quote(str(texts.source)), shlex.quote(str(result.folder))
        names = ", ".join(texts.code)
        return [
            f"not copied: code ({names}), without which transformers and vLLM do not load this model. If you trust it:",
            f"  cp {source}/*.py {target}/",
        ]
    if REGISTRY[result.family].remote_code:
        text = "transformers and vLLM know this model only through code that came with it, and"
        return [f"{text} {texts.source} does not have it: put the code there and export again"]
    return []


def _next_lines(result: Exported) -> list[str]:
    folder = str(result.folder)
    if result.format == "ckpt":
        return [
            "load it in Python with:",
            "  import pathlib; import mindspore; from ms_medqa.models import CausalLM",
            "  from ms_medqa.models.checkpoint import load_config",
            f"  folder = pathlib.Path({folder!r}); model = CausalLM(load_config(folder))",
            f"  parameters = mindspore.load_checkpoint(str(folder / {CHECKPOINT_FILE!r}))",
            "  mindspore.load_param_into_net(model, parameters)",
        ]
    trust = result.companions.code or REGISTRY[result.family].remote_code
    argument, flag = (", trust_remote_code=True", " --trust-remote-code") if trust else ("", "")
    call = f'pipeline("text-generation", {json.dumps(folder, ensure_ascii=False)}{argument})("高血压患者")'
    code = f"from transformers import pipeline; print({call})"
    return [
        "use it with:",
        f"  ms-medqa ask --model {shlex.quote(folder)} '高血压患者的饮食注意事项有哪些？'",
        f"  python -c {shlex.quote(code)}",
        f"  vllm serve {shlex.quote(folder)}{flag}",
    ]


def _some(names: list[str]) -> list[str]:
    return names if len(names) <= 3 else [*names[:2], f"… ({len(names)} in all)"]
