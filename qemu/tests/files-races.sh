#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Several processes at the same folders and files: renames against renames and lookups, reading of
# folders against their change, writes against truncation and cloning. And fio's verification.
# vm: --disk 512M

. "${0%/*}/lib.sh"
new_fs
cat >/tmp/together.py <<-'END'
	import os, random
	def together(works):
	    """Does each in a process of its own; how many of them failed."""
	    children = []
	    for i, work in enumerate(works):
	        child = os.fork()
	        if child == 0:
	            try:
	                work(random.Random(i))
	            except BaseException as error:
	                print(work.__name__, repr(error), flush=True)
	                os._exit(1)
	            os._exit(0)
	        children.append(child)
	    return sum(os.waitpid(child, 0)[1] != 0 for child in children)
END
cat >/tmp/races.py <<-'END'
	import ctypes, errno, os, sys, time
	from together import together
	libc = ctypes.CDLL(None, use_errno=True)
	FOLDERS, FILES, SECONDS = 4, 40, 8
	for d in range(FOLDERS):
	    os.mkdir(f"d{d}")
	    os.mkdir(f"d{d}/sub")
	# Each file's content is its number, and it is moved, never deleted.
	for i in range(FILES):
	    with open(f"d{i % FOLDERS}/f{i}", "w") as out:
	        out.write(str(i))
	expected = (errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.EINVAL, errno.EISDIR, errno.ENOTDIR, errno.EPERM)
	end = time.monotonic() + SECONDS

	def quiet(call, *args):
	    try:
	        return call(*args)
	    except OSError as error:
	        if error.errno not in expected:
	            raise
	        return None

	def movers(choice):
	    while time.monotonic() < end:
	        i = choice.randrange(FILES)
	        a, b = (f"d{choice.randrange(FOLDERS)}" + choice.choice(["", "/sub"]) for _ in "ab")
	        quiet(os.rename, f"{a}/f{i}", f"{b}/f{i}")

	def exchangers(choice):
	    # Between two folders, of two names: nothing may be lost.
	    while time.monotonic() < end:
	        a, b = choice.sample(range(FOLDERS), 2)
	        libc.renameat2(-100, f"d{a}/sub".encode(), -100, f"d{b}/sub".encode(), 2)

	def makers(choice):
	    while time.monotonic() < end:
	        d, name = choice.randrange(FOLDERS), f"tmp{choice.randrange(8)}"
	        path = f"d{d}/{name}"
	        what = choice.randrange(6)
	        if what == 0:
	            quiet(os.mkdir, path)
	        elif what == 1:
	            quiet(os.rmdir, path)
	        elif what == 2:
	            fd = quiet(os.open, path, os.O_CREAT | os.O_WRONLY)
	            if fd is not None:
	                os.write(fd, b"x" * 5000)
	                os.close(fd)
	        elif what == 3:
	            quiet(os.unlink, path)
	        elif what == 4:
	            quiet(os.link, path, f"d{choice.randrange(FOLDERS)}/{name}") if os.path.isfile(path) else 0
	        else:
	            quiet(os.rename, path, f"d{choice.randrange(FOLDERS)}/tmp{choice.randrange(8)}")

	def readers(choice):
	    while time.monotonic() < end:
	        d = f"d{choice.randrange(FOLDERS)}"
	        names = os.listdir(d)
	        assert len(names) == len(set(names)), names
	        for name in names:
	            if name.startswith("f"):
	                fd = quiet(os.open, f"{d}/{name}", os.O_RDONLY)
	                if fd is not None:
	                    assert os.read(fd, 100) == name[1:].encode(), name
	                    os.close(fd)

	failed = together([movers, movers, exchangers, makers, makers, readers])
	found = {}
	for folder, _, names in os.walk("."):
	    for name in names:
	        if name.startswith("f"):
	            assert name not in found, (name, folder, found[name])
	            found[name] = folder
	            with open(f"{folder}/{name}") as content:
	                assert content.read() == name[1:]
	assert len(found) == FILES, sorted(found)
	sys.exit(failed)
