"""Who is in a room, on all instances together."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest
from redis.asyncio import Redis

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.brokers.redis.streams import RedisStreamsBroker
from chatlab.chat.app import User
from chatlab.chat.delivery import presence
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint.server import ChatServer
from chatlab.errors import BrokerError, BrokerUnavailable
from chatlab.lab.engines.engine import Engine
from chatlab.lab.until import until
from tests.support.stomp_peer import Peer
from tests.support.who_list import WhoList, who_list


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "LOOK_SECONDS", 0.05)


async def test_a_watcher_sees_users_join_and_leave_on_every_instance(broker: MemoryBroker) -> None:
    async with (
        await chat_server.start(broker) as one,
        await chat_server.start(broker) as other,
        Peer(one.url, "watcher") as watcher,
        Peer(one.url, "ann") as ann,
    ):
        who = await who_list(watcher, "cats")
        assert await who.next() == []
        await ann.subscribe("/topic/room.cats")
        await who.until("ann")
        async with Peer(other.url, "민지") as minji:
            await minji.subscribe("/topic/room.cats")
            await who.until("ann", "민지")
        await who.until("ann")
        await ann.receipt("UNSUBSCRIBE", id="sub-0")
        await who.until()


async def test_the_list_goes_only_to_the_new_watcher_and_changes_go_to_all(server: ChatServer) -> None:
    async with Peer(server.url, "one") as one, Peer(server.url, "two") as two, Peer(server.url, "ann") as ann:
        first = await who_list(one, "cats")
        assert await first.next() == []
        await ann.subscribe("/topic/room.cats")
        await first.until("ann")
        second = await who_list(two, "cats")
        assert await second.next() == ["ann"]
        assert second.version == first.version
        await one.nothing_more()
        await ann.receipt("UNSUBSCRIBE", id="sub-0")
        assert await first.next() == await second.next() == []


async def test_presence_never_shows_a_principal(server: ChatServer) -> None:
    async with Peer(server.url, "ann") as ann:
        await ann.subscribe("/topic/room.cats")
        await ann.subscribe("/topic/who.cats", id="who")
        update = json.loads((await ann.frame("MESSAGE")).body)
        if not update["people"]:
            update = json.loads((await ann.frame("MESSAGE")).body)
        (person,) = update.get("people") or update["joined"]
        assert person.keys() == {"name", "handle"}
        (user,) = [each.user for each in server.service.connections]
        assert user is not None
        assert person == {"name": "ann", "handle": user.handle}
        assert user.principal not in json.dumps(update)


async def test_a_watcher_that_acknowledges_receives_the_list_and_the_changes(server: ChatServer) -> None:
    async with Peer(server.url, "watcher") as watcher, Peer(server.url, "ann") as ann:
        await watcher.subscribe("/topic/who.cats", id="who", ack="client-individual")
        who = WhoList(watcher)
        assert await who.next() == []
        await ann.subscribe("/topic/room.cats")
        assert await who.next() == ["ann"]


async def test_a_user_with_two_subscriptions_is_listed_once_until_both_end(server: ChatServer) -> None:
    async with Peer(server.url, "ann") as ann:
        await ann.subscribe("/topic/room.cats", id="1")
        await ann.subscribe("/topic/room.cats", id="2")
        await ann.receipt("UNSUBSCRIBE", id="1")
        await (await who_list(ann, "cats")).until("ann")


async def test_the_users_of_a_dead_instance_disappear_when_its_note_expires(
    broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await broker.announce("cats", "dead", 'people dead 1\n[{"name":"ghost","handle":"h"}]', 0.2)
    async with await chat_server.start(broker) as server, Peer(server.url, "ann") as ann:
        await ann.subscribe("/topic/room.cats")
        who = await who_list(ann, "cats")
        await who.until("ann", "ghost")
        await who.until("ann")


async def test_the_users_of_a_closed_server_disappear(broker: MemoryBroker) -> None:
    async with await chat_server.start(broker) as stays, Peer(stays.url) as watcher:
        leaves = await chat_server.start(broker)
        who = await who_list(watcher, "cats")
        async with Peer(leaves.url, "ann") as ann:
            await ann.subscribe("/topic/room.cats")
            await who.until("ann")
            await leaves.aclose()
        await who.until()


async def test_a_client_may_not_send_to_a_who_list(server: ChatServer) -> None:
    async with Peer(server.url) as peer:
        await peer.send("SEND", "[]", destination="/topic/who.cats")
        assert "takes no messages" in ((await peer.frame("ERROR")).get("message") or "")


async def test_a_user_that_joins_while_a_note_is_being_written_is_not_lost(
    fresh_redis: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "RENEW_SECONDS", 60.0)  # a change that waited for the renewal would be a minute late
    async with RedisStreamsBroker(fresh_redis.url) as broker:
        here = presence.Presence(broker, "here", lambda record: None)
        here.enter("cats", User("first", "first"))
        for crowd in range(20):
            users = [User(f"{crowd}-{number}", f"{crowd}-{number}") for number in range(100)]
            for user in users:
                here.enter("cats", user)
                await asyncio.sleep(0.001)
            await until_people(here, "cats", 101)
            for user in users:
                here.leave("cats", user)
                await asyncio.sleep(0)
            await until_people(here, "cats", 1)
        await here.aclose()


async def until_people(here: presence.Presence, room: str, count: int) -> None:
    """Wait until another instance sees that many people."""
    here = presence.Presence(here._broker, "another", lambda record: None)  # type: ignore[arg-type]  # it has one
    async with asyncio.timeout(5):
        while len(await here.people(room)) != count:  # noqa: ASYNC110  # only the broker knows
            await asyncio.sleep(0.01)


class Counted(MemoryBroker):
    """Record each announcement, slowly; refuse or be unavailable on request."""

    def __init__(self) -> None:
        super().__init__()
        self.announced: list[tuple[str, str]] = []
        self.away = False

    async def announce(self, place: str, who: str, note: str, seconds: float) -> None:
        await asyncio.sleep(0.01)
        if self.away:
            raise BrokerUnavailable("away")
        if place == "of another kind":
            raise BrokerError("WRONGTYPE Operation against a key holding the wrong kind of value")
        self.announced.append((place, note))
        await super().announce(place, who, note, seconds)

    async def present(self, place: str) -> Sequence[str]:
        if place == "of another kind":
            raise BrokerError("WRONGTYPE Operation against a key holding the wrong kind of value")
        return await super().present(place)


async def test_each_change_is_written_once() -> None:
    async with Counted() as broker:
        here = presence.Presence(broker, "here", lambda record: None)
        for room in ("cats", "dogs"):
            here.enter(room, User("ann", "p"))
        await until(lambda: len(broker.announced) == 2)
        here.enter("cats", User("bob", "q"))
        await until(lambda: len(broker.announced) == 3)
        await here.aclose()
        assert sorted(room for room, _ in broker.announced[:3]) == ["cats", "cats", "dogs"]


async def test_a_change_during_an_outage_is_announced_when_the_broker_is_back() -> None:
    async with Counted() as broker:
        here = presence.Presence(broker, "here", lambda record: None)
        here.enter("cats", User("ann", "p"))
        await until(lambda: len(broker.announced) == 1)
        broker.away = True
        here.enter("cats", User("bob", "q"))
        here.enter("dogs", User("bob", "q"))
        await asyncio.sleep(0.2)
        broker.away = False
        await until_people(here, "cats", 2)
        await until_people(here, "dogs", 1)
        broker.away = True
        here.leave("dogs", User("bob", "q"))
        await asyncio.sleep(0.2)
        broker.away = False
        await until_people(here, "dogs", 0)
        await here.aclose()


BAD_NOTES = [
    '{"v":1}',
    "",
    "[",
    '[{"name":1,"handle":"p"}]',
    '[{"name":"x"}]',
    "[" * 5000 + "]" * 5000,
    '[{"name":"x","handle":"p","more":' + "[" * 5000 + "]" * 5000 + "}]",
]


@pytest.mark.parametrize("note", BAD_NOTES, ids=lambda note: note[:12])
async def test_a_note_that_is_not_a_list_of_people_is_skipped_and_logged_once(
    broker: MemoryBroker, note: str, caplog: pytest.LogCaptureFixture
) -> None:
    await broker.announce("cats", "another program", note, 60)
    async with await chat_server.start(broker) as server, Peer(server.url, "ann") as ann:
        who = await who_list(ann, "cats")
        await ann.subscribe("/topic/room.cats")
        await who.until("ann")
        await ann.receipt("UNSUBSCRIBE", id="sub-0")
        await who.until()
        assert server.service.why_not_ready() == ""
    assert caplog.text.count("is not a list of people") == 1


async def test_redis_keys_of_another_type_are_skipped(fresh_redis: Engine) -> None:
    redis = Redis.from_url(fresh_redis.url)
    await redis.sadd("presence:{cats}", "binary", "hash")
    await redis.set("presence:{cats}:binary", b"\xff\xfe")
    await redis.hset("presence:{cats}:hash", "a", "b")
    await redis.aclose()
    async with (
        RedisStreamsBroker(fresh_redis.url) as broker,
        await chat_server.start(broker) as server,
        Peer(server.url, "ann") as ann,
    ):
        who = await who_list(ann, "cats")
        await ann.subscribe("/topic/room.cats")
        await who.until("ann")


async def test_a_room_that_the_engine_refuses_does_not_hold_up_other_rooms(caplog: pytest.LogCaptureFixture) -> None:
    async with Counted() as broker, broker:
        here = presence.Presence(broker, "here", lambda record: None)
        here.watch("of another kind")
        here.enter("of another kind", User("ann", "p"))
        here.enter("cats", User("ann", "p"))
        await until_people(here, "cats", 1)
        here.leave("cats", User("ann", "p"))
        await until_people(here, "cats", 0)
        await here.aclose()
    assert caplog.text.count("presence refused by the broker") == 1


class Broken(MemoryBroker):
    """Fail with an unexpected exception."""

    async def present(self, place: str) -> Sequence[str]:
        raise ZeroDivisionError("of its own")


async def test_an_unexpected_exception_makes_the_instance_unready() -> None:
    async with Broken() as broker, await chat_server.start(broker) as server, Peer(server.url) as peer:
        await peer.subscribe("/topic/who.cats")
        await until(lambda: "presence" in server.service.why_not_ready())
        assert "ZeroDivisionError" in server.service.why_not_ready()
