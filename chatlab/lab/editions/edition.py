"""Editions of the workbook, made from one master: the learners' notebooks.

    chatlab edition instructor --to FOLDER      with solutions and notes: minutes, what to say and ask
    chatlab edition learner --to FOLDER         without outputs, after a check that no exercise is solved in them

The notes are data: `notes/LESSON.toml` has a table for each section of the lesson, under the section's heading. They do
not repeat the package's own data: an exercise's hints and reason, a prediction's right answer. Left out: anything that
would make the instructor's notebooks run differently; tests run both editions and compare every output.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import nbformat
from nbformat import NotebookNode

from chatlab.errors import SetupError
from chatlab.lab.editions import shipped
from chatlab.lab.exercises.exercise import SIGNS, Exercise, Outcome, exercises
from chatlab.lab.widgets.predict import LETTERS, questions
from chatlab.locale import _, ngettext

__all__ = [
    "Built",
    "Edition",
    "Notes",
    "Section",
    "build",
    "headings",
    "instructors",
    "lessons",
    "notes",
    "solved",
    "stub_of",
]

Edition = Literal["learner", "instructor"]
HEADING = re.compile(r"^##? +(.+?) *$", re.MULTILINE)
PREDICT = re.compile(r'\bpredict\("(\d\d)", "([\w-]+)"\)')


@dataclass(frozen=True, slots=True)
class Section:
    """Notes on one section: the minutes it takes a class, what to say, what goes wrong, and what to ask.

    `ask` holds pairs of a question and its answer.
    """

    heading: str
    minutes: int
    say: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    ask: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Notes:
    """The notes on one lesson: the preparations, and its sections in order."""

    lesson: str
    prepare: tuple[str, ...]
    sections: tuple[Section, ...]

    @property
    def minutes(self) -> int:
        """The minutes the whole lesson takes."""
        return sum(section.minutes for section in self.sections)

    def section(self, heading: str) -> Section:
        """Return the section under `heading`. Raises `KeyError`."""
        for section in self.sections:
            if section.heading == heading:
                return section
        raise KeyError(f"lesson {self.lesson} has no section {heading!r}")  # not shown: a bug


@dataclass(frozen=True, slots=True)
class Built:
    """The files written to `folder`; `aside` is the folder for those that would have been overwritten, if any."""

    folder: Path
    names: list[str]
    aside: Path


@cache
def notes(lesson: str) -> Notes:
    """Return the notes on a lesson, "00" to "07". Raises `KeyError` if it has none."""
    file = files("chatlab.lab.editions") / "notes" / f"{lesson}.toml"
    if not file.is_file():
        raise KeyError(f"lesson {lesson!r} has no notes")  # not shown: a bug
    table = tomllib.loads(file.read_text(encoding="utf-8"))
    return Notes(lesson, _texts(table, "prepare"), tuple(map(_section, table["section"])))


def _section(table: dict[str, Any]) -> Section:
    ask = tuple((_(question), _(answer)) for question, answer in table.get("ask", ()))
    return Section(table["heading"], table["minutes"], _texts(table, "say"), _texts(table, "wrong"), ask)


def _texts(table: dict[str, Any], key: str) -> tuple[str, ...]:
    return tuple(_(text) for text in table.get(key, ()))


def lessons() -> dict[str, Path]:
    """Return the notebooks of the workbook, as shipped, by their two leading digits."""
    return {path.name[:2]: path for path in sorted(shipped.sources().glob("[0-9][0-9]_*.ipynb"))}


def headings(notebook: NotebookNode) -> list[str]:
    """Return the headings of a notebook's sections, its title first."""
    return [
        heading for cell in notebook.cells if cell.cell_type == "markdown" for heading in HEADING.findall(cell.source)
    ]


