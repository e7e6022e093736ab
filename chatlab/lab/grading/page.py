"""The instructor's page: who has solved what, and under each learner's name why not.

One file without scripts or anything from elsewhere, in the colours that the reader's system has chosen. A mark is never
told by its colour alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from chatlab.lab.exercises.exercise import NAMES, SIGNS, exercises, find
from chatlab.lab.grading.judging import Result, Verdict
from chatlab.locale import _, ngettext

__all__ = ["of"]

STYLE = """
:root { color-scheme: light dark; --paper: #fbfaf8; --ink: #1d2327; --soft: #566068; --line: #d8d5cf; --good: #1f6653;
  --warn: #8a4b00; font: 1rem/1.5 system-ui, "Noto Sans KR", sans-serif; }
@media (prefers-color-scheme: dark) { :root { --paper: #15191b; --ink: #e9ebec; --soft: #a8b1b7; --line: #3a4247;
  --good: #6fc3a9; --warn: #f0b35f; } }
body { background: var(--paper); color: var(--ink); margin: 0 auto; max-width: 75rem; padding: 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; }
caption { text-align: start; font-weight: 600; padding: 0.5rem 0; }
th, td { border: 1px solid var(--line); padding: 0.3rem 0.6rem; text-align: start; }
.right { color: var(--good); }
.not-yet, .problem { color: var(--warn); }
.not-tried, .soft { color: var(--soft); }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0.3rem 0; }
a { color: inherit; }
:focus-visible { outline: 3px solid var(--good); outline-offset: 2px; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
"""  # not shown: a style sheet


def of(results: Sequence[Result]) -> str:
    """Return the page as HTML."""
    title = _("Grades")
    count = len({each.submission.learner for each in results})
    head = ngettext("{count} learner", "{count} learners", count).format(count=count)
    lessons = sorted({each.submission.lesson for each in results if each.submission.lesson})
    numbered = list(enumerate(results))
    tables = "".join(
        _table(lesson, [each for each in numbered if each[1].submission.lesson == lesson]) for lesson in lessons
    )
    details = "".join(_details(number, result) for number, result in numbered)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n<p>{head}. {_unseen()}</p>\n"
        f"{tables}<h2>{_('Notebook by notebook')}</h2>\n{details}</main>\n</body>\n</html>\n"
    )


def _unseen() -> str:
    return _("A mark says that the code works. It does not say who wrote it.")


def _table(lesson: str, results: Sequence[tuple[int, Result]]) -> str:
    ids = [each.id for each in exercises().values() if each.lesson == lesson]
    heads = "".join(f'<th scope="col"><abbr title="{escape(find(id).title)}">{id}</abbr></th>' for id in ids)
    rows = "".join(_row(number, result, ids) for number, result in results)
    caption = _("Lesson {lesson}").format(lesson=lesson)
    names = f'<th scope="col">{_("Learner")}</th>{heads}<th scope="col">{_("Right")}</th>'
    return (
        f'<div class="wide" role="region" aria-label="{caption}" tabindex="0"><table><caption>{caption}</caption>'
        f"<thead><tr>{names}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n"
    )


def _row(number: int, result: Result, ids: Sequence[str]) -> str:
    verdicts = {each.id: each for each in result.verdicts}
    cells = "".join(f"<td>{_sign(verdicts[id]) if id in verdicts else ''}</td>" for id in ids)
    right = _("{right} of {total}").format(right=result.score, total=result.possible)
    name = f'<a href="#n{number}">{escape(result.submission.learner)}</a>'
    return f'<tr><th scope="row">{name}</th>{cells}<td>{right}</td></tr>\n'


def _sign(verdict: Verdict) -> str:
    return (
        f'<span class="{verdict.mark.replace(" ", "-")}"><span aria-hidden="true">{SIGNS[verdict.mark]}</span>'
        f'<span class="hidden">{NAMES[verdict.mark]}</span></span>'
    )


def _details(number: int, result: Result) -> str:
    given = result.submission
    where = f'<p class="soft">{escape(given.where)}</p>'
    if given.problem:
        inside = f'<p class="problem">{escape(given.problem)}</p>'
    else:
        inside = f"<ul>{''.join(map(_item, result.verdicts))}</ul>"
    return f'<section id="n{number}"><h3>{escape(given.learner)}</h3>{where}{inside}</section>\n'


def _item(verdict: Verdict) -> str:
    evidence = verdict.evidence and not verdict.is_right
    more = (
        f"<details><summary>{_('Evidence')}</summary><pre>{escape(verdict.evidence)}</pre></details>"
        if evidence
        else ""
    )
    said = "" if verdict.is_right else f": {escape(verdict.sentence)}"
    return f"<li>{_sign(verdict)} {verdict.id} {NAMES[verdict.mark]}{said}{more}</li>\n"
