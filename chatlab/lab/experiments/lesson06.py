r"""Lesson 06's experiments: typed frames and what a server answers, clients of other projects, and the verdicts.

    await talk(url, "CONNECT\n…\0", "SEND\n…\0")      what was sent and answered, frame by frame
    await round_trips(url)                            one text by four kinds of client: does it come back as it was?
    await patterns(url)                               four ways to hand out messages: which work on this server?
    await endpoint(url)                               /ws, its SockJS fallback, /topic and /app, each tried

Each experiment takes the URL of a server, so that a doctored one goes through it, too. Nothing waits for longer than
`SECONDS`. Left out: what a browser does; the chat's own page is one, and tests/browser tries it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urljoin, urlsplit

import aiohttp
import stomp
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from chatlab import chat
from chatlab.brokers.memory import MemoryBroker
from chatlab.chat.access import Access, Authenticate
from chatlab.chat.article import simple_broker
from chatlab.chat.endpoint.server import ChatServer
from chatlab.clients.stomp import StompClient
from chatlab.errors import EngineMissing, EngineUnreachable
from chatlab.lab.claims import Figure, Verdict, verdict
from chatlab.lab.engines.kinds import free_ports
from chatlab.lab.experiments.original import recording
from chatlab.lab.runtime import lab
from chatlab.lab.wire.fields import describe_stomp
from chatlab.lab.wire.view import Dissection
from chatlab.locale import _
from chatlab.stomp.frames import Frame, Parser

__all__ = [
    "CONNECT",
    "SUBSCRIBE",
    "ArticleBroker",
    "RabbitMQ",
    "Transcript",
    "at_most",
    "c34",
    "c41",
    "c42",
    "draw",
    "endpoint",
    "error_for",
    "find_rabbitmq",
    "over_plain_http",
    "over_tcp",
    "patterns",
    "round_trips",
    "start_article",
    "start_chat",
    "talk",
    "with_stomp_py",
]

Value = TypeVar("Value")

SECONDS = 5.0  # for an answer that has to come
QUIET = 0.5  # seconds of silence after which nothing more is expected
STOMP_PORT = 61613  # where brokers listen for STOMP without a WebSocket
CONNECT = "CONNECT\naccept-version:1.2\nhost:chat.example\n\n\0"
SUBSCRIBE = "SUBSCRIBE\nid:1\ndestination:/topic/lunch\nreceipt:r1\n\n\0"
# Header lines whose values differ from run to run.
BY_CHANCE = ("session:", "server:", "user-name:guest", "user-handle:")


async def start_chat(authenticate: Authenticate | None = None, *, name: str = "chat") -> ChatServer:
    """Start a chat on a broker in memory, in place of the one that runs under this name."""
    broker = await lab.start(f"broker of {name}", MemoryBroker(run=1))  # not shown: a key
    access = Access(authenticate) if authenticate else None
    return await lab.start(name, chat.start(broker, heart_beat=(200, 200), access=access))


class ArticleBroker:
    """The STOMP side of the article's last build, without its Redis: Spring's simple broker, as we rebuilt it."""

    def __init__(self, server: simple_broker.Endpoint) -> None:
        self._server = server
        self.url = f"ws://{server.host}:{server.port}{simple_broker.PATH}"

    async def aclose(self) -> None:
        """Stop."""
        await self._server.aclose()


async def start_article() -> ArticleBroker:
    """Start it, with a controller that sends what comes to /app/chat.sendMessage to /topic/public."""

    async def send_message(frame: Frame) -> None:
        content = json.loads(frame.body).get("content")
        await broker.convert_and_send("/topic/public", json.dumps({"content": content}).encode())

    broker = simple_broker.SimpleBroker({"/app/chat.sendMessage": send_message})
    return ArticleBroker(await simple_broker.listen(broker, "127.0.0.1", 0, ()))


async def at_most(seconds: float, waiting: Awaitable[Value], what: str) -> Value:
    """Wait for something that must not take longer. Raise TimeoutError, which says what did not come, if it does."""
    try:
        return await asyncio.wait_for(waiting, seconds)
    except TimeoutError:
        sentence = _("{what} did not come within {seconds:g} s; run this section from its first cell")
        raise TimeoutError(sentence.format(what=what, seconds=seconds)) from None


def draw(frame: bytes | str) -> Dissection:
    """Return the octets of a STOMP frame with its parts named, as the wire draws them."""
    octets = frame.encode() if isinstance(frame, str) else frame
    return Dissection(octets, describe_stomp(octets))


# --- Frames that somebody typed ---


@dataclass
class Transcript:
    """What was sent and received, in order, and how the server closed the connection, if it did."""

    lines: list[tuple[str, str]] = field(default_factory=list)  # ("→" or "←", a frame)
    closed: str = ""

    @property
    def answers(self) -> list[str]:
        """The frames from the server."""
        return [frame for arrow, frame in self.lines if arrow == "←"]

    @property
    def error(self) -> str:
        """The `message` header of the server's ERROR frame; "" if there was none."""
        frames = [frame for answer in self.answers for frame in Parser(version="1.2").feed(answer.encode())]
        errors = (frame for frame in frames if isinstance(frame, Frame) and frame.command == "ERROR")
        return next((frame.get("message") or "" for frame in errors), "")

    def __repr__(self) -> str:
        """Return one frame a line; … is what differs from run to run."""
        lines = [f"{arrow} {_steady(frame)!r}" for arrow, frame in self.lines]
        return "\n".join([*lines, *([self.closed] if self.closed else [])])


