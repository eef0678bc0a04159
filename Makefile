# weft's tasks. Each one first prepares the machine (scripts/setup.sh installs what is missing and reports it on standard
# error). Pass arguments with ARGS: make lab ARGS="--hosts 3 --json"
#
# Recipes print nothing of their own: with --json, standard output holds the JSON and nothing else.
.SILENT:
.NOTPARALLEL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
SHELL := /bin/sh
ARGS ?=
ENTRIES ?=
FRAMES ?=
OUTAGE_SECONDS ?= 120
MINUTES ?= 30
OWN_ARCH := $(if $(filter aarch64,$(shell uname -m)),arm64,amd64)
# What dist and image are made for: amd64, arm64, or both.
ARCH ?= $(OWN_ARCH)

.PHONY: help lab test unit netns check fast-path e2e e2e-kind faults diagnosis healthy-runs lost-packets away bench bench-scale bench-cni bench-start-up bench-idle bench-page bench-profile soak cni-plugin fuzz node24 dist image page browser screenshots clean

help: ## show this list
	echo 'make TARGET [ARGS="..."]'
	awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile

lab: ## run three hosts on this machine with real agents and packets, and show the path of one packet (root)
	scripts/setup.sh lab
	$(MAKE) dist/page/index.html
	bin/weft lab $(ARGS)

test: ## static checks, unit tests, tests in network namespaces (root)
	scripts/setup.sh test
	$(MAKE) check unit netns

check: ## types, lint, dead code
	scripts/setup.sh unit
	scripts/test.sh check

unit: ## unit and property tests (no root)
	scripts/setup.sh unit
	scripts/test.sh unit $(ARGS)

netns: ## tests in network namespaces with real TUN devices (root)
	scripts/setup.sh netns
	$(MAKE) dist/page/index.html
	scripts/test.sh netns $(ARGS)

fast-path: ## agents that end, come back and are replaced under traffic, of which nothing may be lost (root)
	scripts/setup.sh netns
	scripts/test.sh fast-path $(ARGS)

e2e: ## tests with real servers, nodes and the image: etcd, Kubernetes, containerd (root)
	scripts/setup.sh e2e dist-$(OWN_ARCH)
	$(MAKE) dist/page/index.html dist/weft-image.tar ARCH=$(OWN_ARCH)
	# Minutes the first time, which no test has to wait for.
	scripts/run.sh scripts/build-kubernetes.ts >&2
	scripts/test.sh e2e $(ARGS)

e2e-kind: ## a real kind cluster with the commands of docs/INSTALL.md, on a separate Docker (root)
	scripts/setup.sh kind dist-$(OWN_ARCH)
	$(MAKE) dist/weft-image.tar ARCH=$(OWN_ARCH)
	# Minutes the first time, which no test has to wait for: Kubernetes, kind, containerd, and the image of kind's nodes.
	scripts/run.sh scripts/build-kind.ts >&2
	scripts/test.sh kind $(ARGS)

faults: ## measure what faults cost, with real servers, as a table; OUTAGE_SECONDS=5 for a quick run (root)
	scripts/setup.sh e2e
	mkdir -p .cache
	rm -f .cache/faults.jsonl
	WEFT_OUTAGE_SECONDS=$(OUTAGE_SECONDS) WEFT_FAULTS_REPORT=$(CURDIR)/.cache/faults.jsonl \
	  scripts/test.sh e2e --test-concurrency=1 test/e2e/faults-etcd.test.ts test/e2e/faults-kube.test.ts test/e2e/faults-address-etcd.test.ts \
	  test/e2e/faults-address-kube.test.ts test/e2e/faults-start.test.ts \
	  test/e2e/faults-clock.test.ts $(ARGS) >&2
	scripts/run.sh scripts/faults-table.ts .cache/faults.jsonl $(DOCUMENT)

diagnosis: ## inject faults into running hosts, and see what weft test, trace and capture say of them (root)
	scripts/setup.sh netns
	scripts/test.sh diagnosis $(ARGS)

RUNS = 1000
healthy-runs: ## weft test on three hosts on which nothing is wrong, again and again; RUNS=1000 (root)
	scripts/setup.sh netns
	WEFT_HEALTHY_RUNS=$(RUNS) scripts/test.sh diagnosis --test-timeout=14400000 test/diagnosis/healthy-runs.test.ts

PACKETS = 1000000
lost-packets: ## send packets into faults, and find each that is lost in the agents' figures; PACKETS=1000000 (root)
	scripts/setup.sh netns
	WEFT_LOST_PACKETS=$(PACKETS) scripts/test.sh diagnosis test/diagnosis/lost-packets.test.ts

