"""What a Redis server is and can do: its version, our user's rights, what survives a crash. Checked at the start.

    server = await examine(url, timeout, streams("chat-stream"))    SetupError, in one line, if it is not suitable
    await crash_risk(link, durable=False)                           "", or what a crash of the server may cost

With a command missing, or a user without the right to it, the broker would confirm messages that it never delivers. So
each command is tried: proxies and managed servers hide their version, and ACL DRYRUN needs a right that a chat's user
has no other use for. No trial changes a key: each command is refused for its arguments, or finds nothing.

Left out: a server that is replaced later. Its errors go to the callers.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterError,
    InvalidResponse,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from chatlab.brokers.port import UNKNOWN
from chatlab.brokers.probe import PATIENCE, Probe
from chatlab.brokers.redis.connections.link import Command, Link
from chatlab.brokers.redis.connections.url import RedisUrl, parse
from chatlab.errors import BrokerUnavailable, ChatlabError, LinkLost, SetupError, StillLoading
from chatlab.retry import Backoff, Retry

log = logging.getLogger(__name__)

FOR_STREAMS = (6, 2)  # exclusive ranges and XAUTOCLAIM: https://redis.io/docs/latest/commands/xautoclaim/
FOR_PUBSUB = (6, 0)  # HELLO 3: https://redis.io/docs/latest/commands/hello/
FLAVOURS = {  # INFO's field for the version; servers that speak Redis's protocol have redis_version as well
    "valkey_version": "Valkey",
    "dragonfly_version": "Dragonfly",
    "garnet_version": "Garnet",
    "kvrocks_version": "Kvrocks",
    "redis_version": "Redis",
}
NOBODY = "chatlab:nobody"  # a group, and the last part of keys, that do not exist
FRESH = 10.0  # seconds for which the server's settings are cached
SETTINGS_PATIENCE = 0.5  # seconds that a query for them may take: load balancers and metrics collectors wait for it


@dataclass(frozen=True, slots=True)
class Server:
    """A suitable server: "Redis 7.0.15", "Valkey 9.1.0", or "a Redis" where it does not say."""

    version: str


# --- What is needed ---


class Need(NamedTuple):
    """A command to try, the ACL rules for it and its key or channel, and the reply's type if it must succeed."""

    command: Command
    rule: str
    pattern: str = ""
    success: type | None = None


class Needs(NamedTuple):
    """The commands that a broker needs, and the oldest Redis that has them."""

    oldest: tuple[int, int]
    commands: Sequence[Need]


def streams(topics: Iterable[str] = ()) -> Needs:
    """Return what the broker on streams needs; for these topics, also the rights for their own keys."""
    commands = [*_stream_commands("chatlab:nothing"), *_presence()]
    for topic in topics:
        commands += _topic_keys(topic)
    return Needs(FOR_STREAMS, commands)


def pubsub(topics: Sequence[str] = ()) -> Needs:
    """Return what the broker on Pub/Sub needs; for these topics, also the rights for their own channels."""
    # PUBLISH to a topic would reach its readers. The right to a channel is the same for both, so SUBSCRIBE suffices.
    publish = Need((b"PUBLISH", NOBODY, b""), "+publish", "" if topics else pattern_of(NOBODY))
    channels = topics or (NOBODY,)
    commands = [
        Need((b"PING",), "+ping", success=bytes),
        publish,
        *(Need((b"SUBSCRIBE", topic), "+subscribe", pattern_of(topic)) for topic in channels),
        *(Need((b"UNSUBSCRIBE", topic), "+unsubscribe", pattern_of(topic)) for topic in channels),
    ]
    return Needs(FOR_PUBSUB, commands)


