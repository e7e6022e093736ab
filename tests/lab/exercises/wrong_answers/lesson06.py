"""Plausible wrong answers to lesson 06's exercises, each with a part of the text that the learner must be shown."""

import asyncio
import json
from collections.abc import Awaitable, Callable

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from chatlab.stomp.frames import Frame, Parser
from tests.lab.exercises.answers import WrongAnswers, wrong_in

WRONG: WrongAnswers = {}
wrong = wrong_in(WRONG)

# --- 06.0 ---

SUBSCRIBE = "SUBSCRIBE\nid:1\ndestination:/topic/lunch\nreceipt:r1\n\n\0"
SEND = "SEND\ndestination:/topic/lunch\n\n김밥!\0"

WRONG["06.0"] = [
    (SUBSCRIBE, "SUBSCRIBE and then SEND"),
    ({"SUBSCRIBE": SUBSCRIBE}, "a list of two texts"),
    (SUBSCRIBE + SEND, "a comma between them"),
    ([SUBSCRIBE + SEND], "a comma between them"),
    ([SUBSCRIBE, SEND[:-1]], "ends with a zero byte"),
    ([SUBSCRIBE.replace("\0", "^@"), SEND], "ends with a zero byte"),
    ([SUBSCRIBE.replace("\n\n", "\n"), SEND], "an empty line ends the headers"),
    ([SUBSCRIBE, "SEND\ndestination:/topic/lunch\n김밥!\n\n\0"], "name:value, one on each line"),
    ([SUBSCRIBE.lower(), SEND], "in capitals"),
    ([SEND, SUBSCRIBE], "SUBSCRIBE and then SEND"),
    ([SUBSCRIBE.replace(":/topic", ": /topic"), SEND], "no space after the colon"),
    ([SUBSCRIBE, SEND.replace("lunch", "dinner")], "with the value /topic/lunch"),
    ([SUBSCRIBE.replace("id:1\n", ""), SEND], "an id of your choice"),
    ([SUBSCRIBE.replace("receipt:r1\n", ""), SEND], "asks for an answer"),
    ([SUBSCRIBE, SEND.replace("김밥!", "")], "the SEND has a body"),
    ([SUBSCRIBE, SEND.replace("\n\n", "\ncontent-length:3\n\n")], "name:value"),
]

# --- 06.1 ---


def joined(command: str, headers: dict[str, str], octets: bytes) -> bytes:
    lines = [command, *(f"{name}:{value}" for name, value in headers.items())]
    return "\n".join(lines).encode() + b"\n\n" + octets + b"\0"


@wrong("06.1", "encode it")
def a_text(command: str, headers: dict[str, str], body: str = "") -> str:
    return joined(command, headers, body.encode()).decode()


@wrong("06.1", "an empty line, its body and a zero byte")
def no_zero_byte(command: str, headers: dict[str, str], body: str = "") -> bytes:
    return joined(command, headers, body.encode())[:-1]


@wrong("06.1", "counts octets")
def counts_characters(command: str, headers: dict[str, str], body: str = "") -> bytes:
    return joined(command, {**headers, "content-length": str(len(body))}, body.encode())


@wrong("06.1", "or it ends there")
def as_in_the_lesson(command: str, headers: dict[str, str], body: str = "") -> bytes:
    return joined(command, headers, body.encode())


def with_length(headers: dict[str, str], body: str) -> dict[str, str]:
    return {**headers, "content-length": str(len(body.encode()))} if body else headers


@wrong("06.1", "a colon in a value")
def escapes_nothing(command: str, headers: dict[str, str], body: str = "") -> bytes:
    return joined(command, with_length(headers, body), body.encode())


def escaped(text: str, *characters: str) -> str:
    for plain in characters:
        text = text.replace(plain, {"\\": "\\\\", "\r": "\\r", "\n": "\\n", ":": "\\c"}[plain])
    return text


@wrong("06.1", "names are escaped")
def escapes_values_only(command: str, headers: dict[str, str], body: str = "") -> bytes:
    headers = {name: escaped(value, "\\", "\r", "\n", ":") for name, value in headers.items()}
    return joined(command, with_length(headers, body), body.encode())


