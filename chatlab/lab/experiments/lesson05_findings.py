"""What lesson 05 has measured, and what follows from it: charts, verdicts on the article's claims, and grades.

    found.add("rate engine", {"Kafka": [510_000, 498_000, 520_000]})
    found.dots("rate engine")       # what was measured here, and the recorded run for engines that are missing
    c26()                           # the verdict, from the same figures

A claim about engines consists of parts; each part is one figure and its threshold. The claim holds if all parts do.
Every engine is judged by the same yardsticks (`HIGH_SHARE`, `LOW_MS`, `LOWEST_TIMES`, `HEAVY_TIMES`). A comparison uses
the figures of one machine: if an engine is missing here, all of its figures come from the recorded run (`recorded.py`),
and the verdict says so. Left out: the measuring (`lesson05.py`, `lesson05_abilities.py`, `lesson05_persistence.py`).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from chatlab.lab.claims import Figure, Verdict, verdict
from chatlab.lab.experiments import charts
from chatlab.lab.experiments.lesson05 import Order
from chatlab.lab.experiments.lesson05_abilities import RICH, ROUTES, WORKERS
from chatlab.lab.experiments.lesson05_persistence import MESSAGES, Row
from chatlab.lab.experiments.recorded import Recording, recorded
from chatlab.lab.experiments.repeats import Repeats
from chatlab.lab.widgets.chooser import Chooser
from chatlab.lab.widgets.engine_choice import Facts, choose
from chatlab.locale import _, ngettext

__all__ = ["Findings", "c23", "c24", "c25", "c26", "c27", "c28", "c29", "c30", "found", "rounds"]

PUBSUB, STREAMS, RABBIT, KAFKA = "Redis Pub/Sub", "Redis Streams", "RabbitMQ", "Kafka"  # not shown: products' names
NAMES = (PUBSUB, STREAMS, RABBIT, KAFKA)
LATE_MESSAGES = 100

# The yardsticks, the same for every engine.
HIGH_SHARE = 0.5  # high throughput: at least this share of the highest
LOW_MS = 10.0  # low latency: a median of at most this many milliseconds
LOWEST_TIMES = 2.0  # among the lowest: at most this many times the lowest
HEAVY_TIMES = 3.0  # heavy: at least this many times the lightest

# The measures, as the recorded run names them.
LATENCY = "delay median ms"  # not shown: a key
P99 = "delay p99 ms"  # not shown: a key
CLIENT = "rate client"  # not shown: a key
RATE = "rate engine"  # not shown: a key
ONE = "engine µs"  # not shown: a key
EIGHT = "eight readers µs"  # not shown: a key
MEMORY = "MiB"
START = "start s"  # not shown: a key
LATE = "late reader"  # not shown: a key

# What is measured: the title of its chart, and the unit.
MEASURES: Mapping[str, tuple[str, str]] = {
    LATENCY: (_("Latency from publish to reader, median"), _("milliseconds")),
    P99: (_("Latency from publish to reader, 99th percentile"), _("milliseconds")),
    CLIENT: (_("our client in Python"), _("messages per second")),
    RATE: (_("the engine's own tool"), _("messages per second")),
    ONE: (_("one reader"), _("microseconds")),
    EIGHT: (_("eight readers"), _("microseconds")),
    MEMORY: (_("Memory with next to nothing in it"), MEMORY),
    START: (_("From start to the first answer"), _("seconds")),
    LATE: (_("What a late reader receives of 100"), _("messages")),
}


def p99(seconds: Sequence[float]) -> float:
    """Return the 99th percentile: one in a hundred is higher."""
    return statistics.quantiles(seconds, n=100)[-1]


def rounds(values: Sequence[float], number: int = 3) -> list[Sequence[float]]:
    """Cut a series of measurements into `number` rounds of equal length, so that their spread can be seen."""
    length = len(values) // number
    return [values[start : start + length] for start in range(0, number * length, length)]


# --- What has been measured ------------------------------------------------------------------------------------------


@dataclass
class Findings:
    """What the cells of this kernel have measured, and the recorded run that stands in for what they have not."""

    recording: Callable[[], Recording] = recorded
    figures: dict[str, dict[str, Repeats]] = field(default_factory=dict)  # by measure and candidate
    ways: dict[str, dict[str, bool]] = field(default_factory=dict)
    protocols: dict[str, list[str]] = field(default_factory=dict)
    orders: dict[str, Order] = field(default_factory=dict)
    persistence: list[Row] = field(default_factory=list)

    def add(self, measure: str, values: Mapping[str, float | Sequence[float] | Repeats]) -> None:
        """Store what was measured for some candidates; several values are repeats of the same measurement."""
        repeats = {name: _repeats(each) for name, each in values.items()}
        self.figures[measure] = {**self.figures.get(measure, {}), **repeats}

    def add_latency(self, seconds: Mapping[str, Sequence[float]]) -> None:
        """Store the latencies of single messages: their median and their 99th percentile in each of three rounds."""
        for measure, of in ((LATENCY, statistics.median), (P99, p99)):
            self.add(measure, {name: [1000 * of(each) for each in rounds(all_)] for name, all_ in seconds.items()})

    def beside(self, measure: str) -> Mapping[str, Repeats]:
        """Return the recorded figures of all engines if one was not measured here, so that they can be compared."""
        complete = set(NAMES) <= set(self.figures.get(measure, {}))
        of = {} if complete else self.recording().figures.get(measure, {})
        return {name: of[name] for name in NAMES if name in of}

    def dots(self, *measures: str, title: str = "", log: bool = False) -> None:
        """Draw measures of one unit: what was measured here, and grey what was recorded."""
        titles, units = zip(*map(MEASURES.__getitem__, measures), strict=True)
        here = {name: self._in_order(measure) for name, measure in zip(titles, measures, strict=True)}
        beside = {name: self.beside(measure) for name, measure in zip(titles, measures, strict=True)}
        charts.grouped(title or titles[0], units[0], here, log=log, recorded=beside)

    def _in_order(self, measure: str) -> dict[str, Repeats]:
        here = self.figures.get(measure, {})
        return {name: here[name] for name in ("memory", *NAMES) if name in here}

    def source(self, measures: Iterable[str], names: Iterable[str] = NAMES) -> Source:
        """Return where a comparison gets its figures: this machine if all were measured here, else the recording."""
        wanted = [(measure, name) for measure in measures for name in names]
        if all(name in self.figures.get(measure, {}) for measure, name in wanted):
            return Source(self.figures)
        return Source(self.recording().figures, is_recorded=True)

    def ways_of(self, names: Iterable[str] = NAMES) -> tuple[Mapping[str, Mapping[str, bool]], bool]:
        """Return the ways of all engines, and whether they are recorded."""
        here = set(names) <= set(self.ways)
        return (self.ways if here else self.recording().ways), not here

    def protocols_of(self, names: Iterable[str] = NAMES) -> tuple[Mapping[str, Sequence[str]], bool]:
        """Return the protocols of all engines, and whether they are recorded."""
        here = set(names) <= set(self.protocols)
        return (self.protocols if here else self.recording().protocols), not here

    def add_rows(self, rows: Iterable[Row]) -> None:
        """Store those rows of the table of persistence that were measured here."""
        new = [row for row in rows if not row.recorded]
        self.persistence = [row for row in self.persistence if not _is_among(row, new)] + new

    def rows(self) -> Sequence[Row]:
        """Return the table of persistence: what was measured here, in the place of what was recorded."""
        here = {(row.engine, row.setting): row for row in self.persistence}
        recording = [here.pop((row.engine, row.setting), row) for row in self.recording().persistence]
        return [*recording, *here.values()]


def _is_among(row: Row, rows: Iterable[Row]) -> bool:
    return any((row.engine, row.setting) == (each.engine, each.setting) for each in rows)


def _repeats(values: float | Sequence[float] | Repeats) -> Repeats:
    if isinstance(values, Repeats):
        return values
    return Repeats((float(values),) if isinstance(values, int | float) else tuple(map(float, values)))


@dataclass(frozen=True)
class Source:
    """The figures that one comparison uses, all from one machine."""

    figures: Mapping[str, Mapping[str, Repeats]]
    is_recorded: bool = False

    def best(self, measure: str, *, low: bool = False) -> str:
        """Return the engine with the best median: the highest, or with `low` the lowest."""
        medians = {name: each.median for name, each in self.figures[measure].items() if name in NAMES}
        return (min if low else max)(medians, key=lambda name: medians[name])

    def times_best(self, measure: str, name: str, *, low: bool = False) -> Repeats:
        """Return an engine's figure as a multiple of the best one."""
        of = self.figures[measure]
        return ratio(of[name], of[self.best(measure, low=low)])


