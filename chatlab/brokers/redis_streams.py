"""Redis Streams (or Valkey's): records are kept, each reader has a place of its own in them, a restart costs nothing.

A topic is one stream, a record one entry with the field `body`. Three kinds of connection, so that none starves
another: one for publishing (`redis_publisher.py`), one that waits in a blocking XREAD for all topics of this broker,
and a small pool for the rest. A subscription is a place in a stream: an id. It reads pages by XRANGE until it has
caught up with the blocking read, then gets what that one brings; should it fall behind, it goes back to pages. So
history, a slow reader and a restarted engine are one case, without a gap and without a repeat.

What a confirmed publish survives is the server's setting. With `appendfsync everysec` a power cut costs up to a second;
a mere kill of the process costs nothing as a rule, yet up to two seconds if the disk was busy syncing just then, for
the server holds its writes back meanwhile. `durability="fsync"` waits for the disk each time, and loses neither way.
After a failover, what had not been replicated is gone. Left out: clusters (keys that belong together share a slot, but
this talks to one server).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from chatlab.brokers import redis_url
from chatlab.brokers.inbox import MAX_WAITING, ForwardingInbox, end_task, heard
from chatlab.brokers.names import parse_id
from chatlab.brokers.port import BEGINNING, Delivery
from chatlab.brokers.redis_groups import GroupMember
from chatlab.brokers.redis_link import Argument, Command, Link, LinkLost, back_off, body_of, why
from chatlab.brokers.redis_presence import RedisPresence
from chatlab.brokers.redis_publisher import Publisher
from chatlab.brokers.redis_server import CrashRisk, examine, streams
from chatlab.errors import BrokerError, BrokerUnavailable, SetupError, SubscriptionLost

log = logging.getLogger(__name__)

PAGE = 512  # entries in one read
BLOCK = 1.0  # seconds a blocking read waits before it asks again: a server that hangs is noticed after BLOCK + TIMEOUT
TIMEOUT = 3.0  # seconds a server may take to answer
NOTHING = "chatlab:nothing"  # a stream nobody writes: waiting for it tells at once when the server goes away

# One script, so that nothing comes between looking up the key and adding the record.
PUBLISH_ONCE = """
local id = redis.call('GET', KEYS[2])
if id then return id end
id = redis.call('XADD', KEYS[1], ARGV[1], '~', ARGV[2], '*', 'body', ARGV[3])
redis.call('SET', KEYS[2], id, 'PX', ARGV[4])
return id
"""


class RedisStreamsBroker(RedisPresence):
    """Keeps about `max_length` records of each topic or, if `max_age` (seconds) is given, those younger than that.

    `durability`: "server" takes the server's word; "fsync" confirms a publish when the record is on disk, or refuses to
    start. `window`: seconds for which `publish_once` remembers a key. `patience`: seconds that a publish or a question
    waits for a server that is away. `takeover_after`, `tries`: see `redis_groups.py`. `topics`: some that will be used;
    whether their keys may be, and are streams, is found out at the start.
    """

    resumes = True

    def __init__(
        self,
        url: str,
        *,
        max_length: int = 100_000,
        max_age: float | None = None,
        durability: Literal["server", "fsync"] = "server",
        window: float = 600,
        patience: float = 10,
        takeover_after: float = 30,
        tries: int = 5,
        max_waiting: int = MAX_WAITING,
        topics: Sequence[str] = (),
    ) -> None:
        self.url = url
        self.window = window
        self._expected_topics = topics
        self._crash = CrashRisk(url, TIMEOUT, durable=durability == "fsync")
        self._max_length = max_length
        self._max_age = max_age
        self._durability = durability
        self._patience = patience
        self._takeover_after = takeover_after
        self._tries = tries
        self._max_waiting = max_waiting
        self._publisher = Publisher(Link(url, TIMEOUT), self._prepare, patience)
        self._client: Redis = Redis(
            # Timeouts are ours (see `_ask`): redis-py's can swallow a cancellation.
            connection_pool=redis_url.parse(url).pool(
                BlockingConnectionPool,
                max_connections=8,
                timeout=None,
                protocol=3,
                socket_timeout=None,
                socket_connect_timeout=None,
            )
        )
        self._script = ""
        self._follower = Follower(Link(url, TIMEOUT), self._client)
        self._subscriptions: set[StreamSubscription] = set()
        self._members: set[GroupMember] = set()
        self._closed = False

    @property
    def connected(self) -> bool:
        """Whether both connections are up: the one that publishes and the one that reads."""
        return not self._closed and self._publisher.connected and self._follower.connected

    async def start(self) -> None:
        """Connect. Raises BrokerUnavailable, or SetupError if the server lacks what is needed or asked for."""
        try:
            await examine(self.url, TIMEOUT, streams(self._expected_topics))
            await self._publisher.start()
            await self._follower.start()
        except BaseException:
            await self.aclose()
            raise

    async def publish(self, topic: str, body: bytes) -> str:
        """Add one record; return its id when the server has it. Raises BrokerUnavailable: it may be stored or not."""
        return await self.begin_publish(topic, body)

    async def publish_once(self, topic: str, body: bytes, key: str) -> str:
        """As `publish`; again with the same key within `window` seconds, it adds nothing and returns the first id."""
        return await self.begin_publish(topic, body, key)

    def begin_publish(self, topic: str, body: bytes, key: str | None = None) -> asyncio.Future[str]:
        """Begin `publish`, or `publish_once` if there is a key. Cancelled before it was sent, it is not sent."""
        if key is None:
            command: Command = (b"XADD", topic, *self._limit(), b"*", b"body", body)
            return self._publisher.begin(command, len(body), ascii_text)
        # A hash tag keeps both keys in one slot of a cluster; the topic may have brought its own.
        keys = (topic, f"{topic if '{' in topic else f'{{{topic}}}'}:once:{key}")
        limit, _, threshold = self._limit()
        command = (b"EVALSHA", self._script, 2, *keys, limit, threshold, body, int(self.window * 1000))
        return self._publisher.begin(command, len(body), ascii_text, repeatable=True)

    async def subscribe(self, topic: str, *, after: str | None = None) -> StreamSubscription:
        """Read from now on, or what comes after the id `after`. Raises ValueError if that is no id."""
        if after is None:
            newest = await self._ask("XREVRANGE", topic, "+", "-", "COUNT", 1)
            after = str(newest[0][0], "ascii") if newest else BEGINNING
        else:
            parse_id(after)
        subscription = StreamSubscription(self, topic, after, self._max_waiting)
        self._subscriptions.add(subscription)
        return subscription

    async def history(self, topic: str, *, after: str = BEGINNING, limit: int | None = None) -> list[Delivery]:
        """The records kept after `after`, oldest first; with `limit` the newest so many."""
        parse_id(after)
        if limit is not None:
            newest = await self._ask("XREVRANGE", topic, "+", f"({after}", "COUNT", limit)
            return [delivery(topic, *entry) for entry in reversed(newest or [])]
        records: list[Delivery] = []
        while page := await self.page(topic, records[-1].id if records else after):
            records += page
        return records

    async def oldest(self, topic: str) -> str | None:
        """The id of the first record still kept; None if there is none."""
        first = await self._ask("XRANGE", topic, "-", "+", "COUNT", 1)
        return str(first[0][0], "ascii") if first else None

    def is_before(self, one: str, other: str) -> bool:
        """Whether the id `one` comes before `other`."""
        return parse_id(one) < parse_id(other)

    async def join(self, topic: str, group: str, member: str) -> GroupMember:
        """Take a share of the work of `group`."""
        self._members = {known for known in self._members if not known.closed}
        joined = GroupMember(
            Link(self.url, TIMEOUT),
            self._publisher,
            topic,
            group,
            member,
            takeover_after=self._takeover_after,
            tries=self._tries,
        )
        await joined.start()
        self._members.add(joined)
        return joined

    async def crash_risk(self) -> str:
        """Return "" if the server's settings let what is confirmed survive its crash, else what may be lost."""
        return await self._crash.now()

    async def aclose(self) -> None:
        """End every subscription and connection."""
        self._closed = True
        for subscription in list(self._subscriptions):
            await subscription.aclose()
        for member in self._members:
            await member.aclose()
        await self._follower.aclose()
        await self._crash.aclose()
        await self._publisher.aclose()
        await self._client.aclose()
        await self._client.connection_pool.disconnect()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # For the subscriptions

    async def page(self, topic: str, after: str) -> list[Delivery]:
        """The next entries after an id, at most PAGE."""
        entries = await self._ask("XRANGE", topic, f"({after}", "+", "COUNT", PAGE)
        return [delivery(topic, *entry) for entry in entries]

    def go_live(self, subscription: StreamSubscription, *, regardless: bool = False) -> bool:
        """Hand the subscription what the blocking read brings, if it has caught up with that."""
        return self._follower.add(subscription, regardless=regardless)

    def go_back(self, subscription: StreamSubscription) -> None:
        """Hand it nothing more: it reads pages again."""
        self._follower.remove(subscription)

    def forget(self, subscription: StreamSubscription) -> None:
        """The subscription is over."""
        self._follower.remove(subscription)
        self._subscriptions.discard(subscription)

    # Inside

    def _limit(self) -> tuple[bytes, bytes, int]:
        """How XADD trims: "~" lets the server wait until a whole node can go, which makes it nearly free."""
        if self._max_age is not None:
            return b"MINID", b"~", int((time.time() - self._max_age) * 1000)
        return b"MAXLEN", b"~", self._max_length

    async def _prepare(self, link: Link) -> Command | None:
        """Make a new publishing connection ready; return what each pipeline must end with."""
        self._script = str(await link.call("SCRIPT", "LOAD", PUBLISH_ONCE), "ascii")
        await self._crash.learn(link)
        return await wait_for_disk(link) if self._durability == "fsync" else None

    async def _ask(self, *command: Argument) -> Any:
        """Ask what may be asked twice; wait for a server that is away, at most `patience` seconds."""
        deadline = time.monotonic() + self._patience
        failures = 0
        while True:
            if self._closed:
                raise BrokerUnavailable("this broker is closed")
            try:
                async with asyncio.timeout(TIMEOUT):
                    return await self._client.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py's gap
            except (RedisConnectionError, RedisTimeoutError, OSError) as error:
                failures += 1
                if time.monotonic() > deadline:
                    raise BrokerUnavailable(f"the broker is away: {why(error)}") from error
                await back_off(failures)
            except ResponseError as error:
                raise BrokerError(str(error)) from error


