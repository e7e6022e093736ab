"""Lesson 01: a proof, a request, a judge, the end of a connection, and a newsroom that speaks first."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from hashlib import sha1

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request

from chatlab import echo
from chatlab.lab.exercises.exercise import Exercise, NotYet
from chatlab.lab.exercises.support.streams import SECONDS, Served, http_lines, said_by_server, serving, shown, within
from chatlab.lab.experiments import lesson01
from chatlab.lab.wire.trace import Event
from chatlab.lab.wire.wire import Wire

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

# --- 01.1 ---


def proof(key: str) -> str:
    from base64 import b64encode
    from hashlib import sha1

    guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    return b64encode(sha1((key + guid).encode()).digest()).decode()


def check_proof(answer: Callable[[str], object]) -> None:
    rules = {KEY: "the RFC's own key has the proof that the RFC prints", OTHER_KEY: "each key has a proof of its own"}
    for key, rule in rules.items():
        if (got := answer(key)) != (expected := proof(key)):
            raise NotYet(_slip(key, got) or rule, f"proof({key!r}) gave {got!r}, not {expected!r}")


def _slip(key: str, got: object) -> str | None:
    """Name the slip that leads to `got`, if it is one of those that are often made."""
    text, hexadecimal = (key + GUID).encode(), sha1((key + GUID).encode()).hexdigest()
    if isinstance(got, bytes):
        return "what stands in a header is text: a `str`, not `bytes`"
    slips = {
        b64encode(sha1((GUID + key).encode()).digest()): "the key comes first, and the RFC's string after it",
        b64encode(sha1(key.encode()).digest()): "the RFC's string belongs to what is hashed",
        b64encode(sha1(b64decode(key) + GUID.encode()).digest()): "the key is hashed as the letters it came in",
        b64encode(hexadecimal.encode()): "base64 is made of the hash's 20 bytes, not of its hexadecimal digits",
        hexadecimal.encode(): "the hash is written in base64, not in hexadecimal",
        b64encode(text): "what is written in base64 is the SHA-1 hash, not the text itself",
        b64encode(sha1(text).digest()) + b"\n": "nothing stands around the proof, no line end either",
    }
    return slips.get(str(got).encode())


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
        request = answer(*case)
        if not isinstance(request, bytes):
            raise NotYet("what goes on the wire is `bytes`; `.encode()` makes them of a `str`", repr(request))
        _check_its_ends(request)
        await _ask_the_strict(request, case[2])
        await _ask_the_library(request, *case[:2])


def _check_its_ends(request: bytes) -> None:
    seen = http_lines(request)
    if b"\n" in request.replace(b"\r\n", b""):
        raise NotYet(r"every line ends with \r\n", seen)
    if b"\r\n\r\n" not in request:
        raise NotYet("an empty line says that the request is complete; without it the server waits for more", seen)
    if request.index(b"\r\n\r\n") + 4 < len(request):
        raise NotYet("nothing comes after the empty line: it would be taken for the first frame", seen)


async def _ask_the_strict(request: bytes, key: str) -> None:
    """Send it to a server that says what is wrong."""
    async with await echo.start_by_hand(origins=["*"]) as server:  # and for whatever host
        asked = lesson01.ask(server.url, request)
        response = await within(asked, "a server answers it", lambda: http_lines(request))
    if response.status != 101:
        told = response.body.decode().strip()
        raise NotYet(f"a real server refused it with {response.status}: {told}", http_lines(request))
    if (got := response.get("Sec-WebSocket-Accept")) != proof(key):
        told = f"the key was {key}, the server proved {got}, which is the proof for another"
        raise NotYet("the key that is sent is the one you were given", told)


async def _ask_the_library(request: bytes, host: str, path: str) -> None:
    """Send it to another server, and look at what that has understood."""
    seen: list[Request] = []

    async def note(connection: ServerConnection) -> None:
        assert connection.request is not None  # the handshake is done
        seen.append(connection.request)

    async with serve(note, "127.0.0.1", 0, close_timeout=0.1) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        asked = lesson01.ask(url, request)
        response = await within(asked, "the library `websockets` answers it too", lambda: http_lines(request))
    if response.status != 101:
        raise NotYet(f"the library `websockets` refused it with {response.status}", http_lines(request))
    if seen[0].path != path:
        raise NotYet("it asks for the path you were given", f"the path was {path!r}, the server read {seen[0].path!r}")
    if (got := seen[0].headers["Host"]) != host:
        raise NotYet("Host names the host you were given", f"the host was {host!r}, the server read {got!r}")


# --- 01.3 ---


def judge(request: bytes, ours: list[str]) -> int:
    from base64 import b64decode

    first, *lines = request.decode("latin-1").split("\r\n\r\n")[0].split("\r\n")
    method, _, version = first.split(" ")
    pairs = [line.partition(":") for line in lines]
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    wishes = [wish.strip().lower() for wish in headers.get("connection", "").split(",")]
    try:
        size = len(b64decode(headers.get("sec-websocket-key", "")))
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
CASES: list[tuple[bytes, bytes, int, str]] = [  # what to look for in REQUEST, what to put there, the status, the rule
    (b"", b"", 101, "the RFC's own request is let in"),
    (b"GET", b"POST", 405, "the method is GET"),
    (b"HTTP/1.1", b"HTTP/1.0", 400, "only HTTP/1.1 knows how to upgrade"),
    (b"Host: server.example.com\r\n", b"", 400, "HTTP/1.1 wants to know the Host"),
    (b"Upgrade: websocket\r\n", b"", 426, "who does not ask to upgrade is told to"),
    (b"Upgrade: websocket", b"Upgrade: h2c", 426, "an upgrade to something else is not ours to give"),
    (b"Connection: Upgrade", b"Connection: keep-alive", 426, "the wish has to stand in Connection, too"),
    (b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b"", 400, "without a key there is nothing to prove"),
    (b"dGhlIHNhbXBsZSBub25jZQ==", b"dGhlIHNhbXBsZSBub25j", 400, "a key is 16 bytes, written in base64"),
    (b"dGhlIHNhbXBsZSBub25jZQ==", b"dGhlIHNhbXBsZSBub25jZQ", 400, "a key that is not base64 is no key"),
    (b"Version: 13", b"Version: 8", 426, "only version 13 is spoken"),
    (b"Upgrade: websocket", b"upgrade: WebSocket", 101, "capitals do not matter, in names nor in these words"),
    (b"Sec-WebSocket-Key: ", b"SEC-WEBSOCKET-KEY: ", 101, "capitals do not matter in the name of any header"),
    (b"Connection: Upgrade", b"Connection: keep-alive, Upgrade", 101, "Connection is a list, and Firefox sends this"),
    (b"Connection: Upgrade", b"Connection: no-upgrade", 426, "another word in Connection is another wish"),
    (b"Version: 13", b"Version:13  ", 101, "spaces around a value do not count"),
    (b"Host:", b"Origin: https://chat.example\r\nHost:", 101, "our own page may come in"),
    (b"Host:", b"origin: https://app.example\r\nHost:", 101, "every page on the list may come in, not only the first"),
    (b"Host:", FOREIGN + b"Host:", 403, "a page that is not on the list may not come in"),
    (b"Host:", b"Origin: https://chat.example.evil.example\r\nHost:", 403, "a name that begins like ours is not ours"),
]


def check_judge(answer: Callable[[bytes, list[str]], object]) -> None:
    for good, bad, status, rule in CASES:
        request = REQUEST.replace(good, bad) if good else REQUEST
        try:
            got = answer(request, list(OURS))
        except Exception as error:
            raise NotYet(f"{rule}: {status}", http_lines(request)) from error
        if got != status:
            raise NotYet(f"{rule}: {status}, not {got!r}", http_lines(request))


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
    (HELLO + bytes.fromhex("88 02 03 e8"), 1000, "the two bytes after the length of a Close are its number"),
    (bytes.fromhex("88 02 03 e9"), 1001, "the number of each Close is its own: 03 e9 is 1001"),
    (bytes.fromhex("88 05 03 e8") + b"bye", 1000, "after the number there may be a reason, which is not part of it"),
    (LOOKS_LIKE_A_CLOSE + bytes.fromhex("88 02 03 e9"), 1001, "what stands inside a message is no Close"),
    (LOOKS_LIKE_A_CLOSE, 1006, "what stands inside a message is no Close, and no other came"),
    (HELLO + bytes.fromhex("88 00"), 1005, "a Close without a number is 1005"),
    (b"", 1006, "when nothing came, no Close came: 1006"),
    (HELLO, 1006, "when TCP ended without a Close, that is 1006"),
    (HELLO[:4], 1006, "a message cut off in the middle is followed by no Close: 1006"),
    (bytes.fromhex("88"), 1006, "a Close of which only half has come is none: 1006"),
    (bytes.fromhex("88 02 03"), 1006, "a Close of which only half has come is none: 1006"),
]


async def check_how_it_ended(answer: Callable[[bytes], object]) -> None:
    for heard, expected, rule in ENDS:
        _expect_end(answer, heard, expected, rule)
    async with _greeter() as url, Wire(to=url) as wire:
        _expect_end(answer, await _listen(wire.url), 4001, "a real server's goodbye is understood")
        wire.when(wire.cut, "websocket", "close")
        _expect_end(answer, await _listen(wire.url), 1006, "a real server that was cut off said no goodbye")


def _expect_end(answer: Callable[[bytes], object], heard: bytes, expected: int, rule: str) -> None:
    try:
        got = answer(heard)
    except Exception as error:
        raise NotYet(rule, f"heard: {shown(heard)}") from error
    if got != expected:
        raise NotYet(rule, f"heard: {shown(heard)}; that is {expected}, not {got!r}")


@contextlib.asynccontextmanager
async def _greeter() -> AsyncIterator[str]:
    """A server that greets, and then says goodbye with a number and a reason."""

    async def greet(connection: ServerConnection) -> None:
        await connection.send("어서 오세요 👋")
        await connection.close(4001, "점심 시간 🍜")

    async with serve(greet, "127.0.0.1", 0, compression=None, close_timeout=0.1) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def _listen(url: str) -> bytes:
    """Everything a server sends after its handshake, until TCP ends."""
    reader, writer = await _say(url, REQUEST)
    try:
        async with asyncio.timeout(lesson01.PATIENCE):
            await reader.readuntil(b"\r\n\r\n")
            return await reader.read()
    finally:
        writer.close()


async def _say(url: str, *pieces: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect, and send bytes as they are, with a moment between one piece and the next."""
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
    while first != 0x88:  # a frame of the client's: two bytes, four of its mask, and what it holds
        first, second = await reader.readexactly(2)
        await reader.readexactly(4 + (second & 0x7F))
    writer.close()


