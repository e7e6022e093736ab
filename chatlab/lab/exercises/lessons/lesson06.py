"""Lesson 06: the bytes of a frame, a heart-beat both can keep, what is owed, a parser, and a client of one's own."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from websockets.exceptions import ConnectionClosed

from chatlab.clients.stomp import StompClient
from chatlab.errors import StompError
from chatlab.lab.exercises.exercise import Exercise, NotYet
from chatlab.lab.exercises.support.chat import chat_in_memory, frames_of, overheard
from chatlab.stomp.frames import Frame, Parser

__all__ = ["EXERCISES"]

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


BACKSLASH_FIRST = r"a backslash is written \\, and it is the first to be replaced: the other escapes bring new ones"
# (command, headers, body, a header line as it stands on the wire, the rule that this shows)
FRAMES: list[tuple[str, dict[str, str], str, bytes, str]] = [
    (
        "SEND",
        {"destination": "/topic/hello", "priority": "9"},
        "",
        b"destination:/topic/hello",
        "a frame is its command, its headers one a line, an empty line, its body and a zero byte",
    ),
    (
        "SEND",
        {"destination": "/topic/hello"},
        "안녕 👋",
        b"destination:/topic/hello",
        "content-length counts octets, the bytes on the wire, not characters",
    ),
    (
        "SEND",
        {"destination": "/topic/hello"},
        "하나\0둘",
        b"content-length:10",
        "a body with a zero byte in it needs a content-length, or it ends there",
    ),
    ("SEND", {"destination": "/topic/a:b"}, "x", rb"destination:/topic/a\cb", r"a colon in a value is written \c"),
    ("SEND", {"a:b": "1"}, "x", rb"a\cb:1", "names are escaped as values are"),
    (
        "SEND",
        {"note": "one\ntwo\rthree"},
        "x",
        rb"note:one\ntwo\rthree",
        r"a line feed in a header is written \n, and a carriage return \r: a real one would end the line",
    ),
    ("SEND", {"file": "C:\\new"}, "x", rb"file:C\c\\new", BACKSLASH_FIRST),
    (
        "CONNECT",
        {"host": "chat.example", "passcode": "a:b\\c"},
        "",
        rb"passcode:a:b\c",
        "nothing is escaped in CONNECT and CONNECTED: they look the same in every version",
    ),
]


def check_serialize(answer: Callable[..., object]) -> None:
    for command, headers, body, line, rule in FRAMES:
        got = answer(command, dict(headers), body)
        if not isinstance(got, bytes):
            raise NotYet("what goes on the wire is bytes: encode it", f"serialize(...) gave a {type(got).__name__}")
        told = f"serialize({command!r}, {headers}, {body!r}) gave\n{got!r}"
        head, _, _ = got.partition(b"\n\n")
        if line not in head.split(b"\n"):
            if line.replace(b"\\", b"\\\\") in head.split(b"\n"):
                rule = BACKSLASH_FIRST
            raise NotYet(rule, f"{told}\nin which there is no line {line!r}")
        try:
            found = Parser(version="1.2").feed(got)
        except StompError as error:
            raise NotYet(rule, f"{told}\na server says: {error}") from None
        wanted = Frame(command, tuple(headers.items()), body.encode())
        if len(found) != 1 or not isinstance(found[0], Frame):
            raise NotYet(rule, f"{told}\nin which a server finds {len(found)} whole frames")
        kept = tuple(header for header in found[0].headers if header[0] != "content-length")
        if found[0]._replace(headers=kept) != wanted:
            raise NotYet(rule, f"{told}\nwhich a server reads as\n{found[0]!r}")


# --- 06.2 ---


def agree(client: str | None, server: str | None) -> tuple[int, int]:
    can, wants = map(int, (client or "0,0").split(","))
    server_can, server_wants = map(int, (server or "0,0").split(","))
    up = max(can, server_wants) if can and server_wants else 0
    down = max(server_can, wants) if server_can and wants else 0
    return up, down


BEATS: list[tuple[str | None, str | None, tuple[int, int], str]] = [
    ("1000,1000", "1000,1000", (1000, 1000), "the first figure returned is the client's beat, the second the server's"),
    ("500,0", "0,2000", (2000, 0), "of what one can and the other wants, the slower holds: the larger figure"),
    ("3000,0", "0,200", (3000, 0), "nobody is asked for more than it can: the larger figure holds"),
    ("0,700", "900,0", (0, 900), "what the server can goes with what the client wants"),
    ("0,5000", "0,5000", (0, 0), "who says that it cannot send (0) does not, whatever the other wants"),
    ("400,0", "300,0", (0, 0), "who wants nothing (0) gets nothing, whatever the other can"),
    ("200,600", "400,300", (300, 600), "each direction is agreed by itself"),
    (None, "1000,1000", (0, 0), "no header at all (None) means 0,0"),
    ("1000,1000", None, (0, 0), "no header at all (None) means 0,0, on either side"),
]


def check_agree(answer: Callable[[str | None, str | None], object]) -> None:
    for client, server, wanted, rule in BEATS:
        try:
            got = answer(client, server)
        except (AttributeError, TypeError, ValueError) as error:
            if client is None or server is None:
                raise NotYet(rule, f"agree({client!r}, {server!r}) raised {type(error).__name__}: {error}") from None
            raise
        if not isinstance(got, tuple | list) or tuple(got) != wanted:
            raise NotYet(rule, f"agree({client!r}, {server!r}) gave {got!r}, not {wanted}")


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
    ("client-individual", [], "without an ACK everything is owed"),
    ("client-individual", ["김밥"], "in the mode client-individual an ACK settles that one message"),
    ("client-individual", ["떡볶이", "라면"], "the order of the ACKs does not matter"),
    ("client", [], "without an ACK everything is owed"),
    ("client", ["김밥"], "in the mode client an ACK settles that message and all sent before it"),
    ("client", ["라면", "어묵"], "in the mode client the last ACK counts"),
    ("auto", [], "in the mode auto a message is settled as soon as it is sent: nothing is owed"),
]


async def sent_again(url: str, mode: str, acks: Sequence[str]) -> list[str]:
    """What a real server still owes: a subscriber of a queue says these ACKs and leaves; what does the next one get?"""
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
            truth = f"a real server sent the next subscriber {again}"
            try:
                got = answer(list(ORDERS), mode, list(acks))
            except Exception as error:
                raise NotYet(rule, f"{call}\n{truth}") from error
            if got != again:
                raise NotYet(rule, f"{call} gave {got!r}\n{truth}")


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

# (what comes, piece by piece; what is to be found in each; the rule that this shows)
FEEDS: list[tuple[list[bytes], list[list[Taken]], str]] = [
    ([b""], [[]], "where nothing is held, there is no frame"),
    ([HELLO], [[HELLO_TAKEN]], "a whole frame is taken: (command, headers, body), the body in bytes"),
    ([HELLO, b""], [[HELLO_TAKEN], []], "a frame that was taken is gone from `held`"),
    (
        [b"SEND\ndestina", b"tion:/a\n\nx\0"],
        [[], [("SEND", {"destination": "/a"}, b"x")]],
        "half a head is left for later",
    ),
    ([HELLO[:-3], HELLO[-3:]], [[], [HELLO_TAKEN]], "half a body is left for later"),
    ([BYE], [[BYE_TAKEN]], "a frame may have no body"),
    ([HELLO + BYE + HELLO[:9]], [[HELLO_TAKEN, BYE_TAKEN]], "all the whole frames that are here are taken, in order"),
    ([b"\n\n" + HELLO + b"\n" + BYE + b"\n"], [[HELLO_TAKEN, BYE_TAKEN]], "line ends between frames are heart-beats"),
    ([WITH_NUL + BYE], [[WITH_NUL_TAKEN, BYE_TAKEN]], "content-length says how long the body is, zero bytes or not"),
    ([WITH_NUL[:-5], WITH_NUL[-5:]], [[], [WITH_NUL_TAKEN]], "a body that has a content-length may be cut, too"),
    (
        [WITH_NUL[:-1], WITH_NUL[-1:] + BYE],
        [[], [WITH_NUL_TAKEN, BYE_TAKEN]],
        "the zero byte after the body belongs to the frame, content-length or not",
    ),
    (
        [b"SEND\nurl:ws://a:1\n\nx\n\ny:z\0"],
        [[("SEND", {"url": "ws://a:1"}, b"x\n\ny:z")]],
        "the first colon ends the name, and the first empty line the head",
    ),
    (
        [b"SEND\ndestination:/first\ndestination:/second\n\n\0"],
        [[("SEND", {"destination": "/first"}, b"")]],
        "of a header that comes twice the first counts",
    ),
]
CUT_ANYWHERE = "it must not matter where the bytes are cut, not even inside a character"


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
            raise NotYet(rule, f"held was {before!r}\ntake_frames(held) gave {got!r}\nnot {expected!r}")


def _feed_all(answer: Callable[[bytearray], object], pieces: list[bytes], wanted: list[Taken]) -> None:
    held, found = bytearray(), list[object]()
    for piece in pieces:
        held += piece
        got = _frames_in(answer, held, CUT_ANYWHERE)
        found += got if isinstance(got, list) else [got]
    if found != wanted:
        shown = " | ".join(repr(piece)[1:] for piece in pieces[:2])
        raise NotYet(CUT_ANYWHERE, f"it came as {shown}{' | …' if len(pieces) > 2 else ''}\nfound: {found!r}")


def _frames_in(answer: Callable[[bytearray], object], held: bytearray, rule: str) -> object:
    before = bytes(held)
    try:
        return answer(held)
    except UnicodeDecodeError as error:
        raise NotYet(CUT_ANYWHERE, f"held was {before!r}\ntake_frames(held) raised {error}") from None
    except Exception as error:
        raise NotYet(rule, f"held was {before!r}") from error


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
SECONDS = 4.0  # for a conversation of some tenths of a second
TOPIC = "/topic/lesson"
STEPS = ["CONNECT", "SUBSCRIBE", "SEND", "DISCONNECT"]


async def check_converse(answer: Converse) -> None:
    if not inspect.iscoroutinefunction(answer):
        raise NotYet("it waits for answers, so it must be an `async def`", answer)
    async with chat_in_memory() as server:
        await _one_text(answer, server.url)
        await _any_text(answer, server.url)
        await _among_others(answer, server.url)
        await _refused(answer, server.url)


@dataclass(frozen=True)
class Talk:
    """The answer's conversation with a real server: what was said, what it returned, or the error that ended it."""

    said: list[tuple[str, Frame]]
    shown: object = None
    error: Exception | None = None

    def __str__(self) -> str:
        return _told(self.said)


