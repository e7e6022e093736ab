"""What is known of the mutants, in results.json, and docs/checks.md, which is made from it.

equivalent.toml lists mutants that are right, each with a reason: `same` behaves like the solution in everything the
task allows, `free` differs in what the task leaves free. Such a mutant may be called right; it is a mistake in the list
if it is refused, or if no operator makes it any more.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from chatlab.lab.exercises.exercise import exercises
from tools.mutants.mutants import mutants
from tools.mutants.pool import Result

__all__ = ["EQUIVALENT", "PAGE", "RESULTS", "Equivalent", "Score", "equivalents", "load", "page", "save", "unlisted"]

HERE = Path(__file__).parent
EQUIVALENT = HERE / "equivalent.toml"
RESULTS = HERE / "results.json"
PAGE = HERE.parents[1] / "docs" / "checks.md"
TARGET = 95  # percent
PROBLEMS = {
    "called right": "called right",
    "no rule": "refused, but without a rule",
    "hung": "hung until it was killed",
}


@dataclass(frozen=True)
class Equivalent:
    """A mutant that is right, and why; `kind` is "same" or "free"."""

    exercise: str
    mutant: str
    kind: str
    reason: str


def equivalents() -> list[Equivalent]:
    """Return the mutants that equivalent.toml lists."""
    return [
        Equivalent(exercise, mutant, kind, entry[kind])
        for exercise, entries in tomllib.loads(EQUIVALENT.read_text(encoding="utf-8")).items()
        for entry in entries
        for kind in ("same", "free")
        if kind in entry
        for mutant in entry["mutants"]
    ]


@dataclass
class Score:
    """How the check of one exercise did; `problems` are the mutants that were not refused with a rule."""

    mutants: int = 0
    refused: int = 0
    same: int = 0
    free: int = 0
    problems: list[dict[str, str]] = field(default_factory=list)

    @classmethod
    def of(cls, exercise: str, results: Iterable[Result]) -> Score:
        """Count the results of an exercise's mutants."""
        listed = {each.mutant: each for each in equivalents() if each.exercise == exercise}
        score = cls()
        for result in sorted(results, key=lambda each: each.mutant):
            if result.verdict == "no answer":
                continue
            score.mutants += 1
            if result.verdict == "called right" and result.mutant in listed:
                setattr(score, kind := listed[result.mutant].kind, getattr(score, kind) + 1)
            elif result.verdict == "refused":
                score.refused += 1
            else:
                kept = {"mutant": result.mutant, "verdict": result.verdict, "sentence": result.sentence}
                score.problems.append(kept)
        return score

    @property
    def wrong(self) -> int:
        """The number of mutants that are wrong answers."""
        return self.refused + len(self.problems)

    @property
    def percent(self) -> float:
        """The share of wrong mutants that were refused with the rule they break."""
        return 100 * self.refused / self.wrong if self.wrong else 100.0


def unlisted(results: Iterable[Result]) -> Iterator[str]:
    """Yield a sentence for each result that equivalent.toml contradicts, and for each of its mutants that is gone."""
    listed = {(each.exercise, each.mutant) for each in equivalents()}
    for result in results:
        known = (result.exercise, result.mutant) in listed
        if known and result.verdict != "called right":
            said = f"{result.verdict}: {result.sentence}"
            yield f"{result.exercise}  {result.mutant}\n    is in equivalent.toml, but {said}"
    for exercise, mutant in sorted(listed):
        if mutant not in {each.name for each in mutants(exercise)}:
            yield f"{exercise}  {mutant}\n    is in equivalent.toml, but there is no such mutant"


def load() -> dict[str, Score]:
    """Return what is known of each exercise."""
    if not RESULTS.exists():
        return {}
    return {id: Score(**score) for id, score in json.loads(RESULTS.read_text(encoding="utf-8")).items()}


