"""A ledger of sent and received messages, kept while instances and Redis are killed, stalled and restarted.

Each client sends a message until it gets the RECEIPT, with the same `client_id` for each attempt, and records the id of
every message it receives. At the end its list must equal its room's stream, in the same order.
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
AT_ONCE = 8  # messages of one client that wait for receipts


@dataclass
class Member:
    """One client in one room."""

    name: str
    room: str
    client: StompClient
    seen: list[str] = field(default_factory=list)
    receipted: set[str] = field(default_factory=set)
    attempted: set[str] = field(default_factory=set)

    async def read(self, subscribed: asyncio.Event) -> None:
        """Record the id of every message."""
        subscription = await self.client.subscribe(f"/topic/room.{self.room}", last_id="0-0")
        subscribed.set()
        async for message in subscription:
            self.seen.append(sys.intern(json.loads(message.body)["id"]))  # one string shared by all members

    async def write(self, count: int, turn: asyncio.Semaphore) -> None:
        """Send `count` messages, several at a time."""
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                await turn.acquire()
                group.create_task(self._send(f"{self.name}-{number}")).add_done_callback(lambda _: turn.release())

    async def write_for(self, seconds: float, per_second: float) -> None:
        """Send at a steady rate for `seconds`; during an outage at most `AT_ONCE` messages wait."""
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
        self.attempted.add(client_id)
        while True:
            # Without a receipt, the server gave the reason on `/user/queue/errors` or died. Send again in either case.
            with suppress(ConnectionError, TimeoutError, StompError, MessageRefused):
                async with asyncio.timeout(15):
                    await self.client.send("/app/chat.sendMessage", body)
                    self.receipted.add(client_id)
                    return
            await asyncio.sleep(0.05)


@dataclass
class Ledger:
    """All members, and the faults they went through."""

    cluster: Cluster
    redis: Engine
    members: list[Member]
    faults: Counter[str] = field(default_factory=Counter)
    readers: list[asyncio.Task[None]] = field(default_factory=list)
    spared: int = 0  # how many instances, from the first, are never killed
    records: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: {room: [] for room in ROOMS})
    repairing: asyncio.Future[None] | None = None

    async def subscribe(self) -> None:
        """Subscribe every member."""
        events = [asyncio.Event() for _ in self.members]
        pairs = zip(self.members, events, strict=True)
        self.readers = [asyncio.create_task(member.read(subscribed)) for member, subscribed in pairs]
        await asyncio.gather(*(event.wait() for event in events))

    async def chaos(self, rng: random.Random, kinds: Sequence[str]) -> None:
        """Cause one fault after another until cancelled; each is repaired before the next."""
        faults: dict[str, Callable[[random.Random], Awaitable[None]]] = {
            "instance killed": self._kill_instance,
            "redis killed": self._kill_redis,
            "instance stalled": self._stall_instance,
            "redis stalled": self._stall_redis,
            "clients dropped": self._drop_clients,
        }
        while True:
            await asyncio.sleep(rng.uniform(0.2, 0.6))
            kind = rng.choice(kinds)
            self.faults[kind] += 1
            # Repaired even if this task is cancelled in the middle.
            self.repairing = asyncio.ensure_future(faults[kind](rng))
            await asyncio.shield(self.repairing)

    async def _kill_instance(self, rng: random.Random) -> None:
        number = rng.randrange(self.spared, len(self.cluster.instances))
        self.cluster.kill(number)
        await self.cluster.restart(number)

    async def _kill_redis(self, rng: random.Random) -> None:
        self.redis.kill()
        await self.redis.restart()

    async def _stall_instance(self, rng: random.Random) -> None:
        await stall(rng.choice(self.cluster.instances).pid, rng.uniform(0.1, 1.0))

    async def _stall_redis(self, rng: random.Random) -> None:
        await stall(self.redis.pid, rng.uniform(0.1, 1.0))

    async def _drop_clients(self, rng: random.Random) -> None:
        for member in rng.sample(self.members, 5):
            member.client.drop()

    async def run(self, messages: int, seed: int, kinds: Sequence[str]) -> None:
        """Send `messages` messages in total during faults, then wait until every member has received them."""
        each = messages // len(self.members)
        await self._run([member.write(each, asyncio.Semaphore(AT_ONCE)) for member in self.members], seed, kinds)

    async def run_for(self, seconds: float, per_second: float, seed: int, kinds: Sequence[str]) -> None:
        """Send for `seconds` at `per_second` in total during faults, then wait in the same way."""
        each = per_second / len(self.members)
        await self._run([member.write_for(seconds, each) for member in self.members], seed, kinds)

    async def _run(self, writing: Iterable[Coroutine[Any, Any, None]], seed: int, kinds: Sequence[str]) -> None:
        chaos = asyncio.create_task(self.chaos(random.Random(seed), kinds))
        await asyncio.gather(*writing)
        chaos.cancel()
        await asyncio.wait([chaos])
        if self.repairing is not None:
            await self.repairing  # otherwise the last process killed may still be down
        await self._settle(60)
        assert not [reader for reader in self.readers if reader.done()], "a reader has ended"
        for reader in self.readers:
            reader.cancel()
        await asyncio.wait(self.readers)

    async def _settle(self, seconds: float) -> None:
        """Wait until every member has received everything or the time is over; `check` reports the rest."""
        until = time.monotonic() + seconds
        streams = await self.streams()
        while any(len(member.seen) < len(streams[member.room]) for member in self.members):
            await asyncio.sleep(0.2)
            if time.monotonic() > until:
                return

    async def streams(self) -> dict[str, list[tuple[str, str]]]:
        """Return each room's records (id, client_id), including records of earlier calls that are trimmed by now."""
        redis: Any = Redis.from_url(self.redis.url)
        try:
            for room, records in self.records.items():
                after = f"({records[-1][0]}" if records else "-"
                for id, fields in await redis.xrange(key(room), after):
                    records.append((str(id, "ascii"), json.loads(fields[b"body"])["client_id"]))
        finally:
            await redis.aclose()
        return self.records

    async def check(self) -> None:
        """Raise AssertionError unless no message is lost or duplicated and every member has the same order."""
        streams = await self.streams()
        for member in self.members:
            stream = streams[member.room]
            ids = [id for id, _ in stream]
            assert member.seen == ids, difference(member.seen, ids, member.name)
        stored = Counter(client_id for stream in streams.values() for _, client_id in stream)
        assert not [client_id for client_id, count in stored.items() if count > 1], "stored twice"
        for member in self.members:
            assert not member.receipted - stored.keys(), "a receipt for a message that is not stored"
            assert member.receipted == member.attempted, "every message must get its receipt"


