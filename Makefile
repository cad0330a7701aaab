# `make demo` and `make test` need nothing but Python 3.11 to 3.13: they use the Python in use when it has everything, else
# they make .venv. Another one: make BOOT=/path/to/python3.12 (to make .venv with), make PYTHON=... (ready as it is).
SHELL := /bin/bash
.PHONY: demo test lint clean

GOOD := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
BOOT := $(shell for p in python3 python3.12 python3.11 python3.13; do $$p -c "$(GOOD)" 2>/dev/null && echo $$p && break; done)

ifndef PYTHON
ifeq ($(BOOT),)
$(error Python 3.11, 3.12 or 3.13 is needed and not on the PATH: install one, or give make BOOT=/path/to/python3.12)
endif
ifeq ($(shell $(BOOT) .ci/environment.py fits && echo yes),yes)
PYTHON := $(BOOT)
else
PYTHON := .venv/bin/python
READY := .venv/.installed
endif
endif

# Found from the checkout whether or not the package is installed.
export PYTHONPATH := $(CURDIR)/src$(if $(PYTHONPATH),:$(PYTHONPATH))

demo: $(READY)
	$(PYTHON) -m ttsadapt train experiments=quickstart/compare

# Two workers: more threads of their own would only get in each other's way.
test: $(READY)
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 -m "not slow and not golden"

lint: $(READY)
	$(PYTHON) -m ruff check
	$(PYTHON) -m mypy

.venv/.installed: pyproject.toml
	$(BOOT) .ci/environment.py install

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
