"""What the cells of a notebook have running: started by name, replaced by name, gone when the kernel is.

    from chatlab.lab.runtime import lab

    server = await lab.start("echo", echo.start())     # running the cell again stops this one first
    await lab.stop("echo")

Servers and clients live on the kernel's own event loop, so they end with its process, however that ends. What is a
process of its own (an engine, an instance of a cluster) sees to it itself that it does not outlive its parent. All
this file adds is order: one thing per name, ended politely when it is replaced and when the kernel shuts down.

Left out: supervision. What dies by itself stays dead until a cell starts it again, because a lesson wants to see that.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import inspect
import weakref
from collections.abc import Awaitable, Coroutine, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from chatlab.lab.logs import LogBook

if TYPE_CHECKING:
    from chatlab.lab.engines.engine import Engine

__all__ = ["Lab", "lab"]

Thing = TypeVar("Thing")

# Jupyter kills a kernel that has not ended 5 s after it was asked to (KernelManager.shutdown_wait_time).
SECONDS_AT_EXIT = 3.0


@dataclass(frozen=True, slots=True)
class _Running:
    """One thing that runs, and the event loop it was started on."""

    thing: Any
    loop: asyncio.AbstractEventLoop


class Lab:
    """The things a kernel has running, by name: servers, clients, background tasks, engines."""

    def __init__(self) -> None:
        self.log = LogBook()
        self._running: dict[str, _Running] = {}
        # A lock serves one loop, and a process may run several, one after another.
        self._one_at_a_time: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]
        self._one_at_a_time = weakref.WeakKeyDictionary()

    async def start(self, name: str, starting: Awaitable[Thing]) -> Thing:
        """Stop what runs as `name`, then await `starting` and keep its result as `name` until it is stopped.

        The result is anything with `aclose()` or `close()`: a server, a client, a connection.
        """
        try:
            await self.stop(name)
            thing = await starting
        finally:
            if inspect.iscoroutine(starting):
                starting.close()  # stopping may have failed; a coroutine nobody awaits would warn much later
        await self._keep(name, thing)
        return thing

    async def task(self, name: str, work: Coroutine[Any, Any, Thing]) -> asyncio.Task[Thing]:
        """Run `work` in the background as `name`; stopping it cancels it and waits for its end.

        An error that ends it goes to the loop's exception handler at once: no task dies unheard.
        """
        try:
            await self.stop(name)
        except BaseException:
            work.close()
            raise
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(_tell_of_failure)
        await self._keep(name, task)
        return task

    async def stop(self, name: str) -> None:
        """Stop what runs as `name`; nothing by that name is fine."""
        if running := self._running.pop(name, None):
            await _end(running)

    async def stop_all(self) -> None:
        """Stop everything, the last started first. One that fails to stop does not keep the others running."""
        errors = []
        while self._running:
            _, running = self._running.popitem()
            try:
                await _end(running)
            except Exception as error:
                errors.append(error)
        if errors:
            raise ExceptionGroup("some did not stop cleanly", errors)

    async def engine(self, kind: str, options: Mapping[str, str] | None = None) -> Engine:
        """The one engine of this kind ("redis", "rabbitmq", "kafka") of this kernel, started at first use.

        `options` are settings of the engine's own for that first start, such as {"appendfsync": "always"}. Raises
        `EngineMissing`, with what brings it, when there is none on this machine.
        """
        from chatlab.lab.engines import engine as engines

        name = f"{kind} engine"
        async with self._one_at_a_time.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            if name not in self._running:
                await self.start(name, engines.start(kind, options=options))
            engine: Engine = self._running[name].thing
            if not engine.alive:  # a lesson has killed it; whoever asks for it wants it back, with its data
                await engine.restart()
        return engine

    async def redis(self) -> str:
        """The URL of the one Redis of this kernel, started at first use."""
        return (await self.engine("redis")).url

    @property
    def names(self) -> tuple[str, ...]:
        """What is running, oldest first."""
        return tuple(self._running)

    def __repr__(self) -> str:
        return f"running: {', '.join(self._running) or 'nothing'}"

    async def _keep(self, name: str, thing: Any) -> None:
        # Somebody else, a panel's button perhaps, may have started one of this name while we were starting ours.
        while name in self._running:
            await self.stop(name)
        self._running[name] = _Running(thing, asyncio.get_running_loop())

    def _end_with_the_kernel(self) -> None:
        """At exit the kernel's loop stands still, but it is not closed yet: one last polite round."""
        loops = {running.loop for running in self._running.values()}
        for loop in loops:
            if loop.is_closed() or loop.is_running():
                continue
            with contextlib.suppress(TimeoutError, ExceptionGroup):
                loop.run_until_complete(asyncio.wait_for(self.stop_all(), SECONDS_AT_EXIT))


async def _end(running: _Running) -> None:
    """End one thing on the loop it lives on."""
    here = asyncio.get_running_loop()
    if running.loop is here:
        await _close(running.thing)
    elif running.loop.is_running():  # another thread's: end it there
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_close(running.thing), running.loop))
    else:
        # That loop has ended, and the tasks and connections on it with it. What holds processes can still end them;
        # anything else says with RuntimeError that its loop is closed, which is no news.
        with contextlib.suppress(RuntimeError, TimeoutError):
            await asyncio.wait_for(_close(running.thing), SECONDS_AT_EXIT)


async def _close(thing: Any) -> None:
    if isinstance(thing, asyncio.Task):
        thing.cancel()
        await asyncio.wait([thing])  # its error, if it had one, has been told by `_tell_of_failure`
        return
    for name in ("aclose", "stop", "close"):
        if close := getattr(thing, name, None):
            ending = close()
            if inspect.isawaitable(ending):
                await ending
            return
    raise TypeError(f"cannot be stopped, it has neither aclose() nor close(): {thing!r}")


def _tell_of_failure(task: asyncio.Task[Any]) -> None:
    if task.cancelled() or (error := task.exception()) is None:
        return
    task.get_loop().call_exception_handler(
        {"message": f"background task {task.get_name()!r} died", "exception": error, "task": task}
    )


lab = Lab()
"""The one lab of this process."""
lab.log.open()

atexit.register(lab._end_with_the_kernel)
