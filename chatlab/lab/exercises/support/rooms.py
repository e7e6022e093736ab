"""What stands around a learner's loop while it is checked: its task, the room it serves, the members who talk.

The rooms are those of lesson 04: what a member says waits, in a queue or in an outbox, for a bridge to take it to the
broker. Left out: the broker (`exercises/support/redis.py`), and what is right or wrong (`lessons/`).
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from itertools import zip_longest
from typing import Any

from chatlab import room
from chatlab.lab.clients import RoomClient
from chatlab.lab.exercises.exercise import NotYet
from chatlab.lab.until import until

__all__ = [
    "JoinedRoom",
    "Loop",
    "Outbox",
    "RoomWithOutbox",
    "Running",
    "at_work",
    "first_few",
    "heard_by",
    "in_one_order",
    "must_wait",
    "said",
    "soon",
    "two_servers",
]

Loop = Callable[..., Coroutine[Any, Any, None]]


class Running:
    """A learner's endless loop at work: started, stopped, and asked what has become of it."""

    def __init__(self, loop: Coroutine[Any, Any, None], what: str) -> None:
        self.what = what
        self.task = asyncio.create_task(loop, name=what)

    def look(self) -> None:
        """Raise the error that ended it, or `NotYet` if it just came to an end."""
        if self.task.done() and not self.task.cancelled():
            if error := self.task.exception():
                while isinstance(error, BaseExceptionGroup):  # what a TaskGroup says is of no help, what it holds is
                    error = error.exceptions[0]
                raise error
            raise NotYet(f"{self.what} runs until it is stopped", "yours came to its end by itself")

    async def stop(self) -> None:
        """End it as a kernel or a restart would: with a cancellation."""
        self.task.cancel()
        await asyncio.wait([self.task], timeout=1)
        if not self.task.done():
            raise NotYet(f"{self.what} ends when it is cancelled", "yours was still running a second later")


@contextlib.asynccontextmanager
async def at_work(*loops: Coroutine[Any, Any, None], what: str) -> AsyncIterator[list[Running]]:
    """Run learners' loops. If something is not as it should be, the error that ended a loop comes before the rest."""
    running = [Running(loop, what) for loop in loops]
    try:
        yield running
        for each in running:
            each.look()
    except (TimeoutError, NotYet):
        for each in running:
            each.look()
        raise
    finally:
        for each in running:
            each.task.cancel()
        await asyncio.wait([each.task for each in running], timeout=1)


async def soon(condition: Callable[[], bool], running: Sequence[Running], *, timeout: float = 1.2) -> None:
    """Wait a moment for what should come true; whatever is true then will be seen by what follows."""
    with contextlib.suppress(TimeoutError):
        await until(lambda: condition() or any(each.task.done() for each in running), timeout=timeout)


def must_wait(answer: object) -> None:
    """Raise `NotYet` if the answer is no `async def`."""
    if not inspect.iscoroutinefunction(answer):
        raise NotYet("it has to wait for others, so it must be an `async def`", answer)


# --- Rooms ---


class JoinedRoom(room.Room):
    """The lesson's room: what a member says waits in `outgoing` for whoever carries it to the broker."""

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        self.outgoing: asyncio.Queue[str] = asyncio.Queue()

    def pass_on(self, member: room.Member, line: str) -> None:
        """Let it wait."""
        self.outgoing.put_nowait(line)


class Outbox:
    """What members said and nobody has taken to the broker yet: each line under a key of its own, oldest first.

    It outlives the bridge, as a file would.
    """

    def __init__(self) -> None:
        self._lines: dict[str, str] = {}
        self._something = asyncio.Event()

    def put(self, line: str) -> None:
        """Add a line."""
        self._lines[uuid.uuid4().hex] = line
        self._something.set()

    async def first(self) -> tuple[str, str]:
        """Wait for a line; return the oldest, and its key. It stays in the box."""
        while not self._lines:
            self._something.clear()
            await self._something.wait()
        return next(iter(self._lines.items()))

    def remove(self, key: str) -> None:
        """Take a line out of the box."""
        self._lines.pop(key, None)

    def __len__(self) -> int:
        return len(self._lines)


class RoomWithOutbox(room.Room):
    """A room whose lines wait in `outbox`."""

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        self.outbox = Outbox()

    def pass_on(self, member: room.Member, line: str) -> None:
        """Let it wait."""
        self.outbox.put(line)


@contextlib.asynccontextmanager
async def two_servers(kind: type[room.Room]) -> AsyncIterator[list[room.RoomServer]]:
    """Two servers, each with a room of that kind."""
    async with await room.start(room=kind) as one, await room.start(room=kind) as two:
        yield [one, two]


def said(client: RoomClient) -> list[str]:
    """What members said, as this client heard it: without what the server says by itself."""
    return [line.removeprefix("Server received from ") for line in client.received if line.startswith("Server")]


def heard_by(*clients: RoomClient) -> str:
    """The same for several, as evidence."""
    return "\n".join(f"{client.name} heard {said(client)}" for client in clients)


def first_few(texts: Sequence[str]) -> str:
    """A list as evidence. A loop that begins again and again is shown thousands: twenty of them say it."""
    return f"{list(texts)}" if len(texts) <= 20 else f"{list(texts[:20])} and {len(texts) - 20} more"


def in_one_order(one: RoomClient, other: RoomClient) -> None:
    """Raise `NotYet` where the two begin to disagree about what was said."""
    for number, (ours, theirs) in enumerate(zip_longest(said(one), said(other), fillvalue="nothing"), 1):
        if ours != theirs:
            raise NotYet(
                "all members hear all texts in one order, the broker's",
                f"as text number {number}, {one.name} heard {ours!r}, and {other.name} {theirs!r}",
            )