def _steady(frame: str) -> str:
    """Return a frame with … in place of values that differ from run to run."""
    head, blank, body = frame.partition("\n\n")
    lines = [f"{line.partition(':')[0]}:…" if line.startswith(BY_CHANCE) else line for line in head.split("\n")]
    return "\n".join(lines) + blank + body


async def talk(url: str, *frames: str) -> Transcript:
    """Send these frames as they are, over a raw WebSocket; return the conversation.

    After a frame that must be answered (CONNECT, or one that asks for a receipt) it waits for the answer, for 5 s at
    most; after any other, and at the end, until the server has been silent for 0.5 s.
    """
    transcript = Transcript()
    async with connect(url, subprotocols=[Subprotocol("v12.stomp")], compression=None, proxy=None) as socket:
        try:
            for frame in frames:
                transcript.lines.append(("→", frame))
                await socket.send(frame)
                if frame.startswith(("CONNECT", "STOMP")) or "\nreceipt:" in frame:
                    await _hear(socket, transcript, SECONDS)
            while await _hear(socket, transcript, QUIET):
                pass
        except ConnectionClosed as error:
            closed = error.rcvd
            transcript.closed = _("closed by the server: {code}").format(code=closed.code if closed else "-")
    return transcript


async def _hear(socket: ClientConnection, transcript: Transcript, seconds: float) -> bool:
    """Add the server's next message; return whether one came in time. A heart-beat counts, but is not added."""
    try:
        async with asyncio.timeout(seconds):
            message = await socket.recv()
    except TimeoutError:
        return False
    text = message if isinstance(message, str) else message.decode()
    if text.strip("\n"):
        transcript.lines.append(("←", text))
        return True
    return await _hear(socket, transcript, seconds)


async def error_for(url: str, *frames: str) -> str:
    """Return the message of the ERROR that these frames get; "silence" if none comes."""
    return (await talk(url, *frames)).error or _("silence")


# --- The same frames on other ways ---


async def over_plain_http(url: str, *frames: str, answers: int = 2) -> list[str]:
    """Send frames to a SockJS endpoint in ordinary requests; return the first `answers` frames that come back."""
    parts = urlsplit(url)
    session = f"http://{parts.netloc}{parts.path}/000/{uuid.uuid4().hex}"
    received: list[str] = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(SECONDS)) as http:

        async def poll() -> str:
            async with http.post(f"{session}/xhr") as answer:
                return await answer.text()

        if (opened := await poll()) != "o\n":
            raise ConnectionError(_("no SockJS session: {answer!r}").format(answer=opened[:80]))
        async with http.post(f"{session}/xhr_send", data=json.dumps(frames)) as answer:
            answer.raise_for_status()
        async with asyncio.timeout(SECONDS):
            while len(received) < answers:
                if (answered := await poll()).startswith("a"):
                    received += json.loads(answered[1:])
    return received


async def over_tcp(server: RabbitMQ, *frames: bytes, answers: int = 2) -> list[Frame]:
    """Send frames over TCP, with no WebSocket; return the first `answers` frames that come back."""
    reader, writer = await asyncio.open_connection(server.host, server.port)
    parser, received = Parser(), list[Frame]()
    try:
        async with asyncio.timeout(SECONDS):
            writer.writelines(frames)
            while len(received) < answers and (data := await reader.read(4096)):
                received += [each for each in parser.feed(data) if isinstance(each, Frame)]
                parser.version = "1.2"
    finally:
        writer.transport.abort()
    return received


class RabbitMQ(NamedTuple):
    """Where a RabbitMQ speaks STOMP without a WebSocket, and whom it knows."""

    host: str
    port: int
    login: str
    passcode: str


