#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Synchronous block devices: the kernel reads large folios back as if the swapfile were contiguous
# there. A swapfile of single scattered blocks then gives wrong memory on ext4, which is shown, and
# must not on oxfs. (Pages are swapped out one by one, and read in as large folios.)
# vm: --memory 768M

. "${0%/*}/lib.sh"
pages=/sys/kernel/mm/transparent_hugepage
large() {
	local size
	for size in "$pages"/hugepages-*kB; do
		# The smallest is for files only.
		[[ ! -e $size/enabled ]] || echo "$1" >"$size/enabled"
	done
}

# wrong_pages: of 24 MiB on a filesystem with single free blocks.
wrong_pages() {
	make_fs
	mount_fs
	do_op scatter filler 9000
	must fallocate -l 32M swap
	chmod 600 swap
	must mkswap -q swap
	pieces=$(extents swap)
	turn_on swap
	large never
	# From the second page on, so that page and swap slot are aligned alike: the first slot is the
	# header's.
	swap_and_hold 24 -s 4096
	large always
	let_go >/tmp/result
	large never
	wrong=$(tail -n 1 /tmp/result)
	must swapoff swap
	cd / || give_up 'cd /'
	must umount "$mnt"
}

must modprobe brd rd_nr=2 rd_size=$((128 << 10))
FS=ext4 dev=/dev/ram1
wrong_pages
at_least 'ext4: the swapfile is in thousands of pieces' 2000 "$pieces"
at_least 'ext4: there are wrong pages, so this test sees them' 1 "$wrong"
must blkdiscard "$dev"

FS=oxfs dev=/dev/ram0
wrong_pages
at_least 'the swapfile is in thousands of pieces' 2000 "$pieces"
is 'no page is wrong' 0 "$wrong"

# Swapped whole where the space allows it, on the same device.
new_fs
swapfile swap 64
turn_on swap
echo always >$pages/enabled
large always
is 'huge pages, contiguous swapfile: no page is wrong' 0 "$(swapmem -H -o -r 2 32)"
large never
swap_and_hold 24 -s 4096
large always
is 'small pages out, large ones in: no page is wrong' 0 "$(let_go)"
must swapoff swap
end
