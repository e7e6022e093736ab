"""What a server session tells the application: a client's frames, checked and understood, as plain values.

`session.py` makes them; nothing here does anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from chatlab.stomp.frames import Frame, MessageFrame, StompHeaders

# --- What subscriptions and deliveries are ---


class AckMode(Enum):
    """How a subscriber acknowledges; the value is the `ack` header's."""

    AUTO = "auto"  # not at all
    CLIENT = "client"  # one, and with it all before it
    CLIENT_INDIVIDUAL = "client-individual"  # each


@dataclass(eq=False, slots=True)
class Subscription:
    """One SUBSCRIBE of one session.

    With `ack` auto, a message needs no session: `subscription.prefix + message.tail(subscription.version)` is the
    frame, and subscriptions of equal `prefix` and `version` share it. In the other modes use `session.message`.
    """

    id: str  # the `id` header; the destination where STOMP 1.0 gave none
    destination: str
    ack: AckMode
    version: str
    prefix: bytes
    headers: StompHeaders = ()  # all that SUBSCRIBE said, for the server's own ones such as `last-id`
    pending: dict[str, Delivery] = field(default_factory=dict)  # by ack id, in the order they were sent

    def get(self, name: str) -> str | None:
        """Return a header of the SUBSCRIBE frame."""
        return Frame("SUBSCRIBE", self.headers).get(name)


@dataclass(frozen=True, eq=False, slots=True)
class Delivery:
    """A message on its way to a subscriber that acknowledges; `attempt` is 1 the first time."""

    subscription: Subscription
    message: MessageFrame
    attempt: int
    ack_id: str


# --- Events: what the client asked for, already checked ---


@dataclass(kw_only=True, slots=True)  # not frozen: that takes twice as long to make, and one is made for each frame
class Event:
    """What a frame asked for. Answer each by `session.done(event)`, `session.failed(event)` or `session.error(...)`."""

    receipt: str | None = None
    number: int = 0  # its place among the session's


@dataclass(kw_only=True, slots=True)
class Connect(Event):
    """CONNECT or STOMP. Answer with `session.connected(...)` or `session.error(...)`; `done` is not needed."""

    login: str | None
    passcode: str | None = field(repr=False)
    host: str | None
    frame: Frame = field(repr=False)


@dataclass(kw_only=True, slots=True)
class Send(Event):
    """SEND; `headers` are those that travel with the message, `frame` has them all."""

    destination: str
    body: bytes
    headers: StompHeaders
    frame: Frame


@dataclass(kw_only=True, slots=True)
class Subscribe(Event):
    """SUBSCRIBE: the subscription is already among `session.subscriptions`."""

    subscription: Subscription


@dataclass(kw_only=True, slots=True)
class Unsubscribe(Event):
    """UNSUBSCRIBE: the subscription is gone; what was sent on it without being acknowledged is handed back."""

    subscription: Subscription
    unacknowledged: Sequence[Delivery]


@dataclass(kw_only=True, slots=True)
class Ack(Event):
    """ACK: these deliveries are settled (several in mode `client`)."""

    deliveries: Sequence[Delivery]


@dataclass(kw_only=True, slots=True)
class Nack(Event):
    """NACK: these were not consumed. `session.message(..., attempt=delivery.attempt + 1)` tries again."""

    deliveries: Sequence[Delivery]


@dataclass(kw_only=True, slots=True)
class Commit(Event):
    """COMMIT: do all of `events` (Send, Ack, Nack), answer each as if it stood alone, then this.

    Their own receipts were given when they were held; `receipt` is the COMMIT's in all of them. It goes out when all
    are done, and not at all if one has failed.
    """

    transaction: str
    events: Sequence[Send | Ack | Nack]


@dataclass(kw_only=True, slots=True)
class Disconnect(Event):
    """DISCONNECT: the last event. `done` sends the RECEIPT, after those of all before it, and closes."""
