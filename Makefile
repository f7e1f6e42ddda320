# make demo · test · test-browser · lint · bench.  Needs Python 3.11+, make and pip; no compiler.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test test-browser lint install bench claims docs lessons format clean

install: $(READY)

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "convolve needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(READY)

demo: $(READY)
	$(BIN)/python -m convolve demo

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto
	@echo "make test skips the tests that drive pages in Chromium; make test-browser runs them"

test-browser: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser tests/browser

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python -m benchmarks

claims: $(READY)
	$(BIN)/python -m convolve claims --slow

docs: $(READY)
	$(BIN)/python -m convolve claims --slow --markdown docs/claims.md
	$(BIN)/python tools/pictures.py
	$(BIN)/python -m tools.lessons

lessons: $(READY)
	$(BIN)/python -m tools.lessons

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache build dist
