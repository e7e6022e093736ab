r"""STOMP frames, versions 1.0, 1.1 and 1.2: parsing and serialization.

    SEND                          the command
    destination:/topic/public     headers, one per line: `name:value`
    content-length:5
                                  a blank line
    hello^@                       the body and a closing NUL

On the wire, the three versions differ in only two rules:

    version   a line ends with   escapes in headers        where
    1.0       LF                 none
    1.1       LF                 \n \c \\                  not in CONNECT and CONNECTED
    1.2       LF or CR LF        \n \c \\ \r               not in CONNECT and CONNECTED

Left out: the meaning of frames, such as the headers a SEND must have (`session.py`). Quotations are from the STOMP 1.2
specification, https://stomp.github.io/stomp-specification-1.2.html, unless another version is named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from chatlab.errors import LocalProtocolError, StompError

VERSIONS: Final = ("1.2", "1.1", "1.0")  # in order of preference

StompHeaders = tuple[tuple[str, str], ...]

NUL: Final = b"\0"
EOL: Final = b"\n"

# "The CONNECT and CONNECTED frames do not escape the carriage return, line feed or colon octets in order to remain
# backward compatible with STOMP 1.0."  STOMP is another name for CONNECT.
_NEVER_ESCAPED: Final = frozenset({"CONNECT", "STOMP", "CONNECTED"})

_SPECIAL: Final = b":\n\\\r\0"  # octets with a meaning in headers, which may need an escape

_ESCAPES: Final[dict[str, dict[int, str]]] = {
    "1.0": {},
    "1.1": {ord("\\"): r"\\", ord("\n"): r"\n", ord(":"): r"\c"},
    "1.2": {ord("\\"): r"\\", ord("\n"): r"\n", ord(":"): r"\c", ord("\r"): r"\r"},
}
_UNESCAPES: Final = {
    version: {escaped: chr(plain) for plain, escaped in table.items()} for version, table in _ESCAPES.items()
}
_ESCAPE_SEQUENCE: Final = re.compile(r"\\.?", re.DOTALL)

# One header line. "header-name = 1*<any OCTET except CR or LF or ":">": a line without name or colon does not match.
# A raw colon in a value violates the 1.2 grammar, but is accepted: many clients send it, and it is not ambiguous.
_HEADER: Final = re.compile(r"([^:\n]+):(.*)")
_RECEIPT: Final = re.compile(rb"\nreceipt:([^\r\n\0]*)")
_CONTENT_LENGTH: Final = re.compile(r"[0-9]{1,18}")
# The head of nearly every frame: printable ASCII, no escape, no second colon in a line, lines ending with LF.
_PLAIN_HEAD: Final = re.compile(rb"[A-Z]++\n(?:[!-9;-[\]-~]++:[ -9;-[\]-~]*+\n)*+\n")
_EOLS: Final = re.compile(rb"(?:\r?\n)*")
_LF_ALONE: Final = frozenset({"1.0", "1.1"})


class Frame(NamedTuple):
    """One STOMP frame: its command, its headers in order, and its body in octets."""

    command: str
    headers: StompHeaders = ()
    body: bytes = b""

    def get(self, name: str) -> str | None:
        """Return the header `name`, or None if the frame has none.

        "If a client or a server receives repeated frame header entries, only the first header entry SHOULD be used."
        """
        for key, value in self.headers:
            if key == name:
                return value
        return None

    def serialize(self, version: str = "1.2") -> bytes:
        """Return the frame as octets, with a `content-length` if it has a body.

        Raises LocalProtocolError for a header that this version cannot represent.
        """
        command, headers, body = self
        given_length = None
        head = command + "\n"
        for name, value in headers:
            if not name:
                raise LocalProtocolError(f"header without a name, and the value {value!r}")
            if name == "content-length" and given_length is None:
                given_length = value
            head += f"{name}:{value}\n"  # in place: joining a list afterwards is slower
        if given_length is None:
            if body:
                # "If the frame body contains NULL octets, the frame MUST include a content-length header."
                length = f"{len(body)}"
                headers = (*headers, ("content-length", length))
                head += f"content-length:{length}\n"
        elif given_length != f"{len(body)}" and not (
            _CONTENT_LENGTH.fullmatch(given_length) and int(given_length) == len(body)
        ):
            raise LocalProtocolError(f"content-length is {given_length!r}, but the body has {len(body)} octets")
        data = head.encode()
        # Usually nothing needs an escape: then the only special octets are the separators added above.
        if len(data) - len(data.translate(None, _SPECIAL)) == 2 * len(headers) + 1:
            return data + EOL + body + NUL
        return b"%b\n%b\n%b\0" % (command.encode(), serialize_headers(headers, version, command), body)

    def __str__(self) -> str:
        head = "".join(f"{name}:{value}\n" for name, value in self.headers)
        return f"{self.command}\n{head}\n{self.body.decode(errors='backslashreplace')}^@"


class Heartbeat(Enum):
    """An end-of-line between two frames, which shows that the peer is alive."""

    HEARTBEAT = b"\n"


HEARTBEAT: Final = Heartbeat.HEARTBEAT


# --- Headers ---


def escape(text: str, version: str = "1.2") -> str:
    r"""Return `text` escaped for a header of that version: `a:b` becomes `a\cb` (1.1, 1.2)."""
    return text.translate(_ESCAPES[version])


def unescape(text: str, version: str = "1.2") -> str:
    r"""Return a header's `text` unescaped: `a\cb` becomes `a:b` (1.1, 1.2). Raise StompError for undefined escapes."""
    if version == "1.0" or "\\" not in text:
        return text
    table = _UNESCAPES[version]

    def plain(match: re.Match[str]) -> str:
        try:
            return table[match[0]]
        except KeyError:
            # "Undefined escape sequences such as \t MUST be treated as a fatal protocol error."
            raise StompError(f"undefined escape sequence {match[0]} in a header (STOMP {version})") from None

    return _ESCAPE_SEQUENCE.sub(plain, text)


