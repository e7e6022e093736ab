"""One client's STOMP session: act on what it sends, and send the results. The same for every transport.

    bytes ─► session ─► events ─┬─ CONNECT      authenticate (access.py)
                                ├─ SEND         /app: handler ─► broker; /topic, /queue, /user: broker
                                └─ SUBSCRIBE, UNSUBSCRIBE, ACK, NACK   (subscriptions.py)
    bytes ◄─ session ◄─ RECEIPT once the broker has the record, ERROR, MESSAGEs that are acknowledged

Frames are handled in order. Publishing starts in order without waiting for the broker, so a client that sends a
hundred messages pays for one round trip; the engine keeps their order, and the session keeps the order of RECEIPTs.

There are two kinds of failure. A violation of the protocol or of an access rule is answered with ERROR, and the
connection closes. A message that a handler rejects, or that the broker does not take in time, is reported on
`/user/queue/errors` with its receipt id, and the session stays open, provided the client has subscribed to that queue.
If it has not, but has asked for a receipt, it would wait for that receipt forever, so STOMP's own rule applies: "If the
server cannot successfully process the SEND frame for any reason, the server MUST send the client an ERROR frame and
then close the connection." A client that neither subscribed there nor asked for a receipt gets no answer; the failure
is in the log and the metrics. A SUBSCRIBE that fails is always answered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import msgspec

from chatlab.chat.access import Credentials
from chatlab.chat.app import Call, Outgoing, User
from chatlab.chat.budgets import Pace
from chatlab.chat.delivery.transport import ClientTransport
from chatlab.chat.destinations import (
    ERRORS,
    JSON,
    QUEUE_PREFIX,
    USER_PREFIX,
    canonical,
    fault_in,
    pack,
    private_destination,
    room_of,
    shown_destination,
    split_private,
    user_headers,
    watched_room,
)
from chatlab.chat.service import ChatService
from chatlab.chat.session.logs import ConnectionLog
from chatlab.chat.session.subscriptions import Subscriptions
from chatlab.errors import (
    BrokerError,
    BrokerUnavailable,
    MessageRefused,
    NoHandler,
    StompError,
    over_budget,
    unpublished,
)
from chatlab.limits import TokenBucket
from chatlab.stomp.events import (
    Ack,
    Commit,
    Connect,
    Disconnect,
    Event,
    Nack,
    Send,
    Subscribe,
    Subscription,
    Unsubscribe,
)
from chatlab.stomp.frames import MessageFrame, StompHeaders
from chatlab.stomp.session import ServerSession

# Messages of one client on their way to the broker; at this number, reading pauses until some have arrived.
MAX_SENDING = 256
SENDING_OCTETS = 2 << 20  # on their way to the broker for one connection; beyond it, the connection is not read
ALL_SENDING_OCTETS = 64 << 20  # and for all together: beyond it, no connection is read that has any
# Frames and messages between two checks of a client's budgets, and frames handled before other clients get a turn.
CHECK_EVERY = 64
CONTENDED_SECONDS = 1.0  # for this long after another client's frame, a client is held to its own share


class Paces:
    """Rate limits on one client's frames, octets and SUBSCRIBEs."""

    def __init__(self, service: ChatService) -> None:
        self.subscribes = Pace(service.budgets.subscribes_per_second)
        self._service = service
        self._frames = Pace(service.budgets.frames_per_second)
        self._octets = Pace(service.budgets.octets_per_second)
        self._done = 0  # at the last check
        self._others = 0
        self._contended_until = 0.0

    def wait(self, done: int, events: int, octets: int) -> tuple[str, float]:
        """Return the budget that the client has exceeded and the seconds it has to wait; "" and 0 if none.

        `done`: its frames and messages so far; `events`: the events from them; `octets`: received since the last check.
        """
        own, self._done = done - self._done, done
        too_fast, too_much = self._frames.spend(own), self._octets.spend(octets)
        if not self._contended(events):
            self._frames.forgive()  # no other client is sending
            too_fast = 0.0
        if not too_fast and not too_much:
            return "", 0.0
        return ("frames-per-second", too_fast) if too_fast >= too_much else ("octets-per-second", too_much)

    def _contended(self, events: int) -> bool:
        """Return whether another client has sent a frame in the last second."""
        others, now = self._service.frames - events, time.monotonic()
        if others > self._others:
            self._others, self._contended_until = others, now + CONTENDED_SECONDS
        return now < self._contended_until


