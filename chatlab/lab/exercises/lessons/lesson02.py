"""Lesson 02: a mask, a header, messages out of pieces, a silence that is noticed, and an echo written by hand."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve

from chatlab import echo
from chatlab.lab.exercises.exercise import Exercise, NotYet
from chatlab.lab.exercises.support.streams import SECONDS, Answer, said_by_server, serving, shown, upgrade, within
from chatlab.lab.hand_client import KEY, MASK, HandClient
from chatlab.lab.until import until
from chatlab.lab.wire.trace import Event
from chatlab.lab.wire.wire import Wire
from chatlab.websocket.connection import Message, Pong
from chatlab.websocket.frames import Frame, Opcode
from chatlab.websocket.handshake import make_request

__all__ = ["EXERCISES"]

KIB = 1024

# --- 02.1 ---


def unmask(data: bytes, mask: bytes) -> bytes:
    return bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))


async def check_unmask(answer: Callable[[bytes, bytes], object]) -> None:
    hello = bytes.fromhex("7f 9f 4d 51 58")
    cases = [
        (hello[:4], MASK, b"Hell", "byte 0 belongs to byte 0 of the mask, byte 1 to byte 1"),
        (hello, MASK, b"Hello", "after four bytes the mask begins anew"),
        (b"", MASK, b"", "nothing to unmask is nothing"),
        (
            bytes(9),
            b"\x00\x01\x02\xff",
            b"\x00\x01\x02\xff\x00\x01\x02\xff\x00",
            "any byte may come out, not only letters",
        ),
        (b"Hello", MASK, hello, "doing it a second time brings the masked bytes back"),
    ]
    for data, mask, expected, rule in cases:
        if (got := answer(data, mask)) != expected:
            told = f"unmask({shown(data)}, {shown(mask)}) gave {got!r}, not {expected!r}"
            raise NotYet("the answer is `bytes`" if not isinstance(got, bytes) else rule, told)
    frame = await _frame_of_a_real_client("안녕 👋")
    if (got := answer(frame[6:], frame[2:6])) != "안녕 👋".encode():
        raise NotYet("what a real client has masked can be read again", f"the frame {shown(frame)} became {got!r}")


async def _frame_of_a_real_client(text: str) -> bytes:
    async with (
        await echo.start(compression=False) as server,
        Wire(to=server.url) as wire,
        connect(wire.url, compression=None, proxy=None) as client,
    ):
        await client.send(text)
        return (await wire.wait_for("websocket", "text", sender="client")).data


# --- 02.2 ---


def header(kind: int, length: int) -> bytes:
    first = 0x80 | kind
    if length <= 125:
        return bytes([first, length])
    if length <= 0xFFFF:
        return bytes([first, 126]) + length.to_bytes(2)
    return bytes([first, 127]) + length.to_bytes(8)


HEADERS = [
    (1, 5, "81 05", "the first byte is 0x80 and the kind, the second the length"),
    (2, 5, "82 05", "the kind stands in the last four bits of the first byte"),
    (9, 0, "89 00", "a Ping without content has a header like any other"),
    (1, 125, "81 7d", "up to 125 the length stands in the second byte"),
    (1, 126, "81 7e 00 7e", "from 126 on the second byte says 126, and two bytes of length follow, the larger first"),
    (1, 127, "81 7e 00 7f", "a length of 127 is no different from 126: what follows are two bytes"),
    (1, 65_535, "81 7e ff ff", "two bytes are enough up to 65535, and the shortest form is the one to use"),
    (1, 65_536, "81 7f 00 00 00 00 00 01 00 00", "from 65536 on the second byte says 127, and eight bytes follow"),
    (2, 1 << 32, "82 7f 00 00 00 01 00 00 00 00", "eight bytes hold lengths of more than four bytes, too"),
]


async def check_header(answer: Callable[[int, int], object]) -> None:
    for kind, length, expected, rule in HEADERS:
        try:
            got = answer(kind, length)
        except Exception as error:
            raise NotYet(rule, f"header({kind}, {length}) should be {expected}") from error
        if got != bytes.fromhex(expected):
            seen = shown(got) if isinstance(got, bytes) else repr(got)
            raise NotYet(rule, f"header({kind}, {length}) gave {seen}, not {expected}")
    await _let_a_real_client_read(answer)


async def _let_a_real_client_read(answer: Callable[[int, int], object]) -> None:
    lengths = [0, 125, 126, 65_535, 65_536]

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upgrade(reader, writer)
        for length in lengths:
            head = answer(Opcode.BINARY, length)
            assert isinstance(head, bytes | bytearray)  # seen above
            writer.write(head + bytes(length))
        await reader.read()

    async with serving(send) as served, connect(served.url, compression=None, proxy=None) as client:
        for length in lengths:
            rule = "a real client reads what stands after your headers"
            got = await within(client.recv(), rule, lambda length=length: f"{length} bytes")  # type: ignore[misc]  # mypy cannot infer a lambda's default
            if len(got) != length:
                raise NotYet(rule, f"{length} bytes were sent, it read {len(got)}")
        client.transport.abort()


# --- 02.3 ---


def messages(frames: list[tuple[bool, int, bytes]]) -> list[str | bytes]:
    whole: list[str | bytes] = []
    pieces, is_text = b"", False
    for fin, kind, payload in frames:
        if kind >= 8:
            continue
        if kind != 0:
            pieces, is_text = b"", kind == 1
        pieces += payload
        if fin:
            whole.append(pieces.decode() if is_text else pieces)
    return whole


Frames = list[tuple[bool, int, bytes]]
AN = "안녕".encode()
PIECES: list[tuple[Frames, list[str | bytes], str]] = [
    ([(True, 1, b"Hello")], ["Hello"], "a text is a `str`"),
    ([(True, 2, b"\x00\xff")], [b"\x00\xff"], "what is not text stays `bytes`"),
    ([(True, 1, b"a"), (True, 1, b"b")], ["a", "b"], "two frames with FIN are two messages"),
    ([(False, 1, b"Hel"), (True, 0, b"lo")], ["Hello"], "a message ends at the frame with FIN, and not before"),
    (
        [(False, 1, b"H"), (False, 0, b"el"), (True, 0, b"lo"), (True, 1, b"!")],
        ["Hello", "!"],
        "a message may have any number of pieces, and the next begins with nothing of it",
    ),
    (
        [(False, 1, b"Hel"), (True, 9, b"?"), (True, 0, b"lo")],
        ["Hello"],
        "a Ping between two pieces belongs to no message, and ends none",
    ),
    ([(True, 10, b"?"), (True, 8, b"\x03\xe8")], [], "Pong and Close are no messages"),
    ([(False, 1, AN[:2]), (True, 0, AN[2:])], ["안녕"], "a cut may go through a letter: join first, then decode"),
    ([(False, 2, AN[:2]), (True, 0, AN[2:])], [AN], "the kind of a message stands in its first piece alone"),
    ([(False, 1, b""), (True, 0, b"")], [""], "an empty message is a message"),
    ([(True, 1, b"a"), (False, 1, b"Hel")], ["a"], "a message whose last piece has not come is not there yet"),
]


async def check_messages(answer: Callable[[Frames], object]) -> None:
    for frames, expected, rule in PIECES:
        _expect_messages(answer, frames, expected, rule)
    frames = await _frames_of_a_real_client()
    rule = "what a real client has sent in pieces, with a Ping in between, is understood"
    _expect_messages(answer, frames, ["점심 먹을까요? 🍜", "네!"], rule)


def _expect_messages(answer: Callable[[Frames], object], frames: Frames, expected: object, rule: str) -> None:
    try:
        got = answer(list(frames))
    except Exception as error:
        raise NotYet(rule, f"frames: {frames}") from error
    if got != expected:
        raise NotYet(rule, f"frames: {frames}\nmessages gave {got!r}, not {expected!r}")


async def _frames_of_a_real_client() -> Frames:
    async def in_pieces(client: ClientConnection) -> AsyncIterator[str]:
        yield "점심 "
        await client.ping(b"?")
        yield "먹을까요? "
        yield "🍜"

    async with await echo.start(compression=False) as server, Wire(to=server.url) as wire:
        async with connect(wire.url, compression=None, proxy=None) as client:
            await client.send(in_pieces(client))
            await client.send("네!")
            await wire.wait_for("websocket", "text", sender="client", where=lambda event: "네!" in event.summary)
        sent = [Frame.parse(event.data) for event in wire.trace.filter("websocket", sender="client")]
    return [(frame.fin, int(frame.opcode), frame.payload) for frame, _ in filter(None, sent)]


# --- 02.4 ---


async def until_silent(connection: ServerConnection, every: float, patience: float) -> None:
    import asyncio

    from websockets.exceptions import ConnectionClosed

    try:
        while True:
            await asyncio.sleep(every)
            pong = await connection.ping()
            await asyncio.wait_for(pong, patience)
    except (TimeoutError, ConnectionClosed):
        return


UntilSilent = Callable[[ServerConnection, float, float], Awaitable[None]]
EVERY, PATIENCE = 0.1, 0.6


async def check_until_silent(answer: UntilSilent) -> None:
    if not inspect.iscoroutinefunction(answer):
        raise NotYet("it waits for Pongs, so it must be an `async def`")
    async with _watched(answer) as (watching, client, wire):
        await _asks_again_and_again(watching, wire)
        await _is_patient(watching, wire)
        wire.stall()
        await _has_ended(watching, "when a Pong is overdue, the function returns", "the line went silent")
        client.transport.abort()
    async with _watched(answer) as (watching, client, wire):
        await client.close()
        await _has_ended(watching, "when the connection ends by itself, the function returns", "the client closed")


@contextlib.asynccontextmanager
async def _watched(answer: UntilSilent) -> AsyncIterator[tuple[asyncio.Future[None], ClientConnection, Wire]]:
    """A client, the wire it is on, and the learner's function, which watches it from the server."""
    watching: asyncio.Future[asyncio.Future[None]] = asyncio.get_running_loop().create_future()

    async def handle(connection: ServerConnection) -> None:
        watching.set_result(asyncio.ensure_future(answer(connection, EVERY, PATIENCE)))
        await connection.wait_closed()

    async with serve(handle, "127.0.0.1", 0, compression=None, ping_interval=None, close_timeout=0.1) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with Wire(to=url) as wire:
            client = await connect(wire.url, compression=None, ping_interval=None, close_timeout=0.1, proxy=None)
            task = await watching
            try:
                yield task, client, wire
            finally:
                client.transport.abort()
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


