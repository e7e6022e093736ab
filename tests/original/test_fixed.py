"""The article's program with its faults fixed in Spring: two instances, one Redis, and a kill of each."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from chatlab.clients.stomp import ClientSubscription, StompClient
from chatlab.errors import MessageRefused, StompError
from chatlab.lab.engines.engine import Engine
from chatlab.lab.experiments import lesson07
from chatlab.lab.until import until
from tests.support import original, redis_servers
from tests.support.raw_member import RawMember

pytestmark = pytest.mark.long

MEMBERS, MESSAGES = 6, 60
EACH = 100  # texts of each sender in the room; the queue of a member has room for all of them


@dataclass
class Member:
    """A client of the fixed program, which asks for what it has missed: the simple broker keeps nothing."""

    name: str
    url: str
    seen: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    confirmed: set[str] = field(default_factory=set)
    connections: int = 0
    client: StompClient | None = None
    last: str = "0-0"

    async def stay(self) -> None:
        """Read, and connect again whenever the connection ends."""
        while True:
            with suppress(ConnectionError, TimeoutError, StompError):
                async with StompClient(self.url, login=self.name, reconnect=False, proxy=None) as client:
                    live = await client.subscribe("/topic/public")
                    missed = await client.subscribe(f"/app/chat.after.{self.last}")
                    self.client, self.connections = client, self.connections + 1
                    for message in json.loads((await anext(missed)).body):
                        self._take(message)
                    await self._follow(live)
            self.client = None
            await asyncio.sleep(0.05)

    async def _follow(self, live: ClientSubscription) -> None:
        async for message in live:
            body = json.loads(message.body)
            if parts(body["id"]) > parts(self.last):  # else it was among what had been missed
                self._take(body)

    def _take(self, message: dict[str, str]) -> None:
        self.last = message["id"]
        self.seen.append(message["id"])
        self.texts.append(message["content"])

    async def write(self) -> None:
        """Send each text under one client_id until it is confirmed."""
        for number in range(MESSAGES):
            client_id = f"{self.name}-{number}"
            while client_id not in self.confirmed:
                with suppress(ConnectionError, TimeoutError, StompError, MessageRefused):
                    async with asyncio.timeout(3):
                        if self.client is not None:
                            body = json.dumps({"client_id": client_id, "content": client_id})
                            await self.client.send("/app/chat.sendMessage", body)
                            self.confirmed.add(client_id)
                            break
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.05)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def redis_of_program() -> AsyncIterator[Engine]:
    """The Redis of `program`."""
    async with await redis_servers.start(redis_servers.WHEEL) as redis:
        yield redis


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def program(redis_of_program: Engine) -> AsyncIterator[Engine]:
    """The fixed program on a Redis of its own."""
    async with await original.start("fixed", redis_of_program.url) as running:
        yield running


@pytest.mark.asyncio(loop_scope="module")
async def test_a_message_sent_twice_under_one_client_id_is_stored_and_shown_once(program: Engine) -> None:
    async with StompClient(original.stomp_url(program), login="ana", reconnect=False, proxy=None) as client:
        live = await client.subscribe("/topic/public")
        for client_id in ("a", "a", "b"):
            await client.send("/app/chat.sendMessage", json.dumps({"client_id": client_id, "content": client_id}))
        contents = [json.loads((await anext(live)).body)["content"] for _ in range(2)]
        missed = await client.subscribe("/app/chat.after.0-0")
        assert [each["content"] for each in json.loads((await anext(missed)).body)] == contents == ["a", "b"]


@pytest.mark.asyncio(loop_scope="module")
async def test_mistakes_are_answered_with_error(program: Engine) -> None:
    answers = await lesson07.answers_to_mistakes(original.stomp_url(program))
    assert set(answers.values()) == {"ERROR"}, answers


@pytest.mark.asyncio(loop_scope="module")
async def test_a_foreign_record_costs_no_other(program: Engine, redis_of_program: Engine) -> None:
    async with Redis.from_url(redis_of_program.url) as redis:
        reader = await lesson07.member(original.stomp_url(program), "ben")

        def record(text: str) -> dict[str, str]:
            return {"client_id": text, "content": text}

        assert await lesson07.shown_beside_a_foreign_record(redis, reader, record) == 9
        assert "null" not in " ".join(lesson07.bodies(reader))
        await reader.close()


@pytest.mark.asyncio(loop_scope="module")
async def test_the_room_refuses_a_page_of_another_origin(program: Engine) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(original.room_url(program), origin=Origin("https://elsewhere.example"), proxy=None)
    assert refused.value.response.status_code == 403


@pytest.mark.asyncio(loop_scope="module")
async def test_eight_senders_at_once_are_received_by_all_in_one_order_past_a_member_that_does_not_read(
    program: Engine,
) -> None:
    async with AsyncExitStack() as running:
        members = [await running.enter_async_context(connect(original.room_url(program), proxy=None)) for _ in range(8)]
        stalled = await RawMember.join(original.room_url(program), receive_buffer=4096)
        padding = "x" * 2000
        received = [asyncio.create_task(first(member, 8 * EACH)) for member in members]
        await asyncio.gather(*(say(member, number, padding) for number, member in enumerate(members)))
        async with asyncio.timeout(30):
            orders = await asyncio.gather(*received)
        assert all(order == orders[0] for order in orders)
        assert sorted(orders[0]) == sorted(f"Server received: {n}-{k} {padding}" for n in range(8) for k in range(EACH))
        stalled.vanish()


async def first(member: ClientConnection, count: int) -> list[str]:
    return [str(await member.recv()) for _ in range(count)]


async def say(member: ClientConnection, number: int, padding: str) -> None:
    for k in range(EACH):
        await member.send(f"{number}-{k} {padding}")


def parts(id: str) -> tuple[int, int]:
    time, _, number = id.partition("-")
    return int(time), int(number)


@pytest.mark.timeout(240)
async def test_nothing_is_lost_or_repeated_through_two_instances_and_a_kill_of_each_part(fresh_valkey: Engine) -> None:
    async with AsyncExitStack() as running:
        programs = [await running.enter_async_context(await original.start("fixed", fresh_valkey.url)) for _ in "12"]
        members = [Member(f"m{n}", original.stomp_url(programs[n % 2])) for n in range(MEMBERS)]
        staying = [asyncio.create_task(member.stay()) for member in members]
        await until(lambda: all(member.connections for member in members), timeout=30)
        writing = [asyncio.create_task(member.write()) for member in members]
        await until(lambda: len(members[0].seen) > 30, timeout=30)
        programs[0].kill()
        await programs[0].restart()
        await until(lambda: all(member.connections > 1 for member in members[::2]), timeout=30)
        fresh_valkey.kill()
        await fresh_valkey.restart()
        await asyncio.gather(*writing)
        async with Redis.from_url(fresh_valkey.url, decode_responses=True) as redis:
            stored: Any = await redis.xrange("chat-stream")
        with suppress(TimeoutError):
            await until(lambda: all(len(member.seen) >= len(stored) for member in members), timeout=20)
        for task in staying:
            task.cancel()
        await asyncio.wait(staying)
    client_ids = Counter(fields["client_id"] for _, fields in stored)
    assert client_ids == Counter(itertools.chain.from_iterable(member.confirmed for member in members))
    assert client_ids.total() == MEMBERS * MESSAGES
    for member in members:
        assert member.seen == [id for id, _ in stored], member.name
