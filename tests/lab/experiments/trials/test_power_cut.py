"""The power cut really drops what was not synced. It needs root, who may mount a file system."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import power_cut
from chatlab.lab.experiments.trials.faults import SETTINGS, Left

pytestmark = pytest.mark.skipif(
    not (os.name == "posix" and os.geteuid() == 0 and shutil.which("mkfs.ext4") and Path("/dev/loop-control").exists()),
    reason="only root on Linux can cut the power of a disk",
)


@pytest.fixture
def disk() -> Iterator[power_cut.Disk]:
    with contextlib.ExitStack() as stack:
        try:
            disk = stack.enter_context(power_cut.disk())
        except subprocess.CalledProcessError as error:
            pytest.skip(f"this root may not mount a file system: {error}")
        yield disk


def written(path: Path, text: str, *, sync: bool) -> None:
    with path.open("w") as file:
        file.write(text)
        file.flush()
        if sync:
            os.fsync(file.fileno())


@pytest.mark.parametrize("cut", [True, False])
def test_after_a_cut_a_disk_has_what_was_synced_and_not_what_was_only_written(
    disk: power_cut.Disk, *, cut: bool
) -> None:
    written(disk.folder / "synced", "here", sync=True)
    written(disk.folder / "written", "here", sync=False)
    if cut:
        disk.cut()
    disk.unmount()
    disk.mount()

    assert (disk.folder / "synced").read_text() == "here"
    unsynced = disk.folder / "written"
    assert (unsynced.exists() and unsynced.read_text() == "here") is not cut


async def test_a_redis_that_syncs_before_it_answers_keeps_all_and_one_without_a_file_nothing(
    disk: power_cut.Disk,
) -> None:
    always, none = (next(each for each in SETTINGS if each.key == key) for key in ("always", "no-file"))

    assert await power_cut.cut_under([always]) == [Left(200, 200)]
    assert await power_cut.cut_under([none]) == [Left(200, 0)]
