"""One blocking XREAD for all topics of a broker: what is written to them arrives here the moment it is written.

    XREAD COUNT 512 BLOCK 1000 STREAMS chat-stream chat:{cats} 1763817000000-0 1763817000007-2

A topic is in the read as long as somebody follows it from there. XREAD cannot tell a quiet stream from one that was
trimmed or lost past the cursor, so the follower looks (redis/place.py) whenever that may have happened since the server
answered last: after a full reply, after more than `SLOW` seconds, and at every stream once in `LOOK` seconds. Whoever
may have lost something is sent back to reading pages, where it finds out what.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from redis.exceptions import RedisError, ResponseError

from chatlab.brokers.names import parse_id
from chatlab.brokers.port import BEGINNING, Record
from chatlab.brokers.redis.connections.link import Argument, Command, Link, LinkLost, body_of
from chatlab.brokers.redis.place import Position, StreamState, why_overtaken
from chatlab.brokers.redis.queries import BACKOFF, PAGE, StreamQueries, is_before
from chatlab.errors import SubscriptionLost
from chatlab.retry import Retry
from chatlab.tasks import Tasks

log = logging.getLogger(__name__)

NOTHING = "chatlab:nothing"  # a stream nobody writes: waiting for it tells at once when the server goes away
SLOW = 0.05  # seconds: in less, no stream is trimmed by more than a full reply
LOOK = 2.0  # seconds between two looks at streams that bring nothing
AT_ONCE = 256  # streams in one look

# The last id of each stream, whether its record is kept or not; "0-0" where there is no such stream.
NEWEST = """
local ids = {}
for n, key in ipairs(KEYS) do
  ids[n] = '0-0'
  local info = redis.pcall('XINFO', 'STREAM', key)
  if not info.err then
    for i = 1, #info, 2 do
      if info[i] == 'last-generated-id' then ids[n] = info[i + 1] end
    end
  end
