"""The parts of the `websockets` library that chatlab relies on, and servers that stop in time with any client."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from chatlab import echo, room
from chatlab.lab.until import until
from chatlab.net.websockets_library import Transports, close
from chatlab.websocket.frames import Opcode
from tests.support.conversation import text
from tests.support.raw_member import RawMember


async def wait_closed(connection: ServerConnection) -> None:
    await connection.wait_closed()


async def test_a_connections_transport_is_known_from_accept_to_close() -> None:
    transports = Transports()
    async with serve(wait_closed, "127.0.0.1", 0, create_connection=transports.connection_class(4096)) as server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        await until(lambda: transports._open)
        ((connection, transport),) = transports._open.items()
        assert isinstance(connection, ServerConnection)
        assert transport.get_extra_info("peername") == writer.get_extra_info("sockname")
        assert transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) < 16_384
        writer.transport.abort()
        await until(lambda: not transports._open)
        assert transports.buffered(connection) == 0


async def test_bytes_buffered_for_a_client_that_stops_reading_are_counted() -> None:
    transports = Transports()
    async with serve(
        wait_closed, "127.0.0.1", 0, create_connection=transports.connection_class(4096), compression=None
    ) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        with await RawMember.join(url, receive_buffer=4096):
            ((connection, _),) = transports._open.items()
            assert transports.buffered(connection) == 0
            sending = asyncio.create_task(connection.send(bytes(1_000_000)))
            await asyncio.sleep(0)
            assert transports.buffered(connection) > 500_000
            transports.abort()
            await asyncio.wait([sending])


async def test_shutdown_does_not_wait_after_a_client_answers_the_close() -> None:
    transports = Transports()
    server = await serve(wait_closed, "127.0.0.1", 0, create_connection=transports.connection_class())
    async with connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/") as client:
        began = asyncio.get_running_loop().time()
        await close(server, transports, 5.0, "bye")
        assert asyncio.get_running_loop().time() - began < 2
        await client.wait_closed()
        assert (client.close_code, client.close_reason) == (1001, "bye")


SECONDS = 0.5
Start = Callable[..., Awaitable[Any]]


@pytest.mark.parametrize("start", [echo.start, echo.start_by_hand, room.start, room.start_as_in_the_article])
async def test_every_server_stops_within_its_time_limit(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatlab.room.server.SHUTDOWN_SECONDS", SECONDS)
    monkeypatch.setattr("chatlab.room.article.SHUTDOWN_SECONDS", SECONDS)
    server = await start(close_timeout=SECONDS) if start in (echo.start, echo.start_by_hand) else await start()
    silent = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
    silent[0][1].write(b"GET /room HTTP/1.1\r\nHost: x\r\n")
    silent[1][1].write(b"G")
    members = [await RawMember.join(server.url, receive_buffer=4096) for _ in range(3)]
    await members[0].send(text(b"x" * 5000))
    began = asyncio.get_running_loop().time()
    await server.aclose()
    assert asyncio.get_running_loop().time() - began < SECONDS + 0.4
    for member in members:
        frames = await member.read_to_the_end()
        assert [frame.payload[:2] for frame in frames if frame.opcode == Opcode.CLOSE] == [b"\x03\xe9"]
        member.leave()
    for _, writer in silent:
        writer.close()
