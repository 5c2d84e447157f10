#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Fuzzes the system calls of a mounted oxfs volume: some processes do random operations (fuzzops.py)
on the same few files and subvolumes of the new volume that is on DEVICE. Each ends well or in an error
that it may end in; afterwards the volume can be unmounted, fsck finds it clean, and it shows after a
mount what it showed before.

With --damaged the volume is one that an earlier run left, and may be damaged, also where checksums
do not tell. Every operation may find that; but nothing hangs, and errors are still those of a
filesystem. What the kernel has to say is for who reads its log.

A seed says what every process does, see fuzzlib.py.
"""
import argparse
import collections
import errno
import hashlib
import os
import signal
import stat
import subprocess
import sys
import time

import fuzzlib
import fuzzops
import oxfsctl

BLOCK = fuzzlib.BLOCK


class Wrong(Exception):
    """Something is not as it must be."""


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("device")
    parser.add_argument("mountpoint")
    parser.add_argument("-S", "--seed", type=int, default=1)
    parser.add_argument("-w", "--workers", type=int, default=1, help="processes")
    parser.add_argument("-n", "--count", type=int, default=1000, help="operations of each")
    parser.add_argument("-t", "--limit", type=int, default=120, help="seconds, else it hangs")
    parser.add_argument("-d", "--damaged", action="store_true")
    parser.add_argument("-v", "--verbose", action="store_true", help="tell each operation")
    return parser.parse_args()


def mount(options):
    """False if a damaged volume is refused."""
    flags = 4 if options.damaged else 0  # nodev
    if fuzzlib.libc.mount(os.fsencode(options.device), os.fsencode(options.mountpoint), b"oxfs", flags, b"subvolid=0") == 0:
        return True
    error = fuzzlib.ctypes.get_errno()
    if options.damaged and error in (errno.EUCLEAN, errno.EIO, errno.EINVAL, errno.EROFS, errno.ENOSPC):
        return False
    raise Wrong(f"mount: {errno.errorcode.get(error, error)}")


def swapping():
    """The active swapfiles."""
    with open("/proc/swaps", encoding="ascii") as swaps:
        return [line.split()[0] for line in swaps.read().splitlines()[1:]]


def swap_off():
    # swapoff opens a file for writing, which may have been made immutable.
    for name in swapping():
        try:
            with oxfsctl.Opened(name.encode().decode("unicode_escape")) as file:
                fuzzops.ioctl(file, fuzzops.SETFLAGS, bytes(8))
        except OSError:
            pass
    subprocess.run(["swapoff", "-a"], check=False)


def unmount(options):
    swap_off()
    # A file that was deleted, or a name that is damaged, is not in reach of swapoff -a.
    rest = swapping()
    if rest:
        raise Wrong(f"still swapping to {rest}")
    subprocess.run(["umount", options.mountpoint], check=True)


def work(options, number):
    """One process; returns the outcomes as a counter of errors."""
    worker = fuzzlib.Worker(options, number)
    weights = [weight for weight, _, _ in fuzzlib.OPERATIONS.values()]
    names = list(fuzzlib.OPERATIONS)
    outcomes = collections.Counter()
    for count in range(options.count):
        worker.begin(count)
        name = worker.random.choices(names, weights)[0]
        _, allowed, function = fuzzlib.OPERATIONS[name]
        try:
            function(worker)
            outcome = 0
        except fuzzlib.NoFile:
            outcomes[name + " no file"] += 1
            continue
        except OSError as error:
            outcome = error.errno
        except ValueError as error:
            # Python's own, for a mapping behind the end of a file.
            if "mmap" not in str(error):
                raise
            outcome = errno.EINVAL
        seen = "OK" if outcome == 0 else errno.errorcode.get(outcome, str(outcome))
        outcomes[name + " " + seen] += 1
        if options.verbose:
            print(f"{number}.{count} {name} {worker.noted}: {seen}", flush=True)
        if outcome and outcome not in (allowed | fuzzlib.DAMAGE if options.damaged else allowed):
            raise Wrong(f"{number}.{count} {name} {worker.noted}: {seen}")
    return outcomes


def start(options, number):
    """A process whose outcomes come through a pipe."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child:
        os.close(theirs)
        return child, ours
    os.close(ours)
    status = 1
    with os.fdopen(theirs, "w") as out:
        try:
            for key, times in work(options, number).items():
                print(key, times, file=out)
            status = 0
        except Wrong as why:
            print(f"WRONG seed {options.seed}: {why}", flush=True)
        except BaseException as why:  # pylint: disable=broad-except
            print(f"WRONG seed {options.seed}: worker {number}: {why!r}", flush=True)
    os._exit(status)


