"""Plausible wrong answers to lesson 07's exercises, each with a part of the text that the learner must be shown."""

import asyncio
import contextlib
import itertools
import json
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError

from tests.lab.exercises.answers import WrongAnswers, wrong_in

WRONG: WrongAnswers = {}
wrong = wrong_in(WRONG)

# --- 07.0 ---

START = b"\xac\xed\x00\x05t"


@wrong("07.0", "comes after seven octets")
def with_the_length(octets: bytes) -> str | None:
    return octets[5:].decode() if octets.startswith(START) else None


@wrong("07.0", "comes after seven octets")
def the_whole_as_text(octets: bytes) -> str | None:
    return octets.decode(errors="replace") if octets.startswith(START) else None


@wrong("07.0", "as text, not as octets")
def without_decoding(octets: bytes) -> bytes | None:
    return octets[7:] if octets.startswith(START) else None


@wrong("07.0", "UTF-8")
def in_latin_1(octets: bytes) -> str | None:
    return octets[7:].decode("latin-1") if octets.startswith(START) else None


@wrong("07.0", "UTF-8")
def leaves_out_what_is_not_ascii(octets: bytes) -> str | None:
    return octets[7:].decode("ascii", "ignore") if octets.startswith(START) else None


@wrong("07.0", "two octets, the high one first")
def length_in_one_octet(octets: bytes) -> str | None:
    return octets[7 : 7 + octets[6]].decode() if octets.startswith(START) else None


@wrong("07.0", "is no Java object: None")
def of_anything(octets: bytes) -> str | None:
    return octets[7:].decode(errors="replace")


@wrong("07.0", "is a Java object, but no String: None")
def of_any_object(octets: bytes) -> str | None:
    return octets[7:].decode(errors="replace") if octets.startswith(START[:4]) else None


@wrong("07.0", "may be empty")
def empty_is_nothing(octets: bytes) -> str | None:
    return (octets[7:].decode() or None) if octets.startswith(START) else None


# --- 07.1 ---

Shown = dict[str, list[str]]
Found = tuple[set[str], set[str], bool]


def twice(shown: Shown) -> set[str]:
    return {text for texts in shown.values() for text in texts if texts.count(text) > 1}


def missed(promised: list[str], shown: Shown) -> set[str]:
    return {text for text in promised if any(text not in texts for texts in shown.values())}


def first_showings(shown: Shown) -> list[list[str]]:
    return [list(dict.fromkeys(texts)) for texts in shown.values()]


def agree(one: list[str], other: list[str]) -> bool:
    return [text for text in one if text in other] == [text for text in other if text in one]


@wrong("07.1", "returns three things")
def only_the_lost(promised: list[str], shown: Shown) -> set[str]:
    return missed(promised, shown)


@wrong("07.1", "a text that one member was not shown is lost")
def lost_if_nobody_was_shown_it(promised: list[str], shown: Shown) -> Found:
    everything = {text for texts in shown.values() for text in texts}
    return set(promised) - everything, twice(shown), True


@wrong("07.1", "a text that nobody was shown is lost too")
def compares_members_with_each_other(promised: list[str], shown: Shown) -> Found:
    everything = {text for texts in shown.values() for text in texts}
    return missed(list(everything), shown), twice(shown), True


@wrong("07.1", "was not promised may be shown to some")
def promises_what_was_shown(promised: list[str], shown: Shown) -> Found:
    everything = {text for texts in shown.values() for text in texts}
    return missed([*promised, *everything], shown), twice(shown), True


@wrong("07.1", "must not be shown twice either")
def repeats_of_promised_texts_only(promised: list[str], shown: Shown) -> Found:
    return missed(promised, shown), twice(shown) & set(promised), True


@wrong("07.1", "disagree")
def forgets_the_order(promised: list[str], shown: Shown) -> Found:
    return missed(promised, shown), twice(shown), True


