"""Who is in a room, on all instances together: `/topic/who.NAME`.

A subscriber receives the list once, and then what changes:

    {"room": "cats", "version": 7, "count": 2, "people": [{"name": "Ana", "handle": "5f…"}, …]}
    {"room": "cats", "version": 8, "count": 2, "joined": [{"name": "민지", …}], "left": [{"name": "Ben", …}]}
    {"room": "cats", "version": 9, "count": 614, "again": 12.0}

`version` grows by one with each change: a subscriber that sees another number has missed something, and subscribes
again for the list. Of a crowd the list has the first MAX_SHOWN, and `count` is of all. `again` stands for more than
MAX_TOLD changes at once: subscribe again at a random moment within that many seconds, or all would at once.

What costs grows with changes, and no one can make many: those of a room are gathered for LOOK_SECONDS from the first
on, so who enters and leaves within that time is not told at all. The list goes to the newcomer alone, and to one
connection once in LOOK_SECONDS.

Nothing goes through a stream. Instances tell each other by notes in the broker (presence_notes.py); an instance that
has somebody watching a room looks once in LOOK_SECONDS whether there is another note. Without such notes
(`HasPresence`), an instance knows its own people alone.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from heapq import nsmallest

import msgspec

from chatlab.brokers.port import Broker, HasPresence
from chatlab.chat.app import User
from chatlab.chat.delivery.hub import Subscriber
from chatlab.chat.delivery.presence_notes import Changes, OthersNotes, OwnNotes, Person, between
from chatlab.chat.destinations import JSON, WHO_PREFIX, ChatRecord
from chatlab.errors import BrokerClosed, BrokerError, BrokerUnavailable
from chatlab.retry import Backoff, Retry
from chatlab.stomp.frames import MessageFrame
from chatlab.tasks import Tasks, cancel

logger = logging.getLogger("chatlab.chat")

RENEW_SECONDS = 10.0
LOOK_SECONDS = 1.0  # for which changes are gathered, and how late a change on another instance is seen
GOODBYE_SECONDS = 1.0  # for a broker that may be away just now; the notes expire anyway
MAX_SHOWN = 500  # people in a list
MAX_TOLD = 50  # people in a change
IN_A_ROW = 50  # rooms for which one thing is done before the next thing has its turn
LISTS_PER_SECOND = 50  # how many of a room's watchers are asked to subscribe again in a second
WAITS = Backoff(longest=2.0)  # for a broker that is away
MAX_LOGGED = 1000  # faults remembered, so that each is logged once

People = list[Person]
SendTo = Callable[[Subscriber, ChatRecord], None]


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of a MESSAGE to a room's watchers: the list, a change, or that there were too many changes."""

    room: str
    version: int
    count: int
    people: list[Person] | None = None
    joined: list[Person] | None = None
    left: list[Person] | None = None
    again: float | None = None


@dataclass(slots=True)
class Watched:
    """One room that is watched on this instance, and what its watchers know."""

    others: OthersNotes
    local: frozenset[Person]  # this instance's people, as last told
    people: frozenset[Person] | None = None  # everybody, as last told; None before the first look
    version: int = 1
    list: ChatRecord | None = None  # the list as of this version, once somebody has asked
    watchers: int = 0
    waiting: dict[Subscriber, None] = field(default_factory=dict)  # a dict, as a set that keeps its order
    served: set[object] = field(default_factory=set)  # connections that have had the list a moment ago
    served_since: float = 0.0


