"""An imitation of an old Redis: a relay to a real one that answers some commands itself as an old one would."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import hiredis

Answer = Callable[[Sequence[bytes]], bytes | None]  # the reply to a command; None: ask the real server
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
    said = redis_6_0(command)
    return said.replace(b"6.0.16", b"5.0.14") if said else None


@contextlib.asynccontextmanager
async def relayed(url: str, answer: Answer) -> AsyncIterator[str]:
    """Relay commands one by one to the Redis at `url`; provide the relay's URL."""
    target = urlsplit(url)
    talks: set[asyncio.Task[Any]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks.add(task)
        there, back = await asyncio.open_connection(target.hostname, target.port)
        try:
            async for command in commands(reader):
                said = answer(command)
                if said is None:
                    back.write(
                        b"*%d\r\n" % len(command) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in command)
                    )
                    said = await reply(there)
                writer.write(said)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            back.close()
            talks.discard(task)

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)


async def commands(reader: asyncio.StreamReader) -> AsyncIterator[Sequence[bytes]]:
    """Read a client's next command."""
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
