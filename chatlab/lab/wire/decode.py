"""Decode what a wire recorded: records in, events out.

A `WireRecord` is one observation of the wire: bytes from one side at one moment, or the opening, the end or a fault of
a connection. A `Conversation` reads the records of one connection and finds the events in them, layer by layer: HTTP
requests and responses, after a 101 WebSocket frames and in them STOMP frames, or Redis commands and replies.

The modules that the lessons build, `chatlab.websocket` and `chatlab.stomp`, read the frames. Redis's protocol, which no
other module here decodes, is read below (https://redis.io/docs/latest/develop/reference/protocol-spec/). Nothing is
refused: a frame that breaks a rule is still an event, which names the rule. Other protocols (TLS, AMQP, Kafka) are
shown as bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from chatlab.errors import StompError, WebSocketError
from chatlab.locale import _, ngettext
from chatlab.stomp import frames as stomp
from chatlab.websocket import deflate
from chatlab.websocket import frames as websocket

Peer = Literal["client", "server"]
Sender = Literal["client", "server", "wire"]

METHODS: Final = (b"GET ", b"POST ", b"PUT ", b"HEAD ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"TRACE ", b"CONNECT ")
MAX_HEAD: Final = 64 * 1024  # an HTTP head longer than this is shown as bytes
MAX_INFLATED: Final = 64 * 1024 * 1024
FIRST_STOMP_LINE: Final = re.compile(rb"(CONNECT|STOMP)\r?\n")
SHOWN_STOMP_HEADERS: Final = frozenset(
    {"accept-version", "version", "heart-beat", "destination", "id", "subscription", "message-id", "receipt"}
    | {"receipt-id", "ack", "transaction", "message"}
)


@dataclass(slots=True)
class WireRecord:
    """An observation at `time` (seconds since the trace began): `data` from a peer, or a `note` ("open", "FIN", …).

    `ends`, which matter when `note` is "open", are the names of the two peers of this connection. `offset` is the
    position of `data` in its sender's stream. `went` of its bytes have been passed on, the last of them at `passed`;
    bytes that a fault holds back or loses are not counted.
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
        """Note that `count` more bytes have left the wire at `time`."""
        self.went += count
        self.passed = time


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened: a request, a frame, a command, a reply, a connection opened or broken, a fault.

    `source` and `target` are the names of the peers, by default "client" and "server". `layer` is "tcp", "http",
    "websocket", "stomp", "redis", "bytes" or "fault"; `kind` is the type within it: "request", "text", "CONNECT",
    "XADD", "FIN". Its first byte came at `time`, its last at `until`; it takes the bytes from `offset` to `end` of its
    sender's stream. `data` holds the octets of its layer, `content` their payload (unmasked, inflated), `value` the
    object they were decoded to.
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
        """The time at which the wire had passed all of it on; None until then, and for ever if it was lost."""
        if self.record is None or self.record.went < self.end - self.record.offset:
            return None
        return self.record.passed

    @property
    def size(self) -> int:
        """The number of octets it takes on the wire."""
        return self.end - self.offset


@dataclass(frozen=True, slots=True)
class Decoded:
    """The first `size` bytes of a stream, as a reader decoded them.

    With `size` 0 it is carried by the event before it, and `data` holds the octets of its layer.
    """

    size: int
    layer: str
    kind: str
    summary: str
    data: bytes = b""
    content: bytes = b""
    value: object = None


Reader = Callable[["Stream"], list[Decoded] | None]


