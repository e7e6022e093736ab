"""What the wire costs with no fault on: added latency, and throughput without loss.

    python -m benchmarks.wire

An echo server in its own process; small WebSocket messages go there and back, in turn straight and through the wire.
The wire runs in this process, beside the client, as it does in a notebook. Then bytes are pushed through it at a steady
20 MB/s, checked by their SHA-256. Exits with 1 when the wire adds 0.3 ms or more to the median round trip, which passes
it twice, or when a byte is lost or the rate not kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve

from chatlab.lab.wire.wire import Wire

ROUNDS, TRIPS = 5, 400
RATE, SECONDS, PIECE = 20_000_000, 3, 64 * 1024
LIMIT_MS = 0.3


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


async def digest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a stream with the SHA-256 of all its bytes."""
    seen = hashlib.sha256()
    while data := await reader.read(256 * 1024):
        seen.update(data)
    writer.write(seen.digest())
    writer.close()


async def serve_both() -> None:
    """Serve echo and digest, say on which ports, and go on until stdin ends."""
    digests = await asyncio.start_server(digest, "127.0.0.1", 0)
    async with digests, serve(echo, "127.0.0.1", 0, compression=None) as echoes:
        print(echoes.sockets[0].getsockname()[1], digests.sockets[0].getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def with_servers(measure: Callable[[int, int], Awaitable[int]]) -> int:
    """Run the servers in a process of their own for as long as `measure` takes."""
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "benchmarks.wire", "serve")
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        echo_port, digest_port = map(int, (await process.stdout.readline()).split())
        return await measure(echo_port, digest_port)
    finally:
        process.stdin.close()
        await process.wait()


async def round_trips(connection: ClientConnection) -> list[float]:
    """Return how long each of some round trips took, in milliseconds."""
    took = []
    for _ in range(TRIPS):
        start = time.perf_counter()
        await connection.send("Hello")
        await connection.recv()
        took.append((time.perf_counter() - start) * 1000)
    return took


async def added_latency(port: int) -> float:
    """Return the milliseconds the wire adds to the median round trip; straight and wired take turns, to be fair."""
    straight: list[float] = []
    wired: list[float] = []
    to = f"ws://127.0.0.1:{port}/"
    async with (
        Wire(to) as wire,
        connect(to, compression=None) as direct,
        connect(wire.url, compression=None) as through,
    ):
        for _ in range(ROUNDS):
            straight += await round_trips(direct)
            wired += await round_trips(through)
    print(f"round trip, median: {statistics.median(straight):.3f} ms straight, {statistics.median(wired):.3f} ms wired")
    return statistics.median(wired) - statistics.median(straight)


async def throughput(port: int) -> tuple[float, bool]:
    """Push bytes through the wire at `RATE`; return the bytes a second that arrived, and whether all did."""
    piece = os.urandom(PIECE)
    sent, start = hashlib.sha256(), time.perf_counter()
    async with Wire(f"127.0.0.1:{port}") as wire:
        reader, writer = await asyncio.open_connection(wire.host, wire.port)
        for number in range(RATE * SECONDS // PIECE):
            await asyncio.sleep(max(0.0, start + number * PIECE / RATE - time.perf_counter()))
            writer.write(piece)
            sent.update(piece)
            await writer.drain()
        writer.write_eof()
        answer = await reader.read(-1)
        rate = RATE * SECONDS / (time.perf_counter() - start)
        writer.close()
    return rate, answer == sent.digest()


async def measure(echo_port: int, digest_port: int) -> int:
    added = await added_latency(echo_port)
    rate, whole = await throughput(digest_port)
    print(f"the wire adds {added:.3f} ms to a round trip (limit {LIMIT_MS})")
    print(f"at 20 MB/s offered, {rate / 1e6:.1f} MB/s arrived, {'all of it' if whole else 'NOT ALL OF IT'}")
    return 0 if added < LIMIT_MS and whole and rate > 0.97 * RATE else 1


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        asyncio.run(serve_both())
    else:
        sys.exit(asyncio.run(with_servers(measure)))
