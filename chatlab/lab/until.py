"""Wait for a condition of a server that runs in this kernel, without guessing how long it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["until"]


async def until(condition: Callable[[], object], *, timeout: float = 5, every: float = 0.01) -> None:
    """Look `every` so many seconds whether `condition()` is true. Raises `TimeoutError` after `timeout` seconds."""
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110  # the condition is anybody's; nothing announces that it has come true
            await asyncio.sleep(every)
