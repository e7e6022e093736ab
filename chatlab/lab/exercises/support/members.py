"""What the checks of lesson 07 need: a Redis that may be killed, and members who return and repeat what got lost.

    async with mortal_redis() as redis       a Redis of the check's own, behind a wire
    async with serving(handle) as server     a chat server around a learner's handler, on plain WebSockets with JSON
    async with members(...)                  members who come back with the last id they saw

Members speak the protocol of exercise 07.5: they send {"client_id", "text"}, and are sent {"id", "text"} for each
record and {"stored": client_id} for each receipt. Left out: what is right or wrong (`lessons/lesson07.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import WebSocketException

from chatlab.errors import EngineMissing
from chatlab.lab.engines import engine as engines
from chatlab.lab.wire.wire import Wire

__all__ = ["Member", "MortalRedis", "Serving", "members", "mortal_redis", "serving", "without_retries"]

RECEIPT_SECONDS = 1.0
PAUSE = 0.05  # seconds before a member tries again
LOSSES = (OSError, EOFError, RedisError, WebSocketException)  # what an outage does to a handler

Handle = Callable[[ServerConnection, str], Awaitable[None]]


def without_retries(url: str) -> Redis:
    """A client that tries nothing twice by itself; replies are text."""
    retry = Retry(NoBackoff(), 0)
    return Redis.from_url(url, decode_responses=True, retry=retry, socket_timeout=None)


# --- A Redis that may be killed ---


class MortalRedis:
    """A Redis that keeps what it has confirmed; `wire` leads to it, `direct` is a client that goes past the wire.

    `stream` is a name for a stream that nobody else has: one that was not started here may be in use by others.
    """

    def __init__(self, engine: engines.Engine, wire: Wire) -> None:
        self.stream = f"chat-{uuid.uuid4().hex[:8]}"
        self.engine = engine
        self.wire = wire
        self.direct: Any = without_retries(engine.url)  # replies differ by what is asked, and so do their types

    @property
    def attempts(self) -> int:
        """How many connections have been made to the wire."""
        return max((record.connection for record in self.wire.trace.records), default=0)

    def kill(self) -> None:
        """End it without a goodbye. One that was not started here cannot be killed: then the line to it is cut."""
        if self.engine.folder is None:
            self.wire.reset()
        else:
            self.engine.kill()

    async def restart(self) -> None:
        """Bring it back, with what it had."""
        if self.engine.folder is not None:
            await self.engine.restart()
        await self.direct.connection_pool.disconnect()  # those it had are dead

    async def forget(self) -> None:
        """Leave nothing behind where it lives on: what has the stream's name in its own is deleted."""
        if self.engine.folder is None and (keys := [key async for key in self.direct.scan_iter(f"*{self.stream}*")]):
            await self.direct.delete(*keys)


@contextlib.asynccontextmanager
async def mortal_redis() -> AsyncIterator[MortalRedis]:
    """A Redis that puts every record on disk before it answers, behind a wire, for one check alone."""
    async with await _redis_of_our_own() as engine, Wire(engine.url) as wire:
        redis = MortalRedis(engine, wire)
        try:
            yield redis
        finally:
            await redis.forget()
            await redis.direct.aclose()


async def _redis_of_our_own() -> engines.Engine:
    """One to be killed; where no program is here to start, the one that the environment names has to do."""
    try:
        return await engines.start("redis", options={"appendfsync": "always"}, own=True)
    except EngineMissing:
        return await engines.start("redis")


# --- A server around a learner's handler ---


class Serving:
    """A running server: where it is, who is on it, and the errors its handler raised that no outage explains."""

    def __init__(self) -> None:
        self.url = ""
        self.open: dict[ServerConnection, asyncio.Task[None] | None] = {}
        self.errors: list[Exception] = []

    def abort(self) -> None:
        """Lose all its connections at once, as if its process had been killed."""
        for socket in self.open:
            socket.transport.abort()


