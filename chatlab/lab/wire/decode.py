"""From what a wire heard to what was said: records in, events out.

A `WireRecord` is what the wire saw and nothing more: bytes of one side at one moment, or that a connection opened,
ended or met a fault. A `Conversation` reads the records of one connection and finds the events in them, layer by
layer: the HTTP requests and responses, after a 101 the WebSocket frames and in them the STOMP frames, or Redis
commands and replies.

The frames are read by the same modules the lessons build, `chatlab.websocket` and `chatlab.stomp`; Redis's protocol,
which nothing else here speaks by hand, is read below (https://redis.io/docs/latest/develop/reference/protocol-spec/).
Nothing is refused: what breaks a rule is still an event, and says which rule. What no layer knows (TLS, AMQP, Kafka)
is shown as bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from chatlab.errors import StompError, WebSocketError
from chatlab.stomp import frames as stomp
from chatlab.websocket import deflate
from chatlab.websocket import frames as websocket

Peer = Literal["client", "server"]
Sender = Literal["client", "server", "wire"]

METHODS: Final = (b"GET ", b"POST ", b"PUT ", b"HEAD ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"TRACE ", b"CONNECT ")
MAX_HEAD: Final = 64 * 1024  # an HTTP head longer than this is shown as bytes
MAX_INFLATED: Final = 64 * 1024 * 1024
FIRST_STOMP_LINE: Final = re.compile(rb"(CONNECT|STOMP)\r?\n")
TOLD_STOMP_HEADERS: Final = frozenset(
    {"accept-version", "version", "heart-beat", "destination", "id", "subscription", "message-id", "receipt"}
    | {"receipt-id", "ack", "transaction", "message"}
)


@dataclass(slots=True)
class WireRecord:
    """What the wire saw at `time` (seconds since it began): `data` from a peer, or a `note` such as "open" or "FIN".

    `ends`, of interest when `note` is "open", are the names of the two peers of this connection.
    `offset` is the place of `data` in all its sender has sent on this connection. `went` of its bytes have been passed
    on, the last of them at `passed`; what a fault holds back or loses is never counted.
    """

    time: float
    connection: int
    sender: Sender
    data: bytes = b""
    offset: int = 0
    note: str = ""
    ends: tuple[str, str] = ("client", "server")
    went: int = 0
    passed: float | None = None

    def pass_on(self, count: int, time: float) -> None:
        """Say that `count` more bytes have left the wire at `time`."""
        self.went += count
        self.passed = time


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened: a request, a frame, a command, a reply, a connection opened or broken, a fault.

    `source` and `target` are the names of the peers, "client" and "server" if they were given no others.
    `layer` is "tcp", "http", "websocket", "stomp", "redis", "bytes" or "fault", `kind` what it is there: "request",
    "text", "CONNECT", "XADD", "FIN". Its first byte came at `time`, its last at `until`; it takes the bytes from
    `offset` to `end` of its sender's stream. `data` is the octets of its own layer, `content` what they carry
    (unmasked, inflated), `value` the object they were decoded to.
    """

    number: int
    time: float
    until: float
    connection: int
    sender: Sender
    source: str
    target: str
    layer: str
    kind: str
    summary: str
    data: bytes = field(default=b"", repr=False)
    offset: int = field(default=0, repr=False)
    end: int = field(default=0, repr=False)
    content: bytes = field(default=b"", repr=False)
    value: object = field(default=None, repr=False)
    record: WireRecord | None = field(default=None, repr=False, compare=False)

    @property
    def passed(self) -> float | None:
        """When the wire had passed all of it on; None while it has not, and for ever if it was lost."""
        if self.record is None or self.record.went < self.end - self.record.offset:
            return None
        return self.record.passed

    @property
    def size(self) -> int:
        """The octets it takes on the wire."""
        return self.end - self.offset


@dataclass(frozen=True, slots=True)
class Found:
    """What a reader made of the first `size` bytes of a stream.

    With `size` 0 it rides on the event before it and brings the octets of its own layer as `data`.
    """

    size: int
    layer: str
    kind: str
    summary: str
    data: bytes = b""
    content: bytes = b""
    value: object = None


Reader = Callable[["Stream"], list[Found] | None]


