"""Plausible wrong answers to lesson 05's exercises, each with a part of the text that the learner must be shown."""

import asyncio
import itertools
import os
import random
import time
from hashlib import sha1
from typing import Any

from chatlab.brokers.port import Record
from chatlab.lab.exercises.lessons.lesson05 import MyBroker
from tests.lab.exercises.answers import WrongAnswers, wrong_in

WRONG: WrongAnswers = {}
wrong = wrong_in(WRONG)

# --- 05.0 ---


@wrong("05.0", "the clock starts just before `publish`")
async def times_the_subscription_too(broker: Any, topic: str) -> float:
    began = time.perf_counter()
    reader = await broker.subscribe(topic)
    await broker.publish(topic, b"?")
    await reader.batch()
    return time.perf_counter() - began


@wrong("05.0", "stops when the reader has the message")
async def times_the_publish_alone(broker: Any, topic: str) -> float:
    reader = await broker.subscribe(topic)
    began = time.perf_counter()
    await broker.publish(topic, b"?")
    took = time.perf_counter() - began
    await reader.batch()
    return took


@wrong("05.0", "the clock starts just before `publish`")
async def starts_the_clock_after_publish(broker: Any, topic: str) -> float:
    reader = await broker.subscribe(topic)
    await broker.publish(topic, b"?")
    began = time.perf_counter()
    await reader.batch()
    return time.perf_counter() - began


@wrong("05.0", "wait for `await reader.batch()`")
async def does_not_wait_for_the_reader(broker: Any, topic: str) -> float:
    await broker.subscribe(topic)
    began = time.perf_counter()
    await broker.publish(topic, b"?")
    return time.perf_counter() - began


@wrong("05.0", "first subscribe, then publish")
async def publishes_before_anybody_listens(broker: Any, topic: str) -> float:
    began = time.perf_counter()
    await broker.publish(topic, b"?")
    reader = await broker.subscribe(topic)
    await reader.batch()
    return time.perf_counter() - began


@wrong("05.0", "in seconds, not in milliseconds")
async def in_milliseconds(broker: Any, topic: str) -> float:
    reader = await broker.subscribe(topic)
    began = time.perf_counter()
    await broker.publish(topic, b"?")
    await reader.batch()
    return 1000 * (time.perf_counter() - began)


@wrong("05.0", "also runs while your code waits")
async def with_the_processors_clock(broker: Any, topic: str) -> float:
    reader = await broker.subscribe(topic)
    began = time.process_time()
    await broker.publish(topic, b"?")
    await reader.batch()
    return time.process_time() - began


@wrong("05.0", "not the time of day")
async def returns_the_clock_itself(broker: Any, topic: str) -> float:
    reader = await broker.subscribe(topic)
    await broker.publish(topic, b"?")
    await reader.batch()
    return time.time()


@wrong("05.0", "a number of seconds")
async def the_wrong_way_round(broker: Any, topic: str) -> float:
    reader = await broker.subscribe(topic)
    began = time.perf_counter()
    await broker.publish(topic, b"?")
    await reader.batch()
    return began - time.perf_counter()


@wrong("05.0", "a number of seconds")
async def prints_instead_of_returning(broker: Any, topic: str) -> None:
    reader = await broker.subscribe(topic)
    began = time.perf_counter()
    await broker.publish(topic, b"?")
    await reader.batch()
    print(time.perf_counter() - began)


@wrong("05.0", "one message is published, to the topic")
async def times_ten_messages(broker: Any, topic: str) -> float:
    reader = await broker.subscribe(topic)
    began = time.perf_counter()
    for _ in range(10):
        await broker.publish(topic, b"?")
        await reader.batch()
    return (time.perf_counter() - began) / 10


@wrong("05.0", "nothing but the message's way is timed")
async def rests_before_it_stops_the_clock(broker: Any, topic: str) -> float:
    reader = await broker.subscribe(topic)
    began = time.perf_counter()
    await broker.publish(topic, b"?")
    await reader.batch()
    await asyncio.sleep(0.2)
    return time.perf_counter() - began


