"""Chat's own handlers: what `/app/chat.sendMessage` takes, what becomes of it, and private messages.

    SEND /app/chat.sendMessage   {"content": "안녕", "room": "cats", "client_id": "7f3a"}
    stored in chat:{cats}        {"client_id": "7f3a", "room": "cats", "sender": "민지", "content": "안녕", "time": …}
    MESSAGE /topic/room.cats     {"id": "1763817000000-0", "client_id": "7f3a", …}

Only `content` is required. A message sent twice under one `client_id` is stored once: its first RECEIPT may have been
lost with the connection, and only a repeat can tell. One sent without is stored and delivered without.

What makes a repeat a repeat is the room, who sent it, its `client_id` and its content, for the engine's window (10
minutes). The same `client_id` with another content is another message, and is stored as one: two tabs that both count
1, 2, 3 lose nothing. Who sent it is its principal, never its name: a namesake's message is no repeat. A guest that
connects again is the same guest if it brings the same `client-key` (access.py); without one it is another, and what it
sends again is stored again.
"""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated

import msgspec

from chatlab.chat.app import Application, Call, Outgoing, User
from chatlab.chat.destinations import (
    JSON,
    PRIVATE,
    PUBLIC,
    Stored,
    pack,
    private_destination,
    required_room,
    room_destination,
)
from chatlab.errors import MessageRefused
from chatlab.naming import shown_name

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
    """What a client sends to one user: `to` is a handle, as who-lists and `from` have it, or a principal it knows."""

    to: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    content: Content
    client_id: ClientId | None = None


class PrivateStored(msgspec.Struct, rename={"handle": "from"}):
    """A private message as the broker keeps it; `from` is whom to answer: the sender's handle."""

    client_id: str | msgspec.UnsetType
    sender: str
    handle: str
    content: str
    time: str


def chat_application() -> Application:
    """The application `/app` with chat's handlers; a deployment adds its own to it."""
    app = Application()

    @app.message("/chat.sendMessage")
    def send_message(message: ChatMessage, call: Call) -> Outgoing:
        room, sender = required_room(message.room), sender_of(message, call)
        stored = Stored(
            client_id=message.client_id or msgspec.UNSET, room=room, sender=sender, content=message.content, time=now()
        )
        key = key_of(call.user, message.client_id, message.content)
        return Outgoing(room_destination(room), msgspec.json.encode(stored), key)

    @app.message("/chat.private")
    def send_private(message: PrivateMessage, call: Call) -> Outgoing:
        """To `/user/queue/private` of one user, on whichever instance that user is."""
        sent = PrivateStored(
            message.client_id or msgspec.UNSET, call.user.name, call.user.handle, message.content, now()
        )
        destination = private_destination(call.directory.addressed(message.to), PRIVATE)
        packed = pack(destination, [("content-type", JSON)], msgspec.json.encode(sent))
        # Some engines keep everybody's private messages in one topic: whom it is for makes a difference, too.
        return Outgoing(destination, packed, key_of(call.user, message.client_id, message.content, destination))

    return app


def sender_of(message: ChatMessage, call: Call) -> str:
    """The name a message goes out under: the user's own, whatever the message says, unless it has none.

    `MessageRefused` if it says one that passes for another's.
    """
    if call.user.named or message.sender is None:
        return call.user.name
    sender = shown_name(message.sender) or call.user.name
    if fault := call.directory.fault_in(sender):
        raise MessageRefused(fault, field="sender")
    return sender


def key_of(user: User, client_id: str | None, content: str, to: str = "") -> str | None:
    """What makes a repeat a repeat, within a topic (see above); None without a `client_id`."""
    if client_id is None:
        return None
    who = f"{'guest' if user.guest else 'user'} {user.principal}"
    # The lengths keep the parts apart: none of them can end as another begins.
    text = f"{len(who)} {len(client_id)} {len(to)} {who}{client_id}{to}{content}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def now() -> str:
    """The time as RFC 3339 has it, in UTC, to the millisecond."""
    seconds, milliseconds = divmod(time.time_ns() // 1_000_000, 1000)
    return f"{_second(seconds)}.{milliseconds:03d}Z"


@lru_cache(1)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
