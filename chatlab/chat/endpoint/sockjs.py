"""SockJS: WebSocket's stand-in for browsers whose WebSocket is blocked. Any SockJS client, on plain HTTP.

    GET  /ws/info                                what this server offers
    GET  /ws/SERVER/SESSION/websocket            a WebSocket that speaks SockJS
    POST /ws/SERVER/SESSION/xhr_streaming        an answer that goes on: the server's messages
    GET  /ws/SERVER/SESSION/eventsource          the same as server-sent events
    POST /ws/SERVER/SESSION/xhr                  an answer as soon as there is a message, then ask again
    POST /ws/SERVER/SESSION/xhr_send             the client's messages, for the three above

The server speaks in frames: `o` opened, `h` heart-beat, `a["...","..."]` messages, `c[3000,"Go away!"]` closed. Source:
the protocol's description, https://sockjs.github.io/sockjs-protocol/sockjs-protocol-0.3.3.html . What the messages say
is not this file's affair: `open_peer` makes whoever is to talk to the client.

Left out: jsonp, htmlfile and the iframe pages, which only browsers older than CORS need, and whose requests carry no
Origin: nothing would keep a foreign page from speaking for the reader. And cookies: behind a balancer the SERVER and
SESSION in the path pick the instance.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from email.utils import formatdate
from functools import partial

from aiohttp import HttpVersion11, hdrs, web

from chatlab.chat.delivery.transport import ClientTransport, websocket_frame
from chatlab.chat.session.logs import ConnectionLog
from chatlab.errors import HandshakeError
from chatlab.logs.throttled import ThrottledLog
from chatlab.net.endpoint import NO_KEEP_ALIVE, EndSettings, Log, Peer, WebSocketEnd
from chatlab.net.http.upgrade import headers_of, upgrade
from chatlab.untrusted_json import parse
from chatlab.websocket import handshake
from chatlab.websocket.connection import Connection

HEART_BEAT = 25.0  # seconds
BODY_SECONDS = 10.0  # for a request to bring its body
DISCONNECT_DELAY = 5.0  # seconds without a request, after which the client is gone
STREAM_LIMIT = 128 * 1024  # octets of one streaming answer; then the client asks again, and forgets what it has read
PRELUDE = b"h" * 2048 + b"\n"  # some browsers show nothing of an answer before that much has come

OPEN = b"o"
HEART = b"h"
INTERRUPTED = (1002, "Connection interrupted")
STILL_OPEN = (2010, "Another connection still open")

NO_CACHE = {"Cache-Control": "no-store, no-cache, no-transform, must-revalidate, max-age=0"}
YEAR = 31536000
# nginx, and what takes after it, would hold an answer back until it has ended.
UNBUFFERED = {"X-Accel-Buffering": "no"}
CACHE = {"Cache-Control": f"public, max-age={YEAR}", "Access-Control-Max-Age": f"{YEAR}"}
JAVASCRIPT = {"Content-Type": "application/javascript; charset=UTF-8"}
TEXT = {"Content-Type": "text/plain; charset=UTF-8"}
JSON = {"Content-Type": "application/json; charset=UTF-8"}
EVENTS = {"Content-Type": "text/event-stream"}


logger = logging.getLogger("chatlab.chat")
refusals = ThrottledLog(logger)

Place = tuple[str, str]  # what a session's place is counted under, see server.py
OpenPeer = Callable[
    [ClientTransport, web.Request, str], Peer
]  # the last is the connection's id, by which the log knows it


# --- Framing ---


class SockJSFraming:
    """Messages as JSON strings, each with a comma behind it: they can be joined, and `array` makes a frame of them."""

    def frame(self, frames: Sequence[bytes]) -> bytes:
        """JSON cannot hold what is not UTF-8: such octets are shown as U+FFFD."""
        return b"".join([encode(data) + b"," for data in frames])


class SockJSWebSocketFraming:
    """The same as whole WebSocket messages, so that subscribers share them to the last octet."""

    def frame(self, frames: Sequence[bytes]) -> bytes:
        """One `a[...]` for them all."""
        return websocket_frame(array(b"".join([encode(data) + b"," for data in frames])))


FRAMING = SockJSFraming()
WEBSOCKET_FRAMING = SockJSWebSocketFraming()


def encode(data: bytes) -> bytes:
    """A message as a JSON string, in ASCII: some browsers garble other characters, unescaped, in a streamed answer."""
    return json.dumps(data.decode(errors="replace")).encode()


def array(messages: bytes) -> bytes:
    """`"x","y",` as the frame `a["x","y"]`."""
    return b"a[" + messages[:-1] + b"]"


def closed(code: int, reason: str) -> bytes:
    """The frame that ends a session."""
    return b"c" + json.dumps([code, reason], separators=(",", ":")).encode()


def decode(body: bytes) -> list[bytes]:
    """The messages of a client: a JSON array of strings, or one string. ValueError if it is neither."""
    # Decoded here, since `json.loads` takes octets for UTF-16 or UTF-32 if they look like it.
    messages = parse(lambda octets: json.loads(octets.decode()), body)
    messages = [messages] if isinstance(messages, str) else messages
    if not isinstance(messages, list) or not all(isinstance(message, str) for message in messages):
        raise ValueError("not an array of strings")
    return [message.encode(errors="replace") for message in messages]


# --- A session of many requests ---


class Session:
    """One client over plain HTTP, as a sink: what is written waits for the next answer that can carry it.

    `name` is its own name for the session, `id` the server's.
    """

    descriptor: int | None = None  # there is no one connection to write to

    def __init__(self, name: str, id: str, remove: Callable[[Session], None]) -> None:
        self.name = name
        self.log_fields = {"connection": id}
        self.peer: Peer | None = None
        self.receiver: Receiver | None = None
        self.opened = False
        self.goodbye: bytes | None = None  # the last frame, once the session is closed
        self.place: Place = ("", "")
        self._remove = remove
        self._waiting: list[bytes] = []
        self._size = 0
        self._changed = asyncio.Event()
        self._receiving = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._gone_in(DISCONNECT_DELAY)  # its first answer may not come to be served

    def __str__(self) -> str:
        return f"connection {self.log_fields['connection']}"

    # What the fan-out calls.

    def write(self, data: bytes) -> None:
        """Keep messages for the next answer."""
        if self.goodbye is None:
            self._waiting.append(data)
            self._size += len(data)
            self._changed.set()

    def buffered(self) -> int:
        """What waits here, and what waits in the answer under way."""
        return self._size + (self.receiver.buffered() if self.receiver is not None else 0)

    def close(self, code: int, reason: str) -> None:
        """Say goodbye behind what waits; the client may ask for some time yet, and is told again."""
        if self.goodbye is None:
            self.goodbye = closed(code, reason)
            self._changed.set()
            if self.receiver is None:
                self._gone_in(DISCONNECT_DELAY)
            if self.peer is not None:
                self.peer.end()

    def abort(self) -> None:
        """Drop it, with all that waits."""
        self._forget()
        self.close(*INTERRUPTED)
        if self.receiver is not None:
            self.receiver.abort()

    # What the requests call.

    async def receive(self, messages: Sequence[bytes]) -> None:
        """Hand the client's messages on, those of one request after those of the last."""
        async with self._receiving:
            for message in messages:
                if self.peer is not None and self.goodbye is None and not self.peer.receive(message, text=True):
                    await self.peer.finish()

    async def serve(self, receiver: Receiver) -> None:
        """Let an answer carry frames until it is full, or the session ends. Cancelled: the client has hung up."""
        self._stay()
        self.receiver = receiver
        try:
            while not receiver.full and (frame := await self._next()) is not None:
                await receiver.send(frame)
        except (asyncio.CancelledError, ConnectionError):
            self.abort()
            raise
        finally:
            self.receiver = None
            self._gone_in(DISCONNECT_DELAY)

    async def _next(self) -> bytes | None:
        """The next frame: all messages that wait, or a heart-beat, or goodbye; None after that."""
        if not self.opened:
            self.opened = True
            return OPEN
        while not self._waiting and self.goodbye is None:
            self._changed.clear()
            try:
                async with asyncio.timeout(HEART_BEAT):
                    await self._changed.wait()
            except TimeoutError:
                return HEART
        if self._waiting:
            messages, self._waiting, self._size = b"".join(self._waiting), [], 0
            return array(messages)
        if self.receiver is not None:
            self.receiver.full = True  # nothing comes after goodbye
        return self.goodbye

    def _stay(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _gone_in(self, seconds: float) -> None:
        self._stay()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._gone)

    def _gone(self) -> None:
        self.close(*INTERRUPTED)
        self._stay()
        self._forget()  # or it would pass for a slow reader
        self._remove(self)

    def _forget(self) -> None:
        self._waiting.clear()
        self._size = 0


