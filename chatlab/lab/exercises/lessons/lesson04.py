"""Lesson 04: what a reader has missed, a bridge between two servers, work that is shared and never lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from redis.asyncio import Redis

from chatlab import room
from chatlab.brokers.port import BEGINNING, GroupConsumer, Record
from chatlab.lab.clients import RoomClient
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
    heard_by,
    in_one_order,
    must_wait,
    said,
    soon,
    two_servers,
)
from chatlab.lab.until import until
from chatlab.room.server import Handler

__all__ = ["EXERCISES"]

PATIENCE = 120  # times 10 ms, for what only the server can say
wait_or = partial(lesson03.wait_or, timeout=PATIENCE / 100)

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
        (morning, "1700-1", ["셋 🥁", "넷"], "a reader gets what came after the last record it saw, and not that one"),
        (morning, "1802-0", [], "who has seen the last record has missed nothing"),
        (morning, None, [], "who was never here has missed nothing: it hears what is said from now on"),
        (morning, "1644-7", ["하나", "둘", "셋 🥁", "넷"], "the last record seen need not be among those still kept"),
        (morning, "1760-0", ["넷"], "the last record seen may have been taken out of the middle"),
        (busy, "1700-9", ["#10", "#11", "#12"], "an id is two numbers: 1700-10 comes after 1700-9"),
        ([("999-0", "a"), ("1000-0", "b")], "999-0", ["b"], "an id is two numbers: 1000-0 comes after 999-0"),
        ([], "1700-1", [], "nothing may be kept at all"),
    ]
    for kept, last, expected, rule in cases:
        call = f"missed({kept}, {last!r})"
        try:
            got = answer(list(kept), last)
        except Exception as error:
            raise NotYet(rule, call) from error
        if got != expected:
            raise NotYet(rule, f"{call} gave {got!r}, not {expected!r}")


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
        async with at_work(*loops, what="the bridge") as bridges:
            await soon(lambda: broker.open == 2, bridges)
            async with members(servers[0].url, "가람") as [garam], members(servers[1].url, "Nuri") as [nuri]:
                await _two_talk(garam, nuri)
                await _both_at_once(garam, nuri)
            await _is_gone_when_stopped(bridges[0], broker, servers[0].room)


async def _two_talk(garam: RoomClient, nuri: RoomClient) -> None:
    for sender, reader, text in ((garam, nuri, "누리 있어요? 👀"), (nuri, garam, "여기요!")):
        line = f"{sender.name}: {text}"
        await sender.send(text)
        await wait_or(
            lambda reader=reader, line=line: line in said(reader),  # type: ignore[misc]  # mypy cannot infer a lambda's default
            "what is said on one server is heard on the other, in both directions and at any time",
            lambda sender=sender, reader=reader, text=text: f"{sender.name} said {text!r}; {heard_by(reader)}",  # type: ignore[misc]  # as above
        )
        await wait_or(
            lambda sender=sender, line=line: line in said(sender),  # type: ignore[misc]  # as above
            "who says something hears it as well, when it comes back from the broker",
            lambda sender=sender, text=text: f"{sender.name} said {text!r}; {heard_by(sender)}",  # type: ignore[misc]  # as above
        )


async def _both_at_once(garam: RoomClient, nuri: RoomClient) -> None:
    for number in range(10):
        await asyncio.gather(garam.send(f"#{number}"), nuri.send(f"#{number}"))
    await asyncio.gather(garam.send("끝"), nuri.send("끝"))

    def has_ended(client: RoomClient) -> bool:
        return {"가람: 끝", "Nuri: 끝"} <= set(said(client))

    await wait_or(
        lambda: has_ended(garam) and has_ended(nuri),
        "every text reaches the members of every server",
        lambda: heard_by(garam, nuri),
        timeout=3,
    )
    for member in (garam, nuri):
        if twice := sorted({line for line in said(member) if said(member).count(line) > 1}):
            raise NotYet(
                "each text is heard once: it comes back from the broker, so nobody else need deliver it",
                f"{member.name} heard {twice[0]!r} {said(member).count(twice[0])} times",
            )
    in_one_order(garam, nuri)


async def _is_gone_when_stopped(stopped: Running, broker: WatchedBroker, its_room: Handler) -> None:
    assert isinstance(its_room, JoinedRoom)
    await stopped.stop()
    published = broker.published
    its_room.outgoing.put_nowait("after the end")
    await asyncio.sleep(0.05)
    if broker.published > published:
        raise NotYet("a bridge that was stopped does nothing any more", "half of yours went on publishing")
    if broker.open != 1:
        raise NotYet(
            "a bridge that was stopped has closed its subscription, or the broker goes on filling it",
            f"one of two bridges was stopped; {broker.open} subscriptions are open",
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
    names = ("server 1", "server 2", "server 3")
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
        async with at_work(*loops, what="the service") as running:
            await soon(lambda: broker.open == len(broker.shares) == 3, running)
            for text in texts:
                await broker.publish(topic, text.encode())
            for name in names:
                await wait_or(
                    lambda name=name: len(screens[name]) >= 12,  # type: ignore[misc]  # mypy cannot infer a lambda's default
                    "every server shows every text",
                    lambda name=name: f"12 texts were published; {name} showed {len(screens[name])} of them",  # type: ignore[misc]  # as above
                )
            await wait_or(
                lambda: len(all_done()) >= 12,
                "the work for each text is done, on one of the servers",
                lambda: f"12 texts were published; {len(set(all_done()))} were worked on",
            )
            await _is_one_group(redis, topic, names, all_done)
            for name in names:
                if screens[name] != texts:
                    raise NotYet("every server shows every text once, in order", f"{name} showed {screens[name]}")


async def _is_one_group(redis: Redis, topic: str, names: Sequence[str], done: Callable[[], list[str]]) -> None:
    """Ask the server itself what groups there are, who is in them, and what they think is still under way."""
    groups = [group["name"] for group in await redis.xinfo_groups(topic)]
    if len(groups) != 1:
        with contextlib.suppress(TimeoutError):
            await until(lambda: len(done()) > 12, timeout=1)
        raise NotYet(
            "the work for each text is done once: all servers are members of one and the same group",
            f"12 texts, {len(done())} pieces of work done; the groups: {', '.join(sorted(groups)) or 'none'}",
        )
    for _ in range(PATIENCE):  # who has just joined may not have asked for anything yet
        if len(consumers := [str(each["name"]) for each in await redis.xinfo_consumers(topic, groups[0])]) == len(
            names
        ):
            break
        await asyncio.sleep(0.01)
    else:
        raise NotYet(
            "each server joins the group under a name of its own, or the group takes them for one",
            f"three servers joined; the group knows {', '.join(consumers)}",
        )
    for _ in range(PATIENCE):
        if not (pending := (await redis.xpending(topic, groups[0]))["pending"]):
            break
        await asyncio.sleep(0.01)
    else:
        raise NotYet(
            "who has done a piece of work acknowledges it, or it is taken to be under way for ever",
            f"all 12 pieces are done; the group says that {pending} are pending",
        )
    if len(done()) != 12:
        raise NotYet("the work for each text is done once", f"12 texts, {len(done())} pieces of work done")


# --- 04.4 ---


async def worker(share: GroupConsumer, work: Work, done: set[str]) -> None:
    async for record in share:
        if record.id not in done:
            try:
                await work(record.body.decode())
            except Exception:
                continue  # not acknowledged, so it comes again
            done.add(record.id)
        await share.ack(record)


class Desk:
    """Where the work of check 04.4 is done: it counts, fails where it is told to, and can stand still."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.begun: list[str] = []
        self.stand_still_at = ""
        self.fail_once_at = ""

    async def work(self, text: str) -> None:
        self.begun.append(text)
        await asyncio.sleep(0)
        if text == self.stand_still_at:
            await asyncio.Event().wait()
        if text == self.fail_once_at and self.begun.count(text) == 1:
            raise ValueError(f"{text} cannot be read")
        self.did.append(text)


