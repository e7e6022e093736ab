"""What a gradebook can read: the results of a class as CSV and JSON, in the shapes of four programs.

    write(results, Path("grades"))       grades.csv, canvas.csv, results/*.json and index.html

- `grades.csv` has the columns of nbgrader's `CsvExportPlugin` (jupyter/nbgrader, nbgrader/plugins/export.py): one row
  per learner and assignment. An assignment is a lesson; each exercise is one point.
- `canvas.csv` can be imported into Canvas's gradebook. Its importer (instructure/canvas-lms, lib/gradebook_importer.rb)
  wants `Student` and `ID` first, the SIS columns, `Section` last before the assignments, and then a row whose first
  cell says `Points Possible`. It finds a learner by the id, then by the SIS ids, then by the name.
- `results/LEARNER--LESSON.json` is what Gradescope reads as results.json
  (gradescope-autograders.readthedocs.io/en/latest/specs/) and what Otter makes of its results
  (`GradingResults.to_gradescope_dict` of ucbds-infra/otter-grader): `tests` with name, score, max_score, visibility and
  output, the first being the summary "Public Tests".

If a learner has handed in two notebooks of a lesson, the better one counts. Left out: late penalties, which nbgrader's
column gives as 0.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from chatlab.lab.editions.edition import lessons
from chatlab.lab.exercises.exercise import find
from chatlab.lab.grading import page
from chatlab.lab.grading.judging import Result
from chatlab.locale import _

__all__ = ["as_canvas_rows", "as_gradescope", "as_nbgrader_rows", "best", "write"]

NBGRADER = (
    *("assignment", "duedate", "timestamp", "student_id", "last_name", "first_name", "email"),
    *("raw_score", "late_submission_penalty", "score", "max_score"),
)
CANVAS = ("Student", "ID", "SIS User ID", "SIS Login ID", "Section")


def write(results: Sequence[Result], folder: Path) -> list[Path]:
    """Write all reports into `folder`, and return the files that a person opens."""
    (folder / "results").mkdir(parents=True, exist_ok=True)
    for name, text in _named(results):
        (folder / "results" / name).write_text(text, encoding="utf-8")
    made = [folder / "index.html", folder / "grades.csv", folder / "canvas.csv"]
    made[0].write_text(page.of(results), encoding="utf-8")
    _write_csv(made[1], as_nbgrader_rows(results))
    _write_csv(made[2], as_canvas_rows(results))
    return made


def _named(results: Iterable[Result]) -> Iterable[tuple[str, str]]:
    seen = set[str]()
    for result in results:
        given = result.submission
        stem = re.sub(r"[^\w.-]+", "_", f"{given.learner}--{given.lesson or Path(given.where).stem}").lstrip(".")
        name, number = f"{stem}.json", 2
        while name.casefold() in seen:  # a second notebook of the same lesson
            name, number = f"{stem}--{number}.json", number + 1
        seen.add(name.casefold())
        yield name, json.dumps(as_gradescope(result), ensure_ascii=False, indent=2) + "\n"


def _write_csv(file: Path, rows: Iterable[Sequence[object]]) -> None:
    with file.open("w", encoding="utf-8-sig", newline="") as opened:  # with the mark by which Excel knows UTF-8
        csv.writer(opened).writerows([_harmless(str(cell)) for cell in row] for row in rows)


def _harmless(cell: str) -> str:
    """Return a cell that no spreadsheet takes for a formula: names of files come from learners."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t")) else cell


def best(results: Iterable[Result]) -> dict[tuple[str, str], Result]:
    """Return the best notebook of each learner and lesson, by these."""
    found: dict[tuple[str, str], Result] = {}
    for result in results:
        key = result.submission.learner, result.submission.lesson
        if result.submission.lesson and (key not in found or result.score > found[key].score):
            found[key] = result
    return found


def as_nbgrader_rows(results: Sequence[Result]) -> list[Sequence[object]]:
    """Return the rows that nbgrader exports, its header first. A lesson that a learner lacks is worth 0, as there."""
    counted = best(results)
    learners = list(dict.fromkeys(each.submission.learner for each in results))
    rows: list[Sequence[object]] = [NBGRADER]
    for lesson in sorted({lesson for __, lesson in counted}):
        possible = next(each.possible for (__, of), each in counted.items() if of == lesson)
        for learner in learners:
            result = counted.get((learner, lesson))
            at = result.submission.handed_in.isoformat(sep=" ") if result else ""
            score = float(result.score if result else 0)
            rows.append((lessons()[lesson].stem, "", at, learner, "", "", "", score, 0.0, score, float(possible)))
    return rows


def as_canvas_rows(results: Sequence[Result]) -> list[Sequence[object]]:
    """Return the rows that Canvas imports: the header, the points possible, and one for each learner."""
    counted = best(results)
    columns = sorted({lesson for __, lesson in counted})
    possible = {lesson: result.possible for (__, lesson), result in counted.items()}
    points = "    Points Possible"  # not shown: Canvas looks for it
    rows: list[Sequence[object]] = [
        (*CANVAS, *(lessons()[lesson].stem for lesson in columns)),
        (points, "", "", "", "", *(possible[lesson] for lesson in columns)),
    ]
    for learner in dict.fromkeys(each.submission.learner for each in results):
        ids = [each.submission.id for each in results if each.submission.learner == learner and each.submission.id]
        scores = [counted[learner, lesson].score if (learner, lesson) in counted else "" for lesson in columns]
        rows.append((learner, ids[0] if ids else "", "", "" if ids else learner, "", *scores))
    return rows


def as_gradescope(result: Result) -> dict[str, Any]:
    """Return a result in the shape of Gradescope's results.json."""
    tests: list[dict[str, Any]] = [
        {
            "name": f"{each.id} {find(each.id).title}",
            "score": int(each.is_right),
            "max_score": 1,
            "status": "passed" if each.is_right else "failed",  # not shown: Gradescope's word
            "visibility": "visible",
            "output": "\n".join(filter(None, [each.sentence, each.evidence])),
        }
        for each in result.verdicts
    ]
    told = result.submission.problem or _("{right} of {total} exercises are right").format(
        right=result.score, total=result.possible
    )
    summary = {"name": "Public Tests", "visibility": "visible", "output": told}  # not shown: Otter's name for it
    return {
        "score": result.score,
        "execution_time": round(result.seconds),
        "output": told,
        "stdout_visibility": "hidden",
        "tests": [summary, *tests],
        "extra_data": {"learner": result.submission.learner, "notebook": result.submission.where},
    }
