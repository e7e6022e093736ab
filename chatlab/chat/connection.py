"""One client: what its STOMP session asks for, done; what comes of it, sent. The same behind every transport.

    bytes ─► session ─► events ─┬─ CONNECT      who is it? (access.py)
                                ├─ SUBSCRIBE    hub, relay, replay; /app: answered once
                                ├─ SEND         /app: handler ─► broker; /topic, /queue, /user: broker
                                └─ ACK, NACK    queues
    bytes ◄─ session ◄─ RECEIPT once the broker has the record, ERROR, MESSAGEs that are acknowledged

Frames are acted on in order. Publishing is started in order and not waited for, so that a client that sends a hundred
messages waits for the broker once; the engine keeps the order, and the session that of the RECEIPTs.

Two kinds of failure. What breaks the protocol or a rule of access is answered with ERROR, and closed. What a handler
does not take, or the broker did not take in time, is a message on `/user/queue/errors` with the receipt's id; the
session stays.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from chatlab.chat.access import Credentials
from chatlab.chat.app import Call, Outgoing, User
from chatlab.chat.destinations import (
    ERRORS,
    JSON,
    QUEUE_PREFIX,
    TOPIC_PREFIX,
    USER_PREFIX,
    fault_in,
    pack,
    private_destination,
    room_of,
    split_private,
    topic_of,
)
from chatlab.chat.hub import Subscriber
from chatlab.chat.logs import ConnectionLog
from chatlab.chat.relay import backoff
from chatlab.chat.replay import Wanted, replay
from chatlab.errors import BrokerError, BrokerUnavailable, MessageRefused, StompError
from chatlab.stomp.events import (
    Ack,
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
)
from chatlab.stomp.frames import Message
from chatlab.stomp.session import ServerSession

if TYPE_CHECKING:  # the service makes the connections
    from chatlab.chat.service import ChatService
    from chatlab.chat.transport import Transport

# Messages of one client on their way to the broker; with so many, it is not read until some have arrived.
MAX_SENDING = 256


class Connection:
    """One client's conversation, from its first byte to the end of its connection."""

    def __init__(
        self, service: ChatService, transport: Transport, id: str, log: ConnectionLog, remote: str = ""
    ) -> None:
        self.service = service
        self.transport = transport
        self.id = id
        self.user: User | None = None
        self.session = ServerSession(limits=service.limits, heart_beat=service.heart_beat)
        self._log = log
        self._remote = remote
        self._subscribers: dict[Subscription, Subscriber] = {}
        self._sending: set[asyncio.Task[None]] = set()
        self._replays: dict[Subscription, asyncio.Task[None]] = {}
        self._some_sent = asyncio.Event()
        self._waiting = False  # we do not read, so nothing follows from hearing nothing
        self._ended = False
        self._timer: asyncio.TimerHandle | None = None
        self._set_timer()
        service.connections[self] = None

    # --- What a transport calls ---

    async def receive(self, data: bytes) -> None:
        """Take what one WebSocket message (or SockJS message) brought, and act on it."""
        for event in self.session.receive_data(data):
            await self._act(event)
        self.flush()
        while len(self._sending) >= MAX_SENDING and not self._ended:
            await self._until_some_sent()

    def end(self) -> None:
        """The transport is gone: leave everything."""
        if self._ended:
            return
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        for delivery in self.session.end():
            self.service.queues.returned(delivery)
        for subscription in list(self._subscribers):
            self._drop(subscription)
        self._some_sent.set()
        self.service.ended(self)

    # --- What the service calls ---

    def shut_down(self, reason: str) -> None:
        """Say goodbye: close code 1001."""
        self.session.shut_down(reason)
        self.flush()

    async def sent(self) -> None:
        """Wait until the broker has all that this client sent, or has refused it."""
        if self._sending:
            await asyncio.wait(self._sending)

    def send_tracked(self, subscription: Subscription, messages: Iterable[Message], attempt: int = 1) -> None:
        """Send by way of the session, which keeps each message until it is acknowledged, if it is to be."""
        for message in messages:
            self.session.message(subscription, message, attempt)
        self.flush()

    def flush(self) -> None:
        """Send what the session has to say, and close if it says so."""
        frames = self.session.data_to_send()
        if frames:
            self.service.fanout.send(self.transport.framing.frame(frames), (self.transport.sink,))
        closing = self.session.closing
        if closing is not None:
            self.service.fanout.flush()  # the ERROR goes before the close
            self.transport.sink.close(closing.code, closing.reason)

    # --- Time ---

    def _set_timer(self) -> None:
        deadline = self.session.deadline()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if deadline is not None and not self._ended:
            delay = max(0.0, deadline - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(1.0 if self._waiting else delay, self._tick)

    def _tick(self) -> None:
        if not self._waiting:
            self.session.tick()
            self.flush()
        self._set_timer()

    # --- Events ---

    async def _act(self, event: Event) -> None:
        try:
            match event:
                case Connect():
                    await self._connect(event)
                case Send():
                    await self._send(event)
                case Subscribe():
                    await self._subscribe(event)
                case Unsubscribe():
                    self._unsubscribe(event)
                case Ack() | Nack():
                    self._settle(event)
                case Commit():
                    await self._commit(event)
                case Disconnect():
                    await self._disconnect(event)
        except StompError as error:
            self._refuse(event, str(error))

    async def _connect(self, event: Connect) -> None:
        bearer = (event.frame.get("Authorization") or "").removeprefix("Bearer ") or None
        token = event.frame.get("token") or bearer
        credentials = Credentials(event.login, event.passcode, token, self._remote)
        self.user = await self.service.access.user_of(credentials)
        if self.user is None:
            self._log.info("access refused", extra={"login": event.login})
            raise StompError("access refused: login, passcode or token is not valid")
        self.session.connected(self.user.principal, self.id)
        self._set_timer()
        self._log.info("connected", extra={"user": self.user.name, "stomp": self.session.version})

    async def _commit(self, event: Commit) -> None:
        for each in event.events:
            await self._act(each)
        self._done(event)

    async def _disconnect(self, event: Disconnect) -> None:
        self._done(event)

    def _done(self, event: Event) -> None:
        self.session.done(event)
        self.flush()

    def _refuse(self, event: Event, reason: str) -> None:
        """A fault that ends the session: ERROR, with the receipt id of the frame it answers, and close."""
        self._log.info("refused", extra={"reason": reason})
        self.session.error(reason, event=event, code=1008)
        self.flush()

    # --- SEND ---

    async def _send(self, event: Send) -> None:
        user = self._user()
        if not self.service.access.may_send(user, event.destination):
            raise StompError(f"access refused: {user.name!r} may not send to {event.destination!r}")
        if not self.service.app.takes(event.destination):
            return self._publish(event, self._direct(event))
        if not self.service.app.handles_message(event.destination):
            raise StompError(f"no handler takes messages at {event.destination!r}")
        call = Call(event.destination, user, event.headers)
        try:
            outgoing = await self.service.app.call_message(call, event.body)
        except MessageRefused as error:
            return self._fail(event, str(error), field=error.field)
        except Exception:
            self._log.exception("handler failed", extra={"destination": event.destination})
            return self._fail(event, "the handler failed")
        return self._done(event) if outgoing is None else self._publish(event, outgoing)

    def _direct(self, event: Send) -> Outgoing:
        """What a client sends to a topic, a queue or a user itself, without a handler."""
        destination = event.destination
        if fault := fault_in(destination):
            raise StompError(fault)
        if room_of(destination) is not None:
            raise StompError(f"{destination!r} takes messages through /app/chat.sendMessage alone")
        if destination.startswith(USER_PREFIX):
            owner, private = split_private(destination)
            if not owner or not private.startswith(USER_PREFIX + QUEUE_PREFIX[1:]):
                raise StompError(f"not a user's queue: {destination!r}, expected /user/PRINCIPAL/queue/NAME")
        return Outgoing(destination, pack(destination, event.headers, event.body))

    def _publish(self, event: Send, outgoing: Outgoing) -> None:
        task = asyncio.create_task(self._publishing(event, outgoing))
        self._sending.add(task)
        task.add_done_callback(self._sent)

    async def _publishing(self, event: Send, outgoing: Outgoing) -> None:
        # A key of our own lets the broker try again without adding a second record; only a receipt is worth the cost.
        key = outgoing.key or (f"receipt:{self.id}:{event.number}" if event.receipt is not None else None)
        try:
            await self.service.publish(topic_of(outgoing.destination), outgoing.body, key)
        except BrokerError as error:
            return self._fail(event, f"not stored: {error}")
        return self._done(event)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        self._some_sent.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("publishing failed", exc_info=error)

    async def _until_some_sent(self) -> None:
        self._waiting = True
        self._some_sent.clear()
        await self._some_sent.wait()
        self._waiting = False

    def _fail(self, event: Event, reason: str, field: str = "") -> None:
        """A fault that the session survives: no RECEIPT, but a message on `/user/queue/errors` that names it."""
        self.session.failed(event)
        self.service.metrics.refused += 1
        self._log.info("message refused", extra={"reason": reason, "field": field})
        fault = {"error": reason, "field": field or None, "receipt": event.receipt}
        headers = [("content-type", JSON)] + ([("receipt-id", event.receipt)] if event.receipt is not None else [])
        body = msgspec.json.encode(fault)
        for subscription in self.session.subscriptions.values():
            if subscription.destination == ERRORS:
                self.session.message(subscription, Message(ERRORS, f"errors/{self.id}-{event.number}", body, headers))
        self.flush()

    # --- SUBSCRIBE ---

    async def _subscribe(self, event: Subscribe) -> None:
        subscription, user = event.subscription, self._user()
        destination = subscription.destination
        if subscription.get("selector") is not None:
            raise StompError("selectors are not supported")
        if not self.service.access.may_subscribe(user, destination):
            raise StompError(f"access refused: {user.name!r} may not subscribe to {destination!r}")
        if self.service.app.takes(destination):
            return await self._answer_once(event)
        if fault := fault_in(destination):
            raise StompError(fault)
        if destination.startswith(USER_PREFIX):
            if not destination.startswith(USER_PREFIX + QUEUE_PREFIX[1:]):
                raise StompError(f"access refused: {destination!r} is not yours; your own queues are /user/queue/NAME")
            destination = private_destination(user.principal, destination)
        if subscription.destination == ERRORS:
            return self._done(event)  # this session's own: nothing comes by way of the broker
        if destination.startswith(QUEUE_PREFIX):
            return await self._join_queue(event)
        return await self._join_topic(event, destination)

    async def _answer_once(self, event: Subscribe) -> None:
        """`/app/…`: one MESSAGE with what the handler returns; nothing will ever follow it."""
        subscription = event.subscription
        if not self.service.app.handles_subscription(subscription.destination):
            raise StompError(f"no handler answers subscriptions to {subscription.destination!r}")
        call = Call(subscription.destination, self._user(), subscription.headers)
        try:
            body = await self.service.app.call_subscription(call)
        except MessageRefused as error:
            return self._fail(event, str(error), field=error.field)
        except Exception:
            self._log.exception("handler failed", extra={"destination": subscription.destination})
            return self._fail(event, "the handler failed")
        name = f"{subscription.destination[1:]}/{self.id}-{event.number}"
        self.session.message(subscription, Message(subscription.destination, name, body, [("content-type", JSON)]))
        return self._done(event)

    async def _join_topic(self, event: Subscribe, destination: str) -> None:
        wanted = Wanted.parse(event.subscription, self.service.broker)
        subscriber = Subscriber(self, event.subscription, destination, self.service.is_before)
        if wanted is not None:
            subscriber.hold()
        followed = self.service.relay.follow(topic_of(destination))
        self._subscribers[event.subscription] = subscriber
        self.service.hub.add(subscriber)
        await self._confirm(event, followed.ready)
        if wanted is not None and event.subscription in self._subscribers:
            task = asyncio.create_task(self._replay(subscriber, wanted))
            self._replays[event.subscription] = task

    async def _confirm(self, event: Subscribe, ready: asyncio.Event) -> None:
        """RECEIPT once the broker is being read, so that nothing sent after it is missed."""
        try:
            if not ready.is_set():
                self._waiting = True  # the client is not read meanwhile, and must not be held for dead
                async with asyncio.timeout(self.service.patience):
                    await ready.wait()
        except TimeoutError:
            self._fail(event, "the broker does not answer; the subscription stands, and begins when it does")
        else:
            self._done(event)
        finally:
            self._waiting = False

    async def _replay(self, subscriber: Subscriber, wanted: Wanted) -> None:
        attempt = 0
        while True:
            try:
                return await replay(self.service.hub, self.service.broker, subscriber, wanted)
            except BrokerUnavailable as error:
                self._log.warning("replay waits", extra={"destination": subscriber.destination, "reason": str(error)})
                await asyncio.sleep(backoff(attempt))
                attempt += 1

    async def _join_queue(self, event: Subscribe) -> None:
        if Wanted.parse(event.subscription, self.service.broker) is not None:
            raise StompError("a queue has no history: each of its messages is for one subscriber, once")
        subscriber = Subscriber(self, event.subscription, event.subscription.destination, self.service.is_before)
        queue = self.service.queues.join(subscriber)
        self._subscribers[event.subscription] = subscriber
        await self._confirm(event, queue.joined)

    def _unsubscribe(self, event: Unsubscribe) -> None:
        for delivery in event.unacknowledged:
            self.service.queues.returned(delivery)
        self._drop(event.subscription)
        self._done(event)

    def _drop(self, subscription: Subscription) -> None:
        subscriber = self._subscribers.pop(subscription, None)
        if subscriber is None:
            return
        if (task := self._replays.pop(subscription, None)) is not None:
            task.cancel()
        if subscriber.destination.startswith(QUEUE_PREFIX):
            self.service.queues.leave(subscriber)
            return
        self.service.hub.discard(subscriber)
        self.service.relay.leave(topic_of(subscriber.destination))

    # --- ACK and NACK ---

    def _settle(self, event: Ack | Nack) -> None:
        for delivery in event.deliveries:
            if isinstance(event, Ack):
                self.service.queues.acknowledged(delivery)
            else:
                self._not_consumed(delivery)
        self._done(event)

    def _not_consumed(self, delivery: Delivery) -> None:
        """NACK. A queue's message goes to whoever is next; a topic's is for each subscriber, so it comes here again."""
        if delivery.subscription.destination.startswith(TOPIC_PREFIX):
            self.send_tracked(delivery.subscription, [delivery.message], delivery.attempt + 1)
        else:
            self.service.queues.returned(delivery)

    # --- Small things ---

    def _user(self) -> User:
        if self.user is None:  # the session lets nothing through before CONNECT is answered
            raise StompError("not connected")
        return self.user
