"""No function returns either a value or an awaitable: every caller would have to check which one it got.

Where work is usually done at once, there are two functions: `receive` returns whether the work is done, and `finish` is
awaited if it is not. A function may return a future that is already done.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_floors import MODULES

AWAITABLE = {"Awaitable", "Coroutine", "Future", "Task", "Generator"}

# An operator's or a learner's function may be sync or async; these modules accept both, and check once which it is.
ACCEPT_BOTH = {"chatlab.chat.access", "chatlab.lab.exercises.exercise"}


def members(union: ast.expr) -> Iterator[ast.expr]:
    """Yield the types of `A | B | C`, and of `Optional[A]` and `Union[A, B]`."""
    if isinstance(union, ast.BinOp) and isinstance(union.op, ast.BitOr):
        yield from members(union.left)
        yield from members(union.right)
    elif isinstance(union, ast.Subscript) and name_of(union.value) in {"Union", "Optional"}:
        inner = union.slice
        for member in inner.elts if isinstance(inner, ast.Tuple) else [inner, ast.Constant(None)]:
            yield from members(member)
    elif isinstance(union, ast.Constant) and isinstance(union.value, str):
        yield from members(ast.parse(union.value, mode="eval").body)
    else:
        yield union


def name_of(annotation: ast.expr) -> str:
    """Return `Future` for `asyncio.Future[str]`."""
    if isinstance(annotation, ast.Subscript):
        return name_of(annotation.value)
    return annotation.attr if isinstance(annotation, ast.Attribute) else getattr(annotation, "id", "")


def is_mixed(annotation: ast.expr) -> bool:
    kinds = {name_of(member) in AWAITABLE for member in members(annotation)}
    return kinds == {True, False}


def return_types(tree: ast.AST, *, callables: bool = True) -> Iterator[tuple[int, ast.expr]]:
    """Yield return types of functions and, if `callables`, of callable types: `Callable[[bytes], THIS]`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is not None:
            yield node.lineno, node.returns
        elif (
            callables
            and isinstance(node, ast.Subscript)
            and name_of(node.value) == "Callable"
            and isinstance(node.slice, ast.Tuple)
        ):
            yield node.lineno, node.slice.elts[-1]


def faults(source: str, *, callables: bool = True) -> list[str]:
    types = return_types(ast.parse(source), callables=callables)
    return [f"line {line}: {ast.unparse(each)}" for line, each in types if is_mixed(each)]


@pytest.mark.parametrize(
    "wrong",
    [
        "def f() -> Awaitable[None] | None: ...",
        "def f() -> asyncio.Future[str] | str: ...",
        "def f() -> 'Outgoing | Awaitable[Outgoing]': ...",
        "async def f() -> Optional[Task[None]]: ...",
        "Receive = Callable[[bytes], Awaitable[None] | None]",
    ],
)
def test_a_mixed_return_type_is_reported(wrong: str) -> None:
    assert len(faults(wrong)) == 1
    assert faults("def f() -> asyncio.Future[str]: ...\ndef g() -> str | None: ...") == []


@pytest.mark.parametrize("module", MODULES)
def test_no_function_returns_either_a_value_or_an_awaitable(module: str) -> None:
    path: Path = MODULES[module]
    assert faults(path.read_text(encoding="utf-8"), callables=module not in ACCEPT_BOTH) == []
