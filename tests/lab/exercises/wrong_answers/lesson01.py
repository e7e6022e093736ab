"""Plausible wrong answers to lesson 01's exercises, each with part of the sentence that its check must give."""

import asyncio
import re
from base64 import b64decode, b64encode, encodebytes, urlsafe_b64encode
from collections.abc import AsyncIterator
from hashlib import sha1, sha256
from typing import Any

from chatlab.lab.exercises.lessons.lesson01 import how_it_ended, judge, proof, upgrade_request
from tests.lab.exercises.answers import WrongAnswers, wrong_in

WRONG: WrongAnswers = {}
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
REFUSAL = b"HTTP/1.1 426 Upgrade Required\r\nConnection: close\r\n\r\n"


wrong = wrong_in(WRONG)

# --- 01.0 ---

WRONG["01.0"] = [
    ("GET /news HTTP/1.1\r\nHost: board.example\r\n\r\n", "the wire carries `bytes`"),
    (b"GET /news HTTP/1.1\nHost: board.example\n\n", r"every line ends with \r\n"),
    (b"GET /news HTTP/1.1\r\nHost: board.example\r\n", "an empty line ends the request"),
    (b"GET /news HTTP/1.1\r\nHost: board.example\r\n\r\n\r\n", "nothing comes after the empty line"),
    (b"GET /news HTTP/1.1\r\n\r\n", "requires a `Host` line"),
    (b"GET /news HTTP/1.1\r\n Host: board.example\r\n\r\n", "no space comes before it"),
    (b"GET / HTTP/1.1\r\nHost: board.example\r\n\r\n", "the question is `GET /news`"),
    (b"POST /news HTTP/1.1\r\nHost: board.example\r\n\r\n", "the question is `GET /news`"),
    (b"GET /news\r\nHost: board.example\r\n\r\n", "the version is missing"),
    (b"GET news HTTP/1.1\r\nHost: board.example\r\n\r\n", "the path begins with a slash"),
    (b"GET/news HTTP/1.1\r\nHost: board.example\r\n\r\n", "the method, the path and `HTTP/1.1`"),
]

# --- 01.1 ---


@wrong("01.1", "a `str`, not `bytes`")
def proof_in_bytes(key: str) -> bytes:
    return b64encode(sha1((key + GUID).encode()).digest())


@wrong("01.1", "the key comes first")
def string_first(key: str) -> str:
    return b64encode(sha1((GUID + key).encode()).digest()).decode()


@wrong("01.1", "not in hexadecimal")
def hexadecimal(key: str) -> str:
    return sha1((key + GUID).encode()).hexdigest()


@wrong("01.1", "not its hexadecimal digits")
def base64_of_the_hexadecimal(key: str) -> str:
    return b64encode(sha1((key + GUID).encode()).hexdigest().encode()).decode()


@wrong("01.1", "hashed as it came, still in base64")
def key_decoded(key: str) -> str:
    return b64encode(sha1(b64decode(key) + GUID.encode()).digest()).decode()


@wrong("01.1", "not even a line end")
def with_a_line_end(key: str) -> str:
    return encodebytes(sha1((key + GUID).encode()).digest()).decode()


@wrong("01.1", "each key has its own proof")
def the_one_of_the_lesson(key: str) -> str:
    return "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@wrong("01.1", "the hash is SHA-1")
def another_hash(key: str) -> str:
    return b64encode(sha256((key + GUID).encode()).digest()).decode()


@wrong("01.1", "`.decode()` gives the letters alone")
def text_of_the_bytes(key: str) -> str:
    return str(b64encode(sha1((key + GUID).encode()).digest()))


@wrong("01.1", "capital letters")
def string_in_lower_case(key: str) -> str:
    return b64encode(sha1((key + GUID.lower()).encode()).digest()).decode()


@wrong("01.1", "`return` gives it to the caller")
def printed(key: str) -> None:
    print(proof(key))


@wrong("01.1", "not the - and _ of its form for URLs")
def for_urls(key: str) -> str:
    return urlsafe_b64encode(sha1((key + GUID).encode()).digest()).decode()


# --- 01.2 ---


