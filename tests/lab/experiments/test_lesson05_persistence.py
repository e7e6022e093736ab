"""The table of persistence: measured where an engine is here, recorded elsewhere, the power cut always recorded."""

from __future__ import annotations

import pytest

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.lab.engines.engine import Engine
from chatlab.lab.experiments.lesson05 import Candidate
from chatlab.lab.experiments.lesson05_persistence import MESSAGES, table
from chatlab.lab.experiments.recorded import recorded


async def test_without_engines_the_whole_table_is_recorded() -> None:
    assert await table([Candidate("memory", MemoryBroker)]) == list(recorded().persistence)


@pytest.mark.usefixtures("each_redis")
async def test_redis_is_killed_here_and_the_others_are_recorded(redis_on_path: Engine) -> None:
    found = await table([Candidate("Redis Streams", MemoryBroker, redis_on_path)])
    before = {(row.engine, row.setting): row for row in recorded().persistence}
    redis = [row for row in found if row.engine == "Redis Streams"]

    assert [(row.confirmed, row.after_kill, row.recorded) for row in redis] == [
        (MESSAGES, 0, False),
        (MESSAGES, 0, False),
        (MESSAGES, MESSAGES, False),
        (MESSAGES, MESSAGES, False),
    ]
    assert all(row.recorded for row in found if row.engine != "Redis Streams")
    assert {key: row.after_power_cut for key, row in before.items()} == {
        (row.engine, row.setting): row.after_power_cut for row in found
    }
