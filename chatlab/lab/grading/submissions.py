"""The notebooks that a class has handed in: in a folder, in a folder for each learner, or in a zip of either.

    submissions(Path("inbox"))        every notebook there, with its learner, its lesson, and its cells; or the problem

A learner's name is that of the learner's folder; of a notebook that lies beside the others, it is what its file
name says besides the lesson. Canvas and Moodle put ids into these names, which are taken out. Only the source of code
cells is read: stored outputs say nothing about the code beside them. Left out: unpacking a zip; nothing in it reaches
the disk.
"""

from __future__ import annotations

import re
import stat
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

import nbformat

from chatlab.errors import SetupError
from chatlab.lab.editions.edition import lessons
from chatlab.lab.exercises.exercise import exercises
from chatlab.locale import _

__all__ = ["Cell", "Submission", "cells_of", "submissions"]

MAX_OCTETS = 20_000_000  # of one notebook: outputs with pictures make a few millions
TAG = re.compile(r"exercise-(\d\d\.\d)$")
CHECKED = re.compile(r"""\bcheck\(\s*["'](\d\d\.\d)["']""")
# Canvas names a submitted file NAME_late_USER_SUBMISSION_FILE, where NAME is last and first name, without "late" if it
# was in time. Moodle's folders are called NAME_ID_assignsubmission_file_.
CANVAS = re.compile(r"^(?P<name>[^_]+)_(?:late_)?(?P<id>\d+)_\d+_(?P<file>.+)$", re.IGNORECASE)
MOODLE = re.compile(r"^(?P<name>.+?)_\d+_assignsubmission_\w*$")


@dataclass(frozen=True, slots=True)
class Cell:
    """The source of a code cell, and the exercises it belongs to by its tags, else by its calls of `check`."""

    source: str
    exercises: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Submission:
    """A notebook of a learner, or the `problem` with it. `id` is the learner's id in Canvas, if the file name has it.

    `where` is the path below the folder or the zip, which seeds the values drawn for this notebook. `lesson` is "" if
    no lesson of the course is found in it.
    """

    learner: str
    where: str
    handed_in: datetime
    id: str = ""
    lesson: str = ""
    cells: tuple[Cell, ...] = ()
    problem: str = ""

    @property
    def exercises(self) -> list[str]:
        """The ids of all exercises of its lesson, whether the notebook has them or not."""
        return [each.id for each in exercises().values() if each.lesson == self.lesson]


Source = tuple[PurePosixPath, datetime, Callable[[], bytes]]


def submissions(place: Path) -> list[Submission]:
    """Return the notebooks in a folder or a zip, by learner. Raises `SetupError` if there is none."""
    if not place.exists():
        raise SetupError(_("there is no {place}").format(place=place), _("name a folder with notebooks, or a zip"))
    sources = sorted(_in_zip(place) if place.is_file() else _in_folder(place), key=lambda each: each[0])
    if not sources:
        raise SetupError(
            _("no notebook in {place}").format(place=place),
            _("put the learners' .ipynb files there, or a folder with them for each learner"),
        )
    top = _shared_top([source[0] for source in sources])
    name = place.stem if place.is_file() else place.resolve().name
    found = [_submission(where.relative_to(top), at, read, name) for where, at, read in sources]
    return sorted(found, key=lambda each: (each.learner.casefold(), each.where))


def _in_folder(folder: Path) -> Iterator[Source]:
    for path in folder.rglob("*.ipynb"):
        where = PurePosixPath(path.relative_to(folder).as_posix())
        if _is_handed_in(where):
            yield where, datetime.fromtimestamp(path.stat().st_mtime), _reader(path)


def _reader(path: Path) -> Callable[[], bytes]:
    def read() -> bytes:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would block for ever
            raise ValueError(_("it is no file"))
        return _bounded(path.stat().st_size, path.read_bytes)

    return read


def _in_zip(file: Path) -> Iterator[Source]:
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError) as error:
        failure = _("{place} is neither a folder nor a zip: {error}").format(place=file, error=error)
        raise SetupError(failure, _("name a folder with notebooks, or a zip")) from error
    for entry in archive.infolist():
        where = PurePosixPath(entry.filename)
        if where.suffix == ".ipynb" and not entry.is_dir() and _is_handed_in(where):
            yield where, datetime(*entry.date_time), _unzipper(archive, entry)


def _unzipper(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Callable[[], bytes]:
    return lambda: _bounded(entry.file_size, lambda: archive.read(entry))


def _bounded(size: int, read: Callable[[], bytes]) -> bytes:
    if size > MAX_OCTETS:
        line = _("it has {size} bytes, more than {limit}")
        raise ValueError(line.format(size=size, limit=MAX_OCTETS))
    return read()


def _is_handed_in(where: PurePosixPath) -> bool:
    """Whether a path is a learner's, and not a copy that Jupyter or macOS keeps beside it."""
    return not any(part.startswith(".") or part == "__MACOSX" for part in where.parts)


def _shared_top(paths: list[PurePosixPath]) -> PurePosixPath:
    """Return the folder that holds all learners' folders, as when a zip was made of that folder."""
    top = PurePosixPath()
    while all(len(path.relative_to(top).parts) > 2 for path in paths):
        first = {path.relative_to(top).parts[0] for path in paths}
        if len(first) > 1:
            break
        top /= first.pop()
    return top


def _submission(where: PurePosixPath, at: datetime, read: Callable[[], bytes], place: str) -> Submission:
    learner, id = _learner(where, place)
    try:
        cells = cells_of(read())
    except Exception as error:  # nbformat raises what it meets in a file that is no notebook: many kinds
        problem = _("this is not a notebook: {error}").format(error=_first_line(error))
        return Submission(learner, str(where), at, id, problem=problem)
    lesson = _lesson(cells)
    problem = "" if lesson else _no_exercise(where)
    return Submission(learner, str(where), at, id, lesson, cells, problem)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _no_exercise(where: PurePosixPath) -> str:
    if "00_start_here" in where.name:
        return _("lesson 00 has no exercises")
    return _("this notebook has no exercise of this course")


def _learner(where: PurePosixPath, place: str) -> tuple[str, str]:
    """Return a learner's name, and the id that Canvas has put into the file's name."""
    canvas = CANVAS.match(where.stem)
    if len(where.parts) > 1:
        moodle = MOODLE.match(where.parts[0])
        return moodle["name"] if moodle else where.parts[0], canvas["id"] if canvas else ""
    if canvas:
        return canvas["name"], canvas["id"]
    name = where.stem
    for lesson in lessons().values():
        name = name.replace(lesson.stem, "")
    return name.strip(" _-.") or place, ""


def cells_of(data: bytes) -> tuple[Cell, ...]:
    """Return the code cells of a notebook. Raises what nbformat raises if it is none."""
    notebook = nbformat.reads(data.decode("utf-8-sig"), as_version=4)
    return tuple(_cell(cell) for cell in notebook.cells if cell.cell_type == "code")


def _cell(cell: nbformat.NotebookNode) -> Cell:
    tags = [found[1] for tag in cell.metadata.get("tags", ()) if (found := TAG.match(str(tag)))]
    return Cell(cell.source, tuple(tags or CHECKED.findall(cell.source)))


def _lesson(cells: tuple[Cell, ...]) -> str:
    """Return the lesson that most of the exercises are of; "" if no cell has one of this course."""
    found = [id[:2] for cell in cells for id in cell.exercises if id in exercises()]
    return max(sorted(set(found)), key=found.count, default="")
