// SPDX-License-Identifier: GPL-2.0

//! What programs ask of a mounted volume by ioctl(2): the numbers and the structures, compiled into
//! the module and into the host crate from this one file.
//!
//! Every request is made on an open file or directory of the filesystem. All numbers are in the
//! machine's byte order; structures have a fixed size and no hidden padding. A field `reserved` is
//! zero, and so is a flag that has no name here: anything else is `EINVAL`, so that either can get a
//! meaning later. The magic number is one that the kernel's list has free.
//!
//! | request | on | who may |
//! |---|---|---|
//! | [`SUBVOL_CREATE`] | the directory that gets the name | who may write there; for a snapshot `CAP_SYS_ADMIN`, see below |
//! | [`SUBVOL_DELETE`] | the directory that holds the name | `CAP_SYS_ADMIN` |
//! | [`SUBVOL_INFO`] | anything | who has it open for the subvolume that it is in; else `CAP_SYS_ADMIN` |
//! | [`SUBVOL_SET_FLAGS`] | the root directory of the subvolume | `CAP_SYS_ADMIN`, see below |
//! | [`SUBVOL_SET_DEFAULT`] | anything | `CAP_SYS_ADMIN` |
//! | [`USAGE`] | anything | anybody |
//! | [`SWAP_STATUS`] | anything | `CAP_SYS_ADMIN` |
//! | [`RESIZE`] | anything | `CAP_SYS_ADMIN` |
//!
//! A snapshot, and the change of a flag, wait until no write of anybody is under way, and one that
//! waits itself (a `splice` from an empty pipe) has all later writers wait as well: so this is not
//! for users, though it may be their subvolume.

use core::mem::size_of;
use zerocopy_derive as disk;

/// The `type` of all numbers.
const MAGIC: u32 = 0xda;

/// Bytes of a name, the last of which is 0.
pub const NAME_SIZE: usize = 256;
/// Bytes of a path, the last of which is 0.
pub const PATH_SIZE: usize = 3072;
/// In a field that is `None`: there is no home, no source, no figure.
pub const NONE: u64 = u64::MAX;

/// Flag of [`SubvolCreate`] and [`SubvolSetFlags`]: nothing in the subvolume can be changed.
pub const SUBVOL_READ_ONLY: u64 = 1;

/// Flag of [`SubvolInfo`]: the first subvolume that has an id of at least `id`.
pub const INFO_NEXT: u64 = 1;
/// Flag of [`SubvolInfo`]: the subvolume that the file is in.
pub const INFO_OF_FILE: u64 = 2;

/// Bit of `SubvolInfo::state`: nothing in it can be changed.
pub const STATE_READ_ONLY: u64 = 1;
/// Bit of `SubvolInfo::state`: deleted, its space is on the way back.
pub const STATE_DROPPING: u64 = 2;
/// Bit of `SubvolInfo::state`: what a mount without `subvol=` shows.
pub const STATE_DEFAULT: u64 = 4;

/// Creates a subvolume, empty or as a snapshot of another, under a name in a directory.
#[derive(
    Debug, Clone, Copy, disk::FromBytes, disk::IntoBytes, disk::Immutable, disk::KnownLayout,
)]
#[repr(C)]
pub struct SubvolCreate {
    /// [`SUBVOL_READ_ONLY`].
    pub flags: u64,
    /// An open root directory of the subvolume to snapshot; -1: an empty subvolume.
    pub source_fd: i64,
    /// The name, ended by a zero byte.
    pub name: [u8; NAME_SIZE],
    /// Out: the id of the new subvolume.
    pub id: u64,
    /// Zero.
    pub reserved: [u64; 4],
}

/// Deletes a subvolume by its name in a directory. Its space comes back later.
#[derive(
    Debug, Clone, Copy, disk::FromBytes, disk::IntoBytes, disk::Immutable, disk::KnownLayout,
)]
#[repr(C)]
pub struct SubvolDelete {
    /// Zero.
    pub flags: u64,
    /// The name, ended by a zero byte.
    pub name: [u8; NAME_SIZE],
    /// Zero.
    pub reserved: [u64; 4],
}

