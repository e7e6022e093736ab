"""A server around a learner's `async def answer(reader, writer)`, and the evidence of what its client met.

    async with serving(answer) as served:
        client = await within(connect(served.url), "a real client can connect", lambda: "...")

For the exercises of lessons 01 and 02, in which learners write servers by hand. Left out: the checks themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from websockets.exceptions import ConnectionClosed, InvalidHandshake

from chatlab.lab.exercises.exercise import NotYet
from chatlab.lab.wire.trace import Event
from chatlab.lab.wire.wire import Wire
from chatlab.locale import _, ngettext
from chatlab.websocket import handshake

__all__ = [
    "SECONDS",
    "Answer",
    "Served",
    "http_lines",
    "seen_on_wire",
    "sent_by_server",
    "serving",
    "shown",
    "upgrade",
    "within",
]

SECONDS = 2.0  # to wait for what a right answer does at once
SHOWN = 48  # bytes of a longer text that are shown

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
CONNECTION_ENDED = (TimeoutError, OSError, EOFError, ConnectionClosed, InvalidHandshake)
T = TypeVar("T")


@dataclass
class Served:
    """The connections of a learner's server, in order, and the errors that its code raised."""

    url: str = ""
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)


@contextlib.asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[Served]:
    """Call `answer` for each connection; the first error it raised becomes the cause of a `NotYet` raised inside.

    The end of a connection (EOFError, OSError) is not a mistake; an exercise that wants it caught reads `errors`.
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
        served.tasks.append(asyncio.create_task(run(reader, writer), name="learner-server"))

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
            task.cancel()  # an answer that never ends must not block the check
            writer.transport.abort()
        await asyncio.gather(*served.tasks, return_exceptions=True)


async def within(awaited: Awaitable[T], rule: str, evidence: Callable[[], object], *, seconds: float = SECONDS) -> T:
    """Return the result of `awaited`; raise `NotYet(rule)` if it takes too long or the connection ends first."""
    try:
        async with asyncio.timeout(seconds):
            return await awaited
    except CONNECTION_ENDED as error:
        reason = _("the connection ended") if isinstance(error, EOFError) else str(error)
        ending = "\n" + _("the client: {reason}").format(reason=reason) if reason else ""
        raise NotYet(rule, f"{evidence()}{ending}") from None


async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read a client's opening handshake and accept it."""
    parsed = handshake.Request.parse(await reader.readuntil(b"\r\n\r\n"))
    assert parsed is not None  # the request ends with the empty line
    response, _ = handshake.accept(parsed[0], compression=False)
    writer.write(response.serialize())


def sent_by_server(wire: Wire) -> bytes:
    """Return all bytes that the server has sent over a wire."""
    return b"".join(record.data for record in wire.trace.records if record.sender == "server")


def seen_on_wire(events: Sequence[Event]) -> str:
    """Return the first eight events as evidence."""
    if not events:
        return _("seen on the wire: nothing")
    event = _("{kind} from the {sender}")
    seen = [event.format(kind=each.kind, sender=each.sender) for each in events[:8]]
    return _("seen on the wire: {events}").format(events=", ".join(seen) + (", …" if len(events) > 8 else ""))


def shown(data: bytes) -> str:
    """Return bytes in hexadecimal, cut after `SHOWN` of them."""
    if not data:
        return _("nothing")
    octets = data[:SHOWN].hex(" ")
    if len(data) <= SHOWN:
        return octets
    return ngettext("{octets} … ({count} byte)", "{octets} … ({count} bytes)", len(data)).format(
        octets=octets, count=len(data)
    )


def http_lines(data: bytes) -> str:
    """Return bytes of HTTP line by line, with each `\\r\\n` visible."""
    return "\n".join(repr(line)[1:] for line in data.splitlines(keepends=True)) or _("nothing")
