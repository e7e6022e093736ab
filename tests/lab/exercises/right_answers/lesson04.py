"""Lesson 04's exercises: right answers in other styles than the reference are right, and are told why in a sentence."""

import asyncio
from contextlib import AsyncExitStack, aclosing, suppress
from typing import Any

from tests.lab.exercises.answers import RightAnswers, right_in

RIGHT: RightAnswers = {}
right = right_in(RIGHT)

# --- 04.0 ---


@right("04.0")
async def with_a_stack(broker: Any, topic: str, text: str) -> list[str]:
    async with AsyncExitStack() as stack:
        both = [await stack.enter_async_context(aclosing(await broker.subscribe(topic))) for _ in range(2)]
        await broker.publish(topic, bytes(text, "utf-8"))
        return [str((await anext(each)).body, "utf-8") for each in both]


@right("04.0")
async def with_the_first_of_each_loop(broker: Any, topic: str, text: str) -> list[str]:
    first, second = await asyncio.gather(broker.subscribe(topic), broker.subscribe(topic))
    await broker.publish(topic, text.encode())
    heard = []
    for each in (first, second):
        async for message in each:
            heard.append(message.body.decode())
            break
    await first.aclose()
    await second.aclose()
    return heard


@right("04.0")
async def with_batches(broker: Any, topic: str, text: str) -> list[str]:
    first, second = await broker.subscribe(topic), await broker.subscribe(topic)
    try:
        await broker.publish(topic, text.encode())
        one, two = await asyncio.gather(first.batch(), second.batch())
        return [message.body.decode() for message in [*one, *two]]
    finally:
        await asyncio.gather(first.aclose(), second.aclose())


# --- 04.1 ---


@right("04.1")
def with_tuples(kept: list[tuple[str, str]], last: str | None) -> list[str]:
    if last is None:
        return []
    time, count = map(int, last.split("-"))
    return [text for id, text in kept if (int(id.split("-")[0]), int(id.split("-")[1])) > (time, count)]


@right("04.1")
def with_a_loop_from_the_end(kept: list[tuple[str, str]], last: str | None) -> list[str]:
    missed: list[str] = []
    for id, text in reversed(kept if last else []):
        if tuple(map(int, id.split("-"))) <= tuple(map(int, str(last).split("-"))):
            break
        missed.insert(0, text)
    return missed


@right("04.1")
def with_padded_texts(kept: list[tuple[str, str]], last: str | None) -> list[str]:
    def padded(id: str) -> str:
        return "-".join(part.zfill(20) for part in id.split("-"))

    return [] if last is None else [text for id, text in kept if padded(id) > padded(last)]


# --- 04.2 ---


@right("04.2")
async def with_gather_and_finally(room: Any, broker: Any, topic: str) -> None:
    subscription = await broker.subscribe(topic)

    async def speak() -> None:
        while line := await room.outgoing.get():
            await broker.publish(topic, line.encode())

    async def hear() -> None:
        async for message in subscription:
            room.deliver(message.body.decode())

    try:
        await asyncio.gather(speak(), hear())
    finally:
        await subscription.aclose()


@right("04.2")
async def with_a_task_that_is_cancelled(room: Any, broker: Any, topic: str) -> None:
    async def hear(subscription: Any) -> None:
        while batch := await subscription.batch():
            for message in batch:
                room.deliver(message.body.decode())

    async with aclosing(await broker.subscribe(topic)) as subscription:
        hearing = asyncio.create_task(hear(subscription))
        try:
            while True:
                await broker.publish(topic, (await room.outgoing.get()).encode())
        finally:
            hearing.cancel()
            with suppress(asyncio.CancelledError):
                await hearing


@right("04.2")
async def with_one_loop_that_waits_for_both(room: Any, broker: Any, topic: str) -> None:
    subscription = await broker.subscribe(topic)
    said, heard = asyncio.ensure_future(room.outgoing.get()), asyncio.ensure_future(anext(subscription))
    try:
        while True:
            await asyncio.wait([said, heard], return_when=asyncio.FIRST_COMPLETED)
            if said.done():
                await broker.publish(topic, said.result().encode())
                said = asyncio.ensure_future(room.outgoing.get())
            if heard.done():
                room.deliver(heard.result().body.decode())
                heard = asyncio.ensure_future(anext(subscription))
    finally:
        said.cancel()
        heard.cancel()
        await subscription.aclose()


