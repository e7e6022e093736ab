"""Draws: the same for a notebook each time, another for another, and any right answer passes."""

from random import Random

import pytest

from chatlab.lab.exercises.exercise import NotYet, exercises, find
from chatlab.lab.grading.draws import ARGUMENTS, DRAWN, draw


def test_a_notebooks_values_are_the_same_each_time_and_differ_from_anothers() -> None:
    for arguments in ARGUMENTS.values():
        assert [arguments(Random("nuri")) for __ in range(2)] == [arguments(Random("nuri"))] * 2
        assert [arguments(Random(f"nuri {each}")) for each in range(9)] != [
            arguments(Random(f"x {each}")) for each in range(9)
        ]


@pytest.mark.parametrize("id", sorted(DRAWN))
async def test_the_reference_solution_works_with_drawn_values(id: str) -> None:
    for seed in range(3):
        await draw(find(id), find(id).reference, Random(f"{seed} {id}"))


def test_the_exercises_without_drawn_values_are_those_that_the_workshop_page_lists() -> None:
    assert set(exercises()) - DRAWN == {"01.0", "06.0", "02.4", "04.3", "04.4", "04.5", "05.0", "07.5"}


async def test_a_constant_fails() -> None:
    with pytest.raises(NotYet, match="with any values"):
        await draw(find("03.1"), lambda name, text: "Server received from 가람: 안녕", Random(1))
