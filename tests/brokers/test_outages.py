"""Each engine killed with SIGKILL in the middle of 10,000 publishes, and started again: what each promises then.

Streams (Redis's and RabbitMQ's) and Kafka keep what they confirmed, and readers go on without a gap. Pub/Sub keeps
nothing, and says so. RabbitMQ keeps for a group what it confirmed; without streams, it ends open subscriptions. On no
engine does a publish fail in silence.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from chatlab.brokers.port import (
    BEGINNING,
    Broker,
    Deduplicates,
    GroupConsumer,
    HasGroups,
    KeepsHistory,
    Reader,
)
from chatlab.errors import BrokerUnavailable, SubscriptionLost
from tests.support.broker_cases import CROSSES_PROCESSES, TO_BE_KILLED, Case, bodies, read, topic, until

TOTAL, PUBLISHERS = 10_000, 50

SLOW_TO_START = ("rabbitmq", "rabbitmq-streams", "kafka")
SOME_TAKE_LONG = [
    pytest.param(name, marks=[pytest.mark.long] if name in SLOW_TO_START else []) for name in CROSSES_PROCESSES
]
on_every_engine = pytest.mark.parametrize("unopened_case", SOME_TAKE_LONG, indirect=True)


@pytest.fixture
def unopened_case(request: pytest.FixtureRequest) -> Case:
    case = Case(request.param, request.getfixturevalue(TO_BE_KILLED[request.param]))
    if case.engine is not None and case.engine.pid is None:
        pytest.skip(f"the engine at {case.engine.url} is not ours to kill: unset the variable that names it")
    return case


@dataclass
class Ledger:
    """What was confirmed, and what failed: then the engine may have it or not."""

    confirmed: dict[bytes, str] = field(default_factory=dict)
    failed: list[bytes] = field(default_factory=list)
    half_done: asyncio.Event = field(default_factory=asyncio.Event)

    async def publish(self, broker: Broker, name: str, who: int) -> None:
        for n in range(who, TOTAL, PUBLISHERS):
            body = b"%d" % n
            try:
                self.confirmed[body] = await broker.publish(name, body)
            except BrokerUnavailable:
                self.failed.append(body)
            if len(self.confirmed) > TOTAL // 2:
                self.half_done.set()


async def publish_through_a_kill(case: Case, broker: Broker, name: str) -> Ledger:
    assert case.engine is not None
    ledger = Ledger()
    publishers = [asyncio.create_task(ledger.publish(broker, name, who)) for who in range(PUBLISHERS)]
    await ledger.half_done.wait()
    case.engine.kill()
    await case.engine.restart()
    await asyncio.gather(*publishers)
    assert len(ledger.confirmed) + len(ledger.failed) == TOTAL
    assert len(ledger.failed) <= PUBLISHERS  # those that were under way; the others waited for the engine
    return ledger


async def read_until_lost(reader: Reader) -> list[bytes]:
    got: list[bytes] = []
    with pytest.raises(SubscriptionLost):
        while batch := await reader.batch():
            got += [record.body for record in batch]
    return got


async def work_until(member: GroupConsumer, last: bytes) -> set[bytes]:
    done: set[bytes] = set()
    async with asyncio.timeout(30):
        while last not in done:
            for record in await member.batch():
                done.add(record.body)
                await member.ack(record)
    return done


async def read_until(reader: Reader, last: bytes) -> list[bytes]:
    got: list[bytes] = []
    async with asyncio.timeout(30):
        while last not in got[-1:]:
            got += await bodies(reader, 1)
    return got[:-1]


@on_every_engine
async def test_an_engine_killed_among_ten_thousand_publishes_keeps_its_promise(case: Case) -> None:
    broker, reader, name = await case.broker(), await case.broker(), topic()
    subscription = await reader.subscribe(name)
    if isinstance(reader, HasGroups):
        await reader.join(name, "audit", "a")
    reading = asyncio.create_task(
        read_until(subscription, b"end") if case.readers_resume else read_until_lost(subscription)
    )
    ledger = await publish_through_a_kill(case, broker, name)
    await broker.publish(name, b"end")
    received = await reading
    assert len(received) == len(set(received))  # nothing twice
    if isinstance(broker, KeepsHistory):
        kept = {each.body: each.id for each in await broker.history(name)}
        assert kept.items() >= ledger.confirmed.items()  # everything that was confirmed, under the id it was given
        assert received == [body for body in kept if body != b"end"]  # a gap or a repeat would show here
    if case.name.startswith("rabbitmq"):
        assert isinstance(reader, HasGroups)
        done = await work_until(await reader.join(name, "audit", "b"), b"end")
        assert done >= ledger.confirmed.keys()
    again = await reader.subscribe(name)
    await broker.publish(name, b"works again")
    assert await bodies(again, 1) == [b"works again"]


@on_every_engine
async def test_an_engine_that_is_away_is_reported_and_found_again(case: Case) -> None:
    assert case.engine is not None
    broker, name = await case.broker(), topic()
    reader = await broker.subscribe(name)
    await broker.publish(name, b"before")
    assert await bodies(reader, 1) == [b"before"]
    assert broker.connected
    case.engine.kill()
    await until(lambda: not broker.connected, "the loss is seen")
    waiting = asyncio.create_task(broker.publish(name, b"meanwhile"))  # held back, and not refused
    await case.engine.restart()
    await waiting
    await until(lambda: broker.connected, "the engine is found again")
    if case.readers_resume:
        assert await bodies(reader, 1) == [b"meanwhile"]
    else:
        with pytest.raises(SubscriptionLost):
            await read(reader, 1)


@pytest.mark.parametrize("unopened_case", ["redis-streams", "valkey-streams"], indirect=True)
async def test_publishes_with_keys_all_survive_a_kill_once_each(case: Case) -> None:
    assert case.engine is not None
    broker, name = await case.broker(), topic()
    assert isinstance(broker, Deduplicates)
    assert isinstance(broker, KeepsHistory)
    reading = asyncio.create_task(bodies(await broker.subscribe(name), TOTAL, 40))
    half_done = asyncio.Event()

    async def publish(who: int) -> list[str]:
        ids = []
        for n in range(who, TOTAL, PUBLISHERS):
            ids.append(await broker.publish_once(name, b"%d" % n, str(n)))
            if n > TOTAL // 2:
                half_done.set()
        return ids

    publishers = [asyncio.create_task(publish(who)) for who in range(PUBLISHERS)]
    await half_done.wait()
    case.engine.kill()
    await case.engine.restart()
    ids = await asyncio.gather(*publishers)  # none failed
    received = await reading
    assert sorted(received, key=int) == [b"%d" % n for n in range(TOTAL)]
    stream = {each.id: each.body for each in await broker.history(name)}
    assert [stream[i] for own in ids for i in own] == [
        b"%d" % n for who in range(PUBLISHERS) for n in range(who, TOTAL, PUBLISHERS)
    ]


@pytest.mark.parametrize("unopened_case", ["redis-streams", "valkey-streams"], indirect=True)
async def test_confirmed_records_can_be_read_after_a_kill(case: Case) -> None:
    assert case.engine is not None
    broker, name = await case.broker(), topic()
    assert isinstance(broker, KeepsHistory)
    ids = [await broker.publish(name, b"%d" % n) for n in range(10)]
    case.engine.kill()
    await case.engine.restart()
    assert [each.id for each in await broker.history(name, after=BEGINNING)] == ids
