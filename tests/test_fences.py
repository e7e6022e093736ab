"""Undocumented parts of a library, or parts that a minor release may change, are used in one module each.

That module has a contract test, which fails if a new version differs, and the library is limited to tested versions.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.version import Version

from tests.test_floors import MODULES
from tests.test_setup_files import declared

# Attributes of a library's objects, and the modules that may use them.
FENCED = {
    "set_parser": "chatlab.net.http.upgrade",
    "_make_request": "chatlab.net.http.runner",
    "_prepare_hook": "chatlab.net.http.runner",
    "make_connection": "chatlab.brokers.redis.connections.link",
    "send_packed_command": "chatlab.brokers.redis.connections.link",
    "read_response": "chatlab.brokers.redis.connections.link",
    "can_read": "chatlab.brokers.redis.connections.link",
    "fetch_all_metadata": "chatlab.brokers.kafka.topics",
    "get_underlay_channel": "chatlab.brokers.rabbitmq.broker chatlab.brokers.rabbitmq.link",
    "send_in_progress": "",
    "send_data": "",
    "close_rcvd": "",
    "eof_sent": "",
}
# Internal modules of libraries, which chatlab does not import.
PRIVATE_MODULES = {"websockets.streams", "websockets.protocol", "websockets.frames", "aiohttp.web_protocol"}
BOUNDED = {"aiohttp": "3.14", "redis": "8.1", "aio-pika": "10.2", "aiokafka": "0.14"}


def attributes(path: Path) -> Iterator[ast.Attribute]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))


@pytest.mark.parametrize("module", [module for module in MODULES if not module.startswith("chatlab.lab")])
def test_undocumented_parts_of_a_library_are_used_only_in_their_fenced_module(module: str) -> None:
    used = {node.attr for node in attributes(MODULES[module])} & FENCED.keys()
    assert {name for name in used if module not in FENCED[name].split()} == set()


@pytest.mark.parametrize("module", [module for module in MODULES if not module.startswith("chatlab.lab")])
def test_no_module_imports_a_librarys_internal_modules(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported & PRIVATE_MODULES == set()


@pytest.mark.parametrize("library", BOUNDED)
def test_a_fenced_library_is_limited_to_the_tested_minor_version(library: str) -> None:
    (requirement,) = (each for each in declared("lab") if each.name == library)
    tested = Version(BOUNDED[library])
    assert requirement.specifier.contains(f"{tested}.999")
    assert not requirement.specifier.contains(f"{tested.major}.{tested.minor + 1}.0")