@wrong("05.0", "a body is bytes")
async def publishes_a_text(broker: Any, topic: str) -> float:
    reader = await broker.subscribe(topic)
    began = time.perf_counter()
    await broker.publish(topic, "?")
    await reader.batch()
    return time.perf_counter() - began


# --- 05.1 ---

turns = itertools.count()
numbers: dict[str, int] = {}


@wrong("05.1", "differs from process to process")
def by_hash_in_a_helper(message: dict[str, str], count: int) -> int:
    return number_of(message["room"]) % count


def number_of(room: str) -> int:
    return hash(room)


@wrong("05.1", "differs from process to process")
def by_dunder_hash(message: dict[str, str], count: int) -> int:
    return message["room"].__hash__() % count


@wrong("05.1", "differs from process to process")
def by_a_hash_of_a_tuple(message: dict[str, str], count: int) -> int:
    return tuple(message["room"]).__hash__() % count


@wrong("05.1", "differs from process to process")
def in_order_of_appearance(message: dict[str, str], count: int) -> int:
    return numbers.setdefault(message["room"], len(numbers)) % count


@wrong("05.1", "differs from process to process")
def remembered_chance(message: dict[str, str], count: int, places: dict[str, float] = {}) -> int:  # noqa: B006  # the mistake
    return int(places.setdefault(message["room"], random.random()) * count)


@wrong("05.1", "differs from process to process")
def with_the_process_in_it(message: dict[str, str], count: int) -> int:
    return sum(f"{os.getpid()} {message['room']}".encode()) % count


@wrong("05.1", "spread over all partitions")
def by_the_length(message: dict[str, str], count: int) -> int:
    return len(message["room"]) % count


@wrong("05.1", "all messages of one room are in one partition")
def by_the_text(message: dict[str, str], count: int) -> int:
    return sum(message["text"].encode()) % count


@wrong("05.1", "all messages of one room are in one partition")
def in_turn(message: dict[str, str], count: int) -> int:
    return next(turns) % count


@wrong("05.1", "all messages of one room are in one partition")
def by_sender(message: dict[str, str], count: int) -> int:
    return sum(message["sender"].encode()) % count


@wrong("05.1", "differs from process to process")
def by_hash(message: dict[str, str], count: int) -> int:
    return hash(message["room"]) % count


@wrong("05.1", "a whole number from 0 to")
def without_the_remainder(message: dict[str, str], count: int) -> int:
    return sum(message["room"].encode())


@wrong("05.1", "spread over all partitions")
def by_the_first_character(message: dict[str, str], count: int) -> int:
    return ord(message["room"][0]) % count


@wrong("05.1", "spread over all partitions")
def all_in_one(message: dict[str, str], count: int) -> int:
    return 0


# --- 05.2 ---


@wrong("05.2", "the records kept after the id it was given")
async def from_now_on(redis: Any, stream: str, after: str, show: Any) -> None:
    while True:
        for _, records in await redis.xread({stream: "$"}, block=1000):
            for _id, fields in records:
                await show(fields["body"])


@wrong("05.2", "while the reader is busy is not missed")
async def history_then_now(redis: Any, stream: str, after: str, show: Any) -> None:
    for _id, fields in await redis.xrange(stream, min=f"({after}"):
        await show(fields["body"])
    while True:
        for _, records in await redis.xread({stream: "$"}, block=1000):
            for _id, fields in records:
                await show(fields["body"])


@wrong("05.2", "runs until it is stopped")
async def reads_once(redis: Any, stream: str, after: str, show: Any) -> None:
    for _, records in await redis.xread({stream: after}, block=1000):
        for _id, fields in records:
            await show(fields["body"])


@wrong("05.2", "] and ")  # "… and 1980 more": the evidence is shortened
async def starts_over_each_time(redis: Any, stream: str, after: str, show: Any) -> None:
    while True:
        for _, records in await redis.xread({stream: after}, block=1000):
            for _id, fields in records:
                await show(fields["body"])


