#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The system can be suspended while a deleted subvolume is being dropped, and while snapshots are taken
# one after the other, also when that freezes the filesystem first.
# vm: --disk 1G

. "${0%/*}/lib.sh"
new_fs

dropping() { fileop subvol-dropping "$mnt"; }
# suspend: everything that has to stop for it stops, for a second.
suspend() { echo mem >/sys/power/state; }

# A tree that takes a while to drop: files of single blocks that others own, too.
must test "$(fileop subvol-create base)" = 1
do_op fill base/file 96 1
grow() {
	must test "$(fileop subvol-create big)" -gt 1
	must cp --reflink=always base/file big/pieces
	do_op rewrite big/pieces 2
	must cp --reflink=always big/pieces "base/$1"
	must sync
}

# snapshots NAME: one after the other, until it is enough.
snapshots() {
	PYTHONPATH=$here python3 -c 'if True:
		import itertools, os, sys, oxfsctl
		for number in itertools.count():
			if os.path.exists("/tmp/enough"):
				break
			oxfsctl.create(f"{sys.argv[1]}-{number}", "base")' "$1"
} 7>&- 8<&-
made() { find . -maxdepth 1 -name '*-[0-9]*' -type d | wc -l; }
# more: waits until there are more than now.
more() {
	local i now
	now=$(made)
	for ((i = 0; i < 1200; i++)); do
		(($(made) == now)) || return 0
		sleep 0.1
	done
	return 1
}

must test -w /sys/power/pm_test
echo 1 >/sys/module/suspend/parameters/pm_test_delay
echo freezer >/sys/power/pm_test
# What is in the way is so for ever; what only waits for the machine's other work is not.
echo 60000 >/sys/power/pm_freeze_timeout

# With filesystems as they are, and with filesystems frozen first.
for frozen in 0 1; do
	echo "$frozen" >/sys/power/freeze_filesystems
	# It may be done before everything stops.
	for try in 1 2 3 4 5; do
		grow "pieces-$frozen-$try"
		do_op subvol-delete big
		check "suspend while a subvolume is being dropped ($frozen)" suspend
		left=$(dropping)
		[[ $left == 0 ]] || break
	done
	is 'it is not dropped meanwhile' 1 "$left"
	check 'it goes on' dropped

	# Several at once: all but one wait for their turn.
	rm -f /tmp/enough
	takers=()
	for name in a b c d e f; do
		snapshots "$name-$frozen" &
		takers+=($!)
	done
	for i in 1 2 3; do
		check "snapshots are taken ($i)" more
		check "suspend meanwhile ($frozen)" suspend
	done
	check 'it goes on' more
	touch /tmp/enough
	for taker in "${takers[@]}"; do check 'none failed' wait "$taker"; done
done

end
