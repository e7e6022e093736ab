"""The engines of the conformance suite: how to make a broker on each, and what each guarantees."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from redis.asyncio import Redis

from chatlab.brokers.kafka.broker import KafkaBroker
from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.brokers.port import Broker, Reader, Record
from chatlab.brokers.rabbitmq.broker import RabbitMQBroker
from chatlab.brokers.rabbitmq.streams import RabbitMQStreamsBroker
from chatlab.brokers.redis.pubsub import RedisPubSubBroker
from chatlab.brokers.redis.streams import RedisStreamsBroker
from chatlab.errors import SubscriptionLost
from chatlab.lab.engines.engine import Engine
from chatlab.lab.wire.wire import Wire

PATIENCE = 20  # seconds: enough for Kafka to restart on a busy machine

MAKERS: dict[str, Callable[[str], Broker]] = {
    "memory": lambda _: MemoryBroker(max_waiting=500),
    "redis-streams": lambda url: RedisStreamsBroker(url, patience=PATIENCE, takeover_after=0.5, max_waiting=500),
    "valkey-streams": lambda url: RedisStreamsBroker(url, patience=PATIENCE, takeover_after=0.5, max_waiting=500),
    "redis-pubsub": lambda url: RedisPubSubBroker(url, patience=PATIENCE, max_waiting=500),
    "valkey-pubsub": lambda url: RedisPubSubBroker(url, patience=PATIENCE, max_waiting=500),
    "rabbitmq": lambda url: RabbitMQBroker(url, patience=PATIENCE),
    "rabbitmq-streams": lambda url: RabbitMQStreamsBroker(url, patience=PATIENCE),
    "kafka": lambda url: KafkaBroker(url, patience=PATIENCE, takeover_after=1.5),
}
SHARED = {
    "redis-streams": "redis_on_path",
    "valkey-streams": "valkey_engine",
    "redis-pubsub": "redis_on_path",
    "valkey-pubsub": "valkey_engine",
    "rabbitmq": "rabbitmq_engine",
    "rabbitmq-streams": "rabbitmq_engine",
    "kafka": "kafka_engine",
}
TO_BE_KILLED = SHARED | {
    "redis-streams": "fresh_redis_on_path",
    "valkey-streams": "fresh_valkey",
    "redis-pubsub": "fresh_redis_on_path",
    "valkey-pubsub": "fresh_valkey",
}
KEEP_HISTORY = ["memory", "redis-streams", "valkey-streams", "rabbitmq-streams", "kafka"]
DEDUPLICATE = ["memory", "redis-streams", "valkey-streams"]
HAVE_GROUPS = ["memory", "redis-streams", "valkey-streams", "rabbitmq", "rabbitmq-streams", "kafka"]
HAVE_PRESENCE = ["memory", "redis-streams", "valkey-streams"]
CROSSES_PROCESSES = [name for name in MAKERS if name != "memory"]


@dataclass
class Case:
    """One engine. `broker()` returns a broker as for one more instance; in memory, always the same one."""

    name: str
    engine: Engine | None
    open: list[Broker] = field(default_factory=list)

    async def broker(self) -> Broker:
        if self.engine is None and self.open:
            return self.open[0]
        broker = MAKERS[self.name](self.engine.url if self.engine else "")
        await broker.start()
        self.open.append(broker)
        return broker

    @property
    def slow_readers_lose(self) -> bool:
        """Return whether the engine ends a reader that falls far behind, which must then get SubscriptionLost."""
        return self.name in ("memory", "redis-pubsub", "valkey-pubsub")

    @property
    def readers_resume(self) -> bool:
        """Return whether readers outlive a restart of the engine; if not, they end with SubscriptionLost."""
        return self.name in KEEP_HISTORY

    async def aclose(self) -> None:
        for broker in self.open:
            await broker.aclose()


async def stored(publishing: asyncio.Future[str] | str) -> str:
    """Return the id of an enqueued publish."""
    return publishing if isinstance(publishing, str) else await publishing


async def reason_for_loss(reader: Reader, seconds: float = 15) -> str:
    """Read to the end; return the text of the SubscriptionLost with which it ends."""
    async with asyncio.timeout(seconds):
        with pytest.raises(SubscriptionLost) as caught:
            while batch := await reader.batch():
                assert batch
    return str(caught.value)


@asynccontextmanager
async def redis_with_a_stall(
    url: str, max_length: int
) -> AsyncIterator[tuple[Wire, RedisStreamsBroker, RedisStreamsBroker, Redis]]:
    """Yield a wire to a Redis, a broker connected through it, a broker connected directly, and a client.

    When the wire stalls, the first broker falls behind while the second still writes.
    """
    async with (
        Wire(url) as wire,
        RedisStreamsBroker(wire.url, max_length=max_length) as behind_wire,
        RedisStreamsBroker(url, max_length=max_length) as direct,
        Redis.from_url(url) as redis,
    ):
        yield wire, behind_wire, direct, redis


def topic(name: str = "room") -> str:
    """Return a topic that no other test uses."""
    return f"{name}-{uuid.uuid4().hex[:12]}"


async def read(reader: Reader, count: int, seconds: float = 20) -> list[Record]:
    """Return the next `count` records."""
    records: list[Record] = []
    async with asyncio.timeout(seconds):
        while len(records) < count:
            batch = await reader.batch(min(512, count - len(records)))
            assert batch, f"the subscription ended after {len(records)} of {count}"
            records += batch
    return records


async def bodies(reader: Reader, count: int, seconds: float = 20) -> list[bytes]:
    return [record.body for record in await read(reader, count, seconds)]


async def publish_all(broker: Broker, name: str, messages: Sequence[bytes], at_once: int = 100) -> None:
    """Publish in order, with `at_once` in flight at a time."""
    for start in range(0, len(messages), at_once):
        await asyncio.gather(*(broker.publish(name, body) for body in messages[start : start + at_once]))


async def until(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    """Poll for a condition that no event announces."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"not in {seconds} s: {what}"
        await asyncio.sleep(0.01)
