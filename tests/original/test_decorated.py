"""What `ConcurrentWebSocketSessionDecorator` cures in the article's room, and what it does not: F13, F14, F17."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from chatlab.lab.engines.engine import Engine
from chatlab.lab.experiments import lesson03
from tests.original import rooms
from tests.support import original
from tests.support.original import room_url

pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def decorated() -> AsyncIterator[Engine]:
    """The article's room with decorated sessions; a session that fails is closed, and nobody else."""
    async with await original.start("decorated") as running:
        yield running


@pytest.mark.asyncio(loop_scope="module")
async def test_of_eight_who_send_at_once_nobody_is_closed(decorated: Engine) -> None:
    assert await rooms.many_senders(room_url(decorated)) == {"some with 1011": False, "most are closed": False}


@pytest.mark.asyncio(loop_scope="module")
async def test_all_receive_all_texts_but_not_always_in_one_order(decorated: Engine) -> None:
    found = await lesson03.orders(room_url(decorated), senders=8, size=300, texts=100, receive_buffer=65536)
    assert found.complete


@pytest.mark.asyncio(loop_scope="module")
async def test_the_sender_stays_when_a_stalled_member_goes(decorated: Engine) -> None:
    freed = await lesson03.until_freed(room_url(decorated), seconds=30, size=8 * 1024)
    assert (freed.sender, freed.works) == (None, True)


async def test_without_the_catch_the_sender_is_closed_for_it() -> None:
    async with await original.start("decorated", room_catches="false") as running:
        freed = await lesson03.until_freed(room_url(running), seconds=30, size=8 * 1024)
        assert freed.sender == 1011


async def test_one_text_after_another_gives_one_order() -> None:
    async with await original.start("decorated", room_ordered="true") as running:
        found = await lesson03.orders(room_url(running), senders=8, size=300, texts=100, receive_buffer=65536)
        assert (found.complete, found.first_difference) == (True, None)
