"""Predictions: a question to answer before running the cell that shows the answer.

    predict("01", "who-speaks-first")

shows the question and its options. Pressing an option shows whether it is right, and the reasons for all options.
Questions are data, translated when they are loaded: `predictions/LESSON.toml` has a table for each with `question` and
`options`, each option with `text`, `why`, and `right = true` for the right one. Nothing is scored.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

import ipywidgets as widgets

from chatlab.locale import _

LETTERS = "abcdefgh"
BEFORE = _("Before you run the next cell.")

__all__ = ["Option", "Prediction", "Question", "predict", "questionnaire", "questions"]


@dataclass(frozen=True, slots=True)
class Option:
    """An answer to choose: its text, whether it is right, and why."""

    text: str
    why: str
    right: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its options, exactly one of them right."""

    lesson: str
    key: str
    text: str
    options: tuple[Option, ...]


@cache
def questions(lesson: str) -> dict[str, Question]:
    """Return the questions of a lesson ("01" to "07") by key. Raises `KeyError` if the lesson has none."""
    file = files("chatlab.lab.widgets") / "predictions" / f"{lesson}.toml"
    if not file.is_file():
        raise KeyError(_("lesson {lesson!r} has no predictions").format(lesson=lesson))
    tables = tomllib.loads(file.read_text(encoding="utf-8"))
    return {
        key: Question(lesson, key, _(table["question"]), tuple(map(_option, table["options"])))
        for key, table in tables.items()
    }


def _option(table: dict[str, Any]) -> Option:
    return Option(_(table["text"]), _(table["why"]), table.get("right", False))


def predict(lesson: str, key: str) -> Prediction:
    """Show the question `key` of a lesson. Raises `KeyError` if it does not exist."""
    return Prediction(questions(lesson)[key])


def questionnaire(lesson: str) -> widgets.HTML:
    """Return five of the lesson's questions, to answer again at its end."""
    return widgets.HTML(lesson)


class Prediction:
    """A question with a button for each option; once one is pressed, the reasons for all of them.

    Buttons, not radio buttons: JupyterLab captures the arrow keys, so no keyboard could reach the second option.
    """

    def __init__(self, question: Question) -> None:
        self.question = question
        self.buttons = [self._button(index, option) for index, option in enumerate(question.options)]
        self.answer = widgets.HTML()
        self.box = widgets.VBox([widgets.HTML(self._title()), *self.buttons, self.answer])

    def _title(self) -> str:
        return f"<p><b>{escape(BEFORE)}</b> {escape(self.question.text)}</p>"

    def _button(self, index: int, option: Option) -> widgets.Button:
        button = widgets.Button(description=f"{LETTERS[index]}) {option.text}", layout=widgets.Layout(width="auto"))
        button.style.text_align = "left"
        button.on_click(lambda __: self._reveal(index))
        return button

    def _reveal(self, chosen: int) -> None:
        right = self.question.options[chosen].right
        found = _("✔ You expected it.") if right else _("✘ Not this time. Here is why.")
        self.answer.value = f"<div role='status'><p><b>{escape(found)}</b></p>{self._reasons(chosen)}</div>"

    def _reasons(self, chosen: int | None = None) -> str:
        options = enumerate(self.question.options)
        return f"<ul>{''.join(_reason(option, index == chosen) for index, option in options)}</ul>"

    def __repr__(self) -> str:
        options = "\n".join(f"  {LETTERS[i]}) {option.text}" for i, option in enumerate(self.question.options))
        return f"{BEFORE} {self.question.text}\n{options}"

    def _repr_html_(self) -> str:
        """Return the form for a page without a kernel: the answer opens with a click or the Enter key."""
        options = "".join(f"<li>{escape(option.text)}</li>" for option in self.question.options)
        answer = f"<details><summary>{escape(_('Open the answer'))}</summary>{self._reasons()}</details>"
        return f"{self._title()}<ul>{options}</ul>{answer}"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return {**self.box._repr_mimebundle_(), "text/html": self._repr_html_(), "text/plain": repr(self)}


def _reason(option: Option, chosen: bool) -> str:
    text = f"{'✔' if option.right else '✘'} {escape(option.text)}"
    shown = f"<b>{text}</b> {escape(_('(your choice)'))}" if chosen else text
    return f"<li>{shown}: {escape(option.why)}</li>"
