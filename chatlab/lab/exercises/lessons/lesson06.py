"""Lesson 06: type frames, serialize one, agree on heart-beats, find what is owed, parse frames, two clients."""

from __future__ import annotations

import asyncio
import inspect
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import aiohttp
from websockets.exceptions import ConnectionClosed

from chatlab.clients.stomp import StompClient
from chatlab.errors import StompError
from chatlab.lab.exercises.difference import Difference
from chatlab.lab.exercises.exercise import Exercise, NotYet
from chatlab.lab.exercises.support.chat import chat_in_memory, frames_of, late_chat, overheard
from chatlab.lab.experiments.lesson06 import CONNECT, SUBSCRIBE, draw, talk
from chatlab.locale import _
from chatlab.stomp.frames import Frame, Parser

__all__ = ["EXERCISES"]

# --- 06.0 ---

LUNCH = "/topic/lunch"


def typed() -> list[str]:
    return ["SUBSCRIBE\nid:1\ndestination:/topic/lunch\nreceipt:r1\n\n\0", "SEND\ndestination:/topic/lunch\n\n김밥!\0"]


async def check_typed(answer: object) -> None:
    frames = _as_texts(answer)
    for text in frames:
        _has_the_form(text)
    _are_what_was_asked("".join(frames))
    if isinstance(answer, str | bytes) or len(frames) != 2:
        raise NotYet(_("a list of two texts, one for each frame, with a comma between them"))
    async with chat_in_memory() as server:
        conversation = await talk(server.url, CONNECT, *frames)
    if conversation.error:
        refused = _("the server refuses it: {error}").format(error=conversation.error)
        raise NotYet(refused, conversation)
    if not any(each.startswith("MESSAGE") for each in conversation.answers):
        raise NotYet(_("what is sent to the destination comes back as a MESSAGE"), conversation)


def _as_texts(answer: object) -> list[str]:
    given = [answer] if isinstance(answer, str | bytes) else answer
    if not isinstance(given, list | tuple) or not all(isinstance(each, str | bytes) for each in given):
        raise NotYet(_("two frames: a list of two texts"), _("typed is {answer!r}").format(answer=answer))
    return [each.decode() if isinstance(each, bytes) else each for each in given]


def _has_the_form(text: str) -> None:
    """Check what makes a text a frame, before a server waits for the rest of it."""
    if not text.rstrip("\r\n").endswith("\0"):
        raise NotYet(_(r"a frame ends with a zero byte, which Python writes \0"), draw(text))
    if "\n\n" not in text.replace("\r\n", "\n").partition("\0")[0]:
        raise NotYet(_("an empty line ends the headers, also where no body follows"), draw(text))


def _are_what_was_asked(text: str) -> None:
    try:
        frames = [each for each in Parser(version="1.2").feed(text.encode()) if isinstance(each, Frame)]
    except StompError as error:
        raise NotYet(_("a header is name:value, one on each line"), f"{error}\n{draw(text)}") from None
    shown = "\n\n".join(str(draw(each)) for each in text.split("\0") if each)
    commands = [frame.command for frame in frames]
    if commands != ["SUBSCRIBE", "SEND"]:
        raise NotYet(
            _("the commands are SUBSCRIBE and then SEND, in capitals"),
            _("they are {commands}").format(commands=", ".join(commands)),
        )
    for frame in frames:
        destination = frame.get("destination")
        if destination is not None and destination != LUNCH and destination.strip() == LUNCH:
            raise NotYet(_("nothing is trimmed: no space after the colon of a header"), shown)
        if destination != LUNCH:
            rule = _("both frames have the header destination, with the value {topic}").format(topic=LUNCH)
            raise NotYet(rule, shown)
    subscribe, send = frames
    if not subscribe.get("id"):
        raise NotYet(_("a SUBSCRIBE has an id of your choice, by which each MESSAGE names it"), shown)
    if not subscribe.get("receipt"):
        raise NotYet(_("the header receipt on SUBSCRIBE asks for an answer"), shown)
    if not send.body:
        raise NotYet(_("the SEND has a body, between the empty line and the zero byte"), shown)


# --- 06.1 ---


def serialize(command: str, headers: dict[str, str], body: str = "") -> bytes:
    def escaped(text: str) -> str:
        for plain, written in (("\\", "\\\\"), ("\r", "\\r"), ("\n", "\\n"), (":", "\\c")):
            text = text.replace(plain, written)
        return text

    octets = body.encode()
    if octets:
        headers = {**headers, "content-length": str(len(octets))}
    if command not in ("CONNECT", "CONNECTED"):
        headers = {escaped(name): escaped(value) for name, value in headers.items()}
    lines = [command, *(f"{name}:{value}" for name, value in headers.items())]
    return "\n".join(lines).encode() + b"\n\n" + octets + b"\0"


