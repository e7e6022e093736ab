"""permessage-deflate (RFC 7692): the negotiation in the handshake, and the two compressed streams.

A message is compressed as a whole and then framed; its first frame has RSV1 set. `offer`, `accept` and `check_answer`
negotiate the `Parameters`; `Deflater` and `Inflater` implement them.

Left out: every other extension, and deciding per message whether compression pays off.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from chatlab.errors import HandshakeError, WebSocketError

NAME = "permessage-deflate"
TAIL = b"\x00\x00\xff\xff"  # the end of a sync flush, removed on the wire (7.2.1)
WINDOW_BITS = re.compile(r"8|9|1[0-5]")  # 7.1.2: "a decimal integer value without leading zeroes between 8 to 15"

Pairs = tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True)
class Parameters:
    """The negotiated parameters: for each side's compressor, its window size, and whether it resets between messages.

    A window of n bits is the last 2**n octets, which a repetition can refer back to; both sides keep it.
    """

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int = 15
    client_max_window_bits: int = 15


@dataclass(frozen=True, slots=True)
class Extension:
    """One element of Sec-WebSocket-Extensions (RFC 6455, 9.1): a name and its parameters, in order."""

    name: str
    parameters: Pairs = ()

    def serialize(self) -> str:
        """Return the element as written in the header: `permessage-deflate; client_max_window_bits=10`."""
        return "; ".join(
            [self.name, *(name if value is None else f"{name}={value}" for name, value in self.parameters)]
        )


def offer() -> Extension:
    """Return our client's offer: the defaults, and permission for the server to choose our window (7.1.2.2)."""
    return Extension(NAME, (("client_max_window_bits", None),))


def accept(offers: Iterable[Extension]) -> tuple[Extension, Parameters] | None:
    """Return the answer to the first acceptable offer, and its parameters; None declines all offers."""
    for extension in offers:
        if extension.name == NAME and (asked := _read(extension.parameters)) is not None:
            return _grant(asked)
    return None


def check_answer(answer: Extension) -> Parameters:
    """Return the parameters in the server's answer to `offer()`; raise `HandshakeError` if it is not a valid answer."""
    agreed = _read(answer.parameters)
    if answer.name != NAME or agreed is None:
        # 7.1: "the client MUST _Fail the WebSocket Connection_ if the peer server accepted with invalid parameters"
        raise HandshakeError(f"extension that was not asked for: {answer.serialize()!r}")
    if agreed.get("client_max_window_bits", "15") is None:
        raise HandshakeError("client_max_window_bits without a value in the server's answer")  # 7.1.2.2
    return _parameters(agreed)


def _read(pairs: Pairs) -> dict[str, str | None] | None:
    """Return the parameters by name, or None if any is unknown, given twice or out of range (7.1)."""
    found: dict[str, str | None] = {}
    for name, value in pairs:
        if name in found:
            return None
        if name.endswith("_max_window_bits"):
            valid = WINDOW_BITS.fullmatch(value) is not None if value is not None else name.startswith("client")
        else:
            valid = value is None
        known = name in Parameters.__dataclass_fields__
        if not known or not valid:
            return None
        found[name] = value
    return found


def _parameters(found: dict[str, str | None]) -> Parameters:
    return Parameters(
        server_no_context_takeover="server_no_context_takeover" in found,
        client_no_context_takeover="client_no_context_takeover" in found,
        server_max_window_bits=int(found.get("server_max_window_bits") or 15),
        client_max_window_bits=int(found.get("client_max_window_bits") or 15),
    )


def _grant(asked: dict[str, str | None]) -> tuple[Extension, Parameters]:
    """Accept every parameter requested. A hint without a value requests nothing and is not answered (7.1.2.2)."""
    pairs = tuple(
        (name, value) for name, value in asked.items() if name != "client_max_window_bits" or value is not None
    )
    return Extension(NAME, pairs), _parameters(asked)


class Deflater:
    """The compressor for the messages one side sends."""

    def __init__(self, window_bits: int = 15, forget: bool = False) -> None:
        # zlib refuses a raw window of 8 bits. With 9 bits it never refers back more than 250 octets, because it
        # reserves 262 for lookahead, so its output is valid for a window of 8 bits too.
        self._window_bits = max(window_bits, 9)
        self._forget = forget
        self._stream: zlib._Compress | None = None  # created on first use: it takes a quarter of a MiB
        self._empty = True

    def piece(self, data: bytes, fin: bool = True) -> bytes:
        """Compress the next piece of a message. The last piece ends on an octet boundary, without the tail (7.2.1)."""
        if self._stream is None:
            self._stream = zlib.compressobj(wbits=-self._window_bits)
        out = self._stream.compress(data)
        self._empty = self._empty and not data
        if not fin:
            return out
        if self._empty:
            return b"\x00"  # 7.2.3.6: an empty message is one octet
        out += self._stream.flush(zlib.Z_SYNC_FLUSH)
        self._empty = True
        if self._forget:
            self._stream = None
        return out.removesuffix(TAIL)


class Inflater:
    """The decompressor for the messages one side receives, piece by piece, with a limit on its output."""

    def __init__(self, window_bits: int = 15, forget: bool = False) -> None:
        self._window_bits = window_bits
        self._forget = forget
        self._stream = self._new()

    def _new(self) -> zlib._Decompress:
        return zlib.decompressobj(wbits=-self._window_bits)

    def piece(self, data: bytes, limit: int) -> bytes:
        """Decompress `data`, the next piece of a message, to at most `limit` + 1 octets.

        A result longer than `limit` means too much output; the rest is lost, and the connection must fail.
        """
        out = bytearray()
        try:
            while data and len(out) <= limit:
                out += self._stream.decompress(data, limit + 1 - len(out))
                data = self._stream.unconsumed_tail
                if self._stream.eof:
                    # 7.2.3.4: a sender may end with BFINAL set to 1; a new stream follows
                    data = self._stream.unused_data
                    self._stream = self._new()
        except zlib.error as error:
            raise WebSocketError(f"compressed message cannot be read: {error}", 1007) from error
        return bytes(out)

    def end(self, limit: int) -> bytes:
        """End the message: append the tail that its sender removed (7.2.2), and reset the window if negotiated."""
        rest = self.piece(TAIL, limit)
        if self._forget:
            self._stream = self._new()
        return rest
