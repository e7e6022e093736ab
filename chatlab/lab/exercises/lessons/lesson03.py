"""Lesson 03: a line to broadcast, a handler that cleans up, origins to accept, and a broadcast that never blocks."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import socket
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from chatlab.lab.clients import MemberState, Reading, RoomClient
from chatlab.lab.exercises.exercise import Exercise, NotYet, obeying
from chatlab.lab.until import until
from chatlab.locale import _

__all__ = ["EXERCISES"]

LONG = 64 * 1024  # characters, too many for one write to a socket
TEXTS = 6  # long texts in a broadcast that is disturbed

# --- 03.1 ---


def line(name: str, text: str) -> str:
    who = f" from {name}" if name else ""
    return f"Server received{who}: {text}"


def check_line(answer: Callable[[str, str], object]) -> None:
    cases = [
        (
            "",
            "안녕",
            "Server received: 안녕",  # not shown: text on the wire
            _("without a name, the line has the article's form"),
        ),
        (
            "가람",
            "안녕",
            "Server received from 가람: 안녕",  # not shown: text on the wire
            _("with a name, the line says who sent the text"),
        ),
        (
            "가람",
            " 둘  칸 ",
            "Server received from 가람:  둘  칸 ",  # not shown: text on the wire
            _("the text itself is passed on unchanged"),
        ),
    ]
    for name, text, expected, rule in cases:
        call = f"line({name!r}, {text!r})"
        with obeying(rule, _("{call} should be {expected}").format(call=call, expected=repr(expected))):
            got = answer(name, text)
        if got != expected:
            evidence = _("{call} returned {got!r}, not {expected!r}")
            if got == expected.replace(": ", ":", 1):
                rule = _("one space follows the colon")
            raise NotYet(rule, evidence.format(call=call, got=got, expected=expected))


# --- 03.2 ---


async def handler(session: ServerConnection, sessions: set[ServerConnection]) -> None:
    sessions.add(session)
    try:
        async for text in session:
            for each in list(sessions):
                try:
                    await each.send(f"Server received: {text!s}")
                except ConnectionClosed:
                    sessions.discard(each)
    finally:
        sessions.discard(session)


class Sessions(set[ServerConnection]):
    """A set that is walked through in the order of joining, so that a check knows who comes after whom.

    Like any set, it raises `RuntimeError` when it changes while it is walked through.
    """

    def __init__(self) -> None:
        super().__init__()
        self._numbers: dict[ServerConnection, int] = {}

    def add(self, session: ServerConnection) -> None:
        """Add a session after all the others."""
        self._numbers.setdefault(session, len(self._numbers))
        super().add(session)

    def __iter__(self) -> Iterator[ServerConnection]:
        size = len(self)
        for each in sorted(super().__iter__(), key=lambda session: self._numbers.get(session, 0)):
            yield each
            if len(self) != size:
                raise RuntimeError("Set changed size during iteration")  # not shown: Python's own words


@contextlib.asynccontextmanager
async def room_of(handle: Callable[[ServerConnection], Awaitable[None]]) -> AsyncIterator[str]:
    """Serve with a learner's handler; its first error becomes the cause of a `NotYet`, or replaces a time-out."""
    errors: list[Exception] = []
    running: set[asyncio.Task[None] | None] = set()

    async def handle_and_keep_errors(session: ServerConnection) -> None:
        running.add(asyncio.current_task())
        try:
            await handle(session)
        except Exception as error:
            errors.append(error)

    async with serve(handle_and_keep_errors, "127.0.0.1", 0, compression=None) as server:
        try:
            yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        except (TimeoutError, NotYet) as broken:
            ours = [error for error in errors if not type(error).__module__.startswith("websockets")]
            if ours and isinstance(broken, NotYet):
                raise broken from ours[0]
            raise ours[0] if ours else broken from None
        else:
            for error in errors:
                if not type(error).__module__.startswith("websockets"):
                    raise NotYet(_("a handler raises nothing, however the sessions end")) from error
        finally:
            for task in filter(None, running):
                task.cancel()  # a handler that never ends must not block the check


