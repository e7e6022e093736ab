"""Lesson 05: time a message, choose a partition, follow a stream, notice a gap, publish once, and write a broker."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError, WatchError

from chatlab.brokers.port import Reader, Record
from chatlab.lab.exercises.difference import Difference
from chatlab.lab.exercises.exercise import Exercise, NotYet
from chatlab.lab.exercises.lessons import lesson03
from chatlab.lab.exercises.lessons.lesson03 import members
from chatlab.lab.exercises.support.elsewhere import CannotMove, DiedElsewhere, Parcel, elsewhere, packed
from chatlab.lab.exercises.support.redis import Moment, Taps, WatchedBroker, break_off, client, fresh, watched_broker
from chatlab.lab.exercises.support.rooms import at_work, first_few, in_one_order, must_wait, received_by, said
from chatlab.lab.exercises.watchdog import is_cell
from chatlab.lab.until import until
from chatlab.locale import _
from chatlab.room import shared as shared_room

__all__ = ["EXERCISES"]

wait_or = partial(lesson03.wait_or, timeout=1.2)

# --- 05.0 ---


async def latency(broker: Any, topic: str) -> float:
    import time

    reader = await broker.subscribe(topic)
    began = time.perf_counter()
    await broker.publish(topic, b"?")
    await reader.batch()
    return time.perf_counter() - began


# Seconds that the broker of this check takes to subscribe, to confirm what was published, and to deliver.
CONNECTING, CONFIRMING, TRAVELLING = 0.5, 0.15, 0.3
SLACK = 0.08  # seconds between the check's clock and the learner's


class _SlowBroker:
    """A real broker that takes its time to subscribe, to confirm and to deliver, so that a wrong clock shows."""

    def __init__(self, broker: WatchedBroker) -> None:
        self._broker = broker
        self.published: list[str] = []
        self.began = self.ended = 0.0  # of the publishing and of the reading

    async def subscribe(self, topic: str) -> _SlowReader:
        await asyncio.sleep(CONNECTING)
        return _SlowReader(self, await self._broker.subscribe(topic))

    async def publish(self, topic: str, body: bytes) -> str:
        if not isinstance(body, bytes):
            raise NotYet(_("a body is bytes, such as b'?'"), _("you published {body!r}").format(body=body))
        self.published.append(topic)
        self.began = time.perf_counter()
        id = await self._broker.publish(topic, body)
        await asyncio.sleep(CONFIRMING)
        return id

    @property
    def latency(self) -> float:
        return self.ended - self.began


class _SlowReader:
    def __init__(self, broker: _SlowBroker, reader: Reader) -> None:
        self._broker, self._reader = broker, reader

    async def batch(self, limit: int = 512) -> Sequence[Record]:
        records = await self._reader.batch(limit)
        await asyncio.sleep(TRAVELLING)
        self._broker.ended = time.perf_counter()
        return records

    def __aiter__(self) -> _SlowReader:
        return self

    async def __anext__(self) -> Record:
        return (await self.batch(1))[0]

    async def aclose(self) -> None:
        await self._reader.aclose()


async def check_latency(answer: Callable[..., Awaitable[Any]]) -> None:
    must_wait(answer)
    async with fresh("ping") as topic, watched_broker() as engine:
        broker = _SlowBroker(engine)
        try:
            async with asyncio.timeout(2 * (CONNECTING + CONFIRMING + TRAVELLING) + 4):
                got = await answer(broker, topic)
        except TimeoutError:
            raise NotYet(
                _("first subscribe, then publish: a reader gets what is published after it has subscribed"),
                _("published to {topics}; your code was still waiting").format(topics=broker.published),
            ) from None
        _is_the_latency(got, broker, topic)


def _is_the_latency(got: object, broker: _SlowBroker, topic: str) -> None:
    if broker.published != [topic]:
        rule = _("one message is published, to the topic that the function was given")
        raise NotYet(rule, _("you published to {topics}").format(topics=broker.published))
    if type(got) is not float or got < 0:
        raise NotYet(_("the answer is a number of seconds"), _("you returned {got!r}").format(got=got))
    if not broker.ended:
        rule = _("the clock stops when the reader has the message: wait for `await reader.batch()`")
        raise NotYet(rule, _("you published, and returned before the reader had anything"))
    expected = _("this broker takes {connecting} s to subscribe; then the message was under way for {latency:.3f} s")
    evidence = expected.format(connecting=CONNECTING, latency=broker.latency)
    evidence = f"{evidence}\n" + _("you returned {got:.3f} s").format(got=got)
    if got > 100 * broker.latency:
        raise NotYet(_("the answer is in seconds, not in milliseconds, and not the time of day"), evidence)
    if got < broker.latency - SLACK:
        rule = _(
            "the clock starts just before `publish`, stops when the reader has the message, and also runs while your "
            "code waits"
        )
        raise NotYet(rule, evidence)
    if got > broker.latency + 0.8 * CONNECTING:
        raise NotYet(_("the clock starts just before `publish`, when the reader has subscribed"), evidence)
    if got > broker.latency + SLACK:
        raise NotYet(_("nothing but the message's way is timed"), evidence)


# --- 05.1 ---


def partition(message: dict[str, str], count: int) -> int:
    import zlib

    return zlib.crc32(message["room"].encode()) % count


async def check_partition(answer: Callable[[dict[str, str], int], Any]) -> None:
    rooms = [f"방 {number}" for number in range(300)]
    parcel = _parcel(answer)  # before the first call: what the answer remembers is not known elsewhere
    for count in (1, 4, 6):
        for room in rooms:
            _is_a_partition(answer(message(room), count), room, count)
    _keeps_a_room_together(answer)
    if parcel is not None:
        await _agrees_with_other_processes(answer, parcel)
    shares = Counter(answer(message(room), 4) for room in rooms)
    if min(shares[number] for number in range(4)) < len(rooms) / 16:
        raise NotYet(
            _("the rooms are spread over all partitions; none is left nearly empty"),
            _("300 rooms, '방 0' to '방 299', on 4 partitions: {shares}").format(
                shares=[shares[number] for number in range(4)]
            ),
        )


def _parcel(answer: Callable[..., Any]) -> Parcel | None:
    """Return the answer ready for another process; None if it uses what cannot be moved there."""
    try:
        return packed(answer)
    except CannotMove:
        return None


def _is_a_partition(place: object, room: str, count: int) -> None:
    if type(place) is not int or not 0 <= place < count:
        raise NotYet(
            _("a partition is a whole number from 0 to {last}").format(last=count - 1),
            _("partition({message}, {count}) returned {place!r}").format(
                message=message(room), count=count, place=place
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


async def _agrees_with_other_processes(answer: Callable[[dict[str, str], int], Any], parcel: Parcel) -> None:
    """Ask two more processes, with other seeds of `hash()`, about rooms that nobody has seen, in another order."""
    rooms = [f"방 {uuid.uuid4().hex[:6]}" for __ in range(40)]
    here = {room: answer(message(room), 64) for room in rooms}
    try:
        for seed, order in ((1, rooms[::-1]), (2, sorted(rooms))):
            places = await elsewhere(parcel, [(message(room), 64) for room in order], seed=seed)
            _are_equal(here, dict(zip(order, places, strict=True)))
    except CannotMove:
        return
    except (DiedElsewhere, TimeoutError) as error:
        evidence = _("in another process, it failed: {error}").format(error=error)
        raise NotYet(_("the function runs on every server, in a process of its own"), evidence) from None


def _are_equal(here: dict[str, Any], there: dict[str, Any]) -> None:
    for room, place in here.items():
        if there[room] != place:
            evidence = _("of 64 partitions, the room {room!r} is in {here} here, and in {there} in another process")
            raise NotYet(
                _(
                    "every server computes the same partition without asking; what one process alone knows or does "
                    "(hash() of a text, ids, a count of rooms, chance) differs from process to process"
                ),
                evidence.format(room=room, here=place, there=there[room]),
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
        busy = _AtOnce()

        async def show(text: str) -> None:
            with busy:
                shown.append(text)
                if text == "#4":  # written while the reader is busy
                    await writer.xadd(stream, {"body": "#6"})
                    await writer.xadd(stream, {"body": "#7"})
                    await asyncio.sleep(0.05)

        async with at_work(answer(redis, stream, kept[2], show), what=_("the reader")):
            await _shows(
                shown, ["#3", "#4", "#5"], _("a reader first shows the records kept after the id it was given")
            )
            await _shows(shown, ["#6", "#7"], _("what is written while the reader is busy is not missed"))
            for number in range(8, 12):
                await writer.xadd(stream, {"body": f"#{number}"})
                await _shows(shown, [f"#{number}"], _("then it shows new records as they arrive"))
            async with writer.pipeline() as several:
                for number in range(12, 16):
                    several.xadd(stream, {"body": f"#{number}"})
                await several.execute()
            together = [f"#{number}" for number in range(12, 16)]
            await _shows(shown, together, _("several records that arrive together are all shown"))
            _shown_once_in_order(shown, [f"#{number}" for number in range(3, 16)])
            busy.look()
            await _waits_without_asking(taps, _("the reader"))
            await writer.xadd(stream, {"body": "#16"})
            await _shows(shown, ["#16"], _("it continues after a pause"))


class _AtOnce:
    """How many are inside this block at once, at most."""

    def __init__(self) -> None:
        self.inside = self.most = 0

    def __enter__(self) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)

    def __exit__(self, *error: object) -> None:
        self.inside -= 1

    def look(self) -> None:
        if self.most > 1:
            raise NotYet(
                _("showing takes time: await each `show` before the next one, or a slow one is overtaken"),
                _("{count} records were being shown at the same moment").format(count=self.most),
            )


def _shown_once_in_order(shown: list[str], expected: list[str]) -> None:
    if shown != expected:
        raise NotYet(
            _("each record is shown once, in order"),
            _("expected: {expected}; shown: {shown}").format(expected=expected, shown=first_few(shown)),
            difference=Difference(shown[: len(expected) + 20], expected),
        )


async def _shows(shown: list[str], texts: Sequence[str], rule: str) -> None:
    await wait_or(
        lambda: set(texts) <= set(shown),
        rule,
        lambda: _("written: {texts}; shown: {shown}").format(texts=texts, shown=first_few(shown)),
    )


IDLE_SECONDS, LOOKS = 1.0, 40


async def _waits_without_asking(taps: Taps, what: str) -> None:
    """Look at a reader for a second without a new record: is a read waiting at the server all the time?"""
    before, began, asleep = taps.exchanges, time.monotonic(), 0
    for __ in range(LOOKS):
        await asyncio.sleep(IDLE_SECONDS / LOOKS)
        asleep += not taps.pending
    asked, seconds = taps.exchanges - before, time.monotonic() - began
    if asked > 1 + 4 * seconds or asleep > LOOKS / 4:
        evidence = _(
            "in {seconds:.1f} s without a new record it asked {asked} times, and in {asleep} of {looks} looks it had "
            "no read waiting at the server: a record written then has to wait for the next question"
        )
        raise NotYet(
            _(
                "when there is nothing new, {what} waits in a blocking read, which the server answers as soon as there "
                "is a record; asking again and again is polling"
            ).format(what=what),
            evidence.format(seconds=seconds, asked=asked, asleep=asleep, looks=LOOKS),
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
        given = [*(f"1700-{n}" for n in range(4, 11)), "1701-0", "1701-1", "1701-2"]
        ids = [str(await writer.xadd(stream, {"body": f"#{n}"}, id=id)) for n, id in enumerate(given)]
        await _returns(
            answer,
            stream,
            ids[7],
            ["#8", "#9"],
            _("it returns the records after the id, without the record that has that id"),
        )
        await _returns(
            answer,
            stream,
            "1700-9",
            ["#6", "#7", "#8", "#9"],
            _("an id is two numbers, no text: 1700-10 comes after 1700-9"),
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
        except LookupError as error:
            _is_about_the_gap(error)
            return
    raise NotYet(
        _(
            "when the last record seen is gone, later ones may be too: raise LookupError, never return an incomplete "
            "list"
        ),
        _("{evidence}; you returned {got!r}").format(evidence=evidence, got=got),
    )


def _is_about_the_gap(error: LookupError) -> None:
    if isinstance(error, IndexError | KeyError):  # they are LookupErrors, too
        raise NotYet(
            _("raise LookupError yourself: an IndexError or a KeyError is an accident that may not happen next time"),
            _("your code ran into {error!r}").format(error=error),
        ) from error


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
    async with fresh("stream") as stream, fresh("key") as key, client() as redis, _own_keys(redis):
        first = await answer(redis, stream, "안녕", f"{key} 1")
        await _has(redis, stream, ["안녕"], _("a text is added to the stream, in the field `body`"))
        newest = str((await redis.xrange(stream) or [])[-1][0])
        if first != newest:
            raise NotYet(
                _("it returns the id of the record"),
                _("the record has the id {newest!r}; you returned {first!r}").format(newest=newest, first=first),
                difference=Difference(first, newest),
            )
        again = await answer(redis, stream, "안녕", f"{key} 1")
        await _has(redis, stream, ["안녕"], _("the same text under the same key is not added again"))
        if again != first:
            raise NotYet(
                _("a second call under the same key returns the id of the first record"),
                _("the first call returned {first!r}, the second {again!r}").format(first=first, again=again),
                difference=Difference(again, first),
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
        await _remembers_what_was_trimmed(answer, redis, stream, f"{key} 1", first)
    await _survives_any_break(answer)
    await _another_comes_first(answer)
    await _two_at_once(answer)
    await _expires_keys(answer)
    await _forgets_each_key_by_itself(answer)


@contextlib.asynccontextmanager
async def _own_keys(redis: Redis) -> AsyncIterator[Callable[[], Awaitable[list[str]]]]:
    """Give a function that lists the keys made since, under whatever name; they are deleted at the end."""
    before = {str(key) async for key in redis.scan_iter()}

    async def made() -> list[str]:
        return sorted({str(key) async for key in redis.scan_iter()} - before)

    try:
        yield made
    finally:
        if keys := await made():
            await redis.delete(*keys)


async def _texts(redis: Redis, stream: str) -> list[str]:
    return [str(fields["body"]) for _, fields in await redis.xrange(stream) or [] if fields and "body" in fields]


async def _has(redis: Redis, stream: str, expected: list[str], rule: str) -> None:
    if (got := await _texts(redis, stream)) != expected:
        shown = _("the stream contains {got}, not {expected}").format(got=got, expected=expected)
        raise NotYet(rule, shown, difference=Difference(got, expected))


async def _remembers_what_was_trimmed(answer: PublishOnce, redis: Redis, stream: str, key: str, first: object) -> None:
    """Trim the record away, as other writers would, and try its key again."""
    await redis.xtrim(stream, maxlen=0, approximate=False)
    again = await answer(redis, stream, "안녕", key)
    if again != first or await _texts(redis, stream):
        raise NotYet(
            _(
                "the key is remembered beside the stream, not found by reading it: a stream is trimmed, and reading "
                "all of it takes longer the longer it is"
            ),
            _(
                "published under a key; then the stream was trimmed to nothing; a second call under that key returned "
                "{again!r} instead of {first!r}, and the stream contains {texts}"
            ).format(again=again, first=first, texts=await _texts(redis, stream)),
            difference=Difference(again, first),
        )


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
    async with fresh("stream") as stream, fresh("key") as key, client() as witness, _own_keys(witness) as made:
        async with client(taps) as redis:
            with contextlib.suppress(RedisConnectionError, WatchError):  # redis-py: lost while a key was watched
                await answer(redis, stream, "한 번", key)
        await _nothing_stays_for_ever(witness, await made(), stream, _broken_at(exchange, moment))
        async with client() as redis:
            await answer(redis, stream, "한 번", key)
        texts = await _texts(witness, stream)
    if not texts:
        raise NotYet(
            _("a text that was not added because the connection broke is added by the next try"),
            _broken(exchange, moment, texts),
            difference=Difference(texts, ["한 번"]),
        )
    if len(texts) > 1:
        raise NotYet(
            _("a text that was added before the connection broke is not added again"),
            _broken(exchange, moment, texts),
            difference=Difference(texts, ["한 번"]),
        )
    return taps.exchanges >= exchange


def _broken_at(exchange: int, moment: Moment) -> str:
    before = _("the connection broke before command {number} was sent")
    after = _("the connection broke after command {number} was executed")
    return (before if moment == "before" else after).format(number=exchange)


def _broken(exchange: int, moment: Moment, texts: list[str]) -> str:
    """Describe where the connection broke, and what the stream contains after another try."""
    found = _("after another try the stream contains {texts}")
    return f"{_broken_at(exchange, moment)}\n{found.format(texts=texts)}"


async def _another_comes_first(answer: PublishOnce) -> None:
    """Let another client publish under the same key after each exchange in turn."""
    for exchange in range(1, 12):
        taps = Taps()
        async with fresh("stream") as stream, fresh("key") as key, client() as other, _own_keys(other):

            async def publish(stream: str = stream, key: str = key, other: Redis = other) -> None:
                await answer(other, stream, "동시에", key)

            taps.at(exchange, "after", publish)
            async with client(taps) as redis:
                await _one_record(other, stream, [answer(redis, stream, "동시에", key)])
        if taps.exchanges < exchange:
            return


async def _two_at_once(answer: PublishOnce) -> None:
    async with fresh("stream") as stream, fresh("key") as key, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client()) for __ in range(8)]
        await stack.enter_async_context(_own_keys(clients[0]))
        await _one_record(clients[0], stream, [answer(each, stream, "동시에", key) for each in clients])


async def _one_record(redis: Redis, stream: str, publishing: Sequence[Awaitable[Any]]) -> None:
    """Wait for all who publish under one key; there must be one record, whose id all of them return."""
    try:
        ids = await asyncio.gather(*publishing)
    except WatchError as error:
        raise NotYet(
            _(
                "WATCH, MULTI and EXEC may do it, but a transaction is refused when another client was first: catch "
                "WatchError and start over"
            ),
            _("two clients published under one key; another client came between two of your commands"),
        ) from error
    records = [str(id) for id, _fields in await redis.xrange(stream) or []]
    if len(records) > 1:
        raise NotYet(
            _("when several clients publish under one key at the same moment, only one adds the record"),
            _("several clients published under one key at once; the stream contains {count} records").format(
                count=len(records)
            ),
            difference=Difference(records, records[:1]),
        )
    if set(ids) != set(records):
        raise NotYet(
            _("all clients that publish under one key get the same id"),
            _("the stream contains {records}; the clients got {ids}").format(records=records, ids=ids),
            difference=Difference(ids, records * len(ids)),
        )


async def _expires_keys(answer: PublishOnce) -> None:
    async with fresh("stream") as stream, fresh("key") as message, client() as redis, _own_keys(redis) as made:
        await answer(redis, stream, "안녕", message)
        keys = await made()
        await _nothing_stays_for_ever(redis, keys, stream, _("published once"))
        for key in keys:
            if key != stream and 0 <= (seconds := await _time_to_live(redis, key)) < 30:
                raise NotYet(
                    _("a key is kept for at least half a minute: a sender may try again for that long"),
                    _("{key!r} expires in {seconds} s").format(key=key, seconds=seconds),
                )


async def _nothing_stays_for_ever(redis: Redis, keys: Sequence[str], stream: str, when: str) -> None:
    for key in keys:
        if key != stream and await _time_to_live(redis, key) < 0:
            raise NotYet(
                _(
                    "what is stored for each key expires one day, or memory fills up; store it and say when it expires "
                    "in one step"
                ),
                _("{when}: {key!r} never expires").format(when=when, key=key),
            )


async def _time_to_live(redis: Redis, key: str) -> int:
    """Return the seconds after which a key expires, or the first of a hash's fields, if all do; negative: never."""
    seconds = int(await redis.ttl(key))
    if seconds == -1 and await redis.type(key) == "hash":
        with contextlib.suppress(ResponseError):  # fields expire since Redis 7.4 and Valkey 9
            fields = await redis.hkeys(key)
            left = await redis.execute_command("HTTL", key, "FIELDS", len(fields), *fields)  # type: ignore[no-untyped-call]  # redis-py's gap
            return int(min(left))
    return 0 if seconds == -2 else seconds  # -2: it has just expired


