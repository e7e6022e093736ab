"""A pytest plugin: `--dist loadfile` also keeps all tests of a heavy engine on one worker.

Otherwise each worker would start its own Kafka and RabbitMQ.
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
"""The groups that take longest, as measured, slowest first."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Replace xdist's scheduler for `--dist loadfile`."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadScopeScheduling

    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = group_of
    return scheduler


def group_of(nodeid: str) -> str:
    """Return the name of the group of tests that share a worker with this one."""
    engine = next((name for name in HEAVY if name in nodeid.lower()), None)
    return engine or nodeid.partition("::")[0]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run slow groups first, then those with long time-outs, so that no worker ends with a slow group alone."""
    longest: defaultdict[str, float] = defaultdict(float)
    for item in items:
        mark = item.get_closest_marker("timeout")
        longest[group_of(item.nodeid)] = max(longest[group_of(item.nodeid)], mark.args[0] if mark else 0.0)
    rank = {name: place for place, name in enumerate(SLOW)}
    items.sort(key=lambda item: (rank.get(group_of(item.nodeid), len(SLOW)), -longest[group_of(item.nodeid)]))
