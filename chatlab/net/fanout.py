"""Fan-out: send the same bytes to many readers, and close readers that do not keep up.

Sending to a hundred readers costs a hundred system calls per message. So the messages sent within one turn of the event
loop are joined, and each reader gets one write per turn: with 32 messages in flight, one call instead of 32. The
fan-out never awaits a reader, so no reader can delay another. A reader that falls behind is closed, then aborted, as
its `SlowReaderPolicy` says.

    sends of this turn          at the end of the turn            one write each
    send(m1, room) ─┐
    send(m2, room) ─┼─►  queue: m1 m2 m3  ─►  b"m1m2m3"  ─┬─►  sink 1: kernel ─► reader
    send(m3, room) ─┘                                     ├─►  sink 2: kernel ─► reader
                                                          └─►  sink 3: buffer ──► behind? ─► close ─► abort

This file handles bytes and sinks and depends on no library; callers build the frames. Left out: anything for readers
that have disconnected, and any retransmission.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

logger = logging.getLogger("chatlab.net.fanout")


class Sink(Protocol):
    """The server's end of one reader's connection. No method blocks; `write` buffers what the kernel does not accept.

    While `descriptor` is not None, it may be written to instead (see net/endpoint.py). If a sink has `log_fields`, they
    identify it in the log.
    """

    @property
    def descriptor(self) -> int | None:
        """The socket's descriptor, or None while it must not be written to."""

    def write(self, data: bytes) -> None:
        """Send `data`, or buffer it until it can be sent. Do nothing once the connection is closing."""

    def buffered(self) -> int:
        """Return the number of bytes written but not yet accepted by the kernel."""

    def close(self, code: int, reason: str) -> None:
        """Start an orderly close (WebSocket: a Close frame after the buffered data), and leave every group."""

    def abort(self) -> None:
        """Drop the connection and everything buffered immediately."""


@dataclass(frozen=True)
class SlowReaderPolicy:
    """When a reader is slow, and how it is then closed: first with a Close, then by aborting the connection.

    A reader is slow when more than `max_buffered` bytes are still buffered for it as the next ones are sent, or when a
    byte has been buffered for `max_seconds`. It is sent a Close with `code` and `reason` after its unread data, and has
    `drain_seconds` to read both; then it is aborted. A reader that has stopped reading never sees its Close; the log
    and the counters have the reason.

    One turn's data may exceed `max_buffered`, because no reader is slow just for a burst sent a moment ago. So memory
    per reader is bounded by `max_buffered` plus one turn's data.

    The code is 1008, policy violation (RFC 6455, section 7.4.1). 1013, "try again later", would invite a browser to
    reconnect at once and be slow again.
    """

    max_buffered: int = 1 << 20
    max_seconds: float = 30.0
    drain_seconds: float = 5.0
    code: int = 1008
    reason: str = "slow reader"


@dataclass
class Counters:
    """A fan-out's totals since it started."""

    messages: int = 0  # passed to send()
    deliveries: int = 0  # messages times their readers
    writes: int = 0  # the writes that made those deliveries, after joining
    bytes: int = 0
    slow: int = 0  # readers closed by the policy
    aborted: int = 0  # of those, the ones that did not drain in time
    failed: int = 0  # readers dropped because a write raised


@dataclass
class Meter:
    """A rate meter: events per second over the last `seconds` whole seconds."""

    seconds: int = 3
    slots: dict[int, int] = field(default_factory=dict)  # second -> events in it

    def add(self, count: int) -> None:
        """Count `count` events now."""
        second = int(time.monotonic())
        if second not in self.slots:
            self.slots = {s: n for s, n in self.slots.items() if s >= second - self.seconds}
        self.slots[second] = self.slots.get(second, 0) + count

    def rate(self) -> float:
        """Return the events per second over the last whole seconds, without the current one."""
        now = int(time.monotonic())
        return sum(self.slots.get(now - ago, 0) for ago in range(1, self.seconds + 1)) / self.seconds


S = TypeVar("S", bound=Sink)


