"""The ledger: verdicts are computed from what was measured, and stored."""

from pathlib import Path

import pytest

from chatlab.lab.claims import CLAIMS, Outcome, report, verdict


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHATLAB_HOME", str(tmp_path))
    return tmp_path


def test_the_ledger_has_every_claim_and_fault_of_the_article() -> None:
    assert set(CLAIMS) == {f"C{n}" for n in range(1, 43)} | {f"F{n}" for n in (*range(1, 13), 15, 16)}


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