async def _talk(answer: Converse, url: str, texts: list[str]) -> Talk:
    async with overheard(url) as wire:
        try:
            async with asyncio.timeout(SECONDS):
                shown = await answer(wire.url, TOPIC, texts)
        except Exception as error:
            return Talk(frames_of(wire), error=error)
        return Talk(frames_of(wire), shown)


def _told(said: list[tuple[str, Frame]]) -> str:
    """Who said what, a frame a line."""
    names = ("destination", "receipt", "receipt-id", "message")
    lines = []
    for sender, frame in said:
        headers = " ".join(f"{name}:{value}" for name, value in frame.headers if name in names)
        lines.append(f"{'→' if sender == 'client' else '←'} {frame.command} {headers}".rstrip())
    return "\n".join(lines) or "no frame was sent"


async def _one_text(answer: Converse, url: str) -> None:
    talk = await _talk(answer, url, ["안녕 👋"])
    mine = [frame for sender, frame in talk.said if sender == "client"]
    if not mine or mine[0].command != "CONNECT" or not (mine[0].get("accept-version") and mine[0].get("host")):
        raise NotYet("the first frame is CONNECT, with accept-version and host", talk)
    _each_step_waits(talk.said)
    if isinstance(talk.error, TimeoutError):
        raise NotYet("after CONNECT, SUBSCRIBE, SEND and DISCONNECT it is over", f"{talk}\nand then yours still waits")
    if talk.error is not None:
        raise talk.error
    if [frame.command for frame in mine if frame.command != "(close)"] != STEPS:
        raise NotYet(f"the steps are {', '.join(STEPS)}", talk)
    if _unanswered(talk.said):
        raise NotYet("leaving waits for the RECEIPT of DISCONNECT", talk)
    if talk.shown != ["안녕 👋"]:
        raise NotYet("it returns the texts of the MESSAGEs it was shown", f"{talk}\nit returned {talk.shown!r}")


