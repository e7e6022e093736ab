"""Echo servers: each message is sent back to its sender, while further messages may be arriving.

`start` uses the `websockets` library: its handler has two lines. `start_by_hand` is the same server on chatlab's own
`Connection` and asyncio: here and in `net/endpoint.py` is everything the library does for those two lines.

Both hold at most `max_held` octets for all their clients (`net/memory_limit.py`), and at most as many connections as
`limits` allows (`net/gate.py`); behind `trusted_proxies`, an address is what X-Forwarded-For says. Left out of the
hand-written one: TLS.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Self, cast

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from chatlab.classroom import host_to_open, in_url
from chatlab.net.connection_limits import ConnectionLimits, Refusals, TrustedProxies
from chatlab.net.endpoint import EndSettings, KeepAlive, WebSocketEnd
from chatlab.net.gate import Gate
from chatlab.net.http.server import ACCEPTED_AT_ONCE, extend_backlog
from chatlab.net.memory_limit import LIMIT, HeldOctets
from chatlab.net.websockets_library import Transports, checked_by, close, quiet
from chatlab.websocket import handshake
from chatlab.websocket.connection import MAX_MESSAGE, Accept, Connection, Opened, State
from chatlab.websocket.frames import CloseCode, Side
from chatlab.websocket.handshake import Agreement, Request, Response, get_all, known_names

logger = logging.getLogger("chatlab.echo")

KEEP_ALIVE = KeepAlive(20.0, 20.0)  # seconds, the library's defaults; drops clients that vanished without a Close


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
    """Send each message back. The library keeps reading while a send waits for space in the socket's buffer."""
    with suppress(ConnectionClosed):  # the client may disconnect before its message is sent back
        async for message in websocket:
            await websocket.send(message)


async def start(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    origins: Sequence[str] = (),
    host_names: Sequence[str] = (),
    compression: bool = True,
    max_message: int = MAX_MESSAGE,
    max_held: int = LIMIT,
    limits: ConnectionLimits = ConnectionLimits(),  # noqa: B008 (it cannot change)
    trusted_proxies: Sequence[str] = (),
    open_timeout: float = 10.0,
    close_timeout: float = 2.0,
) -> EchoServer:
    """Start an echo server on the `websockets` library. Port 0 picks a free port; a port in use raises OSError."""
    names = known_names((host, *host_names), origins)
    transports = Transports(HeldOctets(logger, max_held))
    gate = Gate.of(limits, Refusals(logger), TrustedProxies(trusted_proxies), spare=0)
    server = await serve(
        echo,
        host,
        port,
        process_request=checked_by(partial(handshake.accept, origins=origins, names=names), gate),
        create_connection=transports.gated_connection_class(gate),
        backlog=ACCEPTED_AT_ONCE,
        compression="deflate" if compression else None,
        max_size=max_message,
        max_queue=1,
        open_timeout=open_timeout,
        close_timeout=close_timeout,
        server_header=None,
        logger=quiet(logger),
    )
    extend_backlog(server.sockets)
    return EchoServer(server, partial(close, server, transports, close_timeout))


# --- By hand ---------------------------------------------------------------------------------------------------------


async def start_by_hand(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    origins: Sequence[str] = (),
    host_names: Sequence[str] = (),
    subprotocols: Sequence[str] = (),
    compression: bool = True,
    max_message: int = MAX_MESSAGE,
    max_held: int = LIMIT,
    limits: ConnectionLimits = ConnectionLimits(),  # noqa: B008 (it cannot change)
    trusted_proxies: Sequence[str] = (),
    open_timeout: float = 10.0,
    close_timeout: float = 2.0,
) -> EchoServer:
    """Start an echo server on `Connection`. Port 0 picks a free port; a port in use raises OSError."""
    names = known_names((host, *host_names), origins)
    accept = partial(handshake.accept, origins=origins, names=names, subprotocols=subprotocols, compression=compression)
    gate = Gate.of(limits, Refusals(logger), TrustedProxies(trusted_proxies), spare=0)
    settings = EndSettings(KEEP_ALIVE, close_timeout, HeldOctets(logger, max_held))
    clients = Clients(accept, gate, max_message, open_timeout, settings)
    make = gate.protocol_factory(lambda: Handshake(clients))
    server = await asyncio.get_running_loop().create_server(make, host, port, backlog=ACCEPTED_AT_ONCE)
    extend_backlog(server.sockets)

    async def aclose() -> None:
        server.close()
        await clients.aclose()
        await server.wait_closed()

    return EchoServer(server, aclose)


