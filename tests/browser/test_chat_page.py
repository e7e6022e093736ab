"""The chat page in a real browser: two windows on two instances, reconnecting, a blocked WebSocket, two languages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from aiohttp import ClientSession
from playwright.async_api import Browser, Page, expect

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint.server import ChatServer
from chatlab.chat.jobs import mentions
from tests.support.stomp_peer import Peer

# Resolves once the page has received the event, which comes with the next animation frame.
SCROLL_TO_TOP = """log => new Promise(done => {
    log.addEventListener("scroll", () => done(), { once: true });
    log.scrollTop = 0;
})"""
MARKUP = "<img src=x onerror=\"document.title='pwned'\"><b>굵게</b>"


async def open_page(chrome: Browser, url: str, language: str = "en", **context: object) -> Page:
    """Open a new window, in which a script error or a violation of the page's CSP fails the test."""
    page = await (await chrome.new_context(locale=language, **context)).new_page()  # type: ignore[arg-type]  # passed on
    page.on("pageerror", lambda error: (_ for _ in ()).throw(AssertionError(error)))
    page.on("console", lambda message: _check_policy(message.text))
    await page.goto(url)
    return page


def _check_policy(text: str) -> None:
    assert "Content Security Policy" not in text, text


async def join(chrome: Browser, url: str, name: str, **context: object) -> Page:
    page = await open_page(chrome, url, **context)  # type: ignore[arg-type]  # passed on
    await page.get_by_label("Name", exact=True).fill(name)
    await page.get_by_role("button", name="Join").click()
    await expect(page.get_by_role("status")).to_contain_text("Connected")
    return page


async def say(page: Page, text: str) -> None:
    await page.get_by_role("textbox", name="Message", exact=True).fill(text)
    await page.keyboard.press("Enter")


async def expect_contents(page: Page, *contents: str) -> None:
    await expect(page.locator("#log .content")).to_have_text(list(contents))
    await expect(page.locator("#log .sending")).to_have_count(0)


async def test_two_windows_on_two_instances_show_each_message_once_and_markup_as_text(
    chrome: Browser, broker: MemoryBroker, pictures: Path
) -> None:
    async with await chat_server.start(broker) as one, await chat_server.start(broker) as other:
        ana = await join(chrome, one.page_url, "Ana")
        minji = await join(chrome, other.page_url, "민지")
        await say(ana, "안녕하세요 👋")
        await say(minji, MARKUP)
        for page in (ana, minji):
            await expect_contents(page, "안녕하세요 👋", MARKUP)
            await expect(page.locator("#people li")).to_have_text([re.compile("^Ana"), re.compile("^민지")])
            assert await page.title() == "chatlab"
        await expect(minji.locator("#people li").nth(1)).to_contain_text("(you)")
        await ana.screenshot(path=pictures / "chat-wide.png")


async def test_two_guests_with_one_name_are_distinguished_by_the_first_digits_of_their_handles(
    chrome: Browser, server: ChatServer
) -> None:
    one, namesake = await join(chrome, server.page_url, "Ana"), await join(chrome, server.page_url, "Ana")
    await say(one, "mine")
    await expect_contents(namesake, "mine")
    await say(namesake, "not mine")
    for page in (one, namesake):
        await expect_contents(page, "mine", "not mine")
        await expect(page.locator("#log .tag")).to_have_text([re.compile("^#[0-9a-f]{4,8}$")] * 2)
        await expect(page.locator("#people .tag")).to_have_count(2)
        tags = await page.locator("#log .tag").all_inner_texts()
        assert tags[0] != tags[1]
        assert sorted(tags) == sorted(await page.locator("#people .tag").all_inner_texts())


async def test_rooms_can_be_entered_and_left_and_count_unread_messages(chrome: Browser, server: ChatServer) -> None:
    ana = await join(chrome, server.page_url, "Ana")
    await ana.get_by_label("Name of the room").fill("a room!")
    await ana.get_by_role("button", name="Enter").click()
    await expect(ana.get_by_role("alert")).to_have_text("A room's name may only have letters, digits, - and _.")
    await ana.get_by_label("Name of the room").fill("고양이")
    await ana.keyboard.press("Enter")
    await expect(ana.get_by_role("heading", name="고양이")).to_be_visible()
    await say(ana, "야옹")
    await expect_contents(ana, "야옹")
    async with Peer(server.url, "Ben") as ben:
        await ben.say("to all")
        await expect(ana.get_by_role("button", name="Public")).to_contain_text("1 new")
        await ana.get_by_role("button", name="Public").click()
        await expect_contents(ana, "to all")
    await ana.get_by_role("button", name="고양이").click()
    await ana.get_by_role("button", name="Leave the room").click()
    await expect(ana.locator("#rooms li")).to_have_count(1)


async def test_the_newest_message_stays_visible_until_the_reader_scrolls_away(
    chrome: Browser, server: ChatServer
) -> None:
    ana = await join(chrome, server.page_url, "Ana")
    newest = ana.get_by_role("button", name="New messages")
    async with Peer(server.url, "Ben") as ben:
        for number in range(40):
            await ben.say(f"{number} " + "long " * 60)
        await expect(ana.locator("#log article")).to_have_count(40)
        await expect(ana.locator("#log article").last).to_be_in_viewport()
        await ana.set_viewport_size({"width": 700, "height": 500})
        await expect(ana.locator("#log article").last).to_be_in_viewport()
        await expect(newest).to_be_hidden()
        await ana.locator("#log").evaluate(SCROLL_TO_TOP)
        await ben.say("the newest")
        await expect(newest).to_be_visible()
        await expect(ana.get_by_text("the newest")).not_to_be_in_viewport()
        await newest.click()
        await expect(ana.get_by_text("the newest")).to_be_in_viewport()
        await expect(newest).to_be_hidden()


