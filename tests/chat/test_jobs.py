"""The audit log and the mentions: alone, on one server, and on real processes of which one is killed."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import unicodedata
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from redis.asyncio import Redis

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.brokers.redis.streams import RedisStreamsBroker
from chatlab.chat.delivery.presence_notes import Person
from chatlab.chat.destinations import record_of, topic_of
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.jobs import audit_log, mentioned, mentions
from chatlab.errors import SetupError
from chatlab.lab.engines.cluster import Cluster
from chatlab.lab.engines.engine import Engine
from chatlab.lab.until import until
from tests.support.stomp_peer import Peer, chat

NOTIFICATIONS = "/user/queue/notifications"
SEND = "/app/chat.sendMessage"


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


async def test_each_message_of_the_rooms_is_a_line_of_the_audit_log(broker: MemoryBroker, tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    options: dict[str, Any] = {"jobs": [audit_log(log)], "job_rooms": ["cats", "새"]}
    async with (
        await chat_server.start(broker, **options) as server,
        await chat_server.start(broker, **options),
        Peer(server.url, "Ana") as ana,
    ):
        await ana.say("야옹\n{}", "새")
        await ana.say("meow", "cats")
        await ana.say("not audited", "dogs")
        await until(lambda: len(lines(log)) == 2)
    written = sorted(lines(log), key=lambda line: line["room"])
    assert [(line["sender"], line["content"]) for line in written] == [("Ana", "meow"), ("Ana", "야옹\n{}")]
    assert [line["id"].split("/")[0] for line in written] == ["cats", "새"]
    assert log.stat().st_mode & 0o077 == 0, "only the owner may read it"


async def waiting(server: chat_server.ChatServer, path: Path) -> None:
    """Wait until the audit log reports that it is waiting."""
    assert server.service.workers is not None
    tally = server.service.workers.tallies["audit"]
    await until(lambda: any(str(path) in reason for reason in tally.waiting.values()))


@pytest.mark.parametrize("fault", ["folder away", "a folder in its place"])
async def test_an_audit_log_that_was_unwritable_for_a_time_has_no_gap(
    fresh_redis: Engine, tmp_path: Path, fault: str
) -> None:
    folder, log = tmp_path / "log", tmp_path / "log" / "audit.jsonl"
    folder.mkdir()
    takeover = 0.1
    async with (
        RedisStreamsBroker(fresh_redis.url, takeover_after=takeover) as broker,
        RedisStreamsBroker(fresh_redis.url, takeover_after=takeover) as another,
        await chat_server.start(broker, jobs=[audit_log(log)]) as server,
        await chat_server.start(another, jobs=[audit_log(log)]) as other,
        Peer(server.url, "Ana") as ana,
    ):
        await ana.say("before")
        await until(lambda: log.exists() and len(lines(log)) == 1)
        folder.rename(tmp_path / "away")
        if fault == "a folder in its place":
            log.mkdir(parents=True)
        for number in range(50):
            await ana.say(str(number))
        await waiting(server, log)
        await waiting(other, log)
        await asyncio.sleep(12 * takeover)  # longer than five takeovers: a record counted as tried would be set aside
        assert server.service.why_not_ready() == ""
        assert "chatlab_jobs_waiting 1" in server.service.metrics_page()
        if fault == "a folder in its place":
            log.rmdir()
            folder.rmdir()
        (tmp_path / "away").rename(folder)
        await until(lambda: len({line["content"] for line in lines(log)}) == 51, timeout=20)
        await until(lambda: "chatlab_jobs_waiting 0" in server.service.metrics_page())
        redis = Redis.from_url(fresh_redis.url)
        assert not await redis.exists("chat-stream:set-aside:audit")
        await redis.aclose()


async def test_a_full_disk_leaves_no_partial_line_in_the_audit_log(broker: MemoryBroker, tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    async with await chat_server.start(broker, jobs=[audit_log(log)]) as server, Peer(server.url, "Ana") as ana:
        await ana.say("before")
        await until(lambda: len(lines(log)) == 1)
        with no_file_beyond(log.stat().st_size + 30):
            await ana.say("does not fit any more")
            await waiting(server, log)
            assert len(lines(log)) == 1
        await until(lambda: len(lines(log)) == 2, timeout=10)
        assert [line["content"] for line in lines(log)] == ["before", "does not fit any more"]


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """Simulate a disk with a few octets left: a write takes what fits, the next one fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)