@wrong("01.2", "the wire carries `bytes`")
def request_as_text(host: str, path: str, key: str) -> str:
    return upgrade_request(host, path, key).decode()


@wrong("01.2", r"every line ends with \r\n")
def line_feeds_only(host: str, path: str, key: str) -> bytes:
    return upgrade_request(host, path, key).replace(b"\r\n", b"\n")


@wrong("01.2", "an empty line ends the request")
def no_empty_line(host: str, path: str, key: str) -> bytes:
    return upgrade_request(host, path, key)[:-2]


@wrong("01.2", "nothing comes after the empty line")
def one_line_end_too_many(host: str, path: str, key: str) -> bytes:
    return upgrade_request(host, path, key) + b"\r\n"


@wrong("01.2", "refused the request with 426: there is no Connection header")
def without_connection(host: str, path: str, key: str) -> bytes:
    return upgrade_request(host, path, key).replace(b"Connection: Upgrade\r\n", b"")


@wrong("01.2", "refused the request with 400: there is no Sec-WebSocket-Version header")
def without_version(host: str, path: str, key: str) -> bytes:
    return upgrade_request(host, path, key).replace(b"Sec-WebSocket-Version: 13\r\n", b"")


@wrong("01.2", "the request sends the key you were given")
def the_key_of_the_lesson(host: str, path: str, key: str) -> bytes:
    return upgrade_request(host, path, "dGhlIHNhbXBsZSBub25jZQ==")


@wrong("01.2", "the request asks for the path you were given")
def the_path_of_the_lesson(host: str, path: str, key: str) -> bytes:
    return upgrade_request(host, "/chat", key)


@wrong("01.2", "Host names the host you were given")
def the_host_of_the_lesson(host: str, path: str, key: str) -> bytes:
    return upgrade_request("server.example.com", path, key)


# --- 01.3 ---


@wrong("01.3", "the method must be GET: 405 expected, yours is 101")
def lets_everybody_in(request: bytes, ours: list[str]) -> int:
    return 101


@wrong("01.3", "case does not matter, in the name or in this value: 101 expected, yours is 426")
def case_matters(request: bytes, ours: list[str]) -> int:
    return 426 if b"\r\nUpgrade: websocket" not in request else judge(request, ours)


@wrong("01.3", "without a key there is nothing to prove: 400")
def expects_every_header(request: bytes, ours: list[str]) -> int:
    status = judge(request, ours)
    if status == 400 and b"Host" in request and b"HTTP/1.1" in request:
        headers = dict(line.split(": ") for line in request.decode().split("\r\n")[1:-2])
        return 400 if len(b64decode(headers["Sec-WebSocket-Key"])) != 16 else 101
    return status


@wrong("01.3", "a key is 16 bytes")
def any_key(request: bytes, ours: list[str]) -> int:
    return judge(re.sub(rb"Key: \S+", b"Key: dGhlIHNhbXBsZSBub25jZQ==", request), ours)


@wrong("01.3", "Connection is a list")
def connection_is_one_word(request: bytes, ours: list[str]) -> int:
    return 426 if b"Connection: keep-alive, Upgrade" in request else judge(request, ours)


@wrong("01.3", "`no-upgrade` in Connection is not `Upgrade`: 426 expected, yours is 101")
def connection_has_it_somewhere(request: bytes, ours: list[str]) -> int:
    return judge(re.sub(rb"(?i)(\r\nConnection:)[^\r]*upgrade[^\r]*", rb"\1 Upgrade", request), ours)


@wrong("01.3", "our own page may connect")
def no_pages_at_all(request: bytes, ours: list[str]) -> int:
    return judge(request, [])


@wrong("01.3", "a page that is not on the list")
def any_page(request: bytes, ours: list[str]) -> int:
    return judge(re.sub(rb"[Oo]rigin: \S+\r\n", b"", request), ours)


@wrong("01.3", "a name that begins like ours")
def names_that_begin_alike(request: bytes, ours: list[str]) -> int:
    return judge(request.replace(b".example.evil", b""), [*ours, "https://chat.example"])


