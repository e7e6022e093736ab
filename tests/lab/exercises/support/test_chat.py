"""Support of lesson 06's checks: the chat, and the wire that records its frames."""

from chatlab.clients.stomp import StompClient
from chatlab.lab.exercises.support.chat import chat_in_memory, frames_of, late_chat, overheard


async def test_the_frames_of_a_conversation_are_recorded_in_order() -> None:
    async with chat_in_memory() as server, overheard(server.url) as wire:
        async with StompClient(wire.url, reconnect=False) as client:
            await client.subscribe("/topic/lesson")
        frames = [(sender, frame.command) for sender, frame in frames_of(wire)]
    assert frames == [
        ("client", "CONNECT"),
        ("server", "CONNECTED"),
        ("client", "SUBSCRIBE"),
        ("server", "RECEIPT"),
        ("client", "DISCONNECT"),
        ("server", "RECEIPT"),
        ("client", "(close)"),
    ]


async def test_frames_of_a_client_that_does_not_wait_come_before_the_answer() -> None:
    async with chat_in_memory() as server, overheard(server.url) as wire:
        async with StompClient(wire.url, reconnect=False) as client:
            for _ in range(2):
                await client.send("/topic/lesson", "안녕", receipt=False)
        frames = [(sender, frame.command) for sender, frame in frames_of(wire)]
    assert frames[2:5] == [("client", "SEND"), ("client", "SEND"), ("client", "DISCONNECT")]


async def test_a_late_chat_sends_the_texts_of_others_first_and_its_clients_own_when_it_is_silent() -> None:
    async with late_chat(["먼저"]) as url, StompClient(url, reconnect=False) as client:
        messages = await client.subscribe("/topic/lesson")
        await client.send("/topic/lesson", "하나")
        await client.send("/topic/lesson", "둘")
        received = [(await anext(messages)).body.decode() for __ in range(3)]
    assert received == ["먼저", "하나", "둘"]
