"""A gate before an HTTP server: each TCP connection takes a place (places.py); with none left, it gets 503.

    asyncio ─► Gate ─► GatedConnection ─► aiohttp's own protocol, until a WebSocketEnd takes its place

Out of descriptors, a server can no longer answer anybody, not even who asks whether it is well. So a connection beyond
its limit is accepted, answered with 503 and the reason, and closed. Beyond the limit on all there are some spare places
for a moment each, in which the paths named in `always` are answered (a health check must not kill a server for being
full); for the rest, see `HttpServer`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self, cast

from chatlab.net.places import (
    CONNECTIONS,
    PER_ADDRESS,
    SPARE,
    PlaceLimits,
    Places,
    Refusals,
    TrustedProxies,
    counted_as,
)

LINGER_SECONDS = 1.0  # for a client to read why it was refused, before it is cut off
SPARE_SECONDS = 2.0  # for a request in a spare place

WHAT = {
    CONNECTIONS: "too many connections",
    PER_ADDRESS: "too many connections from one address",
    "sockjs-sessions-per-address": "too many SockJS sessions from one address",
}
REMEDY = {
    CONNECTIONS: "try again later, or on another instance",
    PER_ADDRESS: "close some of the others from this address",
    "sockjs-sessions-per-address": "close some of the others from this address",
}


def refusal_of(budget: str) -> str:
    """Return what to tell a client for which there is no place."""
    return f"{WHAT[budget]} (limit {budget}): {REMEDY[budget]}\n"


def answer_of(budget: str) -> bytes:
    """Return the same as the answer to a request that nobody has read."""
    text = refusal_of(budget).encode()
    return (
        b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 10\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text)
    )


class Gate:
    """The gate of one server. `refusals` counts the clients it refuses."""

    def __init__(
        self,
        places: Places,
        refusals: Refusals,
        proxies: TrustedProxies | None = None,
        *,
        count_loopback: bool = False,
        spare: int = SPARE // 4,
    ) -> None:
        self.places = places
        self.refusals = refusals
        self.proxies = proxies or TrustedProxies()
        self.count_loopback = count_loopback
        self.lingering = 0
        self._most_spare = spare  # 0 for a server that is not asked after its health
        self._spare: set[asyncio.BaseTransport] = set()

    @classmethod
    def of(
        cls, limits: PlaceLimits, refusals: Refusals, proxies: TrustedProxies | None = None, *, spare: int = SPARE // 4
    ) -> Self:
        """Return the gate of a server that has no limits but these."""
        return cls(limits.places(), refusals, proxies, count_loopback=limits.counts_loopback, spare=spare)

    def before(self, make: Callable[[], asyncio.Protocol]) -> Callable[[], GatedConnection]:
        """Return the factory of protocols to listen with: those of `make`, behind this gate."""
        return lambda: GatedConnection(self, make)

    def is_spare(self, transport: asyncio.BaseTransport | None) -> bool:
        """Tell whether a connection has only a spare place, in which nothing but our health can be asked after."""
        return bool(self._spare) and transport in self._spare

    def counted_as(self, address: str) -> str:
        """Return what the places of an address are counted under, "" if they are not."""
        return counted_as(address, loopback=self.count_loopback)

    def address_of(self, transport: asyncio.BaseTransport) -> str:
        """Return what a TCP connection is counted under: nothing for a proxy, whose clients are counted instead."""
        peer = transport.get_extra_info("peername")
        host = peer[0] if isinstance(peer, tuple) else ""
        return "" if self.proxies.trusts(host) else self.counted_as(host)

    def take_spare(self, transport: asyncio.BaseTransport) -> bool:
        """Take a spare place, if there is one."""
        if len(self._spare) >= self._most_spare:
            return False
        self._spare.add(transport)
        return True

    def leave_spare(self, transport: asyncio.BaseTransport) -> None:
        """It is gone."""
        self._spare.discard(transport)


class GatedConnection(asyncio.Protocol):
    """One TCP connection: handed to the server's protocol if there is a place for it, else answered and closed."""

    def __init__(self, gate: Gate, make: Callable[[], asyncio.Protocol]) -> None:
        self._gate = gate
        self._make = make
        self._inner: asyncio.Protocol | None = None
        self._address: str | None = None  # what its place is counted under; None if it has none
        self._transport: asyncio.Transport
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def half_since(self) -> float | None:
        """Since when a request has come in part, as far as the server's protocol tells; None if none has."""
        half_since: float | None = getattr(self._inner, "half_since", None)
        return half_since

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a place, or say that there is none."""
        self._transport = cast(asyncio.Transport, transport)
        address = self._gate.address_of(transport)
        over = self._gate.places.take(address)
        if not over:
            self._address = address
        elif over == CONNECTIONS and self._gate.take_spare(transport):
            self._cut_off_in(SPARE_SECONDS)
        else:
            return self._refuse(over, address)
        self._inner = self._make()
        return self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Hand it on; of one that was refused, read it away, or a reset for unread bytes could overtake the answer."""
        if self._inner is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """The client will send no more."""
        return self._inner.eof_received() if self._inner is not None else None

    def pause_writing(self) -> None:
        """The kernel took less than it was given."""
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """What was buffered is written."""
        if self._inner is not None:
            self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The place is free again."""
        if self._deadline is not None:
            self._deadline.cancel()
        if self._address is not None:
            self._gate.places.give_back(self._address)
        elif self._inner is not None:
            self._gate.leave_spare(self._transport)
        elif self._deadline is not None:
            self._gate.lingering -= 1
        if self._inner is not None:
            self._inner.connection_lost(exc)

    def _refuse(self, over: str, address: str) -> None:
        self._gate.refusals.note(over, REMEDY[over], whose=address)
        self._transport.write(answer_of(over))
        if self._gate.lingering >= SPARE // 4 or not self._transport.can_write_eof():
            self._transport.close()
            return
        self._gate.lingering += 1
        self._cut_off_in(LINGER_SECONDS)
        self._transport.write_eof()

    def _cut_off_in(self, seconds: float) -> None:
        self._deadline = asyncio.get_running_loop().call_later(seconds, self._transport.abort)
