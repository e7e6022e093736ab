"""Real engines for the tests: started once and shared, or fresh ones that a test may kill.

An engine that is not here skips its tests with the command that brings it; if CHATLAB_REQUIRE names it, they fail.
"""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import hypothesis
import pytest
import pytest_asyncio
from yarl import URL

from chatlab.errors import EngineMissing
from chatlab.lab.engines import engine as engines
from chatlab.lab.engines import kafka_jars
from tests.support import redis_servers, require
from tests.support.rabbitmq_node import Node

# On a busy machine the time that one example takes says nothing; pytest-timeout bounds the whole test.
hypothesis.settings.register_profile("chatlab", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("chatlab")


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Python's own event loop; with the mark `every_loop`, also the one that `chatlab serve` runs on where it is."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if sys.platform != "win32" and item.get_closest_marker("every_loop"):
        import uvloop

        loops["uvloop"] = uvloop.new_event_loop
    return loops


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as long what runs on uvloop too: `make test` tries the loop that `chatlab serve` runs on."""
    for item in items:
        if sys.platform != "win32" and item.get_closest_marker("every_loop") and "[asyncio" in item.nodeid:
            item.add_marker(pytest.mark.long)


async def start(kind: str) -> engines.Engine:
    if kind == "kafka" and "kafka" in os.environ.get("CHATLAB_REQUIRE", ""):
        await asyncio.to_thread(kafka_jars.fetch)
    try:
        return await engines.start(kind)
    except EngineMissing as absent:
        require.missing(kind, absent.remedy)


@contextmanager
def shared(starting: Coroutine[Any, Any, engines.Engine]) -> Iterator[engines.Engine]:
    # In a thread, since a test that is running already may ask for the fixture: then this thread's loop is taken.
    with ThreadPoolExecutor(1) as thread:
        engine = thread.submit(asyncio.run, starting).result()
        yield engine
        thread.submit(asyncio.run, engine.stop()).result()


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[Callable[[str], engines.Engine]]:
    """Returns the server of a name in `redis_servers`, started when it is first asked for."""
    with ExitStack() as running:
        yield cache(lambda name: running.enter_context(shared(redis_servers.start(name))))


@pytest.fixture(scope="session", params=redis_servers.EACH_SHARED)
def redis_engine(request: pytest.FixtureRequest, shared_redis: Callable[[str], engines.Engine]) -> engines.Engine:
    """Each Redis or Valkey in turn, the same for all tests: use keys of your own, and do not kill it."""
    return shared_redis(request.param)


@pytest.fixture(scope="session")
def redis_on_path(shared_redis: Callable[[str], engines.Engine]) -> engines.Engine:
    """The one on PATH, where a test is not to run on each."""
    return shared_redis(redis_servers.ON_PATH[0])


@pytest.fixture(scope="session")
def valkey_engine(shared_redis: Callable[[str], engines.Engine]) -> engines.Engine:
    """The Valkey in the wheel."""
    return shared_redis(redis_servers.WHEEL)


@pytest.fixture(scope="session")
def rabbitmq_engine() -> Iterator[engines.Engine]:
    """One RabbitMQ for all tests. It may be killed if it is restarted in the same test."""
    with shared(start("rabbitmq")) as engine:
        yield engine


@pytest.fixture
def rabbitmq_node(rabbitmq_engine: engines.Engine) -> Node:
    """What its operator does to it."""
    return Node(rabbitmq_engine)


@pytest_asyncio.fixture
async def vhost_url(rabbitmq_engine: engines.Engine, rabbitmq_node: Node) -> AsyncIterator[str]:
    """A virtual host of this test's own on it."""
    vhost = f"v{uuid.uuid4().hex[:8]}"
    await rabbitmq_node.add_vhost(vhost)
    yield str(URL(rabbitmq_engine.url).with_path(f"/{vhost}"))
    await rabbitmq_node.delete_vhost(vhost)


@pytest.fixture(scope="session")
def kafka_engine() -> Iterator[engines.Engine]:
    """One Kafka for all tests. It may be killed if it is restarted in the same test."""
    with shared(start("kafka")) as engine:
        yield engine


# With `everysec`, a kill at the moment of a slow sync costs what was confirmed meanwhile.
SYNC_ALWAYS = {"appendfsync": "always"}


@pytest.fixture(params=redis_servers.EACH)
async def fresh_redis(request: pytest.FixtureRequest) -> AsyncIterator[engines.Engine]:
    """Each Redis or Valkey in turn, this test's own, to be killed and restarted; what it has confirmed it keeps."""
    async with await redis_servers.start(request.param, SYNC_ALWAYS) as engine:
        yield engine


@pytest.fixture
async def fresh_redis_on_path() -> AsyncIterator[engines.Engine]:
    """The same with the one on PATH alone."""
    async with await redis_servers.start(redis_servers.ON_PATH[0], SYNC_ALWAYS) as engine:
        yield engine


@pytest.fixture
async def fresh_valkey() -> AsyncIterator[engines.Engine]:
    """The same with the Valkey in the wheel alone."""
    async with await redis_servers.start(redis_servers.WHEEL, SYNC_ALWAYS) as engine:
        yield engine
