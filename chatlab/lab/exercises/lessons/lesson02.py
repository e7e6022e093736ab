"""Lesson 02: a mask, a header, messages in pieces, noticing a silent connection, and an echo written by hand."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import socket
import struct
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve

from chatlab import echo
from chatlab.lab.exercises.exercise import Exercise, NotYet
from chatlab.lab.exercises.support.streams import (
    SECONDS,
    Answer,
    seen_on_wire,
    sent_by_server,
    serving,
    shown,
    upgrade,
    within,
)
from chatlab.lab.hand_client import KEY, MASK, HandClient
from chatlab.lab.until import until
from chatlab.lab.wire.trace import Event
from chatlab.lab.wire.wire import Wire
from chatlab.locale import _, ngettext
from chatlab.websocket.connection import Message, Pong
from chatlab.websocket.frames import Frame, Header, Opcode
from chatlab.websocket.handshake import make_request

__all__ = ["EXERCISES"]

KIB = 1024

# --- 02.1 ---


def unmask(data: bytes, mask: bytes) -> bytes:
    return bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))


async def check_unmask(answer: Callable[[bytes, bytes], object]) -> None:
    hello = bytes.fromhex("7f 9f 4d 51 58")
    cases = [
        (hello[:4], MASK, b"Hell", _("byte 0 belongs to byte 0 of the mask, byte 1 to byte 1")),
        (hello, MASK, b"Hello", _("after four bytes the mask starts over")),
        (b"", MASK, b"", _("an empty payload stays empty")),
        (
            bytes(9),
            b"\x00\x01\x02\xff",
            b"\x00\x01\x02\xff\x00\x01\x02\xff\x00",
            _("the result may contain any byte, not only text"),
        ),
        (b"Hello", MASK, hello, _("unmasking twice brings the masked bytes back")),
    ]
    for data, mask, expected, rule in cases:
        _expect_unmasked(answer, data, mask, expected, rule)
    frame = await _frame_of_a_real_client("안녕 👋")
    rule = _("the payload that a real client masked can be read again")
    _expect_unmasked(answer, frame[6:], frame[2:6], "안녕 👋".encode(), rule)


def _expect_unmasked(
    answer: Callable[[bytes, bytes], object], data: bytes, mask: bytes, expected: bytes, rule: str
) -> None:
    call = f"data = {shown(data)}, mask = {shown(mask)}"
    try:
        got = answer(data, mask)
    except Exception as error:
        evidence = _("with {call} the result should be {expected!r}").format(call=call, expected=expected)
        raise NotYet(rule, evidence) from error
    if got != expected:
        evidence = _("with {call} your function returned {got!r}, not {expected!r}")
        raise NotYet(
            rule if isinstance(got, bytes | bytearray) else _("the answer is `bytes`"),
            evidence.format(call=call, got=got, expected=expected),
        )


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
    (1, 5, "81 05", _("the first byte is 0x80 and the kind, the second is the length")),
    (2, 5, "82 05", _("the kind is in the last four bits of the first byte")),
    (9, 0, "89 00", _("a Ping without content has a header like any other frame")),
    (1, 125, "81 7d", _("up to 125, the second byte is the length")),
    (
        1,
        126,
        "81 7e 00 7e",
        _("from 126 on, the second byte is 126, and two bytes of length follow, the more significant first"),
    ),
    (1, 127, "81 7e 00 7f", _("a length of 127 is no different from 126: two bytes follow")),
    (
        1,
        65_535,
        "81 7e ff ff",  # not shown: bytes
        _("two bytes are enough up to 65535, and the shortest form must be used"),
    ),
    (1, 65_536, "81 7f 00 00 00 00 00 01 00 00", _("from 65536 on, the second byte is 127, and eight bytes follow")),
    (2, 1 << 32, "82 7f 00 00 00 01 00 00 00 00", _("the eight bytes also hold lengths that need more than four")),
]


async def check_header(answer: Callable[[int, int], object]) -> None:
    for kind, length, expected, rule in HEADERS:
        try:
            got = answer(kind, length)
        except Exception as error:
            evidence = _("{call} should be {expected}").format(call=f"header({kind}, {length})", expected=expected)
            raise NotYet(rule, evidence) from error
        call = f"header({kind}, {length})"
        if not isinstance(got, bytes | bytearray):
            evidence = _(
                "{call} returned {got!r}, of type `{type}`; the bytes {expected} are `bytes.fromhex({expected!r})`"
            )
            evidence = evidence.format(call=call, got=got, type=type(got).__name__, expected=expected)
            raise NotYet(_("the answer is `bytes`, neither a text that shows them nor a list of numbers"), evidence)
        if got != bytes.fromhex(expected):
            evidence = _("{call} returned {got}, not {expected}")
            raise NotYet(rule, evidence.format(call=call, got=shown(bytes(got)), expected=expected))
    await _let_a_real_client_read(answer)


async def _let_a_real_client_read(answer: Callable[[int, int], object]) -> None:
    lengths = [0, 125, 126, 65_535, 65_536]

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upgrade(reader, writer)
        for length in lengths:
            head = answer(Opcode.BINARY, length)
            assert isinstance(head, bytes | bytearray)  # checked above
            writer.write(head + bytes(length))
        await reader.read()

    async with serving(send) as served, connect(served.url, compression=None, proxy=None) as client:
        for length in lengths:
            rule = _("a real client reads the messages behind your headers")
            sent = ngettext("{count} byte was sent", "{count} bytes were sent", length).format(count=length)
            got = await within(client.recv(), rule, lambda sent=sent: sent)  # type: ignore[misc]  # mypy cannot infer a lambda's default
            if len(got) != length:
                raise NotYet(rule, _("{sent}; the client read {got}").format(sent=sent, got=len(got)))
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
    ([(True, 1, b"Hello")], ["Hello"], _("a text message is a `str`")),
    ([(True, 2, b"\x00\xff")], [b"\x00\xff"], _("a binary message stays `bytes`")),
    ([(True, 1, b"a"), (True, 1, b"b")], ["a", "b"], _("two frames with FIN are two messages")),
    ([(False, 1, b"Hel"), (True, 0, b"lo")], ["Hello"], _("a message ends at the frame with FIN, and not before")),
    (
        [(False, 1, b"H"), (False, 0, b"el"), (True, 0, b"lo"), (True, 1, b"!")],
        ["Hello", "!"],
        _("a message may have any number of pieces, and the next message starts empty"),
    ),
    (
        [(False, 1, b"Hel"), (True, 9, b"?"), (True, 0, b"lo")],
        ["Hello"],
        _("a Ping between two pieces belongs to no message, and ends none"),
    ),
    ([(True, 10, b"?"), (True, 8, b"\x03\xe8")], [], _("Pong and Close are not messages")),
    ([(False, 1, AN[:2]), (True, 0, AN[2:])], ["안녕"], _("a cut may go through a character: join first, then decode")),
    (
        [(False, 1, AN[:2]), (True, 9, b"\xff"), (True, 0, AN[2:])],
        ["안녕"],
        _("a Ping may come even inside a character, and its content need not be text"),
    ),
    ([(False, 2, AN[:2]), (True, 0, AN[2:])], [AN], _("only the first piece says what kind of message it is")),
    ([(False, 1, b""), (True, 0, b"")], [""], _("an empty message is a message")),
    ([(True, 1, b"a"), (False, 1, b"Hel")], ["a"], _("a message is incomplete until its last piece has come")),
]


async def check_messages(answer: Callable[[Frames], object]) -> None:
    for frames, expected, rule in PIECES:
        _expect_messages(answer, frames, expected, rule)
    frames = await _frames_of_a_real_client()
    rule = _("messages that a real client sent in pieces, with a Ping in between, are understood")
    _expect_messages(answer, frames, ["점심 먹을까요? 🍜", "네!"], rule)


def _expect_messages(answer: Callable[[Frames], object], frames: Frames, expected: object, rule: str) -> None:
    try:
        got = answer(list(frames))
    except Exception as error:
        raise NotYet(rule, _("frames: {frames}").format(frames=frames)) from error
    if not isinstance(got, list):
        evidence = _("{call} returned {got!r}, of type `{type}`")
        evidence = evidence.format(call="messages(frames)", got=got, type=type(got).__name__)
        raise NotYet(_("the answer is a `list` of messages"), evidence)
    if got != expected:
        evidence = _("frames: {frames}\n{call} returned {got!r}, not {expected!r}")
        raise NotYet(rule, evidence.format(frames=frames, call="messages(frames)", got=got, expected=expected))


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
        raise NotYet(_("it waits for Pongs, so it must be an `async def`"))
    async with _watched(answer) as (watching, client, wire):
        with _watch_the_loop(answer) as looks:
            await _expect_pings(watching, wire)
        _expect_a_free_loop(looks)
        await _expect_patience(watching, wire)
        wire.stall()
        await _expect_end(
            watching,
            _("when a Pong is overdue, the function returns"),
            _("when a Pong is overdue, the function returns and raises nothing"),
            _("the line went silent"),
        )
        client.transport.abort()
    async with _watched(answer) as (watching, client, wire):
        await client.close()
        await _expect_end(
            watching,
            _("when the client closes the connection, the function returns"),
            _("when the client closes the connection, the function returns and raises nothing"),
            _("the client closed the connection"),
        )


@contextlib.asynccontextmanager
async def _watched(answer: UntilSilent) -> AsyncIterator[tuple[asyncio.Future[None], ClientConnection, Wire]]:
    """Yield the learner's function, watching a client from the server, and the client and its wire."""
    watching: asyncio.Future[asyncio.Future[None]] = asyncio.get_running_loop().create_future()

    async def handle(connection: ServerConnection) -> None:
        task = asyncio.ensure_future(answer(connection, EVERY, PATIENCE))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # the check may have ended before
        watching.set_result(task)
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


