"""Who is in a room, on all instances together: `/topic/who.NAME`.

A subscriber receives the list once, and then each change:

    {"room": "cats", "version": 7, "count": 2, "people": [{"name": "Ana", "handle": "5f…"}, …]}
    {"room": "cats", "version": 8, "count": 2, "joined": [{"name": "민지", …}], "left": [{"name": "Ben", …}]}
    {"room": "cats", "version": 9, "count": 614, "again": 12.0}

`version` grows by one with each change: a subscriber that sees a jump has missed something, and subscribes again for
the list. A list holds at most MAX_SHOWN people; `count` counts all. `again` replaces more than MAX_ANNOUNCED changes at
once: subscribe again at a random moment within that many seconds, so that not all clients do at once.

The cost grows with the number of changes, and that is bounded: the changes of a room are gathered for LOOK_SECONDS from
the first one on, so a user that enters and leaves within that time is not reported at all. The list goes only to the
new subscriber, and to one connection at most once in LOOK_SECONDS.

Nothing goes through a stream. Instances inform each other by notes in the broker (presence_notes.py); an instance with
a watched room checks for new notes once in LOOK_SECONDS. Without such notes (`HasPresence`), an instance knows only
its own users.
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
LOOK_SECONDS = 1.0  # for gathering changes; also the longest delay before a change on another instance shows
CLOSE_SECONDS = 1.0  # the broker may be unavailable; the notes expire anyway
MAX_SHOWN = 500  # people in a list
MAX_ANNOUNCED = 50  # people in a change
ROOMS_PER_STEP = 50  # rooms handled in one step before the next step gets its turn
LISTS_PER_SECOND = 50  # the rate at which a room's watchers are asked to subscribe again
BACKOFF = Backoff(longest=2.0)  # while the broker is unavailable
MAX_LOGGED = 1000  # remembered faults, so that each is logged once

People = list[Person]
SendTo = Callable[[Subscriber, ChatRecord], None]


class WhoUpdate(msgspec.Struct, frozen=True, omit_defaults=True):
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
    """One room that is watched on this instance, and the state its watchers know."""

    others: OthersNotes
    local: frozenset[Person]  # this instance's users, as last announced
    people: frozenset[Person] | None = None  # everybody, as last announced; None before the first check
    version: int = 1
    list: ChatRecord | None = None  # the list of this version, made on the first request
    watchers: int = 0
    waiting: dict[Subscriber, None] = field(default_factory=dict)  # a dict as an ordered set
    served: set[object] = field(default_factory=set)  # connections that have had the list recently
    served_since: float = 0.0


class Presence:
    """The users of this instance by room, and the state that watchers know."""

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
        # Each is ordered by due time.
        self._settling: dict[str, float] = {}  # by room with changes: when to announce them
        self._looking: dict[str, float] = {}  # by watched room: when to check it
        self._unseen: dict[str, None] = {}  # watched rooms that have not been checked yet
        self._logged: dict[tuple[str, str], None] = {}  # by room and reason: faults in notes of other instances
        self._numbers = itertools.count(1)
        self._wake = asyncio.Event()
        self._tasks = Tasks(logger) if tasks is None else tasks
        self._task: asyncio.Task[None] | None = None

    def enter(self, room: str, user: User) -> None:
        """Record that a user of this instance has subscribed to a room."""
        person = Person(user.name, user.handle)
        here = self._here.setdefault(room, Counter())
        here[person] += 1
        if here[person] == 1:
            self._changed(room)

    def leave(self, room: str, user: User) -> None:
        """Record that a user of this instance has unsubscribed from a room."""
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
        """Start watching a room for a subscriber. The list is sent as soon as it is known."""
        watched = self._watched.get(room)
        if watched is None:
            watched = self._watched[room] = Watched(self._no_notes(room), self._local(room))
            self._unseen[room] = None
            self._start()
        watched.watchers += 1
        if subscriber is not None:
            self._send_list(room, watched, subscriber)

    def unwatch(self, room: str, subscriber: Subscriber | None = None) -> None:
        """Stop watching a room for a subscriber."""
        watched = self._watched[room]
        watched.watchers -= 1
        if subscriber is not None:
            watched.waiting.pop(subscriber, None)
        if not watched.watchers:
            del self._watched[room]
            self._unseen.pop(room, None)
            self._looking.pop(room, None)

    async def people(self, room: str) -> People:
        """Return everybody in a room, by name."""
        if self._broker is None:
            return sorted(self._local(room))
        watched = self._watched.get(room)
        # A copy that knows most notes already: only `_check_due` takes new ones into the original, and announces them.
        others = self._no_notes(room) if watched is None else watched.others.copy()
        others.take(await self._broker.look(room, others.known))
        return sorted(self._local(room) | others.people)

    async def aclose(self) -> None:
        """Remove this instance's users from the rooms."""
        await cancel(self._task)
        self._here.clear()
        if self._own is None:
            return
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                for room in list(self._own.rooms):
                    await self._unless_refused(room, self._own.write(room, frozenset(), 0.0))
        except (BrokerError, TimeoutError) as error:
            logger.info("presence notes not removed, they will expire: %r", error)

    # --- The task that announces changes ---

    def _changed(self, room: str) -> None:
        """Schedule the announcement of a change, together with those that follow soon."""
        if room not in self._settling:
            self._settling[room] = asyncio.get_running_loop().time() + LOOK_SECONDS
            self._start()

    def _start(self) -> None:
        self._wake.set()
        if self._task is None:
            self._task = self._tasks.start(self._run(), name="presence")

    async def _run(self) -> None:
        retry = Retry(on=BrokerError, backoff=BACKOFF, on_failure=_log_retry)
        with suppress(BrokerClosed):
            async for attempt in retry:
                with attempt:
                    while True:
                        # Before the work, so that a change during it starts another round.
                        self._wake.clear()
                        await self._settle()
                        await self._check_due()
                        await self._renew()
                        retry.reset()
                        await self._pause()

    async def _pause(self) -> None:
        """Wait until something is due, or until a change may have made something due sooner."""
        if self._unseen:
            return  # more rooms are new than one round checks
        firsts = [next(iter(due.values()), None) for due in (self._settling, self._looking)]
        firsts.append(self._own.next_renewal(RENEW_SECONDS) if self._own is not None else None)
        until = min((first for first in firsts if first is not None), default=None)
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._wake.wait()
        if self._wake.is_set():
            await asyncio.sleep(LOOK_SECONDS / 20)  # gather: users often come in groups

    async def _settle(self) -> None:
        """Announce the rooms whose changes have been gathered long enough, to watchers and to other instances."""
        for room in _due(self._settling):
            del self._settling[room]
            self._announce_local(room)
            if self._own is not None:
                try:
                    await self._unless_refused(room, self._own.write(room, self._local(room), _now()))
                except (BrokerUnavailable, BrokerClosed):
                    self._settling.setdefault(room, _now())
                    raise

    async def _check_due(self) -> None:
        """Check the watched rooms that are due, and new ones: some now, the rest in the next round."""
        for room in [*itertools.islice(self._unseen, ROOMS_PER_STEP), *_due(self._looking)]:
            if room in self._watched:
                await self._check(room, self._watched[room])

    async def _check(self, room: str, watched: Watched) -> None:
        if self._broker is not None:
            await self._unless_refused(room, self._read(room, watched, self._broker))
        if self._watched.get(room) is not watched:
            return  # it is no longer watched
        self._announce(room, watched)
        _forget_served(watched)
        for subscriber in list(watched.waiting):
            self._send_list(room, watched, subscriber)
        self._unseen.pop(room, None)
        self._looking.pop(room, None)
        self._looking[room] = _now() + LOOK_SECONDS

    async def _read(self, room: str, watched: Watched, broker: HasPresence) -> None:
        watched.others.take(await broker.look(room, watched.others.known))

    async def _renew(self) -> None:
        """Extend the notes that were written or renewed longest ago."""
        own = self._own
        for _ in range(ROOMS_PER_STEP):
            if own is None or (due := own.next_renewal(RENEW_SECONDS)) is None or due > _now():
                break
            room = next(iter(own.rooms))
            await self._unless_refused(room, own.renew(room, self._local(room), _now()))

    async def _unless_refused(self, room: str, work: Awaitable[None]) -> None:
        """Run the work on one room. If the engine refuses it (a key of another type), the other rooms continue."""
        try:
            await work
        except (BrokerUnavailable, BrokerClosed):
            raise
        except BrokerError as error:
            self._log_once(room, "presence refused by the broker", str(error))

    # --- Messages to the watchers ---

    def _announce_local(self, room: str) -> None:
        watched = self._watched.get(room)
        if watched is not None:
            watched.local = self._local(room)
            if watched.people is not None:
                self._announce(room, watched)

    def _announce(self, room: str, watched: Watched) -> None:
        """Send the watchers the changes since the last announcement."""
        before, people = watched.people, watched.local | watched.others.people
        if people == before:
            return
        watched.people, watched.list = people, None
        if before is not None:
            watched.version += 1
            self._send(self._record(self._change(room, watched, between(before, people))))

    def _change(self, room: str, watched: Watched, changes: Changes) -> WhoUpdate:
        count = len(watched.people or ())
        if len(changes) > MAX_ANNOUNCED:
            return WhoUpdate(room, watched.version, count, again=max(2.0, watched.watchers / LISTS_PER_SECOND))
        return WhoUpdate(room, watched.version, count, joined=changes.joined, left=changes.left)

    def _send_list(self, room: str, watched: Watched, subscriber: Subscriber) -> None:
        """Send the list to one subscriber; later if it is not known yet or its connection has just had one."""
        _forget_served(watched)
        if watched.people is None or subscriber.outlet in watched.served:
            watched.waiting[subscriber] = None
            return
        watched.waiting.pop(subscriber, None)
        watched.served.add(subscriber.outlet)
        if watched.list is None:
            people = nsmallest(MAX_SHOWN, watched.people)
            watched.list = self._record(WhoUpdate(room, watched.version, len(watched.people), people=people))
        if self._send_to is not None:
            self._send_to(subscriber, watched.list)

    def _record(self, update: WhoUpdate) -> ChatRecord:
        destination = WHO_PREFIX + update.room
        name = f"{destination[1:]}/{self._instance}-{next(self._numbers)}"
        return ChatRecord(
            "", destination, MessageFrame(destination, name, msgspec.json.encode(update), [("content-type", JSON)])
        )

    # --- Helpers ---

    def _local(self, room: str) -> frozenset[Person]:
        return frozenset(self._here.get(room, ()))

    def _no_notes(self, room: str) -> OthersNotes:
        def skip(note: str, why: str) -> None:
            self._log_once(room, "presence: a note is not a list of people", f"{note[:80]!r} ({why})")

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
    """Return the rooms whose time has come, earliest first: at most ROOMS_PER_STEP, the rest follow later."""
    now = _now()
    return list(itertools.islice(itertools.takewhile(lambda room: times[room] <= now, times), ROOMS_PER_STEP))


def _now() -> float:
    return asyncio.get_running_loop().time()


def _log_retry(error: Exception, wait: float) -> None:
    logger.warning("presence is not updated, next attempt in %.1f s: %s", wait, error)
