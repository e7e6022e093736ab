"""The client, against a real server on a real socket that can be stopped, silenced and started again."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Callable

import pytest

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.endpoint import server as chat_server
from chatlab.clients.stomp import Backoff, ClientState, ClientSubscription, StompClient
from chatlab.errors import MessageRefused, StompError, SubscriptionLost
from chatlab.stomp.events import Ack, Disconnect, Nack, Send, Subscribe, Unsubscribe
from chatlab.stomp.frames import Frame
from tests.support.stomp_server import StompServer

SOON = Backoff(first=0.01, longest=0.05)


@pytest.fixture
async def server() -> AsyncIterator[StompServer]:
    async with asyncio.timeout(10), StompServer() as server:
        yield server


async def until(condition: Callable[[], bool], seconds: float = 5) -> None:
    """Wait until the two tasks under test have progressed that far."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # two event sources, one of them a server of a few lines
            await asyncio.sleep(0.005)


async def bodies(subscription: ClientSubscription, count: int) -> list[bytes]:
    async with asyncio.timeout(5):
        return [(await anext(subscription)).body for _ in range(count)]


async def test_a_sent_message_reaches_a_subscriber(server: StompServer) -> None:
    async with StompClient(server.url, login="kim") as client:
        assert client.state is ClientState.OPEN
        assert client.connected.get("user-name") == "kim"
        subscription = await client.subscribe("/topic/a")
        await client.send("/topic/a", "안녕", {"content-type": "text/plain"})
        await client.send("/topic/a", b"\xff\x00")  # not UTF-8: a binary message
        assert await bodies(subscription, 2) == ["안녕".encode(), b"\xff\x00"]
        await subscription.unsubscribe()
        assert [message async for message in subscription] == []
    assert client.state.value == "closed"
    assert server.received(Disconnect) == 1
    assert not server.sessions


@pytest.mark.parametrize(
    ("body", "words", "field"),
    [
        ('{"error": "no content", "field": "content", "receipt": "r-1"}', "no content", "content"),
        ('{"error": "not stored", "field": null}', "not stored", ""),
        ("in words", "in words", ""),
        ("[1]", "[1]", ""),
    ],
)
async def test_a_single_refused_message_raises_and_keeps_the_session(
    server: StompServer, body: str, words: str, field: str
) -> None:
    async with StompClient(server.url) as client:
        errors = await client.subscribe("/user/queue/errors")
        with pytest.raises(MessageRefused, match=re.escape(words)) as refused:
            await client.send("/unwanted", body)
        assert refused.value.field == field
        assert await bodies(errors, 1) == [body.encode()]
        await client.send("/topic/a", b"goes on")


async def test_only_the_error_queue_can_refuse_a_message(server: StompServer) -> None:
    async with StompClient(server.url) as client:
        subscription = await client.subscribe("/topic/a")
        forged = asyncio.create_task(client.send("/unwanted", b"no"))  # without a subscriber there, it waits
        await until(lambda: server.received(Send) == 1)
        (name,) = client._receipts
        await server.publish("/topic/a", b"no", (("receipt-id", name),))
        assert await bodies(subscription, 1) == [b"no"]
        assert not forged.done()
        forged.cancel()


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2"])
@pytest.mark.parametrize("ack", ["client", "client-individual"])
async def test_messages_are_acknowledged_as_each_version_requires(server: StompServer, version: str, ack: str) -> None:
    async with StompClient(server.url, versions=(version,)) as client:
        subscription = await client.subscribe("/topic/a", ack=ack)
        for body in (b"1", b"2", b"3"):
            await client.send("/topic/a", body)
        first, second = await anext(subscription), await anext(subscription)
        assert await subscription.ack(second)
        assert await subscription.ack(first) == (ack != "client")  # which acknowledges all earlier messages
        assert not await subscription.ack(second)
        await client.send("/topic/a", b"")  # the server has received everything
        assert [len(event.deliveries) for event in server.events if isinstance(event, Ack)] == (
            [2] if ack == "client" else [1, 1]
        )


