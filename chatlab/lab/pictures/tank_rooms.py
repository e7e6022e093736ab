"""Two rooms whose members are tanks of waiting bytes, with a tap each, and a switch: wait for each send, or not.

    tanks = await lab.start("tanks", tank_rooms())

The same members are in both rooms. On the left is the article's room, whose loop awaits one send after another; the
switch makes it hand every text over without waiting. On the right is the room as chatlab ships it, with a smaller
limit, so that it is reached within seconds. A tap is the speed at which a member reads, in both rooms. A tank shows the
bytes that the server holds for the member because its socket does not accept them.

Left out: the bytes in the kernels' buffers, which nobody can see from here. They are made small.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any, Final
from urllib.parse import quote, urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import broadcast
from websockets.exceptions import ConnectionClosed

from chatlab import room
from chatlab.lab.picture import picture
from chatlab.lab.pictures.live_picture import LivePicture, source
from chatlab.locale import _
from chatlab.net.fanout import SlowReaderPolicy
from chatlab.room import article
from chatlab.room.article import RoomAsInTheArticle
from chatlab.room.server import RoomServer
from chatlab.tasks import Tasks, cancel

__all__ = ["TankRooms", "Tap", "tank_rooms"]

MEMBERS: Final = ("가람", "Nuri", "하늘")
SENDER: Final = "sender"
TEXTS: Final = 32  # in a burst
TEXT_BYTES: Final = 4096
EVERY_SECONDS: Final = 0.05  # between two texts of a burst
SLOW_SECONDS: Final = 0.2  # between two texts that a member with a slow tap reads
SMALL_BUFFER: Final = 4096  # the kernel's, for each socket; Linux doubles it and keeps a minimum
LIMIT: Final = 64 * 1024  # waiting bytes at which the room on the right closes a member
TANK: Final = 128 * 1024  # waiting bytes that fill a tank in the picture
REDRAW_SECONDS: Final = 0.1
FROZEN_SECONDS: Final = 1.5  # without a delivery, while texts are on their way
CODE_WITH_AWAIT: Final = """\
for session in sessions:
    await session.send(text)"""  # not shown: code
CODE_WITHOUT_AWAIT: Final = "broadcast(sessions, text)"
CODE_WITH_LIMIT: Final = """\
for member in members:
    member.write(text)
    if member.buffered() > LIMIT:
        member.close(1008)"""  # not shown: code


class Tap(enum.Enum):
    """How fast a member reads."""

    FULL = "full"
    SLOW = "slow"
    CLOSED = "closed"


async def tank_rooms() -> TankRooms:
    """Open both rooms, connect their members, and return the picture."""
    picture = TankRooms()
    await picture.start()
    return picture


class ImpatientRoom(RoomAsInTheArticle):
    """The article's room, but it waits for nobody: what a member does not accept stays in the server's memory."""

    async def handle_text_message(self, text: str) -> None:
        """Hand `text` over to every session at once."""
        self.messages += 1
        sessions = self._open_sessions()
        broadcast(sessions, f"Server received: {text}")  # not shown: the wire's text
        self.deliveries += len(sessions)


@dataclass(eq=False)
class Member:
    """One member's connection to one room: it reads as its tap allows."""

    name: str
    connection: ClientConnection
    tap: Tap = Tap.FULL
    read: int = 0  # texts
    ended: str = ""  # how the connection ended
    _turned: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def address(self) -> str:
        """The client's address, by which the server's figures name it."""
        host, port = self.connection.local_address[:2]
        return f"{host}:{port}"

    def turn(self, tap: Tap) -> None:
        """Turn the tap."""
        self.tap = tap
        self._turned.set()

    async def run(self) -> None:
        """Read until the connection ends."""
        try:
            while True:
                while self.tap is Tap.CLOSED:
                    self._turned.clear()
                    await self._turned.wait()
                self.read += "#" in str(await self.connection.recv())
                if self.tap is Tap.SLOW:
                    await asyncio.sleep(SLOW_SECONDS)
        except ConnectionClosed as end:
            close = end.rcvd
            self.ended = f"{close.code} {close.reason}" if close else _("the connection was cut")


