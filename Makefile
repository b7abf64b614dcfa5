# `make demo` and `make test` set everything up on a fresh machine; later runs reuse what is there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Containers often set this; then each process that a test starts compiles all modules anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo app assets docs test quick slow check format clean

demo: $(INSTALLED)
	$(BIN)/python -m benchmarks.demo

app: $(INSTALLED)
	$(BIN)/pidlearn app

docs: $(INSTALLED)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[docs]'
	PYTHONPATH=. $(BIN)/python -m mkdocs build

assets: $(INSTALLED)
	$(BIN)/python -m benchmarks.app_assets

# Files are shared out in this order: first those that often wait, for trainings or a browser. So there are two processes
# more than cores.
test: check
	$(BIN)/python -m pytest -n $$(($$($(PYTHON) -c 'import os; print(os.cpu_count())') + 2)) --dist loadfile \
		--no-loadscope-reorder tests/app/test_train.py tests/app tests/viewer tests

# The fast core: what a change to the mathematics, the loop or a method breaks first.
QUICK := test_loss test_derivative test_distance test_sampling test_grid test_train test_trajectory \
	test_windows test_methods test_names test_first_release

quick: check
	$(BIN)/python -m pytest -n auto $(QUICK:%=tests/%.py)

slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) out build dist site
