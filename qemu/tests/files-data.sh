#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# File data: sizes, holes, preallocation, what FIEMAP and seeks say, sharing and what breaks it,
# copies, full filesystems, and what is durable.
# vm: --disk 384M

. "${0%/*}/lib.sh"
new_fs

do_op fill base 8 1
cp base /tmp/base
must sync
is 'written' '0 0' "$(blocks_with base shared) $(blocks_with base unwritten)"
op 'clone' OK clone base clone
is 'shared by both' '2048 2048' "$(blocks_with base shared) $(blocks_with clone shared)"
check 'the clone has the content' cmp base clone
op 'write of a page of it' OK write clone 1M
check 'the other one has not changed' cmp base /tmp/base
must sync
is 'one block is not shared any more' 2047 "$(blocks_with clone shared)"
op 'direct write of a page' OK write-direct clone 2M
check 'the other one has not changed' cmp base /tmp/base
is 'two blocks are not shared any more' 2046 "$(blocks_with clone shared)"
op 'direct read' OK read-direct clone 2M
is 'what was written' 'ww' "$(dd if=clone bs=1 skip=1M count=1 status=none; dd if=clone bs=1 skip=2M count=1 status=none)"
op 'cached read that does not wait' OK read-nowait base 1M
# A direct write that begins inside of a block, and whose memory ends inside of another one.
truncate -s 64K part
do_op write part 0
must sync
cat >/tmp/part.py <<'END'
import ctypes, mmap, os
libc = ctypes.CDLL(None)
libc.pwrite.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
valid = 3584 + 4096 + 2048
memory = mmap.mmap(-1, 8 * 4096)
memory.write(b"v" * 4 * 4096)
end = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + 4 * 4096
libc.mprotect(end, 4096, 0)
fd = os.open("part", os.O_RDWR | os.O_DIRECT)
count = libc.pwrite(fd, end - valid, 3584 + 3 * 4096, 512)
with open("part", "rb") as file:
	file.seek(512)
	print(count >= 3584 and file.read(count) == b"v" * count)
END
is 'a direct write that ends early has written what it says' True "$(python3 /tmp/part.py)"
op 'dedupe of the same content' 'OK OK' dedupe base clone 64K
op 'dedupe of different content' 'OK DIFFERS' dedupe base clone 2M
op 'clone of a range' OK clonerange base clone 1M 4K 1M
must sync
is 'shared again' 2047 "$(blocks_with clone shared)"
op 'clone of a range that is not in blocks' EINVAL clonerange base clone 100 4K 0
op 'unshare' OK fallocate clone unshare 0 8M
must sync
is 'nothing is shared' 0 "$(blocks_with clone shared)"
op 'copy_file_range' OK copy base copied 1M
check 'it is a copy' cmp -n 1048576 base copied

truncate -s 1M short
truncate -s $((3 << 20)) short
is 'a hole reads as zeros' 0 "$(tr -d '\0' <short | wc -c)"
op 'no data in it' ENXIO seek short data 0
op 'write in it' OK write short 1M
must sync
op 'data is where it was written' $((1 << 20)) seek short data 0
op 'and a hole behind it' $(((1 << 20) + 4096)) seek short hole 1M
is 'blocks' 8 "$(stat -c %b short)"
op 'allocate' OK fallocate short allocate 0 4M
is 'size and blocks' "$((4 << 20)) $((8 << 10))" "$(stat -c '%s %b' short)"
is 'not written' 1023 "$(blocks_with short unwritten)"
is 'reads as zeros' 4096 "$(tr -d '\0' <short | wc -c)"
op 'allocate behind the end' OK fallocate short keep 4M 1M
is 'the size stays' $((4 << 20)) "$(stat -c %s short)"
op 'punch' OK fallocate short punch 1M 4K
is 'punched' 0 "$(tr -d '\0' <short | wc -c)"

cp base moved
op 'collapse' OK fallocate moved collapse 1M 1M
check 'what was behind has moved up' cmp <(tail -c +$(((2 << 20) + 1)) base) <(tail -c +$(((1 << 20) + 1)) moved)
op 'insert' OK fallocate moved insert 1M 1M
check 'and down' cmp <(tail -c +$(((2 << 20) + 1)) base) <(tail -c +$(((2 << 20) + 1)) moved)
is 'with zeros between' 0 "$(head -c 2M moved | tail -c 1M | tr -d '\0' | wc -c)"
op 'zero' OK fallocate moved zero 4K 8K
is 'zeroed' 0 "$(head -c 12K moved | tail -c 8K | tr -d '\0' | wc -c)"
op 'collapse that is not in blocks' EINVAL fallocate moved collapse 100 4K
op 'collapse to the end' EINVAL fallocate moved collapse 0 8M
op 'insert behind the end' EINVAL fallocate moved insert 16M 4K