class Side:
    """One of the two rooms, with its members and the member that sends."""

    def __init__(self, server: RoomServer, tasks: Tasks) -> None:
        self.server = server
        self.members: dict[str, Member] = {}
        self.sent = 0
        self.moved_at = time.monotonic()  # when a text last reached somebody
        self._tasks = tasks
        self._readers: list[asyncio.Task[None]] = []
        self._outbox: asyncio.Queue[str] = asyncio.Queue()
        self._seen = 0

    async def join(self) -> None:
        """Connect everybody and start reading and sending."""
        for name in (*MEMBERS, SENDER):
            member = self.members[name] = Member(name, await _connect(self.server.url, name))
            self._readers.append(self._tasks.start(member.run(), name=f"reader-{name}"))
        self._readers.append(self._tasks.start(self._send(), name="tank-sender"))

    def burst(self) -> None:
        """Send a burst of texts, behind those that wait to be sent."""
        for __ in range(TEXTS):
            self._outbox.put_nowait("#".ljust(TEXT_BYTES, "."))
        self.moved_at = time.monotonic()

    async def _send(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                text = await self._outbox.get()
                await self.members[SENDER].connection.send(text)
                self.sent += 1
                await asyncio.sleep(EVERY_SECONDS)

    @property
    def readers(self) -> list[Member]:
        """The members that read at full speed and are still connected, the sender among them."""
        return [each for each in self.members.values() if each.tap is Tap.FULL and not each.ended]

    def waiting(self) -> dict[str, int]:
        """Return the bytes that the server holds for each member that is connected."""
        addresses = {member.address: name for name, member in self.members.items() if not member.ended}
        figures = self.server.metrics().members
        return {addresses[each.address]: each.buffered for each in figures if each.address in addresses}

    def closed_by_the_room(self) -> dict[str, str]:
        """Return the members that the room has closed, with the code and the reason."""
        departures = self.server.metrics().departures
        return {each.name: f"{each.code} {each.reason.partition(':')[0]}" for each in departures}

    def reached(self) -> int:
        """Return how many texts have reached everybody that reads."""
        return min((each.read for each in self.readers), default=0)

    def frozen_for(self) -> float:
        """Return for how long no text has reached anybody although some were sent; 0 if the room is not frozen."""
        seen = sum(each.read for each in self.readers)
        if seen != self._seen or self.reached() >= self.sent:
            self._seen, self.moved_at = seen, time.monotonic()
        silent = time.monotonic() - self.moved_at
        return silent if silent >= FROZEN_SECONDS else 0.0

    async def aclose(self) -> None:
        """Drop the members and stop the server."""
        for reader in self._readers:
            await cancel(reader)
        for member in self.members.values():
            member.connection.transport.abort()
        await self.server.aclose()


class TankRooms(LivePicture):
    """Both rooms: `turn` a tap, send a `burst`, `wait` for sends or not, and `start_over`."""

    _esm = source("common.js", "tank_rooms.js")
    _css = source("pictures.css", "tank_rooms.css")

    def __init__(self, *, write_timeout: float = article.WRITE_SECONDS) -> None:
        super().__init__(_words())
        self.waits = True
        self.taps = dict.fromkeys(MEMBERS, Tap.FULL)
        self.left: Side | None = None
        self.right: Side | None = None
        self._write_timeout = write_timeout
        self._changing = asyncio.Lock()

    async def start(self) -> None:
        """Open both rooms and keep the figures up to date."""
        await self._open()
        self._tasks.start(self._keep_drawing(), name="tank-rooms")

    async def aclose(self) -> None:
        """Close both rooms, and disable the controls."""
        self._draw()
        await super().aclose()
        await self._close()

    # What a learner does

    def received(self, content: dict[str, Any]) -> None:
        """Turn a tap, send a burst, turn the switch, or start over."""
        match content:
            case {"do": "tap", "name": str(name), "tap": str(tap)} if name in MEMBERS:
                self.turn(name, Tap(tap))
            case {"do": "burst"}:
                self.burst()
            case {"do": "wait", "waits": bool(waits)}:
                self._tasks.start(self.start_over(waits=waits), name="tank-start")
            case {"do": "start over"}:  # not shown: a command of the page
                self._tasks.start(self.start_over(), name="tank-start")
        self._draw()

    def turn(self, name: str, tap: Tap) -> None:
        """Turn one member's tap, in both rooms."""
        self.taps[name] = tap
        for side in self._sides():
            side.members[name].turn(tap)

    def burst(self) -> None:
        """Send the same burst in both rooms."""
        for side in self._sides():
            side.burst()

    async def start_over(self, *, waits: bool | None = None) -> None:
        """Open both rooms anew, with all taps fully open; `waits` turns the switch of the room on the left."""
        async with self._changing:
            self.state = {**self.state, "busy": True}
            await self._close()
            self.waits = self.waits if waits is None else waits
            self.taps = dict.fromkeys(MEMBERS, Tap.FULL)
            await self._open()

    # Behind the picture

    async def _open(self) -> None:
        kind = RoomAsInTheArticle if self.waits else ImpatientRoom
        policy = SlowReaderPolicy(max_buffered=LIMIT, drain_seconds=1.0)
        servers: tuple[Awaitable[RoomServer], ...] = (
            article.start(send_buffer=SMALL_BUFFER, write_timeout=self._write_timeout, room=kind),
            room.start(send_buffer=SMALL_BUFFER, policy=policy),
        )
        left, right = [Side(await server, self._tasks) for server in servers]
        await asyncio.gather(left.join(), right.join())
        self.left, self.right = left, right
        for name, tap in self.taps.items():  # turned while the rooms were opened
            self.turn(name, tap)
        self._draw()

    async def _close(self) -> None:
        sides, self.left, self.right = self._sides(), None, None
        await asyncio.gather(*(side.aclose() for side in sides))

    def _sides(self) -> list[Side]:
        return [side for side in (self.left, self.right) if side is not None]

    async def _keep_drawing(self) -> None:
        while True:
            await asyncio.sleep(REDRAW_SECONDS)
            self._draw()

    # What is drawn

    def _draw(self) -> None:
        if self.left is None or self.right is None:
            return
        self.state = {
            "busy": False,
            "waits": self.waits,
            "taps": {name: tap.value for name, tap in self.taps.items()},
            "rooms": [self._drawn(self.left, _left(self.waits)), self._drawn(self.right, _right())],
        }

    def _drawn(self, side: Side, about: Mapping[str, str]) -> dict[str, Any]:
        waiting, frozen, ended = side.waiting(), side.frozen_for(), side.closed_by_the_room()
        figures = _("{sent} sent, {reached} have reached everybody who reads")
        return {
            **about,
            "hasLimit": side is self.right,
            "tanks": [_tank(side.members[name], waiting.get(name), ended.get(name, "")) for name in side.members],
            "figures": figures.format(sent=side.sent, reached=side.reached()),
            "seconds": _("({seconds:.0f} s)").format(seconds=frozen) if frozen else "",
            "status": _status(side, waiting, ended, bool(frozen)),
            "tone": _tone(side, waiting, bool(frozen)),
        }

    def still(self) -> str:
        """Return what became of one burst with one tap closed, as recorded, as a picture."""
        return picture(_svg(), _title(), self.plain())

    def plain(self) -> str:
        """Return the same as text."""
        figures = _("{reached} of {sent} texts have reached everybody who reads; {bytes} bytes wait for Nuri.")
        lines = [_("{title} (a recorded run)").format(title=_title())]
        for about, (reached, waiting) in zip((_left(True), _right()), RECORDED, strict=True):
            happened = figures.format(reached=reached, sent=TEXTS, bytes=f"{waiting:,}")
            lines.append(f"  {about['title']}: {happened} {about['fate']}")
        return "\n".join(lines)


async def _connect(url: str, name: str) -> ClientConnection:
    """Join a room through a socket whose receive buffer is small, so that the server soon notices a closed tap."""
    parts = urlsplit(url)
    sock = socket.socket()
    # Set it before connecting: the window offered to the server is fixed then (tcp(7)).
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (parts.hostname, parts.port))
    address = f"{url}?name={quote(name)}"
    return await connect(address, sock=sock, compression=None, max_queue=1, ping_interval=None, proxy=None)


