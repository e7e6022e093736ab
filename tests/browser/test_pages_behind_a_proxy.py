"""The pages below a path that a reverse proxy gives them, /a/deep/path/: all that they ask for is below it as well."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from chatlab import room
from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.endpoint import server as chat_server
from tests.support.chat_page import BLOCKED, expect_contents, say
from tests.support.reverse_proxies import behind

pytestmark = pytest.mark.long


async def open_page(chrome: Browser, url: str, *scripts: str) -> tuple[Page, list[str]]:
    """A window, and what it asks for that is not there."""
    page = await (await chrome.new_context(locale="en")).new_page()
    missing: list[str] = []
    page.on("response", lambda response: missing.append(response.url) if response.status >= 400 else None)
    page.on("pageerror", lambda error: (_ for _ in ()).throw(AssertionError(error)))
    for script in scripts:
        await page.add_init_script(script)
    await page.goto(url)
    return page, missing


@pytest.mark.parametrize("kind", ["haproxy", "nginx"])
@pytest.mark.parametrize("scripts", [(), (BLOCKED,)], ids=["websocket", "sockjs"])
async def test_the_chat_page_works_below_a_path(
    chrome: Browser, tmp_path: Path, kind: str, scripts: tuple[str, ...]
) -> None:
    async with (
        MemoryBroker() as broker,
        await chat_server.start(broker) as server,
        behind(kind, server.port, tmp_path) as url,
    ):
        page, missing = await open_page(chrome, url, *scripts)
        await page.get_by_label("Name", exact=True).fill("Ana")
        await page.get_by_role("button", name="Join").click()
        state = "Connected (without WebSocket)" if scripts else "Connected"
        await expect(page.get_by_role("status")).to_have_text(re.compile(rf"{re.escape(state)}$"), timeout=15_000)
        await say(page, "below a path")
        await expect_contents(page, "below a path")
        assert missing == []


@pytest.mark.parametrize("kind", ["haproxy", "nginx"])
async def test_the_rooms_page_works_below_a_path_and_keeps_to_it(chrome: Browser, tmp_path: Path, kind: str) -> None:
    async with await room.start(code="K7QX3M") as server, behind(kind, server.port, tmp_path) as url:
        page, missing = await open_page(chrome, f"{url}#WRONG2")
        assert page.url == url
        await page.get_by_label("Your name").fill("Ana")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("status")).to_have_text("not let in: wrong room code")
        missing.clear()
        await page.get_by_label("Room code").fill("K7QX3M")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("status")).to_have_text("in the room")
        await page.get_by_role("textbox", name="Message").fill("below a path")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("listitem").last).to_have_text("Server received from Ana: below a path")
        assert missing == []
