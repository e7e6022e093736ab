"""A chooser: set what matters to you, see the ranking and the reasons.

    Chooser({"Redis Streams": {"is quick": Score(3, "among the quickest")}, ...}, {"is quick": 2})

Each criterion has a slider for its weight, from 0 (does not matter) to 5. Candidates are ranked by the sum of grade
times weight, as a share of the perfect sum. The names of criteria are keys; the chooser shows their translations.
Without a live kernel, a table shows the ranking for the initial weights. Left out: where the grades come from, which is
the lesson's own measurement.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import ipywidgets as widgets

from chatlab.lab.widgets.slider import Slider
from chatlab.locale import _

__all__ = ["BEST", "Chooser", "Ranked", "Score"]

BEST = 3  # the highest grade
HEAVIEST = 5  # the highest weight
WORDS = (_("no matter"), _("a little"), _("somewhat"), _("much"), _("very much"), _("above all"))  # by weight


@dataclass(frozen=True, slots=True)
class Score:
    """How well a candidate meets a criterion: a grade from 0 to `BEST`, and the reason for it."""

    grade: int
    reason: str


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate in the ranking: its share of a perfect score (0 to 1), reasons for it and against it."""

    name: str
    share: float
    pro: tuple[str, ...]
    con: tuple[str, ...]


class Chooser:
    """Candidates by name, each with a score for each criterion; `weights` has the initial positions of the sliders."""

    def __init__(self, scores: Mapping[str, Mapping[str, Score]], weights: Mapping[str, int]) -> None:
        self.scores = scores
        self.weights = dict(weights)
        self._sliders = {what: self._slider(what, weight) for what, weight in weights.items()}
        self._table = widgets.HTML()
        self.box = widgets.VBox([*self._sliders.values(), self._table])
        self._draw()

    def ranking(self) -> list[Ranked]:
        """Return the candidates, best first, for the current weights; equal candidates stay in the given order."""
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
        slider = Slider(_(what), value=weight, max=HEAVIEST)
        word = widgets.Label(WORDS[weight])
        slider.observe(lambda change: self._weigh(what, change["new"], word), "value")
        return widgets.HBox([slider, word])

    def _weigh(self, what: str, weight: int, word: widgets.Label) -> None:
        self.weights[what] = weight
        word.value = WORDS[weight]
        self._draw()

    def _draw(self) -> None:
        self._table.value = f"<div role='status' aria-label='{escape(_('ranking'))}'>{self._as_table()}</div>"

    def _as_table(self) -> str:
        if not any(self.weights.values()):
            return f"<p>{escape(_('Nothing matters yet: give one of them a number.'))}</p>"
        rows = "".join(_row(place, each) for place, each in enumerate(self.ranking(), 1))
        titles = (_("fits"), _("for it"), _("against it"))
        head = "".join(f"<th style='text-align:left'>{escape(title)}" for title in titles)
        return f"<table style='line-height:1.4'><tr><td><td>{head}</tr>{rows}</table>"

    # Without a live kernel.

    def __repr__(self) -> str:
        weighed = ", ".join(f"{_(what)} {weight}" for what, weight in self.weights.items() if weight)
        lines = [f"{place}. {each.name}" for place, each in enumerate(self.ranking(), 1)]
        return "\n".join([_("With these weights: {weights}").format(weights=weighed), *lines])

    def _repr_html_(self) -> str:
        weighed = "; ".join(
            f"{escape(_(what))}: <b>{escape(WORDS[weight])}</b>" for what, weight in self.weights.items()
        )
        matters = escape(_("How much it matters: {weights}.")).format(weights=weighed)
        return f"<p>{matters}</p>{self._as_table()}"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return {**self.box._repr_mimebundle_(), "text/html": self._repr_html_(), "text/plain": repr(self)}


def _row(place: int, ranked: Ranked) -> str:
    left = "<td style='text-align:left'>"
    return (
        f"<tr style='vertical-align:top'><td>{place}.{left}<b>{escape(ranked.name)}</b><td>{ranked.share:.0%}"
        f"{left}{_list('✔', ranked.pro)}{left}{_list('✘', ranked.con)}</tr>"
    )


def _list(mark: str, reasons: tuple[str, ...]) -> str:
    return "<br>".join(f"{mark} {escape(reason)}" for reason in reasons)
