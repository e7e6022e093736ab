"""A learner's server under test: its evidence, and that the checks of lessons 01 and 02 accept other right answers."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from chatlab.errors import HandshakeError
from chatlab.lab.exercises.exercise import NotYet, check
from chatlab.lab.exercises.lessons.lesson02 import header, unmask
from chatlab.lab.exercises.support.streams import http_lines, seen_on_wire, serving, shown, upgrade, within
from chatlab.lab.until import until
from chatlab.lab.wire.trace import Event
from chatlab.websocket import handshake

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATLAB_HOME", str(tmp_path))


# The server around an answer.


async def test_an_answer_serves_a_client_after_a_real_handshake() -> None:
    async def greet(reader: Reader, writer: Writer) -> None:
        await upgrade(reader, writer)
        writer.write(b"\x81\x05Hello")
        await reader.read()

    async with serving(greet) as served, connect(served.url, compression=None, proxy=None) as client:
        assert await client.recv() == "Hello"
        client.transport.abort()


async def test_a_broken_rule_has_the_error_in_the_answer_as_its_cause() -> None:
    async def fail(reader: Reader, writer: Writer) -> None:
        raise ValueError("mine")

    with pytest.raises(NotYet, match="it answers") as broken:
        async with serving(fail) as served:
            await within(connect(served.url, proxy=None), "it answers", lambda: "nothing came")
    assert isinstance(broken.value.__cause__, ValueError)
    assert str(broken.value.evidence).startswith("nothing came\nthe client: ")


async def test_the_end_of_a_connection_does_not_count_as_an_error_in_the_answer() -> None:
    async def read_two(reader: Reader, writer: Writer) -> None:
        await reader.readexactly(2)

    with pytest.raises(NotYet) as broken:
        async with serving(read_two) as served:
            _, writer = await asyncio.open_connection(*served.url.removeprefix("ws://").rstrip("/").split(":"))
            writer.close()
            await until(lambda: served.tasks)
            await asyncio.wait(served.tasks, timeout=2)
            raise NotYet("the rule")
    assert [type(error) for error in served.errors] == [asyncio.IncompleteReadError]
    assert broken.value.__cause__ is None


async def test_an_answer_that_never_ends_does_not_block_the_check() -> None:
    async def wait(reader: Reader, writer: Writer) -> None:
        await asyncio.Event().wait()

    with pytest.raises(NotYet, match="can connect"):
        async with serving(wait) as served:
            await within(connect(served.url, proxy=None), "can connect", lambda: "", seconds=0.1)
    assert all(task.cancelled() for task in served.tasks)


def test_bytes_are_shown_in_hexadecimal_and_http_line_by_line() -> None:
    assert shown(b"\x81\x05") == "81 05"
    assert shown(b"") == "nothing"
    assert shown(bytes(100)).endswith("00 … (100 bytes)")
    assert http_lines(b"GET / HTTP/1.1\r\nHost: a\n") == r"'GET / HTTP/1.1\r\n'" + "\n" + r"'Host: a\n'"


def test_eight_events_are_shown_as_evidence() -> None:
    assert seen_on_wire([]) == "seen on the wire: nothing"
    pings = [Event(1, 0.0, 0.0, 1, "client", "client", "server", "websocket", "ping", "")] * 9
    assert seen_on_wire(pings[:1]) == "seen on the wire: ping from the client"
    assert seen_on_wire(pings).endswith("ping from the client, …")
    assert seen_on_wire(pings).count("ping") == 8


# Other right answers.


async def is_right(id: str, answer: object) -> None:
    outcome = await check(id, answer)
    assert outcome.mark == "right", outcome


async def test_a_judge_that_uses_the_package_is_right() -> None:
    def judge(request: bytes, ours: list[str]) -> int:
        parsed = handshake.Request.parse(request)
        assert parsed is not None
        try:
            return handshake.accept(parsed[0], origins=ours)[0].status
        except HandshakeError as error:
            return int(error.status)

    await is_right("01.3", judge)


async def test_a_request_made_by_the_package_is_right() -> None:
    def request(host: str, path: str, key: str) -> bytes:
        return handshake.make_request(f"ws://{host}{path}", key=key, origin=None).serialize()

    await is_right("01.2", request)


async def test_a_newsroom_that_reads_line_by_line_is_right() -> None:
    async def serve_one(reader: Reader, writer: Writer, news: AsyncIterator[str]) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await reader.readline()
        parsed = handshake.Request.parse(head)
        assert parsed is not None
        try:
            writer.write(handshake.accept(parsed[0], compression=False)[0].serialize())
        except HandshakeError as error:
            writer.write(handshake.refuse(error).serialize())
        else:
            async for text in news:
                writer.write(header(1, len(text.encode())) + text.encode())
                await writer.drain()
            writer.write(b"\x88\x02\x03\xe8")
            first = b""
            while first != b"\x88":
                first = await reader.readexactly(1)
                await reader.readexactly(4 + ((await reader.readexactly(1))[0] & 0x7F))
        writer.close()
        await writer.wait_closed()

    await is_right("01.5", serve_one)


async def test_a_watch_with_a_timeout_around_its_ping_is_right() -> None:
    async def until_silent(connection: ServerConnection, every: float, patience: float) -> None:
        while True:
            try:
                async with asyncio.timeout(patience):
                    await (await connection.ping(b"still there?"))
                await asyncio.sleep(every)
            except TimeoutError:
                return connection.transport.abort()
            except ConnectionClosed:
                return None

    await is_right("02.4", until_silent)


async def test_an_echo_of_whole_messages_is_right() -> None:
    async def frame(reader: Reader) -> tuple[int, bytes]:
        first, second = await reader.readexactly(2)
        more = {126: 2, 127: 8}.get(second & 0x7F, 0)
        length = int.from_bytes(await reader.readexactly(more)) if more else second & 0x7F
        mask = await reader.readexactly(4)
        return first, unmask(await reader.readexactly(length), mask)

    async def echo_by_hand(reader: Reader, writer: Writer) -> None:
        pieces: list[Any] = []
        kind = 0
        try:
            while kind != 8:
                first, payload = await frame(reader)
                kind = first & 0x0F
                if kind in (8, 9):
                    writer.write(header(8 if kind == 8 else 10, len(payload)) + payload)
                elif kind < 8:
                    pieces.append((kind, payload))
                if first & 0x80 and kind < 8:
                    whole = b"".join(piece for _, piece in pieces)
                    writer.write(header(pieces[0][0], len(whole)) + whole)
                    pieces.clear()
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    await is_right("02.5", echo_by_hand)