@wrong("05.2", "each record is shown once, in order")
async def the_one_it_names_as_well(redis: Any, stream: str, after: str, show: Any) -> None:
    for id, fields in await redis.xrange(stream, min=after):
        await show(fields["body"])
        after = id
    while True:
        for _, records in await redis.xread({stream: after}, block=1000):
            for id, fields in records:
                await show(fields["body"])
                after = id


@wrong("05.2", "asking again and again is polling")
async def asks_again_and_again(redis: Any, stream: str, after: str, show: Any) -> None:
    while True:
        for id, fields in await redis.xrange(stream, min=f"({after}"):
            await show(fields["body"])
            after = id
        await asyncio.sleep(0.01)


@wrong("05.2", "asking again and again is polling")
async def asks_three_times_a_second(redis: Any, stream: str, after: str, show: Any) -> None:
    while True:
        for _, records in await redis.xread({stream: after}):
            for id, fields in records:
                await show(fields["body"])
                after = id
        await asyncio.sleep(0.3)


@wrong("05.2", "asking again and again is polling")
async def blocks_for_a_moment_only(redis: Any, stream: str, after: str, show: Any) -> None:
    while True:
        for _, records in await redis.xread({stream: after}, block=50):
            for id, fields in records:
                await show(fields["body"])
                after = id


@wrong("05.2", "several records that arrive together are all shown")
async def the_last_of_each_batch(redis: Any, stream: str, after: str, show: Any) -> None:
    for id, fields in await redis.xrange(stream, min=f"({after}"):
        await show(fields["body"])
        after = id
    while True:
        for _, records in await redis.xread({stream: after}, block=1000):
            for id, fields in records[-1:] if len(records) > 2 else records:
                await show(fields["body"])
                after = id


@wrong("05.2", "await each `show` before the next one")
async def shows_all_at_once(redis: Any, stream: str, after: str, show: Any) -> None:
    while True:
        for _, records in await redis.xread({stream: after}, block=1000):
            after = records[-1][0]
            await asyncio.gather(*(show(fields["body"]) for _, fields in records))


@wrong("05.2", "the records kept after the id it was given")
async def shows_the_records_not_their_bodies(redis: Any, stream: str, after: str, show: Any) -> None:
    while True:
        for _, records in await redis.xread({stream: after}, block=1000):
            for id, fields in records:
                await show(str(fields))
                after = id


# --- 05.3 ---


def texts_of(records: list[tuple[str, dict[str, str]]]) -> list[str]:
    return [fields["body"] for _, fields in records]


@wrong("05.3", "never return an incomplete list")
async def what_is_left(redis: Any, stream: str, after: str) -> list[str]:
    return texts_of(await redis.xrange(stream, min=f"({after}"))


@wrong("05.3", "the records after the id, without the record")
async def with_the_one_named(redis: Any, stream: str, after: str) -> list[str]:
    return texts_of(await redis.xrange(stream, min=after))


@wrong("05.3", "after '0-0' it returns everything that is kept")
async def a_gap_before_all_others(redis: Any, stream: str, after: str) -> list[str]:
    records = await redis.xrange(stream, min=after)
    if not records or records[0][0] != after:
        raise LookupError(after)
    return texts_of(records[1:])


@wrong("05.3", "is the oldest one kept, nothing is missing")
async def one_too_careful(redis: Any, stream: str, after: str) -> list[str]:
    records = await redis.xrange(stream)
    if after != "0-0" and (not records or records[0][0] == after or after not in [id for id, _ in records]):
        raise LookupError(after)
    return texts_of([record for record in records if tuple(map(int, record[0].split("-"))) > _numbers(after)])


def _numbers(id: str) -> tuple[int, ...]:
    return tuple(map(int, id.split("-")))


@wrong("05.3", "between two commands the stream may have been trimmed")
async def looks_first_and_reads_later(redis: Any, stream: str, after: str) -> list[str]:
    if after != "0-0" and not await redis.xrange(stream, min=after, max=after):
        raise LookupError(after)
    return texts_of(await redis.xrange(stream, min=f"({after}"))