BACKSLASH_FIRST = _(r"a backslash is written \\, and it is the first to be replaced: the other escapes add new ones")
# (command, headers, body, a header line as it is on the wire, the rule this tests)
FRAMES: list[tuple[str, dict[str, str], str, bytes, str]] = [
    (
        "SEND",
        {"destination": "/topic/hello", "priority": "9"},
        "",
        b"destination:/topic/hello",
        _("a frame is its command, its headers (one per line), an empty line, its body and a zero byte"),
    ),
    (
        "SEND",
        {"destination": "/topic/hello"},
        "안녕 👋",
        b"destination:/topic/hello",
        _("content-length counts octets, the bytes on the wire, not characters"),
    ),
    (
        "SEND",
        {"destination": "/topic/hello"},
        "하나\0둘",
        b"content-length:10",
        _("a body with a zero byte in it needs a content-length, or it ends there"),
    ),
    ("SEND", {"destination": "/topic/a:b"}, "x", rb"destination:/topic/a\cb", _(r"a colon in a value is written \c")),
    ("SEND", {"a:b": "1"}, "x", rb"a\cb:1", _("names are escaped like values")),
    (
        "SEND",
        {"note": "one\ntwo\rthree"},  # not shown: on the wire
        "x",
        rb"note:one\ntwo\rthree",
        _(r"a line feed in a header is written \n, and a carriage return \r: a real one would end the line"),
    ),
    ("SEND", {"file": "C:\\new"}, "x", rb"file:C\c\\new", BACKSLASH_FIRST),
    (
        "CONNECT",
        {"host": "chat.example", "passcode": "a:b\\c"},
        "",
        rb"passcode:a:b\c",
        _("nothing is escaped in CONNECT and CONNECTED: they look the same in every version"),
    ),
]


def check_serialize(answer: Callable[..., object]) -> None:
    for command, headers, body, line, rule in FRAMES:
        given = dict(headers)
        got = answer(command, given, body)
        if given != headers:
            raise NotYet(
                _("the caller's dict stays as it was: put what you add into a dict of your own"),
                _("after serialize({command!r}, headers, {body!r}), headers is\n{given}").format(
                    command=command, body=body, given=given
                ),
                difference=Difference(str(given), str(headers)),
            )
        if not isinstance(got, bytes):
            raise NotYet(
                _("what goes on the wire is bytes: encode it"),
                _("serialize(...) returned a {kind}").format(kind=type(got).__name__),
            )
        _reads_as(got, Frame(command, tuple(headers.items()), body.encode()), line, rule)


def _reads_as(got: bytes, wanted: Frame, line: bytes, rule: str) -> None:
    """Raise `NotYet` unless a server reads these octets as the wanted frame; `line` is a header line they must have."""
    call = _("serialize({command!r}, {headers}, {body!r}) returned").format(
        command=wanted.command, headers=dict(wanted.headers), body=wanted.body.decode()
    )
    shown = f"{call}\n{draw(got)}\n"
    difference = Difference(got, serialize(wanted.command, dict(wanted.headers), wanted.body.decode()))
    lines = got.partition(b"\n\n")[0].split(b"\n")
    if line not in lines:
        doubled = line.replace(b"\\", b"\\\\") in lines
        missing = _("it has no line {line!r}").format(line=line)
        raise NotYet(BACKSLASH_FIRST if doubled else rule, shown + missing, difference=difference)
    try:
        found = Parser(version="1.2").feed(got)
    except StompError as error:
        says = _("a server says: {error}").format(error=error)
        raise NotYet(rule, shown + says, difference=difference) from None
    if len(found) != 1 or not isinstance(found[0], Frame):
        counted = _("a server finds {count} complete frames in it").format(count=len(found))
        raise NotYet(rule, shown + counted, difference=difference)
    kept = tuple(header for header in found[0].headers if header[0] != "content-length")
    if found[0]._replace(headers=kept) != wanted:
        read = _("a server reads it as\n{frame!r}").format(frame=found[0])
        raise NotYet(rule, shown + read, difference=difference)


# --- 06.2 ---


def agree(client: str | None, server: str | None) -> tuple[int, int]:
    can, wants = map(int, (client or "0,0").split(","))
    server_can, server_wants = map(int, (server or "0,0").split(","))
    up = max(can, server_wants) if can and server_wants else 0
    down = max(server_can, wants) if server_can and wants else 0
    return up, down


CLIENT_FIRST = _("the first value returned is the client's interval, the second the server's")
TWO_NUMBERS = _("the answer is two whole numbers, in milliseconds")
BEATS: list[tuple[str | None, str | None, tuple[int, int], str]] = [
    ("1000,1000", "1000,1000", (1000, 1000), TWO_NUMBERS),
    (
        "500,0",
        "0,2000",
        (2000, 0),
        _("of what one side can do and the other side wants, the slower counts: the larger value"),
    ),
    ("3000,0", "0,200", (3000, 0), _("neither side has to send more often than it can: the larger value counts")),
    ("0,700", "900,0", (0, 900), _("what the server can do is matched with what the client wants")),
    ("0,5000", "0,5000", (0, 0), _("a side that cannot send (0) does not, whatever the other wants")),
    ("400,0", "300,0", (0, 0), _("a side that wants nothing (0) gets nothing, whatever the other can do")),
    ("200,600", "400,300", (300, 600), _("each direction is agreed on its own")),
    (None, "1000,1000", (0, 0), _("no header at all (None) means 0,0")),
    ("1000,1000", None, (0, 0), _("no header at all (None) means 0,0, on either side")),
]


def check_agree(answer: Callable[[str | None, str | None], object]) -> None:
    for client, server, wanted, rule in BEATS:
        try:
            got = answer(client, server)
        except (AttributeError, TypeError, ValueError) as error:
            if client is None or server is None:
                raise NotYet(
                    rule,
                    _("agree({client!r}, {server!r}) raised {kind}: {error}").format(
                        client=client, server=server, kind=type(error).__name__, error=error
                    ),
                ) from None
            raise
        if not isinstance(got, tuple | list) or tuple(got) != wanted:
            swapped = isinstance(got, tuple | list) and tuple(got) == wanted[::-1]
            raise NotYet(
                CLIENT_FIRST if swapped else rule if _are_numbers(got) else TWO_NUMBERS,
                _("agree({client!r}, {server!r}) returned {got!r}, not {wanted}").format(
                    client=client, server=server, got=got, wanted=wanted
                ),
                difference=Difference(got, wanted),
            )


