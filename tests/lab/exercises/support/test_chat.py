"""The chat for lesson 06's checks, and the wire that records its frames."""

from chatlab.clients.stomp import StompClient
from chatlab.lab.exercises.support.chat import chat_in_memory, frames_of, overheard


async def test_the_wire_records_the_frames_of_both_sides_in_order() -> None:
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


async def test_frames_sent_without_waiting_are_recorded_before_the_servers_answers() -> None:
    async with chat_in_memory() as server, overheard(server.url) as wire:
        async with StompClient(wire.url, reconnect=False) as client:
            for __ in range(2):
                await client.send("/topic/lesson", "안녕", receipt=False)
        said = [(sender, frame.command) for sender, frame in frames_of(wire)]
    assert said[2:5] == [("client", "SEND"), ("client", "SEND"), ("client", "DISCONNECT")]
