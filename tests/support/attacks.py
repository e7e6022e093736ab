"""A chat under attack: the server process, clients that flood it, and the delay that another client sees."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.support.commands import CHATLAB, Command
from tests.support.stomp_peer import Peer, chat, raw_websocket

SLACK = 0.020  # seconds: other processes use the machine too
SEND = "/app/chat.sendMessage"


@asynccontextmanager
async def attacked(*arguments: str, descriptors: int = 4096) -> AsyncIterator[tuple[str, Command]]:
    """Run `chatlab serve` with a limit on its descriptors; yield its URL and the process."""
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", 'ulimit -n "$0"; exec "$@"', str(descriptors), *CHATLAB, "serve", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    command = Command(process)
    try:
        yield await command.url(), command
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.communicate()


def port_of(url: str) -> int:
    """Return the port in a URL."""
    return int(url.split(":")[2].split("/")[0])


def masked(text: bytes) -> bytes:
    """Return one WebSocket message from a client; its mask is zero, which leaves the payload unchanged."""
    if len(text) < 126:
        return b"\x81" + bytes([0x80 | len(text)]) + b"\0\0\0\0" + text
    if len(text) < 1 << 16:
        return b"\x81\xfe" + len(text).to_bytes(2) + b"\0\0\0\0" + text
    return b"\x81\xff" + len(text).to_bytes(8) + b"\0\0\0\0" + text


def stomp(command: str, body: str = "", **headers: str) -> bytes:
    """Return one STOMP frame; `message_id="1"` becomes the header `message-id`."""
    lines = "".join(f"{name.replace('_', '-')}:{value}\n" for name, value in headers.items())
    return f"{command}\n{lines}\n{body}\0".encode()


CONNECT = stomp("CONNECT", accept_version="1.2", host="x", heart_beat="0,0")


@asynccontextmanager
async def flooding(url: str, octets: bytes) -> AsyncIterator[None]:
    """Run a client that sends the same octets as fast as they are read, and reads all the answers."""
    reader, writer = await raw_websocket(port_of(url))
    writer.write(masked(CONNECT))
    await reader.read(1000)

    async def send() -> None:
        with suppress(ConnectionError):
            while True:
                writer.write(octets)
                await writer.drain()
                await asyncio.sleep(0)

    async def read() -> None:
        with suppress(ConnectionError):
            while await reader.read(1 << 16):
                pass

    tasks = [asyncio.create_task(send()), asyncio.create_task(read())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        writer.transport.abort()


async def round_trip(peer: Peer, count: int = 60) -> float:
    """Return the median time to store one message in a room, in seconds, over `count` messages."""
    times = []
    for number in range(count):
        began = time.perf_counter()
        await peer.receipt("SEND", chat(f"{number}", "calm"), destination=SEND)
        times.append(time.perf_counter() - began)
        await asyncio.sleep(0.005)
    return statistics.median(times)
