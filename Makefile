# make setup | demo | lint | test | test-least | test-stock | ten-minutes | test-images | fuzz | test-matrix | chaos | drill-lag | soak-verify | bench | bench-quick | bench-road | bench-growth | bench-verify | docs | wheel | clean; each prints little unless something fails.
PYTHON ?= python3
BIN := .venv/bin
JAR := connectors/exact/target/cdc-exact.jar
JAVA_SOURCES := connectors/exact/pom.xml $(shell find connectors/exact/src -type f 2>/dev/null)
SHELL := /bin/bash
.DELETE_ON_ERROR:
POSTGRES_15 ?= /usr/lib/postgresql/15/bin
.PHONY: setup demo lint test test-least test-stock ten-minutes images test-images fuzz test-matrix chaos drill-lag soak-verify bench bench-quick bench-road bench-growth bench-verify docs wheel clean announced beside

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
	@$(BIN)/mypy cdc tests bench

# Files beside each other, in the order in which conftest.py puts them.
PARALLEL := -n 3 --dist loadfile --no-loadscope-reorder

test: setup beside
	@$(BIN)/python -m pytest $(PARALLEL) -m "not apart" $(PYTEST)

# The stock profile whole: each way to tear a transaction, each set of modes. A quarter of an hour.
test-stock: setup
	@$(BIN)/python -m pytest -n 0 tests/integration/test_stock.py $(PYTEST)

# Everything once more from the wheel, by roles that are no superusers and that the printed SQL alone has made; then
# once with replicas that may not set session_replication_role. An hour on a small machine.
LEAST := CDC_TEST_CDC=$(CURDIR)/.wheel/bin/cdc CDC_TEST_ROLES=least
test-least: .wheel/installed beside
	@$(LEAST) .wheel/bin/pytest $(PARALLEL) -m "not apart" tests/acceptance tests/integration $(PYTEST)
	@$(LEAST) CDC_TEST_TRIGGERS=disabled .wheel/bin/pytest $(PARALLEL) -m "not apart" \
	   tests/acceptance tests/integration $(PYTEST)

# An environment that has the wheel and no checkout.
.wheel/installed: wheel
	@test -x .wheel/bin/python || $(PYTHON) -m venv .wheel
	@.wheel/bin/python -m pip install -q --disable-pip-version-check "$$(ls $(CURDIR)/dist/*.whl)[test]"
	@.wheel/bin/python -m pip install -q --disable-pip-version-check --force-reinstall --no-deps dist/*.whl
	@touch $@

# Programs of others that a few tests run, a PostgreSQL built with TLS, and a locale that does not sort by
# bytes: where they cannot be installed these tests say so and are skipped.
BESIDE := prometheus prometheus-alertmanager haproxy pgbouncer locales postgresql
beside:
	@{ command -v promtool && command -v prometheus-alertmanager && command -v haproxy && command -v pgbouncer \
	   && locale -a | grep -qx en_US.utf8 && ls /usr/lib/postgresql/*/bin/postgres; } >/dev/null && exit 0; \
	 test "$$(id -u)" = 0 && command -v apt-get >/dev/null || exit 0; \
	 echo "installing for tests: $(BESIDE)" >&2; \
	 { apt-get -q update && DEBIAN_FRONTEND=noninteractive \
	   apt-get -qy install --no-install-recommends $(BESIDE) \
	   && localedef -i en_US -f UTF-8 en_US.UTF-8; } >/dev/null || true

# What the unit tests try a thousand times, a hundred thousand times; minutes.
fuzz: setup
	@PYTHONPATH=.:tests $(BIN)/python tests/fuzz.py 100000
	@CDC_MODEL_EXAMPLES=5000 $(BIN)/python -m pytest -q tests/unit/test_model.py

# Servers started by their own programs, then what docs/install.md says, typed; two minutes.
ten-minutes: setup
	@PYTHONPATH=.:tests $(BIN)/python tests/ten_minutes.py

# Builds the images and runs docker/compose.yaml; needs a Docker daemon, and some minutes for the first build.
images: setup
	@docker compose -f docker/compose.yaml build
test-images: images
	@CDC_TEST_IMAGES=1 $(BIN)/python -m pytest -q -n0 tests/images $(PYTEST)

# The same on the other versions of PostgreSQL; hours on a small machine. Each fetches what it lacks.
test-matrix: setup
	@$(MAKE) -k test-on-15 test-on-17 test-on-18

