"""One end of a WebSocket connection (RFC 6455, sections 5 to 7): bytes in, events out; commands in, bytes out.

A `Connection` does no I/O. The owner of the socket does all of it:

    for event in connection.receive_data(data):     # data from the socket; call receive_eof() when it ends
        if isinstance(event, Message):
            connection.send("Hello")                # or ping(), pong(), close()
    socket.sendall(connection.data_to_send())       # after each of the above, because some answers are automatic
    if connection.must_close_tcp: ...               # whether this side closes the TCP connection (7.1.1)

Frames are read one at a time, as events are requested: the output for one event precedes the answer to the next.

A connection answers pings and Close frames, joins fragments, inflates, validates UTF-8 as it arrives, and fails with
the right code when the peer breaks a rule. `TRANSITIONS` has its states and the causes that lead from one to another.

Left out: time. When to ping, and how long to wait for a handshake or a Close, is up to the owner of the socket.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum

from chatlab.errors import HandshakeError, LocalProtocolError, WebSocketError
from chatlab.websocket import handshake
from chatlab.websocket.deflate import Deflater, Inflater, Parameters
from chatlab.websocket.frames import (
    MAX_CONTROL_PAYLOAD,
    Bytes,
    Close,
    CloseCode,
    Frame,
    Header,
    Opcode,
    Side,
    apply_mask,
    new_mask,
)
from chatlab.websocket.handshake import Agreement, Request, Response

MAX_MESSAGE = 16 * 1024 * 1024

Accept = Callable[[Request], tuple[Response, Agreement]]


# --- States, as data -------------------------------------------------------------------------------------------------


class State(Enum):
    """A connection's state. The RFC's CLOSING (7.1.3) is split into three: CLOSE_SENT, CLOSE_RECEIVED and ENDING."""

    CONNECTING = "the opening handshake is under way"
    OPEN = "messages go both ways"
    CLOSE_SENT = "we sent a Close and send no more; the peer may still"
    CLOSE_RECEIVED = "the peer sent a Close and sends no more; ours is due"
    ENDING = "no more frames either way; the TCP connection is to be closed"
    CLOSED = "the TCP connection has ended"


class Cause(Enum):
    """The cause of a state transition."""

    ACCEPTED = "the handshake is agreed on"
    REFUSED = "the handshake is refused"
    CLOSE_SENT = "a Close frame is sent"
    CLOSE_RECEIVED = "a Close frame arrives"
    FAILED = "the peer breaks a rule"
    TCP_ENDED = "the TCP connection ends"


TRANSITIONS: dict[tuple[State, Cause], State] = {
    (State.CONNECTING, Cause.ACCEPTED): State.OPEN,
    (State.CONNECTING, Cause.REFUSED): State.ENDING,
    (State.OPEN, Cause.CLOSE_SENT): State.CLOSE_SENT,
    (State.OPEN, Cause.CLOSE_RECEIVED): State.CLOSE_RECEIVED,
    (State.CLOSE_SENT, Cause.CLOSE_RECEIVED): State.ENDING,
    (State.CLOSE_RECEIVED, Cause.CLOSE_SENT): State.ENDING,
    (State.OPEN, Cause.FAILED): State.ENDING,
    (State.CLOSE_SENT, Cause.FAILED): State.ENDING,
    (State.CONNECTING, Cause.TCP_ENDED): State.CLOSED,
    (State.OPEN, Cause.TCP_ENDED): State.CLOSED,
    (State.CLOSE_SENT, Cause.TCP_ENDED): State.CLOSED,
    (State.CLOSE_RECEIVED, Cause.TCP_ENDED): State.CLOSED,
    (State.ENDING, Cause.TCP_ENDED): State.CLOSED,
}

READING = (State.OPEN, State.CLOSE_SENT)
WRITING = (State.OPEN, State.CLOSE_RECEIVED)


# --- Events ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opened:
    """The handshake succeeded, with this agreement."""

    request: Request
    response: Response
    agreement: Agreement


@dataclass(frozen=True, slots=True)
class Refused:
    """The handshake failed, on our side or the peer's; there will be no WebSocket."""

    error: HandshakeError


