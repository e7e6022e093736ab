"""The room that holds: members, one order for everybody, and a bound on what one member can do.

Everything goes to `net/fanout.py`, which waits for nobody. A room that several instances share is in `shared.py`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import msgspec

from chatlab.logs.throttled import ThrottledLog
from chatlab.naming import skeletons
from chatlab.net.endpoint import WebSocketEnd
from chatlab.net.fanout import Fanout, Group, SlowReaderPolicy
from chatlab.room.lines import Parts, one_line, parts_of
from chatlab.room.metrics import Departure, MemberMetrics, RoomMetrics
from chatlab.websocket.frames import CloseCode, Frame, server_message

logger = logging.getLogger("chatlab.room")
refusals = ThrottledLog(logger)

TURN = 64  # messages taken from one member before the others have their turn
DEPARTURES = 100  # how many of the last departures are remembered, with their reasons
BEAT_SECONDS = 10.0  # between two heart-beats to a member that asked for them
HEART_BEAT = server_message(b"")


@dataclass(frozen=True)
class RateLimit:
    """How fast one member may send: `per_second` on average, `burst` at once.

    A message beyond that is refused with an error, and counts all the same: who goes on stays refused. `patience`
    refusals without a pause, and the member is closed with 1008.
    """

    per_second: float
    burst: int = 10
    patience: int = 50


class Allowance:
    """What one member may still send: a bucket of tokens that `limit` fills, and that goes below zero for a flooder."""

    def __init__(self, limit: RateLimit) -> None:
        self.limit = limit
        self.tokens = float(limit.burst)
        self.at = time.monotonic()

    def take(self) -> bool:
        """Take a token for one message; False if there was none."""
        now = time.monotonic()
        self.tokens = min(self.limit.burst, self.tokens + (now - self.at) * self.limit.per_second) - 1
        self.at = now
        return self.tokens >= 0

    @property
    def exhausted(self) -> bool:
        """Whether so much was refused that patience has run out."""
        return self.tokens < -self.limit.patience


class Member:
    """One client in the room: the peer of its WebSocket, and the sink that the fan-out writes to."""

    def __init__(
        self, room: Room, end: WebSocketEnd, number: int, name: str | None, address: str, *, parts: bool = False
    ) -> None:
        self.room = room
        self.name = name
        self.parts = parts  # it receives each line with its parts apart
        self.label = name or f"member {number}"
        self.address = address
        self.prefix = f"Server received from {name}: " if name else "Server received: "
        self.allowance = Allowance(room.rate) if room.rate else None
        self.sent = 0
        self.buffered = end.buffered
        self._end = end
        self._taken = 0

    def __str__(self) -> str:
        return f"{self.label} at {self.address}"

    def metrics(self) -> MemberMetrics:
        """How it is doing now."""
        return MemberMetrics(self.label, self.address, self.sent, self.buffered(), self._end.latency)

    # What its WebSocket calls.

    def receive(self, data: bytes, text: bool) -> bool:
        """Take a message; every so many, the others have their turn before the next one."""
        if self in self.room.members:  # else it was closed, and what it still says is not heard
            self.room.receive(self, data.decode() if text else data)
        self._taken += 1
        return self._taken % TURN != 0

    async def finish(self) -> None:
        """Let the others have their turn."""
        await asyncio.sleep(0)

    def end(self) -> None:
        """The connection is gone."""
        how = self._end.how_it_ended()
        self.room.leave(self, how.code or CloseCode.NO_STATUS_RECEIVED, how.reason)

    # What the fan-out calls.

    @property
    def descriptor(self) -> int | None:
        """The socket's, while it may be written to."""
        return self._end.descriptor

    def write(self, data: bytes) -> None:
        """Send text frames; each is made again if this member asked for compression."""
        if self._end.compresses:
            for text in texts_in(data):
                self._end.send(text, text=True)
        else:
            self._end.write(data)

    def close(self, code: int, reason: str) -> None:
        """Leave the room and start the closing handshake; nobody waits for its end."""
        self.room.leave(self, code, reason)
        self._end.close(code, reason)

    def abort(self) -> None:
        """Leave the room and drop the TCP connection."""
        self.room.leave(self, CloseCode.ABNORMAL_CLOSURE, "aborted")
        self._end.abort()


def texts_in(frames: bytes) -> Iterator[bytes]:
    """The payloads of whole, unmasked frames in a row."""
    rest = memoryview(frames)
    while (parsed := Frame.parse(rest)) is not None:
        frame, size = parsed
        yield frame.payload
        rest = rest[size:]


