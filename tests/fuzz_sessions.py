"""Run random sessions against a chat server: `python tests/fuzz_sessions.py N`, one session for each thousand of N.

Half of them run in memory, half on a Redis that is started for them.

Users connect, subscribe and send to destinations in many spellings, inside and outside transactions, with headers and
fields that only the server may set. After each step, every client that is still connected reads, and this must hold:

    no client receives another's messages           private messages reach their receiver, a room's its subscribers
    no client sets the application's fields         sender, from, room, and the headers that the server sets
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import unicodedata
from contextlib import AsyncExitStack
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from redis.asyncio import Redis
from websockets.exceptions import ConnectionClosed

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that it runs as a script too

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.brokers.redis.streams import RedisStreamsBroker
from chatlab.chat.access import Access, Credentials
from chatlab.chat.app import User
from chatlab.chat.destinations import SERVER_HEADERS, canonical
from chatlab.chat.endpoint import server as chat_server
from chatlab.stomp.frames import Frame
from tests.support import redis_servers
from tests.support.spellings import spellings
from tests.support.stomp_peer import Peer

PER_SESSION = 1000  # cases that one session counts as
STEPS = 40
FORGED = "FORGED"
ROOMS = ("public", "cats", "고양이")
# The destinations that every client subscribes to at the start.
SUBSCRIBED = (
    "/topic/public",
    "/topic/room.cats",
    "/user/queue/private",
    "/user/queue/notifications",
    "/user/queue/notes",
)
QUEUES = ("private", "errors", "notifications", "notes", "private.x")
TOPICS = (
    "/topic/news",
    "/topic/room.cats",
    "/topic/room.고양이",
    "/topic/public",
    "/topic/who.cats",
    "/queue/refused.jobs",
)
# Headers that would change the meaning of a SEND.
FRAME_HEADERS = {"destination", "receipt", "transaction", "content-length"}


def with_email(credentials: Credentials) -> User | None:
    """Authenticate everybody; the principal is an e-mail address."""
    return User(credentials.login or "", f"{credentials.login}@example.org")


def weighted_spellings(destination: str) -> list[str]:
    """Return all spellings of a destination, the plain one as often as all others together."""
    variants = list(spellings(destination))
    return [variants[0]] * len(variants) + variants


class Sessions(RuleBasedStateMachine):
    """A chat server, its clients, and what each of them may receive."""

    redis: str | None = None  # the URL of a separate server, which is emptied for each session; None for memory

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.exits = AsyncExitStack()
        self.peers: list[Peer] = []
        self.subscribed: dict[Peer, dict[str, str]] = {}
        self.names: dict[str, str] = {}  # names by handle
        self.numbers = iter(range(1_000_000))

    @initialize(accounts=st.booleans())
    def start(self, accounts: bool) -> None:
        """Start a server, with guests or with accounts, and the first client."""
        self.runner.run(self._start(Access(with_email, handle_key=b"key") if accounts else Access()))
        self.connect("ana")
        self.connect("ben")

    async def _start(self, access: Access) -> None:
        broker = await self._broker()
        await broker.start()
        self.exits.push_async_callback(broker.aclose)
        server = await chat_server.start(broker, access=access, drain_seconds=0)
        self.server = await self.exits.enter_async_context(server)

    async def _broker(self) -> MemoryBroker | RedisStreamsBroker:
        if self.redis is None:
            return MemoryBroker()
        async with Redis.from_url(self.redis) as server:
            await server.flushall()
        return RedisStreamsBroker(self.redis)

    def teardown(self) -> None:
        """Stop everything."""
        self.runner.run(self._stop())
        self.runner.close()

    async def _stop(self) -> None:
        for peer in self.peers:
            await peer.__aexit__(None, None, None)
        await self.exits.aclose()

    # --- Steps ---

    @precondition(lambda self: len(self.peers) < 5)
    @rule(login=st.sampled_from(["ana", "ben", "민지", "ana"]))
    def connect(self, login: str) -> None:
        """Connect one more client with the page's subscriptions; some clients have the same name."""
        self.runner.run(self._connect(login))

    async def _connect(self, login: str) -> None:
        peer = await Peer(self.server.url, login).__aenter__()
        self.peers.append(peer)
        self.subscribed[peer] = {}
        self.names[handle(peer)] = login
        for destination in SUBSCRIBED:
            id = f"s{next(self.numbers)}"
            self.subscribed[peer][id] = destination
            await peer.subscribe(destination, id=id)

    @precondition(lambda self: self.peers)
    @rule(data=st.data())
    def subscribe(self, data: st.DataObject) -> None:
        """Subscribe to the client's own or another client's destination, in some spelling."""
        peer = data.draw(st.sampled_from(self.peers))
        owners = ["", "", "", *(f"{who}/" for each in self.peers for who in (handle(each), principal(each)))]
        private = st.builds(lambda owner, queue: f"/user/{owner}queue/{queue}", *map(st.sampled_from, (owners, QUEUES)))
        destination = data.draw(st.one_of(private, st.sampled_from(TOPICS)))
        destination = data.draw(st.sampled_from(weighted_spellings(destination)))
        options = data.draw(st.sampled_from([{}, {"history": "50"}, {"last_id": "0-0"}]))
        self.runner.run(self._subscribe(peer, destination, options))

    async def _subscribe(self, peer: Peer, destination: str, options: dict[str, str]) -> None:
        id = f"s{next(self.numbers)}"
        self.subscribed[peer][id] = canonical(destination)
        await self._exchange(peer, "SUBSCRIBE", id=id, destination=destination, **options)

    @precondition(lambda self: self.peers)
    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        """Send to a destination in some spelling, with every header and field that only the server may set."""
        peer, other = data.draw(st.sampled_from(self.peers)), data.draw(st.sampled_from(self.peers))
        owner = data.draw(st.sampled_from([handle(other), principal(other)]))
        direct = [f"/user/{owner}/queue/{queue}" for queue in QUEUES]
        destination = data.draw(st.sampled_from([*direct, *TOPICS, "/app/chat.sendMessage", "/app/chat.private"]))
        spelled = data.draw(st.sampled_from(weighted_spellings(destination)))
        in_transaction = data.draw(st.sampled_from([None, None, "COMMIT", "ABORT"]))
        body = self._body(peer, other, owner, data.draw(st.sampled_from(ROOMS)), spelled)
        self.runner.run(self._send(peer, spelled, body, in_transaction))

    @precondition(lambda self: self.peers)
    @rule(data=st.data(), room=st.sampled_from(ROOMS), private=st.booleans())
    def say(self, data: st.DataObject, room: str, private: bool) -> None:
        """Send as the page does, but with fields that only the server may set."""
        peer, other = data.draw(st.sampled_from(self.peers)), data.draw(st.sampled_from(self.peers))
        destination = "/app/chat.private" if private else "/app/chat.sendMessage"
        body = self._body(peer, other, handle(other), room, destination)
        self.runner.run(self._send(peer, destination, body, None))

    def _body(self, peer: Peer, other: Peer, owner: str, room: str, destination: str) -> str:
        mark = {"by": handle(peer), "to": handle(other), "room": room, "sent": destination}
        fields = {"sender": FORGED, "from": FORGED, "id": FORGED, "time": FORGED, "to": owner}
        return json.dumps(fields | {"room": room, "content": json.dumps(mark)})

    async def _send(self, peer: Peer, destination: str, body: str, in_transaction: str | None) -> None:
        headers = dict.fromkeys(SERVER_HEADERS - FRAME_HEADERS, FORGED)
        if in_transaction is not None:
            await peer.send("BEGIN", transaction="t")
            headers["transaction"] = "t"
        await peer.send("SEND", body, destination=destination, **headers)
        if in_transaction is not None:
            await peer.send(in_transaction, transaction="t")
        await self._read_all()

    async def _exchange(self, peer: Peer, command: str, **headers: str) -> None:
        await peer.send(command, **headers)
        await self._read_all()

    # --- What must hold ---

    async def _read_all(self) -> None:
        """Read at every client; an ERROR ends its connection."""
        for peer in list(self.peers):
            receipt = f"r{next(self.numbers)}"
            try:
                await peer.send("SUBSCRIBE", id=receipt, destination="/user/queue/nothing", receipt=receipt)
                while (frame := await peer.frame()).get("receipt-id") != receipt and frame.command != "ERROR":
                    self._check(peer, frame)
                await peer.send("UNSUBSCRIBE", id=receipt)
            except ConnectionClosed:
                frame = Frame("ERROR")
            if frame.command == "ERROR":
                self.peers.remove(peer)
                await peer.__aexit__(None, None, None)
                if not self.peers:
                    await self._connect("ana")

    def _check(self, peer: Peer, frame: Frame) -> None:
        if frame.command != "MESSAGE":
            return
        assert FORGED not in [value for name, value in frame.headers if name in SERVER_HEADERS], frame
        destination = self.subscribed[peer][frame.get("subscription") or ""]
        assert frame.get("destination") == destination, (destination, frame)
        body = json.loads(frame.body)
        if destination.startswith("/topic/who."):
            assert FORGED not in frame.body.decode(), frame
        elif destination != "/user/queue/errors":
            self._check_message(peer, destination, body, json.loads(body["content"]))

    def _check_message(self, peer: Peer, destination: str, body: dict[str, str], mark: dict[str, str]) -> None:
        if destination.startswith("/user/"):
            assert mark["to"] == handle(peer), (destination, body)
        if destination == "/user/queue/private":
            self._check_sender(body, mark)
        elif destination == "/topic/public" or destination.startswith("/topic/room."):
            room = "public" if destination == "/topic/public" else destination.removeprefix("/topic/room.")
            assert unicodedata.normalize("NFC", mark["room"]) == body["room"] == room, (destination, body)
            self._check_sender(body, mark)
        assert destination not in ("/user/queue/notifications", "/queue/refused.jobs"), (destination, body)

    def _check_sender(self, body: dict[str, str], mark: dict[str, str]) -> None:
        assert (body["sender"], body["from"]) == (self.names[mark["by"]], mark["by"]), body
        assert FORGED not in body.values(), body


def handle(peer: Peer) -> str:
    """Return the handle by which others address this client."""
    return peer.connected.get("user-handle") or ""


def principal(peer: Peer) -> str:
    """Return the principal of this client."""
    return peer.connected.get("user-name") or ""


class SessionsOnRedis(Sessions):
    """The same sessions on Redis Streams."""


def run_on_redis(sessions: int, server: str = redis_servers.WHEEL) -> None:
    """Run that many sessions on one Redis that is started for them."""
    with asyncio.Runner() as runner:
        engine = runner.run(redis_servers.start(server))
        try:
            SessionsOnRedis.redis = engine.url
            run(sessions, SessionsOnRedis)
        finally:
            runner.run(engine.stop())


def run(sessions: int, machine: type[Sessions] = Sessions) -> None:
    """Run that many sessions of `STEPS` steps."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=sessions,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )


if __name__ == "__main__":
    count = max(1, int(sys.argv[1]) // PER_SESSION) if len(sys.argv) > 1 else 100
    began = time.monotonic()
    run(count - count // 2)
    if count > 1:
        run_on_redis(count // 2)
    print(f"sessions: {count:,} in {time.monotonic() - began:.0f} s, no client received another's messages")