def _on(wire: Wire) -> str:
    seen = [f"{event.kind} of the {event.sender}" for event in wire.trace.filter("websocket")]
    return f"seen on the wire: {', '.join(seen[:8]) or 'nothing'}{', …' if len(seen) > 8 else ''}"


async def _asks_again_and_again(watching: asyncio.Future[None], wire: Wire) -> None:
    asked = await _seen(watching, wire, "ping", 3)
    _still_watches(watching, "one who answers is left alone", wire)
    if not asked:
        raise NotYet("it asks with a Ping, again and again", _on(wire))
    begin = len(wire.trace.filter("websocket", "ping"))
    await asyncio.sleep(3.5 * EVERY)
    count = len(wire.trace.filter("websocket", "ping")) - begin
    if count > 8:
        raise NotYet("it asks every so often, and not as often as it can", f"{count} Pings while 4 were due")
    _still_watches(watching, "one who answers is left alone", wire)


async def _is_patient(watching: asyncio.Future[None], wire: Wire) -> None:
    wire.delay(2 * EVERY, sender="client")
    await _seen(watching, wire, "pong", len(wire.trace.filter("websocket", "pong")) + 3)
    _still_watches(watching, "slow is not silent: a Pong has the time `patience`", wire)
    wire.delay(0)


async def _seen(watching: asyncio.Future[None], wire: Wire, kind: str, count: int) -> bool:
    """Whether the wire has seen so many of a kind, before the learner's function ended, and in time."""
    seeing = asyncio.ensure_future(wire.wait_for("websocket", kind, count=count, timeout=SECONDS))
    both: set[asyncio.Future[Any]] = {watching, seeing}
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    seeing.cancel()
    (found,) = await asyncio.gather(seeing, return_exceptions=True)
    return isinstance(found, Event)


