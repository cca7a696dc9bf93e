# SPDX-License-Identifier: Apache-2.0
# make demo   sets everything up and tunes a convolution for a RISC-V core through QEMU
# make test   sets everything up and runs the tests
# make lint   style and types
VENV ?= .venv
PROCESSES ?= 2
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint setup clean

demo: setup
	$(BIN)/simtune tune resnet18.conv4_ds --machine sifive-u74 --trials 64 --records demo/records.db --work-dir demo
	@echo "report: demo/report.html"

test: setup $(READY)-tests
	$(BIN)/python -m pytest -n $(PROCESSES) --dist worksteal -m "not alone"
	$(BIN)/python -m pytest -m alone

lint: setup
	$(BIN)/ruff check .
	$(BIN)/mypy

setup: $(READY)

$(READY): scripts/setup.sh requirements.lock pyproject.toml setup.py
	rm -f $@
	scripts/setup.sh $(VENV)
	touch $@

$(READY)-tests: $(READY)
	scripts/setup.sh $(VENV) tests
	touch $@

clean:
	rm -rf $(VENV) demo build *.egg-info simtune/_native
