# dev: build, test, show. `make help` lists the targets.
#
# Two commands are enough on a bare Debian or Ubuntu with Go and git: `make demo` and `make test`. Both install what they need (sudo only if
# not root); on other systems they say what to install. Variables: VERSION, ARCH, GO, FUZZTIME, BENCH.

GO      ?= go
GOOS    := $(shell $(GO) env GOOS)
GOARCH  := $(shell $(GO) env GOARCH)
ARCH    ?= $(GOARCH)
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

PLATFORMS := linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64
PEER      := github.com/docker/compose/v5/cmd@v5.0.2
LINT      := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

# Release flags. CGO_ENABLED=0: one static program that runs on any distribution.
LDFLAGS := -s -w -X github.com/seed71221737/dev/cmd.Version=$(VERSION)
# A module file beside ours in which one dependency starts faster: docs/adr/0003-lazy-json-schema.md.
LAZY    := dist/lazyschema
RELEASE := -modfile=$(LAZY)/go.mod -trimpath -buildvcs=false -ldflags '$(LDFLAGS)'

# The programs for builds and host agents are embedded, too: docs/adr/0005-programs.md.
CARRIED := -modfile=$(LAZY)/go.mod -trimpath -buildvcs=false "-ldflags=$(LDFLAGS)"

# The engine's bundle is embedded where it can run: on Linux, once `make engine` has made it.
BUNDLE := engine-linux-$(GOARCH).tar.zst

.DEFAULT_GOAL := build
.PHONY: help build engine bundle demo demo-test demo-vm test peers cross bench bench-vm bench-vm-ls lint fmt man clean deps lazyschema

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: lazyschema ## build bin/dev, with its other programs inside it, and the engine if `make engine` has made one
	@mkdir -p bin
	@$(GO) run ./hack/carry -os $(GOOS) -arch $(GOARCH) -o dist/carried-$(GOOS)-$(GOARCH) -- $(CARRIED)
	@if [ '$(GOOS)' = linux ] && [ -f 'dist/$(BUNDLE)' ]; then \
		ln -f 'dist/$(BUNDLE)' 'engine/native/$(BUNDLE)' && set -- -tags bundle; \
	fi; \
	CGO_ENABLED=0 $(GO) build $(RELEASE) -overlay=dist/carried-$(GOOS)-$(GOARCH)/overlay.json "$$@" -o bin/ ./cmd/dev
	@echo "built bin/dev $(VERSION)"

engine: deps ## build the engine that dev carries into dist/ (ARCH=amd64, arm64 or all); nothing to do if it is up to date
	cd engine/bundle && $(GO) run . -arch $(ARCH) -o ../../dist

bundle: engine

demo: deps engine build ## build all, run examples/guestbook with bin/dev and show its page
	$(GO) run ./hack/demo

demo-test: deps engine build ## the demo under another project name and port, taken down afterwards
	$(GO) run ./hack/demo -test

demo-vm: deps engine build ## the example in a virtual machine under QEMU, with a folder of this host in it: files reload, and the machine is suspended, resumed, stopped, started and upgraded, then removed
	@hack/deps.sh machines
	$(GO) run ./hack/demo -vm

test: deps peers ## everything that proves the product; says at the end what ran and what was skipped
	DEV_TEST_COMPOSE='$(CURDIR)/dist/peers/docker-compose' DEV_TEST_DOCKER='$(CURDIR)/dist/peers/docker' DEV_TEST_TESTCONTAINERS='$(CURDIR)/dist/peers/testcontainers' $(GO) run ./hack/check

peers: ## build docker compose, the docker CLI and a program with testcontainers-go into dist/peers, for the tests and benchmarks that use them
	@[ -x dist/peers/docker-compose ] || { mkdir -p dist/peers; \
		GOBIN='$(CURDIR)/dist/peers' $(GO) install -trimpath -ldflags '-s -w -X github.com/docker/compose/v5/internal.Version=v5.0.2' $(PEER) && mv dist/peers/cmd dist/peers/docker-compose; }
	@[ -x dist/peers/testcontainers ] || (cd engine/enginetest/testcontainers && $(GO) test -c -trimpath -ldflags '-s -w' -o '$(CURDIR)/dist/peers/testcontainers' .) || \
		echo 'peers: the program with testcontainers-go could not be built: its test is skipped'
	@[ -x dist/peers/docker ] || hack/docker-cli.sh dist/peers/docker || echo 'peers: the docker CLI could not be built: its tests are skipped'

