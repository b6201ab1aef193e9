# Two commands do everything, set-up included: make repro, make test.
SHELL := /bin/bash
VENV := .venv
READY := $(VENV)/.ready
# DVC runs each stage's `python`: it has to be the one of the environment.
RUN := PATH="$(CURDIR)/$(VENV)/bin:$$PATH"

.PHONY: repro test lint lock weights

# The first line mends what a killed DVC has left half-written.
repro: $(READY)
	$(RUN) python -m stages.repair
	$(RUN) dvc repro

test: $(READY) lint
	$(RUN) python -m pytest -n logical --dist loadscope --no-loadscope-reorder

lint: $(READY)
	$(RUN) ruff check .
	$(RUN) ruff format --check .

# Locked versions with their hashes; uv installs them in seconds where pip takes minutes. Bytecode is compiled on all
# cores at once here, or every first start of a stage would compile its part on one.
$(READY): requirements.lock
	python3 -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is " + sys.version)'
	python3 -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet uv==0.13.8
	$(VENV)/bin/uv pip install --quiet --compile-bytecode --python $(VENV)/bin/python --require-hashes -r requirements.lock
	touch $@

# Trains the embedded teacher again, overnight on two cores. Run it again after a kill: it resumes.
weights: $(READY)
	$(RUN) python -m stages.pretrain --params data/weights/params.yaml --out data/weights/embedded/teacher \
	    --metrics metrics/pretrain_teacher.json

lock: $(READY)
	$(VENV)/bin/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --no-header \
	    --no-emit-index-url --quiet -o requirements.lock
	$(VENV)/bin/uv pip compile pyproject.toml --group dev --group cluster --group cluster-test --universal \
	    --constraint requirements.lock --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --quiet \
	    -o requirements-cluster.lock
