"""The HTTP server of the room and the chat: an aiohttp application on our own sockets, with a bounded shutdown.

Shutdown has two steps, so that a server can send Close frames in between: `stop_listening`, then `aclose` with a
deadline. Active requests, including open WebSockets, may finish until the deadline and are then aborted. Connections
without an active request, idle or half-open, are closed at once.
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

from chatlab.net.connection_limits import CONNECTIONS, ConnectionLimits, Refusals
from chatlab.net.gate import REMEDY, Gate, refusal_text
from chatlab.net.http.first_request import FIRST_REQUEST_SECONDS, FirstRequestTimeout
from chatlab.net.http.runner import Runner
from chatlab.net.http.upgrade import transports_of

BACKLOG = 128  # connections waiting to be accepted
ACCEPTED_AT_ONCE = 8  # by asyncio, before the gate sees the first of them; each already uses a descriptor
IDLE_SECONDS = 75.0  # keep-alive between two requests
# The time handlers have to notice that their connections were aborted. aiohttp waits twice that long; 0 means forever.
CANCEL_SECONDS = 0.1

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HttpServer:
    """`app` on one port. `send_buffer` is the kernel's buffer per connection in bytes; None leaves it to the kernel.

    `gate` limits the connections. The default gate allows what the process's descriptors allow, and a few hundred per
    address. The paths in `always` are answered even in a spare slot.
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
        self.gate = gate or Gate.of(ConnectionLimits(), Refusals(log))
        self._always = always
        self._send_buffer = send_buffer
        self._listening: list[asyncio.Server] = []
        self._active: set[asyncio.Transport] = set()  # connections with a request that is being answered
        self._idle = asyncio.Event()  # no connection is active
        self._idle.set()
        app.middlewares.insert(0, self._track)  # before any middleware that may refuse a request
        self._runner = Runner(
            app,
            log,
            handler_cancellation=True,
            shutdown_timeout=CANCEL_SECONDS,
            keepalive_timeout=IDLE_SECONDS,
        )
        self.first_request = FirstRequestTimeout(lambda: transports_of(self._runner), log, first_request_seconds)

    async def listen(self, host: str, port: int) -> None:
        """Start accepting connections. Raise OSError if the port is taken."""
        await self._runner.setup()
        make = cast(Callable[[], asyncio.Protocol], self._runner.server)
        sockets = bind(host, port, self._send_buffer)
        self.host, self.port = sockets[0].getsockname()[:2]
        loop = asyncio.get_running_loop()
        for sock in sockets:
            server = await loop.create_server(self.gate.protocol_factory(make), sock=sock, backlog=ACCEPTED_AT_ONCE)
            sock.listen(BACKLOG)
            self._listening.append(server)
        self.first_request.start()

    async def stop_listening(self) -> None:
        """Accept no more connections; leave open ones alone."""
        self.first_request.stop()
        for server in self._listening:
            server.close()
        self._listening.clear()

    async def aclose(self, deadline: float) -> None:
        """Wait until `deadline`, on the loop's clock, for active requests; then abort the remaining connections."""
        await self.stop_listening()
        await asyncio.sleep(0)  # let a request that has just arrived start
        self._close_inactive()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._idle.wait()
        for transport in list(self._active):
            transport.abort()
        await self._runner.cleanup()

    def _close_inactive(self) -> None:
        for transport in transports_of(self._runner):
            if transport not in self._active and not transport.is_closing():
                transport.close()

    @web.middleware
    async def _track(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Track which connections have sent a request, and which have an active one."""
        transport = request.transport
        if transport is None:  # the client has disconnected
            return await handler(request)
        self.first_request.served(transport)
        if self.gate.is_spare(transport) and request.path not in self._always:
            return self._refuse_without_a_slot(request)
        self._active.add(transport)
        self._idle.clear()
        try:
            return await handler(request)
        finally:
            self._active.discard(transport)
            if not self._active:
                self._idle.set()

    def _refuse_without_a_slot(self, request: web.Request) -> web.Response:
        self.gate.refusals.count(CONNECTIONS, REMEDY[CONNECTIONS], whose=request.remote or "")
        response = web.Response(text=refusal_text(CONNECTIONS), status=503, headers={"Retry-After": "10"})
        response.force_close()
        return response


def extend_backlog(sockets: Iterable[socket.socket]) -> None:
    """Set the backlog to `BACKLOG`, which may exceed the number accepted at once (`ACCEPTED_AT_ONCE`)."""
    for each in sockets:
        with each.dup() as sock:
            sock.listen(BACKLOG)


def bind(host: str, port: int, send_buffer: int | None = None) -> list[socket.socket]:
    """Return a bound socket for each address of `host`. Raise OSError if one is taken, or none is this machine's.

    The event loop could resolve the name instead, but uvloop would then keep four threads, and in a process with more
    than one thread each write takes 2 % longer.
    """
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    bound: list[socket.socket] = []
    errors: list[OSError] = []
    for family, *_, address in dict.fromkeys(addresses):
        try:
            bound.append(socket.create_server(address, family=family))
        except OSError as error:
            reason = (error.strerror or str(error)).partition(" (")[0].lower()
            errors.append(OSError(error.errno, f"cannot listen at {host}, port {port}: {reason}"))
    taken = [error for error in errors if error.errno == errno.EADDRINUSE]
    if taken or not bound:
        for sock in bound:
            sock.close()
        raise (taken or errors)[0]
    if send_buffer is not None:
        for sock in bound:  # accepted connections inherit the setting
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    return bound
