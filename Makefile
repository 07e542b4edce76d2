# kstreams. `make` lists what there is.
SHELL := /bin/bash

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 16

# Without librdkafka: the demo needs no broker, and so a fresh machine needs less and is ready sooner.
DEMO := --no-default-features --features rocksdb,testing --example demo

demo: ## build and run the order pipeline on the embedded cluster: crash, restart, exact totals
	@scripts/build build $(DEMO)
	@. scripts/prerequisites rocksdb && cargo run --quiet $(DEMO)

test: ## everything that CI runs, a real Kafka included
	@scripts/test

test-fast: ## format, lints, tests without RocksDB, librdkafka and Kafka: about a minute
	@scripts/test fast

bench: ## the benches of the parts; side by side with Java: see CONTRIBUTING.md
	@. scripts/prerequisites all && cargo bench --all-features

fuzz: ## the HTTP interfaces, by their OpenAPI descriptions; needs Python
	@scripts/fuzz-api

fmt: ## format the sources
	@cargo fmt

clean-broker: ## end the brokers that tests have left behind, and remove their data
	@scripts/clean-broker

.PHONY: help demo test test-fast bench fuzz fmt clean-broker