@wrong("06.1", "a carriage return")
def forgets_the_carriage_return(command: str, headers: dict[str, str], body: str = "") -> bytes:
    headers = {escaped(name, ":"): escaped(value, "\\", "\n", ":") for name, value in headers.items()}
    return joined(command, with_length(headers, body), body.encode())


@wrong("06.1", "the first to be replaced")
def backslash_last(command: str, headers: dict[str, str], body: str = "") -> bytes:
    headers = {escaped(name, ":"): escaped(value, "\r", "\n", ":", "\\") for name, value in headers.items()}
    return joined(command, with_length(headers, body), body.encode())


@wrong("06.1", "nothing is escaped in CONNECT")
def escapes_connect_too(command: str, headers: dict[str, str], body: str = "") -> bytes:
    headers = {escaped(name, ":"): escaped(value, "\\", "\r", "\n", ":") for name, value in headers.items()}
    return joined(command, with_length(headers, body), body.encode())


@wrong("06.1", "the caller's dict stays as it was")
def adds_to_the_callers_dict(command: str, headers: dict[str, str], body: str = "") -> bytes:
    if body:
        headers["content-length"] = str(len(body.encode()))
    if command != "CONNECT":
        headers = {
            escaped(name, "\\", "\r", "\n", ":"): escaped(headers[name], "\\", "\r", "\n", ":") for name in headers
        }
    return joined(command, headers, body.encode())


@wrong("06.1", "an empty line, its body and a zero byte")
def zero_byte_as_text(command: str, headers: dict[str, str], body: str = "") -> bytes:
    return joined(command, with_length(headers, body), body.encode())[:-1] + b"\\0"


# --- 06.2 ---


def figures(header: str | None) -> tuple[int, int]:
    can, wants = (header or "0,0").split(",")
    return int(can), int(wants)


@wrong("06.2", "the larger value")
def the_faster(client: str | None, server: str | None) -> tuple[int, int]:
    (cx, cy), (sx, sy) = figures(client), figures(server)
    return (min(cx, sy) if cx and sy else 0), (min(sx, cy) if sx and cy else 0)


@wrong("06.2", "the slower counts")
def not_crossed(client: str | None, server: str | None) -> tuple[int, int]:
    (cx, cy), (sx, sy) = figures(client), figures(server)
    return (max(cx, sx) if cx and sx else 0), (max(cy, sy) if cy and sy else 0)


@wrong("06.2", "a side that cannot send (0) does not")
def zero_is_a_figure(client: str | None, server: str | None) -> tuple[int, int]:
    (cx, cy), (sx, sy) = figures(client), figures(server)
    return (max(cx, sy) if sy else 0), (max(sx, cy) if sx else 0)


@wrong("06.2", "neither side has to send more often than it can")
def as_the_other_wants(client: str | None, server: str | None) -> tuple[int, int]:
    (cx, cy), (sx, sy) = figures(client), figures(server)
    return (sy if cx else 0), (cy if sx else 0)


@wrong("06.2", "a side that wants nothing (0)")
def asks_only_who_can(client: str | None, server: str | None) -> tuple[int, int]:
    (cx, cy), (sx, sy) = figures(client), figures(server)
    return (max(cx, sy) if cx else 0), (max(sx, cy) if sx else 0)


@wrong("06.2", "no header at all (None)")
def always_a_header(client: str, server: str) -> tuple[int, int]:
    (cx, cy), (sx, sy) = (map(int, each.split(",")) for each in (client, server))
    return (max(cx, sy) if cx and sy else 0), (max(sx, cy) if sx and cy else 0)


@wrong("06.2", "the first value returned is the client's")
def the_server_first(client: str | None, server: str | None) -> tuple[int, int]:
    (cx, cy), (sx, sy) = figures(client), figures(server)
    return (max(sx, cy) if sx and cy else 0), (max(cx, sy) if cx and sy else 0)


@wrong("06.2", "two whole numbers")
def as_a_header(client: str | None, server: str | None) -> str:
    (cx, cy), (sx, sy) = figures(client), figures(server)
    return f"{max(cx, sy) if cx and sy else 0},{max(sx, cy) if sx and cy else 0}"