async def _expect_pings(watching: asyncio.Future[None], wire: Wire) -> None:
    rule = _("a client that answers is left alone")
    pinged = await _seen(watching, wire, "ping", 3)
    _expect_running(watching, rule, wire)
    if not pinged:
        raise NotYet(_("it asks with a Ping, again and again"), seen_on_wire(wire.trace.filter("websocket")))
    begin = len(wire.trace.filter("websocket", "ping"))
    await asyncio.sleep(3.5 * EVERY)
    count = len(wire.trace.filter("websocket", "ping")) - begin
    if count > 8:
        evidence = _("{count} Pings were sent in the time for {due}").format(count=count, due=4)
        raise NotYet(_("it asks every `every` seconds, not as often as it can"), evidence)
    _expect_running(watching, rule, wire)


async def _expect_patience(watching: asyncio.Future[None], wire: Wire) -> None:
    wire.delay(2 * EVERY, sender="client")
    await _seen(watching, wire, "pong", len(wire.trace.filter("websocket", "pong")) + 3)
    _expect_running(watching, _("slow is not silent: a Pong may take `patience` seconds"), wire)
    wire.delay(0)


@dataclass
class _Looks:
    """What a second thread saw of the event loop's thread: how often, and how often in the learner's function."""

    all: int = 0
    inside: int = 0
    line: int = 0  # of the learner's cell, where the function was last seen


