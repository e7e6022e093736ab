"""How many connections a server holds, in all and from each address, and whose address that is behind a proxy.

    places = Places(in_all=960, per_address=500)
    if over := places.take("192.0.2.7"):  ...        "connections" or "connections-per-address": none is left
    places.give_back("192.0.2.7")

Addresses are counted as networks hand them out: an IPv4 address for itself, IPv6 by its /64, which is what one line at
home has (RFC 6177). This machine's own addresses are not counted apart, unless a number was asked for: a proxy that
nobody named, a test, a benchmark come from there. Behind proxies that are named (`TrustedProxies`), a client is known
by X-Forwarded-For, read from the right: each proxy adds the address it was asked from, and what stands to the left of
the first address that is no trusted proxy's, the client may have written itself.

Left out: `Forwarded` (RFC 7239). A proxy that adds the one header hands on what a client has written into the other, so
only one of the two can be believed.
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
    "PlaceLimits",
    "Places",
    "Refusals",
    "TrustedProxies",
    "counted_as",
    "places_for_descriptors",
]

CONNECTIONS = "connections"
PER_ADDRESS = "connections-per-address"

PER_ADDRESS_DEFAULT = 500  # a school behind one address, several tabs each
SPARE = 64  # descriptors for those who are told that there is no place, and for whoever asks after our health
FOR_THE_ENGINE_AND_FILES = 64  # descriptors at least; of many, a sixteenth
MOST = 50_000  # with as many descriptors as one likes, memory is the limit
WITHOUT_A_LIMIT = 10_000  # where the system does not tell (Windows)
MAX_HOPS = 32
MAX_VALUE = 1 << 40

SECONDS_BETWEEN_LINES = 60.0

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def places_for_descriptors() -> int:
    """Return how many connections this process's descriptors allow, so that the engine and files have theirs."""
    try:
        import resource
    except ImportError:  # Windows
        return WITHOUT_A_LIMIT
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return MOST
    return max(1, min(MOST, limit - max(FOR_THE_ENGINE_AND_FILES, limit // 16) - SPARE))


def counted_as(address: str, *, loopback: bool = False) -> str:
    """Return what an address is counted under; "" if it is not counted: no address, or this machine's own."""
    parsed = _parse(address)
    if parsed is None or (parsed.is_loopback and not loopback):
        return ""
    if parsed.version == 6:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


class Places:
    """Who holds how many places; 0 is no limit."""

    def __init__(self, in_all: int = 0, per_address: int = 0) -> None:
        self.in_all = in_all
        self.per_address = per_address
        self.taken = 0
        self._by_address: dict[str, int] = {}

    @property
    def addresses(self) -> int:
        """How many addresses hold a place."""
        return len(self._by_address)

    def lacking(self, address: str) -> str:
        """Return which limit leaves no place for one more from `address`, "" if none does."""
        if self.in_all and self.taken >= self.in_all:
            return CONNECTIONS
        if address and self.per_address and self._by_address.get(address, 0) >= self.per_address:
            return PER_ADDRESS
        return ""

    def take(self, address: str) -> str:
        """Take a place, if there is one: return "", or which limit leaves none."""
        if over := self.lacking(address):
            return over
        self.taken += 1
        if address:
            self._by_address[address] = self._by_address.get(address, 0) + 1
        return ""

    def give_back(self, address: str) -> None:
        """One that was taken is free again."""
        self.taken -= 1
        if address:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]


@dataclass(frozen=True, slots=True)
class PlaceLimits:
    """The limits of a server that has no others: the room and the echo servers. The chat's are in chat/budgets.py."""

    connections: int = 0  # 0: as many as the process's descriptors allow
    connections_per_address: int = PER_ADDRESS_DEFAULT  # 0: no limit

    @classmethod
    def parse(cls, given: Iterable[str]) -> Self:
        """Return the limits with each NAME=VALUE of `given`. ValueError says what is wrong with one."""
        limits = cls()
        for each in given:
            name, _, value = (part.strip() for part in each.partition("="))
            if name not in (CONNECTIONS, PER_ADDRESS):
                raise ValueError(f"no limit is called {name[:80]!r}; the limits are {CONNECTIONS}, {PER_ADDRESS}")
            if not value.isascii() or not value.isdigit() or int(value[:20]) > MAX_VALUE:
                raise ValueError(f"the limit {name} is {value[:40]!r}, and has to be a number from 0 on")
            limits = replace(limits, **{name.replace("-", "_"): int(value)})
        return limits

    @property
    def counts_loopback(self) -> bool:
        """Whether connections of this machine's own are counted by address: if a number was asked for."""
        return self.connections_per_address != PER_ADDRESS_DEFAULT

    def places(self) -> Places:
        """Return so many places, none of them taken."""
        return Places(self.connections or places_for_descriptors(), self.connections_per_address)


class TrustedProxies:
    """The proxies whose X-Forwarded-For is believed: addresses or networks. ValueError for what is neither."""

    def __init__(self, networks: Sequence[str] = ()) -> None:
        self._networks: list[Network] = [ipaddress.ip_network(each, strict=False) for each in networks]

    def trusts(self, address: str) -> bool:
        """Tell whether a peer is one of them."""
        return (parsed := _parse(address)) is not None and self._has(parsed)

    def client_behind(self, peer: str, forwarded_for: Sequence[str]) -> str:
        """Return the client's address: the peer's own, or what trusted proxies say; "" if a proxy does not say."""
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
    """Counts what was refused for want of something, by the limit's name; a line in the log now and then.

    The first refusal by each limit is logged, then at most one a minute, which says how many there were meanwhile.
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
        self._said: dict[str, tuple[float, int]] = {}  # by limit: when a line was logged, and the count it gave

    def note(self, budget: str, remedy: str = "", *, whose: str = "") -> None:
        """Count one more by the limit `budget`, one of a few names; `whose` may be anything."""
        count = self.counts[budget] = self.counts.get(budget, 0) + 1
        at, said = self._said.get(budget, (-self._seconds, 0))
        now = self._clock()
        if now - at < self._seconds:
            return
        self._said[budget] = now, count
        facts = {"budget": budget, "times": count - said, "remedy": remedy, "last": whose[:100]}
        self._log.warning(self._event, extra={name: fact for name, fact in facts.items() if fact})


def _parse(address: str) -> Address | None:
    """An address as a peer or a proxy writes it: with a port or a zone, or an IPv4 address in IPv6."""
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
