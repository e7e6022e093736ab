"""Lesson 04: the records a reader missed, a bridge between two servers, and work that is shared and never lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from redis.asyncio import Redis

from chatlab import room
from chatlab.brokers.memory.broker import MemoryBroker, MemoryReader
from chatlab.brokers.port import BEGINNING, Broker, GroupConsumer, Reader, Record
from chatlab.lab.clients import RoomClient
from chatlab.lab.exercises.difference import Difference
from chatlab.lab.exercises.exercise import Exercise, NotYet
from chatlab.lab.exercises.lessons import lesson03
from chatlab.lab.exercises.lessons.lesson03 import members
from chatlab.lab.exercises.support.redis import Moment, WatchedBroker, client, fresh, watched_broker
from chatlab.lab.exercises.support.rooms import (
    JoinedRoom,
    Loop,
    RoomWithOutbox,
    Running,
    at_work,
    in_one_order,
    must_wait,
    received_by,
    said,
    soon,
    two_servers,
)
from chatlab.lab.until import until
from chatlab.locale import _, ngettext
from chatlab.room.server import Handler

__all__ = ["EXERCISES"]

PATIENCE = 120  # attempts, 10 ms apart, for what only Redis knows
wait_or = partial(lesson03.wait_or, timeout=PATIENCE / 100)

# --- 04.0 ---


async def both_hear(broker: Broker, topic: str, text: str) -> list[str]:
    first, second = await broker.subscribe(topic), await broker.subscribe(topic)
    await broker.publish(topic, text.encode())
    received = [(await anext(subscription)).body.decode() for subscription in (first, second)]
    await first.aclose()
    await second.aclose()
    return received


class NotedBroker(MemoryBroker):
    """A broker in memory that notes each call, and keeps its readers."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.readers: list[Any] = []

    async def subscribe(self, topic: str, *, after: str | None = None) -> MemoryReader:
        self.calls.append(f"subscribe({topic!r})")
        self.readers.append(await super().subscribe(topic, after=after))
        return self.readers[-1]  # type: ignore[no-any-return]  # a list of anything, for the learner's wrong turns

    async def publish(self, topic: str, body: bytes) -> str:
        self.calls.append(f"publish({topic!r}, {body!r})")
        if not isinstance(body, bytes):
            raise NotYet(_("a broker carries bytes: encode the text before you publish it"), self.told())
        return await super().publish(topic, body)

    def told(self) -> str:
        """Return the calls as evidence."""
        return _("your calls: {calls}").format(calls=", ".join(self.calls) or _("none"))


async def check_both_hear(answer: Callable[[Broker, str, str], Any]) -> None:
    must_wait(answer)
    for topic, text in (("room", "안녕 👋"), ("팀-1", "두 번째")):
        async with NotedBroker() as broker:
            got = await _within_a_second(answer(broker, topic, text), broker)
            _expect_calls(broker, topic)
            if got != [text, text]:
                raise NotYet(_rule_of_result(got), broker.told(), difference=Difference(got, [text, text]))
            if still_open := sum(not each.closed for each in broker.readers):
                count = ngettext("{count} subscription is open", "{count} subscriptions are open", still_open)
                rule = _("both subscriptions are closed at the end; otherwise the broker goes on filling them")
                raise NotYet(rule, count.format(count=still_open))


async def _within_a_second(answering: Awaitable[Any], broker: NotedBroker) -> object:
    try:
        async with asyncio.timeout(1):
            return await answering
    except TimeoutError:
        verbs = [call.partition("(")[0] for call in broker.calls]
        late = "publish" in verbs and "subscribe" in verbs[verbs.index("publish") :]
        if late:
            rule = _("subscribe before you publish: a subscription gets what is published after it, and waits for more")
        else:
            rule = _("each subscriber waits for one message only, the one that you publish")
        raise NotYet(rule, broker.told()) from None


def _expect_calls(broker: NotedBroker, topic: str) -> None:
    verbs = [call.partition("(")[0] for call in broker.calls]
    if verbs.count("subscribe") != 2:
        raise NotYet(_("there are two subscriptions to the topic"), broker.told())
    if verbs.count("publish") != 1:
        raise NotYet(_("the message is published once; the broker makes a copy for each subscriber"), broker.told())
    if any(not call.startswith(f"{verb}({topic!r}") for verb, call in zip(verbs, broker.calls, strict=True)):
        raise NotYet(_("publishers and subscribers use the same topic, the one you were given"), broker.told())


def _rule_of_result(got: object) -> str:
    if isinstance(got, list | tuple) and got and all(isinstance(each, Record) for each in got):
        return _("return the texts, not the messages: `message.body.decode()`")
    if isinstance(got, list | tuple) and got and all(isinstance(each, bytes) for each in got):
        return _("return texts, not bytes: decode the body of each message")
    return _("return a list of the two texts, one for each subscriber")


# --- 04.1 ---


def missed(kept: list[tuple[str, str]], last: str | None) -> list[str]:
    def place(id: str) -> list[int]:
        return [int(part) for part in id.split("-")]

    if last is None:
        return []
    return [text for id, text in kept if place(id) > place(last)]


