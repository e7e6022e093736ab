"""The robust room: its members, one message order for all of them, and limits on what one member can do.

Every message goes through `net/fanout.py`, which never waits for a slow member. `shared.py` has the room that several
instances share.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Iterator
from itertools import count

import msgspec

from chatlab.limits import RateLimit, TokenBucket
from chatlab.logs.throttled import ThrottledLog
from chatlab.naming import skeletons
from chatlab.net.endpoint import WebSocketEnd
from chatlab.net.fanout import Fanout, Group, SlowReaderPolicy
from chatlab.room.lines import Parts, one_line, parts_of
from chatlab.room.metrics import Departure, MemberMetrics, RoomMetrics
from chatlab.websocket.frames import CloseCode, Frame, server_message

logger = logging.getLogger("chatlab.room")
refusals = ThrottledLog(logger)

TURN = 64  # messages read from one member before other members get a turn
DEPARTURES = 100  # the number of recent departures kept, with their reasons
HEART_BEAT_SECONDS = 10.0  # between two heart-beats to a member that requested them
HEART_BEAT = server_message(b"")


class Member:
    """One client in the room: the peer of its WebSocket and a sink for the fan-out."""

    def __init__(
        self, room: Room, end: WebSocketEnd, number: int, name: str | None, address: str, *, parts: bool = False
    ) -> None:
        self.room = room
        self.name = name
        self.parts = parts  # the client receives each line as JSON, split into its parts
        self.label = name or f"member {number}"
        self.address = address
        self.prefix = f"Server received from {name}: " if name else "Server received: "
        self.bucket = TokenBucket(room.rate) if room.rate else None
        self.sent = 0
        self.buffered = end.buffered
        self._end = end
        self._received = 0

    def __str__(self) -> str:
        return f"{self.label} at {self.address}"

    def metrics(self) -> MemberMetrics:
        """Return this member's current figures."""
        return MemberMetrics(self.label, self.address, self.sent, self.buffered(), self._end.latency)

    # Called by the WebSocket.

    def receive(self, data: bytes, text: bool) -> bool:
        """Process a message. Return False after every `TURN` messages, so that other members get a turn."""
        if self in self.room.members:  # messages of a member that has been closed are discarded
            self.room.receive(self, data.decode() if text else data)
        self._received += 1
        return self._received % TURN != 0

    async def finish(self) -> None:
        """Yield to the other members."""
        await asyncio.sleep(0)

    def end(self) -> None:
        """Leave the room: the connection has closed."""
        how = self._end.how_it_ended()
        self.room.leave(self, how.code or CloseCode.NO_STATUS_RECEIVED, how.reason)

    # Called by the fan-out.

    @property
    def descriptor(self) -> int | None:
        """The socket's descriptor while it may be written to directly, else None."""
        return self._end.descriptor

    def write(self, data: bytes) -> None:
        """Send text frames, re-encoding each if this member negotiated compression."""
        if self._end.compresses:
            for text in texts_in(data):
                self._end.send(text, text=True)
        else:
            self._end.write(data)

    def close(self, code: int, reason: str) -> None:
        """Leave the room and start the closing handshake, without waiting for it to finish."""
        self.room.leave(self, code, reason)
        self._end.close(code, reason)

    def abort(self) -> None:
        """Leave the room and drop the TCP connection."""
        self.room.leave(self, CloseCode.ABNORMAL_CLOSURE, "aborted")
        self._end.abort()


def texts_in(frames: bytes) -> Iterator[bytes]:
    """Yield the payloads of consecutive whole, unmasked frames."""
    rest = memoryview(frames)
    while (parsed := Frame.parse(rest)) is not None:
        frame, size = parsed
        yield frame.payload
        rest = rest[size:]


