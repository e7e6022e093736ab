"""Lesson 03's experiments on a room, and the verdicts that follow from them.

Each experiment takes the URL of a room and returns its clients' observations, so that the article's room and the robust
room go through the same experiment. Times are in seconds. The verdicts, `c11` to `f17`, are computed from these
observations, and where a browser or the article's own program is needed, also from what was recorded of them:
`original.json`, and `cookies.json`, which tests/browser/test_cookies.py measures anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import statistics
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from itertools import count, pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

from websockets import State
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

from chatlab.lab.claims import Figure, Verdict, verdict
from chatlab.lab.clients import MemberState, RoomClient
from chatlab.lab.experiments.original import recording
from chatlab.lab.runtime import lab
from chatlab.lab.until import until
from chatlab.locale import _
from chatlab.net import websockets_library

logger = logging.getLogger("chatlab.room")

__all__ = [
    "COOKIES",
    "Answer",
    "CookieTable",
    "Crowd",
    "Delays",
    "Flood",
    "Freed",
    "Member",
    "Orders",
    "Reception",
    "all_at_once",
    "c11",
    "c12",
    "c13",
    "c14",
    "c15",
    "c16",
    "c17",
    "cookie_table",
    "cookies",
    "delays",
    "f8",
    "f9",
    "f12",
    "f13",
    "f14",
    "f17",
    "flood",
    "join",
    "knock",
    "knock_at",
    "one_stalled",
    "orders",
    "reaches",
    "start_handler",
    "stopped_after",
    "until_freed",
    "url_of",
    "within",
]

COOKIES = Path(__file__).with_name("cookies.json")
INTERNAL_ERROR = 1011  # RFC 6455, 7.4.1: the server met a condition that kept it from fulfilling the request
NOTHING_HERE = 404
WELCOME = 101
PREFIX = "Server received: "  # not shown: text on the wire
OWN_PAGE = "own page"  # not shown: a key
PAGES = {
    OWN_PAGE: _("own page"),
    "same site, another port": _("same site, another port"),  # not shown: a key
    "another site": _("another site"),  # not shown: a key
    "another site, third-party cookies blocked": _("another site, third-party cookies blocked"),  # not shown: a key
}
KINDS = {
    "no SameSite": _("no SameSite"),  # not shown: a key
    "Lax": "Lax",
    "Strict": "Strict",
    "None; Secure": "None; Secure",  # not shown: a cookie's attributes
}
ENOUGH_SECONDS = 1.0  # a text that takes longer to reach everybody is late


async def start_handler(**options: Any) -> Server:
    """Serve the handler that the lesson writes, with the copy that it arrives at; `options` are those of `serve`."""
    sessions: dict[UUID, ServerConnection] = {}

    async def handler(session: ServerConnection) -> None:
        sessions[session.id] = session
        try:
            async for text in session:
                for each in list(sessions.values()):
                    await each.send(PREFIX + str(text))
        finally:
            del sessions[session.id]

    return await serve(handler, "127.0.0.1", 0, logger=websockets_library.quiet(logger), **options)


def url_of(server: Server) -> str:
    """Return the address of a server's room."""
    return f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/room"


class Member(RoomClient):
    """A member who, when a text does not come, says what went wrong in the handler of a server in this process."""

    def __init__(self, url: str, name: str) -> None:
        super().__init__(url, name)
        self._since = time.time()

    async def heard(self, text: str, *, times: int = 1, timeout: float = 5) -> None:
        """Wait until `text` has come `times` times; raise `TimeoutError` with the handler's error if there is one."""

        def count() -> int:
            return sum(text in received for received in self.received)

        with contextlib.suppress(TimeoutError):
            await self.until(lambda: count() >= times or self.state is MemberState.CLOSED, timeout=timeout)
        if count() < times:
            if self.state is MemberState.CLOSED:
                await within(self._errors, seconds=1)  # the library logs an error after it has closed the connection
            raise TimeoutError(self._missing(text))

    def _errors(self) -> list[BaseException | None]:
        return [each.exc_info[1] for each in lab.log.records if each.created >= self._since and each.exc_info]

    def _missing(self, text: str) -> str:
        if not (errors := self._errors()):
            return _("{name} did not receive {text!r}").format(name=self.name, text=text)
        failed = _("{name} did not receive {text!r}, because the handler failed with {error!r}")
        return failed.format(name=self.name, text=text, error=errors[-1])


