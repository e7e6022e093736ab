"""A proxy in the environment is never used for connections to this machine."""

from __future__ import annotations

import ast
import asyncio
import json
import socket
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from chatlab import echo, room
from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.endpoint import server as chat_server
from chatlab.clients.stomp import StompClient
from chatlab.lab.clients import RoomClient, StompMember
from chatlab.lab.experiments import lesson03, lesson06, lesson07
from chatlab.lab.hand_client import HandClient
from chatlab.proxies import is_loopback, keep_loopback_direct, proxy_for

ROOT = Path(__file__).parents[1]
VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "ws_proxy", "wss_proxy", "socks_proxy")


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Set the variables of a proxy that does not answer, and no NO_PROXY; yield the proxy's URL."""
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with socket.socket() as closed:  # bound but not listening: nothing answers, and the port stays reserved
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        for name in VARIABLES:
            monkeypatch.setenv(name, address)
            monkeypatch.setenv(name.upper(), address)
        yield address


# --- Hosts that are this machine ---


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost", "LOCALHOST", "localhost.", "a.localhost"]
)
def test_loopback_hosts_are_recognised(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "10.0.0.1", "192.168.0.7", "chat.example", "localhost.example", "::2"])
def test_other_hosts_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)


def test_the_proxy_is_used_only_for_remote_servers() -> None:
    assert proxy_for("ws://127.0.0.1:8080/ws") is None
    assert proxy_for("ws://[::1]:8080/ws") is None
    assert proxy_for("wss://chat.example/ws") is True


# --- Other people's code: NO_PROXY ---


def test_loopback_is_added_to_the_hosts_that_go_direct() -> None:
    environment = {"HTTPS_PROXY": "http://proxy.example:3128", "NO_PROXY": "intra.example, 127.0.0.1"}
    keep_loopback_direct(environment)
    assert environment["NO_PROXY"] == environment["no_proxy"] == "intra.example,127.0.0.1,localhost,::1,[::1]"
    keep_loopback_direct(environment)
    assert environment["NO_PROXY"] == "intra.example,127.0.0.1,localhost,::1,[::1]"


def test_no_proxy_with_a_star_is_left_unchanged() -> None:
    environment = {"all_proxy": "socks5://proxy.example:1080", "no_proxy": "*"}
    keep_loopback_direct(environment)
    assert environment["no_proxy"] == environment["NO_PROXY"] == "*"


@pytest.mark.parametrize("environment", [{}, {"NO_PROXY": "intra.example"}, {"http_proxy": ""}])
def test_without_a_proxy_nothing_is_changed(environment: dict[str, str]) -> None:
    before = dict(environment)
    keep_loopback_direct(environment)
    assert environment == before


@pytest.mark.usefixtures("proxy")
async def test_a_learners_code_reaches_this_machine_directly() -> None:
    keep_loopback_direct()
    for host in ("127.0.0.1", "::1"):
        try:
            server = await room.start(host=host)
        except OSError:  # no IPv6 on this machine
            continue
        async with server, connect(server.join_url("Ana")) as client:
            assert await client.recv() == "* Ana joined (1 here)"
            page = await asyncio.to_thread(urllib.request.urlopen, server.page_url(), timeout=5)
            assert page.status == 200
            page.close()


# --- chatlab's clients, with the variables set ---


@asynccontextmanager
async def running_chat() -> AsyncIterator[chat_server.ChatServer]:
    async with MemoryBroker() as broker, await chat_server.start(broker) as server:
        yield server


@pytest.mark.usefixtures("proxy")
async def test_the_stomp_client_reaches_this_machine_directly() -> None:
    async with running_chat() as server, StompClient(server.url) as client:
        assert client.connected.command == "CONNECTED"


async def test_the_stomp_client_uses_the_proxy_for_a_remote_server(proxy: str) -> None:
    with pytest.raises(ConnectionError, match=proxy.rpartition(":")[2]):
        await StompClient("ws://192.0.2.1:8080/ws").connect()  # RFC 5737: an address for documentation only


async def test_an_unusable_socks_proxy_is_a_connection_error() -> None:
    client = StompClient("wss://192.0.2.1/ws", proxy="socks5://127.0.0.1:9")  # without python-socks, an ImportError
    with pytest.raises(OSError):
        await client.connect()


@pytest.mark.usefixtures("proxy")
async def test_the_clients_of_the_lessons_reach_this_machine_directly() -> None:
    async with running_chat() as server:
        member = StompMember(server.url, "민지")
        await member.connect()
        await member.send("안녕")
        await member.heard("안녕")
        await member.close()
        assert "chatlab_connections" in await lesson07._metrics(server.url)
        assert await lesson06.error_for(server.url, "SEND\n\n\0") != ""
        assert await lesson06.over_plain_http(server.url, answers=0) == []
    async with await room.start() as server_of_the_room:
        guest = RoomClient(server_of_the_room.url, "Ana")
        await guest.connect()
        await guest.heard("* Ana joined")
        await guest.close()
        assert (await lesson03.knock(server_of_the_room.url, origin="https://evil.example")).status == 403
    async with await echo.start() as server_of_the_echo:
        by_hand = await HandClient.connect(server_of_the_echo.url)
        await by_hand.close()


# --- The sources, so that new clients follow the rule ---


def python_source(path: Path) -> str:
    if path.suffix == ".py":
        return path.read_text(encoding="utf-8")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


SOURCES = [*sorted((ROOT / "chatlab").rglob("*.py")), *sorted((ROOT / "notebooks").glob("*.ipynb"))]


def calls_without_proxy_rule(tree: ast.AST) -> Iterator[str]:
    """Yield the calls in a source that would use a proxy for this machine."""
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("websockets")
        for alias in node.names
    }
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="connect"), keywords=keywords) if "connect" in imported:
                if not {"proxy", None} & {keyword.arg for keyword in keywords}:
                    yield f"line {node.lineno}: connect() without proxy="
            case ast.keyword(arg="trust_env"):
                yield f"line {node.lineno}: trust_env"
            case ast.Import(names=names) if {"urllib.request", "requests", "httpx"} & {alias.name for alias in names}:
                yield f"line {node.lineno}: a client that uses the proxy of the environment"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_uses_a_proxy_for_this_machine(path: Path) -> None:
    assert list(calls_without_proxy_rule(ast.parse(python_source(path), feature_version=(3, 11)))) == []
