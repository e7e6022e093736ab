"""The activity of an instance, in the text format that Prometheus reads.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/ . Counters only grow; gauges are read on request.
Left out: labels per room or user, which would grow without bound.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from math import isinf, isnan

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass
class Histogram:
    """A distribution of durations, in seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one more duration."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds

    def lines(self, name: str) -> Iterator[str]:
        """Yield the buckets, each including all below it, then the sum and the count."""
        yield f"# TYPE {name} histogram"
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), accumulate(self.counts), strict=True):
            yield f'{name}_bucket{{le="{bound}"}} {count}'
        yield f"{name}_sum {self.total:.6f}"
        yield f"{name}_count {sum(self.counts)}"


@dataclass
class ChatMetrics:
    """What the connections count; the rest is collected by `ChatService.metrics_page`."""

    opened: int = 0
    published: int = 0
    unavailable: int = 0
    refused: int = 0
    limited: int = 0
    publishing: Histogram = field(default_factory=Histogram)


def exposition(counters: Mapping[str, float], gauges: Mapping[str, float], histograms: Mapping[str, Histogram]) -> str:
    """Return one page for Prometheus; every name gets the prefix `chatlab_`."""
    lines: list[str] = []
    for kind, values in (("counter", counters), ("gauge", gauges)):
        for name, value in values.items():
            lines += [f"# TYPE chatlab_{name} {kind}", f"chatlab_{name} {_number(value)}"]
    for name, histogram in histograms.items():
        lines += histogram.lines(f"chatlab_{name}")
    return "\n".join(lines) + "\n"


def budgets_page(limits: Mapping[str, int], refused: Mapping[str, int], delayed: Mapping[str, int]) -> str:
    """Return the limits by name, and the number of times each refused or delayed a client: the label values are fixed.

    A limit that is switched off is +Inf.
    """
    families = (
        ("budget_limit", "gauge", {name: limit or float("inf") for name, limit in limits.items()}),
        ("refused_by_budget_total", "counter", {name: refused.get(name, 0) for name in limits}),
        ("delayed_by_budget_total", "counter", {name: delayed.get(name, 0) for name in limits}),
    )
    lines: list[str] = []
    for family, kind, values in families:
        lines.append(f"# TYPE chatlab_{family} {kind}")
        lines += [f'chatlab_{family}{{budget="{name}"}} {_number(value)}' for name, value in values.items()]
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    """Return a number as Prometheus reads it; NaN for an unknown one."""
    if isnan(value):
        return "NaN"
    if isinf(value):
        return "+Inf"
    return f"{value:g}" if value % 1 else f"{value:.0f}"
