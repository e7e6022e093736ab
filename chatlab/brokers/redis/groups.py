"""Consumer groups on Redis Streams: each record goes to one member, and is redelivered until acknowledged.

A record that its member has not acknowledged for `takeover_after` seconds goes to another (XAUTOCLAIM), so a member
that dies loses nothing, and a record that takes longer than that may be worked on twice: at least once, not exactly
once. A record that was delivered `tries` times is poison: it is moved to the stream TOPIC:set-aside:GROUP (a
dead-letter stream), for somebody to inspect.

A restarted instance is a new member. The server keeps the old one's name; the others remove it once it has been silent
for `FORGET_AFTER` times `takeover_after` and has no pending records.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.exceptions import ResponseError

from chatlab.brokers.inbox import Inbox
from chatlab.brokers.port import BEGINNING, Record
from chatlab.brokers.redis.connections.link import Command, body_of
from chatlab.brokers.redis.group_reader import COUNT, Entry, SharedGroupReader, SharedLink
from chatlab.brokers.redis.position import StreamState
from chatlab.brokers.redis.publisher import Publisher
from chatlab.brokers.redis.queries import BACKOFF, is_before
from chatlab.errors import BrokerError, LinkLost, SubscriptionLost
from chatlab.retry import Retry
from chatlab.tasks import Tasks

log = logging.getLogger(__name__)

MAX_HELD = 1000  # records put back at once; a member holds no more than this
BLOCK = 1.0  # seconds
SET_ASIDE_LENGTH = 10_000
SET_ASIDE_SECONDS = 30 * 86_400  # after the last one: time for somebody to inspect them

FORGET_AFTER = 10

# In one step: a record that the member takes in between would be lost with it.
FORGET = """
for _, fields in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local consumer = {}
  for i = 1, #fields, 2 do consumer[fields[i]] = fields[i + 1] end
  if consumer['pending'] == 0 and consumer['idle'] > tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer['name'])
  end