@wrong("05.3", "1700-10 comes after 1700-9")
async def compares_ids_as_texts(redis: Any, stream: str, after: str) -> list[str]:
    records = await redis.xrange(stream)
    if after != "0-0" and after not in [id for id, _ in records]:
        raise LookupError(after)
    return texts_of([record for record in records if record[0] > after])


@wrong("05.3", "never return an incomplete list")
async def an_empty_list_for_a_gap(redis: Any, stream: str, after: str) -> list[str]:
    records = await redis.xrange(stream, min=after)
    if after != "0-0" and (not records or records[0][0] != after):
        return []
    return texts_of(records if after == "0-0" else records[1:])


@wrong("05.3", "raise LookupError yourself")
async def stumbles_over_the_gap(redis: Any, stream: str, after: str) -> list[str]:
    records = await redis.xrange(stream)
    bodies = dict(records)
    if after != "0-0":
        bodies[after]
        records = records[[id for id, _ in records].index(after) + 1 :]
    return texts_of(records)


@wrong("05.3", "your code raised ValueError")
async def raises_something_else(redis: Any, stream: str, after: str) -> list[str]:
    records = await redis.xrange(stream, min=after)
    if after != "0-0":
        if not records or records[0][0] != after:
            raise ValueError(after)
        records = records[1:]
    return texts_of(records)


@wrong("05.3", "the records after the id, without the record")
async def returns_the_records_themselves(redis: Any, stream: str, after: str) -> Any:
    records = await redis.xrange(stream, min=after)
    if after != "0-0":
        if not records or records[0][0] != after:
            raise LookupError(after)
        records = records[1:]
    return records


# --- 05.4 ---


@wrong("05.4", "under the same key is not added again")
async def just_adds(redis: Any, stream: str, body: str, key: str) -> Any:
    return await redis.xadd(stream, {"body": body})


@wrong("05.4", "is another message")
async def compares_the_text(redis: Any, stream: str, body: str, key: str) -> Any:
    for id, fields in await redis.xrange(stream):
        if fields["body"] == body:
            return id
    return await redis.xadd(stream, {"body": body})


@wrong("05.4", "returns the id of the first record")
async def says_nothing_the_second_time(redis: Any, stream: str, body: str, key: str) -> Any:
    if await redis.set(f"{stream}:once:{key}", "seen", nx=True, ex=600):
        return await redis.xadd(stream, {"body": body})
    return None


@wrong("05.4", "each stream has its own keys")
async def forgets_the_stream(redis: Any, stream: str, body: str, key: str) -> Any:
    if (id := await redis.get(key)) is None:
        id = await redis.xadd(stream, {"body": body})
        await redis.set(key, id, ex=600)
    return id


@wrong("05.4", "was added before the connection broke is not added again")
async def looks_adds_notes(redis: Any, stream: str, body: str, key: str) -> Any:
    mark = f"{stream}:once:{key}"
    if (id := await redis.get(mark)) is None:
        id = await redis.xadd(stream, {"body": body})
        await redis.set(mark, id, ex=600)
    return id


@wrong("05.4", "is added by the next try")
async def notes_before_it_adds(redis: Any, stream: str, body: str, key: str) -> Any:
    mark = f"{stream}:once:{key}"
    if await redis.set(mark, "", nx=True, ex=600):
        id = await redis.xadd(stream, {"body": body})
        await redis.set(mark, id, ex=600)
        return id
    return await redis.get(mark)


@wrong("05.4", "not found by reading it")
async def keeps_the_key_in_the_stream(redis: Any, stream: str, body: str, key: str) -> Any:
    for id, fields in await redis.xrange(stream):
        if fields["key"] == key:
            return id
    return await redis.xadd(stream, {"body": body, "key": key})


@wrong("05.4", "not found by reading it")
async def reads_the_whole_stream_in_the_script(redis: Any, stream: str, body: str, key: str) -> Any:
    script = """
    for _, record in ipairs(redis.call('XRANGE', KEYS[1], '-', '+')) do
        if record[2][4] == ARGV[2] then return record[1] end
    end
    return redis.call('XADD', KEYS[1], '*', 'body', ARGV[1], 'key', ARGV[2])
    """
    return await redis.eval(script, 1, stream, body, key)