class Room:
    """The members, and what happens when one comes, speaks or goes."""

    def __init__(self, policy: SlowReaderPolicy, rate: RateLimit | None) -> None:
        self.fanout = Fanout(policy)
        self.rate = rate
        self.members: Group[Member] = self.fanout.group()
        self._see_lines: Group[Member] = self.fanout.group()
        self._see_parts: Group[Member] = self.fanout.group()
        self.departures: deque[Departure] = deque(maxlen=DEPARTURES)
        self._names: Counter[str] = Counter()  # what the names that are taken look like
        self._numbers = count(1)
        self._wants_beats: dict[Member, None] = {}  # a dict, as a set that keeps its order
        self._next_beat: asyncio.TimerHandle | None = None

    def join(
        self, end: WebSocketEnd, name: str | None, address: str, *, beats: bool = False, parts: bool = False
    ) -> Member:
        """Let a client in, under the name it asks for or one like it, and tell everybody.

        `beats`: it wants heart-beats. `parts`: it wants each line with its parts apart, and its own name first.
        """
        member = Member(self, end, next(self._numbers), self._free_name(name), address, parts=parts)
        self.members.add(member)
        (self._see_parts if parts else self._see_lines).add(member)
        if parts:
            self.fanout.send(_message(Parts("you", name=member.name)), (member,))
        if member.name:
            self._names.update(skeletons(member.name))
            self.notify(f"{member.name} joined")
        if beats:
            self._wants_beats[member] = None
            self._beat_later()
        logger.info("%s joined", member)
        return member

    def leave(self, member: Member, code: int, reason: str) -> None:
        """Take a member out, once, and tell everybody."""
        if member not in self.members:
            return
        for group in (self.members, self._see_lines, self._see_parts):
            group.discard(member)
        self._wants_beats.pop(member, None)
        self.departures.append(Departure(member.label, code, reason))
        if member.name:
            self._names -= Counter(skeletons(member.name))
            self.notify(f"{member.name} left")
        logger.info("%s left: %d %s", member, code, reason)

    def receive(self, member: Member, message: str | bytes) -> None:
        """Pass a member's text on to everybody, unless it may not be sent."""
        if isinstance(message, bytes):
            # RFC 6455, 7.4.1: 1003 when "it has received a type of data it cannot accept"
            member.close(CloseCode.UNSUPPORTED_DATA, "this room takes text, not binary messages")
        elif member.allowance and not member.allowance.take():
            self._refuse(member, member.allowance)
        else:
            member.sent += 1
            self.pass_on(member, member.prefix + one_line(message))

    def pass_on(self, member: Member, line: str) -> None:
        """Send on what `member` said. A room that several instances share hands it to a broker here instead."""
        self.deliver(line)

    def deliver(self, line: str) -> None:
        """Send `line` to every member of this instance."""
        if self._see_lines:
            self._see_lines.send(server_message(line.encode()))
        if self._see_parts:
            self._see_parts.send(_message(parts_of(line)))

    def notify(self, what: str) -> None:
        """Tell everybody `what` happened, and how many are here now."""
        self.deliver(f"* {what} ({len(self.members)} here)")

    def tell(self, member: Member, error: str, outcome: str = "not sent") -> None:
        """Tell one member why what it sent was not passed on, or may not have been."""
        line = f"! {outcome}: {error}"
        self.fanout.send(_message(parts_of(line)) if member.parts else server_message(line.encode()), (member,))

    def is_taken(self, name: str) -> bool:
        """Whether a member here can be taken for one of that name."""
        return any(each in self._names for each in skeletons(name))

    def _refuse(self, member: Member, allowance: Allowance) -> None:
        limit = f"more than {allowance.limit.per_second:g} messages a second"
        if allowance.exhausted:
            member.close(CloseCode.POLICY_VIOLATION, f"flooding: {limit}")
        else:
            self.tell(member, limit)

    def _free_name(self, name: str | None) -> str | None:
        """`name` if it is free, else name-2, name-3, ..."""
        if name is None or not self.is_taken(name):
            return name
        return next(each for n in count(2) if not self.is_taken(each := f"{name}-{n}"))

    def _beat_later(self) -> None:
        if self._next_beat is None and self._wants_beats:
            self._next_beat = asyncio.get_running_loop().call_later(BEAT_SECONDS, self._beat)

    def _beat(self) -> None:
        """Send heart-beats: pings are answered by the browser, and its pages never learn of them."""
        self.fanout.send(HEART_BEAT, tuple(self._wants_beats))
        self._next_beat = None
        self._beat_later()

    async def aclose(self) -> None:
        """Stop the watch over slow readers, and the heart-beats."""
        if self._next_beat is not None:
            self._next_beat.cancel()
        self.fanout.close()

    def metrics(self) -> RoomMetrics:
        """What the room is doing now."""
        counters = self.fanout.counters
        return RoomMetrics(
            members=tuple(each.metrics() for each in self.members),
            departures=tuple(self.departures),
            messages=counters.messages,
            deliveries=counters.deliveries,
            messages_per_second=self.fanout.meter.rate(),
            writes=counters.writes,
            slow=counters.slow,
            aborted=counters.aborted,
        )


def _message(parts: Parts) -> bytes:
    """The WebSocket message that carries the parts of a line."""
    return server_message(msgspec.json.encode(parts))
