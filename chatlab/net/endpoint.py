"""The server's end of a WebSocket: `Connection` knows the protocol, this moves the bytes and keeps the time.

    socket ─► data_received ─┬─ a whole message, as nearly all are ───────────► peer.receive
                             └─ anything else ─► Connection ─► events ─► data ─► peer.receive
    socket ◄─ descriptor or write() ◄─ fan-out;  Pong and Close ◄─ Connection

The echo server by hand, the room and the chat run on it. It takes over a TCP connection after the opening handshake,
whoever has done that: `echo.py` itself, or aiohttp (`http/upgrade.py`). The protocol that had the connection before is
told when the kernel's buffer fills and drains, and when the connection is lost: aiohttp counts its connections by that.

Three conditions make it safe to write frames past `Connection`, as the fan-out does, and all three are kept here: no
compression (a compressed message depends on those before it), whole frames only, and nothing once either side has begun
to close.

A transport's `write()` runs some Python code before it comes to the system call. Where the same bytes go to hundreds of
connections, that is most of what Python does. While a transport has nothing buffered, is not closing and does not
encrypt, `os.write()` to its descriptor does the same, and `descriptor` is not None:

    pause_writing      something is buffered      descriptor = None
    resume_writing     all of it is written       descriptor = 7
    connection_lost    about to be closed         descriptor = None, for good

Left out: what is written, and to whom (fanout.py). Direct writing on Windows, where a socket is not a file, and on TLS.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Protocol, cast

from chatlab.net.held import Held
from chatlab.tasks import Tasks
from chatlab.websocket.connection import Connection, Event, Message, Pong, State
from chatlab.websocket.frames import FINAL_TEXT, MAX_CONTROL_PAYLOAD, Close, CloseCode, Frame, Opcode, plain_message

READ_AHEAD = 64 * 1024  # octets read while the peer is busy: enough to notice that the client has gone
MESSAGES_IN_A_TURN = 64  # of one client, before the others have theirs
MAX_REASON = MAX_CONTROL_PAYLOAD - 2  # octets of a close reason; the code takes the other two
PING_FRAME = Frame(Opcode.PING).serialize()

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]


class Peer(Protocol):
    """The server's side of one client's conversation: an echo, a member of a room, a STOMP session."""

    def receive(self, data: bytes, text: bool) -> bool:
        """Take one message; `text` is False for a binary one. Return whether all is done that it asks for.

        If not, `finish` is awaited before the next message is handed over.
        """

    async def finish(self) -> None:
        """Do what `receive` could not do at once. Cancelled if the TCP connection ends meanwhile."""

    def end(self) -> None:
        """The TCP connection has ended: called once, and not before `finish` has returned."""


OpenPeer = Callable[["WebSocketEnd"], Peer]


@dataclass(frozen=True)
class KeepAlive:
    """Ping a client that has sent nothing for `interval` seconds; drop it if nothing comes for `timeout` after that.

    `close` is sent before it is dropped, if there is one. A silent client may be gone without a word.
    """

    interval: float
    timeout: float
    close: Close | None = None


@dataclass(frozen=True)
class EndSettings:
    """What the ends of one server have in common."""

    keep_alive: KeepAlive | None = None
    close_timeout: float = 10.0  # seconds a client has to answer our Close, and then to close the TCP connection
    held: Held | None = None  # what they all hold, if that has a limit


NO_KEEP_ALIVE = EndSettings()


class WebSocketEnd(asyncio.Protocol):
    """An open WebSocket, and a `Sink` for the fan-out. Its messages go to the peer that `open_peer` makes for it.

    `name` is what the log calls it. `descriptor` may be written to whenever it is not None, from the event loop's
    thread: whole messages only, and if the kernel takes a part of one, the rest must go to `write` at once.
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
        self.heard = True  # something has come since this was set to False
        self.lost = False
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()  # done once the TCP connection is
        self.buffered = transport.get_write_buffer_size  # bytes written that the kernel has not taken yet
        self._name = name
        self._websocket = websocket
        self._settings = settings
        self._former = cast(asyncio.Protocol, transport.get_protocol())
        self._usable = None if self.compresses else _descriptor_of(transport)
        self._tasks: Tasks | None = None
        self._finishing: asyncio.Task[None] | None = None  # the peer is, or others are read first
        self._held = bytearray()  # what came meanwhile
        self._backlogged = False  # our own answer is still buffered: stop reading from a client that isn't reading
        self._drained: asyncio.Future[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._hung_up = False
        transport.set_write_buffer_limits(high=0)  # so that pause_writing() is called for the first buffered byte
        transport.set_protocol(self)
        self.try_directly()
        self._pings = Pings(self, settings.keep_alive) if settings.keep_alive is not None else None
        self._peer = open_peer(self)

    def __str__(self) -> str:
        return f"connection {self._name}"

    @property
    def log_fields(self) -> dict[str, str]:
        """The fields by which a line about this connection is found in the log."""
        return {"connection": self._name}

    @property
    def compresses(self) -> bool:
        """Whether messages are to be compressed for this client: then they go through `send`, not `write`."""
        return self._websocket.agreement.compression is not None

    @property
    def latency(self) -> float:
        """Seconds from the last keep-alive ping to its answer; 0 before the first."""
        return self._pings.latency if self._pings is not None else 0.0

    def how_it_ended(self) -> Close:
        """Return the Close that was received, else the one that was sent, else 1006: the connection broke off."""
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
            self.try_directly()

    def send(self, data: bytes, text: bool) -> None:
        """Send one message as the handshake has agreed, compressed if it has; nothing once either side is closing."""
        if self._websocket.state is State.OPEN:
            self._websocket.send(data.decode() if text else data)
            self._answer()

    def close(self, code: int, reason: str) -> None:
        """Send a Close frame behind what is buffered; the client's answer, or a timeout, ends the connection."""
        if self._websocket.state is State.OPEN:
            self._websocket.close(code, reason.encode()[:MAX_REASON].decode(errors="ignore"))
            self._answer()
            self._abort_later()
            if self._finishing is not None:  # whatever the peer still does, only the client's Close matters now
                self._read_what_was_held()
                self._read_or_pause()

    def abort(self) -> None:
        """Drop the connection with all that is buffered. It may be lost already."""
        self.never_directly()
        if not self.lost:  # asyncio's transport would raise
            self.transport.abort()

    def give_up(self, reason: str) -> None:
        """Say why, and drop the connection with all that it holds."""
        if self._websocket.state is State.OPEN:
            self._websocket.fail(CloseCode.TRY_AGAIN_LATER, reason)
            if not self.buffered() and not self.transport.is_closing():  # behind what nobody reads, nobody reads it
                self.transport.write(self._websocket.data_to_send())
        self._held.clear()
        self.never_directly()
        if self.lost or self.buffered():
            self.abort()
        else:
            self.transport.close()

    async def drained(self) -> None:
        """Wait until the kernel has taken all that was written, or the connection is lost."""
        while not self.lost and self.buffered():
            if self._drained is None:
                self._drained = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._drained)

    def try_directly(self) -> None:
        """Look whether the descriptor may be written to; to be called after writing to the transport."""
        in_the_way = self._usable is None or self.transport.get_write_buffer_size() or self.transport.is_closing()
        self.descriptor = None if in_the_way else self._usable

    def never_directly(self) -> None:
        """From now on, everything goes through the transport: the connection is about to close."""
        self.descriptor = self._usable = None

    # --- What the event loop calls ---

    def data_received(self, data: bytes) -> None:
        """Read on, unless the peer has to finish a message first."""
        self.heard = True
        if self._finishing is not None and self._websocket.state is State.OPEN:
            self._held += data
            self._read_or_pause()
        else:
            self._read(data)

    def eof_received(self) -> bool | None:
        """The client will send no more: what is buffered is still sent, then the transport closes."""
        return None

    def pause_writing(self) -> None:
        """The kernel took less than it was given."""
        self.descriptor = None
        self._former.pause_writing()

    def resume_writing(self) -> None:
        """What was buffered is written."""
        self.try_directly()
        self._wake_who_waits_for_the_buffer()
        self._former.resume_writing()
        self._backlogged = False
        self._note_what_is_held()
        self._read_or_pause()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed as soon as this returns; its number may be another connection's then."""
        self.never_directly()
        self.lost = True
        if self._settings.held is not None:
            self._settings.held.note(self, 0)
        self._wake_who_waits_for_the_buffer()
        self._former.connection_lost(exc)
        for timer in (self._deadline, self._pings):
            if timer is not None:
                timer.cancel()
        if not self.gone.done():
            self.gone.set_result(None)
        if self._finishing is None:
            self._peer.end()
        else:  # cancelled in the next turn: a task that has not begun would never know
            self._finishing.add_done_callback(lambda _: self._peer.end())
            asyncio.get_running_loop().call_soon(self._finishing.cancel)

    # --- Reading ---

    @property
    def unread(self) -> int:
        """Octets that have come and wait for the peer to finish a message."""
        return len(self._held) + self._websocket.unread

    def _read(self, data: bytes) -> None:
        """Hand messages to the peer, by way of `Connection` if they are not as plain as nearly all are."""
        websocket = self._websocket
        if websocket.between_messages:
            start, end, turn = 0, len(data), MESSAGES_IN_A_TURN
            while (found := plain_message(data, start, websocket.max_message)) is not None:
                text = data[start] == FINAL_TEXT
                message, start = found
                if not self._peer.receive(message, text):
                    self._let_the_peer_finish(data[start:])
                    return
                if start == end:
                    return  # nearly always
                turn -= 1
                if not turn:
                    self._let_others_have_their_turn(data[start:])
                    return
                if websocket.state is not State.OPEN:
                    break
            data = data[start:]
        self._take(websocket.receive_data(data))

    def _read_what_was_held(self) -> None:
        held, self._held = bytes(self._held), bytearray()
        if self._websocket.unread:  # it came before
            self._take(self._websocket.receive_data(held))
        else:
            self._read(held)

    def _take(self, events: Iterator[Event]) -> None:
        """Act on events, as far as a message that the peer has to finish first, or for one turn."""
        turn = MESSAGES_IN_A_TURN
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
                self._let_others_have_their_turn()
                return
        self._answer()
        self._note_what_is_held()

    def _note_what_is_held(self) -> None:
        """Have it counted: half a message on its way in, and what the kernel does not take on its way out."""
        if self._settings.held is not None and not self.lost:
            unsent = self.transport.get_write_buffer_size()
            self._settings.held.note(self, self._websocket.unfinished + len(self._held) + unsent)

    def _let_the_peer_finish(self, rest: bytes = b"") -> None:
        self._read_on_after(self._finish(), rest)

    def _let_others_have_their_turn(self, rest: bytes = b"") -> None:
        self._read_on_after(asyncio.sleep(0), rest)

    def _read_on_after(self, work: Coroutine[None, None, None], rest: bytes) -> None:
        self._held += rest
        self._note_what_is_held()
        if self._tasks is None:
            self._tasks = Tasks(logging.getLogger(__name__))
        self._finishing = self._tasks.start(work, name=f"{self}: finish a message")
        self._finishing.add_done_callback(self._finished)

    async def _finish(self) -> None:
        try:
            await self._peer.finish()
        except Exception as error:
            self.log.error("connection dropped: a message could not be finished", exc_info=error)
            self.abort()

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._finishing = None
        if self.lost:
            return
        if task.cancelled():
            self.log.error("connection dropped: what a message asked for was cancelled")
            self.abort()
            return
        self._read_what_was_held()
        self._read_or_pause()

    def _read_or_pause(self) -> None:
        if self.lost or self.transport.is_closing():
            return
        busy = self._finishing is not None and self._websocket.state is State.OPEN
        if self._backlogged or (busy and self.unread > READ_AHEAD):
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    # --- Answering ---

    def _answer(self) -> None:
        """Send what `Connection` has to say: a Pong, a Close, a message. Hang up if that is for us to do."""
        data, is_open = self._websocket.data_to_send(), self._websocket.state is State.OPEN
        if not is_open:
            self.never_directly()
        if data and not self.transport.is_closing():
            self.transport.write(data)
            self.try_directly()
            if is_open and not self.transport.is_closing() and self.buffered():
                self._backlogged = True
                self._read_or_pause()
        if self._websocket.must_close_tcp and not self._hung_up:
            self._hung_up = True
            self._hang_up()

    def _hang_up(self) -> None:
        """Close behind what is buffered; read on meanwhile, or a reset for unread bytes could overtake our Close."""
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
            self._deadline = asyncio.get_running_loop().call_later(self._settings.close_timeout, self.abort)

    def _wake_who_waits_for_the_buffer(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)


