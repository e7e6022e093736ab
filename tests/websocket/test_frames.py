from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ProtocolError
from websockets.frames import EXTERNAL_CLOSE_CODES
from websockets.frames import Frame as LibraryFrame
from websockets.frames import Opcode as LibraryOpcode

from chatlab.errors import LocalProtocolError, WebSocketError
from chatlab.websocket.frames import (
    CLOSE_CODES,
    Close,
    CloseCode,
    Frame,
    Header,
    Opcode,
    Side,
    apply_mask,
    close_code_allowed,
    close_code_meaning,
    describe,
    new_mask,
    server_message,
)

MASK = bytes.fromhex("37 fa 21 3d")
HELLO = b"Hello"

# The examples of RFC 6455, 5.7, and the edges of each form of the length.
ON_THE_WIRE = [
    pytest.param("81 05 48 65 6c 6c 6f", Frame(Opcode.TEXT, HELLO), id="a single-frame unmasked text message"),
    pytest.param(
        "81 85 37 fa 21 3d 7f 9f 4d 51 58",
        Frame(Opcode.TEXT, HELLO, mask=MASK),
        id="a single-frame masked text message",
    ),
    pytest.param("01 03 48 65 6c", Frame(Opcode.TEXT, b"Hel", fin=False), id="the first fragment"),
    pytest.param("80 02 6c 6f", Frame(Opcode.CONTINUATION, b"lo"), id="the last fragment"),
    pytest.param("89 05 48 65 6c 6c 6f", Frame(Opcode.PING, HELLO), id="an unmasked Ping request"),
    pytest.param("8a 85 37 fa 21 3d 7f 9f 4d 51 58", Frame(Opcode.PONG, HELLO, mask=MASK), id="a masked Ping response"),
    pytest.param("82 7e 01 00" + "61" * 256, Frame(Opcode.BINARY, b"a" * 256), id="256 bytes"),
    pytest.param("82 7f 00 00 00 00 00 01 00 00" + "61" * 65536, Frame(Opcode.BINARY, b"a" * 65536), id="64 KiB"),
    pytest.param("82 00", Frame(Opcode.BINARY), id="no payload"),
    pytest.param("82 80 37 fa 21 3d", Frame(Opcode.BINARY, mask=MASK), id="no payload but a mask"),
    pytest.param("82 7d" + "61" * 125, Frame(Opcode.BINARY, b"a" * 125), id="125 bytes: the last that fit in 7 bits"),
    pytest.param("82 7e 00 7e" + "61" * 126, Frame(Opcode.BINARY, b"a" * 126), id="126 bytes: the first in 16 bits"),
    pytest.param(
        "82 7e ff ff" + "61" * 65535, Frame(Opcode.BINARY, b"a" * 65535), id="65,535 bytes: the last in 16 bits"
    ),
    pytest.param("88 00", Frame(Opcode.CLOSE), id="a Close without a body"),
    pytest.param("88 05 03 e8 62 79 65", Frame(Opcode.CLOSE, b"\x03\xe8bye"), id="a Close with code and reason"),
    pytest.param(
        "c1 07 f2 48 cd c9 c9 07 00", Frame(1, bytes.fromhex("f248cdc9c90700"), rsv1=True), id="a compressed one"
    ),
    pytest.param("23 01 61", Frame(3, b"a", fin=False, rsv2=True), id="what is reserved passes through unjudged"),
    pytest.param("9f 00", Frame(15, rsv3=True), id="a reserved control frame too"),
]


