"""The two sets of programs that are compared: the article's own, in Spring, and our rebuild of them.

    async with Spring(redis_url) as program:       or Rebuilt(redis_url)
        chat = await program.start("one")          "one", "two": the chat's builds; "raw": the room
        chat.url                                   for a WebSocket

Left out: the profile `fixed`, which has no counterpart in the rebuild.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from chatlab import room
from chatlab.chat import article
from chatlab.chat.article import Build
from chatlab.lab.engines import engine as engines

BUILDS: dict[str, Build] = {"one": "first", "two": "second"}


@dataclass
class Program:
    """A running program: its URL, and how to end it."""

    url: str
    stop: Callable[[], Coroutine[Any, Any, None]]


class Programs:
    """Starts programs on one Redis, and ends them all."""

    def __init__(self, redis_url: str) -> None:
        self.redis_url = redis_url
        self.version = ""
        self._running = AsyncExitStack()

    async def start(self, profile: str, database: int = 0) -> Program:
        """Start one program; its data is in that database of Redis."""
        program = await self._start(profile, f"{self.redis_url.rstrip('/')}/{database}")
        self._running.push_async_callback(program.stop)
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
        engine = await engines.start("spring", options={"profile": profile, "redis": redis_url})
        self.version = engine.version
        path = "/room" if profile == "raw" else "/ws/websocket"
        return Program(engine.url.replace("http://", "ws://") + path, engine.stop)


class Rebuilt(Programs):
    """Ours, in this process."""

    async def _start(self, profile: str, redis_url: str) -> Program:
        if profile == "raw":
            server = await room.start_as_in_the_article()
            return Program(server.url, server.aclose)
        chat = await article.start(redis_url, build=BUILDS[profile])
        return Program(chat.url, chat.aclose)
