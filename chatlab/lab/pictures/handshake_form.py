"""The lines of a handshake as a form: each change goes to the servers, and each line shows what they say to it.

    form = await lab.start("form", handshake_form(by_hand.url, library.url, names=("by hand", "library")))

The form starts with a request that breaks five rules. After every change the request is sent as it is, to all servers
at once and on new connections; a refusal's reason stands at the line it speaks of. A field that is empty is a line that
is not sent. Host has no port, so the form is the same in every run.

Left out: other headers, and a request without its empty line; a server that does not answer is given up after two
seconds.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final
from urllib.parse import urlsplit

from chatlab.errors import HandshakeError
from chatlab.lab.pictures.live_picture import LivePicture, source
from chatlab.locale import _
from chatlab.tasks import cancel
from chatlab.websocket import handshake
from chatlab.websocket.frames import Close, CloseCode, Frame, Opcode, new_mask
from chatlab.websocket.handshake import Request, Response

__all__ = ["Answer", "HandshakeForm", "handshake_form"]

ANSWER_SECONDS: Final = 2.0
READ_SIZE: Final = 64 * 1024
MAX_LETTERS: Final = 500
SWITCHING: Final = 101
GOOD, BAD = "good", "bad"
REQUEST_LINE: Final = "request line"  # not shown: a key


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the request: its name, what it holds at first, what it must hold, and the clause of RFC 6455."""

    name: str
    spoiled: str
    rule: str
    clause: str