@contextlib.contextmanager
def _watch_the_loop(answer: UntilSilent) -> Iterator[_Looks]:
    """Look every few milliseconds whether the learner's function holds the loop's thread, until the block ends.

    A coroutine that awaits has left the thread, so only a call that blocks is seen again and again. On a busy machine
    this is no different, which a measurement of delays would be.
    """
    looks, ended, thread = _Looks(), threading.Event(), threading.get_ident()
    code = getattr(inspect.unwrap(answer), "__code__", None)

    def look() -> None:
        while not ended.wait(0.005):
            looks.all += 1
            frame = sys._current_frames().get(thread)
            while frame is not None and frame.f_code is not code:
                frame = frame.f_back
            if frame is not None:
                looks.inside, looks.line = looks.inside + 1, frame.f_lineno

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield looks
    finally:
        ended.set()
        looking.join()


def _expect_a_free_loop(looks: _Looks) -> None:
    if 2 * looks.inside > looks.all:
        evidence = _("line {line} of your cell kept the event loop busy {inside} of {all} times that the check looked")
        raise NotYet(
            _("waiting must not block the event loop, or nobody else is served: use `await asyncio.sleep(every)`"),
            evidence.format(line=looks.line, inside=looks.inside, all=looks.all),
        )


async def _seen(watching: asyncio.Future[None], wire: Wire, kind: str, count: int) -> bool:
    """Whether the wire saw `count` events of a kind in time, before the learner's function ended."""
    seeing = asyncio.ensure_future(wire.wait_for("websocket", kind, count=count, timeout=SECONDS))
    both: set[asyncio.Future[Any]] = {watching, seeing}
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    seeing.cancel()
    (found,) = await asyncio.gather(seeing, return_exceptions=True)
    return isinstance(found, Event)


