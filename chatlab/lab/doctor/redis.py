"""`chatlab doctor --redis URL`: what a chat keeps on a Redis, when it ends, and who is connected.

It only reads. Names come by SCAN, a page at a time; each costs a PTTL, and an XLEN if it is a stream. Sizes are
measured (MEMORY USAGE) on `SAMPLE` keys of each kind, and said of all. At most `MAX_KEYS` names are looked at.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from redis.exceptions import NoPermissionError, ResponseError
from rich.console import Group
from rich.table import Table
from rich.text import Text

from chatlab.brokers.names import parse_id
from chatlab.brokers.redis.connections.link import Command, Link
from chatlab.brokers.redis.keys import KINDS, KeyKind, kind_of
from chatlab.errors import SetupError

TIMEOUT = 5.0  # seconds a server may take to answer
PAGE = 1000  # names in one SCAN
SAMPLE = 200  # keys of a kind that are measured
MAX_KEYS = 1_000_000
MAX_GROUPS = 1000  # streams whose groups are looked at
SHOWN = 10  # groups, those with the most undone first
DEAD = 600.0  # seconds of silence after which a consumer is called dead
OTHERS = KeyKind("not the chat's", KINDS[0].pattern, "", "", "", is_stream=False)


@dataclass(slots=True)
class Keys:
    """The keys of one kind. Octets and ids are those of the `measured` ones; `ends` are seconds from now."""

    keys: int = 0
    records: int = 0
    octets: int = 0
    measured: int = 0
    oldest: float | None = None  # seconds since 1970
    newest: float | None = None
    first_end: float | None = None
    last_end: float | None = None
    endless: int = 0
    examples: list[str] = field(default_factory=list)  # of those without an end

    @property
    def estimated(self) -> int:
        """The octets of all, if all are as large as those that were measured."""
        return self.octets * self.keys // self.measured if self.measured else 0


@dataclass(frozen=True, slots=True)
class GroupState:
    """A consumer group: what its members have in hand, what none has come to (None: the server cannot tell)."""

    stream: str
    group: str
    pending: int
    waiting: int | None
    consumers: int
    dead: int


@dataclass(slots=True)
class Report:
    """What was found on a server. `more`: there are more keys than were looked at."""

    server: str
    kinds: dict[str, Keys]
    groups: list[GroupState]
    connections: dict[str, int]
    allowed: int | None  # connections
    notes: list[str]


async def examine(url: str) -> Report:
    """Look at the server. Raises SetupError for a wrong URL or a missing right, BrokerUnavailable if nobody answers."""
    link = Link(url, TIMEOUT, used_for="doctor")
    await link.open()
    try:
        report = Report(link.url.name, {}, [], {}, None, [])
        streams = await _look_at_keys(link, report)
        await _look_at_groups(link, report, streams)
        await _look_at_connections(link, report)
    except NoPermissionError as error:
        remedy = f"`ACL SETUSER {link.url.user} +scan +type +pttl +xlen +memory|usage +xinfo allkeys` allows it"
        raise SetupError(f"{link.url.name} does not let its user look: {error}", remedy) from error
    finally:
        await link.close()
    return report


# --- Keys ---


async def _look_at_keys(link: Link, report: Report) -> list[bytes]:
    """Fill in the kinds; return the streams."""
    streams: list[bytes] = []
    cursor, looked_at = b"0", 0
    while looked_at < MAX_KEYS:
        cursor, found = await link.call(b"SCAN", cursor, b"COUNT", PAGE)
        looked_at += len(found)
        streams += await _look_at_page(link, report.kinds, found)
        if cursor == b"0":
            return streams
    report.notes.append(f"there are more keys; the first {looked_at} were looked at")
    return streams


async def _look_at_page(link: Link, kinds: dict[str, Keys], names: Sequence[bytes]) -> list[bytes]:
    sorted_names = [(name, kind_of(readable(name)) or OTHERS) for name in names]
    ends = await _all(link, [(b"PTTL", name) for name, _ in sorted_names])
    for (name, kind), milliseconds in zip(sorted_names, ends, strict=True):
        _count(kinds.setdefault(kind.name, Keys()), readable(name), milliseconds)
    streams = [(name, kind) for name, kind in sorted_names if kind.is_stream]
    for (_, kind), length in zip(streams, await _all(link, [(b"XLEN", name) for name, _ in streams]), strict=True):
        kinds[kind.name].records += length if isinstance(length, int) else 0
    for name, kind in sorted_names:
        if kinds[kind.name].measured < SAMPLE:
            await _measure(link, kinds[kind.name], name, kind)
    return [name for name, _ in streams]


def _count(keys: Keys, name: str, milliseconds: int) -> None:
    keys.keys += 1
    if milliseconds < 0:
        keys.endless += milliseconds == -1  # -2: it has just gone
        if len(keys.examples) < 3:
            keys.examples.append(name)
        return
    seconds = milliseconds / 1000
    keys.first_end = seconds if keys.first_end is None else min(keys.first_end, seconds)
    keys.last_end = max(keys.last_end or 0, seconds)


async def _measure(link: Link, keys: Keys, name: bytes, kind: KeyKind) -> None:
    commands: list[Command] = [(b"MEMORY", b"USAGE", name)]
    if kind.is_stream:
        commands += [(b"XRANGE", name, b"-", b"+", b"COUNT", 1), (b"XREVRANGE", name, b"+", b"-", b"COUNT", 1)]
    usage, *ends = await _all(link, commands)
    keys.measured += 1
    keys.octets += usage if isinstance(usage, int) else 0
    times = [
        parse_id(str(entries[0][0], "ascii"))[0] / 1000 for entries in ends if isinstance(entries, list) and entries
    ]
    if times:
        keys.oldest = min(times) if keys.oldest is None else min(keys.oldest, *times)
        keys.newest = max(times) if keys.newest is None else max(keys.newest, *times)


async def _all(link: Link, commands: Sequence[Command]) -> list[Any]:
    """The replies; NoPermissionError if one of them is that, for then all are."""
    replies: list[Any] = []
    if commands:
        await link.pipeline(commands, replies)
    for reply in replies:
        if isinstance(reply, NoPermissionError):
            raise reply
    return replies


# --- Groups, connections ---


async def _look_at_groups(link: Link, report: Report, streams: Sequence[bytes]) -> None:
    if len(streams) > MAX_GROUPS:
        report.notes.append(f"of {len(streams)} streams, the groups of {MAX_GROUPS} were looked at")
    looked_at = streams[:MAX_GROUPS]
    for stream, groups in zip(
        looked_at, await _all(link, [(b"XINFO", b"GROUPS", stream) for stream in looked_at]), strict=True
    ):
        for group in groups if isinstance(groups, list) else ():
            consumers = await _all(link, [(b"XINFO", b"CONSUMERS", stream, group[b"name"])])
            report.groups.append(_group(stream, group, consumers[0] if isinstance(consumers[0], list) else []))
    report.groups.sort(key=lambda group: -(group.pending + (group.waiting or 0) + group.dead))


def _group(stream: bytes, group: Mapping[bytes, Any], consumers: Sequence[Mapping[bytes, Any]]) -> GroupState:
    dead = sum(consumer[b"idle"] > DEAD * 1000 for consumer in consumers)
    return GroupState(
        readable(stream), readable(group[b"name"]), group[b"pending"], group.get(b"lag"), len(consumers), dead
    )


async def _look_at_connections(link: Link, report: Report) -> None:
    try:
        lines = str(await link.call(b"CLIENT", b"LIST"), "utf-8", "replace").splitlines()
    except ResponseError as error:
        report.notes.append(f"the connections cannot be seen: {error}")
        return
    names = [dict(part.partition("=")[::2] for part in line.split(" ")).get("name") for line in lines]
    report.connections = dict(Counter(name or "without a name" for name in names).most_common(SHOWN))
    try:
        allowed = await link.call(b"CONFIG", b"GET", b"maxclients")
        report.allowed = int(allowed[b"maxclients"])
    except (ResponseError, KeyError):
        return  # a managed server does not say


# --- For a reader, and for a program ---


def as_json(report: Report) -> str:
    """The report for a program."""
    return json.dumps(asdict(report), indent=1)


def as_table(report: Report) -> Group:
    """The report for a reader."""
    parts: list[Table | Text] = [Text(report.server), _kinds(report), *_endless(report)]
    if report.groups:
        parts.append(_groups(report))
    if report.connections:
        total = f"connections: {sum(report.connections.values())}"
        of = f" of {report.allowed}" if report.allowed is not None else ""
        named = ", ".join(f"{count} {name}" for name, count in report.connections.items())
        parts.append(Text(f"{total}{of} ({named})"))
    return Group(*parts, *(Text(note) for note in report.notes))


def _kinds(report: Report) -> Table:
    table = Table(
        "what", "keys", "records", "octets", "oldest", "newest", "ends in", "no end", box=None, pad_edge=False
    )
    for name in [*(kind.name for kind in KINDS), OTHERS.name]:
        if (keys := report.kinds.get(name)) is not None:
            octets = f"{'' if keys.measured == keys.keys else '~'}{keys.estimated}"
            ends = "–" if keys.first_end is None else f"{_span(keys.first_end)} to {_span(keys.last_end or 0)}"
            ages = [_age(keys.oldest), _age(keys.newest)]
            table.add_row(name, f"{keys.keys}", f"{keys.records}", octets, *ages, ends, f"{keys.endless}")
    return table


def _endless(report: Report) -> list[Text]:
    """Why a key has no end: each kind of the chat's should have one."""
    lines = []
    for kind in KINDS:
        keys = report.kinds.get(kind.name)
        if keys is not None and keys.endless:
            examples = ", ".join(keys.examples)
            why = "written by an older chatlab, by another program, or with --expire-hours 0"
            lines.append(Text(f"{kind.name}: {keys.endless} without an end ({examples}), {why}; usual: {kind.end}"))
    return lines


def _groups(report: Report) -> Table:
    table = Table("stream", "group", "in hand", "waiting", "consumers", "dead", box=None, pad_edge=False)
    for group in report.groups[:SHOWN]:
        waiting = "?" if group.waiting is None else f"{group.waiting}"
        numbers = (f"{group.pending}", waiting, f"{group.consumers}", f"{group.dead}")
        table.add_row(Text(group.stream[:60]), Text(group.group[:30]), *numbers)
    if len(report.groups) > SHOWN:
        table.add_row(f"… and {len(report.groups) - SHOWN} more", "", "", "", "", "")
    return table


def readable(name: bytes) -> str:
    """A key's name in characters that do nothing to a terminal: clients choose them."""
    return "".join(
        each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in name.decode(errors="replace")
    )


def _age(moment: float | None) -> str:
    return "–" if moment is None else f"{_span(max(0.0, time.time() - moment))} ago"


def _span(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
