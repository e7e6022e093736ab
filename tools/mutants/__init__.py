"""`make mutants`: break every reference solution by machine, and see whether its check notices, and what it says.

operators.py    the changes: a comparison turned round, a statement dropped, an `await` forgotten, …
mutants.py      the mutants of an exercise: by the operators, and by learners' mistakes in mistakes.toml
pool.py         runs each mutant through its check, in processes that are replaced when a mutant hangs
report.py       docs/checks.md, from results.json; a mutant that behaves like the solution is in equivalent.toml
"""
