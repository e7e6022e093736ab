"""Lesson 06's exercises: right answers in other styles than the reference are right, and are told why in a sentence."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import reduce
from itertools import dropwhile

from websockets.asyncio.client import connect
from websockets.sync.client import connect as connect_in_a_thread
from websockets.typing import Subprotocol

from chatlab.clients.stomp import StompClient
from chatlab.stomp.frames import Frame, Parser
from tests.lab.exercises.answers import RightAnswers, right_in
from tests.lab.exercises.wrong_answers.lesson06 import SEND, SUBSCRIBE, Talk

RIGHT: RightAnswers = {
    "06.0": [
        (SUBSCRIBE.encode(), SEND.encode()),
        [SUBSCRIBE.replace("\n", "\r\n"), SEND.replace("\n\n", "\ncontent-length:7\n\n")],
        ["SUBSCRIBE\nreceipt:x\ndestination:/topic/lunch\nid:mine\nack:auto\n\n\0\n", SEND],
    ]
}


right = right_in(RIGHT)

# --- 06.1 ---

ESCAPES = str.maketrans({"\\": "\\\\", "\r": "\\r", "\n": "\\n", ":": "\\c"})


@right("06.1")
def with_a_table(command: str, headers: dict[str, str], body: str = "") -> bytes:
    table = {} if command in {"CONNECT", "CONNECTED"} else ESCAPES
    frame = command
    for name, value in headers.items():
        frame += "\n" + name.translate(table) + ":" + value.translate(table)
    if body:
        frame += f"\ncontent-length:{len(body.encode('utf-8'))}"
    return (frame + "\n\n" + body + "\0").encode()


@right("06.1")
def the_length_first_and_always_for_a_send(command: str, headers: dict[str, str], body: str = "") -> bytes:
    def escape(text: str) -> str:
        if command.startswith("CONNECT"):
            return text
        return "".join({"\\": r"\\", "\r": r"\r", "\n": r"\n", ":": r"\c"}.get(each, each) for each in text)

    octets = bytearray(body, "utf-8")
    out = bytearray(command + "\n", "utf-8")
    if command == "SEND":
        out += b"content-length:%d\n" % len(octets)
    for header in headers.items():
        out += ":".join(map(escape, header)).encode() + b"\n"
    return bytes(out + b"\n" + octets + bytes(1))


@right("06.1")
def with_crlf_line_ends_avoided_and_a_copy_of_the_dict(command: str, headers: dict[str, str], body: str = "") -> bytes:
    mine = dict(headers)
    if len(body) > 0:
        mine["content-length"] = f"{len(body.encode())}"
    lines = []
    for name in mine:
        pair = [name, mine[name]]
        if command not in ("CONNECT", "CONNECTED"):
            for old, new in [("\\", r"\\"), (":", r"\c"), ("\n", r"\n"), ("\r", r"\r")]:
                pair = [each.replace(old, new) for each in pair]
        lines.append("{}:{}".format(*pair))
    return b"\n".join([each.encode() for each in [command, *lines]]) + b"\n\n" + body.encode() + b"\x00"


# --- 06.2 ---


@right("06.2")
def by_halves(client: str | None, server: str | None) -> list[int]:
    cx, cy, sx, sy = [int(each) for header in (client, server) for each in (header or "0,0").split(",")]
    return [max(pair) if all(pair) else 0 for pair in ((cx, sy), (sx, cy))]


@right("06.2")
def with_early_returns(client: str | None, server: str | None) -> tuple[int, int]:
    if client is None or server is None:
        return 0, 0

    def interval(can: str, wants: str) -> int:
        if can == "0" or wants == "0":
            return 0
        return sorted((int(can), int(wants)))[-1]

    (can, wants), (server_can, server_wants) = client.split(","), server.split(",")
    return interval(can, server_wants), interval(server_can, wants)


@right("06.2")
def with_products(client: str | None, server: str | None) -> tuple[int, int]:
    cx, cy = json.loads(f"[{client or '0,0'}]")
    sx, sy = json.loads(f"[{server or '0,0'}]")
    return max(cx, sy) * bool(cx * sy), max(sx, cy) * bool(sx * cy)


# --- 06.3 ---


@right("06.3")
def with_a_loop(sent: list[str], mode: str, acks: list[str]) -> list[str]:
    rest: list[str] = []
    for each in reversed(sent):
        if mode == "auto" or (mode == "client" and each in acks):
            break
        if each not in acks:
            rest.insert(0, each)
    return rest


@right("06.3")
def with_match(sent: list[str], mode: str, acks: list[str]) -> list[str]:
    match mode:
        case "client":
            settled = max((sent.index(ack) + 1 for ack in acks), default=0)
            return sent[settled:]
        case "client-individual":
            return list(filter(lambda each: each not in acks, sent))
    return []


@right("06.3")
def removing(sent: list[str], mode: str, acks: list[str]) -> list[str]:
    def without(rest: list[str], ack: str) -> list[str]:
        if mode == "client" and ack in rest:
            return list(dropwhile(lambda each: each != ack, rest))[1:]
        return [each for each in rest if each != ack]

    return [] if mode == "auto" else reduce(without, acks, sent)


# --- 06.4 ---

Taken = tuple[str, dict[str, str], bytes]


@right("06.4")
def with_split(held: bytearray) -> list[Taken]:
    found: list[Taken] = []
    while True:
        data = bytes(held).lstrip(b"\n")
        head, blank, rest = data.partition(b"\n\n")
        if not blank:
            return found
        lines = head.decode().split("\n")
        headers = dict(line.split(":", 1) for line in reversed(lines[1:]))
        length = int(headers["content-length"]) if "content-length" in headers else rest.find(b"\0")
        if length < 0 or len(rest) <= length:
            return found
        found.append((lines[0], dict(reversed(headers.items())), rest[:length]))
        held[:] = rest[length + 1 :]


@right("06.4")
def one_by_one(held: bytearray) -> list[Taken]:
    def first() -> tuple[Taken, int] | None:
        start = next((at for at, octet in enumerate(held) if octet != 10), len(held))
        blank = held.find(b"\n\n", start)
        if blank == -1:
            return None
        command, *lines = bytes(held[start:blank]).decode("utf-8").splitlines()
        headers: dict[str, str] = {}
        for line in lines:
            name, value = line.split(":", maxsplit=1)
            if name not in headers:
                headers[name] = value
        try:
            end = blank + 2 + int(headers["content-length"])
        except KeyError:
            end = held.find(0, blank + 2)
        if end < 0 or end + 1 > len(held):
            return None
        return (command, headers, bytes(held[blank + 2 : end])), end + 1

    frames = []
    while taken := first():
        frames.append(taken[0])
        del held[: taken[1]]
    return frames


@right("06.4")
def deleting_at_the_end(held: bytearray) -> list[Taken]:
    frames: list[Taken] = []
    position = 0
    try:
        while True:
            while held[position] == 10:
                position += 1
            blank = held.index(b"\n\n", position)
            command, _, block = held[position:blank].decode().partition("\n")
            headers: dict[str, str] = {}
            for line in block.split("\n") if block else []:
                name, _, value = line.partition(":")
                headers.setdefault(name, value)
            length = headers.get("content-length")
            end = blank + 2 + int(length) if length else held.index(b"\0", blank + 2)
            held[end]  # raises IndexError while the zero byte has not arrived
            frames.append((command, headers, bytes(held[blank + 2 : end])))
            position = end + 1
    except (ValueError, IndexError):
        del held[:position]
    return frames


# --- 06.5 ---


@right("06.5")
async def with_a_class(url: str, destination: str, texts: list[str]) -> list[str]:
    async with connect(url, subprotocols=[Subprotocol("v12.stomp")], proxy=None) as socket:
        talk = Talk(socket)
        await talk.connect_and_subscribe(destination)
        await talk.say(destination, texts)
        return await talk.leave()


@right("06.5")
async def with_a_reader_of_its_own(url: str, destination: str, texts: list[str]) -> list[str]:
    shown: list[str] = []
    answers: asyncio.Queue[Frame] = asyncio.Queue()

    async with connect(url, subprotocols=[Subprotocol("v12.stomp")], proxy=None) as socket:
        news = asyncio.Event()

        async def read() -> None:
            parser = Parser(version="1.2")
            async for message in socket:
                for frame in parser.feed(message.encode() if isinstance(message, str) else message):
                    if isinstance(frame, Frame) and frame.command == "MESSAGE":
                        shown.append(frame.body.decode())
                        news.set()
                    elif isinstance(frame, Frame):
                        answers.put_nowait(frame)

        async def ask(frame: Frame) -> None:
            await socket.send(frame.serialize().decode())
            if (answer := await answers.get()).command == "ERROR":
                raise RuntimeError(answer.get("message"))

        async with asyncio.TaskGroup() as group:
            reading = group.create_task(read())
            await ask(Frame("CONNECT", (("accept-version", "1.2"), ("host", "x"))))
            await ask(Frame("SUBSCRIBE", (("id", "0"), ("destination", destination), ("receipt", "0"))))
            for number, text in enumerate(texts, 1):
                headers = ("destination", destination), ("receipt", str(number))
                await ask(Frame("SEND", headers, text.encode()))
            while any(text not in shown for text in texts):
                news.clear()
                await news.wait()
            await ask(Frame("DISCONNECT", (("receipt", "bye"),)))
            reading.cancel()
    return shown


@right("06.5")
async def in_a_thread(url: str, destination: str, texts: list[str]) -> list[str]:
    def conversation() -> list[str]:
        shown: list[str] = []
        parser = Parser(version="1.2")
        with connect_in_a_thread(url, subprotocols=[Subprotocol("v12.stomp")], proxy=None) as socket:

            def read() -> list[str]:
                answers = []
                for frame in parser.feed(socket.recv(decode=False)):
                    if isinstance(frame, Frame) and frame.command == "ERROR":
                        raise ConnectionError(frame.get("message"))
                    if isinstance(frame, Frame) and frame.command == "MESSAGE":
                        shown.append(frame.body.decode())
                    elif isinstance(frame, Frame):
                        answers.append(frame.get("receipt-id") or frame.command)
                return answers

            def step(command: str, answer: str, body: str = "", **headers: str) -> None:
                socket.send(Frame(command, tuple(headers.items()), body.encode()).serialize().decode())
                while answer not in read():
                    pass

            step("CONNECT", "CONNECTED", **{"accept-version": "1.2", "host": "x"})
            step("SUBSCRIBE", "s", id="1", destination=destination, receipt="s")
            for text in texts:
                step("SEND", "t", text, destination=destination, receipt="t")
            while not all(text in shown for text in texts):
                read()
            step("DISCONNECT", "bye", receipt="bye")
        return shown

    return await asyncio.to_thread(conversation)


@right("06.5")
async def with_the_finished_client(url: str, destination: str, texts: list[str]) -> list[str]:
    shown: list[str] = []
    async with StompClient(url, reconnect=False, versions=("1.2",), heart_beat=(0, 0)) as client:
        messages = await client.subscribe(destination)
        for text in texts:
            await client.send(destination, text)
        while not set(texts) <= set(shown):
            shown.append((await anext(messages)).body.decode())
    return shown


# --- 06.6 ---

Ask = Callable[..., Awaitable[str]]


@right("06.6")
async def with_match_on_the_letter(ask: Ask, frames: list[str]) -> list[str]:
    assert (await ask("/xhr")).strip() == "o"
    await ask("/xhr_send", json.dumps(frames, ensure_ascii=False))
    got: list[str] = []
    while True:
        letter, rest = (answer := await ask("/xhr"))[0], answer[1:]
        match letter:
            case "a":
                got.extend(json.loads(rest))
            case "c":
                code, reason = json.loads(rest)
                raise RuntimeError(f"closed: {code} {reason}")
        if got and got[-1].startswith("MESSAGE"):
            return got


@right("06.6")
async def one_frame_in_each_request(ask: Ask, frames: list[str]) -> list[str]:
    await ask("/xhr")
    for frame in frames:
        await ask("/xhr_send", json.dumps([frame]))
    received: list[str] = []
    while "MESSAGE" not in [frame.split("\n")[0] for frame in received]:
        answer = await ask("/xhr")
        if answer[0] == "c":
            raise OSError(answer[1:])
        received += json.loads(answer[1:]) if answer[0] == "a" else []
    return received


@right("06.6")
async def listening_while_it_sends(ask: Ask, frames: list[str]) -> list[str]:
    async def listen() -> list[str]:
        heard: list[str] = []
        while not any("MESSAGE" in each for each in heard):
            answer = await ask("/xhr")
            if answer.startswith("c["):
                raise ConnectionAbortedError(answer)
            if answer.startswith("a["):
                heard = heard + json.loads(answer.removeprefix("a"))
        return heard

    await ask("/xhr")
    async with asyncio.TaskGroup() as group:
        listening = group.create_task(listen())
        group.create_task(ask("/xhr_send", json.dumps(frames)))  # type: ignore[arg-type]  # `ask` is a coroutine function
    return listening.result()
