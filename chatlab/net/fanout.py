"""Fan-out: the same bytes to many readers, and what happens to a reader that does not keep up.

Sending to a hundred readers costs a hundred system calls a message. What is sent within one turn of the event loop
is therefore joined first, and each reader gets one write per turn: with 32 messages in flight that is one call
where there were 32. Nobody is ever awaited, so no reader can delay another. A reader that falls behind is closed,
then aborted, by a `SlowReaderPolicy`.

    sends of this turn          at the end of the turn            one write each
    send(m1, room) ─┐
    send(m2, room) ─┼─►  queue: m1 m2 m3  ─►  b"m1m2m3"  ─┬─►  sink 1: kernel ─► reader
    send(m3, room) ─┘                                     ├─►  sink 2: kernel ─► reader
                                                          └─►  sink 3: buffer ──► behind? ─► close ─► abort

This file knows bytes and sinks, no library: what a frame is, and how one is made, is the caller's affair. It keeps
nothing for readers that are gone and repeats nothing.
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
    """One reader's end of a connection. No method waits; `write` keeps in memory what the kernel does not take.

    While `descriptor` is not None, it may be written to instead (see net/endpoint.py). A sink that has `log_fields` is
    named by them in the log.
    """

    @property
    def descriptor(self) -> int | None:
        """The socket's descriptor, or None while there is something in the way."""

    def write(self, data: bytes) -> None:
        """Send `data`, or keep it until it can be sent. Does nothing once the connection is closing."""

    def buffered(self) -> int:
        """Bytes written but not yet taken by the kernel."""

    def close(self, code: int, reason: str) -> None:
        """Start a polite close (WebSocket: a Close frame, after what is buffered), and leave every group."""

    def abort(self) -> None:
        """Drop the connection at once, with all that is buffered."""


@dataclass(frozen=True)
class SlowReaderPolicy:
    """When a reader counts as slow, and what is then done: close it politely, then abort it.

    A reader is slow when more than `max_buffered` bytes were still waiting for it as the next ones came, or when a
    byte has waited for `max_seconds`. It is sent a close with `code` and `reason`, behind what it has not read, and has
    `drain_seconds` to read both; then it is aborted. A reader that has stopped reading never sees its close: the log
    and the counters carry the reason.

    One turn's data may go over `max_buffered`: nobody is slow for a burst that was sent a moment ago. So memory per
    reader is bounded by `max_buffered` and one turn's data.

    The code is 1008, policy violation (RFC 6455, section 7.4.1): 1013, "try again later", would invite a browser to
    come back at once and be slow again.
    """

    max_buffered: int = 1 << 20
    max_seconds: float = 30.0
    drain_seconds: float = 5.0
    code: int = 1008
    reason: str = "slow reader"


@dataclass
class Counters:
    """What a fan-out has done since it began."""

    messages: int = 0  # given to send()
    deliveries: int = 0  # messages times the readers they were meant for
    writes: int = 0  # what those deliveries came down to, once joined
    bytes: int = 0
    slow: int = 0  # readers closed by the policy
    aborted: int = 0  # of those, the ones that did not drain in time
    failed: int = 0  # readers dropped because a write raised


@dataclass
class Meter:
    """Events per second, over the last `seconds` whole seconds."""

    seconds: int = 3
    slots: dict[int, int] = field(default_factory=dict)  # second -> events in it

    def add(self, count: int) -> None:
        """Count `count` events now."""
        second = int(time.monotonic())
        if second not in self.slots:
            self.slots = {s: n for s, n in self.slots.items() if s >= second - self.seconds}
        self.slots[second] = self.slots.get(second, 0) + count

    def rate(self) -> float:
        """Events per second in the last whole seconds; the second under way is left out."""
        now = int(time.monotonic())
        return sum(self.slots.get(now - ago, 0) for ago in range(1, self.seconds + 1)) / self.seconds


S = TypeVar("S", bound=Sink)


class Group(Generic[S]):
    """Sinks that are sent the same bytes in the same order; each gets what is sent while it is in, no more, no less."""

    def __init__(self, fanout: Fanout) -> None:
        self._fanout = fanout
        self._sinks: dict[S, None] = {}  # a dict, as a set that keeps its order
        self._snapshot: tuple[S, ...] | None = ()  # the same, for the queue to hold; None: to be taken again

    def add(self, sink: S) -> None:
        """Let `sink` in, from the next send on."""
        self._sinks[sink] = None
        self._snapshot = None

    def discard(self, sink: S) -> None:
        """Let `sink` go; it still gets what was sent so far. No matter if it is not in."""
        if sink in self._sinks:
            del self._sinks[sink]
            self._snapshot = None

    def send(self, data: bytes) -> None:
        """Queue `data` for every sink that is in the group now."""
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
    """Messages in a row for the same sinks."""

    sinks: tuple[Sink, ...]
    chunks: list[bytes]


@dataclass
class Behind:
    """A sink with something waiting: how much it was given, and since when the oldest of it waits."""

    given: int  # bytes, counted from when it fell behind
    mark: int  # what had been given at the time `since`: until the kernel has taken that much, `since` stands
    since: float  # loop time

    def update(self, given: int, waiting: int, now: float) -> None:
        """Take note that `given` more bytes were written, and that `waiting` bytes now wait."""
        self.given += given
        if self.given - waiting >= self.mark:
            self.mark, self.since = self.given, now


