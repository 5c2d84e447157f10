#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A page of a mapped file that a device writes to, while the filesystem is frozen: it is dirty at a time
# when it has no way to the disk. It stays in nobody's way, also not in that of the thaw, and gets there.
# vm: --disk 256M --disk 64M

. "${0%/*}/lib.sh"

# Nothing is read from this device while it is suspended.
must dd if=/dev/urandom of=/dev/vdb bs=1M count=1 oflag=direct status=none
must dmsetup create held --noudevsync --table "0 $((64 << 11)) linear /dev/vdb 0"
must dmsetup mknodes
new_fs
must dd if=/dev/zero of=file bs=1M count=1 status=none
must sync

# From that device into a page of the mapped file, past the page cache.
cat >/tmp/read.py <<-'END'
	import mmap, os, sys
	at = int(sys.argv[1]) * 4096
	file = os.open("file", os.O_RDWR)
	pages = mmap.mmap(file, 1 << 20, mmap.MAP_SHARED)
	held = os.open("/dev/mapper/held", os.O_RDONLY | os.O_DIRECT)
	pages[at] = 1
	open("/tmp/reading", "w").close()
	assert os.preadv(held, [memoryview(pages)[at:at + 4096]], at) == 4096
END
page=0
for flush in sync 'sync file' 'sync -f file'; do
	rm -f /tmp/reading
	page=$((page + 3))
	must dmsetup suspend --noflush --nolockfs held
	(exec 7>&- 8<&-; exec python3 /tmp/read.py "$page") &
	reader=$!
	in_kernel "$reader" /tmp/reading
	check "$flush: freeze while a device writes to a page" fsfreeze -f "$mnt"
	check "$flush: it has not ended" kill -0 "$reader"
	must dmsetup resume held
	check "$flush: it ends" ends "$reader"
	# The page may be dirty a little later.
	sleep 0.5
	# shellcheck disable=SC2086 # words
	(exec 7>&- 8<&-; exec $flush) &
	flusher=$!
	sleep 2
	fsfreeze -u "$mnt" &
	thaw=$!
	check "$flush: thaw" ends "$thaw"
	check "$flush: and that ends" ends "$flusher"
done
remount
for at in 3 6 9; do
	is "what was read into page $at is there" \
		"$(dd if=/dev/vdb bs=4096 skip=$at count=1 iflag=direct status=none | sha256sum)" \
		"$(dd if=file bs=4096 skip=$at count=1 status=none | sha256sum)"
done
must dmsetup remove held
end
