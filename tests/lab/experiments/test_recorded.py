"""The recorded run is complete and names no machine; and it can be measured again, on engines named by URL, too."""

from __future__ import annotations

import json
import platform
import re
import shutil
from pathlib import Path

import pytest

from chatlab.lab.claims import Outcome
from chatlab.lab.engines.engine import Engine
from chatlab.lab.experiments import lesson05, lesson05_engines, lesson05_findings, recorded
from chatlab.lab.experiments.lesson05_abilities import PAST, PATTERN, RICH, ROUTES, WORKERS
from chatlab.lab.experiments.lesson05_findings import KAFKA, NAMES, PUBSUB, RABBIT, STREAMS, Findings
from chatlab.lab.experiments.trials.faults import MESSAGES, SETTINGS
from chatlab.lab.runtime import Lab

THE_RUN = recorded.recorded()


def test_every_figure_of_every_engine_was_measured_at_least_three_times() -> None:
    assert set(THE_RUN.figures) == set(recorded.MEASURES)
    for measure, by_name in THE_RUN.figures.items():
        assert set(NAMES) <= set(by_name), measure
        assert all(len(repeats.values) >= 3 for repeats in by_name.values()), measure
        assert all(repeats.low > 0 for repeats in by_name.values()) or measure == "late reader", measure


def test_the_run_names_its_machine_and_date_but_no_host_and_no_path() -> None:
    text = recorded.FILE.read_text(encoding="utf-8")

    assert re.fullmatch(r".+, \d+ cores, \d+ GiB, .+", THE_RUN.machine)
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", THE_RUN.date)
    assert {"redis", "rabbitmq", "kafka", "Python"} <= set(THE_RUN.versions)
    assert not re.search(r"/(home|root|tmp|Users|work|var|usr)\b", text)
    assert not re.search(r"\b\d+\.\d+\.\d+\.\d+\b", text)


def test_the_machine_is_described_without_its_name() -> None:
    assert not platform.node() or platform.node() not in recorded.machine().split(", ")
    assert re.fullmatch(r".+, \d+ cores, \d+ GiB, .+", recorded.machine())


def test_the_table_of_persistence_has_both_faults_for_every_setting() -> None:
    rows = {(row.engine, row.setting): row for row in THE_RUN.persistence}
    assert len(rows) == len(SETTINGS)
    assert all(row.recorded and row.after_kill is not None and row.after_power_cut is not None for row in rows.values())

    left = {each.key: rows[each.engine, each.title][3:5] for each in SETTINGS}
    assert left["no-file"] == left["rdb"] == left["classic-transient"] == (0, 0)
    assert left["always"] == left["classic"] == left["quorum"] == (MESSAGES, MESSAGES)
    assert left["acks=all"] == left["stream"] == (MESSAGES, 0)
    assert left["acks=all, flush.messages=1"] == (MESSAGES, MESSAGES)
    assert left["everysec"][0] == MESSAGES
    assert 0 < (left["everysec"][1] or 0) < MESSAGES


def test_the_abilities_and_protocols_have_the_names_that_they_have_in_a_cell() -> None:
    assert all(set(ways) == {*ROUTES, *RICH} for ways in THE_RUN.ways.values())
    assert THE_RUN.ways[RABBIT][PAST]
    assert THE_RUN.ways[KAFKA][WORKERS]
    assert not THE_RUN.ways[STREAMS][PATTERN]
    assert len(THE_RUN.protocols[RABBIT]) >= 3
    assert set(THE_RUN.orders) >= set(NAMES)


def test_what_is_written_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = json.loads(recorded.FILE.read_text(encoding="utf-8"))
    monkeypatch.setattr(recorded, "FILE", tmp_path / "recorded.json")
    recorded.write({**content, "machine": "another"})
    try:
        assert recorded.recorded().machine == "another"
        assert recorded.recorded().persistence == THE_RUN.persistence
    finally:
        recorded.recorded.cache_clear()


def test_a_setting_that_was_not_recorded_has_no_figures() -> None:
    assert {row[2:] for row in recorded.rows({}, {})} == {(0, None, None, True)}


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "FLOOD_SECONDS", 0.1)
    monkeypatch.setattr(lesson05_engines, "REDIS_MESSAGES", 20_000)
    monkeypatch.setattr(lesson05_engines, "RABBITMQ_WINDOWS", (0, 1))


@pytest.mark.usefixtures("short")
async def test_a_round_measures_everything_on_an_engine_that_was_started_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lesson05, "KINDS", ("redis",))
    monkeypatch.setattr(lesson05, "BROKERS", {STREAMS: lesson05.BROKERS[STREAMS]})
    lab, values = Lab(), recorded.Values()
    try:
        await recorded.one_round(await lesson05.line_up(lab), values)
    finally:
        await lab.stop_all()

    missing = set() if shutil.which("redis-benchmark") else {"rate engine"}
    assert {measure for measure, by_name in values.items() if STREAMS in by_name} == set(recorded.MEASURES) - missing
    assert all(value > 0 for by_name in values.values() for found in by_name.values() for value in found)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("short")
async def test_engines_named_by_url_are_measured_and_judged_like_those_that_are_started_here(
    redis_on_path: Engine, rabbitmq_engine: Engine, kafka_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, engine in (("REDIS_URL", redis_on_path), ("AMQP_URL", rabbitmq_engine), ("KAFKA_URL", kafka_engine)):
        monkeypatch.setenv(variable, engine.url)
    lab, values, found = Lab(), recorded.Values(), Findings()
    monkeypatch.setattr(lesson05_findings, "found", found)
    candidates = await lesson05.line_up(lab)
    assert {each.name: each.ours for each in candidates} == dict.fromkeys(["memory", *NAMES], False)

    await recorded.one_round(candidates, values)
    for measure, by_name in values.items():
        found.add(measure, by_name)

    here = {"delay median ms", "delay p99 ms", "rate client", "late reader"}
    assert all(set(NAMES) <= set(found.figures[measure]) for measure in here)
    assert "MiB" not in found.figures, "the memory of a foreign process cannot be seen"
    assert found.source(["delay median ms"]).figures is found.figures
    assert not lesson05_findings.keeps_nothing(PUBSUB).recorded
    assert lesson05_findings.c26().outcome is not Outcome.NOT_TESTED
    heavy = lesson05_findings.c25()
    assert heavy.outcome is not Outcome.NOT_TESTED
    assert heavy.recorded == THE_RUN.source, "what only the owner of an engine can measure is recorded, and says so"
