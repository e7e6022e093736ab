"""The two sets of programs that are compared: the article's own, in Spring, and our rebuild of them.

    async with Spring(redis_url) as program:       or Rebuilt(redis_url)
        chat = await program.start("one")          "one", "two": the chat's builds; "raw": the room
        chat.url                                   for a WebSocket

Left out: the profile `fixed`, which has no counterpart in the rebuild.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from chatlab.lab.experiments import original
from chatlab.lab.experiments.original import Program


class Programs:
    """Starts programs on one Redis, and ends them all."""

    def __init__(self, redis_url: str) -> None:
        self.redis_url = redis_url
        self.version = ""
        self._running = AsyncExitStack()

    async def start(self, profile: str, database: int = 0) -> Program:
        """Start one program; its data is in that database of Redis."""
        program = await self._start(profile, f"{self.redis_url.rstrip('/')}/{database}")
        self._running.push_async_callback(program.aclose)
        return program

    async def start_all(self, *wanted: tuple[str, int]) -> list[Program]:
        """Start several at once."""
        return await asyncio.gather(*(self.start(profile, database) for profile, database in wanted))

    async def _start(self, profile: str, redis_url: str) -> Program:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._running.aclose()


class Spring(Programs):
    """The article's own, with Java. Raises EngineMissing where they are not built."""

    async def _start(self, profile: str, redis_url: str) -> Program:
        program = await original.start_own(profile, redis_url)
        self.version = program.version
        return program


class Rebuilt(Programs):
    """Ours, in this process."""

    async def _start(self, profile: str, redis_url: str) -> Program:
        return await original.start_rebuilt(profile, redis_url)
