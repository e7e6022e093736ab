"""Lesson 01's experiments: an HTTP server that has news and may not say so, another that does, handshakes to spoil.

`start_board` is a real HTTP server, on aiohttp. `one_unasked` runs a server that breaks HTTP's rule on purpose. `ask`
sends a request byte for byte as it was written, so that any line of it can be spoiled.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
from typing import Self
from urllib.parse import urlsplit

from aiohttp import web

from chatlab.websocket.handshake import Request, Response

__all__ = ["Board", "ask", "hear", "one_unasked", "start_board"]

READ_SIZE = 64 * 1024
PATIENCE = 5.0  # seconds to wait for an answer that is sure to come


async def hear(reader: asyncio.StreamReader, *, seconds: float) -> bytes:
    """Return the next bytes as soon as any come, or b"" when none have come after `seconds`."""
    try:
        return await asyncio.wait_for(reader.read(READ_SIZE), seconds)
    except TimeoutError:
        return b""


async def ask(url: str, request: str | bytes) -> Response:
    """Send `request` as it is, on a connection of its own; return the answer. Raises OSError, `TimeoutError`."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    heard = b""
    try:
        writer.write(request.encode() if isinstance(request, str) else request)
        async with asyncio.timeout(PATIENCE):
            while (parsed := Response.parse(heard)) is None:
                piece = await reader.read(READ_SIZE)
                if not piece:
                    raise ConnectionError(f"the connection ended after {len(heard)} bytes of an answer")
                heard += piece
    finally:
        writer.close()
    return parsed[0]


# --- A server that has news ------------------------------------------------------------------------------------------


class Board:
    """A notice board over HTTP: `GET /news` is answered with the newest notice."""

    def __init__(self) -> None:
        self.news = "nothing yet"
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
        """Put up a new notice. Who has not asked since does not know."""
        self.news = news

    async def _answer(self, request: web.Request) -> web.Response:
        return web.Response(text=self.news)

    async def aclose(self) -> None:
        """Stop listening and drop the connections."""
        await self._runner.cleanup()


async def start_board(*, host: str = "127.0.0.1", port: int = 0) -> Board:
    """Start a notice board. Port 0 takes a free one."""
    return await Board().start(host, port)


# --- A server that cannot keep it to itself --------------------------------------------------------------------------


async def one_unasked(*paths: str, news: str) -> list[str]:
    """Ask for each path in turn on one connection; return what Python's HTTP client takes for the answers.

    After the first answer the server sends a response more, `news`, that nobody has asked for.
    """
    served: list[asyncio.StreamWriter] = []
    over = asyncio.Event()
    # Each answer waits until the client has what it takes for that answer. Two at once it would read in one go,
    # and throw the second away with its buffer.
    may_answer = asyncio.Semaphore(1)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):  # the client has had enough
            while parsed := Request.parse(await reader.readuntil(b"\r\n\r\n")):
                await may_answer.acquire()
                writer.write(_ok(f"the answer to {parsed[0].target}"))
        writer.close()
        over.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        client = http.client.HTTPConnection("127.0.0.1", server.sockets[0].getsockname()[1], timeout=PATIENCE)
        answers = [await asyncio.to_thread(_get, client, paths[0])]
        served[0].write(_ok(news))
        for path in paths[1:]:
            answers.append(await asyncio.to_thread(_get, client, path))
            may_answer.release()
        client.close()
        await over.wait()
    return answers


def _get(client: http.client.HTTPConnection, path: str) -> str:
    client.request("GET", path)
    return client.getresponse().read().decode()


def _ok(text: str) -> bytes:
    body = text.encode()
    fields = (("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body))))
    return Response(200, fields, body=body).serialize()
