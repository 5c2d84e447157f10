#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""failnth.py DEVICE MOUNTPOINT [OPERATION...]: every operation, or these, with its first allocation
failing, then its second and so on, until one run of it needs no more (/proc/self/fail-nth of a kernel
with fault injection). failnth.py DEVICE MOUNTPOINT sparse [OPERATION...]: the same with some of the later
ones left out. failnth.py DEVICE MOUNTPOINT mix RUNS SEED: so many of them, as they come, while
faults hit whoever asks for them (/proc/self/make-it-fail).

Each run must succeed or fail with ENOMEM, and leave a filesystem that goes on working. Prints a line
for each operation: how many runs there were, how many failed.
"""
import ctypes
import errno
import fcntl
import mmap
import os
import random
import struct
import sys
from collections import Counter

import oxfsctl

DEVICE, TOP = sys.argv[1:3]
FICLONE, FIDEDUPERANGE, FS_IOC_FIEMAP = 0x40049409, 0xC0189436, 0xC020660B
FITRIM, FIFREEZE, FITHAW = 0xC0185879, 0xC0045877, 0xC0045878
REMOUNT, EXCHANGE = 32, 2
# More allocations than that are no operation's: then it never ends.
LIMIT = 3000
libc = ctypes.CDLL(None, use_errno=True)
libc.renameat2.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
libc.syncfs.argtypes = [ctypes.c_int]
nth = os.open("/proc/thread-self/fail-nth", os.O_RDWR)
# Made here, so that no run allocates in user space.
DATA = os.urandom(64 << 10)
PAGE = mmap.mmap(-1, 64 << 10)
PAGE.write(DATA)


def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")


def path(name):
    return os.path.join(TOP, name)


def make(name, data=b""):
    file = os.open(path(name), os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    os.pwrite(file, data, 0)
    return file


def drop_caches():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3")


def set_nth(number):
    os.pwrite(nth, b"%d" % number, 0)


def nth_happened():
    left = int(os.pread(nth, 32, 0).split(b"\0")[0] or 0)
    set_nth(0)
    return left == 0


class Runs:
    """An operation: `prepare` returns what `run` is called with; only `run` meets the faults."""

    def __init__(self, name, prepare, run, cleanup=None):
        self.name, self.prepare, self.run, self.cleanup = name, prepare, run, cleanup

    def once(self, begin, end):
        """How the run ended: an error or None, and what `end` says. Faults happen between the two."""
        given = self.prepare()
        error = None
        begin()
        try:
            self.run(given)
        except OSError as failure:
            error = failure.errno
        except MemoryError:
            error = errno.ENOMEM
        said = end()
        if self.cleanup:
            self.cleanup(given, error)
        if isinstance(given, int) and not isinstance(given, bool):
            os.close(given)
        return error, said

    def all(self, sparse):
        failed = runs = 0
        number = 1
        while number < LIMIT:
            runs += 1
            error, happened = self.once(lambda: set_nth(number), nth_happened)
            if error not in (None, errno.ENOMEM):
                print(f"WRONG {self.name}: fault {number} ended in {errno.errorcode[error]}", flush=True)
            if not happened:
                if error is not None:
                    print(f"WRONG {self.name}: fails without a fault", flush=True)
                break
            failed += error is not None
            number += 1 + (number // 3 if sparse else 0)
        else:
            print(f"WRONG {self.name}: not one run without a fault", flush=True)
        print(f"{self.name}: {runs} runs, {failed} failed", flush=True)
        return runs, failed


def remove(name):
    def cleanup(_given, _error):
        for function in (os.unlink, os.rmdir):
            try:
                function(path(name))
                return
            except OSError:
                pass
    return cleanup


def fresh(name, data=DATA):
    return lambda: make(name, data)


def cold(name, flags=os.O_RDWR):
    """An open file nothing of whose content is in memory."""
    def prepare():
        os.close(make(name, DATA))
        drop_caches()
        return os.open(path(name), flags)
    return prepare


def tagged():
    file = make("a", DATA)
    os.setxattr(file, "user.name", b"value" * 100)
    return file


def nothing():
    return None


def clean(function):
    """After what `function` prepares, with empty caches."""
    def prepare():
        given = function()
        drop_caches()
        return given
    return prepare


def close_all(function):
    given = function()
    if isinstance(given, int):
        os.close(given)


def create(_):
    os.close(os.open(path("new"), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def clone(file):
    target = os.open(path("clone"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.ioctl(target, FICLONE, file)
    finally:
        os.close(target)


def read_names(_):
    os.listdir(TOP)


def replace(_):
    os.replace(path("a"), path("b"))


def exchange(_):
    checked(libc.renameat2(-100, path("a").encode(), -100, path("b").encode(), EXCHANGE))


def two(first=DATA, second=DATA):
    """Two files; the first is open."""
    def prepare():
        os.close(make("b", second))
        return make("a", first)
    return prepare


def alone():
    """An open file; the name of the second is free."""
    file = make("a", DATA)
    remove("b")(None, None)
    return file


def nameless(_):
    """A file that is gone when it is closed."""
    file = os.open(TOP, os.O_TMPFILE | os.O_RDWR, 0o600)
    try:
        os.pwrite(file, DATA, 0)
    finally:
        os.close(file)


def dedupe(file):
    target = os.open(path("b"), os.O_RDWR)
    try:
        data = struct.pack("QQHHIqQQiI", 0, 8192, 1, 0, 0, target, 0, 0, 0, 0)
        status = struct.unpack("QQHHIqQQiI", fcntl.ioctl(file, FIDEDUPERANGE, data))[8]
    finally:
        os.close(target)
    if status < 0:
        raise OSError(-status, "")


def copy(file):
    target = os.open(path("b"), os.O_RDWR)
    try:
        os.copy_file_range(file, target, len(DATA), 0, 0)
    finally:
        os.close(target)


def cloned():
    """An open file all of whose blocks are another's too, nothing of it in memory."""
    file = make("a", DATA)
    clone(file)
    drop_caches()
    return file