class Group(Generic[S]):
    """Sinks that receive the same bytes in the same order: each gets exactly what is sent while it is a member."""

    def __init__(self, fanout: Fanout) -> None:
        self._fanout = fanout
        self._sinks: dict[S, None] = {}  # a dict, used as an ordered set
        self._snapshot: tuple[S, ...] | None = ()  # the same as a tuple for the queue; None if it is out of date

    def add(self, sink: S) -> None:
        """Add `sink`, starting with the next send."""
        self._sinks[sink] = None
        self._snapshot = None

    def discard(self, sink: S) -> None:
        """Remove `sink` if it is a member; it still gets what was sent before."""
        if sink in self._sinks:
            del self._sinks[sink]
            self._snapshot = None

    def send(self, data: bytes) -> None:
        """Queue `data` for every current member."""
        if self._snapshot is None:
            self._snapshot = tuple(self._sinks)
        self._fanout.send(data, self._snapshot)

    def __len__(self) -> int:
        return len(self._sinks)

    def __iter__(self) -> Iterator[S]:
        return iter(self._sinks)

    def __contains__(self, sink: object) -> bool:
        return sink in self._sinks


@dataclass(slots=True)
class Run:
    """Consecutive messages for the same sinks."""

    sinks: tuple[Sink, ...]
    chunks: list[bytes]


@dataclass
class Lagging:
    """A sink with data buffered: how much was written to it, and since when the oldest of it has been waiting."""

    written: int  # bytes, counted from when it fell behind
    mark: int  # the value of `written` at the time `since`, which is valid until the kernel has accepted that much
    since: float  # loop time

    def update(self, written: int, buffered: int, now: float) -> None:
        """Record that `written` more bytes were written, and that `buffered` bytes are now waiting."""
        self.written += written
        if self.written - buffered >= self.mark:
            self.mark, self.since = self.written, now