def serialize_headers(headers: Iterable[tuple[str, str]], version: str = "1.2", command: str = "") -> bytes:
    """Return the header lines as octets, each with its line feed. Raise LocalProtocolError if one cannot be written."""
    if command in _NEVER_ESCAPED:
        version = "1.0"
    lines = []
    for name, value in headers:
        line = _header_line(name, value, version)
        if command in _NEVER_ESCAPED and b"\r" in line:
            raise _cannot_be_written(name, value, version)
        lines.append(line)
    return b"".join(lines)


def _header_line(name: str, value: str, version: str) -> bytes:
    line = f"{name}:{value}\n".encode()
    if name and len(line) - len(line.translate(None, _SPECIAL)) == 2:
        return line  # the usual case: the only special octets are the separators
    if not _can_be_written(name, value, version):
        raise _cannot_be_written(name, value, version)
    return f"{escape(name, version)}:{escape(value, version)}\n".encode()


def _cannot_be_written(name: str, value: str, version: str) -> LocalProtocolError:
    return LocalProtocolError(f"header {name!r} with the value {value!r} cannot be written in STOMP {version}")


def _can_be_written(name: str, value: str, version: str) -> bool:
    """Tell whether the version can represent a header: 1.0 has no escapes, and no version can represent NUL."""
    if not name or "\0" in name or "\0" in value:
        return False
    return version != "1.0" or not (":" in name or "\n" in name or "\n" in value)


# --- Many subscribers, one serialization ---