def ratio(one: Repeats, other: Repeats) -> Repeats:
    """Return the ratios round by round; with different numbers of rounds, those to the other's median."""
    if len(one.values) == len(other.values):
        return one / other
    return Repeats(tuple(value / other.median for value in one.values))


found = Findings()
"""What the cells of this kernel have measured; the verdicts read it."""


# --- The parts of a claim --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A part of a claim: what it says, and the figure that decides it."""

    text: str
    figure: Figure
    recorded: bool = False

    @property
    def holds(self) -> bool:
        """Whether the figure is on the right side of its threshold."""
        figure = self.figure
        return figure.value >= figure.threshold if figure.at_least else figure.value <= figure.threshold

    @property
    def margin(self) -> float:
        """How far the figure is from its threshold, relative to it; 0 for a count that is just what is needed."""
        return abs(self.figure.value - self.figure.threshold) / (abs(self.figure.threshold) or 1.0)

    def __str__(self) -> str:
        mark = "≈" if self.figure.too_close else "✔" if self.holds else "✘"
        note = " " + _("(recorded)") if self.recorded else ""
        return f"{mark} {self.text}{note} · {self.figure}"


def figure(name: str, repeats: Repeats, threshold: float, unit: str = "", *, at_least: bool = True) -> Figure:
    """Return a figure with the spread of its repeats, if there is any."""
    if repeats.low == repeats.high:
        return Figure(name, repeats.median, threshold, unit, at_least)
    return Figure(name, repeats.median, threshold, unit, at_least, low=repeats.low, high=repeats.high)


