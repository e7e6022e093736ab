"""`chatlab doctor --redis URL`: what a chat stores on a Redis, when it expires, and who is connected.

It only reads. Names come from SCAN, a page at a time; each costs a PTTL, and an XLEN if it is a stream. Sizes are
measured (MEMORY USAGE) on `SAMPLE` keys of each kind and extrapolated. At most `MAX_KEYS` names are examined.
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
from chatlab.locale import _, ngettext

TIMEOUT = 5.0  # seconds a server may take to answer
PAGE = 1000  # names in one SCAN
SAMPLE = 200  # keys of a kind that are measured
MAX_KEYS = 1_000_000
MAX_GROUPS = 1000  # streams whose groups are examined
SHOWN = 10  # groups, those with the most outstanding messages first
DEAD = 600.0  # seconds of inactivity after which a consumer counts as dead
OTHERS = KeyKind(_("not the chat's"), KINDS[0].pattern, "", "", "", is_stream=False)


@dataclass(slots=True)
class Keys:
    """The keys of one kind. `octets` and ages are of the `measured` keys; ends are in seconds from now."""

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
        """The octets of all keys, extrapolated from those measured."""
        return self.octets * self.keys // self.measured if self.measured else 0


@dataclass(frozen=True, slots=True)
class GroupState:
    """A consumer group: messages pending with its consumers, and not delivered yet (None: unknown to the server)."""

    stream: str
    group: str
    pending: int
    waiting: int | None
    consumers: int
    dead: int


@dataclass(slots=True)
class Report:
    """What was found on a server."""

    server: str
    kinds: dict[str, Keys]
    groups: list[GroupState]
    connections: dict[str, int]
    allowed: int | None  # connections
    notes: list[str]


async def examine(url: str) -> Report:
    """Examine the server. Raises SetupError for a wrong URL or a missing right, BrokerUnavailable if it is down."""
    link = Link(url, TIMEOUT, used_for="doctor")
    await link.open()
    try:
        report = Report(link.url.name, {}, [], {}, None, [])
        streams = await _examine_keys(link, report)
        await _examine_groups(link, report, streams)
        await _examine_connections(link, report)
    except NoPermissionError as error:
        rights = "+scan +type +pttl +xlen +memory|usage +xinfo allkeys"
        remedy = _("`ACL SETUSER {user} {rights}` allows it").format(user=link.url.user, rights=rights)
        line = _("{server} does not allow this user to inspect it: {error}").format(server=link.url.name, error=error)
        raise SetupError(line, remedy) from error
    finally:
        await link.close()
    return report


# --- Keys ---


async def _examine_keys(link: Link, report: Report) -> list[bytes]:
    """Fill in `report.kinds`; return the streams."""
    streams: list[bytes] = []
    cursor, examined = b"0", 0
    while examined < MAX_KEYS:
        cursor, found = await link.call(b"SCAN", cursor, b"COUNT", PAGE)
        examined += len(found)
        streams += await _examine_page(link, report.kinds, found)
        if cursor == b"0":
            return streams
    line = _("there are more keys; the first {count} were examined")
    report.notes.append(line.format(count=examined))
    return streams


async def _examine_page(link: Link, kinds: dict[str, Keys], names: Sequence[bytes]) -> list[bytes]:
    sorted_names = [(name, kind_of(readable(name)) or OTHERS) for name in names]
    ends = await _all(link, [(b"PTTL", name) for name, __ in sorted_names])
    for (name, kind), milliseconds in zip(sorted_names, ends, strict=True):
        _count(kinds.setdefault(kind.name, Keys()), readable(name), milliseconds)
    streams = [(name, kind) for name, kind in sorted_names if kind.is_stream]
    for (__, kind), length in zip(streams, await _all(link, [(b"XLEN", name) for name, __ in streams]), strict=True):
        kinds[kind.name].records += length if isinstance(length, int) else 0
    for name, kind in sorted_names:
        if kinds[kind.name].measured < SAMPLE:
            await _measure(link, kinds[kind.name], name, kind)
    return [name for name, __ in streams]


def _count(keys: Keys, name: str, milliseconds: int) -> None:
    keys.keys += 1
    if milliseconds < 0:
        keys.endless += milliseconds == -1  # -2: it has just expired
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
    """Return the replies; raise NoPermissionError if one of them is that, because then all are."""
    replies: list[Any] = []
    if commands:
        await link.pipeline(commands, replies)
    for reply in replies:
        if isinstance(reply, NoPermissionError):
            raise reply
    return replies


# --- Groups, connections ---


async def _examine_groups(link: Link, report: Report, streams: Sequence[bytes]) -> None:
    if len(streams) > MAX_GROUPS:
        line = _("of {total} streams, the groups of {count} were examined")
        report.notes.append(line.format(total=len(streams), count=MAX_GROUPS))
    examined = streams[:MAX_GROUPS]
    for stream, groups in zip(
        examined, await _all(link, [(b"XINFO", b"GROUPS", stream) for stream in examined]), strict=True
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


async def _examine_connections(link: Link, report: Report) -> None:
    try:
        lines = str(await link.call(b"CLIENT", b"LIST"), "utf-8", "replace").splitlines()
    except ResponseError as error:
        report.notes.append(_("the connections cannot be listed: {error}").format(error=error))
        return
    names = [dict(part.partition("=")[::2] for part in line.split(" ")).get("name") for line in lines]
    report.connections = dict(Counter(name or _("without a name") for name in names).most_common(SHOWN))
    try:
        allowed = await link.call(b"CONFIG", b"GET", b"maxclients")
        report.allowed = int(allowed[b"maxclients"])
    except (ResponseError, KeyError):
        return  # some managed servers forbid CONFIG


# --- For a reader, and for a program ---


def as_json(report: Report) -> str:
    """Return the report as JSON."""
    return json.dumps(asdict(report), indent=1)


def as_table(report: Report) -> Group:
    """Return the report as tables and lines for a terminal."""
    parts: list[Table | Text] = [Text(report.server), _kinds(report), *_endless(report)]
    if report.groups:
        parts.append(_groups(report))
    if report.connections:
        parts.append(Text(_connections(report)))
    return Group(*parts, *(Text(note) for note in report.notes))


def _connections(report: Report) -> str:
    if report.allowed is None:
        line = _("connections: {count} ({names})")
    else:
        line = _("connections: {count} of {allowed} ({names})")
    names = ", ".join(f"{count} {name}" for name, count in report.connections.items())
    return line.format(count=sum(report.connections.values()), allowed=report.allowed, names=names)


def _kinds(report: Report) -> Table:
    columns = [_("what"), _("keys"), _("records"), _("octets"), _("oldest"), _("newest"), _("ends in"), _("no end")]
    table = Table(*columns, box=None, pad_edge=False)
    for name in [*(kind.name for kind in KINDS), OTHERS.name]:
        if (keys := report.kinds.get(name)) is not None:
            octets = f"{'' if keys.measured == keys.keys else '~'}{keys.estimated}"
            ends = "–"
            if keys.first_end is not None:
                ends = _("{first} to {last}").format(first=_span(keys.first_end), last=_span(keys.last_end or 0))
            ages = [_age(keys.oldest), _age(keys.newest)]
            table.add_row(name, f"{keys.keys}", f"{keys.records}", octets, *ages, ends, f"{keys.endless}")
    return table


def _endless(report: Report) -> list[Text]:
    """Say why keys do not expire: every kind of chat key should."""
    lines = []
    for kind in KINDS:
        keys = report.kinds.get(kind.name)
        if keys is not None and keys.endless:
            examples = ", ".join(keys.examples)
            line = _(
                "{kind}: {count} without an end ({examples}), written by an older chatlab, by another program, or with "
                "--expire-hours 0; usual: {end}"
            )
            lines.append(Text(line.format(kind=kind.name, count=keys.endless, examples=examples, end=kind.end)))
    return lines


def _groups(report: Report) -> Table:
    columns = [_("stream"), _("group"), _("in hand"), _("waiting"), _("consumers"), _("dead")]
    table = Table(*columns, box=None, pad_edge=False)
    for group in report.groups[:SHOWN]:
        waiting = "?" if group.waiting is None else f"{group.waiting}"
        numbers = (f"{group.pending}", waiting, f"{group.consumers}", f"{group.dead}")
        table.add_row(Text(group.stream[:60]), Text(group.group[:30]), *numbers)
    if (more := len(report.groups) - SHOWN) > 0:
        table.add_row(ngettext("… and {count} more", "… and {count} more", more).format(count=more), "", "", "", "", "")
    return table


def readable(name: bytes) -> str:
    """Return a key's name with printable characters only: clients choose the names."""
    return "".join(
        each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in name.decode(errors="replace")
    )


def _age(moment: float | None) -> str:
    return "–" if moment is None else _("{span} ago").format(span=_span(max(0.0, time.time() - moment)))


def _span(seconds: float) -> str:
    for text, length in ((_("{n:.0f} d"), 86_400), (_("{n:.0f} h"), 3600), (_("{n:.0f} min"), 60)):
        if seconds >= length:
            return text.format(n=seconds / length)
    return _("{n:.0f} s").format(n=seconds)