def judge_with(request: bytes, ours: list[str], *, key: bool = True, method: bool = True) -> int:
    """Judge a request whose key, or method, a wrong answer has found to be right."""
    if key:
        request = re.sub(rb"(?i)(-Key: *)[^\r]+", rb"\1dGhlIHNhbXBsZSBub25jZQ==", request)
    return judge(re.sub(rb"^\w+", b"GET", request) if method else request, ours)


def key_of(request: bytes) -> str:
    found = re.search(rb"(?i)-Key: *([^\r]+)", request)
    return found[1].decode() if found else ""


@wrong("01.3", "24 letters may be 18 bytes")
def counts_letters_of_the_key(request: bytes, ours: list[str]) -> int:
    found = judge_with(request, ours, method=False)
    return 400 if found == 101 and len(key_of(request)) != 24 else found


@wrong("01.3", "`get` is not `GET`")
def any_case_of_the_method(request: bytes, ours: list[str]) -> int:
    return judge_with(request, ours, key=False, method=request[:3].upper() == b"GET")


@wrong("01.3", "a dot matches anything")
def origins_as_patterns(request: bytes, ours: list[str]) -> int:
    found = re.search(rb"(?i)origin: ([^\r]+)", request)
    allowed = found is not None and any(re.fullmatch(each, found[1].decode()) for each in ours)
    return judge(request, [*ours, found[1].decode()]) if found and allowed else judge(request, ours)


@wrong("01.3", "unless you say `validate=True`")
def lenient_with_base64(request: bytes, ours: list[str]) -> int:
    try:
        size = len(b64decode(key_of(request)))
    except ValueError:
        size = 0
    return judge_with(request, ours, key=size == 16, method=False)


# --- 01.4 ---


@wrong("01.4", "bytes inside a message are not a Close")
def searches_for_a_close(heard: bytes) -> int:
    at = heard.find(b"\x88")
    if at < 0 or len(heard) < at + 2:
        return 1006
    return int.from_bytes(heard[at + 2 : at + 4]) if heard[at + 1] else 1005


@wrong("01.4", "it is not part of the number")
def the_last_two_bytes(heard: bytes) -> int:
    return int.from_bytes(heard[-2:])


@wrong("01.4", "a Close without a number is 1005")
def always_a_number(heard: bytes) -> int:
    return 0 if heard.endswith(b"\x88\x00") else how_it_ended(heard)


@wrong("01.4", "read the number from the Close: 03 e9 is 1001")
def always_1000(heard: bytes) -> int:
    return 1000 if b"\x88" in heard else 1006


@wrong("01.4", "your code raised IndexError")
def reads_past_the_end(heard: bytes) -> int:
    while heard[0] != 0x88:
        heard = heard[2 + heard[1] :]
    return int.from_bytes(heard[2:4]) if heard[1] else 1005


@wrong("01.4", "half a Close does not count")
def takes_half_a_close(heard: bytes) -> int:
    while heard:
        if heard[0] == 0x88:
            return int.from_bytes(heard[2:4]) if len(heard) > 2 else 1005
        heard = heard[2 + heard[1] :] if len(heard) > 1 else b""
    return 1006


# --- 01.5 ---

News = AsyncIterator[str]


