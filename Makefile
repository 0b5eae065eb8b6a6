# Every command a developer needs; `make` alone prints them.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -X main.version=$(VERSION)

# Programs by the folder of their main.go.
BINARIES := $(foreach p,proxy:atlas proxy/floor:floor harness:harness compare:compare,\
	$(if $(wildcard $(firstword $(subst :, ,$(p)))/main.go),bin/$(lastword $(subst :, ,$(p)))))

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: build
build: $(BINARIES) ## the programs, into bin/

# The go command knows better than make what is out of date.
.PHONY: $(BINARIES)
bin/atlas: FOLDER := proxy
bin/floor: FOLDER := proxy/floor
bin/harness: FOLDER := harness
bin/compare: FOLDER := compare
$(BINARIES):
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./$(FOLDER)

.PHONY: check
check: ## before each commit: format, vet, staticcheck, repo rules, unit tests, every benchmark once
	@test -z "$$(gofmt -l . | tee /dev/stderr)" || { echo "fix with: gofmt -w ."; exit 1; }
	go vet ./...
	go tool staticcheck ./...
	go test -short ./...
	go test -run '^$$' -bench . -benchtime 1x ./...