@contextlib.asynccontextmanager
async def members(url: str, *names: str) -> AsyncIterator[list[RoomClient]]:
    """Connect clients to the room, and drop their connections afterwards."""
    clients = [RoomClient(url, name) for name in names]
    try:
        for client in clients:
            await client.connect()
        yield clients
    finally:
        await asyncio.gather(*(client.vanish() for client in clients))


async def wait_or(
    condition: Callable[[], bool], rule: str, evidence: Callable[[], object], *, timeout: float = 1
) -> None:
    """Wait briefly for `condition`; raise `NotYet(rule)` if it does not come true."""
    try:
        await until(condition, timeout=timeout)
    except TimeoutError:
        raise NotYet(rule, evidence()) from None


async def check_handler(answer: Callable[[ServerConnection, set[ServerConnection]], Awaitable[None]]) -> None:
    if not inspect.iscoroutinefunction(answer):
        raise NotYet(_("a handler waits for texts, so it must be an `async def`"), answer)
    sessions = Sessions()
    async with room_of(lambda session: answer(session, sessions)) as url, members(url, "가람", "Nuri") as (garam, nuri):
        await wait_or(lambda: len(sessions) == 2, _("a session is added to `sessions` when it opens"), lambda: sessions)
        await _expect_broadcast(garam, nuri)
        await _join_during_a_broadcast(url, sessions, garam, nuri)
        await _expect_sessions(sessions, 2, "하늘")
        await _leave_politely(url, sessions)
        await _go_during_a_broadcast(url, sessions, garam, nuri)
        await _expect_sessions(sessions, 2, "바다")
        await nuri.vanish()
        await _expect_sessions(sessions, 1, "Nuri")


async def _expect_sessions(sessions: Sessions, number: int, name: str) -> None:
    """Wait until `number` sessions are left, after `name` has vanished."""
    left = _("{name} vanished; the number of sessions is {count}, and should be {number}")
    await wait_or(
        lambda: len(sessions) == number,
        _("a session is removed from `sessions` however it ends, even if it just vanishes"),
        lambda: left.format(name=name, count=len(sessions), number=number),
    )


async def _say(client: RoomClient, text: str, rule: str) -> None:
    """Send a text; raise `NotYet(rule)` if the handler has ended, and the connection with it."""
    try:
        await client.send(text)
    except (ConnectionError, ConnectionClosed):
        evidence = _("{name} could not send {text!r}: the handler had ended, and then the server closes the connection")
        raise NotYet(rule, evidence.format(name=client.name, text=text)) from None


async def _expect_broadcast(garam: RoomClient, nuri: RoomClient) -> None:
    await _say(garam, "들려요?", _("the handler lasts as long as its session, and reads all its texts"))
    received = _("가람 sent {text!r}; {name} received {texts}")
    for client in (garam, nuri):
        await wait_or(
            lambda client=client: "Server received: 들려요?" in client.received,  # type: ignore[misc]  # not shown: text on the wire; mypy cannot infer a lambda's default
            _("every text goes to everybody, even the sender, as 'Server received: ' and the text"),
            lambda client=client: received.format(text="들려요?", name=client.name, texts=client.received),  # type: ignore[misc]  # as above
        )
    rule = _("a member may send more than one text")
    await _say(garam, "한 번 더", rule)
    await wait_or(
        lambda: "Server received: 한 번 더" in nuri.received,  # not shown: text on the wire
        rule,
        lambda: _("가람 sent two texts; Nuri received {texts}").format(texts=nuri.received),
    )


