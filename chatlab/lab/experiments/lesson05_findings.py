"""What lesson 05 has measured, and what follows from it: verdicts on the article's claims, and grades.

A claim about engines consists of parts; the figures decide whether each part is true. The claim holds if all parts are.
A claim about an engine that is not installed is not judged. Grades compare each engine with the best one, in steps so
wide that the next run gives the same grades. Left out: the measuring (`lesson05.py`, `lesson05_abilities.py`).
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
from chatlab.locale import _, ngettext

__all__ = ["Findings", "p99"]

PUBSUB, STREAMS, RABBIT, KAFKA = "Redis Pub/Sub", "Redis Streams", "RabbitMQ", "Kafka"  # not shown: products' names
NAMES = (PUBSUB, STREAMS, RABBIT, KAFKA)
TOP = 0.4  # of the highest throughput: two runs on one machine may differ by that much

# The criteria of the chooser by key. A notebook names the keys; the chooser shows their translations.
CRITERIA: Mapping[str, str] = {
    "many messages": _("many messages"),  # not shown: a key
    "little delay": _("little delay"),  # not shown: a key
    "nothing is lost": _("nothing is lost"),  # not shown: a key
    "late readers": _("late readers"),  # not shown: a key
    "simple to run": _("simple to run"),  # not shown: a key
    "ways to route": _("ways to route"),  # not shown: a key
    "many protocols": _("many protocols"),  # not shown: a key
}


def p99(seconds: Sequence[float]) -> float:
    """Return the 99th percentile: one in a hundred is higher."""
    return statistics.quantiles(seconds, n=100)[-1]


@dataclass(frozen=True)
class Findings:
    """Everything that was measured, by the names of the candidates."""

    delay: Mapping[str, Sequence[float]]  # seconds from publish to reader, for each message
    rate: Mapping[str, float]  # messages per second
    wide: Mapping[str, FanOut]  # one publisher, eight readers
    started: Mapping[str, float]  # seconds until the engine answered, if it was started here
    memory: Mapping[str, float]  # bytes, if the engine was started here
    late: Mapping[str, int]  # how many of 100 messages a late reader could read
    kept: Mapping[str, int]  # how many of 200 messages were left after kill -9, if the engine was started here
    orders: Mapping[str, Order]
    ways: Mapping[str, Mapping[str, bool]]
    spoken: Mapping[str, Sequence[str]]

    @property
    def here(self) -> list[str]:
        """The engines on which every experiment could be run: those that were started here."""
        return [name for name in NAMES if name in self.kept]

    def median(self, name: str) -> float:
        """Return the median of an engine's delays."""
        return statistics.median(self.delay[name])

    def fastest(self) -> str:
        """Return the engine with the lowest median delay."""
        return min(self.here, key=self.median)

    def busiest(self) -> str:
        """Return the engine with the highest throughput."""
        return max(self.here, key=lambda name: self.rate[name])

    def has_top_throughput(self, name: str) -> bool:
        """Return whether an engine has the highest throughput, within the variation from run to run."""
        return self.rate[name] >= TOP * self.rate[self.busiest()]

    def heavier(self, name: str, times: float = 3) -> bool:
        """Return whether an engine needs over `times` the minimum of both start time and memory."""
        by_time = self.started[name] > times * min(self.started.values())
        return by_time and self.memory[name] > times * min(self.memory.values())

    # The article's claims.

    def judge(self, claim: str) -> Verdict | None:
        """Store the verdict on a claim in the ledger and return it; None if an engine is missing."""
        test = CLAIMS_OF_ENGINES[claim]
        if not test.needs <= set(self.here):
            return None
        failed = [part for part, holds in test.parts(self).items() if not holds]
        because = ngettext("this part failed here: {parts}", "these parts failed here: {parts}", len(failed)).format(
            parts="; ".join(failed)
        )
        return verdict(
            claim, holds=not failed, when=test.when(self), because=because, measured=self._figures(test.needs)
        )

    def answers(self, *claims: str) -> Answers:
        """Return the verdict on each claim, with its parts."""
        return Answers([self._answer(claim) for claim in claims])

    def _answer(self, claim: str) -> Answer:
        test = CLAIMS_OF_ENGINES[claim]
        found = self.judge(claim)
        return Answer(claim, found, test.parts(self) if found else {}, sorted(test.needs - set(self.here)))

    def _figures(self, names: Iterable[str]) -> str:
        text = _("{engine}: median {ms:.2f} ms, {rate:.0f}/s, {kept} of 200 left after kill -9, {mib:.0f} MiB")
        return "; ".join(
            text.format(
                engine=name,
                ms=self.median(name) * 1000,
                rate=self.rate[name],
                kept=self.kept[name],
                mib=self.memory[name] / 2**20,
            )
            for name in sorted(names)
        )

    # For the chooser.

    def scores(self) -> dict[str, dict[str, Score]]:
        """Return every engine's score for each of the `CRITERIA`."""
        here = self.here
        medians = {name: self.median(name) for name in here}
        ways = {name: sum(self.ways[name].values()) for name in here}
        columns = (
            graded(_("messages a second"), {name: self.rate[name] for name in here}),
            graded(_("delay"), medians, low=True),
            counted(_("{count} of 200 left after a crash"), {name: self.kept[name] for name in here}, 200),
            counted(_("{count} of 100 for a late reader"), {name: self.late[name] for name in here}, 100),
            graded(_("memory"), {name: self.memory[name] for name in here}, low=True),
            counted(_("{count} of the 4 ways to route"), ways, 4),
            counted(_("protocols spoken: {count}"), {name: len(self.spoken[name]) for name in here}, 3),
        )
        return {name: {key: column[name] for key, column in zip(CRITERIA, columns, strict=True)} for name in here}


