#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Random operations on a few files that share content: what they hold is what plain memory says,
# all the time and after a remount.
# vm: --disk 512M

. "${0%/*}/lib.sh"
new_fs
mkdir /tmp/models

# random NAME SEED OPERATIONS [OPTION]...: none is missing, and the content survives a remount.
random() {
	local name=$1 seed=$2 count=$3 output
	shift 3
	if output=$(fsx -S "$seed" -n "$count" -m /tmp/models "$@" . 2>&1); then
		pass "$name"
		has "$name: all operations are there" 'not supported 0' "$output"
	else
		fail "$name" "$output"
	fi
	remount
	check "$name: content after a remount" compare
}
compare() {
	local model
	for model in /tmp/models/fsx*; do cmp "$model" "${model##*/}"; done || return
	rm ./fsx* /tmp/models/fsx*
}

random 'buffered and mapped' 1 3000
random 'with direct I/O' 2 3000 -d
random 'large files' 3 600 -d -l $((4 << 20))
random 'one file' 4 1500 -d -f 1
random 'many files' 5 1500 -f 12
end
