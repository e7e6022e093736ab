"""What the broker in memory keeps, and for how long."""

from __future__ import annotations

import asyncio

import pytest

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.brokers.port import BEGINNING
from chatlab.errors import BrokerUnavailable
from tests.support.broker_cases import bodies


async def test_a_topic_keeps_max_length_records_and_drops_the_oldest() -> None:
    broker = MemoryBroker(max_length=3, run=7)
    for n in range(5):
        await broker.publish("t", b"%d" % n)
    assert [(each.id, each.body) for each in await broker.history("t")] == [("7-3", b"2"), ("7-4", b"3"), ("7-5", b"4")]
    assert await broker.oldest("t") == "7-3"
    assert broker.is_before("7-9", "7-10")
    assert await bodies(await broker.subscribe("t", after=BEGINNING), 3) == [b"2", b"3", b"4"]
    assert [each.body for each in await broker.history("t", after="7-4")] == [b"4"]


async def test_a_key_is_remembered_for_the_window_and_no_longer() -> None:
    broker = MemoryBroker(window=0.05, run=7)
    assert await broker.publish_once("t", b"x", "k") == await broker.publish_once("t", b"x", "k") == "7-1"
    await asyncio.sleep(0.06)  # the window itself
    assert await broker.publish_once("t", b"x", "k") == "7-2"


def test_a_broker_that_outlives_an_event_loop_reports_refusals_to_the_next_one() -> None:
    broker = MemoryBroker(max_length=1)

    async def publish_until_refused() -> str:
        await broker.create_group("t", "g")
        while (publishing := broker.begin_publish("t", b"x")).exception() is None:
            pass
        reported = asyncio.Event()
        publishing.add_done_callback(lambda _: reported.set())
        await asyncio.wait_for(reported.wait(), 5)
        return str(publishing.exception())

    assert asyncio.run(publish_until_refused()) == asyncio.run(publish_until_refused()) != ""


async def test_a_body_is_kept_as_it_was_when_published() -> None:
    broker = MemoryBroker()
    body = bytearray(b"hello")
    await broker.publish("t", bytes(body))
    body[:] = b"other"
    assert (await broker.history("t"))[0].body == b"hello"


async def test_two_memory_brokers_share_nothing() -> None:
    one, other = MemoryBroker(), MemoryBroker()
    reader = await other.subscribe("t")
    await one.publish("t", b"x")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.batch(), 0.05)


async def test_records_older_than_max_age_are_dropped() -> None:
    async with MemoryBroker(max_age=0.2, expire=0, run=1) as broker:
        await broker.publish("t", b"old")
        async with asyncio.timeout(10):
            while [each.body for each in await broker.history("t")] != [b"new"]:
                await asyncio.sleep(0.05)  # the age itself
                await broker.publish("other", b"x")
                if await broker.oldest("t") is None:
                    await broker.publish("t", b"new")


async def test_an_unused_topic_is_removed_and_its_ids_are_never_reused() -> None:
    async with MemoryBroker(expire=0.2, lasting=["public"], run=1) as broker:
        await broker.create_group("jobs", "work")
        for name in ("room", "room", "read", "jobs", "public"):
            await broker.publish(name, b"1")
        await broker.subscribe("read")
        async with asyncio.timeout(10):
            while await broker.oldest("room") is not None:
                await asyncio.sleep(0.05)  # the time itself
                await broker.publish("busy", b"x")
        assert await broker.oldest("jobs") is None
        assert [await broker.oldest(name) is not None for name in ("read", "public", "busy")] == [True] * 3
        again = await broker.publish("room", b"2")
        assert broker.is_before("1-2", again)
        assert await broker.lost_after("room", "1-1") == BEGINNING


async def test_reading_a_missing_topic_does_not_create_it() -> None:
    async with MemoryBroker() as broker:
        for number in range(100):
            name = f"made-up-{number}"
            assert await broker.history(name) == []
            assert await broker.oldest(name) is None
            assert await broker.before_newest(name, 3) is None
            await broker.lost_after(name, "1-1")
        assert not broker._topics


async def test_a_topic_keeps_topic_octets_and_always_its_newest_record() -> None:
    broker = MemoryBroker(topic_octets=10_000, run=7)
    for _ in range(100):
        await broker.publish("t", b"x" * 700)
    assert len(await broker.history("t")) == 10
    assert await broker.lost_after("t", "7-1") == BEGINNING, "whoever asks for what has gone is told"
    await broker.publish("t", b"x" * 20_000)
    assert [len(each.body) for each in await broker.history("t")] == [20_000]


async def test_all_topics_together_keep_max_octets_by_trimming_the_largest() -> None:
    broker = MemoryBroker(octets=1_000_000, run=7)
    await broker.publish("small", b"kept")
    for topic in range(50):
        for _ in range(100):
            await broker.publish(f"t{topic}", b"x" * 1000)
            assert broker.octets <= 1_000_000 + 1300
    assert [each.body for each in await broker.history("small")] == [b"kept"]


async def test_topics_are_limited_and_topics_in_use_are_kept() -> None:
    broker = MemoryBroker(max_topics=10, run=7)
    reader = await broker.subscribe("read")
    await broker.create_group("queue", "g")
    for n in range(1000):
        await broker.publish("first", b"x") if n < 3 else await broker.publish(f"t{n}", b"x")
    assert len(broker._topics) <= 10
    await broker.publish("read", b"y")
    assert await bodies(reader, 1) == [b"y"]
    assert broker.is_before("7-3", await broker.publish("first", b"x")), "an id is used once"
    assert await broker.lost_after("first", "7-2") == BEGINNING
    for n in range(8):
        await broker.create_group(f"queue{n}", "g")
    with pytest.raises(BrokerUnavailable, match="all 10 topics are in use") as refused:
        await broker.publish("one more", b"x")
    assert not refused.value.outcome_unknown


async def test_remembered_keys_are_limited() -> None:
    broker = MemoryBroker(max_keys=100)
    for topic in range(30):
        for n in range(150):
            await broker.publish_once(f"t{topic}", b"x", str(n))
    assert sum(len(topic.ids) for topic in broker._topics.values()) <= 1100
    assert await broker.publish_once("t0", b"x", "149") == (await broker.history("t0"))[-1].id


async def test_waiting_group_records_are_limited_in_octets() -> None:
    broker = MemoryBroker(topic_octets=10_000)
    await broker.create_group("t", "g")
    for _ in range(10):
        await broker.publish("t", b"x" * 1000)
    with pytest.raises(BrokerUnavailable, match="is full"):
        await broker.publish("t", b"x")
    member = await broker.join("t", "g", "m")
    await member.batch(1)
    await broker.publish("t", b"x")
