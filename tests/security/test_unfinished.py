"""Messages and requests that never end take a bounded amount of memory and time."""

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
    """Run a server in a separate process, to measure its memory; yield the process and its port."""
    words = [sys.executable, "-m", "chatlab.cli", "serve", *command, "--port", "0"]
    child = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    try:
        async with asyncio.timeout(60):
            while not (line := await child.stdout.readline()).startswith(b"listening on"):
                assert line, "the server did not start"
        yield psutil.Process(child.pid), int(line.rpartition(b":")[2].split(b"/")[0])
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(signal.SIGTERM)
        await child.wait()


async def push(member: RawMember, octets: bytes) -> None:
    """Send until the server stops reading or closes the connection."""
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(3):
            await member.send(octets)


@pytest.mark.long
@pytest.mark.parametrize("kind", [[], ["--by-hand"]], ids=["library", "by hand"])
@pytest.mark.parametrize("how", ["one frame", "fragments", "unread"])
async def test_forty_unfinished_messages_of_15_mib_take_bounded_memory(kind: list[str], how: str) -> None:
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
async def test_the_client_holding_most_memory_is_closed_with_1013_and_others_continue(start: Start) -> None:
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
async def test_finished_messages_no_longer_count_as_held(start: Start) -> None:
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
async def test_the_room_and_the_chat_release_half_messages_of_clients_that_disconnect(start: Start | None) -> None:
    async with await (start() if start else chat_server.start(MemoryBroker())) as server:
        for _ in range(5):
            with await RawMember.join(server.url) as member:
                await member.send(Frame(Opcode.TEXT, b"x" * 60_000, fin=False, mask=bytes(4)).serialize())
                member.vanish()
        async with connect(server.url, proxy=None):
            pass


# --- Requests that never end ---


@pytest.fixture
def short_timeout(monkeypatch: pytest.MonkeyPatch) -> float:
    """Set the limits of ten seconds to half a second."""
    seconds = 0.5
    monkeypatch.setattr(first_request, "FIRST_REQUEST_SECONDS", seconds)
    made = HttpServer.__init__

    def init(self: HttpServer, *parts: Any, **options: Any) -> None:
        made(self, *parts, **{**options, "first_request_seconds": seconds})

    monkeypatch.setattr(HttpServer, "__init__", init)
    return seconds


async def send_until_closed(port: int, octets: bytes, drip: bytes = b"") -> bytes:
    """Send `octets`, then `drip` repeatedly until the server closes; return what it sent until then."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received: list[bytes] = []

    async def read() -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                received.append(data)

    reading = asyncio.ensure_future(read())
    writer.write(octets)
    async with asyncio.timeout(20):
        while not reading.done():
            with contextlib.suppress(ConnectionError):
                writer.write(drip)
            await asyncio.wait([reading], timeout=0.1)
    writer.close()
    return b"".join(received)


WHOLE = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
HALF = b"GET / HTTP/1.1\r\nHost: localhost\r\nA: "


@pytest.mark.every_loop
@pytest.mark.parametrize("before", [b"", WHOLE, WHOLE * 3], ids=["first", "second", "fourth"])
@pytest.mark.parametrize("drip", [b"", b"x"], ids=["silent", "dribbling"])
@pytest.mark.parametrize("start", [room.start, None], ids=["room", "chat"])
async def test_half_a_request_is_closed_after_a_timeout_also_on_a_kept_alive_connection(
    short_timeout: float, start: Start | None, before: bytes, drip: bytes
) -> None:
    async with await (start() if start else chat_server.start(MemoryBroker())) as server:
        began = asyncio.get_running_loop().time()
        answer = await send_until_closed(server.port, before + HALF, drip)
        assert answer.count(b"HTTP/1.1 200") == before.count(b"GET")
        assert answer.endswith(first_request.ANSWER) or drip  # a reset because of unread octets may overtake the answer
        assert asyncio.get_running_loop().time() - began < 10


@pytest.mark.every_loop
async def test_half_a_request_sent_while_the_one_before_is_answered_is_closed_after_a_timeout(
    short_timeout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatlab.chat.endpoint.sockjs.HEART_BEAT", 0.5)
    poll = b"POST /ws/0/s/xhr HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    async with await chat_server.start(MemoryBroker()) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for octets in (poll, poll):
            writer.write(octets)
            await asyncio.sleep(0.1)
        writer.write(HALF)  # the second poll is answered half a second after its request
        async with asyncio.timeout(10):
            answers = await reader.read()
        assert answers.count(b"HTTP/1.1 200") == 2
        assert answers.endswith(first_request.ANSWER)
        writer.close()


@pytest.mark.long
@pytest.mark.every_loop
async def test_a_body_that_arrives_too_slowly_gets_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatlab.chat.endpoint.sockjs.BODY_SECONDS", 0.5)
    async with await chat_server.start(MemoryBroker()) as server:
        opened = b"POST /ws/0/s/xhr HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
        half = b"POST /ws/0/s/xhr_send HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n["
        answer = await send_until_closed(server.port, opened + half, b" ")
        assert b"HTTP/1.1 408" in answer


@pytest.mark.parametrize("start", ECHOES.values(), ids=ECHOES)
async def test_half_an_upgrade_at_an_echo_server_is_closed_after_a_timeout(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"open_timeout": 0.5}
    async with await start(**options) as server:
        await send_until_closed(server.port, HALF, b"x")


async def test_an_echo_client_that_answers_no_ping_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(echo, "KEEP_ALIVE", KeepAlive(0.1, 0.1))
    async with await echo.start_by_hand() as server:
        with await RawMember.join(server.url) as silent:
            frames = await silent.read_to_the_end()
            assert [frame.opcode for frame in frames] == [Opcode.PING]
