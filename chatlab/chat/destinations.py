"""STOMP destinations, the broker's topics, and what a record looks like in each.

    /topic/public        chat-stream        the article's
    /topic/room.NAME     chat:{NAME}        a room; the braces are Redis Cluster's hash tag: one slot per room
    /topic/who.NAME      none               who is in a room (presence.py)
    /topic/ANY           topic:{ANY}        any other topic
    /queue/ANY           queue:{ANY}        each record to one subscriber
    /user/queue/ANY      chat-users:{HANDLE} all queues of one user; each record names its queue

A room's record is JSON without its id, because the broker assigns the id when it stores the record; `record_of` inserts
it. The others carry whatever a client sent: a line of JSON with the headers, then the unchanged body (`pack`).

Other programs may write to the same streams. A record in another format is skipped and logged.

Names are in NFC (naming.py): `canonical` normalizes a client's destination before it is looked up.

Only the application writes certain destinations and headers: `OWN` lists the destinations, `SERVER_HEADERS` the
headers. They are compared in their plainest spelling (`plain`), so that nothing gets through that looks like one of
them, or that some client may mistake for one.
"""

from __future__ import annotations

import logging
import re
import unicodedata
import uuid
from collections.abc import Callable, Iterable
from functools import lru_cache
from urllib.parse import unquote

import msgspec

from chatlab.brokers.port import Broker, Record, has_few_topics
from chatlab.errors import MessageRefused
from chatlab.naming import room_name
from chatlab.stomp.frames import MessageFrame, MessageHead, StompHeaders
from chatlab.untrusted_json import parse

logger = logging.getLogger("chatlab.chat")

JSON = "application/json"
PUBLIC = "public"
PUBLIC_DESTINATION = "/topic/public"
PUBLIC_TOPIC = "chat-stream"
ROOM_PREFIX = "/topic/room."
WHO_PREFIX = "/topic/who."
TOPIC_PREFIX = "/topic/"
QUEUE_PREFIX = "/queue/"
USER_PREFIX = "/user/"
USERS_TOPIC = "chat-users"
PRIVATE = "/user/queue/private"
ERRORS = "/user/queue/errors"
NOTIFICATIONS = "/user/queue/notifications"
REFUSED_PREFIX = f"{QUEUE_PREFIX}refused."
MAX_DESTINATION = 512  # characters

# Written only by the application; one that ends in a dot covers every destination with that prefix.
OWN = (PRIVATE, ERRORS, NOTIFICATIONS, PUBLIC_DESTINATION, ROOM_PREFIX, WHO_PREFIX, REFUSED_PREFIX)
# Headers set by the server in a MESSAGE or CONNECTED, and those between a client and the server.
SERVER_HEADERS = frozenset(
    {"ack", "content-length", "destination", "gap", "message-id", "receipt", "receipt-id", "redelivered", "refused"}
    | {"server", "session", "subscription", "transaction"}
    | {"from", "sender", "user-handle", "user-name"}
    | {"authorization", "client-key", "passcode", "token"}
)

# An empty part, or one that a path would drop; invisible characters; a leading or trailing space.
_BAD_PART = re.compile(r"//|/\.{1,2}(?:/|$)|[\x00-\x1f\x7f-\x9f\u200b\u2028-\u202e\u2060-\u206f\ufeff]|^\s|\s$")
# Wildcards and templates: some server gives them a meaning in a destination; this one does not.
_WILDCARDS = re.compile(r"[*#>?{}\[\]]|(?:^|[./])\+(?:[./]|$)")
_INVISIBLE = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp", "Mn"})
_REPEATED = re.compile(r"/(?:\.{0,2}/)*")


class ChatRecord(msgspec.Struct, frozen=True):
    """One record of a topic, ready for any number of subscribers: its id, its destination and its MESSAGE.

    The header `message-id` is `ROOM/RECORD-ID`, because ids repeat across streams.
    """

    id: str
    destination: str  # a private one names its owner
    message: MessageFrame


def canonical(destination: str) -> str:
    """Return a client's destination in NFC."""
    return destination if destination.isascii() else unicodedata.normalize("NFC", destination)


def required_room(name: str) -> str:
    """Return a room's name in NFC. Raise `MessageRefused` if it is not valid."""
    if len(name) > MAX_DESTINATION or (room := room_name(name)) is None:  # before a long name gets into the cache
        raise MessageRefused(f"not a room's name: {name[:80]!r}", field="room")
    return room


