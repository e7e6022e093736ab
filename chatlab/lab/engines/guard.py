"""Run one server for a parent that may die at any moment, and end the server when the parent does.

`python guard.py [--lock FD] [--remove FOLDER] -- COMMAND...`: standard input is a pipe whose other end only the parent
holds. A byte there asks the guard to end the server. The end of the stream means that the parent has died, even by
SIGKILL, because the kernel closes the files of a dead process: the guard then ends the server with all its helpers and
removes FOLDER. The server's process id is the only line on standard output.

On Linux the kernel also kills the server if the guard itself is killed. Standard library only: it starts fast.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from enum import Enum, auto

GRACE = 5.0  # seconds between asking the server to stop and killing it
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class End(Enum):
    """Why the guard ends."""

    SERVER_DIED = auto()
    STOP_REQUESTED = auto()
    PARENT_DIED = auto()


def die_with_guard() -> Callable[[], None] | None:
    """Return the function that runs in the new process before the server: prctl(2), on Linux."""
    if sys.platform != "linux":
        return None
    libc, guard = ctypes.CDLL(None), os.getpid()

    def between_fork_and_exec() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:  # the guard died before the call, so no signal will come
            os._exit(1)

    return between_fork_and_exec


def wake_up_on_child() -> int:
    """Return a file descriptor that becomes readable when a child has died, so that select() can wait for that too."""
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writable)
    return readable


def watch(server: subprocess.Popen[bytes], parent: int, child_died: int) -> End:
    """Wait until the server dies, a stop is requested, or the parent dies."""
    while server.poll() is None:
        ready, _, _ = select.select([0, child_died], [], [], 0.5)
        if 0 in ready:
            return End.STOP_REQUESTED if os.read(0, 1) else End.PARENT_DIED
        if os.getppid() != parent:  # it has died, though a fork of it still holds the pipe open
            return End.PARENT_DIED
        if child_died in ready:
            os.read(child_died, 64)
    return End.SERVER_DIED


def end(server: subprocess.Popen[bytes], *, gracefully: bool) -> int:
    """End the server and the rest of its process group; return its exit status."""
    if gracefully:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(GRACE)
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: "not permitted" of a group of zombies
        os.killpg(server.pid, signal.SIGKILL)
    return server.wait()


def main(arguments: list[str]) -> int:
    """Run the command after `--`; return its exit status."""
    parent, child_died = os.getppid(), wake_up_on_child()
    options, command = arguments[: arguments.index("--")], arguments[arguments.index("--") + 1 :]
    settings = dict(zip(options[::2], options[1::2], strict=True))
    # The server inherits the lock on the data folder, so it is held exactly as long as a process may write there.
    locks = [int(settings["--lock"])] if "--lock" in settings else []
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        pass_fds=locks,
        process_group=0,  # Ctrl-C in the terminal is for the parent to handle
        preexec_fn=die_with_guard(),
    )
    print(server.pid, flush=True)
    why = watch(server, parent, child_died)
    unwanted = settings.get("--remove") if why is End.PARENT_DIED else None
    status = end(server, gracefully=unwanted is None)  # the data of a private folder is not needed any more
    if unwanted is not None:
        shutil.rmtree(unwanted, ignore_errors=True)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
