#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Changes an unmounted oxfs volume in ways that a test needs.

  oxfs-edit.py DEVICE set FIELD VALUE    in all copies of the super block, with right checksums
  oxfs-edit.py DEVICE damage super A|B|mirrors|all
  oxfs-edit.py DEVICE damage TREE        one byte of the root of forest, space, refs or swap
  oxfs-edit.py DEVICE damage nodes       one byte of every leaf of subvolume trees; prints how many
  oxfs-edit.py DEVICE nodes              prints block, tree and level of all nodes in use
  oxfs-edit.py DEVICE mutate SEED COUNT  so many fields anywhere in the trees, with right checksums;
                                         prints each
"""
import os
import random
import struct
import sys

BLOCK = 4096
SLOTS = (16, 1024)
FIELDS = {"version": (56, "<I"), "blocks": (64, "<Q"), "ro_compat": (96, "<Q"),
          "incompat": (104, "<Q"), "group_shift": (63, "<B"), "default_subvolume": (128, "<Q")}
TREES = {"forest": 144, "space": 168, "refs": 192, "swap": 216}
MAGIC = 4
# Of a node: its header, and the slots of leaves and of inner nodes (FORMAT.md).
TREE, LEVEL, HEADER, LEAF_SLOT, INNER_SLOT, KEY = 48, 49, 64, 22, 33, 17


def entry(value):
    for _ in range(8):
        value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return value


TABLE = [entry(i) for i in range(256)]


def checksum(block):
    """crc32c of all but itself."""
    crc = 0xFFFFFFFF
    for byte in block[4:]:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


class Volume:
    def __init__(self, path):
        self.fd = os.open(path, os.O_RDWR)
        self.size = os.lseek(self.fd, 0, os.SEEK_END) // BLOCK
        found = [self.read(at) for at in SLOTS]
        self.magic = found[0][MAGIC:MAGIC + 12]
        self.newest = max(found, key=lambda b: struct.unpack_from("<Q", b, 72)[0])

    def read(self, block):
        return bytearray(os.pread(self.fd, BLOCK, block * BLOCK))

    def write(self, block, data):
        os.pwrite(self.fd, data, block * BLOCK)

    def supers(self):
        """Places of the super block's copies: what says of itself that it belongs there."""
        places = list(SLOTS) + list(range(max(self.size - 4096, 0), self.size))
        for at in places:
            block = self.read(at)
            if block[MAGIC:MAGIC + 12] == self.magic and \
                    struct.unpack_from("<Q", block, 48)[0] == at:
                yield at, block

    def set(self, field, value):
        offset, form = FIELDS[field]
        for at, block in list(self.supers()):
            struct.pack_into(form, block, offset, int(value, 0))
            struct.pack_into("<I", block, 0, checksum(block))
            self.write(at, block)

    def damage_super(self, which):
        for at, block in list(self.supers()):
            name = {SLOTS[0]: "A", SLOTS[1]: "B"}.get(at, "mirrors")
            if which in ("all", name):
                block[200] ^= 0x10
                self.write(at, block)

    def damage_tree(self, tree):
        at = struct.unpack_from("<Q", self.newest, TREES[tree])[0]
        block = self.read(at)
        block[2000] ^= 0x10
        self.write(at, block)
        print(at)

    def damage_nodes(self):
        """Every leaf whose tree is the one of the newest subvolume: told by the node's head."""
        forest = self.read(struct.unpack_from("<Q", self.newest, TREES["forest"])[0])
        magic, uuid, forest_kind = forest[4:8], forest[8:24], forest[48]
        known = {self.read(struct.unpack_from("<Q", self.newest, at)[0])[48]
                 for at in TREES.values()} | {forest_kind}
        count = 0
        for at in range(min(self.size, 8192)):
            block = self.read(at)
            if block[4:8] == magic and block[8:24] == uuid and block[48] not in known and \
                    block[49] == 0:
                block[3000] ^= 0x10
                self.write(at, block)
                count += 1
        print(count)

    def nodes(self):
        """Those in use: by block."""
        found, todo = {}, [struct.unpack_from("<Q", self.newest, at)[0] for at in TREES.values()]
        forest = self.read(todo[0])[TREE]
        while todo:
            at = todo.pop()
            if at == 0 or at in found:
                continue
            found[at] = node = self.read(at)
            for start, length in slots(node):
                # Children, and what the items of the forest's leaves begin with.
                if node[LEVEL] or node[TREE] == forest:
                    todo.append(struct.unpack_from("<Q", node, start + (KEY if node[LEVEL] else 0))[0])
        return found

    def mutate(self, seed, count):
        rng = random.Random(seed)
        nodes = self.nodes()
        for _ in range(count):
            at = rng.choice(sorted(nodes))
            node = nodes[at]
            known = list(slots(node))
            kind = rng.randrange(12)
            if kind == 0 or not known:
                start, length = TREE, 6
            else:
                index = rng.randrange(len(known))
                start, length = known[index]
                if kind <= 3 and not node[LEVEL]:
                    start, length = HEADER + LEAF_SLOT * index, LEAF_SLOT
            width = rng.choice([width for width in (1, 2, 4, 8) if width <= max(length, 1)])
            place = start + rng.randrange(max(length // width, 1)) * width
            old = int.from_bytes(node[place:place + width], "little")
            new = rng.choice([0, (1 << 8 * width) - 1, old + 1, old - 1, old ^ 1 << rng.randrange(8 * width),
                              rng.getrandbits(8 * width), old * 2]) & (1 << 8 * width) - 1
            node[place:place + width] = new.to_bytes(width, "little")
            struct.pack_into("<I", node, 0, checksum(node))
            self.write(at, node)
            print(f"block {at}: tree {node[TREE]} level {node[LEVEL]}: {place}, {width} bytes: {old:#x} -> {new:#x}")


def slots(node):
    """Where values of a leaf, or the slots of an inner node, begin, and how long they are."""
    most = (BLOCK - HEADER) // (INNER_SLOT if node[LEVEL] else LEAF_SLOT)
    for index in range(min(struct.unpack_from("<H", node, LEVEL + 1)[0], most)):
        if node[LEVEL]:
            yield HEADER + INNER_SLOT * index, INNER_SLOT
        else:
            yield struct.unpack_from("<HH", node, HEADER + LEAF_SLOT * index + KEY + 1)


def main():
    volume = Volume(sys.argv[1])
    old = {checksum(block) == struct.unpack_from("<I", block, 0)[0] for _, block in volume.supers()}
    if old != {True}:
        sys.exit("the checksums of the super blocks are not as this program computes them")
    match sys.argv[2:]:
        case ["set", field, value]:
            volume.set(field, value)
        case ["damage", "super", which]:
            volume.damage_super(which)
        case ["damage", "nodes"]:
            volume.damage_nodes()
        case ["nodes"]:
            for at, node in volume.nodes().items():
                print(at, node[TREE], node[LEVEL])
        case ["mutate", seed, count]:
            volume.mutate(int(seed), int(count))
        case ["damage", tree] if tree in TREES:
            volume.damage_tree(tree)
        case _:
            sys.exit(__doc__)
    os.fsync(volume.fd)


main()
