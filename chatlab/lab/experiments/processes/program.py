"""Functions of a notebook's cell, run as a program of their own: a process that can be killed and started again.

    service = await lab.start("service", Program(redis.url, keep_log))
    service.kill()                 # SIGKILL
    await service.restart()        # on the port it had
    service.printed                # what the functions have printed, line by line

The program is a file with the source of the functions. What each is for, its parameters say:

    async def handle(session, ...)     called for each WebSocket connection
    async def serve_it(broker)         runs from the start; `broker` is connected to Redis Streams
    async def work_off(waiting)        the same; `waiting` is an `asyncio.Queue` that all functions share
    async def work(text)               anything else is a helper, which the others may call

Left out: names that a cell defines outside its functions; the program imports `asyncio` only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import inspect
import os
import sys
import tempfile
import textwrap
import threading
import traceback
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Self

from websockets.asyncio.server import serve

from chatlab.brokers.redis.groups import GroupMember
from chatlab.brokers.redis.streams import RedisStreamsBroker, StreamReader
from chatlab.lab.engines.cluster import READY, Instance

__all__ = ["Function", "Program", "run"]

Function = Callable[..., Coroutine[Any, Any, object]]
GIVEN = {"broker", "waiting"}
SECONDS_TO_JOIN = 5.0
HEAD = "from __future__ import annotations\n\nimport asyncio\n\nfrom {module} import run"  # not shown: code


class Program:
    """A process that runs `functions`; the address of its server, if one of them handles sessions, is `url`."""

    def __init__(self, broker: str, *functions: Function) -> None:
        self.name = functions[-1].__name__
        self._broker = broker
        self._functions = functions
        self._folder = tempfile.TemporaryDirectory(prefix="chatlab-")
        self._instance = Instance(0, [sys.executable, "-P", str(self._write()), "--broker", broker])

    @property
    def url(self) -> str:
        """The address of its server."""
        return self._instance.url

    @property
    def pid(self) -> int | None:
        """The process id, or None if the process is dead."""
        return self._instance.pid

    @property
    def printed(self) -> list[str]:
        """All that its functions have printed, in every run of it."""
        return [line for line in list(self._instance.log) if not line.startswith(READY)]

    def kill(self) -> None:
        """Send SIGKILL; return when the process is dead."""
        self._instance.kill()

    async def restart(self) -> None:
        """Start it again on the port it had."""
        await self._instance.stop()
        await self._instance.start()

    async def aclose(self) -> None:
        """End it, and remove its file."""
        self._instance.kill()
        self._instance.release()
        self._folder.cleanup()

    async def __aenter__(self) -> Self:
        try:
            await self._instance.start()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _write(self) -> Path:
        file = Path(self._folder.name) / f"{self.name}.py"
        sources = [textwrap.dedent(inspect.getsource(each)).strip() for each in self._functions]
        names = ", ".join(each.__name__ for each in self._functions)
        head = HEAD.format(module=__name__)
        text = "\n\n\n".join([head, *sources, f"run({names})\n"])
        file.write_text(text, encoding="utf-8")
        return file


# --- In the process ---


class _Broker(RedisStreamsBroker):
    """A broker that counts its readers, so that the program is ready when each of its functions reads."""

    readers = 0

    async def subscribe(self, topic: str, *, after: str | None = None) -> StreamReader:
        reader = await super().subscribe(topic, after=after)
        self.readers += 1
        return reader

    async def join(self, topic: str, group: str, member: str) -> GroupMember:
        consumer = await super().join(topic, group, member)
        self.readers += 1
        return consumer


def run(*functions: Function) -> None:
    """Run the functions until standard input ends: when its parent dies, by whatever signal."""
    parser = argparse.ArgumentParser()
    for name in ("--broker", "--host", "--port"):
        parser.add_argument(name)
    parser.add_argument("--until-stdin-ends", action="store_true")
    options = parser.parse_args()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        asyncio.run(_run(functions, options))
    except ExceptionGroup as failed:
        error: Exception = failed
        while isinstance(error, ExceptionGroup):  # the function's own error says what to do, a group's does not
            error = error.exceptions[0]
        traceback.print_exception(error)
        sys.exit(1)


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


async def _run(functions: Sequence[Function], options: argparse.Namespace) -> None:
    handlers = [each for each in functions if "session" in _parameters(each)]
    loops = [each for each in functions if _parameters(each) and _parameters(each) <= GIVEN]
    async with _Broker(options.broker, takeover_after=0.5) as broker, asyncio.TaskGroup() as group:
        given = {"broker": broker, "waiting": asyncio.Queue[str]()}
        for each in loops:
            group.create_task(each(**_chosen(each, given)))
        await _until_they_read(broker, sum("broker" in _parameters(each) for each in loops))
        address = "no address"  # not shown: nobody reads it
        if handlers:
            server = await _serve(handlers[0], given, options)
            address = f"ws://{options.host}:{server.sockets[0].getsockname()[1]}/"
        print(f"{READY}{address}", flush=True)
        await asyncio.Event().wait()


async def _serve(handler: Function, given: dict[str, Any], options: argparse.Namespace) -> Any:
    async def handle(session: Any) -> None:
        await handler(session, **_chosen(handler, given))

    return await serve(handle, options.host, int(options.port))


async def _until_they_read(broker: _Broker, count: int) -> None:
    """Wait until `count` functions read from the broker: what is published from then on reaches them."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SECONDS_TO_JOIN):
            while broker.readers < count:  # noqa: ASYNC110  # a function of the learner's has no event to wait for
                await asyncio.sleep(0.005)


def _parameters(function: Function) -> set[str]:
    return set(inspect.signature(function).parameters)


def _chosen(function: Function, given: dict[str, Any]) -> dict[str, Any]:
    return {name: each for name, each in given.items() if name in _parameters(function)}
