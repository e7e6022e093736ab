"""Support for the checks that use Redis: names, clients and brokers on the kernel's Redis.

    async with fresh("room") as topic        a unique name; what was stored under it is deleted afterwards
    async with client(taps) as redis         a client whose exchanges with the server can be counted, or broken
    async with watched_broker() as broker    a broker on Redis Streams that counts its readers, and can block a publish

Nothing here is a mock: everything is passed on to the real server; the faults are added on the way.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Literal, TypeVar

from redis.asyncio import BlockingConnectionPool, Connection, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from chatlab.brokers.port import GroupConsumer, Reader
from chatlab.brokers.redis.streams import RedisStreamsBroker
from chatlab.lab.runtime import lab

__all__ = [
    "Action",
    "Moment",
    "Tap",
    "Taps",
    "WatchedBroker",
    "break_off",
    "client",
    "fresh",
    "tapped",
    "watched_broker",
]

Moment = Literal["before", "after"]
Action = Callable[[], Awaitable[None]]
Result = TypeVar("Result")
COMMAND = re.compile(rb"\*\d+\r\n\$\d+\r\n([A-Za-z]+)\r\n")  # as it is packed


@contextlib.asynccontextmanager
async def fresh(name: str) -> AsyncIterator[str]:
    """Return a unique name for a topic or a stream. At the end, delete every key whose name contains it."""
    unique = f"{name}-{uuid.uuid4().hex[:8]}"
    async with Redis.from_url(await lab.redis()) as redis:
        try:
            yield unique
        finally:
            if keys := [key async for key in redis.scan_iter(match=f"*{unique}*")]:
                await redis.delete(*keys)


# --- A client and its faults ---


class Tap:
    """Sees the commands of a client.

    `pending` counts those that the server has not answered yet: as long as it is not 0, somebody waits for the server.
    """

    def __init__(self) -> None:
        self.pending = 0

    async def before(self, commands: Sequence[str]) -> Action | None:
        """Act before a command, or a pipeline of them, is sent; return what to do once the server has executed it.

        A `ConnectionResetError` from here, or from what is returned, breaks the connection.
        """
        raise NotImplementedError


class Taps(Tap):
    """The exchanges between a client and the server: `exchanges` counts them, `at` runs an action at one of them.

    An exchange is one command, or one pipeline.
    """

    def __init__(self) -> None:
        super().__init__()
        self.exchanges = 0
        self._actions: dict[tuple[int, Moment], Action] = {}

    def at(self, exchange: int, moment: Moment, action: Action) -> None:
        """Run `action` before the exchange with that number (from 1) is sent, or after the server has executed it."""
        self._actions[exchange, moment] = action

    async def before(self, commands: Sequence[str]) -> Action | None:
        """Count an exchange, and act as `at` planned."""
        self.exchanges += 1
        after = self._actions.pop((self.exchanges, "after"), None)
        if action := self._actions.pop((self.exchanges, "before"), None):
            await action()
        return after


async def break_off() -> None:
    """Lose the connection: an action for a tap."""
    raise ConnectionResetError("the connection broke")  # not shown: an error for the learner's code


class _TappedConnection(Connection):
    """A connection that asks its tap before it sends, and acts after the first reply."""

    def __init__(self, tap: Tap, **options: Any) -> None:  # redis-py's own arguments, passed on
        super().__init__(**options)
        self._tap = tap
        self._after: Action | None = None
        self._greeting = False
        self._waiting = False

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        self._greeting = True  # the client's own commands do not count
        try:
            await super().on_connect_check_health(check_health)
        finally:
            self._greeting = False

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        if not self.is_connected:
            await self.connect()  # type: ignore[no-untyped-call]  # redis-py's gap
        if not self._greeting:
            self._after = await self._unless_broken(self._tap.before(_names(command)))
            self._is_waiting(True)
        await super().send_packed_command(command, check_health)

    async def read_response(self, *arguments: Any, **options: Any) -> Any:  # redis-py's own, passed on
        try:
            reply = await super().read_response(*arguments, **options)
        finally:
            self._is_waiting(False)
        after, self._after = self._after, None
        if after is not None:
            await self._unless_broken(after())
        return reply

    def _is_waiting(self, waiting: bool) -> None:
        self._tap.pending += waiting - self._waiting
        self._waiting = waiting

    async def _unless_broken(self, action: Awaitable[Result]) -> Result:
        try:
            return await action
        except ConnectionResetError as error:
            await self.disconnect(nowait=True)
            raise RedisConnectionError(str(error)) from error


def _names(command: bytes | str | Iterable[bytes]) -> list[str]:
    """Return the names of the commands in packed ones, in capitals."""
    packed = (
        command if isinstance(command, bytes) else command.encode() if isinstance(command, str) else b"".join(command)
    )
    return [name.decode().upper() for name in COMMAND.findall(packed)]


def tapped(url: str, tap: Tap, *, decode: bool = True) -> Redis:
    """Return a client that retries nothing and asks `tap` at each command; with `decode`, replies are text."""
    return Redis.from_pool(
        BlockingConnectionPool.from_url(
            url,
            connection_class=_TappedConnection,
            tap=tap,
            decode_responses=decode,
            socket_timeout=None,  # a blocking read has its own limit
            retry=Retry(NoBackoff(), 0),
            timeout=None,
        )
    )


@contextlib.asynccontextmanager
async def client(taps: Taps | None = None, *, decode: bool = True) -> AsyncIterator[Redis]:
    """Return a client of the kernel's Redis that retries nothing; with `decode`, replies are text."""
    async with tapped(await lab.redis(), taps or Taps(), decode=decode) as redis:
        yield redis


