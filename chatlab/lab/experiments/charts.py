"""The lessons' charts and tables of live measurements, all drawn in one style.

    dots("Delay", "ms", {"Redis": repeats, "Kafka": 2.1}, log=True, recorded={"RabbitMQ": recorded_repeats})
    lines("Work", "members", "ms", {"one server": (members, times)})
    table("Measured here", {"Redis": {"delay, ms": "0.21", "left": "200"}})

An axis begins at zero, or is logarithmic with its lines drawn and labelled. A value that was repeated is a median with
its spread. What was recorded on another machine is grey, and says so. Every chart has words for readers who cannot see
it. Colours come with markers or patterns, so that nobody needs colour to tell two lines apart.
"""

from __future__ import annotations

import math
import re
from base64 import b64encode
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from html import escape
from io import BytesIO
from itertools import chain, cycle
from textwrap import fill
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from chatlab.lab.claims import FIGURES
from chatlab.lab.experiments.repeats import Repeats
from chatlab.locale import _, ngettext

if TYPE_CHECKING:
    from chatlab.lab.experiments.lesson02 import Flow, Transfer, Way
    from chatlab.lab.experiments.lesson03 import Reception
    from chatlab.lab.experiments.lesson04 import Burst, Load
    from chatlab.lab.experiments.lesson07 import Share
    from chatlab.lab.wire.trace import Peer

__all__ = [
    "bars",
    "bursts",
    "dots",
    "grouped",
    "lines",
    "load",
    "reception",
    "shares",
    "table",
    "transfers",
    "waiting",
    "ways",
]

MARKERS = "osD^vP"
HATCHES = ("", "//", "..", "xx")
BESIDE = "offset points"  # not shown: a unit
GREY = "#767676"  # 4.5 to 1 on white
# Fonts with Hangul on Linux, macOS and Windows, in the order of preference; the first one is for everything else.
FONTS = (
    *("DejaVu Sans", "Noto Sans CJK KR", "Noto Sans KR"),  # not shown: fonts
    *("Apple SD Gothic Neo", "Malgun Gothic", "NanumGothic"),  # not shown: fonts
)


Value = Repeats | float


@dataclass(frozen=True)
class Chart:
    """A chart as a cell displays it: a picture with its title as the caption, and its words as the alternative.

    In HTML, all of it is between the marks that a comparison of two runs leaves out.
    """

    title: str
    words: str
    figure: Figure = field(repr=False)

    def svg(self) -> bytes:
        """Return the picture; letters are outlines, so it looks the same everywhere."""
        drawn = BytesIO()
        with style():
            self.figure.savefig(drawn, format="svg", bbox_inches="tight", metadata={"Date": None})
        return drawn.getvalue()

    def __repr__(self) -> str:
        return self.title

    def _repr_html_(self) -> str:
        source = f"data:image/svg+xml;base64,{b64encode(self.svg()).decode()}"
        alternative = escape(f"{self.title}. {self.words}", quote=True)
        caption = f"<figcaption style='font-weight:bold'>{escape(self.title)}</figcaption>"
        image = f"<img style='max-width:100%;background:#fff' alt='{alternative}' src='{source}'>"
        return f"<figure style='margin:0'>{caption}{FIGURES[0]}{image}{FIGURES[1]}</figure>"


