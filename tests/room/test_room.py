"""The robust room on real sockets: what members receive, which clients are admitted, and which are closed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.frames import Frame, Opcode

from chatlab import room
from chatlab.limits import RateLimit
from chatlab.net.fanout import SlowReaderPolicy
from chatlab.room.metrics import Departure
from chatlab.room.room import TURN, Room, texts_in
from chatlab.room.server import RoomServer
from tests.support import conversation
from tests.support.raw_member import RawMember

TIMEOUT = 10.0  # for operations that should take milliseconds


def enter(server: RoomServer, name: str | None = None, **options: object) -> connect:
    """Return a member that never stops reading (max_queue), or it would not see the answer to its own Close."""
    return connect(server.join_url(name), compression=None, proxy=None, max_queue=None, **options)  # type: ignore[arg-type]  # passed on


async def receive(member: ClientConnection, count: int) -> list[str]:
    """Return the next `count` lines a member receives."""
    async with asyncio.timeout(TIMEOUT):
        return [str(await member.recv()) for _ in range(count)]


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait until `condition()` is true."""
    try:
        async with asyncio.timeout(TIMEOUT):
            while not condition():  # noqa: ASYNC110 - what the room shows of itself are figures, not events
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"not within {TIMEOUT:g} s: {what}") from None


def room_of(server: RoomServer) -> Room:
    assert isinstance(server.room, Room)
    return server.room


# --- What members receive ---


async def test_every_text_reaches_all_members_including_its_sender() -> None:
    async with await room.start() as server, enter(server) as a, enter(server) as b:
        await a.send("hello")
        assert await receive(a, 1) == await receive(b, 1) == ["Server received: hello"]
        await b.send("안녕하세요 👋")
        assert await receive(a, 1) == await receive(b, 1) == ["Server received: 안녕하세요 👋"]


async def test_empty_texts_and_texts_with_line_breaks_are_delivered() -> None:
    async with await room.start() as server, enter(server) as a:
        await a.send("")
        await a.send("one\n* two\n")
        assert await receive(a, 2) == ["Server received: ", "Server received: one↵* two↵"]


async def test_named_members_are_announced_and_their_texts_show_the_name() -> None:
    async with await room.start() as server, enter(server) as nobody:
        async with enter(server, "Ana") as ana:
            await ana.send("hi")
            assert await receive(ana, 2) == ["* Ana joined (2 here)", "Server received from Ana: hi"]
        assert await receive(nobody, 3) == [
            "* Ana joined (2 here)",
            "Server received from Ana: hi",
            "* Ana left (1 here)",
        ]


async def test_lookalike_names_are_unique_and_free_again_after_leaving() -> None:
    async with await room.start() as server:
        async with enter(server, "Ana") as first, enter(server, "ANA") as second, enter(server, "  ana ") as third:
            assert (await receive(second, 1), await receive(third, 1)) == (
                ["* ANA-2 joined (2 here)"],
                ["* ana-3 joined (3 here)"],
            )
            await receive(first, 3)
        await until(lambda: not server.metrics().members, "everybody left")
        async with enter(server, "Ana") as again:
            assert await receive(again, 1) == ["* Ana joined (1 here)"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("x" * 33, "name too long: 33 characters, at most 32"),
        ("Ana: hello", "name with a colon or an unprintable character: 'Ana: hello'"),
        ("\N{RIGHT-TO-LEFT OVERRIDE}anA", "name with a colon or an unprintable character: '\\u202eanA'"),
        ("a\x00b", "name with a colon or an unprintable character: 'a\\x00b'"),
    ],
)
async def test_a_name_that_could_be_mistaken_for_something_else_is_refused(name: str, why: str) -> None:
    async with await room.start() as server:
        with pytest.raises(InvalidStatus) as refused:
            await enter(server, name)
        assert refused.value.response.status_code == 400
        assert refused.value.response.body == f"{why}\n".encode()


