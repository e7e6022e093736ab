"""The chat page shows what the server refuses, does not ask for it again, and keeps the rest of the chat working."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from playwright.async_api import Browser, Page, WebSocketRoute, expect

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.access import Access, Credentials, guest
from chatlab.chat.app import User
from chatlab.chat.destinations import PUBLIC_DESTINATION, PUBLIC_TOPIC, room_of, watched_room
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint.server import ChatServer
from chatlab.chat.session.subscriptions import Subscriptions
from chatlab.errors import StompError
from chatlab.stomp.frames import Limits, StompHeaders
from chatlab.stomp.session import ServerSession
from tests.browser.test_chat_page import expect_contents, join, open_page, say
from tests.support.stomp_peer import Peer

pytestmark = pytest.mark.long

SOON = 15_000  # ms
MANY_ROOMS = 10_000
# A letter for Chromium (Unicode 15); the server in these tests refuses it, as a server on Python 3.11 does.
NEW_LETTER = "\U00031350"


def refuses(room: str) -> Access:
    """Return access to everything except one room and the list of its people."""
    return Access(may_subscribe=lambda _, destination: room not in (room_of(destination), watched_room(destination)))


async def open_with_storage(chrome: Browser, url: str, **stored: str) -> Page:
    """Open the page in a browser with these values in its localStorage, as after an earlier visit."""
    context = await chrome.new_context(locale="en")
    values = {f"chatlab.{name}": value for name, value in stored.items()}
    await context.add_init_script(
        f"""if (!sessionStorage.visited) {{
            sessionStorage.visited = "yes";
            for (const [key, value] of Object.entries({json.dumps(values)})) localStorage.setItem(key, value);
        }}"""
    )
    page = await context.new_page()
    page.on("pageerror", lambda error: (_ for _ in ()).throw(AssertionError(error)))
    await page.goto(url)
    return page


async def enter_chat(page: Page, name: str = "Ana") -> None:
    await page.get_by_label("Name", exact=True).fill(name)
    await page.get_by_role("button", name="Join").click()


async def stored_rooms(page: Page) -> list[str]:
    rooms: list[str] = await page.evaluate("JSON.parse(localStorage.getItem('chatlab.rooms'))")
    return rooms


async def expect_chat_works(page: Page, server: ChatServer) -> None:
    """Check that the page is connected, stays connected, and sends and receives messages."""
    await expect(page.get_by_role("status")).to_contain_text("Connected", timeout=SOON)
    async with Peer(server.url, "Ben") as ben:
        text = f"still here {ben.connected.get('session')}"
        await ben.say(text)
        await expect(page.get_by_text(text)).to_be_visible(timeout=SOON)
    opened = server.service.metrics.opened
    await say(page, "received")
    await expect(page.locator("#log .content").last).to_have_text("received")
    await expect(page.locator("#log .sending")).to_have_count(0)
    assert server.service.metrics.opened == opened


async def test_a_stored_room_that_the_server_refuses_is_named_and_removed(
    chrome: Browser, broker: MemoryBroker
) -> None:
    async with await chat_server.start(broker, access=refuses(NEW_LETTER)) as server:
        page = await open_with_storage(chrome, server.page_url, rooms=json.dumps(["public", NEW_LETTER, "cats"]))
        await enter_chat(page)
        await expect_chat_works(page, server)
        await expect(page.get_by_role("alert")).to_contain_text(NEW_LETTER)
        await expect(page.get_by_role("alert")).to_contain_text(re.compile("not a room's name|access refused"))
        assert await stored_rooms(page) == ["public", "cats"]
        await expect(page.locator("#rooms li")).to_have_count(2)
        await page.reload()
        await enter_chat(page)
        await expect_chat_works(page, server)


async def test_a_room_refused_on_entering_does_not_affect_other_rooms(chrome: Browser, broker: MemoryBroker) -> None:
    async with await chat_server.start(broker, access=refuses("closed")) as server:
        page = await join(chrome, server.page_url, "Ana")
        await say(page, "before")
        await expect_contents(page, "before")
        await page.get_by_label("Name of the room").fill("closed")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_contain_text("closed")
        await expect(page.get_by_role("heading", name="Public")).to_be_visible()
        await expect_chat_works(page, server)
        assert (await page.locator("#log .content").all_inner_texts()).count("before") == 1
        assert await stored_rooms(page) == ["public"]


async def test_a_refused_list_of_people_affects_neither_the_room_nor_the_connection(
    chrome: Browser, broker: MemoryBroker
) -> None:
    access = Access(may_subscribe=lambda _, destination: watched_room(destination) is None)
    async with await chat_server.start(broker, access=access) as server:
        page = await open_page(chrome, server.page_url)
        await enter_chat(page)
        await expect_chat_works(page, server)


async def test_the_page_chats_when_its_private_queues_are_refused(chrome: Browser, broker: MemoryBroker) -> None:
    access = Access(may_subscribe=lambda _, destination: not destination.startswith("/user/"))
    async with await chat_server.start(broker, access=access) as server:
        page = await open_page(chrome, server.page_url)
        await enter_chat(page)
        await expect_chat_works(page, server)


async def test_other_rooms_work_when_the_public_room_is_refused(chrome: Browser, broker: MemoryBroker) -> None:
    async with await chat_server.start(broker, access=refuses("public")) as server:
        page = await open_with_storage(chrome, server.page_url, rooms='["cats"]')
        await enter_chat(page)
        await page.get_by_role("button", name="cats").click()
        await expect(page.get_by_role("alert")).to_contain_text("access refused")
        await expect(page.get_by_role("status")).to_contain_text("Connected", timeout=SOON)
        await say(page, "miaow")
        await expect_contents(page, "miaow")


async def test_a_message_that_ended_the_connection_is_not_resent_automatically(
    chrome: Browser, broker: MemoryBroker
) -> None:
    async with await chat_server.start(broker, access=Access(may_send=lambda *_: False)) as server:
        page = await join(chrome, server.page_url, "Ana")
        await say(page, "not allowed")
        await expect(page.locator("#log .failed .fate")).to_contain_text("access refused", timeout=SOON)
        await expect(page.get_by_role("status")).to_contain_text("Connected", timeout=SOON)
        opened = server.service.metrics.opened
        async with Peer(server.url, "Ben") as ben:
            await ben.subscribe(PUBLIC_DESTINATION)
        await expect(page.locator("#log .failed .fate")).to_be_visible()
        assert server.service.metrics.opened == opened + 1


async def test_stored_rooms_above_the_pages_limit_are_reported_as_too_many(chrome: Browser, server: ChatServer) -> None:
    rooms = [f"room{number}" for number in range(MANY_ROOMS)]
    page = await open_with_storage(chrome, server.page_url, rooms=json.dumps(rooms))
    await enter_chat(page)
    await expect_chat_works(page, server)
    entered = await page.locator("#rooms li").count()
    assert 50 <= entered <= 127
    await expect(page.get_by_role("alert")).to_contain_text(f"{entered}")
    assert len(await stored_rooms(page)) == entered
    await page.get_by_label("Name of the room").fill("one-more")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("Leave one")
    await expect(page.locator("#rooms li")).to_have_count(entered)
    await expect_chat_works(page, server)


async def test_the_page_enters_fewer_rooms_when_the_server_allows_fewer_subscriptions(
    chrome: Browser, broker: MemoryBroker
) -> None:
    async with await chat_server.start(broker, limits=Limits(max_subscriptions=20)) as server:
        rooms = [f"room{number}" for number in range(40)]
        page = await open_with_storage(chrome, server.page_url, rooms=json.dumps(rooms))
        await enter_chat(page)
        await expect_chat_works(page, server)
        await expect(page.locator("#rooms li")).to_have_count(9)
        await expect(page.get_by_role("alert")).to_contain_text("9")
        assert server.service.metrics.opened <= 3 + 1  # the page's connections and Ben's


HOSTILE = [
    "not JSON",
    "",
    "null",
    "7",
    '"cats"',
    '{"length":3}',
    '[null,7,{},["cats"],true]',
    '["", " ", "a b", "a/b", "a\\nb", "__proto__", "constructor"]',
    json.dumps(["x" * 1_000_000]),
    json.dumps(["\u0301", "\u0000", "\ud800", "*", "public", "public"]),
    "[" * 50_000,
]


@pytest.mark.timeout(120)
async def test_the_page_works_with_invalid_values_in_local_storage(chrome: Browser, server: ChatServer) -> None:
    for rooms in HOSTILE:
        page = await open_with_storage(
            chrome, server.page_url, rooms=rooms, language="constructor", name="\n" + "가" * 70_000
        )
        await page.get_by_role("button", name="Join").click()
        await expect_chat_works(page, server)
        await page.context.close()


async def refuse_login(credentials: Credentials) -> User | None:
    return guest(credentials.login) if credentials.login != "Eve" else None


async def test_a_refused_name_returns_to_the_form_with_the_reason(chrome: Browser, broker: MemoryBroker) -> None:
    async with await chat_server.start(broker, access=Access(authenticate=refuse_login)) as server:
        page = await open_page(chrome, server.page_url)
        await enter_chat(page, "Eve")
        await expect(page.get_by_role("alert")).to_contain_text("access refused")
        await expect(page.get_by_label("Name", exact=True)).to_be_visible()
        assert server.service.metrics.opened == 1
        await enter_chat(page, "Ana")
        await expect_chat_works(page, server)
        await say(page, "it is me")
        await expect(page.locator("#log .sender").last).to_have_text("Ana")


async def test_a_name_refused_on_reconnecting_is_retried_at_growing_intervals(
    chrome: Browser, broker: MemoryBroker
) -> None:
    allowed = True

    def authenticate(credentials: Credentials) -> User | None:
        return guest(credentials.login) if allowed else None

    async with await chat_server.start(broker, access=Access(authenticate=authenticate)) as server:
        page = await join(chrome, server.page_url, "Ana")
        await say(page, "kept")
        await expect_contents(page, "kept")
        allowed = False
        next(iter(server.service.connections)).shut_down("try again")
        await expect(page.get_by_role("status")).to_contain_text("access refused", timeout=SOON)
        await asyncio.sleep(6)  # long enough for a retry loop to show; no event marks its absence
        assert server.service.metrics.opened <= 6
        allowed = True
        await expect(page.get_by_role("status")).to_contain_text("Connected", timeout=30_000)
        await expect_contents(page, "kept")


async def test_an_id_not_assigned_by_the_server_is_not_sent_as_last_id(chrome: Browser, broker: MemoryBroker) -> None:
    """Another program's record may contain an `id`; here every record does, and the relay changes the server's."""

    def relay(page: WebSocketRoute) -> None:
        server = page.connect_to_server()
        server.on_message(lambda frame: page.send(re.sub(r'(?<="id":")\d+-\d+', forged, str(frame))))

    server = await chat_server.start(broker)
    page = await open_page(chrome, server.page_url)
    await page.route_web_socket(re.compile(".*"), relay)
    await enter_chat(page)
    for content in ("invoice ready", "invoice paid"):
        body = json.dumps({"id": "evt-77", "sender": "billing", "content": content})
        await broker.publish(PUBLIC_TOPIC, body.encode())
    await expect_contents(page, "invoice ready", "invoice paid")
    await server.aclose()
    await broker.publish(PUBLIC_TOPIC, b'{"sender":"billing","content":"sent offline"}')
    async with await chat_server.start(broker, port=server.port) as again:
        await expect_contents(page, "invoice ready", "invoice paid", "sent offline")
        await expect_chat_works(page, again)


def forged(match: re.Match[str]) -> str:
    """Return an id of the same length that no record has."""
    return "x" * len(match[0])


async def test_a_refused_last_id_is_discarded_and_nothing_is_shown_twice(
    chrome: Browser, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refuse the id, as a server does after moving to an engine with another form of ids."""
    server = await chat_server.start(broker)
    page = await join(chrome, server.page_url, "Ana")
    await say(page, "one")
    await expect_contents(page, "one")
    await server.aclose()

    def refuse(identifier: str, _: object) -> bool:
        return False

    monkeypatch.setattr("chatlab.chat.delivery.replay._is_id", refuse)
    await broker.publish(PUBLIC_TOPIC, b'{"sender":"Ben","content":"sent offline"}')
    async with await chat_server.start(broker, port=server.port) as again:
        await expect_contents(page, "one", "sent offline")
        await expect_chat_works(page, again)


async def test_an_error_without_a_receipt_does_not_cause_a_reconnect_storm(
    chrome: Browser, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise StompError("nobody knows why")

    monkeypatch.setattr(Subscriptions, "subscribe", refuse)
    async with await chat_server.start(broker) as server:
        # The ERROR names no receipt, as if every receipt were lost.
        monkeypatch.setattr(ServerSession, "error", _nameless_error)
        page = await open_page(chrome, server.page_url)
        await enter_chat(page)
        await expect(page.get_by_role("status")).to_contain_text("nobody knows why", timeout=SOON)
        await asyncio.sleep(8)
        assert server.service.metrics.opened <= 7
        assert re.search("Connected|Not connected", await page.get_by_role("status").inner_text())


def _nameless_error(session: ServerSession, message: str, *, event: object, code: int, headers: StompHeaders) -> None:
    session._fail(StompError(message), (), code)
