"""Lesson 07: judge a run, send until stored, resume without a gap, survive outages of Redis, and write a chat."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from redis.asyncio import Redis

from chatlab.brokers.port import KeepsHistory
from chatlab.brokers.redis.connections import url as redis_url
from chatlab.chat import article as as_in_the_article
from chatlab.chat.article import java
from chatlab.clients.stomp import StompClient
from chatlab.errors import StompError
from chatlab.lab.exercises.exercise import Exercise, NotYet
from chatlab.lab.exercises.lessons.lesson03 import wait_or
from chatlab.lab.exercises.support.chat import chat_in_memory
from chatlab.lab.exercises.support.handler_check import check_handler
from chatlab.lab.exercises.support.members import KillableRedis, killable_redis, without_retries
from chatlab.lab.exercises.support.redis import client, fresh
from chatlab.lab.exercises.support.rooms import Running, at_work, first_few, must_wait
from chatlab.lab.experiments.lesson07 import member, said
from chatlab.lab.runtime import lab
from chatlab.lab.until import until
from chatlab.lab.wire.wire import Wire
from chatlab.locale import _

__all__ = ["EXERCISES"]

# --- 07.0 ---


def text_of(octets: bytes) -> str | None:
    if not octets.startswith(b"\xac\xed\x00\x05t"):
        return None
    length = int.from_bytes(octets[5:7], "big")
    return octets[7 : 7 + length].decode()


SERIALIZED: list[tuple[bytes, str | None, str]] = [
    (java.serialize("content"), "content", _("the text comes after seven octets: four, a `t`, and two of its length")),
    (java.serialize("안녕"), "안녕", _("the text is in UTF-8")),
    (java.serialize("x" * 300), "x" * 300, _("the length has two octets, the high one first")),
    (java.serialize(""), "", _("a text may be empty: that is a text, not None")),
    (b"content", None, _("plain text is no Java object: None")),
    (b'"content"', None, _("plain text is no Java object: None")),
    (b"", None, _("what has no octets is no Java object: None")),
    (b"\xac\xed\x00\x05sr\x00\x11java.lang.Integer", None, _("a number is a Java object, but no String: None")),
]


def check_text_of(answer: Callable[[bytes], object]) -> None:
    for octets, wanted, rule in SERIALIZED:
        if (got := answer(octets)) != wanted or type(got) is not type(wanted):
            if isinstance(got, bytes):
                rule = _("the text is returned as text, not as octets: decode it")
            shown = octets if len(octets) < 60 else octets[:20] + b"..."
            evidence = _("for {octets!r} you returned {got!r}, not {wanted!r}")
            raise NotYet(rule, evidence.format(octets=shown, got=got, wanted=wanted))


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
SAME_ORDER = {  # what an answer may take for a different order
    "repeated": _("a repeat is not a different order: what counts is when a text was first shown"),
    "lost": _("a loss is not a different order: compare the texts that both members were shown"),
}
LEDGERS: list[tuple[list[str], dict[str, list[str]], Found, str]] = [
    (["a", "b"], {"가람": ["a", "b"], "Nuri": ["a", "b"]}, (set(), set(), True), _("if all is well, nothing is found")),
    (
        ["a", "b"],
        {"가람": ["a", "b"], "Nuri": ["a"]},
        ({"b"}, set(), True),
        _("a text that one member was not shown is lost"),
    ),
    (["a", "b"], {"가람": ["a"], "Nuri": ["a"]}, ({"b"}, set(), True), _("a text that nobody was shown is lost too")),
    (
        ["a"],
        {"가람": ["a", "x"], "Nuri": ["a"]},
        (set(), set(), True),
        _("a text that was not promised may be shown to some members only, and is not lost"),
    ),
    (
        ["a"],
        {"가람": ["a", "a"], "Nuri": ["a"]},
        (set(), {"a"}, True),
        _("a text that a member was shown twice is repeated"),
    ),
    (
        ["a"],
        {"가람": ["a", "x", "x"], "Nuri": ["a", "x"]},
        (set(), {"x"}, True),
        _("a text that was not promised must not be shown twice either"),
    ),
    (
        ["a", "b"],
        {"가람": ["a", "b"], "Nuri": ["b", "a"]},
        (set(), set(), False),
        _("two members that were shown two texts in different orders disagree"),
    ),
    (
        ["a", "b"],
        {"하늘": ["a", "b"], "가람": ["a", "b"], "Nuri": ["b", "a"]},
        (set(), set(), False),
        _("any two members may disagree, not only the first two"),
    ),
    (
        ["a", "b"],
        {"하늘": ["c"], "가람": ["a", "b"], "Nuri": ["b", "a"]},
        ({"a", "b"}, set(), False),
        _("any two members may disagree, not only the first with each of the others"),
    ),
    (
        ["a", "b"],
        {"가람": ["a", "b"], "하늘": ["c"], "Nuri": ["b", "a"]},
        ({"a", "b"}, set(), False),
        _("any two members may disagree, not only neighbors in the list"),
    ),
    (
        ["a"],
        {"가람": ["a", "x", "y"], "Nuri": ["a", "y", "x"]},
        (set(), set(), False),
        _("texts that were not promised have an order too: compare all that both were shown"),
    ),
    (["a", "b", "c"], {"가람": ["a", "c"], "Nuri": ["a", "b", "c"]}, ({"b"}, set(), True), SAME_ORDER["lost"]),
    (["a", "b"], {"가람": ["a", "b", "a"], "Nuri": ["a", "b"]}, (set(), {"a"}, True), SAME_ORDER["repeated"]),
]
JUDGED = (_("lost"), _("repeated"), _("the same order"))


async def check_judge(answer: Callable[[list[str], dict[str, list[str]]], Any]) -> None:
    for promised, shown, wanted, rule in LEDGERS:
        _judged(answer, promised, shown, wanted, rule)
    promised, shown = await _a_run_of_the_articles_build()
    _judged(answer, promised, shown, judge(promised, shown), _("a run of the article's own build is judged correctly"))


def _judged(
    answer: Callable[..., Any], promised: list[str], shown: dict[str, list[str]], wanted: Found, rule: str
) -> None:
    got = answer(list(promised), {name: list(texts) for name, texts in shown.items()})
    if not isinstance(got, tuple) or len(got) != 3:
        raise NotYet(
            _("it returns three things: the lost texts, the repeated texts, and whether the order is the same"),
            repr(got),
        )
    for name, mine, right in zip(JUDGED, got, wanted, strict=True):
        if (set(mine) if isinstance(right, set) else bool(mine)) != right:
            if right is True:
                rule = SAME_ORDER["repeated" if wanted[1] else "lost"] if wanted[0] or wanted[1] else rule
            lines = [_("promised: {texts}").format(texts=promised)]
            lines += [
                _("{member} was shown {texts}").format(member=member, texts=texts) for member, texts in shown.items()
            ]
            raise NotYet(
                rule,
                "\n".join(
                    [*lines, _("{name}: you found {mine!r}, not {right!r}").format(name=name, mine=mine, right=right)]
                ),
            )


async def _a_run_of_the_articles_build() -> tuple[list[str], dict[str, list[str]]]:
    """Send twelve texts to two instances of the article's build; return what was sent and what was shown."""
    url = redis_url.in_database(await lab.redis(), 9)  # a separate database, because the stream's name is fixed
    async with Redis.from_url(url) as redis:
        await redis.delete("chat-stream")
        await redis.xgroup_create("chat-stream", "chat-group", id="0", mkstream=True)
        async with await as_in_the_article.start(url) as one, await as_in_the_article.start(url) as two:
            garam, nuri = [
                await member(each.url, name, receipts=False) for each, name in ((one, "가람"), (two, "Nuri"))
            ]
            for number in range(12):
                await garam.send(f"메시지 {number}")
            await until(lambda: len(garam.received) + len(nuri.received) == 24)
            await asyncio.gather(garam.close(), nuri.close())
        await redis.delete("chat-stream")
    # Without its content, a message is none of the texts.
    return garam.sent, {each.name: [text for text in said(each) if text != "None"] for each in (garam, nuri)}


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


