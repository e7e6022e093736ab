"""Runs one server for a parent that may die at any moment, and ends the server when it does.

`python guard.py [--lock FD] [--remove FOLDER] -- COMMAND...`: standard input is the lifeline, a pipe whose other end is
the parent's alone. When the parent goes, even by SIGKILL, the kernel closes that end; the guard then ends the server
with all its helpers, and removes FOLDER. A server that ends by itself leaves FOLDER as it is: it may be started again.
The server's process id is the one line on standard output.

On Linux the kernel also kills the server should the guard itself be killed. Standard library only: it starts fast.
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
import threading
from collections.abc import Callable

GRACE = 5.0  # seconds between asking the server to stop and killing it
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent() -> Callable[[], None] | None:
    """Make what runs in the new process before the server does: prctl(2), where there is one."""
    if sys.platform != "linux":
        return None
    libc, guard = ctypes.CDLL(None), os.getpid()

    def between_fork_and_exec() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:  # the guard died before the call: no signal will come
            os._exit(1)

    return between_fork_and_exec


def signal_all(server: subprocess.Popen[bytes], number: int) -> None:
    """Signal the server's process group, which holds its helpers too."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: "not permitted" of a group of zombies
        os.killpg(server.pid, number)


def wait_for_the_end_of_the_lifeline(parent: int) -> None:
    """Return once the parent has closed its end, or is gone though a fork of it still holds that end open."""
    while not select.select([0], [], [], 0.5)[0]:
        if os.getppid() != parent:
            return


def end_with_the_parent(server: subprocess.Popen[bytes], parent: int, parent_has_gone: threading.Event) -> None:
    """Wait on the lifeline, then end the server: politely first."""
    wait_for_the_end_of_the_lifeline(parent)
    parent_has_gone.set()
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(GRACE)
    except subprocess.TimeoutExpired:
        signal_all(server, signal.SIGKILL)


def main(arguments: list[str]) -> int:
    """Run the command after `--`; return its exit status."""
    parent = os.getppid()
    options, command = arguments[: arguments.index("--")], arguments[arguments.index("--") + 1 :]
    settings = dict(zip(options[::2], options[1::2], strict=True))
    # The lock on the data folder goes to the server: it is held just as long as a process that may write there lives.
    locks = [int(settings["--lock"])] if "--lock" in settings else []
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        pass_fds=locks,
        process_group=0,  # Ctrl-C in the terminal is the parent's affair
        preexec_fn=die_with_parent(),
    )
    print(server.pid, flush=True)
    parent_has_gone = threading.Event()
    threading.Thread(target=end_with_the_parent, args=(server, parent, parent_has_gone), daemon=True).start()
    status = server.wait()
    signal_all(server, signal.SIGKILL)
    if "--remove" in settings and parent_has_gone.is_set():
        shutil.rmtree(settings["--remove"], ignore_errors=True)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
