"""Functions become a program: a process of its own that serves, reads a broker, is killed, and starts again."""

from typing import Any

import pytest
from websockets.asyncio.client import connect

from chatlab.brokers.redis.streams import RedisStreamsBroker
from chatlab.errors import SetupError
from chatlab.lab.engines.engine import Engine
from chatlab.lab.experiments.lesson04 import fresh
from chatlab.lab.experiments.processes.program import Program
from chatlab.lab.until import until
from tests.support.processes import wait_until_ended


async def shout(text: str) -> str:
    return text.upper()


async def answer(session: Any) -> None:
    async for text in session:
        await session.send(await shout(text))


async def print_all(broker: Any) -> None:
    async for message in await broker.subscribe("program-test"):
        print(message.body.decode(), flush=True)


async def enqueue(session: Any, waiting: Any) -> None:
    async for text in session:
        waiting.put_nowait(text)


async def work_off(waiting: Any) -> None:
    while True:
        print("done", await waiting.get(), flush=True)


async def fails_at_once(broker: Any) -> None:
    raise ValueError("no such thing")


async def test_a_handler_serves_with_its_helper_and_serves_again_after_a_kill(redis_engine: Engine) -> None:
    async with Program(redis_engine.url, shout, answer) as program:
        for pid in (program.pid, None):
            async with connect(program.url, proxy=None) as client:
                await client.send("hello")
                assert await client.recv() == "HELLO"
            assert pid is None or program.pid == pid
            program.kill()
            assert program.pid is None
            await program.restart()


async def test_a_program_that_is_ready_reads_what_is_published_from_then_on(redis_engine: Engine) -> None:
    async with RedisStreamsBroker(redis_engine.url) as broker, Program(redis_engine.url, print_all) as program:
        await broker.publish("program-test", "안녕 👋".encode())
        await until(lambda: "안녕 👋" in program.printed)


async def test_functions_share_one_queue(redis_engine: Engine) -> None:
    async with Program(redis_engine.url, enqueue, work_off) as program, connect(program.url, proxy=None) as client:
        await client.send("a picture")
        await until(lambda: "done a picture" in program.printed)


async def test_a_program_ends_when_it_is_closed(redis_engine: Engine) -> None:
    async with Program(redis_engine.url, answer) as program:
        pid = program.pid
    assert pid is not None
    wait_until_ended(pid)


async def test_a_function_that_fails_at_once_is_reported_with_its_error(redis_engine: Engine) -> None:
    with pytest.raises(SetupError, match="ValueError: no such thing"):
        async with Program(redis_engine.url, fails_at_once):
            pass


def test_two_topics_never_have_the_same_name() -> None:
    assert fresh("room").startswith("room-")
    assert fresh("room") != fresh("room")