class StreamSubscription(ForwardingInbox):
    """A place in a stream. It outlives the engine's restarts; only trimming that overtakes its reader can end it."""

    def __init__(self, broker: RedisStreamsBroker, topic: str, last: str, max_waiting: int) -> None:
        super().__init__(topic)
        self.last = last  # the id of the last entry that reached this inbox
        self.live = False
        self._caught_up = False
        self._broker = broker
        self._max_waiting = max_waiting

    async def batch(self, limit: int = 512) -> Sequence[Delivery]:
        """Wait for records, then return those that are here; empty once it is closed. Raises SubscriptionLost."""
        while not (here := self.take(limit)) and not self.closed:
            if self.live or (self._caught_up and self._broker.go_live(self)):
                await self.changed()
            else:
                await self._read_page()
        return here

    def fall_behind(self) -> None:
        """From now on, read pages again."""
        self.live = self._caught_up = False
        self._changed.set()

    def arrive(self, deliveries: Sequence[Delivery]) -> None:
        """What the blocking read brought; its first entries may have been in a page already."""
        last = parse_id(self.last)
        if parse_id(deliveries[0].id) <= last:
            deliveries = [delivery for delivery in deliveries if parse_id(delivery.id) > last]
            if not deliveries:
                return
        self.put(deliveries)
        self.last = deliveries[-1].id
        if len(self) > self._max_waiting:  # a slow reader: the stream is the better place to wait in
            self._broker.go_back(self)

    async def aclose(self) -> None:
        """Stop reading."""
        self._broker.forget(self)
        self.discard()

    async def _read_page(self) -> None:
        try:
            page = await self._broker.page(self.topic, self.last)
            # A full page means that a lot was written meanwhile: so much, perhaps, that what came first is gone again.
            overtaken = len(page) == PAGE and self.last != BEGINNING and await self._was_trimmed()
        except BrokerUnavailable:
            return  # the place is kept, and tried again
        if overtaken:
            self._broker.forget(self)
            self.end(SubscriptionLost(f"the stream {self.topic} was trimmed past its reader at {self.last}"))
        elif page and not self.closed:
            self.put(page)
            self.last = page[-1].id
        if not page and self._caught_up:  # the blocking read had more, but that is deleted: nothing to wait for here
            self._broker.go_live(self, regardless=True)
        self._caught_up = len(page) < PAGE

    async def _was_trimmed(self) -> bool:
        """Whether entries may be gone that this reader has not seen."""
        first = await self._broker.oldest(self.topic)
        return first is None or self._broker.is_before(self.last, first)


