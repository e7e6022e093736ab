"""Spring's decoder, with Spring's words."""

from __future__ import annotations

import pytest

from chatlab.chat.article.stomp_decoder import Decoder, encode
from chatlab.errors import StompError
from chatlab.stomp.frames import Frame

SEND = b"SEND\ndestination:/a\nx:a\\cb\n\nbody\0"
FRAME = Frame("SEND", (("destination", "/a"), ("x", "a:b")), b"body")


def test_a_frame_is_read_whole_octet_by_octet_and_with_the_next_one_behind_it() -> None:
    assert Decoder().feed(SEND) == [FRAME]
    decoder = Decoder()
    assert [frame for octet in SEND for frame in decoder.feed(bytes([octet]))] == [FRAME]
    assert Decoder().feed(SEND + b"\r\n\n" + SEND + b"SEN") == [FRAME, FRAME]


def test_content_length_counts_octets_and_lets_nul_pass() -> None:
    assert Decoder().feed(b"SEND\r\ncontent-length:3\r\n\r\na\0b\0")[0].body == b"a\0b"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"HELLO\n\n\0", "No enum constant org.springframework.messaging.simp.stomp.StompCommand.HELLO"),
        (b"SEND\nx:a\\tb\n\n\0", r"Illegal escape sequence at index 1: a\\tb"),
        (b"SEND\nfoo\n\n\0", "Illegal header: 'foo'. A header must be of the form <name>:"),
        (b"SEND\ncontent-length:3\n\nabcdef\0", "Frame must be terminated with a null octet"),
    ],
)
def test_an_invalid_frame_is_refused_in_springs_words(data: bytes, message: str) -> None:
    with pytest.raises(StompError, match=message):
        Decoder().feed(data)


def test_a_body_even_an_empty_one_has_its_length_as_the_last_header() -> None:
    assert encode("ERROR", (("message", "a: b"),), b"") == b"ERROR\nmessage:a\\c b\ncontent-length:0\n\n\0"
    assert encode("CONNECTED", (("version", "1.2"),)) == b"CONNECTED\nversion:1.2\n\n\0"
