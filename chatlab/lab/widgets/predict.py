"""Predictions: a question to answer before the telling cell is run.

    predict("01", "who-speaks-first")

shows the question with its options; pressing one says why it is right or wrong, and opens the reasons for the rest.
Questions are data: `predictions/LESSON.toml`, a table for each with `question` and `options`, each option with `text`,
`why`, and `right = true` for the one that is. Nothing is scored: a wrong guess is how one learns.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

import ipywidgets as widgets

LETTERS = "abcdefgh"

__all__ = ["Option", "Prediction", "Question", "predict", "questions"]


@dataclass(frozen=True, slots=True)
class Option:
    """One answer to choose: its text, whether it is right, and why it is or is not."""

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
    """The questions of a lesson ("01" to "07") by their keys. Raises `KeyError` for a lesson without any."""
    file = files("chatlab.lab.widgets") / "predictions" / f"{lesson}.toml"
    if not file.is_file():
        raise KeyError(f"lesson {lesson!r} has no predictions")
    tables = tomllib.loads(file.read_text(encoding="utf-8"))
    return {
        key: Question(lesson, key, table["question"], tuple(Option(**option) for option in table["options"]))
        for key, table in tables.items()
    }


def predict(lesson: str, key: str) -> Prediction:
    """Show the question `key` of a lesson. Raises `KeyError` when there is none of that name."""
    return Prediction(questions(lesson)[key])


class Prediction:
    """A question on the page: a button for each option, and the reasons for all of them once one is pressed.

    Buttons, not radio buttons: JupyterLab keeps the arrow keys for itself, and nobody could reach the second option.
    """

    def __init__(self, question: Question) -> None:
        self.question = question
        self.buttons = [self._button(index, option) for index, option in enumerate(question.options)]
        self.answer = widgets.HTML()
        title = widgets.HTML(f"<p><b>Before you run the next cell.</b> {escape(question.text)}</p>")
        self.box = widgets.VBox([title, *self.buttons, self.answer])

    def _button(self, index: int, option: Option) -> widgets.Button:
        button = widgets.Button(description=f"{LETTERS[index]}) {option.text}", layout=widgets.Layout(width="auto"))
        button.style.text_align = "left"
        button.on_click(lambda _: self._reveal(index))
        return button

    def _reveal(self, chosen: int) -> None:
        found = "✔ You expected it." if self.question.options[chosen].right else "✘ Not this time. Here is why."
        self.answer.value = f"<div role='status'><p><b>{found}</b></p>{self._reasons(chosen)}</div>"

    def _reasons(self, chosen: int | None = None) -> str:
        rows = "".join(
            f"<li>{'<b>' if index == chosen else ''}{'✔' if option.right else '✘'} {escape(option.text)}"
            f"{'</b> (your choice)' if index == chosen else ''}: {escape(option.why)}</li>"
            for index, option in enumerate(self.question.options)
        )
        return f"<ul>{rows}</ul>"

    def __repr__(self) -> str:
        options = "\n".join(f"  {LETTERS[i]}) {option.text}" for i, option in enumerate(self.question.options))
        return f"Before you run the next cell. {self.question.text}\n{options}"

    def _repr_html_(self) -> str:
        """The form for a page without a kernel: the answer opens with a click or the Enter key."""
        options = "".join(f"<li>{escape(option.text)}</li>" for option in self.question.options)
        return (
            f"<p><b>Before you run the next cell.</b> {escape(self.question.text)}</p><ul>{options}</ul>"
            f"<details><summary>Open the answer</summary>{self._reasons()}</details>"
        )

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {**self.box._repr_mimebundle_(), "text/html": self._repr_html_(), "text/plain": repr(self)}