ServeOne = Callable[[asyncio.StreamReader, asyncio.StreamWriter, AsyncIterator[str]], Awaitable[None]]


class _Newsroom:
    """News to come, as the learner's server is handed it."""

    def __init__(self) -> None:
        self._coming: asyncio.Queue[str | None] = asyncio.Queue()

    def post(self, text: str | None) -> None:
        """Have news; None is the end of it."""
        self._coming.put_nowait(text)

    async def follow(self) -> AsyncIterator[str]:
        while (text := await self._coming.get()) is not None:
            yield text


async def check_serve_one(answer: ServeOne) -> None:
    if not inspect.iscoroutinefunction(answer):
        raise NotYet("it has to wait for the request, so it must be an `async def`")
    news = _Newsroom()
    async with serving(lambda reader, writer: answer(reader, writer, news.follow())) as served:
        async with Wire(to=served.url) as wire:
            await _read_the_news(wire, news)
        await _ask_in_other_ways(served)
        await _ask_for_a_page(served)


async def _read_the_news(wire: Wire, news: _Newsroom) -> None:
    client = await within(
        connect(wire.url, compression=None, ping_interval=None, proxy=None),
        "a real client's request is answered with 101 and the proof for its key",
        lambda: f"your server sent:\n{http_lines(said_by_server(wire))}",
    )
    try:
        for text in ("점심 먹을까요? 🍜", "비가 와요 ☔"):
            news.post(text)
            await _expect_news(client, text, wire)
        wire.delay(0.1, sender="server")  # a server that does not wait for the client's Close is seen not to
        news.post(None)
        with contextlib.suppress(TimeoutError):  # what is missing then is told below
            await wire.wait_for("tcp", ("FIN", "RST"), sender="server", timeout=SECONDS)
    finally:
        client.transport.abort()
    _check_goodbye([event for event in wire.trace if event.kind in ("close", "FIN", "RST")])


