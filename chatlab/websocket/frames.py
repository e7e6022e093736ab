"""WebSocket frames (RFC 6455, section 5): bytes to `Frame` and back, the mask, the close codes.

    0                   1                   2                   3
    0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
   +-+-+-+-+-------+-+-------------+-------------------------------+
   |F|R|R|R| opcode|M| Payload len |    Extended payload length    |
   |I|S|S|S|  (4)  |A|     (7)     |         (16 or 64 bits)       |
   |N|V|V|V|       |S|             |                               |
   | |1|2|3|       |K|             |                               |
   +-+-+-+-+-------+-+-------------+-------------------------------+
   |        Masking key (0 or 4 octets)        |  Payload data ... |
   +-------------------------------------------+-------------------+

`parse` and `serialize` are inverses and check nothing: they handle frames of both sides, even invalid ones, so that
captured traffic can be decoded. `Header.check` decides whether a frame is allowed.

Left out: the order of frames (connection.py) and the contents of compressed payloads (deflate.py).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, IntEnum

from chatlab.errors import LocalProtocolError, WebSocketError

Bytes = bytes | bytearray | memoryview
MAX_CONTROL_PAYLOAD = 125


class Side(Enum):
    """One of the two ends. They differ in the opening handshake, in masking and in which one closes TCP first."""

    CLIENT = "client"
    SERVER = "server"

    @property
    def peer(self) -> Side:
        """The opposite side."""
        return Side.SERVER if self is Side.CLIENT else Side.CLIENT


class Opcode(IntEnum):
    """A frame's type (5.2). From 8 up it is a control frame; 3 to 7 and 11 to 15 are reserved."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


OPCODES = {int(opcode) for opcode in Opcode}


def opcode_name(opcode: int) -> str:
    """Return a name for any four bits: "TEXT" for 1, "RESERVED 3" for 3."""
    return Opcode(opcode).name if opcode in OPCODES else f"RESERVED {opcode}"


# --- Close codes (7.4.1, and the IANA registry it created) -----------------------------------------------------------


class CloseCode(IntEnum):
    """The registered close codes. 1005, 1006 and 1015 are for local use: no frame ever carries them."""

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS_RECEIVED = 1005
    ABNORMAL_CLOSURE = 1006
    INVALID_PAYLOAD = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    TLS_HANDSHAKE = 1015


CLOSE_CODES: dict[int, str] = {
    1000: "the purpose of the connection has been fulfilled",
    1001: "the endpoint is going away: a server stops, a page is left",
    1002: "the peer broke the protocol",
    1003: "this type of data cannot be accepted",
    1004: "reserved",
    1005: "no code was in the Close frame (never sent)",
    1006: "no Close frame came at all (never sent)",
    1007: "the data did not fit the message's type: text that is not UTF-8",
    1008: "the message broke a policy of the receiver",
    1009: "the message is too big to process",
    1010: "the server did not agree to an extension the client needs",
    1011: "the server met a condition it did not expect",
    1012: "the service is restarting",
    1013: "the service is overloaded: try again later",
    1014: "a gateway got an invalid answer from the server behind it",
    1015: "the TLS handshake failed (never sent)",
}


def close_code_allowed(code: int) -> bool:
    """Tell whether a Close frame may carry `code` (7.4.1 and 7.4.2).

    1004 to 1006 and 1015 are reserved, 1016 to 2999 not assigned; 3000 to 3999 are for libraries and frameworks,
    4000 to 4999 for private use. 1012 to 1014 were added to the registry of 7.4.1 after the RFC.
    """
    return code in (1000, 1001, 1002, 1003) or 1007 <= code <= 1014 or 3000 <= code <= 4999


def close_code_meaning(code: int) -> str:
    """Return a phrase for any code, specific to the code or to its range (7.4.2)."""
    if code in CLOSE_CODES:
        return CLOSE_CODES[code]
    if 3000 <= code <= 3999:
        return "registered by a library or framework"
    if 4000 <= code <= 4999:
        return "private use, agreed between the two applications"
    return "not a close code"


