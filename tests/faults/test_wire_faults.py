"""Each fault of the wire, with a real `websockets` client and server."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosedError, InvalidMessage
from websockets.protocol import State

from chatlab.lab.wire.wire import Wire

PATIENCE = 10.0


class Echo:
    """An echo server that keeps its connections for inspection."""

    def __init__(self) -> None:
        self.seen: asyncio.Queue[ServerConnection] = asyncio.Queue()

    async def __call__(self, connection: ServerConnection) -> None:
        self.seen.put_nowait(connection)
        async for message in connection:
            await connection.send(message)


@asynccontextmanager
async def line(
    client: dict[str, Any] | None = None, **server: Any
) -> AsyncIterator[tuple[Wire, ClientConnection, Echo]]:
    """A wire, a client connected through it, and the echo server behind it; no keep-alive unless a test asks for it."""
    echo = Echo()
    options: dict[str, Any] = {"ping_interval": None, "compression": None, "close_timeout": 0.2} | server
    async with serve(echo, "127.0.0.1", 0, **options) as running, Wire(to=address(running)) as wire:
        options = {"ping_interval": None, "compression": None, "close_timeout": 0.2} | (client or {})
        async with connect(wire.url, **options) as connection:
            yield wire, connection, echo


def address(server: Server) -> str:
    return f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def within(awaitable: Any) -> Any:
    return await asyncio.wait_for(awaitable, PATIENCE)


def held(wire: Wire, kind: str = "text") -> list[float]:
    """Return how long the wire held each event of that kind, in seconds."""
    return [event.passed - event.until for event in wire.trace.filter(kind=kind) if event.passed is not None]


# --- latency


async def test_a_delay_shows_in_the_ping_times_of_both_ends() -> None:
    async with line() as (wire, client, _):
        wire.delay(0.1)
        latency = await within(await client.ping())
        assert 0.2 <= latency < 2
        wire.heal()
        assert await within(await client.ping()) < 0.1


async def test_a_delay_applies_to_one_direction_only() -> None:
    async with line() as (wire, client, _):
        wire.delay(0.1, sender="server")
        assert 0.1 <= await within(await client.ping()) < 0.2


async def test_jitter_varies_the_delay_and_keeps_the_order() -> None:
    async with line() as (wire, client, _):
        wire.delay(0.03, jitter=0.03)
        for number in range(30):
            await client.send(str(number))
            await asyncio.sleep(0.002)
        assert [await within(client.recv()) for _ in range(30)] == [str(number) for number in range(30)]
        delays = held(wire)
        assert max(delays) - min(delays) > 0.005


# --- bandwidth


async def test_a_throttled_line_transfers_at_its_rate() -> None:
    async with line() as (wire, client, _):
        wire.throttle(200_000, sender="client")
        await client.send(bytes(40_000))
        assert await within(client.recv()) == bytes(40_000)
        sent = wire.trace.first(kind="binary", sender="client")
        assert sent.passed is not None
        assert 0.15 <= sent.passed - sent.time < 1


async def test_a_throttle_can_be_lifted_during_a_transfer() -> None:
    async with line() as (wire, client, _):
        wire.throttle(10, sender="client")
        await client.send(bytes(100_000))  # would take almost three hours
        await wire.wait_for(kind="binary", sender="client")
        wire.throttle(None)
        assert await within(client.recv()) == bytes(100_000)


# --- stall


async def test_a_stalled_peer_is_detected_by_keep_alive() -> None:
    async with line({"ping_interval": 0.05, "ping_timeout": 0.1}) as (wire, client, _):
        wire.stall()
        with pytest.raises(ConnectionClosedError) as caught:
            await within(client.recv())
        assert caught.value.rcvd is None
        assert caught.value.sent is not None
        assert (caught.value.sent.code, caught.value.sent.reason) == (1011, "keepalive ping timeout")
        ping = wire.trace.first(kind="ping")
        assert ping.passed is None


async def test_a_temporary_stall_loses_nothing() -> None:
    async with line() as (wire, client, _):
        wire.stall()
        for number in range(5):
            await client.send(str(number))
        await wire.wait_for(kind="text", sender="client", count=5)
        assert not wire.trace.filter(sender="server", kind="text")
        wire.resume()
        assert [await within(client.recv()) for _ in range(5)] == ["0", "1", "2", "3", "4"]


async def test_a_stalled_line_slows_its_sender() -> None:
    async with line({"max_size": None}, max_size=None) as (wire, client, _):
        wire.stall(sender="client")
        big = bytes(32 * 1024 * 1024)
        sending = asyncio.create_task(client.send(big))
        await wire.wait_for("fault", "stall, what the client sends")
        done, _ = await asyncio.wait([sending], timeout=0.3)
        assert not done, "32 MiB fit into the line and the buffers of two kernels"
        assert sum(len(record.data) for record in wire.trace.records) < 2 * wire.window
        wire.resume()
        await within(sending)
        assert await within(client.recv()) == big


# --- half-open


async def test_a_half_open_connection_is_detected_only_by_keep_alive() -> None:
    async with line(ping_interval=0.1, ping_timeout=0.2) as (wire, client, echo):
        server = await within(echo.seen.get())
        wire.half_open()
        client.transport.abort()  # as if a laptop's lid was closed: no Close is sent
        await wire.wait_for("tcp", ("FIN", "RST"), sender="client")
        assert server.state is State.OPEN
        await within(server.wait_closed())
        assert server.close_code == 1006
        assert server.protocol.close_sent is not None
        assert server.protocol.close_sent.code == 1011


async def test_data_sent_into_a_half_open_connection_is_lost() -> None:
    async with line() as (wire, client, _):
        wire.half_open(sender="server")
        await client.send("anyone?")
        answer = await wire.wait_for(kind="text", sender="server")
        assert answer.passed is None
        assert client.state is State.OPEN


# --- reset


async def test_a_reset_ends_both_sides_without_a_close_frame() -> None:
    async with line() as (wire, client, echo):
        server = await within(echo.seen.get())
        wire.reset()
        with pytest.raises(ConnectionClosedError) as caught:
            await within(client.recv())
        assert isinstance(caught.value.__cause__, ConnectionResetError)
        assert caught.value.rcvd is None
        await within(server.wait_closed())
        assert (client.close_code, server.close_code) == (1006, 1006)


async def test_a_reset_towards_one_end_leaves_the_other_half_open() -> None:
    async with line() as (wire, client, echo):
        server = await within(echo.seen.get())
        wire.reset(to="client")
        with pytest.raises(ConnectionClosedError):
            await within(client.recv())
        await server.send("still there?")
        await wire.wait_for(kind="text", sender="server")
        assert server.state is State.OPEN


# --- cut


async def test_a_cut_ends_the_connection_in_the_middle_of_a_frame() -> None:
    async with line() as (wire, client, echo):
        server = await within(echo.seen.get())
        wire.cut(after=4, sender="server")
        await client.send("Hello")
        with pytest.raises(ConnectionClosedError):
            await within(client.recv())
        await within(server.wait_closed())
        assert (client.close_code, server.close_code) == (1006, 1006)
        answer = wire.trace.first(kind="text", sender="server")
        assert answer.data == b"\x81\x05Hello"
        assert answer.record is not None
        assert answer.record.went == 4
        assert answer.passed is None


async def test_a_cut_armed_before_there_is_a_connection_hits_the_handshake() -> None:
    async with serve(Echo(), "127.0.0.1", 0) as server, Wire(to=address(server)) as wire:
        wire.cut(after=12, sender="server")
        with pytest.raises(InvalidMessage):
            await within(connect(wire.url).__aenter__())
        async with connect(wire.url) as client:  # only that one
            await client.send("Hello")
            assert await within(client.recv()) == "Hello"


# --- flipped bytes


async def test_a_flipped_reserved_bit_is_a_protocol_error() -> None:
    async with line() as (wire, client, _):
        wire.flip(mask=0x40, sender="server")
        await client.send("Hello")
        with pytest.raises(ConnectionClosedError) as caught:
            await within(client.recv())
        assert caught.value.sent is not None
        assert caught.value.sent.code == 1002
        assert wire.trace.first(kind="text", sender="server").data == b"\x81\x05Hello"  # as it was sent


async def test_a_flipped_byte_that_breaks_utf_8_is_detected() -> None:
    async with line() as (wire, client, _):
        wire.flip(skip=2, mask=0x80, sender="server")
        await client.send("Hello")
        with pytest.raises(ConnectionClosedError) as caught:
            await within(client.recv())
        assert caught.value.sent is not None
        assert caught.value.sent.code == 1007


async def test_other_flipped_bytes_are_delivered_since_websocket_has_no_checksum() -> None:
    async with line() as (wire, client, _):
        wire.flip(2, skip=2, mask=0x20, sender="server")
        await client.send("Hello")
        assert await within(client.recv()) == "hEllo"
        await client.send("Hello")
        assert await within(client.recv()) == "Hello"  # the damage is done once


async def test_a_flipped_length_makes_the_receiver_wait_for_more() -> None:
    async with line() as (wire, client, _):
        wire.flip(skip=1, mask=0x08, sender="client")  # 5 becomes 13
        await client.send("Hello")
        await wire.wait_for(kind="text", sender="client")
        await client.send("..")  # its 8 octets are read as the missing ones
        answer = await wire.wait_for(kind=("text", "close"), sender="server")
        assert answer.kind == "text" or struct.unpack("!H", answer.content[:2]) == (1007,)


# --- at a chosen event


async def test_a_fault_triggers_before_the_first_byte_of_its_event() -> None:
    async with line() as (wire, client, echo):
        server = await within(echo.seen.get())
        wire.when(lambda: wire.half_open(sender="client"), kind="text", where=lambda event: event.content == b"two")
        for text in ("one", "two", "three"):
            await client.send(text)
        assert await within(client.recv()) == "one"
        await wire.wait_for(kind="text", where=lambda event: event.content == b"three")
        went = [event.passed is not None for event in wire.trace.filter(kind="text", sender="client")]
        assert went == [True, False, False]
        assert server.state is State.OPEN


async def test_a_fault_can_trigger_after_the_last_byte_of_its_event() -> None:
    async with line() as (wire, client, _):
        wire.when(wire.reset, kind="text", sender="server", after=True)
        await client.send("Hello")
        with suppress(ConnectionClosedError):  # a reset may overtake what the receiver has not read yet
            assert await within(client.recv()) == "Hello"
        assert wire.trace.first(kind="text", sender="server").passed is not None
        await within(client.wait_closed())


async def test_a_frame_is_cut_two_bytes_after_its_start() -> None:
    async with line() as (wire, client, _):
        wire.when(lambda: wire.cut(after=2, sender="server"), kind="text", sender="server")
        await client.send("Hello")
        with pytest.raises(ConnectionClosedError):
            await within(client.recv())
        answer = wire.trace.first(kind="text", sender="server")
        assert answer.record is not None
        assert answer.record.went == answer.offset - answer.record.offset + 2


async def test_a_lost_close_frame_leaves_the_closing_side_to_its_timeout() -> None:
    async with line() as (wire, client, echo):
        server = await within(echo.seen.get())
        wire.when(wire.half_open, kind="close", sender="client")
        await within(client.close())
        assert client.close_code == 1006  # no Close came back
        assert server.state is State.OPEN


async def test_a_connection_is_refused_when_nobody_listens_behind_the_wire() -> None:
    async with serve(Echo(), "127.0.0.1", 0) as server:
        nobody = address(server)
    async with Wire(to=nobody) as wire:
        with pytest.raises((InvalidMessage, ConnectionResetError)):
            await within(connect(wire.url).__aenter__())
        await wire.wait_for("tcp", "refused")


async def test_healing_cancels_pending_faults() -> None:
    async with line() as (wire, client, _):
        wire.when(wire.reset, kind="text")
        wire.flip(mask=0x40)
        wire.cut(after=10)
        wire.delay(60)
        wire.stall()
        wire.heal()
        await client.send("Hello")
        assert await within(client.recv()) == "Hello"


async def test_healing_releases_delayed_bytes() -> None:
    async with line() as (wire, client, _):
        wire.delay(60)
        await client.send("Hello")
        await wire.wait_for(kind="text", sender="client")
        wire.heal()
        assert await within(client.recv()) == "Hello"