async def find_rabbitmq() -> RabbitMQ | None:
    """Start RabbitMQ with its STOMP plugin, or find the one that runs; None, and say why, if there is none."""
    global _rabbitmq
    [port] = free_ports(1)
    options = {"plugins": "rabbitmq_stomp", "stomp.listeners.tcp.1": f"127.0.0.1:{port}"}
    try:
        engine = await lab.engine("rabbitmq", options)
        parts = urlsplit(engine.url)
        login, passcode = parts.username or "guest", parts.password or "guest"
        if engine.folder is None:  # it was running before: it uses the usual port, if its plugin is enabled
            _rabbitmq = RabbitMQ(parts.hostname or "127.0.0.1", STOMP_PORT, login, passcode)
        elif _rabbitmq is None:  # else started earlier in this kernel, on the port chosen then
            _rabbitmq = RabbitMQ("127.0.0.1", port, login, passcode)
        _reader, writer = await asyncio.open_connection(_rabbitmq.host, _rabbitmq.port)
        writer.close()
    except (EngineMissing, EngineUnreachable, OSError) as missing:
        print(_("not tested here: {reason}").format(reason=missing))
        return None
    return _rabbitmq


_rabbitmq: RabbitMQ | None = None


async def with_stomp_py(url: str, destination: str, text: str) -> str:
    """Let the client `stomp-py` connect, subscribe and send; return the body of the message it receives."""
    loop = asyncio.get_running_loop()
    received: asyncio.Future[str] = loop.create_future()
    parts = urlsplit(url)

    class Listener(stomp.ConnectionListener):  # type: ignore[misc]  # stomp-py is not typed
        def on_message(self, frame: stomp.utils.Frame) -> None:
            loop.call_soon_threadsafe(_settle, received, frame.body)

    client = stomp.WSStompConnection([(parts.hostname, parts.port)], ws_path=parts.path, vhost="chat.example")
    client.set_listener("", Listener())
    await asyncio.to_thread(client.connect, wait=True)
    try:
        await asyncio.to_thread(client.subscribe, destination, id="1")
        await asyncio.to_thread(client.send, destination, text)
        async with asyncio.timeout(SECONDS):
            return await received
    finally:
        await asyncio.to_thread(client.disconnect)


def _settle(future: asyncio.Future[str], text: str) -> None:
    if not future.done():
        future.set_result(text)


# --- C41: one text, by several kinds of client ---

TEXT = "안녕 👋: a\\b\n\nsecond paragraph"  # not shown: on the wire
ROUND_TRIP = "/topic/round-trip"


@dataclass(frozen=True)
class Trip:
    """One text, sent and received by one kind of client."""

    way: str  # "WebSocket", "HTTP" or "TCP"
    sent: str
    returned: str

    @property
    def unchanged(self) -> bool:
        """Whether it came back as it was."""
        return self.returned == self.sent


async def round_trips(url: str, rabbitmq: RabbitMQ | None = None) -> dict[str, Trip]:
    """Send one text to a topic by each kind of client, and over TCP if there is a RabbitMQ."""
    ways: dict[str, tuple[str, Callable[[], Awaitable[str]]]] = {
        _("frames by hand"): ("WebSocket", partial(_by_hand, url)),
        _("our client"): ("WebSocket", partial(_by_our_client, url)),
        "stomp-py": ("WebSocket", partial(with_stomp_py, url, ROUND_TRIP, TEXT)),
        "SockJS": ("HTTP", partial(_by_http, url)),
    }
    if rabbitmq is not None:
        ways["RabbitMQ"] = "TCP", partial(_by_tcp, rabbitmq)
    return {name: Trip(way, TEXT, await _or_error(go())) for name, (way, go) in ways.items()}


async def _or_error(going: Awaitable[str]) -> str:
    try:
        return await asyncio.wait_for(going, 2 * SECONDS)
    except Exception as error:  # a client that gets no answer, or a wrong one, is a result here
        return f"{type(error).__name__}: {error}"


def _by_hand_frames() -> tuple[str, str, str]:
    octets = len(TEXT.encode())
    return (
        CONNECT,
        f"SUBSCRIBE\nid:1\ndestination:{ROUND_TRIP}\n\n\0",
        f"SEND\ndestination:{ROUND_TRIP}\ncontent-length:{octets}\n\n{TEXT}\0",
    )


def _body(frames: Sequence[str]) -> str:
    """Return the body of the first MESSAGE among these frames."""
    found = (frame for each in frames for frame in Parser(version="1.2").feed(each.encode()))
    return next(each.body.decode() for each in found if isinstance(each, Frame) and each.command == "MESSAGE")


