"""What the checks of lesson 06 need: a real chat with everything in its own memory, and a wire that overhears it.

async with chat_in_memory() as server
async with overheard(server.url) as wire        every byte takes a while each way, so who does not wait is seen
frames_of(wire)                                 what was said, in order: (who, frame)
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
    """An instance of the chat that waits for nobody when it is closed."""
    async with MemoryBroker() as broker, await chat.start(broker, drain_seconds=0.1) as server:
        yield server


@contextlib.asynccontextmanager
async def overheard(url: str) -> AsyncIterator[Wire]:
    """A wire before the server at `url` on which every answer takes at least twice `SECONDS_EACH_WAY`."""
    async with Wire(url) as wire:
        wire.delay(SECONDS_EACH_WAY)
        yield wire


def frames_of(wire: Wire) -> list[tuple[str, Frame]]:
    """The STOMP frames that the two ends have sent, as (sender, frame), in the order the wire took them in.

    A client's WebSocket close frame stands among them as the command "(close)".
    """
    found = []
    for event in wire.trace.events:
        if event.layer == "stomp" and isinstance(event.value, Frame):
            found.append((str(event.sender), event.value))
        elif event.layer == "websocket" and event.kind == "close" and event.sender == "client":
            found.append(("client", Frame("(close)")))
    return found
