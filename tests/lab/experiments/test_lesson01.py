"""Lesson 01's experiments on real sockets: a board that is silent until asked, an extra response, raw handshakes."""

import asyncio

import pytest

from chatlab import echo
from chatlab.lab.experiments import lesson01

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


async def test_an_http_client_takes_an_unrequested_response_for_its_next_answer() -> None:
    answers = await lesson01.one_unasked("/weather", "/time", "/menu", news="점심 🍜")

    assert answers == ["the answer to /weather", "점심 🍜", "the answer to /time"]


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
