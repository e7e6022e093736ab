"""The simple broker by itself: what tests/original does not see from outside."""

from __future__ import annotations

import asyncio

import pytest

from chatlab.chat.article.simple_broker import SimpleBroker, listen
from chatlab.stomp.frames import Frame
from tests.original.cases import TOPIC, send
from tests.original.client import Client
from tests.support.raw_member import RawMember


async def test_a_handler_that_fails_is_logged_and_its_client_stays(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(frame: Frame) -> None:
        raise KeyError("x")

    broker = SimpleBroker({"/app/fail": fail})
    async with await listen(broker, "127.0.0.1", 0, ()) as endpoint:
        async with Client(f"ws://127.0.0.1:{endpoint.port}/ws/websocket") as client:
            await client.subscribe()
            await client.send(send("", "/app/fail"))
            await client.send(send("still here", TOPIC))
            assert "still here" in (await client.until(1))[0]
        assert "unhandled exception from the handler of /app/fail: 'x'" in caplog.text


async def test_a_session_leaves_when_its_connection_is_reset() -> None:
    broker = SimpleBroker({})
    async with await listen(broker, "127.0.0.1", 0, ()) as endpoint:
        url = f"ws://127.0.0.1:{endpoint.port}/ws/websocket"
        async with Client(url) as client:
            await client.subscribe()
            vanishing = await RawMember.join(url)
            assert len(broker.sessions) == 1
            vanishing.vanish()
        async with asyncio.timeout(5):
            while broker.sessions:  # noqa: ASYNC110  # a figure, not an event
                await asyncio.sleep(0.01)