END
mkdir races
cd races || give_up 'cd races'
check 'renames, exchanges, links, folders: nothing is lost or doubled' timeout 100 python3 /tmp/races.py
cd .. || give_up 'cd ..'
check 'stress-ng: folders, links, renames' stress-ng --dir 1 --dir-ops 300 --rename 1 --rename-ops 2000 \
	--link 1 --link-ops 20 --dentry 1 --dentry-ops 3000 --temp-path . --timeout 30

cat >/tmp/clones.py <<-'END'
	# One writes whole pages of one letter, one clones, one truncates: no clone has a page of two.
	import fcntl, os, sys, time
	from together import together
	SIZE, PAGE, end = 1 << 20, 4096, time.monotonic() + 8
	os.close(os.open("source", os.O_CREAT))
	os.truncate("source", SIZE)
	def writer(choice):
	    fd = os.open("source", os.O_RDWR)
	    while time.monotonic() < end:
	        page, count = choice.randrange(SIZE // PAGE - 8), choice.randrange(1, 8)
	        os.pwrite(fd, bytes([choice.randrange(97, 123)]) * (PAGE * count), page * PAGE)
	def cutter(choice):
	    while time.monotonic() < end:
	        os.truncate("source", choice.randrange(SIZE // PAGE) * PAGE)
	        os.truncate("source", SIZE)
	        time.sleep(0.02)
	def cloner(choice):
	    source = os.open("source", os.O_RDONLY)
	    for i in range(100000):
	        if time.monotonic() >= end:
	            break
	        clone = os.open(f"clone{i % 4}", os.O_CREAT | os.O_RDWR | os.O_TRUNC)
	        fcntl.ioctl(clone, 0x40049409, source)
	        content = os.pread(clone, SIZE, 0)
	        for at in range(0, len(content), PAGE):
	            page = content[at:at + PAGE]
	            assert page == page[:1] * PAGE, (at, page[:10], page[-10:])
	        if i % 3 == 0:
	            os.fsync(clone)
	            os.posix_fadvise(clone, 0, 0, os.POSIX_FADV_DONTNEED)
	            assert os.pread(clone, SIZE, 0) == content
	        os.close(clone)
	sys.exit(together([writer, writer, cutter, cloner]))
END
check 'writes, truncation and clones at the same time' timeout 100 python3 /tmp/clones.py

cat >/tmp/append.py <<-'END'
	# Who reads around the page cache what is being appended to, up to an end within a sector, reads what
	# was written.
	import mmap, os, sys, time
	from together import together
	SIZE, end = 1 << 18, time.monotonic() + 6
	os.close(os.open("log", os.O_CREAT))
	def appender(choice):
	    log = os.open("log", os.O_WRONLY | os.O_APPEND)
	    while time.monotonic() < end:
	        os.write(log, b"x" * choice.randrange(1, 3000))
	        if os.fstat(log).st_size > SIZE:
	            os.truncate("log", 0)
	def reader(choice):
	    log, memory = os.open("log", os.O_RDONLY | os.O_DIRECT), mmap.mmap(-1, 1 << 16)
	    while time.monotonic() < end:
	        sectors = os.fstat(log).st_size >> 9
	        count = os.preadv(log, [memory], max(sectors - choice.randrange(100), 0) << 9)
	        assert memory[:count] == b"x" * count
	sys.exit(together([appender, reader, reader]))
END
check 'direct reads of what is appended to' timeout 100 python3 /tmp/append.py

verify() {
	fio --name="$1" --directory=. --size=8M --verify=crc32c --verify_fatal=1 \
		--do_verify=1 --numjobs=2 --group_reporting --minimal "${@:2}"
}
check 'fio verifies random writes' verify buffered --rw=randwrite --bs=4k --ioengine=psync
check 'fio verifies direct I/O, several at a time' verify direct --rw=randrw --bs=4k-64k --direct=1 \
	--ioengine=libaio --iodepth=16
check 'fio verifies mappings' verify mapped --rw=randwrite --bs=4k --ioengine=mmap --fsync=64
must rm -r races
end
