"""What the broker on Redis Pub/Sub does beyond the port, which is to forget."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from redis.asyncio import Redis

from chatlab.brokers.redis import pubsub as redis_pubsub
from chatlab.brokers.redis.pubsub import RedisPubSubBroker
from chatlab.errors import BrokerUnavailable, SubscriptionLost
from chatlab.lab.engines.engine import Engine
from tests.support.broker_cases import bodies, topic, until


async def test_a_publish_without_subscribers_succeeds_and_stores_nothing(fresh_redis: Engine) -> None:
    async with RedisPubSubBroker(fresh_redis.url) as broker, Redis.from_url(fresh_redis.url) as redis:
        assert await broker.publish("t", b"x") == ""
        assert await redis.dbsize() == 0


async def test_the_last_reader_of_a_topic_unsubscribes_on_the_server(redis_engine: Engine) -> None:
    async with RedisPubSubBroker(redis_engine.url) as broker, Redis.from_url(redis_engine.url) as redis:
        name = topic()
        first, second = await broker.subscribe(name), await broker.subscribe(name)
        await first.aclose()
        assert await redis.pubsub_numsub(name) == [(name.encode(), 1)]
        await second.aclose()
        for _ in range(100):
            if await redis.pubsub_numsub(name) == [(name.encode(), 0)]:
                break
            await asyncio.sleep(0.01)
        assert await redis.pubsub_numsub(name) == [(name.encode(), 0)]


async def test_a_hung_server_ends_every_reader(fresh_redis: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_pubsub, "TIMEOUT", 0.3)
    monkeypatch.setattr(redis_pubsub, "SILENCE", 0.2)
    assert fresh_redis.pid is not None
    async with RedisPubSubBroker(fresh_redis.url) as broker:
        reader = await broker.subscribe("t")
        os.kill(fresh_redis.pid, signal.SIGSTOP)
        with pytest.raises(SubscriptionLost, match="was silent"):
            await asyncio.wait_for(reader.batch(), 10)
        assert not broker.connected
        os.kill(fresh_redis.pid, signal.SIGCONT)
        await until(lambda: broker.connected, "the server is found again")
        again = await broker.subscribe("t")
        await broker.publish("t", b"x")
        assert await bodies(again, 1) == [b"x"]


async def test_subscribing_to_a_server_that_stays_away_raises(fresh_redis: Engine) -> None:
    async with RedisPubSubBroker(fresh_redis.url, patience=0.2) as broker:
        fresh_redis.kill()
        with pytest.raises(BrokerUnavailable):
            await broker.subscribe("t")
