"""Two hundred members join and leave at random under load: those that stay miss nothing, and memory is steady.

CHATLAB_LOAD_SECONDS sets how long it goes on: 6 by default, 30 for a proper run.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import random

import pytest
from websockets.asyncio.client import connect

from chatlab import room
from chatlab.room.room import DEPARTURES
from tests.support.raw_member import RawMember

SECONDS = float(os.environ.get("CHATLAB_LOAD_SECONDS", "6"))
STAYING, COMING_AND_GOING = 40, 160
TIMEOUT = 20.0

pytestmark = pytest.mark.timeout(SECONDS + 60)


def enter(server: room.RoomServer, name: str | None = None) -> connect:
    # max_queue: a client that stops reading, with 16 messages in its queue, does not see the answer to its close.
    return connect(server.join_url(name), compression=None, proxy=None, ping_interval=None, max_queue=None)


class Stayer:
    """A member for the whole run. It sends now and then, and checks that each sender's numbers go up by one."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.sent = 0
        self.seen = [0] * STAYING  # by sender
        self.texts = 0
        self.last_line = ""

    async def stay(self, server: room.RoomServer, stop: asyncio.Event, ready: asyncio.Barrier) -> None:
        async with enter(server) as self.connection:
            reading = asyncio.create_task(self.read())
            await ready.wait()
            while not stop.is_set():
                await self.connection.send(f"{self.number} {self.sent}")
                self.sent += 1
                await asyncio.sleep(random.random())
            await ready.wait()  # no member leaves before all have sent their last message
            await self.connection.send("end")
            async with asyncio.timeout(TIMEOUT):
                await reading

    async def read(self) -> None:
        ends = 0
        while ends < STAYING:
            line = str(await self.connection.recv())
            if line == "Server received: end":
                ends += 1
            elif line.startswith("Server received: "):
                sender, n = map(int, line.removeprefix("Server received: ").split())
                assert n == self.seen[sender], f"from {sender}: {n} instead of {self.seen[sender]}"
                self.seen[sender] += 1
                self.texts += 1


async def come_and_go(server: room.RoomServer, number: int, stop: asyncio.Event) -> None:
    """Join for a while, leave for a while; close or just disconnect, with or without a name, reading or not."""
    dice = random.Random(number)
    while not stop.is_set():
        name = f"visitor {number}" if dice.random() < 0.2 else None
        if dice.random() < 0.3:
            with await RawMember.join(server.join_url(name)) as member:
                await asyncio.sleep(2 * dice.random())
                if dice.random() < 0.5:
                    member.vanish()
        else:
            async with enter(server, name) as polite:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(2 * dice.random()):
                        while True:
                            await polite.recv()
        await asyncio.sleep(dice.random())


@pytest.mark.long
async def test_members_that_stay_miss_nothing_while_two_hundred_join_and_leave(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    stop = asyncio.Event()
    ready = asyncio.Barrier(STAYING)
    stayers = [Stayer(number) for number in range(STAYING)]
    alive: list[int] = []
    async with await room.start() as server:
        async with asyncio.TaskGroup() as tasks:
            for stayer in stayers:
                tasks.create_task(stayer.stay(server, stop, ready))
            for number in range(COMING_AND_GOING):
                tasks.create_task(come_and_go(server, number, stop))
            await count_what_lives(alive)
            stop.set()
        metrics = server.metrics()
    sent = [stayer.sent for stayer in stayers]
    assert all(stayer.seen == sent for stayer in stayers)
    assert sum(sent) > STAYING * SECONDS / 2
    assert len(metrics.departures) == DEPARTURES
    assert (metrics.slow, metrics.aborted) == (0, 0)
    assert caplog.text == ""
    # The number of live objects must not grow over time, apart from chance.
    third = len(alive) // 3
    assert max(alive[-third:]) < 1.2 * max(alive[:third]), alive


async def count_what_lives(counts: list[int]) -> None:
    """Count the live Python objects ten times during the run; the members' objects are included, and constant."""
    for _ in range(10):
        await asyncio.sleep(SECONDS / 10)
        gc.collect()
        counts.append(len(gc.get_objects()))
