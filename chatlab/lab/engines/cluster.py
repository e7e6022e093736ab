"""Several `chatlab serve chat` processes on one broker, to be killed and brought back, and a balancer to put in front.

    cluster = await lab.start("cluster", Cluster(await lab.redis(), instances=2).start())
    cluster.kill(0)                # SIGKILL: no goodbye
    await cluster.restart(0)       # on the port it had
    balancer = await cluster.balance()

They are the processes one would deploy, started by the same command line. Each ends when its standard input does, and
the writing end of that pipe is in our hands: when we die, by whatever signal, the kernel closes it, and they go too.

Left out: supervision (what was killed stays dead until `restart`), and the balancer does no health checks: it learns
that an instance is gone, or going, when a request is refused, and asks the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import subprocess
import sys
import threading
import zlib
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from chatlab.errors import SetupError

__all__ = ["Balancer", "Cluster", "Instance"]

HOST = "127.0.0.1"
SECONDS_TO_START = 20.0
SECONDS_TO_STOP = 15.0
LINES_OF_LOG = 1000


@dataclass(frozen=True, slots=True)
class _Life:
    """One process from its start to its end. The futures are thread-safe: a thread waits, any event loop may ask."""

    process: subprocess.Popen[str]
    listening: Future[str]
    ended: Future[int]


class Instance:
    """One server process; it keeps its number, its port and its log from one life to the next."""

    def __init__(self, number: int, command: Sequence[str]) -> None:
        self.number = number
        self.url = ""
        self.log: deque[str] = deque(maxlen=LINES_OF_LOG)
        self._command = command
        self._port = _ReservedPort()
        self._life: _Life | None = None

    @property
    def port(self) -> int:
        """The port it listens on, in this life and the next."""
        return self._port.number

    @property
    def pid(self) -> int | None:
        """The process id, or None when it is dead."""
        return self._life.process.pid if self._life and self.alive else None

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._life is not None and self._life.process.poll() is None

    async def start(self) -> None:
        """Start the process and wait until it listens. Raises `SetupError` with its last words if it does not."""
        life = self._life = self._spawn()
        try:
            async with asyncio.timeout(SECONDS_TO_START):
                self.url = await asyncio.wrap_future(life.listening)
        except TimeoutError:
            self.kill()
            raise SetupError(
                f"instance {self.number} did not listen within {SECONDS_TO_START:g} s: {self._last_words()}"
            ) from None
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """SIGKILL: it has no chance to say anything. Returns when it is dead."""
        if self._life is not None:
            self._life.process.kill()
            self._life.process.wait()

    async def stop(self) -> int | None:
        """SIGTERM, then wait: it drains and leaves by itself. Returns its exit status; None if it was dead."""
        if self._life is None or not self.alive:
            return None
        self._life.process.terminate()
        try:
            async with asyncio.timeout(SECONDS_TO_STOP):
                return await asyncio.wrap_future(self._life.ended)
        finally:
            self.kill()  # for the one that would not leave, and when the wait was cancelled

    def release(self) -> None:
        """Give the port back; there will be no further life."""
        self._port.close()

    def _spawn(self) -> _Life:
        process = subprocess.Popen(
            [*self._command, "--host", HOST, "--port", str(self.port), "--until-stdin-ends"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        life = _Life(process, Future(), Future())
        for future in (life.listening, life.ended):
            future.set_running_or_notify_cancel()  # whoever gives up waiting must not cancel it for the others
        threading.Thread(target=self._follow, args=[life], name=f"log of instance {self.number}", daemon=True).start()
        return life

    def _follow(self, life: _Life) -> None:
        """Keep what the process writes, see it become ready, see it end."""
        with life.process as process:  # closes the pipes
            assert process.stdout is not None
            for line in process.stdout:
                self.log.append(line.rstrip())
                if line.startswith("listening on ") and not life.listening.done():
                    life.listening.set_result(line.split()[2])
        if not life.listening.done():
            words = f"instance {self.number} ended with status {process.returncode}: {self._last_words()}"
            life.listening.set_exception(SetupError(words))
        life.ended.set_result(process.returncode)

    def _last_words(self) -> str:
        return self.log[-1] if self.log else "it said nothing"


class Cluster:
    """`instances` server processes on one broker URL; `options` go to every command line as they are."""

    def __init__(self, broker: str, instances: int = 2, *, serve: str = "chat", options: Sequence[str] = ()) -> None:
        # -P: a file in the learner's folder must not be taken for a module of the same name.
        self._command = [sys.executable, "-P", "-m", "chatlab.cli", "serve", serve, "--broker", broker, *options]
        self.instances = [Instance(number, self._command) for number in range(instances)]
        self.balancer: Balancer | None = None

    @property
    def urls(self) -> list[str]:
        """The URL of each instance, dead or alive."""
        return [instance.url for instance in self.instances]

    async def start(self) -> Self:
        """Start all instances at once and wait until each listens; if one fails, none stays."""
        try:
            await asyncio.gather(*(instance.start() for instance in self.instances))
        except BaseException:
            await self.aclose()
            raise
        return self

    async def add(self) -> Instance:
        """Start one more instance; the balancer, if there is one, sends it its share from now on."""
        instance = Instance(len(self.instances), self._command)
        try:
            await instance.start()
        except BaseException:
            instance.release()
            raise
        self.instances.append(instance)
        if self.balancer is not None:
            self.balancer.targets.append(_address(instance.url))
        return instance

    async def scale(self, count: int) -> None:
        """Have the first `count` instances run and no others: those missing are started, the rest stopped politely."""
        for instance in self.instances[:count]:
            if not instance.alive:
                await instance.start()
        while len(self.instances) < count:
            await self.add()
        await asyncio.gather(*(instance.stop() for instance in self.instances[count:]))

    def kill(self, number: int) -> None:
        """SIGKILL one instance."""
        self.instances[number].kill()

    async def stop(self, number: int) -> int | None:
        """SIGTERM one instance and wait until it has drained; its exit status."""
        return await self.instances[number].stop()

    async def restart(self, number: int) -> None:
        """Bring one instance back on its port; if it is alive, it is stopped politely first."""
        await self.instances[number].stop()
        await self.instances[number].start()

    async def rolling_restart(self) -> None:
        """Restart all, one after another, as a new version is rolled out."""
        for instance in self.instances:
            await self.restart(instance.number)

    async def balance(self) -> Balancer:
        """Start a balancer in front of all instances; it ends with the cluster."""
        if self.balancer is None:
            self.balancer = await Balancer.start(self.urls)
        return self.balancer

    async def aclose(self) -> None:
        """Stop every instance, politely where it can be, and the balancer."""
        try:
            await asyncio.gather(*(instance.stop() for instance in self.instances), return_exceptions=True)
        finally:
            for instance in self.instances:
                instance.kill()
                instance.release()
        if self.balancer is not None:
            await self.balancer.aclose()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"{sum(instance.alive for instance in self.instances)} of {len(self.instances)} instances alive"


class _ReservedPort:
    """A port that stays ours while nobody listens on it.

    Between `kill` and `restart` the port is free for all, and clients that try again and again would take it: TCP lets
    a connection to a closed local port meet itself when the kernel picks that port for its own end (RFC 9293, section
    3.5, simultaneous open). A socket that is bound but never listens keeps the port from being picked. A server that
    sets SO_REUSEADDR may still bind it, on Linux; elsewhere it could not, so there the port is only remembered.
    """

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((HOST, 0))
        self.number: int = self._socket.getsockname()[1]
        if sys.platform != "linux":
            self._socket.close()

    def close(self) -> None:
        """Give it back."""
        self._socket.close()


# The sessions of SockJS's HTTP transports: PREFIX/SERVER/SESSION/TRANSPORT, neither id with a dot in it
# (SockJS protocol 0.3.3, "Session URLs"). All requests of one session must reach the process that holds it.
SOCKJS_SESSION = re.compile(rb"^[A-Z]+ (?:/[^/ ]+)*/([^/. ]+/[^/. ]+)/(?:xhr|xhr_send|xhr_streaming|eventsource)[? ]")
LARGEST_HEAD = 64 * 1024
SECONDS_FOR_HEAD = 10.0
NOBODY_THERE = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

Address = tuple[str, int]
Answer = tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]  # from an instance, to it, its first bytes


class Balancer:
    """A small HTTP and WebSocket balancer: round robin, past the dead and the leaving; SockJS sessions stay put.

    Each connection carries one request, because the next one on it may belong to a session elsewhere: requests that do
    not upgrade are passed on with `Connection: close`. Start it with `await Balancer.start(urls)`.
    """

    def __init__(self, targets: Sequence[Address], path: str) -> None:
        self.targets = list(targets)
        self.url = ""
        self.port = 0
        self._path = path
        self._next = 0
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @classmethod
    async def start(cls, urls: Sequence[str], *, host: str = HOST, port: int = 0) -> Self:
        """Listen on `port` and pass connections on to the servers at `urls` (their path is taken for our own URL)."""
        balancer = cls([_address(url) for url in urls], urlsplit(urls[0]).path)
        balancer._server = await asyncio.start_server(balancer._accept, host, port, limit=LARGEST_HEAD)
        balancer.port = balancer._server.sockets[0].getsockname()[1]
        balancer.url = f"ws://{host}:{balancer.port}{balancer._path}"
        return balancer

    @property
    def page_url(self) -> str:
        """Where a browser opens the page of the instance whose turn it is."""
        return f"http://{urlsplit(self.url).netloc}/"

    async def aclose(self) -> None:
        """Stop listening and drop every connection."""
        if self._server is not None:
            self._server.close()
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._carry(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its request's head until the instance has said all."""
        writers = [writer]
        try:
            async with asyncio.timeout(SECONDS_FOR_HEAD):
                head = await reader.readuntil(b"\r\n\r\n")
            if answer := await self._ask(head):
                there, back, first = answer
                writers.append(back)
                writer.write(first)
                await _both_ways(reader, back, there, writer)
            else:
                writer.write(NOBODY_THERE)
        except* (OSError, EOFError, asyncio.LimitOverrunError, asyncio.CancelledError):
            # One side is gone, or we are: the other learns it at once, as it would without us in between.
            for each in writers:
                each.transport.abort()
        finally:
            for each in writers:
                each.close()

    async def _ask(self, head: bytes) -> Answer | None:
        """The first instance that takes the request, beginning with the one whose turn it is, or whose session."""
        first = self._turn(head)
        for step in range(len(self.targets)):
            with contextlib.suppress(OSError):
                if answer := await _ask_one(self.targets[(first + step) % len(self.targets)], head):
                    return answer
        return None

    def _turn(self, head: bytes) -> int:
        if session := SOCKJS_SESSION.match(head):
            return zlib.crc32(session[1])
        self._next += 1
        return self._next - 1


