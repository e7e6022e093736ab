"""Sixteen header bits to flip, and a text; the frame goes to a live server, and its answer is shown.

    bits = await lab.start("bits", header_bits(server.url))

The first two bytes of the frame are exactly the sixteen bits. What follows obeys them: an extended length if the length
is 126 or 127 (that of the text), a masking key if MASK is set (the one of the RFC's example), then the whole text, also
where the length announces more or less. Each frame is sent on a new connection, and its answer stands at the field that
caused it.

Left out: fragments. One frame is sent, so a frame without FIN is never continued.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from chatlab.errors import HandshakeError
from chatlab.lab.hand_client import MASK, HandClient
from chatlab.lab.pictures.frame_parts import as_dicts, faulty_parts, groups, in_words, missing, rest, rows, still
from chatlab.lab.pictures.live_picture import LivePicture, source
from chatlab.lab.until import until
from chatlab.locale import _, ngettext
from chatlab.websocket.connection import Closed, CloseReceived, Event, Failed, Message, Opened, Pong
from chatlab.websocket.frames import Header, Opcode, apply_mask, extended_octets

__all__ = ["HeaderBits", "header_bits"]

BITS: Final = 16
SILENT_SECONDS: Final = 1.0  # how long to wait for an answer
CONNECT_SECONDS: Final = 5.0
MAX_LETTERS: Final = 200
GOOD, BAD, QUIET = "good", "bad", "quiet"
Remark = dict[str, str]  # where, text, tone


async def header_bits(url: str, text: str = "안녕 👋") -> HeaderBits:
    """Return the picture for the server at `url` ("ws://…"), with the header that is right for `text`."""
    return HeaderBits(url, text)


class HeaderBits(LivePicture):
    """The bits of a header: `flip` one, `type` a text, and `send` the frame that they make."""

    _esm = source("common.js", "header_bits.js")

    def __init__(self, url: str, text: str) -> None:
        super().__init__(_words())
        self.url = url
        self.text = _checked(text)
        self.header = _right_header(self.text)
        self.remarks: list[Remark] = []
        self._sending = False
        self._draw("")

    # What a learner does

    def received(self, content: dict[str, Any]) -> None:
        """Flip a bit, take a text, put the header right, or send."""
        match content:
            case {"do": "flip", "bit": int(bit)}:
                self.flip(bit)
            case {"do": "type", "text": str(text)}:
                self.type(text)
            case {"do": "right"}:
                self.put_right()
            case {"do": "send"} if not self._sending:
                self._sending = True
                self._draw(_("Sent. Waiting for the server's answer …"))
                self._tasks.start(self.send(), name="header-bits")

    def flip(self, bit: int) -> None:
        """Turn over a bit: 0 is FIN, 15 the last one of the length."""
        if not 0 <= bit < BITS:
            raise ValueError(_("There is no bit {bit}; the header has bits 0 to 15.").format(bit=bit))
        self.header ^= 1 << (BITS - 1 - bit)
        self._changed()

    def type(self, text: str) -> None:
        """Take another text; the length follows it if it was right."""
        was_right = self.header & 0x7F == _right_header(self.text) & 0x7F
        self.text = _checked(text)
        if was_right:
            self.header = self.header & 0xFF80 | _right_header(self.text) & 0x7F
        self._changed()

    def put_right(self) -> None:
        """Go back to the header that is right for the text."""
        self.header = _right_header(self.text)
        self._changed()

    def frame(self) -> bytes:
        """Return the bytes to send."""
        payload, length = self.text.encode(), self.header & 0x7F
        extended = len(payload).to_bytes({126: 2, 127: 8}.get(length, 0)) if length > 125 else b""
        masked = self.header & 0x80
        body = MASK + apply_mask(payload, MASK) if masked else payload
        return self.header.to_bytes(2) + extended + body

    async def send(self) -> list[Remark]:
        """Send the frame on a new connection, and return what to say at which field; never raises for the answer.

        If the frame has been changed by then, nothing is said: the fields are those of another frame.
        """
        data, status = self.frame(), ""
        self._sending = True
        try:
            remarks = _remarks(data, await _answers(self.url, data))
            self.remarks = remarks if self.frame() == data else []
        except (OSError, TimeoutError, HandshakeError):
            status = _("The server cannot be reached. Run the cell that starts it, then the cell of this picture.")
        finally:
            self._sending = False
        self._draw(status or " ".join(remark["text"] for remark in self.remarks))
        return self.remarks

    # What is shown

    def _changed(self) -> None:
        self.remarks = []
        self._draw("")

    def _draw(self, status: str) -> None:
        data = self.frame()
        self.state = {
            "bits": f"{self.header:016b}",
            "text": self.text,
            "rows": as_dicts(rows(data)),
            "groups": as_dicts(groups(data)),
            "remarks": self.remarks,
            "sending": self._sending,
            "status": status,
        }

    def refused(self, sentence: str) -> None:
        """Show a sentence about bad input."""
        self._draw(sentence)

    def still(self) -> str:
        """Return the frame with its bytes and fields as HTML."""
        return f"<p><b>{_title()}</b></p>{still(self.frame())}"

    def plain(self) -> str:
        """Return the fields as text."""
        lines = [f"{row.name}: {row.value} ({row.meaning})" for row in rows(self.frame())]
        return "\n".join([_title(), self.frame().hex(" "), *lines])


def _checked(text: str) -> str:
    if len(text) > MAX_LETTERS:
        sentence = _("The text has {count} letters; this picture sends {limit} at most.")
        raise ValueError(sentence.format(count=len(text), limit=MAX_LETTERS))
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(_("The text has half a character in it, which is not Unicode.")) from None
    return text


def _right_header(text: str) -> int:
    length = len(text.encode())
    short = {0: length, 2: 126, 8: 127}[extended_octets(length)]
    return 0x8080 | Opcode.TEXT << 8 | short


# --- The server's answer ---------------------------------------------------------------------------------------------


async def _answers(url: str, data: bytes) -> list[Event]:
    """Send the bytes on a new connection; return the events that follow within a second."""
    client = await HandClient.connect(url)
    try:
        await client.write(data)
        with suppress(TimeoutError):
            await until(lambda: _is_answered(client.events, data), timeout=SILENT_SECONDS)
        return [event for event in client.events if not isinstance(event, Opened)]
    finally:
        await client.aclose()


def _is_answered(events: Sequence[Event], data: bytes) -> bool:
    """Return whether nothing more can come: the connection has ended, or a frame without a rest is answered."""
    if any(isinstance(event, Closed) for event in events):
        return True
    return not rest(data) and any(isinstance(event, Message | Pong) for event in events)


def _remarks(data: bytes, events: Sequence[Event]) -> list[Remark]:
    header = Header.parse(data)
    found = [remark for event in events for remark in _remarks_on(data, event)]
    if found or header is None:
        return found
    if any(isinstance(event, Closed) for event in events):
        return [_remark("opcode", _("The server has ended the connection without a Close frame."), BAD)]
    return [_silence(data, header)]


def _remarks_on(data: bytes, event: Event) -> list[Remark]:
    match event:
        case Message(message):
            opcode = Opcode.TEXT if isinstance(message, str) else Opcode.BINARY
            said = in_words(opcode, message.encode() if isinstance(message, str) else message)
            where = "length" if rest(data) else "payload"
            return [_remark(where, _("The server sends back: {message}").format(message=said), GOOD)]
        case Pong(payload):
            said = in_words(Opcode.TEXT, payload)
            return [_remark("opcode", _("The server answers with a Pong: {payload}").format(payload=said), GOOD)]
        case CloseReceived(close):
            return _close_remarks(data, close.code, close.reason)
        case Failed(error):
            return [_remark("payload", _("The server broke a rule: {rule}").format(rule=error), BAD)]
    return []


def _close_remarks(data: bytes, code: int | None, reason: str) -> list[Remark]:
    if code is None:
        return [_remark("opcode", _("The server answers with a Close without a code."), GOOD)]
    said = _("The server closes with {code}: {reason}").format(code=code, reason=reason or _("no reason"))
    asked = code < 1002 and data[0] & 0x0F == Opcode.CLOSE
    return [_remark(where, said, GOOD if asked else BAD) for where in faulty_parts(data, code, reason)]


def _silence(data: bytes, header: Header) -> Remark:
    due = missing(data)
    if due:
        sentence = ngettext(
            "Silence for {seconds:g} s: the server waits for {count} more byte.",
            "Silence for {seconds:g} s: the server waits for {count} more bytes.",
            due,
        )
        return _remark("length", sentence.format(seconds=SILENT_SECONDS, count=due), QUIET)
    if not header.fin:
        sentence = _("Silence for {seconds:g} s: the server waits for the rest of the message.")
        return _remark("fin", sentence.format(seconds=SILENT_SECONDS), QUIET)
    sentence = _("Silence for {seconds:g} s: this frame needs no answer.")
    return _remark("opcode", sentence.format(seconds=SILENT_SECONDS), QUIET)


def _remark(where: str, text: str, tone: str) -> Remark:
    return {"where": where, "text": text, "tone": tone}


# --- Words -----------------------------------------------------------------------------------------------------------


def _title() -> str:
    return _("The header, bit by bit")


def _words() -> dict[str, Any]:
    """Return the texts that never change; each bit has a name of its own for a screen reader."""
    opcode = [_("opcode, worth {worth}").format(worth=1 << power) for power in range(3, -1, -1)]
    length = [_("length, worth {worth}").format(worth=1 << power) for power in range(6, -1, -1)]
    spans = [("FIN", 1), ("RSV1", 1), ("RSV2", 1), ("RSV3", 1), ("opcode", 4), ("MASK", 1), (_("length"), 7)]
    return {
        "title": _title(),
        "bits": ["FIN", "RSV1", "RSV2", "RSV3", *opcode, "MASK", *length],
        "spans": [list(span) for span in spans],
        "text": _("Text"),
        "send": _("Send"),
        "right": _("Right header"),
        "heads": [_("field"), _("value"), _("what it says (section of RFC 6455)"), _("the server's answer")],
        "bytes": _("The whole frame, in hex"),
        "help": _("Press a bit to turn it over. Send sends exactly these bytes on a new connection."),
    }
