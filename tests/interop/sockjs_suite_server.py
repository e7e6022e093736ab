"""The services that the suite of sockjs-protocol needs, on chatlab's SockJS: /echo and /close. See docs/suites.md.

python -m tests.interop.sockjs_suite_server 8081
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import sys
from collections.abc import Callable
from functools import partial

from aiohttp import web

from chatlab.chat.delivery.transport import WEBSOCKET_FRAMING, ClientTransport
from chatlab.chat.endpoint.sockjs import SockJS
from chatlab.net.endpoint import WebSocketEnd
from chatlab.net.http.upgrade import upgrade
from chatlab.websocket import handshake
from chatlab.websocket.connection import Connection

logger = logging.getLogger("chatlab.suite")


class Echo:
    """Send every message back."""

    def __init__(self, transport: ClientTransport) -> None:
        self.transport = transport

    def receive(self, data: bytes, text: bool) -> bool:
        self.transport.sink.write(self.transport.framing.frame([data]))
        return True

    async def finish(self) -> None:
        """Do nothing, because no message is ever pending."""

    def end(self) -> None:
        """Do nothing, because there is no state."""


class Closed(Echo):
    """Close the session as soon as it opens."""

    def __init__(self, transport: ClientTransport) -> None:
        super().__init__(transport)
        asyncio.get_running_loop().call_soon(transport.sink.close, 3000, "Go away!")


def add_service(app: web.Application, path: str, kind: Callable[[ClientTransport], Echo]) -> None:
    """Add a service: its greeting, a WebSocket without SockJS ("raw" in the suite), and SockJS."""

    def open_end(request: web.Request, transport: asyncio.Transport, protocol: Connection) -> WebSocketEnd:
        def open_peer(end: WebSocketEnd) -> Echo:
            return kind(ClientTransport(WEBSOCKET_FRAMING, end))

        return WebSocketEnd(transport, protocol, open_peer, name="raw", log=logger)

    async def raw(request: web.Request) -> web.StreamResponse:
        accept = partial(handshake.accept, origins=["*"], compression=False)
        return await upgrade(request, accept, partial(open_end, request), logger)

    names = itertools.count()
    # The suite expects the server to end a stream after 4096 octets.
    server = SockJS(
        lambda transport, request, id: kind(transport), lambda: str(next(names)), origins=["*"], stream_limit=4096
    )
    app.router.add_get(path, server.greet)
    app.router.add_get(f"{path}/websocket", raw)
    server.add_routes(app.router, path)


async def serve(port: int) -> None:
    app = web.Application()
    add_service(app, "/echo", Echo)
    add_service(app, "/close", Closed)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print(f"listening on http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
