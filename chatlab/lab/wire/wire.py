"""A relay between a client and a server: it records the traffic, and can make a good line bad.

    async with Wire(to=server.url) as wire:
        client = await connect(wire.url)          # instead of server.url
        wire.delay(0.2, jitter=0.05)              # at once, while connections are open
        wire.when(wire.reset, kind="ping")        # or at a chosen event
        await wire.wait_for(kind="close")
    wire.trace.table()

Each TCP connection through the wire is a `_Link` of two `_Lane`s, one for what the client sends and one for what the
server sends. A lane records bytes as they arrive (`Trace` decodes them later) and passes them on at once; it queues
them only while a fault is on. `window` bounds the queue, as TCP bounds the bytes in flight: at the bound the lane stops
reading, and backpressure reaches the sender.

Left out: TLS (only ciphertext would be visible), UDP, and faults below TCP. TCP hides lost and reordered packets from
both ends; they only notice the delay.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self, TypedDict, Unpack
from urllib.parse import urlsplit, urlunsplit

from chatlab.lab.wire.trace import Event, Match, Peer, Sender, Trace, WireRecord
from chatlab.locale import _

DEFAULT_PORTS: Final = {"ws": 80, "http": 80, "redis": 6379, "valkey": 6379, "amqp": 5672}
PEERS: Final[tuple[Peer, Peer]] = ("client", "server")
TICK: Final = 0.02  # seconds: a throttled lane writes the bytes of this period at once


class LineState(TypedDict, total=False):
    """The fields of `Line` that change."""

    delay: float
    jitter: float
    rate: float | None
    stalled: bool


@dataclass
class Line:
    """The faults of the line in one direction, on every connection: in seconds, bytes per second."""

    delay: float = 0.0
    jitter: float = 0.0
    rate: float | None = None
    stalled: bool = False

    @property
    def clear(self) -> bool:
        """Whether bytes pass as soon as they arrive."""
        return not (self.delay or self.jitter or self.rate or self.stalled)


@dataclass
class _Flip:
    """Planned damage: after `skip` more bytes, XOR `count` bytes with `mask`."""

    skip: int
    count: int
    mask: int


@dataclass
class _Parcel:
    """Queued bytes, not to be passed on before `due`; without bytes, the end of the stream, or a reset."""

    due: float
    record: WireRecord | None
    data: memoryview
    reset: bool = False


@dataclass(eq=False)
class _Trigger:
    """A call of `act` at the first event that matches, before its first byte or `after` its last."""

    act: Callable[[], object]
    match: Match
    after: bool


class Wire:
    """A recording TCP relay on loopback, before the server at `to` ("ws://host:port/path", "host:port", ...).

    `url` is `to` with the relay's host and port. `trace` holds the recording. `line["client"]` and `line["server"]` are
    the faults in the direction of each sender. A fault without `sender` affects both directions. `reset`, `cut`, `flip`
    and `half_open` act on the open connections or, if there is none, on the next one.
    """

    def __init__(
        self,
        to: str,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        names: tuple[str, str] = ("client", "server"),
        trace: Trace | None = None,
        window: int = 256 * 1024,
        seed: int = 0,
    ) -> None:
        """Name the two ends `names` in the trace; two wires may write into one `trace`, on one timeline.

        `window` bounds the bytes queued in one lane; `seed` makes the jitter repeatable.
        """
        self.to = to
        self.host = host
        self.port = port
        self.names = names
        self.window = window
        self.line: dict[Peer, Line] = {side: Line() for side in PEERS}
        self.random = random.Random(seed)
        self.trace = Trace() if trace is None else trace
        self._target = _host_and_port(to)
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._triggers: list[_Trigger] = []
        self._checked = 0  # events of the trace compared with the triggers
        self._armed: list[Callable[[_Link], None]] = []
        self._listeners: list[Callable[[WireRecord], None]] = []

    # -- start and stop

    async def start(self) -> Self:
        """Start listening. Raises OSError if the port is in use."""
        self._loop = asyncio.get_running_loop()
        self._server = await self._loop.create_server(lambda: _Link(self).ends["client"], self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def aclose(self) -> None:
        """Stop listening and drop every connection. The trace stays."""
        if self._server is None:
            return
        self._server.close()
        closed = [link.closed for link in self._links]
        for link in list(self._links):
            link.abort()
        if closed:
            await asyncio.wait(closed)
        await self._server.wait_closed()
        self._server = None

    async def __aenter__(self) -> Self:
        return self if self._server else await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def url(self) -> str:
        """The URL for the client; scheme, user, path and query are those of `to`."""
        if "://" not in self.to:
            return f"{self.host}:{self.port}"
        parts = urlsplit(self.to)
        user, at, __ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}{at}{self.host}:{self.port}"))

    @property
    def connections(self) -> list[int]:
        """The numbers of the open connections."""
        return sorted(link.number for link in self._links)

    # -- faults of the line, for every connection, until `heal`

    def delay(self, seconds: float, jitter: float = 0.0, *, sender: Peer | None = None) -> None:
        """Delay every byte by `seconds` ± `jitter`; the order is kept, as TCP promises."""
        self._note(f"delay {seconds * 1000:g} ms ± {jitter * 1000:g} ms", sender)
        self._set(sender, delay=seconds, jitter=jitter)

    def throttle(self, bytes_per_second: float | None, *, sender: Peer | None = None) -> None:
        """Limit the rate of each connection; None or 0 removes the limit."""
        off = "throttle off"  # not shown: an event's kind, which a program may match
        self._note(f"throttle {bytes_per_second:g} B/s" if bytes_per_second else off, sender)
        self._set(sender, rate=bytes_per_second)

    def stall(self, *, sender: Peer | None = None) -> None:
        """Pass nothing on and lose nothing: bytes wait for `resume`, first here, then at their sender."""
        self._note("stall", sender)
        self._set(sender, stalled=True)

    def resume(self, *, sender: Peer | None = None) -> None:
        """End a stall and pass on the bytes that waited."""
        self._note("resume", sender)
        self._set(sender, stalled=False)

    def hold(self, connection: int, *, sender: Peer) -> None:
        """Stall what `sender` sends on one connection, until `let_go`; the other connections go on."""
        self._note(f"hold connection {connection}", sender)  # not shown: an event's kind, which a program may match
        for link in self._links:
            if link.number == connection:
                link.lanes[sender].line = Line(stalled=True)

    def let_go(self, connection: int | None = None, *, sender: Peer | None = None) -> None:
        """Pass on what `hold` has kept back: on one connection or all, from `sender` or both."""
        self._note("let go", sender)  # not shown: an event's kind, which a program may match
        for link in list(self._links):
            if connection in (None, link.number):
                link.each(sender, _Lane.let_go)

    def held(self, connection: int, *, sender: Peer) -> bytes:
        """Return the bytes from `sender` that wait on one connection."""
        lanes = [link.lanes[sender] for link in self._links if link.number == connection]
        return b"".join(bytes(parcel.data) for lane in lanes for parcel in lane.parcels)

    def replace_held(self, connection: int, data: bytes, *, sender: Peer) -> None:
        """Pass on `data` instead of the bytes that wait. The trace keeps the original bytes."""
        self._note(f"replace held bytes of connection {connection}", sender)  # not shown: an event's kind
        for link in self._links:
            if link.number == connection:
                link.lanes[sender].replace(data)

    def slip_in(self, connection: int, data: bytes, *, sender: Peer) -> None:
        """Pass on `data` in the name of `sender`, before the bytes that wait."""
        self._note(f"slip in {len(data)} bytes on connection {connection}", sender)  # not shown: an event's kind
        for link in self._links:
            if link.number == connection and (target := link.lanes[sender].target.transport):
                target.write(data)

    def heal(self) -> None:
        """Remove delay, limit, stall and all planned faults. Connections that were cut stay cut."""
        self._note("heal", None)
        self._triggers.clear()
        self._armed.clear()
        self._set(None, delay=0.0, jitter=0.0, rate=None, stalled=False)
        for link in list(self._links):
            link.each(None, _Lane.heal)

    # -- faults that happen to a connection once

    def reset(self, *, to: Peer | None = None) -> None:
        """Break the connection with RST, as a crashed host or a firewall does, towards both ends or one of them."""
        self._act(lambda link: link.reset(to), "reset", to and _other(to))

    def cut(self, after: int = 0, *, sender: Peer | None = None) -> None:
        """End the connection, both ways and with FIN, once `after` more bytes have passed from `sender`."""
        note = f"cut after {after} bytes"  # not shown: an event's kind, which a program may match
        self._act(lambda link: link.each(sender, lambda lane: lane.cut(after)), note, sender)

    def half_open(self, *, sender: Peer | None = None) -> None:
        """Lose everything sent from now on, including the end of the stream: the peer is gone without notice."""
        self._act(lambda link: link.each(sender, lambda lane: lane.lose_all()), "half-open", sender)

    def flip(self, count: int = 1, *, skip: int = 0, mask: int = 0x01, sender: Peer | None = None) -> None:
        """XOR `count` bytes with `mask`, after `skip` more have passed. The trace keeps the original bytes."""
        note = f"flip {count} byte{'s' * (count != 1)} with {mask:#04x} after {skip}"
        self._act(
            lambda link: link.each(sender, lambda lane: lane.flips.append(_Flip(skip, count, mask))), note, sender
        )

    # -- at a chosen event

    def when(
        self,
        act: Callable[[], object],
        layer: str | Collection[str] | None = None,
        kind: str | Collection[str] | None = None,
        *,
        sender: Sender | None = None,
        connection: int | None = None,
        where: Callable[[Event], bool] | None = None,
        after: bool = False,
    ) -> None:
        """Call `act` once, at the next event that matches: when everything before its first byte has passed.

        With `after`, call it when the event's last byte has passed too. An event is known only when it is complete: of
        an event that came in pieces, all but the last have passed by then. `act` must not raise: nothing catches it.
        """
        self._checked = len(self.trace)
        self._triggers.append(_Trigger(act, Match(layer, kind, sender, connection, where), after))

    async def wait_for(
        self,
        layer: str | Collection[str] | None = None,
        kind: str | Collection[str] | None = None,
        *,
        sender: Sender | None = None,
        connection: int | None = None,
        where: Callable[[Event], bool] | None = None,
        count: int = 1,
        timeout: float | None = 10.0,
    ) -> Event:
        """Return the `count`th event that matches, once it is in the trace; it may be there already."""
        match = Match(layer, kind, sender, connection, where)
        recorded = asyncio.Event()
        seen, found = 0, 0
        with self.listening(lambda record: recorded.set()):
            async with asyncio.timeout(timeout):
                while True:
                    for event in self.trace.events[seen:]:
                        seen, found = seen + 1, found + match(event)
                        if found == count:
                            return event
                    recorded.clear()
                    await recorded.wait()

    def listening(self, listener: Callable[[WireRecord], None]) -> _Listening:
        """Return a context in which `listener` is called with each new record. It must be quick and must not raise."""
        return _Listening(self._listeners, listener)

    # -- internals

    def _set(self, sender: Peer | None, **state: Unpack[LineState]) -> None:
        for side in PEERS if sender is None else (sender,):
            for name, value in state.items():
                setattr(self.line[side], name, value)
        for link in list(self._links):
            link.each(None, _Lane.pump)

    def _act(self, act: Callable[[_Link], None], note: str, sender: Peer | None) -> None:
        self._note(note, sender)
        if not self._links:
            self._armed.append(act)
        for link in list(self._links):
            act(link)

    def _note(self, note: str, sender: Peer | None) -> None:
        if sender:
            note = f"{note}, what the {sender} sends"  # not shown: an event's kind, which a program may match
        self._record(WireRecord(self.trace.now(), 0, "wire", note=note))

    def _record(self, record: WireRecord) -> None:
        self.trace.add(record)
        for listener in self._listeners:
            listener(record)

    def _due(self, record: WireRecord) -> Iterator[tuple[int, Callable[[], object]]]:
        """Yield the acts that this record triggers, each with the position in its bytes at which to act."""
        if not self._triggers:
            return
        events = self.trace.events[self._checked :]
        self._checked += len(events)
        for event in events:
            for trigger in list(self._triggers):
                if event.record is record and trigger.match(event):
                    self._triggers.remove(trigger)
                    position = (event.end if trigger.after else event.offset) - record.offset
                    yield max(0, position), trigger.act


class _Listening:
    """A context that adds a listener on entry and removes it on exit."""

    def __init__(self, listeners: list[Callable[[WireRecord], None]], listener: Callable[[WireRecord], None]) -> None:
        self._listeners = listeners
        self._listener = listener

    def __enter__(self) -> Self:
        self._listeners.append(self._listener)
        return self

    def __exit__(self, *error: object) -> None:
        self._listeners.remove(self._listener)


class _Link:
    """One connection through the wire: two TCP connections, and a lane each way between them."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.number = wire.trace.new_connection()
        self.ends: dict[Peer, _End] = {side: _End(self, side) for side in PEERS}
        self.lanes: dict[Peer, _Lane] = {side: _Lane(self, side) for side in PEERS}
        self.was_cut = False
        self.closed: asyncio.Future[None] = wire._loop.create_future()
        self._connecting: asyncio.Task[None] | None = None  # while connecting

    def opened(self) -> None:
        """Record that the client has connected, apply the faults that waited for it, and connect to the server."""
        self.wire._links.add(self)
        armed, self.wire._armed = self.wire._armed, []
        for act in armed:
            act(self)
        self.note("open", "client")
        self._connecting = self.wire._loop.create_task(self._connect())

    async def _connect(self) -> None:
        host, port = self.wire._target
        try:
            await self.wire._loop.create_connection(lambda: self.ends["server"], host, port)
            if self.lanes["client"].discarding and self.ends["client"].transport is None:
                self.ends["server"].abort()  # the connection was reset before the server was reached
        except OSError:
            self.note("refused", "server")
            self.ends["client"].abort()
        finally:
            self._connecting = None
            self.end_lost()

    def note(self, note: str, sender: Sender) -> None:
        """Record an event of this connection that is not bytes, and perform the acts it triggers."""
        record = WireRecord(self.wire.trace.now(), self.number, sender, note=note, ends=self.wire.names)
        self.wire._record(record)
        for __, act in self.wire._due(record):
            act()

    def each(self, sender: Peer | None, act: Callable[[_Lane], None]) -> None:
        """Call `act` with both lanes, or with that of one sender."""
        for side in PEERS if sender is None else (sender,):
            act(self.lanes[side])

    def cut(self) -> None:
        """Send FIN both ways behind the queued bytes; later bytes are read and lost."""
        self.was_cut = True
        for lane in self.lanes.values():
            if not lane.discarding:
                lane.queue(None, b"")
                lane.discarding = True

    def reset(self, to: Peer | None) -> None:
        """Send RST to one end or both; with one, the other is left half-open."""
        for side in PEERS if to is None else (to,):
            self.ends[side].abort()
        for lane in self.lanes.values():
            lane.lose_all()

    def abort(self) -> None:
        """Drop both connections at once."""
        self.reset(None)
        if self._connecting:
            self._connecting.cancel()

    def fin_passed(self) -> None:
        """Close both ends once both lanes have passed on their sender's FIN: nothing can be sent any more."""
        if all(lane.finished for lane in self.lanes.values()):
            for end in self.ends.values():
                end.close()

    def end_lost(self) -> None:
        """Close the link if no end is left and no connection attempt is pending."""
        if self._connecting is None and all(end.transport is None for end in self.ends.values()):
            self.wire._links.discard(self)
            if not self.closed.done():
                self.closed.set_result(None)


