"""Lesson 07: a ledger, a client that repeats itself, a return without a gap, a relay that outlives Redis, a chat."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from redis.asyncio import Redis
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import WebSocketException

from chatlab.brokers.port import KeepsHistory
from chatlab.brokers.redis.connections import url as redis_url
from chatlab.chat import article as as_in_the_article
from chatlab.clients.stomp import StompClient
from chatlab.errors import StompError
from chatlab.lab.exercises.exercise import Exercise, NotYet
from chatlab.lab.exercises.lessons.lesson03 import wait_or
from chatlab.lab.exercises.support.chat import chat_in_memory
from chatlab.lab.exercises.support.members import (
    Member,
    MortalRedis,
    Serving,
    members,
    mortal_redis,
    serving,
    without_retries,
)
from chatlab.lab.exercises.support.redis import client, fresh
from chatlab.lab.exercises.support.rooms import Running, at_work, first_few, must_wait
from chatlab.lab.experiments.lesson07 import member, said
from chatlab.lab.runtime import lab
from chatlab.lab.until import until
from chatlab.lab.wire.wire import Wire

__all__ = ["EXERCISES"]

# --- 07.1 ---


def judge(promised: list[str], shown: dict[str, list[str]]) -> tuple[set[str], set[str], bool]:
    lost = {text for text in promised for texts in shown.values() if text not in texts}
    repeated = {text for texts in shown.values() for text in texts if texts.count(text) > 1}
    orders = [list(dict.fromkeys(texts)) for texts in shown.values()]
    same = True
    for one in orders:
        for other in orders:
            if [text for text in one if text in other] != [text for text in other if text in one]:
                same = False
    return lost, repeated, same


Found = tuple[set[str], set[str], bool]
NO_DISORDER = {  # what may be taken for one
    "repeated": "a repeat is no disorder: what counts is when a text was shown first",
    "lost": "a loss is no disorder: look at the texts that both were shown",
}
LEDGERS: list[tuple[list[str], dict[str, list[str]], Found, str]] = [
    (["a", "b"], {"가람": ["a", "b"], "Nuri": ["a", "b"]}, (set(), set(), True), "where all is well, nothing is found"),
    (["a", "b"], {"가람": ["a", "b"], "Nuri": ["a"]}, ({"b"}, set(), True), "what one member was not shown is lost"),
    (["a", "b"], {"가람": ["a"], "Nuri": ["a"]}, ({"b"}, set(), True), "what nobody was shown is lost, too"),
    (
        ["a"],
        {"가람": ["a", "x"], "Nuri": ["a"]},
        (set(), set(), True),
        "what was not promised may be shown to some, and is not lost",
    ),
    (["a"], {"가람": ["a", "a"], "Nuri": ["a"]}, (set(), {"a"}, True), "what somebody was shown twice is repeated"),
    (
        ["a"],
        {"가람": ["a", "x", "x"], "Nuri": ["a", "x"]},
        (set(), {"x"}, True),
        "what was not promised must not be shown twice either",
    ),
    (
        ["a", "b"],
        {"가람": ["a", "b"], "Nuri": ["b", "a"]},
        (set(), set(), False),
        "two members who were shown two texts in another order disagree",
    ),
    (
        ["a", "b"],
        {"하늘": ["a", "b"], "가람": ["a", "b"], "Nuri": ["b", "a"]},
        (set(), set(), False),
        "any two members may disagree, not only the first two",
    ),
    (["a", "b", "c"], {"가람": ["a", "c"], "Nuri": ["a", "b", "c"]}, ({"b"}, set(), True), NO_DISORDER["lost"]),
    (["a", "b"], {"가람": ["a", "b", "a"], "Nuri": ["a", "b"]}, (set(), {"a"}, True), NO_DISORDER["repeated"]),
]
JUDGED = ("lost", "repeated", "the same order")


async def check_judge(answer: Callable[[list[str], dict[str, list[str]]], Any]) -> None:
    for promised, shown, wanted, rule in LEDGERS:
        _judged(answer, promised, shown, wanted, rule)
    promised, shown = await _a_run_of_the_articles_build()
    _judged(
        answer, promised, shown, judge(promised, shown), "the article's own build, run a moment ago, is judged right"
    )


def _judged(
    answer: Callable[..., Any], promised: list[str], shown: dict[str, list[str]], wanted: Found, rule: str
) -> None:
    got = answer(list(promised), {name: list(texts) for name, texts in shown.items()})
    if not isinstance(got, tuple) or len(got) != 3:
        raise NotYet("it returns three things: the lost, the repeated, and whether the order is the same", repr(got))
    for name, mine, right in zip(JUDGED, got, wanted, strict=True):
        if (set(mine) if isinstance(right, set) else bool(mine)) != right:
            if right is True:
                rule = NO_DISORDER["repeated" if wanted[1] else "lost"] if wanted[0] or wanted[1] else rule
            told = "\n".join(f"{who} was shown {texts}" for who, texts in shown.items())
            raise NotYet(rule, f"promised: {promised}\n{told}\n{name}: you found {mine!r}, not {right!r}")


async def _a_run_of_the_articles_build() -> tuple[list[str], dict[str, list[str]]]:
    """Two instances of the article's build share twelve texts: what was promised, and what each member was shown."""
    url = redis_url.in_database(await lab.redis(), 9)  # a database of its own: the stream's name is fixed
    async with Redis.from_url(url) as redis:
        await redis.delete("chat-stream")
        await redis.xgroup_create("chat-stream", "chat-group", id="0", mkstream=True)
        async with await as_in_the_article.start(url) as one, await as_in_the_article.start(url) as two:
            garam, nuri = await member(one.url, "가람"), await member(two.url, "Nuri")
            for number in range(12):
                await garam.send(f"메시지 {number}")
            await until(lambda: len(garam.received) + len(nuri.received) == 24)
            await asyncio.gather(garam.close(), nuri.close())
        await redis.delete("chat-stream")
    return garam.stored, {each.name: [text.strip('"') for text in said(each)] for each in (garam, nuri)}


