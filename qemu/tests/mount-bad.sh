#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What cannot be mounted, or not in that way: an error that other filesystems give too, a line in the
# log that says why, nothing worse. And the module comes and goes.
# vm: --disk 256M --disk 64M

. "${0%/*}/lib.sh"
edit() { must python3 "$here/oxfs-edit.py" "$dev" "$@"; }

# refused NAME ERRNO TEXT [OPTIONS]: the mount, with TEXT in the log.
refused() {
	dmesg --clear
	op "$1: $2" "$2" mount "$dev" "$mnt" "$FS" "${4-}"
	has "$1: the log says why" "$3" "$(dmesg)"
	! mountpoint -q "$mnt" || umount "$mnt"
}
# mounted NAME [OPTIONS]: it can be mounted all the same.
mounted() {
	op "$1" OK mount "$dev" "$mnt" "$FS" "${2-}"
	op "$1: unmount" OK unmount "$mnt"
}

refused 'an empty device' EINVAL 'not an oxfs volume'
must mkfs.ext4 -q /dev/vdb
dev=/dev/vdb
refused "another filesystem" EINVAL 'not an oxfs volume'
check 'mkfs does not overwrite it unasked' eval '! mkfs.oxfs --quiet /dev/vdb 2>/tmp/mkfs && grep -q ext4 /tmp/mkfs'
op 'a device that is not there' ENOENT mount /dev/nothing "$mnt" "$FS" ''
op 'a folder as the device' ENOTBLK mount /tmp "$mnt" "$FS" ''
op 'a device without a driver' ENXIO mount "$(mknod /tmp/none b 240 7; echo /tmp/none)" "$mnt" "$FS" ''

make_fs
mounted 'a good one'
for copy in A B mirrors; do
	make_fs
	edit damage super "$copy"
	mounted "damaged super block $copy"
done
make_fs
edit damage super all
refused 'all copies of the super block are damaged' EINVAL 'not an oxfs volume'
make_fs
edit set version 99
refused 'a newer version' EINVAL 'version'
make_fs
edit set incompat 0x4000000000000000
refused 'an unknown incompat feature' EINVAL 'incompat feature'
refused 'an unknown incompat feature, read-only' EINVAL 'incompat feature' ro
make_fs
edit set ro_compat 0x4000000000000000
refused 'an unknown ro_compat feature' EINVAL 'ro_compat feature'
mounted 'an unknown ro_compat feature, read-only' ro
make_fs
edit set blocks 100000000
refused 'a short device' EINVAL 'smaller than the volume'
make_fs
edit set blocks 0xffffffffffffffff
refused 'an impossible size' EUCLEAN 'size of the volume'
make_fs
edit set group_shift 3
refused 'an impossible size of groups' EINVAL 'group size'
make_fs
edit set default_subvolume 77
refused 'a subvolume that does not exist' EUCLEAN 'default subvolume'
for tree in forest space; do
	make_fs
	edit damage $tree
	block=$(</tmp/must.log)
	refused "a damaged root of the $tree tree" EUCLEAN "block $block"
done

# Damage that is found later.
dev=/dev/vda
new_fs
for i in {1..400}; do : >"file$i"; done
cd / || give_up 'cd /'
must umount "$mnt"
edit damage nodes
at_least 'leaves are damaged' 5 "$(</tmp/must.log)"
dmesg --clear
seen=$(fileop mount "$dev" "$mnt" "$FS" '')
if [[ $seen == OK ]]; then
	check 'reading of damaged nodes fails' eval '! ls -l "$mnt" 2>/tmp/ls'
	has 'as it should' 'Structure needs cleaning' "$(</tmp/ls)"
	op 'nothing can be changed any more' EROFS mkdir "$mnt/new"
	op 'unmount' OK unmount "$mnt"
else
	is 'mount of damaged nodes' EUCLEAN "$seen"
fi
has 'the log says which block and why' 'corrupt: block' "$(dmesg)"

# A device that fails: everything behind the super blocks is unreadable.
new_fs
mkdir folder
cd / || give_up 'cd /'
must umount "$mnt"
sectors=$(blockdev --getsz /dev/vda)
{
	echo "0 136 linear /dev/vda 0"
	echo "136 $((sectors - 136)) error"
} | dmsetup create --noudevsync broken || give_up dmsetup
must dmsetup mknodes
dev=/dev/mapper/broken
refused 'a device that cannot be read' EIO 'input/output error at block'
must dmsetup remove broken
dev=/dev/vda

