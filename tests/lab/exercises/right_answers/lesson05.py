"""Right answers to lesson 05's exercises in other styles than the solutions'."""

import asyncio
import hashlib
import random
import time
from collections import deque
from typing import Any

from redis.exceptions import WatchError

from chatlab.brokers.port import Record
from tests.lab.exercises.answers import RightAnswers, right_in
from tests.lab.exercises.wrong_answers.lesson05 import watches

RIGHT: RightAnswers = {}
right = right_in(RIGHT)

# --- 05.0 ---


@right("05.0")
async def publishes_in_a_task(broker: Any, topic: str) -> float:
    reader = await broker.subscribe(topic)
    began = time.perf_counter()
    publishing = asyncio.create_task(broker.publish(topic, b"ping"))
    await reader.batch()
    took = time.perf_counter() - began
    await publishing
    return took


@right("05.0")
async def with_the_loops_clock_and_async_for(broker: Any, topic: str) -> float:
    loop = asyncio.get_running_loop()
    reader = await broker.subscribe(topic)
    began = loop.time()
    await broker.publish(topic, "안녕".encode())
    async for _ in reader:
        return loop.time() - began
    raise AssertionError("nothing came")


@right("05.0")
async def with_nanoseconds(broker: Any, topic: str) -> float:
    reader = await broker.subscribe(topic)
    began = time.monotonic_ns()
    await asyncio.gather(broker.publish(topic, b""), reader.batch())
    await reader.aclose()
    return (time.monotonic_ns() - began) / 1e9


# --- 05.1 ---


@right("05.1")
def by_sha256(message: dict[str, str], count: int) -> int:
    return int(hashlib.sha256(message["room"].encode()).hexdigest(), 16) % count


@right("05.1")
def by_a_rolling_sum_in_a_helper(message: dict[str, str], count: int) -> int:
    return rolling(message["room"]) % count


def rolling(text: str) -> int:
    total = 0
    for letter in text:
        total = 31 * total + ord(letter)
    return total


@right("05.1")
def by_chance_with_the_room_as_its_seed(message: dict[str, str], count: int) -> int:
    return random.Random(message["room"]).randrange(count)


known: dict[str, int] = {}


@right("05.1")
def with_a_cache(message: dict[str, str], count: int) -> int:
    room = message["room"]
    if room not in known:
        known[room] = rolling(room)
    return known[room] % count


# --- 05.2 ---


@right("05.2")
async def one_record_at_a_time(redis: Any, stream: str, after: str, show: Any) -> None:
    while True:
        [[_, [(after, fields)]]] = await redis.xread({stream: after}, count=1, block=0)
        await show(fields["body"])


@right("05.2")
async def first_the_kept_ones(redis: Any, stream: str, after: str, show: Any) -> None:
    for id, fields in await redis.xrange(stream, min=f"({after}"):
        await show(fields["body"])
        after = id
    while True:
        answer = await redis.xread({stream: after}, block=5000)
        if answer:
            records = answer[0][1]
            for _, fields in records:
                await show(fields["body"])
            after = records[-1][0]


@right("05.2")
async def reads_ahead_in_a_task(redis: Any, stream: str, after: str, show: Any) -> None:
    waiting: asyncio.Queue[str] = asyncio.Queue()

    async def read(last: str) -> None:
        while True:
            for _, records in await redis.xread({stream: last}, block=1000):
                for id, fields in records:
                    waiting.put_nowait(fields["body"])
                    last = id

    async with asyncio.TaskGroup() as group:
        group.create_task(read(after))
        while True:
            await show(await waiting.get())


# --- 05.3 ---


@right("05.3")
async def all_of_it_and_then_the_place(redis: Any, stream: str, after: str) -> list[str]:
    records = await redis.xrange(stream)
    if after == "0-0":
        return [fields["body"] for _, fields in records]
    ids = [id for id, _ in records]
    if after not in ids:
        raise LookupError("a gap")
    return [fields["body"] for _, fields in records[ids.index(after) + 1 :]]


@right("05.3")
async def reads_first_and_then_looks_for_the_gap(redis: Any, stream: str, after: str) -> list[str]:
    records = await redis.xrange(stream, min=f"({after}")
    if after != "0-0" and not await redis.xrange(stream, min=after, max=after):
        raise LookupError(after)
    return [fields["body"] for _, fields in records]


