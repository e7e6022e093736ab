"""The relay reads the followed topics from the broker, in order and once, also after a loss; it reads no others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Self

import pytest

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.brokers.port import Broker, Reader, Record
from chatlab.brokers.redis.pubsub import RedisPubSubBroker
from chatlab.brokers.redis.streams import RedisStreamsBroker
from chatlab.chat.delivery import relay as chat_relay
from chatlab.chat.delivery.relay import Relay
from chatlab.lab.engines.engine import Engine
from chatlab.lab.until import until
from chatlab.retry import Backoff
from tests.support.broker_cases import topic


class Unforwarded:
    """A reader as most engines have it: without `forward`."""

    def __init__(self, inner: Reader) -> None:
        self.batch, self.aclose = inner.batch, inner.aclose
        self.__anext__ = inner.__anext__

    def __aiter__(self) -> Self:
        return self


class ReadOnlyBroker(MemoryBroker):
    """A broker whose readers can fall behind, because it does not forward records."""

    async def subscribe(self, topic: str, *, after: str | None = None) -> Any:
        return Unforwarded(await super().subscribe(topic, after=after))


class RelayReader:
    """A relay, and the records it has delivered."""

    def __init__(self, broker: Broker) -> None:
        self.relay = Relay(broker, self._deliver, self._on_lost)
        self.got: list[tuple[str, bytes]] = []
        self.lost: list[str] = []
        self._came = asyncio.Event()

    def _deliver(self, topic: str, deliveries: Sequence[Record]) -> None:
        self.got += [(topic, delivery.body) for delivery in deliveries]
        self._came.set()

    def _on_lost(self, topic: str) -> None:
        self.lost.append(topic)

    async def follow(self, topic: str) -> None:
        """Follow a topic, and wait until it is being read."""
        async with asyncio.timeout(10):
            await self.relay.follow(topic).ready.wait()

    async def bodies(self, count: int, seconds: float = 10) -> list[bytes]:
        """Return the bodies delivered, once there are `count`."""
        async with asyncio.timeout(seconds):
            while len(self.got) < count:
                self._came.clear()
                await self._came.wait()
        return [body for _, body in self.got]


@pytest.fixture
async def reader(broker: MemoryBroker) -> AsyncIterator[RelayReader]:
    reader = RelayReader(broker)
    yield reader
    await reader.relay.aclose()


def numbers(first: int, last: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, last + 1)]


async def test_only_followed_topics_are_read(broker: MemoryBroker, reader: RelayReader) -> None:
    await reader.follow("cats")
    await broker.publish("dogs", b"not wanted")
    await broker.publish("cats", b"1")
    await reader.follow("cats")  # followed twice, read once
    await broker.publish("cats", b"2")
    reader.relay.leave("cats")
    await broker.publish("cats", b"3")
    assert await reader.bodies(3) == [b"1", b"2", b"3"]
    assert reader.relay.topics() == ["cats"]
    reader.relay.leave("cats")
    assert reader.relay.topics() == []
    await broker.publish("cats", b"nobody is left")
    await reader.follow("cats")  # from now on, not from where the last follower left
    await broker.publish("cats", b"4")
    assert (await reader.bodies(4))[3:] == [b"4"]
    assert {name for name, _ in reader.got} == {"cats"}


async def test_a_reader_that_fell_behind_continues_without_a_gap_or_a_repeat(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(chat_relay, "BACKOFF", Backoff(0.01))
    async with ReadOnlyBroker(max_waiting=5) as broker:
        reader = RelayReader(broker)
        await reader.follow("cats")
        # All at once: the broker drops a reader with five records waiting before it gets a turn to read.
        await asyncio.gather(*(broker.publish("cats", body) for body in numbers(1, 40)))
        assert await reader.bodies(40) == numbers(1, 40)
        await until(lambda: not reader.relay.unready())
        await broker.publish("cats", b"41")
        assert (await reader.bodies(41))[40:] == [b"41"]
        assert reader.lost == []
        assert "the reader of cats fell 5 records behind" in caplog.text
        await reader.relay.aclose()


async def test_one_read_blocks_for_all_topics_and_a_new_topic_wakes_it(redis_engine: Engine) -> None:
    async with RedisStreamsBroker(redis_engine.url) as broker:
        reader, names = RelayReader(broker), [topic() for _ in range(20)]
        await reader.follow(names[0])
        for name in names[1:]:  # each joins a read that is blocking, and must not wait for its end
            async with asyncio.timeout(1):
                await reader.follow(name)
                await broker.publish(name, name.encode())
                await reader.bodies(names.index(name))
        for name in names[:10]:
            reader.relay.leave(name)
        await broker.publish(names[0], b"nobody wants this")
        await broker.publish(names[19], b"last")
        assert await reader.bodies(20) == [name.encode() for name in names[1:]] + [b"last"]
        await reader.relay.aclose()


async def test_reading_resumes_after_an_engine_was_killed_and_nothing_is_missed(fresh_redis: Engine) -> None:
    async with RedisStreamsBroker(fresh_redis.url) as here, RedisStreamsBroker(fresh_redis.url) as elsewhere:
        reader, name = RelayReader(here), topic()
        await reader.follow(name)
        await here.publish(name, b"1")
        await reader.bodies(1)
        fresh_redis.kill()
        sending = [asyncio.create_task(elsewhere.publish_once(name, body, body.decode())) for body in numbers(2, 9)]
        await fresh_redis.restart()
        await asyncio.gather(*sending)
        assert sorted(await reader.bodies(9)) == numbers(1, 9)
        assert reader.lost == []
        await reader.relay.aclose()


@pytest.mark.parametrize("heard_before", [True, False])
async def test_reading_resumes_on_an_engine_without_history_and_the_loss_is_reported(
    fresh_redis: Engine, heard_before: bool
) -> None:
    async with RedisPubSubBroker(fresh_redis.url) as broker:
        reader, name = RelayReader(broker), topic()
        await reader.follow(name)
        if heard_before:
            await broker.publish(name, b"before")
            await reader.bodies(1)
        fresh_redis.kill()
        await until(lambda: reader.relay.unready() == [name])
        await fresh_redis.restart()
        await until(lambda: not reader.relay.unready(), timeout=15)
        assert reader.lost == [name], "records may have been missed in between"
        await broker.publish(name, b"after")
        assert (await reader.bodies(1 + heard_before))[heard_before:] == [b"after"]
        await reader.relay.aclose()


async def test_a_topic_without_followers_is_not_retried(broker: MemoryBroker, reader: RelayReader) -> None:
    await broker.aclose()
    followed = reader.relay.follow("cats")
    await until(lambda: reader.relay.unready() == ["cats"])
    task = followed.task
    assert task is not None
    reader.relay.leave("cats")
    async with asyncio.timeout(5):
        await asyncio.wait([task])
    assert reader.relay.unready() == []


async def test_a_topic_whose_task_failed_is_reported_as_unready(
    broker: MemoryBroker, caplog: pytest.LogCaptureFixture
) -> None:
    def deliver(topic: str, deliveries: Sequence[Record]) -> None:
        raise ZeroDivisionError

    relay = Relay(broker, deliver, lambda topic: None)
    followed = relay.follow("cats")
    await followed.ready.wait()
    await broker.publish("cats", b"1")
    await until(lambda: "background task 'relay of cats' failed" in caplog.text)
    assert relay.unready() == ["cats"]
    await relay.aclose()
