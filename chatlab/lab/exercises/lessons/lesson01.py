"""Lesson 01: a question, the proof, the request, judging a request, the end, and a server that speaks first."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import inspect
import re
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from hashlib import sha1

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request

from chatlab import echo
from chatlab.lab.exercises.difference import Difference
from chatlab.lab.exercises.exercise import Exercise, NotYet, obeying
from chatlab.lab.exercises.support.streams import (
    SECONDS,
    Served,
    http_lines,
    seen_on_wire,
    sent_by_server,
    serving,
    shown,
    within,
)
from chatlab.lab.experiments import lesson01
from chatlab.lab.wire.trace import Event
from chatlab.lab.wire.wire import Wire
from chatlab.locale import _, ngettext

__all__ = ["EXERCISES"]

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455, 1.3
OTHER_KEY = "x3JJHMbDL1EzLkh9GBhXDw=="
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
REQUEST = (
    b"GET /chat HTTP/1.1\r\n"
    b"Host: server.example.com\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"\r\n"
)

# --- 01.0 ---


def question() -> bytes:
    return b"GET /news HTTP/1.1\r\nHost: board.example\r\n\r\n"


async def check_question(answer: object) -> None:
    request = _as_octets(answer)
    _check_line_ends(request, _("nothing comes after the empty line: the server would take it for your next question"))
    seen = http_lines(request)
    if re.search(rb"\r\n[ \t]", request):
        raise NotYet(_("a line begins with its name: no space comes before it"), seen)
    if not re.search(rb"\r\nhost:", request, re.IGNORECASE):
        raise NotYet(_("HTTP/1.1 requires a `Host` line"), seen)
    _check_question_line(request.split(b"\r\n")[0], seen)
    board = await lesson01.start_board()
    board.post(lesson01.NEWS[0])
    try:
        asked = lesson01.ask(board.url, request)
        response = await within(asked, _("a server answers the question"), lambda: seen)
    finally:
        await board.aclose()
    if response.status in (404, 405):
        raise NotYet(_("the question is `GET /news`"), f"{seen}\n{_status(response.status)}")
    if response.status != 200:
        raise NotYet(_("the first line is the method, the path and `HTTP/1.1`"), f"{seen}\n{_status(response.status)}")


def _check_question_line(line: bytes, seen: str) -> None:
    """Check what the first line has in it, before a server refuses it without a reason."""
    words = line.split(b" ")
    if not words[-1].startswith(b"HTTP/"):
        raise NotYet(_("the version is missing: the first line ends with `HTTP/1.1`"), seen)
    if len(words) == 3 and not words[1].startswith(b"/"):
        raise NotYet(_("the path begins with a slash: `/news`"), seen)


def _status(status: int) -> str:
    return _("the server answered {status}").format(status=status)


def _as_octets(answer: object) -> bytes:
    if not isinstance(answer, bytes):
        raise NotYet(_("the wire carries `bytes`; `.encode()` turns a `str` into them"), repr(answer))
    return answer


# --- 01.1 ---


def proof(key: str) -> str:
    from base64 import b64encode
    from hashlib import sha1

    fixed = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    return b64encode(sha1((key + fixed).encode()).digest()).decode()


def check_proof(answer: Callable[[str], object]) -> None:
    rules = {
        KEY: _("the RFC's own key gives the proof that the RFC prints"),
        OTHER_KEY: _("each key has its own proof"),
    }
    for key, rule in rules.items():
        call, expected = f"proof({key!r})", proof(key)
        with obeying(rule, _("{call} should be {expected}").format(call=call, expected=repr(expected))):
            got = answer(key)
        if got != expected:
            evidence = _("{call} returned {got!r}, not {expected!r}")
            raise NotYet(
                _mistake(key, got) or rule,
                evidence.format(call=call, got=got, expected=expected),
                difference=Difference(got, expected),
            )


def _mistake(key: str, got: object) -> str | None:
    """Name the mistake that leads to `got`, if it is a common one."""
    text, hexadecimal = (key + GUID).encode(), sha1((key + GUID).encode()).hexdigest()
    if isinstance(got, bytes):
        return _("the value of a header is text: a `str`, not `bytes`")
    if got is None:
        return _("nothing came back: `print` shows a value, `return` gives it to the caller")
    right = b64encode(sha1(text).digest())
    if got == str(right):
        return _("`str(...)` of bytes adds the b and the quotes; `.decode()` gives the letters alone")
    if any(got == _with_hash(name, text) for name in OTHER_HASHES):
        return _("the hash is SHA-1; another one gives another proof")
    mistakes = {
        urlsafe_b64encode(sha1(text).digest()): _("base64 here has + and /, not the - and _ of its form for URLs"),
        b64encode(sha1((key + GUID.lower()).encode()).digest()): _("the RFC's string has capital letters"),
        b64encode(sha1((GUID + key).encode()).digest()): _("the key comes first, and the RFC's string after it"),
        b64encode(sha1(key.encode()).digest()): _("the RFC's string is part of what is hashed"),
        b64encode(sha1(b64decode(key) + GUID.encode()).digest()): _("the key is hashed as it came, still in base64"),
        b64encode(hexadecimal.encode()): _("base64 encodes the hash's 20 bytes, not its hexadecimal digits"),
        hexadecimal.encode(): _("the hash is written in base64, not in hexadecimal"),
        b64encode(text): _("base64 encodes the SHA-1 hash, not the text itself"),
        right + b"\n": _("nothing comes before or after the proof, not even a line end"),
    }
    return mistakes.get(str(got).encode())


OTHER_HASHES = ("sha256", "sha512", "md5", "sha224", "sha384")


def _with_hash(name: str, text: bytes) -> str:
    return b64encode(hashlib.new(name, text, usedforsecurity=False).digest()).decode()


# --- 01.2 ---


def upgrade_request(host: str, path: str, key: str) -> bytes:
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def check_upgrade_request(answer: Callable[[str, str, str], object]) -> None:
    for case in (("server.example.com", "/chat", KEY), ("chat.example:8080", "/room?name=Nuri", OTHER_KEY)):
        with obeying(_("the request is returned as bytes, for any host, path and key"), f"upgrade_request{case!r}"):
            returned = answer(*case)
        request = _as_octets(returned)
        _check_line_ends(request, _("nothing comes after the empty line: the server would read it as the first frame"))
        await _send_to_strict_server(request, case[2])
        await _send_to_library(request, *case[:2])


def _check_line_ends(request: bytes, rule_of_the_end: str) -> None:
    seen = http_lines(request)
    if b"\n" in request.replace(b"\r\n", b""):
        raise NotYet(_(r"every line ends with \r\n"), seen)
    if b"\r\n\r\n" not in request:
        raise NotYet(_("an empty line ends the request; without it the server waits for more"), seen)
    if request.index(b"\r\n\r\n") + 4 < len(request):
        raise NotYet(rule_of_the_end, seen)


async def _send_to_strict_server(request: bytes, key: str) -> None:
    """Send the request to a server that says what is wrong with it."""
    async with await echo.start_by_hand(origins=["*"]) as server:  # without `host_names` it accepts any Host
        asked = lesson01.ask(server.url, request)
        response = await within(asked, _("a server answers the request"), lambda: http_lines(request))
    if response.status != 101:
        refused = _("a real server refused the request with {status}: {reason}")
        reason = response.body.decode().strip()
        raise NotYet(refused.format(status=response.status, reason=reason), http_lines(request))
    if (got := response.get("Sec-WebSocket-Accept")) != proof(key):
        evidence = _("the key was {key}; the server answered with {proof}, the proof for another key")
        raise NotYet(_("the request sends the key you were given"), evidence.format(key=key, proof=got))


async def _send_to_library(request: bytes, host: str, path: str) -> None:
    """Send the request to the library's server, and check the path and the host that it reads."""
    received: list[Request] = []

    async def keep_request(connection: ServerConnection) -> None:
        assert connection.request is not None  # the handshake is done
        received.append(connection.request)

    async with serve(keep_request, "127.0.0.1", 0, close_timeout=0.1) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        asked = lesson01.ask(url, request)
        rule = _("the library `websockets` answers the request, too")
        response = await within(asked, rule, lambda: http_lines(request))
    if response.status != 101:
        refused = _("the library `websockets` refused the request with {status}").format(status=response.status)
        raise NotYet(refused, http_lines(request))
    if (got := received[0].path) != path:
        evidence = _("the path was {path!r}; the server read {got!r}").format(path=path, got=got)
        raise NotYet(_("the request asks for the path you were given"), evidence)
    if (got := received[0].headers["Host"]) != host:
        evidence = _("the host was {host!r}; the server read {got!r}").format(host=host, got=got)
        raise NotYet(_("Host names the host you were given"), evidence)


