"""The server's side of one STOMP session: frames in, events for the application, frames out. No I/O.

    for event in session.receive_data(data):       a WebSocket message with whole frames or pieces of frames
        ...                                        the application acts on the event, then reports that it has:
        session.done(event)                        sends the RECEIPT, if the frame requested one
    for data in session.data_to_send():            each item must be sent as one WebSocket message
        await websocket.send(data)
    if session.closing:                            then close with its code and reason

The session implements the protocol: the version, subscriptions, unacknowledged messages, open transactions,
heart-beats, receipts, and protocol errors. The application decides what a destination means, who may use it, and what a
message contains. A client's protocol error never raises: after the events that precede it, it adds an ERROR frame to
the data to send, and sets `closing`.

    new ──CONNECT──▶ connecting ──connected()──▶ connected ──DISCONNECT──▶ disconnecting ──done()──▶ closing
     └────────────────────┴──────────────────────────┴── any error: ERROR ──────┴────────────────────▶

Quotations are from the STOMP 1.2 specification unless another version is named.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, NamedTuple

from chatlab.errors import LocalProtocolError, StompError, over_budget
from chatlab.stomp.events import (
    Ack,
    AckMode,
    Commit,
    Connect,
    Delivery,
    Disconnect,
    Event,
    Nack,
    Send,
    Subscribe,
    Subscription,
    Unsubscribe,
    octets_of,
)
from chatlab.stomp.frames import (
    EOL,
    VERSIONS,
    Frame,
    Heartbeat,
    Limits,
    MessageFrame,
    Parser,
    StompHeaders,
    serialize_headers,
    subscription_prefix,
    user_headers,
)
from chatlab.stomp.heartbeat import HeartBeat, agree, parse_heart_beat

SUBPROTOCOLS: Final = ("v12.stomp", "v11.stomp", "v10.stomp")


FRAME_MEMORY = 500  # the memory overhead of a stored frame, in octets
MAX_REASON = 1000  # characters; an error quotes what the client sent, which may be long

# The commands a client may send once it is connected.
_COMMANDS: Final = frozenset(
    {"SEND", "SUBSCRIBE", "UNSUBSCRIBE", "ACK", "NACK", "BEGIN", "COMMIT", "ABORT", "DISCONNECT"}
)


def choose_subprotocol(offered: Iterable[str]) -> str | None:
    """Return the WebSocket subprotocol to answer with: the first offered one that we support, or None.

    None is no reason to refuse: many clients offer no subprotocol. CONNECT's `accept-version` decides the version,
    because clients that offer all three subprotocols do so in any order.
    """
    return next((protocol for protocol in offered if protocol in SUBPROTOCOLS), None)


def choose_version(accept_version: str | None) -> str | None:
    """Return the highest version that both sides support, or None. No `accept-version` header means 1.0."""
    accepted = "1.0" if accept_version is None else accept_version
    offered = {version.strip() for version in accepted.split(",")}
    return next((version for version in VERSIONS if version in offered), None)


@dataclass(frozen=True, slots=True)
class Closing:
    """The code and reason to close the WebSocket with after sending `data_to_send`; `error`, if any, is the cause."""

    code: int
    reason: str
    error: StompError | None = None


class SessionState(Enum):
    """A session's state."""

    NEW = "new"
    CONNECTING = "connecting"  # CONNECT has been received, but not answered by the application yet
    CONNECTED = "connected"
    DISCONNECTING = "disconnecting"
    CLOSING = "closing"


@dataclass(slots=True)
class _Unanswered:
    """A frame whose RECEIPT has not been sent: it is being processed, or waits for an earlier one."""

    receipt: str | None = None
    headers: StompHeaders = ()  # of its RECEIPT, beside `receipt-id`
    finished: bool = False
    failed: bool = False
    commit: _Unanswered | None = None  # the COMMIT that it is part of


# Nothing is known of a frame being processed but that. Most are answered before the next one arrives, so they share it.
_PROCESSING: Final = _Unanswered()


