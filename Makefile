# GNU make 3.81 or newer. `make` alone lists the targets.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=
# Tests mostly wait for speech to be spoken, so more workers than cores is right.
WORKERS ?= 4

VIEWER := server/liveavatar_emulator/viewer_page
WEB_SDK := viewer/build/web-sdk

CHECKS := lint format-check types imports proto-lint proto-breaking stubs settings spelling

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo serve livekit-server viewer viewer-test test test-load conformance load load-find-knee load-compare soak chaos long-conversation bench emulator-clock check $(CHECKS) format proto settings-table lock hooks clean

help: ## list the targets; ARGS="..." is passed on where it makes sense
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- run -------------------------------------------------------------------------------------------------

define ROOM_EXPECTED
import os, sys
from liveavatar_gateway.demo import room
sys.exit(not room.expected(os.environ))
endef
export ROOM_EXPECTED

# The page with the avatar's face is built for the demo where that can be done and is of use; the demo needs no Node.js.
demo: $(VENV)/project.stamp ## a whole call against the emulator: no account, no key; ARGS="--watch" to look at the face
	@if command -v npm >/dev/null && ! $(MAKE) --question viewer && $(BIN)/python -c "$$ROOM_EXPECTED"; then \
	    $(MAKE) --no-print-directory viewer || echo "the page to watch was not built, see above; the demo goes on"; fi
	@$(BIN)/liveavatar-gateway demo $(ARGS)

serve: $(VENV)/project.stamp ## the gateway, with GATEWAY_* and LIVEAVATAR_API_KEY from the environment
	@$(BIN)/liveavatar-gateway serve $(ARGS)

livekit-server: $(VENV)/project.stamp ## install the LiveKit server for development; needs Go 1.26
	@$(BIN)/python scripts/livekit_server.py $(ARGS)

viewer: $(VIEWER)/index.html $(WEB_SDK)/index.html ## build the emulator's page to watch; needs Node.js 20 and npm

viewer-test: viewer/node_modules/installed.stamp ## tests of the page's own logic
	@npm --prefix viewer test --silent

