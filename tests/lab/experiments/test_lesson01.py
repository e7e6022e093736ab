"""Lesson 01's experiments on real sockets: a board that is silent until asked, an extra response, raw handshakes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from chatlab import echo
from chatlab.lab.claims import Outcome
from chatlab.lab.experiments import lesson01
from chatlab.lab.experiments.lesson01 import Visit
from chatlab.lab.hand_client import KEY, HandClient
from chatlab.lab.wire.trace import Trace
from chatlab.lab.wire.wire import Wire
from chatlab.websocket.connection import Closed, Message
from chatlab.websocket.handshake import accept_key

SWITCHING = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
HELLO = bytes.fromhex("81 05 48 65 6c 6c 6f")
REQUEST = (
    "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def test_the_board_answers_with_its_newest_notice_and_sends_nothing_unasked() -> None:
    board = await lesson01.start_board()
    reader, writer = await asyncio.open_connection("127.0.0.1", board.port)
    try:
        board.post("점심 먹을까요? 🍜")
        assert await lesson01.hear(reader, seconds=0.1) == b""

        writer.write(b"GET /news HTTP/1.1\r\nHost: board.example\r\n\r\n")
        assert (await lesson01.hear(reader, seconds=5)).endswith("점심 먹을까요? 🍜".encode())

        board.post("비가 와요 ☔")
        assert await lesson01.hear(reader, seconds=0.1) == b""
    finally:
        writer.close()
        await board.aclose()


@pytest.mark.parametrize(
    ("unasked", "expected"),
    [
        ([], ["the answer to /weather", "the answer to /time", "the answer to /menu", "the answer to /bus"]),
        (["점심 🍜"], ["the answer to /weather", "점심 🍜", "the answer to /time", "the answer to /menu"]),
        (["점심 🍜", "비 ☔"], ["the answer to /weather", "점심 🍜", "비 ☔", "the answer to /time"]),
    ],
)
async def test_an_http_client_takes_unrequested_responses_for_its_next_answers(
    unasked: list[str], expected: list[str]
) -> None:
    assert await lesson01.one_unasked(*lesson01.PATHS, unasked=unasked) == expected


async def test_ask_sends_a_request_unchanged_and_returns_the_response() -> None:
    async with await echo.start_by_hand(host_names=["server.example.com"]) as server:
        agreed = await lesson01.ask(server.url, REQUEST)
        refused = await lesson01.ask(server.url, REQUEST.replace("GET", "POST"))

    assert (agreed.status, agreed.get("Sec-WebSocket-Accept")) == (101, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    assert (refused.status, refused.body) == (405, b"method is POST, not GET\n")


async def test_ask_raises_connection_error_if_the_connection_ends_without_a_response() -> None:
    async with await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConnectionError, match="after 0 bytes of the response"):
            await lesson01.ask(f"ws://127.0.0.1:{port}/", REQUEST)


# --- TLS ---


async def test_the_wire_sees_no_word_of_a_visit_over_tls_and_the_client_reads_the_same() -> None:
    plain, secret = [await visited(certificate) for certificate in (None, lesson01.make_certificate())]

    for words in ("GET /chat", "Upgrade: websocket", "101 Switching", lesson01.GREETING):
        assert (plain.shows(words), secret.shows(words)) == (True, False)
    assert (plain.secret, secret.secret) == (False, True)
    assert plain.frame == secret.frame == b"\x81\x15" + lesson01.GREETING.encode()


async def test_a_client_that_does_not_trust_the_certificate_refuses_to_talk() -> None:
    newsroom = await lesson01.start_newsroom(lesson01.make_certificate())
    try:
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            await asyncio.open_connection(newsroom.wire.host, newsroom.wire.port, ssl=True)
    finally:
        await newsroom.aclose()


async def visited(certificate: lesson01.Certificate | None = None) -> Visit:
    newsroom = await lesson01.start_newsroom(certificate)
    try:
        return await lesson01.visit(newsroom)
    finally:
        await newsroom.aclose()


# --- After the client's Close ---


async def test_a_client_that_reads_on_receives_what_was_sent_after_its_close() -> None:
    server = await lesson01.start_late(20)
    client = await HandClient.connect(server.url)
    await client.next(Message)

    assert (await client.close(1000)).clean
    assert (sum(isinstance(event, Message) for event in client.events), server.sent) == (21, 20)
    await server.aclose()


# --- Verdicts: each comes out the other way on a server that is not what the claim says ---


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATLAB_HOME", str(tmp_path))


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def doctored(answer: Answer) -> AsyncIterator[Wire]:
    """Run a server that calls `answer` for each connection, behind a wire."""

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):  # the client has gone
            await answer(reader, writer)
        writer.close()

    server = await asyncio.start_server(run, "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/chat"
    async with server, Wire(to=url) as wire:
        yield wire


def answering(*parts: bytes) -> Answer:
    """Return a server's answer: read a request, send `parts`, wait until the client has ended."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
        await reader.read()

    return answer