op 'truncate to the middle of a block' OK truncate base 1000001
op 'and back' OK truncate base 8M
is 'shows zeros' 0 "$(tail -c +1000002 base | tr -d '\0' | wc -c)"
: >far
op 'write far out' OK write far 8796093018112
is 'costs what is written' 8 "$(sync; stat -c %b far)"

# Shared and private mappings.
check 'mapped reads and writes' xfs_io -f -c 'truncate 1m' -c 'mmap -rw 0 1m' -c 'mwrite -S 0x61 4096 8192' \
	-c 'msync -s' -c 'pread -q 0 1m' map
is 'a shared mapping writes the file' 8192 "$(tr -dc a <map | wc -c)"
check 'private' xfs_io -c 'open -r map' map
python3 - <<-'END'
	import mmap, os
	fd = os.open("map", os.O_RDWR)
	m = mmap.mmap(fd, 1 << 20, mmap.MAP_PRIVATE)
	m[0:4096] = b"p" * 4096
END
is 'a private mapping does not' 0 "$(tr -dc p <map | wc -c)"

# Durable: what fsync has said is there, though nothing was committed after it.
cat >/tmp/durable.py <<-'END'
	import os
	fd = os.open("durable", os.O_CREAT | os.O_RDWR)
	os.write(fd, b"d" * 100000)
	os.fsync(fd)
	os.rename("durable", "renamed")
	folder = os.open(".", os.O_RDONLY)
	os.fsync(folder)
END
check 'fsync' python3 /tmp/durable.py
# A file that is open but has no name: its content stays, and after a crash its space comes back.
must sync
free=$(df --output=avail . | tail -n 1)
must dd if=/dev/zero of=unlinked bs=1M count=64 status=none
exec 9<unlinked
must rm unlinked
must sync
is 'an unlinked file keeps its content' $((64 << 20)) "$(wc -c <&9)"
at_most 'and its space' $((free - 65536)) "$(df --output=avail . | tail -n 1)"
# An image of the disk as it is now is what a power cut leaves.
must dd if="$dev" of=/tmp/image bs=1M status=none iflag=direct conv=sparse
truncate -s "$(blockdev --getsize64 "$dev")" /tmp/image
must modprobe loop
mkdir /tmp/crashed
must mount -o loop -t "$FS" /tmp/image /tmp/crashed
is 'fsync is durable' "$(sha256sum <renamed)" "$(sha256sum </tmp/crashed/renamed)"
must sync -f /tmp/crashed
at_least 'the space of the unlinked file is back after a crash' $((free - 1024)) \
	"$(df --output=avail /tmp/crashed | tail -n 1)"
must umount /tmp/crashed
check 'what was crashed is clean' fsck.oxfs -n /tmp/image
rm /tmp/image
exec 9<&-

# Full.
fill() { dd if=/dev/zero of="$1" bs=1M status=none 2>&1; }
must fallocate -l 32M allocated
must fallocate -l 64M mapped
must dd if=/dev/urandom of=/tmp/random bs=1M count=32 status=none
has 'a full filesystem says so' 'No space left' "$(fill full)"
must sync
onto() { dd if=/tmp/random of="$1" bs=64K conv=notrunc,fsync status=none; }
check 'what was allocated can be written' onto allocated
check 'files can be overwritten' onto full
cat >/tmp/mapped.py <<'END'
import mmap, os, sys
# Every second page of what was allocated: extents are as short as they can be.
with open("mapped", "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
	pages = range(0, len(memory), 8192)
	if sys.argv[1] == "write":
		for at in pages:
			memory[at : at + 8] = at.to_bytes(8, "little")
		memory.flush()
	wrong = [at for at in pages if memory[at : at + 16] != at.to_bytes(8, "little") + bytes(8)]
	wrong += [at + 4096 for at in pages if any(memory[at + 4096 : at + 4112])]
	sys.exit(f"wrong pages: {wrong[:8]}" if wrong else 0)
END
check 'also through memory' python3 /tmp/mapped.py write
echo 3 >/proc/sys/vm/drop_caches
check 'which is there' python3 /tmp/mapped.py read
check 'all of it' cmp -n 32M allocated /tmp/random
check 'and in the other file' cmp -n 32M full /tmp/random
rm /tmp/random
op 'allocate' ENOSPC fallocate more allocate 0 64M
check 'it can be read' cmp map map
check 'files can be deleted' rm -f full more allocated mapped
must sync
at_least 'the space is back' 100000 "$(df --output=avail . | tail -n 1)"
check 'and can be used' dd if=/dev/zero of=again bs=1M count=64 status=none
has 'full again' 'No space left' "$(fill full)"
rm full
check 'files of all kinds can be deleted' find . -mindepth 1 -delete
end