def key(room: str) -> str:
    """Return the key of a room's stream."""
    return f"chat:{{{room}}}"


async def stall(pid: int | None, seconds: float) -> None:
    """Suspend a process for `seconds`: its connections stay open and carry nothing."""
    if pid is None:
        return
    os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def difference(seen: list[str], ids: list[str], name: str) -> str:
    """Describe in one line where two lists differ."""
    first = next(
        (n for n, pair in enumerate(zip(seen, ids, strict=False)) if pair[0] != pair[1]), min(len(seen), len(ids))
    )
    missing, repeated = set(ids) - set(seen), [id for id, count in Counter(seen).items() if count > 1]
    place = f"they differ at {first}: {seen[first : first + 3]}, {ids[first : first + 3]}"
    return f"{name} saw {len(seen)} of {len(ids)}; {place}; {len(missing)} missing, {len(repeated)} twice"


@asynccontextmanager
async def ledger(
    redis: Engine, *, instances: int = 3, clients: int = 30, options: Sequence[str] = ()
) -> AsyncIterator[Ledger]:
    """Run a ledger on real processes; each client always reconnects to the same instance."""
    async with Cluster(redis.url, instances, options=options) as cluster:
        members = []
        for number in range(clients):
            address = cluster.urls[number % instances]
            client = StompClient(address, login=f"client {number}", backoff=Backoff(0.1, 1.0), proxy=None)
            members.append(Member(f"c{number}", ROOMS[number // instances % len(ROOMS)], client))
        await asyncio.gather(*(member.client.connect() for member in members))
        try:
            book = Ledger(cluster, redis, members)
            await book.subscribe()
            yield book
        finally:
            await asyncio.gather(*(member.client.aclose(1) for member in members))