@dataclass(frozen=True, slots=True)
class Message:
    """A whole message, its fragments joined: text as `str`, binary as `bytes`."""

    data: str | bytes


@dataclass(frozen=True, slots=True)
class Ping:
    """A Ping was received; the Pong is already in `data_to_send()`."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    """A Pong was received: the answer to our Ping with the same payload, or unsolicited."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class CloseReceived:
    """The peer's Close was received. Ours is sent when the next event is requested; until then sending is allowed."""

    close: Close


@dataclass(frozen=True, slots=True)
class Failed:
    """The peer broke a rule; our Close with the reason is already in `data_to_send()`."""

    error: WebSocketError


@dataclass(frozen=True, slots=True)
class Closed:
    """The TCP connection has closed. `code` is 1005 if the Close had none, 1006 if there was no Close (7.1.5)."""

    code: int
    reason: str
    clean: bool


Event = Opened | Refused | Message | Ping | Pong | CloseReceived | Failed | Closed


# --- Incoming messages -----------------------------------------------------------------------------------------------


class Assembly:
    """Assembles messages from pieces: inflates them, limits their size and validates text, in that order."""

    def __init__(self, max_message: int, inflater: Inflater | None) -> None:
        self._max_message = max_message
        self._inflater = inflater
        self.opcode: int | None = None  # of the current message
        self._compressed = False
        self._data = bytearray()
        self._utf8 = codecs.getincrementaldecoder("utf-8")()

    @property
    def size(self) -> int:
        """The octets of the current message received so far."""
        return len(self._data)

    def start_frame(self, header: Header) -> None:
        """Start a data frame. Raise `WebSocketError` if it is out of sequence or announces too many octets."""
        if header.opcode == Opcode.CONTINUATION:
            if self.opcode is None:
                # 5.4: a fragmented message starts with "an opcode other than 0"
                raise WebSocketError("CONTINUATION frame with no message to continue")
        else:
            if self.opcode is not None:
                # 5.4: "The fragments of one message MUST NOT be interleaved between the fragments of another message"
                raise WebSocketError(f"{Opcode(header.opcode).name} frame before the message under way has ended")
            self.opcode = header.opcode
            self._compressed = header.rsv1
        if not self._compressed:
            self._check_size(len(self._data) + header.length)

    def add(self, piece: bytes) -> None:
        """Add a piece of a frame's payload, unmasked."""
        if self._compressed and self._inflater is not None:
            piece = self._inflater.piece(piece, self._max_message - len(self._data))
        self._append(piece)

    def finish(self) -> str | bytes:
        """End the message and return it."""
        if self._compressed and self._inflater is not None:
            self._append(self._inflater.end(self._max_message - len(self._data)))
        data, text = bytes(self._data), self.opcode == Opcode.TEXT
        self.opcode = None
        self._data = bytearray()
        if not text:
            return data
        self._check_utf8(b"", final=True)
        return data.decode()

    def _append(self, piece: bytes) -> None:
        self._check_size(len(self._data) + len(piece))
        if self.opcode == Opcode.TEXT:
            self._check_utf8(piece)
        self._data += piece

    def _check_size(self, size: int) -> None:
        if size > self._max_message:
            # 10.4: "Implementations … MUST protect themselves against exceeding those limits"
            message = f"message of {size} bytes or more; at most {self._max_message} are read"
            raise WebSocketError(message, CloseCode.MESSAGE_TOO_BIG)

    def _check_utf8(self, piece: bytes, final: bool = False) -> None:
        try:
            self._utf8.decode(piece, final)
        except UnicodeDecodeError as error:
            # 8.1: on octets that are not UTF-8 the endpoint "MUST _Fail the WebSocket Connection_"
            raise WebSocketError(f"text is not UTF-8: {error}", CloseCode.INVALID_PAYLOAD) from error
        waiting = self._utf8.getstate()[0]
        if waiting[:1] == b"\xed" and waiting[1:] >= b"\xa0":
            # Half of a surrogate pair: Python's decoder would wait for the third octet before refusing it.
            raise WebSocketError(f"text is not UTF-8: it has {waiting.hex(' ')} in it", CloseCode.INVALID_PAYLOAD)