class Echo:
    """The peer of one client: it sends each message back, and stops reading while the client isn't reading."""

    def __init__(self, end: WebSocketEnd) -> None:
        self._end = end

    def receive(self, data: bytes, text: bool) -> bool:
        """Send a message back, compressed if negotiated. Return False while output is buffered."""
        self._end.send(data, text)
        return not self._end.buffered()

    async def finish(self) -> None:
        """Wait until the output has drained."""
        await self._end.drained()

    def end(self) -> None:
        """Do nothing: the server keeps no state per client."""


class Clients:
    """The clients of one server, and their common settings."""

    def __init__(
        self, accept: Accept, gate: Gate, max_message: int, open_timeout: float, settings: EndSettings
    ) -> None:
        self.accept = accept
        self.gate = gate
        self.open_timeout = open_timeout
        self.settings = settings
        self.connecting: set[Handshake] = set()
        self.open: set[WebSocketEnd] = set()
        self._max_message = max_message

    def connection(self, accept: Accept) -> Connection:
        """Return the protocol state for a new client."""
        return Connection(Side.SERVER, accept=accept, max_message=self._max_message)

    async def aclose(self) -> None:
        """Close every WebSocket with 1001, and drop those still open after the timeout."""
        for client in list(self.connecting):
            client.abort()
        for end in self.open:
            end.close(CloseCode.GOING_AWAY, "")
        if self.open:
            await asyncio.wait([end.closed for end in self.open], timeout=self.settings.close_timeout)
        for end in self.open:
            end.abort()


class Handshake(asyncio.Protocol):
    """One client's opening handshake. Once it succeeds, a `WebSocketEnd` takes over the TCP connection."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._websocket = clients.connection(self._accept)
        self._transport: asyncio.Transport
        self._deadline: asyncio.TimerHandle
        self._end: WebSocketEnd | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the time limit for the client's upgrade request."""
        self._transport = cast(asyncio.Transport, transport)
        self._clients.connecting.add(self)
        self._abort_in(self._clients.open_timeout)

    def data_received(self, data: bytes) -> None:
        """Parse the request, and answer it once it is complete. `Connection` keeps any data that follows it."""
        if self._websocket.state is not State.CONNECTING:
            return  # refused: discard the data, because a reset for unread bytes could overtake our response
        event = next(self._websocket.receive_data(data), None)
        self._transport.write(self._websocket.data_to_send())
        if isinstance(event, Opened):
            self._open()
        elif event is not None:
            self._transport.write_eof()
            self._deadline.cancel()
            self._abort_in(self._clients.settings.close_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client: its TCP connection has closed, before or after the handshake."""
        self._deadline.cancel()
        self._clients.connecting.discard(self)
        if self._end is not None:
            self._clients.open.discard(self._end)

    def abort(self) -> None:
        """Drop the connection."""
        self._transport.abort()

    def _accept(self, request: Request) -> tuple[Response, Agreement]:
        accepted = self._clients.accept(request)
        self._clients.gate.admit_client(self._transport, get_all(request.headers, "X-Forwarded-For"))
        return accepted

    def _open(self) -> None:
        self._deadline.cancel()
        self._clients.connecting.discard(self)
        host, port = self._transport.get_extra_info("peername")[:2]
        name = f"{host}:{port}"
        log = logging.LoggerAdapter(logger, {"connection": name})
        self._end = WebSocketEnd(
            self._transport, self._websocket, Echo, name=name, log=log, settings=self._clients.settings
        )
        self._clients.open.add(self._end)
        self._end.data_received(b"")  # process the data that arrived together with the request

    def _abort_in(self, seconds: float) -> None:
        self._deadline = asyncio.get_running_loop().call_later(seconds, self.abort)
