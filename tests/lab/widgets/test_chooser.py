"""The chooser ranks candidates by weighted grades, shows the reasons, and follows its sliders."""

from __future__ import annotations

from chatlab.lab.claims import FIGURES
from chatlab.lab.widgets.chooser import Chooser, Profile, Score
from chatlab.lab.widgets.slider import Slider

SCORES = {
    "hare": {"is quick": Score(3, "first by far"), "arrives": Score(0, "sleeps")},
    "tortoise": {"is quick": Score(0, "last by far"), "arrives": Score(3, "never stops")},
}


def chooser(**weights: int) -> Chooser:
    return Chooser(SCORES, {"is quick": weights.get("quick", 0), "arrives": weights.get("arrives", 0)})


def names(of: Chooser) -> list[str]:
    return [each.name for each in of.ranking()]


def test_the_heaviest_criterion_decides_the_ranking() -> None:
    assert names(chooser(quick=3, arrives=1)) == ["hare", "tortoise"]
    assert names(chooser(quick=1, arrives=3)) == ["tortoise", "hare"]


def test_a_share_is_relative_to_the_perfect_score() -> None:
    hare, tortoise = chooser(quick=3, arrives=1).ranking()
    assert (hare.share, tortoise.share) == (0.75, 0.25)


def test_reasons_are_given_only_for_criteria_that_matter() -> None:
    hare, tortoise = chooser(quick=2).ranking()
    assert (hare.pro, hare.con) == (("first by far",), ())
    assert (tortoise.pro, tortoise.con) == ((), ("last by far",))


def test_without_weights_there_is_no_ranking() -> None:
    assert "Nothing matters yet" in chooser()._repr_html_()
    assert [each.share for each in chooser().ranking()] == [0.0, 0.0]


def test_moving_a_slider_changes_the_ranking_and_the_record() -> None:
    choosing = chooser(quick=1)
    choosing.sliders["is quick"].value = 0
    choosing.sliders["arrives"].value = 5

    assert names(choosing) == ["tortoise", "hare"]
    assert choosing.summary() == "tortoise fits best, 100%."
    table, record = choosing.box.children[-3].value, choosing.box.children[-1].text
    assert table.index("tortoise") < table.index("hare")
    assert "We take tortoise" in record


def test_the_sliders_name_their_values() -> None:
    slider = chooser(quick=1).sliders["is quick"]
    assert isinstance(slider, Slider)
    assert slider.words[0] == "irrelevant"
    assert slider.words[slider.max] == "critical"


def test_a_tie_is_said_to_be_a_tie_and_nobody_is_first() -> None:
    choosing = chooser(quick=2, arrives=2)
    assert [each.place for each in choosing.ranking()] == [1, 1]
    assert choosing.winners() == ["hare", "tortoise"]
    assert choosing.summary().startswith("A tie: hare and tortoise fit equally well, 50%.")
    assert choosing._repr_html_().count("1 (tie)") == 2
    assert "We take one of hare and tortoise" in choosing.record()


def test_whoever_is_behind_a_tie_is_third() -> None:
    scores = {**SCORES, "snail": {"is quick": Score(0, "crawls"), "arrives": Score(0, "rests")}}
    choosing = Chooser(scores, {"is quick": 1, "arrives": 1})
    assert [each.place for each in choosing.ranking()] == [1, 1, 3]
    assert choosing._repr_html_().count("(tie)") == 2


NEED = Profile("a letter", "A letter must get there.", {"arrives": 5})


def test_a_profile_sets_all_sliders() -> None:
    choosing = Chooser(SCORES, {"is quick": 3, "arrives": 0}, profiles=[NEED])
    assert choosing.profile is None

    choosing.buttons[0].click()

    assert {what: slider.value for what, slider in choosing.sliders.items()} == {"is quick": 0, "arrives": 5}
    assert choosing.profile == NEED
    assert choosing.winners() == ["tortoise"]


def test_without_weights_the_first_profile_is_set_and_every_criterion_has_a_slider() -> None:
    assert Chooser(SCORES, profiles=[NEED]).weights == {"is quick": 0, "arrives": 5}


def test_a_decision_record_has_two_paragraphs_with_the_weights_the_figures_and_what_is_given_up() -> None:
    choosing = Chooser(SCORES, {"is quick": 5, "arrives": 1}, source="a race, recorded")
    context, decision = choosing.record().split("\n\n")
    assert context == (
        "**Context.** We choose a message broker. What matters to us: critical: is quick; low: arrives. "
        "The figures (a race, recorded): hare: first by far, sleeps; tortoise: last by far, never stops."
    )
    assert decision == (
        "**Decision.** We take hare, which fits 83% of what matters; next: tortoise, 17%. "
        "What we give up with hare: arrives (sleeps; tortoise: never stops)."
    )


def test_a_record_begins_with_the_need_of_its_profile_and_has_no_figures_of_what_is_irrelevant() -> None:
    context, __ = Chooser(SCORES, profiles=[NEED]).record().split("\n\n")
    assert context.startswith("**Context.** A letter must get there. ")
    assert "first by far" not in context


def test_nothing_is_decided_while_nothing_matters() -> None:
    choosing = chooser()
    assert (choosing.winners(), choosing.record(), choosing.box.children[-1].text) == ([], "", "")


def test_the_ranking_the_record_and_the_profiles_are_shown_without_a_kernel() -> None:
    choosing = Chooser(SCORES, {"is quick": 2, "arrives": 1}, profiles=[NEED], yardstick="Who is first gets 3.")
    bundle = choosing._repr_mimebundle_()
    assert bundle["text/plain"] == "With these weights: is quick 2, arrives 1\n1. hare\n2. tortoise"
    html = bundle["text/html"]
    for part in ("is quick: <b>medium</b>", "<b>hare</b>", "67%", "✘ sleeps", "Who is first gets 3."):
        assert part in html
    assert "<blockquote><p>**Context.**" in html
    assert "A letter must get there.</td><td style='text-align:left;vertical-align:top'>tortoise</td>" in html


def test_a_profile_without_a_button_opens_the_record_until_a_slider_is_moved() -> None:
    choosing = chooser(quick=1)
    choosing.take(Profile("mine", "A quiz: a late answer is worthless.", {"arrives": 2}))
    assert choosing.record().startswith("**Context.** A quiz: a late answer is worthless. What matters")
    choosing.sliders["arrives"].value = 3
    assert "A quiz" not in choosing.record()


def test_no_figure_is_outside_the_marks_that_a_comparison_of_two_runs_leaves_out() -> None:
    html = chooser(quick=2, arrives=1)._repr_html_()
    outside = html.partition(FIGURES[0])[0] + html.partition(FIGURES[1])[2]
    assert outside == "<p>How much it matters: is quick: <b>medium</b>; arrives: <b>low</b>.</p>"


def test_a_name_and_a_reason_cannot_inject_html() -> None:
    scores = {"<script>": {"<b>": Score(3, "<i>")}, "other": {"<b>": Score(0, "none")}}
    html = Chooser(scores, {"<b>": 1}, profiles=[Profile("<u>", "<s>", {"<b>": 1})])._repr_html_()
    assert not [tag for tag in ("<script>", "<i>", "<u>", "<s>") if tag in html]
