"""The broker port: what chat asks of a message broker, whatever the engine.

Four calls: `publish`, `subscribe`, unsubscribe (closing a subscription) and `aclose`. What only some engines can do is
a type of its own, so that a chat which needs history cannot be handed an engine without it: `KeepsHistory`,
`Deduplicates`, `HasGroups`. What an engine can do faster than the port asks is one too (`Pipelines`, `Forwards`): who
does not look for it loses nothing but time. An engine imports from this room and one client library; this file imports
no engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, Protocol, Self, runtime_checkable

import msgspec

BEGINNING = "0-0"  # the id before every record, on every engine that keeps history
UNKNOWN = "unknown"  # how an answer to `crash_risk` begins if the engine does not tell
SURVIVES = "what the broker confirms survives its crash"  # what to say if the answer is ""


class Record(msgspec.Struct, frozen=True):
    """One record on its way to a reader: its topic, the engine's id for it ("" where it gives none), its body."""

    topic: str
    id: str
    body: bytes


class Page(NamedTuple):
    """Some of the records that are kept, oldest first, and whether more came after them when they were read."""

    records: Sequence[Record]
    more: bool


class Reader(Protocol):
    """One reader of one topic. When the engine goes away it resumes without a gap, or raises `SubscriptionLost`."""

    def __aiter__(self) -> Self: ...
    async def __anext__(self) -> Record: ...

    async def batch(self, limit: int = 512) -> Sequence[Record]:
        """Wait for a delivery, then return all that are here (at most `limit`), in order; empty once it is closed."""

    async def aclose(self) -> None:
        """Stop: nothing is delivered after this returns. Others on the same topic do not notice."""


@runtime_checkable
class Forwards(Reader, Protocol):
    """A subscription that needs no reader's task between the engine and the one who takes the records."""

    async def forward(self, deliver: Callable[[Sequence[Record]], None]) -> None:
        """Call `deliver`, which must not wait, with what is here and with what arrives, as it arrives, until closed."""


@runtime_checkable
class Broker(Protocol):
    """Any engine: every open subscription of a topic, in every process, gets every record published to it."""

    resumes: bool  # whether subscriptions outlive a restart of the engine; if not, they end with `SubscriptionLost`

    @property
    def connected(self) -> bool:
        """Whether the engine answers; False while it is being sought again."""

    async def start(self) -> None:
        """Connect, or raise `BrokerUnavailable` that names the URL."""

    async def publish(self, topic: str, body: bytes) -> str:
        """Hand over one record; return its id once the engine has it, or raise `BrokerUnavailable`.

        As every other call, it raises `BrokerClosed` once the broker is closed.
        """

    async def subscribe(self, topic: str) -> Reader:
        """Read what is published from now on: a publish that starts after this returns is delivered."""

    async def aclose(self) -> None:
        """Close every subscription and connection. Safe to call twice."""


@runtime_checkable
class KeepsHistory(Broker, Protocol):
    """An engine that keeps records, so that a reader can name the last id it saw and miss nothing."""

    async def subscribe(self, topic: str, *, after: str | None = None) -> Reader:
        """As above; with `after`, first what was kept after that id, then what is new: no gap, no repeat.

        If records after it are gone, this or the first batch raises SubscriptionLost, which says where to go on.
        """

    async def history(self, topic: str, *, after: str = BEGINNING, limit: int | None = None) -> Sequence[Record]:
        """The records kept after the id `after`, oldest first; with `limit` the newest so many of them."""

    async def page(self, topic: str, *, after: str = BEGINNING, limit: int, octets: int) -> Page:
        """The first records kept after the id `after`: at most `limit`, and none after their bodies make `octets`.

        A page holds at least one record if there is one, so it may go over `octets` by its last record.
        """

    async def before_newest(self, topic: str, count: int, *, after: str = BEGINNING) -> str | None:
        """The id after which the newest `count` records come; None if no more than that are kept after `after`."""

    async def oldest(self, topic: str) -> str | None:
        """The id of the first record still kept; None if there is none. Ask after reading: it only grows."""

    async def lost_after(self, topic: str, after: str) -> str | None:
        """None if every record that came after the id `after` is kept, as far as the engine can tell.

        Else the id after which reading misses no more than is gone. Ask after reading: what goes meanwhile shows too.
        """

    def is_before(self, one: str, other: str) -> bool:
        """Whether the id `one` comes before `other`. Raises ValueError if either is not an id of this engine's."""


