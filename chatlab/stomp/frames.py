r"""STOMP frames, versions 1.0, 1.1 and 1.2: bytes to frames and back.

    SEND                          the command
    destination:/topic/public     headers, one a line, `name:value`
    content-length:5
                                  a blank line
    hello^@                       the body and a closing NUL

The three versions differ, on the wire, in two rules alone:

    version   a line ends with   escapes in headers        where
    1.0       LF                 none
    1.1       LF                 \n \c \\                  not in CONNECT and CONNECTED
    1.2       LF or CR LF        \n \c \\ \r               not in CONNECT and CONNECTED

Nothing here knows what a frame means: which headers a SEND must have, and what follows from it, is `session.py`'s.
The clauses quoted are those of the STOMP 1.2 specification, https://stomp.github.io/stomp-specification-1.2.html,
unless another version is named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from chatlab.errors import LocalProtocolError, StompError

VERSIONS: Final = ("1.2", "1.1", "1.0")  # the best first

StompHeaders = tuple[tuple[str, str], ...]

NUL: Final = b"\0"
EOL: Final = b"\n"

# "The CONNECT and CONNECTED frames do not escape the carriage return, line feed or colon octets in order to remain
# backward compatible with STOMP 1.0."  STOMP is CONNECT by another name.
_NEVER_ESCAPED: Final = frozenset({"CONNECT", "STOMP", "CONNECTED"})

_SPECIAL: Final = b":\n\\\r\0"  # what has a meaning among headers, and so may need an escape

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
# A raw colon in a value breaks the 1.2 grammar, but many clients send it and it cannot be misread: it is taken as is.
_HEADER: Final = re.compile(r"([^:\n]+):(.*)")
_RECEIPT: Final = re.compile(rb"\nreceipt:([^\r\n\0]*)")
_CONTENT_LENGTH: Final = re.compile(r"[0-9]{1,18}")
# The head of nearly every frame there is: printable ASCII, no escape, no second colon in a line, LF line ends.
_PLAIN_HEAD: Final = re.compile(rb"[A-Z]++\n(?:[!-9;-[\]-~]++:[ -9;-[\]-~]*+\n)*+\n")
_EOLS: Final = re.compile(rb"(?:\r?\n)*")
_LF_ALONE: Final = frozenset({"1.0", "1.1"})


class Frame(NamedTuple):
    """One STOMP frame: its command, its headers in the order they came, its body in octets."""

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
        """Return the frame as octets; a body brings its `content-length` with it.

        LocalProtocolError is raised for a header that this version cannot carry.
        """
        command, headers, body = self
        told = None
        head = command + "\n"
        for name, value in headers:
            if not name:
                raise LocalProtocolError(f"header without a name, and the value {value!r}")
            if name == "content-length" and told is None:
                told = value
            head += f"{name}:{value}\n"  # in place: joining a list afterwards takes longer
        if told is None:
            if body:
                # "If the frame body contains NULL octets, the frame MUST include a content-length header."
                length = f"{len(body)}"
                headers = (*headers, ("content-length", length))
                head += f"content-length:{length}\n"
        elif told != f"{len(body)}" and not (_CONTENT_LENGTH.fullmatch(told) and int(told) == len(body)):
            raise LocalProtocolError(f"content-length is {told!r}, but the body has {len(body)} octets")
        data = head.encode()
        # Nearly always nothing needs an escape: then no octet is special but those just put between the headers.
        if len(data) - len(data.translate(None, _SPECIAL)) == 2 * len(headers) + 1:
            return data + EOL + body + NUL
        return b"%b\n%b\n%b\0" % (command.encode(), serialize_headers(headers, version, command), body)

    def __str__(self) -> str:
        head = "".join(f"{name}:{value}\n" for name, value in self.headers)
        return f"{self.command}\n{head}\n{self.body.decode(errors='backslashreplace')}^@"


class Heartbeat(Enum):
    """A line end between two frames: proof that the peer lives, and nothing else."""

    HEARTBEAT = b"\n"


HEARTBEAT: Final = Heartbeat.HEARTBEAT


# --- Headers ---


def escape(text: str, version: str = "1.2") -> str:
    r"""Return `text` as it stands in a header of that version: `a:b` becomes `a\cb` (1.1, 1.2)."""
    return text.translate(_ESCAPES[version])


def unescape(text: str, version: str = "1.2") -> str:
    r"""Return what a header's octets stand for: `a\cb` is `a:b` (1.1, 1.2). StompError for an escape nobody defined."""
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
    """Return the header lines as octets, each with its line feed; LocalProtocolError for what cannot be written."""
    if command in _NEVER_ESCAPED:
        version = "1.0"
    lines = []
    for name, value in headers:
        line = f"{escape(name, version)}:{escape(value, version)}\n"
        if not _can_be_written(name, value, version) or (command in _NEVER_ESCAPED and "\r" in line):
            raise LocalProtocolError(f"header {name!r} with the value {value!r} cannot be written in STOMP {version}")
        lines.append(line)
    return "".join(lines).encode()