def _expect_running(watching: asyncio.Future[None], rule: str, wire: Wire) -> None:
    if watching.done():
        evidence = "\n".join([_("the function ended"), seen_on_wire(wire.trace.filter("websocket"))])
        raise NotYet(rule, evidence) from watching.exception()


async def _expect_end(watching: asyncio.Future[None], rule: str, rule_if_raised: str, event: str) -> None:
    """Expect that the learner's function returns because of `event`."""
    await asyncio.wait([watching], timeout=PATIENCE + SECONDS)
    if not watching.done():
        evidence = _("{event}, and {seconds:g} s later the function was still waiting")
        raise NotYet(rule, evidence.format(event=event, seconds=PATIENCE + SECONDS))
    if error := watching.exception():
        raise NotYet(rule_if_raised, event) from error


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
            if first != 0x8A:  # a Pong needs no answer
                kind = 0x8A if first == 0x89 else first
                writer.write(bytes([kind]) + size + payload)
                await writer.drain()
    except (EOFError, OSError):
        pass  # the client is gone
    finally:
        writer.close()


LIMIT = 512 * KIB  # that may wait in the server's memory for a client that does not read


async def check_echo_by_hand(answer: Answer) -> None:
    if not inspect.iscoroutinefunction(answer):
        raise NotYet(_("it waits for bytes, so it must be an `async def`"))

    async def serve_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * KIB)  # to notice soon that a client does not read
        await upgrade(reader, writer)
        await answer(reader, writer)

    async with serving(serve_client) as served:
        async with Wire(to=served.url) as wire:
            await _send_messages(wire)
        async with Wire(to=served.url) as wire:
            await _ping_between_two_pieces(wire, "Hello", 3)
            try:
                await _ping_between_two_pieces(wire, "안녕", 2)
            except NotYet as broken:
                _expect_no_decoding(served.errors, broken)
                raise
        async with Wire(to=served.url) as wire:
            await _close(wire)
        await _send_byte_by_byte(served.url)
        await _close_without_a_number(served.url)
        await _send_without_reading(served.url, lambda: served.writers[-1])
        await _vanish(served.url, lambda: served.tasks[-1], served.errors)


def _expect_no_decoding(errors: list[Exception], broken: NotYet) -> None:
    """Raise the rule that an answer broke which decodes each frame, instead of what followed from its error."""
    if any(isinstance(error, UnicodeDecodeError) for error in errors):
        rule = _("a frame may end in the middle of a character, so do not decode it: send its bytes back as they are")
        raise NotYet(rule, broken.evidence) from None


async def _send_messages(wire: Wire) -> None:
    client = await connect(wire.url, compression=None, ping_interval=None, max_size=None, proxy=None)
    try:
        rule = _("a text comes back unchanged: unmasked, and in a frame without a mask")
        await _expect_echo(client, "안녕 👋", rule, wire)
        await _expect_echo(client, b"\x00\xff", _("binary data comes back as binary data, not as text"), wire)
        for length in (0, 125, 126, 65_535, 65_536):
            rule = ngettext("a message of {count} byte comes back", "a message of {count} bytes comes back", length)
            await _expect_echo(client, bytes(length), rule.format(count=length), wire)
        await _send_all_at_once(client)
    finally:
        client.transport.abort()


