"""A connection is decoded alike however its bytes were split, and no bytes break the decoder."""

import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatlab.lab.wire.decode import IncompleteError, Push, RedisError, parse_resp, quoted, shown
from chatlab.lab.wire.trace import WireRecord, dissect
from chatlab.stomp.frames import HEARTBEAT
from chatlab.websocket.frames import Frame, Opcode
from tests.support.heard import (
    CUTS,
    DIALOGUE,
    HELLO,
    MASK,
    MASKED_HELLO,
    REQUEST,
    RESPONSE,
    Segment,
    summaries,
    text_frame,
    trace_of,
    upgraded_trace,
)

# --- HTTP and WebSocket


@pytest.mark.parametrize("cut", CUTS)
def test_an_upgrade_and_its_frames_are_decoded(cut: str) -> None:
    assert summaries(trace_of(*DIALOGUE, cut=cut)) == [
        ("client", "open", ""),
        ("client", "request", "GET /chat HTTP/1.1, asks to upgrade to websocket"),
        ("server", "response", "HTTP/1.1 101 Switching Protocols"),
        ("client", "text", '"Hello"'),
        ("server", "text", '"Hello"'),
        ("server", "ping", '"Hello"'),
        ("client", "pong", '"Hello"'),
        ("client", "close", "1000 (the purpose of the connection has been fulfilled)"),
        ("server", "close", "1000 (the purpose of the connection has been fulfilled)"),
    ]


def test_several_frames_in_one_record_are_separate_events() -> None:
    trace = upgraded_trace(("server", HELLO + HELLO + b"\x89\x00"))
    assert [event.kind for event in trace.filter("websocket")] == ["text", "text", "ping"]
    assert [event.offset - len(RESPONSE) for event in trace.filter("websocket")] == [0, 7, 14]


def test_an_event_has_its_octets_content_position_and_times() -> None:
    event = trace_of(*DIALOGUE, cut="byte by byte").first(kind="text")
    assert (event.data, event.content, event.layer, event.connection) == (MASKED_HELLO, b"Hello", "websocket", 1)
    assert (event.offset, event.end, event.size) == (len(REQUEST), len(REQUEST) + 11, 11)
    assert round(event.until - event.time, 3) == 0.010
    assert event.passed == event.until


@pytest.mark.parametrize("cut", CUTS)
def test_fragments_are_joined_with_a_ping_in_between(cut: str) -> None:
    trace = upgraded_trace(("server", b"\x01\x03Hel" + b"\x89\x00" + b"\x80\x02lo"), cut=cut)
    assert summaries(trace.filter("websocket")) == [
        ("server", "text", '"Hel"; more to come'),
        ("server", "ping", "empty"),
        ("server", "continuation", '"lo"'),
    ]
    parts: list[Any] = [event.value for event in trace.filter("websocket")]
    assert [part.message for part in parts] == [None, None, b"Hello"]
    assert parts[2].opcode == Opcode.TEXT


def test_compressed_messages_are_inflated_with_the_shared_window() -> None:
    # RFC 7692, section 7.2.3.1 and 7.2.3.2: "Hello" twice, sharing the window
    first, second = b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00", b"\xc1\x05\xf2\x00\x11\x00\x00"
    trace = upgraded_trace(("server", first + second), extensions="permessage-deflate")
    assert summaries(trace.filter(kind="text")) == [("server", "text", '"Hello"; deflated')] * 2


def test_compressed_fragments_are_inflated_one_by_one() -> None:
    trace = upgraded_trace(
        ("server", b"\x41\x03\xf2\x48\xcd" + b"\x80\x04\xc9\xc9\x07\x00"), extensions="permessage-deflate"
    )
    contents = [event.content for event in trace.filter("websocket")]
    assert b"".join(contents) == b"Hello"
    assert trace[-1].value.message == b"Hello"  # type: ignore[attr-defined]  # the value of a frame is a Part


def test_without_context_takeover_each_message_is_inflated_separately() -> None:
    packer = [zlib.compressobj(wbits=-15) for _ in range(2)]
    bodies = [(each.compress(b"Hello") + each.flush(zlib.Z_SYNC_FLUSH))[:-4] for each in packer]
    frames = b"".join(Frame(Opcode.TEXT, body, rsv1=True).serialize() for body in bodies)
    trace = upgraded_trace(("server", frames), extensions="permessage-deflate; server_no_context_takeover")
    assert [event.content for event in trace.filter(kind="text")] == [b"Hello", b"Hello"]


def test_a_payload_that_cannot_be_inflated_is_shown_unchanged() -> None:
    trace = upgraded_trace(("server", b"\xc1\x05\xff\xff\xff\xff\xff"), extensions="permessage-deflate")
    assert trace.first(kind="text").content == b"\xff\xff\xff\xff\xff"


