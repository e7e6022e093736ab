"""A chooser: say how much each criterion matters, see who fits, and take the decision home as a text.

    Chooser({"Redis Streams": {"latency": Score(3, "0.36 ms")}, ...}, {"latency": 2})

Each criterion has a slider for its weight, from irrelevant (0) to critical (5). A candidate's sum is its grade times
the weight, over all criteria; it fits as well as its share of the highest possible sum says. Candidates with equal sums
share a place: a tie is a tie. `profiles` are buttons that set all sliders at once. The outcome is a decision record of
two paragraphs in Markdown, with a button that copies it. Without a live kernel, the chooser shows the ranking and the
record for its weights, and who fits each profile. Left out: where grades come from (`engine_choice.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from itertools import groupby
from typing import Any

import ipywidgets as widgets
import traitlets
from anywidget import AnyWidget

from chatlab.lab.claims import FIGURES
from chatlab.lab.widgets.slider import Slider
from chatlab.locale import _

__all__ = ["BEST", "Chooser", "CopyBox", "Profile", "Ranked", "Score"]

BEST = 3  # the highest grade
WORDS = (_("irrelevant"), _("low"), _("medium"), _("high"), _("very high"), _("critical"))  # by weight
HEAVIEST = len(WORDS) - 1
WRAPPED = {"flex_flow": "row wrap"}  # not shown: CSS
LEFT = "text-align:left;vertical-align:top"


@dataclass(frozen=True, slots=True)
class Score:
    """How well a candidate meets a criterion: a grade from 0 to `BEST`, and the fact that it follows from."""

    grade: int
    reason: str


@dataclass(frozen=True, slots=True)
class Profile:
    """What somebody needs: a name, one sentence, and a weight for each criterion that matters."""

    name: str
    need: str
    weights: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate in the ranking: its place, which ties share, and its share of a perfect sum (0 to 1).

    `pro` and `con` are the facts for it and against it, the heaviest criterion first.
    """

    place: int
    name: str
    share: float
    pro: tuple[str, ...]
    con: tuple[str, ...]


class CopyBox(AnyWidget):
    """A text that can be read, selected, and copied with a button; `description` is its name for screen readers."""

    _esm = files("chatlab.lab.widgets").joinpath("copy_box.js").read_text(encoding="utf-8")
    description = traitlets.Unicode().tag(sync=True)
    text = traitlets.Unicode().tag(sync=True)
    words = traitlets.Dict().tag(sync=True)

    def __init__(self, description: str) -> None:
        words = {"copy": _("Copy"), "copied": _("Copied."), "selected": _("Selected: press Ctrl+C, or ⌘C on a Mac.")}
        super().__init__(description=description, words=words)