async def test_a_nack_causes_a_redelivery(server: StompServer) -> None:
    async with StompClient(server.url) as client:
        subscription = await client.subscribe("/topic/a", ack="client-individual")
        await client.send("/topic/a", b"x")
        message = await anext(subscription)
        assert await subscription.nack(message)
        assert not await subscription.ack(message)
        again = await anext(subscription)
        assert again.get("redelivered") == "true"
        assert await subscription.ack(again)
        await client.send("/topic/a", b"y")
        assert [server.received(kind) for kind in (Nack, Ack)] == [1, 1]


async def test_a_transaction_is_all_or_nothing(server: StompServer) -> None:
    async with StompClient(server.url) as client:
        async with client.transaction() as transaction:
            await client.send("/topic/a", b"1", transaction=transaction)
            await client.send("/topic/a", b"2", transaction=transaction)
            assert server.messages == []
        assert [message.body for message in server.messages] == [b"1", b"2"]
        with pytest.raises(KeyError):
            async with client.transaction() as transaction:
                await client.send("/topic/a", b"3", transaction=transaction)
                raise KeyError
        await client.send("/topic/a", b"4")
        assert [message.body for message in server.messages] == [b"1", b"2", b"4"]


async def test_many_sends_can_wait_for_receipts_concurrently(server: StompServer) -> None:
    async with StompClient(server.url) as client:
        await asyncio.gather(*(client.send("/topic/a", str(n)) for n in range(50)))
        await client.send("/topic/a", b"last", receipt=False)
    assert [message.body for message in server.messages] == [*(str(n).encode() for n in range(50)), b"last"]


# --- Refusals ---


async def test_a_refused_login_raises_the_reason_and_is_not_retried(server: StompServer) -> None:
    client = StompClient(server.url, login="kim", passcode="wrong", backoff=SOON)
    with pytest.raises(StompError, match="access refused: passcode is not valid"):
        await client.connect()
    assert (client.state, client.attempts) == (ClientState.CLOSED, 1)


async def test_nothing_to_connect_to_is_an_os_error(server: StompServer) -> None:
    await server.stop()
    with pytest.raises(OSError):  # which one depends on the system
        await StompClient(server.url).connect()
    await server.start()


async def test_a_server_without_stomp_is_a_connection_error() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as http:
        port = http.sockets[0].getsockname()[1]
        with pytest.raises(ConnectionError, match="404"):
            await StompClient(f"ws://127.0.0.1:{port}/").connect()


async def test_connecting_times_out_if_connect_is_not_answered(server: StompServer) -> None:
    server.silent = True
    with pytest.raises(ConnectionError, match=r"no CONNECTED from .* within 0\.2 s"):
        await StompClient(server.url, connect_timeout=0.2).connect()


async def test_a_refused_send_raises_where_it_was_sent(server: StompServer) -> None:
    async with StompClient(server.url, backoff=SOON) as client:
        with pytest.raises(StompError, match="'/refused' takes nothing"):
            await client.send("/refused", b"x")
        await client.send("/topic/a", b"after")  # on the next connection
        assert client.attempts == 2
        assert str(client.lost) == "'/refused' takes nothing"


async def test_a_refused_subscription_raises_and_is_not_restored(server: StompServer) -> None:
    async with StompClient(server.url, backoff=SOON) as client:
        with pytest.raises(StompError, match="'/refused' gives nothing"):
            await client.subscribe("/refused")
        await client.send("/topic/a", b"after")
        assert server.received(Subscribe) == 1


# --- Losing the connection ---


