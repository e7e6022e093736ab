"""One instance of the chat without its sockets: hub, relay, queues and broker, and the connections.

The server (endpoint/server.py) opens connections (session/connection.py); this is what they share.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from math import nan
from typing import Protocol, TypedDict

from chatlab.brokers.port import (
    SURVIVES,
    UNKNOWN,
    Broker,
    Deduplicates,
    KeepsHistory,
    Pipelines,
    Record,
    crash_risk,
    why_refused,
)
from chatlab.chat.access import Access, everything
from chatlab.chat.app import Application, User
from chatlab.chat.budgets import Budgets, Names
from chatlab.chat.delivery.hub import Hub, Subscriber
from chatlab.chat.delivery.presence import Presence
from chatlab.chat.delivery.queues import Queues
from chatlab.chat.delivery.relay import Relay
from chatlab.chat.delivery.replay import Replays
from chatlab.chat.destinations import PUBLIC, ChatRecord, destination_of, record_of, room_of, topics_on
from chatlab.chat.directory import Directory
from chatlab.chat.jobs import MakeWork, jobs_in
from chatlab.chat.metrics import ChatMetrics, budgets_page, exposition
from chatlab.chat.rooms import chat_application
from chatlab.chat.workers import Workers
from chatlab.limits import RateLimit
from chatlab.logs.throttled import ThrottledLog
from chatlab.net.connection_limits import ConnectionSlots, Refusals
from chatlab.net.fanout import Fanout, SlowReaderPolicy
from chatlab.net.memory_limit import HeldOctets
from chatlab.stomp.frames import Limits
from chatlab.tasks import Tasks

logger = logging.getLogger("chatlab.chat")

HEART_BEAT = (10_000, 10_000)
PATIENCE = 10.0
CONNECT_TIMEOUT = 10.0


class ChatOptions(TypedDict, total=False):
    """The options of an instance, by the keyword of `start` and `ChatService`; each is optional."""

    app: Application | None
    """The destinations that clients can send to; by default the rooms of chat/rooms.py."""
    access: Access | None
    """Who may connect, subscribe and send; by default everybody, as a guest."""
    limits: Limits | None
    """The limits on a STOMP frame; by default those that follow from `budgets`."""
    slow_readers: SlowReaderPolicy | None
    """How much may wait for a client that does not read, and for how long, before it is disconnected."""
    heart_beat: tuple[int, int]
    """The server's `heart-beat` header, in milliseconds: the interval it offers, and the one it asks for."""
    patience: float
    """Seconds that a SUBSCRIBE may wait for the broker; after that, the delay is reported and no RECEIPT is sent."""
    rate: RateLimit | None
    """The messages that one client may send per second; None for no limit."""
    connect_timeout: float
    """Seconds in which a client must send CONNECT."""
    jobs: Sequence[MakeWork]
    """The work to do once for each message of `job_rooms`, shared among all instances."""
    job_rooms: Sequence[str]
    """The rooms whose messages the `jobs` receive; by default the public room."""
    budgets: Budgets | None
    """The limits on connections, subscriptions and names."""


class Client(Protocol):
    """One connection, as the service and the subscriptions see it (connection.py has the rest)."""

    user: User | None  # None before CONNECT

    async def flushed(self) -> None:
        """Return when the broker has what this client has sent."""

    def shut_down(self, reason: str) -> None:
        """Start a polite close."""

    def end(self) -> None:
        """Release everything: the connection has closed."""


