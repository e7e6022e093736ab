"""The article's two builds of the chat, in Python, with their faults. For lesson 07 to take apart: do not deploy them.

    first build     SEND ─► controller ─┬─► XADD chat-stream content "…"      listener: group chat-group, consumer-1
                                        └─► /topic/public, this instance  ◄── /topic/public, this instance
    second build    the same with the field `message`; instead of the listener, a poll every 100 ms, 10 records at most

The faults, by their number in the lesson; each is marked in the code:

    F1   all instances share one group and one consumer name: each record reaches one of them
    F2   the controller answers on the topic, and the listener sends the same message again
    F3   nobody creates the group: the first read fails, and the first build then never reads again
    F4   records that are read are never acknowledged
    F5   the stream is never trimmed
    F6   the builds write different fields: each shows the other's messages as empty
    F7   the second build waits 100 ms between reads, and takes at most 10 records
    F11  the first build writes values as JSON and reads them as plain text: they arrive in quotes

In place of Spring's simple broker, which keeps nothing and knows only its own instance, each instance has a
`MemoryBroker`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Literal, Self

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.app import Application, Call, send_to
from chatlab.chat.destinations import PUBLIC_DESTINATION, PUBLIC_TOPIC
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint.server import ChatServer
from chatlab.tasks import Tasks

logger = logging.getLogger("chatlab.chat.article")

STREAM = "chat-stream"
# The timeout of the first build's container, and the interval of the second's schedule, in seconds.
POLL_TIMEOUT = 1.0
FIXED_RATE = 0.1
COUNT = 10

Build = Literal["first", "second"]


class ArticleMessage(msgspec.Struct):
    """The article's ChatMessage."""

    content: str | None = None


async def start(
    redis_url: str,
    *,
    build: Build = "first",
    host: str = "127.0.0.1",
    port: int = 0,
    origins: Sequence[str] = ("*",),
) -> ArticleServer:
    """Start an instance of one of the builds. Raise OSError if the port is taken."""
    server = ArticleServer(Redis.from_url(redis_url), build)
    try:
        await server.listen(host, port, origins)
    except BaseException:
        await server.aclose()
        raise
    return server


class ArticleServer:
    """A running instance. `faults` are the errors its reader met, in order."""

    def __init__(self, redis: Redis, build: Build) -> None:
        self.build = build
        self.faults: list[str] = []
        self._redis = redis
        self._simple_broker = MemoryBroker()
        self._server: ChatServer | None = None
        self._tasks = Tasks(logger)

    @property
    def url(self) -> str:
        """The URL for STOMP clients."""
        return self._server.url if self._server is not None else ""

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._server.port if self._server is not None else 0

    async def listen(self, host: str, port: int, origins: Sequence[str]) -> None:
        """Start listening, and start reading the stream."""
        app = first_controller(self._redis) if self.build == "first" else second_controller(self._redis)
        self._server = await chat_server.start(self._simple_broker, app=app, host=host, port=port, origins=origins)
        read = self._listen if self.build == "first" else self._poll
        self._tasks.start(read(), name=f"reader of the {self.build} build")

    async def aclose(self) -> None:
        """Stop. Records that were read and not acknowledged stay pending (F4)."""
        await self._tasks.aclose()
        if self._server is not None:
            await self._server.aclose()
        await self._simple_broker.aclose()
        await self._redis.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _listen(self) -> None:
        """Run the first build's container: one blocking read after another, until one fails."""
        try:
            while True:
                # F1: every instance calls itself consumer-1 of chat-group. F3: nobody has created that group.
                for fields in await self._read("chat-group", "consumer-1", block=int(POLL_TIMEOUT * 1000)):
                    # F11: JSON from the controller is read as plain text. F4: and nobody acknowledges it.
                    await self._convert_and_send(fields.get(b"content"), _plain)
        except RedisError as error:
            # F3: Spring's container cancels its subscription at the first error, for good.
            self._note(error)

    async def _poll(self) -> None:
        """Run the second build's schedule: again after 100 ms, whatever happens (F7)."""
        while True:
            try:
                # F1 again, with other names.
                for fields in await self._read("group", "consumer", count=COUNT):
                    # F6: the first build's field `content` is not read here. F4: no acknowledgement.
                    await self._convert_and_send(fields.get(b"message"), msgspec.json.decode)
            except RedisError as error:
                self._note(error)
            await asyncio.sleep(FIXED_RATE)

    async def _read(
        self, group: str, consumer: str, *, count: int | None = None, block: int | None = None
    ) -> list[dict[bytes, bytes]]:
        reply: Any = await self._redis.xreadgroup(group, consumer, {STREAM: ">"}, count, block)
        return [fields for _, records in reply or () for _, fields in records]

    async def _convert_and_send(self, value: bytes | None, convert: Callable[[bytes], str]) -> None:
        # F2: the controller of the instance that received it has already sent this to the topic.
        message = ArticleMessage(None if value is None else convert(value))
        await self._simple_broker.publish(PUBLIC_TOPIC, msgspec.json.encode(message))

    def _note(self, error: RedisError) -> None:
        self.faults.append(str(error))
        logger.warning("the reader of the %s build failed: %s", self.build, error)


def _plain(value: bytes) -> str:
    return value.decode()


def first_controller(redis: Redis) -> Application:
    """Return the controller that writes the field `content`."""
    return _controller(lambda value: redis.xadd(STREAM, {"content": value}))  # F5: no MAXLEN


def second_controller(redis: Redis) -> Application:
    """Return the controller that writes the field `message` (F6)."""
    return _controller(lambda value: redis.xadd(STREAM, {"message": value}))


def _controller(add: Callable[[bytes], Awaitable[Any]]) -> Application:
    app = Application()

    @app.message("/chat.sendMessage")
    @send_to(PUBLIC_DESTINATION)
    async def send_message(message: ArticleMessage, call: Call) -> ArticleMessage:
        await add(msgspec.json.encode(message.content))  # F11: the value is JSON, quotes and all
        return message  # F2: it also goes to the topic from here

    return app