class Attempts:
    """Connect to a real chat anew for each try; record the tries, and read what the chat has stored."""

    def __init__(self, broker: KeepsHistory, wire: Wire) -> None:
        self.wire = wire
        self.broker = broker
        self.tries: list[tuple[str, str]] = []  # (text, client_id)
        self._client_key = secrets.token_hex(16)  # all tries are from the same guest
        self.refused = False  # whether the server refuses what is sent

    async def send(self, text: str, client_id: str) -> None:
        """Try once: return with the RECEIPT, raise ConnectionError if the connection is lost, or wait forever."""
        self.tries.append((text, client_id))
        # Members may not send to the topic itself: the server answers such a SEND with ERROR.
        destination = "/topic/public" if self.refused else "/app/chat.sendMessage"
        stomp = StompClient(self.wire.url, login="가람", client_key=self._client_key, reconnect=False)
        await stomp.connect()
        try:
            await stomp.send(destination, json.dumps({"content": text, "client_id": client_id}))
        finally:
            stomp.drop()  # a clean close would wait for a connection that may be dead
            await stomp.aclose(0)

    async def stored(self) -> list[str]:
        """Return the texts that the chat has stored."""
        return [json.loads(record.body)["content"] for record in await self.broker.history("chat-stream")]

    def __str__(self) -> str:
        shown = _("try {number}: {text!r} with the client_id {client_id!r}")
        first = enumerate(self.tries[:6], 1)
        lines = [shown.format(number=number, text=text, client_id=client_id) for number, (text, client_id) in first]
        if len(self.tries) > 6:
            lines.append(_("… {count} tries").format(count=len(self.tries)))
        return "\n".join(lines)


