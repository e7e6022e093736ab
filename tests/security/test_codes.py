"""Room codes cannot be guessed, and guessers cannot lock a class out."""

from __future__ import annotations

import asyncio
import logging
import time
from itertools import count
from random import Random
from typing import Any
from urllib.parse import quote

import pytest
from websockets.asyncio.client import connect

from chatlab import room
from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.classroom import CODE_LETTERS, GUESSES_AN_HOUR, LUCK, CodeGuard, network_of, new_code
from chatlab.errors import HandshakeError
from chatlab.room.shared import start as start_shared
from tests.support.wire import Answer, get, say

CODE = "K7QX3M"
pytestmark = pytest.mark.every_loop


async def guess(port: int, code: str, host: str = "127.0.0.1") -> Answer:
    """Try a code with a plain request, as the page does after a failure; 426 means that the code is right."""
    request = f"GET /room?code={quote(code)} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    return await say(port, request.encode(), host=host)


async def guess_from(port: int, code: str, address: str) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    writer.write(f"GET /room?code={code} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    async with asyncio.timeout(10):
        status = int((await reader.readline()).split()[1])
    writer.close()
    return status


def codes() -> list[str]:
    random = Random(1)
    return ["".join(random.choices(CODE_LETTERS, k=6)) for _ in range(2000)]


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
async def test_of_two_thousand_guesses_only_a_dozen_are_checked(shared: bool) -> None:
    started = start_shared(MemoryBroker(), code=CODE) if shared else room.start(code=CODE)
    async with await started as server:
        began = time.monotonic()
        statuses = [
            answer.status
            for batch in range(20)
            for answer in await asyncio.gather(
                *(guess(server.port, code) for code in codes()[batch * 50 : batch * 50 + 50])
            )
        ]
        seconds = time.monotonic() - began
        assert set(statuses) == {403, 429}
        assert statuses.count(403) <= CodeGuard.FREE + 2 + seconds
        assert (await guess(server.port, CODE)).status == 429  # the right code is not checked either


async def test_429_says_how_long_to_wait_and_the_code_works_afterwards() -> None:
    async with await room.start(code=CODE) as server:
        for code in codes()[:14]:
            answer = await guess(server.port, code)
        assert answer.status == 429
        assert "too many wrong room codes from this address; try again in 1 s" in answer.body
        assert "retry-after: 1" in answer.head
        await asyncio.sleep(1.1)  # as long as the answer says
        async with connect(f"{server.url}?code={CODE}", proxy=None):
            pass


async def test_guesses_from_one_address_do_not_block_another() -> None:
    async with await room.start(code=CODE) as server:
        for code in codes()[:100]:
            await guess_from(server.port, code, "127.0.0.9")
        assert await guess_from(server.port, CODE, "127.0.0.9") == 429
        assert await guess_from(server.port, "ABCDEF", "127.0.0.1") == 403
        assert await guess_from(server.port, CODE, "127.0.0.1") == 426


async def through_a_proxy(port: int, code: str, client: str) -> int:
    """Guess through a proxy, which appends the client's address to what the client wrote into the header."""
    request = f"GET /room?code={code} HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {client}\r\n\r\n"
    return (await say(port, request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").encode())).status


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
async def test_behind_a_trusted_proxy_only_the_guessing_client_is_slowed_down(shared: bool) -> None:
    options: dict[str, Any] = {"code": CODE, "trusted_proxies": ["127.0.0.1"]}
    started = start_shared(MemoryBroker(), **options) if shared else room.start(**options)
    async with await started as server:
        for number, code in enumerate(codes()[:30]):
            await through_a_proxy(server.port, code, f"203.0.113.{number}, 192.0.2.66")
        assert await through_a_proxy(server.port, CODE, "192.0.2.66") == 429
        assert await through_a_proxy(server.port, CODE, "192.0.2.7") == 426


async def test_x_forwarded_for_from_an_untrusted_address_is_ignored() -> None:
    async with await room.start(code=CODE, trusted_proxies=["198.51.100.1"]) as server:
        for number, code in enumerate(codes()[:30]):
            await through_a_proxy(server.port, code, f"192.0.2.{number}")
        assert await through_a_proxy(server.port, CODE, "192.0.2.200") == 429


async def test_a_class_behind_one_address_gets_in_despite_typing_errors() -> None:
    async with await room.start(code=CODE) as server:
        for number in range(30):
            if number % 3 == 0:
                assert (await guess(server.port, f"A7QX3{CODE_LETTERS[number]}")).status == 403
            assert (await guess(server.port, CODE.lower())).status == 426


async def test_repeating_one_wrong_code_counts_as_one_guess() -> None:
    async with await room.start(code=CODE) as server:
        for _ in range(50):  # the page asks twice each time, and people try again
            assert (await guess(server.port, "K7QX3N")).status == 403
        assert (await guess(server.port, CODE)).status == 426


async def test_neither_right_nor_wrong_codes_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with await room.start(code=CODE) as server:
        for code in ("GUESS2", CODE):
            for target in (
                f"/room?code={code}",
                f"room?code={code}",
                f"http://[::1/room?code={code}",
                f"http://evil.example/room?code={code}",
                f"/room?name=a:b&code={code}",
                f"/r?code={code}",
                f"/room?code={code}\x01",
                "/room?" + "a=1&" * 20 + f"code={code}",
            ):
                await get(server.port, target, "Host: localhost")
                await get(server.port, target, "Host: localhost", "Upgrade: websocket")
        async with connect(f"{server.url}?code={CODE}&name=Ana", proxy=None) as ana:
            await ana.send("hello")
    ours = [record for record in caplog.records if record.name.startswith("chatlab")]
    logged = " ".join(f"{record.getMessage()} {vars(record)}" for record in ours)
    assert "GUESS2" not in logged and CODE not in logged


# --- CodeGuard alone, on a fake clock ---


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def is_checked(guard: CodeGuard, code: str, address: str) -> bool:
    """Return whether a wrong code was compared with the right one (403) or turned away unread (429)."""
    with pytest.raises(HandshakeError) as refused:
        guard.check(code, address)
    return refused.value.status == 403


@pytest.mark.long
def test_one_address_gets_200_to_300_guesses_an_hour() -> None:
    clock, numbers = Clock(), count()
    guard = CodeGuard(CODE, clock)
    seen = 0
    while clock.now < 3600:
        seen += is_checked(guard, f"guess {next(numbers)}", "192.0.2.1")
        clock.now += 0.1
    assert 200 <= seen <= 300


@pytest.mark.long
def test_a_thousand_addresses_get_no_more_guesses_than_the_length_of_codes_allows_for() -> None:
    clock, numbers, addresses = Clock(), count(), 1000
    guard = CodeGuard(CODE, clock)
    seen = 0
    while clock.now < 3600:
        number = next(numbers)
        seen += is_checked(guard, f"guess {number}", f"192.0.{number % addresses // 250}.{number % 250}")
        clock.now += 0.1
    assert seen <= GUESSES_AN_HOUR + 2 * addresses * CodeGuard.SPARED


@pytest.mark.long
def test_after_an_attack_a_class_waits_only_seconds() -> None:
    clock = Clock()
    guard = CodeGuard(CODE, clock)
    for number in range(100_000):
        is_checked(guard, f"guess {number}", "192.0.2.1")
        clock.now += 0.05
    clock.now += CodeGuard.LONGEST
    guard.check(CODE, "192.0.2.1")


def test_an_ipv6_network_counts_as_one_address_and_a_mapped_address_as_ipv4() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1") != network_of("2001:db8:0:1::1")
    assert network_of("::ffff:192.0.2.1") == network_of("192.0.2.1") != network_of("192.0.2.2")
    assert network_of("fe80::1%eth0") == network_of("fe80::2")
    clock = Clock()
    guard = CodeGuard(CODE, clock)
    assert sum(is_checked(guard, f"guess {number}", f"2001:db8::{number:x}") for number in range(500)) <= 13


def test_guesses_from_any_number_of_addresses_take_bounded_memory() -> None:
    guard = CodeGuard(CODE, Clock())
    for number in range(20_000):
        is_checked(guard, "x", f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(guard._by_address) <= CodeGuard.MAX_ADDRESSES


@pytest.mark.parametrize("given", ["", " ", "\ud800", "\0", "K7QX3", "K7QX3MK", "ＫＫＫＫＫＫ", "ß" * 6, "x" * 100_000])
def test_odd_codes_are_compared_and_rejected(given: str) -> None:
    assert is_checked(CodeGuard(CODE, Clock()), given, "192.0.2.1")


def test_a_request_without_a_code_does_not_count_as_a_guess() -> None:
    guard = CodeGuard(CODE, Clock())
    assert all(is_checked(guard, "", "192.0.2.1") for _ in range(100))
    guard.check(CODE, "192.0.2.1")


@pytest.mark.parametrize(("hours", "length"), [(0.5, 6), (2, 6), (4, 6), (8, 7), (24, 7), (24 * 7, 8), (1000, 8)])
def test_longer_classes_get_longer_codes(hours: float, length: int) -> None:
    code = new_code(hours)
    assert len(code) == length and set(code) <= set(CODE_LETTERS)
    assert GUESSES_AN_HOUR * hours / len(CODE_LETTERS) ** length <= LUCK
