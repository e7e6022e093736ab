"""A slider stays within its range. Its name and its keys are tested in a browser: tests/browser/test_chooser.py."""

from chatlab.lab.widgets.slider import Slider


def test_a_slider_has_its_initial_value() -> None:
    assert Slider("Delay, ms", value=200, max=2000).value == 200


def test_a_value_out_of_range_is_clamped() -> None:
    slider = Slider("Delay, ms", max=2000)

    slider.value = 5000
    assert slider.value == 2000
    slider.value = -1
    assert slider.value == 0


def test_observers_receive_the_new_value() -> None:
    slider, seen = Slider("Delay, ms", max=2000), []
    slider.observe(lambda change: seen.append(change["new"]), "value")

    slider.value = 70

    assert seen == [70]