end
"""


class GroupMember(Inbox):
    """One member. It takes more records only when all it took have been handed out.

    It shares its connections: `reader` waits for new records, and `link` is for commands that do not block.
    """

    def __init__(
        self,
        link: SharedLink,
        reader: SharedGroupReader,
        publisher: Publisher,
        topic: str,
        group: str,
        member: str,
        *,
        takeover_after: float,
        tries: int,
    ) -> None:
        super().__init__(topic)
        self.group, self.member = group, member
        self.on_close: Callable[[GroupMember], Awaitable[None]] | None = None
        self._link = link
        self.reader = reader
        self._publisher = publisher
        self._takeover_after = takeover_after
        self._tries = tries
        self._emptied = asyncio.Event()
        # up to where this member's pending records from an earlier run were read; ">" when all were
        self._own = BEGINNING
        self._claim_from = BEGINNING
        self._next_claim = 0.0
        self._next_forget = time.monotonic() + FORGET_AFTER * takeover_after  # when to look for dead consumers
        self._next_count = 0.0
        self._reported = ""  # the loss that was logged last
        self._tasks = Tasks(log)
        self._retry = Retry(on=(LinkLost, ResponseError), backoff=BACKOFF, on_failure=self._retry_later)

    async def start(self) -> None:
        """Create the group if it is missing, to get what is published from now on, and start."""
        await self._create_group("$")
        self._tasks.start(self._run(), name=f"member {self.member} of {self.group}", on_failure=self._fail)

    async def batch(self, limit: int = 512) -> Sequence[Record]:
        """Wait for records, then return those that have arrived; empty once closed."""
        while not (here := self.take(limit)) and not self.closed:
            self._emptied.set()
            await self.changed()
        return here

    async def ack(self, record: Record) -> None:
        """Acknowledge a record. Waits for the server, also while it is away."""
        await self._publisher.submit((b"XACK", self.topic, self.group, record.id), 0, repeatable=True)

    async def postpone(self) -> None:
        """Return this member's records: other members may take them at once, and this delivery does not count."""
        self._waiting.clear()
        mine = (b"XPENDING", self.topic, self.group, b"-", b"+", MAX_HELD, self.member)
        held = [identifier for identifier, *_ in await self._publisher.submit(mine, 0, repeatable=True)]
        if held:
            free = (b"IDLE", int(self._takeover_after * 1000), b"RETRYCOUNT", 0, b"JUSTID")
            claim = (b"XCLAIM", self.topic, self.group, self.member, 0, *held, *free)
            await self._publisher.submit(claim, 0, repeatable=True)
        self._own = BEGINNING  # read again what no other member takes

    async def aclose(self) -> None:
        """Leave. Unacknowledged records are taken over by others, or read again when this member returns."""
        self.discard()
        await self._tasks.aclose()
        if self.on_close is not None:
            left, self.on_close = self.on_close, None
            await left(self)

    async def _run(self) -> None:
        async for attempt in self._retry:
            with attempt:
                await self._take_when_emptied()

    async def _take_when_emptied(self) -> None:
        while True:
            await self._emptied.wait()
            self._emptied.clear()
            while not len(self):
                await self._take_some()
            self._retry.reset()

    def _retry_later(self, error: Exception, seconds: float) -> None:
        # A lost connection concerns all members: their reader logs it once.
        log.log(logging.DEBUG if isinstance(error, LinkLost) else logging.WARNING, "%s waits: %s", self.topic, error)
        self._emptied.set()

    def _fail(self, error: Exception) -> None:
        self.end(SubscriptionLost(f"reading for group {self.group} has failed: {error!r}"))

    async def _take_some(self) -> None:
        try:
            entries = await self._take_over() or await self._read()
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            log.error("%s was deleted, with the unread records of group %s; starting over", self.topic, self.group)
            self._own = BEGINNING
            await self._create_group("0")  # everything in the new stream is unread
            return
        self.put([Record(self.topic, str(i, "ascii"), body_of(fields)) for i, fields in entries])

    async def _create_group(self, start: str) -> None:
        try:
            await self._link.call("XGROUP", "CREATE", self.topic, self.group, start, "MKSTREAM")
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):  # BUSYGROUP: it exists already
                raise BrokerError(str(error)) from error

    async def _report_trimmed(self) -> None:
        """Log how many records were trimmed before the group read them. Redis before 7 does not count them."""
        if time.monotonic() < self._next_count:
            return
        self._next_count = time.monotonic() + BLOCK
        replies: list[Any] = []
        await self._link.pipeline([(b"XINFO", b"STREAM", self.topic), (b"XINFO", b"GROUPS", self.topic)], replies)
        stream, groups = replies
        if isinstance(stream, Exception) or isinstance(groups, Exception):
            return  # the stream is gone: reading it will fail with the reason
        lost = trimmed_unread(StreamState.parse(stream), groups, self.group)
        if lost and lost != self._reported:
            log.error("%s of %s were trimmed before group %s read them", lost, self.topic, self.group)
        self._reported = lost

    async def _read(self) -> list[Entry]:
        """Return new records; on the first calls, this member's pending records from an earlier run."""
        await self._report_trimmed()
        if self._own == ">":
            wait = min(BLOCK, self._takeover_after / 4)
            return await self._without_trimmed(await self.reader.read(self.topic, wait))
        group = (b"XREADGROUP", b"GROUP", self.group, self.member, b"COUNT", COUNT)
        reply = await self._link.call(*group, b"STREAMS", self.topic, self._own)
        entries: list[Entry] = next(iter(reply.values())) if reply else []
        self._own = str(entries[-1][0], "ascii") if entries else ">"
        return await self._without_trimmed(entries)

    async def _take_over(self) -> list[Entry]:
        """Return records that their member did not acknowledge in time; set poison aside."""
        if time.monotonic() < self._next_claim:
            return []
        idle = int(self._takeover_after * 1000)
        await self._forget(idle * FORGET_AFTER)  # first, because what is claimed must be handed out
        claim = (b"XAUTOCLAIM", self.topic, self.group, self.member, idle, self._claim_from, b"COUNT", COUNT)
        cursor, entries, *_ = await self._link.call(*claim)
        self._claim_from = str(cursor, "ascii")
        if self._claim_from == BEGINNING:  # a full round
            self._next_claim = time.monotonic() + self._takeover_after / 4
        return await self._without_poison(await self._without_trimmed(entries))

    async def _forget(self, silent: int) -> None:
        """Remove members that have been silent for that many milliseconds and have no pending records."""
        if time.monotonic() >= self._next_forget:
            self._next_forget = time.monotonic() + FORGET_AFTER * self._takeover_after
            await self._link.call(b"EVAL", FORGET, 1, self.topic, self.group, silent)

    async def _without_trimmed(self, entries: list[Any]) -> list[Entry]:
        """Acknowledge and leave out records that were trimmed before their work was done."""
        for identifier, fields in entries:
            if fields is None:
                gone = str(identifier, "ascii")
                log.error("record %s of %s was trimmed before group %s acknowledged it", gone, self.topic, self.group)
                await self._link.call(b"XACK", self.topic, self.group, identifier)
        return [entry for entry in entries if entry[1] is not None]

    async def _without_poison(self, entries: list[Entry]) -> list[Entry]:
        if not entries:
            return []
        first, last = entries[0][0], entries[-1][0]
        pending = await self._link.call(b"XPENDING", self.topic, self.group, first, last, len(entries), self.member)
        tried = {identifier: count - 1 for identifier, _member, _idle, count in pending}
        for identifier, fields in entries:
            if tried.get(identifier, 0) >= self._tries:
                await self._set_aside(identifier, fields, tried[identifier])
        return [entry for entry in entries if tried.get(entry[0], 0) < self._tries]

    async def _set_aside(self, identifier: bytes, fields: list[bytes], tried: int) -> None:
        stream = f"{self.topic}:set-aside:{self.group}"
        log.error("record %s of %s failed %d times; moved to %s", str(identifier, "ascii"), self.topic, tried, stream)
        limit = (b"MAXLEN", b"~", SET_ASIDE_LENGTH)
        move: list[Command] = [
            (b"MULTI",),
            (b"XADD", stream, *limit, b"*", *fields, b"id", identifier, b"tried", tried),
            (b"PEXPIRE", stream, SET_ASIDE_SECONDS * 1000),
            (b"XACK", self.topic, self.group, identifier),
            (b"EXEC",),
        ]
        await self._link.pipeline(move, [])


def trimmed_unread(state: StreamState, groups: Sequence[dict[bytes, Any]], name: str) -> str:
    """Return "7 records" if 7 records were trimmed before a group read them, according to XINFO GROUPS.

    For a group created in the middle of a stream, the number is unknown until it reads: then "perhaps some records".
    """
    for group in groups:
        last, read = str(group[b"last-delivered-id"], "ascii"), group.get(b"entries-read")
        if str(group[b"name"], "utf-8") != name or (state.first is not None and not is_before(last, state.first)):
            continue
        if last == BEGINNING:
            read = read or 0
        if state.newest == last or state.added is None:
            return ""
        if read is None:
            return "perhaps some records"
        lost = state.added - read - state.length
        return f"{lost} records" if lost > 0 else ""
    return ""
