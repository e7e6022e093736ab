"""A chat on RabbitMQ's stream queues: its clients miss nothing over a restart, of the chat or of RabbitMQ."""

from __future__ import annotations

import asyncio
import json
from contextlib import AbstractAsyncContextManager

import pytest

from chatlab.clients.stomp import ClientSubscription, StompClient
from chatlab.lab.engines.engine import Engine
from chatlab.lab.engines.kinds import free_ports
from tests.support.broker_cases import topic
from tests.support.commands import Command, chatlab
from tests.support.stomp_peer import chat


async def contents(subscription: ClientSubscription, count: int) -> list[str]:
    """Return the next `count` messages, none of which may follow a gap."""
    got: list[str] = []
    async with asyncio.timeout(60):
        while len(got) < count:
            frame = await anext(subscription)
            assert frame.get("gap") is None, frame
            got.append(json.loads(frame.body)["content"])
    return got


@pytest.mark.long
async def test_a_client_misses_nothing_over_a_restart_of_its_chat_and_one_of_rabbitmq(rabbitmq_engine: Engine) -> None:
    room, (port,) = topic("r"), free_ports(1)

    def serve(port: int) -> AbstractAsyncContextManager[Command]:
        return chatlab("serve", "chat", "--port", str(port), "--broker", rabbitmq_engine.url)

    async def say(client: StompClient, *texts: str) -> None:
        for text in texts:
            await client.send("/app/chat.sendMessage", chat(text, room))

    async with (
        serve(0) as other,
        StompClient(await other.url(), proxy=None) as ann,
        serve(port) as first,
        StompClient(await first.url(), proxy=None) as kim,
    ):
        subscription = await kim.subscribe(f"/topic/room.{room}")
        await say(ann, "1", "2")
        assert await contents(subscription, 2) == ["1", "2"]
        first.process.kill()
        await first.ended()
        await say(ann, "3", "4")
        async with serve(port) as again:
            await again.url()
            assert await contents(subscription, 2) == ["3", "4"]
            rabbitmq_engine.kill()
            await rabbitmq_engine.restart()
            await say(ann, "5", "6")
            assert await contents(subscription, 2) == ["5", "6"]
            async with StompClient(kim.url, proxy=None) as newcomer:
                past = await newcomer.subscribe(f"/topic/room.{room}", headers={"history": "4"})
                assert await contents(past, 4) == ["3", "4", "5", "6"]