def _still_watches(watching: asyncio.Future[None], rule: str, wire: Wire) -> None:
    if watching.done():
        raise NotYet(rule, f"the function ended. {_on(wire)}") from watching.exception()


async def _has_ended(watching: asyncio.Future[None], rule: str, what: str) -> None:
    await asyncio.wait([watching], timeout=PATIENCE + SECONDS)
    if not watching.done():
        raise NotYet(rule, f"{what}, and {PATIENCE + SECONDS:g} s later the function was still waiting")
    if error := watching.exception():
        raise NotYet(f"{rule}, and raises nothing", what) from error


# --- 02.5 ---


async def echo_by_hand(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        first = 0
        while first != 0x88:
            first, second = await reader.readexactly(2)
            length = second & 0x7F
            if length >= 126:
                length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8))
            mask = await reader.readexactly(4)
            hidden = await reader.readexactly(length)
            payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(hidden))
            if length <= 125:
                size = bytes([length])
            elif length <= 0xFFFF:
                size = bytes([126]) + length.to_bytes(2)
            else:
                size = bytes([127]) + length.to_bytes(8)
            if first != 0x8A:  # a Pong is no question
                kind = 0x8A if first == 0x89 else first
                writer.write(bytes([kind]) + size + payload)
                await writer.drain()
    except (EOFError, OSError):
        pass  # gone without a goodbye
    finally:
        writer.close()


