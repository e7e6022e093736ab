"""Lesson 07's experiments: what happens to messages in the article's build and in the fixed one.

The chats are real, on a real Redis; the members are `StompMember`s. Times are in seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import psutil
from aiohttp import ClientSession, ClientTimeout
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import ResponseError
from websockets.asyncio.client import connect

from chatlab.brokers.redis.connections.url import in_database
from chatlab.chat.article import java
from chatlab.lab.clients import StompMember
from chatlab.lab.engines.cluster import Cluster, Instance
from chatlab.lab.ledger import Ledger, ledger, ledger_of, said
from chatlab.lab.until import until
from chatlab.lab.wire.decode import Event
from chatlab.lab.wire.trace import Events, Trace
from chatlab.lab.wire.wire import Wire
from chatlab.locale import _

__all__ = [
    "Burst",
    "Database",
    "Ledger",
    "Share",
    "answers_to_mistakes",
    "asked",
    "bodies",
    "burst",
    "chat_record",
    "database",
    "delays",
    "grown",
    "java_record",
    "ledger",
    "ledger_of",
    "load",
    "member",
    "memory_of",
    "missed_while_away",
    "new_stream",
    "newest",
    "put_as_java",
    "reads_after",
    "reads_after_a_pause",
    "record_of_two",
    "said",
    "say_twenty",
    "shown_beside_a_foreign_record",
    "stored_before_receipt",
    "talk_while",
    "way_of_one_message",
    "wire",
]


async def member(
    url: str, name: str, *, room: str = "public", receipts: bool = True, last_id: str | None = None
) -> StompMember:
    """Connect a member, who has missed what came after `last_id`. Spring's simple broker sends no `receipts`."""
    missed = {} if last_id is None else {"last-id": last_id}
    client = StompMember(url, name, room=room, receipts=receipts, subscribe=missed)
    await client.connect()
    if not receipts:
        await _subscribed(client)
    return client


async def _subscribed(client: StompMember, *, times: int = 40) -> None:
    """Wait until Spring's simple broker has taken in what a client has sent so far.

    It confirms no SUBSCRIBE, but passes on what a client sends to a topic: what comes back on a later subscription has
    overtaken nothing.
    """
    topic = f"/topic/ready.{uuid.uuid4().hex}"
    ready = await client.stomp.subscribe(topic, receipt=False)
    for _turn in range(times):
        await client.stomp.send(topic, b"", receipt=False)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await anext(ready)
                return
    raise TimeoutError(f"{client.name} is not subscribed")  # not shown: a bug


def bodies(client: StompMember) -> list[str]:
    """Return the bodies of the messages that a member received, as they came."""
    return [message.body.decode() for message in client.messages]


def asked(trace: Trace, word: str) -> str:
    """Return the first command to Redis in a trace, or the first reply, that contains `word`; "" if there is none."""
    return next((event.summary for event in trace.filter(layer="redis") if word in event.summary), "")


@dataclass(frozen=True, slots=True)
class Database:
    """One of the numbered databases of a Redis, which share nothing: its URL, and a client."""

    url: str
    redis: Redis

    async def aclose(self) -> None:
        """Close the client; the data stays."""
        await self.redis.aclose()


CONNECTIONS = 50  # per client; when all are in use, a command waits for one to become free
SECONDS_FOR_A_CONNECTION = 20  # before such a command fails


async def database(redis_url: str, number: int, *, group: str = "") -> Database:
    """Return a database without the chat's stream; with `group`, with an empty stream that has that group."""
    url = in_database(redis_url, number)
    pool = BlockingConnectionPool.from_url(url, max_connections=CONNECTIONS, timeout=SECONDS_FOR_A_CONNECTION)
    redis = Redis.from_pool(pool)
    await redis.delete("chat-stream")
    if group:
        await new_stream(redis, group)
    return Database(url, redis)


