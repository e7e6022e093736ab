"""Lesson 07: other answers that are right. What is defensible must not be refused."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import WatchError

from chatlab.lab.exercises.exercise import check
from tests.lab.exercises.wrong_answers.lesson07 import receipt, store, talk


@pytest.fixture(autouse=True)
def own_home(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATLAB_HOME", str(tmp_path))


RIGHT: dict[str, list[Callable[..., Any]]] = {}


def right(id: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def add(answer: Callable[..., Any]) -> Callable[..., Any]:
        RIGHT.setdefault(id, []).append(answer)
        return answer

    return add


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


CASES = [(id, answer) for id, answers in RIGHT.items() for answer in answers]


@pytest.mark.long
@pytest.mark.parametrize(("id", "answer"), CASES, ids=lambda each: getattr(each, "__name__", each))
async def test_it_is_right(id: str, answer: Callable[..., Any]) -> None:
    outcome = await check(id, answer)
    assert outcome.mark == "right", outcome


@pytest.mark.parametrize("id", sorted(RIGHT))
def test_each_exercise_has_three_other_right_answers(id: str) -> None:
    assert len(RIGHT[id]) >= 3
