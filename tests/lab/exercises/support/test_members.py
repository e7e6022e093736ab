"""Support of lesson 07's checks: a Redis that can be killed and restarted, members that repeat and reconnect."""

import asyncio
import json

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from websockets.asyncio.server import ServerConnection

from chatlab.lab.exercises.support.members import Member, killable_redis, members, not_reading, serving, without_retries


@pytest.mark.usefixtures("each_redis")
async def test_a_killed_redis_restarts_with_its_data() -> None:
    async with killable_redis() as killable, without_retries(killable.wire.url) as redis:
        await redis.xadd("chat", {"text": "안녕"})
        killable.kill()
        with pytest.raises(RedisConnectionError):
            await redis.xlen("chat")
        attempts = killable.attempts
        await killable.restart()
        assert await redis.xlen("chat") == await killable.direct.xlen("chat") == 1
        assert killable.attempts > attempts


async def test_a_member_sends_again_with_the_same_id_and_reconnects_with_the_last_id_it_received() -> None:
    received: list[tuple[str, str]] = []

    async def handle(socket: ServerConnection, after: str) -> None:
        async for message in socket:
            sent = json.loads(message)
            received.append((after, sent["client_id"]))
            if len(received) == 1:
                await socket.send(json.dumps({"id": "5-1", "text": "하나"}))
                await socket.close()
            else:
                await socket.send(json.dumps({"stored": sent["client_id"]}))

    async with serving(handle) as server:
        garam = Member("가람", server.url)
        async with members(garam):
            await garam.say("들려요?")
        assert [after for after, _ in received] == ["0-0", "5-1"]
        assert len({client_id for _, client_id in received}) == 1
        assert (garam.texts, garam.confirmed, garam.reconnections) == (["하나"], ["들려요?"], 1)


async def test_errors_of_a_handler_are_kept_unless_an_outage_explains_them() -> None:
    async def handle(socket: ServerConnection, after: str) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail(ConnectionError("gone") if after == "0-0" else KeyError("id")))

    async def fail(error: Exception) -> None:
        raise error

    async with serving(handle) as server:
        async with members(first := Member("가람", server.url), second := Member("Nuri", server.url, after="5-1")):
            assert await first.until(lambda: first.reconnections > 0)
            assert await second.until(lambda: second.reconnections > 0)
        assert {type(error) for error in server.errors} == {KeyError}


async def test_a_member_loses_its_first_receipt_with_the_connection_and_sends_again() -> None:
    received: list[str] = []

    async def handle(socket: ServerConnection, after: str) -> None:
        async for message in socket:
            received.append(json.loads(message)["client_id"])
            await socket.send(json.dumps({"stored": received[-1]}))

    async with serving(handle) as server:
        garam = Member("가람", server.url)
        garam.drops_at_receipt = True
        async with members(garam):
            await garam.say("들려요?", "c-1")
    assert (received, garam.reconnections, garam.confirmed) == (["c-1", "c-1"], 1, ["들려요?"])


async def test_a_member_that_does_not_read_makes_its_server_wait() -> None:
    sent: list[int] = []

    async def handle(socket: ServerConnection, after: str) -> None:
        for number in range(100):
            await socket.send("x" * 64_000)
            sent.append(number)

    async with serving(handle) as server, not_reading(server.url):
        await asyncio.sleep(0.5)  # nothing happens: that is what is looked for
        assert len(sent) < 60
