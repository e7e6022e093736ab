"""Whether a connection is alive: one that the network drops without a word, a tab out of sight, a page that sleeps."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from chatlab.chat.endpoint.server import ChatServer
from chatlab.lab.wire.wire import Wire
from tests.support.chat_page import BLOCKED, expect_contents, join, say
from tests.support.hidden_tab import open_tab
from tests.support.people_list import listed
from tests.support.stomp_peer import Peer

NOTICED = 33_000  # ms: half a minute, and what a busy machine needs
JOIN = "document.querySelector('#name').value = 'Ana'; document.querySelector('#join button').click()"
LOADED = "document.readyState === 'complete' && document.querySelector('#join button') !== null"
STATE = "document.querySelector('#state').dataset.state"
SHOWN = "[...document.querySelectorAll('#log .content')].map(each => each.textContent)"
STOPPED = "() => { const until = Date.now() + 25000; while (Date.now() < until); }"
# Timers that are asked to run again and again never do, as if each minute out of sight lasted for ever.
NO_TIMERS = "window.setInterval = () => 0"


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "scripts", [pytest.param((), id="websocket"), pytest.param((BLOCKED,), id="sockjs", marks=pytest.mark.long)]
)
async def test_a_connection_dropped_without_a_word_is_noticed_within_half_a_minute(
    chrome: Browser, server: ChatServer, scripts: tuple[str, ...]
) -> None:
    async with Wire(to=server.page_url) as wire, Peer(server.url, "Ben") as ben:
        await ben.subscribe("/topic/public")
        page = await join(chrome, wire.url, "Ana", *scripts)
        if scripts:
            await expect(page.get_by_role("status")).to_contain_text("without WebSocket")
        await say(page, "before")
        await expect_contents(page, "before")
        wire.half_open()  # only what is open now; new connections get through
        await say(page, "written meanwhile")
        await ben.say("said meanwhile")
        await expect(page.locator("#log .sending")).to_have_count(1)
        await expect(page.locator("#log .content")).to_have_text(
            ["before", "said meanwhile", "written meanwhile"], timeout=NOTICED
        )
        await expect(page.locator("#log .sending")).to_have_count(0)
        assert await ben.contents(3) == ["before", "said meanwhile", "written meanwhile"]
        await ben.nothing_more()


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_meanwhile_the_page_says_that_it_is_not_connected(chrome: Browser, server: ChatServer) -> None:
    async with Wire(to=server.page_url) as wire:
        page = await join(chrome, wire.url, "Ana")
        wire.half_open()
        wire.stall()  # and nothing new gets through, either
        await expect(page.get_by_role("status")).to_contain_text("Not connected", timeout=NOTICED)
        await say(page, "written meanwhile")
        await expect(page.locator("#log .sending")).to_have_count(1)
        wire.heal()
        await expect(page.get_by_role("status")).to_contain_text("Connected", timeout=30_000)
        await expect_contents(page, "written meanwhile")


@pytest.mark.long
@pytest.mark.timeout(120)
@pytest.mark.parametrize("scripts", [(), (BLOCKED,)], ids=["websocket", "sockjs"])
async def test_a_page_whose_timers_never_run_keeps_its_connection(
    chrome: Browser, server: ChatServer, scripts: tuple[str, ...]
) -> None:
    page = await join(chrome, server.page_url, "Ana", NO_TIMERS, *scripts)
    await expect(page.locator("#people li")).to_have_text([listed("Ana (you)")])
    opened = server.service.metrics.opened
    async with Peer(server.url, "Ben") as ben:
        await ben.subscribe("/topic/who.public")
        assert people(await ben.frame("MESSAGE")) == ["Ana"]
        await asyncio.sleep(25)  # the server gives up a client that promised heart-beats after 15
        assert server.service.metrics.opened == opened + 1
        assert await ben.rest() == []
        await say(page, "still the same connection")
        await expect_contents(page, "still the same connection")


def people(frame: object) -> list[str]:
    return [each["name"] for each in json.loads(frame.body)["people"]]  # type: ignore[attr-defined]  # a Frame


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_a_tab_out_of_sight_keeps_its_connection_and_hears_everything(
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
        while time.monotonic() - since < 90:  # without a remedy, the first connection has ended after 76
            await asyncio.sleep(5)
            assert await tab.evaluate(STATE) == "online"
        assert await tab.evaluate("window.ticks") < 75, "the timers were not slowed down: nothing was tried"
        await ben.say("heard out of sight")
        await tab.wait_for(f"{SHOWN}.includes('heard out of sight')")
        assert server.service.metrics.opened == opened
        assert await ben.rest() == []


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_a_page_that_was_stopped_for_a_while_goes_on_with_the_connection_it_has(
    chrome: Browser, server: ChatServer
) -> None:
    """As by a dialog, a debugger or a computer asleep: afterwards its timers are due before it has heard anything."""
    page = await join(chrome, server.page_url, "Ana")
    opened = server.service.metrics.opened
    async with Peer(server.url, "Ben") as ben:
        stopped = asyncio.create_task(page.evaluate(STOPPED))
        await ben.say("said meanwhile")
        await stopped
        await expect_contents(page, "said meanwhile")
        await asyncio.sleep(11)  # two looks at how long the server has been silent
        await expect(page.get_by_role("status")).to_contain_text("Connected")
        assert server.service.metrics.opened == opened + 1