# --- 07.2 ---


async def send_until_stored(send: Callable[[str, str], Awaitable[None]], text: str) -> None:
    import asyncio
    import uuid

    client_id = uuid.uuid4().hex
    while True:
        try:
            async with asyncio.timeout(0.5):
                return await send(text, client_id)
        except (ConnectionError, TimeoutError):
            await asyncio.sleep(0.1)


Send = Callable[[Callable[[str, str], Awaitable[None]], str], Awaitable[None]]


class Line:
    """A line to a real chat, a new connection for each try; it notes the tries, and what the chat has kept."""

    def __init__(self, broker: KeepsHistory, wire: Wire) -> None:
        self.wire = wire
        self.broker = broker
        self.tries: list[str] = []
        self._client_key = secrets.token_hex(16)  # each try is the same guest's
        self.refuses = False

    async def send(self, text: str, client_id: str) -> None:
        """One try: returns with the RECEIPT, raises ConnectionError if the connection is lost, or waits for ever."""
        self.tries.append(f"{text!r} under {client_id!r}")
        # The topic itself takes nothing from a member: the server answers such a SEND with ERROR.
        where = "/topic/public" if self.refuses else "/app/chat.sendMessage"
        stomp = StompClient(self.wire.url, login="가람", client_key=self._client_key, reconnect=False)
        await stomp.connect()
        try:
            await stomp.send(where, json.dumps({"content": text, "client_id": client_id}))
        finally:
            stomp.drop()  # a polite close would wait for a line that may be dead
            await stomp.aclose(0)

    async def kept(self) -> list[str]:
        """The texts that the chat has kept."""
        return [json.loads(record.body)["content"] for record in await self.broker.history("chat-stream")]

    def __str__(self) -> str:
        many = f"\n… {len(self.tries)} tries" if len(self.tries) > 6 else ""
        return "\n".join(f"try {number}: {told}" for number, told in enumerate(self.tries[:6], 1)) + many


async def check_send_until_stored(answer: Send) -> None:
    must_wait(answer)
    for case in (_a_good_line, _lost_before_it_arrived, _lost_after_it_was_kept, _silence, _nobody_there, _refused):
        async with chat_in_memory() as server, Wire(server.url) as wire:
            broker = server.service.broker
            assert isinstance(broker, KeepsHistory)
            await case(answer, Line(broker, wire))


async def _says(answer: Send, line: Line, text: str, rule: str, *, seconds: float = 2) -> None:
    """Let the answer send `text`; if it raises or does not end in time, `rule` is broken."""
    try:
        async with asyncio.timeout(seconds):
            await answer(line.send, text)
    except TimeoutError:
        raise NotYet(rule, f"{line}\nand then yours still waited") from None
    except (ConnectionError, StompError) as error:
        raise NotYet(rule, f"{line}\nand then yours raised {type(error).__name__}: {error}") from None


