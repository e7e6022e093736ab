"""A reader of a Redis stream gets every record or SubscriptionLost, and no SubscriptionLost if nothing is missing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from chatlab.brokers.port import BEGINNING, Record
from chatlab.brokers.redis.streams import RedisStreamsBroker, StreamReader
from chatlab.errors import SubscriptionLost
from chatlab.lab.engines.engine import Engine
from chatlab.lab.wire.wire import Wire
from tests.support.broker_cases import publish_all, redis_with_a_stall, topic, until

KEEP = 1000


class Scene:
    """A stream, a reader on a connection that can be stalled, and a writer that also breaks the stream."""

    def __init__(self, wire: Wire, reader: RedisStreamsBroker, writer: RedisStreamsBroker, redis: Redis) -> None:
        self.wire, self.reader, self.writer, self.redis = wire, reader, writer, redis
        self.topic = topic()

    async def publish(self, *bodies: bytes) -> None:
        await publish_all(self.writer, self.topic, bodies)

    async def add(self, id: str, body: bytes) -> None:
        await self.redis.xadd(self.topic, {"body": body}, id=id)

    async def fail_over(self, *since: tuple[str, bytes]) -> None:
        """Make the stream that of a promoted replica: without the records after 1-8, and with those in `since`."""
        async with self.redis.pipeline(transaction=True) as promoted:
            promoted.delete(self.topic)
            for number in range(1, 9):
                promoted.xadd(self.topic, {"body": b"%d" % number}, id=f"1-{number}")
            for id, body in since:
                promoted.xadd(self.topic, {"body": body}, id=id)
            await promoted.execute()


@pytest.fixture
async def scene(redis_engine: Engine) -> AsyncIterator[Scene]:
    async with redis_with_a_stall(redis_engine.url, KEEP) as (wire, reader, writer, redis):
        yield Scene(wire, reader, writer, redis)


class Reading:
    """A subscription that is read as the relay reads: to its end, then on from where that says."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.got: list[bytes] = []
        self.lost: list[SubscriptionLost] = []
        self.came = asyncio.Event()

    async def run(self, reader: StreamReader) -> None:
        while True:
            try:
                while batch := await reader.batch():
                    self.take(batch)
                return
            except SubscriptionLost as error:
                self.lost.append(error)
                self.came.set()
                assert error.resume is not None
                reader = await self.scene.reader.subscribe(self.scene.topic, after=error.resume)

    def take(self, batch: object) -> None:
        assert isinstance(batch, list | tuple)
        self.got += [record.body for record in batch if isinstance(record, Record)]
        self.came.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self.came.clear()
                await self.came.wait()


@asynccontextmanager
async def reading(scene: Scene, *, after: str | None = None) -> AsyncIterator[Reading]:
    """Read in the background, from a moment at which the blocking read brings what is new."""
    subscription = await scene.reader.subscribe(scene.topic, after=after)
    reader = Reading(scene)
    task = asyncio.create_task(reader.run(subscription))
    await scene.publish(b"first")
    await reader.until(lambda: b"first" in reader.got)
    await scene.publish(b"second")  # the first may have come in a page
    await reader.until(lambda: b"second" in reader.got)
    yield reader
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error


async def test_a_stalled_live_reader_gets_subscription_lost_after_trimming(scene: Scene) -> None:
    async with reading(scene) as reader:
        scene.wire.stall()
        sent = [b"%d" % number for number in range(3 * KEEP)]
        await scene.publish(*sent)
        scene.wire.heal()
        await reader.until(lambda: reader.got[-1] == sent[-1])
        assert [error.restarted for error in reader.lost] == [False]
        assert "was trimmed past its reader" in str(reader.lost[0])
        kept = reader.got[2:]
        assert kept == sent[-len(kept) :], "everything that was kept, in order, once"
        assert len(kept) >= KEEP


async def test_a_reader_that_started_at_an_empty_stream_gets_subscription_lost_after_trimming(scene: Scene) -> None:
    reader = await scene.reader.subscribe(scene.topic)
    waiting = asyncio.create_task(reader.batch())
    await asyncio.sleep(0.1)  # it is in the blocking read by now, or else reads a page: both are to notice
    scene.wire.stall()
    await scene.publish(*(b"%d" % number for number in range(3 * KEEP)))
    scene.wire.heal()
    with pytest.raises(SubscriptionLost, match="trimmed past its reader"):
        await waiting


