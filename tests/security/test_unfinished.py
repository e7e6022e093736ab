"""Messages and requests that never end cost a bounded amount of memory, and a bounded time."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import psutil
import pytest
from websockets.asyncio.client import connect

from chatlab import echo, room
from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.endpoint import server as chat_server
from chatlab.net.endpoint import KeepAlive
from chatlab.net.http import first_request
from chatlab.net.http.server import HttpServer
from chatlab.websocket.frames import Frame, Opcode
from tests.support.raw_member import RawMember

MIB = 1 << 20
HEADER = b"\x82\xff" + (16 * MIB).to_bytes(8) + b"\0\0\0\0"  # a binary message of 16 MiB, masked with zeros

Start = Callable[..., Awaitable[Any]]
ECHOES = {"library": echo.start, "by hand": echo.start_by_hand}
each_echo = pytest.mark.parametrize("start", ECHOES.values(), ids=ECHOES)


@contextlib.asynccontextmanager
async def process(*command: str) -> AsyncIterator[tuple[psutil.Process, int]]:
    """A server in a process of its own: its memory can be measured. Gives its port."""
    words = [sys.executable, "-m", "chatlab.cli", "serve", *command, "--port", "0"]
    child = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    try:
        async with asyncio.timeout(60):
            while not (line := await child.stdout.readline()).startswith(b"listening on"):
                assert line, "it did not start"
        yield psutil.Process(child.pid), int(line.rpartition(b":")[2].split(b"/")[0])
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(signal.SIGTERM)
        await child.wait()


async def push(member: RawMember, octets: bytes) -> None:
    """Send as much as is taken, or until the server has had enough."""
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(3):
            await member.send(octets)


@pytest.mark.long
@pytest.mark.parametrize("kind", [[], ["--by-hand"]], ids=["library", "by hand"])
@pytest.mark.parametrize("how", ["one frame", "fragments", "unread"])
async def test_forty_unfinished_messages_of_fifteen_mebibytes_take_a_bounded_amount_of_memory(
    kind: list[str], how: str
) -> None:
    async with process("echo", *kind) as (server, port), contextlib.AsyncExitStack() as stack:
        before = server.memory_info().rss
        fragment = Frame(Opcode.BINARY, bytes(MIB), fin=False, mask=bytes(4)).serialize()
        more = Frame(Opcode.CONTINUATION, bytes(MIB), fin=False, mask=bytes(4)).serialize()
        whole = Frame(Opcode.BINARY, bytes(15 * MIB), mask=bytes(4)).serialize()
        octets = {"one frame": HEADER + bytes(15 * MIB), "fragments": fragment + more * 14, "unread": whole}[how]
        most = 0
        for _ in range(5):
            url = f"ws://127.0.0.1:{port}/"
            some = [stack.enter_context(await RawMember.join(url, receive_buffer=4096)) for _ in range(8)]
            await asyncio.gather(*(push(member, octets) for member in some))
            most = max(most, server.memory_info().rss - before)
        assert most < 250 * MIB  # 600 MiB were sent
        async with connect(f"ws://127.0.0.1:{port}/", proxy=None) as client:
            await client.send("still here")
            assert await client.recv() == "still here"


@each_echo
async def test_who_holds_most_is_told_why_and_who_holds_little_goes_on(start: Start) -> None:
    async with await start(max_held=MIB) as server:
        url = f"ws://127.0.0.1:{server.port}/"
        with await RawMember.join(url) as small, await RawMember.join(url) as large:
            await small.send(Frame(Opcode.TEXT, b"half", fin=False, mask=bytes(4)).serialize())
            await push(large, HEADER + bytes(2 * MIB))
            with contextlib.suppress(ConnectionResetError):
                frames = await large.read_to_the_end()
                assert not frames or (frames[-1].opcode, frames[-1].payload[:2]) == (Opcode.CLOSE, b"\x03\xf5")  # 1013
            await small.send(Frame(Opcode.CONTINUATION, b" whole", mask=bytes(4)).serialize())
            answer = await small.read_frame()
            assert answer is not None and answer.payload == b"half whole"


@each_echo
async def test_what_is_finished_is_no_longer_counted(start: Start) -> None:
    async with await start(max_held=2 * MIB) as server, connect(server.url, compression=None, max_size=None) as client:
        for _ in range(30):
            message = bytes(MIB)
            await client.send(message)
            assert await client.recv() == message
        for _ in range(30):
            text = "안" * (MIB // 6)
            await client.send([text, text])
            assert await client.recv() == text * 2
            await client.ping()


@pytest.mark.parametrize("start", [room.start, None], ids=["room", "chat"])
async def test_the_room_and_the_chat_let_go_of_half_messages_when_their_clients_do(start: Start | None) -> None:
    async with await (start() if start else chat_server.start(MemoryBroker())) as server:
        for _ in range(5):
            with await RawMember.join(server.url) as member:
                await member.send(Frame(Opcode.TEXT, b"x" * 60_000, fin=False, mask=bytes(4)).serialize())
                member.vanish()
        async with connect(server.url, proxy=None):
            pass


# --- Requests that never end ---


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> float:
    """Let the limits of ten seconds be half a one."""
    seconds = 0.5
    monkeypatch.setattr(first_request, "FIRST_REQUEST_SECONDS", seconds)
    made = HttpServer.__init__

    def init(self: HttpServer, *parts: Any, **options: Any) -> None:
        made(self, *parts, **{**options, "first_request_seconds": seconds})

    monkeypatch.setattr(HttpServer, "__init__", init)
    return seconds


async def ends(port: int, octets: bytes, drip: bytes = b"") -> bytes:
    """Send `octets`, then `drip` again and again, until the server closes; what it said before a reset."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    said: list[bytes] = []

    async def listen() -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                said.append(data)

    heard = asyncio.ensure_future(listen())
    writer.write(octets)
    async with asyncio.timeout(20):
        while not heard.done():
            with contextlib.suppress(ConnectionError):
                writer.write(drip)
            await asyncio.wait([heard], timeout=0.1)
    writer.close()
    return b"".join(said)


