"""Lesson 07: other answers that are right. What is defensible must not be refused."""

import asyncio
import contextlib
import itertools
import json
import secrets
import struct
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import WatchError

from tests.lab.exercises.answers import RightAnswers, right_in
from tests.lab.exercises.wrong_answers.lesson07 import number, receipt, store, talk

RIGHT: RightAnswers = {}
right = right_in(RIGHT)

# --- 07.0 ---


@right("07.0")
def with_slices(octets: bytes) -> str | None:
    if octets[:5] != bytes([0xAC, 0xED, 0, 5]) + b"t":
        return None
    return str(octets[7 : 7 + octets[5] * 256 + octets[6]], "utf-8")


@right("07.0")
def with_struct(octets: bytes) -> str | None:
    try:
        magic, version, kind, length = struct.unpack(">HHcH", octets[:7])
    except struct.error:
        return None
    return octets[7:][:length].decode() if (magic, version, kind) == (0xACED, 5, b"t") else None


@right("07.0")
def without_the_length(octets: bytes) -> str | None:
    return octets[7:].decode() if octets[:5] == b"\xac\xed\x00\x05t" else None


# --- 07.1 ---

Shown = dict[str, list[str]]
Found = tuple[set[str], set[str], bool]


@right("07.1")
def with_counters(promised: list[str], shown: Shown) -> Found:
    counts = [Counter(texts) for texts in shown.values()]
    lost = {text for text in promised for count in counts if not count[text]}
    repeated = {text for count in counts for text, times in count.items() if times > 1}
    orders = [[*dict.fromkeys(texts)] for texts in shown.values()]
    agree = all(
        [text for text in one if text in other] == [text for text in other if text in one]
        for one, other in itertools.combinations(orders, 2)
    )
    return lost, repeated, agree


@right("07.1")
def with_positions(promised: list[str], shown: Shown) -> Found:
    lost, repeated, agree = set[str](), set[str](), True
    for texts in shown.values():
        lost |= set(promised) - set(texts)
        repeated |= {text for text in texts if texts.count(text) > 1}
        for others in shown.values():
            common = [text for text in texts if text in others]
            places = [others.index(text) for text in dict.fromkeys(common)]
            agree = agree and places == sorted(places)
    return lost, repeated, agree


@right("07.1")
def with_pairs(promised: list[str], shown: Shown) -> Found:
    lists = list(shown.values())
    before = [set(itertools.combinations(dict.fromkeys(texts), 2)) for texts in lists]
    against = any((b, a) in other for one in before for other in before for a, b in one)
    lost = {text for text in promised if not all(text in texts for texts in lists)}
    return lost, {text for texts in lists for text in set(texts) if texts.count(text) > 1}, not against


# --- 07.2 ---

Send = Callable[[str, str], Awaitable[None]]


@right("07.2")
async def with_wait_for(send: Send, text: str) -> None:
    client_id = str(uuid.uuid4())
    while True:
        try:
            await asyncio.wait_for(send(text, client_id), 0.5)
            break
        except (ConnectionError, TimeoutError):
            await asyncio.sleep(0.05)


@right("07.2")
async def with_a_growing_pause(send: Send, text: str) -> None:
    client_id, pause = secrets.token_hex(8), 0.05
    while True:
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(0.5):
                return await send(text, client_id)
        await asyncio.sleep(pause)
        pause = min(2 * pause, 0.5)


@right("07.2")
async def by_calling_itself(send: Send, text: str) -> None:
    async def once_more(client_id: str) -> None:
        try:
            async with asyncio.timeout(0.5):
                await send(text, client_id)
        except (ConnectionError, TimeoutError):
            await asyncio.sleep(0.1)
            await once_more(client_id)

    await once_more(uuid.uuid4().hex)


# --- 07.3 ---

History = Callable[[str], Awaitable[list[tuple[str, str]]]]
Live = Callable[[], Awaitable["asyncio.Queue[tuple[str, str]]"]]
Show = Callable[[str], None]


@right("07.3")
async def with_a_set_of_ids(history: History, live: Live, last: str, show: Show) -> None:
    news, seen = await live(), {last}
    for id, text in await history(last):
        seen.add(id)
        show(text)
    while True:
        id, text = await news.get()
        if id not in seen:
            seen.add(id)
            show(text)