def check_missed(answer: Callable[[list[tuple[str, str]], str | None], object]) -> None:
    morning = [("1700-0", "하나"), ("1700-1", "둘"), ("1755-0", "셋 🥁"), ("1802-0", "넷")]
    busy = [(f"1700-{number}", f"#{number}") for number in range(8, 13)]
    cases: list[tuple[list[tuple[str, str]], str | None, list[str], str]] = [
        (
            morning,
            "1700-1",
            ["셋 🥁", "넷"],
            _("a client gets the messages after the last one it saw, but not that one"),
        ),
        (morning, "1802-0", [], _("a client that saw the last message has missed nothing")),
        (morning, None, [], _("a new client has missed nothing: it starts with the next message")),
        (
            morning,
            "1644-7",
            ["하나", "둘", "셋 🥁", "넷"],
            _("the last message seen need not be among those still kept"),
        ),
        (morning, "1760-0", ["넷"], _("the last message seen may have been deleted from the middle")),
        (busy, "1700-9", ["#10", "#11", "#12"], _("an id is two numbers: 1700-10 comes after 1700-9")),
        ([*busy, ("1701-0", "new")], "1700-12", ["new"], _("an id is two numbers: 1701-0 comes after 1700-12")),
        ([("999-0", "a"), ("1000-0", "b")], "999-0", ["b"], _("an id is two numbers: 1000-0 comes after 999-0")),
        ([], "1700-1", [], _("the list may be empty")),
    ]
    for kept, last, expected, rule in cases:
        call = f"missed({kept}, {last!r})"
        try:
            got = answer(list(kept), last)
        except Exception as error:
            raise NotYet(rule, call) from error
        if got != expected:
            evidence = _("{call} returned {got!r}, not {expected!r}")
            shown = evidence.format(call=call, got=got, expected=expected)
            raise NotYet(rule, shown, difference=Difference(got, expected))


# --- 04.2 ---


async def bridge(room: JoinedRoom, broker: WatchedBroker, topic: str) -> None:
    from contextlib import aclosing

    async def speak() -> None:
        while True:
            line = await room.outgoing.get()
            await broker.publish(topic, line.encode())

    async with aclosing(await broker.subscribe(topic)) as subscription, asyncio.TaskGroup() as both:
        both.create_task(speak())
        async for message in subscription:
            room.deliver(message.body.decode())


async def check_bridge(answer: Loop) -> None:
    must_wait(answer)
    async with fresh("room") as topic, watched_broker() as broker, two_servers(JoinedRoom) as servers:
        loops = [answer(server.room, broker, topic) for server in servers]
        async with at_work(*loops, what=_("the bridge")) as bridges:
            await soon(lambda: broker.open == 2, bridges)
            async with members(servers[0].url, "가람") as [garam], members(servers[1].url, "Nuri") as [nuri]:
                await _expect_conversation(garam, nuri)
                await _expect_one_order(garam, nuri)
            await _expect_clean_stop(bridges[0], broker, servers[0].room)


def _sent(sender: RoomClient, text: str, *receivers: RoomClient) -> str:
    """Return the evidence of a message that was sent, and of those that each receiver got."""
    sent = _("{name} sent {text!r}").format(name=sender.name, text=text)
    return "\n".join(filter(None, [sent, received_by(*receivers)]))


def _times(client: RoomClient, line: str) -> str:
    """Return the evidence of a line that a client received more than once."""
    count = said(client).count(line)
    return ngettext("{name} received {line!r} {count} time", "{name} received {line!r} {count} times", count).format(
        name=client.name, line=line, count=count
    )


async def _expect_conversation(garam: RoomClient, nuri: RoomClient) -> None:
    for sender, reader, text in ((garam, nuri, "누리 있어요? 👀"), (nuri, garam, "여기요!")):
        line = f"{sender.name}: {text}"
        await sender.send(text)
        await wait_or(
            lambda reader=reader, line=line: line in said(reader),  # type: ignore[misc]  # mypy cannot infer a lambda's default
            _("a message sent on one server arrives on the other, in both directions and at any time"),
            lambda sender=sender, reader=reader, text=text: _sent(sender, text, reader),  # type: ignore[misc]  # as above
        )
        await wait_or(
            lambda sender=sender, line=line: line in said(sender),  # type: ignore[misc]  # as above
            _("senders receive their own messages, too, when these come back from the broker"),
            lambda sender=sender, text=text: _sent(sender, text, sender),  # type: ignore[misc]  # as above
        )


async def _expect_one_order(garam: RoomClient, nuri: RoomClient) -> None:
    for number in range(10):
        await asyncio.gather(garam.send(f"#{number}"), nuri.send(f"#{number}"))
    await asyncio.gather(garam.send("끝"), nuri.send("끝"))

    def has_ended(client: RoomClient) -> bool:
        return {"가람: 끝", "Nuri: 끝"} <= set(said(client))

    await wait_or(
        lambda: has_ended(garam) and has_ended(nuri),
        _("every message reaches the members of every server"),
        lambda: received_by(garam, nuri),
        timeout=3,
    )
    for member in (garam, nuri):
        if twice := sorted({line for line in said(member) if said(member).count(line) > 1}):
            raise NotYet(
                _("each message is received once: it comes back from the broker, so do not deliver it yourself"),
                _times(member, twice[0]),
            )
    in_one_order(garam, nuri)


async def _expect_clean_stop(stopped: Running, broker: WatchedBroker, its_room: Handler) -> None:
    assert isinstance(its_room, JoinedRoom)
    await stopped.stop()
    published = broker.published
    its_room.outgoing.put_nowait("after the end")  # not shown: a line that must not be published
    await asyncio.sleep(0.05)
    if broker.published > published:
        raise NotYet(_("a stopped bridge does nothing any more"), _("half of yours went on publishing"))
    if broker.open != 1:
        evidence = ngettext(
            "one of two bridges was stopped; {count} subscription is open",
            "one of two bridges was stopped; {count} subscriptions are open",
            broker.open,
        ).format(count=broker.open)
        raise NotYet(
            _("a stopped bridge has closed its subscription; otherwise the broker goes on filling it"), evidence
        )


# --- 04.3 ---

Work = Callable[[str], Coroutine[Any, Any, None]]
NAMES = tuple(f"server {number}" for number in (1, 2, 3))
SLOW, MEANWHILE = "🐢", "다음!"


async def service(name: str, broker: WatchedBroker, topic: str, show: Callable[[str], None], work: Work) -> None:
    async def show_all() -> None:
        async for message in await broker.subscribe(topic):
            show(message.body.decode())

    async def do_some() -> None:
        consumer = await broker.join(topic, "workers", name)
        async for message in consumer:
            await work(message.body.decode())
            await consumer.ack(message)

    await asyncio.gather(show_all(), do_some())


