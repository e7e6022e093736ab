"""Both editions come from one master: notes match their notebooks, and only the instructor's has solutions."""

import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import pytest

from chatlab.errors import SetupError
from chatlab.lab.editions import edition
from chatlab.lab.exercises.exercise import Exercise, exercises, is_stub
from chatlab.lab.widgets.predict import questions

ROOT = Path(__file__).parents[3]
LESSONS = edition.lessons()
each_lesson = pytest.mark.parametrize("lesson", LESSONS)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHATLAB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CHATLAB_HOME", str(tmp_path_factory.mktemp("home")))
        return edition.build("instructor", tmp_path_factory.mktemp("editions") / "instructor").folder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working folder with two of the notebooks."""
    (tmp_path / "notebooks").mkdir()
    for lesson in ("00", "03"):
        shutil.copy(LESSONS[lesson], tmp_path / "notebooks")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


@cache
def instructors(lesson: str) -> Any:
    return edition.instructors(read(LESSONS[lesson]), lesson)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def exercise_cell(notebook: Any, id: str) -> Any:
    (cell,) = (cell for cell in notebook.cells if f"exercise-{id}" in cell.metadata.get("tags", []))
    return cell


def minutes_of(lesson: str) -> int:
    """Return the minutes that the lesson states at its top."""
    stated = re.search(r"(\d+) minutes", read(LESSONS[lesson]).cells[0].source)
    assert stated
    return int(stated[1])


def of_lesson(lesson: str) -> list[Exercise]:
    return [exercise for exercise in exercises().values() if exercise.lesson == lesson]


# Notes match their notebooks.


@each_lesson
def test_every_section_has_notes_in_the_order_of_the_notebook(lesson: str) -> None:
    noted = [section.heading for section in edition.notes(lesson).sections]
    assert noted == edition.headings(read(LESSONS[lesson])), f"fix chatlab/lab/editions/notes/{lesson}.toml"


@each_lesson
def test_the_minutes_of_the_sections_add_up_to_those_of_the_lesson(lesson: str) -> None:
    assert edition.notes(lesson).minutes == pytest.approx(minutes_of(lesson), rel=0.1)


@each_lesson
def test_the_table_of_lesson_00_has_the_minutes_of_each_lesson(lesson: str) -> None:
    rows = [line for line in read(LESSONS["00"]).cells[0].source.splitlines() if f"]({LESSONS[lesson].name})" in line]
    assert [int(row.split("|")[-2]) for row in rows] == [minutes_of(lesson)] * (lesson != "00")


@each_lesson
def test_a_lesson_states_its_goals_at_the_top(lesson: str) -> None:
    assert re.search(r"^By the end you .+\n- ", read(LESSONS[lesson]).cells[0].source, re.MULTILINE)


@each_lesson
def test_every_section_has_a_note_and_minutes(lesson: str) -> None:
    for section in edition.notes(lesson).sections:
        assert section.say or section.wrong or section.ask, section.heading
        assert section.minutes > 0


# The instructor's edition.


@each_lesson
def test_the_instructors_notebook_adds_notes_between_the_learners_cells(lesson: str) -> None:
    learners, theirs = read(LESSONS[lesson]), instructors(lesson)
    nbformat.validate(theirs)
    kept = [cell for cell in theirs.cells if not cell.id.startswith(edition.NOTE)]
    assert [cell.id for cell in kept] == [cell.id for cell in learners.cells]
    for cell, original in zip(kept, learners.cells, strict=True):
        if not any(tag.startswith("exercise-") for tag in original.metadata.get("tags", [])):
            assert cell == original


@each_lesson
def test_every_exercise_is_solved_and_its_output_is_right(lesson: str) -> None:
    notebook = instructors(lesson)
    for exercise in of_lesson(lesson):
        cell = exercise_cell(notebook, exercise.id)
        assert exercise.code in cell.source
        assert edition.stub_of(cell.source) is None
        shown = [output.get("data", {}).get("text/plain", "") for output in cell.outputs]
        right = f"✔ {exercise.id} right: {exercise.title}. {exercise.learned}\n  ▸ {exercise.leads_to}"
        assert right in shown
        assert "not tried" not in str(cell.outputs)
        note = notebook.cells[notebook.cells.index(cell) + 1].source.replace("\\", "").replace("\n>    ", "\n")
        for text in (exercise.why, *exercise.hints):
            assert text.replace("\\", "") in note


@each_lesson
def test_every_prediction_is_followed_by_its_correct_answer(lesson: str) -> None:
    cells = instructors(lesson).cells
    for cell, after in zip(cells, [*cells[1:], None], strict=True):
        for _, key in edition.PREDICT.findall(cell.source) if cell.cell_type == "code" else ():
            (right,) = (option for option in questions(lesson)[key].options if option.right)
            assert f"✔ {'abcdefgh'[questions(lesson)[key].options.index(right)]}) {right.text}" in after.source


def test_the_first_note_has_the_plan_of_the_lesson() -> None:
    plan, note = edition.notes("03"), instructors("03").cells[1].source
    assert f"of {plan.minutes}" in note
    first, second = plan.sections[:2]
    assert f"| 0 | {first.heading} | {first.minutes} |" in note
    assert f"| {first.minutes} | {second.heading} | {second.minutes} |" in note


def test_every_link_of_the_instructors_edition_has_a_target(built: Path) -> None:
    for path in [*built.glob("*.ipynb"), *built.glob("*.md")]:
        for link in re.findall(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
            if not link.startswith(("https://", "#")):
                assert (built / link.split("#")[0]).exists(), f"{path.name}: {link}"


def test_special_characters_and_line_breaks_of_a_hint_are_kept() -> None:
    hints = ("a < b, 2 * 3 * 4, `x_y * z`, __name__", "first\n    second")
    exercise = Exercise("00.1", "A greeting", lambda answer: None, hints, greeting, "see <why>")
    note = edition.about_exercise(exercise).source
    assert r"the reason: see \<why>" in note
    assert r"1. a \< b, 2 \* 3 \* 4, `x_y * z`, \_\_name\_\_" in note
    assert note.endswith("> 2.\n>    ```text\n>    first\n>        second\n>    ```")


# The learner's edition.


@each_lesson
def test_no_solution_is_in_the_learners_notebook(lesson: str) -> None:
    notebook = read(LESSONS[lesson])
    for exercise in of_lesson(lesson):
        assert edition.stub_of(exercise_cell(notebook, exercise.id).source) is not None
        assert f"○ {exercise.id} not tried" in str(exercise_cell(notebook, exercise.id).outputs)
        assert not any(exercise.code in cell.source for cell in notebook.cells)


def test_the_learners_edition_has_the_notebooks_without_outputs(project: Path) -> None:
    done = edition.build("learner", project / "handed out")
    assert done.names == ["00_start_here.ipynb", "03_broadcast_handler.ipynb"]
    for name in done.names:
        handed_out, shipped = read(done.folder / name), read(project / "notebooks" / name)
        nbformat.validate(handed_out)
        assert not any(cell.outputs or cell.execution_count for cell in code_cells(handed_out))
        assert any(cell.outputs for cell in code_cells(shipped))
        assert [cell.source for cell in handed_out.cells] == [
            cell.source.replace("(../docs/", "(") for cell in shipped.cells
        ]


@pytest.mark.parametrize("name", ["learner", "instructor"])
def test_a_document_that_a_lesson_links_to_lies_beside_the_lesson(name: edition.Edition, project: Path) -> None:
    (project / "docs").mkdir()
    (project / "docs" / "glossary.md").write_text("see [lesson 03](../notebooks/03_broadcast_handler.ipynb)")
    path = project / "notebooks" / "03_broadcast_handler.ipynb"
    notebook = read(path)
    notebook.cells[0].source += "\n[latency](../docs/glossary.md#latency)"
    nbformat.write(notebook, path)
    folder = edition.build(name, project / "out").folder
    assert "[latency](glossary.md#latency)" in (folder / path.name).read_text()
    assert (folder / "glossary.md").read_text() == "see [lesson 03](03_broadcast_handler.ipynb)"


@pytest.mark.parametrize("name", ["learner", "instructor"])
def test_a_notebook_with_a_solved_exercise_is_refused_as_a_master(name: edition.Edition, project: Path) -> None:
    path = project / "notebooks" / "03_broadcast_handler.ipynb"
    notebook = read(path)
    exercise_cell(
        notebook, "03.3"
    ).source = "def allowed(origin, ours):\n    return True\n\nawait check('03.3', allowed)"
    nbformat.write(notebook, path)
    with pytest.raises(SetupError, match=r"no unsolved exercise 03\.3; `chatlab reset 03`"):
        edition.build(name, project / "out")
    assert not (project / "out").exists()


# Writing.


def test_an_instructors_changes_are_set_aside(project: Path) -> None:
    folder = project / "instructor"
    assert not edition.build("instructor", folder).aside.exists()
    assert not edition.build("instructor", folder).aside.exists(), "nothing has changed"
    (folder / "03_broadcast_handler.ipynb").write_text("with my own remarks")
    done = edition.build("instructor", folder)
    assert (done.aside / "instructor" / "03_broadcast_handler.ipynb").read_text() == "with my own remarks"
    assert read(folder / "03_broadcast_handler.ipynb").cells


# Putting a solution in place of a stub.


@pytest.mark.parametrize(
    "source",
    [
        "def line(name, text):\n    ...",
        'async def handler(session):\n    """Write it here."""\n    ...',
        "class Room:\n    def join(self): ...\n\n    def leave(self): ...",
        "class Room:\n    def __init__(self): self.members = set()\n\n    async def join(self): ...",
        "class Room: ...",
        "request = ...",
    ],
)
def test_a_function_class_or_answer_of_dots_is_a_stub(source: str) -> None:
    stub = edition.stub_of(f"from chatlab.lab.exercises.exercise import check\n\n{source}\n\nawait check('00.1', line)")
    assert stub is not None
    assert stub.lineno == 3


@pytest.mark.parametrize(
    "source",
    [
        "def line(name, text):\n    return text",
        "request = b''",
        "line = 1",
        "await check('1', 2)",
        'class Room:\n    """A room."""\n\n    members = 0',
    ],
)
def test_written_code_is_not_a_stub(source: str) -> None:
    assert edition.stub_of(source) is None


def greeting(name: str) -> str:
    return f"안녕 {name}"


def test_a_solution_has_the_name_that_is_passed_to_check() -> None:
    exercise = Exercise("00.1", "A greeting", lambda answer: None, (), greeting, "")
    cell = nbformat.v4.new_code_cell("import re\n\ndef hello(name):\n    ...\n\nawait check('00.1', hello)")
    namespace: dict[str, Any] = {}
    exec("\n".join(edition.solved(cell, exercise).source.splitlines()[:-1]), namespace)
    assert namespace["hello"]("👋") == "안녕 👋"


def make_request() -> bytes:
    return b"GET / HTTP/1.1\r\n\r\n"


def test_an_answer_that_is_a_value_is_computed_by_the_solution() -> None:
    exercise = Exercise("00.1", "A request", lambda answer: None, (), make_request, "", makes=True)
    cell = nbformat.v4.new_code_cell("request = ...\nawait check('00.1', request)")
    namespace: dict[str, Any] = {}
    exec("\n".join(edition.solved(cell, exercise).source.splitlines()[:-1]), namespace)
    assert namespace["request"] == make_request()
    assert not is_stub(namespace["request"])
