#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""failnth.py DEVICE MOUNTPOINT: every operation, with its first allocation failing, then its second
and so on, until one run of it needs no more (/proc/self/fail-nth of a kernel with fault injection).
Each run must succeed or fail with ENOMEM, and leave a filesystem that goes on working. Prints a line
for each operation: how many runs there were, how many failed.
"""
import ctypes
import errno
import fcntl
import mmap
import os
import sys

DEVICE, TOP = sys.argv[1:3]
FICLONE = 0x40049409
LIMIT = 400
libc = ctypes.CDLL(None, use_errno=True)
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


class Runs:
    """An operation: `prepare` returns what `run` is called with; only `run` meets the faults."""

    def __init__(self, name, prepare, run, cleanup=None):
        self.name, self.prepare, self.run, self.cleanup = name, prepare, run, cleanup

    def once(self, number):
        """Whether the fault happened, and how the run ended."""
        given = self.prepare()
        error = None
        os.pwrite(nth, b"%d" % number, 0)
        try:
            self.run(given)
        except OSError as failure:
            error = failure.errno
        left = int(os.pread(nth, 32, 0).split(b"\0")[0] or 0)
        os.pwrite(nth, b"0", 0)
        if self.cleanup:
            self.cleanup(given, error)
        if isinstance(given, int) and not isinstance(given, bool):
            os.close(given)
        return left == 0, error

    def all(self):
        failed, last = 0, 0
        for number in range(1, LIMIT):
            last = number
            happened, error = self.once(number)
            if error not in (None, errno.ENOMEM):
                print(f"WRONG {self.name}: fault {number} ended in {errno.errorcode[error]}", flush=True)
            if not happened:
                if error is not None:
                    print(f"WRONG {self.name}: fails without a fault", flush=True)
                break
            failed += error is not None
        print(f"{self.name}: {last} runs, {failed} failed", flush=True)
        return last, failed


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


def mount(_):
    checked(libc.mount(DEVICE.encode(), path("").encode(), b"oxfs", 0, None))


def unmounted():
    checked(libc.umount(path("").encode()))


def mounted_again(_given, error):
    if error is not None:
        mount(None)


def unmount(_):
    checked(libc.umount(path("").encode()))


def swap_file():
    # Shared with another, so that activation has something to do.
    os.system(f"rm -f {path('swap')} {path('swap2')}; head -c 4M /dev/zero >{path('swap')}; chmod 600 {path('swap')};"
              f"mkswap -q {path('swap')}; cp --reflink=always {path('swap')} {path('swap2')}; sync")
    return None


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
    Runs("link", fresh("a"), lambda _: os.link(path("a"), path("b")), remove("b")),
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
    Runs("swapon", swap_file, swap_on, swap_off_after),
    Runs("swapoff", swap_is_on, swap_off, swap_is_off),
    Runs("mount", unmounted, mount, mounted_again),
    Runs("unmount", nothing, unmount, lambda _given, error: mount(None) if error is None else None),
]


def main():
    total = broken = 0
    chosen = sys.argv[3:]
    for operation in ALL:
        if chosen and operation.name not in chosen:
            continue
        runs, failed = operation.all()
        total, broken = total + runs, broken + failed
    print(f"all: {total} runs, {broken} failed", flush=True)


main()
