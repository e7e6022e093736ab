"""Lesson 01's experiments: HTTP that may not send its news, handshakes with and without TLS, Closes; and the verdicts.

`start_board` is a real HTTP server, on aiohttp. `one_unasked` runs a server that breaks HTTP's rule on purpose. `ask`
sends a request byte for byte, so that learners can change any line of it. `start_newsroom` and `visit` are the lesson's
server that speaks first and its client, for ws:// and wss://. `start_late` answers a Close only after more messages.

`c1` to `c10` compute the verdicts from what the cells measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import logging
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

import trustme
from aiohttp import web
from websockets.asyncio.server import Server, ServerConnection, broadcast, serve

from chatlab import echo
from chatlab.lab.claims import Figure, Verdict, verdict
from chatlab.lab.hand_client import KEY, HandClient
from chatlab.lab.wire.trace import Events
from chatlab.lab.wire.wire import Wire
from chatlab.locale import _, ngettext
from chatlab.websocket.connection import Closed
from chatlab.websocket.handshake import Request, Response, accept, accept_key, make_request

__all__ = [
    "Board",
    "Certificate",
    "LateServer",
    "Newsroom",
    "Visit",
    "ask",
    "c1",
    "c2",
    "c6",
    "c7",
    "c9",
    "c10",
    "hear",
    "make_certificate",
    "newest",
    "one_unasked",
    "silence",
    "start_board",
    "start_late",
    "start_newsroom",
    "visit",
]

READ_SIZE = 64 * 1024
PATIENCE = 5.0  # seconds to wait for an answer that will come
SILENCE = 0.5  # seconds to listen where nothing is expected
HOUR = 3600.0
REQUEST = make_request("ws://server.example.com/chat", key=KEY, compression=False).serialize()  # RFC 6455, 1.2
GREETING = "어서 오세요 👋"  # "Welcome"
QUESTION = b"GET /news HTTP/1.1\r\nHost: board.example\r\n\r\n"
PATHS = ("/weather", "/time", "/menu", "/bus")
NEWS = ("점심 먹을까요? 🍜", "비가 와요 ☔")  # "Lunch?", "It's raining"


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
        # A learner may read for a while. A request that is no HTTP is answered with 400, without a traceback in a cell.
        self._runner = web.AppRunner(application, keepalive_timeout=HOUR, logger=_unheard())

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


def _unheard() -> logging.Logger:
    logger = logging.getLogger(f"{__name__}.board")
    logger.disabled = True
    return logger


async def start_board(*, host: str = "127.0.0.1", port: int = 0) -> Board:
    """Start a notice board. Port 0 takes a free one."""
    return await Board().start(host, port)


async def silence(news: str = NEWS[0]) -> bytes:
    """Connect to a board that gets news; return what arrives within `SILENCE` seconds without a question."""
    board = await start_board()
    reader, writer = await asyncio.open_connection("127.0.0.1", board.port)
    try:
        board.post(news)
        return await hear(reader, seconds=SILENCE)
    finally:
        writer.close()
        await board.aclose()


# --- A server that speaks unasked ------------------------------------------------------------------------------------


async def one_unasked(*paths: str, unasked: Sequence[str]) -> list[str]:
    """Ask for each path in turn on one connection; return the texts that Python's HTTP client takes for the answers.

    After the first answer, the server sends the texts in `unasked` as responses that nobody asked for.
    """
    responses: asyncio.Queue[str] = asyncio.Queue()
    # Send a response only when the client has read the one before it. The client would read two at once, and drop the
    # second with its buffer.
    may_send = asyncio.Semaphore(1)
    closed = asyncio.Event()

    async def send_responses(writer: asyncio.StreamWriter) -> None:
        while await may_send.acquire():
            writer.write(_ok(await responses.get()))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sending = asyncio.create_task(send_responses(writer), name="responses")
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):  # the client has closed the connection
            while parsed := Request.parse(await reader.readuntil(b"\r\n\r\n")):
                responses.put_nowait(_answer_to(parsed[0].target))
        sending.cancel()
        writer.close()
        closed.set()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        client = http.client.HTTPConnection("127.0.0.1", server.sockets[0].getsockname()[1], timeout=PATIENCE)
        heard = [await asyncio.to_thread(_get, client, paths[0])]
        for text in unasked:
            responses.put_nowait(text)
        for path in paths[1:]:
            may_send.release()
            heard.append(await asyncio.to_thread(_get, client, path))
        client.close()
        await closed.wait()
    return heard


def _answer_to(path: str) -> str:
    return _("the answer to {path}").format(path=path)


def _get(client: http.client.HTTPConnection, path: str) -> str:
    client.request("GET", path)
    return client.getresponse().read().decode()


def _ok(text: str) -> bytes:
    body = text.encode()
    fields = (("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body))))
    return Response(200, fields, body=body).serialize()


# --- A server that speaks first, with and without TLS ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate for 127.0.0.1 and its key, as settings for the server that shows it and a client that trusts it."""

    server: ssl.SSLContext
    client: ssl.SSLContext


