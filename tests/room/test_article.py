"""The article's room: what it promises (C11 to C16), and how it fails (F8, F9), compared with the robust room."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from chatlab import room
from tests.support import conversation
from tests.support.raw_member import RawMember

TIMEOUT = 10.0
SMALL = 4096


def enter(server: room.RoomServer) -> connect:
    return connect(server.url, compression=None, proxy=None)


async def receive(member: ClientConnection, count: int = 1) -> list[str]:
    async with asyncio.timeout(TIMEOUT):
        return [str(await member.recv()) for _ in range(count)]


async def sessions(server: room.RoomServer, count: int) -> None:
    """Wait until there are `count` sessions."""
    async with asyncio.timeout(TIMEOUT):
        while len(server.metrics().members) != count:  # noqa: ASYNC110 - a figure, not an event
            await asyncio.sleep(0.005)


async def test_c11_a_handler_answers_at_room_and_nowhere_else() -> None:
    async with await room.start_as_in_the_article() as server:
        assert server.url == f"ws://127.0.0.1:{server.port}/room"
        async with enter(server):
            pass
        for path in ("/", "/ws"):
            with pytest.raises(InvalidStatus) as refused:
                await connect(server.url.replace("/room", path), proxy=None)
            assert refused.value.response.status_code == 404


async def test_c12_any_origin_is_let_in_unless_some_are_named() -> None:
    foreign = "https://evil.example"
    async with (
        await room.start_as_in_the_article() as server,
        connect(server.url, origin=foreign, proxy=None) as page,  # type: ignore[arg-type]  # any str is one
    ):
        await page.send("hi")
        assert await receive(page) == ["Server received: hi"]
    async with await room.start_as_in_the_article(origins=["https://class.example"]) as server:
        with pytest.raises(InvalidStatus):
            await connect(server.url, origin=foreign, proxy=None)  # type: ignore[arg-type]  # any str is one


async def test_c13_sessions_come_while_the_registry_is_read() -> None:
    async with (
        await room.start_as_in_the_article() as server,
        enter(server) as speaker,
        contextlib.AsyncExitStack() as stack,
    ):

        async def visit() -> None:
            await receive(await stack.enter_async_context(enter(server)), 3)

        visits = [asyncio.create_task(visit()) for _ in range(20)]
        sent = 0
        while not all(visit.done() for visit in visits):
            await speaker.send(f"{sent}")
            assert await receive(speaker) == [f"Server received: {sent}"]
            sent += 1
        await asyncio.gather(*visits)
        # For sessions that close, see the dead session below.


async def test_c14_every_text_goes_to_every_session_the_senders_too() -> None:
    async with await room.start_as_in_the_article() as server, enter(server) as a, enter(server) as b:
        await a.send("hello")
        assert await receive(a) == await receive(b) == ["Server received: hello"]
        assert (server.metrics().messages, server.metrics().deliveries) == (1, 2)


async def test_c15_a_transport_error_is_logged_and_the_server_lives_on(caplog: pytest.LogCaptureFixture) -> None:
    async with await room.start_as_in_the_article() as server, enter(server) as a:
        vanishing = await RawMember.join(server.url)
        await sessions(server, 2)
        vanishing.vanish()
        await sessions(server, 1)
        assert [record.message for record in caplog.records if record.levelno == logging.ERROR] == [
            "transport error: no close frame received or sent"
        ]
        await a.send("still here")
        assert await receive(a) == ["Server received: still here"]


async def test_c16_a_closed_session_leaves_the_registry() -> None:
    async with await room.start_as_in_the_article() as server, enter(server):
        async with enter(server):
            await sessions(server, 2)
        await sessions(server, 1)


async def test_shutdown_closes_every_session_with_1001() -> None:
    server = await room.start_as_in_the_article()
    async with enter(server) as a:
        await server.aclose()
        await a.wait_closed()
        assert a.close_code == 1001


async def fill_up(speaker: ClientConnection, patience: float) -> int:
    """Send until no echo arrives within `patience` seconds; return their number, at most 60 (in a robust room)."""
    for echoed in range(60):
        await speaker.send("x" * 5000)
        try:
            async with asyncio.timeout(patience):
                await speaker.recv()
        except TimeoutError:
            return echoed
    return 60


async def test_f8_one_session_that_does_not_read_stops_everybodys_messages() -> None:
    async with (
        await room.start_as_in_the_article(send_buffer=SMALL) as server,
        enter(server) as first,
    ):
        stalled = await RawMember.join(server.url, receive_buffer=SMALL)
        await sessions(server, 2)
        async with enter(server) as last:
            await sessions(server, 3)
            echoed = await fill_up(first, patience=1)
            assert echoed < 60  # the loop hangs at the stalled session, and so the sender's next message is not read
            await receive(last, echoed - 1)  # the last echo came before the stalled session, `last` comes after it
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await last.recv()
            stalled.vanish()  # only now does the loop end: by an error, which costs the sender its connection
            await first.wait_closed()
            assert first.close_code == 1011


async def test_f8_the_robust_room_keeps_delivering_despite_a_stalled_session() -> None:
    async with await room.start(send_buffer=SMALL) as server, enter(server) as first:
        with await RawMember.join(server.url, receive_buffer=SMALL):
            await sessions(server, 2)
            async with enter(server) as last:
                await sessions(server, 3)
                assert await fill_up(first, patience=TIMEOUT) == 60
                assert len(await receive(last, 60)) == 60


async def test_f8_a_session_that_sends_close_leaves_the_registry_at_once() -> None:
    async with await room.start_as_in_the_article() as server, enter(server) as sender:
        closing = await RawMember.join(server.url)
        await sessions(server, 2)
        await closing.send(conversation.close(1000))  # and the TCP connection stays
        assert await closing.read_frame() is not None
        async with enter(server) as after_it:
            await sessions(server, 2)
            await sender.send("hello")
            assert await receive(sender) == await receive(after_it) == ["Server received: hello"]


async def test_f8_a_stalled_session_is_dropped_after_the_write_timeout_and_costs_the_sender_its_connection() -> None:
    async with (
        await room.start_as_in_the_article(send_buffer=SMALL, write_timeout=1.5) as server,
        enter(server) as sender,
    ):
        with await RawMember.join(server.url, receive_buffer=SMALL):
            await sessions(server, 2)
            assert await fill_up(sender, patience=1) < 60
            await sender.wait_closed()
            assert sender.close_code == 1011
            await sessions(server, 0)


async def test_f14_a_session_that_is_sent_to_refuses_a_second_sender_who_is_closed_for_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with await room.start_as_in_the_article(send_buffer=SMALL) as server, enter(server) as first:
        stalled = await RawMember.join(server.url, receive_buffer=SMALL)
        await sessions(server, 2)
        assert await fill_up(first, patience=1) < 60
        async with enter(server) as second:
            await second.send("and I?")
            await second.wait_closed()
            assert second.close_code == 1011
        stalled.vanish()
    assert "TEXT_PARTIAL_WRITING" in caplog.text


async def test_f8_a_dead_session_in_the_robust_room_costs_nobody_their_connection() -> None:
    async with await room.start() as server, enter(server) as sender:
        dying = await RawMember.join(server.url)
        await sessions(server, 2)
        await dying.send(conversation.close(1000))
        assert await dying.read_frame() is not None
        async with enter(server) as after_it:
            await sender.send("hello")
            assert await receive(sender) == await receive(after_it) == ["Server received: hello"]
            dying.vanish()
            await sender.send("again")
            assert await receive(sender) == await receive(after_it) == ["Server received: again"]
