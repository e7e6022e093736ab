"""Exercises: run the learner's own code against the real thing, and say in one sentence which rule broke first.

    await check("01.1", accept_key)      not tried, not yet (with the rule and the evidence), or right
    hint("01.1")                         the first hint; hint("01.1", 2) comes closer
    solution("01.1")                     the code, and the reason it is so

A check is a function that is handed the learner's answer and raises `NotYet` at the first rule that does not hold. The
exercises are in `lessons/`; this file runs them, shows what came out, and remembers what was solved. Left out:
points. The only mark is that it works.
"""

from __future__ import annotations

import ast
import asyncio
import dis
import inspect
import json
import re
import textwrap
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, Literal

from chatlab.lab.home import home

__all__ = [
    "Exercise",
    "ExerciseProgress",
    "NotYet",
    "Outcome",
    "check",
    "exercises",
    "hint",
    "is_stub",
    "progress",
    "solution",
]

SECONDS = 15.0  # for one check; an answer that waits for ever is an answer that is not right yet
Mark = Literal["not tried", "not yet", "right"]
SIGNS: dict[Mark, str] = {"not tried": "○", "not yet": "✘", "right": "✔"}
COLOURS: dict[Mark, str] = {"not tried": "#888", "not yet": "#b35900", "right": "#2a7d3c"}  # never without the sign


class NotYet(Exception):  # no error: an answer on its way
    """The first rule that an answer breaks; `evidence` is the bytes or messages that show it.

    Raised `from` an error of the learner's own code, it tells that error, too.
    """

    def __init__(self, rule: str, evidence: object = None) -> None:
        super().__init__(rule)
        self.rule = rule
        self.evidence = evidence


@dataclass(frozen=True)
class Exercise:
    """One exercise: its check, its hints from far to near, its solution and why that is so.

    `id` is the lesson's number and the exercise's, "01.1". `check(answer)` raises `NotYet`, or anything the answer
    itself raises. `solve` is the reference solution: a function whose source is shown, or a function without arguments
    that returns the answer, where the answer is no function (`makes=True`).
    """

    id: str
    title: str
    check: Callable[[Any], Awaitable[None] | None]
    hints: tuple[str, ...]
    solve: Callable[..., Any]
    why: str
    makes: bool = False

    @property
    def lesson(self) -> str:
        """The lesson's number, "01"."""
        return self.id.partition(".")[0]

    @property
    def reference(self) -> Any:
        """The answer that is right."""
        return self.solve() if self.makes else self.solve

    @property
    def code(self) -> str:
        """The source of the reference solution, as a learner would write it into the cell: without annotations."""
        return _plain(textwrap.dedent(inspect.getsource(self.solve)).strip())


