"""Compute the plans of docs/workshop.md: the time at which each step of a workshop begins, from the notes' minutes.

    python -m chatlab.lab.editions.workshop_plan        rewrites the tables in docs/workshop.md

The steps are data, `notes/plans.toml`. The text around the tables is written by hand and not changed.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import nbformat

from chatlab.lab.editions import edition, shipped
from chatlab.locale import _

__all__ = ["Plan", "Step", "plans", "with_tables"]

MARKED = re.compile(r"(<!-- plan: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Step:
    """One step: a description or a lesson, and the minutes it takes.

    A lesson is done in full, or only its `sections`, or all but those in `without`. `day` is the time of a new day that
    begins with this step; "" if the day continues.
    """

    what: str
    minutes: int
    lesson: str = ""
    sections: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    day: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of a workshop of one or more days."""

    title: str
    steps: tuple[Step, ...]

    def days(self) -> list[list[tuple[int, Step]]]:
        """Return each day's steps, with the minute of the day at which each begins."""
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
        """Return the plan in Markdown, with links relative to docs/."""
        lines, end = [], _("the end")
        for number, day in enumerate(self.days(), start=1):
            lines += [_("**Day {number}**").format(number=number), ""] if len(self.days()) > 1 else []
            lines += [_("| from | minutes | |"), "|---|---|---|"]
            lines += [f"| {_clock(at)} | {step.minutes} | {_cell(step)} |" for at, step in day]
            lines += [f"| {_clock(day[-1][0] + day[-1][1].minutes)} | | {end} |", ""]
        return "\n".join(lines)


def plans() -> dict[str, Plan]:
    """Return the plans by their names in docs/workshop.md."""
    file = files("chatlab.lab.editions") / "notes" / "plans.toml"
    tables = tomllib.loads(file.read_text(encoding="utf-8"))
    return {name: _plan(**table) for name, table in tables.items()}


def _plan(title: str, begins: str, step: list[dict[str, object]]) -> Plan:
    step[0].setdefault("day", begins)
    return Plan(_(title), tuple(_step(**each) for each in step))  # type: ignore[arg-type]  # tomllib does not say what is in a table


def _step(
    what: str = "",
    minutes: int = 0,
    lesson: str = "",
    sections: Sequence[str] = (),
    without: Sequence[str] = (),
    day: str = "",
) -> Step:
    """Return a step from its table in the file; the minutes of a lesson are in its notes."""
    if what:  # the catalogue has its own header under ""
        what = _(what)
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
    link = f"[{title}](../notebooks/{path.name})"
    if chosen:
        return _("{lesson}: {sections}").format(lesson=link, sections=chosen)
    if step.without:
        return _("{lesson}, all but {sections}").format(lesson=link, sections=", ".join(step.without))
    return _("{lesson}, the whole lesson").format(lesson=link)


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def with_tables(text: str) -> str:
    """Return a text with the table of each plan computed again between its marks."""
    return MARKED.sub(lambda found: f"{found[1]}{plans()[found[2]].table()}{found[3]}", text)


def main() -> None:
    """Write the tables into docs/workshop.md."""
    document = shipped.sources().parent / "docs" / "workshop.md"
    document.write_text(with_tables(document.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
