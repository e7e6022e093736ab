"""The cases of the Autobahn test suite for servers, in its numbering, written anew: what it sends, what it must get.

Each runs whole, byte by byte and in threes against `Connection` with an echo on top. The cases about speed and size
(9) and compression (12, 13) are run with fewer messages than the suite's thousand.
"""

from __future__ import annotations

import random

import pytest

from chatlab.websocket.connection import Connection, State
from chatlab.websocket.deflate import Deflater, Inflater, Parameters
from chatlab.websocket.frames import Frame, Opcode, Side
from tests.support.conversation import (
    answer_events,
    binary,
    close_code,
    echo,
    frame,
    more,
    parse_all,
    ping,
    text,
)
from tests.support.feeding import SPLITS, Split, byte_by_byte, whole
from tests.support.websocket_cases import BROKEN, CASES, INVALID_UTF8, Case, data_frame, pong_frame


@pytest.mark.parametrize("split", SPLITS, ids=lambda split: split.__name__)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.number)
def test_case(case: Case, split: Split) -> None:
    answers, server = echo(case.sent, split)
    assert tuple(answers[:-1]) == case.answers
    assert close_code(answers[-1]) == case.code
    assert server.state is State.ENDING
    assert server.must_close_tcp


class TestFailFast:
    """6.4: text that can no longer become valid UTF-8 is refused at the octet that breaks it."""

    good, spoils, rest = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4", b"\x90", b"\x80\x80edited"

    @pytest.mark.parametrize("frames", [True, False], ids=["6.4.1 frames", "6.4.3 chops of one frame"])
    def test_invalid_utf8_is_refused_at_the_octet_that_breaks_it(self, frames: bool) -> None:
        server = Connection.opened(Side.SERVER)
        if frames:
            pieces = [text(self.good, fin=False), more(self.spoils, fin=False)]
        else:
            data = text(self.good + self.spoils + self.rest)
            pieces = [data[: -1 - len(self.rest)], data[-1 - len(self.rest) : -len(self.rest)]]
        list(server.receive_data(pieces[0]))
        assert (server.state, server.data_to_send()) == (State.OPEN, b"")
        list(server.receive_data(pieces[1]))
        assert close_code(parse_all(server.data_to_send())[0]) == 1007

    @pytest.mark.parametrize("octets", INVALID_UTF8.values(), ids=INVALID_UTF8)
    def test_invalid_utf8_is_refused_as_early_as_possible(self, octets: bytes) -> None:
        def can_go_on(prefix: bytes) -> bool:
            """Whether some character starts with the last octets of `prefix`, and what is before them is UTF-8."""
            return any(_decodes(prefix + tail) for tail in TAILS)

        server = Connection.opened(Side.SERVER)
        data = text(octets + b"........")
        header = len(data) - len(octets) - 8
        list(server.receive_data(data[:header]))
        for i in range(len(octets)):
            list(server.receive_data(data[header + i : header + i + 1]))
            assert (server.state is State.OPEN) == can_go_on(octets[: i + 1])


TAILS = [b"", *(bytes([first]) + b"\x80" * n for first in range(0x80, 0xC0) for n in range(3))]