async def _forgets_each_key_by_itself(answer: PublishOnce) -> None:
    """Let nearly all of the time pass for one key, then publish under another."""
    async with fresh("stream") as stream, fresh("key") as key, client() as redis, _own_keys(redis) as made:
        await answer(redis, stream, "하나", f"{key} 1")
        old = [each for each in await made() if each != stream and await redis.ttl(each) >= 0]
        for each in old:
            await redis.expire(each, 20)
        await answer(redis, stream, "둘", f"{key} 2")
        for each in old:
            if (seconds := await redis.ttl(each)) > 20:
                raise NotYet(
                    _("each key expires by itself: in a busy stream, what every new message keeps alive never expires"),
                    _("{key!r} was to expire in 20 s; a message under another key made it {seconds} s").format(
                        key=each, seconds=seconds
                    ),
                )
            await redis.delete(each)
        await answer(redis, stream, "둘", f"{key} 2")
        await _has(
            redis, stream, ["하나", "둘"], _("each key is kept for its own time: one that expires takes no other along")
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
    await _waits_for_records(answer)
    await _ends_with_its_reader(answer)
    async with client(decode=False) as one, client(decode=False) as two, fresh("room") as topic:
        await _carries_the_chat(answer(one), answer(two), topic)


async def _waits_for_records(answer: Any) -> None:
    taps = Taps()
    async with client(taps, decode=False) as redis, fresh("topic") as topic:
        reader = await _subscribe(answer(redis), topic)
        reading = asyncio.ensure_future(anext(reader))
        try:
            await asyncio.sleep(0.1)  # the first question may be on its way
            await _waits_without_asking(taps, _("the reader"))
        finally:
            reading.cancel()
            await asyncio.wait([reading])


async def _ends_with_its_reader(answer: Any) -> None:
    """Subscribe as members come and go; what a reader has started must end with it."""
    before = asyncio.all_tasks()
    async with client(decode=False) as redis, fresh("topic") as topic:
        broker = answer(redis)
        for number in range(3):
            reader = await _subscribe(broker, topic)
            await broker.publish(topic, b"%d" % number)
            rule = _("a reader gets what is published from the moment `subscribe` returns, and nothing older")
            setup = _("subscribed, read one record and closed, {number} times").format(number=number)
            await _bodies(reader, [b"%d" % number], rule, setup)
            await ReaderAdapter(reader).aclose()
            del reader
        gc.collect()
        with contextlib.suppress(TimeoutError):
            await until(lambda: not _tasks_of(answer, before), timeout=1.2)
        if left := _tasks_of(answer, before):
            raise NotYet(
                _(
                    "a reader that is closed leaves nothing running: end its task in `aclose`, or read only when "
                    "somebody asks for the next record"
                ),
                _("three readers were closed; {count} tasks that your code started still run: {names}").format(
                    count=len(left), names=sorted(str(getattr(task.get_coro(), "__qualname__", task)) for task in left)
                ),
            )


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
            raise NotYet(rule, read_so_far(), difference=Difference([each.body for each in got], expected[: len(got)]))
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


def _tasks_of(answer: type, before: Collection[asyncio.Task[Any]]) -> list[asyncio.Task[Any]]:
    """Return the tasks that a learner's code runs now and did not run before; a notebook has others, too."""
    files = {each.__code__.co_filename for each in vars(answer).values() if inspect.isfunction(each)}

    def is_theirs(task: asyncio.Task[Any]) -> bool:
        code = getattr(task.get_coro(), "cr_code", None)
        return code is not None and (code.co_filename in files or is_cell(code.co_filename))

    return [task for task in asyncio.all_tasks() if task not in before and is_theirs(task)]


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
            timeout=5,
        )
        in_one_order(garam, nuri)


