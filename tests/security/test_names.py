"""One guest makes up names: their number is bounded in the instance and in the engine, and others are still served."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.budgets import Budgets, Names
from chatlab.chat.endpoint import server as chat_server
from chatlab.lab.until import until
from chatlab.naming import room_name
from tests.support.attacks import SEND, SLACK, round_trip
from tests.support.chat_brokers import KINDS, ChatBroker, chat_broker
from tests.support.stomp_peer import Peer, chat

ROOMS = "/topic/room."


@pytest.fixture(params=KINDS)
async def any_broker(request: pytest.FixtureRequest) -> AsyncIterator[ChatBroker]:
    async with chat_broker(request.param) as broker:
        yield broker


async def keys_of(broker: ChatBroker) -> int:
    """Return how many names the engine holds."""
    if isinstance(broker, MemoryBroker):
        return len(broker._topics)
    async with Redis.from_url(broker.url) as redis:
        return len([key async for key in redis.scan_iter(count=1000, _type="stream")])


@pytest.mark.long
async def test_a_guest_who_sends_to_thousands_of_rooms_creates_only_hundreds(any_broker: ChatBroker) -> None:
    async with (
        await chat_server.start(any_broker) as server,
        Peer(server.url, "mallory") as mallory,
        Peer(server.url, "ana") as ana,
    ):
        await mallory.subscribe("/user/queue/errors", id="errors")
        calm = await round_trip(ana)
        for number in range(5000):
            await mallory.send("SEND", chat("x", f"made-up-{number}"), destination=SEND)
        for number in range(200):
            await mallory.send("SEND", "x", destination=f"/topic/made-up-{number}")
            await mallory.send("SEND", "x", destination=f"/queue/made-up-{number}")
        assert await round_trip(ana) <= 2 * calm + SLACK
        refused = json.loads((await mallory.frame("MESSAGE")).body)["error"]
        assert refused.startswith(
            "refused: more than 500 new rooms, topics and queues within an hour (limit names-per-"
        )
        await mallory.receipt("SEND", chat("still here", "made-up-1"), destination=SEND)
        assert await keys_of(any_broker) < 600
        assert server.service.refusals.counts["names-per-hour"] >= 4900
        await ana.subscribe(f"{ROOMS}her-own")
        await ana.say("hello", "her-own")
        assert await ana.contents(1) == ["hello"]


@pytest.mark.parametrize("destination", ["/topic/x{}", "/queue/x{}", f"{ROOMS}x{{}}", "/topic/who.x{}"])
async def test_subscribing_to_new_names_counts_against_the_limit(broker: MemoryBroker, destination: str) -> None:
    async with await chat_server.start(broker, budgets=Budgets(names_per_hour=3)) as server, Peer(server.url) as peer:
        for number in range(3):
            await peer.subscribe(destination.format(number), id=str(number))
        await peer.send("SUBSCRIBE", id="3", destination=destination.format(3), receipt="r")
        error = await peer.frame("ERROR")
        assert "limit names-per-hour" in (error.get("message") or "")


async def test_an_instance_with_too_many_names_refuses_new_ones_until_others_are_unused(
    broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Names, "ROTATE_SECONDS", 0.3)
    async with (
        await chat_server.start(broker, budgets=Budgets(names=3)) as server,
        Peer(server.url) as mallory,
        Peer(server.url) as ana,
    ):
        await ana.subscribe("/user/queue/errors", id="errors")
        await ana.subscribe(f"{ROOMS}kept")
        for number in range(2):
            await mallory.say("x", f"r{number}")
        await ana.send("SEND", chat("x", "hers"), destination=SEND, receipt="r")
        refused = json.loads((await ana.frame("MESSAGE")).body)
        assert refused == {
            "error": "refused: too many rooms, topics and queues are in use here (limit names): "
            "use an existing one, or wait",
            "field": None,
            "receipt": "r",
        }
        await until(lambda: len(server.service.names) == 1, timeout=10)
        await ana.say("x", "hers")
        await mallory.say("x", "kept")
        assert await ana.contents(1) == ["x"]


async def test_behind_a_trusted_proxy_reconnecting_does_not_renew_a_guests_budget_for_names(
    broker: MemoryBroker,
) -> None:
    budgets = Budgets(names_per_hour=4)
    async with await chat_server.start(broker, budgets=budgets, trusted_proxies=["127.0.0.1"]) as server:
        for number in range(6):
            async with Peer(server.url).through_proxy("192.0.2.7") as peer:
                await peer.send("SEND", chat("x", f"r{number}"), destination=SEND, receipt="r")
                assert (await peer.frame()).command == ("RECEIPT" if number < 4 else "ERROR")
        async with Peer(server.url).through_proxy("192.0.2.8") as peer:
            await peer.say("x", "another")


async def test_reconnecting_guests_of_one_address_still_read_their_private_messages(broker: MemoryBroker) -> None:
    budgets = Budgets(names_per_hour=4)
    async with await chat_server.start(broker, budgets=budgets, trusted_proxies=["127.0.0.1"]) as server:
        for _ in range(12):  # a new guest from the same address each time
            async with Peer(server.url).through_proxy("192.0.2.7") as peer:
                await peer.subscribe("/user/queue/private")
        async with Peer(server.url).through_proxy("192.0.2.7") as peer:
            await peer.say("x", "cats")


async def test_destinations_that_are_too_long_are_refused(broker: MemoryBroker) -> None:
    async with await chat_server.start(broker) as server:
        for destination in ("/topic/" + "x" * 600, "/queue/" + "한" * 600, f"{ROOMS}{'x' * 600}"):
            async with Peer(server.url) as peer:
                await peer.send("SEND", "x", destination=destination)
                error = await peer.frame("ERROR")
                assert "characters: at most 512 are allowed" in (error.get("message") or "")
                assert len((error.get("message") or "").encode()) < 200


async def test_room_names_that_are_too_long_are_not_cached(broker: MemoryBroker) -> None:
    room_name.cache_clear()
    async with await chat_server.start(broker) as server, Peer(server.url) as peer:
        await peer.subscribe("/user/queue/errors")
        for number in range(50):
            await peer.send("SEND", chat("x", f"{number}" + "x" * 50_000), destination=SEND)
        for _ in range(50):
            assert "not a room's name" in json.loads((await peer.frame("MESSAGE")).body)["error"]
    assert room_name.cache_info().currsize < 5
