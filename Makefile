# make run        install into .venv and open the page     (make run ARGS="--no-browser --port 7991")
# make test       install and run the tests                (under ten minutes on two cores)
# make test-all   the slow browser and load tests as well
# make lint       ruff and the type checker

PYTHON ?= python3
BIN := .venv/bin
# Files of tests that run at a time; each brings its own server and browser.
JOBS ?= 2
PYTEST = $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

# Tests share the machine with a browser and a server: threads that wait must sleep, not spin.
export OMP_WAIT_POLICY ?= PASSIVE
export GOMP_SPINCOUNT ?= 0

.PHONY: run test test-slow test-all lint clean

run: .venv/runtime
	$(BIN)/python app.py $(ARGS)

test: .venv/dev
	$(PYTEST) -m "not slow" $(ARGS)

test-slow: .venv/dev
	$(PYTEST) -m slow $(ARGS)

test-all: test test-slow

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv

.venv/runtime: requirements.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/dev: requirements-dev.txt requirements.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@ .venv/runtime

clean:
	rm -rf .venv