def make_certificate() -> Certificate:
    """Make an authority of our own and let it sign a certificate for 127.0.0.1; only our client trusts it."""
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    return Certificate(server, client)


class Newsroom:
    """A WebSocket server that greets each client and never reads, behind a wire; with a certificate it speaks TLS."""

    def __init__(self, server: Server, wire: Wire, certificate: Certificate | None) -> None:
        self.server = server
        self.wire = wire
        self.certificate = certificate

    async def aclose(self) -> None:
        """Close the connections and stop."""
        await self.wire.aclose()
        self.server.close()
        await self.server.wait_closed()


async def start_newsroom(certificate: Certificate | None = None) -> Newsroom:
    """Start a newsroom at ws://, or with a certificate at wss://."""

    async def greet(connection: ServerConnection) -> None:
        await connection.send(GREETING)
        await connection.wait_closed()

    tls = certificate.server if certificate else None
    server = await serve(greet, "127.0.0.1", 0, ssl=tls, compression=None, close_timeout=0.1)
    scheme = "wss" if certificate else "ws"
    wire = Wire(to=f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/chat")
    return Newsroom(server, await wire.start(), certificate)


@dataclass(frozen=True, slots=True)
class Visit:
    """What a client read at a newsroom, after TLS if there was any, and what the wire saw of it."""

    head: str
    frame: bytes
    seen: Events

    @property
    def secret(self) -> bool:
        """Whether the wire saw something that begins like TLS: a handshake record (RFC 8446, 5.1)."""
        return self._octets().startswith(b"\x16\x03")

    def shows(self, words: str) -> bool:
        """Whether the wire saw `words`."""
        return words.encode() in self._octets()

    def _octets(self) -> bytes:
        return b"".join(event.data for event in self.seen)


async def visit(newsroom: Newsroom, request: bytes = REQUEST) -> Visit:
    """Send a request on a new connection; return the head of the answer and the first frame after it."""
    tls = newsroom.certificate.client if newsroom.certificate else None
    reader, writer = await asyncio.open_connection(newsroom.wire.host, newsroom.wire.port, ssl=tls)
    try:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        frame = await hear(reader, seconds=PATIENCE)
        return Visit(head, frame, newest(newsroom.wire.trace))
    finally:
        writer.close()


def newest(trace: Events) -> Events:
    """Return the events of the newest connection in a trace."""
    last = max((event.connection for event in trace), default=0)
    return trace.filter(connection=last)


# --- A server that says more after the client's Close ----------------------------------------------------------------

PAGE = """<!doctype html><meta charset="utf-8"><title>{title}</title><p id="found" role="status">{waiting}</p><script>
let before = 0, after = 0, closing = false
const socket = new WebSocket("ws://" + location.host + "/")
socket.onmessage = () => {{
  if (closing) {{ after += 1; return }}
  before += 1
  closing = true
  socket.close(1000)
}}
socket.onclose = event => {{
  const figures = {{before, after, code: event.code}}
  found.textContent = {found}.replace(/<(\\w+)>/g, (whole, name) => figures[name])
}}
</script>"""  # not shown: markup and script; `_page` fills its texts in


class LateServer:
    """A server that greets, waits for the client's Close, sends `messages` more, and only then its own Close.

    At `page` it serves a page that counts what a browser receives. `sent` counts the messages after the client's Close.
    """

    def __init__(self, messages: int) -> None:
        self.messages = messages
        self.sent = 0
        self.url = self.page = ""
        self._server: asyncio.Server

    async def start(self) -> Self:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self.url, self.page = f"ws://{address}/", f"http://{address}/"
        return self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):  # the client has gone
            parsed = Request.parse(await reader.readuntil(b"\r\n\r\n"))
            if parsed and parsed[0].get("Upgrade"):
                writer.write(accept(parsed[0], compression=False, origins=["*"])[0].serialize())
                await self._talk(reader, writer)
            else:
                writer.write(_html(_page()))
        writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_text_frame(GREETING))
        first = 0
        while first != 0x88:  # a frame from the client: two octets, a mask of four, and the payload
            first, second = await reader.readexactly(2)
            await reader.readexactly(4 + (second & 0x7F))
        for number in range(1, self.messages + 1):
            writer.write(_text_frame(_("late message {number}").format(number=number)))
            self.sent += 1
        writer.write(bytes.fromhex("88 02 03 e8"))
        await writer.drain()

    async def aclose(self) -> None:
        """Stop listening."""
        self._server.close()
        await self._server.wait_closed()