class Stream:
    """The bytes of one peer that no event has taken yet, and the records that brought them."""

    def __init__(self, reader: Reader, name: Peer) -> None:
        self.reader = reader
        self.name: Peer = name
        self.buffer = bytearray()
        self.offset = 0  # of the buffer's first byte, in the peer's stream
        self.records: list[WireRecord] = []

    def append(self, record: WireRecord) -> None:
        """Add the bytes of a record."""
        self.buffer += record.data
        self.records.append(record)

    def take(self, size: int) -> tuple[bytes, WireRecord, WireRecord]:
        """Remove `size` bytes; return them with the records of the first and the last of them."""
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
    """The records of one connection, read in order; `numbers` counts the events of the whole trace."""

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
        """Yield the events that this record completes."""
        if record.sender == "wire" or not record.data:
            yield from self._note_event(record)
            return
        stream = self.streams[record.sender]
        stream.append(record)
        while stream.buffer:
            found = stream.reader(stream)
            if found is None:
                return
            yield from self._events(stream, found)

    def _note_event(self, record: WireRecord) -> Iterator[Event]:
        if record.sender != "wire" and record.note in ("FIN", "RST"):
            yield from self._unfinished(self.streams[record.sender])
        if record.note == "open":
            self.ends = record.ends
        layer = "fault" if record.sender == "wire" else "tcp"
        yield self._event(record, record, Decoded(0, layer, record.note, ""), record.offset, record.offset)

    def _unfinished(self, stream: Stream) -> Iterator[Event]:
        """Yield the rest of a stream that ends in the middle of a message or frame."""
        if stream.buffer:
            size = len(stream.buffer)
            summary = ngettext("{count} byte of something longer", "{count} bytes of something longer", size)
            yield from self._events(stream, [Decoded(size, "bytes", "unfinished", summary.format(count=size))])

    def _events(self, stream: Stream, found: list[Decoded]) -> Iterator[Event]:
        offset, first, last = stream.offset, stream.records[0], stream.records[0]
        for part in found:
            if part.size:
                offset = stream.offset
                data, first, last = stream.take(part.size)
                part = replace(part, data=data)
            yield self._event(first, last, part, offset, stream.offset)

    def _event(self, first: WireRecord, last: WireRecord, found: Decoded, offset: int, end: int) -> Event:
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

    # -- detecting the protocol

    def _first_bytes(self, stream: Stream) -> list[Decoded] | None:
        """Detect the protocol from the client's first bytes: in all protocols known here the client speaks first."""
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

    def _request(self, stream: Stream) -> list[Decoded] | None:
        head = read_head(stream)
        if head is None:
            return self._incomplete_head(stream)
        self.methods.append(head.start.partition(" ")[0])
        protocol = head.get("Upgrade")
        upgrade = _("{request}, asks to upgrade to {protocol}").format(request=head.start, protocol=protocol)
        self._expect_body(stream, head, self._request, until_close=False)
        return [Decoded(head.size, "http", "request", upgrade if protocol else head.start, value=head)]

    def _response(self, stream: Stream) -> list[Decoded] | None:
        head = read_head(stream)
        if head is None:
            return self._incomplete_head(stream)
        status = head.start.split(" ")[1] if " " in head.start else ""
        method = self.methods.pop(0) if self.methods and not (status.startswith("1") and status != "101") else ""
        if status == "101" and head.get("Upgrade").lower() == "websocket":
            self._switch_to_websocket(head)
        elif method != "HEAD" and status not in ("204", "304") and not status.startswith("1"):
            self._expect_body(stream, head, self._response, until_close=True)
        return [Decoded(head.size, "http", "response", head.start, value=head)]

    def _incomplete_head(self, stream: Stream) -> list[Decoded] | None:
        if len(stream.buffer) <= MAX_HEAD:
            return None
        stream.reader = _as_bytes
        return []

    def _expect_body(self, stream: Stream, head: Head, after: Reader, *, until_close: bool) -> None:
        """Follow RFC 9112, section 6.3: chunked, else by length, else (a response only) until the connection closes."""
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
    """The start line and the headers of an HTTP message, and their size in octets (RFC 9112)."""

    start: str
    headers: tuple[tuple[str, str], ...]
    size: int

    def get(self, name: str) -> str:
        """Return all values of a header, joined as RFC 9110, section 5.3 allows; "" if there are none."""
        return ", ".join(value for key, value in self.headers if key.lower() == name.lower())


def read_head(stream: Stream) -> Head | None:
    """Return the HTTP head at the start of a stream; None until its empty line has come."""
    end = stream.buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    start, *lines = stream.buffer[:end].decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return Head(start, tuple((name.strip(), value.strip()) for name, __, value in pairs), end + 4)


@dataclass
class PlainBody:
    """A reader of a body of `length` octets (RFC 9112, section 6.2); `after` reads what follows."""

    length: int
    after: Reader

    def __call__(self, stream: Stream) -> list[Decoded] | None:
        """Take the body when it is complete."""
        if len(stream.buffer) < self.length:
            return None
        stream.reader = self.after
        body = bytes(stream.buffer[: self.length])
        return [Decoded(self.length, "http", "body", quoted(body), content=body)]


@dataclass
class ChunkedBody:
    """A reader of chunks (RFC 9112, section 7.1), one event each, up to the chunk of length 0; `after` reads on."""

    after: Reader

    def __call__(self, stream: Stream) -> list[Decoded] | None:
        """Take one chunk when it is complete."""
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
            return [Decoded(end, "http", "body", _("last chunk"))]
        chunk = bytes(stream.buffer[line + 2 : line + 2 + length])
        summary = _("chunk {content}").format(content=quoted(chunk))
        return [Decoded(end, "http", "body", summary, content=chunk)]


