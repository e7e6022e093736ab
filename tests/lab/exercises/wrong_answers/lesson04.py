"""Plausible wrong answers to lesson 04's exercises, each with part of the sentence that its check must give."""

import asyncio
import uuid
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from chatlab.lab.exercises.lessons.lesson04 import service as right_service
from tests.lab.exercises.answers import WrongAnswers, wrong_in

WRONG: WrongAnswers = {}
wrong = wrong_in(WRONG)

# --- 04.0 ---


async def received(*subscriptions: Any) -> list[str]:
    return [(await anext(each)).body.decode() for each in subscriptions]


async def close(*subscriptions: Any) -> None:
    for each in subscriptions:
        await each.aclose()


@wrong("04.0", "must be an `async def`")
def waits_for_nothing(broker: Any, topic: str, text: str) -> list[str]:
    return [text, text]


@wrong("04.0", "there are two subscriptions")
async def returns_what_is_expected(broker: Any, topic: str, text: str) -> list[str]:
    return [text, text]


@wrong("04.0", "subscribe before you publish")
async def publishes_first(broker: Any, topic: str, text: str) -> list[str]:
    await broker.publish(topic, text.encode())
    first, second = await broker.subscribe(topic), await broker.subscribe(topic)
    heard = await received(first, second)
    await close(first, second)
    return heard


@wrong("04.0", "there are two subscriptions")
async def reads_one_subscription_twice(broker: Any, topic: str, text: str) -> list[str]:
    only = await broker.subscribe(topic)
    await broker.publish(topic, text.encode())
    heard = await received(only)
    await close(only)
    return heard * 2


@wrong("04.0", "published once")
async def publishes_for_each(broker: Any, topic: str, text: str) -> list[str]:
    first, second = await broker.subscribe(topic), await broker.subscribe(topic)
    await broker.publish(topic, text.encode())
    await broker.publish(topic, text.encode())
    heard = await received(first, second)
    await close(first, second)
    return heard


@wrong("04.0", "a broker carries bytes")
async def publishes_a_text(broker: Any, topic: str, text: str) -> list[str]:
    first, second = await broker.subscribe(topic), await broker.subscribe(topic)
    await broker.publish(topic, text)
    heard = await received(first, second)
    await close(first, second)
    return heard


@wrong("04.0", "decode the body")
async def returns_bytes(broker: Any, topic: str, text: str) -> list[bytes]:
    first, second = await broker.subscribe(topic), await broker.subscribe(topic)
    await broker.publish(topic, text.encode())
    heard = [(await anext(each)).body for each in (first, second)]
    await close(first, second)
    return heard


@wrong("04.0", "not the messages")
async def returns_messages(broker: Any, topic: str, text: str) -> list[Any]:
    first, second = await broker.subscribe(topic), await broker.subscribe(topic)
    await broker.publish(topic, text.encode())
    heard = [await anext(first), await anext(second)]
    await close(first, second)
    return heard


@wrong("04.0", "a list of the two texts")
async def returns_one_text(broker: Any, topic: str, text: str) -> str:
    first, second = await broker.subscribe(topic), await broker.subscribe(topic)
    await broker.publish(topic, text.encode())
    heard = await received(first, second)
    await close(first, second)
    return heard[0]


@wrong("04.0", "use the same topic")
async def always_publishes_to_room(broker: Any, topic: str, text: str) -> list[str]:
    first, second = await broker.subscribe("room"), await broker.subscribe("room")
    await broker.publish("room", text.encode())
    heard = await received(first, second)
    await close(first, second)
    return heard


@wrong("04.0", "both subscriptions are closed")
async def closes_nothing(broker: Any, topic: str, text: str) -> list[str]:
    first, second = await broker.subscribe(topic), await broker.subscribe(topic)
    await broker.publish(topic, text.encode())
    return await received(first, second)


@wrong("04.0", "waits for one message only")
async def loops_until_the_end(broker: Any, topic: str, text: str) -> list[str]:
    first, second = await broker.subscribe(topic), await broker.subscribe(topic)
    await broker.publish(topic, text.encode())
    return [message.body.decode() for each in (first, second) async for message in each]


