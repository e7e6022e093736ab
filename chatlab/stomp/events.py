"""The events of a server session: a client's validated frames, as plain values for the application.

`session.py` creates them. This module has no behaviour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from chatlab.stomp.frames import Frame, MessageFrame, StompHeaders

# --- Subscriptions and deliveries ---


class AckMode(Enum):
    """How a subscriber acknowledges messages: the value of the `ack` header."""

    AUTO = "auto"  # without acknowledgements
    CLIENT = "client"  # cumulatively: an ACK covers all messages before it
    CLIENT_INDIVIDUAL = "client-individual"  # one by one


@dataclass(eq=False, slots=True)
class Subscription:
    """One subscription of one session.

    In `auto` mode, a message can be sent without the session: `subscription.prefix +
    message.tail(subscription.version)` is the frame, and subscriptions with equal `prefix` and `version` share it. In
    the other modes use `session.message`.
    """

    id: str  # the `id` header, or the destination if STOMP 1.0 gave no id
    destination: str
    ack: AckMode
    version: str
    prefix: bytes
    headers: StompHeaders = ()  # all headers of the SUBSCRIBE, including server-specific ones such as `last-id`
    pending: dict[str, Delivery] = field(default_factory=dict)  # by ack id, in sending order

    @property
    def octets(self) -> int:
        """The octets of its headers."""
        return octets_of(self.headers)

    def get(self, name: str) -> str | None:
        """Return a header of the SUBSCRIBE frame."""
        return Frame("SUBSCRIBE", self.headers).get(name)


def octets_of(headers: StompHeaders) -> int:
    """Return the octets of these headers' names and values."""
    return sum(len(name.encode()) + len(value.encode()) for name, value in headers)


@dataclass(frozen=True, eq=False, slots=True)
class Delivery:
    """A message sent to a subscriber that acknowledges; `attempt` is 1 for the first delivery."""

    subscription: Subscription
    message: MessageFrame
    attempt: int
    ack_id: str


# --- Events: validated requests of the client ---


@dataclass(kw_only=True, slots=True)  # not frozen: creation would take twice as long, and there is one for each frame
class Event:
    """A frame's request. Answer each with `session.done(event)`, `session.failed(event)` or `session.error(...)`."""

    receipt: str | None = None
    number: int = 0  # of the frame in its session


@dataclass(kw_only=True, slots=True)
class Connect(Event):
    """CONNECT or STOMP. Answer with `session.connected(...)` or `session.error(...)`; `done` is not needed."""

    login: str | None
    passcode: str | None = field(repr=False)
    host: str | None
    frame: Frame = field(repr=False)


@dataclass(kw_only=True, slots=True)
class Send(Event):
    """SEND; `headers` are those passed on with the message, `frame` has all of them."""

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
    """UNSUBSCRIBE: the subscription has ended; `unacknowledged` has its deliveries that were not acknowledged."""

    subscription: Subscription
    unacknowledged: Sequence[Delivery]


@dataclass(kw_only=True, slots=True)
class Ack(Event):
    """ACK: these deliveries are acknowledged (several in `client` mode)."""

    deliveries: Sequence[Delivery]


@dataclass(kw_only=True, slots=True)
class Nack(Event):
    """NACK: these deliveries were rejected. `session.message(..., attempt=delivery.attempt + 1)` redelivers one."""

    deliveries: Sequence[Delivery]


@dataclass(kw_only=True, slots=True)
class Commit(Event):
    """COMMIT: process all of `events` (Send, Ack, Nack), answer each as if it were on its own, then answer this one.

    Their own receipts were sent when the transaction stored them; in all of them, `receipt` is the COMMIT's. It is sent
    once all are done, and not at all if one fails.
    """

    transaction: str
    events: Sequence[Send | Ack | Nack]


@dataclass(kw_only=True, slots=True)
class Disconnect(Event):
    """DISCONNECT: the last event. `done` sends the RECEIPT after all earlier ones, and closes the session."""
