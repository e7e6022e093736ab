"""Support for the checks of lesson 07: a Redis that can be killed, and members that reconnect and repeat.

    async with killable_redis() as redis     a separate Redis for one check, behind a wire
    async with serving(handle) as server     a chat server that runs a learner's handler, on plain WebSockets with JSON
    async with members(...)                  members that reconnect with the last id they received

Members speak the protocol of exercise 07.5: they send {"client_id", "text"}, and receive {"id", "text"} for each record
and {"stored": client_id} for each receipt. Left out: the rules that answers must follow (`lessons/lesson07.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
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
from chatlab.locale import _

__all__ = [
    "KillableRedis",
    "Member",
    "Serving",
    "killable_redis",
    "members",
    "not_reading",
    "serving",
    "without_retries",
]

RECEIPT_SECONDS = 1.0
PAUSE = 0.05  # seconds before a member reconnects
OUTAGES = (OSError, EOFError, RedisError, WebSocketException)  # what an outage raises in a handler

Handle = Callable[[ServerConnection, str], Awaitable[None]]


def without_retries(url: str) -> Redis:
    """Return a client that retries nothing; replies are text."""
    retry = Retry(NoBackoff(), 0)
    return Redis.from_url(url, decode_responses=True, retry=retry, socket_timeout=None)


# --- A Redis that can be killed ---


class KillableRedis:
    """A Redis that keeps what it has confirmed; `wire` leads to it, `direct` is a client that bypasses the wire.

    `stream` is a unique name for a stream: a Redis that was not started here may be in use by others.
    """

    def __init__(self, engine: engines.Engine, wire: Wire) -> None:
        self.stream = f"chat-{uuid.uuid4().hex[:8]}"
        self.engine = engine
        self.wire = wire
        self.direct: Any = without_retries(engine.url)  # the type of a reply depends on the command

    @property
    def attempts(self) -> int:
        """The number of connections made to the wire."""
        return max((record.connection for record in self.wire.trace.records), default=0)

    def kill(self) -> None:
        """Kill the process. If it was not started here, reset the connections to it instead."""
        if self.engine.folder is None:
            self.wire.reset()
        else:
            self.engine.kill()

    async def restart(self) -> None:
        """Restart it with its data."""
        if self.engine.folder is not None:
            await self.engine.restart()
        await self.direct.connection_pool.disconnect()  # its connections are dead

    async def clean_up(self) -> None:
        """Delete every key that has the stream's name in its own, if this Redis continues to run."""
        if self.engine.folder is None and (keys := [key async for key in self.direct.scan_iter(f"*{self.stream}*")]):
            await self.direct.delete(*keys)


@contextlib.asynccontextmanager
async def killable_redis() -> AsyncIterator[KillableRedis]:
    """Start a Redis for one check, behind a wire; it writes every record to disk before it answers."""
    async with await _own_redis() as engine, Wire(engine.url) as wire:
        redis = KillableRedis(engine, wire)
        try:
            yield redis
        finally:
            await redis.clean_up()
            await redis.direct.aclose()


async def _own_redis() -> engines.Engine:
    """Start a Redis that can be killed; without a program to start, use the one that the environment names."""
    try:
        return await engines.start("redis", options={"appendfsync": "always"}, own=True)
    except EngineMissing:
        return await engines.start("redis")


# --- A server that runs a learner's handler ---


class Serving:
    """A running server: its URL, its connections, and the errors of its handler that no outage explains."""

    def __init__(self) -> None:
        self.url = ""
        self.open: dict[ServerConnection, asyncio.Task[None] | None] = {}
        self.errors: list[Exception] = []

    def abort(self) -> None:
        """Abort all its connections at once, as if its process had been killed."""
        for connection in self.open:
            connection.transport.abort()


@contextlib.asynccontextmanager
async def serving(handle: Handle) -> AsyncIterator[Serving]:
    """Serve with `handle(socket, after)`; `after` comes from the member's URL, "0-0" without one."""
    server = Serving()

    async def run(connection: ServerConnection) -> None:
        server.open[connection] = asyncio.current_task()
        try:
            query = parse_qs(urlsplit(connection.request.path if connection.request else "").query)
            await handle(connection, query.get("after", ["0-0"])[0])
        except Exception as error:
            server.errors += [each for each in _flattened(error) if not isinstance(each, OUTAGES)]
            await connection.close(1011)
        finally:
            del server.open[connection]

    async with serve(run, "127.0.0.1", 0, compression=None, close_timeout=0.2) as listening:
        server.url = f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        try:
            yield server
        finally:
            for task in filter(None, list(server.open.values())):
                task.cancel()  # a handler that never ends must not keep the check from ending