def fiemap(file):
    fcntl.ioctl(file, FS_IOC_FIEMAP, struct.pack("QQIIII", 0, 1 << 40, 1, 0, 4, 0) + bytes(4 * 56))


def mapped(file):
    """A store to a page; without memory the processor tries again."""
    with mmap.mmap(file, len(DATA)) as memory:
        memory[5000] = 7


def handled():
    os.close(make("a", DATA))
    handle = oxfsctl.handle(path("a"))
    drop_caches()
    return handle


def trim(_):
    top = os.open(TOP, os.O_RDONLY)
    try:
        fcntl.ioctl(top, FITRIM, struct.pack("QQQ", 0, (1 << 64) - 1, 4096))
    finally:
        os.close(top)


def freeze(top):
    fcntl.ioctl(top, FIFREEZE, 0)


def thaw(top, error):
    if error is None:
        fcntl.ioctl(top, FITHAW, 0)


def top_folder():
    return os.open(TOP, os.O_RDONLY)


def remount(_):
    checked(libc.mount(DEVICE.encode(), TOP.encode(), b"oxfs", REMOUNT, b"commit=30"))


def subvolume():
    """One with a file in it."""
    oxfsctl.create(path("sub"))
    os.close(make("sub/file", DATA))


def drop(*names):
    def cleanup(_given, _error):
        for name in names:
            try:
                oxfsctl.delete(path(name))
            except FileNotFoundError:
                pass
    return cleanup


def snapshot(flags=0):
    return lambda _: oxfsctl.create(path("snap"), path("sub"), flags)


def swapping_subvolume():
    subvolume()
    swap_file("sub/swap")
    checked(libc.swapon(path("sub/swap").encode(), 0))


def not_swapping_any_more(given, error):
    checked(libc.swapoff(path("sub/swap").encode()))
    drop("snap", "sub")(given, error)


def resize(top):
    fcntl.ioctl(top, oxfsctl.RESIZE, struct.pack("<5Q", oxfsctl.NONE, 0, 0, 0, 0))


def smaller():
    top = top_folder()
    size = os.fstatvfs(top).f_blocks * 4096 // 2
    fcntl.ioctl(top, oxfsctl.RESIZE, struct.pack("<5Q", size, 0, 0, 0, 0))
    return top


def shrink(top):
    fcntl.ioctl(top, oxfsctl.RESIZE, struct.pack("<5Q", 128 << 20, 0, 0, 0, 0))


def as_large_as_can_be(top, _error):
    resize(top)


def mount(_):
    checked(libc.mount(DEVICE.encode(), path("").encode(), b"oxfs", 0, None))