def _can_be_written(name: str, value: str, version: str) -> bool:
    """Tell whether the version has a way to say it: 1.0 has no escapes, and nothing says NUL."""
    if not name or "\0" in name or "\0" in value:
        return False
    return version != "1.0" or not (":" in name or "\n" in name or "\n" in value)


# --- Many subscribers, one serialization ---


class MessageFrame:
    """A MESSAGE without its `subscription`, the one header that differs from subscriber to subscriber.

    It is serialized once for each version in use; `frame = subscription_prefix(...) + message.tail(...)` is a
    concatenation, and one frame serves every subscriber that gave its subscription the same id.
    """

    __slots__ = ("_tails", "body", "destination", "headers", "id")

    def __init__(self, destination: str, id: str, body: bytes, headers: Iterable[tuple[str, str]] = ()) -> None:
        self.destination = destination
        self.id = id
        self.body = body
        self.headers = user_headers(headers)
        self._tails: dict[str, bytes] = {}

    def tail(self, version: str = "1.2") -> bytes:
        """Return all that follows the subscription's own header lines."""
        tail = self._tails.get(version)
        if tail is None:
            own = (("message-id", self.id), ("destination", self.destination))
            try:
                frame = Frame("MESSAGE", own + self.headers, self.body).serialize(version)
            except LocalProtocolError:
                # A 1.2 publisher may say in its headers what a 1.0 subscriber has no way to be told: it gets the rest.
                users = tuple(header for header in self.headers if _can_be_written(*header, version))
                frame = Frame("MESSAGE", own + users, self.body).serialize(version)
            tail = self._tails[version] = frame.removeprefix(b"MESSAGE\n")
        return tail


def subscription_prefix(subscription: str | None, version: str = "1.2") -> bytes:
    """Return how every MESSAGE to that subscription begins (None: a STOMP 1.0 subscription without an id)."""
    if subscription is None:
        return b"MESSAGE\n"
    return b"MESSAGE\n" + serialize_headers((("subscription", subscription),), version)


# What a client may not say about a MESSAGE, because the server says it, and what concerns the SEND alone.
_NOT_THE_MESSAGES: Final = frozenset(
    {"destination", "message-id", "subscription", "ack", "redelivered", "content-length", "receipt", "transaction"}
)


def user_headers(headers: Iterable[tuple[str, str]]) -> StompHeaders:
    """Return the headers of a SEND that travel with its message, each once.

    "The user defined headers MUST be passed through in the MESSAGE frame"; what the server itself says there must not
    be overridden by them, since the first of two headers wins.
    """
    kept: dict[str, str] = {}
    for name, value in headers:
        if name not in _NOT_THE_MESSAGES:
            kept.setdefault(name, value)
    return tuple(kept.items())


