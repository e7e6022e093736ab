"""A hand in the wire: a frame is held, a byte of it is changed, and it goes on; both sides show what follows.

    editor = await lab.start("editor", frame_editor(server.url))

A client talks to the server through a `Wire`. The next frame that it sends is held there, and its bytes can be changed,
part by part in hex, before they are let go. With "hold answers too" the server's answer is held in the same way. The
connection stays open, also when the server waits for bytes that were announced and did not come: then the next frame is
read as those bytes. While a frame is held, the server's Pings are answered from here, or it would give up the client.

Left out: compression, and frames in several pieces.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from html import escape
from typing import Any, Final, Self

from chatlab.errors import HandshakeError
from chatlab.lab.hand_client import MASK, HandClient
from chatlab.lab.pictures.frame_parts import as_dicts, groups, in_words, missing, rest, rows, still
from chatlab.lab.pictures.live_picture import LivePicture, source
from chatlab.lab.until import until
from chatlab.lab.wire.decode import WireRecord
from chatlab.lab.wire.trace import Peer
from chatlab.lab.wire.wire import PEERS, Wire
from chatlab.locale import _, ngettext
from chatlab.websocket.connection import Closed, CloseReceived, Event, Failed, Message, Pong
from chatlab.websocket.frames import Frame, Opcode, opcode_name

__all__ = ["FrameEditor", "frame_editor"]

TEXT: Final = "Hello 안녕"
MAX_LETTERS: Final = 100
MAX_BYTES: Final = 2000
ANSWER_SECONDS: Final = 1.0  # how long to wait for what follows
HOLD_SECONDS: Final = 2.0
REDRAW_SECONDS: Final = 0.05
LOG_LINES: Final = 30
READY, SENDING, HELD, GONE = "ready", "sending", "held", "gone"


async def frame_editor(url: str) -> FrameEditor:
    """Return the picture, with a client connected to the server at `url` ("ws://…")."""
    editor = FrameEditor(url)
    try:
        return await editor.start()
    except BaseException:
        await editor.aclose()
        raise


class FrameEditor(LivePicture):
    """A client, a wire, and the frame that is held in it: `send`, `edit` and `let_go`."""

    _esm = source("common.js", "frame_editor.js")

    def __init__(self, url: str) -> None:
        super().__init__(_words())
        self.wire = Wire(url)
        self.hold_answers = False
        self.phase = READY
        self.holder: Peer = "client"  # who sent the held frame
        self.client_log: list[str] = []
        self.server_log: list[str] = []
        self._client: HandClient | None = None
        self._number = 0  # of the client's connection through the wire
        self._edits: list[str] = []  # the parts of the held frame, in hex as typed
        self._valid: list[str] = []  # the same, each as it was last valid
        self._pings: set[bytes] = set()  # what the server's keep-alive asked; neither it nor its Pongs are shown
        self._mistakes: dict[int, str] = {}  # by the part's index
        self._original = b""
        self._holds = 0  # counts the held frames, so that the page knows a new one
        self._busy = False
        self._told = 0  # events of the client that are in its log
        self._to_server = b""  # of the frame that the server has not read to its end
        self._from_server = b""
        self._last: Frame | None = None  # that the server has received
        self._redraw: asyncio.TimerHandle | None = None
        self._listening = self.wire.listening(self._saw)
        self._listening.__enter__()
        self._draw(_("Type a text and press Send: its frame will be held in the wire."))

    async def start(self) -> Self:
        """Start the wire and connect the client. Raises OSError or `HandshakeError` if the server is not there."""
        await self.wire.start()
        await self.connect()
        return self

    async def aclose(self) -> None:
        """End the background work, the client's connection and the wire."""
        if not self.closed:
            self._listening.__exit__()
        await super().aclose()
        if self._redraw is not None:
            self._redraw.cancel()
        await self._disconnect()
        await self.wire.aclose()

    # What a learner does

    def received(self, content: dict[str, Any]) -> None:
        """Send, edit, let go, undo, connect again, or switch the holding of answers."""
        match content:
            case {"do": "answers", "on": bool(on)}:
                self.hold_answers = on
                self._draw()
            case {"do": "edit", "part": int(part), "hex": str(octets)}:
                self.edit(part, octets)
            case {"do": "undo"}:
                self.undo()
            case {"do": "send", "text": str(text)} if not self._busy:
                self._begin(self.send(text))
            case {"do": "let-go"} if not self._busy:
                self._begin(self.let_go())
            case {"do": "connect"} if not self._busy:
                self._begin(self.connect())

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._busy = True
        self._draw()
        self._tasks.start(self._doing(work), name="frame-editor")

    async def _doing(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except ValueError as error:
            self.refused(str(error))
        except (OSError, TimeoutError, HandshakeError):
            self._draw(_("The server cannot be reached. Run the cell that starts it, then the cell of this picture."))
        finally:
            self._busy = False
            self._draw()

    async def connect(self) -> None:
        """Open a new connection instead of the present one; a held frame is lost."""
        await self._disconnect()
        self._to_server = self._from_server = b""
        self.client_log, self.server_log, self.phase = [], [], READY
        self._pings.clear()
        before = set(self.wire.connections)
        self._client = await HandClient.connect(self.wire.url)
        self._number = max(set(self.wire.connections) - before)
        self._told = len(self._client.events)
        self._draw(_("A new connection is open. Type a text and press Send."))

    async def _disconnect(self) -> None:
        for sender in PEERS:
            self.wire.replace_held(self._number, b"", sender=sender)
        self.wire.let_go(self._number)
        client, self._client, self._number, self._told = self._client, None, 0, 0
        if client is not None:
            await client.aclose()

    async def send(self, text: str) -> None:
        """Send a text, whose frame is held; connect first if the connection has ended. Raises `ValueError`."""
        if len(text) > MAX_LETTERS:
            sentence = _("The text has {count} letters; this picture sends {limit} at most.")
            raise ValueError(sentence.format(count=len(text), limit=MAX_LETTERS))
        if self.phase != READY:
            raise ValueError(_("A frame is held already. Let it go first."))
        client = await self._open_client()
        self.phase = SENDING
        self.wire.hold(self._number, sender="client")
        await client.send(text)
        await until(lambda: missing(self.wire.held(self._number, sender="client")) == 0, timeout=HOLD_SECONDS)
        frame = in_words(Opcode.TEXT, text.encode())
        self._add(self.client_log, _("sends {frame}").format(frame=f"TEXT {frame}"))
        self._take("client")

    def edit(self, part: int, octets: str) -> None:
        """Change the bytes of a part, in hex. A mistake stays at the part, and the frame cannot go on with it."""
        if self.phase != HELD or not 0 <= part < len(self._edits):
            return
        self._edits[part] = octets
        self._mistakes.pop(part, None)
        if mistake := _mistake(octets):
            self._mistakes[part] = mistake
        else:
            self._valid[part] = octets
        self._draw()

    def undo(self) -> None:
        """Go back to the bytes as they were sent."""
        if self.phase == HELD:
            self._show_parts()
            self._draw(_("The bytes are as they were sent."))

    async def let_go(self) -> None:
        """Pass the bytes on as they are now, and wait a moment for what follows. Raises `ValueError` for bad hex."""
        if self.phase != HELD:
            raise ValueError(_("Nothing is held. Type a text and press Send first."))
        if self._mistakes:
            raise ValueError(next(iter(self._mistakes.values())))
        data = self.frame()
        behind = self.wire.held(self._number, sender=self.holder)[len(self._original) :]
        self.wire.replace_held(self._number, data + behind, sender=self.holder)
        holder, self.phase = self.holder, GONE
        if holder == "client":
            await self._to_the_server(data, behind)
        else:
            await self._to_the_client(data)

    def frame(self) -> bytes:
        """Return the held frame as it is now; a part that is not hex counts as it was before."""
        return b"".join(bytes.fromhex(octets) for octets in self._valid)

    # What follows

    async def _to_the_server(self, data: bytes, behind: bytes) -> None:
        self._feed_server(data + behind)
        if self.hold_answers:
            self.wire.hold(self._number, sender="server")
        heard = self._heard()
        self.wire.let_go(self._number, sender="client")
        self._draw(_("The frame has gone on."))
        await _wait(lambda: self._is_answered(heard))
        if self.hold_answers and self.wire.held(self._number, sender="server"):
            self._take("server")
            return
        self.wire.let_go(self._number, sender="server")
        self._tell_silence(heard)
        self._finish()

    async def _to_the_client(self, data: bytes) -> None:
        heard = self._heard()
        self.wire.let_go(self._number, sender="server")
        await _wait(lambda: self._heard() > heard)
        new = self._client.events[heard:] if self._client is not None else []
        if not new:
            self._add(self.client_log, _waiting(data) or _("says nothing: the message is not complete"))
            self._finish(_("The client still waits. Send another text: what becomes of its answer?"))
            return
        if any(isinstance(event, Failed | CloseReceived) for event in new):
            await _wait(self._is_closed)
        self._finish()

    def _is_answered(self, heard: int) -> bool:
        if self.hold_answers:
            return missing(self.wire.held(self._number, sender="server")) == 0
        if self._is_closed():
            return True
        events = self._client.events[heard:] if self._client is not None else []
        return not self._to_server and any(isinstance(event, Message | Pong) for event in events)

    def _tell_silence(self, heard: int) -> None:
        """Say what the server waits for, if it has not said anything."""
        if self._is_closed() or self._heard() > heard:
            return
        waits = _waiting(self._to_server) if self._to_server else ""
        if not waits and self._last is not None and not self._last.fin:
            waits = _("says nothing: it waits for the rest of the message, because FIN is 0")
        self._add(self.server_log, waits or _("says nothing: this frame needs no answer"))

    def _finish(self, status: str = "") -> None:
        self.phase = READY
        self._edits, self._valid, self._mistakes = [], [], {}
        if self._is_closed():
            self._draw(_("The connection has ended. Send opens a new one."))
        elif self._to_server:
            self._draw(_("The server still waits. Send another text: what becomes of its frame?"))
        else:
            self._draw(status or _("The connection is still open. Send another text."))

    def _heard(self) -> int:
        return len(self._client.events) if self._client is not None else 0

    def _is_closed(self) -> bool:
        return self._client is None or any(isinstance(event, Closed) for event in self._client.events)

    async def _open_client(self) -> HandClient:
        if self._is_closed():
            await self.connect()
        assert self._client is not None
        return self._client

    # What passes

    def _take(self, holder: Peer) -> None:
        """Show the frame that is held."""
        self.phase, self.holder = HELD, holder
        held = self.wire.held(self._number, sender=holder)
        self._original = held[: len(held) - len(rest(held))]
        self._show_parts()
        if holder == "client":
            self._draw(_("The client's frame is held. Change a byte, then let it go."))
        else:
            self._draw(_("The server's answer is held. Change a byte, then let it go."))

    def _show_parts(self) -> None:
        self._edits = [group.hex for group in groups(self._original)]
        self._valid = self._edits[:]
        self._mistakes = {}
        self._holds += 1

    def _feed_server(self, data: bytes) -> None:
        """Note what the server receives, frame by frame as it must read it."""
        self._to_server += data
        while self._to_server and not missing(self._to_server):
            parsed = Frame.parse(self._to_server)
            assert parsed is not None
            frame, size = parsed
            self._to_server = self._to_server[size:]
            if frame.opcode == Opcode.PONG and frame.payload in self._pings:
                continue
            self._last = frame
            self._add(self.server_log, _("receives {frame}").format(frame=_frame_in_words(frame)))

    def _saw(self, record: WireRecord) -> None:
        """Note what passes: the client's Pongs and Close frames, and all that the server sends."""
        if record.connection != self._number or not record.data:
            return
        if record.sender == "server":
            self._hear_server(record.data)
        elif self.phase in (READY, GONE) or (self.phase == HELD and self.holder == "server"):
            self._feed_server(record.data)
        if self._redraw is None:
            self._redraw = self._loop.call_later(REDRAW_SECONDS, self._draw)

    def _hear_server(self, data: bytes) -> None:
        """Note what the server sends, and answer its Pings while a frame is held."""
        self._from_server += data
        while self._from_server and (parsed := Frame.parse(self._from_server)) is not None:
            frame, size = parsed
            self._from_server = self._from_server[size:]
            if frame.opcode != Opcode.PING:
                self._add(self.server_log, _("sends {frame}").format(frame=_frame_in_words(frame)))
                continue
            self._pings.add(frame.payload)
            if self.phase == HELD and not self._to_server:
                pong = Frame(Opcode.PONG, frame.payload, mask=MASK).serialize()
                self.wire.slip_in(self._number, pong, sender="client")
                self._feed_server(pong)

    def _add(self, log: list[str], line: str) -> None:
        log.append(line)
        del log[:-LOG_LINES]

    def _tell_events(self) -> None:
        events = self._client.events if self._client is not None else []
        failed = any(isinstance(event, Failed) for event in events)
        for event in events[self._told :]:
            if failed and isinstance(event, Closed):
                continue  # its 1006 is only the client's own name for "nobody answered my Close"
            if line := _event_in_words(event):
                self._add(self.client_log, line)
        self._told = len(events)

    # What is shown

    def _draw(self, status: str | None = None) -> None:
        self._redraw = None
        self._tell_events()
        held = self.phase == HELD
        parts = [
            {**part, "hex": octets, "mistake": self._mistakes.get(index, "")}
            for index, (part, octets) in enumerate(zip(as_dicts(groups(self._original)), self._edits, strict=False))
        ]
        self.state = {
            "held": held,
            "busy": self._busy,
            "valid": not self._mistakes,
            "holder": self.holder,
            "holds": self._holds,
            "answers": self.hold_answers,
            "parts": parts if held else [],
            "rows": as_dicts(rows(self.frame())) if held else [],
            "client": self.client_log[:],
            "server": self.server_log[:],
            "status": self.state.get("status", "") if status is None else status,
        }

    def refused(self, sentence: str) -> None:
        """Show a sentence about bad input."""
        self._draw(sentence)

    def _frame_on_paper(self) -> bytes:
        return self._original or Frame(Opcode.TEXT, TEXT.encode(), mask=MASK).serialize()

    def still(self) -> str:
        """Return the held frame as HTML, or the one that would be sent first."""
        hint = _(
            "A frame as it is held in the wire, with its parts named; in a live notebook its bytes can be changed."
        )
        return f"<p><b>{escape(_title())}</b></p><p>{escape(hint)}</p>{still(self._frame_on_paper())}"

    def plain(self) -> str:
        """Return the frame and its parts as text."""
        data = self._frame_on_paper()
        return "\n".join([_title(), data.hex(" "), *_lines(rows(data))])


def _lines(shown: Iterable[Any]) -> list[str]:
    return [f"{row.name}: {row.value} ({row.meaning})" for row in shown]


async def _wait(condition: Callable[[], bool]) -> None:
    """Wait for a condition, but not long."""
    with suppress(TimeoutError):
        await until(condition, timeout=ANSWER_SECONDS)


def _mistake(octets: str) -> str:
    try:
        data = bytes.fromhex(octets)
    except ValueError:
        return _("{octets} is not hex: write each byte as two digits, 0 to 9 and a to f.").format(octets=repr(octets))
    if len(data) > MAX_BYTES:
        return _("{count} bytes are too many; a part has {limit} at most.").format(count=len(data), limit=MAX_BYTES)
    return ""


def _waiting(data: bytes) -> str:
    """Return what a side says that has not received its frame to the end; "" if it has."""
    due = missing(data)
    waits = ngettext("waits for {count} more byte", "waits for {count} more bytes", due)
    return waits.format(count=due) if due else ""


def _frame_in_words(frame: Frame) -> str:
    return f"{opcode_name(frame.opcode)} {in_words(frame.opcode, frame.payload)}"


def _event_in_words(event: Event) -> str:
    match event:
        case Message(str(text)):
            return _("receives {frame}").format(frame=f"TEXT {in_words(Opcode.TEXT, text.encode())}")
        case Message(bytes(data)):
            return _("receives {frame}").format(frame=f"BINARY {in_words(Opcode.BINARY, data)}")
        case Pong(payload):
            return _("receives {frame}").format(frame=f"PONG {in_words(Opcode.PONG, payload)}")
        case CloseReceived(close):
            return _("receives {frame}").format(frame=f"CLOSE {in_words(Opcode.CLOSE, close.serialize())}")
        case Failed(error):
            return _("closes with {code}: {rule}").format(code=int(error.code), rule=error)
        case Closed(code, clean=clean):
            ended = _("is closed, with code {code}") if clean else _("is cut off, with code {code}")
            return ended.format(code=code)
    return ""


# --- Words -----------------------------------------------------------------------------------------------------------


def _title() -> str:
    return _("A hand in the wire")


def _words() -> dict[str, Any]:
    return {
        "title": _title(),
        "text": _("Text"),
        "initial": TEXT,
        "send": _("Send"),
        "letGo": _("Let go"),
        "undo": _("Undo changes"),
        "connect": _("New connection"),
        "answers": _("Hold answers too"),
        "held": {"client": _("Held, on its way to the server"), "server": _("Held, on its way to the client")},
        "readAs": _("What the receiver will read"),
        "heads": [_("field"), _("value"), _("what it says (section of RFC 6455)")],
        "client": _("The client"),
        "server": _("The server"),
        "nothing": _("nothing yet"),
    }