async def test_the_client_reconnects_and_misses_nothing(server: StompServer) -> None:
    states: list[ClientState] = []
    client = StompClient(server.url, backoff=SOON, on_change=lambda: states.append(client.state))
    async with client:
        subscription = await client.subscribe("/topic/a")
        await client.send("/topic/a", b"1")
        await client.send("/topic/a", b"2")
        assert await bodies(subscription, 1) == [b"1"]  # 2 has been received, but not consumed yet
        await server.stop()
        await until(lambda: client.state is not ClientState.OPEN)
        await server.start()
        await server.publish("/topic/a", b"3")  # before the client is back
        await until(lambda: client.state is ClientState.OPEN)
        await client.send("/topic/a", b"4")
        assert await bodies(subscription, 3) == [b"2", b"3", b"4"]
        assert states[:4] == [ClientState.CONNECTING, ClientState.OPEN, ClientState.WAITING, ClientState.CONNECTING]


async def test_unacknowledged_messages_are_redelivered_after_a_reconnect(server: StompServer) -> None:
    async with StompClient(server.url, backoff=SOON) as client:
        subscription = await client.subscribe("/topic/a", ack="client-individual")
        for body in (b"1", b"2", b"3"):
            await client.send("/topic/a", body)
        one, two = await anext(subscription), await anext(subscription)
        await subscription.ack(one)
        await client.send("/topic/b", b"")  # the ACK has arrived
        client.drop()
        await until(lambda: client.attempts == 2 and client.state is ClientState.OPEN)
        assert not await subscription.ack(two)  # the server no longer knows that delivery
        assert await bodies(subscription, 2) == [b"2", b"3"]
        assert subscription.last_id == "1"


async def test_resuming_starts_before_the_first_unacknowledged_message(server: StompServer) -> None:
    async with StompClient(server.url) as client:
        subscription = await client.subscribe("/topic/a", ack="client-individual", last_id="0")
        for body in (b"1", b"2", b"3"):
            await client.send("/topic/a", body)
        one, two, three = [await anext(subscription) for _ in range(3)]
        await subscription.ack(two)
        assert subscription.last_id == "0"
        await subscription.ack(one)
        assert subscription.last_id == "2"
        await subscription.ack(three)
        assert subscription.headers()["last-id"] == "3"


async def test_a_subscription_without_a_message_misses_nothing_after_a_reconnect() -> None:
    async with (
        MemoryBroker() as broker,
        await chat_server.start(broker) as server,
        StompClient(server.url, backoff=SOON) as client,
    ):
        subscription = await client.subscribe("/topic/room.quiet")
        client.drop()
        await until(lambda: client.state is ClientState.WAITING)
        await broker.publish("chat:{quiet}", b'{"content":"while it is away"}')
        (body,) = await bodies(subscription, 1)
        assert b"while it is away" in body


async def test_a_subscription_starts_after_the_given_id(server: StompServer) -> None:
    for body in (b"1", b"2", b"3"):
        await server.publish("/topic/a", body)
    async with StompClient(server.url) as client:
        subscription = await client.subscribe("/topic/a", last_id="1")
        assert await bodies(subscription, 2) == [b"2", b"3"]


async def test_an_outstanding_receipt_fails_when_the_connection_is_lost(server: StompServer) -> None:
    async with StompClient(server.url, backoff=SOON) as client:
        server.silent = True
        sending = asyncio.create_task(client.send("/topic/a", b"x"))
        await until(lambda: server.received(Send) == 1)
        server.silent = False
        client.drop()
        with pytest.raises(ConnectionError, match="connection lost before the receipt came"):
            await sending


async def test_a_send_waits_while_the_client_reconnects(server: StompServer) -> None:
    async with StompClient(server.url, backoff=SOON) as client:
        await server.stop()
        await until(lambda: client.state is not ClientState.OPEN)
        sending = asyncio.create_task(client.send("/topic/a", b"patient"))
        await server.start()
        await sending
        assert [message.body for message in server.messages] == [b"patient"]


async def test_without_reconnect_a_lost_connection_closes_the_client(server: StompServer) -> None:
    async with StompClient(server.url, reconnect=False) as client:
        subscription = await client.subscribe("/topic/a")
        client.drop()
        with pytest.raises(ConnectionError):
            await anext(subscription)
        assert client.state is ClientState.CLOSED
        with pytest.raises(ConnectionError, match="not connected"):
            await client.send("/topic/a", b"x")


