"""Lesson 07's experiments: what becomes of a message in the article's build and in the one that holds.

The chats are real, on a real Redis; the members are `StompMember`s. Times are seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from aiohttp import ClientSession, ClientTimeout
from redis.asyncio import Redis

from chatlab.lab.clients import StompMember
from chatlab.lab.engines.cluster import Cluster
from chatlab.lab.ledger import Ledger, ledger, ledger_of, said
from chatlab.lab.until import until
from chatlab.lab.wire.decode import Event
from chatlab.lab.wire.trace import Events, Trace

__all__ = [
    "Ledger",
    "Share",
    "burst",
    "delays",
    "ledger",
    "ledger_of",
    "load",
    "member",
    "memory_of",
    "said",
    "stored_before_receipt",
    "talk_while",
    "way_of_one_message",
]


async def member(url: str, name: str, **options: Any) -> StompMember:
    """One member, connected."""
    client = StompMember(url, name, **options)
    await client.connect()
    return client


async def delays(
    say: Callable[[str], Awaitable[object]], reader: StompMember, *, messages: int = 30, every: float = 0.02
) -> list[float]:
    """`say` one text after another; for each, the time until `reader` was shown it."""
    took = []
    for number in range(messages):
        text = f"delay {number} {time.monotonic_ns()}"
        began = time.monotonic()
        saying = asyncio.ensure_future(say(text))
        await reader.heard(text, timeout=10)
        took.append(time.monotonic() - began)
        await saying
        # An even pace would fall into step with a poll; the golden ratio never does.
        await asyncio.sleep(every + 0.1 * (number * 0.618 % 1))
    return took


async def burst(say: Callable[[str], Awaitable[object]], reader: StompMember, *, messages: int = 60) -> float:
    """`say` many texts at once; the time until `reader` was shown all of them."""
    began = time.monotonic()
    already = len(reader.received)
    await asyncio.gather(*(say(f"burst {number}") for number in range(messages)))
    await reader.until(lambda: len(reader.received) - already >= messages, timeout=20)
    return time.monotonic() - began


async def talk_while(
    clients: Sequence[StompMember], trouble: Callable[[], Awaitable[None]], *, messages: int = 20, every: float = 0.05
) -> Ledger:
    """Everybody sends `messages` texts while `trouble` happens; then the ledger, once all that was promised is shown.

    A text whose RECEIPT did not come is sent again under the same id, as a good client does, until it came.
    """
    talking = [asyncio.create_task(_talk(client, messages, every)) for client in clients]
    await trouble()
    await asyncio.gather(*talking)
    promised = {text for client in clients for text in client.stored}
    with contextlib.suppress(TimeoutError):  # what is still missing then is lost, and the ledger says so
        await asyncio.gather(
            *(c.until(lambda c=c: promised <= set(said(c)), timeout=20) for c in clients)  # type: ignore[misc]  # as above
        )
    return ledger_of(clients)


async def _talk(client: StompMember, messages: int, every: float) -> None:
    for _ in range(messages):
        # A number of its own for every text: only so can the ledger tell a repeat from somebody who says it again.
        await client.send_until_stored(f"{client.name} {len(client.sent) + 1}")
        await asyncio.sleep(every)


# --- One message's way ---


async def way_of_one_message(url: str, trace: Trace) -> Events:
    """A member says one thing through the wires that write into `trace`; the events from then on."""
    client = await member(url, "가람")
    try:
        await _silence(trace)
        before = len(trace.events)
        await client.send("한 메시지의 길")
        await client.heard("한 메시지의 길")
        await until(lambda: any(event.kind == "MESSAGE" for event in trace.events[before:]))
        new = {id(event) for event in trace.events[before:] if event.layer in ("stomp", "redis")}
        shown = [event for event in _without_looks(trace.events) if id(event) in new]
        return Events(shown[next(i for i, event in enumerate(shown) if event.kind == "SEND") :])
    finally:
        await client.close()


# What moves a message. Whatever else the chat asks Redis is to see whether it has missed anything.
MOVES = ("EVALSHA", "XADD", "XREAD")


def _without_looks(events: Iterable[Event]) -> Iterator[Event]:
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
    """Wait until nothing more is said about what was before: who has come, and whose streams are read."""
    for _ in range(patience):
        heard = len(trace.events)
        await asyncio.sleep(seconds)
        if len(trace.events) == heard:
            return


def stored_before_receipt(way: Events) -> bool:
    """Whether Redis had answered the XADD before the RECEIPT went out."""
    kinds = [event.kind for event in way if event.layer == "stomp"]
    added = next(i for i, event in enumerate(way) if event.layer == "redis" and "chat-stream" in event.summary)
    receipt = next(i for i, event in enumerate(way) if event.kind == "RECEIPT")
    answered = [i for i, event in enumerate(way) if event.layer == "redis" and event.sender == "server" and i > added]
    return "SEND" in kinds and bool(answered) and answered[0] < receipt


# --- Load ---


@dataclass(frozen=True, slots=True)
class Share:
    """What one instance had of a load: how many of the members, and how many messages it handed to members."""

    connections: int
    deliveries: int


async def load(cluster: Cluster, members: int, *, messages: int = 10) -> list[Share]:
    """Bring `members` in through the balancer and let one of them talk; what each living instance had of it.

    Both figures are the instances' own, from their page `/metrics`, less what they were before. Returns when every
    member was shown every message; raises `TimeoutError` if one was not.
    """
    balancer = await cluster.balance()
    urls = [instance.url for instance in cluster.instances if instance.alive]
    before = [await _metrics(url) for url in urls]
    async with contextlib.AsyncExitStack() as stack:
        clients = []
        for number in range(members):
            clients.append(await member(balancer.url, f"member {number}", room="load"))
            stack.push_async_callback(clients[-1].close)
        for number in range(messages):
            await clients[0].send(f"load {number}")
        await asyncio.gather(*(client.heard(f"load {messages - 1}", timeout=20) for client in clients))
        after = [await _metrics(url) for url in urls]
    return [_share(then, now) for then, now in zip(before, after, strict=True)]


def _share(before: Mapping[str, float], after: Mapping[str, float]) -> Share:
    def grown(name: str) -> int:
        return round(after[name] - before[name])

    return Share(grown("chatlab_connections"), grown("chatlab_deliveries_total"))


async def _metrics(url: str) -> dict[str, float]:
    # Not urllib, which would ask a proxy named in the environment for this machine; aiohttp does so only if told to.
    page = f"http://{urlsplit(url).netloc}/metrics"
    async with ClientSession(timeout=ClientTimeout(5), raise_for_status=True) as http, http.get(page) as answer:
        rows = [line.rsplit(" ", 1) for line in (await answer.text()).splitlines() if line and line[0] != "#"]
    return {name: float(value) for name, value in rows}


async def memory_of(redis: Redis, stream: str) -> int:
    """The bytes a stream takes in Redis; 0 if there is none."""
    return int(await redis.memory_usage(stream) or 0)