@wrong("07.1", "not only the first two")
def the_first_two_only(promised: list[str], shown: Shown) -> Found:
    one, other = first_showings(shown)[:2]
    return missed(promised, shown), twice(shown), agree(one, other)


@wrong("07.1", "a loss is not a different order")
def the_lists_must_be_equal(promised: list[str], shown: Shown) -> Found:
    orders = [[text for text in texts if text in promised] for texts in first_showings(shown)]
    lost = missed(promised, shown)
    return lost, twice(shown), all(order == orders[0] for order in orders)


@wrong("07.1", "a repeat is not a different order")
def compares_with_repeats(promised: list[str], shown: Shown) -> Found:
    lists = list(shown.values())
    return missed(promised, shown), twice(shown), all(agree(one, other) for one in lists for other in lists)


@wrong("07.1", "not only the first with each")
def the_first_with_each(promised: list[str], shown: Shown) -> Found:
    orders = first_showings(shown)
    return missed(promised, shown), twice(shown), all(agree(orders[0], order) for order in orders)


@wrong("07.1", "not only neighbors")
def neighbors_only(promised: list[str], shown: Shown) -> Found:
    orders = first_showings(shown)
    return missed(promised, shown), twice(shown), all(agree(*pair) for pair in itertools.pairwise(orders))


@wrong("07.1", "texts that were not promised have an order too")
def order_of_promised_texts_only(promised: list[str], shown: Shown) -> Found:
    orders = [[text for text in order if text in promised] for order in first_showings(shown)]
    return missed(promised, shown), twice(shown), all(agree(one, other) for one in orders for other in orders)


# --- 07.2 ---

Send = Callable[[str, str], Awaitable[None]]
LOST = (ConnectionError, TimeoutError)


@wrong("07.2", "must be an `async def`")
def not_async(send: Send, text: str) -> Awaitable[None]:
    return send(text, "1")


@wrong("07.2", "the same text sent again")
async def the_text_is_the_id(send: Send, text: str) -> None:
    await send(text, str(uuid.uuid5(uuid.NAMESPACE_OID, text)))


@wrong("07.2", "it tries again")
async def tries_once(send: Send, text: str) -> None:
    await send(text, uuid.uuid4().hex)


@wrong("07.2", "a repeat has the same client_id")
async def a_new_id_for_each_try(send: Send, text: str) -> None:
    while True:
        try:
            async with asyncio.timeout(0.5):
                return await send(text, uuid.uuid4().hex)
        except LOST:
            await asyncio.sleep(0.1)


@wrong("07.2", "lost before it arrived is sent again")
async def takes_a_lost_connection_for_done(send: Send, text: str) -> None:
    with contextlib.suppress(*LOST):
        await send(text, uuid.uuid4().hex)


@wrong("07.2", "a receipt that has not arrived after half a second")
async def waits_for_ever(send: Send, text: str) -> None:
    client_id = uuid.uuid4().hex
    while True:
        try:
            return await send(text, client_id)
        except ConnectionError:
            await asyncio.sleep(0.1)


@wrong("07.2", "waits a moment between two tries")
async def tries_at_once(send: Send, text: str) -> None:
    client_id = uuid.uuid4().hex
    while True:
        try:
            async with asyncio.timeout(0.5):
                return await send(text, client_id)
        except LOST:
            pass


@wrong("07.2", "is not sent again")
async def catches_everything(send: Send, text: str) -> None:
    client_id = uuid.uuid4().hex
    while True:
        try:
            async with asyncio.timeout(0.5):
                return await send(text, client_id)
        except Exception:
            await asyncio.sleep(0.1)


# --- 07.3 ---

History = Callable[[str], Awaitable[list[tuple[str, str]]]]
Live = Callable[[], Awaitable[asyncio.Queue[tuple[str, str]]]]
Show = Callable[[str], None]


def number(id: str) -> tuple[int, ...]:
    return tuple(map(int, id.split("-")))


@wrong("07.3", "first it shows the records after the last id")
async def live_only(history: History, live: Live, last: str, show: Show) -> None:
    news = await live()
    while True:
        _, text = await news.get()
        show(text)


