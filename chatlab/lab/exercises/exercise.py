"""Exercises: run the learner's code against real clients and servers, and say which rule it breaks first.

    await check("01.1", accept_key)      not tried, not yet (with the rule and the evidence), or right
    hint("01.1")                         the first hint; hint("01.1", 2) says more
    solution("01.1")                     the code, and why it is written that way

In a notebook, the outcome has buttons that check the same answer again and show hints and the solution; without a
kernel, these are folds. A check is a function that takes the learner's answer and raises `NotYet` for the first rule it
breaks. The exercises are in `lessons/`; this file runs them, shows the outcome, and remembers what is solved. Left out:
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
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache, partial
from html import escape
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, Final, Literal

from chatlab.lab.exercises.check_box import CheckBox
from chatlab.lab.exercises.difference import Difference
from chatlab.lab.exercises.watchdog import LoopBlocked, Watchdog, is_cell
from chatlab.lab.home import home
from chatlab.locale import _

__all__ = [
    "Exercise",
    "ExerciseProgress",
    "NotYet",
    "Outcome",
    "check",
    "exercises",
    "hint",
    "is_stub",
    "obeying",
    "outcome_of",
    "progress",
    "solution",
]

SECONDS = 15.0  # the time limit of a check, for answers that wait for ever
Mark = Literal["not tried", "not yet", "right"]  # not shown: keys, which files of progress hold
NOT_TRIED: Final = "not tried"  # not shown: a key
NOT_YET: Final = "not yet"  # not shown: a key
RIGHT: Final = "right"
SIGNS: dict[Mark, str] = {NOT_TRIED: "○", NOT_YET: "✘", RIGHT: "✔"}
COLOURS: dict[Mark, str] = {NOT_TRIED: "#888", NOT_YET: "#b35900", RIGHT: "#2a7d3c"}  # never shown without the symbol
NAMES: dict[Mark, str] = {NOT_TRIED: _("not tried"), NOT_YET: _("not yet"), RIGHT: _("right")}


class NotYet(Exception):  # named without "Error": a wrong answer is not one
    """The first rule that an answer breaks; `evidence` is the bytes or messages that show it.

    Where the answer is bytes or text that had to be equal to something, `difference` shows where it is not. Raised
    `from` an error in the learner's code, the outcome shows that error, too.
    """

    def __init__(self, rule: str, evidence: object = None, *, difference: Difference | None = None) -> None:
        super().__init__(rule)
        self.rule = rule
        self.evidence = evidence
        self.difference = difference


@contextmanager
def obeying(rule: str, evidence: object = None) -> Iterator[None]:
    """Raise `NotYet` with the rule for an error in the learner's code, which is shown with it."""
    try:
        yield
    except NotYet:
        raise
    except Exception as error:
        raise NotYet(rule, evidence) from error


@dataclass(frozen=True)
class Exercise:
    """An exercise: its check, its hints from vague to specific, its solution and the reasons for it.

    `id` is the number of the lesson and of the exercise, "01.1". `check(answer)` raises `NotYet`, or whatever the
    answer raises. `solve` is the reference solution: a function whose source is shown. If the answer is not a function,
    `makes=True` says that `solve` takes no arguments and returns the answer; what it returns, one expression, is shown.
    When the answer is right, `learned` says in one sentence why, with the word of the field for it, and `leads_to` asks
    a question to go on with.
    """

    id: str
    title: str
    check: Callable[[Any], Awaitable[None] | None]
    hints: tuple[str, ...]
    solve: Callable[..., Any]
    why: str
    makes: bool = False
    learned: str = ""
    leads_to: str = ""

    @property
    def lesson(self) -> str:
        """The lesson's number, "01"."""
        return self.id.partition(".")[0]

    @property
    def reference(self) -> Any:
        """The reference answer, which is right."""
        return self.solve() if self.makes else self.solve

    @property
    def code(self) -> str:
        """The source of the reference solution as a learner would write it in the cell, without annotations."""
        source = textwrap.dedent(inspect.getsource(self.solve)).strip()
        return _value(source) if self.makes else _plain(source)


def _value(source: str) -> str:
    """Return the value that a function makes as an assignment to the function's name, as it stands in the cell."""
    (function,) = ast.parse(source).body
    assert isinstance(function, ast.FunctionDef)
    made = function.body[-1]
    assert len(function.body) == 1 and isinstance(made, ast.Return) and made.value is not None, source
    return f"{function.name} = {ast.get_source_segment(source, made.value)}"


