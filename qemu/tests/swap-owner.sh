#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Content that is shared with a swapfile belongs to its other owner too, who never sees a change:
# not by the activation, not by heavy swapping, not by swapoff, not after a remount.
# vm: --disk 1G --memory 320M

. "${0%/*}/lib.sh"
new_fs

swapfile swap 80 1
cp --reflink=always swap clone
cp --reflink=always swap second
# Owners of parts: of the middle, and of the middle moved.
do_op clonerange swap part 40M 16M 0
do_op clonerange swap part 8M 8M 32M
do_op fill neighbour 8 2
must sync
at_least 'they share' $((80 * 256)) "$(blocks_with clone shared)"
before=$(sums clone part neighbour)

turn_on swap
is 'after the activation' "$before" "$(sums clone part neighbour)"
wrong=$(swapmem -o -r 2 72)
is 'pages are right' 0 "$wrong"
# Memory pressure, so that the kernel chooses what is swapped, and when.
wrong=$(swapmem -S 2 230)
is 'pages are right under pressure' 0 "$wrong"
at_least 'it was heavy' $((150 << 8)) "$(vmstat pswpout)"
is 'after heavy swapping' "$before" "$(sums clone part neighbour)"

# One of the owners changes his content, and one goes, while pages are swapped out.
swap_and_hold 64
op 'write to the clone' OK write second 1M
must rm part
second=$(sums second)
is 'pages are right though the owners have changed theirs' 0 "$(let_go)"
must swapoff swap
is 'after swapoff' "$(sed 2d <<<"$before")" "$(sums clone neighbour)"
is 'the change has stayed' "$second" "$(sums second)"
remount
is 'after a remount' "$(sed 2d <<<"$before")" "$(sums clone neighbour)"
is 'the change has stayed' "$second" "$(sums second)"
end