# --- 04.1 ---


@wrong("04.1", "but not that one")
def with_the_last_seen(kept: list[tuple[str, str]], last: str | None) -> list[str]:
    return [text for id, text in kept if last is not None and id >= last]


@wrong("04.1", "a new client has missed nothing")
def everything_for_newcomers(kept: list[tuple[str, str]], last: str | None) -> list[str]:
    return [text for id, text in kept if last is None or id > last]


@wrong("04.1", "need not be among those still kept")
def looks_for_the_last_seen(kept: list[tuple[str, str]], last: str | None) -> list[str]:
    if last is None:
        return []
    place = [id for id, _ in kept].index(last)
    return [text for _, text in kept[place + 1 :]]


@wrong("04.1", "1700-10 comes after 1700-9")
def compares_characters(kept: list[tuple[str, str]], last: str | None) -> list[str]:
    return [text for id, text in kept if last is not None and id > last]


@wrong("04.1", "1700-10 comes after 1700-9")
def compares_the_times_only(kept: list[tuple[str, str]], last: str | None) -> list[str]:
    return [text for id, text in kept if last is not None and int(id.split("-")[0]) > int(last.split("-")[0])]


@wrong("04.1", "1000-0 comes after 999-0")
def compares_the_counts_as_numbers_only(kept: list[tuple[str, str]], last: str | None) -> list[str]:
    def place(id: str) -> tuple[str, int]:
        time, count = id.split("-")
        return time, int(count)

    return [text for id, text in kept if last is not None and place(id) > place(last)]


@wrong("04.1", "returned [('1755-0'")
def returns_pairs(kept: list[tuple[str, str]], last: str | None) -> list[tuple[str, str]]:
    return [each for each in kept if last is not None and each[0] > last]


@wrong("04.1", "need not be among those still kept")
def goes_on_after_the_last_seen(kept: list[tuple[str, str]], last: str | None) -> list[str]:
    missed, seen = [], False
    for id, text in kept:
        if seen:
            missed.append(text)
        seen = seen or id == last
    return missed


@wrong("04.1", "1700-10 comes after 1700-9")
def compares_as_one_decimal_number(kept: list[tuple[str, str]], last: str | None) -> list[str]:
    def place(id: str) -> float:
        return float(id.replace("-", "."))

    return [text for id, text in kept if last is not None and place(id) > place(last)]


@wrong("04.1", "1701-0 comes after 1700-12")
def compares_the_digits_as_one_number(kept: list[tuple[str, str]], last: str | None) -> list[str]:
    def place(id: str) -> int:
        return int(id.replace("-", ""))

    return [text for id, text in kept if last is not None and place(id) > place(last)]


# --- 04.2 ---


@wrong("04.2", "must be an `async def`")
def not_async(room: Any, broker: Any, topic: str) -> None:
    broker.subscribe(topic)


@wrong("04.2", "in both directions and at any time")
async def speaks_only(room: Any, broker: Any, topic: str) -> None:
    while True:
        await broker.publish(topic, (await room.outgoing.get()).encode())


@wrong("04.2", "in both directions and at any time")
async def hears_first_and_speaks_after(room: Any, broker: Any, topic: str) -> None:
    async for record in await broker.subscribe(topic):
        room.deliver(record.body.decode())
    while True:
        await broker.publish(topic, (await room.outgoing.get()).encode())


@wrong("04.2", "in both directions and at any time")
async def takes_turns(room: Any, broker: Any, topic: str) -> None:
    subscription = await broker.subscribe(topic)
    while True:
        await broker.publish(topic, (await room.outgoing.get()).encode())
        room.deliver((await anext(subscription)).body.decode())


@wrong("04.2", "each message is received once")
async def delivers_at_once_as_well(room: Any, broker: Any, topic: str) -> None:
    async def speak() -> None:
        while True:
            line = await room.outgoing.get()
            room.deliver(line)
            await broker.publish(topic, line.encode())

    async with aclosing(await broker.subscribe(topic)) as subscription, asyncio.TaskGroup() as both:
        both.create_task(speak())
        async for record in subscription:
            room.deliver(record.body.decode())


