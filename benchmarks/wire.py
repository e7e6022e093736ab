"""Measure what the wire costs without faults: the latency it adds, and its throughput.

    python -m benchmarks.wire

An echo server runs in its own process. Small WebSocket messages go to it and back, alternately directly and through the
wire, which runs in this process with the client, as in a notebook. Then bytes are sent through the wire at a steady
20 MB/s and checked by their SHA-256. Exits with 1 if the wire adds 0.3 ms or more to the median round trip, which
passes through it twice, or if a byte is lost or the rate is not reached.
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
RATE, SECONDS, CHUNK = 20_000_000, 3, 64 * 1024
LIMIT_MS = 0.3


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


async def digest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read a stream to its end, and answer with its SHA-256."""
    seen = hashlib.sha256()
    while data := await reader.read(256 * 1024):
        seen.update(data)
    writer.write(seen.digest())
    writer.close()


async def serve_both() -> None:
    """Serve `echo` and `digest`, print their ports, and run until stdin ends."""
    digests = await asyncio.start_server(digest, "127.0.0.1", 0)
    async with digests, serve(echo, "127.0.0.1", 0, compression=None) as echoes:
        print(echoes.sockets[0].getsockname()[1], digests.sockets[0].getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def with_servers(measure: Callable[[int, int], Awaitable[int]]) -> int:
    """Run the servers in a separate process during `measure`."""
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
    """Return the milliseconds of each of `TRIPS` round trips."""
    milliseconds = []
    for _ in range(TRIPS):
        start = time.perf_counter()
        await connection.send("Hello")
        await connection.recv()
        milliseconds.append((time.perf_counter() - start) * 1000)
    return milliseconds


async def added_latency(port: int) -> float:
    """Return the milliseconds that the wire adds to the median round trip; both kinds alternate, to be fair."""
    direct_trips: list[float] = []
    wire_trips: list[float] = []
    url = f"ws://127.0.0.1:{port}/"
    async with (
        Wire(url) as wire,
        connect(url, compression=None) as direct,
        connect(wire.url, compression=None) as through,
    ):
        for _ in range(ROUNDS):
            direct_trips += await round_trips(direct)
            wire_trips += await round_trips(through)
    direct_ms, wire_ms = statistics.median(direct_trips), statistics.median(wire_trips)
    print(f"round trip, median: {direct_ms:.3f} ms direct, {wire_ms:.3f} ms through the wire")
    return wire_ms - direct_ms


async def throughput(port: int) -> tuple[float, bool]:
    """Send bytes through the wire at `RATE`; return the bytes per second that arrived, and whether all did."""
    chunk = os.urandom(CHUNK)
    sent, start = hashlib.sha256(), time.perf_counter()
    async with Wire(f"127.0.0.1:{port}") as wire:
        reader, writer = await asyncio.open_connection(wire.host, wire.port)
        for number in range(RATE * SECONDS // CHUNK):
            await asyncio.sleep(max(0.0, start + number * CHUNK / RATE - time.perf_counter()))
            writer.write(chunk)
            sent.update(chunk)
            await writer.drain()
        writer.write_eof()
        answer = await reader.read(-1)
        rate = RATE * SECONDS / (time.perf_counter() - start)
        writer.close()
    return rate, answer == sent.digest()


async def measure(echo_port: int, digest_port: int) -> int:
    added = await added_latency(echo_port)
    rate, complete = await throughput(digest_port)
    print(f"the wire adds {added:.3f} ms to a round trip (limit {LIMIT_MS})")
    print(f"at 20 MB/s offered, {rate / 1e6:.1f} MB/s arrived, {'complete' if complete else 'INCOMPLETE'}")
    return 0 if added < LIMIT_MS and complete and rate > 0.97 * RATE else 1


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        asyncio.run(serve_both())
    else:
        sys.exit(asyncio.run(with_servers(measure)))
