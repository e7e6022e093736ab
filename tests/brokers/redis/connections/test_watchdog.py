"""The watchdog ends a wait that is over, and nothing else."""

from __future__ import annotations

import asyncio
import time

import pytest

from chatlab.brokers.redis.connections.watchdog import Watchdog

pytestmark = pytest.mark.every_loop

FOREVER = 30.0


async def test_a_wait_within_its_timeout_is_not_interrupted_after_many_others() -> None:
    watchdog = Watchdog()
    for _ in range(1000):
        with watchdog(0.2):
            await asyncio.sleep(0)
    with watchdog(FOREVER):
        await asyncio.sleep(0.3)  # the timer of an earlier wait runs out meanwhile
    watchdog.stop()


async def test_a_wait_beyond_its_limit_ends_with_timeout_error_and_the_task_goes_on() -> None:
    watchdog = Watchdog()
    with watchdog(FOREVER):  # its timer stays: both waits below are shorter
        await asyncio.sleep(0)
    for seconds in (0.1, 0.05):
        started = time.monotonic()
        with pytest.raises(TimeoutError), watchdog(seconds):
            await asyncio.sleep(FOREVER)
        assert seconds <= time.monotonic() - started + 0.01 < FOREVER / 2
    await asyncio.sleep(0)  # no cancellation is left over
    watchdog.stop()


async def test_a_cancelled_task_ends_even_if_its_timeout_expires_at_the_same_moment() -> None:
    watchdog = Watchdog()

    async def wait() -> None:
        with watchdog(0.05):
            await asyncio.sleep(FOREVER)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_at(watchdog._deadline, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    watchdog.stop()


async def test_no_timeout_is_raised_between_two_waits() -> None:
    watchdog = Watchdog()
    with watchdog(0.05):
        await asyncio.sleep(0)
    await asyncio.sleep(0.15)
    with watchdog(FOREVER):
        await asyncio.sleep(0)
    watchdog.stop()


async def test_an_error_during_the_wait_is_raised_unchanged() -> None:
    watchdog = Watchdog()
    with pytest.raises(KeyError), watchdog(FOREVER):
        raise KeyError("its own")
    watchdog.stop()
