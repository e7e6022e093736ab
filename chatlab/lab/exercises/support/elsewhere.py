"""A learner's function in other processes: is its answer the same there?

    await elsewhere(partition, [(message, 4), ...])      # the results of another process, with another hash() of texts

The function travels as code, together with the globals it uses: helpers from the same place travel, too; modules and
what they contain are imported there. Left out: methods, and objects that `pickle` cannot move.
"""

from __future__ import annotations

import asyncio
import marshal
import os
import pickle
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

__all__ = ["CannotMove", "DiedElsewhere", "Parcel", "elsewhere", "packed"]

SECONDS = 10.0


class CannotMove(Exception):  # named without "Error": the answer may be right
    """The function, or something it uses, cannot be moved to another process."""


class DiedElsewhere(Exception):  # likewise
    """The function raised an error in the other process, and not here."""


# What the other process runs. It must not import chatlab, which takes time.
PROGRAM = """
import builtins, importlib, marshal, pickle, sys, types
sys.path[:], parcel, calls = pickle.load(sys.stdin.buffer)
names = {"__name__": "__main__", "__builtins__": builtins}
def unpack(kind, content):
    if kind == "module":
        return importlib.import_module(content)
    if kind == "value":
        return pickle.loads(content)
    code, defaults, keywords, cells = content
    cells = tuple(types.CellType(unpack(*cell)) for cell in cells)
    made = types.FunctionType(marshal.loads(code), names, None, pickle.loads(defaults), cells)
    made.__kwdefaults__ = pickle.loads(keywords)
    return made
out = sys.stdout.buffer
try:
    answer = unpack(*parcel[0])
    for name, packed in parcel[1].items():
        names[name] = unpack(*packed)
except Exception as error:
    out.write(pickle.dumps(("cannot", repr(error))))
else:
    sys.stdout = sys.stderr
    try:
        out.write(pickle.dumps(("done", [answer(*each) for each in calls])))
    except Exception as error:
        out.write(pickle.dumps(("died", repr(error))))
"""  # not shown: a program

Packed = tuple[str, Any]
Parcel = tuple[Packed, dict[str, Packed]]


def packed(function: Callable[..., Any]) -> Parcel:
    """Return a function with the globals it uses, ready to travel. Raises `CannotMove`.

    What it remembers, in globals or defaults, travels as it is now.
    """
    if not isinstance(function, types.FunctionType):
        raise CannotMove(function)
    parcel: dict[str, Packed] = {}
    return _pack(function, function.__globals__, parcel), parcel


def _pack(value: Any, home: dict[str, Any], parcel: dict[str, Packed]) -> Packed:
    if isinstance(value, types.ModuleType):
        return "module", value.__name__
    try:
        if isinstance(value, types.FunctionType) and value.__globals__ is home:
            return "function", _pack_function(value, home, parcel)
        return "value", pickle.dumps(value)
    except (pickle.PicklingError, TypeError, AttributeError, ValueError) as error:
        raise CannotMove(value) from error


def _pack_function(function: types.FunctionType, home: dict[str, Any], parcel: dict[str, Packed]) -> tuple[Any, ...]:
    for name in _names(function.__code__):
        if name in home and name not in parcel:
            parcel[name] = "value", pickle.dumps(None)  # so that a function may call itself
            parcel[name] = _pack(home[name], home, parcel)
    cells = tuple(_pack(cell.cell_contents, home, parcel) for cell in function.__closure__ or ())
    defaults, keywords = pickle.dumps(function.__defaults__), pickle.dumps(function.__kwdefaults__)
    return marshal.dumps(function.__code__), defaults, keywords, cells


def _names(code: types.CodeType) -> Iterator[str]:
    """Yield the global names that a function's code uses, and those of the functions inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


async def elsewhere(parcel: Parcel, calls: Sequence[tuple[Any, ...]], *, seed: int) -> list[Any]:
    """Call the function in a new process whose `hash()` of texts is seeded with `seed`; return the results in order.

    Raises `CannotMove` if it cannot be moved, `DiedElsewhere` if it raises an error there, TimeoutError.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "PYTHONHASHSEED": str(seed)},
    )
    try:
        async with asyncio.timeout(SECONDS):
            said, __ = await process.communicate(pickle.dumps((sys.path, parcel, list(calls))))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return _result(said)


def _result(said: bytes) -> list[Any]:
    try:
        outcome, content = pickle.loads(said)
    except (EOFError, pickle.UnpicklingError) as error:
        raise DiedElsewhere("the process ended") from error  # not shown: a cause
    if outcome == "cannot":
        raise CannotMove(content)
    if outcome == "died":
        raise DiedElsewhere(content)
    results: list[Any] = content
    return results