class _Lane:
    """One direction of a link: it records what `sender` sends, may delay or damage it, and passes it on."""

    def __init__(self, link: _Link, sender: Peer) -> None:
        self.link = link
        self.wire = link.wire
        self.sender: Peer = sender
        self.line = link.wire.line[sender]
        self.source = link.ends[sender]
        self.target = link.ends[_other(sender)]
        self.received = 0  # bytes from the sender so far
        self.parcels: deque[_Parcel] = deque()
        self.queued = 0  # bytes in the parcels
        self.blocked = False  # the target's buffer is full
        self.flips: list[_Flip] = []
        self.left: int | None = None  # bytes that still pass before the cut
        self.discarding = False  # nothing from this sender passes any more
        self.sender_ended = False  # the sender has sent FIN or RST
        self.finished = False  # and that has been passed on
        self.free_at = 0.0  # loop time from which a throttled line can carry more
        self.timer: asyncio.TimerHandle | None = None

    def receive(self, data: bytes) -> None:
        """Record bytes from the sender and pass them on, in pieces if acts are triggered between them."""
        record = WireRecord(self.wire.trace.now(), self.link.number, self.sender, data, offset=self.received)
        self.received += len(data)
        self.wire._record(record)
        done = 0
        for position, act in self.wire._due(record):
            self.forward(record, data[done:position])
            done = max(done, position)
            act()
        self.forward(record, data[done:] if done else data)

    def forward(self, record: WireRecord, data: bytes) -> None:
        """Pass bytes on, at once if possible, else through the queue."""
        target = self.target.transport
        if self.discarding or not data or (target and target.is_closing()):
            return
        if self.flips:
            data = self._damaged(data)
        if self.left is not None:
            self._forward_until_cut(record, data, self.left)
        elif target is None or self.parcels or self.blocked or not self.line.clear:
            self.queue(record, data)
        else:
            target.write(data)
            record.pass_on(len(data), record.time)

    def _forward_until_cut(self, record: WireRecord, data: bytes, left: int) -> None:
        self.queue(record, data[:left])
        self.left = max(0, left - len(data))
        if self.left == 0:
            self.link.cut()

    def queue(self, record: WireRecord | None, data: bytes, reset: bool = False) -> None:
        """Append bytes, or the end of the stream, to the queue."""
        late = self.line.delay + self.wire.random.uniform(-self.line.jitter, self.line.jitter)
        due = self.wire._loop.time() + max(0.0, late)
        if self.parcels:
            due = max(due, self.parcels[-1].due)
        if data or record is None:
            self.parcels.append(_Parcel(due, record, memoryview(data), reset))
            self.queued += len(data)
        self.pump()

    def pump(self) -> None:
        """Pass on everything that is due, and set a timer for the next parcel."""
        if self.timer:
            self.timer.cancel()
            self.timer = None
        while self.parcels and not self.line.stalled and not self.blocked and self.target.transport:
            at = max(self.parcels[0].due, self.free_at if self.line.rate else 0.0)
            if at > self.wire._loop.time():
                self.timer = self.wire._loop.call_at(at, self.pump)
                break
            if self.parcels[0].record is None:
                self._finish(self.parcels[0])
            else:
                self._write(self.parcels[0], self.parcels[0].record, self.target.transport)
        self._regulate()

    def replace(self, data: bytes) -> None:
        """Queue `data` instead of the bytes that wait; the end of the stream, if it waits, stays behind them."""
        waiting = [parcel for parcel in self.parcels if parcel.record is not None]
        if waiting and data:
            waiting[0].data = memoryview(data)
        ends = [parcel for parcel in self.parcels if parcel.record is None]
        self.parcels = deque([*waiting[: bool(data)], *ends])
        self.queued = len(data) if waiting else 0

    def let_go(self) -> None:
        """End a hold of this lane alone."""
        self.line = self.wire.line[self.sender]
        self.pump()

    def heal(self) -> None:
        """Cancel planned damage, and pass on queued bytes now."""
        self.line = self.wire.line[self.sender]
        self.flips.clear()
        self.left = None
        for parcel in self.parcels:
            parcel.due = 0.0
        self.pump()

    def end(self, reset: bool = False) -> None:
        """Record that the sender has sent FIN or RST, and pass that on too."""
        self.sender_ended = True
        self.link.note("RST" if reset else "FIN", self.sender)
        if not self.discarding:
            self.queue(None, b"", reset)
        elif self.link.was_cut or self.target.transport is None:
            self.source.close()
        elif self.link.lanes[self.target.side].sender_ended:  # half-open, and now both have ended
            self.source.close()
            self.target.close()

    def cut(self, after: int) -> None:
        """Let `after` more bytes pass, then end the connection both ways."""
        self.left = after
        if after == 0:
            self.link.cut()

    def lose_all(self) -> None:
        """Lose the queued bytes and all later ones."""
        self.discarding = True
        self.parcels.clear()
        self.queued = 0
        self.pump()

    def block(self, blocked: bool) -> None:
        """Note whether the target's buffer is full, and continue when it has room again."""
        self.blocked = blocked
        self.pump()

    def _damaged(self, data: bytes) -> bytes:
        damaged = bytearray(data)
        for flip in self.flips:
            start = min(flip.skip, len(data))
            stop = min(start + flip.count, len(data))
            for position in range(start, stop):
                damaged[position] ^= flip.mask
            flip.skip -= start
            flip.count -= stop - start
        self.flips = [flip for flip in self.flips if flip.count]
        return bytes(damaged)

    def _write(self, parcel: _Parcel, record: WireRecord, target: asyncio.Transport) -> None:
        """Write the first parcel, or the part of it that a throttled line carries in one tick."""
        piece = parcel.data
        if self.line.rate:
            piece = piece[: max(1, int(self.line.rate * TICK))]
            self.free_at = max(self.free_at, self.wire._loop.time()) + len(piece) / self.line.rate
        target.write(piece)
        self.queued -= len(piece)
        record.pass_on(len(piece), self.wire.trace.now())
        parcel.data = parcel.data[len(piece) :]
        if not parcel.data:
            self.parcels.popleft()

    def _finish(self, parcel: _Parcel) -> None:
        self.parcels.clear()
        self.finished = True
        if parcel.reset:
            self.target.abort()
        else:
            self.target.write_eof()
        self.link.fin_passed()

    def _regulate(self) -> None:
        """Read only while there is room: this is how a slow reader slows down its sender."""
        if self.source.transport is None:
            return
        if self.blocked or self.queued >= self.wire.window:
            self.source.transport.pause_reading()
        else:
            self.source.transport.resume_reading()


