"""`--drain-seconds` bounds the time that stopping takes, whatever clients do; a stop takes no longer than needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint.server import ChatServer
from chatlab.lab.until import until
from tests.support.conversation import text
from tests.support.paused_broker import PausedBroker
from tests.support.stomp_peer import Peer, chat, raw_websocket

pytestmark = pytest.mark.every_loop

DRAIN = 1.0
# Time for closing and cleaning up on a busy machine: much less than another DRAIN.
SLACK = 0.6

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connected(server: ChatServer, data: bytes, answer: bytes = b"") -> AsyncIterator[Connection]:
    """A client that has sent `data` and received `answer`, and then stays silent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(data)
    if answer:
        await reader.readuntil(answer)
    try:
        yield reader, writer
    finally:
        writer.close()


async def seconds_to_stop(server: ChatServer) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await server.aclose()
    return loop.time() - began


@pytest.fixture
async def draining(broker: MemoryBroker) -> AsyncIterator[ChatServer]:
    server = await chat_server.start(broker, drain_seconds=DRAIN)
    yield server
    await server.aclose()


async def test_clients_that_ignore_the_close_delay_the_stop_by_one_drain(draining: ChatServer) -> None:
    clients = [await raw_websocket(draining.port) for _ in range(5)]
    assert DRAIN <= await seconds_to_stop(draining) < DRAIN + SLACK
    for reader, writer in clients:
        with suppress(ConnectionError):
            assert (await reader.read()).endswith(b"server shutting down")
        writer.close()


async def test_clients_that_answer_the_close_or_sent_no_request_hardly_delay_the_stop(
    draining: ChatServer,
) -> None:
    half_a_request = connected(draining, b"GET /ws HTTP/1.1\r\nHost: x\r\n")
    idle = connected(draining, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"ok\n")
    silent = connected(draining, b"")
    async with Peer(draining.url), half_a_request, idle, silent:
        assert await seconds_to_stop(draining) < SLACK


STREAM = b"POST /ws/0/%s/xhr_streaming HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
WEBSOCKET = (
    b"GET /ws/0/w/websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def test_sockjs_sessions_and_unfinished_bodies_delay_the_stop_by_one_drain(draining: ChatServer) -> None:
    half_a_body = b"POST /ws/0/a/xhr_send HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
    async with (
        connected(draining, STREAM % b"a", b"o\n"),
        connected(draining, STREAM % b"b", b"o\n"),
        connected(draining, half_a_body),
        connected(draining, WEBSOCKET, b"\x81\x01o"),
    ):
        await asyncio.sleep(0.1)  # by now the server is reading the request's body
        assert await seconds_to_stop(draining) < DRAIN + SLACK


async def test_a_stream_that_is_not_read_delays_the_stop_by_one_drain(draining: ChatServer) -> None:
    async with connected(draining, STREAM % b"a", b"o\n") as (reader, _):
        reader._transport.pause_reading()  # type: ignore[attr-defined]  # the client stops reading
        session = draining._sockjs.sessions["a"]
        session.write(b'"x",' * 1_000_000)
        await asyncio.sleep(0.1)
        assert await seconds_to_stop(draining) < DRAIN + SLACK


async def test_a_broker_that_does_not_confirm_delays_the_stop_by_one_drain_and_clients_are_closed() -> None:
    async with PausedBroker() as broker:
        server = await chat_server.start(broker, drain_seconds=DRAIN)
        async with Peer(server.url) as peer:
            deaf_reader, deaf_writer = await raw_websocket(server.port)
            deaf_writer.write(text(b"CONNECT\naccept-version:1.2\nhost:x\n\n\0"))
            await deaf_reader.readuntil(b"\0")
            await peer.send("SEND", chat("x"), destination="/app/chat.sendMessage", receipt="r")
            await until(lambda: broker.asked)
            stopping = asyncio.create_task(seconds_to_stop(server))
            assert await peer.close_code() in (1001, 1006)
            assert await stopping < DRAIN + SLACK
            deaf_writer.close()


@pytest.mark.parametrize("seconds", [0, 0.2])
async def test_a_short_drain_or_none_stops_at_once(broker: MemoryBroker, seconds: float) -> None:
    server = await chat_server.start(broker, drain_seconds=seconds)
    _, writer = await raw_websocket(server.port)
    async with connected(server, STREAM % b"a", b"o\n"):
        assert await seconds_to_stop(server) < seconds + SLACK
    writer.close()
