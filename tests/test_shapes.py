"""Rules that no linter checks: background work is started only by `tasks`, and retries are only in `retry`."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "chatlab"
MODULES = sorted(PACKAGE.rglob("*.py"))
OUTSIDE_THE_LAB = [path for path in MODULES if "lab" not in path.relative_to(PACKAGE).parts]


def calls(path: Path) -> set[str]:
    """Return the names of all functions that a module calls."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            names.add(ast.unparse(node.func).rpartition(".")[2])
    return names


def name(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", [path for path in OUTSIDE_THE_LAB if path.name != "tasks.py"], ids=name)
def test_background_work_is_started_only_by_tasks(path: Path) -> None:
    bare = calls(path) & {"create_task", "ensure_future", "run_coroutine_threadsafe"}
    assert not bare, f"{name(path)} calls {', '.join(sorted(bare))}: a failure would go unnoticed; use chatlab.tasks"


@pytest.mark.parametrize("path", [path for path in OUTSIDE_THE_LAB if path.name != "retry.py"], ids=name)
def test_backoff_is_computed_only_by_retry(path: Path) -> None:
    assert not calls(path) & {"uniform", "expovariate"}, f"{name(path)} computes its own backoff; use chatlab.retry"
