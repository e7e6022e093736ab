"""What a newcomer missed, then what is new: no gap and no repeat between the two, however busy the topic.

    SUBSCRIBE last-id:1005-0
        1  live records are held back for it from now on          held: 1009 1010
        2  the broker's records after 1005 are read               1006 1007 1008 1009
        3  they are sent; of the held ones, those not yet sent    1010
        4  it is live

A replay longer than a client reads at once goes out in portions, each when the last is on its way; if more live records
come meanwhile than are worth holding, steps 1 to 3 are done again from the last record sent. Each round is shorter.

The engine must keep history (brokers/port.py). If it does not, nothing can be replayed, and the first message says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from chatlab.brokers.port import BEGINNING, Broker, KeepsHistory
from chatlab.chat.destinations import USER_PREFIX, Record, record_of, topics_on
from chatlab.chat.hub import Hub, Subscriber
from chatlab.errors import StompError
from chatlab.stomp.events import Subscription

# Records written to one subscriber before looking whether they are on their way, and what may still wait then.
PORTION = 256
MAX_WAITING = 64 * 1024
LOOK_AGAIN = 0.01  # seconds
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
            return cls(after)  # all that was missed, however much: `history` is for who comes without an id
        return cls(last=min(int(last[:9]), MAX_HISTORY)) if int(last) else None


def _is_id(text: str, broker: Broker) -> bool:
    if not isinstance(broker, KeepsHistory):
        return True  # nothing will be looked up
    try:
        broker.is_before(text, BEGINNING)
    except ValueError:
        return False
    return True


async def replay(hub: Hub, broker: Broker, subscriber: Subscriber, wanted: Wanted) -> None:
    """Send `subscriber`, which is in the hub and holds, what it wants of the past, and let it go live.

    Raises `BrokerUnavailable` if the broker cannot be read; the subscriber still holds, and replay can be tried again.
    """
    if isinstance(broker, KeepsHistory):
        await _catch_up(hub, broker, subscriber, wanted)
    else:
        subscriber.gap = wanted.after not in (None, BEGINNING)
    # Nothing is awaited from here on, nor was since the last look at what is held: nothing slips in between.
    subscriber.release(hub.fanout)
    hub.settle(subscriber)


async def _catch_up(hub: Hub, broker: KeepsHistory, subscriber: Subscriber, wanted: Wanted) -> None:
    topic = topics_on(broker)(subscriber.destination)
    after, last = wanted.after or BEGINNING, wanted.last
    while True:
        after = await _move_past_gap(broker, topic, subscriber, after)
        records = await _read(broker, subscriber.destination, after, last)
        await _move_past_gap(broker, topic, subscriber, after)  # what went while it was read shows now
        await _send(hub, subscriber, records)
        after, last = (records[-1].id if records else after), 0
        subscriber.seen = "" if after == BEGINNING else after
        if not subscriber.overflowed:
            return
        subscriber.hold()


async def _move_past_gap(broker: KeepsHistory, topic: str, subscriber: Subscriber, after: str) -> str:
    """Where to read on so as to miss no more than is gone; the next message says so if anything is."""
    if after == BEGINNING or (resume := await broker.lost_after(topic, after)) is None:
        return after
    subscriber.gap = True
    return resume


async def _read(broker: KeepsHistory, destination: str, after: str, last: int) -> list[Record]:
    # A user's queues share a topic: how many of its newest records are this queue's cannot be known beforehand.
    limit = (last or None) if not destination.startswith(USER_PREFIX) else None
    deliveries = await broker.history(topics_on(broker)(destination), after=after, limit=limit)
    records = [record for record in map(record_of, deliveries) if record and record.destination == destination]
    return records[-last:]


async def _send(hub: Hub, subscriber: Subscriber, records: Sequence[Record]) -> None:
    sink = subscriber.outlet.transport.sink
    for start in range(0, len(records), PORTION):
        subscriber.send(hub.fanout, records[start : start + PORTION])
        hub.fanout.flush()
        # A sink tells how much it has buffered, and not when that is gone: SockJS's wait for the client's next request.
        while sink.buffered() > MAX_WAITING:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_AGAIN)
