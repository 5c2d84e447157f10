#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A cut of the power at every flush, and between: a workload (files, snapshots, swapon of shared files,
# a database) on a device that records its writes (dm-log-writes) in the order in which they become
# durable, played back to each of these points. Each is clean, and has every file, snapshot and row
# that was acknowledged. SECONDS_OF_WORK and POINTS (of the log to look at) make it longer.
# crash-replay.sh [SEED]
# vm: --disk 128M --disk 1G --disk 128M --timeout 900

. "${BASH_SOURCE[0]%/*}/lib.sh"

modprobe dm-log-writes
must dmsetup create oxlog --noudevsync --table "0 $((128 << 11)) log-writes /dev/vda /dev/vdb"
must dmsetup mknodes
dev=/dev/mapper/oxlog
new_fs
seed=${1:-$RANDOM}
echo "# seed $seed"
must python3 "$here/replay.py" work "$mnt" oxlog "${SECONDS_OF_WORK:-25}" "$seed"
sed 's/^/# /' /tmp/must.log
cd / || give_up 'cd /'
check 'unmount' umount "$mnt"
check 'the filesystem is clean' check_fs
must dmsetup remove oxlog

python3 "$here/replay.py" play /dev/vdb /dev/vdc "$mnt" "$seed" >/tmp/replay 2>&1
sed 's/^/# /' /tmp/replay
check 'all of it could be replayed' grep -q '^points: ' /tmp/replay
at_least 'to many points' 100 "$(awk '/^points:/ { print $2 }' /tmp/replay)"
is 'each is clean and has what was acknowledged' '' "$(grep '^WRONG' /tmp/replay | head -n 5)"
ktap_end