async def test_concurrent_messages_from_four_members_reach_all_in_the_same_order() -> None:
    async with await room.start() as server, contextlib.AsyncExitStack() as stack:
        members = [await stack.enter_async_context(enter(server)) for _ in range(4)]

        async def speak(number: int) -> None:
            for n in range(50):
                await members[number].send(f"{number}.{n}")
                await asyncio.sleep(0)

        logs, _ = await asyncio.gather(
            asyncio.gather(*(receive(member, 200) for member in members)),
            asyncio.gather(*(speak(number) for number in range(4))),
        )
        assert logs[0] == logs[1] == logs[2] == logs[3]
        for number in range(4):
            mine = [line for line in logs[0] if line.startswith(f"Server received: {number}.")]
            assert mine == [f"Server received: {number}.{n}" for n in range(50)]


# --- One write per loop turn ---


async def test_messages_that_arrive_together_are_joined_into_one_write_per_member() -> None:
    async with await room.start() as server, enter(server) as reader:
        with await RawMember.join(server.url) as sender:
            await until(lambda: len(server.metrics().members) == 2, "both are in")
            await sender.send(b"".join(conversation.text(b"%d" % n) for n in range(32)))
            assert await receive(reader, 32) == [f"Server received: {n}" for n in range(32)]
        metrics = server.metrics()
        assert (metrics.messages, metrics.deliveries, metrics.writes) == (32, 64, 2)