def _as_body(stream: Stream) -> list[Decoded]:
    body = bytes(stream.buffer)
    return [Decoded(len(body), "http", "body", quoted(body), content=body)]


def _as_bytes(stream: Stream) -> list[Decoded]:
    data = bytes(stream.buffer)
    return [Decoded(len(data), "bytes", "bytes", quoted(data), content=data)]


# --- WebSocket -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """A WebSocket frame of a message of type `opcode`; the last frame has the whole `message`."""

    frame: websocket.Frame
    opcode: int
    message: bytes | None = None


class FrameReader:
    """A reader of one peer's frames: it inflates them (RFC 7692), joins fragments, and passes messages to STOMP."""

    def __init__(self, sender: Peer, extensions: str, stomp_reader: StompReader) -> None:
        self.sender: Peer = sender
        self.stomp_reader = stomp_reader
        self.deflates = "permessage-deflate" in extensions
        self.inflater = deflate.Inflater(forget=f"{sender}_no_context_takeover" in extensions)
        self.opcode = 0
        self.compressed = False
        self.contents: list[bytes] = []

    def __call__(self, stream: Stream) -> list[Decoded] | None:
        """Take one frame when it is complete, and the STOMP frames that it completes."""
        parsed, header = websocket.Frame.parse(stream.buffer), websocket.Header.parse(stream.buffer)
        if parsed is None or header is None:
            return None
        frame, size = parsed
        content = frame.payload if header.is_control else self._content(frame)
        message = b"".join(self.contents) if frame.fin and not header.is_control else None
        part = Part(frame, frame.opcode if header.is_control else self.opcode, message)
        kind = websocket.opcode_name(frame.opcode).lower()
        found = Decoded(size, "websocket", kind, self._summary(frame, header, content), content=content, value=part)
        return [found, *(self.stomp_reader.read(self.sender, message) if message is not None else ())]

    def _content(self, frame: websocket.Frame) -> bytes:
        """Return the payload of a data frame, inflated."""
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
        notes = ["" if frame.fin else _("more to come"), _("deflated") if frame.rsv1 and self.deflates else ""]
        side = websocket.Side(self.sender)
        notes += [f"!{problem}" for problem in header.problems(side, rsv1_allowed=self.deflates)]
        return "; ".join([_payload(frame, content), *filter(None, notes)])


def _payload(frame: websocket.Frame, content: bytes) -> str:
    if frame.opcode != websocket.Opcode.CLOSE:
        return quoted(content)
    try:
        return str(websocket.Close.parse(content))
    except WebSocketError as error:
        return f"!{error}"


# --- STOMP -----------------------------------------------------------------------------------------------------------


class StompReader:
    """A reader of the STOMP frames in the messages of both peers of one connection."""

    def __init__(self, subprotocol: str) -> None:
        self.speaks_stomp = "stomp" in subprotocol.lower()
        limits = stomp.Limits(max_frame=MAX_INFLATED)
        self.parsers: dict[Peer, stomp.Parser] = {"client": stomp.Parser(limits), "server": stomp.Parser(limits)}

    def read(self, sender: Peer, message: bytes) -> Iterator[Decoded]:
        """Yield the frames that a message completes; after a broken frame, report it once and yield nothing more."""
        if not self.speaks_stomp and not FIRST_STOMP_LINE.match(message):
            return
        self.speaks_stomp = True  # without a subprotocol too: clients may leave it out
        try:
            for frame in self.parsers[sender].frames(message):
                yield self._decoded(frame)
        except StompError as error:
            self.speaks_stomp = False
            yield Decoded(0, "stomp", "broken", f"!{error}", data=message)

    def _decoded(self, frame: stomp.Frame | stomp.Heartbeat) -> Decoded:
        if isinstance(frame, stomp.Heartbeat):
            return Decoded(0, "stomp", "heart-beat", "", data=frame.value, value=frame)
        version = self.parsers["server"].version
        # A message may hold several frames; serialized again, each has its own octets.
        data = frame.serialize(version or "1.2")
        if frame.command == "CONNECTED":
            for parser in self.parsers.values():
                parser.version = frame.get("version") or "1.0"
        shown_headers = [f"{name}:{value}" for name, value in frame.headers if name in SHOWN_STOMP_HEADERS]
        body = [quoted(frame.body)] if frame.body else []
        return Decoded(
            0, "stomp", frame.command, " ".join(shown_headers + body), data=data, content=frame.body, value=frame
        )


# --- Redis (RESP2 and RESP3) -----------------------------------------------------------------------------------------


class IncompleteError(Exception):
    """The end of a value has not come yet."""


@dataclass(frozen=True, slots=True)
class RedisError:
    """The text of an error reply."""

    text: str


