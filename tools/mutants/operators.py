"""The operators: from the syntax tree of a solution, every tree with one mistake in it.

    for operator, source in mutations("def f(x): return x < 3"):
        ...    # ("boundary", "def f(x):\\n    return x <= 3"), …

An operator is a function: given a node (or the statements of a block), it yields what could stand in its place. Nothing
is changed in place. Left out: whether a mutant behaves differently, which only its check can tell.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

__all__ = ["OPERATORS", "mutations"]

Block = list[ast.stmt]
NEGATION: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
BOUNDARY: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.BitXor: ast.BitOr,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
CONVERSIONS = {"list", "set", "tuple", "sorted", "dict", "int", "str", "bytes"}  # `list(x)`, of which x may be left
LOOPS = (ast.For, ast.AsyncFor, ast.While)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
# Without these, every use of the name they define is a NameError, which says nothing about a check.
DEFINITIONS = (*FUNCTIONS, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal)


def _with(node: Any, **fields: object) -> Any:
    """Return a copy of a node with other fields."""
    return type(node)(**{**dict(ast.iter_fields(node)), **fields})


def _at(items: list[Any], index: int, *instead: Any) -> list[Any]:
    """Return a copy of a list with other items, or none, in the place of one."""
    return [*items[:index], *instead, *items[index + 1 :]]


# --- Expressions ---


def compare(node: ast.AST) -> Iterator[ast.AST]:
    """Turn a comparison round; `and` for `or`; a condition for its opposite."""
    match node:
        case ast.Compare(ops=ops):
            for index, each in enumerate(ops):
                yield _with(node, ops=_at(ops, index, NEGATION[type(each)]()))
        case ast.BoolOp(op=op, values=values):
            yield _with(node, op=ast.Or() if isinstance(op, ast.And) else ast.And())
            for index in range(len(values)):
                rest = _at(values, index)
                yield rest[0] if len(rest) == 1 else _with(node, values=rest)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test) if not isinstance(
            test, ast.Compare | ast.BoolOp | ast.UnaryOp | ast.Constant
        ):
            yield _with(node, test=ast.UnaryOp(ast.Not(), test))
        case ast.comprehension(ifs=[_, *_]):
            yield _with(node, ifs=[])


def boundary(node: ast.AST) -> Iterator[ast.AST]:
    """`<` for `<=`."""
    if isinstance(node, ast.Compare):
        for index, each in enumerate(node.ops):
            if type(each) in BOUNDARY:
                yield _with(node, ops=_at(node.ops, index, BOUNDARY[type(each)]()))


def off_by_one(node: ast.AST) -> Iterator[ast.AST]:
    """One more or less; an end of a slice left out; a time ten times as long or as short."""
    match node:
        case ast.Constant(value=bool()):
            yield ast.Constant(not node.value)
        case ast.Constant(value=int(number)):
            yield ast.Constant(number + 1)
            if number:
                yield ast.Constant(number - 1)
        case ast.Constant(value=float(number)):
            yield ast.Constant(number * 10)
            yield ast.Constant(number / 10)
        case ast.Slice(lower=lower, upper=upper):
            if lower is not None:
                yield _with(node, lower=None)
            if upper is not None:
                yield _with(node, upper=None)


def constant(node: ast.AST) -> Iterator[ast.AST]:
    """A text or a key that is wrong: a character short, in the other case, or without one of its lines."""
    if not isinstance(node, ast.Constant) or not isinstance(node.value, str | bytes):
        return
    value: Any = node.value
    if isinstance(value, str) and value.count("\n") > 1 and value.strip():
        lines = value.splitlines(keepends=True)
        yield from (ast.Constant("".join(_at(lines, n))) for n, line in enumerate(lines) if line.strip())
        return
    yield ast.Constant(value[:-1] if value else value + ("x" if isinstance(value, str) else b"x"))
    if value.swapcase() != value:
        yield ast.Constant(value.swapcase())


def arithmetic(node: ast.AST) -> Iterator[ast.AST]:
    """Another operator, operands in the other order, or `=` for `+=`."""
    match node:
        case ast.BinOp(left=left, op=op, right=right):
            if type(op) in ARITHMETIC:
                yield _with(node, op=ARITHMETIC[type(op)]())
            commutes = isinstance(op, ast.BitXor | ast.BitAnd | ast.BitOr | ast.Mult)
            if not commutes and not isinstance(left, ast.Constant) and not isinstance(right, ast.Constant):
                yield _with(node, left=right, right=left)
        case ast.AugAssign(target=target, value=value):
            yield ast.Assign([target], value, lineno=0)


def argument(node: ast.AST) -> Iterator[ast.AST]:
    """Two arguments swapped, or one left out; `x["k"]` for `x.get("k", …)`."""
    if not isinstance(node, ast.Call):
        return
    match node.args:
        case [first, second, *rest] if not any(isinstance(each, ast.Starred) for each in node.args):
            yield _with(node, args=[second, first, *rest])
            yield _with(node, args=node.args[:-1])
            if isinstance(node.func, ast.Attribute) and node.func.attr == "get":
                yield ast.Subscript(node.func.value, first, ast.Load())
    for index in range(len(node.keywords)):
        yield _with(node, keywords=_at(node.keywords, index))


def conversion(node: ast.AST) -> Iterator[ast.AST]:
    """`x` for `x.lower()`, `list(x)` and the like."""
    match node:
        case ast.Call(func=ast.Attribute(value=value), args=[], keywords=[]):
            yield value
        case ast.Call(func=ast.Name(id=name), args=[value], keywords=[]) if name in CONVERSIONS:
            yield value


def missing_await(node: ast.AST) -> Iterator[ast.AST]:
    """Call a coroutine function, and do not await it."""
    if isinstance(node, ast.Await):
        yield node.value


def wrong_exception(node: ast.AST) -> Iterator[ast.AST]:
    """Another exception caught or raised, or caught and raised again."""
    match node:
        case ast.ExceptHandler(type=ast.Tuple(elts=caught)):
            yield from (_with(node, type=ast.Tuple(_at(caught, n), ast.Load())) for n in range(len(caught)))
            yield _with(node, body=[ast.Raise()])
        case ast.ExceptHandler():
            yield _with(node, type=ast.Name("KeyError", ast.Load()))
            yield _with(node, body=[ast.Raise()])
        case ast.Raise(exc=ast.Call() as call):
            yield _with(node, exc=_with(call, func=ast.Name("RuntimeError", ast.Load())))


def early_return(node: ast.AST) -> Iterator[ast.AST]:
    """Nothing returned; `break` for `continue`, and the reverse; only the first round of a loop."""
    match node:
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield ast.Return(None)
        case ast.Continue():
            yield ast.Break()
        case ast.Break():
            yield ast.Continue()
        case ast.For(body=body) | ast.AsyncFor(body=body) | ast.While(body=body) if not isinstance(
            body[-1], ast.Return | ast.Break
        ):
            yield _with(node, body=[*body, ast.Break()])


# --- Blocks of statements ---


def drop(block: Block) -> Iterator[Block]:
    """Leave a statement out."""
    for index, each in enumerate(block):
        if not isinstance(each, (*DEFINITIONS, ast.Pass)):
            yield _at(block, index) or [ast.Pass()]


def swap(block: Block) -> Iterator[Block]:
    """Exchange a statement with the next."""
    for index, (one, other) in enumerate(pairwise(block)):
        if not isinstance(one, DEFINITIONS) and not isinstance(other, DEFINITIONS):
            yield [*block[:index], other, one, *block[index + 2 :]]


def unwrap(block: Block) -> Iterator[Block]:
    """Keep what a `try`, a `with` or an `if` has in it, without the rest."""
    for index, each in enumerate(block):
        match each:
            case ast.Try(body=body, handlers=handlers, finalbody=last):
                if handlers:
                    yield _at(block, index, *([_with(each, handlers=[], orelse=[])] if last else body))
                if last:
                    yield _at(block, index, *([_with(each, finalbody=[]), *last] if handlers else [*body, *last]))
            case ast.With(body=body) | ast.AsyncWith(body=body) | ast.If(body=body):
                yield _at(block, index, *body)


def stop_early(block: Block) -> Iterator[Block]:
    """Return before a statement: all that comes after is left out."""
    for index in range(1, len(block)):
        if not isinstance(block[index - 1], DEFINITIONS) and not isinstance(block[index], ast.Return | ast.Pass):
            yield [*block[:index], ast.Return(None)]


def wrong_place(block: Block) -> Iterator[Block]:
    """Begin a loop with what stands before it, or move its first or last statement out."""
    for index, each in enumerate(block):
        if not isinstance(each, LOOPS):
            continue
        before = block[index - 1] if index else None
        if isinstance(before, ast.Assign | ast.AnnAssign):
            yield [*block[: index - 1], _with(each, body=[before, *each.body]), *block[index + 1 :]]
        if index + 1 < len(block) and not isinstance(block[index + 1], DEFINITIONS):
            yield [*block[:index], _with(each, body=[*each.body, block[index + 1]]), *block[index + 2 :]]
        if len(each.body) > 1:
            if isinstance(each.body[0], ast.Assign | ast.Expr):
                yield _at(block, index, each.body[0], _with(each, body=each.body[1:]))
            if isinstance(each.body[-1], ast.Assign | ast.AugAssign | ast.Expr):
                yield _at(block, index, _with(each, body=each.body[:-1]), each.body[-1])


def kept_between_calls(block: Block) -> Iterator[Block]:
    """Make what a function begins with a global variable, which the next call finds as this one has left it."""
    match block:
        case [ast.FunctionDef() | ast.AsyncFunctionDef() as function]:
            for index, each in enumerate(function.body):
                if isinstance(each, ast.Assign | ast.AnnAssign) and each.value is not None and _is_new(each.value):
                    targets: list[ast.expr] = each.targets if isinstance(each, ast.Assign) else [each.target]
                    names = [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]
                    begin = ast.Assign(targets, each.value, lineno=0)
                    yield [begin, _with(function, body=[ast.Global(names), *_at(function.body, index)])]


def _is_new(value: ast.expr) -> bool:
    """Whether a value is written out, and a container or a first value rather than a name for a constant."""
    match value:
        case ast.Tuple(elts=values):
            return all(isinstance(each, ast.Constant) or _is_new(each) for each in values)
        case ast.List() | ast.Dict() | ast.Set() | ast.Call(args=[], func=ast.Name()):
            return True
        case ast.Constant(value=str()):
            return False
    return isinstance(value, ast.Constant)


NODE_OPERATORS: tuple[Callable[[ast.AST], Iterator[ast.AST]], ...] = (
    compare,
    boundary,
    off_by_one,
    constant,
    arithmetic,
    argument,
    conversion,
    missing_await,
    wrong_exception,
    early_return,
)
BLOCK_OPERATORS: tuple[Callable[[Block], Iterator[Block]], ...] = (
    drop,
    swap,
    unwrap,
    stop_early,
    wrong_place,
    kept_between_calls,
)
OPERATORS = tuple(each.__name__ for each in (*NODE_OPERATORS, *BLOCK_OPERATORS))


def mutations(source: str) -> Iterator[tuple[str, str]]:
    """Yield the name of an operator and the source with its change, each source once, none that does not compile."""
    tree = ast.parse(source)
    seen = {ast.unparse(tree)}
    for name in _changes(tree):
        try:
            changed = ast.unparse(ast.fix_missing_locations(tree))
            compile(changed, "<mutant>", "exec")
        except SyntaxError:
            continue
        if changed not in seen:
            seen.add(changed)
            yield name, changed


def _changes(tree: ast.AST) -> Iterator[str]:
    """Put each change into the tree in turn, and yield its operator's name while it is there."""
    for node in list(_outside_annotations(tree)):
        for field, value in ast.iter_fields(node):
            if field == "annotation":
                continue
            if isinstance(value, list):
                if value and all(isinstance(each, ast.stmt) for each in value):
                    for operator in BLOCK_OPERATORS:
                        for block in operator(value):
                            setattr(node, field, block)
                            yield operator.__name__
                for index, each in enumerate(value):
                    for name, changed in _instead_of(each):
                        setattr(node, field, _at(value, index, changed))
                        yield name
            else:
                for name, changed in _instead_of(value):
                    setattr(node, field, changed)
                    yield name
            setattr(node, field, value)


def _outside_annotations(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a node and all below it. What Python does not evaluate is left out: the annotations of local variables."""
    yield node
    for field, value in ast.iter_fields(node):
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, ast.AST) and field != "annotation":
                yield from _outside_annotations(each)


def _instead_of(value: object) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(value, ast.AST):
        for operator in NODE_OPERATORS:
            for changed in operator(value):
                yield operator.__name__, changed
