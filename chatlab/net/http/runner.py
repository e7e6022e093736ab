"""aiohttp's server as it meets strangers: it names no versions, and what a client got wrong is no fault of ours.

More that aiohttp does not document, held by tests/net/http/test_runner.py: `AppRunner._make_server`, which makes the
server that makes a `RequestHandler` for each connection; its `_waiter`, pending while no whole request is here, and its
`_messages`, those that are; `Request._prepare_hook`, called before the headers of any answer are sent, those to what
is not HTTP among them.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from aiohttp import hdrs, web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError, InvalidURLError

from chatlab.logs.throttled import Log, ThrottledLog

__all__ = ["QuietHandler", "Runner"]

# What does not parse, and a body that is not as its headers announce it.
CLIENTS_FAULT = (HttpProcessingError, web.RequestPayloadError)
OCTETS = re.compile(r":\s+(?:bytearray\()?b['\"]")


class Runner(web.AppRunner):
    """Runs an application on handlers of ours; the rest of `web.AppRunner`'s arguments are as they were."""

    def __init__(self, app: web.Application, log: Log, **options: Any) -> None:
        super().__init__(app, access_log=None, logger=ErrorLog(log), **options)

    async def _make_server(self) -> web.Server:
        made: Any = await super()._make_server()
        options = made._kwargs  # what the handlers are made with
        application = self.app

        def make_request(message: Any, payload: Any, handler: Any, writer: Any, task: Any) -> web.Request:
            return application._make_request(message, payload, handler, writer, task, QuietRequest)

        return QuietServer(
            made.request_handler,
            request_factory=make_request,
            handler_cancellation=made.handler_cancellation,
            loop=asyncio.get_running_loop(),
            **options,
        )


class QuietRequest(web.Request):
    """A request whose answer does not say what made it: `QuietServer` would hold the versions of Python and aiohttp."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        await super()._prepare_hook(response)
        response.headers.popall(hdrs.SERVER, None)


class QuietServer(web.Server):
    """Makes the handlers."""

    def __call__(self) -> QuietHandler:
        """Return the protocol of one connection."""
        return QuietHandler(self, loop=self._loop, **self._kwargs)


class QuietHandler(web.RequestHandler):
    """One connection, which knows since when it has had half a request."""

    __slots__ = ("_half_since",)

    def __init__(self, *parts: Any, **options: Any) -> None:
        super().__init__(*parts, **options)
        self._half_since: float | None = None

    @property
    def half_since(self) -> float | None:
        """When the request began that has come in part, on the loop's clock; None while one is answered, or none is."""
        return self._half_since if self._waits() else None

    def data_received(self, data: bytes) -> None:
        """Read on; notice whether this leaves a request half read."""
        super().data_received(data)
        whole = self._messages[-1][0] if self._messages else None
        if self._has_more(data, whole) if whole is not None else self._waits():
            if self._half_since is None or whole is not None:
                self._half_since = self._loop.time()
        elif whole is not None:
            self._half_since = None

    def _waits(self) -> bool:
        return self._waiter is not None and not self._waiter.done()

    def _has_more(self, data: bytes, last: Any) -> bool:
        """Say whether `data`, in which the request `last` came, goes on behind it: the parser does not tell."""
        if not isinstance(last, RawRequestMessage) or last.chunked or last.upgrade:
            return False
        behind = data.rpartition(b"\r\n\r\n")[2].lstrip(b"\r\n")
        return len(behind) > int(last.headers.get(hdrs.CONTENT_LENGTH, 0))

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer 400 to what is not HTTP, in its body too; leave the rest to aiohttp, whose faults are ours."""
        if not isinstance(exc, CLIENTS_FAULT):
            return super().handle_error(request, status, exc, message)
        not_http(self.logger, request.remote, exc)
        if request.writer.output_size > 0:
            raise ConnectionResetError("an answer is under way already: nothing can be said but goodbye")
        response = web.Response(status=400, text=f"not HTTP: {_in_short(exc)}\n")
        response.force_close()
        return response


class ErrorLog(ThrottledLog):
    """What aiohttp takes for a logger: few lines of a kind, so that a fault of ours, too, is not logged without end."""

    def debug(self, *_: object, **__: object) -> None:
        """Leave out what is nobody's fault, such as clients that go early."""

    def exception(self, message: str, *args: object, exc_info: BaseException | None = None, **_: object) -> None:
        """Log a fault with its traceback, unless it is the client's: a body that nobody asked for is read away too."""
        if isinstance(exc_info, CLIENTS_FAULT):
            not_http(self, None, exc_info)
        else:
            self.error(message, *args, exc_info=exc_info or True)


def not_http(log: Any, peer: str | None, error: BaseException) -> None:
    """Log what a client got wrong."""
    log.info("not HTTP", extra={"peer": peer or "?", "reason": _in_short(error)})


def _in_short(error: BaseException) -> str:
    """What an error says, on one line, without the octets that it shows below."""
    if isinstance(error, InvalidURLError):
        return "target is no URL"  # it may hold a room code
    text = error.message if isinstance(error, HttpProcessingError) else str(error.__cause__ or error)
    first, *_ = OCTETS.split(text.strip()) or [""]
    return (first.splitlines() or [""])[0].rstrip(":")[:120]
