"""Identity: no client can write what the application writes, and no client receives what is for another."""

from __future__ import annotations

import asyncio
import contextlib
import json
import unicodedata
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientSession
from redis.asyncio import Redis
from websockets.asyncio.client import connect

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.brokers.redis.streams import RedisStreamsBroker
from chatlab.chat.access import Access, Credentials, guest
from chatlab.chat.app import Application, Call, Outgoing, User, send_to
from chatlab.chat.destinations import PRIVATE, SERVER_HEADERS, pack, private_destination, topic_of
from chatlab.chat.directory import handle_of
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint.server import ChatServer
from chatlab.chat.rooms import chat_application
from chatlab.stomp.frames import Frame
from tests.support.chat_brokers import KINDS, ChatBroker, chat_broker
from tests.support.spellings import spellings
from tests.support.stomp_peer import Peer

KEY = "a secret of this guest only"
FORGED = json.dumps(
    {"sender": "Ana (teacher)", "from": "0" * 32, "content": "FORGED", "kind": "mention", "error": "FORGED"}
)


@pytest.fixture(params=KINDS)
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[ChatBroker]:
    async with chat_broker(request.param) as broker:
        yield broker


@pytest.fixture
async def server(broker: ChatBroker) -> AsyncIterator[ChatServer]:
    async with await chat_server.start(broker) as server:
        yield server


def with_email(credentials: Credentials) -> User | None:
    """Authenticate everybody who gives a name; the principal is an e-mail address."""
    return User(credentials.login or "", f"{credentials.login}@example.org") if credentials.login else None


def principal_of(peer: Peer) -> str:
    return peer.connected.get("user-name") or ""


def own_handle(peer: Peer) -> str:
    return peer.connected.get("user-handle") or ""


async def subscribe_to_everything(peer: Peer) -> Peer:
    """Subscribe the peer to everything that the application may send it; return it."""
    for number, destination in enumerate(
        ("/user/queue/private", "/user/queue/errors", "/user/queue/notifications", "/topic/public", "/topic/room.cats")
    ):
        await peer.subscribe(destination, id=str(number))
    return peer


def application_destinations(peer: Peer) -> list[str]:
    """Return every destination that the application writes; private ones by the peer's principal and its handle."""
    queues = [
        f"/user/{who}/queue/{queue}"
        for who in (principal_of(peer), own_handle(peer))
        for queue in ("private", "errors", "notifications")
    ]
    return [*queues, "/topic/public", "/topic/room.cats", "/topic/who.cats", "/topic/who.public", "/queue/refused.jobs"]


async def attempt(url: str, destination: str, *, transaction: bool = False, **login: str) -> None:
    """SEND to the destination as another client, and wait for the server's answer, whatever it is."""
    async with Peer(url, **login) as mallory:
        named = {"transaction": "t"} if transaction else {}
        if transaction:
            await mallory.send("BEGIN", transaction="t")
        await mallory.send("SEND", FORGED, destination=destination, receipt="sent", **named)
        if transaction:
            await mallory.send("COMMIT", transaction="t", receipt="committed")
        frame = await mallory.frame()
        if transaction and frame.command == "RECEIPT":
            await mallory.frame()


@pytest.mark.parametrize("authenticate", [None, pytest.param(with_email, marks=pytest.mark.long)])
async def test_clients_cannot_send_to_the_applications_destinations_in_any_spelling(
    broker: ChatBroker, authenticate: Any
) -> None:
    async with (
        await chat_server.start(broker, access=Access(authenticate)) as server,
        Peer(server.url, "victim") as victim,
    ):
        await subscribe_to_everything(victim)
        for destination in application_destinations(victim):
            for spelled in spellings(destination):
                await attempt(server.url, spelled, login="mallory")
            await victim.nothing_more()


async def test_clients_cannot_send_to_the_applications_destinations_in_a_transaction(server: ChatServer) -> None:
    async with Peer(server.url, "victim") as victim:
        await subscribe_to_everything(victim)
        for destination in application_destinations(victim):
            await attempt(server.url, destination, transaction=True, login="mallory")
        await victim.nothing_more()


def frame_of(command: str, body: str = "", **headers: str) -> str:
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Frame(command, named, body.encode()).serialize("1.2").decode()


