"""The poll interval, dragged along a curve of delay and bytes; WebSocket, long polling and SSE are fixed points.

    curve = await lab.start("curve", poll_curve())

Every figure comes from a run of `five_ways`: real clients on real connections receive the same messages, each in its
own way. The start makes three runs with different intervals; where the handle is let go, one more is made with that
interval. The curve between the points is computed from them: half the interval late, and the bytes of one question and
its answer for as many questions as fit between two messages.

Left out: the rate of the messages. It is fixed, and a slower one makes polling dearer and the others no different.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from statistics import linear_regression, median
from typing import Any, Final

from chatlab.lab.experiments.lesson02 import EVENTS, LONG_POLLING, POLLING, WEBSOCKET, Way, five_ways
from chatlab.lab.picture import picture
from chatlab.lab.pictures.live_picture import LivePicture, source
from chatlab.locale import _

__all__ = ["PollCurve", "poll_curve"]

FIRST_RUNS: Final = (0.02, 0.25, 1.0)  # seconds between two polls
MESSAGES: Final = 24  # in a run; about three seconds
ONCE: Final = 1.5 / MESSAGES  # the question before the first message, and half of the interval after the last one
FIXED: Final = (LONG_POLLING, EVENTS, WEBSOCKET)
INTERVALS: Final = (
    20,
    30,
    40,
    50,
    70,
    100,
    150,
    200,
    250,
    300,
    400,
    500,
    700,
    1000,
)  # ms; a run has too few polls for more
START: Final = INTERVALS.index(250)

WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 80, 20, 20, 55  # margins
DELAYS: Final = (0.3, 3000.0)  # ms, the range of the horizontal axis
SIZES: Final = (30.0, 4000.0)  # bytes for each message, the range of the vertical axis


@dataclass(frozen=True)
class Point:
    """The cost of one way to receive messages. `interval` is that of polling, in ms; None for the other ways."""

    name: str
    label: str
    delay: float  # ms, the median
    size: float  # bytes for each message, in both directions
    requests: float  # for each message
    interval: int | None = None

    @property
    def place(self) -> tuple[float, float]:
        """Where it is in the chart."""
        return _across(self.delay), _down(self.size)


# A run on a machine with two cores, for a page without a kernel.
RECORDED: Final = (
    Point(POLLING, "", 15.4, 1494, 5.04, 20),
    Point(POLLING, "", 107.6, 198, 0.58, 250),
    Point(POLLING, "", 540.4, 90, 0.21, 1000),
    Point(LONG_POLLING, _("long polling"), 2.1, 320, 1.0),
    Point(EVENTS, _("server-sent events"), 1.8, 54, 0.04),
    Point(WEBSOCKET, "WebSocket", 1.9, 49, 0.04),
)


async def poll_curve() -> PollCurve:
    """Measure three intervals and the other ways, which takes a few seconds, and return the picture."""
    curve = PollCurve()
    await asyncio.gather(*(curve.measure(interval) for interval in FIRST_RUNS))
    curve.show()
    return curve


class PollCurve(LivePicture):
    """The curve: `measure` an interval in seconds; `points` is what was measured so far."""

    _esm = source("common.js", "poll_curve.js")
    _css = source("pictures.css", "poll_curve.css")

    def __init__(self) -> None:
        super().__init__(_words())
        self.points: list[Point] = []
        self._at = START
        self._wanted: int | None = None  # the interval to measure next, by its index
        self._measuring = False
        self._status = ""

    def received(self, content: dict[str, Any]) -> None:
        """Measure where the handle is; while a run is under way, the last place asked for comes next."""
        match content:
            case {"do": "measure", "at": int(at)} if 0 <= at < len(INTERVALS):
                self._at = self._wanted = at
                if not self._measuring:
                    self._measuring = True
                    self._status = _measuring(at)
                    self._tasks.start(self._measure_wanted(), name="poll-curve")
                self.show()

    async def measure(self, interval: float) -> Point:
        """Make a run with that many seconds between two polls; add its points, and return that of polling."""
        ways = {way.name: way for way in await five_ways(messages=MESSAGES, poll_every=interval)}
        polled = _point(ways[POLLING], round(interval * 1000))
        self.points += [polled, *(_point(ways[name]) for name in FIXED)]
        return polled

    async def _measure_wanted(self) -> None:
        try:
            while (at := self._wanted) is not None:
                self._wanted = None
                self._status = _measuring(at)
                self.show()
                self._status = self._result(await self.measure(INTERVALS[at] / 1000))
        finally:
            self._measuring = False
        self.show()

    def _result(self, polled: Point) -> str:
        sentence = _(
            "Measured at {interval} ms: polling is {late:.0f} ms late and takes {size:,.0f} bytes a message; "
            "WebSocket {late_push:.1f} ms and {size_push:,.0f} bytes."
        )
        push = _middle(self.points, WEBSOCKET)
        return sentence.format(
            interval=polled.interval, late=polled.delay, size=polled.size, late_push=push.delay, size_push=push.size
        )

    # What is drawn

    def show(self) -> None:
        """Draw what was measured so far."""
        curve = Curve(self.points)
        steps = [curve.at(interval) for interval in INTERVALS]
        self.state = {
            "svg": _svg(self.points, curve),
            "at": self._at,
            "steps": [{"x": round(s.place[0], 1), "y": round(s.place[1], 1), "text": _computed(s)} for s in steps],
            "measuring": self._measuring,
            "status": self._status,
            "rows": [_row(point) for point in _shown(self.points)],
        }

    def still(self) -> str:
        """Return a recorded run as a picture, with its figures in words."""
        return picture(_svg(RECORDED, Curve(RECORDED), paper=True), _title(), self.plain())

    def plain(self) -> str:
        """Return a recorded run as text."""
        rows = [f"  {name}: {late}, {size}" for name, late, size in map(_row, RECORDED)]
        return "\n".join([_("{title} (a recorded run)").format(title=_title()), *rows])


class Curve:
    """The cost of polling at any interval, computed from the runs."""

    def __init__(self, points: Iterable[Point]) -> None:
        polled = [point for point in points if point.interval is not None]
        # Bytes for each message = those of its text + those of a question and its answer × questions for each message.
        self.question, self.text = linear_regression([p.requests for p in polled], [p.size for p in polled])
        # Questions for each message = the time between two messages / (the interval + the time that a question takes).
        self.gap = median((p.requests - ONCE) * (p.interval or 0) for p in polled)
        shortest = min(p.interval or 0 for p in polled)
        short = [p for p in polled if p.interval == shortest]
        self.asking = max(0.0, median(self.gap / (p.requests - ONCE) for p in short) - shortest)
        self.late = _middle(points, WEBSOCKET).delay

    def at(self, interval: float) -> Point:
        """Return the cost of polling every `interval` ms."""
        between = interval + self.asking
        requests = ONCE + self.gap / between
        size = self.text + self.question * requests
        return Point(POLLING, "", self.late + between / 2, size, requests, round(interval))


def _point(way: Way, interval: int | None = None) -> Point:
    return Point(
        way.name,
        way.label,
        way.median * 1000,
        way.octets_per_message,
        way.requests / len(way.delays),
        interval,
    )


def _middle(points: Iterable[Point], name: str) -> Point:
    """Return the median of all the runs of one way."""
    runs = [point for point in points if point.name == name]
    return sorted(runs, key=lambda point: point.delay)[len(runs) // 2]


def _shown(points: Sequence[Point]) -> list[Point]:
    """Return the rows of the table: the latest run of each interval, and the middle of the other ways."""
    latest = {point.interval: point for point in points if point.interval is not None}
    return [*(latest[key] for key in sorted(latest)), *(_middle(points, name) for name in FIXED)]


# --- The drawing -----------------------------------------------------------------------------------------------------


def _across(delay: float) -> float:
    low, high = map(math.log10, DELAYS)
    share = (math.log10(max(delay, DELAYS[0])) - low) / (high - low)
    return LEFT + min(1.0, share) * (WIDTH - LEFT - RIGHT)


def _down(size: float) -> float:
    low, high = map(math.log10, SIZES)
    share = (math.log10(max(size, SIZES[0])) - low) / (high - low)
    return HEIGHT - BOTTOM - min(1.0, share) * (HEIGHT - TOP - BOTTOM)


def _svg(points: Sequence[Point], curve: Curve, *, paper: bool = False) -> str:
    """Return the chart. On paper it has a white ground; in a notebook, the theme's."""
    ink = "#222" if paper else "currentColor"
    ground = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>' if paper else ""
    places = [curve.at(interval).place for interval in INTERVALS]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'font-family="sans-serif" font-size="14" fill="{ink}" stroke="none">{ground}{_axes(ink)}'
        f'<polyline points="{line}" fill="none" stroke="#4a90d9" stroke-width="3"/>'
        f"{''.join(_dot(point) for point in _shown(points))}{_labels(points)}</svg>"
    )


