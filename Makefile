# Needs Go and make; the race detector of "make test" also needs a C compiler. Everything else is built from Go modules.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# What is slow to build and rarely changes is built once, and kept here under a key of what it is made of.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/application-connector
GOLANGCI_LINT := v2.15.0

# Like that Go's build cache is shared between the binaries, the linter and the tests of localkube.
PLAIN := CGO_ENABLED=0 GOFLAGS="$(GOFLAGS) -trimpath"

VERSION = $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS = -s -w -X github.com/application-connector/application-connector/version.stamped=$(VERSION)
COMMANDS = $(notdir $(patsubst %/,%,$(wildcard cmd/*/)))

.PHONY: run
run: build ## start everything on this machine and print a tour; ARGS="--once" runs the tour and ends
	@exec bin/appconn up $(ARGS)

.PHONY: build
build: commands localkube ## build all programs into bin/

.PHONY: commands
commands: go
	@mkdir -p bin
	@CGO_ENABLED=0 build/heartbeat "the programs (4 minutes on two cores the first time)" go build -v -trimpath -ldflags '$(LDFLAGS)' -o bin/ $(addprefix ./cmd/,$(COMMANDS))
	@if [ -e bin/appconn ]; then ln -sf appconn bin/kubectl-appconn; fi

.PHONY: localkube
localkube: go
	@build/localkube "$(CACHE)" bin >/dev/null

.PHONY: test
test: build ## run all tests but benchmarks and soak, with the race detector
	@build/test

.PHONY: bench
bench: build ## run all benchmarks but those of the sync; BENCH=full compares in all combinations
	@BENCH="$(BENCH)" build/bench Benchmark . -timeout 3h -run '^$$' -bench . -benchmem -skip '^BenchmarkSync'

.PHONY: bench-sync
bench-sync: build ## run the benchmarks of the sync
	@build/bench BenchmarkSync . -run '^$$' -bench '^BenchmarkSync' -benchmem

.PHONY: soak
soak: build ## run the long tests, for hours
	@APPCONN_SOAK=1 build/bench TestSoak . -race -v -timeout 24h -run '^TestSoak'

.PHONY: dashboards
dashboards: build ## draw the Grafana dashboards of a run with traffic into bin/dashboards
	@build/dashboards bin/dashboards

.PHONY: lint
lint: go ## check style and find likely mistakes
	@linter="$(CACHE)/golangci-lint-$(GOLANGCI_LINT)-$$(go env GOVERSION)"
	build/once "$$linter" "golangci-lint $(GOLANGCI_LINT) (3 minutes on two cores)" \
		bash -c 'CGO_ENABLED=0 GOBIN="$$OUT" go install -v -trimpath -ldflags "-s -w" github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT)'
	for module in . localkube e2e/certmanager e2e/chart e2e/istio; do
		echo "lint: $$module"
		(cd "$$module" && $(PLAIN) "$$linter/golangci-lint" run --allow-serial-runners --timeout 30m ./...)
	done

.PHONY: generate
generate: go ## write generated code and manifests anew
	@go tool controller-gen object paths=./api/... crd output:crd:dir=manifests/crds
	@go generate ./...
	go generate ./manifests # the chart is made of what others have just written

.PHONY: verify
verify: go ## check that generated files and go.mod are up to date
	@build/verify

.PHONY: images
images: go ## make container images for amd64 and arm64 in bin/images
	@go run -trimpath ./build/images build

.PHONY: push
push: go ## push bin/images: REGISTRY=host/path
	@[ -n "$(REGISTRY)" ] || { echo "say where to: make push REGISTRY=registry.example.com/path" >&2; exit 1; }
	@go run -trimpath ./build/images push "$(REGISTRY)"

.PHONY: assets
assets: go ## print a KUBEBUILDER_ASSETS folder for envtest
	@build/localkube "$(CACHE)"

.PHONY: clean
clean: ## remove bin/; what is slow to build stays in the cache
	@rm -rf bin
	@echo "bin/ is removed; localkube, kubectl and the linter stay in $(CACHE)"

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Go fetches a newer version of itself if go.mod asks for one, unless told not to.
.PHONY: go
go:
	@need=$$(awk '$$1 == "go" {print $$2}' go.mod)
	if ! command -v go >/dev/null; then
		echo "Go $$need or newer is needed and there is no go in PATH: see https://go.dev/dl/" >&2
		exit 1
	fi
	if ! go version >/dev/null 2>&1; then
		echo "Go $$need or newer is needed, this is $$(cd / && go env GOVERSION): see https://go.dev/dl/" >&2
		exit 1
	fi

.ONESHELL:
