"""What every broker does that keeps history (`port.KeepsHistory`)."""

from __future__ import annotations

import asyncio
from itertools import chain

import pytest

from chatlab.brokers.port import BEGINNING, KeepsHistory, Page
from tests.support.broker_cases import KEEP_HISTORY, Case, bodies, publish_all, read, topic

pytestmark = pytest.mark.parametrize("unopened_case", KEEP_HISTORY, indirect=True)


@pytest.fixture
async def keeper(case: Case) -> KeepsHistory:
    broker = await case.broker()
    assert isinstance(broker, KeepsHistory)
    return broker


async def test_a_publish_returns_the_id_that_its_readers_see(keeper: KeepsHistory) -> None:
    name = topic()
    reader = await keeper.subscribe(name)
    ids = [await keeper.publish(name, b"%d" % n) for n in range(5)]
    assert [record.id for record in await read(reader, 5)] == ids
    assert all(keeper.is_before(one, other) for one, other in zip([BEGINNING, *ids], ids, strict=False))
    assert not keeper.is_before(ids[1], ids[1])
    assert not keeper.is_before(ids[2], ids[1])


async def test_history_is_what_was_published_oldest_first(keeper: KeepsHistory) -> None:
    name = topic()
    assert await keeper.history(name) == []
    assert await keeper.oldest(name) is None
    ids = [await keeper.publish(name, b"%d" % n) for n in range(10)]
    assert [(each.topic, each.id, each.body) for each in await keeper.history(name)] == [
        (name, identifier, b"%d" % n) for n, identifier in enumerate(ids)
    ]
    assert await keeper.oldest(name) == ids[0]
    assert [each.body for each in await keeper.history(name, after=ids[6])] == [b"7", b"8", b"9"]
    assert [each.body for each in await keeper.history(name, limit=3)] == [b"7", b"8", b"9"]
    assert [each.body for each in await keeper.history(name, after=ids[8], limit=3)] == [b"9"]
    assert [each.body for each in await keeper.history(name, limit=30)] == [b"%d" % n for n in range(10)]
    assert await keeper.history(name, after=ids[9]) == []
    assert await keeper.history(name, limit=0) == []


async def test_a_long_history_is_complete(keeper: KeepsHistory) -> None:
    name = topic()
    sent = [b"%d" % n for n in range(1500)]
    await publish_all(keeper, name, sent)
    assert [each.body for each in await keeper.history(name)] == sent
    assert await bodies(await keeper.subscribe(name, after=BEGINNING), 1500) == sent


async def test_a_reader_resumes_after_the_last_id_it_saw(keeper: KeepsHistory) -> None:
    name = topic()
    ids = [await keeper.publish(name, b"%d" % n) for n in range(5)]
    reader = await keeper.subscribe(name, after=ids[2])
    await keeper.publish(name, b"5")
    assert await bodies(reader, 3) == [b"3", b"4", b"5"]


async def test_a_reader_that_comes_back_to_a_busy_topic_misses_nothing_and_gets_nothing_twice(
    case: Case, keeper: KeepsHistory
) -> None:
    other, name = await case.broker(), topic()
    sent = [b"%d" % n for n in range(4000)]
    live = await keeper.subscribe(name)  # so that the topic is being followed while others join it
    following = asyncio.create_task(bodies(live, len(sent), 90))  # the whole test
    publishing = asyncio.create_task(publish_all(other, name, sent, at_once=50))
    received: list[bytes] = []
    last = BEGINNING
    while len(received) < len(sent):  # come, read a little, go away, come back
        reader = await keeper.subscribe(name, after=last)
        for record in await read(reader, min(700, len(sent) - len(received))):
            received.append(record.body)
            last = record.id
        await reader.aclose()
    await publishing
    assert received == sent
    assert await following == sent


async def test_many_readers_that_start_at_different_places_all_get_the_rest(keeper: KeepsHistory) -> None:
    name = topic()
    ids = [await keeper.publish(name, b"%d" % n) for n in range(20)]
    readers = [await keeper.subscribe(name, after=identifier) for identifier in [BEGINNING, *ids]]
    reading = [asyncio.create_task(bodies(reader, 40 - n)) for n, reader in enumerate(readers)]
    await publish_all(keeper, name, [b"%d" % n for n in range(20, 40)], at_once=3)
    for n, task in enumerate(reading):
        assert await task == [b"%d" % k for k in range(n, 40)]


@pytest.mark.parametrize("bad", ["", "-", "1", "1-", "-1", "x-0", "1-0-0", "１-０", "1" * 50 + "-0", "$", "+"])
async def test_an_invalid_id_is_refused(keeper: KeepsHistory, bad: str) -> None:
    with pytest.raises(ValueError, match="not a record id"):
        await keeper.subscribe(topic(), after=bad)
    with pytest.raises(ValueError, match="not a record id"):
        await keeper.history(topic(), after=bad)


async def pages(keeper: KeepsHistory, name: str, limit: int, octets: int) -> list[list[bytes]]:
    """The whole history in pages; the last one says that there is no more."""
    all_pages, after, more = [], BEGINNING, True
    while more:
        page = await keeper.page(name, after=after, limit=limit, octets=octets)
        all_pages.append([each.body for each in page.records])
        after, more = page.records[-1].id if page.records else after, page.more
    return all_pages


async def test_pages_are_bounded_in_records_and_in_octets_and_together_are_the_history(keeper: KeepsHistory) -> None:
    name = topic()
    assert await keeper.page(name, limit=3, octets=100) == Page([], False)
    sent = [b"1", b"2", b"3" * 50, b"4" * 50, b"5" * 500, b"6" * 500, b"7"]
    for body in sent:
        await keeper.publish(name, body)
    by_records = await pages(keeper, name, 3, 10_000)
    assert [len(page) for page in by_records] == [3, 3, 1]
    by_octets = await pages(keeper, name, 100, 100)
    assert [len(page) for page in by_octets] == [4, 1, 1, 1]
    assert [*chain(*by_records)] == [*chain(*by_octets)] == sent


async def test_the_id_before_the_newest_records_is_found(keeper: KeepsHistory) -> None:
    name = topic()
    assert await keeper.before_newest(name, 3) is None
    ids = [await keeper.publish(name, b"%d" % number) for number in range(10)]
    assert await keeper.before_newest(name, 3) == ids[6]
    assert await keeper.before_newest(name, 9) == ids[0]
    assert await keeper.before_newest(name, 10) is None
    assert await keeper.before_newest(name, 3, after=ids[5]) == ids[6]
    assert await keeper.before_newest(name, 3, after=ids[6]) is None
    assert await keeper.before_newest(name, 3, after=ids[9]) is None
