"""Several `chatlab serve chat` processes on one broker, to kill and restart, and a load balancer in front of them.

    cluster = await lab.start("cluster", Cluster(await lab.redis(), instances=2).start())
    cluster.kill(0)                # SIGKILL
    await cluster.restart(0)       # on the port it had
    balancer = await cluster.balance()

These are the processes of a deployment, started by the same command line. Each ends when its standard input ends. This
process holds the writing end of that pipe: when it dies, by whatever signal, the kernel closes the pipe, and the
instances end too.

Left out: supervision (a killed instance stays dead until `restart`) and health checks: the balancer notices that an
instance is dead or stopping when a request is refused, and tries the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
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
from chatlab.locale import _, ngettext

__all__ = ["Balancer", "Cluster", "Instance"]

HOST = "127.0.0.1"
SECONDS_TO_START = 45.0  # a busy laptop imports slowly
SECONDS_TO_STOP = 15.0
LINES_OF_LOG = 1000
READY = "listening on "  # not shown: how a server's line begins once it listens


@dataclass(frozen=True, slots=True)
class _Run:
    """One process from start to end. The futures are thread-safe: a thread sets them, any event loop may wait."""

    process: subprocess.Popen[str]
    listening: Future[str]
    ended: Future[int]


class Instance:
    """One server process; it keeps its number, its port and its log when it is restarted."""

    def __init__(self, number: int, command: Sequence[str]) -> None:
        self.number = number
        self.url = ""
        self.log: deque[str] = deque(maxlen=LINES_OF_LOG)
        self._command = command
        self._port = _ReservedPort()
        self._run: _Run | None = None

    @property
    def port(self) -> int:
        """The port it listens on, kept across restarts."""
        return self._port.number

    @property
    def pid(self) -> int | None:
        """The process id, or None if the process is dead."""
        return self._run.process.pid if self._run and self.alive else None

    @property
    def alive(self) -> bool:
        """Whether the process is running."""
        return self._run is not None and self._run.process.poll() is None

    def holds(self, session: str) -> bool:
        """Return whether this process holds the STOMP session that CONNECTED calls `session`, judging by its log.

        The chat names a session after its process and a number, and logs the first sessions in full.
        """
        process = session.rpartition("-")[0]
        return self.alive and bool(process) and any(f"connection={process}-" in line for line in list(self.log))

    async def start(self) -> None:
        """Start the process and wait until it listens. Raises `SetupError` with its last output if it does not."""
        run = self._run = self._spawn()
        try:
            async with asyncio.timeout(SECONDS_TO_START):
                self.url = await asyncio.wrap_future(run.listening)
        except TimeoutError:
            self.kill()
            failure = _("instance {number} did not listen within {seconds:g} s: {output}").format(
                number=self.number, seconds=SECONDS_TO_START, output=self._last_line()
            )
            raise SetupError(failure) from None
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """Send SIGKILL; return when the process is dead."""
        if self._run is not None:
            self._run.process.kill()
            self._run.process.wait()

    async def stop(self) -> int | None:
        """Send SIGTERM and wait until it has drained; return its exit status, or None if it was dead already."""
        if self._run is None or not self.alive:
            return None
        self._run.process.terminate()
        try:
            async with asyncio.timeout(SECONDS_TO_STOP):
                return await asyncio.wrap_future(self._run.ended)
        finally:
            self.kill()  # if it did not end in time, or the wait was cancelled

    def release(self) -> None:
        """Release the port; the instance is not started again."""
        self._port.close()

    def _spawn(self) -> _Run:
        process = subprocess.Popen(
            [*self._command, "--host", HOST, "--port", str(self.port), "--until-stdin-ends"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "CHATLAB_LANG": "en"},  # `_follow` reads its output
        )
        run = _Run(process, Future(), Future())
        for future in (run.listening, run.ended):
            future.set_running_or_notify_cancel()  # a waiter that is cancelled must not cancel the future for others
        threading.Thread(target=self._follow, args=[run], name=f"log-{self.number}", daemon=True).start()
        return run

    def _follow(self, run: _Run) -> None:
        """Keep the process's output, and set the futures when it is ready and when it ends."""
        with run.process as process:  # closes the pipes
            assert process.stdout is not None
            for line in process.stdout:
                self.log.append(line.rstrip())
                if line.startswith(READY) and not run.listening.done():
                    run.listening.set_result(line.removeprefix(READY).split()[0])
        if not run.listening.done():
            failure = _("instance {number} ended with status {status}: {output}").format(
                number=self.number, status=process.returncode, output=self._last_line()
            )
            run.listening.set_exception(SetupError(failure))
        run.ended.set_result(process.returncode)

    def _last_line(self) -> str:
        return self.log[-1] if self.log else _("no output")