@dataclass(frozen=True)
class Answer:
    """A claim with its verdict and its parts, or with the engines that are missing for a test."""

    claim: str
    verdict: Verdict | None
    parts: Mapping[str, bool]
    missing: Sequence[str]

    def __str__(self) -> str:
        parts = [f"      {'✔' if holds else '✘'} {part}" for part, holds in self.parts.items()]
        return "\n".join([str(self.verdict or f"  {self.claim} {self._not_tried}: {CLAIMS[self.claim].text}"), *parts])

    def as_html(self) -> str:
        """Return the verdict as HTML with its parts below it."""
        if self.verdict is None:
            return f"<p><b>{self.claim}</b> <i>{escape(CLAIMS[self.claim].text)}</i><br>{escape(self._not_tried)}</p>"
        parts = "".join(f"<br>{'✔' if holds else '✘'} {escape(part)}" for part, holds in self.parts.items())
        return f"{self.verdict._repr_html_()}<p style='margin:-0.6em 0 1em 2em'>{parts.removeprefix('<br>')}</p>"

    @property
    def _not_tried(self) -> str:
        return _("cannot be tried without {engines}").format(engines=", ".join(self.missing))


@dataclass(frozen=True)
class Answers:
    """Several answers, as displayed by a cell."""

    answers: Sequence[Answer]

    def __repr__(self) -> str:
        return "\n".join(map(str, self.answers))

    def _repr_html_(self) -> str:
        return "".join(answer.as_html() for answer in self.answers)


# --- The parts of the article's claims --------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClaimTest:
    """How a claim is tested: the engines it needs, its parts, and the condition under which it holds."""

    needs: frozenset[str]
    parts: Callable[[Findings], dict[str, bool]]
    when: Callable[[Findings], str] = lambda found: ""


def rabbitmq_portrait(found: Findings) -> dict[str, bool]:
    """Return the parts of C23."""
    return {
        _("reliable: everything confirmed is there after a crash"): found.kept[RABBIT] == 200,
        _("it speaks several protocols"): len(found.spoken[RABBIT]) > 1,
        _("it routes by pattern and distributes work"): found.ways[RABBIT][PATTERN] and found.ways[RABBIT][WORKERS],
        _("heavier to set up: start and memory"): found.heavier(RABBIT),
        _("slower at volume than another engine here"): found.busiest() != RABBIT,
    }


def pubsub_portrait(found: Findings) -> dict[str, bool]:
    """Return the parts of C24."""
    return {
        _("low delay: within three times the lowest here"): found.median(PUBSUB) <= 3 * found.median(found.fastest()),
        _("fast: at least a third of the highest throughput here"): found.rate[PUBSUB] * 3
        >= found.rate[found.busiest()],
        _("keeps nothing"): found.late[PUBSUB] == found.kept[PUBSUB] == 0,
        _("no rich routing: no workers, no history"): sum(found.ways[PUBSUB].values()) <= 2,
    }


