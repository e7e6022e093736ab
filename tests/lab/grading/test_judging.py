"""Judging: right is right, wrong is wrong, and nothing that one notebook does changes another's verdict."""

import asyncio
from importlib import import_module
from pathlib import Path

import pytest

from chatlab.lab.exercises.exercise import exercises
from chatlab.lab.grading.judging import Result, judge_all
from chatlab.lab.grading.submissions import submissions
from tests.lab.grading.handed_in import PROOF, cell_with, hand_in, notebook


def judged(inbox: Path, workers: int = 2) -> dict[str, Result]:
    return {each.submission.learner: each for each in judge_all(submissions(inbox), workers)}


def line(result: Result, id: str) -> str:
    (verdict,) = (each for each in result.verdicts if each.id == id)
    return "right" if verdict.is_right else f"{verdict.mark}: {verdict.line}"


def test_a_solved_notebook_has_every_point_and_an_unsolved_one_none(tmp_path: Path) -> None:
    hand_in(tmp_path, "nuri/01_handshake.ipynb", notebook("01", solve=True))
    hand_in(tmp_path, "garam/01_handshake.ipynb", notebook("01"))
    results = judged(tmp_path)
    assert (results["nuri"].score, results["nuri"].possible) == (6, 6), results["nuri"].verdicts
    assert results["garam"].score == 0
    assert {each.mark for each in results["garam"].verdicts} == {"not tried"}


@pytest.mark.long
@pytest.mark.parametrize("lesson", ["02", "03", "04", "05", "06", "07"])
def test_each_lesson_solved_has_every_point(tmp_path: Path, lesson: str) -> None:
    hand_in(tmp_path, "nuri.ipynb", notebook(lesson, solve=True))
    (result,) = judged(tmp_path).values()
    assert result.score == result.possible, result.verdicts


MISCHIEF = {
    "while True: pass": "your code stopped the event loop",
    "import os; os._exit(0)": "its code ended the process (exit status 0)",
    "import sys; sys.exit(3)": "your code raised SystemExit",
    "x = [0] * 10**6\n    while True: x += x": "MemoryError",
    "import os; os.fork()": "may not start, stop or become another process",
    "import subprocess; subprocess.run(['ls'])": "may not start, stop or become another process",
    "import os; os.kill(os.getppid(), 9)": "may not start, stop or become another process",
    "import socket; socket.create_connection(('192.0.2.1', 80), 1)": "may connect to this machine only",
    "import urllib.request as u; u.urlopen('http://chat.example')": "may connect to this machine only",
    "import sys; sys.modules['chatlab.lab.exercises.lessons.lesson01'].proof = lambda key: ''": "changes the program",
    "import sys; sys.modules['chatlab.lab.exercises.lessons.lesson01'].CASES.clear()": "changes the program",
    "import os\n    for each in range(3, 90):\n        try: os.write(each, b'\\0\\0\\0\\2{}')\n"
    "        except OSError: pass": "sent a verdict of its own",
}


def test_a_cell_that_exits_or_patches_the_checker_has_one_line(
    tmp_path: Path,
) -> None:
    for number, mischief in enumerate(list(MISCHIEF)[1:12:9]):
        hand_in(tmp_path, f"{number}.ipynb", notebook("01", {"01.1": PROOF.format(line=mischief)}))
    ended, patched = judged(tmp_path).values()
    assert line(ended, "01.1") == "not yet: its code ended the process (exit status 0)"
    assert "changes the program that judges it" in line(patched, "01.1")
    for each in (ended, patched):
        assert [verdict.mark for verdict in each.verdicts if verdict.id != "01.1"] == ["not tried"] * 5


@pytest.mark.long
def test_whatever_a_cell_does_gives_one_line_and_the_other_exercises_are_judged(tmp_path: Path) -> None:
    for number, mischief in enumerate(MISCHIEF):
        answers: dict[str, str | None] = {"01.1": PROOF.format(line=mischief)}
        hand_in(tmp_path, f"{number:02}/01_handshake.ipynb", notebook("01", answers))
    four = notebook("01", {"01.1": PROOF.format(line="pass")})
    hand_in(tmp_path, "nuri/01_handshake.ipynb", four)
    results = judged(tmp_path)
    for number, expected in enumerate(MISCHIEF.values()):
        result = results[f"{number:02}"]
        assert expected in line(result, "01.1")
        assert "\n" not in line(result, "01.1")
        assert [each.mark for each in result.verdicts if each.id != "01.1"] == ["not tried"] * 5, result.verdicts
    assert line(results["nuri"], "01.1") == "right"


