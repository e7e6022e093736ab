"""Fixtures: a browser, a JupyterLab and a chat."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.chat.endpoint import server as chat_server
from chatlab.chat.endpoint.server import ChatServer
from tests.support.jupyter import Lab, browser, chromium, jupyter_lab
from tests.support.require import missing


@pytest.fixture(scope="session")
def program() -> str:
    """Return the path of Chromium; otherwise skip, or fail if CHATLAB_REQUIRE names it."""
    found = chromium()
    if found is None:
        missing("chromium", "apt install chromium, or set CHATLAB_CHROMIUM to the path of a Chrome")
    return found


@pytest.fixture(scope="session")
def lab(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Run one JupyterLab for all tests; each test opens its notebook with a separate kernel."""
    with jupyter_lab(tmp_path_factory.mktemp("jupyter")) as running:
        yield running


@pytest_asyncio.fixture
async def chrome(program: str) -> AsyncIterator[Browser]:
    """Run a new headless browser."""
    async with browser() as running:
        yield running


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Return the folder for screenshots: CHATLAB_PICTURES to keep them, otherwise a temporary one."""
    folder = Path(os.environ.get("CHATLAB_PICTURES", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest_asyncio.fixture
async def broker() -> AsyncIterator[MemoryBroker]:
    """Yield a broker for the instances of a test to share."""
    async with MemoryBroker() as broker:
        yield broker


@pytest_asyncio.fixture
async def server(broker: MemoryBroker) -> AsyncIterator[ChatServer]:
    """Run a chat."""
    async with await chat_server.start(broker) as server:
        yield server