class Cluster:
    """`instances` server processes on one broker URL; `options` go to every command line as they are."""

    def __init__(self, broker: str, instances: int = 2, *, serve: str = "chat", options: Sequence[str] = ()) -> None:
        # -P: a file in the learner's folder must not shadow a module of the same name.
        self._command = [sys.executable, "-P", "-m", "chatlab.cli", "serve", serve, "--broker", broker, *options]
        self.instances = [Instance(number, self._command) for number in range(instances)]
        self.balancer: Balancer | None = None

    @property
    def urls(self) -> list[str]:
        """The URL of each instance, dead or alive."""
        return [instance.url for instance in self.instances]

    async def start(self) -> Self:
        """Start all instances at once and wait until each listens; if one fails, stop them all."""
        try:
            await asyncio.gather(*(instance.start() for instance in self.instances))
        except BaseException:
            await self.aclose()
            raise
        return self

    async def add(self) -> Instance:
        """Start one more instance; the balancer, if there is one, includes it from now on."""
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
        """Run the first `count` instances only: start the missing ones, and stop the others gracefully."""
        for instance in self.instances[:count]:
            if not instance.alive:
                await instance.start()
        while len(self.instances) < count:
            await self.add()
        await asyncio.gather(*(instance.stop() for instance in self.instances[count:]))

    def kill(self, number: int) -> None:
        """Send SIGKILL to one instance."""
        self.instances[number].kill()

    async def stop(self, number: int) -> int | None:
        """Send SIGTERM to one instance and wait until it has drained; return its exit status."""
        return await self.instances[number].stop()

    async def restart(self, number: int) -> None:
        """Restart one instance on its port; stop it gracefully first if it is alive."""
        await self.instances[number].stop()
        await self.instances[number].start()

    async def rolling_restart(self) -> None:
        """Restart all instances one after another, as in the rollout of a new version."""
        for instance in self.instances:
            await self.restart(instance.number)

    async def balance(self) -> Balancer:
        """Return the balancer in front of all instances, started at first use; it ends with the cluster."""
        if self.balancer is None:
            self.balancer = await Balancer.start(self.urls)
        return self.balancer

    async def aclose(self) -> None:
        """Stop every instance, gracefully if possible, and the balancer."""
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
        alive, count = sum(instance.alive for instance in self.instances), len(self.instances)
        text = ngettext("{alive} of {count} instance alive", "{alive} of {count} instances alive", count)
        return text.format(alive=alive, count=count)


class _ReservedPort:
    """A port that stays reserved while no process listens on it.

    Between `kill` and `restart` the port is free, and clients that keep reconnecting could take it: a connection to a
    closed local port connects to itself when the kernel picks that port for its own end (RFC 9293, section 3.5,
    simultaneous open). A socket that is bound but never listens keeps the kernel from picking the port. On Linux, a
    server that sets SO_REUSEADDR may still bind it; elsewhere it could not, so there the port is only remembered.
    """

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((HOST, 0))
        self.number: int = self._socket.getsockname()[1]
        if sys.platform != "linux":
            self._socket.close()

    def close(self) -> None:
        """Release the port."""
        self._socket.close()


# The sessions of SockJS's HTTP transports: PREFIX/SERVER/SESSION/TRANSPORT, neither id with a dot in it
# (SockJS protocol 0.3.3, "Session URLs"). All requests of one session must reach the process that holds it.
SOCKJS_SESSION = re.compile(rb"^[A-Z]+ (?:/[^/ ]+)*/([^/. ]+/[^/. ]+)/(?:xhr|xhr_send|xhr_streaming|eventsource)[? ]")
LARGEST_HEAD = 64 * 1024
SECONDS_FOR_HEAD = 10.0
NO_INSTANCE = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