async def check_send_until_stored(answer: Send) -> None:
    must_wait(answer)
    for case in (_no_fault, _lost_before_it_arrived, _lost_after_it_was_stored, _silence, _server_down, _refused):
        async with chat_in_memory() as server, Wire(server.url) as wire:
            broker = server.service.broker
            assert isinstance(broker, KeepsHistory)
            await case(answer, Attempts(broker, wire))


async def _sends(answer: Send, attempts: Attempts, text: str, rule: str, *, seconds: float = 2) -> None:
    """Let the learner's code send `text`. Raise `NotYet` with `rule` if it raises or does not end in time."""
    try:
        async with asyncio.timeout(seconds):
            await answer(attempts.send, text)
    except TimeoutError:
        raise NotYet(rule, f"{attempts}\n" + _("and then yours still waited")) from None
    except (ConnectionError, StompError) as error:
        raise NotYet(
            rule,
            f"{attempts}\n" + _("and then yours raised {kind}: {error}").format(kind=type(error).__name__, error=error),
        ) from None


async def _is_stored(attempts: Attempts, texts: list[str], rule: str) -> None:
    if (stored := await attempts.stored()) != texts:
        raise NotYet(
            rule, f"{attempts}\n" + _("the chat has stored {stored}, not {texts}").format(stored=stored, texts=texts)
        )


async def _no_fault(answer: Send, attempts: Attempts) -> None:
    await _sends(answer, attempts, "네", _("if nothing goes wrong, it returns when the receipt has arrived"))
    await _is_stored(attempts, ["네"], _("after its receipt has arrived, a text is not sent again"))
    await _sends(answer, attempts, "네", _("if nothing goes wrong, it returns when the receipt has arrived"))
    await _is_stored(attempts, ["네", "네"], _("the same text sent again is another message, with its own client_id"))


async def _lost_before_it_arrived(answer: Send, attempts: Attempts) -> None:
    attempts.wire.when(attempts.wire.reset, layer="stomp", kind="SEND")
    await _sends(answer, attempts, "들려요?", _("when the connection is lost before the receipt, it tries again"))
    await _is_stored(attempts, ["들려요?"], _("a text that was lost before it arrived is sent again"))


