from __future__ import annotations

import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatlab.errors import HandshakeError, WebSocketError
from chatlab.websocket.deflate import Deflater, Extension, Inflater, Parameters, accept, check_answer, offer
from chatlab.websocket.handshake import parse_extensions

LIMIT = 1 << 20


def extension(text: str) -> Extension:
    (only,) = parse_extensions((("Sec-WebSocket-Extensions", text),))
    return only


def inflate(inflater: Inflater, data: bytes, limit: int = LIMIT) -> bytes:
    out = inflater.piece(data, limit)
    return out + inflater.end(limit - len(out))


class TestNegotiation:
    def test_the_client_offers_the_defaults_and_leaves_its_window_to_the_server(self) -> None:
        assert offer().serialize() == "permessage-deflate; client_max_window_bits"

    @pytest.mark.parametrize(
        ("asked", "answer", "parameters"),
        [
            ("permessage-deflate", "permessage-deflate", Parameters()),
            ("permessage-deflate; client_max_window_bits", "permessage-deflate", Parameters()),
            (
                "permessage-deflate; client_max_window_bits=10",
                "permessage-deflate; client_max_window_bits=10",
                Parameters(client_max_window_bits=10),
            ),
            (
                "permessage-deflate; server_max_window_bits=8",
                "permessage-deflate; server_max_window_bits=8",
                Parameters(server_max_window_bits=8),
            ),
            (
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
                Parameters(server_no_context_takeover=True, client_no_context_takeover=True),
            ),
            (
                'permessage-deflate; server_max_window_bits="12"',
                "permessage-deflate; server_max_window_bits=12",
                Parameters(server_max_window_bits=12),
            ),
        ],
    )
    def test_an_offer_is_granted(self, asked: str, answer: str, parameters: Parameters) -> None:
        granted = accept([extension(asked)])
        assert granted is not None
        assert granted[0].serialize() == answer
        assert granted[1] == parameters
        assert check_answer(granted[0]) == parameters

    @pytest.mark.parametrize(
        "asked",
        [
            "x-webkit-deflate-frame",
            "permessage-deflate; unknown",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=09",
            "permessage-deflate; client_max_window_bits=x",
        ],
    )
    def test_an_offer_that_breaks_a_rule_is_declined_and_the_next_one_taken(self, asked: str) -> None:
        assert accept([extension(asked)]) is None
        assert accept([extension(asked), extension("permessage-deflate")]) == (
            Extension("permessage-deflate"),
            Parameters(),
        )

    def test_the_first_good_offer_wins(self) -> None:
        granted = accept([extension("permessage-deflate; server_max_window_bits=9"), extension("permessage-deflate")])
        assert granted is not None
        assert granted[1].server_max_window_bits == 9

    @pytest.mark.parametrize(
        "answer",
        [
            "permessage-bzip2",
            "permessage-deflate; unknown",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; client_max_window_bits=9; client_max_window_bits=9",
        ],
    )
    def test_an_answer_that_breaks_a_rule_fails_the_handshake(self, answer: str) -> None:
        with pytest.raises(HandshakeError):
            check_answer(extension(answer))