def _are_numbers(got: object) -> bool:
    return isinstance(got, tuple | list) and len(got) == 2 and all(isinstance(each, int) for each in got)


# --- 06.3 ---


def owed(sent: list[str], mode: str, acks: list[str]) -> list[str]:
    if mode == "auto":
        return []
    if mode == "client" and acks:
        last = max(sent.index(each) for each in acks)
        return sent[last + 1 :]
    return [each for each in sent if each not in acks]


ORDERS = ["라면", "김밥", "어묵", "떡볶이"]
ACKS: list[tuple[str, list[str], str]] = [
    ("client-individual", [], _("without an ACK everything is owed")),
    ("client-individual", ["김밥"], _("in the mode client-individual, an ACK settles only that message")),
    ("client-individual", ["떡볶이", "라면"], _("the order of the ACKs does not matter")),
    ("client", [], _("without an ACK everything is owed")),
    ("client", ["김밥"], _("in the mode client, an ACK settles that message and all messages sent before it")),
    ("client", ["라면", "어묵"], _("in the mode client, the ACK of the latest message counts")),
    ("auto", [], _("in the mode auto, a message is settled as soon as it is sent: nothing is owed")),
]


async def sent_again(url: str, mode: str, acks: Sequence[str]) -> list[str]:
    """Let a queue's subscriber send these ACKs and leave; return what a real server then sends to the next one."""
    async with StompClient(url, reconnect=False) as first:
        orders = await first.subscribe("/queue/orders", ack=mode)
        for text in ORDERS:
            await first.send("/queue/orders", text)
        messages = {text: await anext(orders) for text in ORDERS}
        for text in acks:
            await orders.ack(messages[text])
    async with StompClient(url, reconnect=False) as second:
        rest = await second.subscribe("/queue/orders")
        await second.send("/queue/orders", "closed")
        again: list[str] = []
        while (text := (await anext(rest)).body.decode()) != "closed":
            again.append(text)
        return again


async def check_owed(answer: Callable[[list[str], str, list[str]], object]) -> None:
    async with chat_in_memory() as server:
        for mode, acks, rule in ACKS:
            again = await sent_again(server.url, mode, acks)
            call = f"owed({ORDERS}, {mode!r}, {acks})"
            truth = _("a real server sent the next subscriber {again}").format(again=again)
            try:
                got = answer(list(ORDERS), mode, list(acks))
            except Exception as error:
                raise NotYet(rule, f"{call}\n{truth}") from error
            if got != again:
                returned = _("{call} returned {got!r}\n{truth}").format(call=call, got=got, truth=truth)
                raise NotYet(rule, returned, difference=Difference(got, again))


# --- 06.4 ---


def take_frames(held: bytearray) -> list[tuple[str, dict[str, str], bytes]]:
    found: list[tuple[str, dict[str, str], bytes]] = []
    while True:
        while held[:1] == b"\n":
            del held[:1]
        head_end = held.find(b"\n\n")
        if head_end < 0:
            return found
        command, *lines = held[:head_end].decode().split("\n")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers.setdefault(name, value)
        start = head_end + 2
        end = held.find(b"\0", start)
        if "content-length" in headers:
            end = start + int(headers["content-length"])
        if not start <= end < len(held):
            return found
        found.append((command, headers, bytes(held[start:end])))
        del held[: end + 1]


Taken = tuple[str, dict[str, str], bytes]
HELLO = "SEND\ndestination:/topic/hello\n\n안녕 👋\0".encode()
HELLO_TAKEN: Taken = ("SEND", {"destination": "/topic/hello"}, "안녕 👋".encode())
WITH_NUL = "SEND\nroom:둘\ncontent-length:10\n\n하나\0둘\0".encode()
WITH_NUL_TAKEN: Taken = ("SEND", {"room": "둘", "content-length": "10"}, "하나\0둘".encode())
BYE, BYE_TAKEN = b"DISCONNECT\nreceipt:r-9\n\n\0", ("DISCONNECT", {"receipt": "r-9"}, b"")

