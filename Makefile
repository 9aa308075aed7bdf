.PHONY: proto
PY := .venv/bin/python
proto:  ## regenerate the stubs
	cd protos && ../$(PY) -m grpc_tools.protoc -I. --python_out=. --grpc_python_out=. --mypy_out=quiet:. --mypy_grpc_out=quiet:. $$(find . -name '*.proto' | sort)