class Share:
    """A share of a group's work, as it is; only that an acknowledgement can get stuck on its way."""

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
    for case in (_works, _dies_at_work, _dies_before_it_says_so, _meets_what_fails):
        async with fresh("work") as topic, watched_broker(takeover_after=0.1) as broker, client() as redis:
            await case(answer, broker, topic, redis)


async def _pending(redis: Redis, topic: str) -> list[str]:
    """What the group takes to be under way: the ids."""
    return [str(each["message_id"]) for each in await redis.xpending_range(topic, "workers", "-", "+", 100)]


async def _nothing_pending(redis: Redis, topic: str, rule: str, evidence: Callable[[], str]) -> None:
    for _ in range(PATIENCE):
        if not await _pending(redis, topic):
            return
        await asyncio.sleep(0.01)
    raise NotYet(rule, evidence())


async def _works(answer: Loop, broker: WatchedBroker, topic: str, redis: Redis) -> None:
    desk, done = Desk(), set[str]()
    share = await broker.join(topic, "workers", "worker 1")
    for number in range(5):
        await broker.publish(topic, f"📦 {number}".encode())
    async with at_work(answer(share, desk.work, done), what="the worker"):
        await wait_or(
            lambda: len(set(desk.did)) == 5,
            "the work for every record is done",
            lambda: f"5 records; the work was done for {desk.did}",
        )
        await _nothing_pending(
            redis,
            topic,
            "a record whose work is done is acknowledged, or it comes again for ever",
            lambda: "5 pieces of work are done, and the group still takes some to be under way",
        )
    if len(desk.did) != 5:
        raise NotYet("work that is done is not done again", f"5 records; the work was done for {desk.did}")


