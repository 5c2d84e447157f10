# SPDX-License-Identifier: GPL-2.0
"""The operations of the system-call fuzzer: each does one thing with arguments that its worker
chooses, and names the errors that this may end in."""
import errno
import mmap
import os
import socket
import stat
import struct

import oxfsctl
from fuzzlib import BLOCK, CHANGE, DATA, FILES, MIB, NAME, NOISE, OPEN, SWAPS, checked, ioctl, libc, \
    operation

FICLONE, FICLONERANGE, FIDEDUPERANGE = 0x40049409, 0x4020940D, 0xC0189436
FIFREEZE, FITHAW, FITRIM, FIEMAP = 0xC0045877, 0xC0045878, 0xC0185879, 0xC020660B
GETFLAGS, SETFLAGS, GETVERSION = 0x80086601, 0x40086602, 0x80087601
FSGETXATTR, FSSETXATTR = 0x801C581F, 0x401C5820
SYS_FILE_SETATTR = 469
AT_FDCWD, AT_EMPTY_PATH = -100, 0x1000
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
# Immutable, append only, no dump, no atime, sync, dirsync, nocow, dax, casefold: the first two are rare.
FLAGS = [0x40, 0x80, 0x8, 0x800000, 0x10000]
REMOUNT, READ_ONLY, NOATIME = 32, 1, 1024


def set_up(top):
    """What there is at the beginning, so that most names mean something."""
    for name in ("s0", "s1"):
        oxfsctl.create(os.path.join(top, name))
    for name in ("d0", "d1", "d0/e0", "s0/d0"):
        os.mkdir(os.path.join(top, name))
    oxfsctl.create(os.path.join(top, "d0/s2"))
    for folder in ("", "d0", "s0", "s0/d0"):
        for name in FILES:
            with open(os.path.join(top, folder, name), "wb") as file:
                file.write(name.encode() * 5000)


# Files


@operation(24, OPEN, errno.EEXIST, errno.EINVAL, errno.EOPNOTSUPP)
def open_(w):
    flags = w.pick([os.O_RDONLY, os.O_WRONLY] + [os.O_RDWR] * 10)
    if w.below(4):
        flags |= os.O_CREAT | w.bits(os.O_EXCL)
    for flag in (os.O_APPEND, os.O_DIRECT, os.O_SYNC, os.O_DSYNC, os.O_TRUNC, os.O_NOATIME):
        flags |= flag if w.one_in(12) else 0
    for flag in (os.O_DIRECTORY, os.O_NOFOLLOW, os.O_PATH):
        flags |= flag if w.one_in(40) else 0
    slot = w.slot()
    w.keep(slot, os.open(w.path(), flags | os.O_NONBLOCK, w.pick([0o600, 0o644, 0o4755, 0])))


@operation(4, OPEN, errno.EINVAL, errno.EOPNOTSUPP)
def open_unnamed(w):
    slot = w.slot()
    flags = os.O_TMPFILE | os.O_RDWR | w.bits(os.O_EXCL, os.O_DIRECT)
    w.keep(slot, os.open(w.folder(), flags, 0o600))


@operation(5, NAME, CHANGE, errno.EEXIST, errno.EXDEV, errno.EMLINK)
def link_open(w):
    """Gives a file a name by its descriptor: also one that was made without."""
    os.link(f"/proc/self/fd/{w.file()}", w.path(), follow_symlinks=True)


@operation(4)
def close(w):
    w.keep(w.slot(), None)


@operation(24, DATA, errno.ENXIO)
def write(w):
    w.noted.append(os.pwrite(w.file(), w.content(w.small()), max(w.at(), 0)))


