"""The check of 07.5: a broken rule comes with the story of the fault that broke it."""

import pytest

from chatlab.lab.exercises.exercise import NotYet
from chatlab.lab.exercises.support.handler_check import check_handler
from tests.lab.exercises.wrong_answers.lesson07 import stores_in_three_steps


async def test_the_evidence_names_the_fault_and_its_steps_in_order() -> None:
    with pytest.raises(NotYet, match="nothing is stored twice") as refused:
        await check_handler(stores_in_three_steps)
    story = str(refused.value.evidence).splitlines()
    assert story[0] == "the fault: after the XADD, before its reply"
    assert "Redis has executed GET, XADD; the last reply is lost" in story[2]
    assert story[-1] == "4. the stream has 'lost reply 2' 2 times"
