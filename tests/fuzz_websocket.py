"""Throw random and corrupted bytes at the handshake, the frames and the connection: `python tests/fuzz_websocket.py N`.

Each case must end in a value or in a documented error, hold no more memory than its limits, and give the same result in
one piece as in many. A case depends only on its number: the number of a failing case is printed, and
`python tests/fuzz_websocket.py 1 NUMBER` runs it again.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that it runs as a script too

from chatlab.errors import HandshakeError, WebSocketError
from chatlab.websocket.connection import Closed, Connection, Event, Failed, Message, Refused, State
from chatlab.websocket.deflate import Deflater, Inflater, Parameters
from chatlab.websocket.frames import MAX_HEADER, Close, Frame, Opcode, Side, describe, plain_message
from chatlab.websocket.handshake import MAX_BODY, MAX_HEAD, Request, Response, accept, make_request

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
MAX_MESSAGE = 2000
OPCODES = [0, 1, 2, 8, 9, 9, 9, 9, 10, 10, 10, 3, 11]
INTERESTING = [
    b"\x00",
    b"\xff",
    b"\x7e",
    b"\x7f",
    b"\xfe",
    b"\r\n",
    b":",
    b"\xed\xa0\x80",
    b"\x00\x00\xff\xff",
    b"\x03\xed",
]


# --- Making a case ---------------------------------------------------------------------------------------------------


def corrupt(rng: random.Random, data: bytes) -> bytes:
    """Flip, delete, duplicate, insert or replace octets, in most cases not at all or once."""
    octets = bytearray(data)
    for _ in range(rng.choice([0, 0, 0, 1, 1, 1, 2, 3])):
        at = rng.randrange(len(octets) + 1)
        kind = rng.randrange(5)
        if kind == 0 and at < len(octets):
            octets[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            octets[at:at] = rng.choice(INTERESTING)
        elif kind == 2:
            del octets[at : at + rng.randrange(1, 9)]
        elif kind == 3:
            octets[at:at] = octets[at : at + rng.randrange(1, 40)]
        elif at < len(octets):
            octets[at] = rng.randrange(256)
    return bytes(octets)


def payload(rng: random.Random, opcode: int) -> bytes:
    size = rng.choice([0, 1, 5, 20, 100, 124, 125, 126, 127, 300] if opcode < 8 else [0, 1, 125, 125, 126])
    if opcode == Opcode.CLOSE:
        return rng.choice([b"", b"\x03\xe8bye", b"\x0f\xa0", b"\x03\xed", b"\x03", b"\x03\xe8\xff"])
    if opcode == Opcode.BINARY or rng.random() < 0.05:
        return rng.choice([rng.randbytes(size), bytes(size * 10)])
    return ("한글 text é😀" * 30)[:size].encode()[: 125 if opcode >= 8 else None]


def frames(rng: random.Random, sender: Side, compression: bool) -> bytes:
    """Return frames, most of them valid and in a valid order."""
    out, unfinished, deflater = b"", False, Deflater()
    for _ in range(rng.randrange(1, 9)):
        opcode = rng.choice([0] * 12 if unfinished else [1, 1, 1, 2, 2]) if rng.random() < 0.7 else rng.choice(OPCODES)
        fin = opcode >= 8 or rng.random() < 0.7
        rsv1 = compression and opcode in (1, 2) and fin and rng.random() < 0.6
        rsv2, rsv3, wrong_mask = (rng.random() < 0.01 for _ in range(3))
        data = payload(rng, opcode)
        data = deflater.piece(data) if rsv1 else data
        mask = rng.randbytes(4) if (sender is Side.CLIENT) != wrong_mask else None
        out += Frame(opcode, data, fin, rsv1, rsv2, rsv3, mask).serialize()
        unfinished = not fin if opcode < 3 else unfinished
    return out


def handshake_bytes(rng: random.Random, sender: Side) -> bytes:
    request = make_request("ws://example.org/chat?a=b", key=KEY, subprotocols=["chat", "more"])
    if sender is Side.CLIENT:
        return request.serialize()
    refusal = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 7\r\n\r\nnot you"
    return accept(request, subprotocols=["more"])[0].serialize() if rng.random() < 0.8 else refusal


def pieces(rng: random.Random, data: bytes) -> list[bytes]:
    """Split `data` at a few random places, or at every octet."""
    if len(data) < 300 and rng.random() < 0.1:
        return [data[i : i + 1] for i in range(len(data))]
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(6)))
    return [data[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True)]


# --- Checking it ------------------------------------------------------------------------------------------------------


def connection_for(side: Side, compression: bool, opened: bool) -> Connection:
    if opened:
        parameters = Parameters() if compression else None
        return Connection.opened(side, parameters, max_message=MAX_MESSAGE, mask=lambda: b"mask")
    connection = Connection(side, max_message=MAX_MESSAGE, mask=lambda: b"mask")
    if side is Side.CLIENT:
        connection.request(make_request("ws://example.org/chat?a=b", key=KEY, subprotocols=["chat", "more"]))
    return connection


def converse(connection: Connection, parts: list[bytes]) -> tuple[list[Event], bytes]:
    """Feed the parts and the end of the stream, and check the limits; return the events and the answer."""
    events: list[Event] = []
    for part in parts:
        events += connection.receive_data(part)
        held = len(connection._buffer)
        limit = MAX_HEAD + MAX_BODY + 4 if connection.state is State.CONNECTING else MAX_HEADER + 125
        assert held <= limit, f"{held} bytes are held in state {connection.state.name}"
        assert len(connection._assembly._data) <= MAX_MESSAGE
    out = connection.data_to_send()
    events += connection.receive_eof()
    assert connection.state is State.CLOSED
    assert isinstance(events[-1], Closed | Refused)
    for event in events:
        if isinstance(event, Message):
            data = event.data.encode() if isinstance(event.data, str) else event.data
            assert len(data) <= MAX_MESSAGE
    return events, out


def before_refusal(events: list[Event]) -> list[Event]:
    """Return the events before the first refusal."""
    return list(takewhile(lambda event: not isinstance(event, Failed | Refused), events))


def fuzz_connection(rng: random.Random) -> None:
    """Check that a conversation gives the same result however it is split, with or without a handshake."""
    side, compression, opened = rng.choice(list(Side)), rng.random() < 0.5, rng.random() < 0.7
    data = b"" if opened else handshake_bytes(rng, side.peer)
    data = corrupt(rng, data + frames(rng, side.peer, compression or not opened))
    first, answer = converse(connection_for(side, compression, opened), [data])
    again, same_answer = converse(connection_for(side, compression, opened), pieces(rng, data))
    assert before_refusal(first) == before_refusal(again)
    if before_refusal(first) == first:
        assert answer == same_answer
    else:
        assert before_refusal(again) != again  # both are refused; in pieces another fault may be found first


def fuzz_plain(rng: random.Random) -> None:
    """Check that the fast path for plain messages reads the same messages as the connection does."""
    data = corrupt(rng, frames(rng, Side.CLIENT, compression=False))
    all_events, answer = converse(connection_for(Side.SERVER, False, True), [data])
    plain: list[bytes] = []
    start = 0
    while (parsed := plain_message(data, start, MAX_MESSAGE)) is not None:
        plain.append(parsed[0])
        start = parsed[1]
    rest, same_answer = converse(connection_for(Side.SERVER, False, True), [data[start:]])
    assert messages(all_events) == plain + messages(rest)
    assert answer == same_answer


def messages(events: list[Event]) -> list[bytes]:
    parsed = [event.data for event in events if isinstance(event, Message)]
    return [data.encode() if isinstance(data, str) else data for data in parsed]


def fuzz_parsers(rng: random.Random) -> None:
    """Check that each parser returns a value or None, or raises only its documented error."""
    data = corrupt(
        rng, rng.choice([handshake_bytes(rng, Side.CLIENT), frames(rng, Side.SERVER, True), rng.randbytes(60)])
    )
    for parse, error in (
        (Request.parse, HandshakeError),
        (Response.parse, HandshakeError),
        (Close.parse, WebSocketError),
    ):
        allow(parse, data, error)
    allow(
        lambda data: accept(Request("/", (("Sec-WebSocket-Extensions", data.decode("latin-1")),))), data, HandshakeError
    )
    describe(data)
    parsed = Frame.parse(data)
    if parsed is not None:
        assert Frame.parse(parsed[0].serialize()) == (parsed[0], len(parsed[0].serialize()))
        assert str(parsed[0])


def allow(parse: Callable[[bytes], object], data: bytes, error: type[Exception]) -> None:
    with suppress(error):
        parse(data)


def fuzz_request(rng: random.Random) -> None:
    """Check that a corrupted handshake is accepted or refused with one of the documented statuses."""
    data = corrupt(rng, handshake_bytes(rng, Side.CLIENT))
    try:
        parsed = Request.parse(data)
        if parsed is not None:
            response, _ = accept(parsed[0], subprotocols=["chat"])
            assert response.status == 101
    except HandshakeError as error:
        assert error.status in (400, 403, 405, 413, 414, 426, 431, 505)


def fuzz_inflater(rng: random.Random) -> None:
    """Check that corrupted DEFLATE is refused or decompressed, never beyond the limit."""
    inflater, limit = Inflater(rng.randrange(8, 16)), rng.choice([0, 10, 1000])
    for _ in range(3):
        data = corrupt(rng, Deflater().piece(payload(rng, rng.choice([Opcode.TEXT, Opcode.BINARY]))))
        try:
            out = inflater.piece(data, limit)
            assert len(out) <= limit + 1
            if len(out) <= limit:
                inflater.end(limit - len(out))
        except WebSocketError as error:
            assert error.code == 1007
            return


KINDS = [fuzz_connection, fuzz_connection, fuzz_connection, fuzz_plain, fuzz_parsers, fuzz_request, fuzz_inflater]


def fuzz(count: int, first: int = 0) -> None:
    """Run `count` cases from number `first` on; add the number of the case to an exception."""
    for number in range(first, first + count):
        rng = random.Random(number)
        try:
            rng.choice(KINDS)(rng)
        except Exception as error:
            error.add_note(f"case {number}")
            raise


def main() -> None:
    """Run the cases that the command line asks for."""
    count, first = [*map(int, sys.argv[1:]), *([1_000_000, 0][len(sys.argv) - 1 :])][:2]
    start = time.monotonic()
    fuzz(count, first)
    print(f"websocket: {count:,} cases, {time.monotonic() - start:.0f} s, none broke a rule")


if __name__ == "__main__":
    main()
