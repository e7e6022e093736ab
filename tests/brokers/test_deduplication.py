"""What every broker does that deduplicates (`port.Deduplicates`)."""

from __future__ import annotations

import asyncio

import pytest

from chatlab.brokers.port import Deduplicates
from tests.support.broker_cases import DEDUPLICATE, Case, bodies, read, topic

pytestmark = pytest.mark.parametrize("unopened_case", DEDUPLICATE, indirect=True)


@pytest.fixture
async def deduplicator(case: Case) -> Deduplicates:
    broker = await case.broker()
    assert isinstance(broker, Deduplicates)
    return broker


async def test_a_key_adds_one_record_however_often_it_is_published(case: Case, deduplicator: Deduplicates) -> None:
    other, name = await case.broker(), topic()
    assert isinstance(other, Deduplicates)
    subscription = await deduplicator.subscribe(name)
    ids = await asyncio.gather(*(b.publish_once(name, b"one", "k1") for b in (deduplicator, other) for _ in range(5)))
    assert len(set(ids)) == 1
    again = await other.publish_once(name, b"changed", "k1")
    second = await other.publish_once(name, b"two", "k2")
    assert again == ids[0] != second
    assert [(each.id, each.body) for each in await read(subscription, 2)] == [(again, b"one"), (second, b"two")]


async def test_a_key_belongs_to_its_topic(deduplicator: Deduplicates) -> None:
    for name in (topic("방"), topic("방")):
        subscription = await deduplicator.subscribe(name)
        await deduplicator.publish_once(name, b"x", "key with spaces 🙂")
        assert await bodies(subscription, 1) == [b"x"]
