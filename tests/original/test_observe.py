"""The rebuild does what the article's own programs do; the recording of those is what they still show."""

from __future__ import annotations

from typing import Any

import pytest

from chatlab.errors import EngineMissing
from chatlab.lab.engines import engine as engines
from chatlab.lab.experiments.original import recording
from tests.original.observe import NAMES, observe
from tests.original.programs import Programs, Rebuilt, Spring
from tests.support import redis_servers, require

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]


async def observed(kind: type[Programs]) -> dict[str, Any]:
    async with await redis_servers.start(redis_servers.ON_PATH[0]) as engine:
        return await observe(kind, engine)


def test_every_case_has_a_name_of_its_own_and_a_recording() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert set(recording()) == {*NAMES, "version"}


async def test_the_rebuild_does_what_the_original_did() -> None:
    found, original = await observed(Rebuilt), recording()
    assert {name: found[name] for name in NAMES} == {name: original[name] for name in NAMES}


async def test_the_original_still_does_what_was_recorded() -> None:
    try:
        engines.find("spring")
    except EngineMissing as absent:
        require.missing("spring", absent.remedy)
    found, original = await observed(Spring), recording()
    assert {name: found[name] for name in NAMES} == {name: original[name] for name in NAMES}