class Office:
    """The screens and the work of check 04.3. The first work on `SLOW` never ends; `early` is acknowledged before."""

    def __init__(self) -> None:
        self.screens: dict[str, list[str]] = {name: [] for name in NAMES}
        self.finished: list[str] = []
        self.early: list[str] = []
        self.stuck = ""  # the server that works on SLOW
        self.holder: GroupConsumer | None = None  # the consumer that it has SLOW from

    def work_of(self, name: str) -> Work:
        """Return the work as it is done on one server."""

        async def work(text: str) -> None:
            await asyncio.sleep(0.002)
            if text == SLOW and not self.stuck:
                self.stuck = name
                await asyncio.Event().wait()
            self.finished.append(text)

        return work


class NotingConsumer:
    """A consumer that notes whether it hands out SLOW, and what is acknowledged before its work is finished."""

    def __init__(self, consumer: GroupConsumer, office: Office) -> None:
        self._consumer, self._office = consumer, office

    def __aiter__(self) -> NotingConsumer:
        return self

    async def __anext__(self) -> Record:
        message = await anext(self._consumer)
        self._note([message])
        return message

    async def batch(self, limit: int = 512) -> Sequence[Record]:
        messages = await self._consumer.batch(limit)
        self._note(messages)
        return messages

    def _note(self, messages: Sequence[Record]) -> None:
        if self._office.holder is None and SLOW in [message.body.decode() for message in messages]:
            self._office.holder = self._consumer

    async def ack(self, message: Record) -> None:
        text = message.body.decode()
        if text not in self._office.finished:
            self._office.early.append(text)
        await self._consumer.ack(message)

    async def aclose(self) -> None:
        await self._consumer.aclose()


class OfficeBroker:
    """A broker of check 04.3, whose consumers note what they acknowledge."""

    def __init__(self, broker: WatchedBroker, office: Office) -> None:
        self._broker, self._office = broker, office

    async def subscribe(self, topic: str, *, after: str | None = None) -> Reader:
        return await self._broker.subscribe(topic, after=after)

    async def publish(self, topic: str, body: bytes) -> str:
        return await self._broker.publish(topic, body)

    async def join(self, topic: str, group: str, member: str) -> GroupConsumer:
        return NotingConsumer(await self._broker.join(topic, group, member), self._office)


async def check_service(answer: Loop) -> None:
    must_wait(answer)
    office = Office()
    texts = [f"#{number} 안녕" for number in range(12)]
    async with fresh("room") as topic, watched_broker(takeover_after=1.0) as watched, client() as redis:
        broker = OfficeBroker(watched, office)
        loops = [answer(name, broker, topic, office.screens[name].append, office.work_of(name)) for name in NAMES]
        async with at_work(*loops, what=_("the service")) as running:
            await soon(lambda: watched.open == len(watched.shares) == 3, running)
            for text in texts:
                await broker.publish(topic, text.encode())
            await _expect_shown_and_done(office, texts)
            await _expect_one_group(redis, topic, NAMES, lambda: office.finished)
            await _expect_slow_work_to_hold_up_nothing(office, broker, topic)
            await _expect_another_to_take_over(office, running)
            _expect_each_shown_once(office, [*texts, SLOW, MEANWHILE])


async def _expect_shown_and_done(office: Office, texts: Sequence[str]) -> None:
    count = len(texts)
    showed = _("{total} messages were published; {name} showed {count} of them")
    for name, screen in office.screens.items():
        await wait_or(
            lambda screen=screen: len(screen) >= count,  # type: ignore[misc]  # mypy cannot infer a lambda's default
            _("every server shows every message"),
            lambda name=name, screen=screen: showed.format(total=count, name=name, count=len(screen)),  # type: ignore[misc]  # as above
        )
    worked_on = _("{total} messages were published; the work was done for {count} of them")
    await wait_or(
        lambda: len(office.finished) >= count,
        _("the work for each message is done, on one of the servers"),
        lambda: worked_on.format(total=count, count=len(set(office.finished))),
    )
    if office.early:
        evidence = _("{text!r} was acknowledged, and its work was not done yet").format(text=office.early[0])
        raise NotYet(
            _("a message is acknowledged when its work is done, and not before: else a server that dies loses it"),
            evidence,
        )


async def _expect_slow_work_to_hold_up_nothing(office: Office, broker: OfficeBroker, topic: str) -> None:
    await broker.publish(topic, SLOW.encode())
    await wait_or(
        lambda: bool(office.stuck),
        _("the work for each message is started, on one of the servers"),
        lambda: _("{text!r} was published, and nobody works on it").format(text=SLOW),
    )
    await broker.publish(topic, MEANWHILE.encode())
    late = _("{name} is still working on {slow!r}; it has not shown {text!r}, which came after it")
    await wait_or(
        lambda: all(MEANWHILE in screen for screen in office.screens.values()),
        _("slow work does not hold up what is shown: the two loops run at the same time"),
        lambda: late.format(name=office.stuck, slow=SLOW, text=MEANWHILE),
    )


async def _expect_another_to_take_over(office: Office, running: Sequence[Running]) -> None:
    await running[NAMES.index(office.stuck)].stop()
    assert office.holder is not None
    await office.holder.aclose()
    died = _("{name} died while it worked on {text!r}; in the end the work was done for {texts}")
    await wait_or(
        lambda: {SLOW, MEANWHILE} <= set(office.finished),
        _("the work of a server that died is done by another one of the group"),
        lambda: died.format(name=office.stuck, text=SLOW, texts=office.finished[-3:]),
        timeout=5,
    )


