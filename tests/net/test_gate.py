"""The gate in front of an HTTP server: clients without a slot are refused with a reason, health checks are answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from chatlab.lab.until import until
from chatlab.net import gate
from chatlab.net.gate import Gate
from chatlab.net.http.server import HttpServer
from chatlab.net.places import ConnectionSlots, Refusals, TrustedProxies

pytestmark = pytest.mark.every_loop

log = logging.getLogger("chatlab.test")


async def hello(request: web.Request) -> web.Response:
    return web.Response(text="hello")


def server_with(slots: ConnectionSlots, proxies: tuple[str, ...] = ()) -> HttpServer:
    app = web.Application()
    app.router.add_get("/hello", hello)
    app.router.add_get("/healthz", hello)
    guard = Gate(slots, Refusals(log), TrustedProxies(proxies), count_loopback=True)
    return HttpServer(app, log, gate=guard, always=("/healthz",))


async def open_connection(http: HttpServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(http.host, http.port)


async def ask(http: HttpServer, path: str) -> bytes:
    reader, writer = await open_connection(http)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


@pytest.fixture
async def full() -> AsyncIterator[HttpServer]:
    http = server_with(ConnectionSlots(total=2))
    await http.listen("127.0.0.1", 0)
    held = [await open_connection(http) for _ in range(2)]
    await until(lambda: http.gate.slots.in_use == 2)
    yield http
    for _, writer in held:
        writer.close()
    await http.aclose(0)


async def test_a_connection_over_the_limit_gets_503_with_the_limits_name(
    full: HttpServer, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(5):
        answer = await ask(full, "/hello")
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"too many connections (limit connections): try again later" in answer
    assert full.gate.refusals.counts == {"connections": 5}
    assert [record.message for record in caplog.records] == ["refused: over budget"]


async def test_a_full_server_still_answers_health_checks(full: HttpServer) -> None:
    for _ in range(100):
        assert (await ask(full, "/healthz")).startswith(b"HTTP/1.1 200 ")


async def test_spare_slots_are_freed_after_a_time_limit(full: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "SPARE_SECONDS", 0.2)
    idle = [await open_connection(full) for _ in range(40)]
    assert (await idle[-1][0].read()).startswith(b"HTTP/1.1 503 "), (
        "connections beyond the spare slots are refused at once"
    )
    for reader, writer in idle:
        await reader.read()
        writer.close()
    assert (await ask(full, "/healthz")).startswith(b"HTTP/1.1 200 ")


async def test_a_slot_is_freed_when_its_connection_closes() -> None:
    http = server_with(ConnectionSlots(total=1, per_address=1))
    await http.listen("127.0.0.1", 0)
    for _ in range(20):
        assert (await ask(http, "/hello")).startswith(b"HTTP/1.1 200 ")
        await until(lambda: not http.gate.slots.in_use)
    await http.aclose(0)
    assert http.gate.slots.addresses == 0


async def test_an_address_at_its_limit_is_refused_while_slots_are_free() -> None:
    http = server_with(ConnectionSlots(total=10, per_address=1))
    await http.listen("127.0.0.1", 0)
    _, writer = await open_connection(http)
    await until(lambda: http.gate.slots.in_use)
    assert b"too many connections from one address (limit connections-per-address)" in await ask(http, "/hello")
    writer.close()
    await http.aclose(0)


async def test_a_trusted_proxy_has_no_limit_per_address() -> None:
    http = server_with(ConnectionSlots(total=10, per_address=1), ("127.0.0.1",))
    await http.listen("127.0.0.1", 0)
    _, writer = await open_connection(http)
    assert (await ask(http, "/hello")).startswith(b"HTTP/1.1 200 ")
    writer.close()
    await http.aclose(0)
