"""The notebooks as they were shipped, and the way back to them without losing a learner's own work.

In a clone, git knows what was shipped: the last commit that came from elsewhere. An installed package carries the
notebooks, and `lay_out` copies them to where the learner works. Elsewhere, `remember` has made a copy when the workbook
was first opened. The learner's other files are left alone.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import chatlab
from chatlab.errors import SetupError
from chatlab.lab.home import LANDMARK, home

__all__ = ["FOLDER", "Reset", "changed", "lay_out", "new_aside", "notebooks", "put", "remember", "reset"]

# Where `chatlab lab` of an installed package puts the notebooks, below the folder it is run in.
FOLDER = Path("chatlab-lessons")
PACKAGED = Path(__file__).with_name("notebooks")  # in an installed package only; see pyproject.toml


@dataclass(frozen=True, slots=True)
class Reset:
    """What `reset` did: the files it restored, and the folder that holds the learner's copies."""

    restored: list[str]
    aside: Path


def notebooks() -> Path:
    """The folder of the notebooks: where one is working, or beside the package. Raises `SetupError`."""
    for folder in (Path.cwd(), *Path.cwd().parents, Path(chatlab.__file__).parents[1]):
        if (folder / LANDMARK).exists():
            return (folder / LANDMARK).parent
    raise SetupError(f"no {LANDMARK} here", "go to the folder you cloned, and call it there")


def lay_out(folder: Path) -> Path:
    """Copy the notebooks that the package carries to `folder`/notebooks; return that folder.

    A notebook that is there stays as it is: it may hold the learner's work. Raises `SetupError` if the package carries
    none, as in a clone, or the folder cannot be written to.
    """
    if not PACKAGED.is_dir():
        raise SetupError(f"no {LANDMARK} here", "go to the folder you cloned, and call it there")
    below = folder / LANDMARK.parent
    try:
        below.mkdir(parents=True, exist_ok=True)
        for file in sorted(PACKAGED.glob("*.ipynb")):
            if not (below / file.name).exists():
                shutil.copyfile(file, below / file.name)
    except OSError as error:
        raise SetupError(f"cannot write to {folder}: {error.strerror}", "name another folder: --to FOLDER") from error
    return below


def remember() -> None:
    """Where git cannot say what was shipped: keep a copy, once."""
    folder, copy = notebooks(), home() / "shipped"
    if not PACKAGED.is_dir() and _commit(folder) is None and not copy.exists():
        draft = copy.with_name("shipped.tmp")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(folder, draft, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        draft.rename(copy)  # whole or not at all


def reset(lessons: Sequence[str] = ()) -> Reset:
    """Restore the notebooks, or those whose names begin with one of `lessons`.

    What differs from the shipped state is moved into a new folder first. Raises `SetupError` if nobody knows what was
    shipped, or no notebook begins so.
    """
    folder = notebooks()
    files = _shipped(folder)
    wanted = {name: data for name, data in files.items() if not lessons or name.startswith(tuple(lessons))}
    for lesson in lessons:
        if not any(name.startswith(lesson) for name in files):
            raise SetupError(f"no notebook begins with {lesson!r}", f"there are {', '.join(sorted(files))}")
    aside = new_aside()
    restored = [name for name, data in wanted.items() if put(folder / name, data, aside / name)]
    return Reset(restored, aside)


def new_aside() -> Path:
    """A folder for what is put aside now; it is made when it is needed. Two within one second are two."""
    return home() / "aside" / f"{datetime.now():%Y-%m-%d_%H.%M.%S.%f}"


def put(file: Path, shipped: bytes, aside: Path) -> bool:
    """Write one file, moving what was there and differs to `aside`; whether there was anything to do."""
    if file.exists():
        if file.read_bytes() == shipped:
            return False
        aside.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(file, aside)  # not rename: it may be another file system
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(shipped)
    return True


def changed() -> list[str]:
    """The notebooks that are not as they were shipped. Raises `SetupError` if nobody knows what was shipped."""
    folder = notebooks()
    files = _shipped(folder).items()
    return [name for name, data in files if not (folder / name).exists() or (folder / name).read_bytes() != data]


def _shipped(folder: Path) -> dict[str, bytes]:
    """Each file as it was shipped, by its name below `folder`."""
    if PACKAGED.is_dir():
        return {file.name: file.read_bytes() for file in PACKAGED.glob("*.ipynb")}
    if commit := _commit(folder):
        names = _git(folder, "ls-tree", "-r", "-z", "--name-only", commit).decode().split("\0")
        return {name: _git(folder, "show", f"{commit}:./{name}") for name in names if name}
    copy = home() / "shipped"
    if not copy.exists():
        raise SetupError("nobody here knows what was shipped", "download the project again, and copy its notebooks/")
    return {str(file.relative_to(copy)): file.read_bytes() for file in copy.rglob("*") if file.is_file()}


def _commit(folder: Path) -> str | None:
    """The commit the notebooks were shipped in: the newest one shared with upstream, so that a learner may commit."""
    for arguments in (["merge-base", "HEAD", "@{upstream}"], ["rev-parse", "HEAD"]):
        try:
            commit = _git(folder, *arguments).decode().strip()
            _git(folder, "cat-file", "-e", f"{commit}:./{LANDMARK.name}")  # this is the project's clone, not another's
            return commit
        except (OSError, subprocess.CalledProcessError):
            continue
    return None


def _git(folder: Path, *arguments: str) -> bytes:
    return subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True).stdout
