"""The picture of a fault, fed by hand and by the members of real chats."""

from __future__ import annotations

import asyncio

from chatlab.brokers.redis.streams import RedisStreamsBroker
from chatlab.chat.endpoint import server as chat
from chatlab.lab.clients import StompMember
from chatlab.lab.engines.engine import Engine
from chatlab.lab.until import until
from chatlab.lab.widgets.fault_picture import FaultPicture, Mark, last_number


def test_each_observation_changes_one_cell() -> None:
    picture = FaultPicture(["가람", "Nuri"], messages=4)
    for number in range(3):
        picture.saw("가람", number, f"메시지 {number}")
    picture.saw("가람", 1, "메시지 1")
    picture.saw("Nuri", 0, None)
    assert [picture.mark("가람", number) for number in range(4)] == [Mark.ONCE, Mark.TWICE, Mark.ONCE, Mark.MISSING]
    assert repr(picture) == "가람: 2 once, 1 twice or more, 1 missing\nNuri: 1 empty, 3 missing"
    assert not picture.clean


def test_empty_messages_that_do_not_say_which_they_are_fill_the_row_from_the_left() -> None:
    picture = FaultPicture(["가람", "Nuri"], messages=3)
    picture.saw("가람", 0, "메시지 0")
    for member in ("가람", "Nuri"):
        picture.saw(member, None, None, count=2)
    assert [picture.mark("가람", number) for number in range(3)] == [Mark.ALSO_EMPTY, Mark.EMPTY, Mark.MISSING]
    assert [picture.mark("Nuri", number) for number in range(3)] == [Mark.EMPTY, Mark.EMPTY, Mark.MISSING]


def test_what_is_none_of_the_messages_is_counted_apart() -> None:
    picture = FaultPicture(["가람"], messages=["a", "b"])
    for message in ("a", "b", "c"):
        picture.saw("가람", message, message)
    picture.saw("가람", None, None, count=3)  # one more than there are messages
    assert repr(picture).splitlines()[1] == "not one of these messages: 2"


def test_counts_add_up_to_all_messages() -> None:
    picture = FaultPicture(["가람", "Nuri"], messages=20)
    picture.saw("가람", 7, "x", count=3)
    assert picture.counts("가람") == {
        Mark.ONCE: 0,
        Mark.TWICE: 1,
        Mark.ALSO_EMPTY: 0,
        Mark.EMPTY: 0,
        Mark.MISSING: 19,
    }
    assert picture.count(Mark.MISSING) == 39
    assert "title='twice or more'>3×</td>" in picture._repr_html_()


def test_a_name_with_markup_is_shown_as_it_is() -> None:
    picture = FaultPicture(["<b>가람</b>"], messages=1, title="<i>F1</i>")
    assert "&lt;b&gt;가람&lt;/b&gt;" in picture._repr_html_()
    assert "<i>" not in picture._repr_html_()


def test_the_number_of_a_message_is_the_last_in_its_text() -> None:
    assert last_number("24시 메시지 7") == 7
    assert last_number('"메시지 12"') == 12
    assert last_number("안녕") is None


async def test_the_picture_of_our_chat_is_clean_and_fills_while_messages_arrive(fresh_valkey: Engine) -> None:
    async with RedisStreamsBroker(fresh_valkey.url) as broker, await chat.start(broker) as server:
        members = [StompMember(server.url, name) for name in ("가람", "Nuri")]
        await asyncio.gather(*(member.connect() for member in members))
        picture = FaultPicture([member.name for member in members], messages=3)
        picture.follow(*members)
        await members[0].send("메시지 0")
        await members[1].heard("메시지 0")
        await until(lambda: picture._html.value.count(f">{Mark.ONCE.value}</td>") == 2)
        for number in (1, 2):
            await members[0].send(f"메시지 {number}")
        await until(lambda: picture.clean)
        assert repr(picture) == "가람: 3 once\nNuri: 3 once"
        await asyncio.gather(*(member.close() for member in members))


def test_a_member_that_is_followed_fills_its_row_with_what_it_receives_from_then_on() -> None:
    member = StompMember("ws://127.0.0.1:1/ws", "가람")  # never connected: the log is written here
    member.note("Nuri: 메시지 0", "received")
    picture = FaultPicture(["가람"], messages=4)
    picture.follow(member)
    for text in ("somebody: None", "Nuri: 메시지 1", "Nuri: 메시지 1", "Nuri: 메시지 2"):
        member.note(text, "received")
        member.note("메시지 3", "sent")
    marks = [picture.mark("가람", number) for number in range(4)]
    assert marks == [Mark.EMPTY, Mark.TWICE, Mark.ONCE, Mark.MISSING]


def test_texts_empty_messages_and_all_messages_of_a_member_are_counted() -> None:
    picture = FaultPicture(["가람", "Nuri"], messages=3)
    for message, content in ((0, "a"), (0, "a"), (1, "b"), (None, None)):
        picture.saw("가람", message, content)
    assert (picture.texts("가람"), picture.empty("가람"), picture.shown("가람")) == (2, 1, 4)
    assert (picture.texts("Nuri"), picture.empty("Nuri"), picture.shown("Nuri")) == (0, 0, 0)


def test_what_a_member_receives_after_the_stop_changes_nothing() -> None:
    member = StompMember("ws://127.0.0.1:1/ws", "가람")
    picture = FaultPicture(["가람"], messages=2)
    picture.follow(member)
    member.note("Nuri: 메시지 0", "received")
    picture.stop()
    for text in ("Nuri: delay 0", "Nuri: 메시지 1"):
        member.note(text, "received")
    assert repr(picture) == "가람: 1 once, 1 missing"
    picture.stop()  # again: nothing left to do


def test_a_picture_says_that_an_empty_message_tells_no_column() -> None:
    picture = FaultPicture(["가람"], messages=2)
    picture.saw("가람", 0, "")
    assert "counted from the left" not in picture._repr_html_()
    picture.saw("가람", None, "")
    assert "counted from the left" in picture._repr_html_()
