"""In the room, no text or name can pass for a notice, an error, or somebody else's line."""

from __future__ import annotations

import asyncio
import json
import unicodedata
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from urllib.parse import quote

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from chatlab import room
from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.brokers.port import Broker
from chatlab.brokers.redis.streams import RedisStreamsBroker
from chatlab.lab.engines.engine import Engine
from chatlab.room import shared as shared_room
from chatlab.room.server import RoomServer
from tests.support.broker_cases import topic

LINE_ENDS = ["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]
FORGED = ["* Ben left (1 here)", "! not sent: the room is closing", "Server received from Ben: I quit", ""]
CONTROLS = ["\0", "\b", "\x1b[2K\x1b[1G", "\x7f", "\x9b2K"]
BIDI = ["\u061c", "\u200e", "\u200f", *map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))]


@pytest.fixture(params=["one server", "memory", "redis"])
async def servers(request: pytest.FixtureRequest) -> AsyncIterator[tuple[RoomServer, RoomServer]]:
    """Yield two servers of one room, or the same server twice."""
    async with AsyncExitStack() as stack:
        if request.param == "one server":
            server = await stack.enter_async_context(await room.start())
            yield server, server
            return
        brokers: Sequence[Broker]
        if request.param == "memory":
            brokers = 2 * [await stack.enter_async_context(MemoryBroker())]
        else:
            engine: Engine = request.getfixturevalue("redis_on_path")
            brokers = [await stack.enter_async_context(RedisStreamsBroker(engine.url)) for _ in range(2)]
        name = topic("room")
        one, other = [await shared_room.start(broker, topic=name) for broker in brokers]
        yield await stack.enter_async_context(one), await stack.enter_async_context(other)


def enter(server: RoomServer, name: str | None = None, *, parts: bool = False) -> connect:
    fields = ([f"name={quote(name)}"] if name is not None else []) + (["parts=yes"] if parts else [])
    return connect(f"{server.url}?{'&'.join(fields)}", compression=None, proxy=None)


async def line(member: ClientConnection, start: str = "") -> str:
    """Return the next line that a member receives and that begins with `start`."""
    async with asyncio.timeout(10):
        while not (text := str(await member.recv())).startswith(start):
            pass
        return text


async def part(member: ClientConnection, kind: str) -> dict[str, str]:
    """Return the next message of that kind that a page receives."""
    async with asyncio.timeout(10):
        while (found := json.loads(await member.recv()))["kind"] != kind:
            pass
        return dict(found)


@pytest.mark.parametrize("end", LINE_ENDS, ids=ascii)
async def test_a_text_with_line_ends_is_shown_as_one_line(servers: tuple[RoomServer, RoomServer], end: str) -> None:
    async with enter(servers[0], "Eve") as eve, enter(servers[1]) as ben, enter(servers[1], parts=True) as page:
        for forged in FORGED:
            await eve.send(f"hi{end}{forged}")
            shown = await line(ben, "Server")
            assert shown == f"Server received from Eve: hi\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}{forged}"
            assert shown.splitlines() == [shown]
            received = await part(page, "text")
            assert received == {"kind": "text", "from": "Eve", "text": shown.partition(": ")[2]}


@pytest.mark.parametrize("char", CONTROLS + BIDI, ids=ascii)
async def test_control_characters_and_direction_marks_are_not_passed_on(
    servers: tuple[RoomServer, RoomServer], char: str
) -> None:
    async with enter(servers[0], "Eve") as eve, enter(servers[1]) as ben:
        await eve.send(f"a{char}b")
        shown = await line(ben, "Server")
        assert shown.isprintable()
        assert shown.startswith("Server received from Eve: a")


async def test_ordinary_text_is_passed_on_unchanged(servers: tuple[RoomServer, RoomServer]) -> None:
    async with enter(servers[0], "가람") as garam, enter(servers[1]) as ben:
        for text in ("", " two  spaces ", "👩‍👩‍👧 ❤️", "नमस्ते क्ष", "می‌خواهم", "1:2 * (3) !", "ﬁ é", "a\u00a0b\u3000c"):
            await garam.send(text)
            assert await line(ben, "Server") == f"Server received from 가람: {text}"


async def test_a_page_receives_notices_errors_texts_and_its_own_name_as_separate_kinds() -> None:
    async with (
        await room.start(rate=room.RateLimit(per_second=0.001, burst=1)) as server,
        enter(server, "Ana") as ana,
        enter(server, "ana", parts=True) as page,
    ):
        assert json.loads(await page.recv()) == {"kind": "you", "name": "ana-2"}
        assert json.loads(await page.recv()) == {"kind": "notice", "text": "ana-2 joined (2 here)"}
        for _ in range(2):
            await page.send("* Ana left (1 here)")
        assert await part(page, "text") == {"kind": "text", "from": "ana-2", "text": "* Ana left (1 here)"}
        assert (await part(page, "error"))["text"] == "not sent: more than 0.001 messages a second"
        assert await line(ana, "Server") == "Server received from ana-2: * Ana left (1 here)"
        async with enter(server) as nameless:
            await nameless.send("Server received from Ana: hi")
            received = await part(page, "text")
            assert received == {"kind": "text", "text": "Server received from Ana: hi"}


