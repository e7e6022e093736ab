"""Lesson 02's experiments on real sockets: the measurements compare as the lesson says, and each verdict can fail."""

import asyncio
from pathlib import Path

import pytest
from aiohttp import web
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection

from chatlab import echo
from chatlab.lab.claims import Outcome, Verdict
from chatlab.lab.experiments import lesson02
from chatlab.lab.experiments.lesson02 import Feed, Flow, Transfer, Way
from chatlab.lab.hand_client import HandClient
from chatlab.lab.wire.trace import Peer, Trace, WireRecord
from chatlab.lab.wire.wire import Wire
from chatlab.websocket.connection import Message
from chatlab.websocket.frames import Frame, Opcode


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATLAB_HOME", str(tmp_path))


# The measurements.


async def test_both_directions_of_a_websocket_carry_data_at_once() -> None:
    transfer = await lesson02.two_at_once(size=256 * 1024, bytes_per_second=1e6)

    assert transfer.overlap > 0.5
    assert all(moments[-1][1] >= 256 * 1024 for moments in transfer.passed.values())


async def test_an_http_response_starts_after_its_request_has_ended() -> None:
    transfer = await lesson02.in_turns(size=256 * 1024, bytes_per_second=1e6)

    assert transfer.overlap == 0
    assert transfer.span("client")[1] <= transfer.span("server")[0]


def test_a_transfer_counts_from_the_first_byte_after_the_headers() -> None:
    trace = Trace()
    for time, sender, size in (
        (0.0, "client", 100),
        (1.0, "client", 1000),
        (1.5, "server", 1000),
        (3.0, "server", 1000),
    ):
        record = WireRecord(time, 1, sender, bytes(size))  # type: ignore[arg-type]  # a str that is one of the two peers
        record.pass_on(size, time + 0.5)
        trace.add(record)

    transfer = Transfer.of(trace, skip=100)

    assert transfer.passed == {"client": [(0.0, 100), (0.5, 1100)], "server": [(0.5, 0), (1.0, 1000), (2.5, 2000)]}
    assert transfer.seconds == 2.5
    assert transfer.carried == {"client": [(0.0, 0.5)], "server": [(0.5, 1.0), (2.0, 2.5)]}
    assert transfer.overlap == 0


def test_the_overlap_counts_only_the_time_in_which_both_directions_had_bytes_on_the_wire() -> None:
    periods: dict[Peer, list[tuple[float, float]]] = {"client": [(0, 2), (4, 6)], "server": [(1, 3), (6, 7)]}

    assert Transfer(passed={}, carried=periods).overlap == pytest.approx(1 / 6)


async def test_all_five_ways_receive_every_message_at_different_costs() -> None:
    ways = {way.name: way for way in await lesson02.five_ways(messages=6, poll_every=0.1)}

    assert all(len(way.delays) == 6 and min(way.delays) >= 0 for way in ways.values())
    socket, events = ways["WebSocket"], ways["server-sent events"]
    assert (socket.requests, socket.connections) == (events.requests, events.connections) == (1, 1)
    assert ways["long polling"].requests == 6
    assert ways["polling"].connections == 1
    assert ways["polling, a connection each"].connections == ways["polling, a connection each"].requests > 1
    assert socket.octets < ways["long polling"].octets


def test_bytes_for_each_message_are_all_bytes_divided_by_the_messages() -> None:
    way = Way("polling", delays=(0.1, 0.3, 0.2), octets=600, requests=4, connections=1)

    assert (way.octets_per_message, way.median) == (200, 0.2)


@pytest.mark.parametrize(("keepalive", "notices"), [(0.1, True), (None, False)])
async def test_only_a_server_that_pings_notices_a_silent_line(keepalive: float | None, notices: bool) -> None:
    noticed = await lesson02.noticed_after(keepalive, patience=3.0 if notices else 0.5)

    assert (noticed is not None) is notices


async def test_a_server_that_awaits_each_send_buffers_little_and_continues_when_the_client_reads() -> None:
    flow = await lesson02.nobody_reads(waits=True, reads_at=0.4, seconds=0.8)

    assert flow.most_waiting < 1024 * 1024
    assert flow.sent_between(0.4, 0.8) > flow.sent_between(0.3, 0.4)


