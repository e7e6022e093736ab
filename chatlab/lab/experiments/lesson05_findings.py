"""What lesson 05 has measured, in one place, and what follows from it: verdicts on the article's claims, and grades.

A claim about engines is a list of parts, each of them a question the figures answer with yes or no; it holds if all of
them do. A claim about an engine that is not here is not judged. Grades compare each engine with the best one here, in
steps wide enough to be the same on the next run. Left out: the measuring (`lesson05.py`, `lesson05_abilities.py`).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from chatlab.lab.claims import CLAIMS, Verdict, verdict
from chatlab.lab.experiments.lesson05 import FanOut, Order
from chatlab.lab.experiments.lesson05_abilities import PATTERN, WORKERS
from chatlab.lab.widgets.chooser import BEST, Score

__all__ = ["Findings", "p99"]

PUBSUB, STREAMS, RABBIT, KAFKA = "Redis Pub/Sub", "Redis Streams", "RabbitMQ", "Kafka"
NAMES = (PUBSUB, STREAMS, RABBIT, KAFKA)
FIRST_RANK = 0.4  # of the most: two runs on one machine may differ by as much


def p99(seconds: Sequence[float]) -> float:
    """What one in a hundred exceeds."""
    return statistics.quantiles(seconds, n=100)[-1]


@dataclass(frozen=True)
class Findings:
    """Everything that was measured, by the candidates' names."""

    delay: Mapping[str, Sequence[float]]  # seconds from publish to reader, one for each message
    rate: Mapping[str, float]  # messages a second
    wide: Mapping[str, FanOut]  # one publisher, eight readers
    started: Mapping[str, float]  # seconds until the engine answered, where it was started here
    memory: Mapping[str, float]  # bytes, where the engine was started here
    late: Mapping[str, int]  # of 100 messages, how many a late reader could read
    kept: Mapping[str, int]  # of 200 messages, how many were left after kill -9, where it was started here
    orders: Mapping[str, Order]
    ways: Mapping[str, Mapping[str, bool]]
    spoken: Mapping[str, Sequence[str]]

    @property
    def here(self) -> list[str]:
        """The engines that could be put through everything: those that were started here."""
        return [name for name in NAMES if name in self.kept]

    def median(self, name: str) -> float:
        """The middle one of an engine's delays."""
        return statistics.median(self.delay[name])

    def fastest(self) -> str:
        """The engine with the lowest median delay."""
        return min(self.here, key=self.median)

    def busiest(self) -> str:
        """The engine that carried most messages a second."""
        return max(self.here, key=lambda name: self.rate[name])

    def in_the_first_rank(self, name: str) -> bool:
        """Whether it carried as many messages as any, give or take what differs from one run to the next."""
        return self.rate[name] >= FIRST_RANK * self.rate[self.busiest()]

    def heavier(self, name: str, times: float = 3) -> bool:
        """Whether an engine needs `times` as long to start, and as much memory, as the one that needs least."""
        by_time = self.started[name] > times * min(self.started.values())
        return by_time and self.memory[name] > times * min(self.memory.values())

    # The article's claims.

    def judge(self, claim: str) -> Verdict | None:
        """The verdict on a claim, written into the ledger; None if it speaks of an engine that is not here."""
        asked = CLAIMS_OF_ENGINES[claim]
        if not asked.needs <= set(self.here):
            return None
        parts = asked.parts(self)
        absent = [part for part, shown in parts.items() if not shown]
        because = f"{' and '.join(absent)} did not show here"
        return verdict(
            claim, holds=not absent, when=asked.when(self), because=because, measured=self._figures(asked.needs)
        )

    def answers(self, *claims: str) -> Answers:
        """The verdict on each claim, and what each of its parts came to."""
        return Answers([self._answer(claim) for claim in claims])

    def _answer(self, claim: str) -> Answer:
        asked = CLAIMS_OF_ENGINES[claim]
        found = self.judge(claim)
        return Answer(claim, found, asked.parts(self) if found else {}, sorted(asked.needs - set(self.here)))

    def _figures(self, names: Iterable[str]) -> str:
        return "; ".join(
            f"{name}: median {self.median(name) * 1000:.2f} ms, {self.rate[name]:.0f}/s, "
            f"{self.kept[name]} of 200 left after kill -9, {self.memory[name] / 2**20:.0f} MiB"
            for name in sorted(names)
        )

    # For the chooser.

    def scores(self) -> dict[str, dict[str, Score]]:
        """Every engine's grade for each thing that can matter."""
        here = self.here
        medians = {name: self.median(name) for name in here}
        columns = {
            "many messages": graded("messages a second", {name: self.rate[name] for name in here}),
            "little delay": graded("delay", medians, low=True),
            "nothing is lost": counted("{} of 200 left after a crash", {name: self.kept[name] for name in here}, 200),
            "late readers": counted("{} of 100 for a late reader", {name: self.late[name] for name in here}, 100),
            "simple to run": graded("memory", {name: self.memory[name] for name in here}, low=True),
            "ways to route": counted(
                "{} of the 4 ways to route", {name: sum(self.ways[name].values()) for name in here}, 4
            ),
            "many protocols": counted("protocols spoken: {}", {name: len(self.spoken[name]) for name in here}, 3),
        }
        return {name: {what: column[name] for what, column in columns.items()} for name in here}