def _expect_each_shown_once(office: Office, texts: Sequence[str]) -> None:
    for name, screen in office.screens.items():
        if screen != list(texts):
            evidence = _("{name} showed {texts}").format(name=name, texts=screen)
            difference = Difference(screen, list(texts))
            raise NotYet(_("every server shows every message once, in order"), evidence, difference=difference)


async def _expect_one_group(redis: Redis, topic: str, names: Sequence[str], done: Callable[[], list[str]]) -> None:
    """Ask Redis for the groups, their consumers, and the messages that are pending."""
    groups = [str(group["name"]) for group in await redis.xinfo_groups(topic)]
    if len(groups) != 1:
        with contextlib.suppress(TimeoutError):
            await until(lambda: len(done()) > 12, timeout=1)
        raise NotYet(
            _("the work for each message is done once: all servers join the same group"),
            "\n".join([_work_done(done()), _groups_found(groups)]),
        )
    await _expect_consumers(redis, topic, groups[0], names)
    await _expect_all_acknowledged(redis, topic, groups[0])
    if len(done()) != 12:
        raise NotYet(_("the work for each message is done once"), _work_done(done()))


def _work_done(done: Sequence[str]) -> str:
    evidence = ngettext(
        "12 messages were published; work was done {count} time",
        "12 messages were published; work was done {count} times",
        len(done),
    )
    return evidence.format(count=len(done))


def _groups_found(groups: Sequence[str]) -> str:
    if not groups:
        return _("there is no group")
    return _("the groups: {names}").format(names=", ".join(sorted(groups)))


async def _expect_consumers(redis: Redis, topic: str, group: str, names: Sequence[str]) -> None:
    for __ in range(PATIENCE):  # a consumer that has just joined may not have read anything yet
        consumers = [str(each["name"]) for each in await redis.xinfo_consumers(topic, group)]
        if len(consumers) == len(names):
            return
        await asyncio.sleep(0.01)
    raise NotYet(
        _("each server joins the group under its own name; otherwise the group takes them for one consumer"),
        _("three servers joined; the consumers of the group: {names}").format(names=", ".join(consumers)),
    )


async def _expect_all_acknowledged(redis: Redis, topic: str, group: str) -> None:
    for __ in range(PATIENCE):
        if not (pending := (await redis.xpending(topic, group))["pending"]):
            return
        await asyncio.sleep(0.01)
    evidence = ngettext(
        "the work for all 12 messages is done; {count} message is still pending in the group",
        "the work for all 12 messages is done; {count} messages are still pending in the group",
        pending,
    )
    raise NotYet(
        _("a message is acknowledged when its work is done; otherwise it stays pending for ever"),
        evidence.format(count=pending),
    )


# --- 04.4 ---


async def worker(consumer: GroupConsumer, work: Work, done: set[str]) -> None:
    async for message in consumer:
        if message.id not in done:
            try:
                await work(message.body.decode())
            except Exception:
                continue  # not acknowledged, so the message is delivered again
            done.add(message.id)
        await consumer.ack(message)


class Desk:
    """The work of check 04.4: it notes the texts, never finishes `block_at`, and fails once at `fail_once_at`."""

    def __init__(self) -> None:
        self.finished: list[str] = []
        self.started: list[str] = []
        self.block_at = ""
        self.fail_once_at = ""

    async def work(self, text: str) -> None:
        self.started.append(text)
        await asyncio.sleep(0)
        if text == self.block_at:
            await asyncio.Event().wait()
        if text == self.fail_once_at and self.started.count(text) == 1:
            raise ValueError(_("{text} cannot be read").format(text=text))
        self.finished.append(text)


class Consumer:
    """A consumer of a group whose acknowledgement of one text, `stuck_at`, never returns."""

    def __init__(self, consumer: GroupConsumer) -> None:
        self._consumer = consumer
        self.stuck_at = ""
        self.stuck = asyncio.Event()

    def __aiter__(self) -> Consumer:
        return self

    async def __anext__(self) -> Record:
        return await anext(self._consumer)

    async def batch(self, limit: int = 512) -> Sequence[Record]:
        return await self._consumer.batch(limit)

    async def ack(self, message: Record) -> None:
        if message.body.decode() == self.stuck_at:
            self.stuck.set()
            await asyncio.Event().wait()
        await self._consumer.ack(message)

    async def aclose(self) -> None:
        await self._consumer.aclose()


async def check_worker(answer: Loop) -> None:
    must_wait(answer)
    for case in (_worker_works, _worker_dies_at_work, _worker_dies_before_acknowledging, _work_fails):
        async with fresh("work") as topic, watched_broker(takeover_after=0.1) as broker, client() as redis:
            await case(answer, broker, topic, redis)


async def _pending(redis: Redis, topic: str) -> list[str]:
    """Return the ids of the messages that are pending in the group."""
    return [str(each["message_id"]) for each in await redis.xpending_range(topic, "workers", "-", "+", 100)]


async def _expect_none_pending(redis: Redis, topic: str, rule: str, evidence: Callable[[], str]) -> None:
    for __ in range(PATIENCE):
        if not await _pending(redis, topic):
            return
        await asyncio.sleep(0.01)
    raise NotYet(rule, evidence())


async def _worker_works(answer: Loop, broker: WatchedBroker, topic: str, redis: Redis) -> None:
    desk, done = Desk(), set[str]()
    finished = _("{count} messages were published; the work was done for {texts}")
    consumer = await broker.join(topic, "workers", "worker 1")
    for number in range(5):
        await broker.publish(topic, f"📦 {number}".encode())
    async with at_work(answer(consumer, desk.work, done), what=_("the worker")):
        await wait_or(
            lambda: len(set(desk.finished)) == 5,
            _("the work for every message is done"),
            lambda: finished.format(count=5, texts=desk.finished),
        )
        await _expect_none_pending(
            redis,
            topic,
            _("a message whose work is done is acknowledged; otherwise it is delivered again for ever"),
            lambda: _("the work for all 5 messages is done, but some are still pending in the group"),
        )
    if len(desk.finished) != 5:
        raise NotYet(_("work that is done is not done again"), finished.format(count=5, texts=desk.finished))


