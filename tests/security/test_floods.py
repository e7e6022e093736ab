"""One client sends as fast as it can: other clients' messages are hardly delayed."""

from __future__ import annotations

import asyncio

import pytest

from chatlab.lab.engines.engine import Engine
from tests.support.attacks import SEND, SLACK, attacked, flooding, masked, round_trip, stomp
from tests.support.stomp_peer import Peer, chat

SUBSCRIBE_AND_UNSUBSCRIBE = stomp("SUBSCRIBE", id="1", destination="/topic/public") + stomp("UNSUBSCRIBE", id="1")
FLOODS = {
    "messages": masked(stomp("SEND", chat("x"), destination=SEND)) * 1000,
    "messages, many in one": masked(stomp("SEND", chat("x"), destination=SEND) * 600) * 4,
    "large messages": masked(stomp("SEND", chat("x" * 60_000), destination=SEND)) * 16,
    "subscribing and unsubscribing": masked(SUBSCRIBE_AND_UNSUBSCRIBE) * 1000,
    "subscribing and unsubscribing, many in one": masked(SUBSCRIBE_AND_UNSUBSCRIBE * 600) * 4,
    "transactions": masked(stomp("BEGIN", transaction="1") + stomp("ABORT", transaction="1")) * 1000,
    "heart-beats": masked(b"\n") * 4000,
    "pings": b"\x89\x84\0\0\0\0ping" * 4000,
    "messages that are refused": masked(stomp("SEND", "{}", destination=SEND)) * 1000,
}
KINDS = [pytest.param(kind, marks=[pytest.mark.long] if kind != "messages" else []) for kind in FLOODS]


@pytest.fixture(params=["in memory", "on Redis"])
def broker_url(request: pytest.FixtureRequest) -> str:
    if request.param == "in memory":
        return "memory://"
    engine: Engine = request.getfixturevalue("fresh_valkey")
    return engine.url


@pytest.mark.parametrize("kind", KINDS)
async def test_a_flood_from_one_client_hardly_delays_another_clients_messages(kind: str, broker_url: str) -> None:
    arguments = ("chat", "--broker", broker_url, "--port", "0", "--max-length", "1000")
    async with attacked(*arguments) as (url, _), Peer(url) as peer:
        calm = await round_trip(peer)
        async with flooding(url, FLOODS[kind]):
            await asyncio.sleep(2)  # until the flood has used up its burst
            under_attack = await round_trip(peer)
            for _ in range(4):  # another process may have taken the processor for a moment
                if under_attack > 2 * calm + SLACK:
                    under_attack = await round_trip(peer)
        assert under_attack <= 2 * calm + SLACK