@dataclass(frozen=True)
class Answer:
    """A claim, its verdict and its parts; or the engines without which it cannot be tried."""

    claim: str
    verdict: Verdict | None
    parts: Mapping[str, bool]
    missing: Sequence[str]

    def __str__(self) -> str:
        parts = [f"      {'✔' if shown else '✘'} {part}" for part, shown in self.parts.items()]
        return "\n".join([str(self.verdict or f"  {self.claim} {self._not_tried}: {CLAIMS[self.claim].text}"), *parts])

    def as_html(self) -> str:
        """The verdict in its usual form, its parts as a list below it."""
        if self.verdict is None:
            return f"<p><b>{self.claim}</b> <i>{escape(CLAIMS[self.claim].text)}</i><br>{self._not_tried}</p>"
        parts = "".join(f"<br>{'✔' if shown else '✘'} {escape(part)}" for part, shown in self.parts.items())
        return f"{self.verdict._repr_html_()}<p style='margin:-0.6em 0 1em 2em'>{parts.removeprefix('<br>')}</p>"

    @property
    def _not_tried(self) -> str:
        return f"cannot be tried without {', '.join(self.missing)}"


@dataclass(frozen=True)
class Answers:
    """Several answers, as a cell shows them."""

    answers: Sequence[Answer]

    def __repr__(self) -> str:
        return "\n".join(map(str, self.answers))

    def _repr_html_(self) -> str:
        return "".join(answer.as_html() for answer in self.answers)


# --- What the article's claims come down to --------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """A claim: the engines it cannot do without, its parts, and the condition it holds under."""

    needs: frozenset[str]
    parts: Callable[[Findings], dict[str, bool]]
    when: Callable[[Findings], str] = lambda _: ""


def rabbitmq_portrait(found: Findings) -> dict[str, bool]:
    """C23."""
    return {
        "reliable: all that was confirmed is there after a crash": found.kept[RABBIT] == 200,
        "it speaks several protocols": len(found.spoken[RABBIT]) > 1,
        "it routes by pattern and shares out work": found.ways[RABBIT][PATTERN] and found.ways[RABBIT][WORKERS],
        "heavier to set up: start and memory": found.heavier(RABBIT),
        "slower at volume than another engine here": found.busiest() != RABBIT,
    }


def pubsub_portrait(found: Findings) -> dict[str, bool]:
    """C24."""
    return {
        "low delay: within three times the lowest here": found.median(PUBSUB) <= 3 * found.median(found.fastest()),
        "fast: at least a third of the most here": found.rate[PUBSUB] * 3 >= found.rate[found.busiest()],
        "keeps nothing": found.late[PUBSUB] == found.kept[PUBSUB] == 0,
        "no rich routing: no workers, no past": sum(found.ways[PUBSUB].values()) <= 2,
    }


