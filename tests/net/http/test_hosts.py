"""Every route of a server checks the request's Host, even routes that do not exist."""

from __future__ import annotations

import logging

import pytest
from aiohttp import web

from chatlab.logs.throttled import ThrottledLog
from chatlab.net.http.hosts import require_known_host
from chatlab.net.http.server import HttpServer
from chatlab.websocket.handshake import known_names
from tests.support.wire import get, say

pytestmark = pytest.mark.every_loop

log = logging.getLogger("chatlab.test")


async def start_server(names: list[str]) -> HttpServer:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text="here")

    app = web.Application()
    app.middlewares.append(require_known_host(known_names(names), (), ThrottledLog(log)))
    app.router.add_get("/", answer)
    http = HttpServer(app, log)
    await http.listen("127.0.0.1", 0)
    return http


async def test_a_request_for_a_known_host_is_answered_and_for_an_unknown_one_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    http = await start_server(["Chat.Example"])
    assert (await get(http.port, "/", "Host: chat.example:443")).body == "here"
    for path in ("/", "/nothing"):
        assert (await get(http.port, path, "Host: evil.example")).status == 421
    for number in range(100):
        await get(http.port, "/", f"Host: evil{number}.example")
    await http.aclose(0)
    assert caplog.text.count("request refused") <= 11


async def test_the_connection_of_a_refused_request_is_closed() -> None:
    http = await start_server([])
    two_requests = b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n" * 2
    answer = await say(http.port, two_requests)
    await http.aclose(0)
    assert answer.octets.count(b"HTTP/1.1 421") == 1 and b"connection: close" in answer.octets.lower()


async def test_every_host_is_accepted_with_a_star() -> None:
    http = await start_server(["*"])
    assert (await get(http.port, "/", "Host: evil.example")).status == 200
    await http.aclose(0)
