#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Does single things to files by the plain system calls and says how they ended: OK, or the name
of the error. Programs for users check beforehand, fall back to other calls and translate errors;
a test wants to know what the kernel said.

A request is a line on standard input: the working folder, the operation, its arguments, separated
by tabs. The answer ends with a line that is only a full stop. Numbers may end in K, M or G. (A
server, because starting Python for each would take longer than all the rest in an emulated
processor. Nothing is kept open between two requests.)
"""
import array
import ctypes
import errno
import fcntl
import mmap
import os
import random
import signal
import struct
import subprocess
import sys

import oxfsctl

PAGE = 4096
MARKER = b"oxfs: this page was swapped out\n"
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
libc.renameat2.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]

FICLONE, FICLONERANGE, FIDEDUPERANGE = 0x40049409, 0x4020940D, 0xC0189436
FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR, FS_IOC_FIEMAP = 0x40086602, 0x401C5820, 0xC020660B
SYS_FILE_SETATTR, AT_FDCWD = 469, -100
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
KEEP_SIZE = 1
MODES = {
    "allocate": 0, "keep": KEEP_SIZE, "punch": 2 | KEEP_SIZE, "collapse": 8, "zero": 0x10,
    "insert": 0x20, "unshare": 0x40, "write-zeroes": 0x80,
}
EXTENT_FLAGS = {
    "unknown": 2, "delalloc": 4, "encoded": 8, "unwritten": 0x800, "shared": 0x2000, "last": 1,
}

opened = []


def number(text):
    units = {"K": 10, "M": 20, "G": 30}
    return int(text[:-1]) << units[text[-1]] if text[-1] in units else int(text, 0)


def open_file(name, flags=os.O_RDONLY):
    opened.append(os.open(name, flags, 0o644))
    return opened[-1]


def checked(result):
    """The result of a function of libc."""
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def page(fill=b"w"):
    """Aligned, for direct I/O."""
    memory = mmap.mmap(-1, PAGE)
    memory.write(fill * PAGE)
    return memory


def clone(source, target):
    fcntl.ioctl(open_file(target, os.O_RDWR | os.O_CREAT), FICLONE, open_file(source))


def clonerange(source, target, offset, length, target_offset):
    data = struct.pack("qQQQ", open_file(source), number(offset), number(length),
                       number(target_offset))
    fcntl.ioctl(open_file(target, os.O_RDWR | os.O_CREAT), FICLONERANGE, data)


def dedupe(source, target, length):
    """Two outcomes: of the call, and of the range."""
    target = open_file(target, os.O_RDWR)
    data = struct.pack("QQHHIqQQiI", 0, number(length), 1, 0, 0, target, 0, 0, 0, 0)
    data = fcntl.ioctl(open_file(source), FIDEDUPERANGE, data)
    status = struct.unpack("QQHHIqQQiI", data)[8]
    return "OK " + {0: "OK", 1: "DIFFERS"}.get(status) if status >= 0 else \
        "OK " + errno.errorcode[-status]


def copy(source, target, length):
    os.copy_file_range(open_file(source), open_file(target, os.O_RDWR | os.O_CREAT), number(length))


def fallocate(name, mode, offset, length):
    fd = open_file(name, os.O_RDWR | os.O_CREAT)
    checked(libc.fallocate(fd, MODES[mode], number(offset), number(length)))


def truncate(name, size):
    os.truncate(name, number(size))


def ftruncate(name, size):
    os.ftruncate(open_file(name, os.O_RDWR), number(size))


def open_truncate(name):
    open_file(name, os.O_WRONLY | os.O_TRUNC)


def write(name, offset):
    os.pwrite(open_file(name, os.O_RDWR), page(), number(offset))


def write_direct(name, offset):
    os.pwrite(open_file(name, os.O_RDWR | os.O_DIRECT), page(), number(offset))


def append(name):
    os.write(open_file(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT), page())


def splice(name):
    ends = os.pipe()
    opened.extend(ends)
    os.write(ends[1], page())
    os.splice(ends[0], open_file(name, os.O_WRONLY), PAGE, offset_dst=PAGE)


def read(name, offset):
    os.pread(open_file(name), PAGE, number(offset))


def read_nowait(name, offset):
    os.preadv(open_file(name), [page()], number(offset), os.RWF_NOWAIT)


def read_direct(name, offset):
    os.preadv(open_file(name, os.O_RDONLY | os.O_DIRECT), [page()], number(offset))


def seek(name, what, offset):
    """Where it got."""
    whence = {"data": os.SEEK_DATA, "hole": os.SEEK_HOLE}[what]
    return str(os.lseek(open_file(name), number(offset), whence))


def map_writable(name, kind):
    flags = {"shared": mmap.MAP_SHARED, "private": mmap.MAP_PRIVATE}[kind]
    mmap.mmap(open_file(name, os.O_RDWR), PAGE, flags).close()


def store(memory, offset):
    """The outcome of a store, made in a child that shares the mapping."""
    child = os.fork()
    if child == 0:
        memory[offset] = 1
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else "OK"


def old_map(name, *command):
    """Maps it shared, stores to the second and third page, runs the command, stores to the second
    page (touched) and the fourth (not touched): the two outcomes."""
    memory = mmap.mmap(open_file(name, os.O_RDWR), 4 * PAGE)
    memory[PAGE] = memory[2 * PAGE] = 7
    subprocess.run(command, check=True)
    return store(memory, PAGE) + " " + store(memory, 3 * PAGE)


def setflags(name, flags):
    fcntl.ioctl(open_file(name), FS_IOC_SETFLAGS, struct.pack("l", number(flags)))


def setxflags(name, flags, extent_size):
    data = struct.pack("IIIII8x", number(flags), number(extent_size), 0, 0, 0)
    fcntl.ioctl(open_file(name), FS_IOC_FSSETXATTR, data)


def file_setattr(name, flags, extent_size):
    data = struct.pack("QIIII", number(flags), number(extent_size), 0, 0, 0)
    checked(libc.syscall(SYS_FILE_SETATTR, AT_FDCWD, name.encode(), data, len(data), 0))


def swapon(name):
    checked(libc.swapon(name.encode(), 0))


def swapoff(name):
    checked(libc.swapoff(name.encode()))


def mount(device, folder, kind, options):
    """Options as mount(2) has them; `ro` and `remount` are flags there."""
    flags = {"ro": 1, "remount": 32}
    rest = [option for option in options.split(",") if option and option not in flags]
    bits = sum(flags.get(option, 0) for option in options.split(","))
    checked(libc.mount(device.encode(), folder.encode(), kind.encode(), ctypes.c_ulong(bits),
                       ",".join(rest).encode()))


def unmount(folder):
    checked(libc.umount2(folder.encode(), 0))


def cycles(device, folder, kind, times):
    """Mounts, changes something, unmounts."""
    for i in range(int(times)):
        mount(device, folder, kind, "")
        with open(f"{folder}/cycle{i % 10}", "w", encoding="ascii") as out:
            out.write(str(i))
        unmount(folder)


def rename_with(flags):
    return lambda old, new: checked(
        libc.renameat2(AT_FDCWD, old.encode(), AT_FDCWD, new.encode(), flags)) and None


def fill(name, mib, seed):
    """Writes content in which no two pages are the same."""
    fd = open_file(name, os.O_WRONLY | os.O_CREAT)
    noise = random.Random(int(seed)).randbytes(1 << 20)
    for part in range(int(mib)):
        at = part * (PAGE + 3)
        os.write(fd, noise[at:] + noise[:at])


def scatter(name, blocks):
    """Gives it all space that there is, then takes every second block away again, so many times:
    free space is single blocks."""
    fd = open_file(name, os.O_RDWR | os.O_CREAT)
    size, step = 0, 1 << 30
    while step >= PAGE:
        try:
            checked(libc.fallocate(fd, 0, size, step))
            size += step
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            step //= 2
    if size < 2 * PAGE * int(blocks):
        raise OSError(errno.ENOSPC, "")
    for block in range(int(blocks)):
        checked(libc.fallocate(fd, MODES["punch"], (2 * block + 1) * PAGE, PAGE))
    os.fsync(fd)


def rewrite(name, step):
    """Writes one block, and so at every `step` blocks."""
    fd = open_file(name, os.O_RDWR)
    content = b"r" * PAGE
    for offset in range(PAGE, os.fstat(fd).st_size, int(step) * PAGE):
        os.pwrite(fd, content, offset)
    os.fsync(fd)


def fiemap(name):
    """A line for each extent: file block, block, number of blocks, flags."""
    fd, start, lines = open_file(name), 0, []
    while True:
        data = array.array("B", struct.pack("QQIIII", start, (1 << 63) - 1 - start, 1, 0, 256, 0))
        data.extend(bytes(256 * 56))
        fcntl.ioctl(fd, FS_IOC_FIEMAP, data)
        for i in range(struct.unpack_from("I", data, 20)[0]):
            logical, physical, length, flags = struct.unpack_from("QQQ16xI", data, 32 + 56 * i)
            names = [name for name, flag in EXTENT_FLAGS.items() if flags & flag]
            lines.append(" ".join([str(n // PAGE) for n in (logical, physical, length)] + names))
            start = logical + length
            if flags & EXTENT_FLAGS["last"]:
                return "\n".join(lines)
        if struct.unpack_from("I", data, 20)[0] == 0:
            return "\n".join(lines)


def markers(name, *options):
    """How many pages of it hold what `swapmem.py --marker` fills memory with. The answer is the
    number of pages that begin with it."""
    fd = open_file(name, os.O_RDONLY | (os.O_DIRECT if "direct" in options else 0))
    memory, found, offset = mmap.mmap(-1, 1 << 20), 0, 0
    while got := os.preadv(fd, [memory], offset):
        part = memory[:got]
        if MARKER in part:
            found += sum(part.startswith(MARKER, at) for at in range(0, got, PAGE))
        offset += got
    return f"{found}"


def markers_mapped(name):
    with mmap.mmap(open_file(name), 0, prot=mmap.PROT_READ) as memory:
        return str(memory[:].count(MARKER) * len(MARKER) // PAGE)


def subvolume_list(path):
    """A line for each: id, path, and what is set."""
    bits = {1: "ro", 2: "dropping", 4: "default"}
    return "\n".join(" ".join([str(one.id), "/" + one.path]
                              + [name for bit, name in bits.items() if one.state & bit])
                     for one in oxfsctl.infos(path))


def subvolume_field(path, field):
    return str(getattr(oxfsctl.info(path), field))


def subvolume_dropping(path):
    """How many are being dropped."""
    return str(sum(one.state >> 1 & 1 for one in oxfsctl.infos(path)))


def snapshot(source, path, flags="0"):
    return str(oxfsctl.create(path, source, int(flags)))


def handle_path(mounted, text):
    """Where the file with this handle is, and its inode number."""
    opened.append(oxfsctl.open_handle(mounted, text))
    return f"{os.readlink(f'/proc/self/fd/{opened[-1]}')} {os.fstat(opened[-1]).st_ino}"


OPERATIONS = {
    "append": append, "clone": clone, "clonerange": clonerange, "copy": copy, "cycles": cycles,
    "dedupe": dedupe, "exchange": rename_with(EXCHANGE), "fallocate": fallocate, "fiemap": fiemap,
    "handle": oxfsctl.handle, "handle-path": handle_path, "label": oxfsctl.label,
    "set-default": oxfsctl.set_default, "snapshot": snapshot,
    "subvol-create": lambda path: str(oxfsctl.create(path)), "subvol-delete": oxfsctl.delete,
    "subvol-dropping": subvolume_dropping, "subvol-field": subvolume_field,
    "subvol-list": subvolume_list, "subvol-ro": oxfsctl.set_read_only,
    "file-setattr": file_setattr, "fill": fill, "ftruncate": ftruncate, "link": os.link,
    "map": map_writable, "markers": markers, "markers-mapped": markers_mapped, "mkdir": os.mkdir,
    "mount": mount, "old-map": old_map, "open-truncate": open_truncate, "read": read,
    "read-direct": read_direct, "rename": os.rename, "rename-new": rename_with(NOREPLACE),
    "rename-whiteout": rename_with(WHITEOUT), "read-nowait": read_nowait,
    "rewrite": rewrite, "rmdir": os.rmdir, "scatter": scatter, "seek": seek, "setflags": setflags,
    "setxflags": setxflags, "splice": splice, "swapoff": swapoff, "swapon": swapon,
    "truncate": truncate, "unlink": os.unlink, "unmount": unmount, "write": write,
    "write-direct": write_direct,
}


def answer(folder, operation, *arguments):
    try:
        os.chdir(folder)
        return OPERATIONS[operation](*arguments) or "OK"
    except OSError as error:
        return errno.errorcode[error.errno]
    except Exception as error:  # A wrong request must not end the server.
        return f"wrong request: {error!r}"
    finally:
        while opened:
            os.close(opened.pop())
        os.chdir("/")


for line in sys.stdin:
    print(answer(*line.rstrip("\n").split("\t")), ".", sep="\n", flush=True)
