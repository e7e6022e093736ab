"""The server's end of a WebSocket: the protocol, and clients that do not read, are silent, or have disconnected."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import cast

import pytest

from chatlab.chat.delivery.transport import websocket_frame
from chatlab.chat.endpoint.server import ChatServer
from chatlab.lab.until import until
from chatlab.net.endpoint import READ_AHEAD, EndSettings, WebSocketEnd
from chatlab.websocket.connection import Connection
from chatlab.websocket.frames import Frame, Side
from tests.support.conversation import close, close_code, frame, more, parse_all, ping, text
from tests.support.feeding import Split, byte_by_byte, whole
from tests.support.stomp_peer import UPGRADE, Peer, raw_websocket
from tests.support.websocket_cases import CASES, Case

pytestmark = pytest.mark.every_loop

CONNECT = b"CONNECT\naccept-version:1.2\nhost:x\n\n\0"


class Echoes:
    """Connections whose peer echoes each message, once `hold` is set, and records its calls."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.kinds: list[bool] = []
        self.opened = 0
        self.ended = 0
        self.cancelled = 0  # messages whose echo was cancelled
        self.hold: asyncio.Event | None = None
        self.settings = EndSettings(close_timeout=10)
        self.websocket: Connection
        self.ends: list[WebSocketEnd] = []

    @property
    def last_end(self) -> WebSocketEnd:
        return self.ends[-1]

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24)

    async def start(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(lambda: Opening(self), "127.0.0.1")
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        self._server.close()

    def receive(self, data: bytes, text: bool) -> bool:
        self.received.append(data)
        self.kinds.append(text)
        if self.hold is None:
            self.last_end.write(websocket_frame(data))
        return self.hold is None

    async def finish(self) -> None:
        assert self.hold is not None
        data = self.received[-1]
        try:
            await self.hold.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if data == b"bug":
            raise ZeroDivisionError
        if data == b"gives up":
            raise asyncio.CancelledError
        self.last_end.write(websocket_frame(data))

    def end(self) -> None:
        self.cancelled_before_the_end = self.cancelled
        self.ended += 1


class Opening(asyncio.Protocol):
    """Opens a WebSocket on each new connection without a handshake, which is not tested here."""

    def __init__(self, echoes: Echoes) -> None:
        self._echoes = echoes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._echoes.opened += 1
        self._echoes.websocket = Connection.opened(Side.SERVER, max_message=16 << 20)
        end = WebSocketEnd(
            cast(asyncio.Transport, transport),
            self._echoes.websocket,
            lambda end: self._echoes,
            name="1",
            log=logging.LoggerAdapter(logging.getLogger("chatlab.test"), {"connection": "1"}),
            settings=self._echoes.settings,
        )
        self._echoes.ends.append(end)


@pytest.fixture
async def echoes() -> AsyncIterator[Echoes]:
    echoes = Echoes()
    await echoes.start()
    yield echoes
    echoes.stop()


# --- The protocol ---


@pytest.mark.parametrize("split", [whole, byte_by_byte], ids=lambda split: split.__name__)
async def test_the_endpoint_passes_the_cases_of_the_autobahn_suite(echoes: Echoes, split: Split) -> None:
    for case in CASES:
        if split is whole or len(case.sent) < 5000:
            await _check(echoes, case, split)
    await until(lambda: echoes.ended == echoes.opened)


async def _check(echoes: Echoes, case: Case, split: Split) -> None:
    reader, writer = await echoes.open()
    for piece in split(case.sent):
        writer.write(piece)
        await asyncio.sleep(0)
    *answers, last = parse_all(await reader.read())
    assert list(map(_comparable, answers)) == list(map(_comparable, case.answers)), case.number
    assert close_code(last) == case.code, case.number
    writer.close()


def _comparable(answer: Frame) -> tuple[bool, bytes]:
    """Return what can be compared: the chat does not distinguish text from binary."""
    return answer.header.is_control, answer.payload


async def test_an_unmasked_frame_closes_the_connection(server: ChatServer) -> None:
    """RFC 6455, 5.1: "The server MUST close the connection upon receiving a frame that is not masked." """
    reader, writer = await raw_websocket(server.port)
    writer.write(frame(1, CONNECT, mask=None))
    (answer,) = parse_all(await reader.read())
    assert answer.payload == b"\x03\xeaTEXT frame from the client is not masked"
    writer.close()


async def test_an_unsupported_version_is_answered_with_version_13(server: ChatServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(UPGRADE.replace(b"Version: 13", b"Version: 8"))
    answer = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 426 ") and b"\r\nSec-WebSocket-Version: 13\r\n" in answer
    writer.close()


async def test_frames_sent_together_with_the_request_are_read(server: ChatServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(UPGRADE + text(CONNECT) + text(b"DISCONNECT\nreceipt:bye\n\n\0")[:9])
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    assert b"CONNECTED\n" in await reader.readuntil(b"\n\n\0")
    writer.write(text(b"DISCONNECT\nreceipt:bye\n\n\0")[9:])
    assert b"receipt-id:bye\n" in await reader.readuntil(b"\n\n\0")
    writer.close()


async def test_fragments_a_ping_between_them_and_the_next_message_are_answered_in_order(echoes: Echoes) -> None:
    reader, writer = await echoes.open()
    writer.write(text(b"one") + text(b"tw", fin=False) + ping(b"?") + more(b"o") + text(b"three") + close(1000))
    answers = parse_all(await reader.read())
    assert [answer.payload for answer in answers] == [b"one", b"?", b"two", b"three", b"\x03\xe8"]
    writer.close()


# --- A message that the peer has to finish ---


async def test_messages_wait_in_order_while_the_peer_finishes_one(echoes: Echoes) -> None:
    echoes.hold = asyncio.Event()
    reader, writer = await echoes.open()
    messages = [b"%d" % number for number in range(5)]
    writer.write(b"".join(map(text, messages)) + ping(b"?"))
    await until(lambda: echoes.received)
    writer.write(text(b"last") + close(1000))
    assert echoes.received == [b"0"]
    echoes.hold.set()
    answers = [answer.payload for answer in parse_all(await reader.read())]
    assert answers == [*messages, b"?", b"last", b"\x03\xe8"]
    writer.close()


async def test_reading_pauses_while_the_peer_finishes_a_message(echoes: Echoes) -> None:
    echoes.hold = asyncio.Event()
    reader, writer = await echoes.open()
    size, count = 50_000, 400
    writer.write(text(bytes(size)) * count)
    await until(lambda: not echoes.last_end.transport.is_reading())
    assert READ_AHEAD < echoes.last_end.unread < READ_AHEAD + (1 << 18)
    assert len(echoes.received) == 1
    echoes.hold.set()
    assert len(await reader.readexactly(count * (size + 4))) == count * (size + 4)
    writer.close()


async def test_our_close_is_answered_while_the_peer_finishes_a_message(echoes: Echoes) -> None:
    echoes.hold = asyncio.Event()
    reader, writer = await echoes.open()
    writer.write(text(b"x") * 3)
    await until(lambda: echoes.received)
    echoes.last_end.close(1001, "server shutting down")
    assert (await reader.readexactly(24))[2:] == b"\x03\xe9server shutting down"
    writer.write(close(1001))
    assert await reader.read() == b""
    writer.close()
    await until(lambda: echoes.ended)
    assert (len(echoes.received), echoes.cancelled, echoes.ended) == (1, 1, 1)


async def test_a_clients_close_queued_behind_a_message_answers_our_close(echoes: Echoes) -> None:
    echoes.hold = asyncio.Event()
    reader, writer = await echoes.open()
    writer.write(text(b"x") * 2 + close(1001))
    await until(lambda: echoes.received and echoes.last_end.unread)
    echoes.last_end.close(1001, "")
    async with asyncio.timeout(5):  # without waiting for the close timeout
        assert await reader.read() == b"\x88\x02\x03\xe9"
    writer.close()
    await until(lambda: echoes.ended)
    assert echoes.received == [b"x"]


async def test_finish_is_cancelled_before_end_is_called_when_the_client_disconnects(echoes: Echoes) -> None:
    echoes.hold = asyncio.Event()
    _, writer = await echoes.open()
    writer.write(text(b"x") + text(b"never handled"))
    await until(lambda: echoes.received)
    writer.transport.abort()
    await until(lambda: echoes.ended)
    assert (echoes.received, echoes.cancelled_before_the_end, echoes.ended) == ([b"x"], 1, 1)


@pytest.mark.parametrize("fault", ["bug", "gives up"])
async def test_an_error_in_finish_drops_the_connection_and_is_logged(
    echoes: Echoes, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    echoes.hold = asyncio.Event()
    echoes.hold.set()
    reader, writer = await echoes.open()
    writer.write(text(fault.encode()))
    with pytest.raises(ConnectionError):
        assert await reader.read() == b""
        raise ConnectionResetError  # an event loop may report a reset as an end
    (record,) = caplog.records
    assert record.getMessage().startswith("connection dropped") and vars(record)["connection"] == "1"
    assert ("ZeroDivisionError" in caplog.text) == (fault == "bug")
    writer.close()
    await until(lambda: echoes.ended)


# --- Clients that do not read, are silent, or disconnect ---


async def test_reading_pauses_while_a_client_does_not_read_its_pongs(echoes: Echoes) -> None:
    reader, writer = await echoes.open()
    reader._transport.pause_reading()  # type: ignore[attr-defined]  # the client stops reading
    count = 100_000
    writer.write(ping(b"?" * 125) * count)
    await until(lambda: not echoes.last_end.transport.is_reading())
    assert echoes.last_end.buffered() < 1 << 20
    reader._transport.resume_reading()  # type: ignore[attr-defined]
    assert len(await reader.readexactly(count * 127)) == count * 127, (
        "the client must receive every Pong after it reads again"
    )
    writer.close()


async def test_a_client_that_does_not_answer_our_close_is_dropped(echoes: Echoes) -> None:
    echoes.settings = EndSettings(close_timeout=0.1)
    reader, writer = await echoes.open()
    writer.write(text(b"x"))
    await reader.readexactly(3)
    echoes.last_end.close(1008, "slow reader" * 20)
    (answer,) = parse_all(await reader.read())
    assert answer.payload == b"\x03\xf0" + (b"slow reader" * 20)[:123]
    await until(lambda: echoes.ended)
    writer.close()


async def test_our_close_after_an_invalid_frame_arrives_while_the_client_keeps_sending(echoes: Echoes) -> None:
    reader, writer = await echoes.open()
    writer.write(frame(3) + text(bytes(1 << 20)) * 3)
    (answer,) = parse_all(await reader.read())
    assert close_code(answer) == 1002
    writer.write(text(bytes(1 << 20)))
    await writer.drain()
    writer.close()
    await until(lambda: echoes.ended)
    assert echoes.received == []


async def test_a_client_that_disconnects_without_a_close_is_cleaned_up(
    server: ChatServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with Peer(server.url) as peer:
        for data in (b"", text(CONNECT), text(CONNECT) + close(1000), frame(3)):
            _, writer = await raw_websocket(server.port)
            writer.write(data)
            writer.transport.abort()
        await until(lambda: len(server.service.connections) == 1)
        await peer.subscribe("/topic/public")
    assert caplog.records == []
