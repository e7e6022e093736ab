"""`make mutants`: run mutants through their checks, print what was not refused with a rule, and write docs/checks.md.

    make mutants                                        all, which takes about an hour on two cores
    make mutants MUTANTS_ARGS="--exercise 01.3"         of one exercise, or of a lesson: --exercise 01
    make mutants MUTANTS_ARGS="--sample 100 --seed 7"   a hundred of all, always the same for a seed
    make mutants MUTANTS_ARGS="--exercise 01.3 --mutant boundary --say"    those with a name, and what was said of each

docs/checks.md and results.json change only for exercises of which every mutant has run. Exit status 1 means that a
mutant was not refused with a rule, or that equivalent.toml is out of date.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence

from chatlab.lab.exercises.exercise import exercises
from tools.mutants.mutants import Mutant, mutants
from tools.mutants.pool import Result, run
from tools.mutants.report import Score, equivalents, load, results_by_exercise, save, summary, unlisted

SOLUTION = "(the solution itself)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do as the arguments say; return the exit status."""
    options = _parser().parse_args(arguments)
    wanted = chosen(options.exercise, options.mutant, options.sample, options.seed)
    listed = {(each.exercise, each.mutant) for each in equivalents()}
    ids = sorted({mutant.exercise for mutant in wanted})
    solutions = [Mutant(id, SOLUTION, exercises()[id].code) for id in ids]
    results, broken = [], set()
    for result in run([*solutions, *wanted], workers=options.workers, seed=options.seed):
        if result.mutant == SOLUTION:
            if result.verdict != "called right":  # then what was said of its mutants means nothing
                broken.add(result.exercise)
                print(_shown(result), flush=True)
            continue
        results.append(result)
        bad = result.verdict in ("called right", "no rule", "hung") and (result.exercise, result.mutant) not in listed
        if bad or options.say:
            print(_shown(result), flush=True)
        elif len(results) % 50 == 0:
            print(f"… {len(results)} of {len(wanted)}", file=sys.stderr, flush=True)
    scores = {id: Score.of(id, found) for id, found in results_by_exercise(results).items() if id not in broken}
    wrong = list(unlisted(results))
    print("\n".join([summary(scores), *wrong]))
    if options.sample is None and not options.mutant:
        save({**load(), **scores})
    return 1 if broken or wrong or any(score.problems for score in scores.values()) else 0


def chosen(prefixes: Sequence[str], part: str = "", sample: int | None = None, seed: int = 0) -> list[Mutant]:
    """Return the mutants of the exercises that begin with a prefix, or a sample of them, the same for the same seed."""
    ids = [id for id in exercises() if not prefixes or id.startswith(tuple(prefixes))]
    found = [mutant for id in ids for mutant in mutants(id) if part in mutant.name]
    return found if sample is None or sample >= len(found) else random.Random(seed).sample(found, sample)


def _shown(result: Result) -> str:
    said = f"{result.verdict}: {result.sentence}" if result.sentence else result.verdict
    return f"{result.exercise}  {result.mutant}  ({result.seconds:.1f} s)\n    {said}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make mutants", description="Break the solutions, and see what the checks say."
    )
    parser.add_argument(
        "--exercise", action="append", default=[], help="an exercise, 01.3, or a lesson, 01; repeatable"
    )
    parser.add_argument("--mutant", default="", help="only mutants whose name contains this")
    parser.add_argument("--sample", type=int, help="run only this many, chosen at random")
    parser.add_argument(
        "--seed", type=int, default=0, help="chooses the sample, and seeds each mutant's random numbers"
    )
    parser.add_argument("--workers", type=int, default=3, help="processes that run at the same time")
    parser.add_argument("--say", action="store_true", help="print what was said of every mutant")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
