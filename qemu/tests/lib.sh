# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# What the guest tests share. FS is the filesystem under test: oxfs, unless somebody wants to see
# what another one answers (`qemu/vm --no-module --disk 1G -- env FS=xfs qemu/tests/NAME.sh`).
# `fileop` (a server), `swapmem` and `fsx` are the programs beside this file.

set -u
# shellcheck source=../ktap.sh
. "${BASH_SOURCE[0]%/*}/../ktap.sh"

here=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
FS=${FS:-oxfs}
mnt=/mnt/test
dev=/dev/vda
# How much more time than usual everything may take: kernels with checkers are slower.
slower=1
# shellcheck disable=SC2034 # read by tests
[[ ! -e /sys/kernel/debug/kmemleak && ! -e /sys/kernel/debug/kcsan ]] || slower=4

mkfifo /tmp/fileop.requests /tmp/fileop.answers
python3 "$here/fileop.py" </tmp/fileop.requests >/tmp/fileop.answers 2>&1 &
exec 7>/tmp/fileop.requests 8</tmp/fileop.answers
rm /tmp/fileop.requests /tmp/fileop.answers

# fileop OPERATION [ARG...]: prints the outcome, see fileop.py. One at a time: there is one server, and
# who is asked twice at once gives the answer to one to the other. All of the answer must be read.
fileop() {
	local line all=("$PWD" "$@") IFS=$'\t'
	echo "${all[*]}" >&7
	while read -r line <&8; do
		[[ $line != . ]] || return 0
		echo "$line"
	done
	return 1
}

swapmem() { python3 "$here/swapmem.py" "$@" 7>&- 8<&-; }
fsx() { python3 "$here/fsx.py" "$@" 7>&- 8<&-; }

# is NAME EXPECTED ACTUAL
is() {
	if [[ $3 == "$2" ]]; then
		pass "$1"
	else
		fail "$1" "seen: $3"$'\n'"expected: $2"
	fi
}

# has NAME TEXT ACTUAL: TEXT is part of it.
has() {
	if [[ $3 == *"$2"* ]]; then
		pass "$1"
	else
		fail "$1" "seen: $3"$'\n'"expected in it: $2"
	fi
}

# at_most NAME LIMIT NUMBER, at_least NAME LIMIT NUMBER
at_most() {
	if (($3 <= $2)); then pass "$1"; else fail "$1" "seen: $3, expected at most $2"; fi
}
at_least() {
	if (($3 >= $2)); then pass "$1"; else fail "$1" "seen: $3, expected at least $2"; fi
}

# op NAME EXPECTED OPERATION [ARG...]: the outcome of fileop.
op() {
	local name=$1 expected=$2
	shift 2
	is "$name" "$expected" "$(fileop "$@")"
}

# do_op OPERATION [ARG...]: it must succeed.
do_op() {
	local seen
	seen=$(fileop "$@")
	[[ $seen == OK ]] || give_up "fileop $*: $seen"
}

# The test cannot go on: it ends without a plan, which is a failure.
give_up() {
	printf '%s\n' "$*" | sed 's/^/# /'
	dmesg | tail -n 20 | sed 's/^/# /'
	echo 'Bail out!'
	exit 1
}

# must COMMAND [ARG...]: without its success nothing that follows makes sense.
must() {
	local status=0
	"$@" >/tmp/must.log 2>&1 || status=$?
	((status == 0)) || give_up "status $status: $*"$'\n'"$(</tmp/must.log)"
}

# make_fs: on `dev`.
make_fs() {
	case $FS in
	oxfs) must mkfs.oxfs --force --quiet "$dev" ;;
	ext4) must mkfs.ext4 -q -F "$dev" ;;
	*) must "mkfs.$FS" -f "$dev" ;;
	esac
}

mount_fs() {
	must mount -t "$FS" "$dev" "$mnt"
	cd "$mnt" || give_up "cd $mnt"
}

# new_fs: made, mounted, and the current folder.
new_fs() {
	make_fs
	mount_fs
}