@dataclass(frozen=True)
class Table:
    """Facts as an HTML table: a row for each name, a column for each fact. `recorded` names the rows to be grey."""

    title: str
    rows: Mapping[str, Mapping[str, str]]
    recorded: Collection[str] = ()

    @property
    def columns(self) -> list[str]:
        """The names of the columns, in the order in which the rows mention them."""
        return list(dict.fromkeys(chain.from_iterable(self.rows.values())))

    def __repr__(self) -> str:
        return self.title

    def _repr_html_(self) -> str:
        ends = {column: self._is_of_figures(column) for column in self.columns}
        head = "".join(f"<th scope='col' style='{_cell(end)}'>{escape(name)}</th>" for name, end in ends.items())
        rows = "".join(f"<tr>{self._row(name, facts, ends)}</tr>" for name, facts in self.rows.items())
        caption = f"<caption style='caption-side:top;text-align:left;font-weight:bold'>{escape(self.title)}</caption>"
        body = f"<thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody>"
        table = f"<table style='line-height:1.4'>{caption}{FIGURES[0]}{body}{FIGURES[1]}</table>"
        region = f"role='region' aria-label='{escape(self.title, quote=True)}'"
        return f"<div style='overflow-x:auto' tabindex='0' {region}>{table}</div>"

    def _is_of_figures(self, column: str) -> bool:
        cells = [facts.get(column, NOTHING) for facts in self.rows.values()]
        return all(map(FIGURE.match, cells)) and set(cells) != {NOTHING}

    def _row(self, name: str, facts: Mapping[str, str], ends: Mapping[str, bool]) -> str:
        grey = f";color:{GREY};font-style:italic" if name in self.recorded else ""
        title = _("{name}, recorded").format(name=name) if name in self.recorded else name
        cells = (
            f"<td style='{_cell(end)}{grey}'>{escape(facts.get(column, NOTHING))}</td>" for column, end in ends.items()
        )
        return f"<th scope='row' style='{_cell(False)}{grey}'>{escape(title)}</th>{''.join(cells)}"


NOTHING = "–"
FIGURE = re.compile(r"^(–|[-−+≈<>]?\s?\d[\d.,]*\s?(%|[^\W\d]{0,4}(/[^\W\d]{1,3})?))$")  # 12,345 or 0.21 ms or 5/s


def _cell(right: bool) -> str:
    return f"text-align:{'right' if right else 'left'};font-variant-numeric:tabular-nums"


def table(title: str, rows: Mapping[str, Mapping[str, str]], *, recorded: Collection[str] = ()) -> None:
    """Show facts that differ from run to run as a table: a row for each name, a column for each fact.

    The rows named in `recorded` are grey and say that they were recorded. A column of figures is aligned on the right.
    """
    from IPython.display import display

    display(Table(title, rows, recorded))  # type: ignore[no-untyped-call]  # IPython is not typed here


# --- What the charts share --------------------------------------------------------------------------------------------


@cache
def fonts() -> list[str]:
    """Return those of `FONTS` that are installed."""
    installed = set(font_manager.get_font_names())
    return [name for name in FONTS if name in installed]


@contextmanager
def style() -> Iterator[None]:
    """Draw with fonts that have Hangul, and equal pictures for equal values."""
    with plt.rc_context({"font.family": fonts(), "svg.fonttype": "path", "svg.hashsalt": "chatlab"}):
        yield


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


def show_with_words(title: str, words: str, figure: Figure) -> None:
    """Show a figure with a caption and its words below the cell, once, and close it."""
    from IPython.display import display

    display(Chart(title, words, figure))  # type: ignore[no-untyped-call]  # IPython is not typed here
    plt.close(figure)


