# Two commands do it all: `make demo` shows what callvault does, `make test` proves it. `make chaos` breaks it for a while,
# `make bench` says what it costs beside rclone and the usual script.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# How long `make chaos` lets things go wrong, and by which dice; without a seed it takes one and tells it.
MINUTES ?= 10
SEED ?=

# How many rounds `make bench` goes; QUICK=1 only shows that it works.
ROUNDS ?= 5
QUICK ?=

.PHONY: demo test chaos bench lint types imports cover lock clean

demo: $(READY)
	$(BIN)/callvault demo

test: lint cover

chaos: $(READY)
	$(BIN)/python -m tests.chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

bench: $(READY)
	$(BIN)/python -m tests.bench --rounds $(ROUNDS) $(if $(QUICK),--quick)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

cover: $(READY)
	$(BIN)/pytest -n 2 --dist worksteal --cov --cov-report=term

$(READY): deploy/requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("callvault needs Python 3.11 or newer, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r deploy/requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(READY)

# After a change of the dependencies in pyproject.toml.
lock:
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/pip install --quiet pip-tools
	$(VENV)-lock/bin/pip-compile --quiet --extra dev --generate-hashes --allow-unsafe --strip-extras \
		--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-header \
		--output-file deploy/requirements.lock pyproject.toml
	$(VENV)-lock/bin/pip-compile --quiet --build-deps-for wheel --constraint deploy/requirements.lock \
		--generate-hashes --allow-unsafe --strip-extras \
		--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-header \
		--output-file deploy/requirements-runtime.lock pyproject.toml
	rm -rf $(VENV)-lock

clean:
	rm -rf $(VENV) build *.egg-info .callvault demo-archive .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis
