"""Which engine for whom: grades from the figures of lesson 05, by one yardstick, and profiles to begin with.

    choose({"Kafka": Facts(rate=400_000, latency=2.1, ...), ...}, source="recorded on ..., 2026-11-27")

The criteria are the article's five; the two that it divides itself (throughput and latency; what is simple and which
patterns there are) are two sliders each. For every criterion, an engine is so many times worse than the best one, and
the same `STEPS` turn that into its grade. One fact is `DOCUMENTED`, not measured: what a topic can do on several
machines. Left out: the measuring, and which machine's figures are compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from chatlab.lab.widgets.chooser import BEST, Chooser, Profile, Score
from chatlab.locale import _

__all__ = ["CRITERIA", "PROFILES", "STEPS", "YARDSTICK", "Facts", "choose", "grade", "scores"]

# Times worse than the best, and the grade of whatever is below that: wide steps, so that the next run grades alike.
STEPS = ((2, BEST), (4, 2), (16, 1))
YARDSTICK = _(
    "One yardstick for all: an engine whose figure is less than 2 times worse than the best one gets 3, less than 4 "
    "times gets 2, less than 16 times gets 1, and what is farther off, or nothing at all, gets 0."
)

# The keys of the criteria.
THROUGHPUT, LATENCY, PERSISTENCE, PROTOCOLS = "throughput", "latency", "persistence", "protocols"
MACHINES, SIMPLE, PATTERNS = "more machines", "simple to run", "messaging patterns"  # not shown: keys

# The criteria by key; the chooser shows their translations.
CRITERIA: Mapping[str, str] = {
    THROUGHPUT: _("throughput"),
    LATENCY: _("latency"),
    MACHINES: _("more machines"),
    PERSISTENCE: _("persistence"),
    SIMPLE: _("simple to run"),
    PATTERNS: _("messaging patterns"),
    PROTOCOLS: _("protocols"),
}
# The article's headings, above the first criterion of each.
HEADINGS: Mapping[str, str] = {
    THROUGHPUT: _("처리량과 지연시간 (throughput and latency)"),
    MACHINES: _("확장성 (scalability)"),
    PERSISTENCE: _("메시지 지속성 (persistence)"),
    SIMPLE: _("복잡성과 학습곡선 (complexity)"),
    PROTOCOLS: _("프로토콜 지원 (protocols)"),
}

PROFILES = (
    Profile(
        _("a chat of one team on one server"),
        _("A chat of one team: nobody misses a message, and nobody has time to run anything."),
        {LATENCY: 3, PERSISTENCE: 5, SIMPLE: 4},
    ),
    Profile(
        _("a dashboard where only now counts"),
        _("A dashboard of what is happening now: yesterday's value is worthless, and it should cost next to nothing."),
        {THROUGHPUT: 2, LATENCY: 5, SIMPLE: 4},
    ),
    Profile(
        _("work that must be routed and retried"),
        _("Orders go to the right worker, wait, are tried again, and are set aside when they fail."),
        {PERSISTENCE: 4, PATTERNS: 5, PROTOCOLS: 2},
    ),
    Profile(
        _("a million events a second"),
        _("A million events a second, more than one machine can take; they are kept, and people run a cluster."),
        {THROUGHPUT: 3, MACHINES: 5, PERSISTENCE: 4},
    ),
)

# What one topic can do on several machines, as the engines' manuals say. It is not tried here: that takes machines.
COPIED, SPLIT, SHARED = _("copied before it is confirmed"), _("split"), _("read by a group, each part in order")
DOCUMENTED: Mapping[str, tuple[str, ...]] = {
    # https://kafka.apache.org/documentation/#replication, #intro_concepts_and_terms (partitions, consumer groups)
    "Kafka": (COPIED, SPLIT, SHARED),
    # https://www.rabbitmq.com/docs/quorum-queues: a queue is copied, and has one leader
    "RabbitMQ": (COPIED,),
    # https://redis.io/docs/latest/operate/oss_and_stack/management/replication/: a stream is one key on one machine,
    # and its copies are made after the confirmation; a channel keeps nothing to copy.
    "Redis Streams": (),  # not shown: a product's name
    "Redis Pub/Sub": (),
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one engine.

    `late`, `after_kill` and `after_power_cut` are shares from 0 to 1, in the engine's best setting for each; the last
    two are of what it confirmed, and None if that was not tried.
    """

    rate: float  # messages per second, at the engine
    latency: float  # milliseconds from publish to reader, median
    one_reader: float  # microseconds of the engine's processor time for a message to one reader
    eight_readers: float  # the same, to eight
    mib: float  # its memory with next to nothing in it
    start: float  # seconds from its start to its first answer
    late: float  # of the messages published before it, what a reader receives
    after_kill: float | None
    after_power_cut: float | None
    patterns: int  # messaging patterns, of `ALL_PATTERNS`
    protocols: int
    machines: tuple[str, ...] = ()  # what one topic can do on several machines, of `DOCUMENTED`

    @property
    def growth(self) -> float:
        """How many times the work for one reader the work for eight is."""
        return self.eight_readers / self.one_reader

    @property
    def kept(self) -> float:
        """The mean of what is left for a late reader, after a kill and after a power cut, as far as it is known."""
        known = [share for share in (self.late, self.after_kill, self.after_power_cut) if share is not None]
        return sum(known) / len(known)


