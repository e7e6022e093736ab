"""Two jobs for the workers (workers.py): an audit log, and notifications for people who are mentioned.

    audit_log(Path("audit.jsonl"))      writes each message of the rooms to a file, as a line of JSON
    mentions                            "@민지야" in a room: a message on 민지's own /user/queue/notifications

Both need their rooms named in advance. A group reads a room's own stream, so it receives every message that is stored;
but each such room costs every instance a connection to the engine, and a guest who makes up a thousand names must not
cause a thousand of those.

Either may be done twice if its instance dies before the acknowledgement. The log then has the same line again, with the
same `id`; a mention is not repeated where the engine deduplicates (`Deduplicates`).
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from chatlab.brokers.port import Broker, Deduplicates
from chatlab.chat.delivery.presence import Presence
from chatlab.chat.delivery.presence_notes import Person
from chatlab.chat.destinations import (
    JSON,
    NOTIFICATIONS,
    ChatRecord,
    pack,
    private_destination,
    room_destination,
    topic_of,
    topics_on,
)
from chatlab.chat.workers import Job, Work
from chatlab.errors import MessageRefused, NotNow, SetupError
from chatlab.naming import goes_on, one_spelling
from chatlab.untrusted_json import parse

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # mypy runs on a system that has it

MAX_MENTIONED = 20  # people one message may notify
MENTION = re.compile("@")

MakeWork = Callable[[Broker, Presence], tuple[str, Work]]  # the job's name, and the work for each message


class RoomMessage(msgspec.Struct):
    """The fields of a room's record that these jobs read."""

    sender: str
    content: str
    room: str = ""
    time: str = ""


_message = msgspec.json.Decoder(RoomMessage)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def jobs_in(rooms: Sequence[str], works: Iterable[tuple[str, Work]]) -> list[Job]:
    """Return the jobs that do these works for each message of these rooms. Raise SetupError for a bad room name."""
    try:
        topics = [topic_of(room_destination(room)) for room in dict.fromkeys(rooms)]
    except MessageRefused as error:
        raise SetupError(str(error)) from error
    return [Job(name, topics, work) for name, work in works]


# --- The audit log ---


def audit_log(path: Path) -> MakeWork:
    """Append each message to a file. Raise SetupError if it cannot be written.

    A line is acknowledged once the operating system has it: it survives the process, but a power cut may lose the last
    ones. The file is opened for each line, so it may be moved away at any time; other instances may write to it too.
    While it cannot be written (disk full, folder missing, no permission), the messages wait in the broker for as long
    as it keeps them, and none counts as failed.
    """
    try:
        _append(path, b"")
    except OSError as error:
        raise SetupError(f"no audit log at {path}: {error.strerror}") from error

    async def write(record: ChatRecord) -> None:
        fields: dict[str, Any] = parse(_fields.decode, record.message.body)
        # The message's id, not the record's: record ids repeat across rooms.
        line = msgspec.json.encode(fields | {"id": record.message.id}) + b"\n"
        try:
            await asyncio.to_thread(_append, path, line)
        except OSError as error:
            raise NotNow(f"the audit log {path} cannot be written: {error.strerror or error}") from error

    return lambda broker, presence: ("audit", write)


def _append(path: Path, line: bytes) -> None:
    """Append a whole line or nothing: if a full disk takes a part, remove it again. Raise OSError on failure.

    The lock keeps other instances on this machine from interleaving. Only the owner may read the file: it holds
    messages.
    """
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        size = os.fstat(file).st_size
        if (written := os.write(file, line)) != len(line):
            os.ftruncate(file, size)
            raise OSError(errno.ENOSPC, f"took {written} of {len(line)} octets: {os.strerror(errno.ENOSPC)}")
    finally:
        os.close(file)


# --- Mentions ---


def mentions(broker: Broker, presence: Presence) -> tuple[str, Work]:
    """Notify the users in the room, on any instance, whom a message mentions."""
    private_topic = topics_on(broker)
    deduplicates = broker if isinstance(broker, Deduplicates) else None

    async def notify(record: ChatRecord) -> None:
        message = parse(_message.decode, record.message.body)
        if "@" not in message.content:
            return
        note = {"kind": "mention", "message_id": record.message.id} | msgspec.to_builtins(message)
        for person in mentioned(message.content, await presence.people(message.room))[:MAX_MENTIONED]:
            if person.name == message.sender:
                continue
            destination = private_destination(person.handle, NOTIFICATIONS)
            body = pack(destination, [("content-type", JSON)], msgspec.json.encode(note))
            if deduplicates is not None:
                key = f"mention:{record.message.id}:{person.handle}"
                await deduplicates.publish_once(private_topic(destination), body, key)
            else:
                await broker.publish(private_topic(destination), body)

    return "mentions", notify


def mentioned(content: str, people: Iterable[Person]) -> list[Person]:
    """Return the people that `@NAME` in a text refers to: the longest name that fits, and everybody who has it."""
    content = one_spelling(content)
    by_name: dict[str, list[Person]] = {}
    for person in people:
        by_name.setdefault(one_spelling(person.name), []).append(person)
    longest_first = sorted(by_name, key=len, reverse=True)
    found: dict[str, None] = {}
    for at in MENTION.finditer(content):
        rest = content[at.end() :]
        name = next((name for name in longest_first if rest.startswith(name) and _ends_name(name, rest)), None)
        if name is not None:
            found[name] = None
    return [person for name in found for person in by_name[name]]


def _ends_name(name: str, text: str) -> bool:
    """Return whether the name ends there: @Ana is not in @Anabel; but Korean appends particles, as in @민지야."""
    following = text[len(name) : len(name) + 1]
    return not goes_on(following) or "가" <= following <= "힣"