class Fanout:
    """The queue of one loop turn, the writes at its end, and the detection of slow readers.

    Use it from one event loop only. Everything sent through one Fanout reaches a sink in the order it was sent,
    whatever groups it was sent to.
    """

    def __init__(self, policy: SlowReaderPolicy | None = None) -> None:
        self.policy = policy or SlowReaderPolicy()
        self.counters = Counters()
        self.meter = Meter()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queue: list[Run] = []
        self._lagging: dict[Sink, Lagging] = {}
        self._draining: dict[Sink, asyncio.TimerHandle] = {}  # closed as slow -> its deadline
        self._watch: asyncio.TimerHandle | None = None

    def group(self) -> Group[Any]:
        """Return a new, empty group of this fan-out."""
        return Group(self)

    def send(self, data: bytes, sinks: tuple[Sink, ...]) -> None:
        """Queue `data` for `sinks`; it is written at the end of this turn of the event loop."""
        if not self._queue:
            if self._loop is None:
                self._loop = asyncio.get_running_loop()  # only once: in Python 3.11 it makes a system call
            self._loop.call_soon(self.flush)
        elif self._queue[-1].sinks is sinks:
            self._queue[-1].chunks.append(data)
            return
        self._queue.append(Run(sinks, [data]))

    def flush(self) -> None:
        """Write the queued messages now, with one write for each sink."""
        queue, self._queue = self._queue, []
        if len(queue) == 1:  # the common case: join once for all sinks
            self._write(b"".join(queue[0].chunks), queue[0].sinks)
        elif queue:
            for data, sinks in _grouped(queue):
                self._write(data, sinks)
        for run in queue:  # counted after the writes, so that counting delays no reader
            self.counters.messages += len(run.chunks)
            self.counters.deliveries += len(run.chunks) * len(run.sinks)
            self.meter.add(len(run.chunks))

    def buffered(self) -> int:
        """Return the bytes buffered for all lagging readers together."""
        return sum(sink.buffered() for sink in {**self._lagging, **self._draining})

    def close(self) -> None:
        """Send what is queued, and stop checking for slow readers."""
        self.flush()
        for handle in (self._watch, *self._draining.values()):
            if handle is not None:
                handle.cancel()
        self._watch = None
        self._lagging.clear()
        self._draining.clear()

    def _write(self, data: bytes, sinks: tuple[Sink, ...]) -> None:
        lagging, length, write = self._lagging, len(data), os.write
        slow: list[Sink] = []
        failed: list[tuple[Sink, Exception]] = []
        for sink in sinks:  # the hot loop: a tenth of a microsecond here is measurable
            descriptor = sink.descriptor
            if descriptor is None:
                taken = 0
            else:
                try:
                    taken = write(descriptor, data)
                except OSError:  # buffer full or connection broken: the transport handles both
                    taken = 0
                if taken == length:
                    continue  # not lagging; if it was before, `_check` notices that it no longer is
            try:
                sink.write(data[taken:])
                waiting = sink.buffered()
            except Exception as exc:  # an error of one reader must not affect the others
                failed.append((sink, exc))
                continue
            if waiting:
                self._record_lag(sink, len(data), waiting)
                # A reader whose buffer was empty before this write is not slow, however large the write was.
                if waiting - len(data) > self.policy.max_buffered:
                    slow.append(sink)
            elif lagging:
                lagging.pop(sink, None)
        self.counters.writes += len(sinks)
        self.counters.bytes += len(sinks) * len(data)
        # Only now, because closing a sink may itself send something.
        for sink, error in failed:
            self.counters.failed += 1
            logger.warning("%s dropped: write failed: %r", sink, error, extra=_fields(sink))
            sink.abort()
        for sink in slow:
            self._close_slow(sink, f"{sink.buffered()} bytes unread")

    def _record_lag(self, sink: Sink, written: int, waiting: int) -> None:
        loop = asyncio.get_running_loop()
        if sink in self._lagging:
            self._lagging[sink].update(written, waiting, loop.time())
        else:
            self._lagging[sink] = Lagging(waiting, waiting, loop.time())
        if self._watch is None:
            self._watch = loop.call_later(self._watch_interval(), self._check)

    def _watch_interval(self) -> float:
        return min(1.0, self.policy.max_seconds / 4)

    def _check(self) -> None:
        """Check every lagging reader. Without this, a reader that stalls in a quiet room would not be noticed."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for sink, lagging in list(self._lagging.items()):
            waiting = sink.buffered()
            lagging.update(0, waiting, now)
            if not waiting:
                self._lagging.pop(sink, None)
            elif now - lagging.since > self.policy.max_seconds:
                self._close_slow(sink, f"{waiting} bytes unread for {now - lagging.since:.1f} s")
        self._watch = loop.call_later(self._watch_interval(), self._check) if self._lagging else None

    def _close_slow(self, sink: Sink, why: str) -> None:
        self._lagging.pop(sink, None)
        if sink in self._draining:
            return
        policy = self.policy
        self.counters.slow += 1
        logger.warning("%s closed: %s: %s", sink, policy.reason, why, extra=_fields(sink))
        loop = asyncio.get_running_loop()
        self._draining[sink] = loop.call_later(policy.drain_seconds, self._end_drain, sink)
        sink.close(policy.code, f"{policy.reason}: {why}")

    def _end_drain(self, sink: Sink) -> None:
        del self._draining[sink]
        if left := sink.buffered():
            self.counters.aborted += 1
            why = f"{left} bytes not drained in {self.policy.drain_seconds:g} s"
            logger.warning("%s aborted: %s: %s", sink, self.policy.reason, why, extra=_fields(sink))
            sink.abort()


def _fields(sink: Sink) -> Mapping[str, str]:
    fields: Mapping[str, str] = getattr(sink, "log_fields", {})
    return fields


def _grouped(queue: list[Run]) -> Iterator[tuple[bytes, tuple[Sink, ...]]]:
    """Yield (data, sinks) for the writes to make: each sink once, its data in order, sinks with equal data together."""
    wanted: dict[Sink, list[int]] = {}  # the indexes of the runs for each sink
    for number, run in enumerate(queue):
        for sink in run.sinks:
            wanted.setdefault(sink, []).append(number)
    alike: dict[tuple[int, ...], list[Sink]] = {}
    for sink, numbers in wanted.items():
        alike.setdefault(tuple(numbers), []).append(sink)
    chunks = [b"".join(run.chunks) for run in queue]
    for runs, sinks in alike.items():
        yield b"".join([chunks[number] for number in runs]), tuple(sinks)
