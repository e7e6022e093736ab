"""The lessons' charts: what was measured here and now, drawn one way throughout.

Every chart is a matplotlib figure, shown as a picture only; colours come with markers or patterns, so that none of them
is needed to tell two lines apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from chatlab.lab.experiments.lesson03 import Delays, Reception

__all__ = ["bars", "delays", "lines", "reception"]

MARKERS = "osD^vP"
HATCHES = ("", "//", "..", "xx")


def chart(title: str, across: str, up: str, *, width: float = 7.5, height: float = 3.4) -> tuple[Figure, Axes]:
    """An empty chart; `across` and `up` name the axes with their units."""
    figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
    axes.set(title=title, xlabel=across, ylabel=up)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def show(figure: Figure) -> None:
    """Show a figure under the cell, once, and let go of it."""
    from IPython.display import display

    display(figure)  # type: ignore[no-untyped-call]  # IPython is not typed here
    plt.close(figure)


def lines(
    title: str, across: str, up: str, series: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, log: str = ""
) -> None:
    """One line for each name: (x values, y values). `log` names the axes to scale by powers of ten: "x", "y", "xy"."""
    figure, axes = chart(title, across, up)
    for (name, (xs, ys)), marker in zip(series.items(), cycle(MARKERS), strict=False):
        axes.plot(xs, ys, marker=marker, markevery=max(1, len(xs) // 12), label=name)
    axes.set_xscale("log" if "x" in log else "linear")
    axes.set_yscale("log" if "y" in log else "linear")
    if not log:
        axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    show(figure)


def bars(title: str, up: str, values: Mapping[str, float], *, log: bool = False) -> None:
    """One bar for each name, with its figure above it."""
    figure, axes = chart(title, "", up)
    drawn = axes.bar(list(values), list(values.values()), color="tab:blue", edgecolor="black")
    for bar, hatch in zip(drawn, cycle(HATCHES), strict=False):
        bar.set_hatch(hatch)
    axes.bar_label(drawn, fmt="{:,.3g}")
    axes.set_yscale("log" if log else "linear")
    show(figure)


def reception(runs: Mapping[str, Reception], seconds: float) -> None:
    """How many messages had reached everybody by when, a line for each room."""
    lines(
        "One member does not read: what the others still receive",
        "seconds since the first message",
        "messages that reached all of them",
        {name: ([0, *run.times, seconds], [0, *range(1, run.reached + 1), run.reached]) for name, run in runs.items()},
    )


def delays(runs: Mapping[str, Sequence[Delays]]) -> None:
    """The median delay to the last member, against the number of members."""
    lines(
        "Until the last member has a message",
        "members",
        "milliseconds (median)",
        {name: ([d.members for d in run], [d.median * 1000 for d in run]) for name, run in runs.items()},
    )
