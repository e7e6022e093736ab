"""Every notebook as text: its structure, its stored outputs, its links."""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LESSONS = [path for path in NOTEBOOKS if path.name[:2] != "00"]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    chosen: Path = request.param
    return chosen


@pytest.fixture
def cells(path: Path) -> list[Any]:
    return list(nbformat.read(path, as_version=4).cells)


def code_cells(cells: list[Any]) -> list[Any]:
    return [cell for cell in cells if cell.cell_type == "code"]


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


def test_the_file_is_valid(path: Path) -> None:
    nbformat.validate(nbformat.read(path, as_version=4))


def test_prose_precedes_each_code_cell(cells: list[Any]) -> None:
    for before, cell in zip([None, *cells], cells, strict=False):
        if cell.cell_type == "code":
            assert before is not None and before.cell_type == "markdown", f"no prose before: {cell.source!r}"


def test_code_cells_have_at_most_ten_lines(cells: list[Any]) -> None:
    for cell in code_cells(cells):
        assert len(cell.source.splitlines()) <= 10, cell.source
        assert all(len(line) <= 90 for line in cell.source.splitlines()), f"too wide for a page: {cell.source}"


def test_every_cell_was_run_in_order_and_none_failed(cells: list[Any]) -> None:
    runs = [cell.execution_count for cell in code_cells(cells)]
    assert runs == list(range(1, len(runs) + 1)), "run `make notebooks`"
    for cell in code_cells(cells):
        assert not any(output.output_type == "error" for output in cell.outputs), cell.source


def test_few_outputs_are_ignored_and_those_cells_assert(cells: list[Any]) -> None:
    ignored = [cell for cell in code_cells(cells) if "nbval-ignore-output" in cell.metadata.get("tags", [])]
    assert len(ignored) <= 0.2 * len(code_cells(cells)), [cell.source for cell in ignored]
    for cell in ignored:
        assert "assert" in cell.source, f"nothing is compared and nothing asserted in: {cell.source!r}"


def test_the_metadata_contains_only_known_keys_and_tags(path: Path, cells: list[Any]) -> None:
    assert set(nbformat.read(path, as_version=4).metadata) <= {"kernelspec", "language_info"}
    for cell in cells:
        assert set(cell.metadata) <= {"tags"}
        tags = set(cell.metadata.get("tags", []))
        assert all(re.fullmatch(r"nbval-ignore-output|setup|exercise-\d\d\.\d", tag) for tag in tags), tags
        assert "NBVAL_" not in cell.source, "use the tag instead"


def test_the_first_code_cell_of_each_section_is_tagged_as_its_setup(path: Path, cells: list[Any]) -> None:
    tagged = [cell for cell in code_cells(cells) if "setup" in cell.metadata.get("tags", [])]
    if tagged or path.name[:2] >= "04":
        assert tagged == [section[0] for section in sections(cells)]


def sections(cells: list[Any]) -> list[list[Any]]:
    """Return the code cells of each section (`## …`) that has any; the first has what comes before it too."""
    found: list[list[Any]] = [[]]
    for cell in cells:
        if cell.cell_type == "markdown" and re.search("^## ", cell.source, re.MULTILINE):
            found.append([])
        elif cell.cell_type == "code":
            found[-1].append(cell)
    return [section for section in found if section]


def test_outputs_contain_no_address_or_path_of_one_run(cells: list[Any]) -> None:
    for cell in code_cells(cells):
        for output in cell.outputs:
            text = str(output.get("text", "")) + str(output.get("data", {}).get("text/plain", ""))
            assert not re.search(r"0x[0-9a-f]{8,}|/tmp/|127\.0\.0\.1:\d+", text), text


def test_links_lead_to_a_file(path: Path, cells: list[Any]) -> None:
    for cell in cells:
        if cell.cell_type == "markdown":
            for link in LINK.findall(cell.source):
                if not link.startswith(("https://", "#")):
                    assert (path.parent / link.split("#")[0]).exists(), link


def test_prose_outweighs_code(cells: list[Any]) -> None:
    words = sum(len(cell.source.split()) for cell in cells if cell.cell_type == "markdown")
    lines = sum(len(cell.source.splitlines()) for cell in code_cells(cells))
    assert words >= 6 * lines, f"{words / lines:.1f} words of prose per line of code; aim for nine"


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_names_its_section_of_the_article_and_its_minutes(lesson: Path) -> None:
    first = nbformat.read(lesson, as_version=4).cells[0].source
    assert re.search(r"[가-힣]", first), "the first cell names the article's section by its Korean heading"
    assert re.search(r"\d+ minutes", first), "the first cell says how long the lesson takes"
