"""Retries: which errors are retried, the backoff, and when the error is raised."""

from __future__ import annotations

import asyncio

import pytest

from chatlab.errors import BrokerClosed, BrokerError, BrokerUnavailable
from chatlab.retry import Backoff, Retry

SHORT = Backoff(first=0.001, longest=0.002)


@pytest.mark.parametrize(
    ("failures", "most"), [(1, 0.1), (2, 0.2), (3, 0.4), (6, 3.2), (7, 5.0), (8, 5.0), (5000, 5.0)]
)
def test_the_wait_doubles_up_to_the_longest_and_is_never_less_than_half(failures: int, most: float) -> None:
    waits = [Backoff().delay(failures) for _ in range(200)]
    assert all(most / 2 <= wait <= most for wait in waits)
    assert max(waits) - min(waits) > most / 4, "otherwise every client would reconnect at the same moment"


async def test_the_body_is_repeated_until_it_raises_no_error() -> None:
    reported: list[tuple[str, float]] = []
    attempts = 0
    async for attempt in Retry(
        on=OSError, backoff=SHORT, on_failure=lambda error, wait: reported.append((str(error), wait))
    ):
        with attempt:
            attempts += 1
            if attempts < 4:
                raise OSError(f"refused {attempts}")
    assert attempts == 4
    assert [text for text, _ in reported] == ["refused 1", "refused 2", "refused 3"]
    assert all(0 < wait <= 0.002 for _, wait in reported)


@pytest.mark.parametrize("error", [ValueError("not named"), BrokerClosed("closed")])
async def test_an_error_that_is_not_retried_is_raised_at_once(error: Exception) -> None:
    attempts = 0
    with pytest.raises(type(error)):
        async for attempt in Retry(on=BrokerError, backoff=SHORT):
            with attempt:
                attempts += 1
                raise error
    assert attempts == 1


async def test_reset_starts_the_count_over() -> None:
    counts: list[int] = []
    retry = Retry(on=BrokerUnavailable, backoff=SHORT)
    async for attempt in retry:
        with attempt:
            counts.append(retry.failures)
            if len(counts) == 4:
                retry.reset()
            if len(counts) < 6:
                raise BrokerUnavailable("away")
    assert counts == [0, 1, 2, 3, 1, 2]


async def test_the_error_is_raised_after_the_time_limit() -> None:
    loop = asyncio.get_running_loop()
    started, attempts = loop.time(), 0
    with pytest.raises(OSError, match="refused"):
        async for attempt in Retry(on=OSError, backoff=Backoff(0.01, 0.02), within=0.1):
            with attempt:
                attempts += 1
                raise OSError("refused")
    assert attempts > 3 and 0.1 <= loop.time() - started < 5


async def test_reset_also_restarts_the_time_limit() -> None:
    retry, attempts = Retry(on=OSError, backoff=Backoff(0.02, 0.03), within=0.05), 0
    async for attempt in retry:
        with attempt:
            attempts += 1
            retry.reset()
            if attempts < 6:  # for longer than 0.05 s in all
                raise OSError("refused")
    assert attempts == 6


async def test_a_wait_can_be_cancelled() -> None:
    async def work() -> None:
        async for attempt in Retry(on=OSError, backoff=Backoff(3600, 3600)):
            with attempt:
                raise OSError("refused")

    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
