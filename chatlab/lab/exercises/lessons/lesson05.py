"""Lesson 05: choose a partition, follow a stream, notice a gap, publish once, and write a broker."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import types
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from chatlab.brokers.port import Reader, Record
from chatlab.lab.exercises.difference import Difference
from chatlab.lab.exercises.exercise import Exercise, NotYet
from chatlab.lab.exercises.lessons import lesson03
from chatlab.lab.exercises.lessons.lesson03 import members
from chatlab.lab.exercises.support.redis import Moment, Taps, break_off, client, fresh
from chatlab.lab.exercises.support.rooms import at_work, first_few, in_one_order, must_wait, received_by, said
from chatlab.locale import _
from chatlab.room import shared as shared_room

__all__ = ["EXERCISES"]

wait_or = partial(lesson03.wait_or, timeout=1.2)

# --- 05.1 ---


def partition(message: dict[str, str], count: int) -> int:
    import zlib

    return zlib.crc32(message["room"].encode()) % count


def check_partition(answer: Callable[[dict[str, str], int], Any]) -> None:
    rooms = [f"방 {number}" for number in range(300)]
    for count in (1, 4, 6):
        placed = {room: answer(message(room), count) for room in rooms}
        for room, place in placed.items():
            if type(place) is not int or not 0 <= place < count:
                raise NotYet(
                    _("a partition is a whole number from 0 to {last}").format(last=count - 1),
                    _("partition({message}, {count}) returned {place!r}").format(
                        message=message(room), count=count, place=place
                    ),
                )
    _keeps_a_room_together(answer)
    _agrees_with_other_processes(answer, rooms)
    shares = Counter(answer(message(room), 4) for room in rooms)
    if min(shares[number] for number in range(4)) < len(rooms) / 16:
        raise NotYet(
            _("the rooms are spread over all partitions; none is left nearly empty"),
            _("300 rooms, '방 0' to '방 299', on 4 partitions: {shares}").format(
                shares=[shares[number] for number in range(4)]
            ),
        )


def message(room: str, sender: str = "가람", text: str = "안녕") -> dict[str, str]:
    return {"room": room, "sender": sender, "text": text}


def _keeps_a_room_together(answer: Callable[[dict[str, str], int], Any]) -> None:
    for room in ("방 1", "public", "서울 🚇"):
        talk = [message(room, sender, text) for sender in ("가람", "Nuri", "하늘") for text in ("안녕", "👋", "어디?")]
        places = [answer(each, 4) for each in [*talk, *talk]]
        if len(set(places)) > 1:
            raise NotYet(
                _("all messages of one room are in one partition: records are ordered only within a partition"),
                _("{count} messages in the room {room!r} went to the partitions {places}").format(
                    count=len(places), room=room, places=places
                ),
            )


def _agrees_with_other_processes(answer: Callable[[dict[str, str], int], Any], rooms: Sequence[str]) -> None:
    """Run the learner's code with another process's `hash()`: Python seeds it differently in each process."""
    if not isinstance(answer, types.FunctionType):
        return
    elsewhere = types.FunctionType(
        answer.__code__,
        {**answer.__globals__, "hash": lambda value: hash(("another process", value))},  # not shown: a salt
        answer.__name__,
        answer.__defaults__,
        answer.__closure__,
    )
    for room in rooms:
        if (here := answer(message(room), 4)) != (there := elsewhere(message(room), 4)):
            raise NotYet(
                _(
                    "every server computes the same partition; Python's hash() of a text differs from process to "
                    "process"
                ),
                _("the room {room!r} is in partition {here} here, and in {there} in another process").format(
                    room=room, here=here, there=there
                ),
            )


# --- 05.2 ---


async def follow(redis: Any, stream: str, after: str, show: Callable[[str], Awaitable[None]]) -> None:
    while True:
        for _stream, records in await redis.xread({stream: after}, block=1000):
            for id, fields in records:
                await show(fields["body"])
                after = id


async def check_follow(answer: Callable[..., Any]) -> None:
    must_wait(answer)
    taps = Taps()
    shown: list[str] = []
    async with fresh("stream") as stream, client() as writer, client(taps) as redis:
        kept = [str(await writer.xadd(stream, {"body": f"#{number}"})) for number in range(6)]

        async def show(text: str) -> None:
            shown.append(text)
            if text == "#4":  # written while the reader is busy
                await writer.xadd(stream, {"body": "#6"})
                await writer.xadd(stream, {"body": "#7"})

        async with at_work(answer(redis, stream, kept[2], show), what=_("the reader")):
            await _shows(
                shown, ["#3", "#4", "#5"], _("a reader first shows the records kept after the id it was given")
            )
            await _shows(shown, ["#6", "#7"], _("what is written while the reader is busy is not missed"))
            for number in range(8, 12):
                await writer.xadd(stream, {"body": f"#{number}"})
                await _shows(shown, [f"#{number}"], _("then it shows new records as they arrive"))
            expected = [f"#{number}" for number in range(3, 12)]
            if shown != expected:
                raise NotYet(
                    _("each record is shown once, in order"),
                    _("expected: {expected}; shown: {shown}").format(expected=expected, shown=first_few(shown)),
                )
            await _waits_without_asking(taps)
            await writer.xadd(stream, {"body": "#12"})
            await _shows(shown, ["#12"], _("it continues after a pause"))


async def _shows(shown: list[str], texts: Sequence[str], rule: str) -> None:
    await wait_or(
        lambda: set(texts) <= set(shown),
        rule,
        lambda: _("written: {texts}; shown: {shown}").format(texts=texts, shown=first_few(shown)),
    )


async def _waits_without_asking(taps: Taps) -> None:
    before = taps.exchanges
    await asyncio.sleep(0.4)
    if (asked := taps.exchanges - before) > 2:
        raise NotYet(
            _("when there is nothing new, it waits: the server answers a blocking read as soon as there is a record"),
            _("in 0.4 s without a new record it asked {asked} times").format(asked=asked),
        )


# --- 05.3 ---


async def catch_up(redis: Any, stream: str, after: str) -> list[str]:
    records = await redis.xrange(stream, min=after)
    if after != "0-0":
        if not records or records[0][0] != after:
            raise LookupError(f"{after} is no longer kept; later records may be gone too")
        del records[0]
    return [fields["body"] for _, fields in records]


CatchUp = Callable[[Redis, str, str], Awaitable[Any]]


async def check_catch_up(answer: CatchUp) -> None:
    must_wait(answer)
    async with fresh("stream") as stream, client() as writer:
        ids = [str(await writer.xadd(stream, {"body": f"#{number}"})) for number in range(10)]
        await _returns(
            answer,
            stream,
            ids[6],
            ["#7", "#8", "#9"],
            _("it returns the records after the id, without the record that has that id"),
        )
        await _returns(answer, stream, ids[9], [], _("a reader that has seen everything has missed nothing"))
        all_texts = [f"#{number}" for number in range(10)]
        await _returns(answer, stream, "0-0", all_texts, _("after '0-0' it returns everything that is kept"))
        await writer.xtrim(stream, maxlen=5, approximate=False)
        await _returns(
            answer,
            stream,
            ids[5],
            ["#6", "#7", "#8", "#9"],
            _("if the last record seen is the oldest one kept, nothing is missing"),
        )
        await _reports_a_gap(answer, stream, ids[2], _("of #0 to #9 only #5 to #9 are kept; the reader had seen #2"))
        await _returns(
            answer,
            stream,
            "0-0",
            all_texts[5:],
            _("after '0-0' it returns everything that is kept, and there is no gap"),
        )
        await _notices_trimming_between_commands(answer, stream, writer)
        await writer.xtrim(stream, maxlen=0, approximate=False)
        await _reports_a_gap(answer, stream, ids[9], _("nothing at all is kept; the reader had seen #9"))


async def _returns(answer: CatchUp, stream: str, after: str, expected: list[str], rule: str) -> None:
    async with client() as redis:
        try:
            got = await answer(redis, stream, after)
        except LookupError as error:
            raise NotYet(rule, _("{expected} are kept after that id").format(expected=expected)) from error
    if got != expected:
        shown = _("it returned {got!r}, not {expected!r}").format(got=got, expected=expected)
        raise NotYet(rule, shown, difference=Difference(got, expected))


async def _reports_a_gap(answer: CatchUp, stream: str, after: str, evidence: str) -> None:
    async with client() as redis:
        try:
            got = await answer(redis, stream, after)
        except LookupError:
            return
    raise NotYet(
        _(
            "when the last record seen is gone, later ones may be too: raise LookupError, never return an incomplete "
            "list"
        ),
        _("{evidence}; you returned {got!r}").format(evidence=evidence, got=got),
    )


async def _notices_trimming_between_commands(answer: CatchUp, stream: str, writer: Redis) -> None:
    """Write ten records and trim the stream to five between two commands of the learner's code."""

    async def others_write() -> None:
        for number in range(20, 30):
            await writer.xadd(stream, {"body": f"#{number}"}, maxlen=5, approximate=False)

    ids = [
        str(await writer.xadd(stream, {"body": f"#{number}"}, maxlen=5, approximate=False)) for number in range(10, 15)
    ]
    taps = Taps()
    taps.at(1, "after", others_write)
    async with client(taps) as redis:
        try:
            got = await answer(redis, stream, ids[1])
        except LookupError:
            return  # more careful than necessary, and correct
    if got not in (["#12", "#13", "#14"], [f"#{number}" for number in range(12, 30)]):
        raise NotYet(
            _("look for the gap in what you have read: between two commands the stream may have been trimmed"),
            _(
                "after your first command #20 to #29 were written, and only the last five kept; the reader "
                "had seen #11; you returned {got!r}"
            ).format(got=got),
        )


