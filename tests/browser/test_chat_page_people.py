"""The page's list of people: the list, its changes, and asking again after a missed change."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from chatlab.chat.app import User
from chatlab.chat.delivery import presence
from chatlab.chat.endpoint.server import ChatServer
from tests.support.people_list import listed
from tests.support.stomp_peer import Peer

pytestmark = pytest.mark.long


async def join(chrome: Browser, url: str, name: str, language: str = "en") -> Page:
    page = await (await chrome.new_context(locale=language)).new_page()
    page.on("pageerror", lambda error: (_ for _ in ()).throw(AssertionError(error)))
    await page.goto(url)
    await page.locator("#name").fill(name)
    await page.locator("#join button").click()
    await expect(page.locator("#state")).to_have_attribute("data-state", "online")
    return page


async def expect_people(page: Page, *names: str) -> None:
    await expect(page.locator("#people li")).to_have_text([listed(each) for each in names])
    await expect(page.locator("#people-count")).to_have_text(f"({len(names)})")


async def test_the_list_follows_joins_and_leaves_and_announces_them_politely(
    chrome: Browser, server: ChatServer, pictures: Path
) -> None:
    page = await join(chrome, server.page_url, "Dora")
    await expect_people(page, "Dora (you)")
    async with Peer(server.url, "Ana") as ana, Peer(server.url, "Zoe") as zoe:
        await ana.subscribe("/topic/public")
        await zoe.subscribe("/topic/public")
        await expect_people(page, "Ana", "Dora (you)", "Zoe")
        news = page.locator("#people-news")
        await expect(news).to_have_attribute("aria-live", "polite")
        await expect(news).to_have_text("Ana, Zoe came.")
        await page.screenshot(path=pictures / "chat-people.png")
    await expect_people(page, "Dora (you)")
    await expect(news).to_have_text("Ana, Zoe left.")


async def test_a_page_that_missed_a_change_asks_for_the_list_again(chrome: Browser, server: ChatServer) -> None:
    page = await join(chrome, server.page_url, "Dora")
    await expect_people(page, "Dora (you)")
    server.service.presence._watched["public"].version += 1  # as if a change had been lost
    async with Peer(server.url, "Ana") as ana:
        await ana.subscribe("/topic/public")
        await expect_people(page, "Ana", "Dora (you)")
    await expect_people(page, "Dora (you)")  # changes are applied again


async def test_many_arrivals_at_once_are_counted_then_listed(chrome: Browser, server: ChatServer) -> None:
    page = await join(chrome, server.page_url, "Dora", "ko")
    await expect_people(page, "Dora (나)")
    for number in range(presence.MAX_SHOWN + 20):
        server.service.presence.enter("public", User(f"{number:03}", f"p-{number}"))
    await expect(page.locator("#people-count")).to_have_text(f"({presence.MAX_SHOWN + 21})")
    await expect(page.locator("#people li")).to_have_count(presence.MAX_SHOWN + 1)
    await expect(page.locator("#people li").last).to_have_text("외 21명")
    for number in range(presence.MAX_SHOWN + 20):
        server.service.presence.leave("public", User(f"{number:03}", f"p-{number}"))
    await expect_people(page, "Dora (나)")
