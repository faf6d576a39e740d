# Two commands do everything on a bare machine: `make demo` and `make test`.
# Needed beforehand: Python 3.10 (or UV_PYTHON=3.11 … 3.13 on glibc 2.39 or newer), make and a C++ compiler.

SHELL := /bin/bash
RUN ?= reviews

# uv from the PATH if it works there, or one of our own beside the project's environment.
UV := $(shell uv --version >/dev/null 2>&1 && echo uv || echo .uv/bin/uv)
export UV_SYSTEM_CERTS := 1
export TF_CPP_MIN_LOG_LEVEL ?= 2

# uv makes .venv anew for another Python, so each Python that was asked for has a stamp of its own.
STAMP := .venv/.installed$(subst /,-,$(UV_PYTHON:%=-%))

.PHONY: setup demo test kubeflow-e2e lint docs bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml uv.lock $(filter .uv/bin/uv,$(UV))
	$(UV) sync --frozen --extra tfds --extra playground --extra kubeflow
	@rm -f .venv/.installed*
	@touch $@

# Under pyenv, python3 may name a version that is not installed; the system's own does as well.
.uv/bin/uv:
	@for python in python3 /usr/bin/python3 python3.13 python3.12 python3.11 python3.10; do \
	  $$python -m venv .uv >/dev/null 2>&1 && break; done; \
	if ! .uv/bin/python -m pip --version >/dev/null 2>&1; then \
	  echo "make needs uv: none on the PATH, and no python3 here can make a virtual environment (on Debian: apt install python3-venv)" >&2; exit 1; fi; \
	if ! .uv/bin/python -m pip install -q uv; then \
	  echo "make needs uv: none on the PATH, and pip could not install it for the reason above (a proxy or an index of your own goes into pip's settings)" >&2; exit 1; fi

demo: setup
	.venv/bin/textrail run $(RUN)
	.venv/bin/textrail predict $(RUN) \
	  "We came for a quick lunch and stayed all afternoon, the food and the people were that good." \
	  "The zip broke on day two and nobody answers my emails."

test: setup
	.venv/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# On the cluster and with the image builder that the environment names; without, it says what is missing.
kubeflow-e2e: setup
	$(UV) sync --frozen --inexact --extra kubeflow --extra s3
	.venv/bin/python -m tests.kubeflow.e2e $(PARTS)

lint: setup
	.venv/bin/ruff check .
	.venv/bin/mypy

docs: setup
	.venv/bin/python -m pipelines.settings_page > docs/settings.md

bench: setup
	@for file in benchmarks/[a-z]*.py; do echo "== $$file"; .venv/bin/python $$file || exit 1; done

clean:
	rm -rf .venv .uv build *.egg-info
