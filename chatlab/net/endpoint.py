"""The server's end of a WebSocket: `Connection` implements the protocol; this file does the I/O and the timing.

    socket ─► data_received ─┬─ a whole message, as nearly all are ───────────► peer.receive
                             └─ anything else ─► Connection ─► events ─► data ─► peer.receive
    socket ◄─ descriptor or write() ◄─ fan-out;  Pong and Close ◄─ Connection

The hand-written echo server, the room and the chat run on it. It takes over a TCP connection after the opening
handshake, which `echo.py` or aiohttp (`http/upgrade.py`) has performed. The connection's previous protocol still
receives pause_writing, resume_writing and connection_lost, by which aiohttp keeps track of its connections.

Three conditions make it safe to write frames without `Connection`, as the fan-out does, and this file ensures all of
them: no compression (a compressed message depends on the ones before it), whole frames only, and no frames once either
side has started to close.

A transport's `write()` runs some Python code before the system call. When the same bytes go to hundreds of connections,
that code dominates. While a transport has nothing buffered, is not closing and does not encrypt, `os.write()` to its
descriptor does the same, and `descriptor` is not None:

    pause_writing      something is buffered      descriptor = None
    resume_writing     all of it is written       descriptor = 7
    connection_lost    about to be closed         descriptor = None, permanently

Left out: what is written, and to whom (fanout.py); direct writes over TLS, and on Windows, where sockets are not files.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Protocol, cast

from chatlab.net.memory_limit import HeldOctets
from chatlab.tasks import Tasks
from chatlab.websocket.connection import Connection, Event, Message, Pong, State
from chatlab.websocket.frames import FINAL_TEXT, MAX_CONTROL_PAYLOAD, Close, CloseCode, Frame, Opcode, plain_message

READ_AHEAD = 64 * 1024  # octets read while the peer is busy, so that a client's disconnect is noticed
MESSAGES_PER_TURN = 64  # messages handled for one client before other clients get a turn
MAX_REASON = MAX_CONTROL_PAYLOAD - 2  # octets of a close reason; the code takes the other two
PING_FRAME = Frame(Opcode.PING).serialize()

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]


class Peer(Protocol):
    """The server's side of one client's conversation: an echo, a member of a room, a STOMP session."""

    def receive(self, data: bytes, text: bool) -> bool:
        """Handle one message; `text` is False for a binary one. Return whether it has been handled completely.

        If not, `finish` is awaited before the next message is passed on.
        """

    async def finish(self) -> None:
        """Complete the work that `receive` could not do at once. Cancelled if the TCP connection closes first."""

    def end(self) -> None:
        """Clean up after the TCP connection has closed. Called once, and never before `finish` has returned."""


OpenPeer = Callable[["WebSocketEnd"], Peer]


@dataclass(frozen=True)
class KeepAlive:
    """Ping a client after `interval` seconds of silence; drop it after `timeout` more seconds of silence.

    `close`, if given, is sent before the client is dropped. A silent client may have disconnected without a Close.
    """

    interval: float
    timeout: float
    close: Close | None = None


@dataclass(frozen=True)
class EndSettings:
    """The settings shared by all connections of one server."""

    keep_alive: KeepAlive | None = None
    close_timeout: float = 10.0  # seconds a client has to answer our Close, and again to close the TCP connection
    held: HeldOctets | None = None  # the octets they all hold, if there is a limit on them


NO_KEEP_ALIVE = EndSettings()


class WebSocketEnd(asyncio.Protocol):
    """An open WebSocket, and a `Sink` for the fan-out. Its messages go to the peer that `open_peer` creates for it.

    `name` identifies it in the log. `descriptor` may be written to while it is not None, from the event loop's thread:
    whole messages only; if the kernel accepts only part of one, the rest must be passed to `write` immediately.
    """

    descriptor: int | None = None

    def __init__(
        self,
        transport: asyncio.Transport,
        websocket: Connection,
        open_peer: OpenPeer,
        *,
        name: str,
        log: Log,
        settings: EndSettings = NO_KEEP_ALIVE,
    ) -> None:
        self.transport = transport
        self.log = log
        self.active = True  # data has been received since this was last set to False
        self.is_closed = False  # the TCP connection is closed
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()  # done when it is
        self.buffered = transport.get_write_buffer_size  # bytes written but not yet accepted by the kernel
        self._name = name
        self._websocket = websocket
        self._settings = settings
        self._former = cast(asyncio.Protocol, transport.get_protocol())
        self._usable = None if self.compresses else _descriptor_of(transport)
        self._tasks: Tasks | None = None
        self._finishing: asyncio.Task[None] | None = None  # the peer finishes a message, or other clients get a turn
        self._unprocessed = bytearray()  # data received meanwhile
        self._backlogged = False  # our own answer is still buffered: stop reading from a client that isn't reading
        self._drained: asyncio.Future[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._tcp_closing = False
        transport.set_write_buffer_limits(high=0)  # so that pause_writing() is called for the first buffered byte
        transport.set_protocol(self)
        self.update_descriptor()
        self._pings = Pings(self, settings.keep_alive) if settings.keep_alive is not None else None
        self._peer = open_peer(self)

    def __str__(self) -> str:
        return f"connection {self._name}"

    @property
    def log_fields(self) -> dict[str, str]:
        """The fields that identify this connection in log lines."""
        return {"connection": self._name}

    @property
    def compresses(self) -> bool:
        """Whether this client's messages are compressed. If so, they must go through `send`, not `write`."""
        return self._websocket.agreement.compression is not None

    @property
    def latency(self) -> float:
        """The seconds between the last keep-alive ping and its answer; 0 before the first."""
        return self._pings.latency if self._pings is not None else 0.0

    def how_it_ended(self) -> Close:
        """Return the Close received, else the one sent, else 1006 for a connection that broke."""
        received = self._websocket.close_received
        if received is not None:
            return Close(CloseCode.NO_STATUS_RECEIVED) if received.code is None else received
        # RFC 6455, 7.1.5: without a Close frame "the close code is considered to be 1006"
        return self._websocket.close_sent or Close(CloseCode.ABNORMAL_CLOSURE, "connection lost")

    # --- Sending ---

    def write(self, data: bytes) -> None:
        """Send whole frames, or the rest of one, unless a Close frame has been sent or received."""
        if self._websocket.state is State.OPEN and not self.transport.is_closing():
            self.transport.write(data)
            self.update_descriptor()

    def send(self, data: bytes, text: bool) -> None:
        """Send one message, compressed if negotiated. Do nothing once either side is closing."""
        if self._websocket.state is State.OPEN:
            self._websocket.send(data.decode() if text else data)
            self._answer()

    def close(self, code: int, reason: str) -> None:
        """Send a Close frame after any buffered data. The client's answer or a timeout closes the connection."""
        if self._websocket.state is State.OPEN:
            self._websocket.close(code, reason.encode()[:MAX_REASON].decode(errors="ignore"))
            self._answer()
            self._abort_later()
            if self._finishing is not None:  # the peer may still be busy, but only the client's Close matters now
                self._read_unprocessed()
                self._read_or_pause()

    def abort(self) -> None:
        """Drop the connection and everything buffered. Do nothing if it is closed."""
        self.disable_direct_writes()
        if not self.is_closed:  # asyncio's transport would raise
            self.transport.abort()

    def drop(self, reason: str) -> None:
        """Send a Close with `reason` if the client is reading, and drop the connection with everything it holds."""
        if self._websocket.state is State.OPEN:
            self._websocket.fail(CloseCode.TRY_AGAIN_LATER, reason)
            if not self.buffered() and not self.transport.is_closing():
                self.transport.write(self._websocket.data_to_send())
        self._unprocessed.clear()
        self.disable_direct_writes()
        if self.is_closed or self.buffered():
            self.abort()
        else:
            self.transport.close()

    async def drained(self) -> None:
        """Wait until the kernel has accepted everything written, or the connection is closed."""
        while not self.is_closed and self.buffered():
            if self._drained is None:
                self._drained = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._drained)

    def update_descriptor(self) -> None:
        """Set `descriptor` if it may be written to, else None. Must be called after each write to the transport."""
        blocked = self._usable is None or self.transport.get_write_buffer_size() or self.transport.is_closing()
        self.descriptor = None if blocked else self._usable

    def disable_direct_writes(self) -> None:
        """Set `descriptor` to None permanently: the connection is about to close."""
        self.descriptor = self._usable = None

    # --- Called by the event loop ---

    def data_received(self, data: bytes) -> None:
        """Process data, or keep it if the peer has to finish a message first."""
        self.active = True
        if self._finishing is not None and self._websocket.state is State.OPEN:
            self._unprocessed += data
            self._read_or_pause()
        else:
            self._read(data)

    def eof_received(self) -> bool | None:
        """Let the transport send what is buffered, then close: the client will send no more."""
        return None

    def pause_writing(self) -> None:
        """Disable direct writes while the transport has data buffered."""
        self.descriptor = None
        self._former.pause_writing()

    def resume_writing(self) -> None:
        """Allow direct writes again, and resume reading: everything buffered has been written."""
        self.update_descriptor()
        self._notify_drained()
        self._former.resume_writing()
        self._backlogged = False
        self._update_held()
        self._read_or_pause()

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up. The socket closes when this returns, and its descriptor may then belong to another connection."""
        self.disable_direct_writes()
        self.is_closed = True
        if self._settings.held is not None:
            self._settings.held.update(self, 0)
        self._notify_drained()
        self._former.connection_lost(exc)
        for timer in (self._deadline, self._pings):
            if timer is not None:
                timer.cancel()
        if not self.closed.done():
            self.closed.set_result(None)
        if self._finishing is None:
            self._peer.end()
        else:  # cancelled in the next turn of the loop: a task that has not started would never notice
            self._finishing.add_done_callback(lambda _: self._peer.end())
            asyncio.get_running_loop().call_soon(self._finishing.cancel)

    # --- Reading ---

    @property
    def unread(self) -> int:
        """The octets received but not yet processed, because the peer has to finish a message."""
        return len(self._unprocessed) + self._websocket.unread

    def _read(self, data: bytes) -> None:
        """Pass messages to the peer. Plain messages, which nearly all are, take a fast path without `Connection`."""
        websocket = self._websocket
        if websocket.between_messages:
            start, end, turn = 0, len(data), MESSAGES_PER_TURN
            while (found := plain_message(data, start, websocket.max_message)) is not None:
                text = data[start] == FINAL_TEXT
                message, start = found
                if not self._peer.receive(message, text):
                    self._let_the_peer_finish(data[start:])
                    return
                if start == end:
                    return  # the usual case
                turn -= 1
                if not turn:
                    self._yield_to_others(data[start:])
                    return
                if websocket.state is not State.OPEN:
                    break
            data = data[start:]
        self._handle(websocket.receive_data(data))

    def _read_unprocessed(self) -> None:
        data, self._unprocessed = bytes(self._unprocessed), bytearray()
        if self._websocket.unread:  # this is older
            self._handle(self._websocket.receive_data(data))
        else:
            self._read(data)

    def _handle(self, events: Iterator[Event]) -> None:
        """Handle events until the peer has to finish a message, or for one turn."""
        turn = MESSAGES_PER_TURN
        for event in events:
            self._answer()
            turn -= 1
            if isinstance(event, Message) and self._websocket.state is State.OPEN:
                text = isinstance(event.data, str)
                if not self._peer.receive(event.data.encode() if isinstance(event.data, str) else event.data, text):
                    self._let_the_peer_finish()
                    return
            elif isinstance(event, Pong) and self._pings is not None:
                self._pings.answered()
            if not turn and self._websocket.state is State.OPEN:
                self._answer()
                self._yield_to_others()
                return
        self._answer()
        self._update_held()

    def _update_held(self) -> None:
        """Report the octets held: incomplete input, and output that the kernel has not accepted."""
        if self._settings.held is not None and not self.is_closed:
            unsent = self.transport.get_write_buffer_size()
            self._settings.held.update(self, self._websocket.unfinished + len(self._unprocessed) + unsent)

    def _let_the_peer_finish(self, rest: bytes = b"") -> None:
        self._continue_after(self._finish(), rest)

    def _yield_to_others(self, rest: bytes = b"") -> None:
        self._continue_after(asyncio.sleep(0), rest)

    def _continue_after(self, work: Coroutine[None, None, None], rest: bytes) -> None:
        self._unprocessed += rest
        self._update_held()
        if self._tasks is None:
            self._tasks = Tasks(logging.getLogger(__name__))
        self._finishing = self._tasks.start(work, name=f"{self}: finish a message")
        self._finishing.add_done_callback(self._finished)

    async def _finish(self) -> None:
        try:
            await self._peer.finish()
        except Exception as error:
            self.log.error("connection dropped: handling a message failed", exc_info=error)
            self.abort()

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._finishing = None
        if self.is_closed:
            return
        if task.cancelled():
            self.log.error("connection dropped: handling a message was cancelled")
            self.abort()
            return
        self._read_unprocessed()
        self._read_or_pause()

    def _read_or_pause(self) -> None:
        if self.is_closed or self.transport.is_closing():
            return
        busy = self._finishing is not None and self._websocket.state is State.OPEN
        if self._backlogged or (busy and self.unread > READ_AHEAD):
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    # --- Answering ---

    def _answer(self) -> None:
        """Send the output of `Connection`: a Pong, a Close, a message. Close the TCP connection if that is our part."""
        data, is_open = self._websocket.data_to_send(), self._websocket.state is State.OPEN
        if not is_open:
            self.disable_direct_writes()
        if data and not self.transport.is_closing():
            self.transport.write(data)
            self.update_descriptor()
            if is_open and not self.transport.is_closing() and self.buffered():
                self._backlogged = True
                self._read_or_pause()
        if self._websocket.must_close_tcp and not self._tcp_closing:
            self._tcp_closing = True
            self._close_tcp()

    def _close_tcp(self) -> None:
        """Close after sending what is buffered. Keep reading: a reset for unread bytes could overtake our Close."""
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
        if not self.is_closed:
            self._deadline = asyncio.get_running_loop().call_later(self._settings.close_timeout, self.abort)

    def _notify_drained(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)


class Pings:
    """The keep-alive: pings a silent client and drops one that does not answer."""

    def __init__(self, end: WebSocketEnd, keep_alive: KeepAlive) -> None:
        self.latency = 0.0
        self._end = end
        self._keep_alive = keep_alive
        self._loop = asyncio.get_running_loop()
        self._pinged_at: float | None = None  # the time of the ping that has not been answered yet
        self._timer = self._loop.call_later(keep_alive.interval, self._ping_if_silent)

    def cancel(self) -> None:
        """Stop: the connection is closed."""
        self._timer.cancel()

    def answered(self) -> None:
        """Measure the latency: a Pong has arrived."""
        if self._pinged_at is not None:
            self.latency, self._pinged_at = self._loop.time() - self._pinged_at, None

    def _ping_if_silent(self) -> None:
        """Ping the client if it has sent nothing since the last check."""
        wait, then = self._keep_alive.interval, self._ping_if_silent
        if not self._end.active:
            self._pinged_at = self._loop.time()
            self._end.write(PING_FRAME)
            wait, then = self._keep_alive.timeout, self._drop_if_silent
        self._end.active = False
        self._timer = self._loop.call_later(wait, then)

    def _drop_if_silent(self) -> None:
        """Drop the client if it has sent nothing since the ping."""
        if self._end.active:
            self._end.active = False
            self._timer = self._loop.call_later(self._keep_alive.interval, self._ping_if_silent)
            return
        self._end.log.info("no answer to a ping")
        if self._keep_alive.close is not None:
            self._end.close(self._keep_alive.close.code or CloseCode.INTERNAL_ERROR, self._keep_alive.close.reason)
        self._end.abort()


def _descriptor_of(transport: asyncio.Transport) -> int | None:
    sock = transport.get_extra_info("socket")
    plain = sock is not None and transport.get_extra_info("sslcontext") is None
    return sock.fileno() if plain and os.name == "posix" else None