class Receiver:
    """One answer that carries frames to the client. `full`: it has carried all it may."""

    def __init__(self, response: web.StreamResponse, request: web.Request, limit: int, wrap: Callable[[bytes], bytes]):
        self.full = False
        self._response = response
        self._transport = request.transport
        self._left = limit
        self._wrap = wrap

    async def send(self, frame: bytes) -> None:
        """Write one frame, and wait until the client has nearly caught up."""
        data = self._wrap(frame)
        self._left -= len(data)
        self.full = self.full or self._left <= 0
        await self._response.write(data)

    def buffered(self) -> int:
        """Octets written that the kernel has not taken yet."""
        transport = self._transport
        return 0 if transport is None or transport.is_closing() else transport.get_write_buffer_size()

    def abort(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()


def line(frame: bytes) -> bytes:
    """A frame in an xhr answer."""
    return frame + b"\n"


def event(frame: bytes) -> bytes:
    """A frame as a server-sent event."""
    return b"data: " + frame + b"\r\n\r\n"


# --- The endpoint ---


class SockJS:
    """All of SockJS below one path."""

    def __init__(
        self,
        open_peer: OpenPeer,
        new_id: Callable[[], str],
        *,
        origins: Sequence[str] = (),
        max_size: int = 128 * 1024,
        stream_limit: int = STREAM_LIMIT,
        accepting: Callable[[], bool] = lambda: True,
        take_place: Callable[[web.Request], Place] = lambda _: ("", ""),
        give_back: Callable[[Place], None] = lambda _: None,
        hold_place: Callable[[web.Request], AbstractContextManager[None]] = lambda _: nullcontext(),
        end_settings: EndSettings = NO_KEEP_ALIVE,
    ) -> None:
        self.sessions: dict[str, Session] = {}
        self._open_peer = open_peer
        self._new_id = new_id
        self._end_settings = end_settings
        self._origins = origins
        self._max_size = max_size
        self._stream_limit = stream_limit
        self._accepting = accepting
        self._take_place = take_place
        self._give_back = give_back
        self._hold_place = hold_place

    def add_routes(self, router: web.UrlDispatcher, prefix: str) -> None:
        """Add everything below `prefix`, and its greeting; `prefix` itself is for a WebSocket without SockJS."""
        name = "[^/.]{1,128}"  # clients draw eight characters
        session = f"{prefix}/{{server:{name}}}/{{session:{name}}}/"
        router.add_get(prefix + "/", self.greet)
        router.add_get(prefix + "/info", self._info)
        router.add_get(session + "websocket", self._websocket)
        router.add_route("*", session + "websocket", self._only_get)
        router.add_get(session + "eventsource", self._eventsource)
        for name, handler in (("xhr", self._xhr), ("xhr_streaming", self._xhr_streaming), ("xhr_send", self._xhr_send)):
            router.add_post(session + name, handler)
            router.add_route(hdrs.METH_OPTIONS, session + name, self._preflight)
        router.add_route(hdrs.METH_OPTIONS, prefix + "/info", self._preflight)

    async def greet(self, request: web.Request) -> web.Response:
        """For a person who looks whether somebody is there."""
        return web.Response(body=b"Welcome to SockJS!\n", headers=TEXT)

    async def _info(self, request: web.Request) -> web.Response:
        offer = {"websocket": True, "cookie_needed": False, "origins": ["*:*"], "entropy": random.getrandbits(32)}
        return web.Response(body=json.dumps(offer).encode(), headers={**JSON, **NO_CACHE, **self._cors(request)})

    async def _preflight(self, request: web.Request) -> web.Response:
        """A browser asks before it posts to another origin."""
        methods = "OPTIONS, GET" if request.path.endswith("/info") else "OPTIONS, POST"
        allowed = {"Access-Control-Allow-Methods": methods, "Expires": formatdate(time.time() + YEAR, usegmt=True)}
        if wanted := request.headers.get("Access-Control-Request-Headers"):
            allowed["Access-Control-Allow-Headers"] = wanted
        return web.Response(status=204, headers={**CACHE, **allowed, **self._cors(request)})

    def _cors(self, request: web.Request) -> dict[str, str]:
        """Headers that let a page of an allowed origin read the answer; 403 for a page of any other."""
        try:
            origin = handshake.check_origin(headers_of(request), self._origins)
        except HandshakeError as refused:
            kind = web.HTTPForbidden if refused.status == 403 else web.HTTPBadRequest
            raise kind(text=f"{refused}\n") from refused
        if origin is None:
            return {}
        return {"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true", "Vary": "Origin"}

    # Messages to the client.

    async def _xhr(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={**JAVASCRIPT, **NO_CACHE, **self._cors(request)})
        return await self._serve(request, response, b"", 1, line)

    async def _xhr_streaming(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={**JAVASCRIPT, **NO_CACHE, **UNBUFFERED, **self._cors(request)})
        return await self._serve(request, response, PRELUDE, self._stream_limit, line)

    async def _eventsource(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={**EVENTS, **NO_CACHE, **UNBUFFERED, **self._cors(request)})
        return await self._serve(request, response, b"\r\n", self._stream_limit, event)

    async def _serve(
        self,
        request: web.Request,
        response: web.StreamResponse,
        prelude: bytes,
        limit: int,
        wrap: Callable[[bytes], bytes],
    ) -> web.StreamResponse:
        session = self._session(request)
        if request.version < HttpVersion11:
            response.force_close()  # without chunks, nothing else tells where the answer ends
        with suppress(ConnectionError):  # the client has hung up, or was cut off: nobody's fault here
            await response.prepare(request)
            if prelude:
                await response.write(prelude)
            receiver = Receiver(response, request, limit, wrap)
            if session.receiver is not None:
                await receiver.send(closed(*STILL_OPEN))
            else:
                await session.serve(receiver)
            await response.write_eof()
        return response

    def _session(self, request: web.Request) -> Session:
        """The session of that name; a new one if there is none."""
        name = request.match_info["session"]
        session = self.sessions.get(name)
        if session is None:
            if not self._accepting():
                raise web.HTTPServiceUnavailable(text="not accepting sessions\n")
            place = self._take_place(request)
            id = self._new_id()
            session = self.sessions[name] = Session(name, id, self._remove)
            session.place = place
            session.peer = self._open_peer(ClientTransport(FRAMING, session), request, id)
        return session

    def _remove(self, session: Session) -> None:
        if self.sessions.get(session.name) is session:
            del self.sessions[session.name]
            self._give_back(session.place)

    # Messages of the client.

    async def _xhr_send(self, request: web.Request) -> web.Response:
        headers = {**TEXT, **NO_CACHE, **self._cors(request)}
        session = self.sessions.get(request.match_info["session"])
        if session is None or session.goodbye is not None:
            return web.Response(status=404, headers=headers)
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _read(request, self._max_size)
        except TimeoutError:
            return web.Response(status=408, headers=headers)
        except ValueError:
            session.close(1009, "message too big")
            return web.Response(status=413, headers=headers)
        if not body:
            return web.Response(status=500, headers=headers, body=b"Payload expected.")
        try:
            messages = decode(body)
        except ValueError:
            return web.Response(status=500, headers=headers, body=b"Broken JSON encoding.")
        await session.receive(messages)
        return web.Response(status=204, headers=headers)

    # Both, over a WebSocket.

    async def _only_get(self, request: web.Request) -> web.Response:
        return web.Response(status=405, headers={"Allow": "GET"})

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        headers = headers_of(request)
        if fault := _fault_of_upgrade(headers):
            self._cors(request)
            return web.Response(status=400, headers=TEXT, body=fault)
        if not self._accepting():
            raise web.HTTPServiceUnavailable(text="not accepting sessions\n")
        accept = partial(handshake.accept, origins=self._origins, compression=False)
        open_end = partial(self._open_end, request)
        with self._hold_place(request):
            return await upgrade(request, accept, open_end, refusals, max_message=self._max_size)

    def _open_end(self, request: web.Request, transport: asyncio.Transport, websocket: Connection) -> WebSocketEnd:
        id = self._new_id()

        def open_peer(end: WebSocketEnd) -> Peer:
            return self._open_peer(ClientTransport(WEBSOCKET_FRAMING, end), request, id)

        log = ConnectionLog(logger, {"connection": id})
        return SockJSWebSocketEnd(transport, websocket, open_peer, name=id, log=log, settings=self._end_settings)


def _fault_of_upgrade(headers: handshake.Headers) -> bytes:
    """What SockJS answers, with 400, to a GET that asks for no WebSocket; empty if it does ask for one."""
    if not handshake.asks_for_websocket(headers):
        return b'Can "Upgrade" only to "WebSocket".'
    if not handshake.upgrades_the_connection(headers):
        return b'"Connection" must be "Upgrade".'
    return b""


class SockJSWebSocketEnd(WebSocketEnd):
    """A WebSocket that speaks SockJS: `o` first, `h` now and then, `c` before it closes."""

    def __init__(
        self,
        transport: asyncio.Transport,
        websocket: Connection,
        open_peer: Callable[[WebSocketEnd], Peer],
        *,
        name: str,
        log: Log,
        settings: EndSettings,
    ) -> None:
        def open_unpacker(end: WebSocketEnd) -> Unpacker:
            end.write(websocket_frame(OPEN))
            return Unpacker(open_peer(end), self.close_for_broken_json)

        super().__init__(transport, websocket, open_unpacker, name=name, log=log, settings=settings)
        self._heart = asyncio.get_running_loop().call_later(HEART_BEAT, self._beat)

    def close(self, code: int, reason: str) -> None:
        """Send the frame `c`, then close."""
        self.write(websocket_frame(closed(code, reason)))
        super().close(code, reason)

    def close_for_broken_json(self) -> None:
        """Close a client that does not speak SockJS: it gets no frame `c`."""
        super().close(1007, "broken JSON")

    def connection_lost(self, exc: Exception | None) -> None:
        """The TCP connection is over."""
        self._heart.cancel()
        super().connection_lost(exc)

    def _beat(self) -> None:
        self.write(websocket_frame(HEART))
        self._heart = asyncio.get_running_loop().call_later(HEART_BEAT, self._beat)


class Unpacker:
    """Hands `peer` the messages that a client packs into arrays, one by one."""

    def __init__(self, peer: Peer, refuse: Callable[[], None]) -> None:
        self._peer = peer
        self._refuse = refuse
        self._rest: Iterator[bytes] = iter(())

    def receive(self, data: bytes, text: bool) -> bool:
        """Take an array; an empty message has nothing in it."""
        try:
            self._rest = iter(decode(data) if data else [])
        except ValueError:
            self._refuse()
        return self._hand_over()

    async def finish(self) -> None:
        """Let the peer finish one message, and hand over those behind it."""
        await self._peer.finish()
        while not self._hand_over():
            await self._peer.finish()

    def end(self) -> None:
        """The client is gone."""
        self._peer.end()

    def _hand_over(self) -> bool:
        return all(self._peer.receive(message, text=True) for message in self._rest)


async def _read(request: web.Request, limit: int) -> bytes:
    """The body of a request; ValueError if it is larger than that."""
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > limit:
            raise ValueError(f"body of more than {limit} octets")
    return bytes(body)