async def _worker_dies_at_work(answer: Loop, broker: WatchedBroker, topic: str, redis: Redis) -> None:
    desk, done = Desk(), set[str]()
    desk.block_at = "📦 셋"
    consumer = await broker.join(topic, "workers", "worker 1")
    ids = {text: await broker.publish(topic, text.encode()) for text in ("📦 하나", "📦 둘", "📦 셋", "📦 넷")}
    started = _("{count} messages were published; the work was started for {texts}")
    async with at_work(answer(consumer, desk.work, done), what=_("the worker")) as [first]:
        await wait_or(
            lambda: "📦 셋" in desk.started,
            _("the work for every message is started, in order"),
            lambda: started.format(count=4, texts=desk.started),
        )
        await first.stop()
        await consumer.aclose()
    if ids["📦 셋"] not in await _pending(redis, topic):
        lost = _("the worker died while it worked on {text!r}, which was acknowledged already: now nobody will do it")
        raise NotYet(_("a message is acknowledged when its work is done, and not before"), lost.format(text="📦 셋"))
    if ids["📦 셋"] in done:
        noted = _("the worker died while it worked on {text!r}, which was in `done` already: now nobody will do it")
        raise NotYet(
            _("a message is noted in `done` when its work is done, and not before"), noted.format(text="📦 셋")
        )
    desk.block_at = ""
    await _expect_successor_to_finish(answer, broker, topic, desk, done, set(ids))


async def _expect_successor_to_finish(
    answer: Loop, broker: WatchedBroker, topic: str, desk: Desk, done: set[str], texts: set[str]
) -> None:
    evidence = _("the first worker died while it worked on {text!r}; in the end the work was done for {texts}")
    successor = await broker.join(topic, "workers", "worker 2")
    async with at_work(answer(successor, desk.work, done), what=_("the worker")):
        await wait_or(
            lambda: set(desk.finished) == texts,
            _("the work that a dead worker left is done by the next"),
            lambda: evidence.format(text="📦 셋", texts=desk.finished),
            timeout=3,
        )


async def _worker_dies_before_acknowledging(answer: Loop, broker: WatchedBroker, topic: str, redis: Redis) -> None:
    desk, done = Desk(), set[str]()
    consumer = Consumer(await broker.join(topic, "workers", "worker 1"))
    consumer.stuck_at = "💳 셋"
    for text in ("💳 하나", "💳 둘", "💳 셋"):
        await broker.publish(topic, text.encode())
    async with at_work(answer(consumer, desk.work, done), what=_("the worker")) as [first]:
        await soon(consumer.stuck.is_set, [first], timeout=3)
        await first.stop()
        await consumer.aclose()
    evidence = _("a worker did the work for {text!r} and died before it acknowledged it; the work was done for {texts}")
    successor = await broker.join(topic, "workers", "worker 2")
    async with at_work(answer(successor, desk.work, done), what=_("the worker")):
        await _expect_none_pending(
            redis,
            topic,
            _("a message whose work was done earlier is acknowledged, too; otherwise it is delivered again for ever"),
            lambda: "\n".join([evidence.format(text="💳 셋", texts=desk.finished), _("its message is still pending")]),
        )
    if desk.finished.count("💳 셋") != 1:
        raise NotYet(
            _(
                "work that is done is not done again: note it in `done` before you acknowledge it, and look there "
                "before you start"
            ),
            evidence.format(text="💳 셋", texts=desk.finished),
        )


async def _work_fails(answer: Loop, broker: WatchedBroker, topic: str, redis: Redis) -> None:
    desk, done = Desk(), set[str]()
    desk.fail_once_at = "💥"
    consumer = await broker.join(topic, "workers", "worker 1")
    texts = ["하나", "💥", "셋"]
    for text in texts:
        await broker.publish(topic, text.encode())
    failed = _("the work for {text!r} raised an error; of {texts}, the work was done for {finished}")

    def evidence() -> str:
        return failed.format(text="💥", texts=texts, finished=desk.finished)

    running = Running(answer(consumer, desk.work, done), _("the worker"))
    try:
        await soon(lambda: "셋" in desk.finished, [running])
        if running.task.done() or "셋" not in desk.finished:
            raise NotYet(_("an error in the work does not end the worker: the next message is waiting"), evidence())
        await wait_or(
            lambda: "💥" in desk.finished,
            _("a message whose work failed is delivered again: it was neither done nor acknowledged"),
            lambda: "\n".join([evidence(), _("it was never tried again")]),
            timeout=2,
        )
    finally:
        running.task.cancel()
        await asyncio.wait([running.task], timeout=1)


# --- 04.5 ---


async def lasting_bridge(room: RoomWithOutbox, broker: WatchedBroker, topic: str, place: dict[str, str]) -> None:
    from contextlib import aclosing

    async def speak() -> None:
        while True:
            key, line = await room.outbox.first()
            await broker.publish_once(topic, line.encode(), key)
            room.outbox.remove(key)

    subscription = await broker.subscribe(topic, after=place["last"])
    async with aclosing(subscription), asyncio.TaskGroup() as both:
        both.create_task(speak())
        async for message in subscription:
            room.deliver(message.body.decode())
            place["last"] = message.id


class Place(dict[str, str]):
    """The place of a bridge in the stream; `noted` is called after each change."""

    noted: Callable[[], None] = staticmethod(lambda: None)

    def __setitem__(self, key: str, value: str) -> None:
        super().__setitem__(key, value)
        self.noted()

    def update(self, *given: Any, **named: str) -> None:
        for key, value in dict(*given, **named).items():
            self[key] = value