/// Tells about one subvolume. `ENOENT` if there is no such one.
#[derive(
    Debug, Clone, Copy, disk::FromBytes, disk::IntoBytes, disk::Immutable, disk::KnownLayout,
)]
#[repr(C)]
pub struct SubvolInfo {
    /// The subvolume.
    pub id: u64,
    /// Which one is asked for: none (that with this `id`), [`INFO_NEXT`] or [`INFO_OF_FILE`].
    pub flags: u64,
    /// Out: bits of [`STATE_READ_ONLY`], [`STATE_DROPPING`], [`STATE_DEFAULT`].
    pub state: u64,
    /// Out: the subvolume that has its name, or [`NONE`].
    pub home_subvol: u64,
    /// Out: the inode number there of the directory that stands for it, or [`NONE`].
    pub home_ino: u64,
    /// Out: the subvolume of which it was a snapshot, or [`NONE`].
    pub source: u64,
    /// Out: its UUID.
    pub uuid: [u8; 16],
    /// Out: the UUID of its source, or zeros.
    pub source_uuid: [u8; 16],
    /// Out: the generation in which it was last changed.
    pub generation: u64,
    /// Out: when it was created, seconds since 1970.
    pub created_sec: i64,
    /// Out: and nanoseconds.
    pub created_nsec: u32,
    /// Zero.
    pub pad: u32,
    /// Out: while it is dropped, the blocks that came back so far, or [`NONE`].
    pub dropped_blocks: u64,
    /// Out: bytes of `path`.
    pub path_len: u32,
    /// Zero.
    pub pad2: u32,
    /// Out: its path from the top level, without a slash before it; empty for the top level itself, and
    /// where it cannot be told: when it is longer than this, or just being changed.
    pub path: [u8; PATH_SIZE],
    /// Zero.
    pub reserved: [u64; 8],
}

/// Sets the flags of a subvolume.
#[derive(
    Debug, Clone, Copy, disk::FromBytes, disk::IntoBytes, disk::Immutable, disk::KnownLayout,
)]
#[repr(C)]
pub struct SubvolSetFlags {
    /// [`SUBVOL_READ_ONLY`] or none.
    pub flags: u64,
    /// Zero.
    pub reserved: [u64; 4],
}

/// Chooses the subvolume that a mount without `subvol=` shows.
#[derive(
    Debug, Clone, Copy, disk::FromBytes, disk::IntoBytes, disk::Immutable, disk::KnownLayout,
)]
#[repr(C)]
pub struct SubvolSetDefault {
    /// The subvolume.
    pub id: u64,
    /// Zero.
    pub reserved: [u64; 4],
}

/// What the space of the volume is used for, in blocks. [`NONE`]: not known cheaply.
#[derive(
    Debug, Clone, Copy, disk::FromBytes, disk::IntoBytes, disk::Immutable, disk::KnownLayout,
)]
#[repr(C)]
pub struct Usage {
    /// Bytes in a block.
    pub block_size: u64,
    /// Blocks of the volume.
    pub blocks: u64,
    /// Blocks that nothing uses.
    pub free: u64,
    /// Blocks that data may still take.
    pub available: u64,
    /// Blocks freed that come back with the next commit.
    pub pinned: u64,
    /// Blocks promised to data that was not written yet.
    pub reserved_data: u64,
    /// Blocks that only metadata may take.
    pub metadata_reserve: u64,
    /// Blocks of tree nodes.
    pub metadata_blocks: u64,
    /// Private blocks of swapfiles.
    pub swap_blocks: u64,
    /// Subvolumes, those that are being dropped too.
    pub subvolumes: u64,
    /// The running generation.
    pub generation: u64,
    /// Zero.
    pub reserved: [u64; 8],
}

