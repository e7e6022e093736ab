"""A module imports only modules that are below it in docs/architecture.md, and every module has tests.

The rules are read from that page and from the source, so an import inside a function counts too.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "chatlab"
TESTS = ROOT / "tests"
PAGE = ROOT / "docs" / "architecture.md"
MAX_MODULES = 12  # in a folder, without its __init__.py
MORE_MODULES = {"chatlab.lab.experiments": 16}  # one for each lesson, and some for lesson 05

ENGINES = {
    "chatlab.brokers.memory",
    "chatlab.brokers.redis.pubsub",
    "chatlab.brokers.redis.streams",
    "chatlab.brokers.rabbitmq",
    "chatlab.brokers.kafka",
}
# Lesson 06, on STOMP, and its exercises need a real server, and no persistence; 04's first exercise needs no server.
SIMPLE_BROKER = {
    "chatlab.lab.exercises.support.chat": "memory",
    "chatlab.lab.exercises.lessons.lesson04": "memory",
    "chatlab.lab.experiments.lesson06": "memory",
}
# Lesson 05 compares the engines. Exercises are checked on a real Redis. The stepper's instance is a chat whose Redis
# may take an hour to answer. A learner's program gets the broker that the lesson is about.
ABOUT_ENGINES = (
    "chatlab.lab.experiments.lesson05",
    "chatlab.lab.exercises.support.redis",
    "chatlab.lab.experiments.crashes.patient_instance",
    "chatlab.lab.experiments.processes.program",
)
# Modules that do input and output, which a protocol without I/O must not import.
INPUT_OUTPUT = {"asyncio", "socket", "ssl", "select", "selectors", "threading", "websockets", "aiohttp", "redis"}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
PACKAGES = {module: path.parent for module, path in MODULES.items() if path.name == "__init__.py"}


def imported_by(path: Path) -> Iterator[str]:
    """Yield every module that the source imports, as an absolute dotted name."""
    module = name_of(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            source = ".".join(filter(None, [base, node.module]))
            for alias in node.names:
                full_name = f"{source}.{alias.name}"
                yield full_name if full_name in MODULES else source


IMPORTS = {module: set(imported_by(path)) for module, path in MODULES.items()}


def inside(imports: set[str]) -> set[str]:
    """Return the imports from the package, except `chatlab` itself, which every module may import."""
    return {name for name in imports if name.startswith("chatlab.")}


def outside(imports: set[str]) -> set[str]:
    return {name.split(".")[0] for name in imports if not name.startswith("chatlab")}


def part_of(module: str) -> str:
    """Return `stomp` for `chatlab.stomp.frames`, and "" for `chatlab` itself."""
    return module.split(".")[1] if module.startswith("chatlab.") else ""


# --- The rules in docs/architecture.md ---


def listed(page: str) -> dict[str, list[str]]:
    """Return the parts of each folder in the page's order: {"chatlab.net": ["websockets_library", "http", ...]}."""
    sections = re.split(r"^### `(chatlab[\w/]*)/`$", page, flags=re.MULTILINE)[1:]
    rows = {folder: re.findall(r"^\| `(\w+)(?:\.py|/)` \| \S", text, re.MULTILINE) for folder, text in pairs(sections)}
    return {folder.replace("/", "."): parts for folder, parts in rows.items()}


def pairs(texts: list[str]) -> Iterator[tuple[str, str]]:
    return zip(texts[::2], texts[1::2], strict=True)


def layers(page: str) -> dict[str, int]:
    """Return the layer of each part of `chatlab` from the page's table of layers."""
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", page, re.MULTILINE)
    return {part: int(layer) for layer, parts in rows for part in re.findall(r"`(\w+)(?:\.py|/)`", parts)}


LISTED = listed(PAGE.read_text(encoding="utf-8"))
LAYERS = layers(PAGE.read_text(encoding="utf-8"))


def parts_in(package: str) -> set[str]:
    depth = package.count(".") + 1
    return {name.split(".")[depth] for name in MODULES if name.startswith(f"{package}.")}


def common_package(importer: str, imported: str) -> tuple[str, str, str]:
    """Return the innermost package that contains both, and the part of it that each is in; "" for the package."""
    one, other = importer.split("."), imported.split(".")
    pairs_of_names = zip(one, other, strict=False)
    shared = next((n for n, (a, b) in enumerate(pairs_of_names) if a != b), min(len(one), len(other)))
    return ".".join(one[:shared]), "".join(one[shared : shared + 1]), "".join(other[shared : shared + 1])


def fault_in(importer: str, imported: str) -> str:
    """Return what is wrong with an import; "" if nothing is."""
    package, importer_part, imported_part = common_package(importer, imported)
    if not importer_part:  # a package's own __init__.py, which may re-export
        return ""
    if not imported_part:
        return f"{importer} imports its own package {package}, which may import it"
    if package == "chatlab" and LAYERS[importer_part] <= LAYERS[imported_part]:
        return f"{importer} (layer {LAYERS[importer_part]}) imports {imported} (layer {LAYERS[imported_part]})"
    if LISTED[package].index(importer_part) > LISTED[package].index(imported_part):
        return f"{importer} imports {imported}, which is above it in docs/architecture.md"
    return ""


def test_every_part_of_chatlab_is_in_one_layer() -> None:
    assert set(LAYERS) == parts_in("chatlab")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_is_listed_in_the_architecture_page(package: str) -> None:
    assert sorted(LISTED.get(package, [])) == sorted(parts_in(package))


