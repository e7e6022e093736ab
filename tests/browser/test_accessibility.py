"""The pages of the chat and the room pass an accessibility checker, and can be used by keyboard alone.

The lessons are checked in test_lesson_01.py and test_lesson_03.py, which run them.
"""

from __future__ import annotations

import itertools

import pytest
from playwright.async_api import Browser, Page, ViewportSize, expect

from chatlab import room
from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.access import Access, Credentials, guest
from chatlab.chat.app import User
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.jobs import mentions
from tests.support.accessibility import findings, tab_through
from tests.support.stomp_peer import Peer

WIDE = ViewportSize(width=1200, height=800)
PHONE = ViewportSize(width=360, height=740)
VARIANTS = list(itertools.product(("light", "dark"), (WIDE, PHONE)))


async def window(chrome: Browser, scheme: str, size: ViewportSize) -> Page:
    context = await chrome.new_context(locale="en", color_scheme=scheme, viewport=size)  # type: ignore[arg-type]  # a str
    return await context.new_page()


@pytest.mark.long
async def test_the_chat_page_has_no_findings(chrome: Browser) -> None:
    async with (
        MemoryBroker() as broker,
        await chat_server.start(broker, jobs=[mentions]) as server,
        Peer(server.url, "Ben") as ben,
    ):
        for number, (scheme, size) in enumerate(VARIANTS):
            page = await window(chrome, scheme, size)
            await page.goto(server.page_url)
            assert await findings(page) == [], f"before joining, {scheme}, {size}"
            name = f"민지{number}"
            await page.get_by_label("Name", exact=True).fill(name)
            await page.keyboard.press("Enter")
            await expect(page.locator("#people li").filter(has_text=name)).to_have_count(1)
            await page.get_by_label("Name of the room").fill("고양이")
            await page.keyboard.press("Enter")
            await page.keyboard.type("야옹 👋")
            await page.keyboard.press("Enter")
            await expect(page.locator("#log .content")).to_have_count(number + 1)
            await ben.say(f"@{name} hello")
            await expect(page.get_by_role("button", name="Public")).to_contain_text("@ you")
            assert await findings(page) == [], f"mentioned in another room, {scheme}, {size}"
            await page.get_by_role("button", name="Public").click()
            await expect(page.locator("#log .mention")).to_have_count(1)
            assert await findings(page) == [], f"with a mention, {scheme}, {size}"
            await page.context.close()


@pytest.mark.long
async def test_the_chat_page_has_no_findings_when_the_server_refuses_something(chrome: Browser) -> None:
    def authenticate(credentials: Credentials) -> User | None:
        return guest(credentials.login) if credentials.login != "Eve" else None

    access = Access(authenticate, may_subscribe=lambda _, destination: not destination.endswith(".closed"))
    async with MemoryBroker() as broker, await chat_server.start(broker, access=access) as server:
        for scheme, size in VARIANTS:
            page = await window(chrome, scheme, size)
            await page.goto(server.page_url)
            for name in ("Eve", "Ana"):
                await page.get_by_label("Name", exact=True).fill(name)
                await page.keyboard.press("Enter")
                if name == "Eve":
                    await expect(page.get_by_role("alert")).to_contain_text("access refused")
                    assert await findings(page) == [], f"a refused name, {scheme}, {size}"
            await page.get_by_label("Name of the room").fill("closed")
            await page.keyboard.press("Enter")
            await expect(page.get_by_role("alert")).to_contain_text("access refused")
            assert await findings(page) == [], f"a refused room, {scheme}, {size}"
            await page.context.close()


@pytest.mark.long
async def test_the_room_page_has_no_findings(chrome: Browser) -> None:
    async with await room.start(rate=room.RateLimit(per_second=0.001, burst=1)) as server:
        for scheme, size in VARIANTS:
            page = await window(chrome, scheme, size)
            await page.goto(server.page_url())
            assert await findings(page) == [], f"before joining, {scheme}, {size}"
            await page.get_by_label("Your name").fill("Ana")
            await page.keyboard.press("Enter")
            for text in ("안녕", "too soon"):
                await page.get_by_role("textbox", name="Message").fill(text)
                await page.keyboard.press("Enter")
            await expect(page.get_by_role("listitem").last).to_contain_text("! not sent")
            assert await findings(page) == [], f"with messages, {scheme}, {size}"
            await page.context.close()


async def test_tab_reaches_every_control_of_the_chat_page_and_each_has_a_name(chrome: Browser) -> None:
    async with MemoryBroker() as broker, await chat_server.start(broker) as server:
        page = await window(chrome, "light", WIDE)
        await page.goto(server.page_url)
        keyboard = page.keyboard
        everything = page.locator("body")
        assert await tab_through(page, everything) == ["Skip to the message box", "Language", "Name", "Join"]

        await page.get_by_label("Name", exact=True).focus()
        await keyboard.type("Ana")
        await keyboard.press("Tab")
        await keyboard.press("Space")  # Join
        await keyboard.type("typed 👋")
        await keyboard.press("Enter")
        await expect(page.get_by_role("log")).to_contain_text("typed 👋")
        await expect(page.locator("summary")).to_have_text("Here now (1)")
        before = ["Skip to the message box", "Language", "Public", "Name of the room", "Enter"]
        after = ["Public", "Message", "Send", "Here now (1)"]
        assert await tab_through(page, everything) == before + after
