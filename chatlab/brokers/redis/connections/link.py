"""One connection to Redis that one task uses: open it, call, send a pipeline, lose it, open it again.

A blocking read has a separate link, so that it delays no other command. Left out: what to do after a loss.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from hiredis import pack_command
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from chatlab.brokers.redis.connections import url as redis_url
from chatlab.brokers.redis.connections.url import RedisUrl
from chatlab.brokers.redis.connections.watchdog import Watchdog
from chatlab.errors import LinkLost

Argument = bytes | str | int
Command = tuple[Argument, ...]


def why(error: Exception) -> str:
    """Return an error's text; asyncio's TimeoutError has none."""
    return str(error) or ("no answer in time" if isinstance(error, TimeoutError) else repr(error))


def body_of(fields: list[bytes]) -> bytes:
    """Return the body from a list field, value, field, value; empty if an entry of another writer has none."""
    if len(fields) == 2 and fields[0] == b"body":
        return fields[1]
    return dict(zip(fields[::2], fields[1::2], strict=True)).get(b"body", b"")


def naming(url: RedisUrl, used_for: str) -> Mapping[str, Any]:
    """Return what makes CLIENT LIST call a pool's connections "chatlab:USED_FOR", unless the URL names them.

    If the server does not allow CLIENT SETNAME, they stay unnamed.
    """

    async def log_in(connection: AbstractConnection) -> None:
        await connection.on_connect()
        await connection.send_command("CLIENT", "SETNAME", f"chatlab:{used_for}", check_health=False)
        with suppress(ResponseError):
            await connection.read_response()

    return {"redis_connect_func": log_in} if used_for and "client_name" not in url.options else {}


class Link:
    """A connection to `url`. A server that does not answer for `timeout` seconds counts as lost.

    Raises SetupError for a URL that is not valid. `protocol`: the RESP version, 2 for a server without 3.
    `used_for`: what CLIENT LIST calls it.
    """

    def __init__(self, url: str, timeout: float, *, protocol: int = 3, used_for: str = "") -> None:
        self.url = redis_url.parse(url)
        self._name = self.url.name
        self._timeout = timeout
        # The timeouts are ours: redis-py's use `asyncio.wait_for`, which in Python 3.11 can swallow a cancellation.
        ours = {"protocol": protocol, "socket_timeout": None, "socket_connect_timeout": None}
        self._pool = self.url.pool(ConnectionPool, {**ours, **naming(self.url, used_for)})
        self._connection: AbstractConnection | None = None
        self._dropped: list[AbstractConnection] = []
        self._watchdog = Watchdog()

    @property
    def is_open(self) -> bool:
        """Return whether the link was open when last used."""
        return self._connection is not None

    async def open(self) -> None:
        """Connect, log in, choose the database."""
        await self.close()
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]  # redis-py's gap
        try:
            async with asyncio.timeout(self._timeout):
                await connection.connect()  # type: ignore[no-untyped-call]  # the same
        except (RedisError, OSError) as error:  # TimeoutError is an OSError
            await connection.disconnect(nowait=True)
            reason = str(error) or f"no answer within {self._timeout:g} s"
            raise LinkLost(f"the broker at {self._name} does not answer: {reason}") from error
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        self._connection = connection

    async def is_usable(self) -> bool:
        """Return False if the server has closed an idle connection: it is better to know before sending a command."""
        try:
            return self._connection is not None and not await self._connection.can_read()
        except (RedisError, OSError):
            return False

    async def call(self, *command: Argument, wait: float = 0) -> Any:
        """Send one command; return its reply, which may take `wait` seconds longer. Raises ResponseError, LinkLost."""
        replies: list[Any] = []
        await self.pipeline([command], replies, wait=wait)
        if isinstance(replies[0], ResponseError):
            raise replies[0]
        return replies[0]

    async def pipeline(self, commands: Sequence[Command], replies: list[Any], *, wait: float = 0) -> None:
        """Send all in one write; append each reply (or ResponseError) to `replies` as it comes. Raises LinkLost."""
        if self._connection is None:
            raise LinkLost(f"not connected to the broker at {self._name}")
        try:
            with self._watchdog(self._timeout + wait):
                packed = b"".join([pack_command(command) for command in commands])  # type: ignore[arg-type]  # its stub takes tuples of one
                await self._connection.send_packed_command(packed, check_health=False)
                for _ in commands:
                    replies.append(await self._reply(self._connection))  # noqa: PERF401 (those before a loss count)
        except (RedisError, OSError) as error:  # TimeoutError is an OSError
            await self.close()
            raise LinkLost(f"lost the connection to the broker at {self._name}: {why(error)}") from error
        except BaseException:
            await self.close()  # replies are still on their way: the connection is out of sync
            raise

    async def send(self, *command: Argument) -> None:
        """Send a command whose reply `receive` returns. Raises LinkLost."""
        if self._connection is None:
            raise LinkLost(f"not connected to the broker at {self._name}")
        try:
            await self._connection.send_command(*command, check_health=False)
        except (RedisError, OSError) as error:
            await self.close()
            raise LinkLost(f"lost the connection to the broker at {self._name}: {why(error)}") from error

    async def receive(self, timeout: float) -> Any:
        """Return the next reply or pushed message; None after `timeout` seconds of silence. Raises LinkLost."""
        if self._connection is None:
            raise LinkLost(f"not connected to the broker at {self._name}")
        try:
            return await self._connection.read_response(timeout=timeout, push_request=True)
        except (RedisError, OSError) as error:
            await self.close()
            raise LinkLost(f"lost the connection to the broker at {self._name}: {why(error)}") from error

    @staticmethod
    async def _reply(connection: AbstractConnection) -> Any:
        try:
            return await connection.read_response(timeout=math.inf)
        except ResponseError as error:
            return error

    def drop(self) -> None:
        """Stop using this connection: `open` makes another and closes this one."""
        self._watchdog.stop()
        if self._connection is not None:
            self._dropped.append(self._connection)
            self._connection = None

    async def close(self) -> None:
        """Close the connection without waiting for the server."""
        self.drop()
        while self._dropped:
            await self._dropped.pop().disconnect(nowait=True)
