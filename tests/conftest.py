"""Real engines for the tests: shared ones that are started once, or separate ones that a test may kill.

If an engine is missing, its tests are skipped with the command that installs it, or fail if CHATLAB_REQUIRE names it.
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

# On a busy machine the time of one example means nothing; pytest-timeout limits the whole test.
hypothesis.settings.register_profile("chatlab", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("chatlab")


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Return Python's event loop; with the mark `every_loop`, also uvloop, which `chatlab serve` runs on."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if sys.platform != "win32" and item.get_closest_marker("every_loop"):
        import uvloop

        loops["uvloop"] = uvloop.new_event_loop
    return loops


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the runs on Python's loop as long where uvloop is tested too, so that `make test` runs only the latter."""
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
    # In another thread, because a running test may request the fixture, and this thread is then running its loop.
    with ThreadPoolExecutor(1) as thread:
        engine = thread.submit(asyncio.run, starting).result()
        yield engine
        thread.submit(asyncio.run, engine.stop()).result()


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[Callable[[str], engines.Engine]]:
    """Yield a function that returns the server of a name in `redis_servers`, started on first use."""
    with ExitStack() as running:
        yield cache(lambda name: running.enter_context(shared(redis_servers.start(name))))


@pytest.fixture(scope="session", params=redis_servers.EACH_SHARED)
def redis_engine(request: pytest.FixtureRequest, shared_redis: Callable[[str], engines.Engine]) -> engines.Engine:
    """Return each Redis or Valkey in turn, shared by all tests: use separate keys, and do not kill it."""
    return shared_redis(request.param)


@pytest.fixture(scope="session")
def redis_on_path(shared_redis: Callable[[str], engines.Engine]) -> engines.Engine:
    """Return the server on PATH, for tests that need not run on each."""
    return shared_redis(redis_servers.ON_PATH[0])


@pytest.fixture(scope="session")
def valkey_engine(shared_redis: Callable[[str], engines.Engine]) -> engines.Engine:
    """Return the Valkey in the wheel."""
    return shared_redis(redis_servers.WHEEL)


@pytest.fixture(scope="session")
def rabbitmq_engine() -> Iterator[engines.Engine]:
    """Yield one RabbitMQ for all tests. A test may kill it if it restarts it too."""
    with shared(start("rabbitmq")) as engine:
        yield engine


@pytest.fixture
def rabbitmq_node(rabbitmq_engine: engines.Engine) -> Node:
    """Return the node of the shared RabbitMQ, to operate it."""
    return Node(rabbitmq_engine)


@pytest_asyncio.fixture
async def vhost_url(rabbitmq_engine: engines.Engine, rabbitmq_node: Node) -> AsyncIterator[str]:
    """Yield the URL of a separate virtual host on the shared RabbitMQ."""
    vhost = f"v{uuid.uuid4().hex[:8]}"
    await rabbitmq_node.add_vhost(vhost)
    yield str(URL(rabbitmq_engine.url).with_path(f"/{vhost}"))
    await rabbitmq_node.delete_vhost(vhost)


@pytest.fixture(scope="session")
def kafka_engine() -> Iterator[engines.Engine]:
    """Yield one Kafka for all tests. A test may kill it if it restarts it too."""
    with shared(start("kafka")) as engine:
        yield engine


# With `everysec`, a kill during a slow sync loses messages that were confirmed in that time.
SYNC_ALWAYS = {"appendfsync": "always"}


@pytest.fixture(params=redis_servers.EACH)
async def fresh_redis(request: pytest.FixtureRequest) -> AsyncIterator[engines.Engine]:
    """Yield each Redis or Valkey in turn, separate for this test, which may kill it; it keeps what it confirmed."""
    async with await redis_servers.start(request.param, SYNC_ALWAYS) as engine:
        yield engine


@pytest.fixture
async def fresh_redis_on_path() -> AsyncIterator[engines.Engine]:
    """Yield a separate server, only the one on PATH."""
    async with await redis_servers.start(redis_servers.ON_PATH[0], SYNC_ALWAYS) as engine:
        yield engine


@pytest.fixture
async def fresh_valkey() -> AsyncIterator[engines.Engine]:
    """Yield a separate server, only the Valkey in the wheel."""
    async with await redis_servers.start(redis_servers.WHEEL, SYNC_ALWAYS) as engine:
        yield engine