class Chooser:
    """Candidates by name, each with a score for each criterion; `weights` has the initial positions of the sliders.

    `headings` says above which criterion a heading is; `source` says where the facts come from, in the record;
    `yardstick` explains the grades. Without `weights`, the first profile's are used.
    """

    def __init__(
        self,
        scores: Mapping[str, Mapping[str, Score]],
        weights: Mapping[str, int] | None = None,
        *,
        profiles: Sequence[Profile] = (),
        headings: Mapping[str, str] | None = None,
        source: str = "",
        yardstick: str = "",
    ) -> None:
        self.scores = scores
        self.profiles = profiles
        self.source, self.yardstick = source, yardstick
        self.criteria = list(next(iter(scores.values()))) if weights is None else list(weights)
        initial = profiles[0].weights if weights is None and profiles else weights or {}
        self.weights = {what: initial.get(what, 0) for what in self.criteria}
        self._moving = False
        self._taken: Profile | None = None  # the last one that was taken, whether or not it has a button
        self.sliders = {what: self._slider(what) for what in self.criteria}
        self.buttons = [self._button(profile) for profile in profiles]
        self._status, self._table, self.record_box = widgets.HTML(), widgets.HTML(), CopyBox(_("Decision record"))
        self.box = widgets.VBox([*self._profiles_row(), *self._rows_of_sliders(headings or {}), *self._below()])
        self._draw()

    # The ranking.

    def ranking(self, weights: Mapping[str, int] | None = None) -> list[Ranked]:
        """Return the candidates, best first, for these weights or the current ones; equal candidates share a place."""
        chosen = self.weights if weights is None else {what: weights.get(what, 0) for what in self.criteria}
        perfect = BEST * sum(chosen.values())
        sums = {name: sum(scores[what].grade * chosen[what] for what in chosen) for name, scores in self.scores.items()}
        return [
            self._ranked(name, 1 + sum(other > sums[name] for other in sums.values()), sums[name], perfect, chosen)
            for name in sorted(sums, key=lambda each: -sums[each])
        ]

    def _ranked(self, name: str, place: int, total: int, perfect: int, weights: Mapping[str, int]) -> Ranked:
        heaviest_first = sorted((what for what in weights if weights[what]), key=lambda what: -weights[what])
        scores = self.scores[name]
        pro = tuple(scores[what].reason for what in heaviest_first if scores[what].grade == BEST)
        con = tuple(scores[what].reason for what in heaviest_first if scores[what].grade <= 1)
        return Ranked(place, name, total / perfect if perfect else 0.0, pro, con)

    def winners(self, weights: Mapping[str, int] | None = None) -> list[str]:
        """Return who fits best: one candidate, or several that tie; none if nothing matters."""
        return [each.name for each in self.ranking(weights) if each.place == 1 and each.share > 0]

    # The sliders and buttons.

    def _slider(self, what: str) -> Slider:
        slider = Slider(_(what), value=self.weights[what], max=HEAVIEST, words=WORDS)
        slider.observe(lambda change: self._weigh(what, change["new"]), "value")
        return slider

    def _button(self, profile: Profile) -> widgets.Button:
        button = widgets.Button(description=profile.name, tooltip=profile.need, layout=widgets.Layout(width="auto"))
        button.on_click(lambda __: self.take(profile))
        return button

    def _profiles_row(self) -> list[widgets.Widget]:
        if not self.profiles:
            return []
        label = widgets.HTML(f"<b>{escape(_('What somebody needs (each button sets all sliders):'))}</b>")
        return [label, widgets.HBox(self.buttons, layout=WRAPPED)]

    def _rows_of_sliders(self, headings: Mapping[str, str]) -> list[widgets.Widget]:
        rows: list[widgets.Widget] = []
        for what, slider in self.sliders.items():
            if what in headings:
                rows.append(widgets.HTML(f"<b>{escape(headings[what])}</b>"))
            rows.append(slider)
        return rows

    def _below(self) -> list[widgets.Widget]:
        return [self._status, self._table, widgets.HTML(self._explanation()), self.record_box]

    def take(self, profile: Profile) -> None:
        """Set all sliders to a profile's weights; its need opens the record for as long as they stay there."""
        self._moving, self._taken = True, profile
        for what, slider in self.sliders.items():
            slider.value = profile.weights.get(what, 0)
        self._moving = False
        self._draw()

    def _weigh(self, what: str, weight: int) -> None:
        self.weights[what] = weight
        if not self._moving:
            self._draw()

    # What it shows.

    def _draw(self) -> None:
        self._status.value = f"<p role='status'><b>{escape(self.summary())}</b></p>"
        self._table.value = self._as_table()
        self.record_box.text = self.record()

    @property
    def profile(self) -> Profile | None:
        """The profile whose weights the sliders have, if any: the last one taken before those with buttons."""
        known = [self._taken, *self.profiles] if self._taken else list(self.profiles)
        return next((each for each in known if self._weights_of(each) == self.weights), None)

    def _weights_of(self, profile: Profile) -> dict[str, int]:
        return {what: profile.weights.get(what, 0) for what in self.criteria}

    def summary(self) -> str:
        """Say in one sentence who fits best."""
        names = self.winners()
        if not names:
            return _("Nothing matters yet: move a slider.")
        share = f"{self.ranking()[0].share:.0%}"
        if len(names) > 1:
            text = _("A tie: {names} fit equally well, {share}. The figures do not decide between them.")
            return text.format(names=_listed(names), share=share)
        return _("{name} fits best, {share}.").format(name=names[0], share=share)

    def _as_table(self) -> str:
        if not any(self.weights.values()):
            return ""
        titles = (_("place"), _("engine"), _("fits"), _("for it"), _("against it"))
        head = "".join(f"<th scope='col' style='{LEFT}'>{escape(title)}</th>" for title in titles)
        ranked = self.ranking()
        rows = "".join(_row(each, sum(other.place == each.place for other in ranked) > 1) for each in ranked)
        return f"<table style='line-height:1.4'>{_caption(_('Who fits'))}<tr>{head}</tr>{rows}</table>"

    def _explanation(self) -> str:
        text = _(
            "Every engine has a grade from 0 to {best} for each criterion. It is multiplied by your weight: irrelevant "
            "is 0, critical is {heaviest}. An engine fits as well as its sum's share of the highest possible sum."
        ).format(best=BEST, heaviest=HEAVIEST)
        summary = escape(_("How this is computed, and all grades"))
        explanation = f"<p>{escape(text)}</p><p>{escape(self.yardstick)}</p>"
        return f"<details><summary>{summary}</summary>{explanation}{self._grades()}</details>"

    def _grades(self) -> str:
        head = "".join(f"<th scope='col' style='{LEFT}'>{escape(name)}</th>" for name in self.scores)
        rows = "".join(
            f"<tr><th scope='row' style='{LEFT}'>{escape(_(what))}</th>{self._grades_of(what)}</tr>"
            for what in self.criteria
        )
        return f"<table style='line-height:1.4'>{_caption(_('Grades'))}<tr><td></td>{head}</tr>{rows}</table>"

    def _grades_of(self, what: str) -> str:
        scores = [each[what] for each in self.scores.values()]
        return "".join(f"<td style='{LEFT}'><b>{each.grade}</b> · {escape(each.reason)}</td>" for each in scores)

    # The record.

    def record(self) -> str:
        """Return the decision as two paragraphs of Markdown; "" if nothing matters."""
        winners = self.winners()
        return f"{self._context()}\n\n{self._decision(winners)}" if winners else ""

    def _context(self) -> str:
        by_weight = sorted(self.criteria, key=lambda what: -self.weights[what])
        groups = [(WORDS[weight], list(each)) for weight, each in groupby(by_weight, self.weights.__getitem__)]
        weighed = "; ".join(f"{word}: {', '.join(_(what) for what in each)}" for word, each in groups)
        profile = self.profile
        need = profile.need if profile else _("We choose a message broker.")
        facts = _("The figures ({source}): {figures}.") if self.source else _("The figures: {figures}.")
        figures = "; ".join(f"{name}: {self._figures(name)}" for name in self.scores)
        weights = _("What matters to us: {weights}.").format(weights=weighed)
        return f"**{_('Context.')}** {need} {weights} {facts.format(source=self.source, figures=figures)}"

    def _figures(self, name: str) -> str:
        return ", ".join(self.scores[name][what].reason for what in self.criteria if self.weights[what])

    def _decision(self, winners: Sequence[str]) -> str:
        best, *others = self.ranking()
        share = f"{best.share:.0%}"
        if len(winners) > 1:
            text = _("We take one of {names}: each fits {share} of what matters, and these figures do not decide.")
            decision = text.format(names=_listed(winners), share=share)
        else:
            text = _("We take {name}, which fits {share} of what matters; next: {next}, {other}.")
            behind = _listed([each.name for each in others if each.place == 2])
            decision = text.format(name=best.name, share=share, next=behind, other=f"{others[0].share:.0%}")
        return f"**{_('Decision.')}** {decision} {' '.join(self._given_up(name) for name in winners)}"

    def _given_up(self, name: str) -> str:
        """Say in which criteria another candidate has a better grade, also where that is irrelevant now."""
        lost = []
        for what in self.criteria:
            mine = self.scores[name][what]
            best = max((each[what] for each in self.scores.values()), key=lambda score: score.grade)
            if mine.grade < best.grade:
                holders = [other for other, each in self.scores.items() if each[what].grade == best.grade]
                text = _("{criterion} ({mine}; {better}: {reason})")
                lost.append(
                    text.format(criterion=_(what), mine=mine.reason, better=_listed(holders[:1]), reason=best.reason)
                )
        if not lost:
            return _("With {name} we give up nothing that was graded.").format(name=name)
        return _("What we give up with {name}: {lost}.").format(name=name, lost="; ".join(lost))

    # Without a live kernel.

    def __repr__(self) -> str:
        weighed = ", ".join(f"{_(what)} {weight}" for what, weight in self.weights.items() if weight)
        lines = [f"{each.place}. {each.name}" for each in self.ranking()]
        return "\n".join([_("With these weights: {weights}").format(weights=weighed), *lines])

    def _repr_html_(self) -> str:
        weighed = "; ".join(
            f"{escape(_(what))}: <b>{escape(WORDS[weight])}</b>" for what, weight in self.weights.items()
        )
        matters = escape(_("How much it matters: {weights}.")).format(weights=weighed)
        record = "".join(f"<p>{escape(text)}</p>" for text in self.record().split("\n\n"))
        found = f"<p><b>{escape(self.summary())}</b></p>{self._as_table()}{self._explanation()}"
        return f"<p>{matters}</p>{FIGURES[0]}{found}<blockquote>{record}</blockquote>{self._for_whom()}{FIGURES[1]}"

    def _for_whom(self) -> str:
        if not self.profiles:
            return ""
        rows = "".join(
            f"<tr><th scope='row' style='{LEFT}'>{escape(each.name)}</th><td style='{LEFT}'>{escape(each.need)}</td>"
            f"<td style='{LEFT}'>{escape(_listed(self.winners(each.weights)))}</td></tr>"
            for each in self.profiles
        )
        titles = (_("profile"), _("what it needs"), _("who fits"))
        head = "".join(f"<th scope='col' style='{LEFT}'>{escape(title)}</th>" for title in titles)
        caption = _caption(_("Who fits which profile"))
        return f"<table style='line-height:1.4'>{caption}<tr>{head}</tr>{rows}</table>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return {**self.box._repr_mimebundle_(), "text/html": self._repr_html_(), "text/plain": repr(self)}


def _listed(names: Sequence[str]) -> str:
    *others, last = names
    return _("{others} and {last}").format(others=", ".join(others), last=last) if others else last


def _caption(title: str) -> str:
    return f"<caption style='caption-side:top;text-align:left;font-weight:bold'>{escape(title)}</caption>"


def _row(ranked: Ranked, tied: bool) -> str:
    place = _("{place} (tie)").format(place=ranked.place) if tied else str(ranked.place)
    cells = (escape(place), f"<b>{escape(ranked.name)}</b>", f"{ranked.share:.0%}")
    reasons = (_list("✔", ranked.pro), _list("✘", ranked.con))
    return f"<tr>{''.join(f'<td style={LEFT!r}>{cell}</td>' for cell in (*cells, *reasons))}</tr>"


def _list(mark: str, reasons: tuple[str, ...]) -> str:
    return "<br>".join(f"{mark} {escape(reason)}" for reason in reasons)
