#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Fills anonymous memory with a pattern that is different in every page, has it swapped out, and
compares every byte. Prints the number of wrong pages; the exit status is 1 if there are any.
"""
import argparse
import ctypes
import mmap
import os
import random
import sys
import time

PAGE, HUGE = 4096, 2 << 20
MADV_PAGEOUT = 21
MARKER = b"oxfs: this page was swapped out\n"
# Pages that are filled and compared at once.
MANY = 64


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mib", type=int)
    parser.add_argument("-o", "--out", action="store_true", help="page it out after every fill")
    parser.add_argument("-s", "--skip", type=int, default=0,
                        help="page it out from this byte on (of an area aligned to 2 MiB)")
    parser.add_argument("-H", "--huge", action="store_true", help="in huge pages")
    parser.add_argument("-m", "--marker", action="store_true", help="fill it with a marker")
    parser.add_argument("-r", "--rounds", type=int, default=1)
    parser.add_argument("-t", "--seconds", type=float, default=0, help="more rounds for so long")
    parser.add_argument("-S", "--seed", type=int, default=1)
    parser.add_argument("-w", "--wait", help="after the first fill (and page out), make this file "
                        "and wait until it is gone")
    return parser.parse_args()


class Memory:
    """An area that is aligned to 2 MiB, and what it must hold."""

    def __init__(self, options):
        self.options = options
        self.pages = (options.mib << 20) // PAGE
        self.map = mmap.mmap(-1, self.pages * PAGE + HUGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        self.start = -address % HUGE
        if options.huge:
            self.map.madvise(mmap.MADV_HUGEPAGE)
        self.noise = memoryview(random.Random(options.seed).randbytes(2 << 20))

    def content(self, page, count, turn):
        """Of `count` pages: the page's number, the round, and noise from another place for each."""
        if self.options.marker:
            return MARKER * (count * PAGE // len(MARKER))
        parts = []
        for number in range(page, page + count):
            at = (number * 4099 + turn * 57) % (len(self.noise) - PAGE)
            parts.append(number.to_bytes(6, "little") + turn.to_bytes(2, "little"))
            parts.append(self.noise[at:at + PAGE - 8])
        return b"".join(parts)

    def chunks(self):
        for page in range(0, self.pages, MANY):
            at = self.start + page * PAGE
            yield page, at, min(MANY, self.pages - page)

    def fill(self, turn):
        for page, at, count in self.chunks():
            self.map[at:at + count * PAGE] = self.content(page, count, turn)

    def page_out(self):
        skip = self.options.skip
        self.map.madvise(MADV_PAGEOUT, self.start + skip, self.pages * PAGE - skip)

    def wrong(self, turn):
        found = 0
        for page, at, count in self.chunks():
            content = self.content(page, count, turn)
            seen = self.map[at:at + count * PAGE]
            if seen == content:
                continue
            for i in range(0, count * PAGE, PAGE):
                if seen[i:i + PAGE] != content[i:i + PAGE]:
                    found += 1
        return found


def wait(name):
    with open(name, "w", encoding="ascii"):
        pass
    while os.path.exists(name):
        time.sleep(0.05)


def main():
    options = parse()
    memory = Memory(options)
    end = time.monotonic() + options.seconds
    wrong = turn = 0
    while turn < options.rounds or time.monotonic() < end:
        memory.fill(turn)
        if options.out:
            memory.page_out()
        if options.wait and turn == 0:
            wait(options.wait)
        wrong += memory.wrong(turn)
        turn += 1
    print(wrong)
    sys.exit(wrong != 0)


main()
