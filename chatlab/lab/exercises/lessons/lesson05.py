"""Lesson 05: which partition, how to read on, how to notice a gap, how to publish once; and a broker of one's own."""

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
from chatlab.lab.exercises.exercise import Exercise, NotYet
from chatlab.lab.exercises.lessons import lesson03
from chatlab.lab.exercises.lessons.lesson03 import members
from chatlab.lab.exercises.support.redis import Moment, Taps, break_off, client, fresh
from chatlab.lab.exercises.support.rooms import at_work, first_few, in_one_order, must_wait, received_by, said
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
                    f"a partition is a whole number from 0 to {count - 1}",
                    f"partition({message(room)}, {count}) gave {place!r}",
                )
    _keeps_a_room_together(answer)
    _agrees_with_other_processes(answer, rooms)
    shares = Counter(answer(message(room), 4) for room in rooms)
    if min(shares[number] for number in range(4)) < len(rooms) / 16:
        raise NotYet(
            "the rooms are spread over all partitions, none of them left nearly empty",
            f"300 rooms, '방 0' to '방 299', on 4 partitions: {[shares[number] for number in range(4)]}",
        )


def message(room: str, sender: str = "가람", text: str = "안녕") -> dict[str, str]:
    return {"room": room, "sender": sender, "text": text}


def _keeps_a_room_together(answer: Callable[[dict[str, str], int], Any]) -> None:
    for room in ("방 1", "public", "서울 🚇"):
        talk = [message(room, sender, text) for sender in ("가람", "Nuri", "하늘") for text in ("안녕", "👋", "어디?")]
        places = [answer(each, 4) for each in [*talk, *talk]]
        if len(set(places)) > 1:
            raise NotYet(
                "all messages of one room are in one partition: only within a partition is there an order",
                f"a talk of {len(places)} messages in the room {room!r} went to the partitions {places}",
            )


def _agrees_with_other_processes(answer: Callable[[dict[str, str], int], Any], rooms: Sequence[str]) -> None:
    """Run the learner's code with the `hash` of another process, which Python seeds anew in each."""
    if not isinstance(answer, types.FunctionType):
        return
    elsewhere = types.FunctionType(
        answer.__code__,
        {**answer.__globals__, "hash": lambda value: hash(("another process", value))},
        answer.__name__,
        answer.__defaults__,
        answer.__closure__,
    )
    for room in rooms:
        if (here := answer(message(room), 4)) != (there := elsewhere(message(room), 4)):
            raise NotYet(
                "every server finds the same partition: Python's hash() of a text is another in each process",
                f"the room {room!r} is in partition {here} here, and in {there} in another process",
            )


# --- 05.2 ---


async def follow(redis: Any, stream: str, after: str, show: Callable[[str], Awaitable[None]]) -> None:
    while True:
        for _, records in await redis.xread({stream: after}, block=1000):
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
            if text == "#4":  # somebody speaks while the reader is busy
                await writer.xadd(stream, {"body": "#6"})
                await writer.xadd(stream, {"body": "#7"})

        async with at_work(answer(redis, stream, kept[2], show), what="the reader"):
            await _shows(shown, ["#3", "#4", "#5"], "a reader is first shown what was kept after the id it names")
            await _shows(shown, ["#6", "#7"], "what is written while the reader is busy is not missed")
            for number in range(8, 12):
                await writer.xadd(stream, {"body": f"#{number}"})
                await _shows(shown, [f"#{number}"], "then it is shown what is new, as it comes")
            expected = [f"#{number}" for number in range(3, 12)]
            if shown != expected:
                raise NotYet(
                    "each record is shown once, in order",
                    f"{expected} were to be shown; shown were {first_few(shown)}",
                )
            await _waits_without_asking(taps)
            await writer.xadd(stream, {"body": "#12"})
            await _shows(shown, ["#12"], "it goes on after a silence")


async def _shows(shown: list[str], texts: Sequence[str], rule: str) -> None:
    await wait_or(
        lambda: set(texts) <= set(shown), rule, lambda: f"{texts} were written; shown were {first_few(shown)}"
    )