class Half:
    """One of the two servers of check 04.5: its room and its place in the stream outlive its bridges."""

    def __init__(self, answer: Loop, server: room.RoomServer, broker: WatchedBroker, topic: str) -> None:
        assert isinstance(server.room, RoomWithOutbox)
        self.url, self.room, self.broker = server.url, server.room, broker
        self.place = Place(last=BEGINNING)
        self.stopped = asyncio.Event()
        self._answer, self._topic = answer, topic
        self.start()

    def start(self) -> None:
        """Start a new bridge with the room, the outbox and the place that the last one left."""
        self.bridge = Running(self._answer(self.room, self.broker, self._topic, self.place), _("the bridge"))

    async def stop(self) -> None:
        self.bridge.look()
        await self.bridge.stop()

    def stop_when(self, moment: str) -> None:
        """Cancel the bridge at its next step of this kind: it goes no further than its next `await`."""
        self.stopped.clear()
        if moment in ("stored", "confirmed"):
            self.broker.stand_still("before" if moment == "stored" else "after")
            self.stopped = self.broker.standing
        elif moment == "noted":
            self.place.noted = self._cancel_once(self.place, "noted", self.place.noted)
        elif moment == "delivered":
            self.room.deliver = self._cancel_once(self.room, "deliver", self.room.deliver)  # type: ignore[method-assign]
        else:
            self.room.outbox.remove = self._cancel_once(self.room.outbox, "remove", self.room.outbox.remove)  # type: ignore[method-assign]

    def _cancel_once(self, owner: object, name: str, step: Callable[..., None]) -> Callable[..., None]:
        """Return `step` followed by the end of the bridge, once."""

        def step_and_stop(*arguments: Any) -> None:
            setattr(owner, name, step)
            step(*arguments)
            self.stopped.set()
            self.bridge.task.cancel()

        self.stopped = asyncio.Event()
        return step_and_stop


@contextlib.asynccontextmanager
async def two_halves(answer: Loop, topic: str) -> AsyncIterator[tuple[Half, Half]]:
    async with watched_broker() as one, watched_broker() as two, two_servers(RoomWithOutbox) as servers:
        halves = Half(answer, servers[0], one, topic), Half(answer, servers[1], two, topic)
        try:
            yield halves
        except (TimeoutError, NotYet):
            for half in halves:
                half.bridge.look()
            raise
        finally:
            for half in halves:
                half.bridge.task.cancel()
            await asyncio.wait([half.bridge.task for half in halves], timeout=1)


async def check_lasting_bridge(answer: Loop) -> None:
    must_wait(answer)
    async with (
        fresh("room") as topic,
        two_halves(answer, topic) as (ours, theirs),
        members(ours.url, "가람") as [garam],
        members(theirs.url, "Nuri") as [nuri],
    ):
        await soon(lambda: ours.broker.open == theirs.broker.open == 1, [ours.bridge, theirs.bridge])
        await _expect_conversation(garam, nuri)
        await _expect_place_at_once(topic, theirs)
        await _stop_for_a_while(theirs, garam, nuri)
        await _stop_before_the_record_is_added(theirs, garam, nuri)
        await _stop_before_the_confirmation(theirs, garam, nuri)
        await _stop_at_each_step(theirs, garam, nuri)
        await _expect_the_same_words_twice(garam, nuri)


async def _expect_place_at_once(topic: str, half: Half) -> None:
    async with client() as redis:
        newest = str((await redis.xinfo_stream(topic))["last-generated-id"])
    await wait_or(
        lambda: half.place["last"] == newest,
        _("the place is noted for each message as it is delivered: a crash leaves no time for it later"),
        lambda: _("the last message has the id {id}, and place is {place}").format(id=newest, place=half.place),
    )


def _waiting(half: Half, *clients: RoomClient) -> str:
    """Return the evidence of the lines in the outbox, and of the texts that the clients received."""
    count = len(half.room.outbox)
    lines = ngettext("{count} line waits in the outbox", "{count} lines wait in the outbox", count)
    return "\n".join(filter(None, [lines.format(count=count), received_by(*clients)]))


async def _stop_for_a_while(half: Half, garam: RoomClient, nuri: RoomClient) -> None:
    await half.stop()
    _expect_no_subscription(half.broker.open)
    for text in ("하나", "둘", "셋 🥁"):
        await garam.send(text)
    await nuri.send("저는 아직 있어요")
    await wait_or(
        lambda: "가람: 셋 🥁" in said(garam),
        _("one server's bridge does not wait for the other's"),
        lambda: received_by(garam),
    )
    half.start()
    stopped = _("while Nuri's bridge was stopped, 가람 sent 하나, 둘, 셋 🥁")
    await wait_or(
        lambda: {"가람: 하나", "가람: 둘", "가람: 셋 🥁"} <= set(said(nuri)),
        _("a message sent while a bridge is stopped is delivered after the bridge restarts"),
        lambda: "\n".join([stopped, received_by(nuri)]),
    )
    await wait_or(
        lambda: "Nuri: 저는 아직 있어요" in said(garam),
        _("a line that waits in the outbox while a bridge is stopped is published after the bridge restarts"),
        lambda: _waiting(half, garam),
    )
    rule = _("a restarted bridge continues after the last message it delivered: nothing is delivered again")
    _expect_nothing_twice(rule, nuri)


def _expect_no_subscription(still_open: int) -> None:
    if still_open:
        count = ngettext("{count} subscription is open", "{count} subscriptions are open", still_open)
        raise NotYet(
            _("a stopped bridge has closed its subscription; otherwise the broker goes on filling it"),
            count.format(count=still_open),
        )


async def _stop_before_the_record_is_added(half: Half, garam: RoomClient, nuri: RoomClient) -> None:
    await _stop_while_publishing(half, nuri, "before", "안 사라졌죠?")
    stopped = _("the bridge was stopped while it published {text!r}, and restarted").format(text="안 사라졌죠?")
    await wait_or(
        lambda: "Nuri: 안 사라졌죠?" in said(garam),
        _("a line is removed from the outbox when the broker has confirmed it, and not before"),
        lambda: "\n".join([stopped, _waiting(half, garam)]),
    )