async def test_clients_cannot_send_to_the_applications_destinations_over_sockjs(server: ChatServer) -> None:
    async with Peer(server.url, "victim") as victim, ClientSession() as http:
        await subscribe_to_everything(victim)
        hello = frame_of("CONNECT", accept_version="1.2", host="x", login="mallory")
        for number, destination in enumerate(application_destinations(victim)):
            frames = [hello, frame_of("SEND", FORGED, destination=destination)]
            async with connect(f"{server.url}/0/w{number}/websocket") as websocket:
                await websocket.recv()
                await websocket.send(json.dumps(frames))
                while "ERROR" not in str(await websocket.recv()):
                    pass
            session = f"{server.url.replace('ws:', 'http:', 1)}/0/x{number}"
            async with http.post(f"{session}/xhr") as opened:
                assert await opened.text() == "o\n"
            async with http.post(f"{session}/xhr_send", data=json.dumps(frames)) as sent:
                assert sent.status == 204
            answer = ""
            while "ERROR" not in answer:
                async with http.post(f"{session}/xhr") as polled:
                    answer += await polled.text()
        await victim.nothing_more()


@pytest.mark.parametrize("destination", ["/topic/news", "/queue/jobs", "/user/{}/queue/notes"])
async def test_headers_set_by_the_server_cannot_be_set_by_clients(server: ChatServer, destination: str) -> None:
    names = [each for name in sorted(SERVER_HEADERS) for each in (name, name.upper(), f" {name}", f"{name} ")]
    theirs = {
        name: "FORGED" for name in names if name not in ("destination", "receipt", "transaction", "content-length")
    }
    for version in ("1.2", "1.0"):
        async with Peer(server.url, "victim", version=version) as victim, Peer(server.url, "mallory") as mallory:
            sent_to = destination.format(own_handle(victim))
            await victim.subscribe(sent_to.replace(f"{own_handle(victim)}/", ""))
            await mallory.receipt("SEND", "x", destination=sent_to, colour="red", **theirs)
            message = await victim.frame("MESSAGE")
            assert message.get("colour") == "red"
            assert "FORGED" not in [value for _, value in message.headers]


async def test_a_principal_is_shown_only_to_its_own_client(broker: ChatBroker) -> None:
    async with (
        await chat_server.start(broker, access=Access(with_email, handle_key=b"k")) as server,
        Peer(server.url, "ann") as ann,
        Peer(server.url, "bob") as bob,
    ):
        assert principal_of(ann) == "ann@example.org"
        await ann.subscribe("/topic/public", id="room")
        await ann.subscribe("/user/queue/private", id="private")
        await bob.subscribe("/topic/who.public", id="who")
        await bob.subscribe("/user/queue/private", id="private")
        seen = ""
        while own_handle(ann) not in seen:
            seen += (await bob.frame("MESSAGE")).body.decode()
        await ann.receipt("SEND", f'{{"to":"{own_handle(bob)}","content":"psst"}}', destination="/app/chat.private")
        message = await bob.frame("MESSAGE")
        assert json.loads(message.body)["from"] == own_handle(ann)
        everything = (
            seen + repr(message) + await stored_by(broker, [topic_of(private_destination(own_handle(bob), PRIVATE))])
        )
        assert "example.org" not in everything


async def stored_by(broker: ChatBroker, topics: list[str]) -> str:
    """Return all names and records that the engine keeps, as text."""
    records = [delivery.body for topic in topics for delivery in await broker.history(topic)]
    if not isinstance(broker, RedisStreamsBroker):
        return repr(records)
    async with Redis.from_url(broker.url) as redis:
        return repr(records) + repr(await redis.keys("*"))


async def test_a_private_message_can_be_answered_by_the_handle_in_from(server: ChatServer) -> None:
    async with Peer(server.url, "ann") as ann, Peer(server.url, "bob") as bob:
        for peer in (ann, bob):
            await peer.subscribe("/user/queue/private")
        await ann.receipt("SEND", f'{{"to":"{own_handle(bob)}","content":"ping"}}', destination="/app/chat.private")
        came_from = json.loads((await bob.frame("MESSAGE")).body)["from"]
        await bob.receipt("SEND", f'{{"to":"{came_from}","content":"pong"}}', destination="/app/chat.private")
        assert await ann.contents(1) == ["pong"]


async def private_message(sender: Peer, to: str, content: str) -> str:
    """Send a private message; return the command of the server's answer."""
    body = json.dumps({"to": to, "content": content})
    await sender.send("SEND", body, destination="/app/chat.private", receipt=content)
    return (await sender.frame()).command