end
return ids
"""


Entry = tuple[bytes, list[bytes]]


class FollowingReader(Protocol):
    """A subscription, as the follower knows it."""

    topic: str
    position: Position

    def arrive(self, records: Sequence[Record]) -> None:
        """Take what the blocking read brought; its first records may have been in a page already."""

    def fall_behind(self) -> None:
        """Read pages again: the blocking read brings nothing more."""

    def end(self, error: Exception | None = None) -> None:
        """Nothing more will come."""


@dataclass(slots=True)
class FollowedStream:
    """A topic in the blocking read: how far it has come, and who gets what it brings."""

    cursor: Position
    since: float  # on the loop's clock: the stream had what comes after the cursor then, or later
    checked: int = -1  # the slow reply up to which that was checked
    readers: set[FollowingReader] = field(default_factory=set)


class Follower:
    """Reads for all topics on one connection, woken when a topic joins.

    `block`: seconds the read waits before it asks again. `full`: how many records in a reply may mean that others
    before them were trimmed. `gather`: seconds the read under way is left alone after a topic has joined, so that
    topics which join together cost one new read.
    """

    def __init__(
        self, link: Link, queries: StreamQueries, *, block: float, full: int = PAGE, gather: float = 0.0
    ) -> None:
        self._link = link
        self._queries = queries
        self._block = block
        self._full = full
        self._gather = gather
        self._id = 0  # of our connection, as the server counts them
        self._topics: dict[str, FollowedStream] = {}
        self._joined = asyncio.Event()  # a topic that the read under way does not know of
        self._tasks = Tasks(log)
        self._waker: asyncio.Task[None] | None = None
        self._replies = (0.0, 0.0)  # when the last two replies came
        self._slow = 0  # replies that came late
        self._next_look = 0.0
        self._retry = Retry(on=(LinkLost, ResponseError), backoff=BACKOFF, on_failure=self._waits)

    @property
    def connected(self) -> bool:
        """Whether the link was up when last used."""
        return self._link.is_open and not self._tasks.fault

    async def start(self) -> None:
        """Connect, and read from now on."""
        await self._open()
        self._tasks.start(self._run(), name="redis follower", on_failure=self._fail)

    def add(self, reader: FollowingReader, *, since: float, regardless: bool) -> bool:
        """Let a reader follow, unless the blocking read is ahead of it (and there is something in between).

        `since`: when, on the loop's clock, the stream was seen to have what comes after the reader's place.
        """
        topic = self._topics.get(reader.topic)
        if topic is None:
            topic = self._topics[reader.topic] = FollowedStream(
                Position(reader.position.id, reader.position.count), since
            )
            self._wake()
        elif not regardless and is_before(reader.position.id, topic.cursor.id):
            return False
        topic.readers.add(reader)
        return True

    def remove(self, reader: FollowingReader) -> None:
        """Let a reader go; a topic without readers leaves with the next read."""
        topic = self._topics.get(reader.topic)
        if topic is not None:
            topic.readers.discard(reader)
            if not topic.readers:
                del self._topics[reader.topic]

    async def aclose(self) -> None:
        """Stop."""
        await self._tasks.aclose()
        await self._link.close()

    async def _open(self) -> None:
        await self._link.open()
        self._id = await self._link.call("CLIENT", "ID")
        self._replies = (0.0, 0.0)

    async def _run(self) -> None:
        async for attempt in self._retry:
            with attempt:
                if not self._link.is_open:
                    await self._open()
                    log.info("reading again")
                while True:
                    await self._read()
                    self._retry.reset()

    def _waits(self, error: Exception, seconds: float) -> None:
        self._link.drop()
        self._send_back(list(self._topics))  # everybody may be far behind: pages show whether something is gone
        log.warning("reading waits: %s", error)

    def _fail(self, error: Exception) -> None:
        self._link.drop()
        topics, self._topics = self._topics, {}
        for reader in [reader for topic in topics.values() for reader in topic.readers]:
            reader.end(SubscriptionLost(f"reading has failed: {error!r}"))

    # --- One read ---

    async def _read(self) -> None:
        self._joined.clear()
        asked = {name: topic.cursor.id for name, topic in self._topics.items()} or {NOTHING: BEGINNING}
        wait = int(self._block * 1000)
        command: Command = (b"XREAD", b"COUNT", PAGE, b"BLOCK", wait, b"STREAMS", *asked, *asked.values())
        reply = await self._link.call(*command, wait=self._block)
        now = asyncio.get_running_loop().time()
        # The server answered the read before this one when the reply before that had come, or later.
        if now - self._replies[0] > SLOW:
            self._slow += 1
        self._replies = (self._replies[1], now)
        if reply:
            await self._take({str(name, "utf-8"): entries for name, entries in reply.items()}, asked, now)
            await asyncio.sleep(0)  # what the readers write at the end of this turn need not wait for us
        if now >= self._next_look:
            self._next_look = now + LOOK
            await self._look(asked)

    def _is(self, name: str, asked: dict[str, str]) -> bool:
        """Whether the topic is still followed from where it was asked for: all may have left, and others come."""
        topic = self._topics.get(name)
        return topic is not None and topic.cursor.id == asked[name]

    async def _take(self, brought: dict[str, list[Entry]], asked: dict[str, str], now: float) -> None:
        doubtful = {
            name: asked[name]
            for name, entries in brought.items()
            if self._is(name, asked) and self._is_doubtful(self._topics[name], entries, now)
        }
        states = await self._states(doubtful) if doubtful else {}
        for name, entries in brought.items():
            if self._is(name, asked) and (name not in states or self._passes(name, *states[name])):
                self._hand_out(self._topics[name], name, entries)

    def _hand_out(self, topic: FollowedStream, name: str, entries: list[Entry]) -> None:
        records = [Record(name, str(id, "ascii"), body_of(fields)) for id, fields in entries]
        topic.cursor.advance(records[-1].id, len(records))
        for reader in tuple(topic.readers):
            reader.arrive(records)

    def _is_doubtful(self, topic: FollowedStream, entries: list[Entry], now: float) -> bool:
        return len(entries) >= self._full or (topic.checked < self._slow and now - topic.since > SLOW)

    async def _states(self, asked: dict[str, str]) -> dict[str, tuple[StreamState, bool]]:
        """The state of each stream, and whether the record at its cursor is kept."""
        commands: list[Command] = []
        for name, cursor in asked.items():
            commands += [(b"XINFO", b"STREAM", name), (b"XRANGE", name, cursor, cursor, b"COUNT", 1)]
        replies: list[Any] = []
        await self._link.pipeline(commands, replies)
        states = {}
        for name, info, record in zip(asked, replies[::2], replies[1::2], strict=True):
            states[name] = (StreamState.parse(info), isinstance(record, list) and bool(record))
        return states

    def _passes(self, name: str, state: StreamState, kept: bool) -> bool:
        """Whether what was read may be handed out; if not, the topic's readers are sent back to pages."""
        topic = self._topics[name]
        if why_overtaken(topic.cursor, state, kept=kept):
            self._send_back([name])
            return False
        topic.checked = self._slow
        if topic.cursor.count is None:
            topic.cursor.count = state.count_at(topic.cursor.id)
        return True

    # --- Streams that bring nothing ---

    async def _look(self, asked: dict[str, str]) -> None:
        """Find the streams that have not come as far as their cursor: nothing written to them would ever arrive."""
        names = [name for name in asked if name != NOTHING]
        for start in range(0, len(names), AT_ONCE):
            some = names[start : start + AT_ONCE]
            command: list[Argument] = [b"EVAL", NEWEST, len(some), *some]
            newest = await self._link.call(*command)
            self._send_back(
                [
                    name
                    for name, id in zip(some, newest, strict=True)
                    if self._is(name, asked) and parse_id(str(id, "ascii")) < parse_id(asked[name])
                ]
            )

    def _send_back(self, names: Sequence[str]) -> None:
        """Let the readers of these topics read pages."""
        for topic in [self._topics.pop(name) for name in names if name in self._topics]:
            for reader in topic.readers:
                reader.fall_behind()

    # --- Waking the read under way ---

    def _wake(self) -> None:
        """Make the read under way return, so that the next one includes the new topic."""
        self._joined.set()
        if self._waker is None or self._waker.done():
            self._waker = self._tasks.start(self._unblock(), name="redis follower's waker")

    async def _unblock(self) -> None:
        await asyncio.sleep(self._gather)
        # Until the reader has taken note: the first call may come before it blocks.
        while self._joined.is_set() and self._link.is_open:
            try:
                await self._queries.unblock(self._id)
            except (RedisError, OSError):
                return  # then the reader will come back by itself
            await asyncio.sleep(0.001)
