"""The echo servers on real sockets: the one on the library `websockets`, and the one by hand."""

from __future__ import annotations

import asyncio
import http.client
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus
from websockets.frames import Close as LibraryClose

from chatlab import echo
from chatlab.websocket.connection import MAX_MESSAGE
from chatlab.websocket.frames import Close, Frame, Opcode
from chatlab.websocket.handshake import Request, make_request
from tests.support.conversation import binary, close, close_code, frame, more, parse_all, ping, text

Start = Callable[..., Awaitable[echo.EchoServer]]


@pytest.fixture(params=[echo.start, echo.start_by_hand], ids=["library", "by hand"])
def start(request: pytest.FixtureRequest) -> Start:
    chosen: Start = request.param
    return chosen


@pytest.fixture
async def by_hand() -> AsyncIterator[echo.EchoServer]:
    async with await echo.start_by_hand() as server:
        yield server


class Raw:
    """A client that sends exactly the given bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, server: echo.EchoServer, request: Request | None = None) -> Raw:
        raw = cls(*await asyncio.open_connection("127.0.0.1", server.port))
        raw.writer.write((request or make_request(server.url, compression=False)).serialize())
        return raw

    @classmethod
    async def opened(cls, server: echo.EchoServer) -> Raw:
        raw = await cls.connect(server)
        assert (await raw.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        return raw

    async def rest(self) -> bytes:
        """Return everything received until the server closes the TCP connection."""
        async with asyncio.timeout(5):
            return await self.reader.read()

    async def aclose(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


class TestBothServers:
    """The requirements on both servers."""

    async def test_each_message_is_echoed_unchanged(self, start: Start) -> None:
        async with await start() as server, connect(server.url) as client:
            for message in ("Hello", "안녕하세요 😀", "", b"\x00\xff", b""):
                await client.send(message)
                assert await client.recv() == message

    @pytest.mark.parametrize("compression", ["deflate", None])
    async def test_a_message_of_sixteen_mebibytes_is_echoed(self, start: Start, compression: str | None) -> None:
        async with await start() as server, connect(server.url, max_size=None, compression=compression) as client:
            message = bytes(range(256)) * (MAX_MESSAGE // 256)
            await client.send(message)
            assert await client.recv() == message

    async def test_a_message_one_octet_over_the_limit_is_refused_with_1009(self, start: Start) -> None:
        async with await start(max_message=1000) as server, connect(server.url) as client:
            await client.send(b"a" * 1000)
            assert await client.recv() == b"a" * 1000
            with pytest.raises(ConnectionClosedError) as closed:
                await client.send(b"a" * 1001)
                await client.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1009

    async def test_both_directions_carry_data_at_once(self, start: Start) -> None:
        async with await start() as server, connect(server.url) as client:

            async def send() -> None:
                for i in range(500):
                    await client.send(f"{i} " * 200)

            sending = asyncio.create_task(send())
            received = [await client.recv() for _ in range(500)]
            await sending
            assert received == [f"{i} " * 200 for i in range(500)]

    async def test_clients_receive_only_their_own_messages(self, start: Start) -> None:
        async def echo_ten(server: echo.EchoServer, name: str) -> list[str | bytes]:
            async with connect(server.url) as client:
                for i in range(10):
                    await client.send(f"{name} {i}")
                return [await client.recv() for _ in range(10)]

        async with await start() as server:
            received = await asyncio.gather(*(echo_ten(server, f"client {n}") for n in range(20)))
        assert received == [[f"client {n} {i}" for i in range(10)] for n in range(20)]

    @pytest.mark.parametrize("offer", ["deflate", None])
    async def test_compression_is_used_when_both_sides_offer_it(self, start: Start, offer: str | None) -> None:
        for enabled in (True, False):
            async with await start(compression=enabled) as server, connect(server.url, compression=offer) as client:
                assert bool(client.protocol.extensions) == (enabled and offer is not None)
                await client.send("Hello" * 100)
                assert await client.recv() == "Hello" * 100

    async def test_a_page_of_another_origin_is_refused(self, start: Start) -> None:
        async with await start(origins=["http://good.example"]) as server:
            own = f"http://127.0.0.1:{server.port}"
            for origin in (None, own, "http://good.example"):
                async with connect(server.url, origin=origin) as client:  # type: ignore[arg-type]  # a NewType of str
                    await client.send("Hello")
                    assert await client.recv() == "Hello"
            with pytest.raises(InvalidStatus) as refused:
                await connect(server.url, origin="http://evil.example")  # type: ignore[arg-type]  # the same
            assert refused.value.response.status_code == 403
            assert refused.value.response.body == b"pages of 'http://evil.example' may not connect here\n"

    async def test_a_plain_get_is_answered_with_an_explanation(self, start: Start) -> None:
        def get(port: int) -> tuple[int, str | None]:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/")
            answer = connection.getresponse()
            answer.read()
            connection.close()
            return answer.status, answer.getheader("Upgrade")

        async with await start() as server:
            assert await asyncio.to_thread(get, server.port) == (426, "websocket")

    async def test_closing_the_server_sends_1001_to_every_client(self, start: Start) -> None:
        server = await start()
        clients = [await connect(server.url) for _ in range(3)]
        await server.aclose()
        for client in clients:
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            assert closed.value.rcvd == LibraryClose(1001, "")
        with pytest.raises(OSError, match="Connect call failed"):
            await asyncio.open_connection("127.0.0.1", server.port)

    async def test_closing_the_server_twice_is_safe(self, start: Start) -> None:
        server = await start()
        await server.aclose()
        await server.aclose()

    async def test_a_client_that_does_not_answer_the_close_does_not_delay_shutdown(self, start: Start) -> None:
        server = await start(close_timeout=0.1)
        silent = await Raw.opened(server)
        async with asyncio.timeout(5):
            await server.aclose()
        assert parse_all(await silent.rest())[0].payload[:2] == b"\x03\xe9"
        await silent.aclose()

    async def test_a_client_that_stops_reading_does_not_delay_shutdown(self, start: Start) -> None:
        server = await start(close_timeout=0.1, compression=False)
        stalled = await Raw.opened(server)
        stalled.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket transport, which can
        stalled.writer.write(binary(bytes(8_000_000)))
        other = await connect(server.url)
        await other.send("Hello")
        assert await other.recv() == "Hello"
        async with asyncio.timeout(5):
            await server.aclose()
        stalled.writer.transport.abort()

    async def test_a_client_that_resets_its_connection_does_not_affect_others(self, start: Start) -> None:
        async with await start() as server:
            reset_client = await Raw.opened(server)
            sock = reset_client.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close with a reset
            reset_client.writer.write(text(b"Hello"))
            reset_client.writer.transport.abort()
            async with connect(server.url) as client:
                await client.send("Hello")
                assert await client.recv() == "Hello"

    async def test_a_port_in_use_raises_an_oserror(self, start: Start) -> None:
        async with await start() as server:
            with pytest.raises(OSError, match="address already in use"):
                await start(port=server.port)

    async def test_the_servers_url_has_its_host_and_port(self, start: Start) -> None:
        async with await start() as server:
            assert server.url == f"ws://127.0.0.1:{server.port}/"


class TestByHand:
    """Behaviour that only a real socket shows; tests/websocket/test_conformance.py tests the protocol's rules."""

    async def test_a_close_is_answered_and_the_server_ends_tcp_first(self, by_hand: echo.EchoServer) -> None:
        raw = await Raw.opened(by_hand)
        raw.writer.write(text(b"Hello") + close(1000))
        assert parse_all(await raw.rest()) == [Frame(Opcode.TEXT, b"Hello"), Frame(Opcode.CLOSE, b"\x03\xe8")]
        await raw.aclose()

    async def test_a_client_reads_the_close_after_a_failure_although_more_data_was_sent(
        self, by_hand: echo.EchoServer
    ) -> None:
        raw = await Raw.opened(by_hand)
        raw.writer.write(frame(3) + binary(bytes(1_000_000)))
        answers = parse_all(await raw.rest())
        assert [close_code(answer) for answer in answers] == [1002]
        await raw.aclose()

    async def test_a_client_reads_the_refusal_before_the_connection_closes(self, by_hand: echo.EchoServer) -> None:
        raw = await Raw.connect(by_hand, Request("/", (("Host", "a"),)))
        answer = await raw.rest()
        assert answer.startswith(b"HTTP/1.1 426 Upgrade Required\r\n")
        assert answer.endswith(b"this address speaks WebSocket only\n")
        await raw.aclose()

    async def test_a_conversation_sent_octet_by_octet_is_answered(self, by_hand: echo.EchoServer) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", by_hand.port)
        request = make_request(by_hand.url, compression=False).serialize()
        for octet in request + text(b"Hel", fin=False) + ping(b"?") + more(b"lo") + close(1000):
            writer.write(bytes([octet]))
            await writer.drain()
        raw = Raw(reader, writer)
        head, _, frames = (await raw.rest()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert [str(each).split(" [")[0] for each in parse_all(frames)] == [
            'PONG "?"',
            'TEXT "Hello"',
            f"CLOSE {Close(1000)}",
        ]
        await raw.aclose()

    async def test_frames_in_the_same_packet_as_the_request_are_read(self, by_hand: echo.EchoServer) -> None:
        raw = await Raw.connect(by_hand)
        raw.writer.write(text(b"Hello") + close(1000))
        _, _, frames = (await raw.rest()).partition(b"\r\n\r\n")
        assert [each.opcode for each in parse_all(frames)] == [Opcode.TEXT, Opcode.CLOSE]
        await raw.aclose()

    async def test_a_half_closed_client_still_receives_its_answers(self, by_hand: echo.EchoServer) -> None:
        raw = await Raw.opened(by_hand)
        raw.writer.write(binary(bytes(3_000_000)))
        raw.writer.write_eof()
        (answer,) = parse_all(await raw.rest())
        assert answer.payload == bytes(3_000_000)
        await raw.aclose()

    async def test_a_handshake_that_takes_too_long_is_aborted(self) -> None:
        async with await echo.start_by_hand(open_timeout=0.05) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            raw = Raw(reader, writer)
            writer.write(b"GET / HTTP/1.1\r\n")
            assert await raw.rest() == b""
            await raw.aclose()

    async def test_a_client_may_be_silent_after_the_handshake(self) -> None:
        async with await echo.start_by_hand(open_timeout=0.05) as server, connect(server.url) as client:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.recv(), 0.15)
            await client.send("still here")
            assert await client.recv() == "still here"

    async def test_a_subprotocol_is_chosen(self) -> None:
        offered: list = ["a", "b"]
        async with (
            await echo.start_by_hand(subprotocols=["b", "a"]) as server,
            connect(server.url, subprotocols=offered) as client,
        ):
            assert client.subprotocol == "b"

    async def test_pings_from_the_library_are_answered(self, by_hand: echo.EchoServer) -> None:
        client: ClientConnection
        async with connect(by_hand.url) as client:
            for _ in range(20):
                async with asyncio.timeout(5):
                    await (await client.ping())
