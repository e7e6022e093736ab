"""A pytest plugin: with `-n 2 --dist loadfile`, a file's tests stay together, and those of a heavy engine do too.

Otherwise each worker would start a Kafka and a RabbitMQ of its own.
"""

from __future__ import annotations

from typing import Any

import pytest

HEAVY = ("kafka", "rabbitmq")


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