@right("07.3")
async def with_the_ids_of_history(history: History, live: Live, last: str, show: Show) -> None:
    news = await live()
    missed = dict(await history(last))
    for text in missed.values():
        show(text)
    while True:
        id, text = await news.get()
        if id not in missed:
            show(text)


@right("07.3")
async def with_one_loop(history: History, live: Live, last: str, show: Show) -> None:
    news = await live()
    waiting = list(await history(last))
    while True:
        id, text = waiting.pop(0) if waiting else await news.get()
        if number(id) > number(last):
            show(text)
            last = id


# --- 07.4 ---


@right("07.4")
async def with_a_fixed_pause(redis: Any, stream: str, last: str, show: Show) -> None:
    while True:
        try:
            for _, records in await redis.xread({stream: last}, block=0):
                for id, fields in records:
                    show(fields["text"])
                    last = id
        except RedisConnectionError:
            await asyncio.sleep(0.1)


@right("07.4")
async def with_xrange(redis: Any, stream: str, last: str, show: Show) -> None:
    while True:
        with contextlib.suppress(RedisConnectionError):
            for id, fields in await redis.xrange(stream, min=f"({last}"):
                show(fields["text"])
                last = id
        await asyncio.sleep(0.05)


@right("07.4")
async def one_record_at_a_time(redis: Any, stream: str, last: str, show: Show) -> None:
    while True:
        try:
            found = await redis.xread({stream: last}, count=1, block=500)
        except RedisConnectionError:
            await asyncio.sleep(0.2)
        else:
            for _, [(id, fields)] in found:
                show(fields["text"])
                last = id


# --- 07.5 ---


async def store_with_watch(redis: Any, stream: str, said: dict[str, str]) -> None:
    key = f"{stream}:{said['client_id']}"
    async with redis.pipeline(transaction=True) as together:
        while True:
            try:
                await together.watch(key)
                if await together.get(key):
                    return
                together.multi()
                together.xadd(stream, {"text": said["text"]})
                together.set(key, 1, ex=600)
                await together.execute()
                return
            except WatchError:
                continue


@right("07.5")
async def with_watch(socket: Any, redis: Any, stream: str, after: str) -> None:
    await talk(socket, redis, stream, after, store_with_watch)


async def store_or_lose_the_race(redis: Any, stream: str, said: dict[str, str]) -> None:
    key = f"{stream}:{said['client_id']}"
    async with redis.pipeline(transaction=True) as together:
        await together.watch(key)
        if not await together.get(key):
            together.multi()
            together.xadd(stream, {"text": said["text"]})
            together.set(key, 1, ex=600)
            await together.execute()  # raises WatchError: the connection ends, and the member comes back


@right("07.5")
async def with_watch_and_no_loop(socket: Any, redis: Any, stream: str, after: str) -> None:
    await talk(socket, redis, stream, after, store_or_lose_the_race)


async def store_until_it_is(redis: Any, stream: str, said: dict[str, str]) -> None:
    while True:
        try:
            return await store(redis, stream, said)
        except RedisConnectionError:
            await asyncio.sleep(0.05)


@right("07.5")
async def tries_again_by_itself(socket: Any, redis: Any, stream: str, after: str) -> None:
    async def show_through_outages() -> None:
        last = after
        while True:
            try:
                for _, records in await redis.xread({stream: last}, block=500):
                    for last, fields in records:
                        if "text" in fields:
                            await socket.send(json.dumps({"id": last, "text": fields["text"]}))
            except RedisConnectionError:
                await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(show_through_outages())
        async for message in socket:
            said = json.loads(message)
            await store_until_it_is(redis, stream, said)
            await receipt(socket, said)
        task.cancel()


FIND_OR_ADD = """
for _, record in ipairs(redis.call('XREVRANGE', KEYS[1], '+', '-')) do
    if record[2][4] == ARGV[1] then return record[1] end
end
return redis.call('XADD', KEYS[1], '*', 'text', ARGV[2], 'client_id', ARGV[1])
"""


async def find_or_add(redis: Any, stream: str, said: dict[str, str]) -> None:
    await redis.eval(FIND_OR_ADD, 1, stream, said["client_id"], said["text"])


@right("07.5")
async def keeps_the_id_in_the_record(socket: Any, redis: Any, stream: str, after: str) -> None:
    await talk(socket, redis, stream, after, find_or_add)