# (the pieces that arrive, the frames to be taken after each, the rule this tests)
FEEDS: list[tuple[list[bytes], list[list[Taken]], str]] = [
    ([b""], [[]], _("while nothing is held, there is no frame")),
    ([HELLO], [[HELLO_TAKEN]], _("a complete frame is taken: (command, headers, body), the body as bytes")),
    ([HELLO, b""], [[HELLO_TAKEN], []], _("a frame that was taken is deleted from `held`")),
    (
        [b"SEND\ndestina", b"tion:/a\n\nx\0"],
        [[], [("SEND", {"destination": "/a"}, b"x")]],
        _("half a head is left for later"),
    ),
    ([HELLO[:-3], HELLO[-3:]], [[], [HELLO_TAKEN]], _("half a body is left for later")),
    ([BYE], [[BYE_TAKEN]], _("a frame may have no body")),
    ([HELLO + BYE + HELLO[:9]], [[HELLO_TAKEN, BYE_TAKEN]], _("all complete frames are taken, in order")),
    (
        [b"\n\n" + HELLO + b"\n" + BYE + b"\n"],
        [[HELLO_TAKEN, BYE_TAKEN]],
        _("line ends between frames are heart-beats"),
    ),
    ([WITH_NUL + BYE], [[WITH_NUL_TAKEN, BYE_TAKEN]], _("content-length says how long the body is, zero bytes or not")),
    ([WITH_NUL[:-5], WITH_NUL[-5:]], [[], [WITH_NUL_TAKEN]], _("a body with a content-length may be cut too")),
    (
        [WITH_NUL[:-1], WITH_NUL[-1:] + BYE],
        [[], [WITH_NUL_TAKEN, BYE_TAKEN]],
        _("the zero byte after the body belongs to the frame, content-length or not"),
    ),
    (
        [b"SEND\nurl:ws://a:1\n\nx\n\ny:z\0"],
        [[("SEND", {"url": "ws://a:1"}, b"x\n\ny:z")]],
        _("the first colon ends the name, and the first empty line ends the head"),
    ),
    (
        [b"SEND\ndestination:/first\ndestination:/second\n\n\0"],
        [[("SEND", {"destination": "/first"}, b"")]],
        _("if a header is repeated, the first one counts"),
    ),
]
CUT_ANYWHERE = _("it must not matter where the bytes are cut, not even inside a character")


def check_take_frames(answer: Callable[[bytearray], object]) -> None:
    for pieces, wanted, rule in FEEDS:
        _feed(answer, pieces, wanted, rule)
    stream = HELLO + b"\n" + WITH_NUL + BYE
    everything = [HELLO_TAKEN, WITH_NUL_TAKEN, BYE_TAKEN]
    for cut in range(1, len(stream)):
        _feed_all(answer, [stream[:cut], stream[cut:]], everything)
    _feed_all(answer, [bytes([octet]) for octet in stream], everything)


def _feed(answer: Callable[[bytearray], object], pieces: list[bytes], wanted: list[list[Taken]], rule: str) -> None:
    held = bytearray()
    for piece, expected in zip(pieces, wanted, strict=True):
        held += piece
        before = bytes(held)
        got = _frames_in(answer, held, rule)
        if got != expected:
            raise NotYet(
                rule,
                _("held was {before!r}\ntake_frames(held) returned {got!r}\nnot {expected!r}").format(
                    before=before, got=got, expected=expected
                ),
                difference=Difference(got, expected),
            )


def _feed_all(answer: Callable[[bytearray], object], pieces: list[bytes], wanted: list[Taken]) -> None:
    held, found = bytearray(), list[object]()
    for piece in pieces:
        held += piece
        got = _frames_in(answer, held, CUT_ANYWHERE)
        found += got if isinstance(got, list) else [got]
    if found != wanted:
        shown = " | ".join(repr(piece)[1:] for piece in pieces[:2])
        shown += " | …" if len(pieces) > 2 else ""
        raise NotYet(
            CUT_ANYWHERE,
            _("it arrived as {shown}\nfound: {found!r}").format(shown=shown, found=found),
            difference=Difference(found, wanted),
        )


def _frames_in(answer: Callable[[bytearray], object], held: bytearray, rule: str) -> object:
    before = bytes(held)
    try:
        return answer(held)
    except UnicodeDecodeError as error:
        raise NotYet(
            CUT_ANYWHERE, _("held was {before!r}\ntake_frames(held) raised {error}").format(before=before, error=error)
        ) from None
    except Exception as error:
        raise NotYet(rule, _("held was {before!r}").format(before=before)) from error


# --- 06.5 ---


async def converse(url: str, destination: str, texts: list[str]) -> list[str]:
    from websockets.asyncio.client import connect

    from chatlab.stomp.frames import Frame, Parser

    parser, shown, answers = Parser(version="1.2"), [], []
    async with connect(url, subprotocols=["v12.stomp"], proxy=None) as socket:  # type: ignore[list-item]  # a NewType

        async def send(command: str, body: str = "", **headers: str) -> None:
            frame = Frame(command, tuple(headers.items()), body.encode())
            await socket.send(frame.serialize().decode())

        async def until_answered(answer: str) -> None:
            while answer not in answers:
                await read()

        async def read() -> None:
            for frame in parser.feed(await socket.recv(decode=False)):
                if not isinstance(frame, Frame):
                    continue  # a heart-beat
                if frame.command == "ERROR":
                    raise ConnectionError(frame.get("message"))
                if frame.command == "MESSAGE":
                    shown.append(frame.body.decode())
                answers.append(frame.get("receipt-id") or frame.command)

        await send("CONNECT", **{"accept-version": "1.2", "host": "chat"})
        await until_answered("CONNECTED")
        await send("SUBSCRIBE", id="1", destination=destination, receipt="subscribed")
        await until_answered("subscribed")
        for number, text in enumerate(texts):
            await send("SEND", text, destination=destination, receipt=f"sent {number}")
            await until_answered(f"sent {number}")
        while not set(texts) <= set(shown):
            await read()
        await send("DISCONNECT", receipt="bye")
        await until_answered("bye")
    return shown


Converse = Callable[[str, str, list[str]], Awaitable[list[str]]]
SECONDS = 4.0  # for a conversation that takes some tenths of a second
TOPIC = "/topic/lesson"
STEPS = ["CONNECT", "SUBSCRIBE", "SEND", "DISCONNECT"]


