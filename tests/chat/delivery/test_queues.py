"""`/queue/…`: each message goes to one subscriber, and to another if the first does not acknowledge. And ack modes."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable

import pytest

from chatlab.brokers.kafka.broker import KafkaBroker
from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.brokers.port import Broker
from chatlab.brokers.rabbitmq.broker import RabbitMQBroker
from chatlab.brokers.redis.pubsub import RedisPubSubBroker
from chatlab.brokers.redis.streams import RedisStreamsBroker
from chatlab.chat.delivery.queues import MAX_REFUSALS
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint.server import ChatServer
from chatlab.lab.engines.engine import Engine
from chatlab.stomp.frames import Frame
from tests.support.stomp_peer import Peer

JOBS = "/queue/jobs"


async def bodies(peer: Peer, count: int) -> list[bytes]:
    return [(await peer.frame("MESSAGE")).body for _ in range(count)]


async def test_each_message_goes_to_one_subscriber_in_turn(server: ChatServer) -> None:
    async with Peer(server.url) as one, Peer(server.url) as other, Peer(server.url) as sender:
        await one.subscribe(JOBS)
        await other.subscribe(JOBS)
        for number in range(6):
            await sender.receipt("SEND", str(number), destination=JOBS)
        done = await bodies(one, 3) + await bodies(other, 3)
        assert sorted(done) == [b"0", b"1", b"2", b"3", b"4", b"5"]


async def test_each_message_goes_to_one_instance(broker: MemoryBroker) -> None:
    async with (
        await chat_server.start(broker) as here,
        await chat_server.start(broker) as there,
        Peer(here.url) as one,
        Peer(there.url) as other,
    ):
        await one.subscribe(JOBS, ack="client-individual")
        await other.subscribe(JOBS, ack="client-individual")
        for number in range(10):
            await one.receipt("SEND", str(number), destination=JOBS)
        done: list[bytes] = []

        async def work(peer: Peer) -> None:
            while True:
                message = await peer.frame("MESSAGE", 60)
                done.append(message.body)
                await peer.receipt("ACK", id=message.get("ack") or "")

        workers = [asyncio.create_task(work(peer)) for peer in (one, other)]
        async with asyncio.timeout(5):
            while len(done) < 10:  # noqa: ASYNC110  # two workers fill it
                await asyncio.sleep(0.01)
        for worker in workers:
            worker.cancel()
        await asyncio.wait(workers)
        assert sorted(done) == [b"%d" % number for number in range(10)]


async def test_a_refused_message_is_redelivered_to_another_subscriber(server: ChatServer) -> None:
    async with Peer(server.url) as one, Peer(server.url) as other:
        await one.subscribe(JOBS, ack="client-individual")
        await other.subscribe(JOBS, ack="client-individual")
        await one.receipt("SEND", "work", destination=JOBS)
        first = await one.frame("MESSAGE")
        assert first.get("redelivered") is None
        await one.receipt("NACK", id=first.get("ack") or "")
        again = await other.frame("MESSAGE")
        assert (again.body, again.get("redelivered")) == (b"work", "true")
        await other.receipt("ACK", id=again.get("ack") or "")


async def refuse(peer: Peer) -> Frame:
    """Refuse the next message."""
    message = await peer.frame("MESSAGE")
    await peer.receipt("NACK", id=message.get("ack") or "")
    return message


async def test_a_refused_message_goes_to_another_even_on_the_refusers_turn(server: ChatServer) -> None:
    async with Peer(server.url) as one, Peer(server.url) as other:
        await one.subscribe(JOBS, ack="client-individual")
        await other.subscribe(JOBS, ack="client-individual")
        await one.receipt("SEND", "1", destination=JOBS)
        await one.receipt("SEND", "2", destination=JOBS)
        first, _ = await one.frame("MESSAGE"), await other.frame("MESSAGE")  # the next turn is the first one's
        await one.receipt("NACK", id=first.get("ack") or "")
        assert (await other.frame("MESSAGE")).body == first.body
        await one.nothing_more()


async def test_a_message_that_everybody_refuses_is_set_aside_and_does_not_block_the_queue(
    server: ChatServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with Peer(server.url) as worker, Peer(server.url) as clerk:
        await worker.subscribe(JOBS, ack="client-individual")
        await worker.receipt("SEND", "poison", destination=JOBS, mine="a:b")
        refused = [await refuse(worker) for _ in range(MAX_REFUSALS)]
        assert [message.get("redelivered") for message in refused] == [None] + ["true"] * (MAX_REFUSALS - 1)
        await worker.receipt("SEND", "work", destination=JOBS)
        assert (await worker.frame("MESSAGE")).body == b"work"
        await clerk.subscribe("/queue/refused.jobs")
        moved = await clerk.frame("MESSAGE")
        assert (moved.body, moved.get("mine"), moved.get("refused")) == (b"poison", "a:b", str(MAX_REFUSALS))
    assert f"refused {MAX_REFUSALS} times" in caplog.text


async def test_disconnecting_does_not_count_as_a_refusal(server: ChatServer) -> None:
    async with Peer(server.url) as sender:
        for number in range(MAX_REFUSALS + 1):
            async with Peer(server.url) as worker:
                await worker.subscribe(JOBS, ack="client")
                if not number:
                    await sender.receipt("SEND", "work", destination=JOBS)
                assert (await worker.frame("MESSAGE")).body == b"work"


async def test_a_subscription_is_confirmed_before_its_first_message(server: ChatServer) -> None:
    async with Peer(server.url) as peer:
        for number in range(20):
            await peer.send("SUBSCRIBE", id=str(number), destination=JOBS, receipt="r")
            assert (await peer.frame(None)).command == "RECEIPT"
            if number:
                assert await bodies(peer, 1) == [b"waits"]
            await peer.receipt("UNSUBSCRIBE", id=str(number))
            await peer.receipt("SEND", "waits", destination=JOBS)


@pytest.mark.parametrize("how", ["leaves", "vanishes"])
async def test_an_unacknowledged_message_goes_to_another_when_its_subscriber_leaves(
    server: ChatServer, how: str
) -> None:
    async with Peer(server.url) as other, Peer(server.url) as one:
        await one.subscribe(JOBS, ack="client")
        await one.receipt("SEND", "work", destination=JOBS)
        await one.frame("MESSAGE")
        await other.subscribe(JOBS, ack="client")
        if how == "leaves":
            await one.receipt("UNSUBSCRIBE", id="sub-0")
        else:
            one.websocket.transport.abort()
        assert (await other.frame("MESSAGE")).body == b"work"


async def test_a_message_waits_for_a_subscriber(server: ChatServer) -> None:
    async with Peer(server.url) as peer:
        await peer.subscribe(JOBS)
        await peer.receipt("UNSUBSCRIBE", id="sub-0")
        await peer.receipt("SEND", "later", destination=JOBS)
        await peer.subscribe(JOBS, id="again")
        assert await bodies(peer, 1) == [b"later"]


ENGINES: dict[str, tuple[str, Callable[[str], Broker]]] = {
    "redis": ("redis_on_path", RedisStreamsBroker),
    "valkey": ("valkey_engine", RedisStreamsBroker),
    "rabbitmq": ("rabbitmq_engine", RabbitMQBroker),
    "kafka": ("kafka_engine", KafkaBroker),
}


@pytest.fixture(params=["memory", *ENGINES])
def any_broker(request: pytest.FixtureRequest) -> Broker:
    if request.param == "memory":
        return MemoryBroker()
    fixture, make = ENGINES[request.param]
    return make(request.getfixturevalue(fixture).url)


async def test_messages_sent_before_the_first_subscriber_wait_for_it(any_broker: Broker) -> None:
    destination = f"/queue/{uuid.uuid4().hex}"
    await any_broker.start()
    async with await chat_server.start(any_broker) as server, Peer(server.url) as peer:
        for number in range(3):
            await peer.receipt("SEND", str(number), destination=destination)
        await peer.subscribe(destination, ack="client-individual")
        for number in range(3):
            message = await peer.frame("MESSAGE", 30)
            assert message.body == b"%d" % number
            await peer.receipt("ACK", id=message.get("ack") or "")
    await any_broker.aclose()


async def test_a_full_queue_refuses_messages_with_the_reason() -> None:
    async with MemoryBroker(max_length=2) as broker, await chat_server.start(broker) as server:
        async with Peer(server.url) as peer:
            await peer.subscribe("/user/queue/errors", id="errors")
            for number in range(2):
                await peer.receipt("SEND", str(number), destination=JOBS)
            await peer.send("SEND", "no", destination=JOBS, receipt="full")
            refused = await peer.frame("MESSAGE")
            assert refused.get("receipt-id") == "full"
            assert json.loads(refused.body)["error"].startswith("refused: the group 'subscribers' is full: 2 records")
        async with Peer(server.url) as peer:
            await peer.send("SEND", "no", destination=JOBS, receipt="full")
            assert (await peer.frame("ERROR")).get("receipt-id") == "full"
        async with Peer(server.url) as peer:
            await peer.subscribe(JOBS)
            assert await bodies(peer, 2) == [b"0", b"1"]


async def test_a_send_to_a_queue_on_an_engine_without_groups_is_an_error(redis_engine: Engine) -> None:
    async with (
        RedisPubSubBroker(redis_engine.url) as broker,
        await chat_server.start(broker) as server,
        Peer(server.url) as peer,
    ):
        await peer.send("SEND", "x", destination=JOBS, receipt="r")
        error = await peer.frame()
        assert (error.command, error.get("receipt-id")) == ("ERROR", "r")
        assert "queues need a broker with groups" in (error.get("message") or "")


async def test_a_queue_skips_records_of_other_programs(server: ChatServer, broker: MemoryBroker) -> None:
    async with Peer(server.url) as peer:
        await peer.subscribe(JOBS, ack="client")
        for body in (
            b"",
            b"[" * 5000,
            b"\xff\n",
            b'{"destination":"/queue/x\\u0000"}\n',
            b'{"destination":"/topic/a"}\nx',
        ):
            await broker.publish("queue:{jobs}", body)
        await peer.receipt("SEND", "work", destination=JOBS)
        assert await bodies(peer, 1) == [b"work"]
        assert server.service.why_not_ready() == ""


async def test_a_subscriber_holds_a_bounded_number_while_others_are_free(server: ChatServer) -> None:
    async with Peer(server.url) as lazy, Peer(server.url) as busy:
        await lazy.subscribe(JOBS, ack="client-individual")
        await busy.subscribe(JOBS)
        for number in range(200):
            await busy.receipt("SEND", str(number), destination=JOBS)
        assert len(await bodies(busy, 200 - 32)) == 168
        assert len(await bodies(lazy, 32)) == 32


async def test_a_queue_has_no_history(server: ChatServer) -> None:
    async with Peer(server.url) as peer:
        await peer.send("SUBSCRIBE", id="0", destination=JOBS, history="5")
        assert "a queue has no history" in ((await peer.frame("ERROR")).get("message") or "")


async def test_a_subscription_to_a_queue_on_an_engine_without_groups_is_an_error(redis_engine: Engine) -> None:
    async with (
        RedisPubSubBroker(redis_engine.url) as broker,
        await chat_server.start(broker) as server,
        Peer(server.url) as peer,
    ):
        await peer.send("SUBSCRIBE", id="0", destination=JOBS)
        assert "queues need a broker with groups" in ((await peer.frame("ERROR")).get("message") or "")


async def test_a_message_held_by_a_killed_instance_goes_to_another_instance(fresh_redis: Engine) -> None:
    dying = RedisStreamsBroker(fresh_redis.url, takeover_after=0.3)
    async with (
        RedisStreamsBroker(fresh_redis.url, takeover_after=0.3) as broker,
        await chat_server.start(broker) as stays,
    ):
        dies = await chat_server.start(dying)
        async with Peer(dies.url) as one, Peer(stays.url) as other:
            await one.subscribe(JOBS, ack="client")
            await one.receipt("SEND", "work", destination=JOBS)
            await one.frame("MESSAGE")
            dies.service.queues._queues[JOBS]._task.cancel()  # as if killed: the engine hears nothing more from there
            await dying.aclose()
            await other.subscribe(JOBS, ack="client")
            assert (await other.frame("MESSAGE", 10)).body == b"work"
        await dies.aclose()


async def test_a_topics_refused_message_is_redelivered_to_the_same_subscriber(server: ChatServer) -> None:
    async with Peer(server.url) as one, Peer(server.url) as other:
        await one.subscribe("/topic/public", ack="client-individual")
        await other.subscribe("/topic/public")
        await other.say("x")
        first = await one.frame("MESSAGE")
        await one.receipt("NACK", id=first.get("ack") or "")
        again = await one.frame("MESSAGE")
        assert (again.body, again.get("redelivered")) == (first.body, "true")
        await one.receipt("ACK", id=again.get("ack") or "")
        assert await other.contents(1) == ["x"]
        await other.nothing_more()


async def test_a_topics_message_refused_too_often_is_dropped(
    server: ChatServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with Peer(server.url) as peer:
        await peer.subscribe("/topic/public", ack="client-individual")
        await peer.say("x")
        for _ in range(MAX_REFUSALS):
            await refuse(peer)
        await peer.nothing_more()
        await peer.say("y")
        assert await peer.contents(1) == ["y"]
    assert "message dropped" in caplog.text


async def test_a_refused_private_message_is_redelivered(server: ChatServer) -> None:
    async with Peer(server.url) as peer:
        await peer.subscribe("/user/queue/errors", ack="client-individual")
        await peer.send("SEND", "{", destination="/app/chat.sendMessage")
        first = await refuse(peer)
        again = await peer.frame("MESSAGE")
        assert (again.body, again.get("redelivered")) == (first.body, "true")


async def test_an_ack_in_client_mode_acknowledges_all_earlier_messages(server: ChatServer) -> None:
    async with Peer(server.url) as peer:
        await peer.subscribe("/topic/public", ack="client")
        for number in range(3):
            await peer.say(str(number))
        messages = [await peer.frame("MESSAGE") for _ in range(3)]
        await peer.receipt("ACK", id=messages[2].get("ack") or "")
        await peer.send("ACK", id=messages[0].get("ack") or "")
        assert "no such message" in ((await peer.frame("ERROR")).get("message") or "")


async def test_a_transaction_sends_nothing_until_it_is_committed_and_nothing_if_it_is_aborted(
    server: ChatServer,
) -> None:
    async with Peer(server.url) as peer:
        await peer.subscribe("/topic/news")
        for name, end in (("t1", "ABORT"), ("t2", "COMMIT")):
            await peer.receipt("BEGIN", transaction=name)
            for number in range(2):
                await peer.receipt("SEND", f"{name} {number}", destination="/topic/news", transaction=name)
            await peer.receipt(end, transaction=name)
        assert await bodies(peer, 2) == [b"t2 0", b"t2 1"]
        await peer.nothing_more()
