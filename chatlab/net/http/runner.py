"""aiohttp's server, hardened: responses name no versions, and a client's errors are not logged as the server's.

This file uses further undocumented parts of aiohttp, covered by tests/net/http/test_runner.py:
`AppRunner._make_server`, which creates the server that creates a `RequestHandler` for each connection; the handler's
`_waiter`, pending until a whole request has arrived, its `_messages`, the requests that have, and its
`_current_request`, the one that is being answered; and
`Request._prepare_hook`, called before the headers of any response are sent, even of responses to non-HTTP input.
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

# Errors caused by the client: input that does not parse, and a body that does not match its headers.
CLIENT_ERRORS = (HttpProcessingError, web.RequestPayloadError)
OCTETS = re.compile(r":\s+(?:bytearray\()?b['\"]")


class Runner(web.AppRunner):
    """An `AppRunner` that uses our own request handlers; the keyword arguments are those of `web.AppRunner`."""

    def __init__(
        self,
        app: web.Application,
        log: Log,
        *,
        handler_cancellation: bool,
        shutdown_timeout: float,
        keepalive_timeout: float,
    ) -> None:
        super().__init__(
            app,
            access_log=None,
            logger=ErrorLog(log),
            handler_cancellation=handler_cancellation,
            shutdown_timeout=shutdown_timeout,
            keepalive_timeout=keepalive_timeout,
        )

    async def _make_server(self) -> web.Server:
        made: Any = await super()._make_server()
        options = made._kwargs  # the arguments for the handlers
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
    """A request whose response has no Server header, which would name the versions of Python and aiohttp."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        await super()._prepare_hook(response)
        response.headers.popall(hdrs.SERVER, None)


class QuietServer(web.Server):
    """A server that creates `QuietHandler`s."""

    def __call__(self) -> QuietHandler:
        """Return the protocol for one connection."""
        return QuietHandler(self, loop=self._loop, **self._kwargs)


class QuietHandler(web.RequestHandler):
    """One connection, which records when an incomplete request began."""

    __slots__ = ("_half_since",)

    def __init__(self, *parts: Any, **options: Any) -> None:  # aiohttp's own arguments, passed on
        super().__init__(*parts, **options)
        self._half_since: float | None = None

    @property
    def half_since(self) -> float | None:
        """When the current incomplete request began, on the loop's clock; None if there is none."""
        return self._half_since if self._is_waiting() else None

    def data_received(self, data: bytes) -> None:
        """Parse data, and record whether it ends in an incomplete request."""
        between = self._is_between_requests()
        super().data_received(data)
        whole = self._messages[-1][0] if self._messages else None
        if self._continues_after(data, whole) if whole is not None else between:
            if self._half_since is None or whole is not None:
                self._half_since = self._loop.time()
        elif whole is not None:
            self._half_since = None

    def _is_between_requests(self) -> bool:
        """Tell whether what arrives now begins a request or continues one, even while the one before is answered."""
        return self._is_waiting() or self._current_request is None or self._current_request.content.is_eof()

    def _is_waiting(self) -> bool:
        return self._waiter is not None and not self._waiter.done()

    def _continues_after(self, data: bytes, last: Any) -> bool:
        """Tell whether `data` continues after the request `last` that it contains. The parser does not report this."""
        if not isinstance(last, RawRequestMessage) or last.chunked or last.upgrade:
            return False
        rest = data.rpartition(b"\r\n\r\n")[2].lstrip(b"\r\n")
        return len(rest) > int(last.headers.get(hdrs.CONTENT_LENGTH, 0))

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer 400 if the request or its body is not HTTP. Let aiohttp handle other errors, which are our own."""
        if not isinstance(exc, CLIENT_ERRORS):
            return super().handle_error(request, status, exc, message)
        log_not_http(self.logger, request.remote, exc)
        if request.writer.output_size > 0:
            raise ConnectionResetError("the response has started already; the connection can only be closed")
        response = web.Response(status=400, text=f"not HTTP: {_summary(exc)}\n")
        response.force_close()
        return response


class ErrorLog(ThrottledLog):
    """The logger given to aiohttp. It is throttled, so that even our own errors cannot flood the log.

    `**_` are the other arguments of `logging.Logger`'s methods.
    """

    def debug(self, *_: object, **__: object) -> None:
        """Discard debug lines, such as those about clients that disconnect early."""

    def exception(self, message: str, *args: object, exc_info: BaseException | None = None, **_: object) -> None:
        """Log an error with its traceback, or in short if a client caused it, even by a body that is not used."""
        if isinstance(exc_info, CLIENT_ERRORS):
            log_not_http(self, None, exc_info)
        else:
            self.error(message, *args, exc_info=exc_info or True)


def log_not_http(log: Any, peer: str | None, error: BaseException) -> None:
    """Log that a client sent something that is not HTTP."""
    log.info("not HTTP", extra={"peer": peer or "?", "reason": _summary(error)})


def _summary(error: BaseException) -> str:
    """Return an error's message on one line, without the octets quoted below it."""
    if isinstance(error, InvalidURLError):
        return "target is not a URL"  # it may hold a room code
    text = error.message if isinstance(error, HttpProcessingError) else str(error.__cause__ or error)
    first, *_ = OCTETS.split(text.strip()) or [""]
    return (first.splitlines() or [""])[0].rstrip(":")[:120]
