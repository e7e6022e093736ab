"""One blocking XREAD for all topics of a broker: what is written to them arrives here the moment it is written.

    XREAD COUNT 64 BLOCK 1000 STREAMS chat-stream chat:{cats} 1763817000000-0 1763817000007-2

XREAD limits the records of each stream, not their octets, so COUNT is small. A stream that fills it has more: the rest
comes as a page that is bounded in octets, in the same round trip as the check below.

A topic is in the read while it has readers that follow it. XREAD cannot tell a quiet stream from one that was trimmed
or lost past the cursor. So the follower checks (redis/position.py) whenever that may have happened since the last
reply: after a full reply, after more than `SLOW` seconds, and at every stream once in `CHECK` seconds. Readers that may
have lost records go back to reading pages, where they find out which.
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
from chatlab.brokers.redis.connections.link import Argument, Command, Link, body_of
from chatlab.brokers.redis.position import Position, StreamState, why_overtaken
from chatlab.brokers.redis.queries import BACKOFF, PAGE, READ_PAGE, StreamQueries, is_before
from chatlab.errors import LinkLost, SubscriptionLost
from chatlab.retry import Retry
from chatlab.tasks import Tasks

log = logging.getLogger(__name__)

NOTHING = "chatlab:nothing"  # a stream that is never written: waiting for it shows at once when the server goes away
SLOW = 0.05  # seconds: in less time, no stream is trimmed by more than a full reply
CHECK = 2.0  # seconds between two checks of streams that bring nothing
AT_ONCE = 256  # streams in one check
COUNT = 64  # records of one stream in a blocking read, but
COUNT_IN_ALL = 256  # of all its streams, except that
COUNT_AT_LEAST = 4  # of each may always come
REST_OCTETS = 2 << 20  # in the pages that follow one blocking read, not counting the last entry of each

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


def records_per_stream(streams: int) -> int:
    """Return how many records of each stream one blocking read may return."""
    return min(COUNT, max(COUNT_AT_LEAST, COUNT_IN_ALL // streams))


class FollowingReader(Protocol):
    """A reader, as the follower sees it."""

    topic: str
    position: Position

    def arrive(self, records: Sequence[Record]) -> None:
        """Take records from the blocking read; the first of them may already have been in a page."""

    def fall_behind(self) -> None:
        """Go back to pages: the blocking read delivers nothing more."""

    def end(self, error: Exception | None = None) -> None:
        """Close the reader, with an error if there is one."""


@dataclass(slots=True)
class FollowedStream:
    """A topic in the blocking read: its cursor and its readers."""

    cursor: Position
    since: float  # on the loop's clock: at this time or later, the stream still had what comes after the cursor
    checked: int = -1  # the slow reply up to which that was checked
    readers: set[FollowingReader] = field(default_factory=set)


class Follower:
    """Reads for all topics on one connection, woken when a topic joins.

    `block`: seconds the read waits before it is sent again. `full`: how many records in a reply may mean that earlier
    ones were trimmed, even if it could have held more. `gather`: seconds to wait before interrupting the current read
    for a new topic, so that topics that join together cost one new read.
    """

    def __init__(
        self, link: Link, queries: StreamQueries, *, block: float, full: int = PAGE, gather: float = 0.0
    ) -> None:
        self._link = link
        self._queries = queries
        self._block = block
        self._full = full
        self._gather = gather
        self._id = 0  # the server's id for our connection
        self._topics: dict[str, FollowedStream] = {}
        self._joined = asyncio.Event()  # set while the current read lacks a topic
        self._tasks = Tasks(log)
        self._waker: asyncio.Task[None] | None = None
        self._replies = (0.0, 0.0)  # when the last two replies came
        self._slow = 0  # replies that came late
        self._next_check = 0.0
        self._retry = Retry(on=(LinkLost, ResponseError), backoff=BACKOFF, on_failure=self._retry_later)

    @property
    def connected(self) -> bool:
        """Return whether the link was up when last used."""
        return self._link.is_open and not self._tasks.fault

    async def start(self) -> None:
        """Connect and start reading."""
        await self._open()
        self._tasks.start(self._run(), name="redis follower", on_failure=self._fail)

    def add(self, reader: FollowingReader, *, since: float, regardless: bool) -> bool:
        """Add a reader unless the blocking read is ahead of it (or `regardless`); return whether it was added.

        `since`: when, on the loop's clock, the stream was known to have what comes after the reader's position.
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
        """Remove a reader; a topic without readers is not in the next read."""
        topic = self._topics.get(reader.topic)
        if topic is not None:
            topic.readers.discard(reader)
            if not topic.readers:
                del self._topics[reader.topic]

    async def aclose(self) -> None:
        """Stop reading and close the connection."""
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
                    log.info("reading resumed")
                while True:
                    await self._read()
                    self._retry.reset()

    def _retry_later(self, error: Exception, seconds: float) -> None:
        self._link.drop()
        self._send_back(list(self._topics))  # any reader may be far behind: pages show whether records are gone
        log.warning("reading paused: %s", error)

    def _fail(self, error: Exception) -> None:
        self._link.drop()
        topics, self._topics = self._topics, {}
        for reader in [reader for topic in topics.values() for reader in topic.readers]:
            reader.end(SubscriptionLost(f"reading failed: {error!r}"))

    # --- One read ---

    async def _read(self) -> None:
        self._joined.clear()
        asked = {name: topic.cursor.id for name, topic in self._topics.items()} or {NOTHING: BEGINNING}
        wait, count = int(self._block * 1000), records_per_stream(len(asked))
        command: Command = (b"XREAD", b"COUNT", count, b"BLOCK", wait, b"STREAMS", *asked, *asked.values())
        reply = await self._link.call(*command, wait=self._block)
        now = asyncio.get_running_loop().time()
        # The server answered the previous read no earlier than when the reply before that one arrived.
        if now - self._replies[0] > SLOW:
            self._slow += 1
        self._replies = (self._replies[1], now)
        if reply:
            await self._take({str(name, "utf-8"): entries for name, entries in reply.items()}, asked, now, count)
            await asyncio.sleep(0)  # let the readers write at the end of this turn
        if now >= self._next_check:
            self._next_check = now + CHECK
            await self._check_idle(asked)

    def _is(self, name: str, asked: dict[str, str]) -> bool:
        """Return whether the topic is still followed from the id that was read: its readers may have been replaced."""
        topic = self._topics.get(name)
        return topic is not None and topic.cursor.id == asked[name]

    async def _take(self, brought: dict[str, list[Entry]], asked: dict[str, str], now: float, count: int) -> None:
        doubtful, cut = {}, {}
        for name, entries in brought.items():
            if self._is(name, asked) and self._is_doubtful(self._topics[name], entries, now, count):
                doubtful[name] = asked[name]
                if len(entries) >= count:
                    cut[name] = entries[-1][0]
        states, rest = await self._states_and_rest(doubtful, cut) if doubtful else ({}, {})
        for name, entries in brought.items():
            if self._is(name, asked) and (name not in states or self._passes(name, *states[name])):
                self._hand_out(self._topics[name], name, [*entries, *rest.get(name, ())])

    def _hand_out(self, topic: FollowedStream, name: str, entries: list[Entry]) -> None:
        records = [Record(name, str(id, "ascii"), body_of(fields)) for id, fields in entries]
        topic.cursor.advance(records[-1].id, len(records))
        for reader in tuple(topic.readers):
            reader.arrive(records)

    def _is_doubtful(self, topic: FollowedStream, entries: list[Entry], now: float, count: int) -> bool:
        return len(entries) >= min(self._full, count) or (topic.checked < self._slow and now - topic.since > SLOW)

    async def _states_and_rest(
        self, asked: dict[str, str], cut: dict[str, bytes]
    ) -> tuple[dict[str, tuple[StreamState, bool]], dict[str, list[Entry]]]:
        """Return the state of each stream and whether the record at its cursor is kept, and a page of those in `cut`.

        The pages are read first: if the record at the cursor is kept afterwards, so is everything that follows it.
        """
        octets = REST_OCTETS // max(1, len(cut))
        commands: list[Command] = [(b"EVAL", READ_PAGE, 1, name, after, PAGE, octets) for name, after in cut.items()]
        for name, cursor in asked.items():
            commands += [(b"XINFO", b"STREAM", name), (b"XRANGE", name, cursor, cursor, b"COUNT", 1)]
        replies: list[Any] = []
        await self._link.pipeline(commands, replies)
        pages, replies = replies[: len(cut)], replies[len(cut) :]
        states = {}
        for name, info, record in zip(asked, replies[::2], replies[1::2], strict=True):
            states[name] = (StreamState.parse(info), isinstance(record, list) and bool(record))
        return states, {name: entries_of(page) for name, page in zip(cut, pages, strict=True)}

    def _passes(self, name: str, state: StreamState, kept: bool) -> bool:
        """Return whether what was read may be handed out; if not, send the topic's readers back to pages."""
        topic = self._topics[name]
        if why_overtaken(topic.cursor, state, kept=kept):
            self._send_back([name])
            return False
        topic.checked = self._slow
        if topic.cursor.count is None:
            topic.cursor.count = state.count_at(topic.cursor.id)
        return True

    # --- Idle streams ---

    async def _check_idle(self, asked: dict[str, str]) -> None:
        """Find the streams whose newest id is before their cursor: nothing written to them would ever arrive."""
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
        """Send the readers of these topics back to pages."""
        for topic in [self._topics.pop(name) for name in names if name in self._topics]:
            for reader in topic.readers:
                reader.fall_behind()

    # --- Interrupting the current read ---

    def _wake(self) -> None:
        """Make the current read return, so that the next one includes the new topic."""
        self._joined.set()
        if self._waker is None or self._waker.done():
            self._waker = self._tasks.start(self._unblock(), name="redis follower's waker")

    async def _unblock(self) -> None:
        await asyncio.sleep(self._gather)
        # Repeat until the reader has noticed: the first call may come before it blocks.
        while self._joined.is_set() and self._link.is_open:
            try:
                await self._queries.unblock(self._id)
            except (RedisError, OSError):
                return  # the read then returns by itself
            await asyncio.sleep(0.001)


def entries_of(page: Any) -> list[Entry]:
    """Return the entries in a reply to READ_PAGE. Raises the error that it may be."""
    if isinstance(page, ResponseError):
        raise page
    entries: list[Entry] = page[0]
    return entries
