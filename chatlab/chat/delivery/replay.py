"""What a newcomer missed, then what is new: no gap and no repeat between the two, however busy the topic.

    SUBSCRIBE last-id:1005-0
        1  a page of the broker's records after 1005 is read and sent        1006 1007
        2  the client has taken most of it: the next page, until the last    1008 1009
        3  live records are held back for it from now on                     held: 1011
        4  a page is read and sent; of the held, those not yet sent          1010 1011
        5  it is live

A topic is never gathered in memory. A page is bounded in records and octets, a connection has one page under way
however many replays it asks for, and an instance has `PAGES`. A client that does not take its page waits without one of
them after `STALLED` seconds; whether it is to be closed is the fan-out's decision (`SlowReaderPolicy`).

What is replayed is bounded too: of more than `MAX_HISTORY` records the newest are sent, behind `gap:true`. The first
read has its live records held back from the start, so that most replays are one page. If more come in step 4 than are
worth holding, or than fit the page, reading goes on from the last record sent.

The engine must keep history (brokers/port.py). If it does not, nothing can be replayed, and the first message says so.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Self

from chatlab.brokers.port import BEGINNING, Broker, KeepsHistory, Page
from chatlab.chat.delivery.hub import Hub, Subscriber
from chatlab.chat.destinations import USER_PREFIX, ChatRecord, record_of, topics_on
from chatlab.errors import StompError
from chatlab.stomp.events import Subscription

# What a page holds at most, its last record aside, and what may still wait for a client when it gets the next one.
PORTION = 256
PAGE_OCTETS = 256 * 1024
MAX_WAITING = 64 * 1024
MAX_UNACKNOWLEDGED = 256  # messages of one subscription, when its replay goes on
PAGES = 64  # under way at once, over all clients of an instance: 16 MiB
STALLED = 2.0  # seconds after which a page that its client does not take counts no longer as under way
LOOK_AGAIN = 0.01, 0.25  # seconds: the first time, and at most
MAX_HISTORY = 10_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a SUBSCRIBE asks for besides the live records: those after an id, or the last so many."""

    after: str | None = None
    last: int = 0

    @classmethod
    def parse(cls, subscription: Subscription, broker: Broker) -> Self | None:
        """Read the headers `last-id` and `history`; None if there is neither, StompError if one makes no sense."""
        after, last = subscription.get("last-id"), subscription.get("history") or "0"
        if after is not None:
            # A record's id; or the message-id as it came, ROOM/RECORD-ID, which is what a client has at hand.
            after = after.rpartition("/")[2]
        if after is not None and not _is_id(after, broker):
            raise StompError(f"last-id is not a record's id: {after[:40]!r}")
        if not last.isascii() or not last.isdigit():
            raise StompError(f"history is not a number: {last[:40]!r}")
        if after is not None:
            return cls(after)  # what was missed: `history` is for a client that comes without an id
        return cls(last=min(int(last[:9]), MAX_HISTORY)) if int(last) else None


def _is_id(text: str, broker: Broker) -> bool:
    if not isinstance(broker, KeepsHistory):
        return True  # nothing will be looked up
    try:
        broker.is_before(text, BEGINNING)
    except ValueError:
        return False
    return True


class Turn:
    """What the replays of one connection share: one page is under way, and what the client has not taken is little.

    Not taken is what its sink has buffered, and what it was sent and has not acknowledged: the session keeps that.
    """

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self._acknowledging: dict[Subscription, None] = {}  # those that were replayed to

    async def room(self, subscriber: Subscriber, seconds: float | None = None) -> None:
        """Wait until the client has taken most of what it was sent, or `seconds` are over."""
        loop, (pause, longest) = asyncio.get_running_loop(), LOOK_AGAIN
        until = None if seconds is None else loop.time() + seconds
        if subscriber.acknowledges:
            open_ones = [each for each in self._acknowledging if each.pending]
            self._acknowledging = dict.fromkeys([*open_ones, subscriber.subscription])
        # A sink tells how much it has buffered, and not when that is gone: SockJS's wait for the client's next request.
        while not self._has_room(subscriber) and (until is None or loop.time() < until):
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)

    def _has_room(self, subscriber: Subscriber) -> bool:
        if subscriber.outlet.transport.sink.buffered() > MAX_WAITING:
            return False
        if not subscriber.acknowledges:
            return True
        octets = sum(len(sent.message.body) for each in self._acknowledging for sent in each.pending.values())
        return octets <= MAX_WAITING and len(subscriber.subscription.pending) <= MAX_UNACKNOWLEDGED