@operation(10, DATA, errno.EOPNOTSUPP, errno.EAGAIN, errno.EPIPE)
def write_vector(w):
    parts = [w.content(w.small() // 4 + 1) for _ in range(w.below(4) + 1)]
    os.pwritev(w.file(), parts, w.at(), w.pick([0, 0, os.RWF_DSYNC, os.RWF_SYNC, os.RWF_APPEND]))


def aligned(w):
    """A part of the worker's memory that direct I/O takes, most of the time."""
    length = w.small() // BLOCK * BLOCK or BLOCK
    start = 0 if w.below(10) else w.below(BLOCK)
    return memoryview(w.memory)[start:start + length]


@operation(10, OPEN, DATA)
def write_direct(w):
    with aligned(w) as part:
        os.preadv(w.noise, [part], w.below(NOISE // BLOCK) * BLOCK)
        os.pwritev(reopened(w, os.O_WRONLY | os.O_DIRECT), [part], abs(w.at()) & -512)


@operation(8, OPEN, DATA)
def read_direct(w):
    with aligned(w) as part:
        os.preadv(reopened(w, os.O_RDONLY | os.O_DIRECT), [part], abs(w.at()) & -512)


def reopened(w, flags):
    """The file of a slot, open in another way, in the next slot."""
    fd = os.open(f"/proc/self/fd/{w.file()}", flags | os.O_NONBLOCK)
    w.keep(w.below(len(w.slots)), fd)
    return fd


@operation(10, DATA)
def read(w):
    os.pread(w.file(), w.small(), w.at())


def mapping(w, how):
    """Some pages of a file, mapped shared."""
    fd, offset = w.file(), w.below(32) * BLOCK
    return mmap.mmap(fd, w.small() // BLOCK * BLOCK or BLOCK, mmap.MAP_SHARED, how, offset=offset)


# A mapping beyond the end of the file is ValueError to Python; EFAULT is what SIGBUS would have been.
MAPPING = {errno.EFAULT, errno.EACCES, errno.ENODEV, errno.EPERM, errno.ETXTBSY, errno.EBADF, errno.EINVAL}


@operation(14, MAPPING, DATA)
def store(w):
    """The kernel copies into the mapping, which makes an error of what would be a signal."""
    with mapping(w, mmap.PROT_READ | mmap.PROT_WRITE) as memory:
        at = w.below(len(memory))
        with memoryview(memory) as view, view[at:] as part:
            os.preadv(w.noise, [part], w.below(NOISE // 2))
        if w.one_in(3):
            memory.flush()


@operation(4, MAPPING, DATA)
def store_from_map(w):
    """Writes to a file from a mapping, which may be one of the same range of the same file."""
    with mapping(w, mmap.PROT_READ) as memory, memoryview(memory) as view:
        os.pwritev(w.file(), [view], w.below(32) * BLOCK)


@operation(2, MAPPING, OPEN, DATA)
def direct_from_map(w):
    with mapping(w, mmap.PROT_READ | mmap.PROT_WRITE) as memory, memoryview(memory) as view:
        call = w.pick([os.pwritev, os.preadv])
        fd = reopened(w, os.O_RDWR | os.O_DIRECT)
        call(fd, [view], w.below(32) * BLOCK)


@operation(10, NAME, DATA)
def truncate(w):
    if w.one_in(2):
        os.truncate(w.path(), w.at())
    else:
        os.ftruncate(w.file(), w.at())


@operation(16, DATA, errno.EOPNOTSUPP, errno.ENODEV)
def fallocate(w):
    mode = w.pick([0, 1, 3, 3, 8, 0x10, 0x11, 0x20, 0x40, 0x41, 0x80, w.below(256)])
    length = w.at() if w.one_in(8) else w.small()
    checked(libc.fallocate(w.file(), mode, w.at(), length))


@operation(6, DATA, errno.EXDEV, errno.EOPNOTSUPP)
def clone(w):
    ioctl_number(w.file(), FICLONE, w.file())


def ioctl_number(fd, request, number):
    checked(libc.ioctl(fd, request, number))


@operation(12, DATA, errno.EXDEV, errno.EOPNOTSUPP)
def clone_range(w):
    source, target = w.file(), w.file()
    at, length, to = w.at(), w.at(), w.at()
    if w.below(4):
        at, length, to = (value & -BLOCK & (1 << 63) - 1 for value in (at, length, to))
    ioctl(target, FICLONERANGE, struct.pack("qQQQ", source, at & (1 << 64) - 1, length & (1 << 64) - 1,
                                            to & (1 << 64) - 1))


@operation(8, DATA, errno.EXDEV, errno.EOPNOTSUPP, errno.EACCES)
def dedupe(w):
    source, count = w.file(), w.below(3) + 1
    data = struct.pack("QQHHI", w.below(32) * BLOCK, w.small(), count, 0, 0)
    data += b"".join(struct.pack("qQQiI", w.file(), w.below(32) * BLOCK, 0, 0, 0) for _ in range(count))
    answer = ioctl(source, FIDEDUPERANGE, data)
    for index in range(count):
        status = struct.unpack_from("i", answer, 24 + 32 * index + 24)[0]
        if status < 0:
            raise OSError(-status, "")


@operation(8, DATA, errno.EXDEV, errno.EOVERFLOW)
def copy_range(w):
    os.copy_file_range(w.file(), w.file(), w.small(), max(w.at(), 0), max(w.at(), 0))


@operation(3, DATA, errno.EAGAIN)
def splice(w):
    ends = os.pipe2(os.O_NONBLOCK)
    try:
        os.write(ends[1], w.content(w.below(BLOCK * 8) + 1))
        os.splice(ends[0], w.file(), BLOCK * 4, offset_dst=w.below(1 << 18))
        os.splice(w.file(), ends[1], BLOCK * 8, offset_src=w.below(1 << 18))
    finally:
        for end in ends:
            os.close(end)


@operation(6, errno.EINVAL, errno.ENXIO, errno.EBADF, errno.ESPIPE)
def seek(w):
    os.lseek(w.file(), w.at(), w.pick([os.SEEK_DATA, os.SEEK_HOLE, os.SEEK_END]))


@operation(6, errno.EBADF, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.EBADR, errno.EFBIG)
def fiemap(w):
    count = w.below(40)
    head = struct.pack("QQIIII", max(w.at(), 0), max(w.at(), 0), w.bits(1, 2, 4), 0, count, 0)
    ioctl(w.file(), FIEMAP, head + bytes(56 * count))


@operation(6, errno.EBADF, errno.EINVAL, errno.EROFS)
def fsync(w):
    w.pick([os.fsync, os.fdatasync])(w.file())


@operation(2, errno.EBADF, errno.ESPIPE, errno.EINVAL)
def sync_range(w):
    checked(libc.sync_file_range(w.file(), w.below(1 << 18), w.small(), w.below(8)))


@operation(2, errno.ESPIPE, errno.EBADF)
def forget(w):
    os.posix_fadvise(w.file(), 0, 0, w.pick([os.POSIX_FADV_DONTNEED, os.POSIX_FADV_WILLNEED]))


# Names


@operation(10, NAME, CHANGE, errno.EISDIR, errno.ENOTEMPTY, errno.ETXTBSY)
def unlink(w):
    os.unlink(w.path())


@operation(10, NAME, CHANGE, errno.EEXIST, errno.EMLINK)
def mkdir(w):
    os.mkdir(w.folder() if w.one_in(2) else w.path(), 0o755)


@operation(4, NAME, CHANGE, errno.ENOTEMPTY, errno.EBUSY, errno.EINVAL)
def rmdir(w):
    os.rmdir(w.folder() if w.one_in(2) else w.path())


@operation(20, NAME, CHANGE, errno.EEXIST, errno.EXDEV, errno.EINVAL, errno.EISDIR, errno.ENOTEMPTY,
           errno.EBUSY, errno.EMLINK, errno.ETXTBSY)
def rename(w):
    old = w.folder() if w.one_in(6) else w.path()
    new = w.folder() if w.one_in(6) else w.path()
    flags = w.pick([0, 0, 0, NOREPLACE, EXCHANGE, EXCHANGE, WHITEOUT, w.below(16)])
    checked(libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags))


@operation(8, NAME, CHANGE, errno.EEXIST, errno.EXDEV, errno.EMLINK)
def link(w):
    os.link(w.path(), w.path(), follow_symlinks=False)


@operation(5, NAME, CHANGE, errno.EEXIST)
def symlink(w):
    target = w.pick(["f0", "../f1", "d0", "l0", "s0/f0"]) if w.below(4) else "t" * (w.below(4100) + 1)
    os.symlink(target, w.path(["l0", "l1", "l2"]))


@operation(3, NAME, CHANGE, errno.EEXIST, errno.EINVAL)
def mknod(w):
    kind = w.pick([stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFREG, stat.S_IFDIR])
    os.mknod(w.path(["x0", "x1"]), kind | 0o600, 0)


@operation(2, NAME, CHANGE, errno.EADDRINUSE)
def bind(w):
    os.chdir(w.folder())
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(w.pick(["x0", "x1"]))
    finally:
        os.chdir("/")


@operation(8, NAME, errno.EINVAL)
def look(w):
    choice, path = w.below(4), w.path()
    if choice == 0:
        os.stat(path)
    elif choice == 1:
        os.listdir(w.folder())
    elif choice == 2:
        os.statvfs(path)
    else:
        os.readlink(w.path(["l0", "l1", "l2"]))


# Attributes


@operation(6, NAME, CHANGE, errno.ETXTBSY, errno.EOPNOTSUPP, errno.EBADF)
def attributes(w):
    choice, path = w.below(4), w.path()
    if choice == 0:
        os.chmod(path, w.pick([0o600, 0o6755, 0o1777, 0]))
    elif choice == 1:
        os.chown(path, w.below(3) - 1, w.below(3) - 1, follow_symlinks=False)
    elif choice == 2:
        times = w.random.choice([0, 1 << 34, -(1 << 34), 1 << 62]) // 2
        os.utime(path, ns=(0, times), follow_symlinks=False)
    else:
        os.utime(w.file())


XATTRS = ["user.a", "user.b", "trusted.c", "security.d", "user." + "n" * 250, "user.", "user." + "n" * 251,
          "wrong.e", "system.other"]


@operation(10, NAME, CHANGE, errno.EEXIST, errno.ENODATA, errno.ERANGE, errno.E2BIG, errno.EINVAL,
           errno.EOPNOTSUPP, errno.EPERM)
def set_xattr(w):
    size = w.below(1 << (2 + w.below(12))) if w.below(10) else 65536
    value = w.content(min(size, 65536))
    os.setxattr(w.path(), w.pick(XATTRS), value, w.below(4) % 3, follow_symlinks=w.one_in(2))


@operation(4, NAME, CHANGE, errno.ENODATA, errno.EINVAL, errno.EOPNOTSUPP, errno.ERANGE)
def remove_xattr(w):
    path = w.path()
    if w.one_in(2):
        os.listxattr(path, follow_symlinks=False)
    if w.one_in(2):
        os.getxattr(path, w.pick(XATTRS))
    os.removexattr(path, w.pick(XATTRS))


@operation(4, NAME, CHANGE, errno.EINVAL, errno.EOPNOTSUPP, errno.EACCES, errno.ENODATA)
def set_acl(w):
    """A list with some named users: most are valid."""
    entries = [(1, w.below(8), -1)] + [(2, w.below(8), user) for user in range(w.below(20))]
    entries += [(4, w.below(8), -1), (0x10, w.below(8), -1), (0x20, w.below(8), -1)]
    if w.one_in(8):
        entries.pop(w.below(len(entries)))
    value = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    name = w.pick(["system.posix_acl_access", "system.posix_acl_default"])
    path = w.folder() if w.one_in(2) else w.path()
    if w.one_in(5):
        os.removexattr(path, name)
    else:
        os.setxattr(path, name, value)


@operation(5, errno.EPERM, errno.EROFS, errno.EOPNOTSUPP, errno.EINVAL, errno.ETXTBSY, errno.ENOTTY,
           errno.EBADF, errno.ENOSPC)
def set_flags(w):
    fd = w.file()
    (flags,) = struct.unpack("I4x", ioctl(fd, GETFLAGS, bytes(8)))
    w.noted.append(hex(flags))
    new = w.bits(*FLAGS) | (w.bits(0x10, 0x20) if w.one_in(8) else 0) | (1 << w.below(32) if w.one_in(8) else 0)
    # What cannot be changed back keeps swapping.
    if w.damaged:
        new &= ~0x30
    ioctl(fd, SETFLAGS, struct.pack("I4x", new))
    ioctl(fd, GETVERSION, bytes(8))
    # Else soon nothing can be changed any more.
    if new & 0x30 and w.below(3):
        ioctl(fd, SETFLAGS, struct.pack("I4x", 0))


@operation(4, errno.EPERM, errno.EROFS, errno.EOPNOTSUPP, errno.EINVAL, errno.ETXTBSY, errno.ENOTTY,
           errno.EBADF, errno.ENOSPC)
def set_extended_flags(w):
    fd = w.file()
    ioctl(fd, FSGETXATTR, bytes(28))
    flags = w.bits(0x40, 0x20, 0x200) | (1 << w.below(32) if w.one_in(6) else 0)
    ioctl(fd, FSSETXATTR, struct.pack("IIIII8x", flags & ~0x18, w.below(2) * BLOCK, 0, w.below(4), 0))


@operation(2, NAME, errno.EPERM, errno.EROFS, errno.EOPNOTSUPP, errno.EINVAL, errno.ETXTBSY, errno.E2BIG,
           errno.ENOSPC)
def file_setattr(w):
    data = struct.pack("QIIII", w.bits(0x40, 0x20, 0x200), 0, 0, w.below(4), 0) + bytes(w.below(3) * 8)
    checked(libc.syscall(SYS_FILE_SETATTR, AT_FDCWD, os.fsencode(w.path()), data, len(data), 0))


@operation(4, NAME, errno.EOPNOTSUPP)
def get_handle(w):
    w.handles = w.handles[-9:] + [oxfsctl.handle(w.path())]


@operation(4, errno.ESTALE, errno.EINVAL, errno.ENXIO, errno.ELOOP, errno.ETXTBSY, errno.EROFS, errno.EPERM)
def open_handle(w):
    """One of this worker's, or of nobody's."""
    text = w.random.choice(w.handles) if w.handles else "1:00"
    if w.one_in(3):
        kind, content = text.split(":")
        content = bytearray.fromhex(content)
        content[w.below(len(content))] ^= 1 << w.below(8)
        text = f"{int(kind) + w.below(2)}:{content[:w.below(40)].hex()}"
    if text.endswith(":"):
        text += "00"
    w.keep(w.slot(), oxfsctl.open_handle(w.top, text))


# Subvolumes


SUBVOLUMES = ["s0", "s1", "d0/s2", "p0", "p1", "d1/p2", "s0/p3", "s0/s4"]


# A name may have become that of anything.
SUBVOLUME = NAME | CHANGE | {errno.EINVAL, errno.EXDEV, errno.ENXIO, errno.ENOTTY}


def subvolume(w):
    return os.path.join(w.top, w.pick(SUBVOLUMES))


@operation(5, SUBVOLUME, errno.EEXIST)
def create_subvolume(w):
    oxfsctl.create(subvolume(w), reserved=int(w.one_in(12)))


@operation(7, SUBVOLUME, errno.EEXIST, errno.EBADF)
def snapshot(w):
    source = w.pick([w.top, subvolume(w), subvolume(w)])
    path = os.path.join(w.top, w.pick(["p0", "p1", "d1/p2", "s0/p3"]))
    oxfsctl.create(path, source, w.pick([0, 0, 1, 2]))


@operation(5, SUBVOLUME, errno.EBUSY, errno.ENOTEMPTY, errno.ETXTBSY)
def delete_subvolume(w):
    oxfsctl.delete(subvolume(w))


@operation(5, SUBVOLUME, errno.EBUSY, errno.ETXTBSY)
def set_read_only(w):
    oxfsctl.set_read_only(subvolume(w), w.pick([0, 0, 0, 1, 2]))


@operation(2, SUBVOLUME)
def set_default(w):
    oxfsctl.set_default(w.top, w.pick([0, 0, 1, 2, 3, 1 << 40]))


@operation(4, SUBVOLUME)
def subvolume_info(w):
    w.noted.append(oxfsctl.info(w.folder(), w.below(9), w.pick([0, 1, 2, 3, 4])).path)


@operation(3)
def usage(w):
    with oxfsctl.Opened(w.top) as fd:
        ioctl(fd, oxfsctl.USAGE, bytes(152))


@operation(3, errno.ENOTTY, errno.EINVAL, errno.ENOENT, errno.EOPNOTSUPP, errno.EBADF, errno.EFAULT,
           errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EXDEV,
           errno.ETXTBSY, errno.EBUSY, errno.ENOSPC, errno.E2BIG, errno.ENOTBLK,
           errno.EISDIR, errno.EBADR, errno.EFBIG, errno.EOVERFLOW, errno.EINPROGRESS,
           errno.ENOMEM)  # what FIDEDUPERANGE says of too many ranges
def any_ioctl(w):
    """Of this filesystem's numbers, and of those beside them, with anything for an argument."""
    number = oxfsctl.number(w.below(4), w.below(12), w.pick([312, 296, 3256, 40, 152, 3200, 0, 8, 16383]))
    if w.one_in(2):
        number = w.pick([oxfsctl.CREATE, oxfsctl.DELETE, oxfsctl.INFO, oxfsctl.SET_FLAGS,
                         oxfsctl.SWAP_STATUS, FITRIM, FIEMAP, FIDEDUPERANGE, SETFLAGS, FSSETXATTR])
    data = w.content(64) if w.one_in(2) else bytes(64)
    data += bytes(3300) if w.one_in(2) else w.content(3300)
    if w.one_in(8):
        checked(libc.ioctl(w.file(), number, w.pick([0, 1, (1 << 63) - 8, 1 << 47])))
    else:
        ioctl(w.file(), number, data)


# The volume


@operation(2, errno.EROFS)
def sync(w):
    with oxfsctl.Opened(w.top) as fd:
        w.pick([os.sync, lambda: checked(libc.syncfs(fd))])()


@operation(2, errno.EROFS, errno.EINVAL, errno.ENOSPC)
def label(w):
    oxfsctl.label(w.top, "l" * w.below(256) if w.one_in(2) else None)


@operation(1, errno.EINVAL, errno.EROFS, errno.EOPNOTSUPP)
def trim(w):
    with oxfsctl.Opened(w.top) as fd:
        start, length, least = (abs(w.at()) for _ in range(3))
        ioctl(fd, FITRIM, struct.pack("QQQ", start, w.pick([length, (1 << 64) - 1]), least))


@operation(1, errno.EBUSY, errno.EINVAL, errno.EROFS, errno.ENOSPC, errno.EFBIG, errno.EINPROGRESS)
def resize(w):
    """Mostly back to all that there is, and at least half of it."""
    with oxfsctl.Opened(w.top) as fd:
        size = w.pick([oxfsctl.NONE, oxfsctl.NONE, (128 + w.below(128)) * MIB, w.below(300) * MIB, abs(w.at())])
        ioctl(fd, oxfsctl.RESIZE, struct.pack("<5Q", size, int(w.one_in(12)), 0, 0, 0))


@operation(2, errno.EBUSY, errno.EINVAL, errno.EROFS)
def freeze(w):
    """With reads in between. Another worker may thaw it first, or have frozen it."""
    with oxfsctl.Opened(w.top) as fd:
        ioctl_number(fd, FIFREEZE, 0)
        try:
            os.listdir(fd)
            os.statvfs(fd)
            os.read(w.noise, 1)
        finally:
            ioctl_number(fd, FITHAW, 0)


@operation(1, errno.EBUSY, errno.EINVAL, errno.EROFS)
def remount(w):
    """Read-only is for nobody who has a file open for writing."""
    option = w.pick([b"commit=1", b"commit=30", b"", b"commit=0", b"wrong", b"subvol=s0"])
    if w.one_in(2):
        checked(libc.mount(b"none", os.fsencode(w.top), None, REMOUNT | READ_ONLY, b""))
        checked(libc.mount(b"none", os.fsencode(w.top), None, REMOUNT, b""))
    else:
        checked(libc.mount(b"none", os.fsencode(w.top), None, REMOUNT | w.bits(NOATIME), option))


@operation(2, NAME, CHANGE, errno.EBUSY, errno.EINVAL, errno.ENOTEMPTY)
def mount_again(w):
    """The same volume at another place, by a subvolume."""
    place = f"/mnt/fuzz{w.number}"
    os.makedirs(place, exist_ok=True)
    option = w.pick(["", "subvol=s0", "subvol=p0", "subvolid=0", "subvolid=2", "subvol=d0/s2", "subvol=f0"])
    checked(libc.mount(os.fsencode(w.device), os.fsencode(place), b"oxfs", 0, option.encode()))
    try:
        os.listdir(place)
        os.mkdir(os.path.join(place, "e0"))
    except FileExistsError:
        os.rmdir(os.path.join(place, "e0"))
    finally:
        checked(libc.umount2(os.fsencode(place), 2))


@operation(1)
def drop_caches(w):
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
        file.write(str(w.below(3) + 1))


# Swapfiles


@operation(6, OPEN, DATA, errno.EOPNOTSUPP)
def make_swap(w):
    """A swapfile, in one of the ways in which one comes to be; sometimes not a good one."""
    pages = w.below(200) + 8
    fd = os.open(w.swap_path(), os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o600)
    try:
        how = w.pick(["allocated", "written", "cloned", "sparse"])
        if how == "allocated":
            checked(libc.fallocate(fd, 0, 0, pages * BLOCK))
        elif how == "written":
            os.pwrite(fd, w.content(pages * BLOCK), 0)
        elif how == "sparse":
            os.ftruncate(fd, pages * BLOCK)
        else:
            ioctl_number(fd, FICLONE, w.file())
        header = bytearray(BLOCK)
        last = max(os.fstat(fd).st_size // BLOCK, 2) - 1 + w.below(60) // 59
        last = min(last, 0xffffffff)
        struct.pack_into("<III", header, 1024, 1, last, 0)
        header[-10:] = b"SWAPSPACE2"
        os.pwrite(fd, header, 0)
    finally:
        os.close(fd)


# Swapping is on for so long, as more may be than the table has room for.
@operation(8, NAME, errno.EINVAL, errno.EBUSY, errno.EROFS, errno.ENOSPC, errno.EPERM, errno.EISDIR,
           errno.ETXTBSY, errno.ENXIO)
def swap_on(w):
    checked(libc.swapon(os.fsencode(w.swap_path()), w.pick([0, 0, 0x8001, 0x10000, 0x70000])))


@operation(6, NAME, errno.EINVAL, errno.EROFS, errno.EPERM, errno.EISDIR, errno.ETXTBSY, errno.ENXIO)
def swap_off(w):
    checked(libc.swapoff(os.fsencode(w.swap_path())))


@operation(2)
def page_out(w):
    """Fills the worker's memory, has it swapped out, and compares."""
    length = 64 * BLOCK
    content = w.content(length)
    w.memory[MIB:MIB + length] = content
    w.memory.madvise(21, MIB, length)
    if w.memory[MIB:MIB + length] != content:
        # As it may where an extent is wrong about whose it is.
        raise OSError(errno.EUCLEAN, "swapped memory came back with other content")


@operation(2, errno.ENOENT, errno.EPERM)
def swap_status(w):
    with oxfsctl.Opened(w.top) as fd:
        ioctl(fd, oxfsctl.SWAP_STATUS, struct.pack("Q", 0).ljust(3200, b"\0"))