def _stream_commands(key: str) -> list[Need]:
    keys, member = pattern_of(key), b"nobody"
    return [
        Need((b"SCRIPT", b"LOAD", b"return 1"), "+script|load", success=bytes),
        # An id of 0-0 is always refused; "none" is not an id.
        Need((b"XADD", key, b"0-0", b"body", b""), "+xadd", keys),
        Need((b"PEXPIRE", key, b"none"), "+pexpire", keys),
        Need((b"XREAD", b"COUNT", 1, b"STREAMS", key, b"$"), "+xread", keys),
        Need((b"XRANGE", key, b"(0-0", b"+", b"COUNT", 1), "+xrange", keys, success=list),
        Need((b"XREVRANGE", key, b"+", b"(0-0", b"COUNT", 1), "+xrevrange", keys, success=list),
        Need((b"XINFO", b"STREAM", key), "+xinfo|stream", keys),
        Need((b"XINFO", b"GROUPS", key), "+xinfo|groups", keys),
        Need((b"XINFO", b"CONSUMERS", key, NOBODY), "+xinfo|consumers", keys),
        Need((b"XGROUP", b"CREATE", key, NOBODY, b"none"), "+xgroup|create", keys),
        Need((b"XGROUP", b"DELCONSUMER", key, NOBODY, member), "+xgroup|delconsumer", keys),
        Need((b"XREADGROUP", b"GROUP", NOBODY, member, b"COUNT", 1, b"STREAMS", key, b">"), "+xreadgroup", keys),
        Need((b"XACK", key, NOBODY, b"1-1"), "+xack", keys),
        Need((b"XAUTOCLAIM", key, NOBODY, member, 0, b"0-0", b"COUNT", 1), "+xautoclaim", keys),
        Need((b"XCLAIM", key, NOBODY, member, 0, b"1-1"), "+xclaim", keys),
        Need((b"XPENDING", key, NOBODY, b"-", b"+", 1), "+xpending", keys),
        Need((b"EVALSHA", b"0" * 40, 1, key), "+evalsha", keys),
        Need((b"EVAL", b"return 1", 1, key), "+eval", keys, success=int),
        Need((b"CLIENT", b"ID"), "+client|id", success=int),
        Need((b"CLIENT", b"UNBLOCK", 0), "+client|unblock", success=int),
    ]


def _presence() -> list[Need]:
    """Return what the scripts of `redis/presence.py` and the transaction of `redis/groups.py` need."""
    key = "presence:{" + NOBODY + "}"
    keys = pattern_of(key)
    return [
        Need((b"GET", key), "+get", keys),
        Need((b"SET", key, b"", b"XX", b"PX", 1), "+set", keys),  # XX: only if it exists
        Need((b"SMEMBERS", key), "+smembers", keys),
        Need((b"PTTL", key), "+pttl", keys),
        Need((b"PEXPIRE", key, 1), "+pexpire", keys),
        Need((b"MULTI",), "+multi"),
        Need((b"SADD", key, b"nobody"), "+sadd", keys),
        Need((b"SREM", key, b"nobody"), "+srem", keys),
        Need((b"EXEC",), "+exec"),
    ]


def _topic_keys(topic: str) -> list[Need]:
    """Return the needs for one topic's keys: the stream, the keys of `publish_once`, and what a group sets aside."""
    tagged = topic if "{" in topic else f"{{{topic}}}"
    return [
        Need((b"XADD", topic, b"0-0", b"body", b""), "+xadd", pattern_of(topic)),
        Need((b"XRANGE", topic, b"(0-0", b"+", b"COUNT", 1), "+xrange", pattern_of(topic)),
        Need((b"SET", f"{tagged}:once:{NOBODY}", b"", b"XX", b"PX", 1), "+set", pattern_of(tagged)),
        Need((b"XADD", f"{topic}:set-aside:{NOBODY}", b"0-0", b"body", b""), "+xadd", pattern_of(topic)),
    ]


def pattern_of(name: str) -> str:
    """Return the pattern for names of the same kind: "chat:*" for "chat:{cats}", "room*" for "room"."""
    kind, colon, _ = name.partition(":")
    return f"{kind}{colon}*"


# --- Connecting ---


async def examine(url: str, timeout: float, needs: Needs) -> Server:
    """Check the server at `url` and return it; wait for one that is still loading its data.

    Raises SetupError if it is not suitable, with the reason and the remedy in one line, and BrokerUnavailable if there
    is none, or if it is silent for `timeout` seconds.
    """
    parsed = parse(url)
    if parsed.warning:
        log.warning("%s", parsed.warning)
    loading = Retry(
        on=StillLoading,
        backoff=Backoff(0.1, 2.0),
        on_failure=lambda error, wait: log.warning("%s; next try in %.1f s", error, wait),
    )
    async for attempt in loading:
        with attempt:
            return await _examine(parsed, timeout, needs)
    raise AssertionError("the last attempt returns or raises")


def probe(url: str, needs: Needs) -> Probe:
    """Return what tries the commands that a new client at `url` needs. They change no key."""
    return Probe(partial(why_refused, url, PATIENCE, needs))