# --- 04.3 ---


@right("04.3")
async def in_a_task_group(name: str, broker: Any, topic: str, show: Any, work: Any) -> None:
    async def look(subscription: Any) -> None:
        async for message in subscription:
            show(message.body.decode())

    async with asyncio.TaskGroup() as both:
        both.create_task(look(await broker.subscribe(topic)))
        async with aclosing(await broker.join(topic, "phones", name)) as consumer:
            async for message in consumer:
                await work(message.body.decode())
                await consumer.ack(message)


@right("04.3")
async def in_batches(name: str, broker: Any, topic: str, show: Any, work: Any) -> None:
    consumer, subscription = await broker.join(topic, "g", name), await broker.subscribe(topic)

    async def do_some() -> None:
        while batch := await consumer.batch():
            for message in batch:
                await work(str(message.body, "utf-8"))
                await consumer.ack(message)

    async def show_all() -> None:
        while batch := await subscription.batch():
            for message in batch:
                show(str(message.body, "utf-8"))

    await asyncio.gather(do_some(), show_all())


@right("04.3")
async def with_a_background_task(name: str, broker: Any, topic: str, show: Any, work: Any) -> None:
    async def do_some() -> None:
        consumer = await broker.join(topic, "workers", f"{name}, notifications")
        while True:
            message = await anext(consumer)
            await work(message.body.decode())
            await consumer.ack(message)

    working = asyncio.create_task(do_some())
    try:
        async for message in await broker.subscribe(topic):
            show(message.body.decode())
    finally:
        working.cancel()


# --- 04.4 ---


@right("04.4")
async def with_else(consumer: Any, work: Any, done: set[str]) -> None:
    async for message in consumer:
        if message.id in done:
            await consumer.ack(message)
            continue
        try:
            await work(message.body.decode())
        except Exception as error:
            print("again later:", error)
        else:
            done.add(message.id)
            await consumer.ack(message)


@right("04.4")
async def with_suppress(consumer: Any, work: Any, done: set[str]) -> None:
    while True:
        message = await anext(consumer)
        with suppress(ValueError):
            if message.id not in done:
                await work(message.body.decode())
            done.add(message.id)
            await consumer.ack(message)


@right("04.4")
async def with_helpers(consumer: Any, work: Any, done: set[str]) -> None:
    async def attempt(message: Any) -> bool:
        try:
            await work(message.body.decode())
        except Exception:
            return False
        done.add(message.id)
        return True

    async for message in consumer:
        if message.id in done or await attempt(message):
            await consumer.ack(message)


# --- 04.5 ---


async def speak(room: Any, broker: Any, topic: str) -> None:
    while True:
        key, line = await room.outbox.first()
        await broker.publish_once(topic, line.encode(), key)
        room.outbox.remove(key)


@right("04.5")
async def with_gather(room: Any, broker: Any, topic: str, place: dict[str, str]) -> None:
    subscription = await broker.subscribe(topic, after=place["last"])

    async def hear() -> None:
        async for message in subscription:
            place["last"] = message.id
            room.deliver(message.body.decode())

    try:
        await asyncio.gather(speak(room, broker, topic), hear())
    finally:
        await subscription.aclose()


@right("04.5")
async def with_batches_of_messages(room: Any, broker: Any, topic: str, place: dict[str, str]) -> None:
    async with aclosing(await broker.subscribe(topic, after=place["last"])) as subscription:
        speaking = asyncio.create_task(speak(room, broker, topic))
        try:
            while batch := await subscription.batch():
                for message in batch:
                    room.deliver(message.body.decode())
                    place.update(last=message.id)
        finally:
            speaking.cancel()


@right("04.5")
async def that_skips_what_it_delivered(room: Any, broker: Any, topic: str, place: dict[str, str]) -> None:
    def number(id: str) -> list[int]:
        return [int(part) for part in id.split("-")]

    async with (
        asyncio.TaskGroup() as both,
        aclosing(await broker.subscribe(topic, after=place["last"])) as subscription,
    ):
        both.create_task(speak(room, broker, topic))
        async for message in subscription:
            if number(message.id) > number(place["last"]):
                room.deliver(message.body.decode())
                place["last"] = message.id
