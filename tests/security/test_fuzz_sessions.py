from __future__ import annotations

import pytest

from tests.fuzz_sessions import run, run_on_redis


@pytest.mark.long
def test_in_random_sessions_no_client_receives_anothers_messages() -> None:
    """Run a few; `make fuzz` runs a thousand."""
    run(15)


def test_in_random_sessions_on_redis_no_client_receives_anothers_messages() -> None:
    run_on_redis(8)
