"""Cases 1 to 7 of the Autobahn test suite for servers, rewritten with its numbers: what it sends and must receive.

Each fits in one conversation with an echo server. The other cases of the suite are in test_conformance.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from chatlab.websocket.frames import Frame, Opcode
from tests.support.conversation import binary, close, frame, more, ping, pong, text

NORMAL = close(1000)


def data_frame(payload: bytes | str) -> Frame:
    if isinstance(payload, str):
        return Frame(Opcode.TEXT, payload.encode())
    return Frame(Opcode.BINARY, payload)


def pong_frame(payload: bytes = b"") -> Frame:
    return Frame(Opcode.PONG, payload)


@dataclass(frozen=True)
class Case:
    """The octets that the client sends, the frames it must receive, and the code of the Close at their end."""

    number: str
    sent: bytes
    answers: tuple[Frame, ...] = ()
    code: int | None = 1000


def ok(number: str, sent: bytes, *answers: Frame) -> Case:
    return Case(number, sent + NORMAL, answers)


def fails(number: str, sent: bytes, *answers: Frame, code: int = 1002) -> Case:
    """Return a case in which the rest of the input is not read after a broken rule, even if it is valid."""
    return Case(number, sent + text(b"too late") + NORMAL, answers, code)


SIZES = [0, 125, 126, 127, 128, 65535, 65536]
FRAMING = [
    *(ok(f"1.1.{i}", text(b"*" * size), data_frame("*" * size)) for i, size in enumerate(SIZES, 1)),
    *(ok(f"1.2.{i}", binary(b"\xfe" * size), data_frame(b"\xfe" * size)) for i, size in enumerate(SIZES, 1)),
]

OCTETS = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"
TEN = [b"payload-%d" % i for i in range(10)]
PINGS = [
    ok("2.1", ping(), pong_frame()),
    ok("2.2", ping(b"Hello, world!"), pong_frame(b"Hello, world!")),
    ok("2.3", ping(OCTETS), pong_frame(OCTETS)),
    ok("2.4", ping(b"\xfe" * 125), pong_frame(b"\xfe" * 125)),
    fails("2.5", ping(b"\xfe" * 126)),
    ok("2.7", pong()),
    ok("2.8", pong(b"unsolicited pong payload")),
    ok("2.9", pong(b"unsolicited") + ping(b"ping payload"), pong_frame(b"ping payload")),
    ok("2.10", b"".join(map(ping, TEN)), *map(pong_frame, TEN)),
]

RESERVED_BITS = [
    fails("3.1", text(b"Hello", rsv=4)),
    fails("3.2", text(b"Hello") + text(b"Hello", rsv=2) + ping(), data_frame("Hello")),
    fails("3.3", text(b"Hello") + text(b"Hello", rsv=1) + ping(), data_frame("Hello")),
    fails("3.4", text(b"Hello") + text(b"Hello", rsv=6) + ping(), data_frame("Hello")),
    fails("3.5", binary(OCTETS, rsv=5)),
    fails("3.6", frame(Opcode.PING, b"Hello", rsv=3)),
    fails("3.7", frame(Opcode.CLOSE, rsv=7)),
]

OPCODES = [
    fails("4.1.1", frame(3)),
    fails("4.1.2", frame(4, b"reserved opcode payload")),
    fails("4.1.3", text(b"Hello") + frame(5) + ping(), data_frame("Hello")),
    fails("4.1.4", text(b"Hello") + frame(6, b"payload") + ping(), data_frame("Hello")),
    fails("4.1.5", text(b"Hello") + frame(7, b"payload") + ping(), data_frame("Hello")),
    fails("4.2.1", frame(11)),
    fails("4.2.2", frame(12, b"reserved opcode payload")),
    fails("4.2.3", text(b"Hello") + frame(13) + ping(), data_frame("Hello")),
    fails("4.2.4", text(b"Hello") + frame(14, b"payload") + ping(), data_frame("Hello")),
    fails("4.2.5", text(b"Hello") + frame(15, b"payload") + ping(), data_frame("Hello")),
]

ONE, TWO, BOTH = b"fragment1", b"fragment2", "fragment1fragment2"
FRAGMENTS = [
    fails("5.1", frame(Opcode.PING, ONE, fin=False) + more(TWO)),
    fails("5.2", frame(Opcode.PONG, ONE, fin=False) + more(TWO)),
    ok("5.3", text(ONE, fin=False) + more(TWO), data_frame(BOTH)),
    ok("5.6", text(ONE, fin=False) + ping(b"!") + more(TWO), pong_frame(b"!"), data_frame(BOTH)),
    fails("5.9", more(b"non-continuation payload") + text(b"Hello")),
    fails("5.12", more(b"non-continuation payload", fin=False) + text(b"Hello")),
    fails("5.15", text(ONE, fin=False) + more(TWO) + more(ONE, fin=False) + text(TWO), data_frame(BOTH)),
    fails("5.16", (more(ONE, fin=False) + text(TWO, fin=False) + more(b"3")) * 2),
    fails("5.17", (more(ONE) + text(TWO, fin=False) + more(b"3")) * 2),
    fails("5.18", text(ONE, fin=False) + text(TWO)),
    ok(
        "5.19",
        text(b"1", fin=False) + more(b"2", fin=False) + ping(b"a") + more(b"3", fin=False) + ping(b"b") + more(b"4"),
        pong_frame(b"a"),
        pong_frame(b"b"),
        data_frame("1234"),
    ),
    ok("empty fragments", text(fin=False) + more(fin=False) * 500 + more(b"end"), data_frame("end")),
    fails("masks", frame(Opcode.TEXT, b"Hello", mask=None)),
    fails("lengths", bytes.fromhex("81 fe 00 05 37 fa 21 3d 7f 9f 4d 51 58")),
]

GREEK = "Hello-µ@ßöäüàá-UTF-8!! κόσμε 한글 😀"
BROKEN = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"
VALID_UTF8 = [
    "κόσμε", "\x00", "\x7f", "\u0080", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\ufffd", "\uffff", "\ufffe",
    "\U00010000", "\U0001ffff", "\U0010ffff", "\ufeff", "a\u0300",
]  # fmt: skip
INVALID_UTF8 = {
    "a continuation byte alone": b"\x80",
    "two continuation bytes": b"\xbf\xbf",
    "an incomplete sequence": b"\xc3",
    "three octets of four": b"\xf0\x90\x80",
    "an incomplete sequence before a letter": b"\xe2\x82a",
    "an octet that is never in UTF-8": b"\xfe",
    "another such octet": b"\xff",
    "two octets instead of one": b"\xc0\xaf",
    "three octets instead of one": b"\xe0\x80\xaf",
    "four octets instead of one": b"\xf0\x80\x80\xaf",
    "the largest overlong form": b"\xf0\x8f\xbf\xbf",
    "five octets": b"\xf8\x88\x80\x80\x80",
    "six octets": b"\xfc\x84\x80\x80\x80\x80",
    "beyond U+10FFFF": b"\xf4\x90\x80\x80",
    "far beyond": b"\xf7\xbf\xbf\xbf",
    "half of a surrogate pair": b"\xed\xa0\x80",
    "the other half": b"\xed\xbf\xbf",
    "both halves": b"\xed\xa0\x80\xed\xb0\x80",
    "in the middle of valid text": BROKEN,
}


def octet_frames(data: bytes) -> bytes:
    """Return a text with one frame per octet."""
    frames = [text(data[:1], fin=False), *(more(data[i : i + 1], fin=False) for i in range(1, len(data)))]
    return b"".join(frames) + more()


UTF8 = [
    ok("6.1.1", text(), data_frame("")),
    ok("6.1.2", text(fin=False) + more(fin=False) + more(), data_frame("")),
    ok("6.1.3", text(fin=False) + more(b"middle", fin=False) + more(), data_frame("middle")),
    ok("6.2.1", text(GREEK.encode()), data_frame(GREEK)),
    ok("6.2.2", text(GREEK[:12].encode(), fin=False) + more(GREEK[12:].encode()), data_frame(GREEK)),
    ok("6.2.3", octet_frames(GREEK.encode()), data_frame(GREEK)),
    fails("6.3.1", text(BROKEN), code=1007),
    fails("6.3.2", octet_frames(BROKEN), code=1007),
    *(ok(f"6.5 to 6.23: {valid!r}", text(valid.encode()), data_frame(valid)) for valid in VALID_UTF8),
    *(fails(f"6.5 to 6.23: {name}", text(octets), code=1007) for name, octets in INVALID_UTF8.items()),
]

CLOSING = [
    Case("7.1.1", text(b"Hello") + NORMAL, (data_frame("Hello"),)),
    Case("7.1.2", NORMAL + NORMAL),
    Case("7.1.3", NORMAL + ping()),
    Case("7.1.4", NORMAL + text(b"Hello")),
    Case("7.1.5", text(ONE, fin=False) + NORMAL + more(TWO)),
    Case(
        "7.1.6",
        text(b"BAsd7&jh23" * 1000) + text(b"Hello") + NORMAL + ping(),
        (data_frame("BAsd7&jh23" * 1000), data_frame("Hello")),
    ),
    Case("7.3.1", close(), code=None),
    Case("7.3.2", frame(Opcode.CLOSE, b"a"), code=1002),
    Case("7.3.3", close(1000)),
    Case("7.3.4", close(1000, b"Hello World!")),
    Case("7.3.5", close(1000, b"*" * 123)),
    Case("7.3.6", close(1000, b"*" * 124), code=1002),
    Case("7.5.1", close(1000, BROKEN), code=1007),
    *(
        Case(f"7.7: {code}", close(code), code=code)
        for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999)
    ),
    *(
        Case(f"7.9: {code}", close(code), code=1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999)
    ),
    *(Case(f"7.13: {code}", close(code), code=1002) for code in (5000, 65535)),
]

CASES = FRAMING + PINGS + RESERVED_BITS + OPCODES + FRAGMENTS + UTF8 + CLOSING
