#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Does random things to a few files in a folder and compares what the files hold with what plain
memory says they must, in the spirit of Apple's fsx. Prints how often each operation was done, and
how many the filesystem does not have.
"""
import argparse
import ctypes
import errno
import fcntl
import mmap
import os
import random
import struct
import sys

BLOCK = 4096
FICLONERANGE, FIDEDUPERANGE = 0x4020940D, 0xC0189436
KEEP, PUNCH, COLLAPSE, ZERO, INSERT, UNSHARE = 1, 2, 8, 0x10, 0x20, 0x40
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
libc.sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]


class Wrong(Exception):
    """The filesystem did something wrong."""


class Unsupported(Exception):
    """The filesystem does not have this operation."""


class File:
    """A file, and what it must hold."""

    def __init__(self, options, name):
        self.name, self.options = name, options
        self.path = os.path.join(options.folder, name)
        self.model = bytearray()
        self.fd = self.direct = -1
        self.open(os.O_CREAT | os.O_TRUNC)

    def open(self, flags=0):
        self.fd = os.open(self.path, os.O_RDWR | flags, 0o644)
        self.direct = os.open(self.path, os.O_RDWR | os.O_DIRECT) if self.options.direct else -1

    @property
    def size(self):
        return len(self.model)

    def put(self, at, content):
        """What a write of `content` does."""
        if at > self.size:
            self.resize(at)
        self.model[at:at + len(content)] = content

    def resize(self, size):
        if size < self.size:
            del self.model[size:]
        else:
            self.model.extend(bytes(size - self.size))

    def compare(self, seen, at, how):
        right = self.model[at:at + len(seen)]
        if seen == right:
            return
        i = next(i for i, pair in enumerate(zip(seen, right)) if pair[0] != pair[1])
        raise Wrong(f"{how}: byte {at + i} (block {(at + i) // BLOCK} + {(at + i) % BLOCK}) is "
                    f"{seen[i]:02x}, should be {right[i]:02x}; size {self.size}")

    def fallocate(self, mode, at, length):
        if libc.fallocate(self.fd, mode, at, length) < 0:
            error = ctypes.get_errno()
            if error == errno.EOPNOTSUPP:
                raise Unsupported
            raise OSError(error, f"fallocate mode {mode:#x} {length} at {at}")


def ioctl(fd, request, data):
    try:
        return fcntl.ioctl(fd, request, data)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENOTTY):
            raise Unsupported from error
        raise


class Run:
    """The operations; each chooses its own numbers."""

    def __init__(self, options):
        self.random = random.Random(options.seed)
        self.limit = options.limit // BLOCK * BLOCK
        self.noise = random.Random(options.seed).randbytes(self.limit + 65536)
        self.files = [File(options, f"fsx{i}") for i in range(options.files)]
        self.buffer = mmap.mmap(-1, self.limit)
        self.done = {}

    def below(self, limit):
        return self.random.randrange(limit) if limit > 0 else 0

    def offset(self, limit):
        """Up to `limit`. Most errors come from the ends of blocks."""
        at = self.below(limit)
        kind = self.below(4)
        if kind == 0:
            return at // BLOCK * BLOCK
        if kind == 1:
            return min(max(at // BLOCK * BLOCK + self.below(3) - 1, 0), max(limit, 0))
        return at

    def length(self, limit):
        """1 to `limit`."""
        length = self.below(min(limit, 32768) if self.below(8) else limit) + 1
        if self.below(3) == 0:
            length = length // BLOCK * BLOCK or min(BLOCK, limit)
        return max(1, min(length, limit))

    def content(self, length):
        at = self.below(65536)
        return self.noise[at:at + length]

    def read(self, f):
        at, length = self.offset(f.size + 1), self.length(self.limit)
        seen = os.pread(f.fd, length, at)
        if len(seen) != max(0, min(length, f.size - at)):
            raise Wrong(f"read {length} at {at}: {len(seen)} bytes; size {f.size}")
        f.compare(seen, at, "read")

    def write(self, f):
        at = self.offset(self.limit - 1)
        content = self.content(self.length(self.limit - at))
        if os.pwrite(f.fd, content, at) != len(content):
            raise Wrong("short write")
        f.put(at, content)

    def blocks(self, most):
        at = self.below(self.limit) // BLOCK * BLOCK
        return at, min((1 + self.below(most)) * BLOCK, self.limit - at)

    def direct_read(self, f):
        at, length = self.blocks(16)
        with memoryview(self.buffer) as view, view[:length] as part:
            got = os.preadv(f.direct, [part], at)
        if got != max(0, min(length, f.size - at)):
            raise Wrong(f"direct read {length} at {at}: {got} bytes; size {f.size}")
        f.compare(self.buffer[:got], at, "direct read")

    def direct_write(self, f):
        at, length = self.blocks(16)
        content = self.content(length)
        self.buffer[:length] = content
        with memoryview(self.buffer) as view, view[:length] as part:
            if os.pwritev(f.direct, [part], at) != length:
                raise Wrong("short direct write")
        f.put(at, content)

    def map(self, f, writing):
        if not f.size:
            return
        at = min(self.offset(f.size), f.size - 1)
        length = self.length(f.size - at)
        start = at // BLOCK * BLOCK
        # A length with the rest of the last page, which reads as zeros and is nobody's.
        whole = -(-(at - start + length) // BLOCK) * BLOCK
        with mmap.mmap(f.fd, min(whole, f.size - start), offset=start) as memory:
            if not writing:
                f.compare(memory[at - start:at - start + length], at, "mapped read")
                return
            content = self.content(length)
            memory[at - start:at - start + length] = content
        f.put(at, content)

    def mapped_read(self, f):
        self.map(f, False)

    def mapped_write(self, f):
        self.map(f, True)

    def beyond(self, f):
        """A store behind the end of the file, in its last page: nothing of it may be seen later."""
        if f.size % BLOCK == 0:
            return
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int,
                              ctypes.c_int, ctypes.c_int64]
        libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        start = f.size // BLOCK * BLOCK
        at = libc.mmap(None, BLOCK, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, f.fd, start)
        if at == ctypes.c_void_p(-1).value:
            raise OSError(ctypes.get_errno(), "mmap")
        ctypes.memset(at + f.size % BLOCK, 0xEE, BLOCK - f.size % BLOCK)
        libc.munmap(at, BLOCK)

    def truncate(self, f):
        size = self.offset(f.size + 1) if self.below(3) == 0 else self.offset(self.limit)
        os.ftruncate(f.fd, size)
        f.resize(size)

    def zeros(self, f, at, length):
        end = min(at + length, f.size)
        if end > at:
            f.model[at:end] = bytes(end - at)

    def range(self):
        at = self.offset(self.limit - 1)
        return at, self.length(self.limit - at)

    def punch(self, f):
        at, length = self.range()
        f.fallocate(PUNCH | KEEP, at, length)
        self.zeros(f, at, length)

    def zero(self, f):
        (at, length), keep = self.range(), self.below(2)
        f.fallocate(ZERO | keep, at, length)
        if not keep and at + length > f.size:
            f.resize(at + length)
        self.zeros(f, at, length)

    def allocate(self, f):
        (at, length), keep = self.range(), self.below(2)
        f.fallocate(keep, at, length)
        if not keep and at + length > f.size:
            f.resize(at + length)

    def unshare(self, f):
        if f.size:
            at = min(self.offset(f.size), f.size - 1)
            f.fallocate(UNSHARE | KEEP, at, self.length(f.size - at))

    def collapse(self, f):
        blocks = (f.size - 1) // BLOCK
        if blocks < 1:
            return
        at = self.below(blocks)
        count = 1 + self.below(blocks - at)
        at, length = at * BLOCK, count * BLOCK
        if at + length >= f.size:
            return
        f.fallocate(COLLAPSE, at, length)
        del f.model[at:at + length]

    def insert(self, f):
        blocks, room = -(-f.size // BLOCK), (self.limit - f.size) // BLOCK
        if not blocks or not room:
            return
        at, length = self.below(blocks) * BLOCK, (1 + self.below(min(room, 8))) * BLOCK
        f.fallocate(INSERT, at, length)
        f.model[at:at] = bytes(length)

    def two_ranges(self, f):
        source = self.random.choice(self.files)
        at, to = self.below(source.size), self.below(self.limit)
        return source, at, to, min(self.length(self.limit), source.size - at, self.limit - to)

    def clone(self, f):
        source, at, to, length = self.two_ranges(f)
        at, to = at // BLOCK * BLOCK, to // BLOCK * BLOCK
        # An end inside a block must be the source's end, and the target's too.
        length = -(-length // BLOCK) * BLOCK
        if at + length >= source.size:
            length = source.size - at
        if to + length > self.limit or (length % BLOCK and to + length < f.size):
            length = min(length, self.limit - to) // BLOCK * BLOCK
        if length <= 0 or (f is source and at < to + length and to < at + length):
            return
        ioctl(f.fd, FICLONERANGE, struct.pack("qQQQ", source.fd, at, length, to))
        f.put(to, source.model[at:at + length])

    def copy(self, f):
        source, at, to, length = self.two_ranges(f)
        if length <= 0 or (f is source and at < to + length and to < at + length):
            return
        content = bytes(source.model[at:at + length])
        done = 0
        while done < length:
            got = os.copy_file_range(source.fd, f.fd, length - done, at + done, to + done)
            if got <= 0:
                raise Wrong(f"copy {length} from {source.name} at {at} to {to}: {got} after {done}")
            done += got
        f.put(to, content)

    def dedupe(self, f):
        """The answer must be what the content says; the content stays."""
        source = self.random.choice(self.files)
        at, length = self.blocks(8)
        to = at if self.below(2) else self.blocks(1)[0]
        if at + length > source.size or to + length > f.size or \
                (f is source and at < to + length and to < at + length):
            return
        data = struct.pack("QQHHIqQQiI", at, length, 1, 0, 0, f.fd, to, 0, 0, 0)
        status = struct.unpack("QQHHIqQQiI", ioctl(source.fd, FIDEDUPERANGE, data))[8]
        if status == -errno.EOPNOTSUPP:
            raise Unsupported
        same = source.model[at:at + length] == f.model[to:to + length]
        if status != (0 if same else 1):
            raise Wrong(f"dedupe: status {status}, but the content is {'' if same else 'not '}the same")

    def seek(self, f):
        """What a seek leaves out must be zeros."""
        if not f.size:
            return
        at = min(self.offset(f.size), f.size - 1)
        data = self.seek_data(f, at)
        if not at <= data <= f.size or any(f.model[at:data]):
            raise Wrong(f"SEEK_DATA {at}: {data} leaves out data; size {f.size}")
        hole = os.lseek(f.fd, at, os.SEEK_HOLE)
        if not at <= hole <= f.size:
            raise Wrong(f"SEEK_HOLE {at}: {hole}; size {f.size}")
        data = self.seek_data(f, hole) if hole < f.size else hole
        if any(f.model[hole:data]):
            raise Wrong(f"SEEK_HOLE {at}: {hole} is not a hole up to {data}")

    @staticmethod
    def seek_data(f, at):
        try:
            return os.lseek(f.fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return f.size

    def sync(self, f):
        (os.fsync if self.below(2) else os.fdatasync)(f.fd)

    def forget(self, f):
        """Out of the page cache."""
        libc.sync_file_range(f.fd, 0, 0, 7)
        os.posix_fadvise(f.fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def stat(self, f):
        size = os.fstat(f.fd).st_size
        if size != f.size:
            raise Wrong(f"size {size}, should be {f.size}")

    def reopen(self, f):
        if f.direct >= 0:
            os.close(f.direct)
        os.close(f.fd)
        f.open()

    WEIGHTS = {
        "read": 8, "write": 14, "direct_read": 5, "direct_write": 7, "mapped_read": 5,
        "mapped_write": 10, "beyond": 3, "truncate": 6, "punch": 6, "zero": 6, "allocate": 4,
        "unshare": 2, "collapse": 4, "insert": 4, "clone": 9, "copy": 4, "dedupe": 5, "seek": 6,
        "sync": 2, "forget": 4, "stat": 2, "reopen": 1,
    }

    def one(self, operation):
        f = self.random.choice(self.files)
        try:
            getattr(self, operation)(f)
            self.done[operation] = self.done.get(operation, 0) + 1
        except Unsupported:
            self.done["not supported"] = self.done.get("not supported", 0) + 1
        except OSError as error:
            raise Wrong(f"{f.name}: {operation}: {error}") from error
        except Wrong as why:
            raise Wrong(f"{f.name}: {operation}: {why}") from why

    def compare_all(self):
        for f in self.files:
            self.stat(f)
            f.compare(os.pread(f.fd, self.limit, 0), 0, f"{f.name} at the end")


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("-S", "--seed", type=int, default=1)
    parser.add_argument("-n", "--count", type=int, default=1000, help="operations")
    parser.add_argument("-l", "--limit", type=int, default=256 << 10, help="size of a file")
    parser.add_argument("-f", "--files", type=int, default=3)
    parser.add_argument("-d", "--direct", action="store_true", help="direct I/O too")
    parser.add_argument("-m", "--models", help="in the end, write to this folder what the files "
                        "must hold, to compare after a remount")
    parser.add_argument("-v", "--verbose", action="store_true")
    return parser.parse_args()


def main():
    options = parse()
    run = Run(options)
    names = [name for name in run.WEIGHTS if options.direct or not name.startswith("direct")]
    weights = [run.WEIGHTS[name] for name in names]
    number = -1
    try:
        for number, name in enumerate(run.random.choices(names, weights, k=options.count)):
            if options.verbose:
                print(number, name, file=sys.stderr)
            run.one(name)
        run.compare_all()
    except Wrong as why:
        sys.exit(f"fsx: seed {options.seed}, operation {number}: {why}")
    for f in run.files if options.models else []:
        with open(os.path.join(options.models, f.name), "wb") as out:
            out.write(f.model)
    done = ", ".join(f"{name} {times}" for name, times in sorted(run.done.items()))
    print(f"{done}, not supported {run.done.get('not supported', 0)}")


main()
