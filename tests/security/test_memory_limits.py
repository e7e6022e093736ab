"""What a server keeps for one client is bounded: open transactions, unanswered frames, unacknowledged messages."""

from __future__ import annotations

import asyncio
import contextlib
import json
from contextlib import suppress

import pytest
from aiohttp import ClientSession
from websockets.exceptions import ConnectionClosed

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.budgets import Budgets
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint.server import ChatServer
from chatlab.lab.until import until
from tests.support.attacks import SEND, stomp
from tests.support.paused_broker import PausedBroker
from tests.support.stomp_peer import Peer, chat

COUNTED = 'chatlab_refused_by_budget_total{{budget="{}"}} {}'


async def metrics(server: ChatServer) -> list[str]:
    async with ClientSession() as http, http.get(f"{server.page_url}metrics") as response:
        return (await response.text()).splitlines()


async def refusal(server: ChatServer, peer: Peer, budget: str) -> str:
    """Wait for the ERROR of a budget, check that the metrics have counted it once, and return its message."""
    error = await peer.frame("ERROR")
    assert error.get("limit") == budget
    assert await peer.close_code() in (1002, 1008)
    assert COUNTED.format(budget, 1) in await metrics(server)
    return error.get("message") or ""


async def test_open_transactions_of_one_client_are_bounded_in_octets(broker: MemoryBroker) -> None:
    async with await chat_server.start(broker) as server, Peer(server.url) as peer:
        with suppress(ConnectionClosed):
            for transaction in map(str, range(16)):
                await peer.send("BEGIN", transaction=transaction)
                for _ in range(15):
                    await peer.send("SEND", "x" * 60_000, destination="/topic/x", transaction=transaction)
        assert await refusal(server, peer, "held-octets") == (
            "open transactions are too large: at most 4194304 octets are allowed"
        )


async def test_tiny_frames_in_a_transaction_count_with_their_memory_overhead(broker: MemoryBroker) -> None:
    budgets = Budgets(held_octets=100_000)
    async with await chat_server.start(broker, budgets=budgets) as server, Peer(server.url) as peer:
        await peer.send("BEGIN", transaction="1")
        frame = stomp("SEND", destination="/topic/x", transaction="1")
        await peer.websocket.send((frame * 250).decode())
        assert "at most 100000 octets" in await refusal(server, peer, "held-octets")


async def test_refused_transactions_and_subscriptions_name_the_limit(broker: MemoryBroker) -> None:
    budgets = Budgets(transactions=2, subscriptions=2)
    async with await chat_server.start(broker, budgets=budgets) as server:
        async with Peer(server.url) as peer:
            for number in range(3):
                await peer.send("BEGIN", transaction=str(number))
            await refusal(server, peer, "transactions")
        async with Peer(server.url) as peer:
            for number in range(3):
                await peer.send("SUBSCRIBE", id=str(number), destination=f"/topic/{number}")
            await refusal(server, peer, "subscriptions")


@pytest.mark.parametrize("header", ["id", "selected-by"])
async def test_the_headers_that_subscriptions_keep_are_bounded_in_octets(broker: MemoryBroker, header: str) -> None:
    async with await chat_server.start(broker) as server, Peer(server.url) as peer:
        for number in range(40):
            headers = {"id": str(number), header: f"{number}" + "x" * 8000}
            await peer.send("SUBSCRIBE", destination=f"/topic/{number}", **headers)
        assert "at most 262144 octets" in await refusal(server, peer, "subscription-octets")


async def test_headers_of_ended_subscriptions_no_longer_count(broker: MemoryBroker) -> None:
    async with await chat_server.start(broker) as server, Peer(server.url) as peer:
        for number in range(40):
            id = f"{number}" + "x" * 8000
            await peer.subscribe("/topic/x", id=id)
            await peer.receipt("UNSUBSCRIBE", id=id)


@pytest.mark.parametrize("destination", ["/topic/public", "/topic/x", "/queue/x", "/user/queue/errors", "/topic/who.x"])
async def test_subscriptions_of_one_client_to_one_destination_are_limited(
    broker: MemoryBroker, destination: str
) -> None:
    async with await chat_server.start(broker) as server, Peer(server.url) as peer:
        for number in range(17):
            await peer.send("SUBSCRIBE", id=str(number), destination=destination)
        message = await refusal(server, peer, "subscriptions-per-destination")
        assert message == f"too many subscriptions to {destination!r}: at most 16 are allowed"