async def _join_during_a_broadcast(url: str, sessions: Sessions, garam: RoomClient, nuri: RoomClient) -> None:
    """Let a member join while the learner's loop waits for another, who stops reading for a while."""
    pausing, connection = await _join_and_stop_reading(url, sessions)
    sending = asyncio.create_task(_send_long_texts(garam))
    try:
        with contextlib.suppress(TimeoutError):  # a handler that never waits for a member cannot be interrupted
            await until(lambda: connection.transport.get_write_buffer_size() > LONG // 2, timeout=5)
        async with members(url, "하늘") as [haneul]:
            await until(lambda: len(sessions) == 4 or garam.state is MemberState.CLOSED)
            pausing.read(Reading.NORMALLY)
            await _expect_all_texts(garam, nuri)
            with contextlib.suppress(TimeoutError):  # nobody goes yet while a text is on its way
                await until(lambda: _has_the_last(pausing) and _has_the_last(haneul), timeout=2)
    finally:
        sending.cancel()
        await pausing.vanish()


async def _join_and_stop_reading(url: str, sessions: Sessions) -> tuple[RoomClient, ServerConnection]:
    """Return a member whose small buffers are soon full, and the server's end of its connection."""
    before = set(sessions)
    member = RoomClient(url, "pausing", receive_buffer=4096)
    await member.connect()
    await until(lambda: len(sessions) == len(before) + 1)
    [connection] = set(sessions) - before
    connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    member.stop_reading()
    return member, connection


async def _leave_politely(url: str, sessions: Sessions) -> None:
    """Let a member come and go with a close."""
    async with members(url, "바다") as [bada]:
        await until(lambda: len(sessions) == 3)
        await bada.close()
        await wait_or(
            lambda: len(sessions) == 2,
            _("a session is removed from `sessions` however it ends, also after a polite close"),
            lambda: _("바다 closed its connection, and {count} sessions are left, not 2").format(count=len(sessions)),
        )


async def _go_during_a_broadcast(url: str, sessions: Sessions, garam: RoomClient, nuri: RoomClient) -> None:
    """While the learner's loop waits for one member, let the next close politely, and then that one vanish.

    가람 and Nuri come before these two in the loop, and 하늘 after them.
    """
    garam.lines.clear()
    nuri.lines.clear()
    pausing, connection = await _join_and_stop_reading(url, sessions)
    async with members(url, "바다", "하늘") as [bada, haneul]:
        await until(lambda: len(sessions) == 5)
        sending = asyncio.create_task(_send_long_texts(garam))
        try:
            with contextlib.suppress(TimeoutError):  # as above
                await until(lambda: connection.transport.get_write_buffer_size() > LONG // 2, timeout=5)
            await bada.close()
            await pausing.vanish()
            await _expect_texts_though_two_have_gone(garam, nuri)
            await _expect_texts_after_those_who_went(haneul)
        finally:
            sending.cancel()
            await pausing.vanish()


async def _expect_texts_though_two_have_gone(garam: RoomClient, nuri: RoomClient) -> None:
    received = _(
        "two members went while a text waited for one of them; 가람 is {state}, Nuri received {count} of {total}"
    )
    await wait_or(
        lambda: garam.state is MemberState.CLOSED or len(_numbers_in(nuri)) == TEXTS,
        _("whoever goes while a text is on its way, politely or not, must not stop the text for the others"),
        lambda: received.format(state=garam.state.value, count=len(_numbers_in(nuri)), total=TEXTS),
        timeout=3,
    )
    if garam.state is MemberState.CLOSED:
        raise NotYet(
            _("whoever goes while a text is on its way, politely or not, must not cost the sender its connection"),
            received.format(state=garam.state.value, count=len(_numbers_in(nuri)), total=TEXTS),
        )


async def _expect_texts_after_those_who_went(haneul: RoomClient) -> None:
    received = _("{name} received {count} of {total} texts; she comes after those who left in the loop")
    await wait_or(
        lambda: len(_numbers_in(haneul)) == TEXTS,
        _("whoever has left must cost nobody a text: {name} missed one because another had left").format(name="하늘"),
        lambda: received.format(name="하늘", count=len(_numbers_in(haneul)), total=TEXTS),
        timeout=3,
    )


def _numbers_in(client: RoomClient) -> list[str]:
    """Return the long texts that a client received, without their filling."""
    return [text.rstrip("·") for text in client.received if "#" in text]


async def _expect_all_texts(garam: RoomClient, nuri: RoomClient) -> None:
    last = _("six long texts were sent; the last that Nuri received was {text!r}")
    await wait_or(
        lambda: _has_the_last(nuri) or garam.state is MemberState.CLOSED,
        _("after one member's pause, everybody receives what was sent during it"),
        lambda: last.format(text=nuri.received[-1][:30]),
        timeout=4,
    )
    if garam.state is MemberState.CLOSED:
        raise NotYet(
            _("a member may join while a text is being sent to the others: iterate over a copy of `sessions`"),
            _("하늘 joined while a text from 가람 was being sent, and that ended 가람's connection"),
        )


def _has_the_last(client: RoomClient) -> bool:
    """Tell whether a client received the last of the long texts."""
    return any(text.rstrip("·").endswith(f"#{TEXTS - 1} ") for text in client.received[-1:])


async def _send_long_texts(client: RoomClient) -> None:
    with contextlib.suppress(ConnectionClosed):
        for number in range(TEXTS):
            await client.send(f"#{number} ".ljust(LONG, "·"))


# --- 03.3 ---


def allowed(origin: str | None, ours: list[str]) -> bool:
    return origin is None or origin in ours


def check_allowed(answer: Callable[[str | None, list[str]], object]) -> None:
    ours = ["https://chat.example", "http://localhost:8888"]
    cases: list[tuple[str | None, bool, str]] = [
        ("https://chat.example", True, _("our own page may connect")),
        ("http://localhost:8888", True, _("every page on the list may connect, not only the first")),
        (None, True, _("a client without an Origin is not a browser, so it carries nobody's cookies")),
        ("https://evil.example", False, _("a page that is not on the list may not connect")),
        ("", False, _("an empty Origin is not a missing one: only None says that none was sent")),
        ("https://chat.example.evil.example", False, _("a name that begins like ours is not ours")),
        ("https://evilchat.example", False, _("a name that ends like ours is not ours")),
        ("https://chatxexample", False, _("a dot is a dot; in a regular expression it matches any character")),
        ("https://evil.example/?https://chat.example", False, _("a name that contains ours is not ours")),
        ("http://chat.example", False, _("another scheme is another origin")),
        ("https://chat.example:8443", False, _("another port is another origin")),
        ("null", False, _("a page without an origin sends 'null', which is not on the list")),
    ]
    for origin, expected, rule in cases:
        call = f"allowed({origin!r}, {ours})"
        with obeying(rule, _("{call} should be {expected}").format(call=call, expected=expected)):
            got = answer(origin, list(ours))
        if bool(got) is not expected:
            raise NotYet(rule, _("{call} returned {got!r}").format(call=call, got=got))
    if got := answer("https://chat.example", others := ["https://other.example"]):
        evidence = _("{call} returned {got!r}").format(call=f"allowed('https://chat.example', {others})", got=got)
        raise NotYet(_("`ours` is the list that is passed, and another list lets other pages in"), evidence)


# --- 03.4 ---


LONG = 64 * 1024  # octets of each long text, at least
MOST = 1_000_000  # octets that may wait for one member
FEW = MOST // LONG // 2  # long texts that may wait without any doubt
MANY = 40  # long texts, more than may wait
SLACK = 3 * LONG  # a text may be under way when the limit is looked at


async def broadcast(sessions: set[ServerConnection], text: str) -> None:
    from websockets.asyncio.server import broadcast as send_at_once

    slow = {each for each in sessions if each.transport.get_write_buffer_size() > 1_000_000}
    for each in slow:
        each.transport.abort()
    send_at_once(sessions - slow, text)


async def check_broadcast(answer: Callable[[set[ServerConnection], str], Awaitable[None]]) -> None:
    if not inspect.iscoroutinefunction(answer):
        raise NotYet(_("it may have to wait, so it must be an `async def`"), answer)
    sessions: set[ServerConnection] = set()
    waiting = _Waiting()

    async def handle(session: ServerConnection) -> None:
        sessions.add(session)
        waiting.sessions.add(session)
        try:
            async for text in session:
                await answer(sessions, waiting.counted(str(text)))
        finally:
            sessions.discard(session)

    async with room_of(handle) as url, members(url, "가람", "Nuri") as (garam, nuri):
        await garam.send("첫째")
        both = _("가람 sent {text!r}; 가람 received {garam}, Nuri received {nuri}")
        await wait_or(
            lambda: "첫째" in garam.received and "첫째" in nuri.received,
            _("every text goes to everybody, even the sender"),
            lambda: both.format(text="첫째", garam=garam.received, nuri=nuri.received),
        )
        await _expect_that_a_stalled_member_blocks_nobody(url, garam, nuri, waiting)
        await _expect_that_a_vanished_member_disturbs_nobody(url, garam, nuri)


class _CountedText(str):
    """A text that can be referred to weakly, so that it can be seen whether somebody still holds it."""


class _Waiting:
    """What the server holds for members: bytes in the connections' buffers, and long texts in queues or tasks."""

    def __init__(self) -> None:
        self.sessions: set[ServerConnection] = set()
        self._texts: weakref.WeakValueDictionary[int, _CountedText] = weakref.WeakValueDictionary()

    def counted(self, text: str) -> str:
        counted = _CountedText(text)
        if len(text) >= LONG:
            self._texts[id(counted)] = counted
        return counted

    @property
    def octets(self) -> int:
        gc.collect()
        buffered = [each.transport.get_write_buffer_size() for each in self.sessions if not each.transport.is_closing()]
        return max([*buffered, LONG * len(self._texts)], default=0)


async def _expect_that_a_stalled_member_blocks_nobody(
    url: str, garam: RoomClient, nuri: RoomClient, waiting: _Waiting
) -> None:
    rule = _("a member who does not read must block nobody, least of all the sender")
    before = set(waiting.sessions)
    stalled = RoomClient(url, "stalled", receive_buffer=4096)
    await stalled.connect()
    stalled.stop_reading()
    await until(lambda: len(waiting.sessions) > len(before))
    [connection] = waiting.sessions - before
    connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    try:
        for number in range(80):
            await asyncio.wait_for(garam.send(f"#{number} ".ljust(LONG, "·")), 2)
            if number + 1 == FEW:
                await _expect_a_pause_to_be_allowed(connection, nuri)
            if number + 1 == MANY:
                await _expect_little_to_wait(waiting, MANY)
        sent = _("{total} long texts were sent; Nuri, who reads, received {count} of them")
        await wait_or(
            lambda: any(text.startswith("#79 ") for text in nuri.received),
            rule,
            lambda: sent.format(total=80, count=len(_numbers(nuri))),
            timeout=3,
        )
        await _expect_little_to_wait(waiting, 80)
        await wait_or(
            lambda: connection.state is not State.OPEN or connection.transport.is_closing(),
            _("a member for whom too much waits is disconnected; otherwise it would miss texts and never know"),
            lambda: _("one member read nothing while 80 long texts were sent, and its connection is still open"),
        )
    except TimeoutError:
        blocked = _("가람 could not send any more; Nuri received {count} of {total} long texts")
        raise NotYet(rule, blocked.format(count=len(_numbers(nuri)), total=80)) from None
    finally:
        await stalled.vanish()
    if (numbers := _numbers(nuri)) != [f"#{number}" for number in range(80)]:
        raise NotYet(
            _("everybody receives every text once, in the order it was sent"),
            _("Nuri received {texts}").format(texts=" ".join(numbers)),
        )


async def _expect_little_to_wait(waiting: _Waiting, texts: int) -> None:
    held = _("one member read nothing while {texts} long texts were sent; {count:,} bytes were waiting for it")
    await wait_or(
        lambda: waiting.octets <= MOST + SLACK,
        _("at most 1,000,000 bytes may wait for one member; after that, end its connection"),
        lambda: held.format(texts=texts, count=waiting.octets),
    )


async def _expect_a_pause_to_be_allowed(connection: ServerConnection, nuri: RoomClient) -> None:
    """Expect that a member for whom less than the limit waits is still connected, once Nuri has all texts."""
    with contextlib.suppress(TimeoutError):  # the check after all texts says who is held up
        await until(lambda: len(_numbers(nuri)) >= FEW, timeout=2)
    if connection.state is not State.OPEN or connection.transport.is_closing():
        ended = _("one member paused while {count} texts of 64 KiB were sent, and its connection was closed")
        raise NotYet(_("who pauses for a moment stays: up to 1,000,000 bytes may wait"), ended.format(count=FEW))


def _numbers(client: RoomClient) -> list[str]:
    """Return the numbers of the long texts that a client received, as "#7"."""
    return [text.split(" ", 1)[0] for text in client.received if text.startswith("#")]


async def _expect_that_a_vanished_member_disturbs_nobody(url: str, garam: RoomClient, nuri: RoomClient) -> None:
    async with members(url, "바다") as [bada]:
        await bada.vanish()
        await garam.send("아직 있어요?")
        last = _("바다 vanished, then 가람 sent a text; the last that Nuri received was {text!r}")
        await wait_or(
            lambda: "아직 있어요?" in nuri.received,
            _("a member who has vanished must disturb nobody"),
            lambda: last.format(text=nuri.received[-1][:20]),
        )


EXERCISES = [
    Exercise(
        "03.1",
        _("The line that is broadcast"),
        check_line,
        (
            _("There are two forms: with a name and without. An empty name counts as no name."),
            _("Build the middle first: ' from 가람' or nothing. Then put it between 'Server received' and ': '."),
            _('f"Server received{who}: {text}", where who is f" from {name}" if name else "".'),
        ),
        line,
        _("The prefix is the article's. The name comes before the text, so no text can be mistaken for a name."),
        learned=_(
            "The prefix and its fields have a fixed order, so that every receiver reads the line alike: that is a "
            "message format."
        ),
        leads_to=_('A member calls herself "Nuri: hello". What do the others see, and who should prevent it?'),
    ),
    Exercise(
        "03.2",
        _("A handler that tidies up"),
        check_handler,
        (
            _("Add the session, loop over the texts, remove the session. Which block runs however the loop ends?"),
            _("`async for text in session:` ends when the session does; the block `finally:` always runs after it."),
            _(
                "Send with `await each.send(...)` to each of `list(sessions)`: a copy, because the set changes while "
                "you wait."
            ),
            _(
                "In the copy there may be a member who has gone by now. `send` then raises `ConnectionClosed`, in the "
                "sender's handler. Catch it there, around that one `send`, and go on with the next member."
            ),
        ),
        handler,
        _(
            "`finally` runs after a close, an error and a lost connection alike. `except` is around one `send`, so a "
            "member who has gone costs the others nothing. The room still waits for one that does not read: 03.4."
        ),
        learned=_(
            "`finally` runs however the connection ends: cleaning up on every path is what keeps a server from "
            "leaking sessions."
        ),
        leads_to=_("A member's network cable is pulled out. When does your `finally` run?"),
    ),
    Exercise(
        "03.3",
        _("Whose page may come in"),
        check_allowed,
        (
            _("Compare whole strings. Every cleverer comparison has let somebody in."),
            _("An origin is scheme, host and port together: https://chat.example is not http://chat.example."),
            _("Two kinds of client may connect: without an Origin, or with one that is exactly as on the list."),
        ),
        allowed,
        _("`in` compares exactly. Real sites were broken into through startswith, endswith and regular expressions."),
        learned=_(
            "A page of another site is refused by its Origin: what you have prevented is cross-site WebSocket "
            "hijacking."
        ),
        leads_to=_("Your chat moves to a second address, and both must work for a month. What changes in your list?"),
    ),
    Exercise(
        "03.4",
        _("A room that nobody holds up"),
        check_broadcast,
        (
            _("If you await `send`, you wait for that member. So which members may you await?"),
            _(
                "The library has a function for this in websockets.asyncio.server: it sends the text to everybody and "
                "waits for nobody. Your function has the same name, so import it under another: "
                "`from websockets.asyncio.server import broadcast as to_all`, then `to_all(sessions, text)`."
            ),
            _(
                "Texts that a member does not read now stay in memory. So look before you send: "
                "`session.transport.get_write_buffer_size()` is the number of bytes that wait for a member, and "
                "`session.transport.abort()` ends the connection of a member with too many."
            ),
        ),
        broadcast,
        _(
            "Nobody is awaited, so nobody can block anybody. The bytes that wait for a slow member have a limit, so "
            "memory does not fill up. chatlab.net.fanout does the same, but sends a Close first, and joins the texts "
            "for one member into one write."
        ),
        learned=_(
            "One slow consumer no longer holds up the fan-out: its buffer is bounded, and past the bound it is "
            "disconnected."
        ),
        leads_to=_("The slow member comes back. Who could tell it what it has missed?"),
    ),
]