def switching(key: str = KEY) -> bytes:
    return f"{SWITCHING}Sec-WebSocket-Accept: {accept_key(key)}\r\n\r\n".encode()


async def visited_doctored(*parts: bytes) -> Visit:
    async with doctored(answering(*parts)) as wire:
        return await lesson01.visit(lesson01.Newsroom(None, wire, None))  # type: ignore[arg-type]  # only the wire is used


@pytest.mark.parametrize("again", ["c1", "c2", "c6", "c7", "c9", "c10"])
async def test_each_claim_holds_on_the_lessons_own_servers(again: str) -> None:
    found = await getattr(lesson01, f"_{again}_again")()
    assert (found.claim, found.outcome) == (again.upper(), Outcome.HOLDS)


async def test_c1_does_not_hold_for_a_server_that_speaks_unasked() -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        await reader.read()

    async with doctored(speak) as wire:
        reader, writer = await asyncio.open_connection(wire.host, wire.port)
        unasked = [await lesson01.hear(reader, seconds=5)]
        writer.close()
    found = lesson01.c1(unasked, [], paths=[])
    assert found.outcome is Outcome.DOES_NOT_HOLD
    assert f"{len(unasked[0])} bytes unasked" in found.measured


async def test_c2_does_not_hold_for_a_server_that_speaks_only_after_its_client() -> None:
    async with await echo.start_by_hand() as server, Wire(to=server.url) as wire:
        client = await HandClient.connect(wire.url)
        for text in ("one", "two"):
            await client.send(text)
            await client.next(Message)
        assert lesson01.c2(wire.trace).outcome is Outcome.DOES_NOT_HOLD
        await client.aclose()


async def test_c6_does_not_hold_for_a_server_that_stays_with_http() -> None:
    visit = await visited_doctored(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n" + HELLO)
    assert lesson01.c6(visit).outcome is Outcome.DOES_NOT_HOLD


async def test_c6_does_not_hold_for_a_switch_without_a_frame_after_it() -> None:
    visit = await visited_doctored(switching() + b"just text")
    assert lesson01.c6(visit).outcome is Outcome.DOES_NOT_HOLD


async def test_c6_does_not_hold_for_tls_that_hides_nothing() -> None:
    seen = Trace()
    hello = bytes.fromhex("16 03 01 00 05") + b"HTTP/1.1"
    async with doctored(answering(switching() + HELLO)) as wire:
        __, writer = await asyncio.open_connection(wire.host, wire.port)
        writer.write(hello)
        await wire.wait_for("bytes")
        seen = wire.trace
        writer.close()
    assert lesson01.c6(Visit(switching().decode(), HELLO, seen)).outcome is Outcome.DOES_NOT_HOLD


async def test_without_https_c6_and_c7_hold_with_a_condition_that_says_so() -> None:
    visit = await visited()
    for found in (lesson01.c6(visit), lesson01.c7(visit)):
        assert (found.outcome, found.because) == (Outcome.HOLDS_WHEN, "over HTTP; HTTPS was not tested here")


async def test_c7_does_not_hold_for_the_proof_of_another_key() -> None:
    visit = await visited_doctored(switching("x3JJHMbDL1EzLkh9GBhXDw==") + HELLO)
    assert lesson01.c7(visit).outcome is Outcome.DOES_NOT_HOLD


async def test_c9_does_not_hold_for_a_server_that_stops_without_a_close() -> None:
    async with doctored(answering(switching())) as wire:
        client = await HandClient.connect(wire.url)
        wire.cut()  # what its client meets when a server just stops
        await client.next(Closed)
        found = lesson01.c9(await lesson01._closed_by_client(), wire.trace)
    assert found.outcome is Outcome.DOES_NOT_HOLD


async def test_c9_does_not_hold_for_a_close_that_is_not_answered() -> None:
    async with doctored(answering(switching(), bytes.fromhex("88 02 03 e9"))) as wire:
        __, writer = await asyncio.open_connection(wire.host, wire.port)
        writer.write(REQUEST.encode())
        await wire.wait_for("websocket", "close")
        writer.close()
        found = lesson01.c9(await lesson01._closed_by_client(), wire.trace)
    assert found.outcome is Outcome.DOES_NOT_HOLD


async def test_c10_does_not_hold_for_a_conversation_on_two_connections() -> None:
    async with await echo.start_by_hand() as server, Wire(to=server.url) as wire:
        for text in ("one", "two"):
            client = await HandClient.connect(wire.url)
            await client.send(text)
            await client.close(1000)
        await wire.wait_for("tcp", "FIN", count=4)
        assert lesson01.c10(wire.trace).outcome is Outcome.DOES_NOT_HOLD
