"""What every broker does that keeps presence (`port.HasPresence`): notes that stand for a while, and then do not."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from chatlab.brokers.port import HasPresence
from chatlab.brokers.redis.presence import RedisPresence
from chatlab.brokers.redis.streams import RedisStreamsBroker
from chatlab.lab.engines.engine import Engine
from tests.support.broker_cases import HAVE_PRESENCE, Case, topic

on_every_engine = pytest.mark.parametrize("unopened_case", HAVE_PRESENCE, indirect=True)


@on_every_engine
async def test_a_note_is_present_until_it_expires(case: Case) -> None:
    broker, other, place = await case.broker(), await case.broker(), topic("방")
    assert isinstance(broker, HasPresence)
    assert isinstance(other, HasPresence)
    assert list(await other.present(place)) == []
    await broker.announce(place, "하나", "하나 is here 🙂", 60)
    await broker.announce(place, "둘", "둘 is here", 0.5)
    assert sorted(await other.present(place)) == ["둘 is here", "하나 is here 🙂"]
    await asyncio.sleep(0.6)  # the time itself
    assert list(await other.present(place)) == ["하나 is here 🙂"]


@on_every_engine
async def test_a_new_note_replaces_the_old_one_at_its_place_only(case: Case) -> None:
    broker, here, there = await case.broker(), topic(), topic()
    assert isinstance(broker, HasPresence)
    await broker.announce(here, "a", "first", 60)
    await broker.announce(there, "a", "elsewhere", 60)
    await broker.announce(here, "a", "second", 60)
    assert list(await broker.present(here)) == ["second"]
    assert list(await broker.present(there)) == ["elsewhere"]


@on_every_engine
async def test_a_renewed_note_lasts_longer_and_an_expired_one_cannot_be_renewed(case: Case) -> None:
    broker, place = await case.broker(), topic()
    assert isinstance(broker, HasPresence)
    assert not await broker.renew(place, "a", 60)
    await broker.announce(place, "a", "a is here", 0.5)
    await broker.announce(place, "b", "b is here", 0.5)
    assert await broker.renew(place, "a", 60)
    await asyncio.sleep(0.6)  # the time itself
    assert list(await broker.present(place)) == ["a is here"]
    assert not await broker.renew(place, "b", 60)


@on_every_engine
async def test_only_the_first_line_of_a_known_note_is_read(case: Case) -> None:
    broker, place = await case.broker(), topic("방")
    assert isinstance(broker, HasPresence)
    await broker.announce(place, "a", "a 1\n하나\nand more", 60)
    await broker.announce(place, "b", "b 7\n둘", 60)
    await broker.announce(place, "c", "one line", 60)
    assert sorted(await broker.look(place, [])) == ["a 1\n하나\nand more", "b 7\n둘", "one line"]
    assert sorted(await broker.look(place, ["a 1", "b 6", "one line"])) == ["a 1", "b 7\n둘", "one line"]
    assert list(await broker.look(topic(), ["a 1"])) == []


async def test_no_key_stays_in_redis_after_the_last_note_expires(fresh_redis: Engine) -> None:
    async with RedisStreamsBroker(fresh_redis.url) as broker, Redis.from_url(fresh_redis.url) as redis:
        assert isinstance(broker, RedisPresence)
        await broker.announce("room", "a", "x", 0.5)
        assert await redis.dbsize() == 2
        await asyncio.sleep(0.6)  # the time itself
        assert await redis.keys() == []