async def join(url: str, *names: str) -> list[Member]:
    """Return members of these names who have joined the room."""
    members = [Member(url, name) for name in names]
    for member in members:
        await member.connect()
    return members


async def within(condition: Callable[[], object], seconds: float = 2.0) -> bool:
    """Return whether `condition()` becomes true within `seconds`."""
    try:
        await until(condition, timeout=seconds)
    except TimeoutError:
        return False
    return True


async def reaches(speaker: RoomClient, listener: RoomClient, text: str, seconds: float = 2.0) -> bool:
    """Let one member send `text`; return whether it reaches the other within `seconds`."""
    await speaker.send(text)
    return await within(lambda: any(text in each for each in listener.received), seconds)


@dataclass(frozen=True)
class Reception:
    """When messages reached all the members who read: for each message, its arrival at the last of them."""

    sent: int
    times: tuple[float, ...]  # since the start; one for each message that reached all of them
    seconds: float = 2.0  # how long the experiment took
    url: str = ""

    @property
    def reached(self) -> int:
        """The number of messages that reached all the members who read."""
        return len(self.times)


async def one_stalled(
    url: str, *, readers: int = 5, seconds: float = 2.0, size: int = 32 * 1024, every: float = 0.01
) -> Reception:
    """Let the first member stop reading while another sends a text of `size` characters every `every` seconds.

    `readers` more members read everything. The stalled member's socket gets a small receive buffer: otherwise the
    kernel would buffer megabytes for it, and it would take a while until anybody noticed.
    """
    stalled = RoomClient(url, "stalled", receive_buffer=4096)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(stalled.vanish)
        await stalled.connect()
        stalled.stop_reading()
        members = [await stack.enter_async_context(open_member(url)) for __ in range(readers)]
        sender = await stack.enter_async_context(open_member(url))
        found = await _send_and_watch(sender, members, seconds, size, every)
        return Reception(*found, seconds, url)


async def _send_and_watch(
    sender: ClientConnection, members: list[ClientConnection], seconds: float, size: int, every: float
) -> tuple[int, tuple[float, ...]]:
    began = time.monotonic()
    arrivals: dict[int, list[float]] = {}

    async def read(member: ClientConnection) -> None:
        async for text in member:
            if (number := number_in(str(text))) is not None:
                arrivals.setdefault(number, []).append(time.monotonic() - began)

    readers = [asyncio.create_task(read(each)) for each in (*members, sender)]
    sent = 0
    with contextlib.suppress(TimeoutError, ConnectionClosed):
        async with asyncio.timeout(seconds):
            for sent in count(1):
                await sender.send(f"#{sent} ".ljust(size, "·"))
                await asyncio.sleep(every)
    await cancel(readers)
    times = sorted(max(each) for each in arrivals.values() if len(each) == len(readers))
    return sent, tuple(times)


def number_in(text: str) -> int | None:
    """Return the number of one of our messages, despite the room's prefix; None for other messages."""
    _prefix, mark, rest = text.partition("#")
    digits = rest.split(" ", 1)[0]
    return int(digits) if mark and digits.isdecimal() else None


def stopped_after(reception: Reception, *, silence: float = 0.25) -> bool:
    """Whether the last delivery came before the final part of the experiment, whose fraction is `silence`."""
    return _last(reception) < reception.seconds * (1 - silence)


def _last(reception: Reception) -> float:
    """Return the time of the last delivery, 0 if there was none."""
    return reception.times[-1] if reception.times else 0.0


@dataclass(frozen=True)
class Delays:
    """The times that messages took to reach everybody in a room of `members`."""

    members: int
    seconds: tuple[float, ...] = field(repr=False)
    url: str = ""

    @property
    def median(self) -> float:
        """The middle one of the delays."""
        return statistics.median(self.seconds)


async def delays(url: str, members: int, *, messages: int = 30, every: float = 0.01) -> Delays:
    """Send `messages` texts to a room of `members` who all read; return the time until the last of them has each."""
    async with contextlib.AsyncExitStack() as stack:
        everybody = [await stack.enter_async_context(open_member(url)) for __ in range(members)]
        took = []
        for number in range(messages):
            began = time.monotonic()
            await everybody[0].send(f"#{number} ")
            await asyncio.gather(*(until_number(each, number) for each in everybody))
            took.append(time.monotonic() - began)
            await asyncio.sleep(every)
        return Delays(members, tuple(took), url)


