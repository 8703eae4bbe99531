# Everything a person does with this project. `make` alone says what there is.
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run test bench fuzz build lint web clean install install-tests model

STEP := scripts/step
# Wherever cargo really builds to: CARGO_TARGET_DIR, a cargo configuration, or target/.
TARGET_DIR = $(shell cargo metadata --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
GATEWAY = $(TARGET_DIR)/debug/evidence-gateway
# Extra arguments, as in: make run ARGS="--listen 0.0.0.0:9000"
ARGS ?=
# How long each target of the fuzzer runs.
SECONDS ?= 60

help: ## this list
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 16

# The dev profile on purpose: its dependencies are optimized, and the tests share every one of them.
run: install model web ## install what is missing, build, start the gateway with the sample data
	@$(STEP) "gateway: build" cargo build
	@exec $(GATEWAY) dev $(ARGS)

test: install-tests model web lint ## install what is missing, run every check and test
	@$(STEP) "gateway: build" cargo build
	@$(STEP) "tests: cargo test" cargo test
	@$(STEP) "schema: is schema.graphql current?" $(GATEWAY) schema --check
	@$(STEP) "tests: packages for the browser" $(MAKE) --silent --no-print-directory tests/browser/node_modules/.package-lock.json
	@$(STEP) "tests: browser, graphql-http, schemathesis" tests/browser/run $(GATEWAY)

lint: web ## formatting, clippy, documentation
	@$(STEP) "lint: cargo fmt" cargo fmt --check
	@$(STEP) "lint: cargo clippy" cargo clippy --all-targets -- -D warnings
	@RUSTDOCFLAGS="-D warnings" $(STEP) "lint: cargo doc" cargo doc --no-deps --document-private-items

bench: install web ## run the benchmarks and print the table
	@$(STEP) "bench" cargo bench --no-default-features --bench gateway --bench changes --bench live
	@$(STEP) "bench: searches" cargo bench --bench search

# Without a sanitizer, for which the pinned stable toolchain is enough: unsafe code is forbidden here, and what is
# looked for are panics, wrong answers and lost time.
fuzz: ## throw mutated documents, cursors and tokens at the program, SECONDS=60 each
	@command -v cargo-fuzz >/dev/null || $(STEP) "fuzz: install cargo-fuzz" cargo install cargo-fuzz --locked
	@for target in document cursor token; do \
		mkdir -p fuzz/corpus/$$target; \
		seeds=fuzz/seeds/$$target words=; \
		if [ $$target = document ]; then \
			seeds="$$seeds tests/it/cases web/examples" words=-dict=fuzz/graphql.dict; \
		fi; \
		CARGO_TARGET_DIR=fuzz/target $(STEP) "fuzz: $$target" cargo fuzz run --sanitizer none $$target \
			fuzz/corpus/$$target $$seeds -- $$words -max_total_time=$(SECONDS) -timeout=5 -max_len=16384 || exit 1; \
	done

build: install web ## the release binary
	@$(STEP) "gateway: release build" cargo build --release
	@echo $(TARGET_DIR)/release/evidence-gateway

web: install ## the start page and GraphiQL, into web/dist
	@$(MAKE) --silent --no-print-directory web/dist/index.html

clean: ## remove what was built; the data directory and the downloaded model stay
	cargo clean
	rm -rf web/dist web/node_modules tests/browser/node_modules tests/browser/artifacts tests/schemathesis/.venv
	rm -rf fuzz/target fuzz/corpus fuzz/artifacts

install:
	@scripts/install

install-tests:
	@scripts/install --tests

model: install
	@scripts/model

WEB_SOURCES := $(wildcard web/*.html web/*.ts web/*.json web/src/* web/examples/*)

web/dist/index.html: $(WEB_SOURCES) web/node_modules/.package-lock.json
	@$(STEP) "web: build" npm --prefix web run --silent build

%/node_modules/.package-lock.json: %/package.json %/package-lock.json
	@$(STEP) "$*: npm ci" npm --prefix $* ci --no-audit --no-fund
	@touch $@
