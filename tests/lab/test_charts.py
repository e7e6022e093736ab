"""The charts: one picture each, nothing left open, a series told apart without colour."""

from collections.abc import Iterator
from typing import Any

import matplotlib.pyplot as plt
import pytest

from chatlab.lab import charts
from chatlab.lab.experiments.lesson03 import Delays, Reception


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    figures: list[Any] = []
    monkeypatch.setattr("IPython.display.display", figures.append)
    yield figures
    assert plt.get_fignums() == [], "a figure was left open"


def test_lines_differ_by_marker_and_are_named(shown: list[Any]) -> None:
    charts.lines("T", "x", "y", {"하나": ([1, 2], [1, 2]), "둘": ([1, 2], [2, 1])})
    [axes] = shown[0].axes
    assert [line.get_label() for line in axes.lines] == ["하나", "둘"]
    assert len({line.get_marker() for line in axes.lines}) == 2


def test_bars_carry_their_figures(shown: list[Any]) -> None:
    charts.bars("T", "ms", {"polling": 50.0, "WebSocket": 0.5})
    assert [text.get_text() for text in shown[0].axes[0].texts] == ["50", "0.5"]


def test_reception_goes_flat_where_nothing_arrived_any_more(shown: list[Any]) -> None:
    charts.reception({"room": Reception(sent=3, times=(0.1, 0.2))}, seconds=2.0)
    [line] = shown[0].axes[0].lines
    assert list(line.get_xdata()) == [0, 0.1, 0.2, 2.0]
    assert list(line.get_ydata()) == [0, 1, 2, 2]


def test_delays_are_drawn_in_milliseconds(shown: list[Any]) -> None:
    charts.delays({"room": [Delays(10, (0.001, 0.003, 0.002))]})
    assert list(shown[0].axes[0].lines[0].get_ydata()) == [2.0]