test-on-15: export CDC_PG_BIN = $(POSTGRES_15)
test-on-17: export CDC_PG_VERSION = 17
test-on-18: export CDC_PG_VERSION = 18
test-on-15: $(POSTGRES_15)/initdb
test-on-%: setup
	@echo "PostgreSQL $*"
	@$(BIN)/python -m pytest $(PARALLEL) -m "not apart" tests/acceptance tests/integration $(PYTEST)

# Debian 12 and its kin; elsewhere POSTGRES_15 says where its programs are.
/usr/lib/postgresql/15/bin/initdb:
	@apt-get -q update >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get -qy install postgresql-15 >/dev/null

# A thousand rounds of SIGKILL and SIGSTOP take hours; every round is a line in chaos.jsonl.
chaos: export CDC_CHAOS_ROUNDS ?= 1000
chaos: export CDC_CHAOS_RATE ?= 230
chaos: export CDC_CHAOS_REPORT ?= chaos.jsonl
chaos: setup
	@$(BIN)/python -m pytest -q -s tests/chaos $(PYTEST)

# How true the lag is at full scale, and the alerts: an hour and a half; every figure is a line in drill-lag.jsonl.
# An hour of load in which nobody is told anything, three stalls against five minutes, a killed daemon; a stopped
# Connect, ten idle minutes, a transaction of a million rows.
drill-lag: export CDC_ALERT_TARGET ?= 300
drill-lag: export CDC_ALERT_HEALTHY ?= 3600
drill-lag: export CDC_ALERT_STALLS ?= 3
drill-lag: export CDC_ALERT_RATE ?= 75
drill-lag: export CDC_ALERT_BURST ?= 20000
drill-lag: export CDC_LAG_HOLD ?= 240
drill-lag: export CDC_LAG_IDLE ?= 600
drill-lag: export CDC_LAG_ROWS ?= 1000000
drill-lag: export CDC_LAG_REPORT ?= $(CURDIR)/drill-lag.jsonl
drill-lag: setup beside
	@$(BIN)/python -m pytest -q -s -n0 tests/acceptance/test_alerts.py -k 'stall or daemon and kill or counted'
	@$(BIN)/python -m pytest -q -s -n0 tests/acceptance/test_lag.py -k 'stop and connect or idle or large'

# cdc-verify for an hour: sound replicas, faults, kills; every event is a line in soak.jsonl.
soak-verify: export CDC_SOAK_RUNS ?= 100
soak-verify: export CDC_SOAK_FAULTS ?= 300
soak-verify: export CDC_SOAK_KILLS ?= 20
soak-verify: export CDC_SOAK_RATE ?= 230
soak-verify: export CDC_SOAK_STALL ?= 10
soak-verify: export CDC_SOAK_REPORT ?= soak.jsonl
soak-verify: setup
	@$(BIN)/python -m pytest -q -s tests/soak $(PYTEST)

# Applying a backlog against PostgreSQL's apply worker and Debezium's JDBC sink, on a machine that does nothing
# else: an hour; quick, four minutes, is smaller and leaves out transactions of one row and the sink's best settings.
bench: setup
	@PYTHONPATH=.:tests $(BIN)/python bench/apply.py $(BENCH)

bench-quick: setup
	@PYTHONPATH=.:tests $(BIN)/python bench/apply.py --large 40000 --single 0 --runs 3 --sinks sink_500 $(BENCH)

# Capture, filling, from commit to Kafka and to the replica, also beside PostgreSQL's subscription and the JDBC sink, and a
# daemon at rest: twenty minutes on a machine that does nothing else. Only some of it: BENCH='--parts capture-latency peers'.
bench-road: setup
	@PYTHONPATH=.:tests $(BIN)/python bench/latency.py $(BENCH)

# How cost grows: with a backlog, replicas, tables; filling beside Debezium's own snapshot. Twenty minutes on a machine
# that does nothing else, and 15 GB of disk.
bench-growth: setup
	@PYTHONPATH=.:tests $(BIN)/python bench/growth.py $(BENCH)

# Half an hour on a machine that does nothing else, and as root: between runs the caches are dropped.
bench-verify: setup
	@PYTHONPATH=.:tests $(BIN)/python bench/verify.py $(BENCH)

wheel: setup
	@rm -rf dist && $(BIN)/python -m build --wheel --no-isolation >/dev/null && ls dist/*.whl

clean:
	@rm -rf .venv .wheel build dist connectors/exact/target *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find cdc tests -name __pycache__ -type d -prune -exec rm -rf {} +