EXERCISES = [
    Exercise(
        "05.0",
        _("Time one message"),
        check_latency,
        (
            _(
                "Four steps: subscribe, look at the clock, publish, wait for the reader. Which of them are the "
                "message's way?"
            ),
            _(
                "`reader = await broker.subscribe(topic)` comes first, before the clock starts. `time.perf_counter()` "
                "is a clock in seconds that also runs while your code waits."
            ),
            _(
                "After the clock: `await broker.publish(topic, b'?')`, then `await reader.batch()`, which returns when "
                "the message is there. Return `time.perf_counter() - began`."
            ),
        ),
        latency,
        _(
            "The clock starts when the message sets out and stops when the reader has it, so neither the subscription "
            "nor anything else is timed. One message alone tells you little: the next cells repeat it."
        ),
        learned=_("The time from publish to reader is called latency; how many arrive in a second is throughput."),
        leads_to=_("You publish a hundred at once instead of one. Does latency change? Does throughput?"),
    ),
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
        learned=_("A room keeps its order because a stable hash of its partition key sends it to one partition."),
        leads_to=_("You need more partitions than you have. Where do the rooms go, and what becomes of their order?"),
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
        learned=_(
            "Nothing is lost between old and new: you continue from an offset, the id of the last record you handled."
        ),
        leads_to=_("The reader handled a record and died before it noted the id. What happens when it comes back?"),
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
        learned=_("A gap that is reported can be repaired; what a log no longer has is beyond its retention."),
        leads_to=_(
            "You are told of a gap. What could a chat show to its reader, and where could the lost part still be?"
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
                "returns. Give it two keys: the stream, and one made of the stream's name and `key`."
            ),
            _(
                "Call `await redis.eval(script, 2, stream, f'{stream}:once:{key}', body)`: two of the arguments are "
                "keys. In the Lua code, KEYS[1] is the stream, KEYS[2] the other key, ARGV[1] the body:\n"
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
        learned=_("A retry does no harm now: the operation is idempotent, and the key is called an idempotency key."),
        leads_to=_("Two different messages get the same key by mistake. Who notices?"),
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
        learned=_("Each reader keeps its own offset in an append-only log, so one broker serves all of them."),
        leads_to=_("Your broker's process ends. Which of its readers can go on where they were, and why?"),
    ),
]
