# demo and test do all set-up by themselves; PYTHON names the interpreter to start from (3.11 or newer).
BIN := .venv/bin
JOBS ?= 2
CLANG ?= clang++-14

.PHONY: help setup demo test check sanitize bench clean
.DELETE_ON_ERROR:

help:
	@echo "make demo    from the PyTorch module of examples/rmsnorm_linear to a checked kernel (no GPU needed)"
	@echo "make test    every test that this machine can run"
	@echo "make check   format, lint, types, walls between rooms"
	@echo "make sanitize   the search engine's tests under sanitizers (needs cmake, g++, clang and its OpenMP)"
	@echo "make bench   the numbers of docs/benchmarks.md that this machine can give"
	@echo "make setup   .venv with everything for all of these"
	@echo "make clean   remove what these made"

setup: .venv/.run .venv/.test .venv/.check

.venv/.run: scripts/setup requirements/run.txt requirements/torch-cpu.txt requirements/torch-cuda.txt requirements/triton.txt pyproject.toml CMakeLists.txt $(wildcard csrc/*)
	scripts/setup run
	@touch $@

.venv/.test: requirements/test.txt .venv/.run
	scripts/setup test
	@touch $@

.venv/.check: requirements/check.txt .venv/.test
	scripts/setup check
	@touch $@

.venv/.triton-second: requirements/triton-second.txt .venv/.run
	scripts/setup triton-second
	@touch $@

demo: .venv/.run
	$(BIN)/tilesmith optimize examples/rmsnorm_linear --no-start-kernel --bench offline --budget-seconds 100 \
		--budget-trials 40 --out rmsnorm_linear_tilesmith.py
	@echo
	@echo "The winner, with its evidence at the top:   less rmsnorm_linear_tilesmith.py"
	@echo "The µGraph that it was made from:           rmsnorm_linear_tilesmith.svg"
	@echo "Check it again:                             $(BIN)/tilesmith evaluate examples/rmsnorm_linear rmsnorm_linear_tilesmith.py"
	@echo "Every trial of this run:                    $(BIN)/tilesmith runs && $(BIN)/tilesmith show RUN"
	@echo "The same as a page to look at:              $(BIN)/tilesmith report RUN --open"
	@echo "What this machine can do:                   $(BIN)/tilesmith doctor"

# The marked tests run twice: first with the second Triton laid over the first, then with all the others.
test: .venv/.test
	@if $(MAKE) --no-print-directory .venv/.triton-second; then \
		PYTHONPATH=.venv/triton-second $(BIN)/python -m pytest -n $(JOBS) -m triton tests/null/bench; \
	else echo "skipped: the marked tests with a second Triton, which could not be installed here"; fi
	$(BIN)/python -m pytest -n $(JOBS)

check: .venv/.check
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

# Addresses and undefined behaviour with gcc; threads with clang, whose OpenMP library tells Archer what is ordered: gcc's
# does not, and races are reported where there are none. Not part of `test`.
sanitize:
	cmake -S . -B build/address -DCMAKE_CXX_COMPILER=g++ -DTILESMITH_SANITIZE=address -DTILESMITH_TESTS=ON
	cmake --build build/address --parallel $(JOBS) --target search_tests concrete_tests brute_tests
	build/address/search_tests && build/address/concrete_tests && build/address/brute_tests
	cmake -S . -B build/thread -DCMAKE_CXX_COMPILER=$(CLANG) -DTILESMITH_SANITIZE=thread -DTILESMITH_TESTS=ON
	cmake --build build/thread --parallel $(JOBS) --target search_tests concrete_tests brute_tests
	export OMP_TOOL_LIBRARIES=libarcher.so TSAN_OPTIONS=ignore_noninstrumented_modules=1; \
		build/thread/search_tests && build/thread/concrete_tests && build/thread/brute_tests

bench: .venv/.run
	@for file in benchmarks/*.py; do echo "$$file"; $(BIN)/python "$$file"; \
		case $$? in 0) ;; 2) echo "skipped" ;; *) exit 1 ;; esac; done

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