@dataclass(frozen=True, slots=True)
class Close:
    """The body of a Close frame (5.5.1): nothing, or two octets of code and a reason in UTF-8."""

    code: int | None = None
    reason: str = ""

    @classmethod
    def parse(cls, payload: bytes) -> Close:
        """Parse a Close frame's payload; raise `WebSocketError` if it is invalid."""
        if not payload:
            return cls()
        if len(payload) == 1:
            # 5.5.1: "the first two bytes of the body MUST be a 2-byte unsigned integer"
            raise WebSocketError("close frame with a body of 1 byte; its code needs 2")
        code = int.from_bytes(payload[:2])
        if not close_code_allowed(code):
            raise WebSocketError(f"close code {code} must not be sent: {close_code_meaning(code)}")
        try:
            return cls(code, payload[2:].decode())
        except UnicodeDecodeError as error:
            # 5.5.1 says UTF-8; 8.1: "MUST _Fail the WebSocket Connection_" when it is not
            raise WebSocketError(f"close reason is not UTF-8: {error}", CloseCode.INVALID_PAYLOAD) from error

    def serialize(self) -> bytes:
        """Return the payload. Raise `LocalProtocolError` if the code may not be sent or the reason is too long."""
        if self.code is None:
            if self.reason:
                raise LocalProtocolError(f"a close reason needs a code: {self.reason!r}")
            return b""
        if not close_code_allowed(self.code):
            raise LocalProtocolError(f"close code {self.code} must not be sent: {close_code_meaning(self.code)}")
        reason = self.reason.encode()
        if len(reason) > MAX_CONTROL_PAYLOAD - 2:
            raise LocalProtocolError(f"close reason of {len(reason)} bytes; at most 123 fit into a control frame")
        return self.code.to_bytes(2) + reason

    def __str__(self) -> str:
        if self.code is None:
            return "without a code"
        reason = f" {self.reason!r}" if self.reason else ""
        return f"{self.code} ({close_code_meaning(self.code)}){reason}"


# --- The mask (5.3) --------------------------------------------------------------------------------------------------


def new_mask() -> bytes:
    """Return a fresh masking key (5.3: "MUST be derived from a strong source of entropy")."""
    return os.urandom(4)


