"""Redis Streams (or Valkey's): records are kept, each reader has its own position, and a restart loses nothing.

A topic is one stream, a record one entry with the field `body`. There are four kinds of connections, so that none
starves another: one for publishing (redis/publisher.py), one in a blocking XREAD for all topics of this broker
(redis/follower.py), a small pool for queries (redis/queries.py), and two for all groups (redis/group_reader.py). Their
number does not depend on how many topics are read or groups are joined.

Topics that are many and seldom written (`APART`: one for each user) have a separate blocking read: each read names all
its topics, and those would slow down the messages of the others.

A reader is a position in a stream. It reads pages with XRANGE until it has caught up with the blocking read, then
follows that; if it falls behind, it goes back to pages. So history, a slow reader and a restarted server are one
case, without a gap and without a repeat. On both paths, the same rule (redis/position.py) detects when unread records
are gone: the reader then ends with `SubscriptionLost`, which says where a new one can resume.

What a confirmed publish survives depends on the server's settings. With `appendfsync everysec` a power cut costs up to
a second. A kill of the process usually costs nothing, but up to two seconds if the disk was busy syncing at that
moment, because the server holds back its writes meanwhile. `durability="fsync"` waits for the disk each time and loses
nothing in either case.
After a failover, what had not been replicated is gone. Left out: clusters (keys that belong together share a slot, but
this talks to one server).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal, Self

from redis.exceptions import ResponseError

from chatlab.brokers.inbox import MAX_WAITING, ForwardingInbox
from chatlab.brokers.names import parse_id
from chatlab.brokers.port import BEGINNING, Page, Record
from chatlab.brokers.redis.connections.link import Command, Link
from chatlab.brokers.redis.connections.server import CrashRisk, examine, probe, streams
from chatlab.brokers.redis.follower import SLOW, Follower
from chatlab.brokers.redis.group_reader import SharedGroupReader, SharedLink
from chatlab.brokers.redis.groups import GroupMember
from chatlab.brokers.redis.position import Position
from chatlab.brokers.redis.presence import RedisPresence
from chatlab.brokers.redis.publisher import Publisher, as_it_is
from chatlab.brokers.redis.queries import PAGE, PAGE_OCTETS, Loss, StreamQueries, is_before, record_of
from chatlab.brokers.redis.retention import DAY, Retention
from chatlab.errors import BrokerClosed, BrokerError, BrokerUnavailable, SetupError
from chatlab.tasks import Tasks

log = logging.getLogger(__name__)

MAX_WAITING_OCTETS = 16 << 20  # in one reader; beyond it, records wait in the stream instead
APART = "chat-users:"  # prefix of the topics that have a separate blocking read
GATHER = 0.02  # seconds to gather topics that join that read: many users come at once
BLOCK = 1.0  # seconds a blocking read waits before it is sent again: a hung server is noticed after BLOCK + TIMEOUT
TIMEOUT = 3.0  # seconds a server may take to answer
PROBES = 3  # of WAITAOF, and
EARLY = 0.3  # seconds: an answer within these came before the sync
PROBE_KEY = "{chat-stream}:once:probe"

# One script, so that looking up the key and adding the record are atomic.
PUBLISH_ONCE = """
local id = redis.call('GET', KEYS[2])
if id then return id end
id = redis.call('XADD', KEYS[1], ARGV[1], '~', ARGV[2], '*', 'body', ARGV[3])
redis.call('SET', KEYS[2], id, 'PX', ARGV[4])
return id
"""


class RedisStreamsBroker(RedisPresence):
    """Keeps about `max_length` records and `max_octets` of each topic, and none longer than `max_age` seconds.

    A topic unused for `expire` seconds is removed, with its groups and what waits for them; one in `lasting` is kept
    until `max_age` after its last record. 0 means never. `max_record`: octets of the largest record, which determines
    how many are always kept (redis/retention.py).

    `durability`: "server" takes the server's word; "fsync" confirms a publish when the record is on disk, or refuses to
    start. `window`: seconds for which `publish_once` remembers a key. `patience`: seconds that a publish or a query
    waits for a server that is away. `takeover_after`, `tries`: see `redis/groups.py`. `topics`: some that will be used;
    the rights to their keys, and their types, are checked at the start.
    """

    def __init__(
        self,
        url: str,
        *,
        max_length: int = 100_000,
        max_octets: int = 64 << 20,
        max_age: float | None = 30 * DAY,
        expire: float = DAY,
        lasting: Sequence[str] = (),
        max_record: int = 64 << 10,
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
        self._probe = probe(url, streams(topics))
        self._retention = Retention(max_length, max_octets, max_age or 0, expire, lasting, max_record)
        self._durability = durability
        self._patience = patience
        self._takeover_after = takeover_after
        self._tries = tries
        self._max_waiting = max_waiting
        self._publisher = Publisher(Link(url, TIMEOUT, used_for="publishing"), self._prepare, patience)
        self._script = ""
        self._full = min(PAGE, self._retention.at_least)
        self._queries = StreamQueries(url, patience, TIMEOUT)
        rooms, users = Link(url, TIMEOUT, used_for="topics"), Link(url, TIMEOUT, used_for="users")
        self._follower = Follower(rooms, self._queries, block=BLOCK, full=self._full)
        self._apart = Follower(users, self._queries, block=BLOCK, full=self._full, gather=GATHER)
        self._readers: set[StreamReader] = set()
        self._group_link = SharedLink(Link(url, TIMEOUT, used_for="groups"))
        self._group_readers: dict[tuple[str, str], SharedGroupReader] = {}
        self._members: set[GroupMember] = set()
        self._tasks = Tasks(log)
        self._closed = False

    @property
    def connected(self) -> bool:
        """Return whether the publishing connection and the two reading ones are up."""
        return not self._closed and self._publisher.connected and self._follower.connected and self._apart.connected

    async def start(self) -> None:
        """Connect. Raises BrokerUnavailable, or SetupError if the server lacks what is needed or asked for."""
        try:
            await examine(self.url, TIMEOUT, streams(self._expected_topics))
            await self._publisher.start()
            await self._follower.start()
            await self._apart.start()
            if self._retention.renewal:
                self._tasks.start(self._renew_what_is_read(), name="redis renewals")
        except BaseException:
            await self.aclose()
            raise

    async def publish(self, topic: str, body: bytes) -> str:
        """Add one record; return its id once the server has it. After BrokerUnavailable it may or may not be stored."""
        return await self.begin_publish(topic, body)

    async def publish_once(self, topic: str, body: bytes, key: str) -> str:
        """Like `publish`; a repeat with the same key within `window` seconds adds nothing and returns the first id."""
        return await self.begin_publish(topic, body, key)

    def begin_publish(self, topic: str, body: bytes, key: str | None = None) -> asyncio.Future[str]:
        """Enqueue a `publish`, or `publish_once` if there is a key. If cancelled before sending, it is not sent."""
        due, limit = self._retention.limit(topic, len(body))
        if key is None:
            command: Command = (b"XADD", topic, *limit, b"*", b"body", body)
            publishing = self._publisher.begin(command, len(body), ascii_text)
        else:
            # A hash tag keeps both keys in one slot of a cluster; the topic may have brought its own.
            keys = (topic, f"{topic if '{' in topic else f'{{{topic}}}'}:once:{key}")
            by, _, threshold = limit
            command = (b"EVALSHA", self._script, 2, *keys, by, threshold, body, int(self.window * 1000))
            publishing = self._publisher.begin(command, len(body), ascii_text, repeatable=True)
        if due:
            publishing.add_done_callback(lambda _: self._send_aside(self._retention.renew(topic)))
        return publishing

    async def subscribe(self, topic: str, *, after: str | None = None) -> StreamReader:
        """Read from now on, or after the id `after`. Raises ValueError if that is not an id, BrokerClosed.

        If records after `after` are gone, the first batch raises SubscriptionLost.
        """
        self._require_open()
        if after is not None:
            parse_id(after)
        state = await self._queries.state(topic)
        self._require_open()
        self._send_aside(self._retention.renew(topic))
        after = state.newest if after is None else after
        follower = self._apart if topic.startswith(APART) else self._follower
        reader = StreamReader(self._queries, follower, topic, after, self._max_waiting, self._full)
        reader.position.count = state.count_at(after)
        reader.known = state.first
        reader.on_close = self._readers.discard
        self._readers.add(reader)
        return reader

    async def history(self, topic: str, *, after: str = BEGINNING, limit: int | None = None) -> list[Record]:
        """Return the records kept after `after`, oldest first; with `limit`, only the newest `limit` of them."""
        parse_id(after)
        if limit is not None:
            newest = await self._ask("XREVRANGE", topic, "+", f"({after}", "COUNT", limit)
            return [record_of(topic, *entry) for entry in reversed(newest or [])]
        records: list[Record] = []
        while page := await self._queries.page(topic, records[-1].id if records else after):
            records += page
        return records

    async def page(self, topic: str, *, after: str = BEGINNING, limit: int, octets: int) -> Page:
        """Return the first records kept after `after`, bounded in number and octets."""
        parse_id(after)
        return await self._queries.bounded_page(topic, after, limit, octets)

    async def before_newest(self, topic: str, count: int, *, after: str = BEGINNING) -> str | None:
        """Return the id just before the newest `count` records; None if no more are kept after `after`."""
        parse_id(after)
        return await self._queries.before_newest(topic, count, after)

    async def oldest(self, topic: str) -> str | None:
        """Return the id of the first record still kept; None if there is none."""
        return (await self._queries.state(topic)).first

    async def lost_after(self, topic: str, after: str) -> str | None:
        """Return None if all records after `after` are kept, else the id to resume after."""
        parse_id(after)
        loss, _ = await self._queries.loss(topic, Position(after))
        return None if loss is None else loss.resume

    def is_before(self, one: str, other: str) -> bool:
        """Return whether the id `one` comes before `other`."""
        return is_before(one, other)

    async def create_group(self, topic: str, group: str) -> None:
        """Create `group` if it is missing: it gets what is published from now on."""
        try:
            await self._ask("XGROUP", "CREATE", topic, group, "$", "MKSTREAM")
        except BrokerError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        self._send_aside(self._retention.renew(topic))

    async def join(self, topic: str, group: str, member: str) -> GroupMember:
        """Join `group` as `member`."""
        self._require_open()
        joined = GroupMember(
            self._group_link,
            self._group_reader(group, member),
            self._publisher,
            topic,
            group,
            member,
            takeover_after=self._takeover_after,
            tries=self._tries,
        )
        joined.on_close = self._leave_group
        self._members.add(joined)  # before it starts: the broker may be closed meanwhile
        try:
            await joined.start()
            self._require_open()
            self._send_aside(self._retention.renew(topic))
        except BaseException:
            await joined.aclose()
            raise
        return joined

    def _group_reader(self, group: str, member: str) -> SharedGroupReader:
        """Return the blocking read shared by all members with this group and name: an instance has one name."""
        reader = self._group_readers.get((group, member))
        if reader is None:
            link, idle = Link(self.url, TIMEOUT, used_for="group-reads"), int(self._takeover_after * 1000)
            reader = self._group_readers[group, member] = SharedGroupReader(link, self._queries, group, member, idle)
            reader.start()
        reader.members += 1
        return reader

    async def _leave_group(self, member: GroupMember) -> None:
        """Remove a member; the last one closes the connection."""
        self._members.discard(member)
        member.reader.members -= 1
        if not member.reader.members:
            del self._group_readers[member.group, member.member]
            await member.reader.aclose()

    async def crash_risk(self) -> str:
        """Return "" if, with the server's settings, a confirmed publish survives a crash, else what may be lost."""
        return await self._crash.now()

    async def why_refused(self) -> str:
        """Return "" if the server accepts new connections, reads and writes now, else why not."""
        return await self._probe.why_refused()

    async def aclose(self) -> None:
        """Close every reader and connection."""
        self._closed = True
        self._queries.refuse()
        await self._tasks.aclose()
        for reader in list(self._readers):
            await reader.aclose()
        for member in list(self._members):
            await member.aclose()
        await self._group_link.close()
        await self._follower.aclose()
        await self._apart.aclose()
        await self._crash.aclose()
        await self._publisher.aclose()
        await self._queries.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # --- Internal ---

    def _send_aside(self, command: Command | None) -> None:
        """Send a command without waiting for it: if it fails, it is repeated before long anyway."""
        if command is not None:
            self._publisher.begin(command, 0, as_it_is, repeatable=True).add_done_callback(seen)

    async def _renew_what_is_read(self) -> None:
        """Keep topics with readers from expiring, however long nothing is published to them."""
        while True:
            await asyncio.sleep(self._retention.renewal)
            readers: set[StreamReader | GroupMember] = {*self._readers, *self._members}
            for topic in {reader.topic for reader in readers}:
                self._send_aside(self._retention.renew(topic))

    async def _prepare(self, link: Link) -> Command | None:
        """Prepare a new publishing connection; return the command that each pipeline must end with."""
        self._script = str(await link.call("SCRIPT", "LOAD", PUBLISH_ONCE), "ascii")
        await self._crash.learn(link)
        return await wait_for_disk(link) if self._durability == "fsync" else None

    async def _ask(self, *command: Any) -> Any:
        """Send a command that may be repeated; wait for a server that is away."""
        return await self._queries.ask(*command)

    def _require_open(self) -> None:
        if self._closed:
            raise BrokerClosed("this broker is closed")


