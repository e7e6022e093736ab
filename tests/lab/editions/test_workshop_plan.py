"""The plans of a workshop: they use the minutes of the notes, and have enough breaks."""

from itertools import pairwise
from pathlib import Path

import pytest

from chatlab.lab.editions import edition
from chatlab.lab.editions.workshop_plan import Plan, Step, plans, with_tables

ROOT = Path(__file__).parents[3]
HOMEWORK = {"A server of your own", "An echo by hand", "A client of your own", "A broker of your own"}
each_plan = pytest.mark.parametrize("name", plans())


def length(day: list[tuple[int, Step]]) -> int:
    return sum(step.minutes for _, step in day)


def is_rest(step: Step) -> bool:
    return step.what in {"Break", "Lunch"}


def test_the_tables_of_the_document_are_up_to_date() -> None:
    text = (ROOT / "docs" / "workshop.md").read_text(encoding="utf-8")
    assert set(plans()) == {"half-day", "four-days"}
    assert all(f"<!-- plan: {name} -->" in text for name in plans())
    assert with_tables(text) == text, "run: python -m chatlab.lab.editions.workshop_plan"


@each_plan
def test_each_step_begins_at_the_end_of_the_previous_one(name: str) -> None:
    for day in plans()[name].days():
        for (at, step), (following, _) in pairwise(day):
            assert following == at + step.minutes


@each_plan
def test_the_sections_of_a_step_are_in_the_order_of_the_notebook(name: str) -> None:
    for step in plans()[name].steps:
        if step.sections:
            headings = [section.heading for section in edition.notes(step.lesson).sections]
            assert [heading for heading in headings if heading in step.sections] == list(step.sections)


def test_the_half_day_plan_takes_half_a_day() -> None:
    (day,) = plans()["half-day"].days()
    assert 180 <= length(day) <= 270


def test_the_four_day_plan_has_four_days_and_every_lesson() -> None:
    days = plans()["four-days"].days()
    assert [length(day) <= 8 * 60 for day in days] == [True] * 4
    steps = [step for day in days for _, step in day if step.lesson]
    assert list(dict.fromkeys(step.lesson for step in steps)) == list(edition.lessons())


def test_what_the_four_day_plan_leaves_out_is_homework() -> None:
    steps = [step for step in plans()["four-days"].steps if step.lesson]
    for lesson in edition.lessons():
        headings = {section.heading for section in edition.notes(lesson).sections}
        done = [set(step.sections) or headings - set(step.without) for step in steps if step.lesson == lesson]
        assert headings - set().union(*done) <= HOMEWORK


@each_plan
def test_no_stretch_without_a_break_is_longer_than_two_hours(name: str) -> None:
    for day in plans()[name].days():
        at_a_stretch = [0]
        for _, step in day:
            at_a_stretch = (
                [*at_a_stretch, 0] if is_rest(step) else [*at_a_stretch[:-1], at_a_stretch[-1] + step.minutes]
            )
        assert max(at_a_stretch) <= 120


def test_a_plan_in_markdown_has_the_time_the_minutes_and_the_sections() -> None:
    steps = (Step("", 9, "03", ("A list of who is here",), day="09:58"), Step("Break", 15))
    lines = Plan("", steps).table().splitlines()
    minutes = edition.notes("03").section("A list of who is here").minutes
    lesson = "[3. The broadcast handler](../notebooks/03_broadcast_handler.ipynb)"
    assert lines[2] == f"| 09:58 | 9 | {lesson}: A list of who is here ({minutes}) |"
    assert lines[3:5] == ["| 10:07 | 15 | Break |", "| 10:22 | | the end |"]


def test_a_lesson_without_its_exercises_is_marked_in_the_table() -> None:
    (line,) = (
        each
        for each in Plan("", (Step("", 9, "03", without=("Exercises",), day="09:00"),)).table().splitlines()
        if "03_" in each
    )
    assert line.endswith("(../notebooks/03_broadcast_handler.ipynb), all but Exercises |")
