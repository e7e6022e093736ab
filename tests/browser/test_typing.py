"""Typing on the pages: names in any script, and Enter while an input method is composing."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from chatlab import room
from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint.server import ChatServer
from tests.browser.test_chat_page import expect_contents, join, open_page, say
from tests.support.people_list import listed

pytestmark = pytest.mark.long

NAMES = ["고양이", "ภาษาไทย", "Tiếng_Việt", "がぎ", "日本語", "עברית", "x-1", "٣", "가" * 64, "𠮷" * 64]
WITH_MARKS = ["हिन्दी", "தமிழ்", "বাংলা", "العَرَبِيَّة", "می\u200cخواهم", "ශ්\u200dරී", "q\u0302", "\U00031350"]
INVALID_NAMES = ["a b", "a/b", "a.b", "*", "👋", "a\u202eb", "<b>", "a\u200db", "\u3164", "a\ufe0f", "\u0301a"]

FAULTS = """async names => {
    const { faultIn } = await import("./names.js");
    return names.map(name => faultIn(name.normalize("NFC")));
}"""
# The keydown of Enter as each browser sends it during or right after a composition.
KEYDOWN = """(field, options) => field.dispatchEvent(
    new KeyboardEvent("keydown", { key: "Enter", code: "Enter", bubbles: true, cancelable: true, ...options }))"""
SAFARI = {"isComposing": False, "keyCode": 229}  # WebKit bug 165004: the composition has ended before this keydown
OTHERS = {"isComposing": True, "keyCode": 229}
OLDER = {"isComposing": True, "keyCode": 13}
PLAIN = {"isComposing": False, "keyCode": 13}


@pytest_asyncio.fixture
async def server() -> AsyncIterator[ChatServer]:
    async with MemoryBroker() as broker, await chat_server.start(broker) as server:
        yield server


async def enter(page: Page, name: str) -> None:
    await page.get_by_label("Name of the room").fill(name)
    await page.keyboard.press("Enter")


async def test_enter_that_ends_a_composition_does_not_send_and_the_next_enter_does(
    chrome: Browser, server: ChatServer
) -> None:
    page = await join(chrome, server.page_url, "Ana")
    field = page.get_by_role("textbox", name="Message", exact=True)
    await field.fill("こんにちは")
    for keydown in (SAFARI, OTHERS, OLDER):
        await field.evaluate(KEYDOWN, keydown)
        await expect(field).to_have_value("こんにちは")
    await field.evaluate(KEYDOWN, PLAIN)
    await expect(field).to_have_value("")
    await expect_contents(page, "こんにちは")


async def test_a_chromium_composition_is_committed_by_enter_and_sent_by_the_next(
    chrome: Browser, server: ChatServer
) -> None:
    page = await join(chrome, server.page_url, "Ana")
    field = page.get_by_role("textbox", name="Message", exact=True)
    keyboard = await page.context.new_cdp_session(page)
    await field.focus()
    await keyboard.send("Input.imeSetComposition", {"text": "한글", "selectionStart": 2, "selectionEnd": 2})
    key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 229}
    await keyboard.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", **key})
    await keyboard.send("Input.insertText", {"text": "한글"})
    await expect(field).to_have_value("한글")
    await page.keyboard.press("Enter")
    await expect_contents(page, "한글")


async def test_in_the_room_page_enter_sends_only_outside_a_composition(chrome: Browser) -> None:
    async with await room.start() as server:
        page = await chrome.new_page()
        await page.goto(server.page_url())
        await page.get_by_label("Your name").fill("Ana")
        await page.get_by_label("Your name").evaluate(KEYDOWN, SAFARI)
        await expect(page.get_by_label("Your name")).to_be_visible()
        await page.keyboard.press("Enter")
        field = page.get_by_role("textbox", name="Message")
        await field.fill("你好")
        for keydown in (SAFARI, OTHERS, OLDER):
            await field.evaluate(KEYDOWN, keydown)
            await expect(field).to_have_value("你好")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("listitem").last).to_have_text("Server received from Ana: 你好")


async def test_a_room_name_may_be_a_word_in_any_script(chrome: Browser, server: ChatServer) -> None:
    page = await join(chrome, server.page_url, "Ana")
    for name in NAMES:
        await enter(page, unicodedata.normalize("NFD", name))
        await expect(page.get_by_role("heading", name=unicodedata.normalize("NFC", name), exact=True)).to_be_visible()
        await expect(page.get_by_role("alert")).to_have_text("")
        assert len(await page.evaluate("JSON.parse(localStorage.getItem('chatlab.rooms'))")) == 2
        await page.get_by_role("button", name="Leave the room").click()


async def test_marks_and_joiners_are_allowed_in_names(chrome: Browser, server: ChatServer) -> None:
    page = await open_page(chrome, server.page_url)
    assert await page.evaluate(FAULTS, WITH_MARKS + NAMES) == [""] * len(WITH_MARKS + NAMES)
    assert await page.evaluate(FAULTS, INVALID_NAMES) == ["bad-room"] * len(INVALID_NAMES)


async def test_the_page_and_the_server_accept_the_same_characters(chrome: Browser, server: ChatServer) -> None:
    naming = pytest.importorskip("chatlab.naming")
    # Only the characters that Python knows, because a browser may use a newer version of Unicode.
    known = [
        chr(code) for code in range(0x20, sys.maxunicode + 1) if unicodedata.category(chr(code)) not in ("Cn", "Cs")
    ]
    page = await open_page(chrome, server.page_url)
    for prefix in ("", "_"):
        names = [unicodedata.normalize("NFC", prefix + char) for char in known]
        accepted = [naming.room_name(name) is not None for name in names]
        faults = await page.evaluate(FAULTS, names)
        assert [
            name for name, valid, fault in zip(names, accepted, faults, strict=True) if valid != (fault == "")
        ] == []


async def test_invalid_room_names_are_refused_by_the_page(chrome: Browser, server: ChatServer) -> None:
    page = await join(chrome, server.page_url, "Ana")
    opened = server.service.metrics.opened
    for name in INVALID_NAMES:
        await enter(page, name)
        await expect(page.get_by_role("alert")).to_have_text("A room's name may only have letters, digits, - and _.")
    await enter(page, "가" * 65)
    await expect(page.get_by_role("alert")).to_have_text("A room's name may have at most 64 characters.")
    await say(page, "still connected")
    await expect_contents(page, "still connected")
    assert server.service.metrics.opened == opened


async def test_two_unicode_spellings_of_a_name_are_one_room_also_in_local_storage(
    chrome: Browser, server: ChatServer
) -> None:
    page = await join(chrome, server.page_url, "Ana")
    for name in ("고양이", unicodedata.normalize("NFD", "고양이")):
        await enter(page, name)
        await expect(page.locator("#rooms li")).to_have_count(2)
    await say(page, "야옹")
    await expect_contents(page, "야옹")
    assert await page.evaluate("JSON.parse(localStorage.getItem('chatlab.rooms'))") == ["public", "고양이"]


async def test_a_visitors_name_is_normalized_and_cut_to_64_characters(chrome: Browser, server: ChatServer) -> None:
    page = await join(chrome, server.page_url, unicodedata.normalize("NFD", "민지"))
    await expect(page.locator("#people li")).to_have_text([listed("민지 (you)")])
    other = await join(chrome, server.page_url, "𠮷" * 64)
    await expect(other.locator("#people li").filter(has_text="you")).to_have_text(listed("𠮷" * 64 + " (you)"))
