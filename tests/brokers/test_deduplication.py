"""What every broker does that deduplicates (`port.Deduplicates`)."""

from __future__ import annotations

import asyncio

import pytest

from chatlab.brokers.port import Deduplicates, Pipelines
from chatlab.errors import BrokerUnavailable
from tests.support.broker_cases import DEDUPLICATE, Case, bodies, read, stored, topic

pytestmark = pytest.mark.parametrize("unopened_case", DEDUPLICATE, indirect=True)


@pytest.fixture
async def deduplicator(case: Case) -> Deduplicates:
    broker = await case.broker()
    assert isinstance(broker, Deduplicates)
    return broker


async def test_a_key_adds_one_record_however_often_it_is_published(case: Case, deduplicator: Deduplicates) -> None:
    other, name = await case.broker(), topic()
    assert isinstance(other, Deduplicates)
    reader = await deduplicator.subscribe(name)
    ids = await asyncio.gather(*(b.publish_once(name, b"one", "k1") for b in (deduplicator, other) for _ in range(5)))
    assert len(set(ids)) == 1
    again = await other.publish_once(name, b"changed", "k1")
    second = await other.publish_once(name, b"two", "k2")
    assert again == ids[0] != second
    assert [(each.id, each.body) for each in await read(reader, 2)] == [(again, b"one"), (second, b"two")]


async def test_a_key_belongs_to_its_topic(deduplicator: Deduplicates) -> None:
    for name in (topic("방"), topic("방")):
        reader = await deduplicator.subscribe(name)
        await deduplicator.publish_once(name, b"x", "key with spaces 🙂")
        assert await bodies(reader, 1) == [b"x"]


async def test_publishes_with_and_without_keys_are_stored_in_the_order_of_the_calls(
    deduplicator: Deduplicates,
) -> None:
    if not isinstance(deduplicator, Pipelines):
        return
    name = topic()
    reader = await deduplicator.subscribe(name)
    keys = (None, "k1", "k1", None, "k2")
    begun = [deduplicator.begin_publish(name, b"%d" % number, key) for number, key in enumerate(keys)]
    ids = [await stored(each) for each in begun]
    assert ids[1] == ids[2]
    expected = [ids[0], ids[1], ids[3], ids[4]]
    assert [(each.id, each.body) for each in await read(reader, 4)] == list(
        zip(expected, (b"0", b"1", b"3", b"4"), strict=True)
    )
    await deduplicator.aclose()
    with pytest.raises(BrokerUnavailable):
        await stored(deduplicator.begin_publish(name, b"too late"))
