"""The article's two builds of the chat, in Python, with their faults. For lesson 07 to take apart: do not deploy them.

    first build     SEND ─► controller ─┬─► XADD chat-stream content "…"      listener: group chat-group, consumer-1
                                        └─► /topic/public, this instance  ◄── /topic/public, this instance
    second build    the same with the field `message`; instead of the listener, a poll every 100 ms, 10 records at most

They do what the article's own programs did when they were run: tests/original holds them to it, frame by frame and
octet by octet. The faults, by their number in docs/article.md; each is marked in the code:

    F1   all instances share one group and one consumer name: each record reaches one of them
    F2   the controller answers on the topic, and the listener sends the same message again
    F3   nobody creates the group: the first read fails, and the first build then never reads again
    F4   records that are read are never acknowledged
    F5   the stream is never trimmed
    F6   the builds write different fields: each shows the other's messages as empty
    F7   the second build reads every 100 ms, and takes at most 10 records
    F11  field and value are written as serialized Java Strings; the listener looks for `content` in plain text, finds
         nothing, and sends an empty message
    F16  the schedule catches up: after a pause of two seconds come twenty reads at once
    F18  the second build fails on a record that Java did not write, and up to nine others are lost with it
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal, Self

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import RedisError

from chatlab.chat.article import java
from chatlab.chat.article.simple_broker import PATH, Endpoint, Handler, SimpleBroker, listen
from chatlab.stomp.frames import Frame
from chatlab.tasks import Tasks

logger = logging.getLogger("chatlab.chat.article")

STREAM = "chat-stream"
DESTINATION = "/app/chat.sendMessage"
TOPIC = "/topic/public"
# The timeout of the first build's container, and the interval of the second's schedule, in seconds.
POLL_TIMEOUT = 1.0
FIXED_RATE = 0.1
COUNT = 10
COMMAND_TIMEOUT = 60.0  # seconds: Lettuce, Spring's client, repeats what is open when Redis comes back within these

Build = Literal["first", "second"]
FIELDS: dict[Build, str] = {"first": "content", "second": "message"}


async def start(
    redis_url: str,
    *,
    build: Build = "first",
    host: str = "127.0.0.1",
    port: int = 0,
    origins: Sequence[str] = (),
) -> ArticleServer:
    """Start an instance of one of the builds. Raise OSError if the port is taken."""
    patient = Retry(ConstantBackoff(0.1), int(COMMAND_TIMEOUT / 0.1))
    server = ArticleServer(Redis.from_url(redis_url, retry=patient), build)
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
        self._broker = SimpleBroker({DESTINATION: self._controller(FIELDS[build])})
        self._endpoint: Endpoint | None = None
        self._tasks = Tasks(logger)

    @property
    def url(self) -> str:
        """The URL for STOMP clients."""
        return f"ws://{self._endpoint.host}:{self.port}{PATH}" if self._endpoint is not None else ""

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._endpoint.port if self._endpoint is not None else 0

    async def listen(self, host: str, port: int, origins: Sequence[str]) -> None:
        """Start listening, and start reading the stream."""
        self._endpoint = await listen(self._broker, host, port, origins)
        read = self._listen if self.build == "first" else self._poll
        self._tasks.start(read(), name=f"reader of the {self.build} build")

    async def aclose(self) -> None:
        """Stop. Records that were read and not acknowledged stay pending (F4)."""
        await self._tasks.aclose()
        if self._endpoint is not None:
            await self._endpoint.aclose()
        await self._redis.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _controller(self, field: str) -> Handler:
        """Return the handler of a SEND: add the field to the stream, and answer on the topic."""

        async def send_message(frame: Frame) -> None:
            content = _payload(frame)
            if content is None and field == "message":
                raise ValueError("Map.of takes no null")
            value = b"" if content is None else java.serialize(content)
            await self._redis.xadd(STREAM, {java.serialize(field): value})  # F5: no MAXLEN. F11: both are Java objects
            await self._convert_and_send(content)  # F2: it also goes to the topic from here

        return send_message

    async def _listen(self) -> None:
        """Run the first build's container: one blocking read after another, until one fails."""
        try:
            while True:
                # F1: every instance calls itself consumer-1 of chat-group. F3: nobody has created that group.
                for fields in await self._read("chat-group", "consumer-1", block=int(POLL_TIMEOUT * 1000)):
                    # F11: a record of the controller's has no field `content`. F4: and nobody acknowledges it.
                    content = fields.get(b"content")
                    await self._convert_and_send(None if content is None else content.decode(errors="replace"))
        except RedisError as error:
            # F3: Spring's container cancels its subscription at the first error, for good.
            self._note(error)

    async def _poll(self) -> None:
        """Run the second build's schedule: every 100 ms, whatever happens (F7)."""
        due = asyncio.get_running_loop().time()
        while True:
            try:
                await self._consume()
            except (RedisError, ValueError) as error:
                self._note(error)
            due += FIXED_RATE  # F16: from when it was due, not from now: what was missed is made up for
            await asyncio.sleep(due - asyncio.get_running_loop().time())

    async def _consume(self) -> None:
        # F1 again, with other names. F18: all records are read before the first is sent, and one may fail.
        read = await self._read("group", "consumer", count=COUNT)
        for record in [_as_java(fields) for fields in read]:
            await self._convert_and_send(record.get("message"))  # F6: no other field is read. F4: no acknowledgement

    async def _read(
        self, group: str, consumer: str, *, count: int | None = None, block: int | None = None
    ) -> list[dict[bytes, bytes]]:
        reply: Any = await self._redis.xreadgroup(group, consumer, {STREAM: ">"}, count, block)
        return [fields for _, records in reply or () for _, fields in records]

    async def _convert_and_send(self, content: str | None) -> None:
        await self._broker.convert_and_send(TOPIC, java.to_json(content))

    def _note(self, error: Exception) -> None:
        self.faults.append(str(error))
        logger.warning("the reader of the %s build failed: %s", self.build, error)


def _payload(frame: Frame) -> str | None:
    """Return the content of the ChatMessage in a SEND. Raise ValueError where Spring's converters find none."""
    kind = (frame.get("content-type") or "application/json").partition(";")[0].strip()
    if kind != "application/json" and not kind.endswith("+json"):
        raise ValueError(f"no converter for {kind}")
    return java.from_json(frame.body)


def _as_java(fields: dict[bytes, bytes]) -> dict[str | None, str | None]:
    """Return a record's fields and values, all of which must be serialized Java Strings."""
    return {java.deserialize(field): java.deserialize(value) for field, value in fields.items()}