@wrong("05.4", "at the same moment, only one adds the record")
async def looks_then_adds_and_notes_in_one_step(redis: Any, stream: str, body: str, key: str) -> Any:
    mark = f"{stream}:once:{key}"
    if (id := await redis.get(mark)) is None:
        await asyncio.sleep(0.05)
        script = """
        local id = redis.call('XADD', KEYS[1], '*', 'body', ARGV[1])
        redis.call('SET', KEYS[2], id, 'EX', 600)
        return id
        """
        id = await redis.eval(script, 2, stream, mark, body)
    return id


async def watches(redis: Any, stream: str, body: str, mark: str) -> Any:
    async with redis.pipeline() as pipe:
        await pipe.watch(mark, stream)
        if id := await pipe.get(mark):
            return id
        newest = await pipe.xrevrange(stream, count=1)
        time, _, number = newest[0][0].partition("-") if newest else ("1700", "-", "0")
        id = f"{time}-{int(number) + 1}"
        pipe.multi()
        pipe.xadd(stream, {"body": body}, id=id)
        pipe.set(mark, id, ex=600)
        await pipe.execute()
        return id


@wrong("05.4", "catch WatchError and start over")
async def watches_and_gives_up(redis: Any, stream: str, body: str, key: str) -> Any:
    return await watches(redis, stream, body, f"{stream}:once:{key}")


HASH = """
local id = redis.call('HGET', KEYS[2], ARGV[2])
if not id then
    id = redis.call('XADD', KEYS[1], '*', 'body', ARGV[1])
    redis.call('HSET', KEYS[2], ARGV[2], id)
    {expire}
end
return id
"""


@wrong("05.4", "each key expires by itself")
async def one_hash_that_every_message_keeps_alive(redis: Any, stream: str, body: str, key: str) -> Any:
    script = HASH.replace("{expire}", "redis.call('EXPIRE', KEYS[2], 600)")
    return await redis.eval(script, 2, stream, f"{stream}:once", body, key)


@wrong("05.4", "takes no other along")
async def one_hash_that_forgets_all_at_once(redis: Any, stream: str, body: str, key: str) -> Any:
    script = HASH.replace("{expire}", "redis.call('EXPIRE', KEYS[2], 600, 'NX')")
    return await redis.eval(script, 2, stream, f"{stream}:once", body, key)


ONCE = """
local id = redis.call('GET', KEYS[2])
if not id then
    id = redis.call('XADD', KEYS[1], '*', 'body', ARGV[1])
    redis.call('SET', KEYS[2], id)
end
return id
"""


@wrong("05.4", "expires one day")
async def no_expiry_under_a_digest(redis: Any, stream: str, body: str, key: str) -> Any:
    return await redis.eval(ONCE, 2, stream, sha1(f"{stream} {key}".encode()).hexdigest(), body)


@wrong("05.4", "say when it expires in one step")
async def sets_the_expiry_in_a_second_command(redis: Any, stream: str, body: str, key: str) -> Any:
    mark = f"{stream}:once:{key}"
    id = await redis.eval(ONCE, 2, stream, mark, body)
    await redis.expire(mark, 600)
    return id


@wrong("05.4", "at least half a minute")
async def forgets_after_five_seconds(redis: Any, stream: str, body: str, key: str) -> Any:
    script = ONCE.replace("KEYS[2], id)", "KEYS[2], id, 'EX', 5)")
    return await redis.eval(script, 2, stream, f"{stream}:once:{key}", body)


@wrong("05.4", "expires one day")
async def stores_keys_that_never_expire(redis: Any, stream: str, body: str, key: str) -> Any:
    script = """
    local id = redis.call('HGET', KEYS[2], ARGV[2])
    if not id then
        id = redis.call('XADD', KEYS[1], '*', 'body', ARGV[1])
        redis.call('HSET', KEYS[2], ARGV[2], id)
    end
    return id
    """
    return await redis.eval(script, 2, stream, f"{stream}:once", body, key)


# --- 05.5 ---