class _End(asyncio.Protocol):
    """One of the two TCP connections of a link; it passes asyncio's callbacks to the lanes."""

    transport: asyncio.Transport | None = None

    def __init__(self, link: _Link, side: Peer) -> None:
        self.link = link
        self.side: Peer = side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self.side == "client":
            self.link.opened()
        else:
            self.link.lanes["client"].pump()

    def data_received(self, data: bytes) -> None:
        self.link.lanes[self.side].receive(data)

    def eof_received(self) -> bool:
        self.link.lanes[self.side].end()
        return True  # keep this direction open: the other side may still be sending

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        if error is not None:
            self.link.lanes[self.side].end(reset=True)
        self.link.end_lost()

    def pause_writing(self) -> None:
        self.link.lanes[_other(self.side)].block(True)

    def resume_writing(self) -> None:
        self.link.lanes[_other(self.side)].block(False)

    def write_eof(self) -> None:
        """Send FIN after the bytes written so far, and keep reading."""
        if self.transport and not self.transport.is_closing():
            self.transport.write_eof()

    def close(self) -> None:
        """Close after the bytes written so far have been sent."""
        if self.transport:
            self.transport.close()

    def abort(self) -> None:
        """Close with RST: with SO_LINGER on and a time of 0, close() discards and resets (socket(7))."""
        if self.transport is None:
            return
        linger = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.transport.abort()


