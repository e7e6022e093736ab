"""The servers, clients and tasks that a notebook's cells start, each under a name; they end with the kernel.

    from chatlab.lab.runtime import lab

    server = await lab.start("echo", echo.start())     # running the cell again stops this one first
    client = await lab.start("client", Client(url))    # a context manager is entered
    await lab.stop("echo")

Servers and clients live on the kernel's event loop, so they end with its process, however that ends. A separate process
(an engine, an instance of a cluster) makes sure by itself that it does not outlive its parent. This module adds order:
one resource per name, closed gracefully when it is replaced and when the kernel shuts down.

Left out: supervision. A resource that dies stays dead until a cell starts it again, because a lesson shows that.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import inspect
import weakref
from collections.abc import Awaitable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from chatlab.lab.logs import LogBook
from chatlab.locale import _

if TYPE_CHECKING:
    from chatlab.lab.engines.engine import Engine

__all__ = ["Lab", "lab"]

Resource = TypeVar("Resource")

# Jupyter kills a kernel that has not exited 5 s after the request (KernelManager.shutdown_wait_time).
SECONDS_AT_EXIT = 3.0


@dataclass(frozen=True, slots=True)
class _Running:
    """A running resource and the event loop it was started on."""

    resource: Any
    loop: asyncio.AbstractEventLoop


@dataclass(frozen=True, slots=True)
class _Entered:
    """A context manager that was entered, to be left when it is stopped."""

    manager: AbstractAsyncContextManager[Any]

    async def aclose(self) -> None:
        await self.manager.__aexit__(None, None, None)


class Lab:
    """The resources that a kernel has running, by name: servers, clients, background tasks, engines."""

    def __init__(self) -> None:
        self.log = LogBook()
        self._running: dict[str, _Running] = {}
        # A lock belongs to one loop, and a process may run several loops, one after another.
        self._engine_locks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]
        self._engine_locks = weakref.WeakKeyDictionary()

    async def start(self, name: str, starting: Awaitable[Resource] | AbstractAsyncContextManager[Resource]) -> Resource:
        """Stop what runs as `name`, then await `starting` and keep its result as `name`; return the result.

        The result is anything with `aclose()`, `stop()` or `close()`: a server, a client, a connection. What cannot be
        awaited is entered instead, as `async with` would, and left when it is stopped.
        """
        try:
            await self.stop(name)
            if isinstance(starting, Awaitable):
                resource = await starting
                keep: object = resource
            else:
                resource = await starting.__aenter__()
                keep = _Entered(starting)
        finally:
            if inspect.iscoroutine(starting):
                starting.close()  # stopping may have failed; a coroutine that is never awaited would warn much later
        await self._keep(name, keep)
        return resource

    async def task(self, name: str, work: Coroutine[Any, Any, Resource]) -> asyncio.Task[Resource]:
        """Run `work` in the background as `name`; stopping it cancels it and waits for it to finish.

        If it fails, the loop's exception handler is called at once.
        """
        try:
            await self.stop(name)
        except BaseException:
            work.close()
            raise
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(_report_failure)
        await self._keep(name, task)
        return task

    async def stop(self, name: str) -> None:
        """Stop what runs as `name`; do nothing if nothing does."""
        if running := self._running.pop(name, None):
            await _stop(running)

    async def stop_all(self) -> None:
        """Stop everything, the last started first. If one fails to stop, the others are stopped nevertheless."""
        errors = []
        while self._running:
            running = self._running.popitem()[1]
            try:
                await _stop(running)
            except Exception as error:
                errors.append(error)
        if errors:
            raise ExceptionGroup(_("some did not stop cleanly"), errors)

    async def engine(self, kind: str, options: Mapping[str, str] | None = None) -> Engine:
        """Return this kernel's engine of this kind ("redis", "rabbitmq", "kafka"), started at first use.

        `options` are the engine's settings for that first start, such as {"appendfsync": "always"}. Raises
        `EngineMissing`, which says how to install one, when there is none on this machine.
        """
        from chatlab.lab.engines import engine as engines

        name = f"{kind} engine"
        async with self._engine_locks.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            if name not in self._running:
                await self.start(name, engines.start(kind, options=options))
            engine: Engine = self._running[name].resource
            if not engine.alive:  # a lesson has killed it; the caller wants it back, with its data
                await engine.restart()
        return engine

    async def redis(self) -> str:
        """Return the URL of this kernel's Redis, started at first use."""
        return (await self.engine("redis")).url

    @property
    def names(self) -> tuple[str, ...]:
        """The names of what is running, oldest first."""
        return tuple(self._running)

    def __repr__(self) -> str:
        return f"running: {', '.join(self._running) or 'nothing'}"

    async def _keep(self, name: str, resource: Any) -> None:
        # Another caller, such as a panel's button, may have used this name while this one was starting.
        while name in self._running:
            await self.stop(name)
        self._running[name] = _Running(resource, asyncio.get_running_loop())

    def _stop_at_exit(self) -> None:
        """Stop everything when the interpreter exits: the kernel's loop has stopped by then, but is not closed yet."""
        loops = {running.loop for running in self._running.values()}
        for loop in loops:
            if loop.is_closed() or loop.is_running():
                continue
            with contextlib.suppress(TimeoutError, ExceptionGroup):
                loop.run_until_complete(asyncio.wait_for(self.stop_all(), SECONDS_AT_EXIT))


async def _stop(running: _Running) -> None:
    """Close a resource on the loop it lives on."""
    here = asyncio.get_running_loop()
    if running.loop is here:
        await _close(running.resource)
    elif running.loop.is_running():  # another thread's: close it there
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_close(running.resource), running.loop))
    else:
        # That loop has ended, with its tasks and connections. A resource that holds processes can still end them;
        # any other raises RuntimeError because its loop is closed, which is expected.
        with contextlib.suppress(RuntimeError, TimeoutError):
            await asyncio.wait_for(_close(running.resource), SECONDS_AT_EXIT)


async def _close(resource: Any) -> None:
    if isinstance(resource, asyncio.Task):
        resource.cancel()
        await asyncio.wait([resource])  # `_report_failure` has reported its error, if any
        return
    for name in ("aclose", "stop", "close"):
        if close := getattr(resource, name, None):
            closing = close()
            if inspect.isawaitable(closing):
                await closing
            return
    raise TypeError(f"cannot be stopped: it has no aclose(), stop() or close(): {resource!r}")  # not shown: a bug


def _report_failure(task: asyncio.Task[Any]) -> None:
    if task.cancelled() or (error := task.exception()) is None:
        return
    message = f"background task {task.get_name()!r} died"  # not shown: a log line
    task.get_loop().call_exception_handler({"message": message, "exception": error, "task": task})


lab = Lab()
"""The lab of this process."""
lab.log.open()

atexit.register(lab._stop_at_exit)
