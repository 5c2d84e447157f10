#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A snapshot is never in the way of an active swapfile, nor the other way round: a hundred of them
# under swap traffic, swapon in snapshots and after a rollback, and what a snapshot has of a swapfile.
# vm: --disk 1G

. "${0%/*}/lib.sh"
new_fs

used() { df --output=used -B 4096 . | tail -n 1 | tr -d ' '; }
# blocks FILE: the address of each of its blocks, in the order that comm needs.
blocks() { fileop fiemap "$1" | awk '{ for (i = 0; i < $3; i++) print $2 + i }' | sort; }

op 'create' 1 subvol-create home
swapfile home/swap 32 1
do_op fill home/data 1 2
must sync
turn_on home/swap
before=$(fileop fiemap home/swap)
op 'a snapshot with an active swapfile' 2 snapshot home first
is 'the swapfile has not moved' "$before" "$(fileop fiemap home/swap)"
is 'nothing of it is shared' 0 "$(blocks_with home/swap shared)"
is 'its copy has size, mode and space' '33554432 600 65536' "$(stat -c '%s %a %b' first/swap)"
is 'and the header' SWAPSPACE2 "$(dd if=first/swap bs=1 skip=4086 count=10 status=none)"
is 'and reads as zeros behind it' 0 "$(tail -c +4097 first/swap | tr -d '\0' | wc -c)"

# Traffic: memory is filled, paged out and compared until it is told to stop.
cat >/tmp/traffic <<-END
	while [[ ! -e /tmp/stop ]]; do
	    python3 "$here/swapmem.py" -o -r 4 -S \$1 6 || echo wrong
	done
END
bash /tmp/traffic 1 >/tmp/traffic1 2>&1 7>&- 8<&- &
traffic=$!
must sync
out=$(vmstat pswpout) space=$(used)
failed=0
for ((i = 0; i < 60; i++)); do
	[[ $(fileop snapshot home "s$i" $((i % 2))) =~ ^[0-9]+$ ]] || ((++failed))
done
must sync
held=$(($(used) - space))
is 'sixty snapshots under swap traffic' '0 60' "$failed $(find . -maxdepth 1 -name 's[0-9]*' | wc -l)"
at_most 'hold little: blocks' 512 "$held"
for ((i = 0; i < 60; i++)); do
	[[ $(fileop subvol-delete "s$i") == OK ]] || ((++failed))
	((i % 3)) || [[ $(fileop snapshot home "t$i") =~ ^[0-9]+$ ]] || ((++failed))
done
for ((i = 0; i < 60; i += 3)); do [[ $(fileop subvol-delete "t$i") == OK ]] || ((++failed)); done
is 'eighty snapshots are deleted, twenty more are taken' 0 "$failed"
check 'all of their space comes back' dropped
at_least 'pages were swapped out meanwhile' 2048 $(($(vmstat pswpout) - out))
touch /tmp/stop
wait "$traffic"
rm /tmp/stop
is 'every page was right' 0 "$(sort -u /tmp/traffic1)"
is 'the swapfile has not moved' "$before" "$(fileop fiemap home/swap)"

check 'swapon of the copy, while the original is active' swapon first/swap
is 'both are active' '1 1' "$(swapping "$mnt/home/swap") $(swapping "$mnt/first/swap")"
blocks home/swap >/tmp/blocks.home
blocks first/swap >/tmp/blocks.first
is 'they share nothing' '8192 8192 0' "$(wc -l </tmp/blocks.home) $(wc -l </tmp/blocks.first) $(comm -12 /tmp/blocks.home /tmp/blocks.first | wc -l)"
swap_and_hold 48
at_least 'the one is used' 1000 "$(swap_used "$mnt/home/swap")"
at_least 'the other one is used' 1000 "$(swap_used "$mnt/first/swap")"
check 'a snapshot of each, while they hold pages' eval 'fileop snapshot home one | grep -x "[0-9]*" && fileop snapshot first two | grep -x "[0-9]*"'
is 'all pages are right' 0 "$(let_go)"

op 'delete of a subvolume with an active swapfile' EBUSY subvol-delete first
has 'the log names it' first/swap "$(dmesg | grep 'active: ' | tail -n 1)"
is 'nothing has happened to it' 1 "$(swapping "$mnt/first/swap")"
op 'a read-only snapshot' OK subvol-ro one 1
op 'swapon in it' EROFS swapon one/swap
must swapoff first/swap
op 'delete after swapoff' OK subvol-delete first
op 'delete of a snapshot that has a copy' OK subvol-delete one

# What is written to an inactive swapfile belongs to the subvolume, and to its snapshots.
must swapoff home/swap
op 'write to an inactive swapfile' OK write home/swap 1M
op 'write to an inactive swapfile' OK write home/swap 2M
check 'snapshot of that' eval 'fileop snapshot home three | grep -x "[0-9]*"'
is 'it has what was written' "$(sha256sum <home/swap)" "$(sha256sum <three/swap)"
turn_on home/swap
is 'pages are right' 0 "$(swapmem -o 8)"
sum=$(sha256sum <three/swap)
drop_caches
is 'the snapshot still has it' "$sum" "$(sha256sum <three/swap)"
must swapoff home/swap
is 'what was swapped out is not seen' 0 "$(turn_on home/swap; swapmem -o -m 8 >/dev/null; fileop snapshot home four >/dev/null; swapoff home/swap; markers home/swap four/swap three/swap)"
op 'unshare of what was active' OK fallocate home/swap unshare 0 32M
must sync
is 'its header is its own, too' '0 SWAPSPACE2' "$(blocks_with home/swap shared) $(dd if=home/swap bs=1 skip=4086 count=10 status=none)"

# Rollback: the snapshot becomes what is mounted, and its swapfile works.
turn_on home/swap
check 'a snapshot to go back to' eval 'fileop snapshot home back | grep -x "[0-9]*"'
id=$(fileop subvol-field back id)
op 'changes' OK write home/data 0
op 'changes' OK unlink home/data
op 'the default is what is gone back to' OK set-default . "$id"
must swapoff home/swap
remount
is 'its content' 1048576 "$(stat -c %s data)"
check 'swapon after the rollback' swapon swap
is 'it has all its blocks' 65536 "$(stat -c %b swap)"
is 'pages are right' 0 "$(swapmem -o -r 2 8)"

# What else may happen to an active swapfile.
for flag in i a; do
	check "chattr +$flag works" chattr "+$flag" swap
	is 'pages are right' 0 "$(swapmem -o 4)"
	op 'swapoff opens it for writing' EPERM swapoff swap
	check "chattr -$flag works" chattr "-$flag" swap
done
mkdir -p /mnt/top
op 'the top level' OK mount "$dev" /mnt/top "$FS" subvolid=0
op 'its subvolume can be renamed' OK rename /mnt/top/back /mnt/top/forth
op 'and back' OK rename /mnt/top/forth /mnt/top/back
umount /mnt/top
is 'pages are right' 0 "$(swapmem -o 4)"
swap_and_hold 8
check 'shutdown' xfs_io -x -c 'shutdown -f' .
is 'pages that are swapped out come back' 0 "$(let_go)"
is 'and others can go there' 0 "$(swapmem -o 4)"
must swapoff swap
end