async def _by_hand(url: str) -> str:
    return _body((await talk(url, *_by_hand_frames())).answers)


async def _by_our_client(url: str) -> str:
    async with StompClient(url, reconnect=False) as client:
        messages = await client.subscribe(ROUND_TRIP, receipt=False)
        await client.send(ROUND_TRIP, TEXT, receipt=False)
        return (await anext(messages)).body.decode()


async def _by_http(url: str) -> str:
    return _body(await over_plain_http(url, *_by_hand_frames()))


async def _by_tcp(server: RabbitMQ) -> str:
    login = CONNECT.replace("host:chat.example", f"host:/\nlogin:{server.login}\npasscode:{server.passcode}")
    frames = [each.encode() for each in (login, *_by_hand_frames()[1:])]
    return next(each.body.decode() for each in await over_tcp(server, *frames) if each.command == "MESSAGE")


# --- C42: patterns ---


async def patterns(url: str) -> dict[str, str]:
    """Try four ways of handing out messages; return for each what the server did, "" if it is what STOMP means by it.

    A receipt is never asked for, because not every server sends one; each wait ends after `QUIET` seconds of silence.
    """
    tried: dict[str, Callable[[str], Awaitable[str]]] = {
        _("to all subscribers"): _to_all,
        _("to one of several workers"): _to_one_of_several,
        _("again, if nobody acknowledged it"): _again,
        _("to one user only"): _to_one_user,
    }
    return {name: await _or_error(attempt(url)) for name, attempt in tried.items()}


async def _received(*subscriptions: Any) -> list[list[str]]:
    """Return the texts that each subscription receives until all are silent."""

    async def drained(subscription: Any) -> list[str]:
        texts: list[str] = []
        with contextlib.suppress(TimeoutError, StopAsyncIteration):
            while True:
                texts.append((await asyncio.wait_for(anext(subscription), QUIET)).body.decode())
        return texts

    return list(await asyncio.gather(*map(drained, subscriptions)))


def _people(url: str) -> tuple[StompClient, StompClient]:
    return StompClient(url, login="Garam", reconnect=False), StompClient(url, login="Nuri", reconnect=False)


async def _to_all(url: str) -> str:
    one, other = _people(url)
    async with one, other:
        both = [await each.subscribe("/topic/pattern", receipt=False) for each in (one, other)]
        await asyncio.sleep(QUIET / 4)  # no receipt says when the subscriptions are in place
        await one.send("/topic/pattern", "1", receipt=False)
        return _unless(await _received(*both), [["1"], ["1"]])


async def _to_one_of_several(url: str) -> str:
    queue, texts = f"/queue/{uuid.uuid4().hex}", [f"{number}" for number in range(6)]
    one, other = _people(url)
    async with one, other:
        both = [await each.subscribe(queue, receipt=False) for each in (one, other)]
        await asyncio.sleep(QUIET / 4)
        for text in texts:
            await one.send(queue, text, receipt=False)
        got = await _received(*both)
        shared = sorted(got[0] + got[1]) == texts and all(got)
        return "" if shared else _("received: {got}").format(got=got)


async def _again(url: str) -> str:
    queue = f"/queue/{uuid.uuid4().hex}"
    one, other = _people(url)
    async with one:
        async with other:
            first = await other.subscribe(queue, ack="client-individual", receipt=False)
            await one.send(queue, "1", receipt=False)
            held = await _received(first)
        return _unless([*held, *await _received(await one.subscribe(queue, receipt=False))], [["1"], ["1"]])


async def _to_one_user(url: str) -> str:
    one, other = _people(url)
    async with one, other:
        private = "/user/queue/private"
        both = [await each.subscribe(private, receipt=False) for each in (one, other)]
        await asyncio.sleep(QUIET / 4)
        wanted = json.dumps({"to": other.connected.get("user-handle") or "Nuri", "content": "1"})
        await one.send("/app/chat.private", wanted, receipt=False)
        got = await _received(*both)
        return "" if [len(texts) for texts in got] == [0, 1] else _("received: {got}").format(got=got)


def _unless(got: list[list[str]], wanted: list[list[str]]) -> str:
    return "" if got == wanted else _("received: {got}").format(got=got)


# --- C34: the endpoint ---


async def endpoint(url: str) -> dict[str, str]:
    """Try the parts of the article's configuration; return for each what answered, "" if it is as the article says."""
    tried: dict[str, Callable[[str], Awaitable[str]]] = {
        "addEndpoint(/ws)": _opens,
        "withSockJS()": _opens_without_a_websocket,
        "enableSimpleBroker(/topic)": _to_all,
        "setApplicationDestinationPrefixes(/app)": _reaches_the_application,
    }
    return {name: await _or_error(attempt(url)) for name, attempt in tried.items()}