async def new_stream(redis: Redis, group: str) -> None:
    """Delete the stream, and make it anew, empty, with a group that starts at its first record."""
    await redis.delete("chat-stream")
    await redis.xgroup_create("chat-stream", group, id="0", mkstream=True)


async def newest(redis: Redis) -> dict[bytes, bytes]:
    """Return the fields of the stream's newest record, as octets."""
    [(_id, fields)] = cast(Any, await redis.xrevrange("chat-stream", count=1))
    return cast(dict[bytes, bytes], fields)


async def reads_after(redis: Redis, watched: Wire, group: str, seconds: float = 1.5) -> int:
    """Make the group that was missing; return how many reads pass the wire in the time after it."""
    await new_stream(redis, group)
    before = len(watched.trace.filter(layer="redis", kind="XREADGROUP"))
    await asyncio.sleep(seconds)
    return len(watched.trace.filter(layer="redis", kind="XREADGROUP")) - before


async def wire(to: str, near: str, far: str, trace: Trace) -> Wire:
    """Start a wire between two ends with these names; it writes to `trace`."""
    return await Wire(to, names=(near, far), trace=trace).start()


async def say_twenty(speaker: StompMember, every: float = 0.05) -> None:
    """Send twenty messages, 메시지 0 to 메시지 19, at an even pace."""
    for number in range(20):
        await speaker.send(f"메시지 {number}")
        await asyncio.sleep(every)


async def grown(redis: Redis, records: int = 2000) -> tuple[int, int]:
    """Return the bytes of the stream, and those of a copy of it with so many records more."""
    await redis.copy("chat-stream", "chat-stream:copy", replace=True)
    before = await memory_of(redis, "chat-stream:copy")
    async with redis.pipeline(transaction=False) as together:
        for number in range(records):
            together.xadd("chat-stream:copy", java_record(content=f"{number}"))
        await together.execute()
    after = await memory_of(redis, "chat-stream:copy")
    await redis.delete("chat-stream:copy")
    return before, after


async def missed_while_away(url: str, *, receipts: bool = True) -> int:
    """Return how many of five messages a member has missed that was away while they were sent, and came back."""
    speaker, listener = await member(url, "가람", receipts=receipts), await member(url, "Nuri", receipts=receipts)
    await _say(speaker, listener, "먼저")
    last = listener.messages[-1].get("message-id")
    await listener.close()
    texts = [f"missed {number}" for number in range(5)]
    for text in texts:
        await _say(speaker, speaker, text)
    returned = await member(url, "Nuri", receipts=receipts, last_id=last)
    await _say(speaker, returned, "나중")
    await asyncio.gather(speaker.close(), returned.close())
    return sum(text not in said(returned) for text in texts)


async def _say(speaker: StompMember, listener: StompMember, text: str, *, times: int = 5) -> None:
    """Send a text until the listener has received it: without receipts, nobody knows when its subscription begins."""
    for _turn in range(times):
        await speaker.send(text)
        with contextlib.suppress(TimeoutError):
            return await listener.heard(text, timeout=2)
    raise TimeoutError(f"{listener.name} did not receive {text!r}")  # not shown: a bug


def java_record(**fields: str) -> dict[Any, Any]:
    """Return a record's fields and values as Java Strings, which is how the article's controllers write them."""
    return {java.serialize(name): java.serialize(value) for name, value in fields.items()}


def record_of_two(text: str) -> dict[Any, Any]:
    """Return a text as the article's second controller stores it."""
    return java_record(message=text)


def chat_record(text: str) -> dict[Any, Any]:
    """Return a text as `chatlab.chat` stores it: one field, `body`, with JSON in it."""
    ids = {"client_id": uuid.uuid4().hex, "room": "public", "sender": "가람", "from": "0c41"}
    return {"body": json.dumps({**ids, "content": text, "time": "2026-01-01T00:00:00.000Z"})}


async def put_as_java(redis: Redis, text: str) -> None:
    """Store a record as the second controller of another instance would: field and value are Java Strings."""
    await redis.xadd("chat-stream", java_record(message=text))


