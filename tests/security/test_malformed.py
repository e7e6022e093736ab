"""Malformed requests, frames and JSON are answered or end the connection, with no traceback and few log lines."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from aiohttp import ClientSession, WSMsgType

from chatlab import echo, room
from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint.server import ChatServer
from chatlab.lab.until import until
from chatlab.websocket.frames import Frame, Opcode
from tests.support.raw_member import RawMember
from tests.support.stomp_peer import Peer
from tests.support.wire import get, say

pytestmark = pytest.mark.every_loop

Start = Callable[..., Awaitable[Any]]
MANY = 300
FEW = 40  # lines: a handful of kinds, ten of each


def start_chat(**options: Any) -> Awaitable[ChatServer]:
    return chat_server.start(MemoryBroker(), **options)


SERVERS: dict[str, tuple[Start, str]] = {
    "chat": (start_chat, "/ws"),
    "room": (room.start, "/room"),
    "the article's room": (room.start_as_in_the_article, "/room"),
    "echo": (echo.start, "/"),
    "echo by hand": (echo.start_by_hand, "/"),
}
each_server = pytest.mark.parametrize("name", SERVERS)
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
UP = b"Upgrade: websocket\r\nConnection: Upgrade\r\n"


def requests(path: str) -> list[bytes]:
    """Return malformed requests, each with a different fault; the right answer is 400 or similar."""
    get_it = b"GET %s HTTP/1.1\r\n" % path.encode()
    host = b"Host: localhost\r\n"
    return [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",  # TLS
        b"\x00\r\n\r\n",
        b"\xff\xfe\xfd / HTTP/1.1\r\n" + host + b"\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET  HTTP/1.1\r\n" + host + b"\r\n",
        b"GET / HTTP/9.9\r\n" + host + b"\r\n",
        b"GET /\xff\x00 HTTP/1.1\r\n" + host + b"\r\n",
        b"GET http://[::1 HTTP/1.1\r\n" + host + b"\r\n",
        b"GET //[ HTTP/1.1\r\n" + host + b"\r\n",
        b"GET " + path.encode() + b"?name=%ff%00&code=%ed%a0%80 HTTP/1.1\r\n" + host + b"\r\n",
        b"GET " + path.encode() + b"?" + b"a=b&" * 500 + b" HTTP/1.1\r\n" + host + b"\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n" + host + b"\r\n",
        get_it + b"\r\n",
        get_it + host + host + b"\r\n",
        get_it + b"Host: [::1\r\n\r\n",
        get_it + b"Host : localhost\r\n\r\n",
        get_it + host + b"A\x00: b\r\n\r\n",
        get_it + host + b"A: b\r\n folded\r\n\r\n",
        get_it + host + b"no colon\r\n\r\n",
        get_it + host + b"A: " + b"a" * 40_000 + b"\r\n\r\n",
        get_it + host + b"A: b\r\n" * 1000 + b"\r\n",
        get_it + host + b"Content-Length: -1\r\n\r\n",
        get_it + host + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
        get_it + host + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        get_it + host + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        get_it + host + b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n\r\n",
        get_it + host + b"Expect: the unexpected\r\n\r\n",
        get_it + host + UP + b"\r\n",
        get_it + host + UP + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: \xff\r\n\r\n",
        get_it + host + UP + b"Sec-WebSocket-Version: 13\r\n" + KEY + KEY + b"\r\n",
        get_it + host + UP + b"Sec-WebSocket-Version: " + b"9" * 5000 + b"\r\n" + KEY + b"\r\n",
        get_it + host + UP + b'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Extensions: a; b="\r\n' + KEY + b"\r\n",
        get_it + host + UP + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: ,a b\r\n" + KEY + b"\r\n",
        get_it + host + b"Upgrade: h2c\r\nConnection: Upgrade\r\n\r\n\xff\xff",
        get_it + host + UP + b"Content-Length: 5\r\nSec-WebSocket-Version: 13\r\n" + KEY + b"\r\nabcde",
        b"POST %s HTTP/1.1\r\n" % path.encode() + host + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        b"POST %s HTTP/1.1\r\n" % path.encode() + host + b"Content-Encoding: br\r\nContent-Length: 3\r\n\r\nabc",
    ]


def no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """Check that neither chatlab nor a library nor asyncio has logged an error or a traceback."""
    faults = [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]
    assert [(fault.name, fault.getMessage()) for fault in faults] == []


@each_server
async def test_malformed_requests_cause_no_traceback_and_no_server_error(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    start, path = SERVERS[name]
    async with await start() as server:
        for request in requests(path):
            answer = await say(server.port, request, silence=0.1)
            assert answer.status < 500 or answer.status == 505, request
            assert answer.status != 101, request
    no_traceback(caplog)


@each_server
async def test_hundreds_of_malformed_requests_make_few_log_lines(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    start, path = SERVERS[name]
    wrong = [request for request in requests(path) if len(request) < 1000][:10]
    async with await start() as server:
        for _ in range(MANY // 30):
            await asyncio.gather(*(say(server.port, request, silence=0.05) for request in wrong * 3))
        ours = [record for record in caplog.records if record.name.startswith(("chatlab", "websockets", "aiohttp"))]
        assert len(ours) <= FEW
        assert sum(len(record.getMessage()) for record in ours) < 20_000
    no_traceback(caplog)


FRAMES = [
    b"\xff\xff\xff\xff",  # reserved bits
    b"\x81\x05hello",  # unmasked
    Frame(Opcode.TEXT, b"\xff\xfe", mask=b"abcd").serialize(),
    Frame(Opcode.CONTINUATION, b"nothing to continue", mask=b"abcd").serialize(),
    b"\x81\xff" + b"\xff" * 8 + b"abcd",  # the largest length that can be written
    b"\x89\xfe\x00\x7e" + b"abcd" + b"x" * 126,  # a Ping longer than 125 octets
    b"\x88\x81abcdx",  # a Close of one octet
    Frame(Opcode.TEXT, b"[" * 60_000, mask=b"abcd").serialize(),
    Frame(Opcode.TEXT, b"NO STOMP\0", mask=b"abcd").serialize(),
    Frame(Opcode.BINARY, b"\0" * 100, mask=b"abcd").serialize(),
]


@pytest.mark.parametrize(
    "name", [name for name in SERVERS if name != "the article's room"]
)  # which logs each one on purpose
async def test_hundreds_of_malformed_frames_make_few_log_lines_and_no_traceback(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    start, path = SERVERS[name]
    async with await start() as server:
        for _ in range(20):
            for octets in FRAMES:
                with await RawMember.join(f"ws://127.0.0.1:{server.port}{path}") as member:
                    await member.send(octets)
                    member.vanish()
        if name == "chat":
            await until(lambda: not server.service.connections)
            assert len(caplog.records) <= FEW
    no_traceback(caplog)


# --- SockJS and JSON ---

BROKEN = [
    b"[" * 60_000,
    b'{"a":' * 10_000,
    b'["' + b"\xff" + b'"]',
    '["\u00e9"]'.encode("latin-1"),
    '["a"]'.encode("utf-16"),
    '["a"]'.encode("utf-32-le"),
    b"1e999",
    b"-1e999",
    b"9" * 5000,
    b"[" + b"9" * 5000 + b"]",
    b"[1e999]",
    b"NaN",
    b"[null]",
    b"{}",
    b'[["a"]]',
    b'["a"',
    b'["\\u"]',
    b'["\x00"]',
    b"\xef\xbb\xbf[]",
    b"\x00",
]


async def opened(http: ClientSession, session: str) -> None:
    async with http.post(f"/ws/0/{session}/xhr") as answer:
        assert await answer.read() == b"o\n"


@pytest.mark.parametrize("body", BROKEN, ids=range(len(BROKEN)))
async def test_sockjs_reports_broken_json_and_the_session_continues(
    body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with await start_chat() as server, ClientSession(server.page_url) as http:
        await opened(http, "s")
        async with http.post("/ws/0/s/xhr_send", data=body) as answer:
            assert await answer.text() == "Broken JSON encoding."
        async with http.post(
            "/ws/0/s/xhr_send", data=b'["CONNECT\\naccept-version:1.2\\nhost:x\\n\\n\\u0000"]'
        ) as sent:
            assert sent.status == 204
        async with http.post("/ws/0/s/xhr") as answer:
            assert "CONNECTED" in await answer.text()
        async with http.ws_connect("/ws/0/w/websocket") as websocket:
            assert (await websocket.receive()).data == "o"
            await websocket.send_bytes(body)
            closed = await websocket.receive()
            assert (closed.type, closed.data) in ((WSMsgType.CLOSE, 1007), (WSMsgType.CLOSE, 1009))
    no_traceback(caplog)


@pytest.mark.long
async def test_two_thousand_bad_bodies_make_few_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with await start_chat() as server, ClientSession(server.page_url) as http:
        await opened(http, "s")

        async def bad(body: bytes) -> None:
            async with http.post("/ws/0/s/xhr_send", data=body) as answer:
                # A session that nobody has polled for five seconds is closed.
                assert answer.status == 404 or await answer.text() == "Broken JSON encoding."

        for _ in range(20):
            await asyncio.gather(*(bad(body) for body in BROKEN * 5))
    assert len(caplog.records) <= FEW
    no_traceback(caplog)


@pytest.mark.parametrize("destination", ["/app/chat.sendMessage", "/app/chat.private"])
async def test_a_handler_refuses_broken_json_and_the_session_continues(
    destination: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    inside = [b'{"content":%s}' % value for value in (b"1e999", b"9" * 5000, b"[" * 9000, b'"\\ud800"', b'"\xff"')]
    wrong = [body for body in BROKEN if body != b'{"a":' * 10_000] + inside
    async with await start_chat() as server, Peer(server.url) as peer:
        await peer.subscribe("/user/queue/errors")
        for body in wrong:
            await peer.send("SEND", body, destination=destination, content_length=str(len(body)))
            assert b'"error":"not the JSON expected' in (await peer.frame("MESSAGE")).body, body[:40]
        await peer.say("still here")
    no_traceback(caplog)
    assert caplog.text.count("message refused") <= 12


HEADERS: Sequence[tuple[str, str]] = [
    ("heart-beat", "9" * 5000 + ",1"),
    ("heart-beat", "1e999,1"),
    ("heart-beat", "²,²"),
    ("content-length", "9" * 5000),
    ("content-length", "²"),
    ("accept-version", "[" * 8000),
    ("token", "[" * 8000),
    ("token", "9" * 5000),
    ("Authorization", "Bearer " + "[" * 8000),
    ("login", "\ufdd0\u202e"),
]


@pytest.mark.parametrize(("name", "value"), HEADERS, ids=range(len(HEADERS)))
async def test_connect_with_an_odd_header_is_answered(name: str, value: str, caplog: pytest.LogCaptureFixture) -> None:
    async with (
        await start_chat() as server,
        ClientSession(server.page_url) as http,
        http.ws_connect("/ws") as websocket,
    ):
        await websocket.send_str(f"CONNECT\n{name}:{value}\naccept-version:1.2\nhost:x\n\n\0")
        answer = await websocket.receive(timeout=10)
        assert answer.type is WSMsgType.TEXT and answer.data.startswith(("CONNECTED\n", "ERROR\n"))
    no_traceback(caplog)


NUMBERS = ("9" * 5000, "0" * 5000, "0" * 5000 + "9", "9" * 10, "²", "-1", "1e999")


@pytest.mark.parametrize("header", ["history", "last-id"])
@pytest.mark.parametrize("value", [*NUMBERS, "9" * 5000 + "-0", "1-" + "9" * 5000], ids=lambda value: value[:4])
async def test_subscribe_with_an_odd_number_is_answered(
    header: str, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with await start_chat() as server, Peer(server.url) as peer:
        await peer.send("SUBSCRIBE", id="1", destination="/topic/public", receipt="r", **{header: value})
        answer = await peer.frame()
        assert answer.command == "RECEIPT" or "internal" not in (answer.get("message") or "internal")
    no_traceback(caplog)


async def test_a_server_still_serves_clients_after_malformed_requests() -> None:
    async with await start_chat() as server:
        for request in requests("/ws"):
            await say(server.port, request, silence=0.02)
        assert (await get(server.port, "/healthz", "Host: localhost")).body == "ok\n"
        async with Peer(server.url) as peer:
            await peer.say("hello")
