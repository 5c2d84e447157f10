#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The program `oxfs` on a mounted volume, as administrators and their scripts use it: subvolumes,
# properties, swapfiles, space, label; what it prints is what others see, and what it refuses it explains.
# vm: --disk 1G

. "${0%/*}/lib.sh"
new_fs

# json QUERY COMMAND...: what jq finds in the answer to a command.
json() {
	local query=$1
	shift
	oxfs --json "$@" | jq -c "$query"
}

# refused NAME TEXT COMMAND...: it fails, and TEXT is part of what it says.
refused() {
	local name=$1 text=$2 said
	shift 2
	if said=$(oxfs "$@" 2>&1); then
		fail "$name" "it succeeded: $said"
	else
		has "$name" "$text" "$said"
	fi
}

check 'create subvolumes' oxfs subvolume create root home
check 'with parents' oxfs subvolume create -p deep/er/sub
refused 'one is there already' 'something is there already' subvolume create root
is 'list' '[[0,""],[1,"root"],[2,"home"],[3,"deep/er/sub"]]' \
	"$(json '[.[] | [.id, .path]]' subvolume list .)"
has 'list for people' '/deep/er/sub' "$(oxfs subvolume list .)"
is 'its inode number has the id' 3 $(($(stat -c %i deep/er/sub) >> 40))

do_op fill root/data 4 1
mkdir root/folder
before=$(sha256sum <root/data)
check 'snapshot' oxfs subvolume snapshot root snap
check 'read-only snapshot into a directory' oxfs subvolume snapshot -r root deep
is 'it has the name of its source' "$before" "$(sha256sum <deep/root/data)"
refused 'a folder is no subvolume' 'is not a subvolume' subvolume snapshot root/folder other
is 'the source is told' '[1,1]' "$(json '[.[] | select(.source != null) | .source]' subvolume list -s .)"
is 'list of read-only ones' '["deep/root"]' "$(json '[.[].path]' subvolume list -r .)"
is 'show' '["snap",1,false]' "$(json '[.path, .source, .read_only]' subvolume show snap)"
is 'show: the snapshots of it' '["deep/root","snap"]' \
	"$(json '[.snapshots[].path] | sort' subvolume show root)"
is 'show: the uuid of its source' "$(json .uuid subvolume show root)" \
	"$(json .source_uuid subvolume show snap)"
is 'nothing in it can be changed' 'Read-only file system' \
	"$(touch deep/root/new 2>&1 | sed 's/.*: //')"
has 'show for people' 'read-only' "$(oxfs subvolume show deep/root)"
refused 'show of a folder' 'is not a subvolume' subvolume show root/folder

is 'property get' ro=true "$(oxfs property get deep/root ro)"
check 'property set' oxfs property set deep/root ro false
check 'now it can be written to' touch deep/root/new
check 'and back' oxfs property set deep/root ro true
op 'now it cannot' EROFS append deep/root/new

is 'get-default' 0 "$(json .id subvolume get-default .)"
check 'set-default by path' oxfs subvolume set-default snap
is 'get-default' '"snap"' "$(json .path subvolume get-default .)"
refused 'the default cannot be deleted' 'is the default subvolume' subvolume delete snap
check 'set-default by id' oxfs subvolume set-default 0 .
refused 'set-default to what is not there' 'there is no subvolume 77' subvolume set-default 77 .
check 'nested' oxfs subvolume create home/nested
refused 'what holds others cannot be deleted' 'home/nested' subvolume delete home
refused 'delete of a folder' 'is not a subvolume' subvolume delete root/folder
check 'delete of several' oxfs subvolume delete home/nested home snap
check 'sync waits for their space' oxfs subvolume sync .
is 'they are gone' '[0,1,3,5]' "$(json '[.[].id]' subvolume list .)"
is 'none is left on the way' '[]' "$(json . subvolume list -d .)"

check 'swapfile create' oxfs swapfile create --size 32M --label mine root/swap
is 'its size, mode and space' '33554432 600 65536' "$(stat -c '%s %a %b' root/swap)"
has 'blkid knows it' 'LABEL="mine"' "$(blkid -p root/swap)"
refused 'not over another file' 'something is there already' swapfile create -s 1M root/swap
refused 'not without space' 'no space left' swapfile create -s 4G root/toolarge
check 'nothing of it is left' test ! -e root/toolarge
refused 'offset before swapon' 'swapon root/swap' swapfile offset root/swap
is 'status without one' 'No swapfile is active' "$(oxfs swapfile status)"
cp --reflink=always root/swap root/shared
turn_on root/shared
is 'status' '[["root/shared",8191,8192]]' \
	"$(json '[.[] | [.path, .pages, .new_blocks + .kept_blocks]]' swapfile status .)"