class Stream:
    """What one peer has sent and no event has taken yet, and the records it came in."""

    def __init__(self, reader: Reader, name: Peer) -> None:
        self.reader = reader
        self.name: Peer = name
        self.buffer = bytearray()
        self.offset = 0  # of the buffer's first byte, in all the peer has sent
        self.records: list[WireRecord] = []

    def append(self, record: WireRecord) -> None:
        """Add what came."""
        self.buffer += record.data
        self.records.append(record)

    def take(self, size: int) -> tuple[bytes, WireRecord, WireRecord]:
        """Remove `size` bytes; with them, the records of the first and of the last."""
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        self.offset += size
        first = self.records[0]
        while self.records[0].offset + len(self.records[0].data) < self.offset:
            del self.records[0]
        last = self.records[0]
        if last.offset + len(last.data) == self.offset:
            del self.records[0]
        return data, first, last


class Conversation:
    """One connection's records, read in the order they came; `numbers` counts the events of the whole trace."""

    def __init__(self, connection: int, numbers: Iterator[int]) -> None:
        self.connection = connection
        self.numbers = numbers
        self.ends = ("client", "server")
        self.streams: dict[Peer, Stream] = {
            "client": Stream(self._first_bytes, "client"),
            "server": Stream(_as_bytes, "server"),
        }
        self.methods: list[str] = []  # of the requests not answered yet

    def feed(self, record: WireRecord) -> Iterator[Event]:
        """Yield the events that are whole with this record."""
        if record.sender == "wire" or not record.data:
            yield from self._noted(record)
            return
        stream = self.streams[record.sender]
        stream.append(record)
        while stream.buffer:
            found = stream.reader(stream)
            if found is None:
                return
            yield from self._events(stream, found)

    def _noted(self, record: WireRecord) -> Iterator[Event]:
        if record.sender != "wire" and record.note in ("FIN", "RST"):
            yield from self._unfinished(self.streams[record.sender])
        if record.note == "open":
            self.ends = record.ends
        layer = "fault" if record.sender == "wire" else "tcp"
        yield self._event(record, record, Found(0, layer, record.note, ""), record.offset, record.offset)

    def _unfinished(self, stream: Stream) -> Iterator[Event]:
        """What is left when a stream ends: the beginning of something whose end never came."""
        if stream.buffer:
            size = len(stream.buffer)
            yield from self._events(stream, [Found(size, "bytes", "unfinished", f"{size} bytes of something longer")])

    def _events(self, stream: Stream, found: list[Found]) -> Iterator[Event]:
        offset, first, last = stream.offset, stream.records[0], stream.records[0]
        for part in found:
            if part.size:
                offset = stream.offset
                data, first, last = stream.take(part.size)
                part = replace(part, data=data)
            yield self._event(first, last, part, offset, stream.offset)

    def _event(self, first: WireRecord, last: WireRecord, found: Found, offset: int, end: int) -> Event:
        client, server = self.ends
        names = {"client": (client, server), "server": (server, client), "wire": ("wire", "")}
        source, target = names[last.sender]
        return Event(
            number=next(self.numbers),
            time=first.time,
            until=last.time,
            connection=self.connection,
            sender=last.sender,
            source=source,
            target=target,
            layer=found.layer,
            kind=found.kind,
            summary=found.summary,
            data=found.data,
            offset=offset,
            end=end,
            content=found.content,
            value=found.value,
            record=last,
        )

    # -- which protocol is it?

    def _first_bytes(self, stream: Stream) -> list[Found] | None:
        """The client speaks first in all we know; its first bytes tell the protocol."""
        start = bytes(stream.buffer[:8])
        if start.startswith(b"*"):
            self._read_both(read_redis_command, read_redis_reply)
        elif any(start.startswith(method) for method in METHODS):
            self._read_both(self._request, self._response)
        elif any(method.startswith(start) for method in METHODS):
            return None
        else:
            self._read_both(_as_bytes, _as_bytes)
        return []

    def _read_both(self, client: Reader, server: Reader) -> None:
        self.streams["client"].reader = client
        self.streams["server"].reader = server

    # -- HTTP

    def _request(self, stream: Stream) -> list[Found] | None:
        head = read_head(stream)
        if head is None:
            return self._endless_head(stream)
        self.methods.append(head.start.partition(" ")[0])
        wish = head.get("Upgrade")
        summary = head.start + (f", asks to upgrade to {wish}" if wish else "")
        self._expect_body(stream, head, self._request, until_close=False)
        return [Found(head.size, "http", "request", summary, value=head)]

    def _response(self, stream: Stream) -> list[Found] | None:
        head = read_head(stream)
        if head is None:
            return self._endless_head(stream)
        status = head.start.split(" ")[1] if " " in head.start else ""
        method = self.methods.pop(0) if self.methods and not (status.startswith("1") and status != "101") else ""
        if status == "101" and head.get("Upgrade").lower() == "websocket":
            self._switch_to_websocket(head)
        elif method != "HEAD" and status not in ("204", "304") and not status.startswith("1"):
            self._expect_body(stream, head, self._response, until_close=True)
        return [Found(head.size, "http", "response", head.start, value=head)]

    def _endless_head(self, stream: Stream) -> list[Found] | None:
        if len(stream.buffer) <= MAX_HEAD:
            return None
        stream.reader = _as_bytes
        return []

    def _expect_body(self, stream: Stream, head: Head, after: Reader, *, until_close: bool) -> None:
        """RFC 9112, section 6.3: chunked, else so many bytes, else (a response only) until the connection closes."""
        length = head.get("Content-Length")
        if "chunked" in head.get("Transfer-Encoding").lower():
            stream.reader = ChunkedBody(after)
        elif length.isdigit():
            if int(length):
                stream.reader = PlainBody(int(length), after)
        elif until_close:
            stream.reader = _as_body

    def _switch_to_websocket(self, head: Head) -> None:
        extensions = head.get("Sec-WebSocket-Extensions")
        stomp_reader = StompReader(head.get("Sec-WebSocket-Protocol"))
        self._read_both(
            FrameReader("client", extensions, stomp_reader),
            FrameReader("server", extensions, stomp_reader),
        )


