# Every target runs `setup` first if needed; only make, python3 (>= 3.11, with venv) and a package index are assumed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
UV     := $(BIN)/uv
ARGS   ?=
# Every extra but p2p, which holds other packages back and needs a compiler.
EXTRAS := $(filter-out p2p,$(shell sed -n '/^\[project.optional/,/^\[project.scripts/s/^\([a-z0-9-]*\) = .*/\1/p' pyproject.toml))
# Hundreds of processes run the same modules: they are compiled once, wherever Python was told to write no bytecode.
unexport PYTHONDONTWRITEBYTECODE
export PYTHONPYCACHEPREFIX := $(CURDIR)/build/bytecode
PURE   := tests/architecture tests/unit tests/interop tests/sim
# What waits and looks at no clock: two at a time, each with an origin of its own; then those that share a demo.
BESIDE := $(patsubst %,tests/%.py,lab/test_full_disk lab/test_portmap lab/test_sky lab/test_stick \
  system/test_offgrid system/test_page system/test_relay_page system/test_television system/test_tracks)
WIRE   := tests/wire $(BESIDE)
SERVED := $(patsubst %,tests/system/test_%.py,browser http http3 metrics players)
# What measures: one by one and alone.
REAL   := tests/lab tests/system tests/browser $(addprefix --ignore=,$(BESIDE) $(SERVED))
STATIC := lint types pyright floors packages

.PHONY: help setup page lock demo test measuring waiting served real again check $(STATIC) bench soak vectors clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

setup: $(READY) ## create .venv and install the locked packages

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r .ci/uv.lock
	$(UV) pip sync --quiet --require-hashes requirements.lock .ci/uv.lock
	$(UV) pip install --quiet --no-deps --no-build-isolation --editable .
	$(MAKE) page
	@touch $(READY)

page: ## the page's front-end packages, where npm is there (the page works without)
	@if command -v npm >/dev/null; then \
	  npm ci --prefix node/page --omit=dev --ignore-scripts --no-audit --no-fund --silent \
	  && mkdir -p node/page/vendor \
	  && cp node/page/node_modules/hls.js/dist/hls.min.js node/page/vendor/hls.min.js \
	  && cp node/page/node_modules/hls.js/LICENSE node/page/vendor/hls.js.LICENSE \
	  && node node/page/minify.mjs; \
	else echo "npm is not here: the page uses the browser's own HLS, and the web player's scripts are sent as written"; fi

lock: ## pin every dependency again
	test -x $(UV) || $(MAKE) setup
	$(UV) pip compile --quiet --universal --generate-hashes --python-version 3.11 $(EXTRAS:%=--extra %) --group dev \
	  --no-emit-index-url --no-annotate --no-header $(ARGS) pyproject.toml --output-file requirements.lock

demo: $(READY) ## the whole system on this machine: one film, four tiers, pulses, settlement
	$(BIN)/farcast demo $(ARGS)

test: $(READY) ## the tests: those that wait two at a time, those that measure one by one
	$(BIN)/pytest -n auto --dist loadfile $(PURE) $(ARGS)
	$(MAKE) --keep-going waiting served measuring

measuring:
	$(MAKE) real NAME=$@ WHERE="$(REAL)"

waiting:
	$(MAKE) real NAME=$@ WHERE="-n 2 --dist loadfile --no-loadscope-reorder $(WIRE)"

served:
	$(MAKE) real NAME=$@ WHERE="$(SERVED)"

real: # each with a cache of its own, so that a second try knows what failed at its first
	$(BIN)/pytest -p no:randomly --durations 25 -o cache_dir=.pytest_cache/$(NAME) $(WHERE) $(ARGS) || $(MAKE) again CODE=$$?

again: # with AGAIN=1, as in CI on a shared machine, what failed with real processes has a second try, and is named
	@test -n "$(AGAIN)" || exit $(CODE)
	@echo "a second try, because the first ended with $(CODE):"
	$(BIN)/pytest -p no:randomly -o cache_dir=.pytest_cache/$(NAME) $(if $(filter 1,$(CODE)),--last-failed) $(filter tests/%,$(WHERE)) $(ARGS)

check: $(READY) ## everything a change must pass: lint, types, architecture, dependencies, tests
	$(MAKE) --jobs 2 --output-sync $(STATIC)
	$(MAKE) test

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types:
	$(BIN)/mypy

pyright:
	$(BIN)/pyright

floors:
	$(BIN)/lint-imports

packages:
	$(BIN)/deptry .

bench: $(READY) ## ratios against real peers, into build/bench.json (ONLY=name,...)
	$(BIN)/python -m tests.bench --only "$(ONLY)"

soak: $(READY) ## minutes-long proofs (ONLY=name,...)
	$(BIN)/python -m tests.soak --only "$(ONLY)"

vectors: $(READY) ## make the golden vectors again (needs Kubo: .ci/peers.sh kubo)
	$(BIN)/python tests/vectors/make_cids.py
	$(BIN)/python tests/vectors/make_messages.py

clean: ## remove everything made here but the lock
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