async def test_a_flooding_member_does_not_starve_the_others() -> None:
    async with await room.start() as server, enter(server) as reader:
        with await RawMember.join(server.url) as flooder:
            await until(lambda: len(server.metrics().members) == 2, "both are in")
            await flooder.send(conversation.text(b"x") * 1000)
            await receive(reader, 1000)
        assert server.metrics().writes >= 2 * (1000 // TURN)


async def test_compression_is_off_by_default_and_otherwise_negotiated_per_member() -> None:
    async with await room.start() as server, connect(server.url, proxy=None) as offering:
        assert offering.protocol.extensions == []
    async with (
        await room.start(compression="deflate") as server,
        connect(server.url, proxy=None) as compressed,
        enter(server) as plain,
    ):
        assert len(compressed.protocol.extensions) == 1
        for n in range(3):
            await plain.send(f"{n}" * 200)
        expected = [f"Server received: {n}" + f"{n}" * 199 for n in range(3)]
        assert await receive(compressed, 3) == await receive(plain, 3) == expected


def test_a_batch_of_frames_is_split_into_its_texts() -> None:
    texts = [b"", b"x" * 125, b"y" * 126, b"z" * 70000]
    frames = b"".join(Frame(Opcode.TEXT, text).serialize(mask=False) for text in texts)
    assert list(texts_in(frames)) == texts


# --- Members that do not keep up, or disconnect ---

# Small buffers on both sides, so that a stall shows after kilobytes, not megabytes.
SMALL = 4096
IMPATIENT = SlowReaderPolicy(max_buffered=50_000, drain_seconds=0.2)


async def test_a_stalled_member_is_closed_then_aborted_and_delays_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async with await room.start(policy=IMPATIENT, send_buffer=SMALL) as server, enter(server) as speaker:
        with await RawMember.join(server.join_url("Sloth"), receive_buffer=SMALL):
            assert await receive(speaker, 1) == ["* Sloth joined (2 here)"]
            seen: list[str] = []
            while "* Sloth left (1 here)" not in seen:
                await speaker.send("x" * 5000)
                seen += await receive(speaker, 1)
            assert len(seen) < 40
            await until(lambda: server.metrics().aborted, "Sloth is aborted")
        metrics = server.metrics()
        assert (metrics.slow, metrics.aborted) == (1, 1)
        (left,) = metrics.departures
        assert (left.name, left.code) == ("Sloth", 1008)
        assert left.reason.startswith("slow reader: ")
        assert left.reason.endswith(" bytes unread")
        assert "Sloth at 127.0.0.1:" in caplog.text
        assert f"closed: {left.reason}" in caplog.text
        assert "not drained in 0.2 s" in caplog.text


async def test_a_slow_member_that_resumes_reading_gets_every_message_and_the_close_reason() -> None:
    patient = SlowReaderPolicy(max_buffered=50_000, drain_seconds=TIMEOUT)
    async with await room.start(policy=patient, send_buffer=SMALL) as server, enter(server) as speaker:
        with await RawMember.join(server.url, receive_buffer=SMALL) as slow:
            await until(lambda: len(server.metrics().members) == 2, "both are in")
            sent = 0
            while not server.metrics().slow:
                await speaker.send(f"{sent}:" + "x" * 5000)
                await receive(speaker, 1)
                sent += 1
            reading = asyncio.create_task(slow.read_to_the_end())
            await until(lambda: not room_of(server).fanout.buffered(), "all was read")
            await slow.send(conversation.close(1008))
            *texts, close = await reading
        numbers = [int(frame.payload.split(b":")[1]) for frame in texts]
        assert numbers == list(range(sent))
        assert close.opcode == Opcode.CLOSE
        assert close.payload[:2] == (1008).to_bytes(2)
        assert close.payload[2:].startswith(b"slow reader: ")
        assert server.metrics().aborted == 0


async def test_a_member_that_stalls_in_a_quiet_room_is_closed() -> None:
    policy = SlowReaderPolicy(max_seconds=0.2, drain_seconds=0.1)
    async with await room.start(policy=policy, send_buffer=SMALL) as server, enter(server) as speaker:
        with await RawMember.join(server.url, receive_buffer=SMALL):
            await until(lambda: len(server.metrics().members) == 2, "both are in")
            for _ in range(10):
                await speaker.send("x" * 5000)
            await receive(speaker, 10)
            await until(lambda: server.metrics().aborted, "the stalled member is aborted")
        assert "bytes unread for 0." in server.metrics().departures[0].reason


async def test_a_member_that_disconnects_during_a_broadcast_disturbs_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with await room.start() as server, enter(server) as a, enter(server) as b:
        vanishing = await RawMember.join(server.join_url("Ghost"))
        await receive(a, 1)
        for n in range(100):
            await a.send(f"{n}")
            if n == 50:
                vanishing.vanish()
        texts = [f"Server received: {n}" for n in range(100)]
        seen_a, seen_b = await receive(a, 101), await receive(b, 102)
        assert [line for line in seen_a if "Ghost" not in line] == texts
        assert [line for line in seen_b if "Ghost" not in line] == texts
        assert "* Ghost left (2 here)" in seen_a
        assert server.metrics().departures == (Departure("Ghost", 1006, "connection lost"),)
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_members_that_join_and_leave_receive_a_gapless_part_of_the_messages() -> None:
    async with await room.start() as server, enter(server) as speaker:
        done = asyncio.Event()

        async def visit(seed: int) -> list[str]:
            async with enter(server) as visitor:
                return await receive(visitor, random.Random(seed).randrange(1, 40))

        async def speak() -> int:
            n = 0
            while not done.is_set():
                await speaker.send(f"{n}")
                await receive(speaker, 1)
                n += 1
            return n

        speaking = asyncio.create_task(speak())
        visits = await asyncio.gather(*(visit(seed) for seed in range(30)))
        done.set()
        await speaking
        for lines in visits:
            numbers = [int(line.removeprefix("Server received: ")) for line in lines]
            assert numbers == list(range(numbers[0], numbers[0] + len(lines)))


# --- Limits ---


async def test_a_message_that_is_too_long_closes_its_sender_with_1009_and_the_limit() -> None:
    async with await room.start(max_size=100) as server, enter(server) as a, enter(server) as b:
        await a.send("x" * 100)
        assert await receive(b, 1) == ["Server received: " + "x" * 100]
        await a.send("x" * 101)
        with pytest.raises(ConnectionClosedError) as closed:
            await receive(a, 2)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
        assert "message of 101 bytes or more; at most 100 are read" in closed.value.rcvd.reason
        await b.send("still here")
        assert await receive(b, 1) == ["Server received: still here"]


async def test_a_binary_message_closes_its_sender_with_1003() -> None:
    async with await room.start() as server, enter(server) as a:
        await a.send(b"\x00\x01")
        with pytest.raises(ConnectionClosedError) as closed:
            await receive(a, 1)
        assert str(closed.value.rcvd) == "1003 (unsupported data) this room takes text, not binary messages"


async def test_a_message_over_the_rate_is_refused_to_its_sender_only() -> None:
    limit = RateLimit(per_second=0.001, burst=3)
    async with await room.start(rate=limit) as server, enter(server) as a, enter(server) as b:
        for n in range(5):
            await a.send(f"{n}")
        passed = [f"Server received: {n}" for n in range(3)]
        assert await receive(a, 5) == [*passed, *["! not sent: more than 0.001 messages a second"] * 2]
        await b.send("each has an allowance of their own")
        assert await receive(b, 4) == [*passed, "Server received: each has an allowance of their own"]


async def test_a_member_that_keeps_flooding_is_closed_with_1008() -> None:
    limit = RateLimit(per_second=0.001, burst=2, patience=5)
    async with await room.start(rate=limit) as server, enter(server) as watcher:
        with await RawMember.join(server.url) as flooder:
            await flooder.send(conversation.text(b"buy now") * 1000)
            close = None
            while close is None:
                frame = await flooder.read_frame()
                assert frame is not None
                close = frame if frame.opcode == Opcode.CLOSE else None
            assert close.payload == (1008).to_bytes(2) + b"flooding: more than 0.001 messages a second"
        assert await receive(watcher, 2) == ["Server received: buy now"] * 2
        await watcher.send("quiet again")
        assert await receive(watcher, 1) == ["Server received: quiet again"]


# --- Admission ---


async def join_from(server: RoomServer, origin: str | None) -> int:
    """Return the HTTP status of a handshake from a page of `origin`."""
    try:
        async with connect(server.join_url(), origin=origin, compression=None, proxy=None):  # type: ignore[arg-type]  # a str
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


async def test_foreign_origins_are_refused_and_own_pages_and_programs_admitted() -> None:
    async with await room.start() as server:
        assert await join_from(server, None) == 101
        assert await join_from(server, f"http://127.0.0.1:{server.port}") == 101
        assert await join_from(server, "https://evil.example") == 403
        assert await join_from(server, f"http://127.0.0.1:{server.port + 1}") == 403
        assert await join_from(server, "null") == 403


async def test_further_origins_are_admitted_by_exact_name_or_all_with_a_star() -> None:
    async with await room.start(origins=["https://class.example"]) as server:
        assert await join_from(server, "https://class.example") == 101
        assert await join_from(server, "http://class.example") == 403
        assert await join_from(server, "https://class.example.evil.example") == 403
        assert await join_from(server, "https://sub.class.example") == 403
    async with await room.start(origins=["*"]) as server:
        assert await join_from(server, "https://evil.example") == 101


async def test_two_origins_in_one_request_are_refused() -> None:
    async with await room.start(origins=["https://a.example"]) as server:
        with pytest.raises(AssertionError, match="400 Bad Request"):
            await RawMember.join(server.url, headers="Origin: https://a.example\r\nOrigin: https://b.example\r\n")


async def test_the_room_is_served_at_its_path_only() -> None:
    async with await room.start() as server:
        with pytest.raises(InvalidStatus) as refused:
            await connect(server.url.replace("/room", "/chat"), proxy=None)
        assert refused.value.response.status_code == 404


async def test_a_room_with_a_code_admits_only_clients_that_send_it() -> None:
    async with await room.start(code="K7QX3M") as server:
        assert server.join_url("Ana").endswith("/room?name=Ana&code=K7QX3M")
        async with enter(server, "Ana") as ana, connect(f"{server.url}?code=k7qx3m", proxy=None) as b:
            await b.send("hi")
            assert await receive(ana, 2) == ["* Ana joined (1 here)", "Server received: hi"]
        for query in ("", "?code=", "?code=K7QX3", "?code=%F0%9F%94%91", "?code=K7QX3M&code=other"):
            with pytest.raises(InvalidStatus) as refused:
                await connect(server.url + query, proxy=None)
            assert refused.value.response.status_code == 403
            assert refused.value.response.body == b"wrong room code\n"


async def test_a_query_of_a_thousand_fields_is_refused() -> None:
    async with await room.start() as server:
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{server.url}?" + "&".join(f"a{n}=1" for n in range(1000)), proxy=None)
        assert refused.value.response.status_code == 400


# --- Keep-alive, shutdown, metrics ---


async def test_a_member_that_does_not_answer_pings_is_dropped() -> None:
    async with await room.start(ping_interval=0.05, ping_timeout=0.05) as server:
        with await RawMember.join(server.join_url("Dead")) as dead:
            frames = await dead.read_to_the_end()
        assert [frame.opcode for frame in frames] == [Opcode.TEXT, Opcode.PING, Opcode.CLOSE]
        await until(lambda: server.metrics().departures, "the dead one is out")
        assert server.metrics().departures == (Departure("Dead", 1011, "keepalive ping timeout"),)


async def test_a_silent_member_is_pinged_and_its_latency_measured() -> None:
    async with await room.start(ping_interval=0.05, ping_timeout=TIMEOUT) as server, enter(server):
        assert server.metrics().members[0].latency == 0
        await until(lambda: server.metrics().members[0].latency > 0, "a ping has been answered")
        assert server.metrics().members[0].latency < TIMEOUT


async def test_messages_of_a_closed_member_are_discarded() -> None:
    async with await room.start() as server, enter(server) as watcher:
        with await RawMember.join(server.url) as member:
            await member.send(conversation.binary(b"not for a room") + conversation.text(b"too late"))
            frames = [await member.read_frame()]
            assert [frame.payload[:2] for frame in frames if frame] == [(1003).to_bytes(2)]
        await watcher.send("in time")
        assert await receive(watcher, 1) == ["Server received: in time"]


async def test_shutdown_closes_every_member_with_1001_and_frees_the_port() -> None:
    server = await room.start()
    async with enter(server) as a, enter(server) as b:
        await a.send("last words")
        await receive(b, 1)
        await server.aclose()
        for member in (a, b):
            await member.wait_closed()
            assert (member.close_code, member.close_reason) == (1001, "the room is closing")
    async with await room.start(port=server.port) as again:
        assert again.port == server.port


async def test_shutdown_is_bounded_despite_stalled_silent_and_half_open_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chatlab.room.server.SHUTDOWN_SECONDS", 0.1)
    server = await room.start(send_buffer=SMALL)
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(b"GET /room HTTP/1.1\r\nHost: x\r\n")  # an incomplete handshake
    async with enter(server) as speaker:
        with await RawMember.join(server.url, receive_buffer=SMALL):
            await until(lambda: len(server.metrics().members) == 2, "both are in")
            for _ in range(20):
                await speaker.send("x" * 5000)
                await receive(speaker, 1)
            assert server.metrics().buffered > 30_000
            async with asyncio.timeout(TIMEOUT / 4):
                await server.aclose()
    assert await reader.read() == b""
    writer.close()


async def test_closing_the_room_twice_is_safe() -> None:
    server = await room.start()
    await server.aclose()
    await server.aclose()


async def test_a_port_that_is_taken_is_an_oserror() -> None:
    async with await room.start() as server:
        with pytest.raises(OSError, match="address already in use"):
            await room.start(port=server.port)


async def test_metrics_name_the_members_and_count_what_was_done() -> None:
    async with await room.start() as server, enter(server, "Ana") as ana, enter(server) as other:
        await ana.send("one")
        await ana.send("two")
        await receive(ana, 3)
        await receive(other, 2)
        metrics = server.metrics()
        assert [(member.name, member.sent, member.buffered) for member in metrics.members] == [
            ("Ana", 2, 0),
            ("member 2", 0, 0),
        ]
        assert metrics.members[0].address.startswith("127.0.0.1:")
        assert (metrics.messages, metrics.deliveries, metrics.buffered) == (3, 5, 0)
        assert metrics.slow == metrics.aborted == 0


async def test_metrics_include_messages_per_second() -> None:
    async with await room.start() as server, enter(server) as member:
        await member.send("x")
        await receive(member, 1)
        await until(lambda: server.metrics().messages_per_second > 0, "the second has ended")
        assert server.metrics().messages_per_second == pytest.approx(1 / room_of(server).fanout.meter.seconds)


async def test_an_ipv6_address_is_shown_in_brackets() -> None:
    try:
        server = await room.start(host="::1")
    except OSError:
        pytest.skip("no IPv6 here")
    async with server, enter(server) as member:
        assert server.url == f"ws://[::1]:{server.port}/room"
        await member.send("six")
        assert await receive(member, 1) == ["Server received: six"]