async def _lost_after_it_was_stored(answer: Send, attempts: Attempts) -> None:
    attempts.wire.when(attempts.wire.reset, layer="stomp", kind="RECEIPT", sender="server")
    await _sends(answer, attempts, "한 번만", _("when the connection is lost before the receipt, it tries again"))
    await _is_stored(
        attempts, ["한 번만"], _("a repeat has the same client_id: only that tells the chat that it is a repeat")
    )


async def _silence(answer: Send, attempts: Attempts) -> None:
    attempts.wire.when(attempts.wire.half_open, layer="stomp", kind="SEND")
    await _sends(
        answer, attempts, "여보세요", _("a receipt that has not arrived after half a second will not arrive: try again")
    )
    await _is_stored(attempts, ["여보세요"], _("a text that was lost silently is sent again"))


async def _server_down(answer: Send, attempts: Attempts) -> None:
    await attempts.wire.aclose()
    sending = asyncio.ensure_future(answer(attempts.send, "아직"))
    try:
        await asyncio.wait([sending], timeout=0.6)
        if sending.done():
            raise NotYet(
                _("while the server is down, it tries again until the server is back"), f"{attempts}{_ended(sending)}"
            )
        if len(attempts.tries) > 30:
            raise NotYet(_("it waits a moment between two tries, so that a returning server is not overrun"), attempts)
        await attempts.wire.start()
        await asyncio.wait([sending], timeout=4)
        if not sending.done() or sending.exception() is not None:
            raise NotYet(
                _("while the server is down, it tries again until the server is back"),
                f"{attempts}\n" + _("then the server came back"),
            )
    finally:
        sending.cancel()
        await asyncio.wait([sending], timeout=1)
    await _is_stored(attempts, ["아직"], _("it tries until the text is stored, once"))


async def _refused(answer: Send, attempts: Attempts) -> None:
    attempts.refused = True
    with contextlib.suppress(TimeoutError, StompError):
        async with asyncio.timeout(0.6):
            await answer(attempts.send, "안녕")
    if len(attempts.tries) != 1:
        raise NotYet(
            _("a text that the server refuses (StompError) is not sent again: it would be refused again"), attempts
        )


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


class ChatStream:
    """A stream on a real Redis with the two ways to read it; `meanwhile` runs during the call of `history`."""

    def __init__(self, redis: Any, name: str) -> None:
        self.redis = redis
        self.name = name
        self.meanwhile: list[Callable[[], Awaitable[None]]] = []
        self.readers: list[asyncio.Task[None]] = []
        self.shown: list[str] = []
        self.order: list[str] = []

    async def write(self, id: str, text: str = "") -> None:
        await self.redis.xadd(self.name, {"text": text or f"#{id}"}, id=id)

    async def history(self, after: str) -> list[tuple[str, str]]:
        self.order.append("history")
        before, after_read = (*self.meanwhile, None, None)[:2]
        if before is not None:
            await before()
        records = await self.redis.xrange(self.name, min=f"({after}")
        if after_read is not None:
            await after_read()
        await asyncio.sleep(0.05)  # long enough for new records to be in the queue
        self.meanwhile.clear()
        return [(id, fields["text"]) for id, fields in records]

    async def live(self) -> asyncio.Queue[tuple[str, str]]:
        self.order.append("live")
        news: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        newest = await self.redis.xrevrange(self.name, count=1)
        self.readers.append(asyncio.create_task(self._read(newest[0][0] if newest else "0-0", news)))
        return news

    async def _read(self, last: str, news: asyncio.Queue[tuple[str, str]]) -> None:
        while True:
            for _stream, records in await self.redis.xread({self.name: last}, block=1000):
                for last, fields in records:
                    news.put_nowait((last, fields["text"]))


@contextlib.asynccontextmanager
async def _stream_with(*ids: str) -> AsyncIterator[ChatStream]:
    async with fresh("stream") as name, client() as redis:
        stream = ChatStream(redis, name)
        for id in ids:
            await stream.write(id)
        try:
            yield stream
        finally:
            for reader in stream.readers:
                reader.cancel()
            await asyncio.gather(*stream.readers, return_exceptions=True)


