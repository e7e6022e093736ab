"""Support for the checks of lesson 06: a real chat with a broker in memory, and a wire that records its frames.

async with chat_in_memory() as server
async with late_chat(["hi"]) as url          sends others' texts first, and the client's own late
async with overheard(server.url) as wire     delays every byte both ways, to reveal a client that does not wait
frames_of(wire)                              the frames sent, in order: (sender, frame)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.endpoint import server as chat
from chatlab.lab.wire.wire import Wire
from chatlab.stomp.frames import Frame, Parser

__all__ = ["chat_in_memory", "frames_of", "late_chat", "overheard"]

SECONDS_EACH_WAY = 0.02
LATE = 0.2  # seconds; once a client has been silent for that long, its own messages are delivered


@contextlib.asynccontextmanager
async def chat_in_memory() -> AsyncIterator[chat.ChatServer]:
    """Start an instance of the chat that does not wait for its clients when it closes."""
    async with MemoryBroker() as broker, await chat.start(broker, drain_seconds=0.1) as server:
        yield server


@contextlib.asynccontextmanager
async def late_chat(others: Sequence[str]) -> AsyncIterator[str]:
    """Serve STOMP at its slowest: RECEIPTs at once, then the texts of `others`, the client's own when it is silent.

    "A RECEIPT frame is an acknowledgment that the corresponding client frame has been processed by the server": STOMP
    does not say that a MESSAGE comes before it, nor that nobody else speaks.
    """

    async def handle(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            await _Late(connection, others).run()

    async with serve(handle, "127.0.0.1", 0, compression=None) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"ws://127.0.0.1:{port}/"


class _Late:
    """One client's session with such a server."""

    def __init__(self, connection: ServerConnection, others: Sequence[str]) -> None:
        self._connection = connection
        self._others = list(others)
        self._own: list[str] = []
        self._subscription = Frame("SUBSCRIBE")

    async def run(self) -> None:
        """Answer until the client disconnects."""
        parser = Parser()
        while True:
            try:
                async with asyncio.timeout(LATE):
                    message = await self._connection.recv(decode=False)
            except TimeoutError:
                await self._deliver(self._own)
                continue
            for frame in parser.feed(message):
                if isinstance(frame, Frame):
                    await self._answer(frame)
            parser.version = "1.2"

    async def _answer(self, frame: Frame) -> None:
        if frame.command == "CONNECT":
            return await self._send(Frame("CONNECTED", (("version", "1.2"),)))
        if receipt := frame.get("receipt"):
            await self._send(Frame("RECEIPT", (("receipt-id", receipt),)))
        if frame.command == "SUBSCRIBE":
            self._subscription = frame
        elif frame.command == "SEND":
            self._own.append(frame.body.decode())
            await self._deliver(self._others)
        return None

    async def _deliver(self, texts: list[str]) -> None:
        id, destination = (self._subscription.get(name) or "" for name in ("id", "destination"))
        while texts:
            text = texts.pop(0)
            headers = ("subscription", id), ("message-id", f"{id}-{text}"), ("destination", destination)
            await self._send(Frame("MESSAGE", headers, text.encode()))

    async def _send(self, frame: Frame) -> None:
        await self._connection.send(frame.serialize("1.2").decode())


@contextlib.asynccontextmanager
async def overheard(url: str) -> AsyncIterator[Wire]:
    """Put a wire in front of the server at `url`; every answer takes at least twice `SECONDS_EACH_WAY`."""
    async with Wire(url) as wire:
        wire.delay(SECONDS_EACH_WAY)
        yield wire


def frames_of(wire: Wire) -> list[tuple[str, Frame]]:
    """Return the STOMP frames of both ends as (sender, frame), in the order in which the wire received them.

    A client's WebSocket close frame is included as a frame with the command "(close)".
    """
    found = []
    for event in wire.trace.events:
        if event.layer == "stomp" and isinstance(event.value, Frame):
            found.append((str(event.sender), event.value))
        elif event.layer == "websocket" and event.kind == "close" and event.sender == "client":
            found.append(("client", Frame("(close)")))
    return found
