"""What is told of each step: speed, padding, memory, and the share of the device's arithmetic that is used."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from ms_medqa.backend.device import peak_memory
from ms_medqa.peft import count_parameters
from ms_medqa.training.build import Run


class Watch:
    """Figures of optimizer steps, beside those that the step itself computes.

    Args:
        run: the parts.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.plan = run.data.train_plan
        trained, total = count_parameters(run.model)
        config = run.model.config
        head = config.vocab_size * config.hidden_size
        embeddings = head * (1 if config.tie_word_embeddings else 2)
        # An embedding only looks up; the head is met by labelled positions alone.
        inside = total - embeddings
        if trained < total:
            # Two operations a weight and token forward, two backward to the input, two more to a trained weight.
            self.by_token, self.by_label = 4 * (inside - trained) + 6 * trained, 4 * head
        else:
            self.by_token, self.by_label = 6 * inside, 6 * head

    def figures(self, epoch: int, step: int, seconds: float) -> dict[str, Any]:
        """What `metrics.jsonl` gets of a step that took `seconds`.

        - `tokens`, `samples`: of the global batch; a sample is a record.
        - `seconds`, `tokens_per_second`, `samples_per_second`: of all ranks together.
        - `padding`: share of the global batch's positions that hold no token.
        - `peak_memory`: bytes so far, of this rank.
        - `mfu`: share of `runtime.peak_tflops` of all devices; only where that is set. Counted are the matrices, as
          explained in `docs/training.md`, not attention scores.
        """
        plan = self.plan
        tokens, samples = plan.token_count(epoch, step), plan.record_count(epoch, step)
        figures = {
            "tokens": tokens,
            "samples": samples,
            "seconds": round(seconds, 4),
            "tokens_per_second": round(tokens / seconds, 1),
            "samples_per_second": round(samples / seconds, 2),
            "padding": round(1 - tokens / (plan.global_batch * plan.rows.max_length), 4),
            "peak_memory": peak_memory(self.run.device.name),
        }
        if peak := self.run.config.runtime.peak_tflops:
            done = tokens * self.by_token + plan.label_count(epoch, step) * self.by_label
            figures["mfu"] = round(done / seconds / (peak * 1e12 * self.run.world.size), 6)
        return figures

    @staticmethod
    def beside_bar(record: Mapping[str, Any]) -> str:
        """A record for the progress bar; a narrow terminal cuts its end off."""
        parts = [
            f"loss {_number(record['loss'], '.3f')}",
            f"{record['tokens_per_second']:,.0f} tokens/s",
            f"{record['samples_per_second']:,.1f} samples/s",
            f"lr {record['learning_rate']:.2e}",
            f"norm {_number(record['grad_norm'], '.2f')}",
            f"epoch {record['epoch']:.2f}",
            f"{record['peak_memory'] / 1e9:.1f} GB",
            f"padding {100 * record['padding']:.0f} %",
            f"scale {record['loss_scale']:g}",
            f"skipped {record['skipped']}",
        ]
        return ", ".join(parts)

    def line(self, record: Mapping[str, Any]) -> str:
        """A record of `metrics.jsonl` in the form that users of MindSpore Transformers search their logs for."""
        run, step = self.run, record["step"]
        epochs = -(-run.total_steps // self.plan.steps_per_epoch)
        epoch = -(-step // self.plan.steps_per_epoch)
        left = timedelta(seconds=round((run.total_steps - step) * record["seconds"]))
        parts = [
            f"Epoch:[{epoch:3}/{epochs:3}]",
            f"step:[{step:5}/{run.total_steps:5}]",
            f"loss: {_number(record['loss'], '.4f')}",
            f"per_step_time: {1000 * record['seconds']:.0f}ms",
            f"lr: {record['learning_rate']:.3e}",
            f"overflow cond: {record['overflow']}",
            f"loss_scale: {record['loss_scale']:g}",
            f"global_norm: {_number(record['grad_norm'], '.4f')}",
            f"tokens/s: {record['tokens_per_second']:,.0f}",
            f"samples/s: {record['samples_per_second']:,.1f}",
            f"padding: {100 * record['padding']:.1f}%",
            f"skipped: {record['skipped']}",
            f"peak_memory: {record['peak_memory'] / 1e9:.1f}GB",
        ]
        if "mfu" in record:
            parts.append(f"MFU: {100 * record['mfu']:.1f}% of {run.config.runtime.peak_tflops:g} TFLOPS")
        return f"{{ {', '.join(parts)}, eta: {left} }}"


def _number(value: float | None, form: str) -> str:
    return "nan" if value is None else format(value, form)
