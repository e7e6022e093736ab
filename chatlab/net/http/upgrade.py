"""aiohttp up to the upgrade to a WebSocket, and past it: the one file that uses what aiohttp does not document.

aiohttp reads the request and sends the 101. Then the TCP connection is ours (endpoint.py), while aiohttp goes on
counting it among its connections. Its own WebSocket takes frames that no client may send (not masked), and a future and
two turns of a task for each message.

What is not documented, and is held by tests/net/http/test_upgrade.py: `RequestHandler.set_parser`, which hands over
what came behind the request, and `Server.connections`, with the `transport` of each. pyproject.toml therefore names the
minor versions of aiohttp that were tried.
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
    """Return all header lines of a request, the repeated ones too."""
    return tuple(request.headers.items())


def refusal(error: HandshakeError) -> web.Response:
    """Return the answer that says what was wrong with a request."""
    return web.Response(status=error.status, text=f"{error}\n", headers=dict(error.headers))


async def upgrade(
    request: web.BaseRequest,
    accept: Accept,
    open_end: OpenEnd,
    log: Log | ThrottledLog,
    *,
    max_message: int = MAX_MESSAGE,
) -> web.StreamResponse:
    """Answer a request for a WebSocket as `accept` judges it. If it agrees, open its end; return when that is gone."""
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
        return response  # the client has hung up
    if request.transport is not None:
        websocket = Connection.opened(Side.SERVER, agreement.compression, max_message=max_message)
        end = open_end(request.transport, websocket)
        if tail := _take_tail(request):
            end.data_received(tail)
        await end.gone
    return response


def transports_of(runner: web.BaseRunner) -> list[asyncio.Transport]:
    """Return the transports of all connections a server has, those without a request among them."""
    connections = runner.server.connections if runner.server is not None else []
    return [each.transport for each in connections if each.transport is not None]


class _Tail:
    """What came in one piece with the request: aiohttp hands it to whoever is to parse what follows an upgrade."""

    def __init__(self) -> None:
        self.data = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Keep it."""
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        """The connection is over, which the end notices itself."""


def _take_tail(request: web.BaseRequest) -> bytes:
    tail = _Tail()
    request.protocol.set_parser(cast(Any, tail))
    return tail.data
