"""Bounds around the process that runs a learner's code: what an unprivileged user can have, without a container.

    with_bounds(folder)        once, at the start of the process; there is no way back

- **Network.** On Linux, where the kernel lets a user have namespaces (`unshare -rn`), the process gets a network of its
  own that has a loopback and nothing else. Everywhere, connecting, binding or sending to an address that is not this
  machine's loopback raises `PermissionError` in Python, and so does looking up a name.
- **Memory, processor time, file size, processes**: setrlimit(2), hard limits, where there is one.
- **Files and processes.** Writing, deleting or renaming outside the process's own folder raises `PermissionError`; so
  does starting a process, or loading a C library, from a learner's cell.

The checks in Python are audit hooks (PEP 578), which cannot be removed. They stop accidents and simple mischief, not an
attack: the PEP says itself that they are no sandbox. Code that has reached C (through a module that is loaded already,
say) is stopped by the kernel's limits alone. To be safe from a determined attacker, grade in a container.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from chatlab.locale import _

__all__ = ["CELL", "MEMORY", "PRINTED", "PROCESSOR_SECONDS", "with_bounds"]

MEMORY: Final = 1 << 30  # bytes above what the process has when it starts, virtual
PROCESSOR_SECONDS: Final = 120
FILE: Final = 64 << 20  # bytes
PROCESSES: Final = 256  # of the user, in a namespace of its own
PRINTED: Final = 1 << 20
CELL: Final = "<exercise "  # how the file name of a learner's code begins
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h
SIOCSIFFLAGS, IFF_UP = 0x8914, 1  # linux/sockios.h, linux/if.h


def with_bounds(folder: Path) -> bool:
    """Put the bounds around this process, which owns `folder`; return whether it has a network of its own."""
    alone = _own_network()
    _limit()
    sys.addaudithook(_Watch(folder).look)
    return alone


def _own_network() -> bool:
    """Give this process a network with nothing but a loopback, where the kernel allows it to a user."""
    if sys.platform != "linux":
        return False
    import fcntl
    import socket

    user, group = os.getuid(), os.getgid()
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        return False
    with contextlib.suppress(OSError):  # it would run without names for user and group, too
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    return True


def _limit() -> None:
    if sys.platform == "win32":
        return
    import resource

    limits = {"RLIMIT_CPU": PROCESSOR_SECONDS, "RLIMIT_FSIZE": FILE, "RLIMIT_CORE": 0, "RLIMIT_NPROC": PROCESSES}
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limits["RLIMIT_AS"] = pages * resource.getpagesize() + MEMORY
        if os.getuid() != 0 and not _in_own_users():
            del limits["RLIMIT_NPROC"]  # it would count what the user runs outside
    for name, value in limits.items():
        if (kind := getattr(resource, name, None)) is not None:
            hard = resource.getrlimit(kind)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (value, value))


def _in_own_users() -> bool:
    """Whether this process is in a user namespace of its own: then the map has one line, for one user."""
    return Path("/proc/self/uid_map").read_text().split()[-1:] == ["1"]


class _Watch:
    """The audit hook: refuses what leaves this machine or this process's folder."""

    def __init__(self, folder: Path) -> None:
        self._inside = (f"{os.path.realpath(folder)}{os.sep}", "/dev/null", "/dev/tty", "/proc/self/")
        self._folder = os.path.realpath(folder)
        self._looks: dict[str, Callable[[tuple[Any, ...]], None]] = {
            "socket.connect": lambda given: _to_loopback(given[1]),
            "socket.bind": lambda given: _to_loopback(given[1]),
            "socket.sendto": lambda given: _to_loopback(given[1]),
            "socket.sendmsg": lambda given: _to_loopback(given[1]),
            "socket.getaddrinfo": lambda given: _to_loopback(given),
            "socket.gethostbyname": lambda given: _to_loopback(given),
            "open": self._open,
            **dict.fromkeys(("os.remove", "os.rmdir", "os.mkdir", "os.truncate"), self._write),
            **dict.fromkeys(("os.chmod", "os.chown", "os.utime", "shutil.rmtree", "shutil.move"), self._write),
            **dict.fromkeys(("os.rename", "os.link", "os.symlink"), self._write_both),
            **dict.fromkeys(("os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.spawn", "os.system"), _start),
            **dict.fromkeys(("subprocess.Popen", "pty.spawn", "os.startfile"), _start),
            **dict.fromkeys(("ctypes.dlopen", "ctypes.dlsym", "os.kill", "os.killpg", "signal.pthread_kill"), _start),
        }

    def look(self, event: str, given: tuple[Any, ...]) -> None:
        """Raise `PermissionError` for an event that is out of bounds."""
        if look := self._looks.get(event):
            look(given)

    def _open(self, given: tuple[Any, ...]) -> None:
        path, __, flags = given
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        if writes and not isinstance(path, int):
            self._write((path,))

    def _write(self, given: tuple[Any, ...]) -> None:
        path = given[0]
        if isinstance(path, int):
            return
        real = os.path.realpath(os.fsdecode(path))
        if real != self._folder and not real.startswith(self._inside):
            line = _("code that is graded may write in its own folder only, not at {path}")
            raise PermissionError(line.format(path=os.fsdecode(path)))

    def _write_both(self, given: tuple[Any, ...]) -> None:
        self._write(given[:1])
        self._write(given[1:2])


def _to_loopback(address: Any) -> None:
    if not isinstance(address, tuple) or not address:
        return  # a path of this machine, as of a Unix socket
    host = address[0].decode() if isinstance(address[0], bytes) else address[0]
    if host in (None, "", "localhost"):
        return
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(str(host).partition("%")[0]).is_loopback:
            return
    raise PermissionError(_("code that is graded may connect to this machine only, not to {host}").format(host=host))


def _start(given: tuple[Any, ...]) -> None:
    """Refuse to a learner's code what the checks themselves may do: they start servers."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_filename.startswith(CELL):
            raise PermissionError(_("code that is graded may not start, stop or become another process"))