def test_a_frame_that_breaks_a_rule_is_an_event_that_names_the_rule() -> None:
    trace = upgraded_trace(("client", HELLO), ("server", b"\xb1\x00"), ("server", b"\x88\x01\x03"))
    assert summaries(trace.filter("websocket")) == [
        ("client", "text", '"Hello"; !TEXT frame from the client is not masked'),
        ("server", "text", "empty; !reserved bits 011 set without an extension that uses them"),
        ("server", "close", "!close frame with a body of 1 byte; its code needs 2"),
    ]


def test_an_incomplete_frame_is_shown_when_its_stream_ends() -> None:
    trace = upgraded_trace(("server", HELLO[:4]))
    assert not trace.filter("websocket")
    trace.add(WireRecord(1.0, 1, "server", note="FIN"))
    assert summaries(trace[-2:]) == [("server", "unfinished", "4 bytes of something longer"), ("server", "FIN", "")]


@pytest.mark.parametrize("cut", CUTS)
def test_plain_http_is_decoded_with_its_bodies(cut: str) -> None:
    trace = trace_of(
        ("client", b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nHello"),
        ("server", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("client", b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("server", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nHello\r\n0\r\n\r\n"),
        ("client", b"HEAD /c HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("server", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        ("client", b"GET /d HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("server", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
        cut=cut,
    )
    assert summaries(trace.filter("http")) == [
        ("client", "request", "POST /a HTTP/1.1"),
        ("client", "body", '"Hello"'),
        ("server", "response", "HTTP/1.1 204 No Content"),
        ("client", "request", "GET /b HTTP/1.1"),
        ("server", "response", "HTTP/1.1 200 OK"),
        ("server", "body", 'chunk "Hello"'),
        ("server", "body", "last chunk"),
        ("client", "request", "HEAD /c HTTP/1.1"),
        ("server", "response", "HTTP/1.1 200 OK"),
        ("client", "request", "GET /d HTTP/1.1"),
        ("server", "response", "HTTP/1.1 100 Continue"),
        ("server", "response", "HTTP/1.1 200 OK"),
        ("server", "body", '"hi"'),
    ]


def test_a_body_without_a_length_is_decoded_as_it_arrives() -> None:
    trace = trace_of(
        ("client", b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("server", b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"),
        ("server", b"data: 1\n\n"),
        ("server", b"data: 2\n\n"),
    )
    assert [event.content for event in trace.filter(kind="body")] == [b"data: 1\n\n", b"data: 2\n\n"]


def test_an_unknown_protocol_is_shown_as_bytes() -> None:
    trace = trace_of(("client", b"AMQP\x00\x00\x09\x01"), ("server", b"\x01\x00\x00"), ("client", b"\x16\x03\x01"))
    assert {event.layer for event in trace} == {"tcp", "bytes"}
    assert [event.data for event in trace.filter("bytes")] == [
        b"AMQP\x00\x00\x09\x01",
        b"\x01\x00\x00",
        b"\x16\x03\x01",
    ]


# --- STOMP


@pytest.mark.parametrize("subprotocol", ["v12.stomp", ""])
@pytest.mark.parametrize("cut", CUTS)
def test_stomp_frames_are_decoded_with_and_without_a_subprotocol(subprotocol: str, cut: str) -> None:
    trace = upgraded_trace(
        ("client", text_frame(b"CONNECT\naccept-version:1.2\nhost:x\n\n\x00", MASK)),
        ("server", text_frame(b"CONNECTED\nversion:1.2\n\n\x00")),
        ("client", text_frame(b"SEND\ndestination:/topic/a\\cb\ncontent-type:text/plain\n\nHello\x00", MASK)),
        ("server", text_frame(b"\n")),
        subprotocol=subprotocol,
        cut=cut,
    )
    assert summaries(trace.filter("stomp")) == [
        ("client", "CONNECT", "accept-version:1.2"),
        ("server", "CONNECTED", "version:1.2"),
        ("client", "SEND", 'destination:/topic/a:b "Hello"'),
        ("server", "heart-beat", ""),
    ]
    send = trace.first("stomp", "SEND")
    assert send.content == b"Hello"
    assert trace.first("stomp", "heart-beat").value is HEARTBEAT
    carrier = trace[send.number - 1]
    assert (carrier.layer, carrier.offset, carrier.end) == ("websocket", send.offset, send.end)


def test_two_stomp_frames_in_one_message_are_two_events() -> None:
    trace = upgraded_trace(
        ("server", text_frame(b"RECEIPT\nreceipt-id:1\n\n\x00RECEIPT\nreceipt-id:2\n\n\x00")), subprotocol="v12.stomp"
    )
    assert [event.data for event in trace.filter("stomp")] == [
        b"RECEIPT\nreceipt-id:1\n\n\x00",
        b"RECEIPT\nreceipt-id:2\n\n\x00",
    ]


def test_messages_that_are_not_stomp_are_reported_once() -> None:
    trace = upgraded_trace(
        ("server", text_frame(b"no stomp") * 3 + text_frame(b"a\nb\n\n\0") * 2), subprotocol="v12.stomp"
    )
    assert [event.kind for event in trace.filter("stomp")] == ["broken"]
    assert len(trace.filter("websocket")) == 5


# --- Redis


@pytest.mark.parametrize("cut", CUTS)
def test_redis_commands_and_replies_are_decoded(cut: str) -> None:
    trace = trace_of(
        ("client", b"*5\r\n$4\r\nxadd\r\n$6\r\nroom:1\r\n$1\r\n*\r\n$4\r\nbody\r\n$9\r\nsay \xed\x95\x9c !\r\n"),
        ("server", b"$15\r\n1700000000000-0\r\n"),
        ("client", b"*1\r\n$4\r\nPING\r\n"),
        ("server", b"+PONG\r\n"),
        ("client", b"*2\r\n$3\r\nGET\r\n$1\r\nx\r\n"),
        ("server", b"-WRONGTYPE not a string\r\n"),
        ("server", b">3\r\n$7\r\nmessage\r\n$4\r\nroom\r\n$2\r\nhi\r\n"),
        cut=cut,
    )
    assert summaries(trace.filter("redis")) == [
        ("client", "XADD", 'xadd room:1 * body "say 한 !"'),
        ("server", "reply", "1700000000000-0"),
        ("client", "PING", "PING"),
        ("server", "reply", "PONG"),
        ("client", "GET", "GET x"),
        ("server", "error", "WRONGTYPE not a string"),
        ("server", "push", "[message, room, hi]"),
    ]


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"+OK\r\n", "OK"),
        (b"-ERR no\r\n", RedisError("ERR no")),
        (b":-7\r\n", -7),
        (b"$5\r\nHello\r\n", b"Hello"),
        (b"$0\r\n\r\n", b""),
        (b"$2\r\n\r\n\r\n", b"\r\n"),
        (b"$-1\r\n", None),
        (b"*-1\r\n", None),
        (b"*0\r\n", []),
        (b"*2\r\n:1\r\n*1\r\n$1\r\na\r\n", [1, [b"a"]]),
        (b"_\r\n", None),
        (b"#t\r\n", True),
        (b",1.5\r\n", 1.5),
        (b"(12345678901234567890\r\n", 12345678901234567890),
        (b"!5\r\nERR x\r\n", RedisError("ERR x")),
        (b"=8\r\ntxt:Some\r\n", b"Some"),
        (b"%1\r\n+a\r\n:1\r\n", [("a", 1)]),
        (b"~2\r\n:1\r\n:2\r\n", [1, 2]),
        (b">1\r\n+a\r\n", Push(["a"])),
        (b"|1\r\n+ttl\r\n:9\r\n+OK\r\n", "OK"),
    ],
)
def test_every_resp_type_is_complete_at_its_last_byte_and_not_before(data: bytes, value: object) -> None:
    assert parse_resp(data + b"+next\r\n") == (value, len(data))
    for end in range(len(data)):
        with pytest.raises(IncompleteError):
            parse_resp(data[:end])


def test_endlessly_nested_redis_values_are_shown_as_bytes() -> None:
    trace = trace_of(("client", b"*1\r\n" * 10_000))
    assert [event.layer for event in trace] == ["tcp", "bytes"]


def test_redis_values_are_shown_on_one_line() -> None:
    assert shown([[b"room", [(b"1-0", None), RedisError("ERR")]], True]) == "[[room, [1-0: (nil), ERR]], True]"


# --- any bytes


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["client", "server"]),
            st.one_of(
                st.binary(max_size=40),
                st.sampled_from(
                    [REQUEST, RESPONSE, HELLO, MASKED_HELLO, b"*1\r\n$4\r\nPING\r\n", b"$3\r\n", b"\r\n\r\n"]
                ),
            ),
        ),
        max_size=8,
    )
)
def test_any_bytes_are_decoded_and_none_is_lost(segments: list[Segment]) -> None:
    trace = trace_of(*segments)
    for sender in ("client", "server"):
        trace.add(WireRecord(9.0, 1, sender, note="FIN"))
    for side in ("client", "server"):
        events = [event for event in trace.filter(sender=side) if event.layer not in ("tcp", "stomp")]
        assert b"".join(event.data for event in events) == b"".join(data for sender, data in segments if sender == side)
    for event in trace:
        assert str(dissect(event)) is not None
    assert str(trace.table()) and str(trace.sequence()) and trace.sequence().svg()


@given(st.binary(max_size=200))
def test_any_bytes_are_quoted_on_one_short_line(data: bytes) -> None:
    assert "\n" not in quoted(data)
    assert len(quoted(data)) < 100