async def until_number(member: ClientConnection, number: int) -> None:
    """Read until message `number` arrives."""
    while number_in(str(await member.recv())) != number:
        pass


@dataclass(frozen=True)
class Flood:
    """How many of the flooder's texts reached another member."""

    sent: int
    reached: int
    url: str = ""


async def flood(url: str, *, messages: int = 500, patience: float = 1.0) -> Flood:
    """Send `messages` texts as fast as possible; count those that reach another member before a pause of `patience`.

    The room may disconnect the flooder before it has sent all; that is one of the possible outcomes.
    """
    async with open_member(url) as victim, open_member(url) as flooder:
        read = asyncio.create_task(_count_until_silence(victim, patience))
        with contextlib.suppress(ConnectionClosed):
            for number in range(messages):
                await flooder.send(f"#{number} ")
        return Flood(messages, await read, url)


async def _count_until_silence(member: ClientConnection, patience: float) -> int:
    received = 0
    with contextlib.suppress(TimeoutError):
        while True:
            async with asyncio.timeout(patience):
                received += number_in(str(await member.recv())) is not None
    return received


@dataclass(frozen=True)
class Orders:
    """The order in which each member saw the texts, by their labels: "2.7" is the text number 7 of member 2."""

    seen: tuple[tuple[str, ...], ...]
    sent: int
    url: str = ""

    @property
    def complete(self) -> bool:
        """Whether every member received every text."""
        return all(len(each) == self.sent for each in self.seen)

    @property
    def first_difference(self) -> int | None:
        """The number, from 1, of the first text that is not the same for all members; None if they agree."""
        rows = enumerate(zip(*self.seen, strict=False), 1)
        return next((number for number, row in rows if len(set(row)) > 1), None)

    @property
    def differences(self) -> int:
        """The number of places in the order at which not all members saw the same text."""
        return sum(len(set(row)) > 1 for row in zip(*self.seen, strict=False))

    def excerpt(self, texts: int = 6) -> str:
        """Return, for each member, the labels of some texts around the first difference, one member on a line."""
        start = max(0, (self.first_difference or 1) - 3)
        rows = (" ".join(f"{label:>5}" for label in each[start : start + texts]) for each in self.seen)
        title = _("member {number}, texts {first} to {last}:")
        return "\n".join(
            f"{title.format(number=number, first=start + 1, last=start + texts)} {row}"
            for number, row in enumerate(rows)
        )


async def orders(
    url: str, *, senders: int = 3, texts: int = 30, size: int = 65_000, receive_buffer: int = 4096
) -> Orders:
    """Let several members send `texts` texts each, all at the same time; return the order that each member saw."""
    members = [RoomClient(url, f"member-{number}", receive_buffer=receive_buffer) for number in range(senders + 1)]

    async def talk(member: RoomClient) -> None:
        with contextlib.suppress(ConnectionClosed, ConnectionError):
            for number in range(texts):
                await member.send(f"#{members.index(member)}.{number} ".ljust(size, "."))

    async with _in_the_room(members):
        await asyncio.gather(*map(talk, members[:senders]))
        await _until_quiet(lambda: [len(_labels(each)) for each in members], goal=senders * texts)
    return Orders(tuple(tuple(_labels(each)) for each in members), senders * texts, url)


def _labels(member: RoomClient) -> list[str]:
    """Return the labels of the numbered texts that a member received, in order."""
    return [text.partition("#")[2].split(" ", 1)[0] for text in member.received if "#" in text]


@contextlib.asynccontextmanager
async def _in_the_room(members: Sequence[RoomClient]) -> AsyncIterator[None]:
    try:
        for member in members:
            await member.connect()
        yield
    finally:
        await asyncio.gather(*(member.vanish() for member in members))