async def _keeps(line: Line, texts: list[str], rule: str) -> None:
    if (kept := await line.kept()) != texts:
        raise NotYet(rule, f"{line}\nthe chat has kept {kept}, not {texts}")


async def _a_good_line(answer: Send, line: Line) -> None:
    await _says(answer, line, "네", "where nothing goes wrong, it returns when the receipt has come")
    await _keeps(line, ["네"], "a text is sent, and when its receipt has come, not again")
    await _says(answer, line, "네", "where nothing goes wrong, it returns when the receipt has come")
    await _keeps(line, ["네", "네"], "the same words said again are another message: a client_id of their own")


async def _lost_before_it_arrived(answer: Send, line: Line) -> None:
    line.wire.when(line.wire.reset, layer="stomp", kind="SEND")
    await _says(answer, line, "들려요?", "when the connection is lost before the receipt, it tries again")
    await _keeps(line, ["들려요?"], "what was lost before it arrived is sent again")


async def _lost_after_it_was_kept(answer: Send, line: Line) -> None:
    line.wire.when(line.wire.reset, layer="stomp", kind="RECEIPT", sender="server")
    await _says(answer, line, "한 번만", "when the connection is lost before the receipt, it tries again")
    await _keeps(line, ["한 번만"], "a repeat goes under the same client_id: only so can the chat know that it is one")


async def _silence(answer: Send, line: Line) -> None:
    line.wire.when(line.wire.half_open, layer="stomp", kind="SEND")
    await _says(answer, line, "여보세요", "a receipt that has not come after half a second will not come: try again")
    await _keeps(line, ["여보세요"], "what was lost without a word is sent again")


async def _nobody_there(answer: Send, line: Line) -> None:
    await line.wire.aclose()
    saying = asyncio.ensure_future(answer(line.send, "아직"))
    try:
        await asyncio.wait([saying], timeout=0.6)
        if saying.done():
            raise NotYet("when nobody is there, it tries again until somebody is", f"{line}{_ended(saying)}")
        if len(line.tries) > 30:
            raise NotYet("it waits a moment between two tries: whoever comes back is not to be trampled", line)
        await line.wire.start()
        await asyncio.wait([saying], timeout=4)
        if not saying.done() or saying.exception() is not None:
            raise NotYet("when nobody is there, it tries again until somebody is", f"{line}\nthen the server was back")
    finally:
        saying.cancel()
        await asyncio.wait([saying], timeout=1)
    await _keeps(line, ["아직"], "it tries until the text is kept, once")


async def _refused(answer: Send, line: Line) -> None:
    line.refuses = True
    with contextlib.suppress(TimeoutError, StompError):
        async with asyncio.timeout(0.6):
            await answer(line.send, "안녕")
    if len(line.tries) != 1:
        raise NotYet("what the server refuses (StompError) is not tried again: it would be refused again", line)


# --- 07.3 ---


async def resume(
    history: Callable[[str], Awaitable[list[tuple[str, str]]]],
    live: Callable[[], Awaitable[asyncio.Queue[tuple[str, str]]]],
    last: str,
    show: Callable[[str], None],
) -> None:
    def number(id: str) -> tuple[int, ...]:
        return tuple(int(part) for part in id.split("-"))

    news = await live()
    for id, text in await history(last):
        show(text)
        last = id
    while True:
        id, text = await news.get()
        if number(id) > number(last):
            show(text)
            last = id


class Room:
    """A stream on a real Redis, and the two ways to read it; `meanwhile` runs while history is on its way."""

    def __init__(self, redis: Any, stream: str) -> None:
        self.redis = redis
        self.stream = stream
        self.meanwhile: list[Callable[[], Awaitable[None]]] = []
        self.readers: list[asyncio.Task[None]] = []
        self.shown: list[str] = []
        self.order: list[str] = []

    async def write(self, id: str, text: str = "") -> None:
        await self.redis.xadd(self.stream, {"text": text or f"#{id}"}, id=id)

    async def history(self, after: str) -> list[tuple[str, str]]:
        self.order.append("history")
        before, behind = (*self.meanwhile, None, None)[:2]
        if before is not None:
            await before()
        records = await self.redis.xrange(self.stream, min=f"({after}")
        if behind is not None:
            await behind()
        await asyncio.sleep(0.05)  # long enough for what is new to be in the queue
        self.meanwhile.clear()
        return [(id, fields["text"]) for id, fields in records]

    async def live(self) -> asyncio.Queue[tuple[str, str]]:
        self.order.append("live")
        news: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        newest = await self.redis.xrevrange(self.stream, count=1)
        self.readers.append(asyncio.create_task(self._read(newest[0][0] if newest else "0-0", news)))
        return news

    async def _read(self, last: str, news: asyncio.Queue[tuple[str, str]]) -> None:
        while True:
            for _, records in await self.redis.xread({self.stream: last}, block=1000):
                for last, fields in records:
                    news.put_nowait((last, fields["text"]))