async def _stop_before_the_confirmation(half: Half, garam: RoomClient, nuri: RoomClient) -> None:
    await _stop_while_publishing(half, nuri, "after", "한 번만!")
    await nuri.send("들었어요?")
    await wait_or(
        lambda: "Nuri: 들었어요?" in said(garam) and "Nuri: 들었어요?" in said(nuri),
        _("a line is removed from the outbox when it is confirmed, even if that took two attempts"),
        lambda: _waiting(half, garam),
    )
    rule = _("a line that was added, but whose confirmation was lost, is not added again: its key is the same")
    _expect_nothing_twice(rule, garam, nuri)


async def _stop_while_publishing(half: Half, nuri: RoomClient, moment: Moment, text: str) -> None:
    half.broker.stand_still(moment)
    await nuri.send(text)
    await wait_or(
        half.broker.standing.is_set,
        _("a member's line is taken from the outbox and published"),
        lambda: "\n".join([_sent(nuri, text), _("nothing was published"), _waiting(half)]),
    )
    await half.stop()
    half.start()


STEPS = {
    "stored": _("before the broker stored {text!r}"),
    "confirmed": _("after the broker stored {text!r}, and before it confirmed that"),
    "removed": _("right after it removed a line from the outbox"),
    "delivered": _("right after it delivered a message"),
    "noted": _("right after it noted its place"),
}


async def _stop_at_each_step(half: Half, garam: RoomClient, nuri: RoomClient) -> None:
    for number, (moment, told) in enumerate([*STEPS.items()] * 2):
        ours, theirs = f"#{number} 가람", f"#{number} Nuri"
        half.stop_when(moment)
        await nuri.send(theirs)
        await garam.send(ours)
        when = _("the bridge was stopped {moment}").format(moment=told.format(text=theirs))
        await wait_or(half.stopped.is_set, _("the bridge works on after it was restarted"), lambda when=when: when)  # type: ignore[misc]  # mypy cannot infer a lambda's default
        await half.stop()
        half.start()
        await _expect_all_once([f"Nuri: {theirs}", f"가람: {ours}"], when, garam, nuri)
    in_one_order(garam, nuri)


async def _expect_all_once(lines: Sequence[str], when: str, *clients: RoomClient) -> None:
    """Expect that each client receives these lines once; `when` tells at which step the bridge was stopped."""
    missing = _("{name} never received {line!r}")

    def lost() -> list[str]:
        return [
            missing.format(name=each.name, line=line) for each in clients for line in lines if line not in said(each)
        ]

    await wait_or(
        lambda: not lost(),
        _("whatever step a bridge is stopped at, nothing is lost: deliver and note the place with no `await` between"),
        lambda: "\n".join([when, *lost()]),
        timeout=3,
    )
    await asyncio.sleep(0.02)
    for each in clients:
        if twice := [line for line in lines if said(each).count(line) > 1]:
            rule = _("whatever step a bridge is stopped at, nothing is delivered twice: the place and the key say so")
            raise NotYet(rule, "\n".join([when, _times(each, twice[0])]))


async def _expect_the_same_words_twice(garam: RoomClient, nuri: RoomClient) -> None:
    await nuri.send("네")
    await nuri.send("네")
    await wait_or(
        lambda: said(garam).count("Nuri: 네") == 2,
        _("who says the same thing twice is heard twice: a key belongs to a line in the outbox, not to its text"),
        lambda: "\n".join([_("Nuri sent {text!r} twice").format(text="네"), _times(garam, "Nuri: 네")]),
    )


def _expect_nothing_twice(rule: str, *clients: RoomClient) -> None:
    for each in clients:
        if twice := [line for line in dict.fromkeys(said(each)) if said(each).count(line) > 1]:
            raise NotYet(rule, _times(each, twice[0]))


