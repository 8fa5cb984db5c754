# Two commands do everything: `make demo` and `make test`. Each sets up its own virtual environment.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The tests of validation/ run real models on CPUs with gloo; without torch they are skipped.
TORCH ?= torch==2.13.0
OUT ?= out
FUZZ_MINUTES ?= 60

.PHONY: demo test browser test-lm-eval fuzz coverage check docs rehearse parity many bench clean

demo: $(VENV)/.installed
	@mkdir -p $(OUT)
	$(BIN)/kraken-sim paper --html $(OUT)/paper_grid.html --plotly shared --json $(OUT)/paper_grid.json
	$(BIN)/kraken-sim compare kraken-6.7b-on-two-h200 --html $(OUT)/two_h200.html --plotly shared
	$(BIN)/kraken-sim compare kraken-13b-decode-on-eight-h100 --html $(OUT)/eight_h100.html --plotly shared
	@echo "Open $(OUT)/eight_h100.html, $(OUT)/two_h200.html and $(OUT)/paper_grid.html in a browser."

# Each process takes whole files, so that what a file sets up is set up once.
test: $(VENV)/.tested
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile

# For the tests of pages: playwright, and a Chromium, the machine's own or one that is installed. Without, they are skipped.
BROWSER_THERE := for name in chromium chromium-browser google-chrome google-chrome-stable; do \
	command -v $$name > /dev/null && exit 0; done; exit 1
browser: $(VENV)/.tested
	@$(BIN)/python -m pip install --quiet --editable '.[browser]' && { \
		sh -c '$(BROWSER_THERE)' || timeout 300 $(BIN)/python -m playwright install --with-deps chromium || \
		{ apt-get -qq update && apt-get -qq install --yes chromium; }; } || \
		echo "no browser could be installed: the tests of pages in one are skipped"

# Apart, because lm-eval brings some sixty packages.
test-lm-eval: $(VENV)/.tested
	$(BIN)/python -m pip install --quiet --editable '.[lm-eval]'
	$(BIN)/python -m pytest -q tests/test_quality_benchmark.py

fuzz: $(VENV)/.tested
	$(BIN)/python tests/fuzz_long.py $(FUZZ_MINUTES)

coverage: $(VENV)/.tested
	$(BIN)/python -m pytest -q --cov --cov-report=term

check: $(VENV)/.checked
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The guides and the reference of the Python API, as a site in out/site.
docs: $(VENV)/.documented
	$(BIN)/mkdocs build --quiet --strict --site-dir $(OUT)/site

# What docs/tutorial-your-machine.md does on GPUs, on CPUs with tiny shapes: that it runs, not what it says.
rehearse: $(VENV)/.tested
	@mkdir -p $(OUT)/rehearsal
	$(BIN)/python -m validation.measure --suite quick --out $(OUT)/rehearsal/quick.jsonl
	$(BIN)/python -m validation.measure --suite passes --deadline 60 --out $(OUT)/rehearsal/passes.jsonl
	$(BIN)/kraken-sim calibrate $(OUT)/rehearsal/quick.jsonl --base h200-sxm-x2 --write-dry-run --force \
		--out $(OUT)/rehearsal/mine.yaml
	$(BIN)/kraken-sim validate $(OUT)/rehearsal/passes.jsonl --hardware $(OUT)/rehearsal/mine.yaml

# Three minutes on two cores: a tiny experiment on the text of this repository, and its curves.
parity: $(VENV)/.tested
	$(BIN)/python -m validation.quality.corpus kraken_sim docs validation tests --suffix .py .md --vocabulary 1024 \
		--out $(OUT)/corpus
	$(BIN)/python -m validation.quality.parity validation/quality/experiments/tiny.yaml --data $(OUT)/corpus \
		--out $(OUT)/parity --fit --deadline 140

# Ten thousand random points, each alone and all together: bit for bit the same rows. Two minutes.
many: $(VENV)/.tested
	KRAKEN_SIM_MANY_POINTS=10000 $(BIN)/python -m pytest -q tests/test_many_points.py

bench: $(VENV)/.tested
	$(BIN)/python -m pytest -q --benchmark-enable --benchmark-only benchmarks

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "kraken_sim needs Python 3.11 or newer; try: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group test
	$(BIN)/python -m pip install --quiet '$(TORCH)' || \
		echo "torch could not be installed: the tests of real models are skipped"
	@touch $@

$(VENV)/.checked: $(VENV)/.tested
	$(BIN)/python -m pip install --quiet --group check
	@touch $@

$(VENV)/.documented: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group docs
	@touch $@

clean:
	rm -rf $(VENV) $(OUT) .coverage* .pytest_cache .mypy_cache .ruff_cache
