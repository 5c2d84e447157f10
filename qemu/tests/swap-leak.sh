#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Nobody who may read a swapfile, or a clone of it, sees what was swapped out to it: neither while
# it is active nor afterwards. The same is done on ext4, where it does show, to know that this test
# would see it.
# vm: --disk 256M --disk 256M

. "${0%/*}/lib.sh"
new_fs
swapfile swap 32
cp --reflink=always swap clone
turn_on swap
swap_and_hold 24 -m
at_least 'pages are swapped out' $((23 * 1024)) "$(swap_used "$mnt/swap")"
at_least 'the disk has them' $((23 * 256)) "$(fileop markers "$dev" direct)"
is 'an active swapfile does not show them' 0 "$(markers swap)"
is 'nor by direct reads' 0 "$(fileop markers swap direct)"
is 'nor does a mapping' 0 "$(fileop markers-mapped swap)"
is 'its clone does not show them' 0 "$(markers clone)"
is 'it can be read as a whole' $((32 << 20)) "$(wc -c <swap)"
is 'what was swapped out is right' 0 "$(let_go)"

swap_and_hold 24 -m
must swapoff swap
is 'what was swapped out is right after swapoff' 0 "$(let_go)"
is 'a deactivated swapfile does not show them' 0 "$(markers swap)"
is 'nor by direct reads' 0 "$(fileop markers swap direct)"
# Its mapping changes by each of these.
cp --reflink=always swap late-clone
is 'a clone of it does not show them' 0 "$(markers swap late-clone)"
remount
is 'not after a remount either' 0 "$(markers swap clone late-clone)"
op 'a write' OK write swap 4M
fallocate -l 40M swap
truncate -s 48M swap
is 'nor when it has changed' 0 "$(markers swap)"
must mkswap -q swap
fallocate --punch-hole --offset 1M --length 4096 swap
fallocate --collapse-range --offset 2M --length 1M swap
is 'nor when blocks were taken out' 0 "$(markers swap)"
is 'the write is there' 'w' "$(dd if=swap bs=1 skip=$((3 << 20)) count=1 status=none)"

# Blocks that the swapfile gives back become other files' holes and unwritten blocks.
must rm swap late-clone
must sync
fallocate -l 96M new
is 'new files do not show them' 0 "$(markers new)"
cd / || give_up 'cd /'
must umount "$mnt"

FS=ext4 dev=/dev/vdb
make_fs
mount_fs
swapfile swap 32
turn_on swap
swap_and_hold 24 -m
must swapoff swap
is 'on ext4 all is right too' 0 "$(let_go)"
at_least 'but it does show what was swapped out' 100 "$(markers swap)"
cd / || give_up 'cd /'
must umount "$mnt"

FS=oxfs dev=/dev/vda
mount_fs
end
