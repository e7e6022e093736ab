"""Close connections that never send a whole request, so that they do not pile up (the slow loris attack).

A client has a few seconds after connecting to send its first request, and the same time for each later request from
its first octet on, even if it keeps sending. After that, other limits apply: bodies time out, idle connections are
closed, a STOMP client must CONNECT in time, a WebSocket must answer pings. aiohttp leaves this to a proxy in front;
a classroom has none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from weakref import WeakKeyDictionary, WeakSet

from chatlab.logs.throttled import ThrottledLog

FIRST_REQUEST_SECONDS = 10.0
LINES = 100  # log lines in ten seconds; a flood of connections is not logged in full
ANSWER = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class FirstRequestTimeout:
    """Watches `transports` for two things: no first request (the server reports one by `served`), and half requests."""

    def __init__(
        self,
        transports: Callable[[], Iterable[asyncio.Transport]],
        log: logging.Logger,
        seconds: float = FIRST_REQUEST_SECONDS,
    ) -> None:
        self.cut_off = 0
        self._transports = transports
        self._log = ThrottledLog(log, lines=LINES)
        self._seconds = seconds
        self._since: WeakKeyDictionary[asyncio.Transport, float] = WeakKeyDictionary()
        self._served: WeakSet[asyncio.BaseTransport] = WeakSet()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start checking, four times per time limit."""
        self._timer = asyncio.get_running_loop().call_later(self._seconds / 4, self._look)

    def stop(self) -> None:
        """Stop checking."""
        if self._timer is not None:
            self._timer.cancel()

    def served(self, transport: asyncio.BaseTransport) -> None:
        """Record that a connection has sent a request."""
        self._served.add(transport)

    def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        for transport in self._transports():
            if transport.is_closing() or (since := self._waiting_since(transport, now)) is None:
                continue
            if now - since >= self._seconds:
                self.cut_off += 1
                self._log.info("closed: no request in time", extra={"peer": transport.get_extra_info("peername")})
                transport.write(ANSWER)
                transport.close()
        self.start()

    def _waiting_since(self, transport: asyncio.Transport, now: float) -> float | None:
        """Return when we started waiting for a request on this connection; None if we are not waiting for one."""
        if transport not in self._served:
            return self._since.setdefault(transport, now)
        half_since: float | None = getattr(transport.get_protocol(), "half_since", None)  # net/http/runner.py
        return half_since