@pytest.mark.parametrize("package", PACKAGES)
def test_no_folder_has_more_than_twelve_modules(package: str) -> None:
    modules = [path for path in PACKAGES[package].glob("*.py") if path.name != "__init__.py"]
    assert len(modules) <= MORE_MODULES.get(package, MAX_MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_modules_below_it(module: str) -> None:
    if module == "chatlab":
        assert inside(IMPORTS[module]) == set(), "importing chatlab must import nothing else"
    assert [fault for name in sorted(inside(IMPORTS[module])) if (fault := fault_in(module, name))] == []


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("chatlab.errors", "chatlab.cli"),
        ("chatlab.chat.service", "chatlab.lab.clients"),
        ("chatlab.chat.service", "chatlab.room.room"),
        ("chatlab.chat.delivery.hub", "chatlab.chat.endpoint.server"),
        ("chatlab.brokers.redis.connections.link", "chatlab.brokers.redis.streams"),
        ("chatlab.chat.service", "chatlab.chat"),
    ],
)
def test_an_upward_import_is_reported(importer: str, imported: str) -> None:
    assert importer in fault_in(importer, imported)


def test_a_downward_import_is_allowed() -> None:
    assert fault_in("chatlab.chat.endpoint.server", "chatlab.chat.delivery.hub") == ""


def test_every_link_in_the_architecture_page_leads_to_a_file() -> None:
    links = re.findall(r"\]\((\.\./[^)]+|[\w-]+\.md)\)", PAGE.read_text(encoding="utf-8"))
    assert len(links) >= 10
    assert [link for link in links if not (PAGE.parent / link).exists()] == []


def test_every_document_is_listed_in_the_docs_readme() -> None:
    listing = (PAGE.parent / "README.md").read_text(encoding="utf-8")
    documents = {path.name for path in PAGE.parent.glob("*.md")} - {"README.md"}
    assert set(re.findall(r"\]\(([\w-]+\.md)\)", listing)) == documents


def test_there_are_no_circular_imports() -> None:
    finished: set[str] = set()

    def walk(module: str, path: list[str]) -> None:
        assert module not in path, f"a circle: {' imports '.join([*path[path.index(module) :], module])}"
        if module not in finished:
            for name in sorted(IMPORTS[module] & MODULES.keys()):
                walk(name, [*path, module])
            finished.add(module)

    for module in MODULES:
        walk(module, [])


# --- Rules for single packages ---


def engines_in(module: str) -> set[str]:
    """Return the engines that a module imports; `chatlab.brokers.kafka.topics` belongs to Kafka."""
    return {name for name in inside(IMPORTS[module]) if name.startswith("chatlab.brokers.") and name.count(".") > 2} | (
        IMPORTS[module] & ENGINES
    )


@pytest.mark.parametrize("module", [module for module in MODULES if part_of(module) in {"chat", "room", "echo"}])
def test_a_server_imports_only_the_port_of_the_brokers(module: str) -> None:
    named = {name for name in inside(IMPORTS[module]) if part_of(name) == "brokers"} - {"chatlab.brokers.port"}
    assert all(name.split(".")[2] == SIMPLE_BROKER.get(module) for name in named), f"{module} imports {named}"


def test_only_the_command_line_imports_an_engine() -> None:
    for module, imports in IMPORTS.items():
        if module != "chatlab.cli" and part_of(module) != "brokers" and not module.startswith(ABOUT_ENGINES):
            named = {name for name in imports if name.startswith(tuple(ENGINES))}
            assert all(name.split(".")[2] == SIMPLE_BROKER.get(module) for name in named), f"{module} imports {named}"


@pytest.mark.parametrize("module", [module for module in MODULES if part_of(module) in {"websocket", "stomp"}])
def test_a_protocol_package_does_no_io(module: str) -> None:
    assert not outside(IMPORTS[module]) & INPUT_OUTPUT


@pytest.mark.parametrize("module", ["chatlab.net.fanout", "chatlab.net.endpoint"])
def test_the_fan_out_and_the_endpoint_import_no_library(module: str) -> None:
    assert not outside(IMPORTS[module]) & {"websockets", "aiohttp"}


# --- Tests ---


@cache
def imported_through_helpers(test: Path) -> set[str]:
    """Return what a test module imports, directly or through its helpers in tests/support/."""
    names = set(imported_by(test))
    helpers = {ROOT / f"{name.replace('.', '/')}.py" for name in names if name.startswith("tests.support.")}
    return names.union(*(imported_through_helpers(helper) for helper in helpers if helper.exists()))


@pytest.mark.parametrize("module", [module for module, path in MODULES.items() if path.name != "__init__.py"])
def test_every_module_has_a_test_module(module: str) -> None:
    """In the mirrored folder there must be a test module of the same name, or one that imports the module."""
    source = MODULES[module].relative_to(PACKAGE)
    folder = TESTS / source.parent
    named = list(folder.glob(f"test_{source.stem}*.py"))
    by_import = [test for test in folder.glob("test_*.py") if module in imported_through_helpers(test)]
    if source.parent.name == "lessons":  # tests/lab/exercises/test_exercise.py tries them all, with wrong answers
        named = list((TESTS / "lab" / "exercises" / "wrong_answers").glob(source.name))
    assert named or by_import, f"tests/{source.parent}/ has no test_{source.stem}.py, nor one that imports {module}"
