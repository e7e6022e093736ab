"""Every test that asks for `case` runs on every engine."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.broker_cases import MAKERS, SHARED, Case


@pytest.fixture(params=list(MAKERS))
def unopened_case(request: pytest.FixtureRequest) -> Case:
    name: str = request.param
    return Case(name, request.getfixturevalue(SHARED[name]) if name in SHARED else None)


@pytest.fixture
async def case(unopened_case: Case) -> AsyncIterator[Case]:
    yield unopened_case
    await unopened_case.aclose()