must blockdev --setro "$dev"
op 'a read-only device' EACCES mount "$dev" "$mnt" "$FS" ''
op 'a read-only device, read-only' OK mount "$dev" "$mnt" "$FS" ro
op 'it cannot be written' EROFS mkdir "$mnt/new"
op 'nor made writable' EACCES mount "$dev" "$mnt" "$FS" remount
op 'unmount' OK unmount "$mnt"
must blockdev --setrw "$dev"

refused 'an option that does not exist' EINVAL "Unknown parameter 'colour'" colour=red
refused 'an option with a wrong value' EINVAL 'commit' commit=soon
refused 'an option out of range' EINVAL 'commit' commit=99999999
refused 'an option without its value' EINVAL 'commit' commit
op 'an option' OK mount "$dev" "$mnt" "$FS" commit=7
has 'is shown' 'commit=7' "$(grep " $mnt " /proc/mounts)"
op 'remount with another value' OK mount "$dev" "$mnt" "$FS" remount,commit=9
has 'is shown' 'commit=9' "$(grep " $mnt " /proc/mounts)"
op 'remount with an unknown option' EINVAL mount "$dev" "$mnt" "$FS" remount,colour
has 'what was in force stays' 'commit=9' "$(grep " $mnt " /proc/mounts)"

op 'the same device at the same place' EBUSY mount "$dev" "$mnt" "$FS" ''
mkdir /tmp/second
op 'at another place' OK mount "$dev" /tmp/second "$FS" ''
op 'it is the same' OK mkdir "$mnt/seen"
check 'it is the same' test -d /tmp/second/seen
op 'unmount' OK unmount /tmp/second
op 'read-only while it is mounted writable' EBUSY mount "$dev" /tmp/second "$FS" ro
check 'mkfs of what is mounted is refused' eval '! mkfs.oxfs --force "$dev"'
is 'fsck of what is mounted is refused' 8 "$(fsck.oxfs "$dev" >/tmp/fsck 2>&1; echo $?)"
op 'remount read-only' OK mount "$dev" "$mnt" "$FS" remount,ro
op 'it cannot be written' EROFS mkdir "$mnt/new"
op 'remount writable' OK mount "$dev" "$mnt" "$FS" remount
op 'it can be written' OK mkdir "$mnt/new"

check 'rmmod is refused while it is mounted' eval '! rmmod oxfs 2>/tmp/rmmod && grep -q "in use" /tmp/rmmod'
exec 9>"$mnt/open"
op 'umount is refused while a file is open' EBUSY unmount "$mnt"
exec 9>&-
op 'unmount' OK unmount "$mnt"
check 'rmmod' rmmod oxfs
is 'it is gone' 0 "$(grep -c oxfs /proc/modules /proc/filesystems | awk -F: '{ n += $2 } END { print n }')"
check 'insmod' insmod /lib/modules/oxfs.ko

# numbers: objects of the inode cache that are in use, and KiB of memory that is neither free nor
# cache.
objects() { awk '$1 == "oxfs_inode_cache" { n = $2 } END { print n + 0 }' /proc/slabinfo; }
memory() {
	sync
	echo 3 >/proc/sys/vm/drop_caches
	awk '/^(Slab|VmallocUsed|Percpu|KernelStack):/ { n += $2 } END { print n }' /proc/meminfo
}
op 'the first mounts and unmounts' OK cycles "$dev" "$mnt" "$FS" 50
before=$(memory)
op 'a thousand mounts and unmounts' OK cycles "$dev" "$mnt" "$FS" 1000
# What goes with a grace period goes a little later.
for ((i = 0; i < 30; i++)); do
	after=$(memory)
	((after > before + 1500)) || break
	sleep 1
done
at_most 'they leave no memory behind (KiB)' $((before + 1500)) "$after"
at_most 'nor inodes' 200 "$(objects)"
for i in 1 2 3 4 5; do rmmod oxfs && insmod /lib/modules/oxfs.ko; done
check 'the module goes and comes' rmmod oxfs
check 'modprobe by the name of the filesystem' modprobe fs-oxfs
mount_fs
end