@wrong("04.2", "runs until it is stopped")
async def starts_two_tasks_and_returns(room: Any, broker: Any, topic: str) -> None:
    async def speak() -> None:
        while True:
            await broker.publish(topic, (await room.outgoing.get()).encode())

    async def hear() -> None:
        async for record in await broker.subscribe(topic):
            room.deliver(record.body.decode())

    tasks = asyncio.create_task(speak()), asyncio.create_task(hear())
    await asyncio.sleep(0)
    del tasks


@wrong("04.2", "does nothing any more")
async def leaves_a_loop_running(room: Any, broker: Any, topic: str) -> None:
    async def speak() -> None:
        while True:
            await broker.publish(topic, (await room.outgoing.get()).encode())

    speaking = asyncio.create_task(speak())
    async with aclosing(await broker.subscribe(topic)) as subscription:
        async for record in subscription:
            room.deliver(record.body.decode())
    speaking.cancel()


@wrong("04.2", "has closed its subscription")
async def never_unsubscribes(room: Any, broker: Any, topic: str) -> None:
    async def speak() -> None:
        while True:
            await broker.publish(topic, (await room.outgoing.get()).encode())

    async def hear() -> None:
        async for record in await broker.subscribe(topic):
            room.deliver(record.body.decode())

    await asyncio.gather(speak(), hear())


# --- 04.3 ---


@wrong("04.3", "every server shows every message")
async def joins_only(name: str, broker: Any, topic: str, show: Any, work: Any) -> None:
    share = await broker.join(topic, "workers", name)
    async for record in share:
        show(record.body.decode())
        await work(record.body.decode())
        await share.ack(record)


@wrong("04.3", "all servers join the same group")
async def subscribes_only(name: str, broker: Any, topic: str, show: Any, work: Any) -> None:
    async for record in await broker.subscribe(topic):
        show(record.body.decode())
        await work(record.body.decode())


@wrong("04.3", "all servers join the same group")
async def a_group_for_each_server(name: str, broker: Any, topic: str, show: Any, work: Any) -> None:
    async def show_all() -> None:
        async for record in await broker.subscribe(topic):
            show(record.body.decode())

    async def do_a_share() -> None:
        share = await broker.join(topic, name, "worker")
        async for record in share:
            await work(record.body.decode())
            await share.ack(record)

    await asyncio.gather(show_all(), do_a_share())


@wrong("04.3", "under its own name")
async def one_name_for_all(name: str, broker: Any, topic: str, show: Any, work: Any) -> None:
    await right_service("consumer-1", broker, topic, show, work)


@wrong("04.3", "stays pending for ever")
async def never_acknowledges(name: str, broker: Any, topic: str, show: Any, work: Any) -> None:
    async def show_all() -> None:
        async for record in await broker.subscribe(topic):
            show(record.body.decode())

    async def do_a_share() -> None:
        async for record in await broker.join(topic, "workers", name):
            await work(record.body.decode())

    await asyncio.gather(show_all(), do_a_share())


@wrong("04.3", "the work for each message is done")
async def one_loop_after_the_other(name: str, broker: Any, topic: str, show: Any, work: Any) -> None:
    async for record in await broker.subscribe(topic):
        show(record.body.decode())
    share = await broker.join(topic, "workers", name)
    async for record in share:
        await work(record.body.decode())
        await share.ack(record)


@wrong("04.3", "and not before")
async def acknowledges_before_the_work(name: str, broker: Any, topic: str, show: Any, work: Any) -> None:
    async def show_all() -> None:
        async for message in await broker.subscribe(topic):
            show(message.body.decode())

    async def do_some() -> None:
        consumer = await broker.join(topic, "workers", name)
        async for message in consumer:
            await consumer.ack(message)
            await work(message.body.decode())

    await asyncio.gather(show_all(), do_some())


