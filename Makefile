# kstreams. `make` lists what there is.
SHELL := /bin/bash

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 16

demo: ## build and run the order pipeline on the embedded cluster: crash, restart, exact totals
	@scripts/build build --all-features --example demo
	@. scripts/prerequisites && cargo run --quiet --all-features --example demo

test: ## everything that CI runs, a real Kafka included
	@scripts/test

test-fast: ## format, lints, tests without RocksDB, librdkafka and Kafka: about a minute
	@scripts/test fast

bench: ## the benches of the parts; side by side with Java: see CONTRIBUTING.md
	@. scripts/prerequisites && cargo bench --all-features

fmt: ## format the sources
	@cargo fmt

clean-broker: ## end the brokers that tests have left behind, and remove their data
	@scripts/clean-broker

.PHONY: help demo test test-fast bench fmt clean-broker
