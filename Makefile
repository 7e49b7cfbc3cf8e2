# Two commands for people: `make demo` and `make test`. Each makes what it needs in .venv first.
.PHONY: help setup demo test test-slow check format benchmarks

help:
	@echo "make demo        build the digits sample: train, quantize, export, run, verify, profile, report"
	@echo "make test        lint, types and the test suite"
	@echo "make test-slow   the tests marked slow"
	@echo "make benchmarks  edgekit's own benchmarks, results in benchmarks/results"

setup:
	@bash .ci/setup

demo: setup
	.venv/bin/edgekit build sample_models/digits/recipe.yaml -o builds/digits
	.venv/bin/edgekit check builds/digits
	@if .venv/bin/edgekit targets doctor pixel-4 >/dev/null 2>&1; then set -x; \
	  .venv/bin/edgekit profile builds/digits/artifacts/tflite/digits-int8.tflite --target pixel-4; \
	else echo "no emulated phone here; what is missing: .venv/bin/edgekit targets doctor pixel-4"; fi
	@echo "open builds/digits/report.html"

check: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

test: setup check
	.venv/bin/pytest -m "not slow" -n logical --maxprocesses 4 --dist loadfile

test-slow: setup
	.venv/bin/pytest -m slow --timeout 3600

format: setup
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

benchmarks: setup
	.venv/bin/python -m benchmarks.run
