"""The chat's log: each line names its connection, and holds neither secrets nor forged lines."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator

import pytest

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.app import Call
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint.server import ChatServer
from chatlab.chat.session.connection import StompConnection
from chatlab.chat.session.logs import ConnectionLog
from chatlab.lab.until import until
from chatlab.logs.setup import JsonFormatter, TextFormatter
from chatlab.net.fanout import SlowReaderPolicy
from tests.support.stomp_peer import UPGRADE, Peer, chat

SEND = "/app/chat.sendMessage"


class Book(logging.Handler):
    """Keep the records that were logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def said(self, connection: object) -> list[str]:
        return [record.getMessage() for record in self.records if vars(record).get("connection") == connection]


@pytest.fixture
def book(monkeypatch: pytest.MonkeyPatch) -> Iterator[Book]:
    monkeypatch.setattr("chatlab.chat.session.logs._throttled", {})  # other tests' lines do not use up these tests'
    book, logger = Book(), logging.getLogger("chatlab.chat")
    level = logger.level
    logger.addHandler(book)
    logger.setLevel(logging.INFO)
    yield book
    logger.removeHandler(book)
    logger.setLevel(level)


def test_a_log_line_has_the_connections_field_and_its_own(book: Book) -> None:
    log = ConnectionLog(logging.getLogger("chatlab.chat"), {"connection": "4f2a-1"})
    log.info("connected", extra={"user": "민지"})
    log.info("ended")
    shown = [TextFormatter().format(record).split(" ", 1)[1] for record in book.records]
    assert shown == [
        "INFO chatlab.chat connected connection=4f2a-1 user=민지",
        "INFO chatlab.chat ended connection=4f2a-1",
    ]


async def test_each_log_line_is_found_by_the_session_id_in_connected(server: ChatServer, book: Book) -> None:
    async with Peer(server.url, "ann") as ann, Peer(server.url, "bob") as bob:
        await ann.send("SEND", "no JSON", destination=SEND)
        await ann.send("SUBSCRIBE", id="0", destination="/elsewhere")
        await ann.frame("ERROR")
        await ann.close_code()
        await bob.receipt("DISCONNECT")
        await bob.close_code()
        sessions = [peer.connected.get("session") for peer in (ann, bob)]
    assert None not in sessions
    assert book.said(sessions[0]) == ["connected", "message refused", "refused", "ended"]
    assert book.said(sessions[1]) == ["connected", "ended"]
    assert len(book.records) == 6, "every line belongs to a session"


@pytest.mark.parametrize("form", [TextFormatter(), JsonFormatter()], ids=["for people", "as JSON"])
async def test_user_input_cannot_break_a_log_line_and_secrets_and_bodies_are_not_logged(
    server: ChatServer, book: Book, form: logging.Formatter
) -> None:
    forged = "/elsewhere\n12:00:00 ERROR chatlab.chat all is lost\x1b[2J\u2028"
    async with Peer(server.url, "eve", passcode="hunter2", token="t-eve") as eve:
        await eve.send("SEND", chat("between us", room="no such room!"), destination=SEND)
        await eve.send("SUBSCRIBE", id="0", destination=forged)
        await eve.close_code()
    lines = [form.format(record) for record in book.records]
    assert all(line.isprintable() for line in lines), lines
    assert any("all is lost" in line for line in lines), "the text is logged as a value"
    for secret in ("hunter2", "t-eve", "between us"):
        assert not any(secret in line for line in lines)


async def test_a_handlers_exception_is_logged_with_its_traceback_and_its_connection(
    server: ChatServer, book: Book
) -> None:
    @server.service.app.message("/divide")
    def divide(number: int, call: Call) -> float:
        return 1 / number

    async with Peer(server.url) as peer:
        await peer.send("SEND", "0", destination="/app/divide")
        await peer.nothing_more()
        (record,) = [record for record in book.records if record.levelno == logging.ERROR]
    line = json.loads(JsonFormatter().format(record))
    assert (line["event"], line["destination"]) == ("handler failed", "/app/divide")
    assert line["connection"] == peer.connected.get("session")
    assert line["error"].splitlines()[-1] == "ZeroDivisionError: division by zero"


STREAM = "/ws/0/chosen-by-the-client/xhr_streaming"


@pytest.mark.parametrize("way", ["websocket", "SockJS websocket", "SockJS"])
async def test_every_log_line_about_a_connection_has_its_id_on_every_transport(
    broker: MemoryBroker, book: Book, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines of its session and of its transport: a ping without an answer, a slow reader."""
    monkeypatch.setattr(chat_server, "PING_SECONDS", 0.2)
    fanout = logging.getLogger("chatlab.net.fanout")
    fanout.addHandler(book)
    slow = SlowReaderPolicy(max_buffered=1000, drain_seconds=0.1)
    async with await chat_server.start(broker, slow_readers=slow) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(opening(way))
        await until(lambda: server.service.connections)
        (connection,) = server.service.connections
        assert isinstance(connection, StompConnection)
        if way == "SockJS":
            reader._transport.pause_reading()  # type: ignore[attr-defined]  # the client stops reading
            await reader.readuntil(b"o\n")
            connection.transport.sink.write(b"x" * 20_000_000)
            server.service.fanout.send(b"x" * 2_000, (connection.transport.sink,))
        await until(lambda: not server.service.connections)
        writer.close()
    fanout.removeHandler(book)
    expected = "no answer to a ping" if "websocket" in way else "closed: slow reader"
    book.records = [record for record in book.records if record.module != "service"]  # without the server's own lines
    said = book.said(connection.id)
    assert any(expected in line for line in said) and "ended" in said
    assert len(said) == len(book.records), [record.getMessage() for record in book.records]


def opening(way: str) -> bytes:
    if way == "SockJS":
        return f"POST {STREAM} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode()
    return UPGRADE if way == "websocket" else UPGRADE.replace(b"/ws", b"/ws/0/chosen-by-the-client/websocket")
