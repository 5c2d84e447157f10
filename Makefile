# SPDX-License-Identifier: GPL-2.0
#
# The commands of the project. Everything is built in a build root that the first run makes in
# the cache (OXFS_CACHE, ~/.cache/oxfs by default), so nothing of this machine's compilers
# matters, but for a kernel tree that is given. How the kernel module itself is built is in Kbuild.

# A prepared kernel tree to build for, instead of the stock kernel.
KDIR ?=
# Where `make install` puts things.
DESTDIR ?=
PREFIX ?= /usr/local

# How long `make crash` goes on (`make torture`: 4), and `make fuzz` on each of its targets, or on
# these.
HOURS ?= 1
SECONDS ?= 60
TARGETS ?=

# How much the benchmarks do, see there.
bench_settings = $(foreach name,SIZES FOLIOS FILES SNAPSHOTS ROUNDS,$(if $($(name)),$(name)='$($(name))'))

.PHONY: help demo test test-host test-mutations test-guest test-debug test-debug-short torture crash fuzz check module tools install bench-swapon bench-snapshot bench-engine bench-fsck clean
.DEFAULT_GOAL := help

help:
	@echo 'make demo          boot a guest and show a swapfile that is cloned and still works'
	@echo 'make test          test-host, test-mutations, test-guest, test-debug-short; the last line is the sum'
	@echo 'make test-host     unit and property tests of the engine and the tools'
	@echo 'make test-mutations  takes out one safety mechanism after the other: a test must fail'
	@echo 'make test-guest    qemu/tests/*.sh, and tests of several boots, in guests with the stock kernel'
	@echo 'make test-debug    all guest tests, and more, with a kernel full of checkers, which it builds'
	@echo 'make test-debug-short  those of them that say "# debug: short", in their short form'
	@echo 'make torture       power cuts, hostile calls, pressure and faults in guests, for HOURS=4'
	@echo 'make crash         more histories, the power cut at every write, for HOURS=1'
	@echo 'make fuzz          libFuzzer on hostile images and operations, SECONDS=60 for each of TARGETS'
	@echo 'make check         rustfmt, clippy, shellcheck and the rules of the source tree'
	@echo 'make module        oxfs.ko for the stock kernel; KDIR=... for a prepared kernel tree'
	@echo 'make tools         mkfs.oxfs, fsck.oxfs, oxfs in build/bin, their manual in build/doc'
	@echo 'make install       module (for this kernel, or KDIR=...) and tools on this machine; DESTDIR, PREFIX'
	@echo 'make bench-swapon  what swapon and swapping cost, beside other filesystems'
	@echo 'make bench-snapshot what snapshots cost, also those who swap'
	@echo 'make bench-engine  what the engine costs, and how that grows'
	@echo 'make bench-fsck    what fsck.oxfs costs, on a small and a huge volume'
	@echo 'make clean         remove what was built here; the cache stays'

demo:
	@qemu/vm -- qemu/demo.sh

bench-swapon bench-snapshot:
	@qemu/vm -- env $(bench_settings) qemu/$@.sh

bench-engine bench-fsck:
	@ci/bench $(@:bench-%=%)

test:
	@ci/test host mutations guest debug-short

test-host:
	@ci/test host

test-mutations:
	@ci/test mutations

test-guest:
	@ci/test guest

test-debug:
	@ci/test debug

test-debug-short:
	@ci/test debug-short

torture: HOURS = 4
torture:
	@ci/torture $(HOURS)

crash:
	@ci/crash $(HOURS)

fuzz:
	@ci/fuzz $(SECONDS) $(TARGETS)

check:
	@ci/check

module:
	@ci/module $(KDIR)

tools:
	@ci/tools

install:
	@ci/install "$(KDIR)" "$(DESTDIR)" "$(PREFIX)"

clean:
	rm -rf build