async def _expect_echo(client: ClientConnection, message: str | bytes, rule: str, wire: Wire) -> None:
    begin = len(sent_by_server(wire))
    sent = len(wire.trace.records)

    def exchange() -> str:
        records = wire.trace.records[sent:]
        frame = b"".join(record.data for record in records if record.sender == "client")
        evidence = _("the client sent {sent}\nyour server sent {answer}")
        return evidence.format(sent=shown(frame), answer=shown(sent_by_server(wire)[begin:]))

    await within(client.send(message), rule, exchange)
    got = await within(client.recv(), rule, exchange)
    if got != message:
        raise NotYet(rule, "\n".join([exchange(), _("the client read {got!r}").format(got=got[:40])]))
    head = Header.parse(sent_by_server(wire)[begin:])
    if head is not None and head.extended > _extended(head.length):
        # 5.2: "the minimal number of bytes MUST be used to encode the length"
        rule = _("the length is written in the shortest of its three forms: up to 125, up to 65535, or longer")
        raise NotYet(rule, exchange())


def _extended(length: int) -> int:
    """Return how many octets of length follow the second octet, in the shortest form."""
    return 0 if length <= 125 else 2 if length <= 0xFFFF else 8


async def _ping_between_two_pieces(wire: Wire, text: str, cut: int) -> None:
    client = await HandClient.connect(wire.url)
    begin = len(sent_by_server(wire))

    def exchange() -> str:
        evidence = _("the client sent {text!r} in two pieces; your server sent {answer}")
        return evidence.format(text=text, answer=shown(sent_by_server(wire)[begin:]))

    piece = Frame(Opcode.TEXT, text.encode()[:cut], fin=False, mask=MASK)
    ping = Frame(Opcode.PING, b"are you there?", mask=MASK)
    rest = Frame(Opcode.CONTINUATION, text.encode()[cut:], mask=MASK)
    try:
        await client.write(piece.serialize() + ping.serialize())
        rule = _("a Ping is answered at once with a Pong of the same content, even between two pieces")
        pong = await within(client.next(Pong), rule, exchange)
        if pong.payload != ping.payload or wire.trace.filter("websocket", "ping", sender="server"):
            content = _("the content of the Ping was {octets}").format(octets=shown(ping.payload))
            raise NotYet(rule, "\n".join([exchange(), content]))
        await _expect_no_answer_to_a_pong(client, wire)
        await client.write(rest.serialize())
        rule = _("a message in pieces comes back as one message, whole or in pieces, even if a character is cut in two")
        got = await within(client.next(Message), rule, exchange)
        if got.data != text:
            raise NotYet(rule, "\n".join([exchange(), _("the client read {got!r}").format(got=got.data)]))
    finally:
        await client.aclose()


async def _expect_no_answer_to_a_pong(client: HandClient, wire: Wire) -> None:
    """Send a Pong, then a Ping, whose answer comes after any answer to the Pong."""
    begin = len(sent_by_server(wire))
    pong, ping = Frame(Opcode.PONG, b"here I am", mask=MASK), Frame(Opcode.PING, b"and you?", mask=MASK)
    rule = _("a Pong needs no answer: it is an answer")
    sent = _("the client sent a Pong and a Ping; your server sent {answer}")

    def exchange() -> str:
        return sent.format(answer=shown(sent_by_server(wire)[begin:]))

    await client.write(pong.serialize() + ping.serialize())
    got = await within(client.next(Pong), rule, exchange)
    if got.payload != ping.payload:
        raise NotYet(rule, exchange())


async def _send_all_at_once(client: ClientConnection) -> None:
    """Send 1 MiB while its echo comes back; then send many short messages at once."""
    await _expect_echoes(
        client,
        [bytes([number]) * (64 * KIB) for number in range(16)],
        _("1 MiB can go in both directions at once"),
        _("1 MiB can go in both directions at once, in order"),
    )
    await _expect_echoes(
        client,
        [f"#{number}" for number in range(200)],
        _("200 short messages all come back"),
        _("200 short messages all come back, in order"),
    )