cross: lazyschema ## cross-compile for linux, darwin and windows on amd64 and arm64 into dist/, and vet the tests for each system
	@set -e; for p in $(PLATFORMS); do \
		os=$${p%/*}; arch=$${p#*/}; ext=; [ $$os != windows ] || ext=.exe; \
		echo "build dist/dev-$$os-$$arch$$ext"; \
		$(GO) run ./hack/carry -os $$os -arch $$arch -o dist/carried-$$os-$$arch -- $(CARRIED); \
		CGO_ENABLED=0 GOOS=$$os GOARCH=$$arch $(GO) build $(RELEASE) -overlay=dist/carried-$$os-$$arch/overlay.json -o dist/dev-$$os-$$arch$$ext ./cmd/dev; \
	done
	@set -e; for os in darwin windows; do echo "vet for $$os"; CGO_ENABLED=0 GOOS=$$os $(GO) vet ./...; done

bench: deps engine build peers ## measure dev side by side with docker compose, for docs/performance.md; BENCH='-pairs=9' for more
	$(GO) test ./bench -count=1 -timeout=90m -run=TestMeasure -v -measure -output='$(CURDIR)/dist/bench.md' $(BENCH)

# The rows that need no virtual machine come last: `make bench-vm-ls` takes those alone.
BENCH_VM = $(CURDIR)/dist/bench-vm.md
IN_VM    = DEV_TEST_VM=1 DEV_TEST_VM_IMAGE='$(CURDIR)/dist/bench-vm-images' DEV_TEST_MACHINE_IMAGE='$(CURDIR)/dist/bench-vm-images/amd64'

bench-vm: deps engine build ## measure machines for docs/performance-vm.md: boots beside a Debian guest with systemd, ports, API, commands, sleep, shares, agent (needs root; sshfs is compared if it is installed); BENCH='-boots=9' for more
	@hack/deps.sh machines
	$(IN_VM) $(GO) test ./vmimage -count=1 -timeout=30m -run='^TestVMBuildImages$$'
	$(IN_VM) $(GO) test ./vmimage -count=1 -timeout=90m -run=TestVMMeasure -v -measure-vm='$(BENCH_VM)' $(BENCH)
	$(IN_VM) $(GO) test ./hostagent/daemon -count=1 -timeout=30m -run='^TestVMPorts$$' -v -measure-vm='$(BENCH_VM)'
	$(IN_VM) $(GO) test ./cmd -count=1 -timeout=60m -run='^TestMeasure(Machine|Shares)$$' -v -measure-vm='$(BENCH_VM)'
	@$(MAKE) --no-print-directory bench-vm-ls

bench-vm-ls: ## the rows of bench-vm without a virtual machine: the status of 20 machines, one of them hung; a port of the agent
	@mkdir -p dist
	@{ printf '\n## Without a virtual machine\n\n```\n'; \
		$(GO) test ./machine -run='^$$' -bench='^BenchmarkStatuses$$' -benchtime=20x; \
		$(GO) test ./hostagent/network -run='^$$' -bench=.; printf '```\n'; } | tee -a '$(BENCH_VM)'

lint: ## run golangci-lint (.golangci.yml), and shellcheck if it is installed
	$(GO) run $(LINT) run ./...
	@if command -v shellcheck >/dev/null; then set -x; shellcheck .ci/run hack/*.sh; else echo 'shellcheck: not installed, skipped'; fi

fmt: ## format the Go files
	@git ls-files -co --exclude-standard -- '*.go' | xargs gofmt -l -w

man: ## write the manual pages into dist/man
	$(GO) run ./hack/man dist/man

clean: ## remove what was built; the engine's build stays in Go's cache
	rm -rf bin dist engine/native/engine-linux-*.tar.zst

deps: ## install what the other targets need (Debian, Ubuntu), or say what to install
	@hack/deps.sh

# Not a target of its own for users: the module file that release builds use.
lazyschema:
	@mkdir -p $(LAZY)
	@$(GO) run ./hack/lazyschema $(LAZY)