LINES: Final = (
    Line(REQUEST_LINE, "GET / HTTP/1.1", _("GET, a path, and HTTP/1.1 at least"), "§4.1 (2)"),
    Line("Host", "", _("the server's name, as in the URL"), "§4.1 (4)"),
    Line("Upgrade", "websocket", _("the protocol to change to"), "§4.1 (5)"),
    Line("Connection", "keep-alive", _("has to name Upgrade, which concerns this connection only"), "§4.1 (6)"),
    Line("Sec-WebSocket-Key", "c2hvcnQ=", _("16 random bytes in base64, so 24 letters"), "§4.1 (7)"),
    Line("Sec-WebSocket-Version", "8", _("13, the only one in use"), "§4.1 (9)"),
    Line("Origin", "http://evil.example", _("the page that asks; programs that are no browser send none"), "§4.1 (8)"),
)
NAMES: Final = tuple(line.name for line in LINES)
# What each server's reasons say of which line, the first that matches; quoted values are taken out before.
SPEAKS_OF: Final = (
    (r"Sec-WebSocket-Key", "Sec-WebSocket-Key"),
    (r"WebSocket version|Sec-WebSocket-Version", "Sec-WebSocket-Version"),
    (r"Connection (is|header)", "Connection"),  # not shown: a server's words
    (r"Upgrade (is|header)", "Upgrade"),  # not shown: a server's words
    (r"pages of|Origin", "Origin"),  # not shown: a server's words
    (r"Host|is not called", "Host"),  # not shown: a server's words
    (r"method|target|request line|HTTP", REQUEST_LINE),  # not shown: a server's words
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said to a request: a status with its phrase and reason; without a status, why there is none."""

    status: int | None = None
    phrase: str = ""
    reason: str = ""
    accept: str = ""

    @property
    def headline(self) -> str:
        """Return the status line without the version, or the words for no answer."""
        return f"{self.status} {self.phrase}" if self.status is not None else _("no answer")


async def handshake_form(*urls: str, names: Sequence[str] = ()) -> HandshakeForm:
    """Return the form for the servers at `urls`, once they have judged the first request.

    `names` are what the servers are called, "server 1", "server 2", … by default.
    """
    numbered = [_("server {number}").format(number=number) for number in range(1, len(urls) + 1)]
    form = HandshakeForm(dict(zip([*names, *numbered[len(names) :]], urls, strict=True)))
    await form.judge()
    return form


class HandshakeForm(LivePicture):
    """A request in seven lines; `change` some of them, and `judge` them on every server."""

    _esm = source("common.js", "handshake_form.js")

    def __init__(self, servers: Mapping[str, str]) -> None:
        if not servers:
            raise ValueError(_("handshake_form needs the URL of at least one server."))
        super().__init__(_words())
        self.servers = dict(servers)
        self.lines = _spoiled()
        self.answers: dict[str, Answer] = {}
        self._judging: asyncio.Task[None] | None = None
        self._resets = 0
        self._draw("")

    # What a learner does

    def received(self, content: dict[str, Any]) -> None:
        """Take changed lines, or go back to the first request; then send it, if it differs or is to be sent again."""
        match content:
            case {"do": "change", "lines": dict(lines), "again": bool(again)}:
                if not self.change(lines) and not again:
                    return
            case {"do": "reset"}:
                self.lines = _spoiled()
                self._resets += 1
            case _:
                return
        self._judging = self._tasks.start(self._judge_instead(self._judging), name="handshake-form")

    def change(self, lines: Mapping[str, str]) -> bool:
        """Take new values of some lines, and return whether any differs."""
        for name, value in lines.items():
            if name not in NAMES or not isinstance(value, str):
                raise ValueError(_("The form has no line {name!r}.").format(name=name))
            if len(value) > MAX_LETTERS:
                sentence = _("{name} has {count} letters; the form sends {limit} at most.")
                raise ValueError(sentence.format(name=name, count=len(value), limit=MAX_LETTERS))
            if re.search(r"[\r\n]", value):
                raise ValueError(_("{name} has a line break in it; each field is one line.").format(name=name))
        changed = {**self.lines, **lines}
        differs = changed != self.lines
        self.lines = changed
        return differs

    def request(self) -> bytes:
        """Return the bytes to send: the lines that are not empty, and the empty line."""
        headers = [f"{name}: {value}" for name, value in self.lines.items() if name != REQUEST_LINE and value]
        text = "\r\n".join([self.lines[REQUEST_LINE], *headers, "", ""])
        return text.encode(errors="replace")  # half a character of a pair cannot be encoded

    async def judge(self) -> dict[str, Answer]:
        """Send the request to every server; return their answers by name."""
        request = self.request()
        answers = await asyncio.gather(*(ask(url, request) for url in self.servers.values()))
        self.answers = dict(zip(self.servers, answers, strict=True))
        self._draw(_status(self.answers))
        return self.answers

    async def _judge_instead(self, earlier: asyncio.Task[None] | None) -> None:
        await cancel(earlier)
        await self.judge()

    # What is shown

    def remarks(self) -> dict[str, list[dict[str, str]]]:
        """Return for each line what the servers say of it, with the server's name and a tone."""
        found: dict[str, list[dict[str, str]]] = {name: [] for name in NAMES}
        for server, answer in self.answers.items():
            where, text = self._remark(answer)
            tone = GOOD if answer.status == SWITCHING else BAD
            found[where].append({"server": server, "text": text, "tone": tone})
        return found

    def _remark(self, answer: Answer) -> tuple[str, str]:
        if answer.status == SWITCHING:
            proof = _("proves that it has read this key: {accept}").format(accept=answer.accept)
            return "Sec-WebSocket-Key", proof
        text = f"{answer.headline}: {answer.reason}" if answer.status is not None else answer.reason
        return _line_of(answer.reason) or _line_of(self._broken_rule()) or REQUEST_LINE, text

    def _broken_rule(self) -> str:
        """Return the first rule that the request breaks, for a server that does not name any."""
        try:
            parsed = Request.parse(self.request())
            if parsed is not None:
                handshake.accept(parsed[0])
        except HandshakeError as error:
            return str(error)
        return ""

    def _draw(self, status: str) -> None:
        shown = [
            {"name": name, "headline": answer.headline, "tone": GOOD if answer.status == SWITCHING else BAD}
            for name, answer in self.answers.items()
        ]
        self.state = {
            "lines": self.lines,
            "answers": shown,
            "remarks": self.remarks(),
            "status": status,
            "repeated": any(answer.status != SWITCHING for answer in self.answers.values()),
            "resets": self._resets,
        }

    def refused(self, sentence: str) -> None:
        """Show a sentence about bad input."""
        self.state = {**self.state, "status": sentence, "repeated": False}

    def still(self) -> str:
        """Return the request line by line, with what the servers say, as HTML."""
        heads = "".join(f"<th>{escape(name)}</th>" for name in (_("line"), _("value"), _("what the servers say")))
        remarks = self.remarks()
        lines = "".join(
            f'<tr><th scope="row" style="text-align:left">{escape(name)}</th><td style="text-align:left">'
            f'<code>{escape(value)}</code></td><td style="text-align:left">{escape(_joined(remarks[name]))}</td></tr>'
            for name, value in self.lines.items()
        )
        return f"<p><b>{escape(_title())}</b></p><table><tr>{heads}</tr>{lines}</table>"

    def plain(self) -> str:
        """Return the request and the answers as text."""
        lines = [f"{name}: {value}" for name, value in self.lines.items()]
        answers = [f"{name}: {answer.headline}: {answer.reason}".rstrip(": ") for name, answer in self.answers.items()]
        return "\n".join([_title(), *lines, *answers])


def _spoiled() -> dict[str, str]:
    return {line.name: line.spoiled for line in LINES}


def _line_of(reason: str) -> str:
    words = re.sub(r"'[^']*'|\"[^\"]*\"", "", reason)
    return next((name for pattern, name in SPEAKS_OF if re.search(pattern, words)), "")


def _status(answers: Mapping[str, Answer]) -> str:
    if all(answer.status == SWITCHING for answer in answers.values()):
        return _("✔ 101: HTTP ends here. The next byte on such a connection belongs to a WebSocket frame.")
    return "; ".join(f"{name}: {answer.headline}" for name, answer in answers.items())


def _joined(remarks: Sequence[Mapping[str, str]]) -> str:
    return "; ".join(f"{remark['server']}: {remark['text']}" for remark in remarks)


# --- One server ------------------------------------------------------------------------------------------------------


async def ask(url: str, request: bytes, *, seconds: float = ANSWER_SECONDS) -> Answer:
    """Send the bytes on a new connection; return the answer within `seconds`. Never raises for what the server does."""
    try:
        async with asyncio.timeout(seconds):
            return await _ask(url, request)
    except TimeoutError:
        sentence = _("nothing within {seconds:g} s: the server still waits for more of the request")
        return Answer(reason=sentence.format(seconds=seconds))
    except HandshakeError as error:
        return Answer(reason=str(error))
    except OSError:
        return Answer(reason=_("the server cannot be reached; run the cell that starts it, then this one"))


async def _ask(url: str, request: bytes) -> Answer:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(request)
        response = await _response(reader)
        if response is None:
            return Answer(reason=_("the server has closed the connection without a word"))
        if response.status == SWITCHING:
            close = Close(CloseCode.NORMAL_CLOSURE).serialize()
            writer.write(Frame(Opcode.CLOSE, close, mask=new_mask()).serialize())
        reason = response.body.decode(errors="replace").strip()
        return Answer(response.status, response.reason, reason, response.get("Sec-WebSocket-Accept") or "")
    finally:
        writer.close()


async def _response(reader: asyncio.StreamReader) -> Response | None:
    """Return the response, None if the connection ends before its end. Raises `HandshakeError` if it is not HTTP."""
    data = b""
    while (parsed := Response.parse(data)) is None:
        try:
            piece = await reader.read(READ_SIZE)
        except ConnectionError:
            return None  # reset: bytes of the request were unread when the server closed
        if not piece:
            return None
        data += piece
    return parsed[0]


# --- Words -----------------------------------------------------------------------------------------------------------


def _title() -> str:
    return _("A handshake, line by line")


def _words() -> dict[str, Any]:
    lines = [
        {"name": line.name, "label": _label(line.name), "rule": line.rule, "clause": f"RFC 6455 {line.clause}"}
        for line in LINES
    ]
    return {
        "title": _title(),
        "help": _("Get it from 400 to 101. Every change is sent to each server; an empty field is not sent."),
        "lines": lines,
        "reset": _("Reset"),
    }


def _label(name: str) -> str:
    return _("Request line") if name == REQUEST_LINE else name