async def _expect_echoes(
    client: ClientConnection, sent: list[bytes] | list[str], rule: str, rule_of_order: str
) -> None:
    got: list[str | bytes] = []

    def counts() -> str:
        return _("{sent} messages were sent, {got} came back").format(sent=len(sent), got=len(got))

    await within(asyncio.gather(_send_each(client, sent), _collect(client, got, len(sent))), rule, counts, seconds=10)
    if got != sent:
        echoes = ", ".join(repr(each[:4]) for each in got)
        raise NotYet(rule_of_order, _("these came back: {messages}").format(messages=echoes))


async def _send_each(client: ClientConnection, messages: list[bytes] | list[str]) -> None:
    for message in messages:
        await client.send(message)


async def _collect(client: ClientConnection, got: list[str | bytes], count: int) -> None:
    while len(got) < count:
        got.append(await client.recv())


async def _close(wire: Wire) -> None:
    client = await connect(wire.url, compression=None, ping_interval=None, proxy=None)
    begin = len(sent_by_server(wire))
    closing = asyncio.ensure_future(client.close(4001, "점심 시간 🍜"))
    try:
        await wire.wait_for("tcp", ("FIN", "RST"), sender="server", timeout=SECONDS)
    except TimeoutError:
        pass  # the rules below are checked in the order in which a server obeys them
    else:
        await within(closing, _("the connection ends"), lambda: _("it is still open"))
    finally:
        closing.cancel()
        client.transport.abort()
    answer = sent_by_server(wire)[begin:]
    evidence = _("the client sent a Close with 4001, 0f a1; your server sent {answer}").format(answer=shown(answer))
    if answer[:1] != b"\x88" or answer[2:4] != b"\x0f\xa1":
        raise NotYet(_("a Close is answered with a Close of the same number"), evidence)
    if not wire.trace.filter("tcp", ("FIN", "RST"), sender="server"):
        kept = _("then it kept the connection open")
        raise NotYet(_("after its Close, the server ends TCP"), "\n".join([evidence, kept]))


async def _send_byte_by_byte(url: str) -> None:
    client = await HandClient.connect(url)
    frame = Frame(Opcode.TEXT, "방울방울 💧".encode(), mask=MASK).serialize()
    sent = _("sent one byte at a time: {octets}").format(octets=shown(frame))

    async def send_and_receive() -> Message:
        for byte in frame:
            await client.write(bytes([byte]))
            await asyncio.sleep(0.001)  # so that the server reads each byte by itself
        return await client.next(Message)

    try:
        rule = _("a frame may arrive byte by byte: wait until it is complete")
        got = await within(send_and_receive(), rule, lambda: sent)
        if got.data != "방울방울 💧":
            raise NotYet(rule, "\n".join([sent, _("the client read {got!r}").format(got=got.data)]))
    finally:
        await client.aclose()


async def _close_without_a_number(url: str) -> None:
    client = await HandClient.connect(url)
    try:
        rule = _("a Close without a number is answered with one, too")
        ended = await within(client.close(None), rule, lambda: _("the client sent 88 80 and a mask"))
        if not ended.clean:
            evidence = _("the client sent 88 80 and a mask, and its connection ended with {code}")
            raise NotYet(rule, evidence.format(code=ended.code))
    finally:
        await client.aclose()


