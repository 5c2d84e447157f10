#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Deleting a subvolume returns at once. Its space comes back in the background, which stops for
# unmounting, read-only mounts and freezing, and goes on after that, and after a crash.
# vm: --disk 1G

. "${0%/*}/lib.sh"
new_fs

used() { df --output=used -B 4096 "$mnt" | tail -n 1 | tr -d ' '; }
dropping() { fileop subvol-dropping "$mnt"; }
# grow NAME: a subvolume whose tree takes a while to drop: a file of single blocks.
must test "$(fileop subvol-create first)" = 1
do_op fill first/base 96 1
grow() {
	must cp --reflink=always first/base "$1/pieces"
	do_op rewrite "$1/pieces" 2
}
start=$(used)

must test "$(fileop subvol-create "big")" -gt 1
grow big
at_least 'there is something to drop' 10000 "$(extents big/pieces)"
must sync
exec 9<big/pieces
op 'delete' OK subvol-delete big
is 'it returns before anything is dropped' 1 "$(dropping)"
exec 9<&-
check 'the space comes back' dropped
sync
at_most 'all of it' $((start + 200)) "$(used)"

must test "$(fileop subvol-create "big")" -gt 1
grow big
must sync
do_op subvol-delete big
check 'freeze while it is being dropped' fsfreeze --freeze "$mnt"
frozen=$(used)
sleep 1
is 'nothing happens meanwhile' "$frozen" "$(used)"
check 'thaw' fsfreeze --unfreeze "$mnt"
check 'it goes on' dropped

must test "$(fileop subvol-create "big")" -gt 1
grow big
must sync
do_op subvol-delete big
cd / || give_up 'cd /'
check 'unmount while it is being dropped' umount "$mnt"
check 'the filesystem is clean' check_fs
mount_fs
check 'it goes on' dropped

# An open file keeps it until the power is off: all of it is there at the next mount.
must test "$(fileop subvol-create "big")" -gt 1
grow big
exec 9<big/pieces
do_op subvol-delete big
must sync
must xfs_io -x -c 'shutdown -f' "$mnt"
exec 9<&-
cd / || give_up 'cd /'
must umount "$mnt"
must mount -t "$FS" -o ro "$dev" "$mnt"
is 'it is not dropped read-only' 1 "$(dropping)"
sleep 1
is 'it is not dropped read-only' 1 "$(dropping)"
must mount -o remount,rw "$mnt"
check 'it goes on when it becomes writable' dropped
cd "$mnt" || give_up "cd $mnt"

must test "$(fileop subvol-create "big")" -gt 1
grow big
must sync
do_op subvol-delete big
must sync
check 'power off while it is being dropped' xfs_io -x -c 'shutdown' "$mnt"
cd / || give_up 'cd /'
must umount "$mnt"
check 'the filesystem is clean' check_fs
mount_fs
check 'it goes on' dropped
is 'and is gone' '' "$(fileop subvol-list . | grep dropping)"
is 'what shared its blocks is right' 100663296 "$(stat -c %s first/base)"
sum=$(sha256sum <first/base)
remount
is 'what shared its blocks is right' "$sum" "$(sha256sum <first/base)"

# Files that are open keep it; then it goes.
must test "$(fileop subvol-create open)" -gt 1
do_op fill open/file 1 3
sum=$(sha256sum <open/file)
exec 9<>open/file
do_op subvol-delete open
echo written >&9
must sync
is 'a file of a deleted subvolume can be written' written "$(head -n 1 /proc/self/fd/9)"
is 'it is kept' 1 "$(dropping)"
check 'power off meanwhile' xfs_io -x -c 'shutdown -f' "$mnt"
exec 9<&-
cd / || give_up 'cd /'
must umount "$mnt"
mount_fs
check 'it goes at the next mount' dropped
end
