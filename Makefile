# Verbs only; each says in one line what it runs. Everything but `lock` and `clean` prepares the machine by itself.
.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench lab soak soak-storm soak-tests soak-table soak-idle soak-simulation mutants lock clean

PYTHON := .venv/bin/python
# Labs make namespaces and bridges, so whatever starts one runs as root.
AS_ROOT := $(shell test "$$(id -u)" = 0 || echo sudo -E)
# Where the figures go; TESTS narrows `make test`, e.g. TESTS="tests/core -k quorum".
JSON ?= bench.json
TESTS ?=
# All tests run in two lanes, the lab's beside all others: most of their time is waiting. A part runs in one.
LANES := $(if $(TESTS),,-n 2)
# A storm: how long, which seed (by chance if none), how many one after the other, whether over three Redis with a
# Sentinel each (1) or one, where its results add up.
SECONDS ?= 600
SEED ?=
RUNS ?= 1
SENTINEL ?=
RECORDS ?= build/soak.jsonl
# Simulated stories: how many; SEED is the first.
SEEDS ?= 10000

help:  ## list the verbs
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

setup:  ## install Debian packages, create .venv from requirements.lock
	@scripts/setup

demo: setup  ## a real host dies, its VMs come back; KEEP=1 leaves the lab up
	$(AS_ROOT) $(PYTHON) -m fangnetz.lab.demo

test: setup  ## all tests, one lab included
	$(AS_ROOT) .venv/bin/pytest $(LANES) $(TESTS)

check: setup  ## style, types and floors
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy --strict fangnetz tasks beat workers
	.venv/bin/lint-imports

bench: setup  ## recovery times over pulled plugs, as JSON
	$(AS_ROOT) $(PYTHON) -m fangnetz.lab.bench --json $(JSON)

lab: setup  ## bring up a lab to play with; `fangnetz lab down` removes it
	$(AS_ROOT) .venv/bin/fangnetz lab up

soak: soak-storm soak-tests soak-table soak-idle soak-simulation mutants  ## every endurance run, the storm with one Redis and with Sentinels
	$(if $(SENTINEL),,$(MAKE) soak-storm SENTINEL=1)

soak-storm: setup  ## random faults from a seed: SECONDS=600 SEED=7 RUNS=1 SENTINEL=1; results add up in build/soak.jsonl
	$(AS_ROOT) $(PYTHON) -m fangnetz.lab.storm --seconds $(SECONDS) --runs $(RUNS) $(if $(SEED),--seed $(SEED)) \
	  $(if $(SENTINEL),--sentinel) --json $(RECORDS)

soak-tests: setup  ## the tests too long for `make test`
	$(AS_ROOT) .venv/bin/pytest -m soak $(TESTS)

soak-table: setup  ## every step of a failover and of a live migration struck, one by one; prints both tables
	$(AS_ROOT) $(PYTHON) -m fangnetz.lab.table

soak-idle: setup  ## all cores saturated for minutes: nobody may be called lost
	$(AS_ROOT) $(PYTHON) -m fangnetz.lab.soak_idle

soak-simulation: setup  ## stories by chance on a virtual clock: SEEDS=10000 SEED=0
	.venv/bin/fangnetz simulate --random --seeds $(SEEDS) --seed $(or $(SEED),0)

mutants: setup  ## sabotage core, engine and the store's scripts one by one; the simulator must notice each
	.venv/bin/python -m tests.mutants.run $(if $(ONLY),--only "$(ONLY)") $(if $(JOBS),--jobs $(JOBS))

lock:  ## resolve pyproject.toml anew into requirements.lock
	@scripts/lock

clean:  ## remove what make made
	rm -rf .venv dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis bench.json
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
