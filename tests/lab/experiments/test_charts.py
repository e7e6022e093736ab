"""The charts: each shows one picture, leaves no figure open, and needs no colour to tell its series apart."""

import re
import warnings
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import matplotlib.pyplot as plt
import pytest
from matplotlib.axes import Axes

from chatlab.lab.claims import FIGURES
from chatlab.lab.experiments import charts
from chatlab.lab.experiments.lesson02 import Flow, Transfer, Way
from chatlab.lab.experiments.lesson03 import Reception
from chatlab.lab.experiments.lesson04 import Burst, Load
from chatlab.lab.experiments.lesson07 import Share
from chatlab.lab.experiments.repeats import Repeats
from chatlab.lab.wire.trace import Peer


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    figures: list[Any] = []
    monkeypatch.setattr("IPython.display.display", figures.append)
    yield figures
    assert plt.get_fignums() == [], "a figure was left open"


def labels(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_each_line_has_its_own_marker_and_name(shown: list[Any]) -> None:
    charts.lines("T", "x", "y", {"하나": ([1, 2], [1, 2]), "둘": ([1, 2], [2, 1])})
    [axes] = shown[0].figure.axes
    assert [line.get_label() for line in axes.lines] == ["하나", "둘"]
    assert len({line.get_marker() for line in axes.lines}) == 2


def test_both_axes_of_lines_begin_at_zero(shown: list[Any]) -> None:
    charts.lines("T", "x", "y", {"one": ([50, 60], [7, 8])})
    [axes] = shown[0].figure.axes
    assert (axes.get_xlim()[0], axes.get_ylim()[0]) == (0, 0)


def test_a_line_shows_the_spread_of_a_repeated_value_and_a_recorded_line_says_so(shown: list[Any]) -> None:
    charts.lines("T", "members", "ms", {"here": ([1, 2], [1, Repeats((2, 3, 9))])}, recorded={"there": ([1], [4])})
    [axes] = shown[0].figure.axes
    assert [line.get_label() for line in axes.lines] == ["here", "there, recorded"]
    assert axes.collections[0].get_segments()[1][:, 1].tolist() == [2, 9]
    assert "here: from 1 ms at 1 members to 3 (2 to 9) ms at 2 members, 3 at most; there, recorded" in shown[0].words


def test_dots_are_on_an_axis_from_zero_with_their_values_beside_them(shown: list[Any]) -> None:
    charts.dots("T", "a second", {"Kafka": 52_184.0, "Redis": 35_023.0, "memory": 0})
    [axes] = shown[0].figure.axes
    assert axes.get_xlim()[0] == 0
    assert [line.get_xdata()[0] for line in axes.lines] == [52_184, 35_023, 0]
    assert labels(axes) == ["52,184", "35,023", "0"]


def test_a_repeated_value_is_its_median_with_a_line_from_the_lowest_to_the_highest(shown: list[Any]) -> None:
    charts.dots("T", "ms", {"Redis": Repeats((0.5, 0.1, 0.3))})
    [axes] = shown[0].figure.axes
    assert axes.lines[0].get_xdata()[0] == 0.3
    assert axes.collections[0].get_segments()[0][:, 0].tolist() == [0.1, 0.5]
    assert labels(axes) == ["0.3 (0.1 to 0.5)"]


def test_a_logarithmic_axis_is_between_two_lines_and_all_its_lines_are_drawn_and_labelled(shown: list[Any]) -> None:
    charts.dots("T", "ms", {"a": 0.02, "b": 30.0}, log=True)
    charts.dots("T", "a second", {"a": 35_023.0, "b": 52_184.0}, log=True)
    wide, narrow = ["0.01", "0.1", "1", "10", "100"], ["10,000", "20,000", "50,000", "100,000"]
    for chart, expected in zip(shown, (wide, narrow), strict=True):
        [axes] = chart.figure.axes
        chart.svg()  # draws
        first, last = axes.get_xlim()
        ticks = [tick for tick in axes.xaxis.get_major_ticks() if first <= tick.get_loc() <= last]
        assert [tick.label1.get_text() for tick in ticks] == expected
        assert all(tick.gridline.get_visible() for tick in ticks)
        assert axes.get_xlabel().endswith("(logarithmic)")


def test_a_zero_is_shown_on_an_axis_from_zero_although_a_logarithmic_one_was_asked_for(shown: list[Any]) -> None:
    charts.dots("T", "ms", {"a": 0.0, "b": 30.0}, log=True)
    assert shown[0].figure.axes[0].get_xscale() == "linear"


def test_a_recorded_value_is_grey_and_says_so_also_beside_one_measured_here(shown: list[Any]) -> None:
    charts.dots("T", "ms", {"Redis": 2.0}, recorded={"Redis": Repeats((3, 4)), "Kafka": 5.0})
    [axes] = shown[0].figure.axes
    assert labels(axes) == ["2", "3.5 (3 to 4), recorded", "5, recorded"]
    assert [line.get_color() == charts.GREY for line in axes.lines] == [False, True, True]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["Redis", "Kafka"]
    assert "Kafka: 5 ms, recorded" in shown[0].words


def test_grouped_dots_differ_by_marker_and_each_group_is_named(shown: list[Any]) -> None:
    charts.grouped("T", "ms", {"median": {"Redis": 0.2, "Kafka": 2.0}, "99th percentile": {"Redis": 1.0, "Kafka": 9.0}})
    figure = shown[0].figure
    assert len({line.get_marker() for line in figure.axes[0].lines}) == 2
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["median", "99th percentile"]
    assert "Kafka, 99th percentile: 9 ms" in shown[0].words


@pytest.mark.filterwarnings("error")  # "axes sizes collapsed to zero"
def test_no_label_is_cut_however_long(shown: list[Any]) -> None:
    name = "Redis Streams, appendonly yes, appendfsync everysec, and then some more of it"
    charts.dots("T", "messages", {name: Repeats((100_000, 200_000, 300_000)), "none": 1})
    charts.lines("T", "messages", "ms", {name: ([1, 2], [3, 4])})
    for chart in shown:
        drawn = BytesIO()
        chart.figure.savefig(drawn, format="png", bbox_inches="tight")
        drawn.seek(0)
        pixels = plt.imread(drawn)[..., :3]
        edges = [pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]
        assert all(edge.min() == 1.0 for edge in edges), "something is drawn up to the edge"


@pytest.mark.skipif(len(charts.fonts()) < 2, reason="no font with Hangul is installed")
def test_hangul_is_drawn(shown: list[Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "Glyph 54620 missing from font"
        charts.dots("T", "개", {"한국어로 된 아주 긴 이름": 1.0})
        shown[0].svg()


def test_a_chart_has_a_caption_and_its_words_and_no_figure_outside_the_marks(shown: list[Any]) -> None:
    charts.dots('Delay <of "all">', "ms", {"<Redis>": 0.25})
    html = shown[0]._repr_html_()
    caption = "<figcaption style='font-weight:bold'>Delay &lt;of &quot;all&quot;&gt;</figcaption>"
    outside = html.partition(FIGURES[0])[0] + html.partition(FIGURES[1])[2]
    assert outside == f"<figure style='margin:0'>{caption}</figure>"
    assert "alt='Delay &lt;of &quot;all&quot;&gt;. &lt;Redis&gt;: 0.25 ms'" in html
    assert repr(shown[0]) == 'Delay <of "all">'


FACTS = {
    "Redis <Streams>": {"delay": "0.21 ms", "a second": "12,345", "left": "200 of 200"},
    "Kafka": {"delay": "2.1 ms", "a second": "–", "left": "0 of 200", "note": "slow"},
}


def test_a_table_is_text_with_headers_that_a_screen_reader_can_read(shown: list[Any]) -> None:
    charts.table("Measured <here>", FACTS)
    html = shown[0]._repr_html_()
    assert "<caption style='caption-side:top;text-align:left;font-weight:bold'>Measured &lt;here&gt;</caption>" in html
    assert re.findall(r"<th scope='col'[^>]*>([^<]*)", html) == ["delay", "a second", "left", "note"]
    assert re.findall(r"<th scope='row'[^>]*>([^<]*)", html) == ["Redis &lt;Streams&gt;", "Kafka"]
    assert re.findall(r"<td style=[^>]*>([^<]*)", html) == [
        *("0.21 ms", "12,345", "200 of 200", "–"),
        *("2.1 ms", "–", "0 of 200", "slow"),
    ]


def test_only_columns_of_figures_are_aligned_on_the_right(shown: list[Any]) -> None:
    charts.table("T", FACTS)
    sides = re.findall(r"<th scope='col' style='text-align:(\w+)", shown[0]._repr_html_())
    assert sides == ["right", "right", "left", "left"]


def test_a_recorded_row_is_grey_and_says_so(shown: list[Any]) -> None:
    charts.table("T", FACTS, recorded=["Kafka"])
    html = shown[0]._repr_html_()
    assert re.findall(r"<th scope='row'[^>]*>([^<]*)", html)[1] == "Kafka, recorded"
    assert html.count(charts.GREY) == 1 + 4


def test_each_bar_has_its_value_beside_it(shown: list[Any]) -> None:
    charts.bars("T", "ms", {"polling": 50.0, "WebSocket": 0.5})
    assert labels(shown[0].axes[0]) == ["50", "0.5"]
    assert shown[0].axes[0].get_xlim()[0] == 0


def test_bars_on_a_logarithmic_axis_are_dots(shown: list[Any]) -> None:
    charts.bars("T", "ms", {"polling": 50.0, "WebSocket": 0.5}, log=True)
    assert not shown[0].figure.axes[0].patches
    assert labels(shown[0].figure.axes[0]) == ["50", "0.5"]


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
    assert [labels(axes) for axes in shown[0].axes] == [["100", "1"], ["300", "30"], ["4", "1"], ["1", "1"]]


def test_the_chart_of_waiting_bytes_marks_when_the_client_starts_reading(shown: list[Any]) -> None:
    flow = Flow(samples=((0.0, 0, 0), (0.5, 2**21, 2**20)), reads_at=0.4)
    charts.waiting({"waits": flow, "does not": flow})
    sent, kept = shown[0].axes
    assert list(sent.lines[0].get_ydata()) == [0, 2]
    assert list(kept.lines[0].get_ydata()) == [0, 1]
    assert kept.lines[-1].get_xdata()[0] == 0.4


def test_each_server_has_its_share_of_connections_and_deliveries(shown: list[Any]) -> None:
    charts.shares({"1 server": [Share(24, 240, 0.4)], "2 servers": [Share(12, 120, 0.2), Share(12, 120, 0.2)]})
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
    [axes] = shown[0].figure.axes
    assert (axes.get_xlim()[0], axes.get_ylim()[0]) == (0, 0)
    assert [line.get_label() for line in axes.lines] == ["1 server", "2 servers", "a server without members"]
    assert [list(line.get_ydata()) for line in axes.lines] == [[2.0, 4.0], [1.0, 2.0], [0.4, 0.4]]
    assert axes.collections[0].get_segments()[0][:, 1].tolist() == [1, 3]
    assert [line.get_linestyle() for line in axes.lines] == ["-", "-", "--"], "the lesson speaks of the dashed line"


def test_a_burst_is_drawn_twice_when_it_was_answered_and_when_it_was_done(shown: list[Any]) -> None:
    charts.bursts({"in line": Burst((0.1, 0.2), (0.1, 0.2)), "in a queue": Burst((0.0, 0.0), (0.1, 0.2))})
    answered, done = shown[0].axes
    assert [list(line.get_ydata()) for line in answered.lines] == [[100, 200], [0, 0]]
    assert [list(line.get_ydata()) for line in done.lines] == [[100, 200], [100, 200]]
    assert answered.get_ylim() == done.get_ylim()


def test_work_that_is_done_long_after_the_last_answer_is_inside_the_picture_of_a_burst(shown: list[Any]) -> None:
    charts.bursts({"in a queue": Burst((0.0, 0.0), (0.5, 1.0))})
    answered, done = shown[0].axes
    bottom, top = done.get_ylim()
    assert bottom == 0
    assert top >= 1000
    assert answered.get_ylim() == done.get_ylim()
