#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# swapon against what could pull the file away under it: clones, snapshots, deletion of the subvolume,
# unlink, truncation, read-only, unmount. Everybody runs in a loop, with a seed; whoever loses gets
# an error, and swapped pages are right.
# vm: --disk 1G
# debug: short

. "${0%/*}/lib.sh"
new_fs
must test "$(fileop subvol-create home)" = 1
swapfile base 4 1
mkdir /mnt/a
cat >/tmp/races.py <<-'END'
	import ctypes, errno, fcntl, os, random, subprocess, sys, time
	here, seconds, names = sys.argv[1], float(sys.argv[2]), sys.argv[3:]
	sys.path.insert(0, here)
	import oxfsctl
	libc = ctypes.CDLL(None, use_errno=True)
	end = time.monotonic() + seconds
	FILE = "home/swap"
	# What a race may end in.
	EXPECTED = {errno.ENOENT, errno.EBUSY, errno.ETXTBSY, errno.EEXIST, errno.EINVAL, errno.EPERM,
	            errno.EROFS, errno.ENOTEMPTY}
	counts = {}
	def attempt(name, call, *arguments):
	    try:
	        result = call(*arguments)
	        counts[name] = counts.get(name, 0) + 1
	        return result
	    except OSError as error:
	        if error.errno not in EXPECTED:
	            raise
	        return None
	def system(call, *arguments):
	    if call(*arguments) < 0:
	        raise OSError(ctypes.get_errno(), call.__name__)
	def make(path):
	    """A swapfile that shares all of its blocks."""
	    base, new = os.open("/mnt/test/base", os.O_RDONLY), None
	    try:
	        new = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
	        fcntl.ioctl(new, 0x40049409, base)
	    finally:
	        os.close(base)
	        if new is not None:
	            os.close(new)
	def swap(choice):
	    if attempt("swapon", system, libc.swapon, FILE.encode(), 0) is None and \
	            not any(FILE in line for line in open("/proc/swaps")):
	        return
	    if choice.randrange(4) == 0:
	        memory = bytearray(choice.randbytes(1 << 16) * 16)
	        del memory
	    time.sleep(choice.random() / 50)
	    while attempt("swapoff", system, libc.swapoff, FILE.encode()) is None and \
	            any("/swap" in line for line in open("/proc/swaps")):
	        time.sleep(0.001)
	def clone(choice):
	    source = attempt("open", os.open, FILE, os.O_RDONLY)
	    if source is None:
	        return
	    target = os.open(f"clone{choice.randrange(3)}", os.O_RDWR | os.O_CREAT)
	    attempt("clone", fcntl.ioctl, target, 0x40049409, source)
	    os.close(source)
	    os.close(target)
	    attempt("clone into", make, FILE)
	def snapshot(choice):
	    name = f"snap{choice.randrange(4)}"
	    attempt("snapshot", oxfsctl.create, name, "home", choice.randrange(2))
	    attempt("delete", oxfsctl.delete, f"snap{choice.randrange(4)}")
	def unlink(choice):
	    attempt("unlink", os.unlink, FILE)
	    attempt("make", make, FILE)
	def cut(choice):
	    attempt("cut", os.truncate, FILE, choice.randrange(1, 5) << 20)
	    attempt("make", make, FILE)
	def write(choice):
	    file = attempt("open", os.open, FILE, os.O_RDWR)
	    if file is not None:
	        attempt("write", os.pwrite, file, b"x" * 4096, choice.randrange(1, 1024) * 4096)
	        os.close(file)
	def write_much(choice):
	    # It keeps the filesystem from freezing for a while. What was deleted may still have the space.
	    file = os.open("home/much", os.O_RDWR | os.O_CREAT)
	    try:
	        attempt("write", os.pwrite, file, b"x" * (1 << 22), choice.randrange(8) << 22)
	    except OSError as error:
	        if error.errno != errno.ENOSPC:
	            raise
	    os.close(file)
	def delete(choice):
	    attempt("create", oxfsctl.create, "home")
	    attempt("make", make, FILE)
	    time.sleep(choice.random() / 50)
	    attempt("delete", oxfsctl.delete, "home")
	def freeze(choice):
	    root = os.open("/mnt/test", os.O_RDONLY)
	    attempt("freeze", fcntl.ioctl, root, 0xC0045877, 0)
	    if choice.randrange(2):
	        time.sleep(choice.random() / 50)
	    attempt("thaw", fcntl.ioctl, root, 0xC0045878, 0)
	    os.close(root)
	    time.sleep(choice.random() / 20)
	def readonly(choice):
	    attempt("read-only", oxfsctl.set_read_only, "home", 1)
	    attempt("writable", oxfsctl.set_read_only, "home", 0)
	def mount(choice):
	    attempt("mount", system, libc.mount, b"/dev/vda", b"/mnt/a", b"oxfs", 0, b"")
	    time.sleep(choice.random() / 50)
	    attempt("unmount", system, libc.umount2, b"/mnt/a", 0)
	def commit(choice):
	    os.sync()
	    time.sleep(choice.random() / 10)
	def work(name, seed):
	    choice = random.Random(seed)
	    while time.monotonic() < end:
	        globals()[name](choice)
	    print(name, counts, flush=True)
	if names[0] == "mount":
	    FILE = "/mnt/a/home/swap"
	children = []
	for seed, name in enumerate(["swap"] + names):
	    child = os.fork()
	    if child == 0:
	        try:
	            work(name, seed)
	        except BaseException as error:
	            print(name, "failed:", repr(error), flush=True)
	            os._exit(1)
	        os._exit(0)
	    children.append(child)
	sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
END
# race NAME SECONDS WORK...
race() {
	local name=$1
	shift
	cp --reflink=always base home/swap
	chmod 600 home/swap
	check "swapon against $name" timeout 300 python3 /tmp/races.py "$here" "$@"
	swapoff -a
	[[ -e home ]] || must test "$(fileop subvol-create home)" -gt 0
	do_op subvol-ro home 0
	check "after $name: swapon works" eval 'cp --reflink=always base home/swap && chmod 600 home/swap && swapon home/swap'
	is "after $name: pages are right" 0 "$(swapmem -o 3)"
	must swapoff home/swap
}
race 'clones' 4 clone commit
race 'snapshots' 6 snapshot commit
race 'snapshots and writes' 4 snapshot write commit
race 'unlink' 4 unlink commit
race 'truncation' 4 cut commit
race 'deletion of the subvolume' 5 delete commit
race 'becoming read-only' 4 readonly
race 'freezing and snapshots' 6 freeze snapshot write
race 'freezing that waits for writes' 6 freeze snapshot write_much
race 'all of them' 8 clone snapshot unlink cut freeze readonly commit
cp --reflink=always base home/swap
chmod 600 home/swap
must sync
cd / || give_up 'cd /'
must umount "$mnt"
check 'swapon against unmount' timeout 300 python3 /tmp/races.py "$here" 5 mount
swapoff -a
! mountpoint -q /mnt/a || must umount /mnt/a
mount_fs
must rm -f clone*
for snapshot in snap*; do [[ ! -e $snapshot ]] || do_op subvol-delete "$snapshot"; done
check 'all space comes back' dropped
end