def build(edition: Edition, folder: Path) -> Built:
    """Write an edition into `folder`; files there that differ are set aside first.

    Raises `SetupError` if a notebook is not as shipped: an exercise in it is solved, or missing.
    """
    aside = shipped.new_aside()
    texts = {path.name: _text(edition, lesson, path) for lesson, path in lessons().items()}
    documents = {name: data.decode() for name, data in shipped.documents(shipped.sources()).items()}
    plan = shipped.sources().parent / "docs" / "workshop.md"
    if edition == "instructor" and plan.exists():
        documents[plan.name] = plan.read_text(encoding="utf-8")
    texts |= {name: text.replace("(../notebooks/", "(") for name, text in documents.items()}
    for name, text in texts.items():
        shipped.put(folder / name, text.encode(), aside / folder.name / name)
    return Built(folder, list(texts), aside)


def _text(edition: Edition, lesson: str, path: Path) -> str:
    notebook = nbformat.read(path, as_version=4)
    unsolved = {id for id, cell in _exercise_cells(notebook) if stub_of(cell.source)}
    if lacking := [each.id for each in exercises().values() if each.lesson == lesson and each.id not in unsolved]:
        failure = ngettext(
            "{notebook} is not as it was shipped: there is no unsolved exercise {exercises}",
            "{notebook} is not as it was shipped: there are no unsolved exercises {exercises}",
            len(lacking),
        ).format(notebook=path.name, exercises=", ".join(lacking))
        remedy = _("`chatlab reset {lesson}` sets your copy aside, and restores the notebook")
        raise SetupError(failure, remedy.format(lesson=lesson))
    if edition == "instructor":
        text = f"{nbformat.writes(instructors(notebook, lesson))}\n"
    else:
        text = shipped.stripped(path.read_bytes()).decode()
    return text.replace("(../docs/", "(")  # the documents lie beside the notebooks here


# --- The instructor's edition ---


def instructors(notebook: NotebookNode, lesson: str) -> NotebookNode:
    """Return the instructor's form of a learner's notebook, which is not changed."""
    made: NotebookNode = nbformat.from_dict(notebook)
    made.cells = list(_with_notes(notebook.cells, notes(lesson)))
    for number, cell in enumerate(cell for cell in made.cells if cell.id == NOTE):
        cell.id = f"{NOTE}-{number:02}"
    return made


NOTE = "note"  # the prefix of the ids of added cells


def _note(*paragraphs: str) -> NotebookNode:
    quoted = "\n".join(f"> {line}".rstrip() for line in "\n\n".join(filter(None, paragraphs)).splitlines())
    cell: NotebookNode = nbformat.v4.new_markdown_cell(quoted, id=NOTE)
    return cell


def _with_notes(cells: Sequence[NotebookNode], lesson: Notes) -> Iterator[NotebookNode]:
    """Yield the cells, each followed by its notes."""
    for cell in cells:
        if cell.cell_type == "markdown":
            yield cell
            yield from (_about(lesson, heading) for heading in HEADING.findall(cell.source))
        elif id := _exercise_of(cell):
            yield solved(cell, exercises()[id])
            yield about_exercise(exercises()[id])
        else:
            yield cell
            yield from (_about_prediction(*found) for found in PREDICT.findall(cell.source))


def _about(lesson: Notes, heading: str) -> NotebookNode:
    section = lesson.section(heading)
    is_first = section is lesson.sections[0]
    return _note(
        _for_instructors(_minutes(section.minutes, lesson.minutes if is_first else None)),
        _listed(_("Before the class"), lesson.prepare) if is_first else "",
        _plan(lesson) if is_first else "",
        _listed(_("Say"), section.say),
        _listed(_("What usually goes wrong"), section.wrong),
        _listed(_("Ask"), [f"{question} *{answer}*" for question, answer in section.ask]),
    )


def _for_instructors(text: str) -> str:
    return _("**For the instructor** · {text}").format(text=text)


def _minutes(number: int, total: int | None) -> str:
    if total is None:
        return ngettext("{count} minute", "{count} minutes", number).format(count=number)
    return ngettext("{count} minute of {total}", "{count} minutes of {total}", number).format(count=number, total=total)


def _listed(title: str, points: Sequence[str]) -> str:
    return "\n".join([f"**{title}**\n", *(f"- {point}" for point in points)]) if points else ""


def _plan(lesson: Notes) -> str:
    """Return a table of the minute at which each section begins."""
    header = _("| from minute | section | minutes |")
    rows, at = [header, "|---|---|---|"], 0
    for section in lesson.sections:
        rows.append(f"| {at} | {section.heading} | {section.minutes} |")
        at += section.minutes
    return "\n".join(rows)