# --- 05.4 ---


async def publish_once(redis: Any, stream: str, body: str, key: str) -> str:
    script = """
    local id = redis.call('GET', KEYS[2])
    if not id then
        id = redis.call('XADD', KEYS[1], '*', 'body', ARGV[1])
        redis.call('SET', KEYS[2], id, 'EX', 600)
    end
    return id
    """
    return str(await redis.eval(script, 2, stream, f"{stream}:once:{key}", body))


PublishOnce = Callable[[Redis, str, str, str], Awaitable[Any]]


async def check_publish_once(answer: PublishOnce) -> None:
    must_wait(answer)
    async with fresh("stream") as stream, fresh("key") as key, client() as redis:
        first = await answer(redis, stream, "안녕", f"{key} 1")
        await _has(redis, stream, ["안녕"], _("a text is added to the stream, in the field `body`"))
        newest = (await redis.xinfo_stream(stream))["last-generated-id"]
        if first != newest:
            raise NotYet(
                _("it returns the id of the record"),
                _("the record has the id {newest!r}; you returned {first!r}").format(newest=newest, first=first),
            )
        again = await answer(redis, stream, "안녕", f"{key} 1")
        await _has(redis, stream, ["안녕"], _("the same text under the same key is not added again"))
        if again != first:
            raise NotYet(
                _("a second call under the same key returns the id of the first record"),
                _("the first call returned {first!r}, the second {again!r}").format(first=first, again=again),
            )
        await answer(redis, stream, "안녕", f"{key} 2")
        await _has(redis, stream, ["안녕", "안녕"], _("the same text under another key is another message"))
        async with fresh("other-stream") as other:
            await answer(redis, other, "안녕", f"{key} 1")
            await _has(
                redis,
                other,
                ["안녕"],
                _("each stream has its own keys: store the id under the stream and the key together"),
            )
    await _survives_any_break(answer)
    await _two_at_once(answer)
    await _expires_keys(answer)


