"""Reports: the columns and shapes that nbgrader, Canvas and Gradescope use, and a page that can be read by all."""

import csv
import json
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from chatlab.lab.grading import page
from chatlab.lab.grading.judging import Result, Verdict
from chatlab.lab.grading.reports import as_canvas_rows, as_gradescope, as_nbgrader_rows, write
from chatlab.lab.grading.submissions import Submission

AT = datetime(2026, 11, 28, 9, 30)


def result(learner: str, right: int, lesson: str = "03", id: str = "") -> Result:
    given = Submission(learner, f"{learner}/{lesson}.ipynb", AT, id, lesson)
    marks = ["right"] * right + ["not yet"] * (len(given.exercises) - right)
    made: Any = zip(given.exercises, marks, strict=True)
    return Result(given, tuple(Verdict(id, mark, "<b>a rule</b>", "its evidence", 0.5) for id, mark in made))


JUNK = Result(Submission("하늘", "하늘.ipynb", AT, problem="this is not a notebook: x"))
CLASS = [result("가람", 4, id="4711"), result("nuri", 1), result("nuri", 3), JUNK]


def test_nbgraders_columns_with_the_better_of_two_notebooks_and_nothing_for_none() -> None:
    header, *rows = as_nbgrader_rows(CLASS)
    assert ",".join(map(str, header)) == (
        "assignment,duedate,timestamp,student_id,last_name,first_name,email,"
        "raw_score,late_submission_penalty,score,max_score"
    )
    assert [(row[0], row[2], row[3], row[9], row[10]) for row in rows] == [
        ("03_broadcast_handler", "2026-11-28 09:30:00", "가람", 4.0, 4.0),
        ("03_broadcast_handler", "2026-11-28 09:30:00", "nuri", 3.0, 4.0),
        ("03_broadcast_handler", "", "하늘", 0.0, 4.0),
    ]


def test_canvass_header_points_and_learners() -> None:
    header, points, *rows = as_canvas_rows([*CLASS, result("가람", 2, "01", "4711")])
    assert header == (
        *("Student", "ID", "SIS User ID", "SIS Login ID", "Section"),
        *("01_handshake", "03_broadcast_handler"),
    )
    assert points == ("    Points Possible", "", "", "", "", 6, 4)
    assert rows[:2] == [("가람", "4711", "", "", "", 2, 4), ("nuri", "", "", "nuri", "", "", 3)]


def test_gradescopes_results_begin_with_otters_summary() -> None:
    made = as_gradescope(CLASS[2])
    assert made["score"] == 3
    summary, first, *__, last = made["tests"]
    assert summary == {"name": "Public Tests", "visibility": "visible", "output": "3 of 4 exercises are right"}
    assert (first["name"].split()[0], first["score"], first["max_score"], first["status"]) == ("03.1", 1, 1, "passed")
    assert (last["status"], last["output"]) == ("failed", "<b>a rule</b>\nits evidence")


def test_the_files_can_be_read_again_and_a_name_is_no_formula(tmp_path: Path) -> None:
    made = write([*CLASS, result("=HYPERLINK(1)", 0)], tmp_path / "grades")
    with made[1].open(encoding="utf-8-sig", newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [row["student_id"] for row in rows] == ["가람", "nuri", "하늘", "'=HYPERLINK(1)"]
    files = sorted((tmp_path / "grades" / "results").iterdir())
    assert len(files) == 5
    assert all("tests" in json.loads(file.read_text(encoding="utf-8")) for file in files)


class Read(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_page_names_its_language_its_headers_and_each_mark_and_takes_nothing_from_elsewhere() -> None:
    text = page.of(CLASS)
    read = Read()
    read.feed(text)
    assert ("html", {"lang": "en"}) in read.tags
    assert {given.get("scope") for tag, given in read.tags if tag == "th"} == {"col", "row"}
    assert '<span class="hidden">not yet</span>' in text
    assert "prefers-color-scheme: dark" in text
    assert "<b>a rule</b>" not in text
    links = {given["href"] for tag, given in read.tags if tag == "a"}
    assert links <= {f"#{given['id']}" for tag, given in read.tags if tag == "section"}
    assert not {tag for tag, __ in read.tags} & {"script", "link", "img"}