async def test_mentions_are_marked_in_the_room_and_shown_in_other_rooms(chrome: Browser, broker: MemoryBroker) -> None:
    async with await chat_server.start(broker, jobs=[mentions]) as server, Peer(server.url, "Ben") as ben:
        minji = await join(chrome, server.page_url, "민지")
        await expect(minji.locator("#people li")).to_have_count(1)
        await ben.say("@민지야 안녕")
        await ben.say("to nobody")
        await expect(minji.locator("#log .mention .content")).to_have_text(["@민지야 안녕"])
        await minji.get_by_label("Name of the room").fill("elsewhere")
        await minji.keyboard.press("Enter")
        await ben.say("@민지 again")
        public = minji.get_by_role("button", name="Public")
        await expect(public).to_contain_text("@ you")
        await public.click()
        await expect(public).not_to_contain_text("@ you")
        await expect(minji.locator("#log .mention .content")).to_have_text(["@민지야 안녕", "@민지 again"])


async def test_after_reconnecting_missed_messages_appear_once_and_unsent_ones_are_sent(
    chrome: Browser, broker: MemoryBroker
) -> None:
    server = await chat_server.start(broker)
    page = await join(chrome, server.page_url, "Ana")
    await say(page, "before")
    await expect_contents(page, "before")
    await server.aclose()
    await expect(page.get_by_role("status")).to_contain_text("Not connected")
    await say(page, "written offline")
    await expect(page.locator("#log .sending .content")).to_have_text(["written offline"])
    async with await chat_server.start(broker) as elsewhere, Peer(elsewhere.url, "Ben") as ben:
        await ben.say("sent by Ben")
    async with await chat_server.start(broker, port=server.port):
        await expect(page.get_by_role("status")).to_contain_text("Connected", timeout=15_000)
        await expect_contents(page, "before", "sent by Ben", "written offline")
    assert len(await broker.history("chat-stream")) == 3


async def test_the_page_chats_over_http_when_websocket_is_blocked(chrome: Browser, server: ChatServer) -> None:
    page = await open_page(chrome, server.page_url)
    # As behind a proxy that blocks upgrades, the socket closes before it opens.
    await page.route_web_socket(re.compile(".*"), lambda socket: socket.close())
    await page.evaluate(
        """() => { window.WebSocket = class extends EventTarget {
            constructor() { super(); this.readyState = 0; setTimeout(() => {
                this.readyState = 3; const event = new CloseEvent("close", {code: 1006});
                this.dispatchEvent(event); this.onclose?.(event); }); }
            send() {} close() {} }; }"""
    )
    await page.get_by_label("Name", exact=True).fill("Ana")
    await page.get_by_role("button", name="Join").click()
    await expect(page.get_by_role("status")).to_contain_text("without WebSocket", timeout=15_000)
    async with Peer(server.url, "Ben") as ben:
        await ben.subscribe("/topic/public")
        await say(page, "over http")
        assert await ben.contents(1) == ["over http"]
        await ben.say("and back")
        await expect_contents(page, "over http", "and back")


async def test_the_chat_page_is_available_in_korean_and_fits_a_phone(
    chrome: Browser, server: ChatServer, pictures: Path
) -> None:
    phone = {"width": 360, "height": 740}
    page = await open_page(chrome, server.page_url, "ko-KR", viewport=phone)
    await expect(page.get_by_role("heading", name="환영합니다")).to_be_visible()
    await page.get_by_label("이름", exact=True).fill("민지")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("status")).to_contain_text("연결됨")
    await say_in_korean(page, "한글 메시지와 긴낱말" + "가" * 200)
    await say_in_korean(page, "둘째 줄")
    await expect(page.locator("#log article")).to_have_count(2)
    width = await page.evaluate("document.documentElement.scrollWidth")
    assert width <= 360, "nothing overflows the screen"
    assert await page.get_by_role("button", name="보내기").is_visible()
    await page.screenshot(path=pictures / "chat-narrow.png")
    await page.get_by_label("언어").select_option("en")
    await expect(page.get_by_role("button", name="Send")).to_be_visible()
    assert await page.evaluate("document.documentElement.lang") == "en"


async def say_in_korean(page: Page, text: str) -> None:
    await page.get_by_role("textbox", name="메시지").fill(text)
    await page.keyboard.press("Enter")


async def test_the_chat_page_can_be_used_by_keyboard_alone(chrome: Browser, server: ChatServer) -> None:
    page = await open_page(chrome, server.page_url)
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the message box")).to_be_focused()
    await page.get_by_label("Name", exact=True).focus()
    await page.keyboard.type("Ana")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("textbox", name="Message", exact=True)).to_be_focused()
    await expect(page.get_by_role("status")).to_contain_text("Connected")
    await page.keyboard.type("two")
    await page.keyboard.press("Shift+Enter")
    await page.keyboard.type("lines")
    await page.keyboard.press("Enter")
    await expect_contents(page, "two\nlines")


@pytest.mark.parametrize("path", ["", "chat.js", "vendor/stomp.umd.min.js"])
async def test_every_file_of_the_page_is_served_with_a_strict_csp(server: ChatServer, path: str) -> None:
    async with ClientSession() as http, http.get(server.page_url + path) as response:
        assert response.status == 200
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        tag = {"If-None-Match": response.headers["ETag"]}
        async with http.get(server.page_url + path, headers=tag) as again:
            assert again.status == 304
