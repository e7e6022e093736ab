"""Right answers in another style than the solution's are right, too, and say what has been learned."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from chatlab.lab.exercises.exercise import check, exercises
from tests.lab.exercises.answers import RightAnswers
from tests.lab.exercises.test_exercise import WRONG, on_each_redis
from tests.lab.exercises.wrong_answers import lesson07

HERE = Path(__file__).parent / "right_answers"
LESSONS = sorted(path.stem for path in HERE.glob("lesson*.py"))
RIGHT: RightAnswers = {}
for lesson in LESSONS:
    RIGHT |= import_module(f"tests.lab.exercises.right_answers.{lesson}").RIGHT
CASES = [(id, answer) for id, answers in RIGHT.items() for answer in answers]
FIVE_TIMES = [
    lesson07.stores_in_three_steps,
    lesson07.remembers_in_its_own_memory,
    lesson07.goes_silent_when_redis_is_gone,
    lesson07.never_forgets_an_id,
]


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATLAB_HOME", str(tmp_path))


@pytest.mark.parametrize(("id", "answer", "each_redis"), on_each_redis(*CASES), indirect=["each_redis"])
@pytest.mark.usefixtures("each_redis")
async def test_a_right_answer_in_another_style_is_right_and_says_what_it_has_shown(id: str, answer: Any) -> None:
    outcome = await check(id, answer)
    assert outcome.mark == "right", outcome
    assert outcome.sentence == f"{exercises()[id].title}. {exercises()[id].learned}"
    assert repr(outcome).endswith(f"\n  ▸ {exercises()[id].leads_to}")


@pytest.mark.long
@pytest.mark.parametrize("answer", FIVE_TIMES, ids=lambda each: each.__name__)
async def test_five_checks_of_a_chat_that_loses_or_repeats_have_one_outcome(answer: Callable[..., Any]) -> None:
    outcomes = [await check("07.5", answer) for _ in range(5)]
    assert {outcome.mark for outcome in outcomes} == {"not yet"}
    assert len({outcome.sentence for outcome in outcomes}) == 1


@pytest.mark.parametrize("id", [id for id in exercises() if f"lesson{id[:2]}" in LESSONS])
def test_each_exercise_has_eight_wrong_answers_and_three_right_ones(id: str) -> None:
    assert len(WRONG[id]) >= 8
    assert len(RIGHT[id]) >= 3


@pytest.mark.parametrize("id", exercises())
def test_each_exercise_ends_with_a_sentence_that_says_why_and_a_question_that_leads_on(id: str) -> None:
    assert exercises()[id].learned.endswith(".")
    assert "?" in exercises()[id].leads_to
    assert exercises()[id].leads_to.endswith(("?", "."))