async def test_a_closed_client_may_connect_again(server: StompServer) -> None:
    client = StompClient(server.url)
    for _ in range(2):
        async with client:
            await client.send("/topic/a", b"x")
        await client.aclose()
    assert len(server.messages) == 2


async def test_closing_during_the_backoff_is_immediate(server: StompServer) -> None:
    client = StompClient(server.url, backoff=Backoff(first=100, longest=100))
    await client.connect()
    subscription = await client.subscribe("/topic/a")
    client.drop()
    await until(lambda: client.state is ClientState.WAITING)
    async with asyncio.timeout(1):
        await client.aclose()
    assert [message async for message in subscription] == []


async def test_reconnect_attempts_become_less_frequent(server: StompServer) -> None:
    waits: list[float] = []
    client = StompClient(server.url, backoff=Backoff(first=0.02, longest=0.08))

    def note() -> None:
        waits.append(asyncio.get_running_loop().time())

    await client.connect()
    client._on_change = lambda: note() if client.state is ClientState.WAITING else None
    await server.stop()
    await until(lambda: len(waits) == 7)
    await client.aclose()
    pauses = [later - earlier for earlier, later in itertools.pairwise(waits)]
    assert pauses[0] >= 0.01
    assert min(pauses[2:]) >= 0.04, "from the third failure on, half of the longest wait at least"


async def test_an_internal_error_is_logged_and_ends_the_subscriptions(
    server: StompServer, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        if client.state is ClientState.WAITING:
            raise ZeroDivisionError("in on_change")

    client = StompClient(server.url, backoff=SOON, on_change=fail)
    await client.connect()
    subscription = await client.subscribe("/topic/a")
    client.drop()
    with pytest.raises(ZeroDivisionError):
        await bodies(subscription, 1)
    assert client.state is ClientState.CLOSED
    await until(lambda: f"background task 'STOMP client of {server.url}' failed" in caplog.text)


# --- Heart-beats ---


async def test_heart_beats_keep_a_quiet_connection_open_both_ways() -> None:
    async with StompServer(heart_beat=(50, 50)) as server, StompClient(server.url, heart_beat=(50, 50)) as client:
        (session,) = server.sessions
        assert session.heart_beat == (50, 50)
        await asyncio.sleep(0.8)  # a side that sent nothing would be considered dead after 0.55 s
        assert (client.state, client.attempts) == (ClientState.OPEN, 1)
        assert session.closing is None


async def test_a_silent_server_is_detected_and_the_client_reconnects() -> None:
    async with StompServer(heart_beat=(100, 0)) as server:
        client = StompClient(server.url, heart_beat=(0, 100), backoff=SOON)
        async with client:
            server.silent = True
            await until(lambda: client.state is not ClientState.OPEN)
            assert str(client.lost) == "nothing received for 0.6 s"
            server.silent = False
            await until(lambda: client.state is ClientState.OPEN)


# --- A reader that stops reading ---


async def test_an_unread_subscription_ends_with_an_error_and_others_continue(server: StompServer) -> None:
    async with StompClient(server.url) as client:
        lazy = await client.subscribe("/topic/a", max_waiting=2)
        other = await client.subscribe("/topic/a")
        for body in (b"1", b"2", b"3"):
            await client.send("/topic/a", body)
        assert await bodies(other, 3) == [b"1", b"2", b"3"]
        assert await bodies(lazy, 2) == [b"1", b"2"]
        for _ in range(2):
            with pytest.raises(SubscriptionLost, match="2 messages of '/topic/a' are waiting to be read"):
                await anext(lazy)
        assert server.received(Unsubscribe) == 1


async def test_a_message_is_a_frame(server: StompServer) -> None:
    async with StompClient(server.url) as client:
        subscription = await client.subscribe("/topic/a")
        await client.send("/topic/a", b"x")
        assert await anext(subscription) == Frame(
            "MESSAGE",
            (("subscription", "sub-0"), ("message-id", "1"), ("destination", "/topic/a"), ("content-length", "1")),
            b"x",
        )
