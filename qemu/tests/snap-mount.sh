#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Mounting subvolumes: by path, by number, the default one, several of one device at the same time,
# and what a mount shows of itself.
# vm: --disk 512M

. "${0%/*}/lib.sh"
new_fs
mkdir -p /mnt/a /mnt/b /mnt/c

# root_of MOUNT: what /proc/self/mountinfo says is mounted.
root_of() { awk -v at="$1" '$5 == at { print $4 }' /proc/self/mountinfo; }
options_of() { awk -v at="$1" '$2 == at { print $4 }' /proc/mounts; }
# mount_op NAME EXPECTED FOLDER OPTIONS
mount_op() { op "$1" "$2" mount "$dev" "$3" "$FS" "$4"; }

do_op mkdir folder
do_op append file
is 'create' '1 2 3' "$(fileop subvol-create home) $(fileop subvol-create folder/work) $(fileop subvol-create home/inner)"
echo home >home/text
echo work >folder/work/text
echo inner >home/inner/text
is 'a snapshot' 4 "$(fileop snapshot home 'a snap, "with" \signs')"
is 'the top level is mounted' '/ subvolid=0,subvol=/' "$(root_of "$mnt") $(options_of "$mnt" | grep -o "subvolid.*")"

mount_op 'by path' OK /mnt/a subvol=home
is 'its content' home "$(</mnt/a/text)"
is 'what it shows' '/home subvolid=1,subvol=/home' "$(root_of /mnt/a) $(options_of /mnt/a | grep -o "subvolid.*")"
mount_op 'by number' OK /mnt/b subvolid=2
is 'its content' work "$(</mnt/b/text)"
is 'what it shows' '/folder/work subvolid=2,subvol=/folder/work' "$(root_of /mnt/b) $(options_of /mnt/b | grep -o "subvolid.*")"
mount_op 'a nested one, slashes and dots' OK /mnt/c subvol=//home/./inner/
is 'its content' inner "$(</mnt/c/text)"
is 'one device number' "$(stat -c %d "$mnt")" "$(stat -c %d /mnt/c)"
is 'the root of a mount has inode 2' $(((3 << 40) + 2)) "$(stat -c %i /mnt/c)"
echo changed >/mnt/a/text
is 'a change is seen in the other mount' changed "$(<home/text)"
op 'unmount' OK unmount /mnt/c
mount_op 'signs in the path' OK /mnt/c subvolid=4
is 'are escaped' 'subvol=/a\040snap\054\040"with"\040\134signs' "$(options_of /mnt/c | grep -o "subvol=.*")"
op 'unmount' OK unmount /mnt/c
mount_op 'both options' OK /mnt/c subvol=/home,subvolid=1
op 'unmount' OK unmount /mnt/c
mount_op 'no such path' ENOENT /mnt/c subvol=nothing
mount_op 'no such number' ENOENT /mnt/c subvolid=99
mount_op 'a folder' EINVAL /mnt/c subvol=folder
mount_op 'a file' EINVAL /mnt/c subvol=file
mount_op 'below a file' ENOTDIR /mnt/c subvol=file/sub
mount_op 'options that do not agree' EINVAL /mnt/c subvol=/home,subvolid=2
mount_op 'not a number' EINVAL /mnt/c subvolid=home
mount_op 'read-only, while it is mounted writable' EBUSY /mnt/c ro,subvolid=1
check 'remount with what /proc/mounts shows' mount -o "remount,$(options_of /mnt/a),commit=10" /mnt/a
is 'it shows the same, and the new option' 'commit=10,subvolid=1,subvol=/home' "$(options_of /mnt/a | grep -o "commit.*")"

op 'a mounted subvolume can be renamed' OK rename folder/work work
is 'it shows that' '/work subvolid=2,subvol=/work' "$(root_of /mnt/b) $(options_of /mnt/b | grep -o "subvolid.*")"
op 'rename across of a file in two mounts' EXDEV rename /mnt/a/text /mnt/b/text2
op 'a mounted subvolume can be deleted' OK subvol-delete work
op 'nothing can be found in it any more' ENOENT read /mnt/b/text 0
op 'nothing new can be made in it' ENOENT mkdir /mnt/b/new
is 'what is mounted no longer has a path' subvolid=2 "$(options_of /mnt/b | grep -o "subvolid.*")"
is 'its space is kept' 1 "$(fileop subvol-dropping "$mnt")"
op 'unmount' OK unmount /mnt/b
check 'and then comes back' dropped

op 'set the default' OK set-default . 1
op 'the default cannot be deleted' EBUSY subvol-delete home
op 'no such subvolume' ENOENT set-default . 2
mount_op 'without an option the default is mounted' OK /mnt/b ''
is 'its content' changed "$(</mnt/b/text)"
mount_op 'the top level has number 0' OK /mnt/c subvolid=0
is 'its content' folder "$(cd /mnt/c && echo folde?)"
cd / || give_up 'cd /'
for folder in /mnt/a /mnt/b /mnt/c "$mnt"; do must umount "$folder"; done
mount_op 'read-only' OK /mnt/a ro,subvol=home
is 'its content' changed "$(</mnt/a/text)"
mount_op 'another, read-only' OK /mnt/b ro,subvolid=0
op 'no changes' EROFS subvol-create /mnt/b/new
op 'no changes' EROFS snapshot /mnt/a /mnt/b/new
op 'no changes' EROFS set-default /mnt/b 0
op 'no changes' EROFS label /mnt/b new
op 'unmount' OK unmount /mnt/a
check 'remount' mount -o remount,rw /mnt/b
op 'and then' OK set-default /mnt/b 0
op 'label' 'some label' label /mnt/b 'some label'
is 'label' 'some label' "$(fileop label /mnt/b)"
must umount /mnt/b
mount_fs
is 'label and default are kept' 'some label / default' "$(fileop label .) $(fileop subvol-list . | sed -n "1s,^[^ ]* ,,p")"
end
