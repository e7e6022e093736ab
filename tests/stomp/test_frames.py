"""STOMP frames on the wire, rule by rule, in literal octets."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chatlab.errors import LocalProtocolError, StompError
from chatlab.stomp.frames import (
    HEARTBEAT,
    VERSIONS,
    Frame,
    Heartbeat,
    Limits,
    MessageFrame,
    MessageHead,
    Parser,
    escape,
    subscription_prefix,
    unescape,
    user_headers,
)
from tests.support.feeding import SPLITS, Split

SEND = b"SEND\ndestination:/topic/a\n\nhello\0"
A_SEND = Frame("SEND", (("destination", "/topic/a"),), b"hello")


def parse(data: bytes, version: str | None = "1.2", limits: Limits | None = None) -> list[Frame]:
    return [frame for frame in Parser(limits, version).feed(data) if not isinstance(frame, Heartbeat)]


def parse_in_pieces(
    data: bytes, split: Split, version: str | None = "1.2", limits: Limits | None = None
) -> list[Frame]:
    parser = Parser(limits, version)
    return [f for piece in split(data) for f in parser.feed(piece) if not isinstance(f, Heartbeat)]


def fault(data: bytes, version: str | None = "1.2", limits: Limits | None = None) -> str:
    with pytest.raises(StompError) as caught:
        parse(data, version, limits)
    return str(caught.value)


# --- Frames, however they are split ---

FRAMES = [
    (SEND, [A_SEND]),
    (b"DISCONNECT\n\n\0", [Frame("DISCONNECT")]),
    (b"SEND\nempty:\n\n\0", [Frame("SEND", (("empty", ""),))]),
    (b"SEND\na:1\n\nx\0SEND\nb:2\n\ny\0", [Frame("SEND", (("a", "1"),), b"x"), Frame("SEND", (("b", "2"),), b"y")]),
    (b"\n\r\n\n" + SEND + b"\n\r\n\n" + SEND + b"\n", [A_SEND, A_SEND]),
    (b"SEND\r\ndestination:/topic/a\r\n\r\nhello\0", [A_SEND]),
    (b"SEND\ndestination:/topic/a\r\n\nhello\0", [A_SEND]),
    (b"SEND\r\ndestination:/topic/a\n\r\nhello\0", [A_SEND]),
    (b"SEND\r\ndestination:/topic/a\r\n\r\n\nhello\0", [A_SEND._replace(body=b"\nhello")]),
    (b"SEND\r\ndestination:/topic/a\r\n\r\n\r\nhello\0", [A_SEND._replace(body=b"\r\nhello")]),
    (b"SEND\ncontent-length:4\n\n\0\n\0\n\0", [Frame("SEND", (("content-length", "4"),), b"\0\n\0\n")]),
    (b"SEND\ncontent-length:0\n\n\0", [Frame("SEND", (("content-length", "0"),))]),
    (
        b"SEND\ncontent-length:6\n\n\xec\x95\x88\xeb\x85\x95\0",
        [Frame("SEND", (("content-length", "6"),), "안녕".encode())],
    ),
    (b"SEND\n\n\xff\xfe\0", [Frame("SEND", (), b"\xff\xfe")]),
    ("SEND\n이름:값\n\n\0".encode(), [Frame("SEND", (("이름", "값"),))]),
    (b"SEND\na\\cb:c\\nd\\\\e\\r\n\n\0", [Frame("SEND", (("a:b", "c\nd\\e\r"),))]),
    (b"SEND\n a : b \n\n\0", [Frame("SEND", ((" a ", " b "),))]),
    (b"SEND\nurl:http://x:1\n\n\0", [Frame("SEND", (("url", "http://x:1"),))]),
    (b"SEND\nfoo:World\nfoo:Hello\n\n\0", [Frame("SEND", (("foo", "World"), ("foo", "Hello")))]),
]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(("data", "frames"), FRAMES)
def test_frames_parse_alike_however_the_octets_are_split(data: bytes, frames: list[Frame], split: Split) -> None:
    assert parse_in_pieces(data, split) == frames


@pytest.mark.parametrize(("data", "frames"), FRAMES)
def test_a_frame_does_not_wait_for_what_follows_it(data: bytes, frames: list[Frame]) -> None:
    parser = Parser(version="1.2")
    assert [f for f in parser.feed(data + SEND[:9]) if f is not HEARTBEAT] == frames
    assert parser.feed(SEND[9:]) == [A_SEND]


def test_the_first_of_repeated_headers_wins() -> None:
    (frame,) = parse(b"MESSAGE\nfoo:World\nfoo:Hello\n\n\0")
    assert frame.get("foo") == "World"
    assert frame.get("bar") is None


def test_the_first_of_repeated_content_lengths_wins() -> None:
    assert parse(b"SEND\ncontent-length:1\ncontent-length:9\n\nx\0")[0].body == b"x"


def test_a_line_end_between_frames_is_a_heart_beat() -> None:
    parser = Parser(version="1.2")
    assert parser.feed(b"\n") == [HEARTBEAT]
    assert parser.feed(b"\r\n") == [HEARTBEAT]
    assert parser.feed(b"\n" + SEND) == [HEARTBEAT, A_SEND]
    assert parser.feed(SEND + b"\n") == [A_SEND]  # "the NULL octet can be optionally followed by multiple EOLs"
    assert parser.feed(b"") == []


def test_frames_before_an_invalid_one_are_yielded_first() -> None:
    frames = Parser(version="1.2").frames(SEND + b"SEND\nnonsense\n\n\0")
    assert next(frames) == A_SEND
    with pytest.raises(StompError):
        next(frames)


def test_the_version_may_be_set_between_two_frames_of_one_message() -> None:
    parser = Parser()
    frames = parser.frames(b"CONNECT\nlogin:a\\cb\n\n\0SEND\nx:a\\cb\n\n\0")
    first = next(frames)
    assert isinstance(first, Frame)
    assert first.get("login") == r"a\cb"
    parser.version = "1.1"
    second = next(frames)
    assert isinstance(second, Frame)
    assert second.get("x") == "a:b"


# --- Escapes and line ends by version ---


@pytest.mark.parametrize(
    ("version", "wire", "value"),
    [
        ("1.0", rb"a\nb\cc\\d\re\t", r"a\nb\cc\\d\re\t"),
        ("1.1", rb"a\nb\cc\\d", "a\nb:c\\d"),
        ("1.2", rb"a\nb\cc\\d\re", "a\nb:c\\d\re"),
        ("1.2", rb"\\n", r"\n"),
    ],
)
def test_each_version_has_its_own_escapes(version: str, wire: bytes, value: str) -> None:
    data = b"SEND\nx:" + wire + b"\n\n\0"
    assert parse(data, version) == [Frame("SEND", (("x", value),))]
    assert Frame("SEND", (("x", value),)).serialize(version) == data


@pytest.mark.parametrize(
    ("version", "wire"), [("1.1", rb"\r"), ("1.1", rb"\t"), ("1.2", rb"\t"), ("1.2", rb"a\ "), ("1.2", b"a\\")]
)
def test_an_undefined_escape_is_an_error(version: str, wire: bytes) -> None:
    assert fault(b"SEND\nx:" + wire + b"\n\n\0", version).startswith("undefined escape sequence \\")


@pytest.mark.parametrize("command", ["CONNECT", "STOMP", "CONNECTED"])
@pytest.mark.parametrize("version", [None, *VERSIONS])
def test_connect_and_connected_are_never_escaped(command: str, version: str | None) -> None:
    data = command.encode() + b"\nlogin:a\\cb:c\\t\n\n\0"
    assert parse(data, version) == [Frame(command, (("login", r"a\cb:c\t"),))]
    assert Frame(command, (("login", r"a\cb:c\t"),)).serialize(version or "1.2") == data


def test_a_line_ends_with_cr_lf_in_1_2_and_before_the_version_is_known() -> None:
    for version in ("1.2", None):
        assert parse(b"CONNECT\r\nhost:x\r\n\r\n\0", version) == [Frame("CONNECT", (("host", "x"),))]


def test_a_cr_belongs_to_the_value_before_1_2() -> None:
    for version in ("1.0", "1.1"):
        assert parse(b"SEND\nx:a\r\n\n\0", version) == [Frame("SEND", (("x", "a\r"),))]
        assert Frame("SEND", (("x", "a\r"),)).serialize(version) == b"SEND\nx:a\r\n\n\0"


def test_a_cr_inside_a_line_is_an_error_in_1_2() -> None:
    assert fault(b"SEND\nx:a\rb\n\n\0") == r"carriage return inside a header line: in STOMP 1.2 it is written \r"


def test_escape_and_unescape_follow_the_version() -> None:
    assert escape("a:b\r", "1.2") == r"a\cb\r"
    assert escape("a:b\r", "1.1") == "a\\cb\r"
    assert unescape(r"a\cb", "1.1") == "a:b"
    assert unescape(r"a\cb", "1.0") == r"a\cb"


# --- Invalid frames ---


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"SEND\nnonsense\n\n\0", "header line 'nonsense' is not of the form name:value"),
        (b"SEND\n:value\n\n\0", "header line ':value' is not of the form name:value"),
        (b"SEND\nx:\xff\n\n\0", "headers are not UTF-8: invalid start byte at octet 7"),
        (b"SEND\0", "NUL in the headers: no blank line before it"),
        (b"SEND\nx:a\0b\n\n\0", "NUL in the headers of 'SEND': no blank line before it"),
        (b"\0", "NUL in the headers: no blank line before it"),
        (b"SEND\ncontent-length:-1\n\n\0", "content-length '-1' is not a number of octets"),
        (b"SEND\ncontent-length:+1\n\nx\0", "content-length '+1' is not a number of octets"),
        (b"SEND\ncontent-length: 1\n\nx\0", "content-length ' 1' is not a number of octets"),
        ("SEND\ncontent-length:١\n\nx\0".encode(), "content-length '١' is not a number of octets"),
        (b"SEND\ncontent-length:\n\nx\0", "content-length '' is not a number of octets"),
        (
            b"SEND\ncontent-length:" + b"9" * 5000 + b"\n\nx\0",
            f"content-length {'9' * 5000!r} is not a number of octets",
        ),
        (b"SEND\ncontent-length:2\n\nxyz\0", "no NUL after the 2 octets that content-length announced"),
    ],
)
def test_an_invalid_frame_raises_an_error_that_describes_it(data: bytes, message: str) -> None:
    assert fault(data) == message
    for split in SPLITS:
        with pytest.raises(StompError):
            parse_in_pieces(data, split)


@pytest.mark.parametrize(
    "data",
    [
        b"SEND\nreceipt:77\nx:\\t\n\n\0",
        b"SEND\nreceipt:77\nnonsense\n\n\0",
        b"SEND\nreceipt:77\ncontent-length:x\n\n\0",
        b"SEND\nreceipt:77\0",
    ],
)
def test_an_error_carries_the_receipt_of_an_unparsable_frame(data: bytes) -> None:
    with pytest.raises(StompError) as caught:
        parse(data)
    assert caught.value.receipt_id == "77"


# --- Limits ---


@pytest.mark.parametrize("split", SPLITS)
def test_the_number_of_headers_is_limited(split: Split) -> None:
    limits = Limits(max_headers=2)
    assert parse_in_pieces(b"SEND\na:1\nb:2\n\n\0", split, limits=limits)
    assert parse_in_pieces(b"SEND\r\na:1\r\nb:2\r\n\r\n\0", split, limits=limits)
    assert fault(b"SEND\na:1\nb:2\nc:3\n\n\0", limits=limits) == "frame with 3 headers or more: at most 2 are allowed"
    assert fault(b"SEND\n" + b"a:1\n" * 9, limits=limits) == "frame with 9 headers or more: at most 2 are allowed"


def test_the_length_of_a_header_line_is_limited_in_octets() -> None:
    limits = Limits(max_header=12)
    assert parse(b"SEND\na:1234567890\n\n\0", limits=limits)
    assert (
        fault(b"SEND\na:12345678901\n\n\0", limits=limits) == "header line of 13 octets or more: at most 12 are allowed"
    )
    assert parse("SEND\na:한한한\n\n\0".encode(), limits=limits)
    assert (
        fault("SEND\na:한한한한\n\n\0".encode(), limits=limits)
        == "header line of 14 octets or more: at most 12 are allowed"
    )
    assert fault(b"SEND\na:" + b"x" * 99, limits=limits) == "header line of 101 octets or more: at most 12 are allowed"


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("head", [b"SEND\n\n", b"SEND\ncontent-length:16\n\n"])
def test_the_size_of_a_frame_is_limited(head: bytes, split: Split) -> None:
    data = head + b"x" * 16 + b"\0"
    assert len(parse_in_pieces(data, split, limits=Limits(max_frame=len(data)))) == 1
    with pytest.raises(StompError, match=f"at most {len(data) - 1} are allowed"):
        parse_in_pieces(data, split, limits=Limits(max_frame=len(data) - 1))


def test_a_frame_announced_too_large_is_refused_before_its_body_comes() -> None:
    message = fault(b"SEND\ncontent-length:100000\n\n", limits=Limits(max_frame=1000))
    assert message == "frame of 100029 octets or more: at most 1000 are allowed"


def test_a_frame_that_never_ends_is_refused_at_the_limit() -> None:
    parser = Parser(Limits(max_frame=1000), "1.2")
    with pytest.raises(StompError, match="frame of 1001 octets or more"):
        for _ in range(2000):
            parser.feed(b"x")


def test_a_large_frame_in_tiny_pieces_takes_time_in_proportion() -> None:
    parser = Parser(Limits(max_frame=1 << 20), "1.2")
    body = b"\n" * 100_000  # a line end in each piece is what makes a careless parser start over
    for octet in b"SEND\n\n" + body:
        assert parser.feed(bytes([octet])) == []
    assert parser.feed(b"\0") == [Frame("SEND", (), body)]


# --- Serializing ---


def test_a_body_adds_its_content_length_in_octets() -> None:
    assert Frame("SEND", (("a", "b"),), "안녕".encode()).serialize() == "SEND\na:b\ncontent-length:6\n\n안녕\0".encode()
    assert Frame("SEND", (), b"\0").serialize() == b"SEND\ncontent-length:1\n\n\0\0"
    padded = b"SEND\ncontent-length:005\n\nhello\0"
    assert [frame.serialize() for frame in parse(padded)] == [padded]  # leading zeros are allowed
    assert Frame("DISCONNECT").serialize() == b"DISCONNECT\n\n\0"


@pytest.mark.parametrize(
    ("headers", "body", "version", "message"),
    [
        ([("content-length", "2")], b"abc", "1.2", "content-length is '2', but the body has 3 octets"),
        ([("content-length", "2"), ("content-length", "3")], b"abc", "1.2", "content-length is '2', but"),
        ([("content-length", "2")], b"", "1.2", "content-length is '2', but the body has 0 octets"),
        ([("", "x")], b"", "1.2", "header without a name, and the value 'x'"),
        ([("x", "a\0b")], b"", "1.2", "header 'x' with the value 'a\\x00b' cannot be written in STOMP 1.2"),
        ([("x", "a\nb")], b"", "1.0", "header 'x' with the value 'a\\nb' cannot be written in STOMP 1.0"),
        ([("x:y", "z")], b"", "1.0", "header 'x:y' with the value 'z' cannot be written in STOMP 1.0"),
    ],
)  # fmt: skip
def test_a_header_that_cannot_be_represented_is_refused(
    headers: list[tuple[str, str]], body: bytes, version: str, message: str
) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        Frame("SEND", tuple(headers), body).serialize(version)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("value", ["a\nb", "a\r", "a\0"])
def test_connected_cannot_carry_line_breaks(value: str) -> None:
    with pytest.raises(LocalProtocolError):
        Frame("CONNECTED", (("user-name", value),)).serialize("1.2")


def test_a_frame_is_readable_as_text() -> None:
    assert str(A_SEND) == "SEND\ndestination:/topic/a\n\nhello^@"


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
names = texts.filter(lambda text: text not in ("", "content-length"))
frames = st.builds(
    Frame,
    st.sampled_from(["SEND", "MESSAGE", "ERROR"]),
    st.lists(st.tuples(names, texts), max_size=5).map(tuple),
    st.binary(max_size=40),
)


@given(st.lists(frames, max_size=4), st.sampled_from(["1.1", "1.2"]), st.integers(1, 50))
@example([Frame("SEND", (("a", "\r"),))], "1.1", 1)
def test_parse_is_the_inverse_of_serialize(written: list[Frame], version: str, step: int) -> None:
    data = b"".join(frame.serialize(version) for frame in written)
    parser = Parser(version=version)
    read = [f for i in range(0, len(data), step) for f in parser.feed(data[i : i + step]) if isinstance(f, Frame)]
    assert [(f.command, f.body) for f in read] == [(f.command, f.body) for f in written]
    assert [tuple(h for h in f.headers if h[0] != "content-length") for f in read] == [f.headers for f in written]
    assert b"".join(frame.serialize(version) for frame in read) == data


plain = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=":\\"), min_size=1, max_size=8)


@given(
    st.lists(st.tuples(plain, plain), max_size=5),
    st.binary(max_size=20),
    st.sampled_from(VERSIONS),
    st.binary(max_size=9),
)
def test_the_fast_path_and_the_full_parser_agree(
    headers: list[tuple[str, str]], body: bytes, version: str, rest: bytes
) -> None:
    lines = "".join(f"{name}:{value}\n" for name, value in headers if name != "content-length")
    data = f"SEND\n{lines}content-length:{len(body)}\n\n".encode() + body + b"\0" + rest
    quick, careful = Parser(version=version), Parser(version=version)
    frame = quick._plain_frame(data, 0)
    assert frame is not None
    assert frame == careful._frame(data, 0)
    assert quick._next == careful._next


# --- Messages for many subscribers ---


def test_a_message_is_the_subscriptions_prefix_and_a_shared_tail() -> None:
    message = MessageFrame("/topic/a", "7-0", b'{"x":1}', [("content-type", "application/json")])
    assert subscription_prefix("sub-0") + message.tail() == (
        b"MESSAGE\nsubscription:sub-0\nmessage-id:7-0\ndestination:/topic/a\n"
        b'content-type:application/json\ncontent-length:7\n\n{"x":1}\0'
    )
    assert message.tail("1.2") is message.tail("1.2")


def test_messages_with_one_head_share_its_serialized_lines() -> None:
    head = MessageHead("/topic/a:b", [("content-type", "text/plain"), ("ack", "1"), ("line\nend", "x")])
    for version in ("1.2", "1.1", "1.0"):
        for number in ("1", "a:2"):
            alone = MessageFrame(head.destination, number, b"x", head.headers)
            assert MessageFrame(head.destination, number, b"x", head=head).tail(version) == alone.tail(version)
        assert head.lines(version) is head.lines(version)


def test_a_message_whose_id_cannot_be_written_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="'message-id'"):
        MessageFrame("/t", "a\nb", b"").tail("1.0")


def test_a_message_without_a_body_has_no_content_length() -> None:
    assert MessageFrame("/t", "1", b"").tail() == b"message-id:1\ndestination:/t\n\n\0"


def test_a_subscription_without_an_id_has_no_header_for_it() -> None:
    assert subscription_prefix(None, "1.0") == b"MESSAGE\n"
    assert subscription_prefix("a:b", "1.0") == b"MESSAGE\nsubscription:a:b\n"
    assert subscription_prefix("a:b", "1.1") == b"MESSAGE\nsubscription:a\\cb\n"


def test_a_message_is_escaped_for_each_version() -> None:
    message = MessageFrame("/t", "1", b"", [("x", "a:b"), ("line\nend", "y"), ("z", "c\nd")])
    assert message.tail("1.2") == b"message-id:1\ndestination:/t\nx:a\\cb\nline\\nend:y\nz:c\\nd\n\n\0"
    # 1.0 cannot represent a line feed: such headers are left out of the message
    assert message.tail("1.0") == b"message-id:1\ndestination:/t\nx:a:b\n\n\0"


def test_a_publisher_cannot_set_the_servers_headers() -> None:
    sent = [("destination", "/t"), ("message-id", "0"), ("subscription", "s"), ("ack", "1"), ("receipt", "r")]
    sent += [("transaction", "t"), ("content-length", "3"), ("redelivered", "x"), ("kept", "1"), ("kept", "2")]
    assert user_headers(sent) == (("kept", "1"),)
    assert MessageFrame("/t", "1", b"", sent).headers == (("kept", "1"),)
