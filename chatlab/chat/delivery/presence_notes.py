"""How instances inform each other about who is in a room: notes in the broker, whose cost grows with changes.

Each instance has at most two notes per room (`HasPresence`). A note's first line, its heading, says what follows:

    people INSTANCE NUMBER              everybody this instance has there, as of NUMBER
    changes INSTANCE NUMBER.COUNT       who has joined and left since then

While users come and go, only the short note is written. Once it names more than MAX_CHANGES people, the long one is
written again under the next number, and changes to an earlier number no longer count. A reader sends the headings it
knows, and receives only the headings of those notes (`HasPresence.look`).

Each note expires unless it is renewed, so the users of a dead instance disappear with it. A note in another format
belongs to another program, and is skipped. A list without a heading is accepted, but is read in full each time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Set
from dataclasses import dataclass, field

import msgspec

from chatlab.brokers.port import HasPresence
from chatlab.untrusted_json import parse

NOTE_SECONDS = 30.0  # how long the users of a dead instance still show
EMPTY_NOTE_SECONDS = 1.0  # the lifetime of a note that says that nobody is left
MAX_CHANGES = 64  # people in a note of changes
LONGEST_HEADING = 80  # a longer one is another program's, and the whole note is read each time
HEADING = re.compile(r"(people|changes) (\w+) (\d+)(?:\.\d+)?\Z")


class Person(msgspec.Struct, frozen=True, order=True):
    """One user in a room, however many connections it has there."""

    name: str
    handle: str


class Changes(msgspec.Struct, frozen=True):
    """The users who have joined and left."""

    joined: list[Person]
    left: list[Person]

    def __len__(self) -> int:
        return len(self.joined) + len(self.left)


Note = list[Person] | Changes
_people = msgspec.json.Decoder(list[Person])
_changes = msgspec.json.Decoder(Changes)
_encode = msgspec.json.Encoder().encode
NONE = Changes([], [])


def between(before: Set[Person], after: Set[Person]) -> Changes:
    """Return the users who are only in `after`, and those only in `before`, each by name."""
    return Changes(sorted(after - before), sorted(before - after))


@dataclass(slots=True)
class Written:
    """What the broker has of this instance's users in one room, and since when."""

    base: frozenset[Person]
    number: int  # 0: unknown
    changes: Changes = NONE
    count: int = 0
    at: float = 0.0


class OwnNotes:
    """The notes of this instance."""

    def __init__(self, broker: HasPresence, instance: str) -> None:
        self._broker = broker
        self._instance = instance
        self._number = 0
        self._written: dict[str, Written] = {}  # by room, the one renewed longest ago first

    @property
    def rooms(self) -> Collection[str]:
        """The rooms that have a note, the one renewed longest ago first."""
        return self._written.keys()

    def next_renewal(self, after: float) -> float | None:
        """Return when the first note will be `after` seconds old; None without notes."""
        oldest = next(iter(self._written.values()), None)
        return None if oldest is None else oldest.at + after

    async def write(self, room: str, people: Set[Person], now: float) -> None:
        """Write the changes since the last call, if any. Safe to call again after an error."""
        written = self._written.get(room)
        if not people:
            return await self._write_nobody(room)
        if written is None or not written.number:
            return await self._write_people(room, people, now)
        changes = between(written.base, people)
        if len(changes) > MAX_CHANGES:
            return await self._write_people(room, people, now)
        if changes != written.changes:
            written.count += 1
            await self._write_changes(room, changes, written)
            written.changes = changes
        return None

    async def renew(self, room: str, people: Set[Person], now: float) -> None:
        """Extend the notes of a room; write them again if the broker has lost them."""
        written = self._written[room]
        self._moved(room, written, now)  # first, so that other rooms get their turn even if this fails
        if not written.number or not await self._broker.renew(room, self._instance, NOTE_SECONDS):
            written.number = 0
            return await self.write(room, people, now)
        if written.changes:
            await self._write_changes(room, written.changes, written)
        return None

    def is_own(self, heading: str) -> bool:
        """Return whether a note belongs to this instance."""
        found = HEADING.match(heading)
        return found is not None and found[2] == self._instance

    async def _write_people(self, room: str, people: Set[Person], now: float) -> None:
        self._number += 1
        self._moved(room, Written(frozenset(), 0), now)  # until it is confirmed, the broker's content is unknown
        note = f"people {self._instance} {self._number}\n{_encode(sorted(people)).decode()}"
        await self._broker.announce(room, self._instance, note, NOTE_SECONDS)
        self._moved(room, Written(frozenset(people), self._number), now)

    async def _write_changes(self, room: str, changes: Changes, written: Written) -> None:
        note = f"changes {self._instance} {written.number}.{written.count}\n{_encode(changes).decode()}"
        await self._broker.announce(room, f"{self._instance}+", note, NOTE_SECONDS)

    async def _write_nobody(self, room: str) -> None:
        if room in self._written:
            self._number += 1
            await self._broker.announce(
                room, self._instance, f"people {self._instance} {self._number}\n[]", EMPTY_NOTE_SECONDS
            )
            del self._written[room]

    def _moved(self, room: str, written: Written, now: float) -> None:
        self._written.pop(room, None)
        written.at = now
        self._written[room] = written


@dataclass(slots=True)
class OthersNotes:
    """What other instances' notes say about one room, as last read."""

    skip: Callable[[str, str], None]  # called with a note that is not a list of people, and why
    is_own: Callable[[str], bool]
    people: frozenset[Person] = frozenset()
    _read: dict[str, Note | None] = field(default_factory=dict)  # by heading; None: skipped

    @property
    def known(self) -> list[str]:
        """The headings of the notes whose content is known."""
        return [heading for heading in self._read if len(heading) <= LONGEST_HEADING]

    def copy(self) -> OthersNotes:
        """Return a copy that knows the same notes."""
        return OthersNotes(self.skip, self.is_own, self.people, self._read)  # `take` replaces what was read

    def take(self, notes: Iterable[str]) -> bool:
        """Take all notes of the room, known ones as headings only. Return whether any has changed."""
        before, self._read = self._read, {}
        for note in notes:
            heading, _, body = note.partition("\n")
            self._read[heading] = before[heading] if heading in before else self._content(heading, body)
        if self._read.keys() == before.keys():
            return False
        self.people = frozenset(self._combined())
        return True

    def _content(self, heading: str, body: str) -> Note | None:
        try:
            if HEADING.match(heading) is None:
                return parse(_people.decode, heading.encode())
            if self.is_own(heading):
                return None
            if heading.startswith("people"):
                return parse(_people.decode, body.encode())
            return parse(_changes.decode, body.encode())
        except ValueError as error:
            self.skip(heading if HEADING.match(heading) is None else body, str(error))
            return None

    def _combined(self) -> set[Person]:
        changes = {_base_of(heading): note for heading, note in self._read.items() if isinstance(note, Changes)}
        found: set[Person] = set()
        for heading, note in self._read.items():
            if isinstance(note, list):
                since = changes.get(heading, NONE)
                found |= (set(note) | set(since.joined)) - set(since.left)
        return found


def _base_of(heading: str) -> str:
    """Return the heading of the list that these changes apply to."""
    return heading.replace("changes", "people", 1).partition(".")[0]
