"""One exercise's answer, taken out of a notebook: its cell, with the definitions it needs from other cells.

    program("01.5", cells)        the statements to run, and the expression whose value is the answer

The notebook is not run. From the exercise's cell and from the cells that define what it uses come imports, functions,
classes, assignments, and the lines that fill what was assigned; calls of `check`, prints, panels and lines that
`await` stay out. A name that several cells define is taken from the nearest cell above, or else from the first below.
Names that nothing defines raise a `NameError` when the answer runs, as in the notebook.
"""

from __future__ import annotations

import ast
import dis
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from IPython.core.inputtransformer2 import TransformerManager

from chatlab.lab.editions.edition import lessons
from chatlab.lab.grading.submissions import Cell, cells_of
from chatlab.locale import _

__all__ = ["CannotTake", "Program", "program"]

COURSE = "chatlab.lab.exercises"
FOR_LEARNERS = {(COURSE, name) for name in ("check", "hint", "progress", "solution")}  # for a notebook to import
LOADS = {"LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS"}
STAR = "*"  # of `from module import *`
LIMIT = 500_000  # characters of one cell


class CannotTake(Exception):  # named without "Error": it is the learner's line
    """The answer cannot be taken out of the notebook; the text says why."""


@dataclass(frozen=True)
class Program:
    """What to run for an exercise: parts of cells, each with the source that it is part of, and the answer."""

    parts: tuple[tuple[str, ast.Module], ...]
    answer: ast.Expression


@dataclass(frozen=True)
class _Statement:
    """A statement of a cell: the names that it binds, those of things it changes, and those that it uses."""

    cell: int
    node: ast.stmt
    binds: frozenset[str]
    changes: frozenset[str]
    needs: frozenset[str]


def program(id: str, cells: Sequence[Cell]) -> Program:
    """Return what to run for the exercise `id`. Raises `CannotTake`."""
    own = [number for number, cell in enumerate(cells) if id in cell.exercises]
    if not own:
        raise CannotTake(_("the notebook has no cell with the tag exercise-{id}").format(id=id))
    try:
        sources = {number: _parsed(cells[number].source) for number in own}
    except SyntaxError as error:
        line = _("its cell is not Python: {error} (line {line})")
        raise CannotTake(line.format(error=error.msg, line=error.lineno)) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise CannotTake(_("its cell is not Python: {error}").format(error=error)) from None
    answer = _answer(id, [statement for number in own for statement in sources[number].body])
    others = {number: _parsed_or_nothing(cell.source) for number, cell in enumerate(cells) if number not in own}
    statements = [each for number, tree in (others | sources).items() for each in _statements(number, tree)]
    chosen = _needed(_names(ast.Expression(answer)), statements, own)
    for each in chosen:
        _refuse_the_courses_own(each.node)
    return Program(tuple(_parts(chosen, cells, own)), ast.Expression(answer))


