"""Lesson 04's experiments on real servers: they return what happened."""

import asyncio

from websockets.asyncio.server import ServerConnection, serve

from chatlab import room
from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.brokers.port import KeepsHistory
from chatlab.lab.engines.cluster import Cluster
from chatlab.lab.engines.engine import Engine
from chatlab.lab.experiments.lesson04 import Load, cut_and_come_back, load, opened, waits


async def test_opened_returns_a_connected_broker() -> None:
    async with await opened(MemoryBroker()) as broker:
        assert broker.connected


async def test_the_load_of_each_instance_is_the_processor_time_of_its_process(redis_engine: Engine) -> None:
    async with Cluster(redis_engine.url, 2, serve="room") as cluster:
        alone = await load(cluster.instances[:1], 60, messages=60)
        shared = await load(cluster.instances, 60, messages=60)

    assert (alone.members, alone.messages, len(alone.seconds)) == (60, 60, 1)
    assert len(shared.seconds) == 2
    assert 0 < shared.busiest < alone.busiest * 2


def test_the_busiest_instance_is_the_one_that_worked_most() -> None:
    assert Load(members=10, messages=100, seconds=(0.1, 0.3, 0.2)).busiest == 0.003


async def cut(broker: KeepsHistory, handler_knows_ids: bool) -> tuple[list[str], list[str]]:
    async def handler(session: ServerConnection) -> None:
        assert session.request is not None
        last = session.request.path.partition("?after=")[2] or None
        async for record in await broker.subscribe("talk", after=last if handler_knows_ids else None):
            await session.send(f"{record.id} {record.body.decode()}")

    result = await cut_and_come_back(handler, broker, "talk", before=["하나", "둘"], away=["셋", "넷"])
    assert result.before == ["하나", "둘"]
    return result.back, result.missed


async def test_a_client_that_reconnects_with_its_last_id_misses_nothing() -> None:
    back, missed = await cut(MemoryBroker(), handler_knows_ids=True)

    assert back[:2] == ["셋", "넷"]
    assert missed == []


async def test_a_client_that_reconnects_without_an_id_misses_the_texts_published_meanwhile() -> None:
    back, missed = await cut(MemoryBroker(), handler_knows_ids=False)

    assert not set(back) & {"셋", "넷"}
    assert missed == ["셋", "넷"]


async def test_each_text_waits_longer_than_the_last_if_the_handler_does_the_work_itself() -> None:
    async def slow(session: ServerConnection) -> None:
        async for text in session:
            await asyncio.sleep(0.01)
            await session.send(f"taken: {text!s}")

    async with serve(slow, "127.0.0.1", 0) as server:
        waited = await waits(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", texts=10)

    assert len(waited) == 10
    assert waited == sorted(waited)
    assert waited[-1] >= 0.1


async def test_in_a_room_a_text_is_answered_when_it_comes_back_to_its_sender() -> None:
    async with await room.start() as server:
        assert len(await waits(server.url, texts=5)) == 5
