# Needs python3 (3.11 or newer) and make; everything else goes into .venv.
# Another interpreter: make env PYTHON=python3.12. pip's own settings (PIP_*) are honoured.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
LOG := $(VENV)/install.log
INSTALLED := $(VENV)/.installed
# Processes that share the tests: `make test AT_ONCE=4`.
AT_ONCE ?= 2

.DEFAULT_GOAL := help
.PHONY: help env run test quick durations prove faults lint bench verify crossing limits agents clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(INSTALLED)  ## make .venv with dlsys and all that it needs; once, and again when the pins change

run: env  ## train the quickstart: real digits, two workers, about a minute
	@$(BIN)/dlsys run quickstart

test: lint  ## linters, types and the tests: what CI runs (no GPU, no `make faults`, no `make prove`)
	@$(BIN)/pytest -n $(AT_ONCE) -m "not gpu and not faults and not quality and not alone"
	@$(BIN)/pytest -m "not gpu and not faults and not quality and alone"

quick: env  ## the quickest of the tests that start no Ray, of every room: an answer within a minute
	@$(BIN)/pytest -n $(AT_ONCE) --within 50 -m "not ray and not faults and not slow and not quality and not gpu and not alone"

durations: env  ## the tests of `make test`, and where their time goes: tests/durations.md
	@mkdir -p build
	@$(BIN)/pytest -n $(AT_ONCE) -m "not gpu and not faults and not quality and not alone" --junitxml=build/tests.xml
	@$(BIN)/pytest -m "not gpu and not faults and not quality and alone" --junitxml=build/alone.xml
	@$(BIN)/python tests/durations.py build/tests.xml build/alone.xml > build/durations.md
	@mv build/durations.md tests/durations.md

# FAMILY=vision: the jobs in jobs/vision alone. SHARD=2/4: the second of four parts, for several machines.
prove: env  ## what takes long to be shown: that agents learn, searches find, and ready jobs hold: docs/proved
	$(if $(FAMILY)$(filter-out 1/%,$(SHARD)),,@$(BIN)/pytest -m quality)
	@$(BIN)/python tests/prove.py $(if $(FAMILY),--family $(FAMILY)) $(if $(SHARD),--shard $(SHARD))

faults: env  ## only the tests that kill processes, fill disks and cut networks
	@$(BIN)/pytest -m faults

lint: env  ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: env  ## compare with the peers, side by side: ratios, and benchmarks/results/*.json
	@for file in startup tracking checkpoint tables decode launch outage ps ring pipeline sweep submit agents; do \
		$(BIN)/python benchmarks/$$file.py || exit 1; \
	done

# Each job file says how it is verified. What it leaves out would differ for a reason of its own: batch
# norm, masks of dropout, and ResNet's gradients of 64 rows at once, which round otherwise than those of 32
# and 32 and at step 29 turn a ReLU. It is rounding alone: with precision=fp64, and without accumulate, all
# agree to 2e-15.
verify: env  ## hold every strategy against one worker, for all ready workloads: docs/verified.md
	@{ printf '%s\n' '# Verified' '' 'What `make verify` said last, on 2 CPU cores.'; \
	grep -rhoP '^# make verify: dlsys verify \K.*' jobs | sort | { failed=0; while read -r job; do \
		printf '\n%s\n\n' "## \`dlsys verify $$job\`"; \
		$(BIN)/dlsys verify $$job --workers 2,4 --markdown < /dev/null || failed=1; \
	done; exit $$failed; }; } > docs/verified.md

crossing: env  ## continue every strategy's checkpoint under every other: docs/crossing.md
	@{ printf '%s\n' '# Crossing checkpoints' '' 'What `make crossing` said last: 6 steps under the row'"'"'s strategy with 2 workers, 6 more under' \
	'the column'"'"'s with 2 / 4; the largest relative difference of a loss from the uninterrupted run of one' \
	'worker. `single` has 1 worker; `tensor × fsdp`, which is `tensor` with `data: shard`, has 2 × 2. A pair' \
	'trains a workload that both allow: LeNet-5, or with `moe` a mixture of experts.' ''; \
	PYTHONPATH=tests $(BIN)/python tests/equivalence/crossing.py; } > docs/crossing.md

limits: env  ## what models and columns may be made of: docs/limits.md
	@mkdir -p build
	@DS_ACCELERATOR=cpu PYTHONPATH=tests:tests/equivalence $(BIN)/python tests/equivalence/limits.py > build/limits.md
	@$(BIN)/python tests/data/column_limits.py >> build/limits.md
	@mv build/limits.md docs/limits.md

agents: env  ## train every ready agent with three seeds: docs/agents.md
	@$(BIN)/python benchmarks/agent_returns.py > docs/agents.md

clean:  ## remove .venv, build products and caches; runs in .dlsys stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# $(call quietly,what it is,command): pip's chatter is kept, and shown when something fails.
define quietly
@echo "$(1)"
@$(2) >> $(LOG) 2>&1 || { tail -n 40 $(LOG); echo "failed: $(1); all of it is in $(LOG)"; exit 1; }
endef

$(INSTALLED): pyproject.toml constraints.txt
	@command -v $(PYTHON) > /dev/null || { echo "$(PYTHON) not found: install Python 3.11 or newer"; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and \
		f"dlsys needs Python 3.11 or newer, $(PYTHON) is {v[0]}.{v[1]}: make env PYTHON=python3.12")'
	@mkdir -p $(VENV) && : > $(LOG)
	$(call quietly,making $(VENV),$(PYTHON) -m venv $(VENV))
	$(call quietly,installing torch,$(BIN)/pip install -c constraints.txt torch)
	$(call quietly,installing dlsys and the rest (one or two minutes),\
		$(BIN)/pip install -c constraints.txt -e '.[dev]')
	@touch $@
	@echo "ready: $(BIN)/dlsys --help"
