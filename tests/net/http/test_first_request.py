"""A connection that never sends a whole request is cut off in time, even if data arrives; others are left alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.endpoint import server as chat_server
from chatlab.net.http.server import HttpServer
from tests.support.stomp_peer import Peer

pytestmark = pytest.mark.every_loop

SECONDS = 0.3
CUT_OFF = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
REQUEST = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"


class Guarded:
    """A server that cuts off clients that send no request, and answers once it is allowed to."""

    def __init__(self) -> None:
        self.answering = asyncio.Event()
        self.answering.set()
        self.asked = asyncio.Event()
        app = web.Application()
        app.router.add_get("/", self._answer)
        self.http = HttpServer(app, logging.getLogger("chatlab.test"), first_request_seconds=SECONDS)
        self.watch = self.http.first_request

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked.set()
        await self.answering.wait()
        return web.Response(text="here you are")

    @asynccontextmanager
    async def client(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection(self.http.host, self.http.port)
        try:
            yield reader, writer
        finally:
            writer.close()

    async def until_one_more_is_cut_off(self) -> None:
        """Let another client connect and stay silent until it is cut off: earlier clients have waited longer."""
        async with self.client() as (reader, _), asyncio.timeout(10):
            assert await reader.read() == CUT_OFF


@pytest.fixture
async def server() -> AsyncIterator[Guarded]:
    server = Guarded()
    await server.http.listen("127.0.0.1", 0)
    yield server
    await server.http.aclose(deadline=0)


async def drip(writer: asyncio.StreamWriter, beginning: bytes) -> None:
    """Send a request's head that never ends, a few octets at a time."""
    writer.write(beginning)
    with suppress(ConnectionError):
        while not writer.is_closing():
            writer.write(b"X-Slow: 1\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("beginning", [b"GET / HTTP/1.1\r\n", b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n"])
async def test_a_slowly_sent_request_head_is_cut_off_at_the_time_limit(server: Guarded, beginning: bytes) -> None:
    async with server.client() as (reader, writer):
        began = asyncio.get_running_loop().time()
        dripping = asyncio.create_task(drip(writer, beginning))
        async with asyncio.timeout(10):
            assert await reader.readuntil(b"\r\n\r\n") == CUT_OFF
        assert asyncio.get_running_loop().time() - began >= SECONDS
        dripping.cancel()
    assert server.watch.cut_off == 1


async def test_many_silent_connections_are_all_cut_off_and_each_is_logged(
    server: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "chatlab.test")
    clients = [await asyncio.open_connection(server.http.host, server.http.port) for _ in range(50)]
    async with asyncio.timeout(10):
        assert {await reader.read() for reader, _ in clients} == {CUT_OFF}
    logged = [vars(record)["peer"] for record in caplog.records if record.getMessage() == "closed: no request in time"]
    assert sorted(logged) == sorted(writer.get_extra_info("sockname") for _, writer in clients)
    assert server.watch.cut_off == 50
    for _, writer in clients:
        writer.close()


@pytest.mark.parametrize("end", ["silent", "dribbling"])
async def test_an_incomplete_second_request_is_cut_off_even_while_data_arrives(server: Guarded, end: str) -> None:
    async with server.client() as (reader, writer), asyncio.timeout(10):
        writer.write(REQUEST)
        await reader.readuntil(b"here you are")
        writer.write(REQUEST[:20])
        heard = asyncio.ensure_future(reader.read())
        while not heard.done():
            if end == "dribbling":
                with suppress(ConnectionError):
                    writer.write(b"x")
            await asyncio.sleep(SECONDS / 10)
        # A reset for unread octets may overtake the answer.
        assert isinstance(heard.exception(), ConnectionResetError) or heard.result() == CUT_OFF


async def test_a_connection_may_idle_after_its_first_request(server: Guarded) -> None:
    async with server.client() as (reader, writer):
        for _ in range(2):
            writer.write(REQUEST)
            assert (await reader.readuntil(b"here you are")).startswith(b"HTTP/1.1 200 ")
            await server.until_one_more_is_cut_off()
    assert server.watch.cut_off == 2


async def test_a_client_waiting_for_a_slow_answer_is_not_cut_off(server: Guarded) -> None:
    server.answering.clear()
    async with server.client() as (reader, writer):
        writer.write(REQUEST)
        await server.asked.wait()
        await server.until_one_more_is_cut_off()
        server.answering.set()
        assert (await reader.readuntil(b"here you are")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("piece", ["\n", "CONNECT\naccept-version:1.2\n", "x:y\n"], ids=["beats", "pieces", "nonsense"])
async def test_a_websocket_that_never_sends_connect_is_cut_off_even_while_data_arrives(
    broker: MemoryBroker, piece: str
) -> None:
    async with await chat_server.start(broker, connect_timeout=SECONDS) as chat:
        peer = await Peer(chat.url).open()

        async def talk() -> None:
            while True:
                await peer.websocket.send(piece)
                await asyncio.sleep(0.02)

        talking = asyncio.create_task(talk())
        assert (await peer.frame("ERROR")).get("message") == "no CONNECT within 0.3 s"
        assert await peer.close_code() == 1002
        talking.cancel()
        assert not chat.service.connections
