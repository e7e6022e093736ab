"""A relay to stand between any client and any server: it shows what passes, and it can make a bad line of a good one.

    async with Wire(to=server.url) as wire:
        client = await connect(wire.url)          # instead of server.url
        wire.delay(0.2, jitter=0.05)              # at once, while everything runs
        wire.when(wire.reset, kind="ping")        # or at a chosen event
        await wire.wait_for(kind="close")
    wire.trace.table()

Each TCP connection through the wire is a `_Link` of two `_Lane`s, one for what the client sends and one for what the
server sends. A lane records bytes as they arrive (`Trace` decodes them, later and elsewhere) and passes them on at
once; only when a fault is on does it queue them. What a lane may hold is bounded by `window`, as TCP bounds what may be
in flight: beyond it the lane stops reading, and the sender feels it.

What it leaves out: TLS (it would see ciphertext only), UDP, and faults below TCP. A lost or reordered packet is hidden
from both ends by TCP's own repair; all they ever see of it is delay.
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
from typing import Any, Final, Self
from urllib.parse import urlsplit, urlunsplit

from chatlab.lab.wire.trace import Event, Match, Peer, Sender, Trace, WireRecord

DEFAULT_PORTS: Final = {"ws": 80, "http": 80, "redis": 6379, "valkey": 6379, "amqp": 5672}
PEERS: Final[tuple[Peer, Peer]] = ("client", "server")
TICK: Final = 0.02  # seconds: a throttled lane writes this much time's worth of bytes at once


@dataclass
class Line:
    """The state of the line for what one side sends, on every connection: seconds, bytes per second."""

    delay: float = 0.0
    jitter: float = 0.0
    rate: float | None = None
    stalled: bool = False

    @property
    def clear(self) -> bool:
        """Whether bytes may pass the moment they come."""
        return not (self.delay or self.jitter or self.rate or self.stalled)


@dataclass
class _Flip:
    """Damage to do: after `skip` more bytes, exclusive-or `count` bytes with `mask`."""

    skip: int
    count: int
    mask: int


@dataclass
class _Parcel:
    """Bytes on their way, not to arrive before `due`; without bytes, the end of the stream (or its reset)."""

    due: float
    record: WireRecord | None
    data: memoryview
    reset: bool = False


@dataclass(eq=False)
class _Trigger:
    act: Callable[[], object]
    match: Match
    after: bool


class Wire:
    """A recording TCP relay on loopback, before the server at `to` ("ws://host:port/path", "host:port", ...).

    `url` is `to` with the relay's own host and port; `trace` holds what it saw; `line["client"]` and `line["server"]`
    say how the line stands for what each side sends. A fault with no `sender` works on both directions. `reset`,
    `cut`, `flip` and `half_open` act on the connections that are open, or, if none is, on the next to be opened.
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
        """`names` are what the trace calls the two ends; two wires may write into one `trace`, on one timeline.

        `window` bounds the bytes held in one lane; `seed` makes the jitter repeatable.
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
        self._checked = 0  # events of the trace that the triggers have seen
        self._armed: list[Callable[[_Link], None]] = []
        self._listeners: list[Callable[[WireRecord], None]] = []

    # -- life

    async def start(self) -> Self:
        """Listen. Raises OSError when the port is taken."""
        self._loop = asyncio.get_running_loop()
        self._server = await self._loop.create_server(lambda: _Link(self).ends["client"], self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def aclose(self) -> None:
        """Stop listening and drop every connection. The trace stays."""
        if self._server is None:
            return
        self._server.close()
        gone = [link.gone for link in self._links]
        for link in list(self._links):
            link.abort()
        if gone:
            await asyncio.wait(gone)
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
        """Where to point the client: scheme, user, path and query are those of `to`."""
        if "://" not in self.to:
            return f"{self.host}:{self.port}"
        parts = urlsplit(self.to)
        user, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}{at}{self.host}:{self.port}"))

    @property
    def connections(self) -> list[int]:
        """The numbers of the connections that are open."""
        return sorted(link.number for link in self._links)

    # -- the state of the line: from now on, for every connection, until `heal`

    def delay(self, seconds: float, jitter: float = 0.0, *, sender: Peer | None = None) -> None:
        """Hold every byte back `seconds`, give or take up to `jitter`; the order stays, as TCP promises."""
        self._note(f"delay {seconds * 1000:g} ms ± {jitter * 1000:g} ms", sender)
        self._set(sender, delay=seconds, jitter=jitter)

    def throttle(self, bytes_per_second: float | None, *, sender: Peer | None = None) -> None:
        """Let no more than this pass, on each connection; None or 0 lifts the limit."""
        self._note(f"throttle {bytes_per_second:g} B/s" if bytes_per_second else "throttle off", sender)
        self._set(sender, rate=bytes_per_second)

    def stall(self, *, sender: Peer | None = None) -> None:
        """Let nothing pass, and lose nothing: what comes waits for `resume`, first here, then at its sender."""
        self._note("stall", sender)
        self._set(sender, stalled=True)

    def resume(self, *, sender: Peer | None = None) -> None:
        """End a stall: what waited goes on its way."""
        self._note("resume", sender)
        self._set(sender, stalled=False)

    def heal(self) -> None:
        """A good line again: no delay, limit or stall, nothing waiting for an event. What was cut stays cut."""
        self._note("heal", None)
        self._triggers.clear()
        self._armed.clear()
        self._set(None, delay=0.0, jitter=0.0, rate=None, stalled=False)
        for link in list(self._links):
            link.each(None, _Lane.heal)

    # -- what happens to a connection once

    def reset(self, *, to: Peer | None = None) -> None:
        """Break the connection with RST, as a crashed host or a firewall does; towards both ends, or one of them."""
        self._act(lambda link: link.reset(to), "reset", to and _other(to))

    def cut(self, after: int = 0, *, sender: Peer | None = None) -> None:
        """End the connection, both ways and with FIN, once `after` more bytes have passed from `sender`."""
        self._act(lambda link: link.each(sender, lambda lane: lane.cut(after)), f"cut after {after} bytes", sender)

    def half_open(self, *, sender: Peer | None = None) -> None:
        """Lose whatever is sent from now on, the end of the stream too: the peer is gone and nobody was told."""
        self._act(lambda link: link.each(sender, lambda lane: lane.lose_all()), "half-open", sender)

    def flip(self, count: int = 1, *, skip: int = 0, mask: int = 0x01, sender: Peer | None = None) -> None:
        """Exclusive-or `count` bytes with `mask`, once `skip` more have passed. The trace keeps what was sent."""
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
        """Call `act` once, at the next event that matches: when all before its first byte has passed, and no more.

        With `after`, when its last byte has passed too. An event is known only when it is whole: of one that came in
        pieces, the pieces before the last have passed by then. `act` must not raise: there is nobody to catch it.
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
        """Return the `count`th event that matches, as soon as it is in the trace; it may be there already."""
        match = Match(layer, kind, sender, connection, where)
        news = asyncio.Event()
        seen, found = 0, 0
        with self.listening(lambda record: news.set()):
            async with asyncio.timeout(timeout):
                while True:
                    for event in self.trace.events[seen:]:
                        seen, found = seen + 1, found + match(event)
                        if found == count:
                            return event
                    news.clear()
                    await news.wait()

    def listening(self, listener: Callable[[WireRecord], None]) -> _Listening:
        """A context in which `listener` is called with each new record. It must be quick and must not raise."""
        return _Listening(self._listeners, listener)

    # -- inside

    def _set(self, sender: Peer | None, **state: Any) -> None:
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
        whom = f", what the {sender} sends" if sender else ""
        self._record(WireRecord(self.trace.now(), 0, "wire", note=note + whom))

    def _record(self, record: WireRecord) -> None:
        self.trace.add(record)
        for listener in self._listeners:
            listener(record)

    def _due(self, record: WireRecord) -> Iterator[tuple[int, Callable[[], object]]]:
        """Yield what `when` asked for that comes with this record: the place in its bytes to act at, and the act."""
        if not self._triggers:
            return
        events = self.trace.events[self._checked :]
        self._checked += len(events)
        for event in events:
            for trigger in list(self._triggers):
                if event.record is record and trigger.match(event):
                    self._triggers.remove(trigger)
                    place = (event.end if trigger.after else event.offset) - record.offset
                    yield max(0, place), trigger.act