async def _until_quiet(counts: Callable[[], list[int]], *, goal: int, quiet: float = 1.5, limit: float = 15.0) -> None:
    """Wait until every count is `goal`, or none has changed for `quiet` seconds, or `limit` seconds have passed."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit):
            before, since = counts(), time.monotonic()
            while min(before) < goal and time.monotonic() - since < quiet:
                await asyncio.sleep(0.02)
                if (now := counts()) != before:
                    before, since = now, time.monotonic()


@dataclass(frozen=True)
class Crowd:
    """Members who all sent at once: how many texts each received, and the code it was closed with (None: open)."""

    received: tuple[int, ...]
    codes: tuple[int | None, ...]
    sent: int
    url: str = ""

    @property
    def closed(self) -> int:
        """The number of members that the room disconnected with 1011, internal error."""
        return self.codes.count(INTERNAL_ERROR)


async def all_at_once(url: str, *, senders: int = 8, texts: int = 20) -> Crowd:
    """Let `senders` members send `texts` short texts each, all at the same time."""
    async with contextlib.AsyncExitStack() as stack:
        members = [await stack.enter_async_context(open_member(url)) for __ in range(senders)]
        received = [0] * senders

        async def listen(number: int) -> None:
            async for text in members[number]:
                received[number] += number_in(str(text)) is not None

        async def talk(member: ClientConnection) -> None:
            with contextlib.suppress(ConnectionClosed):
                for number in range(texts):
                    await member.send(f"#{number} ")

        listeners = [asyncio.create_task(listen(number)) for number in range(senders)]
        await asyncio.gather(*map(talk, members))
        await _until_quiet(lambda: list(received), goal=senders * texts)
        await _until_closed(members)
        await cancel(listeners)
        return Crowd(tuple(received), tuple(each.close_code for each in members), senders * texts, url)


async def _until_closed(members: Sequence[ClientConnection], seconds: float = 5.0) -> None:
    """Wait for the connections that have begun to close: only then is their code known."""
    closing = [asyncio.create_task(each.wait_closed()) for each in members if each.state is not State.OPEN]
    if closing:
        await asyncio.wait(closing, timeout=seconds)
        await cancel(closing)


@dataclass(frozen=True)
class Freed:
    """What became of a room in which one member had stopped reading.

    `silence` is the longest time in which a reader received nothing; `sender` and `reader` are the codes that these two
    were closed with, None if they are connected; `works` tells whether a newcomer's text reached the reader at the end.
    """

    silence: float
    sender: int | None
    reader: int | None
    works: bool
    url: str = ""
    seconds: float = 5.0  # the longest time that the experiment may take
    pace: float = 0.01  # seconds between two texts


async def until_freed(url: str, *, seconds: float = 5.0, pace: float = 0.01, size: int = 32 * 1024) -> Freed:
    """Let one member stop reading while another sends a text of `size` octets every `pace` seconds.

    It ends when the room closes the sender, or when `seconds` have passed.
    """
    stalled = RoomClient(url, "stalled", receive_buffer=4096)
    async with _in_the_room([stalled]), open_member(url) as sender, open_member(url) as reader:
        stalled.stop_reading()
        arrivals = [time.monotonic()]

        async def listen() -> None:
            async for __ in reader:
                arrivals[len(arrivals) :] = [time.monotonic()]

        listener = asyncio.create_task(listen())
        with contextlib.suppress(TimeoutError, ConnectionClosed):
            async with asyncio.timeout(seconds):
                for number in count(1):
                    await sender.send(f"#{number} ".ljust(size, "·"))
                    await asyncio.sleep(pace)
        await asyncio.sleep(0)  # the reader has its turn
        works = await _speak(url, arrivals, attempts=max(10, round(2 * seconds)))
        await cancel([listener])
        silence = max(later - earlier for earlier, later in pairwise([*arrivals, time.monotonic()]))
        return Freed(silence, sender.close_code, reader.close_code, works, url, seconds, pace)


async def _speak(url: str, arrivals: list[float], *, attempts: int) -> bool:
    """Let newcomers send a text each, until the reader receives something after that; return whether it did.

    One is not enough: a newcomer that comes while the stalled member is being dropped is closed for it, too.
    """
    before = len(arrivals)
    for __ in range(attempts):
        async with open_member(url) as newcomer:
            await newcomer.send("#0 ")
            await _until_quiet(lambda: [len(arrivals)], goal=before + 1, quiet=0.5)
        if len(arrivals) > before:
            return True
    return False


@dataclass(frozen=True)
class Answer:
    """A server's answer to an opening handshake: the HTTP status, and the origin it was sent."""

    status: int
    origin: str
    url: str = ""

    @property
    def let_in(self) -> bool:
        """Whether the connection was upgraded."""
        return self.status == WELCOME


