"""One room on several servers: what a member says goes to a broker, and what the broker delivers goes to the members.

    member ── text ──► its server ──► broker ──┬──► server 1 ──► its members, the sender among them
                                               └──► server 2 ──► its members

The sender's own text comes back through the broker too: one way for everybody, and so one order for everybody. All else
is `room.py`; any engine behind `brokers/port.py` will do. Notices of who came and left stay with the server they
happened on: what comes from the broker is always a text, whoever wrote it there. Names are taken once on a server; a
namesake on another server is shown as "Ana (another server)". Left out: history, and rooms with names. That is what
`chat/` is for.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from typing import TypedDict, Unpack

from chatlab.brokers.port import SURVIVES, Broker, KeepsHistory, Reader, crash_risk
from chatlab.errors import BrokerClosed, BrokerError, SubscriptionLost
from chatlab.net.fanout import SlowReaderPolicy
from chatlab.net.places import PlaceLimits
from chatlab.retry import Backoff, Retry
from chatlab.room.lines import TEXT, TEXT_FROM, one_line, parts_of
from chatlab.room.room import Member, RateLimit, Room
from chatlab.room.server import RoomServer
from chatlab.room.server import start as start_room
from chatlab.tasks import Tasks

__all__ = ["RoomOptions", "SharedRoom", "start"]

logger = logging.getLogger("chatlab.room")

TOPIC = "room"
WAITING = 1000  # texts that may wait for the broker before members are told to wait, too
MAX_OWN = 4 * WAITING  # lines remembered until they come back
BACKOFF = Backoff(first=0.1, longest=2.0)  # between attempts to hear the broker again


class SharedRoom(Room):
    """This server's part of the room: its own members, and two tasks, one to the broker and one from it."""

    def __init__(self, policy: SlowReaderPolicy, rate: RateLimit | None, broker: Broker, topic: str) -> None:
        super().__init__(policy, rate)
        self._broker = broker
        self._topic = topic
        self._outgoing: asyncio.Queue[tuple[Member, str]] = asyncio.Queue(WAITING)
        self._tasks = Tasks(logger)
        self._deaf = False  # the broker is not being read
        self._own: Counter[str] = Counter()  # lines of our members that are to come back
        self._newest = ""  # the id of the last record heard; "" before the first, or where the engine gives none
        self._missed = False  # whether records may have passed by since then

    async def open(self) -> None:
        """Start to read and to write. Raises `BrokerUnavailable`."""
        subscription = await self._broker.subscribe(self._topic)
        self._tasks.start(self._hear(subscription), name="room: hear the other servers", on_failure=self._failed)
        self._tasks.start(self._speak(), name="room: speak to the other servers", on_failure=self._failed)

    async def aclose(self) -> None:
        """Stop; the broker is its owner's to close."""
        await self._tasks.aclose()
        await super().aclose()

    def _failed(self, error: Exception) -> None:
        self.notify("this server has a fault and no longer reaches the others")

    def pass_on(self, member: Member, line: str) -> None:
        """Hand what `member` said to the broker, from where it comes back to everybody."""
        try:
            self._outgoing.put_nowait((member, line))
        except asyncio.QueueFull:
            self.tell(member, "the broker is behind; try again in a moment")
        else:
            self._own[line] += 1
            if len(self._own) > MAX_OWN:  # some have not come back, and will not
                del self._own[next(iter(self._own))]

    async def _speak(self) -> None:
        while True:
            said = [await self._outgoing.get()]
            while not self._outgoing.empty():
                said.append(self._outgoing.get_nowait())
            # Begun in order and awaited together: an engine that can sends them in one go.
            publishing = [self._broker.publish(self._topic, line.encode()) for _, line in said]
            for (member, _), outcome in zip(
                said, await asyncio.gather(*publishing, return_exceptions=True), strict=True
            ):
                if isinstance(outcome, BrokerError):
                    logger.warning("not published: %s", outcome)
                    if outcome.outcome_unknown:
                        self.tell(member, "the broker does not answer; it may still be delivered", "not confirmed")
                    else:
                        self.tell(member, "the broker does not answer")
                elif isinstance(outcome, BaseException):
                    raise outcome

    async def _hear(self, subscription: Reader) -> None:
        retry = Retry(on=BrokerError, backoff=BACKOFF, on_failure=self._lost)
        try:
            async for attempt in retry:
                with attempt:
                    if self._deaf:
                        subscription = await self._subscribe_again()
                    while batch := await subscription.batch():
                        retry.reset()
                        self._newest = batch[-1].id
                        for delivery in batch:  # not all of them need be ours: another program may write to the topic
                            self.deliver(self._heard(delivery.body.decode(errors="replace")))
        except BrokerClosed as closed:
            self._lost(closed)

    def _heard(self, line: str) -> str:
        """The line as it is shown here: a text always, and with a name that no member here can be taken for."""
        if self._own[line]:
            self._own[line] -= 1
            if not self._own[line]:
                del self._own[line]
            return line
        line = one_line(line)
        if not line.startswith((TEXT, TEXT_FROM)):
            return TEXT + line
        said = parts_of(line)
        if said.sender is None or not self.is_taken(said.sender):
            return line
        return f"{TEXT_FROM}{said.sender} (another server): {said.text}"

    async def _subscribe_again(self) -> Reader:
        """Subscribe where we left off, or from now on if the engine keeps nothing; tell the members which it was."""
        if self._newest and isinstance(self._broker, KeepsHistory):
            subscription = await self._broker.subscribe(self._topic, after=self._newest)
        else:
            subscription = await self._broker.subscribe(self._topic)
            self._missed = True
        self._deaf = False
        missing = "; what they said meanwhile may be missing" if self._missed else ""
        self._missed = False
        self.notify(f"the other servers are heard again{missing}")
        return subscription

    def _lost(self, error: Exception, wait: float | None = None) -> None:
        if isinstance(error, SubscriptionLost) and error.resume is not None:  # records are gone: go on after them
            self._newest, self._missed = error.resume, True
        logger.error(
            "nothing heard from the broker%s: %s", "" if wait is None else f", next try in {wait:.1f} s", error
        )
        if not self._deaf:
            self._deaf = True
            self.notify("the other servers cannot be heard now")


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
    limits: PlaceLimits
    trusted_proxies: Sequence[str]


async def start(broker: Broker, *, topic: str = TOPIC, **options: Unpack[RoomOptions]) -> RoomServer:
    """Open a server of the room that all with this broker and `topic` share; `options` are those of `room.start`.

    `broker` is started, and stays its owner's. Raises `BrokerUnavailable` if it cannot be read.
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