def kafka_portrait(found: Findings) -> dict[str, bool]:
    """Return the parts of C25. Replication needs a second machine and is not tested."""
    return {
        _("high throughput: among the highest here"): found.has_top_throughput(KAFKA),
        _("low delay: under a tenth of a second"): found.median(KAFKA) < 0.1,
        _("kept: everything confirmed is there after a crash"): found.kept[KAFKA] == 200,
        _("heavier to set up: start and memory"): found.heavier(KAFKA),
    }


def speed(found: Findings) -> dict[str, bool]:
    """Return the parts of C26."""
    return {
        _("Kafka is among the engines with the highest throughput"): found.has_top_throughput(KAFKA),
        _("Redis or RabbitMQ has the lowest delay"): found.fastest() in (PUBSUB, STREAMS, RABBIT),
    }


def not_alone(found: Findings) -> str:
    """Return the condition on C26: with one topic on one machine, Kafka is not the only engine at the top."""
    return _("Redis Streams counts too: it carries as many messages here") if found.has_top_throughput(STREAMS) else ""


def scale(found: Findings) -> dict[str, bool]:
    """Return the parts of C27, as far as one machine can test it."""
    part = _("{engine}: eight servers read everything, in order")
    return {part.format(engine=name): found.wide[name].complete for name in (RABBIT, KAFKA)}


def persistence(found: Findings) -> dict[str, bool]:
    """Return the parts of C28."""
    part = _("{engine}: nothing confirmed is lost in a crash")
    return {part.format(engine=name): found.kept[name] == 200 for name in (KAFKA, RABBIT, STREAMS)}


def simplicity(found: Findings) -> dict[str, bool]:
    """Return the parts of C29."""
    least = min(found.memory.values())
    ways = {name: sum(found.ways[name].values()) for name in found.here}
    return {
        _("Redis Pub/Sub needs the least memory"): found.memory[PUBSUB] <= least * 1.5,
        _("RabbitMQ has as many of the four ways as any other"): ways[RABBIT] == max(ways.values()),
    }


def languages(found: Findings) -> dict[str, bool]:
    """Return the parts of C30."""
    others = max(len(found.spoken[name]) for name in found.here if name != RABBIT)
    return {_("RabbitMQ answers in more protocols than any other"): len(found.spoken[RABBIT]) > others}


CLAIMS_OF_ENGINES: Mapping[str, ClaimTest] = {
    "C23": ClaimTest(frozenset({RABBIT, PUBSUB}), rabbitmq_portrait),
    "C24": ClaimTest(frozenset({PUBSUB, STREAMS}), pubsub_portrait),
    "C25": ClaimTest(frozenset({KAFKA, PUBSUB}), kafka_portrait, when=lambda found: _("replication is taken on trust")),
    "C26": ClaimTest(frozenset(NAMES), speed, when=not_alone),
    "C27": ClaimTest(frozenset({RABBIT, KAFKA}), scale, when=lambda found: _("eight servers count as large")),
    "C28": ClaimTest(frozenset({KAFKA, RABBIT, STREAMS}), persistence),
    "C29": ClaimTest(
        frozenset({PUBSUB, RABBIT}),
        simplicity,
        when=lambda found: _("nobody needs the history, which RabbitMQ does not keep"),
    ),
    "C30": ClaimTest(frozenset({RABBIT, PUBSUB}), languages, when=lambda found: _("its plugins are enabled")),
}


# --- Grades ----------------------------------------------------------------------------------------------------------

STEPS = ((5, BEST, _("among the best")), (100, 1, _("far from the best")))  # few and wide: stable from run to run


def graded(what: str, values: Mapping[str, float], *, low: bool = False) -> dict[str, Score]:
    """Grade each value by its ratio to the best one: the highest, or with `low` the lowest."""
    best = (min if low else max)(values.values(), default=0.0)
    factors = {name: value / best if low else best / value for name, value in values.items()}
    last = (float("inf"), 0, _("last by far"))
    found = {name: next(step for step in (*STEPS, last) if factor <= step[0]) for name, factor in factors.items()}
    return {name: Score(grade, f"{what}: {words}") for name, (_, grade, words) in found.items()}


def counted(what: str, values: Mapping[str, int], best: int) -> dict[str, Score]:
    """Grade each count: `best` or more gets the best grade, 0 the worst. `what` is a text with {count}."""
    return {name: Score(BEST * min(number, best) // best, what.format(count=number)) for name, number in values.items()}