async def knock(url: str, *, origin: str) -> Answer:
    """Ask for a WebSocket with this `Origin`, as a browser does for a page of that origin; return the answer."""
    try:
        async with connect(url, origin=origin or None, proxy=None):  # type: ignore[arg-type]  # NewType of str
            return Answer(WELCOME, origin, url)
    except InvalidStatus as refused:
        return Answer(refused.response.status_code, origin, url)


async def knock_at(url: str, *paths: str) -> dict[str, int]:
    """Ask a server for a WebSocket at each of these paths; return the status of each answer."""
    return {path: (await knock(urlunsplit(urlsplit(url)._replace(path=path)), origin="")).status for path in paths}


@cache
def cookies() -> dict[str, Any]:
    """Return which cookies a browser sent with a WebSocket's handshake, by the page that opened it, as recorded."""
    found: dict[str, Any] = json.loads(COOKIES.read_text(encoding="utf-8"))
    return found


class CookieTable:
    """The recorded cookies as a table: a row for each kind of page, a column for each kind of cookie."""

    def __init__(self, pages: Mapping[str, Mapping[str, bool]]) -> None:
        words = {True: _("sent"), False: "-"}
        self.head = ["", *KINDS.values()]
        self.rows = [[title, *(words[pages[page][kind]] for kind in KINDS)] for page, title in PAGES.items()]

    def __repr__(self) -> str:
        width = max(map(len, PAGES.values())) + 2
        lines = (f"{title:{width}}" + "".join(f"{cell:14}" for cell in cells) for title, *cells in self._all())
        return "\n".join(line.rstrip() for line in lines)

    def _all(self) -> list[list[str]]:
        return [self.head, *self.rows]

    def _repr_html_(self) -> str:
        head = "".join(f"<th scope='col'>{escape(kind)}</th>" for kind in self.head[1:])
        rows = "".join(
            f"<tr><th scope='row' style='text-align:left'>{escape(title)}</th>"
            f"{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
            for title, *cells in self.rows
        )
        return f"<table><tr><td></td>{head}</tr>{rows}</table>"


def cookie_table() -> CookieTable:
    """Return which cookies the recorded browser sent, by the page and the kind of cookie."""
    return CookieTable(cookies()["pages"])


@contextlib.asynccontextmanager
async def open_member(url: str) -> AsyncIterator[ClientConnection]:
    """Yield the connection of a member without a name, compression and pings; abort it at the end."""
    connection = await connect(url, compression=None, proxy=None, max_queue=None, ping_interval=None)
    try:
        yield connection
    finally:
        connection.transport.abort()


