#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Names and attributes: create, link, rename in all its forms, folders that are read while they
# change, special files, times, sizes, flags, extended attributes; and files without a name, whose
# space comes back.
# vm: --disk 512M

. "${0%/*}/lib.sh"
new_fs

op 'create' OK append one
op 'create where a folder is missing' ENOENT append no/one
op 'hard link' OK link one two
is 'link count' '2 2' "$(stat -c %h one two | xargs)"
op 'link over an existing name' EEXIST link one two
op 'mkdir' OK mkdir dir
op 'mkdir again' EEXIST mkdir dir
op 'link of a folder' EPERM link dir other-dir
op 'a file as a folder' ENOTDIR mkdir one/dir
is 'link count of a folder' 2 "$(stat -c %h dir)"
op 'mkdir in it' OK mkdir dir/sub
is 'link count with a subfolder' 3 "$(stat -c %h dir)"
op 'rmdir of a folder that is not empty' ENOTEMPTY rmdir dir
op 'rmdir of a file' ENOTDIR rmdir one
op 'unlink of a folder' EISDIR unlink dir
op 'unlink of nothing' ENOENT unlink nothing
op 'a name of 255 bytes' OK append "$(printf 'n%.0s' {1..255})"
op 'a name of 256 bytes' ENAMETOOLONG append "$(printf 'n%.0s' {1..256})"
op 'a name with odd characters' OK append $'\x01 \xff*\\"?'

echo 1 >from
echo 2 >to
inode=$(stat -c %i from)
op 'rename over a file' OK rename from to
is 'it is the other file now' "$inode 1" "$(stat -c %i to) $(<to)"
op 'rename without replacing' EEXIST rename-new one to
op 'rename without replacing, to a free name' OK rename-new to free
op 'rename that leaves a whiteout' OK rename-whiteout free moved
is 'which is a device with number 0' '0 0 character special file' "$(stat -c '%t %T %F' free)"
op 'what was moved goes back over it' OK rename moved free
is 'and is there' 'regular file' "$(stat -c %F free)"
echo 3 >three
mkdir four
op 'exchange of a file and a folder' OK exchange three four
is 'exchanged' 'directory regular file' "$(stat -c %F three four | xargs)"
op 'exchange with nothing' ENOENT exchange three nothing
op 'rename of a link to the same file does nothing' OK rename one two
is 'both are there' '2 2' "$(stat -c %h one two | xargs)"
op 'rename of a folder into itself' EINVAL rename dir dir/sub/dir
op 'rename of a folder over a file' ENOTDIR rename dir one
op 'rename of a file over a folder' EISDIR rename one dir
op 'rename of a folder over one that is not empty' ENOTEMPTY rename three dir
op 'rename of a folder over an empty one' OK rename three dir/sub
mkdir parent
op 'rename of a folder to another one' OK rename dir/sub parent/sub
is 'link counts follow' '2 3' "$(stat -c %h dir parent | xargs)"
is 'and so does ..' "$(stat -c %i parent)" "$(stat -c %i parent/sub/..)"

target=$(printf 't%.0s' {1..4000})
ln -s "$target" long
ln -s one short
is 'symbolic link' '1 one' "$(readlink short | wc -l) $(readlink short)"
is 'a long one' "$target" "$(readlink long)"
is 'size of a link is the length of its target' 4000 "$(stat -c %s long)"
mkfifo fifo
mknod char c 1 3
mknod block b 7 9
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'
is 'special files' 'fifo,character special file 1:3,block special file 7:9,socket' \
	"$(stat -c %F fifo),$(stat -c '%F %t:%T' char),$(stat -c '%F %t:%T' block),$(stat -c %F socket)"
check 'the null device works' eval 'echo x >char'

