"""The mutants of an exercise: its solution with one mistake, by an operator or by a mistake that learners make.

    for mutant in mutants("01.3"):
        print(mutant.name)    # "boundary: `if size < 16:` → `if size <= 16:`"

mistakes.toml lists learners' mistakes as replacements in the solution's code, which is shown by `solution("01.3")`.
"""

from __future__ import annotations

import ast
import linecache
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path
from typing import Any

from chatlab.lab.exercises.exercise import Exercise, exercises
from tools.mutants.operators import mutations

__all__ = ["Mutant", "answer_of", "mutants"]

MISTAKES = Path(__file__).with_name("mistakes.toml")
FILE_NAME = "<mutant>"  # for the check, code typed in a cell
LONG = 90  # characters of a line that are shown; of a longer one, what has changed and what is beside it
BESIDE = 24


@dataclass(frozen=True)
class Mutant:
    """A solution with one mistake; `name` says which, and is the only one of its kind in its exercise."""

    exercise: str
    name: str
    source: str


@cache
def mutants(id: str) -> tuple[Mutant, ...]:
    """Return the mutants of an exercise, always in the same order."""
    code = exercises()[id].code
    found = [(f"{operator}: {_change(code, source)}", source) for operator, source in mutations(code)]
    found += [(f"mistake: {what}", source) for what, source in _mistakes(id, code)]
    total, numbers = Counter(name for name, _ in found), Counter[str]()
    named = []
    for name, source in found:
        numbers[name] += 1
        named.append(Mutant(id, f"{name} ({numbers[name]})" if total[name] > 1 else name, source))
    return tuple(named)


def _mistakes(id: str, code: str) -> Iterator[tuple[str, str]]:
    for each in tomllib.loads(MISTAKES.read_text(encoding="utf-8")).get(id, {}).get("list", []):
        write, instead = (each[key].replace("⏎", "\n") for key in ("write", "instead"))
        if write not in code:
            raise ValueError(f"mistakes.toml, {id}: the solution has no {write!r}")
        yield each["mistake"], code.replace(write, instead)


def answer_of(exercise: Exercise, source: str) -> Any:
    """Run the source as a cell of the exercise's notebook, and return the answer it defines."""
    lines = source.splitlines(keepends=True)
    linecache.cache[FILE_NAME] = (len(source), None, lines, FILE_NAME)
    cell = dict(vars(sys.modules[exercise.solve.__module__]))
    exec(compile(source, FILE_NAME, "exec"), cell)
    return cell[exercise.solve.__name__]


def _change(code: str, source: str) -> str:
    """Describe what a mutant's lines have that the solution's have not, and the reverse."""
    before = [line.strip() for line in ast.unparse(ast.parse(code)).splitlines()]
    after = [line.strip() for line in source.splitlines()]
    parts = []
    for tag, a, b, c, d in SequenceMatcher(a=before, b=after, autojunk=False).get_opcodes():
        old, new = before[a:b], after[c:d]
        if tag == "replace" and len(old) == len(new) == 1:
            parts.append(" → ".join(f"`{line}`" for line in _shortened(*old, *new)))
        elif tag == "replace":
            parts.append(f"{_quoted(old)} → {_quoted(new)}")
        elif tag == "delete":
            parts.append(f"without {_quoted(old)}")
        elif tag == "insert":
            parts.append(f"{_quoted(new)} after {_quoted(after[c - 1 : c] or ['nothing'])}")
    return ", ".join(parts) or _indented(ast.unparse(ast.parse(code)), source)


def _indented(code: str, source: str) -> str:
    moved = next(line for line, other in zip(source.splitlines(), code.splitlines(), strict=True) if line != other)
    return f"`{moved.strip()}` in another block"


def _quoted(lines: list[str]) -> str:
    text = " ⏎ ".join(lines)
    return f"`{text if len(text) <= LONG else f'{text[: LONG // 2]} … {text[-LONG // 2 :]}'}`"


def _shortened(old: str, new: str) -> tuple[str, str]:
    """Cut from both lines, if they are long, what they have in common."""
    if max(len(old), len(new)) <= LONG:
        return old, new
    same = next(
        (n for n, (one, other) in enumerate(zip(old, new, strict=False)) if one != other), min(len(old), len(new))
    )
    rest = min(len(old), len(new)) - same
    ends = zip(reversed(old[len(old) - rest :]), reversed(new[len(new) - rest :]), strict=True)
    same_end = next((n for n, (one, other) in enumerate(ends) if one != other), rest)
    begin, end = max(0, same - BESIDE), max(0, same_end - BESIDE)
    return (
        f"…{old[begin : len(old) - end]}…",
        f"…{new[begin : len(new) - end]}…",
    )
