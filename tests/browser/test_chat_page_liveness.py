"""Liveness of the page's connection: dropped silently by the network, in a hidden tab, and in a suspended page."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from chatlab.chat.endpoint.server import ChatServer
from chatlab.lab.wire.wire import Wire
from tests.support.chat_page import NO_WEBSOCKET, expect_contents, join, say
from tests.support.hidden_tab import open_tab
from tests.support.people_list import listed
from tests.support.stomp_peer import Peer

DETECTED = 33_000  # ms: half a minute, plus slack for a busy machine
JOIN = "document.querySelector('#name').value = 'Ana'; document.querySelector('#join button').click()"
LOADED = "document.readyState === 'complete' && document.querySelector('#join button') !== null"
STATE = "document.querySelector('#state').dataset.state"
SHOWN = "[...document.querySelectorAll('#log .content')].map(each => each.textContent)"
BLOCK_PAGE = "() => { const until = Date.now() + 25000; while (Date.now() < until); }"
# Intervals never fire, as if the tab stayed hidden and throttled for ever.
NO_TIMERS = "window.setInterval = () => 0"


@pytest.mark.long
@pytest.mark.timeout(120)
@pytest.mark.parametrize("scripts", [pytest.param((), id="websocket"), pytest.param((NO_WEBSOCKET,), id="sockjs")])
async def test_a_silently_dropped_connection_is_detected_within_half_a_minute(
    chrome: Browser, server: ChatServer, scripts: tuple[str, ...]
) -> None:
    async with Wire(to=server.page_url) as wire, Peer(server.url, "Ben") as ben:
        await ben.subscribe("/topic/public")
        page = await join(chrome, wire.url, "Ana", *scripts)
        if scripts:
            await expect(page.get_by_role("status")).to_contain_text("without WebSocket")
        await say(page, "before")
        await expect_contents(page, "before")
        wire.half_open()  # affects only open connections; new ones get through
        await say(page, "written offline")
        await ben.say("sent by Ben")
        await expect(page.locator("#log .sending")).to_have_count(1)
        await expect(page.locator("#log .content")).to_have_text(
            ["before", "sent by Ben", "written offline"], timeout=DETECTED
        )
        await expect(page.locator("#log .sending")).to_have_count(0)
        assert await ben.contents(3) == ["before", "sent by Ben", "written offline"]
        await ben.nothing_more()


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_the_page_shows_not_connected_while_the_network_is_down(chrome: Browser, server: ChatServer) -> None:
    async with Wire(to=server.page_url) as wire:
        page = await join(chrome, wire.url, "Ana")
        wire.half_open()
        wire.stall()  # new connections do not get through either
        await expect(page.get_by_role("status")).to_contain_text("Not connected", timeout=DETECTED)
        await say(page, "written offline")
        await expect(page.locator("#log .sending")).to_have_count(1)
        wire.heal()
        await expect(page.get_by_role("status")).to_contain_text("Connected", timeout=30_000)
        await expect_contents(page, "written offline")


@pytest.mark.long
@pytest.mark.timeout(120)
@pytest.mark.parametrize("scripts", [(), (NO_WEBSOCKET,)], ids=["websocket", "sockjs"])
async def test_a_page_whose_timers_never_run_keeps_its_connection(
    chrome: Browser, server: ChatServer, scripts: tuple[str, ...]
) -> None:
    page = await join(chrome, server.page_url, "Ana", NO_TIMERS, *scripts)
    await expect(page.locator("#people li")).to_have_text([listed("Ana (you)")])
    opened = server.service.metrics.opened
    async with Peer(server.url, "Ben") as ben:
        await ben.subscribe("/topic/who.public")
        assert people(await ben.frame("MESSAGE")) == ["Ana"]
        await asyncio.sleep(25)  # the server closes a client whose promised heart-beats are missing for 15
        assert server.service.metrics.opened == opened + 1
        assert await ben.rest() == []
        await say(page, "still the same connection")
        await expect_contents(page, "still the same connection")


def people(frame: object) -> list[str]:
    return [each["name"] for each in json.loads(frame.body)["people"]]  # type: ignore[attr-defined]  # a Frame


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_a_hidden_tab_keeps_its_connection_and_receives_messages(
    program: str, tmp_path: Path, server: ChatServer
) -> None:
    async with open_tab(program, tmp_path, server.page_url) as tab, Peer(server.url, "Ben") as ben:
        await tab.wait_for(LOADED)
        await tab.evaluate(JOIN)
        await tab.wait_for(f"{STATE} === 'online' && document.querySelector('#people li') !== null")
        await ben.subscribe("/topic/who.public")
        assert people(await ben.frame("MESSAGE")) == ["Ana"]
        await tab.evaluate("window.ticks = 0; setInterval(() => { window.ticks += 1; }, 1000)")
        await tab.hide()
        opened, since = server.service.metrics.opened, time.monotonic()
        while time.monotonic() - since < 90:  # without protection, the connection ends after 76
            await asyncio.sleep(5)
            assert await tab.evaluate(STATE) == "online"
        assert await tab.evaluate("window.ticks") < 75, "the timers were not throttled, so the test proves nothing"
        await ben.say("sent to a hidden tab")
        await tab.wait_for(f"{SHOWN}.includes('sent to a hidden tab')")
        assert server.service.metrics.opened == opened
        assert await ben.rest() == []


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_a_page_suspended_for_a_while_keeps_its_connection(chrome: Browser, server: ChatServer) -> None:
    """Suspend the page like a dialog or a sleeping computer: on resuming, timers are due before data is read."""
    page = await join(chrome, server.page_url, "Ana")
    opened = server.service.metrics.opened
    async with Peer(server.url, "Ben") as ben:
        blocked = asyncio.create_task(page.evaluate(BLOCK_PAGE))
        await ben.say("sent by Ben")
        await blocked
        await expect_contents(page, "sent by Ben")
        await asyncio.sleep(11)  # two checks of how long the server has been silent
        await expect(page.get_by_role("status")).to_contain_text("Connected")
        assert server.service.metrics.opened == opened + 1