def run_workers(options):
    children = [start(options, number) for number in range(options.workers)]
    waiting, failed = {child for child, _ in children}, False
    end = time.monotonic() + options.limit
    while waiting and time.monotonic() < end:
        for child in list(waiting):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                waiting.discard(child)
                failed |= status != 0
        time.sleep(0.02)
    if waiting:
        # Which tasks are blocked, and where.
        for key in "wl":
            with open("/proc/sysrq-trigger", "w", encoding="ascii") as file:
                file.write(key)
        for child in waiting:
            with open(f"/proc/{child}/stack", encoding="ascii") as file:
                print(f"# {child}: {file.read()}")
            os.kill(child, signal.SIGKILL)
        raise Wrong(f"{len(waiting)} processes are not done after {options.limit} s")
    if failed:
        raise Wrong("a process failed")
    outcomes = collections.Counter()
    for _, pipe in children:
        with os.fdopen(pipe) as lines:
            for line in lines:
                key, times = line.rsplit(" ", 1)
                outcomes[key] += int(times)
    return outcomes


def content(path):
    """A hash of all blocks that are not zeros, wherever the filesystem says that there is data."""
    digest, at = hashlib.sha1(), 0
    # Not os.open() alone: it must not be found in the page cache only because it was read here.
    file = os.open(path, os.O_RDONLY | os.O_NOATIME | os.O_NONBLOCK)
    try:
        while True:
            try:
                at = os.lseek(file, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                return digest.hexdigest()
            end = os.lseek(file, at, os.SEEK_HOLE)
            at = at // BLOCK * BLOCK
            while at < end:
                data = os.pread(file, min(end - at, 1 << 18) + BLOCK & -BLOCK, at)
                if not data:
                    break
                for i in range(0, len(data), BLOCK):
                    block = data[i:i + BLOCK]
                    if block.strip(b"\0"):
                        digest.update(b"%d" % (at + i))
                        digest.update(block.ljust(BLOCK, b"\0"))
                at += len(data)
    finally:
        os.close(file)


def describe(path):
    """All that can be seen of a file, but its time of last access."""
    info = os.lstat(path)
    seen = [info.st_ino, oct(info.st_mode), info.st_nlink, info.st_uid, info.st_gid, info.st_size, info.st_blocks,
            info.st_rdev, info.st_mtime_ns, info.st_ctime_ns]
    for name in sorted(os.listxattr(path, follow_symlinks=False)):
        value = os.getxattr(path, name, follow_symlinks=False)
        seen.append((name, hashlib.sha1(value).hexdigest()))
    if stat.S_ISREG(info.st_mode):
        seen.append(content(path))
    elif stat.S_ISLNK(info.st_mode):
        seen.append(os.readlink(path))
    return seen


def picture(options):
    """The whole tree, and the subvolumes."""
    seen = {}

    def failed(error):
        raise error
    top = options.mountpoint
    for folder, _, names in os.walk(top, onerror=failed):
        seen[folder] = describe(folder)
        for name in names:
            path = os.path.join(folder, name)
            seen[path] = describe(path)
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            if os.path.islink(path):
                seen[path] = describe(path)
    # What is being deleted may be gone at any time.
    for one in oxfsctl.infos(top):
        if not one.state & 2:
            seen[f"subvolume {one.id}"] = one._replace(generation=0, dropped=0)
    seen["label"] = oxfsctl.label(top)
    return seen


def compare(before, after):
    for path in sorted(set(before) | set(after)):
        if before.get(path) != after.get(path):
            raise Wrong(f"{path}: before the mount {before.get(path)}, after it {after.get(path)}")


def check(options):
    done = subprocess.run(["fsck.oxfs", "-n", options.device], capture_output=True, text=True, check=False)
    if done.returncode < 0 or done.returncode > 8 or "panicked" in done.stderr:
        raise Wrong(f"fsck: {done.returncode}\n{done.stdout}{done.stderr}")
    if done.returncode and not options.damaged:
        raise Wrong(f"not clean:\n{done.stdout}{done.stderr}")


def fuzz(options):
    """Returns the outcomes."""
    if not mount(options):
        return collections.Counter()
    if not options.damaged:
        fuzzops.set_up(options.mountpoint)
    outcomes = run_workers(options)
    swap_off()
    if options.damaged:
        unmount(options)
        check(options)
        return outcomes
    # Somebody may have frozen it when somebody else wanted it writable again.
    fuzzlib.libc.mount(b"none", os.fsencode(options.mountpoint), None, fuzzops.REMOUNT, b"")
    os.sync()
    before = picture(options)
    unmount(options)
    check(options)
    mount(options)
    compare(before, picture(options))
    unmount(options)
    check(options)
    return outcomes


def main():
    options = parse()
    try:
        outcomes = fuzz(options)
    except (Wrong, OSError, subprocess.CalledProcessError) as why:
        print(f"WRONG seed {options.seed}, {options.workers} workers: {why}")
        sys.exit(1)
    total = sum(outcomes.values())
    succeeded = sum(times for key, times in outcomes.items() if key.endswith(" OK"))
    never = [name for name in fuzzlib.OPERATIONS if not outcomes[name + " OK"]]
    if options.verbose:
        print(sorted(outcomes.items()))
    print(f"operations: {total} succeeded: {succeeded} never: {' '.join(never) or '-'}")


main()