async def test_a_server_that_does_not_wait_buffers_everything_the_client_does_not_read() -> None:
    flow = await lesson02.nobody_reads(waits=False, reads_at=0.4, seconds=0.5)

    assert flow.most_waiting > 1024 * 1024


def test_the_bytes_sent_in_a_time_are_computed_from_the_samples_in_it() -> None:
    flow = Flow(samples=((0.0, 10, 0), (0.1, 20, 5), (0.2, 50, 9)), reads_at=0.1)

    assert (flow.sent_between(0.0, 0.2), flow.sent_between(0.1, 0.2), flow.sent_between(0.5, 0.6)) == (40, 30, 0)
    assert flow.most_waiting == 9


# The verdicts, and how each comes out the other way.


async def two_in_turns(order: str) -> Trace:
    """Return what a wire saw of an echo server, which speaks only in answer."""
    async with (
        await echo.start(compression=False) as server,
        Wire(to=server.url) as wire,
        connect(wire.url, compression=None, proxy=None) as client,
    ):
        for letter in order:
            await client.send(letter)
            await client.recv()
    return wire.trace


async def test_c8_holds_where_both_sides_speak_twice_in_a_row() -> None:
    found = lesson02.c8(await lesson02.speak_in_order("ccsssc"))

    assert (found.outcome, found.measured) == (Outcome.HOLDS, "who spoke, in order: ccsssc")


async def test_c8_does_not_hold_for_a_server_that_only_answers() -> None:
    found = lesson02.c8(await two_in_turns("안녕"))

    assert (found.outcome, found.because) == (Outcome.DOES_NOT_HOLD, "one side never sent twice in a row")


def test_c8_is_not_tested_if_nothing_was_sent() -> None:
    assert undecided(lesson02.c8(Trace()), "no message was sent")


