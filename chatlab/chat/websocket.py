"""The server's end of a client's WebSocket: `Connection` knows the protocol, this moves the bytes and keeps the time.

    socket ─► data_received ─┬─ a whole message, as nearly all come ──────────► receive
                             └─ anything else ─► Connection ─► events ─► data ─► receive
    socket ◄─ descriptor or write() ◄─ fan-out;  Pong and Close ◄─ Connection

aiohttp reads the request for the upgrade and keeps the books: how many connections there are, when to stop waiting for
them. What follows the upgrade never comes to it. Its own WebSocket takes frames that no client may send (not masked),
and a future and two turns of a task for each message.

Writing past a WebSocket, as the fan-out does, is safe under three conditions, all held here: no compression (a
compressed message depends on those before it), whole frames only, and nothing once either side has begun to close.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, cast

from aiohttp import web

from chatlab.direct import Direct
from chatlab.errors import HandshakeError
from chatlab.websocket import handshake
from chatlab.websocket.connection import Connection, Event, Message, State
from chatlab.websocket.frames import Opcode, Side, plain_message

PING = 30.0  # seconds of silence, then a ping: a client without heart-beats may be gone without a word
CLOSE_TIMEOUT = 10.0  # seconds the client has to answer our Close, and then to close the TCP connection
READ_AHEAD = 64 * 1024  # octets read while a message is waited for: enough to see that the client has gone

# RFC 6455, section 5.5: "All control frames MUST have a payload length of 125 bytes or less"; two are the code's.
MAX_REASON = 123
PING_FRAME = bytes((0x80 | Opcode.PING, 0))

logger = logging.getLogger("chatlab.chat")

# Takes a message, text or binary, as octets. What it returns is to be awaited before the next one.
Receive = Callable[[bytes], Awaitable[None] | None]


class WebSocketEnd(Direct):
    """An open WebSocket: a sink for the fan-out; what comes is handed to whom `begin` names."""

    def __init__(self, transport: asyncio.Transport, name: str, max_message: int) -> None:
        super().__init__(transport)
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.buffered = transport.get_write_buffer_size  # bytes written that the kernel has not taken yet
        self._name = name
        self._max_message = max_message
        self._websocket = Connection.opened(Side.SERVER, max_message=max_message)
        self._receive: Receive
        self._ended: Callable[[], None]
        self._waiting: asyncio.Future[None] | None = None  # for what a message asked for; the next is not looked at
        self._deaf = False  # our Pong is still buffered: who does not read is not read
        self._deadline: asyncio.TimerHandle | None = None  # of its end
        self._hung_up = False
        self._pings: Pings | None = None

    def __str__(self) -> str:
        return f"connection {self._name}"

    def begin(self, receive: Receive, ended: Callable[[], None]) -> None:
        """Have messages handed to `receive`, until `ended` is called, once: the TCP connection is over."""
        self._receive, self._ended = receive, ended
        self._pings = Pings(self, PING)

    # --- What the fan-out calls ---

    def write(self, data: bytes) -> None:
        """Send whole frames, or the rest of one, unless a Close frame has been sent or received."""
        if self._websocket.state is State.OPEN and not self.transport.is_closing():
            self.transport.write(data)
            self.try_directly()

    def close(self, code: int, reason: str) -> None:
        """Send a Close frame behind what is buffered; the client's answer, or a timeout, ends the connection."""
        if self._websocket.state is State.OPEN:
            self._websocket.close(code, reason.encode()[:MAX_REASON].decode(errors="ignore"))
            self._answer()
            self._abort_later()
            self._read_or_not()  # whatever is being waited for: from now on, only the client's Close matters

    # --- What the event loop calls ---

    def data_received(self, data: bytes) -> None:
        """Something has come."""
        self.heard = True
        if self._waiting is None and self._websocket.between_messages:
            start, end = 0, len(data)
            while (found := plain_message(data, start, self._max_message)) is not None:
                message, start = found
                rest = self._receive(message)
                if rest is not None:
                    self._wait_for(rest)
                    break
                if start == end:
                    return  # nearly always
            data = data[start:]
        events = self._websocket.receive_data(data)  # it has them now, though nobody has looked at them
        if self._waiting is None or self._websocket.state is not State.OPEN:
            self._take(events)
        else:
            self._read_or_not()

    def resume_writing(self) -> None:
        """What was buffered is written."""
        super().resume_writing()
        self._deaf = False
        self._read_or_not()

    def connection_lost(self, exc: Exception | None) -> None:
        """The TCP connection is over."""
        super().connection_lost(exc)
        for timer in (self._deadline, self._pings):
            if timer is not None:
                timer.cancel()
        if not self.gone.done():
            self.gone.set_result(None)
        if self._waiting is None:
            self._ended()
        else:  # when it has been left, or it would go on with what has ended; not before it has begun, either
            self._waiting.add_done_callback(lambda _: self._ended())
            asyncio.get_running_loop().call_soon(self._waiting.cancel)

    # --- Reading ---

    def _take(self, events: Iterator[Event]) -> None:
        """Act on what has come, as far as a message whose doing has to be waited for."""
        for event in events:
            self._answer()
            if isinstance(event, Message) and self._websocket.state is State.OPEN:
                data = event.data.encode() if isinstance(event.data, str) else event.data
                rest = self._receive(data)
                if rest is not None:
                    self._wait_for(rest)
                    return
        self._answer()

    def _wait_for(self, rest: Awaitable[None]) -> None:
        self._waiting = asyncio.ensure_future(rest)
        self._waiting.add_done_callback(self._waited)

    def _waited(self, rest: asyncio.Future[None]) -> None:
        self._waiting = None
        if self.lost:
            return
        if rest.cancelled() or rest.exception() is not None:
            logger.error("%s dropped", self, exc_info=None if rest.cancelled() else rest.exception())
            self.abort()
            return
        self._take(self._websocket.receive_data(b""))
        self._read_or_not()

    def _read_or_not(self) -> None:
        if self.lost or self.transport.is_closing():
            return
        waiting = self._waiting is not None and self._websocket.state is State.OPEN
        if self._deaf or (waiting and self._websocket.unread > READ_AHEAD):
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    # --- Answering ---

    def _answer(self) -> None:
        """Send what the protocol has to say: a Pong, a Close. Hang up if that is for us to do."""
        data, open = self._websocket.data_to_send(), self._websocket.state is State.OPEN
        if not open:
            self.never_directly()
        if data and not self.transport.is_closing():
            self.transport.write(data)
            self.try_directly()
            if open and not self.transport.is_closing() and self.buffered():
                self._deaf = True
                self._read_or_not()
        if self._websocket.must_close_tcp and not self._hung_up:
            self._hung_up = True
            self._hang_up()

    def _hang_up(self) -> None:
        """Close behind what is buffered; what still comes is read away, or a reset would overtake our Close."""
        self._abort_later()
        if self.transport.is_closing():
            return
        if not self.transport.can_write_eof():  # TLS
            self.transport.close()
            return
        try:
            self.transport.write_eof()
        except OSError:  # the client has reset the connection
            self.abort()

    def _abort_later(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if not self.lost:
            self._deadline = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self.abort)


