"""The bar shows the current work; what a stored notebook keeps of it is the same in every run."""

from __future__ import annotations

import pytest

from chatlab.lab.progress import Progress


async def test_the_bar_shows_the_current_work_and_counts_finished_steps() -> None:
    with Progress("trying", 2) as step:
        step("Redis")
        assert "trying: <b>Redis</b>" in step._line.value
        assert step._bar.value == 0
        step("Kafka")
        assert "<b>Kafka</b>" in step._line.value
        assert step._bar.value == 1
    assert step._bar.value == 2
    assert "<b>done</b>" in step._line.value


async def test_the_bar_shows_work_done_in_parallel() -> None:
    with Progress("starting", 2) as progress:
        progress.begin("redis")
        progress.begin("kafka")
        assert "<b>redis, kafka</b>" in progress._line.value
        progress.done("redis")
        assert "<b>kafka</b>" in progress._line.value
        progress.done("kafka")


async def test_work_that_failed_is_not_shown_as_done() -> None:
    with pytest.raises(OSError), Progress("starting", 1) as progress:
        progress("kafka")
        raise OSError
    assert "<b>kafka</b>" in progress._line.value
    assert progress._bar.value == 0


async def test_the_plain_text_is_the_same_in_every_run() -> None:
    with Progress("starting", 1) as progress:
        before = repr(progress)
        progress("redis")
        assert repr(progress) == before == "⏳ starting (the bar moves while this runs)"
        assert progress._repr_mimebundle_()["text/plain"] == before
