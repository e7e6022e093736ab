"""SECURITY.md names tests for each threat: each of them exists, and each test module here is named."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROWS = [
    line.split("|")[1:-1]
    for line in (TESTS.parent / "SECURITY.md").read_text(encoding="utf-8").splitlines()
    if re.search(r"\| `\w*/?test_", line)
]
NAMED = {name if "/" in name else f"security/{name}" for row in ROWS for name in re.findall(r"`([^`]+)`", row[3])}


def test_each_threat_names_tests_that_exist() -> None:
    assert len(ROWS) > 15
    missing = [name for name in NAMED if not (TESTS / name).exists() and not (TESTS / Path(name).name).exists()]
    assert not missing


def test_each_module_of_attacks_is_named_by_a_threat() -> None:
    files = {f"security/{path.name}" for path in Path(__file__).parent.glob("test_*.py")}
    assert files - NAMED == {"security/test_threats.py"}
