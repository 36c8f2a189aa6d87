# What a person types here. Everything is built from source; what a target
# needs of the machine it installs on Debian as root, or says what to install.

GO      ?= go
PREFIX  ?= /usr/local
DESTDIR ?=
# PIE=1 builds limpet-host as a static PIE (0.35 MB more per pod).
PIE     ?=
# WASMTIME_LIB=DIR links DIR/libwasmtime.a instead of the bundled engine.
WASMTIME_LIB ?=
# How long make test and make fuzz stay with each fuzz target.
FUZZTIME     ?= 3s
FUZZTIME_LONG ?= 60s
# make wasi-suite SUITE=DIR: a checkout of WebAssembly/wasi-testsuite.
SUITE   ?=
# KEEP=1 leaves what make demo started until Ctrl-C.
KEEP    ?=
# VERSION=1.2.3 stamps a version where git cannot say it (a source archive).
VERSION ?=

SHELL := /bin/sh
B     := build
need  := ./test/need.sh
link  := ./test/static.sh
PURE  := CGO_ENABLED=0
CGO   := CGO_ENABLED=1
BUILD := $(GO) build -trimpath
HOSTBUILD := $(BUILD) $(if $(PIE),-buildmode=pie)
EXTLD := $(if $(PIE),-static-pie,-static) -Wl,--gc-sections
ifneq ($(WASMTIME_LIB),)
HOSTBUILD := env CGO_LDFLAGS="-L$(abspath $(WASMTIME_LIB))" $(HOSTBUILD) -tags wasmtime_external
ENGINE := -X github.com/limpet-cri/limpet/wasm/wasmtime.engineBuild=$(shell sha256sum $(WASMTIME_LIB)/libwasmtime.a | cut -c1-16)
endif
LDFLAGS := -ldflags "-s -w$(if $(VERSION), -X main.release=$(VERSION))"
HOSTFLAGS := -ldflags "-s -w -linkmode=external -extldflags '$(EXTLD)' $(ENGINE)"
GOFILES = $$(git ls-files --cached --others --exclude-standard '*.go')
# Tests find the binaries and the guests here.
export LIMPET_BUILD := $(abspath .)
# A clone may belong to somebody else than root, who builds in it: git is told
# that this is meant, or the go command gets no version from it and stops.
export GIT_CONFIG_COUNT := 1
export GIT_CONFIG_KEY_0 := safe.directory
export GIT_CONFIG_VALUE_0 := $(abspath .)

.PHONY: help build reproducible demo test e2e bench fuzz lint wasi-suite guests arm64 install uninstall clean need-go need-cc need-root

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

need-go:
	@./test/need-go.sh $(GO)

need-cc: need-go
	@$(need) gcc=gcc /usr/include/stdlib.h=libc6-dev git=git

need-root:
	@[ "$$(id -u)" = 0 ] || { echo "This needs root: limpetd makes namespaces, cgroups and mounts for its pods. Run it as root." >&2; exit 1; }

build: need-cc ## bin/limpetd, bin/limpet-host, bin/limpet
	@mkdir -p bin
	$(PURE) $(BUILD) $(LDFLAGS) -o bin/limpetd ./cmd/limpetd
	$(CGO) $(link) $(HOSTBUILD) $(HOSTFLAGS) -o bin/limpet-host ./cmd/limpet-host
	$(PURE) $(BUILD) $(LDFLAGS) -o bin/limpet ./cmd/limpet

reproducible: build ## build again in another folder and compare
	@test/reproducible.sh

guests: need-cc ## the WebAssembly guests of guests/, from source, to build/guests
	@mkdir -p $(B)/bin
	@$(CGO) $(GO) build -o $(B)/bin/guests ./guests/build
	@$(B)/bin/guests guests $(B)/guests

demo: need-root ## see it: six pods through the CRI socket
	@$(MAKE) --no-print-directory build guests
	@$(PURE) $(GO) build -o $(B)/bin/demo ./test/demo
	@$(B)/bin/demo $(if $(KEEP),-keep)