# remount: out of the cache and back.
remount() {
	cd / || give_up 'cd /'
	must umount "$mnt"
	mount_fs
}

# check_fs: what the checker says about the unmounted filesystem, if it is not clean.
check_fs() {
	case $FS in
	oxfs) fsck.oxfs "$dev" ;;
	ext4) e2fsck -fn "$dev" ;;
	xfs) xfs_repair -n "$dev" ;;
	btrfs) btrfs check --readonly "$dev" ;;
	*) false ;;
	esac
}

# end: the filesystem has survived the test: it can be unmounted, is clean, and mounts again.
end() {
	cd / || give_up 'cd /'
	check 'unmount' umount "$mnt"
	check 'the filesystem is clean' check_fs
	check 'it mounts again' mount -t "$FS" "$dev" "$mnt"
	umount "$mnt"
	ktap_end
}

# dropped: waits until the space of all deleted subvolumes has come back.
dropped() {
	local i
	for ((i = 0; i < 1200; i++)); do
		[[ $(fileop subvol-dropping "$mnt") != 0 ]] || return 0
		sleep 0.1
	done
	fileop subvol-list "$mnt"
	return 1
}

# ends PID: whether it ends before long; what waits for the kernel cannot be killed if it does not.
ends() {
	local i
	for ((i = 0; i < 1200; i++)); do
		kill -0 "$1" 2>/dev/null || return 0
		sleep 0.1
	done
	return 1
}

# in_kernel PID FILE: waits until that process, after it has made the file, waits in the kernel.
in_kernel() {
	until [[ -e $2 && $(cut -d ' ' -f 3 "/proc/$1/stat") == D ]]; do
		kill -0 "$1" || give_up 'it does not wait'
		sleep 0.1
	done
}

drop_caches() {
	sync
	echo 3 >/proc/sys/vm/drop_caches
}

# swapfile NAME MIB [SEED]: with content, not yet activated. Every page differs when there is a
# SEED, and is zeros otherwise.
swapfile() {
	if (($# > 2)); then
		do_op fill "$1" "$2" "$3"
	else
		must dd if=/dev/zero "of=$1" bs=1M "count=$2" status=none
	fi
	chmod 600 "$1"
	must mkswap -q "$1"
}

# sums FILE...: checksums of what the disk has.
sums() {
	drop_caches
	sha256sum "$@"
}

# blocks_with FILE FLAG: the number of blocks that FIEMAP shows with it.
blocks_with() { fileop fiemap "$1" | awk -v flag="$2" '$0 ~ " " flag { n += $3 } END { print n + 0 }'; }
extents() { fileop fiemap "$1" | wc -l; }

vmstat() { awk -v name="$1" '$1 == name { print $2 }' /proc/vmstat; }
swapping() { awk -v file="$1" 'NR > 1 && $1 == file { n++ } END { print n + 0 }' /proc/swaps; }

# swap_used FILE: KiB.
swap_used() { awk -v file="$1" '$1 == file { print $4 }' /proc/swaps; }

# turn_on FILE [ARG...]: swapon; the test ends if that fails.
turn_on() {
	must swapon "$@"
}

# swap_and_hold MIB [OPTION...]: memory is filled and swapped out, and stays so until let_go, which
# prints how many of its pages are wrong.
swap_and_hold() {
	local size=$1
	shift
	rm -f /tmp/hold
	swapmem -o "$@" -w /tmp/hold "$size" >/tmp/held 2>&1 &
	held=$!
	while [[ ! -e /tmp/hold ]]; do
		kill -0 "$held" 2>/dev/null || give_up "swapmem: $(</tmp/held)"
		sleep 0.05
	done
}
let_go() {
	rm /tmp/hold
	while kill -0 "$held" 2>/dev/null; do sleep 0.05; done
	cat /tmp/held
}

# markers FILE...: how many pages of what the disk has of these files were swapped out by
# `swapmem --marker`.
markers() {
	local file sum=0
	drop_caches
	for file; do sum=$((sum + $(fileop markers "$file"))); done
	echo "$sum"
}