@pytest.mark.parametrize("written", [5, 700])
async def test_a_stalled_live_reader_gets_subscription_lost_when_another_client_trims(
    scene: Scene, written: int
) -> None:
    async with reading(scene) as reader:
        scene.wire.stall()
        await scene.publish(*(b"%d" % number for number in range(written)))
        await scene.redis.xtrim(scene.topic, maxlen=2, approximate=False)
        await asyncio.sleep(0.1)  # the stall
        scene.wire.heal()
        await reader.until(lambda: len(reader.got) == 4)
        assert reader.got[2:] == [b"%d" % (written - 2), b"%d" % (written - 1)]
        assert len(reader.lost) == 1


async def test_a_stalled_live_reader_gets_subscription_lost_when_the_stream_is_emptied(scene: Scene) -> None:
    async with reading(scene) as reader:
        scene.wire.stall()
        await scene.publish(b"never seen")
        await scene.redis.xtrim(scene.topic, maxlen=0, approximate=False)
        await asyncio.sleep(0.1)  # the stall
        scene.wire.heal()
        await scene.publish(b"after")
        await reader.until(lambda: reader.got[-1] == b"after")
        assert len(reader.lost) == 1
        assert b"never seen" not in reader.got


@pytest.mark.parametrize("busy", [False, True])
async def test_a_live_reader_gets_subscription_lost_when_the_stream_is_removed(scene: Scene, busy: bool) -> None:
    async with reading(scene) as reader:
        other = await scene.reader.subscribe(topic())  # the blocking read serves it as well
        noise = asyncio.create_task(make_noise(scene, other.topic) if busy else asyncio.sleep(0))
        following = asyncio.create_task(read_all(other))
        await scene.redis.delete(scene.topic)
        await reader.until(lambda: len(reader.lost) == 1)
        await scene.publish(b"after")
        await reader.until(lambda: reader.got[-1] == b"after")
        assert len(reader.lost) == 1
        noise.cancel()
        following.cancel()


async def make_noise(scene: Scene, name: str) -> None:
    while True:
        await scene.writer.publish(name, b"noise")


async def read_all(reader: StreamReader) -> None:
    while await reader.batch():
        pass


async def test_readers_notice_a_stream_whose_clock_went_back(scene: Scene) -> None:
    ahead = "9999999999999-0"  # as if the clock had been put back since
    subscription = await scene.reader.subscribe(scene.topic)
    reader = Reading(scene)
    task = asyncio.create_task(reader.run(subscription))
    await scene.add(ahead, b"from the future")
    await reader.until(lambda: reader.got == [b"from the future"])
    await scene.redis.delete(scene.topic)
    await scene.publish(b"1", b"2")
    await reader.until(lambda: len(reader.got) == 3)
    assert reader.got[1:] == [b"1", b"2"]
    assert [error.restarted for error in reader.lost] == [True]
    task.cancel()


async def reader_of_ten(scene: Scene) -> tuple[Reading, asyncio.Task[None]]:
    """A reader that has read the records 1-1 to 1-10, all there are, and the task in which it reads on."""
    reader = Reading(scene)
    task = asyncio.create_task(reader.run(await scene.reader.subscribe(scene.topic)))
    for number in range(1, 11):
        await scene.add(f"1-{number}", b"%d" % number)
    await reader.until(lambda: len(reader.got) == 10)
    return reader, task


async def test_a_failover_that_lost_the_end_of_the_stream_raises_subscription_lost_and_repeats_nothing(
    scene: Scene,
) -> None:
    reader, task = await reader_of_ten(scene)
    await scene.fail_over()
    await reader.until(lambda: len(reader.lost) == 1)
    await scene.add("1-9", b"another")
    await reader.until(lambda: len(reader.got) == 11)
    assert reader.got[10] == b"another"
    assert [error.restarted for error in reader.lost] == [True]
    task.cancel()


async def test_a_failover_raises_subscription_lost_although_the_stream_has_grown_past_the_reader(scene: Scene) -> None:
    reader, task = await reader_of_ten(scene)
    await asyncio.sleep(0.1)  # quiet, so that nothing shields the change
    await scene.fail_over(("2-0", b"later"))
    await reader.until(lambda: reader.got[-1] == b"later")
    assert len(reader.got) == 11
    assert len(reader.lost) == 1
    assert "has lost the record at 1-10" in str(reader.lost[0])
    task.cancel()


