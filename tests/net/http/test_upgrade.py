"""The undocumented parts of aiohttp that chatlab uses: if a test fails, a new version has changed them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from chatlab.lab.until import until
from chatlab.net.http.upgrade import _take_rest, transports_of

pytestmark = pytest.mark.every_loop

UPGRADE = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


class Served:
    """An aiohttp server that upgrades, and records the data that followed the request."""

    def __init__(self) -> None:
        self.tail: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None
        app = web.Application()
        app.router.add_get("/", self._answer)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=101)
        await response.prepare(request)
        self.transport = request.transport
        self.tail.set_result(_take_rest(request))
        return response

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.runner.addresses[0])


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    served = Served()
    await served.runner.setup()
    await web.TCPSite(served.runner, "127.0.0.1", 0).start()
    yield served
    await served.runner.cleanup()


@pytest.mark.parametrize("tail", [b"", b"\x81\x80abcd", b"x" * 200_000], ids=["nothing", "a frame", "a lot"])
async def test_data_that_follows_the_upgrade_request_is_handed_over(served: Served, tail: bytes) -> None:
    _, writer = await served.connect()
    writer.write(UPGRADE + tail)
    async with asyncio.timeout(5):
        taken = await served.tail
    writer.close()
    assert tail.startswith(taken) and bool(taken) == bool(tail)


async def test_a_servers_connections_are_listed_from_accept_to_close(served: Served) -> None:
    reader, writer = await served.connect()
    await until(lambda: transports_of(served.runner))
    transports = transports_of(served.runner)
    assert [each.get_extra_info("peername") for each in transports] == [writer.get_extra_info("sockname")]
    writer.write(UPGRADE)
    await served.tail
    assert served.transport is transports[0]
    transports[0].abort()
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readuntil(b"no such bytes")
    await until(lambda: not transports_of(served.runner))
    writer.close()


async def test_a_stopped_server_has_no_connections() -> None:
    assert transports_of(web.AppRunner(web.Application())) == []