@contextlib.asynccontextmanager
async def serving(handle: Handle) -> AsyncIterator[Serving]:
    """Serve with `handle(socket, after)`; `after` is what the member's URL says, or "0-0"."""
    server = Serving()

    async def run(socket: ServerConnection) -> None:
        server.open[socket] = asyncio.current_task()
        try:
            asked = parse_qs(urlsplit(socket.request.path if socket.request else "").query)
            await handle(socket, asked.get("after", ["0-0"])[0])
        except Exception as error:
            server.errors += [each for each in _single(error) if not isinstance(each, LOSSES)]
            await socket.close(1011)
        finally:
            del server.open[socket]

    async with serve(run, "127.0.0.1", 0, compression=None, close_timeout=0.2) as listening:
        server.url = f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        try:
            yield server
        finally:
            for task in filter(None, list(server.open.values())):
                task.cancel()  # a handler that never ends must not keep the check from ending


def _single(error: Exception) -> list[Exception]:
    """The errors in a group, or the one there is."""
    if not isinstance(error, ExceptionGroup):
        return [error]
    return [each for inner in error.exceptions for each in _single(inner)]


# --- Members ---


class Member:
    """Somebody who reads and says everything, whatever happens to the connection in between."""

    def __init__(self, name: str, *urls: str, after: str = "0-0") -> None:
        self.name = name
        self.last = after
        self.shown: list[tuple[str, str]] = []  # (id, text)
        self.stored: set[str] = set()  # the client_ids of receipts
        self.kept: list[str] = []  # texts for which a receipt came
        self.returns = -1
        self._urls = urls
        self._socket: ClientConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    @property
    def texts(self) -> list[str]:
        """What this member was shown."""
        return [text for _, text in self.shown]

    async def until(self, condition: Callable[[], bool], timeout: float = 1.0) -> bool:
        """Wait until `condition()` holds; False if it does not in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not condition():
                    self._news.clear()
                    await self._news.wait()
        return condition()

    async def send(self, text: str, client_id: str) -> None:
        """Send once; an error of the connection is raised."""
        await self.until(lambda: self._socket is not None)
        if self._socket is None:
            raise ConnectionError("not connected")
        await self._socket.send(json.dumps({"client_id": client_id, "text": text}, ensure_ascii=False))

    async def say(self, text: str) -> None:
        """Send `text` until its receipt has come, always under the same client_id."""
        client_id = uuid.uuid4().hex
        while client_id not in self.stored:
            await self.until(lambda: self._socket is not None)
            connection = self.returns
            with contextlib.suppress(OSError, WebSocketException):
                await self.send(text, client_id)
            await self.until(
                lambda connection=connection: client_id in self.stored or self.returns > connection,  # type: ignore[misc]  # mypy cannot infer a lambda's default
                RECEIPT_SECONDS,
            )
        self.kept.append(text)

    def start(self) -> None:
        """Connect, and come back for ever."""
        self._task = asyncio.create_task(self._run(), name=self.name)

    async def leave(self) -> None:
        """Vanish, without a close."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            self.returns += 1
            self._news.set()
            url = self._urls[self.returns % len(self._urls)]
            with contextlib.suppress(OSError, WebSocketException):
                socket = await connect(f"{url}/?after={quote(self.last)}", compression=None, proxy=None)
                try:
                    self._socket = socket
                    self._news.set()
                    async for message in socket:
                        self._take(json.loads(message))
                finally:
                    self._socket = None
                    socket.transport.abort()
            await asyncio.sleep(PAUSE)

    def _take(self, said: dict[str, str]) -> None:
        if "stored" in said:
            self.stored.add(said["stored"])
        else:
            self.shown.append((said["id"], said["text"]))
            self.last = said["id"]
        self._news.set()


@contextlib.asynccontextmanager
async def members(*people: Member) -> AsyncIterator[None]:
    """Start them, and let them vanish in the end."""
    for each in people:
        each.start()
    try:
        yield
    finally:
        await asyncio.gather(*(each.leave() for each in people))
