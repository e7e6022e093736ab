"""One client's subscriptions: where each destination's messages come from, and what to release when one ends.

/topic/…          hub and relay, after a replay if one is requested
/topic/who.NAME   presence
/user/queue/…     hub and relay, under the user's own handle; `/user/queue/errors` belongs to the session
/queue/…          queues, which also settle what is acknowledged
/app/…            a handler, once
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager
from typing import Protocol

from chatlab.chat.app import Call, User
from chatlab.chat.delivery.hub import Outlet, Subscriber
from chatlab.chat.delivery.queues import MAX_REFUSALS
from chatlab.chat.delivery.replay import ReplayRequest, ReplayTurn
from chatlab.chat.destinations import (
    ERRORS,
    JSON,
    QUEUE_PREFIX,
    USER_PREFIX,
    canonical,
    fault_in,
    private_destination,
    room_destination,
    watched_room,
)
from chatlab.chat.service import ChatService, Client
from chatlab.chat.session.logs import ConnectionLog
from chatlab.errors import BrokerClosed, BrokerError, BrokerUnavailable, MessageRefused, StompError, over_budget
from chatlab.retry import Retry
from chatlab.stomp.events import Ack, Delivery, Event, Nack, Subscribe, Subscription, Unsubscribe
from chatlab.stomp.frames import MessageFrame, StompHeaders
from chatlab.stomp.session import ServerSession


class Owner(Outlet, Client, Protocol):
    """What the subscriptions need of their connection (connection.py)."""

    id: str
    log: ConnectionLog
    service: ChatService
    session: ServerSession

    def done(self, event: Event, headers: StompHeaders = ()) -> None:
        """Send RECEIPT, with these headers too, if the frame asked for one: it has been carried out."""

    def fail(self, event: Event, reason: str, field: str = "") -> None:
        """Report that the frame will not be carried out: on `/user/queue/errors`, or with ERROR."""

    def delay(self, event: Event, reason: str, field: str = "") -> None:
        """Send no RECEIPT yet; report the reason on `/user/queue/errors`."""

    def fail_afterwards(self, event: Event, reason: str) -> None:
        """Report a failure after the RECEIPT, in the same way as `fail`."""

    def fail_after_exception(self, event: Event, destination: str, error: Exception) -> None:
        """Log a handler's exception; tell the client without its details."""

    def may_use(self, destination: str) -> str:
        """Return "", or why a destination would exceed the limit on names."""

    def not_reading(self) -> AbstractContextManager[None]:
        """Suspend the heart-beat check while the client is not read."""


