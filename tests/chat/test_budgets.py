"""The table of budgets, the values it accepts, and the accounting of `Pace` and `Names`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chatlab.chat.budgets import TABLE, Budgets, Names, Pace
from tests.support.commands import run

ROOT = Path(__file__).parents[2]


def test_a_limit_is_set_by_its_name() -> None:
    budgets = Budgets.parse(["connections-per-address=7", " names = 0 "])
    assert (budgets.connections_per_address, budgets.names, budgets.receipts) == (7, 0, Budgets().receipts)
    assert budgets.counts_loopback
    assert not Budgets().counts_loopback


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ("name=3", "unknown limit 'name'; the limits are connections, "),
        ("names", "the limit names must be a number, 0 or more, not ''"),
        ("names=-1", "the limit names must be a number, 0 or more, not '-1'"),
        ("names=1e3", "the limit names must be a number, 0 or more, not '1e3'"),
        ("names=" + "9" * 5000, "the limit names must be a number, 0 or more, not '999"),
        ("subscriptions=0", "the limit subscriptions must be a number, 1 or more, not '0'"),
    ],
)
def test_an_unknown_limit_or_value_is_refused_with_the_accepted_ones(given: str, fault: str) -> None:
    with pytest.raises(ValueError, match=re.escape(fault)):
        Budgets.parse([given])


def test_the_stomp_limits_follow_the_budgets_and_admit_the_largest_frame() -> None:
    limits = Budgets.parse(["subscriptions=3", "transactions=2", "held-octets=1000"]).stomp_limits(max_frame=5 << 20)
    assert (limits.max_subscriptions, limits.max_transactions) == (3, 2)
    assert min(limits.max_held, limits.max_transaction, limits.max_unacknowledged_octets) >= 5 << 20


@pytest.mark.parametrize("name", TABLE)
def test_each_limit_is_a_row_of_the_deployment_guide(name: str) -> None:
    budget = TABLE[name]
    guide = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    rows = [line for line in guide.splitlines() if line.startswith(f"| `{name}` ")]
    assert len(rows) == 1
    assert f"| {budget.default:,} |" in rows[0]


async def test_the_command_line_prints_all_limits_and_refuses_unknown_ones() -> None:
    status, printed, _ = await run("serve", "chat", "--limits")
    assert status == 0
    assert [line.split()[0] for line in printed.splitlines()] == list(TABLE)
    status, _, errors = await run("serve", "chat", "--limit", "nix=1")
    assert (status, errors.count("\n")) == (2, 1)
    assert "unknown limit 'nix'" in errors


def test_a_pace_allows_a_burst_of_five_seconds_worth() -> None:
    now = 100.0
    pace = Pace(10, clock=lambda: now)
    assert pace.spend(50) == 0.0
    assert pace.spend(10) == 1.0, "a second too early"
    now += 2.0
    assert pace.spend(10) == 0.0
    now += 3600.0
    assert pace.spend(51) == pytest.approx(0.1), "unused capacity does not accumulate"
    assert Pace(0).spend(1 << 40) == 0.0


def test_names_are_counted_by_client_and_freed_when_unused() -> None:
    now, read = 0.0, {"read"}
    names = Names(4, 2, read.__contains__, clock=lambda: now)
    assert [names.use("read", "a"), names.use("b", "a"), names.use("c", "a")] == ["", "", "names-per-hour"]
    assert [names.use("c", "b"), names.use("d", "b"), names.use("e", "c")] == ["", "", "names"]
    names.rotate()
    assert names.use("b", "z") == "", "it is not a new name"
    names.rotate()
    assert (len(names), sorted(names.in_use)) == (2, [])
    now = 3601.0
    assert [names.use("c", "a"), names.use("d", "a"), names.use("e", "a")] == ["", "", "names"]