class MessageHead:
    """The headers that the messages of a topic have in common: the destination, and those passed on with a message.

    They are serialized once for each version in use. Keep one head for all messages of a topic.
    """

    __slots__ = ("_lines", "destination", "headers")

    def __init__(self, destination: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        self.destination = destination
        self.headers = user_headers(headers)
        self._lines: dict[str, bytes] = {}

    def lines(self, version: str) -> bytes:
        """Return the header lines."""
        lines = self._lines.get(version)
        if lines is None:
            # A 1.2 publisher's headers may not be representable in 1.0: such subscribers get the other headers.
            users = (header for header in self.headers if _can_be_written(*header, version))
            lines = self._lines[version] = serialize_headers((("destination", self.destination), *users), version)
        return lines


class MessageFrame:
    """A MESSAGE without `subscription`, the only header that differs between subscribers.

    It is serialized once for each version in use. `frame = subscription_prefix(...) + message.tail(...)` is just a
    concatenation, and one frame serves all subscribers whose subscriptions have the same id.
    """

    __slots__ = ("_tails", "body", "head", "id")

    def __init__(
        self,
        destination: str,
        id: str,
        body: bytes,
        headers: Iterable[tuple[str, str]] = (),
        *,
        head: MessageHead | None = None,  # of this destination and these headers, if it is shared
    ) -> None:
        self.head = head or MessageHead(destination, headers)
        self.id = id
        self.body = body
        self._tails: dict[str, bytes] = {}

    @property
    def destination(self) -> str:
        """The destination as its subscribers know it."""
        return self.head.destination

    @property
    def headers(self) -> StompHeaders:
        """The headers passed on with it."""
        return self.head.headers

    def tail(self, version: str = "1.2") -> bytes:
        """Return everything after the subscription's own header lines."""
        tail = self._tails.get(version)
        if tail is None:
            id, lines, body = _header_line("message-id", self.id, version), self.head.lines(version), self.body
            # "If the frame body contains NULL octets, the frame MUST include a content-length header."
            length = b"content-length:%d\n" % len(body) if body else b""
            tail = self._tails[version] = b"%b%b%b\n%b\0" % (id, lines, length, body)
        return tail


def subscription_prefix(subscription: str | None, version: str = "1.2") -> bytes:
    """Return the start of every MESSAGE to that subscription (None: a STOMP 1.0 subscription without an id)."""
    if subscription is None:
        return b"MESSAGE\n"
    return b"MESSAGE\n" + serialize_headers((("subscription", subscription),), version)


# Headers of a SEND that are not passed on: those that the server sets on a MESSAGE, and those that apply only to SEND.
_NOT_PASSED_ON: Final = frozenset(
    {"destination", "message-id", "subscription", "ack", "redelivered", "content-length", "receipt", "transaction"}
)


def user_headers(headers: Iterable[tuple[str, str]]) -> StompHeaders:
    """Return the headers of a SEND that are passed on with its message, each once.

    "The user defined headers MUST be passed through in the MESSAGE frame". They must not override the server's own
    headers, because the first of two headers with the same name wins.
    """
    kept: dict[str, str] = {}
    for name, value in headers:
        if name not in _NOT_PASSED_ON:
            kept.setdefault(name, value)
    return tuple(kept.items())


# --- Parsing ---


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits for one peer ("Size Limits"); `max_frame` and `max_header` are in octets."""

    max_frame: int = 64 * 1024  # a whole frame, from the command to the NUL
    max_headers: int = 100
    max_header: int = 8 * 1024  # one line, `name:value`, including a CR
    max_subscriptions: int = 256
    max_subscription_octets: int = 256 * 1024  # the octets of the headers of all subscriptions, which are kept
    max_transactions: int = 16
    max_transaction: int = 1024 * 1024  # the octets of one open transaction
    max_transaction_frames: int = 1000
    max_held: int = 4 * 1024 * 1024  # the octets of all open transactions
    max_unacknowledged: int = 1000  # unacknowledged messages on one subscription
    max_unacknowledged_octets: int = 64 * 1024 * 1024  # the octets of unacknowledged messages on all subscriptions


class Parser:
    """Parses octets, split anywhere, into frames. One parser reads one direction of one connection.

    Set `version` once CONNECT and CONNECTED have determined it. Until then it is None: lines may end with CR LF, as a
    1.2 client may send, and nothing is unescaped, because only CONNECT and CONNECTED are expected. After a StompError
    the parser is unusable, because the start of the next frame is unknown.
    """

    def __init__(self, limits: Limits | None = None, version: str | None = None) -> None:
        self.limits = limits or Limits()
        self.version = version
        self._held = bytearray()  # the start of an incomplete frame
        self._wanted = 0  # its size in octets, if its content-length is known
        self._in_head = True
        self._next = 0  # where the last parsed frame ends

    def feed(self, data: bytes) -> list[Frame | Heartbeat]:
        """Return the frames that `data` completes. An invalid frame raises StompError, and earlier frames are lost."""
        return list(self.frames(data))

    def frames(self, data: bytes) -> Iterator[Frame | Heartbeat]:
        """Yield the frames that `data` completes. An invalid frame raises StompError after the frames before it."""
        if self._held:
            self._held += data
            if not self._may_complete(data):
                return
            data = bytes(self._held)
            self._held.clear()
        start, size = 0, len(data)
        if data[:1] == b"\n" or data[:2] == b"\r\n":
            yield HEARTBEAT
        while start < size:
            # "The NULL octet can be optionally followed by multiple EOLs."
            if data[start] in b"\r\n":
                start = _EOLS.match(data, start).end()  # type: ignore[union-attr]  # always matches
                if start == size:
                    return
            frame = self._plain_frame(data, start) or self._frame(data, start)
            if frame is None:
                self._held += data[start:]
                return
            start = self._next
            yield frame

    def _may_complete(self, data: bytes) -> bool:
        """Tell whether `data`, just added to what is held, may complete a frame. If not, enforce the limits."""
        if self._wanted:
            return len(self._held) >= self._wanted
        if NUL in data or (self._in_head and EOL in data):
            return True
        self._check_size(len(self._held))
        if self._in_head:
            self._check_head_size(self._held[self._held.rfind(EOL) + 1 :], 0)
        return False

    def _plain_frame(self, data: bytes, start: int) -> Frame | None:
        """Return the frame at `start` if it is complete and plain, else None, which leaves it to `_frame`.

        For such frames the result is the same as that of `_frame`, in half the time.
        """
        match = _PLAIN_HEAD.match(data, start)
        if match is None:
            return None
        body_start = match.end()
        cells = data[start : body_start - 2].decode().replace("\n", ":").split(":")
        headers = tuple(zip(cells[1::2], cells[2::2]))  # noqa: B905  # the pattern ensures equal lengths
        for name, value in headers:
            if name == "content-length":
                if not value.isdigit() or len(value) > 9:
                    return None
                end = body_start + int(value)
                break
        else:
            end = data.find(NUL, body_start)
        limits = self.limits
        if (
            not body_start <= end < len(data)
            or data[end] != 0
            or end - start >= limits.max_frame
            or len(headers) > limits.max_headers
            or body_start - start > limits.max_header
        ):
            return None
        self._next = end + 1
        return Frame(cells[0], headers, data[body_start:end])

    def _frame(self, data: bytes, start: int) -> Frame | None:
        """Return the frame at `start`, or None if it is incomplete."""
        self._wanted, self._in_head = 0, False
        head_end = data.find(b"\n\n", start)
        body_start = head_end + 2
        if self.version not in _LF_ALONE:
            # "An end-of-line (EOL) consists of an OPTIONAL carriage return followed by a REQUIRED line feed."
            # The "\n\n" found above may be the end of a CR LF blank line followed by an LF that starts the body.
            crlf = data.find(b"\n\r\n", start, head_end + 1 if head_end >= 0 else len(data))
            if crlf >= 0:
                head_end, body_start = crlf, crlf + 3
        if head_end < 0:
            self._in_head = True
            self._check_unfinished_head(data[start:])
            return None
        head = data[start:head_end]
        try:
            command, headers, length = self._parse_head(head)
            end = self._body_end(data, start, body_start, length)
        except StompError as error:
            error.receipt_id = self._receipt_asked_for(head)
            raise
        if end is None:
            return None
        self._next = end + 1
        return Frame(command, headers, data[body_start:end])

    def _parse_head(self, head: bytes) -> tuple[str, StompHeaders, int | None]:
        """Return the command, the headers, and the body's length if a header gives it."""
        self._check_head_size(head, head.count(EOL))
        try:
            text = head.decode()
        except UnicodeDecodeError as error:
            raise StompError(f"headers are not UTF-8: {error.reason} at octet {error.start}") from None
        if "\0" in text:
            raise StompError(f"NUL in the headers of {text.partition(EOL.decode())[0]!r}: no blank line before it")
        if "\r" in text and self.version not in _LF_ALONE:
            text = text.removesuffix("\r").replace("\r\n", "\n")
            if "\r" in text:
                raise StompError("carriage return inside a header line: in STOMP 1.2 it is written \\r")
        command, _, lines = text.partition("\n")
        headers: StompHeaders = tuple(_HEADER.findall(lines))
        if lines and len(headers) != lines.count("\n") + 1:
            bad = next(line for line in lines.split("\n") if not _HEADER.match(line))
            raise StompError(f"header line {bad!r} is not of the form name:value")
        if "\\" in lines and self.version is not None and command not in _NEVER_ESCAPED:
            headers = tuple([(unescape(name, self.version), unescape(value, self.version)) for name, value in headers])
        return command, headers, _content_length(headers) if "content-length:" in lines else None

    def _body_end(self, data: bytes, start: int, body_start: int, length: int | None) -> int | None:
        """Return the position of the closing NUL, or None if it has not arrived."""
        if length is None:
            end = data.find(NUL, body_start)
            self._check_size((end + 1 if end >= 0 else len(data)) - start)
            return end if end >= 0 else None
        # "This number of octets MUST be read, regardless of whether or not there are NULL octets in the body."
        end = body_start + length
        self._check_size(end + 1 - start)
        if end >= len(data):
            self._wanted = end + 1 - start
            return None
        if data[end] != 0:
            # "The frame still needs to be terminated with a NULL octet."
            raise StompError(f"no NUL after the {length} octets that content-length announced")
        return end

    # "If these limits are exceeded the server SHOULD send the client an ERROR frame and then close the connection."

    def _check_size(self, size: int) -> None:
        if size > self.limits.max_frame:
            raise StompError(f"frame of {size} octets or more: at most {self.limits.max_frame} are allowed")

    def _check_head_size(self, head: bytes | bytearray, headers: int) -> None:
        if headers > self.limits.max_headers:
            raise StompError(f"frame with {headers} headers or more: at most {self.limits.max_headers} are allowed")
        longest = len(head) if len(head) <= self.limits.max_header else max(map(len, head.split(EOL)))
        if longest > self.limits.max_header:
            raise StompError(f"header line of {longest} octets or more: at most {self.limits.max_header} are allowed")

    def _check_unfinished_head(self, head: bytes) -> None:
        if NUL in head:
            raise StompError("NUL in the headers: no blank line before it", receipt_id=self._receipt_asked_for(head))
        self._check_size(len(head))
        self._check_head_size(head, head.count(EOL) - 1)  # whole lines, less the command's

    def _receipt_asked_for(self, head: bytes) -> str | None:
        """Return the receipt requested by an unparsable frame, so that the ERROR can name it."""
        match = _RECEIPT.search(head)
        if match is None:
            return None
        try:
            return unescape(match[1].decode(), self.version or "1.0")
        except (UnicodeDecodeError, StompError):
            return None


def _content_length(headers: StompHeaders) -> int | None:
    for name, value in headers:
        if name == "content-length":
            if not _CONTENT_LENGTH.fullmatch(value):
                raise StompError(f"content-length {value!r} is not a number of octets")
            return int(value)
    return None
