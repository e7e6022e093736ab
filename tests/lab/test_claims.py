"""The ledger: verdicts follow from what was measured, and are kept."""

from pathlib import Path

import pytest

from chatlab.lab.claims import CLAIMS, report, verdict


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHATLAB_HOME", str(tmp_path))
    return tmp_path


def test_the_ledger_has_every_claim_and_fault_of_the_article() -> None:
    assert set(CLAIMS) == {f"C{n}" for n in range(1, 43)} | {f"F{n}" for n in range(1, 13)}


def test_a_claim_that_held_is_said_to_hold() -> None:
    assert str(verdict("C2", holds=True, measured="0.3 ms")) == (
        "✔ C2 holds: over WebSocket the server can speak first, at any time"
    )


def test_a_claim_that_depends_says_on_what() -> None:
    found = verdict("C17", holds=True, when="every member reads", measured="p99 0.9 ms")
    assert str(found) == "◐ C17 holds, when every member reads: for basic chat this is enough"


def test_a_claim_that_failed_says_why() -> None:
    found = verdict("C33", holds=False, because="three were lost", measured="3 of 100")
    assert str(found).startswith("✘ C33 does not hold because three were lost: ")


def test_a_fault_happens_is_mended_or_does_not_happen() -> None:
    assert verdict("F8", holds=True, measured="").outcome == "happens"
    assert verdict("F8", holds=True, mended=True, measured="").outcome == "happens, mended"
    assert verdict("F8", holds=False, measured="").outcome == "does not happen"


def test_a_claim_the_article_does_not_make_is_refused() -> None:
    with pytest.raises(KeyError):
        verdict("C43", holds=True, measured="")


def test_figures_are_kept_in_the_ledger_and_out_of_the_text() -> None:
    verdict("C4", holds=True, measured="0.41 ms against 51.2 ms")
    kept = report("02").verdicts["C4"]
    assert kept.measured == "0.41 ms against 51.2 ms"
    assert "0.41" not in repr(report("02"))
    assert "C3 not tried here yet" in repr(report("02"))


def test_markup_in_a_verdict_is_shown_as_text() -> None:
    found = verdict("C17", holds=True, when="<script>", measured="")
    assert "&lt;script&gt;" in found._repr_html_()
    assert "&lt;script&gt;" in report("03")._repr_html_()


def test_a_broken_entry_is_put_aside_not_lost(own_home: Path) -> None:
    verdict("C1", holds=True, measured="")
    (own_home / "claims" / "C2.json").write_text('{"claim":')
    assert set(report().verdicts) == {"C1"}
    assert (own_home / "claims" / "C2.broken").read_text() == '{"claim":'