@pytest.mark.parametrize("by", ["handle", "principal"])
async def test_a_private_message_is_treated_alike_whichever_instance_its_addressee_is_on(
    broker: ChatBroker, by: str
) -> None:
    access = Access(with_email, handle_key=b"key")
    async with contextlib.AsyncExitStack() as stack:
        urls = []
        for _ in range(2):  # on one Redis, each instance has its own connections
            own = RedisStreamsBroker(broker.url) if isinstance(broker, RedisStreamsBroker) else broker
            urls.append((await stack.enter_async_context(await chat_server.start(own, access=access))).url)
        sender = await stack.enter_async_context(Peer(urls[0], "ann"))
        for number, url in enumerate(urls):
            addressee = await stack.enter_async_context(Peer(url, f"ben{number}"))
            await addressee.subscribe("/user/queue/private")
            to = own_handle(addressee) if by == "handle" else principal_of(addressee)
            assert await private_message(sender, to, "here") == "RECEIPT"
            assert json.loads((await addressee.frame("MESSAGE")).body)["content"] == "here"
        # Nor does the answer say whether there is such a user: what is sent waits for one who connects to either.
        for number, url in enumerate(urls):
            absent = f"cid{number}@example.org"
            to = handle_of(absent, b"key") if by == "handle" else absent
            assert await private_message(sender, to, "later") == "RECEIPT"
            late = await stack.enter_async_context(Peer(url, f"cid{number}"))
            await late.send("SUBSCRIBE", id="0", destination="/user/queue/private", history="1")
            assert json.loads((await late.frame("MESSAGE")).body)["content"] == "later"


async def test_handles_are_equal_with_equal_keys_and_differ_with_others(broker: ChatBroker) -> None:
    handles = []
    for key in (b"one", b"one", b"other", b""):
        async with (
            await chat_server.start(broker, access=Access(with_email, handle_key=key)) as server,
            Peer(server.url, "ann") as ann,
        ):
            handles.append(own_handle(ann))
    assert handles[0] == handles[1] == handle_of("ann@example.org", b"one")
    assert len(set(handles)) == 3


async def test_a_guest_with_a_client_key_keeps_its_handle_when_it_reconnects_to_any_instance(
    broker: ChatBroker,
) -> None:
    async with await chat_server.start(broker) as here, await chat_server.start(broker) as there:
        async with Peer(here.url, "ann", client_key=KEY) as ann, Peer(here.url, "ann") as namesake:
            handle = own_handle(ann)
            assert own_handle(namesake) != handle
        async with Peer(there.url, "bob") as bob:
            await bob.receipt("SEND", f'{{"to":"{handle}","content":"missed"}}', destination="/app/chat.private")
        async with Peer(there.url, "ann", client_key=KEY) as again, Peer(there.url, "ann") as namesake:
            assert own_handle(again) == handle
            for peer in (again, namesake):
                await peer.subscribe("/user/queue/private", last_id="0-0")
            assert await again.contents(1) == ["missed"]
            await namesake.nothing_more()


@pytest.mark.parametrize("key", ["", "1", "x" * 15, "x" * 129])
async def test_a_client_key_that_is_too_short_or_long_is_refused_and_the_error_says_what_to_do(
    server: ChatServer, key: str
) -> None:
    peer = await Peer(server.url).open()
    await peer.send("CONNECT", **{"accept-version": "1.2", "host": "x", "login": "ann", "client-key": key})
    assert "draw 16 to 128 at random" in ((await peer.frame("ERROR")).get("message") or "")


async def test_a_client_with_the_same_name_cannot_suppress_messages_as_repeats(server: ChatServer) -> None:
    async with Peer(server.url, "victim", client_key=KEY) as victim, Peer(server.url, "victim") as namesake:
        await victim.subscribe("/topic/public")
        await namesake.say("IMPORTANT", client_id="1")
        await victim.say("IMPORTANT", client_id="1")
        await victim.say("IMPORTANT", client_id="1")
        assert await victim.contents(2) == ["IMPORTANT", "IMPORTANT"]
        await victim.nothing_more()


# --- Access decides about the room that a message goes to ---

ROOM = "고양이"


def not_to_the_cats(user: User, destination: str) -> bool:
    return destination != f"/topic/room.{ROOM}" or user.principal == "ann@example.org"


