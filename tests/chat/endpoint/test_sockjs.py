"""SockJS by hand: each transport as the protocol describes it, with literal bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import count
from pathlib import Path

import aiohttp
import pytest
from aiohttp import ClientSession, web
from websockets.asyncio.client import connect

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.delivery.transport import ClientTransport
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint import sockjs as sockjs_module
from chatlab.chat.endpoint.server import ChatServer
from chatlab.chat.endpoint.sockjs import SockJS
from chatlab.lab.until import until
from tests.support.reverse_proxies import behind

pytestmark = pytest.mark.every_loop

names = count()


class Echo:
    """Echo messages; `close` ends the session."""

    def __init__(self, transport: ClientTransport) -> None:
        self.transport = transport
        self.ended = asyncio.Event()

    def receive(self, data: bytes, text: bool) -> bool:
        if data == b"close":
            self.transport.sink.close(3000, "Go away!")
        else:
            self.transport.sink.write(self.transport.framing.frame([data]))
        return not data.startswith(b"later")

    async def finish(self) -> None:
        await asyncio.sleep(0)
        self.transport.sink.write(self.transport.framing.frame([b"finished"]))

    def end(self) -> None:
        self.ended.set()


class EchoServer:
    def __init__(self) -> None:
        self.peers: list[Echo] = []
        self.ids = map(str, count(1))
        self.sockjs = SockJS(self._open, lambda: next(self.ids), origins=["https://chat.example"], stream_limit=4096)

    def _open(self, transport: ClientTransport, request: web.Request, id: str) -> Echo:
        self.peers.append(Echo(transport))
        return self.peers[-1]


@pytest.fixture
async def echo() -> AsyncIterator[tuple[EchoServer, ClientSession, str]]:
    server = EchoServer()
    app = web.Application()
    server.sockjs.add_routes(app.router, "/echo")
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}", timeout=aiohttp.ClientTimeout(5)) as http:
        yield server, http, f"/echo/000/{next(names)}"
    await runner.cleanup()


async def post(http: ClientSession, path: str, data: bytes | str = b"") -> tuple[int, bytes]:
    async with http.post(path, data=data) as response:
        return response.status, await response.read()


def websocket_url(http: ClientSession, path: str) -> str:
    return str(http._build_url(f"{path}/websocket").with_scheme("ws"))


Setting = tuple[EchoServer, ClientSession, str]


async def test_sockjs_greets_and_describes_its_transports(echo: Setting) -> None:
    _, http, _ = echo
    async with http.get("/echo/") as response:
        assert await response.text() == "Welcome to SockJS!\n"
        assert response.headers["Content-Type"] == "text/plain; charset=UTF-8"
    async with http.get("/echo/info") as response:
        assert response.headers["Content-Type"] == "application/json; charset=UTF-8"
        offer = await response.json()
        assert (offer["websocket"], offer["cookie_needed"], offer["origins"]) == (True, False, ["*:*"])
        assert "no-store" in response.headers["Cache-Control"]
    async with http.get("/echo/info") as again:
        assert (await again.json())["entropy"] != offer["entropy"]


async def test_polling_opens_sends_and_receives(echo: Setting) -> None:
    _, http, path = echo
    async with http.post(f"{path}/xhr") as response:
        assert await response.read() == b"o\n"
        assert response.headers["Content-Type"] == "application/javascript; charset=UTF-8"
    assert await post(http, f"{path}/xhr_send", '["a","\\ud55c\\uae00"]') == (204, b"")
    assert await post(http, f"{path}/xhr") == (200, b'a["a","\\ud55c\\uae00"]\n')


async def test_a_poll_waits_until_there_is_a_message(echo: Setting) -> None:
    _, http, path = echo
    await post(http, f"{path}/xhr")
    poll = asyncio.create_task(post(http, f"{path}/xhr"))
    await asyncio.sleep(0)
    await post(http, f"{path}/xhr_send", '"later"')
    assert await poll == (200, b'a["later"]\n')


@pytest.mark.parametrize(
    ("body", "answer"), [("", b"Payload expected."), ("[", b"Broken JSON encoding."), ("[1]", None)]
)
async def test_a_body_that_is_not_an_array_of_strings_is_refused(
    echo: Setting, body: str, answer: bytes | None
) -> None:
    _, http, path = echo
    await post(http, f"{path}/xhr")
    assert await post(http, f"{path}/xhr_send", body) == (500, answer or b"Broken JSON encoding.")


async def test_xhr_send_needs_an_open_session_and_names_without_dots(echo: Setting) -> None:
    _, http, path = echo
    assert (await post(http, f"{path}/xhr_send", '"x"'))[0] == 404
    assert (await post(http, "/echo/a.b/c/xhr"))[0] == 404
    assert (await post(http, "/echo/a/b.c/xhr"))[0] == 404
    assert (await post(http, "/echo//b/xhr"))[0] == 404


async def test_a_stream_begins_with_a_prelude_and_ends_when_it_is_full(echo: Setting) -> None:
    _, http, path = echo
    async with http.post(f"{path}/xhr_streaming") as response:
        assert await response.content.readline() == b"h" * 2048 + b"\n"
        assert await response.content.readline() == b"o\n"
        await post(http, f"{path}/xhr_send", json.dumps(["x" * 2048]))
        assert len(await response.content.readline()) == 2048 + 6
        await post(http, f"{path}/xhr_send", json.dumps(["y" * 2048]))
        assert len(await response.content.readline()) == 2048 + 6
        assert await response.content.read() == b""
    await post(http, f"{path}/xhr_send", '"more"')
    async with http.post(f"{path}/xhr_streaming") as response:
        await response.content.readline()
        assert await response.content.readline() == b'a["more"]\n'


async def test_a_stream_over_http_1_0_ends_with_its_connection(echo: Setting) -> None:
    _, http, path = echo
    await post(http, f"{path}/xhr")
    await post(http, f"{path}/xhr_send", '["last","close"]')
    reader, writer = await asyncio.open_connection("127.0.0.1", http._base_url.port if http._base_url else 0)
    async with asyncio.timeout(5):
        writer.write(f"POST {path}/xhr_streaming HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")  # until it closes
    writer.close()
    assert b"transfer-encoding" not in head.lower()
    assert b"content-length" not in head.lower()
    assert body == b"h" * 2048 + b'\na["last"]\nc[3000,"Go away!"]\n'


async def test_messages_arrive_as_server_sent_events(echo: Setting) -> None:
    _, http, path = echo
    async with http.get(f"{path}/eventsource") as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        assert await response.content.readline() == b"\r\n"
        assert await response.content.readuntil(b"\r\n\r\n") == b"data: o\r\n\r\n"
        await post(http, f"{path}/xhr_send", json.dumps(["a\n\r b"]))
        assert await response.content.readuntil(b"\r\n\r\n") == b'data: a["a\\n\\r b"]\r\n\r\n'


@pytest.mark.parametrize(("method", "transport"), [("POST", "xhr_streaming"), ("GET", "eventsource")])
async def test_a_streamed_response_asks_proxies_not_to_buffer_it(echo: Setting, method: str, transport: str) -> None:
    _, http, path = echo
    async with http.request(method, f"{path}/{transport}") as response:
        assert response.headers["X-Accel-Buffering"] == "no"
        assert response.headers["Cache-Control"] == "no-store, no-cache, no-transform, must-revalidate, max-age=0"


@pytest.mark.parametrize(("method", "transport"), [("POST", "xhr_streaming"), ("GET", "eventsource")])
async def test_a_streamed_response_passes_at_once_through_a_buffering_nginx(
    server: ChatServer, tmp_path: Path, method: str, transport: str
) -> None:
    async with (
        behind("nginx", server.port, tmp_path, "/chat/") as url,
        ClientSession(timeout=aiohttp.ClientTimeout(5)) as http,
        http.request(method, f"{url.replace('/chat/', '/plain/')}ws/0/{next(names)}/{transport}") as response,
    ):
        while b"o" not in await response.content.readline():
            pass


async def test_a_closed_session_answers_every_request_with_its_close_frame(echo: Setting) -> None:
    server, http, path = echo
    await post(http, f"{path}/xhr")
    await post(http, f"{path}/xhr_send", '["last","close"]')
    assert await post(http, f"{path}/xhr") == (200, b'a["last"]\n')
    for _ in range(2):
        assert await post(http, f"{path}/xhr") == (200, b'c[3000,"Go away!"]\n')
    assert server.peers[0].ended.is_set()
    assert (await post(http, f"{path}/xhr_send", '"x"'))[0] == 404


async def test_a_second_response_for_a_session_is_refused_and_a_broken_one_ends_the_session(echo: Setting) -> None:
    server, http, path = echo
    first = await http.post(f"{path}/xhr_streaming")
    await first.content.readline()
    assert await first.content.readline() == b"o\n"
    assert await post(http, f"{path}/xhr") == (200, b'c[2010,"Another connection still open"]\n')
    first.close()
    async with asyncio.timeout(5):
        await server.peers[0].ended.wait()
    assert await post(http, f"{path}/xhr") == (200, b'c[1002,"Connection interrupted"]\n')


async def test_a_response_that_the_client_cuts_off_is_not_logged_as_an_error(
    echo: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    server, http, path = echo
    response = await http.post(f"{path}/xhr_streaming")
    await response.content.readline()
    assert await response.content.readline() == b"o\n"
    server.peers[0].transport.sink.abort()
    with pytest.raises(aiohttp.ClientError):
        await response.content.read()
    assert await post(http, f"{path}/xhr") == (200, b'c[1002,"Connection interrupted"]\n')
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_session_without_a_request_expires(echo: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    server, http, path = echo
    monkeypatch.setattr(sockjs_module, "DISCONNECT_DELAY", 0.05)
    await post(http, f"{path}/xhr")
    async with asyncio.timeout(5):
        await server.peers[0].ended.wait()
    assert server.sockjs.sessions == {}


async def test_messages_not_fetched_are_discarded_with_their_session(
    echo: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, http, path = echo
    await post(http, f"{path}/xhr")
    monkeypatch.setattr(sockjs_module, "DISCONNECT_DELAY", 0.05)
    await post(http, f"{path}/xhr_send", '"never fetched"')
    sink = server.peers[0].transport.sink
    assert sink.buffered() > 0
    assert await post(http, f"{path}/xhr") == (200, b'a["never fetched"]\n')
    await post(http, f"{path}/xhr_send", '"never fetched"')
    await until(lambda: not server.sockjs.sessions)
    assert sink.buffered() == 0


async def test_a_heart_beat_is_sent_when_there_is_no_message(echo: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    _, http, path = echo
    monkeypatch.setattr(sockjs_module, "HEART_BEAT", 0.05)
    await post(http, f"{path}/xhr")
    assert await post(http, f"{path}/xhr") == (200, b"h\n")
    async with connect(websocket_url(http, path)) as websocket:
        assert await websocket.recv() == "o"
        assert await websocket.recv() == "h"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("headers", [{}, {"Upgrade": "WebSocket", "Connection": "Upgrade"}], ids=["plain", "upgrade"])
async def test_a_sockjs_websocket_is_opened_only_by_get(echo: Setting, method: str, headers: dict[str, str]) -> None:
    _, http, path = echo
    async with http.request(method, f"{path}/websocket", headers=headers) as response:
        assert (response.status, response.headers["Allow"], await response.read()) == (405, "GET", b"")
        assert "Content-Type" not in response.headers


@pytest.mark.parametrize(
    ("headers", "answer"),
    [
        ({}, b'Can "Upgrade" only to "WebSocket".'),
        ({"Connection": "Upgrade"}, b'Can "Upgrade" only to "WebSocket".'),
        ({"Upgrade": "h2c", "Connection": "Upgrade"}, b'Can "Upgrade" only to "WebSocket".'),
        ({"Upgrade": "WebSocket", "Connection": "close"}, b'"Connection" must be "Upgrade".'),
        ({"Upgrade": "WebSocket"}, b'"Connection" must be "Upgrade".'),
        ({"Upgrade": "WebSocket", "Connection": "keep-alive, upgrades"}, b'"Connection" must be "Upgrade".'),
    ],
)
async def test_a_get_without_an_upgrade_is_told_which_header_is_missing(
    echo: Setting, headers: dict[str, str], answer: bytes
) -> None:
    _, http, path = echo
    async with http.get(f"{path}/websocket", headers=headers) as response:
        assert (response.status, await response.read()) == (400, answer)


async def test_sockjs_frames_over_a_websocket(echo: Setting) -> None:
    server, http, path = echo
    async with connect(websocket_url(http, path)) as websocket:
        assert await websocket.recv() == "o"
        await websocket.send("")  # ignored
        await websocket.send('["a","b"]')
        assert [await websocket.recv() for _ in "ab"] == ['a["a"]', 'a["b"]']
        await websocket.send('"close"')
        assert await websocket.recv() == 'c[3000,"Go away!"]'
        await websocket.wait_closed()
        assert websocket.close_code == 3000
    assert server.peers[0].ended.is_set()


async def test_messages_over_a_sockjs_websocket_keep_their_order_when_one_has_to_wait(echo: Setting) -> None:
    _, http, path = echo
    async with connect(websocket_url(http, path)) as websocket:
        await websocket.send('["later 1","later 2","3"]')
        await websocket.send('"4"')
        said = [await websocket.recv() for _ in range(7)]
        assert said == ["o", 'a["later 1"]', 'a["finished"]', 'a["later 2"]', 'a["finished"]', 'a["3"]', 'a["4"]']


async def test_json_nested_too_deeply_is_broken_json(echo: Setting, caplog: pytest.LogCaptureFixture) -> None:
    _, http, path = echo
    await post(http, f"{path}/xhr")
    assert await post(http, f"{path}/xhr_send", "[" * 60_000) == (500, b"Broken JSON encoding.")
    async with connect(websocket_url(http, path)) as websocket:
        await websocket.send("[" * 60_000)
        await websocket.wait_closed()
        assert websocket.close_code == 1007
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_broken_json_closes_a_sockjs_websocket(echo: Setting) -> None:
    _, http, path = echo
    async with connect(websocket_url(http, path)) as websocket:
        assert await websocket.recv() == "o"
        await websocket.send('["a')
        await websocket.wait_closed()
        assert websocket.close_code == 1007


async def test_a_preflight_is_answered_and_only_an_allowed_origin_may_read_the_response(echo: Setting) -> None:
    _, http, path = echo
    asked = {"Origin": "https://chat.example", "Access-Control-Request-Headers": "x-token"}
    async with http.options(f"{path}/xhr_send", headers=asked) as response:
        assert response.status == 204
        assert response.headers["Access-Control-Allow-Origin"] == "https://chat.example"
        assert response.headers["Access-Control-Allow-Credentials"] == "true"
        assert response.headers["Access-Control-Allow-Methods"] == "OPTIONS, POST"
        assert response.headers["Access-Control-Allow-Headers"] == "x-token"
        assert response.headers["Cache-Control"] == "public, max-age=31536000"
        assert parsedate_to_datetime(response.headers["Expires"]) > datetime.now(UTC) + timedelta(days=364)
    for method, where in (("POST", "xhr"), ("POST", "xhr_send"), ("GET", "eventsource"), ("GET", "websocket")):
        foreign = {"Origin": "https://evil.example"}
        async with http.request(method, f"{path}/{where}", headers=foreign) as response:
            assert response.status == 403, where


@pytest.mark.parametrize("transport", ["xhr", "xhr_streaming", "eventsource"])
async def test_the_chat_behaves_the_same_on_every_transport(server: ChatServer, transport: str) -> None:
    path = f"/ws/000/{next(names)}"
    async with ClientSession(server.page_url.rstrip("/")) as http:
        received: asyncio.Queue[str] = asyncio.Queue()
        reading = asyncio.create_task(_read_all(http, path, transport, received))

        async def send(*frames: str) -> None:
            assert (await post(http, f"{path}/xhr_send", json.dumps(frames)))[0] == 204

        async with asyncio.timeout(10):
            assert await received.get() == "o"
            await send("CONNECT\naccept-version:1.2\nhost:x\n\n\0")
            assert (await received.get()).startswith("CONNECTED\n")
            await send("SUBSCRIBE\nid:0\ndestination:/topic/public\nreceipt:1\n\n\0")
            assert (await received.get()).startswith("RECEIPT\n")
            await send('SEND\ndestination:/app/chat.sendMessage\n\n{"content":"한글"}\0')
            assert '"content":"한글"' in await received.get()
            await send("DISCONNECT\nreceipt:2\n\n\0")
            assert (await received.get()).startswith("RECEIPT\n")
            assert await received.get() == 'c[1000,""]'
        reading.cancel()
        await asyncio.wait([reading])
    assert not server.service.connections


async def _read_all(http: ClientSession, path: str, transport: str, received: asyncio.Queue[str]) -> None:
    """Poll repeatedly; put every message, and the frames `o` and `c`, into the queue."""
    while True:
        async with http.request("GET" if transport == "eventsource" else "POST", f"{path}/{transport}") as response:
            async for line in response.content:
                text = line.decode().strip().removeprefix("data: ")
                if text[:1] == "a":
                    for message in json.loads(text[1:]):
                        received.put_nowait(message)
                elif text[:1] in ("o", "c"):
                    received.put_nowait(text)


async def test_closing_the_server_closes_sockjs_sessions(broker: MemoryBroker) -> None:
    server = await chat_server.start(broker)
    async with ClientSession(server.page_url.rstrip("/")) as http:
        response = await http.post("/ws/0/s/xhr_streaming")
        await response.content.readline()
        assert await response.content.readline() == b"o\n"
        closing = asyncio.create_task(server.aclose())
        assert (await response.content.readline()).startswith(b"c[1001,")
        await closing
