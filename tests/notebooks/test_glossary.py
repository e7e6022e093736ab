"""The glossary: every link to it leads to a term, and every term names its first lesson and explains itself briefly."""

import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
GLOSSARY = ROOT / "docs" / "glossary.md"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LINK = re.compile(r"\]\(\.\./docs/glossary\.md#([^)]*)\)")


def terms() -> dict[str, str]:
    """Return the text under each heading by its anchor, as GitHub makes it."""
    parts = re.split(r"^### (?:<a id=\"[^\"]*\"></a>)?(.+)$", GLOSSARY.read_text(encoding="utf-8"), flags=re.MULTILINE)[
        1:
    ]
    return {anchor(heading): text for heading, text in zip(parts[::2], parts[1::2], strict=True)}


def anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_to_the_glossary_lead_to_a_term(path: Path) -> None:
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    assert set(LINK.findall("\n".join(cells))) <= set(terms())


@pytest.mark.parametrize("term", terms())
def test_a_term_has_a_short_explanation_and_the_lesson_that_uses_it_first(term: str) -> None:
    found = re.search(r"\[lesson (\d\d)\]\(\.\./notebooks/(\d\d)_\w+\.ipynb\)", terms()[term])
    assert found is not None and found[1] == found[2]
    assert len(terms()[term][: found.start()].split()) <= 60


def test_a_term_has_the_same_anchor_on_github_and_in_jupyterlab() -> None:
    """JupyterLab keeps capitals and commas in the id of a heading: such a heading needs an id of its own."""
    for own_id, heading in re.findall(
        r"^### (?:<a id=\"([^\"]*)\"></a>)?(.+)$", GLOSSARY.read_text("utf-8"), re.MULTILINE
    ):
        assert (own_id or heading.replace(" ", "-")) == anchor(heading)


def test_the_terms_are_in_the_order_of_the_alphabet() -> None:
    assert list(terms()) == sorted(terms())