class Fanout:
    """The queue of one loop turn, the writes at its end, and the watch over slow readers.

    Use it from one event loop only. All that goes through one Fanout reaches a sink in the order it was sent,
    whichever groups it was sent to.
    """

    def __init__(self, policy: SlowReaderPolicy | None = None) -> None:
        self.policy = policy or SlowReaderPolicy()
        self.counters = Counters()
        self.meter = Meter()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queue: list[Run] = []
        self._behind: dict[Sink, Behind] = {}
        self._draining: dict[Sink, asyncio.TimerHandle] = {}  # closed as slow -> its deadline
        self._watch: asyncio.TimerHandle | None = None

    def group(self) -> Group[Any]:
        """A new, empty group of this fan-out."""
        return Group(self)

    def send(self, data: bytes, sinks: tuple[Sink, ...]) -> None:
        """Queue `data` for `sinks`, which are written to at the end of this turn of the event loop."""
        if not self._queue:
            if self._loop is None:
                self._loop = asyncio.get_running_loop()  # once: Python 3.11 makes a system call of it
            self._loop.call_soon(self.flush)
        elif self._queue[-1].sinks is sinks:
            self._queue[-1].chunks.append(data)
            return
        self._queue.append(Run(sinks, [data]))

    def flush(self) -> None:
        """Write now what is queued: one write for each sink that something was sent to."""
        queue, self._queue = self._queue, []
        if len(queue) == 1:  # the common case: joined once for all
            self._write(b"".join(queue[0].chunks), queue[0].sinks)
        elif queue:
            for data, sinks in _shared(queue):
                self._write(data, sinks)
        for run in queue:  # afterwards: nobody waits for the counting
            self.counters.messages += len(run.chunks)
            self.counters.deliveries += len(run.chunks) * len(run.sinks)
            self.meter.add(len(run.chunks))

    def buffered(self) -> int:
        """Bytes waiting for readers that are behind, all together."""
        return sum(sink.buffered() for sink in {**self._behind, **self._draining})

    def close(self) -> None:
        """Send what is queued, and stop watching."""
        self.flush()
        for handle in (self._watch, *self._draining.values()):
            if handle is not None:
                handle.cancel()
        self._watch = None
        self._behind.clear()
        self._draining.clear()

    def _write(self, data: bytes, sinks: tuple[Sink, ...]) -> None:
        behind, length, write = self._behind, len(data), os.write
        slow: list[Sink] = []
        failed: list[tuple[Sink, Exception]] = []
        for sink in sinks:  # the hot loop: a tenth of a microsecond here is felt
            descriptor = sink.descriptor
            if descriptor is None:
                taken = 0
            else:
                try:
                    taken = write(descriptor, data)
                except OSError:  # full, or broken: the transport knows what to do about either
                    taken = 0
                if taken == length:
                    continue  # nothing waits, so it is not behind; if it was, `_look` sees that it no longer is
            try:
                sink.write(data[taken:])
                waiting = sink.buffered()
            except Exception as exc:  # one reader's trouble, whatever it is, is not the others'
                failed.append((sink, exc))
                continue
            if waiting:
                self._note_behind(sink, len(data), waiting)
                # Had it nothing waiting before this write, at most this write waits now: that is not being slow.
                if waiting - len(data) > self.policy.max_buffered:
                    slow.append(sink)
            elif behind:
                behind.pop(sink, None)
        self.counters.writes += len(sinks)
        self.counters.bytes += len(sinks) * len(data)
        # Only now: closing a sink may send something in turn.
        for sink, error in failed:
            self.counters.failed += 1
            logger.warning("%s dropped: write failed: %r", sink, error, extra=_fields(sink))
            sink.abort()
        for sink in slow:
            self._close_slow(sink, f"{sink.buffered()} bytes unread")

    def _note_behind(self, sink: Sink, given: int, waiting: int) -> None:
        loop = asyncio.get_running_loop()
        if sink in self._behind:
            self._behind[sink].update(given, waiting, loop.time())
        else:
            self._behind[sink] = Behind(waiting, waiting, loop.time())
        if self._watch is None:
            self._watch = loop.call_later(self._watch_interval(), self._look)

    def _watch_interval(self) -> float:
        return min(1.0, self.policy.max_seconds / 4)

    def _look(self) -> None:
        """Check everybody who is behind; a reader that stalls in a quiet room would not be noticed otherwise."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for sink, behind in list(self._behind.items()):
            waiting = sink.buffered()
            behind.update(0, waiting, now)
            if not waiting:
                self._behind.pop(sink, None)
            elif now - behind.since > self.policy.max_seconds:
                self._close_slow(sink, f"{waiting} bytes unread for {now - behind.since:.1f} s")
        self._watch = loop.call_later(self._watch_interval(), self._look) if self._behind else None

    def _close_slow(self, sink: Sink, why: str) -> None:
        self._behind.pop(sink, None)
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


def _shared(queue: list[Run]) -> Iterator[tuple[bytes, tuple[Sink, ...]]]:
    """What is to be written to whom: each sink once, what it is sent in its order, and joined once for all its like."""
    wanted: dict[Sink, list[int]] = {}  # which runs are for it
    for number, run in enumerate(queue):
        for sink in run.sinks:
            wanted.setdefault(sink, []).append(number)
    alike: dict[tuple[int, ...], list[Sink]] = {}
    for sink, numbers in wanted.items():
        alike.setdefault(tuple(numbers), []).append(sink)
    chunks = [b"".join(run.chunks) for run in queue]
    for runs, sinks in alike.items():
        yield b"".join([chunks[number] for number in runs]), tuple(sinks)
