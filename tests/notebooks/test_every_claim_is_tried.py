"""Every claim and every fault has an experiment: a cell that computes the verdict, with a stored output that shows it.

nbval checks that the cells run and give these outputs; these tests check that none is missing.
"""

import ast
import copy
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from chatlab.lab.claims import CLAIMS, WORDS

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
LESSONS = sorted({claim.lesson for claim in CLAIMS.values()})
MARKS = "".join({words.mark for words in WORDS.values()})
VERDICT_WORDS = "|".join(words.alone for words in WORDS.values())
VERDICT = re.compile(rf"^[{MARKS}] ([CF]\d+) ({VERDICT_WORDS})\b", re.MULTILINE)


def code_cells(lesson: str) -> list[Any]:
    (path,) = NOTEBOOKS.glob(f"{lesson}_*.ipynb")
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def judged_by(cell: Any) -> set[str]:
    """Return the claims whose verdict a cell computes.

    `verdict("C2", …)`, `findings.answers("C26", "C27")`, or a function of the lesson's experiments: `lesson01.c2(…)`.
    """
    calls = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]
    named = [(call, getattr(call.func, "id", getattr(call.func, "attr", ""))) for call in calls]
    arguments = [each for call, name in named if name in {"verdict", "answers"} for each in call.args]
    by_name = {name.upper() for __, name in named if re.fullmatch(r"[cf]\d+", name)}
    return {str(each.value) for each in arguments if isinstance(each, ast.Constant)} | by_name & CLAIMS.keys()


def shown_by(cell: Any) -> set[str]:
    """Return the claims whose verdict a stored output shows."""
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
    return {match[0] for text in texts for match in VERDICT.findall(text)}


def untried(lesson: str, cells: list[Any]) -> set[str]:
    """Return the claims of a lesson whose verdict no cell both computes and shows."""
    tried = set().union(*(judged_by(cell) & shown_by(cell) for cell in cells))
    return {claim.id for claim in CLAIMS.values() if claim.lesson == lesson} - tried


@pytest.mark.parametrize("lesson", LESSONS)
def test_each_claim_of_a_lesson_has_an_experiment_with_a_verdict(lesson: str) -> None:
    assert not untried(lesson, code_cells(lesson))


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_gives_no_verdict_on_a_claim_of_another(lesson: str) -> None:
    judged = set().union(*(judged_by(cell) for cell in code_cells(lesson)))
    assert {id for id in judged if CLAIMS[id].lesson != lesson} == set()


@pytest.mark.parametrize("lesson", LESSONS)
def test_the_last_cell_of_a_lesson_reports_on_all_of_its_claims(lesson: str) -> None:
    last = code_cells(lesson)[-1]
    assert f'report("{lesson}")' in last.source
    assert shown_by(last) == {claim.id for claim in CLAIMS.values() if claim.lesson == lesson}


def test_a_claim_without_its_cell_or_its_output_is_reported() -> None:
    cells = code_cells("03")
    index = next(index for index, cell in enumerate(cells) if "C13" in judged_by(cell))
    assert untried("03", cells[:index] + cells[index + 1 :]) == {"C13"}
    not_run = copy.deepcopy(cells)
    not_run[index].outputs = []
    assert untried("03", not_run) == {"C13"}


def test_a_verdict_computed_by_a_function_of_the_lessons_experiments_counts() -> None:
    cell = nbformat.v4.new_code_cell("display(lesson03.c13(registry), lesson03.f8(before, after))\nlesson03.c99()")
    assert judged_by(cell) == {"C13", "F8"}
