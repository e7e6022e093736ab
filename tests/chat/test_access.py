"""Users and what they may do; no user reads another's messages."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from chatlab.chat.access import Access, Credentials
from chatlab.chat.app import User
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint.server import ChatServer
from tests.support.chat_brokers import KINDS, ChatBroker, chat_broker
from tests.support.stomp_peer import Peer

USERS = {"ann": ("secret", "t-ann"), "bob": ("hidden", "t-bob")}


@pytest.fixture(params=KINDS)
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[ChatBroker]:
    async with chat_broker(request.param) as broker:
        yield broker


async def authenticate(credentials: Credentials) -> User | None:
    for name, (passcode, token) in USERS.items():
        if credentials.token == token or (credentials.login, credentials.passcode) == (name, passcode):
            return User(name, name)
    return None


async def refusal(peer: Peer, command: str, **headers: str) -> str:
    """Send a frame that is refused; return the ERROR's message."""
    await peer.send(command, receipt="r", **headers)
    error = await peer.frame("ERROR")
    assert error.get("receipt-id") == "r"
    assert await peer.close_code() == 1008
    return error.get("message") or ""


async def test_a_guest_is_shown_under_its_login_and_has_its_own_principal(server: ChatServer) -> None:
    async with Peer(server.url, "민지") as one, Peer(server.url, "민지") as namesake:
        principals = {one.connected.get("user-name"), namesake.connected.get("user-name")}
        assert len(principals) == 2
        assert "민지" not in principals


async def test_a_private_message_reaches_only_its_principal_on_any_instance(broker: ChatBroker) -> None:
    async with (
        await chat_server.start(broker) as here,
        await chat_server.start(broker) as there,
        Peer(here.url, "ann") as ann,
        Peer(there.url, "bob") as bob,
        Peer(there.url, "bob") as namesake,
    ):
        for peer in (ann, bob, namesake):
            await peer.subscribe("/user/queue/private")
        body = json.dumps({"to": bob.connected.get("user-name"), "content": "psst"})
        await ann.receipt("SEND", body, destination="/app/chat.private")
        message = await bob.frame("MESSAGE")
        assert message.get("destination") == "/user/queue/private"
        assert json.loads(message.body)["sender"] == "ann"
        assert json.loads(message.body)["content"] == "psst"
        for peer in (ann, bob, namesake):
            await peer.nothing_more()


async def test_a_client_may_send_directly_to_a_users_queue_as_with_spring(server: ChatServer) -> None:
    async with Peer(server.url) as ann, Peer(server.url) as bob:
        await bob.subscribe("/user/queue/notes")
        await ann.receipt("SEND", "hello", destination=f"/user/{bob.connected.get('user-name')}/queue/notes")
        message = await bob.frame("MESSAGE")
        assert (message.body, message.get("destination")) == (b"hello", "/user/queue/notes")


async def test_another_users_private_queue_cannot_be_subscribed_to(server: ChatServer) -> None:
    async with Peer(server.url, "ann") as ann, Peer(server.url) as eve:
        principal = ann.connected.get("user-name")
        reason = await refusal(eve, "SUBSCRIBE", id="0", destination=f"/user/{principal}/queue/private")
        assert reason.startswith("access refused")


async def test_history_of_private_messages_holds_only_the_users_own(server: ChatServer, broker: ChatBroker) -> None:
    async with await chat_server.start(broker, access=Access(authenticate)) as server:
        async with Peer(server.url, "ann", passcode="secret") as ann:
            for to, content in (("bob", "for bob"), ("ann", "for ann")):
                body = json.dumps({"to": to, "content": content})
                await ann.receipt("SEND", body, destination="/app/chat.private")
        async with Peer(server.url, token="t-bob") as bob:
            await bob.subscribe("/user/queue/private", last_id="0-0")
            assert await bob.contents(1) == ["for bob"]
            await bob.nothing_more()


async def test_login_and_passcode_or_a_token_are_checked(broker: ChatBroker) -> None:
    async with await chat_server.start(broker, access=Access(authenticate)) as server:
        for credentials in (
            {"login": "ann", "passcode": "secret"},
            {"token": "t-ann"},
            {"Authorization": "Bearer t-ann"},
        ):
            async with Peer(server.url, **credentials) as peer:
                assert peer.connected.get("user-name") == "ann"


@pytest.mark.parametrize(
    "credentials", [{}, {"login": "ann"}, {"login": "ann", "passcode": "hidden"}, {"token": "t-eve"}, {"token": ""}]
)
async def test_wrong_credentials_are_refused_without_saying_which_part_was_wrong(
    broker: ChatBroker, credentials: dict[str, str]
) -> None:
    async with await chat_server.start(broker, access=Access(authenticate)) as server:
        peer = await Peer(server.url).open()
        await peer.send("CONNECT", **{"accept-version": "1.2", "host": "test", **credentials})
        error = await peer.frame("ERROR")
        assert error.get("message") == "access refused: login, passcode or token is not valid"
        assert await peer.close_code() == 1008


async def test_a_refusal_by_an_access_function_names_the_destination(broker: ChatBroker) -> None:
    access = Access(
        may_subscribe=lambda user, destination: destination != "/topic/room.staff",
        may_send=lambda user, destination: not destination.startswith("/topic/"),
    )
    async with await chat_server.start(broker, access=access) as server:
        async with Peer(server.url, "eve") as eve:
            reason = await refusal(eve, "SUBSCRIBE", id="0", destination="/topic/room.staff")
            assert reason == "access refused: 'eve' may not subscribe to '/topic/room.staff'"
        async with Peer(server.url, "eve") as eve:
            reason = await refusal(eve, "SEND", destination="/topic/news")
            assert reason == "access refused: 'eve' may not send to '/topic/news'"


@pytest.mark.parametrize(
    ("headers", "fault"),
    [
        ({"destination": "/topic/room.*"}, "wildcards are not supported: '/topic/room.*'"),
        ({"destination": "/topic/public", "selector": "a = 1"}, "selectors are not supported"),
        ({"destination": "/elsewhere"}, "unknown destination: '/elsewhere'"),
        ({"destination": "/app/nothing"}, "no handler answers subscriptions to '/app/nothing'"),
    ],
)
async def test_an_invalid_destination_to_subscribe_to_is_refused_and_not_ignored(
    server: ChatServer, headers: dict[str, str], fault: str
) -> None:
    async with Peer(server.url) as peer:
        assert await refusal(peer, "SUBSCRIBE", id="0", **headers) == fault


async def test_a_send_without_a_recipient_is_refused(server: ChatServer) -> None:
    async with Peer(server.url) as peer:
        assert await refusal(peer, "SEND", destination="/app/nothing") == "no handler takes messages at '/app/nothing'"