is 'status tells what was made private' true "$(json '.[0].new_blocks > 8000' swapfile status)"
is 'offset is where FIEMAP says' "$(fileop fiemap root/shared | awk 'NR == 1 { print $2 }')" \
	"$(oxfs swapfile offset root/shared)"
is 'status has the same' "$(oxfs swapfile offset root/shared)" "$(json '.[0].resume_offset' swapfile status)"
is 'pages are right' 0 "$(swapmem -o 8)"
check 'a snapshot meanwhile' oxfs subvolume snapshot root with-swap
refused 'what has an active swapfile cannot be deleted' 'swapoff these first: root/shared' \
	subvolume delete root
line=$(oxfs --json swapfile create -s 1M root/'my swap' | jq -r .fstab)
is 'a line for fstab' "$mnt/root/my\\040swap none swap defaults 0 0" "$line"
must swapoff root/shared
echo "$line" >/tmp/fstab
check 'fstab takes it' swapon -a --fstab /tmp/fstab
is 'it is active' 1 "$(awk '/my\\040swap/' /proc/swaps | wc -l)"
must swapoff root/'my swap'

is 'usage is of this volume' $((1 << 30)) "$(json .size filesystem usage .)"
at_least 'it has free space' 1 "$(json .free filesystem usage .)"
is 'it counts subvolumes' 5 "$(json .subvolumes filesystem usage .)"
check 'label' oxfs filesystem label . 'new name'
is 'it is set' 'new name' "$(oxfs filesystem label .)"
has 'blkid or the device say so as well' 'new name' "$(sync; oxfs filesystem label "$dev")"
has 'trim' trimmed "$(oxfs filesystem trim .)"
is 'resize, by as much' $(((1 << 30) - (64 << 20))) "$(json .size filesystem resize -64M .)"
is 'usage knows it' $(((1 << 30) - (64 << 20))) "$(json .size filesystem usage .)"
is 'resize to the device' "[$(((1 << 30) - (64 << 20))),$((1 << 30))]" \
	"$(json '[.before, .size]' filesystem resize max .)"
refused 'resize beyond the device' 'the device is smaller' filesystem resize +4K .
is 'inspect of the mounted device' true \
	"$(sync; json '[.[] | select(.newest)] | length == 1' inspect super "$dev")"
refused 'another filesystem' 'findmnt -t oxfs' subvolume list /

# Who may what.
chmod 777 .
as_user() { setpriv --reuid 1000 --regid 1000 --clear-groups "$@"; }
check 'a user creates a subvolume' as_user oxfs subvolume create mine
check 'and shows it' as_user oxfs subvolume show mine
check 'but no snapshot of it' eval '! as_user oxfs subvolume snapshot mine copy'
check 'a user may not delete it' eval '! as_user oxfs subvolume delete mine'
has 'and is told so' 'not permitted' "$(as_user oxfs subvolume delete mine 2>&1)"
has 'nor list others' 'not permitted' "$(as_user oxfs subvolume list . 2>&1)"

# Whatever users do, root can list.
must as_user oxfs subvolume create $'evil\n8  forged\e[1m'
is 'a name is one line' 1 "$(oxfs subvolume list . | grep -c 'evil.012.*forged.033')"
is 'scripts get it as it is' '"evil\n8  forged\u001b[1m"' \
	"$(json '.[].path | select(startswith("evil"))' subvolume list .)"
must as_user python3 - <<-'END'
	import os, subprocess
	for i in range(17):
	    os.mkdir("x" * 240)
	    os.chdir("x" * 240)
	subprocess.run(["oxfs", "subvolume", "create", "far"], check=True)
END
has 'one whose path is too long' 'path not known' "$(oxfs subvolume list .)"
is 'scripts are told so' 1 "$(json '[.[] | select(.path == null)] | length' subvolume list .)"
is 'a deleted one stays so' '0 0' "$(as_user python3 - <<-'END'
	import os, subprocess
	subprocess.run(["oxfs", "subvolume", "create", "gone"], check=True, stdout=subprocess.DEVNULL)
	gone = os.open("gone", os.O_RDONLY)
	os.rmdir("gone")
	before = os.fstat(gone).st_nlink
	os.fsync(gone)
	print(before, os.fstat(gone).st_nlink)
END
)"
end
