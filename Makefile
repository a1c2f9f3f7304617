# The targets that people expect. `make` alone lists them.

GO ?= go

.PHONY: help build test race stress soak kill-rounds bench bench-short fuzz lint fmt demo release clean

help:
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

build: ## bin/srvrelay, static
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/srvrelay ./cmd/srvrelay

test: ## all tests, about four minutes
	$(GO) test ./...

race: ## the same with the race detector
	$(GO) test -race -shuffle=on -timeout 30m ./...

stress: ## the long ones: power cuts, kill -9 under load, a soak, a million messages in virtual time, packages in a clean Debian
	SRVRELAY_STRESS=1 $(GO) test -count=1 -timeout 40m -run 'Kill9|DiskFull|Soak|Load|ParkedHop|FullQueue|PowerCut|Model|Fair|Million|Package' ./queue/... ./delivery ./cmd/... -v

SOAK ?= 5m
soak: ## SOAK of load at 70 % of capacity while faults come and go; as root, else no disk is filled
	SRVRELAY_SOAK=$(SOAK) $(GO) test -count=1 -timeout 24h -run '^TestSoak$$' ./cmd/srvrelay -v

KILL_ROUNDS ?= 1000
kill-rounds: ## kill -9 under load, KILL_ROUNDS times
	SRVRELAY_KILL_ROUNDS=$(KILL_ROUNDS) $(GO) test -count=1 -timeout 3h -run '^TestKill9$$' ./cmd/srvrelay -v

BENCH ?=
bench: ## speed, memory and latency against the goals and Postfix, 20 minutes
	$(GO) run ./cmd/relaybench run $(BENCH)

bench-short: ## the same in two minutes, with a short queue
	$(GO) run ./cmd/relaybench run -repeats 1 -each 1s -n 10000 $(BENCH)

FUZZTIME ?= 10m
fuzz: ## every fuzz target in turn, FUZZTIME each
	@for p in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz'); do \
	    echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$p || exit 1; \
	  done; done

lint: ## formatting, vet, staticcheck
	@test -z "$$(gofmt -l .)" || { echo "gofmt would change:"; gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(GO) tool -modfile=.ci/tools/go.mod staticcheck ./...

fmt: ## format the code
	gofmt -w .

demo: ## see it work
	$(GO) run ./cmd/srvrelay demo

release: ## dist/: archives, deb, rpm, formula, SBOM, checksums; VERSION=1.2.3, the same bytes each time
	.ci/release/build

clean: ## remove what build and release made
	rm -rf bin dist
