"""A pytest plugin: with `-n 2 --dist loadfile`, a file's tests stay together, and those of a heavy engine do too.

Otherwise each worker would start a Kafka and a RabbitMQ of its own.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

HEAVY = ("kafka", "rabbitmq")
SLOW = (
    "rabbitmq",
    "tests/test_cli.py",
    "kafka",
    "tests/lab/engines/test_cluster.py",
    "tests/lab/exercises/test_exercise.py",
    "tests/chat/test_ledger.py",
    "tests/browser/test_room_page.py",
    "tests/security/test_unfinished.py",
    "tests/brokers/test_conformance.py",
)
"""What takes longest, measured, in that order."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Take the place of xdist's own scheduler for `--dist loadfile`."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadScopeScheduling

    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = together
    return scheduler


def together(nodeid: str) -> str:
    """Name what this test shares a worker with."""
    engine = next((name for name in HEAVY if name in nodeid.lower()), None)
    return engine or nodeid.partition("::")[0]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what is slow, then what may take longest, so that no worker is left alone with one in the end."""
    longest: defaultdict[str, float] = defaultdict(float)
    for item in items:
        mark = item.get_closest_marker("timeout")
        longest[together(item.nodeid)] = max(longest[together(item.nodeid)], mark.args[0] if mark else 0.0)
    rank = {name: place for place, name in enumerate(SLOW)}
    items.sort(key=lambda item: (rank.get(together(item.nodeid), len(SLOW)), -longest[together(item.nodeid)]))
