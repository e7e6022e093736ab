"""`make mutants`: the operators, the pool of processes, the list of right mutants, and a sample of all mutants."""

import pytest

from chatlab.lab.exercises.exercise import exercises
from tools.mutants import pool
from tools.mutants.__main__ import chosen
from tools.mutants.mutants import Mutant, answer_of, mutants
from tools.mutants.operators import OPERATORS, mutations
from tools.mutants.pool import Result, Verdict, run
from tools.mutants.report import EQUIVALENT, PAGE, equivalents, load, page, unlisted

QUICK = ["01.0", "01.1", "01.2", "01.3", "01.4", "02.1", "02.2", "02.3", "03.1", "03.3", "06.1", "06.2", "06.3", "07.1"]
LINE = exercises()["03.1"].code


@pytest.mark.parametrize(
    ("operator", "source", "mutant"),
    [
        ("compare", "if a == b:\n    go()", "if a != b:\n    go()"),
        ("compare", "x = a and b", "x = a or b"),
        ("compare", "while more():\n    go()", "while not more():\n    go()"),
        ("boundary", "x = a < 3", "x = a <= 3"),
        ("off_by_one", "x = a[2:]", "x = a[3:]"),
        ("off_by_one", "x = a[:4]", "x = a[:]"),
        ("off_by_one", "wait(0.5)", "wait(5.0)"),
        ("constant", "x = 'key'", "x = 'ke'"),
        ("constant", "x = b'ab'", "x = b'AB'"),
        ("arithmetic", "x = a + b", "x = b + a"),
        ("arithmetic", "x += y", "x = y"),
        ("argument", "f(a, b)", "f(b, a)"),
        ("argument", "x = d.get('k', 0)", "x = d['k']"),
        ("argument", "f(a, most=3)", "f(a)"),
        ("conversion", "x = list(y)", "x = y"),
        ("conversion", "x = y.lower()", "x = y"),
        ("missing_await", "async def f():\n    await g()", "async def f():\n    g()"),
        ("wrong_exception", "try:\n    f()\nexcept (A, B):\n    g()", "try:\n    f()\nexcept (B,):\n    g()"),
        ("wrong_exception", "raise A('no')", "raise RuntimeError('no')"),
        ("early_return", "def f():\n    return 1", "def f():\n    return"),
        ("early_return", "for x in y:\n    f()", "for x in y:\n    f()\n    break"),
        ("drop", "f()\ng()", "g()"),
        ("drop", "if a:\n    f()", "if a:\n    pass"),
        ("swap", "f()\ng()", "g()\nf()"),
        ("unwrap", "with a:\n    f()", "f()"),
        ("unwrap", "try:\n    f()\nfinally:\n    g()", "f()\ng()"),
        ("stop_early", "def f():\n    a()\n    b()", "def f():\n    a()\n    return"),
        ("wrong_place", "a = []\nfor x in y:\n    a.append(x)", "for x in y:\n    a = []\n    a.append(x)"),
        ("wrong_place", "for x in y:\n    f(x)\n    g()", "for x in y:\n    f(x)\ng()"),
        ("kept_between_calls", "def f():\n    a = []\n    return a", "a = []\n\ndef f():\n    global a\n    return a"),
    ],
)
def test_an_operator_makes_its_mistake(operator: str, source: str, mutant: str) -> None:
    assert (operator, mutant) in list(mutations(source))
    assert operator in OPERATORS


def test_no_mutant_is_the_solution_itself_or_made_twice() -> None:
    made = [source for _, source in mutations("def f(x):\n    return x")]
    assert len(made) == len(set(made))
    assert "def f(x):\n    return x" not in made


@pytest.mark.parametrize("id", exercises())
def test_each_mutant_of_an_exercise_has_a_name_of_its_own(id: str) -> None:
    names = [mutant.name for mutant in mutants(id)]
    assert names
    assert len(names) == len(set(names))


@pytest.mark.parametrize("id", exercises())
def test_the_code_of_each_solution_gives_an_answer_in_a_cell_of_its_own(id: str) -> None:
    answer = answer_of(exercises()[id], exercises()[id].code)
    assert type(answer) is type(exercises()[id].reference)


def test_a_sample_is_the_same_for_the_same_seed() -> None:
    assert chosen(["01"], sample=10, seed=3) == chosen(["01"], sample=10, seed=3)
    assert chosen(["01"], sample=10, seed=3) != chosen(["01"], sample=10, seed=4)


def test_a_mutant_gets_a_verdict_and_one_that_hangs_gets_its_process_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "LIMIT", 8.0)
    answers: dict[str, str] = {
        "right": LINE,
        "wrong": LINE.replace("Server", "server"),
        "hangs": "import time\ndef line(name, text):\n    time.sleep(1000)",
        "dies": "import os\ndef line(name, text):\n    os._exit(1)",
        "stub": "def line(name, text): ...",
        "wrong after those": LINE.replace("from", "by"),
    }
    results = {each.mutant: each for each in run([Mutant("03.1", *each) for each in answers.items()], workers=1)}
    verdicts: dict[str, Verdict] = {name: result.verdict for name, result in results.items()}
    assert verdicts == {
        "right": "called right",
        "wrong": "refused",
        "hangs": "hung",
        "dies": "hung",
        "stub": "no answer",
        "wrong after those": "refused",
    }
    assert results["wrong"].sentence == "without a name, the line has the article's form"


def test_the_list_of_right_mutants_names_mutants_that_there_are_and_a_reason_for_each() -> None:
    assert list(unlisted([])) == []
    assert all(each.reason.endswith(".") for each in equivalents())
    assert len({(each.exercise, each.mutant) for each in equivalents()}) == len(equivalents()), EQUIVALENT


def test_a_listed_mutant_that_is_refused_is_reported() -> None:
    listed = equivalents()[0]
    (sentence,) = unlisted([Result(listed.exercise, listed.mutant, "refused", "a rule")])
    assert "is in equivalent.toml, but refused: a rule" in sentence


def test_the_page_shows_the_results_as_they_are_stored() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(load())


def expect_no_news(sample: list[Mutant]) -> None:
    """Expect that each mutant is refused with a rule, or listed as right, or a problem that docs/checks.md shows."""
    known = {(id, each["mutant"]) for id, score in load().items() for each in score.problems}
    known |= {(each.exercise, each.mutant) for each in equivalents()}
    results = list(run(sample, workers=2))
    assert [
        each for each in results if each.verdict in ("called right", "no rule", "hung") and key(each) not in known
    ] == []
    assert list(unlisted(results)) == []


def key(result: Result) -> tuple[str, str]:
    return result.exercise, result.mutant


def test_a_sample_of_the_quick_mutants_is_refused_with_a_rule_or_listed() -> None:
    expect_no_news(chosen([id for id in QUICK if id in load()], sample=30))


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_larger_sample_and_all_listed_mutants_are_as_they_are_stored() -> None:
    listed = {(each.exercise, each.mutant) for each in equivalents()}
    expect_no_news(
        [each for each in chosen([]) if (each.exercise, each.name) in listed] + chosen(list(load()), sample=100)
    )
