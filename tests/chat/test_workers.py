"""Jobs that one instance should do: each record once, and again if it was not finished."""

from __future__ import annotations

import asyncio
import json

import pytest
from redis.asyncio import Redis

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.brokers.redis.pubsub import RedisPubSubBroker
from chatlab.brokers.redis.streams import RedisStreamsBroker
from chatlab.chat.destinations import ChatRecord
from chatlab.chat.workers import Job, Workers
from chatlab.errors import BrokerUnavailable, NotNow, SetupError
from chatlab.lab.engines.engine import Engine
from chatlab.lab.until import until

TOPIC = "chat-stream"


def body(number: int) -> bytes:
    return json.dumps({"content": str(number)}).encode()


class Audit:
    """Record what it has seen; fail on request."""

    def __init__(self, fails_at: str = "") -> None:
        self.seen: list[str] = []
        self.fails_at = fails_at

    async def __call__(self, record: ChatRecord) -> None:
        content = json.loads(record.message.body)["content"]
        if content == self.fails_at:
            raise RuntimeError("cannot")
        self.seen.append(content)


async def test_each_record_is_handled_by_one_instance(broker: MemoryBroker) -> None:
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


async def test_unfinished_work_of_a_stopped_instance_is_done_by_another(broker: MemoryBroker) -> None:
    stuck = asyncio.Event()

    async def never_done(record: ChatRecord) -> None:
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


async def test_a_record_whose_work_always_fails_is_set_aside_and_holds_up_no_other(fresh_redis: Engine) -> None:
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


class Disk:
    """Work that raises NotNow while it is `full`."""

    def __init__(self) -> None:
        self.full = True
        self.tried = 0
        self.written: list[str] = []

    async def __call__(self, record: ChatRecord) -> None:
        self.tried += 1
        if self.full:
            raise NotNow("the disk is full")
        self.written.append(json.loads(record.message.body)["content"])


async def test_work_that_raises_not_now_waits_and_keeps_its_order(
    broker: MemoryBroker, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk()
    workers = Workers(broker, "one", [Job("audit", [TOPIC], disk)])
    await workers.ready()
    for number in range(5):
        await broker.publish(TOPIC, body(number))
    await until(lambda: disk.tried >= 3)
    tally = workers.tallies["audit"]
    assert tally.waiting == {"/topic/public": "the disk is full"}
    disk.full = False
    await until(lambda: len(disk.written) == 5)
    assert disk.written == ["0", "1", "2", "3", "4"]
    assert (tally.done, tally.failed, tally.waiting) == (5, 0, {})
    await workers.aclose()
    assert caplog.text.count("the disk is full") == 1, "logged once, however long it lasts"


async def test_waiting_does_not_count_as_an_attempt_after_a_takeover(fresh_redis: Engine) -> None:
    tries, count = 3, 100
    here, there, late = Disk(), Disk(), Disk()
    async with RedisStreamsBroker(fresh_redis.url, takeover_after=0.05, tries=tries) as broker:
        jobs = [[Job("audit", [TOPIC], disk)] for disk in (here, there, late)]
        workers = [Workers(broker, name, job) for name, job in zip(("here", "there"), jobs[:2], strict=True)]
        for each in workers:
            await each.ready()
        for number in range(count):
            await broker.publish(TOPIC, body(number))
        for life in range(2 * tries):  # instances that start, take some records over, and stop again
            visitor = Workers(broker, f"visitor {life}", jobs[2])
            tried = late.tried
            await until(lambda tried=tried: late.tried > tried)  # type: ignore[misc]  # mypy cannot infer a lambda's default
            await visitor.aclose()
        await asyncio.sleep(2 * tries * 0.05)
        here.full = there.full = False
        await until(lambda: len({*here.written, *there.written}) == count, timeout=20)
        redis = Redis.from_url(fresh_redis.url)
        assert not await redis.exists(f"{TOPIC}:set-aside:audit")
        await redis.aclose()
        for each in workers:
            await each.aclose()


async def test_work_that_one_instance_cannot_do_now_is_done_by_another(fresh_redis: Engine) -> None:
    full, well = Disk(), Disk()
    well.full = False
    async with RedisStreamsBroker(fresh_redis.url, takeover_after=0.05) as broker:
        waits = Workers(broker, "waits", [Job("audit", [TOPIC], full)])
        await waits.ready()
        for number in range(40):
            await broker.publish(TOPIC, body(number))
        await until(lambda: full.tried > 0)
        works = Workers(broker, "works", [Job("audit", [TOPIC], well)])
        await until(lambda: len(set(well.written)) == 40, timeout=20)
        await works.aclose()
        await waits.aclose()


async def test_work_that_needs_the_broker_waits_for_it(broker: MemoryBroker) -> None:
    tried = 0

    async def needs_it(record: ChatRecord) -> None:
        nonlocal tried
        tried += 1
        if tried < 3:
            raise BrokerUnavailable("away")

    workers = Workers(broker, "one", [Job("tell", [TOPIC], needs_it)])
    await workers.ready()
    await broker.publish(TOPIC, body(1))
    await until(lambda: workers.tallies["tell"].done == 1)
    assert (tried, workers.tallies["tell"].failed) == (3, 0)
    await workers.aclose()


async def test_workers_skip_records_of_other_programs(broker: MemoryBroker) -> None:
    audit = Audit()
    workers = Workers(broker, "one", [Job("audit", [TOPIC], audit)])
    await workers.ready()
    for record in (b"", b"[" * 5000, b'{"content":' + b"[" * 5000 + b"]" * 5000 + b"}", b"\xff", body(1)):
        await broker.publish(TOPIC, record)
    await until(lambda: audit.seen == ["1"])
    await workers.aclose()


def test_workers_refuse_an_engine_without_groups() -> None:
    with pytest.raises(SetupError, match="jobs need a broker with groups"):
        Workers(RedisPubSubBroker("redis://127.0.0.1:1"), "one", [])
