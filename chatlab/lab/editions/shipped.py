"""The notebooks as they were shipped, the learner's copy of them, and the way back.

A clone has the notebooks in `notebooks/`, with outputs, to be read; an installed package contains them. `chatlab lab`
copies them to the learner's folder, without outputs, so that a prediction is not answered before it is made
(`lay_out`). There, a record of what was copied tells a learner's work from an old copy, which is brought up to date.
The learner's other files are left alone.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import chatlab
from chatlab.errors import SetupError
from chatlab.lab.home import FOLDER, LANDMARK, home, workbook
from chatlab.locale import _

__all__ = [
    "Copy",
    "Reset",
    "changed",
    "documents",
    "lay_out",
    "learners_folder",
    "new_aside",
    "notebooks",
    "put",
    "reset",
    "sources",
    "stripped",
]

RECORD = ".as-shipped.json"  # in the learner's folder: the digest of each notebook as it was copied
PACKAGED = Path(__file__).with_name("notebooks")  # in an installed package only; see pyproject.toml


@dataclass(frozen=True, slots=True)
class Reset:
    """The result of `reset`: the files restored, and the folder with the learner's copies."""

    restored: list[str]
    aside: Path


@dataclass(frozen=True, slots=True)
class Copy:
    """The learner's notebooks, whether they are new, and which have a newer version that would overwrite work."""

    notebooks: Path
    new: bool
    outdated: list[str]


def notebooks() -> Path:
    """Return the folder of the notebooks in use: the learner's copy, or where it is copied from.

    Raises `SetupError` if there is none.
    """
    folder = workbook()
    return (folder / LANDMARK).parent if folder else sources()


def sources() -> Path:
    """Return the folder of the notebooks as shipped, which is never a learner's copy: the package's, or the clone's.

    Raises `SetupError` if there is none.
    """
    if PACKAGED.is_dir():
        return PACKAGED
    for folder in (Path.cwd(), *Path.cwd().parents, Path(chatlab.__file__).parents[1]):
        below = (folder / LANDMARK).parent
        if (folder / LANDMARK).exists() and not (below / RECORD).exists():
            return below
    raise _no_notebooks()


def learners_folder() -> Path:
    """Return where the learner's copy is, or is to be made: beside a clone's notebooks, or in the current folder."""
    folder = workbook()
    if folder and (folder / LANDMARK.parent / RECORD).exists():
        return folder
    source = sources()
    return (Path.cwd() if source == PACKAGED else source.parent) / FOLDER


def lay_out(folder: Path) -> Copy:
    """Copy the notebooks, without outputs, to `folder`/notebooks, and the documents they link to.

    A notebook that is unchanged since it was copied is brought up to date; one that contains the learner's work is not
    touched. Raises `SetupError` if there are no notebooks, or the folder cannot be written to.
    """
    source, below = sources(), folder / LANDMARK.parent
    new = not below.exists()
    try:
        below.mkdir(parents=True, exist_ok=True)
        outdated = _bring_up_to_date(below, _as_learners(source))
        for name, data in documents(source).items():
            (folder / "docs").mkdir(exist_ok=True)
            (folder / "docs" / name).write_bytes(data)
        _take_progress(source.parent, folder)
    except OSError as error:
        failure = _("cannot write to {folder}: {error}").format(folder=folder, error=error.strerror)
        raise SetupError(failure, _("name another folder: --to FOLDER")) from error
    return Copy(below, new, outdated)


def _bring_up_to_date(below: Path, files: dict[str, bytes]) -> list[str]:
    """Write each file that is missing or unchanged; return the names of the others that have a newer version."""
    record = below / RECORD
    copied: dict[str, str] = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    outdated = []
    for name, data in files.items():
        file, digest = below / name, _digest(data)
        if not file.exists() or _digest(file.read_bytes()) in (copied.get(name), digest):
            if copied.get(name) != digest or not file.exists():
                file.write_bytes(data)
            copied[name] = digest
        elif copied.setdefault(name, digest) != digest:
            outdated.append(name)
    draft = record.with_suffix(".tmp")
    draft.write_text(json.dumps(copied, indent=1), encoding="utf-8")
    draft.replace(record)
    return outdated


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _take_progress(clone: Path, folder: Path) -> None:
    """Copy what an older version has kept beside a clone's notebooks to a new learner's folder."""
    old, own = clone / ".chatlab", folder / ".chatlab"
    if old.is_dir() and not own.exists() and clone != folder:
        for name in ("progress", "claims"):
            if (old / name).is_dir():
                shutil.copytree(old / name, own / name)


def _as_learners(source: Path) -> dict[str, bytes]:
    return {file.name: stripped(file.read_bytes()) for file in sorted(source.glob("[0-9][0-9]_*.ipynb"))}


def stripped(notebook: bytes) -> bytes:
    """Return a notebook without outputs, as if none of its cells had run."""
    content = json.loads(notebook)
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    return f"{json.dumps(content, indent=1, ensure_ascii=False)}\n".encode()


def documents(source: Path) -> dict[str, bytes]:
    """Return the documents that the notebooks link to, by name."""
    texts = "".join(file.read_text(encoding="utf-8") for file in source.glob("*.ipynb"))
    names = sorted(set(re.findall(r"\]\(\.\./docs/([\w.-]+)", texts)))
    files = [source.parent / "docs" / name for name in names]
    return {file.name: file.read_bytes() for file in files if file.exists()}


def _no_notebooks() -> SetupError:
    failure = _("no {notebook} here").format(notebook=LANDMARK)
    return SetupError(failure, _("run it in the folder you cloned"))


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
    """Return the notebooks whose cells are not as shipped; those that have only been run are not among them.

    Raises `SetupError` if the shipped state is unknown.
    """
    folder = notebooks()
    files = _shipped(folder).items()
    return [name for name, data in files if not (folder / name).exists() or _differ((folder / name).read_bytes(), data)]


def _differ(one: bytes, other: bytes) -> bool:
    return one != other and _cells(one) != _cells(other)


def _cells(notebook: bytes) -> Any:
    """Return the type and the text of each cell, or the bytes if they are not a notebook."""
    try:
        return [(cell["cell_type"], _joined(cell["source"])) for cell in json.loads(notebook)["cells"]]
    except (ValueError, KeyError, TypeError):
        return notebook


def _joined(source: str | Iterable[str]) -> str:
    return "".join(source)


def _shipped(folder: Path) -> dict[str, bytes]:
    """Return each file as it was shipped, by its name below `folder`."""
    if (folder / RECORD).exists() or PACKAGED.is_dir():
        return _as_learners(sources())
    if commit := _commit(folder):
        names = _git(folder, "ls-tree", "-r", "-z", "--name-only", commit).decode().split("\0")
        return {name: _git(folder, "show", f"{commit}:./{name}") for name in names if name}
    copy = home() / "shipped"  # made by older versions
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
