"""What happens in the article's chat: case by case, and in Redis.

Each scenario gets the running programs and returns what it saw, as JSON has it. Octets are written as Latin-1.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from websockets.exceptions import InvalidStatus

from chatlab.chat.article import java
from chatlab.lab.engines.engine import Engine
from chatlab.lab.experiments import lesson07
from chatlab.lab.experiments.original import Program
from tests.original.cases import SUBSCRIBE, TOPIC, Case, send
from tests.original.client import QUIET, SOON, Client
from tests.original.programs import Programs

STREAM = "chat-stream"
ONE, TWO, LONE = 0, 1, 2  # databases: the first build's, the second's, and one without a group
GROUPS = {ONE: "chat-group", TWO: "group"}
RETRY = Retry(ConstantBackoff(0.1), 100)  # Redis is killed, and comes back


@dataclass
class Chats:
    """The programs under observation, their Redis, and a client of each of its databases."""

    programs: Programs
    engine: Engine
    redis: list[Any]
    one: Program
    two: Program
    lone: Program

    async def restart_one(self) -> None:
        """Stop the first build, and start it again."""
        await self.one.aclose()
        self.one = await self.programs.start("one", ONE)


async def databases(engine: Engine) -> list[Any]:
    """Return a client for each database, emptied, with the groups that the article does not create."""
    clients: list[Any] = [Redis.from_url(engine.url, db=each, retry=RETRY) for each in (ONE, TWO, LONE)]
    for number, client in enumerate(clients):
        await client.flushdb()
        if number in GROUPS:
            await client.xgroup_create(STREAM, GROUPS[number], "$", mkstream=True)
    return clients


async def warm_up(chats: Chats) -> None:
    """Send a first message through each build: Java takes long for it, and a case ends after a silence."""
    for program in (chats.one, chats.two):
        async with Client(program.url) as client:
            await client.subscribe()
            await client.say("first")
            await client.until(2)
    await chats.redis[TWO].xtrim(STREAM, maxlen=0)


# --- Frame by frame ---


async def run_case(chats: Chats, case: Case) -> Any:
    """Send a case's messages; return the frames that came, sorted within one message, and what was stored."""
    redis = chats.redis[ONE]
    last, pending = (await redis.xinfo_stream(STREAM))["last-generated-id"], await _pending(redis, GROUPS[ONE])
    async with Client(chats.one.url) as client:
        frames: list[str] = []
        for number, message in enumerate(case.messages, 1):
            client.texts.clear()
            await client.send(message)
            if number < len(case.messages) and message.startswith(("CONNECT", "STOMP")):
                await client.until(1, QUIET)
            else:
                await client.quiet(SOON if number < len(case.messages) and message == SUBSCRIBE else QUIET)
            frames += sorted(client.texts)
        stored = await redis.xrange(STREAM, f"({last.decode()}")
    read = await _pending(redis, GROUPS[ONE]) - pending
    return {"frames": frames, "closed": client.closed, "stored": [_texts(each) for _, each in stored], "pending": read}


async def _pending(redis: Any, group: str) -> int:
    return int((await redis.xpending(STREAM, group))["pending"])


def _texts(fields: dict[bytes, bytes]) -> dict[str, str]:
    return {field.decode("latin-1"): value.decode("latin-1") for field, value in fields.items()}


# --- In Redis ---


async def commands(chats: Chats) -> Any:
    """Return what the readers ask of Redis."""
    asked = set()
    with contextlib.suppress(TimeoutError):
        async with chats.redis[ONE].monitor() as monitor, asyncio.timeout(2.5):
            while True:
                asked.add(str((await monitor.next_command())["command"]))
    return sorted(each for each in asked if each.startswith("XREADGROUP"))


async def no_group(chats: Chats) -> Any:
    """Return what is shown where no group was made: before it is made, and after."""
    async with Client(chats.lone.url) as client:
        await client.subscribe()
        await client.say("before")
        await client.quiet()
        await chats.redis[LONE].xgroup_create(STREAM, GROUPS[ONE], "0")
        await client.say("after")
        await client.quiet(1.5)
        return client.contents()