async def why_refused(url: str, timeout: float, needs: Needs) -> str:
    """Return why the server at `url` would refuse a new broker, "" if it would not.

    Uses a new connection: an open one may keep working while the server refuses new ones.
    """
    try:
        async with asyncio.timeout(timeout):
            await _examine(parse(url), timeout, needs)
    except TimeoutError:
        return f"the broker at {parse(url).name} does not answer a new connection within {timeout:g} s"
    except (SetupError, BrokerUnavailable) as error:
        return str(error)
    return ""


async def _examine(url: RedisUrl, timeout: float, needs: Needs) -> Server:
    # In RESP 3 the answer to SUBSCRIBE is a push, not a reply.
    pushes = [need for need in needs.commands if need.command[0] in (b"SUBSCRIBE", b"UNSUBSCRIBE")]
    plain = [need for need in needs.commands if need not in pushes]
    try:
        info, replies = await _try(url, timeout, Needs(needs.oldest, plain))
        if pushes:
            replies += (await _try(url, timeout, Needs(needs.oldest, pushes), protocol=2))[1]
    except LinkLost as lost:
        if isinstance(lost.__cause__, BusyLoadingError):
            raise StillLoading(f"the broker at {url.name} is loading its data") from lost
        if _unknown(str(lost.__cause__)) and "HELLO" in str(lost.__cause__):
            raise await _without_hello(url, timeout, needs.oldest) from lost
        raise _why_not_connected(url, lost) from lost
    except (AttributeError, TypeError, IndexError) as error:  # raised by redis-py for a reply that no Redis sends
        raise SetupError(f"the server at {url.name} is not Redis ({error})", _other_protocol(url)) from error
    _refuse_by_replies(url, version_of(info), Needs(needs.oldest, [*plain, *pushes]), replies)
    return Server(version_of(info) or "a Redis")


async def _try(url: RedisUrl, timeout: float, needs: Needs, *, protocol: int = 3) -> tuple[dict[str, str], list[Any]]:
    """Return INFO, and the reply to each command, over a new connection. Raises LinkLost, SetupError."""
    link = Link(url.url, timeout, protocol=protocol)
    replies: list[Any] = []
    try:
        await link.open()
        info = await _info(link)
        _refuse_by_info(url, info, needs.oldest)
        await link.pipeline([need.command for need in needs.commands], replies)
    finally:
        await link.close()
    return info, replies


async def _info(link: Link) -> dict[str, str]:
    """Return INFO; empty if this user may not call it."""
    try:
        reply = await link.call("INFO")
    except ResponseError:
        return {}
    return parse_info(reply)


def parse_info(reply: bytes | str) -> dict[str, str]:
    """Return the lines NAME:VALUE of a reply to INFO."""
    text = reply if isinstance(reply, str) else str(reply, "utf-8", "replace")
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: value for name, colon, value in pairs if colon and not name.startswith("#")}


def version_of(info: Mapping[str, str]) -> str:
    """Return "Redis 6.0.16" or "Valkey 9.1.0"; "" if the server hides it."""
    for field, name in FLAVOURS.items():
        if version := info.get(field):
            return f"{name} {version}"
    return ""


def too_old(version: str, oldest: tuple[int, int] = FOR_STREAMS) -> str:
    """Return why this version ("Redis 6.0.16") is not suitable, "" if it may be."""
    found = re.fullmatch(r"Redis (\d+)\.(\d+).*", version)
    if found is None or (int(found[1]), int(found[2])) >= oldest:
        return ""
    return f"{version} is too old: Redis {oldest[0]}.{oldest[1]} or newer is required, or Valkey"


UPDATE = "update that server or use another; `docker compose up -d valkey` starts one"
LOGIN = "the URL is redis://USER:PASSWORD@HOST:PORT, or redis://:PASSWORD@HOST:PORT; write @ / ? # % in it as %40 …"


async def _without_hello(url: RedisUrl, timeout: float, oldest: tuple[int, int]) -> SetupError:
    """Return the error for a server without RESP 3, with its version if RESP 2 shows it."""
    link = Link(url.url, timeout, protocol=2)
    try:
        await link.open()
        version = version_of(await _info(link))
    except LinkLost:
        version = ""
    finally:
        await link.close()
    reason = too_old(version, oldest) or f"{version or 'this server'} does not know HELLO, which came with Redis 6.0"
    return SetupError(f"the broker at {url.name} is not suitable: {reason}", UPDATE)


