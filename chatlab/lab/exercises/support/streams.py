"""A server around a learner's `async def answer(reader, writer)`, and how to say what went wrong with a client of it.

    async with serving(answer) as served:
        client = await within(connect(served.url), "a real client is let in", lambda: "...")

Used by the exercises of lessons 01 and 02, whose servers are written by hand. Left out: the checks themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from websockets.exceptions import ConnectionClosed, InvalidHandshake

from chatlab.lab.exercises.exercise import NotYet
from chatlab.lab.wire.wire import Wire
from chatlab.websocket import handshake

__all__ = ["SECONDS", "Answer", "Served", "http_lines", "said_by_server", "serving", "shown", "upgrade", "within"]

SECONDS = 2.0  # for what a right answer does at once
SHOWN = 48  # bytes

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
GONE = (TimeoutError, OSError, EOFError, ConnectionClosed, InvalidHandshake)
T = TypeVar("T")


@dataclass
class Served:
    """What a learner's server has been through: its connections, in order, and the errors that its code raised."""

    url: str = ""
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)


@contextlib.asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[Served]:
    """Serve with `answer`, which gets each connection; a `NotYet` tells what its code raised, if it did.

    The end of a connection (EOFError, OSError) is no mistake: an exercise that wants it caught looks at `errors`.
    """
    served = Served()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        except Exception as error:
            served.errors.append(error)
            writer.transport.abort()

    def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.writers.append(writer)
        served.tasks.append(asyncio.create_task(run(reader, writer), name="a learner's server"))

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    served.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    try:
        yield served
    except NotYet as broken:
        mistakes = [error for error in served.errors if not isinstance(error, EOFError | OSError)]
        raise broken from (mistakes[0] if mistakes else broken.__cause__)
    finally:
        server.close()
        for task, writer in zip(served.tasks, served.writers, strict=True):
            task.cancel()  # an answer that never ends must not keep the check from ending
            writer.transport.abort()
        await asyncio.gather(*served.tasks, return_exceptions=True)


async def within(awaited: Awaitable[T], rule: str, evidence: Callable[[], object], *, seconds: float = SECONDS) -> T:
    """Return what is awaited; if it does not come in time, or the connection ends first, `rule` is what is broken."""
    try:
        async with asyncio.timeout(seconds):
            return await awaited
    except GONE as error:
        words = "the connection ended" if isinstance(error, EOFError) else str(error)
        told = f"\nthe client: {words}" if words else ""
        raise NotYet(rule, f"{evidence()}{told}") from None


async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a client's handshake, as a server does that has nothing against it."""
    parsed = handshake.Request.parse(await reader.readuntil(b"\r\n\r\n"))
    assert parsed is not None  # it ends with the empty line
    response, _ = handshake.accept(parsed[0], compression=False)
    writer.write(response.serialize())


def said_by_server(wire: Wire) -> bytes:
    """Everything the server has sent over a wire."""
    return b"".join(record.data for record in wire.trace.records if record.sender == "server")


def shown(data: bytes) -> str:
    """Bytes in hexadecimal, the first of them if they are many."""
    if not data:
        return "nothing"
    more = f" … ({len(data)} bytes)" if len(data) > SHOWN else ""
    return data[:SHOWN].hex(" ") + more


def http_lines(data: bytes) -> str:
    """Bytes of HTTP, line by line, so that each `\\r\\n` can be seen."""
    return "\n".join(repr(line)[1:] for line in data.splitlines(keepends=True)) or "nothing"
