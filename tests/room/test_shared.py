"""One room on two servers, over a broker: in memory, and on a real Redis that is killed and restarted."""

import asyncio
import inspect
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from chatlab import room
from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.brokers.redis.pubsub import RedisPubSubBroker
from chatlab.brokers.redis.streams import RedisStreamsBroker
from chatlab.errors import SubscriptionLost
from chatlab.lab.clients import RoomClient
from chatlab.lab.engines.engine import Engine
from chatlab.limits import RateLimit
from chatlab.room import shared as shared_room
from chatlab.room.server import RoomServer


async def member(stack: AsyncExitStack, server: RoomServer, name: str) -> RoomClient:
    client = RoomClient(server.url, name)
    await client.connect()
    stack.push_async_callback(client.close)
    return client


@pytest_asyncio.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


def test_a_shared_room_takes_every_option_of_a_room_but_its_kind() -> None:
    options = dict(inspect.signature(room.start).parameters)
    del options["room"]
    assert list(shared_room.RoomOptions.__annotations__) == list(options)


async def test_a_text_reaches_the_members_of_both_servers_once_in_one_order(stack: AsyncExitStack) -> None:
    broker = await stack.enter_async_context(MemoryBroker())
    one = await stack.enter_async_context(await shared_room.start(broker))
    two = await stack.enter_async_context(await shared_room.start(broker))
    garam, nuri = await member(stack, one, "가람"), await member(stack, two, "Nuri")
    for number in range(50):
        await (garam if number % 2 else nuri).send(f"#{number}")
    for client in (garam, nuri):
        await client.until(lambda client=client: sum("#" in text for text in client.received) == 50)  # type: ignore[misc]  # mypy does not infer the default
    assert [t for t in garam.received if "#" in t] == [t for t in nuri.received if "#" in t]
    assert "Server received from Nuri: #0" in garam.received


async def test_servers_on_different_brokers_do_not_share_messages(stack: AsyncExitStack) -> None:
    servers = []
    for _ in range(2):
        broker = await stack.enter_async_context(MemoryBroker())
        servers.append(await stack.enter_async_context(await shared_room.start(broker)))
    garam, nuri = await member(stack, servers[0], "가람"), await member(stack, servers[1], "Nuri")
    await garam.send("들려요?")
    await nuri.send("나만 들려요")
    await garam.heard("들려요?")
    await nuri.heard("나만 들려요")
    assert not any("들려요?" in text for text in nuri.received)


async def test_the_shared_room_recovers_after_redis_is_killed(stack: AsyncExitStack, fresh_redis: Engine) -> None:
    brokers = [await stack.enter_async_context(RedisStreamsBroker(fresh_redis.url)) for _ in range(2)]
    one, two = [await stack.enter_async_context(await shared_room.start(broker)) for broker in brokers]
    garam, nuri = await member(stack, one, "가람"), await member(stack, two, "Nuri")
    await garam.send("전")
    await nuri.heard("Server received from 가람: 전")
    fresh_redis.kill()
    await fresh_redis.restart()
    await garam.send("후")
    await nuri.heard("Server received from 가람: 후", timeout=15)


@pytest.mark.long
async def test_members_are_notified_of_possible_loss_on_an_engine_without_history(
    stack: AsyncExitStack, fresh_redis: Engine
) -> None:
    broker = await stack.enter_async_context(RedisPubSubBroker(fresh_redis.url))
    server = await stack.enter_async_context(await shared_room.start(broker))
    garam = await member(stack, server, "가람")
    fresh_redis.kill()
    await garam.heard("* the other servers cannot be reached now", timeout=15)
    await garam.send("아무도 없어요?")
    await garam.heard("! not sent: the broker does not answer", timeout=15)
    await fresh_redis.restart()
    await garam.heard("* the other servers are reachable again; messages sent meanwhile may be missing", timeout=15)
    await garam.send("다시")
    await garam.heard("Server received from 가람: 다시")


async def test_a_text_the_broker_may_have_stored_is_reported_as_not_confirmed(
    stack: AsyncExitStack, fresh_redis: Engine
) -> None:
    broker = await stack.enter_async_context(RedisStreamsBroker(fresh_redis.url, patience=0.5))
    server = await stack.enter_async_context(await shared_room.start(broker))
    garam = await member(stack, server, "가람")
    assert fresh_redis.pid is not None
    os.kill(fresh_redis.pid, signal.SIGSTOP)
    try:
        await garam.send("들려요?")
        await garam.heard("! not confirmed: the broker does not answer; it may still be delivered", timeout=15)
    finally:
        os.kill(fresh_redis.pid, signal.SIGCONT)


class Interrupted(MemoryBroker):
    """A broker whose subscriptions can be ended as by an engine, and not renewed until `back` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[Any] = []
        self.back = asyncio.Event()
        self.back.set()

    async def subscribe(self, topic: str, *, after: str | None = None) -> Any:
        await self.back.wait()
        self.opened.append(await super().subscribe(topic, after=after))
        return self.opened[-1]

    def interrupt(self, error: SubscriptionLost) -> None:
        self.back.clear()
        self.opened[-1].end(error)


async def test_texts_missed_while_a_subscription_was_lost_are_delivered_from_history(
    stack: AsyncExitStack,
) -> None:
    broker = await stack.enter_async_context(Interrupted())
    garam = await member(stack, await stack.enter_async_context(await shared_room.start(broker)), "가람")
    await garam.send("하나")
    await garam.heard("하나")
    broker.interrupt(SubscriptionLost("the engine ended it"))
    await garam.heard("* the other servers cannot be reached now")
    await broker.publish("room", b"two")
    broker.back.set()
    await garam.heard("two")
    again = [text for text in garam.received if "reachable again" in text]
    assert again == ["* the other servers are reachable again (1 here)"]
    assert sum("하나" in text for text in garam.received) == 1


async def test_members_are_notified_when_records_were_deleted(stack: AsyncExitStack) -> None:
    broker = await stack.enter_async_context(Interrupted())
    garam = await member(stack, await stack.enter_async_context(await shared_room.start(broker)), "가람")
    await garam.send("하나")
    await garam.heard("하나")
    resume = await broker.publish("room", b"two")
    await garam.heard("two")
    broker.interrupt(SubscriptionLost("trimmed", resume=resume))
    broker.back.set()
    await garam.heard("* the other servers are reachable again; messages sent meanwhile may be missing")
    await broker.publish("room", b"three")
    await garam.heard("three")


async def test_a_record_that_is_not_text_does_not_stop_the_reader(stack: AsyncExitStack) -> None:
    broker = await stack.enter_async_context(MemoryBroker())
    garam = await member(stack, await stack.enter_async_context(await shared_room.start(broker)), "가람")
    await broker.publish("room", b"caf\xe9")
    await broker.publish("room", b"next")
    await garam.heard("caf\ufffd")
    await garam.heard("next")


async def test_a_shared_room_enforces_the_rate_limit(stack: AsyncExitStack) -> None:
    broker = await stack.enter_async_context(MemoryBroker())
    server = await stack.enter_async_context(await shared_room.start(broker, rate=RateLimit(per_second=1, burst=2)))
    garam = await member(stack, server, "가람")
    for _ in range(3):
        await garam.send("말 많음")
    await garam.heard("! not sent: more than 1 messages a second")


async def test_starting_a_shared_room_fails_if_the_broker_cannot_be_read() -> None:
    broker = MemoryBroker()
    await broker.start()
    await broker.aclose()
    with pytest.raises(Exception, match="clos"):
        await shared_room.start(broker)
