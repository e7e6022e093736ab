"""Who is in a room, on all instances together: `/topic/who.NAME`.

Each instance keeps one note per room in the broker, with the names of those it has there, and renews it before it
expires; a room's people are those in all its notes. An instance that dies renews nothing, and its people are gone
with its note.

A subscriber to `/topic/who.NAME` gets the list at once and whenever it changes. Nothing goes through a stream: an
instance that has somebody watching a room looks at its notes now and then, and sends what has changed.

Without notes that expire (`HasPresence`), an instance knows its own people alone.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import Callable

import msgspec

from chatlab.brokers.port import Broker, HasPresence
from chatlab.chat.app import User
from chatlab.chat.destinations import JSON, WHO_PREFIX, Record
from chatlab.errors import BrokerError
from chatlab.stomp.frames import Message

logger = logging.getLogger("chatlab.chat")

NOTE_SECONDS = 30.0  # how long a dead instance's people still show
RENEW_SECONDS = 10.0
LOOK_SECONDS = 1.0  # how late a change on another instance shows
GOODBYE_SECONDS = 1.0  # for a broker that may be away just now; the notes expire anyway
MAX_SHOWN = 500


class Person(msgspec.Struct, frozen=True, order=True):
    """One user in a room, however many connections it has there."""

    name: str
    principal: str


People = list[Person]
_people = msgspec.json.Decoder(People)


class Presence:
    """This instance's people by room, and the lists its watchers were sent last."""

    def __init__(self, broker: Broker, instance: str, send: Callable[[Record], None]) -> None:
        self._notes = broker if isinstance(broker, HasPresence) else None
        self._instance = instance
        self._send = send
        self._here: dict[str, Counter[Person]] = {}
        self._watchers: Counter[str] = Counter()
        self._sent: dict[str, People] = {}
        self._announced: dict[str, float] = {}  # by room: when its note was last written
        self._changed: dict[str, None] = {}
        self._numbers = itertools.count(1)
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def enter(self, room: str, user: User) -> None:
        """A user of this instance has subscribed to a room."""
        self._here.setdefault(room, Counter())[Person(user.name, user.principal)] += 1
        self._touch(room)

    def leave(self, room: str, user: User) -> None:
        """And has left it."""
        people = self._here[room]
        people[Person(user.name, user.principal)] -= 1
        self._here[room] = +people
        self._touch(room)

    def watch(self, room: str) -> None:
        """Somebody on this instance wants to know who is in a room."""
        self._watchers[room] += 1
        self._sent.pop(room, None)  # so that the list is sent again, to the newcomer too
        self._touch(room)

    def unwatch(self, room: str) -> None:
        """And does not any more."""
        self._watchers[room] -= 1
        if not self._watchers[room]:
            del self._watchers[room]
            self._sent.pop(room, None)

    async def people(self, room: str) -> People:
        """Everybody in a room, by name."""
        if self._notes is None:
            return sorted(self._here.get(room, ()))
        notes = await self._notes.present(room)
        return sorted({person for note in notes for person in _people.decode(note)})

    async def aclose(self) -> None:
        """Take this instance's people out of the rooms."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._here.clear()
        try:
            async with asyncio.timeout(GOODBYE_SECONDS):
                for room in list(self._announced):
                    await self._announce(room)
        except (BrokerError, TimeoutError) as error:
            logger.info("presence is left to expire: %r", error)

    def _touch(self, room: str) -> None:
        self._changed[room] = None
        self._wake.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="presence")

    async def _run(self) -> None:
        while True:
            try:
                await self._announce_all()
                await self._look()
            except BrokerError as error:
                logger.warning("presence waits: %s", error)
            self._wake.clear()
            try:
                async with asyncio.timeout(LOOK_SECONDS if self._watchers else RENEW_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(LOOK_SECONDS / 10)  # people come and go in crowds

    async def _announce_all(self) -> None:
        due = asyncio.get_running_loop().time() - RENEW_SECONDS
        for room in [*self._changed, *(room for room in self._here if self._announced.get(room, due) <= due)]:
            await self._announce(room)
            self._changed.pop(room, None)

    async def _announce(self, room: str) -> None:
        people = sorted(self._here.get(room, ()))
        if not people:
            self._here.pop(room, None)
            if self._announced.pop(room, None) is None:
                return
        else:
            self._announced[room] = asyncio.get_running_loop().time()
        if self._notes is not None:
            note = msgspec.json.encode(people).decode()
            await self._notes.announce(room, self._instance, note, NOTE_SECONDS if people else 1.0)

    async def _look(self) -> None:
        for room in list(self._watchers):
            people = await self.people(room)
            if self._sent.get(room) != people and room in self._watchers:
                self._sent[room] = people
                self._send(self._record(room, people))

    def _record(self, room: str, people: People) -> Record:
        """The MESSAGE that says who is in a room; of a crowd the first so many, and how many there are."""
        destination = WHO_PREFIX + room
        body = msgspec.json.encode({"room": room, "count": len(people), "people": people[:MAX_SHOWN]})
        name = f"{destination[1:]}/{self._instance}-{next(self._numbers)}"
        return Record("", destination, Message(destination, name, body, [("content-type", JSON)]))