def _other(side: Peer) -> Peer:
    return "server" if side == "client" else "client"


def _host_and_port(to: str) -> tuple[str, int]:
    parts = urlsplit(to if "://" in to else f"//{to}")
    port = parts.port or DEFAULT_PORTS.get(parts.scheme)
    if not parts.hostname or port is None:
        raise ValueError(_("no host and port in {target!r}").format(target=to))
    return parts.hostname, port


async def replay(trace: Trace, to: str, *, connection: int = 1, timeout: float = 10.0) -> Trace:
    """Send to the server at `to` what the client of a recorded connection sent; return the new trace.

    The client's bytes are sent unchanged, each event after as many answers (events, not bytes) as in the recording.
    Raises TimeoutError if the answers do not come in time.
    """
    async with Wire(to) as wire:
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, wire.host, wire.port)
        answers = 0
        for event in trace.filter(connection=connection, where=_is_primary):
            if event.sender == "server":
                answers += 1
                await wire.wait_for(sender="server", where=_is_primary, count=answers, timeout=timeout)
            elif event.kind == "FIN":
                transport.write_eof()
            else:
                transport.write(event.data)
        transport.close()
    return wire.trace


def _is_primary(event: Event) -> bool:
    """Return whether an event is bytes or an end, not a note, and not carried by another event."""
    return event.kind == "FIN" or event.layer not in ("tcp", "fault", "stomp")
