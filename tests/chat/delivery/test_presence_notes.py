"""The notes by which instances tell each other who is in a room."""

from __future__ import annotations

import pytest

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.delivery.presence_notes import MAX_CHANGES, OthersNotes, OwnNotes, Person, between
from chatlab.errors import BrokerError, BrokerUnavailable


def person(name: str) -> Person:
    return Person(name, f"h-{name}")


def crowd(count: int, first: int = 0) -> set[Person]:
    return {person(f"{number:04}") for number in range(first, first + count)}


class Weighed(MemoryBroker):
    """Count the characters written and read; fail on request."""

    def __init__(self) -> None:
        super().__init__()
        self.written = self.read = 0
        self.away = self.lost = False

    async def renew(self, place: str, who: str, seconds: float) -> bool:
        if self.away:
            raise BrokerError("WRONGTYPE Operation against a key holding the wrong kind of value")
        return await super().renew(place, who, seconds)

    async def announce(self, place: str, who: str, note: str, seconds: float) -> None:
        if self.away:
            raise BrokerUnavailable("away")
        self.written += len(note)
        await super().announce(place, who, note, seconds)
        if self.lost:
            raise BrokerUnavailable("away before it answered")


class Pair:
    """An instance that writes notes, and another that reads them."""

    def __init__(self, broker: Weighed) -> None:
        self.broker = broker
        self.own = OwnNotes(broker, "one")
        self.skipped: list[str] = []
        self.others = OthersNotes(lambda note, why: self.skipped.append(note), OwnNotes(broker, "two").is_own)

    async def write(self, people: set[Person]) -> None:
        await self.own.write("cats", people, 0.0)

    async def read(self) -> set[Person]:
        notes = await self.broker.look("cats", self.others.known)
        self.broker.read += sum(map(len, notes))
        self.others.take(notes)
        return set(self.others.people)


async def test_another_instance_reads_the_same_people_after_every_change() -> None:
    async with Weighed() as broker:
        pair, people = Pair(broker), set[Person]()
        for step in range(5 * MAX_CHANGES):
            people = people ^ {person(str(step * 7 % 100))} if step % 50 else crowd(step // 5)
            await pair.write(people)
            if step % 3 == 0:
                assert await pair.read() == people
        await pair.write(set())
        assert await pair.read() == set()
        assert pair.skipped == []


async def test_a_user_that_comes_and_goes_costs_the_same_in_a_crowd_as_alone() -> None:
    async with Weighed() as broker:
        pair = Pair(broker)
        people = crowd(5000)
        await pair.write(people)
        assert await pair.read() == people
        broker.written = broker.read = 0
        for _ in range(50):
            await pair.write(people | {person("flapper")})
            assert person("flapper") in await pair.read()
            await pair.write(people)
            assert await pair.read() == people
        assert broker.written < 100 * 200
        assert broker.read < 100 * 300


async def test_nothing_is_written_without_a_change_and_renewal_writes_no_list() -> None:
    async with Weighed() as broker:
        pair = Pair(broker)
        await pair.write(crowd(1000))
        broker.written = 0
        await pair.write(crowd(1000))
        await pair.own.renew("cats", crowd(1000), 5.0)
        assert broker.written == 0
        assert pair.own.next_renewal(10.0) == 15.0


async def test_notes_that_the_broker_has_lost_are_written_again_at_renewal() -> None:
    async with Weighed() as broker:
        pair = Pair(broker)
        await pair.write(crowd(3))
        broker._notes.clear()
        await pair.own.renew("cats", crowd(3), 5.0)
        assert await pair.read() == crowd(3)


async def test_a_note_that_cannot_be_renewed_does_not_hold_up_the_next() -> None:
    async with Weighed() as broker:
        pair = Pair(broker)
        for room in ("cats", "dogs"):
            await pair.own.write(room, crowd(2), 0.0)
        broker.away = True
        with pytest.raises(BrokerError):
            await pair.own.renew("cats", crowd(2), 5.0)
        assert list(pair.own.rooms) == ["dogs", "cats"]


@pytest.mark.parametrize("fault", ["away", "lost"], ids=["not written", "written, but not confirmed"])
async def test_the_note_after_a_failed_write_is_complete(fault: str) -> None:
    async with Weighed() as broker:
        pair = Pair(broker)
        await pair.write(crowd(3))
        for people in (crowd(MAX_CHANGES + 10), crowd(4), crowd(5), set[Person]()):
            setattr(broker, fault, True)
            with pytest.raises(BrokerUnavailable):
                await pair.write(people)
            setattr(broker, fault, False)
            await pair.write(people)
            assert await pair.read() == people


async def test_an_instance_ignores_its_own_notes() -> None:
    async with Weighed() as broker:
        own = OwnNotes(broker, "one")
        await own.write("cats", crowd(2), 0.0)
        others = OthersNotes(lambda note, why: None, own.is_own)
        others.take(await broker.look("cats", others.known))
        assert others.people == set()


def test_changes_to_a_missing_list_are_ignored() -> None:
    others = OthersNotes(lambda note, why: None, lambda heading: False)
    changes = 'changes one 2.1\n{"joined":[{"name":"x","handle":"h"}],"left":[]}'
    assert others.take(["people one 1\n[]", changes])
    assert others.people == set()
    assert others.take(["people one 2\n[]", "changes one 2.1"])
    assert others.people == {Person("x", "h")}
    assert not others.take(["changes one 2.1", "people one 2"])


def test_a_list_without_a_heading_is_read() -> None:
    others = OthersNotes(lambda note, why: None, lambda heading: False)
    others.take(['[{"name":"Ana","handle":"h"}]'])
    assert others.people == {Person("Ana", "h")}


def test_changes_between_two_sets_of_people_are_sorted() -> None:
    changes = between({person("c"), person("a")}, {person("a"), person("d"), person("b")})
    assert [[each.name for each in part] for part in (changes.joined, changes.left)] == [["b", "d"], ["c"]]
    assert len(changes) == 3
