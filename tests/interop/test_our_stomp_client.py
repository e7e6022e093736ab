"""chatlab's STOMP client with the chat server: after reconnecting it receives what it missed first."""

from __future__ import annotations

import asyncio
import json

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.endpoint import server as chat_server
from chatlab.clients.stomp import Backoff, ClientState, StompClient


async def say(client: StompClient, content: str) -> None:
    await client.send("/app/chat.sendMessage", json.dumps({"content": content}))


async def test_no_message_is_lost_or_repeated_over_lost_connections() -> None:
    changed = asyncio.Event()
    async with (
        asyncio.timeout(20),
        await chat_server.start(MemoryBroker()) as server,
        StompClient(server.url, login="Ben") as ben,
        StompClient(server.url, login="Ana", backoff=Backoff(0.01, 0.05), on_change=changed.set) as ana,
    ):
        subscription = await ana.subscribe("/topic/public")
        for number in range(40):
            await say(ben, str(number))
            if number % 10 == 5:
                ana.drop()
        contents = [json.loads((await anext(subscription)).body)["content"] for _ in range(40)]
        assert contents == [str(number) for number in range(40)]
        while ana.state is not ClientState.OPEN:
            changed.clear()
            await changed.wait()
        await say(ana, "the last")
        assert json.loads((await anext(subscription)).body)["content"] == "the last"
        assert ana.attempts > 1
