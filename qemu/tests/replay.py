#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What dm-log-writes recorded, played back: the device as it was at each point where the filesystem
had made something durable, and at points between, where any of the writes under way are done.

  replay.py work FOLDER DEVICE SECONDS     changes files; marks in the log what fsync acknowledged
  replay.py play LOG DEVICE FOLDER SEED    replays; prints what is wrong, and the sum. Of all points
                                           some hundreds are looked at, chosen by the seed.

A file's name says what must be in it, so that any state can be judged: NAME.SEED.BLOCKS. A file is
marked when it is durable under that name, and before it is renamed or deleted.
"""
import fcntl
import hashlib
import os
import random
import struct
import subprocess
import sys
import time

BLOCK = 4096
FICLONE = 0x40049409
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
POINTS = 400


def content(seed, blocks):
    return b"".join(hashlib.blake2b(b"%d.%d" % (seed, index)).digest() * (BLOCK // 64)
                    for index in range(blocks))


def work(folder, device, seconds):
    def mark(text):
        subprocess.run(["dmsetup", "message", device, "0", "mark", text], check=True)

    rng, names = random.Random(1), []
    directory = os.open(folder, os.O_RDONLY)
    swap = os.path.join(folder, "swap")
    with open(swap, "wb") as file:
        file.write(bytes(4 << 20))
    os.chmod(swap, 0o600)
    subprocess.run(["mkswap", "-q", swap], check=True)
    mark("begin")
    end, turn = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        turn += 1
        choice = rng.random()
        if choice < 0.45 or not names:
            seed, blocks = rng.getrandbits(30), rng.randint(1, 60)
            name = f"file{turn}.{seed}.{blocks}"
            with open(os.path.join(folder, "new"), "wb") as file:
                file.write(content(seed, blocks))
                file.flush()
                os.fsync(file.fileno())
            os.rename(os.path.join(folder, "new"), os.path.join(folder, name))
            os.fsync(directory)
            names.append(name)
            mark("have:" + name)
        elif choice < 0.6:
            name = names.pop(rng.randrange(len(names)))
            mark("drop:" + name)
            os.unlink(os.path.join(folder, name))
        elif choice < 0.75:
            # A copy, of which then a part is overwritten: the other keeps what it has.
            name = rng.choice(names)
            copy = os.path.join(folder, "copy")
            with open(copy, "wb") as file, open(os.path.join(folder, name), "rb") as source:
                fcntl.ioctl(file, FICLONE, source.fileno())
            with open(copy, "r+b") as file:
                file.write(os.urandom(5000))
                file.flush()
                os.fdatasync(file.fileno())
        elif choice < 0.85:
            other = os.path.join(folder, f"swap{turn}")
            with open(other, "wb") as file, open(swap, "rb") as source:
                fcntl.ioctl(file, FICLONE, source.fileno())
            os.chmod(other, 0o600)
            subprocess.run(["swapon", other], check=True)
            subprocess.run(["swapoff", other], check=True)
            os.unlink(other)
        else:
            with open(os.path.join(folder, f"noise{turn % 7}"), "ab") as file:
                file.write(os.urandom(rng.randrange(200000)))
                file.truncate(rng.randrange(200000))
    print(f"{turn} changes, {len(names)} files")


def entries(log):
    """(flags, sector, data or mark), in the order in which they became durable."""
    with open(log, "rb") as file:
        magic, version, count, size = struct.unpack("<QQQI", file.read(28))
        assert magic == 0x6A736677736872 and version == 1, "no log"
        at = size
        for _ in range(count):
            file.seek(at)
            sector, sectors, flags, length = struct.unpack("<QQQQ", file.read(32))
            if flags & MARK:
                yield flags, 0, file.read(length).rstrip(b"\0").decode()
                at += size
                continue
            at += size
            data = sectors * size
            if not flags & DISCARD:
                file.seek(at)
                data = file.read(sectors * size)
                at += sectors * size
            yield flags, sector * size, data


class Player:
    def __init__(self, device, folder, seed):
        self.name, self.folder, self.random = device, folder, random.Random(seed)
        self.device = os.open(device, os.O_RDWR)
        self.have, self.points, self.mounts, self.errors = set(), 0, 0, 0
        self.begun, self.share = False, 1.0

    def apply(self, entry):
        flags, at, data = entry
        if flags & DISCARD:
            # Reads as anything afterwards.
            data = b"\xdd" * data
        if data:
            os.pwrite(self.device, data, at)

    def judge(self, where):
        """The device as it is must be clean and have every file that was acknowledged."""
        self.points += 1
        check = subprocess.run(["fsck.oxfs", "-n", self.name], capture_output=True, text=True, check=False)
        if check.returncode:
            self.wrong(where, check.stdout + check.stderr)
        if self.points % 3:
            return
        self.mounts += 1
        mount = subprocess.run(["mount", "-t", "oxfs", "-o", "ro", self.name, self.folder],
                               capture_output=True, text=True, check=False)
        if mount.returncode:
            self.wrong(where, mount.stderr)
            return
        for name in self.have:
            seed, blocks = (int(part) for part in name.split(".")[1:])
            try:
                with open(os.path.join(self.folder, name), "rb") as file:
                    if file.read() != content(seed, blocks):
                        self.wrong(where, f"{name} is not what it was")
            except OSError as error:
                self.wrong(where, f"{name}: {error}")
        subprocess.run(["umount", self.folder], check=True)

    def wrong(self, where, text):
        self.errors += 1
        print(f"WRONG at {where}: {text}", flush=True)

    def marked(self, text):
        kind, _, name = text.partition(":")
        if kind == "have":
            self.have.add(name)
        elif kind == "drop":
            self.have.discard(name)
        elif kind == "begin":
            self.begun = True

    def chosen(self):
        return self.begun and self.random.random() < self.share

    def play(self, log):
        ends = sum(1 for flags, _, _ in entries(log) if flags & (FLUSH | FUA))
        self.share = POINTS / 2 / max(ends, 1)
        batch = []
        for number, entry in enumerate(entries(log)):
            flags, _, data = entry
            if flags & MARK:
                self.marked(data)
                continue
            if not flags & (FLUSH | FUA):
                batch.append(entry)
                continue
            if batch and self.chosen():
                # The power fails before the flush: some of the writes are done.
                done = self.random.sample(range(len(batch)), self.random.randint(0, len(batch)))
                for index in sorted(done):
                    self.apply(batch[index])
                self.judge(f"entry {number}, before")
            for one in batch:
                self.apply(one)
            batch = []
            self.apply(entry)
            if self.chosen():
                self.judge(f"entry {number}")
        print(f"points: {self.points} mounts: {self.mounts} of: {2 * ends} files: {len(self.have)} wrong: {self.errors}")


if sys.argv[1] == "work":
    work(sys.argv[2], sys.argv[3], int(sys.argv[4]))
else:
    Player(sys.argv[3], sys.argv[4], int(sys.argv[5])).play(sys.argv[2])