async def cancel(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until they have ended; ignore their errors."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


# --- The verdicts ---


def c11(statuses: Mapping[str, int], url: str = "") -> Verdict:
    """Judge whether a handler answers at /room, and at no other of the paths that were tried."""
    elsewhere = [path for path, status in statuses.items() if path != "/room" and status != NOTHING_HERE]
    found = ", ".join(f"{path}: {status}" for path, status in statuses.items())

    async def again() -> Verdict:
        return c11(await knock_at(url, *statuses), url)

    return verdict(
        "C11",
        holds=statuses.get("/room") == WELCOME and len(statuses) > 1 and not elsewhere,
        because=_("another path answered, or /room did not"),
        measured=_("statuses: {found}").format(found=found),
        figure=Figure(_("other paths that were not a 404"), len(elsewhere), 0, at_least=False),
        again=again if url else None,
    )


def c12(foreign: Answer, named: Answer, listed: Answer) -> Verdict:
    """Judge what becomes of a foreign page: in the article's room, and in one that names its own origin (`listed`)."""
    as_claimed = [foreign.let_in, not named.let_in, listed.let_in]

    async def again() -> Verdict:
        return c12(*[await knock(each.url, origin=each.origin) for each in (foreign, named, listed)])

    return verdict(
        "C12",
        holds=all(as_claimed),
        because=_("the article's room refused the page, or a list of origins made no difference"),
        measured=_("foreign page: {open}; with a list of origins: {named}, and a page on the list: {listed}").format(
            open=foreign.status, named=named.status, listed=listed.status
        ),
        figure=Figure(_("answers as the claim says, of three"), as_claimed.count(True), len(as_claimed)),
        again=again if foreign.url else None,
    )


def c13(walking: BaseException | None, walking_a_copy: BaseException | None) -> Verdict:
    """Judge whether a registry has to be safe to change: what the loop raised over it, and over a copy of it."""
    itself, copy = (repr(error) if error else _("no error") for error in (walking, walking_a_copy))
    return verdict(
        "C13",
        holds=isinstance(walking, RuntimeError) and walking_a_copy is None,
        because=_("the loop over the registry itself went on, or the copy did not help"),
        measured=_("over the registry itself: {itself}; over a copy: {copy}").format(itself=itself, copy=copy),
        figure=Figure(_("loops over the registry itself that failed"), int(walking is not None), 1),
    )


def c14(text: str, received: Mapping[str, Sequence[str]]) -> Verdict:
    """Judge whether every member, the sender too, received `text` once, with the prefix before it."""
    line = PREFIX + text
    got_it = [name for name, texts in received.items() if list(texts).count(line) == 1 and text not in texts]
    return verdict(
        "C14",
        holds=len(got_it) == len(received),
        because=_("somebody did not receive it once"),
        measured=_("{count} of {members} received it once: {names}").format(
            count=len(got_it), members=len(received), names=", ".join(got_it)
        ),
        figure=Figure(_("members who received it once"), len(got_it), len(received)),
    )


def c15(logged: Sequence[str], lives: bool) -> Verdict:
    """Judge whether a member's disappearance was logged, and whether a text reached somebody after it."""
    after = _("a text sent afterwards arrived") if lives else _("a text sent afterwards did not arrive")
    return verdict(
        "C15",
        holds=len(logged) > 0 and lives,
        because=_("nothing was logged, or the room was silent afterwards"),
        measured=_("logged: {lines}; {after}").format(lines=list(logged), after=after),
        figure=Figure(_("errors logged"), len(logged), 1),
    )


def c16(during: int, after: int) -> Verdict:
    """Judge whether a session left: the number of sessions while it was open, and after it was closed."""
    return verdict(
        "C16",
        holds=after == during - 1,
        because=_("it is still in the registry"),
        measured=_("{during} sessions while it was open, {after} after its close").format(during=during, after=after),
        figure=Figure(_("sessions left"), after, during - 1, at_least=False),
    )


def c17(everybody_reads: Delays, stalled: Reception, crowd: Crowd) -> Verdict:
    """Judge what the article's room is enough for, from its delay, and from what stopped it."""
    conditions = {
        (True, True): _("everybody reads, and one member speaks at a time"),
        (True, False): _("everybody reads"),
        (False, True): _("one member speaks at a time"),
    }

    async def again() -> Verdict:
        measured = await delays(everybody_reads.url, everybody_reads.members)
        return c17(measured, await one_stalled(stalled.url), await all_at_once(crowd.url))

    return verdict(
        "C17",
        holds=everybody_reads.median < ENOUGH_SECONDS,
        when=conditions.get((stopped_after(stalled), crowd.closed > 0), ""),
        because=_("texts are late even when everybody reads"),
        measured=_("{members} members read: median {ms:.1f} ms; all spoke at once: {closed} disconnected").format(
            members=everybody_reads.members, ms=everybody_reads.median * 1000, closed=crowd.closed
        ),
        figure=Figure(
            _("time until the last member has a text"), everybody_reads.median, ENOUGH_SECONDS, "s", at_least=False
        ),
        again=again if everybody_reads.url else None,
    )


def f8(article: Reception, robust: Reception) -> Verdict:
    """Judge whether one member that stopped reading stopped the others, in the article's room and in the robust one."""
    runs = article, robust
    reached = _("{reached} of {sent} texts reached everybody; in the robust room {reached_now} of {sent_now}")

    async def again() -> Verdict:
        return f8(*[await one_stalled(run.url, seconds=run.seconds) for run in runs])

    return verdict(
        "F8",
        holds=stopped_after(article),
        fixed=not stopped_after(robust),
        because=_("everybody else went on receiving"),
        measured=reached.format(
            reached=article.reached, sent=article.sent, reached_now=robust.reached, sent_now=robust.sent
        ),
        figure=Figure(
            _("time of the last text that reached everybody"),
            _last(article),
            article.seconds * 0.75,
            "s",
            at_least=False,
        ),
        again=again if all(run.url for run in runs) else None,
    )


def f9(foreign: Answer, robust: Answer) -> Verdict:
    """Judge whether a foreign page is let in, and whether its handshake can carry cookies, as recorded."""
    carried = {page: sent for page, sent in cookies()["pages"].items() if page != OWN_PAGE and any(sent.values())}

    async def again() -> Verdict:
        return f9(*[await knock(each.url, origin=each.origin) for each in (foreign, robust)])

    return verdict(
        "F9",
        holds=foreign.let_in and bool(carried),
        fixed=not robust.let_in,
        when=_("the page is on the same site, or the cookie says SameSite=None and the browser sends such cookies"),
        because=_("the page was refused, or no cookie came with it"),
        measured=_("status {status}, in the robust room {now}; cookies as recorded in {browser}").format(
            status=foreign.status, now=robust.status, browser=cookies()["browser"]
        ),
        figure=Figure(_("kinds of page whose handshake carried cookies, in the recorded table"), len(carried), 1),
        again=again if foreign.url else None,
    )


def f12(article: Flood, limited: Flood, *, allowed: int = 20) -> Verdict:
    """Judge whether a flood reached a member whole, and whether a limit kept it to `allowed` texts."""

    async def again() -> Verdict:
        return f12(*[await flood(run.url, messages=run.sent) for run in (article, limited)], allowed=allowed)

    return verdict(
        "F12",
        holds=article.reached == article.sent,
        fixed=limited.reached <= allowed,
        because=_("some of the texts were held back"),
        measured=_("{reached} of {sent} texts reached a member; with a limit {limited}").format(
            reached=article.reached, sent=article.sent, limited=limited.reached
        ),
        figure=Figure(
            _("texts that got through ({limited} with the limit)").format(limited=limited.reached),
            article.reached,
            article.sent,
        ),
        again=again if article.url else None,
    )


def f13(article: Orders, robust: Orders) -> Verdict:
    """Judge whether members saw different orders, in the article's handler and in the robust room."""
    differs = article.first_difference

    async def again() -> Verdict:
        return f13(await orders(article.url), await orders(robust.url))

    return verdict(
        "F13",
        holds=differs is not None,
        fixed=robust.first_difference is None and robust.complete,
        because=_("all members saw one order in this run"),
        measured=_("first difference at text {first} of {sent}; in the robust room: {now}").format(
            first=differs or "-", sent=article.sent, now=robust.first_difference or "-"
        ),
        figure=Figure(_("places in the order where the members differ"), article.differences, 1),
        again=again if article.url else None,
    )


def f14(article: Crowd, robust: Crowd) -> Verdict:
    """Judge whether members who send at once are disconnected; the recording says what the article's program did."""
    recorded = recording()["room: eight senders at once"]["most are closed"]  # not shown: keys
    spring = _("most of eight were disconnected") if recorded else _("most of eight stayed")

    async def again() -> Verdict:
        return f14(await all_at_once(article.url), await all_at_once(robust.url))

    return verdict(
        "F14",
        holds=article.closed > 0,
        fixed=robust.closed == 0 and min(robust.received) == robust.sent,
        because=_("nobody was disconnected"),
        measured=_("{closed} of {all} disconnected, in the robust room {now}; recorded on {spring}: {recorded}").format(
            closed=article.closed,
            all=len(article.codes),
            now=robust.closed,
            spring=recording()["version"],
            recorded=spring,
        ),
        figure=Figure(_("senders disconnected with 1011"), article.closed, 1),
        again=again if article.url else None,
    )


def f17(article: Freed, robust: Freed) -> Verdict:
    """Judge whether the sender is disconnected for a member that stopped reading, here and in the recording."""
    recorded = recording()["room: a stalled member for 20 s"]["sender"]  # not shown: keys

    async def again() -> Verdict:
        return f17(*[await until_freed(run.url, seconds=run.seconds, pace=run.pace) for run in (article, robust)])

    return verdict(
        "F17",
        holds=article.sender == INTERNAL_ERROR,
        fixed=robust.sender is None and robust.works,
        because=_("the sender stayed connected"),
        measured=_("silence of {seconds:.1f} s, sender closed with {code}; recorded on {spring}: {recorded}").format(
            seconds=article.silence, code=article.sender, spring=recording()["version"], recorded=recorded
        ),
        figure=Figure(_("senders disconnected for another member"), int(article.sender == INTERNAL_ERROR), 1),
        again=again if article.url else None,
    )
