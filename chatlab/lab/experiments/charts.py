"""The lessons' charts of live measurements, all drawn in one style.

Every chart is a matplotlib figure, shown as a picture. Colours come with markers or patterns, so that nobody needs
colour to tell two lines apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chatlab.locale import _, ngettext

if TYPE_CHECKING:
    from chatlab.lab.experiments.lesson02 import Flow, Transfer, Way
    from chatlab.lab.experiments.lesson03 import Reception
    from chatlab.lab.experiments.lesson04 import Burst, Load
    from chatlab.lab.experiments.lesson07 import Share
    from chatlab.lab.experiments.repeats import Repeats
    from chatlab.lab.wire.trace import Peer

__all__ = ["bars", "bursts", "grouped", "lines", "load", "reception", "shares", "table", "transfers", "waiting", "ways"]

MARKERS = "osD^vP"
HATCHES = ("", "//", "..", "xx")


def chart(title: str, across: str, up: str, *, width: float = 7.5, height: float = 3.4) -> tuple[Figure, Axes]:
    """Return an empty chart; `across` and `up` name the axes with their units."""
    figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
    axes.set(title=title, xlabel=across, ylabel=up)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def show(figure: Figure) -> None:
    """Show a figure below the cell, once, and close it."""
    from IPython.display import display

    display(figure)  # type: ignore[no-untyped-call]  # IPython is not typed here
    plt.close(figure)


def figure_of(value: float) -> str:
    """Format a value for the label above its bar: 0.0123, 4.56, 789, 12,345."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def lines(
    title: str, across: str, up: str, series: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, log: str = ""
) -> None:
    """Draw a line for each name: (x values, y values). `log` names the logarithmic axes: "x", "y" or "xy"."""
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
    """Draw a bar for each name, with its value above it."""
    figure, axes = chart(title, "", up)
    drawn = axes.bar(list(values), list(values.values()), color="tab:blue", edgecolor="black")
    for bar, hatch in zip(drawn, cycle(HATCHES), strict=False):
        bar.set_hatch(hatch)
    axes.bar_label(drawn, fmt=figure_of)
    axes.set_yscale("log" if log else "linear")
    show(figure)


def transfers(runs: Mapping[str, Transfer]) -> None:
    """Draw the bytes that had passed in each direction against time: a chart for each run, all on one scale."""
    labels: dict[Peer, str] = {"client": _("from the client"), "server": _("from the server")}
    figure, places = plt.subplots(1, len(runs), figsize=(9, 3.2), layout="constrained", sharex=True, sharey=True)
    for axes, (name, run) in zip(places, runs.items(), strict=True):
        for (side, moments), marker in zip(run.passed.items(), MARKERS, strict=False):
            passed = [at for at, __ in moments], [so_far / 2**20 for __, so_far in moments]
            axes.plot(*passed, marker=marker, label=labels[side])
        axes.set(title=name, xlabel=_("seconds"), ylabel=_("MiB that have passed"))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="upper left")  # not shown: a position
    show(figure)


def ways(found: Sequence[Way]) -> None:
    """Draw the cost of each way to receive messages side by side: delay, bytes, requests, connections."""
    measured: dict[str, list[float]] = {
        _("delay, ms (median)"): [way.median * 1000 for way in found],
        _("bytes for each message"): [way.octets_per_message for way in found],
        _("requests"): [way.requests for way in found],
        _("connections"): [way.connections for way in found],
    }
    figure, places = plt.subplots(1, len(measured), figsize=(11, 2.8), layout="constrained", sharey=True)
    for axes, (title, values) in zip(places, measured.items(), strict=True):
        drawn = axes.barh([way.label for way in found], values, color="tab:blue", edgecolor="black")
        axes.bar_label(drawn, fmt="{:,.3g}", padding=3)
        axes.set(title=title, xlim=(0, max(values) * 1.3))
        axes.spines[["top", "right"]].set_visible(False)
    places[0].invert_yaxis()
    show(figure)