@wrong("06.2", "on either side")
def only_the_client_may_say_nothing(client: str | None, server: str) -> tuple[int, int]:
    (cx, cy), (sx, sy) = figures(client), map(int, server.split(","))
    return (max(cx, sy) if cx and sy else 0), (max(sx, cy) if sx and cy else 0)


# --- 06.3 ---


@wrong("06.3", "settles only that message")
def always_cumulative(sent: list[str], mode: str, acks: list[str]) -> list[str]:
    return sent[sent.index(acks[-1]) + 1 :] if acks else sent


@wrong("06.3", "all messages sent before it")
def never_cumulative(sent: list[str], mode: str, acks: list[str]) -> list[str]:
    return [] if mode == "auto" else [each for each in sent if each not in acks]


@wrong("06.3", "as soon as it is sent")
def auto_waits_too(sent: list[str], mode: str, acks: list[str]) -> list[str]:
    if mode == "client" and acks:
        return sent[sent.index(acks[-1]) + 1 :]
    return [each for each in sent if each not in acks]


@wrong("06.3", "without an ACK everything is owed")
def thinks_there_is_an_ack(sent: list[str], mode: str, acks: list[str]) -> list[str]:
    if mode == "client":
        return sent[sent.index(acks[-1]) + 1 :]
    return [] if mode == "auto" else [each for each in sent if each not in acks]


@wrong("06.3", "the ACK of the latest message counts")
def the_first_ack(sent: list[str], mode: str, acks: list[str]) -> list[str]:
    if mode == "client" and acks:
        return sent[sent.index(acks[0]) + 1 :]
    return [] if mode == "auto" else [each for each in sent if each not in acks]


@wrong("06.3", "without an ACK everything is owed")
def nothing_is_owed(sent: list[str], mode: str, acks: list[str]) -> list[str]:
    return [each for each in sent if each in acks]


@wrong("06.3", "the order of the ACKs does not matter")
def from_the_last_ack_on(sent: list[str], mode: str, acks: list[str]) -> list[str]:
    if mode == "auto":
        return []
    if mode == "client":
        return sent[max([sent.index(each) for each in acks], default=-1) + 1 :]
    rest = list(sent)
    for each, ack in zip(sent, acks, strict=False):
        if each == ack or ack in rest[:2]:
            rest.remove(ack)
    return rest


@wrong("06.3", "in the mode auto")
def auto_owes_all(sent: list[str], mode: str, acks: list[str]) -> list[str]:
    if mode == "client" and acks:
        return sent[max(sent.index(each) for each in acks) + 1 :]
    return [each for each in sent if each not in acks]


@wrong("06.3", "all messages sent before it")
def one_before_is_enough(sent: list[str], mode: str, acks: list[str]) -> list[str]:
    if mode == "client" and acks:
        last = max(sent.index(each) for each in acks)
        return [each for each in sent if each != sent[last]]
    return [] if mode == "auto" else [each for each in sent if each not in acks]


# --- 06.4 ---

Taken = tuple[str, dict[str, str], bytes]