LIMIT = 512 * KIB  # of bytes that may wait in the server's memory for one who does not read


async def check_echo_by_hand(answer: Answer) -> None:
    if not inspect.iscoroutinefunction(answer):
        raise NotYet("it waits for bytes, so it must be an `async def`")

    async def serve_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * KIB)  # one who does not read is noticed soon
        await upgrade(reader, writer)
        await answer(reader, writer)

    async with serving(serve_client) as served:
        async with Wire(to=served.url) as wire:
            await _talk(wire)
        async with Wire(to=served.url) as wire:
            await _ask_between_two_pieces(wire, "Hello", 3)
            await _ask_between_two_pieces(wire, "안녕", 2)
        await _drip(served.url)
        await _close_without_a_number(served.url)
        await _send_without_reading(served.url, lambda: served.writers[-1])
        await _vanish(served.url, lambda: served.tasks[-1], served.errors)


async def _talk(wire: Wire) -> None:
    client = await connect(wire.url, compression=None, ping_interval=None, max_size=None, proxy=None)
    try:
        await _expect_echo(
            client, "안녕 👋", "a text comes back as it was: unmasked, and in a frame without a mask", wire
        )
        await _expect_echo(client, b"\x00\xff", "what is not text comes back as what it was", wire)
        for length in (0, 125, 126, 65_535, 65_536):
            await _expect_echo(client, bytes(length), f"a message of {length} bytes comes back", wire)
        await _send_all_at_once(client)
        await _say_goodbye(client, wire)
    finally:
        client.transport.abort()


async def _expect_echo(client: ClientConnection, message: str | bytes, rule: str, wire: Wire) -> None:
    begin = len(said_by_server(wire))
    sent = len(wire.trace.records)

    def told() -> str:
        records = wire.trace.records[sent:]
        frame = b"".join(record.data for record in records if record.sender == "client")
        return f"the client sent {shown(frame)}\nyour server sent {shown(said_by_server(wire)[begin:])}"

    await within(client.send(message), rule, told)
    got = await within(client.recv(), rule, told)
    if got != message:
        raise NotYet(rule, f"{told()}\nso that the client read {got[:40]!r}")


