"""Drop clients anywhere in their conversation with a chat server: `python tests/fuzz_connections.py N`.

One client for each hundred of N, some on a WebSocket, some on SockJS's streaming answer. Each gets as far as its number
says, to the octet, and goes: by closing, by resetting its connection, or halfway through. When all are gone nothing
must be left of them: no task, no session, no subscription, nobody in a room, no file descriptor, no object.
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
PER_CLIENT = 100  # cases that one client counts for
PATIENCE = 30.0  # seconds for the server to notice
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
GOODBYE = "DISCONNECT\nreceipt:4\n\n\0"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
CLOSE = b"\x88\x82" + b"\0" * 4 + (1000).to_bytes(2)

# --- One client ------------------------------------------------------------------------------------------------------


def masked(text: str) -> bytes:
    """A STOMP frame in a WebSocket frame, as a client masks it; a mask of zeros changes nothing."""
    data = text.encode()
    return (
        b"\x81"
        + bytes((0x80 | min(len(data), 126),))
        + (len(data).to_bytes(2) if len(data) > 125 else b"")
        + b"\0" * 4
        + data
    )


def posted(path: str, body: str = "") -> bytes:
    """A request as SockJS's clients make it."""
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body.encode())}\r\n\r\n{body}".encode()


class Client:
    """Connections to the server, and what is to be said on them until the octets allowed are used up."""

    def __init__(self, rng: random.Random, port: int, octets: int) -> None:
        self._rng = rng
        self._port = port
        self._left = octets
        self._writers: list[asyncio.StreamWriter] = []

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers.append(writer)
        return reader, writer

    async def say(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> bool:
        """Send as much as may be sent, and now and then read; False once nothing more may be sent."""
        if writer.transport.is_closing():
            raise ConnectionError("the server was first")
        writer.write(data[: self._left])
        self._left -= len(data)
        if self._rng.random() < 0.5:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._rng.choice([0, 0.001, 0.02])):
                    await reader.read(1 << 16)
        return self._left > 0

    def go(self) -> None:
        """Leave, in one way or another."""
        for writer in self._writers:
            way = self._rng.randrange(3)
            with suppress(OSError):  # it may be gone already
                if way == 0:  # RST instead of FIN
                    end = writer.get_extra_info("socket")
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                elif way == 1 and writer.can_write_eof():
                    writer.write_eof()  # half of it first
            writer.close()


async def over_websocket(client: Client, frames: list[str], closes: bool) -> None:
    ends = await client.open()
    parts = [UPGRADE, *map(masked, frames), *([CLOSE] if closes else [])]
    for part in parts:
        if not await client.say(*ends, part):
            return


async def over_sockjs(client: Client, name: str, frames: list[str]) -> None:
    path = f"/ws/0/{name}"
    answers, sends = await client.open(), await client.open()
    if await client.say(*answers, posted(f"{path}/xhr_streaming")):
        for frame in frames:
            if not await client.say(*sends, posted(f"{path}/xhr_send", json.dumps([frame]))):
                return


async def drop_somewhere(port: int, number: int) -> None:
    """One client, made from its number alone."""
    rng = random.Random(number)
    room = rng.choice(ROOMS)
    frames = [frame.replace("ROOM", room) for frame in CONVERSATION if rng.random() < 0.9] + [GOODBYE]
    client = Client(rng, port, rng.choice([rng.randrange(400), rng.randrange(3000), 100_000]))
    try:
        if rng.random() < 0.7:
            await over_websocket(client, frames, closes=rng.random() < 0.5)
        else:
            await over_sockjs(client, f"{os.getpid()}-{number}", frames)
    except ConnectionError:
        pass
    finally:
        client.go()


# --- What is left ----------------------------------------------------------------------------------------------------


class Faults(logging.Handler):
    """Errors in the log: a client that goes away is none."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def descriptors() -> int:
    """Open file descriptors of this process; 0 where they cannot be counted."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def left_behind(server: ChatServer, tasks: int, files: int) -> list[str]:
    """Name what is there that was not there before."""
    service = server.service
    found = {
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
    return [name for name, is_left in found.items() if is_left]


def objects() -> int:
    """How many connections there are in memory, whoever still holds them."""
    gc.collect()
    return sum(isinstance(each, StompConnection | sockjs.Session) for each in gc.get_objects())


async def drop(count: int, first: int = 0) -> None:
    """So many clients, from number `first` on. AssertionError names what they left."""
    faults = Faults(logging.ERROR)
    logging.getLogger().addHandler(faults)
    async with await chat_server.start(MemoryBroker(max_length=100)) as server:
        await drop_somewhere(server.port, -1)  # what is made once, such as the task of presence, is made now
        await until(lambda: not server.service.connections, timeout=PATIENCE)
        tasks, files, before = len(asyncio.all_tasks()) + 3, descriptors() + 3, objects()
        turns = asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> None:
            async with turns:
                await drop_somewhere(server.port, number)

        await asyncio.gather(*(one(number) for number in range(first, first + count)))
        with suppress(TimeoutError):
            await until(lambda: not left_behind(server, tasks, files), timeout=PATIENCE, every=0.1)
        left = left_behind(server, tasks, files)
        assert not faults.records, faults.records[0].getMessage()
        running = Counter(getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks())
        assert not left, f"left behind: {', '.join(left)}; tasks: {running}"
        assert objects() <= before, "connections that nobody needs are still in memory"


if __name__ == "__main__":
    arguments = [int(argument) for argument in sys.argv[1:]] or [100_000]
    clients = max(1, arguments[0] // PER_CLIENT)
    began = time.monotonic()
    asyncio.run(drop(clients, *arguments[1:]))
    print(f"connections: {clients:,} dropped in {time.monotonic() - began:.0f} s, nothing left behind")
