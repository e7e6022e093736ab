"""The charts: each shows one picture, leaves no figure open, and needs no colour to tell its series apart."""

from collections.abc import Iterator
from typing import Any

import matplotlib.pyplot as plt
import pytest

from chatlab.lab.experiments import charts
from chatlab.lab.experiments.lesson02 import Flow, Transfer, Way
from chatlab.lab.experiments.lesson03 import Reception
from chatlab.lab.experiments.lesson04 import Burst, Load
from chatlab.lab.experiments.lesson07 import Share
from chatlab.lab.wire.trace import Peer


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    figures: list[Any] = []
    monkeypatch.setattr("IPython.display.display", figures.append)
    yield figures
    assert plt.get_fignums() == [], "a figure was left open"


def test_each_line_has_its_own_marker_and_name(shown: list[Any]) -> None:
    charts.lines("T", "x", "y", {"하나": ([1, 2], [1, 2]), "둘": ([1, 2], [2, 1])})
    [axes] = shown[0].axes
    assert [line.get_label() for line in axes.lines] == ["하나", "둘"]
    assert len({line.get_marker() for line in axes.lines}) == 2


def test_each_bar_has_its_value_above_it(shown: list[Any]) -> None:
    charts.bars("T", "ms", {"polling": 50.0, "WebSocket": 0.5})
    assert [text.get_text() for text in shown[0].axes[0].texts] == ["50", "0.5"]


def test_the_line_of_a_reception_is_flat_after_the_last_arrival(shown: list[Any]) -> None:
    charts.reception({"room": Reception(sent=3, times=(0.1, 0.2))}, seconds=2.0)
    [line] = shown[0].axes[0].lines
    assert list(line.get_xdata()) == [0, 0.1, 0.2, 2.0]
    assert list(line.get_ydata()) == [0, 1, 2, 2]


def test_transfers_are_drawn_side_by_side_on_one_scale(shown: list[Any]) -> None:
    passed: dict[Peer, list[tuple[float, int]]] = {
        "client": [(0.0, 0), (0.5, 2**20)],
        "server": [(0.1, 0), (0.6, 2**19)],
    }
    run = Transfer(passed, {"client": [], "server": []})
    charts.transfers({"WebSocket": run, "HTTP": run})
    left, right = shown[0].axes
    assert left.get_xlim() == right.get_xlim()
    assert [list(line.get_ydata()) for line in left.lines] == [[0, 1], [0, 0.5]]
    assert len({line.get_marker() for line in left.lines}) == 2


def test_each_way_has_its_delay_bytes_requests_and_connections(shown: list[Any]) -> None:
    charts.ways([Way("polling", (0.1,), 300, 4, 1), Way("WebSocket", (0.001,), 30, 1, 1)])
    labels = [[text.get_text() for text in axes.texts] for axes in shown[0].axes]
    assert labels == [["100", "1"], ["300", "30"], ["4", "1"], ["1", "1"]]


def test_the_chart_of_waiting_bytes_marks_when_the_client_starts_reading(shown: list[Any]) -> None:
    flow = Flow(samples=((0.0, 0, 0), (0.5, 2**21, 2**20)), reads_at=0.4)
    charts.waiting({"waits": flow, "does not": flow})
    sent, kept = shown[0].axes
    assert list(sent.lines[0].get_ydata()) == [0, 2]
    assert list(kept.lines[0].get_ydata()) == [0, 1]
    assert kept.lines[-1].get_xdata()[0] == 0.4


def test_each_server_has_its_share_of_connections_and_deliveries(shown: list[Any]) -> None:
    charts.shares({"1 server": [Share(24, 240)], "2 servers": [Share(12, 120), Share(12, 120)]})
    connections, deliveries = shown[0].axes
    assert [text.get_text() for text in connections.texts] == ["24", "12", "12"]
    assert [text.get_text() for text in deliveries.texts] == ["240", "120", "120"]
    assert [label.get_text() for label in deliveries.get_xticklabels()] == ["1 server", "2 servers"]
    places = [bar.get_x() + bar.get_width() for bar in deliveries.patches]
    assert places == sorted(places), "no bar hides another"


def test_the_load_is_drawn_from_zero_with_its_range_and_with_a_server_without_members(shown: list[Any]) -> None:
    alone = [Load(20, 1, ((0.001, 0.0004), (0.003, 0.0004))), Load(80, 1, ((0.004, 0.0004), (0.004, 0.0004)))]
    shared = [Load(20, 2, ((0.001, 0.001),)), Load(80, 2, ((0.002, 0.002),))]
    charts.load({1: alone, 2: shared})
    [axes] = shown[0].axes
    assert (axes.get_xlim()[0], axes.get_ylim()[0]) == (0, 0)
    assert [text.get_text() for text in axes.get_legend().texts] == [
        "1 server",
        "2 servers",
        "a server without members",
    ]
    medians = [list(drawn.lines[0].get_ydata()) for drawn in axes.containers]
    assert medians == [[2.0, 4.0], [1.0, 2.0], [0.4, 0.4]]


def test_a_burst_is_drawn_twice_when_it_was_answered_and_when_it_was_done(shown: list[Any]) -> None:
    charts.bursts({"in line": Burst((0.1, 0.2), (0.1, 0.2)), "in a queue": Burst((0.0, 0.0), (0.1, 0.2))})
    answered, done = shown[0].axes
    assert [list(line.get_ydata()) for line in answered.lines] == [[100, 200], [0, 0]]
    assert [list(line.get_ydata()) for line in done.lines] == [[100, 200], [100, 200]]
    assert answered.get_ylim() == done.get_ylim()
