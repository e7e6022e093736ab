"""Lesson 04's experiments on real processes and a real Redis, and the verdicts that follow from them.

`load` measures the processor time of each server, `cut_and_come_back` a client that loses its connection, `burst` and
`killed` a program that has more work than it can do at once, `beside` a chat before and after other services join it.
The verdicts, `c18` to `c22`, are computed from what these return. Times are in seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice

from redis.asyncio import Redis
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from chatlab.brokers.port import Broker
from chatlab.lab.claims import Figure, Verdict, verdict
from chatlab.lab.clients import RoomClient
from chatlab.lab.engines.cluster import Cluster
from chatlab.lab.experiments.lesson03 import cancel, number_in, open_member
from chatlab.lab.experiments.processes.processor import processor_seconds
from chatlab.lab.experiments.processes.program import Function, Program
from chatlab.lab.experiments.repeats import Repeats
from chatlab.lab.runtime import lab
from chatlab.lab.until import until
from chatlab.lab.wire.wire import Wire
from chatlab.locale import _

__all__ = [
    "Beside",
    "Burst",
    "Killed",
    "Load",
    "Return",
    "beside",
    "burst",
    "c18",
    "c19",
    "c20",
    "c21",
    "c22",
    "cut_and_come_back",
    "fresh",
    "greet",
    "killed",
    "load",
    "send_in_turn",
    "three_servers",
]

Handler = Callable[[ServerConnection], Awaitable[None]]

PROBE_SECONDS = 0.05  # between two attempts to reach a client that may not be subscribed yet
QUIET_SECONDS = 0.3  # without anything new: nothing more will come
PATIENCE = 10.0
WARM_UP = 6  # messages


def fresh(name: str) -> str:
    """Return a name for a topic that nobody has used before: a cell that runs again starts with an empty one."""
    return f"{name}-{uuid.uuid4().hex[:6]}"


_servers: list[Cluster] = []  # those of an earlier section, if any


async def three_servers(broker: str) -> Cluster:
    """Return the three servers of a room that an earlier section started, if all are alive; else start them."""
    for cluster in _servers:
        if all(instance.alive for instance in cluster.instances):
            return cluster
    cluster = Cluster(broker, 3, serve="room")
    _servers[:] = [await lab.start("three servers", cluster.start())]  # not shown: a name
    return _servers[0]


# --- The work of each server ---


@dataclass(frozen=True)
class Load:
    """What one message costs each server of a room, in seconds of processor time, once for each repeat.

    `members` are spread over the first `spread` servers; the others have none.
    """

    members: int
    spread: int
    costs: tuple[tuple[float, ...], ...]

    @property
    def busiest(self) -> Repeats:
        """The cost to the server that works most."""
        return Repeats(tuple(max(each) for each in self.costs))

    @property
    def without_members(self) -> Repeats | None:
        """The cost to a server that has no members, on average; None if each has some."""
        idle = [each[self.spread :] for each in self.costs]
        return Repeats(tuple(sum(each) / len(each) for each in idle)) if idle[0] else None


async def load(cluster: Cluster, members: int, *, spread: int, messages: int = 15, repeats: int = 3) -> Load:
    """Spread members over the first servers of a cluster; they speak in turn, and each message waits for the last.

    The cost of a message is the processor time that each server used meanwhile, divided by the number of messages.
    """
    pids = [instance.pid for instance in cluster.instances if instance.pid]
    urls = islice(cycle(cluster.urls[:spread]), members)
    costs = []
    async with contextlib.AsyncExitStack() as stack:
        everybody = [await stack.enter_async_context(open_member(url)) for url in urls]
        await send_in_turn(everybody, WARM_UP)  # the first messages cost more: nothing is cached yet
        for __ in range(repeats):
            before = [processor_seconds(pid) for pid in pids]
            await send_in_turn(everybody, messages)
            after = [processor_seconds(pid) for pid in pids]
            costs.append(tuple((end - start) / messages for start, end in zip(before, after, strict=True)))
    return Load(members, spread, tuple(costs))


async def send_in_turn(everybody: Sequence[ClientConnection], messages: int, *, quiet: float = 0) -> int:
    """Let members send numbered messages, one after another, each when all have the one before.

    Wait until nothing has come for `quiet` seconds, and return how many lines the first member received.
    """
    lines = missing = current = 0
    all_have_it = asyncio.Event()

    async def read(member: ClientConnection) -> None:
        nonlocal lines, missing
        async for line in member:
            lines += member is everybody[0]
            missing -= number_in(str(line)) == current
            if not missing:
                all_have_it.set()

    readers = [asyncio.create_task(read(member)) for member in everybody]
    try:
        async with asyncio.timeout(60):
            for current in range(messages):  # `read` compares with it
                missing = len(everybody)
                all_have_it.clear()
                await everybody[current % len(everybody)].send(f"#{current} @Nuri")
                await all_have_it.wait()
        await _until_quiet(lambda: lines, quiet)
    finally:
        await cancel(readers)
    return lines


async def _until_quiet(count: Callable[[], int], seconds: float) -> None:
    """Wait until `count()` has stayed the same for some time."""
    since, last = time.monotonic(), count()
    while time.monotonic() - since < seconds:
        await asyncio.sleep(0.01)
        if count() != last:
            since, last = time.monotonic(), count()


# --- A client that is cut off ---


@dataclass(frozen=True)
class Return:
    """The messages a client received before it was cut off, those published meanwhile, and those it received after."""

    before: list[str]
    away: list[str]
    back: list[str]
    again: Callable[[], Awaitable[Return]] | None = field(default=None, compare=False)  # runs it once more

    @property
    def missed(self) -> list[str]:
        """The messages that were published while it was away and never reached it."""
        return [text for text in self.away if text not in self.back]


class _Listener:
    """A client that reads lines of the form `ID TEXT`, and sends the last id when it reconnects."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.last = ""

    async def connect(self) -> None:
        query = f"?after={self.last}" if self.last else ""
        self._connection = await connect(self.url + query, proxy=None)

    async def read(self) -> str:
        identifier, _space, text = str(await self._connection.recv()).partition(" ")
        self.last = identifier
        return text

    async def read_until(self, text: str) -> list[str]:
        received: list[str] = []
        while not received or received[-1] != text:
            received.append(await self.read())
        return received

    async def cut_off(self) -> None:
        """Wait until the client has noticed that its connection is cut."""
        await self._connection.wait_closed()

    def drop(self) -> None:
        self._connection.transport.abort()

    def forget(self) -> None:
        """Forget the last id."""
        self.last = ""