@wrong("04.3", "does not hold up what is shown")
async def one_loop_for_both(name: str, broker: Any, topic: str, show: Any, work: Any) -> None:
    subscription = await broker.subscribe(topic)
    consumer = await broker.join(topic, "workers", name)
    shown, taken = asyncio.ensure_future(anext(subscription)), asyncio.ensure_future(anext(consumer))
    try:
        while True:
            await asyncio.wait([shown, taken], return_when=asyncio.FIRST_COMPLETED)
            if shown.done():
                show(shown.result().body.decode())
                shown = asyncio.ensure_future(anext(subscription))
            if taken.done():
                await work(taken.result().body.decode())
                await consumer.ack(taken.result())
                taken = asyncio.ensure_future(anext(consumer))
    finally:
        shown.cancel()
        taken.cancel()


@wrong("04.3", "once, in order")
async def shows_the_work_too(name: str, broker: Any, topic: str, show: Any, work: Any) -> None:
    async def show_all() -> None:
        async for message in await broker.subscribe(topic):
            show(message.body.decode())

    async def do_some() -> None:
        consumer = await broker.join(topic, "workers", name)
        async for message in consumer:
            show(message.body.decode())
            await work(message.body.decode())
            await consumer.ack(message)

    await asyncio.gather(show_all(), do_some())


@wrong("04.3", "must be an `async def`")
def starts_nothing(name: str, broker: Any, topic: str, show: Any, work: Any) -> None:
    show(topic)


# --- 04.4 ---


@wrong("04.4", "acknowledged when its work is done, and not before")
async def acknowledges_first(share: Any, work: Any, done: set[str]) -> None:
    async for record in share:
        await share.ack(record)
        if record.id not in done:
            await work(record.body.decode())
            done.add(record.id)


@wrong("04.4", "is acknowledged; otherwise it is delivered again for ever")
async def does_not_acknowledge(share: Any, work: Any, done: set[str]) -> None:
    async for record in share:
        if record.id not in done:
            await work(record.body.decode())
            done.add(record.id)


@wrong("04.4", "work that is done is not done again: note it in `done`")
async def never_looks_at_done(share: Any, work: Any, done: set[str]) -> None:
    async for record in share:
        await work(record.body.decode())
        await share.ack(record)


@wrong("04.4", "work that is done is not done again: note it in `done`")
async def notes_it_last(share: Any, work: Any, done: set[str]) -> None:
    async for record in share:
        if record.id not in done:
            await work(record.body.decode())
        await share.ack(record)
        done.add(record.id)


@wrong("04.4", "whose work was done earlier is acknowledged, too")
async def skips_the_acknowledgement_too(share: Any, work: Any, done: set[str]) -> None:
    async for record in share:
        if record.id not in done:
            await work(record.body.decode())
            done.add(record.id)
            await share.ack(record)


@wrong("04.4", "does not end the worker")
async def ends_at_the_first_failure(share: Any, work: Any, done: set[str]) -> None:
    async for record in share:
        if record.id not in done:
            await work(record.body.decode())
            done.add(record.id)
        await share.ack(record)


@wrong("04.4", "was neither done nor acknowledged")
async def calls_a_failure_done(share: Any, work: Any, done: set[str]) -> None:
    async for record in share:
        if record.id not in done:
            try:
                await work(record.body.decode())
            except Exception as error:
                print(error)
            done.add(record.id)
        await share.ack(record)


@wrong("04.4", "acknowledged when its work is done, and not before")
async def acknowledges_in_finally(share: Any, work: Any, done: set[str]) -> None:
    async for record in share:
        try:
            if record.id not in done:
                await work(record.body.decode())
                done.add(record.id)
        except ValueError:
            pass
        finally:
            await share.ack(record)


@wrong("04.4", "noted in `done` when its work is done, and not before")
async def notes_it_first(share: Any, work: Any, done: set[str]) -> None:
    async for record in share:
        if record.id not in done:
            done.add(record.id)
            await work(record.body.decode())
        await share.ack(record)


# --- 04.5 ---