def test_an_unwritable_audit_log_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"no audit log at .*: No such file"):
        audit_log(tmp_path / "nowhere" / "audit.jsonl")


async def test_an_invalid_job_room_is_refused_at_the_start(broker: MemoryBroker, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="not a room's name: 'a b'"):
        await chat_server.start(broker, jobs=[mentions], job_rooms=["a b"])


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("@Ana look", ["Ana"]),
        ("look, @Ana!", ["Ana"]),
        ("@Anabel", []),
        ("@민지야 안녕", ["민지"]),
        ("@민지수님", ["민지수"]),
        ("@Ana Maria and @민지, @Ana Maria again", ["Ana Maria", "민지"]),
        ("ana@Ana.example", ["Ana"]),
        ("@ Ana", []),
        ("@", []),
        (unicodedata.normalize("NFD", "@민지야 안녕"), ["민지"]),
        ("@Ana\u0308", []),  # Anä
        ("@Ana\u0331", []),  # a mark without a composed letter
        ("@Ana\u200d", []),
        ("@Ana1", []),
        ("@Ana_", []),
    ],
)
def test_a_whole_name_after_an_at_sign_is_a_mention(content: str, names: list[str]) -> None:
    people = [Person(name, f"guest-{number}") for number, name in enumerate(["Ana", "Ana Maria", "민지", "민지수"])]
    assert [person.name for person in mentioned(content, people)] == names


def test_a_mention_is_found_in_any_spelling() -> None:
    people = [Person(unicodedata.normalize("NFD", "민지"), "p"), Person("हिन्दी", "q")]
    assert [person.handle for person in mentioned("@민지 @हिन्दी", people)] == ["p", "q"]
    assert mentioned("@हिन्", people) == []


async def test_only_mentioned_users_are_notified_on_any_instance(broker: MemoryBroker) -> None:
    options: dict[str, Any] = {"jobs": [mentions], "job_rooms": ["cats"]}
    async with (
        await chat_server.start(broker, **options) as one,
        await chat_server.start(broker, **options) as other,
        Peer(one.url, "Ana") as ana,
        Peer(other.url, "민지") as minji,
        Peer(other.url, "Ben") as ben,
    ):
        for peer in (ana, minji, ben):
            await peer.subscribe(NOTIFICATIONS, id="mentions")
            await peer.subscribe("/topic/room.cats", id="room")
        await people_in(one, "cats", 3)
        await ana.say("@민지야, @Ana and <b>@nobody</b>", "cats")
        notified = {frame.get("destination"): frame for frame in [await minji.frame("MESSAGE") for _ in range(2)]}
        note = json.loads(notified[NOTIFICATIONS].body)
        assert (note["kind"], note["room"], note["sender"]) == ("mention", "cats", "Ana")
        assert note["message_id"].startswith("cats/")
        for peer in (ana, ben):
            assert (await peer.frame("MESSAGE")).get("subscription") == "room"
            await peer.nothing_more()


async def people_in(server: chat_server.ChatServer, room: str, count: int) -> list[Person]:
    """Return the people in a room, once there are `count`."""
    async with asyncio.timeout(10):
        while len(people := await server.service.presence.people(room)) < count:  # noqa: ASYNC110  # only the broker knows
            await asyncio.sleep(0.02)
    return people


async def test_a_mention_handled_twice_notifies_once(broker: MemoryBroker) -> None:
    async with await chat_server.start(broker, jobs=[mentions]) as server, Peer(server.url, "민지") as minji:
        await minji.subscribe("/topic/public", id="room")
        await people_in(server, "public", 1)
        assert server.service.workers is not None
        await server.service.workers.aclose()
        async with Peer(server.url, "Ana") as ana:
            await ana.say("@민지")
        _, notify = mentions(broker, server.service.presence)
        record = record_of((await broker.history("chat-stream"))[0])
        assert record is not None
        await notify(record)
        await notify(record)
        private = topic_of(f"/user/{minji.connected.get('user-handle')}/queue/x")
        assert len(await broker.history(private)) == 1


