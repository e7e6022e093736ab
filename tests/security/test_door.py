"""Admission: requests for another host name, pages that are not for clients, and answers that name no versions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from chatlab import echo, room
from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.access import Access
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint.admin import AdminSettings
from chatlab.chat.endpoint.server import ChatServer
from chatlab.chat.users import among
from tests.support.reverse_proxies import behind
from tests.support.stomp_peer import Peer
from tests.support.wire import get, say

pytestmark = pytest.mark.every_loop

Start = Callable[..., Awaitable[Any]]
KEY = "correct horse battery staple"
UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


def start_chat(**options: Any) -> Awaitable[ChatServer]:
    return chat_server.start(MemoryBroker(), **options)


PLACES: list[tuple[str, Start, str]] = [
    ("echo", echo.start, "/"),
    ("echo by hand", echo.start_by_hand, "/"),
    ("room", room.start, "/"),
    ("room, no such page", room.start, "/nothing"),
    ("room, joining", room.start, "/room"),
    *(
        (f"chat {path}", start_chat, path)
        for path in (
            "/",
            "/chat.js",
            "/ws",
            "/ws/",
            "/ws/info",
            "/ws/0/s/eventsource",
            "/ws/0/s/websocket",
            "/healthz",
            "/readyz",
            "/metrics",
            "/nothing",
        )
    ),
]
NAMES = [name for name, *_ in PLACES]
each_place = pytest.mark.parametrize(("start", "path"), [(start, path) for _, start, path in PLACES], ids=NAMES)


# --- The host name in a request (DNS rebinding) ---


@each_place
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:PORT", "EVIL.example.", "127.0.0.1.evil.example", "localhost.evil.example"]
)
async def test_a_request_for_an_unknown_host_name_gets_421_and_the_option_that_allows_it(
    start: Start, path: str, host: str
) -> None:
    async with await start() as server:
        answer = await get(server.port, path, f"Host: {host}")
        assert answer.status == 421
        assert f"--host-name {host.lower().replace(':port', '').rstrip('.')}" in answer.body


@each_place
async def test_addresses_and_names_that_cannot_be_rebound_are_served(start: Start, path: str) -> None:
    async with await start() as server:
        for host in ("127.0.0.1:PORT", "localhost:PORT", "[::1]:PORT", "192.0.2.7", "chat1:8000", "lab.localhost"):
            answer = await get(server.port, path, f"Host: {host}")
            assert answer.status and answer.status != 421 and "names no host" not in answer.body, host


@each_place
async def test_an_invalid_repeated_or_missing_host_is_refused(start: Start, path: str) -> None:
    async with await start() as server:
        for host in ("", "a b", "user@localhost", "[::1", "localhost:x", "\xff\xfe", "<script>"):
            assert (await get(server.port, path, f"Host: {host}")).status == 400, host
        assert (await get(server.port, path, "Host: localhost", "Host: evil.example")).status == 400
        assert (await get(server.port, path)).status == 400


@pytest.mark.parametrize("start", [echo.start, echo.start_by_hand, room.start, start_chat])
async def test_the_host_of_an_absolute_target_overrides_the_host_header(start: Start) -> None:
    async with await start() as server:
        assert (await get(server.port, "http://evil.example/", "Host: localhost")).status == 421
        assert (await get(server.port, "HTTP://evil.example/", "Host: localhost")).status == 421


@pytest.mark.parametrize("start", [echo.start, echo.start_by_hand, room.start, start_chat])
async def test_host_names_and_origins_allow_a_host_name(start: Start) -> None:
    async with await start(host_names=["chat.example"], origins=["https://talk.example"]) as server:
        for host in ("chat.example", "CHAT.example:443", "chat.example.", "talk.example"):
            assert (await get(server.port, "/", f"Host: {host}")).status in (200, 426), host
        assert (await get(server.port, "/", "Host: other.chat.example")).status == 421


async def test_an_upgrade_for_an_unknown_host_name_is_refused_even_without_an_origin() -> None:
    for start, path in ((echo.start, "/"), (echo.start_by_hand, "/"), (room.start, "/room"), (start_chat, "/ws")):
        async with await start() as server:
            answer = await say(server.port, _request(path, "Host: evil.example", *UPGRADE))
            assert answer.status == 421


async def test_any_host_name_is_served_when_every_origin_is_allowed() -> None:
    async with await start_chat(origins=["*"]) as server:
        assert (await get(server.port, "/", "Host: evil.example")).status == 200
        assert (await get(server.port, "/metrics", "Host: evil.example")).status == 403


@pytest.mark.parametrize("kind", ["haproxy", "nginx"])
async def test_the_page_is_served_through_a_reverse_proxy(kind: str, tmp_path: Path) -> None:
    async with (
        await start_chat() as server,
        behind(kind, server.port, tmp_path) as url,
        ClientSession() as http,
        http.get(url) as page,
    ):
        assert page.status == 200


def _request(path: str, *lines: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode()


# --- Pages that are not for clients ---


@pytest.fixture
async def chat() -> AsyncIterator[ChatServer]:
    async with await start_chat() as server:
        yield server


@pytest.mark.parametrize("path", ["/metrics", "/readyz"])
@pytest.mark.parametrize(
    "line",
    [
        "X-Forwarded-For: 127.0.0.1",
        "x-forwarded-proto: https",
        "X-Forwarded-Host: localhost",
        "Forwarded: for=127.0.0.1",
        "X-Real-IP: 127.0.0.1",
        "Via: 1.1 proxy",
        "CF-Connecting-IP: 192.0.2.1",
        "X-Forwarded-For:",
    ],
)
async def test_without_an_admin_port_admin_pages_are_refused_through_a_proxy(
    chat: ChatServer, path: str, line: str
) -> None:
    assert (await get(chat.port, path, "Host: 127.0.0.1:PORT")).status == 200
    answer = await get(chat.port, path, "Host: 127.0.0.1:PORT", line)
    assert answer.status == 403
    assert "--admin-port" in answer.body and "--admin-key" in answer.body
    assert "chatlab_" not in answer.body


@pytest.mark.parametrize("path", ["/metrics", "/readyz"])
@pytest.mark.parametrize("host", ["192.0.2.7:PORT", "chat:PORT", "localhost:1", "localhost"])
async def test_admin_pages_are_refused_to_a_proxy_that_only_forwards_the_host(
    chat: ChatServer, path: str, host: str
) -> None:
    assert (await get(chat.port, path, f"Host: {host}")).status == 403


async def test_admin_pages_are_refused_to_another_machine() -> None:
    from chatlab.classroom import lan_address

    if (address := lan_address()) == "127.0.0.1":
        pytest.skip("this machine has no address but loopback")
    async with await start_chat(host="0.0.0.0") as server:
        answer = await say(server.port, _request("/metrics", f"Host: {address}:{server.port}"), host=address)
        assert answer.status == 403
        assert (await get(server.port, "/metrics", "Host: 127.0.0.1:PORT")).status == 200


@pytest.mark.parametrize("kind", ["haproxy", "nginx"])
async def test_admin_pages_are_refused_through_haproxy_and_nginx_on_this_machine(kind: str, tmp_path: Path) -> None:
    async with await start_chat() as server, behind(kind, server.port, tmp_path) as url, ClientSession() as http:
        for path in ("metrics", "readyz"):
            async with http.get(url + path) as answer:
                assert answer.status == 403
        if kind == "nginx":
            async with http.get(url.replace("/a/deep/path/", "/plain/") + "metrics") as answer:
                assert answer.status == 403  # with nginx's default of HTTP/1.0


async def test_an_http_1_0_health_check_is_answered_on_loopback(chat: ChatServer) -> None:
    answer = await say(chat.port, b"GET /readyz HTTP/1.0\r\n\r\n")  # what haproxy sends
    assert (answer.status, answer.body) == (200, "ready\n")


async def test_an_admin_port_serves_the_admin_pages_and_the_chat_port_does_not() -> None:
    async with await start_chat(admin=AdminSettings(port=0)) as server:
        assert server.admin.port and server.admin.port != server.port
        assert "chatlab_connections 0" in (await get(server.admin.port, "/metrics", "Host: 127.0.0.1:PORT")).body
        assert (await get(server.admin.port, "/readyz", "Host: 127.0.0.1:PORT")).body == "ready\n"
        assert (await get(server.admin.port, "/ws", "Host: 127.0.0.1:PORT")).status == 404
        for path in ("/metrics", "/readyz"):
            answer = await get(server.port, path, "Host: 127.0.0.1:PORT")
            assert (answer.status, answer.body) == (404, "not on this port: see --admin-port\n")
        assert (await get(server.port, "/healthz", "Host: 127.0.0.1:PORT")).body == "ok\n"
        assert (await get(server.admin.port, "/metrics", "Host: evil.example")).status == 421


@pytest.mark.parametrize("port", [None, 0])
async def test_with_an_admin_key_the_admin_pages_require_it(port: int | None) -> None:
    async with await start_chat(admin=AdminSettings(port=port, key=KEY)) as server:
        port_shown = server.admin.port or server.port
        for path in ("/metrics", "/readyz"):
            right = f"Authorization: Bearer {KEY}"
            assert (await get(port_shown, path, "Host: localhost", right, "X-Forwarded-For: 192.0.2.1")).status == 200
            wrongs = ("Bearer", "Bearer x", f"Basic {KEY}", f"Bearer {KEY}x", KEY, "Bearer \xff")
            for wrong in ("X: y", *(f"Authorization: {value}" for value in wrongs)):
                answer = await get(port_shown, path, "Host: localhost", wrong)
                assert answer.status == 401, wrong
                assert "www-authenticate: bearer" in answer.head and KEY not in answer.body


def test_an_admin_key_that_could_be_guessed_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 16"):
        AdminSettings(key="hunter2")


async def test_an_admin_port_in_use_fails_the_start_and_leaves_nothing_listening(chat: ChatServer) -> None:
    with pytest.raises(OSError, match=str(chat.port)):
        await start_chat(admin=AdminSettings(port=chat.port))


async def test_wrong_admin_keys_are_logged_a_few_times_and_without_the_key(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with await start_chat(admin=AdminSettings(key=KEY)) as server:
        for number in range(200):
            await get(server.port, "/metrics", "Host: localhost", f"Authorization: Bearer guess-{number}")
    assert 1 <= caplog.text.count("admin page refused") <= 12
    assert "guess-" not in caplog.text and KEY not in caplog.text


# --- Versions ---


@each_place
async def test_no_answer_names_the_software_behind_it(start: Start, path: str) -> None:
    async with await start(origins=["https://class.example"]) as server:
        head = f"GET {path} HTTP/1.1"
        requests = [
            _request(path, "Host: localhost"),
            _request(path, "Host: localhost", *UPGRADE),
            _request(path, "Host: localhost", *UPGRADE, "Origin: https://evil.example"),
            _request(path, "Host: evil.example"),
            _request(path, "Host: localhost", "Accept: text/html", "A\x01: b"),
            _request(path, "Host: localhost", "Transfer-Encoding : chunked"),
            head.replace("GET", "BREW").encode() + b"\r\nHost: localhost\r\n\r\n",
            b"NOT HTTP\r\n\r\n",
            b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ]
        for answer in await asyncio.gather(*(say(server.port, request) for request in requests)):
            octets = answer.octets.lower()
            assert b"\r\nserver:" not in octets
            for word in (b"aiohttp", b"python/", b"websockets/", b"traceback"):
                assert word not in octets


# --- Names with a slash in them ---


async def test_a_user_with_a_slash_in_the_name_receives_only_its_own_private_messages() -> None:
    access = Access(among({"a": "one", "a/b": "two", "a/queue": "three"}))
    async with (
        await start_chat(access=access) as server,
        Peer(server.url, "a", passcode="one") as a,
        Peer(server.url, "a/b", passcode="two") as slash,
        Peer(server.url, "a/queue", passcode="three") as queue,
    ):
        for peer in (a, slash, queue):
            await peer.subscribe("/user/queue/private")
        for to in ("a", "a/b", "a/queue"):
            await queue.receipt("SEND", f'{{"to": "{to}", "content": "for {to}"}}', destination="/app/chat.private")
        for peer, name in ((a, "a"), (slash, "a/b"), (queue, "a/queue")):
            assert f"for {name}" in (await peer.frame("MESSAGE")).body.decode()
            await peer.nothing_more()