async def check_converse(answer: Converse) -> None:
    if not inspect.iscoroutinefunction(answer):
        raise NotYet(_("it waits for answers, so it must be an `async def`"), answer)
    async with chat_in_memory() as server:
        await _one_text(answer, server.url)
        await _any_text(answer, server.url)
        await _among_others(answer, server.url)
        await _reports_an_error(answer, server.url)
    await _waits_for_its_own(answer)


@dataclass(frozen=True)
class Conversation:
    """A conversation of the learner's client with a real server: the frames, and what it returned or raised."""

    frames: list[tuple[str, Frame]]  # (sender, frame)
    returned: object = None
    error: Exception | None = None

    def __str__(self) -> str:
        return _listed(self.frames)

    @property
    def end(self) -> str:
        """How the learner's code ended."""
        if self.error:
            return _("it raised {error!r}").format(error=self.error)
        return _("it returned {value!r}").format(value=self.returned)


async def _converse(answer: Converse, url: str, texts: list[str]) -> Conversation:
    async with overheard(url) as wire:
        try:
            async with asyncio.timeout(SECONDS):
                returned = await answer(wire.url, TOPIC, texts)
        except Exception as error:
            return Conversation(frames_of(wire), error=error)
        return Conversation(frames_of(wire), returned)


def _listed(frames: list[tuple[str, Frame]]) -> str:
    """Return the frames, one per line, with their directions."""
    names = ("destination", "receipt", "receipt-id", "message")
    lines = []
    for sender, frame in frames:
        headers = " ".join(f"{name}:{value}" for name, value in frame.headers if name in names)
        lines.append(f"{'→' if sender == 'client' else '←'} {frame.command} {headers}".rstrip())
    return "\n".join(lines) or _("no frame was sent")


async def _one_text(answer: Converse, url: str) -> None:
    talk = await _converse(answer, url, ["안녕 👋"])
    mine = [frame for sender, frame in talk.frames if sender == "client"]
    if not mine or mine[0].command != "CONNECT" or not (mine[0].get("accept-version") and mine[0].get("host")):
        raise NotYet(_("the first frame is CONNECT, with accept-version and host"), talk)
    _each_step_waits(talk.frames)
    if isinstance(talk.error, TimeoutError):
        raise NotYet(
            _("after CONNECT, SUBSCRIBE, SEND and DISCONNECT it returns"),
            _("{talk}\nand then yours still waited").format(talk=talk),
        )
    if talk.error is not None:
        raise talk.error
    if [frame.command for frame in mine if frame.command != "(close)"] != STEPS:
        raise NotYet(_("the steps are {steps}").format(steps=", ".join(STEPS)), talk)
    if _unanswered(talk.frames):
        raise NotYet(_("before it leaves, it waits for the RECEIPT of DISCONNECT"), talk)
    if talk.returned != ["안녕 👋"]:
        raise NotYet(_("it returns the texts of the MESSAGEs it received"), f"{talk}\n{talk.end}")


def _each_step_waits(frames: list[tuple[str, Frame]]) -> None:
    """Raise `NotYet` if the client sent a frame before the answer to its previous one arrived."""
    for place, (sender, frame) in enumerate(frames):
        if sender == "server" or frame.command == "(close)":
            continue
        if waits_for := _unanswered(frames[:place]):
            raise NotYet(
                _("nothing is sent before CONNECTED has arrived")
                if waits_for == "CONNECTED"
                else _("each step waits for the RECEIPT of the one before"),
                _listed(frames),
            )
        if frame.command != "CONNECT" and frame.get("receipt") is None:
            raise NotYet(_("{command} asks for a receipt").format(command=frame.command), _listed(frames))


def _unanswered(frames: list[tuple[str, Frame]]) -> str:
    """Return the answer that the client's last frame waits for, or "" if it arrived before the client's close."""
    waits_for = ""
    for sender, frame in frames:
        if frame.command == "(close)":
            break
        if sender == "client":
            waits_for = "CONNECTED" if frame.command == "CONNECT" else frame.get("receipt") or ""
        elif waits_for in (frame.command, frame.get("receipt-id")):
            waits_for = ""
    return waits_for


async def _any_text(answer: Converse, url: str) -> None:
    texts = ["두 줄:\n\n이렇게", "영\0바이트", "끝 ✋"]
    talk = await _converse(answer, url, texts)
    _each_step_waits(talk.frames)
    if talk.returned != texts:
        rule = _("a text may contain anything, even empty lines and zero bytes, and there may be several")
        told = f"{talk}\n" + _("the texts were {texts!r}").format(texts=texts) + f"\n{talk.end}"
        raise NotYet(rule, told, difference=None if talk.error else Difference(talk.returned, texts))


async def _among_others(answer: Converse, url: str) -> None:
    """Have another client send a text to the topic as soon as the learner's first text arrives."""
    async with StompClient(url, reconnect=False) as nuri:
        messages = await nuri.subscribe(TOPIC)

        async def reply() -> None:
            await anext(messages)
            await nuri.send(TOPIC, "나도요!", receipt=False)

        replying = asyncio.create_task(reply())
        try:
            talk = await _converse(answer, url, ["하나", "둘", "셋"])
        finally:
            replying.cancel()
            await asyncio.wait([replying])
    sent = [frame.body.decode() for sender, frame in talk.frames if (sender, frame.command) == ("server", "MESSAGE")]
    if talk.returned != sent:
        rule = _("others send too: keep a MESSAGE that arrives while you wait for a RECEIPT")
        told = f"{talk}\n" + _("the server sent it {sent}").format(sent=sent) + f"\n{talk.end}"
        raise NotYet(rule, told, difference=None if talk.error else Difference(talk.returned, sent))


