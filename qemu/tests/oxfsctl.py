# SPDX-License-Identifier: GPL-2.0
"""The ioctls of oxfs (rust/uapi.rs), as plainly as they are: for fileop.py and for the tests'
own programs. Subvolumes are given by path. Errors are OSError, as the kernel told them."""
import ctypes
import fcntl
import os
import struct
from collections import namedtuple

libc = ctypes.CDLL(None, use_errno=True)


def number(direction, index, size):
    return direction << 30 | size << 16 | 0xDA << 8 | index


CREATE, DELETE, INFO = number(3, 1, 312), number(1, 2, 296), number(3, 3, 3256)
SET_FLAGS, SET_DEFAULT = number(1, 4, 40), number(1, 5, 40)
USAGE, SWAP_STATUS, RESIZE = number(2, 6, 152), number(3, 7, 3200), number(3, 8, 40)
GETLABEL, SETLABEL = 0x81009431, 0x41009432
READ_ONLY, NEXT, OF_FILE, NONE = 1, 1, 2, (1 << 64) - 1

Info = namedtuple("Info", "id state home_subvol home_ino source uuid source_uuid generation "
                  "created dropped path")


class Opened:
    """A folder or file, open for the time of a `with`."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        # Also of what would wait for another end.
        self.fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        return self.fd

    def __exit__(self, *_):
        os.close(self.fd)


def split(path):
    folder, name = os.path.split(path.rstrip("/"))
    return folder or ".", name


def create(path, source=None, flags=0, source_fd=None, reserved=0):
    """Returns the id."""
    folder, name = split(path)
    with Opened(folder) as parent, Opened(source or folder) as fd:
        fd = source_fd if source_fd is not None else fd if source else -1
        data = struct.pack("<Qq256sQ4Q", flags, fd, os.fsencode(name), 0, reserved, 0, 0, 0)
        return struct.unpack_from("<Q", fcntl.ioctl(parent, CREATE, data), 272)[0]


def delete(path):
    folder, name = split(path)
    with Opened(folder) as parent:
        fcntl.ioctl(parent, DELETE, struct.pack("<Q256s4Q", 0, os.fsencode(name), 0, 0, 0, 0))


def info(path, index=0, flags=OF_FILE):
    with Opened(path) as fd:
        # Larger than what fcntl.ioctl() copies.
        data = bytearray(struct.pack("<QQ", index, flags).ljust(3256, b"\0"))
        fcntl.ioctl(fd, INFO, data)
    number, _, state, home, home_ino, source, uuid, source_uuid, generation, sec, nsec, _, dropped, \
        length, _ = struct.unpack_from("<6Q16s16sQqIIQII", data)
    return Info(number, state, home, home_ino, source, uuid.hex(), source_uuid.hex(), generation,
                (sec, nsec), dropped, os.fsdecode(bytes(data[struct.calcsize("<6Q16s16sQqIIQII"):][:length])))


def infos(path):
    """All of the filesystem."""
    found, index = [], 0
    while True:
        try:
            found.append(info(path, index, NEXT))
        except FileNotFoundError:
            return found
        index = found[-1].id + 1


def set_read_only(path, flags):
    with Opened(path) as fd:
        fcntl.ioctl(fd, SET_FLAGS, struct.pack("<5Q", int(flags), 0, 0, 0, 0))


def set_default(path, index):
    with Opened(path) as fd:
        fcntl.ioctl(fd, SET_DEFAULT, struct.pack("<5Q", int(index), 0, 0, 0, 0))


def label(path, text=None):
    with Opened(path) as fd:
        if text is not None:
            fcntl.ioctl(fd, SETLABEL, os.fsencode(text).ljust(256, b"\0"))
        return os.fsdecode(fcntl.ioctl(fd, GETLABEL, bytes(256)).split(b"\0")[0])


def handle(path):
    """The file handle of a path: type, and bytes in hexadecimal."""
    data = ctypes.create_string_buffer(struct.pack("II", 128, 0), 8 + 128)
    mount = ctypes.c_int()
    if libc.name_to_handle_at(-100, os.fsencode(path), data, ctypes.byref(mount), 0) < 0:
        raise OSError(ctypes.get_errno(), "")
    size, kind = struct.unpack_from("Ii", data.raw)
    return f"{kind}:{data.raw[8:8 + size].hex()}"


def open_handle(mounted, text):
    """Opens it; the mount is given by a path on it."""
    kind, content = text.split(":")
    content = bytes.fromhex(content)
    data = ctypes.create_string_buffer(struct.pack("Ii", len(content), int(kind)) + content)
    with Opened(mounted) as fd:
        result = libc.open_by_handle_at(fd, data, os.O_RDONLY | os.O_NONBLOCK)
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result