def unmounted():
    checked(libc.umount(path("").encode()))


def mounted_again(_given, error):
    if error is not None:
        mount(None)


def unmount(_):
    checked(libc.umount(path("").encode()))


def swap_file(name="swap"):
    # Shared with another, so that activation has something to do.
    swap, other = path(name), path(name + "2")
    os.system(f"rm -f {swap} {other}; head -c 4M /dev/zero >{swap}; chmod 600 {swap}; mkswap -q {swap};"
              f"cp --reflink=always {swap} {other}; sync")


def swap_on(_):
    checked(libc.swapon(path("swap").encode(), 0))


def swap_off_after(_given, error):
    if error is None:
        checked(libc.swapoff(path("swap").encode()))


def swap_is_on():
    swap_file()
    swap_on(None)


def swap_off(_):
    checked(libc.swapoff(path("swap").encode()))


def swap_is_off(_given, error):
    if error is not None:
        swap_off(None)


ALL = [
    Runs("create", nothing, create, remove("new")),
    Runs("create cold", clean(nothing), create, remove("new")),
    Runs("mkdir", nothing, lambda _: os.mkdir(path("dir"), 0o700), remove("dir")),
    Runs("symlink", nothing, lambda _: os.symlink("x" * 300, path("link")), remove("link")),
    Runs("mknod", nothing, lambda _: os.mkfifo(path("fifo"), 0o600), remove("fifo")),
    Runs("link", alone, lambda _: os.link(path("a"), path("b")), remove("b")),
    Runs("rename", fresh("a"), lambda _: os.rename(path("a"), path("c")), remove("c")),
    Runs("rename cold", clean(fresh("a")), lambda _: os.rename(path("a"), path("c")), remove("c")),
    Runs("unlink", fresh("a"), lambda _: os.unlink(path("a")), remove("a")),
    Runs("unlink cold", cold("a"), lambda _: os.unlink(path("a")), remove("a")),
    Runs("stat cold", cold("a"), lambda _: os.stat(path("a"))),
    Runs("readdir cold", clean(nothing), read_names),
    Runs("setxattr", fresh("a"), lambda file: os.setxattr(file, "user.name", b"value" * 100)),
    Runs("getxattr cold", cold("a"), lambda file: os.listxattr(file)),
    Runs("chmod", fresh("a"), lambda file: os.fchmod(file, 0o640)),
    Runs("write", fresh("a", b""), lambda file: os.pwrite(file, DATA, 0)),
    Runs("overwrite cold", cold("a"), lambda file: os.pwrite(file, DATA[:5000], 3000)),
    Runs("write and fsync", fresh("a", b""), lambda file: (os.pwrite(file, DATA, 0), os.fsync(file))),
    Runs("fsync", fresh("a"), os.fsync),
    Runs("sync", fresh("a"), lambda file: checked(libc.syncfs(file))),
    Runs("read cold", cold("a"), lambda file: os.preadv(file, [PAGE], 0)),
    Runs("direct read", cold("a", os.O_RDONLY | os.O_DIRECT), lambda file: os.preadv(file, [PAGE], 0)),
    Runs("direct write", cold("a", os.O_RDWR | os.O_DIRECT), lambda file: os.pwritev(file, [PAGE], 4096)),
    Runs("truncate", fresh("a"), lambda file: os.ftruncate(file, 5000)),
    Runs("truncate cold", cold("a"), lambda file: os.ftruncate(file, 5000)),
    Runs("extend", fresh("a"), lambda file: os.ftruncate(file, 500000)),
    Runs("fallocate", fresh("a", b""), lambda file: checked(libc.fallocate(file, 0, 0, 1 << 20))),
    Runs("punch", fresh("a"), lambda file: checked(libc.fallocate(file, 3, 5000, 20000))),
    Runs("zero range cold", cold("a"), lambda file: checked(libc.fallocate(file, 16, 5000, 20000))),
    Runs("clone", fresh("a"), clone, remove("clone")),
    Runs("clone cold", cold("a"), clone, remove("clone")),
    Runs("seek", cold("a"), lambda file: os.lseek(file, 0, os.SEEK_HOLE)),
    Runs("rmdir", lambda: os.mkdir(path("dir")), lambda _: os.rmdir(path("dir")), remove("dir")),
    Runs("rename over", two(), replace),
    Runs("exchange cold", clean(two()), exchange),
    Runs("nameless file", nothing, nameless),
    Runs("removexattr", tagged, lambda file: os.removexattr(file, "user.name")),
    Runs("collapse", fresh("a"), lambda file: checked(libc.fallocate(file, 8, 4096, 8192))),
    Runs("insert cold", cold("a"), lambda file: checked(libc.fallocate(file, 32, 4096, 8192))),
    Runs("unshare", cloned, lambda file: checked(libc.fallocate(file, 64, 0, len(DATA))), remove("clone")),
    Runs("write what is shared", cloned, lambda file: (os.pwrite(file, DATA, 0), os.fsync(file)), remove("clone")),
    Runs("dedupe cold", clean(two()), dedupe),
    Runs("copy cold", clean(two()), copy),
    Runs("fiemap cold", cold("a"), fiemap),
    Runs("mapped write cold", cold("a"), mapped),
    Runs("statfs", nothing, lambda _: os.statvfs(TOP)),
    Runs("handle cold", handled, lambda handle: os.close(oxfsctl.open_handle(TOP, handle))),
    Runs("trim", fresh("a"), trim),
    Runs("freeze", top_folder, freeze, thaw),
    Runs("remount", nothing, remount),
    Runs("subvolume create", nothing, lambda _: oxfsctl.create(path("sub")), drop("sub")),
    Runs("subvolume delete cold", clean(subvolume), lambda _: oxfsctl.delete(path("sub")), drop("sub")),
    Runs("subvolume list cold", clean(subvolume), lambda _: oxfsctl.infos(TOP), drop("sub")),
    Runs("subvolume rename", subvolume, lambda _: os.rename(path("sub"), path("other")), drop("other", "sub")),
    Runs("snapshot", subvolume, snapshot(), drop("snap", "sub")),
    Runs("snapshot cold, read-only", clean(subvolume), snapshot(oxfsctl.READ_ONLY), drop("snap", "sub")),
    Runs("snapshot while swapping", swapping_subvolume, snapshot(), not_swapping_any_more),
    Runs("set read-only", subvolume, lambda _: oxfsctl.set_read_only(path("sub"), 1), drop("sub")),
    Runs("set default", nothing, lambda _: oxfsctl.set_default(TOP, 0)),
    Runs("label", nothing, lambda _: oxfsctl.label(TOP, "a label")),
    Runs("shrink", top_folder, shrink, as_large_as_can_be),
    Runs("grow", smaller, resize, as_large_as_can_be),
    Runs("swapon", swap_file, swap_on, swap_off_after),
    Runs("swapoff", swap_is_on, swap_off, swap_is_off),
    Runs("mount", unmounted, mount, mounted_again),
    Runs("unmount", nothing, unmount, lambda _given, error: mount(None) if error is None else None),
]


