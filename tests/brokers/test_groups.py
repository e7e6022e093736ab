"""What every broker does that has groups (`port.HasGroups`): share the work, and lose none of it."""

from __future__ import annotations

import asyncio

import pytest

from chatlab.brokers.port import GroupConsumer, HasGroups
from tests.support.broker_cases import HAVE_GROUPS, Case, bodies, publish_all, read, topic, until

pytestmark = pytest.mark.parametrize("unopened_case", HAVE_GROUPS, indirect=True)


@pytest.fixture
async def workshop(case: Case) -> HasGroups:
    broker = await case.broker()
    assert isinstance(broker, HasGroups)
    return broker


async def work(member: GroupConsumer, done: list[bytes]) -> None:
    async for record in member:
        done.append(record.body)
        await member.ack(record)


async def test_each_record_goes_to_one_member(case: Case, workshop: HasGroups) -> None:
    other, name = await case.broker(), topic()
    assert isinstance(other, HasGroups)
    done: list[bytes] = []
    members = [await workshop.join(name, "audit", "a"), await other.join(name, "audit", "b")]
    workers = [asyncio.create_task(work(member, done)) for member in members]
    sent = [b"%d" % n for n in range(300)]
    await publish_all(workshop, name, sent)
    await until(lambda: len(done) == 300, "all is done")
    assert sorted(done) == sorted(sent)
    for worker in workers:
        worker.cancel()


async def test_every_group_gets_every_record_and_so_do_readers(workshop: HasGroups) -> None:
    name = topic()
    reader = await workshop.subscribe(name)
    members = [await workshop.join(name, group, "a") for group in ("audit", "notify")]
    await workshop.publish(name, b"x")
    for member in members:
        (record,) = await read(member, 1)
        assert record.body == b"x"
        await member.ack(record)
    assert await bodies(reader, 1) == [b"x"]


async def test_a_new_group_starts_with_what_is_published_after_joining(workshop: HasGroups) -> None:
    name = topic()
    await workshop.publish(name, b"before")
    member = await workshop.join(name, "audit", "a")
    await workshop.publish(name, b"after")
    assert await bodies(member, 1) == [b"after"]


async def test_work_waits_for_a_group_whose_members_are_away(workshop: HasGroups) -> None:
    name = topic()
    await (await workshop.join(name, "audit", "a")).aclose()
    await publish_all(workshop, name, [b"1", b"2"])
    member = await workshop.join(name, "audit", "b")
    assert sorted(await bodies(member, 2)) == [b"1", b"2"]


async def test_the_unacknowledged_records_of_a_dead_member_are_taken_over(case: Case, workshop: HasGroups) -> None:
    dying, name = await case.broker(), topic()
    assert isinstance(dying, HasGroups)
    first = await dying.join(name, "audit", "first")
    await publish_all(workshop, name, [b"1", b"2", b"3"], at_once=1)
    records = await read(first, 3)
    await first.ack(records[0])
    if case.engine is None:
        await first.aclose()  # nothing can die alone in one process
    else:
        await dying.aclose()  # its connections break; nobody acknowledges 2 and 3
    second = await workshop.join(name, "audit", "second")
    taken = await read(second, 2)
    assert sorted(record.body for record in taken) == [b"2", b"3"]
    for record in taken:
        await second.ack(record)
    await workshop.publish(name, b"4")
    assert await bodies(second, 1) == [b"4"]


async def test_a_group_that_was_created_keeps_work_for_its_first_member(case: Case, workshop: HasGroups) -> None:
    name = topic()
    await workshop.create_group(name, "audit")
    await publish_all(workshop, name, [b"1"])
    await workshop.create_group(name, "audit")  # it is there: nothing happens
    await publish_all(workshop, name, [b"2"])
    assert await bodies(await workshop.join(name, "audit", "a"), 2) == [b"1", b"2"]