def figure_of(value: float) -> str:
    """Format a value for the label beside it: 0.0123, 4.56, 789, 12,345."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def on_axis(value: float, __: object = None) -> str:
    """Format a value for an axis: 0.001, 0.5, 10, 1,000."""
    return f"{value:,.0f}" if value >= 1 and value == int(value) else f"{value:.6g}"


def folded(name: str) -> str:
    """Break a long name into lines, so that it leaves room for the chart; a Hangul syllable is wider than a letter."""
    return fill(name, 32 if name.isascii() else 20)


def middle(value: Value) -> float:
    """Return the value itself, or the median of a repeated one."""
    return float(value) if isinstance(value, int | float) else value.median


def spread(value: Value) -> tuple[float, float]:
    """Return the lowest and the highest value; those of a value that was not repeated are equal."""
    return (float(value), float(value)) if isinstance(value, int | float) else (value.low, value.high)


def in_words(value: Value) -> str:
    """Return "12" for a single value and "12 (10 to 15)" for a repeated one."""
    low, high = spread(value)
    if low == high:
        return figure_of(middle(value))
    return _("{median} ({low} to {high})").format(
        median=figure_of(middle(value)), low=figure_of(low), high=figure_of(high)
    )


def scale(axis: Axis, values: Sequence[float], log: bool) -> None:
    """Let an axis begin at zero, or make it logarithmic between two labelled lines around all values."""
    axes = axis.axes
    limit = axes.set_xlim if axis is axes.xaxis else axes.set_ylim
    if not log:
        limit(0, max(*values, 0) * 1.05 or 1)
        axis.set_major_formatter(FuncFormatter(on_axis))
        return
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    last = max(last, first + 1)
    (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")
    axis.set_major_locator(LogLocator(10, (1.0,) if last - first > 1 else (1.0, 2.0, 5.0), numticks=50))
    axis.set_major_formatter(FuncFormatter(on_axis))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    limit(10.0**first, 10.0**last)
    axis.grid(visible=True, color="#ddd", zorder=0)


def can_be_logarithmic(values: Sequence[float]) -> bool:
    """Whether a logarithmic axis can show all of the values: it has no zero."""
    return min(values, default=0) > 0


# --- Dots -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dot:
    """A value in the row `name`, with the marker of its series; `grey` if it was recorded on another machine."""

    name: str
    value: Value
    series: int = 0
    grey: bool = False


def dots(
    title: str,
    unit: str,
    values: Mapping[str, Value],
    *,
    log: bool = False,
    recorded: Mapping[str, Value] | None = None,
) -> None:
    """Draw a dot for each name, with a line from the lowest to the highest value if it was repeated.

    `recorded` has values from another machine. They are grey; a name that has both gets both, one below the other. The
    axis begins at zero, or is logarithmic with `log`, unless a value is 0, which a logarithmic axis cannot show.
    """
    _draw_dots(title, unit, {"": values}, log=log, recorded={"": recorded or {}})


def grouped(
    title: str,
    unit: str,
    groups: Mapping[str, Mapping[str, Value]],
    *,
    log: bool = False,
    recorded: Mapping[str, Mapping[str, Value]] | None = None,
) -> None:
    """Draw dots as `dots` does, with a marker for each group: several values for each name."""
    _draw_dots(title, unit, groups, log=log, recorded=recorded or {})


def _draw_dots(
    title: str,
    unit: str,
    groups: Mapping[str, Mapping[str, Value]],
    *,
    log: bool,
    recorded: Mapping[str, Mapping[str, Value]],
) -> None:
    names = list(dict.fromkeys(chain(groups, recorded)))
    drawn = [
        Dot(name, value, series, grey)
        for series, group in enumerate(names)
        for grey, source in ((False, groups), (True, recorded))
        for name, value in source.get(group, {}).items()
    ]
    if drawn:
        with style():
            figure = _figure_of_dots(unit, drawn, names, log=log)
            show_with_words(title, _words_of_dots(unit, drawn, names), figure)


def _figure_of_dots(unit: str, drawn: Sequence[Dot], groups: Sequence[str], *, log: bool) -> Figure:
    names = list(dict.fromkeys(dot.name for dot in drawn))
    lanes = [sorted((dot for dot in drawn if dot.name == name), key=lambda dot: dot.series) for name in names]
    reach = [end for dot in drawn for end in spread(dot.value)]
    log = log and can_be_logarithmic(reach)
    across = _("{unit} (logarithmic)").format(unit=unit) if log else unit
    figure, axes = chart("", across, "", height=1 + 0.32 * len(drawn) + 0.12 * len(names))
    scale(axes.xaxis, reach, log)
    top, middles = 0.0, []
    for lane in lanes:
        for down, dot in enumerate(lane):
            _draw_dot(axes, dot, top + down)
        middles.append(top + (len(lane) - 1) / 2)
        top += len(lane) + 0.4
    axes.set_ylim(top - 0.7, -0.7)
    axes.set_yticks(middles, map(folded, names))
    _name_the_rows(axes, lanes)
    if len(groups) > 1:
        _name_the_groups(figure, groups)
    return figure


def _draw_dot(axes: Axes, dot: Dot, at: float) -> None:
    low, high = spread(dot.value)
    colour = GREY if dot.grey else f"C{dot.series % 10}"
    axes.hlines(at, low, high, color=colour, linewidth=2.5, alpha=0.55, zorder=2)
    face = "white" if dot.grey else colour
    marker = MARKERS[dot.series % len(MARKERS)]
    axes.plot(middle(dot.value), at, marker, color=colour, markerfacecolor=face, markersize=7, zorder=3, clip_on=False)
    text = _("{figure}, recorded").format(figure=in_words(dot.value)) if dot.grey else in_words(dot.value)
    colour = GREY if dot.grey else "black"
    axes.annotate(text, (high, at), (9, 0), textcoords=BESIDE, va="center", fontsize=9, color=colour)


def _name_the_rows(axes: Axes, lanes: Sequence[Sequence[Dot]]) -> None:
    axes.tick_params(axis="y", length=0, pad=9)  # room for a dot at the axis
    for text, lane in zip(axes.get_yticklabels(), lanes, strict=True):
        text.set_color(GREY if all(dot.grey for dot in lane) else "black")


def _name_the_groups(figure: Figure, groups: Sequence[str]) -> None:
    keys = [
        Line2D([], [], marker=MARKERS[number % len(MARKERS)], color=f"C{number % 10}", linestyle="", label=group)
        for number, group in enumerate(groups)
    ]
    figure.legend(handles=keys, loc="outside upper left", ncols=len(groups), frameon=False)  # not shown: a position


def _words_of_dots(unit: str, drawn: Sequence[Dot], groups: Sequence[str]) -> str:
    said = []
    for dot in drawn:
        name = f"{dot.name}, {groups[dot.series]}" if len(groups) > 1 else dot.name
        sentence = _("{name}: {figure} {unit}, recorded") if dot.grey else _("{name}: {figure} {unit}")
        said.append(sentence.format(name=name, figure=in_words(dot.value), unit=unit))
    return "; ".join(said)


# --- Lines ------------------------------------------------------------------------------------------------------------

Points = tuple[Sequence[float], Sequence[Value]]


def lines(
    title: str,
    across: str,
    up: str,
    series: Mapping[str, Points],
    *,
    log: str = "",
    dashed: str = "",
    recorded: Mapping[str, Points] | None = None,
) -> None:
    """Draw a line for each name: (x values, y values); a y value that was repeated is drawn with its spread.

    Both axes begin at zero, except the logarithmic ones: `log` names them, "x", "y" or "xy". The line named `dashed`,
    to compare the others with, is dashed. Lines in `recorded` come from another machine; they are grey and dashed.
    """
    with style():
        figure = _figure_of_lines(across, up, series, recorded or {}, log, dashed)
        words = [_words_of_line(name, points, across, up) for name, points in series.items()]
        words += [_words_of_line(_as_recorded(name), points, across, up) for name, points in (recorded or {}).items()]
        show_with_words(title, "; ".join(words), figure)


def _as_recorded(name: str) -> str:
    return _("{name}, recorded").format(name=name)


def _figure_of_lines(
    across: str, up: str, series: Mapping[str, Points], recorded: Mapping[str, Points], log: str, dashed: str
) -> Figure:
    figure, axes = chart("", across, up)
    for (name, points), marker in zip(series.items(), cycle(MARKERS), strict=False):
        _draw_line(axes, name, points, marker, linestyle="--" if name == dashed else "-")
    for (name, points), marker in zip(recorded.items(), cycle(reversed(MARKERS)), strict=False):
        _draw_line(axes, _as_recorded(name), points, marker, color=GREY, linestyle="--")
    every = [*series.values(), *recorded.values()]
    for axis, letter, reach in (
        (axes.xaxis, "x", [x for xs, __ in every for x in xs]),
        (axes.yaxis, "y", [end for __, ys in every for y in ys for end in spread(y)]),
    ):
        scale(axis, reach, letter in log and can_be_logarithmic(reach))
    figure.legend(loc="outside right upper", frameon=False)  # not shown: a position
    return figure


def _draw_line(axes: Axes, name: str, points: Points, marker: str, **look: Any) -> None:
    xs, ys = points
    middles = [middle(y) for y in ys]
    (drawn,) = axes.plot(
        xs, middles, marker=marker, markevery=max(1, len(xs) // 12), label=folded(name), clip_on=False, **look
    )
    if any(len(set(spread(y))) > 1 for y in ys):
        ends = [spread(y) for y in ys]
        axes.vlines(xs, *zip(*ends, strict=True), color=drawn.get_color(), linewidth=2.5, alpha=0.55)


def _words_of_line(name: str, points: Points, across: str, up: str) -> str:
    """Say where a line begins and ends, and how high it gets."""
    xs, ys = points
    if not xs:
        return _("{name}: nothing").format(name=name)
    return _(
        "{name}: from {first} {up} at {start} {across} to {last} {up} at {end} {across}, {highest} at most"
    ).format(
        name=name,
        up=up,
        across=across,
        first=in_words(ys[0]),
        start=figure_of(xs[0]),
        last=in_words(ys[-1]),
        end=figure_of(xs[-1]),
        highest=figure_of(max(map(middle, ys))),
    )


# --- Bars -------------------------------------------------------------------------------------------------------------


def bars(title: str, unit: str, values: Mapping[str, float], *, log: bool = False) -> None:
    """Draw a bar from zero for each name, with its value beside it; with `log`, dots, since no such bar has a start."""
    if log:
        return dots(title, unit, values, log=True)
    with style():
        figure, axes = chart(title, unit, "", height=1 + 0.5 * len(values))
        drawn = axes.barh(list(map(folded, values)), list(values.values()), color="tab:blue", edgecolor="black")
        for bar, hatch in zip(drawn, cycle(HATCHES), strict=False):
            bar.set_hatch(hatch)
        axes.bar_label(drawn, fmt=figure_of, padding=4)
        scale(axes.xaxis, list(values.values()), log=False)
        axes.invert_yaxis()
        return show(figure)


# --- The charts of one lesson -----------------------------------------------------------------------------------------


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


def reception(runs: Mapping[str, Reception], seconds: float) -> None:
    """Draw the number of messages that had reached everybody against time, a line for each room."""
    with style():
        title = _("One member does not read: what the others still receive")
        figure, axes = chart(title, _("seconds since the first message"), _("messages that reached all of them"))
        for (name, run), marker in zip(runs.items(), cycle(MARKERS), strict=False):
            reached: Points = [0, *run.times, seconds], [0, *range(1, run.reached + 1), run.reached]
            _draw_line(axes, name, reached, marker)
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)
        show(figure)


def load(runs: Mapping[int, Sequence[Load]]) -> None:
    """Draw the busiest server's work for one message against the members, a line for each number of servers.

    One more line is a server that has no members at all.
    """
    series: dict[str, Points] = {}
    for count, run in runs.items():
        label = ngettext("{count} server", "{count} servers", count).format(count=count)
        series[label] = [each.members for each in run], [_in_milliseconds(each.busiest) for each in run]
    idle = [(each.members, found) for each in next(iter(runs.values())) if (found := each.without_members)]
    without = _("a server without members")
    series[without] = [at for at, __ in idle], [_in_milliseconds(found) for __, found in idle]
    title = _("What one message costs the busiest server")
    lines(title, _("members in the room"), _("milliseconds of processor time"), series, dashed=without)


def _in_milliseconds(seconds: Repeats) -> Repeats:
    return type(seconds)(tuple(1000 * each for each in seconds.values))


def bursts(runs: Mapping[str, Burst]) -> None:
    """Draw when each message of a burst was answered, and when its work was done, a line for each way to take it."""
    with style():
        figure, places = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", sharex=True, sharey=True)
        columns = (_("milliseconds until it was answered"), "answered"), (_("milliseconds until it was done"), "done")
        for axes, (title, column) in zip(places, columns, strict=True):
            for (name, run), marker in zip(runs.items(), MARKERS, strict=False):
                moments = [1000 * at for at in getattr(run, column)]
                axes.plot(range(1, len(moments) + 1), moments, marker=marker, markevery=5, label=name)
            axes.set(title=title, xlabel=_("message"))
            axes.spines[["top", "right"]].set_visible(False)
        places[0].set_ylim(bottom=0)  # once all is drawn: it ends the scaling of both
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