async def refused(peer: Peer, command: str, body: str = "", **headers: str) -> str:
    await peer.send(command, body, receipt="r", **headers)
    return (await peer.frame("ERROR")).get("message") or ""


@pytest.mark.parametrize("form", ["NFC", "NFD"])
async def test_a_rule_for_a_room_covers_sending_subscribing_history_and_presence(broker: ChatBroker, form: Any) -> None:
    room = unicodedata.normalize(form, ROOM)
    access = Access(with_email, may_subscribe=not_to_the_cats, may_send=not_to_the_cats)
    async with await chat_server.start(broker, access=access) as server, Peer(server.url, "ann") as ann:
        await ann.subscribe(f"/topic/room.{room}")
        body = json.dumps({"content": "forbidden", "room": room})
        async with Peer(server.url, "eve") as eve:
            await eve.say("elsewhere she may")
            error = await refused(eve, "SEND", body, destination="/app/chat.sendMessage")
            assert error == f"access refused: 'eve' may not send to '/topic/room.{ROOM}'"
        for destination, headers in (
            (f"/topic/room.{room}", {}),
            (f"/topic/room.{room}", {"history": "10"}),
            (f"/topic/room.{room}", {"last_id": "0-0"}),
            (f"/topic/who.{room}", {}),
        ):
            async with Peer(server.url, "eve") as eve:
                error = await refused(eve, "SUBSCRIBE", id="1", destination=destination, **headers)
                assert error.startswith("access refused: 'eve' may not subscribe to ")
        await ann.say("allowed", room)
        assert await ann.contents(1) == ["allowed"]
        await ann.nothing_more()


async def test_a_rule_for_one_users_private_queue_can_be_written(broker: ChatBroker) -> None:
    closed = f"/user/{handle_of('ann@example.org')}/queue/private"
    access = Access(with_email, may_send=lambda user, destination: destination != closed)
    async with await chat_server.start(broker, access=access) as server, Peer(server.url, "ann") as ann:
        await ann.subscribe("/user/queue/private")
        for to in (own_handle(ann), principal_of(ann)):
            async with Peer(server.url, "eve") as eve:
                error = await refused(eve, "SEND", f'{{"to":"{to}","content":"x"}}', destination="/app/chat.private")
                assert error == f"access refused: 'eve' may not send to {closed!r}"
        await ann.nothing_more()


def shop() -> Application:
    """Return the chat's application with more handlers."""
    app = chat_application()
    app.own("/topic/orders.", "/user/queue/bills")

    @app.message("/price")
    @send_to("/topic/prices")
    async def price(call: Call) -> dict[str, str]:
        return {"by": call.user.name}

    @app.subscribe("/count.{room}", about="/topic/room.{room}")
    async def count(call: Call) -> dict[str, str]:
        return {"room": call.parts["room"]}

    @app.message("/bill")
    def bill(call: Call) -> Outgoing:
        destination = private_destination(call.user.handle, "/user/queue/bills")
        return Outgoing(destination, pack(destination, [], b'{"due":1}'))

    return app


async def test_clients_cannot_send_to_the_destinations_of_another_handler(broker: ChatBroker) -> None:
    async with await chat_server.start(broker, app=shop()) as server, Peer(server.url, "ann") as ann:
        for number, destination in enumerate(("/topic/prices", "/topic/orders.new", "/user/queue/bills")):
            await ann.subscribe(destination, id=str(number))
        for destination in ("/topic/prices", "/topic/orders.new", f"/user/{own_handle(ann)}/queue/bills"):
            for spelled in spellings(destination):
                await attempt(server.url, spelled, login="mallory")
            await ann.nothing_more()
        await ann.receipt("SEND", destination="/app/price")
        await ann.receipt("SEND", destination="/app/bill")
        received = [json.loads((await ann.frame("MESSAGE")).body) for _ in range(2)]
        assert {"by": "ann"} in received
        assert {"due": 1} in received


async def test_access_decides_about_the_answer_of_an_asynchronous_handler(broker: ChatBroker) -> None:
    access = Access(may_send=lambda user, destination: destination != "/topic/prices")
    async with await chat_server.start(broker, app=shop(), access=access) as server, Peer(server.url, "eve") as eve:
        assert "may not send to '/topic/prices'" in await refused(eve, "SEND", destination="/app/price")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