@dataclass(slots=True)
class Live:
    """A topic in the blocking read: how far it has come, and who gets what it brings."""

    cursor: str
    readers: set[StreamSubscription] = field(default_factory=set)


class Follower:
    """One blocking XREAD for all topics, woken when a topic joins."""

    def __init__(self, link: Link, client: Redis) -> None:
        self._link = link
        self._client = client
        self._id = 0  # of our connection, as the server counts them
        self._topics: dict[str, Live] = {}
        self._joined = asyncio.Event()  # a topic that the read under way does not know of
        self._task: asyncio.Task[None] | None = None
        self._waker: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether the link was up when last used."""
        return self._link.is_open

    async def start(self) -> None:
        """Connect, and read from now on."""
        await self._open()
        self._task = heard(asyncio.create_task(self._run(), name="redis follower"), self._readers)

    def add(self, subscription: StreamSubscription, *, regardless: bool) -> bool:
        """Let the subscription follow, unless the blocking read is ahead of it (and there is something in between)."""
        topic = self._topics.get(subscription.topic)
        if topic is None:
            topic = self._topics[subscription.topic] = Live(subscription.last)
            self._wake()
        elif not regardless and parse_id(subscription.last) < parse_id(topic.cursor):
            return False
        subscription.live = True
        topic.readers.add(subscription)
        return True

    def remove(self, subscription: StreamSubscription) -> None:
        """No more for this one; a topic without readers leaves with the next read."""
        subscription.fall_behind()
        topic = self._topics.get(subscription.topic)
        if topic is not None:
            topic.readers.discard(subscription)
            if not topic.readers:
                del self._topics[subscription.topic]

    def _readers(self) -> list[StreamSubscription]:
        return [reader for topic in self._topics.values() for reader in topic.readers]

    def _send_back(self) -> None:
        """After an outage everybody may be far behind: let them read pages, which notice if something was trimmed."""
        for reader in self._readers():
            reader.fall_behind()
        self._topics.clear()

    async def aclose(self) -> None:
        """Stop."""
        await end_task(self._task)
        await end_task(self._waker)
        await self._link.close()

    async def _open(self) -> None:
        await self._link.open()
        self._id = await self._link.call("CLIENT", "ID")

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                if not self._link.is_open:
                    await self._open()
                    log.info("reading again")
                await self._read()
                failures = 0
            except (LinkLost, ResponseError) as error:
                await self._link.close()
                self._send_back()
                failures += 1
                log.warning("reading waits: %s", error)
                await back_off(failures)

    async def _read(self) -> None:
        self._joined.clear()
        asked = {name: topic.cursor for name, topic in self._topics.items()} or {NOTHING: BEGINNING}
        wait = int(BLOCK * 1000)
        command: Command = (b"XREAD", b"COUNT", PAGE, b"BLOCK", wait, b"STREAMS", *asked, *asked.values())
        reply = await self._link.call(*command, wait=BLOCK)
        for name, entries in (reply or {}).items():
            topic = str(name, "utf-8")
            self._hand_out(topic, asked[topic], entries)
        if reply:
            await asyncio.sleep(0)  # what the readers write at the end of this turn need not wait for us

    def _hand_out(self, name: str, asked: str, entries: list[tuple[bytes, list[bytes]]]) -> None:
        topic = self._topics.get(name)
        if topic is None or topic.cursor != asked:  # all readers left, maybe others came, who stand elsewhere
            return
        deliveries = [Delivery(name, str(i, "ascii"), body_of(fields)) for i, fields in entries]
        topic.cursor = deliveries[-1].id
        for subscription in tuple(topic.readers):
            subscription.arrive(deliveries)

    def _wake(self) -> None:
        """Make the read under way return, so that the next one includes the new topic."""
        self._joined.set()
        if self._waker is None or self._waker.done():
            self._waker = asyncio.create_task(self._unblock(), name="redis follower's waker")

    async def _unblock(self) -> None:
        # Until the reader has taken note: the first call may come before it blocks.
        while self._joined.is_set() and self._link.is_open:
            try:
                await self._client.client_unblock(self._id)
            except (RedisConnectionError, RedisTimeoutError, OSError):
                return  # then the reader will come back by itself
            await asyncio.sleep(0.001)


async def wait_for_disk(link: Link) -> Command | None:
    """What to end each pipeline with, so that its replies mean "on disk"; None where the server always syncs first.

    Raises SetupError if this server cannot say so.
    """
    try:
        settings = await link.call("CONFIG", "GET", "*append*")
    except ResponseError:  # a managed server may not let us look
        settings = {}
    always = settings.get(b"appendonly") == b"yes" and settings.get(b"appendfsync") == b"always"
    if always and settings.get(b"no-appendfsync-on-rewrite") == b"no":  # else it does not sync during a rewrite
        return None
    # WAITAOF numlocal numreplicas timeout (ms): Redis 7.2, Valkey
    command = (b"WAITAOF", 1, 0, int(TIMEOUT * 1000 * 2 / 3))
    try:
        await link.call(*command)
    except ResponseError as error:
        remedy = "set `appendonly yes` and `appendfsync always`, or use Redis 7.2 or Valkey with `appendonly yes`"
        raise SetupError(f"this server cannot confirm that a message is on disk ({error})", remedy) from error
    return command


def ascii_text(reply: bytes) -> str:
    """An id as the server gives it."""
    return str(reply, "ascii")


def delivery(topic: str, identifier: bytes, fields: dict[bytes, bytes]) -> Delivery:
    """An entry as redis-py gives it."""
    return Delivery(topic, str(identifier, "ascii"), fields.get(b"body", b""))