@pytest.mark.parametrize(("wire", "frame"), ON_THE_WIRE)
class TestParseAndSerialize:
    def test_a_frame_is_read_with_its_size(self, wire: str, frame: Frame) -> None:
        data = bytes.fromhex(wire)
        assert Frame.parse(data) == (frame, len(data))

    def test_a_frame_is_written_octet_for_octet(self, wire: str, frame: Frame) -> None:
        assert frame.serialize() == bytes.fromhex(wire)

    def test_nothing_is_read_until_the_last_octet_is_there(self, wire: str, frame: Frame) -> None:
        data = bytes.fromhex(wire)
        ends = range(len(data)) if len(data) < 300 else (*range(20), len(data) - 1)
        assert {Frame.parse(data[:end]) for end in ends} == {None}

    def test_octets_after_the_frame_are_left_unread(self, wire: str, frame: Frame) -> None:
        data = bytes.fromhex(wire)
        assert Frame.parse(data + b"\x81") == (frame, len(data))
        assert Frame.parse(data + data) == (frame, len(data))

    def test_every_kind_of_buffer_is_accepted(self, wire: str, frame: Frame) -> None:
        data = bytes.fromhex(wire)
        assert Frame.parse(bytearray(data)) == Frame.parse(memoryview(data)) == (frame, len(data))

    def test_a_header_is_read_before_its_payload_arrives(self, wire: str, frame: Frame) -> None:
        data = bytes.fromhex(wire)
        assert Header.parse(data[: frame.header.size]) == frame.header
        assert Header.parse(data[: frame.header.size - 1]) is None
        assert frame.header.serialize() == data[: frame.header.size]


any_frame = st.builds(
    Frame,
    opcode=st.integers(0, 15),
    payload=st.binary(max_size=300) | st.integers(65530, 65540).map(bytes),
    fin=st.booleans(),
    rsv1=st.booleans(),
    rsv2=st.booleans(),
    rsv3=st.booleans(),
    mask=st.none() | st.binary(min_size=4, max_size=4),
)


@given(any_frame)
def test_parse_undoes_serialize(frame: Frame) -> None:
    data = frame.serialize()
    assert Frame.parse(data) == (frame, len(data))


@given(st.sampled_from(sorted(Opcode)), st.binary(max_size=125) | st.integers(126, 70000).map(bytes), st.booleans())
def test_the_library_writes_the_same_octets_and_refuses_the_same_frames(
    opcode: Opcode, payload: bytes, fin: bool
) -> None:
    library, frame = LibraryFrame(LibraryOpcode(opcode), payload, fin), Frame(opcode, payload, fin)
    if list(frame.header.problems()):
        with pytest.raises(ProtocolError):
            library.check()
        return
    assert library.serialize(mask=False) == frame.serialize()
    masked = library.serialize(mask=True)
    parsed = Frame.parse(masked)
    assert parsed is not None
    assert parsed[0].payload == payload
    assert parsed[0].serialize() == masked


@given(
    payload=st.binary(max_size=40) | st.sampled_from([124, 125, 126, 127, 65535, 65536]).map(bytes), text=st.booleans()
)
def test_server_message_equals_the_serialized_frame(payload: bytes, text: bool) -> None:
    opcode = Opcode.TEXT if text else Opcode.BINARY
    assert server_message(payload, text) == Frame(opcode, payload).serialize()


class TestMask:
    @given(st.binary(max_size=100), st.binary(min_size=4, max_size=4), st.integers(0, 9))
    def test_masking_equals_the_loop_of_the_specification(self, data: bytes, mask: bytes, offset: int) -> None:
        assert apply_mask(data, mask, offset) == bytes(d ^ mask[(i + offset) % 4] for i, d in enumerate(data))

    @given(st.binary(max_size=100), st.binary(min_size=4, max_size=4))
    def test_masking_twice_restores_the_data(self, data: bytes, mask: bytes) -> None:
        assert apply_mask(apply_mask(data, mask), mask) == data

    def test_masking_a_mebibyte_takes_milliseconds(self) -> None:
        data = bytes(range(256)) * 4096
        took = []
        for _ in range(5):
            start = time.perf_counter()
            apply_mask(data, MASK)
            took.append(time.perf_counter() - start)
        assert min(took) < 0.05  # about 3 ms; a loop over the octets takes longer than this on any machine

    def test_masking_keys_differ(self) -> None:
        assert len({new_mask() for _ in range(100)}) > 95
        assert len(new_mask()) == 4


def check(wire: str, sender: Side, rsv1_allowed: bool = False) -> None:
    header = Header.parse(bytes.fromhex(wire))
    assert header is not None
    header.check(sender, rsv1_allowed=rsv1_allowed)