class TestTheExamplesOfTheSpecification:
    """RFC 7692, 7.2.3."""

    def test_one_compressed_block(self) -> None:
        assert Deflater().piece(b"Hello") == bytes.fromhex("f2 48 cd c9 c9 07 00")
        assert inflate(Inflater(), bytes.fromhex("f2 48 cd c9 c9 07 00")) == b"Hello"

    def test_the_window_is_shared_between_messages(self) -> None:
        deflater, inflater = Deflater(), Inflater()
        assert [deflater.piece(b"Hello").hex(" ") for _ in range(2)] == ["f2 48 cd c9 c9 07 00", "f2 00 11 00 00"]
        assert inflate(inflater, bytes.fromhex("f2 48 cd c9 c9 07 00")) == b"Hello"
        assert inflate(inflater, bytes.fromhex("f2 00 11 00 00")) == b"Hello"

    def test_no_context_takeover_resets_the_window(self) -> None:
        deflater = Deflater(forget=True)
        assert [deflater.piece(b"Hello").hex(" ") for _ in range(2)] == ["f2 48 cd c9 c9 07 00"] * 2
        inflater = Inflater(forget=True)
        assert inflate(inflater, bytes.fromhex("f2 48 cd c9 c9 07 00")) == b"Hello"
        with pytest.raises(WebSocketError, match="too far back") as raised:
            inflate(inflater, bytes.fromhex("f2 00 11 00 00"))
        assert raised.value.code == 1007

    def test_a_block_without_compression(self) -> None:
        assert inflate(Inflater(), bytes.fromhex("00 05 00 fa ff 48 65 6c 6c 6f 00")) == b"Hello"

    def test_a_block_with_bfinal_set_and_messages_after_it(self) -> None:
        inflater = Inflater()
        for _ in range(3):
            assert inflate(inflater, bytes.fromhex("f3 48 cd c9 c9 07 00 00")) == b"Hello"
        assert inflate(inflater, bytes.fromhex("f2 48 cd c9 c9 07 00")) == b"Hello"

    def test_two_blocks_in_one_message(self) -> None:
        assert inflate(Inflater(), bytes.fromhex("f2 48 05 00 00 00 ff ff ca c9 c9 07 00")) == b"Hello"

    def test_an_empty_message_is_one_octet(self) -> None:
        deflater, inflater = Deflater(), Inflater()
        for data in (b"", b"Hello", b"", b"", b"Hello"):
            packed = deflater.piece(data)
            assert (packed == b"\x00") == (data == b"")
            assert inflate(inflater, packed) == data


@given(
    st.lists(st.lists(st.binary(max_size=200), min_size=1, max_size=4), max_size=6),
    st.integers(8, 15),
    st.booleans(),
    st.integers(1, 50),
)
def test_a_message_survives_compression_however_it_is_split(
    messages: list[list[bytes]], bits: int, forget: bool, size: int
) -> None:
    deflater, inflater = Deflater(bits, forget), Inflater(bits, forget)
    for pieces in messages:
        last = len(pieces) - 1
        packed = b"".join(deflater.piece(piece, fin=i == last) for i, piece in enumerate(pieces))
        out = b"".join(inflater.piece(packed[i : i + size], LIMIT) for i in range(0, len(packed), size))
        assert out + inflater.end(LIMIT) == b"".join(pieces)


def test_output_fits_a_window_of_eight_bits_although_zlib_has_none() -> None:
    # zlib's own inflater, given a window of 256 octets and no more, must never need to look further back than that.
    random.seed(8)
    deflater, inflater = Deflater(window_bits=8), zlib.decompressobj(wbits=-8)
    vocabulary = [random.randbytes(random.randrange(3, 40)) for _ in range(12)]
    for _ in range(200):
        data = b"".join(random.choices(vocabulary, k=50))
        packed = deflater.piece(data) + b"\x00\x00\xff\xff"
        assert b"".join(inflater.decompress(packed[i : i + 1]) for i in range(len(packed))) == data


def test_a_decompression_bomb_stops_at_the_limit() -> None:
    bomb = Deflater().piece(bytes(50_000_000))
    assert len(bomb) < 50_000
    assert len(Inflater().piece(bomb, limit=1000)) == 1001


def test_a_message_may_be_exactly_as_long_as_the_limit() -> None:
    assert inflate(Inflater(), Deflater().piece(bytes(1000)), limit=1000) == bytes(1000)


def test_invalid_deflate_data_is_refused_with_1007() -> None:
    with pytest.raises(WebSocketError, match="compressed message cannot be read") as raised:
        Inflater().piece(b"\xff\xff\xff", LIMIT)
    assert raised.value.code == 1007
