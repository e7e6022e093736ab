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
from chatlab.brokers.port import BEGINNING, Broker, GroupConsumer, Record
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
            _("a reader gets the records after the last one it saw, but not that one"),
        ),
        (morning, "1802-0", [], _("a reader that saw the last record has missed nothing")),
        (morning, None, [], _("a new reader has missed nothing: it starts with the next record")),
        (
            morning,
            "1644-7",
            ["하나", "둘", "셋 🥁", "넷"],
            _("the last record seen need not be among those still kept"),
        ),
        (morning, "1760-0", ["넷"], _("the last record seen may have been deleted from the middle")),
        (busy, "1700-9", ["#10", "#11", "#12"], _("an id is two numbers: 1700-10 comes after 1700-9")),
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
        async for record in subscription:
            room.deliver(record.body.decode())


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
    """Return the evidence of a text that was sent, and of the texts that each receiver got."""
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
            _("a text sent on one server arrives on the other, in both directions and at any time"),
            lambda sender=sender, reader=reader, text=text: _sent(sender, text, reader),  # type: ignore[misc]  # as above
        )
        await wait_or(
            lambda sender=sender, line=line: line in said(sender),  # type: ignore[misc]  # as above
            _("senders receive their own texts, too, when these come back from the broker"),
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
        _("every text reaches the members of every server"),
        lambda: received_by(garam, nuri),
        timeout=3,
    )
    for member in (garam, nuri):
        if twice := sorted({line for line in said(member) if said(member).count(line) > 1}):
            raise NotYet(
                _("each text is received once: it comes back from the broker, so do not deliver it yourself"),
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


async def service(name: str, broker: WatchedBroker, topic: str, show: Callable[[str], None], work: Work) -> None:
    async def show_all() -> None:
        async for record in await broker.subscribe(topic):
            show(record.body.decode())

    async def do_a_share() -> None:
        share = await broker.join(topic, "workers", name)
        async for record in share:
            await work(record.body.decode())
            await share.ack(record)

    await asyncio.gather(show_all(), do_a_share())


async def check_service(answer: Loop) -> None:
    must_wait(answer)
    names = tuple(f"server {number}" for number in (1, 2, 3))
    texts = [f"#{number} 안녕" for number in range(12)]
    screens: dict[str, list[str]] = {name: [] for name in names}
    done: dict[str, list[str]] = {name: [] for name in names}

    def worker_of(name: str) -> Work:
        async def work(text: str) -> None:
            await asyncio.sleep(0.002)
            done[name].append(text)

        return work

    def all_done() -> list[str]:
        return [text for each in done.values() for text in each]

    async with fresh("room") as topic, watched_broker() as broker, client() as redis:
        loops = [answer(name, broker, topic, screens[name].append, worker_of(name)) for name in names]
        async with at_work(*loops, what=_("the service")) as running:
            await soon(lambda: broker.open == len(broker.shares) == 3, running)
            for text in texts:
                await broker.publish(topic, text.encode())
            showed = _("{total} texts were published; {name} showed {count} of them")
            for name in names:
                await wait_or(
                    lambda name=name: len(screens[name]) >= 12,  # type: ignore[misc]  # mypy cannot infer a lambda's default
                    _("every server shows every text"),
                    lambda name=name: showed.format(total=12, name=name, count=len(screens[name])),  # type: ignore[misc]  # as above
                )
            worked_on = _("{total} texts were published; the work was done for {count} of them")
            await wait_or(
                lambda: len(all_done()) >= 12,
                _("the work for each text is done, on one of the servers"),
                lambda: worked_on.format(total=12, count=len(set(all_done()))),
            )
            await _expect_one_group(redis, topic, names, all_done)
            for name in names:
                if screens[name] != texts:
                    evidence = _("{name} showed {texts}").format(name=name, texts=screens[name])
                    raise NotYet(_("every server shows every text once, in order"), evidence)


async def _expect_one_group(redis: Redis, topic: str, names: Sequence[str], done: Callable[[], list[str]]) -> None:
    """Ask Redis for the groups, their consumers, and the records that are pending."""
    groups = [str(group["name"]) for group in await redis.xinfo_groups(topic)]
    if len(groups) != 1:
        with contextlib.suppress(TimeoutError):
            await until(lambda: len(done()) > 12, timeout=1)
        raise NotYet(
            _("the work for each text is done once: all servers are members of the same group"),
            "\n".join([_work_done(done()), _groups_found(groups)]),
        )
    await _expect_consumers(redis, topic, groups[0], names)
    await _expect_all_acknowledged(redis, topic, groups[0])
    if len(done()) != 12:
        raise NotYet(_("the work for each text is done once"), _work_done(done()))


def _work_done(done: Sequence[str]) -> str:
    evidence = ngettext(
        "12 texts were published; work was done {count} time",
        "12 texts were published; work was done {count} times",
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
        _("each server joins the group under its own name; otherwise the group takes them for one member"),
        _("three servers joined; the members of the group: {names}").format(names=", ".join(consumers)),
    )


async def _expect_all_acknowledged(redis: Redis, topic: str, group: str) -> None:
    for __ in range(PATIENCE):
        if not (pending := (await redis.xpending(topic, group))["pending"]):
            return
        await asyncio.sleep(0.01)
    evidence = ngettext(
        "the work for all 12 texts is done; {count} record is still pending in the group",
        "the work for all 12 texts is done; {count} records are still pending in the group",
        pending,
    )
    raise NotYet(
        _("a record is acknowledged when its work is done; otherwise it stays pending for ever"),
        evidence.format(count=pending),
    )


# --- 04.4 ---


async def worker(share: GroupConsumer, work: Work, done: set[str]) -> None:
    async for record in share:
        if record.id not in done:
            try:
                await work(record.body.decode())
            except Exception:
                continue  # not acknowledged, so the record is delivered again
            done.add(record.id)
        await share.ack(record)


class Desk:
    """The work of check 04.4: it records the texts, never finishes `block_at`, and fails once at `fail_once_at`."""

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


class Share:
    """A share of a group's work whose acknowledgement of one text, `stuck_at`, never returns."""

    def __init__(self, share: GroupConsumer) -> None:
        self._share = share
        self.stuck_at = ""
        self.stuck = asyncio.Event()

    def __aiter__(self) -> Share:
        return self

    async def __anext__(self) -> Record:
        return await anext(self._share)

    async def batch(self, limit: int = 512) -> Sequence[Record]:
        return await self._share.batch(limit)

    async def ack(self, record: Record) -> None:
        if record.body.decode() == self.stuck_at:
            self.stuck.set()
            await asyncio.Event().wait()
        await self._share.ack(record)

    async def aclose(self) -> None:
        await self._share.aclose()


async def check_worker(answer: Loop) -> None:
    must_wait(answer)
    for case in (_worker_works, _worker_dies_at_work, _worker_dies_before_acknowledging, _work_fails):
        async with fresh("work") as topic, watched_broker(takeover_after=0.1) as broker, client() as redis:
            await case(answer, broker, topic, redis)


async def _pending(redis: Redis, topic: str) -> list[str]:
    """Return the ids of the records that are pending in the group."""
    return [str(each["message_id"]) for each in await redis.xpending_range(topic, "workers", "-", "+", 100)]


async def _expect_none_pending(redis: Redis, topic: str, rule: str, evidence: Callable[[], str]) -> None:
    for __ in range(PATIENCE):
        if not await _pending(redis, topic):
            return
        await asyncio.sleep(0.01)
    raise NotYet(rule, evidence())


async def _worker_works(answer: Loop, broker: WatchedBroker, topic: str, redis: Redis) -> None:
    desk, done = Desk(), set[str]()
    finished = _("{count} records were published; the work was done for {texts}")
    share = await broker.join(topic, "workers", "worker 1")
    for number in range(5):
        await broker.publish(topic, f"📦 {number}".encode())
    async with at_work(answer(share, desk.work, done), what=_("the worker")):
        await wait_or(
            lambda: len(set(desk.finished)) == 5,
            _("the work for every record is done"),
            lambda: finished.format(count=5, texts=desk.finished),
        )
        await _expect_none_pending(
            redis,
            topic,
            _("a record whose work is done is acknowledged; otherwise it is delivered again for ever"),
            lambda: _("the work for all 5 records is done, but some are still pending in the group"),
        )
    if len(desk.finished) != 5:
        raise NotYet(_("work that is done is not done again"), finished.format(count=5, texts=desk.finished))


async def _worker_dies_at_work(answer: Loop, broker: WatchedBroker, topic: str, redis: Redis) -> None:
    desk, done = Desk(), set[str]()
    desk.block_at = "📦 셋"
    share = await broker.join(topic, "workers", "worker 1")
    ids = {text: await broker.publish(topic, text.encode()) for text in ("📦 하나", "📦 둘", "📦 셋", "📦 넷")}
    started = _("{count} records were published; the work was started for {texts}")
    async with at_work(answer(share, desk.work, done), what=_("the worker")) as [first]:
        await wait_or(
            lambda: "📦 셋" in desk.started,
            _("the work for every record is started, in order"),
            lambda: started.format(count=4, texts=desk.started),
        )
        await first.stop()
        await share.aclose()
    if ids["📦 셋"] not in await _pending(redis, topic) or ids["📦 셋"] in done:
        lost = _("the worker died while it worked on {text!r}, which was acknowledged already: now nobody will do it")
        raise NotYet(_("a record is acknowledged when its work is done, and not before"), lost.format(text="📦 셋"))
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
    share = Share(await broker.join(topic, "workers", "worker 1"))
    share.stuck_at = "💳 셋"
    for text in ("💳 하나", "💳 둘", "💳 셋"):
        await broker.publish(topic, text.encode())
    async with at_work(answer(share, desk.work, done), what=_("the worker")) as [first]:
        await soon(share.stuck.is_set, [first], timeout=3)
        await first.stop()
        await share.aclose()
    evidence = _("a worker did the work for {text!r} and died before it acknowledged it; the work was done for {texts}")
    successor = await broker.join(topic, "workers", "worker 2")
    async with at_work(answer(successor, desk.work, done), what=_("the worker")):
        await _expect_none_pending(
            redis,
            topic,
            _("a record whose work was done earlier is acknowledged, too; otherwise it is delivered again for ever"),
            lambda: "\n".join([evidence.format(text="💳 셋", texts=desk.finished), _("its record is still pending")]),
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
    share = await broker.join(topic, "workers", "worker 1")
    texts = ["하나", "💥", "셋"]
    for text in texts:
        await broker.publish(topic, text.encode())
    failed = _("the work for {text!r} raised an error; of {texts}, the work was done for {finished}")

    def evidence() -> str:
        return failed.format(text="💥", texts=texts, finished=desk.finished)

    running = Running(answer(share, desk.work, done), _("the worker"))
    try:
        await soon(lambda: "셋" in desk.finished, [running])
        if running.task.done() or "셋" not in desk.finished:
            raise NotYet(_("an error in the work does not end the worker: the next record is waiting"), evidence())
        await wait_or(
            lambda: "💥" in desk.finished,
            _("a record whose work failed is delivered again: it was neither done nor acknowledged"),
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
        async for record in subscription:
            room.deliver(record.body.decode())
            place["last"] = record.id


class Half:
    """One of the two servers of check 04.5: its room and its place in the stream outlive its bridges."""

    def __init__(self, answer: Loop, server: room.RoomServer, broker: WatchedBroker, topic: str) -> None:
        assert isinstance(server.room, RoomWithOutbox)
        self.url, self.room, self.broker = server.url, server.room, broker
        self.place = {"last": BEGINNING}
        self._answer, self._topic = answer, topic
        self.start()

    def start(self) -> None:
        """Start a new bridge with the room, the outbox and the place that the last one left."""
        self.bridge = Running(self._answer(self.room, self.broker, self._topic, self.place), _("the bridge"))

    async def stop(self) -> None:
        self.bridge.look()
        await self.bridge.stop()


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
        await _stop_at_random_moments(theirs, garam, nuri)


async def _expect_place_at_once(topic: str, half: Half) -> None:
    async with client() as redis:
        newest = str((await redis.xinfo_stream(topic))["last-generated-id"])
    await wait_or(
        lambda: half.place["last"] == newest,
        _("the place is noted for each record as it is delivered: a crash leaves no time for it later"),
        lambda: _("the last record has the id {id}, and place is {place}").format(id=newest, place=half.place),
    )


def _waiting(half: Half, *clients: RoomClient) -> str:
    """Return the evidence of the lines in the outbox, and of the texts that the clients received."""
    count = len(half.room.outbox)
    lines = ngettext("{count} line waits in the outbox", "{count} lines wait in the outbox", count)
    return "\n".join(filter(None, [lines.format(count=count), received_by(*clients)]))


async def _stop_for_a_while(half: Half, garam: RoomClient, nuri: RoomClient) -> None:
    await half.stop()
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
        _("a text sent while a bridge is stopped is delivered after the bridge restarts"),
        lambda: "\n".join([stopped, received_by(nuri)]),
    )
    await wait_or(
        lambda: "Nuri: 저는 아직 있어요" in said(garam),
        _("a line that waits in the outbox while a bridge is stopped is published after the bridge restarts"),
        lambda: _waiting(half, garam),
    )
    rule = _("a restarted bridge continues after the last record it delivered: nothing is delivered again")
    _expect_nothing_twice(rule, nuri)


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
        _("a member's text is taken from the outbox and published"),
        lambda: "\n".join([_sent(nuri, text), _("nothing was published"), _waiting(half)]),
    )
    await half.stop()
    half.start()


async def _stop_at_random_moments(half: Half, garam: RoomClient, nuri: RoomClient) -> None:
    for number in range(16):
        await asyncio.gather(*(each.send(f"#{number}.{part}") for part in range(3) for each in (garam, nuri)))
        for __ in range(number % 8):
            await asyncio.sleep(0.0005)
        await half.stop()
        half.start()
    await asyncio.gather(garam.send("끝"), nuri.send("끝"))
    wanted = {f"{name}: #{number}.{part}" for name in ("가람", "Nuri") for number in range(16) for part in range(3)}
    wanted |= {"가람: 끝", "Nuri: 끝"}
    missing = _("{name} never received {texts}")
    await wait_or(
        lambda: wanted <= set(said(garam)) and wanted <= set(said(nuri)),
        _("however often a bridge is stopped and restarted, nothing is lost"),
        lambda: "\n".join(
            missing.format(name=each.name, texts=sorted(wanted - set(said(each)))[:5]) for each in (garam, nuri)
        ),
        timeout=4,
    )
    _expect_nothing_twice(_("however often a bridge is stopped and restarted, nothing is delivered twice"), garam, nuri)
    in_one_order(garam, nuri)


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
    ),
    Exercise(
        "04.1",
        _("What a reader has missed"),
        check_missed,
        (
            _(
                "Go through `kept` and take the texts whose id comes after the last one. A new reader has no last id: "
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
            "A place in a stream is just an id, and reading on is a comparison. No server has to remember which "
            "readers were away: the reader says where it was. Redis compares ids in the same way when it returns the "
            "records after one."
        ),
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
                "and `async def hear(subscription):`. Lines are text and records are bytes: use `await "
                "broker.publish(topic, line.encode())` in the one and `room.deliver(record.body.decode())` in the "
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
            "Every text goes the same way, out to the broker and back, so it arrives once, and in one order for all. "
            "The two loops start and end together, because half a bridge is worse than none: nobody notices."
        ),
    ),
    Exercise(
        "04.3",
        _("Everybody shows it, one does the work"),
        check_service,
        (
            _(
                "There are two kinds of reading: a subscription gets everything, a member of a group gets its share. "
                "Here each server needs both, on the same topic, at the same time."
            ),
            _(
                "Write one loop over `await broker.subscribe(topic)` that calls `show`. Write another over `share = "
                "await broker.join(topic, group, member)` that awaits `work` and then `share.ack(record)`. The group's "
                "name is the same on all servers; the member's name is not."
            ),
            _(
                "Write the loops as two inner functions and run both with `await asyncio.gather(show_all(), "
                "do_a_share())`. A record's text is `record.body.decode()`. The second one:\n"
                "    async def do_a_share():\n"
                "        share = await broker.join(topic, 'workers', name)\n"
                "        async for record in share:\n"
                "            await work(record.body.decode())\n"
                "            await share.ack(record)"
            ),
        ),
        service,
        _(
            "The article's code has only the second kind of reading, so each server sees only part of the conversation "
            "(fault F1). With only the first, three servers would send three notifications for one text."
        ),
    ),
    Exercise(
        "04.4",
        _("A worker that may die"),
        check_worker,
        (
            _(
                "Work first, then `await share.ack(record)`: a record that is not acknowledged is delivered again, if "
                "need be to another worker. An error in the work must not end the loop, and a record whose work failed "
                "must not be acknowledged."
            ),
            _(
                "At least once can mean twice: a worker may die after the work and before the acknowledgement. So call "
                "`done.add(record.id)` after the work and before the acknowledgement. For a record that is in `done`, "
                "skip the work, but not the acknowledgement."
            ),
            _(
                "The loop without its last line, which applies to all records: `await share.ack(record)`.\n"
                "    async for record in share:\n"
                "        if record.id not in done:\n"
                "            try:\n"
                "                await work(record.body.decode())\n"
                "            except Exception:\n"
                "                continue\n"
                "            done.add(record.id)"
            ),
        ),
        worker,
        _(
            "Before the work it is too early to acknowledge, and after the work there is always a moment in which the "
            "worker may die. So a record can be delivered twice, and the worker must recognise it. `done` is a set "
            "here; in a real service it is a table, written in the same transaction as the work itself."
        ),
    ),
    Exercise(
        "04.5",
        _("A bridge that loses nothing and repeats nothing"),
        check_lasting_bridge,
        (
            _(
                "Start with your bridge from 04.2. To continue where the last bridge stopped, subscribe with "
                "`after=place['last']`, and set `place['last'] = record.id` as soon as a record is delivered."
            ),
            _(
                "The other half: `key, line = await room.outbox.first()` leaves the line in the outbox. Remove it with "
                "`room.outbox.remove(key)` only when the broker has confirmed it. Then nothing is lost; but if the "
                "bridge stops in between, the next one publishes the line again."
            ),
            _(
                "`await broker.publish_once(topic, line.encode(), key)` adds a record only if there is none under this "
                "key. So `speak` is `first`, `publish_once`, `remove`, in an endless loop, and the other loop is\n"
                "    async for record in subscription:\n"
                "        room.deliver(record.body.decode())\n"
                "        place['last'] = record.id\n"
                "with no `await` between the two lines, where it could be stopped."
            ),
        ),
        lasting_bridge,
        _(
            "Each half keeps something that outlives it, and lets go of it only when the other side has it: the outbox "
            "keeps a line until it is confirmed, the place keeps an id until the next record is delivered. Retries "
            "make sure that nothing is lost; the key and the id make sure that nothing arrives twice. This is what "
            "'exactly once' means, and chatlab's own chat works this way."
        ),
    ),
]