@wrong("07.3", "listen first")
async def history_first(history: History, live: Live, last: str, show: Show) -> None:
    for _, text in await history(last):
        show(text)
    news = await live()
    while True:
        _, text = await news.get()
        show(text)


@wrong("07.3", "is shown once")
async def shows_what_comes(history: History, live: Live, last: str, show: Show) -> None:
    news = await live()
    for _, text in await history(last):
        show(text)
    while True:
        _, text = await news.get()
        show(text)


@wrong("07.3", "as numbers, not as strings")
async def compares_texts(history: History, live: Live, last: str, show: Show) -> None:
    news = await live()
    for id, text in await history(last):
        show(text)
        last = id
    while True:
        id, text = await news.get()
        if id > last:
            show(text)
            last = id


@wrong("07.3", "only their ids differ")
async def remembers_texts(history: History, live: Live, last: str, show: Show) -> None:
    news = await live()
    seen = {text for _, text in await history(last)}
    for text in sorted(seen, key=lambda text: number(text[1:])):
        show(text)
    while True:
        _, text = await news.get()
        if text not in seen:
            seen.add(text)
            show(text)


@wrong("07.3", "as numbers, not as strings")
async def compares_decimals(history: History, live: Live, last: str, show: Show) -> None:
    news = await live()
    for id, text in await history(last):
        show(text)
        last = id
    while True:
        id, text = await news.get()
        if float(id.replace("-", ".")) > float(last.replace("-", ".")):
            show(text)
            last = id


@wrong("07.3", "is shown once")
async def does_not_move_on(history: History, live: Live, last: str, show: Show) -> None:
    news = await live()
    for _, text in await history(last):
        show(text)
    while True:
        id, text = await news.get()
        if number(id) > number(last):
            show(text)
            last = id


@wrong("07.3", "then it shows new records as they arrive")
async def ends_with_history(history: History, live: Live, last: str, show: Show) -> None:
    await live()
    for _, text in await history(last):
        show(text)
    await asyncio.Event().wait()


# --- 07.4 ---


async def read(redis: Any, stream: str, last: str, show: Show) -> str:
    for _, records in await redis.xread({stream: last}, block=1000):
        for id, fields in records:
            show(fields["text"])
            last = id
    return last


@wrong("07.4", "an outage does not end the relay")
async def ignores_outages(redis: Any, stream: str, last: str, show: Show) -> None:
    while True:
        last = await read(redis, stream, last, show)


@wrong("07.4", "it waits a moment")
async def tries_without_a_pause(redis: Any, stream: str, last: str, show: Show) -> None:
    while True:
        with contextlib.suppress(RedisConnectionError):
            last = await read(redis, stream, last, show)


@wrong("07.4", "it shows what was written meanwhile")
async def starts_at_now(redis: Any, stream: str, last: str, show: Show) -> None:
    while True:
        try:
            last = await read(redis, stream, last, show)
        except RedisConnectionError:
            last = "$"
            await asyncio.sleep(0.05)


@wrong("07.4", "no reason to start over")
async def starts_over(redis: Any, stream: str, last: str, show: Show) -> None:
    while True:
        try:
            place = last
            while True:
                place = await read(redis, stream, place, show)
        except RedisConnectionError:
            await asyncio.sleep(0.05)


@wrong("07.4", "not only the first")
async def survives_once(redis: Any, stream: str, last: str, show: Show) -> None:
    try:
        while True:
            last = await read(redis, stream, last, show)
    except RedisConnectionError:
        await is_back(redis)
    while True:
        last = await read(redis, stream, last, show)


async def is_back(redis: Any) -> None:
    for _ in range(100):
        with contextlib.suppress(RedisConnectionError):
            await redis.ping()
            break
        await asyncio.sleep(0.05)