def _each_step_waits(said: list[tuple[str, Frame]]) -> None:
    """Between a frame of the client's and its next, the answer to the first must have come."""
    for place, (sender, frame) in enumerate(said):
        if sender == "server" or frame.command == "(close)":
            continue
        if waits_for := _unanswered(said[:place]):
            raise NotYet(
                "nothing is sent before CONNECTED has come"
                if waits_for == "CONNECTED"
                else "each step waits for the RECEIPT of the one before",
                _told(said),
            )
        if frame.command != "CONNECT" and frame.get("receipt") is None:
            raise NotYet(f"{frame.command} asks for a receipt", _told(said))


def _unanswered(said: list[tuple[str, Frame]]) -> str:
    """The answer that the client's last frame waits for, if it has not come by the end or the client's close."""
    waits_for = ""
    for sender, frame in said:
        if frame.command == "(close)":
            break
        if sender == "client":
            waits_for = "CONNECTED" if frame.command == "CONNECT" else frame.get("receipt") or ""
        elif waits_for in (frame.command, frame.get("receipt-id")):
            waits_for = ""
    return waits_for


async def _any_text(answer: Converse, url: str) -> None:
    texts = ["두 줄:\n\n이렇게", "영\0바이트", "끝 ✋"]
    talk = await _talk(answer, url, texts)
    if talk.shown != texts:
        ended = f"raised {talk.error!r}" if talk.error else f"returned {talk.shown!r}"
        rule = "a text may hold anything, empty lines and zero bytes too, and there may be several"
        raise NotYet(rule, f"{talk}\nfor {texts!r} it {ended}")


