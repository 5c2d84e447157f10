#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What dm-log-writes recorded, played back: the device as it was at each point where the filesystem
had made something durable, and at points between, where any of the writes under way are done.

  replay.py work FOLDER DEVICE SECONDS SEED  changes files; marks in the log what fsync acknowledged
  replay.py play LOG DEVICE FOLDER SEED      replays; prints what is wrong, and the sum. Of all points
                                             POINTS (environment) are looked at, chosen by the seed.

The files are in a subvolume. A file's name says what must be in it, so that any state can be judged:
NAME.SEED.BLOCKS. A file is marked when it is durable under that name, and before it is deleted; a
snapshot likewise, and has exactly the files of its moment. Beside them are swapfiles that come and
go, changes that nobody waits for, and a database that commits often.
"""
import fcntl
import hashlib
import os
import random
import shutil
import sqlite3
import struct
import subprocess
import sys
import time

import oxfsctl

BLOCK = 4096
FICLONE = 0x40049409
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
POINTS = int(os.environ.get("POINTS", "400"))


def content(seed, blocks):
    return b"".join(hashlib.blake2b(b"%d.%d" % (seed, index)).digest() * (BLOCK // 64)
                    for index in range(blocks))


def row(number):
    return content(number, 1)[:number * 37 % 3000]


class Work:
    def __init__(self, folder, device, seed):
        self.folder, self.device, self.random = folder, device, random.Random(seed)
        self.files, self.names, self.snapshots, self.turn, self.rows = os.path.join(folder, "sub"), [], [], 0, 0
        oxfsctl.create(self.files)
        self.directory = os.open(self.files, os.O_RDONLY)
        self.swap = self.path("swap")
        with open(self.swap, "wb") as file:
            file.write(bytes(4 << 20))
        os.chmod(self.swap, 0o600)
        subprocess.run(["mkswap", "-q", self.swap], check=True)
        self.database = sqlite3.connect(os.path.join(folder, "db"), isolation_level=None)
        self.database.executescript("PRAGMA synchronous=EXTRA; CREATE TABLE t (n INTEGER PRIMARY KEY, b BLOB)")
        os.sync()
        self.mark("begin")

    def mark(self, text):
        subprocess.run(["dmsetup", "message", self.device, "0", "mark", text], check=True)

    def path(self, name):
        return os.path.join(self.files, name)

    def reflink(self, name, source):
        """A new file that shares all blocks with another."""
        with open(self.path(name), "wb") as file, open(self.path(source), "rb") as other:
            fcntl.ioctl(file, FICLONE, other.fileno())
        return self.path(name)

    def create(self):
        seed, blocks = self.random.getrandbits(30), self.random.randint(1, 60)
        name = f"file{self.turn}.{seed}.{blocks}"
        with open(self.path("new"), "wb") as file:
            file.write(content(seed, blocks))
            file.flush()
            os.fsync(file.fileno())
        os.rename(self.path("new"), self.path(name))
        os.fsync(self.directory)
        self.names.append(name)
        self.mark("have:" + name)

    def unlink(self):
        name = self.names.pop(self.random.randrange(len(self.names)))
        self.mark("drop:" + name)
        os.unlink(self.path(name))

    def copy(self):
        """Of which then a part is overwritten: the other keeps what it has."""
        with open(self.reflink("copy", self.random.choice(self.names)), "r+b") as file:
            file.write(os.urandom(5000))
            file.flush()
            os.fdatasync(file.fileno())
        os.unlink(self.path("copy"))

    def swap_on(self):
        """Of a shared file, which a snapshot may get while it is active."""
        other = self.reflink(f"swap{self.turn}", "swap")
        os.chmod(other, 0o600)
        subprocess.run(["swapon", other], check=True)
        if self.random.random() < 0.3:
            self.snapshot()
        subprocess.run(["swapoff", other], check=True)
        os.unlink(other)

    def snapshot(self):
        name = f"snap{self.turn}"
        oxfsctl.create(os.path.join(self.folder, name), self.files, self.random.randrange(2))
        self.snapshots.append(name)
        self.mark("snap:" + name)
        if len(self.snapshots) > 3:
            name = self.snapshots.pop(self.random.randrange(len(self.snapshots)))
            self.mark("unsnap:" + name)
            oxfsctl.delete(os.path.join(self.folder, name))

    def commit(self):
        """Some transactions of the database, each of which is acknowledged; it changes its kind of journal."""
        kind = self.random.choice(["wal", "delete", "truncate"])
        self.database.execute(f"PRAGMA journal_mode={kind}").fetchall()
        for _ in range(self.random.randint(1, 4)):
            self.rows += 1
            self.database.execute("INSERT INTO t VALUES (?, ?)", (self.rows, row(self.rows)))
            self.mark(f"row:{self.rows}")

    def noise(self):
        with open(os.path.join(self.folder, f"noise{self.turn % 7}"), "ab") as file:
            file.write(os.urandom(self.random.randrange(200000)))
            file.truncate(self.random.randrange(200000))

    def go(self, seconds):
        steps = [self.create] * 8 + [self.unlink, self.copy, self.swap_on, self.noise, self.commit] * 3 + [self.snapshot]
        end = time.monotonic() + seconds
        while time.monotonic() < end or self.turn < 60:
            self.turn += 1
            (self.random.choice(steps) if self.names else self.create)()
        self.database.close()
        print(f"{self.turn} changes, {len(self.names)} files, {self.rows} rows, snapshots: {self.snapshots}")


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
        self.device = None
        self.have, self.snapshots, self.rows = set(), {}, 0
        self.points, self.mounts, self.errors = 0, 0, 0
        self.begun, self.share = False, 1.0

    def apply(self, entry):
        flags, at, data = entry
        if flags & DISCARD:
            # Reads as anything afterwards.
            data = b"\xdd" * data
        if data:
            if self.device is None:
                self.device = os.open(self.name, os.O_RDWR)
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
        # Not every kernel mounts what somebody has open for writing.
        if self.device is not None:
            os.close(self.device)
            self.device = None
        mount = subprocess.run(["mount", "-t", "oxfs", "-o", "ro", self.name, self.folder],
                               capture_output=True, text=True, check=False)
        if mount.returncode:
            self.wrong(where, mount.stderr)
            return
        self.judge_files(where, "sub", self.have, False)
        for name, files in self.snapshots.items():
            self.judge_files(where, name, files, True)
        self.judge_rows(where)
        subprocess.run(["umount", self.folder], check=True)

    def judge_files(self, where, folder, names, exactly):
        for name in names:
            seed, blocks = (int(part) for part in name.split(".")[1:])
            try:
                with open(os.path.join(self.folder, folder, name), "rb") as file:
                    if file.read() != content(seed, blocks):
                        self.wrong(where, f"{folder}/{name} is not what it was")
            except OSError as error:
                self.wrong(where, f"{folder}/{name}: {error}")
        if exactly:
            found = {name for name in os.listdir(os.path.join(self.folder, folder)) if name.startswith("file")}
            if found != names:
                self.wrong(where, f"{folder} has other files than at its moment: {sorted(found ^ names)}")

    def judge_rows(self, where):
        """Every row that was committed, and at most the one that was about to be."""
        shutil.rmtree("/tmp/db", ignore_errors=True)
        os.mkdir("/tmp/db")
        for name in os.listdir(self.folder):
            if name.startswith("db"):
                shutil.copy(os.path.join(self.folder, name), "/tmp/db")
        try:
            database = sqlite3.connect("/tmp/db/db")
            verdict = database.execute("PRAGMA integrity_check").fetchone()[0]
            found = database.execute("SELECT n, b FROM t ORDER BY n").fetchall()
            database.close()
        except sqlite3.Error as error:
            self.wrong(where, f"the database: {error}")
            return
        if verdict != "ok":
            self.wrong(where, f"the database: {verdict}")
        if len(found) not in (self.rows, self.rows + 1) or \
                any((n, b) != (at + 1, row(at + 1)) for at, (n, b) in enumerate(found)):
            self.wrong(where, f"the database has {len(found)} rows, {self.rows} were committed")

    def wrong(self, where, text):
        self.errors += 1
        print(f"WRONG at {where}: {text}", flush=True)

    def marked(self, text):
        kind, _, name = text.partition(":")
        if kind == "have":
            self.have.add(name)
        elif kind == "drop":
            self.have.discard(name)
        elif kind == "snap":
            self.snapshots[name] = set(self.have)
        elif kind == "unsnap":
            del self.snapshots[name]
        elif kind == "row":
            self.rows = int(name)
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
        print(f"points: {self.points} mounts: {self.mounts} of: {2 * ends} files: {len(self.have)} rows: {self.rows} wrong: {self.errors}")


if sys.argv[1] == "work":
    Work(sys.argv[2], sys.argv[3], int(sys.argv[5])).go(int(sys.argv[4]))
else:
    Player(sys.argv[3], sys.argv[4], int(sys.argv[5])).play(sys.argv[2])
