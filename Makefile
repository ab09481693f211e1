# Two commands do everything on a fresh Debian 12 (Python 3.11, git, make): `make devnet` and `make test`.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check
LOCKED = --require-hashes --no-deps --no-build-isolation --quiet
ARGS ?=
# Tests run in so many processes: one a core, at most four, as many of them wait rather than compute.
PARALLEL ?= -n auto --maxprocesses 4 --dist worksteal
SEEDS ?= 2000
START ?= 0

.PHONY: help devnet test long check lint types imports codes contracts contracts-check contracts-test contracts-coverage contracts-mutants contracts-fuzz mutants sim chaos faults page-test attacks cheating interop protocol gas man man-check settings fuzz secrets secrets-reviewed audit deb deb-reproducible deb-test package-lint sbom release catalogue alerts-check alerts-test unit-check package-test bench lock clean

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

devnet: $(VENV)/.run ## Set up, then run a pool of agents that settles epochs on the embedded TON chain (ARGS="--agents 7")
	$(VENV)/bin/gpupool devnet $(ARGS)

test: $(VENV)/.dev ## Set up, then run the tests (ARGS="-k tally"; PARALLEL= for one after the other)
	$(VENV)/bin/python -m pytest $(PARALLEL) $(ARGS)

long: $(VENV)/.dev ## Set up, then what takes long: random operations, large pools, 100,000 quotes, 1,000 simulated pools, attacks (ten minutes)
	$(VENV)/bin/python -m pytest $(PARALLEL) -m long $(ARGS)

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

faults: $(VENV)/.dev ## Thirty faults in real agents, one at a time: does the doctor name the cause first, does an alert fire? (root; ten minutes)
	$(VENV)/bin/python -m tests.faults $(ARGS)

page-test: $(VENV)/.tools ## The status page in headless Chromium, and of a devnet (three minutes; installs chromium by apt where it is not)
	@packaging/need-debian chromium chromium-driver
	$(VENV)/bin/python -m pytest -m "" tests/page $(ARGS)

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

man: $(VENV)/.run ## Write the manual page, build/gpupool.1, from the command line's own parser
	$(VENV)/bin/python -m tests.agent.tools.manual_page

man-check: man ## Does the manual page render without a warning? (installs mandoc and man-db by apt where they are not)
	@packaging/need-debian mandoc man-db
	mandoc -T lint -W warning build/gpupool.1
	test -z "$$(LC_ALL=C.UTF-8 MANWIDTH=80 man --warnings --local-file build/gpupool.1 2>&1 >/dev/null)"

settings: $(VENV)/.dev ## Write docs/configuration.md anew from the settings' own tables
	$(VENV)/bin/python -m tests.agent.tools.settings_page

fuzz: $(VENV)/.fuzz ## Coverage-guided fuzzing of all that attestation and gossip's wire parse (installs atheris; ARGS="--seconds 60")
	PYTHONPATH=tests/support $(VENV)/bin/python -m tests.attestation.tools.fuzz $(ARGS)

SCANNED = git ls-files -z | grep -zvE '\.lock$$|package-lock|/vendor/|/artifacts/|mutants\.json$$|\.secrets'
secrets: $(VENV)/.tools ## Is there a secret in the tree that nobody reviewed? (reviewed ones: .secrets.baseline)
	$(SCANNED) | xargs -0 $(VENV)/bin/detect-secrets-hook --baseline .secrets.baseline

secrets-reviewed: $(VENV)/.tools ## Note that whatever `make secrets` finds was looked at, and is none
	$(SCANNED) | xargs -0 $(VENV)/bin/detect-secrets scan >.secrets.baseline

audit: $(VENV)/.tools ## Known defects of the locked dependencies, from a public database (needs the internet)
	$(VENV)/bin/pip-audit --service osv --strict --disable-pip --require-hashes -r requirements/run.lock

deb: $(VENV)/.base ## Build build/gpupool-agent_VERSION_amd64.deb on Debian 12 (installs dpkg-dev, debhelper by apt where they are not)
	PYTHON=$(VENV)/bin/python packaging/build-deb $(ARGS)

deb-reproducible: deb ## Build the package once more, elsewhere and otherwise: equal to the byte?
	PYTHON=$(VENV)/bin/python packaging/build-again

deb-test: deb ## Install, upgrade, downgrade, remove and purge the package in a bare Debian tree (root; installs mmdebstrap)
	@packaging/need-debian mmdebstrap
	PYTHON=$(VENV)/bin/python packaging/build-deb --version 999.0 --out build/next
	$(VENV)/bin/python -m tests.packaging.deb_life build/gpupool-agent_$$(packaging/version)_amd64.deb build/next/gpupool-agent_999.0_amd64.deb

unit-check: ## Does systemd find the units sound, and their sandbox tight (exposure below 2.0)? (systemd 252 or later)
	systemd/check

package-test: $(VENV)/.dev ## The package on two bare Debian 12 hosts under systemd: join, earn, claim, upgrade, restore, purge (root; 15 minutes)
	@packaging/need-debian mmdebstrap systemd-container iproute2
	PYTHON=$(VENV)/bin/python packaging/build-deb --version 1 --out build/package-test
	PYTHON=$(VENV)/bin/python packaging/build-deb --version 2 --out build/package-test
	$(VENV)/bin/python -m tests.packaging.package_test --old build/package-test/gpupool-agent_1_amd64.deb \
		--new build/package-test/gpupool-agent_2_amd64.deb $(ARGS)

package-lint: deb ## lintian over the package, shellcheck over all scripts (installs both by apt where they are not)
	packaging/lint

sbom: $(VENV)/.tools deb ## The package's SBOM: build/gpupool-agent.cdx.json
	PYTHON=$(VENV)/bin/python packaging/build-sbom >build/gpupool-agent.cdx.json

release: $(VENV)/.tools ## Of the last commit: tarball, package, SBOM and SHA256SUMS in build/release
	PYTHON=$(VENV)/bin/python packaging/build-release

catalogue: $(VENV)/.dev ## Write docs/metrics.md, docs/alerts.md and the Grafana dashboard anew from metrics and alert rules
	$(VENV)/bin/python -m tests.prometheus.tools.dashboard
	$(VENV)/bin/python -m tests.prometheus.tools.pages

alerts-check: $(VENV)/.dev ## Alert rules: promtool's checks, and a unit test of each (installs prometheus by apt where it is not)
	@packaging/need-debian prometheus
	promtool check rules --lint=all --lint-fatal packaging/prometheus/*.rules.yml
	promtool check config packaging/prometheus/prometheus.example.yml
	$(VENV)/bin/python -m pytest -q tests/prometheus $(ARGS)

alerts-test: $(VENV)/.dev ## A real Prometheus watches a dev network that is broken on purpose (installs prometheus by apt where it is not)
	@packaging/need-debian prometheus
	$(VENV)/bin/python -m pytest -m long tests/prometheus $(ARGS)

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