async def reads_after_a_pause(redis: Redis, seconds: float = 2.0) -> int:
    """Stop Redis from answering for `seconds`; return how many reads come in the half second after it."""
    await redis.client_pause(round(seconds * 1000))
    before = await _reads(redis)  # answered when the pause is over
    await asyncio.sleep(0.5)
    return await _reads(redis) - before


async def _reads(redis: Redis) -> int:
    return int((await redis.info("commandstats"))["cmdstat_xreadgroup"]["calls"])


# --- What the chat cannot read ---

# A record in plain text, as no chat here writes it.
FOREIGN = {"message": "from another program"}  # not shown: a record
BESIDE = 9  # with the foreign one ten: what the second controller takes with one read


async def shown_beside_a_foreign_record(
    redis: Redis, reader: StompMember, record: Callable[[str], Mapping[Any, Any]]
) -> int:
    """Store nine records with a foreign one among them, all at once; return how many of the nine `reader` is shown.

    `record` returns a text as the chat itself would store it. An eleventh record marks the end.
    """
    await _until_all_is_read(redis)  # else the next read would begin with an earlier record
    run = time.monotonic_ns()
    texts = [f"{run} beside {number}" for number in range(BESIDE)]
    async with redis.pipeline(transaction=True) as together:
        for number, text in enumerate(texts):
            if number == BESIDE // 2:
                together.xadd("chat-stream", cast(Any, FOREIGN))
            together.xadd("chat-stream", cast(Any, record(text)))
        together.xadd("chat-stream", cast(Any, record(f"{run} after")))
        await together.execute()
    await reader.heard(f"{run} after", timeout=10)
    await asyncio.sleep(0.3)  # Spring does not keep the order of messages
    return sum(any(text in heard for heard in reader.received) for text in texts)


async def _until_all_is_read(redis: Redis, seconds: float = 1) -> None:
    """Give the groups of the chat's stream, if there are any, so much time to be handed its last record."""
    with contextlib.suppress(TimeoutError, ResponseError):
        async with asyncio.timeout(seconds):
            while True:
                if await _is_all_read(redis):
                    return
                await asyncio.sleep(0.02)


async def _is_all_read(redis: Redis) -> bool:
    last = (await redis.xinfo_stream("chat-stream"))["last-generated-id"]
    return all(group["last-delivered-id"] == last for group in await redis.xinfo_groups("chat-stream"))


CONNECT = "CONNECT\naccept-version:1.2\nhost:chat\n\n\0"
# Each frame asks for a receipt, so its sender waits for an answer.
MISTAKES = {
    _("CONNECT with version 9"): ("CONNECT\naccept-version:9\nhost:chat\n\n\0",),
    _("SEND without a destination"): (CONNECT, "SEND\nreceipt:1\n\n{}\0"),
    _("SEND to a destination that is not there"): (CONNECT, "SEND\ndestination:/nowhere\nreceipt:1\n\n{}\0"),
    _("SEND of half a JSON text"): (CONNECT, 'SEND\ndestination:/app/chat.sendMessage\nreceipt:1\n\n{"con\0'),
    _("SUBSCRIBE without an id"): (CONNECT, "SUBSCRIBE\ndestination:/topic/public\nreceipt:1\n\n\0"),
}
SECONDS_OF_SILENCE = 1.0


async def answers_to_mistakes(url: str) -> dict[str, str]:
    """Make each mistake on a connection of its own; return the command of the answer, or "silence" after a second."""
    answers = await asyncio.gather(*(_answer(url, frames) for frames in MISTAKES.values()))
    return dict(zip(MISTAKES, answers, strict=True))


async def _answer(url: str, frames: Sequence[str]) -> str:
    """Send the frames, the last of which is a mistake; return the command of what comes back for that one."""
    async with connect(url, proxy=None) as connection:
        for frame in frames[:-1]:
            await connection.send(frame)
            await asyncio.wait_for(connection.recv(), timeout=10)
        await connection.send(frames[-1])
        try:
            async with asyncio.timeout(SECONDS_OF_SILENCE):
                return str(await connection.recv(decode=True)).partition("\n")[0]
        except TimeoutError:
            return _("silence")


