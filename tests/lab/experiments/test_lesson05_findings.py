"""Verdicts and grades from figures: each verdict can go either way; the recorded run stands in for a missing engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from chatlab.lab.claims import Figure, Outcome, Verdict
from chatlab.lab.experiments import lesson05_findings
from chatlab.lab.experiments.lesson05 import Order
from chatlab.lab.experiments.lesson05_abilities import RICH, ROUTES
from chatlab.lab.experiments.lesson05_findings import (
    KAFKA,
    NAMES,
    PUBSUB,
    RABBIT,
    STREAMS,
    Findings,
    Part,
    judge,
    rounds,
)
from chatlab.lab.experiments.lesson05_persistence import Row
from chatlab.lab.experiments.recorded import Recording
from chatlab.lab.experiments.repeats import Repeats

Figures = Mapping[str, Sequence[float]]
ALL = (*ROUTES, *RICH)

RATES: Figures = {PUBSUB: (900, 920, 880), STREAMS: (500, 520, 480), RABBIT: (40, 42, 38), KAFKA: (1000, 1020, 980)}
LATENCIES: Figures = {PUBSUB: (0.2, 0.21, 0.2), STREAMS: (0.3, 0.31, 0.3), RABBIT: (0.6, 0.7, 0.6), KAFKA: (3, 4, 3)}
WAYS = {PUBSUB: 2, STREAMS: 3, RABBIT: 8, KAFKA: 4}
ROWS = [
    Row(STREAMS, "defaults", 200, 0, 0, False),
    Row(STREAMS, "appendfsync always", 200, 200, 200, False),
    Row(RABBIT, "persistent", 200, 200, 200, False),
    Row(KAFKA, "acks=all", 200, 200, 40, False),
]


def as_repeats(figures: Figures) -> dict[str, Repeats]:
    return {name: Repeats(tuple(map(float, values))) for name, values in figures.items()}


AS_THE_ARTICLE_SAYS = Recording(
    machine="another machine",
    date="a day",
    versions={},
    figures={
        "delay median ms": as_repeats(LATENCIES),
        "delay p99 ms": as_repeats(LATENCIES),
        "rate client": as_repeats(RATES),
        "rate engine": as_repeats(RATES),
        "engine µs": as_repeats({PUBSUB: [1], STREAMS: [6], RABBIT: [180], KAFKA: [200]}),
        "eight readers µs": as_repeats({PUBSUB: [4], STREAMS: [15], RABBIT: [880], KAFKA: [330]}),
        "late reader": as_repeats({PUBSUB: [0], STREAMS: [100], RABBIT: [100], KAFKA: [100]}),
        "MiB": as_repeats({PUBSUB: [10], STREAMS: [10], RABBIT: [120], KAFKA: [300]}),
        "start s": as_repeats({PUBSUB: [0.2], STREAMS: [0.2], RABBIT: [4], KAFKA: [5]}),
    },
    persistence=ROWS,
    ways={name: {way: number < count for number, way in enumerate(ALL)} for name, count in WAYS.items()},
    protocols={PUBSUB: ["RESP"], STREAMS: ["RESP"], RABBIT: ["AMQP", "MQTT", "STOMP"], KAFKA: ["Kafka's own"]},
    orders={name: Order(own=True, shared=True) for name in NAMES},
)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATLAB_HOME", str(tmp_path))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Findings:
    """Findings of a machine with every engine, as the article says; the recorded run is the same."""
    return use(monkeypatch, AS_THE_ARTICLE_SAYS, measured=True)


def use(monkeypatch: pytest.MonkeyPatch, recording: Recording, *, measured: bool) -> Findings:
    found = Findings(lambda: recording)
    if measured:
        found.figures = {measure: dict(values) for measure, values in recording.figures.items()}
        found.ways = {name: dict(ways) for name, ways in recording.ways.items()}
        found.protocols = {name: list(spoken) for name, spoken in recording.protocols.items()}
        found.orders, found.persistence = dict(recording.orders), list(recording.persistence)
    monkeypatch.setattr(lesson05_findings, "found", found)
    return found


VERDICTS: dict[str, Callable[[], Verdict]] = {
    id: getattr(lesson05_findings, id.lower()) for id in ("C23", "C24", "C25", "C26", "C28", "C29", "C30")
}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("claim", VERDICTS)
def test_a_claim_holds_if_the_figures_are_as_the_article_says(claim: str) -> None:
    verdict = VERDICTS[claim]()

    assert verdict.outcome in (Outcome.HOLDS, Outcome.HOLDS_WHEN), verdict.figures
    assert verdict.claim == claim
    assert verdict.is_from_here


@pytest.mark.parametrize(
    ("claim", "measure", "figures", "because"),
    [
        ("C23", "rate engine", {RABBIT: [990]}, "RabbitMQ: not a high throughput"),
        ("C23", "MiB", {RABBIT: [20]}, "RabbitMQ: heavy"),
        ("C24", "late reader", {PUBSUB: [100]}, "Redis Pub/Sub: keeps nothing"),
        ("C24", "delay median ms", {PUBSUB: [11]}, "Redis Pub/Sub: low latency"),
        ("C25", "rate engine", {KAFKA: [300]}, "Kafka: high throughput"),
        ("C25", "start s", {KAFKA: [0.3]}, "Kafka: heavy"),
        ("C26", "rate engine", {KAFKA: [300]}, "Kafka: high throughput"),
        ("C26", "delay median ms", {KAFKA: [0.05]}, "Redis Pub/Sub or RabbitMQ: among the lowest latencies"),
        ("C29", "MiB", {KAFKA: [2]}, "Redis Pub/Sub: not heavy"),
    ],
)
def test_a_claim_does_not_hold_if_a_figure_contradicts_it(
    claim: str, measure: str, figures: Figures, because: str, here: Findings
) -> None:
    here.add(measure, figures)

    verdict = VERDICTS[claim]()

    assert verdict.outcome is Outcome.DOES_NOT_HOLD
    assert because in verdict.because
    assert verdict.figure is not None
    assert f"✘ {because} · {verdict.figure}" in verdict.measured


def test_persistence_does_not_hold_if_an_engine_has_no_setting_that_keeps_everything(here: Findings) -> None:
    here.add_rows([row._replace(after_kill=199) for row in ROWS if row.setting == "appendfsync always"])

    verdict = lesson05_findings.c28()

    assert verdict.outcome is Outcome.DOES_NOT_HOLD
    assert "Redis Streams: keeps what it confirmed" in verdict.because


def test_persistence_has_a_condition_while_a_setting_loses_messages(here: Findings) -> None:
    verdict = lesson05_findings.c28()
    assert verdict.outcome is Outcome.HOLDS_WHEN
    assert verdict.because.endswith("kill -9 took messages from 1 of 4 settings, a power cut from 2")

    here.add_rows(row._replace(after_kill=200, after_power_cut=200) for row in ROWS)
    assert lesson05_findings.c28().outcome is Outcome.HOLDS


def test_another_engine_with_as_many_protocols_or_patterns_refutes_the_claims_about_rabbitmq(here: Findings) -> None:
    here.protocols[KAFKA] = ["a", "b", "c"]
    assert lesson05_findings.c30().outcome is Outcome.DOES_NOT_HOLD

    here.ways[RABBIT] = dict.fromkeys(ALL, False)
    assert lesson05_findings.c29().outcome is Outcome.DOES_NOT_HOLD


def test_large_systems_are_not_tested() -> None:
    assert lesson05_findings.c27().outcome is Outcome.NOT_TESTED


def test_repeats_on_both_sides_of_the_threshold_are_too_close_to_call(here: Findings) -> None:
    here.add("rate engine", {KAFKA: (400, 520, 600), PUBSUB: (1000, 1000, 1000)})

    verdict = lesson05_findings.c26()

    assert verdict.outcome is Outcome.TOO_CLOSE
    assert "≈ Kafka: high throughput" in verdict.measured


def test_a_part_that_fails_clearly_decides_even_if_another_is_too_close(here: Findings) -> None:
    here.add("rate engine", {KAFKA: (400, 520, 600), PUBSUB: (1000, 1000, 1000)})
    here.add("delay median ms", {KAFKA: (0.01, 0.01, 0.01)})

    assert lesson05_findings.c26().outcome is Outcome.DOES_NOT_HOLD


def test_the_claim_about_throughput_names_other_engines_that_pass_the_same_yardstick(here: Findings) -> None:
    assert lesson05_findings.c26().because.endswith("Redis Pub/Sub, Redis Streams")

    here.add("rate engine", {PUBSUB: [100, 100, 100], STREAMS: [100, 100, 100]})
    assert lesson05_findings.c26().outcome is Outcome.HOLDS


@pytest.mark.parametrize("claim", VERDICTS)
def test_without_any_engine_every_verdict_comes_from_the_recorded_run_and_says_so(
    claim: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row._replace(recorded=True) for row in ROWS]
    use(monkeypatch, replace(AS_THE_ARTICLE_SAYS, persistence=rows), measured=False)

    verdict = VERDICTS[claim]()

    assert verdict.outcome in (Outcome.HOLDS, Outcome.HOLDS_WHEN)
    assert verdict.recorded == "another machine, a day"
    assert "(recorded)" in verdict.measured


def test_a_comparison_never_mixes_two_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    found = use(monkeypatch, AS_THE_ARTICLE_SAYS, measured=False)
    found.add("rate engine", {PUBSUB: [9_000_000], STREAMS: [9_000_000]})  # a much faster machine, without Kafka

    verdict = lesson05_findings.c26()

    assert verdict.outcome is Outcome.HOLDS_WHEN
    assert not verdict.is_from_here
    assert set(found.beside("rate engine")) == set(NAMES)


def test_rows_that_were_measured_here_take_the_place_of_the_recorded_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    recording = [row._replace(recorded=True) for row in ROWS]
    found = use(monkeypatch, replace(AS_THE_ARTICLE_SAYS, persistence=recording), measured=False)
    measured = Row(RABBIT, "persistent", 200, 150, 200, False)

    found.add_rows([measured._replace(after_kill=1), recording[0]])
    found.add_rows([measured])

    assert list(found.rows()) == [*recording[:2], measured, recording[3]]


def test_nothing_recorded_is_drawn_beside_figures_of_all_engines(here: Findings) -> None:
    assert found_beside(here) == {}


def found_beside(found: Findings) -> dict[str, Repeats]:
    return dict(found.beside("rate engine"))


def test_the_part_with_the_smallest_margin_is_shown_if_all_hold() -> None:
    wide, narrow = (Part(name, Figure(name, value, 10)) for name, value in (("wide", 100), ("narrow", 11)))

    assert judge("C26", [wide, narrow]).figure == narrow.figure


def test_repeats_are_stored_as_they_are_and_single_values_as_one() -> None:
    found = Findings(lambda: AS_THE_ARTICLE_SAYS)
    found.add("MiB", {KAFKA: Repeats((1.0, 2.0)), RABBIT: 3, PUBSUB: [4, 5]})

    assert found.figures["MiB"] == {KAFKA: Repeats((1.0, 2.0)), RABBIT: Repeats((3.0,)), PUBSUB: Repeats((4.0, 5.0))}


def test_latencies_are_stored_as_three_rounds() -> None:
    found = Findings(lambda: AS_THE_ARTICLE_SAYS)
    found.add_latency({KAFKA: [0.001] * 10 + [0.002] * 10 + [0.003] * 10})

    assert found.figures["delay median ms"][KAFKA].values == pytest.approx((1, 2, 3))
    assert [len(each) for each in rounds(range(300))] == [100, 100, 100]


def test_the_chooser_has_the_facts_of_this_machine_if_everything_was_measured_here(here: Findings) -> None:
    here.add("MiB", {KAFKA: [301]})

    chooser = lesson05_findings.chooser()

    assert chooser.source == "this machine; the power cut as recorded"
    assert "301 MiB" in chooser.scores[KAFKA]["simple to run"].reason
    assert "a power cut 100%" in chooser.scores[STREAMS]["persistence"].reason


def test_the_chooser_uses_the_recorded_run_alone_if_anything_was_not_measured_here(here: Findings) -> None:
    here.add("MiB", {STREAMS: [7]})
    del here.figures["MiB"][KAFKA]

    chooser = lesson05_findings.chooser()

    assert chooser.source == "recorded on another machine, a day"
    assert "10 MiB" in chooser.scores[STREAMS]["simple to run"].reason