async def check_resume(answer: Callable[..., Any]) -> None:
    must_wait(answer)
    async with _stream_with("5-1", "5-2", "5-3") as stream:
        async with _resuming(answer, stream, "5-1"):
            await _shows(
                stream, ["#5-2", "#5-3"], _("first it shows the records after the last id, and not that one itself")
            )
            await stream.write("5-4")
            await _shows(stream, ["#5-4"], _("then it shows new records as they arrive"))
        _exactly(stream, ["#5-2", "#5-3", "#5-4"])
    async with _stream_with("5-7", "5-8") as stream:
        # 5-9 is written when history is called, and is in it; 5-10 is written a moment later, and is not.
        stream.meanwhile = [lambda: stream.write("5-9"), lambda: stream.write("5-10")]
        async with _resuming(answer, stream, "5-7"):
            await _shows(stream, ["#5-8", "#5-9"], _("it shows what history returned"))
            await _misses_nothing(stream)
            await stream.write("5-11", "네")
            await stream.write("5-12", "네")
            await _is(
                stream,
                lambda: stream.shown.count("네") == 2,
                _("the same text sent twice is two records: only their ids differ"),
            )
        _exactly(stream, ["#5-8", "#5-9", "#5-10", "네", "네"])
    async with _stream_with("5-1") as stream, _resuming(answer, stream, "5-1"):
        await _is(stream, lambda: "live" in stream.order, _("a reader that has missed nothing listens too"))
        await stream.write("6-0")
        await _shows(stream, ["#6-0"], _("a reader that has missed nothing shows new records"))


@contextlib.asynccontextmanager
async def _resuming(answer: Callable[..., Any], stream: ChatStream, last: str) -> AsyncIterator[list[Running]]:
    async with at_work(answer(stream.history, stream.live, last, stream.shown.append), what=_("the reader")) as running:
        yield running


async def _is(stream: ChatStream, condition: Callable[[], bool], rule: str) -> None:
    await wait_or(condition, rule, lambda: _("shown: {shown}").format(shown=stream.shown))


async def _shows(stream: ChatStream, texts: Sequence[str], rule: str) -> None:
    await _is(stream, lambda: set(texts) <= set(stream.shown), rule)


async def _misses_nothing(stream: ChatStream) -> None:
    """Distinguish the two ways to miss 5-10: not listening yet, and taking it for older than 5-9."""
    with contextlib.suppress(TimeoutError):
        return await until(lambda: "#5-10" in stream.shown, timeout=1)
    if stream.order[0] == "history":
        raise NotYet(
            _("listen first, then ask for history: otherwise what is written in between is missed"),
            _("5-10 was written during the call of history, before the call of live; shown: {shown}").format(
                shown=stream.shown
            ),
        )
    raise NotYet(
        _("an id is two numbers, and 5-10 comes after 5-9: compare them as numbers, not as strings"),
        _("5-10 was written during the call of history, and was in the queue; shown: {shown}").format(
            shown=stream.shown
        ),
    )


def _exactly(stream: ChatStream, texts: list[str]) -> None:
    if len(stream.shown) > len(texts):
        raise NotYet(
            _("a record that history returned may be in the queue too, and is shown once"),
            _("shown: {shown}").format(shown=stream.shown),
        )
    if stream.shown != texts:
        raise NotYet(
            _("everything is shown in the order of the ids"),
            _("shown: {shown}, not {texts}").format(shown=stream.shown, texts=texts),
        )


# --- 07.4 ---


