"""STOMP as Spring's StompDecoder reads it, mistakes included: the texts of its errors are in the ERROR frames.

Left out: Spring's check of a frame's size. What a broker does with a frame is in `simple_broker.py`.
"""

from __future__ import annotations

import re
from typing import Final

from chatlab.errors import StompError
from chatlab.stomp.frames import Frame, StompHeaders, escape

CLIENTS: Final = ("CONNECT", "STOMP", "SEND", "SUBSCRIBE", "UNSUBSCRIBE", "ACK", "NACK", "BEGIN", "COMMIT", "ABORT")
COMMANDS: Final = frozenset({*CLIENTS, "DISCONNECT", "CONNECTED", "RECEIPT", "MESSAGE", "ERROR"})
NEVER_ESCAPED: Final = frozenset({"CONNECT", "CONNECTED", "STOMP"})
PLAIN: Final = {r"\r": "\r", r"\n": "\n", r"\c": ":", r"\\": "\\"}
ESCAPE: Final = re.compile(r"\\.?", re.DOTALL)


class Decoder:
    """Turns the octets of one connection into frames; an incomplete frame waits for the rest of it."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that `data` completes. Raise StompError with Spring's text for one that is invalid."""
        self._held = (self._held + data).lstrip(b"\r\n")
        frames = []
        while (frame := self._frame()) is not None:
            frames.append(frame)
            self._held = self._held.lstrip(b"\r\n")
        return frames

    def _frame(self) -> Frame | None:
        line, newline, rest = self._held.partition(b"\n")
        if not newline:
            return None
        command = line.rstrip(b"\r").decode(errors="replace")
        if command not in COMMANDS:
            raise StompError(f"No enum constant org.springframework.messaging.simp.stomp.StompCommand.{command}")
        head = _headers(command, rest)
        if head is None:
            return None
        headers, body = head
        return self._with_body(command, headers, body)

    def _with_body(self, command: str, headers: StompHeaders, rest: bytes) -> Frame | None:
        length = next((int(value) for name, value in headers if name == "content-length" and value.isdigit()), None)
        end = rest.find(b"\0") if length is None else length
        if end < 0 or end >= len(rest):
            return None
        if rest[end]:
            raise StompError("Frame must be terminated with a null octet")
        self._held = rest[end + 1 :]
        return Frame(command, headers, rest[:end])


def _headers(command: str, rest: bytes) -> tuple[StompHeaders, bytes] | None:
    """Return the headers and what follows the blank line; None if that has not arrived."""
    headers: list[tuple[str, str]] = []
    while True:
        line, newline, rest = rest.partition(b"\n")
        if not newline:
            return None
        text = line.removesuffix(b"\r").decode(errors="replace")
        if not text:
            return tuple(headers), rest
        name, colon, value = text.partition(":")
        if not name or not colon:
            raise StompError(f"Illegal header: '{text}'. A header must be of the form <name>:[<value>].")
        headers.append((name, value) if command in NEVER_ESCAPED else (_unescape(name), _unescape(value)))


def _unescape(text: str) -> str:
    def plain(match: re.Match[str]) -> str:
        if match[0] not in PLAIN:
            raise StompError(f"Illegal escape sequence at index {match.start()}: {text}")
        return PLAIN[match[0]]

    return ESCAPE.sub(plain, text)


def encode(command: str, headers: StompHeaders, body: bytes | None = None) -> bytes:
    """Return a frame as Spring writes it: with `body`, even an empty one, its content-length is the last header."""
    version = "1.0" if command in NEVER_ESCAPED else "1.2"
    lines = [command, *(f"{escape(name, version)}:{escape(value, version)}" for name, value in headers)]
    if body is not None:
        lines.append(f"content-length:{len(body)}")
    return "\n".join([*lines, "", ""]).encode("utf-8", "replace") + (body or b"") + b"\0"
