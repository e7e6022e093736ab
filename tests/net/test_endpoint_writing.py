"""Direct writes to the socket: in order with the transport's writes, and never to a reused descriptor."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from typing import cast

import pytest

from chatlab.net.endpoint import WebSocketEnd
from chatlab.net.fanout import Fanout, SlowReaderPolicy
from chatlab.websocket.connection import Connection
from chatlab.websocket.frames import Side

pytestmark = [
    pytest.mark.every_loop,
    pytest.mark.skipif(os.name != "posix", reason="on Windows a socket is not a file and has no descriptor"),
]


class Silent:
    """A peer that never sends."""

    def receive(self, data: bytes, text: bool) -> bool:
        return True

    async def finish(self) -> None:
        pass

    def end(self) -> None:
        pass


class FormerProtocol(asyncio.Protocol):
    """The connection's protocol before the WebSocket's end took it over."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.on_lost: Callable[[], None] = lambda: None
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append("lost")
        self.on_lost()
        self.lost.set()


class Pair:
    """The two ends of a connection: the test writes to the server's end, `reader`, and the client reads."""

    def __init__(self) -> None:
        self.protocols: asyncio.Queue[FormerProtocol] = asyncio.Queue()
        self.reader: WebSocketEnd
        self.client: tuple[asyncio.StreamReader, asyncio.StreamWriter]

    def _accept(self) -> FormerProtocol:
        protocol = FormerProtocol()
        self.protocols.put_nowait(protocol)
        return protocol

    async def open(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(self._accept, "127.0.0.1")
        self.client = await asyncio.open_connection(*self._server.sockets[0].getsockname(), limit=1 << 16)
        self.protocol = await self.protocols.get()
        websocket = Connection.opened(Side.SERVER)
        log = logging.getLogger("chatlab.test")
        self.reader = WebSocketEnd(self.protocol.transport, websocket, lambda end: Silent(), name="1", log=log)

    async def close(self) -> None:
        self.reader.abort()
        self.client[1].close()
        self._server.close()


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    pair = Pair()
    await pair.open()
    yield pair
    await pair.close()


async def test_direct_and_transport_writes_arrive_in_order_at_a_slow_reader(pair: Pair) -> None:
    fanout = Fanout(SlowReaderPolicy(max_buffered=1 << 30))
    expected, ways = bytearray(), set[bool]()

    def send(data: bytes) -> None:
        ways.add(pair.reader.descriptor is not None)
        fanout.send(data, (pair.reader,))
        fanout.flush()
        expected.extend(data)

    async def read(size: int) -> None:
        assert await pair.client[0].readexactly(size) == expected[:size]
        del expected[:size]

    for number in range(60):
        send(b"%06d" % number * 100_000)  # the kernel accepts some of these, then part of one, then none
        if number % 3 == 0:
            await read(50_000)
        if number % 20 == 0:  # the client catches up, and the next write is direct again
            await read(len(expected))
            send(b"directly")
    assert ways == {True, False}
    await read(len(expected))
    fanout.close()


async def test_the_descriptor_is_none_while_data_is_buffered_and_after_the_connection_closes(pair: Pair) -> None:
    reader = pair.reader
    assert reader.descriptor is not None
    reader.write(bytes(20_000_000))
    assert reader.descriptor is None
    pair.client[1].transport.abort()
    while not pair.protocol.transport.is_closing():
        reader.write(b"x")
        await asyncio.sleep(0.01)
    assert reader.descriptor is None
    await asyncio.sleep(0)
    reader.update_descriptor()
    assert reader.descriptor is None


async def test_a_closed_connection_gives_up_its_descriptor_before_the_number_is_reused(pair: Pair) -> None:
    number = pair.reader.descriptor or 0
    seen: list[int | None] = []

    def check_descriptor() -> None:
        os.fstat(number)  # raises if the descriptor is already closed
        seen.append(pair.reader.descriptor)

    pair.protocol.on_lost = check_descriptor
    pair.protocol.transport.abort()
    await pair.protocol.lost.wait()
    assert seen == [None]


async def test_a_closing_connection_has_no_descriptor_even_after_it_drains(pair: Pair) -> None:
    reader = pair.reader
    reader.write(bytes(5_000_000))
    reader.close(1000, "")
    assert await pair.client[0].readexactly(5_000_000) == bytes(5_000_000)
    assert reader.descriptor is None
    assert await pair.client[0].readexactly(4) == b"\x88\x02\x03\xe8"


async def test_the_previous_protocol_is_notified_of_buffering_and_of_the_close(pair: Pair) -> None:
    pair.reader.write(bytes(20_000_000))
    draining = asyncio.create_task(pair.reader.drained())
    assert len(await pair.client[0].readexactly(20_000_000)) == 20_000_000
    await draining
    assert pair.protocol.calls == ["pause", "resume"]
    pair.client[1].transport.abort()
    await pair.protocol.lost.wait()
    assert pair.protocol.calls[-1] == "lost"


async def test_drained_returns_when_the_connection_is_lost(pair: Pair) -> None:
    pair.reader.write(bytes(20_000_000))
    draining = asyncio.create_task(pair.reader.drained())
    await asyncio.sleep(0)
    pair.reader.abort()
    async with asyncio.timeout(5):
        await draining
