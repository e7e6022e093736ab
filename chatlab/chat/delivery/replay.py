"""Send a subscriber the records it missed, then the live ones: no gap and no repeat between them, on any busy topic.

    SUBSCRIBE last-id:1005-0
        1  a page of the broker's records after 1005 is read and sent        1006 1007
        2  once the client has taken most of it, the next, until the last    1008 1009
        3  live records are held back from now on                            held: 1011
        4  a page is read and sent; then the held records not yet sent       1010 1011
        5  the subscriber is live

A topic is never gathered in memory. A page is bounded in records and octets; a connection has one page in progress,
however many replays it requests, and an instance has `PAGES`. After `STALLED` seconds, a client that does not take its
page no longer occupies one of them; whether to disconnect it is the fan-out's decision (`SlowReaderPolicy`).

A replay is bounded too: of more than `MAX_HISTORY` records, only the newest are sent, after `gap:true`. Live records
are held back from the first read on, so that most replays take one page. If more arrive in step 4 than are worth
holding, or than fit the page, reading continues from the last record sent.

A client that has received no message yet can resume too: `history:0` asks for nothing past, and the RECEIPT of such a
SUBSCRIBE says in `last-id` where the subscription starts.

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

# At most, in one page, its last record aside; and what may still wait for a client when it gets the next one.
PORTION = 256
PAGE_OCTETS = 256 * 1024
MAX_WAITING = 64 * 1024
MAX_UNACKNOWLEDGED = 256  # messages of one subscription that may be open when its replay continues
PAGES = 64  # in progress at once, over all clients of an instance: 16 MiB
STALLED = 2.0  # seconds after which a page that its client does not take no longer counts as in progress
POLL_SECONDS = 0.01, 0.25  # seconds: the first pause, and the longest
MAX_HISTORY = 10_000


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """The past records that a SUBSCRIBE asks for: those after an id, or the last N."""

    after: str | None = None
    last: int = 0

    @classmethod
    def parse(cls, subscription: Subscription, broker: Broker) -> Self | None:
        """Parse the headers `last-id` and `history`; None if both are absent. Raise StompError if one is invalid."""
        after, last = subscription.get("last-id"), subscription.get("history") or "0"
        if after is not None:
            # A record's id, or a message-id, ROOM/RECORD-ID: that is what a client has at hand.
            after = after.rpartition("/")[2]
        if after is not None and not _is_id(after, broker):
            raise StompError(f"last-id is not a record id: {after[:40]!r}")
        if not last.isascii() or not last.isdigit():
            raise StompError(f"history is not a number: {last[:40]!r}")
        if after is not None:
            return cls(after)  # `history` applies only when no `last-id` is given
        wanted = last.lstrip("0")  # of any length: more digits than `int` takes, perhaps
        if not wanted:
            return None
        return cls(last=MAX_HISTORY if len(wanted) > 9 else min(int(wanted), MAX_HISTORY))


def _is_id(text: str, broker: Broker) -> bool:
    if not isinstance(broker, KeepsHistory):
        return True  # the id is not looked up
    try:
        broker.is_before(text, BEGINNING)
    except ValueError:
        return False
    return True


class ReplayTurn:
    """What the replays of one connection share: one page at a time, and a bound on what the client has not taken.

    Not taken: what its sink has buffered, and what it was sent and has not acknowledged, which the session keeps.
    """

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self._acknowledging: dict[Subscription, None] = {}  # those that a replay sent messages to

    async def wait_for_space(self, subscriber: Subscriber, seconds: float | None = None) -> None:
        """Wait until the client has taken most of what it was sent, but at most `seconds`."""
        loop, (pause, longest) = asyncio.get_running_loop(), POLL_SECONDS
        until = None if seconds is None else loop.time() + seconds
        if subscriber.acknowledges:
            unacknowledged = [each for each in self._acknowledging if each.pending]
            self._acknowledging = dict.fromkeys([*unacknowledged, subscriber.subscription])
        # Polled: a sink reports how much it has buffered, not when it drains (SockJS: by the next request).
        while not self._has_space(subscriber) and (until is None or loop.time() < until):
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)

    def _has_space(self, subscriber: Subscriber) -> bool:
        if subscriber.outlet.transport.sink.buffered() > MAX_WAITING:
            return False
        if not subscriber.acknowledges:
            return True
        octets = sum(len(sent.message.body) for each in self._acknowledging for sent in each.pending.values())
        return octets <= MAX_WAITING and len(subscriber.subscription.pending) <= MAX_UNACKNOWLEDGED


class Replays:
    """All replays of one instance, and the limit on their pages in progress."""

    def __init__(self, hub: Hub, broker: Broker, pages: int = PAGES) -> None:
        self._hub = hub
        self._broker = broker
        self._pages = asyncio.Semaphore(pages)  # it is fair: first come, first served

    def of(self, subscriber: Subscriber, wanted: ReplayRequest) -> Replay:
        """Return the replay for a subscriber that is in the hub and holds live records back."""
        return Replay(self._hub, self._broker if isinstance(self._broker, KeepsHistory) else None, subscriber, wanted)

    async def position(self, destination: str) -> str | None:
        """Return the id of the last record of a destination; None if the engine keeps no history."""
        if not isinstance(self._broker, KeepsHistory):
            return None
        return await self._broker.before_newest(topics_on(self._broker)(destination), 0) or BEGINNING

    async def run(self, replay: Replay, turn: ReplayTurn) -> None:
        """Send the records requested, and let the subscriber go live.

        `turn` belongs to the connection, and is taken for each page. Raise `BrokerUnavailable` if the broker cannot be
        read; called again, the replay continues where it was.
        """
        live = False
        while not live:
            async with turn.lock:
                await turn.wait_for_space(replay.subscriber)
                live = await self._send_page(replay, turn)

    async def _send_page(self, replay: Replay, turn: ReplayTurn) -> bool:
        """Send the next page. Return whether it was the last, so that the subscriber is live."""
        async with self._pages:
            if await replay.send_page():
                # Nothing was awaited since the records held back were checked, so none can slip in between.
                self._go_live(replay.subscriber)
                return True
            await turn.wait_for_space(replay.subscriber, STALLED)
            return False

    def _go_live(self, subscriber: Subscriber) -> None:
        subscriber.release(self._hub.fanout)
        self._hub.settle(subscriber)


class Replay:
    """One replay: what the client requested, and how far it has got."""

    def __init__(self, hub: Hub, broker: KeepsHistory | None, subscriber: Subscriber, wanted: ReplayRequest) -> None:
        self.subscriber = subscriber
        self._hub = hub
        self._broker = broker  # None if it keeps no history
        self._wanted = wanted
        self._topic = topics_on(broker)(subscriber.destination) if broker is not None else ""
        self._after: str | None = None  # the last record read; None until the start has been looked up
        self._at_end = True  # whether the last page reached the end: then the next one holds live records back

    async def send_page(self) -> bool:
        """Read a page and send it. Return whether nothing is missing between it and the records held back."""
        subscriber = self.subscriber
        if self._broker is None:
            subscriber.gap = self._wanted.after not in (None, BEGINNING)
            return True
        if self._after is None:
            self._after = await self._start(self._broker)
        if subscriber.overflowed and self._at_end:
            subscriber.hold()
        page = await self._read(self._broker)
        subscriber.send(self._hub.fanout, self._own_records(page))
        self._hub.fanout.flush()
        self._after = page.records[-1].id if page.records else self._after
        subscriber.seen = "" if self._after == BEGINNING else self._after
        self._at_end = not page.more
        if page.more:
            subscriber.keep_nothing()  # it comes with a later page
        return self._at_end and not subscriber.overflowed

    def _own_records(self, page: Page) -> list[ChatRecord]:
        """Return the subscriber's records of a page: a user's topic holds all queues of that user."""
        records = map(record_of, page.records)
        return [record for record in records if record and record.destination == self.subscriber.destination]

    async def _start(self, broker: KeepsHistory) -> str:
        """Return the id to read after."""
        wanted = self._wanted
        if wanted.after is not None:
            return await self._within_limit(broker, wanted.after)
        if self.subscriber.destination.startswith(USER_PREFIX):
            return await self._before_own_newest(broker, wanted.last)
        return await broker.before_newest(self._topic, wanted.last) or BEGINNING

    async def _within_limit(self, broker: KeepsHistory, after: str) -> str:
        """Return the id after which at most MAX_HISTORY records follow; mark a gap if that skips some."""
        later = await broker.before_newest(self._topic, MAX_HISTORY, after=after)
        if later is None:
            return after
        self.subscriber.gap = True
        return later

    async def _before_own_newest(self, broker: KeepsHistory, count: int) -> str:
        """Return what the broker's `before_newest` would for the subscriber's records alone. Keeps only ids."""
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
        """Return the next page; mark a gap if records before it are gone."""
        after = self._after or BEGINNING
        while True:
            page = await self._page(broker, after)
            # Asked after reading, so that what was trimmed during the read shows.
            resume = None if after == BEGINNING else await broker.lost_after(self._topic, after)
            if resume is None:
                return page
            self.subscriber.gap = True
            self._after = after = await self._within_limit(broker, resume)

    async def _page(self, broker: KeepsHistory, after: str) -> Page:
        return await broker.page(self._topic, after=after, limit=PORTION, octets=PAGE_OCTETS)