def _axes(ink: str) -> str:
    """Return the two axes with their marks; both are logarithmic."""
    x0, y0 = LEFT, HEIGHT - BOTTOM
    lines = [f'<path d="M{x0} {TOP}V{y0}H{WIDTH - RIGHT}" fill="none" stroke="{ink}"/>']
    for delay in (1, 10, 100, 1000):
        x = _across(delay)
        lines.append(f'<path d="M{x:.1f} {y0}v5" stroke="{ink}"/>')
        lines.append(f'<text x="{x:.1f}" y="{y0 + 20}" text-anchor="middle">{delay:,}</text>')
    for size in (50, 100, 200, 500, 1000, 2000):
        y = _down(size)
        lines.append(f'<path d="M{x0 - 5} {y:.1f}h5" stroke="{ink}"/>')
        lines.append(f'<text x="{x0 - 9}" y="{y + 5:.1f}" text-anchor="end">{size:,}</text>')
    across, down = escape(_("how late, in ms (median)")), escape(_("bytes for each message"))
    middle = (TOP + y0) / 2
    lines.append(f'<text x="{(x0 + WIDTH) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{across}</text>')
    lines.append(f'<text transform="translate(18 {middle}) rotate(-90)" text-anchor="middle">{down}</text>')
    return "".join(lines)


