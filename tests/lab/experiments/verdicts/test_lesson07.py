"""Lesson 07's verdicts: each can come out either way, and says so where a cell has not been run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from chatlab.lab.claims import CLAIMS, Outcome, Verdict
from chatlab.lab.experiments.lesson07 import MISTAKES, Burst, java_record
from chatlab.lab.experiments.verdicts import lesson07 as verdicts
from chatlab.lab.experiments.verdicts.lesson07 import FAULTS, NULL, Seen
from chatlab.lab.ledger import Ledger

HOLDS, FAILS = (Outcome.HOLDS, Outcome.HOLDS_WHEN), (Outcome.DOES_NOT_HOLD,)
CLEAN, BAD = Ledger(20, 0, 0, 0), Ledger(20, 1, 1, 1)
READ = "XREADGROUP GROUP chat-group consumer-1 BLOCK 1000 STREAMS chat-stream >"


@dataclass(frozen=True)
class Twenty:
    """A picture of twenty messages, by member."""

    with_text: dict[str, int]
    without: dict[str, int]

    def texts(self, member: str) -> int:
        return self.with_text[member]

    def empty(self, member: str) -> int:
        return self.without[member]


ARTICLE = Twenty({"가람": 20, "Nuri": 0}, {"가람": 9, "Nuri": 11})
ALL_SHOWN = Twenty({"가람": 20, "Nuri": 20}, {"가람": 0, "Nuri": 0})
WORST = Seen(  # the article's program as it is, and then the chat that holds
    read=READ,
    no_group="NOGROUP No such key",
    reads_after=0,
    shown=['{"content":"안녕"}', NULL],
    record=(b"\xac\xed\x00\x05t\x00\x07content", b"\xac\xed\x00\x05t\x00\x01x"),
    added="XADD chat-stream * content x",
    picture=ARTICLE,
    stored=20,
    pending=20,
    memory=(1000, 90_000),
    polled=[0.06] * 20,
    polled_burst=Burst(60, 0.55),
    caught_up=25,
    empty=NULL,
    written=java_record(message="x"),
    beside=0,
    silent=dict.fromkeys(MISTAKES, "silence"),
    book=CLEAN,
    groups=0,
    fields=[b"body"],
    body={"content": "x", "sender": "가람"},
    length=140,
    streamed=[0.003] * 20,
    streamed_burst=Burst(60, 0.05),
    beside_now=9,
    answered=dict.fromkeys(MISTAKES, "ERROR"),
    kills=CLEAN,
    returns=2,
    missed=(5, 0),
    busiest=[160.0, 120.0, 90.0],
    deliveries=[2400, 1200, 600],
)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATLAB_HOME", str(tmp_path))


# What is found in the article's program, and what would have to be seen for the other outcome.
CLAIM_CASES: list[tuple[Callable[[Seen], Verdict], tuple[Outcome, ...], Seen, tuple[Outcome, ...]]] = [
    (verdicts.c31, HOLDS, replace(WORST, deliveries=[2400, 2400, 2400]), FAILS),
    (verdicts.c31, HOLDS, replace(WORST, book=BAD), FAILS),
    (verdicts.c32, HOLDS, replace(WORST, streamed=[0.003] * 17 + [0.5] * 3), FAILS),
    (verdicts.c33, HOLDS, replace(WORST, kills=BAD), FAILS),
    (verdicts.c33, HOLDS, replace(WORST, missed=(5, 1)), FAILS),
    (verdicts.c35, FAILS, replace(WORST, record=(b"content", b'"x"')), HOLDS),
    (verdicts.c36, HOLDS, replace(WORST, read=READ.replace("1000", "100")), FAILS),
    (verdicts.c37, FAILS, replace(WORST, shown=['{"content":"안녕"}'] * 2), HOLDS),
    (verdicts.c38, HOLDS, replace(WORST, read=READ.replace("consumer-1", "consumer-2")), FAILS),
    (verdicts.c39, HOLDS, replace(WORST, picture=Twenty({"가람": 0}, {"가람": 20})), FAILS),
    (verdicts.c40, HOLDS, replace(WORST, written=java_record(content="x")), FAILS),
    (verdicts.c40, HOLDS, replace(WORST, polled_burst=Burst(60, 0.1)), FAILS),
    (verdicts.c40, HOLDS, replace(WORST, polled_burst=Burst(120, 0.55)), FAILS),
]


@pytest.mark.parametrize(("judge", "here", "otherwise", "there"), CLAIM_CASES)
def test_a_claim_is_judged_by_what_was_seen(
    judge: Callable[[Seen], Verdict], here: tuple[Outcome, ...], otherwise: Seen, there: tuple[Outcome, ...]
) -> None:
    assert judge(WORST).outcome in here
    assert judge(otherwise).outcome in there


FREE = {  # a program without the fault
    "F1": replace(WORST, picture=ALL_SHOWN),
    "F2": replace(WORST, picture=ALL_SHOWN),
    "F3": replace(WORST, no_group="(nil)"),
    "F4": replace(WORST, pending=3),
    "F5": replace(WORST, memory=(1000, 1000)),
    "F6": replace(WORST, empty='{"content":"x"}'),
    "F7": replace(WORST, polled=[0.004] * 20),
    "F10": replace(WORST, missed=(0, 0)),
    "F11": replace(WORST, shown=['{"content":"안녕"}'] * 2),
    "F15": replace(WORST, reads_after=2),
    "F16": replace(WORST, caught_up=5),
    "F18": replace(WORST, beside=9),
    "F19": replace(WORST, silent=dict.fromkeys(MISTAKES, "ERROR")),
}
UNFIXED = {  # a cure that does not work
    "F1": replace(WORST, book=BAD),
    "F2": replace(WORST, book=BAD),
    "F3": replace(WORST, groups=1),
    "F4": replace(WORST, groups=1),
    "F5": replace(WORST, length=1000),
    "F6": replace(WORST, body={"message": "x"}),
    "F7": replace(WORST, streamed=[0.06] * 20),
    "F10": replace(WORST, missed=(5, 2)),
    "F11": replace(WORST, fields=[b"\xac\xed"]),
    "F15": replace(WORST, kills=BAD),
    "F16": replace(WORST, streamed_burst=None),
    "F18": replace(WORST, beside_now=0),
    "F19": replace(WORST, answered=dict.fromkeys(MISTAKES, "silence")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_fixed_or_happens_or_does_not_by_what_was_seen(fault: str) -> None:
    assert outcome(WORST, fault) is Outcome.FIXED
    assert outcome(UNFIXED[fault], fault) is Outcome.HAPPENS
    assert outcome(FREE[fault], fault) is Outcome.DOES_NOT_HAPPEN
    assert outcome(Seen(), fault) is Outcome.NOT_TESTED


def outcome(seen: Seen, fault: str) -> Outcome:
    [(found, _fault)] = verdicts.answers(seen, fault).rows
    return found.outcome


def test_every_claim_of_the_lesson_has_its_verdict_and_is_not_tested_without_its_cells() -> None:
    claims = [claim.id for claim in CLAIMS.values() if claim.lesson == "07"]
    for claim in claims:
        if claim not in FAULTS:
            assert getattr(verdicts, claim.lower())(Seen()).outcome is Outcome.NOT_TESTED
    assert set(FAULTS) == {claim for claim in claims if claim.startswith("F")}


def test_the_table_has_both_programs_beside_each_other_and_a_line_for_each_fault() -> None:
    table = verdicts.answers(WORST, "F1", "F18")
    assert "0 of 9 shown" in table._repr_html_()
    assert "9 of 9 shown" in table._repr_html_()
    assert [line.split()[:4] for line in repr(table).splitlines()] == [
        ["✔", "F1", "happens,", "fixed:"],
        ["✔", "F18", "happens,", "fixed:"],
    ]


async def test_the_delays_can_be_measured_again() -> None:
    async def slow() -> list[float]:
        return [0.2] * 10

    found = verdicts.c32(replace(WORST), slow)
    assert found.again is not None
    assert (await found.again()).outcome is Outcome.DOES_NOT_HOLD


def test_the_rate_of_a_larger_burst_is_that_of_its_own_number() -> None:
    fault = FAULTS["F7"](replace(WORST, polled_burst=Burst(120, 1.2)))
    assert "100 messages per second" in fault.then


def test_the_listeners_share_of_two_messages_is_counted_without_the_controllers() -> None:
    assert "contents that the listener sent: 0" in verdicts.c37(WORST)._repr_html_()
