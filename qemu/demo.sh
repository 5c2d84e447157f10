#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The main job as a story: a swapfile is cloned, swapon makes it private by itself, memory is
# swapped through it, and whoever would get in the way is refused; then snapshots of a system whose
# swapfile is in use, and a rollback to one. Exits with 0 only if all of it was seen.
#
# vm: --memory 512M --disk 2G --timeout 420

set -uo pipefail

disk=/dev/vda mnt=/mnt/oxfs file=/mnt/oxfs/swapfile clone=/mnt/oxfs/clone
failed=0
table=()

tell() { printf '\n%s\n' "$*"; }

# promise TEXT SEEN FIGURE: a row of the table; SEEN is yes or no.
promise() {
	table+=("$1|$2|$3")
	[[ $2 == yes ]] || failed=1
}

yes_if() { if "$@"; then echo yes; else echo no; fi; }

# Sectors of 512 bytes that the disk has read and written.
sectors() { awk '{ print $3, $7 }' "/sys/block/${disk##*/}/stat"; }

vmstat() { awk -v name="$1" '$1 == name { print $2 }' /proc/vmstat; }

shared() { filefrag -v "$1" | grep -c shared; }

extents() { filefrag -v "$1" | grep -cE '^ *[0-9]+:'; }

# refused COMMAND...: whether it is told "Text file busy". (xfs_io says so and exits with 0.)
refused() { "$@" >/tmp/answer 2>&1; grep -q 'Text file busy' /tmp/answer; }

tell "1. A new oxfs on $disk, mounted on $mnt."
mkfs.oxfs -q "$disk" && mkdir -p $mnt && mount -t oxfs $disk $mnt || exit 1

tell '2. A swapfile of 384 MiB, and a clone of it: both own the same blocks.'
dd if=/dev/zero of=$file bs=1M count=384 status=none && chmod 600 $file && mkswap $file >/dev/null &&
	cp --reflink=always $file $clone && sync || exit 1
before=$(shared $file)
echo "   filefrag: $(extents $file) extents, $before of them shared"
sum=$(sha256sum <$clone)

tell '3. swapon. Others answer "Invalid argument"; oxfs makes the file private, in metadata only.'
read -r read0 written0 < <(sectors)
start=$(date +%s%N)
swapon $file
on=$?
took=$((($(date +%s%N) - start) / 1000000))
read -r read1 written1 < <(sectors)
read_kib=$(((read1 - read0) / 2)) written_kib=$(((written1 - written0) / 2))
dmesg | grep 'oxfs.*swap' | tail -n 2 | sed 's/^/   /'
after=$(shared $file)
echo "   filefrag: $(extents $file) extents, $after of them shared"
promise 'a cloned swapfile can be swapped to' "$(yes_if test $on -eq 0)" "$took ms"
promise 'its blocks become its own' "$(yes_if test "$before" -gt 0 -a "$after" -eq 0)" \
	"$before shared extents before, $after after"
promise 'in metadata only' "$(yes_if test $written_kib -le 1024 -a $read_kib -le 1024)" \
	"384 MiB: $written_kib KiB written, $read_kib KiB read"

tell '4. Memory is filled: 560 MiB on a machine of 512. Every byte is compared.'
out0=$(vmstat pswpout) in0=$(vmstat pswpin)
"$(dirname "$0")/tests/swapmem.py" 560 >/tmp/wrong
stress=$?
out=$(($(vmstat pswpout) - out0)) in=$(($(vmstat pswpin) - in0))
echo "   $out pages out, $in pages in"
promise 'memory is swapped through it' "$(yes_if test $out -gt 10000 -a $in -gt 1000)" \
	"$out pages out, $in in"
promise 'what comes back is what went out' "$(yes_if test $stress -eq 0)" "$(cat /tmp/wrong) wrong pages"

tell '5. Meanwhile whoever would move or share its blocks is told "Text file busy".'
busy=0
for attempt in "cp --reflink=always $file $mnt/second" "xfs_io -c 'reflink $clone' $file" \
	"fallocate -p -o 1M -l 1M $file" "truncate -s 1G $file" "dd if=/dev/zero of=$file count=1"; do
	if eval "refused $attempt"; then
		busy=$((busy + 1))
		echo "   refused: ${attempt%% *}: $(tail -n 1 /tmp/answer)"
	else
		echo "   NOT refused: $attempt: $(tail -n 1 /tmp/answer)"
	fi
