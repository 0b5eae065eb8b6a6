# Every command a developer needs; `make` alone prints them. CI calls only
# these. make turns every failure into exit status 2; where the status says
# more, as with the gate, call the program in bin/.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-print-directory

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
ROOT := $(if $(filter-out 0,$(shell id -u)),sudo)

# Every program by the folder of its main.go, as far as it is there.
PROGRAMS := $(foreach p,proxy:atlas proxy/floor:floor harness:harness compare:compare,\
	$(if $(wildcard $(firstword $(subst :, ,$(p)))/main.go),bin/$(lastword $(subst :, ,$(p)))))

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: setup
setup: ## install what is missing: a C compiler for the race detector, the lab's servers and tools, a browser
	@command -v cc >/dev/null || { echo "installing a C compiler"; $(ROOT) apt-get -qq update; \
		$(ROOT) env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install gcc libc6-dev; }
	@bash harness/setup.sh chromium

.PHONY: lab-setup
lab-setup:
	@bash harness/setup.sh

.PHONY: build
build: $(PROGRAMS) ## the programs, into bin/

# The go command knows better than make what is out of date.
.PHONY: $(PROGRAMS)
bin/atlas: FOLDER := proxy
bin/floor: FOLDER := proxy/floor
bin/harness: FOLDER := harness
bin/compare: FOLDER := compare
$(PROGRAMS):
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-X main.version=$(VERSION)' -o $@ ./$(FOLDER)

.PHONY: check
check: lint ## before each commit: lint, repo rules, short tests, every benchmark once
	go test -short ./...
	$(MAKE) benchmarks

.PHONY: lint
lint: ## format, vet, staticcheck
	@bad=$$(gofmt -l .); [ -z "$$bad" ] || { echo "not formatted, run gofmt -w:"; echo "$$bad"; exit 1; }
	go vet ./...
	go tool staticcheck ./...

.PHONY: benchmarks
benchmarks: ## every benchmark once, to see that it runs
	go test -run '^$$' -bench . -benchtime 1x ./...

# Most tests wait for time-outs more than they work, so more of them at a time than there
# are cores.
TOGETHER = -p 4 -parallel 4

# Tests run on both engines of their own accord; scripts take one at a time.
.PHONY: test
test: setup build ## all tests, on both engines
	go test $(TOGETHER) ./...
	ATLAS_TEST_ENGINE=netpoll go test -run Script ./proxy

# The short form leaves to each night what has no goroutines or no invariants of its own:
# parsers and tables, the lab's programs, which are processes beside each other, and
# what only they are made of. Compiling those once more takes longer than the tests do.
ALONE = /(compare|results|scenarios|harness/(cert|conformance|corpus|subject))(/|$$)|/harness$$|^atlas$$|/proxy/(h1|config|reference|doctor)$$

# lint has vetted all of it, and would here as long again.
.PHONY: race
race: ## all tests under the race detector, with invariants; SHORT=1 for short ones of what has goroutines
	@command -v cc >/dev/null || { echo "the race detector needs a C compiler: make setup"; exit 1; }
	go test -race -tags invariants -vet=off $(TOGETHER) -timeout 20m \
		$(if $(SHORT),-short $$(go list ./... | grep -vE '$(ALONE)'),./...)

.PHONY: netpoll
netpoll: ## all tests with the fallback engine forced
	ATLAS_TEST_ENGINE=netpoll go test ./...

.PHONY: script
script: build ## the programs end to end, proxy/testdata/script/*.txtar
	go test -run Script ./...

# CI gives a number of inputs: on a busy machine go test fails at the end of a time
# with "context deadline exceeded", which is no finding.
T ?= 30s
.PHONY: fuzz
fuzz: ## every fuzz target for T=30s each, or T=5000x inputs; ONLY=FuzzConfig for one
	@grep -rlE '^func Fuzz' --include='*_test.go' . | sort | while read -r file; do \
		for target in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' "$$file"); do \
			[ "$${ONLY:-$$target}" = "$$target" ] || continue; \
			echo "$$(dirname "$$file") $$target"; \
			go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(T) "$$(dirname "$$file")"; \
		done; \
	done