# --- The drawing for a page without a kernel -------------------------------------------------------------------------

# Two seconds after a burst with Nuri's tap closed: the texts that have reached everybody who reads, Nuri's bytes.
RECORDED: Final = ((13, 32_957), (32, 0))
WIDTH, HEIGHT = 760, 230
TANK_WIDTH, TANK_HEIGHT, FLOOR = 70, 110, 160


def _svg() -> str:
    """Return both rooms with their tanks; Nuri's has a dashed edge where the room has closed her."""
    parts = []
    for side, (about, (reached, waiting)) in enumerate(zip((_left(True), _right()), RECORDED, strict=True)):
        left = side * (WIDTH // 2) + 10
        figures = _("{reached} of {sent} texts reached everybody who reads").format(reached=reached, sent=TEXTS)
        parts.append(f'<text x="{left}" y="20" font-weight="bold">{escape(about["title"])}</text>')
        parts.append(f'<text x="{left}" y="{HEIGHT - 15}">{escape(figures)}</text>')
        for number, name in enumerate((*MEMBERS, SENDER)):
            held = waiting if name == "Nuri" else 0
            gone = name == "Nuri" and side == 1
            parts.append(_drawn_tank(left + number * (TANK_WIDTH + 15), _shown_name(name), held, gone))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'font-family="sans-serif" font-size="13" fill="#222"><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
        f"{''.join(parts)}</svg>"
    )


