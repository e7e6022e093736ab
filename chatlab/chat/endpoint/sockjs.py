"""SockJS: a replacement for WebSocket, for browsers whose WebSocket is blocked. Any SockJS client, on plain HTTP.

    GET  /ws/info                                the transports this server offers
    GET  /ws/SERVER/SESSION/websocket            a WebSocket that carries SockJS frames
    POST /ws/SERVER/SESSION/xhr_streaming        a streamed response: the server's messages
    GET  /ws/SERVER/SESSION/eventsource          the same as server-sent events
    POST /ws/SERVER/SESSION/xhr                  a response as soon as there is a message (long polling)
    POST /ws/SERVER/SESSION/xhr_send             the client's messages, for the three above

The server sends frames: `o` opened, `h` heart-beat, `a["...","..."]` messages, `c[3000,"Go away!"]` closed. Source:
the protocol's description, https://sockjs.github.io/sockjs-protocol/sockjs-protocol-0.3.3.html . This file does not
interpret the messages: `open_peer` makes the object that talks to the client.

Left out: jsonp, htmlfile and the iframe pages. Only browsers older than CORS need them, and their requests carry no
Origin, so nothing would keep a foreign page from acting as the user. Also left out: cookies. Behind a balancer, SERVER
and SESSION in the path select the instance.
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
BODY_SECONDS = 10.0  # for a request to send its body
DISCONNECT_DELAY = 5.0  # seconds without a request, after which the session is closed
STREAM_LIMIT = 128 * 1024  # octets of one streamed response; then the client asks again, and frees what it has read
PRELUDE = b"h" * 2048 + b"\n"  # some browsers show nothing of a response before this much has arrived

OPEN = b"o"
HEART_BEAT_FRAME = b"h"
INTERRUPTED = (1002, "Connection interrupted")
STILL_OPEN = (2010, "Another connection still open")

NO_CACHE = {"Cache-Control": "no-store, no-cache, no-transform, must-revalidate, max-age=0"}
YEAR = 31536000
# Without this, nginx and similar proxies would buffer a response until it ends.
UNBUFFERED = {"X-Accel-Buffering": "no"}
CACHE = {"Cache-Control": f"public, max-age={YEAR}", "Access-Control-Max-Age": f"{YEAR}"}
JAVASCRIPT = {"Content-Type": "application/javascript; charset=UTF-8"}
TEXT = {"Content-Type": "text/plain; charset=UTF-8"}
JSON = {"Content-Type": "application/json; charset=UTF-8"}
EVENTS = {"Content-Type": "text/event-stream"}


logger = logging.getLogger("chatlab.chat")
refusals = ThrottledLog(logger)

Place = tuple[str, str]  # the addresses a session is counted under, see server.py
OpenPeer = Callable[[ClientTransport, web.Request, str], Peer]  # the last is the connection's id, for the log


# --- Framing ---


class SockJSFraming:
    """Messages as JSON strings, each followed by a comma: they can be joined, and `array` makes a frame of them."""

    def frame(self, frames: Sequence[bytes]) -> bytes:
        """Encode messages. JSON cannot hold octets that are not UTF-8: they become U+FFFD."""
        return b"".join([encode(data) + b"," for data in frames])


class SockJSWebSocketFraming:
    """The same as whole WebSocket messages, so that subscribers share them to the last octet."""

    def frame(self, frames: Sequence[bytes]) -> bytes:
        """Return one `a[...]` for all messages."""
        return websocket_frame(array(b"".join([encode(data) + b"," for data in frames])))


FRAMING = SockJSFraming()
WEBSOCKET_FRAMING = SockJSWebSocketFraming()


def encode(data: bytes) -> bytes:
    """Return a message as a JSON string, in ASCII: some browsers garble other characters in a streamed response."""
    return json.dumps(data.decode(errors="replace")).encode()


def array(messages: bytes) -> bytes:
    """Return `"x","y",` as the frame `a["x","y"]`."""
    return b"a[" + messages[:-1] + b"]"


def closed(code: int, reason: str) -> bytes:
    """Return the frame that ends a session."""
    return b"c" + json.dumps([code, reason], separators=(",", ":")).encode()


def decode(body: bytes) -> list[bytes]:
    """Return a client's messages: a JSON array of strings, or one string. Raise ValueError for anything else."""
    # Decoded here: `json.loads` would guess UTF-16 or UTF-32 from some octets.
    messages = parse(lambda octets: json.loads(octets.decode()), body)
    messages = [messages] if isinstance(messages, str) else messages
    if not isinstance(messages, list) or not all(isinstance(message, str) for message in messages):
        raise ValueError("not an array of strings")
    return [message.encode(errors="replace") for message in messages]


