"""Two connections for all the queues of an instance, no matter how many it reads.

    XREADGROUP GROUP subscribers INSTANCE COUNT 32 BLOCK 1000 STREAMS queue:{mail} queue:{jobs} > >

One connection waits in a blocking read for every member of a group: each takes part while it wants records, and the
current read is interrupted when a member joins or leaves. Commands that do not block (XAUTOCLAIM, XINFO, a member's own
records) go over a link that all members share.

Left out: what a member does with its records, and what it takes over from others (redis/groups.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError, ResponseError

from chatlab.brokers.redis.connections.link import Argument, Command, Link
from chatlab.brokers.redis.queries import BACKOFF, StreamQueries
from chatlab.errors import LinkLost
from chatlab.retry import Retry
from chatlab.tasks import Tasks

log = logging.getLogger(__name__)

COUNT = 32  # records of one stream read at once: they then belong to the member until acknowledged or taken over
COUNT_IN_ALL = 256  # records of all streams in one reply, unless there are more streams than that

Entry = tuple[bytes, list[bytes]]


class SharedLink:
    """A connection that many callers share, one at a time. It opens when needed, and reopens after a loss."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._lock = asyncio.Lock()

    async def call(self, *command: Argument) -> Any:
        """Send one command; return its reply. Raises ResponseError, LinkLost."""
        replies: list[Any] = []
        await self.pipeline([command], replies)
        if isinstance(replies[0], ResponseError):
            raise replies[0]
        return replies[0]

    async def pipeline(self, commands: Sequence[Command], replies: list[Any]) -> None:
        """Send all in one write; append each reply (or ResponseError) to `replies`. Raises LinkLost."""
        async with self._lock:
            if not await self._link.is_usable():
                await self._link.open()
            await self._link.pipeline(commands, replies)

    async def close(self) -> None:
        """Drop the connection."""
        await self._link.close()


@dataclass(slots=True, eq=False)
class Waiter:
    """A member that wants records of a topic, until a time on the loop's clock."""

    topic: str
    until: float
    entries: asyncio.Future[list[Entry]]


