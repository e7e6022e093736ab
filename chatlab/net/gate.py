"""A gate in front of an HTTP server: each TCP connection takes a slot, or gets 503 if none is free.

    asyncio ─► Gate ─► GatedConnection ─► aiohttp's own protocol, until a WebSocketEnd replaces it

A server without free descriptors can no longer answer anyone, health checks included. So a connection beyond its limit
is accepted, answered with 503 and the reason, and closed. Connections of trusted proxies take no slot of an address:
their clients do, once their requests have said who they are. Beyond the limit on the total there are a few spare slots,
each held only briefly, in which the paths named in `always` are answered: a health check must not kill a server for
being full. Other paths are refused; see `HttpServer`. The slots are counted in connection_limits.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Self, cast

from chatlab.errors import HandshakeError
from chatlab.net.connection_limits import (
    CONNECTIONS,
    PER_ADDRESS,
    SPARE,
    ConnectionLimits,
    ConnectionSlots,
    Refusals,
    TrustedProxies,
    counted_as,
)

LINGER_SECONDS = 1.0  # the time a refused client has to read the reason before it is dropped
SPARE_SECONDS = 2.0  # the time limit for a request in a spare slot

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


def refusal_text(budget: str) -> str:
    """Return the text for a client that finds no free slot."""
    return f"{WHAT[budget]} (limit {budget}): {REMEDY[budget]}\n"


def refusal_response(budget: str) -> bytes:
    """Return the HTTP response for such a client, whose request is not read."""
    text = refusal_text(budget).encode()
    return (
        b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 10\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text)
    )


class Gate:
    """The gate of one server. `refusals` counts the clients it refuses."""

    def __init__(
        self,
        slots: ConnectionSlots,
        refusals: Refusals,
        proxies: TrustedProxies | None = None,
        *,
        count_loopback: bool = False,
        spare: int = SPARE // 4,
    ) -> None:
        self.slots = slots
        self.refusals = refusals
        self.proxies = proxies or TrustedProxies()
        self.count_loopback = count_loopback
        self.lingering = 0
        self._max_spare = spare  # 0 for a server without health checks
        self._spare: set[asyncio.BaseTransport] = set()
        self._client_slots = ConnectionSlots(0, slots.per_address)  # of clients behind trusted proxies
        self._clients: dict[asyncio.BaseTransport, str] = {}  # by transport: the key its client is counted under

    @classmethod
    def of(
        cls,
        limits: ConnectionLimits,
        refusals: Refusals,
        proxies: TrustedProxies | None = None,
        *,
        spare: int = SPARE // 4,
    ) -> Self:
        """Return the gate of a server that has only these limits."""
        return cls(limits.slots(), refusals, proxies, count_loopback=limits.counts_loopback, spare=spare)

    def protocol_factory(self, make: Callable[[], asyncio.Protocol]) -> Callable[[], GatedConnection]:
        """Return the protocol factory to listen with: the protocols that `make` creates, behind this gate."""
        return lambda: GatedConnection(self, make)

    def is_spare(self, transport: asyncio.BaseTransport | None) -> bool:
        """Tell whether a connection has only a spare slot, which is for health checks."""
        return bool(self._spare) and transport in self._spare

    def counted_as(self, address: str) -> str:
        """Return the key an address is counted under, "" if it is not counted."""
        return counted_as(address, loopback=self.count_loopback)

    def address_of(self, transport: asyncio.BaseTransport) -> str:
        """Return the key a TCP connection is counted under: "" for a proxy, whose clients are counted instead."""
        host = _host(transport)
        return "" if self.proxies.trusts(host) else self.counted_as(host)

    def admit_client(self, transport: asyncio.BaseTransport, forwarded_for: Sequence[str]) -> None:
        """Take a slot for the client that a trusted proxy reports; it is free when the TCP connection closes.

        Raises `HandshakeError` 503 if none is free. For servers with one request per connection, such as echo.py.
        """
        host = _host(transport)
        if not self.proxies.trusts(host) or transport in self._clients:
            return
        address = self.counted_as(self.proxies.client_behind(host, forwarded_for))
        if exceeded := self._client_slots.acquire(address):
            self.refusals.count(exceeded, REMEDY[exceeded], whose=address)
            raise HandshakeError(refusal_text(exceeded).rstrip(), status=503, headers=(("Retry-After", "10"),))
        self._clients[transport] = address

    def release_client(self, transport: asyncio.BaseTransport) -> None:
        """Free the slot that `admit_client` took for this connection, if it did."""
        if (address := self._clients.pop(transport, None)) is not None:
            self._client_slots.release(address)

    def acquire_spare(self, transport: asyncio.BaseTransport) -> bool:
        """Take a spare slot. Return False if none is free."""
        if len(self._spare) >= self._max_spare:
            return False
        self._spare.add(transport)
        return True

    def release_spare(self, transport: asyncio.BaseTransport) -> None:
        """Free a connection's spare slot."""
        self._spare.discard(transport)


def _host(transport: asyncio.BaseTransport) -> str:
    peer = transport.get_extra_info("peername")
    return peer[0] if isinstance(peer, tuple) else ""


class GatedConnection(asyncio.Protocol):
    """One TCP connection: handled by the server's protocol if a slot is free for it, else refused and closed."""

    def __init__(self, gate: Gate, make: Callable[[], asyncio.Protocol]) -> None:
        self._gate = gate
        self._make = make
        self._inner: asyncio.Protocol | None = None
        self._address: str | None = None  # the key its slot is counted under; None without a slot
        self._transport: asyncio.Transport
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def half_since(self) -> float | None:
        """When a request began that is still incomplete, as the inner protocol reports it; None if there is none."""
        half_since: float | None = getattr(self._inner, "half_since", None)
        return half_since

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a slot, or refuse the connection if none is free."""
        self._transport = cast(asyncio.Transport, transport)
        address = self._gate.address_of(transport)
        exceeded = self._gate.slots.acquire(address)
        if not exceeded:
            self._address = address
        elif exceeded == CONNECTIONS and self._gate.acquire_spare(transport):
            self._abort_in(SPARE_SECONDS)
        else:
            return self._refuse(exceeded, address)
        self._inner = self._make()
        return self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Pass data on. Discard it on a refused connection: a reset for unread bytes could overtake the response."""
        if self._inner is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Pass on that the client will send no more."""
        return self._inner.eof_received() if self._inner is not None else None

    def pause_writing(self) -> None:
        """Pass on that the transport has started to buffer."""
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that the transport's buffer is empty."""
        if self._inner is not None:
            self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Free the slots."""
        self._gate.release_client(self._transport)
        if self._deadline is not None:
            self._deadline.cancel()
        if self._address is not None:
            self._gate.slots.release(self._address)
        elif self._inner is not None:
            self._gate.release_spare(self._transport)
        elif self._deadline is not None:
            self._gate.lingering -= 1
        if self._inner is not None:
            self._inner.connection_lost(exc)

    def _refuse(self, exceeded: str, address: str) -> None:
        self._gate.refusals.count(exceeded, REMEDY[exceeded], whose=address)
        self._transport.write(refusal_response(exceeded))
        if self._gate.lingering >= SPARE // 4 or not self._transport.can_write_eof():
            self._transport.close()
            return
        self._gate.lingering += 1
        self._abort_in(LINGER_SECONDS)
        self._transport.write_eof()

    def _abort_in(self, seconds: float) -> None:
        self._deadline = asyncio.get_running_loop().call_later(seconds, self._transport.abort)
