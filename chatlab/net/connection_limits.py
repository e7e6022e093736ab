"""Connection slots: limits on a server's connections, in total and per address; and client addresses behind proxies.

    slots = ConnectionSlots(total=960, per_address=500)
    if exceeded := slots.acquire("192.0.2.7"):  ...      "connections" or "connections-per-address": no slot is free
    slots.release("192.0.2.7")

Addresses are counted the way networks assign them: IPv4 by address, IPv6 by /64, which is what one home line gets
(RFC 6177). Loopback addresses are counted per address only if that limit was set explicitly, because connections from
this machine come from an unnamed proxy, a test or a benchmark. Behind named proxies (`TrustedProxies`), a client is
identified by X-Forwarded-For, read from the right: each proxy appends the address of its peer, and everything to the
left of the first address that is not a trusted proxy's may have been written by the client.

Left out: `Forwarded` (RFC 7239). A proxy that sets one of the two headers forwards the client's own version of the
other, so only one of them can be trusted.
"""

from __future__ import annotations

import ipaddress
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

__all__ = [
    "CONNECTIONS",
    "PER_ADDRESS",
    "ConnectionLimits",
    "ConnectionSlots",
    "Refusals",
    "TrustedProxies",
    "counted_as",
    "slots_for_descriptors",
]

CONNECTIONS = "connections"
PER_ADDRESS = "connections-per-address"

PER_ADDRESS_DEFAULT = 500  # a school behind one address, several tabs each
SPARE = 64  # descriptors reserved for refusing clients, and for health checks
RESERVED = 64  # descriptors reserved for the engine and files: at least this many, or a sixteenth of all
MOST = 50_000  # with unlimited descriptors, memory is the limit
UNKNOWN_LIMIT = 10_000  # for systems that do not report their limit (Windows)
MAX_HOPS = 32
MAX_VALUE = 1 << 40

SECONDS_BETWEEN_LINES = 60.0

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def slots_for_descriptors() -> int:
    """Return the number of connections this process's descriptors allow, less those for the engine and files."""
    try:
        import resource
    except ImportError:  # Windows
        return UNKNOWN_LIMIT
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return MOST
    return max(1, min(MOST, limit - max(RESERVED, limit // 16) - SPARE))


def counted_as(address: str, *, loopback: bool = False) -> str:
    """Return the key an address is counted under; "" if it is not counted: no address, or a loopback address."""
    parsed = _parse(address)
    if parsed is None or (parsed.is_loopback and not loopback):
        return ""
    if parsed.version == 6:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


class ConnectionSlots:
    """The slots in use, in total and per address. A limit of 0 means no limit."""

    def __init__(self, total: int = 0, per_address: int = 0) -> None:
        self.total = total
        self.per_address = per_address
        self.in_use = 0
        self._by_address: dict[str, int] = {}

    @property
    def addresses(self) -> int:
        """The number of addresses that hold a slot."""
        return len(self._by_address)

    def exceeded_limit(self, address: str) -> str:
        """Return the name of the limit that one more connection from `address` would exceed, "" if none."""
        if self.total and self.in_use >= self.total:
            return CONNECTIONS
        if address and self.per_address and self._by_address.get(address, 0) >= self.per_address:
            return PER_ADDRESS
        return ""

    def acquire(self, address: str) -> str:
        """Take a slot and return "". If no slot is free, return the name of the limit that is reached."""
        if exceeded := self.exceeded_limit(address):
            return exceeded
        self.in_use += 1
        if address:
            self._by_address[address] = self._by_address.get(address, 0) + 1
        return ""

    def release(self, address: str) -> None:
        """Free a slot that was acquired for `address`."""
        self.in_use -= 1
        if address:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The limits of the room and echo servers, which have no others. The chat's limits are in chat/budgets.py."""

    connections: int = 0  # 0: as many as the process's descriptors allow
    connections_per_address: int = PER_ADDRESS_DEFAULT  # 0: no limit

    @classmethod
    def parse(cls, given: Iterable[str]) -> Self:
        """Return the defaults, overridden by each NAME=VALUE of `given`. Raise ValueError for an invalid one."""
        limits = cls()
        for each in given:
            name, _, value = (part.strip() for part in each.partition("="))
            if name not in (CONNECTIONS, PER_ADDRESS):
                raise ValueError(f"unknown limit {name[:80]!r}; the limits are {CONNECTIONS}, {PER_ADDRESS}")
            if not value.isascii() or not value.isdigit() or int(value[:20]) > MAX_VALUE:
                raise ValueError(f"the limit {name} must be a number, 0 or more, not {value[:40]!r}")
            limits = replace(limits, **{name.replace("-", "_"): int(value)})
        return limits

    @property
    def counts_loopback(self) -> bool:
        """Whether loopback connections are counted per address: only if the limit was set explicitly."""
        return self.connections_per_address != PER_ADDRESS_DEFAULT

    def slots(self) -> ConnectionSlots:
        """Return the slots that these limits allow, all of them free."""
        return ConnectionSlots(self.connections or slots_for_descriptors(), self.connections_per_address)


class TrustedProxies:
    """The proxies whose X-Forwarded-For is trusted: addresses or networks. Raises ValueError for anything else."""

    def __init__(self, networks: Sequence[str] = ()) -> None:
        self._networks: list[Network] = [ipaddress.ip_network(each, strict=False) for each in networks]

    def trusts(self, address: str) -> bool:
        """Tell whether a peer is a trusted proxy."""
        return (parsed := _parse(address)) is not None and self._has(parsed)

    def client_behind(self, peer: str, forwarded_for: Sequence[str]) -> str:
        """Return the client's address: the peer's, or the one that trusted proxies report; "" if they report none."""
        if not self._networks or not self.trusts(peer):
            return peer
        client = ""
        for hop in reversed([each for line in forwarded_for for each in line.split(",")][-MAX_HOPS:]):
            parsed = _parse(hop)
            if parsed is None:
                break
            client = str(parsed)
            if not self._has(parsed):
                break
        return client

    def _has(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


class Refusals:
    """Counters of refusals by the name of the limit, and a throttled log of them.

    The first refusal by each limit is logged, then at most one line a minute, with the number of refusals since the
    last line.
    """

    def __init__(
        self,
        log: logging.Logger,
        *,
        event: str = "refused: over budget",
        seconds: float = SECONDS_BETWEEN_LINES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts: dict[str, int] = {}
        self._log = log
        self._event = event
        self._seconds = seconds
        self._clock = clock
        self._logged: dict[str, tuple[float, int]] = {}  # by limit: the time of the last line, and the count then

    def count(self, budget: str, remedy: str = "", *, whose: str = "") -> None:
        """Count one refusal by the limit `budget`, which is one of a few names; `whose` may be any text."""
        count = self.counts[budget] = self.counts.get(budget, 0) + 1
        at, logged = self._logged.get(budget, (-self._seconds, 0))
        now = self._clock()
        if now - at < self._seconds:
            return
        self._logged[budget] = now, count
        facts = {"budget": budget, "times": count - logged, "remedy": remedy, "last": whose[:100]}
        self._log.warning(self._event, extra={name: fact for name, fact in facts.items() if fact})


def _parse(address: str) -> Address | None:
    """Parse an address as peers and proxies write it: perhaps with a port or zone, or IPv4 mapped into IPv6."""
    text = address.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        parsed = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped
    return parsed