AWAY_SECONDS = 600
away: ## leave both agents and their store away under a thousand pings a second, with the fast path; AWAY_SECONDS=600 (root)
	scripts/setup.sh netns
	WEFT_AWAY_SECONDS=$(AWAY_SECONDS) scripts/test.sh fast-path --test-timeout=14400000 --test-name-pattern='both agents and the store are away' \
	  test/fast-path/away.test.ts

bench: ## compare weft with direct routing, VXLAN, a one-packet loop and wireguard-go; ARGS="--quick --json" (root)
	scripts/setup.sh bench
	scripts/run.sh bench/main.ts $(ARGS)

bench-scale: ## measure thousands of nodes on a real etcd and API server (root)
	scripts/setup.sh bench
	scripts/run.sh bench/scale.ts $(ARGS)

bench-start-up: dist ## compare the executable of make dist with the sources: size, and time to the first answer
	scripts/run.sh bench/start-up.ts $(ARGS)

bench-idle: dist ## measure memory, processor time and wakes of agents at rest; ARGS="--fast-path off --store local" (root)
	scripts/setup.sh bench
	scripts/run.sh bench/idle.ts $(ARGS)

bench-page: ## measure what the page of weft ui costs three hosts, and how soon a fault is red on it; ARGS="--screen /host/h1" (root)
	scripts/setup.sh bench browser
	$(MAKE) dist/page/index.html
	scripts/run.sh bench/page.ts $(ARGS)

bench-profile: ## sample the processors while one TCP stream runs, and show where the time of 64 KB goes; ARGS="--rounds 5" (root)
	scripts/setup.sh bench profile
	scripts/run.sh bench/profile.ts $(ARGS)

soak: ## known bytes at full rate while agents are killed, and links, routes and packets spoiled; MINUTES=30 (root)
	scripts/setup.sh netns
	scripts/run.sh bench/soak.ts --minutes $(MINUTES) $(ARGS)

bench-cni: ## measure how long a pod waits for its network, for each way to start the plugin; ARGS="--runs 30" (root)
	scripts/setup.sh netns
	scripts/run.sh bench/cni.ts $(ARGS)

cni-plugin: ## build the CNI plugin as one file, dist/flannel.cjs, which bin/flannel then runs
	scripts/setup.sh unit
	scripts/run.sh scripts/build-cni.ts

fuzz: ## random packets through the data plane's core, entries through the stores' parsers, frames through the fast path's programs (root); ARGS="--packets 10000000" ENTRIES="--entries 1000000" FRAMES="--frames 1000000"
	scripts/setup.sh unit
	scripts/run.sh test/fuzz/dataplane-fuzz.ts $(ARGS)
	scripts/run.sh test/fuzz/entry-fuzz.ts $(ENTRIES)
	scripts/run.sh test/fuzz/program-fuzz.ts $(FRAMES)

node24: ## run the unit tests on the oldest supported Node.js
	scripts/setup.sh unit node24
	WEFT_NODE=$$(echo "$(CURDIR)"/test/node24/node_modules/node-linux-*/bin/node) scripts/test.sh unit $(ARGS)

dist: ## build all programs as one executable that needs no Node.js: dist/linux-ARCH/weft; ARCH="amd64 arm64"
	scripts/setup.sh unit $(ARCH:%=dist-%)
	flock .cache/dist.lock scripts/run.sh scripts/build-dist.ts $(ARCH)

image: ## build the container image as an OCI archive, without Docker: dist/weft-image.tar; ARCH="amd64 arm64"
	scripts/setup.sh unit $(ARCH:%=dist-%)
	flock .cache/dist.lock scripts/run.sh scripts/build-image.ts $(ARCH)

page: ## the page of weft ui, dist/page: bin/weft serves it; the executable has it in itself
	scripts/setup.sh unit
	flock .cache/page.lock scripts/run.sh scripts/build-page.ts >&2

# Only when something that goes into it has changed: folders too, whose files may have been removed.
dist/page/index.html: $(shell find web package-lock.json scripts/build-page.ts scripts/packaging/page.ts ! -name '*.test.ts')
	$(MAKE) page

screenshots: ## the pictures of the page in docs/images, from a running lab (root)
	scripts/setup.sh browser
	$(MAKE) dist/page/index.html
	scripts/run.sh scripts/screenshots.ts

browser: ## tests of the page in Debian's Chromium, with a running lab (root)
	scripts/setup.sh browser
	$(MAKE) dist/page/index.html
	scripts/test.sh browser $(ARGS)

# Only when something that goes into it has changed; `make image` makes it in any case.
dist/weft-image.tar: $(shell find src web scripts deploy/image package.json package-lock.json -type f ! -name '*.test.ts')
	flock .cache/dist.lock scripts/run.sh scripts/build-image.ts $(ARCH) >&2

clean: ## remove what make created in this directory (not labs: weft lab down; not Debian packages)
	rm -rf node_modules test/node24/node_modules test/e2e/cyclonedx/node_modules dist .cache
