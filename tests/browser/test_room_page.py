"""The room page in a real browser: two windows and a client from a notebook in one room."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect
from websockets.asyncio.client import connect

from chatlab import room
from chatlab.lab.wire.wire import Wire

CODE = "K7QX3M"


@pytest_asyncio.fixture
async def server() -> AsyncIterator[room.RoomServer]:
    async with await room.start(code=CODE, rate=room.RateLimit(per_second=0.001, burst=3)) as running:
        yield running


async def open_page(chrome: Browser, url: str) -> Page:
    """Open a new window, in which any script error fails the test."""
    page = await (await chrome.new_context()).new_page()
    page.on("pageerror", lambda error: (_ for _ in ()).throw(AssertionError(error)))
    await page.goto(url)
    return page


async def enter(page: Page, name: str) -> None:
    await page.get_by_label("Your name").fill(name)
    await page.get_by_role("button", name="Enter").click()


async def say(page: Page, text: str) -> None:
    await page.get_by_role("textbox", name="Message").fill(text)
    await page.keyboard.press("Enter")


async def test_two_windows_and_a_notebook_exchange_messages_in_one_room(
    chrome: Browser, server: room.RoomServer
) -> None:
    ana, ben = await open_page(chrome, server.page_url()), await open_page(chrome, server.page_url())
    assert CODE not in ana.url  # the page removes the code from the address bar, where others could read it
    await enter(ana, "Ana")
    await expect(ana.get_by_role("status")).to_have_text("in the room")
    await enter(ben, "Ben")
    await expect(ben.get_by_role("status")).to_have_text("in the room")
    async with connect(server.join_url("notebook"), proxy=None) as notebook:
        assert await notebook.recv() == "* notebook joined (3 here)"
        await say(ana, "안녕")
        assert await notebook.recv() == "Server received from Ana: 안녕"
        await notebook.send("hello from a cell")
        lines = [
            "* Ben joined (2 here)",
            "* notebook joined (3 here)",
            "Server received from Ana: 안녕",
            "Server received from notebook: hello from a cell",
        ]
        await expect(ben.get_by_role("listitem")).to_have_text(lines)
        await expect(ana.get_by_role("listitem")).to_have_text(["* Ana joined (1 here)", *lines])
        assert [member.name for member in server.metrics().members] == ["Ana", "Ben", "notebook"]
        await ana.get_by_role("button", name="Leave").click()
        assert await notebook.recv() == "Server received from notebook: hello from a cell"
        assert await notebook.recv() == "* Ana left (2 here)"


async def test_the_page_says_that_a_wrong_code_was_refused(chrome: Browser, server: room.RoomServer) -> None:
    page = await open_page(chrome, server.page_url().replace(CODE, "WRONG1"))
    await enter(page, "Eve")
    await expect(page.get_by_role("status")).to_have_text("not let in: wrong room code")
    assert server.metrics().members == ()
    await page.get_by_label("Room code").fill(CODE.lower())
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("status")).to_have_text("in the room")


async def test_markup_in_names_and_texts_is_shown_as_text(chrome: Browser, server: room.RoomServer) -> None:
    page = await open_page(chrome, server.page_url())
    await enter(page, "<b>Bob</b>")
    attack = "<img src=x onerror=\"document.title='hacked'\"><script>document.title='hacked'</script>"
    await say(page, attack)
    await expect(page.get_by_role("listitem")).to_have_text(
        ["* <b>Bob</b> joined (1 here)", f"Server received from <b>Bob</b>: {attack}"]
    )
    assert await page.locator("#log img, #log script, #log b").count() == 0
    assert await page.title() == "The room"


async def test_the_page_shows_errors_and_why_the_room_closed(chrome: Browser, server: room.RoomServer) -> None:
    page = await open_page(chrome, server.page_url())
    await enter(page, "Ana")
    for n in range(4):
        await say(page, f"{n}")
    await expect(page.get_by_role("listitem").last).to_have_text("! not sent: more than 0.001 messages a second")
    await server.aclose()
    await expect(page.get_by_role("status")).to_have_text("left the room: the room is closing")


async def test_the_room_page_can_be_used_by_keyboard_alone(chrome: Browser, server: room.RoomServer) -> None:
    page = await open_page(chrome, server.page_url())
    await page.keyboard.press("Tab")
    await page.keyboard.type("Ana")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("textbox", name="Message")).to_be_focused()
    await page.keyboard.type("typed")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("listitem").last).to_have_text("Server received from Ana: typed")
    await expect(page.get_by_role("textbox", name="Message")).to_be_focused()
    await page.keyboard.press("Shift+Tab")
    await expect(page.get_by_role("log", name="Messages")).to_be_focused()


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_a_silently_dropped_connection_is_detected_and_unsent_text_returns_to_the_box(
    chrome: Browser, server: room.RoomServer
) -> None:
    async with Wire(to=server.page_url()) as wire:
        page = await open_page(chrome, wire.url)
        await enter(page, "Ana")
        await say(page, "before")
        await expect(page.get_by_role("listitem").last).to_have_text("Server received from Ana: before")
        wire.half_open()
        await say(page, "lost on the way")
        status = page.get_by_role("status")
        await expect(status).to_contain_text("left the room: the connection is lost", timeout=35_000)
        await expect(status).to_contain_text("what may not have arrived is in the message box again")
        await page.get_by_role("button", name="Enter").click()
        await expect(status).to_have_text("in the room")
        await expect(page.get_by_role("textbox", name="Message")).to_have_value("lost on the way")
        await page.get_by_role("button", name="Send").click()
        await expect(page.get_by_role("listitem").last).to_contain_text(": lost on the way")


@pytest.mark.long
@pytest.mark.timeout(60)
async def test_a_quiet_room_keeps_its_members(chrome: Browser, server: room.RoomServer) -> None:
    page = await open_page(chrome, server.page_url())
    await enter(page, "Ana")
    await expect(page.get_by_role("status")).to_have_text("in the room")
    await page.wait_for_timeout(32_000)  # longer than the silence that counts as a lost connection
    await expect(page.get_by_role("status")).to_have_text("in the room")
    await expect(page.get_by_role("listitem")).to_have_text(["* Ana joined (1 here)"])


@pytest.mark.long
async def test_joining_can_be_retried_when_the_room_does_not_answer(chrome: Browser, server: room.RoomServer) -> None:
    async with Wire(to=server.page_url()) as wire:
        page = await open_page(chrome, wire.url)
        wire.stall()
        await enter(page, "Ana")
        await expect(page.get_by_role("status")).to_have_text("not let in: the room does not answer", timeout=20_000)
        await page.get_by_role("button", name="Enter").click()
        await expect(page.get_by_role("status")).to_have_text("connecting")


async def test_a_link_with_a_broken_code_still_opens_the_page(chrome: Browser, server: room.RoomServer) -> None:
    page = await open_page(chrome, server.page_url().replace(CODE, "%E0%A4%A"))
    await page.get_by_label("Room code").fill(CODE)
    await enter(page, "Ana")
    await expect(page.get_by_role("status")).to_have_text("in the room")