@contextlib.asynccontextmanager
async def _room_with(*ids: str) -> AsyncIterator[Room]:
    async with fresh("room") as stream, client() as redis:
        room = Room(redis, stream)
        for id in ids:
            await room.write(id)
        try:
            yield room
        finally:
            for reader in room.readers:
                reader.cancel()
            await asyncio.gather(*room.readers, return_exceptions=True)


async def check_resume(answer: Callable[..., Any]) -> None:
    must_wait(answer)
    async with _room_with("5-1", "5-2", "5-3") as room:
        async with _resuming(answer, room, "5-1"):
            await _shows(room, ["#5-2", "#5-3"], "first what came after the last id is shown, and not that one itself")
            await room.write("5-4")
            await _shows(room, ["#5-4"], "then what is new is shown, as it comes")
        _exactly(room, ["#5-2", "#5-3", "#5-4"])
    async with _room_with("5-7", "5-8") as room:
        # 5-9 comes when history is asked for, and is in it; 5-10 comes a moment later, and is not.
        room.meanwhile = [lambda: room.write("5-9"), lambda: room.write("5-10")]
        async with _resuming(answer, room, "5-7"):
            await _shows(room, ["#5-8", "#5-9"], "what history has is shown")
            await _misses_nothing(room)
            await room.write("5-11", "네")
            await room.write("5-12", "네")
            await _is(
                room,
                lambda: room.shown.count("네") == 2,
                "the same words said twice are two records: ids tell them apart",
            )
        _exactly(room, ["#5-8", "#5-9", "#5-10", "네", "네"])
    async with _room_with("5-1") as room, _resuming(answer, room, "5-1"):
        await _is(room, lambda: "live" in room.order, "who has missed nothing listens, too")
        await room.write("6-0")
        await _shows(room, ["#6-0"], "who has missed nothing is shown what is new")


@contextlib.asynccontextmanager
async def _resuming(answer: Callable[..., Any], room: Room, last: str) -> AsyncIterator[list[Running]]:
    async with at_work(answer(room.history, room.live, last, room.shown.append), what="the reader") as running:
        yield running


async def _is(room: Room, condition: Callable[[], bool], rule: str) -> None:
    await wait_or(condition, rule, lambda: f"shown: {room.shown}")


async def _shows(room: Room, texts: Sequence[str], rule: str) -> None:
    await _is(room, lambda: set(texts) <= set(room.shown), rule)


async def _misses_nothing(room: Room) -> None:
    """Tell the two ways to miss 5-10 apart: not listening yet, and taking it for older than 5-9."""
    with contextlib.suppress(TimeoutError):
        return await until(lambda: "#5-10" in room.shown, timeout=1)
    if room.order[0] == "history":
        raise NotYet(
            "listen first, and then ask for history: what comes between the two is missed otherwise",
            f"5-10 was written while history was on its way, and nobody listened yet; shown: {room.shown}",
        )
    raise NotYet(
        "an id is two numbers, and 5-10 comes after 5-9: compare them as numbers, not as texts",
        f"5-10 was written while history was on its way, and was in the queue; shown: {room.shown}",
    )


def _exactly(room: Room, texts: list[str]) -> None:
    if len(room.shown) > len(texts):
        raise NotYet("what history had may be in the queue as well, and is shown once", f"shown: {room.shown}")
    if room.shown != texts:
        raise NotYet("everything is shown in the order of the ids", f"shown: {room.shown}, not {texts}")


# --- 07.4 ---


