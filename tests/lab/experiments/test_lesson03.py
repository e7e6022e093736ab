"""Lesson 03's experiments, with short times, on the article's room and on the robust room."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from chatlab import room
from chatlab.lab.experiments.lesson03 import Reception, delays, flood, knock, number_in, one_stalled, stopped_after


@pytest_asyncio.fixture
async def article() -> AsyncIterator[room.RoomServer]:
    async with await room.start_as_in_the_article() as server:
        yield server


@pytest_asyncio.fixture
async def robust() -> AsyncIterator[room.RoomServer]:
    async with await room.start(rate=room.RateLimit(per_second=5, burst=10)) as server:
        yield server


async def test_a_member_who_does_not_read_stops_the_articles_room(article: room.RoomServer) -> None:
    found = await one_stalled(article.url, readers=2, seconds=1.5, size=64 * 1024, every=0.002)
    assert found.reached < found.sent
    assert stopped_after(found, 1.5)


async def test_a_member_who_does_not_read_stops_nobody_in_the_robust_room() -> None:
    async with await room.start(max_size=1 << 17) as server:
        found = await one_stalled(server.url, readers=2, seconds=1.5, size=64 * 1024, every=0.002)
        assert not stopped_after(found, 1.5)
        assert server.metrics().slow == 1


async def test_a_whole_flood_reaches_a_member_in_the_articles_room_only(
    article: room.RoomServer, robust: room.RoomServer
) -> None:
    assert await flood(article.url, messages=100, patience=0.5) == 100
    assert await flood(robust.url, messages=100, patience=0.5) <= 20


async def test_a_foreign_page_can_connect_to_the_articles_room_only(
    article: room.RoomServer, robust: room.RoomServer
) -> None:
    assert (await knock(article.url, origin="https://evil.example", cookie="session=1")).let_in
    assert (await knock(robust.url, origin="https://evil.example")).status == 403


async def test_delays_are_measured_for_each_message(article: room.RoomServer) -> None:
    found = await delays(article.url, 5, messages=10, every=0)
    assert found.members == 5
    assert len(found.seconds) == 10
    assert 0 < found.median <= max(found.seconds)


@pytest.mark.parametrize(
    ("text", "number"),
    [("Server received: #12 ···", 12), ("#0 ", 0), ("* Ana joined (3 here)", None), ("# x", None), ("", None)],
)
def test_only_numbered_messages_have_a_number(text: str, number: int | None) -> None:
    assert number_in(text) == number


def test_a_room_that_is_silent_in_the_last_quarter_has_stopped() -> None:
    assert stopped_after(Reception(10, ()), 2.0)
    assert stopped_after(Reception(10, (0.1, 1.4)), 2.0)
    assert not stopped_after(Reception(10, (0.1, 1.6)), 2.0)
