"""The smallest servers: each message goes back to whoever sent it, while more may be coming in.

`start` is what one writes with the library `websockets`: a handler of two lines. `start_by_hand` is the same server on
chatlab's own `Connection` and asyncio's streams: all that the library does for those two lines, laid open.

Left out by hand: keep-alive pings and TLS. A client that is silent for ever keeps its connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from chatlab.classroom import host_to_open, in_url
from chatlab.websocket import handshake
from chatlab.websocket.connection import MAX_MESSAGE, WRITING, Connection, Message, Opened, State
from chatlab.websocket.frames import CloseCode, Side
from chatlab.websocket.handshake import origin_allowed

READ_SIZE = 64 * 1024


class EchoServer:
    """A running server; `async with` closes it at the end of the block."""

    def __init__(self, server: asyncio.Server | Server, aclose: Callable[[], Awaitable[None]]) -> None:
        host, self.port = next(iter(server.sockets)).getsockname()[:2]
        self.url = f"ws://{in_url(host_to_open(host))}:{self.port}/"
        self._aclose = aclose

    async def aclose(self) -> None:
        """Stop listening and close every connection with 1001, "going away"."""
        await self._aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


# --- With the library ------------------------------------------------------------------------------------------------


async def echo(websocket: ServerConnection) -> None:
    """Send each message back. The library goes on reading while a send waits for room in the socket's buffer."""
    with suppress(ConnectionClosed):  # the client may be gone before its message is back
        async for message in websocket:
            await websocket.send(message)


async def start(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    origins: Sequence[str] = (),
    compression: bool = True,
    max_message: int = MAX_MESSAGE,
    close_timeout: float = 2.0,
) -> EchoServer:
    """Start an echo server on the library `websockets`. Port 0 takes a free one; `OSError` if a given one is taken."""

    def refuse_foreign_pages(connection: ServerConnection, request: Request) -> Response | None:
        if origin_allowed(request.headers.get("Origin"), request.headers.get("Host"), origins):
            return None
        return connection.respond(
            HTTPStatus.FORBIDDEN, f"pages of {request.headers['Origin']!r} may not connect here\n"
        )

    server = await serve(
        echo,
        host,
        port,
        process_request=refuse_foreign_pages,
        compression="deflate" if compression else None,
        max_size=max_message,
        close_timeout=close_timeout,
    )

    async def aclose() -> None:
        server.close()
        await server.wait_closed()

    return EchoServer(server, aclose)


# --- By hand ---------------------------------------------------------------------------------------------------------


async def start_by_hand(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    origins: Sequence[str] = (),
    subprotocols: Sequence[str] = (),
    compression: bool = True,
    max_message: int = MAX_MESSAGE,
    open_timeout: float = 10.0,
    close_timeout: float = 2.0,
) -> EchoServer:
    """Start an echo server on `Connection`. Port 0 takes a free one; `OSError` if a given one is taken."""
    accept = partial(handshake.accept, origins=origins, subprotocols=subprotocols, compression=compression)
    clients: dict[asyncio.Task[None], Client] = {}

    async def serve_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(Side.SERVER, accept=accept, max_message=max_message)
        client = Client(connection, reader, writer, open_timeout, close_timeout)
        task = asyncio.current_task()
        assert task is not None  # a stream's callback runs as a task
        clients[task] = client
        try:
            await client.run()
        finally:
            del clients[task]

    server = await asyncio.start_server(serve_client, host, port)

    async def aclose() -> None:
        server.close()
        for client in clients.values():
            client.go_away()
        if clients:
            _, late = await asyncio.wait(clients, timeout=close_timeout)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await server.wait_closed()

    return EchoServer(server, aclose)


class Client:
    """One client of the server by hand: moves bytes between its socket and its `Connection`."""

    def __init__(
        self,
        connection: Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        open_timeout: float,
        close_timeout: float,
    ) -> None:
        self._connection = connection
        self._reader = reader
        self._writer = writer
        self._open_timeout = open_timeout
        self._close_timeout = close_timeout

    async def run(self) -> None:
        """Serve the client until its TCP connection ends, and leave nothing of it behind."""
        try:
            async with asyncio.timeout(self._open_timeout) as deadline:
                await self._talk(deadline)
            async with asyncio.timeout(self._close_timeout):
                await self._linger()
        except (OSError, TimeoutError):
            pass  # the client reset the connection, or took too long over its handshake or its end
        finally:
            self._writer.transport.abort()

    def go_away(self) -> None:
        """Start the closing handshake; `run` sees to its end."""
        if self._connection.state is State.OPEN:
            self._connection.close(CloseCode.GOING_AWAY)
            self._writer.write(self._connection.data_to_send())
        elif self._connection.state is State.CONNECTING:
            self._writer.transport.abort()

    async def _talk(self, deadline: asyncio.Timeout) -> None:
        """Read, answer, write, until it is for us to close. A client that does not read is not read from either."""
        while not self._connection.must_close_tcp:
            data = await self._reader.read(READ_SIZE)
            if not data:
                self._connection.receive_eof()
                return
            for event in self._connection.receive_data(data):
                if isinstance(event, Opened):
                    deadline.reschedule(None)
                if isinstance(event, Message) and self._connection.state in WRITING:
                    self._connection.send(event.data)
            self._writer.write(self._connection.data_to_send())
            await self._writer.drain()

    async def _linger(self) -> None:
        """End our direction, and read away what is still under way in the other.

        Closing a socket with unread bytes in it resets the connection, and the reset could overtake our Close.
        """
        if self._writer.can_write_eof():
            self._writer.write_eof()
        while await self._reader.read(READ_SIZE):
            pass
        self._writer.close()
        await self._writer.wait_closed()
