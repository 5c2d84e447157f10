#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""In a guest that will be killed: load.py FOLDER JOURNAL SEED. First checks what FOLDER has after
the last cut against the journal, a raw disk of its own; then changes files until the end comes.

Each worker writes into the journal what it is about to do to a file, does it, calls fsync, and
writes that it is done. So after a cut a file has exactly what was acknowledged, except for the one
thing that was under way, which may have happened, not happened or, where a file is overwritten or
grows, have happened in part. Whatever fsync had acknowledged must be there.

A file's content is a list of seeds, one for each block, and its size.
"""
import fcntl
import hashlib
import json
import mmap
import os
import random
import subprocess
import sys
import threading
import zlib

BLOCK = 4096
WORKERS = 3
FILES = 12
REGION = 256 << 20
FICLONE = 0x40049409
MAX_BLOCKS = 48


def block(seed):
    return hashlib.blake2b(seed.to_bytes(8, "little")).digest() * (BLOCK // 64)


def content(state):
    return b"".join(block(seed) for seed in state["seeds"])[:state["size"]]


class Journal:
    """One worker's part of the raw disk: records of a block each, checked by a crc."""

    def __init__(self, path, worker):
        self.file = os.open(path, os.O_RDWR | os.O_DIRECT | os.O_SYNC)
        self.start = worker * REGION
        self.next = 0
        self.page = mmap.mmap(-1, BLOCK)

    def read(self):
        """The records of the last session, in order."""
        records = []
        for at in range(0, REGION, BLOCK):
            os.preadv(self.file, [self.page], self.start + at)
            checksum, length = int.from_bytes(self.page[:4], "little"), int.from_bytes(self.page[4:8], "little")
            data = self.page[8:8 + min(length, BLOCK - 8)]
            if not length or zlib.crc32(data) != checksum:
                break
            record = json.loads(data)
            if records and record["session"] != records[0]["session"]:
                break
            records.append(record)
        return records

    def write(self, record):
        data = json.dumps(record, separators=(",", ":")).encode()
        assert len(data) <= BLOCK - 8
        self.page[:] = bytes(BLOCK)
        self.page[:8] = zlib.crc32(data).to_bytes(4, "little") + len(data).to_bytes(4, "little")
        self.page[8:8 + len(data)] = data
        if self.next == REGION:
            return False
        os.pwrite(self.file, self.page, self.start + self.next)
        self.next += BLOCK
        return True


def wrong(path, text):
    print(f"WRONG {path}: {text}", flush=True)
    return 1


def read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def seed_of(data, candidates):
    """Which of these seeds a block, or the beginning of one, was made from."""
    return next((seed for seed in candidates if block(seed)[:len(data)] == data), None)


