"""The fan-out alone, with sinks in memory; the tests of the room use it with sockets."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatlab.net.fanout import Fanout, Group, Lagging, Meter, SlowReaderPolicy


class Reader:
    """A sink in memory. With `stalled`, the "kernel" accepts nothing, and writes are buffered."""

    descriptor: int | None = None

    def __init__(self, name: str = "reader", *, stalled: bool = False) -> None:
        self.name = name
        self.stalled = stalled
        self.writes: list[bytes] = []
        self.waiting = 0
        self.closed: tuple[int, str] | None = None
        self.closes = 0
        self.aborted = asyncio.Event()
        self.was_closed = asyncio.Event()
        self.groups: list[Group[Reader]] = []

    def __str__(self) -> str:
        return self.name

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        if self.stalled:
            self.waiting += len(data)

    def buffered(self) -> int:
        return self.waiting

    def close(self, code: int, reason: str) -> None:
        self.closed = code, reason
        self.closes += 1
        self.was_closed.set()
        for group in self.groups:
            group.discard(self)

    def abort(self) -> None:
        self.waiting = 0
        self.aborted.set()
        for group in self.groups:
            group.discard(self)


class Broken(Reader):
    """A sink that raises on every write."""

    def write(self, data: bytes) -> None:
        raise RuntimeError("this transport is broken")


def grouped(fanout: Fanout, *readers: Reader) -> Group[Reader]:
    group: Group[Reader] = fanout.group()
    for reader in readers:
        reader.groups.append(group)
        group.add(reader)
    return group


async def turn() -> None:
    """Let the loop turn once."""
    await asyncio.sleep(0)


async def test_messages_sent_in_one_loop_turn_are_written_once_per_sink() -> None:
    fanout = Fanout()
    a, b = Reader(), Reader()
    group = grouped(fanout, a, b)
    for data in (b"one ", b"two ", b"three"):
        group.send(data)
    assert a.writes == []
    await turn()
    assert a.writes == b.writes == [b"one two three"]
    assert (fanout.counters.messages, fanout.counters.deliveries, fanout.counters.writes) == (3, 6, 2)
    assert fanout.counters.bytes == 2 * len(b"one two three")


async def test_messages_sent_in_different_loop_turns_are_written_separately() -> None:
    fanout = Fanout()
    a = Reader()
    group = grouped(fanout, a)
    group.send(b"one")
    await turn()
    group.send(b"two")
    await turn()
    assert a.writes == [b"one", b"two"]


async def test_flush_writes_immediately() -> None:
    fanout = Fanout()
    a = Reader()
    group = grouped(fanout, a)
    group.send(b"now")
    fanout.flush()
    assert a.writes == [b"now"]
    await turn()
    assert a.writes == [b"now"]


async def test_a_reader_in_several_groups_gets_all_messages_in_order_in_one_write() -> None:
    fanout = Fanout()
    a, b = Reader(), Reader()
    both, only_a = grouped(fanout, a, b), grouped(fanout, a)
    both.send(b"1 ")
    only_a.send(b"2 ")
    both.send(b"3 ")
    fanout.send(b"4", (a,))
    await turn()
    assert a.writes == [b"1 2 3 4"]
    assert b.writes == [b"1 3 "]


async def test_a_reader_gets_exactly_the_messages_sent_while_it_is_a_member() -> None:
    fanout = Fanout()
    remaining, leaving, joining = Reader(), Reader(), Reader()
    group = grouped(fanout, remaining, leaving)
    group.send(b"before ")
    group.discard(leaving)
    group.add(joining)
    group.send(b"after")
    await turn()
    assert b"".join(remaining.writes) == b"before after"
    assert b"".join(leaving.writes) == b"before "
    assert b"".join(joining.writes) == b"after"


async def test_discarding_a_sink_that_is_not_a_member_does_nothing() -> None:
    fanout = Fanout()
    group = grouped(fanout, inside := Reader())
    group.discard(Reader())
    assert list(group) == [inside]
    assert len(group) == 1
    assert inside in group


async def test_a_reader_whose_write_raises_is_dropped_and_the_others_are_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fanout = Fanout()
    a, broken, b = Reader("a"), Broken("broken"), Reader("b")
    group = grouped(fanout, a, broken, b)
    group.send(b"hello")
    await turn()
    assert a.writes == b.writes == [b"hello"]
    assert broken.aborted.is_set()
    assert broken not in group
    assert fanout.counters.failed == 1
    assert "broken dropped: write failed: RuntimeError('this transport is broken')" in caplog.text


async def test_a_reader_over_the_buffer_limit_is_closed_and_then_aborted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fanout = Fanout(SlowReaderPolicy(max_buffered=10, drain_seconds=0.02, code=1013, reason="too slow"))
    quick, slow = Reader("quick"), Reader("slow", stalled=True)
    group = grouped(fanout, quick, slow)
    for _ in range(5):
        group.send(b"12345678")
        await turn()
    assert slow.closed == (1013, "too slow: 24 bytes unread")
    assert slow.closes == 1
    assert slow.writes == [b"12345678"] * 3  # the last write was the one that found more than 10 bytes buffered
    assert quick.writes == [b"12345678"] * 5
    async with asyncio.timeout(5):
        await slow.aborted.wait()
    assert (fanout.counters.slow, fanout.counters.aborted) == (1, 1)
    assert "slow closed: too slow: 24 bytes unread" in caplog.text
    assert "slow aborted: too slow: 24 bytes not drained in 0.02 s" in caplog.text


async def test_a_reader_that_drains_in_time_is_not_aborted() -> None:
    fanout = Fanout(SlowReaderPolicy(max_buffered=1, drain_seconds=0.02))
    slow = Reader(stalled=True)
    group = grouped(fanout, slow)
    for _ in range(3):
        group.send(b"12345678")
        await turn()
    assert slow.closed is not None
    slow.waiting = 0
    await asyncio.sleep(0.05)  # past the deadline
    assert not slow.aborted.is_set()
    assert (fanout.counters.slow, fanout.counters.aborted) == (1, 0)


async def test_a_single_burst_over_the_buffer_limit_does_not_make_a_reader_slow() -> None:
    fanout = Fanout(SlowReaderPolicy(max_buffered=10))
    slow = Reader(stalled=True)
    group = grouped(fanout, slow)
    group.send(b"x" * 1000)
    await turn()
    assert slow.closed is None
    assert fanout.buffered() == 1000
    fanout.close()


async def test_a_stalled_reader_is_noticed_without_further_messages() -> None:
    fanout = Fanout(SlowReaderPolicy(max_buffered=1000, max_seconds=0.04))
    slow = Reader(stalled=True)
    grouped(fanout, slow).send(b"12345678")
    async with asyncio.timeout(5):
        await slow.was_closed.wait()
    assert slow.closed is not None
    assert slow.closed[1].startswith("slow reader: 8 bytes unread for 0.")
    fanout.close()


async def test_a_reader_that_catches_up_is_not_slow() -> None:
    fanout = Fanout(SlowReaderPolicy(max_seconds=0.04))
    slow = Reader(stalled=True)
    group = grouped(fanout, slow)
    group.send(b"12345678")
    await turn()
    slow.waiting = 0
    slow.stalled = False
    group.send(b"12345678")
    await turn()
    assert fanout.buffered() == 0
    await asyncio.sleep(0.06)  # past the limit
    assert slow.closed is None


def test_lag_is_measured_from_the_oldest_unread_byte() -> None:
    lagging = Lagging(written=100, mark=100, since=0.0)
    lagging.update(written=50, buffered=100, now=1.0)  # 50 of the first 100 accepted
    assert lagging.since == 0.0
    lagging.update(written=50, buffered=100, now=2.0)  # 100 accepted: all that was buffered at 0.0
    assert lagging.since == 2.0
    lagging.update(written=0, buffered=1, now=3.0)  # 199 accepted of the 200 written by 2.0
    assert lagging.since == 2.0
    lagging.update(written=0, buffered=0, now=4.0)
    assert lagging.since == 4.0


async def test_closing_the_fanout_sends_queued_messages_and_leaves_no_timer() -> None:
    fanout = Fanout(SlowReaderPolicy(max_buffered=1, max_seconds=0.01, drain_seconds=0.01))
    slow, stalled = Reader(stalled=True), Reader(stalled=True)
    grouped(fanout, slow).send(b"12345678")
    await turn()
    fanout.send(b"12345678", (slow,))
    fanout.send(b"last", (stalled,))
    fanout.close()
    assert stalled.writes == [b"last"]
    await asyncio.sleep(0.03)  # past both deadlines
    assert not slow.aborted.is_set()
    assert stalled.closed is None


async def test_nothing_is_logged_while_all_readers_keep_up(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    fanout = Fanout()
    group = grouped(fanout, Reader(), Reader())
    for _ in range(100):
        group.send(b"x")
    await turn()
    assert "chatlab" not in caplog.text


def test_a_meter_reports_the_rate_over_the_last_whole_seconds() -> None:
    now = int(time.monotonic())
    meter = Meter(seconds=3, slots={now - 9: 1000, now - 2: 30, now - 1: 60, now + 60: 5})
    assert meter.rate() in {30.0, 20.0}  # 20 if a second has just ended
    meter.add(1)
    assert now - 9 not in meter.slots


Step = tuple[str, int, int]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["add", "discard"]), st.integers(0, 2), st.integers(0, 3)),
            st.tuples(st.just("send"), st.integers(0, 2), st.integers(0, 255)),
            st.tuples(st.just("send one"), st.integers(0, 3), st.integers(0, 255)),
            st.tuples(st.just("turn"), st.just(0), st.just(0)),
        ),
        max_size=40,
    )
)
def test_under_random_joins_leaves_and_sends_each_sink_gets_its_messages_in_order(steps: list[Step]) -> None:
    asyncio.run(compare_with_a_model(steps))


async def compare_with_a_model(steps: list[Step]) -> None:
    """Compare the fan-out with a model that appends bytes to each member immediately."""
    fanout = Fanout()
    readers = [Reader() for _ in range(4)]
    groups: list[Group[Reader]] = [fanout.group() for _ in range(3)]
    inside: list[set[int]] = [set() for _ in groups]
    expected = [b"" for _ in readers]
    for action, index, value in steps:
        match action:
            case "add":
                groups[index].add(readers[value])
                inside[index].add(value)
            case "discard":
                groups[index].discard(readers[value])
                inside[index].discard(value)
            case "send":
                groups[index].send(bytes([value]))
                for r in inside[index]:
                    expected[r] += bytes([value])
            case "send one":
                fanout.send(bytes([value]), (readers[index],))
                expected[index] += bytes([value])
            case "turn":
                await turn()
    await turn()
    assert [b"".join(reader.writes) for reader in readers] == expected
