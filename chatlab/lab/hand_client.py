"""A client on chatlab's `Connection` and asyncio's streams; the caller controls the bytes it sends.

Its key and its masks are those of the RFC's examples, so that it sends the same bytes in every run. That is for lessons
only: keys and masks that can be guessed protect nobody (RFC 6455, 10.3). `Connection` draws them at random by default.

Left out: TLS, compression, and keep-alive pings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self, TypeVar
from urllib.parse import urlsplit

from chatlab.websocket.connection import Closed, Connection, Event, Opened, Refused
from chatlab.websocket.frames import CloseCode, Side
from chatlab.websocket.handshake import make_request

__all__ = ["KEY", "MASK", "HandClient"]

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455, 1.3
MASK = bytes.fromhex("37 fa 21 3d")  # RFC 6455, 5.7
READ_SIZE = 64 * 1024
CLOSE_SECONDS = 2.0

E = TypeVar("E", bound=Event)


class HandClient:
    """One open connection: `events` lists what was received, and `connection` is the state machine behind it."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: Connection | None = None
    ) -> None:
        self.connection = connection or Connection(Side.CLIENT, mask=lambda: MASK)
        self.events: list[Event] = []
        self._consumed = 0  # events that `next` has returned or skipped
        self._arrived = asyncio.Event()
        self._reader = reader
        self._writer = writer
        self._reading = asyncio.create_task(self._read(), name="reader-by-hand")

    @classmethod
    async def connect(cls, url: str, *, origin: str | None = None) -> Self:
        """Connect and upgrade. Raises `HandshakeError` if the server refuses, OSError if nothing listens there."""
        parts = urlsplit(url)
        client = cls(*await asyncio.open_connection(parts.hostname, parts.port))
        client.connection.request(make_request(url, key=KEY, origin=origin, compression=False))
        client._flush()
        try:
            opened = await client._until(lambda event: isinstance(event, Opened | Refused))
        except BaseException:
            await client.aclose()
            raise
        if isinstance(opened, Refused):
            await client.aclose()
            raise opened.error
        return client

    async def send(self, data: str | bytes, *, fin: bool = True) -> None:
        """Send a message, or with `fin=False` a fragment of one; wait while the socket's buffer is full."""
        self.connection.send(data, fin=fin)
        await self._flush_and_wait()

    async def ping(self, payload: bytes = b"") -> None:
        """Send a Ping."""
        self.connection.ping(payload)
        await self._flush_and_wait()

    async def write(self, data: bytes) -> None:
        """Send these bytes as they are, past the state machine."""
        self._writer.write(data)
        await self._writer.drain()

    async def close(self, code: int | None = CloseCode.NORMAL_CLOSURE, reason: str = "") -> Closed:
        """Start the closing handshake, without a code if None; return how it ended. Raises `TimeoutError`."""
        self.connection.close(code, reason)
        self._flush()
        return await self.next(Closed)

    async def next(self, kind: type[E], *, timeout: float = 5.0) -> E:
        """Return the next event of that kind, skipping others. Raises `TimeoutError`."""
        event = await self._until(lambda event: isinstance(event, kind), timeout=timeout)
        assert isinstance(event, kind)
        return event

    async def aclose(self) -> None:
        """Send a Close if that is still allowed, then close TCP without waiting for an answer."""
        if self.connection.state.name == "OPEN":
            self.connection.close(CloseCode.GOING_AWAY)
            self._flush()
        self._writer.close()
        await asyncio.wait([self._reading], timeout=CLOSE_SECONDS)
        self._reading.cancel()

    async def _until(self, wanted: Callable[[Event], bool], *, timeout: float = 5.0) -> Event:
        async with asyncio.timeout(timeout):
            while True:
                for event in self.events[self._consumed :]:
                    self._consumed += 1
                    if wanted(event):
                        return event
                self._arrived.clear()
                await self._arrived.wait()

    async def _read(self) -> None:
        """Feed what is received to the connection until TCP ends, and send its answers at once."""
        try:
            while not self.connection.must_close_tcp and (data := await self._reader.read(READ_SIZE)):
                for event in self.connection.receive_data(data):
                    self._add(event)
                self._flush()
        except OSError:
            pass  # a reset ends the connection, as an end of file does
        finally:
            for event in self.connection.receive_eof():
                self._add(event)
            self._writer.close()

    def _add(self, event: Event) -> None:
        self.events.append(event)
        self._arrived.set()

    def _flush(self) -> None:
        if data := self.connection.data_to_send():
            self._writer.write(data)

    async def _flush_and_wait(self) -> None:
        self._flush()
        await self._writer.drain()