# --- 01.3 ---


def judge(request: bytes, ours: list[str]) -> int:
    from base64 import b64decode

    first, *lines = request.decode("latin-1").split("\r\n\r\n")[0].split("\r\n")
    method, _, version = first.split(" ")
    pairs = [line.partition(":") for line in lines]
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    wishes = [wish.strip().lower() for wish in headers.get("connection", "").split(",")]
    try:
        size = len(b64decode(headers.get("sec-websocket-key", ""), validate=True))
    except ValueError:
        size = 0
    if version != "HTTP/1.1" or "host" not in headers:
        return 400
    if method != "GET":
        return 405
    if headers.get("upgrade", "").lower() != "websocket" or "upgrade" not in wishes:
        return 426
    if size != 16:
        return 400
    if headers.get("sec-websocket-version") != "13":
        return 426
    if "origin" in headers and headers["origin"] not in ours:
        return 403
    return 101


OURS = ["https://chat.example", "https://app.example"]
FOREIGN = b"Origin: https://evil.example\r\n"
CASES: list[tuple[bytes, bytes, int, str]] = [  # what to replace in REQUEST, by what, the expected status, the rule
    (b"", b"", 101, _("the RFC's own request should be accepted")),
    (b"GET", b"POST", 405, _("the method must be GET")),
    (b"GET", b"get", 405, _("the names of methods are written in capitals: `get` is not `GET`")),
    (b"HTTP/1.1", b"HTTP/1.0", 400, _("only HTTP/1.1 can be upgraded")),
    (b"Host: server.example.com\r\n", b"", 400, _("HTTP/1.1 requires Host")),
    (b"Upgrade: websocket\r\n", b"", 426, _("a client that does not ask to upgrade must do so")),
    (b"Upgrade: websocket", b"Upgrade: h2c", 426, _("this server upgrades to WebSocket only")),
    (b"Connection: Upgrade", b"Connection: keep-alive", 426, _("Connection must ask for the upgrade, too")),
    (b"Connection: Upgrade\r\n", b"", 426, _("Connection may be missing; then it does not ask for the upgrade")),
    (b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b"", 400, _("without a key there is nothing to prove")),
    (b"dGhlIHNhbXBsZSBub25jZQ==", b"dGhlIHNhbXBsZSBub25j", 400, _("a key is 16 bytes, written in base64")),
    (b"dGhlIHNhbXBsZSBub25jZQ==", b"dGhlIHNhbXBsZSBub25jZTEy", 400, _("24 letters may be 18 bytes: decode the key")),
    (b"dGhlIHNhbXBsZSBub25jZQ==", b"dGhlIHNhbXBsZSBub25jZQ", 400, _("a key must be valid base64")),
    (
        b"dGhlIHNhbXBsZSBub25jZQ==",
        b"dGhl!!!IHNhbXBsZSBub25jZQ==",
        400,
        _("`!` is no letter of base64: `b64decode` skips it unless you say `validate=True`"),
    ),
    (b"Version: 13", b"Version: 8", 426, _("only version 13 is supported")),
    (b"Upgrade: websocket", b"upgrade: WebSocket", 101, _("case does not matter, in the name or in this value")),
    (b"Sec-WebSocket-Key: ", b"SEC-WEBSOCKET-KEY: ", 101, _("case does not matter in the name of any header")),
    (
        b"Connection: Upgrade",
        b"Connection: keep-alive, Upgrade",
        101,
        _("Connection is a list; Firefox sends this one"),
    ),
    (b"Connection: Upgrade", b"Connection: no-upgrade", 426, _("`no-upgrade` in Connection is not `Upgrade`")),
    (b"Version: 13", b"Version:13  ", 101, _("spaces around a value do not count")),
    (b"Host:", b"Origin: https://chat.example\r\nHost:", 101, _("our own page may connect")),
    (
        b"Host:",
        b"origin: https://app.example\r\nHost:",
        101,
        _("every page on the list may connect, not only the first"),
    ),
    (b"Host:", FOREIGN + b"Host:", 403, _("a page that is not on the list may not connect")),
    (
        b"Host:",
        b"Origin: https://chat.example.evil.example\r\nHost:",
        403,
        _("a name that begins like ours is not ours"),
    ),
    (
        b"Host:",
        b"Origin: https://chatxexample\r\nHost:",
        403,
        _("an origin is compared letter by letter; in a regular expression a dot matches anything"),
    ),
    (b"Host:", b"Origin: \r\nHost:", 403, _("an Origin without a value is an Origin, and it is not on the list")),
]
NO_UPGRADE = (b"Upgrade: websocket\r\n", b"")
NO_KEY = (b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b"")
OLD_VERSION = (b"Version: 13", b"Version: 8")
TWO_FAULTS: list[
    tuple[tuple[bytes, bytes], tuple[bytes, bytes], int]
] = [  # two rows fit: the expected status is the upper one's
    ((b"GET /chat HTTP/1.1", b"POST /chat HTTP/1.0"), (b"", b""), 400),
    ((b"GET", b"POST"), (b"Host: server.example.com\r\n", b""), 400),
    ((b"GET", b"POST"), NO_UPGRADE, 405),
    (NO_UPGRADE, NO_KEY, 426),
    (NO_KEY, OLD_VERSION, 400),
    (OLD_VERSION, (b"Host:", FOREIGN + b"Host:"), 426),
]


