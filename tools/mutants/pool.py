"""Run mutants through their checks in several processes, each replaced when a mutant makes it hang.

    for result in run(mutants, workers=3):
        print(result.mutant, result.verdict, result.sentence)

A check has its own time limit, which a mutant can evade by never letting the interpreter run, or by never ending its
clean-up. So a worker that does not answer within `LIMIT` seconds is killed, and another takes the next mutant.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import os
import random
import re
import sys
import tempfile
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Literal

from chatlab.lab.exercises.exercise import check, exercises, find
from chatlab.lab.runtime import lab
from tools.mutants.mutants import Mutant, answer_of

__all__ = ["LIMIT", "Result", "Verdict", "run"]

Verdict = Literal["refused", "no rule", "called right", "hung", "no answer"]
LIMIT = 45.0  # seconds for one mutant: a check ends by itself after 15
START = 300.0  # seconds for a process to import everything, on a busy machine
MEMORY = 3 << 30  # octets for the data of a worker
NO_RULE = re.compile(r"your code raised \w+$|it did not finish within")
NEEDS_REDIS = ("04", "05", "07")


@dataclass(frozen=True)
class Result:
    """What a check said of a mutant. `no answer`: with so little left, the check takes it for the untouched stub."""

    exercise: str
    mutant: str
    verdict: Verdict
    sentence: str = ""
    evidence: str = ""
    seconds: float = 0.0


def run(mutants: Iterable[Mutant], *, workers: int = 3, seed: int = 0) -> Iterator[Result]:
    """Yield a result for each mutant, as they come."""
    waiting = deque(mutants)
    pool = [_Worker(seed) for _ in range(min(workers, len(waiting)))]
    try:
        while waiting or any(worker.mutant for worker in pool):
            for worker in pool:
                if worker.mutant is None and waiting:
                    worker.begin(waiting.popleft())
            wait([worker.results for worker in pool if worker.mutant], timeout=0.5)
            for worker in pool:
                if result := worker.result():
                    yield result
    finally:
        for worker in pool:
            worker.end()


class _Worker:
    """A process that runs one mutant after another."""

    def __init__(self, seed: int) -> None:
        self.mutant: Mutant | None = None
        self._seed = seed
        self._deadline = 0.0
        self._start()

    def begin(self, mutant: Mutant) -> None:
        """Hand a mutant to the process."""
        self.mutant, self._deadline = mutant, time.monotonic() + (LIMIT if self._ready else START)
        self.results.send(mutant)

    def result(self) -> Result | None:
        """Return the result of the mutant in work, if there is one, or if the process hangs or has ended."""
        if self.mutant is None:
            return None
        mutant = self.mutant
        try:
            if self.results.poll():
                if (result := self.results.recv()) is None:  # it has imported everything, and begins now
                    self._ready, self._deadline = True, time.monotonic() + LIMIT
                    return None
                self.mutant = None
                assert isinstance(result, Result)
                return result
            if time.monotonic() < self._deadline:
                return None
            sentence = f"killed after {LIMIT:g} s"
        except (EOFError, OSError):
            sentence = "the process ended"
        self.mutant = None
        self.end()
        self._start()
        return Result(mutant.exercise, mutant.name, "hung", sentence, seconds=LIMIT)

    def end(self) -> None:
        """End the process, whatever it does. What it started ends with it."""
        self._process.kill()
        self._process.join()
        self.results.close()
        self._home.cleanup()

    def _start(self) -> None:
        self._ready = False
        context = multiprocessing.get_context("spawn")
        self._home = tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True)
        ours, theirs = context.Pipe()
        self.results: Connection = ours
        self._process = context.Process(target=_work, args=(theirs, self._seed, self._home.name), daemon=True)
        self._process.start()
        theirs.close()


def _work(tasks: Connection, seed: int, home: str) -> None:
    """Check mutants, in a process of its own, until the other end is closed."""
    os.environ.update(CHATLAB_HOME=home, CHATLAB_LANG="en")
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  # a mutant may print, as long as the process runs
    logging.disable(logging.CRITICAL)  # a mutant's tasks and coroutines die as they like
    warnings.simplefilter("ignore")
    exercises()
    tasks.send(None)
    with asyncio.Runner() as runner:
        while True:
            try:
                mutant = tasks.recv()
            except (EOFError, OSError):
                return
            random.seed(f"{seed} {mutant.exercise} {mutant.name}")
            tasks.send(runner.run(_check(mutant)))
            gc.collect()


async def _check(mutant: Mutant) -> Result:
    if mutant.exercise[:2] in NEEDS_REDIS:
        await lab.redis()  # starting it is no part of the check
    before = asyncio.all_tasks()
    begin = time.monotonic()
    try:
        answer = answer_of(find(mutant.exercise), mutant.source)
    except Exception as error:  # the cell itself cannot be run, so there is nothing to check
        return Result(mutant.exercise, mutant.name, "no answer", repr(error))
    outcome = await check(mutant.exercise, answer)
    seconds = time.monotonic() - begin
    for task in asyncio.all_tasks() - before:
        task.cancel()
    verdict: Verdict = "refused"
    if outcome.mark == "right":
        verdict = "called right"
    elif outcome.mark == "not tried":
        verdict = "no answer"
    elif NO_RULE.match(outcome.sentence):
        verdict = "no rule"
    return Result(mutant.exercise, mutant.name, verdict, outcome.sentence, outcome.evidence, seconds)
