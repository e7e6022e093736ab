"""Disconnect clients anywhere in their conversation with a chat server: `python tests/fuzz_connections.py N`.

Run one client for each hundred of N, some over a WebSocket, some over SockJS with streaming. Each sends as many octets
as its number determines, and then disconnects: by closing, by a reset, or half-closed first. After all have
disconnected nothing must remain: no task, session, subscription, person in a room, file descriptor or object.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import random
import socket
import struct
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that it runs as a script too

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint import sockjs
from chatlab.chat.endpoint.server import ChatServer
from chatlab.chat.session.connection import StompConnection
from chatlab.lab.until import until

AT_ONCE = 50
PER_CLIENT = 100  # cases that one client counts as
TIMEOUT = 30.0  # seconds for the server to detect it
ROOMS = ("cats", "dogs", "안녕")
CONVERSATION = (
    "CONNECT\naccept-version:1.2\nhost:x\nlogin:ana\nheart-beat:50,50\n\n\0",
    "SUBSCRIBE\nid:0\ndestination:/topic/public\nhistory:5\n\n\0",
    "SUBSCRIBE\nid:1\ndestination:/queue/jobs\nack:client\n\n\0",
    "SUBSCRIBE\nid:2\ndestination:/topic/who.ROOM\n\n\0",
    "SUBSCRIBE\nid:3\ndestination:/topic/room.ROOM\nlast-id:0-0\nack:client-individual\n\n\0",
    "SUBSCRIBE\nid:4\ndestination:/user/queue/errors\n\n\0",
    'SEND\ndestination:/app/chat.sendMessage\nreceipt:1\n\n{"content":"안녕 🙂"}\0',
    'SEND\ndestination:/app/chat.sendMessage\n\n{"room":"ROOM","content":"x"}\0',
    "BEGIN\ntransaction:t\n\n\0",
    "SEND\ndestination:/queue/jobs\ntransaction:t\n\nwork\0",
    "SEND\ndestination:/queue/jobs\nreceipt:2\n\nwork\0",
    "COMMIT\ntransaction:t\n\n\0",
    "SEND\ndestination:/app/chat.sendMessage\n\n{\0",
    "UNSUBSCRIBE\nid:1\n\n\0",
    "SUBSCRIBE\nid:5\ndestination:/nowhere\nreceipt:3\n\n\0",  # ERROR
)
DISCONNECT = "DISCONNECT\nreceipt:4\n\n\0"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
CLOSE = b"\x88\x82" + b"\0" * 4 + (1000).to_bytes(2)

# --- One client ------------------------------------------------------------------------------------------------------


def masked(text: str) -> bytes:
    """Return a STOMP frame in a WebSocket frame from a client, with a mask of zeros, which changes nothing."""
    data = text.encode()
    return (
        b"\x81"
        + bytes((0x80 | min(len(data), 126),))
        + (len(data).to_bytes(2) if len(data) > 125 else b"")
        + b"\0" * 4
        + data
    )


def post(path: str, body: str = "") -> bytes:
    """Return a request as a SockJS client sends it."""
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body.encode())}\r\n\r\n{body}".encode()


class Client:
    """Connections to the server, on which at most `octets` octets are sent."""

    def __init__(self, rng: random.Random, port: int, octets: int) -> None:
        self._rng = rng
        self._port = port
        self._left = octets
        self._writers: list[asyncio.StreamWriter] = []

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers.append(writer)
        return reader, writer

    async def send(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> bool:
        """Send as much as is left, and sometimes read; return False once nothing more may be sent."""
        if writer.transport.is_closing():
            raise ConnectionError("the server closed first")
        writer.write(data[: self._left])
        self._left -= len(data)
        if self._rng.random() < 0.5:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._rng.choice([0, 0.001, 0.02])):
                    await reader.read(1 << 16)
        return self._left > 0

    def disconnect(self) -> None:
        """Disconnect in a random way."""
        for writer in self._writers:
            method = self._rng.randrange(3)
            with suppress(OSError):  # the connection may be closed already
                if method == 0:  # RST instead of FIN
                    sock = writer.get_extra_info("socket")
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                elif method == 1 and writer.can_write_eof():
                    writer.write_eof()  # half-close first
            writer.close()


async def over_websocket(client: Client, frames: list[str], close: bool) -> None:
    streams = await client.open()
    parts = [UPGRADE, *map(masked, frames), *([CLOSE] if close else [])]
    for part in parts:
        if not await client.send(*streams, part):
            return


async def over_sockjs(client: Client, name: str, frames: list[str]) -> None:
    path = f"/ws/0/{name}"
    answers, sends = await client.open(), await client.open()
    if await client.send(*answers, post(f"{path}/xhr_streaming")):
        for frame in frames:
            if not await client.send(*sends, post(f"{path}/xhr_send", json.dumps([frame]))):
                return


async def run_client(port: int, number: int) -> None:
    """Run one client, determined by its number alone."""
    rng = random.Random(number)
    room = rng.choice(ROOMS)
    frames = [frame.replace("ROOM", room) for frame in CONVERSATION if rng.random() < 0.9] + [DISCONNECT]
    client = Client(rng, port, rng.choice([rng.randrange(400), rng.randrange(3000), 100_000]))
    try:
        if rng.random() < 0.7:
            await over_websocket(client, frames, close=rng.random() < 0.5)
        else:
            await over_sockjs(client, f"{os.getpid()}-{number}", frames)
    except ConnectionError:
        pass
    finally:
        client.disconnect()


# --- What remains ----------------------------------------------------------------------------------------------------


class Faults(logging.Handler):
    """Collect errors in the log; a disconnecting client must not cause one."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def descriptors() -> int:
    """Return the number of open file descriptors of this process; 0 if they cannot be counted."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def remaining(server: ChatServer, tasks: int, files: int) -> list[str]:
    """Return the names of what exists now and did not before."""
    service = server.service
    states = {
        "connections": bool(service.connections),
        "topics": bool(service.relay.topics()),
        "destinations": bool(list(service.hub.destinations())),
        "queues": bool(service.queues._queues or service.queues._closing),
        "people": bool(service.presence._here or service.presence._watched),
        "slow readers": bool(service.fanout._lagging or service.fanout._draining),
        "SockJS sessions": bool(server._sockjs.sessions),
        "tasks": len(asyncio.all_tasks()) > tasks,
        "file descriptors": descriptors() > files,
    }
    return [name for name, exists in states.items() if exists]


def objects() -> int:
    """Return the number of connections and sessions in memory."""
    gc.collect()
    return sum(isinstance(each, StompConnection | sockjs.Session) for each in gc.get_objects())


async def run_clients(count: int, first: int = 0) -> None:
    """Run `count` clients, from number `first` on; raise AssertionError with the names of what remains."""
    faults = Faults(logging.ERROR)
    logging.getLogger().addHandler(faults)
    async with await chat_server.start(MemoryBroker(max_length=100)) as server:
        await run_client(server.port, -1)  # create what is created only once, such as the task of presence
        await until(lambda: not server.service.connections, timeout=TIMEOUT)
        tasks, files, objects_before = len(asyncio.all_tasks()) + 3, descriptors() + 3, objects()
        turns = asyncio.Semaphore(AT_ONCE)

        async def run_one(number: int) -> None:
            async with turns:
                await run_client(server.port, number)

        await asyncio.gather(*(run_one(number) for number in range(first, first + count)))
        with suppress(TimeoutError):
            await until(lambda: not remaining(server, tasks, files), timeout=TIMEOUT, every=0.1)
        remains = remaining(server, tasks, files)
        assert not faults.records, faults.records[0].getMessage()
        running = Counter(getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks())
        assert not remains, f"left behind: {', '.join(remains)}; tasks: {running}"
        assert objects() <= objects_before, "closed connections are still in memory"


if __name__ == "__main__":
    arguments = [int(argument) for argument in sys.argv[1:]] or [100_000]
    clients = max(1, arguments[0] // PER_CLIENT)
    began = time.monotonic()
    asyncio.run(run_clients(clients, *arguments[1:]))
    print(f"connections: {clients:,} dropped in {time.monotonic() - began:.0f} s, nothing remained")