async def relay(redis: Any, stream: str, last: str, show: Callable[[str], None]) -> None:
    import asyncio

    import redis as library

    wait = 0.05
    while True:
        try:
            for _, records in await redis.xread({stream: last}, block=1000):
                for id, fields in records:
                    show(fields["text"])
                    last = id
            wait = 0.05
        except library.exceptions.ConnectionError:
            await asyncio.sleep(wait)
            wait = min(2 * wait, 1)


async def check_relay(answer: Callable[..., Any]) -> None:
    must_wait(answer)
    shown: list[str] = []

    async def add(*numbers: int) -> None:
        for number in numbers:
            await mortal.direct.xadd(mortal.stream, {"text": f"#{number}"})

    async def shows(*numbers: int, rule: str) -> None:
        await _relayed(running, shown, [f"#{number}" for number in numbers], rule)

    async with mortal_redis() as mortal, contextlib.AsyncExitStack() as stack:
        await add(0, 1)
        last = (await mortal.direct.xrange(mortal.stream))[0][0]
        redis = await stack.enter_async_context(without_retries(mortal.wire.url))
        running = Running(answer(redis, mortal.stream, last, shown.append), "the relay")
        stack.callback(running.task.cancel)
        await add(2)
        await asyncio.wait([running.task], timeout=0.1)
        if running.task.done():
            running.look()
        await shows(1, 2, rule="it shows what came after the id it was given, and then what is new")
        await _outage(mortal, running, shown)
        await add(3)
        before = mortal.attempts
        await mortal.wire.start()
        with contextlib.suppress(TimeoutError):
            await until(lambda: mortal.attempts > before or running.task.done(), timeout=4)
        await shows(3, rule="back again, it goes on from the last id: what was written while it was away is shown")
        await add(4)
        await shows(4, rule="back again, it goes on as before")
        for number in (5, 6):  # one that has come back once can do it again
            mortal.wire.reset()
            await add(number)
            await shows(number, rule="it outlives every outage, not only the first")
        expected = [f"#{number}" for number in range(1, 7)]
        if shown != expected:
            raise NotYet(
                "each record is shown once, in order: the outage is no reason to begin again",
                f"shown: {first_few(shown)}",
            )
        await running.stop()


async def _relayed(running: Running, shown: list[str], texts: list[str], rule: str) -> None:
    with contextlib.suppress(TimeoutError):
        await until(lambda: set(texts) <= set(shown) or running.task.done(), timeout=1)
    if not set(texts) <= set(shown):
        raise NotYet(rule, f"written: {' '.join(texts)}; shown: {first_few(shown)}{_ended(running.task)}")


def _ended(task: asyncio.Future[None]) -> str:
    """How a learner's loop has ended, if it has."""
    if not task.done():
        return ""
    error = task.exception()
    return "\nyours has ended" + (f" with {type(error).__name__}: {error}" if error else "")


async def _outage(mortal: MortalRedis, running: Running, shown: list[str]) -> None:
    """Kill Redis, see what the relay does, and bring Redis back where the relay does not reach it yet."""
    before = mortal.attempts
    mortal.kill()
    await asyncio.wait([running.task], timeout=0.5)
    if running.task.done():
        raise NotYet("an outage does not end the relay", f"Redis was killed{_ended(running.task)}")
    if (attempts := mortal.attempts - before) > 40:
        raise NotYet(
            "between two attempts it waits a moment, or it burns a processor and tramples whoever comes back",
            f"Redis was away for half a second, and the relay tried {attempts} times to reach it",
        )
    await mortal.wire.aclose()
    await mortal.restart()


# --- 07.5 ---


async def handler(socket: Any, redis: Any, stream: str, after: str) -> None:
    import asyncio
    import json

    store_once = """
    local id = redis.call('GET', KEYS[2])
    if not id then
        id = redis.call('XADD', KEYS[1], '*', 'text', ARGV[1])
        redis.call('SET', KEYS[2], id, 'EX', 600)
    end
    return id
    """

    async def show(after: str) -> None:
        while True:
            for _, records in await redis.xread({stream: after}, block=1000):
                for after, fields in records:
                    await socket.send(json.dumps({"id": after, "text": fields["text"]}))

    async with asyncio.TaskGroup() as both:
        showing = both.create_task(show(after))
        async for message in socket:
            said = json.loads(message)
            key = f"{stream}:once:{said['client_id']}"
            await redis.eval(store_once, 2, stream, key, said["text"])
            await socket.send(json.dumps({"stored": said["client_id"]}))
        showing.cancel()


