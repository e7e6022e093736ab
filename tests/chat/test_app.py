"""Destinations and handlers: first without a server, then on one."""

from __future__ import annotations

import json

import msgspec
import pytest

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.app import Answer, Application, Call, Outgoing, User, send_to
from chatlab.chat.endpoint import server as chat_server
from chatlab.errors import MessageRefused
from tests.support.stomp_peer import Peer

ANN = User("ann", "p-ann")


class Greeting(msgspec.Struct):
    words: str
    times: int = 1


def call(destination: str) -> Call:
    return Call(destination, ANN)


async def test_a_handler_gets_its_message_and_user_and_its_result_goes_to_send_to() -> None:
    app = Application()

    @app.message("/greet")
    @send_to("/topic/public")
    async def greet(greeting: Greeting, call: Call) -> Greeting:
        return Greeting(f"{call.user.name}: {greeting.words}", greeting.times + 1)

    answer = app.call_message(call("/app/greet"), b'{"words":"hello"}')
    assert answer.outgoing is None and answer.later is not None
    assert await answer.later == Outgoing("/topic/public", b'{"words":"ann: hello","times":2}')


async def test_a_handler_may_be_sync_and_may_return_an_outgoing_or_nothing() -> None:
    app = Application()
    outgoing = Outgoing("/topic/room.cats", b"{}", key="k")

    @app.message("/named")
    def named(greeting: Greeting, call: Call) -> Outgoing:
        return outgoing

    @app.message("/silent")
    def silent(call: Call) -> None:
        return None

    assert app.call_message(call("/app/named"), b'{"words":""}') == Answer(outgoing)
    assert app.call_message(call("/app/silent"), b"anything at all") == Answer()


async def test_a_handler_gets_the_parts_of_a_destination_by_name() -> None:
    app = Application()

    @app.subscribe("/who.{room}/{floor}")
    async def who(call: Call) -> dict[str, str]:
        return dict(call.parts)

    assert app.handles_subscription("/app/who.cats/2")
    assert not app.handles_subscription("/app/who.cats.dogs/2")
    assert not app.handles_subscription("/app/who./2")
    assert await app.call_subscription(call("/app/who.고양이/2")) == '{"room":"고양이","floor":"2"}'.encode()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{", ""),
        (b"", ""),
        (b"[]", ""),
        (b"{}", "words"),
        (b'{"words":1}', "words"),
        (b'{"words":"","times":"x"}', "times"),
    ],
)
async def test_a_body_of_the_wrong_shape_is_refused_with_the_fields_name(body: bytes, field: str) -> None:
    app = Application()

    @app.message("/greet")
    def greet(greeting: Greeting, call: Call) -> None:
        raise AssertionError("not to be called")

    with pytest.raises(MessageRefused) as refused:
        app.call_message(call("/app/greet"), body)
    assert refused.value.field == field


async def test_a_result_without_a_send_to_is_a_type_error() -> None:
    app = Application()

    @app.message("/greet")
    def greet(call: Call) -> str:
        return "hello"

    with pytest.raises(TypeError, match="has no send_to"):
        app.call_message(call("/app/greet"), b"")


def test_destinations_outside_the_prefix_do_not_belong_to_the_application() -> None:
    app = Application("/chat")
    assert app.takes("/chat/x")
    assert not app.takes("/app/x")
    assert not app.takes("/chatter/x")


# --- On a server ---


def application() -> Application:
    app = Application()

    @app.subscribe("/whoami")
    def whoami(call: Call) -> str:
        return call.user.name

    @app.message("/shout")
    @send_to("/topic/shouts")
    def shout(text: str, call: Call) -> str:
        if not text:
            raise MessageRefused("nothing to shout", field="text")
        return text.upper()

    @app.message("/broken")
    def broken(call: Call) -> None:
        raise ZeroDivisionError("secret detail")

    @app.subscribe("/broken")
    def broken_too(call: Call) -> None:
        raise ZeroDivisionError("secret detail")

    return app


async def test_a_subscription_to_app_is_answered_exactly_once(broker: MemoryBroker) -> None:
    async with await chat_server.start(broker, app=application()) as server, Peer(server.url, "ann") as peer:
        await peer.send("SUBSCRIBE", id="me", destination="/app/whoami", receipt="r")
        message = await peer.frame("MESSAGE")
        assert (message.body, message.get("subscription")) == (b'"ann"', "me")
        assert message.get("destination") == "/app/whoami"
        await peer.frame("RECEIPT")
        await peer.receipt("UNSUBSCRIBE", id="me")
        await peer.nothing_more()


async def test_a_handlers_result_is_sent_and_its_refusal_is_reported(broker: MemoryBroker) -> None:
    async with await chat_server.start(broker, app=application()) as server, Peer(server.url) as peer:
        await peer.subscribe("/topic/shouts")
        await peer.subscribe("/user/queue/errors", id="errors")
        await peer.receipt("SEND", '"hello"', destination="/app/shout")
        message = await peer.frame("MESSAGE")
        assert (message.body, message.get("content-type")) == (b'"HELLO"', "application/json")
        await peer.send("SEND", '""', destination="/app/shout", receipt="r")
        report = json.loads((await peer.frame("MESSAGE")).body)
        assert report == {"error": "nothing to shout", "field": "text", "receipt": "r"}


async def test_a_failing_handler_is_reported_without_details_and_the_session_stays_open(broker: MemoryBroker) -> None:
    async with await chat_server.start(broker, app=application()) as server, Peer(server.url) as peer:
        await peer.subscribe("/user/queue/errors", id="errors")
        await peer.send("SEND", "", destination="/app/broken", receipt="1")
        await peer.send("SUBSCRIBE", id="0", destination="/app/broken", receipt="2")
        for receipt in "12":
            report = await peer.frame("MESSAGE")
            assert report.get("receipt-id") == receipt
            assert json.loads(report.body)["error"] == "the handler failed"
        await peer.nothing_more()