def _why_not_connected(url: RedisUrl, lost: LinkLost) -> ChatlabError:
    """Return a SetupError if waiting cannot help, BrokerUnavailable if the server may only be away."""
    cause = lost.__cause__
    said = str(cause)
    if isinstance(cause, AuthenticationError):
        if "invalid" in said.lower():  # else no login was tried
            return SetupError(f"the broker at {url.name} rejected the password for user {url.user!r}", LOGIN)
        return SetupError(f"the broker at {url.name} requires a password", LOGIN)
    if isinstance(cause, NoPermissionError):
        named = re.search(r"'([a-z|]+)'", said)
        return _not_allowed(url, [f"+{named[1]}" if named else "+@connection"], [])
    if isinstance(cause, InvalidResponse):
        return SetupError(f"the server at {url.name} is not Redis ({said})", _other_protocol(url))
    if isinstance(cause, ResponseError):
        return _connection_refused(url, said)
    if "max number of clients" in said:
        return SetupError(f"the broker at {url.name} has reached its limit of clients", "raise its `maxclients`")
    if "SSL" in said or "certificate" in said:
        return SetupError(f"no TLS connection to the broker at {url.name}: {said}", _tls_remedy(said))
    if isinstance(cause, TimeoutError) and url.url.startswith("rediss://"):
        return BrokerUnavailable(f"{lost}; {_tls_remedy('')}")
    if isinstance(cause, RedisConnectionError) and " connecting to " not in said:  # it accepted us first
        closed = f"the server at {url.name} closed the connection ({said.rstrip('.')})"
        return BrokerUnavailable(f"{closed}; {_other_protocol(url)}")
    return lost


def _other_protocol(url: RedisUrl) -> str:
    if url.url.startswith("redis://"):
        return "check that the port is Redis's; if it requires TLS, use rediss:// instead of redis://"
    return "check that the port is Redis's"


def _tls_remedy(said: str) -> str:
    if "mismatch" in said:
        return "use a host name that is in its certificate"
    if "CERTIFICATE_VERIFY_FAILED" in said or "certificate verify failed" in said:
        return "give the certificate authority's file with ?ssl_ca_certs=FILE"
    return "use redis:// instead of rediss:// if that port does not speak TLS"


def _connection_refused(url: RedisUrl, said: str) -> SetupError:
    if "cluster mode" in said:
        return _cluster(url)
    if "DB index" in said:
        return SetupError(f"the broker at {url.name} has no database {url.options.get('db', 0)}", "use a lower number")
    if _unknown(said):
        remedy = (
            "Sentinels and servers with renamed commands are not supported;"
            " use the server itself, or leave the database out of the URL"
        )
        return SetupError(f"the broker at {url.name} refuses the connection: {said.splitlines()[0]}", remedy)
    if said.startswith("DENIED"):
        remedy = "set a password on it, or `protected-mode no`"
        return SetupError(f"the broker at {url.name} accepts connections only from its own machine", remedy)
    return SetupError(
        f"the broker at {url.name} refuses the connection: {said.splitlines()[0]}", "check that server's log"
    )


# --- Is it suitable? ---


def _refuse_by_info(url: RedisUrl, info: Mapping[str, str], oldest: tuple[int, int]) -> None:
    if reason := too_old(version_of(info), oldest):
        raise SetupError(f"the broker at {url.name} is not suitable: {reason}", UPDATE)
    mode = info.get("redis_mode") or info.get("server_mode")
    if mode == "sentinel":
        remedy = "connect to the server itself: `SENTINEL GET-MASTER-ADDR-BY-NAME` gives its address"
        raise SetupError(f"the broker at {url.name} is a Sentinel, which keeps no messages", remedy)
    if mode == "cluster" or info.get("cluster_enabled") == "1":
        raise _cluster(url)
    if info.get("role") == "slave" and info.get("slave_read_only") != "0":
        raise _replica(url, f" of {info.get('master_host')}:{info.get('master_port')}")


def _cluster(url: RedisUrl) -> SetupError:
    remedy = "use a server with `cluster-enabled no`"
    return SetupError(f"the broker at {url.name} is part of a cluster, but chatlab needs a single server", remedy)


def _replica(url: RedisUrl, of: str = "") -> SetupError:
    reason = f"the broker at {url.name} is a replica{of} and accepts no writes"
    return SetupError(reason, "connect to its primary instead")