def high_throughput(engine: str, *, is_high: bool = True) -> Part:
    """Return the part that an engine has a high throughput, or with `is_high=False` that it has not."""
    source = found.source([RATE])
    share = Repeats(tuple(100 * each for each in source.times_best(RATE, engine).values))
    text = _("{engine}: high throughput") if is_high else _("{engine}: not a high throughput")
    name = _("messages per second at the engine, of the highest")
    return Part(
        text.format(engine=engine), figure(name, share, 100 * HIGH_SHARE, "%", at_least=is_high), source.is_recorded
    )


def low_latency(engine: str) -> Part:
    """Return the part that an engine has a low latency."""
    source = found.source([LATENCY], [engine])
    median = source.figures[LATENCY][engine]
    text = _("{engine}: low latency").format(engine=engine)
    return Part(text, figure(_("median latency"), median, LOW_MS, "ms", at_least=False), source.is_recorded)


def lowest_latency(*engines: str) -> Part:
    """Return the part that one of these engines is among those with the lowest latency."""
    source = found.source([LATENCY])
    times = min((source.times_best(LATENCY, each, low=True) for each in engines), key=lambda r: r.median)
    text = _("{engines}: among the lowest latencies").format(engines=_(" or ").join(engines))
    name = _("median latency, times the lowest")
    return Part(text, figure(name, times, LOWEST_TIMES, at_least=False), source.is_recorded)


def weight(engine: str, *, heavy: bool) -> Iterator[Part]:
    """Yield the parts that an engine is heavy to run, or that it is not: its memory, and the time it takes to start."""
    for measure, name in ((MEMORY, _("memory, times the least")), (START, _("time to start, times the least"))):
        source = found.source([measure])
        text = _("{engine}: heavy") if heavy else _("{engine}: not heavy")
        times = source.times_best(measure, engine, low=True)
        yield Part(text.format(engine=engine), figure(name, times, HEAVY_TIMES, at_least=heavy), source.is_recorded)