class ChatService:
    """What all connections of one instance share."""

    def __init__(
        self,
        broker: Broker,
        *,
        app: Application | None = None,
        access: Access | None = None,
        limits: Limits | None = None,
        slow_readers: SlowReaderPolicy | None = None,
        heart_beat: tuple[int, int] = HEART_BEAT,
        patience: float = PATIENCE,
        rate: RateLimit | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
        jobs: Sequence[MakeWork] = (),
        job_rooms: Sequence[str] = (PUBLIC,),
        budgets: Budgets | None = None,
    ) -> None:
        self.id = uuid.uuid4().hex[:8]
        self.broker = broker
        # Checked once: an isinstance check of a protocol takes longer than a publish.
        self._pipelines = broker if isinstance(broker, Pipelines) else None
        self._deduplicates = broker if isinstance(broker, Deduplicates) else None
        self._keeps_history = broker if isinstance(broker, KeepsHistory) else None
        self.topic_of = topics_on(broker)
        self.app = app or chat_application()
        self.access = access or Access()
        self.asks_may_send = self.access.may_send is not everything  # if False, a message is spared two calls
        self.directory = Directory(self.access.handle_key, self.access.names)
        self.budgets = budgets or Budgets()
        self.limits = limits or self.budgets.stomp_limits()
        self.heart_beat = heart_beat
        self.patience = patience  # seconds a SUBSCRIBE may wait for the broker; a SEND waits as long as the broker does
        self.rate = rate
        self.connect_timeout = connect_timeout
        self.tasks = Tasks(logger)
        self.fanout = Fanout(slow_readers)
        self.hub = Hub(self.fanout)
        self.replays = Replays(self.hub, broker)
        self.relay = Relay(broker, self._deliver, self._lost, restarted=self._restarted, tasks=self.tasks)
        self.queues = Queues(broker, self.id, self.tasks)
        self.presence = Presence(broker, self.id, self._send, self.tasks, send_to=self._send_to)
        works = [make(broker, self.presence) for make in jobs]
        self.workers = Workers(broker, self.id, jobs_in(job_rooms, works), self.tasks) if works else None
        self.metrics = ChatMetrics()
        self.held = HeldOctets(logger)
        self.throttled_log = ThrottledLog(logger)  # for lines that any client can cause in any number
        self.sending_octets = 0  # of all clients, on their way to the broker
        self.frames = 0  # of all clients: tells each whether others are sending too
        self.refusals = Refusals(logger)
        self.delays = Refusals(logger, event="delayed: over budget")
        self.places = ConnectionSlots(self.budgets.places, self.budgets.connections_per_address)
        self.sockjs_places = ConnectionSlots(0, self.budgets.sockjs_sessions_per_address)
        self.principals = ConnectionSlots(0, self.budgets.connections_per_principal)
        self.names = Names(self.budgets.names, self.budgets.names_per_hour, self._is_read)
        self._names_timer: asyncio.TimerHandle | None = None
        self.connections: dict[Client, None] = {}  # a dict as an ordered set
        self._read: dict[str, Counter[str]] = {}  # by topic: its destinations, and the subscriptions to each
        self.draining = False
        self.refused = ""  # why the broker refuses new clients, as of the last check
        self.crash_risk = UNKNOWN  # what a crash of the broker may lose, as of the last check

    @property
    def knows_repeats(self) -> bool:
        """Whether a message that is sent again with the same key is stored only once."""
        return self._deduplicates is not None

    async def ready(self) -> None:
        """Wait until the jobs are reading: from then on they receive every message of their rooms."""
        if self.workers is not None:
            await self.workers.ready()

    def publish(
        self, topic: str, body: bytes, key: str | None, later: Callable[[asyncio.Future[str]], None] | None = None
    ) -> asyncio.Future[str]:
        """Publish a record, once per key. The future gets its id, or `BrokerUnavailable`.

        It is done already if the engine stores at once, as the memory broker does. If not, `later` is called with it
        when it is. Records published to one topic arrive in the order of these calls, if the engine keeps an order.
        """
        started = time.perf_counter()
        if self._pipelines is not None:
            publishing = self._pipelines.begin_publish(topic, body, key)
        else:
            publishing = asyncio.get_running_loop().create_future()
            self.tasks.start(self._publish_in_task(publishing, topic, body, key), name=f"publishing to {topic}")
        if publishing.done():
            self._count(started, publishing)
        else:  # a second callback would cost the event loop as much again
            publishing.add_done_callback(partial(self._published, started, later))
        return publishing

    async def _publish_in_task(self, publishing: asyncio.Future[str], topic: str, body: bytes, key: str | None) -> None:
        try:
            if key is not None and self._deduplicates is not None:
                id = await self._deduplicates.publish_once(topic, body, key)
            else:
                id = await self.broker.publish(topic, body)
        except Exception as error:  # it belongs to the sender, which awaits the future
            if not publishing.done():
                publishing.set_exception(error)
        else:
            if not publishing.done():
                publishing.set_result(id)
        finally:
            publishing.cancel()  # if this task was cancelled

    def _published(
        self, started: float, later: Callable[[asyncio.Future[str]], None] | None, publishing: asyncio.Future[str]
    ) -> None:
        self._count(started, publishing)
        if later is not None:
            later(publishing)

    def _count(self, started: float, publishing: asyncio.Future[str]) -> None:
        if publishing.cancelled():
            return
        if publishing.exception() is None:
            self.metrics.published += 1
            self.metrics.publishing.observe(time.perf_counter() - started)
        else:
            self.metrics.unavailable += 1

    def is_before(self, one: str, other: str) -> bool:
        """Return whether one record id comes before another; False if the engine cannot tell."""
        return self._keeps_history is not None and self._keeps_history.is_before(one, other)

    def entered(self, destination: str, connection: Client) -> None:
        """Record that a connection has subscribed to a topic; if it is a room, the user is now present there."""
        self._read.setdefault(self.topic_of(destination), Counter())[destination] += 1
        if (room := room_of(destination)) is not None and connection.user is not None:
            self.presence.enter(room, connection.user)

    def left(self, destination: str, connection: Client) -> None:
        """Record that a connection has unsubscribed from a topic."""
        topic = self.topic_of(destination)
        self._read[topic] -= Counter([destination])
        if not self._read[topic]:
            del self._read[topic]
        if (room := room_of(destination)) is not None and connection.user is not None:
            self.presence.leave(room, connection.user)

    def use_name(self, topic: str, by: str) -> str:
        """Use a topic that has not been in use here recently. Return "", or why it would exceed a limit."""
        if self._names_timer is None:
            self._schedule_rotation()
        exceeded = self.names.use(topic, by)
        if not exceeded:
            return ""
        self.refusals.count(exceeded, whose=by)
        if exceeded == "names":
            return "too many rooms, topics and queues are in use here (limit names): use an existing one, or wait"
        most = self.budgets.names_per_hour
        return f"more than {most} new rooms, topics and queues within an hour (limit names-per-hour): use existing ones"

    def _schedule_rotation(self) -> None:
        self._names_timer = asyncio.get_running_loop().call_later(Names.ROTATE_SECONDS, self._rotate_names)

    def _rotate_names(self) -> None:
        self.names.rotate()
        self._schedule_rotation()

    def _is_read(self, topic: str) -> bool:
        """Return whether a topic has a subscriber here."""
        return self.relay.reads(topic) or self.queues.reads(topic) or self.hub.subscribers(destination_of(topic)) > 0

    async def drain(self, reason: str, seconds: float) -> None:
        """Close all connections once the broker has what they sent, waiting for it at most `seconds`."""
        self.draining = True
        deadline = asyncio.get_running_loop().time() + seconds
        try:
            async with asyncio.timeout_at(deadline):
                await asyncio.gather(*(connection.flushed() for connection in list(self.connections)))
        except TimeoutError:
            logger.warning("messages were still on their way to the broker after %g s", seconds)
        for connection in list(self.connections):
            connection.shut_down(reason)
        self.fanout.flush()

    async def aclose(self) -> None:
        """Stop reading from the broker, which stays open: it belongs to the caller."""
        for connection in list(self.connections):
            connection.end()
        if self._names_timer is not None:
            self._names_timer.cancel()
        if self.workers is not None:
            await self.workers.aclose()
        await self.presence.aclose()
        await self.queues.aclose()
        await self.relay.aclose()
        await self.tasks.aclose()
        self.fanout.close()

    def why_not_ready(self) -> str:
        """Return why no client should be sent here now; "" if there is no reason."""
        if self.draining:
            return "draining: this instance is stopping"
        if not self.broker.connected:
            return "the broker does not answer"
        if self.tasks.fault:
            return self.tasks.fault
        unread = len(self.relay.unready())
        return f"topics not being read: {unread}" if unread else ""

    async def why_not_served(self) -> str:
        """Return what `why_not_ready` does; also check whether the broker would serve a new client."""
        if reason := self.why_not_ready():
            return reason
        self.refused = await why_refused(self.broker)
        return self.refused

    async def log_crash_risk(self) -> None:
        """Log what a crash of the broker may lose: at the start, before anybody has relied on it."""
        await self.update_crash_risk()
        logger.log(logging.WARNING if self.crash_risk else logging.INFO, "%s", self.crash_risk or SURVIVES)

    async def update_crash_risk(self) -> None:
        """Ask the broker again: it may have been replaced by one with other settings."""
        self.crash_risk = await crash_risk(self.broker)

    def readiness(self) -> str:
        """Return the answer to a balancer while clients may be sent here."""
        engine_may_lose = self.crash_risk and not getattr(self.broker, "in_process", False)
        return f"ready\n{self.crash_risk}" if engine_may_lose else "ready"

    def metrics_page(self) -> str:
        """Return the counters and gauges of this instance, for Prometheus."""
        fanout, metrics = self.fanout.counters, self.metrics
        tallies = list(self.workers.tallies.values()) if self.workers is not None else []
        counters = {
            "connections_opened_total": metrics.opened,
            "messages_published_total": metrics.published,
            "messages_unavailable_total": metrics.unavailable,
            "messages_refused_total": metrics.refused,
            "messages_relayed_total": self.hub.messages,
            "deliveries_total": self.hub.deliveries,
            "writes_total": fanout.writes,
            "written_bytes_total": fanout.bytes,
            "slow_readers_closed_total": fanout.slow,
            "slow_readers_aborted_total": fanout.aborted,
            "clients_limited_total": metrics.limited,
            "frames_received_total": self.frames,
            "clients_given_up_total": self.held.dropped,
            "jobs_done_total": sum(tally.done for tally in tallies),
            "jobs_failed_total": sum(tally.failed for tally in tallies),
        }
        gauges = {
            "connections": len(self.connections),
            "topics": len(self.relay.topics()),
            "buffered_bytes": self.fanout.buffered(),
            "held_bytes": self.held.total,
            "publishing_bytes": self.sending_octets,
            "jobs_waiting": sum(len(tally.waiting) for tally in tallies),
            "connections_addresses": self.places.addresses,
            "sockjs_sessions": self.sockjs_places.in_use,
            "names": len(self.names),
            "ready": float(not (self.why_not_ready() or self.refused)),
            "broker_survives_crash": nan if self.crash_risk.startswith(UNKNOWN) else float(not self.crash_risk),
        }
        page = exposition(counters, gauges, {"publish_seconds": metrics.publishing})
        return page + budgets_page(self.budgets.by_name(), self.refusals.counts, self.delays.counts)

    def _deliver(self, topic: str, deliveries: Sequence[Record]) -> None:
        if len(deliveries) == 1:  # a single message: the common case, and worth a fast path
            if (record := record_of(deliveries[0])) is not None:
                self.hub.dispatch(record.destination, [record])
            return
        records = [record for record in map(record_of, deliveries) if record is not None]
        for destination, same in groupby(records, key=_destination):
            self.hub.dispatch(destination, list(same))

    def _send(self, record: ChatRecord) -> None:
        self.hub.dispatch(record.destination, [record])

    def _send_to(self, subscriber: Subscriber, record: ChatRecord) -> None:
        subscriber.send(self.fanout, [record])

    def _lost(self, topic: str) -> None:
        for destination in self._destinations_of(topic):
            self.hub.mark_gap(destination)

    def _restarted(self, topic: str) -> None:
        for destination in self._destinations_of(topic):
            self.hub.forget_ids(destination)

    def _destinations_of(self, topic: str) -> list[str]:
        return list(self._read.get(topic, ()))


def _destination(record: ChatRecord) -> str:
    return record.destination
