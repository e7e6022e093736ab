"""Lesson 02's experiments on real sockets: the measurements compare as the lesson says."""

import pytest

from chatlab.lab.experiments import lesson02
from chatlab.lab.experiments.lesson02 import Flow, Transfer, Way
from chatlab.lab.wire.trace import Trace, WireRecord


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
    assert transfer.overlap == 0


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
