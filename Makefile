PYTHON ?= python3
BIN := .venv/bin
# The first three, in the order of the map; all: every one.
EXAMPLE ?= send_and_receive work_queue publish_subscribe
# Where the examples that are named keep requirements of their own, if they do.
OWN := $(foreach name,$(patsubst %/,%,$(EXAMPLE)),$(wildcard $(name)/requirements.txt */$(name)/requirements.txt))
# Nothing, unless examples are named: their tests, by words that pytest looks for in the names of tests and folders.
EMPTY :=
ASKED := $(if $(filter file,$(origin EXAMPLE)),,$(notdir $(patsubst %/,%,$(filter-out all,$(EXAMPLE)))))
ONLY := $(if $(ASKED),-k '$(subst $(EMPTY) , or ,$(strip $(ASKED)))')
QUICK ?=
LONG ?=

.DEFAULT_GOAL := help
.PHONY: help demo playground test bench broker broker-down k8s k8s-status k8s-down install lint clean

help: ## explain the commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo '  make demo EXAMPLE=work_queue   play one example (all: every one, which takes some minutes)'
	@echo '  make test EXAMPLE=work_queue   run the tests of one example'
	@echo '  make test LONG=1               run those that take long, too'
	@echo '  make k8s OVERLAY=production    three RabbitMQs and TLS (local: one, small); see kubernetes/README.md'

demo: .venv/.runtime $(OWN:%=.venv/own/%) ## get a RabbitMQ running and play the first three examples, or one of them
	@$(BIN)/python -m broker up
	@$(BIN)/python -m tour $(filter-out all,$(EXAMPLE))

playground: .venv/.playground ## watch the examples' messages move, on a web page of this machine's own
	@$(BIN)/python -m broker up
	@$(BIN)/python -m playground

test: .venv/.installed ## run the tests against a real RabbitMQ
	@$(BIN)/python -m broker up
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 8 --dist loadgroup $(if $(LONG)$(ASKED),--long) $(ONLY)

bench: .venv/.benchmarks ## measure how fast it all is (6 minutes; QUICK=1: one)
	@$(BIN)/python -m broker up
	@$(BIN)/python -m benchmarks $(if $(QUICK),--quick)

broker: .venv/.runtime ## start a RabbitMQ, unless one answers already
	@$(BIN)/python -m broker up

broker-down: ## stop the RabbitMQ that make started
	@if $(BIN)/python -m broker --help > /dev/null 2>&1; then $(BIN)/python -m broker down; \
	elif [ -e "$${BROKER_DIRECTORY:-.broker}/started.json" ]; then \
		echo 'error: a broker was started here, but what stops it is not installed; first run: make broker' >&2; exit 1; \
	else echo 'nothing to stop: no broker was started from here'; fi

k8s: .venv/.runtime ## deploy the course to Kubernetes and try it there
	@$(BIN)/python -m deploy up $(if $(YES),--yes) $(if $(OVERLAY),--overlay $(OVERLAY)) \
		$(if $(IMAGE),--image $(IMAGE)) $(if $(STORAGE_CLASS),--storage-class $(STORAGE_CLASS))

k8s-status: .venv/.runtime ## how the deployment on Kubernetes is
	@$(BIN)/python -m deploy status

k8s-down: .venv/.runtime ## take the course off Kubernetes again; asks about the data (YES=1 does not, and deletes it)
	@$(BIN)/python -m deploy down $(if $(YES),--yes)

install: .venv/.installed ## make the virtual environment, with the tools for tests

lint: .venv/.installed ## check style and types
	@$(BIN)/ruff check .
	@$(BIN)/mypy

clean: broker-down ## stop the RabbitMQ, remove its data and the virtual environment
	@test ! -d .broker/cluster || BROKER_DIRECTORY= $(BIN)/python -m broker cluster down
	@rm -rf .broker .venv

# What is installed is noted by an empty file, so that a second run installs nothing.
.venv/.runtime: requirements.txt pyproject.toml | .venv/bin/pip
	@echo 'installing the requirements'
	@$(call pip,requirements.txt)
	@touch $@

.venv/own/%: % .venv/.runtime
	@echo 'installing $<'
	@$(call pip,$<)
	@mkdir -p $(@D)
	@touch $@

.venv/.playground: playground/requirements.txt requirements.txt pyproject.toml | .venv/bin/pip
	@echo 'installing the requirements of the playground'
	@$(call pip,requirements.txt -r playground/requirements.txt)
	@touch .venv/.runtime $@

.venv/.benchmarks: benchmarks/requirements.txt requirements.txt $(wildcard protocols/*/requirements.txt) pyproject.toml | .venv/bin/pip
	@echo 'installing the requirements and what the benchmarks are measured against'
	@$(call pip,benchmarks/requirements.txt)
	@touch .venv/.runtime $@

.venv/.installed: requirements-dev.txt requirements.txt $(wildcard */requirements.txt */*/requirements.txt) pyproject.toml | .venv/bin/pip
	@echo 'installing the requirements and the tools for tests'
	@$(call pip,requirements-dev.txt)
	@touch .venv/.runtime .venv/.playground $@

# Into .venv, whatever pip's settings say of other places. Those of its files cannot all be overruled: hence the look.
pip = { env -u PIP_TARGET -u PIP_PREFIX -u PIP_ROOT PIP_USER=0 \
		$(BIN)/python -m pip install --disable-pip-version-check -r $(1) > .venv/pip.log 2>&1 \
	&& $(BIN)/python -m pip show -q rabbitmq-by-example >> .venv/pip.log 2>&1; } || { \
		why=$$(grep '^ERROR' .venv/pip.log | tail -n 1); \
		if grep -Eq 'NewConnectionError|ConnectTimeoutError|name resolution' .venv/pip.log; then why='no network?'; fi; \
		echo "error: the requirements could not be installed ($${why:-not into .venv; see pip config list}); see .venv/pip.log" >&2; \
		exit 1; }

# Debian and Ubuntu keep Python's venv in a package of its own: get it, where that needs no question.
.venv/bin/pip:
	@command -v $(PYTHON) > /dev/null || { echo 'error: $(PYTHON) is not installed; Python 3.10 or later is needed' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "error: Python 3.10 or later is needed; this is $$($(PYTHON) -V); name another: make PYTHON=python3.12" >&2; exit 1; }
	@if ! $(PYTHON) -c 'import ensurepip' 2> /dev/null; then \
		if [ "$$(id -u)" = 0 ]; then sudo=; elif sudo -n true 2> /dev/null; then sudo='sudo -n'; else sudo=no; fi; \
		if [ "$$sudo" = no ] || ! command -v apt-get > /dev/null; then \
			echo 'error: Python lacks venv; install it (Debian, Ubuntu: sudo apt-get install python3-venv)' >&2; exit 1; \
		fi; \
		echo 'installing the package python3-venv with apt'; \
		get="$$sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120 install --no-install-recommends python3-venv"; \
		$$get > /tmp/apt-venv.log 2>&1 || { $$sudo apt-get -q update && $$get; } > /tmp/apt-venv.log 2>&1 \
			|| { echo 'error: python3-venv could not be installed (no network?); see /tmp/apt-venv.log' >&2; exit 1; }; \
	fi
	@$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
