"""Presence costs the watchers of a room little, however often and however many people join and leave."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack

import pytest
from redis.asyncio import Redis

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.brokers.port import Broker
from chatlab.brokers.redis.streams import RedisStreamsBroker
from chatlab.chat.app import User
from chatlab.chat.delivery import presence, presence_notes
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint.server import ChatServer
from chatlab.lab.engines.engine import Engine
from chatlab.lab.until import until
from tests.support.stomp_peer import Peer
from tests.support.who_list import WhoList, who_list

WATCHERS = 150
CHANGE_OCTETS = 400  # octets of a MESSAGE about one person, at most
SECOND = presence.LOOK_SECONDS


@pytest.fixture(params=["memory", "redis"])
async def brokers(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Broker, Broker]]:
    """Yield the brokers of two instances."""
    if request.param == "memory":
        async with MemoryBroker() as broker:
            yield broker, broker
    else:
        engine: Engine = request.getfixturevalue("redis_on_path")
        await _clear(engine)
        async with RedisStreamsBroker(engine.url) as one, RedisStreamsBroker(engine.url) as other:
            yield one, other


async def _clear(engine: Engine) -> None:
    async with Redis.from_url(engine.url) as redis:
        await redis.flushall()


@pytest.fixture
async def servers(brokers: tuple[Broker, Broker]) -> AsyncIterator[tuple[ChatServer, ChatServer]]:
    async with await chat_server.start(brokers[0]) as one, await chat_server.start(brokers[1]) as other:
        yield one, other


class Watcher:
    """A client that watches who is in a room, and counts what it receives."""

    def __init__(self, url: str, name: str) -> None:
        self.peer = Peer(url, name)
        self.octets = self.lists = self.messages = 0

    async def watch(self, room: str, *, member: bool = True) -> asyncio.Task[None]:
        if member:
            await self.peer.subscribe(f"/topic/room.{room}", id="1")
        await self.peer.subscribe(f"/topic/who.{room}", id="who")
        return asyncio.create_task(self._count())

    async def _count(self) -> None:
        async for data in self.peer.websocket:
            octets = data.encode() if isinstance(data, str) else data
            self.octets += len(octets)
            self.messages += octets.count(b"MESSAGE\n")
            self.lists += octets.count(b'"people":[')


async def crowd(stack: AsyncExitStack, url: str, count: int, room: str) -> list[Watcher]:
    """Connect `count` watchers, each with a long name."""
    watchers = [Watcher(url, "n" * 60 + str(number)) for number in range(count)]
    for watcher in watchers:
        await stack.enter_async_context(watcher.peer)
        stack.callback((await watcher.watch(room)).cancel)
    return watchers


@pytest.mark.long
@pytest.mark.parametrize("where", ["the same instance", "the other instance"])
async def test_a_client_joining_and_leaving_in_a_loop_costs_each_watcher_one_small_change_a_second(
    servers: tuple[ChatServer, ChatServer], where: str
) -> None:
    room, at = "flapped", servers[0] if where == "the same instance" else servers[1]
    async with AsyncExitStack() as stack:
        watchers = await crowd(stack, servers[0].url, WATCHERS, room)
        flapper = await stack.enter_async_context(Peer(at.url, "flapper"))
        await asyncio.sleep(3 * SECOND)  # until the crowd has been announced
        before, since = sum(each.octets for each in watchers), time.monotonic()
        for _ in range(20):
            await flapper.receipt("SUBSCRIBE", id="1", destination=f"/topic/room.{room}")
            await asyncio.sleep(0.15)
            await flapper.receipt("UNSUBSCRIBE", id="1")
            await asyncio.sleep(0.15)
        seconds = (time.monotonic() - since) / SECOND + 1
        assert sum(each.octets for each in watchers) - before <= WATCHERS * seconds * CHANGE_OCTETS


@pytest.mark.long
async def test_a_client_that_joins_and_leaves_within_a_second_is_not_announced(
    servers: tuple[ChatServer, ChatServer],
) -> None:
    async with Peer(servers[0].url) as here, Peer(servers[1].url) as there, Peer(servers[0].url, "flapper") as flapper:
        lists = [await who_list(here, "cats"), await who_list(there, "cats")]
        assert [await each.next() for each in lists] == [[], []]
        for _ in range(5):
            await flapper.subscribe("/topic/room.cats", id="1")
            await asyncio.sleep(0.1 * SECOND)
            await flapper.receipt("UNSUBSCRIBE", id="1")
            await asyncio.sleep(1.2 * SECOND)
        await here.nothing_more()
        await there.nothing_more()


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_a_thousand_arrivals_cost_each_watcher_one_list_and_a_few_changes(
    servers: tuple[ChatServer, ChatServer],
) -> None:
    room = "arrivals"
    async with AsyncExitStack() as stack:
        watchers = await crowd(stack, servers[0].url, 20, room)
        await asyncio.sleep(2 * SECOND)
        for each in watchers:
            each.octets = each.messages = 0
        since = time.monotonic()
        for number in range(1000):  # what a subscription calls, on both instances
            servers[number % 2].service.presence.enter(room, User(f"{number:04}" * 15, f"p-{number}"))
            if number % 100 == 0:
                await asyncio.sleep(0.1)
        async with Peer(servers[0].url) as late:
            await asyncio.sleep(3 * SECOND)
            await late.subscribe(f"/topic/who.{room}", id="who")
            body = json.loads((await late.frame("MESSAGE")).body)
            assert body["count"] == 1020
            assert len(body["people"]) == presence.MAX_SHOWN
        seconds = (time.monotonic() - since) / SECOND + 1
        for each in watchers:
            assert each.messages <= 2 * seconds
            assert each.octets <= each.messages * presence.MAX_ANNOUNCED * CHANGE_OCTETS
            assert each.lists <= 1


async def test_many_arrivals_at_once_are_announced_as_a_count_and_when_to_ask_again(
    servers: tuple[ChatServer, ChatServer],
) -> None:
    async with Peer(servers[0].url) as watcher:
        await watcher.subscribe("/topic/who.cats", id="who")
        assert json.loads((await watcher.frame("MESSAGE")).body)["people"] == []
        for number in range(presence.MAX_ANNOUNCED + 1):
            servers[0].service.presence.enter("cats", User(str(number), f"p-{number}"))
        body = json.loads((await watcher.frame("MESSAGE")).body)
        assert body == {"room": "cats", "version": 2, "count": presence.MAX_ANNOUNCED + 1, "again": 2.0}
        await watcher.receipt("UNSUBSCRIBE", id="who")
        await watcher.subscribe("/topic/who.cats", id="who")
        body = json.loads((await watcher.frame("MESSAGE")).body)
        assert body["version"] == 2 or body["version"] == 1  # the version starts over if nobody watched in between
        assert len(body["people"]) == presence.MAX_ANNOUNCED + 1


async def test_asking_for_the_list_in_a_loop_returns_one_list_a_second(servers: tuple[ChatServer, ChatServer]) -> None:
    for number in range(200):
        servers[0].service.presence.enter("cats", User("n" * 60 + str(number), f"p-{number}"))
    asker = Watcher(servers[0].url, "asker")
    async with Peer(servers[0].url) as watcher, asker.peer as peer:
        await (await who_list(watcher, "cats")).next()
        counting = await asker.watch("cats", member=False)
        since = time.monotonic()
        for number in range(100):
            await peer.send("SUBSCRIBE", id=str(number), destination="/topic/who.cats")
            if number % 8:  # stay below the limit of subscriptions to one destination
                await peer.send("UNSUBSCRIBE", id=str(number))
            await asyncio.sleep(0.02)
        assert asker.lists <= (time.monotonic() - since) / SECOND + 2
        counting.cancel()


async def test_a_subscriber_whose_list_was_delayed_receives_it(servers: tuple[ChatServer, ChatServer]) -> None:
    async with Peer(servers[0].url, "ann") as ann:
        await ann.subscribe("/topic/room.cats")
        for number in range(3):
            await ann.subscribe("/topic/who.cats", id=f"who-{number}")
        lists: dict[str | None, WhoList] = {f"who-{number}": WhoList(ann) for number in range(3)}
        async with asyncio.timeout(15):
            while not all(each.names == ["ann"] for each in lists.values()):
                frame = await ann.frame("MESSAGE")
                who, body = lists[frame.get("subscription")], json.loads(frame.body)
                if who.version is not None or "people" in body:
                    who.take(frame.body)


@pytest.mark.long
async def test_redis_traffic_for_one_join_and_leave_does_not_grow_with_the_room(
    redis_on_path: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "LOOK_SECONDS", 0.1)
    await _clear(redis_on_path)
    async with (
        RedisStreamsBroker(redis_on_path.url) as broker,
        RedisStreamsBroker(redis_on_path.url) as other,
        Redis.from_url(redis_on_path.url) as redis,
    ):
        here = presence.Presence(broker, "here", lambda record: None)
        there = presence.Presence(other, "there", lambda record: None)
        there.watch("cats")
        costs = []
        for people in (10, 2000):
            for number in range(people):
                here.enter("cats", User("n" * 60 + str(number), f"p-{people}-{number}"))
            await _until_people(there, len(here._here["cats"]))
            before = await _network(redis)
            for _ in range(10):
                here.enter("cats", User("flapper", "f"))
                await _until_people(there, len(here._here["cats"]))
                here.leave("cats", User("flapper", "f"))
                await _until_people(there, len(here._here["cats"]))
            costs.append(await _network(redis) - before)
        await here.aclose()
        await there.aclose()
        assert costs[1] < 2 * costs[0]


async def _until_people(there: presence.Presence, count: int) -> None:
    await until(lambda: len(there._watched["cats"].people or ()) == count)


async def _network(redis: Redis) -> int:
    stats = await redis.info("stats")
    return int(stats["total_net_input_bytes"]) + int(stats["total_net_output_bytes"])


class SlowBroker(MemoryBroker):
    """A broker that is slow to look at a room."""

    async def look(self, place: str, known: Collection[str]) -> Sequence[str]:
        await asyncio.sleep(0.001)
        return await super().look(place, known)


async def test_with_ten_thousand_watched_rooms_a_change_is_announced_in_time() -> None:
    async with SlowBroker() as broker, await chat_server.start(broker) as server, Peer(server.url) as watcher:
        who = await who_list(watcher, "cats")
        assert await who.next() == []
        for number in range(10_000):  # looking at all of them takes more than ten seconds
            server.service.presence.watch(f"made-up-{number}")
        since = time.monotonic()
        server.service.presence.enter("cats", User("ann", "p"))
        await who.until("ann")
        await until(lambda: "cats" in broker._notes)
        assert time.monotonic() - since < 4 * SECOND


async def test_the_people_of_a_killed_instance_are_removed_in_time(
    brokers: tuple[Broker, Broker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence_notes, "NOTE_SECONDS", 2.0)
    killed = presence.Presence(brokers[1], "killed", lambda record: None)
    async with await chat_server.start(brokers[0]) as server, Peer(server.url) as watcher:
        who = await who_list(watcher, "cats")
        killed.enter("cats", User("ann", "p"))
        await who.until("ann")
        assert killed._task is not None
        killed._task.cancel()
        since = time.monotonic()
        await who.until()
        assert time.monotonic() - since < 2.0 + 2 * SECOND