chmod 6751 one
chown 12:34 two
touch -d '2038-01-20 01:02:03.123456789 UTC' -m one
touch -d '1960-05-05 00:00:00.5 UTC' -a one
attributes='751 12:34 2038-01-20 01:02:03.123456789 +0000 1960-05-05 00:00:00.500000000 +0000'
is 'mode, owner, times; chown takes the set-id bits away' "$attributes" "$(TZ=UTC stat -c '%a %u:%g %y %x' two)"
for i in {1..40}; do setfattr -n "user.name$i" -v "value $i" one; done
setfattr -n user.large -v "$(printf 'v%.0s' {1..1000})" one
setfattr -n user.name7 -v changed one
setfattr -x user.name9 one
attrs=$(getfattr -d one | sha256sum)
is 'extended attributes' '40 changed' "$(getfattr -d one | grep -c '^user') $(getfattr --only-values -n user.name7 one)"
chattr +i free
op 'an immutable file cannot be written' EPERM append free
op 'nor deleted' EPERM unlink free
chattr -i free
chattr +a free
op 'a file for appending can be appended to' OK append free
op 'but not truncated' EPERM truncate free 0

# A folder that is read while it changes: every name that was there all the time, exactly once.
cat >/tmp/readdir.py <<-'END'
	import os, sys
	stay = {f"stay{i:05}" for i in range(3000)}
	os.mkdir("read")
	for name in stay:
	    os.close(os.open("read/" + name, os.O_CREAT))
	for i in range(0, 500):
	    os.close(os.open(f"read/go{i}", os.O_CREAT))
	seen, step = [], 0
	with os.scandir("read") as entries:
	    for entry in entries:
	        seen.append(entry.name)
	        if step < 500:
	            os.unlink(f"read/go{step}")
	            os.close(os.open(f"read/new{step}", os.O_CREAT))
	            os.rename(f"read/new{step}", f"read/newer{step}")
	        step += 1
	kept = [name for name in seen if name.startswith("stay")]
	assert len(kept) == len(stay) and set(kept) == stay, (len(kept), len(set(kept)))
	assert len(set(os.listdir("read"))) == 3500
	# A place in a folder stays valid: by the C library's telldir and seekdir.
	import ctypes
	libc = ctypes.CDLL(None)
	libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
	libc.readdir.argtypes = libc.telldir.argtypes = libc.closedir.argtypes = [ctypes.c_void_p]
	libc.telldir.restype = ctypes.c_long
	libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
	def name(entry): return ctypes.string_at(entry + 19)
	folder = libc.opendir(b"read")
	places = []
	while entry := libc.readdir(folder):
	    places.append((name(entry), libc.telldir(folder)))
	for i in range(0, len(places) - 1, 211):
	    libc.seekdir(folder, places[i][1])
	    assert name(libc.readdir(folder)) == places[i + 1][0], i
END
check 'a folder that is read while it changes; places in it stay valid' python3 /tmp/readdir.py
check 'rm of it all' rm -r read

# Deleted but open: content and space stay until it is closed.
sync
free=$(df --output=avail . | tail -n 1)
do_op fill gone 32 9
sum=$(sha256sum <gone)
exec 9<>gone
rm gone
sync
is 'a deleted file that is open has its content' "$sum" "$(drop_caches; sha256sum <&9)"
at_most 'and its space' $((free - 30000)) "$(df --output=avail . | tail -n 1)"
check 'it can still be written' dd if=/dev/zero of=/dev/fd/9 bs=4096 count=10 conv=notrunc status=none
exec 9>&-
sync
at_least 'its space comes back' $((free - 256)) "$(df --output=avail . | tail -n 1)"
check 'O_TMPFILE' xfs_io -T -c 'pwrite -q 0 64k' .

inodes=$(find . -printf '%p %i %m %U:%G %s %T@ %n %l\n' | sort | sha256sum)
remount
is 'all of it is there after a remount' "$inodes" "$(find . -printf '%p %i %m %U:%G %s %T@ %n %l\n' | sort | sha256sum)"
is 'attributes after a remount' "$attributes" "$(TZ=UTC stat -c '%a %u:%g %y' two) $(TZ=UTC stat -c %x two)"
is 'extended attributes after a remount' "$attrs" "$(getfattr -d one | sha256sum)"
op 'flags after a remount' EPERM truncate free 0
chattr -a free
is 'number of inodes in df does not hinder' 0 "$(df -i . >/dev/null; echo $?)"
check 'everything can be deleted' find . -mindepth 1 -delete
end
