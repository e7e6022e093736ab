"""An imitation of an old Redis: a relay to a real one that answers some commands itself, as the old one does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import hiredis

Answer = Callable[[Sequence[bytes]], bytes | None]  # returns the reply to a command, or None to ask the real server
INFO_6_0 = b"# Server\r\nredis_version:6.0.16\r\nredis_mode:standalone\r\n"


def redis_6_0(command: Sequence[bytes]) -> bytes | None:
    """Return what Redis 6.0.16 replies to a command that it answers differently; None for any other."""
    name = command[0].upper()
    if name == b"INFO":
        return b"$%d\r\n%s\r\n" % (len(INFO_6_0), INFO_6_0)
    if name == b"XAUTOCLAIM":
        return b"-ERR unknown command `XAUTOCLAIM`, with args beginning with: \r\n"
    if name in (b"XRANGE", b"XREVRANGE") and any(part.startswith(b"(") for part in command):
        return b"-ERR Invalid stream ID specified as stream command argument\r\n"
    return None


def redis_5_0(command: Sequence[bytes]) -> bytes | None:
    """Return what Redis 5.0 replies to a command that it answers differently; None for any other."""
    if command[0].upper() == b"HELLO":
        return b"-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n"
    answered = redis_6_0(command)
    return answered.replace(b"6.0.16", b"5.0.14") if answered else None


@contextlib.asynccontextmanager
async def relayed(url: str, answer: Answer) -> AsyncIterator[str]:
    """Relay commands one by one to the Redis at `url`; yield the relay's URL."""
    target = urlsplit(url)
    tasks: set[asyncio.Task[Any]] = set()

    async def serve_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        server_reader, server_writer = await asyncio.open_connection(target.hostname, target.port)
        try:
            async for command in commands(reader):
                answered = answer(command)
                if answered is None:
                    server_writer.write(
                        b"*%d\r\n" % len(command) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in command)
                    )
                    answered = await reply(server_reader)
                writer.write(answered)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            server_writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(serve_client, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def commands(reader: asyncio.StreamReader) -> AsyncIterator[Sequence[bytes]]:
    """Yield the commands of a client."""
    parser = hiredis.Reader()
    while data := await reader.read(1 << 16):
        parser.feed(data)
        while (command := parser.gets()) is not False:
            yield command


async def reply(reader: asyncio.StreamReader) -> bytes:
    """Read one reply as it is on the wire: https://redis.io/docs/latest/develop/reference/protocol-spec/"""
    line = await reader.readuntil(b"\r\n")
    kind, rest = line[:1], line[1:-2]
    if kind in b"$=!":
        return line + (await reader.readexactly(int(rest) + 2) if int(rest) >= 0 else b"")
    if kind in b"*~>%":
        parts = max(0, int(rest)) * (2 if kind == b"%" else 1)
        return line + b"".join([await reply(reader) for _ in range(parts)])
    return line
