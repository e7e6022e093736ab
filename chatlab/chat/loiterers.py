"""Connections that never get to the point: cut off, so that they do not pile up (the attack called slow loris).

A client that has connected has some seconds to send its first request. What it may do after that has limits of its
own: requests and bodies time out, a WebSocket must CONNECT in time and answer pings. aiohttp leaves this first wait
to the proxy in front; a classroom has none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol
from weakref import WeakKeyDictionary, WeakSet

from aiohttp import web

logger = logging.getLogger("chatlab.chat")

FIRST_REQUEST_SECONDS = 10.0
ANSWER = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Incoming(Protocol):
    """One connection as aiohttp's server has it."""

    transport: asyncio.Transport | None


class Loiterers:
    """Watches connections until their first request."""

    def __init__(self, connections: Callable[[], Iterable[Incoming]], seconds: float = FIRST_REQUEST_SECONDS) -> None:
        self.cut_off = 0
        self._connections = connections
        self._seconds = seconds
        self._since: WeakKeyDictionary[asyncio.Transport, float] = WeakKeyDictionary()
        self._served: WeakSet[asyncio.BaseTransport] = WeakSet()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look from now on, a few times in the time there is."""
        self._timer = asyncio.get_running_loop().call_later(self._seconds / 4, self._look)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Note that a connection has sent a request."""
        if request.transport is not None:
            self._served.add(request.transport)
        return await handler(request)

    def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        for connection in self._connections():
            transport = connection.transport
            if transport is None or transport in self._served or transport.is_closing():
                continue
            if now - self._since.setdefault(transport, now) >= self._seconds:
                self.cut_off += 1
                logger.info("cut off: no request", extra={"peer": transport.get_extra_info("peername")})
                transport.write(ANSWER)
                transport.close()
        self.start()