class TestCheck:
    @pytest.mark.parametrize(
        ("wire", "sender", "problem"),
        [
            # 5.1
            ("81 05", Side.CLIENT, "TEXT frame from the client is not masked"),
            ("89 00", Side.CLIENT, "PING frame from the client is not masked"),
            ("81 85 37 fa 21 3d", Side.SERVER, "TEXT frame from the server is masked"),
            # 5.2
            ("c1 00", Side.SERVER, "reserved bits 100 set without an extension that uses them"),
            ("a1 00", Side.SERVER, "reserved bits 010 set without an extension that uses them"),
            ("91 00", Side.SERVER, "reserved bits 001 set without an extension that uses them"),
            ("f1 00", Side.SERVER, "reserved bits 111 set without an extension that uses them"),
            ("83 00", Side.SERVER, "opcode 3 is reserved"),
            ("87 00", Side.SERVER, "opcode 7 is reserved"),
            ("8b 00", Side.SERVER, "opcode 11 is reserved"),
            ("8f 00", Side.SERVER, "opcode 15 is reserved"),
            ("82 7e 00 7d", Side.SERVER, "payload length 125 is not in its shortest form: 2 extra bytes"),
            ("82 7e 00 00", Side.SERVER, "payload length 0 is not in its shortest form: 2 extra bytes"),
            (
                "82 7f 00 00 00 00 00 00 ff ff",
                Side.SERVER,
                "payload length 65535 is not in its shortest form: 8 extra bytes",
            ),
            (
                "82 7f 80 00 00 00 00 00 00 00",
                Side.SERVER,
                "payload length 9223372036854775808 has its most significant bit set",
            ),
            # 5.5
            ("08 00", Side.SERVER, "CLOSE frame is fragmented"),
            ("09 00", Side.SERVER, "PING frame is fragmented"),
            ("0a 00", Side.SERVER, "PONG frame is fragmented"),
            ("88 7e 00 7e", Side.SERVER, "CLOSE frame with a payload of 126 bytes; control frames carry 125 at most"),
            ("89 7e 00 7e", Side.SERVER, "PING frame with a payload of 126 bytes; control frames carry 125 at most"),
        ],
    )
    def test_a_broken_rule_is_named(self, wire: str, sender: Side, problem: str) -> None:
        with pytest.raises(WebSocketError) as raised:
            check(wire, sender)
        assert str(raised.value) == problem
        assert raised.value.code == CloseCode.PROTOCOL_ERROR

    @pytest.mark.parametrize("wire", ["01 00", "80 00", "82 7d", "82 7e 00 7e", "88 00", "89 7d", "8a 00"])
    def test_a_valid_header_passes_the_check(self, wire: str) -> None:
        check(wire, Side.SERVER)

    def test_the_largest_length_there_is_passes(self) -> None:
        check("82 7f 7f ff ff ff ff ff ff ff", Side.SERVER)

    @pytest.mark.parametrize("wire", ["c1 00", "42 00"])
    def test_a_compressed_message_may_start_with_rsv1(self, wire: str) -> None:
        check(wire, Side.SERVER, rsv1_allowed=True)

    @pytest.mark.parametrize("wire", ["c0 00", "c8 00", "c9 00", "ca 00"])
    def test_rsv1_is_refused_on_other_frames(self, wire: str) -> None:
        with pytest.raises(WebSocketError, match="only the first frame of a message may have it"):
            check(wire, Side.SERVER, rsv1_allowed=True)

    def test_every_problem_is_listed(self) -> None:
        header = Header.parse(bytes.fromhex("7b fe 00 01 00 00 00 00"))
        assert header is not None
        assert list(header.problems(Side.SERVER)) == [
            "reserved bits 111 set without an extension that uses them",
            "opcode 11 is reserved",
            "RESERVED 11 frame is fragmented",
            "payload length 1 is not in its shortest form: 2 extra bytes",
            "RESERVED 11 frame from the server is masked",
        ]