def check_judge(answer: Callable[[bytes, list[str]], object]) -> None:
    for good, bad, status, rule in CASES:
        _expect_status(answer, REQUEST.replace(good, bad) if good else REQUEST, OURS, status, rule)
    for one, other, status in TWO_FAULTS:
        rule = _("where two rows of the table fit, the upper one decides")
        _expect_status(answer, REQUEST.replace(*one).replace(*other), OURS, status, rule)
    page = REQUEST.replace(b"Host:", b"Origin: https://chat.example\r\nHost:")
    rule = _("`ours` is the list that is passed, and another list lets other pages in")
    _expect_status(answer, page, ["https://other.example"], 403, rule)


def _expect_status(
    answer: Callable[[bytes, list[str]], object], request: bytes, ours: list[str], status: int, rule: str
) -> None:
    with obeying(_("{rule}: {status} expected").format(rule=rule, status=status), http_lines(request)):
        got = answer(request, list(ours))
    if got != status:
        answered = _("{rule}: {status} expected, yours is {got!r}").format(rule=rule, status=status, got=got)
        raise NotYet(answered, http_lines(request))


# --- 01.4 ---


def how_it_ended(heard: bytes) -> int:
    while len(heard) >= 2:
        size = 2 + heard[1]
        frame, heard = heard[:size], heard[size:]
        if len(frame) < size:
            break
        if frame[0] == 0x88:
            return int.from_bytes(frame[2:4]) if size > 2 else 1005
    return 1006