class Presence:
    """This instance's people by room, and what its watchers know."""

    def __init__(
        self,
        broker: Broker,
        instance: str,
        send: Callable[[ChatRecord], None],
        tasks: Tasks | None = None,
        *,
        send_to: SendTo | None = None,
    ) -> None:
        self._broker = broker if isinstance(broker, HasPresence) else None
        self._own = OwnNotes(self._broker, instance) if self._broker is not None else None
        self._instance = instance
        self._send = send
        self._send_to = send_to
        self._here: dict[str, Counter[Person]] = {}
        self._watched: dict[str, Watched] = {}
        # Each the one due first, first.
        self._settling: dict[str, float] = {}  # by room that has changed: when to send the change
        self._looking: dict[str, float] = {}  # watched rooms, and when they are looked at
        self._unseen: dict[str, None] = {}  # watched rooms that have not been looked at yet
        self._logged: dict[tuple[str, str], None] = {}  # by room and reason: what is wrong with others' notes
        self._numbers = itertools.count(1)
        self._wake = asyncio.Event()
        self._tasks = Tasks(logger) if tasks is None else tasks
        self._task: asyncio.Task[None] | None = None

    def enter(self, room: str, user: User) -> None:
        """A user of this instance has subscribed to a room."""
        person = Person(user.name, user.handle)
        here = self._here.setdefault(room, Counter())
        here[person] += 1
        if here[person] == 1:
            self._changed(room)

    def leave(self, room: str, user: User) -> None:
        """And has left it."""
        person = Person(user.name, user.handle)
        here = self._here[room]
        here[person] -= 1
        if here[person]:
            return
        del here[person]
        if not here:
            del self._here[room]
        self._changed(room)

    def watch(self, room: str, subscriber: Subscriber | None = None) -> None:
        """Somebody on this instance wants to know who is in a room. The list is sent as soon as it is known."""
        watched = self._watched.get(room)
        if watched is None:
            watched = self._watched[room] = Watched(self._nothing_read(room), self._local(room))
            self._unseen[room] = None
            self._start()
        watched.watchers += 1
        if subscriber is not None:
            self._give_list(room, watched, subscriber)

    def unwatch(self, room: str, subscriber: Subscriber | None = None) -> None:
        """And does not any more."""
        watched = self._watched[room]
        watched.watchers -= 1
        if subscriber is not None:
            watched.waiting.pop(subscriber, None)
        if not watched.watchers:
            del self._watched[room]
            self._unseen.pop(room, None)
            self._looking.pop(room, None)

    async def people(self, room: str) -> People:
        """Everybody in a room, by name."""
        if self._broker is None:
            return sorted(self._local(room))
        watched = self._watched.get(room)
        # A copy, if it knows most of the notes already: what is new is for `_look` to take, and to tell.
        others = self._nothing_read(room) if watched is None else watched.others.copy()
        others.take(await self._broker.look(room, others.known))
        return sorted(self._local(room) | others.people)

    async def aclose(self) -> None:
        """Take this instance's people out of the rooms."""
        await cancel(self._task)
        self._here.clear()
        if self._own is None:
            return
        try:
            async with asyncio.timeout(GOODBYE_SECONDS):
                for room in list(self._own.rooms):
                    await self._unless_refused(room, self._own.write(room, frozenset(), 0.0))
        except (BrokerError, TimeoutError) as error:
            logger.info("presence is left to expire: %r", error)

    # --- The task that tells the others ---

    def _changed(self, room: str) -> None:
        """Tell of it later, together with what follows in that time."""
        if room not in self._settling:
            self._settling[room] = asyncio.get_running_loop().time() + LOOK_SECONDS
            self._start()

    def _start(self) -> None:
        self._wake.set()
        if self._task is None:
            self._task = self._tasks.start(self._run(), name="presence")

    async def _run(self) -> None:
        retry = Retry(on=BrokerError, backoff=WAITS, on_failure=_note_waiting)
        with suppress(BrokerClosed):
            async for attempt in retry:
                with attempt:
                    while True:
                        # Before the work: what happens meanwhile is for the next round.
                        self._wake.clear()
                        await self._settle()
                        await self._look()
                        await self._renew()
                        retry.reset()
                        await self._pause()

    async def _pause(self) -> None:
        """Wait until something is due, or something is there that may be due sooner."""
        if self._unseen:
            return  # there were more than are looked at in a row
        firsts = [next(iter(due.values()), None) for due in (self._settling, self._looking)]
        firsts.append(self._own.next_renewal(RENEW_SECONDS) if self._own is not None else None)
        until = min((first for first in firsts if first is not None), default=None)
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._wake.wait()
        if self._wake.is_set():
            await asyncio.sleep(LOOK_SECONDS / 20)  # people come in crowds

    async def _settle(self) -> None:
        """Tell watchers and other instances of the rooms whose changes have been gathered long enough."""
        for room in _due(self._settling):
            del self._settling[room]
            self._tell_local(room)
            if self._own is not None:
                try:
                    await self._unless_refused(room, self._own.write(room, self._local(room), _now()))
                except (BrokerUnavailable, BrokerClosed):
                    self._settling.setdefault(room, _now())
                    raise

    async def _look(self) -> None:
        """Look at the watched rooms whose time has come, and at those that are new: some now, the rest next time."""
        for room in [*itertools.islice(self._unseen, IN_A_ROW), *_due(self._looking)]:
            if room in self._watched:
                await self._look_at(room, self._watched[room])

    async def _look_at(self, room: str, watched: Watched) -> None:
        if self._broker is not None:
            await self._unless_refused(room, self._read(room, watched, self._broker))
        if self._watched.get(room) is not watched:
            return  # nobody watches it any more
        self._tell(room, watched)
        _forget_served(watched)
        for subscriber in list(watched.waiting):
            self._give_list(room, watched, subscriber)
        self._unseen.pop(room, None)
        self._looking.pop(room, None)
        self._looking[room] = _now() + LOOK_SECONDS

    async def _read(self, room: str, watched: Watched, broker: HasPresence) -> None:
        watched.others.take(await broker.look(room, watched.others.known))

    async def _renew(self) -> None:
        """Have the notes stand for longer that were last written or renewed a while ago."""
        own = self._own
        for _ in range(IN_A_ROW):
            if own is None or (due := own.next_renewal(RENEW_SECONDS)) is None or due > _now():
                break
            room = next(iter(own.rooms))
            await self._unless_refused(room, own.renew(room, self._local(room), _now()))

    async def _unless_refused(self, room: str, work: Awaitable[None]) -> None:
        """Do what concerns one room. If the engine refuses it (a key of another kind), the other rooms go on."""
        try:
            await work
        except (BrokerUnavailable, BrokerClosed):
            raise
        except BrokerError as error:
            self._log_once(room, "presence is refused", str(error))

    # --- What the watchers are told ---

    def _tell_local(self, room: str) -> None:
        watched = self._watched.get(room)
        if watched is not None:
            watched.local = self._local(room)
            if watched.people is not None:
                self._tell(room, watched)

    def _tell(self, room: str, watched: Watched) -> None:
        """Send the watchers what has changed since they were told last."""
        before, people = watched.people, watched.local | watched.others.people
        if people == before:
            return
        watched.people, watched.list = people, None
        if before is not None:
            watched.version += 1
            self._send(self._record(self._change(room, watched, between(before, people))))

    def _change(self, room: str, watched: Watched, changes: Changes) -> Told:
        count = len(watched.people or ())
        if len(changes) > MAX_TOLD:
            return Told(room, watched.version, count, again=max(2.0, watched.watchers / LISTS_PER_SECOND))
        return Told(room, watched.version, count, joined=changes.joined, left=changes.left)

    def _give_list(self, room: str, watched: Watched, subscriber: Subscriber) -> None:
        """Send the list to one subscriber; later, if it is not known yet or its connection has had one just now."""
        _forget_served(watched)
        if watched.people is None or subscriber.outlet in watched.served:
            watched.waiting[subscriber] = None
            return
        watched.waiting.pop(subscriber, None)
        watched.served.add(subscriber.outlet)
        if watched.list is None:
            people = nsmallest(MAX_SHOWN, watched.people)
            watched.list = self._record(Told(room, watched.version, len(watched.people), people=people))
        if self._send_to is not None:
            self._send_to(subscriber, watched.list)

    def _record(self, told: Told) -> ChatRecord:
        destination = WHO_PREFIX + told.room
        name = f"{destination[1:]}/{self._instance}-{next(self._numbers)}"
        return ChatRecord(
            "", destination, MessageFrame(destination, name, msgspec.json.encode(told), [("content-type", JSON)])
        )

    # --- Small things ---

    def _local(self, room: str) -> frozenset[Person]:
        return frozenset(self._here.get(room, ()))

    def _nothing_read(self, room: str) -> OthersNotes:
        def skip(note: str, why: str) -> None:
            self._log_once(room, "presence: a note is no list of people", f"{note[:80]!r} ({why})")

        return OthersNotes(skip, self._is_own)

    def _is_own(self, heading: str) -> bool:
        return self._own is not None and self._own.is_own(heading)

    def _log_once(self, room: str, what: str, why: str) -> None:
        if (room, why) not in self._logged:
            self._logged[room, why] = None
            logger.warning("%s: room %r, %s", what, room, why)
        if len(self._logged) > MAX_LOGGED:
            del self._logged[next(iter(self._logged))]


def _forget_served(watched: Watched) -> None:
    if _now() - watched.served_since >= LOOK_SECONDS:
        watched.served.clear()
        watched.served_since = _now()


def _due(times: dict[str, float]) -> list[str]:
    """The rooms whose time has come, the one due first first; of many, some: the rest have their turn after that."""
    now = _now()
    return list(itertools.islice(itertools.takewhile(lambda room: times[room] <= now, times), IN_A_ROW))


def _now() -> float:
    return asyncio.get_running_loop().time()


def _note_waiting(error: Exception, wait: float) -> None:
    logger.warning("presence waits, next try in %.1f s: %s", wait, error)