async def _ask_between_two_pieces(wire: Wire, text: str, cut: int) -> None:
    client = await HandClient.connect(wire.url)
    begin = len(said_by_server(wire))

    def told() -> str:
        return f"the client sent {text!r} in two pieces; your server sent {shown(said_by_server(wire)[begin:])}"

    piece = Frame(Opcode.TEXT, text.encode()[:cut], fin=False, mask=MASK)
    ping = Frame(Opcode.PING, b"are you there?", mask=MASK)
    rest = Frame(Opcode.CONTINUATION, text.encode()[cut:], mask=MASK)
    try:
        await client.write(piece.serialize() + ping.serialize())
        rule = "a Ping is answered at once with a Pong of the same content, also between two pieces"
        pong = await within(client.next(Pong), rule, told)
        if pong.payload != ping.payload or wire.trace.filter("websocket", "ping", sender="server"):
            raise NotYet(rule, f"{told()}; the content of the Ping was {shown(ping.payload)}")
        await client.write(rest.serialize())
        rule = "a message in pieces comes back as one message, whole or in pieces, also with a cut through a letter"
        got = await within(client.next(Message), rule, told)
        if got.data != text:
            raise NotYet(rule, f"{told()}, which is {got.data!r}")
    finally:
        await client.aclose()


async def _send_all_at_once(client: ClientConnection) -> None:
    """A MiB to the server, and its echo back at the same time; then many short messages in one go."""
    large = [bytes([number]) * (64 * KIB) for number in range(16)]
    short = [f"#{number}" for number in range(200)]
    for sent, rule in ((large, "1 MiB goes both ways at once"), (short, "200 short messages come back, each of them")):
        got: list[str | bytes] = []
        await within(
            asyncio.gather(_send_each(client, sent), _collect(client, got, len(sent))),
            rule,
            lambda got=got, sent=sent: f"{len(sent)} messages were sent, {len(got)} came back",  # type: ignore[misc]  # mypy cannot infer a lambda's default
            seconds=10,
        )
        if got != sent:
            raise NotYet(f"{rule}, in their order", f"came back: {', '.join(repr(each[:4]) for each in got)}")


async def _send_each(client: ClientConnection, messages: list[bytes] | list[str]) -> None:
    for message in messages:
        await client.send(message)


async def _collect(client: ClientConnection, got: list[str | bytes], count: int) -> None:
    while len(got) < count:
        got.append(await client.recv())


async def _say_goodbye(client: ClientConnection, wire: Wire) -> None:
    begin = len(said_by_server(wire))
    closing = asyncio.ensure_future(client.close(4001, "점심 시간 🍜"))
    try:
        await wire.wait_for("tcp", ("FIN", "RST"), sender="server", timeout=SECONDS)
    except TimeoutError:
        pass  # told below, after what comes before it
    else:
        await within(closing, "the connection ends", lambda: "it is still open")
    finally:
        closing.cancel()
    said = said_by_server(wire)[begin:]
    told = f"the client sent a Close with 4001, 0f a1; your server sent {shown(said)}"
    if said[:1] != b"\x88" or said[2:4] != b"\x0f\xa1":
        raise NotYet("a Close is answered with a Close of the same number", told)
    if not wire.trace.filter("tcp", ("FIN", "RST"), sender="server"):
        raise NotYet("after its Close, the server ends TCP", f"{told}, and then kept the connection open")


async def _drip(url: str) -> None:
    client = await HandClient.connect(url)
    frame = Frame(Opcode.TEXT, "방울방울 💧".encode(), mask=MASK).serialize()

    async def drip() -> Message:
        for byte in frame:
            await client.write(bytes([byte]))
            await asyncio.sleep(0.001)  # so that each byte is a piece of its own
        return await client.next(Message)

    try:
        rule = "a frame may arrive byte by byte: wait until all of it is there"
        got = await within(drip(), rule, lambda: f"one byte at a time: {shown(frame)}")
        if got.data != "방울방울 💧":
            raise NotYet(rule, f"one byte at a time: {shown(frame)}; what came back is {got.data!r}")
    finally:
        await client.aclose()


