"""The ledger: verdicts are computed from what was measured, and stored."""

import json
from pathlib import Path

import pytest

from chatlab.lab.claims import CLAIMS, FIGURES, Figure, Outcome, Verdict, report, verdict


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHATLAB_HOME", str(tmp_path))
    return tmp_path


def test_the_ledger_has_every_claim_and_fault_of_the_article() -> None:
    assert set(CLAIMS) == {f"C{n}" for n in range(1, 43)} | {f"F{n}" for n in range(1, 20)}


def test_a_claim_that_held_holds() -> None:
    assert str(verdict("C2", holds=True, measured="0.3 ms")) == (
        "✔ C2 holds: over WebSocket the server can speak first, at any time"
    )


def test_a_claim_that_holds_under_a_condition_names_the_condition() -> None:
    found = verdict("C17", holds=True, when="every member reads", measured="p99 0.9 ms")
    assert str(found) == "◐ C17 holds, when every member reads: for basic chat this is enough"


def test_a_claim_that_failed_names_the_cause() -> None:
    found = verdict("C33", holds=False, because="three were lost", measured="3 of 100")
    assert str(found).startswith("✘ C33 does not hold because three were lost: ")
    assert str(verdict("C33", holds=False, measured="")).startswith("✘ C33 does not hold: ")


def test_a_fault_happens_is_fixed_or_does_not_happen() -> None:
    assert verdict("F8", holds=True, measured="").outcome is Outcome.HAPPENS
    assert verdict("F8", holds=True, fixed=True, measured="").outcome is Outcome.FIXED
    assert verdict("F8", holds=False, measured="").outcome is Outcome.DOES_NOT_HAPPEN


def test_a_verdict_on_a_fault_names_its_condition_and_whether_it_is_fixed() -> None:
    assert str(verdict("F3", holds=True, measured="")).startswith("✘ F3 happens: nobody creates the group")
    assert str(verdict("F3", holds=True, fixed=True, measured="")).startswith("✔ F3 happens, fixed: nobody")
    assert str(verdict("F3", holds=True, when="Redis is new", measured="")).startswith(
        "✘ F3 happens, when Redis is new: nobody"
    )


def test_a_claim_that_the_article_does_not_make_raises_key_error() -> None:
    with pytest.raises(KeyError):
        verdict("C43", holds=True, measured="")


def test_figures_are_stored_in_the_ledger_and_not_shown_in_the_text() -> None:
    verdict("C4", holds=True, measured="0.41 ms against 51.2 ms")
    kept = report("02").verdicts["C4"]
    assert kept.measured == "0.41 ms against 51.2 ms"
    assert "0.41" not in repr(report("02"))
    assert "C3 not tried here yet" in repr(report("02"))


def test_markup_in_a_verdict_is_escaped() -> None:
    found = verdict("C17", holds=True, when="<script>", measured="")
    assert "&lt;script&gt;" in found._repr_html_()
    assert "&lt;script&gt;" in report("03")._repr_html_()


@pytest.mark.parametrize("content", ['{"claim":', '{"claim": "C2"}', '{"claim": "C2", "outcome": "unknown"}'])
def test_a_broken_entry_is_set_aside_not_lost(own_home: Path, content: str) -> None:
    verdict("C1", holds=True, measured="")
    (own_home / "claims" / "C2.json").write_text(content)
    assert set(report().verdicts) == {"C1"}
    assert (own_home / "claims" / "C2.broken").read_text() == content


def test_a_stored_verdict_is_read_back_unchanged() -> None:
    verdicts = [
        verdict("C17", holds=True, when="every member reads", measured="p99 0.9 ms"),
        verdict("F8", holds=True, fixed=True, measured="8 of 8"),
    ]
    assert [report("03").verdicts[found.claim] for found in verdicts] == verdicts


# Not tested here.


def test_a_claim_that_could_not_be_tested_is_neither_held_nor_refuted() -> None:
    found = verdict("C27", holds=None, because="Kafka is not installed", measured="")
    assert str(found).startswith("◇ C27 not tested here because Kafka is not installed: large systems")
    assert report("05").verdicts["C27"].outcome is Outcome.NOT_TESTED
    assert str(verdict("F7", holds=None, measured="")).startswith("◇ F7 not tested here: ")


def test_not_tested_does_not_replace_an_earlier_verdict_but_is_replaced_by_a_later_one() -> None:
    verdict("C27", holds=None, measured="")
    real = verdict("C27", holds=False, because="it was slow", measured="1/s")
    assert verdict("C27", holds=None, measured="").outcome is Outcome.NOT_TESTED
    assert report("05").verdicts["C27"] == real


# Recorded elsewhere.

WHERE = "2026-11-27, 4 cores, Linux"


def test_a_recorded_verdict_says_so_in_its_text_and_where_it_was_recorded_on_its_card() -> None:
    found = verdict("C26", holds=True, measured="3,015/s", recorded=WHERE)
    assert str(found).startswith("✔ C26 holds (recorded): ")
    assert f"recorded, not measured here: {WHERE}" in found._repr_html_()
    assert WHERE in report("05")._repr_html_()
    assert report("05").verdicts["C26"] == found


