from __future__ import annotations

import pytest

from chatlab.chat.endpoint import sockjs
from tests.fuzz_connections import run_clients


@pytest.mark.long
async def test_a_thousand_clients_dropped_anywhere_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand of them; `make fuzz` drops ten thousand."""
    monkeypatch.setattr(sockjs, "DISCONNECT_DELAY", 0.5)
    await run_clients(1_000)