async def _texts(redis: Redis, stream: str) -> list[str]:
    return [str(fields["body"]) for _, fields in await redis.xrange(stream) or [] if fields]


async def _has(redis: Redis, stream: str, expected: list[str], rule: str) -> None:
    if (got := await _texts(redis, stream)) != expected:
        raise NotYet(rule, _("the stream contains {got}, not {expected}").format(got=got, expected=expected))


async def _survives_any_break(answer: PublishOnce) -> None:
    """Break the connection before and after each exchange in turn; then try again, as the caller would."""
    moments: tuple[Moment, ...] = ("after", "before")
    for exchange in range(1, 12):
        reached = False
        for moment in moments:
            reached = await _breaks(answer, exchange, moment) or reached
        if not reached:
            return
    raise NotYet(_("a few commands are enough"), _("your function sends more than ten"))


async def _breaks(answer: PublishOnce, exchange: int, moment: Moment) -> bool:
    """Break the connection at that exchange; return whether the learner's code got that far."""
    taps = Taps()
    taps.at(exchange, moment, break_off)
    async with fresh("stream") as stream, fresh("key") as key, client() as witness:
        async with client(taps) as redis:
            try:
                await answer(redis, stream, "한 번", key)
                broke = False
            except RedisConnectionError:
                broke = True
        async with client() as redis:
            await answer(redis, stream, "한 번", key)
        texts = await _texts(witness, stream)
    if not texts:
        raise NotYet(
            _("a text that was not added because the connection broke is added by the next try"),
            _broken(exchange, moment, texts),
        )
    if len(texts) > 1:
        raise NotYet(
            _("a text that was added before the connection broke is not added again"),
            _broken(exchange, moment, texts),
        )
    return broke


