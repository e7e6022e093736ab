"""A closed tap freezes the article's room; a room that does not wait keeps everything, or closes the member."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from chatlab.lab.pictures import tank_rooms
from chatlab.lab.pictures.tank_rooms import LIMIT, TEXTS, Side, TankRooms, Tap
from chatlab.lab.runtime import lab
from chatlab.lab.until import until

ALL_READ = "Everybody who reads has everything."


@pytest.fixture
async def rooms() -> AsyncIterator[TankRooms]:
    picture = await tank_rooms()
    yield picture
    await picture.aclose()


def sides(picture: TankRooms) -> tuple[Side, Side]:
    assert picture.left is not None
    assert picture.right is not None
    return picture.left, picture.right


def status(picture: TankRooms, side: int) -> str:
    return str(picture.state["rooms"][side]["status"])


async def shown(picture: TankRooms, condition: Callable[[dict[str, Any], dict[str, Any]], bool]) -> None:
    """Wait until the state of the left and of the right room fulfils a condition."""
    await until(lambda: condition(*picture.state["rooms"]), timeout=20)


async def test_with_open_taps_both_rooms_deliver_everything(rooms: TankRooms) -> None:
    rooms.burst()
    await until(lambda: all(side.reached() == TEXTS for side in sides(rooms)), timeout=20)
    await shown(rooms, lambda left, right: left["status"] == right["status"] == ALL_READ)


async def test_a_closed_tap_freezes_the_loop_that_awaits_and_costs_the_member_its_place_in_the_other(
    rooms: TankRooms,
) -> None:
    rooms.turn("Nuri", Tap.CLOSED)
    rooms.burst()

    await shown(rooms, lambda left, right: left["status"] == "Frozen: the loop waits for Nuri.")
    await shown(rooms, lambda left, right: right["status"] == f"Nuri was closed: 1008 slow reader. {ALL_READ}")
    left, right = sides(rooms)
    assert left.reached() < right.reached() == TEXTS
    assert rooms.state["rooms"][1]["tanks"][1]["ended"] == "1008 slow reader"


async def test_opening_the_tap_again_frees_the_frozen_room(rooms: TankRooms) -> None:
    rooms.turn("Nuri", Tap.CLOSED)
    rooms.burst()
    await shown(rooms, lambda left, right: "Frozen" in left["status"])

    rooms.turn("Nuri", Tap.FULL)
    await shown(rooms, lambda left, right: left["status"] == ALL_READ)
    assert sides(rooms)[0].reached() == TEXTS


async def test_after_the_write_timeout_the_sender_is_closed_as_well() -> None:
    rooms = TankRooms(write_timeout=0.5)
    await rooms.start()
    try:
        rooms.turn("하늘", Tap.CLOSED)
        rooms.burst()
        await shown(rooms, lambda left, right: left["status"].startswith("The sender was closed (1011"))
        assert rooms.state["rooms"][0]["tanks"][2]["ended"] == "no longer in the room"
    finally:
        await rooms.aclose()


async def test_without_await_nobody_waits_and_the_tank_has_no_limit(rooms: TankRooms) -> None:
    rooms.received({"do": "wait", "waits": False})
    await until(lambda: not rooms.state["waits"], timeout=5)
    rooms.turn("Nuri", Tap.CLOSED)
    rooms.burst()

    await until(lambda: sides(rooms)[0].reached() == TEXTS, timeout=20)
    await shown(rooms, lambda left, right: left["tanks"][1]["waiting"] > LIMIT)
    await shown(rooms, lambda left, right: left["status"].endswith("Nuri's tank goes on filling: it has no limit."))
    assert not rooms.state["rooms"][0]["tanks"][1]["ended"]


async def test_a_slow_tap_slows_down_everybody_only_where_the_loop_awaits(rooms: TankRooms) -> None:
    rooms.turn("가람", Tap.SLOW)
    rooms.burst()
    left, right = sides(rooms)

    await until(lambda: right.reached() == TEXTS, timeout=20)
    assert left.reached() < TEXTS
    await until(lambda: left.reached() == TEXTS, timeout=20)


async def test_starting_over_brings_everybody_back_with_open_taps(rooms: TankRooms) -> None:
    rooms.turn("Nuri", Tap.CLOSED)
    rooms.burst()
    await shown(rooms, lambda left, right: "1008" in right["status"])

    await rooms.start_over()

    assert set(rooms.state["taps"].values()) == {"full"}
    assert [len(side.waiting()) for side in sides(rooms)] == [4, 4]
    assert [status(rooms, side) for side in (0, 1)] == ["", ""]


async def test_it_can_be_started_twice_and_the_first_one_ends() -> None:
    first = await lab.start("tanks", tank_rooms())
    left, right = sides(first)
    second = await lab.start("tanks", tank_rooms())

    assert first.closed
    assert all(member.connection.transport.is_closing() for side in (left, right) for member in side.members.values())
    assert len(first._tasks) == 0
    assert not second.closed
    await lab.stop("tanks")


async def test_without_a_kernel_it_is_the_same_in_every_run(rooms: TankRooms) -> None:
    before = rooms.still(), rooms.plain()
    rooms.burst()
    await shown(rooms, lambda left, right: bool(left["status"]))
    assert (rooms.still(), rooms.plain()) == before
    assert before[1].splitlines()[1] == (
        "  The article's room awaits each send: 13 of 32 texts have reached everybody who reads; 32,957 bytes wait for "
        "Nuri. One closed tap stops the loop: nobody receives anything until that member's write times out."
    )
