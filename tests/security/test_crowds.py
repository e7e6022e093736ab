"""One peer opens as many connections as it can: spare ones answer newcomers with 503, and others keep theirs."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from aiohttp import ClientSession
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from chatlab import echo, room
from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.access import Access
from chatlab.chat.app import User
from chatlab.chat.budgets import Budgets
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint.server import ChatServer
from chatlab.lab.until import until
from chatlab.net.connection_limits import ConnectionLimits
from tests.support.attacks import SLACK, attacked, port_of, round_trip
from tests.support.stomp_peer import Peer

Start = Callable[..., Awaitable[echo.EchoServer]]
numbers = itertools.count(1)

UPGRADE = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@contextmanager
def sockets(port: int, count: int, request: str) -> Iterator[list[socket.socket]]:
    """Hold `count` connections, each with a request sent."""
    with ExitStack() as held:
        opened = []
        for _ in range(count):
            sock = held.enter_context(socket.create_connection(("127.0.0.1", port), 5))
            sock.sendall(request.encode())
            opened.append(sock)
        yield opened


async def ask(port: int, request: str) -> bytes:
    """Return the answer to a newcomer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request.encode())
    answer = await asyncio.wait_for(reader.read(1000), 10)
    writer.close()
    return answer


HEALTH = "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "path"), [(("chat", "--broker", "memory://"), "/ws"), (("room",), "/room"), (("chat",), "")]
)
async def test_a_client_that_takes_all_descriptors_leaves_some_for_503_answers(
    arguments: tuple[str, ...], path: str
) -> None:
    async with attacked(*arguments, "--port", "0", descriptors=256) as (url, command):
        port, request = port_of(url), UPGRADE.format(path=path) if path else "GET /ws HT"
        with sockets(port, 400, request):
            await asyncio.sleep(0.5)
            for _ in range(3):
                answer = await ask(port, UPGRADE.format(path="/room" if path == "/room" else "/ws"))
                assert answer.startswith(b"HTTP/1.1 503 ")
                assert b"too many connections (limit connections)" in answer
            if path == "/ws":
                await asyncio.sleep(2.5)  # the attacker's last connections have lost their spare places
                assert (await ask(port, HEALTH)).startswith(b"HTTP/1.1 200 ")
        command.process.terminate()
        _, _, errors = await command.ended()
        assert errors.count("over budget") == 1
        assert len(errors.splitlines()) < 700
        assert "Traceback" not in errors


SMALL_SERVERS = [(("echo",), ""), (("echo", "--by-hand"), ""), (("room",), "room")]
each_small_server = pytest.mark.parametrize(("arguments", "path"), SMALL_SERVERS, ids=["library", "by hand", "room"])


async def is_admitted(url: str, **options: Any) -> bool:
    """Return whether a WebSocket opens, and leave it open; if it does not, check that the answer says why."""
    try:
        await connect(url, proxy=None, close_timeout=0.1, **options)
    except InvalidStatus as refused:
        assert refused.response.status_code == 503
        assert b"too many connections" in (refused.response.body or b"")
        assert refused.response.headers["Retry-After"] == "10"
        return False
    return True


@each_small_server
@pytest.mark.parametrize("limit", ["connections", "connections-per-address"])
async def test_echo_servers_and_the_room_admit_as_many_connections_as_their_limits_allow(
    arguments: tuple[str, ...], path: str, limit: str
) -> None:
    async with attacked(*arguments, "--port", "0", "--limit", f"{limit}=3") as (url, command):
        assert [await is_admitted(url) for _ in range(6)] == [True] * 3 + [False] * 3
        command.process.terminate()
        _, _, errors = await command.ended()
        assert errors.count("refused: over budget") == 1
        assert f"budget={limit}" in errors


@pytest.mark.long
@each_small_server
async def test_a_client_that_takes_all_descriptors_of_a_small_server_gets_503(
    arguments: tuple[str, ...], path: str
) -> None:
    async with attacked(*arguments, "--port", "0", descriptors=256) as (url, command):
        with sockets(port_of(url), 400, UPGRADE.format(path=f"/{path}")):
            assert [await is_admitted(url) for _ in range(3)] == [False] * 3
        await asyncio.sleep(0.5)  # the attacker's connections are closed
        assert await is_admitted(url)
        command.process.terminate()
        _, _, errors = await command.ended()
        assert errors.count("over budget") == 1
        assert "Traceback" not in errors and "Too many open files" not in errors