def _refuse_by_replies(url: RedisUrl, version: str, needs: Needs, replies: Sequence[Any]) -> None:
    rules: list[str] = []
    patterns: list[str] = []
    missing: list[str] = []
    for need, reply in zip(needs.commands, replies, strict=True):
        if not isinstance(reply, RedisError):
            if need.success is not None and not isinstance(reply, need.success):
                raise SetupError(f"the server at {url.name} is not Redis ({reply!r:.60})", _other_protocol(url))
            continue
        said = str(reply)
        # In a transaction a refused EXEC is "EXECABORT Transaction discarded because of: NOPERM …".
        if isinstance(reply, NoPermissionError) or "of: NOPERM" in said:
            if not re.search(r"\b(key|keys|channel|channels)\b", said):
                rules.append(need.rule)
            elif need.pattern:
                patterns.append(("&" if "channel" in said else "~") + need.pattern)
        elif _unknown(said):
            missing.append(need.rule[1:].replace("|", " ").upper())
        elif (refusal := _no_writes(url, reply) or _wrong_type(url, need, said)) is not None:
            raise refusal
        elif need.success is not None:
            missing.append(f"{_as_text(need.command)} ({said})")
    if missing:
        raise _lacks(url, version, missing, needs.oldest)
    if rules or patterns:
        raise _not_allowed(url, rules, patterns)


def _unknown(said: str) -> bool:
    return said.lower().startswith(("unknown command", "unknown subcommand"))


def _as_text(command: Command) -> str:
    return " ".join(str(part, "ascii") if isinstance(part, bytes) else str(part) for part in command)


def _lacks(url: RedisUrl, version: str, missing: Sequence[str], oldest: tuple[int, int]) -> SetupError:
    since = f"Redis {oldest[0]}.{oldest[1]} and Valkey have them, unless they are renamed or disabled"
    lacks = f"it lacks {', '.join(dict.fromkeys(missing))}"
    return SetupError(
        f"the broker at {url.name} ({version or 'version unknown'}) is not suitable: {lacks}; {since}", UPDATE
    )


def _not_allowed(url: RedisUrl, rules: Sequence[str], patterns: Sequence[str]) -> SetupError:
    """Return the error, with the exact ACL rule that helps."""
    missing = [*dict.fromkeys(rules), *dict.fromkeys(patterns)]
    commands = ", ".join(rule[1:].replace("|", " ").upper() for rule in dict.fromkeys(rules))
    what = " and ".join(
        filter(
            None, [f"run {commands}" if commands else "", "use all the keys and channels it needs" if patterns else ""]
        )
    )
    remedy = f"`ACL SETUSER {url.user} {' '.join(missing)}` allows it"
    return SetupError(f"the broker at {url.name} does not allow user {url.user!r} to {what}", remedy)


def _no_writes(url: RedisUrl, reply: RedisError) -> SetupError | None:
    """Return the error for a server that accepts no writes now, or none from us."""
    said = str(reply)
    if isinstance(reply, ReadOnlyError) or said.startswith(("MASTERDOWN", "Link with MASTER")):
        return _replica(url)
    if isinstance(reply, (MovedError, ClusterError)):
        return _cluster(url)
    if isinstance(reply, OutOfMemoryError):
        return SetupError(f"the broker at {url.name} is out of memory: {said}", "raise its `maxmemory`")
    if said.startswith("MISCONF"):
        reason = said.removeprefix("MISCONF ").partition(". ")[0]
        return SetupError(f"the broker at {url.name} accepts no writes: {reason}", "check its disk and its log")
    if said.startswith("NOREPLICAS"):
        remedy = "restore them, or lower `min-replicas-to-write`"
        return SetupError(f"the broker at {url.name} accepts no writes: it has too few replicas", remedy)
    return None


def _wrong_type(url: RedisUrl, need: Need, said: str) -> SetupError | None:
    if not said.startswith("WRONGTYPE"):
        return None
    key = next(str(part) for part in need.command if isinstance(part, str))
    remedy = f"rename or delete that key (`RENAME {key} old:{key}`), or use another database, redis://HOST:PORT/1"
    reason = f"the key {key!r} of the broker at {url.name} does not hold what chatlab keeps there: {said}"
    return SetupError(reason, remedy)


# --- What a crash may cost ---


