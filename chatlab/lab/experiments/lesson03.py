"""Lesson 03's experiments on a room: a member who stops reading, a flooder, a foreign page, a growing room.

Each takes the URL of a room and returns its clients' observations, so that the article's room and the robust room go
through the same experiment. Times are in seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import count

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from chatlab.lab.clients import RoomClient

__all__ = ["Answer", "Delays", "Reception", "delays", "flood", "knock", "one_stalled", "stopped_after"]


@dataclass(frozen=True)
class Reception:
    """When messages reached all the members who read: for each message, its arrival at the last of them."""

    sent: int
    times: tuple[float, ...]  # since the start; one for each message that reached all of them

    @property
    def reached(self) -> int:
        """The number of messages that reached all the members who read."""
        return len(self.times)


async def one_stalled(
    url: str, *, readers: int = 5, seconds: float = 2.0, size: int = 32 * 1024, every: float = 0.01
) -> Reception:
    """Let the first member stop reading while another sends a text of `size` characters every `every` seconds.

    `readers` more members read everything. The stalled member's socket gets a small receive buffer: otherwise the
    kernel would buffer megabytes for it, and it would take a while until anybody noticed.
    """
    stalled = RoomClient(url, "stalled", receive_buffer=4096)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(stalled.vanish)
        await stalled.connect()
        stalled.stop_reading()
        members = [await stack.enter_async_context(open_member(url)) for __ in range(readers)]
        sender = await stack.enter_async_context(open_member(url))
        return await _send_and_watch(sender, members, seconds, size, every)


async def _send_and_watch(
    sender: ClientConnection, members: list[ClientConnection], seconds: float, size: int, every: float
) -> Reception:
    began = time.monotonic()
    arrivals: dict[int, list[float]] = {}

    async def read(member: ClientConnection) -> None:
        async for text in member:
            if (number := number_in(str(text))) is not None:
                arrivals.setdefault(number, []).append(time.monotonic() - began)

    readers = [asyncio.create_task(read(each)) for each in (*members, sender)]
    sent = 0
    with contextlib.suppress(TimeoutError, ConnectionClosed):
        async with asyncio.timeout(seconds):
            for sent in count(1):
                await sender.send(f"#{sent} ".ljust(size, "·"))
                await asyncio.sleep(every)
    await cancel(readers)
    times = sorted(max(each) for each in arrivals.values() if len(each) == len(readers))
    return Reception(sent, tuple(times))


def number_in(text: str) -> int | None:
    """Return the number of one of our messages, despite the room's prefix; None for other messages."""
    _prefix, mark, rest = text.partition("#")
    digits = rest.split(" ", 1)[0]
    return int(digits) if mark and digits.isdecimal() else None


def stopped_after(reception: Reception, seconds: float, *, silence: float = 0.25) -> bool:
    """Whether the last delivery came before the final part of `seconds`, whose fraction is `silence`."""
    return not reception.times or reception.times[-1] < seconds * (1 - silence)


@dataclass(frozen=True)
class Delays:
    """The times that messages took to reach everybody in a room of `members`."""

    members: int
    seconds: tuple[float, ...] = field(repr=False)

    @property
    def median(self) -> float:
        """The middle one of the delays."""
        return statistics.median(self.seconds)


async def delays(url: str, members: int, *, messages: int = 30, every: float = 0.01) -> Delays:
    """Send `messages` texts to a room of `members` who all read; return the time until the last of them has each."""
    async with contextlib.AsyncExitStack() as stack:
        everybody = [await stack.enter_async_context(open_member(url)) for __ in range(members)]
        took = []
        for number in range(messages):
            began = time.monotonic()
            await everybody[0].send(f"#{number} ")
            await asyncio.gather(*(until_number(each, number) for each in everybody))
            took.append(time.monotonic() - began)
            await asyncio.sleep(every)
        return Delays(members, tuple(took))


async def until_number(member: ClientConnection, number: int) -> None:
    """Read until message `number` arrives."""
    while number_in(str(await member.recv())) != number:
        pass


async def flood(url: str, *, messages: int = 500, patience: float = 1.0) -> int:
    """Send `messages` texts as fast as possible; return how many reach another member before a pause of `patience`.

    The room may disconnect the flooder before it has sent all; that is one of the possible outcomes.
    """
    async with open_member(url) as victim, open_member(url) as flooder:
        read = asyncio.create_task(_count_until_silence(victim, patience))
        with contextlib.suppress(ConnectionClosed):
            for number in range(messages):
                await flooder.send(f"#{number} ")
        return await read


async def _count_until_silence(member: ClientConnection, patience: float) -> int:
    received = 0
    with contextlib.suppress(TimeoutError):
        while True:
            async with asyncio.timeout(patience):
                received += number_in(str(await member.recv())) is not None
    return received


@dataclass(frozen=True)
class Answer:
    """A server's answer to an opening handshake: the HTTP status, and the origin it was sent."""

    status: int
    origin: str

    @property
    def let_in(self) -> bool:
        """Whether the connection was upgraded."""
        return self.status == 101


async def knock(url: str, *, origin: str, cookie: str = "") -> Answer:
    """Ask for a WebSocket as a visitor's browser does for a page of `origin`, with the visitor's cookies."""
    headers = {"Cookie": cookie} if cookie else None
    try:
        async with connect(url, origin=origin, additional_headers=headers, proxy=None):  # type: ignore[arg-type]  # NewType of str
            return Answer(101, origin)
    except InvalidStatus as refused:
        return Answer(refused.response.status_code, origin)


@contextlib.asynccontextmanager
async def open_member(url: str) -> AsyncIterator[ClientConnection]:
    """Yield the connection of a member without a name and without compression; abort it at the end."""
    connection = await connect(url, compression=None, proxy=None, max_queue=None)
    try:
        yield connection
    finally:
        connection.transport.abort()


async def cancel(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until they have ended; ignore their errors."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