async def status_of(url: str) -> int:
    """Ask for a WebSocket; return the status of the answer."""
    try:
        async with connect(url, proxy=None):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


async def _opens(url: str) -> str:
    statuses = await status_of(url), await status_of(urljoin(url, "/elsewhere"))
    return (
        "" if statuses == (101, 404) else _("statuses at {url} and elsewhere: {found}").format(url=url, found=statuses)
    )


async def _opens_without_a_websocket(url: str) -> str:
    connected = (await over_plain_http(url, CONNECT, answers=1))[0].split("\n")[0]
    return "" if connected == "CONNECTED" else connected


async def _reaches_the_application(url: str) -> str:
    """Send to /app what no subscriber should see as it is, and see what the application makes of it."""
    async with StompClient(url, login="Garam", reconnect=False) as client:
        public = await client.subscribe("/topic/public", receipt=False)
        await asyncio.sleep(QUIET / 4)
        await client.send("/app/chat.sendMessage", '{"content": "1", "made-up": true}', receipt=False)
        [texts] = await _received(public)
    found = [json.loads(text) for text in texts]
    made = len(found) == 1 and found[0].get("content") == "1" and "made-up" not in found[0]
    return "" if made else _("the topic received {found}").format(found=found)


# --- The verdicts ---


def _failures(found: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {what or _('as claimed')}" for name, what in found.items())


def c34(found: Mapping[str, str], url: str = "") -> Verdict:
    """Judge the article's configuration, part by part, with what was recorded of its own program at /ws."""
    right = [name for name, what in found.items() if not what]
    recorded = recording()["chat: the handshake"]["/ws"]  # not shown: keys

    async def again() -> Verdict:
        return c34(await endpoint(url), url)

    return verdict(
        "C34",
        holds=len(right) == len(found),
        when=_("the client speaks SockJS (in the article's program, one without it has to open /ws/websocket)")
        if recorded != 101
        else "",
        because=_("a part of the configuration was not there"),
        measured=_("{found}; recorded on {spring}: a WebSocket at /ws gets {status}").format(
            found=_failures(found), spring=recording()["version"], status=recorded
        ),
        figure=Figure(_("parts of the configuration that were there"), len(right), len(found)),
        again=again if url else None,
    )


def c41(trips: Mapping[str, Trip], url: str = "") -> Verdict:
    """Judge whether any client will do, and whether it has to be a WebSocket."""
    whole = {name: trip for name, trip in trips.items() if trip.unchanged}
    elsewhere = sorted({trip.way for trip in whole.values()} - {"WebSocket"})
    found = "; ".join(
        f"{name} ({trip.way}): {_('unchanged') if trip.unchanged else trip.returned}" for name, trip in trips.items()
    )
    untried = "" if "RabbitMQ" in trips else " " + _("TCP, to RabbitMQ: not tested here.")

    async def again() -> Verdict:
        return c41({**trips, **await round_trips(url)}, url)

    return verdict(
        "C41",
        holds=len(whole) == len(trips),
        when=_("“mostly over WebSocket” is said of browsers (the frames went over other ways, too)")
        if elsewhere
        else "",
        because=_("a client did not get its text back as it was"),
        measured=f"{found}.{untried}",
        figure=Figure(_("kinds of client whose text came back unchanged"), len(whole), len(trips)),
        again=again if url else None,
    )


def c42(ours: Mapping[str, str], article: Mapping[str, str], urls: tuple[str, str] | None = None) -> Verdict:
    """Judge whether STOMP brings rich patterns: on a server that has them all, and on the article's simple broker."""
    kept, kept_there = ([name for name, what in each.items() if not what] for each in (ours, article))

    async def again() -> Verdict:
        assert urls is not None
        return c42(await patterns(urls[0]), await patterns(urls[1]), urls)

    return verdict(
        "C42",
        holds=len(kept) == len(ours),
        when=_("the server implements them (STOMP only names them, and the article's broker has fewer)")
        if len(kept_there) < len(kept)
        else "",
        because=_("a pattern did not work here"),
        measured=_("here: {ours}\nthe article's broker: {article}").format(
            ours=_failures(ours), article=_failures(article)
        ),
        figure=Figure(
            _("patterns that work here ({there} on the article's broker)").format(there=len(kept_there)),
            len(kept),
            len(ours),
        ),
        again=again if urls else None,
    )
