# `make demo` on a fresh Debian machine installs what is missing, then builds, runs and reports the quickstart.
# Variables: PYTHON (for a new .venv), RECIPE and DEVICES (for demo), ARGS (for pytest), PART (of test-slow), WORKERS (processes of test), ABI (for harness), FUZZ_EXAMPLES (for fuzz).

MAKEFLAGS += --no-print-directory
# An import is compiled once, as setup compiles nothing: without its bytecode each of some hundred processes would compile it again.
unexport PYTHONDONTWRITEBYTECODE
BIN := .venv/bin
STAMP := .venv/.installed
DEMO_STAMP := .venv/.installed-for-demo
BUILT := .venv/.harness-built
RECIPE ?= recipes/quickstart.yaml
DEVICES ?= virtual:s25,virtual:tabs11
WORKERS ?= 4
SLOW := --durations-path tests/slow_durations.json

.DEFAULT_GOAL := help
.PHONY: help setup demo check test snapshots test-slow fuzz docs dist bench harness format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) $(BUILT) ## install packages, .venv and quadbench, build the harness; costs nothing when it is done
	@:

$(STAMP): pyproject.toml scripts/setup.sh
	@scripts/setup.sh
	@touch $(DEMO_STAMP) $@

$(DEMO_STAMP): pyproject.toml scripts/setup.sh
	@scripts/setup.sh demo
	@touch $@

$(BUILT): $(DEMO_STAMP) android_harness/CMakeLists.txt android_harness/CMakePresets.json $(wildcard android_harness/src/*)
	@[ "$$(uname)" != Linux ] || $(BIN)/quadbench harness build >/dev/null
	@touch $@

demo: $(BUILT) ## build the quickstart, run it on two virtual devices, write the report
	@$(BIN)/quadbench run $(RECIPE) --devices $(DEVICES)

check: $(STAMP) ## lint, formatting, types, direction of imports, links of the docs
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/mkdocs build --strict --quiet --site-dir build/site

test: setup ## the tests that need neither phone nor patience
	@$(BIN)/pytest -m "not slow and not device" -n $(WORKERS) --dist worksteal $(ARGS)

snapshots: setup ## renew the sentences in tests/__snapshots__ after a change of words; look at the diff
	@$(BIN)/pytest -m "not slow and not device" -n $(WORKERS) --dist loadfile --snapshot-update $(ARGS)

test-slow: setup ## the tests that take minutes; PART=3/24 runs the third of 24 parts that take about as long
	@$(BIN)/pytest -m "slow and not device" $(SLOW) $(if $(PART),--splits $(word 2,$(subst /, ,$(PART))) --group $(word 1,$(subst /, ,$(PART)))) $(ARGS)

fuzz: setup ## give the readers of what comes from outside anything at all, 5000 times each; half an hour
	@FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-5000} $(BIN)/pytest --timeout=3600 tests/test_fuzz.py $(ARGS)

docs: $(STAMP) ## the pages as a site with a search, in site/; broken links are errors
	@$(BIN)/mkdocs build --strict --quiet

dist: $(STAMP) ## build dist/*.whl and dist/*.tar.gz from the last commit; the same bytes each time
	@scripts/dist.sh

bench: $(STAMP) ## compare with a peer, side by side, in two sizes: time and memory as ratios; minutes
	@$(BIN)/python bench/static_quantizer.py

harness: $(STAMP) ## build the native harness and run its own tests, or build it for ABI (arm64-linux, arm64-v8a)
ifdef ABI
	@$(BIN)/quadbench harness build --abi $(ABI)
else
	@cd android_harness && cmake --preset host >/dev/null && cmake --build --preset host --parallel 2 >/dev/null && ctest --preset host
	@$(BIN)/quadbench harness build
endif

format: $(STAMP) ## format and fix what can be fixed without thought
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format --quiet .

clean: ## remove caches and build folders; keeps .venv and results
	@rm -rf build dist site android_harness/build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .coverage
	@find quadbench tests -name __pycache__ -type d -prune -exec rm -rf {} +
