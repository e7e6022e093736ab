"""Frames as a client sends them, and an echo server on `Connection` that answers them without a socket."""

from __future__ import annotations

from collections.abc import Iterable

from chatlab.websocket.connection import WRITING, Connection, Event, Message
from chatlab.websocket.deflate import Parameters
from chatlab.websocket.frames import Close, Frame, Opcode, Side
from tests.support.feeding import Split, whole

MASK = bytes.fromhex("37 fa 21 3d")


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes | None = MASK) -> bytes:
    """Return one frame from a client; `rsv` contains the three reserved bits, RSV1 first."""
    return Frame(opcode, payload, fin, bool(rsv & 4), bool(rsv & 2), bool(rsv & 1), mask).serialize()


def text(payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
    return frame(Opcode.TEXT, payload, fin=fin, rsv=rsv)


def binary(payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
    return frame(Opcode.BINARY, payload, fin=fin, rsv=rsv)


def more(payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
    return frame(Opcode.CONTINUATION, payload, fin=fin, rsv=rsv)


def ping(payload: bytes = b"") -> bytes:
    return frame(Opcode.PING, payload)


def pong(payload: bytes = b"") -> bytes:
    return frame(Opcode.PONG, payload)


def close(code: int | None = None, reason: bytes = b"") -> bytes:
    """Return a Close with any code, valid or not."""
    return frame(Opcode.CLOSE, (b"" if code is None else code.to_bytes(2)) + reason)


def parse_all(data: bytes) -> list[Frame]:
    """Return every frame in `data`, which must end at the end of a frame."""
    frames = []
    while data:
        parsed = Frame.parse(data)
        assert parsed is not None, f"an incomplete frame at the end: {data[:20].hex(' ')}"
        frames.append(parsed[0])
        data = data[parsed[1] :]
    return frames


def answer_events(connection: Connection, events: Iterable[Event]) -> None:
    """Send every message back, as an echo server does."""
    for event in events:
        if isinstance(event, Message) and connection.state in WRITING:
            connection.send(event.data)


def echo(data: bytes, split: Split = whole, compression: Parameters | None = None) -> tuple[list[Frame], Connection]:
    """Return the frames with which an echo server answers `data`, and the server's connection."""
    server = Connection.opened(Side.SERVER, compression)
    out = b""
    for piece in split(data):
        answer_events(server, server.receive_data(piece))
        out += server.data_to_send()
    return parse_all(out), server


def close_code(answer: Frame) -> int | None:
    """Return the code of an answer, which must be a Close."""
    assert answer.opcode == Opcode.CLOSE, answer
    return Close.parse(answer.payload).code