class _Held(NamedTuple):
    """An ACK or NACK in a transaction, and the subscription of its message."""

    frame: Frame
    subscription: Subscription


@dataclass(slots=True)
class _Transaction:
    """The frames stored between BEGIN and COMMIT. The message of an ACK or NACK is looked up again at COMMIT."""

    held: list[Send | _Held] = field(default_factory=list)
    size: int = 0

    @property
    def memory(self) -> int:
        """An estimate of the octets it occupies, including the overhead of each frame."""
        return self.size + FRAME_MEMORY * len(self.held)


class ServerSession:
    """The server's side of one STOMP connection.

    `heart_beat` is what the server can send and wants to receive, in milliseconds. `clock` is a monotonic clock in
    seconds. `connect_timeout` is the time in seconds a client has to send CONNECT.
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
        self.state = SessionState.NEW
        self.version: str | None = None
        self.subscriptions: dict[str, Subscription] = {}
        self.closing: Closing | None = None
        self.heart_beat = (0, 0)  # the agreed intervals for sending and receiving, in milliseconds
        self._limits = limits or Limits()
        self._parser = Parser(self._limits)
        self._server = server
        self._offered_heart_beat = heart_beat
        self._clock = clock
        self._connect_timeout = connect_timeout
        self._beat = HeartBeat((0, 0), clock())
        self._connect_by = clock() + connect_timeout
        self._connect: Connect | None = None  # until the application has answered it
        self._outgoing: list[bytes] = []
        self._output_version: str | None = None  # set with CONNECTED: before, a client does not unescape headers
        self.frames_received = 0  # including those replayed by a COMMIT
        self._unanswered: dict[int, _Unanswered] = {}  # by the frame's number, in order
        self._last_ack_id = 0
        self._unacknowledged_octets = 0
        self._transactions: dict[str, _Transaction] = {}

    # --- Bytes in ---

    def receive_data(self, data: bytes | str) -> list[Event]:
        """Parse one WebSocket message, text or binary, and return its events in order."""
        events: list[Event] = []
        if self.state in (SessionState.DISCONNECTING, SessionState.CLOSING):
            return events  # "Clients MUST NOT send any more frames after the DISCONNECT frame is sent."
        self._beat.record_received(self._clock())
        try:
            for frame in self._parser.frames(_octets(data)):
                if isinstance(frame, Heartbeat):
                    continue
                event = self._receive_frame(frame)
                if event is not None:
                    events.append(event)
                if isinstance(event, Disconnect):
                    break
        except StompError as error:
            self._fail(error)
        return events

    def _receive_frame(self, frame: Frame) -> Event | None:
        """Return the event for a frame, or None if the session has handled it completely."""
        self.frames_received += 1
        number, receipt = self.frames_received, frame.get("receipt")
        self._unanswered[number] = _PROCESSING
        try:
            event = self._event_for(frame, number, receipt)
        except StompError as error:
            # "If the frame included a receipt header, the ERROR frame SHOULD set the receipt-id header to match."
            error.receipt_id = receipt
            error.detail = error.detail or _quoted(frame)
            raise
        if event is None:
            self._finish(number, receipt)
        return event

    def _event_for(self, frame: Frame, number: int, receipt: str | None) -> Event | None:
        command = frame.command
        if self.state is SessionState.NEW:
            # "STOMP servers MUST handle a STOMP frame in the same manner as a CONNECT frame."
            if command not in ("CONNECT", "STOMP"):
                raise StompError(f"the first frame must be CONNECT, not {command!r}")
            return self._on_connect(frame, number)
        if command in ("CONNECT", "STOMP"):
            raise StompError(f"{command} a second time: this session is connected already")
        if command not in _COMMANDS or (command == "NACK" and self.version == "1.0"):  # NACK: new in 1.1
            raise StompError(f"{command!r} is not a command a client can send in STOMP {self.version}")
        if command != "SEND" and frame.body and self.version != "1.0":
            # "Only the SEND, MESSAGE, and ERROR frames MAY have a body." 1.0: "The body of SUBSCRIBE is ignored."
            raise StompError(f"{command} must not have a body, and this one has {len(frame.body)} octets")
        match command:
            case "SEND":
                return self._on_send(frame, number, receipt)
            case "SUBSCRIBE":
                return self._on_subscribe(frame, number, receipt)
            case "UNSUBSCRIBE":
                return self._on_unsubscribe(frame, number, receipt)
            case "ACK" | "NACK":
                return self._on_acknowledgement(frame, number, receipt)
            case "BEGIN":
                self._on_begin(frame)
                return None
            case "COMMIT":
                return self._on_commit(frame, number, receipt)
            case "ABORT":
                self._on_abort(frame)
                return None
        return self._on_disconnect(number, receipt)

    # --- CONNECT and DISCONNECT ---

    def _on_connect(self, frame: Frame, number: int) -> Connect:
        # `host` is REQUIRED since 1.1, but half of the clients in use omit it, and this server has only one host.
        version = choose_version(frame.get("accept-version"))
        if version is None:
            raise StompError(
                f"no common version: accept-version is {frame.get('accept-version')!r}",
                detail=f"Supported protocol versions are {' '.join(VERSIONS)}",
            )
        self.heart_beat = agree(self._offered_heart_beat, parse_heart_beat(frame.get("heart-beat")))
        self.version = self._parser.version = version
        self.state = SessionState.CONNECTING
        self._connect = Connect(
            number=number,
            login=frame.get("login"),
            passcode=frame.get("passcode"),
            host=frame.get("host"),
            frame=frame,
        )
        return self._connect

    def connected(
        self, user_name: str | None = None, session_id: str | None = None, headers: StompHeaders = ()
    ) -> None:
        """Accept the CONNECT: send CONNECTED with the agreed version and heart-beats."""
        if self.state is SessionState.CLOSING:
            return  # a protocol error followed CONNECT immediately
        if self._connect is None or self.version is None:
            raise LocalProtocolError("connected() answers a Connect, and none is open")
        own = [
            ("version", self.version),
            ("heart-beat", "{},{}".format(*self._offered_heart_beat)),
            ("server", self._server),
        ]
        if session_id is not None:
            own.append(("session", session_id))
        if user_name is not None:
            own.append(("user-name", user_name))
        self._send(Frame("CONNECTED", (*own, *headers)))
        self._output_version = self.version
        self._beat = HeartBeat(self.heart_beat, self._clock())
        if self.state is SessionState.CONNECTING:
            self.state = SessionState.CONNECTED
        number, self._connect = self._connect.number, None
        self._finish(number, None)

    def _on_disconnect(self, number: int, receipt: str | None) -> Disconnect:
        self.state = SessionState.DISCONNECTING
        # "Any started transactions which have not been committed will be implicitly aborted."
        self._transactions.clear()
        return Disconnect(number=number, receipt=receipt)

    # --- SEND and transactions ---

    def _on_send(self, frame: Frame, number: int, receipt: str | None) -> Send | None:
        send = Send(
            number=number,
            receipt=receipt,
            destination=_required(frame, "destination"),
            body=frame.body,
            headers=user_headers(frame.headers),
            frame=frame,
        )
        return None if self._store_for_commit(frame, send) else send

    def _store_for_commit(self, frame: Frame, item: Send | _Held) -> bool:
        """Store a frame that belongs to an open transaction; its RECEIPT means it is stored. Return whether it is."""
        name = frame.get("transaction")
        if name is None:
            return False
        transaction = self._open_transaction(name)
        transaction.held.append(item)
        transaction.size += _size(frame)
        if len(transaction.held) > self._limits.max_transaction_frames:
            raise over_budget(
                "transaction-octets",
                f"transaction {name!r} holds too many frames: "
                f"at most {self._limits.max_transaction_frames} are allowed",
            )
        if transaction.size > self._limits.max_transaction:
            raise over_budget(
                "transaction-octets",
                f"transaction {name!r} is too large: at most {self._limits.max_transaction} octets are allowed",
            )
        if sum(each.memory for each in self._transactions.values()) > self._limits.max_held:
            raise over_budget(
                "held-octets", f"open transactions are too large: at most {self._limits.max_held} octets are allowed"
            )
        return True

    def _open_transaction(self, name: str) -> _Transaction:
        transaction = self._transactions.get(name)
        if transaction is None:
            raise StompError(f"transaction {name!r} has not begun")
        return transaction

    def _on_begin(self, frame: Frame) -> None:
        name = _required(frame, "transaction")
        if name in self._transactions:
            # "Within the same connection, different transactions MUST use different transaction identifiers."
            raise StompError(f"transaction {name!r} has begun already")
        if len(self._transactions) >= self._limits.max_transactions:
            raise over_budget(
                "transactions", f"too many open transactions: at most {self._limits.max_transactions} are allowed"
            )
        self._transactions[name] = _Transaction()

    def _on_commit(self, frame: Frame, number: int, receipt: str | None) -> Commit:
        name = _required(frame, "transaction")
        held = self._open_transaction(name).held
        del self._transactions[name]
        events: list[Send | Ack | Nack] = []
        del self._unanswered[number]  # it comes after its parts
        commit = _Unanswered()
        for item in held:
            self.frames_received += 1  # each is an event that must be answered before the COMMIT
            part = self.frames_received
            self._unanswered[part] = _Unanswered(commit=commit)
            if isinstance(item, Send):
                events.append(replace(item, number=part, receipt=receipt))
            else:
                events.append(self._settle_held(item, part, receipt))
        self._unanswered[number] = commit
        return Commit(number=number, receipt=receipt, transaction=name, events=events)

    def _on_abort(self, frame: Frame) -> None:
        name = _required(frame, "transaction")
        self._open_transaction(name)
        del self._transactions[name]

    # --- SUBSCRIBE, MESSAGE and acknowledgements ---

    def _on_subscribe(self, frame: Frame, number: int, receipt: str | None) -> Subscribe:
        destination = _required(frame, "destination")
        # "An id header MUST be included in the frame to uniquely identify the subscription", except in 1.0.
        given = frame.get("id") if self.version == "1.0" else _required(frame, "id")
        key = destination if given is None else given
        if key in self.subscriptions:
            raise StompError(f"subscription {key!r} exists already")
        if len(self.subscriptions) >= self._limits.max_subscriptions:
            raise over_budget(
                "subscriptions", f"too many subscriptions: at most {self._limits.max_subscriptions} are allowed"
            )
        kept = sum(each.octets for each in self.subscriptions.values()) + octets_of(frame.headers)
        if kept > (most := self._limits.max_subscription_octets):
            raise over_budget(
                "subscription-octets", f"subscriptions have too large headers: at most {most} octets are allowed in all"
            )
        assert self.version is not None
        subscription = Subscription(
            id=key,
            destination=destination,
            ack=_ack_mode(frame.get("ack")),
            version=self.version,
            prefix=subscription_prefix(given, self.version),
            headers=frame.headers,
        )
        self.subscriptions[key] = subscription
        return Subscribe(number=number, receipt=receipt, subscription=subscription)

    def _on_unsubscribe(self, frame: Frame, number: int, receipt: str | None) -> Unsubscribe:
        key = frame.get("id")
        if key is None:
            # 1.0: "It requires either a destination header or an id header."
            key = _required(frame, "destination" if self.version == "1.0" else "id")
        subscription = self.subscriptions.pop(key, None)
        if subscription is None:
            raise StompError(f"no subscription {key!r} to end")
        unacknowledged = tuple(subscription.pending.values())
        self._unacknowledged_octets -= sum(len(delivery.message.body) for delivery in unacknowledged)
        subscription.pending.clear()
        return Unsubscribe(number=number, receipt=receipt, subscription=subscription, unacknowledged=unacknowledged)

    def message(self, subscription: Subscription, message: MessageFrame, attempt: int = 1) -> bool:
        """Send a MESSAGE to one subscription, in any ack mode, and keep it until acknowledged if the mode needs that.

        `attempt` above 1 adds `redelivered:true`. Return whether it was sent: not if the subscription or session has
        ended. Exceeding the limit on unacknowledged messages is a client error: send ERROR and close.
        """
        if self.state is SessionState.CLOSING or self.subscriptions.get(subscription.id) is not subscription:
            return False
        if subscription.ack is not AckMode.AUTO and not self.has_room(subscription):
            self._fail(self._too_much_unacknowledged(subscription))
            return False
        head = [("redelivered", "true")] if attempt > 1 else []
        if subscription.ack is not AckMode.AUTO:
            self._last_ack_id += 1
            ack_id = str(self._last_ack_id)
            subscription.pending[ack_id] = Delivery(subscription, message, attempt, ack_id)
            self._unacknowledged_octets += len(message.body)
            if subscription.version == "1.2":
                head.append(("ack", ack_id))
        self._outgoing.append(subscription.prefix + serialize_headers(head) + message.tail(subscription.version))
        return True

    def has_room(self, subscription: Subscription) -> bool:
        """Tell whether one more message may be unacknowledged."""
        return (
            len(subscription.pending) < self._limits.max_unacknowledged
            and self._unacknowledged_octets < self._limits.max_unacknowledged_octets
        )

    def _too_much_unacknowledged(self, subscription: Subscription) -> StompError:
        if len(subscription.pending) >= self._limits.max_unacknowledged:
            reason = f"{len(subscription.pending)} messages unacknowledged on {subscription.id!r}"
            return over_budget("unacknowledged", reason)
        reason = (
            f"{self._unacknowledged_octets} octets unacknowledged: at most {self._limits.max_unacknowledged_octets}"
        )
        return over_budget("unacknowledged-octets", f"{reason} are allowed")

    @property
    def unanswered(self) -> int:
        """The number of frames that have not been answered yet, or wait for an earlier one."""
        return len(self._unanswered)

    def _on_acknowledgement(self, frame: Frame, number: int, receipt: str | None) -> Ack | Nack | None:
        subscription = self._find_pending(frame).subscription
        held = self._store_for_commit(frame, _Held(frame, subscription))
        return None if held else self._settle(frame, number, receipt)

    def _settle_held(self, held: _Held, number: int, receipt: str | None) -> Ack | Nack:
        """Settle a stored ACK or NACK at COMMIT, with no deliveries if another ACK has settled them meanwhile."""
        try:
            return self._settle(held.frame, number, receipt)
        except StompError:
            if self.subscriptions.get(held.subscription.id) is not held.subscription:
                raise  # the subscription has ended, and returned the message as unacknowledged
            kind = Ack if held.frame.command == "ACK" else Nack
            return kind(number=number, receipt=receipt, deliveries=())

    def _settle(self, frame: Frame, number: int, receipt: str | None) -> Ack | Nack:
        """Remove the deliveries that an ACK or NACK covers from the pending ones."""
        last = self._find_pending(frame)
        pending = last.subscription.pending
        settled = [last]
        if last.subscription.ack is AckMode.CLIENT:
            # "The message specified in the ACK frame and all messages sent to the subscription before"; NACK the same.
            settled = [delivery for delivery in pending.values() if int(delivery.ack_id) <= int(last.ack_id)]
        for delivery in settled:
            del pending[delivery.ack_id]
            self._unacknowledged_octets -= len(delivery.message.body)
        kind = Ack if frame.command == "ACK" else Nack
        return kind(number=number, receipt=receipt, deliveries=settled)

    def _find_pending(self, frame: Frame) -> Delivery:
        """Return the delivery that an ACK or NACK names, according to the version."""
        if self.version == "1.2":
            # "The ACK frame MUST include an id header matching the ack header of the MESSAGE being acknowledged."
            name, value = "id", _required(frame, "id")
            found = (s.pending[value] for s in self.subscriptions.values() if value in s.pending)
        else:
            # 1.1: "ACK has two REQUIRED headers: message-id and subscription"; 1.0 has only the first.
            name, value = "message-id", _required(frame, "message-id")
            among = frame.get("subscription") if self.version == "1.0" else _required(frame, "subscription")
            found = (
                delivery
                for subscription in self.subscriptions.values()
                if among is None or subscription.id == among
                for delivery in subscription.pending.values()
                if delivery.message.id == value
            )
        delivery = next(found, None)
        if delivery is None:
            raise StompError(f"{frame.command} of {name} {value!r}: no such message waits to be acknowledged")
        return delivery

    # --- Answers ---

    def done(self, event: Event, headers: StompHeaders = ()) -> None:
        """Report that `event` has been processed: its RECEIPT, if requested, is sent after all earlier ones.

        `headers` are added to the RECEIPT.
        """
        if (
            self._unanswered.get(event.number) is _PROCESSING
            and next(iter(self._unanswered)) == event.number
            and event.receipt is None
            and self.state is SessionState.CONNECTED
        ):
            # Most events: nothing to say, and no earlier one to wait for. As below, in a third of the time.
            del self._unanswered[event.number]
            if self._unanswered:
                self._send_receipts()
            return
        if not isinstance(event, Connect):  # connected() has answered that
            self._finish(event.number, event.receipt, headers)

    def failed(self, event: Event) -> None:
        """Report that `event` has failed and the client is notified by other means than ERROR. No RECEIPT is sent.

        If it is part of a transaction, no RECEIPT is sent for its COMMIT.
        """
        self._finish(event.number, None, failed=True)

    def _finish(self, number: int, receipt: str | None, headers: StompHeaders = (), *, failed: bool = False) -> None:
        # "The receipt is also a cumulative acknowledgment that all the previous frames have been received by the
        # server. However, these previous frames may not yet be fully processed": here they are, even if the
        # application processes several at the same time.
        if self.state is SessionState.CLOSING:
            return
        mine = self._unanswered.get(number)
        if mine is None or mine.finished:
            raise LocalProtocolError(f"event {number} of this session has been answered already")
        if mine is _PROCESSING:
            mine = self._unanswered[number] = _Unanswered()
        mine.finished = True
        if mine.commit is not None:
            mine.commit.failed |= failed
        else:
            mine.failed |= failed
            mine.receipt, mine.headers = None if mine.failed else receipt, headers
        self._send_receipts()

    def _send_receipts(self) -> None:
        while self._unanswered:
            first = next(iter(self._unanswered))
            answer = self._unanswered[first]
            if not answer.finished:
                return
            if answer.receipt is not None and not answer.failed:
                self._send(Frame("RECEIPT", (("receipt-id", answer.receipt), *answer.headers)))
            del self._unanswered[first]
        if self.state is SessionState.DISCONNECTING:
            self._close(Closing(1000, ""))

    def error(
        self,
        message: str,
        detail: str = "",
        *,
        event: Event | None = None,
        headers: StompHeaders = (),
        code: int = 1002,
    ) -> None:
        """Send ERROR, with the receipt id of `event` if it has one, and set `closing`. Nothing is sent after it."""
        receipt = event.receipt if event is not None else None
        self._fail(StompError(message, receipt, detail), headers, code)

    def _fail(self, error: StompError, headers: StompHeaders = (), code: int = 1002) -> None:
        if self.state is SessionState.CLOSING:
            return
        own = [("message", _in_one_line(str(error)))]
        if error.receipt_id is not None and (self._output_version or error.receipt_id.isprintable()):
            own.append(("receipt-id", error.receipt_id))
        if error.budget:
            own.append(("limit", error.budget))
        if self.version is None:
            own.append(("version", ",".join(VERSIONS)))
        if error.detail:
            own.append(("content-type", "text/plain"))
        self._send(Frame("ERROR", (*own, *headers), error.detail.encode()))
        # "The server MUST then close the connection just after sending the ERROR frame."
        self._close(Closing(code, own[0][1], error))

    def shut_down(self, reason: str = "server shutting down") -> None:
        """Close without an ERROR because the server is shutting down (1001)."""
        if self.state is not SessionState.CLOSING:
            self._close(Closing(1001, reason))

    def _close(self, closing: Closing) -> None:
        self.state = SessionState.CLOSING
        self.closing = closing
        self._transactions.clear()
        self._unanswered.clear()

    def end(self) -> list[Delivery]:
        """Abort open transactions and return the unacknowledged deliveries: the connection has closed."""
        if self.state is not SessionState.CLOSING:
            self._close(Closing(1006, ""))
        unacknowledged = [
            delivery for subscription in self.subscriptions.values() for delivery in subscription.pending.values()
        ]
        for subscription in self.subscriptions.values():
            subscription.pending.clear()
        return unacknowledged

    # --- Bytes out, and the clock ---

    def _send(self, frame: Frame) -> None:
        self._outgoing.append(frame.serialize(self._output_version or "1.0"))

    def data_to_send(self) -> list[bytes]:
        """Return and clear the data to send; each item is one WebSocket message."""
        if not self._outgoing:
            return []
        self.record_sent()
        data, self._outgoing = self._outgoing, []
        return data

    def record_sent(self) -> None:
        """Record that data was sent, perhaps past this session, as a shared MESSAGE is: it counts as a heart-beat."""
        self._beat.record_sent(self._clock())

    def deadline(self) -> float | None:
        """Return when `tick` must be called next, on the session's clock; None if it need not be called."""
        if self.state is SessionState.CLOSING:
            return None
        if self.state is SessionState.NEW:
            return self._connect_by
        due = min(self._beat.send_by(), self._beat.receive_by())
        return None if due == float("inf") else due

    def tick(self) -> None:
        """Send a heart-beat if one is due; set `closing` if the client is silent for too long or never sent CONNECT."""
        now = self._clock()
        if self.state is SessionState.CLOSING:
            return
        if self.state is SessionState.NEW and now >= self._connect_by:
            self._fail(StompError(f"no CONNECT within {self._connect_timeout:g} s"))
        elif now >= self._beat.receive_by():
            self._fail(StompError(f"nothing received for {self._beat.max_silence:g} s: heart-beats were agreed on"))
        elif now >= self._beat.send_by():
            self._outgoing.append(EOL)
            self.record_sent()