async def relay(redis: Any, stream: str, last: str, show: Callable[[str], None]) -> None:
    import asyncio

    import redis as library

    wait = 0.05
    while True:
        try:
            for _stream, records in await redis.xread({stream: last}, block=1000):
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
            await killable.direct.xadd(killable.stream, {"text": f"#{number}"})

    async def shows(*numbers: int, rule: str) -> None:
        await _relayed(running, shown, [f"#{number}" for number in numbers], rule)

    async with killable_redis() as killable, contextlib.AsyncExitStack() as stack:
        await add(0, 1)
        last = (await killable.direct.xrange(killable.stream))[0][0]
        redis = await stack.enter_async_context(without_retries(killable.wire.url))
        running = Running(answer(redis, killable.stream, last, shown.append), _("the relay"))
        stack.callback(running.task.cancel)
        await asyncio.wait([running.task], timeout=0.1)
        if running.task.done():
            running.look()
        await shows(1, rule=_("it shows the records after the id it was given, then new ones"))
        await add(2)
        await shows(2, rule=_("it shows the records after the id it was given, then new ones"))
        await _outage(killable, running, shown)
        await add(3)
        before = killable.attempts
        await killable.wire.start()
        with contextlib.suppress(TimeoutError):
            await until(lambda: killable.attempts > before or running.task.done(), timeout=4)
        if running.task.done():
            raise NotYet(NEVER, _("Redis was killed, and came back after a second") + _ended(running.task))
        await shows(3, rule=_("after an outage it continues from the last id: it shows what was written meanwhile"))
        await _long_outage(killable, running)
        await add(7)
        await _relayed(running, shown, ["#7"], NEVER, seconds=3)
        await add(4)
        await shows(4, rule=_("after an outage it continues as before"))
        for number in (5, 6):  # a relay that has reconnected once must do it again
            killable.wire.reset()
            await add(number)
            await shows(number, rule=EACH)
        expected = [f"#{number}" for number in (1, 2, 3, 7, 4, 5, 6)]
        if shown != expected:
            raise NotYet(
                _("each record is shown once, in order: an outage is no reason to start over"),
                _("shown: {shown}").format(shown=first_few(shown)),
            )
        await running.stop()


EACH = _("it survives every outage, not only the first")
NEVER = _("however long an outage lasts, it never gives up")
FAILURES = 15  # in the long outage


async def _long_outage(killable: KillableRedis, running: Running) -> None:
    """Keep Redis dead until the relay has failed fifteen times, or for three seconds; then start it again."""
    before = killable.attempts
    killable.kill()
    if killable.engine.folder is not None:  # else Redis goes on, and only the connections are lost
        with contextlib.suppress(TimeoutError):
            await until(lambda: killable.attempts - before >= FAILURES or running.task.done(), timeout=3)
    if running.task.done():
        failed = killable.attempts - before
        evidence = _("Redis was killed again, and the relay failed {count} times").format(count=failed)
        raise NotYet(NEVER if failed > 1 else EACH, evidence + _ended(running.task))
    await killable.restart()


async def _relayed(running: Running, shown: list[str], texts: list[str], rule: str, *, seconds: float = 1) -> None:
    with contextlib.suppress(TimeoutError):
        await until(lambda: set(texts) <= set(shown) or running.task.done(), timeout=seconds)
    if not set(texts) <= set(shown):
        raise NotYet(
            rule,
            _("written: {texts}; shown: {shown}").format(texts=" ".join(texts), shown=first_few(shown))
            + _ended(running.task),
        )


def _ended(task: asyncio.Future[None]) -> str:
    """Return a line that says how a learner's loop has ended; "" while it runs."""
    if not task.done():
        return ""
    if error := task.exception():
        return "\n" + _("yours has ended with {kind}: {error}").format(kind=type(error).__name__, error=error)
    return "\n" + _("yours has ended")


async def _outage(killable: KillableRedis, running: Running, shown: list[str]) -> None:
    """Kill Redis, check what the relay does, and restart Redis while the relay cannot reach it yet."""
    before = killable.attempts
    killable.kill()
    await asyncio.wait([running.task], timeout=0.5)
    if running.task.done():
        raise NotYet(_("an outage does not end the relay"), _("Redis was killed") + _ended(running.task))
    if (attempts := killable.attempts - before) > 40:
        raise NotYet(
            _("between two attempts it waits a moment, or it wastes processor time and overruns a returning Redis"),
            _("Redis was down for half a second, and the relay tried to connect {attempts} times").format(
                attempts=attempts
            ),
        )
    await killable.wire.aclose()
    await killable.restart()


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
            for _stream, records in await redis.xread({stream: after}, block=1000):
                for after, fields in records:
                    if "text" in fields:
                        await socket.send(json.dumps({"id": after, "text": fields["text"]}))

    async with asyncio.TaskGroup() as both:
        showing = both.create_task(show(after))
        async for message in socket:
            said = json.loads(message)
            key = f"{stream}:once:{said['client_id']}"
            await redis.eval(store_once, 2, stream, key, said["text"])
            await socket.send(json.dumps({"stored": said["client_id"]}))
        showing.cancel()


