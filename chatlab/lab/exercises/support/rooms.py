"""The surroundings of a learner's loop under test: its task, the room it serves, the members who talk.

The rooms are those of lesson 04: lines that members send wait in a queue or an outbox until a bridge publishes them.
Left out: the broker (`exercises/support/redis.py`) and the rules (`lessons/`).
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
from chatlab.locale import _, ngettext

__all__ = [
    "JoinedRoom",
    "Loop",
    "Outbox",
    "RoomWithOutbox",
    "Running",
    "at_work",
    "first_few",
    "in_one_order",
    "must_wait",
    "received_by",
    "said",
    "soon",
    "two_servers",
]

Loop = Callable[..., Coroutine[Any, Any, None]]


class Running:
    """A learner's endless loop, running in a task. `what` names it in rules: "the bridge"."""

    def __init__(self, loop: Coroutine[Any, Any, None], what: str) -> None:
        self.what = what
        self.task = asyncio.create_task(loop, name=what)

    def look(self) -> None:
        """Raise the error that ended the loop, or `NotYet` if it ended without one."""
        if self.task.done() and not self.task.cancelled():
            if error := self.task.exception():
                while isinstance(error, BaseExceptionGroup):  # a TaskGroup's own message does not help a learner
                    error = error.exceptions[0]
                raise error
            raise NotYet(_("{what} runs until it is stopped").format(what=self.what), _("yours ended by itself"))

    async def stop(self) -> None:
        """Cancel the loop, as a kernel or a restart would."""
        self.task.cancel()
        await asyncio.wait([self.task], timeout=1)
        if not self.task.done():
            rule = _("{what} ends when it is cancelled").format(what=self.what)
            raise NotYet(rule, _("yours was still running a second later"))


@contextlib.asynccontextmanager
async def at_work(*loops: Coroutine[Any, Any, None], what: str) -> AsyncIterator[list[Running]]:
    """Run learners' loops. An error that ended a loop is raised in preference to the rule that it broke."""
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
    """Wait briefly for `condition`, or for a loop to end; return either way, for the caller to check."""
    with contextlib.suppress(TimeoutError):
        await until(lambda: condition() or any(each.task.done() for each in running), timeout=timeout)


def must_wait(answer: object) -> None:
    """Raise `NotYet` if the answer is not an `async def`."""
    if not inspect.iscoroutinefunction(answer):
        raise NotYet(_("it has to wait for others, so it must be an `async def`"), answer)


# --- Rooms ---


class JoinedRoom(room.Room):
    """The lesson's room: lines that members send wait in `outgoing` for the bridge to publish them."""

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        self.outgoing: asyncio.Queue[str] = asyncio.Queue()

    def pass_on(self, member: room.Member, line: str) -> None:
        """Keep the line for the bridge."""
        self.outgoing.put_nowait(line)


class Outbox:
    """The lines that are not published yet: each under its own key, oldest first.

    An outbox outlives the bridge, as a file would.
    """

    def __init__(self) -> None:
        self._lines: dict[str, str] = {}
        self._not_empty = asyncio.Event()

    def put(self, line: str) -> None:
        """Add a line."""
        self._lines[uuid.uuid4().hex] = line
        self._not_empty.set()

    async def first(self) -> tuple[str, str]:
        """Wait for a line; return the key and the text of the oldest, which stays in the outbox."""
        while not self._lines:
            self._not_empty.clear()
            await self._not_empty.wait()
        return next(iter(self._lines.items()))

    def remove(self, key: str) -> None:
        """Remove a line, if it is there."""
        self._lines.pop(key, None)

    def __len__(self) -> int:
        return len(self._lines)


class RoomWithOutbox(room.Room):
    """A room whose lines wait in `outbox`."""

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        self.outbox = Outbox()

    def pass_on(self, member: room.Member, line: str) -> None:
        """Keep the line for the bridge."""
        self.outbox.put(line)


@contextlib.asynccontextmanager
async def two_servers(kind: type[room.Room]) -> AsyncIterator[list[room.RoomServer]]:
    """Start two servers, each with a room of the class `kind`."""
    async with await room.start(room=kind) as one, await room.start(room=kind) as two:
        yield [one, two]


def said(client: RoomClient) -> list[str]:
    """Return the texts of members that this client received, without the server's own announcements."""
    prefix = "Server received from "  # not shown: text on the wire
    return [line.removeprefix(prefix) for line in client.received if line.startswith("Server")]


def received_by(*clients: RoomClient) -> str:
    """Return the texts that each client received, as evidence."""
    received = _("{name} received {texts}")
    return "\n".join(received.format(name=client.name, texts=said(client)) for client in clients)


def first_few(texts: Sequence[str]) -> str:
    """Return a list as evidence, cut after twenty texts: a loop that keeps starting over receives thousands."""
    if (more := len(texts) - 20) <= 0:
        return f"{list(texts)}"
    return ngettext("{texts} and {count} more", "{texts} and {count} more", more).format(
        texts=list(texts[:20]), count=more
    )


def in_one_order(one: RoomClient, other: RoomClient) -> None:
    """Raise `NotYet` at the first text that differs between the two clients."""
    for number, (ours, theirs) in enumerate(zip_longest(said(one), said(other), fillvalue=_("nothing")), 1):
        if ours != theirs:
            evidence = _("as text number {number}, {one} received {ours!r}, and {other} received {theirs!r}")
            raise NotYet(
                _("all members receive all texts in one order, the broker's"),
                evidence.format(number=number, one=one.name, ours=ours, other=other.name, theirs=theirs),
            )
