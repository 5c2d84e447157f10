#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# swap-pressure.sh [SECONDS [SEED]]: more than the machine's memory is worked on, through swapfiles on
# the filesystem that is at the same time written, snapshotted and fsynced. What comes back is
# compared all along, and no call takes a minute.
# vm: --disk 3G --memory 256M --timeout 2400

. "${BASH_SOURCE[0]%/*}/lib.sh"

seconds=${1:-120} seed=${2:-$RANDOM}
echo "# seed $seed"
new_fs
echo 60 >/proc/sys/kernel/hung_task_timeout_secs
echo 10 >/proc/sys/kernel/hung_task_check_interval_secs
memory=$(awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo)
must test "$(fileop subvol-create work)" = 1
# The swapfiles are in the subvolume of which snapshots are taken, and share their blocks.
swapfile work/base 16 1
must fallocate -l $((2 * memory))M work/base
must mkswap -q work/base
for name in swap other; do
	must cp --reflink=always work/base "work/$name"
	chmod 600 "work/$name"
done

# load NAME SECONDS MIB [OPTION]...: three processes that work on MIB together, and the filesystem.
# The environment's CGROUP is for all of them.
load() {
	local name=$1 part=$2 mib=$3 before i workers=() status=0
	shift 3
	before=$(vmstat pswpout)
	for i in 1 2 3; do
		inside python3 "$here/swapmem.py" -t "$part" -S $((seed + i)) "$@" $((mib / 3)) >"/tmp/swapmem$i" 2>&1 &
		workers+=($!)
	done
	inside python3 "$here/pressure.py" work "$part" "$seed" >/tmp/pressure 2>&1 || status=$?
	wait "${workers[@]}"
	is "$name: every byte of memory is right" '0 0 0' "$(cat /tmp/swapmem[123] | paste -sd ' ')"
	sed 's/^/# /' /tmp/pressure
	is "$name: the files are right" 0 "$status"
	at_most "$name: the slowest call, in seconds" $((59 * slower)) "$(awk '{ if ($4 > most) most = $4 } END { print int(most) }' /tmp/pressure)"
	echo "# swapped out: $((($(vmstat pswpout) - before) / 256)) MiB"
	swapped=$(($(vmstat pswpout) - before))
}
inside() { (exec 7>&- 8<&-; [[ ! ${CGROUP-} ]] || echo "$BASHPID" >"$CGROUP/cgroup.procs"; exec "$@"); }

turn_on work/swap
load 'one swapfile' $((seconds / 3)) $((memory * 5 / 4))
at_least 'one swapfile: as much as the memory was swapped out' $((memory << 8)) "$swapped"

# Patterns of others, with zswap: it compresses what it can, and writes back when its pool is full.
zswap=/sys/module/zswap/parameters
modprobe -a zstd lzo 2>/dev/null
echo 5 >$zswap/max_pool_percent
echo Y >$zswap/enabled
stress-ng --vm 1 --vm-bytes "${memory}M" --vm-method incdec --vm-keep --verify --timeout $((seconds / 6)) \
	--temp-path /tmp >/tmp/stress 2>&1 &
stress=$!
load 'with zswap' $((seconds / 6)) "$memory"
check 'with zswap: stress-ng --vm --verify' wait "$stress"
at_least 'with zswap: it was used' 1 "$(awk '$1 == "zswpout" { print $2 }' /proc/vmstat)"
at_least 'with zswap: and wrote back, or left to the swapfile' 1 "$swapped"
echo N >$zswap/enabled

huge=/sys/kernel/mm/transparent_hugepage/hugepages-64kB
echo always >$huge/enabled
load 'with folios of 64 KiB' $((seconds / 6)) "$memory"
at_least 'with folios of 64 KiB: they were swapped' 1 \
	$(($(<$huge/stats/swpout) + $(<$huge/stats/swpout_fallback)))
echo never >$huge/enabled

echo +memory >/sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/small
echo 48M >/sys/fs/cgroup/small/memory.max
CGROUP=/sys/fs/cgroup/small load 'in a small cgroup' $((seconds / 6)) $((memory / 2))
is 'in a small cgroup: nobody was killed' 'oom_kill 0' "$(grep '^oom_kill ' /sys/fs/cgroup/small/memory.events)"
at_least 'in a small cgroup: most was swapped out' $((memory << 6)) "$swapped"

must swapoff work/swap
turn_on -p 5 work/swap
turn_on -p 5 work/other
swap_and_hold $((memory * 5 / 4))
at_least 'two swapfiles of the same priority: one is used' $((memory << 6)) "$(swap_used "$mnt/work/swap")"
at_least 'and so is the other' $((memory << 6)) "$(swap_used "$mnt/work/other")"
is 'every byte is right' 0 "$(let_go)"
load 'two swapfiles' $((seconds / 6)) "$memory"
check 'swapoff of one, which moves to the other' swapoff work/other

# Too little memory for what is swapped out.
swap_and_hold $((memory * 5 / 4))
echo 2 >/proc/sys/vm/overcommit_memory
op 'swapoff with too little memory to be promised: ENOMEM' ENOMEM swapoff work/swap
echo 0 >/proc/sys/vm/overcommit_memory
is 'and it goes on' 1 "$(swapping "$mnt/work/swap")"
swapoff work/swap >/tmp/swapoff 2>&1
is 'swapoff with too little memory to be had is killed' 137 $?
is 'and it goes on, too' 1 "$(swapping "$mnt/work/swap")"
check 'a snapshot at that time' test "$(fileop snapshot work after)" -gt 0
is 'nothing is lost' 0 "$(let_go)"
load 'afterwards' $((seconds / 12)) "$memory"
check 'swapoff' swapoff work/swap
end
