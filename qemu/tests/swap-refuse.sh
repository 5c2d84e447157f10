#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What cannot be a swapfile is refused, with the reason in the log, and stays as it was: above all
# when there is no space to make it private.
# vm: --disk 256M --disk 192M

. "${0%/*}/lib.sh"
new_fs

# refused NAME FILE REASON [ERRNO]
refused() {
	dmesg --clear
	op "$1: refused" "${4:-EINVAL}" swapon "$2"
	has "$1: the log says why" "$3" "$(dmesg)"
	is "$1: it is not active" 0 "$(swapping "$mnt/$2")"
}

truncate -s 16M sparse
chmod 600 sparse
must mkswap -q sparse
refused 'a file of holes' sparse 'hole at offset 4096'

swapfile punched 16 1
fallocate --punch-hole --offset $((5 << 20)) --length 4096 punched
refused 'a hole of one block' punched "hole at offset $((5 << 20))"
op 'which is a file like any other afterwards' OK write punched $((5 << 20))
check 'and without its hole it is swapped to' swapon punched
must swapoff punched

swapfile end 16 1
truncate -s $(((16 << 20) - 4096)) end
truncate -s 16M end
refused 'a hole in the last block' end "hole at offset $(((16 << 20) - 4096))"

# The header says how much is swapped to; what is behind is none of its business.
do_op fill behind 16 7
chmod 600 behind
fallocate --punch-hole --offset 12M --length 1M behind
must mkswap -q behind 8192
tail=$(drop_caches; tail -c +$(((8 << 20) + 1)) behind | sha256sum)
# Not by swapon(8), which looks for holes by itself.
op 'a hole behind what is swapped to does no harm' OK swapon behind
is 'pages are right' 0 "$(swapmem -o 7)"
must swapoff behind
is 'what is behind is unchanged' "$tail" "$(drop_caches; tail -c +$(((8 << 20) + 1)) behind | sha256sum)"

do_op fill random 16 3
refused 'a file without a header' random 'Unable to find swap-space signature'
: >empty
refused 'an empty file' empty ''
head -c 4096 punched >tiny
refused 'one page' tiny 'shorter than signature indicates'
# last_page (at 1028) is 0: a header and nothing behind it.
head -c 8192 punched >header-only
printf '\0\0\0\0' | dd of=header-only bs=1 seek=1028 conv=notrunc status=none
refused 'a header and no page' header-only 'Empty swap-file'
mkdir folder
op 'a folder' EISDIR swapon folder
mkfifo fifo
mknod zero c 1 5
op 'a character device' EINVAL swapon zero
ln -s loop loop
op 'a symbolic link to itself' ELOOP swapon loop
op 'a file that is not there' ENOENT swapon nothing
check 'all of them can be deleted' rm -r ./*

# No space: another filesystem, that can be filled.
cd / || give_up 'cd /'
must umount "$mnt"
dev=/dev/vdb
new_fs
swapfile shared 48 5
cp --reflink=always shared owner
must sync
space=$(df --output=avail -B 1M . | tail -n 1)
must fallocate -l $((space - 24))M filler
must sync
before=$(sums shared owner)
free=$(df --output=avail . | tail -n 1)
op 'no space to make it private: ENOSPC' ENOSPC swapon shared
is 'it is not active' 0 "$(swapping "$mnt/shared")"
is 'both files are what they were' "$before" "$(sums shared owner)"
is 'they are still shared' "$((48 * 256))" "$(blocks_with shared shared)"
is 'no space is lost' "$free" "$(df --output=avail . | tail -n 1)"
op 'the other one: ENOSPC too' ENOSPC swapon owner
op 'both can be written' OK write owner 8192
cp owner /tmp/owner
must rm filler
must sync
check 'with space, swapon works' swapon shared
is 'pages are right' 0 "$(swapmem -o 40)"
check 'swapoff' swapoff shared
drop_caches
check 'the other file has not changed' cmp owner /tmp/owner
rm /tmp/owner

# An inactive swapfile's blocks hold nothing: they are taken before anybody is refused.
must rm owner shared
swapfile idle 64 6
must swapon idle
must swapoff idle
swapfile wanted 40 7
cp --reflink=always wanted owner
content=$(sums owner)
space=$(df --output=avail -B 1M . | tail -n 1)
must fallocate -l $((space - 16))M filler
must sync
dmesg --clear
check 'the blocks of an inactive swapfile are taken over' swapon wanted
has 'the log says so' 'is not active and gives its blocks to' "$(dmesg)"
is 'pages are right' 0 "$(swapmem -o 30)"
is 'the other file has not changed' "$content" "$(sums owner)"
op 'the inactive one has no space now' ENOSPC swapon idle
check 'swapoff' swapoff wanted
check 'and then it takes them back' swapon idle
is 'pages are right' 0 "$(swapmem -o 48)"
check 'swapoff' swapoff idle
end