def _parsed(source: str) -> ast.Module:
    if len(source) > LIMIT:
        raise ValueError(_("it has {size} characters").format(size=len(source)))
    first, *rest = source.split("\n")
    if first.startswith("%%"):  # a cell magic, such as %%time: the code is what comes below it
        source = "\n".join(["", *rest])
    tree = ast.parse(TransformerManager().transform_cell(source))  # type: ignore[no-untyped-call]  # IPython is not typed here
    compile(tree, "<cell>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)  # what only the compiler finds, as a lone `return`
    return tree


def _parsed_or_nothing(source: str) -> ast.Module:
    try:
        return _parsed(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.Module([], [])


def _answer(id: str, statements: Sequence[ast.stmt]) -> ast.expr:
    """Return what the cell passes to `check`; if the call is gone, what it passes in the notebook as shipped."""
    return _checked(id, statements) or _checked_as_shipped(id)


def _checked(id: str, statements: Sequence[ast.stmt]) -> ast.expr | None:
    found = None
    for node in (node for statement in statements for node in ast.walk(statement)):
        match node:
            case ast.Call(func=ast.Name(id="check"), args=[ast.Constant(value=value), answer]) if value == id:
                found = answer
    return found


@cache
def _checked_as_shipped(id: str) -> ast.expr:
    shipped = cells_of(lessons()[id[:2]].read_bytes())
    (cell,) = (cell for cell in shipped if id in cell.exercises)
    answer = _checked(id, _parsed(cell.source).body)
    assert answer is not None, f"the shipped cell of {id} has no check"
    return answer


def _statements(number: int, tree: ast.Module) -> Iterator[_Statement]:
    for node in tree.body:
        defines = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if defines or not any(isinstance(each, ast.Await | ast.AsyncFor | ast.AsyncWith) for each in ast.walk(node)):
            names = frozenset(_names(ast.Module([node], [])))
            yield _Statement(number, node, frozenset(_binds(node)), frozenset(_changes(node)), names)


def _binds(statement: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement binds at the top level."""
    inside = isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    for node in [statement] if inside else ast.walk(statement):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.ImportFrom(module="__future__"):
                yield STAR  # it changes how the rest of the cell is compiled
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                yield from ((each.asname or each.name).partition(".")[0] for each in names)
            case ast.Name(id=name, ctx=ast.Store()):
                yield name


def _changes(statement: ast.stmt) -> Iterator[str]:
    """Yield the names of the things that a statement may fill or change, as `table.append(1)` or `table[0] = 1`."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return
    for node in ast.walk(statement):
        match node:
            case ast.Attribute(value=value, ctx=ast.Store()) | ast.Subscript(value=value, ctx=ast.Store()):
                yield from _root(value)
            case ast.Call(func=ast.Attribute(value=value)):
                yield from _root(value)


def _root(node: ast.expr) -> Iterator[str]:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    if isinstance(node, ast.Name):
        yield node.id


def _names(tree: ast.Expression | ast.Module) -> set[str]:
    """Return the names that a statement or an expression takes from the notebook, and not from its own functions."""
    mode = "eval" if isinstance(tree, ast.Expression) else "exec"
    found, codes = set[str](), [compile(ast.fix_missing_locations(tree), "<cell>", mode)]
    while codes:
        code = codes.pop()
        found |= {step.argval for step in dis.get_instructions(code) if step.opname in LOADS}
        codes += [each for each in code.co_consts if isinstance(each, types.CodeType)]
    return found


def _needed(names: set[str], statements: Sequence[_Statement], own: Sequence[int]) -> list[_Statement]:
    """Return the statements that the names need, and those that these need."""
    wanted, seen, chosen = [*names, STAR], set[str](), list[_Statement]()
    while wanted:
        if (name := wanted.pop()) in seen:
            continue
        seen.add(name)
        cells = {each.cell for each in statements if name in each.binds}
        place = cells if name == STAR else _nearest(cells, own)
        for each in statements:
            if each.cell in place and name in each.binds | each.changes and each not in chosen:
                chosen.append(each)
                wanted += each.needs
    return chosen


def _nearest(cells: set[int], own: Sequence[int]) -> set[int]:
    """Return the cells to take a name from: the exercise's own, or the nearest one above, or the first one below."""
    if mine := cells & set(own):
        return mine
    above = [each for each in cells if each < own[0]]
    return {max(above)} if above else set(sorted(cells)[:1])


def _refuse_the_courses_own(node: ast.stmt) -> None:
    """Raise `CannotTake` for an import of the checks, where the solutions are, too."""
    for each in ast.walk(node):
        if isinstance(each, ast.Import):
            taken = [name.name for name in each.names]
        elif isinstance(each, ast.ImportFrom):
            base = each.module or ""
            taken = [f"{base}.{name.name}" for name in each.names if (base, name.name) not in FOR_LEARNERS]
        else:
            continue
        if any(name.startswith(f"{COURSE}.") for name in taken):
            raise CannotTake(_("its cell imports the course's checks and solutions ({name})").format(name=taken[0]))


def _parts(chosen: Sequence[_Statement], cells: Sequence[Cell], own: Sequence[int]) -> Iterator[tuple[str, ast.Module]]:
    """Yield the statements cell by cell, in the notebook's order; the exercise's own come last."""
    order = sorted({each.cell for each in chosen}, key=lambda number: (number in own, number))
    for number in order:
        nodes = sorted((each.node for each in chosen if each.cell == number), key=lambda node: node.lineno)
        yield cells[number].source, ast.Module(nodes, [])
