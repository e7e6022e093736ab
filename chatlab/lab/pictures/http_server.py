"""A small HTTP server for a picture: a few paths on a free port of this machine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aiohttp import web

__all__ = ["HOST", "HttpServer", "serve"]

HOST: Final = "127.0.0.1"
KEPT_SECONDS: Final = 3600.0  # how long an idle connection is kept: a learner may read in between
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HttpServer:
    """A running server; `aclose` stops it and drops its connections."""

    def __init__(self, runner: web.AppRunner) -> None:
        self.port: int = runner.addresses[0][1]
        self._runner = runner

    async def aclose(self) -> None:
        """Stop listening, and drop what is open."""
        await self._runner.cleanup()


async def serve(handlers: Mapping[str, Handler]) -> HttpServer:
    """Serve each path with its handler, whatever the method."""
    application = web.Application()
    for path, handler in handlers.items():
        application.router.add_route("*", path, handler)
    runner = web.AppRunner(
        application, access_log=None, handler_cancellation=True, shutdown_timeout=0.1, keepalive_timeout=KEPT_SECONDS
    )
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    return HttpServer(runner)