/// Tells about one active swapfile. `ENOENT` past the last.
#[derive(
    Debug, Clone, Copy, disk::FromBytes, disk::IntoBytes, disk::Immutable, disk::KnownLayout,
)]
#[repr(C)]
pub struct SwapStatus {
    /// In: the first active swapfile with at least this inode number; out: its inode number, as
    /// stat(2) shows it.
    pub st_ino: u64,
    /// Out: pages that can be swapped to.
    pub pages: u64,
    /// Out: runs that the pages are in.
    pub extents: u64,
    /// Out: blocks that were allocated when it was activated.
    pub new_blocks: u64,
    /// Out: blocks that it had to itself already.
    pub kept_blocks: u64,
    /// Out: blocks that it had to itself and that were replaced so that runs are longer.
    pub moved_blocks: u64,
    /// Out: 1 if large folios are swapped whole.
    pub whole: u32,
    /// Out: bytes of `path`.
    pub path_len: u32,
    /// Out: where the file begins on the device, in pages: what `resume_offset=` wants.
    pub first_block: u64,
    /// Out: its path from the top level, without a slash before it; empty if not known.
    pub path: [u8; PATH_SIZE],
    /// Zero.
    pub reserved: [u64; 8],
}

/// Gives the volume another size. What is beyond a smaller one is moved, and a signal that kills ends
/// it: then, and after every error, the volume has the size that it had.
///
/// `EFBIG`: the device is smaller. `EINVAL`: no volume has that size. `ENOSPC`: what is in use has no
/// room in it. `EBUSY`: an active swapfile is in the way, which the log names. `EINPROGRESS`: the
/// volume is being resized.
#[derive(
    Debug, Clone, Copy, disk::FromBytes, disk::IntoBytes, disk::Immutable, disk::KnownLayout,
)]
#[repr(C)]
pub struct Resize {
    /// In: bytes, [`NONE`] for as many as the device has; out: the size that it got, which may be up
    /// to 8 MiB less.
    pub size: u64,
    /// Zero.
    pub reserved: [u64; 4],
}

/// `_IOW`: the kernel reads the structure.
const fn write<T>(number: u32) -> u32 {
    request(1, number, size_of::<T>())
}

/// `_IOR`: the kernel fills the structure.
const fn read<T>(number: u32) -> u32 {
    request(2, number, size_of::<T>())
}

/// `_IOWR`: both.
const fn update<T>(number: u32) -> u32 {
    request(3, number, size_of::<T>())
}

/// A number as `include/uapi/asm-generic/ioctl.h` makes it.
const fn request(direction: u32, number: u32, size: usize) -> u32 {
    assert!(size < 1 << 14);
    (direction << 30) | ((size as u32) << 16) | (MAGIC << 8) | number
}

/// Takes a [`SubvolCreate`].
pub const SUBVOL_CREATE: u32 = update::<SubvolCreate>(1);
/// Takes a [`SubvolDelete`].
pub const SUBVOL_DELETE: u32 = write::<SubvolDelete>(2);
/// Takes a [`SubvolInfo`].
pub const SUBVOL_INFO: u32 = update::<SubvolInfo>(3);
/// Takes a [`SubvolSetFlags`].
pub const SUBVOL_SET_FLAGS: u32 = write::<SubvolSetFlags>(4);
/// Takes a [`SubvolSetDefault`].
pub const SUBVOL_SET_DEFAULT: u32 = write::<SubvolSetDefault>(5);
/// Gives a [`Usage`].
pub const USAGE: u32 = read::<Usage>(6);
/// Takes a [`SwapStatus`].
pub const SWAP_STATUS: u32 = update::<SwapStatus>(7);

/// Takes a [`Resize`].
pub const RESIZE: u32 = update::<Resize>(8);

const _: () = {
    assert!(size_of::<SubvolCreate>() == 312);
    assert!(size_of::<SubvolDelete>() == 296);
    assert!(size_of::<SubvolInfo>() == 3256);
    assert!(size_of::<SubvolSetFlags>() == 40);
    assert!(size_of::<SubvolSetDefault>() == 40);
    assert!(size_of::<Usage>() == 152);
    assert!(size_of::<SwapStatus>() == 3200);
    assert!(size_of::<Resize>() == 40);
};