async def plain_records(chats: Chats) -> Any:
    """Return what the listener shows of records in plain text, and of the other build's."""
    async with Client(chats.one.url) as client:
        await client.subscribe()
        values = [{"content": "plain"}, {"message": "plain"}, {"content": java.serialize("q")}, {"content": ""}]
        for fields in [*values, {java.serialize("message"): java.serialize("q")}]:
            await chats.redis[ONE].xadd(STREAM, fields)
        await client.until(5)
        await client.quiet()
        return client.contents()


async def second_build(chats: Chats) -> Any:
    """Return what the second build shows and stores: of a message, of none, and of the first build's record."""
    redis = chats.redis[TWO]
    async with Client(chats.two.url) as client:
        await client.subscribe()
        await client.say("안")
        await client.until(2)
        await client.send(send("{}"))
        await redis.xadd(STREAM, {java.serialize("content"): java.serialize("x")})
        await client.until(3)
        await client.quiet()
        stored = [_texts(fields) for _, fields in await redis.xrange(STREAM)]
        return {"shown": client.contents(), "stored": stored, "pending": await _pending(redis, GROUPS[TWO])}


async def poisoned(chats: Chats) -> Any:
    """Return what the second build shows where one of three records is plain text, and of the next one."""
    redis = chats.redis[TWO]
    before = await _pending(redis, GROUPS[TWO])
    async with Client(chats.two.url) as client:
        await client.subscribe()
        async with redis.pipeline() as together:
            for fields in (_java("a"), {"message": "plain"}, _java("b")):
                together.xadd(STREAM, fields)
            await together.execute()
        await client.quiet()
        await redis.xadd(STREAM, _java("c"))
        await client.until(1)
        await client.quiet()
        return {"shown": client.contents(), "pending": await _pending(redis, GROUPS[TWO]) - before}


def _java(content: str) -> dict[bytes, bytes]:
    return {java.serialize("message"): java.serialize(content)}


async def many_records(chats: Chats) -> Any:
    """Return how many reads it takes the second build to show 25 records that are stored at once."""
    redis = chats.redis[TWO]
    async with Client(chats.two.url) as client:
        await client.subscribe()
        async with redis.pipeline() as together:
            for number in range(25):
                together.xadd(STREAM, _java(f"{number:02}"))
            await together.execute()
        began = asyncio.get_running_loop().time()
        await client.until(25)
        took = asyncio.get_running_loop().time() - began
        return {"shown": client.contents(), "took at least two intervals": took > 0.15}


async def feels_live(chats: Chats) -> Any:
    """Return whether a record of another instance reaches a member of the second build within a tenth of a second."""
    redis = chats.redis[TWO]
    reader = await lesson07.member(chats.two.url, "reader", receipts=False)

    async def put(text: str) -> None:
        await lesson07.put_as_java(redis, text)

    took = await lesson07.delays(put, reader)
    await reader.close()
    return {"half of them within 0.1 s": median(took) < 0.1, "by the poll, not at once": median(took) > 0.02}


async def catching_up(chats: Chats) -> Any:
    """Return whether the second build makes up for the reads it missed while Redis stood for two seconds."""
    redis = chats.redis[TWO]
    await redis.execute_command("CLIENT", "PAUSE", "2000")
    before = await _reads(redis)  # answered when the pause is over
    await asyncio.sleep(0.5)
    return {"at once": await _reads(redis) - before > 12}


async def _reads(redis: Any) -> int:
    return int((await redis.info("commandstats"))["cmdstat_xreadgroup"]["calls"])