async def one_after_the_other(connection: ServerConnection, size: int) -> None:
    received = [await connection.recv() for _ in range(size // lesson02.PIECE)]
    for piece in received:
        await connection.send(piece)


SMALL = 256 * 1024


async def test_c3_holds_for_a_server_that_sends_while_it_receives() -> None:
    both = await lesson02.two_at_once(size=SMALL, bytes_per_second=1e6)
    turns = await lesson02.in_turns(size=SMALL, bytes_per_second=1e6)

    found = lesson02.c3(both, turns)

    assert found.outcome is Outcome.HOLDS, found.measured


async def test_c3_does_not_hold_for_a_server_that_sends_after_it_has_received() -> None:
    both = await lesson02.two_at_once(size=SMALL, bytes_per_second=1e6, exchange=one_after_the_other)

    found = lesson02.c3(both, both)

    assert (found.outcome, found.because) == (Outcome.DOES_NOT_HOLD, "one direction waits for the other")


def transfer(overlap: float) -> Transfer:
    return Transfer(
        passed={"client": [(0, 0), (1, 1)], "server": [(0, 0), (1, 1)]},
        carried={"client": [(0, 1)], "server": [(0, overlap)]},
    )


def test_c3_is_not_tested_near_its_threshold() -> None:
    assert undecided(lesson02.c3(transfer(0.4), transfer(0)))


class InBatches(Feed):
    """A feed whose WebSocket sends what has gathered once every `every` seconds."""

    every = 0.4

    async def _send_all(self, websocket: web.WebSocketResponse) -> None:
        number = 0
        while True:
            await asyncio.sleep(self.every)
            for message in self.messages[number:]:
                number += 1
                await websocket.send_str(message)


async def test_c4_holds_compared_with_polling_only() -> None:
    found = lesson02.c4(await lesson02.five_ways(messages=8, poll_every=0.25))

    assert found.outcome is Outcome.HOLDS_WHEN, found.measured
    assert "long polling and server-sent events are as quick" in found.because


async def test_c4_does_not_hold_for_a_server_that_sends_in_batches() -> None:
    found = lesson02.c4(await lesson02.five_ways(messages=8, poll_every=0.02, feed=InBatches()))

    assert (found.outcome, found.because) == (Outcome.DOES_NOT_HOLD, "polling was no slower"), found.measured


def undecided(found: Verdict, because: str = lesson02.TOO_CLOSE) -> bool:
    return (found.outcome, found.because) == (Outcome.NOT_TESTED, because)


def five(**changed: Way) -> list[Way]:
    """Return measurements of the five ways as they usually are, some of them changed."""
    usual = {
        "anew": Way("polling, a connection each", (0.125,), 1200, 3, 3),
        "polling": Way("polling", (0.125,), 900, 3, 1),
        "long": Way("long polling", (0.002,), 430, 1, 1),
        "events": Way("server-sent events", (0.002,), 57, 1, 1),
        "socket": Way("WebSocket", (0.002,), 53, 1, 1),
    }
    return list((usual | changed).values())


def test_c4_holds_without_a_condition_where_all_of_http_is_slower() -> None:
    assert lesson02.c4(five(events=Way("server-sent events", (0.125,), 57, 1, 1))).outcome is Outcome.HOLDS


def test_c4_is_not_tested_near_its_threshold() -> None:
    assert undecided(lesson02.c4(five(socket=Way("WebSocket", (0.1,), 53, 1, 1))))


def test_c5_holds_compared_with_asking_because_server_sent_events_cost_as_little() -> None:
    found = lesson02.c5(five())

    assert found.outcome is Outcome.HOLDS_WHEN
    assert "server-sent events" in found.because


def test_c5_holds_without_a_condition_where_server_sent_events_cost_more() -> None:
    assert lesson02.c5(five(events=Way("server-sent events", (0.002,), 400, 1, 1))).outcome is Outcome.HOLDS


@pytest.mark.parametrize(
    ("socket", "because"),
    [
        (Way("WebSocket", (0.002,), 53, 1, 20), "it connected more than once"),
        (Way("WebSocket", (0.002,), 500, 1, 1), "asking cost no more"),
    ],
)
def test_c5_does_not_hold_if_it_connects_again_or_costs_more(socket: Way, because: str) -> None:
    found = lesson02.c5(five(socket=socket))

    assert (found.outcome, found.because) == (Outcome.DOES_NOT_HOLD, because)


async def test_c5_holds_on_a_real_server() -> None:
    found = lesson02.c5(await lesson02.five_ways(messages=6, poll_every=0.1))

    assert found.outcome is Outcome.HOLDS_WHEN, found.measured


@pytest.mark.parametrize("length", [126, 200])
async def test_a_text_that_is_too_long_for_seven_bits_ends_in_one_sentence(
    length: int, capsys: pytest.CaptureFixture[str]
) -> None:
    header = bytes([0x81, 0x80 | length])  # as the lesson's first function writes it
    async with await echo.start(compression=False) as server:
        client = await HandClient.connect(server.url)
        short = Frame(Opcode.TEXT, b"short", mask=bytes(4)).serialize()
        assert await lesson02.send_frame(client, short) == Message("short")
        assert await lesson02.send_frame(client, header + bytes(4) + b"a" * length) is None
        await client.aclose()
    said = capsys.readouterr().out
    assert said.startswith("the connection ended: 1002")
    assert said.count("\n") == 1


async def test_a_frame_sent_after_the_end_is_said_to_be_too_late(capsys: pytest.CaptureFixture[str]) -> None:
    async with await echo.start(compression=False) as server:
        client = await HandClient.connect(server.url)
        unmasked = Frame(Opcode.TEXT, b"first", mask=None).serialize()
        assert await lesson02.send_frame(client, unmasked) is None
        assert capsys.readouterr().out.startswith("the connection ended: 1002")
        assert await lesson02.send_frame(client, Frame(Opcode.TEXT, b"second", mask=bytes(4)).serialize()) is None
        await client.aclose()
    assert capsys.readouterr().out.startswith("the connection has ended before")


@pytest.mark.parametrize("order", ["", "ccsx"])
async def test_an_order_of_other_letters_is_answered_with_a_sentence(
    order: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = await lesson02.speak_in_order(order)
    assert "takes the letters c (the client) and s (the server)" in capsys.readouterr().out
    assert lesson02.drawn(said) is None