def _broken(exchange: int, moment: Moment, texts: list[str]) -> str:
    """Describe where the connection broke, and what the stream contains after another try."""
    before = _("the connection broke before command {number} was sent")
    after = _("the connection broke after command {number} was executed")
    found = _("after another try the stream contains {texts}")
    return f"{(before if moment == 'before' else after).format(number=exchange)}\n{found.format(texts=texts)}"


async def _two_at_once(answer: PublishOnce) -> None:
    async with fresh("stream") as stream, fresh("key") as key, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client()) for __ in range(8)]
        ids = await asyncio.gather(*(answer(each, stream, "동시에", key) for each in clients))
        texts = await _texts(clients[0], stream)
        if len(texts) > 1:
            raise NotYet(
                _("when several clients publish under one key at the same moment, only one adds the record"),
                _("8 clients published at once; the stream contains {count} records").format(count=len(texts)),
            )
        if len(set(ids)) > 1:
            raise NotYet(
                _("all clients that publish under one key get the same id"),
                _("8 clients published at once and got {ids}").format(ids=ids),
            )


async def _expires_keys(answer: PublishOnce) -> None:
    async with fresh("stream") as stream, fresh("key") as message, client() as redis:
        await answer(redis, stream, "안녕", message)
        for key in [key async for key in redis.scan_iter(match=f"*{stream}*") if key != stream]:
            seconds = await redis.ttl(key)
            if seconds < 0:
                raise NotYet(
                    _("what is stored for each key expires one day, or memory fills up"),
                    _("{key!r} never expires").format(key=key),
                )
            if seconds < 30:
                raise NotYet(
                    _("a key is kept for at least half a minute: a sender may try again for that long"),
                    _("{key!r} expires in {seconds} s").format(key=key, seconds=seconds),
                )


# --- 05.5 ---


class MyBroker:
    def __init__(self, redis: Any) -> None:
        self.redis = redis

    async def publish(self, topic: str, body: bytes) -> Any:
        id = await self.redis.xadd(topic, {"body": body}, maxlen=1000)  # about 1000
        return id.decode()

    async def subscribe(self, topic: str, after: str | None = None) -> AsyncIterator[Record]:
        if after is None:
            newest = await self.redis.xrevrange(topic, count=1)
            after = newest[0][0].decode() if newest else "0-0"
        return self.read(topic, after)

    async def read(self, topic: str, after: str) -> AsyncIterator[Record]:
        while True:
            for _stream, records in await self.redis.xread({topic: after}, block=1000):
                for id, fields in records:
                    after = id.decode()
                    yield Record(topic, after, fields[b"body"])


async def check_my_broker(answer: Any) -> None:
    if not isinstance(answer, type):
        raise NotYet(_("a broker is a class, made from a Redis client: MyBroker(redis)"), answer)
    for name in ("publish", "subscribe"):
        if not callable(getattr(answer, name, None)):
            raise NotYet(
                _("a broker has the method `{name}`").format(name=name),
                _("yours has {names}").format(names=sorted(set(dir(answer)) - set(dir(object)))),
            )
    for case in (_from_now_on, _octets, _each_reader, _from_the_past, _topics_apart, _bounded):
        async with client(decode=False) as redis, fresh("topic") as topic:
            await case(answer(redis), topic)
    async with client(decode=False) as one, client(decode=False) as two, fresh("room") as topic:
        await _carries_the_chat(answer(one), answer(two), topic)


async def _subscribe(broker: Any, topic: str, **after: str) -> AsyncIterator[Record]:
    subscribing = broker.subscribe(topic, **after)
    if inspect.isasyncgen(subscribing):
        raise NotYet(
            _("`subscribe` fixes the position before it returns: a generator only starts when it is first read"),
            _("your `subscribe` has a `yield` in it; move the loop into a separate method, and return that"),
        )
    reader = await subscribing
    if not hasattr(reader, "__aiter__"):
        raise NotYet(
            _("`subscribe` returns something that `async for` can read"),
            _("yours returned {reader!r}").format(reader=reader),
        )
    return aiter(reader)


