"""What the chat logs: whose connection each line is about, and never what a client keeps secret or wants to forge."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from chatlab.chat.app import Call
from chatlab.chat.logs import ConnectionLog
from chatlab.chat.server import ChatServer
from chatlab.journal import JsonLines, Lines
from tests.support.stomp_peer import Peer, chat

SEND = "/app/chat.sendMessage"


class Book(logging.Handler):
    """Keeps what was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def said(self, connection: object) -> list[str]:
        return [record.getMessage() for record in self.records if vars(record).get("connection") == connection]


@pytest.fixture
def book() -> Iterator[Book]:
    book, logger = Book(), logging.getLogger("chatlab.chat")
    level = logger.level
    logger.addHandler(book)
    logger.setLevel(logging.INFO)
    yield book
    logger.removeHandler(book)
    logger.setLevel(level)


def test_a_line_has_the_connections_field_and_its_own(book: Book) -> None:
    log = ConnectionLog(logging.getLogger("chatlab.chat"), {"connection": "4f2a-1"})
    log.info("connected", extra={"user": "민지"})
    log.info("ended")
    shown = [Lines().format(record).split(" ", 1)[1] for record in book.records]
    assert shown == [
        "INFO chatlab.chat connected connection=4f2a-1 user=민지",
        "INFO chatlab.chat ended connection=4f2a-1",
    ]


async def test_each_line_is_found_by_the_session_that_the_client_was_told(server: ChatServer, book: Book) -> None:
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
    assert len(book.records) == 6, "there is no line that belongs to nobody"


@pytest.mark.parametrize("form", [Lines(), JsonLines()], ids=["for people", "as JSON"])
async def test_what_a_user_wrote_stays_on_its_line_and_secrets_and_bodies_stay_out(
    server: ChatServer, book: Book, form: logging.Formatter
) -> None:
    forged = "/elsewhere\n12:00:00 ERROR chatlab.chat all is lost\x1b[2J\u2028"
    async with Peer(server.url, "eve", passcode="hunter2", token="t-eve") as eve:
        await eve.send("SEND", chat("between us", room="no such room!"), destination=SEND)
        await eve.send("SUBSCRIBE", id="0", destination=forged)
        await eve.close_code()
    lines = [form.format(record) for record in book.records]
    assert all(line.isprintable() for line in lines), lines
    assert any("all is lost" in line for line in lines), "it is in the log, as what it is"
    for secret in ("hunter2", "t-eve", "between us"):
        assert not any(secret in line for line in lines)


async def test_a_handlers_own_fault_is_in_the_log_with_its_traceback_and_its_connection(
    server: ChatServer, book: Book
) -> None:
    @server.service.app.message("/divide")
    def divide(number: int, call: Call) -> float:
        return 1 / number

    async with Peer(server.url) as peer:
        await peer.send("SEND", "0", destination="/app/divide")
        await peer.nothing_more()
        (record,) = [record for record in book.records if record.levelno == logging.ERROR]
    line = json.loads(JsonLines().format(record))
    assert (line["event"], line["destination"]) == ("handler failed", "/app/divide")
    assert line["connection"] == peer.connected.get("session")
    assert line["error"].splitlines()[-1] == "ZeroDivisionError: division by zero"