async def _expect_news(client: ClientConnection, text: str, wire: Wire) -> None:
    begin = len(said_by_server(wire))
    try:
        got = await asyncio.wait_for(client.recv(), 2)
    except TimeoutError:
        told = f"there was news, {text!r}; after 2 s your server had sent: {shown(said_by_server(wire)[begin:])}"
        raise NotYet("news goes out the moment there is some, and nobody has to ask", told) from None
    except Exception as error:
        got = f"nothing: {error}"
    if got != text:
        frame = shown(said_by_server(wire)[begin:])
        told = f"{text!r} is {len(text.encode())} bytes long; your server sent {frame}, and the client read {got!r}"
        raise NotYet("a frame is 0x81, the length of the text in bytes, and the text", told)


def _check_goodbye(ends: list[Event]) -> None:
    """Judge how a connection ended: the Closes and the ends of TCP that the wire saw, in order."""
    told = f"seen on the wire: {', '.join(f'{each.kind} of the {each.sender}' for each in ends) or 'nothing more'}"
    order = [(each.sender, each.kind == "close") for each in ends]
    if ("server", True) not in order:
        raise NotYet("the server says goodbye with a Close before TCP ends", told)
    close = ends[order.index(("server", True))].data
    if close != bytes.fromhex("88 02 03 e8"):
        raise NotYet("the Close carries the number 1000, in two bytes, and no more", f"your server sent {shown(close)}")
    if ("server", False) not in order:
        raise NotYet("when both have said goodbye, it is the server that ends TCP", told)
    if ("client", True) not in order[: order.index(("server", False))]:
        raise NotYet("the server waits for the client's Close before it ends TCP", told)


