"""The check of a request's Host, before anything else: one rule for every route of the aiohttp servers.

`handshake.accept` applies the same rule to WebSocket upgrades; `handshake.check_host` says what it protects against.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from chatlab.errors import HandshakeError
from chatlab.logs.throttled import ThrottledLog
from chatlab.net.http.upgrade import headers_of, refusal
from chatlab.websocket.handshake import Request, check_host

__all__ = ["request_of", "require_known_host"]


def request_of(request: web.BaseRequest) -> Request:
    """Return the request in the form that the rules of `handshake` check."""
    # For an absolute target, `path_qs` lacks the host; `raw_path` has it.
    target = request.raw_path if "://" in request.raw_path else request.path_qs
    return Request(target, headers_of(request), request.method, (request.version[0], request.version[1]))


def require_known_host(names: Collection[str], origins: Sequence[str], log: ThrottledLog) -> Middleware:
    """Return a middleware that refuses requests whose Host is not one of `names` (see `handshake.known_names`)."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            check_host(request_of(request), names, origins)
        except HandshakeError as refused:
            log.info("request refused", extra={"peer": request.remote, "reason": str(refused)})
            answer = refusal(refused)
            answer.force_close()
            return answer
        return await handler(request)

    return check