def test_a_recorded_verdict_does_not_replace_one_measured_here_but_is_replaced_by_it() -> None:
    verdict("C26", holds=False, measured="", recorded=WHERE)
    real = verdict("C26", holds=True, measured="1/s")
    verdict("C26", holds=False, measured="", recorded=WHERE)
    assert report("05").verdicts["C26"] == real


# The spread over repeats.


@pytest.mark.parametrize(("low", "high", "close"), [(0.3, 0.5, True), (0.41, 0.5, False), (0.3, 0.4, False)])
@pytest.mark.parametrize("holds", [True, False])
def test_repeats_on_both_sides_of_the_threshold_are_too_close_to_call(
    low: float, high: float, close: bool, holds: bool
) -> None:
    found = verdict("C26", holds=holds, measured="", figure=Figure("share", 0.42, 0.4, low=low, high=high))
    assert (found.outcome is Outcome.TOO_CLOSE) is close
    assert str(found).startswith("≈ C26 too close to call because the repeats lie on both sides") is close


def test_a_spread_does_not_turn_what_was_not_tested_into_a_close_call() -> None:
    figure = Figure("share", 0.42, 0.4, low=0.3, high=0.5)
    assert verdict("C26", holds=None, measured="", figure=figure).outcome is Outcome.NOT_TESTED


def test_a_figure_shows_its_spread_and_is_read_back_with_it() -> None:
    figure = Figure("share", 0.42, 0.4, low=0.3, high=0.5)
    assert str(figure) == "share: 0.42 (repeats: 0.3 to 0.5); the claim needs at least 0.4: 0.02 above it"
    verdict("C26", holds=True, measured="", figure=figure)
    assert report("05").verdicts["C26"].figure == figure


# The figure and the card.


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        (Figure("delay", 0.41, 50, "ms"), "delay: 0.41 ms; the claim needs at least 50 ms: 49.6 ms below it"),
        (Figure("rate", 52184, 1000, "/s"), "rate: 52,184 /s; the claim needs at least 1,000 /s: 51,184 /s above it"),
        (Figure("lost", 0, 0), "lost: 0; the claim needs at least 0: exactly at it"),
        (Figure("share", 43, 50, "%"), "share: 43 %; the claim needs at least 50 %: 7 percentage points below it"),
        (Figure("share", 0.041, 0.5, at_least=False), "share: 0.041; the claim needs at most 0.5: 0.459 below it"),
    ],
)
def test_a_figure_says_its_threshold_and_its_distance_in_the_same_unit(figure: Figure, text: str) -> None:
    assert str(figure) == text


def test_a_card_shows_the_claim_the_outcome_and_the_figures_between_marks() -> None:
    found = verdict("C4", holds=True, measured="<20> messages", figure=Figure("delay", 0.41, 50, "ms"))
    before, figures, after = split_at_marks(found._repr_html_())
    assert "✔ <b>C4 holds</b>" in before
    assert "a message arrives with less delay than by polling" in before
    assert "0.41" not in before + after
    assert "delay: 0.41 ms; the claim needs at least 50 ms: 49.6 ms below it" in figures
    assert "<details>" in figures
    assert "&lt;20&gt; messages" in figures


def split_at_marks(html: str) -> tuple[str, str, str]:
    before, _, rest = html.partition(FIGURES[0])
    figures, _, after = rest.partition(FIGURES[1])
    return before, figures, after


def test_cards_of_two_runs_differ_only_between_the_marks_and_not_in_their_text() -> None:
    one = verdict("C4", holds=True, measured="1", figure=Figure("delay", 0.1, 50, "ms"))
    other = verdict("C4", holds=True, measured="2", figure=Figure("delay", 0.2, 50, "ms"))
    assert split_at_marks(one._repr_html_())[::2] == split_at_marks(other._repr_html_())[::2]
    assert one._repr_html_() != other._repr_html_()
    assert repr(one) == repr(other)
    assert "0.2" not in repr(other)


def test_a_report_shows_the_figures_in_a_fold_between_the_marks() -> None:
    verdict("C4", holds=True, measured="20 messages", figure=Figure("delay", 0.41, 50, "ms"))
    html = report("02")._repr_html_()
    assert "49.6 ms below it\n20 messages" in html
    assert "0.41" not in "".join(each.partition(FIGURES[1])[2] for each in html.split(FIGURES[0]))


def test_a_verdict_that_cannot_run_again_is_plain_html() -> None:
    assert set(verdict("C1", holds=True, measured="")._repr_mimebundle_()) == {"text/html", "text/plain"}


def test_a_figure_is_stored_and_the_experiment_is_not(own_home: Path) -> None:
    async def again() -> Verdict:
        raise AssertionError

    found = verdict("C4", holds=True, measured="", figure=Figure("delay", 0.41, 50, "ms"), again=again)
    assert "again" not in json.loads((own_home / "claims" / "C4.json").read_text())
    assert report("02").verdicts["C4"] == found
    assert report("02").verdicts["C4"].again is None


def test_a_verdict_of_an_older_version_is_still_read(own_home: Path) -> None:
    (own_home / "claims").mkdir()
    older = {"claim": "C2", "outcome": "holds", "because": "", "measured": "0.3 ms", "at": 1.0}
    (own_home / "claims" / "C2.json").write_text(json.dumps(older))
    assert report("01").verdicts["C2"] == Verdict("C2", Outcome.HOLDS, "", "0.3 ms", 1.0)