async def test_a_handler_about_a_room_is_covered_by_the_rooms_rule(broker: ChatBroker, form: Any) -> None:
    room = unicodedata.normalize(form, ROOM)
    access = Access(with_email, may_subscribe=not_to_the_cats)
    async with await chat_server.start(broker, app=shop(), access=access) as server:
        async with Peer(server.url, "ann") as ann:
            await ann.subscribe(f"/app/count.{room}")
            assert json.loads((await ann.frame("MESSAGE")).body) == {"room": ROOM}
        async with Peer(server.url, "eve") as eve:
            error = await refused(eve, "SUBSCRIBE", id="1", destination=f"/app/count.{room}")
            assert error.startswith("access refused: 'eve' may not subscribe to ")


# --- Private messages ---


class FewTopics(MemoryBroker):
    """A broker for which reading a topic is expensive, as for Kafka and RabbitMQ."""

    few_topics = True


async def test_users_who_share_a_topic_each_receive_only_their_own_messages() -> None:
    async with (
        FewTopics() as broker,
        await chat_server.start(broker) as server,
        Peer(server.url, "bob") as bob,
        Peer(server.url, "ann") as ann,
    ):
        for peer in (ann, bob):
            await peer.subscribe("/user/queue/private")
        assert server.service.relay.topics() == ["chat-users"]
        for peer in (ann, bob):
            note = json.dumps({"to": own_handle(peer), "content": f"for {own_handle(peer)}", "client_id": "1"})
            await ann.receipt("SEND", note, destination="/app/chat.private")
        for peer in (ann, bob):
            assert await peer.contents(1) == [f"for {own_handle(peer)}"]
            await peer.nothing_more()
            await peer.subscribe("/user/queue/private", id="again", history="10")
            assert await peer.contents(1) == [f"for {own_handle(peer)}"]
            await peer.nothing_more()


async def test_a_flood_of_private_messages_does_not_trim_another_users() -> None:
    async with MemoryBroker(max_length=50) as broker, await chat_server.start(broker) as server:
        await check_trimming(server, broker)


async def test_a_flood_of_private_messages_does_not_trim_another_users_on_redis() -> None:
    async with chat_broker(KINDS[1]) as engine:
        assert isinstance(engine, RedisStreamsBroker)
        async with RedisStreamsBroker(engine.url, max_length=50) as broker, await chat_server.start(broker) as server:
            await check_trimming(server, broker)


async def check_trimming(server: ChatServer, broker: ChatBroker) -> None:
    async with Peer(server.url, "bob") as bob, Peer(server.url, "ann") as ann, Peer(server.url, "eve") as eve:
        await ann.receipt("SEND", f'{{"to":"{own_handle(bob)}","content":"keep"}}', destination="/app/chat.private")
        for number in range(500):
            note = json.dumps({"to": own_handle(eve), "content": str(number)})
            await eve.send("SEND", note, destination="/app/chat.private")
        await eve.receipt("SEND", "x", destination=f"/user/{own_handle(eve)}/queue/notes")
        assert len(await broker.history(topic_of(private_destination(own_handle(bob), PRIVATE)))) == 1
        await bob.subscribe("/user/queue/private", history="10")
        assert await bob.contents(1) == ["keep"]
        await bob.nothing_more()


async def test_private_queues_are_not_read_together_with_rooms_on_redis() -> None:
    async with chat_broker(KINDS[1]) as broker, await chat_server.start(broker) as server:
        assert isinstance(broker, RedisStreamsBroker)
        async with Redis.from_url(broker.url) as redis, redis.monitor() as monitor, Peer(server.url, "ann") as ann:
            await ann.subscribe("/topic/public", id="room")
            await ann.subscribe("/user/queue/private", id="private")
            await ann.say("x")
            reads: list[str] = []
            async with asyncio.timeout(15):
                async for command in monitor.listen():
                    if command["command"].startswith("XREAD "):
                        reads.append(command["command"])
                    if sum("chat-stream" in read for read in reads) > 2 and any(
                        "chat-users:" in read for read in reads
                    ):
                        break
        assert not [read for read in reads if "chat-stream" in read and "chat-users:" in read]


# --- Names ---