EXERCISES = [
    Exercise(
        "07.0",
        _("Read what Java wrote"),
        check_text_of,
        (
            _(
                "Octets are a list of numbers that you can cut: `octets[:5]` are the first five, `octets[7:]` those "
                "after the seventh. `octets.startswith(b'\\xac\\xed\\x00\\x05t')` says whether it is a String."
            ),
            _(
                "`int.from_bytes(octets[5:7], 'big')` is the length. `.decode()` makes text of octets in UTF-8. Return "
                "`None` for everything that does not start right."
            ),
        ),
        text_of,
        _(
            "Now you see why the listener found nothing: to it, `content` and these octets are two different names. A "
            "format that one language alone can read is a wall around your data. (Java writes characters beyond U+FFFF "
            "in a way of its own, in six octets; `chatlab/chat/article/java.py` reads those, too.)"
        ),
        learned=_(
            "The two programs did not agree on a serialization: bytes mean something only to a reader who knows "
            "their format."
        ),
        leads_to=_("Which of your own services write something that only one language can read?"),
    ),
    Exercise(
        "07.1",
        _("A ledger that judges a run"),
        check_judge,
        (
            _(
                "Answer three questions, one after the other. Lost: for each promised text and each member, is it in "
                "that member's list? Repeated: for each member, which texts are in the list more than once "
                "(`texts.count(text) > 1`)?"
            ),
            _(
                "Order: keep only the first showing of each text with `list(dict.fromkeys(texts))`. Then take every "
                "two members, and from each list only the texts that the other has too: these two lists must be equal."
            ),
            _(
                "`[text for text in one if text in other] == [text for text in other if text in one]`, for every two "
                "lists. Return `lost, repeated, same`: two sets and a bool."
            ),
        ),
        judge,
        _(
            "The three are kept apart because they have different causes: a loss comes from a missing replay, a "
            "repeat from a missing id, and different orders from two paths for one message. A ledger that mixes them "
            "up tells you nothing."
        ),
        learned=_(
            "You check a recorded history against rules that must always hold: these are invariants, and such a "
            "program is a checker."
        ),
        leads_to=_("Your ledger says that nothing was lost. What would it say about a run in which nothing was sent?"),
    ),
    Exercise(
        "07.2",
        _("Send until it is stored"),
        check_send_until_stored,
        (
            _(
                "Write a loop that ends when `await send(text, client_id)` returns. What has to be the same in each "
                "round, and must be created before the loop? `uuid.uuid4().hex` (`import uuid`) creates a unique "
                "string."
            ),
            _(
                "`try: ... except ConnectionError:` and in the except a short `await asyncio.sleep(0.1)`, so that the "
                "next round does not follow at once. Do not catch StompError: the server has refused the text."
            ),
            _(
                "A receipt may also never arrive. `async with asyncio.timeout(0.5):` around the `await send(...)` "
                "raises TimeoutError; catch both: `except (ConnectionError, TimeoutError):`."
            ),
        ),
        send_until_stored,
        _(
            "The client cannot know whether a lost message was stored. So it sends the message again, under the same "
            "id, and the server, which does know, stores it once. Neither half works without the other."
        ),
        learned=_(
            "A retry under one id can be stored once: the id is an idempotency key, and receipt and key together "
            "make it exactly once."
        ),
        leads_to=_(
            "The server remembers ids for ten minutes. What happens to a phone that was in a tunnel for an hour?"
        ),
    ),
    Exercise(
        "07.3",
        _("Back without a gap"),
        check_resume,
        (
            _(
                "There are two sources: the records that were kept, and the new ones. Assume that something is always "
                "written between the two calls. In which order must you call them, so that it is in both at worst, and "
                "never in neither?"
            ),
            _(
                "`news = await live()` first. Then `for id, text in await history(last):`, which shows each text and "
                "sets `last = id`; after it, `last` is the last id shown. Then an endless loop: `id, text = await "
                "news.get()`."
            ),
            _(
                "In the loop show only what comes after `last`: the rest was already in history. An id is two numbers: "
                "`tuple(int(part) for part in id.split('-'))`. Compare those, show, and set `last = id`."
            ),
        ),
        resume,
        _(
            "Listening first turns a gap, which cannot be repaired, into a repeat, which the ids reveal. "
            "`chatlab.chat.delivery.replay` does the same for every SUBSCRIBE with a `last-id`."
        ),
        learned=_(
            "You subscribe first, replay second and drop what you have seen: catch-up without a gap, deduplicated "
            "by offset."
        ),
        leads_to=_("While you replay, a thousand new messages come. Where do they wait, and how many may that be?"),
    ),
    Exercise(
        "07.4",
        _("A relay that outlives Redis"),
        check_relay,
        (
            _(
                "Write an endless loop around a blocking read: `await redis.xread({stream: last}, block=1000)` "
                "returns a list of `(stream, records)`, each record `(id, fields)`; it is empty if nothing arrived "
                "within a second. The text is `fields['text']`."
            ),
            _(
                "After each record set `last` to its id: that is all the relay has to remember. Then an outage does "
                "no harm: the next read starts where the last one ended. `'$'` would start at now, and lose what was "
                "written meanwhile."
            ),
            _(
                "Put `try:` inside the loop, around the read and the showing. The argument takes the module's name, so "
                "`import redis as library`, then `except library.exceptions.ConnectionError:` and in it `await "
                "asyncio.sleep(...)`."
            ),
            _(
                "Start with a wait of 0.05 s, double it with each failure up to a second, and reset it when a read "
                "succeeds. Catch only that error: a cancellation must end the relay."
            ),
        ),
        relay,
        _(
            "The position in the stream belongs to the reader, not to the connection, so a lost connection loses "
            "nothing. Pub/Sub has no positions: there the same loop would continue, and miss what was sent meanwhile."
        ),
        learned=_(
            "The position outlives the connection: you resume from an offset. Between two attempts you back off; "
            "pauses that grow with each failure are called exponential backoff."
        ),
        leads_to=_("Why must the pauses differ between a hundred relays that lost the same Redis at the same moment?"),
    ),
    Exercise(
        "07.5",
        _("A chat that loses nothing"),
        check_handler,
        (
            _(
                "Two loops run at the same time: one shows every record after the given id (07.4, without the "
                "`try`: the last hint has something better), and `async for message in socket:` receives what the "
                "member sends."
            ),
            _(
                "A member sends JSON with `client_id` and `text`. Looking up this client_id and storing the text "
                "must be one step, a script: `await redis.eval(script, 2, stream, key, text)`; in it GET KEYS[2], if "
                "there is none XADD KEYS[1] and SET KEYS[2] with EX 600. `solution('05.4')` has it, with a field "
                "called `body` where this one is `text`; a key is `f'{stream}:once:{client_id}'`."
            ),
            _(
                "After the script has returned, and not before, `await socket.send(json.dumps({'stored': "
                "client_id}))`. What is shown is `json.dumps({'id': id, 'text': fields['text']})`, and only where "
                "`'text' in fields`."
            ),
            _(
                "`async with asyncio.TaskGroup() as both:` ties the two loops together: `showing = "
                "both.create_task(show(after))`, then the `async for` in the block, then `showing.cancel()`. If the "
                "reader dies with Redis, the group ends the handler, the connection closes, and the member comes back "
                "with its last id. So there is nothing to catch."
            ),
        ),
        handler,
        _(
            "Every part is small: an id on each record, a script that stores once, a receipt after it, a reader that "
            "starts at a given id. And when something breaks, the connection breaks: the returning member is the one "
            "recovery for all of it. A reader that died silently would leave a member with a chat that looks healthy "
            "and shows nothing."
        ),
        learned=_("At-least-once delivery and an idempotent store add up to exactly once."),
        leads_to=_("What is left that could still lose a message? Look at the table of power cuts once more."),
    ),
]
