#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What swapon of a shared file costs, and what swapping through a file costs, beside what a user of
# other filesystems has: counts from the disk's statistics, times as ratios, all in one guest.
#
# `make bench-swapon SIZES=... FOLIOS=... ROUNDS=...` chooses the sizes of a shared file (MiB) and of
# folios (KiB), and how often each is measured. Every round begins with another area, so that what one
# leaves behind (the host writes out what its cache took) meets all of them alike; five rounds are one
# turn.
#
# vm: --memory 1G --disk 24G --timeout 3000

set -euo pipefail

sizes=${SIZES:-256 1024 4096} sizes_of_folios=${FOLIOS:-4 64 2048} rounds=${ROUNDS:-10}
areas=(oxfs raw ext4 xfs btrfs)
disk=/dev/vda stat=/sys/block/vda/stat mnt=/mnt/bench
here=$(dirname "$0")

# What a shared swapfile needs before it can be swapped to, on each filesystem.
make_ready_oxfs() { :; }
make_ready_xfs() { cp --reflink=never "$1" "$1.new" && mv "$1.new" "$1" && sync; }
make_ready_btrfs() {
	rm -f "$1.new"
	truncate -s 0 "$1.new" && chattr +C "$1.new" && chmod 600 "$1.new"
	dd if="$1" of="$1.new" bs=1M status=none && mv "$1.new" "$1" && sync
}

sectors() { awk '{ print $3, $7 }' "$stat"; }

# swapon_of FS SIZE: makes a fully shared swapfile and swaps it on; prints a line of the table.
swapon_of() {
	local fs=$1 size=$2 file=$mnt/swapfile r0 w0 r1 w1 t0 t1
	wipefs -qa ${disk}1
	if [[ $fs == btrfs ]]; then mkfs.btrfs -qf ${disk}1; else "mkfs.$fs" ${disk}1 >/dev/null 2>&1; fi
	mount -t "$fs" ${disk}1 $mnt
	dd if=/dev/zero of=$file bs=1M count="$size" status=none
	chmod 600 $file
	mkswap -q $file
	cp --reflink=always $file $mnt/clone
	sync
	echo 3 >/proc/sys/vm/drop_caches
	if [[ $fs != oxfs ]] && swapon $file 2>/dev/null; then
		echo "$fs swaps to a shared file: the comparison is wrong" >&2
		return 1
	fi
	read -r r0 w0 < <(sectors)
	t0=$(date +%s%N)
	"make_ready_$fs" $file "$size"
	swapon $file
	t1=$(date +%s%N)
	read -r r1 w1 < <(sectors)
	swapoff $file
	umount $mnt
	printf '%-6s %6d MiB %12d KiB %12d KiB %9d ms\n' "$fs" "$size" $(((r1 - r0) / 2)) \
		$(((w1 - w0) / 2)) $(((t1 - t0) / 1000000))
}

# A swap area of 640 MiB on each: partition 1 to 5.
prepare_areas() {
	local n=2 fs
	for fs in oxfs ext4 xfs btrfs; do
		mkdir -p $mnt/$fs
		case $fs in
		btrfs) mkfs.btrfs -qf $disk$n ;;
		xfs) mkfs.xfs -qf $disk$n ;;
		ext4) mkfs.ext4 -qF $disk$n ;;
		oxfs) mkfs.oxfs -qf $disk$n ;;
		esac
		mount -t $fs $disk$n $mnt/$fs
		: >$mnt/$fs/swapfile
		[[ $fs != btrfs ]] || chattr +C $mnt/$fs/swapfile
		dd if=/dev/zero of=$mnt/$fs/swapfile bs=1M count=640 status=none
		chmod 600 $mnt/$fs/swapfile
		mkswap -q $mnt/$fs/swapfile
		n=$((n + 1))
	done
	mkswap -q ${disk}6
}

area_of() { [[ $1 == raw ]] && echo ${disk}6 || echo "$mnt/$1/swapfile"; }

folios() {
	local size state
	# Some sizes are for files only and have no such switch.
	for size in /sys/kernel/mm/transparent_hugepage/hugepages-*kB/enabled; do
		state=never
		[[ $size != *-$1kB/* ]] || state=always
		echo $state >"$size"
	done
	if [[ $1 == 4 ]]; then state=never; else state=always; fi
	echo $state >/sys/kernel/mm/transparent_hugepage/enabled
}

sfdisk -q $disk <<'END'
label: gpt
size=12G
size=2G
size=2G
size=2G
size=2G
size=640M
END
udevadm settle 2>/dev/null || sleep 1
mkdir -p $mnt
modprobe btrfs

echo 'swapon of a file of which every block is shared, made possible first where that is needed:'
printf '%-6s %10s %16s %16s %12s\n' '' file read written time
for size in $sizes; do
	for fs in oxfs xfs btrfs; do
		swapon_of $fs "$size"
	done
done

prepare_areas
for kib in $sizes_of_folios; do
	folios "$kib"
	results=/tmp/results.$kib
	for ((round = 0; round < rounds; round++)); do
		for ((i = 0; i < ${#areas[@]}; i++)); do
			area=${areas[(round + i) % ${#areas[@]}]}
			swapon "$(area_of "$area")"
			python3 "$here/pageout.py" "$area" 256 >>"$results"
			swapoff "$(area_of "$area")"
		done
	done
	printf '\n256 MiB in folios of %d KiB, paged out and touched again, medians of %d:\n' "$kib" "$rounds"
	python3 "$here/pageout.py" --table "$results"
done
