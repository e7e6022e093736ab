"""The chat's own handlers: what `/app/chat.sendMessage` accepts and what it produces, and private messages.

    SEND /app/chat.sendMessage   {"content": "안녕", "room": "cats", "client_id": "7f3a"}
    stored in chat:{cats}        {"client_id": "7f3a", "room": "cats", "sender": "민지", "from": "0c41…", …}
    MESSAGE /topic/room.cats     {"id": "1763817000000-0", "client_id": "7f3a", …}

`sender` is the name to show, which several guests may have; `from` is the sender's handle, which nobody else has.
Only `content` is required. A message sent twice with one `client_id` is stored once: the first RECEIPT may have been
lost with the connection, and only sending again can tell. A message without one is stored and delivered each time.

A repeat has the same room, sender, `client_id` and content, within the engine's window (10 minutes). The same
`client_id` with other content is another message, and is stored: two tabs that both count 1, 2, 3 lose nothing. The
sender is the principal, never the name: a namesake's message is not a repeat. A guest that reconnects is the same guest
if it sends the same `client-key` (access.py); without one it is a new guest, and what it sends again is stored again.
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
    """A client's message to a room."""

    content: Content
    room: str = PUBLIC
    client_id: ClientId | None = None
    sender: Name | None = None  # used only for a guest that connected without a name


class PrivateMessage(msgspec.Struct):
    """A client's message to one user: `to` is a handle, from a who-list or `from`, or a principal it knows."""

    to: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    content: Content
    client_id: ClientId | None = None


class PrivateStored(msgspec.Struct, rename={"handle": "from"}):
    """A private message as the broker keeps it; `from` is the sender's handle, for the answer."""

    client_id: str | msgspec.UnsetType
    sender: str
    handle: str
    content: str
    time: str


def chat_application() -> Application:
    """Return the application `/app` with the chat's handlers; a deployment adds its own."""
    app = Application()

    @app.message("/chat.sendMessage")
    def send_message(message: ChatMessage, call: Call) -> Outgoing:
        room, sender = required_room(message.room), sender_of(message, call)
        stored = Stored(
            client_id=message.client_id or msgspec.UNSET,
            room=room,
            sender=sender,
            handle=call.user.handle,
            content=message.content,
            time=now(),
        )
        key = key_of(call.user, message.client_id, message.content)
        return Outgoing(room_destination(room), msgspec.json.encode(stored), key)

    @app.message("/chat.private")
    def send_private(message: PrivateMessage, call: Call) -> Outgoing:
        """Send to `/user/queue/private` of one user, on whichever instance that user is."""
        sent = PrivateStored(
            message.client_id or msgspec.UNSET, call.user.name, call.user.handle, message.content, now()
        )
        destination = private_destination(call.directory.addressed(message.to), PRIVATE)
        packed = pack(destination, [("content-type", JSON)], msgspec.json.encode(sent))
        # Some engines keep all private messages in one topic, so the key has to include the recipient.
        return Outgoing(destination, packed, key_of(call.user, message.client_id, message.content, destination))

    return app


def sender_of(message: ChatMessage, call: Call) -> str:
    """Return the name a message is sent under: the user's own, whatever the message says, unless it has none.

    Raise `MessageRefused` if the message gives a name that could be mistaken for another's.
    """
    if call.user.named or message.sender is None:
        return call.user.name
    sender = shown_name(message.sender) or call.user.name
    if fault := call.directory.fault_in(sender):
        raise MessageRefused(fault, field="sender")
    return sender


def key_of(user: User, client_id: str | None, content: str, to: str = "") -> str | None:
    """Return the key that identifies a repeat within a topic (see above); None without a `client_id`."""
    if client_id is None:
        return None
    who = f"{'guest' if user.guest else 'user'} {user.principal}"
    # The lengths keep the parts apart, whatever they contain.
    text = f"{len(who)} {len(client_id)} {len(to)} {who}{client_id}{to}{content}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def now() -> str:
    """Return the time in RFC 3339 format, in UTC, to the millisecond."""
    return _millisecond(time.time_ns() // 1_000_000)


@lru_cache(1)  # a busy room has many messages per millisecond
def _millisecond(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{_second(seconds)}.{rest:03d}Z"


@lru_cache(1)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