# --- HTTP ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Head:
    """The start line and the headers of an HTTP message, and how many octets they took (RFC 9112)."""

    start: str
    headers: tuple[tuple[str, str], ...]
    size: int

    def get(self, name: str) -> str:
        """All values of a header, joined as RFC 9110, section 5.3 allows; "" without any."""
        return ", ".join(value for key, value in self.headers if key.lower() == name.lower())


def read_head(stream: Stream) -> Head | None:
    """Read the head a stream begins with, None while its empty line has not come."""
    end = stream.buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    start, *lines = stream.buffer[:end].decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return Head(start, tuple((name.strip(), value.strip()) for name, _, value in pairs), end + 4)


@dataclass
class PlainBody:
    """Reads a body of `length` octets (RFC 9112, section 6.2), then reads on with `after`."""

    length: int
    after: Reader

    def __call__(self, stream: Stream) -> list[Found] | None:
        """Take the body when it is whole."""
        if len(stream.buffer) < self.length:
            return None
        stream.reader = self.after
        body = bytes(stream.buffer[: self.length])
        return [Found(self.length, "http", "body", quoted(body), content=body)]


@dataclass
class ChunkedBody:
    """Reads chunks (RFC 9112, section 7.1), one event each, until the chunk of length 0, then reads on with `after`."""

    after: Reader

    def __call__(self, stream: Stream) -> list[Found] | None:
        """Take one chunk when it is whole."""
        line = stream.buffer.find(b"\r\n")
        if line < 0:
            return None
        try:
            length = int(stream.buffer[:line].split(b";")[0], 16)
        except ValueError:
            stream.reader = _as_bytes
            return []
        end = line + 2 + length + 2
        if len(stream.buffer) < end:
            return None
        if length == 0:
            stream.reader = self.after
            return [Found(end, "http", "body", "last chunk")]
        chunk = bytes(stream.buffer[line + 2 : line + 2 + length])
        return [Found(end, "http", "body", f"chunk {quoted(chunk)}", content=chunk)]


def _as_body(stream: Stream) -> list[Found]:
    body = bytes(stream.buffer)
    return [Found(len(body), "http", "body", quoted(body), content=body)]


def _as_bytes(stream: Stream) -> list[Found]:
    data = bytes(stream.buffer)
    return [Found(len(data), "bytes", "bytes", quoted(data), content=data)]


# --- WebSocket -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """A WebSocket frame and its place in a message of type `opcode`; `message` is the whole, at its last frame."""

    frame: websocket.Frame
    opcode: int
    message: bytes | None = None


