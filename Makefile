# The README's commands. `make demo` and `make test` set up .venv by themselves.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# An installation that fails is not hidden by what counts its lines.
SHELL := bash
.SHELLFLAGS := -o pipefail -c
READY := $(VENV)/.installed

.PHONY: demo docs test test-slow test-slurm bench lint format clean
.DELETE_ON_ERROR:

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo "Install eai and what it needs into $(VENV): over 200 packages, 1 GB; two to three minutes, once"
	@$(BIN)/python -m pip install --constraint constraints.txt --editable ".[dev]" | awk ' \
	  /^Collecting/ && ++n % 50 == 0 { print "  found " n " packages"; fflush() } \
	  /^Installing collected/ { print "  install them"; fflush() }'
	@touch $@

demo: $(READY)
	@dir=outputs/demo_$$(date +%Y-%m-%d_%H-%M-%S); \
	echo "Train the default of three tasks, one after the other; a few minutes on one core"; \
	$(BIN)/eai-train --multirun task=dynamics,recovery,assimilation hydra.sweep.dir=$$dir 'hydra.sweep.subdir=$${task}' && \
	echo && echo "Read $$dir/report.html, or watch:  $(BIN)/tensorboard --logdir outputs"

test: $(READY)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not slow and not slurm" --durations=25

test-slow: $(READY)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m slow --durations=15

# Starts a SLURM of two nodes on this host (root; packages slurm-wlm and munge), and stops it again.
test-slurm: $(READY)
	tests/slurm/cluster start
	$(BIN)/python -m pytest -q -m slurm; code=$$?; tests/slurm/cluster stop; exit $$code

# Pages, the reference from the code, and the notebooks, which are run if they changed; every warning is an error.
docs: $(READY)
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --quiet docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: $(READY)
	$(BIN)/python -m benchmarks

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