async def welcome(reader: Any, writer: Any) -> bool:
    """Do the first half of the exercise right; return whether the client is connected."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head.splitlines())}
    if "upgrade" not in headers:
        writer.write(REFUSAL)
        writer.close()
        return False
    writer.write(agreement(headers["sec-websocket-key"]))
    return True


def agreement(key: str) -> bytes:
    lines = "HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"
    return ("\r\n".join([*lines, f"Sec-WebSocket-Accept: {proof(key)}"]) + "\r\n\r\n").encode()


async def tell(writer: Any, news: News) -> None:
    async for text in news:
        data = text.encode()
        writer.write(bytes([0x81, len(data)]) + data)


async def until_close(reader: Any) -> None:
    first = 0
    while first != 0x88:
        first, second = await reader.readexactly(2)
        await reader.readexactly(4 + (second & 0x7F))


@wrong("01.5", "must be an `async def`")
def not_async(reader: Any, writer: Any, news: News) -> None:
    writer.write(REFUSAL)


@wrong("01.5", "answered with 101 and the proof for its key")
async def proof_of_the_lesson(reader: Any, writer: Any, news: News) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(agreement("dGhlIHNhbXBsZSBub25jZQ=="))
    await tell(writer, news)


@wrong("01.5", "your code raised TypeError")
async def writes_text(reader: Any, writer: Any, news: News) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write("HTTP/1.1 101 Switching Protocols\r\n\r\n")


@wrong("01.5", "without being asked for")
async def collects_the_news_first(reader: Any, writer: Any, news: News) -> None:
    if await welcome(reader, writer):
        for text in [text async for text in news]:
            writer.write(bytes([0x81, len(text.encode())]) + text.encode())


@wrong("01.5", "the length of the text in bytes")
async def counts_characters(reader: Any, writer: Any, news: News) -> None:
    if await welcome(reader, writer):
        async for text in news:
            writer.write(bytes([0x81, len(text)]) + text.encode())


@wrong("01.5", "the server sends a Close before it ends TCP")
async def ends_tcp_without_a_close(reader: Any, writer: Any, news: News) -> None:
    if await welcome(reader, writer):
        await tell(writer, news)
        writer.close()


@wrong("01.5", "carries the number 1000")
async def close_without_a_number(reader: Any, writer: Any, news: News) -> None:
    if await welcome(reader, writer):
        await tell(writer, news)
        writer.write(b"\x88\x00")
        await reader.read(100)
        writer.close()


@wrong("01.5", "waits for the client's Close")
async def ends_tcp_after_its_own_close(reader: Any, writer: Any, news: News) -> None:
    if await welcome(reader, writer):
        await tell(writer, news)
        writer.write(b"\x88\x02\x03\xe8")
        writer.close()


@wrong("01.5", "after both have sent a Close, the server ends TCP")
async def leaves_tcp_to_the_client(reader: Any, writer: Any, news: News) -> None:
    if await welcome(reader, writer):
        await tell(writer, news)
        writer.write(b"\x88\x02\x03\xe8")
        await reader.read()


async def serve_after(head: bytes, reader: Any, writer: Any, news: News) -> None:
    """Do the rest of the exercise right, for a request that has been read already."""
    whole = asyncio.StreamReader()
    whole.feed_data(head)
    if await welcome(whole, writer):
        await tell(writer, news)
        writer.write(b"\x88\x02\x03\xe8")
        await until_close(reader)
        writer.close()


@wrong("01.5", "waits for the client's Close")
async def waits_for_any_byte(reader: Any, writer: Any, news: News) -> None:
    if await welcome(reader, writer):
        await tell(writer, news)
        writer.write(b"\x88\x02\x03\xe8")
        await reader.read(1)
        writer.close()


@wrong("01.5", "a server's frame has no mask")
async def masks_its_frames(reader: Any, writer: Any, news: News) -> None:
    if await welcome(reader, writer):
        async for text in news:
            data = text.encode()
            writer.write(bytes([0x81, 0x80 | len(data), 0, 0, 0, 0]) + data)


@wrong("01.5", "without its first bit, FIN")
async def frames_without_fin(reader: Any, writer: Any, news: News) -> None:
    if await welcome(reader, writer):
        async for text in news:
            data = text.encode()
            writer.write(bytes([0x01, len(data)]) + data)


@wrong("01.5", "may be in lower case")
async def names_as_in_the_rfc(reader: Any, writer: Any, news: News) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    key = re.search(rb"Sec-WebSocket-Key: (\S+)", head)
    assert key is not None or b"Upgrade" not in head
    await serve_after(head, reader, writer, news)


@wrong("01.5", "a request may arrive in pieces")
async def reads_once(reader: Any, writer: Any, news: News) -> None:
    head = await reader.read(4096)
    if head.endswith(b"\r\n\r\n"):
        await serve_after(head, reader, writer, news)


@wrong("01.5", "answered with 426")
async def lets_pages_in(reader: Any, writer: Any, news: News) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    if b"pgrade" in head:
        await serve_after(head, reader, writer, news)
    else:
        writer.write(agreement(""))


@wrong("01.5", "after the 426 the connection is closed")
async def keeps_a_refused_connection_open(reader: Any, writer: Any, news: News) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    if b"pgrade" in head:
        await serve_after(head, reader, writer, news)
    else:
        writer.write(REFUSAL)
        await reader.read()
