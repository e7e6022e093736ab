"""Lesson 03: a line to broadcast, a handler that tidies up, an origin to let in, and a room that nobody holds up."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from chatlab.lab.clients import MemberState, Reading, RoomClient
from chatlab.lab.exercises.exercise import Exercise, NotYet
from chatlab.lab.until import until

__all__ = ["EXERCISES"]

LONG = 64 * 1024  # characters of a text that one write does not get rid of

# --- 03.1 ---


def line(name: str, text: str) -> str:
    who = f" from {name}" if name else ""
    return f"Server received{who}: {text}"


def check_line(answer: Callable[[str, str], object]) -> None:
    cases = [
        ("", "안녕", "Server received: 안녕", "a text from somebody without a name has the article's form"),
        ("가람", "안녕", "Server received from 가람: 안녕", "a text from somebody with a name says who it is from"),
        ("가람", " 둘  칸 ", "Server received from 가람:  둘  칸 ", "the text itself is passed on as it came"),
    ]
    for name, text, expected, rule in cases:
        if (got := answer(name, text)) != expected:
            raise NotYet(rule, f"line({name!r}, {text!r}) gave {got!r}, not {expected!r}")


# --- 03.2 ---


async def handler(session: ServerConnection, sessions: set[ServerConnection]) -> None:
    sessions.add(session)
    try:
        async for text in session:
            for each in list(sessions):
                await each.send(f"Server received: {text!s}")
    finally:
        sessions.discard(session)


@contextlib.asynccontextmanager
async def room_of(handle: Callable[[ServerConnection], Awaitable[None]]) -> AsyncIterator[str]:
    """A server around a learner's handler; an error in it is raised when the check is through."""
    errors: list[Exception] = []
    running: set[asyncio.Task[None] | None] = set()

    async def handle_and_tell(session: ServerConnection) -> None:
        running.add(asyncio.current_task())
        try:
            await handle(session)
        except Exception as error:
            errors.append(error)

    async with serve(handle_and_tell, "127.0.0.1", 0, compression=None) as server:
        try:
            yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        except (TimeoutError, NotYet) as broken:
            ours = [error for error in errors if not type(error).__module__.startswith("websockets")]
            if ours and isinstance(broken, NotYet):
                raise broken from ours[0]
            raise ours[0] if ours else broken from None
        finally:
            for task in filter(None, running):
                task.cancel()  # a handler that never ends must not keep the check from ending


@contextlib.asynccontextmanager
async def members(url: str, *names: str) -> AsyncIterator[list[RoomClient]]:
    """Clients that are in the room, and out of it again afterwards."""
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
    """Wait a moment for `condition`; if it does not come true, `rule` is what is broken."""
    try:
        await until(condition, timeout=timeout)
    except TimeoutError:
        raise NotYet(rule, evidence()) from None


async def check_handler(answer: Callable[[ServerConnection, set[ServerConnection]], Awaitable[None]]) -> None:
    if not inspect.iscoroutinefunction(answer):
        raise NotYet("a handler waits for texts, so it must be an `async def`", answer)
    sessions: set[ServerConnection] = set()
    async with room_of(lambda session: answer(session, sessions)) as url, members(url, "가람", "Nuri") as (garam, nuri):
        await wait_or(lambda: len(sessions) == 2, "a session goes into `sessions` when it opens", lambda: sessions)
        await garam.send("들려요?")
        for client in (garam, nuri):
            await wait_or(
                lambda client=client: "Server received: 들려요?" in client.received,  # type: ignore[misc]  # mypy cannot infer a lambda's default
                "every text goes to everybody, the sender too, as 'Server received: ' and the text",
                lambda client=client: f"가람 sent '들려요?'; {client.name} received {client.received}",  # type: ignore[misc]  # as above
            )
        await garam.send("한 번 더")
        await wait_or(
            lambda: "Server received: 한 번 더" in nuri.received,
            "a member may send more than one text",
            lambda: f"가람 sent two; Nuri received {nuri.received}",
        )
        await _with_one_who_joins_meanwhile(url, sessions, garam, nuri)
        await nuri.vanish()
        await wait_or(
            lambda: len(sessions) == 1,
            "a session leaves `sessions` however it ends, also when it just vanishes",
            lambda: f"Nuri vanished, and {len(sessions)} sessions are left",
        )