def _octets(data: bytes | str) -> bytes:
    try:
        return data.encode() if isinstance(data, str) else data
    except UnicodeEncodeError as error:  # half a surrogate pair: valid in JSON, not in UTF-8
        raise StompError(f"text is not Unicode: {error.reason} at character {error.start}") from None


def _required(frame: Frame, name: str) -> str:
    value = frame.get(name)
    if value is None:
        raise StompError(f"{frame.command} without the header {name!r}")
    return value


def _ack_mode(value: str | None) -> AckMode:
    try:
        # "If the header is not set, it defaults to auto." 1.0 has only two of the three; the third is harmless there.
        return AckMode.AUTO if value is None else AckMode(value)
    except ValueError:
        raise StompError(f"ack {value!r} is not one of {', '.join(mode.value for mode in AckMode)}") from None


def _in_one_line(reason: str) -> str:
    """Return a reason on one line, shortened: STOMP 1.0 has no escape for a line feed in a header's value."""
    line = " ".join(reason.splitlines())
    return line if len(line) <= MAX_REASON else f"{line[: MAX_REASON // 2]} … {line[-MAX_REASON // 2 :]}"


def _size(frame: Frame) -> int:
    return len(frame.body) + sum(len(name) + len(value) for name, value in frame.headers)


def _quoted(frame: Frame, limit: int = 1000) -> str:
    """Return the frame's head for the body of an ERROR; "" for a CONNECT, which contains a passcode."""
    if frame.command in ("CONNECT", "STOMP"):
        return ""
    return f"The frame was:\n-----\n{str(frame._replace(body=b''))[:limit]}\n-----\n"