# --- A session of many requests ---


class Session:
    """One client over plain HTTP, as a sink: output waits for the next response that can carry it.

    `name` is the client's name for the session, `id` the server's.
    """

    descriptor: int | None = None  # there is no single connection to write to

    def __init__(self, name: str, id: str, remove: Callable[[Session], None]) -> None:
        self.name = name
        self.log_fields = {"connection": id}
        self.peer: Peer | None = None
        self.receiver: Receiver | None = None
        self.opened = False
        self.close_frame: bytes | None = None  # the frame `c`, once the session is closing
        self.place: Place = ("", "")
        self._remove = remove
        self._waiting: list[bytes] = []
        self._size = 0
        self._changed = asyncio.Event()
        self._receiving = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._expire_in(DISCONNECT_DELAY)  # its first response may never be served

    def __str__(self) -> str:
        return f"connection {self.log_fields['connection']}"

    # --- Called by the fan-out ---

    def write(self, data: bytes) -> None:
        """Keep messages for the next response."""
        if self.close_frame is None:
            self._waiting.append(data)
            self._size += len(data)
            self._changed.set()

    def buffered(self) -> int:
        """Return the octets waiting here and in the current response."""
        return self._size + (self.receiver.buffered() if self.receiver is not None else 0)

    def close(self, code: int, reason: str) -> None:
        """Close after the output that waits; until the session is removed, each new request gets the close frame."""
        if self.close_frame is None:
            self.close_frame = closed(code, reason)
            self._changed.set()
            if self.receiver is None:
                self._expire_in(DISCONNECT_DELAY)
            if self.peer is not None:
                self.peer.end()

    def abort(self) -> None:
        """Drop the session with all its waiting output."""
        self._discard()
        self.close(*INTERRUPTED)
        if self.receiver is not None:
            self.receiver.abort()

    # --- Called by the requests ---

    async def receive(self, messages: Sequence[bytes]) -> None:
        """Pass on the client's messages, those of one request after those of the last."""
        async with self._receiving:
            for message in messages:
                if self.peer is not None and self.close_frame is None and not self.peer.receive(message, text=True):
                    await self.peer.finish()

    async def serve(self, receiver: Receiver) -> None:
        """Write frames to a response until it is full, or the session ends. Cancelled if the client disconnects."""
        self._cancel_expiry()
        self.receiver = receiver
        try:
            while not receiver.full and (frame := await self._next()) is not None:
                await receiver.send(frame)
        except (asyncio.CancelledError, ConnectionError):
            self.abort()
            raise
        finally:
            self.receiver = None
            self._expire_in(DISCONNECT_DELAY)

    async def _next(self) -> bytes | None:
        """Return the next frame: all waiting messages, a heart-beat, or the close frame; None after that."""
        if not self.opened:
            self.opened = True
            return OPEN
        while not self._waiting and self.close_frame is None:
            self._changed.clear()
            try:
                async with asyncio.timeout(HEART_BEAT):
                    await self._changed.wait()
            except TimeoutError:
                return HEART_BEAT_FRAME
        if self._waiting:
            messages, self._waiting, self._size = b"".join(self._waiting), [], 0
            return array(messages)
        if self.receiver is not None:
            self.receiver.full = True  # nothing follows the close frame
        return self.close_frame

    def _cancel_expiry(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _expire_in(self, seconds: float) -> None:
        self._cancel_expiry()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._expire)

    def _expire(self) -> None:
        self.close(*INTERRUPTED)
        self._cancel_expiry()
        self._discard()  # or it would count as a slow reader
        self._remove(self)

    def _discard(self) -> None:
        self._waiting.clear()
        self._size = 0