@lru_cache(4096)
def room_destination(name: str) -> str:
    """Return the destination of a room. Raise `MessageRefused` if the name is not valid."""
    room = required_room(name)
    return PUBLIC_DESTINATION if room == PUBLIC else ROOM_PREFIX + room


@lru_cache(4096)
def room_of(destination: str) -> str | None:
    """Return the room of a destination; None if it is not a room's."""
    if destination == PUBLIC_DESTINATION:
        return PUBLIC
    name = destination.removeprefix(ROOM_PREFIX)
    room = room_name(name) if name != destination else None
    return room if room != PUBLIC else None


def watched_room(destination: str) -> str | None:
    """Return the room whose people `/topic/who.NAME` lists; None for another destination."""
    name = destination.removeprefix(WHO_PREFIX)
    return room_name(name) if name != destination else None


@lru_cache(4096)
def topic_of(destination: str) -> str:
    """Return the broker's topic that holds a destination's records."""
    room = room_of(destination)
    if room is not None:
        return PUBLIC_TOPIC if room == PUBLIC else f"chat:{{{room}}}"
    if destination.startswith(USER_PREFIX):
        return f"{USERS_TOPIC}:{{{split_private(destination)[0]}}}"
    kind, _, name = destination[1:].partition("/")
    return f"{kind}:{{{name}}}"


def _topic_with_users_shared(destination: str) -> str:
    return USERS_TOPIC if destination.startswith(USER_PREFIX) else topic_of(destination)


def topics_on(broker: Broker) -> Callable[[str], str]:
    """Return `topic_of` for this engine. Where each topic read is expensive, all users share one."""
    return _topic_with_users_shared if has_few_topics(broker) else topic_of


def destination_of(topic: str) -> str:
    """Return the destination of a topic; "" if it has none to itself, or is a room. The inverse of `topic_of`."""
    kind, separator, name = topic.partition(":{")
    return f"/{kind}/{name[:-1]}" if separator and kind in ("topic", "queue") else ""


def short_name(destination: str) -> str:
    """Return the name of a destination in a `message-id`: the room, or the destination without its first slash."""
    return room_of(destination) or destination[1:]


def fault_in(destination: str) -> str:
    """Return what is wrong with a destination to subscribe or send to; "" if nothing is."""
    if len(destination) > MAX_DESTINATION:  # thousands of destinations are cached
        return f"a destination of {len(destination)} characters: at most {MAX_DESTINATION} are allowed"
    if _WILDCARDS.search(destination):
        return f"wildcards are not supported: {destination!r}"
    if destination == ROOM_PREFIX + PUBLIC:
        return f"the room {PUBLIC!r} is at {PUBLIC_DESTINATION}"
    if destination.startswith(ROOM_PREFIX) and room_of(destination) is None:
        return f"not a room's name: {destination.removeprefix(ROOM_PREFIX)!r}"
    if destination.startswith(WHO_PREFIX) and watched_room(destination) is None:
        return f"not a room's name: {destination.removeprefix(WHO_PREFIX)!r}"
    if (
        not destination.startswith((TOPIC_PREFIX, QUEUE_PREFIX, USER_PREFIX))
        or destination.endswith("/")
        or _BAD_PART.search(destination)
    ):
        return f"unknown destination: {destination!r}"
    return ""


def private_destination(handle: str, destination: str) -> str:
    """Return a user's private queue under its owner's handle: `/user/queue/x` becomes `/user/HANDLE/queue/x`."""
    return f"{USER_PREFIX}{handle}/{destination.removeprefix(USER_PREFIX)}"


def split_private(destination: str) -> tuple[str, str]:
    """Return the owner, and the owner's name for the queue: the inverse of `private_destination`."""
    owner, _, rest = destination.removeprefix(USER_PREFIX).partition("/")
    return owner, USER_PREFIX + rest


def shown_destination(destination: str) -> str:
    """Return a destination as its subscribers know it: a private one without its owner."""
    return destination if not destination.startswith(USER_PREFIX) else split_private(destination)[1]


