"""Chat's own handlers: what `/app/chat.sendMessage` takes, what becomes of it, and private messages.

    SEND /app/chat.sendMessage   {"content": "안녕", "room": "cats", "client_id": "7f3a"}
    stored in chat:{cats}        {"client_id": "7f3a", "room": "cats", "sender": "민지", "content": "안녕", "time": …}
    MESSAGE /topic/room.cats     {"id": "1763817000000-0", "client_id": "7f3a", …}

Only `content` is required. A message sent twice under one `client_id` (its first RECEIPT may have been lost with the
connection) is stored once: the key is the room, the sender's name and that id, so it holds across a reconnect. One sent
without is stored and delivered without.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated

import msgspec

from chatlab.chat.app import Application, Call, Outgoing, User
from chatlab.chat.destinations import JSON, PUBLIC, pack, private_destination, room_destination

PRIVATE = "/user/queue/private"

Content = Annotated[str, msgspec.Meta(min_length=1)]
ClientId = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class ChatMessage(msgspec.Struct):
    """What a client sends to a room."""

    content: Content
    room: str = PUBLIC
    client_id: ClientId | None = None
    sender: Name | None = None  # heeded only for a guest that connected without a name


class PrivateMessage(msgspec.Struct):
    """What a client sends to one user: `to` is the principal, which CONNECTED gives its owner as `user-name`."""

    to: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    content: Content
    client_id: ClientId | None = None


class Stored(msgspec.Struct):
    """A room's message as the broker keeps it: all but its id."""

    client_id: str | msgspec.UnsetType  # left out then: a `null` would be 17 bytes for every reader
    room: str
    sender: str
    content: str
    time: str


class PrivateStored(msgspec.Struct, rename={"principal": "from"}):
    """A private message as the broker keeps it; `from` is whom to answer."""

    client_id: str | msgspec.UnsetType
    sender: str
    principal: str
    content: str
    time: str


def chat_application() -> Application:
    """The application `/app` with chat's handlers; a deployment adds its own to it."""
    app = Application()

    @app.message("/chat.sendMessage")
    def send_message(message: ChatMessage, call: Call) -> Outgoing:
        sender = sender_of(message, call.user)
        stored = Stored(message.client_id or msgspec.UNSET, message.room, sender, message.content, now())
        return Outgoing(room_destination(message.room), msgspec.json.encode(stored), key_of(sender, message.client_id))

    @app.message("/chat.private")
    def send_private(message: PrivateMessage, call: Call) -> Outgoing:
        """To `/user/queue/private` of one user, on whichever instance that user is."""
        sent = PrivateStored(
            message.client_id or msgspec.UNSET, call.user.name, call.user.principal, message.content, now()
        )
        destination = private_destination(message.to, PRIVATE)
        packed = pack(destination, [("content-type", JSON)], msgspec.json.encode(sent))
        return Outgoing(destination, packed, key_of(call.user.name, message.client_id))

    return app


def sender_of(message: ChatMessage, user: User) -> str:
    """The name a message goes out under: the user's own, whatever the message says, unless it has none."""
    return user.name if user.named or message.sender is None else message.sender


def key_of(sender: str, client_id: str | None) -> str | None:
    """What makes a repeat a repeat, within a topic. The length keeps `a:b` + `c` and `a` + `b:c` apart."""
    return None if client_id is None else f"{len(sender)}:{sender}:{client_id}"


def now() -> str:
    """The time as RFC 3339 has it, in UTC, to the millisecond."""
    seconds, milliseconds = divmod(time.time_ns() // 1_000_000, 1000)
    return f"{_second(seconds)}.{milliseconds:03d}Z"


@lru_cache(1)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
