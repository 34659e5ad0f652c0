PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := --dataset demo -arch resnet18 --weights none -lr 1e-3 --ft_lr_ratio 1 -bs 16 -e 8 --overall_lr_decay 0.1
# three times the demo's learning rate: at that, MAE's error was still 47 after 3 epochs, on a scale of 0 to 100
FIGURE1_DEMO := $(DEMO) -lr 3e-3

.PHONY: demo figure1-demo test test-slow clean

demo: $(VENV)/.installed  ## train, test and score on the built-in demo data set
	$(BIN)/python main.py $(DEMO)
	$(BIN)/python test_dataset.py $(DEMO)
	$(BIN)/python test_demo.py --img data/demo/images/$$(ls data/demo/images | head -n 1) $(DEMO)

figure1-demo: $(VENV)/.installed  ## Figure 1 of the paper in miniature: three losses on the demo data set
	test -e data/demo/demoinfo.mat || $(BIN)/python data/make_demo.py
	$(BIN)/python results_in_the_paper/reproduce.py figure1 --jobs 3 $(FIGURE1_DEMO)
	cp results/figures-demo/figure1.png results_in_the_paper/figure1-demo.png

test: $(VENV)/.installed-dev  ## ruff and pytest
	$(BIN)/ruff check .
	$(BIN)/python -m pytest

test-slow: $(VENV)/.installed-dev  ## whole large networks against recorded numbers: minutes and gigabytes
	$(BIN)/python -m pytest -m slow

$(VENV)/.installed: requirements.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -r requirements.txt
	touch $@

$(VENV)/.installed-dev: requirements-dev.txt requirements-export.txt $(VENV)/.installed
	$(BIN)/pip install --quiet -r requirements-dev.txt
	touch $@

clean:  ## all that make made, not what training wrote
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