async def delays(
    say: Callable[[str], Awaitable[object]], reader: StompMember, *, messages: int = 30, every: float = 0.02
) -> list[float]:
    """Pass one text after another to `say`; return for each the time until `reader` received it."""
    took = []
    for number in range(messages):
        text = f"delay {number} {time.monotonic_ns()}"
        began = time.monotonic()
        saying = asyncio.ensure_future(say(text))
        await reader.heard(text, timeout=10)
        took.append(time.monotonic() - began)
        await saying
        # A constant interval could synchronize with polling; multiples of the golden ratio never do.
        await asyncio.sleep(every + 0.1 * (number * 0.618 % 1))
    return took


@dataclass(frozen=True, slots=True)
class Burst:
    """Messages that were sent at once, and the seconds until the last of them arrived."""

    messages: int
    seconds: float

    @property
    def rate(self) -> float:
        """Messages per second."""
        return self.messages / self.seconds

    def __repr__(self) -> str:
        words = _("{count} at once: {seconds:.2f} s, {rate:,.0f} messages per second")
        return words.format(count=self.messages, seconds=self.seconds, rate=self.rate)


async def burst(say: Callable[[str], Awaitable[object]], reader: StompMember, *, messages: int = 60) -> Burst:
    """Pass many texts to `say` at once; return how long it took until `reader` received all of them."""
    began = time.monotonic()
    already = len(reader.received)
    await asyncio.gather(*(say(f"burst {number}") for number in range(messages)))
    await reader.until(lambda: len(reader.received) - already >= messages, timeout=20)
    return Burst(messages, time.monotonic() - began)


async def talk_while(
    clients: Sequence[StompMember], trouble: Callable[[], Awaitable[None]], *, messages: int = 20, every: float = 0.05
) -> Ledger:
    """Let every client send `messages` texts while `trouble` runs; return the ledger once every confirmed text arrived.

    A text without a RECEIPT is sent again with the same id until its RECEIPT arrives, as a good client does.
    """
    talking = [asyncio.create_task(_talk(client, messages, every)) for client in clients]
    await trouble()
    await asyncio.gather(*talking)
    confirmed = {text for client in clients for text in client.stored}
    with contextlib.suppress(TimeoutError):  # what is still missing then is lost, and counted in the ledger
        await asyncio.gather(
            *(c.until(lambda c=c: confirmed <= set(said(c)), timeout=20) for c in clients)  # type: ignore[misc]  # mypy cannot infer a lambda's default
        )
    return ledger_of(clients)


async def _talk(client: StompMember, messages: int, every: float) -> None:
    for __ in range(messages):
        # Every text has its own number, so that the ledger can tell a repeat from the same text sent again.
        await client.send_until_stored(f"{client.name} {len(client.sent) + 1}")
        await asyncio.sleep(every)


# --- The path of one message ---


async def way_of_one_message(url: str, trace: Trace) -> Events:
    """Let a member send one text through the wires that write to `trace`; return the events from the SEND on."""
    client = await member(url, "가람")
    try:
        await _silence(trace)
        before = len(trace.events)
        await client.send("한 메시지의 길")
        await client.heard("한 메시지의 길")
        await until(lambda: any(event.kind == "MESSAGE" for event in trace.events[before:]))
        new = {id(event) for event in trace.events[before:] if event.layer in ("stomp", "redis")}
        shown = [event for event in _without_checks(trace.events) if id(event) in new]
        return Events(shown[next(i for i, event in enumerate(shown) if event.kind == "SEND") :])
    finally:
        await client.close()


# Commands that move a message. With all its other commands the chat checks whether it has missed anything.
MOVES = ("EVALSHA", "XADD", "XREAD")


