"""Each field of a head, a STOMP frame or a Redis command has a name and a clause, and no octet is left out."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatlab.lab.wire.fields import describe_bytes, describe_http, describe_redis, describe_stomp
from chatlab.websocket.frames import Field
from tests.support.heard import REQUEST, RESPONSE

Describe = Callable[[bytes], list[Field]]
DESCRIBES: list[Describe] = [describe_http, describe_stomp, describe_redis, describe_bytes]


def test_each_header_of_an_upgrade_request_has_its_number_in_the_rfc() -> None:
    assert [(field.name, field.clause) for field in describe_http(REQUEST)] == [
        ("request line", "RFC 6455 §4.1 (2)"),
        ("Host", "RFC 6455 §4.1 (4)"),
        ("Upgrade", "RFC 6455 §4.1 (5)"),
        ("Connection", "RFC 6455 §4.1 (6)"),
        ("Sec-WebSocket-Key", "RFC 6455 §4.1 (7)"),
        ("Sec-WebSocket-Version", "RFC 6455 §4.1 (9)"),
        ("empty line", "RFC 9112 §2.1"),
    ]


def test_each_header_of_an_upgrade_response_has_its_number_in_the_rfc() -> None:
    assert [(field.name, field.clause) for field in describe_http(RESPONSE)] == [
        ("status line", "RFC 6455 §4.2.2 (5.1)"),
        ("Upgrade", "RFC 6455 §4.2.2 (5.2)"),
        ("Connection", "RFC 6455 §4.2.2 (5.3)"),
        ("Sec-WebSocket-Accept", "RFC 6455 §4.2.2 (5.4)"),
        ("empty line", "RFC 9112 §2.1"),
    ]


def test_a_header_without_an_upgrade_has_the_clause_of_plain_http() -> None:
    fields = describe_http(b"GET / HTTP/1.1\r\nHost: x\r\nX-Mine: 1\r\n\r\n")
    assert [(field.name, field.clause) for field in fields[:3]] == [
        ("request line", "RFC 9112 §3"),
        ("Host", "RFC 9110 §7.2"),
        ("X-Mine", "RFC 9110 §5"),
    ]
    assert fields[2].value == b"1"


def test_an_http_body_is_one_field() -> None:
    assert [(field.name, field.value) for field in describe_http(b"Hello")] == [("body", b"Hello")]


def test_a_stomp_frame_has_command_headers_body_and_nul() -> None:
    frame = b"SEND\ndestination:/a\nmine:1\n\nHello\x00"
    fields = describe_stomp(frame)
    assert [field.name for field in fields] == ["command", "destination", "mine", "empty line", "body", "NUL"]
    assert [frame[field.start : field.stop] for field in fields] == [
        b"SEND",
        b"destination:/a",
        b"mine:1",
        b"\n",
        b"Hello",
        b"\x00",
    ]
    assert all(field.clause.startswith("STOMP 1.2") for field in fields)


def test_a_stomp_frame_without_its_nul_says_that_it_is_missing() -> None:
    last = describe_stomp(b"SEND\ndestination:/a\n\nHello")[-1]
    assert (last.name, last.meaning) == ("NUL", "missing: the frame has not ended")


def test_a_stomp_frame_ends_at_the_first_nul_unless_its_length_says_otherwise() -> None:
    def parts(frame: bytes) -> list[tuple[str, bytes]]:
        return [(field.name, frame[field.start : field.stop]) for field in describe_stomp(frame)][-3:]

    assert parts(b"SEND\n\na\x00b\x00") == [("body", b"a"), ("NUL", b"\x00"), ("more", b"b\x00")]
    sized = b"SEND\ncontent-length:3\n\na\x00b\x00"
    assert parts(sized) == [("empty line", b"\n"), ("body", b"a\x00b"), ("NUL", b"\x00")]


def test_a_passcode_is_not_called_a_header_for_the_subscribers() -> None:
    login, passcode = describe_stomp(b"CONNECT\nlogin:a\npasscode:b\n\n\x00")[1:3]
    assert "subscribers" not in login.meaning + passcode.meaning


@pytest.mark.parametrize("beat", [b"\n", b"\r\n"])
def test_a_single_end_of_line_is_a_heart_beat(beat: bytes) -> None:
    assert [field.name for field in describe_stomp(beat)] == ["heart-beat"]


def test_a_redis_command_has_lengths_and_contents() -> None:
    command = b"*2\r\n$3\r\nGET\r\n$1\r\nx\r\n"
    fields = describe_redis(command)
    assert [field.name for field in fields] == ["array", "bulk string", "content", "bulk string", "content"]
    assert b"".join(command[field.start : field.stop] for field in fields) == command


@given(st.binary(max_size=60))
@pytest.mark.parametrize("describe", DESCRIBES)
def test_any_bytes_can_be_described(describe: Describe, data: bytes) -> None:
    at = 0
    for field in describe(data):
        assert at <= field.start <= field.stop <= len(data)
        at = field.stop
