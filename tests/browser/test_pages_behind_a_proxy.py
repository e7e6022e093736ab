"""The pages under a path of a reverse proxy, /a/deep/path/: every request they make is under that path too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from chatlab import room
from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.endpoint import server as chat_server
from tests.browser.test_chat_page import expect_contents, say
from tests.browser.test_chat_page_liveness import NO_WEBSOCKET
from tests.support.reverse_proxies import behind

pytestmark = pytest.mark.long


async def open_page(chrome: Browser, url: str, *scripts: str) -> tuple[Page, list[str]]:
    """Open a window; return it and the list of its failed requests."""
    page = await (await chrome.new_context(locale="en")).new_page()
    failed: list[str] = []
    page.on("response", lambda response: failed.append(response.url) if response.status >= 400 else None)
    page.on("pageerror", lambda error: (_ for _ in ()).throw(AssertionError(error)))
    for script in scripts:
        await page.add_init_script(script)
    await page.goto(url)
    return page, failed


@pytest.mark.parametrize("kind", ["haproxy", "nginx"])
@pytest.mark.parametrize("scripts", [(), (NO_WEBSOCKET,)], ids=["websocket", "sockjs"])
async def test_the_chat_page_works_under_a_path(
    chrome: Browser, tmp_path: Path, kind: str, scripts: tuple[str, ...]
) -> None:
    async with (
        MemoryBroker() as broker,
        await chat_server.start(broker) as server,
        behind(kind, server.port, tmp_path) as url,
    ):
        page, failed = await open_page(chrome, url, *scripts)
        await page.get_by_label("Name", exact=True).fill("Ana")
        await page.get_by_role("button", name="Join").click()
        state = "Connected (without WebSocket)" if scripts else "Connected"
        await expect(page.get_by_role("status")).to_have_text(re.compile(rf"{re.escape(state)}$"), timeout=15_000)
        await say(page, "under a path")
        await expect_contents(page, "under a path")
        assert failed == []


@pytest.mark.parametrize("kind", ["haproxy", "nginx"])
async def test_the_room_page_works_under_a_path_and_stays_there(chrome: Browser, tmp_path: Path, kind: str) -> None:
    async with await room.start(code="K7QX3M") as server, behind(kind, server.port, tmp_path) as url:
        page, failed = await open_page(chrome, f"{url}#WRONG2")
        assert page.url == url
        await page.get_by_label("Your name").fill("Ana")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("status")).to_have_text("not let in: wrong room code")
        failed.clear()
        await page.get_by_label("Room code").fill("K7QX3M")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("status")).to_have_text("in the room")
        await page.get_by_role("textbox", name="Message").fill("under a path")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("listitem").last).to_have_text("Server received from Ana: under a path")
        assert failed == []
