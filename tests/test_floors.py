"""The house stands: a floor imports only from floors below it, nothing imports in a circle, every module has its tests.

The rules are read from the source, so that an import inside a function counts as well.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "chatlab"

# From the ground up. A name is a module or a package directly below `chatlab`: a room of the house.
FLOORS = [
    {"console", "errors", "foreign_json", "naming", "proxies", "seldom", "tasks", "urls"},
    {"retry"},
    {"websocket", "fanout", "brokers", "stomp", "classroom", "journal", "room_lines"},
    {"net"},
    {"echo", "room", "chat"},
    {"shared_room"},
    {"lab"},
    {"cli"},
]
ENGINES = {
    "chatlab.brokers.memory.broker",
    "chatlab.brokers.redis.pubsub",
    "chatlab.brokers.redis.streams",
    "chatlab.brokers.rabbitmq.broker",
    "chatlab.brokers.kafka.broker",
}
# The article's own build stands on Spring's simple broker: one in memory, whatever joins the instances.
# An exercise on STOMP needs a real server, and nothing kept.
SIMPLE_BROKER = {
    "chatlab.chat.article": {"chatlab.brokers.memory.broker"},
    "chatlab.lab.exercises.support.chat": {"chatlab.brokers.memory.broker"},
}
# Lesson 05 is about the engines themselves: it holds them beside each other. Exercises are checked on a real Redis.
ABOUT_ENGINES = ("chatlab.lab.experiments.lesson05", "chatlab.lab.exercises.support.redis")
# What does input and output, and so has no place in a protocol that is written without.
INPUT_OUTPUT = {"asyncio", "socket", "ssl", "select", "selectors", "threading", "websockets", "aiohttp", "redis"}
TESTS = ROOT / "tests"


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported_by(path: Path) -> Iterator[str]:
    """Every module that the source names in an import, as an absolute dotted name."""
    module = name_of(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            source = ".".join(filter(None, [base, node.module]))
            for alias in node.names:
                whole = f"{source}.{alias.name}"
                yield whole if whole in MODULES else source


IMPORTS = {module: set(imported_by(path)) for module, path in MODULES.items()}


def room_of(module: str) -> str:
    """`stomp` for `chatlab.stomp.frames`; empty for `chatlab` itself."""
    return module.split(".")[1] if module.startswith("chatlab.") else ""


def floor_of(module: str) -> int:
    (floor,) = (number for number, rooms in enumerate(FLOORS) if room_of(module) in rooms)
    return floor


def inside(imports: set[str]) -> set[str]:
    return {name for name in imports if name.startswith("chatlab.")}


def outside(imports: set[str]) -> set[str]:
    return {name.split(".")[0] for name in imports if not name.startswith("chatlab")}


def test_every_room_is_on_a_floor() -> None:
    assert {room_of(module) for module in MODULES} - {""} <= set().union(*FLOORS)


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_only_from_floors_below_it(module: str) -> None:
    for name in inside(IMPORTS[module]):
        if room_of(name) != room_of(module):
            assert room_of(module), f"chatlab/__init__.py imports {name}; importing chatlab is to import nothing else"
            assert floor_of(name) < floor_of(module), f"{module} imports {name}, which is not on a floor below"


def test_chat_knows_brokers_by_their_port_alone() -> None:
    for module in MODULES:
        if room_of(module) in {"chat", "room", "echo", "shared_room"}:
            named = {name for name in inside(IMPORTS[module]) if room_of(name) == "brokers"}
            assert named <= {"chatlab.brokers.port"} | SIMPLE_BROKER.get(module, set()), f"{module} imports {named}"


def test_only_the_top_floor_names_a_brokers_engine() -> None:
    for module, imports in IMPORTS.items():
        if module != "chatlab.cli" and not module.startswith(ABOUT_ENGINES):
            assert imports & ENGINES <= SIMPLE_BROKER.get(module, set()), f"{module} imports {imports & ENGINES}"


def test_only_the_top_floor_imports_the_lab() -> None:
    for module, imports in IMPORTS.items():
        if room_of(module) not in {"lab", "cli"}:
            assert not any(room_of(name) == "lab" for name in imports), module


@pytest.mark.parametrize("module", [module for module in MODULES if room_of(module) in {"websocket", "stomp"}])
def test_a_protocol_is_written_without_input_and_output(module: str) -> None:
    if module != "chatlab.clients.stomp":  # the one file in the two rooms that does
        assert not outside(IMPORTS[module]) & INPUT_OUTPUT


def test_fan_out_knows_sinks_and_no_library() -> None:
    assert not outside(IMPORTS["chatlab.net.fanout"]) & {"websockets", "aiohttp"}


def test_the_end_of_a_websocket_knows_asyncio_and_no_library() -> None:
    assert not outside(IMPORTS["chatlab.net.endpoint"]) & {"websockets", "aiohttp"}


def test_nothing_imports_in_a_circle() -> None:
    finished: set[str] = set()

    def walk(module: str, way: list[str]) -> None:
        assert module not in way, f"a circle: {' imports '.join([*way[way.index(module) :], module])}"
        if module not in finished:
            for name in sorted(IMPORTS[module] & MODULES.keys()):
                walk(name, [*way, module])
            finished.add(module)

    for module in MODULES:
        walk(module, [])


@cache
def exercised_by(test: Path) -> set[str]:
    """What a test module imports, itself or by way of its helpers in tests/support/."""
    names = set(imported_by(test))
    helpers = {ROOT / f"{name.replace('.', '/')}.py" for name in names if name.startswith("tests.support.")}
    return names.union(*(exercised_by(helper) for helper in helpers if helper.exists()))


@pytest.mark.parametrize("module", [module for module, path in MODULES.items() if path.name != "__init__.py"])
def test_every_module_has_its_test_module(module: str) -> None:
    """One in the mirrored folder that bears its name, or, for a part that was split off, one that imports it."""
    source = MODULES[module].relative_to(PACKAGE)
    folder = TESTS / source.parent
    by_name = list(folder.glob(f"test_{source.stem}*.py"))
    by_import = [test for test in folder.glob("test_*.py") if module in exercised_by(test)]
    if (
        source.parent.name == "exercise_set"
    ):  # all of them are proved by tests/lab/exercises/test_exercise.py, given wrong answers
        by_name = list((TESTS / "lab" / "wrong_answers").glob(source.name))
    assert by_name or by_import, f"tests/{source.parent}/ has no test_{source.stem}.py, nor one that imports {module}"
