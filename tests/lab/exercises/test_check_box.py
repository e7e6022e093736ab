"""The box of a check: its buttons check the same answer again, and show the hints and the solution one by one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from chatlab.lab.exercises.check_box import CheckBox
from chatlab.lab.exercises.exercise import check, find, progress


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATLAB_HOME", str(tmp_path))


def line(name: str, text: str) -> str:
    return f"Server received from {name}:{text}" if name else f"Server received: {text}"


async def box_of(answer: object) -> CheckBox:
    return (await check("03.1", answer))._box()


def shown(box: CheckBox) -> list[str]:
    return [each.value for each in box.help.children]


async def test_hints_are_shown_one_below_the_other_up_to_the_last() -> None:
    box, hints = await box_of(line), find("03.1").hints
    assert shown(box) == []
    assert box.next_hint.disabled
    box.hint.click()
    for number in range(1, len(hints) + 1):
        assert len(shown(box)) == number
        assert f"Hint {number} of {len(hints)} for 03.1" in shown(box)[-1]
        assert box.next_hint.disabled == (number == len(hints))
        box.next_hint.click()
    box.hint.click()
    assert len(shown(box)) == len(hints)
    assert all("role='status'" in each for each in shown(box))


async def test_the_solution_is_shown_once_with_its_reason_below_the_hints() -> None:
    box = await box_of(line)
    box.hint.click()
    box.solution.click()
    box.solution.click()
    assert len(shown(box)) == 2
    assert "One solution of 03.1" in shown(box)[1]
    assert "def line(" in shown(box)[1]


async def test_the_check_runs_again_on_the_same_object() -> None:
    answers = [line, find("03.1").reference]

    def answer(name: str, text: str) -> object:
        return answers[0](name, text)

    box = await box_of(answer)
    assert "✘ <b>03.1 not yet</b>" in box.outcome.value
    answers.pop(0)
    box.check.click()
    await asyncio.sleep(0)
    assert box.check.disabled
    assert "Checking" in box.outcome.value
    await box.idle()
    assert "✔ <b>03.1 right</b>" in box.outcome.value
    assert "Checked what you ran last." in box.outcome.value
    assert not box.check.disabled
    assert progress().marks["03.1"] == "right"


async def test_a_check_that_fails_itself_is_shown_and_the_button_stays() -> None:
    async def again() -> str:
        raise OSError("no <port>")

    box = CheckBox("03.1", "", again, ["a hint"], "")
    box.check.click()
    await box.idle()
    assert "The check itself failed: no &lt;port&gt;" in box.outcome.value
    assert not box.check.disabled


async def test_an_outcome_is_a_box_with_its_still_form_beside_it() -> None:
    outcome = await check("03.1", line)
    bundle = outcome._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert (bundle["text/html"], bundle["text/plain"]) == (outcome._repr_html_(), repr(outcome))


async def test_without_a_kernel_hints_and_solution_are_in_folds() -> None:
    html = (await check("03.1", ...))._repr_html_()
    hints = len(find("03.1").hints)
    assert html.count("<details>") == hints + 1
    assert f"<summary>Hint 1 of {hints} for 03.1</summary>" in html
    assert "<summary>One solution of 03.1</summary>" in html


async def test_an_answer_that_differs_in_bytes_or_text_is_shown_beside_the_expected_value() -> None:
    outcome = await check("01.1", lambda key: "s3pPLMBiTxaQ9kYGzzhZRbK+x0o=")
    assert "they differ from character 26 on: yours 0, expected O" in outcome._repr_html_()