async def _among_others(answer: Converse, url: str) -> None:
    """Somebody else is on the topic, and says something as soon as the answer's first text is there."""
    async with StompClient(url, reconnect=False) as nuri:
        heard = await nuri.subscribe(TOPIC)

        async def reply() -> None:
            await anext(heard)
            await nuri.send(TOPIC, "나도요!", receipt=False)

        replying = asyncio.create_task(reply())
        try:
            talk = await _talk(answer, url, ["하나", "둘", "셋"])
        finally:
            replying.cancel()
            await asyncio.wait([replying])
    messages = [frame.body.decode() for sender, frame in talk.said if (sender, frame.command) == ("server", "MESSAGE")]
    if talk.shown != messages:
        ended = f"raised {talk.error!r}" if talk.error else f"returned {talk.shown!r}"
        rule = "others talk too: a MESSAGE that comes while you wait for a RECEIPT is kept"
        raise NotYet(rule, f"{talk}\nit was shown {messages}, and {ended}")


async def _refused(answer: Converse, url: str) -> None:
    rule = "an ERROR is looked at: raise an error of your own with the server's words"
    words = "takes messages only through"
    try:
        async with asyncio.timeout(SECONDS):
            ended = f"returned {await answer(url, '/topic/public', ['안녕'])!r}"
    except TimeoutError:
        ended = "still waits"
    except Exception as error:
        # The reason of the WebSocket's close says the same: but that is luck, the ERROR is what STOMP promises.
        if words in str(error) and not isinstance(error, ConnectionClosed):
            return
        ended = f"raised {type(error).__name__}: {error}"
    raise NotYet(rule, f"SEND to /topic/public is answered by ERROR '… {words} …'; yours {ended}")