class StompConnection:
    """One client's session, from its first byte to the end of its connection."""

    def __init__(
        self,
        service: ChatService,
        transport: ClientTransport,
        id: str,
        log: ConnectionLog,
        remote: str = "",
        account: str = "",
    ) -> None:
        self.service = service
        self.transport = transport
        self.id = id
        self.log = log
        self.user: User | None = None
        self.session = ServerSession(
            limits=service.limits, heart_beat=service.heart_beat, connect_timeout=service.connect_timeout
        )
        self._remote = remote
        self._account = account or f"connection {id}"  # charged for the names that a guest uses first
        self._principal = ""  # the user this connection is counted for
        self._subscriptions = Subscriptions(self)
        self._paces = Paces(service)
        self._messages = 0
        self._events = 0
        self._octets = 0  # since the last check
        self._check_at = CHECK_EVERY  # the count of frames and messages at which to check the budgets
        self._pause = 0.0  # seconds to pause reading
        self._bucket = TokenBucket(service.rate) if service.rate is not None else None
        self._sending: set[asyncio.Future[str]] = set()
        self._sending_octets = 0
        self._some_sent = asyncio.Event()
        self._reading = True  # while False, silence does not mean that the client is dead
        self._unfinished: tuple[Event | None, Iterator[Event]] | None = None  # what `finish` has to handle
        self._rest: Coroutine[Any, Any, None] | None = None  # what `_act` has to await if `_unfinished` is a SEND
        self._failed = False  # after an ERROR: ACK, NACK and UNSUBSCRIBE are still honoured, SEND and SUBSCRIBE dropped
        self._ended = False
        self._timer: asyncio.TimerHandle | None = None
        self._set_timer()
        service.connections[self] = None

    # --- What a transport calls ---

    def receive(self, data: bytes, text: bool = True) -> bool:
        """Act on one WebSocket or SockJS message; STOMP does not distinguish text from binary.

        Return whether everything is done. If not, await `finish` before passing on more.
        """
        received = self.session.receive_data(data)
        count = len(received)
        self._octets += len(data)
        self._messages += 1
        self._events += count
        self.service.frames += count
        events = iter(received)
        if count > CHECK_EVERY:  # other clients get a turn in between
            self._unfinished = None, events
            return False
        for event in events:
            if not self._act_now(event):
                self._unfinished = event, events
                return False
        self.flush()
        if self._messages + self.session.frames_received >= self._check_at and not self._within_budgets():
            return False
        return not self._sends_too_much()

    async def finish(self) -> None:
        """Act on the rest of the last message, and wait while too much is on its way to the broker."""
        unfinished, self._unfinished = self._unfinished, None
        if unfinished is not None:
            await self._act_on_rest(*unfinished)
        if self._messages + self.session.frames_received >= self._check_at:
            self._within_budgets()
        if self._pause:
            pause, self._pause = self._pause, 0.0
            with self.not_reading():
                await asyncio.sleep(pause)
        while self._has_too_much_in_flight() and not self._ended:
            self._some_sent.clear()
            with self.not_reading():
                await self._some_sent.wait()

    async def _act_on_rest(self, event: Event | None, events: Iterator[Event]) -> None:
        if event is not None:
            await self._act(event)
        for number, each in enumerate(events, 1):
            if not self._act_now(each):
                await self._act(each)
            if number % CHECK_EVERY == 0:
                self.flush()
                await asyncio.sleep(0)
        self.flush()

    def _within_budgets(self) -> bool:
        """Check the rates: return whether this client may be read at once. If not, `finish` waits."""
        frames = self._messages + self.session.frames_received
        budget, self._pause = self._paces.wait(frames, self._events, self._octets)
        self._octets, self._check_at = 0, frames + CHECK_EVERY
        if not budget and self._exceeds_receipts():
            budget = "receipts"
        if budget:
            self.service.delays.count(budget, whose=self._whose())
        return not budget

    def _exceeds_receipts(self) -> bool:
        return bool(self._sending) and self.session.unanswered > self.service.budgets.receipts

    def _sends_too_much(self) -> bool:
        if not self._sending:
            return False
        most = SENDING_OCTETS if self.service.sending_octets < ALL_SENDING_OCTETS else 0
        return len(self._sending) >= MAX_SENDING or self._sending_octets > most

    def _has_too_much_in_flight(self) -> bool:
        return self._sends_too_much() or self._exceeds_receipts()

    def end(self) -> None:
        """Release everything: the transport has closed."""
        if self._ended:
            return
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        unacknowledged = self.session.end()
        self._subscriptions.end_all()
        for delivery in unacknowledged:
            self.service.queues.returned(delivery)
        self._some_sent.set()
        self.service.connections.pop(self, None)
        if self._principal:
            self.service.principals.release(self._principal)
        if self.user is not None:
            self.log.info("ended")
        else:
            self.service.throttled_log.info("ended", extra={"connection": self.id})

    # --- What the service and the subscriptions call ---

    def shut_down(self, reason: str) -> None:
        """Close with code 1001."""
        self.session.shut_down(reason)
        self.flush()

    async def flushed(self) -> None:
        """Wait until the broker has taken or refused everything this client sent."""
        if self._sending:
            await asyncio.wait(self._sending)

    def send_tracked(self, subscription: Subscription, messages: Iterable[MessageFrame], attempt: int = 1) -> bool:
        """Send through the session, which keeps each message until it is acknowledged; False if it has ended."""
        went_out = all(self.session.message(subscription, message, attempt) for message in messages)
        self.flush()
        return went_out

    def done(self, event: Event, headers: StompHeaders = ()) -> None:
        """Send RECEIPT, with these headers too, if the frame asked for one: it has been carried out."""
        self.session.done(event, headers)
        self.flush()

    def fail(self, event: Event, reason: str, field: str = "") -> None:
        """Report that a frame will not be carried out: on `/user/queue/errors`, or with ERROR. No RECEIPT."""
        self.service.metrics.refused += 1
        extra = {"connection": self.id, "reason": reason, "field": field}
        self.service.throttled_log.info("message refused", extra=extra)
        waits_for_it = event.receipt is not None or isinstance(event, Subscribe)
        if waits_for_it and not self._listens_for_errors():
            return self._send_error(reason, event)
        return self.delay(event, reason, field)

    def delay(self, event: Event, reason: str, field: str = "") -> None:
        """Send no RECEIPT; report the reason to a client that is subscribed to `/user/queue/errors`."""
        self.session.failed(event)
        self._report(event, reason, field)
        self.flush()

    def fail_afterwards(self, event: Event, reason: str) -> None:
        """Report a failure after the RECEIPT: on `/user/queue/errors`, or with ERROR."""
        if not self._listens_for_errors():
            return self._send_error(reason)
        self._report(event, reason)
        return self.flush()

    def _listens_for_errors(self) -> bool:
        return any(subscription.destination == ERRORS for subscription in self.session.subscriptions.values())

    def _report(self, event: Event, reason: str, field: str = "") -> None:
        fault = {"error": reason, "field": field or None, "receipt": event.receipt}
        headers = [("content-type", JSON)] + ([("receipt-id", event.receipt)] if event.receipt is not None else [])
        message = MessageFrame(ERRORS, f"errors/{self.id}-{event.number}", msgspec.json.encode(fault), headers)
        for subscription in list(self.session.subscriptions.values()):
            if subscription.destination == ERRORS:
                self.session.message(subscription, message)

    def _send_error(
        self, reason: str, event: Event | None = None, code: int = 1008, headers: StompHeaders = ()
    ) -> None:
        """Send ERROR with the receipt id of the frame it answers, and close."""
        self._failed = True
        self.session.error(reason, event=event, code=code, headers=headers)
        self.flush()

    def fail_after_exception(self, event: Event, destination: str, error: Exception) -> None:
        """Log a handler's exception; tell the client only that the handler failed."""
        self.log.error("handler failed", exc_info=error, extra={"destination": destination})
        self.fail(event, "the handler failed")

    def flush(self) -> None:
        """Send the session's pending output, and close if the session is closing."""
        frames = self.session.data_to_send()
        if frames:
            self.service.fanout.send(self.transport.framing.frame(frames), (self.transport.sink,))
        closing = self.session.closing
        if closing is not None:
            self._note_budget(closing.error)
            self.service.fanout.flush()  # the ERROR goes before the close
            self.transport.sink.close(closing.code, closing.reason)

    def _note_budget(self, error: StompError | None) -> None:
        """Count, once, a client that is disconnected for exceeding a budget."""
        if error is not None and error.budget:
            self.service.refusals.count(error.budget, whose=self._whose())
            error.budget = ""

    def _whose(self) -> str:
        return f"user {self.user.principal}" if self.user is not None and not self.user.guest else self._account

    def may_use(self, destination: str) -> str:
        """Return "", or why this client may not use a destination: it would exceed the limit on names."""
        topic = self.service.topic_of(destination)
        if topic in self.service.names.in_use:
            return ""
        return self.service.use_name(topic, self._whose())

    @contextmanager
    def not_reading(self) -> Iterator[None]:
        """Suspend the heart-beat check: this client is not read while it waits for the broker."""
        self._reading = False
        try:
            yield
        finally:
            self._reading = True

    # --- Time ---

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        deadline = self.session.deadline()
        if deadline is not None and not self._ended:
            delay = max(0.0, deadline - time.monotonic()) if self._reading else 1.0
            self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        if self._reading:
            self.session.tick()
            self.flush()
        self._set_timer()

    # --- Events ---

    def _act_now(self, event: Event) -> bool:
        """Handle an event that needs no waiting. Return False if it needs some: then `_act` handles it.

        Most frames are SENDs, and most of those wait for nothing: a coroutine for each would cost more than the work.
        """
        try:
            if event.__class__ is Send and not self._failed:
                return self._send(event)
            match event:
                case Send() | Subscribe() if self._failed:
                    pass
                case Connect() | Subscribe() | Commit():
                    return False
                case Unsubscribe():
                    self._subscriptions.unsubscribe(event)
                case Ack() | Nack():
                    self._subscriptions.settle(event)
                case Disconnect():
                    self.done(event)
        except Exception as error:
            self._end_with_error(event, error)
        return True

    async def _act(self, event: Event) -> None:
        """Handle an event that `_act_now` could not."""
        try:
            match event:
                case Send():
                    rest, self._rest = self._rest, None
                    if rest is not None:
                        await rest
                case Connect():
                    await self._connect(event)
                case Subscribe():
                    await self._throttle_subscribe()
                    if not (self._ended or self._failed):
                        await self._subscriptions.subscribe(event, self._user())
                case Commit():
                    await self._commit(event)
        except Exception as error:
            self._end_with_error(event, error)

    async def _throttle_subscribe(self) -> None:
        if pause := self._paces.subscribes.spend(1):
            self.service.delays.count("subscribes-per-second", whose=self._whose())
            self.flush()
            with self.not_reading():
                await asyncio.sleep(pause)

    async def _commit(self, event: Commit) -> None:
        for each in event.events:
            if not self._act_now(each):
                await self._act(each)
        self.done(event)

    def _end_with_error(self, event: Event, error: Exception) -> None:
        """End the session after a fault: send ERROR with the receipt id of the frame it answers, and close."""
        if isinstance(error, StompError):
            reason, code, headers = str(error), 1008, (("limit", error.budget),) if error.budget else ()
            self._note_budget(error)
            self.service.throttled_log.info("refused", extra={"connection": self.id, "reason": reason})
        else:
            # RFC 6455, 7.4.1: 1011, "it encountered an unexpected condition"
            reason, code, headers = "internal error", 1011, ()
            self.log.error(reason, exc_info=error, extra={"frame": type(event).__name__.upper()})
        self._send_error(reason, event, code, headers)

    async def _connect(self, event: Connect) -> None:
        bearer = (event.frame.get("Authorization") or "").removeprefix("Bearer ") or None
        token = event.frame.get("token") or bearer
        credentials = Credentials(event.login, event.passcode, token, self._remote, event.frame.get("client-key"))
        self.user = await self.service.access.user_of(credentials)
        if self.user is None:
            raise StompError("access refused: login, passcode or token is not valid")
        if not self.user.guest:
            self._take_place_for(self.user)
            self.service.directory.learn(self.user.name)
        elif self.user.named and (fault := self.service.directory.fault_in(self.user.name)):
            raise StompError(f"access refused: {fault}")
        self.session.connected(self.user.principal, self.id, (("user-handle", self.user.handle),))
        self._set_timer()
        self.log.info("connected", extra={"user": self.user.name, "stomp": self.session.version})

    def _take_place_for(self, user: User) -> None:
        if self._ended:
            return
        if self.service.principals.acquire(user.principal):
            most = self.service.principals.per_address
            reason = f"too many connections of {user.name[:80]!r}: at most {most} are allowed; close some of the others"
            raise over_budget("connections-per-principal", reason)
        self._principal = user.principal

    # --- SEND ---

    def _send(self, event: Send) -> bool:
        user, destination = self._user(), canonical(event.destination)
        if self._bucket is not None and not self._bucket.take():
            self._refuse_over_rate(event)
            return True
        if self.service.asks_may_send:
            self._require_may_send(user, destination)
        if self.service.app.takes(destination):
            return self._handle(event, Call(destination, user, event.headers, directory=self.service.directory))
        outgoing = self._record_without_handler(destination, event)
        if outgoing.destination != destination and self.service.asks_may_send:
            self._require_may_send(user, outgoing.destination)
        if destination.startswith(QUEUE_PREFIX) and not self.service.queues.exists(destination):
            self._rest = self._publish_to_new_queue(event, outgoing)
            return False
        self._publish(event, outgoing)
        return True

    def _require_may_send(self, user: User, destination: str) -> None:
        if not self.service.access.may_send(user, destination):
            raise StompError(f"access refused: {user.name!r} may not send to {destination!r}")

    async def _publish_to_new_queue(self, event: Send, outgoing: Outgoing) -> None:
        """Create the queue first, so that the message waits for a subscriber."""
        if refused := self.may_use(outgoing.destination):
            return self.fail(event, f"refused: {refused}")
        try:
            with self.not_reading():
                await self.service.queues.create(outgoing.destination)
        except BrokerError as error:
            return self.fail(event, unpublished(BrokerUnavailable(str(error), outcome_unknown=False)))
        return self._publish(event, outgoing)

    def _handle(self, event: Send, call: Call) -> bool:
        try:
            answer = self.service.app.call_message(call, event.body)
        except Exception as error:
            self._fail_handler(event, error)
            return True
        if answer.later is not None:
            self._rest = self._answer_later(event, answer.later)
            return False
        self._handled(event, answer.outgoing)
        return True

    async def _answer_later(self, event: Send, answering: Coroutine[Any, Any, Outgoing | None]) -> None:
        try:
            outgoing = await answering
        except Exception as error:
            self._fail_handler(event, error)
        else:
            self._handled(event, outgoing)

    def _handled(self, event: Send, outgoing: Outgoing | None) -> None:
        if outgoing is None:
            self.done(event)
        else:
            if self.service.asks_may_send:
                self._require_may_send(self._user(), outgoing.destination)
            self._publish(event, outgoing)

    def _fail_handler(self, event: Send, error: Exception) -> None:
        """Report what a handler rejected, or the exception it raised."""
        match error:
            case NoHandler():
                self._end_with_error(event, StompError(f"no handler takes messages at {event.destination!r}"))
            case MessageRefused():
                self.fail(event, str(error), field=error.field)
            case _:
                self.fail_after_exception(event, event.destination, error)

    def _refuse_over_rate(self, event: Send) -> None:
        """Reject a message that comes too fast; disconnect clients that keep exceeding the rate."""
        self.service.metrics.limited += 1
        if self._bucket is not None and self._bucket.exhausted:
            raise StompError("flooding: the client kept exceeding its message rate")
        self.fail(event, "not sent: too many messages a second")

    def _publish(self, event: Send, outgoing: Outgoing) -> None:
        # With a key, the broker can retry without adding a second record; only a receipt is worth that cost.
        key = outgoing.key or (f"receipt:{self.id}:{event.number}" if event.receipt is not None else None)
        topic = self.service.topic_of(outgoing.destination)
        if topic not in self.service.names.in_use and (refused := self.service.use_name(topic, self._whose())):
            return self.fail(event, f"refused: {refused}")
        has_key, octets = outgoing.key is not None, len(outgoing.body)
        publishing = self.service.publish(topic, outgoing.body, key, partial(self._published, event, has_key, octets))
        if not publishing.done():
            self._sending.add(publishing)
            self._sending_octets += octets
            self.service.sending_octets += octets
        elif error := publishing.exception():
            self._not_published(event, has_key, error)
        else:
            self.session.done(event)  # `receive` sends the RECEIPT with the rest
        return None

    def _published(self, event: Send, has_key: bool, octets: int, publishing: asyncio.Future[str]) -> None:
        self._sending.discard(publishing)
        self._sending_octets -= octets
        self.service.sending_octets -= octets
        self._some_sent.set()
        if publishing.cancelled():
            return None
        if error := publishing.exception():
            return self._not_published(event, has_key, error)
        return self.done(event)

    def _not_published(self, event: Send, has_key: bool, error: BaseException) -> None:
        if not isinstance(error, BrokerError):
            self.log.error("publishing failed", exc_info=error)
        may_repeat = has_key and self.service.knows_repeats
        return self.fail(event, unpublished(error, "send it again with the same client_id" if may_repeat else ""))

    def _record_without_handler(self, destination: str, event: Send) -> Outgoing:
        """Return the record for a SEND to a topic, a queue or a user, without a handler."""
        if fault := fault_in(destination):
            raise StompError(fault)
        if room_of(destination) is not None:
            raise StompError(f"{destination!r} takes messages only through /app/chat.sendMessage")
        if watched_room(destination) is not None:
            raise StompError(f"{destination!r} takes no messages from clients: only the server says who is in a room")
        if self.service.app.is_own(destination):
            raise StompError(
                f"{shown_destination(destination)!r} takes no messages from clients: only the server sends there"
            )
        if destination.startswith(USER_PREFIX):
            owner, private = split_private(destination)
            if not owner or not private.startswith(USER_PREFIX + QUEUE_PREFIX[1:]):
                raise StompError(f"not a user's queue: {destination!r}, expected /user/PRINCIPAL/queue/NAME")
            destination = private_destination(self.service.directory.addressed(owner), private)
        return Outgoing(destination, pack(destination, user_headers(event.headers), event.body))

    def _user(self) -> User:
        if self.user is None:  # the session passes nothing on before CONNECT is answered
            raise StompError("not connected")
        return self.user