class CrashRisk:
    """What a crash of one server may cost: queried on each new connection, and again after a while."""

    def __init__(self, url: str, timeout: float, *, durable: bool) -> None:
        self._link = Link(url, timeout)
        self._durable = durable
        self._known = f"{UNKNOWN} what a crash of the broker may lose: it has not been asked yet"
        self._learned = False
        self._asked = -math.inf  # on the clock `time.monotonic`
        self._one_at_a_time = asyncio.Lock()

    async def learn(self, link: Link) -> None:
        """Query over a new connection; log a change. Raises LinkLost."""
        self._asked = time.monotonic()
        known = await crash_risk(link, durable=self._durable)
        if self._learned and known != self._known:
            log.warning("the broker's settings have changed: %s", known or "confirmed messages now survive a crash")
        self._known, self._learned = known, True

    async def now(self) -> str:
        """Return the answer: refreshed after a lost connection or FRESH seconds; the last one if the server is away."""
        async with self._one_at_a_time:
            if not await self._link.is_usable():
                await self._link.close()
            if not self._link.is_open or time.monotonic() - self._asked >= FRESH:
                await self._ask()
        return self._known

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(SETTINGS_PATIENCE):
                if not self._link.is_open:
                    await self._link.open()
                await self.learn(self._link)
        except (LinkLost, TimeoutError):
            await self._link.close()

    async def aclose(self) -> None:
        """Close the connection."""
        await self._link.close()


async def crash_risk(link: Link, *, durable: bool) -> str:
    """Return what a crash of this server may cost of what it confirmed, "" if nothing. Raises LinkLost.

    `durable`: each publish is confirmed only when it is on disk.
    """
    replies: list[Any] = []
    await link.pipeline([("CONFIG", "GET", "*append*"), ("CONFIG", "GET", "save"), ("INFO",)], replies)
    append, save, said = replies
    settings = {
        str(name, "utf-8"): str(value, "utf-8")
        for reply in (append, save)
        if isinstance(reply, dict)
        for name, value in reply.items()
    }
    return what_a_crash_costs(settings, {} if isinstance(said, RedisError) else parse_info(said), durable=durable)


def what_a_crash_costs(settings: Mapping[str, str], info: Mapping[str, str], *, durable: bool = False) -> str:
    """Like `crash_risk`, from the replies to CONFIG GET and INFO; managed servers may refuse either."""
    if info.get("role") == "slave":
        return (
            "this server is a replica: what it confirms is lost when it next synchronizes with its primary;"
            " connect to the primary"
        )
    return "; ".join(filter(None, ["" if durable else _on_disk(settings, info), _on_replicas(info)]))


ALWAYS = "`appendonly yes` and `appendfsync always` prevent that"
DURABLY = "`appendfsync always` or, on Redis 8, --durability fsync prevents that"


def _on_disk(settings: Mapping[str, str], info: Mapping[str, str]) -> str:
    kept = settings.get("appendonly") or {"1": "yes", "0": "no"}.get(info.get("aof_enabled", ""), "")
    if kept == "no":
        save = settings.get("save", "?")
        if not save:
            return f'a crash of the broker loses every message (appendonly no, save ""); {ALWAYS}'
        return (
            f"a crash of the broker may lose everything since its last snapshot (appendonly no, save {save}); {ALWAYS}"
        )
    if kept != "yes":
        return f"{UNKNOWN} what a crash of the broker may lose: it does not disclose its settings; {ALWAYS}"
    sync = settings.get("appendfsync")
    if sync == "always":
        if settings.get("no-appendfsync-on-rewrite") != "yes":
            return ""
        paused = "may lose messages received during a rewrite of its append-only file (no-appendfsync-on-rewrite yes)"
        return f"a power cut at the broker {paused}; `no-appendfsync-on-rewrite no` prevents that"
    if sync == "everysec":
        return f"a crash of the broker may lose the last second or two (appendfsync everysec); {DURABLY}"
    if sync == "no":
        return f"a power cut at the broker may lose the last half minute or more (appendfsync no); {DURABLY}"
    return f"{UNKNOWN} how much a power cut at the broker may lose: it does not disclose appendfsync; {DURABLY}"


def _on_replicas(info: Mapping[str, str]) -> str:
    replicas = info.get("connected_slaves", "0")
    if replicas == "0":
        return ""
    limit = "`min-replicas-to-write` limits that to the last `min-replicas-max-lag` seconds"
    return f"a failover to one of {replicas} replicas may lose messages that it had not received; {limit}"