def apply_mask(data: Bytes, mask: bytes, offset: int = 0) -> bytes:
    """XOR octet i of `data` with octet (i + offset) mod 4 of `mask`; doing it twice gives `data` back (5.3).

    A loop over the octets takes over 60 ms per MiB. One XOR of two integers as long as the data takes 3 ms.
    """
    length = len(data)
    if turn := offset % 4:
        mask = mask[turn:] + mask[:turn]
    key = (mask * (length // 4 + 1))[:length]
    return (int.from_bytes(data, "little") ^ int.from_bytes(key, "little")).to_bytes(length, "little")


# --- Header and frame (5.2) ------------------------------------------------------------------------------------------


def extended_octets(length: int) -> int:
    """Return the number of octets a payload length needs in addition to its 7 bits: 0, 2 or 8."""
    if length <= 125:
        return 0
    return 2 if length <= 0xFFFF else 8


@dataclass(frozen=True, slots=True)
class Header:
    """A frame without its payload. `extended` is the size of its extended payload length: 0, 2 or 8 octets."""

    opcode: int
    length: int
    fin: bool = True
    rsv1: bool = False
    rsv2: bool = False
    rsv3: bool = False
    mask: bytes | None = None
    extended: int = 0

    @property
    def size(self) -> int:
        """The size of the header itself in octets, 2 to 14."""
        return 2 + self.extended + (4 if self.mask is not None else 0)

    @property
    def is_control(self) -> bool:
        """Whether this is a control frame (5.5: "the most significant bit of the opcode is 1")."""
        return self.opcode >= 8

    @classmethod
    def parse(cls, data: Bytes) -> Header | None:
        """Parse the header at the start of `data`. Return None if it is incomplete. Invalid headers are accepted."""
        if len(data) < 2:
            return None
        first, second = data[0], data[1]
        short = second & 0x7F
        extended = 8 if short == 127 else 2 if short == 126 else 0
        masked = second >= 0x80
        if len(data) < 2 + extended + 4 * masked:
            return None
        after = 2 + extended
        return cls(
            opcode=first & 0x0F,
            length=int.from_bytes(data[2:after]) if extended else short,
            fin=first >= 0x80,
            rsv1=bool(first & 0x40),
            rsv2=bool(first & 0x20),
            rsv3=bool(first & 0x10),
            mask=bytes(data[after : after + 4]) if masked else None,
            extended=extended,
        )

    def serialize(self) -> bytes:
        """Return the header as octets, in network byte order."""
        first = self.fin << 7 | self.rsv1 << 6 | self.rsv2 << 5 | self.rsv3 << 4 | self.opcode
        masked = 0x80 if self.mask is not None else 0
        if self.extended == 0:
            head = struct.pack("!BB", first, masked | self.length)
        elif self.extended == 2:
            head = struct.pack("!BBH", first, masked | 126, self.length)
        else:
            head = struct.pack("!BBQ", first, masked | 127, self.length)
        return head + (self.mask or b"")

    def check(self, sender: Side, *, rsv1_allowed: bool = False) -> None:
        """Raise `WebSocketError` with the first rule this header, sent by `sender`, breaks.

        `rsv1_allowed`: permessage-deflate was negotiated, which gives that bit a meaning (RFC 7692, section 6).
        """
        for problem in self.problems(sender, rsv1_allowed=rsv1_allowed):
            raise WebSocketError(problem)

    def problems(self, sender: Side | None = None, *, rsv1_allowed: bool = False) -> Iterator[str]:
        """Yield every rule of section 5 this header breaks. Masking is checked only if the sender is known."""
        name = opcode_name(self.opcode)
        if self.rsv2 or self.rsv3 or (self.rsv1 and not rsv1_allowed):
            # 5.2: "MUST be 0 unless an extension is negotiated that defines meanings for non-zero values"
            yield f"reserved bits {self.rsv1:d}{self.rsv2:d}{self.rsv3:d} set without an extension that uses them"
        elif self.rsv1 and (self.is_control or self.opcode == Opcode.CONTINUATION):
            # RFC 7692, 6.1: only the first frame of a message may have the "Per-Message Compressed" bit
            yield f"reserved bit 1 set on a {name} frame; only the first frame of a message may have it"
        if self.opcode not in OPCODES:
            # 5.2: "If an unknown opcode is received, the receiving endpoint MUST _Fail the WebSocket Connection_"
            yield f"opcode {self.opcode} is reserved"
        if self.is_control and not self.fin:
            # 5.5: control frames "MUST NOT be fragmented"
            yield f"{name} frame is fragmented"
        if self.is_control and self.length > MAX_CONTROL_PAYLOAD:
            # 5.5: "All control frames MUST have a payload length of 125 bytes or less"
            yield f"{name} frame with a payload of {self.length} bytes; control frames carry 125 at most"
        if self.length >= 1 << 63:
            # 5.2: of the 64 bits "the most significant bit MUST be 0"
            yield f"payload length {self.length} has its most significant bit set"
        if self.extended != extended_octets(self.length):
            # 5.2: "the minimal number of bytes MUST be used to encode the length"
            yield f"payload length {self.length} is not in its shortest form: {self.extended} extra bytes"
        if sender is Side.CLIENT and self.mask is None:
            # 5.1: "The server MUST close the connection upon receiving a frame that is not masked"
            yield f"{name} frame from the client is not masked"
        if sender is Side.SERVER and self.mask is not None:
            # 5.1: "A client MUST close a connection if it detects a masked frame"
            yield f"{name} frame from the server is masked"


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame with its payload unmasked. `mask` is the key used on the wire, None for a server's frame."""

    opcode: int
    payload: bytes = b""
    fin: bool = True
    rsv1: bool = False
    rsv2: bool = False
    rsv3: bool = False
    mask: bytes | None = None

    @classmethod
    def parse(cls, data: Bytes) -> tuple[Frame, int] | None:
        """Return the frame at the start of `data` and its size in octets, or None if it is incomplete."""
        header = Header.parse(data)
        if header is None or len(data) < header.size + header.length:
            return None
        end = header.size + header.length
        payload = bytes(data[header.size : end])
        if header.mask is not None:
            payload = apply_mask(payload, header.mask)
        flags = (header.fin, header.rsv1, header.rsv2, header.rsv3)
        return cls(header.opcode, payload, *flags, header.mask), end

    def serialize(self) -> bytes:
        """Return the frame as octets, with the payload masked if there is a mask."""
        payload = self.payload if self.mask is None else apply_mask(self.payload, self.mask)
        return self.header.serialize() + payload

    @property
    def header(self) -> Header:
        """This frame's header, with its length in the shortest form."""
        length = len(self.payload)
        flags = (self.fin, self.rsv1, self.rsv2, self.rsv3)
        return Header(self.opcode, length, *flags, self.mask, extended_octets(length))

    def __str__(self) -> str:
        """Return the frame on one line: `TEXT "Hello" [5 bytes, fin, mask 37 fa 21 3d]`."""
        length = len(self.payload)
        notes = [f"{length} byte{'' if length == 1 else 's'}", "fin" if self.fin else "more to come"]
        notes += [name for name in ("rsv1", "rsv2", "rsv3") if getattr(self, name)]
        if self.mask is not None:
            notes.append(f"mask {self.mask.hex(' ')}")
        words = [opcode_name(self.opcode), _payload_text(self), f"[{', '.join(notes)}]"]
        return " ".join(word for word in words if word)


def _payload_text(frame: Frame) -> str:
    """Return the payload in readable form, at most 60 characters of it."""
    if not frame.payload:
        return ""
    if frame.opcode == Opcode.CLOSE:
        try:
            return str(Close.parse(frame.payload))
        except WebSocketError:
            return _shorten(frame.payload.hex(" "))
    try:
        text = None if frame.rsv1 or frame.opcode == Opcode.BINARY else frame.payload.decode()
    except UnicodeDecodeError:
        text = None
    return _shorten(frame.payload.hex(" ")) if text is None else f'"{_shorten(text)}"'


def _shorten(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


# --- The common case -------------------------------------------------------------------------------------------------

FINAL_TEXT, FINAL_BINARY = 0x80 | Opcode.TEXT, 0x80 | Opcode.BINARY  # the first octet of a whole message
_PLAIN = {FINAL_TEXT, FINAL_BINARY}


def plain_message(data: bytes, start: int, limit: int) -> tuple[bytes, int] | None:
    """Return the message in the frame at `start` and where the next frame starts, or None if it is not a plain one.

    Nearly all messages are plain: from a client, complete, in one frame, at most `limit` octets, not compressed, and
    valid UTF-8 if text. None does not mean invalid: `Connection` then decides. `start` must be the start of a message.
    """
    if len(data) - start < 6 or data[start] not in _PLAIN:
        return None
    length, key = data[start + 1] - 128, start + 2
    if length == 126:
        length, key = int.from_bytes(data[start + 2 : start + 4]), start + 4
        if length < 126:
            return None
    begin = key + 4
    end = begin + length
    if not 0 <= length <= limit or end > len(data) or data[start + 1] == 255:
        return None
    payload = apply_mask(data[begin:end], data[key:begin])
    if data[start] == FINAL_TEXT and not is_text(payload):
        return None
    return payload, end


def server_message(payload: bytes, text: bool = True) -> bytes:
    """Return the same as `Frame(Opcode.TEXT, payload).serialize()`, or with BINARY, ten times as fast."""
    first, length = FINAL_TEXT if text else FINAL_BINARY, len(payload)
    if length < 126:
        return bytes((first, length)) + payload
    if length < 1 << 16:
        return bytes((first, 126)) + length.to_bytes(2) + payload
    return bytes((first, 127)) + length.to_bytes(8) + payload


def is_text(data: bytes) -> bool:
    """Tell whether `data` is UTF-8. ASCII, the usual case, is recognised fastest."""
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


# --- The bits of a frame, named --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Field:
    """One bit field of a frame: its position, value, meaning, and the clause that defines it.

    `bit` counts from the frame's first bit, the most significant of its first octet, as in the figure in 5.2.
    `problem` is the rule that the value breaks, "" if none.
    """

    name: str
    bit: int
    bits: int
    value: int | bytes
    meaning: str
    clause: str
    problem: str = ""

    @property
    def start(self) -> int:
        """The index of the field's first octet."""
        return self.bit // 8

    @property
    def stop(self) -> int:
        """The index after the field's last octet."""
        return (self.bit + self.bits + 7) // 8


def describe(data: Bytes) -> list[Field]:
    """Return the bit fields of the frame at the start of `data`, as far as it is complete. Nothing is refused.

    Bytes after the frame are ignored. RSV1 is not checked: whether an extension uses it, and which side is the client,
    is known only from the handshake; `Header.problems` checks both.
    """
    data = memoryview(data)
    fields = _describe_first_octet(data[0]) if data else []
    if len(data) >= 2:
        fields += _describe_lengths(data)
    header = Header.parse(data)
    if header is None:
        return fields
    if header.mask is not None:
        meaning = "octet i of the payload is XORed with octet i mod 4 of this key"
        fields.append(Field("Masking-key", header.size * 8 - 32, 32, header.mask, meaning, "RFC 6455 §5.3"))
    payload = bytes(data[header.size : header.size + header.length])
    return fields + _describe_payload(header, payload) if payload else fields


def _describe_first_octet(first: int) -> list[Field]:
    opcode, kind = first & 0x0F, "control" if first & 0x08 else "data"
    known = opcode in OPCODES
    return [
        _describe_fin(first >> 7, first & 0x08),
        _describe_rsv1(first >> 6 & 1, opcode),
        _describe_rsv(2, first >> 5 & 1),
        _describe_rsv(3, first >> 4 & 1),
        Field(
            "opcode",
            bit=4,
            bits=4,
            value=opcode,
            meaning=f"{opcode_name(opcode)}, a {kind} frame",
            clause="RFC 6455 §5.5" if first & 0x08 else "RFC 6455 §5.6",
            problem="" if known else f"opcode {opcode} is reserved",
        ),
    ]


def _describe_fin(fin: int, control: int) -> Field:
    meaning = "the last frame of its message" if fin else "more frames of this message follow"
    problem = "a control frame must not be fragmented" if control and not fin else ""
    return Field("FIN", 0, 1, fin, meaning, "RFC 6455 §5.4", problem)


def _describe_rsv1(value: int, opcode: int) -> Field:
    meaning = "a compressed message starts here" if value else "not compressed"
    problem = "only the first frame of a message may have it" if value and opcode not in (1, 2) else ""
    return Field("RSV1", 1, 1, value, meaning, "RFC 7692 §6", problem)


def _describe_rsv(number: int, value: int) -> Field:
    problem = "must be 0: no extension gives it a meaning" if value else ""
    return Field(f"RSV{number}", number, 1, value, "reserved for extensions", "RFC 6455 §5.2", problem)


def _describe_lengths(data: memoryview) -> list[Field]:
    masked, short = data[1] >> 7, data[1] & 0x7F
    meaning = "masked: sent by a client" if masked else "not masked: sent by a server"
    fields = [Field("MASK", 8, 1, masked, meaning, "RFC 6455 §5.1")]
    octets = {126: 2, 127: 8}.get(short, 0)
    meaning = f"the next {octets} octets hold the length" if octets else f"{short} octets of payload"
    problem = "a control frame carries 125 octets at most" if data[0] & 0x08 and octets else ""
    fields.append(Field("Payload len", 9, 7, short, meaning, "RFC 6455 §5.2", problem))
    if octets and len(data) >= 2 + octets:
        fields.append(_describe_extended(int.from_bytes(data[2 : 2 + octets]), octets))
    return fields


def _describe_extended(length: int, octets: int) -> Field:
    problem = "" if extended_octets(length) == octets else "not the shortest form of this length"
    if length >= 1 << 63:
        problem = "the most significant bit must be 0"
    return Field(
        "Extended payload length", 16, octets * 8, length, f"{length} octets of payload", "RFC 6455 §5.2", problem
    )


def _describe_payload(header: Header, payload: bytes) -> list[Field]:
    bit = header.size * 8
    plain = payload if header.mask is None else apply_mask(payload, header.mask)
    if header.opcode == Opcode.CLOSE and len(plain) >= 2:
        return _describe_close(bit, plain)
    meaning = _payload_text(Frame(header.opcode, plain, rsv1=header.rsv1))
    if len(payload) < header.length:
        meaning += f"; {header.length - len(payload)} octets are still to come"
    problem = "a close code needs 2 octets" if header.opcode == Opcode.CLOSE and header.length == 1 else ""
    return [Field("Payload data", bit, len(payload) * 8, plain, meaning, "RFC 6455 §5.2", problem)]


def _describe_close(bit: int, plain: bytes) -> list[Field]:
    code, reason = int.from_bytes(plain[:2]), plain[2:]
    problem = "" if close_code_allowed(code) else f"close code {code} must not be sent"
    fields = [Field("Status code", bit, 16, code, close_code_meaning(code), "RFC 6455 §7.4", problem)]
    if reason:
        text = _payload_text(Frame(Opcode.TEXT, reason))
        problem = "" if text.startswith('"') else "not UTF-8"
        fields.append(Field("Reason", bit + 16, len(reason) * 8, reason, text, "RFC 6455 §5.5.1", problem))
    return fields