def kept(engine: str) -> Part:
    """Return the part that an engine keeps all that it has confirmed when it is killed, in its best setting."""
    rows = [row for row in found.rows() if row.engine == engine and row.confirmed == MESSAGES]
    best = max(
        rows,
        key=lambda row: (row.after_kill or 0, row.after_power_cut or 0),
        default=Row(engine, UNKNOWN, 0, 0, 0, True),
    )
    text = _("{engine}: keeps what it confirmed, with {setting}").format(engine=engine, setting=best.setting)
    name = _("left after kill -9, of {number}").format(number=MESSAGES)
    return Part(text, Figure(name, best.after_kill or 0, MESSAGES), best.recorded)


def keeps_nothing(engine: str) -> Part:
    """Return the part that an engine gives a late reader nothing."""
    source = found.source([LATE], [engine])
    late = source.figures[LATE][engine]
    text = _("{engine}: keeps nothing").format(engine=engine)
    name = _("messages that a late reader received, of {number}").format(number=LATE_MESSAGES)
    return Part(text, figure(name, late, 0, at_least=False), source.is_recorded)


def richness(engine: str, *, share: float, at_least: bool, text: str) -> Part:
    """Return the part that an engine has at least, or at most, this share of the most messaging patterns of any."""
    ways, is_recorded = found.ways_of()
    numbers = {name: sum(ways[name].values()) for name in NAMES}
    name = _("messaging patterns, of {number}").format(number=len(ROUTES) + len(RICH))
    needed = Figure(name, numbers[engine], share * max(numbers.values()), at_least=at_least)
    return Part(text.format(engine=engine), needed, is_recorded)


def protocols(engine: str, at_least: int) -> Part:
    """Return the part that an engine answers in at least that many protocols."""
    spoken, is_recorded = found.protocols_of()
    text = _("{engine}: many protocols").format(engine=engine)
    return Part(text, Figure(_("protocols that it answers in"), len(spoken[engine]), at_least), is_recorded)


# --- The verdicts ----------------------------------------------------------------------------------------------------


def judge(claim: str, parts: Sequence[Part], *, when: str = "") -> Verdict:
    """Return the verdict on a claim from its parts: it holds if all do, and one that fails clearly decides."""
    failed = [part for part in parts if not part.holds and not part.figure.too_close]
    close = [part for part in parts if part.figure.too_close]
    decides = (failed or close or sorted(parts, key=lambda part: part.margin or float("inf")))[0]
    return verdict(
        claim,
        holds=not failed,
        when=when,
        because=ngettext("this part failed: {parts}", "these parts failed: {parts}", len(failed)).format(
            parts="; ".join(part.text for part in failed)
        ),
        measured="\n".join(map(str, parts)),
        figure=decides.figure,
        recorded=found.recording().source if any(part.recorded for part in parts) else "",
    )


def c23() -> Verdict:
    """Judge the portrait of RabbitMQ."""
    return judge(
        "C23",
        [
            kept(RABBIT),
            protocols(RABBIT, 2),
            richness(RABBIT, share=1.0, at_least=True, text=_("{engine}: the most messaging patterns")),
            *weight(RABBIT, heavy=True),
            high_throughput(RABBIT, is_high=False),
        ],
    )


def c24() -> Verdict:
    """Judge the portrait of Redis Pub/Sub."""
    return judge(
        "C24",
        [
            high_throughput(PUBSUB),
            low_latency(PUBSUB),
            keeps_nothing(PUBSUB),
            richness(PUBSUB, share=0.5, at_least=False, text=_("{engine}: at most half of the messaging patterns")),
        ],
    )


def c25() -> Verdict:
    """Judge the portrait of Kafka, without replication, for which it takes several machines."""
    parts = [high_throughput(KAFKA), low_latency(KAFKA), kept(KAFKA), *weight(KAFKA, heavy=True)]
    return judge("C25", parts, when=_("you take replication on trust: it needs several machines"))


