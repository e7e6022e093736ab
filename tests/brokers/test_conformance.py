"""What every broker does, whatever its engine: the contract of `port.Broker`, on real servers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence

import pytest

from chatlab.brokers.port import (
    BEGINNING,
    Broker,
    Deduplicates,
    Forwards,
    HasGroups,
    KeepsHistory,
    Reader,
    Record,
)
from chatlab.errors import BrokerError, BrokerUnavailable, SubscriptionLost
from chatlab.lab.engines.kinds import free_ports
from tests.support.broker_cases import (
    CROSSES_PROCESSES,
    DEDUPLICATE,
    HAVE_GROUPS,
    KEEP_HISTORY,
    MAKERS,
    Case,
    bodies,
    publish_all,
    read,
    topic,
)


async def test_the_type_says_what_an_engine_can_do(case: Case) -> None:
    broker = await case.broker()
    can = (isinstance(broker, KeepsHistory), isinstance(broker, Deduplicates), isinstance(broker, HasGroups))
    assert isinstance(broker, Broker)
    assert can == (case.name in KEEP_HISTORY, case.name in DEDUPLICATE, case.name in HAVE_GROUPS)


async def test_messages_of_one_publisher_arrive_in_order(case: Case) -> None:
    broker, name = await case.broker(), topic()
    reader = await broker.subscribe(name)
    sent = [b"%d" % n for n in range(300)]
    await publish_all(broker, name, sent, at_once=30)
    assert await bodies(reader, 300) == sent


@pytest.mark.parametrize("octets", [120, 250, 600, 1500])
async def test_topics_with_long_names_carry_messages_and_have_groups(case: Case, octets: int) -> None:
    """A destination has up to 512 characters (chat/destinations.py), each of up to four octets."""
    broker, names = await case.broker(), [topic() + "방" * (octets // 3) + end for end in "ab"]
    readers = [await broker.subscribe(name) for name in names]
    members = [await broker.join(name, "g", "m") for name in names] if isinstance(broker, HasGroups) else []
    for name in names:
        await broker.publish(name, name[-1].encode())
    for name, reader in zip(names, readers, strict=True):
        assert [(record.topic, record.body) for record in await read(reader, 1)] == [(name, name[-1].encode())]
    assert [await bodies(member, 1) for member in members] in ([[b"a"], [b"b"]], [])


async def test_every_subscription_of_every_instance_gets_every_message_once(case: Case) -> None:
    instances, name = [await case.broker() for _ in range(3)], topic()
    readers = [await instance.subscribe(name) for instance in instances for _ in range(2)]
    sent = [b"%d" % n for n in range(60)]
    await asyncio.gather(*(publish_all(i, name, sent[n::3]) for n, i in enumerate(instances)))
    received = [await bodies(reader, 60) for reader in readers]
    assert all(sorted(each) == sorted(sent) for each in received)
    await instances[0].publish(name, b"last")
    assert [await bodies(reader, 1) for reader in readers] == [[b"last"]] * 6  # and nothing twice


async def test_two_concurrent_first_subscribers_both_get_later_messages(case: Case) -> None:
    first, second, name = await case.broker(), await case.broker(), topic()
    readers = await asyncio.gather(*(broker.subscribe(name) for broker in (first, first, second, second)))
    await second.publish(name, b"hello")
    assert [await bodies(reader, 1) for reader in readers] == [[b"hello"]] * 4


async def test_messages_published_before_subscribing_are_not_delivered(case: Case) -> None:
    broker, name = await case.broker(), topic()
    await broker.publish(name, b"before")
    reader = await broker.subscribe(name)
    await broker.publish(name, b"after")
    assert await bodies(reader, 1) == [b"after"]


async def test_a_subscription_that_leaves_does_not_disturb_the_others(case: Case) -> None:
    broker, name = await case.broker(), topic()
    leaving, staying = await broker.subscribe(name), await broker.subscribe(name)
    await broker.publish(name, b"one")
    assert await bodies(leaving, 1) == [b"one"]
    await leaving.aclose()
    await leaving.aclose()
    await broker.publish(name, b"two")
    assert await bodies(staying, 2) == [b"one", b"two"]
    assert list(await leaving.batch()) == []
    assert [record async for record in leaving] == []


async def test_a_topic_can_be_left_and_joined_again(case: Case) -> None:
    broker, name = await case.broker(), topic()
    for n in range(5):
        reader = await broker.subscribe(name)
        await broker.publish(name, b"%d" % n)
        assert await bodies(reader, 1) == [b"%d" % n]
        await reader.aclose()
        await broker.publish(name, b"nobody is here")


async def test_topics_join_and_leave_while_others_are_read(case: Case) -> None:
    reader, writer = await case.broker(), await case.broker()
    busy = topic("busy")
    steady = await reader.subscribe(busy)
    following = asyncio.create_task(bodies(steady, 40))
    for n in range(20):
        name = topic(f"t{n}")
        subscription = await reader.subscribe(name)
        reading = asyncio.create_task(bodies(subscription, 1))
        await writer.publish(busy, b"%d" % n)
        await writer.publish(name, b"x")
        assert await reading == [b"x"]
        await subscription.aclose()
        await writer.publish(busy, b"%d" % n)
    assert await following == [b"%d" % n for n in range(20) for _ in range(2)]


async def test_topics_with_similar_names_are_kept_apart(case: Case) -> None:
    broker = await case.broker()
    names = [topic(name) for name in ("chat:방", "chat.방", "chat/방", "chat방 🙂", "Chat:방", "chat_방")]
    readers = [await broker.subscribe(name) for name in names]
    for name in names:
        await broker.publish(name, name.encode())
    received = [(await read(reader, 1))[0] for reader in readers]
    assert [(record.topic, record.body) for record in received] == [(name, name.encode()) for name in names]


@pytest.mark.parametrize(
    "body",
    [b"", bytes(range(256)), b"\r\n$0\r\n", "안녕 🙂".encode()],
    ids=["nothing", "every octet", "Redis's own syntax", "Korean"],
)
async def test_a_body_arrives_octet_for_octet(case: Case, body: bytes) -> None:
    broker, name = await case.broker(), topic()
    reader = await broker.subscribe(name)
    await broker.publish(name, body)
    assert await bodies(reader, 1) == [body]


async def test_a_body_may_have_a_mebibyte(case: Case) -> None:
    broker, name = await case.broker(), topic()
    reader = await broker.subscribe(name)
    sent = [bytes([n]) * (1 << 20) for n in range(5)]
    await publish_all(broker, name, sent)
    assert await bodies(reader, 5) == sent


async def test_a_slow_reader_delays_no_other_and_ends_when_it_loses_records(case: Case) -> None:
    broker, other, name = await case.broker(), await case.broker(), topic()
    slow, fast = await broker.subscribe(name), await broker.subscribe(name)
    sent = [b"%d" % n for n in range(3000)]
    reading = asyncio.create_task(bodies(fast, 3000, 60))
    await publish_all(other, name, sent)
    assert await reading == sent
    if case.slow_readers_lose:
        with pytest.raises(SubscriptionLost, match="fell 500"):
            await read(slow, 3000)
    else:
        assert await bodies(slow, 3000) == sent


@pytest.mark.parametrize("path", ["batches", "one by one", "after an id", "forwarded"])
async def test_a_stalled_reader_gets_every_record_or_subscription_lost_on_every_read_path(
    case: Case, path: str
) -> None:
    broker, other, name = await case.broker(), await case.broker(), topic()
    before = await other.publish(name, b"before")
    if path == "after an id" and isinstance(broker, KeepsHistory):
        reader = await broker.subscribe(name, after=before)
    else:
        reader = await broker.subscribe(name)
    sent = [b"%d" % n for n in range(3000)]
    await publish_all(other, name, sent)  # nobody reads meanwhile
    got: list[bytes] = []
    try:
        async with asyncio.timeout(40):
            await take(reader, got, len(sent), path)
    except SubscriptionLost:
        assert case.slow_readers_lose
        assert got == sent[: len(got)], "what came before the end is complete"
    else:
        assert got == sent


async def take(reader: Reader, got: list[bytes], count: int, path: str) -> None:
    """Read `count` records into `got`, in one of the ways there are."""
    if path == "forwarded" and isinstance(reader, Forwards):
        complete = asyncio.Event()

        def deliver(batch: Sequence[Record]) -> None:
            got.extend(record.body for record in batch)
            if len(got) >= count:
                complete.set()

        forwarding = asyncio.ensure_future(reader.forward(deliver))
        waiting = asyncio.create_task(complete.wait())
        await asyncio.wait([forwarding, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        await reader.aclose()
        await forwarding
    elif path == "one by one":
        while len(got) < count:
            got.append((await anext(reader)).body)
    else:
        while len(got) < count:
            got.extend(record.body for record in await reader.batch())


async def test_resuming_after_an_id_that_the_engine_has_lost_raises_subscription_lost(case: Case) -> None:
    broker, name = await case.broker(), topic()
    if not isinstance(broker, KeepsHistory):
        assert case.name not in KEEP_HISTORY
        return
    first, last = await broker.publish(name, b"1"), await broker.publish(name, b"2")
    assert [await broker.lost_after(name, id) for id in (BEGINNING, first, last)] == [None, None, None]
    resume = await broker.lost_after(name, "99999999999999-0")  # of a stream that was lost
    assert resume is not None
    reading = asyncio.create_task(bodies(await broker.subscribe(name, after=resume), 1))
    await broker.publish(name, b"3")
    assert (await reading)[0] in (b"1", b"3"), "what is new arrives, and perhaps what the reader has never had"


@pytest.mark.long
async def test_ten_thousand_messages_from_two_instances_arrive_once_in_each_publishers_order(case: Case) -> None:
    instances, name = [await case.broker(), await case.broker()], topic()
    reader = await instances[0].subscribe(name)
    reading = asyncio.create_task(bodies(reader, 10_000, 90))
    sent = [[b"%d:%d" % (who, n) for n in range(5000)] for who in (0, 1)]
    await asyncio.gather(*(publish_all(i, name, each, 250) for i, each in zip(instances, sent, strict=True)))
    received = await reading
    assert [body for body in received if body.startswith(b"0")] == sent[0]
    assert [body for body in received if body.startswith(b"1")] == sent[1]


async def test_a_cancelled_read_loses_nothing(case: Case) -> None:
    broker, name = await case.broker(), topic()
    reader = await broker.subscribe(name)
    sent = [b"%d" % n for n in range(200)]
    publishing = asyncio.create_task(publish_all(broker, name, sent, at_once=1))
    received: list[bytes] = []
    for steps in range(1_000_000):
        reading = asyncio.create_task(reader.batch(5))
        await steps_of_the_loop(steps % 40)
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            received += [record.body for record in await reading]
        if len(received) == 200:
            break
    await publishing
    assert received == sent


@pytest.mark.parametrize("what", ["publish", "subscribe", "leave"])
async def test_cancelling_at_any_await_leaves_the_broker_working(case: Case, what: str) -> None:
    broker, name = await case.broker(), topic()
    witness = await broker.subscribe(name)

    async def leave() -> None:
        await (await broker.subscribe(name)).aclose()

    actions: dict[str, Callable[[], Awaitable[object]]] = {
        "publish": lambda: broker.publish(name, b"maybe"),
        "subscribe": lambda: broker.subscribe(name),
        "leave": leave,
    }
    for steps in range(30 if case.name == "kafka" else 60):
        task = asyncio.ensure_future(actions[what]())
        await steps_of_the_loop(steps)
        task.cancel()
        await asyncio.wait([task])
    subscription = await broker.subscribe(name)
    await broker.publish(name, b"end")
    for reader in (subscription, witness):
        seen = await bodies(reader, 1)
        while seen[-1] != b"end":  # what was cancelled may have been done, and may still be on its way
            seen += await bodies(reader, 1)
        assert set(seen) <= {b"maybe", b"end"}


async def steps_of_the_loop(count: int) -> None:
    """Let everything that is ready run, `count` times; every tenth time, wait for the network a little too."""
    for n in range(count):
        await asyncio.sleep(0.0005 if n % 10 == 9 else 0)


async def test_closing_the_broker_ends_its_readers_without_an_error(case: Case) -> None:
    broker, name = await case.broker(), topic()
    reader = await broker.subscribe(name)
    reading = asyncio.create_task(reader.batch())
    await asyncio.sleep(0)
    await broker.aclose()
    assert list(await reading) == []
    assert not broker.connected
    await broker.aclose()
    with pytest.raises(BrokerError):
        await broker.publish(name, b"too late")
    with pytest.raises(BrokerError):
        await broker.subscribe(name)


@pytest.mark.parametrize("name", CROSSES_PROCESSES)
async def test_starting_without_an_engine_names_its_url_without_the_password(name: str) -> None:
    scheme = {"rabbitmq": "amqp", "rabbitmq-streams": "amqp", "kafka": "kafka"}.get(name, "redis")
    (port,) = free_ports(1)
    broker = MAKERS[name](f"{scheme}://me:secret@127.0.0.1:{port}")
    started = time.monotonic()
    with pytest.raises(BrokerUnavailable, match=rf"{scheme}://.*127.0.0.1:{port}") as caught:
        await broker.start()
    assert "secret" not in str(caught.value)
    assert time.monotonic() - started < 10
    await broker.aclose()