async def cut_and_come_back(
    handler: Handler, broker: Broker, topic: str, *, before: Sequence[str], away: Sequence[str], remembers: bool = True
) -> Return:
    """Publish `before` to a client, cut its connection, publish `away`, and let the client connect again.

    `handler` sends a client the messages of `topic` as lines `ID TEXT`; a client that `remembers` comes back with the
    last id it saw. A wire between the two cuts the connection.
    """
    async with asyncio.timeout(PATIENCE), _serving(handler) as url, Wire(url) as wire:
        client = _Listener(wire.url)
        await client.connect()
        await _publish_until_received(broker, topic, client, "are you there?")  # not shown: a probe
        received = await _publish_and_read(broker, topic, before, client)
        wire.cut()
        await client.cut_off()
        await _publish_past_everybody(broker, topic, away)
        if not remembers:
            client.forget()
        await client.connect()
        back = await _publish_until_received(broker, topic, client, "are you back?")  # not shown: a probe
        client.drop()

    async def again() -> Return:
        return await cut_and_come_back(handler, broker, topic, before=before, away=away, remembers=remembers)

    return Return(received, list(away), back, again)


@contextlib.asynccontextmanager
async def _serving(handler: Handler) -> AsyncIterator[str]:
    """Serve connections with `handler` until they are closed; yield the address."""

    async def while_open(session: ServerConnection) -> None:
        serving = asyncio.ensure_future(handler(session))
        await session.wait_closed()
        await cancel([serving])

    async with serve(while_open, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def _publish_past_everybody(broker: Broker, topic: str, texts: Sequence[str]) -> None:
    """Publish texts, and wait until the broker has delivered the last: whoever subscribes now comes too late for it.

    Without that, a text of Pub/Sub may still be on its way to this process, and reach a new subscriber.
    """
    watcher = await broker.subscribe(topic)
    for text in texts:
        await broker.publish(topic, text.encode())
    while texts and texts[-1].encode() not in [record.body for record in await watcher.batch()]:
        pass
    await watcher.aclose()


async def _publish_and_read(broker: Broker, topic: str, texts: Sequence[str], client: _Listener) -> list[str]:
    for text in texts:
        await broker.publish(topic, text.encode())
    return [text for text in await client.read_until(texts[-1]) if text in texts]


async def _publish_until_received(broker: Broker, topic: str, client: _Listener, text: str) -> list[str]:
    """Publish `text` repeatedly until the client has received it; return the texts it received before."""
    reading = asyncio.create_task(client.read_until(text))
    while not reading.done():
        await broker.publish(topic, text.encode())
        await asyncio.wait([reading], timeout=PROBE_SECONDS)
    return reading.result()[:-1]


# --- Work that waits ---

WAYS = "in line", "in a queue", "behind a broker"  # not shown: keys, as the lesson's cells name them
WORK = "work"  # the topic that the lesson's functions name
TAKEN = "taken: "
DONE = "done "


@dataclass(frozen=True)
class Burst:
    """A burst of messages: the times at which each was answered, and at which each was done, since it was sent."""

    answered: tuple[float, ...]
    done: tuple[float, ...]


@dataclass(frozen=True)
class Killed:
    """The numbers of the messages that a program answered before it was killed, and of those done before and after."""

    answered: frozenset[int]
    before: frozenset[int]
    after: frozenset[int]

    @property
    def lost(self) -> frozenset[int]:
        """The messages that were answered, and whose work nobody ever did."""
        return self.answered - self.before - self.after


async def burst(broker: str, *functions: Function, messages: int = 40) -> Burst:
    """Run the functions as a program, send it messages all at once, and note when each is answered, and done."""
    async with _program(broker, functions) as program, open_member(program.url) as sender:
        began = time.monotonic()
        waiting = asyncio.create_task(_when_done(program, messages))
        for number in range(messages):
            await sender.send(f"#{number} ")
        answered = [await _next_answer(sender) for __ in range(messages)]
        async with asyncio.timeout(PATIENCE + messages):
            done = await waiting
    return Burst(tuple(at - began for at in answered), tuple(at - began for at in done))


async def _next_answer(sender: ClientConnection) -> float:
    async with asyncio.timeout(PATIENCE):
        await sender.recv()
    return time.monotonic()


async def _when_done(program: Program, messages: int) -> list[float]:
    """Return the moment at which each of `messages` was done, as the program's output told."""
    moments: list[float] = []
    while len(moments) < messages:
        await asyncio.sleep(0.002)
        moments += [time.monotonic()] * (len(_done(program)) - len(moments))
    return moments


async def killed(broker: str, *functions: Function, messages: int = 40, after: int = 10) -> Killed:
    """Send messages all at once to the functions' program, kill it when `after` are done, and start it again."""
    async with _program(broker, functions) as program:
        async with open_member(program.url) as sender:
            for number in range(messages):
                await sender.send(f"#{number} ")
            await until(lambda: len(_done(program)) >= after, every=0.001, timeout=PATIENCE)
            program.kill()
            answers = await _all_that_came(sender)
        before = len(_done(program))
        await program.restart()
        answered = frozenset(_number(answer, TAKEN) for answer in answers)
        await _until_quiet(lambda: len(_done(program)), seconds=1.0)
        done = _done(program)
    return Killed(answered, frozenset(done[:before]), frozenset(done[before:]))


async def _all_that_came(connection: ClientConnection) -> list[str]:
    """Return what was received until the connection ended, however it ended."""
    received: list[str] = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            received.append(str(await connection.recv()))
    return received


@contextlib.asynccontextmanager
async def _program(broker: str, functions: Sequence[Function]) -> AsyncIterator[Program]:
    """Run the functions as a program whose topic is empty; name its last output if it is waited for in vain."""
    async with Redis.from_url(broker) as keys:
        await keys.delete(WORK)
    async with Program(broker, *functions) as program:
        try:
            yield program
        except TimeoutError as late:
            late.add_note("\n".join([_("The program has printed:"), *program.printed[-12:]]))
            raise


def _done(program: Program) -> list[int]:
    return [_number(line, DONE) for line in program.printed if line.startswith(DONE)]


def _number(line: str, prefix: str) -> int:
    return int(line.removeprefix(prefix).strip().removeprefix("#"))


# --- A service that joins ---


@dataclass(frozen=True)
class Beside:
    """A chat before and after services joined it: the cost of a message, the processes, and what members received.

    `sent` messages were sent before they joined, and as many after; `received` are the lines that one member received.
    """

    sent: int
    received: tuple[int, int]
    processes: tuple[tuple[int | None, ...], tuple[int | None, ...]]
    costs: tuple[Repeats, Repeats]
    printed: Mapping[str, Sequence[str]]
    again: Callable[[], Awaitable[Beside]] | None = field(default=None, compare=False)

    @property
    def ratio(self) -> Repeats:
        """The cost of a message with the services, as a multiple of that without them."""
        return self.costs[1] / self.costs[0]

    @property
    def extra(self) -> int:
        """The lines that a member received although no member had sent them."""
        return sum(self.received) - 2 * self.sent

    @property
    def untouched(self) -> bool:
        """Whether the chat's processes are those that ran before."""
        return self.processes[0] == self.processes[1]


async def beside(cluster: Cluster, broker: str, *services: Function, messages: int = 100, repeats: int = 3) -> Beside:
    """Let a member on each server of a chat talk, before and after each service has started as a program beside it."""
    async with contextlib.AsyncExitStack() as stack:
        everybody = [await stack.enter_async_context(open_member(url)) for url in cluster.urls]
        pids_before = tuple(instance.pid for instance in cluster.instances)
        lines_before, cost_before = await _talk(cluster, everybody, messages, repeats)
        programs = [await stack.enter_async_context(Program(broker, service)) for service in services]
        lines_after, cost_after = await _talk(cluster, everybody, messages, repeats)
        pids_after = tuple(instance.pid for instance in cluster.instances)
        printed = {program.name: program.printed for program in programs}

    async def again() -> Beside:
        return await beside(cluster, broker, *services, messages=messages, repeats=repeats)

    sent = messages * repeats
    lines, costs = (lines_before, lines_after), (cost_before, cost_after)
    return Beside(sent, lines, (pids_before, pids_after), costs, printed, again)


async def _talk(
    cluster: Cluster, everybody: Sequence[ClientConnection], messages: int, repeats: int
) -> tuple[int, Repeats]:
    """Return the lines that the first member received, and what a message cost the busiest server in each repeat."""
    pids = [instance.pid for instance in cluster.instances if instance.pid]
    lines, costs = 0, []
    await send_in_turn(everybody, WARM_UP, quiet=QUIET_SECONDS)  # as in `load`
    for __ in range(repeats):
        before = [processor_seconds(pid) for pid in pids]
        lines += await send_in_turn(everybody, messages, quiet=QUIET_SECONDS)
        spent = [processor_seconds(pid) - start for pid, start in zip(pids, before, strict=True)]
        costs.append(max(spent) / messages)
    return lines, Repeats(tuple(costs))


# --- A greeting from every server ---


async def greet(members: Sequence[RoomClient], greeting: str, *, seconds: float = 3.0) -> list[list[str]]:
    """Let every member say the greeting with its name, at once; return the greetings that each received, in order."""
    said = [f"{greeting} {member.name}" for member in members]
    await asyncio.gather(*(member.send(text) for member, text in zip(members, said, strict=True)))

    def received(member: RoomClient) -> list[str]:
        return [text for line in member.received for text in said if line.endswith(f": {text}")]

    with contextlib.suppress(TimeoutError):
        await until(lambda: all(len(received(member)) >= len(said) for member in members), timeout=seconds)
    return [received(member) for member in members]


# --- The verdicts ---

CLIMBS = 1.3  # times the cost with the fewest members: then it has climbed
EASES = 0.9  # of the cost on one server: with more, nothing is gained
QUICK = 0.5  # of the wait in line
UNDISTURBED = 1.5  # times the cost of a message without the services


def c18(runs: Mapping[int, Sequence[Load]], cluster: Cluster | None = None) -> Verdict:
    """Judge whether the load climbs with the members, and whether more servers share it: the loads by their number."""
    alone, shared = runs[min(runs)], runs[max(runs)]
    climbs = alone[-1].busiest.median > CLIMBS * alone[0].busiest.median
    ratio = shared[-1].busiest / alone[-1].busiest
    uneven = ratio.median > 1.2 / max(runs)
    idle = alone[-1].without_members

    async def again() -> Verdict:
        assert cluster is not None
        corners = {
            count: [await load(cluster, each.members, spread=count) for each in (run[0], run[-1])]
            for count, run in ((min(runs), alone), (max(runs), shared))
        }
        return c18(corners, cluster)

    return verdict(
        "C18",
        holds=climbs and ratio.median < EASES,
        when=_("members are many: each server still takes every message from the broker") if uneven else "",
        because=_("more servers did not ease it") if climbs else _("the load did not climb with the members"),
        measured=_("a message to {members} members: {costs}; to a server without members {idle:.2f} ms").format(
            members=alone[-1].members,
            costs=", ".join(
                _("{ms:.2f} ms on {count}").format(ms=run[-1].busiest.median * 1000, count=count)
                for count, run in runs.items()
            ),
            idle=idle.median * 1000 if idle else 0.0,
        ),
        figure=Figure(
            _("work of the busiest of {count} servers / of one server").format(count=max(runs)),
            ratio.median,
            EASES,
            at_least=False,
            low=ratio.low,
            high=ratio.high,
        ),
        again=again if cluster else None,
    )


def c19(heard: Sequence[Sequence[str]], members: Sequence[RoomClient] = ()) -> Verdict:
    """Judge whether every member received every greeting, whichever server it was sent to, and in one order."""
    complete = [texts for texts in heard if len(texts) == len(heard) and texts == heard[0]]

    async def again() -> Verdict:
        return c19(await greet(members, _("hello again {time:.0f} from").format(time=time.time())), members)

    return verdict(
        "C19",
        holds=len(complete) == len(heard),
        because=_("a member missed a message, or saw another order"),
        measured=_("of {count} greetings the members received {received}").format(
            count=len(heard), received=", ".join(str(len(texts)) for texts in heard)
        ),
        figure=Figure(_("members that received all of them, in the same order"), len(complete), len(heard)),
        again=again if members else None,
    )


def c20(forgetting: Return, unnamed: Return, kept: Return) -> Verdict:
    """Judge what a client missed: with a broker that forgets, without its last id, and with both the right way."""
    runs = forgetting, unnamed, kept
    conditions = {
        (True, True): _("the broker keeps messages, and the client says which one it saw last"),
        (True, False): _("the broker keeps messages"),
        (False, True): _("the client says which message it saw last"),
    }
    measured = _("missed of {count}: {forgetting} with Pub/Sub; with Streams {unnamed} without an id, {kept} with one")

    async def again() -> Verdict:
        return c20(*[await run.again() for run in runs if run.again])

    return verdict(
        "C20",
        holds=bool(forgetting.missed) and not kept.missed,
        when=conditions.get((bool(forgetting.missed), bool(unnamed.missed)), ""),
        because=_("messages went missing for good") if kept.missed else _("a dropped connection lost nothing"),
        measured=measured.format(
            count=len(kept.away),
            forgetting=len(forgetting.missed),
            unnamed=len(unnamed.missed),
            kept=len(kept.missed),
        ),
        figure=Figure(_("messages missed with Streams and an id"), len(kept.missed), 0, at_least=False),
        again=again if all(run.again for run in runs) else None,
    )


def c21(
    bursts: Mapping[str, Burst],
    kills: Mapping[str, Killed],
    ways: Mapping[str, Sequence[Function]] | None = None,
    broker: str = "",
) -> Verdict:
    """Judge three ways to take work: "in line", "in a queue" of the process, "behind a broker".

    With the functions of each, and a broker's URL, the card can run it again.
    """
    if not all(way in bursts and way in kills for way in WAYS):
        return verdict("C21", holds=None, measured="", because=_("not all three ways were tried"))
    in_line, behind = bursts[WAYS[0]], bursts[WAYS[2]]
    in_a_queue, safe = kills[WAYS[1]], kills[WAYS[2]]
    ratio = behind.answered[-1] / in_line.answered[-1]
    elsewhere = _("the work waits in the broker: a queue in the process loses it when the process dies")

    async def again() -> Verdict:
        assert ways is not None
        anew = {way: await burst(broker, *ways[way], messages=len(bursts[way].answered)) for way in WAYS}
        return c21(anew, {way: await killed(broker, *ways[way]) for way in WAYS}, ways, broker)

    return verdict(
        "C21",
        holds=ratio < QUICK and not safe.lost,
        when=elsewhere if in_a_queue.lost else "",
        because=_("work that was answered got lost") if safe.lost else _("the answers took about as long as the work"),
        measured="\n".join(_told(way, bursts[way], kills[way]) for way in WAYS),
        figure=Figure(_("last answer behind the broker / in line"), ratio, QUICK, at_least=False),
        again=again if ways and broker else None,
    )


def _told(way: str, run: Burst, kill: Killed) -> str:
    """Say what was measured of one way to take work, in one line."""
    told = _("{way}: last answer after {answered:.0f} ms, all done after {done:.0f} ms; lost: {lost} of {all}")
    return told.format(
        way=way,
        answered=run.answered[-1] * 1000,
        done=run.done[-1] * 1000,
        lost=len(kill.lost),
        all=len(kill.answered),
    )


def c22(reading: Beside, writing: Beside) -> Verdict:
    """Judge whether services joined without touching the chat: services that read, and one that also writes."""
    heard = all(len(lines) >= reading.sent for lines in reading.printed.values())
    quiet = reading.untouched and not reading.extra
    ratio = reading.ratio
    only_readers = _("they only read: what a service writes to the topic, every member receives")
    disturbed = _("the chat worked harder, or its members received other lines")

    async def again() -> Verdict:
        return c22(*[await run.again() for run in (reading, writing) if run.again])

    return verdict(
        "C22",
        holds=quiet and heard and ratio.median <= UNDISTURBED,
        when=only_readers if writing.extra else "",
        because=disturbed if heard else _("a service heard nothing"),
        measured=_(
            "same processes: {same}; a message cost {before:.2f} ms, then {after:.2f} ms; lines that no member had "
            "sent: {extra}, with a service that writes: {written}"
        ).format(
            same=_("yes") if reading.untouched else _("no"),
            before=reading.costs[0].median * 1000,
            after=reading.costs[1].median * 1000,
            extra=reading.extra,
            written=writing.extra,
        ),
        figure=Figure(
            _("the chat's work for a message, with the services / without"),
            ratio.median,
            UNDISTURBED,
            at_least=False,
            low=ratio.low,
            high=ratio.high,
        ),
        again=again if reading.again and writing.again else None,
    )
