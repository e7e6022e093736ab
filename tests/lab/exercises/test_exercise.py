"""Exercises: the stub is not tried, the reference is right, each plausible wrong answer breaks the rule it should."""

import asyncio
import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from chatlab.lab.exercises.exercise import Exercise, check, exercises, find, hint, is_stub, progress, solution
from tests.support import redis_servers

HERE = Path(__file__).parent
LESSONS = sorted(path.stem for path in (HERE / "wrong_answers").glob("lesson*.py"))
WRONG: dict[str, list[tuple[Callable[..., Any], str]]] = {}
for lesson in LESSONS:
    WRONG |= import_module(f"tests.lab.exercises.wrong_answers.{lesson}").WRONG
CASES = [(id, answer, sentence) for id, answers in WRONG.items() for answer, sentence in answers]
FIRST_ANSWERS = [answers[0][0] for answers in WRONG.values()]


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHATLAB_HOME", str(tmp_path))
    return tmp_path


async def stub(*_: object) -> None: ...


def plain_stub(*_: object) -> None:
    """Still a stub: a docstring does not count."""


@pytest.mark.parametrize("id", exercises())
async def test_the_stub_is_not_tried(id: str) -> None:
    for answer in (stub, plain_stub, ...):
        assert (await check(id, answer)).mark == "not tried"


def on_each_redis(*cases: tuple[Any, ...]) -> list[Any]:
    """Repeat the cases of lessons whose checks use a Redis for each server there is; take the others once.

    Of the answers to an exercise only the first is tried on each server: they differ in Python, not in what Redis does.
    """
    return [
        pytest.param(
            id,
            *rest,
            server,
            id="-".join(filter(None, [id, *map(name_of, rest[:1]), server])),
            marks=[pytest.mark.long] if takes_long(server, *rest[:1]) else [],
        )
        for id, *rest in cases
        for server in (redis_servers.NAMES if id[:2] in ("04", "05", "07") else [None])
        if server in (None, *redis_servers.SHORT_RUN) or not rest or rest[0] in FIRST_ANSWERS
    ]


def takes_long(server: str | None, answer: object = None) -> bool:
    """Whether a case is long: `make test` uses the wheel's Valkey only, with one wrong answer for each exercise."""
    if server is None:
        return name_of(answer) == "waits_for_ever"
    return server not in redis_servers.SHORT_RUN or (answer is not None and answer not in FIRST_ANSWERS)


def name_of(answer: object) -> str:
    return getattr(answer, "__name__", "")


@pytest.mark.parametrize(("id", "each_redis"), on_each_redis(*zip(exercises())), indirect=["each_redis"])
@pytest.mark.usefixtures("each_redis")
async def test_the_reference_solution_is_right(id: str) -> None:
    outcome = await check(id, find(id).reference)
    assert outcome.mark == "right", outcome


@pytest.mark.parametrize(("id", "answer", "sentence", "each_redis"), on_each_redis(*CASES), indirect=["each_redis"])
@pytest.mark.usefixtures("each_redis")
async def test_a_wrong_answer_breaks_the_rule_it_should(id: str, answer: Callable[..., Any], sentence: str) -> None:
    outcome = await check(id, answer)
    assert outcome.mark == "not yet"
    assert sentence in f"{outcome.sentence}\n{outcome.evidence}"


@pytest.mark.parametrize("id", exercises())
def test_each_exercise_has_three_wrong_answers_two_hints_a_solution_and_its_reasons(id: str) -> None:
    exercise = find(id)
    assert len(WRONG.get(id, [])) >= 3
    assert len(exercise.hints) >= 2
    assert "of " in hint(id).title
    assert hint(id, 99).text == exercise.hints[-1]
    assert exercise.code in repr(solution(id))
    assert exercise.why


async def test_the_solution_of_an_exercise_on_a_value_is_right_when_it_is_pasted() -> None:
    pasted: dict[str, Any] = {}
    exec(find("01.0").code, pasted)
    assert (await check("01.0", pasted["question"])).mark == "right"


def test_each_lesson_has_at_least_four_exercises() -> None:
    lessons = [exercise.lesson for exercise in exercises().values()]
    assert all(lessons.count(lesson) >= 4 for lesson in lessons)
    assert sorted(set(lessons)) == ["01", "02", "03", "04", "05", "06", "07"]


