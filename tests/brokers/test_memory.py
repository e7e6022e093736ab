"""What the broker in memory keeps, and for how long."""

from __future__ import annotations

import asyncio

import pytest

from chatlab.brokers.memory import RECORD_MEMORY, MemoryBroker
from chatlab.brokers.port import BEGINNING
from chatlab.errors import BrokerUnavailable
from tests.support.broker_cases import bodies


async def test_it_keeps_so_many_records_and_drops_the_oldest() -> None:
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


async def test_a_body_is_kept_as_it_was_when_published() -> None:
    broker = MemoryBroker()
    body = bytearray(b"hello")
    await broker.publish("t", bytes(body))
    body[:] = b"other"
    assert (await broker.history("t"))[0].body == b"hello"


async def test_its_url_is_its_own_process_so_two_of_them_hear_nothing_of_each_other() -> None:
    one, other = MemoryBroker(), MemoryBroker()
    subscription = await other.subscribe("t")
    await one.publish("t", b"x")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(subscription.batch(), 0.05)


async def test_a_topic_keeps_no_more_octets_than_it_may_and_at_least_its_newest_record() -> None:
    async with MemoryBroker(topic_octets=10 * (100 + RECORD_MEMORY), run=1) as broker:
        for number in range(50):
            await broker.publish("t", b"%02d" % number + b"x" * 98)
        assert [each.body[:2] for each in await broker.history("t")] == [b"%d" % number for number in range(40, 50)]
        await broker.publish("t", b"y" * 5000)
        assert [len(each.body) for each in await broker.history("t")] == [5000]
        await broker.publish("t", b"z")
        assert [each.body for each in await broker.history("t")] == [b"z"]
        assert broker.octets == 1 + RECORD_MEMORY


async def test_what_waits_for_a_group_is_bounded_in_octets_too() -> None:
    async with MemoryBroker(topic_octets=1000) as broker:
        await broker.create_group("t", "work")
        for _ in range(10):
            await broker.publish("t", b"x" * 100)
        with pytest.raises(BrokerUnavailable, match="it takes no more"):
            await broker.publish("t", b"x")
        member = await broker.join("t", "work", "me")
        assert len(await member.batch(3)) == 3
        await broker.publish("t", b"x")


async def test_records_that_are_too_old_are_gone() -> None:
    async with MemoryBroker(max_age=0.2, expire=0, run=1) as broker:
        await broker.publish("t", b"old")
        async with asyncio.timeout(10):
            while [each.body for each in await broker.history("t")] != [b"new"]:
                await asyncio.sleep(0.05)  # the age itself
                await broker.publish("other", b"x")
                if await broker.oldest("t") is None:
                    await broker.publish("t", b"new")


async def test_a_topic_that_nobody_uses_is_gone_and_its_ids_never_come_again() -> None:
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


async def test_looking_for_what_does_not_exist_makes_nothing() -> None:
    async with MemoryBroker() as broker:
        for number in range(100):
            name = f"made-up-{number}"
            assert await broker.history(name) == []
            assert await broker.oldest(name) is None
            assert await broker.before_newest(name, 3) is None
            await broker.lost_after(name, "1-1")
        assert not broker._topics
