"""A browser and a JupyterLab for the tests of this folder."""

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
    """Chromium, or a skip that says what brings it; where CHATLAB_REQUIRE names it, a failure."""
    found = chromium()
    if found is None:
        missing("chromium", "apt install chromium, or set CHATLAB_CHROMIUM to the Chrome you have")
    return found


@pytest.fixture(scope="session")
def lab(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One JupyterLab for all tests; each opens its notebook on a kernel of its own."""
    with jupyter_lab(tmp_path_factory.mktemp("jupyter")) as running:
        yield running


@pytest_asyncio.fixture
async def chrome(program: str) -> AsyncIterator[Browser]:
    """A fresh headless browser."""
    async with browser() as running:
        yield running


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where screenshots go: the folder CHATLAB_PICTURES names, so that they can be looked at, else a temporary one."""
    folder = Path(os.environ.get("CHATLAB_PICTURES", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest_asyncio.fixture
async def broker() -> AsyncIterator[MemoryBroker]:
    """A broker that a test's instances of the chat share."""
    async with MemoryBroker() as broker:
        yield broker


@pytest_asyncio.fixture
async def server(broker: MemoryBroker) -> AsyncIterator[ChatServer]:
    """A chat whose page is to be opened."""
    async with await chat_server.start(broker) as server:
        yield server
