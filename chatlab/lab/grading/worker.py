"""The process that judges one notebook: it runs the exercises' answers and sends a verdict for each.

    judge(channel, work)        in a process of its own; `work` is JSON: the cells, the exercises, and a token

A message is one JSON object, never a pickle, because the learner's code runs in this process and could send one. Each
carries the token, which the learner's code is not given. Left out: what happens to a process that ends too early or too
late; see `judging.py`.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import json
import linecache
import os
import sys
import tempfile
import time
import types
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from chatlab.lab.exercises.exercise import NOT_YET, Exercise, Outcome, exercises, find, outcome_of
from chatlab.lab.grading.bounds import CELL, PRINTED, with_bounds
from chatlab.lab.grading.cells import CannotTake, Program, program
from chatlab.lab.grading.draws import draw
from chatlab.lab.grading.submissions import Cell
from chatlab.lab.grading.tampering import Seal
from chatlab.locale import _

__all__ = ["judge"]

exercises()  # loads all lessons, once, in the process that those of the notebooks are forked from


def judge(channel: Any, work: str) -> None:
    """Judge the exercises of one notebook, one after another."""
    given = json.loads(work)
    if hasattr(os, "setsid"):
        os.setsid()  # so that all that it starts can be ended with it
    cells = [Cell(source, tuple(ids)) for source, ids in given["cells"]]
    folder = Path(given["folder"])
    os.chdir(folder)
    os.environ.update(CHATLAB_HOME=str(folder), HOME=str(folder), TMPDIR=str(folder))
    tempfile.tempdir = str(folder)
    with_bounds(folder)
    _close_all_but(channel.fileno())
    said = _Said()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        asyncio.run(_judge_all(channel, given["token"], given["seed"], cells, given["exercises"], said))
    channel.close()
    os._exit(0)  # without what the learner's code has registered for the end


def _close_all_but(kept: int) -> None:
    """Close what was inherited, such as the pipes of the process this one is forked from."""
    if sys.platform != "win32":
        highest = max(int(each.name) for each in Path("/dev/fd").iterdir())
        os.closerange(3, kept)
        os.closerange(kept + 1, highest + 1)


async def _judge_all(
    channel: Any, token: str, seed: str, cells: Sequence[Cell], ids: Sequence[str], said: _Said
) -> None:
    seal = Seal()
    assert seal.broken() is None, seal.broken()
    send = channel.send_bytes
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for standard in (1, 2):  # what C code and other processes print
        os.dup2(nowhere, standard)
    for id in ids:
        send(json.dumps({"token": token, "begins": id}).encode())
        began = time.monotonic()
        outcome = await _outcome(find(id), cells, seed)
        if place := seal.broken():
            sentence = _("its code changes the program that judges it ({name})").format(name=place)
            outcome = Outcome(id, NOT_YET, sentence)
        printed, said.count = said.count, 0
        verdict: dict[str, object] = {"id": id, "mark": outcome.mark, "sentence": outcome.sentence}
        verdict |= {
            "evidence": outcome.evidence[:2000],
            "seconds": time.monotonic() - began,
            "printed": printed if printed >= PRINTED else 0,
        }
        send(json.dumps(verdict | {"token": token}).encode())
        if place:
            return  # the next exercise needs a process that nobody has changed
        await _end_leftovers()


async def _outcome(exercise: Exercise, cells: Sequence[Cell], seed: str) -> Outcome:
    try:
        answer = _answer(exercise.id, program(exercise.id, cells))
    except CannotTake as problem:
        return Outcome(exercise.id, NOT_YET, str(problem))
    except BaseException as error:  # `exit()` and a KeyboardInterrupt of the learner's, too
        line = _("the lines of its cell raised {error}: {message}")
        return Outcome(exercise.id, NOT_YET, line.format(error=type(error).__name__, message=error))
    if _is_the_courses(exercise, answer):
        return Outcome(exercise.id, NOT_YET, _("its answer is a function of the course, not one of the notebook"))

    async def check(answer: Any) -> None:
        verdict = exercise.check(answer)
        if inspect.isawaitable(verdict):
            await verdict
        await draw(exercise, answer, Random(f"{seed} {exercise.id}"))

    try:
        return await outcome_of(replace(exercise, check=check), answer)
    except BaseException as error:
        line = _("your code raised {error}").format(error=type(error).__name__)
        return Outcome(exercise.id, NOT_YET, line)


def _answer(id: str, taken: Program) -> Any:
    """Run an answer's parts as a notebook would, and return it."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    for number, (source, tree) in enumerate(taken.parts):
        name = f"{CELL}{id}>" if number == len(taken.parts) - 1 else f"{CELL}{id}, part {number}>"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        exec(compile(tree, name, "exec"), vars(module))
    answer = ast.fix_missing_locations(taken.answer)
    return eval(compile(answer, f"{CELL}{id}>", "eval"), vars(module))


def _is_the_courses(exercise: Exercise, answer: Any) -> bool:
    """Whether an answer is the reference solution, or another function or class of the course."""
    return str(getattr(answer, "__module__", "")).split(".")[0] == "chatlab" and callable(answer)


async def _end_leftovers() -> None:
    """End the tasks that an answer has left running."""
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task() and _is_learners(task)]
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=1)


def _is_learners(task: asyncio.Task[Any]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and code.co_filename.startswith(CELL)


class _Said(io.TextIOBase):
    """Counts what is printed, and keeps nothing of it."""

    count = 0

    def writable(self) -> bool:
        """Return True: everything may be written."""
        return True

    def write(self, text: str) -> int:
        """Count the text's characters."""
        self.count += len(text)
        return len(text)
