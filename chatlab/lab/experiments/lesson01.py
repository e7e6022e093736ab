"""Lesson 01's experiments: an HTTP server that may not send its news, one that does anyway, and raw handshakes.

`start_board` is a real HTTP server, on aiohttp. `one_unasked` runs a server that breaks HTTP's rule on purpose. `ask`
sends a request byte for byte, so that learners can spoil any line of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
from typing import Self
from urllib.parse import urlsplit

from aiohttp import web

from chatlab.locale import _, ngettext
from chatlab.websocket.handshake import Request, Response

__all__ = ["Board", "ask", "hear", "one_unasked", "start_board"]

READ_SIZE = 64 * 1024
PATIENCE = 5.0  # seconds to wait for an answer that will come


async def hear(reader: asyncio.StreamReader, *, seconds: float) -> bytes:
    """Return the next bytes as soon as any arrive, or b"" if none do within `seconds`."""
    try:
        return await asyncio.wait_for(reader.read(READ_SIZE), seconds)
    except TimeoutError:
        return b""


async def ask(url: str, request: str | bytes) -> Response:
    """Send `request` unchanged on a new connection; return the response. Raises OSError or `TimeoutError`."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    received = b""
    try:
        writer.write(request.encode() if isinstance(request, str) else request)
        async with asyncio.timeout(PATIENCE):
            while (parsed := Response.parse(received)) is None:
                piece = await reader.read(READ_SIZE)
                if not piece:
                    raise ConnectionError(_unfinished(len(received)))
                received += piece
    finally:
        writer.close()
    return parsed[0]


def _unfinished(size: int) -> str:
    return ngettext(
        "the connection ended after {count} byte of the response",
        "the connection ended after {count} bytes of the response",
        size,
    ).format(count=size)


# --- A server that has news ------------------------------------------------------------------------------------------


class Board:
    """A notice board over HTTP: `GET /news` returns the newest notice."""

    def __init__(self) -> None:
        self.news = _("nothing yet")
        self.port = 0
        application = web.Application()
        application.router.add_get("/news", self._answer)
        self._runner = web.AppRunner(application)

    async def start(self, host: str, port: int) -> Self:
        """Listen. Raises OSError when the port is taken."""
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        self.port = self._runner.addresses[0][1]
        self.url = f"http://{host}:{self.port}/news"
        return self

    def post(self, news: str) -> None:
        """Put up a new notice. Clients see it only when they ask."""
        self.news = news

    async def _answer(self, request: web.Request) -> web.Response:
        return web.Response(text=self.news)

    async def aclose(self) -> None:
        """Stop listening and drop the connections."""
        await self._runner.cleanup()


async def start_board(*, host: str = "127.0.0.1", port: int = 0) -> Board:
    """Start a notice board. Port 0 takes a free one."""
    return await Board().start(host, port)


# --- A server that speaks unasked ------------------------------------------------------------------------------------


async def one_unasked(*paths: str, news: str) -> list[str]:
    """Ask for each path in turn on one connection; return the texts that Python's HTTP client takes for the answers.

    After the first answer the server sends one more response, `news`, that nobody asked for.
    """
    served: list[asyncio.StreamWriter] = []
    closed = asyncio.Event()
    # Send an answer only when the client has read the response before it. The client would read two responses at once
    # and drop the second with its buffer.
    may_answer = asyncio.Semaphore(1)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):  # the client has closed the connection
            while parsed := Request.parse(await reader.readuntil(b"\r\n\r\n")):
                await may_answer.acquire()
                writer.write(_ok(_("the answer to {path}").format(path=parsed[0].target)))
        writer.close()
        closed.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        client = http.client.HTTPConnection("127.0.0.1", server.sockets[0].getsockname()[1], timeout=PATIENCE)
        answers = [await asyncio.to_thread(_get, client, paths[0])]
        served[0].write(_ok(news))
        for path in paths[1:]:
            answers.append(await asyncio.to_thread(_get, client, path))
            may_answer.release()
        client.close()
        await closed.wait()
    return answers


def _get(client: http.client.HTTPConnection, path: str) -> str:
    client.request("GET", path)
    return client.getresponse().read().decode()


def _ok(text: str) -> bytes:
    body = text.encode()
    fields = (("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body))))
    return Response(200, fields, body=body).serialize()