async def _ask_in_other_ways(served: Served) -> None:
    """A request of somebody who writes names small, and one that arrives in two pieces."""
    small = b"\r\n".join(
        name.lower() + colon + value for name, colon, value in (line.partition(b":") for line in REQUEST.split(b"\r\n"))
    ).replace(b"get /chat http/1.1", b"GET /chat HTTP/1.1")
    ways = {
        "the names of headers may be written small": (small,),
        "a request may arrive in pieces; it is complete at the empty line": (REQUEST[:90], REQUEST[90:]),
    }
    for rule, pieces in ways.items():
        reader, writer = await _say(served.url, *pieces)
        seen = "\nand then:\n".join(http_lines(piece) for piece in pieces)
        try:
            reading = reader.readuntil(b"\r\n\r\n")
            head = await within(reading, rule, lambda seen=seen: f"sent:\n{seen}")  # type: ignore[misc]  # mypy cannot infer a lambda's default
        finally:
            writer.transport.abort()
        if not head.startswith(b"HTTP/1.1 101 ") or proof(KEY).encode() not in head:
            raise NotYet(rule, f"sent:\n{seen}\nyour server answered:\n{http_lines(head)}")


async def _ask_for_a_page(served: Served) -> None:
    """What a browser sends when somebody types the server's address into it."""
    reader, writer = await _say(served.url, page := b"GET / HTTP/1.1\r\nHost: server.example.com\r\n\r\n")
    rule = "who does not ask to upgrade is answered with 426"
    try:
        line = await within(reader.readline(), rule, lambda: f"sent:\n{http_lines(page)}\nno answer came")
        if not line.startswith(b"HTTP/1.1 426 "):
            raise NotYet(rule, f"sent:\n{http_lines(page)}\nyour server answered:\n{http_lines(line)}")
        await within(reader.read(), "after the 426 the connection is closed", lambda: "it is still open")
    finally:
        writer.transport.abort()