class Pings:
    """Asks a silent client whether it is there, and drops one that does not answer.

    It is pinged when nothing has come from it for `seconds`, or half that, and dropped if nothing comes in half that.
    """

    def __init__(self, end: WebSocketEnd, seconds: float) -> None:
        self._end = end
        self._interval = seconds / 2
        self._pinged = False
        self._timer = self._later()

    def cancel(self) -> None:
        """The connection is over."""
        self._timer.cancel()

    def _later(self) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self._interval, self._look)

    def _look(self) -> None:
        if self._pinged and not self._end.heard:
            logger.info("no answer to a ping", extra={"connection": str(self._end)})
            self._end.abort()
            return
        self._pinged = not self._end.heard
        if self._pinged:
            self._end.write(PING_FRAME)
        self._end.heard = False
        self._timer = self._later()


class Tail:
    """What came in one piece with the request: aiohttp hands it to whoever is to parse what follows an upgrade."""

    def __init__(self) -> None:
        self.data = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Keep it."""
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        """The connection is over: the end knows."""


async def upgrade(
    request: web.Request,
    converse: Callable[[asyncio.Transport], WebSocketEnd],
    *,
    origins: Sequence[str] = (),
    subprotocols: Sequence[str] = (),
) -> web.StreamResponse:
    """Answer a request for a WebSocket, have `converse` begin one, and return when it is over.

    A request that RFC 6455, section 4.2.1, forbids is answered with the status that says so.
    """
    asked = handshake.Request(
        request.path_qs, tuple(request.headers.items()), request.method, (request.version[0], request.version[1])
    )
    try:
        # No compression: what is shared between subscribers could not be.
        agreed, _ = handshake.accept(asked, origins=origins, subprotocols=subprotocols, compression=False)
    except HandshakeError as error:
        return web.Response(status=error.status, text=f"{error}\n", headers=dict(error.headers))
    response = web.StreamResponse(status=agreed.status, headers=dict(agreed.headers))
    response.force_close()
    try:
        await response.prepare(request)
    except ConnectionError:
        return response  # the client has hung up
    if request.transport is not None:
        end, tail = converse(request.transport), Tail()
        request.protocol.set_parser(cast(Any, tail))
        if tail.data:
            end.data_received(tail.data)
        await end.gone
    return response