# 60s unless the command line says otherwise: T is there for fuzz already.
.PHONY: chaos
chaos: T = 60s
chaos: ## T=60s of killed upstreams and bad clients, half on each engine; RACE=1, CHAOS_SEED=n from a failure
	ATLAS_CHAOS=$(T) go test $(if $(RACE),-race -tags invariants) -count 1 -timeout 0 -v -run '^TestProcessChaos$$' ./proxy

# N is of changes in a row, each on each engine, plain and with TLS.
N ?= 50
.PHONY: upgrades
upgrades: ## N=50 reloads and N=50 upgrades in a row under load, on both engines, and of nginx, into results/runs/
	@mkdir -p results/runs
	ATLAS_UPGRADES=$(N) ATLAS_COMMIT=$(VERSION) ATLAS_UPGRADES_FILE=$(CURDIR)/results/runs/upgrades-$(VERSION).bench \
		go test -count 1 -timeout 60m -v -run '^TestUpgrade(UnderLoad|Compared)$$' ./proxy | grep -v '^=== '

.PHONY: microbench
microbench: ## benchmarks of PKG=./proxy/h1, ten times, into results/runs/; BENCH=regexp for some of them
	@[ -n "$(PKG)" ] || { echo "say which: make microbench PKG=./proxy/h1"; exit 1; }
	@mkdir -p results/runs
	go test -run '^$$' -bench '$(or $(BENCH),.)' -benchmem -count 10 $(PKG) | \
		tee results/runs/micro-$(subst /,-,$(patsubst ./%,%,$(PKG)))-$(VERSION).txt

# The module links on today's Go only with that flag, so it is not part of ./...
.PHONY: iouringgo
iouringgo: ## the echo benchmark on the top-level API of iouring-go, beside ours on both engines
	go vet -tags iouringgo ./proxy/loop/iouringgo
	go test -run '^$$' -bench Echo ./proxy/loop
	go test -tags iouringgo -ldflags=-checklinkname=0 -timeout 60s -run '^$$' -bench Echo ./proxy/loop/iouringgo

.PHONY: golden
golden: ## rewrite every golden, then look at git diff
	@grep -rlE 'flag\.Bool\("update"' --include='*_test.go' . | xargs -r -n 1 dirname | sort -u | while read -r folder; do \
		go test "$$folder" -update; \
	done
	git diff --stat

.PHONY: cross
cross: ## build and vet the proxy for the systems and processors that are not this one
	@for target in linux/amd64 linux/arm64 darwin/arm64 freebsd/amd64; do \
		echo "$$target"; \
		CGO_ENABLED=0 GOOS=$${target%/*} GOARCH=$${target#*/} go build -o /dev/null ./proxy/...; \
		CGO_ENABLED=0 GOOS=$${target%/*} GOARCH=$${target#*/} go vet ./proxy/...; \
	done

.PHONY: container-test
container-test: build ## the image of deploy/Dockerfile under Docker, with io_uring and without
	bash deploy/with-docker.sh bash deploy/container-test.sh

.PHONY: images
images: build ## the images of docker-compose.yml: pulled, or built of this machine's packages where none can be
	@bash deploy/images.sh

.PHONY: up
up: build ## origin, nginx, HAProxy and Atlas in containers, to look at; make down stops them
	@images=$$(bash deploy/images.sh) && eval "$$images" && bin/harness up

.PHONY: down
down: build ## stop what make up started
	bin/harness down

.PHONY: compose-test
compose-test: lab-setup build ## up, down and a short run in containers, with docker-compose or docker compose
	bash deploy/with-docker.sh bash deploy/compose-test.sh

.PHONY: hosts-test
hosts-test: lab-setup build ## the lab on two hosts: a network namespace with a Docker daemon is the other one; as root
	bash deploy/with-docker.sh bash deploy/hosts-test.sh

