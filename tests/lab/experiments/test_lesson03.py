"""Lesson 03's experiments, with short times; each verdict also comes out the other way on a doctored server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from websockets import State
from websockets.asyncio.server import ServerConnection, broadcast, serve

from chatlab import room
from chatlab.lab.claims import Outcome
from chatlab.lab.clients import RoomClient
from chatlab.lab.experiments import lesson03
from chatlab.lab.experiments.lesson03 import (
    Delays,
    Orders,
    Reception,
    all_at_once,
    delays,
    flood,
    knock,
    knock_at,
    number_in,
    one_stalled,
    orders,
    stopped_after,
    until_freed,
)
from chatlab.lab.until import until
from chatlab.net.fanout import SlowReaderPolicy

FOREIGN = "https://evil.example"
OURS = "https://chat.example"
Broadcast = Callable[[dict[ServerConnection, None], str], Awaitable[None]]


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHATLAB_HOME", str(tmp_path))
    return tmp_path


@pytest_asyncio.fixture
async def article() -> AsyncIterator[room.RoomServer]:
    async with await room.start_as_in_the_article() as server:
        yield server


@pytest_asyncio.fixture
async def robust() -> AsyncIterator[room.RoomServer]:
    policy = SlowReaderPolicy(max_buffered=1 << 24)
    async with await room.start(policy=policy, ping_interval=0.3, ping_timeout=0.3) as server:
        yield server


@pytest_asyncio.fixture
async def limited() -> AsyncIterator[room.RoomServer]:
    async with await room.start(rate=room.RateLimit(per_second=5, burst=10)) as server:
        yield server


async def one_by_one(sessions: dict[ServerConnection, None], text: str) -> None:
    for session in list(sessions):
        await session.send(f"Server received: {text}")


async def to_all(sessions: dict[ServerConnection, None], text: str) -> None:
    broadcast(sessions, f"Server received: {text}")


@asynccontextmanager
async def doctored(
    send: Broadcast, *, pings: float | None = None, kept: dict[ServerConnection, None] | None = None
) -> AsyncIterator[str]:
    """Run a room that broadcasts with `send`; `kept` makes it keep its sessions there when they have ended."""
    sessions: dict[ServerConnection, None] = {} if kept is None else kept

    async def handler(session: ServerConnection) -> None:
        sessions[session] = None
        try:
            async for text in session:
                await send(sessions, str(text))
        finally:
            if kept is None:
                sessions.pop(session, None)

    async with serve(
        handler, "127.0.0.1", 0, ping_interval=pings, ping_timeout=pings, close_timeout=pings or 1
    ) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/room"


# C11: a handler answers at /room.


async def test_c11_holds_for_the_articles_room_and_not_for_a_server_that_answers_everywhere(
    article: room.RoomServer,
) -> None:
    holds = lesson03.c11(await knock_at(article.url, "/room", "/", "/ws"), article.url)
    assert (holds.outcome, holds.measured) == (Outcome.HOLDS, "statuses: /room: 101, /: 404, /ws: 404")
    async with doctored(one_by_one) as url:
        assert lesson03.c11(await knock_at(url, "/room", "/"), url).outcome is Outcome.DOES_NOT_HOLD


def test_c11_does_not_hold_where_no_other_path_was_tried_or_room_was_refused() -> None:
    assert lesson03.c11({"/room": 101}).outcome is Outcome.DOES_NOT_HOLD
    assert lesson03.c11({"/room": 404, "/": 404}).outcome is Outcome.DOES_NOT_HOLD


# C12 and F9: whose page is let in.


async def test_c12_holds_for_the_articles_room_and_not_where_the_foreign_page_is_refused(
    article: room.RoomServer, robust: room.RoomServer
) -> None:
    async with await room.start(origins=[OURS]) as strict:
        named, listed = await knock(strict.url, origin=FOREIGN), await knock(strict.url, origin=OURS)
        assert lesson03.c12(await knock(article.url, origin=FOREIGN), named, listed).outcome is Outcome.HOLDS
        refusing = await knock(robust.url, origin=FOREIGN)
        assert lesson03.c12(refusing, named, listed).outcome is Outcome.DOES_NOT_HOLD


async def test_c12_does_not_hold_where_a_list_of_origins_makes_no_difference(article: room.RoomServer) -> None:
    answers = [await knock(article.url, origin=origin) for origin in (FOREIGN, FOREIGN, OURS)]
    assert lesson03.c12(*answers).outcome is Outcome.DOES_NOT_HOLD


async def test_f9_happens_in_the_articles_room_and_not_in_one_that_refuses_the_page(
    article: room.RoomServer, robust: room.RoomServer
) -> None:
    let_in, refused = await knock(article.url, origin=FOREIGN), await knock(robust.url, origin=FOREIGN)
    assert (let_in.status, refused.status) == (101, 403)
    assert lesson03.f9(let_in, refused).outcome is Outcome.FIXED
    assert lesson03.f9(let_in, let_in).outcome is Outcome.HAPPENS
    assert lesson03.f9(refused, refused).outcome is Outcome.DOES_NOT_HAPPEN


async def test_f9_does_not_happen_where_no_browser_sends_a_cookie(
    article: room.RoomServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = {page: dict.fromkeys(sent, page == "own page") for page, sent in lesson03.cookies()["pages"].items()}
    monkeypatch.setattr(lesson03, "cookies", lambda: {"browser": "a careful one", "pages": pages})
    let_in = await knock(article.url, origin=FOREIGN)
    assert lesson03.f9(let_in, let_in).outcome is Outcome.DOES_NOT_HAPPEN


def test_the_recorded_cookies_travel_from_pages_of_the_same_site_and_hardly_from_others() -> None:
    pages = lesson03.cookies()["pages"]
    assert all(pages["own page"].values())
    assert all(pages["same site, another port"].values())
    assert [kind for kind, sent in pages["another site"].items() if sent] == ["None; Secure"]
    assert not any(pages["another site, third-party cookies blocked"].values())


# C13: the registry.


async def join_while_walking(registry: dict[int, str], *, copied: bool) -> BaseException | None:
    """Loop over the registry, or a copy of it, with an await at each member, while one joins; return the error."""

    async def walk() -> None:
        for _ in list(registry.values()) if copied else registry.values():
            await asyncio.sleep(0)

    async def join() -> None:
        registry[len(registry) + 1] = "new"

    error, _ = await asyncio.gather(walk(), join(), return_exceptions=True)
    return error


class Tolerant(dict[int, str]):
    """A registry that may change while it is read: what a loop walks through is always a copy."""

    def values(self) -> Any:
        return list(super().values())


async def test_c13_holds_for_a_dict_and_not_for_a_registry_that_may_change_while_it_is_read() -> None:
    found = [await join_while_walking({1: "Ana", 2: "Nuri"}, copied=copied) for copied in (False, True)]
    assert lesson03.c13(*found).outcome is Outcome.HOLDS
    found = [await join_while_walking(Tolerant({1: "Ana", 2: "Nuri"}), copied=copied) for copied in (False, True)]
    assert lesson03.c13(*found).outcome is Outcome.DOES_NOT_HOLD


def test_c13_does_not_hold_where_a_copy_does_not_help() -> None:
    assert lesson03.c13(RuntimeError("changed"), RuntimeError("changed")).outcome is Outcome.DOES_NOT_HOLD


# C14, C15, C16: the handler's methods.


async def two_after_a_text(url: str) -> dict[str, list[str]]:
    """Let the first of two members speak; return what both have received when it is quiet."""
    first, second = RoomClient(url, "first"), RoomClient(url, "second")
    await first.connect()
    await second.connect()
    await first.send("hello")
    await first.until(lambda: bool(first.received))
    await second.until(lambda: bool(second.received))
    with contextlib.suppress(TimeoutError):  # a second copy, in a room that sends two
        await second.until(lambda: len(second.received) > 1, timeout=0.3)
    await asyncio.gather(first.vanish(), second.vanish())
    return {"first": first.received, "second": second.received}


async def test_c14_holds_for_the_articles_room(article: room.RoomServer) -> None:
    assert lesson03.c14("hello", await two_after_a_text(article.url)).outcome is Outcome.HOLDS


async def without_a_prefix(sessions: dict[ServerConnection, None], text: str) -> None:
    broadcast(sessions, text)


async def twice(sessions: dict[ServerConnection, None], text: str) -> None:
    for _ in range(2):
        broadcast(sessions, f"Server received: {text}")


@pytest.mark.parametrize("send", [without_a_prefix, twice])
async def test_c14_does_not_hold_for_a_room_that_sends_it_otherwise(send: Broadcast) -> None:
    async with doctored(send) as url:
        assert lesson03.c14("hello", await two_after_a_text(url)).outcome is Outcome.DOES_NOT_HOLD


def test_c14_does_not_hold_where_the_sender_receives_nothing() -> None:
    received: dict[str, list[str]] = {"first": [], "second": ["Server received: hello"]}
    assert lesson03.c14("hello", received).outcome is Outcome.DOES_NOT_HOLD


async def after_a_vanishing(url: str, noticed: Callable[[], object]) -> list[str]:
    """Let a member vanish and, once the room has noticed it, another speak; return what the speaker received."""
    leaver, speaker = RoomClient(url, "leaver"), RoomClient(url, "speaker")
    await leaver.connect()
    await speaker.connect()
    await leaver.vanish()
    await until(noticed)
    await speaker.send("still here?")
    with contextlib.suppress(TimeoutError):
        await speaker.heard("still here?", timeout=1)
    await speaker.vanish()
    return speaker.received


async def test_c15_holds_for_the_articles_room(article: room.RoomServer, caplog: pytest.LogCaptureFixture) -> None:
    def logged() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]

    received = await after_a_vanishing(article.url, noticed=logged)
    assert lesson03.c15(logged(), "Server received: still here?" in received).outcome is Outcome.HOLDS


async def test_c15_does_not_hold_for_a_room_that_keeps_dead_sessions_or_logs_nothing() -> None:
    kept: dict[ServerConnection, None] = {}
    async with doctored(one_by_one, kept=kept) as url:
        received = await after_a_vanishing(url, noticed=lambda: any(each.state is State.CLOSED for each in kept))
    assert lesson03.c15(["an error"], "Server received: still here?" in received).outcome is Outcome.DOES_NOT_HOLD
    assert lesson03.c15([], True).outcome is Outcome.DOES_NOT_HOLD


async def test_c16_holds_for_the_articles_room_and_not_for_one_that_keeps_sessions(article: room.RoomServer) -> None:
    member = RoomClient(article.url, "member")
    await member.connect()
    await until(lambda: len(article.metrics().members) == 1)
    await member.close()
    await until(lambda: len(article.metrics().members) == 0)
    assert lesson03.c16(1, len(article.metrics().members)).outcome is Outcome.HOLDS
    assert lesson03.c16(1, 1).outcome is Outcome.DOES_NOT_HOLD


# F8 and F17: somebody stops reading.


async def test_f8_happens_in_the_articles_room_and_is_fixed_in_the_robust_room(article: room.RoomServer) -> None:
    async with await room.start(max_size=1 << 17) as server:
        runs = [await one_stalled(each.url, readers=2, seconds=1.5, every=0.005) for each in (article, server)]
    assert stopped_after(runs[0])
    assert runs[0].reached < runs[0].sent
    assert not stopped_after(runs[1])
    assert lesson03.f8(*runs).outcome is Outcome.FIXED


async def test_f8_does_not_happen_in_a_room_that_waits_for_nobody() -> None:
    async with doctored(to_all) as url:
        found = await one_stalled(url, readers=2, seconds=1.5, every=0.005)
    assert lesson03.f8(found, found).outcome is Outcome.DOES_NOT_HAPPEN


async def test_f17_the_sender_is_disconnected_for_a_member_that_keep_alive_drops(robust: room.RoomServer) -> None:
    async with doctored(one_by_one, pings=0.3) as url:
        found = await until_freed(url, pace=0.05)
    assert found.sender == 1011
    assert found.reader is None
    assert found.works
    spared = await until_freed(robust.url, seconds=1.5)
    assert lesson03.f17(found, spared).outcome is Outcome.FIXED
    assert lesson03.f17(found, found).outcome is Outcome.HAPPENS


async def test_keep_alive_does_not_free_a_room_whose_buffer_is_full_before_the_first_ping() -> None:
    async with doctored(one_by_one, pings=0.5) as url:
        found = await until_freed(url, seconds=4, pace=0)
    assert found.sender == 1011  # the library reads neither its texts nor its Pong
    assert not found.works


async def test_f17_does_not_happen_in_a_room_that_waits_for_nobody() -> None:
    async with doctored(to_all, pings=0.3) as url:
        found = await until_freed(url, seconds=1.5)
    assert lesson03.f17(found, found).outcome is Outcome.DOES_NOT_HAPPEN


# F13 and F14: several send at once.


async def test_f13_happens_where_each_member_is_waited_for_and_not_in_the_robust_room(robust: room.RoomServer) -> None:
    async with doctored(one_by_one) as url:
        found = await orders(url)
    assert found.complete
    kept = await orders(robust.url)
    assert lesson03.f13(found, kept).outcome is Outcome.FIXED
    assert lesson03.f13(kept, kept).outcome is Outcome.DOES_NOT_HAPPEN


@pytest.mark.parametrize(
    ("seen", "first"),
    [((("a", "b"), ("a", "b")), None), ((("a", "b"), ("b", "a")), 1), ((("a", "b", "c"), ("a", "c", "b")), 2)],
)
def test_the_first_difference_is_counted_from_1(seen: tuple[tuple[str, ...], ...], first: int | None) -> None:
    assert Orders(seen, len(seen[0])).first_difference == first


def test_an_order_that_lacks_texts_is_not_fixed() -> None:
    differs, short = Orders((("a", "b"), ("b", "a")), 2), Orders((("a",), ("a",)), 2)
    assert lesson03.f13(differs, short).outcome is Outcome.HAPPENS


async def test_f14_happens_in_the_articles_room_and_is_fixed_in_the_robust_room(
    article: room.RoomServer, robust: room.RoomServer
) -> None:
    crowd, spared = await all_at_once(article.url), await all_at_once(robust.url)
    assert crowd.closed > 0
    assert set(spared.received) == {160}
    found = lesson03.f14(crowd, spared)
    assert found.outcome is Outcome.FIXED
    assert "recorded on Spring Boot" in found.measured


async def test_f14_does_not_happen_where_each_session_may_have_several_senders() -> None:
    async with doctored(to_all) as url:
        crowd = await all_at_once(url)
    assert lesson03.f14(crowd, crowd).outcome is Outcome.DOES_NOT_HAPPEN


# F12: floods.


async def test_f12_happens_in_the_articles_room_and_is_fixed_by_a_limit(
    article: room.RoomServer, limited: room.RoomServer
) -> None:
    whole, spared = [await flood(each.url, messages=100, patience=0.5) for each in (article, limited)]
    assert whole.reached == 100
    assert spared.reached <= 20
    assert lesson03.f12(whole, spared).outcome is Outcome.FIXED
    assert lesson03.f12(whole, whole).outcome is Outcome.HAPPENS
    assert lesson03.f12(spared, spared).outcome is Outcome.DOES_NOT_HAPPEN


# C17: enough for basic chat.


async def late(sessions: dict[ServerConnection, None], text: str) -> None:
    await asyncio.sleep(1.1)
    broadcast(sessions, f"Server received: {text}")


async def test_c17_holds_with_the_conditions_that_were_seen_and_not_in_a_slow_room(article: room.RoomServer) -> None:
    stalled = await one_stalled(article.url, readers=1, seconds=1.5, every=0.005)
    crowd, quick = await all_at_once(article.url), await delays(article.url, 5, messages=10, every=0)
    both = lesson03.c17(quick, stalled, crowd)
    assert (both.outcome, both.because) == (Outcome.HOLDS_WHEN, "everybody reads, and one member speaks at a time")
    async with doctored(late) as url:
        slow = await delays(url, 2, messages=1)
    assert lesson03.c17(slow, stalled, crowd).outcome is Outcome.DOES_NOT_HOLD


async def test_c17_holds_without_a_condition_in_the_robust_room(robust: room.RoomServer) -> None:
    found = Reception(10, (0.1, 1.9)), await all_at_once(robust.url)
    assert lesson03.c17(Delays(5, (0.01,)), *found).outcome is Outcome.HOLDS


# The experiments' own rules.


async def test_the_lessons_own_handler_is_served_and_broadcasts() -> None:
    server = await lesson03.start_handler()
    first, second = await lesson03.join(lesson03.url_of(server), "first", "second")
    assert await lesson03.reaches(first, second, "hello")
    assert second.received == ["Server received: hello"]
    await asyncio.gather(first.close(), second.close())
    server.close()


async def test_a_member_who_hears_nothing_says_how_the_handler_failed() -> None:
    async def fails(session: ServerConnection) -> None:
        await session.recv()
        raise NameError("name 'line' is not defined")

    async with serve(fails, "127.0.0.1", 0) as server:
        [garam] = await lesson03.join(lesson03.url_of(server), "Garam")
        await garam.send("hello")
        with pytest.raises(TimeoutError, match=r"Garam did not receive 'hello', because .*'line' is not defined"):
            await garam.heard("hello")


async def test_a_member_who_hears_nothing_from_a_sound_handler_says_just_that() -> None:
    async with serve(ServerConnection.wait_closed, "127.0.0.1", 0) as server:
        [garam] = await lesson03.join(lesson03.url_of(server), "Garam")
        with pytest.raises(TimeoutError, match=r"^Garam did not receive 'hello'$"):
            await garam.heard("hello", timeout=0.05)
        await garam.close()


async def test_what_does_not_become_true_in_time_is_false() -> None:
    assert not await lesson03.within(lambda: False, seconds=0.05)


def test_an_excerpt_shows_the_texts_around_the_first_difference() -> None:
    found = Orders((("0.0", "0.1", "1.0", "1.1"), ("0.0", "0.1", "1.1", "1.0")), 4)
    assert found.excerpt(4).splitlines() == [
        "member 0, texts 1 to 4:   0.0   0.1   1.0   1.1",
        "member 1, texts 1 to 4:   0.0   0.1   1.1   1.0",
    ]


def test_the_table_of_cookies_has_a_line_for_each_page() -> None:
    lines = repr(lesson03.cookie_table()).splitlines()
    assert lines[0].split("  ")[-1].strip() == "None; Secure"
    assert [line.count("sent") for line in lines[1:]] == [4, 4, 1, 0]


@pytest.mark.parametrize(
    ("text", "number"),
    [("Server received: #12 ···", 12), ("#0 ", 0), ("* Ana joined (3 here)", None), ("# x", None), ("", None)],
)
def test_only_numbered_messages_have_a_number(text: str, number: int | None) -> None:
    assert number_in(text) == number


def test_a_room_that_is_silent_in_the_last_quarter_has_stopped() -> None:
    assert stopped_after(Reception(10, (), seconds=2.0))
    assert stopped_after(Reception(10, (0.1, 1.4), seconds=2.0))
    assert not stopped_after(Reception(10, (0.1, 1.6), seconds=2.0))