async def _next(reader: AsyncIterator[Record], rule: str, evidence: Callable[[], str]) -> Record:
    """Return the next record. Raise `NotYet` if none arrives soon, or if it is not a `Record`."""
    try:
        async with asyncio.timeout(1.2):
            record = await anext(reader)
    except (TimeoutError, StopAsyncIteration):
        raise NotYet(rule, evidence()) from None
    if not isinstance(record, Record):
        raise NotYet(
            _("a reader yields `Record(topic, id, body)`"), _("yours yielded {record!r}").format(record=record)
        )
    return record


async def _bodies(reader: AsyncIterator[Record], expected: list[bytes], rule: str, setup: str) -> list[Record]:
    """Read as many records as expected and check their bodies; `setup` says what was published before."""
    got: list[Record] = []

    def read_so_far() -> str:
        return f"{setup}\n" + _("read: {bodies}").format(bodies=[each.body for each in got])

    for number in range(len(expected)):
        got.append(await _next(reader, rule, lambda: f"{read_so_far()}\n" + _("and then nothing")))
        if got[number].body != expected[number]:
            raise NotYet(rule, read_so_far())
    return got


async def _from_now_on(broker: Any, topic: str) -> None:
    await broker.publish(topic, b"before")
    reader = await _subscribe(broker, topic)
    await broker.publish(topic, b"after")
    rule = _("a reader gets what is published from the moment `subscribe` returns, and nothing older")
    await _bodies(reader, [b"after"], rule, _("published: b'before'; subscribed; published: b'after'"))


async def _octets(broker: Any, topic: str) -> None:
    reader = await _subscribe(broker, topic)
    bodies = [bytes(range(256)), "안녕 🙂".encode(), b""]
    ids = [await broker.publish(topic, body) for body in bodies]
    if not all(isinstance(id, str) for id in ids):
        raise NotYet(_("`publish` returns the record's id, as a `str`"), _("yours returned {id!r}").format(id=ids[0]))
    for id, body in zip(ids, bodies, strict=True):
        rule = _("a body is bytes, and arrives unchanged")
        record = await _next(reader, rule, lambda body=body: _("published: {body!r}; read: nothing").format(body=body))  # type: ignore[misc]  # mypy cannot infer a lambda's default
        if record != Record(topic, id, body):
            raise NotYet(
                _("a record has the topic, the id that `publish` returned, and the unchanged body"),
                _("expected {expected}\ngot      {record}").format(expected=Record(topic, id, body), record=record),
            )


async def _each_reader(broker: Any, topic: str) -> None:
    rule = _("every reader gets every record, once and in order, whether it is ahead of the others or behind")
    setup = _("published: 0 to 30; three readers: one ahead, one behind, one that starts late")
    sent = [b"%d" % number for number in range(31)]
    ahead, behind, late = [await _subscribe(broker, topic) for __ in range(3)]
    reading = asyncio.create_task(_bodies(ahead, sent[:30], rule, setup))
    try:
        for body in sent[:30]:
            await broker.publish(topic, body)
        await reading
    finally:
        reading.cancel()
    await _bodies(behind, sent[:5], rule, setup)
    await broker.publish(topic, sent[30])
    await _bodies(ahead, sent[30:], rule, setup)
    await _bodies(behind, sent[5:], rule, setup)
    await _bodies(late, sent, rule, setup)


async def _from_the_past(broker: Any, topic: str) -> None:
    ids = [await broker.publish(topic, b"%d" % number) for number in range(5)]
    reader = await _subscribe(broker, topic, after=ids[1])
    await broker.publish(topic, b"5")
    expected = [b"2", b"3", b"4", b"5"]
    rule = _("with `after`, a reader first gets the records kept after that id, then new ones")
    got = await _bodies(reader, expected, rule, _("published: 0 to 4; subscribed after the id of 1; published: 5"))
    again = await _subscribe(broker, topic, after=got[0].id)
    await _bodies(again, expected[1:], rule, _("a reader that had received 2 came back with its id"))


