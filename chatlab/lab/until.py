"""Wait for a condition on a server in this kernel, without guessing how long it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["until"]


async def until(condition: Callable[[], object], *, timeout: float = 5, every: float = 0.01) -> None:
    """Check every `every` seconds until `condition()` is true. Raises `TimeoutError` after `timeout` seconds."""
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110  # any condition is allowed, so no event announces that it holds
            await asyncio.sleep(every)
