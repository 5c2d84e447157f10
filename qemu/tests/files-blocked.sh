#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Direct I/O with memory that is not there, because it is that of a file of another filesystem, whose
# device does not answer: only that I/O waits. Space that is freed meanwhile can be used again.
# vm: --disk 128M --disk 64M

. "${0%/*}/lib.sh"

must dmsetup create held --noudevsync --table "0 $((64 << 11)) linear /dev/vdb 0"
must dmsetup mknodes
must mkfs.oxfs --force --quiet /dev/mapper/held
must mkdir -p /mnt/other
must mount -t oxfs /dev/mapper/held /mnt/other
must dd if=/dev/urandom of=/mnt/other/memory bs=64K count=16 status=none
must sync
new_fs
do_op fill file 1 1
must cp --reflink=always file shared
must sync

# blocked OPERATION FILE: a megabyte of it, from or to memory that is not there.
cat >/tmp/blocked.py <<-'END'
	import mmap, os, sys, time
	call = {"read": os.preadv, "write": os.pwritev}[sys.argv[1]]
	file = os.open(sys.argv[2], os.O_RDWR | os.O_DIRECT)
	memory = mmap.mmap(os.open("/mnt/other/memory", os.O_RDWR), 1 << 20)
	open("/tmp/ready", "w").close()
	while not os.path.exists("/tmp/go"):
	    time.sleep(0.05)
	os.rename("/tmp/go", "/tmp/gone")
	assert call(file, [memory], 0) == 1 << 20
END
blocked() {
	rm -f /tmp/ready /tmp/gone
	(exec 7>&- 8<&-; exec python3 /tmp/blocked.py "$@") &
	pid=$!
	until [[ -e /tmp/ready ]]; do sleep 0.1; done
	must sync
	echo 1 >/proc/sys/vm/drop_caches
	must dmsetup suspend --noflush --nolockfs held
	touch /tmp/go
	in_kernel "$pid" /tmp/gone
}

# churn: more than the volume has, one after the other.
churn() {
	local i
	for i in 1 2 3 4 5 6; do
		dd if=/dev/zero of=much bs=1M count=48 status=none && sync -f . && rm much && sync -f . || return 1
	done
}

for what in 'read file' 'write file' 'write shared'; do
	# shellcheck disable=SC2086 # words
	blocked $what
	check "$what: freed space is used again meanwhile" churn
	[[ $what != read* ]] || check "$what: the file can be written meanwhile" timeout 60 \
		dd if=shared of=file conv=notrunc bs=4096 count=1 status=none
	check "$what: it still waits" kill -0 "$pid"
	must dmsetup resume held
	check "$what: it ends" ends "$pid"
done
check 'what was read and written is one thing' cmp file shared
check 'also on the disk' cmp <(dd if=file bs=1M iflag=direct status=none) /mnt/other/memory

must umount /mnt/other
must dmsetup remove held

# Memory that was never used, and memory that a child has, too.
cat >/tmp/fresh.py <<-'END'
	import mmap, os, signal
	file = os.open("fresh", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
	os.posix_fallocate(file, 0, 1 << 23)
	for at, size in ((0, 1 << 23), (512, 8192), (1 << 20, 3 * 4096), (4096, 4608), (1 << 23, 1 << 16)):
	    for shared in (False, True):
	        source, target = mmap.mmap(-1, 1 << 23, mmap.MAP_PRIVATE), mmap.mmap(-1, 1 << 23)
	        source[:4096] = b"v" * 4096
	        child = os.fork() if shared else 0
	        if shared and not child:
	            signal.pause()
	        assert os.pwritev(file, [memoryview(source)[:size]], at) == size
	        assert os.preadv(file, [memoryview(target)[:size]], at) == size
	        assert source[:size] == target[:size], (at, size, shared)
	        if child:
	            os.kill(child, signal.SIGKILL)
	            os.waitpid(child, 0)
	assert os.preadv(file, [mmap.mmap(-1, 1 << 20)], os.fstat(file).st_size - 512) == 512
END
check 'fresh and shared memory' python3 /tmp/fresh.py

# A shutdown that does not say what may be lost loses nothing.
sum=$(sha256sum <file)
must eval 'cat file >late'
must python3 -c 'if True:
	import fcntl, os, struct
	fcntl.ioctl(os.open(".", os.O_RDONLY), 0x8004587D, struct.pack("I", 0))'
remount
is 'shutdown without flags: what was written before is there' "$sum" "$(sha256sum <late)"
end
