"""A verdict's card runs its experiment again, and says so when that fails."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from chatlab.lab.card import Card
from chatlab.lab.claims import Figure, Verdict, report, verdict


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATLAB_HOME", str(tmp_path))


class Experiment:
    """An experiment whose figure is larger in each run, until it fails."""

    def __init__(self) -> None:
        self.values = iter([0.1, 99.0])
        self.may_end = asyncio.Event()

    async def run(self) -> Verdict:
        await self.may_end.wait()
        value = next(self.values, None)
        if value is None:
            raise ConnectionError("the server at <home>\nis gone")
        return self.judge(value)

    def judge(self, value: float) -> Verdict:
        figure = Figure("delay", value, 50, "ms")
        return verdict("C4", holds=value < 50, measured="", figure=figure, again=self.run)


async def test_the_button_runs_the_experiment_again_and_replaces_the_card() -> None:
    experiment = Experiment()
    card = Card("C4", experiment.judge(0.0), experiment.run)
    card.button.click()
    await asyncio.sleep(0)
    assert card.button.disabled
    assert "role='status'" in card._status.value
    assert "is running" in card._status.value
    experiment.may_end.set()
    await card.idle()
    assert not card.button.disabled
    assert "delay: 0.1 ms" in card._card.value

    card.button.click()
    await card.idle()
    assert "✘ <b>C4 does not hold</b>" in card._card.value
    assert "49 ms above it" in card._card.value
    assert not report("02").verdicts["C4"].outcome.startswith("holds")


async def test_an_experiment_that_fails_leaves_the_card_with_one_sentence_below_it() -> None:
    experiment = Experiment()
    experiment.values = iter([])
    experiment.may_end.set()
    card = Card("C4", experiment.judge(0.0), experiment.run)
    before = card._card.value
    card.button.click()
    await card.idle()
    assert card._card.value == before
    assert "The experiment stopped early: the server at &lt;home&gt; is gone</span>" in card._status.value
    assert "role='alert'" in card._status.value
    assert not card.button.disabled


async def test_a_verdict_that_can_run_again_is_a_widget_with_its_still_form_beside_it() -> None:
    found = Experiment().judge(0.1)
    bundle = found._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert (bundle["text/html"], bundle["text/plain"]) == (found._repr_html_(), repr(found))