class _Listening:
    """Adds a listener on entry, takes it away on exit."""

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
        self.gone: asyncio.Future[None] = wire._loop.create_future()
        self._connecting: asyncio.Task[None] | None = None  # while it is

    def opened(self) -> None:
        """The client is here: note it, arm what waited for it, and connect to the server."""
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
            if self.lanes["client"].losing and self.ends["client"].transport is None:
                self.ends["server"].abort()  # the connection was reset before there was another end to tell
        except OSError:
            self.note("refused", "server")
            self.ends["client"].abort()
        finally:
            self._connecting = None
            self.lost()

    def note(self, note: str, sender: Sender) -> None:
        """Record something of this connection that is not bytes, and do what waited for it."""
        record = WireRecord(self.wire.trace.now(), self.number, sender, note=note, ends=self.wire.names)
        self.wire._record(record)
        for _, act in self.wire._due(record):
            act()

    def each(self, sender: Peer | None, act: Callable[[_Lane], None]) -> None:
        """Do the same to both lanes, or to that of one sender."""
        for side in PEERS if sender is None else (sender,):
            act(self.lanes[side])

    def cut(self) -> None:
        """Send FIN both ways behind what is under way; what comes later is read and lost."""
        self.was_cut = True
        for lane in self.lanes.values():
            if not lane.losing:
                lane.queue(None, b"")
                lane.losing = True

    def reset(self, to: Peer | None) -> None:
        """Send RST to one end or both; the end not told is left half-open."""
        for side in PEERS if to is None else (to,):
            self.ends[side].abort()
        for lane in self.lanes.values():
            lane.lose_all()

    def abort(self) -> None:
        """Drop everything at once."""
        self.reset(None)
        if self._connecting:
            self._connecting.cancel()

    def closed(self) -> None:
        """One lane has carried its sender's FIN to the other end. After both, nothing can be sent any more."""
        if all(lane.ended for lane in self.lanes.values()):
            for end in self.ends.values():
                end.close()

    def lost(self) -> None:
        """An end is gone. When no end is left and none is to come, neither is the link."""
        if self._connecting is None and all(end.transport is None for end in self.ends.values()):
            self.wire._links.discard(self)
            if not self.gone.done():
                self.gone.set_result(None)


