"""@stomp/stompjs in a real browser, on a page of another origin, over a WebSocket and over sockjs-client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint.server import ChatServer
from chatlab.chat.session.connection import StompConnection
from chatlab.lab.until import until
from tests.support import node

pytestmark = pytest.mark.long

SCENARIOS = Path(__file__).with_name("stomp_clients.js")
SCRIPTS = ("@stomp/stompjs/bundles/stomp.umd.min.js", "sockjs-client/dist/sockjs.min.js")


@pytest_asyncio.fixture
async def page_url() -> AsyncIterator[str]:
    """Serve an empty page from another origin."""

    async def empty(request: web.Request) -> web.Response:
        return web.Response(text="<!doctype html><title>clients</title>", content_type="text/html")

    app = web.Application()
    app.router.add_get("/", empty)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


def connection_of(server: ChatServer, login: str) -> StompConnection | None:
    """Return the connection of that login once it has subscribed, otherwise None."""
    for each in server.service.connections:
        if isinstance(each, StompConnection) and each.user and each.user.name == login and each.session.subscriptions:
            return each
    return None


@pytest.mark.parametrize(
    "transport",
    [
        "plain",
        "websocket",
        "xhr-streaming",
        "eventsource",
        "xhr-polling",
    ],
)
async def test_stompjs_scenarios_work_on_each_transport(chrome: Browser, page_url: str, transport: str) -> None:
    modules = await asyncio.to_thread(node.packages)
    async with (
        asyncio.timeout(60),
        await chat_server.start(MemoryBroker(), origins=[page_url], heart_beat=(600, 600)) as server,
    ):
        page = await chrome.new_page()
        await page.goto(page_url)
        for script in (*(modules / name for name in SCRIPTS), SCENARIOS):
            await page.add_script_tag(path=script)
        url = server.page_url + "ws"
        running = asyncio.create_task(
            page.evaluate("([url, transport]) => runScenarios(url, transport)", [url, transport])
        )
        await until(lambda: connection_of(server, "reconnect") is not None, timeout=20)
        dropped = connection_of(server, "reconnect")
        assert dropped is not None
        dropped.transport.sink.abort()
        results = await running
        assert results.pop("talk") == {
            "version": "1.2",
            "transport": transport,
            "left": "RECEIPT",
            "all_received": True,
        }
        assert results.pop("acks") == {
            "auto": ["1", "2"],
            "client": ["1", "2", "2 again"],
            "client-individual": ["1", "2", "2 again"],
        }
        error = results.pop("error")
        assert (error["message"], error["receipt"]) == ("selectors are not supported", "never")
        assert error["code"] == 1008
        assert results == {"beats": {"beats": True}, "reconnect": "back 2"}
        await until(lambda: not server.service.connections)