async def _waits_without_asking(taps: Taps) -> None:
    before = taps.exchanges
    await asyncio.sleep(0.4)
    if (asked := taps.exchanges - before) > 2:
        raise NotYet(
            "when there is nothing new it waits: the server answers a blocking read when there is something",
            f"in 0.4 s of silence it asked {asked} times",
        )


# --- 05.3 ---


async def catch_up(redis: Any, stream: str, after: str) -> list[str]:
    records = await redis.xrange(stream, min=after)
    if after != "0-0":
        if not records or records[0][0] != after:
            raise LookupError(f"{after} is no longer kept, and perhaps more is gone")
        del records[0]
    return [fields["body"] for _, fields in records]


CatchUp = Callable[[Redis, str, str], Awaitable[Any]]


async def check_catch_up(answer: CatchUp) -> None:
    must_wait(answer)
    async with fresh("stream") as stream, client() as writer:
        ids = [str(await writer.xadd(stream, {"body": f"#{number}"})) for number in range(10)]
        await _gives(answer, stream, ids[6], ["#7", "#8", "#9"], "it gives what came after the id, and not that one")
        await _gives(answer, stream, ids[9], [], "who has seen all has missed nothing")
        all_texts = [f"#{number}" for number in range(10)]
        await _gives(answer, stream, "0-0", all_texts, "after '0-0' it gives all that is kept")
        await writer.xtrim(stream, maxlen=5, approximate=False)
        await _gives(
            answer, stream, ids[5], ["#6", "#7", "#8", "#9"], "the oldest record kept is no gap: nothing is lost"
        )
        await _tells_of_a_gap(answer, stream, ids[2], "of #0 to #9 only #5 to #9 are kept; the reader had seen #2")
        await _gives(answer, stream, "0-0", all_texts[5:], "after '0-0' it gives all that is kept, and there is no gap")
        await _is_trimmed_meanwhile(answer, stream, writer)
        await writer.xtrim(stream, maxlen=0, approximate=False)
        await _tells_of_a_gap(answer, stream, ids[9], "nothing at all is kept; the reader had seen #9")


async def _gives(answer: CatchUp, stream: str, after: str, expected: list[str], rule: str) -> None:
    async with client() as redis:
        try:
            got = await answer(redis, stream, after)
        except LookupError as error:
            raise NotYet(rule, f"{expected} are kept after that id") from error
    if got != expected:
        raise NotYet(rule, f"it gave {got!r}, not {expected!r}")


async def _tells_of_a_gap(answer: CatchUp, stream: str, after: str, evidence: str) -> None:
    async with client() as redis:
        try:
            got = await answer(redis, stream, after)
        except LookupError:
            return
    raise NotYet(
        "when the record last seen is gone, others may be too: raise LookupError, and give no list with a hole",
        f"{evidence}; you gave {got!r}",
    )


