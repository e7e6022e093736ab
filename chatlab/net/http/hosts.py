"""The name a request asks for, judged before anything else: one rule for every route of the servers on aiohttp.

A WebSocket's upgrade is judged by `handshake.accept`, which applies the same rule; see `handshake.check_host` for what
it keeps out.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from chatlab.errors import HandshakeError
from chatlab.logs.throttled import ThrottledLog
from chatlab.net.http.upgrade import headers_of, refusal
from chatlab.websocket.handshake import Request, check_host

__all__ = ["judged_by_name", "request_of"]


def request_of(request: web.BaseRequest) -> Request:
    """Return what the rules of `handshake` look at."""
    # `path_qs` of an absolute target has lost the host; the target as it came has not.
    target = request.raw_path if "://" in request.raw_path else request.path_qs
    return Request(target, headers_of(request), request.method, (request.version[0], request.version[1]))


def judged_by_name(names: Collection[str], origins: Sequence[str], log: ThrottledLog) -> Middleware:
    """Return a middleware that answers only requests for a server of these names (`handshake.known_names`)."""

    @web.middleware
    async def judge(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            check_host(request_of(request), names, origins)
        except HandshakeError as refused:
            log.info("request refused", extra={"peer": request.remote, "reason": str(refused)})
            answer = refusal(refused)
            answer.force_close()
            return answer
        return await handler(request)

    return judge
