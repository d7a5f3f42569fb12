# The one entry for everything. `make demo` and `make test` need Python 3.11+ and make, nothing else.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PACKAGES := -p gatebook.schemas -p gatebook.producers -p gatebook.processors -p gatebook.engines -p gatebook.cli

.PHONY: help demo test console browser unit lint types format imports tidy generate dashboards bench bench-redaction bench-detection bench-search lock jars up down clean

help:
	@echo "make demo    run the main job on embedded Kafka and Elasticsearch"
	@echo "make test    lint, types and all tests"
	@echo "make unit    unit tests only"
	@echo "make lint    ruff, mypy --strict, import law, generated files, tidiness"
	@echo "make bench   benchmarks; prints ratios measured in one run"
	@echo "make bench-redaction  the redactor beside others; DATA=DIR adds presidio-research's sentences"
	@echo "make bench-detection  speed, alert latency, attacks noticed; DATA=DIR adds numenta/NAB's series"
	@echo "make dashboards  Kibana, Grafana and alert rules; NAMESPACE=NAME for another than gatebook"
	@echo "make console  build the browser console into the package (needs Node 20.19+)"
	@echo "make bench-search  pages, histograms, facets, bytes an event, summing up, retention on 5 M events;"
	@echo "             EVENTS=N or QUICK=1 for fewer, KEEP=DIR keeps the data for the next run"
	@echo "make up      start embedded Kafka and Elasticsearch; make down stops them"
	@echo "make lock    pin the dependencies anew; make jars: the engines' jars"

$(STAMP): pyproject.toml infra/requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Gatebook needs Python 3.11 or later: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r infra/requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/gatebook demo

test: lint browser
	$(BIN)/python -m pytest

# Brings Chromium where there is none: the console's tests drive it.
browser: $(STAMP)
	@infra/browser.sh $(BIN)/python

# The build is committed, so that whoever installs needs no Node.
console:
	cd processors/console && npm ci --no-fund --no-audit && npm run build

unit: $(STAMP)
	$(BIN)/python -m pytest tests/unit

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(PACKAGES)
	$(BIN)/lint-imports
	$(BIN)/python -m gatebook.schemas.generate --check
	$(BIN)/python -m gatebook.schemas.lock --check
	$(BIN)/gatebook settings --check infra/SETTINGS.md
	$(BIN)/python -m gatebook.cli.dashboards.build --check
	$(BIN)/python infra/tidy.py

types: $(STAMP)
	$(BIN)/mypy $(PACKAGES)

imports: $(STAMP)
	$(BIN)/lint-imports

tidy: $(STAMP)
	$(BIN)/python infra/tidy.py

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

generate: $(STAMP)
	$(BIN)/python -m gatebook.schemas.generate
	$(BIN)/gatebook settings --markdown > infra/SETTINGS.md
	$(BIN)/python -m gatebook.cli.dashboards.build

dashboards: $(STAMP)
	$(BIN)/python -m gatebook.cli.dashboards.build $(if $(NAMESPACE),--namespace "$(NAMESPACE)")

bench: $(STAMP)
	$(BIN)/python -m tests.benchmarks.run

bench-redaction: $(STAMP)
	$(BIN)/python -m tests.benchmarks.redaction $(if $(DATA),--data "$(DATA)") $(if $(HALF),--half "$(HALF)")

bench-detection: $(STAMP)
	$(BIN)/python -m tests.benchmarks.detection $(if $(DATA),--data "$(DATA)") $(if $(QUICK),--quick)

bench-search: $(STAMP)
	$(BIN)/python -m tests.benchmarks.search $(if $(EVENTS),--events "$(EVENTS)") $(if $(QUICK),--quick) \
	  $(if $(KEEP),--keep "$(KEEP)")

lock: $(STAMP)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	  --no-header --no-emit-index-url --no-emit-find-links --extra dev \
	  --output-file infra/requirements.lock pyproject.toml

jars: $(STAMP)
	$(BIN)/python infra/lock_jars.py

up: $(STAMP)
	$(BIN)/gatebook up

down: $(STAMP)
	$(BIN)/gatebook down

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