class Room:
    """The members, and what happens when one joins, sends or leaves."""

    def __init__(self, policy: SlowReaderPolicy, rate: RateLimit | None) -> None:
        self.fanout = Fanout(policy)
        self.rate = rate
        self.members: Group[Member] = self.fanout.group()
        self._see_lines: Group[Member] = self.fanout.group()
        self._see_parts: Group[Member] = self.fanout.group()
        self.departures: deque[Departure] = deque(maxlen=DEPARTURES)
        self._names: Counter[str] = Counter()  # the skeletons of the names in use
        self._numbers = count(1)
        self._heart_beat_members: dict[Member, None] = {}  # a dict, used as an ordered set
        self._heart_beat_timer: asyncio.TimerHandle | None = None

    def join(
        self, end: WebSocketEnd, name: str | None, address: str, *, beats: bool = False, parts: bool = False
    ) -> Member:
        """Add a client, under the requested name or a variant of it that is free, and notify every member.

        `beats`: the client wants heart-beats. `parts`: it wants each line as JSON, and its own name first.
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
            self._heart_beat_members[member] = None
            self._schedule_heart_beat()
        logger.info("%s joined", member)
        return member

    def leave(self, member: Member, code: int, reason: str) -> None:
        """Remove a member and notify the others. Do nothing if it has left already."""
        if member not in self.members:
            return
        for group in (self.members, self._see_lines, self._see_parts):
            group.discard(member)
        self._heart_beat_members.pop(member, None)
        self.departures.append(Departure(member.label, code, reason))
        if member.name:
            self._names -= Counter(skeletons(member.name))
            self.notify(f"{member.name} left")
        logger.info("%s left: %d %s", member, code, reason)

    def receive(self, member: Member, message: str | bytes) -> None:
        """Publish a member's text. Close the member for a binary message; enforce its rate limit."""
        if isinstance(message, bytes):
            # RFC 6455, 7.4.1: 1003 when "it has received a type of data it cannot accept"
            member.close(CloseCode.UNSUPPORTED_DATA, "this room takes text, not binary messages")
        elif member.bucket and not member.bucket.take():
            self._refuse(member, member.bucket)
        else:
            member.sent += 1
            self.pass_on(member, member.prefix + one_line(message))

    def pass_on(self, member: Member, line: str) -> None:
        """Pass a line from `member` on to every member. A shared room overrides this to publish it to a broker."""
        self.deliver(line)

    def deliver(self, line: str) -> None:
        """Send `line` to every member of this instance."""
        if self._see_lines:
            self._see_lines.send(server_message(line.encode()))
        if self._see_parts:
            self._see_parts.send(_message(parts_of(line)))

    def notify(self, what: str) -> None:
        """Send every member a notice of `what` happened, with the number of members."""
        self.deliver(f"* {what} ({len(self.members)} here)")

    def send_error(self, member: Member, error: str, outcome: str = "not sent") -> None:
        """Send one member the reason why its message was not published, or may not have been."""
        line = f"! {outcome}: {error}"
        self.fanout.send(_message(parts_of(line)) if member.parts else server_message(line.encode()), (member,))

    def is_taken(self, name: str) -> bool:
        """Tell whether a member here has that name or one that looks like it."""
        return any(each in self._names for each in skeletons(name))

    def _refuse(self, member: Member, bucket: TokenBucket) -> None:
        reason = f"more than {bucket.limit.per_second:g} messages a second"
        if bucket.exhausted:
            member.close(CloseCode.POLICY_VIOLATION, f"flooding: {reason}")
        else:
            self.send_error(member, reason)

    def _free_name(self, name: str | None) -> str | None:
        """Return `name` if it is free, else the first free one of name-2, name-3, ..."""
        if name is None or not self.is_taken(name):
            return name
        return next(each for n in count(2) if not self.is_taken(each := f"{name}-{n}"))

    def _schedule_heart_beat(self) -> None:
        if self._heart_beat_timer is None and self._heart_beat_members:
            loop = asyncio.get_running_loop()
            self._heart_beat_timer = loop.call_later(HEART_BEAT_SECONDS, self._send_heart_beats)

    def _send_heart_beats(self) -> None:
        """Send heart-beats as messages: a browser answers pings itself, and its pages never see them."""
        self.fanout.send(HEART_BEAT, tuple(self._heart_beat_members))
        self._heart_beat_timer = None
        self._schedule_heart_beat()

    async def aclose(self) -> None:
        """Stop the heart-beats and the fan-out."""
        if self._heart_beat_timer is not None:
            self._heart_beat_timer.cancel()
        self.fanout.close()

    def metrics(self) -> RoomMetrics:
        """Return the room's current figures."""
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
    """Return the WebSocket message with the parts of a line as JSON."""
    return server_message(msgspec.json.encode(parts))
