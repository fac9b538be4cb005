# Every target sets up what it needs; the environment lies beside the code, in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_FILE ?=
BENCH ?= segmentation
PACKAGES := realtime workers cmath_stream bench tests deploy

.PHONY: setup demo test slow check e2e bench results

setup: $(VENV)/.stamp

# uv does not read pip's configuration: a wheel folder that pip is told to look into is handed on. UV_TORCH_BACKEND
# (for instance "cpu") is the user's to set.
define install
	links="$$($(BIN)/python -m pip config list | sed -n "s/^[^=]*\.find-links='\(.*\)'$$/\1/p" | head -n 1 | tr ' ' ',')"; \
	export UV_FIND_LINKS="$${UV_FIND_LINKS:-$$links}"; \
	[ -n "$$UV_FIND_LINKS" ] || unset UV_FIND_LINKS; \
	$(BIN)/uv pip install --quiet --python $(BIN)/python -e "$(1)"
endef

$(VENV)/.stamp: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "cmath-stream needs Python 3.11 or newer, and $(PYTHON) is not: try 'make PYTHON=python3.12 $(MAKECMDGOALS)'" >&2; \
		exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	@echo "installing into $(VENV) ..."
	@$(call install,.[dev])
	@$(TENSORRT_COMPILER) || echo "no torch-tensorrt for this platform: its dry run is skipped by the tests"
	@touch $@

# Torch-TensorRT's compiler without TensorRT itself, which is gigabytes and needs a card: enough to see what it
# would make of the model. The extra `trt` brings all of it.
TENSORRT_COMPILER = $(BIN)/python -c 'import importlib.util as u, sys; sys.exit(not u.find_spec("tensorrt"))' || \
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps "torch-tensorrt==$$($(BIN)/python -c \
	'from importlib.metadata import version as v; print(v("torch").partition("+")[0])')" dllist psutil

$(VENV)/.stamp-e2e: $(VENV)/.stamp
	@$(call install,.[dev$(,)e2e])
	@touch $@

, := ,
TOGETHER := -n logical --maxprocesses=4 --dist loadfile

demo: setup
	@$(BIN)/cmath-stream demo $(if $(DEMO_FILE),"$(DEMO_FILE)")

test: setup
	$(BIN)/pytest --ignore=tests/e2e -m "not slow" $(TOGETHER) $(ARGS)

slow: setup
	$(BIN)/pytest --ignore=tests/e2e -m "slow and not alone" $(TOGETHER) $(ARGS)
	$(BIN)/pytest --ignore=tests/e2e -m alone $(ARGS)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(PACKAGES)
	$(BIN)/lint-imports

e2e: $(VENV)/.stamp-e2e
	$(BIN)/pytest tests/e2e $(ARGS)

bench: setup
	$(BIN)/python -m bench.$(BENCH) $(or $(ARGS),$(CMATH_STREAM_DATA))

results: setup
	$(BIN)/python -m bench.results $(ARGS)