class FrameReader:
    """Reads the frames of one peer, inflates them (RFC 7692), joins fragments, and hands whole messages to `stomp`."""

    def __init__(self, sender: Peer, extensions: str, stomp_reader: StompReader) -> None:
        self.sender: Peer = sender
        self.stomp_reader = stomp_reader
        self.deflates = "permessage-deflate" in extensions
        self.inflater = deflate.Inflater(forget=f"{sender}_no_context_takeover" in extensions)
        self.opcode = 0
        self.compressed = False
        self.contents: list[bytes] = []

    def __call__(self, stream: Stream) -> list[Found] | None:
        """Take one frame when it is whole, and the STOMP frames that are whole with it."""
        parsed, header = websocket.Frame.parse(stream.buffer), websocket.Header.parse(stream.buffer)
        if parsed is None or header is None:
            return None
        frame, size = parsed
        content = frame.payload if header.is_control else self._content(frame)
        message = b"".join(self.contents) if frame.fin and not header.is_control else None
        part = Part(frame, frame.opcode if header.is_control else self.opcode, message)
        kind = websocket.opcode_name(frame.opcode).lower()
        found = Found(size, "websocket", kind, self._summary(frame, header, content), content=content, value=part)
        return [found, *(self.stomp_reader.read(self.sender, message) if message is not None else ())]

    def _content(self, frame: websocket.Frame) -> bytes:
        """What a data frame carries, inflated."""
        if frame.opcode != websocket.Opcode.CONTINUATION:
            self.opcode, self.compressed, self.contents = frame.opcode, frame.rsv1 and self.deflates, []
        content = frame.payload
        if self.compressed:
            try:
                content = self.inflater.piece(frame.payload, MAX_INFLATED)
                content += self.inflater.end(MAX_INFLATED) if frame.fin else b""
            except WebSocketError:
                self.compressed = False
        self.contents.append(content)
        return content

    def _summary(self, frame: websocket.Frame, header: websocket.Header, content: bytes) -> str:
        notes = ["" if frame.fin else "more to come", "deflated" if frame.rsv1 and self.deflates else ""]
        side = websocket.Side(self.sender)
        notes += [f"!{problem}" for problem in header.problems(side, rsv1_allowed=self.deflates)]
        return "; ".join([_said(frame, content), *filter(None, notes)])


def _said(frame: websocket.Frame, content: bytes) -> str:
    if frame.opcode != websocket.Opcode.CLOSE:
        return quoted(content)
    try:
        return str(websocket.Close.parse(content))
    except WebSocketError as error:
        return f"!{error}"


# --- STOMP -----------------------------------------------------------------------------------------------------------


class StompReader:
    """Reads the STOMP frames in the messages of both peers of one connection."""

    def __init__(self, subprotocol: str) -> None:
        self.speaks_stomp = "stomp" in subprotocol.lower()
        limits = stomp.Limits(max_frame=MAX_INFLATED)
        self.parsers: dict[Peer, stomp.Parser] = {"client": stomp.Parser(limits), "server": stomp.Parser(limits)}

    def read(self, sender: Peer, message: bytes) -> Iterator[Found]:
        """Yield the frames a message brings to an end; what is no STOMP once, and then nothing more."""
        if not self.speaks_stomp and not FIRST_STOMP_LINE.match(message):
            return
        self.speaks_stomp = True  # also without a subprotocol: clients may leave it out
        try:
            for frame in self.parsers[sender].frames(message):
                yield self._found(frame)
        except StompError as error:
            self.speaks_stomp = False
            yield Found(0, "stomp", "broken", f"!{error}", data=message)

    def _found(self, frame: stomp.Frame | stomp.Heartbeat) -> Found:
        if isinstance(frame, stomp.Heartbeat):
            return Found(0, "stomp", "heart-beat", "", data=frame.value, value=frame)
        version = self.parsers["server"].version
        # a message may hold several frames; written anew, each has its own octets
        data = frame.serialize(version or "1.2")
        if frame.command == "CONNECTED":
            for parser in self.parsers.values():
                parser.version = frame.get("version") or "1.0"
        told = [f"{name}:{value}" for name, value in frame.headers if name in TOLD_STOMP_HEADERS]
        body = [quoted(frame.body)] if frame.body else []
        return Found(0, "stomp", frame.command, " ".join(told + body), data=data, content=frame.body, value=frame)


# --- Redis (RESP2 and RESP3) -----------------------------------------------------------------------------------------


class IncompleteError(Exception):
    """A value whose end has not come."""


@dataclass(frozen=True, slots=True)
class RedisError:
    """An error reply: its text."""

    text: str


@dataclass(frozen=True, slots=True)
class Push:
    """Data the server sends without having been asked (RESP3)."""

    items: list[object]


def parse_resp(data: bytes | bytearray, start: int = 0, depth: int = 0) -> tuple[object, int]:
    """Read the RESP value at `start`: it, and where the next begins.

    Raises `IncompleteError` while its end has not come, ValueError when it is none.
    Bulk strings come as bytes, simple ones as str, maps and attributes as lists of pairs, sets as lists.
    """
    line_end = data.find(b"\r\n", start)
    if line_end < 0:
        raise IncompleteError
    sign, text = bytes(data[start : start + 1]), data[start + 1 : line_end].decode()
    after = line_end + 2
    if sign in SIMPLE:
        return SIMPLE[sign](text), after
    length = int(text)
    if sign in (b"$", b"!", b"="):
        return _bulk(sign, data, after, length)
    if sign not in (b"*", b"~", b">", b"%", b"|") or depth > MAX_DEPTH:
        raise ValueError(f"not a RESP type, or too deep: {sign!r}")
    return _aggregate(sign, data, after, length, depth + 1)


