# Two commands matter: `make up` and `make test`. Each makes what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Settings are given as `make up PORT=9000 KUBECONFIG=path`. A KUBECONFIG of the shell does not count: nobody should meet a real cluster by accident.
ifneq ($(origin KUBECONFIG),command line)
unexport KUBECONFIG
endif

.DEFAULT_GOAL := help
.PHONY: help up demo test faults lint bench install messages browser

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# uv itself lives in a small environment of its own, so that a fresh machine needs only Python.
TEST_PROCESSES ?= 2
SEEDS ?= 50
FIRST ?= 1
UV := .venv-uv/bin/uv
$(UV):
	@$(PYTHON) -m venv .venv-uv && .venv-uv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9'

$(VENV)/.installed: pyproject.toml uv.lock | $(UV)
	@$(UV) sync --quiet --frozen --all-extras --python $(PYTHON)
	@touch $@

install: $(VENV)/.installed messages ## the Python environment, from uv.lock

messages: $(patsubst %.po,%.mo,$(wildcard locale/*/LC_MESSAGES/django.po))
%.mo: %.po | $(VENV)/.installed
	@$(BIN)/pybabel --quiet compile --use-fuzzy -i $< -o $@

up: install ## start everything here; Ctrl-C stops it
	@exec $(BIN)/python manage.py up

demo: install ## do the main job through the REST API and print a timeline
	@$(BIN)/python manage.py demo

browser:
	@command -v chromium >/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-noto-cjk >/dev/null; }; } || \
	  echo "No chromium, and it cannot be installed here: browser tests are skipped."

lint: install ## ruff, mypy, import contracts
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy --follow-imports=silent k8s workers portal/domain portal/live portal/web
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports

# The tests' own state goes to a folder of its own, never to var/; -n: some tests wait more than they work.
test: install browser lint ## everything, the browser tests too
	@var=$$(mktemp -d) && trap 'rm -rf "$$var"' EXIT && VAR_DIR=$$var $(BIN)/pytest -q -n $(TEST_PROCESSES) --durations=15

faults: install ## kill every process again and again while people work, and see it heal (SEEDS=50 FIRST=1)
	@$(BIN)/python -m tests.faults --seeds $(SEEDS) --first $(FIRST)

bench: install ## measurements, with the peer beside ours (ONLY=name,... RUNS=n)
	@$(BIN)/python -m tests.bench
