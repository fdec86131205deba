# The commands of the project; `make help` lists them. Every one sets up what it needs first
# (tools/setup.sh), says so, and does nothing there the second time.

SHELL := /bin/bash
SOURCES := $(shell find boot kernel drivers -type f) asconfig.json package-lock.json
TOOLS := $(wildcard tools/*.ts)
HARNESS := $(shell find test/harness/src -name '*.ts')

.PHONY: help image run test rates conformance fuzz mutants format clean

help:
	@echo 'make image        build build/vireo.elf (and build/vireo.map)'
	@echo 'make run          boot it under QEMU with user networking, no root needed; RUN="--help" for options'
	@echo 'make test         build, check and test everything; TEST="--help" for options'
	@echo 'make rates        frames per second with DPDK behind vhost-user; wants root and two idle CPUs'
	@echo 'make conformance  list the clauses of virtio 1.4 with code and tests (docs/conformance.md)'
	@echo 'make fuzz         a million hostile cases, guided by coverage; FUZZ="--help" for options'
	@echo 'make mutants      put faults into copies of the driver: do the tests notice? MUTANTS="--help"'
	@echo 'make format       bring all sources into the form that the tests ask for'
	@echo 'make clean        remove build/'

image: build/vireo.elf

build/tools/%.mjs: tools/%.ts $(TOOLS)
	@tools/setup.sh build
	@node_modules/.bin/esbuild $< --bundle --platform=node --format=esm --target=node20 \
		--packages=external --alias:qemu-test-harness=./test/harness/src/index.ts \
		--outfile=$@ --log-level=warning

HOSTILE := $(shell find test/model test/hostile -name '*.ts')

build/tools/run.mjs build/tools/test.mjs: $(HARNESS)
build/tools/fuzz.mjs: $(HARNESS) $(HOSTILE)

# The unit tests load the module itself, which is one step of the image.
build/vireo.elf build/vireo.wasm &: $(SOURCES) build/tools/build-image.mjs
	@tools/setup.sh build
	@echo 'building build/vireo.elf'
	@node build/tools/build-image.mjs

run: build/vireo.elf build/tools/run.mjs
	@tools/setup.sh run
	@exec node build/tools/run.mjs $(RUN)

test: build/vireo.elf build/vireo.wasm build/tools/test.mjs build/tools/conformance.mjs
	@tools/setup.sh test
	@exec node build/tools/test.mjs $(TEST)

rates: build/vireo.elf
	@tools/setup.sh test
	@exec node test/harness/bin/qemu-test-harness.mjs run test/bench

conformance: build/vireo.wasm build/tools/conformance.mjs
	@tools/setup.sh build
	@exec node build/tools/conformance.mjs

fuzz: build/tools/fuzz.mjs
	@tools/setup.sh build
	@exec node build/tools/fuzz.mjs $(FUZZ)

mutants: build/tools/mutants.mjs
	@tools/setup.sh build
	@exec node build/tools/mutants.mjs $(MUTANTS)

format:
	@tools/setup.sh test
	@node_modules/.bin/biome check --write --log-level=error .
	@clang-format -i boot/*.c boot/*.h

clean:
	@rm -rf build
