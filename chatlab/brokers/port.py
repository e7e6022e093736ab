"""The broker port: what the chat needs from a message broker, whatever the engine.

Four calls: `publish`, `subscribe`, unsubscribe (closing a reader) and `aclose`. What only some engines can do is a
separate type, so that a chat that needs history cannot be given an engine without it: `KeepsHistory`, `Deduplicates`,
`HasGroups`. Faster ways to do the same are types too (`Pipelines`, `Forwards`): callers that ignore them lose only
time. An engine imports from this package and one client library; this file imports no engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, Protocol, Self, runtime_checkable

import msgspec

BEGINNING = "0-0"  # the id before every record, on every engine that keeps history
UNKNOWN = "unknown"  # how an answer to `crash_risk` begins if the engine does not disclose its settings
SURVIVES = "confirmed messages survive a crash of the broker"  # what to show if the answer is ""


class Record(msgspec.Struct, frozen=True):
    """One record on its way to a reader: its topic, its id in the engine ("" if there is none), its body."""

    topic: str
    id: str
    body: bytes


class Page(NamedTuple):
    """Some of the records kept, oldest first, and whether more followed them when they were read."""

    records: Sequence[Record]
    more: bool


class Reader(Protocol):
    """One reader of one topic. When the engine goes away, it resumes without a gap or raises `SubscriptionLost`."""

    def __aiter__(self) -> Self: ...
    async def __anext__(self) -> Record: ...

    async def batch(self, limit: int = 512) -> Sequence[Record]:
        """Wait for a record, then return all that have arrived (at most `limit`), in order; empty once closed."""

    async def aclose(self) -> None:
        """Stop reading: nothing is delivered after this returns. Other readers of the topic are not affected."""


@runtime_checkable
class Forwards(Reader, Protocol):
    """A reader that can call a function with its records, without a task in between."""

    async def forward(self, deliver: Callable[[Sequence[Record]], None]) -> None:
        """Call `deliver`, which must not wait, with what has arrived and with what arrives later, until closed."""


@runtime_checkable
class Broker(Protocol):
    """Any engine: every open reader of a topic, in every process, gets every record published to it."""

    @property
    def connected(self) -> bool:
        """Return whether the engine answers; False while reconnecting."""

    async def start(self) -> None:
        """Connect, or raise a `BrokerUnavailable` that names the URL."""

    async def publish(self, topic: str, body: bytes) -> str:
        """Publish one record; return its id once the engine has it, or raise `BrokerUnavailable`.

        Like every other call, raises `BrokerClosed` once the broker is closed.
        """

    async def subscribe(self, topic: str) -> Reader:
        """Return a reader of what is published from now on: a publish that starts after this returns is delivered."""

    async def aclose(self) -> None:
        """Close every reader and connection. Safe to call twice."""


@runtime_checkable
class KeepsHistory(Broker, Protocol):
    """An engine that keeps records, so that a reader can resume after the last id it saw and miss nothing."""

    async def subscribe(self, topic: str, *, after: str | None = None) -> Reader:
        """Like `Broker.subscribe`; with `after`, first what is kept after that id, then what is new: no gap, no repeat.

        If records after it are gone, this or the first batch raises SubscriptionLost, which says where to resume.
        """

    async def history(self, topic: str, *, after: str = BEGINNING, limit: int | None = None) -> Sequence[Record]:
        """Return the records kept after the id `after`, oldest first; with `limit`, only the newest `limit` of them."""

    async def page(self, topic: str, *, after: str = BEGINNING, limit: int, octets: int) -> Page:
        """Return the first records after the id `after`: at most `limit`, stopping once their bodies reach `octets`.

        A page holds at least one record if there is one, so its last record may exceed `octets`.
        """

    async def before_newest(self, topic: str, count: int, *, after: str = BEGINNING) -> str | None:
        """Return the id just before the newest `count` records; None if no more than that are kept after `after`."""

    async def oldest(self, topic: str) -> str | None:
        """Return the id of the first record still kept; None if there is none. Ask after reading: it only grows."""

    async def lost_after(self, topic: str, after: str) -> str | None:
        """Return None if every record added after the id `after` is kept, as far as the engine can tell.

        Otherwise return the id to resume after, so that nothing that is kept is skipped. Ask after reading, so that
        records removed during the read are noticed too.
        """

    def is_before(self, one: str, other: str) -> bool:
        """Return whether the id `one` comes before `other`. Raises ValueError if either is not an id of this engine."""


@runtime_checkable
class Deduplicates(Broker, Protocol):
    """An engine on which a publish can be retried without adding a second record."""

    window: float  # seconds for which a key is remembered at least

    async def publish_once(self, topic: str, body: bytes, key: str) -> str:
        """Like `publish`, but if the topic already has a record with this key, add nothing and return that one's id.

        Safe to retry after any error; the broker itself retries while the engine is away.
        """


@runtime_checkable
class Pipelines(Deduplicates, Protocol):
    """An engine on which a publish can be enqueued without a task that waits for it."""

    def begin_publish(self, topic: str, body: bytes, key: str | None = None) -> asyncio.Future[str]:
        """Enqueue a `publish`, or a `publish_once` if there is a key; the order of the calls is kept.

        The future gets the record's id or the error. It is already done if the record is stored before this returns.
        """


class GroupConsumer(Reader, Protocol):
    """One member of a group: each record goes to one member, and is redelivered until it is acknowledged."""

    async def ack(self, record: Record) -> None:
        """Acknowledge a record: its work is done, and it is not redelivered."""


@runtime_checkable
class Postpones(GroupConsumer, Protocol):
    """A member whose engine counts deliveries, and that can return records without counting this one."""

    async def postpone(self) -> None:
        """Return all unacknowledged records as if never delivered, for another member or this one."""


@runtime_checkable
class HasGroups(Broker, Protocol):
    """An engine with consumer groups: each record goes to one member, and to another if that member dies."""

    async def create_group(self, topic: str, group: str) -> None:
        """Create `group` if it is missing: what is published from now on waits for its first member."""

    async def join(self, topic: str, group: str, member: str) -> GroupConsumer:
        """Join `group`, creating it if it is missing; take over what dead members left unacknowledged."""


@runtime_checkable
class HasPresence(Broker, Protocol):
    """An engine that keeps short notes that expire: an owner that stops renewing its note is soon absent."""

    async def announce(self, place: str, who: str, note: str, seconds: float) -> None:
        """Set `who`'s note at `place`, replacing any earlier one; it expires after `seconds`."""

    async def renew(self, place: str, who: str, seconds: float) -> bool:
        """Extend `who`'s note to `seconds` from now; return False if it has expired already."""

    async def present(self, place: str) -> Sequence[str]:
        """Return the notes at `place` that have not expired."""

    async def look(self, place: str, known: Collection[str]) -> Sequence[str]:
        """Like `present`, but return only the first line of a note if that line is in `known`: this saves traffic."""


