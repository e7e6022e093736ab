"""The undocumented parts of aiohttp that we rely on: how its handlers are created, and their attributes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import cast

import pytest
from aiohttp import web

from chatlab.net.http.runner import QuietHandler
from chatlab.net.http.server import HttpServer
from tests.support.wire import get, say

pytestmark = pytest.mark.every_loop


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    async def body(request: web.Request) -> web.Response:
        return web.Response(text=f"{len(await request.read())}")

    async def fail(request: web.Request) -> web.Response:
        raise KeyError("ours")

    app = web.Application()
    app.router.add_post("/", body)
    app.router.add_get("/fail", fail)
    http = HttpServer(app, logging.getLogger("chatlab.test"))
    await http.listen("127.0.0.1", 0)
    yield http
    await http.aclose(0)


POST = b"POST / HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    "octets",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n\r\n",
        POST + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nabcde",
        POST + b"Content-Length: 5\r\n\r\nabcdeGARBAGE\r\n\r\n",
    ],
    ids=["not HTTP", "a bad header", "a bad chunk", "not gzip", "garbage after a body"],
)
async def test_input_that_is_not_http_gets_400_without_a_traceback(
    server: HttpServer, octets: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    answer = await say(server.port, octets)
    assert b"400 Bad Request" in answer.octets and b"not HTTP: " in answer.octets
    assert b"\r\nserver:" not in answer.octets.lower()
    assert [record.getMessage() for record in caplog.records if record.exc_info or record.name != "chatlab.test"] == []


@pytest.mark.long
async def test_two_thousand_malformed_requests_make_few_log_lines(
    server: HttpServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(20):
        await asyncio.gather(*(say(server.port, b"NO HTTP\r\n\r\n") for _ in range(100)))
    assert 1 <= len(caplog.messages) <= 30


async def test_our_own_errors_are_logged_with_a_traceback_and_throttled(
    server: HttpServer, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(50):
        answer = await get(server.port, "/fail", "Host: x")
        assert answer.status == 500 and "KeyError" not in answer.body and "server:" not in answer.head
    faults = [record for record in caplog.records if record.exc_info]
    assert 1 <= len(faults) <= 11 and "KeyError" in caplog.text


async def test_a_handler_reports_an_incomplete_request(server: HttpServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    runner = server._runner.server
    assert runner is not None

    async def send_and_wait(octets: bytes, expected: bool) -> None:
        writer.write(octets)
        async with asyncio.timeout(10):
            while not (runner.connections and _is_incomplete(runner) is expected):  # noqa: ASYNC110  # nothing announces it
                await asyncio.sleep(0.01)

    await send_and_wait(POST + b"Content-Le", True)
    await send_and_wait(b"ngth: 0\r\n\r\n", False)
    await reader.readuntil(b"\r\n\r\n")
    await send_and_wait(POST, True)
    await send_and_wait(b"Content-Length: 4\r\n\r\n\r\n\r\n" + POST, True)  # together with the previous request
    await send_and_wait(b"Content-Length: 0\r\n\r\n", False)
    writer.close()


def _is_incomplete(server: web.Server) -> bool:
    return cast(QuietHandler, server.connections[0]).half_since is not None