.PHONY: bench
bench: lab-setup build ## the lab, quick; FULL=1 the long form, CURVES=1 the curves, SCENARIO='static-*' a part, LAUNCH=compose in containers
	$(strip $(if $(filter compose,$(LAUNCH)),images=$$(bash deploy/images.sh) && eval "$$images" && )bin/harness run $(if $(LAUNCH),-launch $(LAUNCH)) $(if $(FULL),-full) $(if $(CURVES),-curves) $(if $(SCENARIO),-scenario '$(SCENARIO)'))

# The dearer two are there so that the servers are the limit, and not the load.
GENERATORS_OF = atlas,nginx-best,nginx-readme,go-nethttp
.PHONY: generators
generators: lab-setup build ## do wrk and vegeta agree on Atlas beside nginx? five minutes; SCENARIO=proxy-1k for another load
	@runs=$$(bin/harness run -together -generator wrk,vegeta -subject '$(GENERATORS_OF)' -count 22 -duration 2s \
		-scenario '$(or $(SCENARIO),static-1k)' | tee -a /dev/stderr | sed -n 's/^results: //p' || [ $$? = 3 ]); \
	bin/compare generators $$runs

# All subjects of a load stand side by side: what requests cost is measured of all at
# once, the tail of each in turns. A sample that was refused (status 3) leaves the others.
GOALS = static-1k,proxy-1k,tls-proxy-1k,tls-static-1k
GOALS_OF = atlas,atlas-netpoll,nginx-best,nginx-readme,haproxy,floor,go-nethttp
TAILS_OF = atlas,nginx-best,haproxy,floor
.PHONY: goals
goals: lab-setup build ## how close is Atlas to what it is to reach? compare/goals.toml; docs/lab.md has the other rows
	@run() { bin/harness run -together -count 10 "$$@" | tee -a /dev/stderr | \
		sed -n 's/^results: //p' || [ $$? = 3 ]; }; \
	cost=$$(run -scenario '$(GOALS)' -subject '$(GOALS_OF)' -duration 3s); \
	tail=$$(run -scenario '*-busy' -subject '$(TAILS_OF)' -duration 2s); status=0; \
	for one in "$$cost" "$$tail"; do bin/compare goals "$$one" || status=$$?; done; exit $$status

.PHONY: report
report: build ## the page of charts of RUN=results/runs/X/results.bench, or of the last run that measured
	@run='$(RUN)'; \
		[ -n "$$run" ] || run=$$(grep -L '^form: count' results/runs/*/results.bench 2>/dev/null | sort | tail -n 1) || true; \
		[ -n "$$run" ] || { echo "no run here has measured anything (harness count only counts): make bench"; exit 1; }; \
		bin/compare report "$$run"

.PHONY: numbers
numbers: bin/compare ## the tables of README.md and docs/numbers.md anew, from the committed runs that they name
	bin/compare numbers README.md docs/numbers.md

.PHONY: conformance
conformance: lab-setup build ## the corpus of HTTP/1 rules through Atlas, nginx and HAProxy; DOCS=1 rewrites docs/conformance.md
	bin/harness conformance $(if $(DOCS),-o docs/conformance.md)

.PHONY: gate
gate: gate-base lab-setup build ## does the tree cost more than BASE=ref? SCENARIO=static-1k for a part, QUICK=1 for half of the time
	bin/harness gate -base '$(BASE)' $(if $(SCENARIO),-scenario '$(SCENARIO)') $(if $(QUICK),-quick)

# Who forgot it is told before anything is installed or built.
.PHONY: gate-base
gate-base:
	@[ -n "$(BASE)" ] || { echo "say which: make gate BASE=origin/main"; exit 1; }

.PHONY: calibrate
calibrate: lab-setup build ## what the gate can see on this machine; STUDY=1 for the 90 minutes of its promise
	bin/harness calibrate $(if $(STUDY),-study)

.PHONY: selftest
selftest: lab-setup build ## does the gate pass what is the same, and fail what was slowed down?
	bin/harness selftest

.PHONY: ci
ci: ## exactly what CI runs for each change
	./.ci/run