async def two_instances(chats: Chats) -> Any:
    """Return what the members of two instances of one group are shown of ten messages, all sent at one of them."""
    other = await chats.programs.start("one", ONE)
    before = await _pending(chats.redis[ONE], GROUPS[ONE])
    async with Client(chats.one.url) as here, Client(other.url) as there:
        await here.subscribe()
        await there.subscribe()
        for number in range(10):
            await here.say(f"{number}")
        await here.quiet(1.5)
        shown = [each.contents() for each in (here, there)]
    await other.aclose()
    pending = await _pending(chats.redis[ONE], GROUPS[ONE]) - before
    texts, empty = ([[each for each in some if (each == "null") is null] for some in shown] for null in (False, True))
    return {"here": texts[0], "there": texts[1], "empty, in all": sum(map(len, empty)), "pending": pending}


async def restarted(chats: Chats) -> Any:
    """Return what a restarted instance shows of the records that it had read before, and whether Redis has them."""
    redis = chats.redis[ONE]
    await chats.restart_one()
    async with Client(chats.one.url) as client:
        await client.subscribe()
        await client.quiet(1.5)
        shown = client.contents()
    [(_, records)] = await redis.xreadgroup(GROUPS[ONE], "consumer-1", {STREAM: "0"}, count=10_000)
    return {"shown": shown, "all pending": len(records) == await _pending(redis, GROUPS[ONE]) > 0}


async def redis_killed(chats: Chats) -> Any:
    """Return whether a message is shown after Redis was killed and came back.

    Whether the listener goes on is chance: Spring's client repeats the read that was open, but any error ends it.
    """
    chats.engine.kill()
    await chats.engine.restart()
    async with Client(chats.one.url) as client:
        await client.subscribe()
        await client.say("back")
        await client.until(1, 30)
        await client.quiet()
        return [each for each in client.contents() if each != "null"]


async def stream_deleted(chats: Chats) -> Any:
    """Return what is shown after the stream was deleted: the listener has ended, and a new group changes nothing."""
    await chats.redis[ONE].delete(STREAM)
    async with Client(chats.one.url) as client:
        await client.subscribe()
        await client.say("gone")
        await client.quiet(1.5)
        await chats.redis[ONE].xgroup_create(STREAM, GROUPS[ONE], "0")
        await client.say("again")
        await client.quiet(1.5)
        return client.contents()


# --- The handshake ---


async def handshakes(chats: Chats) -> Any:
    """Return the HTTP status for pages of other origins and for /ws itself, and the subprotocols agreed on."""
    url = chats.one.url
    host = url.split("/")[2]
    offers = (["v11.stomp", "v12.stomp"], ["v12.stomp", "v11.stomp"], ["chat"], None)
    return {
        "foreign origin": await _status(url, origin="https://evil.example"),
        "own origin": await _status(url, origin=f"http://{host}"),
        "/ws": await _status(url.removesuffix("/websocket")),
        "subprotocols": [await _agreed(url, each) for each in offers],
    }


async def _status(url: str, **options: Any) -> int:
    try:
        async with Client(url, **options):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


async def _agreed(url: str, offered: list[str] | None) -> str | None:
    async with Client(url, subprotocols=offered) as client:
        return client.connection.subprotocol


async def sizes(chats: Chats) -> Any:
    """Return the close codes for ever larger WebSocket messages."""
    codes = []
    for size in (8_000, 16_000, 20_000):
        async with Client(chats.one.url) as client:
            await client.subscribe()
            await client.send(send("x" * size, TOPIC))
            await client.until(1, 5)
            codes.append(client.closed)
    return codes


CHATS: dict[str, Callable[[Chats], Awaitable[Any]]] = {
    "chat: the readers' commands": commands,
    "chat: the handshake": handshakes,
    "chat: large messages": sizes,
    "chat: nobody made the group": no_group,
    "chat: records in plain text": plain_records,
    "chat: the second build": second_build,
    "chat: a record that Java did not write": poisoned,
    "chat: 25 records at once": many_records,
    "chat: quick enough to feel live": feels_live,
    "chat: the schedule catches up": catching_up,
    "chat: two instances, one group": two_instances,
    "chat: restarted": restarted,
    "chat: Redis killed": redis_killed,
    "chat: the stream deleted": stream_deleted,
}