def lasting(name: str, **changed: Any) -> Callable[..., Any]:
    """Return a bridge that is right except for what is in `changed`."""
    after = changed.get("after", lambda place: place["last"])
    speak = changed.get("speak", speak_well)
    note = changed.get("note", lambda place, record: place.update(last=record.id))

    async def bridge(room: Any, broker: Any, topic: str, place: dict[str, str]) -> None:
        subscription = await broker.subscribe(topic, after=after(place))
        record = None
        try:
            async with aclosing(subscription), asyncio.TaskGroup() as both:
                both.create_task(speak(room, broker, topic))
                async for record in subscription:
                    room.deliver(record.body.decode())
                    note(place, record)
        finally:
            if record is not None and "at_the_end" in changed:
                place["last"] = record.id

    bridge.__name__ = name
    return bridge


async def speak_well(room: Any, broker: Any, topic: str) -> None:
    while True:
        key, line = await room.outbox.first()
        await broker.publish_once(topic, line.encode(), key)
        room.outbox.remove(key)


async def removes_first(room: Any, broker: Any, topic: str) -> None:
    while True:
        key, line = await room.outbox.first()
        room.outbox.remove(key)
        await broker.publish_once(topic, line.encode(), key)


async def publishes_without_a_key(room: Any, broker: Any, topic: str) -> None:
    while True:
        key, line = await room.outbox.first()
        await broker.publish(topic, line.encode())
        room.outbox.remove(key)


async def makes_a_key_each_time(room: Any, broker: Any, topic: str) -> None:
    while True:
        key, line = await room.outbox.first()
        await broker.publish_once(topic, line.encode(), uuid.uuid4().hex)
        room.outbox.remove(key)


def nothing(*_: object) -> None:
    return None


async def publishes_with_the_text_as_key(room: Any, broker: Any, topic: str) -> None:
    while True:
        key, line = await room.outbox.first()
        await broker.publish_once(topic, line.encode(), line)
        room.outbox.remove(key)


async def lasting_with_a_pause_after_the_delivery(room: Any, broker: Any, topic: str, place: dict[str, str]) -> None:
    subscription = await broker.subscribe(topic, after=place["last"])
    async with aclosing(subscription), asyncio.TaskGroup() as both:
        both.create_task(speak_well(room, broker, topic))
        async for message in subscription:
            room.deliver(message.body.decode())
            await asyncio.sleep(0)
            place["last"] = message.id


async def lasting_with_a_pause_before_the_delivery(room: Any, broker: Any, topic: str, place: dict[str, str]) -> None:
    subscription = await broker.subscribe(topic, after=place["last"])
    async with aclosing(subscription), asyncio.TaskGroup() as both:
        both.create_task(speak_well(room, broker, topic))
        async for message in subscription:
            place["last"] = message.id
            await asyncio.sleep(0)
            room.deliver(message.body.decode())


async def lasting_without_closing(room: Any, broker: Any, topic: str, place: dict[str, str]) -> None:
    async def hear() -> None:
        async for message in await broker.subscribe(topic, after=place["last"]):
            room.deliver(message.body.decode())
            place["last"] = message.id

    await asyncio.gather(speak_well(room, broker, topic), hear())


wrong("04.5", "has closed its subscription")(lasting_without_closing)
wrong("04.5", "not to its text")(lasting("the_text_as_key", speak=publishes_with_the_text_as_key))
wrong("04.5", "nothing is delivered twice")(lasting_with_a_pause_after_the_delivery)
wrong("04.5", "nothing is lost")(lasting_with_a_pause_before_the_delivery)
wrong("04.5", "is delivered after the bridge restarts")(lasting("starts_with_the_next_record", after=nothing))
wrong("04.5", "is noted for each message")(lasting("never_notes_its_place", note=nothing))
wrong("04.5", "is noted for each message")(lasting("notes_its_place_at_the_end", note=nothing, at_the_end=True))
wrong("04.5", "continues after the last message")(lasting("starts_at_the_first_record", after=lambda place: "0-0"))
wrong("04.5", "and not before")(lasting("removes_first", speak=removes_first))
wrong("04.5", "its key is the same")(lasting("publishes_without_a_key", speak=publishes_without_a_key))
wrong("04.5", "its key is the same")(lasting("makes_a_key_each_time", speak=makes_a_key_each_time))
