"""HTTP on our own sockets: active requests may finish, and those that do not are aborted at the deadline."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from chatlab.net.http.server import HttpServer, bind

pytestmark = pytest.mark.every_loop

REQUEST = b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n"


class Slow:
    """A server whose answers wait for `answering`; at /stubborn they go on after being cancelled."""

    def __init__(self) -> None:
        self.answering = asyncio.Event()
        self.requested = asyncio.Event()
        app = web.Application()
        app.router.add_get("/slow", self._answer)
        app.router.add_get("/stubborn", self._ignore_cancel)
        self.http = HttpServer(app, logging.getLogger("chatlab.test"))

    async def _answer(self, request: web.Request) -> web.Response:
        self.requested.set()
        await self.answering.wait()
        return web.Response(text="at last")

    async def _ignore_cancel(self, request: web.Request) -> web.Response:
        self.requested.set()
        try:
            await self.answering.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(1)
        return web.Response()

    async def ask(self, path: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(self.http.host, self.http.port)
        writer.write(REQUEST % path)
        await self.requested.wait()
        return reader, writer

    async def seconds_to_stop(self, seconds: float) -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await self.http.aclose(began + seconds)
        return loop.time() - began


@pytest.fixture
async def slow() -> AsyncIterator[Slow]:
    slow = Slow()
    await slow.http.listen("127.0.0.1", 0)
    yield slow
    await slow.http.aclose(deadline=0)


async def test_shutdown_finishes_active_requests_and_accepts_no_connections(slow: Slow) -> None:
    reader, writer = await slow.ask(b"slow")
    stopping = asyncio.create_task(slow.seconds_to_stop(10))
    while not stopping.done():
        try:
            _, late = await asyncio.open_connection(slow.http.host, slow.http.port)
        except OSError:
            break
        late.close()
        await asyncio.sleep(0.01)
    slow.answering.set()
    assert (await reader.readuntil(b"at last")).startswith(b"HTTP/1.1 200 ")
    assert await stopping < 5
    writer.close()


@pytest.mark.parametrize("path", [b"slow", b"stubborn"])
async def test_an_unfinished_request_is_aborted_at_the_shutdown_deadline(slow: Slow, path: bytes) -> None:
    reader, writer = await slow.ask(path)
    assert 0.29 <= await slow.seconds_to_stop(0.3) < 0.8  # the loop's clock is finer than its timers
    with pytest.raises(ConnectionError):
        assert await reader.read() == b""
        raise ConnectionResetError  # an event loop may report a reset as an end
    writer.close()


async def test_shutdown_with_a_past_deadline_does_not_wait(slow: Slow) -> None:
    _, writer = await slow.ask(b"slow")
    assert await slow.seconds_to_stop(-1) < 0.5
    writer.close()


async def test_a_port_in_use_raises_an_oserror_that_names_it(slow: Slow) -> None:
    other = HttpServer(web.Application(), logging.getLogger("chatlab.test"))
    with pytest.raises(OSError, match=f"cannot listen at 127.0.0.1, port {slow.http.port}: address already in use"):
        await other.listen("127.0.0.1", slow.http.port)
    await other.aclose(deadline=0)


def test_accepted_connections_inherit_the_send_buffer_size() -> None:
    (listening,) = bind("127.0.0.1", 0, send_buffer=4096)
    with listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) < 16_384