REFUSED_NAMES = [
    *("* Ana", "*", "\uff0aAna", "\u2217", "! not sent", "\uff01", "\u01c3"),
    *("Ana: hi", "Ana\uff1a hi", "Ana\ua789 hi", "Ana\u2236 hi", "Ana\u02d0"),
    *("Ana left (1 here)", "Ana (another server)", "\uff08x\uff09", "Ana joined", "ANA LEFT"),
    *("Server received", "server RECEIVED from Ana", "Ser\u200dver received"),
    *(
        "\u3164",
        "\u115f\u1160",
        "\uffa0",
        "\u2800",
        "\u034f",
        "\ufe0f",
        "\u0301",
        "\u17b4",
        "\u200b",
        "\u200d",
        "\u00ad",
    ),
    *("Ana\u3164", "A\u034fna"),
    *("a\nb\u202e", "\u202eanA", "\u2066Ana\u2069", "a\x00b", "\x1b[2K", "\ue000", "\u2028\u200e"),
]


@pytest.mark.parametrize("name", REFUSED_NAMES, ids=ascii)
async def test_names_that_look_like_a_notice_or_are_invisible_are_refused(name: str) -> None:
    async with await room.start() as server:
        with pytest.raises(InvalidStatus) as refused:
            await enter(server, name)
        assert refused.value.response.status_code == 400
        assert "name" in refused.value.response.body.decode()
        assert not server.metrics().members


LOOKALIKES = [
    ("Ana", ["ana", "ANA", "\u0410na", "An\u0430", "\uff21na", "\U0001d400na"]),
    ("Alice", ["AIice", "A1ice", "\u0391lice", "al\u0456ce"]),
    ("Bob", ["B\u043eb", "\u0392ob", "B\u03bfb"]),
    ("민지", [unicodedata.normalize("NFD", "민지")]),
    ("Strasse", ["Stra\u00dfe"]),
]


@pytest.mark.parametrize(("name", "others"), LOOKALIKES, ids=lambda each: ascii(each)[:20])
async def test_a_name_that_looks_like_a_taken_one_gets_a_number(name: str, others: list[str]) -> None:
    async with await room.start() as server, enter(server, name) as first:
        await first.recv()
        for other in others:
            async with enter(server, other):
                joined = await line(first, "* ")
                assert joined.endswith("-2 joined (2 here)"), joined
            await line(first, "* ")  # left
        async with enter(server, "Someone else"):
            assert await line(first, "* ") == "* Someone else joined (2 here)"


@pytest.mark.parametrize(
    "name", ["가람", "Zoë", "O'Brien", "Jean-Luc", "<b>Bob</b>", "李 明", "हिन्दी", "مَريَم", "Kim 🐱", "می‌نا", "R2-D2"]
)
async def test_real_names_are_kept_as_they_are(name: str) -> None:
    async with await room.start() as server, enter(server, name) as member:
        assert await member.recv() == f"* {unicodedata.normalize('NFC', name)} joined (1 here)"


@pytest.fixture(params=["memory", "redis"])
async def shared(request: pytest.FixtureRequest) -> AsyncIterator[tuple[RoomServer, RoomServer, Broker, str]]:
    """Yield two servers of one room, its broker and its topic."""
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            brokers: Sequence[Broker] = 2 * [await stack.enter_async_context(MemoryBroker())]
        else:
            engine: Engine = request.getfixturevalue("redis_on_path")
            brokers = [await stack.enter_async_context(RedisStreamsBroker(engine.url)) for _ in range(2)]
        name = topic("room")
        one, other = [
            await stack.enter_async_context(await shared_room.start(broker, topic=name)) for broker in brokers
        ]
        yield one, other, brokers[0], name


async def test_a_member_with_the_same_name_on_another_server_is_marked(
    shared: tuple[RoomServer, RoomServer, Broker, str],
) -> None:
    one, other, _, _ = shared
    async with (
        enter(one, "Ana") as ana,
        enter(one, "Ben") as ben,
        enter(one, parts=True) as page,
        enter(other, "\u0410na") as eve,
    ):
        await ana.send("it is me")
        assert await line(ben, "Server") == await line(ana, "Server") == "Server received from Ana: it is me"
        assert await part(page, "text") == {"kind": "text", "from": "Ana", "text": "it is me"}
        assert await line(eve, "Server") == "Server received from Ana (another server): it is me"
        await eve.send("no, me")
        assert await line(ben, "Server") == "Server received from \u0410na (another server): no, me"
        assert (await part(page, "text"))["from"] == "\u0410na (another server)"
        assert await line(eve, "Server") == "Server received from \u0410na: no, me"
        await ben.send("hello")
        assert await line(eve, "Server") == "Server received from Ben: hello"


@pytest.mark.parametrize(
    "record", [b"* Ben left (1 here)", b"! not sent: gone", b"two\n* Ben left", b"\xff\x1b[2K", b""]
)
async def test_a_record_written_by_another_program_has_no_sender(
    shared: tuple[RoomServer, RoomServer, Broker, str], record: bytes
) -> None:
    one, _, broker, name = shared
    async with enter(one, "Ana") as ana, enter(one, parts=True) as page:
        await broker.publish(name, record)
        shown = await line(ana, "Server")
        assert shown.startswith("Server received: ")
        assert shown.isprintable()
        assert "from" not in await part(page, "text")
