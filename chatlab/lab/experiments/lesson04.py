"""Lesson 04's experiments: the work of each instance, a line that is cut, a handler that is slow, records left undone.

`load` asks the operating system how much processor time each instance has used, so the instances must be processes of
their own; all else runs on any server it is given. Times are seconds.
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

PROBE_SECONDS = 0.05  # between two attempts to be heard by somebody who may not be listening yet
PATIENCE = 10.0


async def opened(broker: B) -> B:
    """Connect a broker and return it, for `lab.start` to keep."""
    await broker.start()
    return broker


# --- The work of each instance ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Load:
    """What `messages` texts to `members` members cost each instance, in seconds of processor time."""

    members: int
    messages: int
    seconds: tuple[float, ...]

    @property
    def busiest(self) -> float:
        """Seconds of processor time for one message, of the instance that worked most."""
        return max(self.seconds) / self.messages


async def load(instances: Sequence[Instance], members: int, *, messages: int = 100) -> Load:
    """Spread `members` evenly over `instances`, let one of them send, each text once all have the one before."""
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
    """The processor time a process has used so far, its own and what the kernel did for it."""
    times = process.cpu_times()
    return float(times.user + times.system)


async def _send_one_by_one(everybody: Sequence[ClientConnection], messages: int) -> None:
    missing = 0
    all_have_it = asyncio.Event()

    async def read(member: ClientConnection) -> None:
        nonlocal missing
        async for _ in member:
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


# --- A line that is cut ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Return:
    """What a client heard before its line was cut, what was said while it was away, what it heard once it was back."""

    before: list[str]
    away: list[str]
    back: list[str]

    @property
    def missed(self) -> list[str]:
        """What was said while it was away, and has not reached it since."""
        return [text for text in self.away if text not in self.back]


class _Listener:
    """A client that reads lines of the form `ID TEXT`, and remembers the last id for when it comes again."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.last = ""

    async def connect(self) -> None:
        self._connection = await connect(self.url + (f"?after={self.last}" if self.last else ""), proxy=None)

    async def read(self) -> str:
        identifier, _, text = str(await self._connection.recv()).partition(" ")
        self.last = identifier
        return text

    async def read_until(self, text: str) -> list[str]:
        heard: list[str] = []
        while not heard or heard[-1] != text:
            heard.append(await self.read())
        return heard

    async def cut_off(self) -> None:
        """Wait until it has noticed that its line is cut."""
        await self._connection.wait_closed()

    def drop(self) -> None:
        self._connection.transport.abort()


async def cut_and_come_back(
    handler: Handler, broker: Broker, topic: str, *, before: Sequence[str], away: Sequence[str]
) -> Return:
    """A client hears `before`; its line is cut; `away` is published; it comes back with the last id it saw.

    `handler` serves a client what comes in on `topic`, as lines `ID TEXT`. A wire stands between them, and cuts.
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
            await _say_until_heard(broker, topic, client, "are you there?")
            heard = await _say_and_read(broker, topic, before, client)
            wire.cut()
            await client.cut_off()
            for text in away:
                await broker.publish(topic, text.encode())
            await client.connect()
            back = await _say_until_heard(broker, topic, client, "are you back?")
            client.drop()
    return Return(heard, list(away), back)


async def _say_and_read(broker: Broker, topic: str, texts: Sequence[str], client: _Listener) -> list[str]:
    for text in texts:
        await broker.publish(topic, text.encode())
    return [text for text in await client.read_until(texts[-1]) if text in texts]


async def _say_until_heard(broker: Broker, topic: str, client: _Listener, text: str) -> list[str]:
    """Say `text` again and again until the client has it: then it listens. Return what it heard before that."""
    reading = asyncio.create_task(client.read_until(text))
    while not reading.done():
        await broker.publish(topic, text.encode())
        await asyncio.wait([reading], timeout=PROBE_SECONDS)
    return reading.result()[:-1]


# --- A handler that is slow ------------------------------------------------------------------------------------------


async def waits(url: str, *, texts: int = 40) -> list[float]:
    """Send `texts` in one go; how long the sender waits for the answer to each. Each must be answered, in order."""
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