def kafka_portrait(found: Findings) -> dict[str, bool]:
    """C25. Replication needs a second machine, and is not among the parts."""
    return {
        "a throughput of the first rank": found.in_the_first_rank(KAFKA),
        "low delay: under a tenth of a second": found.median(KAFKA) < 0.1,
        "kept: all that was confirmed is there after a crash": found.kept[KAFKA] == 200,
        "heavier to set up: start and memory": found.heavier(KAFKA),
    }


def speed(found: Findings) -> dict[str, bool]:
    """C26."""
    return {
        "Kafka in the first rank of throughput": found.in_the_first_rank(KAFKA),
        "Redis or RabbitMQ first in delay": found.fastest() in (PUBSUB, STREAMS, RABBIT),
    }


def not_alone(found: Findings) -> str:
    """The condition on C26: one topic and one machine are no race that Kafka wins by itself."""
    return "it need not be Kafka alone: here Redis carries as many" if found.in_the_first_rank(STREAMS) else ""


def scale(found: Findings) -> dict[str, bool]:
    """C27, as far as one machine goes."""
    return {f"{name}: eight servers read everything, in order": found.wide[name].complete for name in (RABBIT, KAFKA)}


def persistence(found: Findings) -> dict[str, bool]:
    """C28."""
    return {
        f"{name}: nothing confirmed is lost in a crash": found.kept[name] == 200 for name in (KAFKA, RABBIT, STREAMS)
    }


def simplicity(found: Findings) -> dict[str, bool]:
    """C29."""
    least = min(found.memory.values())
    possible = {name: sum(found.ways[name].values()) for name in found.here}
    return {
        "Redis Pub/Sub needs the least memory": found.memory[PUBSUB] <= least * 1.5,
        "RabbitMQ can do as many of the four ways as any": possible[RABBIT] == max(possible.values()),
    }


def languages(found: Findings) -> dict[str, bool]:
    """C30."""
    others = max(len(found.spoken[name]) for name in found.here if name != RABBIT)
    return {"RabbitMQ answers in more protocols than any other": len(found.spoken[RABBIT]) > others}


CLAIMS_OF_ENGINES: Mapping[str, Asked] = {
    "C23": Asked(frozenset({RABBIT, PUBSUB}), rabbitmq_portrait),
    "C24": Asked(frozenset({PUBSUB, STREAMS}), pubsub_portrait),
    "C25": Asked(frozenset({KAFKA, PUBSUB}), kafka_portrait, when=lambda _: "replication is taken on trust"),
    "C26": Asked(frozenset(NAMES), speed, when=not_alone),
    "C27": Asked(frozenset({RABBIT, KAFKA}), scale, when=lambda _: "eight servers are large"),
    "C28": Asked(frozenset({KAFKA, RABBIT, STREAMS}), persistence),
    "C29": Asked(
        frozenset({PUBSUB, RABBIT}), simplicity, when=lambda _: "nobody needs the past, which RabbitMQ does not have"
    ),
    "C30": Asked(frozenset({RABBIT, PUBSUB}), languages, when=lambda _: "its plugins are switched on"),
}


# --- Grades ----------------------------------------------------------------------------------------------------------

STEPS = ((5, BEST, "among the best"), (100, 1, "far from the best"))  # few and wide: the next run shall grade alike


def graded(what: str, values: Mapping[str, float], *, low: bool = False) -> dict[str, Score]:
    """A grade for each value by how many times it is from the best: the highest, or with `low` the lowest."""
    best = (min if low else max)(values.values(), default=0.0)
    factors = {name: value / best if low else best / value for name, value in values.items()}
    last = (float("inf"), 0, "last by far")
    found = {name: next(step for step in (*STEPS, last) if factor <= step[0]) for name, factor in factors.items()}
    return {name: Score(grade, f"{what}: {words}") for name, (_, grade, words) in found.items()}


def counted(what: str, values: Mapping[str, int], best: int) -> dict[str, Score]:
    """A grade for each count, `best` or more being the best grade, none the worst; `what` has {} for the count."""
    return {name: Score(BEST * min(number, best) // best, what.format(number)) for name, number in values.items()}