def _plain(source: str) -> str:
    """A function's source without the types in its signatures, whose names a notebook has not imported."""
    lines = [re.sub(r"\s+# (type: ignore|noqa).*$", "", line).encode() for line in source.splitlines()]
    functions = [
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    hints: list[tuple[ast.expr, bytes]] = [(function.returns, b"->") for function in functions if function.returns]
    for function in functions:
        taken = function.args
        every = [*taken.posonlyargs, *taken.args, *taken.kwonlyargs, *filter(None, [taken.vararg, taken.kwarg])]
        hints += [(each.annotation, b":") for each in every if each.annotation]
    # From the end, so that what is cut away moves nothing that is still to be cut.
    for hint, mark in sorted(hints, key=lambda each: (each[0].lineno, each[0].col_offset), reverse=True):
        line, end = lines[hint.lineno - 1], hint.end_col_offset
        assert hint.lineno == hint.end_lineno, f"an annotation over two lines: {source}"
        rest = line[end:].replace(b" = ", b"=", 1) if line[end:].startswith(b" = ") else line[end:]
        lines[hint.lineno - 1] = line[: line.rindex(mark, 0, hint.col_offset)].rstrip() + rest
    return b"\n".join(lines).decode()


@dataclass(frozen=True)
class Outcome:
    """What a check found: the mark, one sentence, and what shows it."""

    exercise: str
    mark: Mark
    sentence: str
    evidence: str = ""

    def __repr__(self) -> str:
        shown = "\n" + textwrap.indent(self.evidence, "  ") if self.evidence else ""
        return f"{SIGNS[self.mark]} {self.exercise} {self.mark}: {self.sentence}{shown}"

    def _repr_html_(self) -> str:
        shown = f"<pre style='margin:0.3em 0 0'>{escape(self.evidence)}</pre>" if self.evidence else ""
        return (
            f"<div role='status' style='border-left:4px solid {COLOURS[self.mark]};padding-left:0.6em'>"
            f"{SIGNS[self.mark]} <b>{self.exercise} {self.mark}</b>: {_marked(self.sentence)}{shown}</div>"
        )


def _marked(text: str) -> str:
    """A text as HTML: what stands between `backticks`, and a line four spaces in, is code."""
    return re.sub(r"`([^`\n]+)`|(?m:^( {4}.+)$)", lambda code: f"<code>{code[1] or code[2]}</code>", escape(text))


@cache
def exercises() -> dict[str, Exercise]:
    """All exercises by id, in the order of the lessons."""
    lessons = import_module("chatlab.lab.exercises.lessons")  # by name: they import this module
    names = sorted(module.name for module in iter_modules(lessons.__path__))
    modules = [import_module(f"{lessons.__name__}.{name}") for name in names]
    return {each.id: each for module in modules for each in module.EXERCISES}


def find(id: str) -> Exercise:
    """The exercise `id`. Raises `KeyError` that lists those of its lesson."""
    try:
        return exercises()[id]
    except KeyError:
        alike = [key for key in exercises() if key.startswith(id[:2])] or list(exercises())
        raise KeyError(f"no exercise {id!r}; there is {', '.join(alike)}") from None


async def check(id: str, answer: object) -> Outcome:
    """Check a learner's answer to the exercise `id`, note it in the progress, and say how it went."""
    exercise = find(id)
    outcome = await _judge(exercise, answer)
    _remember(outcome)
    return outcome


_waits = inspect.iscoroutinefunction


async def _judge(exercise: Exercise, answer: object) -> Outcome:
    if answer is ... or answer is None or is_stub(answer):
        return Outcome(exercise.id, "not tried", f"{exercise.title}. Write your code in place of the three dots.")
    if _waits(answer) and inspect.isfunction(exercise.reference) and not _waits(exercise.reference):
        return Outcome(exercise.id, "not yet", "an ordinary `def` will do: nothing in it waits")
    try:
        async with asyncio.timeout(SECONDS):
            verdict = exercise.check(answer)
            if inspect.isawaitable(verdict):
                await verdict
    except NotYet as broken:
        evidence = [] if broken.evidence is None else [str(broken.evidence)]
        if isinstance(error := broken.__cause__, Exception):
            evidence.append(f"your code raised {type(error).__name__}: {_where(error)}")
        return Outcome(exercise.id, "not yet", broken.rule, "\n".join(evidence))
    except TimeoutError:
        return Outcome(exercise.id, "not yet", f"it was not through after {SECONDS:.0f} s; does it wait for something?")
    except Exception as error:
        return Outcome(exercise.id, "not yet", f"your code raised {type(error).__name__}", _where(error))
    return Outcome(exercise.id, "right", exercise.title)


def _where(error: Exception) -> str:
    """The error's words, and the learner's own line it comes from."""
    trace = error.__traceback__
    lines = []
    while trace is not None:
        if "ipykernel" in trace.tb_frame.f_code.co_filename or trace.tb_frame.f_code.co_filename.startswith("<"):
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return f"{error} (line {lines[-1]} of your cell)" if lines else str(error)


def is_stub(answer: object) -> bool:
    """Whether a function is still the stub of the notebook: nothing in its body but `...`, `pass` or a docstring.

    A class is one while all its methods are.
    """
    if isinstance(answer, type):
        methods = [each for each in vars(answer).values() if inspect.isfunction(each)]
        return bool(methods) and all(is_stub(method) for method in methods)
    code = getattr(answer, "__code__", None)
    if code is None:
        return False
    idle = {"RESUME", "NOP", "POP_TOP", "RETURN_GENERATOR", "RETURN_VALUE", "COPY_FREE_VARS", "CACHE", "END_SEND"}
    idle |= {"STOP_ITERATION_ERROR", "CALL_INTRINSIC_1", "RERAISE"}  # how newer Pythons end a coroutine
    constants = {"LOAD_CONST", "RETURN_CONST"}
    return all(
        step.opname in idle or (step.opname in constants and step.argval in (None, ...))
        for step in dis.get_instructions(code)
    )


class Shown:
    """A text for the learner: plain, and as HTML."""

    def __init__(self, title: str, text: str, code: str = "") -> None:
        self.title, self.text, self.code = title, text, code

    def __repr__(self) -> str:
        return "\n\n".join(filter(None, [f"{self.title}: {self.text}", self.code]))

    def _repr_html_(self) -> str:
        code = f"<pre>{escape(self.code)}</pre>" if self.code else ""
        text = f"<p style='white-space:pre-wrap;margin:0'><b>{escape(self.title)}.</b> {_marked(self.text)}</p>"
        return f"<div role='note' style='border-left:4px solid #888;padding-left:0.6em'>{text}{code}</div>"


def hint(id: str, number: int = 1) -> Shown:
    """Hint `number` of an exercise, from 1: each is nearer than the one before. Past the last, the last comes again."""
    hints = find(id).hints
    number = max(1, min(number, len(hints)))
    return Shown(f"Hint {number} of {len(hints)} for {id}", hints[number - 1])


def solution(id: str) -> Shown:
    """The reference solution, and why it is so."""
    exercise = find(id)
    return Shown(f"One solution of {id}", exercise.why, exercise.code)


# --- What was solved ---


@dataclass(frozen=True)
class ExerciseProgress:
    """The exercises and how each stood at its last check."""

    marks: dict[str, Mark]

    def of(self, lesson: str) -> tuple[int, int]:
        """How many exercises of a lesson are right, and how many there are."""
        marks = [mark for key, mark in self.marks.items() if key.startswith(lesson)]
        return marks.count("right"), len(marks)

    def _rows(self) -> Iterator[tuple[str, str, str]]:
        for lesson in sorted({key.partition(".")[0] for key in self.marks}):
            right, of = self.of(lesson)
            signs = " ".join(SIGNS[mark] for key, mark in self.marks.items() if key.startswith(lesson))
            yield lesson, signs, f"{right} of {of}"

    def __repr__(self) -> str:
        return "\n".join(f"lesson {lesson}  {signs}  {right}" for lesson, signs, right in self._rows())

    def _repr_html_(self) -> str:
        cell = "style='text-align:left;padding:0.2em 1.5em 0.2em 0'>"
        rows = "".join(f"<tr>{''.join(f'<td {cell}{text}' for text in row)}</tr>" for row in self._rows())
        head = "".join(f"<th {cell}{title}" for title in ("lesson", "exercises", "right"))
        return f"<table style='line-height:1.4'><tr>{head}</tr>{rows}</table>"


def progress() -> ExerciseProgress:
    """How far this learner has come; kept on this machine only."""
    return ExerciseProgress({key: _mark(key) for key in exercises()})


def _file(id: str) -> Path:
    folder = home() / "progress"
    folder.mkdir(exist_ok=True)
    return folder / f"{id}.json"


def _mark(id: str) -> Mark:
    try:
        mark = json.loads(_file(id).read_text(encoding="utf-8"))["mark"]
    except (OSError, ValueError, KeyError, TypeError):
        return "not tried"  # never tried, or a file cut short: trying again mends it
    return mark if mark in SIGNS else "not tried"


def _remember(outcome: Outcome) -> None:
    # What was right once stays right: running the notebook's stub again takes nothing away.
    if _mark(outcome.exercise) == "right" or outcome.mark == "not tried":
        return
    draft = _file(outcome.exercise).with_suffix(f".{time.monotonic_ns()}.tmp")
    draft.write_text(json.dumps({"mark": outcome.mark, "at": time.time()}), encoding="utf-8")
    draft.replace(_file(outcome.exercise))