Handler = Callable[[ServerConnection, Any, str, str], Awaitable[None]]


class Chat:
    """Two servers around a learner's handler, on one Redis that may be killed."""

    def __init__(self, mortal: MortalRedis, one: Serving, two: Serving) -> None:
        self.mortal = mortal
        self.servers = (one, two)

    @property
    def urls(self) -> tuple[str, str]:
        return self.servers[0].url, self.servers[1].url

    async def stream(self) -> list[tuple[str, str]]:
        """What Redis has: (id, text)."""
        return [(id, fields.get("text", "")) for id, fields in await self.mortal.direct.xrange(self.mortal.stream)]

    def raise_what_the_handler_raised(self) -> None:
        for error in (error for server in self.servers for error in server.errors):
            raise error


async def check_handler(answer: Handler) -> None:
    must_wait(answer)
    async with contextlib.AsyncExitStack() as stack:
        mortal = await stack.enter_async_context(mortal_redis())
        redis = await stack.enter_async_context(without_retries(mortal.wire.url))

        async def handle(socket: ServerConnection, after: str) -> None:
            await answer(socket, redis, mortal.stream, after)

        chat = Chat(mortal, *[await stack.enter_async_context(serving(handle)) for _ in range(2)])
        try:
            await _tells_what_is_stored(chat)
            await _shows_everybody(chat)
            await _waits_for_redis(chat)
            await _lets_go(chat)
            await _a_run_with_trouble(chat)
        except NotYet:
            chat.raise_what_the_handler_raised()
            raise


async def _send(garam: Member, text: str, client_id: str) -> None:
    """Send once; where the connection is gone, no receipt will come, and that tells."""
    with contextlib.suppress(OSError, WebSocketException):
        await garam.send(text, client_id)


async def _tells_what_is_stored(chat: Chat) -> None:
    garam = Member("가람", chat.urls[0])
    async with members(garam):
        await _send(garam, "안녕 👋", "c-1")
        if not await garam.until(lambda: "c-1" in garam.stored):
            raise NotYet("a text that is stored is answered by its receipt, {'stored': client_id}", f"{garam.stored}")
        for _ in range(50):  # a receipt that came too early is another rule's affair
            if stored := await chat.stream():
                break
            await asyncio.sleep(0.01)
        if [text for _, text in stored] != ["안녕 👋"]:
            raise NotYet(
                "a text is added to the stream, in the field `text`",
                await chat.mortal.direct.xrange(chat.mortal.stream),
            )
        garam.stored.clear()
        await _send(garam, "안녕 👋", "c-1")
        again = await garam.until(lambda: "c-1" in garam.stored)
        if len(texts := await chat.stream()) != 1:
            raise NotYet("a repeat under the same client_id adds no second record", f"the stream has {texts}")
        if not again:
            raise NotYet("a repeat gets its receipt too: the first one may have been lost", "c-1 was sent twice")


async def _shows_everybody(chat: Chat) -> None:
    garam, nuri = Member("가람", chat.urls[0]), Member("Nuri", chat.urls[1])
    async with members(garam, nuri):
        await garam.say("둘째")
        for each in (garam, nuri):
            if not await each.until(lambda each=each: len(each.shown) >= 2):  # type: ignore[misc]  # mypy cannot infer a lambda's default
                raise NotYet(
                    "everybody on every server is shown every record, those before they came too",
                    f"the stream has {await chat.stream()}; {each.name} was shown {each.shown}",
                )
        stored = await chat.stream()
        for each in (garam, nuri):
            if each.shown != stored:
                raise NotYet("a record is shown as {'id': its id, 'text': its text}", f"{stored}; shown: {each.shown}")
    later = Member("하늘", chat.urls[1], after=stored[0][0])
    async with members(later):
        await later.until(lambda: bool(later.shown))
        if later.shown != stored[1:]:
            raise NotYet(
                "who comes back is shown what came after the id that it names, and nothing twice",
                f"the stream has {stored}; after {stored[0][0]} came {later.shown}",
            )


async def _waits_for_redis(chat: Chat) -> None:
    garam = Member("가람", chat.urls[0])
    async with members(garam):
        await garam.until(lambda: len(garam.shown) >= 2)
        chat.mortal.wire.stall(sender="client")
        try:
            await _send(garam, "셋째", "c-3")
            if await garam.until(lambda: "c-3" in garam.stored, 0.3):
                raise NotYet("a receipt comes when the record is stored, not before", "Redis had not been reached yet")
        finally:
            chat.mortal.wire.resume()
        if not await garam.until(lambda: "c-3" in garam.stored, 3):
            raise NotYet("a receipt comes when the record is stored", "Redis was slow for a moment, and then answered")