HELLO = bytes.fromhex("81 05 48 65 6c 6c 6f")
LOOKS_LIKE_A_CLOSE = bytes.fromhex("82 04 88 02 03 e8")
ENDS = [
    (HELLO + bytes.fromhex("88 02 03 e8"), 1000, _("the two bytes after the length of a Close are its number")),
    (bytes.fromhex("88 02 03 e9"), 1001, _("read the number from the Close: 03 e9 is 1001")),
    (bytes.fromhex("88 05 03 e8") + b"bye", 1000, _("a reason may follow the number; it is not part of the number")),
    (LOOKS_LIKE_A_CLOSE + bytes.fromhex("88 02 03 e9"), 1001, _("bytes inside a message are not a Close")),
    (LOOKS_LIKE_A_CLOSE, 1006, _("bytes inside a message are not a Close, and no other Close came")),
    (HELLO + bytes.fromhex("88 00"), 1005, _("a Close without a number is 1005")),
    (b"", 1006, _("if nothing came, no Close came: 1006")),
    (HELLO, 1006, _("if TCP ended without a Close, that is 1006")),
    (HELLO[:4], 1006, _("a message is cut off in the middle, so no Close came: 1006")),
    (bytes.fromhex("88"), 1006, _("half a Close does not count: 1006")),
    (bytes.fromhex("88 02 03"), 1006, _("half a Close does not count: 1006")),
]


async def check_how_it_ended(answer: Callable[[bytes], object]) -> None:
    for received, expected, rule in ENDS:
        _expect_end(answer, received, expected, rule)
    async with _greeter() as url, Wire(to=url) as wire:
        _expect_end(answer, await _receive_all(wire.url), 4001, _("the Close of a real server is understood"))
        wire.when(wire.cut, "websocket", "close")
        rule = _("a real server whose connection was cut sent no Close")
        _expect_end(answer, await _receive_all(wire.url), 1006, rule)


def _expect_end(answer: Callable[[bytes], object], received: bytes, expected: int, rule: str) -> None:
    try:
        got = answer(received)
    except Exception as error:
        raise NotYet(rule, _("heard: {octets}").format(octets=shown(received))) from error
    if got != expected:
        evidence = _("heard: {octets}; that is {expected}, not {got!r}")
        raise NotYet(rule, evidence.format(octets=shown(received), expected=expected, got=got))


