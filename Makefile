# The commands of the project; `make help` lists them. Every one sets up what it needs first
# (tools/setup.sh), says so, and does nothing there the second time.

SHELL := /bin/bash
SOURCES := $(shell find boot kernel drivers -type f -not -path 'boot/process/*') asconfig.json package-lock.json
TOOLS := $(wildcard tools/*.ts)
PROCESS := $(wildcard boot/process/*.c)
HARNESS := $(shell find test/harness/src -name '*.ts')

.PHONY: help image process process-sanitized run test rates bench features matrix soak conformance \
	fuzz mutants format clean

help:
	@echo 'make image        build build/vireo.elf (and build/vireo.map)'
	@echo 'make process      build build/vireo-process: the driver in a Linux process, behind vhost-user'
	@echo 'make run          boot it under QEMU with user networking, no root needed; RUN="--help" for options'
	@echo 'make test         build, check and test everything; TEST="--help" for options'
	@echo 'make rates        frames per second with DPDK behind vhost-user; wants root and two idle CPUs'
	@echo 'make bench        this driver and others side by side; BENCH="--help" for options'
	@echo 'make features     what each backend offers and what the driver accepts, as a table'
	@echo 'make matrix       every combination of ring features on every backend (docs/matrix.md); MATRIX="--help"'
	@echo 'make soak         random guests, traffic and faults, shrunk when they fail; SOAK="--help" for options'
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

build/tools/run.mjs build/tools/test.mjs build/tools/features.mjs build/tools/bench.mjs build/tools/soak.mjs: $(HARNESS)
build/tools/fuzz.mjs: $(HARNESS) $(HOSTILE)

# The unit tests load the module itself, which is one step of the image.
build/vireo.elf build/vireo.wasm &: $(SOURCES) build/tools/build-image.mjs
	@tools/setup.sh build
	@echo 'building build/vireo.elf'
	@node build/tools/build-image.mjs

# The generated code in a Linux process. It is compiled as it is for the image (tools/build-image.ts),
# but for what a process does not need.
PROCESS_FLAGS := -std=gnu11 -g -Wall -Wno-unused -Werror -Iboot -Iboot/process -Ibuild/vireo \
	-fno-pie -no-pie -fno-stack-protector -fcf-protection=none -fno-tree-loop-distribute-patterns

process: build/vireo-process

process-sanitized: build/vireo-process-sanitized

build/vireo-process: $(PROCESS) $(wildcard boot/process/*.h) build/vireo.elf
	@echo 'building $@'
	@gcc $(PROCESS_FLAGS) -O2 $(PROCESS) -o $@

build/vireo-process-sanitized: $(PROCESS) $(wildcard boot/process/*.h) build/vireo.elf
	@echo 'building $@'
	@gcc $(PROCESS_FLAGS) -O1 -fsanitize=address,undefined -fno-sanitize-recover=all $(PROCESS) -o $@

run: build/vireo.elf build/tools/run.mjs
	@tools/setup.sh run
	@exec node build/tools/run.mjs $(RUN)

test: build/vireo.elf build/vireo.wasm build/vireo-process build/vireo-process-sanitized \
		build/tools/test.mjs build/tools/bench.mjs build/tools/conformance.mjs build/tools/soak.mjs
	@tools/setup.sh test
	@exec node build/tools/test.mjs $(TEST)

rates: build/vireo.elf
	@tools/setup.sh test
	@exec node test/harness/bin/qemu-test-harness.mjs run test/bench

features: build/vireo.elf build/tools/features.mjs
	@tools/setup.sh run
	@exec node build/tools/features.mjs $(FEATURES)

matrix: build/vireo.elf
	@tools/setup.sh test
	@exec node test/harness/bin/qemu-test-harness.mjs matrix --docs docs/matrix.md $(MATRIX)

soak: build/vireo.elf build/tools/soak.mjs
	@tools/setup.sh test
	@exec node build/tools/soak.mjs $(SOAK)

bench: build/vireo.elf build/vireo-process build/tools/bench.mjs
	@tools/setup.sh test
	@exec node build/tools/bench.mjs $(BENCH)

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
	@clang-format -i $$(find boot test/bench -name '*.[ch]')

clean:
	@rm -rf build
