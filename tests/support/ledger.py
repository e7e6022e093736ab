"""A ledger of who sent what and who received it, while everything around them is killed, stalled and restarted.

Each client sends until it has the RECEIPT, with one `client_id` for all its tries, and notes the id of every message it
sees. In the end its list is to be its room's stream, no more, no less, in that order.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis

from chatlab.clients.stomp import Backoff, StompClient
from chatlab.errors import MessageRefused, StompError
from chatlab.lab.engines.cluster import Cluster
from chatlab.lab.engines.engine import Engine

ROOMS = ("cats", "dogs", "새")
AT_ONCE = 8  # messages of one client that wait for their receipts


@dataclass
class Member:
    """One client in one room."""

    name: str
    room: str
    client: StompClient
    seen: list[str] = field(default_factory=list)
    receipted: set[str] = field(default_factory=set)
    tried: set[str] = field(default_factory=set)

    async def read(self, subscribed: asyncio.Event) -> None:
        """Note the id of every message."""
        subscription = await self.client.subscribe(f"/topic/room.{self.room}", last_id="0-0")
        subscribed.set()
        async for message in subscription:
            self.seen.append(sys.intern(json.loads(message.body)["id"]))  # one string for all who have seen it

    async def write(self, count: int, turn: asyncio.Semaphore) -> None:
        """Send so many messages, some at once."""
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                await turn.acquire()
                group.create_task(self._send(f"{self.name}-{number}")).add_done_callback(lambda _: turn.release())

    async def write_for(self, seconds: float, per_second: float) -> None:
        """Send steadily for so long; while the server is away no more than some wait for it."""
        turn = asyncio.Semaphore(AT_ONCE)
        end = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            for number in itertools.count():
                if time.monotonic() > end:
                    return
                await turn.acquire()
                group.create_task(self._send(f"{self.name}-{number}")).add_done_callback(lambda _: turn.release())
                await asyncio.sleep(1 / per_second)

    async def _send(self, client_id: str) -> None:
        body = json.dumps({"content": client_id, "room": self.room, "client_id": client_id})
        self.tried.add(client_id)
        while True:
            # A receipt that does not come: the server told why on `/user/queue/errors`, or died. Either way: again.
            with suppress(ConnectionError, TimeoutError, StompError, MessageRefused):
                async with asyncio.timeout(15):
                    await self.client.send("/app/chat.sendMessage", body)
                    self.receipted.add(client_id)
                    return
            await asyncio.sleep(0.05)


@dataclass
class Ledger:
    """All members, and what was done to them."""

    cluster: Cluster
    redis: Engine
    members: list[Member]
    faults: Counter[str] = field(default_factory=Counter)
    readers: list[asyncio.Task[None]] = field(default_factory=list)
    spared: int = 0  # so many instances, the first ones, are not killed
    kept: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: {room: [] for room in ROOMS})
    mending: asyncio.Future[None] | None = None

    async def begin(self) -> None:
        """Have everybody subscribe."""
        events = [asyncio.Event() for _ in self.members]
        pairs = zip(self.members, events, strict=True)
        self.readers = [asyncio.create_task(member.read(subscribed)) for member, subscribed in pairs]
        await asyncio.gather(*(event.wait() for event in events))

    async def chaos(self, chance: random.Random, kinds: Sequence[str]) -> None:
        """One fault after another, until cancelled; each is mended before the next."""
        faults: dict[str, Callable[[random.Random], Awaitable[None]]] = {
            "instance killed": self._kill_instance,
            "redis killed": self._kill_redis,
            "instance stalled": self._stall_instance,
            "redis stalled": self._stall_redis,
            "clients dropped": self._drop,
        }
        while True:
            await asyncio.sleep(chance.uniform(0.2, 0.6))
            kind = chance.choice(kinds)
            self.faults[kind] += 1
            # Mended even if the ledger has enough meanwhile.
            self.mending = asyncio.ensure_future(faults[kind](chance))
            await asyncio.shield(self.mending)

    async def _kill_instance(self, chance: random.Random) -> None:
        number = chance.randrange(self.spared, len(self.cluster.instances))
        self.cluster.kill(number)
        await self.cluster.restart(number)

    async def _kill_redis(self, chance: random.Random) -> None:
        self.redis.kill()
        await self.redis.restart()

    async def _stall_instance(self, chance: random.Random) -> None:
        await stall(chance.choice(self.cluster.instances).pid, chance.uniform(0.1, 1.0))

    async def _stall_redis(self, chance: random.Random) -> None:
        await stall(self.redis.pid, chance.uniform(0.1, 1.0))

    async def _drop(self, chance: random.Random) -> None:
        for member in chance.sample(self.members, 5):
            member.client.drop()

    async def run(self, messages: int, seed: int, kinds: Sequence[str]) -> None:
        """Have the members send so many messages in all, with faults going on; then let everything settle."""
        each = messages // len(self.members)
        await self._run([member.write(each, asyncio.Semaphore(AT_ONCE)) for member in self.members], seed, kinds)

    async def run_for(self, seconds: float, per_second: float, seed: int, kinds: Sequence[str]) -> None:
        """The same, by time: so many messages a second in all."""
        each = per_second / len(self.members)
        await self._run([member.write_for(seconds, each) for member in self.members], seed, kinds)

    async def _run(self, writing: Iterable[Coroutine[Any, Any, None]], seed: int, kinds: Sequence[str]) -> None:
        chaos = asyncio.create_task(self.chaos(random.Random(seed), kinds))
        await asyncio.gather(*writing)
        chaos.cancel()
        await asyncio.wait([chaos])
        if self.mending is not None:
            await self.mending  # or what was killed last may still be down
        await self._settle(60)
        assert not [reader for reader in self.readers if reader.done()], "a reader has ended"
        for reader in self.readers:
            reader.cancel()
        await asyncio.wait(self.readers)

    async def _settle(self, seconds: float) -> None:
        """Wait until everybody has seen as much as there is, or the time is up: the verdict will tell."""
        until = time.monotonic() + seconds
        streams = await self.streams()
        while any(len(member.seen) < len(streams[member.room]) for member in self.members):
            await asyncio.sleep(0.2)
            if time.monotonic() > until:
                return

    async def streams(self) -> dict[str, list[tuple[str, str]]]:
        """Each room's records, id and client_id: those of earlier calls, trimmed since or not, and the new ones."""
        redis: Any = Redis.from_url(self.redis.url)
        try:
            for room, kept in self.kept.items():
                after = f"({kept[-1][0]}" if kept else "-"
                for id, fields in await redis.xrange(key(room), after):
                    kept.append((str(id, "ascii"), json.loads(fields[b"body"])["client_id"]))
        finally:
            await redis.aclose()
        return self.kept

    async def check(self) -> None:
        """Nothing lost, nothing twice, everybody in the same order. AssertionError says what was not so."""
        streams = await self.streams()
        for member in self.members:
            stream = streams[member.room]
            ids = [id for id, _ in stream]
            assert member.seen == ids, difference(member.seen, ids, member.name)
        stored = Counter(client_id for stream in streams.values() for _, client_id in stream)
        assert not [client_id for client_id, count in stored.items() if count > 1], "stored twice"
        for member in self.members:
            assert not member.receipted - stored.keys(), "a receipt for what is not stored"
            assert member.receipted == member.tried, "everything was receipted in the end"


