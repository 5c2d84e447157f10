#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Subvolumes and snapshots: creating, listing, deleting; writes on both sides of a snapshot; nested
# subvolumes; what does not cross subvolumes and what does; file handles; space comes back.
# vm: --disk 1G

. "${0%/*}/lib.sh"
new_fs

subvolume() { stat -c '%i' "$1" | awk '{ print int($1 / 2 ^ 40) }'; }

is 'the top level is subvolume 0' '0 / default' "$(fileop subvol-list .)"
op 'create' 1 subvol-create home
op 'create in a folder' OK mkdir folder
op 'create in a folder' 2 subvol-create folder/work
is 'list' '0 / default;1 /home;2 /folder/work' "$(fileop subvol-list . | paste -sd ';')"
is 'a subvolume has inode 2, and its number' $(((1 << 40) + 2)) "$(stat -c %i home)"
is 'statx shows the subvolume' 1 "$(subvolume home)"
is 'one device number' "$(stat -c %d .)" "$(stat -c %d home)"
is 'readdir shows the same inode' "$(stat -c %i home)" "$(find . -maxdepth 1 -name home -printf %i)"
is '.. of it is the directory that it is in' "$(stat -c %i .)" "$(stat -c %i home/..)"
op 'the name is taken' EEXIST subvol-create home
op 'no slash in a name' EINVAL subvol-create 'folder/..'
op 'a name that is too long' ENAMETOOLONG subvol-create "$(printf '%0256d' 0)"
op 'not in a file' OK append file
op 'not in a file' ENOTDIR subvol-create file/sub

do_op fill home/data 4 1
do_op mkdir home/tree
for i in {1..100}; do echo "$i" >"home/tree/f$i"; done
do_op link home/data home/hard
content=$(sha256sum <home/data)
op 'snapshot' 3 snapshot home snap
is 'it has the content' "$content" "$(sha256sum <snap/data)"
is 'it has the folders' 100 "$(find snap/tree -type f | wc -l)"
is 'inode numbers differ' '' "$(find home snap -printf '%i\n' | sort | uniq -d | grep -vx "$(stat -c %i home/data)" | grep -vx "$(stat -c %i snap/data)")"
is 'it knows its source' '1' "$(fileop subvol-field snap source)"
is 'by uuid too' "$(fileop subvol-field home uuid)" "$(fileop subvol-field snap source_uuid)"
at_least 'content is shared' 1024 "$(blocks_with snap/data shared)"
op 'write to the source' OK write home/data 8K
is 'the snapshot has not changed' "$content" "$(sha256sum <snap/data)"
changed=$(sha256sum <home/data)
op 'write to the snapshot' OK write snap/data 16K
is 'the source has not changed' "$changed" "$(sha256sum <home/data)"
op 'unlink in the source' OK unlink home/tree/f1
is 'it is in the snapshot' 1 "$(<snap/tree/f1)"
op 'unlink in the snapshot' OK unlink snap/tree/f2
is 'it is in the source' 2 "$(<home/tree/f2)"
op 'new in the snapshot' OK append snap/new
op 'not in the source' ENOENT read home/new 0
op 'a snapshot that is dirty when it is taken' OK fallocate home/dirty allocate 0 64K
dd if=/dev/urandom of=home/dirty bs=4K count=16 conv=notrunc status=none
op 'a snapshot that is dirty when it is taken' 4 snapshot home snap2
is 'it has what was dirty' "$(sha256sum <home/dirty)" "$(sha256sum <snap2/dirty)"
op 'snapshot of a snapshot' 5 snapshot snap snap3
is 'it has its content' "$(sha256sum <snap/data)" "$(sha256sum <snap3/data)"
op 'snapshot within its source' 6 snapshot home home/inner
is 'it does not hold itself' 0 "$(find home/inner/inner -mindepth 1 2>/dev/null | wc -l)"
op 'snapshot of a folder' EINVAL snapshot home/tree snap4
op 'snapshot under a name that is taken' EEXIST snapshot home snap

op 'hard link across' EXDEV link home/data data
op 'rename of a file across' EXDEV rename home/data data
op 'rename of a folder across' EXDEV rename home/tree tree
op 'exchange across' EXDEV exchange home/data file
check 'clone across' cp --reflink=always home/data clone
is 'clone across is right' "$(sha256sum <home/data)" "$(sha256sum <clone)"
op 'rename of a subvolume' OK rename snap2 folder/moved
is 'its path' folder/moved "$(fileop subvol-field folder/moved path)"
is 'its ..' "$(stat -c %i folder)" "$(stat -c %i folder/moved/..)"
op 'rename over a subvolume that is not empty' ENOTEMPTY rename folder/work home

op 'nested' 7 subvol-create home/nested
op 'nested' OK append home/nested/file
op 'a snapshot does not hold what is nested' 8 snapshot home outer
is 'a folder is in its place' 0 "$(find outer/nested -mindepth 1 | wc -l)"
is 'which is an ordinary one' 8 "$(subvolume outer/nested)"
op 'which can be removed' OK rmdir outer/nested
op 'what holds another cannot be deleted' ENOTEMPTY subvol-delete home
op 'a folder cannot be deleted so' EINVAL subvol-delete folder
op 'nor a file' ENOTDIR subvol-delete file
op 'nor what is not there' ENOENT subvol-delete nothing
op 'rmdir of a subvolume that is not empty' ENOTEMPTY rmdir outer

handle=$(fileop handle snap/data)
folder_handle=$(fileop handle snap/tree)
is 'a file handle' "$mnt/snap/data $(stat -c %i snap/data)" "$(fileop handle-path "$mnt" "$handle")"
inode=$(stat -c %i snap/data)
tree_inode=$(stat -c %i snap/tree)
remount
is 'a file handle after a remount' "$inode" "$(fileop handle-path "$mnt" "$handle" | awk '{ print $2 }')"
is 'that of a folder' "$mnt/snap/tree $tree_inode" "$(fileop handle-path "$mnt" "$folder_handle")"
is 'the list after a remount' '0 / default;1 /home;2 /folder/work;3 /snap;4 /folder/moved;5 /snap3;6 /home/inner;7 /home/nested;8 /outer' \
	"$(fileop subvol-list . | paste -sd ';')"
is 'content after a remount' "$changed" "$(sha256sum <home/data)"

exec 9<snap/data
is 'reading an open file' "$(sha256sum <snap/data)" "$(sha256sum <&9)"
before=$(sha256sum <snap/data)
op 'delete' OK subvol-delete snap
op 'it is gone' ENOENT read snap/data 0
is 'it is not listed under its name' '' "$(fileop subvol-list . | grep ' /snap$')"
op 'its file handle is stale' ESTALE handle-path "$mnt" "$folder_handle"
exec 6</proc/self/fd/9
is 'an open file of it can still be read' "$before" "$(sha256sum <&6)"
is 'so its space does not come back' 1 "$(fileop subvol-dropping .)"
exec 9<&- 6<&-
check 'it does when the file is closed' dropped
op 'delete of all the others' OK subvol-delete snap3
op 'delete of all the others' OK subvol-delete folder/moved
op 'delete of all the others' OK subvol-delete home/inner
op 'delete of all the others' OK subvol-delete outer
op 'rmdir of an empty subvolume' OK rmdir folder/work
op 'delete of what is nested' OK subvol-delete home/nested
op 'and then of what it was in' OK subvol-delete home
check 'all space comes back' dropped
is 'the list' '0 / default' "$(fileop subvol-list .)"
op 'numbers are not used again' 9 subvol-create again
end