async def start_late(messages: int) -> LateServer:
    """Start a server that sends so many messages after the client's Close."""
    return await LateServer(messages).start()


def _text_frame(text: str) -> bytes:
    data = text.encode()
    return bytes([0x81, len(data)]) + data


def _page() -> str:
    found = _("before close(): <before> · after close(): <after> · closed with <code>")
    title, waiting = _("After close()"), _("waiting for the server …")
    return PAGE.format(title=title, waiting=waiting, found=json.dumps(found).replace("<", "\\u003c"))


def _html(page: str) -> bytes:
    fields = (("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(page.encode()))))
    return Response(200, (*fields, ("Connection", "close")), body=page.encode()).serialize()


# --- Verdicts --------------------------------------------------------------------------------------------------------


def c1(unasked: Sequence[bytes], heard: Sequence[str], paths: Sequence[str] = PATHS) -> Verdict:
    """Judge C1 by what came unasked, and by what the client took for the answers to `paths`."""
    octets = sum(map(len, unasked))
    wrong = sum(text != _answer_to(path) for path, text in zip(paths, heard, strict=True))
    measured = _(
        "listened {times} times to a server with news: {octets} bytes unasked. Where a server spoke anyway, the client "
        "took {wrong} of {answers} responses for the wrong answer."
    )
    return verdict(
        "C1",
        holds=octets == 0,
        because=_("the server sent something that nobody had asked for"),
        figure=Figure(_("bytes sent unasked"), octets, 0, at_least=False),
        measured=measured.format(times=len(unasked), octets=octets, wrong=wrong, answers=len(heard)),
        again=_c1_again,
    )


async def _c1_again() -> Verdict:
    unasked = [await silence() for __ in range(2)]
    return c1(unasked, await one_unasked(*PATHS, unasked=NEWS[:1]))


def c2(trace: Events) -> Verdict:
    """Judge C2 by the frames on the newest connection: how many the server sent before the client's first."""
    senders = [event.sender for event in newest(trace).filter("websocket")]
    first = senders.index("client") if "client" in senders else len(senders)
    return verdict(
        "C2",
        holds=first >= 2,
        because=_("the server did not speak before the client did, or only once"),
        figure=Figure(_("frames of the server before the client's first"), first, 2),
        measured=_("{server} frames from the server, {client} from the client").format(
            server=senders.count("server"), client=senders.count("client")
        ),
        again=_c2_again,
    )


async def _c2_again() -> Verdict:
    async with _running(await start_newsroom()) as newsroom:
        __, writer = await asyncio.open_connection(newsroom.wire.host, newsroom.wire.port)
        writer.write(REQUEST)
        await newsroom.wire.wait_for("websocket", "text")
        broadcast(newsroom.server.connections, NEWS[0])
        await newsroom.wire.wait_for("websocket", "text", count=2)
        found = c2(newsroom.wire.trace)
        writer.close()
    return found


@contextlib.asynccontextmanager
async def _running(newsroom: Newsroom) -> AsyncIterator[Newsroom]:
    try:
        yield newsroom
    finally:
        await newsroom.aclose()


def c6(*visits: Visit) -> Verdict:
    """Judge C6 by visits over HTTP and over HTTPS: each began as an HTTP request, and went on in frames."""
    switched = [each for each in visits if _switched(each)]
    return verdict(
        "C6",
        holds=len(switched) == len(visits),
        when=_untested(visits),
        because=_("a connection did not begin as HTTP, or did not go on in frames"),
        figure=Figure(_("visits that switched from HTTP to frames"), len(switched), len(visits)),
        measured="; ".join(map(_way, visits)),
        again=_c6_again,
    )


def _switched(visit: Visit) -> bool:
    """Whether HTTP came first and frames after it. On a TLS wire only the client can tell, and nothing is readable."""
    inside = visit.head.startswith("HTTP/1.1 101 ") and visit.frame.startswith(b"\x81")
    if visit.secret:
        return inside and not visit.shows("HTTP/1.1") and not visit.shows(GREETING)
    layers = [event.layer for event in visit.seen.filter(("http", "websocket", "bytes"))]
    return inside and layers[:2] == ["http", "http"] and set(layers[2:]) == {"websocket"}


def _way(visit: Visit) -> str:
    layers = dict.fromkeys(event.layer for event in visit.seen if event.layer != "tcp")
    seen = _("TLS records only") if visit.secret else " → ".join(layers)
    return _("the wire saw: {layers}; the client read: {status}, then a frame").format(
        layers=seen, status=visit.head.partition("\r\n")[0]
    )


def _untested(visits: Sequence[Visit]) -> str:
    """Return the condition under which a claim on HTTP(S) was tested; "" if both forms were."""
    kinds = {each.secret for each in visits}
    conditions = {frozenset({False}): _("over HTTP; HTTPS was not tested here"), frozenset({True}): _("over HTTPS")}
    return conditions.get(frozenset(kinds), "")


async def _both_visits() -> list[Visit]:
    """Visit a newsroom over HTTP and one over HTTPS."""
    found = []
    for certificate in (None, await asyncio.to_thread(make_certificate)):
        async with _running(await start_newsroom(certificate)) as newsroom:
            found.append(await visit(newsroom))
    return found


async def _c6_again() -> Verdict:
    return c6(*await _both_visits())


def c7(*visits: Visit) -> Verdict:
    """Judge C7 by the answers to the RFC's request: 101, the upgrade, and the proof for its key."""
    agreed = sum(_agreed(each.head) for each in visits)
    return verdict(
        "C7",
        holds=agreed == len(visits),
        when=_untested(visits),
        because=_("an answer did not agree, or had no proof for the client's key"),
        figure=Figure(_("handshakes agreed on, with the right proof"), agreed, len(visits)),
        measured="; ".join(
            f"{each.head.partition(chr(13))[0]}, {_header(each.head, 'Sec-WebSocket-Accept')}" for each in visits
        ),
        again=_c7_again,
    )


def _agreed(head: str) -> bool:
    return (
        head.startswith("HTTP/1.1 101 ")
        and _header(head, "Upgrade").lower() == "websocket"
        and _header(head, "Sec-WebSocket-Accept") == accept_key(KEY)
    )


def _header(head: str, name: str) -> str:
    parsed = Response.parse(head.encode("latin-1"))
    return (parsed[0].get(name) or "") if parsed else ""


async def _c7_again() -> Verdict:
    return c7(*await _both_visits())


def c9(*traces: Events) -> Verdict:
    """Judge C9 by two connections: which side sent the first Close, and whether the other side answered it."""
    closes = [[str(event.sender) for event in trace.filter("websocket", "close")] for trace in traces]
    answered = [senders for senders in closes if set(senders) == {"client", "server"}]
    starters = {senders[0] for senders in answered}
    started = ", ".join(senders[0] if senders else _("nobody") for senders in closes)
    return verdict(
        "C9",
        holds=starters == {"client", "server"},
        because=_("one side never started a Close that the other answered"),
        figure=Figure(_("sides that started a Close and were answered"), len(starters), 2),
        measured=_("the first Close came from: {sides}; {answered} of {count} were answered").format(
            sides=started, answered=len(answered), count=len(closes)
        ),
        again=_c9_again,
    )


async def _closed_by_client() -> Events:
    async with await echo.start_by_hand() as server, Wire(to=server.url) as wire:
        client = await HandClient.connect(wire.url)
        await client.send("안녕 👋")
        await client.close(1000)
        await wire.wait_for("tcp", "FIN", count=2)
        return wire.trace


async def _closed_by_server() -> Events:
    server = await echo.start_by_hand()
    async with Wire(to=server.url) as wire:
        client = await HandClient.connect(wire.url)
        await server.aclose()
        await client.next(Closed)
        return wire.trace


async def _c9_again() -> Verdict:
    return c9(await _closed_by_client(), await _closed_by_server())


def c10(trace: Events) -> Verdict:
    """Judge C10 by a whole conversation: how many TCP connections carried it."""
    opened = len(trace.filter("tcp", "open"))
    kinds = [event.kind for event in trace.filter(("http", "websocket", "tcp"))]
    missing = {"request", "response", "text", "close", "FIN"} - set(kinds)
    return verdict(
        "C10",
        holds=opened == 1 and not missing,
        because=_("it took more than one connection, or something did not travel on it"),
        figure=Figure(_("TCP connections"), opened, 1, at_least=False),
        measured=_("carried: {kinds}").format(kinds=", ".join(kinds)),
        again=_c10_again,
    )


async def _c10_again() -> Verdict:
    return c10(await _closed_by_client())
