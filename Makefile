# The steps of CI by name, for people. `make` lists them.
PYTHON ?= python3

.PHONY: list install test slow long chaos cluster compose lint types layers compose-check proto proto-check wheel check

list:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

install: ## install the package with everything that the other steps need
	$(PYTHON) -m pip install -e '.[dev]'

test: ## run the tests, as the README does
	$(PYTHON) -m pytest

slow: ## run the tests that take seconds where others take moments
	$(PYTHON) -m pytest -m "slow and not long"

long: ## run the tests that take minutes
	$(PYTHON) -m pytest -m long

cluster: ## run the tests of programs started by hand, and of two hosts
	$(PYTHON) -m pytest -m "cluster and not long"

chaos: ## kill processes of real jobs, 20 times
	$(PYTHON) -m pytest -m chaos -s

compose: ## run the cluster of compose.yaml in containers, and harm it; as root, with podman
	PYTHON=$(PYTHON) tests/compose/run.sh

lint: ## style and formatting
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types: ## static types
	$(PYTHON) -m mypy

layers: ## who may import whom
	lint-imports

compose-check: ## compose.yaml against the Compose Specification
	check-jsonschema --builtin-schema vendor.compose-spec compose.yaml

# The virtual path makes the generated modules import each other by their place in the package.
proto: ## generate paramserver/wire/*_pb2* from proto/
	$(PYTHON) -m grpc_tools.protoc -Iparamserver/wire=proto --python_out=. --grpc_python_out=. \
		--mypy_out=quiet:. --mypy_grpc_out=quiet:. paramserver/wire/paramserver.proto

proto-check: proto ## fail if the generated code is not what proto/ says
	git diff --exit-code --stat -- paramserver/wire

wheel: ## build the wheel and look inside
	$(PYTHON) -m build --wheel
	$(PYTHON) -m zipfile -l dist/*.whl | grep -E 'digits.npz|paramserver_pb2.py$$|py.typed'

check: lint types layers compose-check proto-check test ## all of it but the wheel
