# SPDX-License-Identifier: GPL-2.0
"""What the operations of the system-call fuzzer (fuzzops.py) are made of: system calls that Python
does not have, and the worker that chooses their arguments.

All choices of a worker's operation number N follow from (seed, worker, N) and from nothing else, not
even from how earlier operations ended. So a seed says what every process does, and one process alone
does the same thing again.
"""
import ctypes
import errno
import mmap
import os
import random

libc = ctypes.CDLL(None, use_errno=True)
i64, word = ctypes.c_int64, ctypes.c_ulong
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, i64, i64]
libc.renameat2.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
libc.sync_file_range.argtypes = [ctypes.c_int, i64, i64, ctypes.c_uint]
libc.ioctl.argtypes = [ctypes.c_int, word, ctypes.c_void_p]
libc.mount.argtypes = [ctypes.c_char_p] * 3 + [word, ctypes.c_char_p]
libc.syscall.restype = ctypes.c_long

BLOCK = 4096
MIB = 1 << 20
# Of all that a worker writes: from a file in memory, at an offset.
NOISE = 4 * MIB

DIRS = ["", "", "", "", "d0", "d0", "d1", "d0/e0", "s0", "s0", "s1", "s0/d0", "d0/s2", "p0", "p1", "p0/d0"]
FILES = ["f0", "f1", "f2", "f3", "f4", "f5", "w0", "w1"]
OTHERS = ["l0", "l1", "x0", "d0", "d1", "e0", "e1", "s0", "s1", "s2", "p0", "p1", "n" * 255]
SWAPS = ["w0", "w1", "s0/w0", "p0/w0"]


class NoFile(Exception):
    """There is no open file to do something with, and none could be opened."""


def checked(result):
    """The result of a function of libc."""
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def ioctl(fd, request, data=b""):
    """What the kernel made of `data`. Room behind it, for what a wrong size would do."""
    buffer = ctypes.create_string_buffer(bytes(data), len(data) + 64)
    checked(libc.ioctl(fd, request, buffer))
    return buffer.raw[:len(data)]


class Worker:
    """Chooses. `slots` are its open files; `path` and `at` note what they chose, for the log."""

    def __init__(self, options, number):
        self.seed, self.number, self.damaged = options.seed, number, options.damaged
        self.device, self.top = options.device, options.mountpoint
        self.random = random.Random()
        self.slots, self.noted, self.handles = [None] * 6, [], []
        self.noise = os.memfd_create("noise")
        os.write(self.noise, random.Random(self.seed).randbytes(NOISE))
        self.memory = mmap.mmap(-1, 2 * MIB)

    def begin(self, count):
        """The choices from here on are those of operation `count`."""
        self.random.seed(self.seed << 40 | self.number << 32 | count)
        self.noted.clear()

    def below(self, limit):
        return int(self.random.random() * limit)

    def one_in(self, count):
        return self.below(count) == 0

    def pick(self, choices):
        choice = choices[self.below(len(choices))]
        self.noted.append(choice)
        return choice

    def bits(self, *values):
        """Some of them, usually few."""
        sum_of = 0
        for value in values:
            if self.one_in(3):
                sum_of |= value
        self.noted.append(hex(sum_of))
        return sum_of

    def path(self, names=()):
        """Of anything, if no names are given."""
        folder = DIRS[self.below(len(DIRS))]
        if not names:
            names = OTHERS if self.one_in(6) else FILES
        name = os.path.join(folder, names[self.below(len(names))])
        if self.one_in(60):
            name += "/" + "y" * self.below(300)
        self.noted.append(name if len(name) < 60 else f"{name[:20]}...({len(name)})")
        return os.path.join(self.top, name)

    def folder(self):
        return os.path.join(self.top, self.pick(DIRS))

    def swap_path(self):
        return os.path.join(self.top, self.pick(SWAPS))

    def at(self):
        """An offset or length: most are small, many at an end of a block, a few absurd."""
        kind = self.below(24)
        if kind == 0:
            value = self.random.choice([1 << 62, (1 << 63) - 1, -1, 1 << 43, (1 << 44) - BLOCK, 1 << 32, -BLOCK])
        elif kind < 12:
            value = self.below(64) * BLOCK
        elif kind < 16:
            value = max(self.below(64) * BLOCK + self.below(3) - 1, 0)
        else:
            value = self.below(1 << (4 + self.below(16)))
        self.noted.append(value)
        return value

    def small(self):
        """A length that is no burden."""
        value = self.below(1 << (4 + self.below(15)))
        if self.one_in(2):
            value = (value // BLOCK + 1) * BLOCK
        self.noted.append(value)
        return value

    def content(self, length):
        return os.pread(self.noise, length, self.below(NOISE - length) & ~0xFF)

    def slot(self):
        slot = self.below(len(self.slots))
        self.noted.append(f"slot {slot}")
        return slot

    def keep(self, slot, fd):
        if self.slots[slot] is not None:
            os.close(self.slots[slot])
        self.slots[slot] = fd

    def file(self):
        """An open file; one is opened if the slot is empty."""
        slot = self.slot()
        if self.slots[slot] is None:
            name = os.path.join(self.top, FILES[slot])
            try:
                self.slots[slot] = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o600)
            except OSError as error:
                if error.errno not in OPEN | DAMAGE:
                    raise
                raise NoFile from error
        return self.slots[slot]


# The operations: name -> (weight, errors that it may end in, function).
OPERATIONS = {}

# What any look-up of a name may meet (EACCES: somebody else's link in a folder for all), what any change may, and what data may.
NAME = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EACCES}
CHANGE = {errno.EROFS, errno.ENOSPC, errno.EPERM}
DATA = CHANGE | {errno.ETXTBSY, errno.EFBIG, errno.EINVAL, errno.EBADF, errno.EISDIR, errno.ESPIPE}
OPEN = NAME | {errno.EISDIR, errno.EROFS, errno.ENOSPC, errno.EPERM, errno.ETXTBSY, errno.ENXIO,
               errno.EACCES}
# What else a damaged volume may lead to: it is named, or it looks like another volume. Not among
# them: ENOMEM, EFAULT, ENOSYS, and what only the kernel knows.
DAMAGE = NAME | DATA | OPEN | {
    errno.EIO, errno.EUCLEAN, errno.ENODEV, errno.EOVERFLOW, errno.EMLINK, errno.EXDEV, errno.ENODATA,
    errno.ERANGE, errno.ESTALE, errno.EEXIST, errno.ENOTEMPTY, errno.EOPNOTSUPP, errno.EBUSY,
    errno.ENOTTY, errno.EPIPE, errno.EAGAIN}


def operation(weight, *sets):
    """Registers a function of a worker; `sets` of errors, or single ones."""
    allowed = set()
    for one in sets:
        allowed |= one if isinstance(one, set) else {one}

    def register(function):
        OPERATIONS[function.__name__.rstrip("_")] = (weight, frozenset(allowed), function)
        return function
    return register