@wrong("07.4", "it never gives up")
async def gives_up_after_twelve_failures(redis: Any, stream: str, last: str, show: Show) -> None:
    failures = 0
    while failures < 12:
        try:
            last = await read(redis, stream, last, show)
            failures = 0
        except RedisConnectionError:
            failures += 1
            await asyncio.sleep(0.05)
    raise RuntimeError("Redis is gone")


@wrong("07.4", "it shows what was written meanwhile")
async def is_silent_after_five_failures(redis: Any, stream: str, last: str, show: Show) -> None:
    for _ in range(5):
        with contextlib.suppress(RedisConnectionError):
            while True:
                last = await read(redis, stream, last, show)
        await asyncio.sleep(0.05)
    await asyncio.Event().wait()


@wrong("07.4", "then new ones")
async def history_without_news(redis: Any, stream: str, last: str, show: Show) -> None:
    for _, fields in await redis.xrange(stream, min=f"({last}"):
        show(fields["text"])
    await asyncio.Event().wait()


@wrong("07.4", "each record is shown once")
async def begins_with_the_last(redis: Any, stream: str, last: str, show: Show) -> None:
    while True:
        try:
            for id, fields in await redis.xrange(stream, min=last):
                show(fields["text"])
                last = id
        except RedisConnectionError:
            pass
        await asyncio.sleep(0.05)


@wrong("07.4", "ends when it is cancelled")
async def cannot_be_stopped(redis: Any, stream: str, last: str, show: Show) -> None:
    stopped = 0
    while stopped < 3:
        try:
            last = await read(redis, stream, last, show)
        except RedisConnectionError:
            await asyncio.sleep(0.05)
        except BaseException:
            stopped += 1


# --- 07.5 ---

STORE_ONCE = """
local id = redis.call('GET', KEYS[2])
if not id then
    id = redis.call('XADD', KEYS[1], '*', 'text', ARGV[1])
    redis.call('SET', KEYS[2], id, 'EX', 600)
end
return id
"""


async def store(redis: Any, stream: str, said: dict[str, str]) -> None:
    await redis.eval(STORE_ONCE, 2, stream, f"{stream}:{said['client_id']}", said["text"])


async def receipt(socket: Any, said: dict[str, str]) -> None:
    await socket.send(json.dumps({"stored": said["client_id"]}))


async def show(socket: Any, redis: Any, stream: str, after: str) -> None:
    while True:
        for _, records in await redis.xread({stream: after}, block=1000):
            for after, fields in records:
                await socket.send(json.dumps({"id": after, "text": fields["text"]}))


@wrong("07.5", "is answered by its receipt")
async def no_receipt(socket: Any, redis: Any, stream: str, after: str) -> None:
    async for message in socket:
        await store(redis, stream, json.loads(message))


@wrong("07.5", "no second record")
async def adds_every_try(socket: Any, redis: Any, stream: str, after: str) -> None:
    async for message in socket:
        said = json.loads(message)
        await redis.xadd(stream, {"text": said["text"]})
        await receipt(socket, said)


@wrong("07.5", "a repeat gets its receipt too")
async def is_silent_about_repeats(socket: Any, redis: Any, stream: str, after: str) -> None:
    async for message in socket:
        said = json.loads(message)
        if await redis.set(f"{stream}:{said['client_id']}", 1, nx=True, ex=600):
            await redis.xadd(stream, {"text": said["text"]})
            await receipt(socket, said)


@wrong("07.5", "every member on every server")
async def shares_a_group(socket: Any, redis: Any, stream: str, after: str) -> None:
    with contextlib.suppress(Exception):
        await redis.xgroup_create(stream, "chat-group", id="0", mkstream=True)

    async def show_my_share() -> None:
        while True:
            for _, records in await redis.xreadgroup("chat-group", "consumer-1", {stream: ">"}, block=1000):
                for id, fields in records:
                    await socket.send(json.dumps({"id": id, "text": fields["text"]}))

    await both(socket, redis, stream, show_my_share())