class TestClose:
    @pytest.mark.parametrize(
        ("payload", "close"),
        [
            (b"", Close()),
            (b"\x03\xe8", Close(1000)),
            (b"\x03\xe9bye", Close(1001, "bye")),
            (b"\x0f\xa0" + "안녕".encode(), Close(4000, "안녕")),
            (b"\x03\xe8" + b"a" * 123, Close(1000, "a" * 123)),
        ],
    )
    def test_parse_and_serialize_are_inverse(self, payload: bytes, close: Close) -> None:
        assert Close.parse(payload) == close
        assert close.serialize() == payload

    def test_a_body_of_one_octet_is_refused(self) -> None:
        with pytest.raises(WebSocketError, match="body of 1 byte") as raised:
            Close.parse(b"\x03")
        assert raised.value.code == 1002

    @pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
    def test_a_reserved_close_code_is_refused_in_both_directions(self, code: int) -> None:
        with pytest.raises(WebSocketError, match=f"close code {code} must not be sent") as raised:
            Close.parse(code.to_bytes(2))
        assert raised.value.code == 1002
        with pytest.raises(LocalProtocolError, match=f"close code {code} must not be sent"):
            Close(code).serialize()

    @pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999])
    def test_a_permitted_close_code_passes(self, code: int) -> None:
        assert Close.parse(code.to_bytes(2)) == Close(code)

    def test_a_reason_that_is_not_utf8_is_refused(self) -> None:
        with pytest.raises(WebSocketError, match="reason is not UTF-8") as raised:
            Close.parse(b"\x03\xe8\xff")
        assert raised.value.code == 1007

    def test_a_reason_needs_a_code(self) -> None:
        with pytest.raises(LocalProtocolError, match="needs a code"):
            Close(None, "bye").serialize()

    def test_a_reason_has_123_octets_at_most(self) -> None:
        with pytest.raises(LocalProtocolError, match="124 bytes; at most 123"):
            Close(1000, "a" * 124).serialize()

    def test_every_code_has_a_meaning(self) -> None:
        assert {int(code) for code in CloseCode} <= set(CLOSE_CODES)
        assert close_code_meaning(3000) == "registered by a library or framework"
        assert close_code_meaning(4999) == "private use, agreed between the two applications"
        assert close_code_meaning(2000) == "not a close code"

    def test_the_library_allows_the_same_codes(self) -> None:
        assert {code for code in range(3000) if close_code_allowed(code)} == set(EXTERNAL_CLOSE_CODES)


class TestSpeaking:
    @pytest.mark.parametrize(
        ("frame", "text"),
        [
            (Frame(Opcode.TEXT, HELLO, mask=MASK), 'TEXT "Hello" [5 bytes, fin, mask 37 fa 21 3d]'),
            (Frame(Opcode.TEXT, b"a", fin=False), 'TEXT "a" [1 byte, more to come]'),
            (Frame(Opcode.TEXT, b"a" * 100), 'TEXT "' + "a" * 59 + '…" [100 bytes, fin]'),
            (Frame(Opcode.TEXT, b"\xff\xfe"), "TEXT ff fe [2 bytes, fin]"),
            (Frame(Opcode.TEXT, b"\xf2\x00", rsv1=True), "TEXT f2 00 [2 bytes, fin, rsv1]"),
            (Frame(Opcode.BINARY, b"\x00\x01"), "BINARY 00 01 [2 bytes, fin]"),
            (Frame(Opcode.PING), "PING [0 bytes, fin]"),
            (Frame(Opcode.CLOSE), "CLOSE [0 bytes, fin]"),
            (
                Frame(Opcode.CLOSE, b"\x0f\xa0bye"),
                "CLOSE 4000 (private use, agreed between the two applications) 'bye' [5 bytes, fin]",
            ),
            (Frame(Opcode.CLOSE, b"\x00"), "CLOSE 00 [1 byte, fin]"),
            (Frame(3, b"a"), 'RESERVED 3 "a" [1 byte, fin]'),
        ],
    )
    def test_a_frame_is_described_on_one_line(self, frame: Frame, text: str) -> None:
        assert str(frame) == text

    def test_a_close_is_described_with_its_codes_meaning(self) -> None:
        assert str(Close()) == "without a code"
        assert str(Close(1013)) == "1013 (the service is overloaded: try again later)"


