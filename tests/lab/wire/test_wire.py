"""The wire without faults: it passes everything on, records it, and acts at chosen events."""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from chatlab.lab.engines.engine import Engine
from chatlab.lab.until import until
from chatlab.lab.wire.decode import shown
from chatlab.lab.wire.trace import Trace
from chatlab.lab.wire.wire import Wire, replay

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def served(handler: Handler) -> AsyncIterator[str]:
    """Run a TCP server on a free port; yield its "host:port"."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def websocket_echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


# --- the target


@pytest.mark.parametrize(
    ("to", "url"),
    [
        ("ws://127.0.0.1:8000/room?name=a", "ws://127.0.0.1:{port}/room?name=a"),
        ("http://localhost:8000", "http://127.0.0.1:{port}"),
        ("redis://user:secret@10.0.0.1:6379/2", "redis://user:secret@127.0.0.1:{port}/2"),
        ("redis://10.0.0.1/0", "redis://127.0.0.1:{port}/0"),
        ("127.0.0.1:8000", "127.0.0.1:{port}"),
    ],
)
async def test_the_wires_url_is_the_targets_with_another_host_and_port(to: str, url: str) -> None:
    async with Wire(to) as wire:
        assert wire.url == url.format(port=wire.port)


@pytest.mark.parametrize("to", ["ws://", "somewhere", "amqps://host", "ws://host:port/"])
def test_a_target_without_host_and_port_is_refused(to: str) -> None:
    with pytest.raises(ValueError, match="port"):
        Wire(to)


async def test_a_port_in_use_raises_oserror() -> None:
    async with Wire("127.0.0.1:1") as wire:
        with pytest.raises(OSError, match="in use"):
            await Wire("127.0.0.1:1", port=wire.port).start()


# --- passing on


async def test_five_mebibytes_in_random_pieces_come_back_unchanged() -> None:
    chance = random.Random(7)
    data = chance.randbytes(5 * 1024 * 1024)

    async with served(echo) as to, Wire(to) as wire:
        reader, writer = await asyncio.open_connection(wire.host, wire.port)

        async def send() -> None:
            at = 0
            while at < len(data):
                size = chance.randrange(1, 100_000)
                writer.write(data[at : at + size])
                await writer.drain()
                at += size
            writer.write_eof()

        sending = asyncio.create_task(send())
        back = await asyncio.wait_for(reader.read(-1), 20)
        await sending
        writer.close()
    assert hashlib.sha256(back).digest() == hashlib.sha256(data).digest()
    assert wire.trace.sent("client") == data
    assert wire.trace.sent("server") == data


@pytest.mark.parametrize("fault", ["delay", "jitter", "throttle", "stop and go"])
async def test_a_bad_line_keeps_every_byte_and_the_order(fault: str) -> None:
    data = random.Random(7).randbytes(300_000)
    async with served(echo) as to, Wire(to, window=10_000) as wire:
        reader, writer = await asyncio.open_connection(wire.host, wire.port)
        if fault == "delay":
            wire.delay(0.002)
        elif fault == "jitter":
            wire.delay(0.002, jitter=0.002)
        elif fault == "throttle":
            wire.throttle(3_000_000)
        else:
            wire.stall()
            asyncio.get_running_loop().call_later(0.02, wire.resume)
        writer.write(data)
        assert await asyncio.wait_for(reader.readexactly(len(data)), 20) == data
        writer.close()


async def test_a_fin_in_one_direction_leaves_the_other_open() -> None:
    async def answer_after_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = await reader.read(-1)
        writer.write(b"you said " + question)

    async with served(answer_after_the_end) as to, Wire(to) as wire:
        reader, writer = await asyncio.open_connection(wire.host, wire.port)
        writer.write(b"all there is")
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(-1), 5) == b"you said all there is"
        writer.close()
        await wire.wait_for("tcp", "FIN", sender="server")
    assert [(event.sender, event.kind) for event in wire.trace.filter("tcp")] == [
        ("client", "open"),
        ("client", "FIN"),
        ("server", "FIN"),
    ]


async def test_a_reset_of_one_end_reaches_the_other_as_a_reset() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.transport.abort()  # with "more" unread in the buffer, the kernel answers RST

    async with served(reset) as to, Wire(to) as wire:
        reader, writer = await asyncio.open_connection(wire.host, wire.port)
        writer.write(b"." + b"more" * 100_000)
        with pytest.raises(ConnectionResetError):
            while await asyncio.wait_for(reader.read(100), 5):
                pass
            raise AssertionError("the stream ended without a reset")
        assert await wire.wait_for("tcp", "RST", sender="server")
        writer.close()


async def test_a_stalled_reader_stops_the_sender() -> None:
    released = asyncio.Event()

    async def read_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await released.wait()

    async with served(read_nothing) as to, Wire(to) as wire:
        _, writer = await asyncio.open_connection(wire.host, wire.port)
        writer.write(bytes(64 * 1024 * 1024))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(writer.drain(), 0.5)
        assert len(wire.trace.sent("client")) < 32 * 1024 * 1024
        released.set()
        writer.transport.abort()


async def test_bytes_sent_before_the_server_is_reached_are_not_lost() -> None:
    async with served(echo) as to, Wire(to) as wire:
        reader, writer = await asyncio.open_connection(wire.host, wire.port)
        writer.write(b"first")
        assert await asyncio.wait_for(reader.readexactly(5), 5) == b"first"
        writer.close()


async def test_a_reset_before_the_server_is_reached_leaves_no_connection() -> None:
    async with served(echo) as to, Wire(to) as wire:
        wire.reset()
        with pytest.raises(ConnectionResetError):
            reader, _ = await asyncio.open_connection(wire.host, wire.port)
            await asyncio.wait_for(reader.read(1), 5)
        await until(lambda: not wire.connections)


async def test_closing_drops_open_connections_and_keeps_the_trace() -> None:
    async with served(echo) as to:
        wire = await Wire(to).start()
        reader, writer = await asyncio.open_connection(wire.host, wire.port)
        writer.write(b"hello")
        await reader.readexactly(5)
        assert wire.connections == [1]
        await wire.aclose()
        await wire.aclose()
        assert wire.connections == []
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(1), 5)
        writer.close()
        assert wire.trace.sent("server") == b"hello"


# --- recording


async def test_a_full_recording_ends_while_the_wire_passes_everything_on() -> None:
    async with served(echo) as to, Wire(to, trace=Trace(keep=100_000)) as wire:
        reader, writer = await asyncio.open_connection(wire.host, wire.port)
        writer.write(bytes(500_000))
        await asyncio.wait_for(reader.readexactly(500_000), 10)
        writer.close()
    assert sum(len(record.data) for record in wire.trace.records) <= 100_000
    assert wire.trace[-1].kind == "the recording is full and ends here"


async def test_two_wires_write_one_trace_with_the_names_of_their_ends() -> None:
    trace = Trace()
    async with (
        served(echo) as to,
        Wire(to, names=("chat", "redis"), trace=trace) as inner,
        Wire(inner.url, names=("ann", "chat"), trace=trace) as outer,
    ):
        reader, writer = await asyncio.open_connection(outer.host, outer.port)
        writer.write(b"hello")
        await asyncio.wait_for(reader.readexactly(5), 5)
        writer.close()
    assert [(event.source, event.target) for event in trace.filter("bytes")] == [
        ("ann", "chat"),
        ("chat", "redis"),
        ("redis", "chat"),
        ("chat", "ann"),
    ]
    assert trace.sequence().parties == ["ann", "chat", "redis"]


# --- acting at events


async def test_wait_for_finds_future_events_and_earlier_ones() -> None:
    async with serve(websocket_echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with Wire(f"ws://127.0.0.1:{port}/") as wire:
            waiting = asyncio.create_task(wire.wait_for(kind="text", sender="server"))
            async with connect(wire.url) as client:
                await client.send("Hello")
                assert (await asyncio.wait_for(waiting, 5)).content == b"Hello"
                assert (await wire.wait_for(kind="text", sender="server", timeout=0)).content == b"Hello"


async def test_waiting_for_an_event_that_never_comes_times_out() -> None:
    async with Wire("127.0.0.1:1") as wire:
        with pytest.raises(TimeoutError):
            await wire.wait_for(kind="text", timeout=0.01)


async def test_an_act_is_done_once_though_its_event_recurs() -> None:
    done = []
    async with served(echo) as to, Wire(to) as wire:
        reader, writer = await asyncio.open_connection(wire.host, wire.port)
        wire.when(lambda: done.append("now"), sender="client", layer="bytes")
        for _ in range(3):
            writer.write(b"hello")
            await asyncio.wait_for(reader.readexactly(5), 5)
        writer.close()
    assert done == ["now"]


async def test_an_act_is_done_when_another_listener_reads_the_trace_first() -> None:
    done = []
    async with served(echo) as to, Wire(to) as wire:
        with wire.listening(lambda record: wire.trace.decode().clear()):
            wire.when(lambda: done.append("now"), sender="client", layer="bytes")
            reader, writer = await asyncio.open_connection(wire.host, wire.port)
            writer.write(b"hello")
            await asyncio.wait_for(reader.readexactly(5), 5)
            writer.close()
    assert done == ["now"]


# --- in front of Redis


async def test_commands_and_replies_of_the_redis_client_library_are_decoded(redis_engine: Engine) -> None:
    async with Wire(redis_engine.url) as wire, Redis.from_url(wire.url) as redis:
        record = await redis.xadd("wire:test", {"body": "안녕"}, maxlen=10)
        await redis.xrange("wire:test")
        await redis.delete("wire:test")
    commands = wire.trace.filter("redis", sender="client")
    assert [event.kind for event in commands][-3:] == ["XADD", "XRANGE", "DEL"]
    assert wire.trace.first(kind="XADD").summary == 'XADD wire:test MAXLEN ~ 10 * body "안녕"'
    answers = wire.trace.filter("redis", sender="server")
    assert len(answers) == len(commands)
    assert answers[-3].value == record
    assert answers[-2].summary == f'[[{shown(record)}, [body, "안녕"]]]'


# --- a stored trace


async def test_a_stored_trace_is_replayed_against_a_server(tmp_path: Path) -> None:
    async with serve(websocket_echo, "127.0.0.1", 0) as server:
        to = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with Wire(to) as wire:
            async with connect(wire.url) as client:
                for text in ("one", "two"):
                    await client.send(text)
                    await client.recv()
            await wire.wait_for("tcp", "FIN", count=2)
        wire.trace.save(tmp_path / "trace.jsonl")
        again = await replay(Trace.load(tmp_path / "trace.jsonl"), to)
    said = [(event.kind, event.content) for event in wire.trace.filter("websocket", sender="server")]
    assert [(event.kind, event.content) for event in again.filter("websocket", sender="server")] == said
    assert [kind for kind, _ in said] == ["text", "text", "close"]


async def test_a_replay_without_answers_times_out() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)

    async with served(echo) as to, Wire(to) as wire:
        reader, writer = await asyncio.open_connection(wire.host, wire.port)
        writer.write(b"hello")
        await asyncio.wait_for(reader.readexactly(5), 5)
        writer.close()
        await wire.wait_for("tcp", "FIN", sender="client")
    async with served(say_nothing) as silent:
        with pytest.raises(TimeoutError):
            await replay(wire.trace, silent, timeout=0.05)


async def test_one_connection_is_held_at_an_event_while_the_others_go_on() -> None:
    async with served(echo) as target, Wire(target) as wire:
        held, other = [await asyncio.open_connection(wire.host, wire.port) for _ in range(2)]
        wire.when(lambda: wire.hold(1, sender="server"), sender="server", connection=1)
        for _, writer in (held, other):
            writer.write(b"hello")
        assert await other[0].read(5) == b"hello"
        await wire.wait_for(sender="server", layer="bytes", connection=1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await held[0].read(5)
        wire.let_go()
        assert await held[0].read(5) == b"hello"
        for _, writer in (held, other):
            writer.close()


async def test_held_bytes_are_replaced_and_others_slip_in_before_them() -> None:
    async with served(echo) as target, Wire(target) as wire:
        reader, writer = await asyncio.open_connection(wire.host, wire.port)
        writer.write(b"first ")
        assert await reader.read(6) == b"first "
        wire.hold(1, sender="client")
        writer.write(b"hello")
        await until(lambda: wire.held(1, sender="client") == b"hello")
        wire.replace_held(1, b"goodbye", sender="client")
        wire.slip_in(1, b"oh, ", sender="client")
        assert await reader.read(4) == b"oh, "
        assert wire.held(1, sender="client") == b"goodbye"
        wire.let_go(1, sender="client")
        assert await reader.read(7) == b"goodbye"
        assert b"".join(each.data for each in wire.trace.filter("bytes", sender="client")) == b"first hello"
        writer.close()


async def test_the_end_of_the_stream_stays_behind_replaced_bytes() -> None:
    async with served(echo) as target, Wire(target) as wire:
        reader, writer = await asyncio.open_connection(wire.host, wire.port)
        await until(lambda: wire.connections == [1])
        wire.hold(1, sender="client")
        writer.write(b"hello")
        writer.write_eof()
        await wire.wait_for("tcp", "FIN", sender="client")
        wire.replace_held(1, b"bye", sender="client")
        wire.let_go(1, sender="client")
        assert await reader.read() == b"bye"

        writer.close()


async def test_one_direction_is_let_go_while_the_other_is_held() -> None:
    async with served(echo) as target, Wire(target) as wire:
        reader, writer = await asyncio.open_connection(wire.host, wire.port)
        await until(lambda: wire.connections == [1])
        wire.hold(1, sender="client")
        wire.hold(1, sender="server")
        writer.write(b"hello")
        await until(lambda: wire.held(1, sender="client"))
        wire.let_go(1, sender="client")
        await until(lambda: wire.held(1, sender="server") == b"hello")
        wire.let_go(1, sender="server")
        assert await reader.read(5) == b"hello"
        writer.close()