async def both(socket: Any, redis: Any, stream: str, showing: Any, *, early: bool = False) -> None:
    """Run a reader that may be wrong beside a correct receiver."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(showing)
        async for message in socket:
            said = json.loads(message)
            if early:
                await receipt(socket, said)
                await store(redis, stream, said)
            else:
                await store(redis, stream, said)
                await receipt(socket, said)
        task.cancel()


@wrong("07.5", "after the id that it names")
async def always_from_the_beginning(socket: Any, redis: Any, stream: str, after: str) -> None:
    await both(socket, redis, stream, show(socket, redis, stream, "0-0"))


@wrong("07.5", "including those from before it joined")
async def from_now_on(socket: Any, redis: Any, stream: str, after: str) -> None:
    await both(socket, redis, stream, show(socket, redis, stream, "$"))


@wrong("07.5", "when the record is stored, not before")
async def receipt_first(socket: Any, redis: Any, stream: str, after: str) -> None:
    await both(socket, redis, stream, show(socket, redis, stream, after), early=True)


@wrong("07.5", "or readers pile up")
async def leaves_its_reader_behind(socket: Any, redis: Any, stream: str, after: str) -> None:
    socket.reader = alone(show(socket, redis, stream, after))
    async for message in socket:
        said = json.loads(message)
        await store(redis, stream, said)
        await receipt(socket, said)


def alone(work: Any) -> "asyncio.Task[None]":
    """Return a task whose end is not noticed."""
    task = asyncio.create_task(work)
    task.add_done_callback(lambda task: task.cancelled() or task.exception())
    return task


@wrong("07.5", "when the reader dies, the connection must end")
async def its_reader_dies_silently(socket: Any, redis: Any, stream: str, after: str) -> None:
    reader = alone(show_messages(socket, redis, stream, after))
    try:
        async for message in socket:
            said = json.loads(message)
            while True:
                try:
                    await store(redis, stream, said)
                    break
                except RedisConnectionError:
                    await asyncio.sleep(0.05)
            await receipt(socket, said)
    finally:
        reader.cancel()


LOOK = "to look whether a text is stored and to store it must be one step"


async def talk(socket: Any, redis: Any, stream: str, after: str, store: Callable[..., Awaitable[Any]]) -> None:
    """A correct reader beside a way to store that may be wrong."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(show_messages(socket, redis, stream, after))
        async for message in socket:
            said = json.loads(message)
            await store(redis, stream, said)
            await receipt(socket, said)
        task.cancel()


async def show_messages(socket: Any, redis: Any, stream: str, after: str) -> None:
    while True:
        for _, records in await redis.xread({stream: after}, block=1000):
            for after, fields in records:
                if "text" in fields:
                    await socket.send(json.dumps({"id": after, "text": fields["text"]}))


async def get_xadd_set(redis: Any, stream: str, said: dict[str, str]) -> None:
    key = f"{stream}:{said['client_id']}"
    if not await redis.get(key):
        await redis.xadd(stream, {"text": said["text"]})
        await redis.set(key, 1, ex=600)


@wrong("07.5", "nothing is stored twice")
async def stores_in_three_steps(socket: Any, redis: Any, stream: str, after: str) -> None:
    await talk(socket, redis, stream, after, get_xadd_set)


async def set_then_xadd(redis: Any, stream: str, said: dict[str, str]) -> None:
    if await redis.set(f"{stream}:{said['client_id']}", 1, nx=True, ex=600):
        await redis.xadd(stream, {"text": said["text"]})


@wrong("07.5", "every text that was promised is in the stream")
async def marks_it_before_it_is_stored(socket: Any, redis: Any, stream: str, after: str) -> None:
    await talk(socket, redis, stream, after, set_then_xadd)


async def looks_and_adds_with_a_pipeline(redis: Any, stream: str, said: dict[str, str]) -> None:
    key = f"{stream}:{said['client_id']}"
    if not await redis.get(key):
        async with redis.pipeline(transaction=True) as together:
            together.xadd(stream, {"text": said["text"]})
            together.set(key, 1, ex=600)
            await together.execute()


