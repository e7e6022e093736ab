"""Every test that asks for `case` runs on every engine."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.broker_cases import MAKERS, SHARED, Case

MANY_RECORDS = {
    "test_a_reader_that_comes_back_to_a_busy_topic_misses_nothing_and_gets_nothing_twice",
    "test_a_slow_reader_delays_no_other_and_ends_when_it_loses_records",
    "test_a_stalled_reader_gets_every_record_or_subscription_lost_on_every_read_path",
}


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as long what takes many seconds on RabbitMQ's streams; the same on its queues, and on Redis, is not."""
    for item in items:
        if "rabbitmq-streams" in item.name and getattr(item, "originalname", "") in MANY_RECORDS:
            item.add_marker(pytest.mark.long)


@pytest.fixture(params=list(MAKERS))
def unopened_case(request: pytest.FixtureRequest) -> Case:
    name: str = request.param
    return Case(name, request.getfixturevalue(SHARED[name]) if name in SHARED else None)


@pytest.fixture
async def case(unopened_case: Case) -> AsyncIterator[Case]:
    yield unopened_case
    await unopened_case.aclose()