async def _dies_at_work(answer: Loop, broker: WatchedBroker, topic: str, redis: Redis) -> None:
    desk, done = Desk(), set[str]()
    desk.stand_still_at = "📦 셋"
    share = await broker.join(topic, "workers", "worker 1")
    ids = {text: await broker.publish(topic, text.encode()) for text in ("📦 하나", "📦 둘", "📦 셋", "📦 넷")}
    async with at_work(answer(share, desk.work, done), what="the worker") as [first]:
        await wait_or(
            lambda: "📦 셋" in desk.begun,
            "the work for every record is begun, in order",
            lambda: f"4 records; the work was begun for {desk.begun}",
        )
        await first.stop()
        await share.aclose()
    if ids["📦 셋"] not in await _pending(redis, topic) or ids["📦 셋"] in done:
        raise NotYet(
            "a record is acknowledged when its work is done, and not before",
            "the worker died while it worked on '📦 셋', which had been acknowledged: nobody will do it now",
        )
    desk.stand_still_at = ""
    heir = await broker.join(topic, "workers", "worker 2")
    async with at_work(answer(heir, desk.work, done), what="the worker"):
        await wait_or(
            lambda: set(desk.did) == set(ids),
            "what a dead worker left undone is done by the next",
            lambda: f"the first died while it worked on '📦 셋'; afterwards {desk.did} are done",
            timeout=3,
        )


async def _dies_before_it_says_so(answer: Loop, broker: WatchedBroker, topic: str, redis: Redis) -> None:
    desk, done = Desk(), set[str]()
    share = Share(await broker.join(topic, "workers", "worker 1"))
    share.stuck_at = "💳 셋"
    for text in ("💳 하나", "💳 둘", "💳 셋"):
        await broker.publish(topic, text.encode())
    async with at_work(answer(share, desk.work, done), what="the worker") as [first]:
        await soon(share.stuck.is_set, [first], timeout=3)
        await first.stop()
        await share.aclose()
    heir = await broker.join(topic, "workers", "worker 2")
    async with at_work(answer(heir, desk.work, done), what="the worker"):
        await _nothing_pending(
            redis,
            topic,
            "a record whose work was done before is acknowledged all the same, or it comes again for ever",
            lambda: f"'💳 셋' was done by a worker that died before it said so; done: {desk.did}, and it is pending",
        )
    if desk.did.count("💳 셋") != 1:
        raise NotYet(
            "work that is done is not done again: note it in `done` before anybody is told, and look there before work",
            f"the worker died after it had done '💳 셋' and before that was acknowledged; done: {desk.did}",
        )


