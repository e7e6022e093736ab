"""The ledger: real processes killed, stalled and restarted under load; nothing lost, nothing repeated, one order."""

from __future__ import annotations

import asyncio
import os

import pytest

from chatlab.lab.engines.engine import Engine
from tests.support.ledger import ledger

MESSAGES = int(os.environ.get("CHATLAB_LEDGER", "20000"))
FAULTS = ("instance killed", "redis killed", "instance stalled", "redis stalled", "clients dropped")


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("seed", "messages"),
    [(1, MESSAGES // 4), *(pytest.param(seed, MESSAGES, marks=pytest.mark.long) for seed in (1, 2, 3))],
)
async def test_nothing_is_lost_or_repeated_whichever_process_is_killed(
    fresh_valkey: Engine, seed: int, messages: int
) -> None:
    async with ledger(fresh_valkey, options=("--durability", "fsync")) as book:
        await book.run(messages, seed, FAULTS)
        await book.check()
        assert book.faults.total() >= 3, book.faults


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_a_rolling_restart_under_load_loses_nothing(fresh_redis: Engine) -> None:
    async with ledger(fresh_redis, instances=2, clients=12) as book:
        rolling = asyncio.create_task(book.cluster.rolling_restart())
        await book.run(MESSAGES // 4, 4, ("clients dropped",))
        await rolling
        await book.check()
