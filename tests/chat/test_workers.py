"""Jobs that one instance should do: each record once, by whoever is there, and again if it was not finished."""

from __future__ import annotations

import asyncio
import json

import pytest
from redis.asyncio import Redis

from chatlab.brokers.memory import MemoryBroker
from chatlab.brokers.redis_pubsub import RedisPubSubBroker
from chatlab.brokers.redis_streams import RedisStreamsBroker
from chatlab.chat.destinations import Record
from chatlab.chat.workers import Job, Workers
from chatlab.errors import SetupError
from chatlab.lab.engines import Engine
from chatlab.lab.until import until

TOPIC = "chat-stream"


def body(number: int) -> bytes:
    return json.dumps({"content": str(number)}).encode()


class Audit:
    """Notes what it has seen; fails at what it is told to."""

    def __init__(self, fails_at: str = "") -> None:
        self.seen: list[str] = []
        self.fails_at = fails_at

    async def __call__(self, record: Record) -> None:
        content = json.loads(record.message.body)["content"]
        if content == self.fails_at:
            raise RuntimeError("cannot")
        self.seen.append(content)


async def test_instances_share_the_work(broker: MemoryBroker) -> None:
    audit = Audit()
    instances = [Workers(broker, f"instance {number}", [Job("audit", [TOPIC], audit)]) for number in range(3)]
    for instance in instances:
        await instance.ready()
    for number in range(30):
        await broker.publish(TOPIC, body(number))
    await until(lambda: len(audit.seen) == 30)
    assert sorted(map(int, audit.seen)) == list(range(30))
    assert sum(instance.tallies["audit"].done for instance in instances) == 30
    for instance in instances:
        await instance.aclose()


async def test_what_a_stopped_instance_had_begun_is_done_by_another(broker: MemoryBroker) -> None:
    stuck = asyncio.Event()

    async def never_done(record: Record) -> None:
        stuck.set()
        await asyncio.Event().wait()

    first = Workers(broker, "first", [Job("audit", [TOPIC], never_done)])
    await first.ready()
    await broker.publish(TOPIC, body(1))
    await stuck.wait()
    await first.aclose()
    audit = Audit()
    second = Workers(broker, "second", [Job("audit", [TOPIC], audit)])
    await until(lambda: audit.seen == ["1"])
    await second.aclose()


async def test_poison_is_set_aside_and_holds_up_nobody(fresh_redis: Engine) -> None:
    audit = Audit(fails_at="2")
    async with RedisStreamsBroker(fresh_redis.url, takeover_after=0.05, tries=3) as broker:
        workers = Workers(broker, "one", [Job("audit", [TOPIC], audit)])
        await workers.ready()
        for number in range(1, 5):
            await broker.publish(TOPIC, body(number))
        redis = Redis.from_url(fresh_redis.url)
        async with asyncio.timeout(10):
            while not await redis.xlen("chat-stream:set-aside:audit"):  # noqa: ASYNC110  # only Redis knows
                await asyncio.sleep(0.01)
        await redis.aclose()
        assert audit.seen == ["1", "3", "4"]
        assert workers.tallies["audit"].failed >= 3
        await workers.aclose()


def test_an_engine_without_groups_is_refused() -> None:
    with pytest.raises(SetupError, match="jobs need a broker with groups"):
        Workers(RedisPubSubBroker("redis://127.0.0.1:1"), "one", [])