@runtime_checkable
class SaysWhatACrashCosts(Broker, Protocol):
    """A broker that knows whether, with its engine's settings, a confirmed publish survives a crash."""

    async def crash_risk(self) -> str:
        """Return "" if a confirmed publish survives a crash of the engine.

        Otherwise return one sentence on what may be lost and what prevents it; it begins with UNKNOWN if the engine's
        settings cannot be read. Does not wait for an engine that is away: it returns the last known answer.
        """


@runtime_checkable
class SaysWhatIsRefused(Broker, Protocol):
    """A broker that can find out whether its engine would serve a new client."""

    async def why_refused(self) -> str:
        """Return "" if the engine accepts new connections, writes and reads now, else why not and what to do.

        Answers within a few seconds; frequent calls get a cached answer.
        """


async def why_refused(broker: Broker) -> str:
    """Call `SaysWhatIsRefused.why_refused`; return "" for a broker without it."""
    return await broker.why_refused() if isinstance(broker, SaysWhatIsRefused) else ""


def has_few_topics(broker: Broker) -> bool:
    """Return whether each topic read costs a connection or a channel, so that thousands are too many."""
    return bool(getattr(broker, "few_topics", False))


async def crash_risk(broker: Broker) -> str:
    """Call `SaysWhatACrashCosts.crash_risk`; return UNKNOWN and a reason for a broker without it."""
    if isinstance(broker, SaysWhatACrashCosts):
        return await broker.crash_risk()
    return f"{UNKNOWN} what a crash of the broker may lose: it does not disclose its settings"
