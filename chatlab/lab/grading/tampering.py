"""Notice that a learner's code has changed the program that judges it.

    seal = Seal()
    ...                  # the learner's code runs
    seal.broken()        # "chatlab.lab.exercises.exercise.NotYet", or None

A seal remembers every function, class and constant of chatlab, and of what it stands on (asyncio, websockets, redis,
the built-in names), and finds what was replaced. Left out: code that finds the seal itself and replaces what it
remembers.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any

__all__ = ["Seal"]

SEALED = ("chatlab", "asyncio", "builtins", "redis", "websockets", "inspect", "hashlib", "base64", "json", "random")
FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType)
PLAIN = (str, int, float, bytes, tuple, frozenset, *FUNCTIONS)
LISTS = "chatlab.lab.exercises.lessons."  # the cases of the checks


class Seal:
    """What the modules are made of, at the moment this is made."""

    def __init__(self) -> None:
        self._known = {place: (value, _inside(value)) for place, value in _everything()}
        self._cases = dict(_cases())

    def broken(self) -> str | None:
        """Return the name of something that has been replaced since, or None."""
        now = dict(_everything())
        for place, (value, inside) in self._known.items():
            if now.get(place, self) is not value or _inside(value) != inside:
                return ".".join(filter(None, place))
        cases = dict(_cases())
        return next((".".join(place) for place, shown in self._cases.items() if cases.get(place) != shown), None)


def _modules() -> Iterator[tuple[str, types.ModuleType]]:
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in SEALED and isinstance(module, types.ModuleType):
            yield name, module


def _everything() -> Iterator[tuple[tuple[str, str, str], Any]]:
    """Yield each function, class and plain value of the modules, and the functions of their classes, by name."""
    for module_name, module in _modules():
        for name, value in list(vars(module).items()):
            if name.startswith("__") or name == "_":  # `_` of the built-in names is a prompt's last value
                continue
            if isinstance(value, type):
                yield (module_name, name, ""), value
                if value.__module__ == module_name:
                    yield from _of_class(module_name, name, value)
            elif isinstance(value, PLAIN if name.isupper() else FUNCTIONS):  # a module may count in small letters
                yield (module_name, name, ""), value


def _of_class(module: str, name: str, kind: type) -> Iterator[tuple[tuple[str, str, str], Any]]:
    for attribute, value in list(vars(kind).items()):
        if isinstance(value, types.FunctionType | property | staticmethod | classmethod):
            yield (module, name, attribute), value


def _inside(value: Any) -> object:
    """Return what a function can be changed into without being replaced: its code, its defaults."""
    if isinstance(value, types.FunctionType):
        return value.__code__, value.__defaults__
    return None


def _cases() -> Iterator[tuple[tuple[str, str], str]]:
    for module_name, module in _modules():
        if module_name.startswith(LISTS):
            for name, value in list(vars(module).items()):
                if name.isupper() and isinstance(value, list | dict | set):
                    yield (module_name, name), repr(value)
