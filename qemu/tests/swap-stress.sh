#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Memory stress of twice the memory through a swapfile that was a clone: every byte comes back, also
# when swap is turned off under load.
# vm: --disk 2G --memory 256M --timeout 1200

. "${0%/*}/lib.sh"
new_fs

memory=$(awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo)
swapfile base 64 1
fallocate -l $((3 * memory))M base
must mkswap -q base
cp --reflink=always base swap
chmod 600 swap
turn_on swap

# One pass over the memory, however long it takes.
check 'stress-ng --vm --verify' stress-ng --vm 1 --vm-bytes $((2 * memory))M --vm-method incdec \
	--vm-keep --vm-ops 1 --verify --timeout 0 --temp-path /tmp
at_least 'more than the memory was swapped out' $((memory << 8)) "$(vmstat pswpout)"
out=$(vmstat pswpout)
swapmem -S 1 "$memory" >/tmp/one &
one=$!
other=$(swapmem -S 2 "$memory")
wait "$one"
is 'every byte of twice the memory is right' '0 0' "$(</tmp/one) $other"
at_least 'again more than the memory was swapped out' $((memory << 8)) $(($(vmstat pswpout) - out))

# A second swapfile, so that there is somewhere to go.
cp --reflink=always base other
chmod 600 other
turn_on other
swapmem -r 3 $((memory + memory / 4)) >/tmp/loaded 2>&1 &
load=$!
sleep 3
check 'swapoff under load' swapoff swap
check 'swapon of it under load' swapon swap
check 'swapoff of the other one under load' swapoff other
wait "$load"
is 'every byte is right' 0 "$(</tmp/loaded)"
check 'swapoff' swapoff swap
end
