"""Lesson 06's experiments; each verdict also comes out the other way on a doctored server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.app import Application, User
from chatlab.chat.endpoint import server as chat
from chatlab.lab.claims import Outcome
from chatlab.lab.experiments import lesson06
from chatlab.lab.experiments.lesson06 import CONNECT, SUBSCRIBE, Trip, error_for, over_plain_http, talk, with_stomp_py
from chatlab.lab.runtime import lab
from chatlab.stomp.frames import Frame, Parser

SEND = "SEND\ndestination:/topic/lunch\n\n김밥!\0"


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATLAB_HOME", str(tmp_path))


@pytest_asyncio.fixture
async def server() -> AsyncIterator[chat.ChatServer]:
    async with MemoryBroker() as broker, await chat.start(broker, drain_seconds=0.1) as server:
        yield server


@pytest_asyncio.fixture
async def article() -> AsyncIterator[str]:
    server = await lesson06.start_article()
    yield server.url
    await server.aclose()


@asynccontextmanager
async def counting_characters() -> AsyncIterator[str]:
    """Run a server that passes on as many octets of a body as the body has characters."""

    async def handle(connection: ServerConnection) -> None:
        parser = Parser(version="1.2")
        with contextlib.suppress(ConnectionClosed):
            while True:
                for frame in parser.feed(await connection.recv(decode=False)):
                    if isinstance(frame, Frame):
                        await answer(connection, frame)

    async def answer(connection: ServerConnection, frame: Frame) -> None:
        if frame.command == "CONNECT":
            await connection.send(Frame("CONNECTED", (("version", "1.2"),)).serialize().decode())
        if frame.command == "SEND":
            body = frame.body[: len(frame.body.decode())]
            headers = ("subscription", "1"), ("message-id", "1"), ("destination", frame.get("destination") or "")
            message = Frame("MESSAGE", headers, body).serialize()
            await connection.send(message.decode(errors="replace"))

    async with serve(handle, "127.0.0.1", 0) as running:
        yield f"ws://127.0.0.1:{running.sockets[0].getsockname()[1]}/ws"


# --- Typed frames ---


async def test_the_frames_and_their_answers_are_kept_in_order(server: chat.ChatServer) -> None:
    conversation = await talk(server.url, CONNECT, SUBSCRIBE, SEND)
    assert [(arrow, frame.split("\n")[0]) for arrow, frame in conversation.lines] == [
        ("→", "CONNECT"),
        ("←", "CONNECTED"),
        ("→", "SUBSCRIBE"),
        ("←", "RECEIPT"),
        ("→", "SEND"),
        ("←", "MESSAGE"),
    ]
    assert not conversation.error and not conversation.closed


async def test_two_conversations_look_the_same(server: chat.ChatServer) -> None:
    first, second = [await talk(server.url, CONNECT) for __ in range(2)]
    assert first.answers != second.answers
    assert repr(first) == repr(second)
    assert "session:…" in repr(first)


async def test_an_error_and_the_close_after_it_are_shown(server: chat.ChatServer) -> None:
    conversation = await talk(server.url, SEND, SEND)
    assert conversation.error == "the first frame must be CONNECT, not 'SEND'"
    assert repr(conversation).endswith("closed by the server: 1002")


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (["CONNECT\naccept-version:9.9\nhost:x\n\n\0"], "no common version"),
        ([CONNECT, "SEND\n\nx\0"], "without the header 'destination'"),
        ([CONNECT, "SEND\ndestination:/topik/lunch\n\nx\0"], "unknown destination"),
        ([CONNECT, "SHOUT\n\n\0"], "'SHOUT' is not a command"),
        ([CONNECT, "SEND\ndestination:/topic/a\\t\n\nx\0"], "undefined escape sequence"),
        ([CONNECT, "SEND\ndestination:/topic/a\ncontent-length:4\n\n안녕\0"], "no NUL after the 4 octets"),
        ([CONNECT, "DISCONNECT\n\n\0"], "silence"),
    ],
)
async def test_the_server_names_a_mistake(server: chat.ChatServer, frames: list[str], words: str) -> None:
    assert words in await error_for(server.url, *frames)


async def test_the_articles_server_passes_over_a_destination_that_does_not_exist(article: str) -> None:
    assert await error_for(article, CONNECT, "SEND\ndestination:/topik/lunch\n\nx\0") == "silence"


async def test_a_wait_that_is_too_long_says_what_did_not_come() -> None:
    with pytest.raises(TimeoutError, match=r"^the order did not come within 0\.01 s; run this section"):
        await lesson06.at_most(0.01, asyncio.sleep(5), "the order")


async def test_only_those_with_a_proof_are_admitted() -> None:
    def authenticate(said: object) -> User | None:
        return User("nuri", "nuri") if getattr(said, "passcode", None) == "melon-7" else None

    try:
        server = await lesson06.start_chat(authenticate)
        right = await talk(server.url, CONNECT.replace("\n\n", "\nlogin:nuri\npasscode:melon-7\n\n"))
        wrong = await talk(server.url, CONNECT.replace("\n\n", "\nlogin:nuri\npasscode:melon-8\n\n"))
    finally:
        await lab.stop_all()
    assert right.answers[0].startswith("CONNECTED")
    assert (wrong.error, wrong.closed) == (
        "access refused: login, passcode or token is not valid",
        "closed by the server: 1008",
    )


# --- Other ways, other clients ---


async def test_frames_are_exchanged_over_plain_http(server: chat.ChatServer) -> None:
    connected, receipt, message = await over_plain_http(server.url, CONNECT, SUBSCRIBE, SEND, answers=3)
    assert connected.startswith("CONNECTED\n")
    assert receipt.startswith("RECEIPT\n")
    assert message.endswith("\n\n김밥!\0")


async def test_stomp_py_receives_what_it_sent(server: chat.ChatServer) -> None:
    assert await with_stomp_py(server.url, "/topic/a", "안녕 👋") == "안녕 👋"


async def test_without_a_rabbitmq_it_says_that_tcp_is_not_tested(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AMQP_URL", "amqp://guest:guest@127.0.0.1:1/")
    assert await lesson06.find_rabbitmq() is None
    assert capsys.readouterr().out.startswith("not tested here: ")


@pytest.mark.long
async def test_rabbitmq_speaks_stomp_over_tcp() -> None:
    try:
        if (rabbitmq := await lesson06.find_rabbitmq()) is None:
            pytest.skip("no RabbitMQ here")
        assert (await lesson06.find_rabbitmq()) == rabbitmq
        assert (await lesson06.round_trips("ws://127.0.0.1:1/ws", rabbitmq))["RabbitMQ"].unchanged
    finally:
        await lab.stop_all()


# --- The verdicts ---


async def test_c34_holds_on_our_server_for_clients_of_sockjs(server: chat.ChatServer) -> None:
    found = await lesson06.endpoint(server.url)
    assert found == dict.fromkeys(found, "")
    judged = lesson06.c34(found, server.url)
    assert (judged.outcome, judged.figure.value if judged.figure else None) == (Outcome.HOLDS_WHEN, 4)
    assert judged.again is not None
    assert (await judged.again()).outcome is Outcome.HOLDS_WHEN


async def test_c34_does_not_hold_without_sockjs(article: str) -> None:
    found = await lesson06.endpoint(article)
    assert [name for name, fault in found.items() if fault] == ["withSockJS()"]
    assert lesson06.c34(found).outcome is Outcome.DOES_NOT_HOLD


async def test_c34_does_not_hold_without_an_application() -> None:
    async with MemoryBroker() as broker, await chat.start(broker, app=Application(), drain_seconds=0.1) as server:
        found = await lesson06.endpoint(server.url)
    assert [name for name, fault in found.items() if fault] == ["setApplicationDestinationPrefixes(/app)"]
    assert lesson06.c34(found).outcome is Outcome.DOES_NOT_HOLD


async def test_c41_holds_for_every_client_and_way(server: chat.ChatServer) -> None:
    trips = await lesson06.round_trips(server.url)
    assert all(trip.unchanged for trip in trips.values()), trips
    judged = lesson06.c41(trips, server.url)
    assert judged.outcome is Outcome.HOLDS_WHEN
    assert "not tested here" in judged.measured


async def test_c41_holds_without_a_condition_where_only_a_websocket_works() -> None:
    trips = {"one": Trip("WebSocket", "text", "text"), "other": Trip("WebSocket", "text", "text")}
    assert lesson06.c41(trips).outcome is Outcome.HOLDS


async def test_c41_does_not_hold_on_a_server_that_counts_characters() -> None:
    async with counting_characters() as url:
        trips = {"frames by hand": Trip("WebSocket", lesson06.TEXT, await lesson06._or_error(lesson06._by_hand(url)))}
    judged = lesson06.c41(trips)
    assert judged.outcome is Outcome.DOES_NOT_HOLD
    assert judged.figure is not None and judged.figure.value == 0


@pytest.mark.long
async def test_c42_holds_where_the_server_has_the_patterns(server: chat.ChatServer, article: str) -> None:
    here, there = await lesson06.patterns(server.url), await lesson06.patterns(article)
    assert here == dict.fromkeys(here, "")
    assert [name for name, fault in there.items() if not fault] == ["to all subscribers"]
    assert lesson06.c42(here, there).outcome is Outcome.HOLDS_WHEN
    assert lesson06.c42(here, here).outcome is Outcome.HOLDS
    assert lesson06.c42(there, there).outcome is Outcome.DOES_NOT_HOLD