@right("05.3")
async def in_one_transaction(redis: Any, stream: str, after: str) -> list[str]:
    async with redis.pipeline(transaction=True) as pipe:
        pipe.xrange(stream, min=after, max=after)
        pipe.xrange(stream, min=f"({after}")
        here, later = await pipe.execute()
    if not here and after != "0-0":
        raise LookupError(after)
    return [fields["body"] for _, fields in later]


# --- 05.4 ---


@right("05.4")
async def watches_until_nobody_interferes(redis: Any, stream: str, body: str, key: str) -> Any:
    while True:
        try:
            return await watches(redis, stream, body, f"{stream}:once:{key}")
        except WatchError:
            await asyncio.sleep(random.random() / 100)


@right("05.4")
async def with_a_registered_script_and_a_digest(redis: Any, stream: str, body: str, key: str) -> Any:
    script = redis.register_script(
        """
        local known = redis.call('GET', KEYS[2])
        if known then return known end
        local id = redis.call('XADD', KEYS[1], '*', 'body', ARGV[1])
        redis.call('SETEX', KEYS[2], 3600, id)
        return id
        """
    )
    digest = hashlib.sha1(f"{stream} {key}".encode()).hexdigest()
    return await script(keys=[stream, digest], args=[body])


@right("05.4")
async def with_the_id_and_its_key_in_a_small_hash(redis: Any, stream: str, body: str, key: str) -> Any:
    script = """
    if redis.call('EXISTS', KEYS[2]) == 0 then
        redis.call('HSET', KEYS[2], 'id', redis.call('XADD', KEYS[1], '*', 'body', ARGV[1]))
        redis.call('EXPIRE', KEYS[2], 600)
    end
    return redis.call('HGET', KEYS[2], 'id')
    """
    return await redis.eval(script, 2, stream, f"{{{stream}}}:{key}", body)


# --- 05.5 ---


class Publishes:
    def __init__(self, redis: Any) -> None:
        self.redis = redis

    async def publish(self, topic: str, body: bytes) -> Any:
        return (await self.redis.xadd(topic, {b"body": body}, maxlen=1000, approximate=False)).decode()

    async def newest(self, topic: str) -> bytes:
        records = await self.redis.xrevrange(topic, count=1)
        return records[0][0] if records else b"0"


class Reading:
    def __init__(self, redis: Any, topic: str, after: bytes | str) -> None:
        self.redis, self.topic, self.after = redis, topic, after
        self.waiting: deque[tuple[bytes, dict[bytes, bytes]]] = deque()

    def __aiter__(self) -> "Reading":
        return self

    async def __anext__(self) -> Record:
        while not self.waiting:
            for _, records in await self.redis.xread({self.topic: self.after}, block=0):
                self.waiting.extend(records)
        id, fields = self.waiting.popleft()
        self.after = id.decode()
        return Record(self.topic, self.after, fields[b"body"])


@right("05.5")
class WithAnIterator(Publishes):
    async def subscribe(self, topic: str, after: str | None = None) -> Any:
        return Reading(self.redis, topic, after or await self.newest(topic))


class Pumped(Reading):
    """Reads ahead in a task, which ends with the reader."""

    def __init__(self, redis: Any, topic: str, after: bytes | str) -> None:
        super().__init__(redis, topic, after)
        self.queue: asyncio.Queue[Record] = asyncio.Queue(100)
        self.pump = asyncio.create_task(self.fill())

    async def fill(self) -> None:
        while True:
            await self.queue.put(await Reading.__anext__(self))

    async def __anext__(self) -> Record:
        return await self.queue.get()

    async def aclose(self) -> None:
        self.pump.cancel()
        await asyncio.wait([self.pump])


@right("05.5")
class WithAPump(Publishes):
    async def subscribe(self, topic: str, after: str | None = None) -> Any:
        return Pumped(self.redis, topic, after or await self.newest(topic))


@right("05.5")
class OneAtATime(Publishes):
    async def subscribe(self, topic: str, after: str | None = None) -> Any:
        return self.each(topic, after or await self.newest(topic))

    async def each(self, topic: str, last: bytes | str) -> Any:
        while True:
            if found := await self.redis.xread({topic: last}, count=1, block=2000):
                [[_, [(id, fields)]]] = found
                last = id
                yield Record(topic, id.decode(), fields[b"body"])
