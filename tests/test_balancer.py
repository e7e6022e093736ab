"""The balancer of docker-compose.yml in front of two servers: session affinity, spreading, and failed servers.

Docker's name server is not available here: the lines that ask it for servers are replaced by the servers' addresses.
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
TIMEOUT = 10


@pytest.fixture
def haproxy() -> str:
    return (
        shutil.which("haproxy") or shutil.which("/usr/sbin/haproxy") or missing("haproxy", "sudo apt install haproxy")
    )


@asynccontextmanager
async def balancer(haproxy: str, folder: Path, *ports: int) -> AsyncIterator[str]:
    """Run the balancer in front of the servers on these ports; yield its HOST:PORT."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    servers = "\n    ".join(rf"server chat{each} 127.0.0.1:{each} \1" for each in ports)
    text, replaced = FIND_SERVERS.subn(servers, CONFIGURATION.replace("bind :8080", f"bind 127.0.0.1:{port}"))
    assert replaced == 2
    file = folder / "haproxy.cfg"
    file.write_text(text, encoding="utf-8")
    process = await asyncio.create_subprocess_exec(haproxy, "-db", "-f", str(file), stdout=asyncio.subprocess.DEVNULL)
    try:
        async with asyncio.timeout(TIMEOUT):
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


async def start_named_server(name: str, stack: AsyncExitStack) -> tuple[int, web.TCPSite]:
    """Start a server that answers every request with its name."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=name)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner.addresses[0][1], site


@pytest.fixture
async def two_servers(haproxy: str, tmp_path: Path) -> AsyncIterator[tuple[str, dict[str, web.TCPSite]]]:
    async with AsyncExitStack() as stack:
        (first, site_a), (second, site_b) = [await start_named_server(name, stack) for name in "AB"]
        address = await stack.enter_async_context(balancer(haproxy, tmp_path, first, second))
        yield f"http://{address}", {"A": site_a, "B": site_b}


async def ask(client: aiohttp.ClientSession, url: str) -> str:
    async with client.get(url) as response:
        return await response.text()


async def test_websocket_connections_pass_and_are_spread_evenly(haproxy: str, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        servers = [await enter(await chat.start(MemoryBroker())) for _ in range(2)]
        address = await enter(balancer(haproxy, tmp_path, *(server.port for server in servers)))
        for number in range(4):
            client = await enter(connect(f"ws://{address}/ws", subprotocols=[Subprotocol("v12.stomp")]))
            await client.send(f"CONNECT\naccept-version:1.2\nhost:{number}\n\n\0")
            assert str(await asyncio.wait_for(client.recv(), TIMEOUT)).startswith("CONNECTED\n")
        assert [len(server.service.connections) for server in servers] == [2, 2]


async def test_every_request_of_a_sockjs_session_reaches_the_same_server(
    two_servers: tuple[str, dict[str, web.TCPSite]],
) -> None:
    url, _ = two_servers
    async with aiohttp.ClientSession() as client:
        sessions_by_server = Counter[str]()
        for number in range(20):
            urls = [f"{url}/ws/{number:03}/session-{number}/{kind}" for kind in ("xhr", "xhr_send", "eventsource")]
            (name,) = {await ask(client, each_url) for each_url in urls}
            sessions_by_server[name] += 1
    assert set(sessions_by_server) == {"A", "B"}, "all sessions reached the same server"


async def test_requests_without_a_session_are_spread(two_servers: tuple[str, dict[str, web.TCPSite]]) -> None:
    url, _ = two_servers
    async with aiohttp.ClientSession() as client:
        assert {await ask(client, f"{url}/ws/info") for _ in range(20)} == {"A", "B"}


async def test_a_stopped_server_gets_no_requests(two_servers: tuple[str, dict[str, web.TCPSite]]) -> None:
    url, sites = two_servers
    await sites["A"].stop()
    async with aiohttp.ClientSession() as client:
        assert {await ask(client, f"{url}/ws/info") for _ in range(20)} == {"B"}


async def test_the_balancer_checks_readiness_on_the_admin_port(
    haproxy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await chat.start(MemoryBroker(), admin=AdminSettings(port=0)) as server:
        monkeypatch.setenv("CHATLAB_ADMIN_PORT", str(server.admin.port))
        async with balancer(haproxy, tmp_path, server.port) as address, aiohttp.ClientSession() as client:
            await asyncio.sleep(3)  # time for two failing checks, which would take the server out of service
            # If the balancer checked readiness on the chat's port, which answers 404, it would answer 503.
            async with client.get(f"http://{address}/") as page:
                assert page.status == 200
            async with client.get(f"http://{address}/metrics") as metrics:
                assert metrics.status == 404
