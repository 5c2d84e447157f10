#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What a snapshot costs, and what it costs those who swap: time and blocks written by the number of
# files, with an active swapfile, the space that a hundred snapshots hold, and how fast the machine
# swaps while one is taken every second. Beside it btrfs, where it can do the same.
#
# `make bench-snapshot FILES=... SNAPSHOTS=... ROUNDS=...` chooses numbers of files, and how often.
#
# vm: --memory 1G --disk 24G --timeout 3000

set -euo pipefail

files=${FILES:-10 10000 1000000} snapshots=${SNAPSHOTS:-100} rounds=${ROUNDS:-5}
disk=/dev/vda stat=/sys/block/vda/stat mnt=/mnt/bench
here=$(dirname "$0")
mkdir -p $mnt
modprobe btrfs

subvolume() {
	local fs=$1
	shift
	case $fs in
	oxfs) oxfs subvolume "$@" >/dev/null ;;
	btrfs) btrfs -q subvolume "$@" 2>&1 ;;
	esac
}

fresh() {
	wipefs -qa $disk
	"mkfs.$1" -qf $disk 2>/dev/null
	mount -t "$1" $disk $mnt
	subvolume "$1" create $mnt/main
}

written() { awk '{ print $7 }' "$stat"; }
milliseconds() { echo $(($(date +%s%N) / 1000000)); }

# make_files FOLDER COUNT: empty files, a thousand in a folder.
make_files() {
	python3 - "$@" <<'END'
import os, sys
folder, count = sys.argv[1], int(sys.argv[2])
for i in range(count):
	if i % 1000 == 0:
		os.mkdir(f"{folder}/{i // 1000}")
	os.close(os.open(f"{folder}/{i // 1000}/{i}", os.O_CREAT | os.O_WRONLY))
END
}

swapfile() {
	: >"$2"
	[[ $1 != btrfs ]] || chattr +C "$2"
	dd if=/dev/zero of="$2" bs=1M count="$3" status=none
	chmod 600 "$2"
	mkswap -q "$2"
	sync
}

# one_snapshot FS WHAT: a line of the table; with its commit, so that it is durable.
one_snapshot() {
	local fs=$1 what=$2 t0 t1 w0 w1 refused
	sync
	echo 3 >/proc/sys/vm/drop_caches
	w0=$(written) t0=$(milliseconds)
	if ! refused=$(subvolume "$fs" snapshot $mnt/main "$mnt/copy"); then
		printf '%-6s %-28s refused: %s\n' "$fs" "$what" "${refused##*: }"
		return
	fi
	sync -f $mnt
	t1=$(milliseconds) w1=$(written)
	printf '%-6s %-28s %8d ms %10d KiB\n' "$fs" "$what" $((t1 - t0)) $(((w1 - w0) / 2))
}

echo 'a snapshot, until it is durable:'
printf '%-6s %-28s %11s %14s\n' '' 'of a subvolume with' time written
for count in $files; do
	for fs in oxfs btrfs; do
		fresh $fs
		make_files $mnt/main "$count"
		one_snapshot $fs "$count files"
		umount $mnt
	done
done
for fs in oxfs btrfs; do
	fresh $fs
	swapfile $fs $mnt/main/swapfile 256
	swapon $mnt/main/swapfile
	one_snapshot $fs 'an active swapfile'
	swapoff $mnt/main/swapfile
	umount $mnt
done

fresh oxfs
swapfile oxfs $mnt/main/swapfile 1024
swapon $mnt/main/swapfile
sync
used() { df --output=used -B1024 $mnt | tail -n 1; }
before=$(used)
mkdir $mnt/copies
for ((i = 0; i < snapshots; i++)); do
	python3 "$here/pageout.py" oxfs 64 >/dev/null
	oxfs subvolume snapshot -r $mnt/main $mnt/copies/$i >/dev/null
done
sync
printf '\n%d snapshots of a subvolume with an active swapfile of 1 GiB, 64 MiB of which change\n' "$snapshots"
printf 'between two of them, hold %d KiB\n' $(($(used) - before))

# swap_out_and_in: milliseconds that paging the same memory out and in takes, six times.
swap_out_and_in() {
	local t0
	t0=$(milliseconds)
	for _ in 1 2 3 4 5 6; do python3 "$here/pageout.py" oxfs 256 >/dev/null; done
	echo $(($(milliseconds) - t0))
}

: >/tmp/swapped
mkdir $mnt/every
for ((round = 0; round < rounds; round++)); do
	without=$(swap_out_and_in)
	(for ((i = 0; ; i++)); do
		oxfs subvolume snapshot $mnt/main "$mnt/every/$round.$i" >/dev/null
		sleep 1
	done) &
	loop=$!
	with=$(swap_out_and_in)
	kill $loop
	wait $loop 2>/dev/null || :
	echo "$without $with" >>/tmp/swapped
done
swapoff $mnt/main/swapfile
umount $mnt
python3 - <<'END'
import statistics
rows = [tuple(map(int, line.split())) for line in open("/tmp/swapped")]
print("\n1.5 GiB paged out and in, medians of %d: %d ms without snapshots, %d ms with one every second: "
      "throughput by round %.2f" % (
    len(rows), statistics.median(a for a, b in rows), statistics.median(b for a, b in rows),
    statistics.median(a / b for a, b in rows)))
END
