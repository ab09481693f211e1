# Two commands do everything on a fresh Debian 12 (Python 3.11, git, make): `make devnet` and `make test`.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check
LOCKED = --require-hashes --no-deps --no-build-isolation --quiet
ARGS ?=
SEEDS ?= 2000
START ?= 0

.PHONY: help devnet test long check lint types imports codes contracts contracts-check contracts-test contracts-coverage contracts-mutants contracts-fuzz mutants sim chaos attacks cheating interop protocol gas fuzz bench lock clean

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

devnet: $(VENV)/.run ## Set up, then run a pool of agents that settles epochs on the embedded TON chain (ARGS="--agents 7")
	$(VENV)/bin/gpupool devnet $(ARGS)

test: $(VENV)/.dev ## Set up, then run the tests (ARGS="-k tally")
	$(VENV)/bin/python -m pytest $(ARGS)

long: $(VENV)/.dev ## Set up, then what takes long: random operations, large pools, 100,000 quotes, 1,000 simulated pools, attacks (ten minutes)
	$(VENV)/bin/python -m pytest -m long $(ARGS)

check: lint types imports ## Lint, types and import rules

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/.dev
	$(VENV)/bin/mypy

imports: $(VENV)/.dev
	$(VENV)/bin/lint-imports

codes: $(VENV)/.dev ## Write the contracts' numbers (contracts/codes.toml) into Tolk, schema, Python and docs
	$(VENV)/bin/python -m contracts.codes

contracts: ## Compile the Tolk contracts anew (needs Node; installs the pinned compiler)
	@command -v npm >/dev/null || { echo "Node and npm are needed: apt install nodejs npm"; exit 1; }
	cd contracts && npm ci --silent --no-audit --no-fund && node build.mjs

contracts-check: ## Compile the contracts and compare with the committed artifacts (needs Node)
	@command -v npm >/dev/null || { echo "Node and npm are needed: apt install nodejs npm"; exit 1; }
	cd contracts && npm ci --silent --no-audit --no-fund && node build.mjs --check

contracts-test: $(VENV)/.dev ## Replay a pool's life in a second TVM and a second cell library, with equal results (needs Node)
	@command -v npm >/dev/null || { echo "Node and npm are needed: apt install nodejs npm"; exit 1; }
	cd contracts/sandbox && npm ci --silent --no-audit --no-fund
	set -o pipefail; $(VENV)/bin/python -m tests.contracts.replay | node contracts/sandbox/replay.mjs /dev/stdin

contracts-coverage: $(VENV)/.dev ## Which instructions of the contracts the tests execute (needs Node; five minutes)
	@command -v npm >/dev/null || { echo "Node and npm are needed: apt install nodejs npm"; exit 1; }
	cd contracts/sandbox && npm ci --silent --no-audit --no-fund
	@mkdir -p build
	$(VENV)/bin/python -m pytest -q -m "not slow" tests/contracts -p tests.contracts.tools.tracing --vm-trace build/trace.json
	node contracts/sandbox/coverage.mjs build/trace.json

contracts-mutants: $(VENV)/.dev ## Does a test notice each missing assert? (needs Node; 12 minutes; ARGS="--file stake.tolk")
	@command -v npm >/dev/null || { echo "Node and npm are needed: apt install nodejs npm"; exit 1; }
	cd contracts && npm ci --silent --no-audit --no-fund
	$(VENV)/bin/python -m tests.contracts.tools.mutate $(ARGS)

gas: $(VENV)/.dev ## Measure contracts/gas.json anew
	$(VENV)/bin/python -m tests.contracts.gas_table

contracts-fuzz: $(VENV)/.dev ## Random operations on a pool, all sums checked after each (ARGS="--seed 7 --seeds 20 --steps 5000")
	$(VENV)/bin/python -m tests.contracts.fuzz $(ARGS)

mutants: $(VENV)/.dev ## Does a test notice each missing rule of attestation? (six minutes; ARGS="--file verify.py")
	$(VENV)/bin/python -m tests.attestation.tools.mutate $(ARGS)

sim: $(VENV)/.dev ## Whole pools in virtual time under every fault, all invariants after each step (SEEDS=2000 START=0)
	$(VENV)/bin/python -m tests.sim.run --seeds $(SEEDS) --start $(START) $(ARGS)

chaos: $(VENV)/.dev ## Real agents in network namespaces: partitions, latency, kill -9, full disks (needs root; ARGS="--quick")
	$(VENV)/bin/python -m tests.chaos $(ARGS)

attacks: $(VENV)/.dev ## Attack one node with all that a hostile peer can send, and watch whether it serves the honest (two minutes)
	$(VENV)/bin/python -m tests.attacks $(ARGS)

cheating: $(VENV)/.dev ## What each way to cheat gains under each policy; writes the tables of docs/cheating.md
	$(VENV)/bin/python -m tests.cheating --write
	$(VENV)/bin/python -m tests.cheating

interop: $(VENV)/.dev ## Be one pool with a js-libp2p peer: both settle an epoch together (needs Node 20)
	@command -v npm >/dev/null || { echo "Node 20 and npm are needed"; exit 1; }
	cd tests/interop && npm ci --silent --no-audit --no-fund
	$(VENV)/bin/python -m tests.interop

protocol: $(VENV)/.dev ## Write the generated parts of docs/protocol.md, docs/wire.md and docs/attestation.md anew
	PYTHONPATH=tests/support $(VENV)/bin/python -m tests.gossip.tools.protocol_page
	PYTHONPATH=tests/support $(VENV)/bin/python -m tests.gossip.tools.wire_page
	$(VENV)/bin/python -m tests.attestation.tools.error_table

fuzz: $(VENV)/.fuzz ## Coverage-guided fuzzing of all that attestation parses (installs atheris; ARGS="--seconds 60")
	$(VENV)/bin/python -m tests.attestation.tools.fuzz $(ARGS)

bench: $(VENV)/.dev ## Run the benchmarks; each prints one JSON line
	$(VENV)/bin/python -m benchmarks $(ARGS)

lock: $(VENV)/.dev ## Write the lock files anew from pyproject.toml and requirements/*.in
	$(PIP) install --quiet uv
	cd requirements && for set in build run dev fuzz tools; do ../$(VENV)/bin/uv pip compile --quiet --python-version 3.11 \
		--generate-hashes --no-header --override overrides.txt $$(cat $$set.sources) -o $$set.lock; done

clean: ## Remove what the set-up made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/.base: requirements/build.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "python3 has no venv module: apt install python3-venv"; exit 1; }
	@echo "Setting up $(VENV) (about half a minute, once)"
	@$(PIP) install --require-hashes --no-deps --quiet -r requirements/build.lock
	@touch $@

$(VENV)/.run: $(VENV)/.base requirements/run.lock pyproject.toml
	@$(PIP) install $(LOCKED) -r requirements/run.lock
	@$(PIP) install --no-deps --no-build-isolation --quiet -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements/dev.lock
	@$(PIP) install $(LOCKED) -r requirements/dev.lock
	@touch $@

$(VENV)/.tools: $(VENV)/.dev requirements/tools.lock
	@$(PIP) install $(LOCKED) -r requirements/tools.lock
	@touch $@

$(VENV)/.fuzz: $(VENV)/.dev requirements/fuzz.lock
	@$(PIP) install $(LOCKED) -r requirements/fuzz.lock
	@touch $@