# --- Parsing ---


@dataclass(frozen=True, slots=True)
class Limits:
    """What one peer may ask us to hold ("Size Limits"); `max_frame` and `max_header` are in octets."""

    max_frame: int = 64 * 1024  # a whole frame, from the command to the NUL
    max_headers: int = 100
    max_header: int = 8 * 1024  # one line, `name:value`, with its CR if it has one
    max_subscriptions: int = 256
    max_transactions: int = 16
    max_transaction: int = 1024 * 1024  # the octets of one open transaction
    max_transaction_frames: int = 1000
    max_held: int = 4 * 1024 * 1024  # the octets of all open transactions
    max_unacknowledged: int = 1000  # messages sent on one subscription, and not yet acknowledged
    max_unacknowledged_octets: int = 64 * 1024 * 1024  # of the same, on all subscriptions


class Parser:
    """Octets in, as they happen to be cut, frames out. One parser reads one direction of one connection.

    `version` is to be set once CONNECT and CONNECTED have settled it. Until then it is None: lines may end with CR LF,
    since a 1.2 client may begin so, and nothing is escaped, since only CONNECT and CONNECTED are due. After a
    StompError there is no telling where the next frame begins: the parser is of no further use.
    """

    def __init__(self, limits: Limits | None = None, version: str | None = None) -> None:
        self.limits = limits or Limits()
        self.version = version
        self._held = bytearray()  # the beginning of a frame whose end is still to come
        self._wanted = 0  # how many octets it has, where its content-length has told
        self._in_head = True
        self._next = 0  # where the frame last found ends

    def feed(self, data: bytes) -> list[Frame | Heartbeat]:
        """Take some octets and return the frames they complete; a fault raises StompError, earlier frames and all."""
        return list(self.frames(data))

    def frames(self, data: bytes) -> Iterator[Frame | Heartbeat]:
        """As `feed`, one frame after the other: those before a fault are had before StompError is raised."""
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
                start = _EOLS.match(data, start).end()  # type: ignore[union-attr]  # it matches nothing at all, too
                if start == size:
                    return
            frame = self._plain_frame(data, start) or self._frame(data, start)
            if frame is None:
                self._held += data[start:]
                return
            start = self._next
            yield frame

    def _may_complete(self, data: bytes) -> bool:
        """Tell whether it is worth looking at what is held again, now that `data` has been added to it."""
        if self._wanted:
            return len(self._held) >= self._wanted
        if NUL in data or (self._in_head and EOL in data):
            return True
        self._check_size(len(self._held))
        if self._in_head:
            self._check_head_size(self._held[self._held.rfind(EOL) + 1 :], 0)
        return False

    def _plain_frame(self, data: bytes, start: int) -> Frame | None:
        """Return the frame that begins at `start`, if it is whole and plain; else None, and `_frame` looks closer.

        It decides nothing that `_frame` would decide differently: it is the same, twice as fast.
        """
        match = _PLAIN_HEAD.match(data, start)
        if match is None:
            return None
        body_start = match.end()
        cells = data[start : body_start - 2].decode().replace("\n", ":").split(":")
        headers = tuple(zip(cells[1::2], cells[2::2]))  # noqa: B905  # as many names as values, by the pattern
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
        """Return the frame that begins at `start`, or None if its end is not here yet."""
        self._wanted, self._in_head = 0, False
        head_end = data.find(b"\n\n", start)
        body_start = head_end + 2
        if self.version not in _LF_ALONE:
            # "An end-of-line (EOL) consists of an OPTIONAL carriage return followed by a REQUIRED line feed."
            # The last LF of a blank line may be the first of the body's: the two that were found may begin there.
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
        """Return command, headers, and the body's length if a header tells it."""
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
        """Return where the closing NUL stands, or None if it is not here yet."""
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
        """Return the receipt that a frame asked for which could not be read, so that the ERROR can name it."""
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
