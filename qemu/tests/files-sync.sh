#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What was acknowledged as durable is there after everything stopped at once (FS_IOC_SHUTDOWN): also when
# nothing had been changed at the sync before, as with databases that sync their files when they start.
# vm: --disk 256M

. "${0%/*}/lib.sh"

# No commit but those that are asked for.
mount_fs() {
	must mount -t "$FS" -o commit=3600 "$dev" "$mnt"
	cd "$mnt" || give_up "cd $mnt"
}
# stop: all at once; then the volume is mounted again.
stop() {
	must xfs_io -x -c shutdown "$mnt"
	remount
}
# act FLAGS STEP...: opens the file `file` and does each step in turn.
act() {
	python3 - "$@" <<-'END'
		import mmap, os, sys
		flags, steps = sys.argv[1], sys.argv[2:]
		file = os.open("file", os.O_RDWR | sum(getattr(os, name) for name in flags.split("|")))
		buffer = mmap.mmap(-1, 4096)
		for step in steps:
		    if step == "fsync":
		        os.fsync(file)
		    elif step == "fdatasync":
		        os.fdatasync(file)
		    else:
		        # WHERE,SIZE,BYTE
		        at, size, byte = step.split(",")
		        buffer.seek(0)
		        buffer.write(byte.encode() * int(size))
		        assert os.pwritev(file, [memoryview(buffer)[:int(size)]], int(at)) == int(size)
	END
}
# content: each byte of the file, and how many of it follow each other.
content() { fold -w 1 file | uniq -c | tr -s ' \n' ' '; }
# fresh CONTENT: the file, on disk and not in memory.
fresh() {
	printf %s "$1" >file
	sync
	remount
}

new_fs
for sync in fsync fdatasync; do
	fresh aaaa
	check "$sync, a write, $sync" act O_SYNC "$sync"
	act O_RDWR "$sync" 4,3,b "$sync"
	stop
	is "$sync: what was written is there" ' 4 a 3 b ' "$(content)"

	fresh aaaa
	act O_RDWR "$sync" 4,3,b "$sync" 7,2,c "$sync" 0,1,d "$sync"
	stop
	is "$sync: also the second and the third" ' 1 d 3 a 3 b 2 c ' "$(content)"
done

# On a disk without a cache, and through one.
for cache in 'write through' 'write back'; do
	echo "$cache" >"/sys/block/${dev##*/}/queue/write_cache"
	for flags in O_DSYNC 'O_DIRECT|O_DSYNC' 'O_DIRECT|O_SYNC'; do
		fresh "$(printf '%512s' '' | tr ' ' a)"
		act "$flags" fsync 512,512,b
		stop
		is "$cache, $flags: what was appended is there" ' 512 a 512 b ' "$(content)"

		fresh "$(printf '%4096s' '' | tr ' ' a)"
		act "$flags" fsync 4096,512,b 512,512,c
		stop
		is "$cache, $flags: also in a new block" ' 512 a 512 c 3072 a 512 b ' "$(content)"
	done
done

# The part of the last block that a truncate cut off is zeros on the disk before the file grows.
fresh "$(printf '%4000s' '' | tr ' ' a)"
must truncate -s 100 file
act O_RDWR 8192,1,b fsync
stop
is 'what was cut off does not come back' ' 100 a ' "$(tr '\0' . <file | head -c 4096 | tr -d . | fold -w 1 | uniq -c | tr -s ' \n' ' ')"

# Who loads an inode does not know whether its data was overwritten before, and may be in the disk's
# cache only.
flushes() { awk '{ print $16 }' "/sys/block/${dev#/dev/}/stat"; }
drop_caches
drop_caches
before=$(flushes)
must sync file
at_least 'the disk flushes its cache for a file that was not in memory' $((before + 1)) "$(flushes)"
before=$(flushes)
must sync file
at_most 'and not once more for nothing' "$before" "$(flushes)"

# A read-only mount that is given another option stays read-only.
cd / || give_up 'cd /'
must mount -o remount,ro "$mnt"
check 'a reconfiguration that does not name it keeps ro' python3 - "$mnt" <<-'END'
	import ctypes, os, sys
	libc = ctypes.CDLL(None, use_errno=True)
	AT_FDCWD, SET_STRING, RECONFIGURE = -100, 1, 7
	context = libc.syscall(433, AT_FDCWD, sys.argv[1].encode(), 0)
	assert context >= 0, os.strerror(ctypes.get_errno())
	for command, key, value in ((SET_STRING, b"commit", b"10"), (RECONFIGURE, None, None)):
	    if libc.syscall(431, context, command, key, value, 0) < 0:
	        sys.exit(os.strerror(ctypes.get_errno()))
END
has 'with the option' commit=10 "$(grep " $mnt " /proc/mounts)"
op 'nothing is written' EROFS mkdir "$mnt/new"
check 'and it can be made writable' mount -o remount,rw "$mnt"
cd "$mnt" || give_up "cd $mnt"
check 'then something is' touch new

# In an emergency it becomes read-only while a deleted file is open, and so do others. That file outlives
# the way back.
seq 100000 >deleted
exec 9<deleted
rm deleted
must sync
echo u >/proc/sysrq-trigger
for ((i = 0; i < 300; i++)); do
	dmesg | grep -q 'Emergency Remount complete' && break
	sleep 0.1
done
is 'an emergency makes it read-only' 1 "$(grep -c " $mnt oxfs ro" /proc/mounts)"
mount -o remount,rw / || give_up 'the root stays read-only'
must mount -o remount,rw "$mnt"
drop_caches
is 'a deleted file is there as long as it is open' "$(seq 100000 | sha256sum)" "$(sha256sum <&9)"
before=$(stat -fc %f "$mnt")
exec 9<&-
must sync
at_least 'and then it is freed' $((before + 100)) "$(stat -fc %f "$mnt")"
end