def waiting(runs: Mapping[str, Flow]) -> None:
    """Draw the bytes that a server had sent and those waiting in its memory against time, a line for each run."""
    figure, (sent, kept) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained", sharex=True)
    for (name, run), marker in zip(runs.items(), MARKERS, strict=False):
        seconds = [at for at, __, __ in run.samples]
        for axes, column in ((sent, 1), (kept, 2)):
            amounts = [sample[column] / 2**20 for sample in run.samples]
            axes.plot(seconds, amounts, marker=marker, markevery=max(1, len(seconds) // 10), label=name)
    for axes, title in ((sent, _("MiB sent")), (kept, _("MiB waiting in the server's memory"))):
        axes.axvline(next(iter(runs.values())).reads_at, color="black", linestyle="--", label=_("the client reads"))
        axes.set(title=title, xlabel=_("seconds"))
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
    kept.legend(frameon=False)
    show(figure)


def grouped(title: str, up: str, groups: Mapping[str, Mapping[str, float]], *, log: bool = False) -> None:
    """Draw a cluster of bars for each name, with a bar for each group in that group's pattern."""
    figure, axes = chart(title, "", up)
    names = list(next(iter(groups.values())))
    width = 0.8 / len(groups)
    for index, (group, hatch) in enumerate(zip(groups, cycle(HATCHES), strict=False)):
        at = [place + (index - (len(groups) - 1) / 2) * width for place in range(len(names))]
        heights = [groups[group][name] for name in names]
        drawn = axes.bar(at, heights, width, label=group, hatch=hatch, edgecolor="black")
        axes.bar_label(drawn, fmt=figure_of, fontsize=8)
    axes.set_xticks(range(len(names)), names)
    axes.set_yscale("log" if log else "linear")
    axes.legend(frameon=False)
    show(figure)


def table(title: str, rows: Mapping[str, Mapping[str, str]]) -> None:
    """Draw a table as a picture, for facts that differ from run to run: a row for each name, a column for each fact."""
    columns = list(next(iter(rows.values())))
    figure, axes = plt.subplots(figsize=(9, 2.9), layout="constrained")
    axes.set_title(title)
    axes.axis("off")
    cells = [[facts[column] for column in columns] for facts in rows.values()]
    drawn = axes.table(cells, rowLabels=list(rows), colLabels=columns, loc="center", cellLoc="center")
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(9)
    drawn.scale(1, 1.6)
    show(figure)


def reception(runs: Mapping[str, Reception], seconds: float) -> None:
    """Draw the number of messages that had reached everybody against time, a line for each room."""
    lines(
        _("One member does not read: what the others still receive"),
        _("seconds since the first message"),
        _("messages that reached all of them"),
        {name: ([0, *run.times, seconds], [0, *range(1, run.reached + 1), run.reached]) for name, run in runs.items()},
    )


def load(runs: Mapping[int, Sequence[Load]]) -> None:
    """Draw the busiest server's work for one message against the members, a line for each number of servers.

    A bar through each point is the range of the repeats; the dashed line is a server that has no members at all.
    """
    across, up = _("members in the room"), _("milliseconds of processor time")
    figure, axes = chart(_("What one message costs the busiest server"), across, up)
    for (count, run), marker in zip(runs.items(), MARKERS, strict=False):
        label = ngettext("{count} server", "{count} servers", count).format(count=count)
        _with_range(axes, [(each.members, each.busiest) for each in run], marker, label)
    alone = next(iter(runs.values()))
    idle = [(each.members, found) for each in alone if (found := each.without_members)]
    _with_range(axes, idle, "x", _("a server without members"), style="--")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    show(figure)


def _with_range(
    axes: Axes, points: Sequence[tuple[int, Repeats]], marker: str, label: str, *, style: str = "-"
) -> None:
    xs, medians = [at for at, __ in points], [found.median * 1000 for __, found in points]
    down = [(found.median - found.low) * 1000 for __, found in points]
    up = [(found.high - found.median) * 1000 for __, found in points]
    axes.errorbar(xs, medians, yerr=[down, up], marker=marker, linestyle=style, capsize=4, label=label)


def bursts(runs: Mapping[str, Burst]) -> None:
    """Draw when each message of a burst was answered, and when its work was done, a line for each way to take it."""
    figure, places = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", sharex=True, sharey=True)
    columns = (_("milliseconds until it was answered"), "answered"), (_("milliseconds until it was done"), "done")
    for axes, (title, column) in zip(places, columns, strict=True):
        for (name, run), marker in zip(runs.items(), MARKERS, strict=False):
            moments = [1000 * at for at in getattr(run, column)]
            axes.plot(range(1, len(moments) + 1), moments, marker=marker, markevery=5, label=name)
        axes.set(title=title, xlabel=_("message"))
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
    places[0].legend(frameon=False)
    show(figure)


def shares(runs: Mapping[str, Sequence[Share]]) -> None:
    """Draw each instance's share of the same load, a cluster of bars for each number of instances."""
    titles = {
        "connections": _("Connections, a bar for each server"),
        "deliveries": _("Deliveries, a bar for each server"),
    }
    figure, places = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for axes, (what, title) in zip(places, titles.items(), strict=True):
        for place, run in enumerate(runs.values()):
            width = 0.8 / len(run)
            at = [place + (number - (len(run) - 1) / 2) * width for number in range(len(run))]
            heights = [getattr(share, what) for share in run]
            drawn = axes.bar(at, heights, width, color="tab:blue", edgecolor="black")
            for bar, hatch in zip(drawn, cycle(HATCHES), strict=False):
                bar.set_hatch(hatch)
            axes.bar_label(drawn, fmt=figure_of, fontsize=8)
        axes.set_xticks(range(len(runs)), list(runs))
        axes.set_title(title)
        axes.spines[["top", "right"]].set_visible(False)
    show(figure)