class _Lane:
    """One direction of one link: what `sender` sends, recorded, perhaps delayed or damaged, and passed on."""

    def __init__(self, link: _Link, sender: Peer) -> None:
        self.link = link
        self.wire = link.wire
        self.sender: Peer = sender
        self.line = link.wire.line[sender]
        self.source = link.ends[sender]
        self.target = link.ends[_other(sender)]
        self.heard = 0  # bytes come from the sender so far
        self.parcels: deque[_Parcel] = deque()
        self.held = 0  # bytes in the parcels
        self.blocked = False  # the target's own buffer is full
        self.flips: list[_Flip] = []
        self.left: int | None = None  # bytes that may still pass before the cut
        self.losing = False  # nothing from this sender passes any more
        self.silent = False  # the sender has ended its stream, or is gone
        self.ended = False  # and the other end has been told
        self.free_at = 0.0  # loop time at which a throttled line has carried what it was given
        self.alarm: asyncio.TimerHandle | None = None

    def receive(self, data: bytes) -> None:
        """Take what the sender sent: record it, and pass it on in pieces when something is to happen between them."""
        record = WireRecord(self.wire.trace.now(), self.link.number, self.sender, data, offset=self.heard)
        self.heard += len(data)
        self.wire._record(record)
        done = 0
        for place, act in self.wire._due(record):
            self.forward(record, data[done:place])
            done = max(done, place)
            act()
        self.forward(record, data[done:] if done else data)

    def forward(self, record: WireRecord, data: bytes) -> None:
        """Pass bytes on: at once when nothing stands against it, else by way of the queue."""
        target = self.target.transport
        if self.losing or not data or (target and target.is_closing()):
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
        """Put bytes, or the end of the stream, behind what is under way."""
        late = self.line.delay + self.wire.random.uniform(-self.line.jitter, self.line.jitter)
        due = self.wire._loop.time() + max(0.0, late)
        if self.parcels:
            due = max(due, self.parcels[-1].due)
        if data or record is None:
            self.parcels.append(_Parcel(due, record, memoryview(data), reset))
            self.held += len(data)
        self.pump()

    def pump(self) -> None:
        """Pass on all that is due; be called again when the next is."""
        if self.alarm:
            self.alarm.cancel()
            self.alarm = None
        while self.parcels and not self.line.stalled and not self.blocked and self.target.transport:
            at = max(self.parcels[0].due, self.free_at if self.line.rate else 0.0)
            if at > self.wire._loop.time():
                self.alarm = self.wire._loop.call_at(at, self.pump)
                break
            if self.parcels[0].record is None:
                self._finish(self.parcels[0])
            else:
                self._write(self.parcels[0], self.parcels[0].record, self.target.transport)
        self._regulate()

    def heal(self) -> None:
        """Do no more damage, and let what is under way arrive now."""
        self.flips.clear()
        self.left = None
        for parcel in self.parcels:
            parcel.due = 0.0
        self.pump()

    def end(self, reset: bool = False) -> None:
        """Take note that the sender has ended its stream (FIN), or is gone (RST), and pass that on too."""
        self.silent = True
        self.link.note("RST" if reset else "FIN", self.sender)
        if not self.losing:
            self.queue(None, b"", reset)
        elif self.link.was_cut or self.target.transport is None:
            self.source.close()
        elif self.link.lanes[self.target.side].silent:  # half-open, and now nobody is there
            self.source.close()
            self.target.close()

    def cut(self, after: int) -> None:
        """Let `after` more bytes pass, then end the connection both ways."""
        self.left = after
        if after == 0:
            self.link.cut()

    def lose_all(self) -> None:
        """Lose what is under way and whatever comes."""
        self.losing = True
        self.parcels.clear()
        self.held = 0
        self.pump()

    def block(self, blocked: bool) -> None:
        """The target's buffer is full, or has room again."""
        self.blocked = blocked
        self.pump()

    def _damaged(self, data: bytes) -> bytes:
        damaged = bytearray(data)
        for flip in self.flips:
            start = min(flip.skip, len(data))
            stop = min(start + flip.count, len(data))
            for place in range(start, stop):
                damaged[place] ^= flip.mask
            flip.skip -= start
            flip.count -= stop - start
        self.flips = [flip for flip in self.flips if flip.count]
        return bytes(damaged)

    def _write(self, parcel: _Parcel, record: WireRecord, target: asyncio.Transport) -> None:
        """Write the first parcel, or as much of it as a throttled line carries in one tick."""
        piece = parcel.data
        if self.line.rate:
            piece = piece[: max(1, int(self.line.rate * TICK))]
            self.free_at = max(self.free_at, self.wire._loop.time()) + len(piece) / self.line.rate
        target.write(piece)
        self.held -= len(piece)
        record.pass_on(len(piece), self.wire.trace.now())
        parcel.data = parcel.data[len(piece) :]
        if not parcel.data:
            self.parcels.popleft()

    def _finish(self, parcel: _Parcel) -> None:
        self.parcels.clear()
        self.ended = True
        if parcel.reset:
            self.target.abort()
        else:
            self.target.write_eof()
        self.link.closed()

    def _regulate(self) -> None:
        """Read on only while there is room: this is how a slow reader comes to slow its sender."""
        if self.source.transport is None:
            return
        if self.blocked or self.held >= self.wire.window:
            self.source.transport.pause_reading()
        else:
            self.source.transport.resume_reading()