async def _ask_one(address: Address, head: bytes) -> Answer | None:
    """Pass the request on to one instance; None if it is about to stop."""
    there, back = await asyncio.open_connection(*address)
    try:
        back.write(_as_the_only_request(head))
        if not head.startswith(b"GET "):
            return there, back, b""  # its body is still to come, and can be sent once only
        # RFC 9110, section 9.2.2: a request with an idempotent method "can be repeated automatically if a communication
        # failure occurs before the client is able to read the server's response". That is how a stop looks from here.
        first = await there.read(64 * 1024)
        if first and not first.startswith(b"HTTP/1.1 503 "):
            return there, back, first
        back.close()
        return None
    except BaseException:
        back.transport.abort()
        raise


def _address(url: str) -> Address:
    parts = urlsplit(url)
    assert parts.hostname is not None and parts.port is not None, url
    return parts.hostname, parts.port


def _as_the_only_request(head: bytes) -> bytes:
    """The head with `Connection: close` in place of what it says; an upgrade is left alone (RFC 9112, section 9.6)."""
    request, *fields = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    if any(field.lower().startswith(b"upgrade:") for field in fields):
        return head
    kept = [field for field in fields if not field.lower().startswith((b"connection:", b"keep-alive:"))]
    return b"\r\n".join([request, *kept, b"Connection: close", b"", b""])


async def _both_ways(
    reader: asyncio.StreamReader, back: asyncio.StreamWriter, there: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Carry bytes in both directions until the instance ends its own; what fails in one direction ends both."""
    async with asyncio.TaskGroup() as directions:
        upward = directions.create_task(_copy(reader, back))
        await _copy(there, writer)
        upward.cancel()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes on as they come, no faster than they are taken; pass the end on, too."""
    while data := await reader.read(64 * 1024):
        writer.write(data)
        await writer.drain()
    writer.write_eof()
