## What you can ask for here. `make lab` needs Python 3.11 or newer and make; the rest is installed into .venv.
##   make lab                                  the workbook, in JupyterLab
##   make lab LAB_ARGS="--no-browser --port 8899"
##   make chat CHAT_ARGS="--port 8080"         the chat server, without the workbook
##   make editions                             the notebooks to hand out, and the instructor's, in editions/
##   make test                                 the tests and every notebook; what is skipped, and what would bring it
##   make spring                               the article's own programs, for lesson 07 (needs a JDK and Maven)
##   make check                                format, lint, types
## For those who work on chatlab itself:
##   make test-long    what `make test` leaves out because it takes long: some tests, and the notebooks with every exercise solved
##   make notebooks    run all notebooks and store their outputs
##   make fuzz         a million random and broken inputs for each parser, and ten thousand dropped clients (minutes)
##   make mutants      break every solution by machine, see what its check says, and write docs/checks.md (an hour; MUTANTS_ARGS="--exercise 01.3")
##   make soak         the chat on real processes that are killed and stalled, for SOAK_SECONDS (600): nothing lost, nothing grows
##   make messages     collect the texts to translate, and bring each language's catalogue up to date
##   make lock         compute the locked versions again (needs uv; LOCK_ARGS=--upgrade takes the newest)
##   make wheelhouse   bring all packages into wheelhouse/, for machines without a network (see tools/wheelhouse.py)
##   make clean        remove what tools leave behind; .venv and your own work stay
PY := .venv/bin/python
LAB_ARGS ?=
CHAT_ARGS ?=
SPRING_ARGS ?=
LOCK_ARGS ?=
PYTEST_ARGS ?=
WORKERS ?= 3
FUZZ_CASES ?= 1000000
SOAK_SECONDS ?= 600
MUTANTS_ARGS ?=
WHEELHOUSE_FOR ?=

.PHONY: spring help lab chat editions test test-code test-notebooks test-long test-long-code test-editions check notebooks fuzz mutants soak messages lock wheelhouse clean venv-lab venv-dev

help:
	@sed -n 's/^## //p' Makefile

lab: venv-lab
	@exec .venv/bin/chatlab lab $(LAB_ARGS)

chat: venv-lab
	@exec .venv/bin/chatlab serve chat $(CHAT_ARGS)

editions: venv-lab
	@.venv/bin/chatlab edition learner --to editions/learner
	@.venv/bin/chatlab edition instructor --to editions/instructor

spring: venv-lab
	@.venv/bin/python -m chatlab.lab.engines.spring_jar $(SPRING_ARGS)

# Two parts: the code without its long tests, and the notebooks as they are. Both run even where one has failed. One of them alone:
# make test-code, make test-notebooks.
test: venv-dev
	@$(PY) tools/test.py test-code test-notebooks

# What takes long: tests marked `long` (minutes of real time, or a case repeated on one more engine), and the notebooks with every
# exercise solved. CI runs it after `make test`. One part alone: make test-long-code, make test-editions.
test-long: venv-dev
	@$(PY) tools/test.py test-long-code test-editions

# Each file on one of three workers, even on two cores, because tests often wait; each part with its own memory of
# what failed, for --lf. Where PYTEST_ARGS chooses, it may choose nothing here: then pytest ends with 5.
PYTEST = $(PY) -m pytest -q -rfEs -n $(WORKERS) --dist loadfile -o cache_dir=.test/$@.cache --lfnf=none $(PYTEST_ARGS)
CODE = $(PYTEST) --no-loadscope-reorder
# The notebooks that take longest begin first, so that no worker is left alone with one at the end.
NOTEBOOKS := $(foreach number,05 07 06 04 03 02,$(wildcard notebooks/$(number)_*.ipynb))
NOTEBOOKS := $(NOTEBOOKS) $(filter-out $(NOTEBOOKS),$(wildcard notebooks/*.ipynb))
NBVAL = $(CODE) --nbval --nbval-current-env --nbval-cell-timeout 60
# nbval imports nbformat, which takes seconds of CPU time, in each worker.
NO_NBVAL = -p no:nbval
MAY_CHOOSE_NOTHING = || test "$$?$(if $(strip $(PYTEST_ARGS)),, of all)" = 5

test-code: venv-dev
	$(CODE) $(NO_NBVAL) -m "not long" tests $(MAY_CHOOSE_NOTHING)

test-long-code: venv-dev
	$(CODE) $(NO_NBVAL) -m long tests $(MAY_CHOOSE_NOTHING)

test-notebooks: venv-dev
	$(NBVAL) $(NOTEBOOKS) $(MAY_CHOOSE_NOTHING)

# The reference solutions in the learner's own notebooks: every check must say "right", and all else what it always says.
test-editions: venv-dev
	@rm -rf .test/instructor && CHATLAB_HOME="$(CURDIR)/.test/home" .venv/bin/chatlab edition instructor --to .test/instructor
	$(NBVAL) $(addprefix .test/instructor/,$(notdir $(NOTEBOOKS))) $(MAY_CHOOSE_NOTHING)

check: venv-dev
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy

notebooks: venv-dev
	$(PY) notebooks/build.py

fuzz: venv-dev
	for part in tests/fuzz_*.py; do $(PY) $$part $(FUZZ_CASES) || exit 1; done

mutants: venv-dev
	PYTHONPATH=. $(PY) -m tools.mutants $(MUTANTS_ARGS)

soak: venv-dev
	$(PY) -m tests.soak_chat $(SOAK_SECONDS)

messages: venv-dev
	PYTHONPATH=. $(PY) tools/messages.py

# No index, no local path and no file name in the locks: they hold wherever the packages come from.
LOCK = uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-annotate \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --quiet $(LOCK_ARGS)

lock:
	@command -v uv >/dev/null || { echo "chatlab: make lock needs uv: python3 -m pip install uv" >&2; exit 1; }
	$(LOCK) --extra lab --group build --output-file requirements/lab.txt
	$(LOCK) --group build --constraints requirements/lab.txt --output-file requirements/serve.txt
	$(LOCK) --extra lab --group dev --constraints requirements/lab.txt --output-file requirements/dev.txt

wheelhouse: venv-lab
	$(PY) tools/wheelhouse.py $(WHEELHOUSE_FOR)

clean:
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .test dist
	find . -name .venv -prune -o -name __pycache__ -prune -exec rm -rf {} +

venv-lab:
	@tools/install.sh lab

venv-dev:
	@tools/install.sh dev