Address = tuple[str, int]
Answer = tuple[
    asyncio.StreamReader, asyncio.StreamWriter, bytes
]  # reading from the instance, writing to it, its first bytes


class Balancer:
    """A small HTTP and WebSocket balancer: round robin, without dead or stopping instances; SockJS sessions are sticky.

    Each connection carries one request, because the next request may belong to a session on another instance: requests
    that do not upgrade are passed on with `Connection: close`. Start it with `await Balancer.start(urls)`.
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
        """Listen on `port` and pass connections on to the servers at `urls`; the balancer's URL has their path."""
        balancer = cls([_address(url) for url in urls], urlsplit(urls[0]).path)
        balancer._server = await asyncio.start_server(balancer._accept, host, port, limit=LARGEST_HEAD)
        balancer.port = balancer._server.sockets[0].getsockname()[1]
        balancer.url = f"ws://{host}:{balancer.port}{balancer._path}"
        return balancer

    @property
    def page_url(self) -> str:
        """The URL of the page for browsers, served by the next instance in turn."""
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
        """Serve one connection, from its request's head until the instance has finished."""
        writers = [writer]
        try:
            async with asyncio.timeout(SECONDS_FOR_HEAD):
                head = await reader.readuntil(b"\r\n\r\n")
            if answer := await self._ask(head):
                from_instance, to_instance, first = answer
                writers.append(to_instance)
                writer.write(first)
                await _relay(reader, to_instance, from_instance, writer)
            else:
                writer.write(NO_INSTANCE)
        except* (OSError, EOFError, asyncio.LimitOverrunError, asyncio.CancelledError):
            # One side has gone, or the balancer is closing: reset both, as a direct connection would end.
            for each in writers:
                each.transport.abort()
        finally:
            for each in writers:
                each.close()

    async def _ask(self, head: bytes) -> Answer | None:
        """Return the answer of the first instance that accepts the request, starting with `_turn`."""
        first = self._turn(head)
        for step in range(len(self.targets)):
            with contextlib.suppress(OSError):
                if answer := await _ask_one(self.targets[(first + step) % len(self.targets)], head):
                    return answer
        return None

    def _turn(self, head: bytes) -> int:
        """Return the number that selects the instance: by session if the request has one, else round robin."""
        if session := SOCKJS_SESSION.match(head):
            return zlib.crc32(session[1])
        self._next += 1
        return self._next - 1


async def _ask_one(address: Address, head: bytes) -> Answer | None:
    """Pass the request on to one instance; return None if it is stopping."""
    from_instance, to_instance = await asyncio.open_connection(*address)
    try:
        to_instance.write(_as_the_only_request(head))
        if not head.startswith(b"GET "):
            return from_instance, to_instance, b""  # its body has not come yet, and can be sent only once
        # RFC 9110, section 9.2.2: a request with an idempotent method "can be repeated automatically if a communication
        # failure occurs before the client is able to read the server's response". A stopping instance fails so.
        first = await from_instance.read(64 * 1024)
        if first and not first.startswith(b"HTTP/1.1 503 "):
            return from_instance, to_instance, first
        to_instance.close()
        return None
    except BaseException:
        to_instance.transport.abort()
        raise


def _address(url: str) -> Address:
    parts = urlsplit(url)
    assert parts.hostname is not None and parts.port is not None, url
    return parts.hostname, parts.port


def _as_the_only_request(head: bytes) -> bytes:
    """Return the head with `Connection: close`, unless it asks for an upgrade (RFC 9112, section 9.6)."""
    request, *fields = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    if any(field.lower().startswith(b"upgrade:") for field in fields):
        return head
    kept = [field for field in fields if not field.lower().startswith((b"connection:", b"keep-alive:"))]
    return b"\r\n".join([request, *kept, b"Connection: close", b"", b""])


async def _relay(
    reader: asyncio.StreamReader,
    to_instance: asyncio.StreamWriter,
    from_instance: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Copy bytes in both directions until the instance ends its stream; an error in one direction ends both."""
    async with asyncio.TaskGroup() as directions:
        upstream = directions.create_task(_copy(reader, to_instance))
        await _copy(from_instance, writer)
        upstream.cancel()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy bytes, no faster than they are consumed, and the end of the stream."""
    while data := await reader.read(64 * 1024):
        writer.write(data)
        await writer.drain()
    writer.write_eof()
