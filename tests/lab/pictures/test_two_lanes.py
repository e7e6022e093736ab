"""On WebSocket a text goes out while an echo comes back; on HTTP it waits until the answer before it is back."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest

from chatlab.lab.pictures import two_lanes
from chatlab.lab.pictures.two_lanes import HTTP, KEPT, WEBSOCKET, Journey, TwoLanes, meeting
from chatlab.lab.runtime import lab
from chatlab.lab.until import until

DELAY = 200  # ms


@pytest.fixture
async def lanes() -> AsyncIterator[TwoLanes]:
    picture = await two_lanes()
    picture.received({"do": "delay", "delay": DELAY})
    yield picture
    await picture.aclose()


async def all_back(lanes: TwoLanes, count: int) -> dict[str, list[Journey]]:
    """Wait until `count` texts are back on both lanes; return the journeys of each."""
    await until(
        lambda: len(lanes.journeys) >= 2 * count and all(each.back is not None for each in lanes.journeys), timeout=20
    )
    return {lane: [each for each in lanes.journeys if each.lane == lane] for lane in (HTTP, WEBSOCKET)}


def ms(begin: float | None, end: float | None) -> float:
    assert begin is not None
    assert end is not None
    return (end - begin) * 1000


@pytest.mark.parametrize("lane", [HTTP, WEBSOCKET])
async def test_a_text_takes_the_delay_each_way(lanes: TwoLanes, lane: str) -> None:
    lanes.send("안녕")
    (journey,) = (await all_back(lanes, 1))[lane]
    assert journey.text == "안녕"
    assert DELAY - 5 <= ms(journey.left, journey.reached) < DELAY + 300
    assert DELAY - 5 <= ms(journey.answered, journey.back) < DELAY + 300


async def test_on_websocket_a_text_is_on_its_way_out_while_an_echo_is_on_its_way_back(lanes: TwoLanes) -> None:
    await lanes.send_three()
    journeys = await all_back(lanes, 3)

    met = meeting(journeys[WEBSOCKET])
    assert met is not None
    assert met[2] > 0.02
    assert meeting(journeys[HTTP]) is None


async def test_on_http_a_text_leaves_when_the_answer_before_it_is_back(lanes: TwoLanes) -> None:
    await lanes.send_three()
    journeys = await all_back(lanes, 3)

    first, second, third = journeys[HTTP]
    assert ms(first.back, second.left) >= 0
    assert ms(second.back, third.left) >= 0
    assert ms(third.typed, third.left) > DELAY
    assert all(ms(each.typed, each.left) < DELAY for each in journeys[WEBSOCKET])


async def test_the_result_is_said_once_everything_is_back(lanes: TwoLanes) -> None:
    await lanes.send_three()
    assert lanes.state["status"] == ""
    await all_back(lanes, 3)
    await until(lambda: bool(lanes.state["status"]), timeout=5)
    assert re.fullmatch(
        r"WebSocket: for \d+ ms, text [23] was on its way out while the echo of [12] was on its way back\. "
        r"HTTP: text 3 waited \d+ ms until the answer before it was back\.",
        lanes.state["status"],
    )


async def test_a_text_sent_alone_meets_nothing(lanes: TwoLanes) -> None:
    lanes.send("혼자")
    await all_back(lanes, 1)
    await until(lambda: bool(lanes.state["status"]), timeout=5)
    assert lanes.state["status"].startswith("WebSocket: no text was on its way out")


@pytest.mark.parametrize("text", ["", "   ", "x" * 41])
async def test_a_text_that_cannot_be_shown_is_refused_with_a_sentence(lanes: TwoLanes, text: str) -> None:
    lanes._handle({"do": "send", "text": text})
    lanes._draw()  # as it does all the time
    assert lanes.state["status"] == "A text has 1 to 40 letters."
    assert lanes.journeys == []


async def test_the_picture_keeps_the_latest_texts_and_can_be_cleared(lanes: TwoLanes) -> None:
    lanes.received({"do": "delay", "delay": 0})
    for number in range(KEPT + 2):
        lanes.send(str(number))
    journeys = await all_back(lanes, KEPT)
    assert [each.text for each in journeys[HTTP]] == [str(n) for n in range(2, KEPT + 2)]

    lanes.received({"do": "clear"})

    assert lanes.state["journeys"] == []


async def test_it_can_be_started_twice_and_the_first_one_ends() -> None:
    first = await lab.start("lanes", two_lanes())
    second = await lab.start("lanes", two_lanes())

    assert first.closed
    assert len(first._tasks) == 0
    assert not any(wire.connections for wire in first.wires.values())
    assert not second.closed
    await lab.stop("lanes")


async def test_without_a_kernel_it_is_the_same_in_every_run(lanes: TwoLanes) -> None:
    before = lanes.still(), lanes.plain()
    lanes.send("안녕")
    await all_back(lanes, 1)
    assert (lanes.still(), lanes.plain()) == before
    assert before[1].splitlines()[-1] == (
        "WebSocket: for 700 ms, text 2 was on its way out while the echo of 1 was on its way back. "
        "HTTP: text 3 waited 2,600 ms until the answer before it was back."
    )
