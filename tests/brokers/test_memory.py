"""What the broker in memory keeps, and for how long."""

from __future__ import annotations

import asyncio

import pytest

from chatlab.brokers.memory import MemoryBroker
from chatlab.brokers.port import BEGINNING
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