done
promise 'clone, fallocate, truncate, write are refused' "$(yes_if test $busy -eq 5)" "$busy of 5"

tell '6. swapoff. The clone is as it was, and nobody sees what was swapped out.'
swapoff $file
off=$?
sysctl -q vm.drop_caches=3
promise "the clone's content did not change" "$(yes_if test "$sum" = "$(sha256sum <$clone)")" sha256
zeros=$(tail -c +4097 $file | tr -d '\0' | head -c 1 | wc -c)
promise 'the swapfile reads as zeros' "$(yes_if test $off -eq 0 -a "$zeros" -eq 0)" '384 MiB read'

tell '7. A system in a subvolume, with a swapfile. Memory is swapped while ten snapshots are taken of it.'
system=$mnt/system
rm $file $clone
oxfs subvolume create $system && oxfs swapfile create --size 384M $system/swapfile &&
	echo good >$system/version && sync && swapon $system/swapfile || exit 1
moved() { filefrag -v $system/swapfile | grep -E '^ *[0-9]+:'; }
before=$(moved)
"$(dirname "$0")/tests/swapmem.py" -o -r 2 300 >/tmp/wrong &
stress=$!
out0=$(vmstat pswpout) free0=$(oxfs --json filesystem usage $mnt | jq .free) taken=0
start=$(date +%s%N)
for i in {1..10}; do
	oxfs subvolume snapshot -r $system "$mnt/snapshot$i" >/tmp/answer 2>&1 && taken=$((taken + 1))
	sleep 0.2
done
took=$((($(date +%s%N) - start) / 1000000 / 10 - 200))
sync
held=$(((free0 - $(oxfs --json filesystem usage $mnt | jq .free)) / 1024))
wait $stress
stress=$?
oxfs subvolume list $mnt | sed 's/^/   /' | head -n 4
promise 'an active swapfile is no obstacle' "$(yes_if test $taken -eq 10)" \
	"$taken of 10 snapshots, $took ms each, $(($(vmstat pswpout) - out0)) pages out"
promise 'snapshots hold nothing of swap' "$(yes_if test $held -lt 10240)" \
	"384 MiB of swap, 10 snapshots: $held KiB"
promise 'the swapfile does not move' "$(yes_if test "$before" = "$(moved)")" \
	"$(moved | wc -l) extents"
promise 'what comes back is what went out' "$(yes_if test $stress -eq 0)" "$(cat /tmp/wrong) wrong pages"

tell '8. An upgrade goes wrong. Back to the snapshot: it becomes what is mounted, and swapon works in it.'
echo bad >$system/version
swapoff $system/swapfile
oxfs subvolume snapshot $mnt/snapshot1 $mnt/again && oxfs subvolume set-default $mnt/again &&
	umount $mnt && mount -t oxfs $disk $mnt || exit 1
swapon $mnt/swapfile
on=$?
dmesg | grep 'oxfs.*swap' | tail -n 1 | sed 's/^/   /'
promise 'after a rollback swapon works' "$(yes_if test $on -eq 0)" "$(oxfs --json swapfile status $mnt | jq -c '.[0].new_blocks') blocks of its own"
promise 'the system is as it was' "$(yes_if test "$(cat $mnt/version)" = good)" "version: $(cat $mnt/version)"
"$(dirname "$0")/tests/swapmem.py" -o 200 >/tmp/wrong
promise 'it is swapped to' "$(yes_if test $? -eq 0)" "$(cat /tmp/wrong) wrong pages"
swapoff $mnt/swapfile

tell '9. Unmount and check.'
umount $mnt && fsck.oxfs -n $disk
promise 'fsck finds nothing' "$(yes_if test $? -eq 0)" "$(blockdev --getsize64 $disk) bytes"

printf '\n%-48s %-5s %s\n' promise seen figure
for row in "${table[@]}"; do
	IFS='|' read -r what seen figure <<<"$row"
	printf '%-48s %-5s %s\n' "$what" "$seen" "$figure"
done
exit $failed