class Replays:
    """All replays of one instance, and how many pages of them may be under way."""

    def __init__(self, hub: Hub, broker: Broker, pages: int = PAGES) -> None:
        self._hub = hub
        self._broker = broker
        self._pages = asyncio.Semaphore(pages)  # it serves in the order of asking

    def of(self, subscriber: Subscriber, wanted: Wanted) -> Replay:
        """Return the replay of a subscriber that is in the hub and holds."""
        return Replay(self._hub, self._broker if isinstance(self._broker, KeepsHistory) else None, subscriber, wanted)

    async def run(self, replay: Replay, turn: Turn) -> None:
        """Send what is wanted of the past, and let the subscriber go live.

        `turn` is its connection's; it goes around with each page. Raises `BrokerUnavailable` if the broker cannot be
        read; called again, it goes on where it was.
        """
        live = False
        while not live:
            async with turn.lock:
                await turn.room(replay.subscriber)
                live = await self._send_page(replay, turn)

    async def _send_page(self, replay: Replay, turn: Turn) -> bool:
        """Send the next page; whether it was the last, and its subscriber is live."""
        async with self._pages:
            if await replay.send_page():
                # Nothing was awaited since the last look at what is held: nothing slips in between.
                self._go_live(replay.subscriber)
                return True
            await turn.room(replay.subscriber, STALLED)
            return False

    def _go_live(self, subscriber: Subscriber) -> None:
        subscriber.release(self._hub.fanout)
        self._hub.settle(subscriber)


class Replay:
    """One replay: what its client wanted, and how far it has come."""

    def __init__(self, hub: Hub, broker: KeepsHistory | None, subscriber: Subscriber, wanted: Wanted) -> None:
        self.subscriber = subscriber
        self._hub = hub
        self._broker = broker  # None: it keeps nothing
        self._wanted = wanted
        self._topic = topics_on(broker)(subscriber.destination) if broker is not None else ""
        self._after: str | None = None  # the last record read; None: where to begin has not been looked up
        self._at_end = True  # the last page was: from the next one on, live records are held back

    async def send_page(self) -> bool:
        """Read a page and send it; whether nothing is missing now between it and what is held."""
        subscriber = self.subscriber
        if self._broker is None:
            subscriber.gap = self._wanted.after not in (None, BEGINNING)
            return True
        if self._after is None:
            self._after = await self._beginning(self._broker)
        if subscriber.overflowed and self._at_end:
            subscriber.hold()
        page = await self._read(self._broker)
        subscriber.send(self._hub.fanout, self._its(page))
        self._hub.fanout.flush()
        self._after = page.records[-1].id if page.records else self._after
        subscriber.seen = "" if self._after == BEGINNING else self._after
        self._at_end = not page.more
        if page.more:
            subscriber.keep_nothing()  # it comes with a later page
        return self._at_end and not subscriber.overflowed

    def _its(self, page: Page) -> list[ChatRecord]:
        """The records of a page that are the subscriber's: a user's topic holds all queues of that user."""
        records = map(record_of, page.records)
        return [record for record in records if record and record.destination == self.subscriber.destination]

    async def _beginning(self, broker: KeepsHistory) -> str:
        """The id after which to read."""
        wanted = self._wanted
        if wanted.after is not None:
            return await self._within_limit(broker, wanted.after)
        if self.subscriber.destination.startswith(USER_PREFIX):
            return await self._before_its_newest(broker, wanted.last)
        return await broker.before_newest(self._topic, wanted.last) or BEGINNING

    async def _within_limit(self, broker: KeepsHistory, after: str) -> str:
        """Where to begin so that no more than MAX_HISTORY records come; the next message says so if some are left."""
        later = await broker.before_newest(self._topic, MAX_HISTORY, after=after)
        if later is None:
            return after
        self.subscriber.gap = True
        return later

    async def _before_its_newest(self, broker: KeepsHistory, count: int) -> str:
        """As the broker's `before_newest`, counting the subscriber's records alone: it keeps ids, and no records."""
        places: deque[str] = deque(maxlen=count)
        after, more = BEGINNING, True
        while more:
            page = await self._page(broker, after)
            for delivery in page.records:
                record = record_of(delivery)
                if record is not None and record.destination == self.subscriber.destination:
                    places.append(after)
                after = delivery.id
            more = page.more
        return places[0] if places else after

    async def _read(self, broker: KeepsHistory) -> Page:
        """The next page; the next message says so if records before it are gone."""
        after = self._after or BEGINNING
        while True:
            page = await self._page(broker, after)
            # Asked after reading: what went while it was read shows now.
            resume = None if after == BEGINNING else await broker.lost_after(self._topic, after)
            if resume is None:
                return page
            self.subscriber.gap = True
            self._after = after = await self._within_limit(broker, resume)

    async def _page(self, broker: KeepsHistory, after: str) -> Page:
        return await broker.page(self._topic, after=after, limit=PORTION, octets=PAGE_OCTETS)
