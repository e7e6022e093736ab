"""Judging a class: a process for each notebook, bounded in time, and a verdict for each exercise whatever happens.

    results = judge_all(submissions(Path("inbox")), workers=2)

The processes are forked from one that has imported the checks already (`multiprocessing`'s fork server), so that a
notebook costs its checks and not three seconds of imports. A process that ends, hangs, or was changed by the learner's
code gives one verdict, and the notebook's other exercises get a new process. A refusal that took so long that a busy
machine may have caused it is checked again, alone, at the end. Left out: points for parts of an exercise.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final

from chatlab.lab.exercises.exercise import NOT_TRIED, NOT_YET, RIGHT, Mark
from chatlab.lab.grading import worker
from chatlab.lab.grading.submissions import Submission
from chatlab.locale import _, ngettext

__all__ = ["Result", "Verdict", "judge_all"]

SECONDS: Final = 25.0  # for one exercise: a check ends an answer after 15 s, and the values drawn take 5 s
SECONDS_OF_A_NOTEBOOK: Final = 150.0
SLOW: Final = 1.0  # a refusal that took longer may be the machine's fault
EVIDENCE: Final = 160  # characters of evidence in a line
MAX_MESSAGE: Final = 1 << 20
PRELOADED = [worker.__name__]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on one exercise: the mark, one sentence, the evidence, and the seconds it took."""

    id: str
    mark: Mark
    sentence: str
    evidence: str = ""
    seconds: float = 0.0

    @property
    def is_right(self) -> bool:
        """Whether the answer is right."""
        return self.mark == RIGHT

    @property
    def line(self) -> str:
        """The sentence and the first of the evidence, in one line; of two lines both: the second may be an error."""
        evidence = self.evidence.strip().split("\n") if self.mark == NOT_YET else []
        shown = evidence if len(evidence) <= 2 else evidence[:1]
        return " ".join(" · ".join(filter(None, [self.sentence, *(each[:EVIDENCE] for each in shown)])).split())


@dataclass(frozen=True, slots=True)
class Result:
    """A notebook, and the verdicts on its exercises in the lesson's order; none if the notebook has a problem."""

    submission: Submission
    verdicts: tuple[Verdict, ...] = ()

    @property
    def score(self) -> int:
        """The number of exercises that are right."""
        return sum(each.is_right for each in self.verdicts)

    @property
    def possible(self) -> int:
        """The number of exercises of its lesson."""
        return len(self.submission.exercises)

    @property
    def seconds(self) -> float:
        """The time that its checks took."""
        return sum(each.seconds for each in self.verdicts)


def judge_all(
    handed_in: Sequence[Submission], workers: int | None = None, told: Callable[[Result], None] | None = None
) -> list[Result]:
    """Judge the notebooks, `workers` at a time, and return the results in their order; `told` is given each at once.

    With `workers=None` there is one for each processor.
    """
    context = _context()
    tell = told or (lambda result: None)

    def judge(submission: Submission) -> Result:
        result = Result(submission, tuple(_judge(context, submission, submission.exercises)))
        if not _doubtful(result):
            tell(result)
        return result

    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        results = list(pool.map(judge, handed_in))
    for number, result in enumerate(results):
        if doubtful := _doubtful(result):
            again = {each.id: each for each in _judge(context, result.submission, doubtful)}
            results[number] = replace(result, verdicts=tuple(again.get(each.id, each) for each in result.verdicts))
            tell(results[number])
    return results


def _doubtful(result: Result) -> list[str]:
    return [each.id for each in result.verdicts if each.mark == NOT_YET and SLOW < each.seconds < SECONDS / 2]


def _context() -> Any:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _judge(context: Any, submission: Submission, ids: Sequence[str]) -> Iterator[Verdict]:
    """Yield a verdict for each of the exercises `ids`, from as many processes as it takes."""
    if submission.problem:
        return
    left, end = list(ids), time.monotonic() + SECONDS_OF_A_NOTEBOOK
    while left and time.monotonic() < end:
        for verdict in _judge_in_one_process(context, submission, left, end):
            left.remove(verdict.id)
            yield verdict
    for id in left:
        line = _("not judged: the notebook's {seconds:.0f} s are over").format(seconds=SECONDS_OF_A_NOTEBOOK)
        yield Verdict(id, NOT_YET, line)


def _judge_in_one_process(context: Any, submission: Submission, ids: Sequence[str], end: float) -> Iterator[Verdict]:
    """Yield verdicts until all are there or the process has ended; at least one."""
    token = secrets.token_hex(16)
    folder = tempfile.mkdtemp(prefix="chatlab-grade-")
    work = {"cells": [[cell.source, cell.exercises] for cell in submission.cells], "exercises": list(ids)}
    work |= {"token": token, "folder": folder, "seed": f"{submission.learner}/{submission.where}"}
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=worker.judge, args=(theirs, json.dumps(work)), daemon=True)
    process.start()
    theirs.close()
    try:
        yield from _verdicts(ours, process, token, list(ids), end)
    finally:
        ours.close()
        _end(process)
        shutil.rmtree(folder, ignore_errors=True)


def _verdicts(channel: Any, process: Any, token: str, ids: list[str], end: float) -> Iterator[Verdict]:
    began, limit = time.monotonic(), SECONDS * 2  # the process has to start, and the fork server too
    count, begun = len(ids), ""
    while ids:
        try:
            if not channel.poll(max(0.0, min(began + limit, end) - time.monotonic())):
                line = _("it did not finish within {seconds:.0f} s, and was ended").format(seconds=SECONDS)
                yield Verdict(ids[0], NOT_YET, line, seconds=SECONDS)
                return
            message = json.loads(channel.recv_bytes(MAX_MESSAGE))
        except (EOFError, OSError, ValueError):
            if begun != ids[0]:
                if len(ids) == count:
                    raise RuntimeError("the process that judges did not start; see above") from None  # not shown: a bug
                return
            yield Verdict(ids[0], NOT_YET, _how_it_ended(process))
            return
        if message.get("token") != token:
            yield Verdict(ids[0], NOT_YET, _("its code sent a verdict of its own to the program that judges it"))
            return
        began, limit, begun = time.monotonic(), SECONDS, message.get("begins", begun)
        if message.get("id") == ids[0]:
            yield _verdict(message)
            del ids[0]


def _verdict(message: dict[str, Any]) -> Verdict:
    mark: Mark = message["mark"] if message["mark"] in (NOT_TRIED, RIGHT) else NOT_YET
    sentence = message["sentence"]
    if printed := message["printed"]:
        sentence += " " + ngettext(
            "(It printed {count} character, which is not kept.)",
            "(It printed {count} characters, which are not kept.)",
            printed,
        ).format(count=printed)
    return Verdict(message["id"], mark, sentence, message["evidence"], message["seconds"])


def _how_it_ended(process: Any) -> str:
    process.join(2)
    code = process.exitcode
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        return _("its code ended the process ({signal}): too much memory or processor time?").format(signal=name)
    return _("its code ended the process (exit status {code})").format(code=code)


def _end(process: Any) -> None:
    """End a process, and all that it has started."""
    import psutil

    family = []
    with contextlib.suppress(psutil.Error):
        family = psutil.Process(process.pid).children(recursive=True)
    if sys.platform != "win32":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(process.pid) == process.pid:
                os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()
    for each in family:
        with contextlib.suppress(psutil.Error):
            each.terminate()  # the guard of an engine ends the engine first, and removes its folder
    psutil.wait_procs(family, timeout=3, callback=None)
    process.close()
