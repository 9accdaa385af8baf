# Needs make and Python 3.11 or later, nothing else. Everything is installed into .venv, by what pyproject.toml says.
#
#   make demo    a plugin under the local agent, end to end, from real processes
#   make test    all tests with coverage; the legs on a real broker need mosquitto
#                WORKERS=auto   processes that run them; tests/conftest.py says how many by default; 0 for none
#   make check   ruff, mypy, pyright
#   make chaos   kill -9 of a plugin, 1,000 times, in all phases of a message (docs/chaos.md); about 12 minutes;
#                SCENE=faults, engine, burst, flood, stuck or settings plays one of those in its place,
#                with its own defaults for KILLS, MESSAGES, ROUNDS and TRANSACTIONS
#                KILLS=1000     how often, over all brokers
#                SEED=          of the plan of kills; a random one, which is printed, by default
#                MESSAGES=110   that are published for each kill
#                JSON=          a file for the verdict
#   make bench   figures against other libraries, in processes of their own (docs/benchmarks.md); about 5 minutes
#                SCENES=        some of receive, handlers, publish, start, rest, log
#                ROUNDS=5       of each scene; MESSAGES=10000 of each process in one; REST=60 seconds at rest
#                JSON=build/benchmarks.json
#                CHECK=1        exit with an error where a bar is missed
#   make budget  steps of bytecode that each message takes, against their budgets (docs/benchmarks.md); 5 seconds
#                WRITE=1        make what is counted the budgets
#   make fleet   how many plugins come back when their agent restarts (docs/fleet.md); about 3 minutes
#                SIZES="50 100" ROUNDS=3 OUTAGE=3 STARTS=10 of the real thing; JSON= a file for what was measured
#   make bundle  the example as a program for endpoints, in dist/agent-root
#   make clean   removes what the above left behind, but for .venv

SHELL := /bin/sh
VENV := .venv
PIP := $(VENV)/bin/python -m pip --quiet --disable-pip-version-check --no-input
# Debian keeps mosquitto where only root's PATH leads.
WITH_SBIN := PATH="$$PATH:/usr/local/sbin:/usr/sbin"
NEED_MOSQUITTO = $(WITH_SBIN) command -v mosquitto >/dev/null || \
    { echo 'make $@: mosquitto is missing; install it, for example with: sudo apt-get install mosquitto' >&2; exit 2; }
WORKERS ?= auto
KILLS ?= 1000
MESSAGES ?= 110
SEED ?=
SCENE ?=
# What a scene is told is what was given to make, no default from here.
given = $(if $(findstring $(origin $(1)),command line environment),--$(2) '$($(1))')
OF_SCENE = $(call given,KILLS,kills) $(call given,MESSAGES,messages) $(call given,ROUNDS,rounds) \
    $(call given,TRANSACTIONS,transactions)
JSON ?=
SCENES ?=
CHECK ?=
# Two environments: ours is measured in one without extras, the others in one with what they need.
BENCH := .venv-bench
BENCH_PIP = -m pip --quiet --disable-pip-version-check --no-input install --editable

.PHONY: demo test check chaos bench budget fleet bundle clean
.DELETE_ON_ERROR:

demo: $(VENV)/.dev
	$(VENV)/bin/python packaging/demo.py

test: $(VENV)/.test
	@$(NEED_MOSQUITTO)
	$(VENV)/bin/coverage erase
	$(WITH_SBIN) $(VENV)/bin/coverage run -m pytest --numprocesses '$(WORKERS)'
	$(VENV)/bin/coverage combine --quiet
	$(VENV)/bin/coverage report --skip-covered

check: $(VENV)/.test
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/pyright

chaos: $(VENV)/.test
	@$(NEED_MOSQUITTO)
	$(WITH_SBIN) $(VENV)/bin/python -m tests.chaos \
	    $(if $(SCENE),$(SCENE) $(OF_SCENE),--kills $(KILLS) --messages $(MESSAGES)) \
	    --seed '$(SEED)' $(if $(JSON),--json '$(JSON)')

bench: $(VENV)/.test $(BENCH)/.ours $(BENCH)/.peers
	@$(NEED_MOSQUITTO)
	@mkdir -p build
	$(WITH_SBIN) $(VENV)/bin/python -m tests.benchmarks $(SCENES) \
	    --ours '$(CURDIR)/$(BENCH)/ours/bin/python' --peers '$(CURDIR)/$(BENCH)/peers/bin/python' \
	    $(call given,ROUNDS,rounds) $(call given,MESSAGES,messages) $(call given,REST,rest) \
	    --json '$(or $(JSON),build/benchmarks.json)' $(if $(CHECK),--check)

budget: $(VENV)/.test
	$(VENV)/bin/python -m tests.budget $(if $(WRITE),--write)

fleet: $(VENV)/.test
	@$(NEED_MOSQUITTO)
	$(WITH_SBIN) $(VENV)/bin/python -m tests.fleet $(if $(SIZES),--sizes $(SIZES)) \
	    $(call given,ROUNDS,rounds) $(call given,OUTAGE,outage) $(call given,STARTS,starts) \
	    $(if $(JSON),--json '$(JSON)')

bundle: $(VENV)/.package
	$(VENV)/bin/kepm-plugin package plugins/my_worker/my_worker.py -o dist/agent-root

clean:
	rm -rf build dist .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src tests plugins packaging -name __pycache__ -prune -exec rm -rf {} +

# One stamp per extra, newer than pyproject.toml; `test` holds the others.
$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --editable '.[dev]'
	@touch $@

$(VENV)/.package: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --editable '.[package]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --editable '.[test]'
	@touch $@ $(VENV)/.dev $(VENV)/.package

$(BENCH)/.ours: pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python -m venv --clear $(BENCH)/ours
	$(BENCH)/ours/bin/python $(BENCH_PIP) .
	@touch $@

$(BENCH)/.peers: pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python -m venv --clear $(BENCH)/peers
	$(BENCH)/peers/bin/python $(BENCH_PIP) '.[bench]'
	@touch $@

# PYTHON=… names an interpreter; without it, the first one that is new enough.
$(VENV)/bin/python:
	@for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 python; do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        "$$python" -m venv --clear $(VENV) && exit 0; \
	        echo "make: $$python cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; \
	    fi; \
	done; \
	echo 'make: Python 3.11 or later was not found; install it, or say where it is: make PYTHON=/path/to/python3' >&2; exit 2
