"""Who is in a room, on all instances together: `/topic/who.NAME`.

Each instance keeps one note per room in the broker, with the names of those it has there, and renews it before it
expires; a room's people are those in all its notes. An instance that dies renews nothing, and its people are gone
with its note.

A subscriber to `/topic/who.NAME` gets the list at once and whenever it changes. Nothing goes through a stream: an
instance that has somebody watching a room looks at its notes now and then, and sends what has changed.

Without notes that expire (`HasPresence`), an instance knows its own people alone. A note that is no list of people is
another program's, and is skipped.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

import msgspec

from chatlab.brokers.port import Broker, HasPresence
from chatlab.chat.app import User
from chatlab.chat.destinations import JSON, WHO_PREFIX, Record
from chatlab.errors import BrokerClosed, BrokerError, BrokerUnavailable
from chatlab.foreign_json import parse
from chatlab.retry import Backoff, Retry
from chatlab.stomp.frames import Message
from chatlab.tasks import Tasks, cancel

logger = logging.getLogger("chatlab.chat")

NOTE_SECONDS = 30.0  # how long a dead instance's people still show
RENEW_SECONDS = 10.0
LOOK_SECONDS = 1.0  # how late a change on another instance shows
GOODBYE_SECONDS = 1.0  # for a broker that may be away just now; the notes expire anyway
MAX_SHOWN = 500
WAITS = Backoff(longest=2.0)  # for a broker that is away
MAX_LOGGED = 1000  # faults remembered, so that each is logged once


class Person(msgspec.Struct, frozen=True, order=True):
    """One user in a room, however many connections it has there."""

    name: str
    handle: str


People = list[Person]
_people = msgspec.json.Decoder(People)


class Presence:
    """This instance's people by room, and the lists its watchers were sent last."""

    def __init__(
        self, broker: Broker, instance: str, send: Callable[[Record], None], tasks: Tasks | None = None
    ) -> None:
        self._notes = broker if isinstance(broker, HasPresence) else None
        self._instance = instance
        self._send = send
        self._here: dict[str, Counter[Person]] = {}
        self._watchers: Counter[str] = Counter()
        self._sent: dict[str, People] = {}
        self._announced: dict[str, float] = {}  # by room: when its note was last written
        self._changed: dict[str, None] = {}  # rooms whose note is to be written
        self._logged: dict[tuple[str, str], None] = {}  # by room and reason: what is wrong with others' notes
        self._numbers = itertools.count(1)
        self._wake = asyncio.Event()
        self._tasks = Tasks(logger) if tasks is None else tasks
        self._task: asyncio.Task[None] | None = None

    def enter(self, room: str, user: User) -> None:
        """A user of this instance has subscribed to a room."""
        self._here.setdefault(room, Counter())[Person(user.name, user.handle)] += 1
        self._touch(room)

    def leave(self, room: str, user: User) -> None:
        """And has left it."""
        people = self._here[room]
        people[Person(user.name, user.handle)] -= 1
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
        return sorted({person for note in notes for person in self._in_note(room, note)})

    async def aclose(self) -> None:
        """Take this instance's people out of the rooms."""
        await cancel(self._task)
        self._here.clear()
        try:
            async with asyncio.timeout(GOODBYE_SECONDS):
                for room in list(self._announced):
                    await self._unless_refused(room, self._announce(room))
        except (BrokerError, TimeoutError) as error:
            logger.info("presence is left to expire: %r", error)

    def _touch(self, room: str) -> None:
        self._changed[room] = None
        self._wake.set()
        if self._task is None:
            self._task = self._tasks.start(self._run(), name="presence")

    async def _run(self) -> None:
        retry = Retry(on=BrokerError, backoff=WAITS, on_failure=_note_waiting)
        with suppress(BrokerClosed):
            async for attempt in retry:
                with attempt:
                    while True:
                        # Before the work: what happens meanwhile is for the next round, and that begins at once.
                        self._wake.clear()
                        await self._announce_changed()
                        await self._look()
                        retry.reset()
                        await self._pause()

    async def _pause(self) -> None:
        """Wait for a change, here or (by looking) elsewhere."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS if self._watchers else RENEW_SECONDS):
                await self._wake.wait()
        if self._wake.is_set():
            await asyncio.sleep(LOOK_SECONDS / 10)  # people come and go in crowds

    async def _announce_changed(self) -> None:
        """Write the notes that have changed or are to be renewed, each once."""
        due = asyncio.get_running_loop().time() - RENEW_SECONDS
        # All are taken before anything is awaited: a room that changes while its note is on its way is due again.
        rooms = self._changed | dict.fromkeys(room for room in self._here if self._announced.get(room, due) <= due)
        self._changed = {}
        try:
            while rooms:
                room = next(iter(rooms))
                await self._unless_refused(room, self._announce(room))
                del rooms[room]
        finally:
            self._changed = rooms | self._changed

    async def _announce(self, room: str) -> None:
        people = sorted(self._here.get(room, ()))
        if not people:
            self._here.pop(room, None)
            if room not in self._announced:
                return
        now = asyncio.get_running_loop().time()
        if self._notes is not None:
            note = msgspec.json.encode(people).decode()
            await self._notes.announce(room, self._instance, note, NOTE_SECONDS if people else 1.0)
        if people:
            self._announced[room] = now
        else:
            self._announced.pop(room, None)

    async def _look(self) -> None:
        for room in list(self._watchers):
            await self._unless_refused(room, self._tell_of(room))

    async def _tell_of(self, room: str) -> None:
        people = await self.people(room)
        if self._sent.get(room) != people and room in self._watchers:
            self._sent[room] = people
            self._send(self._record(room, people))

    async def _unless_refused(self, room: str, work: Awaitable[None]) -> None:
        """Do what concerns one room. If the engine refuses it (a key of another kind), the other rooms go on."""
        try:
            await work
        except (BrokerUnavailable, BrokerClosed):
            raise
        except BrokerError as error:
            self._log_once(room, "presence is refused", str(error))

    def _in_note(self, room: str, note: str) -> Iterable[Person]:
        try:
            return parse(_people.decode, note.encode())
        except ValueError as error:
            self._log_once(room, "presence: a note is no list of people", f"{note[:80]!r} ({error})")
            return ()

    def _log_once(self, room: str, what: str, why: str) -> None:
        if (room, why) not in self._logged:
            self._logged[room, why] = None
            logger.warning("%s: room %r, %s", what, room, why)
        if len(self._logged) > MAX_LOGGED:
            del self._logged[next(iter(self._logged))]

    def _record(self, room: str, people: People) -> Record:
        """The MESSAGE that says who is in a room; of a crowd the first so many, and how many there are."""
        destination = WHO_PREFIX + room
        body = msgspec.json.encode({"room": room, "count": len(people), "people": people[:MAX_SHOWN]})
        name = f"{destination[1:]}/{self._instance}-{next(self._numbers)}"
        return Record("", destination, Message(destination, name, body, [("content-type", JSON)]))


def _note_waiting(error: Exception, wait: float) -> None:
    logger.warning("presence waits, next try in %.1f s: %s", wait, error)