def _plain(source: str) -> str:
    """Remove the annotations of a function's signatures, whose names a notebook has not imported."""
    lines = [re.sub(r"\s+# (type: ignore|noqa).*$", "", line).encode() for line in source.splitlines()]
    functions = [
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    hints: list[tuple[ast.expr, bytes]] = [(function.returns, b"->") for function in functions if function.returns]
    for function in functions:
        taken = function.args
        every = [*taken.posonlyargs, *taken.args, *taken.kwonlyargs, *filter(None, [taken.vararg, taken.kwarg])]
        hints += [(each.annotation, b":") for each in every if each.annotation]
    # Backwards, so that the positions of the annotations still to be removed stay valid.
    for hint, mark in sorted(hints, key=lambda each: (each[0].lineno, each[0].col_offset), reverse=True):
        line, end = lines[hint.lineno - 1], hint.end_col_offset
        assert hint.lineno == hint.end_lineno, f"an annotation over two lines: {source}"
        rest = line[end:].replace(b" = ", b"=", 1) if line[end:].startswith(b" = ") else line[end:]
        lines[hint.lineno - 1] = line[: line.rindex(mark, 0, hint.col_offset)].rstrip() + rest
    return b"\n".join(lines).decode()


@dataclass(frozen=True)
class Outcome:
    """The outcome of a check: the mark, one sentence, and the evidence for it, or a question to go on with.

    `again` checks the answer once more.
    """

    exercise: str
    mark: Mark
    sentence: str
    evidence: str = ""
    difference: Difference | None = None
    question: str = ""
    again: Callable[[], Awaitable[Outcome]] | None = field(default=None, compare=False)

    @classmethod
    def right(cls, exercise: Exercise) -> Outcome:
        """Return the outcome of a right answer: what the answer does, and what is learned from it."""
        sentence = f"{exercise.title}. {exercise.learned}" if exercise.learned else exercise.title
        return cls(exercise.id, RIGHT, sentence, question=exercise.leads_to)

    def __repr__(self) -> str:
        shown = "\n" + textwrap.indent(self.evidence, "  ") if self.evidence else ""
        shown += f"\n  ▸ {self.question}" if self.question else ""
        return f"{SIGNS[self.mark]} {self.exercise} {NAMES[self.mark]}: {self.sentence}{shown}"

    def _outcome_html(self) -> str:
        scrolled = " tabindex='0' style='white-space:pre;overflow-x:auto;margin:0.3em 0 0'"  # columns stay columns
        style = scrolled if "\n" in self.evidence else " style='margin:0.3em 0 0'"
        pre = f"<pre{style}>{escape(self.evidence)}</pre>"
        shown = pre if self.evidence else ""
        shown += self.difference._repr_html_() if self.difference else ""
        shown += f"<div style='margin-top:0.3em'>▸ {_to_html(self.question)}</div>" if self.question else ""
        return (
            f"<div role='status' style='border-left:4px solid {COLOURS[self.mark]};padding-left:0.6em'>"
            f"{SIGNS[self.mark]} <b>{self.exercise} {NAMES[self.mark]}</b>: {_to_html(self.sentence)}{shown}</div>"
        )

    def _repr_html_(self) -> str:
        """Return the form for a page without a kernel: hints and solution in folds."""
        folds = [*_hints(self.exercise), solution(self.exercise)] if self.exercise in exercises() else []
        return self._outcome_html() + "".join(each.fold() for each in folds)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        still = {"text/html": self._repr_html_(), "text/plain": repr(self)}
        return {**self._box().box._repr_mimebundle_(), **still} if self.again else still

    def _box(self) -> CheckBox:
        assert self.again is not None
        hints = [each._repr_html_() for each in _hints(self.exercise)]
        shown = solution(self.exercise)._repr_html_()
        return CheckBox(self.exercise, self._outcome_html(), partial(_html_of, self.again), hints, shown)


async def _html_of(again: Callable[[], Awaitable[Outcome]]) -> str:
    return (await again())._outcome_html()


def _to_html(text: str) -> str:
    """Return a text as HTML, with the parts in `backticks` and the lines indented by four spaces as code."""
    return re.sub(r"`([^`\n]+)`|(?m:^( {4}.+)$)", lambda code: f"<code>{code[1] or code[2]}</code>", escape(text))


@cache
def exercises() -> dict[str, Exercise]:
    """Return all exercises by id, in the order of the lessons."""
    lessons = import_module("chatlab.lab.exercises.lessons")  # by name: they import this module
    names = sorted(module.name for module in iter_modules(lessons.__path__))
    modules = [import_module(f"{lessons.__name__}.{name}") for name in names]
    return {each.id: each for module in modules for each in module.EXERCISES}


def find(id: str) -> Exercise:
    """Return the exercise `id`. Raises a `KeyError` that lists the exercises of its lesson."""
    try:
        return exercises()[id]
    except KeyError:
        others = [key for key in exercises() if key.startswith(id[:2])] or list(exercises())
        raise KeyError(_("no exercise {id!r}; there are {others}").format(id=id, others=", ".join(others))) from None


async def check(id: str, answer: object) -> Outcome:
    """Check a learner's answer to the exercise `id`, record the progress, and return the outcome."""
    exercise = find(id)
    outcome = await outcome_of(exercise, answer)
    _remember(outcome)
    return replace(outcome, again=partial(check, id, answer))


async def outcome_of(exercise: Exercise, answer: object) -> Outcome:
    """Check an answer, whatever it does, and return the outcome; nothing is recorded."""
    if answer is ... or answer is None or is_stub(answer):
        invitation = _("{title}. Write your code in place of the three dots.").format(title=exercise.title)
        return Outcome(exercise.id, NOT_TRIED, invitation)
    if _is_needlessly_async(exercise, answer):
        return Outcome(exercise.id, NOT_YET, _("an ordinary `def` will do: nothing in it waits"))
    limit = asyncio.timeout(SECONDS)

    def end_the_check() -> None:
        with suppress(RuntimeError):  # the check has ended by itself
            limit.reschedule(0)

    with Watchdog(end_the_check) as dog:
        outcome = await _run(exercise, answer, limit)
    return _blocked(exercise, dog.line) if dog.stopped else outcome


async def _run(exercise: Exercise, answer: object, limit: asyncio.Timeout) -> Outcome:
    try:
        async with limit:
            verdict = exercise.check(answer)
            if inspect.isawaitable(verdict):
                await verdict
    except NotYet as broken:
        if isinstance(missing := broken.__cause__, NameError):  # it says more than the rule that it led to
            return Outcome(exercise.id, NOT_YET, _raised(missing), "\n".join([broken.rule, *_given(broken)]))
        return Outcome(exercise.id, NOT_YET, broken.rule, _evidence_of(broken), broken.difference)
    except TimeoutError:
        sentence = _("it did not finish within {seconds:.0f} s; does it wait for something?").format(seconds=SECONDS)
        return Outcome(exercise.id, NOT_YET, sentence)
    except LoopBlocked:
        return _blocked(exercise, 0)
    except Exception as error:
        sentence = _("your code raised {error}").format(error=type(error).__name__)
        return Outcome(exercise.id, NOT_YET, sentence, _where(error))
    return Outcome.right(exercise)


def _blocked(exercise: Exercise, line: int) -> Outcome:
    sentence = _(
        "your code stopped the event loop: a loop in it never ends or never lets others run. Give the loop an end; to "
        "wait, use `await asyncio.sleep(…)` instead of `time.sleep(…)`"
    )
    where = _("it was stopped in line {line} of your cell").format(line=line) if line else ""
    return Outcome(exercise.id, NOT_YET, sentence, where)


def _is_needlessly_async(exercise: Exercise, answer: object) -> bool:
    waits = inspect.iscoroutinefunction
    return waits(answer) and inspect.isfunction(exercise.reference) and not waits(exercise.reference)


def _evidence_of(broken: NotYet) -> str:
    """Return the evidence, and the error in the learner's code that led to the broken rule, if any."""
    error = broken.__cause__
    return "\n".join([*_given(broken), *([_raised(error)] if isinstance(error, Exception) else [])])


def _given(broken: NotYet) -> list[str]:
    return [] if broken.evidence is None else [str(broken.evidence)]


def _raised(error: Exception) -> str:
    sentence = _("your code raised {error}: {message}")
    return sentence.format(error=type(error).__name__, message=_where(error))


def _where(error: Exception) -> str:
    """Return the error's message and the line of the learner's cell that raised it."""
    trace = error.__traceback__
    lines = []
    while trace is not None:
        if is_cell(trace.tb_frame.f_code.co_filename):
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return _("{error} (line {line} of your cell)").format(error=error, line=lines[-1]) if lines else str(error)


def is_stub(answer: object) -> bool:
    """Whether a function is still the notebook's stub: nothing in its body but `...`, `pass` or a docstring.

    A class is a stub if all its methods are.
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
    """A text for the learner, as plain text and as HTML."""

    def __init__(self, title: str, text: str, code: str = "") -> None:
        self.title, self.text, self.code = title, text, code

    def __repr__(self) -> str:
        return "\n\n".join(filter(None, [f"{self.title}: {self.text}", self.code]))

    def _text(self, title: str = "") -> str:
        code = f"<pre>{escape(self.code)}</pre>" if self.code else ""
        return f"<p style='white-space:pre-wrap;margin:0'>{title}{_to_html(self.text)}</p>{code}"

    def _repr_html_(self) -> str:
        text = self._text(f"<b>{escape(self.title)}.</b> ")
        return f"<div role='note' style='border-left:4px solid #888;padding-left:0.6em'>{text}</div>"

    def fold(self) -> str:
        """Return the HTML of a fold that opens with a click or the Enter key."""
        return f"<details><summary>{escape(self.title)}</summary>{self._text()}</details>"


def hint(id: str, number: int = 1) -> Shown:
    """Return hint `number` of an exercise, from 1; each is more specific. Any number past the last gives the last."""
    hints = find(id).hints
    number = max(1, min(number, len(hints)))
    title = _("Hint {number} of {count} for {id}").format(number=number, count=len(hints), id=id)
    return Shown(title, hints[number - 1])


def _hints(id: str) -> list[Shown]:
    return [hint(id, number) for number in range(1, len(find(id).hints) + 1)]


def solution(id: str) -> Shown:
    """Return the reference solution, and the reasons for it."""
    exercise = find(id)
    return Shown(_("One solution of {id}").format(id=id), exercise.why, exercise.code)


# --- Progress ---


@dataclass(frozen=True)
class ExerciseProgress:
    """The mark of each exercise: that of its last check, or "right" once it has been right."""

    marks: dict[str, Mark]

    def of(self, lesson: str) -> tuple[int, int]:
        """Return the number of a lesson's exercises that are right, and the number of all."""
        marks = [mark for key, mark in self.marks.items() if key.startswith(lesson)]
        return marks.count(RIGHT), len(marks)

    def as_json(self) -> str:
        """Return the marks by exercise, and how many are right of each lesson, as JSON."""
        lessons = sorted({key.partition(".")[0] for key in self.marks})
        counts = {lesson: dict(zip(("right", "of"), self.of(lesson), strict=True)) for lesson in lessons}
        return json.dumps({"exercises": self.marks, "lessons": counts}, indent=2)

    def _rows(self) -> Iterator[tuple[str, str, str]]:
        for lesson in sorted({key.partition(".")[0] for key in self.marks}):
            right, total = self.of(lesson)
            signs = " ".join(SIGNS[mark] for key, mark in self.marks.items() if key.startswith(lesson))
            yield lesson, signs, _("{right} of {total}").format(right=right, total=total)

    def __repr__(self) -> str:
        row = _("lesson {lesson}  {signs}  {right}")
        return "\n".join(row.format(lesson=lesson, signs=signs, right=right) for lesson, signs, right in self._rows())

    def _repr_html_(self) -> str:
        cell = "style='text-align:left;padding:0.2em 1.5em 0.2em 0'>"
        rows = "".join(f"<tr>{''.join(f'<td {cell}{text}' for text in row)}</tr>" for row in self._rows())
        head = "".join(f"<th {cell}{title}" for title in (_("lesson"), _("exercises"), _("right")))
        return f"<table style='line-height:1.4'><tr>{head}</tr>{rows}</table>"


def progress() -> ExerciseProgress:
    """Return this learner's progress, which is kept on this machine only."""
    return ExerciseProgress({key: _mark(key) for key in exercises()})


def _file(id: str) -> Path:
    folder = home() / "progress"
    folder.mkdir(exist_ok=True)
    return folder / f"{id}.json"


def _mark(id: str) -> Mark:
    try:
        mark = json.loads(_file(id).read_text(encoding="utf-8"))["mark"]
    except (OSError, ValueError, KeyError, TypeError):
        return NOT_TRIED  # or the file is truncated: the next check writes it again
    return mark if mark in SIGNS else NOT_TRIED


def _remember(outcome: Outcome) -> None:
    # An exercise that was right once stays right, even if the notebook's stub is run again.
    if _mark(outcome.exercise) == RIGHT or outcome.mark == NOT_TRIED:
        return
    draft = _file(outcome.exercise).with_suffix(f".{time.monotonic_ns()}.tmp")
    draft.write_text(json.dumps({"mark": outcome.mark, "at": time.time()}), encoding="utf-8")
    draft.replace(_file(outcome.exercise))