async def _lets_go(chat: Chat) -> None:
    with contextlib.suppress(TimeoutError):
        await until(lambda: not any(server.open for server in chat.servers), timeout=2.5)
    if any(server.open for server in chat.servers):
        raise NotYet("when a member is gone, its handler ends", "everybody has left, and a handler still runs")
    waiting = 1
    for _ in range(30):
        await asyncio.sleep(0.05)
        waiting = (await chat.mortal.direct.info("clients"))["blocked_clients"]
        if not waiting:
            break
    await asyncio.sleep(0.1)
    waiting = waiting or (await chat.mortal.direct.info("clients"))["blocked_clients"]
    if waiting:
        raise NotYet(
            "when a member is gone, what reads for it ends too, or readers pile up",
            f"everybody has left; Redis says that {waiting} still wait for records",
        )


async def _a_run_with_trouble(chat: Chat) -> None:
    """Three talk through two servers; the servers lose their connections in turn, then Redis is killed."""
    names = ("가람", "Nuri", "하늘")
    people = [Member(name, *(chat.urls if number % 2 else chat.urls[::-1])) for number, name in enumerate(names)]

    async def talk(each: Member) -> None:
        for number in range(12):
            await each.say(f"{each.name} {number}")
            await asyncio.sleep(0.04)

    async with members(*people):
        talking = asyncio.gather(*(talk(each) for each in people))
        try:
            for server in chat.servers:
                await asyncio.sleep(0.1)
                server.abort()
            await asyncio.sleep(0.1)
            chat.mortal.kill()
            await asyncio.sleep(0.1)
            await chat.mortal.restart()
            await asyncio.wait([talking], timeout=5)
            await _all_is_well(chat, people, talked=talking.done())
        finally:
            talking.cancel()
            await asyncio.gather(talking, return_exceptions=True)


async def _all_is_well(chat: Chat, people: list[Member], *, talked: bool) -> None:
    stored = await chat.stream()
    promised = [text for each in people for text in each.kept]
    await asyncio.gather(*(each.until(lambda each=each: set(promised) <= set(each.texts), 1.5) for each in people))  # type: ignore[misc]  # mypy cannot infer a lambda's default
    lost, repeated, same = judge(promised, {each.name: each.texts for each in people})
    texts = [text for _, text in stored]
    told = (
        f"{len(promised)} of 36 were promised; {sum(each.returns for each in people)} times somebody had to come back\n"
    )
    if len(set(texts)) < len(texts):
        raise NotYet("whatever happens, nothing is stored twice", told + f"the stream has {sorted(texts)}")
    if missing := set(promised) - set(texts):
        raise NotYet("what was promised is in the stream", told + f"{sorted(missing)} are not")
    if repeated:
        raise NotYet("whatever happens, nothing is shown twice", told + f"twice: {sorted(repeated)}")
    if lost or not talked:
        raise NotYet(
            "after an outage everybody goes on: where the reader dies the connection must end, so that the member "
            "returns",
            told + "\n".join(f"{each.name} was shown {len(each.shown)} of {len(texts)} records" for each in people),
        )
    if not same:
        raise NotYet(
            "everybody is shown the same order", told + "\n".join(f"{each.name}: {each.texts}" for each in people)
        )