@contextlib.asynccontextmanager
async def _greeter() -> AsyncIterator[str]:
    """Serve a greeting, followed by a Close with a number and a reason."""

    async def greet(connection: ServerConnection) -> None:
        await connection.send("어서 오세요 👋")
        await connection.close(4001, "점심 시간 🍜")

    async with serve(greet, "127.0.0.1", 0, compression=None, close_timeout=0.1) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def _receive_all(url: str) -> bytes:
    """Return everything that a server sends after its handshake, until TCP ends."""
    reader, writer = await _send_pieces(url, REQUEST)
    try:
        async with asyncio.timeout(lesson01.PATIENCE):
            await reader.readuntil(b"\r\n\r\n")
            return await reader.read()
    finally:
        writer.close()


async def _send_pieces(url: str, *pieces: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect and send bytes unchanged, with a pause between one piece and the next."""
    host, port = url.removeprefix("ws://").partition("/")[0].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for number, piece in enumerate(pieces):
        if number:
            await asyncio.sleep(0.05)
        writer.write(piece)
        await writer.drain()
    return reader, writer


# --- 01.5 ---


async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, news: AsyncIterator[str]) -> None:
    from base64 import b64encode
    from hashlib import sha1

    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    pairs = [line.partition(":") for line in head.splitlines()]
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    if headers.get("upgrade", "").lower() != "websocket":
        writer.write(b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: close\r\n\r\n")
        writer.close()
        return
    text = headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = b64encode(sha1(text.encode()).digest()).decode()
    lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
    lines += [f"Sec-WebSocket-Accept: {accept}", "", ""]
    writer.write("\r\n".join(lines).encode())
    async for each in news:
        data = each.encode()
        writer.write(bytes([0x81, len(data)]) + data)
    writer.write(bytes([0x88, 2]) + (1000).to_bytes(2))
    first = 0
    while first != 0x88:  # a frame from the client: two bytes, a mask of four bytes, and the payload
        first, second = await reader.readexactly(2)
        await reader.readexactly(4 + (second & 0x7F))
    writer.close()


ServeOne = Callable[[asyncio.StreamReader, asyncio.StreamWriter, AsyncIterator[str]], Awaitable[None]]


class _Newsroom:
    """The news that the learner's server receives."""

    def __init__(self) -> None:
        self._coming: asyncio.Queue[str | None] = asyncio.Queue()

    def post(self, text: str | None) -> None:
        """Add a piece of news; None ends the news."""
        self._coming.put_nowait(text)

    async def follow(self) -> AsyncIterator[str]:
        while (text := await self._coming.get()) is not None:
            yield text


async def check_serve_one(answer: ServeOne) -> None:
    if not inspect.iscoroutinefunction(answer):
        raise NotYet(_("it has to wait for the request, so it must be an `async def`"))
    newsroom = _Newsroom()
    async with serving(lambda reader, writer: answer(reader, writer, newsroom.follow())) as served:
        for __ in range(2):  # two clients: the answer may have kept something of the first
            async with Wire(to=served.url) as wire:
                await _read_news(wire, newsroom)
        await _send_unusual_requests(served)
        await _ask_for_page(served)


async def _read_news(wire: Wire, news: _Newsroom) -> None:
    client = await within(
        connect(wire.url, compression=None, ping_interval=None, proxy=None),
        _("a real client's request is answered with 101 and the proof for its key"),
        lambda: _("your server sent:\n{lines}").format(lines=http_lines(sent_by_server(wire))),
    )
    try:
        for text in ("점심 먹을까요? 🍜", "비가 와요 ☔"):
            news.post(text)
            await _expect_news(client, text, wire)
        await client.send("고마워요 🙏")  # a frame that is not the Close
        wire.delay(
            0.1, sender="server"
        )  # so that a server that does not wait for the client's Close ends TCP before it
        news.post(None)
        with contextlib.suppress(TimeoutError):  # the check below says what is missing
            await wire.wait_for("tcp", ("FIN", "RST"), sender="server", timeout=SECONDS)
    finally:
        client.transport.abort()
    _check_closing([event for event in wire.trace if event.kind in ("close", "FIN", "RST") or _is_heard(event)])


def _is_heard(event: Event) -> bool:
    """Whether the event is a frame of the client, which the server has to read on its way to the client's Close."""
    return event.layer == "websocket" and event.sender == "client"


async def _expect_news(client: ClientConnection, text: str, wire: Wire) -> None:
    begin = len(sent_by_server(wire))
    try:
        got = await asyncio.wait_for(client.recv(), 2)
    except TimeoutError:
        _check_first_octets(sent_by_server(wire)[begin:])
        evidence = _("there was news, {text!r}; after {seconds} s your server had sent: {octets}")
        octets = shown(sent_by_server(wire)[begin:])
        raise NotYet(
            _("news is sent as soon as there is some, without being asked for"),
            evidence.format(text=text, seconds=2, octets=octets),
        ) from None
    except Exception as error:
        got = _("nothing: {error}").format(error=error)
    if got != text:
        _check_first_octets(sent_by_server(wire)[begin:])
        raise NotYet(
            _("a frame is 0x81, the length of the text in bytes, and the text"),
            _wrong_frame(text, sent_by_server(wire)[begin:], got),
        )


def _check_first_octets(frame: bytes) -> None:
    """Raise for a frame whose first two octets say something that no client waits for."""
    sent = _("your server sent {octets}").format(octets=shown(frame))
    if frame[:1] and not frame[0] & 0x80:
        raise NotYet(_("the first byte is 0x81: without its first bit, FIN, more of the text is to come"), sent)
    if frame[1:2] and frame[1] & 0x80:
        raise NotYet(_("a server's frame has no mask: only a client masks what it sends"), sent)


def _wrong_frame(text: str, frame: bytes, got: object) -> str:
    """Return the evidence that `frame` does not carry `text`."""
    size = len(text.encode())
    return ngettext(
        "{text!r} is {size} byte long; your server sent {frame}, and the client read {got!r}",
        "{text!r} is {size} bytes long; your server sent {frame}, and the client read {got!r}",
        size,
    ).format(text=text, size=size, frame=shown(frame), got=got)


def _check_closing(ends: list[Event]) -> None:
    """Check how a connection ended, by the Closes and the ends of TCP that the wire saw, in order."""
    evidence = seen_on_wire(ends)
    order = [(each.sender, each.kind == "close") for each in ends]
    if ("server", True) not in order:
        raise NotYet(_("the server sends a Close before it ends TCP"), evidence)
    close = ends[order.index(("server", True))].data
    if close != bytes.fromhex("88 02 03 e8"):
        sent = _("your server sent {octets}").format(octets=shown(close))
        raise NotYet(_("the Close carries the number 1000, in two bytes, and nothing else"), sent)
    if ("server", False) not in order:
        raise NotYet(_("after both have sent a Close, the server ends TCP"), evidence)
    if ("client", True) not in order[: order.index(("server", False))]:
        raise NotYet(_("the server waits for the client's Close, after its messages; then it ends TCP"), evidence)


async def _send_unusual_requests(served: Served) -> None:
    """Send a request with header names in lower case, and a request in two pieces."""
    lowercase = b"\r\n".join(
        name.lower() + colon + value for name, colon, value in (line.partition(b":") for line in REQUEST.split(b"\r\n"))
    ).replace(b"get /chat http/1.1", b"GET /chat HTTP/1.1")
    requests: dict[str, tuple[bytes, ...]] = {
        _("`websocket` may have capitals anywhere: browsers do not all write alike"): (
            REQUEST.replace(b"Upgrade: websocket", b"Upgrade: WebSocket"),
        ),
        _("the names of headers may be in lower case"): (lowercase,),
        _("a request may arrive in pieces; it is complete at the empty line"): (REQUEST[:90], REQUEST[90:]),
    }
    for rule, pieces in requests.items():
        reader, writer = await _send_pieces(served.url, *pieces)
        sent = _sent(*pieces)
        try:
            reading = reader.readuntil(b"\r\n\r\n")
            head = await within(reading, rule, lambda sent=sent: sent)  # type: ignore[misc]  # mypy cannot infer a lambda's default
        finally:
            writer.transport.abort()
        if not head.startswith(b"HTTP/1.1 101 ") or proof(KEY).encode() not in head:
            raise NotYet(rule, f"{sent}\n{_answered(head)}")


def _sent(*pieces: bytes) -> str:
    """Return the evidence of what a client sent."""
    sent = ("\n" + _("and then:") + "\n").join(http_lines(piece) for piece in pieces)
    return _("sent:\n{lines}").format(lines=sent)


def _answered(head: bytes) -> str:
    """Return the evidence of what the learner's server answered."""
    return _("your server answered:\n{lines}").format(lines=http_lines(head))


async def _ask_for_page(served: Served) -> None:
    """Send the request of a browser in which somebody has typed the server's address."""
    reader, writer = await _send_pieces(served.url, page := b"GET / HTTP/1.1\r\nHost: server.example.com\r\n\r\n")
    rule = _("a request that does not ask to upgrade is answered with 426")
    try:
        line = await within(reader.readline(), rule, lambda: "\n".join([_sent(page), _("no answer came")]))
        if not line.startswith(b"HTTP/1.1 426 "):
            raise NotYet(rule, f"{_sent(page)}\n{_answered(line)}")
        rest = await within(reader.read(), _("after the 426 the connection is closed"), lambda: _("it is still open"))
        if b"\r\n\r\n" not in line + rest:
            raise NotYet(_("an empty line ends the answer, too"), _answered(line + rest))
        await asyncio.wait(served.tasks[-1:], timeout=SECONDS)
        if mistakes := [error for error in served.errors if not isinstance(error, EOFError | OSError)]:
            raise NotYet(_("after the 426 nothing more is to be done: `return`"), _sent(page)) from mistakes[0]
    finally:
        writer.transport.abort()


EXERCISES = [
    Exercise(
        "01.0",
        _("A question in HTTP"),
        check_question,
        (
            _("Two lines and an empty one. The first has three parts: the method, the path, the version."),
            _("`GET`, a space, `/news`, a space, `HTTP/1.1`, then `\\r\\n`. The `Host` line ends so, too."),
            _("An empty line is nothing but its end: so `\\r\\n` stands twice at the end of your bytes."),
        ),
        question,
        _("The empty line is how HTTP says “that was all”. Without it the server keeps waiting, and so do you."),
        makes=True,
        learned=_("An empty line ends the head of a message: that is HTTP's framing, and without it both sides wait."),
        leads_to=_("What happens if you leave out the empty line and send it ten seconds later?"),
    ),
    Exercise(
        "01.1",
        _("The proof"),
        check_proof,
        (
            _("You did this in the cell above, for one key. Which of its steps depend on the key?"),
            _("Join the key and the fixed text. `.encode()` turns the text into bytes, which `sha1` needs."),
            _("`sha1(...).digest()` gives the 20 bytes, `b64encode` encodes them, and `.decode()` makes a `str`."),
            _(
                "Once the lesson's cell has run, fixed is the text that begins with 258EAFA5. The rest is one line:\n"
                "return b64encode(sha1((key + fixed).encode()).digest()).decode()"
            ),
        ),
        proof,
        _("No web server does this by chance, and no cache has the answer stored. That is all it proves."),
        learned=_(
            "Only a server that knows the fixed text can compute this: the exchange is a challenge and its response."
        ),
        leads_to=_("Why is the client's key new each time? What could go wrong if it were always the same?"),
    ),
    Exercise(
        "01.2",
        _("A request that a server says yes to"),
        check_upgrade_request,
        (
            _("Six lines: what you want, from which host, two that ask for the upgrade, the key, and the version."),
            _(
                "Make a list of the six lines, with your host, path and key in place of the RFC's: "
                'f"GET {path} HTTP/1.1".'
            ),
            _(
                "Put `\\r\\n` between the lines, and twice after the last one: that makes the empty line. "
                "Finally, call `.encode()`."
            ),
            _(
                'return ("\\r\\n".join(lines) + "\\r\\n\\r\\n").encode(), where lines begins with '
                'f"GET {path} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade"; then come '
                'f"Sec-WebSocket-Key: {key}" and "Sec-WebSocket-Version: 13".'
            ),
        ),
        upgrade_request,
        _(
            "A request is text with a visible end. Everything after the empty line already belongs to the other "
            "protocol, so nothing may come there."
        ),
        learned=_(
            "The request asks to leave HTTP on this connection: it is an upgrade, and 101 confirms the switch of "
            "protocols."
        ),
        leads_to=_("Which of your lines could you leave out, and the server would still say 101? Try one."),
    ),
    Exercise(
        "01.3",
        _("The judge at the door"),
        check_judge,
        (
            _(
                "First split the request into its parts: the first line has method, path and version; each of the "
                "others has a name, a colon and a value. Convert the names to lower case, and strip the values."
            ),
            'first, *lines = request.decode().split("\\r\\n\\r\\n")[0].split("\\r\\n")\n'  # not shown: code
            'pairs = [line.partition(":") for line in lines]\n'
            "headers = {name.lower(): value.strip() for name, _, value in pairs}",
            _(
                'Look a header up with `headers.get("upgrade", "")`, because it may be missing. Compare in lower case. '
                'Connection is a list: split it at ",", strip each part, and check whether "upgrade" is among them.'
            ),
            _(
                "The key: `from base64 import b64decode`; then `len(b64decode(key, validate=True))` must be 16. It "
                "raises a ValueError if the key is not base64, so call it in a `try:`. The origin: check it only if "
                "there is one; then it must be in `ours`, exactly as it is written there."
            ),
            _(
                "Then write an `if` with a `return` for each row of the table, in that order. The last line is "
                "`return 101`."
            ),
        ),
        judge,
        _(
            "Clients may write headers in upper or lower case and with extra spaces, so a server compares what they "
            "mean. But it compares origins exactly: anything cleverer lets somebody in."
        ),
        learned=_(
            "The server compares the origin with a list of its own: an allow-list, and here the only thing that "
            "keeps a foreign page out."
        ),
        leads_to=_("A program on your own computer may send any Origin it likes. Whom does this check protect, then?"),
    ),
    Exercise(
        "01.4",
        _("How it ended"),
        check_how_it_ended,
        (
            _("You cannot search for the byte 0x88, because a message may contain it. Go from frame to frame."),
            _(
                "A frame here is two bytes and as many more as the second says: `size = 2 + heard[1]`. So the next "
                "frame begins at `heard[size:]`."
            ),
            _(
                "In `while len(heard) >= 2:`, work out size. If fewer bytes than that are left, the frame is "
                "incomplete: 1006. If `heard[0] == 0x88`, it is the Close. Otherwise cut the frame off and continue."
            ),
            _(
                "At the Close: `return int.from_bytes(heard[2:4])` if size is more than 2, else 1005. After the loop: "
                "`return 1006`."
            ),
        ),
        how_it_ended,
        _(
            "Nothing marks the beginning of a frame. If you know where one ends, you know where the next begins; if "
            "you lose count, you cannot recover. That is why frames are read by their lengths and nothing else."
        ),
        learned=_(
            "A close that both sides have announced is a clean close; one that nobody announced is reported as "
            "1006, which is never sent."
        ),
        leads_to=_("You hold a connection that has been silent for an hour. Has it ended? How could you find out?"),
    ),
    Exercise(
        "01.5",
        _("A newsroom by hand"),
        check_serve_one,
        (
            _(
                "Four parts: read the request, answer it, send the news, close the connection. Do the first two, then "
                "run the check: its message says how far a real client got."
            ),
            _(
                '`head = (await reader.readuntil(b"\\r\\n\\r\\n")).decode()` waits until the request is complete, '
                "however many pieces it comes in. Build the dict `headers` as in 01.3, with names in lower case."
            ),
            _(
                'If `headers.get("upgrade", "").lower() != "websocket"`: write b"HTTP/1.1 426 Upgrade Required", '
                "followed by two \\r\\n, then `writer.close()` and `return`. Otherwise write four lines, joined as in "
                "01.2: HTTP/1.1 101 Switching Protocols, Upgrade: websocket, Connection: Upgrade, and "
                "f\"Sec-WebSocket-Accept: {proof(headers['sec-websocket-key'])}\", with your `proof` from 01.1."
            ),
            _(
                "async for text in news:\n    data = text.encode()\n    writer.write(bytes([0x81, len(data)]) + data)\n"
                "After that, send the Close: `writer.write(bytes([0x88, 2]) + (1000).to_bytes(2))`."
            ),
            _(
                "The client answers with a Close; it may send messages before that. A client's frame has a mask of "
                "four bytes after the first two:\n"
                "first, second = await reader.readexactly(2)\nawait reader.readexactly(4 + (second & 0x7F))\n"
                "When first is 0x88, that was the Close: `writer.close()`."
            ),
        ),
        serve_one,
        _(
            "This is a WebSocket server: as long as the texts are short, a real client cannot tell it from a big one. "
            "It speaks first, which HTTP forbids. It ends TCP at the very end: after both Closes, before the client."
        ),
        learned=_(
            "The server pushes: it speaks first, on a connection that stays open. What you wrote is a WebSocket "
            "endpoint."
        ),
        leads_to=_("Your newsroom serves one reader after the other has come. What if one of them reads slowly?"),
    ),
]