@lru_cache(4096)
def plain(destination: str) -> str:
    """Return the plainest spelling of a destination: `/USER/queue%2Fprivate/ ` becomes `/user/queue/private`."""
    text = unicodedata.normalize("NFKC", unquote(destination)).casefold()
    seen = "".join(char for char in text if unicodedata.category(char) not in _INVISIBLE)
    return _REPEATED.sub("/", seen.replace("\\", "/")).rstrip("/.;")


def user_headers(headers: StompHeaders) -> StompHeaders:
    """Return the headers of a SEND that travel with its message: all but those only the server may set."""
    return tuple(header for header in headers if plain(header[0]) not in SERVER_HEADERS)


class _Envelope(msgspec.Struct):
    destination: str
    headers: dict[str, str] = {}


_envelope = msgspec.json.Decoder(_Envelope)


def pack(destination: str, headers: Iterable[tuple[str, str]], body: bytes) -> bytes:
    """Return a client's own message as the broker keeps it."""
    return msgspec.json.encode(_Envelope(destination, dict(headers))) + b"\n" + body


class Stored(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, rename={"handle": "from"}):
    """A room's message as the broker keeps it, without its id. `from` tells apart two guests with one name."""

    client_id: str | msgspec.UnsetType = msgspec.UNSET  # omitted then: a `null` would cost every reader 17 bytes
    room: str
    sender: str
    handle: str | msgspec.UnsetType = msgspec.UNSET  # messages of earlier versions have none
    content: str
    time: str


_stored = msgspec.json.Decoder(Stored)
_encode = msgspec.json.Encoder().encode
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])  # validates everything without decoding the values


def record_of(delivery: Record) -> ChatRecord | None:
    """Return a broker's record as its subscribers see it; log it and return None if it is not one of the chat's."""
    try:
        if delivery.topic == PUBLIC_TOPIC:
            return _room_record(PUBLIC_DESTINATION, delivery)
        if delivery.topic.startswith("chat:"):
            return _room_record(ROOM_PREFIX + delivery.topic[6:-1], delivery)
        return _unpack(delivery)
    except ValueError as error:
        logger.warning("record skipped: topic %r, id %r: %s", delivery.topic, delivery.id, error)
        return None


def _room_record(destination: str, delivery: Record) -> ChatRecord:
    """Return a room's record with its id in front of the other fields."""
    body = delivery.body if _is_own_format(delivery.body) else _with_fields_once(delivery.body)
    with_id = b'{"id":"%s",%s' % (delivery.id.encode(), body[1:])
    return _record(_room_head(destination), destination, delivery.id, with_id)


@lru_cache(4096)
def _room_head(destination: str) -> MessageHead:
    return MessageHead(destination, [("content-type", JSON)])


def _is_own_format(body: bytes) -> bool:
    """Return whether the chat wrote it: then encoding it again gives the same bytes, and no more checks are needed."""
    try:
        return _encode(_stored.decode(body)) == body
    except (ValueError, RecursionError):
        return False


def _with_fields_once(body: bytes) -> bytes:
    """Return the object of another program or handler without its "id": clients resume only from our ids.

    Of a repeated field, the last counts. Raise ValueError if it is not an object, or has no other fields.
    """
    body.decode()  # the decoder does not validate strings that it does not decode
    fields = parse(_object.decode, body)
    fields.pop("id", None)
    if not fields:
        raise ValueError("not a JSON object with fields")
    return _encode(fields)


def _unpack(delivery: Record) -> ChatRecord:
    """Reverse `pack`."""
    line, _, body = delivery.body.partition(b"\n")
    envelope = parse(_envelope.decode, line)
    if topic_of(envelope.destination) != delivery.topic != _topic_with_users_shared(envelope.destination):
        raise ValueError(f"its destination is another topic's: {envelope.destination[:80]!r}")
    headers = tuple((name, value) for name, value in envelope.headers.items() if name != "gap")  # set only here
    head = MessageHead(shown_destination(envelope.destination), headers)
    return _record(head, envelope.destination, delivery.id, body)


def _record(head: MessageHead, destination: str, record_id: str, body: bytes) -> ChatRecord:
    # An engine without ids (Redis Pub/Sub) still owes each subscriber a unique message-id.
    name = f"{short_name(destination)}/{record_id or uuid.uuid4().hex}"
    return ChatRecord(record_id, destination, MessageFrame(head.destination, name, body, head=head))