async def _waits_for_its_own(answer: Converse) -> None:
    """Let a server send three texts of others before the learner's own, which come late."""
    others, texts = ["먼저", "저도", "저는요"], ["하나", "둘", "셋"]
    async with late_chat(others) as url:
        talk = await _converse(answer, url, texts)
    if isinstance(talk.returned, list) and set(texts) <= set(talk.returned):
        return
    rule = _("it is done when its own texts are back: a MESSAGE may be somebody else's, and may come after the RECEIPT")
    told = f"{talk}\n" + _("its own texts were {texts!r}").format(texts=texts) + f"\n{talk.end}"
    raise NotYet(rule, told)


async def _reports_an_error(answer: Converse, url: str) -> None:
    rule = _("check for ERROR: raise an error of your own with the server's message")
    message = "takes messages only through"  # not shown: on the wire
    try:
        async with asyncio.timeout(SECONDS):
            returned = await answer(url, "/topic/public", ["안녕"])
            end = _("yours returned {returned!r}").format(returned=returned)
    except TimeoutError:
        end = _("yours still waits")
    except Exception as error:
        # The WebSocket's close has the same reason here, but STOMP promises only the ERROR.
        if any(message in str(each) and not isinstance(each, ConnectionClosed) for each in _each_in(error)):
            return
        end = _("yours raised {kind}: {error}").format(kind=type(error).__name__, error=error)
    answered = _("SEND to /topic/public is answered by ERROR '… {message} …'").format(message=message)
    raise NotYet(rule, f"{answered}\n{end}")


# --- 06.6 ---


async def by_sockjs(ask: Callable[..., Awaitable[str]], frames: list[str]) -> list[str]:
    import json

    await ask("/xhr")
    await ask("/xhr_send", json.dumps(frames))
    received: list[str] = []
    while not any(each.startswith("MESSAGE") for each in received):
        answer = await ask("/xhr")
        if answer.startswith("c"):
            raise ConnectionError(answer)
        if answer.startswith("a"):
            received += json.loads(answer[1:])
    return received


BySockjs = Callable[[Callable[..., Awaitable[str]], list[str]], Awaitable[list[str]]]
TYPED = [CONNECT, SUBSCRIBE, "SEND\ndestination:/topic/lunch\n\n김밥!\0"]
WENT_AWAY = 'c[3000,"Go away!"]\n'


class Requests:
    """A learner's requests in one SockJS session, and the answers; `script` answers in place of the server."""

    def __init__(self, url: str, script: Sequence[str] | None = None) -> None:
        self.lines: list[str] = []
        self.bodies: list[str | None] = []
        self.open = 0  # requests to /xhr that wait for their answer
        self._session = url.replace("ws:", "http:", 1) + f"/000/{uuid.uuid4().hex}"
        self._script = None if script is None else list(script)

    async def ask(self, path: str, body: str | None = None) -> str:
        """Send a POST to the session; return the text of the answer."""
        if path not in ("/xhr", "/xhr_send"):
            raise NotYet(_("the two requests are /xhr and /xhr_send"), _("asked for {path!r}").format(path=path))
        if path == "/xhr" and self.open:
            raise NotYet(_("one /xhr at a time: the next only when the last is answered"), self)
        self.lines.append(f"→ POST {path} {body or ''}".rstrip())
        self.bodies.append(body)
        self.open += path == "/xhr"
        try:
            answer = await self._answer(path, body)
        finally:
            self.open -= path == "/xhr"
        self.lines.append(f"← {answer.rstrip()}")
        return answer

    async def _answer(self, path: str, body: str | None) -> str:
        if self._script is not None:
            await asyncio.sleep(0)
            return "" if path == "/xhr_send" else self._script.pop(0) if self._script else WENT_AWAY
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(SECONDS)) as http,
            http.post(self._session + path, data=body) as answer,
        ):
            if answer.status == 404:
                raise NotYet(_("the first /xhr opens the session; before it, there is nothing to send to"), self)
            if answer.status >= 400:
                raise NotYet(
                    _("the body of /xhr_send is a JSON list of texts"), f"{self}\n{answer.status} {await answer.text()}"
                )
            return await answer.text()

    def __str__(self) -> str:
        return "\n".join(self.lines) or _("no request was sent")


async def check_by_sockjs(answer: BySockjs) -> None:
    if not inspect.iscoroutinefunction(answer):
        raise NotYet(_("it waits for answers, so it must be an `async def`"), answer)
    async with chat_in_memory() as server:
        requests = Requests(server.url)
        returned = await _asked(answer, requests, _("open with /xhr, send with /xhr_send, then ask /xhr for answers"))
        if not isinstance(returned, list) or [each.split("\n")[0] for each in returned] != ANSWERED:
            rule = _("it returns the server's frames up to the MESSAGE: the texts in the lists after each `a`")
            raise NotYet(rule, f"{requests}\n" + _("it returned {value!r}").format(value=returned))
    for script, wanted, rule in SCRIPTS:
        requests = Requests("", script)
        returned = await _asked(answer, requests, rule)
        if returned != wanted:
            told = f"{requests}\n" + _("it returned {value!r}").format(value=returned)
            raise NotYet(rule, told, difference=Difference(returned, wanted))
    await _ends_when_the_server_goes(answer)