def c26() -> Verdict:
    """Judge whether Kafka has the throughput, and Redis Pub/Sub or RabbitMQ the latency."""
    others = [name for name in NAMES if name != KAFKA and high_throughput(name).holds]
    when = _("you add that these have a high throughput, too: {engines}").format(engines=", ".join(others))
    return judge("C26", [high_throughput(KAFKA), lowest_latency(PUBSUB, RABBIT)], when=when if others else "")


def c27() -> Verdict:
    """Say that large systems were not tried."""
    return verdict("C27", holds=None, because=_("one machine is not a large system"), measured="")


def c28() -> Verdict:
    """Judge whether three engines can keep what they confirmed; the settings that do not are the condition."""
    rows = found.rows()
    by_kill = [row for row in rows if _lost(row.after_kill)]
    by_power_cut = [row for row in rows if _lost(row.after_power_cut)]
    when = _("the setting is right: kill -9 took messages from {killed} of {all} settings, a power cut from {cut}")
    condition = when.format(killed=len(by_kill), cut=len(by_power_cut), all=len(rows))
    parts = [kept(engine) for engine in (KAFKA, RABBIT, STREAMS)]
    return judge("C28", parts, when=condition if by_kill or by_power_cut else "")


def _lost(left: int | None) -> bool:
    return left is not None and left < MESSAGES


def c29() -> Verdict:
    """Judge whether Redis Pub/Sub is simple to run, and RabbitMQ has the richest patterns."""
    richest = richness(RABBIT, share=1.0, at_least=True, text=_("{engine}: the most messaging patterns"))
    return judge("C29", [*weight(PUBSUB, heavy=False), richest])


def c30() -> Verdict:
    """Judge whether RabbitMQ answers in more protocols than any other engine."""
    spoken, __ = found.protocols_of()
    most = max(len(spoken[name]) for name in NAMES if name != RABBIT)
    return judge("C30", [protocols(RABBIT, most + 1)], when=_("its plugins are enabled"))


# --- The tables ------------------------------------------------------------------------------------------------------

FORMS: Mapping[str, tuple[str, str]] = {
    LATENCY: (_("latency, ms"), "{:.2f}"),
    RATE: (_("messages/s"), "{:,.0f}"),
    LATE: (_("late reader, of 100"), "{:.0f}"),
    START: (_("start, s"), "{:.1f}"),
    MEMORY: (MEMORY, "{:.0f}"),
}
YES, NO, UNKNOWN = "✔", "✘", "–"


def persistence_table() -> None:
    """Show what each setting of each engine leaves of the confirmed messages."""
    rows = {
        f"{row.engine}: {row.setting}": {
            _("confirmed"): str(row.confirmed),
            _("left after kill -9"): _count(row.after_kill),
            _("left after a power cut (recorded)"): _count(row.after_power_cut),
        }
        for row in found.rows()
    }
    here = {f"{row.engine}: {row.setting}" for row in found.rows() if not row.recorded}
    charts.table(_("What a crash leaves of {number}").format(number=MESSAGES), rows, recorded=set(rows) - here)


def _count(number: int | None) -> str:
    return UNKNOWN if number is None else str(number)


def ways_table() -> None:
    """Show which messaging patterns each engine has, a row for each pattern."""
    columns = {name: (found.ways.get(name) or found.recording().ways[name]) for name in NAMES}
    titles = {name: name if name in found.ways else _("{name}, recorded").format(name=name) for name in NAMES}
    rows = {
        way: {titles[name]: YES if ways.get(way) else NO for name, ways in columns.items()} for way in (*ROUTES, *RICH)
    }
    charts.table(_("Messaging patterns"), rows)


def workers_table(shared: Mapping[str, bool]) -> None:
    """Show on which engines two workers of a group shared two messages; `shared` was tried here."""
    before = {name: ways[WORKERS] for name, ways in found.recording().ways.items() if name in NAMES}
    title = _("two workers, at work at the same time")
    rows = {name: {title: YES if can else NO} for name, can in {**before, **shared}.items()}
    charts.table(_("Who shares the work"), rows, recorded=set(before) - set(shared))