async def test_a_needless_async_def_is_refused_with_a_hint_at_def() -> None:
    async def answer(name: str, text: str) -> str:
        return f"Server received from {name}: {text}"

    outcome = await check("03.1", answer)
    assert (outcome.mark, outcome.sentence) == ("not yet", "an ordinary `def` will do: nothing in it waits")


async def test_an_error_in_the_learners_code_is_shown_with_its_message_and_the_rule_it_broke() -> None:
    def answer(name: Any, text: str) -> object:
        return name + 1

    outcome = await check("03.1", answer)
    assert (outcome.mark, outcome.sentence) == ("not yet", "without a name, the line has the article's form")
    assert "your code raised TypeError: can only concatenate str" in outcome.evidence


async def test_an_error_that_led_to_a_broken_rule_is_shown_with_the_rule() -> None:
    def answer(heard: bytes) -> int:
        return heard[99]

    outcome = await check("01.4", answer)
    assert outcome.sentence.startswith("the two bytes after the length of a Close")
    assert "heard: 81 05" in outcome.evidence
    assert "your code raised IndexError: index out of range" in outcome.evidence


async def test_an_answer_that_never_ends_is_cancelled_at_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatlab.lab.exercises.exercise.SECONDS", 0.1)

    async def answer(session: object, sessions: set[object]) -> None:
        await asyncio.Event().wait()

    outcome = await check("03.2", answer)
    assert "did not finish" in outcome.sentence


async def test_an_exercise_that_was_right_once_stays_right() -> None:
    await check("03.1", find("03.1").reference)
    await check("03.1", stub)
    await check("03.1", lambda name, text: "")
    assert progress().marks["03.1"] == "right"
    assert progress().of("03")[0] == 1


async def test_progress_is_kept_in_a_file_and_a_truncated_file_counts_as_not_tried(own_home: Path) -> None:
    await check("03.1", lambda name, text: "")
    assert progress().marks["03.1"] == "not yet"
    (own_home / "progress" / "03.1.json").write_text("{")
    assert progress().marks["03.1"] == "not tried"


def test_text_in_backticks_and_lines_indented_by_four_spaces_are_shown_as_code() -> None:
    assert "<code>bytes([a, b])</code>" in hint("02.2", 2)._repr_html_()
    assert "\n<code>    async for message in consumer:</code>\n<code>        if" in hint("04.4", 3)._repr_html_()
    assert "`bytes([a, b])`" in repr(hint("02.2", 2))


def test_an_unknown_exercise_is_answered_with_the_exercises_of_its_lesson() -> None:
    with pytest.raises(KeyError, match=r"03\.9.*03\.1, 03\.2"):
        find("03.9")


class PartlyWritten:
    def first(self) -> None: ...

    def second(self) -> int:
        return 2


class Untouched:
    def __init__(self, given: object) -> None: ...

    async def first(self) -> None: ...


def test_a_stub_has_an_empty_body_and_a_stub_class_has_only_such_methods() -> None:
    assert is_stub(Untouched)
    assert not is_stub(PartlyWritten)
    assert is_stub(stub)
    assert is_stub(plain_stub)
    assert not is_stub(lambda: 1)
    assert not is_stub(lambda x: x)
    assert not is_stub(len)
    assert not is_stub("text")


def test_the_code_of_a_solution_has_no_annotations_because_the_notebook_has_not_imported_their_names() -> None:
    async def solve(session: "Any", *others: dict[str, int], mark: str = ":", deep: "Any" = None) -> list[str]:
        """With : and -> in it."""

        def inner(x: int) -> int:  # type: ignore[unused-ignore]  # for mypy, not for the learner
            return x

        return [mark, str(inner(1))]

    exercise = Exercise("00.1", "", lambda answer: None, (), solve, "")
    assert exercise.code.splitlines()[0] == 'async def solve(session, *others, mark=":", deep=None):'
    assert "        def inner(x):" not in exercise.code
    assert "    def inner(x):" in exercise.code.splitlines()
    assert '"""With : and -> in it."""' in exercise.code


async def test_progress_is_printed_as_json_for_programs() -> None:
    await check("03.1", find("03.1").reference)
    done = json.loads(progress().as_json())
    assert (done["exercises"]["03.1"], done["exercises"]["03.2"]) == ("right", "not tried")
    assert done["lessons"]["03"] == {"right": 1, "of": 4}
