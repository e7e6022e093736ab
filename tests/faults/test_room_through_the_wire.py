"""The room with one member on a bad line, and two on good lines that must not be affected."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError

from chatlab import room
from chatlab.lab.wire.wire import Wire
from chatlab.net.fanout import SlowReaderPolicy
from chatlab.room.metrics import Departure, RoomMetrics

PATIENCE = 10.0
SMALL = 4096


@dataclass
class Scene:
    """A room, its wire to the member Unlucky, and two other members."""

    server: room.RoomServer
    wire: Wire
    unlucky: ClientConnection
    speaker: ClientConnection
    listener: ClientConnection

    async def say(self, text: str) -> float:
        """Let the speaker send `text`; return the seconds until both good members receive it, ignoring notices."""
        start = time.perf_counter()
        await self.speaker.send(text)
        for member in (self.speaker, self.listener):
            assert await until_text(member) == f"Server received: {text}"
        return time.perf_counter() - start

    async def sees(self, condition: Callable[[RoomMetrics], object]) -> None:
        """Wait until the room's metrics fulfil a condition."""
        async with asyncio.timeout(PATIENCE):
            while not condition(self.server.metrics()):  # noqa: ASYNC110 - figures, not events
                await asyncio.sleep(0.005)


async def until_text(member: ClientConnection) -> str:
    """Return the next line that is not a notice."""
    async with asyncio.timeout(PATIENCE):
        while (line := str(await member.recv())).startswith("* "):
            pass
    return line


@asynccontextmanager
async def scene(policy: SlowReaderPolicy | None = None, ping: float = 20) -> AsyncIterator[Scene]:
    """Use small buffers everywhere, so that a fault shows after kilobytes."""
    async with (
        await room.start(policy=policy, send_buffer=SMALL, ping_interval=ping, ping_timeout=ping) as server,
        Wire(to=server.join_url("Unlucky"), window=SMALL) as wire,
        connect(wire.url, compression=None, proxy=None, close_timeout=1, max_queue=None) as unlucky,
        connect(server.url, compression=None, proxy=None) as speaker,
        connect(server.url, compression=None, proxy=None) as listener,
    ):
        assert await unlucky.recv() == "* Unlucky joined (1 here)"
        yield Scene(server, wire, unlucky, speaker, listener)


async def test_a_member_on_a_stalled_line_is_closed_and_delays_nobody() -> None:
    async with scene(SlowReaderPolicy(max_buffered=100_000, drain_seconds=0.2)) as at:
        before = max([await at.say("x" * 5000) for _ in range(60)])
        await until_text(at.unlucky)
        at.wire.stall(sender="server")
        during = sorted([await at.say("x" * 5000) for _ in range(200)])
        assert at.server.metrics().slow == 1
        (left,) = at.server.metrics().departures
        assert (left.name, left.code) == ("Unlucky", 1008)
        assert during[len(during) // 2] < max(0.1, 2 * before)


async def test_a_slow_member_that_drains_in_time_reads_the_close_reason() -> None:
    async with scene(SlowReaderPolicy(max_buffered=30_000, drain_seconds=PATIENCE)) as at:
        at.wire.throttle(1000, sender="server")
        said = 0
        while not at.server.metrics().slow:
            await at.say(f"{said}" + "x" * 5000)
            said += 1
        at.wire.heal()
        seen = [await until_text(at.unlucky) for _ in range(said)]
        assert [text.removeprefix("Server received: ").rstrip("x") for text in seen] == [f"{n}" for n in range(said)]
        with pytest.raises(ConnectionClosedError) as closed:
            await until_text(at.unlucky)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008
        assert closed.value.rcvd.reason.startswith("slow reader: ")
        assert at.server.metrics().aborted == 0


async def test_a_member_on_a_dead_line_is_dropped_by_keep_alive() -> None:
    async with scene(SlowReaderPolicy(drain_seconds=0), ping=0.2) as at:
        at.wire.half_open()
        await at.say("still here")
        await at.sees(lambda metrics: metrics.departures)
        assert at.server.metrics().departures == (Departure("Unlucky", 1011, "keepalive ping timeout"),)
        await at.say("still here")


async def test_a_reset_in_the_middle_of_a_message_drops_only_its_member() -> None:
    async with scene() as at:
        at.wire.when(at.wire.reset, kind="text", sender="server")
        for n in range(20):
            await at.say(f"{n}")
        await at.sees(lambda metrics: metrics.departures)
        assert at.server.metrics().departures == (Departure("Unlucky", 1006, "connection lost"),)


async def test_an_incomplete_message_is_not_delivered() -> None:
    async with scene() as at:
        at.wire.cut(after=3000, sender="client")
        await at.unlucky.send("y" * 5000)
        await at.sees(lambda metrics: metrics.departures)
        assert at.server.metrics().departures == (Departure("Unlucky", 1006, "connection lost"),)
        await at.say("nothing of it was passed on")


@pytest.mark.parametrize(
    ("skip", "mask", "code", "reason"),
    [
        (0, 0x40, 1002, "reserved bits 100 set without an extension that uses them"),
        (1, 0x80, 1002, "TEXT frame from the client is not masked"),
        (6, 0x80, 1007, "text is not UTF-8"),
    ],
    ids=["reserved bit", "mask bit", "first octet of the text"],
)
async def test_a_damaged_frame_closes_only_its_member(skip: int, mask: int, code: int, reason: str) -> None:
    async with scene() as at:
        at.wire.flip(skip=skip, mask=mask, sender="client")
        await at.unlucky.send("hello")
        await at.sees(lambda metrics: metrics.departures)
        (left,) = at.server.metrics().departures
        assert (left.name, left.code, left.reason.split(":")[0]) == ("Unlucky", code, reason)
        await at.say("nothing of it was passed on")


async def test_delays_on_one_line_do_not_change_the_order() -> None:
    async with scene() as at:
        at.wire.delay(0.02, jitter=0.02, sender="server")
        for n in range(50):
            await at.say(f"{n}")
        assert [await until_text(at.unlucky) for _ in range(50)] == [f"Server received: {n}" for n in range(50)]
