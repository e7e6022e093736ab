"""Each bit goes to a real server as it is, and the answer stands at the field that caused it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from chatlab import echo
from chatlab.echo import EchoServer
from chatlab.lab.pictures import header_bits
from chatlab.lab.pictures.header_bits import HeaderBits
from chatlab.lab.runtime import lab

BY_HAND, LIBRARY = "by hand", "library"


@pytest.fixture(params=[BY_HAND, LIBRARY])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[EchoServer]:
    """Run each echo server in turn: their Close frames differ in their reasons."""
    async with await (echo.start_by_hand() if request.param == BY_HAND else echo.start()) as server:
        yield server


@pytest.fixture
async def picture(server: EchoServer) -> AsyncIterator[HeaderBits]:
    picture = await header_bits(server.url, "Hi 👋")
    yield picture
    await picture.aclose()


async def answers(picture: HeaderBits, *bits: int) -> list[tuple[str, str]]:
    """Turn over bits of the right header, send, and return where the remarks are, and the first words of each."""
    picture.put_right()
    for bit in bits:
        picture.flip(bit)
    return [(remark["where"], " ".join(remark["text"].split()[:5])) for remark in await picture.send()]


async def test_the_right_header_is_echoed(picture: HeaderBits) -> None:
    assert picture.frame().hex(" ") == "81 87 37 fa 21 3d 7f 93 01 cd a8 6b aa"
    assert await picture.send() == [{"where": "payload", "text": 'The server sends back: "Hi 👋"', "tone": "good"}]


async def test_without_mask_the_text_is_sent_as_it_is(picture: HeaderBits) -> None:
    picture.flip(8)

    assert picture.frame() == b"\x81\x07" + "Hi 👋".encode()


@pytest.mark.parametrize(
    ("bits", "where"),
    [
        ([8], ["mask"]),
        ([1], ["rsv1"]),
        ([2, 3], ["rsv2", "rsv3"]),
        ([6], ["opcode"]),  # 3 is reserved
        ([7], ["opcode"]),  # a continuation of nothing
        ([0, 4], ["fin"]),  # a Ping in pieces
    ],
)
async def test_a_broken_rule_is_answered_with_1002_at_its_field(
    picture: HeaderBits, bits: list[int], where: list[str]
) -> None:
    assert await answers(picture, *bits) == [(key, "The server closes with 1002:") for key in where]


@pytest.mark.parametrize(
    ("bits", "where"),
    [
        ([0], "fin"),  # more frames of the message must follow
        ([12], "length"),  # 15 bytes announced, 7 sent
        ([4, 6, 7], "opcode"),  # a Pong
    ],
)
async def test_silence_stands_at_the_field_that_causes_it(picture: HeaderBits, bits: list[int], where: str) -> None:
    assert await answers(picture, *bits) == [(where, "Silence for 1 s: the" if where != "opcode" else SILENT_PONG)]


SILENT_PONG = "Silence for 1 s: this"


async def test_a_ping_is_answered_with_a_pong(picture: HeaderBits) -> None:
    assert await answers(picture, 4) == [("opcode", "The server answers with a")]


async def test_a_length_that_cuts_a_letter_is_answered_at_the_length(picture: HeaderBits) -> None:
    assert await answers(picture, 15) == [("length", "The server closes with 1007:")]


async def test_the_length_follows_the_text_unless_it_was_chosen(picture: HeaderBits) -> None:
    picture.type("Hello")
    assert picture.frame()[1] == 0x85

    picture.flip(15)
    picture.type("Hi")
    assert picture.frame()[1] == 0x84


async def test_a_text_of_more_than_125_bytes_has_an_extended_length(picture: HeaderBits) -> None:
    picture.type("안" * 50)

    assert picture.frame()[:4].hex(" ") == "81 fe 00 96"
    assert (await picture.send())[0]["tone"] == "good"


async def test_bad_input_is_answered_with_a_sentence(picture: HeaderBits) -> None:
    picture._handle({"do": "type", "text": "x" * 201})
    assert picture.state["status"] == "The text has 201 letters; this picture sends 200 at most."

    picture._handle({"do": "flip", "bit": 16})
    assert picture.state["status"] == "There is no bit 16; the header has bits 0 to 15."


async def test_a_stopped_server_is_named(server: EchoServer) -> None:
    picture = await header_bits(server.url)
    await server.aclose()

    assert await picture.send() == []
    assert picture.state["status"].startswith("The server cannot be reached.")


async def test_an_answer_to_a_frame_that_was_changed_since_is_not_shown(picture: HeaderBits) -> None:
    picture.flip(0)
    sending = asyncio.create_task(picture.send())
    await asyncio.sleep(0)
    picture._handle({"do": "type", "text": "other"})

    assert await sending == []
    assert picture.state["text"] == "other"


async def test_started_again_the_first_picture_is_closed_and_its_task_ended(server: EchoServer) -> None:
    first = await lab.start("bits", header_bits(server.url))
    first._handle({"do": "send"})
    second = await lab.start("bits", header_bits(server.url))

    assert (first.closed, second.closed) == (True, False)
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "header-bits"]
    await lab.stop("bits")


async def test_without_a_kernel_the_frame_is_a_table_without_a_port(picture: HeaderBits, server: EchoServer) -> None:
    data, __ = picture._repr_mimebundle_()

    assert "81 87 37 fa 21 3d" in data["text/plain"]
    assert "MASK" in data["text/html"]
    assert str(server.port) not in data["text/plain"] + data["text/html"]
