"""The hand-written client talks to real servers, sends exact bytes, and notices every kind of end."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from chatlab import echo
from chatlab.errors import HandshakeError
from chatlab.lab.hand_client import KEY, HandClient
from chatlab.lab.wire.wire import Wire
from chatlab.websocket.connection import Closed, Failed, Message, Pong, State
from chatlab.websocket.frames import Frame, Opcode


@pytest.fixture(params=[echo.start, echo.start_by_hand], ids=["library", "by hand"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[echo.EchoServer]:
    async with await request.param() as server:
        yield server


async def test_the_client_sends_a_message_and_receives_the_answer(server: echo.EchoServer) -> None:
    client = await HandClient.connect(server.url)

    await client.send("안녕 👋")

    assert await client.next(Message) == Message("안녕 👋")
    await client.aclose()


async def test_the_client_sends_the_same_bytes_in_every_run() -> None:
    async with await echo.start_by_hand() as server, Wire(server.url) as wire:
        client = await HandClient.connect(wire.url)
        await client.send("Hello")
        await client.next(Message)
        await client.aclose()

    assert f"Sec-WebSocket-Key: {KEY}".encode() in wire.trace.first("http", "request").data
    # RFC 6455, 5.7: "a single-frame masked text message"
    assert wire.trace.first("websocket", "text").data.hex(" ") == "81 85 37 fa 21 3d 7f 9f 4d 51 58"


async def test_next_skips_events_of_other_kinds(server: echo.EchoServer) -> None:
    client = await HandClient.connect(server.url)

    await client.ping(b"still there?")
    await client.send("one")

    assert await client.next(Message) == Message("one")
    assert Pong(b"still there?") in client.events
    with pytest.raises(TimeoutError):
        await client.next(Pong, timeout=0.05)
    await client.aclose()


async def test_written_bytes_go_out_as_they_are(server: echo.EchoServer) -> None:
    client = await HandClient.connect(server.url)

    await client.write(Frame(Opcode.TEXT, b"not masked").serialize())  # 5.1 forbids it

    assert (await client.next(Closed)).code == 1002
    await client.aclose()


async def test_close_waits_for_the_end_and_returns_its_code(server: echo.EchoServer) -> None:
    client = await HandClient.connect(server.url)

    closed = await client.close(1000, "잘 가요")

    assert closed.code == 1000 and closed.clean
    assert client.connection.state is State.CLOSED
    await client.aclose()


async def test_the_client_answers_a_close_from_the_server(server: echo.EchoServer) -> None:
    client = await HandClient.connect(server.url)

    await server.aclose()

    assert await client.next(Closed) == Closed(1001, "", clean=True)
    await client.aclose()


async def test_a_reset_is_reported_as_1006(server: echo.EchoServer) -> None:
    async with Wire(server.url) as wire:
        client = await HandClient.connect(wire.url)
        wire.reset()

        assert await client.next(Closed) == Closed(1006, "", clean=False)
        await client.aclose()


async def test_a_refused_handshake_raises(server: echo.EchoServer) -> None:
    with pytest.raises(HandshakeError, match="403"):
        await HandClient.connect(server.url, origin="https://evil.example")


async def test_the_client_closes_with_1002_when_the_server_breaks_a_rule() -> None:
    received = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
        writer.write(b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
        writer.write(bytes.fromhex("83 00"))  # opcode 3 is reserved
        received.set_result(await reader.read())
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        client = await HandClient.connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        failed = await client.next(Failed)
        frame, _ = Frame.parse(await received) or (None, 0)
        await client.aclose()

    assert "opcode 3" in str(failed.error)
    assert frame is not None and frame.opcode == Opcode.CLOSE and frame.payload[:2] == b"\x03\xea"


async def test_connecting_to_a_server_that_never_answers_can_time_out() -> None:
    async with await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await HandClient.connect(f"ws://127.0.0.1:{port}/")
