"""Plausible wrong answers to lesson 05's exercises, each with a part of the text that the learner must be shown."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from chatlab.brokers.port import Record
from chatlab.lab.exercises.lessons.lesson05 import MyBroker

WRONG: dict[str, list[tuple[Callable[..., Any], str]]] = {}


def wrong(id: str, sentence: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def add(answer: Callable[..., Any]) -> Callable[..., Any]:
        WRONG.setdefault(id, []).append((answer, sentence))
        return answer

    return add


# --- 05.1 ---

turns = itertools.count()


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


@wrong("05.2", "in 0.4 s without a new record it asked")
async def asks_again_and_again(redis: Any, stream: str, after: str, show: Any) -> None:
    while True:
        for id, fields in await redis.xrange(stream, min=f"({after}"):
            await show(fields["body"])
            after = id
        await asyncio.sleep(0.01)


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


@wrong("05.4", "at the same moment, only one adds the record")
async def looks_then_adds_and_notes_in_one_step(redis: Any, stream: str, body: str, key: str) -> Any:
    for id, fields in await redis.xrange(stream):
        if fields["key"] == key:
            return id
    await asyncio.sleep(0.05)
    return await redis.xadd(stream, {"body": body, "key": key})


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
