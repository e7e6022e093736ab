"""A broker inside one process: no engine and no connection.

For tests, for learning, and for a chat that runs as a single instance. Records are kept until the process ends or a
limit is reached: there are limits in records and octets for each topic, and in octets for all topics together.

Ids begin with a number of the run, so that an id from an earlier run is recognized as such.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Self

from chatlab.brokers.inbox import MAX_WAITING, ForwardingInbox
from chatlab.brokers.memory.groups import MemoryGroup, MemoryMember
from chatlab.brokers.names import parse_id
from chatlab.brokers.port import BEGINNING, Page, Record
from chatlab.errors import BrokerClosed, BrokerError, BrokerUnavailable, SubscriptionLost

TOPIC_OCTETS = 64 << 20
OCTETS = 512 << 20
MAX_TOPICS = 20_000
MAX_KEYS = 100_000  # of a topic
IN_ALL = 10  # times MAX_KEYS: the limit for all topics together
RECORD_MEMORY = 300  # octets that a record takes in addition to its body
DAY = 86_400.0  # seconds
CARE = 60.0  # seconds between two checks for records and topics to expire

EPOCH = 1_767_225_600  # 2026-01-01, in seconds since 1970
_last_run = 0


def next_run() -> int:
    """Return a number that no earlier run had: tenths of a second since 2026, or the last one here plus one.

    Nothing starts twice in a tenth of a second. In milliseconds since 1970 it would be four octets longer, twice in
    each MESSAGE: on Linux, two small ones in a row would then be acknowledged one by one, at a seventh of the cost.
    """
    global _last_run
    _last_run = max(_last_run + 1, int((time.time() - EPOCH) * 10))
    return _last_run


@dataclass(slots=True)
class Topic:
    """The records kept, oldest first, how many there ever were, and the readers."""

    kept: deque[Record]
    count: int = 0
    octets: int = 0  # of the records kept
    ids: dict[str, tuple[str, float]] = field(default_factory=dict)  # by key: the record's id, and when it was stored
    readers: set[MemoryReader] = field(default_factory=set)
    groups: dict[str, MemoryGroup] = field(default_factory=dict)
    used: float = 0.0  # on the monotonic clock: the last check that found the topic in use
    checks: deque[tuple[float, int]] = field(default_factory=deque)  # the time of each check, and `count` then


class MemoryReader(ForwardingInbox):
    """A reader in this process. One that falls `max_waiting` records behind ends with `SubscriptionLost`."""

    def __init__(self, topic: str, readers: set[MemoryReader]) -> None:
        super().__init__(topic)
        self._readers = readers
        readers.add(self)

    async def aclose(self) -> None:
        """Stop reading."""
        self._readers.discard(self)
        self.discard()


class MemoryBroker:
    """Keeps the last `max_length` records of each topic, and remembers `max_keys` keys, for `window` seconds at most.

    A topic keeps at most `topic_octets`, all topics together at most `octets`. There are at most `max_topics` topics:
    beyond that, the oldest that have no readers are removed. Records that wait for a group are never dropped: a full
    group refuses new ones.

    Records expire after `max_age` seconds. A topic unused for `expire` seconds is removed, with what waits in it,
    unless it is in `lasting`. 0 means never. This is checked every `CARE` seconds.

    The records of a topic have the ids RUN-1, RUN-2, and so on. `run` sets that number, for a caller that must know ids
    in advance.
    """

    in_process = True  # there is no engine beside this process that could crash

    def __init__(
        self,
        *,
        max_length: int = 10_000,
        window: float = 600,
        max_waiting: int = MAX_WAITING,
        topic_octets: int = TOPIC_OCTETS,
        octets: int = OCTETS,
        max_keys: int = MAX_KEYS,
        max_topics: int = MAX_TOPICS,
        max_age: float = 30 * DAY,
        expire: float = DAY,
        lasting: Sequence[str] = (),
        run: int | None = None,
    ) -> None:
        self.window = window
        self.octets = 0  # of all records kept
        self._keys = 0  # remembered
        self._max_keys = max_keys
        self._topic_octets = topic_octets
        self._max_octets = octets
        self._max_topics = max_topics
        self._max_age, self._expire, self._lasting = max_age, expire, frozenset(lasting)
        self._care = min([CARE, *(seconds / 4 for seconds in (max_age, expire) if seconds)])
        self._next_check = 0.0  # on the monotonic clock
        self._started_at = 0  # new topics count on from here, so that no id of a removed topic is reused
        self._run = next_run() if run is None else run
        self._max_length = max_length
        self._max_waiting = max_waiting
        self._topics: dict[str, Topic] = {}
        self._notes: dict[str, dict[str, tuple[str, float]]] = {}  # by place and owner: the note, and when it expires
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None  # the one that published last

    @property
    def connected(self) -> bool:
        """Return True until the broker is closed."""
        return not self._closed

    async def start(self) -> None:
        """Do nothing: there is no engine to connect to."""

    async def publish(self, topic: str, body: bytes) -> str:
        """Keep the record and hand it to every reader."""
        id = self._publish(topic, body)
        await asyncio.sleep(0)  # let readers run, as with any engine
        return id

    async def publish_once(self, topic: str, body: bytes, key: str) -> str:
        """Like `publish`, but a key seen less than `window` seconds ago adds nothing."""
        id = self._publish_once(topic, body, key)
        await asyncio.sleep(0)
        return id

    def begin_publish(self, topic: str, body: bytes, key: str | None = None) -> asyncio.Future[str]:
        """Publish, or `publish_once` if there is a key; the future is done when this returns."""
        loop = self._loop
        if loop is None or not loop.is_running():
            loop = self._loop = asyncio.get_running_loop()  # once: Python 3.11 makes a system call of it
        done: asyncio.Future[str] = loop.create_future()
        try:
            done.set_result(self._publish(topic, body) if key is None else self._publish_once(topic, body, key))
        except BrokerError as error:
            done.set_exception(error)
        return done

    def _publish(self, topic: str, body: bytes) -> str:
        stored = self._topic(topic)
        if stored.groups:
            _require_capacity(topic, stored.groups)
        stored.count = count = stored.count + 1
        record = Record(topic, f"{self._run}-{count}", bytes(body))
        kept, size = stored.kept, len(body) + RECORD_MEMORY
        kept.append(record)
        if len(kept) > self._max_length:
            size -= len(kept.popleft().body) + RECORD_MEMORY
        stored.octets = octets = stored.octets + size
        self.octets = in_all = self.octets + size
        if octets > self._topic_octets or in_all > self._max_octets:
            self._keep_within_octets(stored)
        for reader in tuple(stored.readers):
            if len(reader) >= self._max_waiting:
                stored.readers.discard(reader)
                reader.end(SubscriptionLost(f"the reader of {topic} fell {self._max_waiting} records behind"))
            else:
                reader.put([record])
        if stored.groups:
            for group in stored.groups.values():
                group.put(record)
        return record.id

    def _publish_once(self, topic: str, body: bytes, key: str) -> str:
        ids, now = self._topic(topic).ids, time.monotonic()
        while ids and (next(iter(ids.values()))[1] < now - self.window or self._has_too_many(ids)):
            del ids[next(iter(ids))]
            self._keys -= 1
        if (found := ids.get(key)) is not None:
            return found[0]
        ids[key] = (id := self._publish(topic, body)), now
        self._keys += 1
        return id

    def _has_too_many(self, keys: Mapping[str, object]) -> bool:
        return len(keys) > self._max_keys or self._keys > IN_ALL * self._max_keys

    def _keep_within_octets(self, topic: Topic) -> None:
        """Drop the oldest records of the topic that has grown, and of others if all together are too large."""
        while topic.octets > self._topic_octets and len(topic.kept) > 1:
            self._drop_oldest(topic)
        if self.octets > self._max_octets:
            self._free_memory(topic)

    def _drop_oldest(self, topic: Topic) -> None:
        size = len(topic.kept.popleft().body) + RECORD_MEMORY
        topic.octets -= size
        self.octets -= size

    def _free_memory(self, newest: Topic) -> None:
        """Halve the largest topics until a tenth is free."""
        for topic in sorted(self._topics.values(), key=lambda each: each.octets, reverse=True):
            half = topic.octets // 2
            while topic.octets > half and len(topic.kept) > (topic is newest):
                self._drop_oldest(topic)
            if self.octets <= self._max_octets * 9 // 10:
                return

    async def subscribe(self, topic: str, *, after: str | None = None) -> MemoryReader:
        """Read from now on, or from the record after the id `after`. Raises SubscriptionLost if that is gone."""
        kept: Sequence[Record] = []
        if after is not None:
            if (resume := await self.lost_after(topic, after)) is not None:
                raise SubscriptionLost(f"{topic} no longer keeps every record after {after}", resume=resume)
            kept = await self.history(topic, after=after)
        reader = MemoryReader(topic, self._topic(topic).readers)
        reader.put(kept)
        return reader

    async def history(self, topic: str, *, after: str = BEGINNING, limit: int | None = None) -> Sequence[Record]:
        """Return the records kept after `after`; with `limit`, only the newest `limit` of them."""
        kept, last_seen = self._known(topic).kept, parse_id(after)
        first = parse_id(kept[0].id) if kept else (self._run, 1)
        seen = 0 if last_seen < first else len(kept) if last_seen[0] > self._run else last_seen[1] - first[1] + 1
        start = max(seen, 0 if limit is None else len(kept) - limit)
        return list(islice(kept, start, None))

    async def page(self, topic: str, *, after: str = BEGINNING, limit: int, octets: int) -> Page:
        """Return the first records kept after `after`, bounded in number and octets."""
        await asyncio.sleep(0)  # a replay of many pages must not block others
        kept = await self.history(topic, after=after)
        records = first_of(kept, limit, octets)
        return Page(records, len(records) < len(kept))

    async def before_newest(self, topic: str, count: int, *, after: str = BEGINNING) -> str | None:
        """Return the id just before the newest `count` records; None if no more are kept after `after`."""
        kept = await self.history(topic, after=after)
        return kept[-count - 1].id if len(kept) > count else None

    async def oldest(self, topic: str) -> str | None:
        """Return the id of the first record still kept; None if there is none."""
        kept = self._known(topic).kept
        return kept[0].id if kept else None

    async def lost_after(self, topic: str, after: str) -> str | None:
        """Return None if all records after `after` are kept, else the id to resume after."""
        (run, number), stored = parse_id(after), self._known(topic)
        if after == BEGINNING:
            return None
        if run != self._run:
            return BEGINNING  # its reader has seen no record of this run
        if number > stored.count:
            return self._id(stored.count) if stored.count else BEGINNING
        return None if number >= stored.count - len(stored.kept) else BEGINNING

    def is_before(self, one: str, other: str) -> bool:
        """Return whether the id `one` comes before `other`."""
        return parse_id(one) < parse_id(other)

    async def create_group(self, topic: str, group: str) -> None:
        """Keep what is published from now on for a group, up to a topic's limits; then refuse more."""
        self._group(topic, group)

    async def join(self, topic: str, group: str, member: str) -> MemoryMember:
        """Join a group, creating it if it is missing."""
        return MemoryMember(self._group(topic, group))

    async def announce(self, place: str, who: str, note: str, seconds: float) -> None:
        """Set `who`'s note at `place`; it expires after `seconds`."""
        self._require_open()
        self._notes.setdefault(place, {})[who] = (note, time.monotonic() + seconds)

    async def renew(self, place: str, who: str, seconds: float) -> bool:
        """Extend a note to `seconds` from now; return False if it has expired."""
        self._require_open()
        now = time.monotonic()
        note, until = self._notes.get(place, {}).get(who, ("", 0.0))
        if until <= now:
            return False
        self._notes[place][who] = (note, now + seconds)
        return True

    async def present(self, place: str) -> Sequence[str]:
        """Return the notes that have not expired; drop the others."""
        self._require_open()
        now = time.monotonic()
        current = {who: (note, until) for who, (note, until) in self._notes.pop(place, {}).items() if until > now}
        if current:
            self._notes[place] = current
        return [note for note, _ in current.values()]

    async def look(self, place: str, known: Collection[str]) -> Sequence[str]:
        """Like `present`, but return only the first line of a note if it is in `known`."""
        notes = [(note.partition("\n")[0], note) for note in await self.present(place)]
        return [first if first in known else note for first, note in notes]

    async def crash_risk(self) -> str:
        """Return what a crash may cost: this process is the engine."""
        return "a broker in memory loses every message when its process ends; Redis Streams keep them"

    async def aclose(self) -> None:
        """Close every reader."""
        self._closed = True
        for topic in self._topics.values():
            for reader in list(topic.readers):
                await reader.aclose()
            for group in topic.groups.values():
                group.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _id(self, number: int) -> str:
        return f"{self._run}-{number}"

    def _require_open(self) -> None:
        if self._closed:
            raise BrokerClosed("this broker is closed")

    def _group(self, topic: str, group: str) -> MemoryGroup:
        return self._topic(topic).groups.setdefault(group, MemoryGroup(self._max_length, self._topic_octets))

    def _topic(self, name: str) -> Topic:
        self._require_open()
        if (now := time.monotonic()) >= self._next_check:
            self._expire_topics(now)
        topic = self._topics.get(name)
        if topic is None:
            if len(self._topics) >= self._max_topics:
                self._forget_idle_topics()
            topic = self._topics[name] = Topic(deque(), self._started_at)
            topic.used = now
        return topic

    def _known(self, name: str) -> Topic:
        """Return a topic without creating it: an empty one if it does not exist."""
        self._require_open()
        return self._topics.get(name) or Topic(deque(), self._started_at)

    def _expire_topics(self, now: float) -> None:
        """Drop records that are too old and topics that nobody uses."""
        self._next_check = now + self._care
        for name, topic in list(self._topics.items()):
            is_read = topic.readers or any(group.members for group in topic.groups.values())
            if is_read or not topic.checks or topic.checks[-1][1] != topic.count:
                topic.used = now
            topic.checks.append((now, topic.count))
            self._drop_expired(topic, now)
            if self._expire and now - topic.used > self._expire and name not in self._lasting:
                self._forget(name)

    def _drop_expired(self, topic: Topic, now: float) -> None:
        keep_from = now - self._max_age if self._max_age else 0.0
        while len(topic.checks) > 1 and (not self._max_age or topic.checks[0][0] < keep_from):
            _, count = topic.checks.popleft()
            while self._max_age and topic.kept and parse_id(topic.kept[0].id)[1] <= count:
                self._drop_oldest(topic)

    def _forget(self, name: str) -> None:
        removed = self._topics.pop(name)
        self.octets -= removed.octets
        self._keys -= len(removed.ids)
        self._started_at = max(self._started_at, removed.count)

    def _forget_idle_topics(self) -> None:
        """Forget a tenth of the topics: the oldest without readers and groups."""
        idle = (name for name, each in self._topics.items() if not each.readers and not each.groups)
        for name in list(islice(idle, self._max_topics // 10 + 1)):
            self._forget(name)
        if len(self._topics) >= self._max_topics:
            raise BrokerUnavailable(f"all {self._max_topics} topics are in use", outcome_unknown=False)


def first_of(records: Sequence[Record], limit: int, octets: int) -> Sequence[Record]:
    """Return the first of some records, bounded as in `KeepsHistory.page`."""
    size = 0
    for number, record in enumerate(islice(records, limit)):
        if size >= octets and number:
            return records[:number]
        size += len(record.body)
    return records[:limit]


def _require_capacity(topic: str, groups: dict[str, MemoryGroup]) -> None:
    for name, group in groups.items():
        if group.full:
            reason = f"the group {name!r} is full: {len(group.waiting)} records of {topic} wait for its members"
            raise BrokerUnavailable(reason, outcome_unknown=False)