class StreamReader(ForwardingInbox):
    """A position in a stream, and two ways to read on from it: pages, then the blocking read once it has caught up.

    It outlives restarts of the server. It ends with SubscriptionLost if unread records are gone.
    """

    def __init__(
        self, queries: StreamQueries, follower: Follower, topic: str, after: str, max_waiting: int, full: int = PAGE
    ) -> None:
        super().__init__(topic)
        self.position = Position(after)  # of the last record that reached this inbox
        self.known: str | None = None  # the id of a record that was in the stream at the last check
        self.on_close: Callable[[StreamReader], None] = lambda reader: None
        self._queries = queries
        self._follower = follower
        self._max_waiting = max_waiting
        self._full = full
        self._following = False
        self._caught_up = False
        self._seen_whole = -SLOW  # on the loop's clock: the stream had all that comes after the position then, or later
        self._page_came = -SLOW  # when the last one came, on the loop's clock
        self._octets = 0  # of the records that wait here

    def put(self, records: Sequence[Record]) -> None:
        """Add records that have arrived, or forward them."""
        if self._deliver is None:
            self._octets += sum(len(record.body) for record in records)
        super().put(records)

    def take(self, limit: int) -> list[Record]:
        """Return at most `limit` records that have arrived. If there are none, raise the error of the end, if any."""
        taken = super().take(limit)
        self._octets -= sum(len(record.body) for record in taken)
        return taken

    async def batch(self, limit: int = 512) -> Sequence[Record]:
        """Wait for records, then return those that have arrived; empty once closed. Raises SubscriptionLost."""
        while not (here := self.take(limit)) and not self.closed:
            if self._following or self._follow():
                await self.changed()
            else:
                await self._read_page()
        return here

    def fall_behind(self) -> None:
        """Go back to pages, and first check what is gone."""
        self._following = self._caught_up = False
        self._seen_whole = -SLOW
        self._changed.set()

    def arrive(self, records: Sequence[Record]) -> None:
        """Take records from the blocking read; the first of them may already have been in a page."""
        if not is_before(self.position.id, records[0].id):
            records = [record for record in records if is_before(self.position.id, record.id)]
            if not records:
                return
        self._take_in(records)
        if len(self) > self._max_waiting or self._octets > MAX_WAITING_OCTETS:
            # A slow reader: let records wait in the stream instead.
            self._follower.remove(self)
            self.fall_behind()

    async def aclose(self) -> None:
        """Stop reading."""
        self.discard()
        self._leave()

    def end(self, error: Exception | None = None) -> None:
        """Close the reader, with an error if there is one."""
        super().end(error)
        self._leave()

    def _leave(self) -> None:
        self._following = False
        self._follower.remove(self)
        self.on_close(self)

    def _follow(self, *, regardless: bool = False) -> bool:
        """Join the blocking read if this reader caught up with it a moment ago; return whether it did."""
        recent = asyncio.get_running_loop().time() - self._page_came < SLOW
        if self._caught_up and recent and not self.closed:
            self._following = self._follower.add(self, since=self._seen_whole, regardless=regardless)
        return self._following

    def _take_in(self, records: Sequence[Record]) -> None:
        self.position.advance(records[-1].id, len(records))
        self.known = self.known or records[0].id
        self.put(records)

    async def _read_page(self) -> None:
        asked = asyncio.get_running_loop().time()
        try:
            read = await self._queries.bounded_page(self.topic, self.position.id, PAGE, PAGE_OCTETS)
            page = read.records
            # A full page means that a lot was written meanwhile, perhaps so much that earlier records were trimmed.
            doubtful = read.more or len(page) >= self._full or asked - self._seen_whole >= SLOW
            loss = await self._loss(page) if doubtful else None
        except BrokerClosed:
            self.end()
            return
        except BrokerUnavailable:
            return  # try again from the same position
        if loss is not None and not self.closed:
            self.end(loss.error(self.topic))
        if not self.closed:
            self._seen_whole = asked
            self._page_came = asyncio.get_running_loop().time()  # a slow reply is no reason to stay with pages
            self._take_page(read)

    def _take_page(self, page: Page) -> None:
        if page.records:
            self._take_in(page.records)
        elif self._caught_up:  # the blocking read was ahead, but the records in between were deleted
            self._follow(regardless=True)
        self._caught_up = not page.more

    async def _loss(self, page: Sequence[Record]) -> Loss | None:
        loss, state = await self._queries.loss(self.topic, self.position, self.known)
        if loss is None:
            self.known = state.first
            if self.position.count is None and page and (added := state.count_at(page[-1].id)) is not None:
                self.position.count = added - len(page)
        return loss


