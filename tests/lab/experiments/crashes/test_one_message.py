"""One message, stopped on its way between real processes, of which one is killed there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from chatlab.lab.engines.engine import Engine
from chatlab.lab.experiments.crashes.one_message import STOPS, Fate, Stepper, step

NOBODY = Fate(known=False, stored=0, shown=0)
ALL_BUT_THE_SENDER = Fate(known=False, stored=1, shown=1)
EVERYBODY = Fate(known=True, stored=1, shown=1)


@pytest_asyncio.fixture
async def stepper(fresh_valkey: Engine) -> AsyncIterator[Stepper]:
    async with await Stepper(fresh_valkey).start() as stepper:
        yield stepper


async def test_a_message_can_stop_at_three_places_and_each_leaves_others_behind(stepper: Stepper) -> None:
    assert await stepper.send("XADD") == NOBODY
    assert await stepper.let_go() == EVERYBODY
    assert await stepper.send("reply") == ALL_BUT_THE_SENDER
    assert await stepper.let_go() == EVERYBODY
    assert await stepper.send("RECEIPT") == ALL_BUT_THE_SENDER
    assert await stepper.let_go() == EVERYBODY
    with pytest.raises(ValueError, match="nothing is held"):
        await stepper.let_go()


@pytest.mark.long
async def test_a_message_whose_instance_is_killed_is_sent_again_and_only_a_new_id_stores_it_twice(
    stepper: Stepper,
) -> None:
    await stepper.send("XADD")
    assert await stepper.kill("instance") == NOBODY
    assert await stepper.send_again() == EVERYBODY
    await stepper.send("reply")
    assert await stepper.kill("instance") == ALL_BUT_THE_SENDER
    assert await stepper.send_again("same") == EVERYBODY
    await stepper.send("RECEIPT")
    assert await stepper.kill("instance") == ALL_BUT_THE_SENDER
    assert await stepper.send_again("new") == Fate(known=True, stored=2, shown=2)


async def test_when_redis_is_killed_the_instance_itself_asks_again(fresh_redis: Engine) -> None:
    async with await Stepper(fresh_redis).start() as stepper:
        for stop in STOPS:
            await stepper.send(stop)
            assert await stepper.kill("Redis") == EVERYBODY, stop


@pytest.mark.long
async def test_a_message_is_held_for_longer_than_an_ordinary_instance_waits_for_redis(stepper: Stepper) -> None:
    await stepper.send("reply")
    await asyncio.sleep(12)  # an ordinary instance gives up after 3 s, and reports that to the sender after 10
    assert await stepper.let_go() == EVERYBODY
    assert await stepper.fate() == EVERYBODY


async def test_one_call_tells_the_whole_story(fresh_valkey: Engine) -> None:
    steps = await step(fresh_valkey, "RECEIPT", kill="instance")
    assert steps.last == EVERYBODY
    assert len(steps.steps) == 3
    assert repr(steps).splitlines()[0].split("  ")[0] == "step"
    assert ">held at the RECEIPT</th>" in steps._repr_html_()


async def test_what_happened_is_told_in_words() -> None:
    assert NOBODY.words == ("does not know", "has it not", "has not seen it")
    assert Fate(known=True, stored=2, shown=3).words == ("knows that it is stored", "twice", "3 times")


async def test_without_a_message_there_is_nothing_to_kill(fresh_valkey: Engine) -> None:
    with pytest.raises(ValueError, match="send one first"):
        await Stepper(fresh_valkey).kill("instance")
