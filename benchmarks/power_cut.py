"""Cut the power under each engine, and count what is left of 200 messages. Needs root on Linux, and mkfs.ext4.

    sudo .venv/bin/python -m benchmarks.power_cut               about two minutes, prints the table
    sudo .venv/bin/python -m benchmarks.power_cut --record      also writes it to the lesson's recorded run
    sudo .venv/bin/python -m benchmarks.power_cut redis kafka   only these engines

Each engine keeps its data on a disk of its own: an ext4 file system in a file, on a loop device. The cut is ext4's
"shutdown" (EXT4_IOC_SHUTDOWN without a flush of the journal, as the kernel's own crash tests do it): from then on
nothing reaches the disk, and what the kernel had only in memory is gone. The engine is killed, the disk is mounted
again, which replays its journal, and the engine starts on what it finds. What was synced (fsync, fdatasync) is there;
the rest only if the kernel happened to write it before the cut. `kill -9`, in contrast, leaves what the kernel holds in
memory.

Left out: disks that lose what they have confirmed, and torn sectors.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from chatlab.lab.engines import engine as engines
from chatlab.lab.experiments import recorded
from chatlab.lab.experiments.trials.faults import Left, Setting, by_engine, survive

SIZE = 1 << 30  # bytes; the file is sparse
SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN: _IOR('X', 125, __u32)
NO_LOG_FLUSH = 2  # EXT4_GOING_FLAGS_NOLOGFLUSH: do not even write the journal
PACE = 0.01  # seconds between two messages: 200 of them take longer than the second of `everysec`


class Disk:
    """A disk whose power can be cut."""

    def __init__(self, place: Path) -> None:
        self.folder = place / "disk"
        self._image = place / "image"
        self.folder.mkdir()
        with self._image.open("wb") as image:
            image.truncate(SIZE)
        run("mkfs.ext4", "-q", str(self._image))
        self.mount()

    def mount(self) -> None:
        """Put the file system in its folder; after a cut, this replays its journal."""
        run("mount", "-o", "loop", str(self._image), str(self.folder))

    def unmount(self) -> None:
        run("umount", str(self.folder))

    def settle(self) -> None:
        """Write all that is on it, as would have happened long ago to queues that are in use."""
        run("sync", "-f", str(self.folder))

    def cut(self) -> None:
        """Let nothing reach the disk from now on."""
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(handle)


@contextlib.contextmanager
def disk() -> Iterator[Disk]:
    with contextlib.ExitStack() as stack:
        made = Disk(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chatlab-power-cut-"))))
        stack.callback(made.unmount)
        yield made


async def cut_under(settings: Sequence[Setting]) -> list[Left]:
    """Return what a power cut leaves in a store of each setting."""
    with disk() as own:
        async with await engines.start(settings[0].kind, own.folder / "data", settings[0].options, own=True) as engine:

            def cut() -> None:
                own.cut()  # first: what a killed server has written is with the kernel, which would put it on the disk
                engine.kill()

            async def turn_on() -> None:
                await engine.shut_down()  # its helpers; the server is dead
                own.unmount()
                own.mount()
                await engine.restart()

            try:
                return await survive(engine, settings, cut, turn_on, pace=PACE, before=own.settle)
            finally:
                await engine.shut_down()


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


async def measure(kinds: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return what is left, by engine and setting; print it on the way."""
    found: dict[str, dict[str, int]] = {}
    for settings in by_engine():
        if settings[0].kind in kinds:
            for setting, (confirmed, left) in zip(settings, await cut_under(settings), strict=True):
                found.setdefault(setting.engine, {})[setting.key] = left
                print(f"{setting.engine:14} {setting.key:28} {confirmed:4} confirmed, {left:4} left", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("kinds", nargs="*", default=["redis", "rabbitmq", "kafka"], help="the engines")
    parser.add_argument("--record", action="store_true", help="write the outcome to the lesson's recorded run")
    options = parser.parse_args()
    if sys.platform != "linux" or os.geteuid() != 0:
        sys.exit("cutting the power of a disk needs root on Linux")
    found = asyncio.run(measure(options.kinds))
    if options.record:
        content = json.loads(recorded.FILE.read_text(encoding="utf-8"))
        content["power cut"] = {"machine": recorded.machine(), "date": recorded.today(), "left": found}
        recorded.write(content)


if __name__ == "__main__":
    main()