@dataclass(frozen=True, slots=True)
class Push:
    """Data that the server sends without a request (RESP3)."""

    items: list[object]


def parse_resp(data: bytes | bytearray, start: int = 0, depth: int = 0) -> tuple[object, int]:
    """Return the RESP value at `start`, and the position of the next one.

    Raises `IncompleteError` until its end has come, ValueError if it is not RESP. Bulk strings are returned as bytes,
    simple strings as str, maps as lists of pairs, sets as lists; attributes are skipped.
    """
    line_end = data.find(b"\r\n", start)
    if line_end < 0:
        raise IncompleteError
    marker, text = bytes(data[start : start + 1]), data[start + 1 : line_end].decode()
    after = line_end + 2
    if marker in SIMPLE:
        return SIMPLE[marker](text), after
    length = int(text)
    if marker in (b"$", b"!", b"="):
        return _bulk(marker, data, after, length)
    if marker not in (b"*", b"~", b">", b"%", b"|") or depth > MAX_DEPTH:
        raise ValueError(f"not a RESP type, or too deep: {marker!r}")  # not shown: the stream becomes bytes
    return _aggregate(marker, data, after, length, depth + 1)


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


def _bulk(marker: bytes, data: bytes | bytearray, start: int, length: int) -> tuple[object, int]:
    if length < 0:
        return None, start
    end = start + length
    if len(data) < end + 2:
        raise IncompleteError
    content = bytes(data[start:end])
    if marker == b"!":
        return RedisError(content.decode(errors="replace")), end + 2
    return content[4:] if marker == b"=" else content, end + 2


def _aggregate(marker: bytes, data: bytes | bytearray, start: int, length: int, depth: int) -> tuple[object, int]:
    if length < 0:
        return None, start
    items: list[object] = []
    for __ in range(2 * length if marker in (b"%", b"|") else length):
        item, start = parse_resp(data, start, depth)
        items.append(item)
    if marker == b">":
        return Push(items), start
    if marker == b"%":
        return list(zip(items[::2], items[1::2], strict=True)), start
    # an attribute precedes the value it describes
    return parse_resp(data, start, depth) if marker == b"|" else (items, start)


def read_redis_command(stream: Stream) -> list[Decoded] | None:
    """Take one command: an array of bulk strings."""
    return _redis(stream, lambda value: (_command_name(value), shown(value, outer=True)))


def read_redis_reply(stream: Stream) -> list[Decoded] | None:
    """Take one reply, or one push."""
    return _redis(stream, lambda value: (_reply_kind(value), shown(value)))


def _redis(stream: Stream, name: Callable[[object], tuple[str, str]]) -> list[Decoded] | None:
    try:
        value, size = parse_resp(stream.buffer)
    except IncompleteError:
        return None
    except ValueError:
        stream.reader = _as_bytes
        return []
    kind, summary = name(value)
    return [Decoded(size, "redis", kind, shortened(summary, 200), value=value)]


def _command_name(value: object) -> str:
    name = value[0] if isinstance(value, list) and value else b"?"
    return name.decode(errors="replace").upper() if isinstance(name, bytes) else "?"


def _reply_kind(value: object) -> str:
    return "error" if isinstance(value, RedisError) else "push" if isinstance(value, Push) else "reply"


def shown(value: object, *, outer: bool = False) -> str:
    """Return a RESP value on one line, much as redis-cli prints it."""
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


# --- Text -----------------------------------------------------------------------------------------------------------


def shortened(text: str, limit: int = 72) -> str:
    """Return the text, cut at `limit` characters."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def quoted(data: bytes, limit: int = 60) -> str:
    """Return bytes in legible form: text in quotes, else hexadecimal; cut at `limit` characters, with the size."""
    if not data:
        return _("empty")
    cut = len(data) > limit
    try:
        text = (data[: limit + 3] if cut else data).decode(errors="ignore" if cut else "strict")
    except UnicodeDecodeError:
        return _hexadecimal(data, limit // 3)
    if not all(character.isprintable() or character in "\r\n\t\0" for character in text):
        return _hexadecimal(data, limit // 3)
    escaped = text[:limit].replace("\r", "\\r").replace("\n", "\\n").replace("\t", "\\t").replace("\0", "\\0")
    return _with_size(f'"{escaped}"', data) if cut else f'"{escaped}"'


def _hexadecimal(data: bytes, limit: int) -> str:
    octets = data[:limit].hex(" ")
    return _with_size(octets, data) if len(data) > limit else octets


def _with_size(start: str, data: bytes) -> str:
    return _("{start} … {count} bytes").format(start=start, count=len(data))
