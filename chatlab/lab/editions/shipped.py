"""The notebooks as they were shipped, and how to restore them without losing a learner's work.

In a clone, git has the shipped notebooks, in the last commit shared with upstream. An installed package contains them,
and `lay_out` copies them to the learner's folder. Otherwise `remember` has made a copy when the workbook was first
opened. The learner's other files are left alone.
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
from chatlab.locale import _

__all__ = ["FOLDER", "Reset", "changed", "lay_out", "new_aside", "notebooks", "put", "remember", "reset"]

# `chatlab lab` of an installed package puts the notebooks here, below the current folder.
FOLDER = Path("chatlab-lessons")
PACKAGED = Path(__file__).with_name("notebooks")  # in an installed package only; see pyproject.toml


@dataclass(frozen=True, slots=True)
class Reset:
    """The result of `reset`: the files restored, and the folder with the learner's copies."""

    restored: list[str]
    aside: Path


def notebooks() -> Path:
    """Return the folder of the notebooks: the current one, one above it, or that beside the package.

    Raises `SetupError` if there is none.
    """
    for folder in (Path.cwd(), *Path.cwd().parents, Path(chatlab.__file__).parents[1]):
        if (folder / LANDMARK).exists():
            return (folder / LANDMARK).parent
    raise _no_notebooks()


def lay_out(folder: Path) -> Path:
    """Copy the package's notebooks to `folder`/notebooks; return that folder.

    An existing notebook is not changed, because it may contain the learner's work. Raises `SetupError` if the package
    has no notebooks, as in a clone, or the folder cannot be written to.
    """
    if not PACKAGED.is_dir():
        raise _no_notebooks()
    below = folder / LANDMARK.parent
    try:
        below.mkdir(parents=True, exist_ok=True)
        for file in sorted(PACKAGED.glob("*.ipynb")):
            if not (below / file.name).exists():
                shutil.copyfile(file, below / file.name)
    except OSError as error:
        failure = _("cannot write to {folder}: {error}").format(folder=folder, error=error.strerror)
        raise SetupError(failure, _("name another folder: --to FOLDER")) from error
    return below


def _no_notebooks() -> SetupError:
    failure = _("no {notebook} here").format(notebook=LANDMARK)
    return SetupError(failure, _("run it in the folder you cloned"))


def remember() -> None:
    """Keep a copy of the notebooks, once, unless git or the package has them."""
    folder, copy = notebooks(), home() / "shipped"
    if not PACKAGED.is_dir() and _commit(folder) is None and not copy.exists():
        draft = copy.with_name("shipped.tmp")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(folder, draft, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        draft.rename(copy)  # completely or not at all


def reset(lessons: Sequence[str] = ()) -> Reset:
    """Restore the notebooks, or those whose names begin with one of `lessons`.

    Files that differ from the shipped state are moved into a new folder first. Raises `SetupError` if the shipped state
    is unknown, or no notebook has such a name.
    """
    folder = notebooks()
    files = _shipped(folder)
    wanted = {name: data for name, data in files.items() if not lessons or name.startswith(tuple(lessons))}
    for lesson in lessons:
        if not any(name.startswith(lesson) for name in files):
            failure = _("no notebook begins with {lesson!r}").format(lesson=lesson)
            raise SetupError(failure, _("there are {notebooks}").format(notebooks=", ".join(sorted(files))))
    aside = new_aside()
    restored = [name for name, data in wanted.items() if put(folder / name, data, aside / name)]
    return Reset(restored, aside)


def new_aside() -> Path:
    """Return the path of a new folder for files set aside, unique to the microsecond; it is created when needed."""
    return home() / "aside" / f"{datetime.now():%Y-%m-%d_%H.%M.%S.%f}"


def put(file: Path, shipped: bytes, aside: Path) -> bool:
    """Write a file; move an existing one that differs to `aside`. Return whether anything changed."""
    if file.exists():
        if file.read_bytes() == shipped:
            return False
        aside.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(file, aside)  # not rename: the target may be on another file system
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(shipped)
    return True


def changed() -> list[str]:
    """Return the notebooks that are not as shipped. Raises `SetupError` if the shipped state is unknown."""
    folder = notebooks()
    files = _shipped(folder).items()
    return [name for name, data in files if not (folder / name).exists() or (folder / name).read_bytes() != data]


def _shipped(folder: Path) -> dict[str, bytes]:
    """Return each file as it was shipped, by its name below `folder`."""
    if PACKAGED.is_dir():
        return {file.name: file.read_bytes() for file in PACKAGED.glob("*.ipynb")}
    if commit := _commit(folder):
        names = _git(folder, "ls-tree", "-r", "-z", "--name-only", commit).decode().split("\0")
        return {name: _git(folder, "show", f"{commit}:./{name}") for name in names if name}
    copy = home() / "shipped"
    if not copy.exists():
        raise SetupError(
            _("the shipped notebooks are not known here"), _("download the project again, and copy its notebooks/")
        )
    return {str(file.relative_to(copy)): file.read_bytes() for file in copy.rglob("*") if file.is_file()}


def _commit(folder: Path) -> str | None:
    """Return the commit of the shipped notebooks: the newest one shared with upstream, so that a learner may commit."""
    for arguments in (["merge-base", "HEAD", "@{upstream}"], ["rev-parse", "HEAD"]):
        try:
            commit = _git(folder, *arguments).decode().strip()
            _git(
                folder, "cat-file", "-e", f"{commit}:./{LANDMARK.name}"
            )  # this is the project's clone, not another repository
            return commit
        except (OSError, subprocess.CalledProcessError):
            continue
    return None


def _git(folder: Path, *arguments: str) -> bytes:
    return subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True).stdout
