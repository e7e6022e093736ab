"""The curve is computed from real runs, passes near them, and never comes near the ways that need no polling."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from chatlab.lab.experiments.lesson02 import EVENTS, LONG_POLLING, POLLING, WEBSOCKET
from chatlab.lab.pictures import poll_curve
from chatlab.lab.pictures.poll_curve import FIRST_RUNS, INTERVALS, Curve, PollCurve
from chatlab.lab.runtime import lab
from chatlab.lab.until import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def picture() -> AsyncIterator[PollCurve]:
    """Measure once for all tests: it takes seconds."""
    curve = await lab.start("curve", poll_curve())
    yield curve
    await lab.stop("curve")


async def test_the_start_measures_three_intervals_and_the_other_ways(picture: PollCurve) -> None:
    intervals = {point.interval for point in picture.points if point.name == POLLING}
    assert {round(each * 1000) for each in FIRST_RUNS} <= intervals
    assert {point.name for point in picture.points} == {POLLING, LONG_POLLING, EVENTS, WEBSOCKET}


async def test_the_curve_passes_near_what_was_measured(picture: PollCurve) -> None:
    curve = Curve(picture.points)
    for point in picture.points:
        if point.interval is not None:
            computed = curve.at(point.interval)
            assert computed.size == pytest.approx(point.size, rel=0.5)
            assert computed.delay == pytest.approx(point.delay, rel=0.6, abs=15)


async def test_no_interval_is_as_good_as_websocket_in_both_respects(picture: PollCurve) -> None:
    curve = Curve(picture.points)
    websocket = next(point for point in picture.points if point.name == WEBSOCKET)
    for interval in INTERVALS:
        computed = curve.at(interval)
        assert computed.delay > 2 * websocket.delay
        assert computed.size > websocket.size or computed.delay > 100 * websocket.delay


async def test_where_the_handle_is_let_go_that_interval_is_measured(picture: PollCurve) -> None:
    before = len(picture.points)
    at = INTERVALS.index(100)

    picture.received({"do": "measure", "at": at})

    assert picture.state["status"] == "Measuring at 100 ms …"
    await until(lambda: not picture.state["measuring"], timeout=30)
    polled = next(point for point in picture.points[before:] if point.name == POLLING)
    assert polled.interval == 100
    assert 10 < polled.delay < 150
    assert picture.state["status"].startswith("Measured at 100 ms: polling is ")
    assert [row[0] for row in picture.state["rows"] if "100" in row[0].split()] == ["polling every 100 ms"]


async def test_a_place_asked_for_during_a_run_is_measured_next(picture: PollCurve) -> None:
    before = len(picture.points)

    for at in (0, 3, 1):  # the second is overtaken by the third
        picture.received({"do": "measure", "at": at})

    await until(lambda: not picture.state["measuring"], timeout=30)
    measured = [point.interval for point in picture.points[before:] if point.name == POLLING]
    assert measured[-1] == INTERVALS[1]
    assert INTERVALS[3] not in measured


async def test_without_a_kernel_it_shows_a_recorded_run(picture: PollCurve) -> None:
    assert picture.plain().splitlines()[:2] == [
        "Late or costly: the poll interval (a recorded run)",
        "  polling every 20 ms: 15.4 ms, 1,494 bytes",
    ]
    assert 'alt="Late or costly: the poll interval; in words below"' in picture.still()


@pytest.mark.long
async def test_closing_ends_a_run_that_is_under_way() -> None:
    curve = PollCurve()
    await curve.measure(FIRST_RUNS[0])
    await curve.measure(FIRST_RUNS[1])
    curve.received({"do": "measure", "at": 0})

    await curve.aclose()

    assert len(curve._tasks) == 0
    assert curve.closed
