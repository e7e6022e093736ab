"""The clients of a notebook cell: they send, receive and log, and read slowly or not at all."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from chatlab import room
from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint.server import ChatServer
from chatlab.errors import MessageRefused
from chatlab.lab.clients import MemberState, Reading, RoomClient, StompMember
from chatlab.lab.until import until
from chatlab.lab.wire import Wire


@pytest_asyncio.fixture
async def server() -> AsyncIterator[room.RoomServer]:
    async with await room.start(rate=None) as server:
        yield server


@pytest_asyncio.fixture
async def pair(server: room.RoomServer) -> AsyncIterator[tuple[RoomClient, RoomClient]]:
    garam, nuri = RoomClient(server.url, "가람"), RoomClient(server.url, "Nuri")
    await garam.connect()
    await nuri.connect()
    yield garam, nuri
    await garam.close()
    await nuri.close()


Pair = tuple[RoomClient, RoomClient]


async def test_a_text_reaches_the_other_client(pair: Pair) -> None:
    garam, nuri = pair
    await garam.send("안녕 👋")
    await nuri.heard("Server received from 가람: 안녕 👋")
    assert garam.sent == ["안녕 👋"]


async def test_waiting_for_a_text_that_never_comes_times_out(pair: Pair) -> None:
    with pytest.raises(TimeoutError):
        await pair[0].heard("nothing of the kind", timeout=0.05)


async def test_a_client_that_is_not_connected_cannot_send(server: room.RoomServer) -> None:
    with pytest.raises(ConnectionError, match="connect first"):
        await RoomClient(server.url, "가람").send("x")


async def test_a_failed_connection_is_logged_and_raised() -> None:
    client = RoomClient("ws://127.0.0.1:1/room", "가람")
    with pytest.raises(OSError):
        await client.connect()
    assert client.state is MemberState.CLOSED
    assert client.lines[-1].text.startswith("could not connect: ")


async def test_a_refused_origin_is_logged_and_raised(server: room.RoomServer) -> None:
    client = RoomClient(server.url, "가람", origin="https://evil.example")
    with pytest.raises(Exception, match="403"):
        await client.connect()
    assert "403" in client.lines[-1].text


async def test_a_closed_client_can_connect_again(pair: Pair, server: room.RoomServer) -> None:
    garam, nuri = pair
    await garam.close()
    assert garam.state is MemberState.CLOSED
    assert garam.lines[-1].text == "closed: 1000"
    await garam.connect()
    await nuri.send("다시 왔네요")
    await garam.heard("다시 왔네요")


async def test_a_client_that_stops_reading_receives_nothing_until_it_reads_again(pair: Pair) -> None:
    garam, nuri = pair
    nuri.read(Reading.NOT_AT_ALL)
    await garam.send("읽어요?")
    await garam.heard("읽어요?")
    assert not any("읽어요?" in text for text in nuri.received)
    nuri.read(Reading.NORMALLY)
    await nuri.heard("읽어요?")


async def test_a_slow_client_reads_one_text_a_second(pair: Pair) -> None:
    garam, nuri = pair
    nuri.read(Reading.SLOWLY)
    for number in range(20):
        await garam.send(f"#{number}")
    await garam.heard("#19")
    await nuri.heard("#0")
    assert not any("#5" in text for text in nuri.received)


async def test_a_client_that_vanishes_sends_no_close(pair: Pair, server: room.RoomServer) -> None:
    garam, _ = pair
    await garam.vanish()
    await until(lambda: len(server.metrics().members) == 1)
    assert garam.state is MemberState.CLOSED
    assert server.metrics().departures[-1].code == 1006


async def test_the_close_code_of_a_closing_server_is_logged(pair: Pair, server: room.RoomServer) -> None:
    await server.aclose()
    await pair[0].until(lambda: pair[0].state is MemberState.CLOSED)
    assert pair[0].lines[-1].text == "closed: 1001 the room is closing"


@pytest.mark.parametrize("end", ["reset", "stopped", "cut"])
async def test_a_client_dropped_by_the_other_side_connects_again_and_hears(end: str) -> None:
    async with await room.start(rate=None) as server, await Wire(to=server.url).start() as wire:
        garam, nuri = RoomClient(wire.url, "가람"), RoomClient(server.url, "Nuri")
        await garam.connect()
        await nuri.connect()
        if end == "reset":
            wire.reset()
        elif end == "cut":
            wire.cut(0)
            await nuri.send("it ends the connection")
        else:
            await wire.aclose()
            await wire.start()
        await garam.until(lambda: garam.state is MemberState.CLOSED)
        garam.url = wire.url
        await garam.connect()
        await nuri.send("back?")
        await garam.heard("back?")
        await garam.close()
        await nuri.close()


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="only Linux says what became of a connection nobody reads")
async def test_a_client_that_does_not_read_shows_that_the_server_has_ended_its_connection(
    server: room.RoomServer,
) -> None:
    async with await Wire(to=server.url).start() as wire:
        client = RoomClient(wire.url, "Nuri")
        await client.connect()
        client.stop_reading()
        for __ in range(3):  # more than the library takes while nobody reads
            await client.send("x")
        await wire.wait_for("websocket", "text", sender="server", count=3)
        wire.reset()
        await client.until(lambda: "the server has ended the connection" in client.lines[-1].text)
        client.read(Reading.NORMALLY)
        await client.until(lambda: client.state is MemberState.CLOSED)


async def test_a_client_that_does_not_read_can_still_close(pair: Pair) -> None:
    pair[0].stop_reading()
    async with asyncio.timeout(5):
        await pair[0].close()
    assert pair[0].state is MemberState.CLOSED


# --- Over STOMP ---


@pytest_asyncio.fixture
async def chat() -> AsyncIterator[ChatServer]:
    async with MemoryBroker() as broker, await chat_server.start(broker) as running:
        yield running


@pytest_asyncio.fixture
async def members(chat: ChatServer) -> AsyncIterator[tuple[StompMember, StompMember]]:
    garam, nuri = StompMember(chat.url, "가람"), StompMember(chat.url, "Nuri")
    await garam.connect()
    await nuri.connect()
    yield garam, nuri
    await garam.close()
    await nuri.close()


async def test_a_stomp_members_text_reaches_everybody_once_with_its_sender(
    members: tuple[StompMember, StompMember],
) -> None:
    garam, nuri = members
    await garam.send("안녕 👋")
    await nuri.heard("가람: 안녕 👋")
    await garam.heard("가람: 안녕 👋")
    assert nuri.messages[0].get("message-id")


async def test_a_stomp_member_reconnects_and_receives_the_messages_it_missed(
    members: tuple[StompMember, StompMember],
) -> None:
    garam, nuri = members
    await garam.send("하나")
    await nuri.heard("하나")
    nuri.drop()
    await nuri.until(lambda: nuri.state is MemberState.CONNECTING)
    await garam.send("둘")
    await nuri.heard("둘")
    assert nuri.received == ["가람: 하나", "가람: 둘"]
    assert [line.text for line in nuri.lines if line.way == "note"] == [
        "connected",
        "connection lost; coming back",
        "back again",
    ]


async def test_a_refused_text_raises_and_is_not_counted_as_stored(members: tuple[StompMember, StompMember]) -> None:
    garam, _ = members
    with pytest.raises(MessageRefused, match="content"):
        await garam.send("")
    await garam.send("다시")
    assert garam.stored == ["다시"]


async def test_a_stomp_member_that_vanished_connects_again_only_when_asked(
    members: tuple[StompMember, StompMember],
) -> None:
    await members[0].vanish()
    assert members[0].state is MemberState.CLOSED
    await members[0].connect()
    await members[0].send("다시")
    await members[1].heard("가람: 다시")


async def test_an_error_from_the_chat_is_logged(chat: ChatServer) -> None:
    member = StompMember(chat.url, "가람")
    await member.connect()
    await member.stomp.send("/app/chat.sendMessage", "{", receipt=False)
    await member.until(lambda: any(line.text.startswith("error: ") for line in member.lines))
    await member.close()


async def test_a_member_receives_the_texts_of_its_own_room_only(chat: ChatServer) -> None:
    cats, dogs = StompMember(chat.url, "가람", room="cats"), StompMember(chat.url, "Nuri", room="dogs")
    await cats.connect()
    await dogs.connect()
    await cats.send("야옹")
    await cats.heard("가람: 야옹")
    await dogs.send("멍멍")
    await dogs.heard("Nuri: 멍멍")
    assert dogs.received == ["Nuri: 멍멍"]
    await cats.close()
    await dogs.close()
