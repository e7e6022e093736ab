"""One room on several servers: what a member says goes to a broker, and what the broker delivers goes to the members.

    member ── text ──► its server ──► broker ──┬──► server 1 ──► its members, the sender among them
                                               └──► server 2 ──► its members

The sender's own text comes back through the broker too: one way for everybody, and so one order for everybody. All else
is `room.py`; any engine behind `brokers/port.py` will do. Notices of who came and left stay with the server they
happened on. Left out: history, and rooms with names. That is what `chat/` is for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

from chatlab.brokers.port import SURVIVES, Broker, Subscription, crash_risk
from chatlab.errors import BrokerError
from chatlab.fanout import SlowReaderPolicy
from chatlab.room import Member, RateLimit, Room, RoomServer
from chatlab.room import start as start_room

__all__ = ["SharedRoom", "start"]

logger = logging.getLogger("chatlab.shared_room")

TOPIC = "room"
WAITING = 1000  # texts that may wait for the broker before members are told to wait, too
RETRY_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0)  # between attempts to hear the broker again; the last one is repeated


class SharedRoom(Room):
    """This server's part of the room: its own members, and two tasks, one to the broker and one from it."""

    def __init__(self, policy: SlowReaderPolicy, rate: RateLimit | None, broker: Broker, topic: str) -> None:
        super().__init__(policy, rate)
        self._broker = broker
        self._topic = topic
        self._outgoing: asyncio.Queue[tuple[Member, str]] = asyncio.Queue(WAITING)
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Start to read and to write. Raises `BrokerUnavailable`."""
        subscription = await self._broker.subscribe(self._topic)
        self._tasks = [asyncio.create_task(self._hear(subscription)), asyncio.create_task(self._speak())]

    def close(self) -> None:
        """Stop; the broker is its owner's to close."""
        for task in self._tasks:
            task.cancel()
        super().close()

    def pass_on(self, member: Member, line: str) -> None:
        """Hand what `member` said to the broker, from where it comes back to everybody."""
        try:
            self._outgoing.put_nowait((member, line))
        except asyncio.QueueFull:
            self.tell(member, "the broker is behind; try again in a moment")

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
                    self.tell(member, "the broker does not answer")
                elif isinstance(outcome, BaseException):
                    raise outcome

    async def _hear(self, subscription: Subscription) -> None:
        while True:
            try:
                while batch := await subscription.batch():
                    for delivery in batch:
                        self.deliver(delivery.body.decode())
                return  # closed from our side
            except BrokerError as lost:
                logger.error("nothing heard from the broker: %s", lost)
                self.notify("the other servers cannot be heard now")
                subscription = await self._subscribe_again()
                self.notify("the other servers are heard again")

    async def _subscribe_again(self) -> Subscription:
        for attempt in range(1 << 31):
            await asyncio.sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
            with contextlib.suppress(BrokerError):
                return await self._broker.subscribe(self._topic)
        raise AssertionError("unreachable")


async def start(broker: Broker, *, topic: str = TOPIC, **options: Any) -> RoomServer:
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