def check_partial(path, data, old, new):
    """Each block is the old or the new one, and the size between both."""
    if data is None:
        return wrong(path, "is missing")
    if not old["size"] <= len(data) <= new["size"]:
        return wrong(path, f"has {len(data)} bytes, not {old['size']} to {new['size']}")
    for index in range(0, (len(data) + BLOCK - 1) // BLOCK):
        found = data[index * BLOCK:(index + 1) * BLOCK]
        allowed = [state["seeds"][index] for state in (old, new) if index < len(state["seeds"])]
        if seed_of(found, allowed) is None:
            return wrong(path, f"block {index} is neither old nor new, starts with {found[:16].hex()}")
    return 0


def check_file(path, data, states, partial):
    if partial:
        return check_partial(path, data, *states)
    wanted = [None if state is None else content(state) for state in states]
    if data in wanted:
        return 0
    sizes = [None if data is None else len(data) for data in wanted]
    return wrong(path, f"has {None if data is None else len(data)} bytes, expected {sizes}; not what was written")


def check(folder, records):
    """Compares the worker's folder with its journal; returns files' states, number of errors."""
    states, pending = {}, {}
    for record in records:
        name = record["name"]
        if record["kind"] == "intent":
            pending[name] = record
        else:
            states[name] = record["new"]
            pending.pop(name, None)
    errors = 0
    for name in set(states) | set(pending):
        path = os.path.join(folder, name)
        old = states.get(name)
        allowed, partial = [old], False
        if name in pending:
            allowed, partial = [old, pending[name]["new"]], pending[name]["partial"]
        errors += check_file(path, read(path), allowed, partial)
        if name in pending:
            # Whatever it is now, the next session begins without it.
            states[name] = None
            if os.path.exists(path):
                os.unlink(path)
    stray = {name for name in os.listdir(folder) if not name.startswith("tmp")} - set(states) - set(pending)
    if stray:
        errors += wrong(folder, f"has files that nobody made: {sorted(stray)}")
    return {name: state for name, state in states.items() if state}, errors


class Worker(threading.Thread):
    def __init__(self, folder, journal, states, session):
        super().__init__(daemon=True)
        self.folder, self.journal, self.states, self.session = folder, journal, states, session
        self.random = random.Random(session)
        self.directory = os.open(folder, os.O_RDONLY)
        for name, state in states.items():
            self.note("done", name, state)
        self.changes = 0

    def note(self, kind, name, new, partial=False):
        return self.journal.write({"session": self.session, "kind": kind, "name": name, "new": new,
                                   "partial": partial})

    def path(self, name):
        return os.path.join(self.folder, name)

    def new_state(self):
        seeds = [self.random.getrandbits(40) for _ in range(self.random.randint(1, MAX_BLOCKS))]
        return {"size": len(seeds) * BLOCK - self.random.randrange(BLOCK), "seeds": seeds}

    def replace(self, name):
        """All or nothing, as editors do it."""
        new = self.new_state()
        yield new, False
        with open(self.path("tmp"), "wb") as file:
            file.write(content(new))
            file.flush()
            os.fsync(file.fileno())
        os.rename(self.path("tmp"), self.path(name))
        os.fsync(self.directory)

    def overwrite(self, name):
        old = self.states[name]
        seeds = list(old["seeds"])
        for _ in range(self.random.randint(1, 8)):
            seeds[self.random.randrange(len(seeds))] = self.random.getrandbits(40)
        new = {"size": old["size"], "seeds": seeds}
        yield new, True
        file = os.open(self.path(name), os.O_RDWR)
        for index, seed in enumerate(seeds):
            if seed != old["seeds"][index]:
                data = block(seed)[:new["size"] - index * BLOCK]
                os.pwrite(file, data, index * BLOCK)
        (os.fsync if self.random.random() < 0.5 else os.fdatasync)(file)
        os.close(file)

    def append(self, name):
        old = self.states[name]
        size = old["size"] + self.random.randint(1, 6 * BLOCK)
        seeds = old["seeds"] + [self.random.getrandbits(40) for _ in range(8)]
        new = {"size": size, "seeds": seeds[:(size + BLOCK - 1) // BLOCK]}
        if len(new["seeds"]) > MAX_BLOCKS + 20:
            return
        yield new, True
        flags = os.O_WRONLY | os.O_APPEND | (os.O_DSYNC if self.random.random() < 0.3 else 0)
        file = os.open(self.path(name), flags)
        os.write(file, content(new)[old["size"]:])
        if not flags & os.O_DSYNC:
            os.fdatasync(file)
        os.close(file)

    def unlink(self, name):
        yield None, False
        os.unlink(self.path(name))
        os.fsync(self.directory)

    def clone(self, name):
        """Of another file, which must stay what it is."""
        source = self.random.choice(list(self.states))
        if source == name or self.states[source] is None:
            return
        yield self.states[source], False
        with open(self.path("tmp"), "wb") as file, open(self.path(source), "rb") as other:
            fcntl.ioctl(file, FICLONE, other.fileno())
            os.fsync(file.fileno())
        os.rename(self.path("tmp"), self.path(name))
        os.fsync(self.directory)

    def step(self):
        name = f"file{self.random.randrange(FILES)}"
        if self.states.get(name):
            choices = [self.replace, self.overwrite, self.overwrite, self.append, self.append,
                       self.clone, self.unlink]
        else:
            choices = [self.replace, self.clone] if any(self.states.values()) else [self.replace]
        change = self.random.choice(choices)(name)
        intended = next(change, None)
        if intended is None:
            return True
        if not self.note("intent", name, *intended):
            return False
        next(change, None)
        self.states[name] = intended[0]
        self.changes += 1
        return self.note("done", name, intended[0])

    def run(self):
        try:
            while self.step():
                pass
        except OSError as error:
            wrong(self.folder, error)
            raise


def swapper(folder, session):
    """Swapfiles that are cloned, activated, and given up."""
    rng = random.Random(session)
    first = os.path.join(folder, "swap0")
    with open(first, "wb") as file:
        file.write(bytes(8 << 20))
    os.chmod(first, 0o600)
    subprocess.run(["mkswap", "-q", first], check=True)
    while True:
        second = os.path.join(folder, f"swap{rng.randint(1, 3)}")
        with open(second, "wb") as file, open(first, "rb") as source:
            fcntl.ioctl(file, FICLONE, source.fileno())
        os.chmod(second, 0o600)
        subprocess.run(["swapon", second], check=True)
        subprocess.run(["swapoff", second], check=True)
        if rng.random() < 0.5:
            os.unlink(second)


def noise(folder, session):
    """Changes that nobody waits for."""
    rng = random.Random(session)
    while True:
        path = os.path.join(folder, f"noise{rng.randrange(30)}")
        choice = rng.random()
        if choice < 0.6:
            with open(path, "ab") as file:
                file.write(os.urandom(rng.randrange(1 << 18)))
                file.truncate(rng.randrange(1 << 19))
        elif choice < 0.8 and os.path.exists(path):
            os.unlink(path)
        elif choice < 0.9 and os.path.exists(path):
            os.rename(path, path + "x")
        else:
            os.makedirs(path + ".d/deep", exist_ok=True)
            os.removedirs(path + ".d/deep")
            os.makedirs(folder, exist_ok=True)


def forever(function, folder, session):
    try:
        function(folder, session)
    except Exception as error:  # pylint: disable=broad-except
        wrong(folder, repr(error))
        raise


def main():
    top, journal, session = sys.argv[1], sys.argv[2], int(sys.argv[3])
    errors, kept, workers = 0, 0, []
    folders = [os.path.join(top, f"worker{index}") for index in range(WORKERS)]
    for index, folder in enumerate(folders):
        log = Journal(journal, index)
        records = log.read()
        if not records:
            os.makedirs(folder, exist_ok=True)
        states, bad = check(folder, records)
        errors += bad
        kept += len(records)
        workers.append((folder, log, states))
    os.sync()
    print(f"checked {kept} records", flush=True)
    if errors:
        sys.exit(1)
    if session == 0:
        return
    workers = [Worker(folder, log, states, session * WORKERS + index)
               for index, (folder, log, states) in enumerate(workers)]
    for name, function in (("swap", swapper), ("noise", noise)):
        folder = os.path.join(top, name)
        subprocess.run(["rm", "-rf", folder], check=True)
        os.mkdir(folder)
        threading.Thread(target=forever, args=(function, folder, session), daemon=True).start()
    os.sync()
    for worker in workers:
        worker.start()
    print("under way", flush=True)
    for worker in workers:
        worker.join()
    print(f"ended by itself after {sum(worker.changes for worker in workers)} changes", flush=True)


main()