async def _with_one_who_joins_meanwhile(
    url: str, sessions: set[ServerConnection], garam: RoomClient, nuri: RoomClient
) -> None:
    """Let somebody in while the learner's loop waits for a member who does not read for a moment."""
    before = set(sessions)
    pausing = RoomClient(url, "pausing", receive_buffer=4096)
    await pausing.connect()
    await until(lambda: len(sessions) == 3)
    [link] = sessions - before
    link.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    pausing.stop_reading()
    talking = asyncio.create_task(_talk(garam))
    try:
        with contextlib.suppress(TimeoutError):  # who does not wait for a member has nothing to be interrupted in
            await until(lambda: link.transport.get_write_buffer_size() > LONG // 2, timeout=5)
        async with members(url, "하늘"):
            await until(lambda: len(sessions) == 4 or garam.state is MemberState.CLOSED)
            pausing.read(Reading.NORMALLY)
            await wait_or(
                lambda: nuri.received[-1].rstrip("·").endswith("#5 ") or garam.state is MemberState.CLOSED,
                "after a pause of one member everybody hears what was said meanwhile",
                lambda: f"six long texts were sent; Nuri's last was {nuri.received[-1][:30]!r}",
                timeout=4,
            )
            if garam.state is MemberState.CLOSED:
                raise NotYet(
                    "somebody may join while a text is on its way to the others: walk through a copy of `sessions`",
                    "하늘 joined while a text of 가람's was on its way, and that ended 가람's connection",
                )
    finally:
        talking.cancel()
        await pausing.vanish()


async def _talk(client: RoomClient) -> None:
    with contextlib.suppress(ConnectionClosed):
        for number in range(6):
            await client.send(f"#{number} ".ljust(LONG, "·"))


# --- 03.3 ---


def allowed(origin: str | None, ours: list[str]) -> bool:
    return origin is None or origin in ours


def check_allowed(answer: Callable[[str | None, list[str]], object]) -> None:
    ours = ["https://chat.example", "http://localhost:8888"]
    cases: list[tuple[str | None, bool, str]] = [
        ("https://chat.example", True, "our own page may come in"),
        ("http://localhost:8888", True, "every page on the list may come in, not only the first"),
        (None, True, "who sends no Origin is no browser, and has nobody's cookies"),
        ("https://evil.example", False, "a page that is not on the list may not"),
        ("https://chat.example.evil.example", False, "a name that begins like ours is not ours"),
        ("https://evil.example/?https://chat.example", False, "a name that contains ours is not ours"),
        ("http://chat.example", False, "another scheme is another origin"),
        ("https://chat.example:8443", False, "another port is another origin"),
        ("null", False, "'null' is what a page without an origin says, and it is not on the list"),
    ]
    for origin, expected, rule in cases:
        if bool(got := answer(origin, list(ours))) is not expected:
            raise NotYet(rule, f"allowed({origin!r}, {ours}) gave {got!r}")


# --- 03.4 ---


async def broadcast(sessions: set[ServerConnection], text: str) -> None:
    from websockets.asyncio.server import broadcast as send_at_once

    slow = {each for each in sessions if each.transport.get_write_buffer_size() > 1_000_000}
    for each in slow:
        each.transport.abort()
    send_at_once(sessions - slow, text)


async def check_broadcast(answer: Callable[[set[ServerConnection], str], Awaitable[None]]) -> None:
    if not inspect.iscoroutinefunction(answer):
        raise NotYet("it may have to wait, so it must be an `async def`", answer)
    sessions: set[ServerConnection] = set()

    async def handle(session: ServerConnection) -> None:
        sessions.add(session)
        try:
            async for text in session:
                await answer(sessions, str(text))
        finally:
            sessions.discard(session)

    async with room_of(handle) as url, members(url, "가람", "Nuri") as (garam, nuri):
        await garam.send("첫째")
        await wait_or(
            lambda: "첫째" in garam.received and "첫째" in nuri.received,
            "every text goes to everybody, the sender too",
            lambda: f"가람 sent '첫째'; 가람 received {garam.received}, Nuri {nuri.received}",
        )
        await _with_one_who_does_not_read(url, garam, nuri)
        await _with_one_who_vanished(url, garam, nuri)


async def _with_one_who_does_not_read(url: str, garam: RoomClient, nuri: RoomClient) -> None:
    stalled = RoomClient(url, "stalled", receive_buffer=4096)
    await stalled.connect()
    stalled.stop_reading()
    try:
        for number in range(80):
            await asyncio.wait_for(garam.send(f"#{number} ".ljust(64 * 1024, "·")), 2)
        await wait_or(
            lambda: any(text.startswith("#79 ") for text in nuri.received),
            "one who does not read must hold up nobody, and the sender least of all",
            lambda: f"80 long texts were sent; Nuri, who reads, received {_numbered(nuri)} of them",
            timeout=3,
        )
    except TimeoutError:
        raise NotYet(
            "one who does not read must hold up nobody, and the sender least of all",
            f"가람 could not send any more; Nuri received {_numbered(nuri)} of 80 long texts",
        ) from None
    finally:
        await stalled.vanish()
    heard = [text.split(" ", 1)[0] for text in nuri.received if text.startswith("#")]
    if heard != [f"#{number}" for number in range(80)]:
        raise NotYet("everybody hears every text once, in the order it was sent", f"Nuri heard {' '.join(heard)}")


def _numbered(client: RoomClient) -> int:
    return sum(text.startswith("#") for text in client.received)


async def _with_one_who_vanished(url: str, garam: RoomClient, nuri: RoomClient) -> None:
    async with members(url, "바다") as [gone]:
        await gone.vanish()
        await garam.send("아직 있어요?")
        await wait_or(
            lambda: "아직 있어요?" in nuri.received,
            "one who has vanished must disturb nobody",
            lambda: f"바다 vanished, then 가람 sent a text; Nuri's last was {nuri.received[-1][:20]!r}",
        )


EXERCISES = [
    Exercise(
        "03.1",
        "The line that is broadcast",
        check_line,
        (
            "There are two forms: with a name, and without. An empty name is no name.",
            "Build the middle first: ' from 가람' or nothing. Then put it between 'Server received' and ': '.",
            'f"Server received{who}: {text}", where who is f" from {name}" if name else "".',
        ),
        line,
        "The prefix is the article's; the name goes where nothing a member types can be taken for it.",
    ),
    Exercise(
        "03.2",
        "A handler that tidies up",
        check_handler,
        (
            "In, then a loop over the texts, then out. Which word runs however a block ends?",
            "`async for text in session:` ends when the session does; what is in `finally:` runs after it in any case.",
            "Send with `await each.send(...)` for each of `list(sessions)`: a copy, as the set changes while you wait.",
        ),
        handler,
        "`finally` is the whole trick: a close, an error and a lost connection all end in the same line.",
    ),
    Exercise(
        "03.3",
        "Whose page may come in",
        check_allowed,
        (
            "Compare whole strings. Everything cleverer has let somebody in.",
            "An origin is scheme, host and port together: https://chat.example is not http://chat.example.",
            "Two ways to be let in: there is no Origin at all, or it is on the list, letter for letter.",
        ),
        allowed,
        "`in` compares exactly. startswith, endswith and regular expressions are how real sites were broken into.",
    ),
    Exercise(
        "03.4",
        "A room that nobody holds up",
        check_broadcast,
        (
            "Who awaits `send` waits for that member. So who must not be awaited?",
            "The library has one in websockets.asyncio.server: it hands the text to everybody and waits for nobody. "
            "Your function has its name, so import it under another: "
            "`from websockets.asyncio.server import broadcast as to_all`, then `to_all(sessions, text)`.",
            "That is all the check asks for. But what a member does not read is now kept in memory, and nothing limits "
            "it. So go one step further: `session.transport.get_write_buffer_size()` says how much waits for a member, "
            "and `session.transport.abort()` ends the connection of one who has too much.",
        ),
        broadcast,
        "Nobody is awaited, so nobody can hold up anybody; and what waits for one who does not read has a limit, so "
        "that memory has one. chatlab.net.fanout does the same, says goodbye first, and joins what goes to one member.",
    ),
]