@runtime_checkable
class Deduplicates(Broker, Protocol):
    """An engine on which a publish can be tried again without adding a second record."""

    window: float  # seconds for which a key is remembered, at least

    async def publish_once(self, topic: str, body: bytes, key: str) -> str:
        """As `publish`, but what was published to this topic under this key before is not added: its id is returned.

        Safe to call again after any error; the broker itself does so while the engine is away.
        """


@runtime_checkable
class Pipelines(Deduplicates, Protocol):
    """An engine on which a publish is begun in one call and over in another, without a task to wait in between."""

    def begin_publish(self, topic: str, body: bytes, key: str | None = None) -> asyncio.Future[str]:
        """Begin `publish`, or `publish_once` if there is a key, in the order of the calls.

        The future gets the record's id, or the error. It is done already if the record is stored before this returns.
        """


class GroupConsumer(Reader, Protocol):
    """One member of a group: each record goes to one member, and comes again until somebody acknowledges it."""

    async def ack(self, record: Record) -> None:
        """The work for this record is done; it will not come again."""


@runtime_checkable
class Postpones(GroupConsumer, Protocol):
    """A member whose engine counts how often a record was tried, and that can say that this time does not count."""

    async def postpone(self) -> None:
        """Put back all that was taken and not acknowledged, as if never tried: for another member, or this one."""


@runtime_checkable
class HasGroups(Broker, Protocol):
    """An engine whose groups share the work: each record to one member, taken over if that member dies."""

    async def create_group(self, topic: str, group: str) -> None:
        """Create `group` if it is missing: what is published from now on waits for its first member."""

    async def join(self, topic: str, group: str, member: str) -> GroupConsumer:
        """Join `group`, created if it is missing, from now on; what dead members left undone is taken over."""


@runtime_checkable
class HasPresence(Broker, Protocol):
    """An engine that keeps short notes which expire: who announces nothing any more is soon gone, however it went."""

    async def announce(self, place: str, who: str, note: str, seconds: float) -> None:
        """Have `note` stand under `who` at that place for so many seconds, in place of what stood there."""

    async def renew(self, place: str, who: str, seconds: float) -> bool:
        """Keep the note of `who` for another `seconds`, counted from now; False if it has expired already."""

    async def present(self, place: str) -> Sequence[str]:
        """The notes that stand at a place now."""

    async def look(self, place: str, known: Collection[str]) -> Sequence[str]:
        """The same, but of a note whose first line is in `known` that line alone: it need not be read again."""


@runtime_checkable
class SaysWhatACrashCosts(Broker, Protocol):
    """A broker that knows whether its engine's settings keep the promise of a confirmed publish."""

    async def crash_risk(self) -> str:
        """Return "" if a confirmed publish survives a crash of the engine.

        Else one sentence that says what may be lost and what prevents it; it begins with UNKNOWN if the engine's
        settings cannot be seen. Does not wait for an engine that is away: then it is what was last known.
        """


@runtime_checkable
class SaysWhatIsRefused(Broker, Protocol):
    """A broker that can find out whether its engine would serve what a new client asks for."""

    async def why_refused(self) -> str:
        """Return "" if the engine takes new connections, writes and reads now, else why not and what to do.

        Answers within a few seconds, from what was found a moment ago if it is asked often.
        """


async def why_refused(broker: Broker) -> str:
    """As `SaysWhatIsRefused.why_refused`, for any broker: one that cannot find out is taken to be served."""
    return await broker.why_refused() if isinstance(broker, SaysWhatIsRefused) else ""


def has_few_topics(broker: Broker) -> bool:
    """Whether each topic that is read costs the engine a connection or a channel, so that thousands are too many."""
    return bool(getattr(broker, "few_topics", False))


async def crash_risk(broker: Broker) -> str:
    """As `SaysWhatACrashCosts.crash_risk`, for any broker."""
    if isinstance(broker, SaysWhatACrashCosts):
        return await broker.crash_risk()
    return f"{UNKNOWN} what a crash of the broker may lose: it does not tell its settings"