EXERCISES = [
    Exercise(
        "07.1",
        "A ledger that judges a run",
        check_judge,
        (
            "Three questions, one after the other. Lost: for each promised text and each member, is it in that "
            "member's list? Repeated: for each member, which texts are in the list more than once (`texts.count(text) "
            "> 1`)?",
            "Order: take the first showing of each text alone, `list(dict.fromkeys(texts))` does that. Then take any "
            "two members, and of each list only the texts that the other has, too: these two lists must be equal.",
            "`[text for text in one if text in other] == [text for text in other if text in one]`, for every two "
            "lists. Return `lost, repeated, same`: two sets and a bool.",
        ),
        judge,
        "The three are kept apart because they have different causes: a loss is a missing replay, a repeat a missing "
        "id, and disorder two ways for one message. A ledger that mixes them up tells you nothing.",
    ),
    Exercise(
        "07.2",
        "Send until it is stored",
        check_send_until_stored,
        (
            "A loop that is left when `await send(text, client_id)` returns. What has to be the same in each round, "
            "and so must be made before the loop? `uuid.uuid4().hex` (`import uuid`) makes a text nobody else has.",
            "`try: ... except ConnectionError:` and in the except a short `await asyncio.sleep(0.1)`, so that the "
            "next round does not come at once. A StompError is not caught: the server has said no.",
            "A receipt may also just never come. `async with asyncio.timeout(0.5):` around the `await send(...)` "
            "raises TimeoutError; catch both: `except (ConnectionError, TimeoutError):`.",
        ),
        send_until_stored,
        "Whether a lost message was stored, nobody can tell from this side. So it is said again, under the same id, "
        "and the server, which can tell, keeps it once. Neither half is worth anything without the other.",
    ),
    Exercise(
        "07.3",
        "Back without a gap",
        check_resume,
        (
            "There are two sources: what was kept, and what is new. Something is always written between the two "
            "questions. In which order must you ask, so that it is in both at worst, and never in none?",
            "`news = await live()` first. Then `for id, text in await history(last):`, in which each text is shown "
            "and `last = id`; after it `last` is the id that was shown last. Then an endless loop: `id, text = await "
            "news.get()`.",
            "In the loop show only what comes after `last`: the rest was in history already. An id is two numbers: "
            "`tuple(int(part) for part in id.split('-'))`. Compare those, show, and set `last = id`.",
        ),
        resume,
        "Listening first turns a gap, which nobody can mend, into a repeat, which the ids show. "
        "`chatlab.chat.delivery.replay` does the same for every SUBSCRIBE with a `last-id`.",
    ),
    Exercise(
        "07.4",
        "A relay that outlives Redis",
        check_relay,
        (
            "An endless loop around a read that waits: `await redis.xread({stream: last}, block=1000)` gives a list of "
            "`(stream, records)`, each record `(id, fields)`; empty if nothing came in a second. The text is "
            "`fields['text']`.",
            "After each record set `last` to its id: it is all that the relay has to remember. Then an outage is "
            "nothing: the next read begins where the last one ended. `'$'` would begin at now, and lose what came "
            "meanwhile.",
            "Put `try:` inside the loop, around the read and the showing. The argument takes the module's name, so "
            "`import redis as library`, then `except library.exceptions.ConnectionError:` and in it `await "
            "asyncio.sleep(...)`.",
            "Let the wait begin at 0.05 s, double it with each failure up to a second, and set it back when a read "
            "worked. Catch that one error and no more: a cancellation must end the relay.",
        ),
        relay,
        "The place in the stream is kept by the reader, not by the connection, so a lost connection loses nothing. "
        "Pub/Sub has no such place: there the same loop would live on, and miss what was said meanwhile.",
    ),
    Exercise(
        "07.5",
        "A chat that loses nothing",
        check_handler,
        (
            "Two things go on at once: one loop shows what is in the stream from `after` on (07.4, without the `try`: "
            "there is a better one in the last hint), and `async for message in socket:` takes what the member says.",
            "What the member says is JSON with `client_id` and `text`. Looking whether this client_id was stored, and "
            "storing, must be one step, a script: `await redis.eval(script, 2, stream, key, text)`; in it GET "
            "KEYS[2], if there is none XADD KEYS[1] and SET KEYS[2] with EX 600. `solution('05.4')` has it, with a "
            "field called `body` where this one is `text`; a key is `f'{stream}:once:{client_id}'`.",
            "After the script has returned, and not before, `await socket.send(json.dumps({'stored': client_id}))`. "
            "What is shown is `json.dumps({'id': id, 'text': fields['text']})`.",
            "`async with asyncio.TaskGroup() as both:` ties the two together: `showing = "
            "both.create_task(show(after))`, then the `async for` in the block, then `showing.cancel()`. If the "
            "reader dies with Redis, the group ends the handler, the connection closes, and the member comes back "
            "with its last id. So nothing has to be caught.",
        ),
        handler,
        "Every part is small: an id on each record, a script that stores once, a receipt after it, a reader that "
        "begins where it is told to. And when something breaks, the connection breaks: the member's return is the one "
        "cure for all of it. A reader that died in silence would leave a member in front of a chat that looks well "
        "and says nothing.",
    ),
]
