"""The `websockets` library, as the servers use it that lessons compare with: our handshake rules, a bounded shutdown.

A `ServerConnection` is an asyncio protocol, which the library allows one to subclass (`create_connection`). This file
relies on `connection_made` and `connection_lost` being called by the event loop, which
tests/net/test_websockets_library.py verifies: so each connection's transport is known from the start. The library alone
waits for clients that do not complete their handshake, and does not report how much is buffered for a client.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, cast

from websockets import Frame, Opcode
from websockets.asyncio.server import Server, ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request as LibraryRequest
from websockets.http11 import Response as LibraryResponse

from chatlab.errors import HandshakeError
from chatlab.logs.throttled import Log, ThrottledLog
from chatlab.net.gate import Gate, GatedConnection
from chatlab.net.memory_limit import HeldOctets
from chatlab.websocket.connection import Accept
from chatlab.websocket.frames import CloseCode
from chatlab.websocket.handshake import Request

ProcessRequest = Callable[[ServerConnection, LibraryRequest], LibraryResponse | None]


DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)


class Transports:
    """The transports of a server's connections, including those still in their handshake."""

    def __init__(self, held: HeldOctets | None = None) -> None:
        self.held = held
        self._open: dict[ServerConnection, asyncio.Transport] = {}

    def connection_class(self, send_buffer: int | None = None) -> type[ServerConnection]:
        """Return the class for the library's `create_connection`; `send_buffer` is the kernel's per connection."""
        transports, held = self._open, self.held

        class TrackedConnection(ServerConnection):
            arriving = 0  # octets of an incomplete frame; a slight overestimate if other frames came with it
            waiting = 0  # octets of the frames that the handler has not received as messages yet

            def __str__(self) -> str:
                return f"connection {_peer(self)}"

            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                transports[self] = cast(asyncio.Transport, transport)
                if send_buffer is not None:
                    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
                super().connection_made(transport)

            def connection_lost(self, exc: Exception | None) -> None:
                transports.pop(self, None)
                if held is not None:
                    held.update(self, 0)
                super().connection_lost(exc)

            def data_received(self, data: bytes) -> None:
                self.arriving += len(data)
                super().data_received(data)
                self.update_held()

            def process_event(self, event: Any) -> None:
                self.arriving = 0
                if isinstance(event, Frame) and event.opcode in DATA:
                    self.waiting += len(event.data)
                super().process_event(event)

            async def recv(self, decode: bool | None = None) -> Any:
                message: Any = await super().recv(decode)
                octets = message.encode() if isinstance(message, str) and not message.isascii() else message
                self.waiting = max(0, self.waiting - len(octets))
                return message

            def resume_writing(self) -> None:
                super().resume_writing()
                self.update_held()

            def update_held(self) -> None:
                if held is not None and (transport := transports.get(self)) is not None:
                    held.update(self, self.arriving + self.waiting + transport.get_write_buffer_size())

            def drop(self, reason: str) -> None:
                self.protocol.fail(CloseCode.TRY_AGAIN_LATER, reason)
                transport = transports[self]
                if transport.get_write_buffer_size():  # the client is not reading, so it would not read a Close either
                    transport.abort()
                else:
                    transport.writelines(self.protocol.data_to_send())
                    transport.close()

        return TrackedConnection

    def gated_connection_class(self, gate: Gate) -> type[ServerConnection]:
        """Return the value for the library's `create_connection` that makes each connection take a slot of `gate`."""
        connection_class = self.connection_class()

        def create_connection(*parts: Any, **options: Any) -> GatedConnection:  # the library's arguments, passed on
            return GatedConnection(gate, lambda: connection_class(*parts, **options))

        # The library only calls it, and passes the result to the event loop.
        return cast(type[ServerConnection], create_connection)

    def buffered(self, connection: ServerConnection) -> int:
        """Return the number of bytes buffered for this client; 0 once its connection is closed."""
        transport = self._open.get(connection)
        return transport.get_write_buffer_size() if transport is not None else 0

    def abort(self) -> None:
        """Drop every connection."""
        for transport in list(self._open.values()):
            transport.abort()


def checked_by(accept: Accept, gate: Gate | None = None) -> ProcessRequest:
    """Return a `process_request` that refuses what `accept` refuses, with the same response.

    `gate` admits clients behind trusted proxies.
    """

    def process_request(connection: ServerConnection, request: LibraryRequest) -> LibraryResponse | None:
        try:
            accept(Request(request.path, tuple(request.headers.raw_items())))
            if gate is not None:
                gate.admit_client(connection.transport, request.headers.get_all("X-Forwarded-For"))
        except HandshakeError as refused:
            answer = connection.respond(HTTPStatus(refused.status), f"{refused}\n")
            for name, value in refused.headers:
                answer.headers[name] = value
            return answer
        return None

    return process_request


class _Quiet(ThrottledLog):
    """The logger given to the library, which logs each malformed request with a traceback, as if it were our error."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  # logging's name for it
        """Return False below warnings: the library logs a line for each connection."""
        return level >= logging.WARNING

    def debug(self, *_: object, **__: object) -> None:  # the arguments of `logging.Logger.debug`
        """Discard the line."""

    def log(
        self,
        level: int,
        message: str,
        *args: object,
        extra: Mapping[str, Any] | None = None,
        exc_info: BaseException | bool | None = None,
    ) -> None:
        """Log one line, with a traceback only for our own errors."""
        if not self.isEnabledFor(level):
            return
        error = sys.exception() if exc_info is True else exc_info
        connection = (extra or {}).get("websocket")
        peer = {"peer": _peer(connection)} if connection is not None else {}
        if error and message not in OUR_ERRORS:
            super().log(logging.INFO, message, *args, extra={**peer, "reason": _reason(error)})
        elif isinstance(error, ConnectionClosed):  # a lesson's handler may let it through: this is no error
            super().log(level, message, *args, extra={**peer, "reason": _reason(error)})
        else:
            super().log(level, message, *args, extra=peer, exc_info=exc_info)


# The library's messages for errors in our code.
OUR_ERRORS = ("connection handler failed", "process_request failed", "process_response failed")


def quiet(log: Log) -> Any:
    """Return the value for the library's `logger`, which logs a malformed request as one throttled line in `log`."""
    return _Quiet(log)


def _peer(connection: ServerConnection) -> str:
    return str((connection.remote_address or ("?",))[0])


def _reason(error: BaseException) -> str:
    """Return the message of the root cause on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(f"{error}".split())[:120] or type(error).__name__


async def close(server: Server, transports: Transports, seconds: float, reason: str = "") -> None:
    """Stop listening and close every connection with 1001; after `seconds`, drop the remaining ones."""
    # RFC 6455, 7.4.1: 1001 "indicates that an endpoint is "going away", such as a server going down"
    server.close(code=CloseCode.GOING_AWAY, reason=reason)
    try:
        async with asyncio.timeout(seconds):
            await server.wait_closed()
    except TimeoutError:
        transports.abort()
        await server.wait_closed()
