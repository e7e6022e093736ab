"""How fast one client may send: a burst at once, then a rate, and an end to patience."""

from chatlab.limits import Allowance, Rate


def test_a_burst_is_allowed_and_the_message_after_it_is_not() -> None:
    allowance = Allowance(Rate(per_second=0, burst=3))
    assert [allowance.take() for _ in range(4)] == [True, True, True, False]


def test_refused_messages_count_until_patience_is_exhausted() -> None:
    allowance = Allowance(Rate(per_second=0, burst=1, patience=2))
    for _ in range(3):
        allowance.take()
    assert not allowance.exhausted
    allowance.take()
    assert allowance.exhausted
