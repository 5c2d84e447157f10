#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# For qemu/selftest/run: a script that says what it needs, and shows what it got.
# vm: --no-module --disk 64M
# vm: --disk 1G --cpus 1

cd /sys/block || exit
for disk in vd*; do
	echo "$disk $(numfmt --to=iec $((512 * $(<"$disk/size"))))"
done
nproc