ALL_PATTERNS = 8


def grade(times_worse: float) -> int:
    """Return the grade of an engine that is so many times worse than the best one, by `STEPS`."""
    return next((points for limit, points in STEPS if times_worse < limit), 0)


def scores(facts: Mapping[str, Facts]) -> dict[str, dict[str, Score]]:
    """Return the score of each engine for each of the `CRITERIA`."""
    found: dict[str, dict[str, Score]] = {name: {} for name in facts}
    for key, worse in zip(CRITERIA, _times_worse(facts), strict=True):
        for name, times in worse.items():
            found[name][key] = Score(grade(times), _in_words(key, facts[name]))
    return found


def _times_worse(facts: Mapping[str, Facts]) -> Iterator[dict[str, float]]:
    """Yield for each criterion how many times worse than the best each engine is."""
    yield _below({name: each.rate for name, each in facts.items()})
    yield _above({name: each.latency for name, each in facts.items()})
    growth = _above({name: each.growth for name, each in facts.items()})
    machines = _below({name: len(each.machines) for name, each in facts.items()})
    yield {name: max(growth[name], machines[name]) for name in facts}  # the greater lack decides
    yield _below({name: each.kept for name, each in facts.items()})
    burdens = [
        _above({name: each.mib for name, each in facts.items()}),
        _above({name: each.start for name, each in facts.items()}),
        _above({name: each.one_reader for name, each in facts.items()}),
    ]
    yield {name: max(burden[name] for burden in burdens) for name in facts}  # the heaviest burden decides
    yield _below({name: each.patterns for name, each in facts.items()})
    yield _below({name: each.protocols for name, each in facts.items()})


def _above(values: Mapping[str, float]) -> dict[str, float]:
    """Return how many times the lowest value each one is."""
    least = min(values.values())
    return {name: value / least if least else 1.0 if not value else math.inf for name, value in values.items()}


def _below(values: Mapping[str, float]) -> dict[str, float]:
    """Return how many times smaller than the highest value each one is; nothing is infinitely smaller."""
    most = max(values.values())
    return {name: most / value if value else math.inf for name, value in values.items()}


def _in_words(key: str, facts: Facts) -> str:
    return {
        THROUGHPUT: _("{rate:,.0f} messages/s").format(rate=facts.rate),
        LATENCY: _("{ms:.2f} ms median latency").format(ms=facts.latency),
        MACHINES: _machines_in_words(facts),
        PERSISTENCE: _persistence_in_words(facts),
        SIMPLE: _("{mib:.0f} MiB, {seconds:.1f} s to start, {work:.0f} µs of work a message").format(
            mib=facts.mib, seconds=facts.start, work=facts.one_reader
        ),
        PATTERNS: _("{count} of {all} messaging patterns").format(count=facts.patterns, all=ALL_PATTERNS),
        PROTOCOLS: _("protocols: {count}").format(count=facts.protocols),
    }[key]


def _machines_in_words(facts: Facts) -> str:
    text = _(
        "{times:.1f} times the work for 8 times the readers; a topic on several machines (documented, not tried): {can}"
    )
    return text.format(times=facts.growth, can=", ".join(facts.machines) or _("none of this"))


def _persistence_in_words(facts: Facts) -> str:
    parts: list[tuple[str, float | None]] = [
        (_("a late reader gets {share:.0%}"), facts.late),
        (_("kill -9 leaves {share:.0%}"), facts.after_kill),
        (_("a power cut {share:.0%}"), facts.after_power_cut),
    ]
    return ", ".join(text.format(share=share) for text, share in parts if share is not None)


def choose(facts: Mapping[str, Facts], *, source: str = "") -> Chooser:
    """Return a chooser between these engines; `source` says in the decision record where the facts come from.

    What is `DOCUMENTED` of an engine is added to its facts.
    """
    facts = {name: replace(each, machines=DOCUMENTED.get(name, each.machines)) for name, each in facts.items()}
    return Chooser(scores(facts), profiles=PROFILES, headings=HEADINGS, source=source, yardstick=YARDSTICK)
