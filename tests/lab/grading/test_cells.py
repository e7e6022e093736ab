"""Cells: an answer is taken with what it needs, and with nothing else."""

import ast

import pytest

from chatlab.lab.grading.cells import CannotTake, program
from chatlab.lab.grading.submissions import Cell

CHECK = 'await check("01.1", proof)'


def taken(*cells: str | Cell) -> str:
    given = [each if isinstance(each, Cell) else Cell(each) for each in cells]
    made = program("01.1", given)
    return "\n".join(ast.unparse(tree) for __, tree in made.parts if tree.body)


def own(source: str) -> Cell:
    return Cell(source, ("01.1",))


def test_functions_imports_and_values_that_the_answer_uses_come_along() -> None:
    helper = (
        "from hashlib import sha1\nimport os\nGUID = 'x'\nboard = await start()\ndef mix(key):\n    return sha1(key)"
    )
    answer = (
        f"from chatlab.lab.exercises import check\nprint('hi')\ndef proof(key):\n    return mix(key + GUID)\n{CHECK}"
    )
    assert taken(helper, own(answer)).split("\n") == [
        "from hashlib import sha1",
        "GUID = 'x'",
        "",
        "def mix(key):",
        "    return sha1(key)",
        "def proof(key):",
        "    return mix(key + GUID)",
    ]


def test_lines_that_fill_a_table_come_along_and_a_local_name_needs_nothing() -> None:
    fill = "table = []\nfor each in range(3):\n    table.append(each)\n"
    answer = fill + "def proof(key):\n    heard = key\n    return table, heard"
    assert "heard = await" not in taken("heard = await ask()\nheard = 1", own(f"{answer}\n{CHECK}"))
    assert "table.append(each)" in taken(own(f"{answer}\n{CHECK}"))


def test_a_name_is_taken_from_the_nearest_cell_above() -> None:
    assert "old" not in taken("A = 'old'", "A = 'new'", own(f"def proof(key):\n    return A\n{CHECK}"), "A = 'later'")


def test_a_cell_without_its_check_gives_the_name_that_the_notebook_was_shipped_with() -> None:
    assert ast.unparse(program("01.1", [own("def proof(key):\n    return 1")]).answer) == "proof"


def test_magics_are_no_syntax_errors() -> None:
    assert taken(own(f"%%time\n!ls\n%matplotlib inline\ndef proof(key):\n    return 1\n{CHECK}")).startswith(
        "def proof"
    )


def test_a_lone_return_is_told_with_its_line() -> None:
    with pytest.raises(CannotTake, match=r"'return' outside function \(line 1\)"):
        taken(own("return 1"))