class TestDescribe:
    def test_every_field_of_a_masked_text_is_named(self) -> None:
        fields = describe(bytes.fromhex("81 85 37 fa 21 3d 7f 9f 4d 51 58") + b"next")
        assert [(f.name, f.bit, f.bits, f.value, f.clause) for f in fields] == [
            ("FIN", 0, 1, 1, "RFC 6455 §5.4"),
            ("RSV1", 1, 1, 0, "RFC 7692 §6"),
            ("RSV2", 2, 1, 0, "RFC 6455 §5.2"),
            ("RSV3", 3, 1, 0, "RFC 6455 §5.2"),
            ("opcode", 4, 4, 1, "RFC 6455 §5.6"),
            ("MASK", 8, 1, 1, "RFC 6455 §5.1"),
            ("Payload len", 9, 7, 5, "RFC 6455 §5.2"),
            ("Masking-key", 16, 32, MASK, "RFC 6455 §5.3"),
            ("Payload data", 48, 40, HELLO, "RFC 6455 §5.2"),
        ]
        assert [(f.start, f.stop) for f in fields[-2:]] == [(2, 6), (6, 11)]
        assert not any(f.problem for f in fields)

    def test_an_extended_length_is_a_field_of_its_own(self) -> None:
        fields = describe(bytes.fromhex("82 7f 00 00 00 00 00 01 00 00") + bytes(70000))
        assert [(f.name, f.bit, f.bits, f.value) for f in fields[6:8]] == [
            ("Payload len", 9, 7, 127),
            ("Extended payload length", 16, 64, 65536),
        ]
        assert fields[6].meaning == "the next 8 octets hold the length"
        assert fields[8].bits == 65536 * 8

    def test_a_close_shows_its_code_and_reason(self) -> None:
        code, reason = describe(bytes.fromhex("88 05 03 e8 62 79 65"))[-2:]
        assert (code.name, code.bit, code.bits, code.value, code.problem) == ("Status code", 16, 16, 1000, "")
        assert (reason.name, reason.bit, reason.bits, reason.value) == ("Reason", 32, 24, b"bye")

    @pytest.mark.parametrize(
        ("wire", "name", "problem"),
        [
            ("09 00", "FIN", "a control frame must not be fragmented"),
            ("c9 00", "RSV1", "only the first frame of a message may have it"),
            ("a1 00", "RSV2", "must be 0: no extension gives it a meaning"),
            ("91 00", "RSV3", "must be 0: no extension gives it a meaning"),
            ("83 00", "opcode", "opcode 3 is reserved"),
            ("89 7e 00 7e", "Payload len", "a control frame carries 125 octets at most"),
            ("82 7e 00 01 00", "Extended payload length", "not the shortest form of this length"),
            ("82 7f 80 00 00 00 00 00 00 00", "Extended payload length", "the most significant bit must be 0"),
            ("88 01 03", "Payload data", "a close code needs 2 octets"),
            ("88 02 03 ed", "Status code", "close code 1005 must not be sent"),
            ("88 03 03 e8 ff", "Reason", "not UTF-8"),
        ],
    )
    def test_a_broken_rule_is_reported_at_its_field(self, wire: str, name: str, problem: str) -> None:
        assert [(f.name, f.problem) for f in describe(bytes.fromhex(wire)) if f.problem] == [(name, problem)]

    def test_an_incomplete_frame_is_described_as_far_as_it_goes(self) -> None:
        data = bytes.fromhex("81 85 37 fa 21 3d 7f 9f 4d 51 58")
        assert [len(describe(data[:end])) for end in range(12)] == [0, 5, 7, 7, 7, 7, 8, 9, 9, 9, 9, 9]
        assert describe(data[:8])[-1].meaning == '"He"; 3 octets are still to come'

    @given(st.binary(max_size=40))
    def test_any_octets_can_be_described(self, data: bytes) -> None:
        bits = [bit for field in describe(data) for bit in range(field.bit, field.bit + field.bits)]
        assert bits == list(range(len(bits)))  # no gap, no overlap
        assert len(bits) <= len(data) * 8
