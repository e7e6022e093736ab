"""How an engine can route messages, and which protocols it speaks; each is tried.

    await routes(candidate)         # {EVERYBODY: True, WORKERS: True, …}
    await rich(candidate)           # {URGENT: True, EXPIRY: True, …}
    await late_readers(candidate)   # [100, 100]: what each of two readers receives of 100 messages before it

An engine is tried with its own client (`trials/clients.py`), so that none is judged by the limits of the port
(`brokers/port.py`). Only `memory`, which has no client, is tried through the port.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from chatlab.brokers.port import KeepsHistory
from chatlab.lab.engines import engine as engines
from chatlab.lab.engines.engine import Engine
from chatlab.lab.engines.kinds import free_ports
from chatlab.lab.experiments.lesson05 import Candidate, count, fresh, take
from chatlab.lab.experiments.trials import clients
from chatlab.lab.experiments.trials.clients import Post
from chatlab.locale import _

__all__ = ["RICH", "ROUTES", "enable_protocols", "late_readers", "protocols", "rich", "routes"]

ANSWER_SECONDS = 1.5

EVERYBODY = _("to all readers")
WORKERS = _("to one of several workers")
PATTERN = _("to readers of a pattern of topics")
PAST = _("again, from a position in the past")
ROUTES = (EVERYBODY, WORKERS, PATTERN, PAST)
URGENT = _("urgent messages before others")
EXPIRY = _("removed if nobody reads it in time")
LATER = _("delivered later, at a set time")
DEAD_LETTER = _("set aside after it failed")
RICH = (URGENT, EXPIRY, LATER, DEAD_LETTER)

# The keys of the abilities in files, which are the same in every language.
BY_KEY = {
    "everybody": EVERYBODY,
    "workers": WORKERS,
    "pattern": PATTERN,
    "past": PAST,
    "urgent": URGENT,
    "expiry": EXPIRY,
    "later": LATER,
    "dead letter": DEAD_LETTER,  # not shown: a key
}


# The clients by the names of the candidates.
CLIENTS: Mapping[str, Callable[[str], clients.Engine]] = {
    "Redis Pub/Sub": clients.PubSub,
    "Redis Streams": clients.Streams,  # not shown: a product's name
    "RabbitMQ": clients.RabbitMQ,
    "Kafka": clients.Kafka,
}

LIFETIME = 0.1  # seconds, of a message that expires
DELAY = 0.2  # seconds, of a message that is delivered later


def client(candidate: Candidate) -> clients.Engine | None:
    """Return a candidate's own client; None for `memory`, which has no engine."""
    return None if candidate.engine is None else CLIENTS[candidate.name](candidate.engine.url)


async def routes(candidate: Candidate) -> dict[str, bool]:
    """Return which of the `ROUTES` a message can take."""
    own = client(candidate)
    return {
        EVERYBODY: await reaches_everybody(candidate),
        WORKERS: own is not None and await own.shares_work(),
        PATTERN: own is not None and await own.matches(),
        PAST: await late_readers(candidate, messages=3) == [3, 3],
    }


async def rich(candidate: Candidate) -> dict[str, bool]:
    """Return which of the `RICH` messaging patterns the engine has without a program of one's own beside it."""
    own = client(candidate)
    return {name: own is not None and await _tried(own, trial) for name, trial in TRIALS.items()}


async def _tried(own: clients.Engine, trial: Callable[[Post], Awaitable[bool]]) -> bool:
    async with own.post() as post:
        return await trial(post)


async def late_readers(candidate: Candidate, *, messages: int = 100, readers: int = 2) -> list[int]:
    """Return how many of `messages`, published before, each of `readers` receives by the engine's own means."""
    if own := client(candidate):
        return await own.late_readers(messages, readers)
    (broker,) = await candidate.open()
    try:
        topic = fresh("past")
        for number in range(messages):
            await broker.publish(topic, b"%d" % number)
        if isinstance(broker, KeepsHistory):
            return [len(await broker.history(topic)) for __ in range(readers)]
        return [await count(await broker.subscribe(topic)) for __ in range(readers)]
    finally:
        await broker.aclose()


async def reaches_everybody(candidate: Candidate) -> bool:
    """Return whether two readers both receive a message. The port's readers do that on every engine."""
    (broker,) = await candidate.open()
    try:
        topic = fresh("all")
        readers = [await broker.subscribe(topic) for __ in range(2)]
        await broker.publish(topic, b"for all")
        return [await take(reader, 1) for reader in readers] == [[b"for all"], [b"for all"]]
    finally:
        await broker.aclose()


