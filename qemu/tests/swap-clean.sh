#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# After cloning, swapping, changing and deleting swapfiles the filesystem is clean at every
# remount, has its content, and its space comes back.
# vm: --disk 512M

. "${0%/*}/lib.sh"
new_fs
do_op fill keep 8 1
must sync
empty=$(df --output=avail . | tail -n 1)
keep=$(sums keep)

# checked NAME: unmounts, checks, mounts.
checked() {
	cd / || give_up 'cd /'
	must umount "$mnt"
	check "$1: clean" check_fs
	mount_fs
	is "$1: content" "$keep" "$(sums keep)"
}

for round in 1 2 3; do
	swapfile swap 32 "$round"
	cp --reflink=always swap clone
	cp --reflink=always keep copy
	turn_on swap
	turn_on clone
	is "round $round: pages are right" 0 "$(swapmem -o 48)"
	checked_clone=$(sums copy | cut -d' ' -f1)
	must swapoff swap
	[[ $round != 2 ]] || must truncate -s 15M swap
	[[ $round != 3 ]] || must fallocate --collapse-range --offset 1M --length 2M swap
	must swapoff clone
	checked "round $round, swapfiles off"
	is "round $round: the copy" "${keep%% *}" "$checked_clone"
	must rm swap
	checked "round $round, one deleted"
	turn_on clone
	is "round $round: pages are right in the other one" 0 "$(swapmem -o 24)"
	must swapoff clone
	must rm clone copy
	checked "round $round, both deleted"
	at_least "round $round: space has come back" $((empty - 512)) "$(df --output=avail . | tail -n 1)"
done
end