class SharedGroupReader:
    """The blocking read of all members that have the same group and the same name.

    `idle`: milliseconds after which a record that is put back may be taken over.
    """

    def __init__(self, link: Link, queries: StreamQueries, group: str, member: str, idle: int) -> None:
        self.members = 0  # that use this reader
        self._link = link
        self._queries = queries
        self._group, self._member = group, member
        self._idle = idle
        self._id = 0  # the server's id for our connection
        self._waiters: list[Waiter] = []
        self._changed = asyncio.Event()  # the current read lacks a waiting member, or includes one that has left
        self._tasks = Tasks(log)
        self._waker: asyncio.Task[None] | None = None
        self._retry = Retry(on=LinkLost, backoff=BACKOFF, on_failure=self._retry_later)

    def start(self) -> None:
        """Start reading for the members."""
        self._tasks.start(self._run(), name=f"reader of group {self._group}", on_failure=self._fail)

    async def read(self, topic: str, wait: float) -> list[Entry]:
        """Return new records of `topic`; empty after about `wait` seconds. Raises ResponseError, LinkLost."""
        if self._tasks.fault:
            raise LinkLost(f"reading for group {self._group} has failed: {self._tasks.fault}")
        loop = asyncio.get_running_loop()
        # Members with equal waits share one deadline: else each would end the read that all share.
        until = (loop.time() // wait + 1) * wait + wait / 2
        waiter = Waiter(topic, until, loop.create_future())
        self._waiters.append(waiter)
        self._wake()
        try:
            return await waiter.entries
        except asyncio.CancelledError:
            self._wake()  # otherwise a record returned by the current read would have no member
            raise

    async def aclose(self) -> None:
        """Stop reading and close the connection."""
        await self._tasks.aclose()
        self._refuse("closed")
        await self._link.close()

    async def _run(self) -> None:
        async for attempt in self._retry:
            with attempt:
                while True:
                    if not self._link.is_open:
                        await self._link.open()
                        self._id = await self._link.call("CLIENT", "ID")
                    await self._read()
                    self._retry.reset()

    def _retry_later(self, error: Exception, seconds: float) -> None:
        self._link.drop()
        log.warning("group %s paused: %s", self._group, error)
        self._refuse(str(error))

    def _fail(self, error: Exception) -> None:
        self._link.drop()
        self._refuse(f"reading for group {self._group} has failed: {error!r}")

    def _refuse(self, reason: str) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.entries.done():
                waiter.entries.set_exception(LinkLost(reason))

    # --- One read ---

    async def _read(self) -> None:
        self._changed.clear()
        self._waiters = [waiter for waiter in self._waiters if not waiter.entries.done()]
        if not self._waiters:
            await self._changed.wait()
            return
        loop = asyncio.get_running_loop()
        topics = list(dict.fromkeys(waiter.topic for waiter in self._waiters))
        wait = max(0.001, min(waiter.until for waiter in self._waiters) - loop.time())
        block: tuple[Argument, ...] = (b"BLOCK", max(1, int(wait * 1000)))
        try:
            reply = await self._link.call(*self._command(topics, block), wait=wait)
        except ResponseError:  # it concerns one stream: read the others anyway
            await self._read_one_by_one(topics)
        else:
            await self._hand_out(reply)
        for waiter in self._waiters:
            if waiter.until <= loop.time() and not waiter.entries.done():
                waiter.entries.set_result([])
        await asyncio.sleep(0)  # members that finish their work now take part in the next read

    def _command(self, topics: Sequence[str], block: tuple[Argument, ...] = ()) -> Command:
        count = max(1, min(COUNT, COUNT_IN_ALL // len(topics)))
        group = (b"XREADGROUP", b"GROUP", self._group, self._member, b"COUNT", count)
        return (*group, *block, b"STREAMS", *topics, *[b">"] * len(topics))

    async def _hand_out(self, reply: dict[bytes, list[Entry]] | None) -> None:
        for name, entries in (reply or {}).items():
            topic = str(name, "utf-8")
            for waiter in self._waiters:
                if waiter.topic == topic and not waiter.entries.done():
                    waiter.entries.set_result(entries)
                    break
            else:
                await self._put_back(topic, entries)

    async def _read_one_by_one(self, topics: Sequence[str]) -> None:
        """Read each stream without blocking. If a stream cannot be read, its waiting members get the error."""
        replies: list[Any] = []
        await self._link.pipeline([self._command([topic]) for topic in topics], replies)
        for topic, reply in zip(topics, replies, strict=True):
            if not isinstance(reply, ResponseError):
                await self._hand_out(reply)
                continue
            for waiter in self._waiters:
                if waiter.topic == topic and not waiter.entries.done():
                    waiter.entries.set_exception(ResponseError(str(reply)))

    async def _put_back(self, topic: str, entries: Sequence[Entry]) -> None:
        """Release records to other members at once: their member left while they were on their way."""
        free = (b"IDLE", self._idle, b"RETRYCOUNT", 0, b"JUSTID")
        ids = [identifier for identifier, _ in entries]
        try:
            await self._link.call(b"XCLAIM", topic, self._group, self._member, 0, *ids, *free)
        except ResponseError as error:
            log.warning("%d records of %s wait to be taken over: %s", len(ids), topic, error)

    # --- Interrupting the current read ---

    def _wake(self) -> None:
        """Make the current read return, so that the next one includes the new members."""
        self._changed.set()
        if self._waker is None or self._waker.done():
            self._waker = self._tasks.start(self._unblock(), name="group reader's waker")

    async def _unblock(self) -> None:
        # Repeat until the reader has noticed: the first call may come before it blocks.
        await asyncio.sleep(0)
        while self._changed.is_set() and self._link.is_open and self._id:
            try:
                await self._queries.unblock(self._id)
            except (RedisError, OSError):
                return  # the read then returns by itself
            await asyncio.sleep(0.001)
