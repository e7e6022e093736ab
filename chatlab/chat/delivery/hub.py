"""Deliver records to subscribers: frame each record once for all that can share the bytes, and pass it to the fan-out.

    relay ─ records ─►  destination /topic/public ─┬─ same transport, version and subscription id: one frame, one group
                                                   ├─ another subscription id: another frame, another group
                                                   └─ apart: acknowledging or still catching up: one by one

A MESSAGE differs between subscribers only in its `subscription` header, and nearly all clients use `sub-0`. A
subscriber is kept apart while its stream differs from the others': it acknowledges, so each of its messages has its
own `ack`; it is replaying what it missed; or its next message must carry `gap:true`.

Left out: where records come from (relay.py), replaying missed records (replay.py), queues (queues.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from chatlab.chat.delivery.transport import ClientTransport, Framing
from chatlab.chat.destinations import ChatRecord
from chatlab.net.fanout import Fanout, Group, Sink
from chatlab.stomp.events import AckMode, Subscription
from chatlab.stomp.frames import MessageFrame

IsBefore = Callable[[str, str], bool]


class Key(NamedTuple):
    """Subscribers with equal keys receive identical bytes. `prefix`: the start of a MESSAGE, with `subscription`."""

    framing: Framing
    version: str
    prefix: bytes


# Records held for a subscriber during its replay; beyond this, the replay reads them from the broker.
MAX_HELD = 4096
MAX_HELD_OCTETS = 256 * 1024


class Outlet(Protocol):
    """What the hub needs of a connection."""

    transport: ClientTransport

    def send_tracked(self, subscription: Subscription, messages: Iterable[MessageFrame], attempt: int = 1) -> bool:
        """Send through the session, which keeps each message until it is acknowledged; False if it has ended."""


class Subscriber:
    """One subscription: where its messages go, and how far it has read."""

    def __init__(self, outlet: Outlet, subscription: Subscription, destination: str, is_before: IsBefore) -> None:
        self.outlet = outlet
        self.subscription = subscription
        self.destination = destination  # under its owner's handle if private, see `private_destination`
        self.acknowledges = subscription.ack is not AckMode.AUTO
        self.gap = False  # whether its next message must say that some may be missing before it
        self.seen = ""  # the last record of its replay: live records up to this one are not sent again
        self.held: list[ChatRecord] | None = None  # live records held back during its replay; None: it is live
        self.overflowed = False  # whether there were too many to hold
        self._held_octets = 0
        self._is_before = is_before

    @property
    def key(self) -> Key:
        """The key by which it shares frames with others."""
        return Key(self.outlet.transport.framing, self.subscription.version, self.subscription.prefix)

    @property
    def shares(self) -> bool:
        """Whether it receives exactly the same bytes as the other subscribers with its key."""
        return not (self.acknowledges or self.gap or self.seen) and self.held is None

    def hold(self) -> None:
        """Hold live records back from now on: it is replaying."""
        self.held = []
        self.overflowed = False
        self._held_octets = 0

    def keep_nothing(self) -> None:
        """Discard live records from now on: the replay will read them from the broker."""
        self.held = []
        self.overflowed = True

    def release(self, fanout: Fanout) -> None:
        """Go live, starting with the records held back."""
        held, self.held = self.held or (), None
        self.offer(fanout, held)

    def offer(self, fanout: Fanout, records: Sequence[ChatRecord]) -> None:
        """Take live records: hold them back during a replay, else send those that the replay has not sent."""
        if self.held is None:
            self.send(fanout, [record for record in records if self._is_new(record)])
        elif not self.overflowed:
            self._keep(records)

    def _keep(self, records: Sequence[ChatRecord]) -> None:
        self._held_octets += sum(len(record.message.body) for record in records)
        if self.held is None or len(self.held) + len(records) > MAX_HELD or self._held_octets > MAX_HELD_OCTETS:
            self.keep_nothing()
        else:
            self.held += records

    def send(self, fanout: Fanout, records: Sequence[ChatRecord]) -> None:
        """Send records to this subscriber only."""
        if not records:
            return
        messages = [record.message for record in records]
        if self.gap:
            messages[0], self.gap = with_gap(messages[0]), False
        if self.acknowledges:
            self.outlet.send_tracked(self.subscription, messages)
            return
        transport, prefix, version = self.outlet.transport, self.subscription.prefix, self.subscription.version
        frames = [prefix + message.tail(version) for message in messages]
        fanout.send(transport.framing.frame(frames), (transport.sink,))

    def _is_new(self, record: ChatRecord) -> bool:
        if not self.seen or not record.id:
            return True
        if record.id == self.seen:
            self.seen = ""  # the live records have reached the end of the replay
            return False
        if self._is_before(record.id, self.seen):
            return False
        self.seen = ""
        return True


def with_gap(message: MessageFrame) -> MessageFrame:
    """Return the message with a header that says that some may be missing before it."""
    return MessageFrame(message.destination, message.id, message.body, (*message.headers, ("gap", "true")))


class Destination:
    """All subscribers of one destination on this instance."""

    def __init__(self, fanout: Fanout) -> None:
        self._fanout = fanout
        self._sharing: dict[Key, Group[Sink]] = {}
        self._apart: dict[Subscriber, None] = {}  # a dict as an ordered set
        self._members: dict[Subscriber, None] = {}

    def __len__(self) -> int:
        return len(self._members)

    def add(self, subscriber: Subscriber) -> None:
        """Add a subscriber, from the next record on."""
        self._members[subscriber] = None
        if subscriber.shares:
            self._sharing.setdefault(subscriber.key, self._fanout.group()).add(subscriber.outlet.transport.sink)
        else:
            self._apart[subscriber] = None

    def discard(self, subscriber: Subscriber) -> None:
        """Remove a subscriber, if present."""
        self._members.pop(subscriber, None)
        if subscriber in self._apart:
            del self._apart[subscriber]
            return
        group = self._sharing.get(subscriber.key)
        if group is not None:
            group.discard(subscriber.outlet.transport.sink)
            if not group:
                del self._sharing[subscriber.key]

    def send(self, records: Sequence[ChatRecord]) -> int:
        """Send records to every subscriber, in order. Return the number of subscribers."""
        for (framing, version, prefix), group in self._sharing.items():
            group.send(framing.frame([prefix + record.message.tail(version) for record in records]))
        for subscriber in tuple(self._apart):
            subscriber.offer(self._fanout, records)
            self.settle(subscriber)
        return len(self._members)

    def mark_gap(self) -> None:
        """Mark the next message to each subscriber: some records may be missing before it."""
        for subscriber in tuple(self._members):
            self.discard(subscriber)
            subscriber.gap = True
            self.add(subscriber)

    def forget_ids(self) -> None:
        """Forget which records were seen: the ids to come may be smaller than earlier ones."""
        for subscriber in self._members:
            subscriber.seen = ""

    def settle(self, subscriber: Subscriber) -> None:
        """Move a subscriber that has caught up to those that share frames."""
        if subscriber in self._apart and subscriber.shares:
            self.discard(subscriber)
            self.add(subscriber)


class Hub:
    """Every destination with subscribers on this instance."""

    def __init__(self, fanout: Fanout) -> None:
        self.fanout = fanout
        self.messages = 0
        self.deliveries = 0
        self._channels: dict[str, Destination] = {}

    def add(self, subscriber: Subscriber) -> None:
        """Add a subscriber, from the next record on."""
        self._channels.setdefault(subscriber.destination, Destination(self.fanout)).add(subscriber)

    def discard(self, subscriber: Subscriber) -> None:
        """Remove a subscriber, if present."""
        channel = self._channels.get(subscriber.destination)
        if channel is not None:
            channel.discard(subscriber)
            if not channel:
                del self._channels[subscriber.destination]

    def settle(self, subscriber: Subscriber) -> None:
        """Move a subscriber that has caught up to those that share frames."""
        channel = self._channels.get(subscriber.destination)
        if channel is not None:
            channel.settle(subscriber)

    def dispatch(self, destination: str, records: Sequence[ChatRecord]) -> None:
        """Send records to all subscribers of `destination`, in order, each once."""
        channel = self._channels.get(destination)
        if channel is not None and records:
            self.messages += len(records)
            self.deliveries += len(records) * channel.send(records)

    def mark_gap(self, destination: str) -> None:
        """Mark the next message to each subscriber of `destination`: some records may be missing before it."""
        channel = self._channels.get(destination)
        if channel is not None:
            channel.mark_gap()

    def forget_ids(self, destination: str) -> None:
        """Treat the records to come as new, however small their ids: the engine's ids start over."""
        channel = self._channels.get(destination)
        if channel is not None:
            channel.forget_ids()

    def subscribers(self, destination: str) -> int:
        """Return the number of subscribers of `destination` on this instance."""
        return len(self._channels.get(destination, ()))

    def destinations(self) -> Iterable[str]:
        """Return every destination that has subscribers here."""
        return self._channels.keys()