async def _topics_apart(broker: Any, topic: str) -> None:
    names = [topic, f"{topic}:방", f"{topic}:방 🙂"]
    readers = [await _subscribe(broker, name) for name in names]
    for name in names:
        await broker.publish(name, name.encode())
    for name, reader in zip(names, readers, strict=True):
        await _bodies(
            reader,
            [name.encode()],
            _("topics are kept apart"),
            _("published to each topic of {names}: its name").format(names=names),
        )


async def _bounded(broker: Any, topic: str) -> None:
    for __ in range(30):
        await asyncio.gather(*(broker.publish(topic, b"x" * 10) for __ in range(50)))
    async with client() as redis:
        length = await redis.xlen(topic)
    if length > 1200:
        raise NotYet(
            _("a stream does not grow forever: about 1000 records of each topic are kept"),
            _("1500 records were published, and {length} of them are kept").format(length=length),
        )
    if length < 500:
        raise NotYet(
            _("about 1000 records of each topic are kept, for readers that come back"),
            _("1500 records were published, and {length} of them are kept in the stream {topic!r}").format(
                length=length, topic=topic
            ),
        )


class BrokerAdapter:
    """A learner's broker as a `Broker`: adds what the room's server needs and the exercise does not ask for."""

    connected = True

    def __init__(self, broker: Any) -> None:
        self._broker = broker

    async def start(self) -> None:
        """Do nothing: the client is connected."""

    async def publish(self, topic: str, body: bytes) -> str:
        id: str = await self._broker.publish(topic, body)
        return id

    async def subscribe(self, topic: str) -> Reader:
        return ReaderAdapter(await _subscribe(self._broker, topic))

    async def aclose(self) -> None:
        """Do nothing: the client is closed by its owner."""


class ReaderAdapter:
    """What the learner's `subscribe` returned, as a `Reader`: batches of one record."""

    def __init__(self, reader: AsyncIterator[Record]) -> None:
        self._reader = reader

    def __aiter__(self) -> ReaderAdapter:
        return self

    async def __anext__(self) -> Record:
        return await anext(self._reader)

    async def batch(self, limit: int = 512) -> Sequence[Record]:
        return [record] if (record := await anext(self._reader, None)) else []

    async def aclose(self) -> None:
        if close := getattr(self._reader, "aclose", None):
            await close()


async def _carries_the_chat(one: Any, two: Any, topic: str) -> None:
    """Run the lesson's two servers on two of the learner's brokers."""
    async with (
        await shared_room.start(BrokerAdapter(one), topic=topic) as first,
        await shared_room.start(BrokerAdapter(two), topic=topic) as second,
        members(first.url, "가람") as [garam],
        members(second.url, "Nuri") as [nuri],
    ):
        for number in range(10):
            await asyncio.gather(garam.send(f"#{number}"), nuri.send(f"#{number}"))
        await wait_or(
            lambda: len(said(garam)) >= 20 and len(said(nuri)) >= 20,
            _("the chat runs on it: two servers, each with a broker of yours, and every member receives every text"),
            lambda: received_by(garam, nuri),
            timeout=3,
        )
        in_one_order(garam, nuri)


