"""How an engine can route messages, and which protocols it speaks; each is tried.

If the port (`brokers/port.py`) has no call for something that an engine can do, the engine's own client is used, so
that no engine is judged by the port's limits.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from aiokafka import AIOKafkaConsumer
from redis.asyncio import Redis

from chatlab.brokers.kafka.broker import KafkaBroker
from chatlab.brokers.port import Broker, GroupConsumer, HasGroups, KeepsHistory
from chatlab.brokers.rabbitmq.broker import RabbitMQBroker
from chatlab.brokers.redis.pubsub import RedisPubSubBroker
from chatlab.lab.engines import engine as engines
from chatlab.lab.engines.engine import Engine
from chatlab.lab.engines.kinds import free_ports
from chatlab.lab.experiments.lesson05 import Candidate, fresh, take
from chatlab.locale import _

__all__ = ["ROUTES", "enable_protocols", "protocols", "routes"]

PATIENCE = 10.0
ANSWER_SECONDS = 1.5

EVERYBODY = _("to all readers")
WORKERS = _("to one of several workers")
PATTERN = _("to readers of a pattern of topics")
PAST = _("again, from a position in the past")
ROUTES = (EVERYBODY, WORKERS, PATTERN, PAST)


async def routes(candidate: Candidate) -> dict[str, bool]:
    """Return which of the `ROUTES` a message can take."""
    (broker,) = await candidate.open()
    try:
        return {
            EVERYBODY: await reaches_everybody(broker),
            WORKERS: await shares_work(broker),
            PATTERN: await matches_patterns(candidate, broker),
            PAST: await goes_back(broker),
        }
    finally:
        await broker.aclose()


async def reaches_everybody(broker: Broker) -> bool:
    """Return whether two readers both receive a message."""
    topic = fresh("all")
    readers = [await broker.subscribe(topic) for __ in range(2)]
    await broker.publish(topic, b"for all")
    return [await take(reader, 1) for reader in readers] == [[b"for all"], [b"for all"]]


async def shares_work(broker: Broker) -> bool:
    """Return whether, while one worker of a group processes a record, another worker receives the next."""
    if not isinstance(broker, HasGroups):
        return False
    topic = fresh("work")
    seen: dict[str, set[bytes]] = {"one": set(), "two": set()}

    async def work(name: str, member: GroupConsumer) -> None:
        async for record in member:
            seen[name].add(record.body)  # never acknowledged: it is still being processed

    members = [(name, await broker.join(topic, "workers", name)) for name in seen]
    working = [asyncio.create_task(work(*member)) for member in members]
    await broker.publish(topic, b"first")
    await _until(lambda: any(seen.values()))
    await broker.publish(topic, b"second")
    with contextlib.suppress(TimeoutError):
        await _until(lambda: len(seen["one"] | seen["two"]) == 2, seconds=PATIENCE)
    for task in working:
        task.cancel()
    await asyncio.gather(*working, return_exceptions=True)
    return sorted(map(len, seen.values())) == [1, 1] and seen["one"] != seen["two"]


async def _until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # each engine fills the sets in its own way; none signals it
            await asyncio.sleep(0.02)


async def matches_patterns(candidate: Candidate, broker: Broker) -> bool:
    """Return whether a reader of `chat.*` receives messages to chat.seoul and chat.busan, and not to news.seoul."""
    if candidate.engine is None:
        return False
    chat = f"chat{uuid.uuid4().hex[:8]}"
    topics = {f"{chat}.seoul": b"1", f"{chat}news.seoul": b"2", f"{chat}.busan": b"3"}

    async def publish() -> None:
        for topic, body in topics.items():
            await broker.publish(topic, body)

    if isinstance(broker, RabbitMQBroker):
        subscription = await broker.subscribe_matching(f"{chat}.*")
        await publish()
        return await take(subscription, 2) == [b"1", b"3"]
    if isinstance(broker, RedisPubSubBroker):
        return await _redis_pattern(candidate.engine.url, f"{chat}.*", publish)
    if isinstance(broker, KafkaBroker):
        for name, body in topics.items():  # a topic of Kafka's for each: a pattern selects existing ones by name
            async with KafkaBroker(candidate.engine.url, log=name, partitions=1) as other:
                await other.publish(name, body)
        return await _kafka_pattern(candidate.engine.url, f"^{chat}\\.")
    return False


async def _redis_pattern(url: str, pattern: str, publish: Callable[[], Awaitable[None]]) -> bool:
    """Subscribe with PSUBSCRIBE, which takes glob patterns."""
    async with Redis.from_url(url) as client, client.pubsub() as listener:
        await listener.psubscribe(pattern)
        await listener.get_message(timeout=PATIENCE)  # the server's confirmation
        await publish()
        received = [await listener.get_message(timeout=PATIENCE) for __ in range(2)]
    return [message and message["data"] for message in received] == [b"1", b"3"]


async def _kafka_pattern(url: str, pattern: str) -> bool:
    """Consume all topics whose names match a regular expression."""
    consumer = AIOKafkaConsumer(bootstrap_servers=urlsplit(url).netloc, auto_offset_reset="earliest")
    consumer.subscribe(pattern=pattern)
    await consumer.start()
    received: list[bytes] = []
    try:
        async with asyncio.timeout(PATIENCE):
            while len(received) < 2:
                fetched = await consumer.getmany(timeout_ms=200)
                received += [record.value for records in fetched.values() for record in records]
    except TimeoutError:
        return False
    finally:
        await consumer.stop()
    return sorted(received) == [b"1", b"3"]


async def goes_back(broker: Broker) -> bool:
    """Return whether a reader that names the first of three messages receives the other two."""
    if not isinstance(broker, KeepsHistory):
        return False
    topic = fresh("past")
    first, *__ = [await broker.publish(topic, body) for body in (b"1", b"2", b"3")]
    return await take(await broker.subscribe(topic, after=first), 2) == [b"2", b"3"]


# --- Protocols -------------------------------------------------------------------------------------------------------

# MQTT 3.1.1, 3.1: CONNECT with a clean session, keep-alive 60 s; then client id, user name and password
MQTT_CONNECT = b"\x00\x04MQTT\x04\xc2\x00\x3c" + b"".join(
    struct.pack("!H", len(word)) + word for word in (b"lab", b"guest", b"guest")
)

# What a client of each protocol sends first, and how to recognize an answer in the same protocol.
PROBES: Mapping[str, tuple[bytes, Callable[[bytes], bool]]] = {
    # AMQP 0-9-1, 4.2.2: the protocol header; the answer is a method frame (type 1) on channel 0: connection.start
    "AMQP 0-9-1": (b"AMQP\x00\x00\x09\x01", lambda answer: answer[:3] == b"\x01\x00\x00"),
    # AMQP 1.0, 2.2: protocol id 3 is SASL; a server of this version answers with a header of major version 1
    "AMQP 1.0": (b"AMQP\x03\x01\x00\x00", lambda answer: answer[:4] == b"AMQP" and answer[5:6] == b"\x01"),
    # MQTT 3.1.1, 3.2: the answer to CONNECT is a CONNACK, 0x20 0x02 and two more octets
    "MQTT": (b"\x10" + bytes([len(MQTT_CONNECT)]) + MQTT_CONNECT, lambda answer: answer[:2] == b"\x20\x02"),
    "STOMP": (
        b"CONNECT\naccept-version:1.2\nhost:/\nlogin:guest\npasscode:guest\n\n\x00",
        lambda answer: answer.startswith(b"CONNECTED\n"),
    ),
    _("Redis's own (RESP)"): (b"*1\r\n$4\r\nPING\r\n", lambda answer: answer == b"+PONG\r\n"),
    # ApiVersions (key 18), version 0, correlation id 7, no client id
    _("Kafka's own"): (
        b"\x00\x00\x00\x0a\x00\x12\x00\x00\x00\x00\x00\x07\xff\xff",
        lambda answer: answer[4:8] == b"\x00\x00\x00\x07",
    ),
}

# Plugins that RabbitMQ includes, and for each that listens on a port the setting for that port.
PLUGINS = {"rabbitmq_amqp1_0": "", "rabbitmq_mqtt": "mqtt.listeners.tcp.1", "rabbitmq_stomp": "stomp.listeners.tcp.1"}


def enable_protocols(engine: Engine) -> None:
    """Enable the protocol plugins of a RabbitMQ that was started here, from its next start on.

    Does nothing for other engines.
    """
    if engine.kind != "rabbitmq" or engine.folder is None:
        return
    plugins = {name: setting for name, setting in PLUGINS.items() if list(_plugins_folder().glob(f"{name}-*"))}
    (engine.folder / "enabled_plugins").write_text(f"[{','.join(plugins)}].\n", encoding="utf-8")
    settings = [setting for setting in plugins.values() if setting]
    lines = [f"{name} = 127.0.0.1:{port}\n" for name, port in zip(settings, free_ports(len(settings)), strict=True)]
    (engine.folder / "rabbitmq.conf").write_text("".join(lines), encoding="utf-8")


def _plugins_folder() -> Path:
    program = engines.find("rabbitmq").program
    return program.parent.parent / "plugins" if program else Path("no-such-folder")


async def protocols(candidates: Sequence[Candidate]) -> dict[str, list[str]]:
    """Return for each candidate the protocols in which its engine answers on any of its ports."""
    spoken = await asyncio.gather(*(_spoken(candidate.engine) for candidate in candidates))
    return {candidate.name: names for candidate, names in zip(candidates, spoken, strict=True)}


async def _spoken(engine: Engine | None) -> list[str]:
    if engine is None:
        return []
    ports = _ports(engine)
    answered = await asyncio.gather(*(_answers(ports, *probe) for probe in PROBES.values()))
    return [name for name, yes in zip(PROBES, answered, strict=True) if yes]


async def _answers(ports: Sequence[int], probe: bytes, understood: Callable[[bytes], bool]) -> bool:
    return any(map(understood, await asyncio.gather(*(_answer(port, probe) for port in ports))))


def _ports(engine: Engine) -> list[int]:
    ports = [urlsplit(engine.url).port or 0]
    configuration = engine.folder / "rabbitmq.conf" if engine.folder else Path("no-such-file")
    if configuration.exists():
        ports += [int(line.rpartition(":")[2]) for line in configuration.read_text().splitlines() if ".tcp." in line]
    return ports


async def _answer(port: int, probe: bytes) -> bytes:
    """Return the first bytes of the answer; none if the server disconnects or does not answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(probe)
        async with asyncio.timeout(ANSWER_SECONDS):
            return await reader.read(4096)
    except (TimeoutError, OSError):
        return b""
    finally:
        writer.transport.abort()