class _End(asyncio.Protocol):
    """One of the two TCP connections of a link: hands what asyncio tells it to the lanes."""

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
        return True  # keep our own half open: the other side may still be sending

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        if error is not None:
            self.link.lanes[self.side].end(reset=True)
        self.link.lost()

    def pause_writing(self) -> None:
        self.link.lanes[_other(self.side)].block(True)

    def resume_writing(self) -> None:
        self.link.lanes[_other(self.side)].block(False)

    def write_eof(self) -> None:
        """Send FIN once what is written has gone, and go on reading."""
        if self.transport and not self.transport.is_closing():
            self.transport.write_eof()

    def close(self) -> None:
        """Close once what is written has gone."""
        if self.transport:
            self.transport.close()

    def abort(self) -> None:
        """Close with RST: SO_LINGER on with a time of 0 makes close() discard and reset (socket(7))."""
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
        raise ValueError(f"no host and port in {to!r}")
    return parts.hostname, port


async def replay(trace: Trace, to: str, *, connection: int = 1, timeout: float = 10.0) -> Trace:
    """Say to the server at `to` what the client of a recorded connection said; return the trace of that.

    The client's bytes are sent as they were, and each waits for as many answers (events, not bytes) as it had seen.
    Raises TimeoutError when the server does not give them in time.
    """
    async with Wire(to) as wire:
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, wire.host, wire.port)
        answers = 0
        for event in trace.filter(connection=connection, where=_stands_for_itself):
            if event.sender == "server":
                answers += 1
                await wire.wait_for(sender="server", where=_stands_for_itself, count=answers, timeout=timeout)
            elif event.kind == "FIN":
                transport.write_eof()
            else:
                transport.write(event.data)
        transport.close()
    return wire.trace


def _stands_for_itself(event: Event) -> bool:
    """Whether it is bytes of its own or an end, not a note, and not what rides on another event."""
    return event.kind == "FIN" or event.layer not in ("tcp", "fault", "stomp")