def price_table() -> None:
    """Show what it takes to run each engine, the protocols it answers in, and whether all readers see one order."""
    rows = {}
    for name in NAMES:
        spoken = found.protocols.get(name) or found.recording().protocols[name]
        order = found.orders.get(name) or found.recording().orders[name]
        rows[name] = {
            **{FORMS[measure][0]: _price(measure, name) for measure in (START, MEMORY)},
            _("protocols"): ", ".join(spoken),
            _("one order for all readers"): YES if order.shared else NO,
        }
    charts.table(_("Protocols and the price"), rows, recorded=[name for name in NAMES if name not in found.protocols])


def _price(measure: str, name: str) -> str:
    figures = found.figures if name in found.protocols else found.recording().figures
    repeats = figures.get(measure, {}).get(name)
    return UNKNOWN if repeats is None else FORMS[measure][1].format(repeats.median)


def summary() -> None:
    """Show a table with a row for each engine: what was measured here, or recorded where it is missing."""
    absent = [name for name in NAMES if name not in found.figures.get(LATENCY, {})]
    charts.table(_("Everything at a glance"), {name: _row(name) for name in NAMES}, recorded=absent)


def _row(name: str) -> dict[str, str]:
    """Return all that was measured of an engine here, or all that was recorded: never a mixture of two machines."""
    here = name in found.figures.get(LATENCY, {})
    ways = (found.ways if here else found.recording().ways).get(name)
    spoken = (found.protocols if here else found.recording().protocols).get(name)
    return {
        **{title: _figure(measure, name) for measure, (title, __) in FORMS.items()},
        _("patterns, of {number}").format(number=len(ROUTES) + len(RICH)): str(sum(ways.values())) if ways else UNKNOWN,
        _("protocols"): str(len(spoken)) if spoken else UNKNOWN,
    }


def _figure(measure: str, name: str) -> str:
    here = name in found.figures.get(LATENCY, {})
    repeats = (found.figures if here else found.recording().figures).get(measure, {}).get(name)
    return UNKNOWN if repeats is None else FORMS[measure][1].format(repeats.median)


# --- The chooser -----------------------------------------------------------------------------------------------------

# What the chooser needs to have been measured; keys of MEASURES.
NEEDED = (
    RATE,
    LATENCY,
    ONE,
    EIGHT,
    MEMORY,
    START,
    LATE,
)


def chooser() -> Chooser:
    """Return a chooser with the facts of this machine, or of the recorded run if something was not measured here."""
    source = found.source(NEEDED)
    here = (
        not source.is_recorded
        and set(NAMES) <= set(found.ways) & set(found.protocols)
        and set(NAMES[1:]) <= {row.engine for row in found.persistence}
    )
    text = (
        _("this machine; the power cut as recorded")
        if here
        else _("recorded on {machine}").format(machine=found.recording().source)
    )
    return choose({name: facts(name, recorded=not here) for name in NAMES}, source=text)


def facts(name: str, *, recorded: bool) -> Facts:
    """Return what is known of one engine, all of it from the recorded run or all of it from here."""
    recording = found.recording()
    of = {measure: (recording.figures if recorded else found.figures)[measure][name].median for measure in NEEDED}
    rows = [row for row in (recording.persistence if recorded else found.rows()) if row.engine == name]
    rate, latency, one, eight, mib, start, late = of.values()
    return Facts(
        rate=rate,
        latency=latency,
        one_reader=one,
        eight_readers=eight,
        mib=mib,
        start=start,
        late=late / LATE_MESSAGES,
        after_kill=_best_share(row.after_kill for row in rows),
        after_power_cut=_best_share(row.after_power_cut for row in rows),
        patterns=sum((recording.ways if recorded else found.ways)[name].values()),
        protocols=len((recording.protocols if recorded else found.protocols)[name]),
    )


def _best_share(left: Iterable[int | None]) -> float | None:
    """Return what the best setting has left, as a share; None if that was not tried."""
    return max((number / MESSAGES for number in left if number is not None), default=None)
