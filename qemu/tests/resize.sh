#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A mounted volume becomes larger, after its device has, and smaller, while it is written to, read and
# swapped to, with snapshots and clones in what has to move; and what is in the way of that.
# vm: --disk 1G

. "${0%/*}/lib.sh"

# device MIB: how much of the disk the device has.
table() { echo "0 $(($1 << 11)) linear /dev/vda 0"; }
device() {
	must dmsetup suspend --noflush --nolockfs resized
	must dmsetup load resized --table "$(table "$1")"
	must dmsetup resume resized
}
mib() { echo $(($(oxfs --json filesystem usage . | jq .size) >> 20)); }
shown() { df --output=size -B 1M . | tail -n 1 | tr -d ' '; }
resize() { oxfs filesystem resize "$1" .; }

# refused NAME TEXT SIZE: it fails, TEXT is part of what it says, and the size stays.
refused() {
	local said before
	before=$(mib)
	if said=$(resize "$3" 2>&1); then
		fail "$1" "it succeeded: $said"
	else
		has "$1" "$2" "$said"
	fi
	is "$1: the size stays" "$before" "$(mib)"
}

# last FILE: the last MiB of the device that the file has something in.
last() { fileop fiemap "$1" | awk '{ end = $2 + $3; if (end > last) last = end } END { print int(last / 256) }'; }

must dmsetup create resized --noudevsync --table "$(table 300)"
must dmsetup mknodes
dev=/dev/mapper/resized
new_fs
is 'as large as the device' '300 300' "$(mib) $(shown)"
refused 'beyond the device' 'the device is smaller' 400M
refused 'more than the device' 'the device is smaller' +1G
refused 'less than there is' 'the volume has' -1T
refused 'too small' '16 MiB or more' 8M
chmod 777 .
is 'not for users' 1 "$(setpriv --reuid 1000 --regid 1000 --clear-groups oxfs filesystem resize max . 2>&1 | grep -c 'not permitted')"
check 'the size that it has' resize 300M

check 'subvolume' oxfs subvolume create home
do_op fill home/data 8 1
swapfile home/swap 48 2
must sync
turn_on home/swap
still=$(fileop fiemap home/swap)

# Until they are told to stop, but some rounds at least: swap traffic; files written, compared and
# removed; and files read past the page cache and into it.
swapping_on() {
	while
		swapmem -o -r 2 -S 3 10 || echo wrong
		[[ ! -e /tmp/stop ]]
	do :; done >/tmp/swapped 2>&1
}
writing_on() {
	local i
	for ((i = 0; ; i++)); do
		[[ ! -e /tmp/stop ]] || ((i < 3)) || break
		head -c 300000 /dev/urandom >/tmp/source
		cp /tmp/source "home/written$((i % 9))"
		((i % 3)) || sync "home/written$((i % 9))"
		cmp /tmp/source "home/written$((i % 9))" || echo wrong
	done >/tmp/written 2>&1
}
reading_on() {
	local sum seen
	sum=$(sha256sum <"$1")
	while [[ ! -e /tmp/stop ]]; do
		echo 1 >/proc/sys/vm/drop_caches
		seen=$(sha256sum <"$1")
		[[ $seen == "$sum" ]] || echo cached
		seen=$(dd "if=$1" iflag=direct bs=256K status=none | sha256sum)
		[[ $seen == "$sum" ]] || echo direct
	done >/tmp/read 2>&1
}
# start FILE, stop NAME
start() {
	rm -f /tmp/stop
	swapping_on & jobs=$!
	writing_on & jobs+=" $!"
	reading_on "$1" & jobs+=" $!"
	sleep 1
}
stop() {
	touch /tmp/stop
	# shellcheck disable=SC2086 # several
	wait $jobs
	is "$1: every page that was swapped is right" 0 "$(sort -u /tmp/swapped)"
	is "$1: every file that was written is right" '' "$(</tmp/written)"
	is "$1: every read is right" '' "$(</tmp/read)"
}

start home/data
device 1000
is 'a larger device alone changes nothing' 300 "$(mib)"
check 'grow a little' resize +2M
check 'grow' resize max
is 'as large as the device' '1000 1000' "$(mib) $(shown)"
has 'the log tells' 'resized from' "$(dmesg | grep oxfs | tail -n 1)"
stop grow
is 'grow: the swapfile has not moved' "$still" "$(fileop fiemap home/swap)"

# Something beyond 300 MiB: behind a file that goes.
must fallocate -l 450M filler
must oxfs subvolume create high
do_op fill high/data 24 5
cp --reflink=always high/data high/clone
do_op rewrite high/clone 5
# What fits in between goes there: until one does not.
for ((i = 0; ; i++)); do
	swapfile high/swap 16 6
	must sync
	(($(last high/swap) < 400)) || break
	must mv high/swap "high/low$i"
done
rm -f high/low*
# Its blocks are its own from here on, whatever has a snapshot.
turn_on high/swap
must swapoff high/swap
check 'a snapshot' oxfs subvolume snapshot -r high snap
do_op fill high/data2 4 7
must sync
before=$(sums high/data high/clone high/data2 snap/data snap/clone home/data)
at_least 'it is beyond 300 MiB' 400 "$(last high/data)"
refused 'what is in use has no room' 'has no room' 300M
rm filler
must sync
turn_on high/swap
at_least 'the active swapfile is beyond 300 MiB' 400 "$(last high/swap)"
refused 'an active swapfile in the way' 'swapoff it first' 300M
has 'the log names it' 'swapfile high/swap is active' "$(dmesg | grep 'is active' | tail -n 1)"
must swapoff high/swap

used=$(df --output=used -B 1M . | tail -n 1)
start high/data
check 'shrink, with another active swapfile' resize 300M
is 'the size is that' '300 300' "$(mib) $(shown)"
stop shrink
is 'shrink: the swapfile has not moved' "$still" "$(fileop fiemap home/swap)"
rm home/written*
must sync
at_most 'what was shared is shared' $((used + 8)) "$(df --output=used -B 1M . | tail -n 1)"
at_most 'nothing is beyond the end' 300 "$(last high/data)"
is 'the content is the same' "$before" \
	"$(sums high/data high/clone high/data2 snap/data snap/clone home/data)"
check 'the inactive swapfile can be used' swapon high/swap
is 'its pages are right' 0 "$(swapmem -o 8)"
must swapoff high/swap
must swapoff home/swap

cd / || give_up 'cd /'
check 'unmount' umount "$mnt"
check 'the filesystem is clean' check_fs
device 300
check 'and on a device of that size' check_fs
mount_fs
is 'mounted again' '300 300' "$(mib) $(shown)"
is 'the content is the same' "$before" \
	"$(sums high/data high/clone high/data2 snap/data snap/clone home/data)"

device 1000
check 'grow again' resize 1000M
must fallocate -l 400M filler
do_op fill late 32 9
must sync
sum=$(sha256sum <late)
rm filler
oxfs filesystem resize 320M . >/tmp/killed 2>&1 &
killed=$!
sleep 0.3
kill -KILL "$killed"
wait "$killed" 2>/dev/null
is 'killed: it has one of the two sizes' yes "$(case $(mib) in 320 | 1000) echo yes ;; *) mib ;; esac)"
check 'shrink after that' resize 320M
is 'the content is the same' "$sum" "$(drop_caches; sha256sum <late)"
check 'grow after that' resize max
end