async def _close_without_a_number(url: str) -> None:
    client = await HandClient.connect(url)
    try:
        rule = "a Close without a number is answered with one, too"
        ended = await within(client.close(None), rule, lambda: "the client sent 88 80 and a mask")
        if not ended.clean:
            raise NotYet(rule, f"the client sent 88 80 and a mask, and its connection ended with {ended.code}")
    finally:
        await client.aclose()


async def _send_without_reading(url: str, writer: Callable[[], asyncio.StreamWriter]) -> None:
    """Send 2 MiB, read nothing, and see how much of the echo waits in the server's memory."""
    client = await _connect_by_hand(url, receive_buffer=64 * KIB)
    try:
        for _ in range(128):
            client.write(Frame(Opcode.BINARY, bytes(16 * KIB), mask=MASK).serialize())
        waiting = writer().transport
        seen = [0]

        def over_or_steady() -> bool:
            seen.append(waiting.get_write_buffer_size())
            return seen[-1] > LIMIT or (len(seen) > 40 and len(set(seen[-40:])) == 1)

        await until(over_or_steady, timeout=10)
        if seen[-1] > LIMIT:
            told = f"the client sent 2 MiB and read nothing; {seen[-1] // KIB} KiB waited in the server's memory"
            raise NotYet("one who does not read must not fill the memory: wait until there is room", told)
    finally:
        client.transport.abort()


async def _connect_by_hand(url: str, *, receive_buffer: int | None = None) -> asyncio.StreamWriter:
    """A client that has been let in, and does not read what comes then."""
    host, port = url.removeprefix("ws://").rstrip("/").split(":")
    sock = socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)  # before connect: then it holds (tcp(7))
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=sock, limit=KIB)
    writer.write(make_request(url, key=KEY, compression=False).serialize())
    await reader.readuntil(b"\r\n\r\n")
    return writer


async def _vanish(url: str, task: Callable[[], asyncio.Task[None]], errors: list[Exception]) -> None:
    """Be gone in the middle of a frame, with the end of TCP, and then without even that."""
    half = Frame(Opcode.TEXT, b"Hello", mask=MASK).serialize()[:8]
    for how in ("ended TCP", "broke the connection"):
        rule = "when a client is gone, the function ends, and raises nothing"
        client = await _connect_by_hand(url)
        errors.clear()
        client.write(half)
        (client.close if how == "ended TCP" else client.transport.abort)()
        await asyncio.wait([task()], timeout=SECONDS)
        if not task().done():
            raise NotYet(rule, f"the client {how} in the middle of a frame; {SECONDS:g} s later it was still waiting")
        if errors:
            raise NotYet(rule, f"the client {how} in the middle of a frame") from errors[0]


