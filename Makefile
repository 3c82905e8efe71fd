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
.PHONY: help up demo test faults lint bench install messages browser engines engines-system

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# uv itself lives in a small environment of its own, so that a fresh machine needs only Python.
TEST_PROCESSES ?= 3
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

# The engines that tests run for real, in an environment of their own: 2.6 GB, minutes. What cannot be installed is left out, its tests say so, and the next run tries again.
ENGINES := .venv-engines
ENGINE_LISTS := tests/engines/requirements.txt tests/engines/requirements-flink.txt
PIP := $(ENGINES)/bin/python -m pip install -qq --disable-pip-version-check
engines: engines-system $(ENGINES)/.installed ## PyTorch, Ray, Spark, Flink, MPI and ONNX Runtime for the tests of engines
$(ENGINES)/.installed: $(ENGINE_LISTS)
	@test -x $(ENGINES)/bin/python || $(PYTHON) -m venv $(ENGINES)
	@rm -f $(ENGINES)/.incomplete; $(PIP) -r tests/engines/requirements.txt || sed 's/ *#.*//; /^$$/d' tests/engines/requirements.txt | \
	  while read -r one; do $(PIP) "$$one" || { echo "Not installed: $$one"; touch $(ENGINES)/.incomplete; }; done
	@$(PIP) --no-deps -r tests/engines/requirements-flink.txt || { echo "Not installed: Flink"; touch $(ENGINES)/.incomplete; }
	@for one in pyflink:flink pyspark:spark; do found=$$(ls -d $(ENGINES)/lib/python*/site-packages/$${one%:*} 2>/dev/null) && \
	  ln -sfn "$${found#$(ENGINES)/}" $(ENGINES)/$${one#*:}; done; test -e $(ENGINES)/.incomplete || touch $@

engines-system:
	@{ command -v java && test -x /usr/sbin/sshd; } >/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && { apt-get update -qq && \
	  for one in openssh-server $$(command -v java >/dev/null || echo default-jre-headless); do \
	    DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends $$one >/dev/null; done; }; } || \
	  echo "No Java or no OpenSSH server, and they cannot be installed here: tests of Spark and Flink, or of MPI, are skipped."

lint: install ## ruff, mypy, import contracts
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy --follow-imports=silent k8s workers portal/domain portal/live portal/web
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports

# The tests' own state goes to a folder of its own, never to var/; -n: many tests wait more than they work, so one more than two cores.
test: install browser engines lint ## everything, the browser tests too
	@var=$$(mktemp -d) && trap 'rm -rf "$$var"' EXIT && VAR_DIR=$$var $(BIN)/pytest -q -n $(TEST_PROCESSES) --durations=15

faults: install ## kill every process again and again while people work, and see it heal (SEEDS=50 FIRST=1)
	@$(BIN)/python -m tests.faults --seeds $(SEEDS) --first $(FIRST)

bench: install ## measurements, with the peer beside ours (ONLY=name,... RUNS=n)
	@$(BIN)/python -m tests.bench