# --- The connection --------------------------------------------------------------------------------------------------


class Connection:
    """One end of a connection.

    A server decides with `accept`, for instance `functools.partial(handshake.accept, origins=[…])`. `max_message` is in
    octets, after inflating. `mask` returns the masking key for each of a client's frames.
    """

    def __init__(
        self,
        side: Side,
        *,
        accept: Accept = handshake.accept,
        max_message: int = MAX_MESSAGE,
        mask: Callable[[], bytes] = new_mask,
    ) -> None:
        self.side = side
        self.state = State.CONNECTING
        self.history: list[tuple[Cause, State]] = []
        self.agreement = Agreement()
        self.close_sent: Close | None = None
        self.close_received: Close | None = None
        self._accept = accept
        self.max_message = max_message
        self._mask = mask
        self._request: Request | None = None
        self._failed = False
        self._out: list[bytes] = []
        self._buffer = bytearray()
        self._header: Header | None = None  # of the frame whose payload is being read
        self._taken = 0  # octets of that payload read so far
        self._sending: type | None = None  # str or bytes while a message is sent in fragments
        self._agree(Agreement())

    @classmethod
    def opened(
        cls,
        side: Side,
        compression: Parameters | None = None,
        *,
        max_message: int = MAX_MESSAGE,
        mask: Callable[[], bytes] = new_mask,
    ) -> Connection:
        """Return a connection whose handshake has been done elsewhere."""
        connection = cls(side, max_message=max_message, mask=mask)
        connection._agree(Agreement(compression=compression))
        connection._move(Cause.ACCEPTED)
        return connection

    @property
    def must_close_tcp(self) -> bool:
        """Whether this side must close the TCP connection now, after sending `data_to_send()`.

        7.1.1: the server closes first, so that the client is not left with a port in TIME_WAIT. A side that has failed
        the connection or refused the handshake does not wait for the other side.
        """
        return self.state is State.ENDING and (self.side is Side.SERVER or self._failed)

    @property
    def between_messages(self) -> bool:
        """Whether the connection is open and the next octet starts a message or a control frame."""
        return self.state is State.OPEN and not self._buffer and self._header is None and self._assembly.opcode is None

    @property
    def unread(self) -> int:
        """The octets passed to `receive_data` that have not been turned into events yet."""
        return len(self._buffer)

    @property
    def unfinished(self) -> int:
        """The octets held: those unread, and the pieces of an incomplete message."""
        return len(self._buffer) + self._assembly.size

    def data_to_send(self) -> bytes:
        """Return and clear the data to write to the socket."""
        data = b"".join(self._out)
        self._out.clear()
        return data

    # Commands

    def request(self, request: Request) -> None:
        """Send a client's upgrade request, as created by `handshake.make_request`."""
        if self.side is Side.SERVER or self._request is not None or self.state is not State.CONNECTING:
            raise LocalProtocolError("only a client asks for an upgrade, and only once")
        self._request = request
        self._out.append(request.serialize())

    def send(self, data: str | Bytes, *, fin: bool = True) -> None:
        """Send a message, or with `fin=False` a fragment of one; the last fragment must have `fin=True`."""
        kind = str if isinstance(data, str) else bytes
        if self._sending not in (None, kind):
            raise LocalProtocolError(f"{kind.__name__} in the middle of a message of {self._sending.__name__}")
        self._require_writing("send a message")
        payload = _encode(data) if isinstance(data, str) else bytes(data)
        first = self._sending is None
        opcode = Opcode.CONTINUATION if not first else Opcode.TEXT if kind is str else Opcode.BINARY
        if self._deflater is not None:
            payload = self._deflater.piece(payload, fin)
        self._sending = None if fin else kind
        self._send_frame(Frame(opcode, payload, fin, rsv1=first and self._deflater is not None))

    def ping(self, payload: bytes = b"") -> None:
        """Send a Ping; the peer answers with the same payload, at most 125 octets (5.5.2)."""
        self._send_control(Opcode.PING, payload)

    def pong(self, payload: bytes = b"") -> None:
        """Send an unsolicited Pong as a one-way heartbeat (5.5.3). Pings are answered automatically."""
        self._send_control(Opcode.PONG, payload)

    def close(self, code: int | None = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Start the closing handshake (7.1.2), or complete it if the peer has started it."""
        close = Close(code, reason)
        payload = close.serialize()
        self._move(Cause.CLOSE_SENT)
        self.close_sent = close
        self._send_frame(Frame(Opcode.CLOSE, payload))

    def fail(self, code: int, reason: str) -> None:
        """_Fail the WebSocket Connection_ (7.1.7) for a reason on our side. Stop reading, and discard unread data."""
        self._fail(WebSocketError(reason, code))
        self._buffer.clear()
        self._assembly = Assembly(self.max_message, None)

    # Bytes in

    def receive_data(self, data: bytes) -> Iterator[Event]:
        """Return an iterator of the events in the peer's data, which may be split anywhere.

        The data is buffered at once, even without iterating. Never raises for its contents.
        """
        if self.state is State.CLOSED:
            raise LocalProtocolError("data after the end of the TCP connection")
        self._buffer += data
        return self._events()

    def receive_eof(self) -> list[Event]:
        """Return the events at the end of the TCP connection, clean or not. Never raises."""
        if self.state is State.CLOSED:
            return []
        events = list(self._events())
        connecting = self.state is State.CONNECTING
        self._move(Cause.TCP_ENDED)
        if connecting:
            return [*events, Refused(HandshakeError("the TCP connection ended during the handshake"))]
        return [*events, self._how_it_ended()]

    def _how_it_ended(self) -> Closed:
        close = self.close_received
        if close is None:
            return Closed(CloseCode.ABNORMAL_CLOSURE, "", clean=False)
        code = CloseCode.NO_STATUS_RECEIVED if close.code is None else close.code
        return Closed(code, close.reason, clean=self.close_sent is not None)

    def _events(self) -> Iterator[Event]:
        while (event := self._next_event()) is not None:
            yield event

    def _next_event(self) -> Event | None:
        """Return the next event, or None if more data is needed or no more data is to be read."""
        if self.state is State.CONNECTING:
            return self._read_handshake()
        if self.state is State.CLOSE_RECEIVED and self.close_received is not None:
            self.close(self.close_received.code)  # 5.5.1: "typically echos the status code it received"
        if self.state not in READING:
            self._buffer.clear()  # 7.1.7: nothing is read after the connection has failed, nor after a Close
            return None
        try:
            return self._read_frames()
        except WebSocketError as error:
            self._fail(error)
            return Failed(error)

    # The handshake

    def _read_handshake(self) -> Event | None:
        try:
            opened = self._read_request() if self.side is Side.SERVER else self._read_response()
        except HandshakeError as error:
            if self.side is Side.SERVER:
                self._out.append(handshake.refuse(error).serialize())
            self._failed = True
            self._move(Cause.REFUSED)
            return Refused(error)
        if opened is not None:
            self._agree(opened.agreement)
            self._move(Cause.ACCEPTED)
        return opened

    def _read_request(self) -> Opened | None:
        parsed = Request.parse(self._buffer)
        if parsed is None:
            return None
        request, size = parsed
        response, agreement = self._accept(request)
        del self._buffer[:size]
        self._out.append(response.serialize())
        return Opened(request, response, agreement)

    def _read_response(self) -> Opened | None:
        parsed = Response.parse(self._buffer)
        if parsed is None:
            return None
        if self._request is None:
            raise HandshakeError("the server answered before it was asked")
        response, size = parsed
        agreement = handshake.check_response(self._request, response)
        del self._buffer[:size]
        return Opened(self._request, response, agreement)

    def _agree(self, agreement: Agreement) -> None:
        """Create the streams that were negotiated; each side compresses with its own parameters."""
        self.agreement = agreement
        self._deflater: Deflater | None = None
        inflater: Inflater | None = None
        if agreement.compression is not None:
            p = agreement.compression
            server = (p.server_max_window_bits, p.server_no_context_takeover)
            client = (p.client_max_window_bits, p.client_no_context_takeover)
            ours, theirs = (client, server) if self.side is Side.CLIENT else (server, client)
            self._deflater, inflater = Deflater(*ours), Inflater(*theirs)
        self._assembly = Assembly(self.max_message, inflater)

    # Frames in

    def _read_frames(self) -> Event | None:
        """Read up to the next event: data payloads as they arrive, headers and control frames once complete."""
        while (header := self._header or self._start_frame()) is not None:
            missing = header.length - self._taken
            if header.is_control and len(self._buffer) < missing:
                return None
            piece = self._take_payload(header, missing)
            done = self._taken == header.length
            if done:
                self._header = None
            if header.is_control:
                return self._control(header.opcode, piece)
            self._assembly.add(piece)
            if not done:
                return None
            if header.fin:
                return Message(self._assembly.finish())
        return None

    def _start_frame(self) -> Header | None:
        """Parse and check the next header, if it is complete."""
        header = Header.parse(self._buffer)
        if header is not None:
            header.check(self.side.peer, rsv1_allowed=self.agreement.compression is not None)
            if not header.is_control:
                self._assembly.start_frame(header)
            del self._buffer[: header.size]
            self._header, self._taken = header, 0
        return header

    def _take_payload(self, header: Header, missing: int) -> bytes:
        piece = bytes(self._buffer[:missing])
        del self._buffer[:missing]
        if header.mask is not None:
            piece = apply_mask(piece, header.mask, self._taken)
        self._taken += len(piece)
        return piece

    def _control(self, opcode: int, payload: bytes) -> Event:
        if opcode == Opcode.CLOSE:
            self.close_received = Close.parse(payload)
            self._move(Cause.CLOSE_RECEIVED)
            return CloseReceived(self.close_received)
        if opcode == Opcode.PONG:
            return Pong(payload)
        if self.state is State.OPEN:
            # 5.5.2: "MUST send a Pong frame in response". But nothing may be sent after our own Close.
            self._send_frame(Frame(Opcode.PONG, payload))
        return Ping(payload)

    def _fail(self, error: WebSocketError) -> None:
        """_Fail the WebSocket Connection_ (7.1.7): send a Close with the reason if allowed, and stop reading."""
        if self.state is State.OPEN:
            reason = str(error).encode()[: MAX_CONTROL_PAYLOAD - 2].decode("utf-8", "ignore")
            self.close_sent = Close(error.code, reason)
            self._send_frame(Frame(Opcode.CLOSE, self.close_sent.serialize()))
        self._failed = True
        self._move(Cause.FAILED)

    # Frames out

    def _send_control(self, opcode: Opcode, payload: bytes) -> None:
        if len(payload) > MAX_CONTROL_PAYLOAD:
            raise LocalProtocolError(f"{opcode.name} of {len(payload)} bytes; control frames carry 125 at most")
        self._require_writing(f"send a {opcode.name}")
        self._send_frame(Frame(opcode, bytes(payload)))

    def _send_frame(self, frame: Frame) -> None:
        if self.side is Side.CLIENT:
            # 5.1: "a client MUST mask all frames that it sends to the server"
            frame = replace(frame, mask=self._mask())
        self._out.append(frame.serialize())

    def _require_writing(self, what: str) -> None:
        if self.state not in WRITING:
            # 5.5.1: "The application MUST NOT send any more data frames after sending a Close frame."
            raise LocalProtocolError(f"cannot {what} in state {self.state.name}: {self.state.value}")

    def _move(self, cause: Cause) -> None:
        """Follow `TRANSITIONS`; raise `LocalProtocolError` if there is no transition for this cause."""
        after = TRANSITIONS.get((self.state, cause))
        if after is None:
            raise LocalProtocolError(f"{cause.value}: not possible in state {self.state.name}: {self.state.value}")
        self.state = after
        self.history.append((cause, after))


def _encode(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise LocalProtocolError(f"text cannot be UTF-8: {error}") from error