EXERCISES = [
    Exercise(
        "06.1",
        "The bytes of a frame",
        check_serialize,
        (
            "Begin as in the lesson: the command and the headers joined with line feeds, an empty line, the body, a "
            "zero byte. Encode the body first: `octets = body.encode()`. Then what is its length?",
            "If there are octets, add a header: `headers = {**headers, 'content-length': str(len(octets))}`. For the "
            "escapes write a small function that replaces one character after the other: the backslash first, then the "
            "carriage return, the line feed and the colon.",
            r"In Python '\\' is one backslash: `text.replace('\\', '\\\\')`, then '\r' by '\\r', '\n' by '\\n', ':' "
            r"by '\\c'. Escape names and values, `{escaped(name): escaped(value) for name, value in "
            r"headers.items()}`, but not if the command is CONNECT or CONNECTED.",
        ),
        serialize,
        "The backslash goes first, or the backslashes of the other escapes would be doubled. CONNECT is left as it is "
        "because its reader does not know yet which version it will be.",
    ),
    Exercise(
        "06.2",
        "A heart-beat both can keep",
        check_agree,
        (
            "Each side says two figures, `can,wants`: it can send every so many milliseconds, and wants to hear "
            "something every so many. What the client can goes with what the server wants.",
            "Take them apart: `can, wants = map(int, client.split(','))`, and the same for the server. None stands for "
            "'0,0': `(client or '0,0').split(',')`.",
            "Upwards: `max(can, server_wants) if can and server_wants else 0`. Downwards: the same with `server_can` "
            "and `wants`. Return both.",
        ),
        agree,
        "The larger figure is the longer wait, so neither side is asked for more than it said it could do. The "
        "specification: 'if <cx> is 0 or <sy> is 0 then there will be none; otherwise, there will be heart-beats every "
        "MAX(<cx>,<sy>) milliseconds'.",
    ),
    Exercise(
        "06.3",
        "What is still owed",
        check_owed,
        (
            "Three modes, three lines. In `auto` the server takes a message as settled when it has sent it, so it owes "
            "nothing.",
            "In `client-individual` an ACK speaks for one message: all others are owed, in the order they were sent. "
            "`[each for each in sent if each not in acks]`",
            "In `client` an ACK speaks for its message and for all before it. Find the place of the last one, "
            "`max(sent.index(each) for each in acks)`, and return what comes after it. Without an ACK, all of `sent`.",
        ),
        owed,
        "`client` saves ACKs where messages are worked on in order; with several workers it would settle what somebody "
        "still has in hand, and `client-individual` is right.",
    ),
    Exercise(
        "06.4",
        "Frames, wherever they are cut",
        check_take_frames,
        (
            "A loop: drop the line ends in front (`while held[:1] == b'\\n': del held[:1]`), look for the end of the "
            "head (`held.find(b'\\n\\n')`), and if it is not there (-1), return what was found so far.",
            "Decode the head alone, now that it is whole: `command, *lines = held[:head_end].decode().split('\\n')`. "
            "Each line is `name, _, value = line.partition(':')`, and `headers.setdefault(name, value)` keeps the "
            "first.",
            "The body begins at `head_end + 2` and ends at the next zero byte, `held.find(b'\\0', start)`; with a "
            "content-length it ends at `start + int(headers['content-length'])`.",
            "Is the zero byte at `end` here already? If not (`end < 0 or end >= len(held)`), return what was found. If "
            "so, add `(command, headers, bytes(held[start:end]))` and `del held[: end + 1]`.",
        ),
        take_frames,
        "Nothing is taken before all of it is here, and nothing is decoded before it is whole. So it does not matter "
        "how the bytes were cut, and they are: TCP keeps no borders. `chatlab.stomp.frames.Parser` does the same, "
        "with limits.",
    ),
    Exercise(
        "06.5",
        "A STOMP client of your own",
        check_converse,
        (
            "Over `async with connect(url) as socket:` you need two things: one that writes a frame, and one that "
            "reads whatever comes. Writing: `Frame('SEND', (('destination', destination), ('receipt', '1')), "
            "text.encode())`, and `await socket.send(frame.serialize().decode())`. `connect`, `Frame` and `Parser` "
            "were imported above.",
            "Reading, one WebSocket message: `for frame in parser.feed(await socket.recv(decode=False))`, with "
            "`parser = Parser(version='1.2')`. Whatever you wait for, treat every frame by its command: MESSAGE goes "
            "into a list, ERROR is raised (`raise ConnectionError(frame.get('message'))`), what is no Frame is a "
            "heart-beat.",
            "Keep `frame.get('receipt-id') or frame.command` of everything you read in a list `answers`. To wait for "
            "something is then `while 'sent 1' not in answers: await read()`. For CONNECT wait for 'CONNECTED'.",
            "In order: CONNECT with accept-version 1.2 and any host; SUBSCRIBE with id, destination, receipt; for "
            "each text SEND with destination and a receipt of its own; then read until `set(texts) <= set(shown)`, "
            "since a RECEIPT may come before the MESSAGE; DISCONNECT with a receipt. Return the list of MESSAGE texts.",
        ),
        converse,
        "One place reads, and everything that comes has its meaning there, whatever you happen to wait for. That is "
        "the whole difference between a script and a client. After DISCONNECT's RECEIPT you know that the server has "
        "had all.",
    ),
]
