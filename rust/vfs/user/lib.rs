// SPDX-License-Identifier: GPL-2.0

//! The programs' side of the C boundary: the ioctls of [`uapi`] and those of every filesystem that
//! the tools use, as safe functions.
//!
//! No library offers an ioctl that is safe for any number: what the kernel does with the argument
//! follows from the number alone. Here the set is closed, and each number stands beside the type
//! that belongs to it, so that this crate has the only unsafe block of the programs. The kernel's
//! side is `rust/vfs/ioctl.rs`.

#[path = "../../uapi.rs"]
pub mod uapi;

use rustix::ioctl::{ioctl, Opcode, Updater};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use uapi::{
    Resize, SubvolCreate, SubvolDelete, SubvolInfo, SubvolSetDefault, SubvolSetFlags, SwapStatus,
    Usage,
};
use zerocopy::FromZeros;

/// Bytes of a label, the last of which is 0.
pub const LABEL_SIZE: usize = 256;

// include/uapi/linux/fs.h, fiemap.h
const FITRIM: u32 = 0xc018_5879;
const FS_IOC_GETFSLABEL: u32 = 0x8100_9431;
const FS_IOC_SETFSLABEL: u32 = 0x4100_9432;
const FS_IOC_FIEMAP: u32 = 0xc020_660b;

/// Makes request `OPCODE` with `value`.
fn call<const OPCODE: Opcode, T: FromZeros>(file: BorrowedFd<'_>, value: &mut T) -> io::Result<()> {
    // SAFETY: `OPCODE` is one of those that the functions below name, each with the type that the
    // kernel reads or writes for it: that size is part of the number (FIEMAP also writes
    // `extent_count` extents, for which `Fiemap` has room). Another filesystem that happens to have
    // the same number copies the same number of bytes. What the kernel wrote is a `T`, whatever it
    // is: all the types are made of integers.
    unsafe { ioctl(file, Updater::<OPCODE, T>::new(value)) }.map_err(Into::into)
}

/// Creates a subvolume or a snapshot in the directory.
pub fn subvol_create(dir: impl AsFd, request: &mut SubvolCreate) -> io::Result<()> {
    call::<{ uapi::SUBVOL_CREATE }, _>(dir.as_fd(), request)
}

/// Deletes a subvolume in the directory.
pub fn subvol_delete(dir: impl AsFd, request: &mut SubvolDelete) -> io::Result<()> {
    call::<{ uapi::SUBVOL_DELETE }, _>(dir.as_fd(), request)
}

/// Tells about a subvolume.
pub fn subvol_info(file: impl AsFd, request: &mut SubvolInfo) -> io::Result<()> {
    call::<{ uapi::SUBVOL_INFO }, _>(file.as_fd(), request)
}

/// Sets the flags of the subvolume whose root directory this is.
pub fn subvol_set_flags(root: impl AsFd, request: &mut SubvolSetFlags) -> io::Result<()> {
    call::<{ uapi::SUBVOL_SET_FLAGS }, _>(root.as_fd(), request)
}

/// Chooses the default subvolume.
pub fn subvol_set_default(file: impl AsFd, request: &mut SubvolSetDefault) -> io::Result<()> {
    call::<{ uapi::SUBVOL_SET_DEFAULT }, _>(file.as_fd(), request)
}

/// What the space is used for.
pub fn usage(file: impl AsFd) -> io::Result<Usage> {
    let mut usage = Usage::new_zeroed();
    call::<{ uapi::USAGE }, _>(file.as_fd(), &mut usage)?;
    Ok(usage)
}

/// Tells about an active swapfile.
pub fn swap_status(file: impl AsFd, request: &mut SwapStatus) -> io::Result<()> {
    call::<{ uapi::SWAP_STATUS }, _>(file.as_fd(), request)
}

/// Gives the filesystem `size` bytes, or with [`uapi::NONE`] all that the device has: the size that it
/// got.
pub fn resize(file: impl AsFd, size: u64) -> io::Result<u64> {
    let mut request = Resize::new_zeroed();
    request.size = size;
    call::<{ uapi::RESIZE }, _>(file.as_fd(), &mut request)?;
    Ok(request.size)
}

/// The label of the filesystem, ended by a zero byte.
pub fn label(file: impl AsFd) -> io::Result<[u8; LABEL_SIZE]> {
    let mut label = [0; LABEL_SIZE];
    call::<FS_IOC_GETFSLABEL, _>(file.as_fd(), &mut label)?;
    Ok(label)
}

/// Changes the label of the filesystem.
pub fn set_label(file: impl AsFd, mut label: [u8; LABEL_SIZE]) -> io::Result<()> {
    call::<FS_IOC_SETFSLABEL, _>(file.as_fd(), &mut label)
}

/// Discards the free space of the filesystem in runs of at least `min` bytes; how many bytes that
/// was.
pub fn trim(file: impl AsFd, min: u64) -> io::Result<u64> {
    let mut range = [0, u64::MAX, min];
    call::<FITRIM, _>(file.as_fd(), &mut range)?;
    Ok(range[1])
}

/// A run of a file's bytes, as `struct fiemap_extent` has it.
#[derive(Debug, Clone, Copy, Default, zerocopy_derive::FromBytes)]
#[repr(C)]
pub struct Extent {
    /// Offset in the file.
    pub logical: u64,
    /// Offset on the device.
    pub physical: u64,
    /// Bytes.
    pub length: u64,
    reserved: [u64; 2],
    /// Bits of [`extent_flag`].
    pub flags: u32,
    reserved2: [u32; 3],
}

/// `FIEMAP_EXTENT_*`.
pub mod extent_flag {
    /// The physical offset means nothing.
    pub const UNKNOWN: u32 = 2;
    /// Somebody else owns the same blocks.
    pub const SHARED: u32 = 0x2000;
}

/// `FIEMAP_FLAG_SYNC`: write back first.
const FIEMAP_SYNC: u32 = 1;

/// `struct fiemap` with room for one extent.
#[derive(zerocopy_derive::FromBytes)]
#[repr(C)]
struct Fiemap {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
    extents: [Extent; 1],
}

/// The first extent of a file at or after `offset`, after its delayed data was written.
pub fn first_extent(file: impl AsFd, offset: u64) -> io::Result<Option<Extent>> {
    let mut map = Fiemap::new_zeroed();
    map.start = offset;
    map.length = u64::MAX - offset;
    map.flags = FIEMAP_SYNC;
    map.extent_count = map.extents.len() as u32;
    call::<FS_IOC_FIEMAP, _>(file.as_fd(), &mut map)?;
    Ok((map.mapped_extents > 0).then_some(map.extents[0]))
}