@wrong("05.5", "a broker is a class")
def no_class(redis: Any) -> Any:
    return MyBroker(redis)


@wrong("05.5", "has the method `subscribe`")
class PublishesOnly:
    def __init__(self, redis: Any) -> None:
        self.redis = redis

    async def publish(self, topic: str, body: bytes) -> Any:
        return (await self.redis.xadd(topic, {"body": body})).decode()


@wrong("05.5", "a generator only starts when it is first read")
class SubscribesByYield(MyBroker):
    async def subscribe(self, topic: str, after: str | None = None) -> Any:
        async for record in self.read(topic, after or "$"):
            yield record


@wrong("05.5", "from the moment `subscribe` returns")
class StartsAtTheFirstRead(MyBroker):
    async def subscribe(self, topic: str, after: str | None = None) -> Any:
        return self.start(topic, after)

    async def start(self, topic: str, after: str | None) -> Any:
        async for record in await super().subscribe(topic, after):
            yield record


@wrong("05.5", "and nothing older")
class StartsAtTheOldestRecord(MyBroker):
    async def subscribe(self, topic: str, after: str | None = None) -> Any:
        return self.read(topic, after or "0-0")


@wrong("05.5", "as a `str`")
class GivesBytesForIds(MyBroker):
    async def publish(self, topic: str, body: bytes) -> Any:
        return await self.redis.xadd(topic, {"body": body}, maxlen=1000)


@wrong("05.5", "your code raised UnicodeDecodeError")
class DecodesBodies(MyBroker):
    async def read(self, topic: str, after: str) -> Any:
        async for record in super().read(topic, after):
            yield Record(topic, record.id, record.body.decode().encode())


@wrong("05.5", "every reader gets every record")
class SharesOnePlace(MyBroker):
    async def read(self, topic: str, after: str) -> Any:
        self.after = after
        while True:
            for _, records in await self.redis.xread({topic: self.after}, block=1000):
                for id, fields in records:
                    self.after = id.decode()
                    yield Record(topic, self.after, fields[b"body"])


@wrong("05.5", "with `after`")
class ForgetsThePast(MyBroker):
    async def subscribe(self, topic: str, after: str | None = None) -> Any:
        return await super().subscribe(topic)


@wrong("05.5", "topics are kept apart")
class OneStreamForAll(MyBroker):
    async def publish(self, topic: str, body: bytes) -> Any:
        return await super().publish(topic.partition(":")[0], body)

    async def subscribe(self, topic: str, after: str | None = None) -> Any:
        return await super().subscribe(topic.partition(":")[0], after)


@wrong("05.5", "does not grow forever")
class NeverTrims(MyBroker):
    async def publish(self, topic: str, body: bytes) -> Any:
        return (await self.redis.xadd(topic, {"body": body})).decode()


@wrong("05.5", "for readers that come back")
class KeepsAHundred(MyBroker):
    async def publish(self, topic: str, body: bytes) -> Any:
        return (await self.redis.xadd(topic, {"body": body}, maxlen=100, approximate=False)).decode()


class PumpsForEver(MyBroker):
    """Starts a task for each subscription that nothing ever ends."""

    async def subscribe(self, topic: str, after: str | None = None) -> Any:
        queue: asyncio.Queue[Record] = asyncio.Queue()
        reader = await super().subscribe(topic, after)

        async def pump() -> None:
            async for record in reader:
                queue.put_nowait(record)

        self.pumping = [*getattr(self, "pumping", []), asyncio.create_task(pump())]
        return self.drain(queue)

    async def drain(self, queue: asyncio.Queue[Record]) -> Any:
        while True:
            yield await queue.get()


wrong("05.5", "leaves nothing running")(PumpsForEver)


@wrong("05.5", "asking again and again is polling")
class AsksAgainAndAgain(MyBroker):
    async def read(self, topic: str, after: str) -> Any:
        while True:
            for _, records in await self.redis.xread({topic: after}):
                for id, fields in records:
                    after = id.decode()
                    yield Record(topic, after, fields[b"body"])
            await asyncio.sleep(0.05)