def _about_prediction(lesson: str, key: str) -> NotebookNode:
    question = questions(lesson)[key]
    answers = [
        f"- {'✔' if option.right else '✘'} {letter}) {option.text} *{option.why}*"
        for letter, option in zip(LETTERS, question.options, strict=False)
    ]
    vote = _for_instructors(_("let them vote by hand before anybody clicks"))
    return _note(vote, "\n".join(answers))


def about_exercise(exercise: Exercise) -> NotebookNode:
    """Return a note with an exercise's reason and hints."""
    hints = "\n".join(f"{number}. {_as_markdown(hint)}" for number, hint in enumerate(exercise.hints, start=1))
    reason = _("{exercise}, the reason: {reason}").format(exercise=exercise.id, reason=_as_markdown(exercise.why))
    return _note(_for_instructors(reason), _("**Its hints**") + f"\n\n{hints}")


def _as_markdown(text: str) -> str:
    """Return a text, with code in backticks at most, as Markdown: escaped, or as a block if it has several lines."""
    if "\n" in text:
        return "\n".join(["", "   ```text", *(f"   {line}" for line in text.splitlines()), "   ```"])
    return re.sub(r"(`[^`]*`)|([\\<*_])", lambda found: found[1] or f"\\{found[2]}", text)


# --- Exercises, solved ---


def _exercise_of(cell: NotebookNode) -> str:
    """Return the id of a code cell's exercise, such as "03.1"; "" if it has none."""
    tags = [tag.removeprefix("exercise-") for tag in cell.metadata.get("tags", []) if tag.startswith("exercise-")]
    return tags[0] if tags else ""


def _exercise_cells(notebook: NotebookNode) -> Iterator[tuple[str, NotebookNode]]:
    return ((id, cell) for cell in notebook.cells if (id := _exercise_of(cell)))


def stub_of(source: str) -> ast.stmt | None:
    """Return the statement to replace in an exercise's cell: a function or class of dots, or `answer = ...`."""
    return next((statement for statement in ast.parse(source).body if _is_stub(statement)), None)


def _is_stub(statement: ast.stmt) -> bool:
    match statement:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return all(_is_dots(each) for each in statement.body)
        case ast.ClassDef():  # one method of dots is enough: the others are given
            return any(_is_stub(each) for each in statement.body) or all(map(_is_dots, statement.body))
        case ast.Assign(value=ast.Constant(value=value)):
            return value is ...
    return False


def _is_dots(statement: ast.stmt) -> bool:
    """Return whether a statement does nothing: three dots, or the docstring above them."""
    match statement:
        case ast.Expr(value=ast.Constant(value=value)):
            return value is ... or isinstance(value, str)
    return False


def solved(cell: NotebookNode, exercise: Exercise) -> NotebookNode:
    """Return the cell with the reference solution in place of the stub, and with the output of that."""
    stub = stub_of(cell.source)
    assert stub is not None and stub.end_lineno is not None, f"{exercise.id} has no stub"
    lines = cell.source.splitlines()
    lines[stub.lineno - 1 : stub.end_lineno] = _answer(exercise, stub)
    solved: NotebookNode = nbformat.from_dict(cell)
    solved.source = "\n".join(lines)
    not_tried = SIGNS["not tried"]  # not shown: a key
    right = Outcome.right(exercise)
    for output in solved.outputs:
        if output.get("data", {}).get("text/plain", "").startswith(f"{not_tried} {exercise.id} "):
            output.data = nbformat.from_dict({"text/html": right._repr_html_(), "text/plain": repr(right)})
    return solved


def _answer(exercise: Exercise, stub: ast.stmt) -> list[str]:
    """Return the solution, under the name that the cell passes to `check`."""
    code, called = exercise.code.splitlines(), exercise.solve.__name__
    name = stub.targets[0].id if isinstance(stub, ast.Assign) and isinstance(stub.targets[0], ast.Name) else ""
    name = name or getattr(stub, "name", "")
    return code if name == called else [*code, "", f"{name} = {called}"]
