# make demo: environment, demo data and all stages.  make test: the tests.  Nothing else is needed first.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
RUN = runs/demo

# From random weights on 64 px images, so that the demo needs no download and no GPU.
SMALL = --run-dir $(RUN) --weights none --image-size 64 --batch-size 16 --workers 0 --overwrite

.PHONY: demo env test lint format clean

env: $(VENV)/.installed

$(VENV)/.installed: requirements.txt requirements-dev.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

demo: env
	$(BIN)/python make_demo_data.py --overwrite
	$(BIN)/python check_split.py --data data/demo --run-dir $(RUN) --val-fraction 0.2 --overwrite
	$(BIN)/python eda_labels.py --run-dir $(RUN) --overwrite
	$(BIN)/python train_resnet.py $(SMALL) --unfreeze-from all --lr 5e-4 --epochs 7
	$(BIN)/python train_efficientnet.py $(SMALL) --unfreeze-last-n-blocks 9 --lr 3e-4 --epochs 4
	$(BIN)/python test_resnet.py --run-dir $(RUN) --overwrite
	$(BIN)/python test_efficientnet.py --run-dir $(RUN) --overwrite
	$(BIN)/python ensemble_alpha_search.py --run-dir $(RUN) --overwrite
	$(BIN)/python ensemble_threshold_search.py --run-dir $(RUN) --recall 0.85 0.90 --subgroups sex age view --overwrite
	$(BIN)/python report.py --run-dir $(RUN) --overwrite
	$(BIN)/python tuning_log.py $(RUN)
	@echo "pictures:"; find $(RUN) -name '*.png' | sort

test: env
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf data/demo runs/demo