EXERCISES = [
    Exercise(
        "02.1",
        "Take the mask off",
        check_unmask,
        (
            "Masking and unmasking are the same thing. You have done it in the first cell of this lesson.",
            "`for i, byte in enumerate(data)` counts along. Which byte of the mask belongs to byte i, when there are "
            "four?",
            "`byte ^ mask[i % 4]` is one byte of the result; `bytes(... for i, byte in enumerate(data))` is all of it.",
        ),
        unmask,
        "XOR undoes itself: a ^ b ^ b is a. So the mask hides nothing from anybody who reads the frame. It only keeps "
        "a page's script from deciding what bytes stand on the wire.",
    ),
    Exercise(
        "02.2",
        "A header for any length",
        check_header,
        (
            "The first byte is the same for every length: FIN is the bit of 0x80, the kind is in the last four bits.",
            "Three cases: up to 125, up to 65535, and more. `bytes([a, b])` makes two bytes of two numbers.",
            "`length.to_bytes(2)` writes a number in two bytes, the larger first; `length.to_bytes(8)` in eight.",
            "In the second case: `return bytes([0x80 | kind, 126]) + length.to_bytes(2)`. The third has 127 and 8 "
            "there, the first just `bytes([0x80 | kind, length])`.",
        ),
        header,
        "Most messages of a chat are short, and pay two bytes. Who reads must know how many bytes a length takes "
        "before reading it: that is what 126 and 127 are for. One length has one form, so that nobody can hide behind "
        "another.",
    ),
    Exercise(
        "02.3",
        "Messages out of pieces",
        check_messages,
        (
            "Go through the frames and collect: what do you have to remember from one frame to the next?",
            "Two things: the payloads so far, as bytes, and whether the message is text. The second is known from the "
            "first frame of a message, whose kind is 1 or 2; later pieces have kind 0.",
            "Kinds from 8 up are Ping, Pong and Close: `continue`. Otherwise, if the kind is not 0, begin anew: no "
            "bytes yet, and `is_text = kind == 1`. Then add the payload.",
            "If `fin`, the message is complete: append `pieces.decode() if is_text else pieces` to the list. Only here "
            "may it be decoded.",
        ),
        messages,
        "Pieces are cut between any two bytes, and a letter of 한글 has three. Control frames may stand between pieces "
        "and are answered at once: a receiver keeps two things apart: where it is in a message, and everything "
        "else.",
    ),
    Exercise(
        "02.4",
        "Notice the silence",
        check_until_silent,
        (
            "A loop: wait for `every` seconds, ask, wait for the answer, and begin again. The function ends when the "
            "answer does not come.",
            "`pong = await connection.ping()` sends a Ping, and gives you something to await: `await pong` comes back "
            "when the Pong is there.",
            "`import asyncio`; then `await asyncio.wait_for(pong, patience)` waits no longer than that, and then "
            "raises a TimeoutError. Put `try:` around the loop, and `except TimeoutError: return` under it.",
            "When the connection is closed, `connection.ping()` raises a ConnectionClosed, from websockets.exceptions: "
            "catch that too, `except (TimeoutError, ConnectionClosed): return`.",
        ),
        until_silent,
        "A silence is no event. Only a clock can see it, and only if somebody asks, for a client that has nothing to "
        "say is silent, too. `every` says how soon you notice, and what it costs; `patience`, how slow a line may be.",
    ),
    Exercise(
        "02.5",
        "An echo by hand",
        check_echo_by_hand,
        (
            "Begin with one frame: read its two bytes, its mask and its content, unmask it, write it back with a "
            "header of your own. `await reader.readexactly(n)` waits until n bytes are there, however they come. Then "
            "put a loop around it. After each step, check: the message says what comes next.",
            "`first, second = await reader.readexactly(2)`, and `length = second & 0x7F`. If that is 126 or 127, the "
            "real length follows: `length = int.from_bytes(await reader.readexactly(2))`, or 8. Then 4 bytes of mask, "
            "then `length` bytes.",
            "You need not put pieces together. Send back each frame as it is: the same first byte, which holds FIN "
            "and the kind, then the length without the bit for the mask, then the unmasked content. Pieces come back "
            "as pieces. With your `header` of 02.2: `bytes([first]) + header(1, length)[1:] + content`.",
            "Two first bytes are special. 0x89 is a Ping: answer with 0x8A, and the same content. 0x88 is a Close: "
            "write it back, then leave the loop and `writer.close()`. (And 0x8A is a Pong: no answer.)",
            "After each `writer.write(...)`, `await writer.drain()`: it waits while the other side does not read. And "
            "put `try:` around the loop, `except (EOFError, OSError): pass` under it for one who is gone, and "
            "`finally: writer.close()`.",
        ),
        echo_by_hand,
        "Each frame goes back as soon as it is there, so both directions are busy even in the middle of a message; and "
        "as `drain` waits for one who does not read, the loop reads no more from it, TCP tells its sender, and no "
        "memory fills. What it does not do: refuse frames that break the rules. chatlab.websocket does.",
    ),
]