EXERCISES = [
    Exercise(
        "05.1",
        _("The partition of a message"),
        check_partition,
        (
            _(
                "Records are ordered within a partition, not between partitions. Which messages must stay in order? "
                "Only what those have in common may decide."
            ),
            _(
                "Turn the room's name into a number and take the remainder: `number % count` is from 0 to count - 1. "
                "The number must be the same on every server. Python's hash() is not: each process seeds it "
                "differently."
            ),
            _("`import zlib`, then `zlib.crc32(message['room'].encode()) % count`. A checksum is the same everywhere."),
        ),
        partition,
        _(
            "Kafka does this with a message's key, and Redis Cluster with a stream's name. The rooms are spread over "
            "the partitions, each room keeps its order, and no server has to ask another one where a room is."
        ),
    ),
    Exercise(
        "05.2",
        _("Read on without a gap"),
        check_follow,
        (
            _(
                "Write an endless loop around `await redis.xread({stream: after}, block=1000)`, which returns the "
                "records after the id `after`, or waits for one for up to a second. What is `after` the second time?"
            ),
            _(
                "It is the id of the last record you have shown. Do not use '$', which means from now on: between two "
                "reads, now has moved on, and what was written in between is lost."
            ),
            _(
                "The reply is a list of streams, each with its records:\n"
                "    for _stream, records in await redis.xread({stream: after}, block=1000):\n"
                "        for id, fields in records:\n"
                "            await show(fields['body'])\n"
                "            after = id"
            ),
        ),
        follow,
        _(
            "Kept records and new records are the same thing: what comes after an id. So there is no seam between "
            "them where a record could get lost. And with a blocking read you need not choose between asking often "
            "and being late (fault F7)."
        ),
    ),
    Exercise(
        "05.3",
        _("A gap is reported, not hidden"),
        check_catch_up,
        (
            _(
                "`await redis.xrange(stream, min=after)` returns the records from the id `after` on, including that "
                "one. What does it mean if the first of them has a different id?"
            ),
            _(
                "If the first record is `after` itself, nothing in between is gone: return the rest. If it is not, "
                "or if there is none, `raise LookupError(after)`. '0-0' is the id before all others, so there is no "
                "gap: return everything."
            ),
            _(
                "Read, compare, and drop the record that the reader has already seen:\n"
                "    records = await redis.xrange(stream, min=after)\n"
                "    if after != '0-0':\n"
                "        if not records or records[0][0] != after:\n"
                "            raise LookupError(after)\n"
                "        del records[0]\n"
                "What is left to return: `[fields['body'] for _, fields in records]`."
            ),
        ),
        catch_up,
        _(
            "With one command, the reply contains its own proof: its first record is the one you know. With two "
            "commands, one for the oldest id and one for the records, the stream can be trimmed in between, and the "
            "gap is hidden again."
        ),
    ),
    Exercise(
        "05.4",
        _("Once, whatever breaks"),
        check_publish_once,
        (
            _(
                "Looking up the key and adding the record must be one step: between two commands the connection can "
                "break, or another client can come first. Redis runs a script atomically and returns what the script "
                "returns: `await redis.eval(script, 2, stream, f'{stream}:once:{key}', body)`. The 2 says that two "
                "of the arguments are keys."
            ),
            _(
                "`script` is a string with Lua code. KEYS[1] is the stream, KEYS[2] the other key, ARGV[1] the body:\n"
                "    local id = redis.call('GET', KEYS[2])\n"
                "    if not id then\n"
                "        (add the record, and remember its id)\n"
                "    end\n"
                "    return id"
            ),
            _(
                "The two lines in the middle; with 'EX', 600 the key expires after ten minutes:\n"
                "    id = redis.call('XADD', KEYS[1], '*', 'body', ARGV[1])\n"
                "    redis.call('SET', KEYS[2], id, 'EX', 600)"
            ),
        ),
        publish_once,
        _(
            "When a confirmation is lost, the sender cannot know whether the text was lost or the reply. So it has "
            "to try again, and only the engine can tell a second try from a second text. chatlab's broker on Redis "
            "Streams uses a script like this one."
        ),
    ),
    Exercise(
        "05.5",
        _("A broker of your own"),
        check_my_broker,
        (
            _(
                "`__init__` keeps the client: `self.redis = redis`. `publish` adds a record and returns its id. This "
                "client returns bytes: decode the id, leave the body as it is.\n"
                "    id = await self.redis.xadd(topic, {'body': body}, maxlen=1000)\n"
                "    return id.decode()"
            ),
            _(
                "`subscribe` has two parts. First it fixes the position, at the moment it is called. Then it returns "
                "`self.read(topic, after)`: the loop, in a separate method with a `yield` in it:\n"
                "    if after is None:\n"
                "        newest = await self.redis.xrevrange(topic, count=1)\n"
                "        after = newest[0][0].decode() if newest else '0-0'\n"
                "    return self.read(topic, after)"
            ),
            _(
                "`read` is your loop of 05.2, with bytes:\n"
                "    async def read(self, topic, after):\n"
                "        while True:\n"
                "            for _stream, records in await self.redis.xread({topic: after}, block=1000):\n"
                "                for id, fields in records:\n"
                "                    after = id.decode()\n"
                "                    yield Record(topic, after, fields[b'body'])"
            ),
        ),
        MyBroker,
        _(
            "Each reader has its own position in the stream, an id. That is enough for a reader that gets "
            "everything, one that comes back, and one that comes late. chatlab's own broker adds what long-running "
            "servers need: it reconnects after an outage of the engine, shares one blocking read among all topics, "
            "and notices when trimming has overtaken a reader."
        ),
    ),
]