def test_files_outside_the_notebooks_own_folder_are_not_deleted(tmp_path: Path) -> None:
    kept = tmp_path / "kept" / "thesis.txt"
    kept.parent.mkdir()
    kept.write_text("years of work")
    mischief = f"import shutil; shutil.rmtree({str(kept.parent)!r})"
    hand_in(tmp_path / "inbox", "a.ipynb", notebook("01", {"01.1": PROOF.format(line=mischief)}))
    hand_in(tmp_path / "inbox", "b.ipynb", notebook("01", {"01.1": PROOF.format(line=f"open({str(kept)!r}, 'w')")}))
    for result in judged(tmp_path / "inbox").values():
        assert "may write in its own folder only" in line(result, "01.1")
    assert kept.read_text() == "years of work"


def test_a_megabyte_of_print_is_counted_and_the_answer_stays_right(tmp_path: Path) -> None:
    hand_in(tmp_path, "a.ipynb", notebook("01", {"01.1": PROOF.format(line="print('x' * 600_000)")}))
    (result,) = judged(tmp_path).values()
    (verdict,) = (each for each in result.verdicts if each.id == "01.1")
    assert verdict.is_right
    assert "characters, which are not kept" in verdict.sentence


NOT_IN_THE_NOTEBOOK = {
    "def proof(key:\n    ...": "its cell is not Python: '(' was never closed (line 1)",
    None: "the notebook has no cell with the tag exercise-01.1",
    'from chatlab.lab.exercises.lessons.lesson01 import proof\nawait check("01.1", proof)': "the course's checks",
    'import sys\nproof = sys.modules["chatlab.lab.exercises.lessons.lesson01"].proof\nawait check("01.1", proof)': (
        "its answer is a function of the course"
    ),
    'table = {"dGhlIHNhbXBsZSBub25jZQ==": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", '
    '"x3JJHMbDL1EzLkh9GBhXDw==": "HSmrc0sMlYUkAGmm5OPpG2HaGWk="}\n'
    'def proof(key):\n    return table[key]\nawait check("01.1", proof)': "it works with any values",
}


def test_what_is_not_the_learners_answer_is_refused_with_a_reason(tmp_path: Path) -> None:
    for number, source in enumerate(NOT_IN_THE_NOTEBOOK):
        hand_in(tmp_path, f"{number}.ipynb", notebook("01", {"01.1": source}))
    results = judged(tmp_path)
    for number, expected in enumerate(NOT_IN_THE_NOTEBOOK.values()):
        assert expected in line(results[str(number)], "01.1")


@pytest.mark.long
@pytest.mark.parametrize("lesson", ["01", "02", "03", "04", "05", "06", "07"])
def test_wrong_answers_of_the_tests_are_refused_in_a_notebook_too(tmp_path: Path, lesson: str) -> None:
    wrong = import_module(f"tests.lab.exercises.wrong_answers.lesson{lesson}").WRONG
    count = 0
    for id, answers in wrong.items():
        cells = [cell for answer, __ in answers if (cell := cell_with(id, answer))]
        for number, cell in enumerate(cells[:2]):
            count += 1
            hand_in(tmp_path, f"{id} {number}.ipynb", notebook(lesson, {id: cell}))
    assert count
    for learner, result in judged(tmp_path).items():
        assert line(result, learner[:4]).startswith("not yet"), (learner, result.verdicts)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_ten_runs_have_the_same_verdicts(tmp_path: Path) -> None:
    for lesson in ("02", "03", "05"):
        hand_in(tmp_path, f"nuri/{lesson}.ipynb", notebook(lesson, solve=True))
    ids = ("02.4", "03.2", "05.2")
    for id in ids:
        answer = import_module(f"tests.lab.exercises.wrong_answers.lesson{id[:2]}").WRONG[id]
        cell = next(cell for each, __ in answer if (cell := cell_with(id, each)))
        hand_in(tmp_path, f"garam/{id}.ipynb", notebook(id[:2], {id: cell}))
    handed_in = submissions(tmp_path)
    runs = [[[verdict.mark for verdict in each.verdicts] for each in judge_all(handed_in, 2)] for __ in range(10)]
    assert all(run == runs[0] for run in runs), runs


def test_the_exercises_need_no_loop_of_the_callers(tmp_path: Path) -> None:
    """A notebook or a server may call it, too."""
    hand_in(tmp_path, "a.ipynb", notebook("01", {"01.1": PROOF.format(line="pass")}))

    async def within_a_loop() -> list[Result]:
        return await asyncio.to_thread(judge_all, submissions(tmp_path))

    (result,) = asyncio.run(within_a_loop())
    assert result.score == 1
    assert [each.id for each in result.verdicts] == [each for each in exercises() if each.startswith("01")]