class Subscriptions:
    """The subscriptions of one connection that hold something to release when they end."""

    def __init__(self, connection: Owner) -> None:
        self._connection = connection
        self._service = connection.service
        self._subscribers: dict[Subscription, Subscriber] = {}
        self._replays: dict[Subscription, asyncio.Task[None]] = {}
        self._may_replay = asyncio.Semaphore(self._service.budgets.replays)
        self._turn = ReplayTurn()

    async def subscribe(self, event: Subscribe, user: User) -> None:
        """Carry out a SUBSCRIBE. Raise StompError if that is not possible."""
        subscription = event.subscription
        destination = subscription.destination = canonical(subscription.destination)
        if subscription.get("selector") is not None:
            raise StompError("selectors are not supported")
        if not self._service.access.may_subscribe(user, destination):
            raise StompError(f"access refused: {user.name!r} may not subscribe to {destination!r}")
        subject = self._subject_of(destination)
        if subject is not None and not self._service.access.may_subscribe(user, subject):
            raise StompError(f"access refused: {user.name!r} may not subscribe to {destination!r}, about {subject!r}")
        if self._service.app.takes(destination):
            await self._answer_once(event, user)
        elif fault := fault_in(destination):
            raise StompError(fault)
        elif self._exceeds_limit(destination):
            most = self._service.budgets.subscriptions_per_destination
            reason = f"too many subscriptions to {destination!r}: at most {most} are allowed"
            raise over_budget("subscriptions-per-destination", reason)
        elif destination == ERRORS:
            self._connection.done(event)  # its messages come from this session, never from the broker
        elif destination.startswith(USER_PREFIX):  # the user's own queue is not counted as a name
            await self._join_topic(event, _under_owner(destination, user))
        elif refused := self._connection.may_use(destination):
            self._connection.fail(event, f"refused: {refused}")
        elif destination.startswith(QUEUE_PREFIX):
            await self._join_queue(event)
        elif watched_room(destination) is not None:
            self._watch(event)
        else:
            await self._join_topic(event, destination)

    def unsubscribe(self, event: Unsubscribe) -> None:
        """Carry out an UNSUBSCRIBE."""
        self._drop(event.subscription)  # first, or the messages it returns would come back to it
        for delivery in event.unacknowledged:
            self._service.queues.returned(delivery)
        self._connection.done(event)

    def end_all(self) -> None:
        """Drop all subscriptions: the client has disconnected."""
        for subscription in list(self._subscribers):
            self._drop(subscription)

    def settle(self, event: Ack | Nack) -> None:
        """Carry out an ACK or NACK."""
        for delivery in event.deliveries:
            if isinstance(event, Ack):
                self._service.queues.acknowledged(delivery)
            else:
                self._redeliver_or_drop(delivery)
        self._connection.done(event)

    def _redeliver_or_drop(self, delivery: Delivery) -> None:
        # A queue's message goes to another subscriber; any other message is for this subscriber, so it is sent again.
        subscription = delivery.subscription
        if subscription.destination.startswith(QUEUE_PREFIX):
            self._service.queues.refused(delivery)
        elif delivery.attempt < MAX_REFUSALS:
            self._connection.send_tracked(subscription, [delivery.message], delivery.attempt + 1)
        else:
            reason = f"refused {delivery.attempt} times"
            self._connection.log.warning("message dropped", extra={"reason": reason, "message_id": delivery.message.id})

    def _exceeds_limit(self, destination: str) -> bool:
        """Return whether this client has more subscriptions to a destination than one connection may have."""
        same = sum(each.destination == destination for each in self._connection.session.subscriptions.values())
        return same > self._service.budgets.subscriptions_per_destination

    def _subject_of(self, destination: str) -> str | None:
        """Return the destination whose contents another one reveals: for a who-list, its room."""
        room = watched_room(destination)
        return room_destination(room) if room is not None else self._service.app.subject_of(destination)

    # --- Each kind of destination ---

    async def _answer_once(self, event: Subscribe, user: User) -> None:
        """Send one MESSAGE with the handler's result; nothing ever follows it."""
        subscription = event.subscription
        destination = subscription.destination
        if not self._service.app.handles_subscription(destination):
            raise StompError(f"no handler answers subscriptions to {destination!r}")
        try:
            body = await self._service.app.call_subscription(Call(destination, user, subscription.headers))
        except MessageRefused as error:
            return self._connection.fail(event, str(error), field=error.field)
        except Exception as error:
            return self._connection.fail_after_exception(event, destination, error)
        name = f"{destination[1:]}/{self._connection.id}-{event.number}"
        message = MessageFrame(destination, name, body, [("content-type", JSON)])
        self._connection.send_tracked(subscription, [message])
        return self._connection.done(event)

    async def _join_topic(self, event: Subscribe, destination: str) -> None:
        subscription = event.subscription
        wanted = ReplayRequest.parse(subscription, self._service.broker)
        start: StompHeaders = ()
        if event.receipt is not None and wanted is None and subscription.get("history") is not None:
            start = await self._position(destination)
            if not self._exists(subscription):
                return  # the client has disconnected
        subscriber = self._subscriber(subscription, destination)
        if wanted is not None:
            subscriber.hold()
        followed = self._service.relay.follow(self._service.topic_of(destination))
        self._service.hub.add(subscriber)
        self._service.entered(destination, self._connection)
        await self._confirm(event, followed.ready, start)
        if wanted is not None and subscription in self._subscribers:
            work = self._replay_in_turn(event, subscriber, wanted)
            self._replays[subscription] = self._service.tasks.start(work, name=f"replay of {destination}")

    async def _position(self, destination: str) -> StompHeaders:
        """Return the header that says after which record a subscription to a topic starts, if that can be found out.

        A client that has received no message yet resumes from there. Read before the subscription joins, so that
        whatever comes after that record is either delivered live or found after it.
        """
        try:
            with self._connection.not_reading():
                async with asyncio.timeout(self._service.patience):
                    position = await self._service.replays.position(destination)
        except (TimeoutError, BrokerError):
            return ()
        return () if position is None else (("last-id", position),)

    def _exists(self, subscription: Subscription) -> bool:
        return self._connection.session.subscriptions.get(subscription.id) is subscription

    async def _join_queue(self, event: Subscribe) -> None:
        if ReplayRequest.parse(event.subscription, self._service.broker) is not None:
            raise StompError("a queue has no history: each of its messages goes to one subscriber")
        subscriber = self._subscriber(event.subscription, event.subscription.destination)
        queue = self._service.queues.join(subscriber)
        await self._confirm(event, queue.joined)
        queue.admit(subscriber)

    def _watch(self, event: Subscribe) -> None:
        subscriber = self._subscriber(event.subscription, event.subscription.destination)
        self._service.hub.add(subscriber)
        self._service.presence.watch(watched_room(subscriber.destination) or "", subscriber)
        self._connection.done(event)

    def _subscriber(self, subscription: Subscription, destination: str) -> Subscriber:
        subscriber = Subscriber(self._connection, subscription, destination, self._service.is_before)
        self._subscribers[subscription] = subscriber
        return subscriber

    async def _confirm(self, event: Subscribe, ready: asyncio.Event, headers: StompHeaders = ()) -> None:
        """Send RECEIPT once the broker is being read, so that nothing published afterwards is missed."""
        try:
            if not ready.is_set():
                with self._connection.not_reading():
                    async with asyncio.timeout(self._service.patience):
                        await ready.wait()
        except TimeoutError:
            self._connection.delay(event, "the broker does not answer; the subscription starts when it does")
        else:
            self._connection.done(event, headers)

    async def _replay_in_turn(self, event: Subscribe, subscriber: Subscriber, wanted: ReplayRequest) -> None:
        if self._may_replay.locked():
            self._service.delays.count("replays")
        async with self._may_replay:
            await self._replay(event, subscriber, wanted)

    async def _replay(self, event: Subscribe, subscriber: Subscriber, wanted: ReplayRequest) -> None:
        log = self._connection.log
        replays = self._service.replays
        missed = replays.of(subscriber, wanted)
        retry = Retry(
            on=BrokerUnavailable, on_failure=lambda error, _: log.warning("replay waits", extra={"reason": str(error)})
        )
        try:
            async for attempt in retry:
                with attempt:
                    await replays.run(missed, self._turn)
        except BrokerClosed:
            pass  # the instance is stopping
        except BrokerError as error:
            log.warning("replay failed", extra={"reason": str(error)})
            self._give_up_replay(event, subscriber, str(error))
        except Exception as error:
            log.error("replay failed", exc_info=error)
            self._give_up_replay(event, subscriber, "the server failed")

    def _give_up_replay(self, event: Subscribe, subscriber: Subscriber, reason: str) -> None:
        """Go live without the missed records, and report that: the RECEIPT has been sent already."""
        subscriber.gap = True
        subscriber.release(self._service.hub.fanout)
        self._service.hub.settle(subscriber)
        destination = event.subscription.destination
        self._connection.fail_afterwards(event, f"the missed messages of {destination!r} cannot be read: {reason}")

    def _drop(self, subscription: Subscription) -> None:
        subscriber = self._subscribers.pop(subscription, None)
        if subscriber is None:
            return None
        if (task := self._replays.pop(subscription, None)) is not None:
            task.cancel()
        destination = subscriber.destination
        if destination.startswith(QUEUE_PREFIX):
            return self._service.queues.leave(subscriber)
        self._service.hub.discard(subscriber)
        if (room := watched_room(destination)) is not None:
            return self._service.presence.unwatch(room, subscriber)
        self._service.relay.leave(self._service.topic_of(destination))
        return self._service.left(destination, self._connection)


def _under_owner(destination: str, user: User) -> str:
    """Return a private queue under its owner's handle. Raise StompError if it names another user's."""
    if not destination.startswith(USER_PREFIX):
        return destination
    if not destination.startswith(USER_PREFIX + QUEUE_PREFIX[1:]):
        raise StompError(f"access refused: {destination!r} is not yours; your own queues are /user/queue/NAME")
    return private_destination(user.handle, destination)
