"""What the checks of lessons 04 and 05 need of the kernel's own Redis.

    async with fresh("room") as topic        a name nobody else has; what was stored under it is deleted afterwards
    async with client(taps) as redis         a client whose every exchange with the server can be counted, or broken
    async with watched_broker() as broker    a broker on Redis Streams that notes what it is asked, and can stand still

Nothing here is a mock: each passes on to the real server what it is asked, and does its mischief on the way.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Literal

from redis.asyncio import BlockingConnectionPool, Connection, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from chatlab.brokers.port import GroupConsumer, Reader
from chatlab.brokers.redis.streams import RedisStreamsBroker
from chatlab.lab.runtime import lab

__all__ = ["Moment", "Taps", "WatchedBroker", "client", "fresh", "watched_broker"]

Moment = Literal["before", "after"]


@contextlib.asynccontextmanager
async def fresh(name: str) -> AsyncIterator[str]:
    """A name for a topic or a stream. Every key that has it in its own name is deleted at the end."""
    unique = f"{name}-{uuid.uuid4().hex[:8]}"
    async with Redis.from_url(await lab.redis()) as redis:
        try:
            yield unique
        finally:
            if keys := [key async for key in redis.scan_iter(match=f"*{unique}*")]:
                await redis.delete(*keys)


# --- A client, and what can befall it ---


class Taps:
    """What passes between a client and the server: `exchanges` counts it, `at` does something at one of them.

    An exchange is one command, or one pipeline, sent in one go.
    """

    def __init__(self) -> None:
        self.exchanges = 0
        self._actions: dict[tuple[int, Moment], Callable[[], Awaitable[None]]] = {}

    def at(self, exchange: int, moment: Moment, action: Callable[[], Awaitable[None]]) -> None:
        """Run `action` before the exchange of that number (from 1) is sent, or after the server has done it."""
        self._actions[exchange, moment] = action

    async def run(self, moment: Moment) -> bool:
        """Run what is due at this moment, once; whether there was anything."""
        action = self._actions.pop((self.exchanges, moment), None)
        if action is not None:
            await action()
        return action is not None


async def break_off() -> None:
    """An action for `Taps.at`: the connection is lost."""
    raise ConnectionResetError("the connection broke")


class _TappedConnection(Connection):
    """A connection that asks its taps before it sends, and when the first reply has come."""

    def __init__(self, taps: Taps, **options: Any) -> None:
        super().__init__(**options)
        self._taps = taps
        self._greeting = False

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        self._greeting = True  # the client's own commands, which are nobody's exchange
        try:
            await super().on_connect_check_health(check_health)
        finally:
            self._greeting = False

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        if not self.is_connected:
            await self.connect()  # type: ignore[no-untyped-call]  # redis-py's gap
        if not self._greeting:
            self._taps.exchanges += 1
            await self._ask_the_taps("before")
        await super().send_packed_command(command, check_health)

    async def read_response(self, *arguments: Any, **options: Any) -> Any:
        reply = await super().read_response(*arguments, **options)
        if not self._greeting:
            await self._ask_the_taps("after")
        return reply

    async def _ask_the_taps(self, moment: Moment) -> None:
        try:
            await self._taps.run(moment)
        except ConnectionResetError as error:
            await self.disconnect(nowait=True)
            raise RedisConnectionError(str(error)) from error


@contextlib.asynccontextmanager
async def client(taps: Taps | None = None, *, decode: bool = True) -> AsyncIterator[Redis]:
    """A client of the kernel's Redis that tries nothing twice by itself; with `decode`, replies are text."""
    pool = BlockingConnectionPool.from_url(
        await lab.redis(),
        connection_class=_TappedConnection,
        taps=taps or Taps(),
        decode_responses=decode,
        socket_timeout=None,  # a blocking read may take as long as it was told to
        retry=Retry(NoBackoff(), 0),
        timeout=None,
    )
    async with Redis(connection_pool=pool) as redis:
        try:
            yield redis
        finally:
            await pool.disconnect()


# --- A broker, and what can befall it ---


class WatchedBroker:
    """A broker as it is, with a note of who reads from it, and a publish that can be made to stand still."""

    def __init__(self, broker: RedisStreamsBroker) -> None:
        self._broker = broker
        self.subscriptions: list[Any] = []
        self.shares: list[Any] = []
        self.published = 0
        self.standing = asyncio.Event()  # a publish stands still
        self._stand: Moment | None = None

    @property
    def open(self) -> int:
        """How many subscriptions have not been closed."""
        return sum(not each.closed for each in self.subscriptions)

    def stand_still(self, moment: Moment) -> None:
        """Let the next publish wait for ever: before the engine has the record, or when it has it."""
        self.standing.clear()
        self._stand = moment

    async def subscribe(self, topic: str, *, after: str | None = None) -> Reader:
        """Of the port, `KeepsHistory`."""
        subscription = await self._broker.subscribe(topic, after=after)
        self.subscriptions.append(subscription)
        return subscription

    async def join(self, topic: str, group: str, member: str) -> GroupConsumer:
        """Of the port, `HasGroups`."""
        share = await self._broker.join(topic, group, member)
        self.shares.append(share)
        return share

    async def publish(self, topic: str, body: bytes) -> str:
        """Of the port, `Broker`."""
        return await self._publish(lambda: self._broker.publish(topic, body))

    async def publish_once(self, topic: str, body: bytes, key: str) -> str:
        """Of the port, `Deduplicates`."""
        return await self._publish(lambda: self._broker.publish_once(topic, body, key))

    async def _publish(self, publish: Callable[[], Awaitable[str]]) -> str:
        stand, self._stand = self._stand, None
        if stand == "before":
            await self._stand_still()
        id = await publish()
        self.published += 1
        if stand == "after":
            await self._stand_still()
        return id

    async def _stand_still(self) -> None:
        self.standing.set()
        await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def watched_broker(*, takeover_after: float = 30) -> AsyncIterator[WatchedBroker]:
    """A broker on the kernel's Redis; all readers end with it. It sets no work aside, however often it fails."""
    async with RedisStreamsBroker(await lab.redis(), takeover_after=takeover_after, tries=1_000_000) as broker:
        yield WatchedBroker(broker)