@pytest.mark.parametrize("queue", ["notifications", "errors"])
async def test_a_client_cannot_forge_a_notification(server: chat_server.ChatServer, queue: str) -> None:
    async with Peer(server.url, "eve") as eve, Peer(server.url, "민지") as minji:
        victim = minji.connected.get("user-name")
        await minji.subscribe(f"/user/queue/{queue}")
        await eve.send("SEND", '{"kind":"mention"}', destination=f"/user/{victim}/queue/{queue}")
        assert "only the server sends there" in ((await eve.frame("ERROR")).get("message") or "")
        await minji.nothing_more()


# --- On real processes ---


@asynccontextmanager
async def redis_of(engine: Engine) -> AsyncIterator[Any]:
    redis = Redis.from_url(engine.url)
    try:
        yield redis
    finally:
        await redis.aclose()


async def held_by(redis: Any, topic: str) -> dict[bytes, int]:
    """Return the number of unacknowledged records of each member of the group."""
    return {member["name"]: member["pending"] for member in await redis.xinfo_consumers(topic, "audit")}


async def done_by(url: str) -> int:
    """Return an instance's metrics about its jobs."""
    async with ClientSession() as http, http.get(url.replace("ws://", "http://").replace("/ws", "/metrics")) as answer:
        counts = [
            line.split()[1] for line in (await answer.text()).splitlines() if line.startswith("chatlab_jobs_done")
        ]
        return int(counts[0])


async def test_two_instances_share_the_audit_log_and_one_takes_over_when_the_other_is_killed(
    fresh_redis: Engine, tmp_path: Path
) -> None:
    log = tmp_path / "audit.jsonl"
    options = ["--audit-log", str(log), "--takeover-seconds", "0.5"]
    async with (
        redis_of(fresh_redis) as redis,
        Cluster(fresh_redis.url, 2, options=options) as cluster,
        Peer(cluster.urls[0]) as witness,
        Peer(cluster.urls[1], "Ana") as ana,
    ):
        member = (witness.connected.get("session") or "").split("-")[0].encode()  # the instance's own name
        victim = cluster.instances[0].pid
        assert victim is not None
        sending = asyncio.create_task(keep_sending(ana))
        await eventually(lambda: all_have_done(cluster.urls, 20))
        await stopped_while_it_holds_something(redis, victim, member)
        os.kill(victim, signal.SIGKILL)
        sending.cancel()
        await asyncio.wait([sending])
        await eventually(lambda: nothing_is_left(redis))
        stored = [str(id, "ascii") for id, _ in await redis.xrange("chat-stream")]
        ids = [line["id"].removeprefix("public/") for line in lines(log)]
        assert set(ids) == set(stored), "each at least once"
        assert len(ids) - len(stored) <= 32, "only records held by the killed instance are repeated"
        assert not await redis.exists("chat-stream:set-aside:audit")


async def keep_sending(peer: Peer) -> None:
    for number in range(100_000):
        await peer.send("SEND", chat(str(number)), destination=SEND)
        await asyncio.sleep(0.002)


async def all_have_done(urls: list[str], count: int) -> bool:
    return min([await done_by(url) for url in urls]) >= count


async def nothing_is_left(redis: Any) -> bool:
    (group,) = await redis.xinfo_groups("chat-stream")
    return bool(group["pending"] == 0 and group["lag"] == 0)


async def eventually(condition: Callable[[], Any], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110  # only Redis knows
            await asyncio.sleep(0.05)


async def stopped_while_it_holds_something(redis: Any, pid: int, member: bytes) -> None:
    """Stop a process while it holds unacknowledged records."""
    async with asyncio.timeout(20):
        while True:
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(0.05)  # for its last commands to reach Redis
            if (await held_by(redis, "chat-stream")).get(member):
                return
            os.kill(pid, signal.SIGCONT)
            await asyncio.sleep(0.01)
