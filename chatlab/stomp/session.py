"""One STOMP client as the server sees it: its frames in, events for the application out, frames back. No I/O.

    for event in session.receive_data(data):       what a WebSocket message brought, whole frames or pieces of them
        ...                                        the application acts on it, then says that it has:
        session.done(event)                        the RECEIPT, if the frame asked for one
    for data in session.data_to_send():            each item is to go out as one WebSocket message
        await websocket.send(data)
    if session.closing:                            then close with its code and reason

The session knows the protocol: the version agreed, which subscriptions there are, what is still to be acknowledged, open
transactions, heart-beats, receipts, and what is a fault. It does not know what a destination means, who may use it, or
what a message says: that is the application's. A fault in what the client sends never raises: it puts an ERROR frame
among the data to send and sets `closing`, after the events that came before it.

    new ──CONNECT──▶ connecting ──connected()──▶ connected ──DISCONNECT──▶ disconnecting ──done()──▶ closing
     └───────────────────┴──────────── any fault: ERROR ───────────────────────────┴──────────────────▶
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from chatlab.errors import LocalProtocolError, StompError
from chatlab.stomp.frames import (
    VERSIONS,
    Frame,
    Headers,
    Heartbeat,
    Limits,
    Message,
    Parser,
    subscription_prefix,
    user_headers,
)
from chatlab.stomp.heartbeat import HeartBeat, agree, parse_heart_beat

SUBPROTOCOLS: Final = ("v12.stomp", "v11.stomp", "v10.stomp")


def choose_subprotocol(offered: Iterable[str]) -> str | None:
    """Return the WebSocket subprotocol to answer with: the client's first that is ours, or None if it has none.

    None is no reason to refuse: many clients offer nothing. The version is settled by CONNECT's `accept-version`, since
    clients that offer all three do so in any order.
    """
    return next((protocol for protocol in offered if protocol in SUBPROTOCOLS), None)


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
    headers: Headers = ()  # all that SUBSCRIBE said, for the server's own ones such as `last-id`
    pending: dict[str, Delivery] = field(default_factory=dict)  # by ack id, in the order they were sent

    def get(self, name: str) -> str | None:
        """Return a header of the SUBSCRIBE frame."""
        return Frame("SUBSCRIBE", self.headers).get(name)


@dataclass(frozen=True, eq=False, slots=True)
class Delivery:
    """A message on its way to a subscriber that acknowledges; `attempt` is 1 the first time."""

    subscription: Subscription
    message: Message
    attempt: int
    ack_id: str


# --- Events: what the client asked for, already checked ---


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """What a frame asked for. Answer each by `session.done(event)`, `session.failed(event)` or `session.error(...)`."""

    receipt: str | None = None
    number: int = 0  # the frame's place among the session's


@dataclass(frozen=True, kw_only=True, slots=True)
class Connect(Event):
    """CONNECT or STOMP. Answer with `session.connected(...)` or `session.error(...)`; `done` is not needed."""

    login: str | None
    passcode: str | None
    host: str | None
    frame: Frame


@dataclass(frozen=True, kw_only=True, slots=True)
class Send(Event):
    """SEND; `headers` are those that travel with the message, `frame` has them all."""

    destination: str
    body: bytes
    headers: Headers
    frame: Frame


@dataclass(frozen=True, kw_only=True, slots=True)
class Subscribe(Event):
    """SUBSCRIBE: the subscription is already among `session.subscriptions`."""

    subscription: Subscription


@dataclass(frozen=True, kw_only=True, slots=True)
class Unsubscribe(Event):
    """UNSUBSCRIBE: the subscription is gone; what was sent on it without being acknowledged is handed back."""

    subscription: Subscription
    unacknowledged: Sequence[Delivery]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ack(Event):
    """ACK: these deliveries are settled (several in mode `client`)."""

    deliveries: Sequence[Delivery]


@dataclass(frozen=True, kw_only=True, slots=True)
class Nack(Event):
    """NACK: these were not consumed. `session.message(..., attempt=delivery.attempt + 1)` tries again."""

    deliveries: Sequence[Delivery]


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit(Event):
    """COMMIT: do all of `events` (Send, Ack, Nack; their receipts are already given), then `done` with this one."""

    transaction: str
    events: Sequence[Send | Ack | Nack]


@dataclass(frozen=True, kw_only=True, slots=True)
class Disconnect(Event):
    """DISCONNECT: the last event. `done` sends the RECEIPT, after those of all before it, and closes."""


# --- The session ---


@dataclass(frozen=True, slots=True)
class Closing:
    """Close the WebSocket with this, once `data_to_send` is out; `error` is the fault, None after a DISCONNECT."""

    code: int
    reason: str
    error: StompError | None = None


class State(Enum):
    """Where in the conversation a session is."""

    NEW = "new"
    CONNECTING = "connecting"  # CONNECT is here, the application has not answered it yet
    CONNECTED = "connected"
    DISCONNECTING = "disconnecting"
    CLOSING = "closing"


class ServerSession:
    """The server's side of one STOMP connection.

    `heart_beat` is what the server can send and wants, in milliseconds; `clock` tells seconds and never goes back;
    `connect_timeout` is how long a client may take to send CONNECT.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        heart_beat: tuple[int, int] = (10_000, 10_000),
        server: str = "chatlab",
        connect_timeout: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state = State.NEW
        self.version: str | None = None
        self.subscriptions: dict[str, Subscription] = {}
        self.closing: Closing | None = None
        self.heart_beat = (0, 0)  # as agreed: milliseconds between what we send, and between what we receive

    def receive_data(self, data: bytes | str) -> list[Event]:
        """Take one WebSocket message, text or binary, and return what it asks for, in order."""
        raise NotImplementedError

    def data_to_send(self) -> list[bytes]:
        """Return what is to go out, and forget it; each item is one WebSocket message."""
        raise NotImplementedError

    def connected(self, user_name: str | None = None, session_id: str | None = None, headers: Headers = ()) -> None:
        """Accept the CONNECT: send CONNECTED with the version and the heart-beats agreed."""
        raise NotImplementedError

    def message(self, subscription: Subscription, message: Message, attempt: int = 1) -> None:
        """Send a MESSAGE to one subscription, in any ack mode; where it is to be acknowledged, keep it until it is.

        `attempt` above 1 adds `redelivered:true`. More unacknowledged messages than the limit is the client's fault:
        ERROR and close.
        """
        raise NotImplementedError

    def done(self, event: Event) -> None:
        """Say that what `event` asked for is done: its RECEIPT goes out, if asked for, after those of all before it."""
        raise NotImplementedError

    def failed(self, event: Event) -> None:
        """Say that it will not be done, and the client has been told otherwise than by ERROR: no RECEIPT."""
        raise NotImplementedError

    def error(
        self, message: str, detail: str = "", *, event: Event | None = None, headers: Headers = (), code: int = 1002
    ) -> None:
        """Send ERROR, with the receipt id of `event` if it asked for one, and set `closing`. Nothing goes out after."""
        raise NotImplementedError

    def shut_down(self, reason: str) -> None:
        """Close without an ERROR because the server goes away (1001)."""
        raise NotImplementedError

    def deadline(self) -> float | None:
        """Return when `tick` has to be called next, on the session's clock; None: no need."""
        raise NotImplementedError

    def tick(self) -> None:
        """Do what time asks for: send a heart-beat, or find that the client is dead or never connected (`closing`)."""
        raise NotImplementedError

    def sent(self) -> None:
        """Say that something was written past this session, such as a shared MESSAGE: it counts as a heart-beat."""
        raise NotImplementedError

    def end(self) -> list[Delivery]:
        """The connection is gone: return all that was sent and never acknowledged; open transactions are aborted."""
        raise NotImplementedError
