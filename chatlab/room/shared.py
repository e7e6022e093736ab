"""One room on several servers: texts go to a broker, and each server delivers to its members what the broker sends.

    member ── text ──► its server ──► broker ──┬──► server 1 ──► its members, the sender among them
                                               └──► server 2 ──► its members

The sender's own text comes back through the broker too: all members receive texts by the same path, and so in the same
order. Everything else is in `room.py`; any engine behind `brokers/port.py` works. Notices that a member joined or left
stay on that member's server: whatever arrives from the broker is shown as a text, no matter which program published it.
Names are unique on each server; a member of another server with a name used here is shown as "Ana (another server)".

Left out: history, and several rooms. See `chat/` for those.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from typing import TypedDict, Unpack

from chatlab.brokers.port import SURVIVES, Broker, KeepsHistory, Reader, crash_risk
from chatlab.errors import BrokerClosed, BrokerError, SubscriptionLost
from chatlab.limits import RateLimit
from chatlab.net.connection_limits import ConnectionLimits
from chatlab.net.fanout import SlowReaderPolicy
from chatlab.retry import Backoff, Retry
from chatlab.room.lines import TEXT, TEXT_FROM, one_line, parts_of
from chatlab.room.room import Member, Room
from chatlab.room.server import RoomServer
from chatlab.room.server import start as start_room
from chatlab.tasks import Tasks

__all__ = ["RoomOptions", "SharedRoom", "start"]

logger = logging.getLogger("chatlab.room")

TOPIC = "room"
MAX_QUEUED = 1000  # texts waiting to be published; beyond that, members are asked to try again
MAX_PENDING = 4 * MAX_QUEUED  # lines remembered until they come back
BACKOFF = Backoff(first=0.1, longest=2.0)  # between attempts to subscribe again


class SharedRoom(Room):
    """This server's part of a shared room: its own members, a task that publishes and a task that reads."""

    def __init__(self, policy: SlowReaderPolicy, rate: RateLimit | None, broker: Broker, topic: str) -> None:
        super().__init__(policy, rate)
        self._broker = broker
        self._topic = topic
        self._outgoing: asyncio.Queue[tuple[Member, str]] = asyncio.Queue(MAX_QUEUED)
        self._tasks = Tasks(logger)
        self._disconnected = False  # from the broker, as far as reading goes
        self._pending: Counter[str] = Counter()  # our members' lines that have not come back yet
        self._newest = ""  # the id of the last record received; "" before the first, or if the engine gives none
        self._missed = False  # whether records may have been missed since then

    async def open(self) -> None:
        """Start reading and publishing. Raise `BrokerUnavailable` if the broker does not answer."""
        subscription = await self._broker.subscribe(self._topic)
        self._tasks.start(self._read(subscription), name="room: read from the broker", on_failure=self._on_failure)
        self._tasks.start(self._write(), name="room: publish to the broker", on_failure=self._on_failure)

    async def aclose(self) -> None:
        """Stop reading and publishing. The broker's owner closes the broker."""
        await self._tasks.aclose()
        await super().aclose()

    def _on_failure(self, error: Exception) -> None:
        self.notify("this server has a fault and no longer reaches the others")

    def pass_on(self, member: Member, line: str) -> None:
        """Queue a line from `member` for the broker, which delivers it to every server."""
        try:
            self._outgoing.put_nowait((member, line))
        except asyncio.QueueFull:
            self.send_error(member, "the broker is behind; try again in a moment")
        else:
            self._pending[line] += 1
            if len(self._pending) > MAX_PENDING:  # some were lost and will never come back
                del self._pending[next(iter(self._pending))]

    async def _write(self) -> None:
        while True:
            queued = [await self._outgoing.get()]
            while not self._outgoing.empty():
                queued.append(self._outgoing.get_nowait())
            # Started in order and awaited together, so that an engine that pipelines sends them in one write.
            publishing = [self._broker.publish(self._topic, line.encode()) for _, line in queued]
            for (member, _), outcome in zip(
                queued, await asyncio.gather(*publishing, return_exceptions=True), strict=True
            ):
                if isinstance(outcome, BrokerError):
                    logger.warning("not published: %s", outcome)
                    if outcome.outcome_unknown:
                        error = "the broker does not answer; it may still be delivered"
                        self.send_error(member, error, "not confirmed")
                    else:
                        self.send_error(member, "the broker does not answer")
                elif isinstance(outcome, BaseException):
                    raise outcome

    async def _read(self, subscription: Reader) -> None:
        retry = Retry(on=BrokerError, backoff=BACKOFF, on_failure=self._lost)
        try:
            async for attempt in retry:
                with attempt:
                    if self._disconnected:
                        subscription = await self._resubscribe()
                    while batch := await subscription.batch():
                        retry.reset()
                        self._newest = batch[-1].id
                        for record in batch:
                            self.deliver(self._line_to_show(record.body.decode(errors="replace")))
        except BrokerClosed as closed:
            self._lost(closed)

    def _line_to_show(self, line: str) -> str:
        """Return a line from the broker as shown here: always a text, and never under the name of a member here.

        Another program may publish to the topic too, so only lines that this server sent itself are shown unchanged.
        """
        if self._pending[line]:
            self._pending[line] -= 1
            if not self._pending[line]:
                del self._pending[line]
            return line
        line = one_line(line)
        if not line.startswith((TEXT, TEXT_FROM)):
            return TEXT + line
        parts = parts_of(line)
        if parts.sender is None or not self.is_taken(parts.sender):
            return line
        return f"{TEXT_FROM}{parts.sender} (another server): {parts.text}"

    async def _resubscribe(self) -> Reader:
        """Resume after the last record received, or from now on if the engine keeps no history; notify the members."""
        if self._newest and isinstance(self._broker, KeepsHistory):
            subscription = await self._broker.subscribe(self._topic, after=self._newest)
        else:
            subscription = await self._broker.subscribe(self._topic)
            self._missed = True
        self._disconnected = False
        missing = "; messages sent meanwhile may be missing" if self._missed else ""
        self._missed = False
        self.notify(f"the other servers are reachable again{missing}")
        return subscription

    def _lost(self, error: Exception, wait: float | None = None) -> None:
        if isinstance(error, SubscriptionLost) and error.resume is not None:  # records were deleted: skip them
            self._newest, self._missed = error.resume, True
        logger.error("cannot read from the broker%s: %s", "" if wait is None else f", next try in {wait:.1f} s", error)
        if not self._disconnected:
            self._disconnected = True
            self.notify("the other servers cannot be reached now")


