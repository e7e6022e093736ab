from __future__ import annotations

from tests.fuzz_sessions import run, run_on_redis


def test_in_sessions_drawn_at_random_nobody_receives_what_is_not_theirs() -> None:
    """A bounded set; `make fuzz` draws a thousand."""
    run(15)


def test_nor_on_redis() -> None:
    run_on_redis(8)
