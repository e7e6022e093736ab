"""Describe a process: the stack of every thread and asyncio task, and the unread bytes in its sockets.

`report()` describes the calling process. To ask another process, call `answer_in(folder)` there first: it starts a
thread that replies with the same report, even while the main thread is busy. If the thread does not answer because
something holds the interpreter's lock, a signal makes the interpreter itself write the stacks of its threads.

This file imports nothing from the project, so that a notebook's kernel can run it by its path.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import linecache
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PATIENCE = 5.0  # seconds to wait for another process's report
SOCKET = "stacks.socket"
DUMP = "stacks.txt"


def report() -> str:
    """Describe this process: load, threads, asyncio tasks, sockets."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    head = f"process {os.getpid()}, {time.process_time():.1f} s of CPU time used, load average {load}"
    return "\n".join([head, *threads(), *tasks(), *sockets()])


def threads() -> Iterator[str]:
    """Yield the stack of each thread, innermost call last."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        yield f"--- thread {names.get(ident, ident)}"
        yield "".join(traceback.format_stack(frame)).rstrip()


def tasks() -> Iterator[str]:
    """Yield each asyncio task that is not done: its chain of awaits, then what it waits for."""
    all_tasks = [candidate for candidate in gc.get_objects() if isinstance(candidate, asyncio.Task)]
    for task in sorted((task for task in all_tasks if not task.done()), key=lambda task: task.get_name()):
        yield f"--- task {task.get_name()}: {name_of(task.get_coro())}"
        yield from awaits(task.get_coro())
        yield f"  waits for {getattr(task, '_fut_waiter', None)!r}"  # private; None if it is running or ready to run


def name_of(coroutine: Any) -> str:
    return getattr(coroutine, "__qualname__", repr(coroutine))


FRAMES = ("cr_frame", "gi_frame", "ag_frame")
AWAITED = ("cr_await", "gi_yieldfrom", "ag_await")


def first_of(candidate: Any, names: tuple[str, ...]) -> Any:
    return next((value for name in names if (value := getattr(candidate, name, None)) is not None), None)


def awaits(awaited: Any) -> Iterator[str]:
    """Yield two lines for each coroutine in a chain; `Task.get_stack` shows only the outermost of a suspended task."""
    while awaited is not None:
        if (
            frame := first_of(awaited, FRAMES)
        ) is None:  # a step of an async generator refers to its generator only through gc
            awaited = next(
                (candidate for candidate in gc.get_referents(awaited) if first_of(candidate, FRAMES) is not None), None
            )
            continue
        file, line = frame.f_code.co_filename, frame.f_lineno
        yield f'  File "{file}", line {line}, in {frame.f_code.co_qualname}'
        yield f"    {linecache.getline(file, line, frame.f_globals).strip()}"
        awaited = first_of(awaited, AWAITED)


def sockets() -> Iterator[str]:
    """Yield each TCP socket of this process with its unread and unsent bytes (on Linux only)."""
    own = set()
    for descriptor in Path("/proc/self/fd").glob("*"):
        with contextlib.suppress(OSError):
            own.add(str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]"))
    states = {"01": "established", "02": "connecting", "08": "closed by the peer", "0A": "listening"}
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]:
            _, local, remote, state, queues, *rest = line.split()
            if rest[4] in own:
                unsent, unread = (int(number, 16) for number in queues.split(":"))
                ports = " to ".join(str(int(address.partition(":")[2], 16)) for address in (local, remote))
                yield f"--- socket {states.get(state, state)}, port {ports}: {unread} unread, {unsent} unsent"


def answer_in(folder: str) -> None:
    """Let other processes request the report of this one through files in `folder`."""
    if hasattr(faulthandler, "register"):
        dump = Path(folder, DUMP).open("w")  # noqa: SIM115  # open until the process ends
        faulthandler.register(signal.SIGUSR1, file=dump)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(Path(folder, SOCKET)))
    server.listen()
    threading.Thread(target=_answer, args=(server,), name="answers with stacks", daemon=True).start()


def _answer(server: socket.socket) -> None:
    while True:
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(report().encode())


def ask(folder: str, pid: int) -> str:
    """Return the report of the process `pid`, which answers in `folder`; otherwise the stacks of its threads."""
    try:
        return _asked(folder)
    except OSError as error:
        refusal = f"process {pid} does not answer: {error!r}"
    if not Path(folder, DUMP).exists():  # without a handler, the signal would end the process
        return refusal
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGUSR1)
        time.sleep(1)  # no event announces that the dump is complete
    return f"{refusal}; its interpreter wrote on SIGUSR1:\n{Path(folder, DUMP).read_text()}"


def _asked(folder: str) -> str:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        client.connect(str(Path(folder, SOCKET)))
        with client.makefile(encoding="utf-8") as answer:
            return answer.read()