class RoomOptions(TypedDict, total=False):
    """The options of `room.start` that a shared room takes too: all but `room`. They are explained there."""

    host: str
    port: int
    origins: Sequence[str]
    host_names: Sequence[str]
    code: str | None
    policy: SlowReaderPolicy | None
    rate: RateLimit | None
    max_size: int
    compression: str | None
    ping_interval: float
    ping_timeout: float
    send_buffer: int | None
    limits: ConnectionLimits
    trusted_proxies: Sequence[str]


async def start(broker: Broker, *, topic: str = TOPIC, **options: Unpack[RoomOptions]) -> RoomServer:
    """Start a server of the room shared by all servers with this broker and `topic`.

    `broker` must have been started; its owner closes it. `options` are those of `room.start`. Raise `BrokerUnavailable`
    if the broker cannot be read.
    """
    shared: list[SharedRoom] = []

    def make(policy: SlowReaderPolicy, rate: RateLimit | None) -> Room:
        shared.append(SharedRoom(policy, rate, broker, topic))
        return shared[0]

    server = await start_room(room=make, **options)
    try:
        await shared[0].open()
        risk = await crash_risk(broker)
        logger.log(logging.WARNING if risk else logging.INFO, "%s", risk or SURVIVES)
    except BaseException:
        await server.aclose()
        raise
    return server