def taken(whole: bytes) -> Taken:
    head, _, body = whole.partition(b"\n\n")
    command, *lines = head.decode().split("\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers.setdefault(name, value)
    return command, headers, body


@wrong("06.4", "is left for later")
def takes_what_is_there(held: bytearray) -> list[Taken]:
    found = [taken(each) for each in bytes(held).split(b"\0") if each]
    held.clear()
    return found


@wrong("06.4", "is deleted from `held`")
def leaves_it_there(held: bytearray) -> list[Taken]:
    return [taken(each.lstrip(b"\n")) for each in bytes(held).split(b"\0")[:-1]]


@wrong("06.4", "while nothing is held, there is no frame")
def thinks_there_is_a_frame(held: bytearray) -> list[Taken]:
    end = held.index(b"\0")
    found = [taken(bytes(held[:end]))]
    del held[: end + 1]
    return found


@wrong("06.4", "all complete frames")
def one_at_a_time(held: bytearray) -> list[Taken]:
    whole, nul, rest = bytes(held).lstrip(b"\n").partition(b"\0")
    if not nul:
        return []
    held[:] = rest
    return [taken(whole)]


def each_until_a_zero_byte(held: bytearray) -> list[bytes]:
    *whole, rest = bytes(held).split(b"\0")
    held[:] = rest
    return whole


@wrong("06.4", "heart-beats")
def does_not_know_heart_beats(held: bytearray) -> list[Taken]:
    return [taken(each) for each in each_until_a_zero_byte(held)]


@wrong("06.4", "zero bytes or not")
def trusts_zero_bytes(held: bytearray) -> list[Taken]:
    return [taken(each.lstrip(b"\n")) for each in each_until_a_zero_byte(held)]


def takes_frames(held: bytearray, *, early: int = 0, last_wins: bool = False, whole_text: bool = False) -> list[Taken]:
    """Take frames correctly, except for the mistakes that the options ask for."""
    found: list[Taken] = []
    while True:
        del held[: len(held) - len(held.lstrip(b"\n"))]
        if whole_text:
            held.decode()
        start = held.find(b"\n\n") + 2
        if start < 2:
            return found
        command, headers, _ = taken(bytes(held[:start]))
        if last_wins:
            lines = bytes(held[: start - 2]).decode().split("\n")[1:]
            headers = {line.split(":", 1)[0]: line.split(":", 1)[1] for line in lines}
        length = headers.get("content-length")
        end = start + int(length) if length else held.find(b"\0", start)
        if end < 0 or end >= len(held) + early:
            return found
        found.append((command, headers, bytes(held[start:end])))
        del held[: end + 1]


@wrong("06.4", "the zero byte after the body belongs to the frame")
def does_not_wait_for_the_zero_byte(held: bytearray) -> list[Taken]:
    return takes_frames(held, early=1)


@wrong("06.4", "the first one counts")
def the_last_counts(held: bytearray) -> list[Taken]:
    return takes_frames(held, last_wins=True)


@wrong("06.4", "not even inside a character")
def decodes_what_is_held(held: bytearray) -> list[Taken]:
    return takes_frames(held, whole_text=True)


# --- 06.5 ---


class Talk:
    """A client whose conversation can be changed to go wrong."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.parser = Parser(version="1.2")
        self.shown: list[str] = []
        self.answers: list[str] = []

    async def send(self, command: str, body: str = "", **headers: str) -> None:
        frame = Frame(command, tuple(headers.items()), body.encode())
        await self.socket.send(frame.serialize().decode())

    async def read(self) -> None:
        for frame in self.parser.feed(await self.socket.recv(decode=False)):
            assert isinstance(frame, Frame)
            if frame.command == "ERROR":
                raise ConnectionError(frame.get("message"))
            if frame.command == "MESSAGE":
                self.shown.append(frame.body.decode())
            self.answers.append(frame.get("receipt-id") or frame.command)

    async def until_answered(self, answer: str) -> None:
        while answer not in self.answers:
            await self.read()

    async def connect_and_subscribe(self, destination: str, **headers: str) -> None:
        await self.send("CONNECT", **({"accept-version": "1.2", "host": "chat"} | headers))
        await self.until_answered("CONNECTED")
        await self.send("SUBSCRIBE", id="1", destination=destination, receipt="in")
        await self.until_answered("in")

    async def say(self, destination: str, texts: list[str]) -> None:
        for text in texts:
            await self.send("SEND", text, destination=destination, receipt=text[:1])
            await self.until_answered(text[:1])
        while not set(texts) <= set(self.shown):
            await self.read()

    async def leave(self) -> list[str]:
        await self.send("DISCONNECT", receipt="bye")
        await self.until_answered("bye")
        return self.shown


STOMP = [Subprotocol("v12.stomp")]


@wrong("06.5", "must be an `async def`")
def not_async(url: str, destination: str, texts: list[str]) -> list[str]:
    return texts


@wrong("06.5", "the first frame is CONNECT")
async def begins_with_subscribe(url: str, destination: str, texts: list[str]) -> list[str]:
    async with connect(url, subprotocols=STOMP) as socket:
        talk = Talk(socket)
        await talk.send("SUBSCRIBE", id="1", destination=destination, receipt="in")
        await talk.until_answered("in")
        return talk.shown


@wrong("06.5", "before CONNECTED has arrived")
async def sends_everything_at_once(url: str, destination: str, texts: list[str]) -> list[str]:
    async with connect(url, subprotocols=STOMP) as socket:
        talk = Talk(socket)
        await talk.send("CONNECT", **{"accept-version": "1.2", "host": "chat"})
        await talk.send("SUBSCRIBE", id="1", destination=destination, receipt="in")
        await talk.until_answered("in")
        await talk.say(destination, texts)
        return await talk.leave()


@wrong("06.5", "SEND asks for a receipt")
async def sends_without_receipt(url: str, destination: str, texts: list[str]) -> list[str]:
    async with connect(url, subprotocols=STOMP) as socket:
        talk = Talk(socket)
        await talk.connect_and_subscribe(destination)
        for text in texts:
            await talk.send("SEND", text, destination=destination)
        while not set(texts) <= set(talk.shown):
            await talk.read()
        return await talk.leave()


@wrong("06.5", "each step waits for the RECEIPT")
async def does_not_wait_to_be_subscribed(url: str, destination: str, texts: list[str]) -> list[str]:
    async with connect(url, subprotocols=STOMP) as socket:
        talk = Talk(socket)
        await talk.send("CONNECT", **{"accept-version": "1.2", "host": "chat"})
        await talk.until_answered("CONNECTED")
        await talk.send("SUBSCRIBE", id="1", destination=destination, receipt="in")
        await talk.say(destination, texts)
        return await talk.leave()


@wrong("06.5", "before it leaves, it waits for the RECEIPT of DISCONNECT")
async def leaves_without_waiting(url: str, destination: str, texts: list[str]) -> list[str]:
    async with connect(url, subprotocols=STOMP) as socket:
        talk = Talk(socket)
        await talk.connect_and_subscribe(destination)
        await talk.say(destination, texts)
        await talk.send("DISCONNECT", receipt="bye")
    return talk.shown


@wrong("06.5", "the steps are CONNECT, SUBSCRIBE, SEND, DISCONNECT")
async def just_closes(url: str, destination: str, texts: list[str]) -> list[str]:
    async with connect(url, subprotocols=STOMP) as socket:
        talk = Talk(socket)
        await talk.connect_and_subscribe(destination)
        await talk.say(destination, texts)
    return talk.shown


@wrong("06.5", "even empty lines and zero bytes")
async def writes_frames_by_hand(url: str, destination: str, texts: list[str]) -> list[str]:
    async with connect(url, subprotocols=STOMP) as socket:
        talk = Talk(socket)
        await talk.connect_and_subscribe(destination)
        for text in texts:
            await socket.send(f"SEND\ndestination:{destination}\nreceipt:{text[:1]}\n\n{text}\0")
            await talk.until_answered(text[:1])
        while not set(texts) <= set(talk.shown):
            await talk.read()
        return await talk.leave()


@wrong("06.5", "others send too")
async def returns_its_own_texts(url: str, destination: str, texts: list[str]) -> list[str]:
    async with connect(url, subprotocols=STOMP) as socket:
        talk = Talk(socket)
        await talk.connect_and_subscribe(destination)
        await talk.say(destination, texts)
        await talk.leave()
        return [text for text in talk.shown if text in texts]


class IgnoresErrors(Talk):
    async def read(self) -> None:
        for frame in self.parser.feed(await self.socket.recv(decode=False)):
            assert isinstance(frame, Frame)
            if frame.command == "MESSAGE":
                self.shown.append(frame.body.decode())
            self.answers.append(frame.get("receipt-id") or frame.command)


@wrong("06.5", "with the server's message")
async def does_not_know_errors(url: str, destination: str, texts: list[str]) -> list[str]:
    async with connect(url, subprotocols=STOMP) as socket:
        talk = IgnoresErrors(socket)
        await talk.connect_and_subscribe(destination)
        await talk.say(destination, texts)
        return await talk.leave()


@wrong("06.5", "each step waits for the RECEIPT")
async def sends_all_its_texts_at_once(url: str, destination: str, texts: list[str]) -> list[str]:
    async with connect(url, subprotocols=STOMP) as socket:
        talk = Talk(socket)
        await talk.connect_and_subscribe(destination)
        for text in texts:
            await talk.send("SEND", text, destination=destination, receipt=text[:1])
        for text in texts:
            await talk.until_answered(text[:1])
        while not set(texts) <= set(talk.shown):
            await talk.read()
        return await talk.leave()


@wrong("06.5", "may be somebody else's")
async def counts_messages_of_anybody(url: str, destination: str, texts: list[str]) -> list[str]:
    async with connect(url, subprotocols=STOMP) as socket:
        talk = Talk(socket)
        await talk.connect_and_subscribe(destination)
        for text in texts:
            await talk.send("SEND", text, destination=destination, receipt=text[:1])
            await talk.until_answered(text[:1])
        while len(talk.shown) < len(texts):
            await talk.read()
        return await talk.leave()


# --- 06.6 ---

Ask = Callable[..., Awaitable[str]]


async def polled(ask: Ask, *, first: str = "a", end: str = "MESSAGE", closed: bool = True) -> list[str]:
    """Ask until a frame starts with `end`; `first` are the letters of answers that are read as lists."""
    received: list[str] = []
    while not any(each.startswith(end) for each in received):
        answer = await ask("/xhr")
        if closed and answer.startswith("c"):
            raise ConnectionError(answer)
        if answer[0] in first:
            received += json.loads(answer[1:])
    return received


@wrong("06.6", "must be an `async def`")
def does_not_wait(ask: Ask, frames: list[str]) -> list[str]:
    return frames


@wrong("06.6", "the first /xhr opens the session")
async def sends_before_it_opens(ask: Ask, frames: list[str]) -> list[str]:
    await ask("/xhr_send", json.dumps(frames))
    return await polled(ask)


@wrong("06.6", "a JSON list of texts")
async def sends_frames_as_they_are(ask: Ask, frames: list[str]) -> list[str]:
    await ask("/xhr")
    await ask("/xhr_send", "".join(frames))
    return await polled(ask)


@wrong("06.6", "a JSON list of texts")
async def sends_an_object(ask: Ask, frames: list[str]) -> list[str]:
    await ask("/xhr")
    await ask("/xhr_send", json.dumps({"messages": frames}))
    return await polled(ask)


@wrong("06.6", "the two requests are /xhr and /xhr_send")
async def another_path(ask: Ask, frames: list[str]) -> list[str]:
    await ask("/xhr")
    await ask("/send", json.dumps(frames))
    return await polled(ask)


@wrong("06.6", "one frame or several")
async def asks_once(ask: Ask, frames: list[str]) -> list[str]:
    await ask("/xhr")
    await ask("/xhr_send", json.dumps(frames))
    first = json.loads((await ask("/xhr"))[1:])
    return list(first) if len(first) == len(frames) else [*first, *json.loads((await ask("/xhr"))[1:])][:2]


@wrong("06.6", "`h` is a heart-beat")
async def thinks_every_answer_is_a_list(ask: Ask, frames: list[str]) -> list[str]:
    await ask("/xhr")
    await ask("/xhr_send", json.dumps(frames))
    return await polled(ask, first="ahoc")


@wrong("06.6", "the session is closed")
async def asks_again_when_it_is_closed(ask: Ask, frames: list[str]) -> list[str]:
    await ask("/xhr")
    await ask("/xhr_send", json.dumps(frames))
    return await polled(ask, closed=False)


@wrong("06.6", "up to the MESSAGE")
async def returns_answers_as_they_are(ask: Ask, frames: list[str]) -> list[str]:
    await ask("/xhr")
    await ask("/xhr_send", json.dumps(frames))
    answers: list[str] = []
    while "MESSAGE" not in "".join(answers):
        answers.append(await ask("/xhr"))
    return answers


@wrong("06.6", "one /xhr at a time")
async def asks_twice_at_once(ask: Ask, frames: list[str]) -> list[str]:
    await ask("/xhr")
    sent = ask("/xhr_send", json.dumps(frames))
    answers = await asyncio.gather(ask("/xhr"), ask("/xhr"), sent)
    return list(json.loads(answers[0][1:]))