EXERCISES = [
    Exercise(
        "04.0",
        _("Two subscribers"),
        check_both_hear,
        (
            _("Three steps, in this order: subscribe twice, publish once, take one message from each subscription."),
            _(
                "`subscription = await broker.subscribe(topic)`, `await broker.publish(topic, text.encode())`, and "
                "`message = await anext(subscription)`. The text of a message is `message.body.decode()`."
            ),
            _(
                "Subscribe as `first` and `second`, publish, and then:\n"
                "    received = [(await anext(each)).body.decode() for each in (first, second)]\n"
                "Close both with `await first.aclose()` and `await second.aclose()`, and return `received`."
            ),
        ),
        both_hear,
        _(
            "The publisher published one message and two were delivered: that is fan-out, and the broker does it. The "
            "publisher knows neither how many subscribers there are nor who they are."
        ),
        learned=_("One message was published and two were delivered: that is fan-out, and the broker does it."),
        leads_to=_("A third subscriber comes a second later. Does it get the message, too?"),
    ),
    Exercise(
        "04.1",
        _("What a client has missed"),
        check_missed,
        (
            _(
                "Go through `kept` and take the texts whose id comes after the last one. A new client has no last id: "
                "return an empty list."
            ),
            _(
                "Do not search the list for the last id, because it may have been deleted. Compare ids instead. But as "
                "texts, '10' comes before '9'; an id is two numbers with a hyphen between them."
            ),
            _(
                "Turn an id into a list of numbers, [int(part) for part in id.split('-')]: such lists compare the way "
                "you need. Then: [text for id, text in kept if numbers(id) > numbers(last)]."
            ),
        ),
        missed,
        _(
            "A place in a log is just an id, and reading on is a comparison. No server has to remember which "
            "clients were away: the client says where it was. Redis compares ids in the same way when it returns the "
            "messages after one."
        ),
        learned=_("The id is an offset: the client says where it was, and so no server has to remember who was away."),
        leads_to=_("How long should the messages be kept for those who are away, and who decides?"),
    ),
    Exercise(
        "04.2",
        _("A bridge between two servers"),
        check_bridge,
        (
            _(
                "Two endless loops have to run at the same time: one takes lines from `room.outgoing` and publishes "
                "them, the other reads from the broker and delivers. Do not deliver the lines from `outgoing` "
                "yourself: they come back from the broker."
            ),
            _(
                "The loops are the lesson's `speak` and `hear`. Write them as inner functions, `async def speak():` "
                "and `async def hear(subscription):`. Lines are text and messages are bytes: use `await "
                "broker.publish(topic, line.encode())` in the one and `room.deliver(message.body.decode())` in the "
                "other."
            ),
            _(
                "`aclosing` closes the subscription when the bridge is stopped, and a TaskGroup ends both loops "
                "together:\n"
                "    from contextlib import aclosing\n"
                "    async with aclosing(await broker.subscribe(topic)) as subscription:\n"
                "        async with asyncio.TaskGroup() as both:\n"
                "            both.create_task(speak())\n"
                "            both.create_task(hear(subscription))"
            ),
        ),
        bridge,
        _(
            "Every message goes the same way, out to the broker and back. So it arrives once, in one order for all. "
            "The two loops start and end together, because half a bridge is worse than none: nobody notices."
        ),
        learned=_("The broker does the broadcast for all servers, so every message arrives once, in one order."),
        leads_to=_("One of your two servers loses the broker for a minute. What do its members see meanwhile?"),
    ),
    Exercise(
        "04.3",
        _("Everybody shows it, one does the work"),
        check_service,
        (
            _(
                "There are two kinds of reading: a subscription gets everything, a consumer of a group gets its share. "
                "Here each server needs both, on the same topic, at the same time."
            ),
            _(
                "Write one loop over `await broker.subscribe(topic)` that calls `show`. Write another over `consumer = "
                "await broker.join(topic, group, name)` that awaits `work` and then `consumer.ack(message)`. The name "
                "of the group is the same on all servers; the name of the consumer is not."
            ),
            _(
                "Write the loops as two inner functions and run both with `await asyncio.gather(show_all(), "
                "do_some())`. A message's text is `message.body.decode()`. The second one:\n"
                "    async def do_some():\n"
                "        consumer = await broker.join(topic, 'workers', name)\n"
                "        async for message in consumer:\n"
                "            await work(message.body.decode())\n"
                "            await consumer.ack(message)"
            ),
        ),
        service,
        _(
            "The article's code has only the second kind of reading, so each server sees only part of the conversation "
            "(fault F1). With only the first, three servers would send three notifications for one message."
        ),
        learned=_("A subscription is for what everybody should see; a consumer group is for what is to be done once."),
        leads_to=_("Three servers share the work, and one of them is slow. Who gets its next message?"),
    ),
    Exercise(
        "04.4",
        _("A worker that may die"),
        check_worker,
        (
            _(
                "Work first, then `await consumer.ack(message)`: a message that is not acknowledged comes again, "
                "if need be to another worker. An error in the work must not end the loop, and a message whose work "
                "failed must not be acknowledged."
            ),
            _(
                "At least once can mean twice: a worker may die after the work and before the acknowledgement. So call "
                "`done.add(message.id)` after the work and before the acknowledgement. If a message is in `done`, skip "
                "the work, but not the acknowledgement."
            ),
            _(
                "The loop without its last line, which applies to all messages: `await consumer.ack(message)`.\n"
                "    async for message in consumer:\n"
                "        if message.id not in done:\n"
                "            try:\n"
                "                await work(message.body.decode())\n"
                "            except Exception:\n"
                "                continue\n"
                "            done.add(message.id)"
            ),
        ),
        worker,
        _(
            "Before the work it is too early to acknowledge, and after the work there is always a moment in which the "
            "worker may die. So a message can be delivered twice, and the worker must recognise it. `done` is a set "
            "here; in a real service it is a table, written in the same transaction as the work itself."
        ),
        learned=_("Redelivery makes it at least once, and what you noted in `done` makes the work idempotent."),
        leads_to=_(
            "The work is to send a mail. Where would you note that it is done, so that no crash comes in between?"
        ),
    ),
    Exercise(
        "04.5",
        _("A bridge that loses nothing and repeats nothing"),
        check_lasting_bridge,
        (
            _(
                "Start with your bridge from 04.2. To continue where the last bridge stopped, subscribe with "
                "`after=place['last']`, and set `place['last'] = message.id` as soon as a message is delivered."
            ),
            _(
                "The other half: `key, line = await room.outbox.first()` leaves the line in the outbox. Remove it with "
                "`room.outbox.remove(key)` only when the broker has confirmed it. Then nothing is lost; but if the "
                "bridge stops in between, the next one publishes the line again."
            ),
            _(
                "`await broker.publish_once(topic, line.encode(), key)` adds a message only if there is none under the "
                "key. So `speak` is `first`, `publish_once`, `remove`, in an endless loop, and the other loop is\n"
                "    async for message in subscription:\n"
                "        room.deliver(message.body.decode())\n"
                "        place['last'] = message.id\n"
                "with no `await` between the two lines, where it could be stopped."
            ),
        ),
        lasting_bridge,
        _(
            "Each half keeps something that outlives it, and lets go of it only when the other side has it: the outbox "
            "keeps a line until it is confirmed, the place keeps an id until the next message is delivered. Retries "
            "make sure that nothing is lost; the key and the id make sure that nothing arrives twice. This is what "
            "'exactly once' means, and chatlab's own chat works this way."
        ),
        learned=_(
            "Retries make it at least once, and the key and the offset remove the repeats: together, exactly once."
        ),
        leads_to=_("How long must the server remember your keys? What happens to a retry that comes after that?"),
    ),
]
