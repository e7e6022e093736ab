"""Destinations and topics, and what a record looks like in each."""

from __future__ import annotations

import unicodedata

import pytest

from chatlab.brokers.port import Record
from chatlab.chat.destinations import (
    canonical,
    fault_in,
    pack,
    private_destination,
    record_of,
    room_destination,
    room_of,
    split_private,
    topic_of,
    watched_room,
)
from chatlab.errors import MessageRefused


@pytest.mark.parametrize(
    ("destination", "topic"),
    [
        ("/topic/public", "chat-stream"),
        ("/topic/room.cats", "chat:{cats}"),
        ("/topic/room.고양이", "chat:{고양이}"),
        ("/topic/news.today", "topic:{news.today}"),
        ("/queue/jobs", "queue:{jobs}"),
        ("/user/p/queue/private", "chat-users:{p}"),
    ],
)
def test_each_destination_has_its_topic(destination: str, topic: str) -> None:
    assert topic_of(destination) == topic


@pytest.mark.parametrize("destination", ["/topic/c++", "/topic/a+b", "/queue/jobs", "/topic/a.b-c_d"])
def test_a_plus_inside_a_name_is_not_a_wildcard(destination: str) -> None:
    assert fault_in(destination) == ""


@pytest.mark.parametrize("room", ["고양이", "café", "हिन्दी", "العَرَبِيَّة"])
def test_all_spellings_of_a_room_have_one_destination_and_one_topic(room: str) -> None:
    for form in ("NFC", "NFD"):
        name = unicodedata.normalize(form, room)
        nfc = unicodedata.normalize("NFC", room)
        assert canonical(f"/topic/room.{name}") == room_destination(name) == f"/topic/room.{nfc}"
        assert topic_of(f"/topic/room.{name}") == f"chat:{{{nfc}}}"
        assert room_of(f"/topic/room.{name}") == watched_room(f"/topic/who.{name}") == nfc


@pytest.mark.parametrize("name", ["", "a.b", "a b", "{x}", "*", "a" * 65, "a/b", "a\n"])
def test_a_rooms_name_may_not_have_a_meaning_in_another_context(name: str) -> None:
    with pytest.raises(MessageRefused) as refused:
        room_destination(name)
    assert refused.value.field == "room"
    assert room_of(f"/topic/room.{name}") is None


@pytest.mark.parametrize(
    ("destination", "fault"),
    [
        ("/topic/*", "wildcards are not supported"),
        ("/topic/**", "wildcards are not supported"),
        ("/topic/a.>", "wildcards are not supported"),
        ("/topic/a.{x}", "wildcards are not supported"),
        ("/queue/{x}", "wildcards are not supported"),
        ("/topic/a}", "wildcards are not supported"),
        ("/topic/a?c", "wildcards are not supported"),
        ("/topic/a[bc]", "wildcards are not supported"),
        ("/topic/a/+/b", "wildcards are not supported"),
        ("/topic/+", "wildcards are not supported"),
        ("/user/queue/*", "wildcards are not supported"),
        ("/topic/room.#", "wildcards are not supported"),
        ("/topic/room.public", "the room 'public' is at /topic/public"),
        ("/topic/room.a b", "not a room's name"),
        ("/nowhere/x", "unknown destination"),
        ("/topic/", "unknown destination"),
        ("topic/x", "unknown destination"),
        ("", "unknown destination"),
    ],
)
def test_an_invalid_destination_is_refused_with_its_fault(destination: str, fault: str) -> None:
    assert fault_in(destination).startswith(fault)


def test_a_rooms_record_gets_its_id_in_front() -> None:
    record = record_of(Record("chat:{cats}", "5-1", b'{"content":"x"}'))
    assert record is not None
    assert (record.id, record.destination) == ("5-1", "/topic/room.cats")
    assert record.message.body == b'{"id":"5-1","content":"x"}'
    assert record.message.id == "cats/5-1"


def test_a_packed_message_keeps_its_headers_and_its_octets() -> None:
    packed = pack("/topic/x", [("content-type", "image/png"), ("a", "b"), ("gap", "true")], b"\x89PNG\n\0")
    record = record_of(Record("topic:{x}", "1-0", packed))
    assert record is not None
    assert record.message.body == b"\x89PNG\n\0"
    assert record.message.headers == (("content-type", "image/png"), ("a", "b")), "only the server sets gap"


def test_a_private_message_shows_its_destination_without_the_owner() -> None:
    destination = private_destination("p1", "/user/queue/private")
    assert destination == "/user/p1/queue/private"
    assert split_private(destination) == ("p1", "/user/queue/private")
    record = record_of(Record("chat-users:{p1}", "1-0", pack(destination, [], b"x")))
    assert record is not None
    assert (record.destination, record.message.destination) == (destination, "/user/queue/private")


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b'{"id":"mine","content":"x"}', b'{"id":"5-1","content":"x"}'),
        (b'{"content":"x","id":5}', b'{"id":"5-1","content":"x"}'),
        (b'{"id":1,"content":"x","id":2}', b'{"id":"5-1","content":"x"}'),
        (b'{"\\u0069d":1,"content":"x"}', b'{"id":"5-1","content":"x"}'),
        (b'{"content":"x","content":"y"}', b'{"id":"5-1","content":"y"}'),
        (b'{"content" :"x","content":"y"}', b'{"id":"5-1","content":"y"}'),
        (b'{"content"\n:"x","content"\t:"y"}', b'{"id":"5-1","content":"y"}'),
        (b' { "content" : "x" , "n" : {"id": 1} } ', b'{"id":"5-1","content":"x","n":{"id": 1}}'),
        (b'{"content":"\\"id\\":1"}', b'{"id":"5-1","content":"\\"id\\":1"}'),
    ],
)
def test_a_rooms_record_has_one_id_and_each_field_once(body: bytes, shown: bytes) -> None:
    record = record_of(Record("chat:{cats}", "5-1", body))
    assert record is not None
    assert record.message.body == shown


DEEP = b"[" * 5000 + b"]" * 5000


@pytest.mark.parametrize(
    ("topic", "body"),
    [
        ("chat-stream", b'{"content":' + DEEP + b"}"),
        ("chat-stream", DEEP),
        ("chat-stream", b'{"content":"\xff"}'),
        ("chat-stream", b'{"id":1}'),
        ("topic:{a}", b'{"destination":"/topic/a","headers":' + DEEP + b"}\nbody"),
        ("topic:{a}", b'{"destination":"/topic/b"}\nanother topic\'s'),
        ("queue:{jobs}", b'{"destination":"/queue/x\\u0000y"}\nbody'),
        ("queue:{jobs}", b'{"destination":"/queue/jobs","headers":{"a":1}}\nbody'),
        ("chat-users", b'{"destination":"/topic/a"}\nbody'),
        ("chat-users", b'{"destination":"\xff"}\nbody'),
    ],
    ids=lambda value: str(value[:30]),
)
def test_an_invalid_record_is_skipped_and_logged(topic: str, body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    assert record_of(Record(topic, "7-0", body)) is None
    (line,) = caplog.messages
    assert "7-0" in line


@pytest.mark.parametrize("body", [b"", b"hello", b'"quoted"', b"{}", b"[1]"])
@pytest.mark.parametrize("topic", ["chat-stream", "chat:{a}", "topic:{a}", "chat-users"])
def test_a_record_of_another_program_is_not_a_message(topic: str, body: bytes) -> None:
    assert record_of(Record(topic, "1-0", body)) is None