async def test_behind_a_trusted_proxy_the_room_limits_connections_per_client() -> None:
    limits = ConnectionLimits(connections_per_address=2)
    async with await room.start(limits=limits, trusted_proxies=["127.0.0.1"]) as server:
        for client, expected in [("192.0.2.7", [True, True, False]), ("192.0.2.8", [True])]:
            headers = {"X-Forwarded-For": f"203.0.113.9, {client}"}
            assert [await is_admitted(server.url, additional_headers=headers) for _ in expected] == expected


@pytest.mark.parametrize("start", [echo.start, echo.start_by_hand], ids=["library", "by hand"])
async def test_behind_a_trusted_proxy_the_echo_servers_limit_connections_per_client(start: Start) -> None:
    limits = ConnectionLimits(connections_per_address=2)
    async with await start(limits=limits, trusted_proxies=["127.0.0.1"]) as server:
        for client, expected in [("192.0.2.7", [True, True, False]), ("192.0.2.8", [True]), ("192.0.2.7", [False])]:
            for admitted in expected:
                # The client may have written the first address itself; it does not make it another client.
                headers = {"X-Forwarded-For": f"203.0.113.{next(numbers)}, {client}"}
                assert await is_admitted(server.url, additional_headers=headers) is admitted


@pytest.mark.parametrize("start", [echo.start, echo.start_by_hand], ids=["library", "by hand"])
async def test_an_echo_servers_place_is_free_again_after_its_client_behind_a_proxy_disconnects(start: Start) -> None:
    limits = ConnectionLimits(connections_per_address=1)
    headers = {"X-Forwarded-For": "192.0.2.7"}
    async with await start(limits=limits, trusted_proxies=["127.0.0.1"]) as server:
        for _ in range(3):
            async with connect(server.url, additional_headers=headers, proxy=None) as client:
                await client.send("here")
                assert await client.recv() == "here"
                with pytest.raises(InvalidStatus) as refused:
                    await connect(server.url, additional_headers=headers, proxy=None)
                assert refused.value.response.status_code == 503
                assert refused.value.response.headers["Retry-After"] == "10"


@pytest.mark.parametrize("start", [echo.start, echo.start_by_hand], ids=["library", "by hand"])
async def test_echo_servers_ignore_x_forwarded_for_from_an_untrusted_address(start: Start) -> None:
    async with await start(limits=ConnectionLimits(connections_per_address=1)) as server:
        assert await is_admitted(server.url, additional_headers={"X-Forwarded-For": "192.0.2.7"})
        assert not await is_admitted(server.url, additional_headers={"X-Forwarded-For": "192.0.2.8"})


async def test_connected_clients_are_not_slowed_down_by_a_crowd_of_new_connections() -> None:
    async with attacked("chat", "--broker", "memory://", "--port", "0", descriptors=256) as (url, _), Peer(url) as peer:
        calm = await round_trip(peer)
        with sockets(port_of(url), 400, UPGRADE.format(path="/ws")):
            assert await round_trip(peer) <= 2 * calm + SLACK


