"""A request goes to real servers as it is typed, and each refusal stands at the line it speaks of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from chatlab import echo
from chatlab.lab.pictures import handshake_form
from chatlab.lab.pictures.handshake_form import HandshakeForm, ask
from chatlab.lab.runtime import lab
from chatlab.lab.until import until

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
PROOF = "proves that it has read this key: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
RIGHT = {
    "request line": "GET / HTTP/1.1",
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
    "Origin": "",
}


@pytest.fixture
async def form() -> AsyncIterator[HandshakeForm]:
    async with await echo.start_by_hand() as by_hand, await echo.start() as library:
        form = await handshake_form(by_hand.url, library.url, names=("by hand", "library"))
        yield form
        await form.aclose()


async def judged(form: HandshakeForm, **changes: str) -> dict[str, list[str]]:
    """Send the right request with these changes ("_" for "-"); return each remark's text at its line."""
    form.change({**RIGHT, **{name.replace("_", "-"): value for name, value in changes.items()}})
    await form.judge()
    return {name: [said["text"] for said in remarks] for name, remarks in form.remarks().items() if remarks}


async def test_the_first_request_becomes_a_handshake_line_by_line(form: HandshakeForm) -> None:
    statuses = [form.answers["by hand"].status]
    for name in ("Host", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Origin"):
        form.change({name: RIGHT[name]})
        await form.judge()
        statuses.append(form.answers["by hand"].status)

    assert statuses == [400, 426, 400, 426, 403, 101]
    assert form.state["status"].startswith("✔ 101")


@pytest.mark.parametrize(
    ("line", "value", "reason"),
    [
        ("Host", "evil.example", "421 Misdirected Request: this server is not called 'evil.example'"),
        ("Host", "a b", "400 Bad Request: Host is 'a b'"),
        ("Upgrade", "", "426 Upgrade Required: there is no Upgrade header"),
        ("Connection", "close", "426 Upgrade Required: Connection is 'close'"),
        ("Sec-WebSocket-Key", "GET", "400 Bad Request: Sec-WebSocket-Key is not base64"),
        ("Sec-WebSocket-Version", "8", "426 Upgrade Required: WebSocket version '8'"),
        ("Origin", "http://Host.example", "403 Forbidden: pages of 'http://Host.example'"),
        ("request line", "GET chat HTTP/1.1", "400 Bad Request: target 'chat'"),
    ],
)
async def test_a_refusal_stands_at_its_line(form: HandshakeForm, line: str, value: str, reason: str) -> None:
    said = await judged(form, **{line.replace("-", "_"): value})

    assert list(said) == [line]
    assert [text[: len(reason)] for text in said[line]] == [reason] * 2


async def test_the_servers_may_differ(form: HandshakeForm) -> None:
    await judged(form, **{"request line": "GET / HTTP/1.0"})
    assert [answer.status for answer in form.answers.values()] == [400, 505]

    said = await judged(form, **{"request line": "hello"})
    assert said == {
        "request line": [
            "400 Bad Request: not an HTTP request line: 'hello'",
            "the server has closed the connection without a word",
        ]
    }


async def test_an_accepted_request_shows_the_proof_at_the_key(form: HandshakeForm) -> None:
    assert await judged(form) == {"Sec-WebSocket-Key": [PROOF, PROOF]}


async def test_what_is_typed_is_sent_at_once_and_the_last_request_counts(form: HandshakeForm) -> None:
    for version in ("1", "12", "13"):
        form._handle({"do": "change", "lines": {**RIGHT, "Sec-WebSocket-Version": version}, "again": False})

    await until(lambda: form.answers["library"].status == 101)
    assert form.state["lines"]["Sec-WebSocket-Version"] == "13"

    form._handle({"do": "reset"})
    await until(lambda: form.answers["library"].status == 400)


async def test_a_server_that_says_nothing_is_given_up() -> None:
    connected = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        answer = await ask(url, b"GET / HTTP/1.1\r\n", seconds=0.2)
    assert connected.is_set()
    assert answer.reason == "nothing within 0.2 s: the server still waits for more of the request"


async def test_a_late_answer_to_an_earlier_request_does_not_count() -> None:
    release, requests = asyncio.Event(), []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        number = len(requests)
        if number == 2:
            await release.wait()
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 1\r\n\r\n" + str(number).encode())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        form = await handshake_form(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        form._handle({"do": "change", "lines": {"Host": "second"}, "again": False})
        await until(lambda: len(requests) == 2)
        form._handle({"do": "change", "lines": {"Host": "third"}, "again": False})
        await until(lambda: form.answers["server 1"].reason == "3")
        release.set()
        await form._tasks.join(1)
        assert form.answers["server 1"].reason == "3"
        await form.aclose()


async def test_a_server_that_closes_without_a_word_is_shown_at_the_first_broken_rule() -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(close, "127.0.0.1", 0) as server:
        form = await handshake_form(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        said = await judged(form, Sec_WebSocket_Version="8")
        await form.aclose()
    assert said == {"Sec-WebSocket-Version": ["the server has closed the connection without a word"]}


async def test_a_stopped_server_is_named() -> None:
    async with await echo.start_by_hand() as server:
        pass
    form = await handshake_form(server.url)
    await form.aclose()

    assert form.answers["server 1"].reason.startswith("the server cannot be reached")


async def test_bad_input_is_answered_with_a_sentence(form: HandshakeForm) -> None:
    form._handle({"do": "change", "lines": {"Host": "a\r\nX: y"}, "again": False})
    assert form.state["status"] == "Host has a line break in it; each field is one line."

    form._handle({"do": "change", "lines": {"Host": "x" * 501}, "again": False})
    assert form.state["status"] == "Host has 501 letters; the form sends 500 at most."

    with pytest.raises(ValueError, match="the URL of at least one server"):
        await handshake_form()


async def test_started_again_the_first_form_is_closed(form: HandshakeForm) -> None:
    url = form.servers["library"]
    first = await lab.start("form", handshake_form(url))
    second = await lab.start("form", handshake_form(url))

    assert (first.closed, second.closed) == (True, False)
    await lab.stop("form")


async def test_without_a_kernel_the_request_is_a_table_without_a_port(form: HandshakeForm) -> None:
    data, __ = form._repr_mimebundle_()

    assert "by hand: 400 Bad Request: there is no Host header" in data["text/plain"]
    assert "by hand: 400 Bad Request: there is no Host header" in data["text/html"]
    assert "127.0.0.1" not in data["text/plain"] + data["text/html"]
