"""Support for the checks of lesson 06: a real chat with a broker in memory, and a wire that records its frames.

async with chat_in_memory() as server
async with overheard(server.url) as wire     delays every byte both ways, to reveal a client that does not wait
frames_of(wire)                              the frames sent, in order: (sender, frame)
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.endpoint import server as chat
from chatlab.lab.wire.wire import Wire
from chatlab.stomp.frames import Frame

__all__ = ["chat_in_memory", "frames_of", "overheard"]

SECONDS_EACH_WAY = 0.02


@contextlib.asynccontextmanager
async def chat_in_memory() -> AsyncIterator[chat.ChatServer]:
    """Start an instance of the chat that does not wait for its clients when it closes."""
    async with MemoryBroker() as broker, await chat.start(broker, drain_seconds=0.1) as server:
        yield server


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
