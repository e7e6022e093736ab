"""HTTP for the room and the chat: an aiohttp application on our own sockets, which starts clean and stops in time.

Stopping has two halves, so that a server can say goodbye in between: `stop_listening`, then `aclose` with a deadline.
Requests under way, open WebSockets among them, may end by themselves until then; what is left is cut off. Connections
without a request under way, idle or half-open, have nothing to wait for and are closed at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import cast

from aiohttp import web

from chatlab.net.gate import REMEDY, Gate, refusal_of
from chatlab.net.http.first_request import FIRST_REQUEST_SECONDS, FirstRequestTimeout
from chatlab.net.http.runner import Runner
from chatlab.net.http.upgrade import transports_of
from chatlab.net.places import CONNECTIONS, PlaceLimits, Refusals

BACKLOG = 128  # connections that wait to be accepted
ACCEPTED_AT_ONCE = 8  # by asyncio, before the gate sees the first of them: each has a descriptor already
IDLE_SECONDS = 75.0  # for a connection between two requests
# For handlers to notice that their connections were cut off. aiohttp waits for that twice, and takes 0 for "for ever".
CANCEL_SECONDS = 0.1

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HttpServer:
    """`app` on one port. `send_buffer` is the kernel's, in bytes, for each connection; None leaves it to the kernel.

    `gate` limits the connections; without one, to what the process's descriptors allow, and to some hundreds from one
    address. The paths in `always` are answered in its spare places too.
    """

    def __init__(
        self,
        app: web.Application,
        log: logging.Logger,
        *,
        first_request_seconds: float = FIRST_REQUEST_SECONDS,
        send_buffer: int | None = None,
        gate: Gate | None = None,
        always: Collection[str] = (),
    ) -> None:
        self.host, self.port = "", 0
        self.gate = gate or Gate.of(PlaceLimits(), Refusals(log))
        self._always = always
        self._send_buffer = send_buffer
        self._listening: list[asyncio.Server] = []
        self._under_way: set[asyncio.Transport] = set()  # connections with a request that is being answered
        self._nothing_under_way = asyncio.Event()
        self._nothing_under_way.set()
        app.middlewares.insert(0, self._note)  # before what may refuse a request
        self._runner = Runner(
            app,
            log,
            handler_cancellation=True,
            shutdown_timeout=CANCEL_SECONDS,
            keepalive_timeout=IDLE_SECONDS,
        )
        self.first_request = FirstRequestTimeout(lambda: transports_of(self._runner), log, first_request_seconds)

    async def listen(self, host: str, port: int) -> None:
        """Take connections from now on. OSError if the port is taken."""
        await self._runner.setup()
        make = cast(Callable[[], asyncio.Protocol], self._runner.server)
        sockets = bound(host, port, self._send_buffer)
        self.host, self.port = sockets[0].getsockname()[:2]
        loop = asyncio.get_running_loop()
        for sock in sockets:
            server = await loop.create_server(self.gate.before(make), sock=sock, backlog=ACCEPTED_AT_ONCE)
            sock.listen(BACKLOG)
            self._listening.append(server)
        self.first_request.start()

    async def stop_listening(self) -> None:
        """Take no more connections; those that are open stay."""
        self.first_request.stop()
        for server in self._listening:
            server.close()
        self._listening.clear()

    async def aclose(self, deadline: float) -> None:
        """Wait until `deadline`, on the loop's clock, for the requests under way; then cut off what is left."""
        await self.stop_listening()
        await asyncio.sleep(0)  # a request that has just arrived is begun
        self._close_those_without_a_request()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._nothing_under_way.wait()
        for transport in list(self._under_way):
            transport.abort()
        await self._runner.cleanup()

    def _close_those_without_a_request(self) -> None:
        for transport in transports_of(self._runner):
            if transport not in self._under_way and not transport.is_closing():
                transport.close()

    @web.middleware
    async def _note(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Keep the books of which connections have sent a request, and which have one under way."""
        transport = request.transport
        if transport is None:  # the client has gone
            return await handler(request)
        self.first_request.served(transport)
        if self.gate.is_spare(transport) and request.path not in self._always:
            return self._refuse_for_want_of_places(request)
        self._under_way.add(transport)
        self._nothing_under_way.clear()
        try:
            return await handler(request)
        finally:
            self._under_way.discard(transport)
            if not self._under_way:
                self._nothing_under_way.set()

    def _refuse_for_want_of_places(self, request: web.Request) -> web.Response:
        self.gate.refusals.note(CONNECTIONS, REMEDY[CONNECTIONS], whose=request.remote or "")
        response = web.Response(text=refusal_of(CONNECTIONS), status=503, headers={"Retry-After": "10"})
        response.force_close()
        return response


def let_wait(sockets: Iterable[socket.socket]) -> None:
    """Let more connections wait to be accepted than are accepted at once (`ACCEPTED_AT_ONCE`)."""
    for each in sockets:
        with each.dup() as sock:
            sock.listen(BACKLOG)


def bound(host: str, port: int, send_buffer: int | None = None) -> list[socket.socket]:
    """Return a socket for each address of `host`; OSError if one is taken, or none is this machine's.

    The loop could look the name up, but uvloop keeps four threads from then on, and in a process with more than one
    thread each write takes a fiftieth longer.
    """
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    bound: list[socket.socket] = []
    faults: list[OSError] = []
    for family, *_, address in dict.fromkeys(addresses):
        try:
            bound.append(socket.create_server(address, family=family))
        except OSError as error:
            reason = (error.strerror or str(error)).partition(" (")[0].lower()
            faults.append(OSError(error.errno, f"cannot listen at {host}, port {port}: {reason}"))
    taken = [error for error in faults if error.errno == errno.EADDRINUSE]
    if taken or not bound:
        for sock in bound:
            sock.close()
        raise (taken or faults)[0]
    if send_buffer is not None:
        for sock in bound:  # a connection inherits it from the socket that accepted it
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    return bound
