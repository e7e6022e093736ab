"""Budgets: limits on what one client, one address and one instance may use, wherever use could grow without bound.

    budgets = Budgets.parse(["connections-per-address=50", "names=1000"])
    budgets.connections_per_address                50
    budgets.stomp_limits(max_frame=65536)          the limits that the STOMP session enforces (stomp/session.py)

All are on by default, and generous for people; 0 means no limit where the table says so. Each is an option
(`chatlab serve chat --limit NAME=VALUE`), a line of `--limits`, a row of docs/deploy.md, and two samples in /metrics:
`chatlab_budget_limit{budget="NAME"}`, and the number of times it was reached.

This module also does the accounting for two of them: `Pace` (frames and octets per second) and `Names`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from chatlab.net.connection_limits import PER_ADDRESS_DEFAULT, slots_for_descriptors
from chatlab.stomp.frames import Limits

BURST_SECONDS = 5  # seconds' worth of frames, octets and SUBSCRIBEs that may come in one burst
MAX_VALUE = 1 << 40
MIN_FRAMES = 64  # a client may leave that many of the largest frames unacknowledged; a queue hands out no more


def _budget(default: int, what: str, beyond: str, *, delays: bool = False, may_be_off: bool = False) -> Any:
    about = {"what": what, "beyond": beyond, "delays": delays, "may_be_off": may_be_off}
    return field(default=default, metadata=about)


@dataclass(frozen=True, slots=True)
class Budgets:
    """The limits of one instance. `TABLE` says what each one bounds, and what happens beyond it."""

    connections: int = _budget(
        0,
        "connections of an instance, SockJS sessions among them; 0: as many as its descriptors allow",
        "503 with the reason; health checks are still answered",
    )
    connections_per_address: int = _budget(
        PER_ADDRESS_DEFAULT,
        "connections from one IPv4 address or IPv6 /64; unless this is set, none are counted for loopback",
        "503 with the reason",
        may_be_off=True,
    )
    connections_per_principal: int = _budget(
        100, "connections of one user who has logged in", "ERROR to CONNECT", may_be_off=True
    )
    sockjs_sessions_per_address: int = _budget(
        500,
        "SockJS sessions without a WebSocket from one address, loopback too",
        "503 with the reason",
        may_be_off=True,
    )
    frames_per_second: int = _budget(
        2000,
        "frames a second of one connection, while others are sending; five seconds' worth at once",
        "it is read no faster",
        delays=True,
        may_be_off=True,
    )
    octets_per_second: int = _budget(
        16 << 20,
        "octets a second of one connection; five seconds' worth at once",
        "it is read no faster",
        delays=True,
        may_be_off=True,
    )
    subscribes_per_second: int = _budget(
        100,
        "SUBSCRIBEs a second of one connection; five seconds' worth at once",
        "it is read no faster",
        delays=True,
        may_be_off=True,
    )
    subscriptions: int = _budget(256, "subscriptions of one connection", "ERROR")
    subscriptions_per_destination: int = _budget(16, "subscriptions of one connection to one destination", "ERROR")
    subscription_octets: int = _budget(
        256 << 10, "octets of the headers of one connection's subscriptions, one --max-frame at least", "ERROR"
    )
    receipts: int = _budget(
        1000, "frames of one connection not answered yet", "it is not read until some are", delays=True
    )
    transactions: int = _budget(16, "transactions one connection has open", "ERROR")
    transaction_octets: int = _budget(1 << 20, "octets in one transaction, one --max-frame at least", "ERROR")
    held_octets: int = _budget(
        4 << 20, "octets in all transactions of one connection, one --max-frame at least", "ERROR"
    )
    unacknowledged: int = _budget(1000, "messages one subscription has not acknowledged", "ERROR")
    unacknowledged_octets: int = _budget(
        64 << 20, "octets one connection has not acknowledged, 64 --max-frame at least", "ERROR"
    )
    replays: int = _budget(
        4, "replays (`history`, `last-id`) one connection has at once", "the next waits", delays=True
    )
    names: int = _budget(
        10_000,
        "rooms, topics and queues in use on an instance; one unused for some 10 minutes is not counted",
        "a new name is refused",
        may_be_off=True,
    )
    names_per_hour: int = _budget(
        500,
        "rooms, topics and queues that are first used by one user, or by all guests of one address, in an hour; "
        "on loopback, by one connection",
        "a new name is refused",
        may_be_off=True,
    )

    @classmethod
    def parse(cls, given: Iterable[str], start: Self | None = None) -> Self:
        """Return the budgets with each NAME=VALUE of `given` applied. Raise ValueError if one is wrong."""
        budgets = start or cls()
        for each in given:
            name, _, value = each.partition("=")
            budget = TABLE.get(name.strip())
            if budget is None:
                raise ValueError(f"unknown limit {name.strip()[:80]!r}; the limits are {', '.join(TABLE)}")
            budgets = replace(budgets, **{name.strip().replace("-", "_"): _value(budget, value.strip())})
        return budgets

    @property
    def places(self) -> int:
        """The number of connections an instance takes: as configured, or as many as its descriptors allow."""
        return self.connections or slots_for_descriptors()

    @property
    def counts_loopback(self) -> bool:
        """Whether connections from this machine are counted by address: only if a number was configured."""
        return self.connections_per_address != PER_ADDRESS_DEFAULT

    def stomp_limits(self, max_frame: int = Limits().max_frame) -> Limits:
        """Return the limits for the STOMP session."""
        return Limits(
            max_frame=max_frame,
            max_subscriptions=self.subscriptions,
            max_subscription_octets=max(self.subscription_octets, max_frame),
            max_transactions=self.transactions,
            max_transaction=max(self.transaction_octets, max_frame),
            max_held=max(self.held_octets, max_frame),
            max_unacknowledged=self.unacknowledged,
            max_unacknowledged_octets=max(self.unacknowledged_octets, MIN_FRAMES * max_frame),
        )

    def by_name(self) -> Mapping[str, int]:
        """Return each limit in force by its name."""
        return {name: getattr(self, name.replace("-", "_")) for name in TABLE} | {"connections": self.places}


@dataclass(frozen=True, slots=True)
class Budget:
    """One row of the table."""

    name: str
    default: int
    what: str
    beyond: str
    delays: bool  # whether a client beyond it is delayed, not refused
    may_be_off: bool  # whether 0 means no limit


TABLE: Mapping[str, Budget] = {
    each.name.replace("_", "-"): Budget(each.name.replace("_", "-"), getattr(Budgets(), each.name), **each.metadata)
    for each in fields(Budgets)
}


def _value(budget: Budget, text: str) -> int:
    least = 0 if budget.may_be_off or budget.default == 0 else 1
    if not text.isascii() or not text.isdigit() or not least <= int(text[:20]) <= MAX_VALUE:
        raise ValueError(f"the limit {budget.name} must be a number, {least} or more, not {text[:40]!r}")
    return int(text)


class Pace:
    """A rate limit: an amount per second, and five seconds' worth in a burst.

    The caller counts by itself between checks, so that a message costs it a single comparison.
    """

    __slots__ = ("_at", "_clock", "_left", "_per_second")

    def __init__(self, per_second: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._left = float(per_second * BURST_SECONDS)
        self._clock = clock
        self._at = clock()

    def spend(self, count: int) -> float:
        """Account for `count` more. Return the seconds by which they came too early; 0 if within the rate."""
        if not self._per_second:
            return 0.0
        now = self._clock()
        most = self._per_second * BURST_SECONDS
        self._left = min(most, self._left + (now - self._at) * self._per_second) - count
        self._at = now
        return max(0.0, -self._left / self._per_second)

    def forgive(self) -> None:
        """Cancel the debt: nobody else needed the capacity."""
        self._left = max(self._left, 0.0)


class Names:
    """The topics in use on an instance, and the number of them that each client was the first to use in this hour.

    A message costs one lookup in `in_use`, which holds the names used since the last rotation; `_before` holds those of
    the period before. `rotate` moves one into the other, and drops the names that were neither used since nor are read.
    """

    ROTATE_SECONDS = 600.0  # seconds between rotations
    HOUR = 3600.0

    def __init__(
        self, most: int, per_hour: int, is_read: Callable[[str], bool], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.in_use: dict[str, None] = {}
        self._before: dict[str, None] = {}
        self._most = most
        self._per_hour = per_hour
        self._is_read = is_read
        self._clock = clock
        self._hour_began = clock()
        self._new_names: dict[str, int] = {}  # by client

    def __len__(self) -> int:
        return len(self.in_use) + len(self._before)

    def use(self, topic: str, by: str) -> str:
        """Use a topic that is not among those `in_use`. Return "", or the limit that forbids one more name."""
        if self._before.pop(topic, "") is None:
            self.in_use[topic] = None
            return ""
        if self._most and len(self) >= self._most:
            return "names"
        if (made := self._new_names_of(by)) >= self._per_hour > 0:
            return "names-per-hour"
        self._new_names[by] = made + 1
        self.in_use[topic] = None
        return ""

    def rotate(self) -> None:
        """Drop the names that have not been used since the last rotation and are not read."""
        still_read = {topic: None for topic in self._before if self._is_read(topic)}
        self._before, self.in_use = self.in_use | still_read, {}

    def _new_names_of(self, whom: str) -> int:
        now = self._clock()
        if now - self._hour_began >= self.HOUR:
            self._hour_began = now
            self._new_names.clear()
        return self._new_names.get(whom, 0)
