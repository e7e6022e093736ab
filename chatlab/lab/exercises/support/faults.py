"""Support for the check of 07.5: faults at named moments, so that an answer passes by surviving them, never by luck.

    tap = CommandTap()
    redis = tapped(url, tap)                 a client whose commands the tap sees (`redis.py`)
    tap.at("store", 2, break_off)            the second command that is no read is executed; then its connection is lost
    other = twin(handler)                    the same function with memory of its own, as in another process
    story.add("가람 sends 'a'")               what happened so far, in order, to be shown when a rule is broken

A command is counted with its kind: "read" for those that read the stream, "store" for all others. A pipeline counts as
one. Left out: the members and the servers (`members.py`), and the rules (`lessons/lesson07.py`).
"""

from __future__ import annotations

import asyncio
import collections
import copy
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from chatlab.lab.exercises.support.redis import Action, Tap
from chatlab.locale import _

__all__ = ["CommandTap", "Story", "twin"]

Kind = Literal["read", "store"]
READS = {"XREAD", "XREADGROUP", "XRANGE", "XREVRANGE", "XLEN", "XINFO"}
ASIDE = {"HELLO", "CLIENT", "SELECT", "AUTH", "PING", "SUBSCRIBE", "PSUBSCRIBE", "UNSUBSCRIBE", "SCRIPT"}


class Story:
    """What has happened, a numbered line for each step; it is the evidence of a broken rule."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.lines: list[str] = []

    def add(self, line: str) -> None:
        """Add a step."""
        self.lines.append(line)

    def __str__(self) -> str:
        numbered = [f"{number}. {line}" for number, line in enumerate(self.lines, 1)]
        return "\n".join([_("the fault: {name}").format(name=self.fault), *numbered])


# --- Commands to Redis ---


class CommandTap(Tap):
    """Counts the commands of a client by their kind, and acts when Redis has executed a chosen one."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []  # those that store, since the last reset
        self._counts = {"read": 0, "store": 0}
        self._plan: dict[tuple[Kind, int], Action] = {}

    def reset(self) -> None:
        """Count from 0 again, and forget what was planned."""
        self.names.clear()
        self._counts = {"read": 0, "store": 0}
        self._plan.clear()

    def at(self, kind: Kind, number: int, action: Action) -> None:
        """Act when the command of this kind with that number, from 1, is executed, before its caller learns of it."""
        self._plan[kind, number] = action

    async def before(self, commands: Sequence[str]) -> Action | None:
        """Count a command, or the commands of a pipeline; return what to do when it is executed."""
        if set(commands) <= ASIDE:
            return None
        kind: Kind = "read" if set(commands) <= READS else "store"
        self._counts[kind] += 1
        if kind == "store":
            self.names.append(" ".join(commands))
        return self._plan.pop((kind, self._counts[kind]), None)


# --- Two servers that share no memory ---

PLAIN = (dict, list, set, bytearray, collections.deque, types.SimpleNamespace)
WAITING = (asyncio.Lock, asyncio.Event, asyncio.Condition, asyncio.Semaphore, asyncio.Queue)


def twin(answer: Callable[..., Any]) -> Callable[..., Any]:
    """Return the same function with memory of its own: what it keeps between two calls is copied.

    Copied are containers, locks, and instances of the module's own classes, in globals that the function and the
    functions it calls use, in closures, defaults and attributes. Left out: what a class keeps in its attributes.
    """
    return _Twin(answer).function(answer) if isinstance(answer, types.FunctionType) else answer


class _Twin:
    """Copies a function and what it reaches, each thing once."""

    def __init__(self, answer: types.FunctionType) -> None:
        self._module = answer.__module__
        self._origin = answer.__globals__
        self._globals = dict(answer.__globals__)
        self._done: dict[int, Any] = {}

    def function(self, original: types.FunctionType) -> types.FunctionType:
        """Copy a function."""
        if id(original) in self._done:
            copied: types.FunctionType = self._done[id(original)]
            return copied
        cells = tuple(types.CellType() for _cell in original.__closure__ or ())
        made = types.FunctionType(original.__code__, self._globals, original.__name__, None, cells or None)
        self._done[id(original)] = made
        made.__defaults__ = self._all(original.__defaults__)
        made.__kwdefaults__ = {name: self._value(each) for name, each in (original.__kwdefaults__ or {}).items()}
        made.__dict__.update({name: self._value(each) for name, each in original.__dict__.items()})
        for cell, theirs in zip(cells, original.__closure__ or (), strict=True):
            cell.cell_contents = self._value(theirs.cell_contents)
        for name in _names_in(original.__code__):
            if name in self._origin:
                self._globals[name] = self._value(self._origin[name])
        return made

    def _all(self, values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        return None if values is None else tuple(map(self._value, values))

    def _value(self, value: Any) -> Any:
        if isinstance(value, types.FunctionType):
            return self.function(value) if value.__globals__ is self._origin else value
        if id(value) in self._done:
            return self._done[id(value)]
        if isinstance(value, PLAIN + WAITING) or type(value).__module__ == self._module:
            self._done[id(value)] = _copied(value)
            return self._done[id(value)]
        return value


def _copied(value: Any) -> Any:
    """Return a deep copy, or the value itself if it cannot be copied."""
    try:
        return copy.deepcopy(value)
    except (TypeError, copy.Error):
        return value


def _names_in(code: types.CodeType) -> Iterator[str]:
    """The global names that a function uses, and the functions inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names_in(constant)
