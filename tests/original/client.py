"""A client that sends the octets it is told to, and keeps what comes back in order.

Silence is not an event: `quiet` waits for a clock. Ids that differ in each run are replaced with `ID`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.original.cases import CONNECT, SUBSCRIBE, send

QUIET = 0.8  # seconds without a frame, after which none is expected
SOON = 0.15  # the same after a frame that is never answered
ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(-\d+)?")


class Client:
    """One connection. `async with Client(url) as client` has it open, and nothing sent on it."""

    def __init__(self, url: str, **options: Any) -> None:
        self.texts: list[str] = []
        self.closed: int | None = None  # the code it was closed with
        self._url, self._options = url, options
        self._arrived = asyncio.Event()
        self.connection: ClientConnection

    async def __aenter__(self) -> Self:
        self.connection = await connect(
            self._url, compression=None, proxy=None, max_size=None, max_queue=None, **self._options
        )
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.cancel()
        self.connection.transport.abort()

    async def _read(self) -> None:
        try:
            while True:
                text = await self.connection.recv(decode=True)
                self.texts.append(ID.sub("ID", text))
                self._arrived.set()
        except ConnectionClosed:
            self.closed = self.connection.close_code
            self._arrived.set()

    async def send(self, text: str) -> None:
        """Send one text, unless the connection is closed."""
        with contextlib.suppress(ConnectionClosed):
            await self.connection.send(text)

    async def subscribe(self) -> Self:
        """Connect and subscribe, as STOMP; there is no answer that says when that has begun."""
        await self.send(CONNECT)
        await self.until(1)
        await self.send(SUBSCRIBE)
        await self.quiet(SOON)
        self.texts.clear()
        return self

    async def say(self, content: str) -> None:
        """Send a message to the chat."""
        await self.send(send(json.dumps({"content": content}, ensure_ascii=False)))

    async def until(self, count: int, seconds: float = 20) -> list[str]:
        """Wait for so many texts in all, or the close; return them all."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while len(self.texts) < count and self.closed is None:
                    self._arrived.clear()
                    await self._arrived.wait()
        return self.texts

    async def quiet(self, seconds: float = QUIET) -> list[str]:
        """Wait until nothing has come for so long; return all that has come."""
        with contextlib.suppress(TimeoutError):
            while self.closed is None:
                self._arrived.clear()
                async with asyncio.timeout(seconds):
                    await self._arrived.wait()
        return self.texts

    async def until_closed(self, seconds: float = 20) -> int | None:
        """Wait for the close; return its code, None if it has not come."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.connection.wait_closed()
        return self.connection.close_code

    def contents(self) -> list[str]:
        """Return what the MESSAGEs say, sorted: their order is not kept. A missing content is "null"."""
        bodies = [text.partition("\n\n")[2].rstrip("\0") for text in self.texts if text.startswith("MESSAGE")]
        return sorted(str(json.loads(body)["content"] or "null") for body in bodies)