MAX_DEPTH: Final = 32
SIMPLE: Final[dict[bytes, Callable[[str], object]]] = {
    b"+": str,
    b"-": RedisError,
    b":": int,
    b"(": int,
    b",": float,
    b"#": lambda text: text == "t",
    b"_": lambda text: None,
}


def _bulk(sign: bytes, data: bytes | bytearray, start: int, length: int) -> tuple[object, int]:
    if length < 0:
        return None, start
    end = start + length
    if len(data) < end + 2:
        raise IncompleteError
    content = bytes(data[start:end])
    if sign == b"!":
        return RedisError(content.decode(errors="replace")), end + 2
    return content[4:] if sign == b"=" else content, end + 2


def _aggregate(sign: bytes, data: bytes | bytearray, start: int, length: int, depth: int) -> tuple[object, int]:
    if length < 0:
        return None, start
    items: list[object] = []
    for _ in range(2 * length if sign in (b"%", b"|") else length):
        item, start = parse_resp(data, start, depth)
        items.append(item)
    if sign == b">":
        return Push(items), start
    if sign == b"%":
        return list(zip(items[::2], items[1::2], strict=True)), start
    # an attribute goes before the value it speaks of
    return parse_resp(data, start, depth) if sign == b"|" else (items, start)


def read_redis_command(stream: Stream) -> list[Found] | None:
    """Take one command: an array of bulk strings."""
    return _redis(stream, lambda value: (_command_name(value), shown(value, outer=True)))


def read_redis_reply(stream: Stream) -> list[Found] | None:
    """Take one reply, or one push."""
    return _redis(stream, lambda value: (_reply_kind(value), shown(value)))


def _redis(stream: Stream, name: Callable[[object], tuple[str, str]]) -> list[Found] | None:
    try:
        value, size = parse_resp(stream.buffer)
    except IncompleteError:
        return None
    except ValueError:
        stream.reader = _as_bytes
        return []
    kind, summary = name(value)
    return [Found(size, "redis", kind, shortened(summary, 200), value=value)]


def _command_name(value: object) -> str:
    name = value[0] if isinstance(value, list) and value else b"?"
    return name.decode(errors="replace").upper() if isinstance(name, bytes) else "?"


def _reply_kind(value: object) -> str:
    return "error" if isinstance(value, RedisError) else "push" if isinstance(value, Push) else "reply"


def shown(value: object, *, outer: bool = False) -> str:
    """A RESP value as redis-cli might print it on one line."""
    if isinstance(value, bytes):
        return quoted(value) if not re.fullmatch(rb"[!#-&(-~]+", value) else value.decode()
    if isinstance(value, RedisError):
        return value.text
    if isinstance(value, Push):
        return shown(value.items)
    if isinstance(value, tuple):
        return f"{shown(value[0])}: {shown(value[1])}"
    if isinstance(value, list):
        items = (" " if outer else ", ").join(shown(item) for item in value)
        return items if outer else f"[{items}]"
    return "(nil)" if value is None else str(value)


# --- Words -----------------------------------------------------------------------------------------------------------


def shortened(text: str, limit: int = 72) -> str:
    """The text, cut at `limit` characters."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def quoted(data: bytes, limit: int = 60) -> str:
    """Bytes as a person would read them: text in quotes, else hexadecimal; cut at `limit` characters, the size told."""
    if not data:
        return "empty"
    more = f" … {len(data)} bytes" if len(data) > limit else ""
    try:
        text = (data[: limit + 3] if more else data).decode(errors="ignore" if more else "strict")
    except UnicodeDecodeError:
        return data[: limit // 3].hex(" ") + (f" … {len(data)} bytes" if len(data) > limit // 3 else "")
    if not all(letter.isprintable() or letter in "\r\n\t\0" for letter in text):
        return data[: limit // 3].hex(" ") + (f" … {len(data)} bytes" if len(data) > limit // 3 else "")
    escaped = text[:limit].replace("\r", "\\r").replace("\n", "\\n").replace("\t", "\\t").replace("\0", "\\0")
    return f'"{escaped}"{more}'