async def _meets_what_fails(answer: Loop, broker: WatchedBroker, topic: str, redis: Redis) -> None:
    desk, done = Desk(), set[str]()
    desk.fail_once_at = "💥"
    share = await broker.join(topic, "workers", "worker 1")
    ids = {text: await broker.publish(topic, text.encode()) for text in ("하나", "💥", "셋")}
    running = Running(answer(share, desk.work, done), "the worker")
    try:
        await soon(lambda: "셋" in desk.did, [running])
        if running.task.done() or "셋" not in desk.did:
            raise NotYet(
                "a piece of work that fails does not end the worker: the next one is waiting",
                f"the work for '💥' raised an error; done: {desk.did}, of {list(ids)}",
            )
        await wait_or(
            lambda: "💥" in desk.did,
            "a piece of work that failed comes again, for it was neither done nor acknowledged",
            lambda: f"the work for '💥' raised an error, the first time; it was never tried again; done: {desk.did}",
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
    """One of the two servers of check 04.5: its room and its place in the stream last, its bridge comes and goes."""

    def __init__(self, answer: Loop, server: room.RoomServer, broker: WatchedBroker, topic: str) -> None:
        assert isinstance(server.room, RoomWithOutbox)
        self.url, self.room, self.broker = server.url, server.room, broker
        self.place = {"last": BEGINNING}
        self._answer, self._topic = answer, topic
        self.start()

    def start(self) -> None:
        """A new bridge, that finds the room, the outbox and the place as the last one left them."""
        self.bridge = Running(self._answer(self.room, self.broker, self._topic, self.place), "the bridge")

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
        await _two_talk(garam, nuri)
        await _notes_its_place_at_once(topic, theirs)
        await _one_is_away(theirs, garam, nuri)
        await _stops_before_the_engine_has_it(theirs, garam, nuri)
        await _stops_before_the_confirmation(theirs, garam, nuri)
        await _stops_at_any_moment(theirs, garam, nuri)


async def _notes_its_place_at_once(topic: str, half: Half) -> None:
    async with client() as redis:
        newest = str((await redis.xinfo_stream(topic))["last-generated-id"])
    await wait_or(
        lambda: half.place["last"] == newest,
        "the place is noted with each record that was delivered: a crash leaves no time for it",
        lambda: f"the last record has the id {newest}, and place is {half.place}",
    )


async def _one_is_away(half: Half, garam: RoomClient, nuri: RoomClient) -> None:
    await half.stop()
    for text in ("하나", "둘", "셋 🥁"):
        await garam.send(text)
    await nuri.send("저는 아직 있어요")
    await wait_or(
        lambda: "가람: 셋 🥁" in said(garam),
        "one server's bridge does not wait for the other's",
        lambda: heard_by(garam),
    )
    half.start()
    await wait_or(
        lambda: {"가람: 하나", "가람: 둘", "가람: 셋 🥁"} <= set(said(nuri)),
        "what was said while a bridge was stopped is delivered when it is back",
        lambda: f"Nuri's bridge was stopped, 가람 said 하나, 둘, 셋 🥁, the bridge came back; {heard_by(nuri)}",
    )
    await wait_or(
        lambda: "Nuri: 저는 아직 있어요" in said(garam),
        "what waits in the outbox while a bridge is stopped is published when it is back",
        lambda: f"{len(half.room.outbox)} lines wait in the outbox; {heard_by(garam)}",
    )
    _nothing_twice("a bridge that comes back goes on after the last record it delivered: nothing comes again", nuri)


async def _stops_before_the_engine_has_it(half: Half, garam: RoomClient, nuri: RoomClient) -> None:
    await _stops_in_the_middle(half, nuri, "before", "안 사라졌죠?")
    await wait_or(
        lambda: "Nuri: 안 사라졌죠?" in said(garam),
        "a line leaves the outbox when the broker has confirmed it, and not before",
        lambda: (
            f"the bridge was stopped while it published '안 사라졌죠?', and came back; "
            f"{len(half.room.outbox)} lines wait in the outbox; {heard_by(garam)}"
        ),
    )


async def _stops_before_the_confirmation(half: Half, garam: RoomClient, nuri: RoomClient) -> None:
    await _stops_in_the_middle(half, nuri, "after", "한 번만!")
    await nuri.send("들었어요?")
    await wait_or(
        lambda: "Nuri: 들었어요?" in said(garam) and "Nuri: 들었어요?" in said(nuri),
        "a line leaves the outbox when it is confirmed, also if that was at the second try",
        lambda: f"{len(half.room.outbox)} lines wait in the outbox; {heard_by(garam)}",
    )
    _nothing_twice(
        "a line that the engine had when its confirmation was lost is not added again: its key is the same", garam, nuri
    )


async def _stops_in_the_middle(half: Half, nuri: RoomClient, moment: Moment, text: str) -> None:
    half.broker.stand_still(moment)
    await nuri.send(text)
    await wait_or(
        half.broker.standing.is_set,
        "what a member says is taken from the outbox to the broker",
        lambda: f"Nuri said {text!r}; {len(half.room.outbox)} lines wait in the outbox, and nothing was published",
    )
    await half.stop()
    half.start()


async def _stops_at_any_moment(half: Half, garam: RoomClient, nuri: RoomClient) -> None:
    for number in range(16):
        await asyncio.gather(*(each.send(f"#{number}.{part}") for part in range(3) for each in (garam, nuri)))
        for _ in range(number % 8):
            await asyncio.sleep(0.0005)
        await half.stop()
        half.start()
    await asyncio.gather(garam.send("끝"), nuri.send("끝"))
    wanted = {f"{who}: #{number}.{part}" for who in ("가람", "Nuri") for number in range(16) for part in range(3)}
    wanted |= {"가람: 끝", "Nuri: 끝"}
    await wait_or(
        lambda: wanted <= set(said(garam)) and wanted <= set(said(nuri)),
        "however often a bridge is stopped and comes back, nothing is lost",
        lambda: "\n".join(f"{each.name} never heard {sorted(wanted - set(said(each)))[:5]}" for each in (garam, nuri)),
        timeout=4,
    )
    _nothing_twice("however often a bridge is stopped and comes back, nothing comes twice", garam, nuri)
    in_one_order(garam, nuri)


def _nothing_twice(rule: str, *clients: RoomClient) -> None:
    for each in clients:
        if twice := [line for line in dict.fromkeys(said(each)) if said(each).count(line) > 1]:
            raise NotYet(rule, f"{each.name} heard {twice[0]!r} {said(each).count(twice[0])} times")


EXERCISES = [
    Exercise(
        "04.1",
        "What a reader has missed",
        check_missed,
        (
            "Go through what is kept and take the texts whose id comes after the last one. Somebody who was never here "
            "has no last one: give an empty list.",
            "Do not look for the last id in the list: it may be gone. Compare. But '10' comes before '9' when texts "
            "are compared; an id is two numbers with a hyphen between them.",
            "Make a list of numbers of an id, [int(part) for part in id.split('-')]: lists of numbers compare as you "
            "need it. Then: [text for id, text in kept if numbers(id) > numbers(last)].",
        ),
        missed,
        "A place in a stream is nothing but an id, and reading on is a comparison. Nobody has to remember who was "
        "away: the reader says where it was. Redis compares ids in the same way when it is asked for what comes after.",
    ),
    Exercise(
        "04.2",
        "A bridge between two servers",
        check_bridge,
        (
            "Two loops that never end have to run at the same time: one takes from `room.outgoing` and publishes, the "
            "other reads from the broker and delivers. Do not deliver what you take from `outgoing` yourself: it comes "
            "back from the broker.",
            "The loops are the lesson's `speak` and `hear`: write them as inner functions, `async def speak():` and "
            "`async def hear(subscription):`. Lines are text, records are bytes: `await broker.publish(topic, "
            "line.encode())` in the one, `room.deliver(record.body.decode())` in the other.",
            "`aclosing` closes the subscription when the bridge is stopped, and a TaskGroup ends both loops together:\n"
            "    from contextlib import aclosing\n"
            "    async with aclosing(await broker.subscribe(topic)) as subscription:\n"
            "        async with asyncio.TaskGroup() as both:\n"
            "            both.create_task(speak())\n"
            "            both.create_task(hear(subscription))",
        ),
        bridge,
        "One way for every text, out to the broker and back: so it comes once, and in one order for all. The two loops "
        "begin and end together, because a bridge of which half is missing is worse than none: nobody notices.",
    ),
    Exercise(
        "04.3",
        "Everybody shows it, one does the work",
        check_service,
        (
            "Two kinds of reading: a subscription gets everything, a member of a group gets its share. Here each "
            "server needs one of each, on the same topic, at the same time.",
            "One loop over `await broker.subscribe(topic)`, which calls `show`. Another over `share = await broker."
            "join(topic, group, member)`, which awaits `work` and then `share.ack(record)`. The group's name is the "
            "same on all servers, the member's name is not.",
            "Write the loops as two inner functions and run both with `await asyncio.gather(show_all(), "
            "do_a_share())`. A record's text is `record.body.decode()`. The second one:\n"
            "    async def do_a_share():\n"
            "        share = await broker.join(topic, 'workers', name)\n"
            "        async for record in share:\n"
            "            await work(record.body.decode())\n"
            "            await share.ack(record)",
        ),
        service,
        "The article's code has only the second kind of reading, and so its conversation is torn in pieces (fault F1). "
        "With only the first, three servers would send three notifications for one text.",
    ),
    Exercise(
        "04.4",
        "A worker that may die",
        check_worker,
        (
            "Work first, then `await share.ack(record)`: what is not acknowledged comes again, to another if need be. "
            "An error in the work must not end the loop, and what failed must not be acknowledged.",
            "At least once can be twice: a worker may die when the work is done and the acknowledgement is not. So "
            "write `done.add(record.id)` after the work, before the acknowledgement; and skip the work, but not "
            "the acknowledgement, for a record that is in `done`.",
            "The loop, but for its last line, which is for all records: `await share.ack(record)`.\n"
            "    async for record in share:\n"
            "        if record.id not in done:\n"
            "            try:\n"
            "                await work(record.body.decode())\n"
            "            except Exception:\n"
            "                continue\n"
            "            done.add(record.id)",
        ),
        worker,
        "Before the work is too early to acknowledge, and after it there is always a moment in which the worker may "
        "die. So a record can come twice, and it is the worker who has to know it. `done` is a set here; in a real "
        "service it is a table, written in the same transaction as the work itself.",
    ),
    Exercise(
        "04.5",
        "A bridge that loses nothing and repeats nothing",
        check_lasting_bridge,
        (
            "Begin with your bridge of 04.2. To read on where the last bridge stopped, subscribe with "
            "`after=place['last']`, and note `place['last'] = record.id` as soon as a record is delivered.",
            "The other half: `key, line = await room.outbox.first()` leaves the line in the box. Take it out with "
            "`room.outbox.remove(key)` only when the broker has confirmed it. Then nothing is lost; but if the bridge "
            "stops in between, the next one publishes the line again.",
            "`await broker.publish_once(topic, line.encode(), key)` adds a record only if there was none under this "
            "key. So speak is `first`, `publish_once`, `remove`, in an endless loop, and the other loop is\n"
            "    async for record in subscription:\n"
            "        room.deliver(record.body.decode())\n"
            "        place['last'] = record.id\n"
            "with no `await` between the two lines, at which it could be stopped.",
        ),
        lasting_bridge,
        "Each half keeps something that outlives it, and lets go of it only when the other side has it: the outbox its "
        "line until the confirmation, the place its id until the delivery. Trying again makes sure that nothing is "
        "lost, the key and the id make sure that nothing comes twice. This is what is meant by 'exactly once', and "
        "chatlab's own chat does it so.",
    ),
]
