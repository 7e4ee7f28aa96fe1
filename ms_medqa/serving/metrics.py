"""Counters and histograms in the text format of Prometheus."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate

_SECONDS_FIRST = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_SECONDS_TOKEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Histogram:
    """How often a value fell between two bounds."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str) -> list[str]:
        """Its samples."""
        bounds = [*(f"{bound:g}" for bound in self._bounds), "+Inf"]
        sums = list(accumulate(self._counts))
        lines = [f'{name}_bucket{{le="{bound}"}} {count}' for bound, count in zip(bounds, sums, strict=True)]
        return [*lines, f"{name}_sum {self._sum:.6f}", f"{name}_count {sums[-1]}"]


class Metrics:
    """What `/metrics` tells. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._prompt_tokens = 0
        self._tokens = 0
        self._failures = 0
        self._first = Histogram(_SECONDS_FIRST)
        self._next = Histogram(_SECONDS_TOKEN)
        self.gauges: dict[str, tuple[str, Callable[[], int]]] = {}

    def request(self, route: str, status: int) -> None:
        """Count a request that is over."""
        with self._lock:
            self._requests[route, status] += 1

    def prompt(self, tokens: int) -> None:
        """Count a prompt that is taken into the batch."""
        with self._lock:
            self._prompt_tokens += tokens

    def token(self, seconds: float, first: bool) -> None:
        """Count a token, and the time since the request came (`first`) or since the token before."""
        with self._lock:
            self._tokens += 1
            (self._first if first else self._next).add(seconds)

    def failure(self) -> None:
        """Count a step, or an answer, at which the model failed."""
        with self._lock:
            self._failures += 1

    def text(self) -> str:
        """The page."""
        with self._lock:
            requests = [
                f'medqa_requests_total{{route="{route}",status="{status}"}} {count}'
                for (route, status), count in sorted(self._requests.items())
            ]
            parts = [
                ("medqa_requests_total", "counter", "Requests by route and status.", requests),
                *(
                    (name, "counter", meaning, [f"{name} {value}"])
                    for name, meaning, value in (
                        ("medqa_prompt_tokens_total", "Tokens of prompts.", self._prompt_tokens),
                        ("medqa_generated_tokens_total", "Tokens made.", self._tokens),
                        ("medqa_step_failures_total", "Steps, or single answers, that failed.", self._failures),
                    )
                ),
                *(_histogram("medqa_time_to_first_token_seconds", "From request to first token.", self._first)),
                *(_histogram("medqa_time_per_output_token_seconds", "Between two tokens of an answer.", self._next)),
            ]
        parts += [(name, "gauge", meaning, [f"{name} {get()}"]) for name, (meaning, get) in self.gauges.items()]
        lines = []
        for name, kind, meaning, samples in parts:
            lines += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}", *samples]
        return "\n".join(lines) + "\n"


def _histogram(name: str, meaning: str, histogram: Histogram) -> list[tuple[str, str, str, list[str]]]:
    return [(name, "histogram", meaning, histogram.lines(name))]