ANSWERED = ["CONNECTED", "RECEIPT", "MESSAGE"]
# (the answers to /xhr, the frames to be returned, the rule this tests)
SCRIPTS: list[tuple[list[str], list[str], str]] = [
    (
        ["o\n", 'a["CONNECTED"]\n', 'a["RECEIPT","MESSAGE"]\n'],
        ANSWERED,
        _("an answer may have one frame or several; keep asking until the MESSAGE is there"),
    ),
    (
        ["o\n", "h\n", 'a["CONNECTED"]\n', "h\n", 'a["MESSAGE"]\n'],
        ["CONNECTED", "MESSAGE"],
        _("`h` is a heart-beat: it has no frames, and you ask again"),
    ),
]


async def _asked(answer: BySockjs, requests: Requests, rule: str) -> object:
    try:
        async with asyncio.timeout(SECONDS):
            return await answer(requests.ask, list(TYPED))
    except NotYet:
        raise
    except TimeoutError:
        raise NotYet(rule, f"{requests}\n" + _("yours still waits")) from None
    except Exception as error:
        raise NotYet(rule, requests) from error


async def _ends_when_the_server_goes(answer: BySockjs) -> None:
    rule = _("`c` means that the session is closed: raise an error of your own with what the server says")
    requests = Requests("", ["o\n", 'a["CONNECTED"]\n', WENT_AWAY])
    try:
        async with asyncio.timeout(SECONDS / 4):
            returned = await answer(requests.ask, list(TYPED))
            end = _("it returned {value!r}").format(value=returned)
    except TimeoutError:
        end = _("yours asks again and again")
    except Exception as error:
        if any("Go away!" in str(each) for each in _each_in(error)):  # not shown: on the wire
            return
        end = _("it raised {error!r}").format(error=error)
    raise NotYet(rule, "\n".join([*requests.lines[:8], end]))


