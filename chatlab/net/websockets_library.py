"""The library `websockets` under the servers that lessons compare with: judged by our rule, and closed in time.

A `ServerConnection` is an asyncio protocol, which the library lets one subclass (`create_connection`). That it gets
`connection_made` and `connection_lost` from the event loop is what this file rests on, and what
tests/net/test_websockets_library.py holds: so a connection's transport is known from its first moment. The library
itself waits for a client that does not finish its handshake, and does not say how much is buffered for one.
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
from chatlab.net.held import Held
from chatlab.websocket.connection import Accept
from chatlab.websocket.frames import CloseCode
from chatlab.websocket.handshake import Request

ProcessRequest = Callable[[ServerConnection, LibraryRequest], LibraryResponse | None]


DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)


class Transports:
    """The transports of a server's connections, by connection, those still in their handshake among them."""

    def __init__(self, held: Held | None = None) -> None:
        self.held = held
        self._open: dict[ServerConnection, asyncio.Transport] = {}

    def connection_class(self, send_buffer: int | None = None) -> type[ServerConnection]:
        """Return what to give the library as `create_connection`; `send_buffer` is the kernel's for each, in bytes."""
        transports, held = self._open, self.held

        class TrackedConnection(ServerConnection):
            arriving = 0  # octets of a frame that is not whole, a little too many if others came with it
            waiting = 0  # octets of the frames that the handler has not had as a message

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
                    held.note(self, 0)
                super().connection_lost(exc)

            def data_received(self, data: bytes) -> None:
                self.arriving += len(data)
                super().data_received(data)
                self.note_what_is_held()

            def process_event(self, event: Any) -> None:
                self.arriving = 0
                if isinstance(event, Frame) and event.opcode in DATA:
                    self.waiting += len(event.data)
                super().process_event(event)

            async def recv(self, *args: Any, **options: Any) -> Any:
                message: Any = await super().recv(*args, **options)
                octets = message.encode() if isinstance(message, str) and not message.isascii() else message
                self.waiting = max(0, self.waiting - len(octets))
                return message

            def resume_writing(self) -> None:
                super().resume_writing()
                self.note_what_is_held()

            def note_what_is_held(self) -> None:
                if held is not None and (transport := transports.get(self)) is not None:
                    held.note(self, self.arriving + self.waiting + transport.get_write_buffer_size())

            def give_up(self, reason: str) -> None:
                self.protocol.fail(CloseCode.TRY_AGAIN_LATER, reason)
                transport, nothing_before = transports[self], not transports[self].get_write_buffer_size()
                if nothing_before:  # behind what nobody reads, nobody reads it
                    transport.writelines(self.protocol.data_to_send())
                    transport.close()
                else:
                    transport.abort()

        return TrackedConnection

    def connection_class_behind(self, gate: Gate) -> type[ServerConnection]:
        """Return what to give the library as `create_connection`, so that each connection needs a place."""
        connection_class = self.connection_class()

        def create_connection(*parts: Any, **options: Any) -> GatedConnection:
            return GatedConnection(gate, lambda: connection_class(*parts, **options))

        # The library only calls it, and hands what it returns to the event loop.
        return cast(type[ServerConnection], create_connection)

    def buffered(self, connection: ServerConnection) -> int:
        """Return how many bytes wait for this client; 0 once its connection is lost."""
        transport = self._open.get(connection)
        return transport.get_write_buffer_size() if transport is not None else 0

    def abort(self) -> None:
        """Drop every connection."""
        for transport in list(self._open.values()):
            transport.abort()


def judged_by(accept: Accept) -> ProcessRequest:
    """Return a `process_request` that refuses what `accept` refuses, with the same answer."""

    def process_request(connection: ServerConnection, request: LibraryRequest) -> LibraryResponse | None:
        try:
            accept(Request(request.path, tuple(request.headers.raw_items())))
        except HandshakeError as refused:
            answer = connection.respond(HTTPStatus(refused.status), f"{refused}\n")
            for name, value in refused.headers:
                answer.headers[name] = value
            return answer
        return None

    return process_request


class _Quiet(ThrottledLog):
    """What the library takes for a logger. It logs each malformed request with a traceback, as if it were our fault."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  # logging's name for it
        """What is no warning is not logged: the library has a line for each connection."""
        return level >= logging.WARNING

    def debug(self, *_: object, **__: object) -> None:
        """Leave it out."""

    def log(
        self,
        level: int,
        message: str,
        *args: object,
        extra: Mapping[str, Any] | None = None,
        exc_info: BaseException | bool | None = None,
    ) -> None:
        """Log one line; the traceback of a fault of ours alone."""
        if not self.isEnabledFor(level):
            return
        error = sys.exception() if exc_info is True else exc_info
        connection = (extra or {}).get("websocket")
        peer = {"peer": _peer(connection)} if connection is not None else {}
        if error and message not in OURS:
            super().log(logging.INFO, message, *args, extra={**peer, "reason": _reason(error)})
        elif isinstance(error, ConnectionClosed):  # the handler of a lesson lets it through: it is no fault
            super().log(level, message, *args, extra={**peer, "reason": _reason(error)})
        else:
            super().log(level, message, *args, extra=peer, exc_info=exc_info)


# What the library says when it was our code that failed.
OURS = ("connection handler failed", "process_request failed", "process_response failed")


def quiet(log: Log) -> Any:
    """Return what to give the library as `logger`: a malformed request is one line in `log`, and few of them."""
    return _Quiet(log)


def _peer(connection: ServerConnection) -> str:
    return str((connection.remote_address or ("?",))[0])


def _reason(error: BaseException) -> str:
    """What the first cause says, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(f"{error}".split())[:120] or type(error).__name__


async def close(server: Server, transports: Transports, seconds: float, reason: str = "") -> None:
    """Stop listening and close every connection with 1001; after `seconds`, drop those that are left."""
    # RFC 6455, 7.4.1: 1001 "indicates that an endpoint is "going away", such as a server going down"
    server.close(code=CloseCode.GOING_AWAY, reason=reason)
    try:
        async with asyncio.timeout(seconds):
            await server.wait_closed()
    except TimeoutError:
        transports.abort()
        await server.wait_closed()
