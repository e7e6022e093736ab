"""The chat that lesson 06's checks talk to, and the wire that overhears it."""

from chatlab.clients.stomp import StompClient
from chatlab.lab.exercises.support.chat import chat_in_memory, frames_of, overheard


async def test_a_conversation_is_overheard_in_its_order() -> None:
    async with chat_in_memory() as server, overheard(server.url) as wire:
        async with StompClient(wire.url, reconnect=False) as client:
            await client.subscribe("/topic/lesson")
        said = [(sender, frame.command) for sender, frame in frames_of(wire)]
    assert said == [
        ("client", "CONNECT"),
        ("server", "CONNECTED"),
        ("client", "SUBSCRIBE"),
        ("server", "RECEIPT"),
        ("client", "DISCONNECT"),
        ("server", "RECEIPT"),
        ("client", "(close)"),
    ]


async def test_who_does_not_wait_is_heard_before_the_answer() -> None:
    async with chat_in_memory() as server, overheard(server.url) as wire:
        async with StompClient(wire.url, reconnect=False) as client:
            for _ in range(2):
                await client.send("/topic/lesson", "안녕", receipt=False)
        said = [(sender, frame.command) for sender, frame in frames_of(wire)]
    assert said[2:5] == [("client", "SEND"), ("client", "SEND"), ("client", "DISCONNECT")]
