"""Waiting for a condition that no event announces."""

import asyncio

import pytest

from chatlab.lab.until import until


async def test_until_returns_once_the_condition_holds() -> None:
    seen: list[int] = []
    asyncio.get_running_loop().call_later(0.03, seen.append, 1)
    await until(lambda: seen)
    assert seen


async def test_until_times_out() -> None:
    with pytest.raises(TimeoutError):
        await until(lambda: False, timeout=0.05)
