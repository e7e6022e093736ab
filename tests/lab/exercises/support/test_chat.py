"""Support of lesson 06's checks: the chat, and the wire that records its frames."""

from chatlab.clients.stomp import StompClient
from chatlab.lab.exercises.support.chat import chat_in_memory, frames_of, overheard


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
