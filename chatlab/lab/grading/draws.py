"""Values drawn for one notebook: an answer that knows only the values of the checks fails here.

    await draw(exercise, answer, random)        raises `NotYet` where the answer and the reference solution differ

The checks in the lessons use the same values for everybody, so that they can be looked up and pasted. A notebook is
judged with other ones as well, which are the same whenever that notebook is judged. A plain function is called with
drawn arguments, `TRIES` times, and has to return what the reference solution returns. A function that talks to a server
or to a broker has to handle drawn texts. Left out: answers that are themselves a value (01.0, 06.0), and exercises
whose checks count or time what happens, whatever the text: 02.4, 04.3, 04.4, 04.5, 05.0 and 07.5.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random
from typing import Any, Final

from websockets.asyncio.client import connect

from chatlab.lab.exercises.exercise import Exercise, NotYet
from chatlab.lab.exercises.lessons import lesson03
from chatlab.lab.exercises.support.chat import chat_in_memory
from chatlab.lab.exercises.support.redis import client, fresh, watched_broker
from chatlab.lab.exercises.support.rooms import JoinedRoom, two_servers
from chatlab.lab.exercises.support.streams import serving, upgrade
from chatlab.lab.until import until
from chatlab.locale import _
from chatlab.stomp.frames import Frame, Parser

__all__ = ["DRAWN", "draw"]

TRIES: Final = 12
SECONDS: Final = 5.0
LETTERS: Final = "abcdefghijklmnopqrstuvwxyz가나다라마바사아자차카타파하0123456789"


def text(random: Random, length: int = 0) -> str:
    """Return a text that no check has."""
    return "".join(random.choices(LETTERS, k=length or random.randint(4, 20)))


async def draw(exercise: Exercise, answer: Any, random: Random) -> None:
    """Raise `NotYet` if the answer fails with values drawn from `random`."""
    if arguments := ARGUMENTS.get(exercise.id):
        for __ in range(TRIES):
            _compare(exercise, answer, arguments(random))
    elif conversation := CONVERSATIONS.get(exercise.id):
        try:
            async with asyncio.timeout(SECONDS):
                await conversation(answer, random)
        except TimeoutError:
            raise NotYet(_with_drawn_values(), _("it did not finish")) from None


def _with_drawn_values() -> str:
    return _("it works with any values, not only with those of the notebook's check")


def _compare(exercise: Exercise, answer: Any, given: tuple[Any, ...]) -> None:
    used, own = copy.deepcopy(given), copy.deepcopy(given)
    expected = exercise.solve(*used)
    try:
        got = answer(*own)
    except Exception as error:
        raise NotYet(_with_drawn_values(), _call(exercise, given)) from error
    if _plain(got) != _plain(expected) or _left(own) != _left(used):
        evidence = _("{call} returned {got!r}, not {expected!r}")
        raise NotYet(_with_drawn_values(), evidence.format(call=_call(exercise, given), got=got, expected=expected))


def _left(given: tuple[Any, ...]) -> list[bytes]:
    """Return what a function has left in its bytearrays; line ends before the next frame do not count."""
    return [bytes(each).lstrip(b"\n") for each in given if isinstance(each, bytearray)]


def _call(exercise: Exercise, given: tuple[Any, ...]) -> str:
    return f"{exercise.solve.__name__}({', '.join(map(repr, given))})"


def _plain(value: Any) -> Any:
    """Return a value in which lists and tuples, and bytes and bytearrays, are equal."""
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, set | frozenset):
        return frozenset(value)
    return bytes(value) if isinstance(value, bytearray) else value


def _expect(got: object, expected: object) -> None:
    if _plain(got) != _plain(expected):
        raise NotYet(_with_drawn_values(), _("got {got!r}, not {expected!r}").format(got=got, expected=expected))


# --- Arguments of plain functions ---


def _key(random: Random) -> str:
    return b64encode(random.randbytes(16)).decode()


def _request(random: Random) -> tuple[bytes, list[str]]:
    ours = [f"https://{text(random, 6).encode('idna').decode()}.example" for __ in range(3)]
    origin = random.choice([*ours, "https://other.example", f"{ours[0]}.example"])
    lines = [
        f"{random.choice(['GET', 'GET', 'GET', 'PUT'])} /{random.randint(0, 999)} HTTP/1.1",
        f"Host: h{random.randint(0, 999)}.example",
        "Upgrade: websocket",  # not shown: bytes
        f"Connection: {random.choice(['Upgrade', 'keep-alive, Upgrade', 'keep-alive'])}",  # not shown: bytes
        f"Sec-WebSocket-Key: {_key(random)}",
        f"Sec-WebSocket-Version: {random.choice(['13', '13', str(random.randint(1, 12))])}",
        f"Origin: {origin}",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode(), ours


def _heard(random: Random) -> tuple[bytes]:
    frames = [bytes([0x82, size]) + random.randbytes(size) for size in random.choices(range(100), k=3)]
    close = bytes([0x88, 2]) + random.choice([1000, 1001, random.randint(3000, 4999)]).to_bytes(2, "big")
    return (b"".join(frames) + random.choice([close, close, bytes([0x88, 0]), b""]),)


def _frames(random: Random) -> tuple[list[tuple[bool, int, bytes]]]:
    frames: list[tuple[bool, int, bytes]] = []
    for __ in range(random.randint(1, 4)):
        whole, kind = text(random).encode(), random.choice([1, 2])
        cut = random.randrange(len(whole))
        ping = [(True, 9, random.randbytes(3))] * random.randint(0, 1)
        frames += [(False, kind, whole[:cut]), *ping, (True, 0, whole[cut:])]
    return (frames,)


def _kept(random: Random) -> tuple[list[tuple[str, str]], str]:
    ids = sorted((random.randint(1, 30), random.randint(0, 12)) for __ in range(8))
    ids = list(dict.fromkeys(ids))
    last = random.choice(ids)
    return [(f"{time}-{number}", text(random)) for time, number in ids], f"{last[0]}-{last[1]}"


def _beats(random: Random) -> tuple[str, str]:
    def beat() -> str:
        return f"{random.choice([0, random.randint(1, 60_000)])},{random.choice([0, random.randint(1, 60_000)])}"

    return beat(), beat()


def _debts(random: Random) -> tuple[list[str], str, list[str]]:
    sent = [f"{text(random, 5)}-{number}" for number in range(random.randint(2, 8))]
    acks = random.sample(sent, random.randint(0, len(sent) - 1))
    return sent, random.choice(["auto", "client", "client-individual"]), acks


def _held(random: Random) -> tuple[bytearray]:
    frames = b""
    for __ in range(random.randint(1, 3)):
        body = text(random).encode() + random.choice([b"", b"\0", b"\n\n"])
        frames += f"MESSAGE\nsubscription:{text(random, 4)}\ncontent-length:{len(body)}\n\n".encode() + body + b"\0\n"
    return (bytearray(frames + b"MESSAGE\nsubscription:1\n"),)


def _octets(random: Random) -> tuple[bytes]:
    data = text(random, random.choice([5, 300])).encode()
    return (
        random.choice([b"\xac\xed\x00\x05t", b"\xac\xed\x00\x05t", b"plain"]) + len(data).to_bytes(2, "big") + data,
    )


def _run(random: Random) -> tuple[list[str], dict[str, list[str]]]:
    promised = [f"{text(random, 4)}-{number}" for number in range(4)]
    shown = {}
    for name in ("가람", "Nuri"):
        texts = random.sample(promised, random.randint(3, 4))
        shown[name] = texts + random.choices(texts, k=random.randint(0, 1))
    return promised, shown


ARGUMENTS: dict[str, Callable[[Random], tuple[Any, ...]]] = {
    "01.1": lambda random: (_key(random),),
    "01.3": _request,
    "01.4": _heard,
    "02.1": lambda random: (random.randbytes(random.randint(0, 40)), random.randbytes(4)),
    "02.2": lambda random: (random.choice([1, 2]), random.choice([random.randint(0, 200), random.randint(0, 1 << 33)])),
    "02.3": _frames,
    "03.1": lambda random: (random.choice([text(random), ""]), text(random)),
    "03.3": lambda random: _origin(random),
    "04.1": _kept,
    "06.2": _beats,
    "06.3": _debts,
    "06.4": _held,
    "07.0": _octets,
    "07.1": _run,
}


def _origin(random: Random) -> tuple[str | None, list[str]]:
    ours = [f"https://{text(random, 6)}.example" for __ in range(3)]
    return random.choice([*ours, None, "https://other.example", f"{ours[0]}:8080", f"{ours[1]}.example"]), ours


# --- Conversations with functions that wait ---


async def _upgrade_request(answer: Any, random: Random) -> None:
    host, path, key = f"h{random.randint(0, 999)}.example", f"/{random.randint(0, 999)}", _key(random)
    lines = answer(host, path, key).decode().split("\r\n")
    _expect(lines[0], f"GET {path} HTTP/1.1")
    said = {name.lower(): value.strip() for name, __, value in (line.partition(":") for line in lines[1:])}
    _expect((said.get("host"), said.get("sec-websocket-key")), (host, key))


async def _newsroom(answer: Any, random: Random) -> None:
    texts = [text(random) for __ in range(3)]

    async def news() -> AsyncIterator[str]:
        for each in texts:
            yield each

    async with (
        serving(lambda reader, writer: answer(reader, writer, news())) as served,
        connect(served.url, compression=None, proxy=None) as listener,
    ):
        _expect([each async for each in listener], texts)


async def _echo(answer: Any, random: Random) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upgrade(reader, writer)
        await answer(reader, writer)

    async with serving(serve) as served, connect(served.url, compression=None, proxy=None) as speaker:
        for message in (text(random), random.randbytes(random.randint(130, 999)), text(random, 300)):
            await speaker.send(message)
            _expect(await speaker.recv(), message)


async def _in_a_room(handle: Callable[[Any], Awaitable[None]], said: str, heard: str) -> None:
    async with lesson03.room_of(handle) as url, lesson03.members(url, "가람", "Nuri") as (speaker, listener):
        await speaker.send(said)
        with contextlib.suppress(TimeoutError):
            await until(lambda: heard in speaker.received and heard in listener.received, timeout=2)
        _expect([each for each in listener.received if each == heard], [heard])


async def _handler(answer: Any, random: Random) -> None:
    sessions: set[Any] = set()
    said = text(random)
    heard = f"Server received: {said}"  # not shown: text on the wire
    await _in_a_room(lambda session: answer(session, sessions), said, heard)


async def _broadcast(answer: Any, random: Random) -> None:
    sessions: set[Any] = set()

    async def handle(session: Any) -> None:
        sessions.add(session)
        async for each in session:
            await answer(sessions, each)

    said = text(random)
    await _in_a_room(handle, said, said)


async def _both_hear(answer: Any, random: Random) -> None:
    async with fresh("drawn") as topic, watched_broker() as broker:
        said = text(random)
        _expect(await answer(broker, topic, said), [said, said])


async def _bridge(answer: Any, random: Random) -> None:
    said = text(random)
    async with (
        fresh("drawn") as topic,
        watched_broker() as broker,
        two_servers(JoinedRoom) as (here, there),
        _running(asyncio.gather(*(answer(each.room, broker, topic) for each in (here, there)))),
    ):
        await until(lambda: broker.open == 2, timeout=2)
        async with lesson03.members(here.url, "가람") as [speaker], lesson03.members(there.url, "Nuri") as [listener]:
            await speaker.send(said)
            await until(lambda: any(said in each for each in listener.received), timeout=2)


async def _partition(answer: Any, random: Random) -> None:
    for __ in range(TRIES):
        room, count = text(random), random.randint(2, 64)
        got = {answer({"room": room, "text": text(random)}, count) for __ in range(3)}
        if len(got) != 1 or not got <= set(range(count)):
            raise NotYet(
                _with_drawn_values(), _("room {room!r} of {count}: {got}").format(room=room, count=count, got=got)
            )


async def _follow(answer: Any, random: Random) -> None:
    await _shown(answer, random, "body", asynchronous=True)


async def _relay(answer: Any, random: Random) -> None:
    await _shown(answer, random, "text", asynchronous=False)


async def _shown(answer: Any, random: Random, field: str, *, asynchronous: bool) -> None:
    """Let the answer follow a stream of drawn texts, and expect that it shows them."""
    shown: list[str] = []

    async def show_later(each: str) -> None:
        shown.append(each)

    texts = [text(random) for __ in range(5)]
    async with fresh("drawn") as stream, client() as redis:
        for each in texts[:3]:
            await redis.xadd(stream, {field: each})
        show = show_later if asynchronous else shown.append
        async with _running(answer(redis, stream, "0-0", show)):
            await until(lambda: len(shown) >= 3, timeout=2)
            for each in texts[3:]:
                await redis.xadd(stream, {field: each})
            await until(lambda: len(shown) >= 5, timeout=3)
        _expect(shown, texts)


@contextlib.asynccontextmanager
async def _running(work: Any) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _catch_up(answer: Any, random: Random) -> None:
    texts = [text(random) for __ in range(4)]
    async with fresh("drawn") as stream, client() as redis:
        ids = [await redis.xadd(stream, {"body": each}) for each in texts]
        _expect(await answer(redis, stream, ids[1]), texts[2:])


async def _publish_once(answer: Any, random: Random) -> None:
    said, key = text(random), text(random)
    async with fresh("drawn") as stream, client() as redis:
        for __ in range(2):
            await answer(redis, stream, said, key)
        stored: Any = await redis.xrange(stream)
        _expect([fields["body"] for __, fields in stored], [said])


async def _my_broker(answer: Any, random: Random) -> None:
    said = text(random).encode()
    async with fresh("drawn") as topic, client(decode=False) as redis:
        broker = answer(redis)
        records = await broker.subscribe(topic)
        waiting = asyncio.ensure_future(anext(aiter(records)))
        await asyncio.sleep(0)
        await broker.publish(topic, said)
        try:
            _expect(bytes((await waiting).body), said)
        finally:
            with contextlib.suppress(Exception):
                await records.aclose()


async def _serialize(answer: Any, random: Random) -> None:
    headers = {"destination": f"/topic/{text(random)}", "note": text(random) + random.choice([":", "\\", "\n", ""])}
    body = text(random)
    frame = next(iter(Parser(version="1.2").feed(answer("SEND", dict(headers), body))))
    assert isinstance(frame, Frame)
    said = {name: value for name, value in frame.headers if name != "content-length"}
    _expect((frame.command, said, frame.body.decode()), ("SEND", headers, body))


async def _converse(answer: Any, random: Random) -> None:
    texts = [text(random) for __ in range(2)]
    async with chat_in_memory() as server:
        _expect(await answer(server.url, f"/topic/{random.randint(1000, 9999)}", texts), texts)


async def _by_sockjs(answer: Any, random: Random) -> None:
    frames, sent = [text(random) for __ in range(3)], list[str]()
    received = [f"CONNECTED\n{text(random)}", f"MESSAGE\n{text(random)}"]
    answers = ["o\n", *(f"a{json.dumps([each])}\n" for each in received)]

    async def ask(path: str, body: str = "") -> str:
        if path.endswith("/xhr"):
            await asyncio.sleep(0)
            return answers.pop(0) if answers else 'c[3000,"Go away!"]\n'
        sent.extend(json.loads(body))
        return ""

    _expect(await answer(ask, list(frames)), received)
    _expect(sent, frames)


async def _send_until_stored(answer: Any, random: Random) -> None:
    said, tries = text(random), list[tuple[str, str]]()

    async def send(each: str, client_id: str) -> None:
        tries.append((each, client_id))
        if len(tries) == 1:
            raise ConnectionError

    await answer(send, said)
    _expect([each for each, __ in tries], [said, said])


async def _resume(answer: Any, random: Random) -> None:
    texts, shown, live = [text(random) for __ in range(5)], list[str](), asyncio.Queue[tuple[str, str]]()
    records = [(f"{random.randint(3, 8)}-{number}", each) for number, each in enumerate(texts)]
    records.sort(key=lambda record: tuple(map(int, record[0].split("-"))))

    async def history(last: str | None) -> list[tuple[str, str]]:
        return records[:3]

    async def subscribe() -> asyncio.Queue[tuple[str, str]]:
        return live

    for record in records[2:]:
        live.put_nowait(record)
    async with _running(answer(history, subscribe, "1-0", shown.append)):
        await until(lambda: len(shown) >= 5, timeout=2)
    _expect(shown, [each for __, each in records])


CONVERSATIONS: dict[str, Callable[[Any, Random], Awaitable[None]]] = {
    "01.2": _upgrade_request,
    "01.5": _newsroom,
    "02.5": _echo,
    "03.2": _handler,
    "03.4": _broadcast,
    "04.0": _both_hear,
    "04.2": _bridge,
    "05.1": _partition,
    "05.2": _follow,
    "05.3": _catch_up,
    "05.4": _publish_once,
    "05.5": _my_broker,
    "06.1": _serialize,
    "06.5": _converse,
    "06.6": _by_sockjs,
    "07.2": _send_until_stored,
    "07.3": _resume,
    "07.4": _relay,
}
DRAWN: frozenset[str] = frozenset(ARGUMENTS | CONVERSATIONS)
"""The exercises for which values are drawn."""
