"""The balancer of docker-compose.yml, run before two servers: what it keeps, what it spreads, what it survives.

Docker's name server is not here: the lines that ask it for servers are replaced by the servers' addresses.
"""

import asyncio
import re
import shutil
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.endpoint import server as chat
from chatlab.chat.endpoint.admin import AdminSettings
from tests.support.require import missing

CONFIGURATION = (Path(__file__).parents[1] / "docker" / "haproxy.cfg").read_text(encoding="utf-8")
FIND_SERVERS = re.compile(r"server-template chat 10 chat:8000 (.*) resolvers docker init-addr none")
PATIENCE = 10


@pytest.fixture
def haproxy() -> str:
    return (
        shutil.which("haproxy") or shutil.which("/usr/sbin/haproxy") or missing("haproxy", "sudo apt install haproxy")
    )


@asynccontextmanager
async def balancing(haproxy: str, folder: Path, *ports: int) -> AsyncIterator[str]:
    """The balancer before the servers on these ports; gives its HOST:PORT."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    servers = "\n    ".join(rf"server chat{at} 127.0.0.1:{at} \1" for at in ports)
    text, replaced = FIND_SERVERS.subn(servers, CONFIGURATION.replace("bind :8080", f"bind 127.0.0.1:{port}"))
    assert replaced == 2
    file = folder / "haproxy.cfg"
    file.write_text(text, encoding="utf-8")
    process = await asyncio.create_subprocess_exec(haproxy, "-db", "-f", str(file), stdout=asyncio.subprocess.DEVNULL)
    try:
        async with asyncio.timeout(PATIENCE):
            while process.returncode is None:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                except ConnectionRefusedError:
                    await asyncio.sleep(0.02)
        assert process.returncode is None, "haproxy ended"
        yield f"127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def server_that_says(name: str, until_the_end: AsyncExitStack) -> tuple[int, web.TCPSite]:
    """A server that answers everything with its name."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=name)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    until_the_end.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner.addresses[0][1], site


@pytest.fixture
async def two_names(haproxy: str, tmp_path: Path) -> AsyncIterator[tuple[str, dict[str, web.TCPSite]]]:
    async with AsyncExitStack() as until_the_end:
        (first, site_a), (second, site_b) = [await server_that_says(name, until_the_end) for name in "AB"]
        where = await until_the_end.enter_async_context(balancing(haproxy, tmp_path, first, second))
        yield f"http://{where}", {"A": site_a, "B": site_b}


async def ask(client: aiohttp.ClientSession, url: str) -> str:
    async with client.get(url) as response:
        return await response.text()


async def test_websocket_connections_pass_and_are_spread_evenly(haproxy: str, tmp_path: Path) -> None:
    async with AsyncExitStack() as until_the_end:
        enter = until_the_end.enter_async_context
        servers = [await enter(await chat.start(MemoryBroker())) for _ in range(2)]
        where = await enter(balancing(haproxy, tmp_path, *(server.port for server in servers)))
        for number in range(4):
            client = await enter(connect(f"ws://{where}/ws", subprotocols=[Subprotocol("v12.stomp")]))
            await client.send(f"CONNECT\naccept-version:1.2\nhost:{number}\n\n\0")
            assert str(await asyncio.wait_for(client.recv(), PATIENCE)).startswith("CONNECTED\n")
        assert [len(server.service.connections) for server in servers] == [2, 2]


async def test_a_sockjs_session_meets_one_server_whatever_it_asks(
    two_names: tuple[str, dict[str, web.TCPSite]],
) -> None:
    url, _ = two_names
    async with aiohttp.ClientSession() as client:
        met = Counter[str]()
        for number in range(20):
            asked = [f"{url}/ws/{number:03}/session-{number}/{kind}" for kind in ("xhr", "xhr_send", "eventsource")]
            (name,) = {await ask(client, one) for one in asked}
            met[name] += 1
    assert set(met) == {"A", "B"}, "all sessions met the same server"


async def test_what_belongs_to_no_session_is_spread(two_names: tuple[str, dict[str, web.TCPSite]]) -> None:
    url, _ = two_names
    async with aiohttp.ClientSession() as client:
        assert {await ask(client, f"{url}/ws/info") for _ in range(20)} == {"A", "B"}


async def test_a_server_that_has_gone_is_passed_over(two_names: tuple[str, dict[str, web.TCPSite]]) -> None:
    url, sites = two_names
    await sites["A"].stop()
    async with aiohttp.ClientSession() as client:
        assert {await ask(client, f"{url}/ws/info") for _ in range(20)} == {"B"}


async def test_it_asks_for_readiness_on_the_admin_port_where_that_is_another(
    haproxy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await chat.start(MemoryBroker(), admin=AdminSettings(port=0)) as server:
        monkeypatch.setenv("CHATLAB_ADMIN_PORT", str(server.admin.port))
        async with balancing(haproxy, tmp_path, server.port) as where, aiohttp.ClientSession() as client:
            await asyncio.sleep(3)  # two checks that fail would take it out of service
            async with client.get(f"http://{where}/") as page:  # else it would be down: its own port answers 404
                assert page.status == 200
            async with client.get(f"http://{where}/metrics") as metrics:
                assert metrics.status == 404
