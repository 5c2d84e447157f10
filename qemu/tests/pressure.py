#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""pressure.py FOLDER SECONDS SEED: works on a filesystem that is swapped to at the same time. One
process writes files, calls fsync and compares what the disk has; another takes snapshots of the
subvolume that they are in, compares, and deletes them. Prints how much was done and how long the
slowest call took; the exit status is 1 if content was wrong.
"""
import os
import random
import sys
import time

import oxfsctl

FILES, SNAPSHOTS = 6, 4


def content(seed, size):
    return random.Random(seed).randbytes(size)


class Work:
    def __init__(self, folder, seconds, seed):
        self.folder, self.random = folder, random.Random(seed)
        self.end = time.monotonic() + seconds
        self.done, self.slowest = 0, 0.0

    def timed(self, call, *arguments):
        begin = time.monotonic()
        result = call(*arguments)
        self.slowest = max(self.slowest, time.monotonic() - begin)
        return result

    def run(self, step):
        # However little time it gets, it does something.
        while self.done < 2 or time.monotonic() < self.end:
            step(self)
            self.done += 1
        print(f"{step.__name__} {self.done} slowest {self.slowest:.1f}", flush=True)


def compare(path):
    """A file's content begins with its seed and follows from it."""
    with open(path, "rb") as file:
        head = file.readline()
        seed, size = (int(part) for part in head.split())
        if file.read() != content(seed, size):
            raise AssertionError(f"{path}: not what was written")


def files(work):
    seed, size = work.random.getrandbits(30), work.random.randrange(1 << work.random.randrange(10, 20))
    path = os.path.join(work.folder, f"file{work.random.randrange(FILES)}")
    with open(path + ".new", "wb") as file:
        file.write(b"%d %d\n" % (seed, size))
        work.timed(file.write, content(seed, size))
        file.flush()
        work.timed(os.fsync, file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    work.timed(os.rename, path + ".new", path)
    compare(path)


def snapshots(work):
    path = f"{work.folder}-{work.random.randrange(SNAPSHOTS)}"
    if os.path.exists(path):
        work.timed(oxfsctl.delete, path)
    work.timed(oxfsctl.create, path, work.folder, work.random.randrange(2))
    for name in os.listdir(path):
        if name.startswith("file") and not name.endswith(".new"):
            compare(os.path.join(path, name))
    time.sleep(work.random.random())


def main():
    folder, seconds, seed = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    children = []
    for number, step in enumerate((files, snapshots)):
        child = os.fork()
        if child == 0:
            try:
                Work(folder, seconds, seed * 2 + number).run(step)
            except BaseException as error:  # pylint: disable=broad-except
                print(f"WRONG {step.__name__}: {error!r}", flush=True)
                os._exit(1)
            os._exit(0)
        children.append(child)
    sys.exit(any([os.waitpid(child, 0)[1] for child in children]))


main()
