# make setup | demo | lint | test | docs | wheel | clean; each prints little unless something fails.
PYTHON ?= python3
BIN := .venv/bin
JAR := connectors/exact/target/cdc-exact.jar
JAVA_SOURCES := connectors/exact/pom.xml $(shell find connectors/exact/src -type f 2>/dev/null)
SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: setup demo lint test docs wheel clean announced

setup: .venv/installed $(JAR)
	@$(BIN)/python -m cdc.local.artifacts

# Says what will be fetched before it is; sees to a JDK and Maven.
announced:
	@$(PYTHON) -m cdc.local.prepare

.venv/installed: pyproject.toml | announced $(JAR)
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[test]'
	@touch $@

# The capture plugin, with its own tests. Maven's output is shown only when it fails.
$(JAR): $(JAVA_SOURCES) | announced
	@out=$$(mktemp) && trap 'rm -f $$out' EXIT && \
	 { mvn -B -f connectors/exact/pom.xml package >$$out 2>&1 || { cat $$out >&2; exit 1; }; }
	@touch $@

demo: setup
	@$(BIN)/python -m cdc local demo

docs: setup
	@$(BIN)/python docs/generate.py

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy cdc tests

test: setup
	@$(BIN)/python -m pytest -n 3 --dist loadfile $(PYTEST)

wheel: setup
	@rm -rf dist && $(BIN)/python -m build --wheel --no-isolation >/dev/null && ls dist/*.whl

clean:
	@rm -rf .venv build dist connectors/exact/target *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find cdc tests -name __pycache__ -type d -prune -exec rm -rf {} +
