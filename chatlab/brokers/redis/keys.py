"""Every key that a chat writes to Redis: its owner, what it holds, and when it expires.

    kind_of("chat:{cats}").name      "rooms"
    kind_of("somebody:else")         None

`chatlab doctor --redis` sorts a server's keys by this table. A key that is missing here is a bug.
Left out: the keys of the article's own builds (article.py), which never expire: that is one of their faults.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

IDLE = "a day after it was last written or read (--expire-hours)"
AGE = "30 days after its last message (--max-age-days)"


@dataclass(frozen=True, slots=True)
class KeyKind:
    """A kind of key: a pattern for the names, the module that owns them, what they hold, and when each expires."""

    name: str
    pattern: re.Pattern[str]
    owner: str
    holds: str
    end: str
    is_stream: bool = True


KINDS = (
    KeyKind(
        "set aside",
        re.compile(r".*:set-aside:[^:]*"),
        "brokers/redis/groups.py",
        "work that failed too often, kept for inspection",
        "30 days after the last record",
    ),
    KeyKind(
        "repeats",
        re.compile(r".*\{.*\}.*:once:.*", re.DOTALL),
        "brokers/redis/streams.py",
        "the id of a message, under the key its sender gave it",
        "10 minutes after the message",
        is_stream=False,
    ),
    KeyKind(
        "presence",
        re.compile(r"presence:.*", re.DOTALL),
        "brokers/redis/presence.py",
        "who is in a room, as each instance announces it",
        "seconds after the last announcement",
        is_stream=False,
    ),
    KeyKind("public room", re.compile(r"chat-stream"), "chat/destinations.py", "its messages, and groups of jobs", AGE),
    KeyKind(
        "private messages",
        re.compile(r"chat-users.*", re.DOTALL),
        "chat/destinations.py",
        "messages of /user/queue/",
        IDLE,
    ),
    KeyKind(
        "rooms", re.compile(r"chat:\{.*\}", re.DOTALL), "chat/destinations.py", "messages of /topic/room.NAME", IDLE
    ),
    KeyKind(
        "topics", re.compile(r"topic:\{.*\}", re.DOTALL), "chat/destinations.py", "messages of other /topic/", IDLE
    ),
    KeyKind(
        "queues",
        re.compile(r"queue:\{.*\}", re.DOTALL),
        "chat/delivery/queues.py",
        "messages of /queue/NAME, done or waiting, and the group of its subscribers",
        IDLE,
    ),
    KeyKind("shared room", re.compile(r"room"), "room/shared.py", "lines of `chatlab serve room`", AGE),
)


def kind_of(key: str) -> KeyKind | None:
    """Return the first kind whose pattern matches the whole key; None if it is not a chat's."""
    return next((kind for kind in KINDS if kind.pattern.fullmatch(key)), None)