def _without_checks(events: Iterable[Event]) -> Iterator[Event]:
    """Leave out the commands that move nothing, and their replies: Redis answers a connection's commands in order."""
    asked: defaultdict[int, deque[bool]] = defaultdict(deque)  # by connection: whether the command is shown
    for event in events:
        commands = asked[event.connection]
        if event.layer != "redis":
            yield event
        elif event.sender == "client":
            commands.append(event.kind in MOVES)
            if commands[-1]:
                yield event
        elif not commands or commands.popleft():
            yield event


async def _silence(trace: Trace, seconds: float = 0.3, patience: int = 20) -> None:
    """Wait until earlier traffic has ended: the announcement of a member, and the start of reading its streams."""
    for __ in range(patience):
        before = len(trace.events)
        await asyncio.sleep(seconds)
        if len(trace.events) == before:
            return


def stored_before_receipt(way: Events) -> bool:
    """Return whether Redis had answered the XADD before the RECEIPT was sent."""
    kinds = [event.kind for event in way if event.layer == "stomp"]
    added = next(i for i, event in enumerate(way) if event.layer == "redis" and "chat-stream" in event.summary)
    receipt = next(i for i, event in enumerate(way) if event.kind == "RECEIPT")
    answered = [i for i, event in enumerate(way) if event.layer == "redis" and event.sender == "server" and i > added]
    return "SEND" in kinds and bool(answered) and answered[0] < receipt


# --- Load ---


@dataclass(frozen=True, slots=True)
class Share:
    """One instance's share of a load: members, messages delivered to them, and seconds of processor time for those."""

    connections: int
    deliveries: int
    seconds: float


async def load(cluster: Cluster, members: int, *, messages: int = 10) -> list[Share]:
    """Connect `members` through the balancer and let one of them send; return each running instance's share.

    Members and deliveries come from the instances' page `/metrics`: the values after the load minus those before. The
    processor time is that of the sending alone; the system counts it in steps of 10 ms. Returns when every member has
    received the last message; raises `TimeoutError` if one does not.
    """
    balancer = await cluster.balance()
    alive = [instance for instance in cluster.instances if instance.alive]
    urls = [instance.url for instance in alive]
    before = [await _metrics(url) for url in urls]
    async with contextlib.AsyncExitStack() as stack:
        joining = (member(balancer.url, f"member {number}", room="load") for number in range(members))
        clients = await asyncio.gather(*joining)
        for client in clients:
            stack.push_async_callback(client.close)
        began = [_processor_seconds(instance) for instance in alive]
        for number in range(messages):
            await clients[0].send(f"load {number}")
        await asyncio.gather(*(client.heard(f"load {messages - 1}", timeout=20) for client in clients))
        worked = [_processor_seconds(instance) - then for instance, then in zip(alive, began, strict=True)]
        after = [await _metrics(url) for url in urls]
    return [_share(*each) for each in zip(before, after, worked, strict=True)]


def _processor_seconds(instance: Instance) -> float:
    times = psutil.Process(instance.pid).cpu_times()
    return float(times.user + times.system)


def _share(before: Mapping[str, float], after: Mapping[str, float], seconds: float) -> Share:
    def grown(name: str) -> int:
        return round(after[name] - before[name])

    return Share(grown("chatlab_connections"), grown("chatlab_deliveries_total"), seconds)


async def _metrics(url: str) -> dict[str, float]:
    # Not urllib, which would use the environment's proxy even for this machine; aiohttp does so only on request.
    page = f"http://{urlsplit(url).netloc}/metrics"
    async with ClientSession(timeout=ClientTimeout(5), raise_for_status=True) as http, http.get(page) as answer:
        rows = [line.rsplit(" ", 1) for line in (await answer.text()).splitlines() if line and line[0] != "#"]
    return {name: float(value) for name, value in rows}


async def memory_of(redis: Redis, stream: str) -> int:
    """Return the bytes that a stream takes in Redis; 0 if it does not exist."""
    return int(await redis.memory_usage(stream) or 0)
