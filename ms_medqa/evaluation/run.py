"""The whole evaluation of a model folder on a file, with or without its base beside it."""

from __future__ import annotations

from pathlib import Path

from ms_medqa import __version__, peft
from ms_medqa.config.errors import UserError
from ms_medqa.config.files import sha256_file, user_path
from ms_medqa.config.schema import Config
from ms_medqa.evaluation.evaluate import Evaluator, Metrics
from ms_medqa.evaluation.records import data_file, read_examples
from ms_medqa.evaluation.report import write_results
from ms_medqa.generation.generate import apply_adapter, load_model
from ms_medqa.generation.variant import find_prompt, find_tokenizer


def run_evaluation(
    model_path: str | Path,
    adapter: str | Path | None,
    data: str | Path,
    output: str | Path,
    config: Config,
    compare_base: bool = False,
) -> dict[str, Metrics]:
    """Measure a model and write `eval.json`, `answers.jsonl` and `skipped.jsonl`.

    Args:
        model_path: model folder or name of a shipped model.
        adapter: adapter folder, None for the model alone.
        data: see `read_examples`.
        output: folder for the results.
        config: its sections `eval`, `data.columns` and `runtime.dtype` are used.
        compare_base: measure the model without the adapter as well.

    Returns:
        Metrics by column name: `base` (under a comparison) and `tuned`, or `model` without an adapter.

    Raises:
        UserError: a file or folder that does not fit.
    """
    if compare_base and adapter is None:
        raise UserError("--compare-base compares an adapter with its base", "name the adapter: --adapter DIR")
    data, output = data_file(data), user_path(output)
    examples, unread = read_examples(data, config.data)
    model = load_model(model_path, dtype=config.runtime.dtype)
    if adapter is not None:
        # Before time is spent on the base.
        peft.check_adapter(model, adapter)
    output.mkdir(parents=True, exist_ok=True)
    folders = [user_path(folder) for folder in (adapter, model.folder) if folder is not None]
    tokenizer = find_tokenizer(model, folders)
    # The base is asked with the adapter's prompt, so that the two differ in their weights alone.
    prompt = find_prompt(tokenizer, folders)
    evaluator = Evaluator(model, tokenizer, prompt, examples, config.eval, unread)
    base = evaluator.run("base") if compare_base else None
    if adapter is not None:
        # Merged into the same Cells after the base was measured: nothing is compiled a second time.
        apply_adapter(model, adapter, merge=True)
    result = evaluator.run("tuned" if adapter is not None else "model")
    about = {
        "model": str(model_path),
        "adapter": None if adapter is None else str(adapter),
        "data": {"path": str(data), "sha256": sha256_file(data)},
        "prompt": prompt.name,
        "settings": config.eval.model_dump(),
        "version": __version__,
    }
    write_results(output, evaluator, result, base, about)
    columns = {} if base is None else {"base": base.metrics}
    return columns | {"tuned" if adapter is not None else "model": result.metrics}