@wrong("07.5", LOOK)
async def looks_before_the_transaction(socket: Any, redis: Any, stream: str, after: str) -> None:
    await talk(socket, redis, stream, after, looks_and_adds_with_a_pipeline)


REMEMBERED: set[tuple[str, str]] = set()


async def if_not_remembered(redis: Any, stream: str, said: dict[str, str]) -> None:
    if (said["client_id"], stream) not in REMEMBERED:
        await redis.xadd(stream, {"text": said["text"]})
        REMEMBERED.add((said["client_id"], stream))


@wrong("07.5", "the two servers share no memory")
async def remembers_in_its_own_memory(socket: Any, redis: Any, stream: str, after: str) -> None:
    await talk(socket, redis, stream, after, if_not_remembered)


GUARD = asyncio.Lock()


async def get_xadd_set_in_turn(redis: Any, stream: str, said: dict[str, str]) -> None:
    async with GUARD:
        await looks_and_adds_with_a_pipeline(redis, stream, said)


@wrong("07.5", LOOK)
async def guards_it_with_a_lock_of_its_own(socket: Any, redis: Any, stream: str, after: str) -> None:
    await talk(socket, redis, stream, after, get_xadd_set_in_turn)


@wrong("07.5", "misses nothing")
async def history_and_then_news(socket: Any, redis: Any, stream: str, after: str) -> None:
    async def show_both() -> None:
        for id, fields in await redis.xrange(stream, min=f"({after}"):
            await socket.send(json.dumps({"id": id, "text": fields["text"]}))
        await show_messages(socket, redis, stream, "$")

    await both(socket, redis, stream, show_both())


@wrong("07.5", "a record without `text` is passed over")
async def stumbles_over_a_foreign_record(socket: Any, redis: Any, stream: str, after: str) -> None:
    await both(socket, redis, stream, show(socket, redis, stream, after))


@wrong("07.5", "when the reader dies, the connection must end")
async def goes_silent_when_redis_is_gone(socket: Any, redis: Any, stream: str, after: str) -> None:
    reader = alone(show_messages(socket, redis, stream, after))
    try:
        async for message in socket:
            said = json.loads(message)
            await store(redis, stream, said)
            await receipt(socket, said)
    finally:
        reader.cancel()


STORE_FOR_EVER = STORE_ONCE.replace(", 'EX', 600", "")


async def store_for_ever(redis: Any, stream: str, said: dict[str, str]) -> None:
    await redis.eval(STORE_FOR_EVER, 2, stream, f"{stream}:{said['client_id']}", said["text"])


@wrong("07.5", "not for ever: its key needs an expiry")
async def never_forgets_an_id(socket: Any, redis: Any, stream: str, after: str) -> None:
    await talk(socket, redis, stream, after, store_for_ever)


STORE_FOR_A_MOMENT = STORE_ONCE.replace("600", "10")


async def store_for_a_moment(redis: Any, stream: str, said: dict[str, str]) -> None:
    await redis.eval(STORE_FOR_A_MOMENT, 2, stream, f"{stream}:{said['client_id']}", said["text"])


@wrong("07.5", "for some minutes: a member may be away that long")
async def forgets_an_id_at_once(socket: Any, redis: Any, stream: str, after: str) -> None:
    await talk(socket, redis, stream, after, store_for_a_moment)


TURN = asyncio.Lock()


@wrong("07.5", "holds up nobody else")
async def one_loop_for_all_members(socket: Any, redis: Any, stream: str, after: str) -> None:
    async def show_in_turn() -> None:
        last = after
        while True:
            for _, records in await redis.xread({stream: last}, block=1000):
                for last, fields in records:
                    async with TURN:  # one socket after another, as in a broadcast that waits for each
                        if "text" in fields:
                            await socket.send(json.dumps({"id": last, "text": fields["text"]}))

    await both(socket, redis, stream, show_in_turn())