async def wait_for_disk(link: Link) -> Command | None:
    """Return the command that makes the replies of a pipeline mean "on disk"; None if the server always syncs first.

    Raises SetupError if this server has no such command, or answers it before the disk has the records.
    """
    try:
        settings = await link.call("CONFIG", "GET", "*append*")
    except ResponseError:  # a managed server may refuse CONFIG
        settings = {}
    always = settings.get(b"appendonly") == b"yes" and settings.get(b"appendfsync") == b"always"
    if always and settings.get(b"no-appendfsync-on-rewrite") == b"no":  # else it does not sync during a rewrite
        return None
    # WAITAOF numlocal numreplicas timeout (ms): since Redis 7.2
    command = (b"WAITAOF", 1, 0, int(TIMEOUT * 1000 * 2 / 3))
    try:
        await link.call(*command)
        early = not always and await answers_early(link, command)
    except ResponseError as error:
        remedy = "set `appendonly yes` and `appendfsync always`, or use Redis 8 with `appendonly yes`"
        raise SetupError(f"this server cannot confirm that a message is on disk ({error})", remedy) from error
    if early:
        raise SetupError(
            "this server confirms that a message is on disk before it is (its WAITAOF does not wait)",
            "set `appendfsync always`, with which it does; Redis 8 has corrected this",
        )
    return command


async def answers_early(link: Link, command: Command) -> bool:
    """Return whether WAITAOF does not wait for the disk, with `appendfsync everysec`.

    Redis 7.2.2 to 7.4.2 and Valkey up to 9.1 at least answer at once (https://github.com/redis/redis/pull/13793). A
    server syncs once a second: after one sync, WAITAOF for another record takes the rest of that second. An answer
    within 0.3 s could come after a very slow sync; three in a row do not.
    """
    loop = asyncio.get_running_loop()
    for __ in range(PROBES):
        for __ in range(2):  # the first record waits for a sync that may come at any moment
            began = loop.time()
            await link.call("SET", PROBE_KEY, "1", "PX", 1000)
            await link.call(*command)
        if loop.time() - began > EARLY:
            return False
    return True


def seen(future: asyncio.Future[Any]) -> None:
    """Mark an error as retrieved."""
    if not future.cancelled():
        future.exception()


def ascii_text(reply: bytes) -> str:
    """Return an id as text."""
    return str(reply, "ascii")
