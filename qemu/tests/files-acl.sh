#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# POSIX access control lists: who may do what, what new files get from their directory, and that
# mode and list go together. FS=xfs or ext4 answers the same.
# vm: --disk 512M

. "${0%/*}/lib.sh"
new_fs
umask 022

# as UID COMMAND...: says "yes" if that user can do it.
as() {
	local uid=$1
	shift
	setpriv --reuid "$uid" --regid "$uid" --clear-groups -- "$@" >/dev/null 2>&1 && echo yes || echo no
}
# acl FILE: its list in one line.
acl() { getfacl -cpn "$1" 2>&1 | grep -v '^$' | sed 's/[[:space:]]*#.*//' | paste -sd,; }
mode() { stat -c %a "$1"; }

echo secret >file
chmod 600 file
chmod 755 .
is 'others may not read' no "$(as 1001 cat file)"
must setfacl -m u:1001:r file
is 'whom the list names may' 'yes no' "$(as 1001 cat file) $(as 1002 cat file)"
is 'but not write' no "$(as 1001 truncate -s 0 file)"
is 'the list' 'user::rw-,user:1001:r--,group::---,mask::r--,other::---' "$(acl file)"
is 'the group bits are its mask' 640 "$(mode file)"
has 'it is listed' system.posix_acl_access "$(getfattr -m - file)"
must chmod 600 file
is 'chmod takes the mask away' 'no user::rw-,user:1001:r--,group::---,mask::---,other::---' \
	"$(as 1001 cat file) $(acl file)"
must chmod 660 file
is 'and gives it back' yes "$(as 1001 cat file)"
must setfacl -m g:1003:rw,u:1001:- file
is 'a group, and a user who is refused' 'yes no' "$(as 1003 truncate -s 3 file) $(as 1001 cat file)"
before="$(acl file) $(mode file)"
remount
is 'the same after a remount' "$before" "$(acl file) $(mode file)"
is 'and enforced' 'yes no' "$(as 1003 cat file) $(as 1001 cat file)"
must setfacl -m u::rw,g::r,o::- file
must setfacl -x u:1001,g:1003,m file
is 'a list of three is a mode' 640 "$(mode file)"
is 'and no attribute' '' "$(getfattr -m - file)"
must setfacl -m u:1001:rw file
must setfacl -b file
is 'setfacl -b' '' "$(getfattr -m - file)"
must chmod g+s file
must setfacl -m u:1001:r file
is 'set-group-id stays for who may set it' 2640 "$(mode file)"
is 'only the owner sets a list' no "$(as 1002 setfacl -m u:1002:rw file)"
mkdir plain
: >plain/file
is 'without a default list it is the umask' '644 755' "$(mode plain/file) $(mode plain)"
mkdir shared
must setfacl -d -m u::rwx,g::rx,o::-,u:1001:rwx shared
umask 077
: >shared/file
mkdir shared/folder
mkfifo shared/fifo
ln -s file shared/link
python3 - <<'END'
import os
fd = os.open("shared", os.O_TMPFILE | os.O_RDWR, 0o666)
os.write(fd, b"text")
# With a folder's descriptor it is linkat(2) that follows the link.
os.link(f"/proc/self/fd/{fd}", "tmpfile", dst_dir_fd=os.open("shared", os.O_PATH))
END
inherited='user::rw-,user:1001:rwx,group::r-x,mask::rw-,other::---'
is 'a file gets the list' "$inherited" "$(acl shared/file)"
is 'a FIFO too' "$inherited" "$(acl shared/fifo)"
is 'a file without a name too' "$inherited" "$(acl shared/tmpfile)"
is 'the umask is not asked' 660 "$(mode shared/file)"
default='default:user::rwx,default:user:1001:rwx,default:group::r-x,default:mask::rwx,default:other::---'
is 'a directory gets both' \
	"user::rwx,user:1001:rwx,group::r-x,mask::rwx,other::---,$default" "$(acl shared/folder)"
is 'a symbolic link none' '' "$(getfattr -h -m - shared/link)"
if [[ $FS == oxfs ]]; then
	check 'a subvolume' oxfs subvolume create shared/subvolume
	is 'gets both' \
		"user::rwx,user:1001:rwx,group::r-x,mask::rwx,other::---,$default" "$(acl shared/subvolume)"
	: >shared/subvolume/file
	is 'a file in it one' "$inherited" "$(acl shared/subvolume/file)"
	check 'a read-only snapshot of it' oxfs subvolume snapshot -r shared/subvolume snap
	is 'has the lists' "$inherited" "$(acl snap/file)"
	is 'and nobody changes them' 'Read-only file system' \
		"$(setfacl -m u:1002:r snap/file 2>&1 | grep -o 'Read-only file system')"
fi
umask 022
before=$(getfacl -Rcpn shared)
remount
is 'all the same after a remount' "$before" "$(getfacl -Rcpn shared)"

# A list that fills its item, and one that does not fit.
entries() { local i; for ((i = 0; i < $1; i++)); do printf 'u:%d:r,' $((2000 + i)); done; }
check '140 entries' setfacl -m "$(entries 140)" file
is 'all are there' 142 "$(getfacl -cpn file | grep -c ^user)"
if [[ $FS == oxfs ]]; then
	is 'too many for an item' 'No space left on device' \
		"$(setfacl -m "$(entries 400)" file 2>&1 | grep -o 'No space left on device')"
	is 'leave the list as it was' 142 "$(getfacl -cpn file | grep -c ^user)"
fi
end