test: $(VENV)/dev.stamp ## all tests, e.g. ARGS="tests/unit -x"
	@$(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not alone" $(ARGS)
	@$(if $(ARGS),:,$(MAKE) --no-print-directory test-load)

test-load: $(VENV)/dev.stamp ## of those, the ones that need the machine for themselves: the load suite against good and broken gateways
	@$(BIN)/pytest -m alone $(ARGS)

LOAD := PYTHONPATH=loadtest $(BIN)/python -m load

load: $(VENV)/dev.stamp ## two minutes of load and a verdict; SCENARIO=spike TARGET=host:port ARGS="--seconds 60"
	@$(LOAD) run $(SCENARIO) $(if $(TARGET),--target $(TARGET)) $(ARGS)

# Records of ended sessions are kept for ten minutes by default: memory would still grow by them, as it should.
soak: $(VENV)/dev.stamp ## a quarter of an hour of everything; what leaks shows as a slope; ARGS="--seconds 3600"
	@GATEWAY_RETENTION_S=60 $(LOAD) run soak --seconds 900 $(if $(TARGET),--target $(TARGET)) $(ARGS)

load-find-knee: $(VENV)/dev.stamp ## how many sessions can talk at once on one core; ARGS="--chunk-ms 100"
	@$(LOAD) find-knee $(ARGS)

load-compare: $(VENV)/dev.stamp ## two runs, with intervals; BEFORE=a/result.json NOW=b/result.json
	@$(if $(and $(BEFORE),$(NOW)),,$(error name both: make load-compare BEFORE=a/result.json NOW=b/result.json))
	@$(LOAD) compare $(BEFORE) $(NOW) $(ARGS)

conformance: $(VENV)/dev.stamp ## the official LiveKit plugin against the emulator, in real rooms; a part of `test`
	@$(BIN)/pytest -n $(WORKERS) tests/conformance $(ARGS)

chaos: $(VENV)/dev.stamp ## break everything under conversations; SEEDS=20, or SEED=7 for one again
	@PYTHONPATH=tests $(BIN)/python -m chaos.run $(if $(SEED),--first $(SEED) --seeds 1,--seeds $(or $(SEEDS),5)) $(ARGS)

long-conversation: $(VENV)/dev.stamp ## two hours with avatars of five minutes, 20 times as fast; needs libfaketime
	@PYTHONPATH=tests $(BIN)/python -m endurance.long_conversation $(ARGS)

bench: $(VENV)/dev.stamp ## load and latency, e.g. ARGS="--help"
	@PYTHONPATH=loadtest $(BIN)/python -m bench $(ARGS)

emulator-clock: $(VENV)/dev.stamp ## how late the emulator's clock is while 200 sessions talk
	@PYTHONPATH=loadtest $(BIN)/python -m emulator_clock $(ARGS)

# --- check -----------------------------------------------------------------------------------------------

check: $(VENV)/dev.stamp ## every quick check; runs all of them, then says which failed
	@failed=; \
	for check in $(CHECKS); do \
	    printf -- '--- %s\n' "$$check"; \
	    $(MAKE) --no-print-directory --silent "$$check" || failed="$$failed $$check"; \
	done; \
	if [ -n "$$failed" ]; then printf -- '--- FAILED:%s\n' "$$failed"; exit 1; fi; \
	printf -- '--- all clean: %s\n' "$(CHECKS)"

lint: $(VENV)/dev.stamp
	@$(BIN)/ruff check .

format-check: $(VENV)/dev.stamp
	@$(BIN)/ruff format --check --output-format concise .

types: $(VENV)/dev.stamp
	@$(BIN)/mypy

imports: $(VENV)/dev.stamp
	@$(BIN)/lint-imports --no-logo

proto-lint: $(VENV)/dev.stamp
	@$(BIN)/python scripts/proto_image.py build/proto.binpb
	@$(BIN)/buf lint build/proto.binpb

proto-breaking: $(VENV)/dev.stamp
	@tag=$$(git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null) \
	    || { echo "no release tag yet, nothing to break"; exit 0; }; \
	$(BIN)/python scripts/proto_image.py build/proto.binpb \
	&& $(BIN)/python scripts/proto_image.py build/released.binpb --ref "$$tag" \
	&& $(BIN)/buf breaking build/proto.binpb --against build/released.binpb

stubs: $(VENV)/dev.stamp
	@rm -rf build/stubs
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python scripts/generate_stubs.py build/stubs --check clients/python

settings: $(VENV)/dev.stamp
	@$(BIN)/python scripts/settings_table.py --check docs/operations.md

spelling: $(VENV)/dev.stamp
	@$(BIN)/codespell

# --- change ----------------------------------------------------------------------------------------------

format: $(VENV)/dev.stamp ## rewrite the code in the project's format
	@$(BIN)/ruff check --fix --exit-zero --quiet .
	@$(BIN)/ruff format .

proto: $(VENV)/dev.stamp ## regenerate the Python stubs from proto/
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python scripts/generate_stubs.py clients/python

settings-table: $(VENV)/dev.stamp ## rewrite the table of settings in docs/operations.md
	@$(BIN)/python scripts/settings_table.py docs/operations.md

# Extras are kept: pip takes the newest release of `name[extra]`, not the pin of `name`, if only that is written.
# What is tested is what runs: the runtime lock is a part of the development lock.
# The week's wait lets others find a bad release first; ARGS="--exclude-newer-package name=false" skips it.
COMPILE = UV_CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
    --generate-hashes --no-strip-extras --no-emit-index-url --exclude-newer '7 days' $(ARGS)

lock: $(VENV)/dev.stamp ## resolve requirements/*.txt again; ARGS="--upgrade" or "--upgrade-package grpcio"
	@$(COMPILE) pyproject.toml requirements/build.in --extra dev -o requirements/dev.txt
	@$(COMPILE) pyproject.toml requirements/build.in --extra server -c requirements/dev.txt -o requirements/runtime.txt
	@$(COMPILE) pyproject.toml requirements/build.in --extra loadtest -c requirements/dev.txt -o requirements/loadtest.txt
	@if grep -n '://' requirements/*.txt; then echo "lock: an index address got into a lock file"; exit 1; fi

hooks: $(VENV)/dev.stamp ## run the quick checks before each commit
	@$(BIN)/pre-commit install

clean: ## remove the virtual environment and everything that was built
	rm -rf $(VENV) build dist out viewer/node_modules viewer/build $(VIEWER) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage

# --- the virtual environment -----------------------------------------------------------------------------
# A stamp is written last, so an interrupted install is done again and a finished one never is.

$(VENV)/venv.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Python 3.11 or newer is needed, $(PYTHON) is not; name one: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || { \
	    echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv"; \
	    rm -rf $(VENV); exit 1; }
	@touch $@

$(VENV)/runtime.stamp: requirements/runtime.txt $(VENV)/venv.stamp
	@echo "installing $< into $(VENV)"
	@$(BIN)/python -m pip install --quiet --require-hashes -r $<
	@touch $@

$(VENV)/project.stamp: pyproject.toml $(VENV)/runtime.stamp
	@$(BIN)/python -m pip install --quiet --no-index --no-build-isolation --no-deps --editable .
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt | $(VENV)/project.stamp
	@echo "installing $< into $(VENV)"
	@$(BIN)/python -m pip install --quiet --require-hashes -r $<
	@touch $@

# --- the page to watch -----------------------------------------------------------------------------------
# The build writes index.html last, so it stands for the whole page.

viewer/node_modules/installed.stamp: viewer/package-lock.json viewer/package.json viewer/.npmrc
	@command -v npm >/dev/null || { \
	    echo "Node.js 20 or newer with npm is needed to build the page; on Debian and Ubuntu: apt install nodejs npm"; \
	    exit 1; }
	@echo "installing $< into viewer/node_modules"
	@npm ci --prefix viewer --loglevel error
	@touch $@

# The page of LiveAvatar's own web SDK, for `tests/browser`.
$(WEB_SDK)/index.html: viewer/node_modules/installed.stamp viewer/build.mjs $(wildcard viewer/web-sdk/*)
	@npm --prefix viewer run build:web-sdk --silent

$(VIEWER)/index.html: viewer/node_modules/installed.stamp viewer/build.mjs viewer/tsconfig.json $(wildcard viewer/src/*)
	@npm --prefix viewer run build --silent
