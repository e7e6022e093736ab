"""Queries about Redis streams: sent on a small pool of connections, and retried while the server is away.

Each query may be repeated without harm, so a restart of the server costs only time: at most `patience` seconds, then
`BrokerUnavailable`. Left out: the commands that write (redis/publisher.py) and the blocking read (redis/follower.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import BusyLoadingError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from chatlab.brokers.names import parse_id
from chatlab.brokers.port import BEGINNING, Page, Record
from chatlab.brokers.redis.connections import url as redis_url
from chatlab.brokers.redis.connections.link import Argument, body_of, naming, why
from chatlab.brokers.redis.position import Position, StreamState, why_overtaken
from chatlab.errors import BrokerClosed, BrokerError, BrokerUnavailable, SubscriptionLost
from chatlab.retry import Backoff, Retry

PAGE = 512  # entries in one read
PAGE_OCTETS = 256 * 1024  # and in one page for a reader that is behind, not counting its last entry
# Return at most ARGV[2] entries after ARGV[1], stopping once their values reach ARGV[3] octets, and whether there are
# more. They are read a few at a time, so that the server reads little more than it returns.
READ_PAGE = """
local page, octets, from, limit = {}, 0, '(' .. ARGV[1], tonumber(ARGV[2])
while #page < limit do
  local asked = math.min(16, limit - #page)
  local some = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', asked)
  for _, entry in ipairs(some) do
    if octets >= tonumber(ARGV[3]) and #page > 0 then return {page, 1} end
    page[#page + 1] = entry
    for i = 2, #entry[2], 2 do octets = octets + #entry[2][i] end
  end
  if #some < asked then return {page, 0} end
  from = '(' .. some[#some][1]
end
return {page, #redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', 1)}
"""
# Walk back from ARGV[1] over at most ARGV[2] entries, not beyond ARGV[3], about 4 MiB at a time; return the id of the
# last entry and their number. Ids travel, bodies do not.
WALK_BACK = """
local from, left, octets, seen = ARGV[1], tonumber(ARGV[2]), 0, 0
local id = ''
while left > 0 and octets < 4194304 do
  local asked = math.min(64, left)
  local some = redis.call('XREVRANGE', KEYS[1], from, '(' .. ARGV[3], 'COUNT', asked)
  for _, entry in ipairs(some) do
    id, seen, left = entry[1], seen + 1, left - 1
    for i = 2, #entry[2], 2 do octets = octets + #entry[2][i] end
  end
  if #some < asked then break end
  from = '(' .. id
end
return {id, seen}
"""
BACKOFF = Backoff(first=0.05, longest=1.0)
AWAY = (RedisConnectionError, RedisTimeoutError, BusyLoadingError, OSError)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Loss:
    """Records that a reader can no longer get: why, and the id to resume after."""

    reason: str
    resume: str
    restarted: bool  # ids start over: earlier ids cannot be compared with later ones

    def error(self, topic: str) -> SubscriptionLost:
        """Return the error to end a reader with."""
        return SubscriptionLost(f"the stream {topic}: {self.reason}", resume=self.resume, restarted=self.restarted)


class StreamQueries:
    """A pool of connections to `url` for queries.

    `patience`: seconds to wait for a server that is away. `timeout`: seconds a server may take to answer.
    """

    def __init__(self, url: str, patience: float, timeout: float) -> None:
        self._patience = patience
        self._timeout = timeout
        # Timeouts are ours (see `_retried`): redis-py's can swallow a cancellation.
        parsed = redis_url.parse(url)
        self._client: Redis = Redis(
            connection_pool=parsed.pool(
                BlockingConnectionPool,
                {
                    **naming(parsed, "questions"),
                    "max_connections": 8,
                    "timeout": None,
                    "protocol": 3,
                    "socket_timeout": None,
                    "socket_connect_timeout": None,
                },
            )
        )
        self._closed = False

    async def ask(self, *command: Argument) -> Any:
        """Return the reply. Raises BrokerUnavailable, BrokerError if the server refuses, BrokerClosed."""
        try:
            return await self._retried(lambda: self._client.execute_command(*command))  # type: ignore[no-untyped-call]  # redis-py's gap
        except ResponseError as error:
            raise BrokerError(str(error)) from error

    async def page(self, topic: str, after: str) -> list[Record]:
        """Return the next records after an id, at most PAGE."""
        return [record_of(topic, *entry) for entry in await self.ask("XRANGE", topic, f"({after}", "+", "COUNT", PAGE)]

    async def bounded_page(self, topic: str, after: str, limit: int, octets: int) -> Page:
        """Return the next records after an id, bounded in number and octets."""
        entries, more = await self.ask("EVAL", READ_PAGE, 1, topic, after, limit, octets)
        return Page([Record(topic, str(id, "ascii"), body_of(fields)) for id, fields in entries], bool(more))

    async def before_newest(self, topic: str, count: int, after: str) -> str | None:
        """Return the id just before the newest `count` records, or None if no more come after `after`."""
        if (await self.state(topic)).length <= count:
            return None
        at, left = "+", count + 1
        while left:
            id, seen = await self.ask("EVAL", WALK_BACK, 1, topic, at, left, after)
            if not seen:
                return None
            left -= seen
            at = f"({str(id, 'ascii')}"
        return at[1:]

    async def state(self, topic: str) -> StreamState:
        """Return a stream's state."""
        return (await self._state_and_record(topic, BEGINNING))[0]

    async def loss(self, topic: str, position: Position, known: str | None = None) -> tuple[Loss | None, StreamState]:
        """Return what a reader at `position` has lost, if anything, and the stream's state.

        `known`: the id of a record the reader received. If it is still there, the stream lost its end but is not new.
        """
        state, kept = await self._state_and_record(topic, position.id)
        reason = why_overtaken(position, state, kept=kept)
        if not reason:
            return None, state
        restarted = is_before(state.newest, position.id)
        if restarted:
            lost_its_end = known is None or state.dropped or (await self._state_and_record(topic, known))[1]
            resume = state.newest if lost_its_end else BEGINNING
        elif state.first is None or is_before(position.id, state.first):
            resume = BEGINNING  # all that is kept comes after the position
        else:
            before = await self.ask("XREVRANGE", topic, f"({position.id}", "-", "COUNT", 1)
            resume = str(before[0][0], "ascii") if before else BEGINNING
        return Loss(reason, resume, restarted), state

    async def unblock(self, client_id: int) -> None:
        """Make the blocking command of another connection return."""
        await self._client.client_unblock(client_id)

    def refuse(self) -> None:
        """Raise BrokerClosed for every query from now on, also for one that waits for the server."""
        self._closed = True

    async def aclose(self) -> None:
        """Close the pool."""
        self.refuse()
        await self._client.aclose()
        await self._client.connection_pool.disconnect()

    async def _state_and_record(self, topic: str, id: str) -> tuple[StreamState, bool]:
        """Return, from one transaction, the stream's state and whether the record `id` is in it."""

        async def ask() -> list[Any]:
            async with self._client.pipeline(transaction=True) as pipeline:
                pipeline.execute_command("XINFO", "STREAM", topic)
                pipeline.execute_command("XRANGE", topic, id, id, "COUNT", 1)
                return list(await pipeline.execute(raise_on_error=False))

        try:
            info, record = await self._retried(ask)
            state = StreamState.parse(info)
            if isinstance(record, Exception):
                raise record
        except ResponseError as error:
            raise BrokerError(str(error)) from error
        return state, bool(record)

    async def _retried(self, question: Callable[[], Awaitable[T]]) -> T:
        try:
            async for attempt in Retry(on=AWAY, backoff=BACKOFF, within=self._patience):
                with attempt:
                    self._require_open()
                    async with asyncio.timeout(self._timeout):
                        return await question()
        except AWAY as error:
            self._require_open()
            raise BrokerUnavailable(f"the broker does not answer: {why(error)}") from error
        raise AssertionError("the last attempt returns or raises")

    def _require_open(self) -> None:
        if self._closed:
            raise BrokerClosed("this broker is closed")


def is_before(one: str, other: str) -> bool:
    """Return whether the id `one` comes before `other`. Raises ValueError if either is not an id."""
    return parse_id(one) < parse_id(other)


def record_of(topic: str, identifier: bytes, fields: dict[bytes, bytes]) -> Record:
    """Return an entry, as redis-py returns it, as a record."""
    return Record(topic, str(identifier, "ascii"), fields.get(b"body", b""))
