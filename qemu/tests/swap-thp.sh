#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Large folios are swapped out whole, as to a partition, and not when the module is told so.
# vm: --disk 1G

. "${0%/*}/lib.sh"
pages=/sys/kernel/mm/transparent_hugepage
echo madvise >$pages/enabled

# whole MIB NAME: swaps huge pages through the swapfile; sets how many there were, and how many of
# them were swapped whole and not. Memory in pieces can keep the kernel from making some.
whole() {
	local made out fallback
	made=$(vmstat thp_fault_alloc) out=$(vmstat thp_swpout) fallback=$(vmstat thp_swpout_fallback)
	is "$2: pages are right" 0 "$(swapmem -H -o "$1")"
	made_now=$(($(vmstat thp_fault_alloc) - made))
	out_now=$(($(vmstat thp_swpout) - out))
	fallback_now=$(($(vmstat thp_swpout_fallback) - fallback))
	at_least "$2: there are some" 8 "$made_now"
}

new_fs
swapfile base 160
cp --reflink=always base swap
chmod 600 swap
dmesg --clear
turn_on swap
has 'the log says how' 'large folios are swapped whole' "$(dmesg)"
whole 64 'huge pages'
at_least 'huge pages are swapped out whole' "$made_now" "$out_now"
is 'none is split' 0 "$fallback_now"

echo never >$pages/enabled
echo madvise >$pages/hugepages-64kB/enabled
stats=$pages/hugepages-64kB/stats
before=$(cat $stats/swpout) made=$(cat $stats/anon_fault_alloc)
is '64 KiB folios: pages are right' 0 "$(swapmem -H -o 32)"
made=$(($(cat $stats/anon_fault_alloc) - made))
at_least 'folios of 64 KiB: there are some' 100 "$made"
at_least 'folios of 64 KiB are swapped out whole' "$made" $(($(cat $stats/swpout) - before))
is 'none of them is split' 0 "$(cat $stats/swpout_fallback)"
echo never >$pages/hugepages-64kB/enabled
echo madvise >$pages/enabled

# A file in pieces too: the activation gives it aligned runs.
cp --reflink=always base pieces
do_op rewrite pieces 32
at_least 'a file in pieces' 900 "$(extents pieces)"
must swapoff swap
chmod 600 pieces
must mkswap -q pieces
turn_on pieces
whole 64 'file in pieces'
at_least 'huge pages are swapped out whole to it' "$made_now" "$out_now"
is 'none is split' 0 "$fallback_now"
must swapoff pieces

cd / || give_up 'cd /'
must umount "$mnt"
must rmmod oxfs
must insmod /lib/modules/oxfs.ko swap_whole_folios=0
mount_fs
dmesg --clear
turn_on swap
has 'told not to, it says so' 'swap_whole_folios is off' "$(dmesg)"
whole 32 'told not to'
is 'no huge page is swapped out whole then' 0 "$out_now"
at_least 'they are split' "$made_now" "$fallback_now"
must swapoff swap
end