async def status_of(server: ChatServer, **headers: str) -> int:
    """Return the status of an upgrade with these headers; after 101 the connection stays open."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        await connect(server.url, additional_headers=named, proxy=None, close_timeout=0.1)
    except InvalidStatus as refused:
        return refused.response.status_code
    return 101


async def test_behind_a_trusted_proxy_the_chat_limits_connections_per_client(broker: MemoryBroker) -> None:
    budgets = Budgets(connections_per_address=2)
    async with await chat_server.start(broker, budgets=budgets, trusted_proxies=["127.0.0.1"]) as server:
        statuses = [await status_of(server, X_Forwarded_For=f"203.0.113.{n}, 192.0.2.7") for n in range(4)]
        assert statuses == [101, 101, 503, 503], (
            "what a client writes into the header itself must not make it another client"
        )
        assert await status_of(server, X_Forwarded_For="192.0.2.8") == 101
        ipv6 = [await status_of(server, X_Forwarded_For=f"2001:db8:1:2::{n}") for n in range(4)]
        assert ipv6 == [101, 101, 503, 503]
        assert server.service.refusals.counts == {"connections-per-address": 4}


async def test_without_a_trusted_proxy_x_forwarded_for_is_ignored(broker: MemoryBroker) -> None:
    async with await chat_server.start(broker, budgets=Budgets(connections_per_address=2)) as server:
        statuses = [await status_of(server, X_Forwarded_For=f"192.0.2.{n}") for n in range(4)]
        assert statuses == [101, 101, 503, 503]


async def test_a_whole_class_behind_one_address_is_admitted(broker: MemoryBroker) -> None:
    async with await chat_server.start(broker, trusted_proxies=["127.0.0.1"]) as server:
        statuses = [await status_of(server, X_Forwarded_For="192.0.2.7") for _ in range(120)]
        assert statuses == [101] * 120, "forty people with three tabs each"


async def test_a_place_is_free_again_after_its_client_disconnects(broker: MemoryBroker) -> None:
    async with await chat_server.start(broker, budgets=Budgets(connections_per_address=1)) as server:
        for _ in range(5):
            async with Peer(server.url):
                assert server.service.places.in_use == 1
            await until(lambda: not server.service.places.in_use)
        assert server.service.places.addresses == 0


async def test_connections_of_one_user_are_limited(broker: MemoryBroker) -> None:
    access = Access(lambda credentials: User(credentials.login or "", credentials.login or ""))
    budgets = Budgets(connections_per_principal=2)
    async with await chat_server.start(broker, budgets=budgets, access=access) as server:
        async with Peer(server.url, "mallory"), Peer(server.url, "mallory"), Peer(server.url, "ana"):
            third = await Peer(server.url).open()
            await third.send("CONNECT", accept_version="1.2", host="x", login="mallory")
            error = await third.frame("ERROR")
            assert error.get("message") == (
                "too many connections of 'mallory': at most 2 are allowed; close some of the others"
            )
            assert error.get("limit") == "connections-per-principal"
            assert await third.close_code() == 1008
        await until(lambda: not server.service.principals.in_use)
        async with Peer(server.url, "mallory"):
            pass


async def metric(server: ChatServer, name: str) -> float:
    """Return one sample of /metrics."""
    async with ClientSession() as http, http.get(f"{server.page_url}metrics") as response:
        lines = (await response.text()).splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} "))


@pytest.mark.long
async def test_sockjs_sessions_count_as_connections_even_over_one_tcp_connection(broker: MemoryBroker) -> None:
    async with await chat_server.start(broker) as server, Peer(server.url, "bystander") as peer:
        calm = await round_trip(peer)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        statuses = []
        for number in range(1500):
            path = f"/ws/0/session{number}/xhr"
            writer.write(f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            statuses.append(int(head.split()[1]))
            await _read_body(reader, head)
        assert statuses.count(200) <= 500
        assert statuses[-1] == 503
        assert await metric(server, "chatlab_connections") <= 501
        assert await metric(server, "chatlab_sockjs_sessions") <= 500
        refused = 'chatlab_refused_by_budget_total{budget="sockjs-sessions-per-address"}'
        assert await metric(server, refused) >= 1000
        assert await round_trip(peer) <= 2 * calm + SLACK
        await until(lambda: not server.service.sockjs_places.in_use, timeout=20)
        assert server.service.places.in_use == 1, "sessions that never CONNECT are closed soon"
        writer.close()


async def _read_body(reader: asyncio.StreamReader, head: bytes) -> None:
    if b"chunked" in head.lower():
        while (size := int(await reader.readline(), 16)) >= 0:
            await reader.readexactly(size + 2)
            if not size:
                return
    length = int(head.lower().partition(b"content-length: ")[2].split()[0])
    await reader.readexactly(length)


async def test_a_sockjs_websocket_that_never_sends_connect_is_closed(broker: MemoryBroker) -> None:
    async with await chat_server.start(broker, connect_timeout=0.3) as server:
        websocket = await connect(f"{server.url}/0/abc/websocket", proxy=None)
        async with asyncio.timeout(10):
            await websocket.wait_closed()
        await until(lambda: not server.service.places.in_use)


async def test_connections_of_one_instance_are_limited(broker: MemoryBroker) -> None:
    async with (
        await chat_server.start(broker, budgets=Budgets(connections=2)) as server,
        Peer(server.url),
        Peer(server.url),
    ):
        assert await status_of(server) == 503
        assert await metric(server, 'chatlab_budget_limit{budget="connections"}') == 2