EXERCISES = [
    Exercise(
        "01.1",
        "The proof",
        check_proof,
        (
            "You did this once in the lesson, for one key. Which of its four steps depend on the key?",
            "Key and string are put together as text; `.encode()` makes bytes of it, and sha1 wants bytes.",
            "`sha1(...).digest()` gives the 20 bytes, `b64encode` makes letters of them, `.decode()` text of those.",
            "guid is the string that begins with 258EAFA5. Then it is one line:\n"
            "return b64encode(sha1((key + guid).encode()).digest()).decode()",
        ),
        proof,
        "No web server would do this by chance, and no cache has the answer in store. That is all it proves.",
    ),
    Exercise(
        "01.2",
        "A request that a server says yes to",
        check_upgrade_request,
        (
            "Six lines: what I want, from whom, two for the wish to upgrade, the key, and the version.",
            "Take the list `lines` of the lesson, and put host, path and key where the RFC's example has its own: "
            'f"GET {path} HTTP/1.1".',
            "`\\r\\n` stands between two lines; after the last line it stands twice, for that is the empty line. "
            "In the end, `.encode()`.",
            'return ("\\r\\n".join(lines) + "\\r\\n\\r\\n").encode(), where lines begins with '
            'f"GET {path} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade"; then come '
            'f"Sec-WebSocket-Key: {key}" and "Sec-WebSocket-Version: 13".',
        ),
        upgrade_request,
        "A request is text with an end one can see. Everything after the empty line already belongs to the other "
        "protocol, so nothing may stand there.",
    ),
    Exercise(
        "01.3",
        "The judge at the door",
        check_judge,
        (
            "Take the request apart first: the first line is method, path and version; each of the others is a name, a "
            "colon and a value. Put the names in small letters, and strip the values.",
            'first, *lines = request.decode().split("\\r\\n\\r\\n")[0].split("\\r\\n")\n'
            'pairs = [line.partition(":") for line in lines]\n'
            "headers = {name.lower(): value.strip() for name, _, value in pairs}",
            'Ask for a header with `headers.get("upgrade", "")`: it may not be there. Compare small letters. '
            'Connection is a list: split it at ",", strip each part, and look whether "upgrade" is among them.',
            "The key: `from base64 import b64decode`; then `len(b64decode(key))` is 16. It raises a ValueError when "
            "the key is not base64, so put it into `try:`. The origin: only if there is one, and then it must be in "
            "`ours`, letter for letter.",
            "Then one `if` after the other, each with its `return`, in the order of the table, and at the end "
            "`return 101`.",
        ),
        judge,
        "Who writes headers may write them large or small, and with spaces; who judges compares what they mean. But an "
        "origin is compared letter for letter: whatever is cleverer lets somebody in.",
    ),
    Exercise(
        "01.4",
        "How it ended",
        check_how_it_ended,
        (
            "You cannot search for the byte 0x88: it may stand inside a message. Go from frame to frame.",
            "A frame here is two bytes and what they announce: `size = 2 + heard[1]`. So the next one begins at "
            "`heard[size:]`.",
            "`while len(heard) >= 2:` work out size; if fewer bytes are left than that, the frame is not all there: "
            "1006. If `heard[0] == 0x88`, it is the Close. Otherwise cut the frame off, and go on.",
            "In the Close: `return int.from_bytes(heard[2:4])` if size is more than 2, else 1005. After the loop: "
            "`return 1006`.",
        ),
        how_it_ended,
        "Frames have no mark at their beginning. Who knows where one ends knows where the next begins; who has lost "
        "count is lost for good. This is why a reader of frames goes by the lengths and by nothing else.",
    ),
    Exercise(
        "01.5",
        "A newsroom by hand",
        check_serve_one,
        (
            "Four parts: read the request, answer it, send the news, say goodbye. Do the first two and check: the "
            "message tells you how far a real client came.",
            '`head = (await reader.readuntil(b"\\r\\n\\r\\n")).decode()` waits until the request is complete, in '
            "however many pieces it comes. Make the dict `headers` of it as for the judge, with small names.",
            'If `headers.get("upgrade", "").lower() != "websocket"`: write b"HTTP/1.1 426 Upgrade Required", with two '
            "\\r\\n after it, then `writer.close()` and `return`. Otherwise write four lines, put together as in 01.2: "
            "HTTP/1.1 101 Switching Protocols, Upgrade: websocket, Connection: Upgrade, and "
            "f\"Sec-WebSocket-Accept: {proof(headers['sec-websocket-key'])}\", with your `proof` of 01.1.",
            "async for text in news:\n    data = text.encode()\n    writer.write(bytes([0x81, len(data)]) + data)\n"
            "And after that the Close: `writer.write(bytes([0x88, 2]) + (1000).to_bytes(2))`.",
            "The client answers with a Close of its own. A client's frame has four bytes of mask after the first two:\n"
            "first, second = await reader.readexactly(2)\nawait reader.readexactly(4 + (second & 0x7F))\n"
            "When first is 0x88, that was it: `writer.close()`.",
        ),
        serve_one,
        "This is a WebSocket server: a real client cannot tell it from a big one, as long as the texts are short. It "
        "speaks first, which HTTP forbids, and it ends TCP last of all, after both have said goodbye.",
    ),
]