def _flattened(error: Exception) -> list[Exception]:
    """Return the errors of a group and of the groups in it, or the one error."""
    if not isinstance(error, ExceptionGroup):
        return [error]
    return [each for inner in error.exceptions for each in _flattened(inner)]


# --- Members ---


class Member:
    """A member that sends and receives everything across connection losses."""

    def __init__(self, name: str, *urls: str, after: str = "0-0") -> None:
        self.name = name
        self.first = self.last = after
        self.drops_at_receipt = False  # lose the connection when the first receipt arrives, and the receipt with it
        self.shown: list[tuple[str, str]] = []  # (id, text)
        self.stored: set[str] = set()  # the client_ids of receipts
        self.confirmed: list[str] = []  # texts with a receipt
        self.reconnections = -1  # 0 from the first connection on
        self._urls = urls
        self._socket: ClientConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    @property
    def texts(self) -> list[str]:
        """The texts this member was shown."""
        return [text for __, text in self.shown]

    async def until(self, condition: Callable[[], bool], timeout: float = 1.0) -> bool:
        """Wait until `condition()` is true; return whether that happened in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        return condition()

    async def send(self, text: str, client_id: str) -> None:
        """Send once. Raises the error of a lost connection."""
        await self.until(lambda: self._socket is not None)
        if self._socket is None:
            raise ConnectionError(_("not connected"))
        await self._socket.send(json.dumps({"client_id": client_id, "text": text}, ensure_ascii=False))

    async def say(self, text: str, client_id: str = "") -> None:
        """Send `text` with the same client_id, a new one if none is given, until its receipt arrives."""
        client_id = client_id or uuid.uuid4().hex
        while client_id not in self.stored:
            await self.until(lambda: self._socket is not None)
            connection = self.reconnections
            with contextlib.suppress(OSError, WebSocketException):
                await self.send(text, client_id)
            await self.until(
                lambda connection=connection: client_id in self.stored or self.reconnections > connection,  # type: ignore[misc]  # mypy cannot infer a lambda's default
                RECEIPT_SECONDS,
            )
        self.confirmed.append(text)

    def start(self) -> None:
        """Connect, and reconnect after every loss."""
        self._task = asyncio.create_task(self._run(), name=self.name)

    async def leave(self) -> None:
        """Disconnect without a close."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            self.reconnections += 1
            self._changed.set()
            url = self._urls[self.reconnections % len(self._urls)]
            with contextlib.suppress(OSError, WebSocketException):
                connection = await connect(f"{url}/?after={quote(self.last)}", compression=None, proxy=None)
                try:
                    self._socket = connection
                    self._changed.set()
                    async for message in connection:
                        if self._is_lost(received := json.loads(message)):
                            break
                        self._receive(received)
                finally:
                    self._socket = None
                    connection.transport.abort()
            await asyncio.sleep(PAUSE)

    def _is_lost(self, message: dict[str, str]) -> bool:
        lost = self.drops_at_receipt and "stored" in message
        self.drops_at_receipt = self.drops_at_receipt and not lost
        return lost

    def _receive(self, message: dict[str, str]) -> None:
        if "stored" in message:
            self.stored.add(message["stored"])
        else:
            self.shown.append((message["id"], message["text"]))
            self.last = message["id"]
        self._changed.set()


@contextlib.asynccontextmanager
async def not_reading(url: str) -> AsyncIterator[None]:
    """Connect a member that does not read, through a socket with a small buffer."""
    parts = urlsplit(url)
    sock = socket.socket(socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # before it is connected: tcp(7)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (parts.hostname, parts.port))
    connection = await connect(url, sock=sock, compression=None, max_queue=1, ping_interval=None, proxy=None)
    try:
        yield
    finally:
        connection.transport.abort()


@contextlib.asynccontextmanager
async def members(*people: Member) -> AsyncIterator[None]:
    """Start members; disconnect them at the end."""
    for each in people:
        each.start()
    try:
        yield
    finally:
        await asyncio.gather(*(each.leave() for each in people))