async def test_unacknowledged_messages_are_bounded_in_octets(broker: MemoryBroker) -> None:
    budgets = Budgets(unacknowledged_octets=1)  # raised to the minimum, 64 frames of the largest size: 4 MiB
    async with await chat_server.start(broker, budgets=budgets) as server, Peer(server.url) as peer:
        for number in range(10):
            await peer.subscribe("/topic/x", id=str(number), ack="client-individual")
        for _ in range(10):
            await peer.send("SEND", "x" * 60_000, destination="/topic/x")
        assert "octets unacknowledged: at most 4194304 are allowed" in await refusal(
            server, peer, "unacknowledged-octets"
        )


async def test_acknowledging_frees_the_budget_for_more_messages(broker: MemoryBroker) -> None:
    budgets = Budgets(unacknowledged_octets=1)
    async with await chat_server.start(broker, budgets=budgets) as server, Peer(server.url) as peer:
        await peer.subscribe("/topic/x", ack="client")
        for _ in range(4):
            for _ in range(30):
                await peer.send("SEND", "x" * 60_000, destination="/topic/x")
            last = [await peer.frame("MESSAGE") for _ in range(30)][-1]
            await peer.receipt("ACK", id=last.get("ack") or "")


async def test_frames_waiting_for_an_earlier_one_are_bounded_and_all_answered() -> None:
    async with PausedBroker() as broker, await chat_server.start(broker) as server, Peer(server.url) as peer:
        await peer.send("SEND", chat("held"), destination=SEND, receipt="first")
        await until(lambda: broker.asked)
        count = 20_000
        frame = stomp("BEGIN", transaction="t", receipt="b") + stomp("ABORT", transaction="t", receipt="a")

        async def send() -> None:
            for _ in range(count // 200):
                await peer.websocket.send((frame * 100).decode())

        sending = asyncio.create_task(send())
        (connection,) = server.service.connections
        session = connection.session  # type: ignore[attr-defined]  # not part of the `Client` protocol
        await until(lambda: session.unanswered >= 1000)
        await asyncio.sleep(0.5)
        assert session.unanswered < 2000
        assert server.service.delays.counts["receipts"] == 1
        broker.storing.set()
        frames = [await peer.frame("RECEIPT") for _ in range(count + 1)]
        assert frames[0].get("receipt-id") == "first"
        await sending


async def flood(peers: list[Peer], count: int, octets: int = 60_000) -> list[asyncio.Task[None]]:
    """Start sending `count` large messages from each peer; the server reads them at its own pace."""

    async def send(peer: Peer) -> None:
        for number in range(count):
            await peer.send("SEND", "x" * octets, destination="/topic/x", receipt=f"{number}")

    return [asyncio.create_task(send(peer)) for peer in peers]


@pytest.mark.parametrize(("peers", "most"), [(1, 2 << 20), (8, 4 << 20)], ids=["of one client", "of all clients"])
async def test_large_messages_waiting_for_the_broker_are_bounded_in_octets_and_all_stored(
    peers: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatlab.chat.session.connection.ALL_SENDING_OCTETS", 4 << 20, raising=False)
    async with contextlib.AsyncExitStack() as stack:
        broker = await stack.enter_async_context(PausedBroker())
        server = await stack.enter_async_context(await chat_server.start(broker))
        floods = [await stack.enter_async_context(Peer(server.url)) for _ in range(peers)]
        sending = await flood(floods, 100)
        await until(lambda: broker.asked)
        await asyncio.sleep(1)  # long enough to read it all
        assert broker.waiting_octets < most + peers * 70_000
        broker.storing.set()
        for peer in floods:
            receipts = [(await peer.frame("RECEIPT")).get("receipt-id") for _ in range(100)]
            assert receipts == [str(number) for number in range(100)]
        await asyncio.gather(*sending)
        assert server.service.sending_octets == 0


async def test_an_error_shortens_a_long_quoted_value(broker: MemoryBroker) -> None:
    async with await chat_server.start(broker) as server, Peer(server.url) as peer:
        await peer.send("BEGIN", transaction="\U0010ffff" * 1900)
        await peer.send("BEGIN", transaction="\U0010ffff" * 1900)
        error = await peer.frame("ERROR")
        assert len(error.get("message") or "") < 1010
        assert (error.get("message") or "").endswith("has begun already")


async def test_each_refused_message_is_reported_to_its_sender_and_few_are_logged(
    broker: MemoryBroker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "chatlab")
    async with await chat_server.start(broker) as server, Peer(server.url) as peer:
        await peer.subscribe("/user/queue/errors")
        for _ in range(20):
            await peer.websocket.send((stomp("SEND", "{}", destination=SEND) * 100).decode())
        for _ in range(2000):
            assert "content" in json.loads((await peer.frame("MESSAGE")).body)["error"]
        assert len([record for record in caplog.records if "message refused" in record.getMessage()]) < 300