class Pings:
    """Asks a silent client whether it is there, and drops one that does not answer."""

    def __init__(self, end: WebSocketEnd, keep_alive: KeepAlive) -> None:
        self.latency = 0.0
        self._end = end
        self._keep_alive = keep_alive
        self._loop = asyncio.get_running_loop()
        self._asked_at: float | None = None  # of the ping whose Pong is still to come
        self._timer = self._loop.call_later(keep_alive.interval, self._look)

    def cancel(self) -> None:
        """The connection is over."""
        self._timer.cancel()

    def answered(self) -> None:
        """A Pong has come."""
        if self._asked_at is not None:
            self.latency, self._asked_at = self._loop.time() - self._asked_at, None

    def _look(self) -> None:
        """Ask, if nothing has come since the last look."""
        wait, then = self._keep_alive.interval, self._look
        if not self._end.heard:
            self._asked_at = self._loop.time()
            self._end.write(PING_FRAME)
            wait, then = self._keep_alive.timeout, self._check
        self._end.heard = False
        self._timer = self._loop.call_later(wait, then)

    def _check(self) -> None:
        """Drop the client, if nothing has come since it was asked."""
        if self._end.heard:
            self._end.heard = False
            self._timer = self._loop.call_later(self._keep_alive.interval, self._look)
            return
        self._end.log.info("no answer to a ping")
        if self._keep_alive.close is not None:
            self._end.close(self._keep_alive.close.code or CloseCode.INTERNAL_ERROR, self._keep_alive.close.reason)
        self._end.abort()


def _descriptor_of(transport: asyncio.Transport) -> int | None:
    sock = transport.get_extra_info("socket")
    plain = sock is not None and transport.get_extra_info("sslcontext") is None
    return sock.fileno() if plain and os.name == "posix" else None