async def _is_trimmed_meanwhile(answer: CatchUp, stream: str, writer: Redis) -> None:
    """Between two questions of the learner's, ten records are written, and the stream is trimmed to five."""

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
            return  # more careful than need be, and honest
    if got not in (["#12", "#13", "#14"], [f"#{number}" for number in range(12, 30)]):
        raise NotYet(
            "look for the gap in what you have read: between two questions the stream may have been trimmed",
            f"after your first question #20 to #29 were written, and only the last five kept; the reader had seen #11; "
            f"you gave {got!r}",
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
        await _has(redis, stream, ["안녕"], "a text is added to the stream, in the field `body`")
        newest = (await redis.xinfo_stream(stream))["last-generated-id"]
        if first != newest:
            raise NotYet("it returns the id of the record", f"the record has the id {newest!r}; you gave {first!r}")
        again = await answer(redis, stream, "안녕", f"{key} 1")
        await _has(redis, stream, ["안녕"], "the same text under the same key is not added again")
        if again != first:
            raise NotYet(
                "a second call under the same key returns the id of the first record",
                f"the first call gave {first!r}, the second {again!r}",
            )
        await answer(redis, stream, "안녕", f"{key} 2")
        await _has(redis, stream, ["안녕", "안녕"], "the same text under another key is another message")
        async with fresh("other-stream") as other:
            await answer(redis, other, "안녕", f"{key} 1")
            await _has(
                redis,
                other,
                ["안녕"],
                "each stream has keys of its own: note the id under both, the stream and the key",
            )
    await _bears_any_break(answer)
    await _two_at_once(answer)
    await _forgets_one_day(answer)


async def _texts(redis: Redis, stream: str) -> list[str]:
    return [str(fields["body"]) for _, fields in await redis.xrange(stream) or [] if fields]


async def _has(redis: Redis, stream: str, expected: list[str], rule: str) -> None:
    if (got := await _texts(redis, stream)) != expected:
        raise NotYet(rule, f"the stream holds {got}, not {expected}")


async def _bears_any_break(answer: PublishOnce) -> None:
    """Break the connection before and after each exchange in turn; then try again, as the caller would."""
    moments: tuple[Moment, ...] = ("after", "before")
    for exchange in range(1, 12):
        reached = False
        for moment in moments:
            reached = await _breaks(answer, exchange, moment) or reached
        if not reached:
            return
    raise NotYet("a few exchanges with the server do it", "yours needs more than ten")


async def _breaks(answer: PublishOnce, exchange: int, moment: Moment) -> bool:
    """Break the connection there; whether the answer came that far."""
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
    when = f"the connection broke {moment} command {exchange} was {'done' if moment == 'after' else 'sent'}"
    if not texts:
        raise NotYet(
            "what was not added because the connection broke is added by the next try",
            f"{when}, and there was another try; the stream is empty",
        )
    if len(texts) > 1:
        raise NotYet(
            "what was added before the connection broke is not added again",
            f"{when}, and there was another try; the stream: {texts}",
        )
    return broke


async def _two_at_once(answer: PublishOnce) -> None:
    async with fresh("stream") as stream, fresh("key") as key, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client()) for _ in range(8)]
        ids = await asyncio.gather(*(answer(each, stream, "동시에", key) for each in clients))
        texts = await _texts(clients[0], stream)
        if len(texts) > 1:
            raise NotYet(
                "of several who publish under one key at the same moment, one adds the record",
                f"8 tried at once; the stream holds {len(texts)} records",
            )
        if len(set(ids)) > 1:
            raise NotYet("all who publish under one key are given the same id", f"8 tried at once and got {ids}")