def _each_in(error: BaseException) -> list[BaseException]:
    """Return the errors in a group, such as a `TaskGroup` raises; of any other error, itself."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [found for each in error.exceptions for found in _each_in(each)]


EXERCISES = [
    Exercise(
        "06.0",
        _("Two frames, typed"),
        check_typed,
        (
            _("Both are texts like the CONNECT above: a command, headers, an empty line, a body or none, and `\\0`."),
            _("SUBSCRIBE has three headers: `id:1`, `destination:/topic/lunch` and `receipt:r1`. It has no body."),
            _(
                "SEND has one header, `destination:/topic/lunch`, then the empty line, then your text, then `\\0`:\n"
                "    'SEND\\ndestination:/topic/lunch\\n\\n김밥!\\0'"
            ),
        ),
        typed,
        _("RECEIPT answers your `receipt`, and MESSAGE names your subscription by its `id`. Both ids are your choice."),
        makes=True,
        learned=_(
            "A server delivered what you sent to everybody who had subscribed, which was you: that is “publish and "
            "subscribe”."
        ),
        leads_to=_(
            "A second client subscribes to the same destination. Which headers of its MESSAGE will differ from yours?"
        ),
    ),
    Exercise(
        "06.1",
        _("The bytes of a frame"),
        check_serialize,
        (
            _(
                "Start as in the lesson: the command and the headers joined with line feeds, an empty line, the "
                "body, a zero byte. Encode the body first: `octets = body.encode()`. What is its length then?"
            ),
            _(
                "If there are octets, add a header: `headers = {**headers, 'content-length': str(len(octets))}`. For "
                "the escapes, write a small function that replaces one character after the other: the backslash "
                "first, then the carriage return, the line feed and the colon."
            ),
            _(
                "In Python '\\\\' is one backslash: `text.replace('\\\\', '\\\\\\\\')`, then '\\r' by '\\\\r', '\\n' "
                "by '\\\\n', ':' by '\\\\c'. Escape names and values, `{escaped(name): escaped(value) for name, "
                "value in headers.items()}`, but not if the command is CONNECT or CONNECTED."
            ),
        ),
        serialize,
        _(
            "The backslash goes first, or the backslashes of the other escapes would be doubled. CONNECT is not "
            "escaped because its reader does not know the version yet."
        ),
        learned=_(
            "No text can be mistaken for structure now: such a format is “binary-safe”, and what escaping prevents is "
            "called “injection”."
        ),
        leads_to=_("Why does STOMP 1.2 not escape the body?"),
    ),
    Exercise(
        "06.2",
        _("A heart-beat both can keep"),
        check_agree,
        (
            _(
                "Each side sends two values, `can,wants`: how often it can send something and how often it wants to "
                "receive something, in milliseconds. Match what the client can do with what the server wants."
            ),
            _(
                "Split them: `can, wants = map(int, client.split(','))`, and the same for the server. None means "
                "'0,0': `(client or '0,0').split(',')`."
            ),
            _(
                "From the client to the server: `max(can, server_wants) if can and server_wants else 0`. From the "
                "server to the client: the same with `server_can` and `wants`. Return both."
            ),
        ),
        agree,
        _(
            "The larger value is the longer interval, so neither side has to do more than it said it could. The "
            "specification: 'if <cx> is 0 or <sy> is 0 then there will be none; otherwise, there will be heart-beats "
            "every MAX(<cx>,<sy>) milliseconds'."
        ),
        learned=_(
            "Each direction gets the slower of two promises; settling such values before talking is called "
            "“negotiation”."
        ),
        leads_to=_(
            "A phone wants to save its battery, a proxy ends what is silent for 60 s. Which values would you offer?"
        ),
    ),
    Exercise(
        "06.3",
        _("What is still owed"),
        check_owed,
        (
            _(
                "Three modes, three lines. In `auto` the server considers a message settled as soon as it has sent "
                "it, so it owes nothing."
            ),
            _(
                "In `client-individual` an ACK covers one message: all others are owed, in the order in which they "
                "were sent. `[each for each in sent if each not in acks]`"
            ),
            _(
                "In `client` an ACK covers its message and all before it. Find the position of the latest one, "
                "`max(sent.index(each) for each in acks)`, and return what comes after it. Without an ACK, all of "
                "`sent`."
            ),
        ),
        owed,
        _(
            "`client` saves ACKs where messages are processed in order. With several workers it would settle "
            "messages that another worker is still processing; use `client-individual` there."
        ),
        learned=_(
            "What was delivered and not acknowledged is delivered again: a “redelivery”, and the promise is “at least "
            "once”."
        ),
        leads_to=_("A message makes every worker fail. What should happen after its fifth redelivery?"),
    ),
    Exercise(
        "06.4",
        _("Frames, wherever they are cut"),
        check_take_frames,
        (
            _(
                "A loop: drop the line ends in front (`while held[:1] == b'\\n': del held[:1]`), look for the end of "
                "the head (`held.find(b'\\n\\n')`), and if it is not there (-1), return what was found so far."
            ),
            _(
                "Decode only the head, now that it is complete: `command, *lines = "
                "held[:head_end].decode().split('\\n')`. Each line is `name, _, value = line.partition(':')`, and "
                "`headers.setdefault(name, value)` keeps the first."
            ),
            _(
                "The body starts at `head_end + 2` and ends at the next zero byte, `held.find(b'\\0', start)`; with a "
                "content-length it ends at `start + int(headers['content-length'])`."
            ),
            _(
                "Has the zero byte at `end` arrived? If not (`end < 0 or end >= len(held)`), return what was found. If "
                "so, add `(command, headers, bytes(held[start:end]))` and `del held[: end + 1]`."
            ),
        ),
        take_frames,
        _(
            "Nothing is taken before all of it has arrived, and nothing is decoded before it is complete. So it does "
            "not matter where the bytes are cut, and they will be cut: TCP has no message boundaries. "
            "`chatlab.stomp.frames.Parser` does the same, with limits."
        ),
        learned=_(
            "Bytes go into a buffer, whole messages come out: to cut a stream into messages is called “framing”."
        ),
        leads_to=_("Somebody sends a head that never ends. How much of it would your function keep?"),
    ),
    Exercise(
        "06.5",
        _("A STOMP client of your own"),
        check_converse,
        (
            _(
                "In `async with connect(url) as socket:` you need two functions: one that writes a frame, and one that "
                "reads whatever arrives. Writing: `Frame('SEND', (('destination', destination), ('receipt', '1')), "
                "text.encode())`, and `await socket.send(frame.serialize().decode())`. `connect`, `Frame` and `Parser` "
                "were imported above."
            ),
            _(
                "Reading, one WebSocket message: `for frame in parser.feed(await socket.recv(decode=False))`, with "
                "`parser = Parser(version='1.2')`. Whatever you are waiting for, handle every frame by its command: "
                "a MESSAGE goes into a list, an ERROR is raised (`raise ConnectionError(frame.get('message'))`). "
                "What is not a Frame is a heart-beat."
            ),
            _(
                "Keep `frame.get('receipt-id') or frame.command` of everything you read in a list `answers`. Waiting "
                "for something is then `while 'sent 1' not in answers: await read()`. For CONNECT, wait for "
                "'CONNECTED'."
            ),
            _(
                "In order: CONNECT with accept-version 1.2 and any host; SUBSCRIBE with id, destination, receipt; "
                "for each text SEND with destination and its own receipt; then read until `set(texts) <= "
                "set(shown)`, because a RECEIPT may arrive before the MESSAGE; DISCONNECT with a receipt. Return the "
                "list of MESSAGE texts."
            ),
        ),
        converse,
        _(
            "One function reads, and handles everything that arrives, whatever you happen to wait for. That is the "
            "whole difference between a script and a client. After DISCONNECT's RECEIPT you know that the server has "
            "received everything."
        ),
        learned=_("Each answer names the request it belongs to: an id that joins the two is a “correlation id”."),
        leads_to=_("You wait for a RECEIPT and the connection ends. Was your message stored?"),
    ),
    Exercise(
        "06.6",
        _("By ordinary requests"),
        check_by_sockjs,
        (
            _("Three steps: `ask('/xhr')` opens the session, `/xhr_send` carries your frames, then `/xhr` again."),
            _("The body of /xhr_send is `json.dumps(frames)`. An answer that starts with `a` goes on with a list."),
            _(
                "Ask /xhr in a loop until one of the frames starts with MESSAGE: `received += json.loads(answer[1:])` "
                "for an `a`, nothing for an `h`, `raise ConnectionError(answer)` for a `c`."
            ),
        ),
        by_sockjs,
        _(
            "Each /xhr waits at the server until there is something to say. Frames of STOMP go in and come out "
            "unchanged, so the rest of a client need not know what carries them."
        ),
        learned=_(
            "The frames did not change, only what carries them: such a carrier is called a “transport”, and asking and "
            "waiting for news “long polling”."
        ),
        leads_to=_("How many requests a minute does a silent client make with each of the two ways?"),
    ),
]