async def _send_without_reading(url: str, writer: Callable[[], asyncio.StreamWriter]) -> None:
    """Send 2 MiB, read nothing, and measure how much of the echo waits in the server's memory."""
    client = await _connect_by_hand(url, receive_buffer=64 * KIB)
    try:
        for __ in range(128):
            client.write(Frame(Opcode.BINARY, bytes(16 * KIB), mask=MASK).serialize())
        transport = writer().transport
        waiting = [0]

        def over_or_steady() -> bool:
            waiting.append(transport.get_write_buffer_size())
            return waiting[-1] > LIMIT or (len(waiting) > 40 and len(set(waiting[-40:])) == 1)

        await until(over_or_steady, timeout=10)
        if waiting[-1] > LIMIT:
            evidence = _("the client sent 2 MiB and read nothing; {size} KiB waited in the server's memory")
            raise NotYet(
                _("a client that does not read must not fill the server's memory: wait until there is room"),
                evidence.format(size=waiting[-1] // KIB),
            )
    finally:
        client.transport.abort()


async def _connect_by_hand(url: str, *, receive_buffer: int | None = None) -> asyncio.StreamWriter:
    """Return a client that is connected and does not read."""
    host, port = url.removeprefix("ws://").rstrip("/").split(":")
    sock = socket.socket()
    if receive_buffer is not None:  # set it before connecting: the window offered to the server is fixed then (tcp(7))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=sock, limit=KIB)
    writer.write(make_request(url, key=KEY, compression=False).serialize())
    await reader.readuntil(b"\r\n\r\n")
    return writer


async def _vanish(url: str, task: Callable[[], asyncio.Task[None]], errors: list[Exception]) -> None:
    """Disappear in the middle of a frame: once by ending TCP, once by breaking the connection."""
    half = Frame(Opcode.TEXT, b"Hello", mask=MASK).serialize()[:8]
    rule = _("when a client disappears, the function ends and raises nothing")
    for breaks, event in (
        (False, _("the client ended TCP in the middle of a frame")),
        (True, _("the client broke the connection in the middle of a frame")),
    ):
        client = await _connect_by_hand(url)
        errors.clear()
        client.write(half)
        if breaks:  # the kernel then sends an RST instead of a FIN: socket(7), SO_LINGER
            sock = client.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        await asyncio.wait([task()], timeout=SECONDS)
        if not task().done():
            evidence = _("{event}, and {seconds:g} s later the function was still waiting")
            raise NotYet(rule, evidence.format(event=event, seconds=SECONDS))
        if errors:
            raise NotYet(rule, event) from errors[0]


EXERCISES = [
    Exercise(
        "02.1",
        _("Take the mask off"),
        check_unmask,
        (
            _("Masking and unmasking are the same operation. `text_frame`, at the top of this lesson, does it."),
            _(
                "`for i, byte in enumerate(data)` counts the bytes. Which of the four bytes of the mask belongs to "
                "byte i?"
            ),
            _(
                "`byte ^ mask[i % 4]` is one byte of the result; `bytes(... for i, byte in enumerate(data))` is the "
                "whole result."
            ),
        ),
        unmask,
        _(
            "XOR undoes itself: a ^ b ^ b is a. So the mask hides nothing from anybody who can read the frame. It only "
            "prevents a page's script from choosing the bytes on the wire."
        ),
        learned=_(
            "XOR with the same key undoes itself: masking is no encryption, but it keeps pages from choosing the "
            "bytes on the wire."
        ),
        leads_to=_("A server must not mask what it sends. Why is there nothing to protect in that direction?"),
    ),
    Exercise(
        "02.2",
        _("A header for any length"),
        check_header,
        (
            _("The first byte is the same for every length: FIN is the bit 0x80, the kind is in the last four bits."),
            _("Three cases: up to 125, up to 65535, and above. `bytes([a, b])` makes two bytes from two numbers."),
            _(
                "`length.to_bytes(2)` writes a number as two bytes, the more significant first; `length.to_bytes(8)` "
                "as eight."
            ),
            _(
                "In the second case: `return bytes([0x80 | kind, 126]) + length.to_bytes(2)`. The third has 127 and 8 "
                "instead; the first is just `bytes([0x80 | kind, length])`."
            ),
        ),
        header,
        _(
            "Most chat messages are short and cost two bytes. A reader must know how many bytes a length takes before "
            "it reads the length: that is what 126 and 127 are for. Each length has exactly one valid form, so nobody "
            "can disguise a frame by writing its length differently."
        ),
        learned=_(
            "The first byte of a length says how many follow: that is a variable-length encoding, and the "
            "shortest form is the only valid one."
        ),
        leads_to=_("A frame announces 2⁶³ - 1 bytes. What should a server do before it makes room for them?"),
    ),
    Exercise(
        "02.3",
        _("Messages out of pieces"),
        check_messages,
        (
            _("Go through the frames and collect: what must you remember from one frame to the next?"),
            _(
                "Two things: the payloads so far, as bytes, and whether the message is text. The first frame of a "
                "message, whose kind is 1 or 2, says whether it is text; later pieces have kind 0."
            ),
            _(
                "Kinds from 8 up are Ping, Pong and Close: `continue`. Otherwise, if the kind is not 0, start over: no "
                "bytes yet, and `is_text = kind == 1`. Then add the payload."
            ),
            _(
                "If `fin`, the message is complete: append `pieces.decode() if is_text else pieces` to the list. Do "
                "not decode before that."
            ),
        ),
        messages,
        _(
            "A message may be cut between any two bytes, and a character of 한글 has three. Control frames may come "
            "between pieces and are answered at once. So a receiver keeps the unfinished message apart from everything "
            "else."
        ),
        learned=_(
            "Pieces go into a buffer until FIN, and control frames pass between them: this is reassembly of "
            "fragmented messages."
        ),
        leads_to=_(
            "A client sends pieces for ever and never sets FIN. What would your function do, and what should it do?"
        ),
    ),
    Exercise(
        "02.4",
        _("Notice the silence"),
        check_until_silent,
        (
            _(
                "Write a loop: wait `every` seconds, ask, wait for the answer, and repeat. The function returns when "
                "an answer does not come."
            ),
            _(
                "`pong = await connection.ping()` sends a Ping and returns something to await: `await pong` returns "
                "when the Pong has come."
            ),
            _(
                "`import asyncio`; then `await asyncio.wait_for(pong, patience)` waits no longer than `patience` "
                "seconds and then raises a TimeoutError. Put `try:` around the loop, and `except TimeoutError: return` "
                "after it."
            ),
            _(
                "If the connection is closed, `connection.ping()` raises a ConnectionClosed, from "
                "websockets.exceptions. Catch that, too: `except (TimeoutError, ConnectionClosed): return`."
            ),
        ),
        until_silent,
        _(
            "Silence is not an event. Only a clock can notice it, and only if somebody asks, because a client with "
            "nothing to say is silent, too. `every` decides how soon you notice and what it costs; `patience` decides "
            "how slow a line may be."
        ),
        learned=_("You ask at intervals and give up without an answer: a keep-alive, or heartbeat, with a timeout."),
        leads_to=_(
            "Your phone is in a tunnel for a minute. Would your values end its connection? Would you want that?"
        ),
    ),
    Exercise(
        "02.5",
        _("An echo by hand"),
        check_echo_by_hand,
        (
            _(
                "Start with one frame: read its two bytes, its mask and its content, unmask it, and write it back with "
                "your own header. `await reader.readexactly(n)` waits until n bytes have come, however they are "
                "split. Then put a loop around it. Run the check after each step: its message says what comes next."
            ),
            _(
                "`first, second = await reader.readexactly(2)`, and `length = second & 0x7F`. If that is 126 or 127, "
                "the real length follows: `length = int.from_bytes(await reader.readexactly(2))`, or 8. Then come 4 "
                "bytes of mask, then `length` bytes."
            ),
            _(
                "You need not join pieces. Send each frame back as it is: the same first byte, which holds FIN and the "
                "kind, then the length without the bit for the mask, then the unmasked content. Pieces come back as "
                "pieces. With your `header` from 02.2: `bytes([first]) + header(1, length)[1:] + content`."
            ),
            _(
                "Two first bytes are special. 0x89 is a Ping: answer with 0x8A and the same content. 0x88 is a Close: "
                "write it back, then leave the loop and call `writer.close()`. (0x8A is a Pong: no answer.)"
            ),
            _(
                "After each `writer.write(...)`, call `await writer.drain()`: it waits while the other side does not "
                "read. Put `try:` around the loop and, after it, `except (EOFError, OSError): pass` for a client that "
                "has disappeared, and `finally: writer.close()`."
            ),
        ),
        echo_by_hand,
        _(
            "Each frame goes back as soon as it is complete, so both directions are busy even in the middle of a "
            "message. `drain` waits for a client that does not read; meanwhile the loop reads nothing more from it, "
            "TCP slows the sender down, and no memory fills up. What it does not do is refuse frames that break the "
            "rules, as `chatlab.websocket` does."
        ),
        learned=_(
            "A sender waits until its reader has room: that is backpressure, and it keeps the server's memory bounded."
        ),
        leads_to=_("What waits while your echo waits for one client to read? And if it served two clients?"),
    ),
]
