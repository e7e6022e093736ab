"""Writing straight to the socket: in order with what the transport writes, and never to what is another's by now."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import cast

import pytest

from chatlab.direct import Direct
from chatlab.fanout import Fanout, SlowReaderPolicy

pytestmark = [
    pytest.mark.every_loop,
    pytest.mark.skipif(os.name != "posix", reason="a socket is no file on Windows: there is no descriptor"),
]


class Reader(Direct):
    """A sink on one end of a connection, as `WebSocketEnd` is, without the WebSocket."""

    def write(self, data: bytes) -> None:
        self.transport.write(data)
        self.try_directly()

    def buffered(self) -> int:
        return self.transport.get_write_buffer_size()

    def close(self, code: int, reason: str) -> None:
        self.never_directly()
        self.transport.close()


class Pair:
    """The two ends of a connection: the server's `reader` is written to, the client reads."""

    def __init__(self) -> None:
        self.accepted: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
        self.reader: Reader
        self.client: tuple[asyncio.StreamReader, asyncio.StreamWriter]

    async def open(self) -> None:
        self._server = await asyncio.start_server(lambda _, writer: self.accepted.put_nowait(writer), "127.0.0.1")
        self.client = await asyncio.open_connection(*self._server.sockets[0].getsockname(), limit=1 << 16)
        self.theirs = await self.accepted.get()
        self.reader = Reader(cast(asyncio.Transport, self.theirs.transport))

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


async def test_what_is_written_either_way_arrives_in_the_order_of_writing_however_slowly_it_is_read(pair: Pair) -> None:
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
        send(b"%06d" % number * 100_000)  # the kernel takes some of these, then part of one, then none
        if number % 3 == 0:
            await read(50_000)
        if number % 20 == 0:  # the client catches up, and the next goes directly again
            await read(len(expected))
            send(b"directly")
    assert ways == {True, False}
    await read(len(expected))
    fanout.close()


async def test_there_is_no_descriptor_while_something_waits_nor_once_the_connection_is_lost(pair: Pair) -> None:
    reader = pair.reader
    assert reader.descriptor is not None
    reader.write(bytes(20_000_000))
    assert reader.descriptor is None
    pair.client[1].transport.abort()
    while not pair.theirs.transport.is_closing():
        reader.write(b"x")
        await asyncio.sleep(0.01)
    assert reader.descriptor is None
    await asyncio.sleep(0)
    reader.try_directly()
    assert reader.descriptor is None


async def test_a_lost_connection_loses_its_descriptor_before_another_can_have_its_number(pair: Pair) -> None:
    number = pair.reader.descriptor or 0
    lost: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    class Behind(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            os.fstat(number)  # raises if it were closed by now
            lost.set_result(pair.reader.descriptor)

    pair.reader._behind = Behind()
    pair.theirs.transport.abort()
    assert await lost is None


async def test_a_connection_about_to_close_is_not_written_to_directly_even_when_it_has_drained(pair: Pair) -> None:
    reader = pair.reader
    reader.write(bytes(5_000_000))
    reader.close(1000, "")
    assert await pair.client[0].readexactly(5_000_000) == bytes(5_000_000)
    assert reader.descriptor is None
    assert await pair.client[0].read() == b""


async def test_what_comes_reaches_the_protocol_behind_and_is_noted(pair: Pair) -> None:
    got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    ended = asyncio.Event()

    class Behind(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            got.set_result(data)

        def eof_received(self) -> bool:
            ended.set()
            return True

    pair.reader._behind = Behind()
    pair.reader.heard = False
    pair.client[1].write(b"hello")
    assert await got == b"hello" and pair.reader.heard
    pair.client[1].write_eof()
    await ended.wait()
    assert not pair.theirs.transport.is_closing(), "its answer was passed on"
