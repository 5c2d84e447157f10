#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# swapon makes any file private by itself: cloned files, clones, files that share a part, files
# that were never written, files in thousands of pieces; several at once; larger than memory.
# vm: --disk 3G

. "${0%/*}/lib.sh"
new_fs

# used FILE: turns it on, swaps through it, turns it off: pages are right, and it was used.
used() {
	local name=$1 file=$2 wrong
	check "$name: swapon" swapon "$file"
	is "$name: no block is shared any more" 0 "$(blocks_with "$file" shared)"
	wrong=$(swapmem -o 12)
	is "$name: pages are right" 0 "$wrong"
	check "$name: swapoff" swapoff "$file"
}

swapfile plain 16 1
used 'plain file' plain

swapfile cloned 16 2
cp --reflink=always cloned clone
at_least 'a cloned file is shared' 4095 "$(blocks_with cloned shared)"
content=$(sums clone | cut -d' ' -f1)
used 'cloned file' cloned
is 'its clone has not changed' "$content" "$(sums clone | cut -d' ' -f1)"
# What the tree of files has of a swapfile is its header: that may still be shared.
at_most 'its clone is not shared either' 1 "$(blocks_with clone shared)"
used 'clone, after the original' clone

swapfile one 16 3
cp --reflink=always one two
cp --reflink=always one three
content=$(sums three)
must swapon one
check 'clone of an active swapfile, as it was before' swapon two
is 'two clones are active at once' 2 "$(($(swapping "$mnt/one") + $(swapping "$mnt/two")))"
swap_and_hold 24
at_least 'the one is used' 4096 "$(swap_used "$mnt/one")"
at_least 'the other one is used' 4096 "$(swap_used "$mnt/two")"
is 'pages are right with both' 0 "$(let_go)"
check 'swapoff of both' swapoff one two
is 'a third clone has not changed' "$content" "$(sums three)"

swapfile part 16 4
do_op clonerange part part-clone 4M 4M 0
is 'a file that shares a part' 1024 "$(blocks_with part shared)"
content=$(sums part-clone)
used 'partly shared file' part
is 'what shared the part has not changed' "$content" "$(sums part-clone)"

fallocate -l 16M prealloc
chmod 600 prealloc
must mkswap -q prealloc
at_least 'a file that was not written' 4000 "$(blocks_with prealloc unwritten)"
used 'preallocated file' prealloc
cp --reflink=always prealloc prealloc-clone
used 'preallocated file with a clone' prealloc
used 'clone of a preallocated file' prealloc-clone

swapfile deep 16 5
for i in 1 2 3 4 5; do cp --reflink=always deep "deep$i"; done
must rm deep2 deep4
used 'file with five clones' deep

# Single blocks: of a clone, every second one is written.
swapfile base 32 6
cp --reflink=always base pieces
do_op rewrite pieces 2
at_least 'a file in thousands of extents' 2000 "$(extents pieces)"
content=$(sums base)
used 'file in thousands of extents' pieces
is 'the file that it shared blocks with has not changed' "$content" "$(sums base)"

swapfile low 8
swapfile high 8
must swapon --priority 1 low
must swapon --discard --priority 5 high
is 'priorities are taken over' '1 5' \
	"$(awk -v l="$mnt/low" -v h="$mnt/high" '$1 == l { a = $5 } $1 == h { b = $5 } END { print a, b }' /proc/swaps)"
swap_and_hold 4
is 'the higher priority is used first' 0 "$(swap_used "$mnt/low")"
at_least 'and it is used' 3900 "$(swap_used "$mnt/high")"
is 'pages are right' 0 "$(let_go)"
check 'swapoff of both, one with discard' swapoff low high
must swapon --discard=once high
must swapoff high
must swapon --discard=pages high
is 'with discard of pages, pages are right' 0 "$(swapmem -o -r 3 6)"
must swapoff high

memory=$(awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo)
fallocate -l $((2 * memory))M large
chmod 600 large
must mkswap -q large
cp --reflink=always large large-clone
check 'a swapfile of twice the memory' swapon large
check 'and its clone at the same time' swapon large-clone
at_least 'they can be used to the last page' $((2 * 2 * memory * 1000)) \
	"$(awk 'NR > 1 { n += $3 } END { print n }' /proc/swaps)"
is 'pages are right' 0 "$(swapmem -o 32)"
must swapoff large large-clone
used 'again, after all that' cloned
end