def _decodes(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


class TestSizes:
    """9: limits and performance."""

    @pytest.mark.parametrize("mebibytes", [1, 4, 16])
    def test_a_message_of_many_mebibytes_comes_back(self, mebibytes: int) -> None:
        payload = b"\xfe" * (mebibytes << 20)
        answers, _ = echo(binary(payload), lambda data: (data[i : i + 65536] for i in range(0, len(data), 65536)))
        assert answers == [data_frame(payload)]

    @pytest.mark.parametrize("size", [64, 256, 1024, 65536])
    def test_a_mebibyte_in_many_fragments_comes_back(self, size: int) -> None:
        pieces = [b"*" * size] * ((1 << 20) // size)
        data = text(pieces[0], fin=False) + b"".join(more(piece, fin=False) for piece in pieces[1:]) + more()
        assert echo(data)[0] == [data_frame("*" * (1 << 20))]

    @pytest.mark.parametrize("chop", [64, 128, 2048])
    def test_a_mebibyte_in_chops_of_one_frame_comes_back(self, chop: int) -> None:
        data = text(b"*" * (1 << 20))
        answers, _ = echo(data, lambda data: (data[i : i + chop] for i in range(0, len(data), chop)))
        assert answers == [data_frame("*" * (1 << 20))]

    def test_a_thousand_messages_come_back_in_order(self) -> None:
        texts = [f"{i}" * 20 for i in range(1000)]
        assert echo(b"".join(text(each.encode()) for each in texts))[0] == [data_frame(each) for each in texts]

    def test_a_flood_of_pings_is_answered_one_by_one(self) -> None:
        assert echo(b"".join(ping(b"%d" % i) for i in range(5000)))[0] == [pong_frame(b"%d" % i) for i in range(5000)]


def sentences(size: int, count: int) -> list[bytes]:
    """Return text that compresses like natural language."""
    rng = random.Random(size)
    words = ["".join(rng.choices("etaoin shrdlu", k=rng.randrange(2, 9))) for _ in range(500)]
    return ["{} ".format(" ".join(rng.choices(words, k=size // 4 + 1))).encode()[:size] for _ in range(count)]


class TestCompression:
    """12 and 13: permessage-deflate, with every combination of parameters, fragmented by the sender."""

    @pytest.mark.parametrize("size", [16, 64, 256, 1024, 8192, 131072])
    @pytest.mark.parametrize("fragment", [0, 256, 32768])
    @pytest.mark.parametrize(
        "parameters",
        [
            Parameters(),
            Parameters(server_no_context_takeover=True, client_no_context_takeover=True),
            Parameters(server_max_window_bits=9, client_max_window_bits=9),
            Parameters(server_max_window_bits=8, client_max_window_bits=8),
            Parameters(True, True, 9, 15),
        ],
        ids=str,
    )
    def test_a_compressed_message_is_echoed_compressed(self, parameters: Parameters, fragment: int, size: int) -> None:
        client = Deflater(parameters.client_max_window_bits, parameters.client_no_context_takeover)
        theirs = Inflater(parameters.server_max_window_bits, parameters.server_no_context_takeover)
        server = Connection.opened(Side.SERVER, parameters)
        for message in sentences(size, 20 if size < 10_000 else 3):
            packed = client.piece(message)
            step = fragment or len(packed)
            cuts = list(range(0, len(packed), step))
            for i in cuts:
                opcode = Opcode.TEXT if i == 0 else Opcode.CONTINUATION
                data = frame(opcode, packed[i : i + step], fin=i == cuts[-1], rsv=0 if i else 4)
                answer_events(server, server.receive_data(data))
            (answer,) = parse_all(server.data_to_send())
            assert (answer.opcode, answer.rsv1) == (Opcode.TEXT, True)
            assert theirs.piece(answer.payload, 1 << 20) + theirs.end(1 << 20) == message

    @pytest.mark.parametrize("split", [whole, byte_by_byte])
    def test_an_uncompressed_message_is_allowed_after_negotiating_compression(self, split: Split) -> None:
        answers, _ = echo(text(b"Hello"), split, Parameters())
        assert answers == [Frame(Opcode.TEXT, bytes.fromhex("f248cdc9c90700"), rsv1=True)]

    def test_compressed_text_that_is_not_utf8_is_refused(self) -> None:
        answers, _ = echo(text(Deflater().piece(BROKEN), rsv=4), compression=Parameters())
        assert close_code(answers[0]) == 1007

    def test_rsv1_in_the_middle_of_a_message_is_refused(self) -> None:
        answers, _ = echo(text(b"\xf2", fin=False, rsv=4) + more(b"\x48", rsv=4), compression=Parameters())
        assert close_code(answers[0]) == 1002

    def test_a_compressed_control_frame_is_refused(self) -> None:
        answers, _ = echo(frame(Opcode.PING, b"\xf2\x48", rsv=4), compression=Parameters())
        assert close_code(answers[0]) == 1002