def every(chosen, sparse):
    total = broken = 0
    for operation in ALL:
        if chosen and operation.name not in chosen:
            continue
        runs, failed = operation.all(sparse)
        total, broken = total + runs, broken + failed
    print(f"all: {total} runs, {broken} failed", flush=True)


def insist(file, text):
    """Writes it; the call may itself meet the faults that it ends."""
    while True:
        try:
            os.pwrite(file, text, 0)
            return
        except MemoryError:
            pass
        except OSError as failure:
            if failure.errno != errno.ENOMEM:
                raise


def mix(runs, seed):
    fail = os.open("/proc/self/make-it-fail", os.O_RDWR)
    chance, ends = random.Random(int(seed)), Counter()
    for _ in range(int(runs)):
        operation = chance.choice(ALL)
        error, _ = operation.once(lambda: insist(fail, b"1"), lambda: insist(fail, b"0"))
        if error not in (None, errno.ENOMEM):
            print(f"WRONG {operation.name}: {errno.errorcode[error]}", flush=True)
        ends[error is not None] += 1
    print(f"all: {ends.total()} runs, {ends[True]} failed", flush=True)


# A page of the program itself that cannot be read for want of memory would end it.
MCL_CURRENT = 1
checked(libc.mlockall(MCL_CURRENT))
if sys.argv[3:4] == ["mix"]:
    mix(*sys.argv[4:6])
else:
    sparse = sys.argv[3:4] == ["sparse"]
    every(sys.argv[3 + sparse:], sparse)
