"""The plans of docs/workshop.md, computed: when each step of a workshop begins, from the minutes in the notes.

    python -m chatlab.lab.editions.workshop_plan        writes the tables anew into docs/workshop.md

The steps are data, `notes/plans.toml`. The text around the tables is written by hand and left alone.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import nbformat

from chatlab.lab.editions import edition, shipped

__all__ = ["Plan", "Step", "plans", "with_tables"]

MARKED = re.compile(r"(<!-- plan: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what is done, the lesson it is if it is one, and how long it takes.

    Of the lesson, `sections` alone are done, or all but those `without`, or all. `day` is the time at which a new
    day begins with this step; empty where the day goes on.
    """

    what: str
    minutes: int
    lesson: str = ""
    sections: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    day: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """A workshop, step by step, of one day or more."""

    title: str
    steps: tuple[Step, ...]

    def days(self) -> list[list[tuple[int, Step]]]:
        """Each day's steps, with the minute of the day at which each begins."""
        days: list[list[tuple[int, Step]]] = []
        at = 0
        for step in self.steps:
            if step.day:
                hours, minutes = step.day.split(":")
                at = 60 * int(hours) + int(minutes)
                days.append([])
            days[-1].append((at, step))
            at += step.minutes
        return days

    def table(self) -> str:
        """The plan in Markdown, with links to the notebooks as they stand from docs/."""
        lines = []
        for number, day in enumerate(self.days(), start=1):
            lines += [f"**Day {number}**", ""] if len(self.days()) > 1 else []
            lines += ["| from | minutes | |", "|---|---|---|"]
            lines += [f"| {_clock(at)} | {step.minutes} | {_cell(step)} |" for at, step in day]
            lines += [f"| {_clock(day[-1][0] + day[-1][1].minutes)} | | the end |", ""]
        return "\n".join(lines)


def plans() -> dict[str, Plan]:
    """The plans by the names that docs/workshop.md has for them."""
    file = files("chatlab.lab.editions") / "notes" / "plans.toml"
    tables = tomllib.loads(file.read_text(encoding="utf-8"))
    return {name: _plan(**table) for name, table in tables.items()}


def _plan(title: str, begins: str, step: list[dict[str, object]]) -> Plan:
    step[0].setdefault("day", begins)
    return Plan(title, tuple(_step(**each) for each in step))  # type: ignore[arg-type]  # tomllib does not say what is in a table


def _step(
    what: str = "",
    minutes: int = 0,
    lesson: str = "",
    sections: Sequence[str] = (),
    without: Sequence[str] = (),
    day: str = "",
) -> Step:
    """A step as it is written down; of a lesson, the notes know the minutes."""
    if not lesson:
        return Step(what, minutes, day=day)
    notes = edition.notes(lesson)
    left_out = [notes.section(heading) for heading in without]
    chosen = [notes.section(heading) for heading in sections] or [s for s in notes.sections if s not in left_out]
    return Step(what, sum(each.minutes for each in chosen), lesson, tuple(sections), tuple(without), day)


def _cell(step: Step) -> str:
    if not step.lesson:
        return step.what
    path = edition.lessons()[step.lesson]
    title = edition.headings(nbformat.read(path, as_version=4))[0]
    notes = edition.notes(step.lesson)
    chosen = "; ".join(f"{heading} ({notes.section(heading).minutes})" for heading in step.sections)
    said = f": {chosen}" if chosen else f", all but {', '.join(step.without)}" if step.without else ", the whole lesson"
    return f"[{title}](../notebooks/{path.name}){said}"


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def with_tables(text: str) -> str:
    """A text with the table of each plan between its marks, as it is computed now."""
    return MARKED.sub(lambda found: f"{found[1]}{plans()[found[2]].table()}{found[3]}", text)


def main() -> None:
    """Write the tables into docs/workshop.md."""
    document = shipped.notebooks().parent / "docs" / "workshop.md"
    document.write_text(with_tables(document.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
