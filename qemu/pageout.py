#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
#
# Pages out a region of memory and touches it again.
#
#   pageout.py NAME MIB      one run: a line of NAME and figures
#   pageout.py --table FILE  the medians of the runs in FILE, by name, as ratios to `raw`

import mmap
import os
import statistics
import sys
import time

MADV_PAGEOUT = 21
COUNTERS = ("pswpout", "thp_swpout", "thp_swpout_fallback")
GROUP = "/sys/fs/cgroup/pageout"


def vmstat():
    with open("/proc/vmstat") as lines:
        return dict(line.split() for line in lines)


def counters():
    values = vmstat()
    with open("/sys/block/vda/stat") as stat:
        fields = stat.read().split()
    return [int(values.get(name, 0)) for name in COUNTERS] + [int(fields[0]), int(fields[4])]


def enter_group():
    if not os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        os.system("mount -t cgroup2 none /sys/fs/cgroup")
    with open("/sys/fs/cgroup/cgroup.subtree_control", "w") as control:
        control.write("+memory")
    os.makedirs(GROUP, exist_ok=True)
    with open(GROUP + "/cgroup.procs", "w") as procs:
        procs.write(str(os.getpid()))


def drop_swap_cache():
    """Pages that were written stay in the swap cache until somebody wants the memory."""
    for _ in range(20):
        if int(vmstat()["nr_swapcached"]) < 256:
            return
        try:
            with open(GROUP + "/memory.reclaim", "w") as reclaim:
                reclaim.write("64M swappiness=200")
        except OSError:
            time.sleep(0.05)
    sys.exit(f"{vmstat()['nr_swapcached']} pages stay in the swap cache")


def run(name, mib):
    enter_group()
    size = mib << 20
    memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    pattern = b"".join(i.to_bytes(8, "little") for i in range(512 * 64))
    for at in range(0, size, len(pattern)):
        memory[at : at + len(pattern)] = pattern
    before = counters()
    start = time.monotonic()
    memory.madvise(MADV_PAGEOUT)
    while int(vmstat()["nr_writeback"]) > 0:
        time.sleep(0.001)
    out = time.monotonic() - start
    middle = counters()
    if middle[0] - before[0] < size // 4096 * 9 // 10:
        sys.exit(f"{name}: only {middle[0] - before[0]} pages were paged out")
    drop_swap_cache()
    middle[3] = counters()[3]
    start = time.monotonic()
    touched = memory[::4096]
    back = time.monotonic() - start
    after = counters()
    expected = bytes(pattern[0 : len(pattern) : 4096]) * (size // len(pattern))
    if touched != expected:
        sys.exit(f"{name}: wrong content after swap-in")
    writes, reads = middle[4] - before[4], after[3] - middle[3]
    whole, split = middle[1] - before[1], middle[2] - before[2]
    print(name, out, back, writes, reads, whole, split)


def ratio(runs, name, column):
    """The median of raw's time by this one's, round by round: what the machine does beside it
    changes more slowly than the rounds."""
    return statistics.median(r[column] / x[column] for r, x in zip(runs["raw"], runs[name]))


def table(path):
    runs = {}
    with open(path) as lines:
        for line in lines:
            name, *figures = line.split()
            runs.setdefault(name, []).append([float(f) for f in figures])
    medians = {name: [statistics.median(c) for c in zip(*rows)] for name, rows in runs.items()}
    print(f"{'':6} {'out s':>8} {'raw/x':>6} {'writes':>7} {'in s':>8} {'raw/x':>6} {'reads':>7}", end="")
    print(f" {'huge pages whole':>17} {'split':>6}")
    for name, (out, back, writes, reads, whole, split) in medians.items():
        print(f"{name:6} {out:8.3f} {ratio(runs, name, 0):6.2f} {writes:7.0f} ", end="")
        print(f"{back:8.3f} {ratio(runs, name, 1):6.2f} {reads:7.0f} {whole:17.0f} {split:6.0f}")


if sys.argv[1] == "--table":
    table(sys.argv[2])
else:
    run(sys.argv[1], int(sys.argv[2]))
