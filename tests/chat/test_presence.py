"""Who is in a room, on all instances together."""

from __future__ import annotations

import asyncio
import json

import pytest

from chatlab.brokers.memory import MemoryBroker
from chatlab.chat import presence
from chatlab.chat import server as chat_server
from chatlab.chat.server import ChatServer
from tests.support.stomp_peer import Peer


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "LOOK_SECONDS", 0.05)


async def names(peer: Peer) -> list[str]:
    """Who is there, as the next list has it."""
    return [person["name"] for person in json.loads((await peer.frame("MESSAGE")).body)["people"]]


async def until_there(peer: Peer, *expected: str) -> None:
    async with asyncio.timeout(5):
        while await names(peer) != list(expected):
            pass


async def test_a_watcher_sees_who_comes_and_who_goes_on_every_instance(broker: MemoryBroker) -> None:
    async with (
        await chat_server.start(broker) as one,
        await chat_server.start(broker) as other,
        Peer(one.url, "watcher") as watcher,
        Peer(one.url, "ann") as ann,
    ):
        await watcher.subscribe("/topic/who.cats")
        assert await names(watcher) == []
        await ann.subscribe("/topic/room.cats")
        await until_there(watcher, "ann")
        async with Peer(other.url, "민지") as minji:
            await minji.subscribe("/topic/room.cats")
            await until_there(watcher, "ann", "민지")
        await until_there(watcher, "ann")
        await ann.receipt("UNSUBSCRIBE", id="sub-0")
        await until_there(watcher)


async def test_a_user_with_two_subscriptions_is_there_once_until_the_last_ends(server: ChatServer) -> None:
    async with Peer(server.url, "ann") as ann:
        await ann.subscribe("/topic/room.cats", id="1")
        await ann.subscribe("/topic/room.cats", id="2")
        await ann.receipt("UNSUBSCRIBE", id="1")
        await ann.subscribe("/topic/who.cats", id="who")
        await until_there(ann, "ann")


async def test_an_instance_that_dies_is_forgotten_when_its_note_expires(
    broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await broker.announce("cats", "a dead instance", '[{"name":"ghost","principal":"g"}]', 0.2)
    async with await chat_server.start(broker) as server, Peer(server.url, "ann") as ann:
        await ann.subscribe("/topic/room.cats")
        await ann.subscribe("/topic/who.cats", id="who")
        await until_there(ann, "ann", "ghost")
        await until_there(ann, "ann")


async def test_a_closed_server_takes_its_people_with_it(broker: MemoryBroker) -> None:
    async with await chat_server.start(broker) as stays, Peer(stays.url) as watcher:
        leaves = await chat_server.start(broker)
        await watcher.subscribe("/topic/who.cats")
        async with Peer(leaves.url, "ann") as ann:
            await ann.subscribe("/topic/room.cats")
            await until_there(watcher, "ann")
            await leaves.aclose()
        await until_there(watcher)


async def test_nobody_may_say_who_is_there_but_the_server(server: ChatServer) -> None:
    async with Peer(server.url) as peer:
        await peer.send("SEND", "[]", destination="/topic/who.cats")
        assert "takes no messages" in ((await peer.frame("ERROR")).get("message") or "")