$(B)/bin/suite: $(wildcard test/suite/*.go)
	@mkdir -p $(B)/bin
	@$(PURE) $(GO) build -o $@ ./test/suite

test: need-cc $(B)/bin/suite ## unit, integration, race detector, a little fuzzing
	@$(MAKE) --no-print-directory build guests
	@$(B)/bin/suite test unit -race ./... ; a=$$?; \
	 $(B)/bin/suite fuzz fuzz $(FUZZTIME) ; b=$$?; \
	 $(B)/bin/suite sum unit fuzz && [ $$a = 0 ] && [ $$b = 0 ]

fuzz: need-cc $(B)/bin/suite ## each fuzz target for a minute (FUZZTIME_LONG=...)
	@$(B)/bin/suite fuzz fuzz-long $(FUZZTIME_LONG) && $(B)/bin/suite sum fuzz-long

e2e: need-root need-cc $(B)/bin/suite ## crictl and a stock kubelet against limpetd
	@$(need) ip=iproute2
	@$(MAKE) --no-print-directory build guests
	@rm -f $(B)/sums/e2e
	@test/peers.sh $(B)/peers crictl kubelet || { $(B)/bin/suite sum e2e; exit 1; }
	@$(B)/bin/suite test e2e -tags e2e -count=1 -timeout 20m ./test/e2e ; $(B)/bin/suite sum e2e

bench: need-root need-cc ## Limpet beside containerd and runc: build/bench/pods.json
	@$(MAKE) --no-print-directory build guests
	@$(PURE) $(GO) build -o $(B)/bin/bench ./test/bench
	@rm -f $(B)/bench/pods.json
	@if $(need) pkg-config=pkg-config /usr/include/seccomp.h=libseccomp-dev && test/peers.sh $(B)/peers containerd runc; \
	then $(B)/bin/bench; \
	else echo "skipped: the comparison with containerd and runc, which could not be built (the reason is above)"; fi

lint: need-cc ## gofmt, go vet, staticcheck
	@bad=$$(gofmt -l $(GOFILES) </dev/null); [ -z "$$bad" ] || { echo "gofmt these: $$bad" >&2; exit 1; }
	@$(CGO) $(GO) vet -tags e2e ./...
	@mkdir -p $(B)/bin
	@cd test/tools && $(PURE) $(GO) build -o ../../$(B)/bin/staticcheck honnef.co/go/tools/cmd/staticcheck
	@$(CGO) $(B)/bin/staticcheck -tags e2e ./...
	@echo "lint: clean"

wasi-suite: need-cc $(B)/bin/suite ## SUITE=DIR: the preview 1 programs of WebAssembly/wasi-testsuite
	@[ -n "$(SUITE)" ] || { echo "make wasi-suite SUITE=DIR: a checkout of WebAssembly/wasi-testsuite" >&2; exit 1; }
	@WASI_TESTSUITE=$(abspath $(SUITE)) $(B)/bin/suite test wasi-suite -count=1 -run '^TestWasiTestsuite$$' ./wasm/wasip1 ; $(B)/bin/suite sum wasi-suite

ARM := GOARCH=arm64 CC=aarch64-linux-gnu-gcc
arm64: need-go $(B)/bin/suite ## cross-build for arm64, run the engine's tests under qemu-user
	@$(need) aarch64-linux-gnu-gcc=gcc-aarch64-linux-gnu /usr/aarch64-linux-gnu/include/stdlib.h=libc6-dev-arm64-cross qemu-aarch64=qemu-user
	@mkdir -p $(B)/arm64
	$(ARM) $(PURE) $(BUILD) $(LDFLAGS) -o $(B)/arm64/limpetd ./cmd/limpetd
	$(ARM) $(CGO) $(link) $(HOSTBUILD) $(HOSTFLAGS) -o $(B)/arm64/limpet-host ./cmd/limpet-host
	$(ARM) $(PURE) $(BUILD) $(LDFLAGS) -o $(B)/arm64/limpet ./cmd/limpet
	@$(ARM) $(CGO) $(B)/bin/suite test arm64 -exec "qemu-aarch64 -L /usr/aarch64-linux-gnu" ./wasm/wasmtime ; $(B)/bin/suite sum arm64

install: build ## to PREFIX (/usr/local), with the unit and the default config
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)/etc/limpet $(DESTDIR)/etc/systemd/system
	install -m 0755 bin/limpetd bin/limpet-host bin/limpet $(DESTDIR)$(PREFIX)/bin/
	sed 's|/usr/local/bin|$(PREFIX)/bin|' packaging/limpetd.service >$(DESTDIR)/etc/systemd/system/limpetd.service
	[ -e $(DESTDIR)/etc/limpet/limpetd.toml ] || bin/limpetd config default >$(DESTDIR)/etc/limpet/limpetd.toml

uninstall: ## what install put there; pods, images and the config stay
	rm -f $(DESTDIR)$(PREFIX)/bin/limpetd $(DESTDIR)$(PREFIX)/bin/limpet-host $(DESTDIR)$(PREFIX)/bin/limpet $(DESTDIR)/etc/systemd/system/limpetd.service

clean: ## bin/ and build/
	rm -rf bin build