async def _forgets_one_day(answer: PublishOnce) -> None:
    async with fresh("stream") as stream, fresh("key") as message, client() as redis:
        await answer(redis, stream, "안녕", message)
        for key in [key async for key in redis.scan_iter(match=f"*{stream}*") if key != stream]:
            seconds = await redis.ttl(key)
            if seconds < 0:
                raise NotYet(
                    "what is remembered for each key is forgotten one day, or memory fills up",
                    f"{key!r} is kept for ever",
                )
            if seconds < 30:
                raise NotYet(
                    "a key is remembered for half a minute at least: so long may a sender try again",
                    f"{key!r} is forgotten in {seconds} s",
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
            for _, records in await self.redis.xread({topic: after}, block=1000):
                for id, fields in records:
                    after = id.decode()
                    yield Record(topic, after, fields[b"body"])


async def check_my_broker(answer: Any) -> None:
    if not isinstance(answer, type):
        raise NotYet("a broker is a class, made from a Redis client: MyBroker(redis)", answer)
    for name in ("publish", "subscribe"):
        if not callable(getattr(answer, name, None)):
            raise NotYet(
                f"a broker has the method `{name}`", f"yours has {sorted(set(dir(answer)) - set(dir(object)))}"
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
            "`subscribe` notes the place before it returns: a generator begins only when it is first read",
            "your `subscribe` has a `yield` in it; move the loop into a method of its own, and return that",
        )
    reader = await subscribing
    if not hasattr(reader, "__aiter__"):
        raise NotYet("`subscribe` returns something for `async for`", f"yours returned {reader!r}")
    return aiter(reader)


async def _next(reader: AsyncIterator[Record], rule: str, evidence: Callable[[], str]) -> Record:
    """The next delivery, if it comes soon and is one."""
    try:
        async with asyncio.timeout(1.2):
            delivery = await anext(reader)
    except (TimeoutError, StopAsyncIteration):
        raise NotYet(rule, evidence()) from None
    if not isinstance(delivery, Record):
        raise NotYet("a reader is given `Record(topic, id, body)`", f"yours was given {delivery!r}")
    return delivery


async def _bodies(reader: AsyncIterator[Record], expected: list[bytes], rule: str, told: str) -> list[Record]:
    """Read as many as are expected, and see that they are those."""
    got: list[Record] = []
    for _ in expected:
        got.append(await _next(reader, rule, lambda: f"{told}; read: {[each.body for each in got]}, and then nothing"))
        if [each.body for each in got] != expected[: len(got)]:
            raise NotYet(rule, f"{told}; read: {[each.body for each in got]}")
    return got


async def _from_now_on(broker: Any, topic: str) -> None:
    await broker.publish(topic, b"before")
    reader = await _subscribe(broker, topic)
    await broker.publish(topic, b"after")
    rule = "a reader gets what is published from the moment in which `subscribe` returns, and nothing older"
    await _bodies(reader, [b"after"], rule, "published: b'before'; subscribed; published: b'after'")


async def _octets(broker: Any, topic: str) -> None:
    reader = await _subscribe(broker, topic)
    bodies = [bytes(range(256)), "안녕 🙂".encode(), b""]
    ids = [await broker.publish(topic, body) for body in bodies]
    if not all(isinstance(id, str) for id in ids):
        raise NotYet("`publish` returns the record's id, as a `str`", f"yours returned {ids[0]!r}")
    for id, body in zip(ids, bodies, strict=True):
        rule = "a body is octets, and arrives as it was"
        delivery = await _next(reader, rule, lambda body=body: f"published: {body!r}; read: nothing")  # type: ignore[misc]  # mypy cannot infer a lambda's default
        if delivery != Record(topic, id, body):
            raise NotYet(
                "a delivery has the topic, the id that `publish` returned, and the body as it was",
                f"expected {Record(topic, id, body)}\ngot      {delivery}",
            )


async def _each_reader(broker: Any, topic: str) -> None:
    rule = "every reader gets every record, once and in order, whether it is ahead of the others or behind"
    told = "published: 0 to 30; three readers, one ahead, one behind, one that begins late"
    sent = [b"%d" % number for number in range(31)]
    ahead, behind, late = [await _subscribe(broker, topic) for _ in range(3)]
    reading = asyncio.create_task(_bodies(ahead, sent[:30], rule, told))
    try:
        for body in sent[:30]:
            await broker.publish(topic, body)
        await reading
    finally:
        reading.cancel()
    await _bodies(behind, sent[:5], rule, told)
    await broker.publish(topic, sent[30])
    await _bodies(ahead, sent[30:], rule, told)
    await _bodies(behind, sent[5:], rule, told)
    await _bodies(late, sent, rule, told)


async def _from_the_past(broker: Any, topic: str) -> None:
    ids = [await broker.publish(topic, b"%d" % number) for number in range(5)]
    reader = await _subscribe(broker, topic, after=ids[1])
    await broker.publish(topic, b"5")
    expected = [b"2", b"3", b"4", b"5"]
    rule = "with `after`, a reader first gets what was kept after that id, then what is new"
    got = await _bodies(reader, expected, rule, "published: 0 to 4; subscribed after the id of 1; published: 5")
    again = await _subscribe(broker, topic, after=got[0].id)
    await _bodies(again, expected[1:], rule, "a reader that had got 2 came back with its id")


async def _topics_apart(broker: Any, topic: str) -> None:
    names = [topic, f"{topic}:방", f"{topic}:방 🙂"]
    readers = [await _subscribe(broker, name) for name in names]
    for name in names:
        await broker.publish(name, name.encode())
    for name, reader in zip(names, readers, strict=True):
        await _bodies(reader, [name.encode()], "topics are kept apart", f"published to each of {names} its own name")


async def _bounded(broker: Any, topic: str) -> None:
    for _ in range(30):
        await asyncio.gather(*(broker.publish(topic, b"x" * 10) for _ in range(50)))
    async with client() as redis:
        length = await redis.xlen(topic)
    if length > 1200:
        raise NotYet(
            "a stream does not grow for ever: about 1000 records of each topic are kept",
            f"1500 records were published, and {length} of them are kept",
        )
    if length < 500:
        raise NotYet(
            "about 1000 records of each topic are kept, for those who come back",
            f"1500 records were published, and {length} of them are kept in the stream {topic!r}",
        )


class Ported:
    """A learner's broker behind the port: what chat asks of one and the exercise does not."""

    resumes = True
    connected = True

    def __init__(self, broker: Any) -> None:
        self._broker = broker

    async def start(self) -> None:
        """Its client is connected."""

    async def publish(self, topic: str, body: bytes) -> str:
        id: str = await self._broker.publish(topic, body)
        return id

    async def subscribe(self, topic: str) -> Reader:
        return PortedSubscription(await _subscribe(self._broker, topic))

    async def aclose(self) -> None:
        """Its client is closed by its owner."""


class PortedSubscription:
    """What `subscribe` returned, read one at a time."""

    def __init__(self, reader: AsyncIterator[Record]) -> None:
        self._reader = reader

    def __aiter__(self) -> PortedSubscription:
        return self

    async def __anext__(self) -> Record:
        return await anext(self._reader)

    async def batch(self, limit: int = 512) -> Sequence[Record]:
        return [delivery] if (delivery := await anext(self._reader, None)) else []

    async def aclose(self) -> None:
        if close := getattr(self._reader, "aclose", None):
            await close()


async def _carries_the_chat(one: Any, two: Any, topic: str) -> None:
    """The two servers of the lesson, on two brokers of the learner's."""
    async with (
        await shared_room.start(Ported(one), topic=topic) as first,
        await shared_room.start(Ported(two), topic=topic) as second,
        members(first.url, "가람") as [garam],
        members(second.url, "Nuri") as [nuri],
    ):
        for number in range(10):
            await asyncio.gather(garam.send(f"#{number}"), nuri.send(f"#{number}"))
        await wait_or(
            lambda: len(said(garam)) >= 20 and len(said(nuri)) >= 20,
            "the chat runs on it: two servers, each with a broker of yours, and everybody hears everybody",
            lambda: received_by(garam, nuri),
            timeout=3,
        )
        in_one_order(garam, nuri)


EXERCISES = [
    Exercise(
        "05.1",
        "The partition of a message",
        check_partition,
        (
            "Within a partition there is an order, between two there is none. Whose messages must stay in order? Only "
            "that part of the message may decide.",
            "Make a number of the room's name, and take the remainder: number % count is from 0 to count - 1. The "
            "number must be the same on every server, and Python's hash() is not: each process begins it anew.",
            "`import zlib`, then `zlib.crc32(message['room'].encode()) % count`. A checksum is the same everywhere.",
        ),
        partition,
        "This is what Kafka does with a message's key, and a Redis Cluster with a stream's name. Rooms share the work "
        "among partitions, each room keeps its order, and no server has to ask another one where a room is.",
    ),
    Exercise(
        "05.2",
        "Read on without a gap",
        check_follow,
        (
            "An endless loop around `await redis.xread({stream: after}, block=1000)`, which gives what came after the "
            "id `after`, or waits up to a second. What is `after` the second time?",
            "It is the id of the last record you have shown. Do not use '$', which means from now on: between two "
            "reads, now has moved on, and what was written in between is lost.",
            "The answer is a list of streams, each with its records:\n"
            "    for _, records in await redis.xread({stream: after}, block=1000):\n"
            "        for id, fields in records:\n"
            "            await show(fields['body'])\n"
            "            after = id",
        ),
        follow,
        "History and news are one and the same: what comes after an id. So there is no seam between them at which "
        "something could get lost. And a blocking read need not choose between asking often and being late (fault F7).",
    ),
    Exercise(
        "05.3",
        "A gap is told, not hidden",
        check_catch_up,
        (
            "`await redis.xrange(stream, min=after)` gives the records from the id `after` on, that one included. What "
            "does it tell you if the first of them is another one?",
            "If the first record is `after` itself, nothing between is gone: give the rest. If it is not, or there is "
            "none, `raise LookupError(after)`. For '0-0', the id before all others, there is no gap: give everything.",
            "Read, look, and take away the record that the reader has seen:\n"
            "    records = await redis.xrange(stream, min=after)\n"
            "    if after != '0-0':\n"
            "        if not records or records[0][0] != after:\n"
            "            raise LookupError(after)\n"
            "        del records[0]\n"
            "What is left to return: `[fields['body'] for _, fields in records]`.",
        ),
        catch_up,
        "One question, and the answer carries its own proof: the record you know is its first. With two questions, the "
        "oldest id first and the records after it, the stream can be trimmed in between, and the gap is hidden again.",
    ),
    Exercise(
        "05.4",
        "Once, whatever breaks",
        check_publish_once,
        (
            "Looking up the key and adding the record must be one step: between two commands a connection can break, "
            "and somebody else can come. Redis runs a script as one step, and returns what the script returns: "
            "`await redis.eval(script, 2, stream, f'{stream}:once:{key}', body)`. Two of the arguments are keys.",
            "`script` is a text, in the language Lua. KEYS[1] is the stream, KEYS[2] the other key, ARGV[1] the body:\n"
            "    local id = redis.call('GET', KEYS[2])\n"
            "    if not id then\n"
            "        (add the record, and remember its id)\n"
            "    end\n"
            "    return id",
            "The two lines in the middle; 'EX', 600 has Redis forget the key after ten minutes:\n"
            "    id = redis.call('XADD', KEYS[1], '*', 'body', ARGV[1])\n"
            "    redis.call('SET', KEYS[2], id, 'EX', 600)",
        ),
        publish_once,
        "When a confirmation is lost, the sender cannot know whether the text got lost or the answer. So it "
        "has to try again, and only the engine can tell the second try from a second text. chatlab's broker on Redis "
        "Streams uses a script like this one.",
    ),
    Exercise(
        "05.5",
        "A broker of your own",
        check_my_broker,
        (
            "`__init__` keeps the client: `self.redis = redis`. `publish` adds a record and returns its id. This "
            "client gives bytes: the id is decoded, the body is left as it is.\n"
            "    id = await self.redis.xadd(topic, {'body': body}, maxlen=1000)\n"
            "    return id.decode()",
            "`subscribe` has two parts. First it settles the place, when it is called. Then it returns "
            "`self.read(topic, after)`, the loop, which is a method of its own with `yield` in it:\n"
            "    if after is None:\n"
            "        newest = await self.redis.xrevrange(topic, count=1)\n"
            "        after = newest[0][0].decode() if newest else '0-0'\n"
            "    return self.read(topic, after)",
            "`read` is your loop of 05.2, in bytes:\n"
            "    async def read(self, topic, after):\n"
            "        while True:\n"
            "            for _, records in await self.redis.xread({topic: after}, block=1000):\n"
            "                for id, fields in records:\n"
            "                    after = id.decode()\n"
            "                    yield Delivery(topic, after, fields[b'body'])",
        ),
        MyBroker,
        "A place in the stream for each reader, an id: from it follow the one who gets everything, the one who comes "
        "back, and the one who comes late. chatlab's own broker adds what a long life asks for: it goes on when the "
        "engine was away, shares one blocking read among all topics, and notices when it was overtaken by trimming.",
    ),
]