# --- A broker and its faults ---


class WatchedBroker:
    """A broker that keeps a list of its readers, and in which a publish can be blocked."""

    def __init__(self, broker: RedisStreamsBroker) -> None:
        self._broker = broker
        self.subscriptions: list[Any] = []
        self.shares: list[Any] = []
        self.published = 0
        self.standing = asyncio.Event()  # set while a publish is blocked
        self._block_at: Moment | None = None

    @property
    def open(self) -> int:
        """The number of open subscriptions."""
        return sum(not each.closed for each in self.subscriptions)

    def stand_still(self, moment: Moment) -> None:
        """Block the next publish forever: before the engine has stored the record, or after."""
        self.standing.clear()
        self._block_at = moment

    async def subscribe(self, topic: str, *, after: str | None = None) -> Reader:
        """Subscribe as `KeepsHistory` does."""
        subscription = await self._broker.subscribe(topic, after=after)
        self.subscriptions.append(subscription)
        return subscription

    async def join(self, topic: str, group: str, member: str) -> GroupConsumer:
        """Join a group as `HasGroups` does."""
        share = await self._broker.join(topic, group, member)
        self.shares.append(share)
        return share

    async def publish(self, topic: str, body: bytes) -> str:
        """Publish as `Broker` does."""
        return await self._publish(lambda: self._broker.publish(topic, body))

    async def publish_once(self, topic: str, body: bytes, key: str) -> str:
        """Publish as `Deduplicates` does."""
        return await self._publish(lambda: self._broker.publish_once(topic, body, key))

    async def _publish(self, publish: Callable[[], Awaitable[str]]) -> str:
        block_at, self._block_at = self._block_at, None
        if block_at == "before":
            await self._block()
        id = await publish()
        self.published += 1
        if block_at == "after":
            await self._block()
        return id

    async def _block(self) -> None:
        self.standing.set()
        await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def watched_broker(*, takeover_after: float = 30) -> AsyncIterator[WatchedBroker]:
    """Start a broker on the kernel's Redis; its readers end with it. It never gives up a record that keeps failing."""
    async with RedisStreamsBroker(await lab.redis(), takeover_after=takeover_after, tries=1_000_000) as broker:
        yield WatchedBroker(broker)