def key(room: str) -> str:
    """The stream of a room."""
    return f"chat:{{{room}}}"


async def stall(pid: int | None, seconds: float) -> None:
    """Stop a process for a while: its connections stay open, and nothing moves on them."""
    if pid is None:
        return
    os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def difference(seen: list[str], ids: list[str], name: str) -> str:
    """Where two lists part, in a line."""
    first = next(
        (n for n, pair in enumerate(zip(seen, ids, strict=False)) if pair[0] != pair[1]), min(len(seen), len(ids))
    )
    missing, repeated = set(ids) - set(seen), [id for id, count in Counter(seen).items() if count > 1]
    part = f"they part at {first}: {seen[first : first + 3]}, {ids[first : first + 3]}"
    return f"{name} saw {len(seen)} of {len(ids)}; {part}; {len(missing)} missing, {len(repeated)} twice"


@asynccontextmanager
async def ledger(
    redis: Engine, *, instances: int = 3, clients: int = 30, options: Sequence[str] = ()
) -> AsyncIterator[Ledger]:
    """A ledger on real processes; each client stays with its instance, dead or alive."""
    async with Cluster(redis.url, instances, options=options) as cluster:
        members = []
        for number in range(clients):
            address = cluster.urls[number % instances]
            client = StompClient(address, login=f"client {number}", backoff=Backoff(0.1, 1.0), proxy=None)
            members.append(Member(f"c{number}", ROOMS[number // instances % len(ROOMS)], client))
        await asyncio.gather(*(member.client.connect() for member in members))
        try:
            book = Ledger(cluster, redis, members)
            await book.begin()
            yield book
        finally:
            await asyncio.gather(*(member.client.aclose(1) for member in members))
