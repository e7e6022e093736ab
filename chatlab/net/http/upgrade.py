"""The upgrade of an aiohttp request to a WebSocket, which takes over aiohttp's TCP connection.

aiohttp reads the request and sends the 101. Then the TCP connection is ours (endpoint.py), but aiohttp still counts it
among its connections. aiohttp's own WebSocket is not used: it accepts unmasked frames, which no client may send, and it
costs a future and two task switches per message.

Undocumented parts of aiohttp used here, and covered by tests/net/http/test_upgrade.py: `RequestHandler.set_parser`,
which hands over the data that followed the request, and `Server.connections`, with the `transport` of each. So
pyproject.toml pins aiohttp to the minor versions that were tested.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from aiohttp import web

from chatlab.errors import HandshakeError
from chatlab.logs.throttled import ThrottledLog
from chatlab.net.endpoint import Log, WebSocketEnd
from chatlab.websocket.connection import MAX_MESSAGE, Accept, Connection
from chatlab.websocket.frames import Side
from chatlab.websocket.handshake import Headers, Request

OpenEnd = Callable[[asyncio.Transport, Connection], WebSocketEnd]


def headers_of(request: web.BaseRequest) -> Headers:
    """Return all header lines of a request, including repeated ones."""
    return tuple(request.headers.items())


def refusal(error: HandshakeError) -> web.Response:
    """Return the response that refuses a request with `error`."""
    return web.Response(status=error.status, text=f"{error}\n", headers=dict(error.headers))


async def upgrade(
    request: web.BaseRequest,
    accept: Accept,
    open_end: OpenEnd,
    log: Log | ThrottledLog,
    *,
    max_message: int = MAX_MESSAGE,
) -> web.StreamResponse:
    """Answer an upgrade request as `accept` decides. If it accepts, open the WebSocket's end; return once it closes."""
    version = (request.version[0], request.version[1])
    try:
        agreed, agreement = accept(Request(request.path_qs, headers_of(request), request.method, version))
    except HandshakeError as refused:
        log.info("upgrade refused", extra={"status": int(refused.status), "reason": str(refused)})
        return refusal(refused)
    response = web.StreamResponse(status=agreed.status, headers=dict(agreed.headers))
    response.force_close()
    try:
        await response.prepare(request)
    except ConnectionError:
        return response  # the client has disconnected
    if request.transport is not None:
        websocket = Connection.opened(Side.SERVER, agreement.compression, max_message=max_message)
        end = open_end(request.transport, websocket)
        if rest := _take_rest(request):
            end.data_received(rest)
        await end.closed
    return response


def transports_of(runner: web.BaseRunner) -> list[asyncio.Transport]:
    """Return the transports of all of a server's connections, including those without a request."""
    connections = runner.server.connections if runner.server is not None else []
    return [each.transport for each in connections if each.transport is not None]


class _Collector:
    """A stand-in for a parser: aiohttp feeds it the data that arrived together with the upgrade request."""

    def __init__(self) -> None:
        self.data = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Collect data."""
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        """Do nothing: the WebSocket's end notices a closed connection itself."""


def _take_rest(request: web.BaseRequest) -> bytes:
    """Return the data that followed an upgrade request."""
    collector = _Collector()
    request.protocol.set_parser(cast(Any, collector))
    return collector.data
