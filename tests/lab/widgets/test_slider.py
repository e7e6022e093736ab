"""A slider stays between its ends. Its name and its keys are tried in a browser: tests/browser/test_chooser.py."""

from chatlab.lab.widgets.slider import Slider


def test_it_stands_where_it_is_told_to() -> None:
    assert Slider("Delay, ms", value=200, max=2000).value == 200


def test_past_an_end_it_stands_at_the_end() -> None:
    slider = Slider("Delay, ms", max=2000)

    slider.value = 5000
    assert slider.value == 2000
    slider.value = -1
    assert slider.value == 0


def test_what_moves_it_is_told_where_it_stands() -> None:
    slider, seen = Slider("Delay, ms", max=2000), []
    slider.observe(lambda change: seen.append(change["new"]), "value")

    slider.value = 70

    assert seen == [70]