def save(scores: dict[str, Score]) -> None:
    """Write results.json and docs/checks.md."""
    known = {id: asdict(scores[id]) for id in exercises() if id in scores}
    RESULTS.write_text(json.dumps(known, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(load()), encoding="utf-8")


def page(scores: dict[str, Score]) -> str:
    """Return docs/checks.md."""
    wrong, refused = sum(each.wrong for each in scores.values()), sum(each.refused for each in scores.values())
    return "\n".join(
        [
            "# How well the exercises are checked",
            "",
            "<!-- Made by `make mutants`, from tools/mutants/results.json. Do not edit. -->",
            "",
            "A check should refuse every wrong answer, and name the rule that the answer breaks. To test that,"
            " `make mutants` takes the reference solution of an exercise and breaks it by machine: it turns"
            " a comparison round, drops a statement, forgets an `await`, returns early, and so on, and makes mistakes"
            " that learners make. Each broken solution, a *mutant*, goes through the exercise's check.",
            "",
            "A mutant counts as refused if the check says which rule it breaks. It does not if the check calls it"
            " right, or says only that the code raised an error or did not finish in time. (If a name is not defined,"
            " it is enough that the check says which.) Some mutants are right:"
            " they behave like the solution, or differ in what the task leaves open. They do not count, and each is"
            " listed below with its reason.",
            "",
            f"**{_share(refused, wrong)} of the {wrong} wrong mutants are refused with the rule they break.** The"
            f" target is {TARGET} % for each exercise.",
            "",
            *_table_of_scores(scores),
            "",
            "## Not refused with a rule",
            "",
            *_table_of_problems(scores),
            "",
            "## Right",
            "",
            *_table_of_equivalents(scores),
            "",
        ]
    )


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole if whole else 100:.1f} %"


def _table_of_scores(scores: dict[str, Score]) -> Iterator[str]:
    yield "| exercise | | mutants | right | wrong | refused with a rule | score |"
    yield "|---|---|--:|--:|--:|--:|--:|"
    for id, exercise in exercises().items():
        if (score := scores.get(id)) is None:
            yield f"| {id} | {exercise.title} | not run yet | | | | |"
            continue
        counts = [score.mutants, score.same + score.free, score.wrong, score.refused]
        percent = f"{score.percent:.1f} %" if score.percent >= TARGET else f"**{score.percent:.1f} %**"
        yield f"| {id} | {exercise.title} | {' | '.join(map(str, counts))} | {percent} |"


def _table_of_problems(scores: dict[str, Score]) -> Iterator[str]:
    if not any(score.problems for score in scores.values()):
        yield "None."
        return
    yield "| exercise | mutant | what the check said |"
    yield "|---|---|---|"
    for id, score in scores.items():
        for each in score.problems:
            said = PROBLEMS[each["verdict"]] + (f": {each['sentence']}" if each["verdict"] == "no rule" else "")
            yield f"| {id} | {_cell(each['mutant'])} | {_cell(said)} |"


def _table_of_equivalents(scores: dict[str, Score]) -> Iterator[str]:
    yield (
        "*Same*: it behaves like the solution in everything the task allows."
        " *Free*: it differs where the task leaves it open."
    )
    yield ""
    yield "| exercise | mutant | | why |"
    yield "|---|---|---|---|"
    for each in equivalents():
        if each.exercise in scores:
            yield f"| {each.exercise} | {_cell(each.mutant)} | {each.kind} | {_cell(each.reason)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def summary(scores: dict[str, Score]) -> str:
    """Return a line for each exercise."""
    row = "{id}  {mutants:4} mutants  {right:3} right  {refused:4} of {wrong:4} refused with a rule  {percent:5.1f} %"
    return "\n".join(
        row.format(
            id=id,
            mutants=score.mutants,
            right=score.same + score.free,
            refused=score.refused,
            wrong=score.wrong,
            percent=score.percent,
        )
        for id, score in scores.items()
    )


def results_by_exercise(results: Iterable[Result]) -> dict[str, list[Any]]:
    """Sort results by their exercise."""
    found: dict[str, list[Any]] = {}
    for result in results:
        found.setdefault(result.exercise, []).append(result)
    return {id: found[id] for id in exercises() if id in found}