async def urgent_first(post: Post) -> bool:
    """Return whether an urgent message overtakes one that was published before it."""
    await post.publish(b"plain")
    await post.publish(b"urgent", urgent=True)
    return await post.read(2) == [b"urgent", b"plain"]


async def expires(post: Post) -> bool:
    """Return whether a message that nobody read in its lifetime is gone, and one without a lifetime is there."""
    await post.publish(b"brief", lifetime=LIFETIME)
    await post.publish(b"lasting")
    await asyncio.sleep(2 * LIFETIME)
    return await post.read(2) == [b"lasting"]


async def comes_later(post: Post) -> bool:
    """Return whether a delayed message arrives, after one that was published later."""
    await post.publish(b"later", delay=DELAY)
    await post.publish(b"now")
    return await post.read(2) == [b"now", b"later"]


async def sets_aside(post: Post) -> bool:
    """Return whether a message that fails again and again is taken out of its reader's way, and kept."""
    return await post.fail() == [b"poison"]


TRIALS = {URGENT: urgent_first, EXPIRY: expires, LATER: comes_later, DEAD_LETTER: sets_aside}


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

PROTOCOLS_BY_KEY = dict(zip(("amqp0", "amqp1", "mqtt", "stomp", "resp", "kafka"), PROBES, strict=True))

# Plugins that RabbitMQ includes, and for each that listens on a port the setting for that port.
PLUGINS = {"rabbitmq_amqp1_0": "", "rabbitmq_mqtt": "mqtt.listeners.tcp.1", "rabbitmq_stomp": "stomp.listeners.tcp.1"}
DEFAULT_PORTS = {"redis": 6379, "rabbitmq": 5672, "kafka": 9092}
PLUGIN_PORTS = [1883, 61613]  # MQTT, STOMP


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
    """Return for each candidate the protocols in which its engine answers on any of its ports.

    A RabbitMQ that was not started here is left out if it answers only in AMQP: its plugins cannot be enabled here, so
    that the others were not tried.
    """
    spoken = await asyncio.gather(*(_spoken(candidate.engine) for candidate in candidates))
    found = zip(candidates, spoken, strict=True)
    return {candidate.name: names for candidate, names in found if not _untried(candidate, names)}


def _untried(candidate: Candidate, names: Sequence[str]) -> bool:
    foreign = candidate.engine is not None and candidate.engine.kind == "rabbitmq" and not candidate.ours
    return foreign and all(name.startswith("AMQP") for name in names)


async def _spoken(engine: Engine | None) -> list[str]:
    if engine is None:
        return []
    addresses = _addresses(engine)
    answered = await asyncio.gather(*(_answers(addresses, *probe) for probe in PROBES.values()))
    return [name for name, yes in zip(PROBES, answered, strict=True) if yes]


Address = tuple[str, int]


async def _answers(addresses: Sequence[Address], probe: bytes, understood: Callable[[bytes], bool]) -> bool:
    return any(map(understood, await asyncio.gather(*(_answer(address, probe) for address in addresses))))


def _addresses(engine: Engine) -> list[Address]:
    """Return where an engine listens; for a foreign RabbitMQ, also where its plugins do unless they are told to."""
    first = urlsplit(engine.url.partition(",")[0])
    host, ports = first.hostname or "127.0.0.1", [first.port or DEFAULT_PORTS[engine.kind]]
    if engine.folder is None and engine.kind == "rabbitmq":
        ports += PLUGIN_PORTS
    configuration = engine.folder / "rabbitmq.conf" if engine.folder else Path("no-such-file")
    if configuration.exists():
        ports += [int(line.rpartition(":")[2]) for line in configuration.read_text().splitlines() if ".tcp." in line]
    return [(host, port) for port in ports]


async def _answer(address: Address, probe: bytes) -> bytes:
    """Return the first bytes of the answer; none if the server disconnects, does not answer, or is not there."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection(*address)
    except (TimeoutError, OSError):
        return b""
    try:
        writer.write(probe)
        async with asyncio.timeout(ANSWER_SECONDS):
            return await reader.read(4096)
    except (TimeoutError, OSError):
        return b""
    finally:
        writer.transport.abort()
