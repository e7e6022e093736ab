"""Verdicts and grades from figures: each verdict can go either way; a missing engine gives none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from chatlab.lab.claims import Outcome
from chatlab.lab.experiments.lesson05 import FanOut, Order
from chatlab.lab.experiments.lesson05_abilities import EVERYBODY, PAST, PATTERN, WORKERS
from chatlab.lab.experiments.lesson05_findings import (
    CLAIMS_OF_ENGINES,
    CRITERIA,
    NAMES,
    Findings,
    counted,
    graded,
    p99,
)
from chatlab.lab.widgets.chooser import BEST

WAYS = {"Redis Pub/Sub": "EP", "Redis Streams": "EWH", "RabbitMQ": "EWP", "Kafka": "EPH"}
LETTERS = {"E": EVERYBODY, "W": WORKERS, "P": PATTERN, "H": PAST}

AS_THE_ARTICLE_HAS_IT = Findings(
    delay={"Redis Pub/Sub": [1e-4] * 3, "Redis Streams": [2e-4] * 3, "RabbitMQ": [4e-4] * 3, "Kafka": [2e-3] * 3},
    rate={"Redis Pub/Sub": 30_000, "Redis Streams": 20_000, "RabbitMQ": 5_000, "Kafka": 50_000},
    wide={name: FanOut(8, 300, True, 0.1) for name in NAMES},
    started={"Redis Pub/Sub": 0.1, "Redis Streams": 0.1, "RabbitMQ": 4, "Kafka": 5},
    memory={"Redis Pub/Sub": 1e7, "Redis Streams": 1e7, "RabbitMQ": 1e8, "Kafka": 2e8},
    late={"Redis Pub/Sub": 0, "Redis Streams": 100, "RabbitMQ": 0, "Kafka": 100},
    kept={"Redis Pub/Sub": 0, "Redis Streams": 200, "RabbitMQ": 200, "Kafka": 200},
    orders={name: Order(own=True, shared=True) for name in NAMES},
    ways={name: {LETTERS[each]: each in can for each in LETTERS} for name, can in WAYS.items()},
    spoken={"Redis Pub/Sub": ["RESP"], "Redis Streams": ["RESP"], "RabbitMQ": ["A", "M", "S"], "Kafka": ["K"]},
)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATLAB_HOME", str(tmp_path))


@pytest.mark.parametrize("claim", CLAIMS_OF_ENGINES)
def test_a_claim_holds_if_the_figures_are_as_the_article_says(claim: str) -> None:
    found = AS_THE_ARTICLE_HAS_IT.judge(claim)

    assert found is not None
    assert found.outcome in (Outcome.HOLDS, Outcome.HOLDS_WHEN)


@pytest.mark.parametrize(
    ("claim", "figures", "because"),
    [
        ("C23", {"kept": {**AS_THE_ARTICLE_HAS_IT.kept, "RabbitMQ": 199}}, "reliable"),
        ("C24", {"late": {**AS_THE_ARTICLE_HAS_IT.late, "Redis Pub/Sub": 100}}, "keeps nothing"),
        ("C25", {"rate": {**AS_THE_ARTICLE_HAS_IT.rate, "Kafka": 3_000}}, "high throughput"),
        ("C26", {"rate": {**AS_THE_ARTICLE_HAS_IT.rate, "Kafka": 3_000}}, "Kafka is among"),
        ("C27", {"wide": {**AS_THE_ARTICLE_HAS_IT.wide, "Kafka": FanOut(8, 300, False, 0.1)}}, "Kafka: eight"),
        ("C28", {"kept": {**AS_THE_ARTICLE_HAS_IT.kept, "Redis Streams": 0}}, "Redis Streams: nothing"),
        ("C29", {"memory": {**AS_THE_ARTICLE_HAS_IT.memory, "Kafka": 1e6}}, "least memory"),
        ("C30", {"spoken": {**AS_THE_ARTICLE_HAS_IT.spoken, "Kafka": list("abc")}}, "more protocols"),
    ],
)
def test_a_claim_does_not_hold_if_a_figure_contradicts_it(claim: str, figures: dict[str, object], because: str) -> None:
    found = replace(AS_THE_ARTICLE_HAS_IT, **figures).judge(claim)  # type: ignore[arg-type]  # a field by its name

    assert found is not None
    assert found.outcome is Outcome.DOES_NOT_HOLD
    assert found.because.startswith("this part failed here: ")
    assert because in found.because


def test_a_claim_about_a_missing_engine_is_not_judged() -> None:
    redis_alone = replace(AS_THE_ARTICLE_HAS_IT, kept={"Redis Pub/Sub": 0, "Redis Streams": 200})

    assert redis_alone.judge("C28") is None
    assert redis_alone.judge("C24") is not None
    answers = redis_alone.answers("C28")
    assert repr(answers).startswith("  C28 cannot be tried without Kafka, RabbitMQ: ")
    assert "cannot be tried without Kafka, RabbitMQ" in answers._repr_html_()


def test_a_verdict_is_shown_with_its_parts() -> None:
    answers = replace(AS_THE_ARTICLE_HAS_IT, rate={**AS_THE_ARTICLE_HAS_IT.rate, "Kafka": 9}).answers("C26")

    assert repr(answers).splitlines()[1:] == [
        "      ✘ Kafka is among the engines with the highest throughput",
        "      ✔ Redis or RabbitMQ has the lowest delay",
    ]
    assert "<br>✔ Redis or RabbitMQ has the lowest delay" in answers._repr_html_()


def test_throughputs_within_the_variation_of_runs_count_as_equal() -> None:
    close = replace(AS_THE_ARTICLE_HAS_IT, rate={**AS_THE_ARTICLE_HAS_IT.rate, "Kafka": 25_000})

    assert close.busiest() == "Redis Pub/Sub"
    assert close.has_top_throughput("Kafka")
    assert not close.has_top_throughput("RabbitMQ")


def test_the_claim_about_throughput_has_a_condition_if_redis_is_as_fast_as_kafka() -> None:
    alone = replace(AS_THE_ARTICLE_HAS_IT, rate={**AS_THE_ARTICLE_HAS_IT.rate, "Kafka": 900_000}).judge("C26")
    beside = AS_THE_ARTICLE_HAS_IT.judge("C26")

    assert alone is not None
    assert (alone.outcome, alone.because) == (Outcome.HOLDS, "")
    assert beside is not None
    assert (beside.outcome, beside.because.startswith("Redis Streams counts too")) == (Outcome.HOLDS_WHEN, True)


def test_grades_depend_on_the_ratio_to_the_best() -> None:
    grades = graded("delay", {"a": 1.0, "b": 2.0, "c": 10.0, "d": 50.0, "e": 500.0}, low=True)

    assert [score.grade for score in grades.values()] == [3, 3, 1, 1, 0]
    assert grades["a"].reason == "delay: among the best"
    assert [score.grade for score in graded("rate", {"a": 1.0, "b": 200.0}).values()] == [0, 3]


def test_counts_are_graded_against_the_possible_count() -> None:
    assert [score.grade for score in counted("{count} kept", {"a": 200, "b": 199, "c": 0}, 200).values()] == [3, 2, 0]


def test_every_engine_has_a_score_for_each_criterion() -> None:
    scores = AS_THE_ARTICLE_HAS_IT.scores()

    assert list(scores) == list(NAMES)
    assert {tuple(each) for each in scores.values()} == {tuple(CRITERIA)}
    assert all(0 <= score.grade <= BEST for each in scores.values() for score in each.values())
    assert scores["Redis Streams"]["nothing is lost"].grade == BEST


def test_one_value_in_a_hundred_is_above_the_99th_percentile() -> None:
    assert 98 < p99([float(number) for number in range(1, 101)]) <= 100
