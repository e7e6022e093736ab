"""A connection that sends no complete request is closed in time, even while data arrives; others stay open."""

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
TIMEOUT_ANSWER = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
REQUEST = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"


class SlowServer:
    """A server that closes clients without a request, and answers once `answering` is set."""

    def __init__(self) -> None:
        self.answering = asyncio.Event()
        self.answering.set()
        self.requested = asyncio.Event()
        app = web.Application()
        app.router.add_get("/", self._answer)
        self.http = HttpServer(app, logging.getLogger("chatlab.test"), first_request_seconds=SECONDS)
        self.watch = self.http.first_request

    async def _answer(self, request: web.Request) -> web.Response:
        self.requested.set()
        await self.answering.wait()
        return web.Response(text="here you are")

    @asynccontextmanager
    async def client(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection(self.http.host, self.http.port)
        try:
            yield reader, writer
        finally:
            writer.close()

    async def wait_for_a_timeout(self) -> None:
        """Wait until another, silent client is closed: every earlier client has waited longer."""
        async with self.client() as (reader, _), asyncio.timeout(10):
            assert await reader.read() == TIMEOUT_ANSWER


@pytest.fixture
async def server() -> AsyncIterator[SlowServer]:
    server = SlowServer()
    await server.http.listen("127.0.0.1", 0)
    yield server
    await server.http.aclose(deadline=0)


async def drip(writer: asyncio.StreamWriter, beginning: bytes) -> None:
    """Send the head of a request without an end, a few octets at a time."""
    writer.write(beginning)
    with suppress(ConnectionError):
        while not writer.is_closing():
            writer.write(b"X-Slow: 1\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("beginning", [b"GET / HTTP/1.1\r\n", b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n"])
async def test_a_request_head_sent_too_slowly_gets_408_at_the_time_limit(server: SlowServer, beginning: bytes) -> None:
    async with server.client() as (reader, writer):
        began = asyncio.get_running_loop().time()
        dripping = asyncio.create_task(drip(writer, beginning))
        async with asyncio.timeout(10):
            assert await reader.readuntil(b"\r\n\r\n") == TIMEOUT_ANSWER
        assert asyncio.get_running_loop().time() - began >= SECONDS
        dripping.cancel()
    assert server.watch.cut_off == 1


async def test_many_silent_connections_are_all_closed_and_each_is_logged(
    server: SlowServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "chatlab.test")
    clients = [await asyncio.open_connection(server.http.host, server.http.port) for _ in range(50)]
    async with asyncio.timeout(10):
        assert {await reader.read() for reader, _ in clients} == {TIMEOUT_ANSWER}
    logged = [vars(record)["peer"] for record in caplog.records if record.getMessage() == "cut off: no request"]
    assert sorted(logged) == sorted(writer.get_extra_info("sockname") for _, writer in clients)
    assert server.watch.cut_off == 50
    for _, writer in clients:
        writer.close()


@pytest.mark.parametrize("end", ["silent", "dripping"])
async def test_an_incomplete_second_request_gets_408_even_while_data_arrives(server: SlowServer, end: str) -> None:
    async with server.client() as (reader, writer), asyncio.timeout(10):
        writer.write(REQUEST)
        await reader.readuntil(b"here you are")
        writer.write(REQUEST[:20])
        reading = asyncio.ensure_future(reader.read())
        while not reading.done():
            if end == "dripping":
                with suppress(ConnectionError):
                    writer.write(b"x")
            await asyncio.sleep(SECONDS / 10)
        # A reset for unread octets may overtake the answer.
        assert isinstance(reading.exception(), ConnectionResetError) or reading.result() == TIMEOUT_ANSWER


async def test_a_connection_may_idle_after_its_first_request(server: SlowServer) -> None:
    async with server.client() as (reader, writer):
        for _ in range(2):
            writer.write(REQUEST)
            assert (await reader.readuntil(b"here you are")).startswith(b"HTTP/1.1 200 ")
            await server.wait_for_a_timeout()
    assert server.watch.cut_off == 2


async def test_a_client_waiting_for_a_slow_answer_is_not_closed(server: SlowServer) -> None:
    server.answering.clear()
    async with server.client() as (reader, writer):
        writer.write(REQUEST)
        await server.requested.wait()
        await server.wait_for_a_timeout()
        server.answering.set()
        assert (await reader.readuntil(b"here you are")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("piece", ["\n", "CONNECT\naccept-version:1.2\n", "x:y\n"], ids=["beats", "pieces", "nonsense"])
async def test_a_websocket_that_never_sends_connect_is_closed_even_while_data_arrives(
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