@pytest.mark.parametrize("login", ["server", "ѕеrvеr", "Ａｄｍｉｎ", "Kіm", "kim", "KIM", "guest-12ab", "Аna"])
async def test_guests_cannot_take_names_that_look_like_the_servers_or_a_users_or_mix_scripts(login: str) -> None:
    async with MemoryBroker() as broker, await chat_server.start(broker, access=Access(names=["Kim"])) as server:
        peer = await Peer(server.url).open()
        await peer.send("CONNECT", **{"accept-version": "1.2", "host": "x", "login": login})
        assert "choose another name" in ((await peer.frame("ERROR")).get("message") or "")
        async with Peer(server.url) as nameless:
            await nameless.subscribe("/user/queue/errors")
            body = json.dumps({"content": "x", "sender": login})
            await nameless.send("SEND", body, destination="/app/chat.sendMessage", receipt="r")
            assert json.loads((await nameless.frame("MESSAGE")).body)["field"] == "sender"


def with_guests(credentials: Credentials) -> User | None:
    """Admit users by a passcode, and guests without one."""
    return with_email(credentials) if credentials.passcode else guest(credentials.login)


async def is_refused(url: str, login: str) -> bool:
    """Tell whether a guest with this name is refused."""
    peer = await Peer(url).open()
    await peer.send("CONNECT", **{"accept-version": "1.2", "host": "x", "login": login})
    return (await peer.frame()).command == "ERROR"


async def test_a_listed_name_is_kept_from_guests_on_all_instances_and_others_where_the_user_has_connected(
    broker: ChatBroker,
) -> None:
    access = Access(with_guests, names=["Kim"])
    async with (
        await chat_server.start(broker, access=access) as one,
        await chat_server.start(broker, access=access) as other,
        Peer(one.url, "Lee", passcode="secret") as lee,
    ):
        assert [await is_refused(server.url, "kim") for server in (one, other)] == [True, True]
        assert [await is_refused(server.url, "lee") for server in (one, other)] == [True, False]  # see SECURITY.md
        async with Peer(other.url, "Lee") as namesake, Peer(other.url, "ann", passcode="secret") as ann:
            await namesake.subscribe("/user/queue/private")
            await lee.subscribe("/user/queue/private")
            assert await private_message(ann, principal_of(lee), "for the user") == "RECEIPT"
            assert json.loads((await lee.frame("MESSAGE")).body)["content"] == "for the user"
            await namesake.nothing_more()


@pytest.mark.parametrize(
    "login", ["민지", "محمد", "हिन्दी", "می\u200cخواهم", "❤️‍🔥 Ana", "Ana Иванова", "Nguyễn", "ひろkim", "Kim2"]
)
async def test_real_names_in_any_script_are_kept(login: str) -> None:
    async with (
        MemoryBroker() as broker,
        await chat_server.start(broker, access=Access(names=["Kim"])) as server,
        Peer(server.url, login) as peer,
    ):
        await peer.subscribe("/topic/public")
        await peer.say("x")
        assert json.loads((await peer.frame("MESSAGE")).body)["sender"] == unicodedata.normalize("NFC", login)


@pytest.mark.parametrize("other", ["Ana", "сосо"])
async def test_guests_with_equal_or_similar_names_have_different_handles_in_their_messages(
    other: str,
) -> None:
    name = "coco" if other == "сосо" else other
    async with (
        MemoryBroker() as broker,
        await chat_server.start(broker) as server,
        Peer(server.url, name) as one,
        Peer(server.url, other) as namesake,
    ):
        await one.subscribe("/topic/public")
        await one.say("mine")
        forged = json.dumps({"content": "not mine", "sender": name, "from": own_handle(one)})
        await namesake.send("SEND", forged, destination="/app/chat.sendMessage")
        bodies = [json.loads((await one.frame("MESSAGE")).body) for _ in range(2)]
        assert [body["from"] for body in bodies] == [own_handle(one), own_handle(namesake)]
        assert own_handle(one) != own_handle(namesake)


@pytest.mark.parametrize("login", ["\u3164", "\u2800", "\u200d", "\u202e", "\u0301", "\ufe0f", " ", "\U000e0041"])
async def test_an_invisible_name_is_replaced_by_a_guest_name(login: str) -> None:
    async with MemoryBroker() as broker, await chat_server.start(broker) as server, Peer(server.url, login) as peer:
        await peer.subscribe("/topic/public")
        await peer.say("x")
        assert json.loads((await peer.frame("MESSAGE")).body)["sender"].startswith("guest-")
