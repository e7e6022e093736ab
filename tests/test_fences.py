"""Parts of a library that it does not document, or may change in a minor release, are used in one file each.

That file has a contract test, which fails when a new version differs, and the version is bounded to what was tried.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.version import Version

from tests.test_floors import MODULES
from tests.test_setup_files import declared

# Attributes of a library's objects, and the one module that may use them.
FENCED = {
    "set_parser": "chatlab.net.http.upgrade",
    "_make_request": "chatlab.net.http.runner",
    "_prepare_hook": "chatlab.net.http.runner",
    "make_connection": "chatlab.brokers.redis.connections.link",
    "send_packed_command": "chatlab.brokers.redis.connections.link",
    "read_response": "chatlab.brokers.redis.connections.link",
    "can_read": "chatlab.brokers.redis.connections.link",
    "fetch_all_metadata": "chatlab.brokers.kafka.broker",
    "get_underlay_channel": "chatlab.brokers.rabbitmq.broker chatlab.brokers.rabbitmq.link",
    "send_in_progress": "",
    "send_data": "",
    "close_rcvd": "",
    "eof_sent": "",
}
# Below a package's door: not for chatlab at all.
PRIVATE_MODULES = {"websockets.streams", "websockets.protocol", "websockets.frames", "aiohttp.web_protocol"}
BOUNDED = {"aiohttp": "3.14", "redis": "8.1", "aio-pika": "10.2", "aiokafka": "0.14"}


def attributes(path: Path) -> Iterator[ast.Attribute]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))


@pytest.mark.parametrize("module", [module for module in MODULES if not module.startswith("chatlab.lab")])
def test_what_a_library_does_not_document_is_used_behind_its_fence_alone(module: str) -> None:
    used = {node.attr for node in attributes(MODULES[module])} & FENCED.keys()
    assert {name for name in used if module not in FENCED[name].split()} == set()


@pytest.mark.parametrize("module", [module for module in MODULES if not module.startswith("chatlab.lab")])
def test_no_module_imports_a_librarys_inner_modules(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported & PRIVATE_MODULES == set()


@pytest.mark.parametrize("library", BOUNDED)
def test_a_library_behind_a_fence_is_bounded_to_the_minor_version_that_was_tried(library: str) -> None:
    (requirement,) = (each for each in declared("lab") if each.name == library)
    tried = Version(BOUNDED[library])
    assert requirement.specifier.contains(f"{tried}.999")
    assert not requirement.specifier.contains(f"{tried.major}.{tried.minor + 1}.0")
