"""Lesson 04's experiments: the work of each instance, a client that is cut off, a slow handler.

`load` asks the operating system for the processor time of each instance, so the instances must be separate processes;
the others run on any server. Times are in seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TypeVar

import psutil
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve

from chatlab.brokers.port import Broker
from chatlab.lab.engines.cluster import Instance
from chatlab.lab.experiments.lesson03 import cancel, number_in, open_member
from chatlab.lab.wire.wire import Wire

__all__ = ["Load", "Return", "cut_and_come_back", "load", "opened", "waits"]

B = TypeVar("B", bound=Broker)
Handler = Callable[[ServerConnection], Awaitable[None]]

PROBE_SECONDS = 0.05  # between two attempts to reach a client that may not be subscribed yet
PATIENCE = 10.0


async def opened(broker: B) -> B:
    """Connect a broker and return it, for `lab.start`."""
    await broker.start()
    return broker


# --- The work of each instance ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Load:
    """The cost to each instance of `messages` texts to `members` members, in seconds of processor time."""

    members: int
    messages: int
    seconds: tuple[float, ...]

    @property
    def busiest(self) -> float:
        """The processor time for one message of the instance that worked most, in seconds."""
        return max(self.seconds) / self.messages


async def load(instances: Sequence[Instance], members: int, *, messages: int = 100) -> Load:
    """Spread `members` evenly over `instances`, and let one of them send; each text waits until all have the last."""
    processes = [psutil.Process(instance.pid) for instance in instances]
    async with contextlib.AsyncExitStack() as stack:
        urls = islice(cycle([instance.url for instance in instances]), members)
        everybody = [await stack.enter_async_context(open_member(url)) for url in urls]
        before = [processor_seconds(process) for process in processes]
        async with asyncio.timeout(60):
            await _send_one_by_one(everybody, messages)
        after = [processor_seconds(process) for process in processes]
    return Load(members, messages, tuple(end - start for start, end in zip(before, after, strict=True)))


def processor_seconds(process: psutil.Process) -> float:
    """Return the processor time that a process has used so far, in user mode and in the kernel."""
    times = process.cpu_times()
    return float(times.user + times.system)


async def _send_one_by_one(everybody: Sequence[ClientConnection], messages: int) -> None:
    missing = 0
    all_have_it = asyncio.Event()

    async def read(member: ClientConnection) -> None:
        nonlocal missing
        async for __ in member:
            missing -= 1
            if not missing:
                all_have_it.set()

    readers = [asyncio.create_task(read(member)) for member in everybody]
    for number in range(messages):
        missing = len(everybody)
        all_have_it.clear()
        await everybody[0].send(f"#{number} ")
        await all_have_it.wait()
    await cancel(readers)


# --- A client that is cut off ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Return:
    """The texts a client received before it was cut off, those published meanwhile, and those it received after."""

    before: list[str]
    away: list[str]
    back: list[str]

    @property
    def missed(self) -> list[str]:
        """The texts that were published while it was away and never reached it."""
        return [text for text in self.away if text not in self.back]


class _Listener:
    """A client that reads lines of the form `ID TEXT`, and sends the last id when it reconnects."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.last = ""

    async def connect(self) -> None:
        self._connection = await connect(self.url + (f"?after={self.last}" if self.last else ""), proxy=None)

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


async def cut_and_come_back(
    handler: Handler, broker: Broker, topic: str, *, before: Sequence[str], away: Sequence[str]
) -> Return:
    """Publish `before` to a client, cut its connection, publish `away`, and let it reconnect with the last id it saw.

    `handler` sends a client the records of `topic` as lines `ID TEXT`. A wire between the two cuts the connection.
    """

    async def while_open(session: ServerConnection) -> None:
        serving = asyncio.ensure_future(handler(session))
        await session.wait_closed()
        await cancel([serving])

    async with asyncio.timeout(PATIENCE), serve(while_open, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with Wire(f"ws://127.0.0.1:{port}/") as wire:
            client = _Listener(wire.url)
            await client.connect()
            await _publish_until_received(broker, topic, client, "are you there?")  # not shown: a probe
            received = await _publish_and_read(broker, topic, before, client)
            wire.cut()
            await client.cut_off()
            for text in away:
                await broker.publish(topic, text.encode())
            await client.connect()
            back = await _publish_until_received(broker, topic, client, "are you back?")  # not shown: a probe
            client.drop()
    return Return(received, list(away), back)


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


# --- A slow handler --------------------------------------------------------------------------------------------------


async def waits(url: str, *, texts: int = 40) -> list[float]:
    """Send `texts` texts at once; return how long the sender waits for the answer to each, which must come in order."""
    async with open_member(url) as sender, asyncio.timeout(PATIENCE + texts):
        began = time.monotonic()
        for number in range(texts):
            await sender.send(f"#{number} ")
        answered = []
        for number in range(texts):
            while number_in(str(await sender.recv())) != number:
                pass
            answered.append(time.monotonic() - began)
        return answered
