"""Destinations to subscribers: what the relay read, framed once for all who may share the bytes, and handed to fanout.

    relay ─ records ─►  channel /topic/public ─┬─ same transport, version and subscription id: one frame, one group
                                               ├─ another subscription id: another frame, another group
                                               └─ apart: acknowledging, or still catching up: one by one

A MESSAGE differs from subscriber to subscriber in its `subscription` header alone, and clients nearly all say
`sub-0`. A subscriber is kept apart while its stream differs from the others': it acknowledges, so that each of its
messages has an `ack` of its own; it is replaying what it missed; or its next message must carry `gap:true`.

Left out: where records come from (relay.py), which of them a newcomer missed (replay.py), queues (queues.py).
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
    """Who shares all three shares the bytes; the prefix is the MESSAGE's beginning with its `subscription` header."""

    framing: Framing
    version: str
    prefix: bytes


# Records held for a subscriber that is still reading what it missed; beyond that it reads them from the broker.
MAX_HELD = 4096
MAX_HELD_OCTETS = 256 * 1024


class Outlet(Protocol):
    """What the hub needs of a connection."""

    transport: ClientTransport

    def send_tracked(self, subscription: Subscription, messages: Iterable[MessageFrame], attempt: int = 1) -> bool:
        """Send by way of the session, which keeps each message until it is acknowledged; False if it has ended."""


class Subscriber:
    """One subscription: where it goes, and how far it has got."""

    def __init__(self, outlet: Outlet, subscription: Subscription, destination: str, is_before: IsBefore) -> None:
        self.outlet = outlet
        self.subscription = subscription
        self.destination = destination  # as the hub knows it, see `private_destination`
        self.acknowledges = subscription.ack is not AckMode.AUTO
        self.gap = False  # its next message must say that some may be missing before it
        self.seen = ""  # it replayed up to here, ahead of the live records: those are not sent again
        self.held: list[ChatRecord] | None = None  # live records kept back while it replays; None: it is live
        self.overflowed = False  # there were too many to hold, or it keeps nothing
        self._held_octets = 0
        self._is_before = is_before

    @property
    def key(self) -> Key:
        """Which others it can share frames with."""
        return Key(self.outlet.transport.framing, self.subscription.version, self.subscription.prefix)

    @property
    def shares(self) -> bool:
        """Whether it gets exactly the bytes that its like get."""
        return not (self.acknowledges or self.gap or self.seen) and self.held is None

    def hold(self) -> None:
        """Keep live records back from now on: it is replaying."""
        self.held = []
        self.overflowed = False
        self._held_octets = 0

    def keep_nothing(self) -> None:
        """Let live records go by from now on: the replay will read them from the broker."""
        self.held = []
        self.overflowed = True

    def release(self, fanout: Fanout) -> None:
        """Be live from now on, beginning with what was kept back."""
        held, self.held = self.held or (), None
        self.offer(fanout, held)

    def offer(self, fanout: Fanout, records: Sequence[ChatRecord]) -> None:
        """Take live records: keep them back while it replays, else send those that the replay has not sent."""
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
        """Send records to this one subscriber."""
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
            self.seen = ""  # the live records have come as far as the replay went
            return False
        if self._is_before(record.id, self.seen):
            return False
        self.seen = ""
        return True


def with_gap(message: MessageFrame) -> MessageFrame:
    """The same message, saying that some may be missing before it."""
    return MessageFrame(message.destination, message.id, message.body, (*message.headers, ("gap", "true")))


class Destination:
    """All subscribers of one destination on this instance."""

    def __init__(self, fanout: Fanout) -> None:
        self._fanout = fanout
        self._sharing: dict[Key, Group[Sink]] = {}
        self._apart: dict[Subscriber, None] = {}  # a dict, as a set that keeps its order
        self._members: dict[Subscriber, None] = {}

    def __len__(self) -> int:
        return len(self._members)

    def add(self, subscriber: Subscriber) -> None:
        """Let a subscriber in, from the next record on."""
        self._members[subscriber] = None
        if subscriber.shares:
            self._sharing.setdefault(subscriber.key, self._fanout.group()).add(subscriber.outlet.transport.sink)
        else:
            self._apart[subscriber] = None

    def discard(self, subscriber: Subscriber) -> None:
        """Let a subscriber go; no matter if it is not in."""
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
        """Send records to every subscriber, in their order; how many subscribers there were."""
        for (framing, version, prefix), group in self._sharing.items():
            group.send(framing.frame([prefix + record.message.tail(version) for record in records]))
        for subscriber in tuple(self._apart):
            subscriber.offer(self._fanout, records)
            self.settle(subscriber)
        return len(self._members)

    def mark_gap(self) -> None:
        """Some records may be missing from here on: the next message to each subscriber says so."""
        for subscriber in tuple(self._members):
            self.discard(subscriber)
            subscriber.gap = True
            self.add(subscriber)

    def forget_ids(self) -> None:
        """The ids to come may be smaller than those before: no subscriber has seen the records that bear them."""
        for subscriber in self._members:
            subscriber.seen = ""

    def settle(self, subscriber: Subscriber) -> None:
        """Let a subscriber that has caught up share with the others."""
        if subscriber in self._apart and subscriber.shares:
            self.discard(subscriber)
            self.add(subscriber)


class Hub:
    """Every destination somebody on this instance subscribes to."""

    def __init__(self, fanout: Fanout) -> None:
        self.fanout = fanout
        self.messages = 0
        self.deliveries = 0
        self._channels: dict[str, Destination] = {}

    def add(self, subscriber: Subscriber) -> None:
        """Let a subscriber in, from the next record on."""
        self._channels.setdefault(subscriber.destination, Destination(self.fanout)).add(subscriber)

    def discard(self, subscriber: Subscriber) -> None:
        """Let a subscriber go; no matter if it is not in."""
        channel = self._channels.get(subscriber.destination)
        if channel is not None:
            channel.discard(subscriber)
            if not channel:
                del self._channels[subscriber.destination]

    def settle(self, subscriber: Subscriber) -> None:
        """Let a subscriber that has caught up share with the others."""
        channel = self._channels.get(subscriber.destination)
        if channel is not None:
            channel.settle(subscriber)

    def dispatch(self, destination: str, records: Sequence[ChatRecord]) -> None:
        """Send records to all who subscribe to `destination`, in order, each once."""
        channel = self._channels.get(destination)
        if channel is not None and records:
            self.messages += len(records)
            self.deliveries += len(records) * channel.send(records)

    def mark_gap(self, destination: str) -> None:
        """Some records of `destination` may be missing: the next message to each of its subscribers says so."""
        channel = self._channels.get(destination)
        if channel is not None:
            channel.mark_gap()

    def forget_ids(self, destination: str) -> None:
        """The engine's ids start over for `destination`: what comes is new, however small its id."""
        channel = self._channels.get(destination)
        if channel is not None:
            channel.forget_ids()

    def subscribers(self, destination: str) -> int:
        """How many on this instance subscribe to `destination`."""
        return len(self._channels.get(destination, ()))

    def destinations(self) -> Iterable[str]:
        """Every destination that has subscribers here."""
        return self._channels.keys()