class Receiver:
    """One response that carries frames to the client. `full`: it has carried all it may."""

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
        """Return the octets written that the kernel has not taken yet."""
        transport = self._transport
        return 0 if transport is None or transport.is_closing() else transport.get_write_buffer_size()

    def abort(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()


def line(frame: bytes) -> bytes:
    """Return a frame as a line of an xhr response."""
    return frame + b"\n"


def event(frame: bytes) -> bytes:
    """Return a frame as a server-sent event."""
    return b"data: " + frame + b"\r\n\r\n"


# --- The endpoint ---


class SockJS:
    """All SockJS routes below one path."""

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
        name = "[^/.]{1,128}"  # clients choose eight random characters
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
        """Greet a person who opens the URL to check that the server is up."""
        return web.Response(body=b"Welcome to SockJS!\n", headers=TEXT)

    async def _info(self, request: web.Request) -> web.Response:
        offer = {"websocket": True, "cookie_needed": False, "origins": ["*:*"], "entropy": random.getrandbits(32)}
        return web.Response(body=json.dumps(offer).encode(), headers={**JSON, **NO_CACHE, **self._cors(request)})

    async def _preflight(self, request: web.Request) -> web.Response:
        """Answer a browser's preflight request before it posts to another origin."""
        methods = "OPTIONS, GET" if request.path.endswith("/info") else "OPTIONS, POST"
        allowed = {"Access-Control-Allow-Methods": methods, "Expires": formatdate(time.time() + YEAR, usegmt=True)}
        if wanted := request.headers.get("Access-Control-Request-Headers"):
            allowed["Access-Control-Allow-Headers"] = wanted
        return web.Response(status=204, headers={**CACHE, **allowed, **self._cors(request)})

    def _cors(self, request: web.Request) -> dict[str, str]:
        """Return headers that let a page of an allowed origin read the response; 403 for a page of any other."""
        try:
            origin = handshake.check_origin(headers_of(request), self._origins)
        except HandshakeError as refused:
            kind = web.HTTPForbidden if refused.status == 403 else web.HTTPBadRequest
            raise kind(text=f"{refused}\n") from refused
        if origin is None:
            return {}
        return {"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true", "Vary": "Origin"}

    # --- Messages to the client ---

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
            response.force_close()  # without chunks, only the close marks the end of the response
        with suppress(ConnectionError):  # the client has disconnected, or was dropped: not an error
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
        """Return the session of that name; a new one if there is none."""
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

    # --- Messages from the client ---

    async def _xhr_send(self, request: web.Request) -> web.Response:
        headers = {**TEXT, **NO_CACHE, **self._cors(request)}
        session = self.sessions.get(request.match_info["session"])
        if session is None or session.close_frame is not None:
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

    # --- Both, over a WebSocket ---

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
    """Return SockJS's 400 response to a GET that does not ask for a WebSocket; empty if it does."""
    if not handshake.asks_for_websocket(headers):
        return b'Can "Upgrade" only to "WebSocket".'
    if not handshake.upgrades_the_connection(headers):
        return b'"Connection" must be "Upgrade".'
    return b""


class SockJSWebSocketEnd(WebSocketEnd):
    """A WebSocket that carries SockJS frames: `o` first, `h` at intervals, `c` before it closes."""

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
        self._heart_beat = asyncio.get_running_loop().call_later(HEART_BEAT, self._send_heart_beat)

    def close(self, code: int, reason: str) -> None:
        """Send the frame `c`, then close."""
        self.write(websocket_frame(closed(code, reason)))
        super().close(code, reason)

    def close_for_broken_json(self) -> None:
        """Close the connection of a client that does not speak SockJS, without the frame `c`."""
        super().close(1007, "broken JSON")

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the heart-beat: the TCP connection has closed."""
        self._heart_beat.cancel()
        super().connection_lost(exc)

    def _send_heart_beat(self) -> None:
        self.write(websocket_frame(HEART_BEAT_FRAME))
        self._heart_beat = asyncio.get_running_loop().call_later(HEART_BEAT, self._send_heart_beat)


class Unpacker:
    """Pass `peer` the messages that a client packs into arrays, one by one."""

    def __init__(self, peer: Peer, refuse: Callable[[], None]) -> None:
        self._peer = peer
        self._refuse = refuse
        self._rest: Iterator[bytes] = iter(())

    def receive(self, data: bytes, text: bool) -> bool:
        """Take an array; an empty message contains none."""
        try:
            self._rest = iter(decode(data) if data else [])
        except ValueError:
            self._refuse()
        return self._pass_on()

    async def finish(self) -> None:
        """Let the peer finish one message, and pass on the ones behind it."""
        await self._peer.finish()
        while not self._pass_on():
            await self._peer.finish()

    def end(self) -> None:
        """End the peer: the client has disconnected."""
        self._peer.end()

    def _pass_on(self) -> bool:
        return all(self._peer.receive(message, text=True) for message in self._rest)


async def _read(request: web.Request, limit: int) -> bytes:
    """Return the body of a request. Raise ValueError if it is larger than the limit."""
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > limit:
            raise ValueError(f"body of more than {limit} octets")
    return bytes(body)
