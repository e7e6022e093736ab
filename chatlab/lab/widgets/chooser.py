"""A chooser: say what matters to you, see the ranking and the reason.

    Chooser({"Redis Streams": {"is quick": Score(3, "among the quickest")}, ...}, {"is quick": 2})

Each thing that can matter has a slider, from 0 (no matter) to 5. The ranking is the sum of grade times weight, as a
share of what would be perfect. Without a live kernel it shows as a table for the weights it was made with. Left out:
where the grades come from; that is the lesson's own measurement.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import ipywidgets as widgets

from chatlab.lab.widgets.slider import Slider

__all__ = ["BEST", "Chooser", "Ranked", "Score"]

BEST = 3  # the highest grade
HEAVIEST = 5  # the highest weight
WORDS = ("no matter", "a little", "somewhat", "much", "very much", "above all")


@dataclass(frozen=True, slots=True)
class Score:
    """How well one candidate does one thing: a grade from 0 to `BEST`, and what was seen."""

    grade: int
    reason: str


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate in the ranking: its share of a perfect score (0 to 1), what speaks for it and what against."""

    name: str
    share: float
    pro: tuple[str, ...]
    con: tuple[str, ...]


class Chooser:
    """Candidates by name, each with a score for each thing that can matter; `weights` is where the sliders stand."""

    def __init__(self, scores: Mapping[str, Mapping[str, Score]], weights: Mapping[str, int]) -> None:
        self.scores = scores
        self.weights = dict(weights)
        self._sliders = {what: self._slider(what, weight) for what, weight in weights.items()}
        self._table = widgets.HTML()
        self.box = widgets.VBox([*self._sliders.values(), self._table])
        self._draw()

    def ranking(self) -> list[Ranked]:
        """The candidates, best first, for the weights as they stand; of equals, the first given is first."""
        perfect = BEST * sum(self.weights.values())
        return sorted(
            (self._ranked(name, scores, perfect) for name, scores in self.scores.items()), key=lambda each: -each.share
        )

    def _ranked(self, name: str, scores: Mapping[str, Score], perfect: int) -> Ranked:
        heaviest_first = sorted((what for what in self.weights if self.weights[what]), key=lambda w: -self.weights[w])
        total = sum(scores[what].grade * weight for what, weight in self.weights.items())
        pro = tuple(scores[what].reason for what in heaviest_first if scores[what].grade == BEST)
        con = tuple(scores[what].reason for what in heaviest_first if scores[what].grade <= 1)
        return Ranked(name, total / perfect if perfect else 0.0, pro, con)

    def _slider(self, what: str, weight: int) -> widgets.HBox:
        slider = Slider(what, value=weight, max=HEAVIEST)
        word = widgets.Label(WORDS[weight])
        slider.observe(lambda change: self._weigh(what, change["new"], word), "value")
        return widgets.HBox([slider, word])

    def _weigh(self, what: str, weight: int, word: widgets.Label) -> None:
        self.weights[what] = weight
        word.value = WORDS[weight]
        self._draw()

    def _draw(self) -> None:
        self._table.value = f"<div role='status' aria-label='ranking'>{self._as_table()}</div>"

    def _as_table(self) -> str:
        if not any(self.weights.values()):
            return "<p>Nothing matters yet: give one of them a number.</p>"
        rows = "".join(_row(place, each) for place, each in enumerate(self.ranking(), 1))
        head = "".join(f"<th style='text-align:left'>{title}" for title in ("fits", "for it", "against it"))
        return f"<table style='line-height:1.4'><tr><td><td>{head}</tr>{rows}</table>"

    # Without a live kernel.

    def __repr__(self) -> str:
        weighed = ", ".join(f"{what} {weight}" for what, weight in self.weights.items() if weight)
        lines = [f"{place}. {each.name}" for place, each in enumerate(self.ranking(), 1)]
        return "\n".join([f"With these weights: {weighed}", *lines])

    def _repr_html_(self) -> str:
        weighed = "; ".join(f"{escape(what)}: <b>{WORDS[weight]}</b>" for what, weight in self.weights.items())
        return f"<p>How much it matters: {weighed}.</p>{self._as_table()}"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {**self.box._repr_mimebundle_(), "text/html": self._repr_html_(), "text/plain": repr(self)}


def _row(place: int, ranked: Ranked) -> str:
    left = "<td style='text-align:left'>"
    return (
        f"<tr style='vertical-align:top'><td>{place}.{left}<b>{escape(ranked.name)}</b><td>{ranked.share:.0%}"
        f"{left}{_list('✔', ranked.pro)}{left}{_list('✘', ranked.con)}</tr>"
    )


def _list(sign: str, reasons: tuple[str, ...]) -> str:
    return "<br>".join(f"{sign} {escape(reason)}" for reason in reasons)
