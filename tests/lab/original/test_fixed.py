"""The cures in Spring: while an instance and Redis are killed once each, nothing is lost and nothing comes twice."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
from redis.asyncio import Redis
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from chatlab.errors import EngineMissing
from chatlab.lab.engines import engine as engines
from chatlab.lab.engines.engine import Engine
from chatlab.lab.original.cases import CONNECT
from chatlab.lab.original.client import Client
from chatlab.lab.original.rooms import filled
from chatlab.stomp.frames import Frame, Heartbeat, Parser
from tests.support import require

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

TEXTS = 25  # of each member
RESEND_SECONDS = 3.0


async def spring(redis: Engine, **options: str) -> Engine:
    try:
        return await engines.start("spring", options={"profile": "fixed", "redis": redis.url, **options})
    except EngineMissing as absent:
        require.missing("spring", absent.remedy)


class Member:
    """A client that stays with one instance: it comes back with the last id it saw, and repeats what it did not see."""

    def __init__(self, name: str, url: str) -> None:
        self.name, self.url = name, url
        self.seen: list[tuple[str, str]] = []  # (id, client id), as shown
        self.mine = {f"{name}-{number}": asyncio.Event() for number in range(TEXTS)}
        self._connection: ClientConnection | None = None
        self._waiting: list[Any] | None = None  # what came on the topic before the history did

    async def stay(self) -> None:
        """Connect, read until the connection is lost, and again."""
        while True:
            try:
                async with connect(self.url, compression=None, proxy=None) as connection:
                    await self._read(connection)
            except (OSError, ConnectionClosed, InvalidHandshake):
                self._connection = None
                await asyncio.sleep(0.2)

    async def _read(self, connection: ClientConnection) -> None:
        parser, self._waiting = Parser(version="1.2"), []
        await connection.send(CONNECT)
        last = self.seen[-1][0] if self.seen else "0-0"
        await connection.send("SUBSCRIBE\nid:live\ndestination:/topic/public\n\n\0")
        await connection.send(f"SUBSCRIBE\nid:history\ndestination:/app/chat.after.{last}\n\n\0")
        self._connection = connection
        async for text in connection:
            for frame in parser.feed(str(text).encode()):
                if not isinstance(frame, Heartbeat) and frame.command == "MESSAGE":
                    self._show(frame)

    def _show(self, frame: Frame) -> None:
        body = json.loads(frame.body)
        if frame.get("subscription") == "history":
            waiting, self._waiting = self._waiting or [], None
            known = {each["id"] for each in body}
            messages = [*body, *(each for each in waiting if each["id"] not in known)]
        elif self._waiting is not None:
            self._waiting.append(body)
            return
        else:
            messages = [body]
        for each in messages:
            self.seen.append((each["id"], each["clientId"]))
            if (mine := self.mine.get(each["clientId"])) is not None:
                mine.set()

    async def talk(self) -> None:
        """Send each text until it is shown here, always under the same id."""
        for client_id, shown in self.mine.items():
            while not shown.is_set():
                body = json.dumps({"clientId": client_id, "content": client_id})
                if self._connection is not None:
                    with suppress(ConnectionClosed):
                        await self._connection.send(f"SEND\ndestination:/app/chat.sendMessage\n\n{body}\0")
                try:
                    async with asyncio.timeout(RESEND_SECONDS):
                        await shown.wait()
                except TimeoutError:
                    continue
            await asyncio.sleep(0.1)


async def kill_each_once(instance: Engine, redis: Engine) -> None:
    await asyncio.sleep(1.0)
    instance.kill()
    await instance.restart()
    await asyncio.sleep(1.0)
    redis.kill()
    await redis.restart()


async def stored(redis: Engine) -> list[tuple[str, str]]:
    client: Any = Redis.from_url(redis.url)
    try:
        return [(id.decode(), fields[b"clientId"].decode()) for id, fields in await client.xrange("chat-stream")]
    finally:
        await client.aclose()


async def test_nothing_is_lost_and_nothing_comes_twice_while_an_instance_and_redis_are_killed(
    fresh_redis_on_path: Engine,
) -> None:
    redis = fresh_redis_on_path
    async with AsyncExitStack() as stack:
        instances = [
            await stack.enter_async_context(each) for each in await asyncio.gather(spring(redis), spring(redis))
        ]
        urls = [each.url.replace("http://", "ws://") + "/ws/websocket" for each in instances]
        members = [Member(f"m{number}", urls[number % 2]) for number in range(4)]
        staying = [asyncio.create_task(each.stay()) for each in members]
        await asyncio.gather(kill_each_once(instances[0], redis), *(each.talk() for each in members))
        stream = await stored(redis)
        async with asyncio.timeout(20):
            while any(len(each.seen) < len(stream) for each in members):  # noqa: ASYNC110  # a figure, not an event
                await asyncio.sleep(0.1)
        for task in staying:
            task.cancel()
        await asyncio.wait(staying)
        assert [each.seen for each in members] == [stream] * 4, "all of it, in one order, each once"
        sent = sorted(client_id for each in members for client_id in each.mine)
        assert sorted(client_id for _, client_id in stream) == sent, "stored once, however often it was sent"


async def test_the_raw_handler_outlives_many_senders_and_a_member_that_does_not_read(
    fresh_redis_on_path: Engine,
) -> None:
    async with await spring(fresh_redis_on_path) as instance, AsyncExitStack() as stack:
        url = instance.url.replace("http://", "ws://") + "/room"
        clients = [await stack.enter_async_context(Client(url)) for _ in range(8)]
        await asyncio.gather(*(client.send(f"{number}") for client in clients for number in range(20)))
        assert [len(await client.until(160)) for client in clients] == [160] * 8, "all of everybody's, nobody closed"
        _, sender = await filled(url, stack)
        await sender.send("and now?")
        assert (await clients[0].until(len(clients[0].texts) + 1))[-1] == "Server received: and now?"
        with pytest.raises(InvalidStatus):
            await connect(url, origin="https://evil.example", proxy=None)  # type: ignore[arg-type]  # any str is one
