"""Plausible wrong answers to lesson 02's exercises, each with part of the sentence that its check must give."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from websockets.exceptions import ConnectionClosed

from chatlab.lab.exercises.lessons.lesson02 import header, messages, unmask
from tests.lab.exercises.answers import WrongAnswers, wrong_in

WRONG: WrongAnswers = {}
Frames = list[tuple[bool, int, bytes]]


wrong = wrong_in(WRONG)

# --- 02.1 ---


@wrong("02.1", "byte 0 belongs to byte 0 of the mask")
def one_byte_of_the_mask(data: bytes, mask: bytes) -> bytes:
    return bytes(byte ^ mask[0] for byte in data)


@wrong("02.1", "after four bytes the mask starts over")
def as_far_as_the_mask_goes(data: bytes, mask: bytes) -> bytes:
    return bytes(byte ^ key for byte, key in zip(data, mask, strict=False))


@wrong("02.1", "the answer is `bytes`")
def unmasked_as_text(data: bytes, mask: bytes) -> str:
    return unmask(data, mask).decode()


@wrong("02.1", "the result may contain any byte")
def or_instead_of_xor(data: bytes, mask: bytes) -> bytes:
    return bytes((byte ^ mask[i % 4]) & 0x7F for i, byte in enumerate(data))


@wrong("02.1", "after four bytes the mask starts over")
def runs_out_of_mask(data: bytes, mask: bytes) -> bytes:
    return bytes(data[i] ^ mask[i] for i in range(len(data)))


@wrong("02.1", "with data = 7f 9f 4d 51 58, mask = 37 fa 21 3d the result should be b'Hello'")
def runs_out_of_mask_with_its_data(data: bytes, mask: bytes) -> bytes:
    return bytes(data[i] ^ mask[i] for i in range(len(data)))


# --- 02.2 ---


@wrong("02.2", "the answer is `bytes`, neither a text that shows them")
def a_text_that_shows_the_bytes(kind: int, length: int) -> str:
    return header(kind, length).hex(" ")


@wrong("02.2", "nor a list of numbers")
def a_list_of_numbers(kind: int, length: int) -> list[int]:
    return list(header(kind, length))


@wrong("02.2", "the kind is in the last four bits")
def always_text(kind: int, length: int) -> bytes:
    return header(1, length)


@wrong("02.2", "from 126 on")
def seven_bits_only(kind: int, length: int) -> bytes:
    return bytes([0x80 | kind, length])


@wrong("02.2", "two bytes of length follow, the more significant first")
def little_endian(kind: int, length: int) -> bytes:
    if length <= 125:
        return bytes([0x80 | kind, length])
    return bytes([0x80 | kind, 126]) + length.to_bytes(2, "little")


@wrong("02.2", "up to 125, the second byte is the length")
def two_bytes_too_early(kind: int, length: int) -> bytes:
    if length < 125:
        return bytes([0x80 | kind, length])
    return bytes([0x80 | kind, 126]) + length.to_bytes(2)


@wrong("02.2", "the shortest form must be used")
def eight_bytes_too_early(kind: int, length: int) -> bytes:
    return header(kind, length) if length < 65_535 else bytes([0x80 | kind, 127]) + length.to_bytes(8)


@wrong("02.2", "your code raised OverflowError")
def never_eight_bytes(kind: int, length: int) -> bytes:
    return header(kind, length) if length <= 125 else bytes([0x80 | kind, 126]) + length.to_bytes(2)


@wrong("02.2", "eight bytes follow")
def four_bytes(kind: int, length: int) -> bytes:
    return header(kind, length) if length <= 65_535 else bytes([0x80 | kind, 127]) + length.to_bytes(4)


# --- 02.3 ---


@wrong("02.3", "the answer is a `list`")
def gives_them_one_by_one(frames: Frames) -> Any:
    yield from messages(frames)


@wrong("02.3", "a binary message stays `bytes`")
def all_is_text(frames: Frames) -> list[str]:
    return [payload.decode("latin-1") for fin, kind, payload in frames if kind < 8]


@wrong("02.3", "a message ends at the frame with FIN")
def a_frame_is_a_message(frames: Frames) -> list[Any]:
    return [payload.decode() if kind == 1 else payload for fin, kind, payload in frames]


@wrong("02.3", "the next message starts empty")
def never_starts_over(frames: Frames) -> list[Any]:
    whole: list[Any] = []
    pieces, is_text, former = b"", False, 1
    for fin, kind, payload in frames:
        if kind in (1, 2):
            pieces, is_text = pieces if former == 0 else b"", kind == 1
        former = kind
        pieces += payload if kind < 8 else b""
        if fin and kind < 8:
            whole.append(pieces.decode() if is_text else pieces)
    return whole


@wrong("02.3", "a Ping between two pieces belongs to no message")
def a_ping_is_a_piece(frames: Frames) -> list[Any]:
    whole: list[Any] = []
    pieces, is_text = b"", False
    for fin, kind, payload in frames:
        if kind in (1, 2):
            pieces, is_text = b"", kind == 1
        pieces += payload
        if fin:
            whole.append(pieces.decode() if is_text else pieces)
    return whole


@wrong("02.3", "join first, then decode")
def decodes_each_piece(frames: Frames) -> list[Any]:
    whole: list[Any] = []
    pieces: Any = ""
    for fin, kind, payload in frames:
        if kind >= 8:
            continue
        if kind != 0:
            pieces = "" if kind == 1 else b""
        pieces += payload.decode() if isinstance(pieces, str) else payload
        if fin:
            whole.append(pieces)
    return whole


@wrong("02.3", "only the first piece says what kind of message it is")
def the_last_piece_says_what_it_is(frames: Frames) -> list[Any]:
    whole: list[Any] = []
    pieces, text = b"", 0
    for fin, kind, payload in frames:
        if kind >= 8:
            continue
        pieces = pieces + payload if kind == 0 else payload
        text = max(text, 1 if kind in (0, 1) else 0) if kind == 0 else kind == 1
        if fin:
            whole.append(pieces.decode() if text else pieces)
    return whole


@wrong("02.3", "incomplete until its last piece has come")
def does_not_wait_for_the_end(frames: Frames) -> list[Any]:
    whole: list[Any] = []
    pieces, is_text, open_ = b"", False, False
    for fin, kind, payload in frames:
        if kind >= 8:
            continue
        if kind != 0:
            pieces, is_text = b"", kind == 1
        pieces += payload
        open_ = not fin
        if fin:
            whole.append(pieces.decode() if is_text else pieces)
    return [*whole, pieces.decode()] if open_ else whole


# --- 02.4 ---


@wrong("02.4", "must be an `async def`")
def watches_without_waiting(connection: Any, every: float, patience: float) -> None:
    connection.ping()


@wrong("02.4", "again and again")
async def asks_once(connection: Any, every: float, patience: float) -> None:
    pong = await connection.ping()
    await asyncio.wait_for(pong, patience)
    await connection.wait_closed()


@wrong("02.4", "a client that answers is left alone")
async def asks_once_and_returns(connection: Any, every: float, patience: float) -> None:
    pong = await connection.ping()
    await asyncio.wait_for(pong, patience)


@wrong("02.4", "not as often as it can")
async def asks_without_a_pause(connection: Any, every: float, patience: float) -> None:
    while True:
        pong = await connection.ping()
        await asyncio.wait_for(pong, patience)


@wrong("02.4", "waiting must not block the event loop")
async def blocks_the_loop(connection: Any, every: float, patience: float) -> None:
    try:
        while True:
            time.sleep(every)  # noqa: ASYNC251  # the mistake under test
            await asyncio.wait_for(await connection.ping(), patience)
    except (TimeoutError, ConnectionClosed):
        return


@wrong("02.4", "waiting must not block the event loop")
async def blocks_the_loop_in_a_function_of_its_own(connection: Any, every: float, patience: float) -> None:
    def wait() -> None:
        until = time.monotonic() + every
        while time.monotonic() < until:
            pass

    try:
        while True:
            wait()
            await asyncio.wait_for(await connection.ping(), patience)
    except (TimeoutError, ConnectionClosed):
        return


@wrong("02.4", "slow is not silent")
async def waits_for_every_instead_of_patience(connection: Any, every: float, patience: float) -> None:
    try:
        while True:
            await asyncio.sleep(every)
            await asyncio.wait_for(await connection.ping(), every)
    except TimeoutError:
        return


@wrong("02.4", "when a Pong is overdue, the function returns")
async def waits_for_ever(connection: Any, every: float, patience: float) -> None:
    while True:
        await asyncio.sleep(every)
        await (await connection.ping())


@wrong("02.4", "your code raised TimeoutError")
async def raises_instead(connection: Any, every: float, patience: float) -> None:
    while True:
        await asyncio.sleep(every)
        await asyncio.wait_for(await connection.ping(), patience)


@wrong("02.4", "when the client closes the connection, the function returns and raises nothing")
async def forgets_that_the_client_may_close(connection: Any, every: float, patience: float) -> None:
    try:
        while True:
            await asyncio.sleep(every)
            await asyncio.wait_for(await connection.ping(), patience)
    except TimeoutError:
        return


# --- 02.5 ---


def echo(**changed: Any) -> Callable[..., Any]:
    """Return an echo that is right except for the parts in `changed`."""

    async def answer(reader: Any, writer: Any) -> None:
        read = changed.get("read", type(reader).readexactly)
        caught = changed.get("caught", (EOFError, OSError))
        first = 0
        try:
            while first != 0x88:
                first, second = await read(reader, 2)
                length = second & 0x7F
                if length >= 126:
                    length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8))
                mask = await reader.readexactly(4)
                hidden = await read(reader, length)
                payload = changed.get("unmask", unmask)(hidden, mask)
                for frame in changed.get("answers", answers)(first, payload):
                    writer.write(frame)
                    if changed.get("drain", True):
                        await writer.drain()
        except caught:
            pass
        if changed.get("close", True):
            writer.close()
        else:
            await reader.read()

    return answer


def answers(first: int, payload: bytes) -> list[bytes]:
    kind = {0x89: 0x8A}.get(first, first)
    return [] if first == 0x8A else [bytes([kind]) + header(1, len(payload))[1:] + payload]


def wrong_echo(name: str, sentence: str, **changed: Any) -> None:
    answer = echo(**changed)
    answer.__name__ = name
    wrong("02.5", sentence)(answer)


@wrong("02.5", "must be an `async def`")
def echo_without_waiting(reader: Any, writer: Any) -> None:
    writer.write(reader)


@wrong("02.5", "unmasked, and in a frame without a mask")
async def sends_the_bytes_back(reader: Any, writer: Any) -> None:
    while data := await reader.read(65_536):
        writer.write(data)


@wrong("02.5", "your code raised NameError: name 'secnd' is not defined")
async def misspells(reader: Any, writer: Any) -> None:
    first, second = await reader.readexactly(2)
    writer.write(bytes([first & 0x8F, secnd & 0x7F]) + second)  # type: ignore[name-defined]  # noqa: F821  # the mistake under test


@wrong("02.5", "a message of 126 bytes")
async def short_ones_only(reader: Any, writer: Any) -> None:
    while True:
        first, second = await reader.readexactly(2)
        mask = await reader.readexactly(4)
        payload = unmask(await reader.readexactly(second & 0x7F), mask)
        writer.write(bytes([first, len(payload)]) + payload)


async def read_what_there_is(reader: Any, count: int) -> bytes:
    return bytes(await reader.read(count)) if count else b""


wrong_echo("leaves_it_masked", "unmasked, and in a frame without a mask", unmask=lambda data, mask: data)
wrong_echo(
    "all_is_text",
    "binary data comes back as binary data, not as text",
    answers=lambda first, payload: [header(1, len(payload)) + payload],
)
wrong_echo(
    "a_ping_is_a_message",
    "answered at once with a Pong",
    answers=lambda first, payload: [bytes([first]) + header(1, len(payload))[1:] + payload],
)
wrong_echo(
    "a_pong_without_the_content",
    "a Pong of the same content",
    answers=lambda first, payload: [b"\x8a\x00"] if first == 0x89 else answers(first, payload),
)
wrong_echo(
    "every_piece_a_message",
    "comes back as one message",
    answers=lambda first, payload: [
        answer[:1].replace(b"\x01", b"\x81").replace(b"\x80", b"\x81") + answer[1:]
        for answer in answers(first, payload)
    ],
)
wrong_echo(
    "decodes_each_frame",
    "a frame may end in the middle of a character",
    answers=lambda first, payload: answers(first, payload.decode().encode() if first & 0x0F < 2 else payload),
)
wrong_echo("reads_what_there_is", "bytes comes back", read=read_what_there_is)
wrong_echo(
    "never_sends_a_close",
    "answered with a Close of the same number",
    answers=lambda first, payload: [] if first == 0x88 else answers(first, payload),
)
wrong_echo(
    "always_says_1000",
    "a Close of the same number",
    answers=lambda first, payload: [b"\x88\x02\x03\xe8"] if first == 0x88 else answers(first, payload),
)
wrong_echo("keeps_tcp_open", "the server ends TCP", close=False)
wrong_echo(
    "expects_a_number",
    "a Close without a number",
    answers=lambda first, payload: (
        [b"\x88\x02" + int.from_bytes(payload[:2]).to_bytes(2)] if first == 0x88 else answers(first, payload)
    ),
)
wrong_echo("never_waits_for_room", "must not fill the server's memory", drain=False)
wrong_echo("lets_the_error_out", "your code raised IncompleteReadError", caught=())


@wrong("02.5", "may arrive byte by byte")
async def takes_two_bytes_for_granted(reader: Any, writer: Any) -> None:
    first = 0
    while first != 0x88:
        first, second = await reader.read(2)
        length = second & 0x7F
        if length >= 126:
            length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8))
        mask = await reader.readexactly(4)
        for answer in answers(first, unmask(await reader.readexactly(length), mask)):
            writer.write(answer)
            await writer.drain()
    writer.close()