def _drawn_tank(x: int, name: str, held: int, gone: bool) -> str:
    height = TANK_HEIGHT * min(1.0, held / TANK)
    dashes = ' stroke-dasharray="5 4"' if gone else ""
    edge = f"M{x} {FLOOR - TANK_HEIGHT}V{FLOOR}h{TANK_WIDTH}V{FLOOR - TANK_HEIGHT}"
    label = f"{name} ✘" if gone else name
    return (
        f'<rect x="{x}" y="{FLOOR - height:.0f}" width="{TANK_WIDTH}" height="{height:.0f}" fill="#4a90d9"/>'
        f'<path d="{edge}" fill="none" stroke="#222" stroke-width="2"{dashes}/>'
        f'<text x="{x}" y="{FLOOR + 18}">{escape(label)}</text>'
    )


# --- Words -----------------------------------------------------------------------------------------------------------


def _title() -> str:
    return _("Two rooms, one closed tap")


def _left(waits: bool) -> dict[str, str]:
    if waits:
        return {
            "title": _("The article's room awaits each send"),
            "code": CODE_WITH_AWAIT,
            "fate": _("One closed tap stops the loop: nobody receives anything until that member's write times out."),
        }
    return {
        "title": _("The article's room, without await"),
        "code": "broadcast(sessions, text)",
        "fate": _("Nobody waits, and the tank of a closed tap grows until the server has no memory left."),
    }


def _right() -> dict[str, str]:
    return {
        "title": _("chatlab's room does not wait, and has a limit"),
        "code": CODE_WITH_LIMIT,
        "fate": _(
            "Nobody waits. A member whose tank is over the limit, {limit} bytes, is closed, and the others go on."
        ).format(limit=f"{LIMIT:,}"),
    }


def _tank(member: Member, waiting: int | None, ended: str) -> dict[str, Any]:
    """Return what a tank shows; `waiting` is None if the server has no such member any more."""
    held = waiting or 0
    return {
        "name": _shown_name(member.name),
        "waiting": held,
        "fill": round(min(1.0, held / TANK), 3),
        "text": _("{bytes} bytes wait").format(bytes=f"{held:,}"),
        "read": _("{count} read").format(count=member.read),
        "ended": ended or member.ended or ("" if waiting is not None else _("no longer in the room")),
    }


def _shown_name(name: str) -> str:
    return name if name != SENDER else _("the sender")


def _status(side: Side, waiting: Mapping[str, int], ended: Mapping[str, str], frozen: bool) -> str:
    """Return what happens in one room, without figures that change all the time: it is read aloud."""
    sentences = [_("{name} was closed: {why}.").format(name=_shown_name(name), why=ended[name]) for name in ended]
    blocking = max(waiting, key=lambda name: waiting[name], default=SENDER)
    if why := side.members[SENDER].ended.strip():
        sentences.append(_("The sender was closed ({why}), although it did nothing wrong.").format(why=why))
    elif frozen and waiting.get(blocking):
        sentences.append(_("Frozen: the loop waits for {name}.").format(name=blocking))
    elif side.sent and side.reached() >= side.sent:
        sentences.append(_("Everybody who reads has everything."))
    elif side.sent:
        sentences.append(_("Texts are on their way."))
    if waiting.get(blocking, 0) > LIMIT and not frozen:
        sentences.append(_("{name}'s tank goes on filling: it has no limit.").format(name=_shown_name(blocking)))
    return " ".join(sentences)


def _tone(side: Side, waiting: Mapping[str, int], frozen: bool) -> str:
    if frozen or side.members[SENDER].ended or max(waiting.values(), default=0) > LIMIT:
        return "bad"
    return "good" if side.sent else "none"


def _words() -> dict[str, Any]:
    """Return the texts that never change."""
    return {
        "title": _title(),
        "help": _(
            "The same three members and a sender are in both rooms. A tank is what the server holds for a member whose "
            "socket accepts no more; the dashed line is the limit. Close a tap and send a burst."
        ),
        "tap": _("{name}'s tap"),
        "taps": [["full", _("full")], ["slow", _("slow")], ["closed", _("closed")]],
        "members": list(MEMBERS),
        "burst": _("Send {count} texts of {size} bytes in each room").format(count=TEXTS, size=TEXT_BYTES),
        "wait": _("The room on the left awaits each send"),
        "again": _("Start over"),
        "limit": _("limit {bytes} bytes").format(bytes=f"{LIMIT:,}"),
        "limitAt": LIMIT / TANK,
        "tank": _("{name}'s tank"),
        "max": TANK,
    }
