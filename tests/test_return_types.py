"""No function returns either a value or something to be awaited: every caller would have to find out which it is.

Where work is nearly always done at once, the two are apart instead: `receive` says whether it is done, and `finish` is
awaited if it is not; a future may be done already.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_floors import MODULES

AWAITABLE = {"Awaitable", "Coroutine", "Future", "Task", "Generator"}


# Who sets up an instance, or does an exercise, may write a function either way; the module asks which it was, once.
EITHER_IS_TAKEN = {"chatlab.chat.access", "chatlab.lab.exercises.exercise"}


def members(union: ast.expr) -> Iterator[ast.expr]:
    """The types of `A | B | C` and of `Optional[A]`, `Union[A, B]`."""
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
    """`Future` for `asyncio.Future[str]`."""
    if isinstance(annotation, ast.Subscript):
        return name_of(annotation.value)
    return annotation.attr if isinstance(annotation, ast.Attribute) else getattr(annotation, "id", "")


def is_mixed(annotation: ast.expr) -> bool:
    kinds = {name_of(member) in AWAITABLE for member in members(annotation)}
    return kinds == {True, False}


def returned(tree: ast.AST, *, taken: bool = True) -> Iterator[tuple[int, ast.expr]]:
    """What functions return and, if `taken`, what those return that they take: `Callable[[bytes], THIS]`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is not None:
            yield node.lineno, node.returns
        elif (
            taken
            and isinstance(node, ast.Subscript)
            and name_of(node.value) == "Callable"
            and isinstance(node.slice, ast.Tuple)
        ):
            yield node.lineno, node.slice.elts[-1]


def faults(source: str, *, taken: bool = True) -> list[str]:
    found = returned(ast.parse(source), taken=taken)
    return [f"line {line}: {ast.unparse(each)}" for line, each in found if is_mixed(each)]


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
def test_this_test_finds_what_it_is_for(wrong: str) -> None:
    assert len(faults(wrong)) == 1
    assert faults("def f() -> asyncio.Future[str]: ...\ndef g() -> str | None: ...") == []


@pytest.mark.parametrize("module", MODULES)
def test_no_function_returns_either_a_value_or_an_awaitable(module: str) -> None:
    path: Path = MODULES[module]
    assert faults(path.read_text(encoding="utf-8"), taken=module not in EITHER_IS_TAKEN) == []
