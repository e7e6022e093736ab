"""The chooser ranks candidates by weighted grades, shows the reasons, and follows its sliders."""

from __future__ import annotations

from chatlab.lab.widgets.chooser import Chooser, Score
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


def test_moving_a_slider_changes_the_ranking() -> None:
    choosing = chooser(quick=1)
    slider, word = choosing.box.children[1].children
    assert isinstance(slider, Slider)

    slider.value = 5

    assert word.value == "above all"
    assert names(choosing) == ["tortoise", "hare"]
    assert choosing.box.children[-1].value.index("tortoise") < choosing.box.children[-1].value.index("hare")


def test_the_ranking_is_shown_without_a_kernel() -> None:
    bundle = chooser(quick=2, arrives=1)._repr_mimebundle_()
    assert bundle["text/plain"] == "With these weights: is quick 2, arrives 1\n1. hare\n2. tortoise"
    assert "<b>hare</b><td>67%" in bundle["text/html"]
    assert "✘ sleeps" in bundle["text/html"]
