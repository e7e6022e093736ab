"""Grades follow the figures by one yardstick, and every engine is the only winner for somebody."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product

import pytest

from chatlab.lab.experiments import lesson05_findings
from chatlab.lab.experiments.recorded import recorded
from chatlab.lab.widgets.chooser import Chooser
from chatlab.lab.widgets.engine_choice import CRITERIA, DOCUMENTED, HEADINGS, PROFILES, Facts, choose, grade, scores

PUBSUB, STREAMS, RABBIT, KAFKA = "Redis Pub/Sub", "Redis Streams", "RabbitMQ", "Kafka"
# Figures of a laptop with two cores, rounded.
FACTS = {
    PUBSUB: Facts(600_000, 0.34, 2.2, 5.0, 13, 0.36, 0, 0, 0, patterns=2, protocols=1),
    STREAMS: Facts(280_000, 0.36, 7.3, 16.1, 14, 0.37, 1, 1, 1, patterns=3, protocols=1),
    RABBIT: Facts(15_000, 1.53, 290, 950, 160, 9.8, 1, 1, 1, patterns=8, protocols=4),
    KAFKA: Facts(60_000, 5.45, 110, 200, 170, 7.5, 1, 1, 1, patterns=4, protocols=1),
}
FACTS = {name: replace(each, machines=DOCUMENTED[name]) for name, each in FACTS.items()}
FOR = dict(zip([STREAMS, PUBSUB, RABBIT, KAFKA], PROFILES, strict=True))
GRID = [dict(zip(CRITERIA, weights, strict=True)) for weights in product((0, 2, 5), repeat=len(CRITERIA))]


def shares(chooser: Chooser) -> Counter[str]:
    """Return of how many settings of the grid each engine is the only winner."""
    sole = (chooser.winners(weights) for weights in GRID)
    return Counter(names[0] for names in sole if len(names) == 1)


def grades(facts: dict[str, Facts]) -> dict[str, list[int]]:
    return {name: [score.grade for score in each.values()] for name, each in scores(facts).items()}


@pytest.mark.parametrize("engine", FACTS)
def test_every_engine_is_the_only_winner_for_its_profile(engine: str) -> None:
    assert choose(FACTS).winners(FOR[engine].weights) == [engine]


@pytest.mark.skipif("rate engine" not in recorded().figures, reason="no complete run is recorded")
def test_every_engine_is_the_only_winner_for_its_profile_in_the_recorded_run_and_of_some_settings() -> None:
    facts = {name: lesson05_findings.facts(name, recorded=True) for name in FOR}
    chooser = choose(facts)
    assert {name: chooser.winners(each.weights) for name, each in FOR.items()} == {name: [name] for name in FOR}
    assert min(shares(chooser)[name] for name in FOR) > len(GRID) / 50


@pytest.mark.parametrize("engine", FACTS)
@pytest.mark.parametrize("times", [0.8, 1.25])
def test_a_figure_that_is_a_quarter_higher_or_lower_changes_no_profiles_winner(engine: str, times: float) -> None:
    for figure in ("rate", "latency", "one_reader", "eight_readers", "mib", "start"):
        changed = replace(FACTS[engine], **{figure: times * getattr(FACTS[engine], figure)})
        chooser = choose({**FACTS, engine: changed})
        assert {name: chooser.winners(each.weights) for name, each in FOR.items()} == {name: [name] for name in FOR}


def test_every_engine_is_the_only_winner_of_a_fair_share_of_all_settings() -> None:
    won = shares(choose(FACTS))
    assert set(won) == set(FACTS)
    assert min(won.values()) > len(GRID) / 20


def test_who_is_listed_first_wins_no_more_and_no_names_matter() -> None:
    """With the figures of two engines exchanged, each wins what the other one won."""
    won = shares(choose(FACTS))
    for order in ([KAFKA, RABBIT, STREAMS, PUBSUB], [RABBIT, PUBSUB, KAFKA, STREAMS]):
        assert shares(choose({name: FACTS[name] for name in order})) == won
        exchanged = Chooser(scores(dict(zip(FACTS, (FACTS[name] for name in order), strict=True))))
        assert shares(exchanged) == Counter({name: won[of] for name, of in zip(FACTS, order, strict=True)})


def test_engines_with_equal_figures_tie_everywhere() -> None:
    chooser = Chooser(scores(dict.fromkeys(FACTS, FACTS[KAFKA])))
    assert all(chooser.winners(weights) == list(FACTS) for weights in GRID if any(weights.values()))


def test_the_yardstick_is_times_worse_than_the_best() -> None:
    assert [grade(times) for times in (1, 1.9, 2, 3.9, 4, 15.9, 16, float("inf"))] == [3, 3, 2, 2, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("criterion", "worse"),
    [
        ("throughput", {"rate": 20_000}),
        ("latency", {"latency": 99}),
        ("more machines", {"eight_readers": 30_000}),
        ("more machines", {"machines": ()}),
        ("persistence", {"late": 0, "after_kill": 0}),
        ("persistence", {"after_kill": 0, "after_power_cut": 0}),
        ("simple to run", {"mib": 900}),
        ("simple to run", {"start": 60}),
        ("simple to run", {"one_reader": 300, "eight_readers": 660}),
        ("messaging patterns", {"patterns": 0}),
        ("protocols", {"protocols": 0}),
    ],
)
def test_a_grade_follows_its_figure_and_no_other_does(criterion: str, worse: dict[str, float]) -> None:
    facts = {**FACTS, STREAMS: replace(FACTS[STREAMS], machines=FACTS[KAFKA].machines)}
    before = scores(facts)[STREAMS]
    after = scores({**facts, STREAMS: replace(facts[STREAMS], **worse)})[STREAMS]  # type: ignore[arg-type]  # by name
    assert [key for key in CRITERIA if after[key].grade < before[key].grade] == [criterion]
    assert after[criterion].reason != before[criterion].reason


def test_what_was_not_tried_counts_neither_for_an_engine_nor_against_it() -> None:
    untried = {name: replace(each, after_power_cut=None) for name, each in FACTS.items()}
    assert grades(untried) == grades(FACTS)
    assert "power cut" not in scores(untried)[KAFKA]["persistence"].reason


def test_what_is_only_documented_is_said_to_be_so() -> None:
    found = choose(FACTS).scores
    assert "(documented, not tried): copied before it is confirmed, split, " in found[KAFKA]["more machines"].reason
    assert "(documented, not tried): none of this" in found[STREAMS]["more machines"].reason


def test_the_criteria_are_under_the_articles_five_headings() -> None:
    assert len(HEADINGS) == 5
    assert set(HEADINGS) <= set(CRITERIA) == set(choose(FACTS).sliders)


def test_a_record_names_its_source_and_the_figures_of_every_engine() -> None:
    record = choose(FACTS, source="recorded on a laptop, 2026-11-27").record()
    assert "The figures (recorded on a laptop, 2026-11-27): Redis Pub/Sub: 0.34 ms median latency, " in record
    for fact in ("a late reader gets 0%", "14 MiB, 0.4 s to start", "Kafka: 5.45 ms"):
        assert fact in record