def _dot(point: Point) -> str:
    """Return a mark: a dot for polling, a square for the other ways."""
    x, y = point.place
    if point.interval is not None:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="#4a90d9"/>'
    return f'<rect x="{x - 5:.1f}" y="{y - 5:.1f}" width="10" height="10" fill="#d98e2b"/>'


def _labels(points: Sequence[Point]) -> str:
    """Return the names of the ways, to the right of their marks; names that would overlap are moved apart."""
    texts = []
    lowest = 0.0
    for point in sorted((_middle(points, name) for name in FIXED), key=lambda each: each.place[1]):
        lowest = max(point.place[1] + 5, lowest + 18)
        texts.append((point.place[0] + 12, lowest, "start", point.label))
    for point in _shown(points):
        x, y = point.place
        label = _("polling, {interval} ms").format(interval=point.interval)
        if point.interval in (INTERVALS[0], INTERVALS[-1]):
            texts.append((x + 10, y - 8, "start", label))
    return "".join(
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(label)}</text>' for x, y, anchor, label in texts
    )


# --- Words -----------------------------------------------------------------------------------------------------------


def _title() -> str:
    return _("Late or costly: the poll interval")


def _measuring(at: int) -> str:
    return _("Measuring at {interval} ms …").format(interval=INTERVALS[at])


def _computed(point: Point) -> str:
    sentence = _("Every {interval} ms: about {late:.0f} ms late, about {size:,.0f} bytes a message")
    return sentence.format(interval=point.interval, late=point.delay, size=point.size)


def _row(point: Point) -> list[str]:
    if point.interval is not None:
        name = _("polling every {interval} ms").format(interval=point.interval)
    else:
        name = point.label
    return [name, f"{point.delay:,.1f} ms", _("{size:,.0f} bytes").format(size=point.size)]


def _words() -> dict[str, Any]:
    """Return the texts that never change."""
    return {
        "title": _title(),
        "help": _(
            "Both axes are logarithmic. Drag the handle: the blue curve is computed, the blue dots are measured. Let "
            "go, or press the button, and a real run of {count} messages measures that interval, and the others again."
        ).format(count=MESSAGES),
        "slider": _("Poll interval"),
        "measure": _("Measure here"),
        "heads": [_("way"), _("late (median)"), _("for each message")],
        "table": _("What was measured"),
        "size": [WIDTH, HEIGHT],
    }