WHOLE = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
HALF = b"GET / HTTP/1.1\r\nHost: localhost\r\nA: "


@pytest.mark.every_loop
@pytest.mark.parametrize("before", [b"", WHOLE, WHOLE * 3], ids=["first", "second", "fourth"])
@pytest.mark.parametrize("drip", [b"", b"x"], ids=["silent", "dribbling"])
@pytest.mark.parametrize("start", [room.start, None], ids=["room", "chat"])
async def test_half_a_request_is_cut_off_whichever_it_is(
    quick: float, start: Start | None, before: bytes, drip: bytes
) -> None:
    async with await (start() if start else chat_server.start(MemoryBroker())) as server:
        began = asyncio.get_running_loop().time()
        said = await ends(server.port, before + HALF, drip)
        assert said.count(b"HTTP/1.1 200") == before.count(b"GET")
        assert said.endswith(first_request.ANSWER) or drip  # a reset for unread octets may overtake it
        assert asyncio.get_running_loop().time() - began < 10


@pytest.mark.long
@pytest.mark.every_loop
async def test_a_body_that_dribbles_in_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatlab.chat.endpoint.sockjs.BODY_SECONDS", 0.5)
    async with await chat_server.start(MemoryBroker()) as server:
        opened = b"POST /ws/0/s/xhr HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
        half = b"POST /ws/0/s/xhr_send HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n["
        said = await ends(server.port, opened + half, b" ")
        assert b"HTTP/1.1 408" in said


@pytest.mark.parametrize("start", ECHOES.values(), ids=ECHOES)
async def test_half_an_upgrade_at_the_echo_servers_is_cut_off(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"open_timeout": 0.5}
    async with await start(**options) as server:
        await ends(server.port, HALF, b"x")


async def test_an_echo_client_that_is_gone_without_a_word_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(echo, "KEEP_ALIVE", KeepAlive(0.1, 0.1))
    async with await echo.start_by_hand() as server:
        with await RawMember.join(server.url) as silent:
            frames = await silent.read_to_the_end()
            assert [frame.opcode for frame in frames] == [Opcode.PING]