@pytest.mark.parametrize("path", ["pages", "live"])
async def test_a_reader_that_pauses_gets_subscription_lost_after_trimming(scene: Scene, path: str) -> None:
    reader = await scene.reader.subscribe(scene.topic)
    if path == "live":
        waiting = asyncio.create_task(reader.batch())
        await asyncio.sleep(0.1)
        await scene.publish(b"first")
        await waiting
    await scene.publish(*(b"%d" % number for number in range(3 * KEEP)))
    got: list[bytes] = []
    try:
        async with asyncio.timeout(20):
            while len(got) < 3 * KEEP:
                got += [record.body for record in await reader.batch()]
    except SubscriptionLost as error:
        assert error.resume is not None
    else:
        assert got == [b"%d" % number for number in range(3 * KEEP)]


@pytest.mark.parametrize(
    "harmless",
    ["trimmed after it was read", "the newest deleted", "one in the middle deleted", "grown old", "nothing"],
)
async def test_no_subscription_lost_is_raised_if_no_record_is_missing(scene: Scene, harmless: str) -> None:
    async with reading(scene) as reader:
        ids = [record.id for record in await scene.writer.history(scene.topic)]
        await asyncio.sleep(0.1)  # quiet: the next message is looked at closely
        match harmless:
            case "trimmed after it was read":
                await scene.redis.xtrim(scene.topic, maxlen=0, approximate=False)
            case "the newest deleted":
                await scene.redis.xdel(scene.topic, ids[-1])
            case "one in the middle deleted":
                await scene.redis.xdel(scene.topic, ids[0])
            case "grown old":
                await scene.redis.xtrim(scene.topic, minid="9999999999999", approximate=False)
        for number in range(3):
            await scene.publish(b"%d" % number)
            await asyncio.sleep(0.06)
        await reader.until(lambda: len(reader.got) == 5)
        assert reader.got[2:] == [b"0", b"1", b"2"]
        assert reader.lost == []


async def test_a_reader_far_from_its_server_follows_the_blocking_read_too(scene: Scene) -> None:
    scene.wire.delay(0.06)  # each way: a page takes longer than what counts as slow
    reader = await scene.reader.subscribe(scene.topic)
    waiting = asyncio.create_task(reader.batch())
    await until(lambda: scene.topic in scene.reader._follower._topics, "the topic is in the blocking read")
    await scene.publish(b"1")
    assert [record.body for record in await waiting] == [b"1"]


async def test_reading_from_the_beginning_of_a_trimmed_stream_raises_nothing(scene: Scene) -> None:
    await scene.publish(*(b"%d" % number for number in range(2 * KEEP)))
    async with reading(scene, after=BEGINNING) as reader:
        assert reader.lost == []
        assert len(reader.got) >= KEEP


async def test_resuming_after_a_trimmed_id_raises_subscription_lost(scene: Scene) -> None:
    async def lost(after: str) -> str | None:
        return await scene.reader.lost_after(scene.topic, after)

    for number in range(1, 10):
        await scene.add(f"5-{number}", b"%d" % number)
    assert [await lost(after) for after in (BEGINNING, "5-1", "5-9")] == [None, None, None]
    assert await lost("6-0") == "5-9", "the stream has not come so far"
    await scene.redis.xtrim(scene.topic, maxlen=4, approximate=False)
    assert [await lost(after) for after in ("5-1", "5-6", "5-9")] == [BEGINNING, None, None]
    await scene.redis.xdel(scene.topic, "5-7")
    assert await lost("5-7") is None, "somebody deleted just this one"
    await scene.redis.delete(scene.topic)
    assert await lost("5-9") == BEGINNING
    await scene.add("7-0", b"new")
    assert await lost("5-9") == BEGINNING


async def test_one_loss_ends_both_a_paging_and_a_live_reader(scene: Scene) -> None:
    async with reading(scene) as live:
        behind = await scene.reader.subscribe(scene.topic)
        scene.wire.stall()
        await scene.publish(*(b"%d" % number for number in range(3 * KEEP)))
        scene.wire.heal()
        await live.until(lambda: bool(live.lost))
        with pytest.raises(SubscriptionLost):
            await behind.batch()
