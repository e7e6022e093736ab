"""What a chat confirmed, compared with what its members received."""

import pytest

from chatlab.lab.ledger import Ledger, ledger


@pytest.mark.parametrize(
    ("sent", "shown", "found"),
    [
        (["a", "b"], [["a", "b"], ["a", "b"]], Ledger(2, 0, 0, 0)),
        (["a", "b"], [["a", "b"], ["a"]], Ledger(2, 1, 0, 1)),
        (["a", "b"], [["a", "b"], ["a", "b", "a"]], Ledger(2, 0, 1, 1)),
        (["a", "b"], [["a", "b"], ["b", "a"]], Ledger(2, 0, 0, 1)),
        (["a"], [["x", "a"], ["a"]], Ledger(1, 0, 0, 0)),  # received without a receipt: allowed, once
    ],
)
def test_the_ledger_counts_what_was_lost_repeated_and_out_of_order(
    sent: list[str], shown: list[list[str]], found: Ledger
) -> None:
    assert ledger(sent, shown) == found
    assert found.clean == (found.lost == found.repeated == found.out_of_order == 0)


def test_a_ledger_in_words_counts_members_in_the_singular_and_the_plural() -> None:
    assert str(Ledger(90, 0, 0, 0)) == "90 sent, 0 lost, 0 shown twice, 0 members saw another order"
    assert str(Ledger(2, 1, 0, 1)) == "2 sent, 1 lost, 0 shown twice, 1 member saw another order"
