"""A frame is named part by part, and a Close frame's reason is traced to the field it speaks of."""

from __future__ import annotations

import pytest

from chatlab.lab.pictures.frame_parts import faulty_parts, groups, in_words, missing, rest, rows, still

MASKED = bytes.fromhex("81 82 37 fa 21 3d 7f 93")  # "Hi"


def test_the_bytes_are_grouped_by_part() -> None:
    assert [(group.key, group.hex) for group in groups(MASKED + b"\x89\x80")] == [
        ("opcode", "81"),
        ("length", "82"),
        ("key", "37 fa 21 3d"),
        ("payload", "7f 93"),
        ("rest", "89 80"),
    ]


def test_each_field_has_its_value_and_meaning() -> None:
    named = {row.key: (row.value, row.meaning) for row in rows(MASKED)}

    assert named["fin"] == ("1", "the last frame of its message")
    assert named["opcode"] == ("0001 = 1", "TEXT: a message in UTF-8")
    assert named["length"] == ("0000010 = 2", "2 bytes of payload")
    assert named["payload"] == ("2 bytes", '"Hi"')


@pytest.mark.parametrize("size", range(len(MASKED)))
def test_an_incomplete_frame_is_named_as_far_as_it_goes(size: int) -> None:
    assert b"".join(bytes.fromhex(group.hex) for group in groups(MASKED[:size])) == MASKED[:size]
    assert missing(MASKED[:size]) > 0
    assert [row.key for row in rows(MASKED[:size])] == [row.key for row in rows(MASKED)][: len(rows(MASKED[:size]))]


def test_what_follows_a_frame_is_its_rest() -> None:
    assert (missing(MASKED), rest(MASKED + b"\x89\x80")) == (0, b"\x89\x80")


@pytest.mark.parametrize(
    ("opcode", "payload", "words"),
    [
        (1, b"", "empty"),
        (1, b"\xff", "not UTF-8: ff"),
        (2, b"\x00\x01", "00 01"),
        (8, b"\x03\xe8", "code 1000, no reason"),
        (8, b"\x03\xeabye", 'code 1002, reason "bye"'),
    ],
)
def test_a_payload_is_put_into_words(opcode: int, payload: bytes, words: str) -> None:
    assert in_words(opcode, payload) == words


@pytest.mark.parametrize(
    ("frame", "code", "reason", "parts"),
    [
        ("81 02 48 69", 1002, "incorrect masking", ["mask"]),
        ("f1 82 37 fa 21 3d 7f 93", 1002, "reserved bits must be 0", ["rsv1", "rsv2", "rsv3"]),
        ("83 82 37 fa 21 3d 7f 93", 1002, "invalid opcode", ["opcode"]),
        ("09 82 37 fa 21 3d 7f 93", 1002, "fragmented control frame", ["fin"]),
        ("80 82 37 fa 21 3d 7f 93", 1002, "unexpected continuation frame", ["opcode"]),
        ("81 fe 00 02 37 fa 21 3d 7f 93", 1002, "not in its shortest form: 2 extra bytes", ["extended"]),
        ("81 81 37 fa 21 3d 7f 93", 1002, "invalid opcode", ["length"]),  # of what follows the first letter
        ("81 82 37 fa 21 3d c8 c8", 1007, "invalid start byte", ["payload"]),
        ("83 02 48 69", 1002, "no", ["opcode"]),  # a reason that names nothing: the first broken rule
    ],
)
def test_a_close_is_traced_to_the_field_it_speaks_of(frame: str, code: int, reason: str, parts: list[str]) -> None:
    assert faulty_parts(bytes.fromhex(frame), code, reason) == parts


def test_on_paper_text_in_a_payload_is_escaped() -> None:
    assert "&lt;b&gt;" in still(b"\x81\x03<b>")
